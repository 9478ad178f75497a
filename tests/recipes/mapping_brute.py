"""Every mapping of a small layer, one by one: all factorisations, all spatial factors, all orders.

Shares no search with `recipes.best_mapping`; the price of each mapping is `models.loopnest` in float64.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.mappings import LOOPS, LoopLevel, LoopNest
from diffhw.models import loopnest

CHUNK = 8192


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


def chains(n, slots):
    """Ordered factorisations of n."""
    if slots == 0:
        yield from [()] if n == 1 else []
        return
    for d in divisors(n):
        for rest in chains(n // d, slots - 1):
            yield (d, *rest)


def all_nests(layer, hierarchy, most):
    """Arrays time, place, x, y of shape (N, levels, 8) of every distinct nest; None if more than ``most``."""
    extents = [int(getattr(layer, d)) for d in LOOPS]
    depth = len(hierarchy.levels)
    slots = []
    for m, level in enumerate(hierarchy.levels):
        slots.append(("t", m, LOOPS))
        for axis in "xy":
            if float(getattr(level, f"fanout_{axis}")) > 1:
                slots.append((axis, m, getattr(level, f"spatial_{axis}")))
    per_loop = []
    for i, d in enumerate(LOOPS):
        allowed = [j for j, (_, _, loops) in enumerate(slots) if d in loops]
        per_loop.append([(allowed, chain) for chain in chains(extents[i], len(allowed))])
    out = {"t": [], "x": [], "y": [], "place": []}
    for combination in itertools.product(*per_loop):
        made = {key: np.ones((depth, 8)) for key in "txy"}
        for i, (allowed, chain) in enumerate(combination):
            for j, factor in zip(allowed, chain, strict=True):
                made[slots[j][0]][slots[j][1], i] = factor
        fits = all(
            made[axis][m].prod() <= float(getattr(level, f"fanout_{axis}"))
            for m, level in enumerate(hierarchy.levels)
            for axis in "xy"
        )
        if not fits:
            continue
        running = [[i for i in range(8) if m and made["t"][m, i] > 1] for m in range(depth)]
        for orders in itertools.product(*map(itertools.permutations, running)):
            place = np.zeros((depth, 8))
            for m, order in enumerate(orders):
                whole = [*order, *(i for i in range(8) if i not in order)]
                place[m, whole] = np.arange(8)
            for key in "txy":
                out[key].append(made[key])
            out["place"].append(place)
            if len(out["t"]) > most:
                return None
    return {key: np.array(values) for key, values in out.items()}


@functools.partial(jax.jit, static_argnums=())
def _price(layer, hierarchy, nests):
    def one(nest):
        cost = loopnest.layer(layer, hierarchy, nest)
        return cost.energy_pj, cost.cycles, cost.feasible

    return jax.vmap(one)(nests)


def price(layer, hierarchy, arrays):
    """energy, cycles, feasible of every nest, float64."""
    levels = []
    for m, level in enumerate(hierarchy.levels):
        spatial = {}
        for axis in "xy":
            fan = float(getattr(level, f"fanout_{axis}"))
            loops = getattr(level, f"spatial_{axis}") if fan > 1 else ""
            spatial[axis] = {d: arrays[axis][:, m, LOOPS.index(d)] for d in loops}
        levels.append(
            LoopLevel(
                temporal={d: arrays["t"][:, m, i] for i, d in enumerate(LOOPS)},
                order={d: arrays["place"][:, m, i] for i, d in enumerate(LOOPS)},
                spatial_x=spatial["x"],
                spatial_y=spatial["y"],
            )
        )
    nests = LoopNest(levels=tuple(levels))
    double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)
    found = []
    with jax.enable_x64(True):
        for begin in range(0, len(arrays["t"]), CHUNK):
            piece = jax.tree.map(lambda leaf, begin=begin: leaf[begin : begin + CHUNK], nests)
            count = len(piece.levels[0].temporal["n"])
            piece = jax.tree.map(
                lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], CHUNK - count)]), piece
            )
            costs = _price(double(layer), double(hierarchy), double(piece))
            found.append([np.asarray(part)[:count] for part in costs])
    return [np.concatenate(column) for column in zip(*found, strict=True)]


def optimum(layer, hierarchy, most=60_000):
    """(mappings, valid ones, {"energy" | "latency" | "edp": least}), or None if there are too many."""
    arrays = all_nests(layer, hierarchy, most)
    if arrays is None:
        return None
    energy, cycles, feasible = price(layer, hierarchy, arrays)
    ok = feasible > 0
    least = {"energy": energy[ok].min(), "latency": cycles[ok].min(), "edp": (energy * cycles)[ok].min()}
    return len(ok), int(ok.sum()), least
