"""A program fitted to layers: `Program` to `Dataflow`. Knows Layer and Network.

Sizes of Y and X count input rows as if the stride were 1, so a tile holds ``size - R + 1`` outputs
(R: the filter rows of the tile) and its offset counts outputs; the stride then stretches the window.
Y' and X' count outputs. MAESTRO divides by the stride instead; its replay does as it does.
"""

import numpy as np

from diffhw import numerics
from diffhw.mappings._dataflow import DIMS, LEVELS, ClusterLevel, Dataflow
from diffhw.mappings._program import Map, Program, Sz
from diffhw.workloads import Layer, Network

__all__ = ["ALL", "check_pes", "fit", "layer_sizes", "network_sizes"]

ALL = 1e9
"""A tile of everything that the level above hands down."""

CONV_LOOPS = {"N": "n", "K": "k", "C": "c", "R": "r", "S": "s", "Y": "p", "X": "q", "Y'": "p", "X'": "q"}
GEMM_LOOPS = {"M": "p", "K": "c", "N": "k"}
_WINDOW = {"p": "r", "q": "s"}
_FIELDS = ("n", "g", "k", "c", "p", "q", "r", "s")


def layer_sizes(layer: Layer) -> dict[str, float]:
    """Extents of the seven loops of a concrete layer; ``c`` of a depthwise one is its groups."""
    shapes = {np.shape(getattr(layer, name)) for name in _FIELDS}
    if shapes != {()}:
        raise ValueError(f"one layer has leaves of shape (), got {max(shapes)}; give the Network instead")
    return _loops({name: float(getattr(layer, name)) for name in _FIELDS})


def network_sizes(network: Network) -> list[dict[str, float]]:
    """The same for every real row."""
    columns = {name: np.asarray(getattr(network.layers, name), float) for name in _FIELDS}
    return [_loops({name: float(columns[name][i]) for name in _FIELDS}) for i in range(network.size)]


def _loops(fields: dict[str, float]) -> dict[str, float]:
    groups = fields.pop("g")
    if fields["c"] == 1 and groups > 1:
        fields["c"] = groups
    return fields


def _named(sizes: dict[str, float]) -> dict[str, float]:
    """Sizes by the names of the directives of convolutions."""
    named = {dim: sizes[loop] for dim, loop in CONV_LOOPS.items()}
    named["Y"] = sizes["p"] - 1 + sizes["r"]
    named["X"] = sizes["q"] - 1 + sizes["s"]
    return named


def _is_gemm(program: Program) -> bool:
    return any(one.dim == "M" for level in program.levels for one in level.maps)


def _number(value: int | Sz, dims: dict[str, float], place: str) -> float:
    if not isinstance(value, Sz):
        return float(value)
    if value.dim not in dims:
        raise ValueError(f"{place}: {value} is not a size of this layer, which has {', '.join(dims)}")
    return float(dims[value.dim])


def check_pes(program: Program, dims: dict[str, float], pes) -> int:
    """Product of the cluster sizes, once it is known to fit in ``pes`` processing elements.

    dims: sizes of the layer by the names of directives (``{"R": 3, ...}``), for ``Cluster(Sz(R), P)``.

    Raises ValueError where there are fewer PEs than one of the outermost clusters has.

    >>> from diffhw.mappings import cluster, spatial
    >>> check_pes(Program.create(spatial(1, 1, "K"), cluster(Sz("R")), spatial(1, 1, "R")), {"R": 3}, 16)
    3
    """
    title = f"program {program.name!r}" if program.name else "program"
    units = [_number(level.units, dims, title) for level in program.levels if level.units is not None]
    product = int(np.prod(units)) if units else 1
    if product > float(pes):
        text = " x ".join(f"{int(one)}" for one in units)
        raise ValueError(f"{title}: clusters of {text} = {product} PEs do not fit in {int(pes)} PEs")
    return product


class _Rows:
    """Arrays to fill, one entry per row of layers."""

    def __init__(self, rows: int):
        def full(value):
            return [{dim: np.full(rows, float(value)) for dim in DIMS} for _ in range(LEVELS)]

        self.tile, self.offset, self.spatial, self.rank = full(ALL), full(ALL), full(0), full(0)
        for level in self.rank:
            for i, dim in enumerate(DIMS):
                level[dim][:] = i
        self.units = [np.full(rows, 0.0 if i == 0 else 1.0) for i in range(LEVELS)]

    def dataflow(self, scalar: bool) -> Dataflow:
        def leaf(value):
            return numerics.as_float(value[0] if scalar else value)

        def leaves(columns):
            return {dim: leaf(value) for dim, value in columns.items()}

        levels = [
            ClusterLevel(
                tile=leaves(self.tile[i]),
                offset=leaves(self.offset[i]),
                rank=leaves(self.rank[i]),
                spatial=leaves(self.spatial[i]),
                units=leaf(self.units[i]),
            )
            for i in range(LEVELS)
        ]
        return Dataflow(levels=(levels[0], levels[1], levels[2]))


