"""A dataflow as text says it: MAESTRO's data-centric directives, on the host.

A program is a list of cluster levels, outermost first; a level is an ordered list of maps. A map
walks a window of ``size`` elements over one dimension in steps of ``offset``, in time (temporal) or
over the sub-clusters or PEs of the level (spatial). Source: Kwon et al., MICRO 2019, section 3.
"""

from dataclasses import dataclass

from diffhw.mappings._dataflow import LEVELS

__all__ = ["Map", "Program", "ProgramLevel", "Sz", "cluster", "find_problem", "spatial", "temporal"]

CONV_DIMENSIONS = ("N", "K", "C", "R", "S", "Y", "X", "Y'", "X'")
DIMENSIONS = (*CONV_DIMENSIONS, "M")
"""Of convolutions N K C R S Y X (Y' X' in outputs); of GEMMs M N K."""

WINDOWS = {"Y'": "R", "X'": "S"}


@dataclass(frozen=True)
class Sz:
    """The layer's own size of a dimension: ``Sz(R)``."""

    dim: str

    def __str__(self) -> str:
        return f"Sz({self.dim})"


@dataclass(frozen=True)
class Map:
    """``TemporalMap(size,offset) dim`` or ``SpatialMap(size,offset) dim``.

    size and offset are whole numbers >= 1 or `Sz`.
    """

    kind: str  # "temporal" or "spatial"
    size: int | Sz
    offset: int | Sz
    dim: str

    def __str__(self) -> str:
        return f"{self.kind.capitalize()}Map({self.size},{self.offset}) {self.dim}"


@dataclass(frozen=True)
class ProgramLevel:
    """One cluster level.

    units: sub-clusters or PEs of this level inside one parent, a whole number or `Sz`; None for the
    outermost level, which takes what the hardware has.
    """

    maps: tuple[Map, ...]
    units: int | Sz | None = None


@dataclass(frozen=True)
class Cluster:
    """``Cluster(units, P)``: what follows describes the inside of one cluster. Made by `cluster`."""

    units: int | Sz


@dataclass(frozen=True)
class Program:
    """A directive program: ``levels`` outermost first, ``name`` for reports."""

    levels: tuple[ProgramLevel, ...]
    name: str = ""

    @classmethod
    def create(cls, *directives: Map | Cluster, name: str = "") -> "Program":
        """Directives in the order of the text. Raises ValueError for what no model could read.

        >>> print(Program.create(spatial(1, 1, "K"), temporal(8, 8, "C"), cluster(8), spatial(1, 1, "C")))
        SpatialMap(1,1) K;
        TemporalMap(8,8) C;
        Cluster(8, P);
        SpatialMap(1,1) C;
        """
        units: list[int | Sz | None] = [None]
        maps: list[list[Map]] = [[]]
        for one in directives:
            if isinstance(one, Cluster):
                units.append(one.units)
                maps.append([])
            elif isinstance(one, Map):
                maps[-1].append(one)
            else:
                raise ValueError(
                    f"a directive is made by temporal, spatial or cluster, got {type(one).__name__}"
                )
        levels = tuple(ProgramLevel(tuple(some), size) for some, size in zip(maps, units))
        problem = find_problem(levels)
        if problem is not None:
            level, index, sentence = problem
            place = f"level {level + 1}" + ("" if index is None else f", {levels[level].maps[index]}")
            raise ValueError(f"program{f' {name!r}' if name else ''}: {place}: {sentence}")
        return cls(levels, name)

    def __str__(self) -> str:
        lines = []
        for level in self.levels:
            if level.units is not None:
                lines.append(f"Cluster({level.units}, P);")
            lines += [f"{one};" for one in level.maps]
        return "\n".join(lines)


def temporal(size: int | Sz, offset: int | Sz, dim: str) -> Map:
    """``TemporalMap(size,offset) dim``: the tiles one after the other."""
    return _map("temporal", size, offset, dim)


def spatial(size: int | Sz, offset: int | Sz, dim: str) -> Map:
    """``SpatialMap(size,offset) dim``: the tiles on neighbouring units."""
    return _map("spatial", size, offset, dim)


def cluster(units: int | Sz) -> Cluster:
    """``Cluster(units, P)``: what follows is the inside of one cluster of that many units."""
    _check_size("a cluster", units)
    return Cluster(units)


def _map(kind: str, size, offset, dim: str) -> Map:
    if dim not in DIMENSIONS:
        raise ValueError(f"dimension must be one of {', '.join(DIMENSIONS)}, got {dim!r}")
    _check_size(f"the size over {dim}", size)
    _check_size(f"the offset over {dim}", offset)
    return Map(kind, size, offset, dim)


def _check_size(what: str, value) -> None:
    if isinstance(value, Sz):
        if value.dim not in DIMENSIONS:
            raise ValueError(f"{what} is {value}, but dimensions are {', '.join(DIMENSIONS)}")
    elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be a whole number >= 1 or Sz(dimension), got {value!r}")


def find_problem(levels: tuple[ProgramLevel, ...]) -> tuple[int, int | None, str] | None:
    """First broken rule as (level, place of the map in it or None, sentence); None where all is well.

    Rules that need no layer: MAESTRO's own, its crashes, and the number of levels of a `Dataflow`.
    """
    if len(levels) > LEVELS:
        return LEVELS, None, f"{len(levels)} levels of clusters, but at most {LEVELS} can be costed"
    seen: list[tuple[int, int, str]] = []
    for i, level in enumerate(levels):
        if not level.maps:
            inside = "before the first Cluster" if i == 0 else "inside this Cluster"
            return i, None, f"no TemporalMap or SpatialMap {inside}; each level needs 1 or 2 SpatialMaps"
        here: dict[str, str] = {}
        for j, one in enumerate(level.maps):
            loop = one.dim.rstrip("'")
            if loop in here:
                both = one.dim if here[loop] == one.dim else f"{here[loop]} and {one.dim}"
                return i, j, f"{both} mapped twice in one level, which may map each dimension once"
            here[loop] = one.dim
            seen.append((i, j, one.dim))
        spread = [j for j, one in enumerate(level.maps) if one.kind == "spatial"]
        if not spread:
            return i, None, "no SpatialMap in this level, which needs 1 or 2"
        if len(spread) > 2:
            return i, spread[2], f"{len(spread)} SpatialMaps in this level, which may have 1 or 2"
        for j, one in enumerate(level.maps):
            window = WINDOWS.get(one.dim)
            if window and window not in here:
                return (
                    i,
                    j,
                    (
                        f"{one.dim} counts outputs and needs a map over {window} in the same level; "
                        f"add TemporalMap(Sz({window}),Sz({window})) {window}"
                    ),
                )
            if one.kind == "temporal" and one.dim in ("R", "S") and one.size != one.offset:
                return i, j, f"TemporalMap over {one.dim} must take all of it: Sz({one.dim}),Sz({one.dim})"
    if any(dim == "M" for *_, dim in seen):
        for i, j, dim in seen:
            if dim not in ("M", "N", "K"):
                return (
                    i,
                    j,
                    f"{dim} of a convolution beside M of a matrix product, whose dimensions are M N K",
                )
    return None
