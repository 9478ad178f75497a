"""DOSA: hardware and mappings of a whole network together, by gradient (Hong et al., MICRO 2023).

Here on `models.loopnest`, with what a first look at the published program taught: logarithms of the
factors as variables (a linear factor hardly moves from one divisor to the next), snapping to divisors in
every step, the orders of all levels relaxed, many starts at once, and hardware that follows the mappings
(side, KiB) with gradients through the maxima. The best end is then refined: with its hardware as a limit
every layer gets its best mapping from the exact search, the hardware shrinks to what they need, and so on.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.hardware import Hierarchy, gemmini
from diffhw.mappings import LoopNest
from diffhw.models import Cost, loopnest
from diffhw.recipes._dosa_descent import compiled_descent, dosa_starts, parameters
from diffhw.recipes._dosa_refine import Refiner, area_of, derived_sizes, levels_of, refine_design, scan_limits
from diffhw.recipes._dosa_space import Problem
from diffhw.workloads import Network

__all__ = ["GRADIENT_COST", "DosaResult", "dosa"]

GRADIENT_COST = 3.0
"""Samples that a value with its gradient counts, unless measured otherwise."""


@dataclass(frozen=True)
class DosaResult:
    """Hardware and mappings of a network.

    sizes: (side, accumulator KiB, scratchpad KiB).  nests: one per distinct layer.
    energy_pj, cycles: of the network, float64.  samples: network evaluations spent, a gradient at
    ``GRADIENT_COST``; refinement counts its layer evaluations over the number of layers.
    history: (samples, best EDP so far in uJ x cycles).  starts, ends: hardware before and after descent,
    (restarts, 3).  bound: proven lower bound of the EDP in uJ x cycles, or None.
    """

    network: Network
    sizes: tuple[float, float, float]
    nests: tuple[LoopNest, ...]
    energy_pj: float
    cycles: float
    samples: float
    seconds: float
    history: tuple[tuple[float, float], ...]
    starts: np.ndarray
    ends: np.ndarray
    bound: float | None = None

    @property
    def area_mm2(self) -> float:
        """Of the hardware; see `gemmini_area_mm2`."""
        return area_of(self.sizes)

    @property
    def edp(self) -> float:
        """Microjoule x cycles, the unit of DOSA's comparison."""
        return self.energy_pj * 1e-6 * self.cycles

    @property
    def hierarchy(self) -> Hierarchy:
        """The hardware."""
        return gemmini(*self.sizes)

    @cached_property
    def cost(self) -> Cost:
        """`models.loopnest` of the network, float64, numpy leaves, per-layer costs kept."""
        return _cost(self.network, self.sizes, self.nests)


def _cost(network: Network, sizes, nests) -> Cost:
    size = network.mask.shape[0]
    filled = [*nests, *[nests[0]] * (size - len(nests))]
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)
        stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *filled)
        chip = gemmini(*(jnp.float64(v) for v in sizes))
        return jax.tree.map(np.asarray, _network_cost(double(network), chip, double(stacked)))


@jax.jit
def _network_cost(network, chip, nests) -> Cost:
    return loopnest(network, chip, nests)


