"""ZigZag workload files: lists of layers with an equation, loop sizes and input relations.

B, G, K, C, OY, OX, FY, FX are our n, g, k, c, p, q, r, s; other names play the part that the equation gives
them. Layers that are no product of two tensors (pooling, additions) become operators without MACs.
"""

from typing import Any

import numpy as np

from diffhw._files.documents import (
    Table,
    check_keys,
    load_yaml,
    nearest,
    rows,
    table,
    whole,
    write_text,
    write_yaml_text,
)
from diffhw._files.zigzag import LOOPS, equation_shape, loop_sizes
from diffhw.workloads._layer import Layer, Network, NetworkInfo, Operator

__all__ = ["read_zigzag_workload", "write_zigzag_workload"]

_KEYS = (
    "id",
    "name",
    "operator_type",
    "equation",
    "dimension_relations",
    "loop_dims",
    "loop_sizes",
    "operand_precision",
    "operand_source",
    "padding",
    "pr_loop_dims",
    "pr_loop_sizes",
)
_LEFT_OUT = ("constant_operands", "core_allocation", "memory_operand_links")
_NO_MACS = ("pool", "add", "relu", "softmax", "norm", "mul", "concat", "transpose", "reshape")


def read_zigzag_workload(path) -> Network:
    """The network of a ZigZag workload file, one row per layer with MACs, in order.

    operand_source gives the edges; a second operand that is another layer's output sets
    ``weight_is_activation``. operand_precision has no place in a network: it is said in ``info.notes``.
    pr_loop_sizes and padding give the stored input; without them it is as large as the loops reach.

    Raises ValueError, one sentence with file, line and key: equations that are no convolution or matrix
    product though called so, missing sizes, sizes below 1, sources that do not exist.
    """
    entries = rows(load_yaml(path), f"{path}: a ZigZag workload")
    layers, names, operators, ids = [], [], [], {}
    sources: dict[str, list[str]] = {}
    precision: dict[str, int] = {}
    for index, one in enumerate(entries):
        one = table(one, entries.where(index))
        check_keys(one, _KEYS, optional=_LEFT_OUT)
        key = str(one.get("id", index))
        if key in sources:
            raise ValueError(f"{one.where('id')}: two layers have the id {key}")
        name = str(one.get("name", f"layer{key}"))
        kind = str(one.get("operator_type", "Conv"))
        held = table(one.get("operand_source") or Table(), one.where("operand_source"))
        sources[key] = [str(source) for source in held.values() if str(source) != key]
        found = None if any(word in kind.lower() for word in _NO_MACS) else equation_shape(one)
        if found is None:
            operators.append(Operator(name, kind, _elements(one)))
            continue
        activation = str(held.get("W", key)) not in (key, "None") and _produced(
            str(held["W"]), entries, index
        )
        layers.append(_layer(one, *found, activation))
        ids[key] = len(names)
        names.append(name)
        for operand, bits in table(
            one.get("operand_precision") or Table(), one.where("operand_precision")
        ).items():
            precision.setdefault(str(operand), bits)
    if not layers:
        raise ValueError(f"{path} has no layer with MACs")
    notes = ("operand precisions of the first layer: " + ", ".join(f"{o} {b}" for o, b in precision.items()),)
    info = NetworkInfo(
        name=str(path).rsplit("/", 1)[-1].removesuffix(".yaml"),
        names=tuple(names),
        edges=_edges(sources, ids),
        operators=tuple(operators),
        source=f"ZigZag workload {path}",
        notes=notes if precision else (),
    )
    return Network.create(layers, info=info)


def _produced(source: str, entries, index: int) -> bool:
    """Whether ``source`` is the id of an earlier entry."""
    return any(str(one.get("id", k)) == source for k, one in enumerate(entries[:index]))


def _elements(one: Table) -> int:
    """Output elements of a layer without MACs: loops that index O."""
    import re

    output = re.match(r"\s*O((?:\s*\[\s*\w+\s*\])+)", str(one.get("equation", "")))
    sizes = loop_sizes(one)
    indices = re.findall(r"\w+", output[1]) if output else []
    return int(np.prod([sizes.get(name.upper(), 1) for name in indices] or [0]))


