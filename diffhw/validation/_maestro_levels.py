"""MAESTRO's inputs, and how it splits a directive program into cluster levels (its once-per-layer step)."""

import math
from dataclasses import dataclass
from typing import Any

from diffhw.mappings import Program, Sz

__all__ = [
    "KINDS",
    "MAESTRO",
    "REPAIRED",
    "WINDOWS",
    "Level",
    "LevelMap",
    "MaestroHardware",
    "MaestroLayer",
    "MaestroRules",
    "split",
    "truncated",
]

KINDS = {  # dimensions of input, filter and output; those of the output in input coordinates (Y, X)
    "CONV": ("NCYX", "KCRS", "NKYX"),
    "DSCONV": ("NCYX", "CRS", "NCYX"),
    "GEMM": ("MK", "KN", "MN"),
}
"""Layer types that the tool analyses as they are meant (its TRCONV ignores dilation; NGCONV is wrong)."""

WINDOWS = {"Y": "R", "X": "S"}
"""A window of rows (columns) slides over the input: outputs are Y - R + 1, never divided by the stride."""


@dataclass(frozen=True)
class MaestroRules:
    """Which slips of the tool are replayed; a static object.

    ragged: "steady" as the tool does it: what is left of a tile at the edge is computed from the full
    size of the tile above, also where the tile above is itself cut short. "actual" repairs that: from
    the size that is handed down, and a unit with a partial tile counts as a unit.
    counts_32_bit: refuse what overflows the tool's counters.
    """

    ragged: str = "steady"
    counts_32_bit: bool = True

    def __post_init__(self):
        if self.ragged not in ("steady", "actual"):
            raise ValueError(f"ragged must be 'steady' or 'actual', got {self.ragged!r}")


MAESTRO = MaestroRules()
"""The tool as it is."""
REPAIRED = MaestroRules(ragged="actual", counts_32_bit=False)
"""The tool with its ragged tiles repaired: a searcher cannot win by them."""


@dataclass(frozen=True)
class MaestroLayer:
    """A layer as MAESTRO files say it.

    kind: CONV, DSCONV (depthwise) or GEMM.  sizes: of CONV K C R S Y X, and N if there is a batch; of
    DSCONV the same, K ignored; of GEMM M N K (M x K times K x N).  Y and X count input rows and columns,
    padding included.  stride: of rows and columns.  Raises ValueError naming the size.
    """

    kind: str
    sizes: dict[str, int]
    stride: int = 1

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"the layer type must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for dim in self.mapped:
            if dim not in self.sizes:
                raise ValueError(f"a {self.kind} layer needs the size of {dim}")
        for dim, size in {**self.sizes, "the stride": self.stride}.items():
            if size != int(size) or size < 1:
                raise ValueError(f"{dim} must be a whole number >= 1, got {size}")
        for dim, window in WINDOWS.items():
            if dim in self.mapped and self.sizes[window] > self.sizes[dim]:
                raise ValueError(
                    f"the filter is larger than the input: {window} = {self.sizes[window]}, "
                    f"{dim} = {self.sizes[dim]}"
                )

    @property
    def tensors(self) -> tuple[str, ...]:
        """Dimensions of input, filter and output."""
        batched = self.kind == "GEMM" or "N" in self.sizes
        return tuple(dims if batched else dims.replace("N", "") for dims in KINDS[self.kind])

    @property
    def mapped(self) -> list[str]:
        """Dimensions of input and filter, sorted: those that every level maps."""
        return sorted({*self.tensors[0], *self.tensors[1]})

    def outputs(self, dim: str) -> int:
        """Size of ``dim`` counted in outputs: the true one, with the stride."""
        size = self.sizes[dim]
        return (size - self.sizes[WINDOWS[dim]]) // self.stride + 1 if dim in WINDOWS else size

    @property
    def macs(self) -> int:
        """True multiply-accumulates."""
        return math.prod(self.outputs(dim) for dim in self.mapped)


@dataclass(frozen=True)
class MaestroHardware:
    """What the tool asks about hardware; capacities change none of its numbers.

    num_pes: PEs.  noc_bw: elements per cycle, the same at each cluster level.  noc_latency: cycles a
    transfer waits before its first element (the tool's hops x latency per hop).  offchip_bw: elements
    per cycle.  simd_lanes: MACs per PE and cycle.  All whole; latency >= 0, the others >= 1.
    """

    num_pes: int
    noc_bw: int
    noc_latency: int = 1
    offchip_bw: int = 2**31 - 1
    simd_lanes: int = 1

    def __post_init__(self):
        for name, value in vars(self).items():
            lowest = 0 if name == "noc_latency" else 1
            if value != int(value) or value < lowest:
                raise ValueError(f"{name} must be a whole number >= {lowest}, got {value}")


@dataclass(frozen=True)
class LevelMap:
    """One directive with its numbers, in input coordinates."""

    spatial: bool
    size: int
    offset: int
    dim: str


