"""ZigZag mapping files to `LoopNest` and back: spatial_mapping per array dimension and one temporal_ordering.

The file has one order of loops for all operands and does not say which memory a loop stands at: ZigZag
decides that per operand by capacity. Our writer notes the levels in a comment (ZigZag refuses keys that it
does not know), which our reader takes; without it each level gets the next loops of the order as long as
the tiles of all that it keeps fit in it together. Uneven placements, where operands cut the order in
different places, have no place in a `LoopNest`. Knows `hardware` and nothing above.
"""

import re
from math import prod
from typing import Any

from diffhw._files.documents import (
    Rows,
    Table,
    check_keys,
    load_yaml,
    nearest,
    read_text,
    rows,
    table,
    whole,
    write_text,
    write_yaml_text,
)
from diffhw._files.zigzag import DEFAULT_LINKS, LOOPS
from diffhw.hardware import Hierarchy, array_axes
from diffhw.mappings._loopnest import LOOPS as OURS
from diffhw.mappings._loopnest import LoopNest
from diffhw.mappings._loopnest_text import check_whole, tile_words

__all__ = ["read_zigzag_mapping", "write_zigzag_mapping"]

_KEYS = ("name", "spatial_mapping", "temporal_ordering", "memory_operand_links")
_LEFT_OUT = ("spatial_mapping_hint", "core_allocation")
_NOTE = "# diffhw: loops per level, innermost first:"
_NAMES = {ours: theirs for theirs, ours in LOOPS.items()}


def read_zigzag_mapping(path, hierarchy: Hierarchy, layer, name: str = "default", *, dims=None) -> LoopNest:
    """A loop nest from one entry of a ZigZag mapping file.

    hierarchy: its fan-outs, innermost level first and x before y, are the array's dimensions D1, D2, ...
    layer: gives the sizes: unrollings wider than the loop are cut to it, "*" stands for what is left.
    name: of the entry.
    dims: names of the array's dimensions in that order, as `hardware.zigzag_dims` gives them for a file.

    Loops stand at the levels that our writer's comment says; without it they go as far in as fits.
    Raises ValueError, one sentence with file, line and key: unknown entries, loops, dimensions; unrollings
    that do not divide the loop or exceed the array; loops left without iterations or with too many; a loop
    that comes twice within a level with another between. Refused by name: entries without
    temporal_ordering (ZigZag would search one), other operand links, several cores.
    """
    text = read_text(path)
    entries = rows(load_yaml(path, text), f"{path}: a ZigZag mapping")
    entry = _entry(entries, name, path)
    sizes = {d: int(float(getattr(layer, d))) for d in OURS}
    spatial = _spatial(entry, hierarchy, sizes, dims)
    unrolled = {d: prod(f.get(d, 1) for axes in spatial for f in axes.values()) for d in OURS}
    order = _order(entry, sizes, unrolled)
    counts = _noted(text, hierarchy, len(order), entry, entries)
    levels: list[dict[str, Any]] = [{**axes} for axes in spatial]
    if counts is None:
        counts = _placed(order, spatial, hierarchy, layer)
    place = 0
    for level, memory, count in zip(levels, hierarchy.levels, counts, strict=True):
        level["temporal"] = _level_loops(order[place : place + count], memory.name, entry)
        place += count
    try:
        return LoopNest.create(levels, hierarchy, layer)
    except ValueError as error:
        raise ValueError(f"{entry.where()}: {error}") from None


def _entry(entries: Rows, name: str, path) -> Table:
    named = {}
    for index, one in enumerate(entries):
        one = table(one, entries.where(index))
        check_keys(one, _KEYS, optional=_LEFT_OUT)
        if "name" not in one:
            raise ValueError(f"{one.where()} needs a name{nearest('name', one)}")
        named[str(one["name"])] = one
    if name not in named:
        raise ValueError(f"{path}: no entry is called {name!r}{nearest(name, named)}")
    entry = named[name]
    links = entry.get("memory_operand_links")
    if links is not None and links != DEFAULT_LINKS:
        raise ValueError(
            f"{entry.where('memory_operand_links')}: links other than O: O, W: I2, I: I1 are not supported"
        )
    cores = entry.get("core_allocation", 1)
    if isinstance(cores, list) and len(cores) > 1:
        raise ValueError(f"{entry.where('core_allocation')}: several cores are not supported")
    return entry


def _loop(text, where: str) -> str:
    name = str(text).strip().upper()
    if name not in LOOPS:
        raise ValueError(f"{where}: unknown loop {str(text)!r}{nearest(name, LOOPS)}")
    return LOOPS[name]


