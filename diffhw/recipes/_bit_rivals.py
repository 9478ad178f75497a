"""Searches of bit widths without a generator: uniform, random, evolution, local search, and what is known.

All evaluate through the problem, whose ledger counts, and return a `BitSearch`. A wish is a ``target``
accuracy to come near, a ``budget`` that is hard on ``metric``, or both; without a target the highest
accuracy is sought.
"""

import time

import numpy as np

from diffhw.recipes._bit_problem import BitProblem
from diffhw.recipes._bit_search import BitSearch, BitWish, Tries, fitted

__all__ = [
    "best_of_random",
    "evolve_bits",
    "local_bits",
    "nearest_known",
    "random_bits",
    "uniform_bits",
]

_POPULATION = 40
_MOVES = 8  # configurations that one step of a local search evaluates together
_STALE = 60  # steps without anything new after which a search gives up


def uniform_bits(
    problem: BitProblem,
    *,
    target: float | None = None,
    budget: float | None = None,
    metric: str = "bytes",
) -> BitSearch:
    """All layers at 1 bit, all at 2, ... up to ``max_bits``; those over the budget are not evaluated."""
    wish = BitWish(target, budget, metric)
    tries = Tries(problem, wish, problem.max_bits, "uniform")
    designs = _uniform(problem)
    tries(designs[wish.fits(problem.cost(metric, designs))])
    return tries.result()


def random_bits(
    problem: BitProblem,
    *,
    target: float | None = None,
    budget: float | None = None,
    metric: str = "bytes",
    evaluations: int = 1000,
    seed: int = 0,
) -> BitSearch:
    """Random configurations; what is over the budget loses bits of random layers until it fits."""
    wish = BitWish(target, budget, metric)
    tries = Tries(problem, wish, evaluations, "random")
    rng = np.random.default_rng([seed, 11])
    stale = 0
    while tries.room > 0 and stale < _STALE:
        before = tries.room
        tries(fitted(problem, wish, _random(rng, problem, tries.room), rng))
        stale = 0 if tries.room < before else stale + 1
    return tries.result()