@dataclass(frozen=True)
class Level:
    """One cluster level: its maps in order, how many sub-clusters (PEs), and the sizes it is made for."""

    maps: tuple[LevelMap, ...]
    units: int
    sizes: dict[str, int]

    @property
    def spatial(self) -> list[int]:
        """Places of the spatial maps."""
        return [i for i, one in enumerate(self.maps) if one.spatial]


def truncated(a: int, b: int) -> int:
    """Integer division toward zero, as C does it."""
    return a // b if a >= 0 else -(-a // b)


def split(layer: MaestroLayer, program: Program, num_pes: int) -> list[Level]:
    """The cluster levels, outermost first.

    Raises ValueError, one sentence, where the tool crashes, aborts or reads memory that it never set.
    """
    if not any(level.maps for level in program.levels):
        raise ValueError("the program has no maps: the tool aborts on a layer without a Dataflow of its own")
    clusters = [_value(level.units, layer, "Cluster") for level in program.levels[1:]]
    product = math.prod(clusters)
    if product > num_pes:
        raise ValueError(
            f"{num_pes} PEs are fewer than the {product} of one cluster ({' x '.join(map(str, clusters))}): "
            f"give at least {product} PEs or make the clusters smaller"
        )
    levels: list[Level] = []
    sizes = dict(layer.sizes)
    for depth, one in enumerate(program.levels):
        maps = _input_centric(one.maps, layer, depth)
        above = levels[-1].maps if levels else ()
        for other in above:  # inherited one by one at the front, so they end up reversed
            if all(other.dim != mine.dim for mine in maps):
                maps.insert(0, LevelMap(False, other.size, other.offset, other.dim))
        for dim in layer.mapped:
            if all(dim != mine.dim for mine in maps):
                maps.append(LevelMap(False, sizes[dim], sizes[dim], dim))
        maps = [_strided(mine, layer, inner=depth > 0) for mine in maps]
        count = sum(mine.spatial for mine in maps)
        if count not in (1, 2):
            raise ValueError(f"cluster level {depth + 1} needs one or two SpatialMaps, it has {count}")
        units = clusters[depth - 1] if depth else num_pes // product
        levels.append(Level(tuple(maps), units, sizes))
        sizes = dict(sizes)
        for mine in maps:
            sizes[mine.dim] = min(mine.size, sizes[mine.dim])
    return levels


def _value(value: Any, layer: MaestroLayer, what: str) -> int:
    """A number, or ``Sz`` of a dimension that the layer has."""
    if isinstance(value, Sz):
        if value.dim not in layer.sizes:
            raise ValueError(f"{what}: the layer has no dimension {value.dim}, in {value}")
        return layer.sizes[value.dim]
    if value is None or value < 1:
        raise ValueError(f"{what} must be >= 1, got {value}")
    return int(value)


def _input_centric(maps, layer: MaestroLayer, depth: int) -> list[LevelMap]:
    """Numbers for Sz, and Y', X' (outputs) as Y, X (inputs): larger by the window minus one."""
    where = f"cluster level {depth + 1}"
    windows: dict[str, int] = {}
    known: list[LevelMap] = []
    for one in maps:
        size, offset = (_value(value, layer, f"{where}, {one}") for value in (one.size, one.offset))
        plain = one.dim.rstrip("'")
        if plain not in layer.sizes:
            raise ValueError(f"{where}: {one} maps a dimension that the layer does not have")
        if any(other.dim.rstrip("'") == plain for other in known):
            raise ValueError(f"{where}: dimension {plain} is mapped twice")
        if one.kind == "temporal" and one.dim in WINDOWS.values() and {size, offset} != {layer.sizes[plain]}:
            raise ValueError(f"{where}: {one} must take all {layer.sizes[plain]} of {plain} at once")
        windows[one.dim] = size
        known.append(LevelMap(one.kind == "spatial", size, offset, one.dim))
    done = []
    for one in known:
        plain = one.dim.rstrip("'")
        if plain != one.dim:
            window = WINDOWS.get(plain)
            if window is None or window not in windows:
                raise ValueError(f"{where}: a map of {one.dim} needs a map of {window} at the same level")
            one = LevelMap(one.spatial, one.size + windows[window] - 1, one.offset, plain)
        done.append(one)
    return done


def _strided(one: LevelMap, layer: MaestroLayer, inner: bool) -> LevelMap:
    """Size and offset for a stride: as many whole steps as fit."""
    step = layer.stride
    if step == 1 or one.dim not in WINDOWS:
        return one
    window = layer.sizes[WINDOWS[one.dim]]
    if one.size < window:
        return one
    outputs = (one.size + step - window) // step
    offset = outputs * (window if inner and window < step else step)
    return LevelMap(one.spatial, outputs * min(window, step) + max(window - step, 0), offset, one.dim)
