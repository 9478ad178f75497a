"""Timeloop architectures and energy reference tables to a `Hierarchy`.

Ports are words per cycle (as its program takes them, though a cheat sheet of v0.4 says bits), capacities
words, energies pJ per access of the level's width, areas square micrometres. Constraints give what a level
may keep and which loops may be spread; limits on temporal loops and on use guide its mapper and are no part
of the hardware: left out. Leakage ("leak") is pJ per cycle and instance.
"""

import math
from dataclasses import replace

from diffhw._files.documents import Table, nearest, number, whole
from diffhw._files.shapes import Shape
from diffhw._files.timeloop import (
    USUAL,
    constraints_of,
    factors,
    known_shape,
    permutation,
    problem_shape,
    read_top,
    split_axes,
    tensor_letters,
)
from diffhw.hardware._hierarchy import ANY_DIM, Hierarchy, Memory
from diffhw.hardware._timeloop_energy import (
    access_energies,
    attribute,
    compound_classes,
    mac_energy,
    positive,
    reference_tables,
)
from diffhw.hardware._timeloop_parts import Part, chain

__all__ = ["read_timeloop"]

_WORD = ("datawidth", "word_bits", "data_width")
_USED = (
    *_WORD,
    "depth",
    "memory_depth",
    "width",
    "memory_width",
    "entries",
    "sizeKB",
    "block_size",
    "n_words",
    "cluster_size",
    "instances",
    "meshX",
    "meshY",
    "read_bandwidth",
    "write_bandwidth",
    "shared_bandwidth",
    "bandwidth",
    "multiple_buffering",
    "vector_access_energy",
)
_REFUSED = {
    "metadata_block_size": "compressed formats (metadata) are",
    "metadata_datawidth": "compressed formats (metadata) are",
    "metadata_word_bits": "compressed formats (metadata) are",
    "metadata_storage_width": "compressed formats (metadata) are",
    "metadata_storage_depth": "compressed formats (metadata) are",
    "decompression_supported": "compressed formats are",
    "compression_supported": "compressed formats are",
    "concordant_compressed_tile_traversal": "compressed formats are",
    "allow_overbooking": "overbooking (allow_overbooking) is",
    "per_dataspace_bandwidth_consumption_scale": "bandwidth scales per data space are",
    "network_read": "user-defined networks (network_read) are",
    "network_fill": "user-defined networks (network_fill) are",
    "network_drain": "user-defined networks (network_drain) are",
    "network_update": "user-defined networks (network_update) are",
    "network_fill_latency": "fill and drain latencies are",
    "network_drain_latency": "fill and drain latencies are",
    "addr_gen_energy": "address-generation energy (addr_gen_energy) is",
}
_FREE = {  # close to a used name, yet another attribute
    "adder_width",
    "multiplier_width",
    "network_word_bits",
    "update_fifo_depth",
    "wordline_depth",
    "data_depth",
}
_SPREAD_LEFT_OUT = ("target", "type", "maximize_dims", "maximize_dims_capacity")


