"""What the shared buffer (L2) must hold under a dataflow, and what the DRAM moves because of it.

The loops of the outermost level are cut in two: loops outside the cut run over L2's contents, loops
inside it find everything they need there. A deeper cut needs less room and reads more. Of all eight
cuts, and with any one tensor kept whole beside the others, the one with the least DRAM traffic is
taken among those that fit (ours; the published program assumes that L2 holds everything). A tensor
that a cut holds whole needs its size, any other twice its tile (one in use, one arriving).
"""

import functools
import operator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.lax import stop_gradient

from diffhw.fusing import joined
from diffhw.mappings import DIMS
from diffhw.models._dataflow_counts import Nest
from diffhw.numerics import maximum, minimum, reciprocal

__all__ = ["DramTraffic", "dram_traffic"]

_TENSORS = "iwo"


@struct.dataclass(kw_only=True)
class DramTraffic:
    """Bytes over the DRAM link for one group, and the room that L2 needs. Leaves ``()``.

    input_read, weight_read, psum_read, output_write: bytes.
    need:      bytes of L2 that the deepest cut takes: below that the dataflow cannot run.
    held:      bytes of L2 that the chosen cut takes.
    """

    input_read: Array
    weight_read: Array
    psum_read: Array
    output_write: Array
    need: Array
    held: Array


def _coupled(depthwise):
    """Tensor -> whether it depends on a dimension (channels of the output: depthwise only)."""
    zero, one = 0.0 * depthwise, 1.0 + 0.0 * depthwise
    of = {
        "i": {"n": one, "k": zero, "c": one, "p": one, "q": one, "r": zero, "s": zero},
        "w": {"n": zero, "k": one, "c": one, "p": zero, "q": zero, "r": one, "s": one},
        "o": {"n": one, "k": one, "c": depthwise, "p": one, "q": one, "r": zero, "s": zero},
    }
    return {t: {d: of[t][d] > 0.5 for d in DIMS} for t in _TENSORS}


@jax.custom_jvp
def _leaning(value, slope, capacity):
    """``value``, with a slope in ``capacity``; where nobody asks for that, the slope is not computed."""
    return value


def _leaning_jvp(primals, tangents):
    slope = primals[1]
    dvalue, _, dcapacity = tangents
    out = _leaning(*primals)
    along = jnp.zeros_like(out)
    if not isinstance(dvalue, SymbolicZero):
        along = along + dvalue
    if not isinstance(dcapacity, SymbolicZero):
        along = along + slope * dcapacity
    return out, along


_leaning.defjvp(_leaning_jvp, symbolic_zeros=True)


def _capacity_slopes(cut, room_of, capacity) -> dict[str, Array]:
    """How the traffic of each tensor leans on the capacity: each cut that does not fit is taken for the
    share of it that does (the slope of `numerics.fits`), the next deeper one for the rest.
    """

    def one_cut(state, place):
        taken, slope = state
        moved, room = cut(place)
        needed = room_of(room)
        misses = needed > capacity
        share = jnp.where(misses, reciprocal(jnp.where(needed > 0, needed, 1.0)), 0.0)
        slope = {t: jnp.where(misses, slope[t] + share * (moved[t] - taken[t]), 0.0) for t in _TENSORS}
        return ({t: jnp.where(misses, taken[t], moved[t]) for t in _TENSORS}, slope), None

    moved, _ = cut(float(len(DIMS)))
    start = (moved, {t: 0.0 * moved[t] for t in _TENSORS})
    places = jnp.arange(len(DIMS), -1, -1) * 1.0
    (_, slope), _ = lax.scan(one_cut, start, places)
    return stop_gradient(slope)


