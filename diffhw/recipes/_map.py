"""The best mapping of a layer, and of a network, with a certificate.

One queue holds all choices of kept tensors and of spatial factors by their lower bound; the most
promising is looked into first, and what cannot beat the mapping in hand is never looked into. So the
answer is proven when the queue's least bound is no better, and a proven gap when time runs out.
"""

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
from diffhw.recipes._map_exact import OBJECTIVES
from diffhw.recipes._map_lattice import AT, Lattice, Problem, chip_of, problem_of, spatial_choices
from diffhw.recipes._map_queue import MappingQueue, explain_no_fit
from diffhw.workloads import Layer, Network

__all__ = [
    "BestMapping",
    "BestMappings",
    "best_mapping",
    "best_mappings",
    "mapping_space_size",
    "product_bound",
]


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
    queue = MappingQueue(layer, hierarchy, bypass, spatial, min_utilization)
    return _solve(queue, layer, hierarchy, objective, limit, seconds)


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
    counts = tuple(float(c) for c in np.asarray(network.count)[: len(rows)])
    problems = [problem_of(row) for row in rows]
    distinct = list(dict.fromkeys(problems))
    weight = {one: sum(c for c, p in zip(counts, problems, strict=True) if p == one) for one in distinct}
    offers: dict[Problem, list[BestMapping]] = {one: [] for one in distinct}
    bounds: dict[str | float, float] = {}
    passes = 2 if objective == "edp" else 1

    def visit(goals: list, done: int) -> None:
        for number, one in enumerate(distinct):
            row = rows[problems.index(one)]
            queue = MappingQueue(row, hierarchy, bypass, spatial, min_utilization)
            for goal in goals:
                best = _solve(queue, row, hierarchy, goal, limit, seconds)
                offers[one].append(best)
                bounds[goal] = bounds.get(goal, 0.0) + weight[one] * best.bound
            if progress is not None:
                progress(done + number + 1, passes * len(distinct))

    visit([objective] if objective != "edp" else ["energy", "latency", "edp"], 0)
    bound = bounds[objective] if objective != "edp" else bounds["energy"] * bounds["latency"]
    if objective == "edp":
        energy, cycles = _totals(_choose(offers, weight), weight)
        if energy * cycles > bound * (1 + 1e-9):
            # At the price of a cycle that the network has, bounds of the sum bound the product.
            price = energy / cycles
            visit([price], len(distinct))
            bound = product_bound([(price, bounds[price])], bounds["energy"], bounds["latency"])
        elif progress is not None:
            progress(passes * len(distinct), passes * len(distinct))
        chosen = _choose(offers, weight)
    else:
        chosen = {one: found[0] for one, found in offers.items()}
    return BestMappings(
        network=network,
        layers=tuple(chosen[one] for one in problems),
        names=tuple(network.names) if network.names else tuple(map(str, range(len(rows)))),
        counts=counts,
        objective=objective,
        bound=bound,
        seconds=time.perf_counter() - begin,
    )


def _choose(offers: Mapping[Problem, list[BestMapping]], weight: Mapping[Problem, float]):
    """One offer per layer, for the least product of the sums, exactly."""
    table = lambda field: (
        np.array([[weight[p] * getattr(o, field) for o in row] for p, row in offers.items()]).T
    )
    picked = choose_edp(table("energy_pj"), table("cycles"))
    return {one: row[i] for (one, row), i in zip(offers.items(), picked, strict=True)}


def _totals(chosen: Mapping[Problem, BestMapping], weight: Mapping[Problem, float]) -> tuple[float, float]:
    energy = sum(weight[one] * best.energy_pj for one, best in chosen.items())
    return energy, sum(weight[one] * best.cycles for one, best in chosen.items())


def _solve(queue: MappingQueue, layer, hierarchy, objective, limit: int, seconds: float) -> BestMapping:
    """One search in a queue. objective: a name, or a price of a cycle in pJ (score: pJ)."""
    begin = time.perf_counter()
    found, choice, bound = queue.solve(objective, limit, seconds)
    if found is None:
        lattices = [queue.searcher(i).lattice for i in range(len(queue.choices))]
        raise ValueError(explain_no_fit(queue.problem, queue.choices[0][1], lattices))
    chosen, nest = queue.nest(found, choice, hierarchy, layer)
    return BestMapping(
        layer=layer,
        hierarchy=chosen,
        nest=nest,
        objective=objective if isinstance(objective, str) else f"energy + {objective:g} pJ per cycle",
        score=found.score,
        bound=bound,
        energy_pj=found.energy_pj,
        cycles=found.cycles,
        evaluated=queue.evaluated,
        spatial_choices=len(queue.choices),
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
