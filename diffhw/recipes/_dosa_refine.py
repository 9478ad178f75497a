"""From a relaxed end to a design: exact mappings within a hardware's limits, then hardware shrunk to them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.hardware import gemmini
from diffhw.mappings import LOOPS, ORDERS
from diffhw.recipes._dosa_space import (
    AT,
    MAX_SIDE,
    PLACES,
    GemminiSizes,
    Plan,
    Problem,
    gemmini_area_mm2,
    outermost,
)
from diffhw.recipes._map_lattice import divisors
from diffhw.recipes._map_queue import MappingQueue

__all__ = ["DosaDesign", "Refiner", "area_of", "derived_sizes", "levels_of", "refine_design", "scan_limits"]


def area_of(sizes) -> float:
    side, accumulator_kb, scratchpad_kb = map(jnp.float32, sizes)
    parts = GemminiSizes(side=side, accumulator_kb=accumulator_kb, scratchpad_kb=scratchpad_kb)
    return float(gemmini_area_mm2(parts))


@dataclass
class DosaDesign:
    """A network's design on the host: sizes, and per layer (levels for LoopNest.create, energy, cycles)."""

    sizes: tuple[float, float, float]
    layers: list[tuple[list[dict], float, float]]
    counts: np.ndarray

    @property
    def totals(self) -> tuple[float, float]:
        energy = sum(c * e for c, (_, e, _) in zip(self.counts, self.layers, strict=True))
        return energy, sum(c * t for c, (_, _, t) in zip(self.counts, self.layers, strict=True))

    @property
    def edp(self) -> float:
        energy, cycles = self.totals
        return energy * 1e-6 * cycles


def levels_of(plan: Plan, extents: np.ndarray, layer: int) -> list[dict]:
    """Levels of one layer's plan (numpy, hard) for `LoopNest.create`."""
    time_ = np.round(
        np.concatenate([plan.time[layer], np.asarray(outermost(_take(plan, layer), extents[layer]))[None]])
    )
    names = list(ORDERS)
    levels = []
    for m in range(4):
        which = int(np.argmin(np.abs(PLACES - np.round(plan.places[layer, m])).sum(axis=1)))
        level = {
            "temporal": {d: int(time_[m, AT[d]]) for d in LOOPS if time_[m, AT[d]] > 1},
            "order": ORDERS[names[which]],
        }
        if m == 1:
            level["y"] = {"c": round(float(plan.c_space[layer]))}
        if m == 2:
            level["x"] = {"k": round(float(plan.k_space[layer]))}
        levels.append(level)
    return levels


def _take(plan: Plan, i: int) -> Plan:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], plan)


def _needs_of(levels: list[dict], row) -> tuple[float, float, float]:
    """Outputs per accumulator, scratchpad words and side that one nest needs."""
    factor = lambda m, d: levels[m].get("temporal", {}).get(d, 1)
    c_space, k_space = levels[1].get("y", {}).get("c", 1), levels[2].get("x", {}).get("k", 1)
    first = {d: factor(0, d) * factor(1, d) for d in LOOPS}
    outputs = first["n"] * first["k"] * first["p"] * first["q"]
    t = {d: first[d] * factor(2, d) for d in LOOPS}
    t["c"], t["k"] = t["c"] * c_space, t["k"] * k_space
    height = (t["p"] - 1) * float(row.stride_h) + (t["r"] - 1) * float(row.dilation_h) + 1
    width = (t["q"] - 1) * float(row.stride_w) + (t["s"] - 1) * float(row.dilation_w) + 1
    scratch = t["k"] * t["c"] * t["r"] * t["s"] + t["n"] * t["c"] * height * width
    return float(outputs), float(scratch), float(max(c_space, k_space))


def derived_sizes(levels: list[list[dict]], rows) -> tuple[float, float, float]:
    """Sizes that nests ask for."""
    outputs, scratch, side = (max(column) for column in zip(*map(_needs_of, levels, rows), strict=True))
    side = max(side, 2.0)
    return side, float(math.ceil(side * outputs * 4 / 1024 - 1e-9)), float(math.ceil(scratch / 1024 - 1e-9))


