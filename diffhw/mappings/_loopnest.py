"""A loop nest: how the iterations of a layer are split over memory levels, space and time.

Level k's temporal loops run around everything inside it; its spatial loops spread tiles over its
children. Levels are numbered from the MACs outwards, as in `hardware.Hierarchy`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import struct
from jax import Array
from jax.core import Tracer

from diffhw import numerics

__all__ = ["LOOPS", "ORDERS", "LoopLevel", "LoopNest", "loop_order"]

LOOPS = ("n", "g", "k", "c", "p", "q", "r", "s")
"""Loops of a grouped convolution: batch, groups, filters and channels per group, output rows, output
columns, filter rows, filter columns. A GEMM M x K by K x N is p = M, c = K, k = N."""


@struct.dataclass(kw_only=True)
class LoopLevel:
    """The loops of one level. Every leaf has shape ``()``; dicts by the letters of `LOOPS`.

    temporal:  factor per loop; a loop that is left out has factor 1. Differentiable.
    order:     place of each loop within the level, 0 innermost; only comparisons matter.
    spatial_x, spatial_y: factor per loop over the children along each axis. Differentiable.
    """

    temporal: dict[str, Array]
    order: dict[str, Array]
    spatial_x: dict[str, Array]
    spatial_y: dict[str, Array]


def loop_order(innermost_first: Sequence[str]) -> dict[str, int]:
    """Places of all `LOOPS`: those named, from 0 on, then the others in their usual order.

    >>> loop_order("pqn")["q"], loop_order("pqn")["k"]
    (1, 4)
    """
    rest = [d for d in LOOPS if d not in innermost_first]
    return {d: place for place, d in enumerate([*innermost_first, *rest])}


@struct.dataclass(kw_only=True)
class LoopNest:
    """Loops of every level, innermost level first: a mapping for `models.loopnest`."""

    levels: tuple[LoopLevel, ...]

    @classmethod
    def create(
        cls,
        levels: Sequence[Mapping],
        hierarchy=None,
        layer=None,
    ) -> "LoopNest":
        """Check and convert. One mapping per level, innermost first, with the keys

        ``temporal``: {loop: factor}, in order from the *innermost* loop out unless ``order`` says else;
        ``order``: loops from the innermost out, a string or a list;
        ``x``, ``y``: {loop: factor} of the spatial loops along each axis.

        hierarchy: checks the number of levels and which loops may be spatial, and gives every nest of
            that hierarchy the same structure, so that nests stack.
        layer: checks that the factors of every loop multiply to its extent.
        Raises ValueError that names level, loop and what to change.
        """
        names = [f"level {k}" for k in range(len(levels))] if hierarchy is None else hierarchy.names
        if len(names) != len(levels):
            raise ValueError(
                f"the hierarchy has {len(names)} levels ({', '.join(names)}), the mapping {len(levels)}"
            )
        made = []
        for k, (name, level) in enumerate(zip(names, levels, strict=True)):
            unknown = set(level) - {"temporal", "order", "x", "y"}
            if unknown:
                raise ValueError(f"{name}: unknown key {min(unknown)!r}; known: temporal, order, x, y")
            temporal = dict(level.get("temporal", {}))
            order = list(level.get("order", temporal))
            for d in [*temporal, *order, *level.get("x", {}), *level.get("y", {})]:
                if d not in LOOPS:
                    raise ValueError(f"{name}: unknown loop {d!r}; known: {', '.join(LOOPS)}")
            if len(set(order)) != len(order):
                raise ValueError(f"{name}: the order {''.join(order)!r} names a loop twice")
            spatial = {}
            for axis in "xy":
                factors = dict(level.get(axis, {}))
                if hierarchy is not None:
                    allowed = getattr(hierarchy.levels[k], f"spatial_{axis}")
                    for d, factor in factors.items():
                        if d not in allowed and not np.all(np.asarray(factor) == 1):
                            raise ValueError(
                                f"{name}: loop {d!r} may not be spread along {axis}"
                                f" (allowed: {allowed or 'none'})"
                            )
                    fan = getattr(hierarchy.levels[k], f"fanout_{axis}")
                    alone = numerics.is_one(fan)
                    keys = "" if alone else allowed
                    for d, factor in factors.items() if alone else ():
                        if not np.all(np.asarray(factor) == 1):
                            raise ValueError(
                                f"{name}: loop {d!r} may not be spread along {axis} (it has one child there)"
                            )
                    factors = {d: factors.get(d, 1) for d in keys}
                spatial[axis] = {d: _factor(name, d, f) for d, f in factors.items()}
            made.append(
                LoopLevel(
                    temporal={d: _factor(name, d, temporal.get(d, 1)) for d in LOOPS},
                    order={d: numerics.as_float(place) for d, place in loop_order(order).items()},
                    spatial_x=spatial["x"],
                    spatial_y=spatial["y"],
                )
            )
        nest = cls(levels=tuple(made))
        if layer is not None:
            nest.check(layer)
        return nest

    def __repr__(self) -> str:
        from diffhw.mappings._loopnest_text import nest_repr

        return nest_repr(self)

    def extent(self, loop: str) -> Array:
        """Product of all factors of a loop."""
        found: Any = 1.0
        for level in self.levels:
            for factors in (level.temporal, level.spatial_x, level.spatial_y):
                found = found * factors.get(loop, 1.0)
        return found

    def check(self, layer, *, imperfect: bool = False) -> None:
        """Raises ValueError where the factors of a loop do not multiply to the layer's extent.

        imperfect: allow more than the extent (padding), never less.
        """
        for d in LOOPS:
            made, want = np.asarray(self.extent(d), float), np.asarray(getattr(layer, d), float)
            if np.any(made < want - 1e-6 * want) or (not imperfect and np.any(made > want * (1 + 1e-6))):
                raise ValueError(
                    f"the factors of loop {d!r} multiply to {_show(made)}, the layer has {_show(want)}: "
                    + (
                        "iterations are missing"
                        if np.any(made < want)
                        else "iterations overlap; allow imperfect factors or choose divisors"
                    )
                )

    def loops(self, index: int) -> list[tuple[str, float]]:
        """Temporal loops of a level with a factor above 1, innermost first. Concrete nests only."""
        level = self.levels[index]
        found = [(float(level.order[d]), d, float(f)) for d, f in level.temporal.items() if float(f) != 1]
        return [(d, f) for _, d, f in sorted(found)]


def _show(value) -> str:
    return f"{float(value):g}" if np.ndim(value) == 0 else str(value)


def _factor(name: str, loop: str, value) -> Array:
    if not isinstance(value, Tracer) and np.any(np.asarray(value) < 1):
        raise ValueError(f"{name}: the factor of loop {loop!r} must be >= 1, got {value}")
    return numerics.positive(f"{name}: factor of loop {loop}", value)


ORDERS = {
    "w-p": "pqnrsckg",
    "w-q": "qpnsrckg",
    "o-r": "rscpqnkg",
    "o-s": "srcqpnkg",
    "i-p": "kprqsncg",
    "i-q": "kqsprncg",
    "i-r": "krpsqncg",
    "i-s": "ksqrpncg",
}
"""Orders within a level that differ in cost, innermost loop first: which tensor stays (weights while
n, p, q run, outputs while r, s, c run, inputs while k runs), and along which axis inputs slide first.
"""
