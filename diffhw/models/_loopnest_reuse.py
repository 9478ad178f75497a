"""Reuse in a loop nest: how often a tile is visited again, and how far an input window slides.

The rules are those verified on Timeloop's default nest analysis (Parashar et al., ISPASS 2019), perfect
factors. A tensor's tile stays while the innermost loops outside it do not index the tensor; after the
first loop that does, every loop outside counts. Inputs are boxes that may overlap their predecessor:
along the first axis on which the tile moves only the new part is fetched, as long as the motion keeps
its direction; a change of direction drops what was held.
"""

import functools
import operator
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array, lax

from diffhw.mappings import LOOPS, LoopNest
from diffhw.numerics import maximum, minimum

__all__ = [
    "INDEXES",
    "Nest",
    "distinct_siblings",
    "greatest_divisor",
    "input_window",
    "nest_of_loops",
    "product",
    "revisits",
    "sliding_fills",
]

INDEXES = {"w": "gkcrs", "i": "ngcpqrs", "o": "ngkpq"}
"""Loops that index each tensor."""

_GROUPS = ("gk", "crs", "npq")
"""Loops whose factors are multiplied once and shared: every tensor's indexes are made of these (and g)."""

_AXES = (("p", "r", "stride_h", "dilation_h"), ("q", "s", "stride_w", "dilation_w"))


def product(values):
    """Product that skips plain ones: fewer operations in the program."""
    real = [value for value in values if not (isinstance(value, float) and value == 1.0)]
    return functools.reduce(operator.mul, real) if real else 1.0


@jax.custom_jvp
def _times_before(value, factor, a, b):
    """``value * factor`` where ``a < b``, else ``value``: one masked product.

    Slope: that of ``value * (1 - (1 - factor) * numerics.before(a, b))``.
    """
    return jnp.where(a < b, value * factor, value)


@_times_before.defjvp
def _times_before_jvp(primals, tangents):
    value, factor, a, b = primals
    dvalue, dfactor, da, db = tangents
    first = a < b
    along = jnp.where(first, factor * dvalue + value * dfactor, dvalue)
    return _times_before(*primals), along - value * (1.0 - factor) * ((db - da) * 0.125)


@jax.custom_jvp
def _times_not_after(value, factor, a, b):
    """The same with ``a <= b``: so of two loops, exactly one is inside the other."""
    return jnp.where(b < a, value, value * factor)


@_times_not_after.defjvp
def _times_not_after_jvp(primals, tangents):
    value, factor, a, b = primals
    dvalue, dfactor, da, db = tangents
    along = jnp.where(b < a, dvalue, factor * dvalue + value * dfactor)
    return _times_not_after(*primals), along - value * (1.0 - factor) * ((db - da) * 0.125)


@dataclass(frozen=True)
class Nest:
    """Factors of a nest, by level and loop; plain 1.0 where a loop has no factor.

    time, space: temporal and spatial factor.  inner: tile of the level inside.  spread: that times
    space, the step of the level's temporal loop.  tile: everything at or below the level.
    idle: 1 where a temporal factor is 1, 0 from 2 on.  place: of a temporal loop in its level.
    """

    time: tuple[dict, ...]
    space: tuple[dict, ...]
    inner: tuple[dict, ...]
    spread: tuple[dict, ...]
    tile: tuple[dict, ...]
    idle: tuple[dict, ...]
    place: tuple[dict, ...]
    products: dict = field(default_factory=dict)

    def times(self, m: int, value, factor, a: str, b: str):
        """``value``, times ``factor`` where loop ``a`` of level m runs inside its loop ``b``."""
        if isinstance(factor, float) and factor == 1.0:
            return value
        compare = _times_before if LOOPS.index(a) < LOOPS.index(b) else _times_not_after
        return compare(value, factor, self.place[m][a], self.place[m][b])

    def _of(self, kind: str, m: int, loops: str):
        """Product of time, space or tile over ``loops`` at level m; what is common is computed once."""
        if (kind, m, loops) not in self.products:
            factors = getattr(self, kind)[m]
            parts, rest = [], loops
            for group in _GROUPS:
                if len(loops) > len(group) and set(group) <= set(loops):
                    parts.append(self._of(kind, m, group))
                    rest = "".join(d for d in rest if d not in group)
            self.products[kind, m, loops] = product([*parts, *(factors[d] for d in rest)])
        return self.products[kind, m, loops]

    def all_tile(self, m: int, loops: str):
        """Product of ``loops`` of the tile at level m."""
        return self._of("tile", m, loops)

    @property
    def depth(self) -> int:
        """Number of levels."""
        return len(self.time)

    def all_time(self, loops: str, above: int = -1):
        """Product of the temporal factors of ``loops`` at the levels above ``above``."""
        key = ("above", above, loops)
        if key not in self.products:
            outer = self.all_time(loops, above + 1) if above + 2 < self.depth else 1.0
            self.products[key] = (
                product([self._of("time", above + 1, loops), outer]) if above + 1 < self.depth else 1.0
            )
        return self.products[key]

    def all_space(self, loops: str, low: int, high: int):
        """Product of the spatial factors of ``loops`` at the levels ``low`` to ``high``, both included."""
        return product(self._of("space", m, loops) for m in range(low, high + 1))