def _spatial_near(levels: list[dict], row, side: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """The nest's spatial factors and those one prime away, as pairs for the exact search."""
    found = []
    c0, k0 = levels[1].get("y", {}).get("c", 1), levels[2].get("x", {}).get("k", 1)
    c0 = max(d for d in divisors(int(row.c)).tolist() if d <= min(c0, side))
    k0 = max(d for d in divisors(int(row.k)).tolist() if d <= min(k0, side))
    steps = (1, 0.5, 2, 1 / 3, 3)
    for cf in steps:
        for kf in steps:
            if cf != 1 and kf != 1:
                continue
            c, k = c0 * cf, k0 * kf
            whole = c == round(c) >= 1 and k == round(k) >= 1
            if not whole or float(row.c) % c or float(row.k) % k or max(c, k) > side:
                continue
            x, y = np.ones((4, len(LOOPS)), int), np.ones((4, len(LOOPS)), int)
            y[1, AT["c"]], x[2, AT["k"]] = round(c), round(k)
            found.append((x, y))
    return found


class Refiner:
    """Exact mappings of every layer within a hardware's limits, counted.

    limit: samples that a remapping may reach; it gives up before a layer that may take it further.
    """

    def __init__(self, problem: Problem, area_mm2: float = math.inf, limit: float = math.inf):
        self.problem, self.area_mm2, self.limit = problem, area_mm2, limit
        self.counts = np.asarray(problem.counts, float)[: len(problem.rows)]
        self.evaluated = 0
        self.dearest = 0.0
        self._dearest_layer = 0

    @property
    def samples(self) -> float:
        """Network evaluations spent."""
        return self.evaluated / len(self.problem.rows)

    def rank(self, design: DosaDesign) -> float:
        """EDP; designs over the area budget come after all others, the smaller excess first."""
        if self.area_mm2 == math.inf or (area := area_of(design.sizes)) <= self.area_mm2:
            return design.edp
        return 1e30 * area

    def price(self, sizes, levels: list[list[dict]]) -> DosaDesign:
        """Exact cost of given nests on given hardware."""
        chip, layers = gemmini(*sizes), []
        for row, one in zip(self.problem.rows, levels, strict=True):
            x, y = np.ones((4, len(LOOPS)), int), np.ones((4, len(LOOPS)), int)
            y[1, AT["c"]] = one[1].get("y", {}).get("c", 1)
            x[2, AT["k"]] = one[2].get("x", {}).get("k", 1)
            queue = MappingQueue(row, chip, choices=[(x, y)])
            energy, cycles = queue.searcher(0).price(one)
            layers.append((one, energy, cycles))
        self.evaluated += len(layers)
        return DosaDesign(tuple(sizes), layers, self.counts)

    def hope(self, design: DosaDesign, sizes) -> float:
        """At least what the network costs within ``sizes``: pJ, cycles priced; spatial factors kept."""
        energy, cycles = design.totals
        chip, total = gemmini(*sizes), 0.0
        for count, row, (one, _, _) in zip(self.counts, self.problem.rows, design.layers, strict=True):
            queue = MappingQueue(row, chip, choices=_spatial_near(one, row, sizes[0])[:1])
            total += count * queue.floor(energy / cycles)
        return total

    def remap(self, design: DosaDesign, sizes, room: int = 4) -> DosaDesign:
        """Every layer's best mapping at the network's price of a cycle, within ``sizes``; hardware shrunk.

        The design itself where the limit comes first.
        """
        before = self.samples
        energy, cycles = design.totals
        chip, levels = gemmini(*sizes), []
        for row, (one, _, _) in zip(self.problem.rows, design.layers, strict=True):
            if self.samples + 1 + 2 * self._dearest_layer / len(self.problem.rows) > self.limit:
                return design
            queue = MappingQueue(row, chip, choices=_spatial_near(one, row, sizes[0]))
            narrow = max(one[1].get("y", {}).get("c", 1), one[2].get("x", {}).get("k", 1)) > sizes[0]
            start = None if narrow else queue.searcher(0).found(energy / cycles, one)
            self.evaluated += 1
            width = room if start is not None else 4 * room  # what no longer fits deserves a wider look
            found, choice, _ = queue.solve(energy / cycles, width, math.inf, start, wide=False)
            self.evaluated += queue.evaluated
            self._dearest_layer = max(self._dearest_layer, queue.evaluated)
            levels.append(one if choice < 0 else queue.levels(found, choice))
        self.dearest = max(self.dearest, self.samples - before)
        return self.price(derived_sizes(levels, self.problem.rows), levels)


def scan_limits(refiner: Refiner, design: DosaDesign, seconds: float, keep: int = 3) -> list[list[float]]:
    """The most promising limits around a design, by lower bounds alone: no mapping is priced."""
    begin, found = time.perf_counter(), []
    scales = (1.0, 0.5, 0.25, 0.125, 2.0)
    for total in range(2 * len(scales) - 1):  # nearest first, should time run out
        for i, j in ((i, total - i) for i in range(len(scales)) if 0 <= total - i < len(scales)):
            if time.perf_counter() - begin > seconds:
                break
            side, accumulator, scratchpad = design.sizes
            limits = [
                side,
                max(1.0, math.ceil(accumulator * scales[i])),
                max(1.0, math.ceil(scratchpad * scales[j])),
            ]
            found.append((refiner.hope(design, limits), limits))
    return [limits for _, limits in sorted(found)[:keep]]


_GRID = (0.5, 0.75, 0.9, 1.1, 1.35, 2.0)
_MOVES = (
    [(1.0, s, 1.0) for s in _GRID]
    + [(1.0, 1.0, s) for s in _GRID]
    + [(2.0, 2.0, 1.0), (0.5, 0.5, 1.0), (1.0, 0.7, 1.4), (1.0, 1.4, 0.7)]
)


def refine_design(
    refiner: Refiner,
    design: DosaDesign,
    samples: float,
    seconds: float,
    rng: np.random.Generator,
    note: Callable,
) -> DosaDesign:
    """Remapping within the hardware's limits, moved a little, as long as samples and time last."""
    best, begin, tried = design, time.perf_counter(), set()
    moves, room = [(1.0, 1.0, 1.0)], 4
    while refiner.samples + refiner.dearest < samples and time.perf_counter() - begin < seconds:
        if not moves:  # nothing near helps: a wider look, and further away
            room = 12
            spread = np.exp(0.4 * rng.normal(size=(8, 2)))
            moves = [(1.0, 1.0, 1.0), *((1.0, float(a), float(b)) for a, b in spread)]
        move = moves.pop(0)
        limits = [max(1.0, math.ceil(v * s)) for v, s in zip(best.sizes, move, strict=True)]
        limits[0] = min(float(MAX_SIDE), max(2.0, limits[0]))
        if (*limits, room) in tried:
            continue
        tried.add((*limits, room))
        found = refiner.remap(best, limits, room)
        if found is best:  # the samples are used up, and only grow
            break
        if refiner.rank(found) < refiner.rank(best) * (1 - 1e-9):
            best = found
            note(refiner.samples, best.edp)
            moves = [(1.0, 1.0, 1.0), *_MOVES]
        elif move == (1.0, 1.0, 1.0) and not moves:
            moves = list(_MOVES)
    return best
