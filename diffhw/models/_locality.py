"""Distinct-block model: what a tiled layer moves between DRAM and the shared buffer (L2), in whole blocks.

One tile per tensor is resident. The loops over tiles run in some order; a tile is fetched when it
changes, so loops inside the innermost one that moves a tensor reuse its tile. A fetch moves blocks of B
consecutive elements: each contiguous run of a tile takes ceil(run / B) of them. Which runs are
contiguous is the layout's doing: a dimension that a tile holds whole merges with the next one out.
Of an output tile the first visit only writes; each later one reads the partial sums back and writes
them again.

Exact, ragged edge tiles included, under these rules: a run begins a block (tiles are stored aligned); an
input tile is the box under its window, fetched whole (no halo is kept from its neighbour), and a box
that overhangs the padded edge is moved inside the array. Where the stride exceeds the filter, rows (or
columns) between are skipped, and along a run they are fetched too if that takes fewer blocks. The buffer
holds the window with its padding.

Source: the idea is that of Marvel (Chatarasi et al., arXiv 2002.07752, its abstract) and of the
distinct-line model it rests on (Ferrante, Sarkar, Thrash; recalled); the formulas are restated by us.
"""

import difflib
import functools
import itertools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffhw.numerics import as_float, before, ceil_div, fits, maximum, minimum, reciprocal
from diffhw.workloads import Layer

__all__ = ["TENSOR_LAYOUTS", "TILE_LOOPS", "TILE_ORDERS", "Locality", "locality"]

TILE_LOOPS = ("g", "n", "k", "c", "p", "q", "r", "s")
"""Loops over tiles: groups, batch, filters, channels, output rows and columns, filter rows and columns."""

INDEXES = {"w": "gkcrs", "i": "ngcpqrs", "o": "ngkpq"}
"""Loops that move a tensor's tile; windows of the input move with the filter's loops too."""

_ARRAY = {"w": "gkcrs", "i": "ngchw", "o": "ngkpq"}  # dimensions as stored; h and w are input rows, columns


def _menu(*parts: str) -> tuple[str, ...]:
    return tuple("".join(order) for order in itertools.permutations(parts))


TENSOR_LAYOUTS = {
    "w": _menu("gk", "c", "r", "s"),
    "i": _menu("n", "gc", "h", "w"),
    "o": _menu("n", "gk", "p", "q"),
}
"""All layouts per tensor, outermost dimension first; groups stay beside the channels they are part of."""


def ranks(sequence: str) -> dict[str, float]:
    """Places of the loops, 0 outermost, from their names in sequence."""
    return {d: float(sequence.index(d)) for d in TILE_LOOPS}


TILE_ORDERS = {"w": ranks("gkcrsnpq"), "i": ranks("gnpqcrsk"), "o": ranks("gnkpqcrs")}
"""Loop orders that keep one tensor in place; under this model no other order is ever better than all of
them: a loop that does not move a tensor reuses its tile only inside all that do, and loops fall into four
groups by what they move (g: all; n p q: i, o; k: w, o; c r s: w, i), of which one can be innermost."""


@struct.dataclass(kw_only=True)
class Locality:
    """What a tiled layer moves to and from DRAM. Leaves ``()``; dicts by tensor: w, i, o.

    traffic:       words moved, whole blocks, both ways.  blocks: the same in blocks.
    returns:       words of partial sums read back (they are in ``traffic["o"]``, as often written).
    data_movement: words moved in all, each tensor weighted by its width.
    footprint:     words of L2 that the tiles take, weighted by width.
    feasible:      1.0 where they fit.  violation: by how much they do not, relative to the capacity.
    """

    traffic: dict[str, Array]
    blocks: dict[str, Array]
    returns: Array
    data_movement: Array
    footprint: Array
    feasible: Array
    violation: Array


@dataclass(frozen=True)
class _Axis:
    """One dimension of a stored array: its size; per kind of tile (number of tiles, positions touched, from
    the first to the last of them); sum of the positions touched over the tiles.
    """

    size: Array
    kinds: tuple[tuple[Any, Array, Array], ...]
    total: Array


