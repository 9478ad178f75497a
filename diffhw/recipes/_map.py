"""The best mapping of a layer, and of a network, with a certificate.

One queue holds all choices of kept tensors and of spatial factors by their lower bound; the most
promising is looked into first, and what cannot beat the mapping in hand is never looked into. So the
answer is proven when the queue's least bound is no better, and a proven gap when time runs out.
"""

import heapq
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.hardware import Hierarchy
from diffhw.mappings import LOOPS, LoopNest
from diffhw.models import Cost, loopnest
from diffhw.recipes._dataflow_choice import choose_edp
from diffhw.recipes._map_exact import OBJECTIVES, Found, Searcher
from diffhw.recipes._map_lattice import AT, Chip, Lattice, Problem, chip_of, problem_of, spatial_choices
from diffhw.workloads import Layer, Network

__all__ = [
    "BestMapping",
    "BestMappings",
    "MappingQueue",
    "best_mapping",
    "best_mappings",
    "mapping_space_size",
    "product_bound",
]

BEAM = 24
"""Partial mappings kept by the first, quick look into a lattice."""


@dataclass(frozen=True)
class BestMapping:
    """A mapping and how good it is.

    objective: "energy" (pJ), "latency" (cycles) or "edp" (pJ x cycles).  score: of ``nest``, in its unit.
    bound: proven: no mapping of the space scores less.  evaluated: partial mappings priced exactly.
    spatial_choices: choices of kept tensors and spatial factors.  seconds: wall time.
    keeps: tensors kept per level (differs from the hierarchy's only if bypass was searched).
    energy_pj, cycles: of ``nest``.
    """

    layer: Layer
    hierarchy: Hierarchy
    nest: LoopNest
    objective: str
    score: float
    bound: float
    energy_pj: float
    cycles: float
    evaluated: int
    spatial_choices: int
    seconds: float

    @property
    def gap(self) -> float:
        """``score / bound - 1``: at most so far from the optimum, 0 if proven."""
        return self.score / self.bound - 1 if self.bound > 0 else math.inf

    @property
    def proven(self) -> bool:
        """True if no mapping of the space is better (to one part in 10^9)."""
        return self.gap <= 2e-9

    @property
    def certificate(self) -> str:
        """One sentence."""
        if self.proven:
            return f"proven optimum of {self.objective}"
        return f"at most {100 * self.gap:.2g} % above the optimum of {self.objective}"

    @cached_property
    def cost(self) -> Cost:
        """`models.loopnest` of it, in float64, as numpy leaves."""
        with jax.enable_x64(True):
            double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)
            cost = loopnest.layer(double(self.layer), double(self.hierarchy), double(self.nest))
            return jax.tree.map(np.asarray, cost)


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


def _explain_no_fit(problem: Problem, chip: Chip, lattices) -> str:
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


