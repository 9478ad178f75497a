"""ZigZag accelerator files to a `Hierarchy`, without its memory compiler and in-memory computing.

A memory moves whole accesses of its port's narrowest width and is charged as that share of the widest
(found from its output, see `validation`): so ``width_bits`` is bandwidth_min and a read costs
r_cost * bandwidth_min / bandwidth_max. Bandwidths are bits per cycle, sizes bits, costs pJ.
"""

import math

import numpy as np

from diffhw._files.documents import (
    Table,
    check_keys,
    load_yaml,
    nearest,
    number,
    rows,
    table,
    whole,
)
from diffhw._files.zigzag import OPERANDS
from diffhw.hardware._hierarchy import Hierarchy, Memory

__all__ = ["array_axes", "read_zigzag", "zigzag_dims"]

_MEMORY = (
    "size",
    "r_cost",
    "w_cost",
    "area",
    "latency",
    "mem_type",
    "operands",
    "ports",
    "served_dimensions",
    "auto_cost_extraction",
    "force_double_buffering",
    "double_buffering_support",
    "shared_memory_group_id",
)
_OLD = ("r_bw", "w_bw", "r_port", "w_port", "rw_port", "min_r_granularity", "min_w_granularity")
_ARRAY = (
    "dimensions",
    "sizes",
    "unit_energy",
    "unit_area",
    "systolic_dimensions",
    "input_precision",
    "is_imc",
)
_IMC = ("imc_type", "adc_resolution", "bit_serial_precision", "cells_size", "group_depth", "group_size")
_KINDS = ("read", "write", "read_write")
UNLIMITED = 2**53


