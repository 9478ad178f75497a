"""What the shared buffer (L2) must hold under a dataflow, and what the DRAM moves because of it.

The loops of the outermost level are cut in two: loops outside the cut run over L2's contents, loops
inside it find everything they need there. A deeper cut needs less room and reads more. Of all eight
cuts, and with any one tensor kept whole beside the others, the one with the least DRAM traffic is
taken among those that fit (ours; the published program assumes that L2 holds everything). A tensor
that a cut holds whole needs its size, any other twice its tile (one in use, one arriving).
"""

import functools
import operator

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.lax import stop_gradient

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


def _coupled(nest: Nest):
    """Tensor -> dims it depends on, with weights 1.0 or 0.0 (channels of the output: depthwise only)."""
    zero, one = 0.0 * nest.depthwise, 1.0 + 0.0 * nest.depthwise
    of = {
        "i": {"n": one, "k": zero, "c": one, "p": one, "q": one, "r": zero, "s": zero},
        "w": {"n": zero, "k": one, "c": one, "p": zero, "q": zero, "r": one, "s": one},
        "o": {"n": one, "k": one, "c": nest.depthwise, "p": one, "q": one, "r": zero, "s": zero},
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


def dram_traffic(
    nest: Nest, rank: dict[str, Array], capacity, bits: dict[str, Array], psum_bits
) -> DramTraffic:
    """DRAM traffic under the best cut that fits ``capacity`` bytes. rank: of the outermost level.

    bits: width of i, w, o in DRAM.  Differentiable; what fits has the surrogate slope of `numerics.fits`,
    so that a larger buffer lowers the traffic backward too.
    """
    coupled = _coupled(nest)
    folds = {d: nest.sums[d].trips[0] for d in DIMS}
    chunk = {d: minimum(nest.extents[d], nest.tiles[d][0] * nest.units[d][0]) for d in DIMS}
    rows, cols = nest.rows, nest.cols
    byte = {t: bits[t] / 8 for t in _TENSORS}
    psum_byte = psum_bits / 8

    def tile_of(t, extent):
        """Elements of a tensor under the given extents."""
        size = {d: jnp.where(coupled[t][d], extent[d], 1.0) for d in DIMS}
        if t == "i":
            size["p"] = extent["p"] * rows.full_slope + rows.full_base
            size["q"] = extent["q"] * cols.full_slope + cols.full_base
        return functools.reduce(operator.mul, size.values())

    whole = {t: tile_of(t, nest.extents) for t in _TENSORS}
    outputs = whole["o"]

    def cut(place):
        """(elements moved, room in bytes) per tensor with the loops of rank < place outside."""
        outside = {d: rank[d] < place for d in DIMS}
        moving = {d: jnp.where(outside[d] & (folds[d] > 1), rank[d], -1.0) for d in DIMS}
        extent = {d: jnp.where(outside[d], chunk[d], nest.extents[d]) for d in DIMS}
        moved, room = {}, {}
        for t in _TENSORS:
            last = functools.reduce(
                maximum, [jnp.where(coupled[t][d], moving[d], -1.0) for d in DIMS]
            )  # the innermost outside loop that changes this tensor's tile
            again = functools.reduce(
                operator.mul,
                [
                    jnp.where(~coupled[t][d] & (moving[d] >= 0) & (moving[d] < last), folds[d], 1.0)
                    for d in DIMS
                ],
            )
            amount = whole[t]
            if t == "i":
                # Halo rows are loaded again unless the rows' loop is the innermost that moves.
                amount = nest.extents["n"] * nest.extents["c"]
                for d, line in (("p", rows), ("q", cols)):
                    pieces = jnp.where((moving[d] >= 0) & (last > moving[d]), folds[d], 1.0)
                    amount = amount * (nest.extents[d] * line.full_slope + pieces * line.full_base)
            moved[t] = amount * again
            stored = psum_byte if t == "o" else byte[t]
            room[t] = jnp.where(last >= 0, 2 * tile_of(t, extent), whole[t]) * stored
        return moved, room

    def total(moved):
        returns = moved["o"] - outputs
        return moved["i"] * byte["i"] + moved["w"] * byte["w"] + returns * 2 * psum_byte + outputs * byte["o"]

    def room_of(room):
        return room["i"] + room["w"] + room["o"]

    # Which plan: from the deepest cut outwards. A plan is a place and a tensor that is pinned (0: none).
    # Nothing here is differentiated. In two rounds of a loop, half of the places side by side in each: what
    # leaves a loop is in memory, else XLA on CPU would choose anew in each of the gradient's kernels, 28
    # times slower; one place a round takes longer forward.
    moved, room = cut(float(len(DIMS)))
    need = room_of(room)
    stored = {t: psum_byte if t == "o" else byte[t] for t in _TENSORS}

    def half(state, places):
        least, pick = state
        for place in places:
            moved, room = cut(place)
            for number, pinned in enumerate((None, *_TENSORS)):
                plan, space = dict(moved), dict(room)
                if pinned:
                    plan[pinned], space[pinned] = whole[pinned], whole[pinned] * stored[pinned]
                found = total(plan)
                better = (room_of(space) <= capacity) & (found < least)
                least = jnp.where(better, found, least)
                pick = jnp.where(better, 4.0 * place + number, pick)
        return stop_gradient((least, pick)), None

    least = total(moved)
    deepest = jnp.full_like(least, 4.0 * len(DIMS))
    places = jnp.arange(len(DIMS), -1, -1) * 1.0
    state = stop_gradient((least, deepest))
    pick = stop_gradient(lax.scan(half, state, places.reshape(2, -1))[0][1])

    # That plan again, differentiably.
    place = jnp.floor(pick * 0.25)
    pinned = {t: pick - 4.0 * place == number for number, t in enumerate(_TENSORS, 1)}
    moved, room = cut(place)
    best = {t: jnp.where(pinned[t], whole[t], moved[t]) for t in _TENSORS}
    held = room_of({t: jnp.where(pinned[t], whole[t] * stored[t], room[t]) for t in _TENSORS})
    slopes = _capacity_slopes(cut, room_of, capacity)
    best = {t: _leaning(best[t], slopes[t], capacity) for t in _TENSORS}
    returns = (best["o"] - outputs) * psum_byte
    return DramTraffic(
        input_read=best["i"] * byte["i"],
        weight_read=best["w"] * byte["w"],
        psum_read=returns,
        output_write=returns + outputs * byte["o"],
        need=need,
        held=held,
    )
