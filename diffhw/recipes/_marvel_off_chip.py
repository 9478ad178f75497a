"""Marvel's off-chip subspace: L2 tiles, order of the loops over tiles, layouts, under `models.locality`.

A layout touches its own tensor only, so for a tile and an order the best three are found one by one. No
layout moves fewer words than the tiles have, so tiles are looked at in the order of that bound, and
none whose bound exceeds the best found: the minimum is exact.
"""

import functools
import itertools
import math
import operator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.models._locality import (
    INDEXES,
    TENSOR_LAYOUTS,
    TILE_LOOPS,
    TILE_ORDERS,
    movement,
    pass_blocks,
    room,
    tiled,
    visits,
)
from diffhw.workloads import Layer

__all__ = ["OffChip", "divisors", "off_chip"]

_TILE_BUCKETS = (8192, 131072)
_ORDER_BUCKETS = (3, 24, 120, 720, 5040, 40320)
_EVERY = 1_000_000  # tiles; above that sizes that split evenly stand for all others
_LIMIT = 4_000_000  # above that the caller should switch a rule on


@dataclass(frozen=True)
class OffChip:
    """The best tiles, best first, and what was counted on the way.

    movement: words (weighted) of each, shape (n,).  tiles: (n, 8) in the order of `TILE_LOOPS`.
    order, layouts: of each, ranks (n, 8) and names by tensor.
    tile_counts: tiles left after each step, in order ("even": sizes that do not split evenly dropped, since
                 all would be too many; "one group": groups one after another).  orders: orders tried.
    layout_counts: layouts per tensor.
    """

    movement: np.ndarray
    tiles: np.ndarray
    order: np.ndarray
    layouts: dict[str, list[str]]
    tile_counts: dict[str, int]
    orders: int
    layout_counts: dict[str, int]

    @property
    def mappings(self) -> int:
        """Mappings (tile, order, three layouts) decided."""
        return list(self.tile_counts.values())[-1] * self.orders * math.prod(self.layout_counts.values())


def divisors(extent: int) -> list[int]:
    """Tile sizes that divide a loop."""
    return [size for size in range(1, extent + 1) if extent % size == 0]


def _even(extent: int, block: int) -> list[int]:
    """Tile sizes that split a loop as evenly as can be, and the same rounded up to whole blocks."""
    even = {math.ceil(extent / n) for n in range(1, extent + 1)}
    return sorted(even | {min(math.ceil(size / block) * block, extent) for size in even})


def _menus(sizes: dict[str, int], rules, grouped: bool, block: int = 0) -> dict[str, list[int]]:
    """Tile sizes per loop. Without P1 all of them, or with ``block`` the even ones."""
    menus = {}
    for d in TILE_LOOPS:
        extent = sizes[d]
        if "P1" in rules:
            menus[d] = divisors(extent)
        else:
            menus[d] = _even(extent, block) if block else list(range(1, extent + 1))
        if d in "rs" and "P6" in rules and extent <= 3:
            menus[d] = [extent]
        if d == "g" and grouped:  # the on-chip model runs groups one after another
            menus[d] = [1]
    return menus


def _orders(sizes: dict[str, int], rules) -> np.ndarray:
    """(M, 8) places of the loops."""
    if "P2" in rules:
        return np.array([[one[d] for d in TILE_LOOPS] for one in TILE_ORDERS.values()], np.float32)
    moving = [i for i, d in enumerate(TILE_LOOPS) if sizes[d] > 1]
    out = []
    for order in itertools.permutations(moving):
        place = np.zeros(len(TILE_LOOPS), np.float32)  # loops of one trip may stand anywhere
        place[list(order)] = np.arange(len(order))
        out.append(place)
    return np.array(out)


def _allowed(sizes: dict[str, int], arrays: dict[str, int], rules, block: int) -> dict[str, np.ndarray]:
    """Layouts of the menu that are looked at, one per way of ordering the dimensions longer than 1."""
    length = sizes | arrays
    out = {}
    for t, menu in TENSOR_LAYOUTS.items():
        seen, keep = set(), np.zeros(len(menu), bool)
        longest = max(length[d] for d in menu[0])
        for i, layout in enumerate(menu):
            short = "".join(d for d in layout if length[d] > 1)
            if short in seen:
                continue
            inner = length[short[-1]] if short else 1
            if "P7" in rules and inner < min(block, longest):
                continue
            seen.add(short)
            keep[i] = True
        out[t] = keep
    return out


def _least(orders, moved_under):
    """Least movement over orders, and which. orders: dict, leaves (M,)."""
    count = jax.tree.leaves(orders)[0].shape[0]
    start = moved_under(jax.tree.map(lambda leaf: leaf[0], orders))

    def step(state, row):
        rank, place = row
        moved, (best, pick) = moved_under(rank), state
        return (jnp.where(moved < best, moved, best), jnp.where(moved < best, place, pick)), None

    places = jnp.arange(count, dtype=start.dtype)
    return jax.lax.scan(step, (start, jnp.zeros_like(start)), (orders, places))[0]


