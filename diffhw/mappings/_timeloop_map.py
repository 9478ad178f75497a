"""Timeloop mapping files to `LoopNest` and back.

A directive has a target (a level), a type (temporal, spatial, datatype or bypass), factors, and a
permutation written innermost loop first; spatial ones a split: how many loops of the permutation, from
the first on, run along X, the others along Y. Knows `hardware.Hierarchy` (its levels) and nothing above.
"""

from typing import Any

import numpy as np

from diffhw._files import timeloop
from diffhw._files.documents import Table, nearest, rows, table, whole, write_text, write_yaml_text
from diffhw._files.shapes import Shape
from diffhw.hardware import Hierarchy
from diffhw.mappings._loopnest import LOOPS, LoopNest
from diffhw.mappings._loopnest_text import check_whole

__all__ = ["read_timeloop_mapping", "timeloop_keeps", "write_timeloop_mapping"]

_TYPES = ("temporal", "spatial", "datatype", "bypass", "dataspace")
_KEYS = ("target", "type", "factors", "permutation", "split", "keep", "bypass")
_REFUSED = {
    "skew": "skewed loops (skew) are",
    "residuals": "imperfect 'ruby' tiles (residuals) are",
    "max_overbooked_proportion": "overbooking is",
    "no_coalesce": "no_coalesce is",
    "no_reuse": "no_reuse is",
    "no_link_transfer": "no_link_transfer is",
    "no_multicast_no_reduction": "no_multicast_no_reduction is",
    "no_temporal_reuse": "no_temporal_reuse is",
    "rmw_first_update": "rmw_first_update is",
}


def read_timeloop_mapping(path, hierarchy: Hierarchy, layer=None, *, problem=None) -> LoopNest:
    """A loop nest from a Timeloop mapping file.

    path: the file, or several, one of which holds the mapping.
    hierarchy: whose levels the targets name; a container X of v0.4 is also found as inter_X_spatial.
    layer: checks that the factors cover it, no more and no less.
    problem: file of the problem, for the names of loops and tensors; without one Timeloop's usual ones (M
        read as K; P, R along the width: our q, s).

    Raises ValueError, one sentence with file, line and key: unknown levels, loops, tensors; a loop with two
    factors; factors that do not cover the layer; spatial loops without a split where both axes fan out;
    tensors kept elsewhere than the hierarchy keeps them (see `timeloop_keeps`). Refused by name: residual
    factors, skew, factors of 0, overbooking, switches of reuse.
    """
    directives, shape = _read(path, hierarchy, problem)
    _check_keeps(directives, hierarchy, shape)
    levels: list[dict[str, Any]] = [{} for _ in hierarchy.levels]
    for index, one in directives:
        kind = str(one["type"])
        if kind not in ("temporal", "spatial"):
            continue
        name = hierarchy.names[index]
        found = timeloop.factors(one.get("factors"), one.where("factors"))
        for dim, factor in found.items():
            if dim not in shape.loops:
                raise ValueError(f"{one.where('factors')}: unknown loop {dim!r}{nearest(dim, shape.loops)}")
            if factor == 0:
                raise ValueError(
                    f"{one.where('factors')}: a factor of 0 (what is left of {dim!r}) is not "
                    "supported, write it out"
                )
        order = timeloop.permutation(one.get("permutation"), one.where("permutation"), shape.loops)
        if kind == "temporal":
            if "temporal" in levels[index]:
                raise ValueError(f"{one.where()}: {name} has two temporal directives")
            order += [dim for dim in shape.loops if dim not in order]
            levels[index]["temporal"] = {shape.loops[dim]: factor for dim, factor in found.items()}
            levels[index]["order"] = [shape.loops[dim] for dim in order]
        else:
            if "x" in levels[index]:
                raise ValueError(f"{one.where()}: {name} has two spatial directives")
            along = _axes(one, order, found, shape, hierarchy.levels[index])
            for axis, dims in zip("xy", along, strict=True):
                levels[index][axis] = {shape.loops[d]: found[d] for d in dims if found.get(d, 1) != 1}
    try:
        return LoopNest.create(levels, hierarchy, layer)
    except ValueError as error:
        raise ValueError(f"{_file(directives, path)}: {error}") from None


