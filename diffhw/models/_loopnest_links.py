"""Neighbour links: a child may take over words that its mesh neighbour received one step earlier.

Timeloop (Parashar et al., ISPASS 2019) assumes such links unless told otherwise. Siblings are numbered
along the mesh; one is linked for a motion u of the tiles if a neighbour stands at its own place plus u.
Only where the innermost loop that runs moves the tile do links save reads of the level outside; the
words then come out of the siblings instead. The rule is the one verified on that program's runs
(`diffhw validate timeloop`), its misaligned neighbours of a mapping narrower than the mesh included.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diffhw.hardware import Hierarchy
from diffhw.mappings import LOOPS, LoopNest
from diffhw.models._loopnest_reuse import (
    Nest,
    distinct_siblings,
    greatest_divisor,
    input_window,
    product,
    revisits,
    sliding_fills,
)
from diffhw.numerics import ceil_div, floor_div, maximum, minimum

__all__ = ["Links", "linked_inputs"]

_AXIS = {"n": 0, "g": 1, "c": 2, "p": 3, "r": 3, "q": 4, "s": 4}
_STEP = {"p": "stride_h", "q": "stride_w", "r": "dilation_h", "s": "dilation_w"}


class Links(NamedTuple):
    """Size of the arrays that hold the siblings; static, a new value means a new compile.

    x, y:  the widest spread of any level along each axis; a level spread over more than ``x * y``
           children gets no links.
    order: spatial loops within an axis, innermost first: which siblings are neighbours.
    """

    x: int
    y: int
    order: str = "srqpckng"


def linked_inputs(
    layer, hierarchy: Hierarchy, mapping: LoopNest, nest: Nest, compute: Array, links: Links
) -> list[tuple[Array, Array]]:
    """(reads, fills) of inputs per level, words per instance, with links at every boundary.

    compute: the compute cycles.  Levels that keep no inputs get the words that pass by. Which siblings
    are linked, and which steps repeat a motion, are constants for gradients; the words are differentiable.
    """
    depth = nest.depth
    zero = 0.0 * compute
    children = list(range(depth - 1))
    arriving = sliding_fills(nest, layer, children, revisits(nest, "i"))
    loops = _loops(layer, nest, zero)
    content, entering, linked = [product([compute, distinct_siblings(nest, layer, 0)])], [], [zero]
    for k in range(1, depth):
        out = arriving[k - 1] + zero
        siblings, distinct = nest.all_space("".join(LOOPS), k, k), distinct_siblings(nest, layer, k)
        saved, link = _boundary(layer, hierarchy, mapping, nest, k, links, distinct, loops, zero)
        asked = distinct * out - saved
        if "i" not in hierarchy.levels[k - 1].keeps:
            share = siblings * asked / (siblings * out - link)
            asked = content[-1] * jnp.where(link > 0, share, distinct)
        content.append(asked)
        entering.append(out)
        linked.append(link)
    linked.append(zero)
    found, anywhere = [], zero
    for k in range(depth):
        instances = nest.all_space("".join(LOOPS), k + 1, depth - 1) + zero
        parents = nest.all_space("".join(LOOPS), k + 2, depth - 1)
        anywhere = anywhere + linked[k + 1]
        # The program spreads the words of links over all instances; halves are rounded up.
        words = 2.0 * (content[k] * instances + linked[k + 1])
        reads = jnp.where(anywhere > 0, floor_div(words + instances, 2.0 * instances), content[k])
        fills = zero
        if k < depth - 1:
            fills = entering[k] - ceil_div(linked[k + 1] * (parents - 1.0), instances)
        found.append((reads, fills))
    return found


@dataclass(frozen=True)
class _Loops:
    """All temporal loops, innermost level first. Leading axis: the loop.

    level: where it runs (plain numbers).  factor, own: its factor; how far one step moves the tile, on
    the five axes.  runs: its factor exceeds 1.  outside: [i, j], loop j runs outside loop i.
    """

    level: np.ndarray
    factor: Array
    own: Array
    runs: Array
    outside: Array


def _step(layer, d: str):
    return getattr(layer, _STEP[d]) if d in _STEP else 1.0


def _loops(layer, nest: Nest, zero) -> _Loops:
    found = [(m, d) for m in range(nest.depth) for d in LOOPS if not isinstance(nest.time[m][d], float)]
    axes = np.zeros((len(found), 5))
    for row, (_, d) in enumerate(found):
        if d in _AXIS:
            axes[row, _AXIS[d]] = 1.0
    level = np.asarray([m for m, _ in found])
    factor = jnp.stack([nest.time[m][d] + zero for m, d in found])
    place = jnp.stack([nest.place[m][d] + zero for m, d in found])
    length = jnp.stack([_step(layer, d) * nest.spread[m][d] + zero for m, d in found])
    own = lax.stop_gradient(length)[:, None] * jnp.asarray(axes, factor.dtype)
    here = level[:, None] == level[None, :]
    outside = (level[:, None] < level[None, :]) | (here & (place[:, None] < place[None, :]))
    return _Loops(level, factor, own, lax.stop_gradient(factor) > 1.0, outside)


def _boundary(layer, hierarchy, mapping, nest: Nest, k: int, links: Links, distinct, loops: _Loops, zero):
    """Reads that links spare level k, and words that links carry between its children."""
    level = mapping.levels[k]
    size = (links.x if level.spatial_x else 1) * (links.y if level.spatial_y else 1)
    if size == 1:
        return zero, zero
    start = int(np.searchsorted(loops.level, k))
    factor, own, runs = loops.factor[start:], loops.own[start:], loops.runs[start:]
    outside = loops.outside[start:, start:]
    inner = outside & runs[:, None]
    # A where and a sum rather than a matrix product: accelerators round the operands of those.
    moved = own - jnp.sum(jnp.where(inner[:, :, None], own[:, None, :], 0.0), axis=0)
    times = (factor - 1.0) * jnp.prod(jnp.where(outside, factor[None, :], 1.0), axis=1)
    first = runs & ~jnp.any(inner, axis=0)
    of_first = lambda values: jnp.sum(jnp.where(first, values, 0.0))

    tile = nest.inner[k]
    extent = [tile["n"], tile["g"], tile["c"], *input_window(layer, tile)]
    a = jnp.sum(jnp.where(first[:, None], moved, 0.0), axis=0)
    volume = product(extent) + zero
    overlap = product([maximum(t - jnp.abs(a[axis]), 0.0) for axis, t in enumerate(extent)])
    part, apart = volume - overlap, lax.stop_gradient(overlap) == 0.0
    # Steps that repeat the first motion, or that follow a first motion which shares nothing.
    later = runs & ~first
    same = later & jnp.all(moved == a[None, :], axis=1)
    moving = later & jnp.any(moved != 0.0, axis=1)
    more = of_first(factor) - 1.0
    again = jnp.where(apart, more, 0.0)
    again = again + jnp.sum(jnp.where(same | (moving & apart), times * more, 0.0))
    again = part * (again + jnp.sum(jnp.where(same, times, 0.0)))
    other = volume * jnp.where(moving & ~same & apart, times, 0.0)

    constant = lax.stop_gradient(distinct)
    linked, unlinked = _neighbours(layer, hierarchy, level, nest, k, links.order, size, moved)
    linked = jnp.where(unlinked == constant, 0.0, linked)
    spared = constant - unlinked
    total = lambda each: again * of_first(each) + jnp.sum(other * each)
    siblings = nest.all_space("".join(LOOPS), k, k)
    possible = jnp.any(a != 0.0) & (siblings > 1.0) & (siblings <= size)
    return jnp.where(possible, total(spared), 0.0), jnp.where(possible, total(linked), 0.0)


def _neighbours(layer, hierarchy, level, nest: Nest, k: int, order: str, size: int, moved):
    """Per motion: how many siblings are linked, and at how many distinct places the others stand."""
    along_x, along_y = (
        [(d, lax.stop_gradient(factors[d])) for d in order if d in factors]
        for factors in (level.spatial_x, level.spatial_y)
    )
    width = product([f for _, f in along_x])
    total = product([width, *(f for _, f in along_y)])
    zero = 0.0 * moved[0, 0]
    mesh = maximum(lax.stop_gradient(hierarchy.levels[k].fanout_x) + zero, width)
    index = jnp.arange(size, dtype=moved.dtype) + zero
    real = index < total

    digits, rest = {}, index
    for d, f in [*along_x, *along_y]:
        upper = floor_div(rest, f)
        inner_digit, inner_size = digits.get(d, (0.0, 1.0))
        digits[d] = (inner_digit + inner_size * (rest - f * upper), inner_size * f)
        rest = upper
    places = [0.0 * index] * 5
    for d, (digit, _) in digits.items():
        if d in _AXIS:
            step = lax.stop_gradient(_step(layer, d) * nest.inner[k][d])
            places[_AXIS[d]] = places[_AXIS[d]] + step * digit
    places = jnp.stack(places)

    column = index - mesh * floor_div(index, mesh)
    linked = jnp.zeros((moved.shape[0], size), bool)
    for step, within in ((-1.0, column > 0), (1.0, column < mesh - 1.0), (-mesh, real), (mesh, real)):
        other = index + step
        exists = within & (other >= 0) & (other < total)
        offset = places[:, jnp.where(exists, other, 0.0).astype(jnp.int32)] - places
        linked |= exists[None, :] & jnp.all(offset[None] == moved[:, :, None], axis=1)
    linked &= real[None, :]
    alone = (real[None, :] & ~linked).astype(moved.dtype)
    label = _label(layer, nest, k, digits, index)
    held = jnp.zeros((size, moved.shape[0]), moved.dtype).at[label].max(alone.T)
    return jnp.sum(linked.astype(moved.dtype), axis=1), jnp.sum(held, axis=0)


def _label(layer, nest: Nest, k: int, digits, index):
    """A whole number per sibling, below the number of siblings, equal for those at the same place."""
    digits = {d: found for d, found in digits.items() if d in _AXIS}
    for slide, taps in ("pr", "qs"):
        if slide in digits and taps in digits:
            (x, n), (y, m) = digits[slide], digits[taps]
            p, q = (lax.stop_gradient(_step(layer, d) * nest.inner[k][d]) for d in (slide, taps))
            g = greatest_divisor(p, q)
            right, down = jnp.round(q / g), jnp.round(p / g)
            # Equal places lie on a diagonal; to its end.
            t = minimum(floor_div(x, right), floor_div(m - 1.0 - y, down))
            digits[slide], digits[taps] = (x - t * right, n), (y + t * down, m)
    label, radix = 0.0 * index, 1.0
    for digit, f in digits.values():
        label, radix = label + radix * digit, radix * f
    return label.astype(jnp.int32)