def read_timeloop(path, ert=None, *, fold: bool = False) -> Hierarchy:
    """A memory hierarchy from a Timeloop architecture file.

    path: the file, or several that belong together (architecture, constraints, problem, tables). Read are
        v0.4 (`nodes` with !Component, !Container, !Parallel, !Hierarchical, !Nothing), v0.2 and v0.3
        (`subtree`, `local`, counts in names), what its front end writes out, and the flat `arch`.
    ert: file of the energy reference table (and of the area table), if it is not among ``path``; "zero"
        goes without energies: counts and cycles only.
    fold: containers with a fan-out become levels without memory, as in Timeloop; True folds them into the
        level outside where its axis is free (then loops of both count as one fan-out).

    A level may keep what it does not bypass; beside others in a !Parallel, what none of them keeps.
    Loops in constraints are read as the problem among the files says, else by Timeloop's usual names
    (P, R along the width: our q, s). Refused by name: Jinja, expressions, sparse_optimizations, layouts,
    networks, fan-outs inside !Parallel, subtrees side by side, compound components without a table.
    The clock is 1 / global_cycle_seconds, 1 GHz where no file says.

    Raises ValueError, one sentence with file, line and keys.
    """
    top = read_top(path)
    parts = chain(top)
    zero = isinstance(ert, str) and ert == "zero"
    tables = top if ert is None or zero else read_top(ert)
    targets = constraints_of(top)
    names = _loop_names(targets, parts)
    shape = known_shape(problem_shape(top), names)
    _check_targets(targets, parts)
    energy = reference_tables(tables, "ERT", parts)
    area = reference_tables(tables, "ART", parts)
    hertz = _clock(top, parts)
    keeps = [_keeps(part, parts, targets, shape) for part in parts]
    classes = compound_classes(top)
    levels = []
    for part, kept in zip(parts[:-1], keeps):
        pj = {} if zero else energy.get(part.name, {})
        um2 = area.get(part.name, {}).get("area", 0.0)
        levels.append(_memory(part, kept, shape, targets, pj, um2, zero, hertz, part.class_name in classes))
    levels.reverse()
    compute = parts[-1]
    mac_pj, leak = mac_energy(
        compute, {} if zero else energy.get(compute.name, {}), zero, compute.class_name in classes
    )
    levels = _folded(levels) if fold else levels
    try:
        return Hierarchy.create(
            levels=levels,
            mac_pj=mac_pj,
            mac_area_mm2=area.get(compute.name, {}).get("area", 0.0) * 1e-6,
            freq_hz=hertz,
            static_w=leak * compute.instances * 1e-12 * hertz,
        )
    except ValueError as error:
        raise ValueError(f"{top.file}: {error}") from None


# what constraints say


def _loop_names(targets, parts) -> set[str]:
    """All loop names in factors, to tell M from K."""
    found: set[str] = set()
    for one in [*targets, *(limit for part in parts for limit in part.limits)]:
        found |= set("".join(map(str, one["permutation"]))) if "permutation" in one else set()
        if one["type"] in ("spatial", "temporal"):
            for key in ("factors", "factors_only"):
                if key in one:
                    found |= {letter for letter in str(one[key]) if letter.isupper()}
    return found


def _check_targets(targets, parts) -> None:
    known = [part.name for part in parts]
    for one in targets:
        if str(one["target"]) not in known:
            raise ValueError(
                f"{one.where('target')}: no level is called {one['target']!r}{nearest(one['target'], known)}"
            )


def _mine(part: Part, targets, kinds) -> list[Table]:
    return [
        one
        for one in [*part.limits, *(t for t in targets if t["target"] == part.name)]
        if one["type"] in kinds
    ]


def _keeps(part: Part, parts: list[Part], targets, shape: Shape) -> str:
    """Letters that the part may keep."""
    if part.kind != "storage" or _is_dummy(part):
        return ""
    kept, barred = _named(part, targets, shape)
    for index in part.rivals:  # what one of them keeps, the others beside it do not
        barred |= _named(parts[index], targets, shape)[0] - kept
    for one in part.nothing:
        barred |= set(tensor_letters(one.get("keep"), shape, one.where("keep"))) - kept
    return "".join(letter for letter in "wio" if letter not in barred)


def _named(part: Part, targets, shape: Shape) -> tuple[set[str], set[str]]:
    kept: set[str] = set()
    barred: set[str] = set()
    for one in _mine(part, targets, ("dataspace", "datatype", "bypass", "bypassing")):
        for key in one:
            if key in ("no_coalesce", "no_reuse", "no_multicast_no_reduction", "no_temporal_reuse"):
                raise ValueError(f"{one.where(key)}: {key} is not supported")
            if key not in ("type", "target", "keep", "bypass", "keep_only"):
                raise ValueError(
                    f"{one.where(key)} is no known key{nearest(key, ('keep', 'bypass', 'keep_only'))}"
                )
        only = set(tensor_letters(one.get("keep_only"), shape, one.where("keep_only")))
        kept |= only | set(tensor_letters(one.get("keep"), shape, one.where("keep")))
        barred |= set(tensor_letters(one.get("bypass"), shape, one.where("bypass")))
        barred |= set("wio") - only if only else set()
        if kept & barred and one.get("bypass") != "*":
            raise ValueError(f"{one.where()} keeps and bypasses the same data space")
    return kept, barred - kept


