"""A `Hierarchy` as a ZigZag accelerator file."""

import math

import numpy as np

from diffhw._files.documents import plain, write_text, write_yaml_text
from diffhw._files.zigzag import OPERANDS
from diffhw.hardware._hierarchy import Hierarchy, Memory
from diffhw.hardware._zigzag import UNLIMITED, array_axes

__all__ = ["write_zigzag"]


def write_zigzag(
    hierarchy: Hierarchy, path, *, name: str = "accelerator", unlimited_bits_per_cycle=None
) -> None:
    """Write a hierarchy as a ZigZag accelerator; dimensions are D1, D2, ... in the order of `array_axes`.

    unlimited_bits_per_cycle: bandwidth of ports without a limit, which the format does not know.
    Levels without memory only add dimensions. Widths of words belong to the workload there and are not
    written; nor is which loops may be spread, leakage, and the clock.

    Raises ValueError, one sentence: unlimited ports, writes from above and from below of different energy,
    fan-outs that are not whole, batches.
    """
    memories: dict[str, dict] = {}
    axes = array_axes(hierarchy)
    for k, level in enumerate(hierarchy.levels):
        for leaf in ("capacity_bits", "fanout_x", "fanout_y", "width_bits"):
            if np.ndim(getattr(level, leaf)) != 0:
                raise ValueError(f"{level.name}.{leaf} is a batch: write one hierarchy at a time")
        if not level.keeps:
            continue
        if float(level.fill_pj) != float(level.update_pj):
            raise ValueError(
                f"{level.name}: a fill costs {float(level.fill_pj):g} pJ and an update "
                f"{float(level.update_pj):g} pJ; "
                f"ZigZag has one cost of a write"
            )
        operands = [one for one, letter in OPERANDS.items() if letter in level.keeps]
        ports, widest = _written_ports(level, operands, unlimited_bits_per_cycle)
        size = float(level.capacity_bits)
        width = float(level.width_bits)
        memories[level.name] = {
            "size": plain(size) if math.isfinite(size) else UNLIMITED,
            "r_cost": plain(float(level.read_pj) * (widest["read"] / width)),
            "w_cost": plain(float(level.fill_pj) * (widest["write"] / width)),
            "area": plain(float(level.area_mm2)),
            "latency": 1,
            "operands": operands,
            "ports": ports,
            "served_dimensions": [f"D{n + 1}" for n, (at, _) in enumerate(axes) if at <= k],
        }
    sizes = []
    for at, axis in axes:
        fan = float(getattr(hierarchy.levels[at], f"fanout_{axis}"))
        if fan % 1:
            raise ValueError(
                f"{hierarchy.names[at]}.fanout_{axis} must be a whole number in a file, got {fan:g}"
            )
        sizes.append(int(fan))
    array = {
        "unit_energy": plain(float(hierarchy.mac_pj)),
        "unit_area": plain(float(hierarchy.mac_area_mm2)),
        "dimensions": [f"D{n + 1}" for n in range(len(axes))] or ["D1"],
        "sizes": sizes or [1],
    }
    if not axes:
        for memory in memories.values():
            memory["served_dimensions"] = ["D1"]
    document = {"name": name, "memories": memories, "operational_array": array}
    note = "# Written by diffhw. Dimensions count from the innermost level, x before y.\n"
    write_text(path, note + write_yaml_text(document))


def _written_ports(level: Memory, operands, unlimited) -> tuple[list[dict], dict[str, float]]:
    moves = {"read": ["tl"], "write": ["fh"]}
    allocation = {
        kind: [f"{one}, {move}" for one in operands for move in some] for kind, some in moves.items()
    }
    if "O" in operands:
        allocation["read"].append("O, th")
        allocation["write"].append("O, fl")
    limit = {kind: float(getattr(level, f"{kind}_bits_per_cycle")) for kind in ("read", "write", "shared")}
    width = float(level.width_bits)

    def bandwidth(kind: str) -> float:
        found = limit[kind]
        if math.isinf(found):
            if unlimited is None:
                raise ValueError(
                    f"{level.name} has no limit on its {kind} port, which ZigZag needs: say "
                    "unlimited_bits_per_cycle"
                )
            found = float(unlimited)
        if found < width:
            raise ValueError(
                f"{level.name}: an access of {width:g} bits over a {kind} port of {found:g} bits per "
                "cycle takes "
                f"several cycles, which ZigZag cannot say"
            )
        return found

    shared = math.isfinite(limit["shared"])
    if shared and (math.isfinite(limit["read"]) or math.isfinite(limit["write"])):
        raise ValueError(
            f"{level.name} has a shared limit besides those of its ports, which ZigZag cannot say"
        )
    if shared:
        most = bandwidth("shared")
        port = _port("rw_port_1", "read_write", width, most, allocation["read"] + allocation["write"])
        return [port], {"read": most, "write": most}
    widest = {kind: bandwidth(kind) for kind in ("read", "write")}
    return [
        _port("r_port_1", "read", width, widest["read"], allocation["read"]),
        _port("w_port_1", "write", width, widest["write"], allocation["write"]),
    ], widest


def _port(name: str, kind: str, least: float, most: float, allocation: list[str]) -> dict:
    return {
        "name": name,
        "type": kind,
        "bandwidth_min": plain(least),
        "bandwidth_max": plain(most),
        "allocation": allocation,
    }