def best_mapping(
    layer: Layer,
    hierarchy: Hierarchy,
    objective: str = "edp",
    *,
    bypass: bool = False,
    spatial: Mapping | None = None,
    min_utilization: float = 0.0,
    limit: int = 200_000,
    seconds: float = 60.0,
) -> BestMapping:
    """The best mapping of a layer under `models.loopnest`, with a proof or a proven gap.

    objective: "energy", "latency" or "edp".  Perfect factors, any order at any level, any spatial factors
    that the hierarchy allows.
    bypass: also search which of the tensors that a level keeps should pass by.
    spatial: fixes the spatial factors: {level name: {"x": {loop: factor}, "y": {...}}}.
    min_utilization: least share of the MACs that must be in use.
    limit, seconds: partial mappings kept per level, and time, beyond which the answer is a proven gap.
    Raises ValueError that says what binds and what would help if nothing fits.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    begin = time.perf_counter()
    queue = MappingQueue(layer, hierarchy, bypass, spatial, min_utilization)
    found, choice, bound = queue.solve(objective, limit, seconds)
    if found is None:
        lattices = [queue.searcher(i).lattice for i in range(len(queue.choices))]
        raise ValueError(_explain_no_fit(queue.problem, queue.choices[0][1], lattices))
    chosen, nest = queue.nest(found, choice, hierarchy, layer)
    return BestMapping(
        layer=layer,
        hierarchy=chosen,
        nest=nest,
        objective=objective,
        score=found.score,
        bound=bound,
        energy_pj=found.energy_pj,
        cycles=found.cycles,
        evaluated=queue.evaluated,
        spatial_choices=len(queue.choices),
        seconds=time.perf_counter() - begin,
    )


@dataclass(frozen=True)
class BestMappings:
    """A mapping per distinct layer of a network.

    layers: one `BestMapping` per row, in order.  names, counts: of the rows.
    objective, score, bound: of the whole network: energy and cycles add, times counts.
    """

    network: Network
    layers: tuple[BestMapping, ...]
    names: tuple[str, ...]
    counts: tuple[float, ...]
    objective: str
    bound: float
    seconds: float

    @property
    def energy_pj(self) -> float:
        """Of all layers."""
        return sum(c * one.energy_pj for c, one in zip(self.counts, self.layers, strict=True))

    @property
    def cycles(self) -> float:
        """Of all layers, one after the other."""
        return sum(c * one.cycles for c, one in zip(self.counts, self.layers, strict=True))

    @property
    def score(self) -> float:
        """pJ, cycles or pJ x cycles of the network."""
        return {
            "energy": self.energy_pj,
            "latency": self.cycles,
            "edp": self.energy_pj * self.cycles,
        }[self.objective]

    @property
    def gap(self) -> float:
        """``score / bound - 1``."""
        return self.score / self.bound - 1 if self.bound > 0 else math.inf


def product_bound(supports: list[tuple[float, float]], least_energy: float, least_cycles: float) -> float:
    """Least E x L over E >= least_energy, L >= least_cycles and E + price L >= value for all supports.

    Along an edge of that region the product is concave, so it is least at a vertex.
    """
    lines = [(1.0, 0.0, least_energy), (0.0, 1.0, least_cycles)]
    lines += [(1.0, price, value) for price, value in supports]
    best = math.inf
    for (a, b, v), (c, d, w) in itertools.combinations(lines, 2):
        det = a * d - b * c
        if abs(det) < 1e-12 * max(abs(a * d), abs(b * c), 1e-300):
            continue
        e, t = (v * d - b * w) / det, (a * w - c * v) / det
        if all(p * e + q * t >= r * (1 - 1e-9) for p, q, r in lines):
            best = min(best, e * t)
    return max(best if best < math.inf else 0.0, least_energy * least_cycles)


def best_mappings(
    network: Network,
    hierarchy: Hierarchy,
    objective: str = "edp",
    *,
    bypass: bool = False,
    spatial: Mapping | None = None,
    min_utilization: float = 0.0,
    limit: int = 50_000,
    seconds: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> BestMappings:
    """The best mapping of every layer of a network for the network's total, with a proven bound.

    Arguments as in `best_mapping`; ``seconds`` per layer.  progress: called with layers done, layers.
    The EDP of a network is the product of two sums: each layer offers the mappings that are best at some
    price of a cycle, the best combination is chosen exactly, and the bound comes from the same prices.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    begin = time.perf_counter()
    rows = jax.tree.map(np.asarray, network).with_info(network.info).rows()
    counts = tuple(
        float(c) for c, real in zip(np.asarray(network.count), np.asarray(network.mask), strict=True) if real
    )
    offers: list[list[tuple[float, float, BestMapping]]] = []
    bounds = {"energy": 0.0, "latency": 0.0}
    supports: dict[float, float] = {}
    prices: list[float] = []
    for number, row in enumerate(rows):
        queue = MappingQueue(row, hierarchy, bypass, spatial, min_utilization)
        wanted = [objective] if objective != "edp" else ["energy", "latency", "edp", *prices]
        found_here, per_objective = [], {}
        for goal in wanted:
            found, choice, bound = queue.solve(goal, limit, seconds)
            if found is None:
                lattices = [queue.searcher(i).lattice for i in range(len(queue.choices))]
                raise ValueError(_explain_no_fit(queue.problem, queue.choices[0][1], lattices))
            per_objective[goal] = bound
            chosen, nest = queue.nest(found, choice, hierarchy, row)
            name = goal if isinstance(goal, str) else "edp"
            found_here.append(
                (
                    found.energy_pj,
                    found.cycles,
                    BestMapping(
                        layer=row,
                        hierarchy=chosen,
                        nest=nest,
                        objective=name,
                        score={"energy": found.energy_pj, "latency": found.cycles}.get(
                            name, found.energy_pj * found.cycles
                        ),
                        bound=bound if isinstance(goal, str) else 0.0,
                        energy_pj=found.energy_pj,
                        cycles=found.cycles,
                        evaluated=queue.evaluated,
                        spatial_choices=len(queue.choices),
                        seconds=0.0,
                    ),
                )
            )
        offers.append(found_here)
        for goal in bounds:
            bounds[goal] += counts[number] * per_objective.get(goal, 0.0)
        if progress is not None:
            progress(number + 1, len(rows))
    del supports
    if objective == "edp":
        energy = np.array([[c * o[0] for o in offer] for c, offer in zip(counts, offers, strict=True)]).T
        cycles = np.array([[c * o[1] for o in offer] for c, offer in zip(counts, offers, strict=True)]).T
        picked = choose_edp(energy, cycles)
        layers = tuple(offer[i][2] for offer, i in zip(offers, picked, strict=True))
        bound = bounds["energy"] * bounds["latency"]
    else:
        layers = tuple(offer[0][2] for offer in offers)
        bound = bounds[objective]
    return BestMappings(
        network=network,
        layers=layers,
        names=tuple(network.info.names[: len(rows)])
        if network.info is not None
        else tuple(map(str, range(len(rows)))),
        counts=counts,
        objective=objective,
        bound=bound,
        seconds=time.perf_counter() - begin,
    )


def mapping_space_size(layer: Layer, hierarchy: Hierarchy, *, valid_only: bool = True) -> float:
    """Number of distinct nests: perfect factors, spatial factors, orders of the loops that run.

    valid_only: count only those whose tiles fit. Exact up to 2^53, rounded beyond.
    """
    problem, chip = problem_of(layer), chip_of(hierarchy)
    total = 0.0
    for x, y in spatial_choices(problem, chip):
        lattice = Lattice(problem, x * y)
        # nests[m]: ways inside a tile of level m. Level 0's order changes nothing and counts once.
        ways = np.ones(lattice.shape)
        for m in range(1, chip.depth):
            if valid_only:
                ways = np.where(lattice.fits(chip, m - 1), ways, 0.0)
            by_active = [np.broadcast_to(ways, lattice.shape)]
            for d in LOOPS:
                grown = [np.zeros(lattice.shape) for _ in range(len(by_active) + 1)]
                for active, counted in enumerate(by_active):
                    grown[active] = grown[active] + counted
                    if lattice.rest[AT[d]] > 1:
                        grown[active + 1] = grown[active + 1] + lattice.cumsum(counted, d) - counted
                by_active = grown
            ways = sum(math.factorial(a) * counted for a, counted in enumerate(by_active))
        total += float(np.asarray(ways).reshape(-1)[-1])
    return total