def _spatial(entry: Table, hierarchy: Hierarchy, sizes, dims) -> list[dict[str, dict[str, int]]]:
    """Per level {"x": {loop: factor}, "y": ...}."""
    found: list[dict[str, dict[str, int]]] = [{"x": {}, "y": {}} for _ in hierarchy.levels]
    axes = array_axes(hierarchy)
    names = [f"D{n + 1}" for n in range(len(axes))] if dims is None else list(dims)
    if len(names) != len(axes):
        raise ValueError(
            f"dims must name the {len(axes)} fan-outs of the hierarchy, got {', '.join(names) or 'none'}"
        )
    held = entry.get("spatial_mapping")
    held = Table() if held is None else table(held, entry.where("spatial_mapping"))
    left = dict(sizes)
    for dim, unrolling in held.items():
        where = held.where(dim)
        pairs = [unrolling] if isinstance(unrolling, str) else rows(unrolling, where)
        for pair in pairs:
            loop, _, text = (
                str(pair).partition(",") if not isinstance(pair, list) else (pair[0], "", pair[-1])
            )
            d, factor = _loop(loop, where), whole(str(text).strip(), f"{where}: unrolling of {loop}")
            factor = min(factor, left[d])
            if factor == 1:
                continue
            if str(dim) not in names:
                raise ValueError(f"{where}: the array has no dimension {dim!r}{nearest(dim, names)}")
            if left[d] % factor:
                raise ValueError(
                    f"{where}: {factor} does not divide the {left[d]} iterations of {loop}: fractional "
                    f"unrolling is not supported"
                )
            left[d] //= factor
            level, axis = axes[names.index(str(dim))]
            if d in found[level][axis]:
                raise ValueError(f"{where} unrolls the loop {loop!r} twice")
            found[level][axis][d] = factor
    for level, axis in axes:
        used, fan = (
            prod(found[level][axis].values()),
            float(getattr(hierarchy.levels[level], f"fanout_{axis}")),
        )
        if used > fan:
            raise ValueError(
                f"{entry.where('spatial_mapping')}: {used} ways along "
                f"{names[axes.index((level, axis))]}, the array has {fan:g}"
            )
    return found


