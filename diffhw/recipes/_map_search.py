"""Search for the mappings of many layers at once: gradient and refinement, and its rivals.

All layers are searched side by side: each is a host-side generator that asks for the cost of genomes, and
all they ask for is costed in one compiled batch. The gradient phase runs layers x restarts as one array.
An evaluation is a genome costed, fit or unfit; none is costed twice; a gradient counts as often as it
takes longer. The exact mapper (`best_mapping`) says how far from the optimum a search ends.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from diffhw.hardware import Hierarchy
from diffhw.mappings import LoopNest
from diffhw.recipes._map_archive import CHUNK, SMALL, UNFIT, Archive, Coster, Search, log_score
from diffhw.recipes._map_descent import Descent
from diffhw.recipes._map_space import Genomes
from diffhw.workloads import Layer, Network

__all__ = ["MappingSearch", "search_mappings"]

METHODS = ("gradient", "local", "evolution", "random")
OBJECTIVES = ("edp", "energy", "latency")
FINAL = 8
"""Best genomes of a layer that are costed again in float64, in which the winner is chosen."""
_DESCENT = 0.6  # largest share of the budget for the first descents


@dataclass(frozen=True)
class MappingSearch:
    """The best mapping found of each layer.

    nests: one per layer.  scores: (layers,) float64: pJ, cycles or pJ x cycles.
    energy_pj, cycles: (layers,) float64.
    feasible: (layers,) False where nothing that fits was found (then the nest is the least unfit one).
    evaluations: (layers,) mappings costed, a gradient as ``gradient_cost`` of them.
    history: per layer, (evaluations, best score) at every improvement, float32.
    seconds: wall time, of which ``compile_seconds`` went into compiling and timing.
    """

    layers: tuple[Layer, ...]
    hierarchy: Hierarchy
    objective: str
    method: str
    nests: tuple[LoopNest, ...]
    scores: np.ndarray
    energy_pj: np.ndarray
    cycles: np.ndarray
    feasible: np.ndarray
    evaluations: np.ndarray
    gradient_cost: float
    history: tuple[tuple[tuple[float, float], ...], ...]
    seconds: float
    compile_seconds: float


# Strategies of one layer -----------------------------------------------------------------------


def _descend(archive: Archive, starts: np.ndarray, around: Callable) -> Search:
    """From every start to the best of its surroundings, until none is better; the ends, best first."""
    here, score = yield from archive.ask(starts)
    moving = np.ones(len(here), bool)
    while True:
        _, first = np.unique(archive.keys(here), return_index=True)  # runs that meet go on as one
        here, score, moving = here[first], score[first], moving[first]
        if not moving.any() or not archive.left:
            break
        who = np.flatnonzero(moving)
        # One more column says whose surroundings a genome belongs to; moves leave it alone.
        tagged = around(np.column_stack([here[who], who]))
        tagged = tagged[np.argsort(tagged[:, -1], kind="stable")]
        found, scores = yield from archive.ask(tagged[:, :-1].copy())
        ends = np.searchsorted(tagged[:, -1], who, side="right")
        for w, begin, end in zip(who, [0, *ends[:-1]], ends, strict=True):
            best = begin + int(np.argmin(scores[begin:end])) if end > begin else -1
            moving[w] = best >= 0 and scores[best] < score[w] - 1e-9
            if moving[w]:
                here[w], score[w] = found[best], scores[best]
    return here[np.argsort(score, kind="stable")]


def _refine(archive: Archive, starts: np.ndarray, deep: int) -> Search:
    """Wider and wider surroundings: one move; a move with its orders; exchanges.

    Then, around the ``deep`` best, spatial factors and all pairs of moves.
    """
    moves = archive.moves
    if not len(moves.primes):
        yield from archive.ask(starts)
        return
    ends = yield from _descend(archive, starts, moves.steps)
    ends = yield from _descend(archive, ends, moves.ordered_steps)
    near = lambda some: np.concatenate([moves.ordered_steps(some), moves.exchanges(some)])
    yield from _descend(archive, ends, near)
    wide = lambda some: np.concatenate([near(some), moves.respread(some), moves.pairs(some)])
    yield from _descend(archive, archive.best(deep).copy(), wide)


def _local(archive: Archive, rng: np.random.Generator, restarts: int, deep: int) -> Search:
    """The same refinement from random starts, again and again."""
    while archive.left:
        before = archive.spent
        yield from _refine(archive, archive.moves.random(rng, restarts), deep)
        if archive.spent == before:
            return


def _random(archive: Archive, rng: np.random.Generator) -> Search:
    idle = 0
    while archive.left and idle < 20:
        before = archive.spent
        yield from archive.ask(archive.moves.random(rng, 2000))
        idle = idle + 1 if archive.spent - before < 20 else 0


def _evolution(archive: Archive, rng: np.random.Generator, population: int = 500) -> Search:
    """GAMMA's generations: elite 5 %, parents the best 40 %; see `Moves.children`.

    A population that has bred 20 generations without a better mapping starts anew from random ones.
    """
    while archive.left:
        begin, stale, least = archive.spent, 0, np.inf
        genomes, scores = yield from archive.ask(archive.moves.random(rng, population))
        while archive.left and stale < 20:
            order = np.argsort(scores, kind="stable")
            elite, parents = order[: population // 20], order[: int(0.4 * population)]
            children = archive.moves.children(rng, genomes[parents], population - len(elite))
            children, found = yield from archive.ask(children)
            genomes = np.concatenate([genomes[elite], children])
            scores = np.concatenate([scores[elite], found])
            stale, least = (0, scores.min()) if scores.min() < least else (stale + 1, least)
        if archive.spent - begin < population // 20:
            return


def _drive(archives: list[Archive], searches: list[Search], coster: Coster, progress) -> None:
    """All layers side by side: what they ask for is costed in one batch."""
    waiting = {}

    def send(i: int, answer) -> None:
        try:
            waiting[i] = searches[i].send(answer)
        except StopIteration:
            waiting.pop(i, None)

    for i in range(len(searches)):
        send(i, None)
    while waiting:
        asked = dict(waiting)
        rows = np.concatenate([np.full(len(genomes), i) for i, genomes in asked.items()])
        scores = coster(rows, np.concatenate(list(asked.values())))
        ends = np.cumsum([len(genomes) for genomes in asked.values()])
        for i, part in zip(asked, np.split(scores, ends[:-1]), strict=True):
            send(i, part)
        if progress is not None:
            progress(sum(a.spent for a in archives), sum(a.budget for a in archives))


# The gradient phase -----------------------------------------------------------------------------


def _measured_cost(descent: Descent, coster: Coster, starts: np.ndarray, state) -> float:
    """How many times longer a step of all runs takes than costing as many genomes."""
    rows = np.repeat(np.arange(len(starts)), starts.shape[1])
    genomes = starts.reshape(-1, starts.shape[-1])
    copies = -(-CHUNK // len(rows))
    rows, genomes = np.tile(rows, copies), np.tile(genomes, (copies, 1))
    times: dict[str, list[float]] = {"gradient": [], "value": []}
    for _ in range(6):
        begin = time.perf_counter()
        jax.block_until_ready(descent.step(state, 0))
        times["gradient"].append((time.perf_counter() - begin) / (starts.shape[0] * starts.shape[1]))
        begin = time.perf_counter()
        coster.figures(rows, genomes)
        times["value"].append((time.perf_counter() - begin) / len(rows))
    gradient, value = (float(np.median(times[kind][1:])) for kind in ("gradient", "value"))
    return max(1.0, gradient / value)


def _starts(archives: list[Archive], rngs, restarts: int) -> np.ndarray:
    return np.stack([a.moves.random(rng, restarts) for a, rng in zip(archives, rngs, strict=True)])


def _descents(archives, descent: Descent, starts, rng, cost: float, progress) -> list[np.ndarray]:
    """Every layer's runs; returns the starts of its refinement."""
    state, path = descent.state(starts, rng), []
    for i in range(descent.steps):
        state, found = descent.step(state, i)
        path.append(found)
        if i % 10 == 9:
            jax.block_until_ready(state)
            if progress is not None:
                progress(
                    sum(a.spent for a in archives) + (i + 1) * starts.shape[1] * cost * len(archives),
                    sum(a.budget for a in archives),
                )
    genomes, energy, cycles, violation = (
        np.stack([np.asarray(leaf) for leaf in part]) for part in zip(*path)
    )
    scores = log_score(descent.objective, energy, cycles, violation)
    ends = []
    for i, archive in enumerate(archives):
        archive.spent += descent.steps * starts.shape[1] * cost
        ends.append(archive.record_path(genomes[:, i], scores[:, i]))
    return ends