def nest_of_loops(mapping: LoopNest) -> Nest:
    """Factors, tiles and steps of a mapping."""
    time, space, inner, spread, tile, idle = [], [], [], [], [], []
    held = dict.fromkeys(LOOPS, 1.0)
    for level in mapping.levels:
        f = {d: level.temporal.get(d, 1.0) for d in LOOPS}
        s = {d: product([level.spatial_x.get(d, 1.0), level.spatial_y.get(d, 1.0)]) for d in LOOPS}
        inner.append(held)
        spread.append({d: product([held[d], s[d]]) for d in LOOPS})
        held = {d: product([spread[-1][d], f[d]]) for d in LOOPS}
        time.append(f)
        space.append(s)
        tile.append(held)
        # A factor of exactly 1 is no loop: then its place in the order must not matter.
        idle.append({d: 1.0 if isinstance(f[d], float) else maximum(2.0 - f[d], 0.0) for d in LOOPS})
    place = tuple(level.order for level in mapping.levels)
    parts = (tuple(time), tuple(space), tuple(inner), tuple(spread), tuple(tile), tuple(idle))
    return Nest(*parts, place)


def _idle(nest: Nest, m: int, loops, inside: str | None = None):
    """1 where none of ``loops`` of level m runs (inside the loop ``inside`` of that level), else 0."""
    if inside is None:
        return product(nest.idle[m][d] for d in loops)
    found = 1.0
    for d in loops:
        if d != inside:
            found = nest.times(m, found, nest.idle[m][d], d, inside)
    return found


def revisits(nest: Nest, tensor: str) -> list:
    """Per level: how many times each distinct tile of ``tensor`` held there comes in.

    The product of the temporal loops outside that do not index the tensor, but for the leading ones.
    """
    indexing = INDEXES[tensor]
    others = [d for d in LOOPS if d not in indexing]
    # What a level adds depends on the levels between it and the tile only through `still`.
    clear = [
        {d: _idle(nest, m, indexing, d) for d in others if not isinstance(nest.time[m][d], float)}
        for m in range(nest.depth)
    ]
    quiet = [_idle(nest, m, indexing) for m in range(nest.depth)]
    visits = []
    for held in range(nest.depth):
        count, still = 1.0, 1.0
        for m in range(held + 1, nest.depth):
            for d in others:
                f = nest.time[m][d]
                if not isinstance(f, float):
                    count = product([count, 1.0 + (f - 1.0) * (1.0 - product([still, clear[m][d]]))])
            still = product([still, quiet[m]])
        visits.append(count)
    return visits


def _outer(nest: Nest, m: int, d: str):
    """Product of the temporal loops of level m outside its loop d."""
    found = 1.0
    for i in LOOPS:
        if i != d:
            found = nest.times(m, found, nest.time[m][i], d, i)
    return found