def timeloop_keeps(path, hierarchy: Hierarchy, *, problem=None) -> tuple[str, ...]:
    """What a mapping file keeps at every level, innermost first, for `Hierarchy.keeping`.

    A level without a datatype directive, and a tensor that its directive leaves out, stay as they are.
    Raises ValueError for unknown names and for tensors that a level cannot keep.
    """
    directives, shape = _read(path, hierarchy, problem)
    return _keeps(directives, hierarchy, shape)


def _file(directives, path) -> str:
    return directives[0][1].file if directives else str(path)


def _read(path, hierarchy: Hierarchy, problem) -> tuple[list[tuple[int, Table]], Shape]:
    top = timeloop.read_top(path)
    if "mapping" not in top:
        raise ValueError(f"{top.file} has no mapping: the key 'mapping' is missing{nearest('mapping', top)}")
    entries = rows(top["mapping"], top.where("mapping"))
    directives = []
    for index, one in enumerate(entries):
        one = table(one, entries.where(index))
        for key in one:
            if key in _REFUSED:
                raise ValueError(f"{one.where(key)}: {_REFUSED[key]} not supported")
            if key not in _KEYS:
                raise ValueError(f"{one.where(key)} is no known key{nearest(key, _KEYS)}")
        for key in ("target", "type"):
            if key not in one:
                raise ValueError(f"{one.where()} needs the key {key!r}{nearest(key, one)}")
        if one["type"] not in _TYPES:
            raise ValueError(
                f"{one.where('type')}: unknown type {one['type']!r}{nearest(one['type'], _TYPES)}"
            )
        directives.append((_level(str(one["target"]), hierarchy, one), one))
    found = timeloop.problem_shape(top if problem is None else timeloop.read_top(problem))
    names = {
        letter
        for _, one in directives
        for key in ("factors", "permutation")
        for letter in str(one.get(key, ""))
    }
    return directives, timeloop.known_shape(found, names)


def _level(target: str, hierarchy: Hierarchy, one: Table) -> int:
    for name in (target, f"inter_{target}_spatial"):
        if name in hierarchy.names:
            return hierarchy.names.index(name)
    raise ValueError(
        f"{one.where('target')}: no level is called {target!r}{nearest(target, hierarchy.names)}"
    )


def _keeps(directives, hierarchy: Hierarchy, shape: Shape) -> tuple[str, ...]:
    keeps = list(level.keeps for level in hierarchy.levels)
    for index, one in directives:
        if one["type"] in ("temporal", "spatial"):
            continue
        kept = timeloop.tensor_letters(one.get("keep"), shape, one.where("keep"))
        barred = timeloop.tensor_letters(one.get("bypass"), shape, one.where("bypass"))
        both = set(kept) & set(barred)
        if both and "*" not in (one.get("keep"), one.get("bypass")):
            raise ValueError(f"{one.where()} keeps and bypasses the same data space")
        allowed = hierarchy.levels[index].keeps
        if one.get("keep") == "*":
            kept = "".join(letter for letter in allowed if letter not in barred)
        for letter in kept:
            if letter not in allowed:
                raise ValueError(
                    f"{one.where('keep')}: {hierarchy.names[index]} may keep {allowed or 'nothing'} "
                    "of w, i, o, "
                    f"not {letter!r}"
                )
        keeps[index] = "".join(t for t in allowed if t in kept or t not in barred)
    return tuple(keeps)


def _check_keeps(directives, hierarchy: Hierarchy, shape: Shape) -> None:
    for name, level, found in zip(hierarchy.names, hierarchy.levels, _keeps(directives, hierarchy, shape)):
        if found != level.keeps:
            raise ValueError(
                f"{directives[0][1].file}: the mapping keeps {found or 'nothing'!r} at {name} where "
                "the hierarchy "
                f"keeps {level.keeps!r}; use hierarchy.keeping(mappings.timeloop_keeps(file, hierarchy))"
            )


