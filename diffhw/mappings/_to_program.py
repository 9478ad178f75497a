"""A dataflow printed as directives: the way back from `fit`. Knows Layer."""

import numpy as np

from diffhw.mappings._dataflow import DIMS, ClusterLevel, Dataflow
from diffhw.mappings._fit import layer_sizes
from diffhw.mappings._program import Map, Program, ProgramLevel, Sz
from diffhw.workloads import Layer

__all__ = ["to_program"]

_NAMES = {"n": "N", "k": "K", "c": "C", "p": "Y'", "q": "X'", "r": "R", "s": "S"}
_OUTPUTS = {"r": ("p", "Y"), "s": ("q", "X")}
_IDLE = ("k", "c", "r", "s", "n")  # what an idle level may be said to spread whole


def to_program(dataflow: Dataflow, layer: Layer, name: str = "") -> Program:
    """Directives of a dataflow on one concrete layer, in outputs (Y', X') and dimensions of convolutions.

    ``fit`` of it gives the same loops: tiles (cut to what is handed down), order and spatial loops. A level
    without a spatial loop is printed with a whole dimension "spread" over one unit, since the language
    asks for a SpatialMap in each level. Parts of R or S in time are printed too; MAESTRO refuses them.

    Raises ValueError for leaves that are not scalars, tiles that are no whole numbers, two spatial loops in
    one level, or a level without a spatial loop in which every loop is cut.

    >>> from diffhw.mappings import fit, style
    >>> layer = Layer.create(k=64, c=16, r=3, s=3, p=8, q=8)
    >>> print(to_program(fit(style("cp_nlr", layer, 16), layer), layer))
    TemporalMap(1,1) K;
    TemporalMap(1,1) Y';
    TemporalMap(1,1) X';
    SpatialMap(1,1) C;
    TemporalMap(Sz(R),Sz(R)) R;
    TemporalMap(Sz(S),Sz(S)) S;
    """
    held = layer_sizes(layer)
    levels = []
    for index, level in enumerate(dataflow.levels):
        place = f"dataflow{f' {name!r}' if name else ''}, level {index + 1}"
        units = _whole(level.units, f"{place}: units")
        maps = _maps(level, held, place)
        for dim in DIMS:
            held[dim] = min(held[dim], _whole(level.tile[dim], f"{place}: tile of {dim}"))
        levels.append((ProgramLevel(tuple(maps), None if index == 0 else units), _idle(maps)))
    while len(levels) > 1 and levels[-1][1] and levels[-1][0].units == 1:
        levels.pop()
    return Program(tuple(level for level, _ in levels), name)


def _whole(value, what: str) -> int:
    if np.shape(value) != ():
        raise ValueError(f"{what} must be one number, got shape {np.shape(value)}; take one row first")
    number = float(np.asarray(value))
    if not number.is_integer():
        raise ValueError(f"{what} must be a whole number, got {number:g}; harden the dataflow first")
    return int(number)


def _idle(maps: list[Map]) -> bool:
    """Only what was added for the language's sake."""
    return all(isinstance(one.size, Sz) for one in maps)


def _maps(level: ClusterLevel, held: dict[str, float], place: str) -> list[Map]:
    tile = {dim: _whole(level.tile[dim], f"{place}: tile of {dim}") for dim in DIMS}
    offset = {dim: _whole(level.offset[dim], f"{place}: offset of {dim}") for dim in DIMS}
    spread = [dim for dim in DIMS if float(np.asarray(level.spatial[dim])) > 0.5]
    if len(spread) > 1:
        raise ValueError(f"{place}: {' and '.join(spread)} are spatial, directives spread one loop a level")
    cut = [dim for dim in DIMS if tile[dim] < held[dim]]
    if not spread:
        whole = [dim for dim in _IDLE if dim not in cut]
        if not whole:
            raise ValueError(
                f"{place}: no spatial loop and every loop cut in time, which directives cannot say"
            )
        spread = whole[:1]
    shown = sorted({*cut, *spread}, key=lambda dim: float(np.asarray(level.rank[dim])))
    maps = []
    for dim in shown:
        kind = "spatial" if dim in spread else "temporal"
        if dim in cut:
            size, step = tile[dim], offset[dim]
        else:
            size = step = Sz(_NAMES[dim])
        outputs, rows = _OUTPUTS.get(dim, ("", ""))
        # The usual way to say filter rows on units, where each cluster has a single output row.
        if kind == "spatial" and size == step == 1 and outputs not in shown and held.get(outputs) == 1:
            maps.append(Map("spatial", 1, 1, rows))
        maps.append(Map(kind, size, step, _NAMES[dim]))
    for tap, (outputs, _) in _OUTPUTS.items():
        if outputs in shown and tap not in shown:
            maps.append(Map("temporal", Sz(_NAMES[tap]), Sz(_NAMES[tap]), _NAMES[tap]))
    return maps