def evolve_bits(
    problem: BitProblem,
    *,
    target: float | None = None,
    budget: float | None = None,
    metric: str = "bytes",
    evaluations: int = 1000,
    seed: int = 0,
    population: int | None = None,
) -> BitSearch:
    """A genetic search: parents by tournaments of two, uniform crossover, mutation, the best survive.

    population: default a sixteenth of the evaluations, 8 to 40. Children over the budget lose bits of random
    layers until they fit; where no target is set, half of the others gain bits of random layers until nothing
    fits any more. The start holds the uniform configurations that fit.
    """
    wish = BitWish(target, budget, metric)
    tries = Tries(problem, wish, evaluations, "evolution")
    rng = np.random.default_rng([seed, 12])
    size = min(_POPULATION, max(8, evaluations // 16)) if population is None else int(population)
    uniform = _uniform(problem)
    start = np.concatenate(
        [uniform[wish.fits(problem.cost(metric, uniform))], _random(rng, problem, 2 * size)]
    )
    alive = _distinct(fitted(problem, wish, start, rng))[:size]
    score = tries(alive)
    stale = 0
    while tries.room > 0 and stale < _STALE:
        before = tries.room
        order = np.argsort(-score, kind="stable")
        alive, score = alive[order], score[order]
        couples = np.min(rng.integers(0, len(alive), (2, size, 2)), axis=-1)  # the best stand first
        mother, father = alive[couples[0]], alive[couples[1]]
        children = np.where(rng.random(mother.shape) < 0.5, mother, father)
        children = _legal(rng, problem, wish, _mutated(rng, problem, children, 1.5))
        for _ in range(5):  # a child that was tried before teaches nothing
            again = tries.known(children)
            if not again.any():
                break
            children[again] = _legal(rng, problem, wish, _mutated(rng, problem, children[again], 2.0))
        pool = np.concatenate([alive, children])
        values = np.concatenate([score, tries(children)])
        pool, first = np.unique(pool, axis=0, return_index=True)
        order = np.argsort(-values[first], kind="stable")[:size]
        alive, score = pool[order], values[first][order]
        stale = 0 if tries.room < before else stale + 1
    return tries.result()


def local_bits(
    problem: BitProblem,
    *,
    target: float | None = None,
    budget: float | None = None,
    metric: str = "bytes",
    evaluations: int = 1000,
    seed: int = 0,
) -> BitSearch:
    """Local search with real evaluations, for one wish: from the best uniform widths, eight moves at a time.

    A move changes one layer by a bit or two, or takes bits from one layer and gives them to another. With a
    target, three moves of four go to the side on which it lies. After eight steps without a gain the
    search starts anew, from a random one of its ten best with a third of its layers drawn anew.
    """
    wish = BitWish(target, budget, metric)
    tries = Tries(problem, wish, evaluations, "local search")
    rng = np.random.default_rng([seed, 13])
    start = _uniform(problem)
    if budget is not None:  # the widest that fit, filled up to the budget by lowering the next wider ones
        start = np.concatenate([start, fitted(problem, wish, start, rng)])
        start = _distinct(start[wish.fits(problem.cost(metric, start))])
    score = tries(start)
    here, now = start[np.argmax(score)], float(score.max())
    without, stale = 0, 0
    while tries.room > 0 and stale < _STALE:
        before = tries.room
        if without >= 8:
            found = tries.result()
            top = found.indices[rng.choice(found.kept(10))][None]
            anew = rng.random(top.shape) < 1 / 3
            top = np.where(anew, rng.integers(0, problem.max_bits, top.shape), top)
            here = fitted(problem, wish, top, rng)[0]
            now, without = float(tries(here[None])[0]), 0
        upward = None if target is None else bool(tries.value(here) < target)
        moves = _distinct(fitted(problem, wish, _neighbours(rng, problem, here, 6 * _MOVES, upward), rng))
        moves = moves[~tries.known(moves)]
        moves = moves[rng.permutation(len(moves))[:_MOVES]]
        if len(moves):
            values = tries(moves)
            better = values.max() > now
            if better:
                here, now = moves[np.argmax(values)], float(values.max())
            without = 0 if better else without + 1
        else:
            without = 8
        stale = 0 if tries.room < before else stale + 1
    return tries.result()


def nearest_known(
    problem: BitProblem,
    indices,
    accuracy,
    *,
    target: float | None = None,
    budget: float | None = None,
    metric: str = "bytes",
    keep: int = 64,
) -> BitSearch:
    """The ``keep`` configurations of a training set that serve a wish best: no evaluation at all.

    indices: (N, L).  accuracy: (N,), as evaluated for the training set. Fewer than ``keep`` rows, or
    none, are returned if no more are within the budget.
    """
    wish, begin = BitWish(target, budget, metric).check(problem), time.perf_counter()
    indices, accuracy = np.asarray(indices, np.int64), np.asarray(accuracy, float)
    cost = problem.cost(metric, indices)
    score = wish.score(accuracy, cost)
    order = np.lexsort((cost, -score))[:keep]
    order = order[np.isfinite(score[order])]
    seconds = time.perf_counter() - begin
    return BitSearch("nearest known", wish, indices[order], accuracy[order], cost[order], 0, seconds)


def best_of_random(
    problem: BitProblem,
    surrogate,
    *,
    target: float | None = None,
    budget: float | None = None,
    metric: str = "bytes",
    n: int = 8192,
    keep: int = 64,
    repair: bool = True,
    seed: int = 0,
) -> BitSearch:
    """Of ``n`` random configurations the ``keep`` that a surrogate likes best, those evaluated.

    surrogate: predicts (N, 1 or more) of index vectors, accuracy first (`search.fit_surrogate`).
    repair: what is over the budget loses bits of random layers until it fits, else it is dropped (and
    fewer than ``keep`` may be left).
    """
    wish = BitWish(target, budget, metric)
    tries = Tries(problem, wish, keep, "best of random")
    rng = np.random.default_rng([seed, 14])
    drawn = _random(rng, problem, n)
    if repair:
        drawn = fitted(problem, wish, drawn, rng)
    cost = problem.cost(metric, drawn)
    drawn, cost = drawn[wish.fits(cost)], cost[wish.fits(cost)]
    if len(drawn):
        drawn, first = np.unique(drawn, axis=0, return_index=True)
        cost = cost[first]
        guess = np.asarray(surrogate(drawn))
        guess = guess[:, 0] if guess.ndim == 2 else guess
        tries(drawn[np.lexsort((cost, -wish.score(guess, cost)))[:keep]])
    return tries.result(note=f"{n} predictions of the surrogate, {len(drawn)} distinct within the budget")


def _uniform(problem: BitProblem) -> np.ndarray:
    """(max_bits, L), narrowest first."""
    return np.repeat(np.arange(problem.max_bits)[:, None], len(problem.names), axis=1)


def _random(rng: np.random.Generator, problem: BitProblem, n: int) -> np.ndarray:
    """Half uniform, half above a random floor: uniform ones alone hardly reach the top."""
    from diffhw.search._generator_pool import random_designs

    return random_designs(rng, problem.sizes, n).astype(np.int64)


def _distinct(designs: np.ndarray) -> np.ndarray:
    """Rows without repeats, order kept."""
    return designs[np.sort(np.unique(designs, axis=0, return_index=True)[1])]


def _mutated(rng, problem: BitProblem, designs: np.ndarray, layers: float) -> np.ndarray:
    """``layers`` of each design changed on average: half by one bit, half to any width."""
    shape = designs.shape
    step = designs + rng.choice([-1, 1], shape)
    anew = rng.integers(0, problem.max_bits, shape)
    change = np.where(rng.random(shape) < 0.5, step, anew)
    out = np.where(rng.random(shape) < layers / shape[1], change, designs)
    return np.clip(out, 0, problem.max_bits - 1)


def _legal(rng, problem: BitProblem, wish: BitWish, designs: np.ndarray) -> np.ndarray:
    """Within the budget; of those that seek the highest accuracy, half fill it."""
    out = fitted(problem, wish, designs, rng)
    if wish.budget is None or wish.target is not None:
        return out
    table, layers = problem.tables[wish.metric], np.arange(out.shape[1])
    growing = np.flatnonzero(rng.random(len(out)) < 0.5)
    while len(growing):
        rows = out[growing]
        wider = np.minimum(rows + 1, problem.max_bits - 1)
        left = wish.budget - problem.cost(wish.metric, rows)[:, None]
        fits = (wider > rows) & (table[layers, wider] - table[layers, rows] <= left)
        chosen = np.argmax(rng.random(rows.shape) * fits, axis=1)
        growing, chosen = growing[fits.any(axis=1)], chosen[fits.any(axis=1)]
        out[growing, chosen] += 1
    return out


def _neighbours(rng, problem: BitProblem, design: np.ndarray, n: int, upward: bool | None) -> np.ndarray:
    """(n, L): one layer changed, or two in opposite directions (one of two without a known side)."""
    out = np.repeat(design[None], n, axis=0)
    rows = np.arange(n)
    signs = rng.choice([-1, 1], n)
    if upward is not None:
        signs = np.where(rng.random(n) < 0.5, 1 if upward else -1, signs)
    first, second = rng.integers(0, out.shape[1], (2, n))
    out[rows, first] += signs * rng.choice([1, 1, 2], n)
    paired = rng.random(n) < (0.5 if upward is None else 0.25)
    out[rows[paired], second[paired]] -= signs[paired] * rng.choice([1, 1, 2], int(paired.sum()))
    return np.clip(out, 0, problem.max_bits - 1)