def _layer(one: Table, shape, axes: dict[str, str], activation: bool) -> Layer:
    sizes = loop_sizes(one)
    numbers: dict[str, Any] = {"p": 1, "q": 1, "weight_is_activation": int(activation)}
    for name, size in sizes.items():
        numbers[shape.loops[name]] = size
    for name in shape.loops:
        if name not in sizes:
            raise ValueError(f"{one.where('loop_dims')}: the loop {name} has no size{nearest(name, sizes)}")
    numbers |= shape.steps
    dims, held, padding = (one.get(key) for key in ("pr_loop_dims", "pr_loop_sizes", "padding"))
    if isinstance(dims, list) and isinstance(held, list):
        for k, (dim, size) in enumerate(zip(dims, held)):
            side = axes.get(str(dim).upper())
            if side is None:
                raise ValueError(f"{one.where('pr_loop_dims')}: {dim} is no input axis{nearest(dim, axes)}")
            numbers[side] = whole(size, one.where("pr_loop_sizes"))
            if isinstance(padding, list) and k < len(padding) and isinstance(padding[k], list) and padding[k]:
                pad = {"h": "pad_top", "w": "pad_left"}[side]
                numbers[pad] = whole(padding[k][0], one.where("padding"), 0)
    return Layer.create(**numbers)


def _edges(sources: dict[str, list[str]], ids: dict[str, int]) -> tuple[tuple[int, int], ...]:
    """Edges between layers with MACs; those without are stepped over."""

    def producers(key: str, seen: frozenset) -> list[int]:
        if key in seen or key not in sources:
            return []
        if key in ids:
            return [ids[key]]
        return [p for inner in sources[key] for p in producers(inner, seen | {key})]

    found = []
    for key, place in ids.items():
        for source in sources[key]:
            found += [(p, place) for p in producers(source, frozenset({key})) if (p, place) not in found]
    return tuple(found)


def write_zigzag_workload(network, path, *, weight_bits=8, input_bits=8, psum_bits=16, output_bits=8) -> None:
    """Write a `Network` (or one `Layer`) as a ZigZag workload, every layer as often as it counts once.

    The bits go into every layer's operand_precision. Repeats are not written out: ZigZag has no counts, the
    file has each row once. Layers follow each other where the network's info has no edges.
    Raises ValueError for fractional sizes and batches of layers.
    """
    if isinstance(network, Layer):
        network = Network.create([network])
    bits = {"W": weight_bits, "I": input_bits, "O": psum_bits, "O_final": output_bits}
    edges: dict[int, int] = {}
    for producer, consumer in network.info.edges or [(k, k + 1) for k in range(network.size - 1)]:
        edges.setdefault(consumer, producer)
    document = [
        _entry(k, name, layer, bits, edges.get(k, k))
        for k, (name, layer) in enumerate(zip(network.names, network.rows(), strict=True))
    ]
    write_text(path, "# Written by diffhw.\n" + write_yaml_text(document))


def _entry(index: int, name: str, layer: Layer, bits: dict[str, int], source: int) -> dict:
    numbers = {}
    for field in (
        *LOOPS.values(),
        "h",
        "w",
        "pad_top",
        "pad_left",
        "stride_h",
        "stride_w",
        "dilation_h",
        "dilation_w",
    ):
        value = getattr(layer, field)
        if np.ndim(value) != 0 or float(value) % 1:
            raise ValueError(f"layer {name}: {field} must be one whole number in a file, got {value}")
        numbers[field] = int(float(value))
    group = "[g]" if numbers["g"] > 1 else ""
    used = [dim for dim, ours in LOOPS.items() if ours != "g" or group]
    n = numbers
    return {
        "id": index,
        "name": name,
        "operator_type": "Conv",
        "equation": f"O[b]{group}[k][oy][ox]+=W{group}[k][c][fy][fx]*I[b]{group}[c][iy][ix]",
        "dimension_relations": [
            f"ix={n['stride_w']}*ox+{n['dilation_w']}*fx",
            f"iy={n['stride_h']}*oy+{n['dilation_h']}*fy",
        ],
        "loop_dims": used,
        "loop_sizes": [numbers[LOOPS[dim]] for dim in used],
        "pr_loop_dims": ["IX", "IY"],
        "pr_loop_sizes": [n["w"], n["h"]],
        "padding": [_padding(n, "w"), _padding(n, "h")],
        "operand_precision": bits,
        "operand_source": {"I": source, "W": index},
    }


def _padding(n: dict[str, int], side: str) -> list[int]:
    """[before, after]: after, what the loops reach beyond the stored input."""
    out, taps, pad = ("p", "r", "pad_top") if side == "h" else ("q", "s", "pad_left")
    reach = (n[out] - 1) * n[f"stride_{side}"] + (n[taps] - 1) * n[f"dilation_{side}"] + 1
    return [n[pad], max(reach - n[side] - n[pad], 0)]