def _is_dummy(part: Part) -> bool:
    entries = part.attributes.get("entries")
    return (
        "dummy" in part.class_name.lower() or str(entries) == "0" or str(part.attributes.get("sizeKB")) == "0"
    )


def _spread(part: Part, targets, shape: Shape) -> tuple[str, str]:
    """Loops that may be spread over the children, along X and along Y."""
    dims = sorted(shape.loops, key=lambda dim: ANY_DIM.index(shape.loops[dim]))
    along = [list(dims), list(dims)]
    for one in _mine(part, targets, ("spatial",)):
        if shape in USUAL and not any("G" in str(value) for key, value in one.items() if key != "target"):
            dims = [dim for dim in dims if dim != "G"]  # plain convolutions have none
            along = [[dim for dim in some if dim != "G"] for some in along]
        known = ("factors", "factors_only", "permutation", "split", "diffhw_x", "diffhw_y")
        for key in one:
            if key not in known and key not in _SPREAD_LEFT_OUT:
                what = (
                    "not supported"
                    if key.startswith(("no_", "must_", "rmw_"))
                    else f"no known key{nearest(key, known)}"
                )
                raise ValueError(f"{one.where(key)} is {what}")
        fixed = {}
        for key in ("factors", "factors_only"):
            if key in one:
                fixed |= factors(one[key], one.where(key))
                for dim in fixed:
                    if dim not in shape.loops:
                        raise ValueError(f"{one.where(key)}: unknown loop {dim!r}{nearest(dim, shape.loops)}")
        if "factors_only" in one:
            fixed = {dim: fixed.get(dim, 1) for dim in dims}
        if "split" in one:
            order = permutation(one.get("permutation"), one.where("permutation"), shape.loops)
            along = list(split_axes(order, dims, whole(one["split"], one.where("split"), 0)))
        if "diffhw_x" in one or "diffhw_y" in one:
            along = [permutation(one.get(f"diffhw_{a}"), one.where(f"diffhw_{a}"), shape.loops) for a in "xy"]
        along = [[dim for dim in some if fixed.get(dim) != 1] for some in along]
    x, y = ("".join(shape.loops[dim] for dim in some) for some in along)
    return ("" if part.fan_x == 1 else x), ("" if part.fan_y == 1 else y)


# numbers


def _check_attributes(attributes: Table) -> None:
    for key, value in attributes.items():
        idle = value in (None, False, 0, {}, "no") or (value == 1 and not isinstance(value, bool))
        if key in _REFUSED and not idle:
            raise ValueError(f"{attributes.where(key)}: {_REFUSED[key]} not supported")
        if key in _USED or key in _REFUSED or key in _FREE:
            continue
        hint = nearest(key, _USED)
        # Attributes are free (Accelergy hands them to its estimators), so only a slip of the pen is an error.
        if hint.startswith("; did you mean") and _slip(str(key)):
            raise ValueError(f"{attributes.where(key)} is no known attribute{hint}")


def _slip(key: str) -> bool:
    import difflib

    return bool(difflib.get_close_matches(key, _USED, 1, 0.85))