@dataclass(frozen=True)
class _Walk:
    """The outermost level's walk over L2's contents, and what a tensor's pieces take. Leaves ``()``.

    rank: place of each loop.  folds: its steps.  chunk: what one step covers of a dimension.
    lines: input rows (p) and columns (q) of an output piece, as slope and base.
    stored, moved_bytes: bytes of an element in L2 (partial sums for o) and over the DRAM link.
    """

    rank: dict[str, Array]
    folds: dict[str, Array]
    chunk: dict[str, Array]
    extents: dict[str, Array]
    depthwise: Array
    lines: dict[str, tuple[Array, Array]]
    stored: dict[str, Array]
    moved_bytes: dict[str, Array]

    def tile_of(self, t, extent):
        """Elements of a tensor under the given extents."""
        coupled = _coupled(self.depthwise)[t]
        size = {d: jnp.where(coupled[d], extent[d], 1.0) for d in DIMS}
        if t == "i":
            for d, (slope, base) in self.lines.items():
                size[d] = extent[d] * slope + base
        return functools.reduce(operator.mul, size.values())

    def whole(self):
        return {t: self.tile_of(t, self.extents) for t in _TENSORS}

    def cut(self, place):
        """(elements moved, room in bytes) per tensor with the loops of rank < place outside."""
        coupled, whole = _coupled(self.depthwise), self.whole()
        outside = {d: self.rank[d] < place for d in DIMS}
        moving = {d: jnp.where(outside[d] & (self.folds[d] > 1), self.rank[d], -1.0) for d in DIMS}
        extent = {d: jnp.where(outside[d], self.chunk[d], self.extents[d]) for d in DIMS}
        moved, room = {}, {}
        for t in _TENSORS:
            last = functools.reduce(
                maximum, [jnp.where(coupled[t][d], moving[d], -1.0) for d in DIMS]
            )  # the innermost outside loop that changes this tensor's tile
            again = functools.reduce(
                operator.mul,
                [
                    jnp.where(~coupled[t][d] & (moving[d] >= 0) & (moving[d] < last), self.folds[d], 1.0)
                    for d in DIMS
                ],
            )
            amount = whole[t]
            if t == "i":
                # Halo rows are loaded again unless the rows' loop is the innermost that moves.
                amount = self.extents["n"] * self.extents["c"]
                for d, (slope, base) in self.lines.items():
                    pieces = jnp.where((moving[d] >= 0) & (last > moving[d]), self.folds[d], 1.0)
                    amount = amount * (self.extents[d] * slope + pieces * base)
            moved[t] = amount * again
            room[t] = jnp.where(last >= 0, 2 * self.tile_of(t, extent), whole[t]) * self.stored[t]
        return moved, room

    def total(self, moved):
        """Bytes over the DRAM link."""
        of, outputs = self.moved_bytes, self.whole()["o"]
        returns = moved["o"] - outputs
        spilled = returns * 2 * self.stored["o"]
        return moved["i"] * of["i"] + moved["w"] * of["w"] + spilled + outputs * of["o"]


jax.tree_util.register_dataclass(_Walk)


def _room(room) -> Array:
    return room["i"] + room["w"] + room["o"]


def _plan(walk: _Walk, capacity):
    """The cheapest plan that fits, from the deepest cut outwards: the place of the cut, and the number of the
    tensor that is pinned (0: none).
    """
    whole = walk.whole()
    least = walk.total(walk.cut(float(len(DIMS)))[0])
    pick, held = jnp.full_like(least, float(len(DIMS))), jnp.zeros_like(least)
    for place in range(len(DIMS), -1, -1):
        moved, room = walk.cut(float(place))
        for number, pinned in enumerate((None, *_TENSORS)):
            plan, space = dict(moved), dict(room)
            if pinned:
                plan[pinned], space[pinned] = whole[pinned], whole[pinned] * walk.stored[pinned]
            found = walk.total(plan)
            better = (_room(space) <= capacity) & (found < least)
            least = jnp.where(better, found, least)
            pick, held = jnp.where(better, float(place), pick), jnp.where(better, float(number), held)
    return pick, held


def _traffic(walk: _Walk, capacity, slopes, place, pin) -> DramTraffic:
    """A plan, differentiably."""
    need = _room(walk.cut(float(len(DIMS)))[1])
    pinned = {t: pin == number for number, t in enumerate(_TENSORS, 1)}
    whole = walk.whole()
    moved, room = walk.cut(place)
    best = {t: jnp.where(pinned[t], whole[t], moved[t]) for t in _TENSORS}
    held = _room({t: jnp.where(pinned[t], whole[t] * walk.stored[t], room[t]) for t in _TENSORS})
    best = {t: _leaning(best[t], slopes[t], capacity) for t in _TENSORS}
    returns = (best["o"] - whole["o"]) * walk.stored["o"]
    return DramTraffic(
        input_read=best["i"] * walk.moved_bytes["i"],
        weight_read=best["w"] * walk.moved_bytes["w"],
        psum_read=returns,
        output_write=returns + whole["o"] * walk.moved_bytes["o"],
        need=need,
        held=held,
    )


def dram_traffic(
    nest: Nest, rank: dict[str, Array], capacity, bits: dict[str, Array], psum_bits
) -> DramTraffic:
    """DRAM traffic under the best cut that fits ``capacity`` bytes. rank: of the outermost level.

    bits: width of i, w, o in DRAM.  Differentiable; what fits has the surrogate slope of `numerics.fits`,
    so that a larger buffer lowers the traffic backward too.
    """
    byte = {t: bits[t] / 8 for t in _TENSORS}
    walk = _Walk(
        rank=rank,
        folds={d: nest.sums[d].trips[0] for d in DIMS},
        chunk={d: minimum(nest.extents[d], nest.tiles[d][0] * nest.units[d][0]) for d in DIMS},
        extents=nest.extents,
        depthwise=nest.depthwise,
        lines={d: (line.full_slope, line.full_base) for d, line in (("p", nest.rows), ("q", nest.cols))},
        stored={**byte, "o": psum_bits / 8},
        moved_bytes=byte,
    )
    # Which plan is not differentiated; joined, it is chosen once and not in each kernel that asks.
    plan = stop_gradient(joined(_plan)(*stop_gradient((walk, capacity))))
    # Apart, as a loop is not joined; nobody computes it who asks for no slope in the capacity.
    slopes = _capacity_slopes(walk.cut, _room, capacity)
    return joined(_traffic, apart=1)(walk, capacity, slopes, *plan)
