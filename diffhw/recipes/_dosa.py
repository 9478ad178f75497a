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
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from diffhw.hardware import Hierarchy, gemmini
from diffhw.mappings import LOOPS, ORDERS, LoopNest
from diffhw.models import Cost, loopnest
from diffhw.recipes._dosa_space import (
    AT,
    MAX_SIDE,
    PLACES,
    STREAMED,
    Plan,
    Problem,
    network_energy_cycles,
    outermost,
    random_plans,
    random_sizes,
    sizes_of,
)
from diffhw.recipes._map import BEAM, _product_bound, _Queue
from diffhw.workloads import Network

__all__ = ["DosaResult", "dosa", "dosa_bound", "dosa_starts"]

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


# Relaxed variables --------------------------------------------------------------------------


def _snap(table, rest, target, limit):
    """The divisor nearest in logarithm among those of ``table`` that divide ``rest`` and obey the limit."""
    safe = jnp.maximum(table, 1.0)
    quotient = rest[..., None] / safe
    legal = (
        (table > 0)
        & (table <= limit[..., None])
        & (jnp.abs(jnp.round(quotient) * safe - rest[..., None]) < 0.5)
    )
    distance = jnp.where(legal, jnp.abs(jnp.log(safe) - target[..., None]), jnp.inf)
    return jnp.take_along_axis(table, jnp.argmin(distance, -1)[..., None], -1)[..., 0]


def _decode(theta, table, extents, temperature) -> Plan:
    """A legal plan of one layer; straight-through gradients in logarithms."""
    through = lambda hard, log: hard * jnp.exp(log - lax.stop_gradient(log))
    free = jnp.full(len(LOOPS), 1e9)
    c, k = AT["c"], AT["k"]
    streams = _snap(table, extents, theta["t0"], jnp.where(STREAMED, 1e9, 1.0))
    rest = extents / streams
    c_space = _snap(table[c], rest[c], theta["c_space"], jnp.asarray(float(MAX_SIDE)))
    k_space = _snap(table[k], rest[k], theta["k_space"], jnp.asarray(float(MAX_SIDE)))
    rest = rest.at[c].divide(c_space).at[k].divide(k_space)
    first = _snap(table, rest, theta["t1"], free)
    second = _snap(table, rest / first, theta["t2"], free)
    soft = jax.nn.softmax(theta["order"] / temperature, axis=-1)
    hot = jax.nn.one_hot(jnp.argmax(soft, -1), len(ORDERS), dtype=soft.dtype)
    weights = hot + soft - lax.stop_gradient(soft)
    places = jnp.concatenate([jnp.asarray(PLACES[:1], soft.dtype), weights @ jnp.asarray(PLACES, soft.dtype)])
    return Plan(
        time=jnp.stack(
            [
                jnp.where(STREAMED, through(streams, theta["t0"]), 1.0),
                through(first, theta["t1"]),
                through(second, theta["t2"]),
            ]
        ),
        c_space=through(c_space, theta["c_space"]),
        k_space=through(k_space, theta["k_space"]),
        places=places,
    )


def _loss(theta, arrays, temperature):
    layers, counts, extents, table = arrays
    plans = jax.vmap(_decode, in_axes=(0, 0, 0, None))(theta, table, extents, temperature)
    sizes = sizes_of(plans, layers)
    problem = Problem(layers, counts, extents, table, ())
    energy, cycles = network_energy_cycles(problem, plans, sizes)
    return jnp.log(energy) + jnp.log(cycles), (energy, cycles, sizes, plans)


