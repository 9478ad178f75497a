"""What a dataflow moves: exact transfer counts of a layer, in closed form.

Rules (ours; after Kwon et al., MICRO 2019, with the published program's slips repaired):

- A PE holds one tile per tensor and accumulates into its output tile. All PEs walk in lockstep.
- On a step a PE receives what its new tile has and its old one lacked. One read of the shared buffer
  (L2) serves every PE that needs the element in that step; each of them writes it once (L1).
- Partial sums leave when the output tile changes (added up over PEs on the way, one L2 write) and
  come back when it is visited again (one L2 read).
- Input rows form a window of the filter's height that slides by the stride, columns likewise. Halo
  rows survive an advance in time to the neighbouring tile; after a restart, a jump over several
  units or a move along the filter the input tile is loaded whole. A dilated window is taken as dense.

A step is known by the loop that advanced, one of 21; loops outside it hold, loops inside restart. The
iteration space is a product over dimensions, so the sum over all steps of a class is a product of
sums over single dimensions (`_dataflow_loops`): exact, ragged tiles and idle PEs included. Not
merged: input that two units share where tiles of neighbours do not touch, or where units have parts
of the filter larger than a row; L2 reads of inputs are then counted too high, never too low.
"""

import functools
import operator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffhw.fusing import joined
from diffhw.mappings import DIMS, LEVELS, Dataflow
from diffhw.models._dataflow_loops import LoopSums, loop_sums
from diffhw.numerics import floor_div, maximum, minimum
from diffhw.workloads import Layer

__all__ = ["DataflowCounts", "Nest", "dataflow_counts", "nest_of"]

_product = lambda values: functools.reduce(operator.mul, values)
_sum = lambda *values: functools.reduce(operator.add, values)


@struct.dataclass(kw_only=True)
class StepClass:
    """Totals over the steps on which one loop advanced. Elements; compute in MACs of the busiest PE."""

    input_reads: Array  # out of L2, a multicast counted once
    weight_reads: Array
    returns: Array  # partial sums out of L2
    moves: Array  # partial sums into L2
    compute: Array
    input_fills: Array  # into L1, once per receiver
    weight_fills: Array
    drains: Array  # partial sums out of L1


@struct.dataclass(kw_only=True)
class DataflowCounts:
    """Counts of one group of a layer under one dataflow; leaves ``()``, elements unless said otherwise.

    macs, steps:       MACs (exactly the layer's) and steps of the walk.
    compute:           sum over steps of the busiest PE's MACs (cycles with one lane).
    input_reads, weight_reads: L2 reads, a multicast counted once.
    input_fills, weight_fills: L1 writes, once per receiver.
    output_moves:      partial sums leaving the array (L2 writes).
    output_returns:    partial sums coming back (L2 reads, and L1 writes of one PE).
    output_drains:     partial sums leaving PEs, each PE's own (L1 reads).
    psum_updates:      output tile elements over steps and PEs (L1 reads and writes of the accumulation).
    first:             `StepClass` of the first step (its ``moves`` stand for what the last step leaves).
    time:              sum over the loops of ``longest``, as given to `dataflow_counts`.
    pe_input, pe_weight, pe_output: elements a PE holds of each tensor.
    """

    macs: Array
    steps: Array
    compute: Array
    input_reads: Array
    weight_reads: Array
    input_fills: Array
    weight_fills: Array
    output_moves: Array
    output_returns: Array
    output_drains: Array
    psum_updates: Array
    first: StepClass
    time: Array
    pe_input: Array
    pe_weight: Array
    pe_output: Array


@dataclass(frozen=True)
class Window:
    """Input rows of an output piece: ``slope`` per output row and ``base`` per piece, summed over filter
    pieces: what every PE has, and what a fold's PEs have together. Tuples are indexed by j of r.
    """

    slope: tuple[Array, ...]
    base: tuple[Array, ...]
    slope_shared: tuple[Array, ...]
    base_shared: tuple[Array, ...]
    stays: tuple[Array, ...]  # 1.0 where a restart of the filter loops moves nothing
    whole: Array  # 1.0 where all units have the same filter piece
    tile_slope: Array  # of one PE's filter piece
    tile_base: Array
    full_slope: Array  # of the whole filter extent
    full_base: Array


