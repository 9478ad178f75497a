"""All lattices of a layer by their lower bound, and what to say when none fits."""

import heapq
import itertools
import math
import time

import numpy as np

from diffhw.hardware import Hierarchy
from diffhw.mappings import LOOPS, LoopNest
from diffhw.recipes._map_exact import Found, Searcher
from diffhw.recipes._map_lattice import AT, Chip, Lattice, Problem, chip_of, problem_of, spatial_choices

__all__ = ["BEAM", "MappingQueue", "explain_no_fit"]

BEAM = 24
"""Partial mappings kept by the first, quick look into a lattice."""


def _finite_ports(chip: Chip) -> list[tuple[int, int]]:
    return [(k, j) for k in range(chip.depth) for j in range(3) if np.isfinite(chip.ports[k, j])]


def _keep_choices(hierarchy: Hierarchy, bypass: bool) -> list[tuple[str, ...]]:
    if not bypass:
        return [tuple(level.keeps for level in hierarchy.levels)]
    per_level = [
        [
            "".join(part)
            for size in range(len(level.keeps), -1, -1)
            for part in itertools.combinations(level.keeps, size)
        ]
        for level in hierarchy.levels[:-1]
    ]
    return [(*choice, hierarchy.levels[-1].keeps) for choice in itertools.product(*per_level)]


def _allowed_spatial(choices, problem: Problem, chip: Chip, spatial, min_utilization: float):
    """Those spatial choices that the caller allows; says what binds if there are none."""
    if spatial is not None:
        wanted = []
        for name in chip.names:
            given = spatial.get(name, {})
            row = [np.ones(len(LOOPS), int), np.ones(len(LOOPS), int)]
            for axis, key in enumerate("xy"):
                for d, factor in given.get(key, {}).items():
                    if d not in AT:
                        raise ValueError(f"spatial: {name}: unknown loop {d!r}; known: {', '.join(LOOPS)}")
                    row[axis][AT[d]] = factor
            wanted.append(row)
        unknown = set(spatial) - set(chip.names)
        if unknown:
            raise ValueError(f"spatial: no level is called {min(unknown)!r}; known: {', '.join(chip.names)}")
        x, y = np.array([row[0] for row in wanted]), np.array([row[1] for row in wanted])
        used = (x * y).prod(axis=0)
        for i, d in enumerate(LOOPS):
            if problem.extents[i] % used[i]:
                raise ValueError(
                    f"spatial: loop {d!r} is spread {used[i]} times, which does not divide its extent"
                    f" {problem.extents[i]}: choose a divisor"
                )
        return [(x, y)]
    macs = chip.fan.prod()
    kept = [(x, y) for x, y in choices if (x * y).prod() >= min_utilization * macs * (1 - 1e-9)]
    if not kept:
        most = max((x * y).prod() for x, y in choices)
        raise ValueError(
            f"no mapping uses {100 * min_utilization:g} % of the {macs:g} MACs: the loops that may be spread"
            f" fill at most {most} ({100 * most / macs:.3g} %); lower min_utilization to {most / macs:.4g}"
        )
    return kept


def explain_no_fit(problem: Problem, chip: Chip, lattices) -> str:
    """What binds when no tile fits, and the smallest change that helps."""
    best = (math.inf, "")
    for lattice in lattices:
        worst = (0.0, "")
        for k, name in enumerate(chip.names):
            need = sum(
                float(lattice.words(k, t).min()) * chip.bits[k, v]
                for v, t in enumerate("wio")
                if chip.keeps[k, v]
            )
            if need > chip.capacity[k]:
                short = need / chip.capacity[k]
                kept = ", ".join(t for v, t in enumerate("wio") if chip.keeps[k, v])
                worst = max(
                    worst,
                    (
                        short,
                        f"no mapping fits: {name} holds {chip.capacity[k]:g} bits, the smallest tiles of its"
                        f" tensors ({kept}) take {need:g}; raise its capacity to {need:g} bits or let a"
                        " tensor pass by",
                    ),
                )
        best = min(best, worst)
    return best[1] or "no mapping fits: two levels bind together; raise the capacity of the innermost ones"