def _descend(arrays, theta, steps: int, rate: float):
    """Adam from every start at once; the best plans of each, and the best loss per step."""
    schedule = optax.cosine_decay_schedule(rate, steps, 0.05)
    optimiser = optax.adam(schedule)
    slope = jax.vmap(jax.value_and_grad(_loss, has_aux=True), in_axes=(0, None, None))
    limit = {name: jnp.log(arrays[2]) for name in ("t0", "t1", "t2")}
    limit |= {f"{d}_space": jnp.minimum(jnp.log(arrays[2][:, AT[d]]), math.log(MAX_SIDE)) for d in "ck"}

    def step(carry, i):
        theta, state, best = carry
        (loss, found), gradient = slope(theta, arrays, 0.1 ** (i / steps))
        gradient = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), gradient)
        better = loss < best[0]
        pick = lambda old, new: jnp.where(better.reshape(-1, *(1 for _ in new.shape[1:])), new, old)
        best = jax.tree.map(pick, best, (loss, found))
        update, state = optimiser.update(gradient, state)
        theta = optax.apply_updates(theta, update)
        theta |= {name: jnp.clip(theta[name], 0.0, top) for name, top in limit.items()}
        return (theta, state, best), best[0].min()

    shapes = jax.eval_shape(lambda t: jax.vmap(lambda one: _loss(one, arrays, 1.0))(t), theta)
    worst = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.inf, leaf.dtype), shapes)
    (_, _, best), history = lax.scan(
        step, (theta, optimiser.init(theta), worst), jnp.arange(steps, dtype=float)
    )
    return best, history


# The expensive passes of LLVM make the program no faster and its compilation twice as long.
_descend_jit = jax.jit(
    _descend, static_argnums=(2, 3), compiler_options={"xla_llvm_disable_expensive_passes": True}
)


def dosa_starts(problem: Problem, rng: np.random.Generator, n: int) -> tuple[np.ndarray, list[list[Plan]]]:
    """``n`` random hardware sizes (n, 3) and, for each, one random mapping per layer that fits it.

    DOSA's ranges (side 2 to 128, buffers 1 to 2048 KiB); its starts came from a commercial solver.
    """
    hardware, plans = random_sizes(rng, n), []
    for i in range(n):
        while True:
            found = [random_plans(rng, row, hardware[i], 1) for row in problem.rows]
            if all(plan is not None for plan in found):
                break
            hardware[i] = random_sizes(rng, 1)[0]
        plans.append(found)
    return hardware, plans


def _parameters(plans: list[list[Plan]], rng: np.random.Generator):
    """Unconstrained variables of starts, leaves (restarts, layers, ...)."""
    stack = lambda leaf_of: np.log(np.array([[leaf_of(plan) for plan in row] for row in plans]))
    theta = {f"t{m}": stack(lambda plan, m=m: plan.time[0, m]) for m in range(3)}
    theta |= {"c_space": stack(lambda plan: plan.c_space[0]), "k_space": stack(lambda plan: plan.k_space[0])}
    theta["order"] = 0.5 * rng.normal(size=(len(plans), len(plans[0]), 3, len(ORDERS)))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), theta)


# Refinement ---------------------------------------------------------------------------------


@dataclass
class _Design:
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


def _levels_of(plan: Plan, extents: np.ndarray, layer: int) -> list[dict]:
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


def _derived(levels: list[list[dict]], rows) -> tuple[float, float, float]:
    """Sizes that nests ask for."""
    outputs, scratch, side = (max(column) for column in zip(*map(_needs_of, levels, rows), strict=True))
    side = max(side, 2.0)
    return side, float(math.ceil(side * outputs * 4 / 1024 - 1e-9)), float(math.ceil(scratch / 1024 - 1e-9))