@dataclass(frozen=True)
class TiledLayer:
    """Trips of each loop, the axes of each array, words of a tile per tensor."""

    trips: dict[str, Array]
    axes: dict[str, _Axis]
    held: dict[str, Array]


_product = lambda values: functools.reduce(operator.mul, values)
_total = lambda values: functools.reduce(operator.add, values)


def tiled(layer: Layer, tile: dict[str, Array]) -> TiledLayer:
    """A layer cut into tiles; see `locality`."""
    sizes = {d: getattr(layer, d) for d in TILE_LOOPS}
    cut = {d: minimum(tile.get(d, sizes[d]), sizes[d]) for d in TILE_LOOPS}
    trips = {d: ceil_div(sizes[d], cut[d]) for d in TILE_LOOPS}
    last = {d: sizes[d] - (trips[d] - 1) * cut[d] for d in TILE_LOOPS}
    axes = {
        d: _Axis(sizes[d], ((trips[d] - 1, cut[d], cut[d]), (1.0, last[d], last[d])), sizes[d])
        for d in TILE_LOOPS
    }
    window = {}
    for axis, out, tap, stride, dilation in (
        ("h", "p", "r", layer.stride_h, layer.dilation_h),
        ("w", "q", "s", layer.stride_w, layer.dilation_w),
    ):
        size = getattr(layer, axis)

        def box(outputs, taps, stride=stride, dilation=dilation):
            """(positions touched, from first to last): a dilated window is taken as dense."""
            filter_size = (taps - 1) * dilation + 1
            dense = (outputs - 1) * stride + filter_size
            touched = outputs * minimum(stride, filter_size) + maximum(filter_size - stride, 0.0)
            return touched, maximum(dense, 1.0)

        kinds = []
        for many_out, outputs, _ in axes[out].kinds:
            for many_taps, taps, _ in axes[tap].kinds:
                touched, dense = box(outputs, taps)
                kinds.append((many_out * many_taps, minimum(touched, size), minimum(dense, size)))
        axes[axis] = _Axis(size, tuple(kinds), _total([many * touched for many, touched, _ in kinds]))
        window[axis] = box(cut[out], cut[tap])[0]
    held = {
        "w": _product([cut[d] for d in "gkcrs"]),
        "i": _product([cut[d] for d in "ngc"]) * window["h"] * window["w"],
        "o": _product([cut[d] for d in "ngkpq"]),
    }
    return TiledLayer(trips, axes, held)


def pass_blocks(axes: dict[str, _Axis], layouts, block) -> list[Array]:
    """Blocks of one tensor if each of its tiles is fetched once, under each of the ``layouts``.

    From the contiguous dimension outwards: tiles that hold all of it go on merging, the rest end their
    run there. What merging has reached depends on the set of dimensions inside, so layouts share it.
    """
    done: dict = {}

    def once(key, make):
        if key not in done:
            done[key] = make()
        return done[key]

    def whole(d):
        """How many tiles hold all of ``d``; whether a kind does."""
        flags = [jnp.where(touched >= axes[d].size, 1.0, 0.0) for _, touched, _ in axes[d].kinds]
        return _total([kind[0] * flag for kind, flag in zip(axes[d].kinds, flags)]), flags

    def ends(inside, d, outside):
        """Blocks of the runs that end at ``d``."""
        merged, alive = reach(inside)
        flags = once(("whole", d), lambda: whole(d))[1]
        runs = []
        for (many, touched, dense), flag in zip(axes[d].kinds, flags):
            run = ceil_div(merged * dense, block)
            if touched is not dense:  # rows between may be left out
                run = jnp.where(touched < dense, minimum(touched * ceil_div(merged, block), run), run)
            runs.append(many * (1 - flag) * run)
        return alive * _total(runs) * _product([1.0, *(axes[j].total for j in outside)])

    def reach(inside):
        """(elements merged, tiles that are still merging) with the dimensions ``inside`` whole."""

        def make():
            merged = _product([1.0, *(axes[d].size for d in sorted(inside))])
            alive = _product([1.0, *(once(("whole", d), lambda d=d: whole(d))[0] for d in sorted(inside))])
            return merged, alive

        return once(("reach", inside), make)

    out = []
    for layout in layouts:
        parts = []
        for i in range(len(layout) - 1, -1, -1):
            inside, d, outside = frozenset(layout[i + 1 :]), layout[i], sorted(layout[:i])
            parts.append(once((inside, d), lambda a=inside, d=d, b=outside: ends(a, d, b)))
        merged, alive = reach(frozenset(layout))
        parts.append(once("all", lambda merged=merged, alive=alive: alive * ceil_div(merged, block)))
        out.append(_total(parts))
    return out