class MappingQueue:
    """All lattices of a layer by their least bound, refined step by step."""

    def __init__(self, layer, hierarchy, bypass=False, spatial=None, min_utilization=0.0, choices=None):
        self.problem = problem_of(layer)
        self.choices = []
        for keeps in _keep_choices(hierarchy, bypass):
            chip = chip_of(hierarchy.keeping(keeps))
            pairs = choices
            if pairs is None:
                pairs = [] if spatial is not None else spatial_choices(self.problem, chip)
                pairs = _allowed_spatial(pairs, self.problem, chip, spatial, min_utilization)
            self.choices += [(keeps, chip, x, y) for x, y in pairs]
        # The same spatial factors on other axes cost the same.
        seen, distinct = set(), []
        for choice in self.choices:
            key = (choice[0], (choice[2] * choice[3]).tobytes())
            if key not in seen:
                seen.add(key)
                distinct.append(choice)
        self.choices = distinct
        self.ports = _finite_ports(self.choices[0][1])
        self.searchers: dict[int, Searcher] = {}
        self.evaluated = 0

    def searcher(self, i: int) -> Searcher:
        if i not in self.searchers:
            _, chip, x, y = self.choices[i]
            self.searchers[i] = Searcher(Lattice(self.problem, x * y), chip, self.ports)
        return self.searchers[i]

    def floor(self, objective) -> float:
        """A proven lower bound of the objective, without looking for a mapping."""
        queue = [(self.searcher(i).quick_floor(objective), i, 0) for i in range(len(self.choices))]
        heapq.heapify(queue)
        while queue:
            bound, i, stage = heapq.heappop(queue)
            searcher = self.searcher(i)
            if stage == searcher.stages(objective):
                return bound
            heapq.heappush(queue, (max(bound, searcher.floor(objective, stage)), i, stage + 1))
        return math.inf

    def solve(self, objective, limit: int, seconds: float, start: Found | None = None, wide: bool = True):
        """(best, its choice, bound). wide: False stops each lattice at the first quick look."""
        begin = time.perf_counter()
        queue = [(self.searcher(i).quick_floor(objective), i, 0) for i in range(len(self.choices))]
        heapq.heapify(queue)
        best, score, dropped = start, math.inf if start is None else start.score, math.inf
        choice = -1
        while queue:
            bound, i, stage = heapq.heappop(queue)
            if bound >= score * (1 - 1e-9):
                return best, choice, min(score, dropped, max(bound, 0.0)) if dropped < math.inf else score
            if best is not None and time.perf_counter() - begin > seconds:
                return best, choice, min(bound, dropped, score)
            searcher = self.searcher(i)
            if stage < searcher.stages(objective):
                heapq.heappush(queue, (max(bound, searcher.floor(objective, stage)), i, stage + 1))
                continue
            for room in (BEAM, limit) if wide else (limit,):
                before = searcher.evaluated
                found, lost = searcher.descend(objective, score, room)
                self.evaluated += searcher.evaluated - before
                if found is not None:
                    best, score, choice = found, found.score, i
                if lost == math.inf:
                    break
            dropped = min(dropped, lost)
        return best, choice, min(score, dropped)

    def nest(self, found: Found, choice: int, hierarchy, layer) -> tuple[Hierarchy, LoopNest]:
        hierarchy = hierarchy.keeping(self.choices[choice][0])
        return hierarchy, LoopNest.create(self.levels(found, choice), hierarchy, layer)

    def levels(self, found: Found, choice: int) -> list[dict]:
        """Levels with their spatial factors, for `LoopNest.create`."""
        _, _, x, y = self.choices[choice]
        levels = []
        for k, level in enumerate(found.levels):
            named = lambda factors: {d: int(f) for d, f in zip(LOOPS, factors, strict=True) if f > 1}
            levels.append(level | {"x": named(x[k]), "y": named(y[k])})
        return levels