def _order(entry: Table, sizes, unrolled) -> list[tuple[str, int]]:
    """[(loop, size)], innermost first; sizes of "*" filled in, sizes of 1 left out."""
    if entry.get("temporal_ordering") is None:
        raise ValueError(
            f"{entry.where()} has no temporal_ordering: ZigZag would search one, there is nothing to read"
        )
    listed = rows(entry["temporal_ordering"], entry.where("temporal_ordering"))
    order: list[tuple[str, int]] = []
    rest: list[int] = []
    for index, one in enumerate(listed):
        if not isinstance(one, list) or len(one) != 2:
            raise ValueError(f"{listed.where(index)} must be [loop, size], got {one!r}")
        d = _loop(one[0], listed.where(index))
        if one[1] == "*":
            if any(order[k][0] == d for k in rest):
                raise ValueError(f"{listed.where(index)}: the loop {one[0]!r} has two sizes of '*'")
            rest.append(len(order))
        order.append((d, 1 if one[1] == "*" else whole(one[1], listed.where(index))))
    for k in rest:
        d = order[k][0]
        done = unrolled[d] * prod(size for loop, size in order if loop == d)
        if sizes[d] % done:
            raise ValueError(
                f"{listed.where(k)}: the other factors of {_NAMES[d]}, {done}, do not divide its size "
                f"{sizes[d]}"
            )
        order[k] = (d, sizes[d] // done)
    for d in OURS:
        made = unrolled[d] * prod(size for loop, size in order if loop == d)
        if made != sizes[d]:
            what = "iterations are missing" if made < sizes[d] else "iterations overlap"
            raise ValueError(
                f"{listed.where()}: the factors of {_NAMES[d]} multiply to {made}, the layer has "
                f"{sizes[d]}: {what}"
            )
    return [(d, size) for d, size in order if size != 1]


def _noted(text: str, hierarchy: Hierarchy, loops: int, entry: Table, entries: Rows) -> list[int] | None:
    """Loops per level from our comment right above the entry, None without one."""
    lines = text.splitlines()[: (entry.line or 1) - 1]
    above = next((line for line in reversed(lines) if line.strip()), "")
    if not above.startswith(_NOTE):
        return None
    found = dict(re.findall(r"([^,]+?) (\d+)(?:,|$)", above.removeprefix(_NOTE).strip()))
    found = {name.strip(): int(count) for name, count in found.items()}
    if list(found) != list(hierarchy.names):
        raise ValueError(
            f"{entry.where()}: the comment above names the levels {', '.join(found) or 'none'}, the "
            "hierarchy has "
            f"{', '.join(hierarchy.names)}; mend or remove it"
        )
    if sum(found.values()) != loops:
        raise ValueError(
            f"{entry.where()}: the comment above places {sum(found.values())} loops, there are "
            f"{loops}; mend or remove it"
        )
    return list(found.values())


def _placed(order, spatial, hierarchy: Hierarchy, layer) -> list[int]:
    """How many loops each level takes: as many as fit and one order can say, the rest at the outermost."""
    counts, place = [], 0
    made: list[dict[str, Any]] = []
    for k, memory in enumerate(hierarchy.levels):
        last = k == len(hierarchy.levels) - 1
        take = len(order) - place if last else 0
        while not last and memory.keeps and place + take < len(order):
            loops = order[place : place + take + 1]
            if _torn([d for d, _ in loops]) or not _fits(loops, made, spatial[k], memory, layer):
                break
            take += 1
        made.append({**spatial[k], "temporal": _merged(order[place : place + take])})
        counts.append(take)
        place += take
    return counts


def _torn(loops: list[str]) -> bool:
    """Whether a loop comes twice with another between."""
    return any(d in loops[: k - 1] and loops[k - 1] != d for k, d in enumerate(loops) if k)


def _merged(loops) -> dict[str, int]:
    found: dict[str, int] = {}
    for d, size in loops:
        found[d] = found.get(d, 1) * size
    return found


def _fits(loops, inner, axes, memory, layer) -> bool:
    nest = LoopNest.create([*inner, {**axes, "temporal": _merged(loops)}])
    words = tile_words(nest, len(inner), layer)
    return sum(words[t] * float(memory.bits(t)) for t in memory.keeps) <= float(memory.capacity_bits)


def _level_loops(loops, name: str, entry: Table) -> dict[str, int]:
    found: dict[str, int] = {}
    for d, size in loops:
        if d in found and next(reversed(found)) != d:
            raise ValueError(
                f"{entry.where('temporal_ordering')}: the loop {_NAMES[d]} comes twice at {name} with "
                "another between, "
                f"which one order per level cannot say"
            )
        found[d] = found.get(d, 1) * size
    return found


def write_zigzag_mapping(
    nest: LoopNest, hierarchy: Hierarchy, path, name: str = "default", *, dims=None
) -> None:
    """Write a nest as a ZigZag mapping of one entry; see the module about what the format leaves open.

    dims: names of the array's dimensions, by default D1, D2, ... as `hardware.write_zigzag` has them.
    Raises ValueError, one sentence: factors that are not whole, batches, another number of levels.
    """
    if len(nest.levels) != len(hierarchy.levels):
        raise ValueError(f"the hierarchy has {len(hierarchy.levels)} levels, the mapping {len(nest.levels)}")
    check_whole(nest, hierarchy.names)
    axes = array_axes(hierarchy)
    names = [f"D{n + 1}" for n in range(len(axes))] if dims is None else list(dims)
    if len(names) != len(axes):
        raise ValueError(
            f"dims must name the {len(axes)} fan-outs of the hierarchy, got {', '.join(names) or 'none'}"
        )
    spatial: dict[str, list[str]] = {}
    order: list[list] = []
    counts = []
    for k, (level, memory) in enumerate(zip(nest.levels, hierarchy.levels)):
        for axis in "xy":
            for d, factor in getattr(level, f"spatial_{axis}").items():
                size = int(float(factor))
                if size == 1:
                    continue
                if (k, axis) not in axes:
                    raise ValueError(
                        f"{memory.name} has no fan-out along {axis}, the mapping spreads {d!r} over {size}"
                    )
                spatial.setdefault(names[axes.index((k, axis))], []).append(f"{_NAMES[d]}, {size}")
        loops = nest.loops(k)
        order += [[_NAMES[d], int(size)] for d, size in loops]
        counts.append(f"{memory.name} {len(loops)}")
    entry: dict = {"name": name}
    if spatial:
        entry["spatial_mapping"] = {dim: spatial[dim] for dim in names if dim in spatial}
    entry |= {"temporal_ordering": order, "memory_operand_links": DEFAULT_LINKS}
    write_text(path, f"{_NOTE} {', '.join(counts)}\n{write_yaml_text([entry])}")