@functools.partial(jax.jit, static_argnames="double_buffered")
def _bounds(layer, tiles, orders, width, double_buffered):
    """Of each tile what it moves at least, whole blocks aside, and the room it takes. tiles: leaves (N,)."""

    def of_tile(tile):
        cut = tiled(layer, tile)
        words = {
            t: functools.reduce(operator.mul, [cut.axes[d].total for d in menu[0]])
            for t, menu in TENSOR_LAYOUTS.items()
        }
        return cut.trips, words, room(cut, width, double_buffered)

    trips, words, held = jax.vmap(of_tile)(tiles)
    return _least(orders, lambda rank: movement(words, visits(trips, rank), 1.0, width))[0], held


@jax.jit
def _best(layer, tiles, orders, masks, block, width):
    """Movement, order and layouts of each tile. tiles: leaves (N,); masks: (24,), inf where left out."""

    def of_tile(tile):
        cut = tiled(layer, tile)
        blocks, picks = {}, {}
        for t, menu in TENSOR_LAYOUTS.items():
            axes = {d: cut.axes[d] for d in menu[0]}
            best, pick = jnp.inf, 0.0
            for i, one in enumerate(pass_blocks(axes, menu, block)):
                one = one + masks[t][i]
                best, pick = jnp.where(one < best, one, best), jnp.where(one < best, float(i), pick)
            blocks[t], picks[t] = best, pick
        return cut.trips, blocks, picks

    trips, blocks, picks = jax.vmap(of_tile)(tiles)
    best, order = _least(orders, lambda rank: movement(blocks, visits(trips, rank), block, width))
    return best, order, picks


def _bucket(count: int, buckets) -> int:
    return next((size for size in buckets if count <= size), buckets[-1])


def _pad(values: np.ndarray, size: int) -> np.ndarray:
    """Rows repeated up to ``size``: a tile or an order looked at twice changes nothing."""
    return np.concatenate([values, np.repeat(values[:1], size - len(values), 0)])