@dataclass(frozen=True)
class Nest:
    """A layer's loops under a dataflow: extents, clipped tiles, units, sums per dimension."""

    extents: dict[str, Array]
    tiles: dict[str, tuple[Array, ...]]
    units: dict[str, tuple[Array, ...]]
    level_units: tuple[Array, ...]
    sums: dict[str, LoopSums]
    rows: Window
    cols: Window
    depthwise: Array  # 1.0: every tensor has channels
    repeats: Array  # groups, one after another
    crowded: Array  # dimensions beyond one that a level was asked to deal out


def _window(filter_sums: LoopSums, extent, tile, units, stride, dilation) -> Window:
    def line(taps):
        """(slope, base): rows = slope * outputs + base for a dense window over ``taps``."""
        width = dilation * (taps - 1) + 1
        return minimum(stride, width), maximum(width - stride, 0.0)

    def over(counts, all_of_them, full, ragged):
        """Sums over filter pieces of slope and base; the ragged piece is in only if all are."""
        (slope, base), (slope_last, base_last) = line(full), line(ragged)
        slopes, bases = [], []
        for count in counts:
            ends = (count >= all_of_them) * 1.0
            slopes.append((count - ends) * slope + ends * slope_last)
            bases.append((count - ends) * base + ends * base_last)
        return tuple(slopes), tuple(bases)

    pieces, folds = filter_sums.units[3], filter_sums.steps[3]
    last = extent - (pieces - 1) * tile
    slope, base = over(filter_sums.units, pieces, tile, last)
    at_once = minimum(extent, tile * units)
    slope_shared, base_shared = over(filter_sums.steps, folds, at_once, extent - (folds - 1) * at_once)
    stays = tuple((count >= folds) * 1.0 for count in filter_sums.steps)
    whole = ((pieces <= 1) | (units <= 1)) * 1.0
    return Window(slope, base, slope_shared, base_shared, stays, whole, *line(tile), *line(extent))


def one_dtype(tree):
    """The same tree with all leaves of the widest dtype in it: loops carry one (a search in float64 may
    meet hardware in float32).
    """
    dtype = jnp.result_type(float, *jax.tree.leaves(tree))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


_NOWHERE = float(len(DIMS))


def _clipped(extent, wishes):
    """Tiles cut to what the level above hands down, and where a dimension asks to be dealt out."""
    tiles, places = [], []
    for tile, spatial, rank in wishes:
        inside = minimum(tile, extent)
        places.append(jnp.where((spatial > 0.5) & (inside < extent), rank, _NOWHERE))
        tiles.append(inside)
        extent = inside
    return tiles, places


def _dealt(extents, asked):
    """Per level the outermost place that asks to be dealt out; dimensions beyond one that ask, in all."""
    places = [_clipped(extents[d], [level[d] for level in asked])[1] for d in DIMS]
    first = [functools.reduce(minimum, level) for level in zip(*places, strict=True)]
    asks = [
        sum(jnp.where(place < _NOWHERE, 1.0, 0.0) for place in level) for level in zip(*places, strict=True)
    ]
    return first, functools.reduce(operator.add, [maximum(number - 1, 0.0) for number in asks])


def _one_dimension(extent, wishes, first, level_units):
    """Tiles, units and sums of one dimension. A level deals out one, the outermost of those that ask."""
    tiles, places = _clipped(extent, wishes)
    units = [
        jnp.where((place <= where) & (place < _NOWHERE), n, 1.0)
        for place, where, n in zip(places, first, level_units, strict=True)
    ]
    return tuple(tiles), tuple(units), loop_sums(extent, tiles, units)