def dosa(
    network: Network,
    seed: int = 0,
    *,
    samples: float = 10_500,
    restarts: int = 32,
    steps: int | None = None,
    rate: float = 0.3,
    refine: float = 0.5,
    gradient_cost: float = GRADIENT_COST,
    area_mm2: float = math.inf,
    seconds: float = 45.0,
    progress: Callable[[float, float], None] | None = None,
) -> DosaResult:
    """Gemmini's hardware and the mappings of a network for the least EDP, within a budget of samples.

    samples: network evaluations to spend.  restarts: starts descending side by side.  steps: of descent;
    default: what the budget leaves.  rate: of Adam, in logarithms of factors.  refine: share of the
    budget for the exact remapping.  gradient_cost: samples that a value with gradient counts.
    area_mm2: budget (`gemmini_area_mm2`: 40 nm, ours); inf leaves the hardware to the mappings, as DOSA does.
    seconds: most that refinement may take; where it ends before the samples, results differ by machine.
    progress: called with samples spent and the best EDP (uJ x cycles).
    Hardware follows the mappings as in DOSA (array square, whole KiB, no limit but side <= 128).
    """
    begin = time.perf_counter()
    if samples < 20 * gradient_cost:
        raise ValueError(f"samples must be at least {20 * gradient_cost:g}, got {samples:g}")
    budget = samples * (1 - refine) / gradient_cost
    restarts = max(1, min(restarts, int(budget // 20)))
    steps = int(budget // restarts) if steps is None else steps
    rng = np.random.default_rng(seed)
    problem = Problem.of(network)
    hardware, plans = dosa_starts(problem, rng, restarts)
    arrays = (problem.layers, problem.counts, problem.extents, problem.divisors)
    best, losses = compiled_descent()(
        arrays, parameters(plans, rng, len(network.mask)), jnp.asarray(min(area_mm2, 1e9), float), steps, rate
    )
    best, losses = jax.tree.map(np.asarray, (best, losses))
    loss, (_, _, sizes, found) = best
    spent = restarts * steps * gradient_cost
    every = max(1, steps // 50)
    history = [
        (restarts * (i + 1) * gradient_cost, float(np.exp(float(v)) * 1e-6))
        for i, v in enumerate(losses)
        if i % every == every - 1
    ]
    if progress is not None:
        progress(spent, history[-1][1])
    ends = np.stack(
        [np.asarray(sizes.side), np.asarray(sizes.accumulator_kb), np.asarray(sizes.scratchpad_kb)], 1
    )
    refiner = Refiner(problem, area_mm2, samples - spent)
    extents = np.asarray(problem.extents)

    def note(more, edp):
        history.append((spent + more, min(edp, history[-1][1])))
        if progress is not None:
            progress(spent + more, edp)

    # The best ends with different hardware are refined a little, the best of them to the end.
    order, chosen, seen = np.argsort(loss), [], set()
    for i in order:
        key = tuple(np.round(np.log2(ends[i]) * 2))
        if key not in seen:
            seen.add(key)
            chosen.append(int(i))
        if len(chosen) == 2:
            break
    room = samples - spent
    deadline = time.perf_counter() + seconds
    left = lambda: max(0.0, deadline - time.perf_counter())
    designs = []
    for i in chosen:
        plan = jax.tree.map(lambda leaf, i=i: leaf[i], found)
        levels = [levels_of(plan, extents, layer) for layer in range(len(problem.rows))]
        design = refiner.price(derived_sizes(levels, problem.rows), levels)
        designs.append(design)
    designs.sort(key=refiner.rank)
    best_design = designs[0]
    if refine > 0:
        first = []
        for design in designs:
            # What a remapping costs is known after the first.
            if not first or refiner.samples + 1.25 * refiner.dearest < room:
                first.append(refiner.remap(design, design.sizes))
        best_design = min([*designs, *first], key=refiner.rank)
        note(refiner.samples, best_design.edp)
        for _ in range(3):
            before = best_design
            for limits in scan_limits(refiner, best_design, min(seconds / 4, left()), keep=2):
                if refiner.samples + 1.25 * refiner.dearest < room and left():
                    best_design = min(best_design, refiner.remap(best_design, limits), key=refiner.rank)
                    note(refiner.samples, best_design.edp)
            if best_design is before:
                break
        best_design = refine_design(refiner, best_design, room, left(), rng, note)
    if area_of(best_design.sizes) > area_mm2:
        raise ValueError(
            f"no design of at most {area_mm2:g} mm2 was found, the smallest takes"
            f" {area_of(best_design.sizes):.3g} mm2:"
            " raise area_mm2 or samples"
        )
    nests = tuple(
        LoopNest.create(one, gemmini(*best_design.sizes), row)
        for (one, _, _), row in zip(best_design.layers, problem.rows, strict=True)
    )
    energy, cycles = best_design.totals
    return DosaResult(
        network=network,
        sizes=best_design.sizes,
        nests=nests,
        energy_pj=energy,
        cycles=cycles,
        samples=spent + refiner.samples,
        seconds=time.perf_counter() - begin,
        history=tuple(history),
        starts=hardware,
        ends=ends,
    )
