"""One dimension of a dataflow: sums over the positions of its three nested loops, in closed form.

A dimension of extent D is cut at level l into pieces of ``t[l]`` (the last one ragged), dealt to
``n[l]`` units fold by fold (n = 1: in time only). The walk over all dimensions is a lexicographic
nest, so a step is known by the loop that advanced: loops outside it hold their position, loops inside
it restart. For one dimension that leaves few cases, indexed by j, the number of its own loops that
hold (0..3); the other 3 - j are at their first position. Every sum below runs over all positions of
the j outer loops. Products over dimensions then give counts of the whole nest (`_dataflow_counts`).
"""

import jax.numpy as jnp
from flax import struct
from jax import Array

from diffhw.numerics import ceil_div, maximum, minimum

__all__ = ["LoopSums", "loop_sums"]


@struct.dataclass
class LoopSums:
    """Sums of one dimension, each a tuple indexed by j (0..3), leaves ``()``.

    size:  elements held by all units.  units: units at work.  steps: positions.
    lead:  elements of unit 0, the one that is never idle and never smaller than the others.
    size_same, units_same, steps_same: the same sums, but only where the inner loops have a single
           position, so that a restart finds the tile it left.
    trips: (3,) tuple: folds of a full piece at each level.
    slides: (3,) tuple: 1.0 where an advance at that level hands every unit the neighbouring tile.
    touching: 1.0 where the tiles of neighbouring units touch.
    """

    size: tuple[Array, ...]
    units: tuple[Array, ...]
    steps: tuple[Array, ...]
    lead: tuple[Array, ...]
    size_same: tuple[Array, ...]
    units_same: tuple[Array, ...]
    steps_same: tuple[Array, ...]
    trips: tuple[Array, ...]
    slides: tuple[Array, ...]
    touching: Array


@struct.dataclass
class _Cut:
    """An extent cut into pieces of a tile: how many, and how many folds over the units."""

    pieces: Array
    folds: Array


@struct.dataclass
class _Cuts:
    """All quotients of one dimension, leaves ``()``: what everything else about it is made of.

    top:     of the extent at level 0.  full, last: at level 1, of a full piece and of the last one.
    in_full, in_full_last, in_last_last: at level 2, of a full piece of level 1, of the last one in a full
             piece of level 0, of the last one in the last one.
    beyond_pieces: at level 2, of what a ragged piece has beside full ones.
    """

    top: _Cut
    full: _Cut
    last: _Cut
    in_full: _Cut
    in_full_last: _Cut
    in_last_last: _Cut
    beyond_pieces: Array


def _cut(extent, tile, n) -> _Cut:
    pieces = ceil_div(extent, tile)
    return _Cut(pieces, ceil_div(pieces, n))


def _last(cut: _Cut, extent, tile):
    """Size of the last piece, 1..tile."""
    return extent - (cut.pieces - 1) * tile


def _lead(cut: _Cut, extent, tile, n):
    """What unit 0 has in the last fold."""
    return minimum(extent - (cut.folds - 1) * (n * tile), tile)


def _beyond(extent_last, full: _Cut, tile, n):
    return maximum(extent_last - (full.folds - 1) * (n * tile), 0.0)


def _cuts(extent, tiles, units) -> _Cuts:
    (t0, t1, t2), (n0, n1, n2) = tiles, units
    top, full = _cut(extent, t0, n0), _cut(t0, t1, n1)
    top_last = _last(top, extent, t0)
    last = _cut(top_last, t1, n1)
    return _Cuts(
        top=top,
        full=full,
        last=last,
        in_full=_cut(t1, t2, n2),
        in_full_last=_cut(_last(full, t0, t1), t2, n2),
        in_last_last=_cut(_last(last, top_last, t1), t2, n2),
        beyond_pieces=ceil_div(_beyond(top_last, full, t1, n1), t2),
    )