def nest_of(layer: Layer, dataflow: Dataflow, pes) -> Nest:
    """Loops of ``layer`` under ``dataflow`` on ``pes`` PEs."""
    layer, dataflow, pes = one_dtype((layer, dataflow, pes))
    depthwise = jnp.where((layer.c <= 1) & (layer.g > 1), 1.0, 0.0) * jnp.ones_like(layer.g)
    extents = {d: getattr(layer, d) for d in DIMS}
    extents["c"] = jnp.where(depthwise > 0, layer.g, layer.c)
    # Clusters larger than the array are cut to it (and infeasible: `dataflow.layer` says by how much).
    inner = minimum(dataflow.levels[2].units, pes)
    middle = minimum(dataflow.levels[1].units, maximum(floor_div(pes, inner), 1.0))
    level_units = (maximum(floor_div(pes, middle * inner), 1.0), middle, inner)
    asked = [{d: (level.tile[d], level.spatial[d], level.rank[d]) for d in DIMS} for level in dataflow.levels]
    first, crowded = joined(_dealt, apart=1)(extents, asked)
    tiles, units, sums = {}, {}, {}
    for d in DIMS:
        wishes = [level[d] for level in asked]
        # most: 41 results of 14 inputs fit one kernel.
        tiles[d], units[d], sums[d] = joined(_one_dimension, most=48)(extents[d], wishes, first, level_units)

    def filter_units(d):
        """Units that a filter dimension is dealt to (it is split at one level)."""
        parents = (extents[d], *tiles[d][:2])
        split = [jnp.where(t < parent, n, 1.0) for parent, t, n in zip(parents, tiles[d], units[d])]
        return split[0] * split[1] * split[2]

    window = lambda d, stride, dilation: _window(
        sums[d], extents[d], tiles[d][2], filter_units(d), stride, dilation
    )
    return Nest(
        extents=extents,
        tiles=tiles,
        units=units,
        level_units=level_units,
        sums=sums,
        rows=window("r", layer.stride_h, layer.dilation_h),
        cols=window("s", layer.stride_w, layer.dilation_w),
        depthwise=depthwise,
        repeats=jnp.where(depthwise > 0, 1.0, layer.g),
        crowded=crowded,
    )


@dataclass(frozen=True)
class _Class:
    """One class of steps: the loop of ``moved`` advanced (None: the first step of all).

    outside: dimension -> whether its loop is outside the one that advanced, and so held its position.
    A sum comes as its values at j = level and at j = level + 1.
    """

    moved: str | None
    outside: dict[str, Array]

    def pick(self, d, pair):
        """A sum over the class: of a loop that advanced, over its advances; else held or restarted."""
        low, high = pair
        if self.moved is None:
            return low
        return high - low if d == self.moved else jnp.where(self.outside[d], high, low)

    def keep(self, d, pair):
        """The same of what may stay in place: nothing where the tile moved."""
        if self.moved in (None, d):
            return 0.0
        return jnp.where(self.outside[d], pair[1], pair[0])


def _axis_input(at: _Class, out: str, taps: str, values, touching, whole):
    """Input rows (or columns) in one class: held and kept by PEs, held and kept by the whole array."""
    of_out, of_taps, slides = values[out], values[taps], values["slides_" + out]
    size, units, steps = (at.pick(out, of_out[name]) for name in ("size", "units", "steps"))
    edges = units - touching * (units - steps)
    slope, base, slope_shared, base_shared = (
        at.pick(taps, of_taps[name]) for name in ("slope", "base", "slope_shared", "base_shared")
    )
    stays = at.keep(taps, of_taps["stays"])
    same, same_units, same_steps = (
        at.keep(out, of_out[n]) for n in ("size_same", "units_same", "steps_same")
    )
    same_edges = same_units - touching * (same_units - same_steps)
    slid = slides * units if at.moved == out else 0.0
    return (
        size * slope + units * base,
        stays * (same * slope + (same_units + slid) * base),
        size * slope_shared + edges * base_shared,
        stays * (same * slope_shared + (same_edges + whole * slid) * base_shared),
    )


def _alike(nest: Nest):
    """What is the same for all classes: depthwise; tiles that touch, and whole windows, of p and q."""
    touching = {d: nest.sums[d].touching for d in ("p", "q")}
    return nest.depthwise, touching, {"p": nest.rows.whole, "q": nest.cols.whole}