def visits(trips: Mapping[str, Any], rank: Mapping[str, Any]) -> dict[str, Array]:
    """How often each tile of a tensor is brought in: trips of the loops outside the innermost that moves it.

    A loop of one trip moves nothing and repeats nothing, wherever it stands.
    """
    out = {}
    for t, moves in INDEXES.items():
        last = functools.reduce(maximum, [jnp.where(trips[d] > 1, rank[d], -1.0) for d in moves])
        again = [1 + before(rank[d], last) * (trips[d] - 1) for d in TILE_LOOPS if d not in moves]
        out[t] = _product(again)
    return out


def room(cut: TiledLayer, width: Mapping[str, Any], double_buffered: bool) -> Array:
    """Words of L2 that the tiles take, each weighted by its width; output tiles hold partial sums.

    Double buffered: a tile that is ever replaced takes twice its size, one that is the whole tensor once.
    """
    words = []
    for t, as_stored in (("w", "w"), ("i", "i"), ("o", "psum")):
        size = cut.held[t] * width[as_stored]
        if double_buffered:
            size = size * jnp.where(_product([cut.trips[d] for d in INDEXES[t]]) > 1, 2.0, 1.0)
        words.append(size)
    return _total(words)


def movement(blocks, again, block, width) -> Array:
    """Words moved, weighted: blocks of one pass and visits per tensor."""
    sums = 2 * (again["o"] - 1) * width["psum"] + width["o"]
    return block * (
        blocks["w"] * again["w"] * width["w"] + blocks["i"] * again["i"] * width["i"] + blocks["o"] * sums
    )


WIDTHS = {"w": 1.0, "i": 1.0, "o": 1.0, "psum": 1.0}


def _near(what: str, found, allowed) -> ValueError:
    near = difflib.get_close_matches(str(found), [str(one) for one in allowed], 1, 0.3)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{what} must be of {', '.join(map(str, allowed))}; got {found!r}{hint}")


def _order(order) -> list[tuple[Any, dict[str, Any]]]:
    """(weight, ranks) of the orders in play."""
    if isinstance(order, str):
        if order not in TILE_ORDERS:
            raise _near("order", order, TILE_ORDERS)
        return [(1.0, TILE_ORDERS[order])]
    if isinstance(order, dict):
        if set(order) != set(TILE_LOOPS):
            odd = sorted(set(order) ^ set(TILE_LOOPS))
            raise ValueError(
                f"order needs one place for each of {', '.join(TILE_LOOPS)}; check {', '.join(odd)}"
            )
        return [(1.0, order)]
    if jnp.shape(order) != (len(TILE_ORDERS),):
        raise ValueError(
            f"weights of the orders must have shape ({len(TILE_ORDERS)},), one for each of "
            f"{', '.join(TILE_ORDERS)}; got {jnp.shape(order)}"
        )
    return [(order[i], one) for i, one in enumerate(TILE_ORDERS.values())]


def _layout(t: str, layout) -> tuple[list[Array | float], tuple[str, ...]]:
    """(weights, layouts) in play for a tensor."""
    menu = TENSOR_LAYOUTS[t]
    if isinstance(layout, str | tuple | list):
        text = "".join(layout)
        if sorted(text) != sorted(_ARRAY[t]):
            raise ValueError(f"layout of {t} must be an order of {' '.join(_ARRAY[t])}, got {text!r}")
        return [1.0], (text,)
    if jnp.shape(layout) != (len(menu),):
        raise ValueError(
            f"weights of the layouts of {t} must have shape ({len(menu)},) as models.TENSOR_LAYOUTS, "
            f"got {jnp.shape(layout)}"
        )
    return [layout[i] for i in range(len(menu))], menu


