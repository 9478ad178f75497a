"""A loop split over several places: ordered factorisations of its extent; and the order of loops."""

import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diffhw import numerics
from diffhw.spaces._choice import Choice
from diffhw.spaces._variable import SPAN, Variable, is_concrete

__all__ = ["Order", "Tiling"]


class Tiling(Variable):
    """Factors of a loop, one per slot; decodes to a tuple of floats, each of shape ().

    extent: iterations to split.  slots: places that get a factor, at least 1.
    ceil: False: the factors multiply to the extent. True: imperfect tiles too: each slot takes a factor f
        and leaves ceil(rest / f), with f the smallest that leaves so much, in the order of the slots.
    limits: largest factor per slot, None or inf for no limit; 1 bars a slot.

    The slot with the largest limit (the last of them) takes what the others leave, and the unconstrained
    parameters are the logarithms that the others aim at, one after the other: each snaps to the nearest
    legal factor. Gradients pass straight through in the logarithms; the product of the factors keeps.
    Indices run through all legal factorisations. Raises ValueError for an extent that is no whole number,
    for limits under which nothing is legal, and for more than 2^31 - 1 factorisations.

    >>> split = Tiling(12, 3, limits=(2, None, None))
    >>> split.size, [float(f) for f in split.at(0)], split.label(split.size - 1)
    (10, [2.0, 6.0, 1.0], '1x1x12')
    """

    def __init__(self, extent: int, slots: int, *, ceil: bool = False, limits: Sequence | None = None):
        if extent != int(extent) or extent < 1:
            raise ValueError(f"Tiling: extent must be a whole number >= 1, got {extent!r}")
        if slots != int(slots) or slots < 1:
            raise ValueError(f"Tiling: slots must be a whole number >= 1, got {slots!r}")
        if limits is not None and len(limits) != slots:
            raise ValueError(f"Tiling: limits needs one entry per slot ({slots}), got {len(limits)}")
        self.extent, self.slots, self.ceil = int(extent), int(slots), bool(ceil)
        self.limits = tuple(
            math.inf if limit is None else float(limit) for limit in (limits or [None] * self.slots)
        )
        widest = max(self.limits)
        last = max(s for s in range(self.slots) if self.limits[s] == widest)
        # With rounding up, what is left depends on who comes first; there the last slot takes it.
        last = self.slots - 1 if self.ceil else last
        self._turn = [*(s for s in range(self.slots) if s != last), last]
        self._tabulate()
        if self.size == 0:
            raise ValueError(
                f"Tiling: no factorisation of {self.extent} into {self.slots} slots obeys the limits "
                f"{list(self.limits)}"
            )
        if self.size >= 2**31:
            raise ValueError(
                f"Tiling: {self.extent} has {self.size} factorisations into {self.slots} slots; at most "
                "2^31 - 1 can be numbered: use fewer slots or limits"
            )
        self.param_shape = (max(self.slots - 1, 1),)

    def _tabulate(self) -> None:
        """States (what is left to split), the factor from one to the next, and ways onward."""
        n = self.extent
        small = range(1, math.isqrt(n) + 2)
        up = lambda a, b: -(-a // b)
        if self.ceil:
            states = sorted({up(n, f) for f in small} | {v for v in small if up(n, up(n, v)) == v})
        else:
            states = sorted({v for f in small if n % f == 0 for v in (f, n // f)})
        self._states = np.array(states)
        size = len(states)
        factor = np.zeros((size, size), np.int64)  # from a to b; 0: no way
        for a, left in enumerate(states):
            for b, right in enumerate(states[: a + 1]):
                f = up(left, right)
                # The least f with ceil(left / f) == right is ceil(left / right), if there is one.
                if up(left, f) == right and (self.ceil or left % right == 0):
                    factor[a, b] = f
        limits = [self.limits[s] for s in self._turn]
        ways = np.array([int(v <= limits[-1]) for v in states], object)
        self._factor, self._before, self._open = [], [], []
        for limit in limits[-2::-1]:
            legal = (factor > 0) & (factor <= limit) & (ways > 0)[None, :]
            onward = np.where(legal, ways[None, :], 0)
            self._factor.insert(0, np.where(legal, factor, 1))
            self._open.insert(0, legal)
            self._before.insert(0, np.cumsum(onward, axis=1) - onward)
            ways = onward.sum(axis=1)
        self._start = size - 1
        self.size = int(ways[self._start])
        if self.size < 2**31:
            self._before = [np.minimum(table, 2**31 - 1).astype(np.int32) for table in self._before]

    # Parameters ------------------------------------------------------------------------------

    def init(self, uniform):
        # Cut points of a line: every share of the logarithm is as likely in one slot as in another.
        xp = np if isinstance(uniform, np.ndarray) else jnp
        cuts = xp.sort(uniform, axis=-1)
        shares = xp.diff(cuts, axis=-1, prepend=xp.zeros_like(cuts[..., :1]))
        return (shares - 0.5) * SPAN

    def project(self, param: Array) -> Array:
        return jnp.clip(param, -SPAN / 2, SPAN / 2)

    def _snap(self, param: Array) -> tuple[list[Array], Array]:
        """Factors in turn, and the index."""
        target = (jnp.clip(param, -SPAN / 2, SPAN / 2) / SPAN + 0.5) * math.log(self.extent)
        here, index, found = jnp.int32(self._start), jnp.int32(0), []
        for s, (factor, legal, before) in enumerate(zip(self._factor, self._open, self._before, strict=True)):
            near = jnp.abs(jnp.asarray(np.log(factor), float)[here] - target[s])
            chosen = jnp.argmin(jnp.where(jnp.asarray(legal)[here], near, jnp.inf)).astype(jnp.int32)
            found.append(jnp.asarray(factor, float)[here, chosen])
            index = index + jnp.asarray(before)[here, chosen]
            here = chosen
        return [*found, jnp.asarray(self._states, float)[here]], index

    def index(self, param: Array) -> Array:
        return self._snap(param)[1]

    def decode(self, param: Array, temperature, key: Array | None) -> tuple[Array, ...]:
        found, _ = self._snap(param)
        moved = (param - lax.stop_gradient(param)) * (math.log(self.extent) / SPAN)  # exactly 0
        logs = [*(moved[s] for s in range(self.slots - 1))]
        logs.append(-sum(logs, jnp.zeros_like(moved[0])))
        return self._in_place([f + lax.stop_gradient(f) * log for f, log in zip(found, logs, strict=True)])

    def _in_place(self, in_turn: Sequence) -> tuple:
        values: list = [None] * self.slots
        for s, value in zip(self._turn, in_turn, strict=True):
            values[s] = value
        return tuple(values)

    # Indices ---------------------------------------------------------------------------------

    def factors(self, index: int) -> tuple[int, ...]:
        """Factors of an index, as Python ints."""
        rest, here, found = int(index), self._start, []
        for factor, legal, before in zip(self._factor, self._open, self._before, strict=True):
            chosen = int(np.flatnonzero(legal[here] & (before[here] <= rest))[-1])
            rest -= int(before[here, chosen])
            found.append(int(factor[here, chosen]))
            here = chosen
        return self._in_place([*found, int(self._states[here])])

    def at(self, index) -> tuple[Array, ...]:
        if is_concrete(index):
            return tuple(numerics.as_float(f) for f in self.factors(int(index)))
        here, found = jnp.int32(self._start), []
        rest = jnp.clip(index, 0, self.size - 1)
        for factor, legal, before in zip(self._factor, self._open, self._before, strict=True):
            reached = jnp.asarray(legal)[here] & (jnp.asarray(before)[here] <= rest)
            chosen = jnp.max(jnp.where(reached, jnp.arange(len(self._states)), 0))
            rest = rest - jnp.asarray(before)[here, chosen]
            found.append(jnp.asarray(factor, float)[here, chosen])
            here = chosen
        return self._in_place([*found, jnp.asarray(self._states, float)[here]])

    def index_of(self, value) -> int:
        wanted = [float(v) for v in value]
        if len(wanted) != self.slots:
            raise ValueError(f"needs {self.slots} factors, got {len(wanted)}")
        here, index = self._start, 0
        in_turn = [wanted[s] for s in self._turn]
        for f, factor, legal, before in zip(
            in_turn[:-1], self._factor, self._open, self._before, strict=True
        ):
            found = np.flatnonzero(legal[here] & (np.abs(factor[here] - f) <= 1e-5 * f))
            if not len(found):
                raise ValueError(self._illegal(wanted))
            index += int(before[here, found[0]])
            here = int(found[0])
        if abs(self._states[here] - in_turn[-1]) > 1e-5 * in_turn[-1]:
            raise ValueError(self._illegal(wanted))
        return index

    def _illegal(self, wanted) -> str:
        shown = "x".join(f"{v:g}" for v in wanted)
        how = "covers" if self.ceil else "multiplies to"
        limits = "" if max(self.limits) == min(self.limits) == math.inf else f" within {self._limits()}"
        return f"{shown} is not legal: choose one that {how} {self.extent}{limits}"

    def _limits(self) -> str:
        return ", ".join(f"{limit:g}" for limit in self.limits)

    def label(self, index: int) -> str:
        return "x".join(str(f) for f in self.factors(index))

    def steps(self, index: int) -> list[int]:
        """A prime moved from one slot to another, or two slots swapped.

        With ``ceil`` one slot leaves the next larger or smaller amount instead.
        """
        here = self.factors(index)
        tries = []
        for a in range(self.slots):
            for b in range(a + 1, self.slots):
                other = list(here)
                other[a], other[b] = here[b], here[a]
                tries.append(other)
            if not self.ceil:
                for p in _primes(here[a]):
                    for b in range(self.slots):
                        if b != a:
                            other = list(here)
                            other[a], other[b] = here[a] // p, here[b] * p
                            tries.append(other)
        if self.ceil:
            tries += self._shifts(here)
        found = set()
        for other in tries:
            try:
                found.add(self.index_of(other))
            except ValueError:
                continue
        return sorted(found - {int(index)})

    def _shifts(self, here: tuple[int, ...]) -> list[list[int]]:
        """Chains of amounts left with one of them moved to the next larger or smaller."""
        left = [self.extent]
        for f in here[:-1]:
            left.append(-(-left[-1] // f))
        tries = []
        for s in range(1, len(left)):
            place = int(np.flatnonzero(self._states == left[s])[0])
            for near in (place - 1, place + 1):
                if 0 <= near < len(self._states):
                    other = [*left[:s], int(self._states[near]), *left[s + 1 :]]
                    tries.append([-(-a // b) for a, b in zip(other, [*other[1:], 1], strict=True)])
        return tries

    def describe(self) -> str:
        kind = "rounded up" if self.ceil else "exact"
        return f"{self.extent} over {self.slots} slots, {kind} ({self.size} factorisations)"

    def __repr__(self) -> str:
        return f"Tiling({self.describe()})"


def _primes(n: int) -> list[int]:
    found, p = [], 2
    while n > 1:
        if p * p > n:
            p = n
        if n % p == 0:
            found.append(p)
            while n % p == 0:
                n //= p
        p += 1
    return found


class Order(Choice):
    """The order of the loops of one level: decodes to {loop: place}, 0 innermost, each of shape ().

    menu:  name -> loops from the innermost out, such as `mappings.ORDERS`, or orders alone; every entry
           names the same loops. A static menu of orders that differ in cost beats all permutations.
    relax: as for `Choice`.

    >>> Order({"w": "pk", "o": "kp"}).at(1)["p"].item()
    1.0
    """

    def __init__(self, menu: Mapping[str, str] | Sequence[str], relax: str = "straight_through"):
        named = dict(menu) if isinstance(menu, Mapping) else {str(order): order for order in menu}
        loops = sorted(next(iter(named.values()), ""))
        for name, order in named.items():
            if sorted(order) != loops or len(set(order)) != len(order):
                raise ValueError(
                    f"Order: {name!r} must name each of the loops {''.join(loops)!r} once, got {order!r}"
                )
        self.menu = named
        super().__init__({name: {d: float(i) for i, d in enumerate(o)} for name, o in named.items()}, relax)

    def __repr__(self) -> str:
        return f"Order({self.describe()})"