def _spatial_near(levels: list[dict], row, side: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """The nest's spatial factors and those one prime away, as pairs for the exact search."""
    found = []
    c0, k0 = levels[1].get("y", {}).get("c", 1), levels[2].get("x", {}).get("k", 1)
    steps = (0.5, 1, 2, 1 / 3, 3)
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


class _Refiner:
    """Exact mappings of every layer within a hardware's limits, counted."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.counts = np.asarray(problem.counts, float)
        self.evaluated = 0

    def price(self, sizes, levels: list[list[dict]]) -> _Design:
        """Exact cost of given nests on given hardware."""
        chip, layers = gemmini(*sizes), []
        for row, one in zip(self.problem.rows, levels, strict=True):
            x, y = np.ones((4, len(LOOPS)), int), np.ones((4, len(LOOPS)), int)
            y[1, AT["c"]] = one[1].get("y", {}).get("c", 1)
            x[2, AT["k"]] = one[2].get("x", {}).get("k", 1)
            queue = _Queue(row, chip, choices=[(x, y)])
            energy, cycles = queue.searcher(0).price(one)
            layers.append((one, energy, cycles))
        self.evaluated += len(layers)
        return _Design(tuple(sizes), layers, self.counts)

    def remap(self, design: _Design, sizes, room: int = BEAM) -> _Design:
        """Every layer's best mapping at the network's price of a cycle, within ``sizes``; hardware shrunk."""
        energy, cycles = design.totals
        chip, levels = gemmini(*sizes), []
        for row, (one, _, _) in zip(self.problem.rows, design.layers, strict=True):
            queue = _Queue(row, chip, choices=_spatial_near(one, row, sizes[0]))
            found, choice, _ = queue.solve(energy / cycles, room, math.inf, wide=False)
            self.evaluated += queue.evaluated
            levels.append(one if found is None else queue.levels(found, choice))
        return self.price(_derived(levels, self.problem.rows), levels)


def _refine(refiner: _Refiner, design: _Design, samples: float, note: Callable) -> _Design:
    """Remapping, and moves of the hardware's limits, as long as samples last."""
    spent = lambda: refiner.evaluated / len(refiner.problem.rows)
    best = design
    limits = design.sizes
    scale = [1.0, 1.0, 1.0]
    moves = [(1.0, 1.0, 1.0)]
    tried = set()
    while moves and spent() < samples:
        scale = moves.pop(0)
        limits = tuple(max(1.0, math.ceil(v * s)) for v, s in zip(best.sizes, scale, strict=True))
        limits = (min(float(MAX_SIDE), max(2.0, limits[0])), *limits[1:])
        if limits in tried:
            continue
        tried.add(limits)
        found = refiner.remap(best, limits)
        if found.edp < best.edp * (1 - 1e-9):
            best = found
            note(spent(), best.edp)
            moves = [(1.0, 1.0, 1.0)]
        if not moves:
            grid = (0.5, 0.75, 0.9, 1.1, 1.35, 2.0)
            moves = [(1.0, s, 1.0) for s in grid] + [(1.0, 1.0, s) for s in grid]
            moves += [(2.0, 2.0, 1.0), (0.5, 0.5, 1.0), (1.0, 0.7, 1.4), (1.0, 1.4, 0.7)]
            sized = [
                tuple(max(1.0, math.ceil(v * s)) for v, s in zip(best.sizes, m, strict=True)) for m in moves
            ]
            moves = [m for m, size in zip(moves, sized, strict=True) if size not in tried]
    return best


# The recipe ---------------------------------------------------------------------------------


def dosa(
    network: Network,
    seed: int = 0,
    *,
    samples: float = 10_500,
    restarts: int = 32,
    steps: int | None = None,
    rate: float = 0.3,
    refine: float = 0.3,
    gradient_cost: float = GRADIENT_COST,
    progress: Callable[[float, float], None] | None = None,
) -> DosaResult:
    """Gemmini's hardware and the mappings of a network for the least EDP, within a budget of samples.

    samples: network evaluations to spend.  restarts: starts descending side by side.  steps: of descent;
    default: what the budget leaves.  rate: of Adam, in logarithms of factors.  refine: share of the
    budget for the exact remapping.  gradient_cost: samples that a value with gradient counts.
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
    best, losses = _descend_jit(arrays, _parameters(plans, rng), steps, rate)
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
    refiner = _Refiner(problem)
    extents = np.asarray(problem.extents)

    def note(more, edp):
        history.append((spent + more, edp))
        if progress is not None:
            progress(spent + more, edp)

    # The best ends with different hardware are refined a little, the best of them to the end.
    order, chosen, seen = np.argsort(loss), [], set()
    for i in order:
        key = tuple(np.round(np.log2(ends[i]) * 2))
        if key not in seen:
            seen.add(key)
            chosen.append(int(i))
        if len(chosen) == 3:
            break
    room = samples - spent
    designs = []
    for i in chosen:
        plan = jax.tree.map(lambda leaf, i=i: leaf[i], found)
        levels = [_levels_of(plan, extents, layer) for layer in range(len(problem.rows))]
        design = refiner.price(_derived(levels, problem.rows), levels)
        designs.append(design)
    designs.sort(key=lambda one: one.edp)
    best_design = designs[0]
    if refine > 0:
        first = []
        for design in designs:
            if refiner.evaluated / len(problem.rows) < room:
                first.append(refiner.remap(design, design.sizes))
        best_design = min([*designs, *first], key=lambda one: one.edp)
        note(refiner.evaluated / len(problem.rows), best_design.edp)
        best_design = _refine(refiner, best_design, room, note)
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
        samples=spent + refiner.evaluated / len(problem.rows),
        seconds=time.perf_counter() - begin,
        history=tuple(history),
        starts=hardware,
        ends=ends,
    )


def dosa_bound(network: Network, edp: float, *, seconds: float = 30.0) -> tuple[float, str]:
    """A proven lower bound of the EDP (uJ x cycles) over all hardware and mappings, and what makes it loose.

    Branch and bound on (accumulator words, scratchpad KiB): within a box every capacity is that of its
    upper corner and every price that of its lower corner; the side is 128, which only widens the choice.
    edp: of the best design known; boxes that cannot beat it are closed.
    """
    begin = time.perf_counter()
    problem = Problem.of(network)
    counts = np.asarray(problem.counts, float)
    most_words = float(max(math.prod(float(getattr(row, d)) for d in "nkpq") for row in problem.rows))
    most_kb = float(
        max(math.ceil(float(row.weight_words + row.n * row.c * _window(row)) / 1024) for row in problem.rows)
    )

    def floor(box) -> float:
        (w0, w1), (k0, k1) = box
        cheap = gemmini(MAX_SIDE, w0 * MAX_SIDE / 256, k0)
        roomy = gemmini(MAX_SIDE, w1 * MAX_SIDE / 256, k1)
        levels = tuple(
            replace(a, capacity_bits=b.capacity_bits) for a, b in zip(cheap.levels, roomy.levels, strict=True)
        )
        chip = replace(cheap, levels=levels)
        queues = [_Queue(row, chip) for row in problem.rows]
        least = {
            goal: sum(c * q.floor(goal) for c, q in zip(counts, queues, strict=True))
            for goal in ("energy", "latency")
        }
        price = least["energy"] / least["latency"]
        both = sum(c * q.floor(price) for c, q in zip(counts, queues, strict=True))
        return _product_bound([(price, both)], least["energy"], least["latency"]) * 1e-6

    boxes = [(floor(((1.0, most_words), (1.0, most_kb))), ((1.0, most_words), (1.0, most_kb)))]
    while time.perf_counter() - begin < seconds:
        boxes.sort(key=lambda one: one[0])
        bound, (words, kb) = boxes[0]
        if bound >= edp * (1 - 1e-6):
            return edp, "nothing: the best design is proven"
        boxes.pop(0)
        wide = words[1] / words[0] > kb[1] / kb[0]
        low, high = words if wide else kb
        if high - low < 1:
            boxes.append((bound, (words, kb)))
            break
        cut = math.floor(math.sqrt(low * high))
        parts = [(low, max(cut, low)), (cut + 1.0, high)]
        for part in parts:
            if part[0] > part[1]:
                continue
            box = (part, kb) if wide else (words, part)
            boxes.append((max(bound, floor(box)), box))
    bound, (words, kb) = min(boxes, key=lambda one: one[0])
    return min(bound, edp), (
        f"accumulators of {words[0]:g} to {words[1]:g} words with scratchpads of {kb[0]:g} to {kb[1]:g} KiB"
        " are bounded together, with the capacity of the largest and the energy of the smallest"
    )


def _window(row):
    return ((row.p - 1) * row.stride_h + (row.r - 1) * row.dilation_h + 1) * (
        (row.q - 1) * row.stride_w + (row.s - 1) * row.dilation_w + 1
    )