def search_mappings(
    layers: Sequence[Layer] | Network,
    hierarchy: Hierarchy,
    seed: int = 0,
    *,
    objective: str = "edp",
    method: str = "gradient",
    budget: int = 100_000,
    keeps: tuple[str, ...] | None = None,
    restarts: int = 32,
    steps: int = 60,
    rounds: int = 3,
    deep: int = 8,
    gradient_cost: float | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> MappingSearch:
    """The best mappings of many layers that a search finds, perfect factors, on one hierarchy.

    layers: concrete layers, or the rows of a network.  objective: "edp", "energy" or "latency".
    method: "gradient" (descent through snapped factors and orders, then refinement), "local" (the same
        refinement from random starts), "evolution" (GAMMA's operators) or "random".
    budget: most evaluations per layer; a gradient counts as ``gradient_cost`` (default: measured).
    keeps: tensors kept per level, innermost first; default: the hierarchy's own.
    restarts, steps: descents per layer and round, and their length; fewer restarts where the budget asks
        for it.  rounds: of descent and refinement, the later ones from new starts and only while the budget
        of every layer holds one.  deep: ends refined to the last.
    progress: called with evaluations spent and in all.
    For a proof of how good the result is, see `best_mapping`. Raises ValueError for an unknown objective or
    method, a budget too small for one round, or loops that are no whole numbers.

    >>> from diffhw import hardware, workloads
    >>> gemm = workloads.Layer.gemm(4, 4, 4)
    >>> found = search_mappings([gemm], hardware.hierarchy("gemmini"), method="random", budget=500)
    >>> bool(found.feasible[0]), bool(found.evaluations[0] <= 500)
    (True, True)
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if budget <= 2 * FINAL:
        raise ValueError(f"budget must be more than {2 * FINAL} evaluations, got {budget}")
    begin = time.perf_counter()
    hierarchy = hierarchy if keeps is None else hierarchy.keeping(keeps)
    rows = layers.rows() if isinstance(layers, Network) else list(layers)
    if not rows:
        raise ValueError("search_mappings needs at least one layer, got none")
    space = Genomes(rows, hierarchy)
    coster = Coster(space, objective)
    archives = [Archive(space, i, budget - FINAL) for i in range(len(rows))]
    rngs = [np.random.default_rng([seed, i]) for i in range(len(rows))]
    for n in (SMALL, CHUNK):
        coster.figures(np.zeros(n, int), np.ones((n, space.layout.width), int))
    compiling, cost = time.perf_counter() - begin, 1.0
    if method == "gradient":
        descent, rng = Descent(space, objective, steps), np.random.default_rng([seed, len(rows)])
        starts = _starts(archives, rngs, restarts)
        watch = time.perf_counter()
        state = descent.state(starts, rng)
        if gradient_cost is None:
            jax.block_until_ready(descent.step(state, 0))
            cost = _measured_cost(descent, coster, starts, state)
        else:
            cost = gradient_cost
        # At most this share of the budget goes into the first descents.
        fits = int(_DESCENT * (budget - FINAL) / (steps * cost))
        if fits < 1:
            raise ValueError(
                f"budget must hold a descent of {steps} steps at {cost:.3g} evaluations per gradient in"
                f" {_DESCENT:.0%} of it, got {budget}: raise it to {steps * cost / _DESCENT + FINAL:.0f} or"
                " lower steps"
            )
        starts = starts[:, : min(restarts, fits)]
        state = jax.tree.map(lambda leaf: leaf[:, : starts.shape[1]], state)
        jax.block_until_ready(descent.step(state, 0))  # compiled for as many runs as there will be
        compiling += time.perf_counter() - watch
        price = starts.shape[1] * steps * cost
        for _ in range(rounds):
            # All layers take part in a round, so the poorest decides.
            if min(a.left for a in archives) < price:
                break
            ends = _descents(archives, descent, starts, rng, cost, progress)
            searches = [_refine(a, end, deep) for a, end in zip(archives, ends, strict=True)]
            _drive(archives, searches, coster, progress)
            starts = _starts(archives, rngs, starts.shape[1])
    else:
        make = {
            "local": lambda a, r: _local(a, r, restarts, deep),
            "evolution": _evolution,
            "random": _random,
        }[method]
        searches = [make(a, r) for a, r in zip(archives, rngs, strict=True)]
        _drive(archives, searches, coster, progress)
    return _finish(archives, coster, objective, method, cost, begin, compiling)


def _finish(archives, coster: Coster, objective, method, cost, begin, compiling) -> MappingSearch:
    space = coster.space
    best = [archive.best(FINAL) for archive in archives]
    filled = np.stack([np.concatenate([b, np.repeat(b[:1], FINAL - len(b), axis=0)]) for b in best])
    rows = np.repeat(np.arange(len(best)), FINAL)
    energy, cycles, violation = coster.exactly(rows, filled.reshape(-1, space.layout.width))
    shape = (len(best), FINAL)
    score = log_score(objective, energy, cycles, violation).reshape(shape)
    chosen = score.argmin(axis=1)
    take = lambda values: values.reshape(shape)[np.arange(len(best)), chosen]
    energy, cycles, feasible = take(energy), take(cycles), take(violation) <= 1e-6
    value = {"edp": energy * cycles, "energy": energy, "latency": cycles}[objective]
    return MappingSearch(
        layers=tuple(space.layers),
        hierarchy=space.hierarchy,
        objective=objective,
        method=method,
        nests=tuple(space.to_nest(i, filled[i, j]) for i, j in enumerate(chosen)),
        scores=np.where(feasible, value, np.inf),
        energy_pj=energy,
        cycles=cycles,
        feasible=feasible,
        evaluations=np.array([a.spent + len(b) for a, b in zip(archives, best, strict=True)]),
        gradient_cost=cost,
        history=tuple(
            tuple((spent, math.exp(score)) for spent, score in a.history if score < UNFIT) for a in archives
        ),
        seconds=time.perf_counter() - begin,
        compile_seconds=compiling,
    )