def fit(program, layers: Layer | Network, pes=None) -> Dataflow:
    """The dataflow of a program on one concrete layer, or of programs on the rows of a network.

    program: a `Program`; for a network also a list with one per row, or a dict by the names of the rows.
    layers:  a `Layer` with leaves ``()`` gives leaves ``()``, a `Network` leaves ``(L,)`` with trivial
             dataflows in its padding rows. Host only: sizes are read, nothing is traced.
    pes:     processing elements, to check the clusters against; None: not checked here.

    M, N, K of matrix products fit layers with 1 x 1 filters: p, k and c. Two SpatialMaps in a level are
    a diagonal, Y with R or X with S at equal offsets: filter rows on the units, output rows in time.

    Raises ValueError naming program, level and directive: more than three levels, a tile of Y with fewer rows
    than the filter has in it, two SpatialMaps that are no diagonal, M on filters larger than 1 x 1, too few
    PEs.

    >>> from diffhw.mappings import spatial, temporal
    >>> flow = fit(Program.create(spatial(1, 1, "K"), temporal(8, 8, "C")), Layer.gemm(4, 32, 16))
    >>> float(flow.levels[0].tile["c"]), float(flow.levels[0].spatial["k"])
    (8.0, 1.0)
    """
    if isinstance(layers, Layer):
        if not isinstance(program, Program):
            raise ValueError(f"one layer takes one Program, got {type(program).__name__}")
        rows = _Rows(1)
        _fill(rows, 0, program, layer_sizes(layers), pes, "")
        return rows.dataflow(scalar=True)
    programs = _per_row(program, layers)
    rows = _Rows(np.shape(layers.mask)[-1])
    for i, (one, sizes) in enumerate(zip(programs, network_sizes(layers))):
        _fill(rows, i, one, sizes, pes, f" on layer {layers.names[i]!r}")
    return rows.dataflow(scalar=False)


def _per_row(program, network: Network) -> list[Program]:
    if isinstance(program, Program):
        return [program] * network.size
    if isinstance(program, dict):
        missing = [name for name in network.names if name not in program]
        if missing:
            raise ValueError(f"no program for layer {missing[0]!r}; there are {', '.join(program)}")
        return [program[name] for name in network.names]
    programs = list(program)
    if len(programs) != network.size:
        raise ValueError(f"one program per row: got {len(programs)} for {network.size} rows")
    return programs


def _fill(rows: _Rows, i: int, program: Program, sizes: dict[str, float], pes, where: str) -> None:
    title = f"program {program.name!r}{where}" if program.name else f"program{where}"
    if len(program.levels) > LEVELS:
        raise ValueError(f"{title}: {len(program.levels)} levels of clusters, but at most {LEVELS} fit")
    loops, dims = CONV_LOOPS, _named(sizes)
    if _is_gemm(program):
        if sizes["r"] > 1 or sizes["s"] > 1:
            shape = f"{sizes['r']:g} x {sizes['s']:g}"
            raise ValueError(f"{title}: M N K are for matrix products, this layer has {shape} filters")
        loops = GEMM_LOOPS
        dims = {dim: sizes[loop] for dim, loop in loops.items()}
    if pes is not None:
        check_pes(program, dims, pes)
    window = {"p": sizes["r"], "q": sizes["s"]}  # filter rows and columns handed down
    for index, level in enumerate(program.levels):
        place = f"{title}, level {index + 1}"
        if level.units is not None:
            rows.units[index][i] = _number(level.units, dims, place)
        here = {loops.get(one.dim, ""): one for one in level.maps}
        if "" in here:
            raise ValueError(f"{place}: {here[''].dim} is no dimension beside M; those are M N K")
        for loop, tap in _WINDOW.items():
            if tap in here:
                window[loop] = min(window[loop], _number(here[tap].size, dims, place))
        spread = _spread(level.maps, loops, dims, place)
        for position, (loop, one) in enumerate(here.items()):
            tile, offset = _number(one.size, dims, place), _number(one.offset, dims, place)
            if one.dim in ("Y", "X"):
                if tile < window[loop]:
                    raise ValueError(
                        f"{place}, {one}: {tile:g} rows or columns are fewer than the {window[loop]:g} "
                        f"of the filter in this tile"
                    )
                tile = tile - window[loop] + 1
            diagonal = one.kind == "spatial" and loop not in spread
            if diagonal:  # the output rows stay in time
                tile = offset = ALL if tile == 1 else tile
            rows.tile[index][loop][i], rows.offset[index][loop][i] = tile, offset
            rows.spatial[index][loop][i] = float(loop in spread)
            rows.rank[index][loop][i] = position
        for position, loop in enumerate((dim for dim in DIMS if dim not in here), len(here)):
            rows.rank[index][loop][i] = position


def _spread(maps: tuple[Map, ...], loops: dict[str, str], dims, place: str) -> set[str]:
    """Loops that are spread over units: of a diagonal only the filter's."""
    spatial = [one for one in maps if one.kind == "spatial"]
    over = {loops[one.dim] for one in spatial}
    if len(over) <= 1:
        return over
    offsets = {_number(one.offset, dims, place) for one in spatial}
    shown = " and ".join(map(str, spatial))
    if over not in ({"p", "r"}, {"q", "s"}):
        raise ValueError(f"{place}: {shown} are no diagonal; two SpatialMaps may be Y with R or X with S")
    if len(offsets) > 1:
        raise ValueError(f"{place}: {shown} are no diagonal, which needs equal offsets")
    return over & {"r", "s"}
