"""Partial mappings, decided from the outermost level inwards, and how they price inputs that slide."""

from dataclasses import dataclass, field

import numpy as np

from diffhw.mappings import LOOPS, ORDERS
from diffhw.recipes._map_bounds import FREE, slide_axes
from diffhw.recipes._map_lattice import AT, Lattice, Problem

__all__ = ["INDEXED", "RUN_ORDERS", "Labels", "concatenate", "orders_of", "run_through"]

INDEXED = {t: np.array([d not in FREE[t] for d in LOOPS]) for t in "wo"}
RUN_ORDERS = ("prqnsckg", "rpscqnkg", "qspnrckg", "sqrcpnkg")
"""Orders that matter only where a slide goes on from one loop of an axis to the other."""


def orders_of(lattice: Lattice) -> list[tuple[str, str]]:
    """(kept tensor, order innermost first) of all orders that can differ in cost here."""
    menu = [(name[0], order) for name, order in ORDERS.items()]
    axes = slide_axes(lattice)
    for order in RUN_ORDERS:
        both = all(lattice.rest[AT[d]] > 1 for d in order[:2])
        if both and axes != [None]:
            menu.append(("w" if order[0] in "pq" else "o", order))
    return menu


@dataclass
class Labels:
    """Partial mappings, decided above a level. Arrays with a leading axis.

    flat: tile of the level.  paid: (n, functionals) exact cost of what is settled.  rho: (n, 2) visits of
    weights and outputs if held here.  loops: per level above, innermost first: (factors, dims, steps),
    each (n, 8) in order.  tiles, orders: of the levels above, outermost last.
    """

    flat: np.ndarray
    paid: np.ndarray
    rho: np.ndarray
    loops: list = field(default_factory=list)
    tiles: list = field(default_factory=list)
    orders: list = field(default_factory=list)

    def take(self, index: np.ndarray) -> "Labels":
        """Some of them."""
        return Labels(
            self.flat[index],
            self.paid[index],
            self.rho[index],
            [tuple(part[index] for part in level) for level in self.loops],
            [tile[index] for tile in self.tiles],
            [order[index] for order in self.orders],
        )


def concatenate(parts: list[Labels]) -> Labels:
    """One after the other."""
    if len(parts) == 1:
        return parts[0]
    join = lambda arrays: np.concatenate(arrays)
    first = parts[0]
    return Labels(
        join([p.flat for p in parts]),
        join([p.paid for p in parts]),
        join([p.rho for p in parts]),
        [tuple(join([p.loops[i][j] for p in parts]) for j in range(3)) for i in range(len(first.loops))],
        [join([p.tiles[i] for p in parts]) for i in range(len(first.tiles))],
        [join([p.orders[i] for p in parts]) for i in range(len(first.orders))],
    )


def run_through(loops: list, tile: np.ndarray, problem: Problem) -> np.ndarray:
    """Words of input that enter one instance holding ``tile`` (n, 8) under ``loops`` outside it.

    One pass from the innermost loop out: with G words so far and V in the tile, a loop of factor f makes
    f G - (f - 1)(V - d), d being what one of its steps brings: all, the new part, or nothing.
    """
    sizes = dict(zip(LOOPS, tile.T, strict=True))
    height = (sizes["p"] - 1) * problem.stride[0] + (sizes["r"] - 1) * problem.dilation[0] + 1
    width = (sizes["q"] - 1) * problem.stride[1] + (sizes["s"] - 1) * problem.dilation[1] + 1
    depth = sizes["n"] * sizes["g"] * sizes["c"]
    whole = depth * height * width
    total = whole.copy()
    moving = np.zeros(len(tile), np.int8)  # 0 not yet, 1 along rows, 2 along columns, 3 any way
    first = np.zeros(len(tile))
    fallen = np.zeros(len(tile))
    for factors, dims, steps in loops:
        for j in range(factors.shape[1]):
            f, d, step = factors[:, j], dims[:, j], steps[:, j]
            runs = f > 1
            if not runs.any():
                continue
            axis = np.where(
                (d == AT["p"]) | (d == AT["r"]), 1, np.where((d == AT["q"]) | (d == AT["s"]), 2, 0)
            )
            slides = axis > 0
            starts = runs & slides & (moving == 0)
            first = np.where(starts, step, first)
            goes_on = runs & slides & (moving == axis) & ~starts
            moved = step - fallen
            length = np.where(axis == 1, height, width)
            other = np.where(axis == 1, width, height)
            overlap = depth * other * np.maximum(length - first, 0.0)
            spared = np.where(starts | (goes_on & (moved == first)), overlap, 0.0)
            spared = np.where(goes_on & (moved == 0), whole, spared)
            idle = (d == AT["k"]) & (moving == 0)
            total = np.where(runs & ~idle, f * total - (f - 1) * spared, total)
            fallen = np.where(starts | goes_on, fallen + step, fallen)
            new = np.where(slides & (moving == 0), axis, np.where(slides & (moving == axis), moving, 3))
            new = np.where(d == AT["k"], moving, new)
            moving = np.where(runs, new, moving).astype(np.int8)
    return total