def _axes(one: Table, order, found: dict[str, int], shape: Shape, level) -> tuple[list[str], list[str]]:
    """Loops along X and along Y."""
    if "split" in one:
        dims = [dim for dim in shape.loops if dim in found] + [d for d in shape.loops if d not in found]
        return timeloop.split_axes(order, dims, whole(one["split"], one.where("split"), 0))
    spread = [dim for dim, factor in found.items() if factor > 1]
    fans = [float(np.asarray(getattr(level, f"fanout_{axis}"))) > 1 for axis in "xy"]
    if spread and all(fans):
        raise ValueError(f"{one.where()}: {level.name} fans out along X and Y: the key 'split' is needed")
    return ([], spread) if fans[1] else (spread, [])


def write_timeloop_mapping(nest: LoopNest, hierarchy: Hierarchy, path, *, problem=None) -> None:
    """Write a nest as a Timeloop mapping, outermost level first.

    problem: file of the problem whose names of loops and tensors are used; without one the usual ones.
    Raises ValueError, one sentence: factors that are not whole, batches, a loop spread along both axes of
    one level (a Timeloop directive has each loop once), loops that the problem lacks.
    """
    if len(nest.levels) != len(hierarchy.levels):
        raise ValueError(f"the hierarchy has {len(hierarchy.levels)} levels, the mapping {len(nest.levels)}")
    check_whole(nest, hierarchy.names)
    shape = timeloop.problem_shape(timeloop.read_top(problem)) if problem is not None else timeloop.CONVENTION
    if shape is None:
        raise ValueError(f"{problem} has no problem: the key 'problem' is missing")
    names = {ours: theirs for theirs, ours in shape.loops.items()}
    if shape is timeloop.CONVENTION and _one(nest.extent("g")):
        del names["g"]
    for d in LOOPS:
        if d not in names and not _one(nest.extent(d)):
            raise ValueError(
                f"the problem has no loop for {d!r}, which the mapping splits into {float(nest.extent(d)):g}"
            )
    short = all(len(name) == 1 for name in names.values())
    join = lambda dims: "".join(dims) if short else ",".join(dims)
    spaces = {ours: theirs for theirs, ours in shape.tensors.items()}
    entries: list[dict] = []
    for k in range(len(nest.levels) - 1, -1, -1):
        level, memory = nest.levels[k], hierarchy.levels[k]
        target = {"target": memory.name}
        kept = [spaces[t] for t in "wio" if t in memory.keeps]
        entries.append(
            target
            | {"type": "datatype", "keep": kept, "bypass": [s for s in spaces.values() if s not in kept]}
        )
        axes = [{d: int(float(f)) for d, f in getattr(level, f"spatial_{a}").items()} for a in "xy"]
        x, y = ({d: f for d, f in axis.items() if f != 1} for axis in axes)
        twice = next((d for d in x if d in y), None)
        if twice is not None:
            raise ValueError(
                f"{memory.name}: loop {twice!r} is spread along both axes, which one Timeloop "
                "directive cannot "
                f"say; put it on one axis"
            )
        if axes[0] or axes[1] or not (_one(memory.fanout_x) and _one(memory.fanout_y)):
            order = [*x, *y, *(d for d in LOOPS if d in names and d not in x and d not in y)]
            spread = {d: x.get(d, y.get(d, 1)) for d in order}
            entries.append(
                target
                | {
                    "type": "spatial",
                    "factors": _text(spread, names),
                    "permutation": join(names[d] for d in order),
                }
                | {"split": len(x)}
            )
        order = sorted(names, key=lambda d: float(level.order[d]))
        split = {d: int(float(level.temporal[d])) for d in order}
        entries.append(
            target
            | {
                "type": "temporal",
                "factors": _text(split, names),
                "permutation": join(names[d] for d in order),
            }
        )
    note = "# Written by diffhw; permutations are innermost loop first.\n"
    write_text(path, note + write_yaml_text({"mapping": entries}))


def _one(value) -> bool:
    return bool(np.all(np.asarray(value) == 1))


def _text(found: dict[str, int], names: dict[str, str]) -> str:
    return " ".join(f"{names[d]}{'' if len(names[d]) == 1 else '='}{factor}" for d, factor in found.items())