def locality(
    layer: Layer,
    tile: dict[str, Array],
    order="o",
    layout: dict | None = None,
    *,
    block=1.0,
    capacity_words=np.inf,
    double_buffered: bool = False,
    width: dict | None = None,
) -> Locality:
    """Distinct blocks that a tiled layer moves between DRAM and L2. Scalars in, scalars out; vmap it.

    layer:   `Layer`, leaves ``()``.
    tile:    iterations of a tile by loop of `TILE_LOOPS` (outputs for p and q), leaves ``()``; a loop left
             out is whole, larger than the layer means whole.
    order:   of the loops over tiles: a name of `TILE_ORDERS` (the tensor that stays), or places by loop
             (leaves ``()``, 0 outermost), or weights ``(3,)`` over `TILE_ORDERS` (softmax: the expectation).
    layout:  by tensor (w, i, o): dimensions outermost first, as "gkcrs", "ngchw", "ngkpq" (the default,
             channels before pixels), or weights ``(24,)`` over `TENSOR_LAYOUTS`.
    block:   elements of a block.  capacity_words: of L2, inf for no limit.
    double_buffered: tiles that are ever replaced take twice their size in L2.
    width:   words that an element takes, of w, i, o and psum (partial sums, and output tiles in L2); all 1
             by default. Give bytes, and ``capacity_words`` in bytes, for a machine.

    Differentiable in tiles, block, capacity, widths and layer sizes by the surrogate slopes of
    `numerics.ceil_div` and `numerics.fits`, in places by that of `numerics.before`, in weights exactly.
    Exact at whole numbers (to 2**24 per run in float32).

    Raises ValueError for unknown loops, tensors, orders or layouts, and weights of another shape.

    >>> layer = Layer.create(k=4, c=4, p=6, q=6)
    >>> found = locality(layer, {"k": 2.0, "p": 2.0}, "o", block=4)
    >>> {t: int(words) for t, words in found.traffic.items()}  # input twice, rows merge
    {'w': 16, 'i': 288, 'o': 144}
    """
    for d in tile:
        if d not in TILE_LOOPS:
            raise _near("loops of a tile", d, TILE_LOOPS)
    given = dict(layout or {})
    for t in given:
        if t not in _ARRAY:
            raise _near("tensors of a layout", t, _ARRAY)
    for t in width or {}:
        if t not in WIDTHS:
            raise _near("tensors of a width", t, WIDTHS)
    width = WIDTHS | dict(width or {})
    block, capacity_words = as_float(block), as_float(capacity_words)
    cut = tiled(layer, {d: as_float(size) for d, size in tile.items()})
    again = {t: 0.0 for t in INDEXES}
    for share, rank in _order(order):
        each = visits(cut.trips, {d: as_float(place) for d, place in rank.items()})
        again = {t: again[t] + share * each[t] for t in again}
    blocks = {}
    for t in INDEXES:
        shares, menu = _layout(t, given.get(t, _ARRAY[t]))
        axes = {d: cut.axes[d] for d in _ARRAY[t]}
        blocks[t] = _total([share * one for share, one in zip(shares, pass_blocks(axes, menu, block))])

    times = {"w": again["w"], "i": again["i"], "o": 2 * again["o"] - 1}
    moved = {t: blocks[t] * times[t] for t in INDEXES}
    footprint = room(cut, width, double_buffered)
    return Locality(
        traffic={t: block * moved[t] for t in INDEXES},
        blocks=moved,
        returns=block * blocks["o"] * (again["o"] - 1),
        data_movement=movement(blocks, again, block, width),
        footprint=footprint,
        feasible=fits(footprint, capacity_words),
        # Not the quotient less one: rounding would make a tile that just fits too large.
        violation=maximum(footprint - capacity_words, 0.0) * reciprocal(capacity_words),
    )
