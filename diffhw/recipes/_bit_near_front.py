"""The best accuracy at every cost from very few evaluations: a training set near the front, and a suite.

`sample_bits` spreads its evaluations over accuracy, for wishes of any accuracy. Who only wants the best at
each budget needs to know the front alone: here every round evaluates what a surrogate holds for the front
(a search of the front with the spread of the surrogate's members as its doubt; the plan is ours), and the
generator fitted to it answers every budget without another evaluation.
"""

import jax
import numpy as np

from diffhw import search
from diffhw.recipes._aqgan import Aqgan, BitSamples
from diffhw.recipes._bit_problem import BitProblem

__all__ = ["front_suite", "sample_front"]

_LEAST = 32  # designs of the first surrogate
_POOL = 6000  # configurations that the front is evolved in
_GENERATIONS = 10
_DOUBT = 0.5  # spreads of the members added to a guess, at most: what may be good is looked at


def sample_front(
    problem: BitProblem,
    evaluations: int,
    seed: int = 0,
    *,
    metric: str = "bytes",
    rounds: int = 5,
    members: int = 6,
    steps: int = 600,
) -> BitSamples:
    """Evaluated configurations near the front of accuracy against ``metric``, for `aqgan(training_set=...)`.

    Two fifths (32 at least) are random with a random least width, the rest the predicted front, layer by
    layer of it, in ``rounds`` between which the surrogate is fitted again. Fewer than asked where the space
    near the front has no more.
    Raises ValueError for fewer than 40 evaluations or an unknown metric.
    """
    if not evaluations >= 40:
        raise ValueError(f"a training set near the front needs at least 40 evaluations, got {evaluations}")
    if metric not in problem.tables:
        raise ValueError(f"no metric is called {metric!r}: known are {', '.join(problem.tables)}")
    rng = np.random.default_rng([seed, 2])
    first = _start(rng, problem, max(_LEAST, 2 * evaluations // 5))
    known = BitSamples(first, *problem.observe(first))
    chance = 1.0 / problem.selection.classes
    for r in range(rounds):
        surrogate = search.fit_surrogate(
            known.designs,
            known.accuracy[:, None],
            problem.sizes,
            jax.random.fold_in(jax.random.key(seed), r),
            names=["accuracy"],
            members=members,
            steps=steps,
        )
        guess = _hope(surrogate, _DOUBT * rng.random())
        pool = _near(rng, problem, known.designs, guess, metric)
        if not len(pool):  # the whole space is known
            break
        wanted = (evaluations - len(known.designs)) // (rounds - r)
        fresh = _peeled(rng, problem, pool, guess(pool), metric, wanted, chance)
        new = BitSamples(fresh, *problem.observe(fresh))
        known = BitSamples(*(np.concatenate(pair) for pair in zip(known, new, strict=True)))
    return known


def front_suite(fitted: Aqgan, budgets, metric: str = "bytes", seed: int = 0) -> np.ndarray:
    """One configuration per budget, (N, L): the best that the generator proposes within it, not evaluated.

    The designs of the training set stand beside the proposals with the accuracy they were measured to have.
    budgets: (N,) in the unit of ``metric``. Raises ValueError for one below the smallest configuration.
    """
    problem, found = fitted.problem, []
    cost = problem.cost(metric, fitted.designs)
    smallest = problem.tables[metric].argmin(axis=1)  # where nothing else is known to fit
    for budget in np.asarray(budgets, float):
        answer = fitted.ask(None, budgets={metric: float(budget)}, evaluate=False, keep=1, seed=seed)
        known = np.where(cost <= budget, fitted.accuracy, -np.inf)
        best = known.argmax()
        choices = [(-np.inf, smallest), (known[best], fitted.designs[best])]
        if answer.feasible:
            choices.append((answer.predicted[0], answer.bits[0] - 1))
        found.append(max(choices, key=lambda choice: choice[0])[1])
    return np.array(found)


def _start(rng, problem: BitProblem, n: int) -> np.ndarray:
    """The widest, and random ones, most of them above a floor of their own."""
    drawn = rng.integers(0, problem.max_bits, (4 * n, len(problem.names)))
    floor = rng.integers(0, problem.max_bits, (4 * n, 1)) * (rng.random((4 * n, 1)) < 0.7)
    widest = np.full((1, len(problem.names)), problem.max_bits - 1)
    return _once(np.concatenate([widest, np.maximum(drawn, floor)]))[:n]


def _once(rows: np.ndarray) -> np.ndarray:
    """Without repetitions, order kept."""
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)]


def _hope(surrogate, doubt: float):
    """Index vectors to guesses of accuracy, higher where the members differ."""

    def guess(rows):
        each = surrogate.predict_each(rows)[..., 0]
        return each.mean(axis=0) + doubt * each.std(axis=0)

    return guess


def _near(rng, problem: BitProblem, designs: np.ndarray, guess, metric: str) -> np.ndarray:
    """An evolved neighbourhood of the predicted front, without what is known."""
    pool = np.concatenate([designs, _start(rng, problem, _POOL // 4)])
    for _ in range(_GENERATIONS):
        moved = pool[rng.integers(0, len(pool), _POOL // 2)].copy()
        step = rng.integers(-2, 3, moved.shape) * (rng.random(moved.shape) < 1.5 / moved.shape[1])
        moved = np.clip(moved + step, 0, problem.max_bits - 1)
        pool = _once(np.concatenate([pool, moved]))
        layer = _layers(problem.cost(metric, pool), guess(pool))
        pool = pool[np.argsort(layer, kind="stable")[: _POOL // 2]]
    known = {row.tobytes() for row in np.asarray(designs, np.int64)}
    fresh = [row for row in pool if row.astype(np.int64).tobytes() not in known]
    return np.array(fresh, np.int64).reshape(-1, designs.shape[1])


def _layers(cost: np.ndarray, value: np.ndarray, most: int = 20) -> np.ndarray:
    """Number of the front that each point is on, once those before it are taken away; ``most`` at most."""
    found = np.full(len(cost), most)
    left = np.lexsort((-value, cost))
    for number in range(most):
        if not len(left):
            break
        heights = np.maximum.accumulate(value[left])
        on = np.concatenate([[True], value[left][1:] > heights[:-1]])
        found[left[on]] = number
        left = left[~on]
    return found


def _peeled(rng, problem, pool, value, metric, n: int, chance: float) -> np.ndarray:
    """``n`` of a pool: the first fronts whole, of the last a random part; what is near chance is left out."""
    order = _layers(problem.cost(metric, pool), value) + rng.random(len(pool))
    return pool[np.argsort(np.where(value > 1.5 * chance, order, np.inf), kind="stable")[:n]]