def loop_sums(extent, tiles, units) -> LoopSums:
    """extent: size of the dimension.  tiles, units: three scalars each, tiles already nested.

    Differentiable through the surrogate slope of `numerics.ceil_div`.
    """
    (t0, t1, t2), (n0, n1, n2) = tiles, units
    one = jnp.ones_like(extent * t0 * n0)
    cuts = _cuts(extent, tiles, units)

    # Cuts of every extent that occurs: a full parent, the last one, and unit 0's last one.
    top, full, last = cuts.top, cuts.full, cuts.last
    top_last, full_last = _last(top, extent, t0), _last(full, t0, t1)
    last_last = _last(last, top_last, t1)
    top_lead, full_lead = _lead(top, extent, t0, n0), _lead(full, t0, t1, n1)
    lead_is_last = top_lead < t0  # unit 0 has the ragged piece to itself in the last fold
    lead_folds = jnp.where(lead_is_last, last.folds, full.folds)
    lead_lead = jnp.where(lead_is_last, _lead(last, top_last, t1, n1), full_lead)

    # Level 2 inside: its first fold over a piece of size e.
    first_size = lambda e: minimum(e, n2 * t2)
    in_full, folds_full = cuts.in_full.pieces, cuts.in_full.folds
    in_full_last, folds_full_last = cuts.in_full_last.pieces, cuts.in_full_last.folds
    in_last_last, folds_last_last = cuts.in_last_last.pieces, cuts.in_last_last.folds
    first_units = lambda pieces: minimum(pieces, n2)
    # Unit 0's share at level 1 is ragged only if it has the last piece of its parent to itself.
    full_lead_folds = jnp.where(full_lead < t1, folds_full_last, folds_full)
    last_lead_folds = jnp.where(_lead(last, top_last, t1, n1) < t1, folds_last_last, folds_full)
    lead_lead_folds = jnp.where(lead_is_last, last_lead_folds, full_lead_folds)

    def first_at_1(cut, of_full, of_last):
        """Sum over the units of the first fold at level 1."""
        return jnp.where(cut.pieces > n1, n1 * of_full, (cut.pieces - 1) * of_full + of_last)

    def sums(of_full, of_full_last, of_last_last):
        """Sums for j = 0, 1, 2 of a quantity given for the first fold at level 2."""
        in_t0 = first_at_1(full, of_full, of_full_last)
        in_e0 = first_at_1(last, of_full, of_last_last)
        at_0 = jnp.where(top.pieces > n0, n0 * in_t0, (top.pieces - 1) * in_t0 + in_e0)
        at_1 = (top.pieces - 1) * in_t0 + in_e0
        at_2 = (top.pieces - 1) * ((full.pieces - 1) * of_full + of_full_last) + (
            (last.pieces - 1) * of_full + of_last_last
        )
        return (at_0, at_1, at_2), in_e0

    size, size_e0 = sums(first_size(t1), first_size(full_last), first_size(last_last))
    active, units_e0 = sums(first_units(in_full), first_units(in_full_last), first_units(in_last_last))
    size = (*size, extent * one)
    all_units = (top.pieces - 1) * ((full.pieces - 1) * in_full + in_full_last) + (
        (last.pieces - 1) * in_full + in_last_last
    )
    active = (*active, all_units)

    inner_full = (full.folds - 1) * folds_full + full_lead_folds  # positions of levels 1, 2 in t0
    inner_lead = (lead_folds - 1) * folds_full + lead_lead_folds
    steps = (
        one,
        top.folds,
        (top.folds - 1) * full.folds + lead_folds,
        (top.folds - 1) * inner_full + inner_lead,
    )

    # Unit 0's tile: at the first inner position, then over all of them.
    leaf = lambda e: minimum(e, t2)
    lead_1 = (full.folds - 1) * t2 + leaf(full_lead)
    lead_e = (lead_folds - 1) * t2 + leaf(lead_lead)
    over_2 = lambda e, folds: (folds - 1) * t2 + minimum(e - (folds - 1) * (n2 * t2), t2)
    of_t1 = over_2(t1, folds_full)
    over_t0 = (full.folds - 1) * of_t1 + over_2(full_lead, full_lead_folds)
    over_lead = (lead_folds - 1) * of_t1 + over_2(lead_lead, lead_lead_folds)
    lead = (
        t2 * one,
        (top.folds - 1) * t2 + leaf(top_lead),
        (top.folds - 1) * lead_1 + lead_e,
        (top.folds - 1) * over_t0 + over_lead,
    )

    # Restarts that move nothing. A ragged piece may need one fold where the full one needs several.
    ragged = lead_is_last * one
    whole = jnp.where(top_last < t0, top.pieces - 1, top.pieces)  # pieces of full size
    single_2 = (folds_full <= 1) * one
    end_full = (1 - single_2) * (full_lead_folds <= 1)
    end_last = (1 - single_2) * ragged * (last_lead_folds <= 1)
    beyond = _beyond(top_last, full, t1, n1)  # of a ragged piece beside full ones
    beside = (1 - ragged) * (top_last < t0) * (beyond > 0)

    def same_at_2(all_of_them, of_full_last, of_last_last, of_beyond):
        part = end_full * (whole * of_full_last + beside * of_beyond) + end_last * of_last_last
        return jnp.where(single_2 > 0, all_of_them, part)

    single_1, single_e0 = inner_full <= 1, inner_lead <= 1
    single_0 = (steps[3] <= 1) * one

    def same(of, e0, at_2):
        at_1 = jnp.where(single_1, of[1], ragged * single_e0 * e0)
        return (single_0 * of[0], at_1, at_2, of[3])

    size_2 = same_at_2(size[2], first_size(full_last), first_size(last_last), beyond)
    units_2 = same_at_2(
        active[2], first_units(in_full_last), first_units(in_last_last), first_units(cuts.beyond_pieces)
    )
    steps_2 = jnp.where(single_2 > 0, steps[2], end_full * (top.folds - ragged) + end_last)

    # Halo rows survive an advance in time to the neighbouring tile, unless the tile is dealt out anew.
    dealt_0 = (n0 > 1) & (top.pieces > 1)
    dealt_1 = (n1 > 1) & (full.pieces > 1)
    dealt_2 = (n2 > 1) & (in_full > 1)
    slides = (
        (n0 <= 1) * one * (1 - dealt_1 * one) * (1 - dealt_2 * one),
        (n1 <= 1) * one * (1 - dealt_2 * one),
        (n2 <= 1) * one,
    )
    touching = jnp.where(dealt_0, inner_full <= 1, jnp.where(dealt_1, folds_full <= 1, True)) * one
    return LoopSums(
        size=size,
        units=active,
        steps=steps,
        lead=lead,
        size_same=same(size, size_e0, size_2),
        units_same=same(active, units_e0, units_2),
        steps_same=same(steps, one, steps_2),
        trips=(top.folds, full.folds, folds_full),
        slides=slides,
        touching=touching,
    )