def _memory(part, kept, shape, targets, pj, um2, zero, hertz, compound) -> Memory:
    x, y = _spread(part, targets, shape)
    spread = dict(fanout_x=part.fan_x, fanout_y=part.fan_y, spatial_x=x, spatial_y=y)
    if not kept:
        return Memory.create(name=part.name, keeps="", word_bits=1, **spread)
    held = part.attributes
    _check_attributes(held)
    word = positive(held, *_WORD)
    if word is None:
        raise ValueError(f"{part.where} ({part.name}) needs datawidth or word-bits, the bits of a word")
    width, cluster = positive(held, "width", "memory_width"), positive(held, "cluster_size") or 1
    block = positive(held, "block_size", "n_words")
    if width is not None and block is None:
        block = width / cluster / word
    if width is not None and (block is None or width % (word * block)):
        raise ValueError(
            f"{held.where(attribute(held, 'width', 'memory_width')[0])}: {width:g} bits are no whole blocks "
            f"of {word:g}-bit words"
        )
    block = block or 1
    if block < 1 or block % 1:
        raise ValueError(
            f"{part.where} ({part.name}): an access of {block:g} words is no whole number of words"
        )
    try:
        return Memory.create(
            name=part.name,
            keeps=kept,
            capacity_words=_entries(held, word, block),
            word_bits=word,
            block_words=block,
            **_ports(held),
            **access_energies(part, pj, zero, compound),
            area_mm2=um2 * 1e-6,
            leakage_w=pj.get("leak", 0.0) * 1e-12 * hertz,
            **spread,
        )
    except ValueError as error:
        raise error if part.where in str(error) else ValueError(f"{part.where}: {error}") from None


def _entries(held: Table, word: float, block: float) -> float | None:
    depth, entries, kib = (
        positive(held, *keys) for keys in (("depth", "memory_depth"), ("entries",), ("sizeKB",))
    )
    if sum(one is not None for one in (depth, entries, kib)) > 1:
        raise ValueError(f"{held.where()}: give one of depth, entries and sizeKB")
    if depth is not None:
        entries = depth * block
    elif kib is not None:
        entries = kib * 1024 * 8 // word
    if entries is None:
        return None
    held_words = math.floor(entries / (positive(held, "multiple_buffering") or 1))
    if held_words < 1:
        raise ValueError(f"{held.where()}: the capacity is less than one word (of {word:g} bits)")
    return held_words


def _ports(held: Table) -> dict[str, float]:
    ports = {}
    both = positive(held, "bandwidth")
    for kind in ("read", "write", "shared"):
        value = positive(held, f"{kind}_bandwidth")
        if value is None and both is not None and kind != "shared":
            value = both / 2  # as Timeloop reads this old key
        if value is not None:
            ports[f"{kind}_words_per_cycle"] = value
    return ports


def _clock(top: Table, parts: list[Part]) -> float:
    held = [top["variables"]] if isinstance(top.get("variables"), Table) else []
    for one in [*held, *(part.attributes for part in parts)]:
        if one.get("global_cycle_seconds") is not None:
            hertz = 1 / number(one["global_cycle_seconds"], one.where("global_cycle_seconds"))
            return float(round(hertz)) if math.isclose(hertz, round(hertz), rel_tol=1e-9) else hertz
    return 1e9


def _folded(levels: list[Memory]) -> list[Memory]:
    """Levels without memory merged into the one outside, innermost level first."""
    made: list[Memory] = []
    for level in reversed(levels):
        if made and not level.keeps:
            outer, free = made[-1], []
            for axis in "xy":
                mine, theirs = (
                    float(getattr(level, f"fanout_{axis}")),
                    float(getattr(outer, f"fanout_{axis}")),
                )
                free.append(mine == 1 or theirs == 1)
            if all(free):
                fields = {}
                for axis in "xy":
                    if float(getattr(level, f"fanout_{axis}")) > 1:
                        fields[f"fanout_{axis}"] = getattr(level, f"fanout_{axis}")
                        fields[f"spatial_{axis}"] = getattr(level, f"spatial_{axis}")
                made[-1] = replace(outer, **fields)
                continue
        made.append(level)
    return made[::-1]