def _step_class(at: _Class, values, alike) -> StepClass:
    """Totals of one class: products over dimensions. alike: `_alike`."""
    depthwise, touching, whole = alike
    channels = depthwise > 0
    of = {name: {d: at.pick(d, values[d][name]) for d in DIMS} for name in ("size", "units", "steps", "lead")}
    size, units, steps = of["size"], of["units"], of["steps"]
    same = {d: at.keep(d, values[d]["size_same"]) for d in DIMS}

    # Weights: k, c, r, s.
    held = size["k"] * size["c"] * size["r"] * size["s"]
    kept = same["k"] * same["c"] * same["r"] * same["s"]
    weight = held - kept

    # Outputs: n, k, p, q, and c where channels are kept apart. Visits after the first need the old sums.
    held = size["n"] * size["k"] * size["p"] * size["q"]
    kept = same["n"] * same["k"] * same["p"] * same["q"]
    output = jnp.where(channels, held * size["c"] - kept * same["c"], held - kept)
    passes = jnp.where(channels, 1.0, steps["c"]) * steps["r"] * steps["s"]
    # A reduction loop that advanced comes back to outputs that were there before.
    first_visits = {"r": 0.0, "s": 0.0, "c": jnp.where(channels, 1.0, 0.0)}.get(at.moved or "", 1.0)

    # Inputs: n, c, rows of (p, r), columns of (q, s).
    rows = _axis_input(at, "p", "r", values, touching["p"], whole["p"])
    cols = _axis_input(at, "q", "s", values, touching["q"], whole["q"])
    held, kept = size["n"] * size["c"], same["n"] * same["c"]
    input_fills = (held * rows[0]) * cols[0] - (kept * rows[1]) * cols[1]
    input_reads = (held * rows[2]) * cols[2] - (kept * rows[3]) * cols[3]
    return StepClass(
        input_reads=input_reads * steps["k"],
        weight_reads=weight * (steps["n"] * steps["p"] * steps["q"]),
        returns=output * (passes - first_visits),
        moves=output * passes,
        compute=_product(of["lead"].values()),
        input_fills=input_fills * units["k"],
        weight_fills=weight * (units["n"] * units["p"] * units["q"]),
        drains=output * (jnp.where(channels, 1.0, units["c"]) * units["r"] * units["s"]),
    )


def _by_level(nest: Nest):
    """Dimension -> name -> values at j = 0..3; what slides, per level."""
    values: dict = {}
    for d in DIMS:
        names = ("size", "units", "steps", "lead", "size_same", "units_same", "steps_same")
        values[d] = {name: getattr(nest.sums[d], name) for name in names}
    for d, window in (("r", nest.rows), ("s", nest.cols)):
        values[d] |= {
            name: getattr(window, name) for name in ("slope", "base", "slope_shared", "base_shared")
        }
        values[d]["stays"] = window.stays
    return values


def dataflow_counts(
    nest: Nest, ranks: tuple[dict[str, Array], ...], longest=lambda part, rates: part.compute, rates=()
) -> DataflowCounts:
    """Sum over the 21 classes of steps. ranks: per level, the place of each loop (0 outermost).

    longest: (`StepClass`, rates) -> time of its steps together, summed over classes into ``time``.
    Differentiable in tiles and units through the surrogate slopes of `numerics`; order is not.
    """
    values = _by_level(nest)
    of_level = lambda level: (
        {d: {name: (v[level], v[level + 1]) for name, v in values[d].items()} for d in DIMS}
        | {f"slides_{d}": nest.sums[d].slides[level] for d in ("p", "q")}
    )
    alike = _alike(nest)

    def one_level(at_level, rank, alike, rates):
        """Sums over the seven loops of a level."""
        parts = [
            _step_class(_Class(moved, {d: rank[d] < rank[moved] for d in DIMS}), at_level, alike)
            for moved in DIMS
        ]
        return jax.tree.map(_sum, *parts), _sum(*[longest(part, rates) for part in parts])

    first = _step_class(_Class(None, {}), of_level(0), alike)
    levels = [
        joined(one_level, most=66)(of_level(level), ranks[level], alike, rates) for level in range(LEVELS)
    ]
    totals = jax.tree.map(_sum, first, *[part for part, _ in levels])
    time = _sum(*[spent for _, spent in levels])
    everything = lambda name: {d: getattr(nest.sums[d], name)[3] for d in DIMS}
    size, units = everything("size"), everything("units")
    tile = {d: nest.tiles[d][2] for d in DIMS}
    line = lambda window, out: out * window.tile_slope + window.tile_base  # rows under one PE's tile
    channels = nest.depthwise > 0
    return DataflowCounts(
        macs=_product(size.values()),
        steps=_product(everything("steps").values()),
        compute=_product(everything("lead").values()),
        input_reads=totals.input_reads,
        weight_reads=totals.weight_reads,
        input_fills=totals.input_fills,
        weight_fills=totals.weight_fills,
        output_moves=totals.moves,
        output_returns=totals.returns,
        output_drains=totals.drains,
        psum_updates=_product([size[d] for d in ("n", "k", "p", "q")])
        * jnp.where(channels, size["c"], units["c"])
        * (units["r"] * units["s"]),
        first=first,
        time=time,
        pe_input=tile["n"] * tile["c"] * line(nest.rows, tile["p"]) * line(nest.cols, tile["q"]),
        pe_weight=tile["k"] * tile["c"] * tile["r"] * tile["s"],
        pe_output=_product([tile[d] for d in ("n", "k", "p", "q")]) * jnp.where(channels, tile["c"], 1.0),
    )