def read_zigzag(
    path, *, weight_bits=8, input_bits=8, psum_bits=16, output_bits=8, areas: bool = False
) -> Hierarchy:
    """A memory hierarchy from a ZigZag accelerator file.

    weight_bits, input_bits, psum_bits, output_bits: widths of words, which ZigZag keeps in the workload;
        outputs have ``output_bits`` in the outermost memory and ``psum_bits`` within.
    areas: True takes areas as mm2; the format leaves their unit open and example files fill in others.

    A memory's fan-out are the array dimensions that it serves and those inside do not: the first two along
    x and y, more on levels without memory inside it. Memories may stand in another order than in the file
    where they share no operand. Latencies and systolic dimensions are left out.

    Raises ValueError, one sentence with file, line and key. Refused by name: in-memory computing,
    auto_cost_extraction (costs from a memory compiler), the older keys r_bw, r_port ..., operands other than
    I1, I2, O, and memories of different operands that share different dimensions (no common order).
    """
    _, ordered, array = _read(path)
    sizes = array["sizes"]
    levels: list[Memory] = []
    served: set[str] = set()
    for place, (name, memory) in enumerate(ordered):
        new = [dim for dim in sizes if dim in memory["served"] and dim not in served]
        served |= set(new)
        outermost = place == len(ordered) - 1
        pairs = [new[k : k + 2] for k in range(0, len(new), 2)] or [[]]
        for k, pair in reversed(list(enumerate(pairs))):
            fan = dict(zip(("fanout_x", "fanout_y"), (sizes[dim] for dim in pair)))
            fan |= {
                f"spatial_{axis}": ""
                for axis, dim in zip("xy", [*pair, "", ""][:2])
                if sizes.get(dim, 1) == 1
            }
            if k:
                levels.append(Memory.create(name=f"{name} {' '.join(pair)}", keeps="", word_bits=1, **fan))
                continue
            try:
                levels.append(
                    Memory.create(
                        name=name,
                        keeps=memory["keeps"],
                        word_bits=1,
                        weight_bits=weight_bits,
                        input_bits=input_bits,
                        output_bits=output_bits if outermost else psum_bits,
                        area_mm2=memory["area"] if areas else 0.0,
                        **memory["numbers"],
                        **fan,
                    )
                )
            except ValueError as error:
                raise ValueError(f"{memory['where']}: {error}") from None
    try:
        return Hierarchy.create(
            levels=levels, mac_pj=array["pj"], mac_area_mm2=array["area"] if areas else 0.0
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def zigzag_dims(path) -> tuple[str, ...]:
    """Names of the array's dimensions in the order of `array_axes` of the hierarchy that the file gives."""
    _, ordered, array = _read(path)
    names: list[str] = []
    for _, memory in ordered:
        new = [dim for dim in array["sizes"] if dim in memory["served"] and dim not in names]
        pairs = [new[k : k + 2] for k in range(0, len(new), 2)]
        for pair in reversed(pairs):
            names += [dim for dim in pair if array["sizes"][dim] > 1]
    return tuple(names)


def array_axes(hierarchy: Hierarchy) -> list[tuple[int, str]]:
    """(level, "x" or "y") of every fan-out above 1, innermost level first: dimensions D1, D2, ..."""
    return [
        (k, axis)
        for k, level in enumerate(hierarchy.levels)
        for axis in "xy"
        if float(np.asarray(getattr(level, f"fanout_{axis}"))) > 1
    ]


def _read(path) -> tuple[str, list[tuple[str, dict]], dict]:
    data = table(load_yaml(path), f"{path}: a ZigZag accelerator")
    refused = {
        "dataflows": "dataflows in the accelerator are",
        "multipliers": "the older key multipliers (now operational_array) is",
        "cores": "several cores (a Stream file) are",
    }
    check_keys(data, ("name", "memories", "operational_array"), refused)
    for key in ("memories", "operational_array"):
        if key not in data:
            raise ValueError(f"{path}: the key {key!r} is missing{nearest(key, data)}")
    array = _array(table(data["operational_array"], data.where("operational_array")))
    memories = table(data["memories"], data.where("memories"))
    found = [(str(name), _memory(str(name), one, memories, array)) for name, one in memories.items()]
    if not found:
        raise ValueError(f"{memories.where()} needs at least one memory, innermost first")
    last, outermost = found[-1]
    for dim in array["sizes"]:
        if dim not in outermost["served"] and array["sizes"][dim] > 1:
            raise ValueError(
                f"{outermost['where']}: the outermost memory {last} must serve every dimension, {dim} "
                "is missing"
            )
    return str(data.get("name", "")), _ordered(found, array["sizes"]), array


def _array(data: Table) -> dict:
    for key in data:
        if key in _IMC or (key == "is_imc" and data[key] not in (False, None)):
            raise ValueError(f"{data.where(key)}: in-memory computing ({key}) is not supported")
    check_keys(data, _ARRAY)
    dims = [str(dim) for dim in rows(data.get("dimensions"), data.where("dimensions"))]
    sizes = rows(data.get("sizes"), data.where("sizes"))
    if len(dims) != len(sizes) or len(set(dims)) != len(dims):
        raise ValueError(
            f"{data.where('sizes')}: {len(sizes)} sizes for the dimensions {', '.join(dims) or 'none'}"
        )
    return {
        "sizes": {dim: whole(size, sizes.where(k)) for k, (dim, size) in enumerate(zip(dims, sizes))},
        "pj": number(data.get("unit_energy"), data.where("unit_energy"), zero=True),
        "area": number(data.get("unit_area", 0), data.where("unit_area"), zero=True),
    }


def _memory(name: str, data, memories: Table, array: dict) -> dict:
    data = table(data, memories.where(name))
    for key in data:
        if key in _OLD:
            raise ValueError(
                f"{data.where(key)}: the older memory keys ({key}) are not supported, write ports "
                "with bandwidths"
            )
    check_keys(data, _MEMORY)
    if data.get("auto_cost_extraction"):
        raise ValueError(
            f"{data.where('auto_cost_extraction')}: costs from a memory compiler (CACTI) are not "
            "supported, write r_cost and w_cost"
        )
    operands = [str(one) for one in rows(data.get("operands"), data.where("operands"))]
    for one in operands:
        if one not in OPERANDS:
            raise ValueError(f"{data.where('operands')}: unknown operand {one!r}{nearest(one, OPERANDS)}")
    served = [str(dim) for dim in rows(data.get("served_dimensions"), data.where("served_dimensions"))]
    for dim in served:
        if dim not in array["sizes"]:
            raise ValueError(
                f"{data.where('served_dimensions')}: unknown dimension {dim!r}{nearest(dim, array['sizes'])}"
            )
    size = number(data.get("size"), data.where("size"))
    if data.get("force_double_buffering") or data.get("double_buffering_support"):
        size /= 2  # one half holds the tile, the other is being filled
    return {
        "keeps": "".join(t for t in "wio" if t in [OPERANDS[one] for one in operands]),
        "served": served,
        "area": number(data.get("area", 0), data.where("area"), zero=True),
        "where": data.where(),
        "numbers": {"capacity_bits": math.inf if size >= UNLIMITED else size} | _ports(name, data, operands),
    }


def _ports(name: str, data: Table, operands) -> dict:
    widths: dict[str, list[tuple[float, float]]] = {kind: [] for kind in _KINDS}
    ports = rows(data.get("ports"), data.where("ports"))
    for index, port in enumerate(ports):
        port = table(port, ports.where(index))
        check_keys(port, ("name", "type", "bandwidth_min", "bandwidth_max", "allocation"))
        kind = port.get("type")
        if kind not in _KINDS:
            raise ValueError(f"{port.where('type')} must be read, write or read_write, got {kind!r}")
        most = number(port.get("bandwidth_max"), port.where("bandwidth_max"))
        least = number(port.get("bandwidth_min", most), port.where("bandwidth_min"))
        if least > most:
            raise ValueError(f"{port.where('bandwidth_min')} is {least:g}, more than bandwidth_max, {most:g}")
        for place, one in enumerate(rows(port.get("allocation"), port.where("allocation"))):
            operand, _, move = str(one).partition(",")
            if operand.strip() not in operands or move.strip() not in ("fh", "tl", "fl", "th"):
                raise ValueError(
                    f"{port['allocation'].where(place)}: {str(one)!r} must be an operand of the memory "
                    f"({', '.join(operands)}) and fh, tl, fl or th"
                )
        widths[kind].append((least, most))
    both = widths["read_write"]
    reads, writes = widths["read"] + both, widths["write"] + both
    if not reads or not writes:
        raise ValueError(f"{data.where('ports')}: {name} needs a port that reads and one that writes")
    for kind, some in (("read", reads), ("write", writes)):
        if len(set(some)) > 1:
            raise ValueError(f"{data.where('ports')}: {kind} ports of different bandwidths are not supported")
    (least, most), (_, write_most) = reads[0], writes[0]
    total = lambda some: sum(one[1] for one in some)
    costs = {key: data.get(key) for key in ("r_cost", "w_cost")}
    for key, value in costs.items():
        if value is None:
            raise ValueError(
                f"{data.where(key)} is missing or null: costs from a memory compiler (CACTI) are not "
                "supported"
            )
    read, write = (number(value, data.where(key), zero=True) for key, value in costs.items())
    found = {
        "width_bits": least,
        "read_pj": read * (least / most),
        # One access has one width here: what a write costs per bit stays.
        "fill_pj": write * (least / write_most),
    }
    if both:
        found["shared_words_per_cycle"] = total(widths["read"] + widths["write"] + both)
    if widths["read"] or widths["write"]:
        found |= {"read_words_per_cycle": total(reads), "write_words_per_cycle": total(writes)}
    return found


def _ordered(found: list[tuple[str, dict]], sizes: dict[str, int]) -> list[tuple[str, dict]]:
    """Memories so that each serves all that the one inside it serves; else in the file's order."""
    real = lambda memory: {dim for dim in memory["served"] if sizes[dim] > 1}
    left, made = list(found), []
    while left:
        ready = [
            k
            for k, (_, memory) in enumerate(left)
            if not any(set(memory["keeps"]) & set(before["keeps"]) for _, before in left[:k])
        ]
        pick = min(ready, key=lambda k: (len(real(left[k][1])), k))
        name, memory = left.pop(pick)
        inner = set().union(*(real(one) for _, one in made))
        if not inner <= real(memory):
            lost = ", ".join(sorted(inner - real(memory)))
            raise ValueError(
                f"{memory['where']}: {name} does not serve {lost}, which a memory of another operand "
                "inside it "
                f"serves: operands shared over different dimensions are not supported"
            )
        made.append((name, memory))
    return made