def sliding_fills(nest: Nest, layer, held: list[int], visits: list) -> list:
    """Words of input that come into a tile held at each of the levels ``held``, per instance.

    visits: of `revisits`, per level. A visit brings in the whole tile, or its new part only where the window
    slides. Visits that slide are taken off while they are counts, exact below 2**24, and words are only
    added: the words of all visits less those spared would lose digits of float32. Comparisons of steps are
    constants for gradients; everything else is differentiable.
    """
    loops_of = {}
    for m in range(min(held, default=nest.depth) + 1, nest.depth):
        beyond = nest.all_time("".join(LOOPS), above=m)
        for slide, taps, stride, dilation in _AXES:
            foreign = [d for d in "ngcpqrs" if d not in (slide, taps)]
            pair = []
            for d, step in ((slide, getattr(layer, stride)), (taps, getattr(layer, dilation))):
                f = nest.time[m][d]
                if isinstance(f, float):
                    continue
                times = (f - 1.0) * product([_outer(nest, m, d), beyond])
                pair.append((f, step * nest.spread[m][d], times, _idle(nest, m, foreign, d)))
            if len(pair) == 2:  # innermost first
                swap = nest.place[m][taps] < nest.place[m][slide]
                first = tuple(jnp.where(swap, b, a) for a, b in zip(*pair, strict=True))
                second = tuple(jnp.where(swap, a, b) for a, b in zip(*pair, strict=True))
                pair = [first, second]
            loops_of[m, slide] = (pair, _idle(nest, m, foreign))
    fills = []
    for k in held:
        tile = nest.tile[k]
        height, width = input_window(layer, tile)
        depth = product(tile[d] for d in "ngc")
        whole = product([nest.all_time(INDEXES["i"], above=k), visits[k]])
        new = 0.0
        for (slide, *_), length, other in ((_AXES[0], height, width), (_AXES[1], width, height)):
            alone = 1.0  # no loop of another axis has run so far
            rows = 0.0
            first_step = jnp.zeros_like(length)  # 0: no loop of this axis has run so far
            fallen_back = jnp.zeros_like(length)
            for m in range(k + 1, nest.depth):
                pair, quiet = loops_of[m, slide]
                for f, step, times, clear in pair:
                    runs = lax.stop_gradient(f > 1.0)
                    is_first = first_step == 0.0
                    first_step = jnp.where(is_first & runs, step, first_step)
                    moved = lax.stop_gradient(step - fallen_back)
                    # As far as the first step: what overlaps is held. Not at all: everything is.
                    onwards, back = moved == first_step, moved == 0.0
                    slides = jnp.where(onwards | back, product([alone, clear]) * times, 0.0)
                    whole = whole - slides
                    rows = rows + slides * jnp.where(onwards, minimum(length, first_step), 0.0)
                    fallen_back = jnp.where(runs, fallen_back + step, fallen_back)
                alone = product([alone, quiet])
            new = new + other * rows
        fills.append(product([depth, height, width]) * whole + depth * new)
    return fills


def input_window(layer, tile) -> tuple[Array, Array]:
    """Rows and columns of input under a tile."""
    height = (tile["p"] - 1.0) * layer.stride_h + (tile["r"] - 1.0) * layer.dilation_h + 1.0
    width = (tile["q"] - 1.0) * layer.stride_w + (tile["s"] - 1.0) * layer.dilation_w + 1.0
    return height, width


def greatest_divisor(a, b, steps: int = 24):
    """Greatest common divisor of integer-valued floats, by Euclid in a fixed number of steps."""
    for _ in range(steps):
        a, b = jnp.where(b > 0, b, a), jnp.where(b > 0, lax.rem(a, jnp.where(b > 0, b, 1.0)), 0.0)
    return a


def distinct_siblings(nest: Nest, layer, m: int):
    """How many different input tiles the children of level m hold; equal ones are read once.

    Children along p at distance a and along r at distance b coincide on diagonals; those that overlap
    only in part count in full.
    """
    count = nest.all_space("ngc", m, m)
    for slide, taps, stride, dilation in _AXES:
        n, t = nest.space[m][slide], nest.space[m][taps]
        if isinstance(n, float) or isinstance(t, float):
            count = product([count, n, t])
            continue
        p = lax.stop_gradient(getattr(layer, stride) * nest.inner[m][slide])
        q = lax.stop_gradient(getattr(layer, dilation) * nest.inner[m][taps])
        g = greatest_divisor(p, q)
        repeated = maximum(n - q / g, 0.0) * maximum(t - p / g, 0.0)
        count = count * (n * t - repeated)
    return count