def _foremost(moved: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """Least movement first; in a tie the tile with the most work, which leaves the array most choice."""
    return np.lexsort((-np.prod(tiles, -1), moved))


def _front(moved: np.ndarray, work: np.ndarray) -> np.ndarray:
    """Places of the tiles of which none other has as much work and moves no more, least movement first."""
    order = np.lexsort((-work, moved))
    best = np.maximum.accumulate(work[order])
    return order[np.concatenate([[True], best[1:] > best[:-1]])]


def _spaced(work: np.ndarray, count: int) -> np.ndarray:
    """The first of a front, up to ``count - 1`` more, evenly by the log of their work; 0: left out."""
    live = np.flatnonzero(work > 0)
    if len(live) <= count or count == 1:
        return live[:count]
    steps = np.log(work[live])
    goals = np.linspace(steps[0], steps[-1], count)
    return live[sorted({int(np.argmin(np.abs(steps - goal))) for goal in goals})]


def _room_of(layer: Layer, sizes, width, double_buffered) -> float:
    tile = {d: jnp.float32(sizes[d]) for d in TILE_LOOPS}
    return float(room(tiled(layer, tile), width, double_buffered))


def off_chip(
    layer: Layer,
    capacity: float,
    block: int,
    width: dict[str, float],
    *,
    double_buffered: bool,
    rules: tuple[str, ...],
    f_min: float,
    keep: int,
    slack: float = 0.5,
    every_order: bool = False,
) -> OffChip:
    """The tile that moves least, by exact enumeration under the rules, and up to ``keep - 1`` rivals.

    Rivals do more work per tile and move at most ``slack`` more: no other tile has as much work and
    moves no more.
    every_order: each tile under every order that differs in its loops of more than one trip (layouts and
    movement stay those of its best order). capacity: words (weighted) of L2.

    Raises ValueError if no tile fits, or the space is too large to enumerate, naming the rule.
    """
    whole = {d: int(float(getattr(layer, d))) for d in TILE_LOOPS}
    arrays = {d: int(float(getattr(layer, d))) for d in "hw"}
    grouped = whole["g"] > 1 and whole["c"] > 1
    steps = [("all", ()), ("P1", ("P1",)), ("P6", ("P1", "P6"))]
    counts = {}
    for title, some in steps:
        chosen = tuple(rule for rule in some if rule in rules)
        counts[title] = math.prod(len(menu) for menu in _menus(whole, chosen, False).values())
    menus = _menus(whole, rules, grouped)
    total = math.prod(len(menu) for menu in menus.values())
    if "P1" not in rules and total > _EVERY:
        menus = _menus(whole, rules, grouped, block)
        total = math.prod(len(menu) for menu in menus.values())
        counts["even"] = total
    if grouped:
        counts["one group"] = total
    if total > _LIMIT:
        raise ValueError(
            f"{total:,} tiles are too many to enumerate (limit {_LIMIT:,}): keep rule P1 (tiles that divide)"
        )
    all_held = _room_of(layer, whole, width, double_buffered)
    floor = f_min * min(capacity, all_held) if "P5" in rules else 0.0
    orders = _orders(whole, rules)
    masks = _allowed(whole, arrays, rules, block)
    places = _pad(orders, _bucket(len(orders), _ORDER_BUCKETS))
    number = functools.partial(jnp.asarray, dtype=jnp.float32)
    by_loop = lambda rows: {d: number(rows[:, i]) for i, d in enumerate(TILE_LOOPS)}
    order_leaves = by_loop(places)
    mask_leaves = {t: number(np.where(mask, 0.0, np.inf)) for t, mask in masks.items()}
    widths = {t: number(value) for t, value in width.items()}

    grid = np.stack(np.meshgrid(*[np.array(menus[d], np.float32) for d in TILE_LOOPS], indexing="ij"), -1)
    grid = grid.reshape(-1, len(TILE_LOOPS))
    bounds, held = [], []
    size = _bucket(len(grid), _TILE_BUCKETS)
    for start in range(0, len(grid), size):
        part = by_loop(_pad(grid[start : start + size], size))
        bound, takes = _bounds(layer, part, order_leaves, widths, double_buffered)
        bounds.append(np.asarray(bound))
        held.append(np.asarray(takes))
    bound, takes = (np.concatenate(parts)[: len(grid)] for parts in (bounds, held))
    fits = takes <= capacity
    left = fits & (takes >= floor)
    fit, kept = int(fits.sum()), int(left.sum())
    counts["P5: fits"] = fit
    counts["P5"] = kept
    if not fit:
        least = _room_of(layer, {d: menu[0] for d, menu in menus.items()}, width, double_buffered)
        bare = _room_of(layer, dict.fromkeys(TILE_LOOPS, 1), width, double_buffered)
        relax = f"; without P6 the least is {bare:,.0f}" if bare < least else ""
        raise ValueError(
            f"no tile fits L2 (P5): the smallest takes {least:,.0f} and there is room for "
            f"{capacity:,.0f}{relax}; give L2 at least {least:,.0f}"
        )
    if not kept:
        raise ValueError(
            f"rule P5 leaves no tile: none of the {fit:,} that fit takes {f_min:g} of the room in L2; "
            "lower f_min"
        )
    # Best bound first, until no bound is below what was found. A tile of less work that cannot move less
    # than one found is no use on chip either.
    grid, bound = grid[left], bound[left]
    work = np.prod(grid, -1)
    todo = _foremost(bound, grid)
    moved, order, seen = np.empty(0), np.empty(0), np.empty(0, int)
    picks = {t: np.empty(0) for t in INDEXES}
    while len(todo):
        part, todo = todo[: _TILE_BUCKETS[0]], todo[_TILE_BUCKETS[0] :]
        rows = _pad(grid[part], _TILE_BUCKETS[0])
        out = jax.tree.map(
            np.asarray, _best(layer, by_loop(rows), order_leaves, mask_leaves, number(block), widths)
        )
        n = len(part)
        moved, order = np.concatenate([moved, out[0][:n]]), np.concatenate([order, out[1][:n]])
        seen = np.concatenate([seen, part])
        picks = {t: np.concatenate([picks[t], out[2][t][:n]]) for t in picks}
        if every_order:
            continue
        first = _front(moved, work[seen])
        moved, order, seen = moved[first], order[first], seen[first]
        picks = {t: picks[t][first] for t in picks}
        least = bound[todo] * (1 - 1e-5)
        ahead = np.searchsorted(moved, least, side="right") - 1  # the front's work grows with its movement
        useful = (ahead < 0) | (work[todo] > work[seen][np.maximum(ahead, 0)])
        todo = todo[useful & (least <= moved[0] * (1 + (slack if keep > 1 else 0)))]
    if not every_order:
        pick = _spaced(np.where(moved <= moved[0] * (1 + slack), work[seen], 0), keep)
        moved, order, seen = moved[pick], order[pick], seen[pick]
        picks = {t: picks[t][pick] for t in picks}
    tiles, order = grid[seen], places[order.astype(int)]
    layouts = {t: [menu[int(i)] for i in picks[t]] for t, menu in TENSOR_LAYOUTS.items()}
    if every_order:
        extents = np.array([whole[d] for d in TILE_LOOPS])
        index, order = [], []
        for i, tile in enumerate(tiles):
            moving = tile < extents
            distinct = {tuple(np.argsort(place[moving])): place for place in orders}
            index += [i] * len(distinct)
            order += list(distinct.values())
        moved, tiles, order = moved[index], tiles[index], np.array(order)
        layouts = {t: [names[i] for i in index] for t, names in layouts.items()}
    return OffChip(
        movement=moved,
        tiles=tiles,
        order=order,
        layouts=layouts,
        tile_counts=counts,
        orders=len(orders),
        layout_counts={t: int(mask.sum()) for t, mask in masks.items()},
    )
