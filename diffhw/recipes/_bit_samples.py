"""Which configurations of bit widths are evaluated to learn from, and the surrogate that learns from them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from diffhw import search
from diffhw.recipes._bit_problem import BitProblem
from diffhw.search._surrogate import doubted

__all__ = ["BitSamples", "bit_surrogate", "sample_bits"]

_BINS = 30
_CANDIDATES = 24_000
_SWEEPS = 40

Progress = Callable[[str, float, float], None]


class BitSamples(NamedTuple):
    """Evaluated configurations (N, L), accuracies (N,), and what else the runs told, (N, A)."""

    designs: np.ndarray
    accuracy: np.ndarray
    aspects: np.ndarray


def sample_bits(
    problem: BitProblem,
    evaluations: int,
    seed: int = 0,
    *,
    rounds: int = 3,
    metric: str = "bytes",
    members: int = 2,
    steps: int = 700,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> BitSamples:
    """Evaluated configurations, spread over accuracy and cost.

    30 % at random (half of them above a random floor), then in ``rounds`` a surrogate is fitted, which
    chooses the next. In the first half of these as many are taken from every cell of predicted accuracy and
    cost: random ones crowd where most configurations are. In the other half they are what a generator
    would propose by this surrogate, for accuracies and costs all over the range: there it must be right.
    resume: file in which finished rounds are kept, and from which it goes on.
    Raises ValueError for fewer than 100 evaluations.
    """
    if not evaluations >= 100:
        raise ValueError(f"a training set needs at least 100 evaluations, got {evaluations}")
    told = lambda done: None if progress is None else progress("training set", done, evaluations)
    first = evaluations if rounds < 1 else int(0.3 * evaluations)
    identity = f"{problem.fingerprint} {evaluations} {seed} {rounds} {metric} {members} {steps}"
    known, begin = _kept(resume, identity)
    if known is None:
        rng = np.random.default_rng([seed, 1])
        designs = _distinct(np.zeros((0, len(problem.names)), int), _random(rng, problem, 2 * first), first)
        known = BitSamples(designs, *problem.observe(designs))
        _keep(resume, identity, known, 0)
    told(len(known.designs))
    for r in range(begin, rounds):
        rng, key = np.random.default_rng([seed, 1, r]), jax.random.fold_in(jax.random.key(seed), r)
        surrogate = bit_surrogate(problem, known, key, members, steps)
        wanted = (evaluations - len(known.designs)) // (rounds - r)
        choose = _spread if r < rounds // 2 else _asked
        fresh = _distinct(known.designs, choose(rng, problem, surrogate, known, wanted, metric), wanted)
        new = BitSamples(fresh, *problem.observe(fresh))
        known = BitSamples(*(np.concatenate(pair) for pair in zip(known, new, strict=True)))
        _keep(resume, identity, known, r + 1)
        told(len(known.designs))
    return known


def _keep(path: str | Path | None, identity: str, known: BitSamples, rounds: int) -> None:
    if path is None:
        return
    part = Path(path).with_name(Path(path).name + ".part.npz")
    np.savez(part, identity=np.array(identity), rounds=np.array(rounds), **known._asdict())
    part.replace(path)


def _kept(path: str | Path | None, identity: str) -> tuple[BitSamples | None, int]:
    """What was evaluated so far, and the rounds that it holds."""
    if path is None or not Path(path).exists():
        return None, 0
    try:
        with np.load(path, allow_pickle=False) as stored:
            known = BitSamples(*(stored[name] for name in BitSamples._fields))
            other, rounds = str(stored["identity"]), int(stored["rounds"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as kept evaluations ({error}); remove it") from error
    if other != identity:
        raise ValueError(f"{path}: belongs to another network or other settings; remove it or name another")
    return known, rounds


def bit_surrogate(problem: BitProblem, known: BitSamples, key, members: int, steps: int, told=None):
    """A `search.Surrogate` of the accuracy: chains, as layers follow each other."""
    return search.fit_surrogate(
        known.designs,
        known.accuracy[:, None],
        problem.sizes,
        key,
        names=["accuracy"],
        members=members,
        steps=steps,
        batch=512,
        kind="chain",
        aspects=known.aspects,
        progress=told,
    )


def _spread(rng, problem: BitProblem, surrogate, known: BitSamples, wanted: int, metric: str) -> np.ndarray:
    """Random ones and relatives of the known, evenly over cells of predicted accuracy and cost."""
    pool = np.concatenate(
        [_random(rng, problem, _CANDIDATES), _moved(rng, problem, known.designs, _CANDIDATES // 2)]
    )
    guess = surrogate.predict(pool)[:, 0]
    cost = problem.cost(metric, pool)
    cells = _cell(guess, 0.0, 1.0, _BINS) * 4 + _cell(cost, cost.min(), cost.max(), 4)
    return pool[_even(rng, cells, 3 * wanted)]


def _asked(rng, problem: BitProblem, surrogate, known: BitSamples, wanted: int, metric: str) -> np.ndarray:
    """Chains of single changes, each to an accuracy and a cost of its own; the last states."""
    n, layers = int(1.3 * wanted), np.arange(len(problem.names))
    here = _random(rng, problem, n)
    low, high = known.accuracy.min(), known.accuracy.max()
    least, most = (float(problem.tables[metric][:, at].sum()) for at in (0, -1))
    goal = low + (high - low) * rng.random(n)
    budget, minds = rng.random(n), rng.random(n) < 0.5

    def energy(designs):
        missed = doubted(surrogate.predict_each(designs)[..., 0], goal)
        return missed + minds * np.abs((problem.cost(metric, designs) - least) / (most - least) - budget)

    level = energy(here)
    for sweep in range(_SWEEPS):
        tried = here.copy()
        for _ in range(1 + (sweep < _SWEEPS // 2)):
            tried[np.arange(n), rng.choice(layers, n)] = rng.integers(0, problem.max_bits, n)
        other = energy(tried)
        heat = 0.05 * (1 - sweep / _SWEEPS) + 1e-3
        accept = rng.random(n) < np.exp(np.minimum(level - other, 0) / heat)
        here, level = np.where(accept[:, None], tried, here), np.where(accept, other, level)
    return here


def _random(rng, problem: BitProblem, n: int) -> np.ndarray:
    from diffhw.search._generator_pool import random_designs

    return random_designs(rng, problem.sizes, n)


def _moved(rng, problem: BitProblem, designs: np.ndarray, n: int) -> np.ndarray:
    """Known configurations with up to a third of the layers drawn anew."""
    out = designs[rng.integers(0, len(designs), n)].copy()
    anew = rng.random(out.shape) < rng.random((n, 1)) / 3
    return np.where(anew, rng.integers(0, problem.max_bits, out.shape), out)


def _cell(values, low, high, count: int) -> np.ndarray:
    return np.clip(((values - low) / max(high - low, 1e-12) * count).astype(int), 0, count - 1)


def _even(rng, cells: np.ndarray, n: int) -> np.ndarray:
    """Rows in an order in which every cell has its turn before any has its second."""
    order = rng.permutation(len(cells))
    turn = np.zeros(len(cells), int)
    seen: dict[int, int] = {}
    for row in order:
        turn[row] = seen[cells[row]] = seen.get(cells[row], -1) + 1
    return order[np.argsort(turn[order], kind="stable")][:n]


def _distinct(known: np.ndarray, new: np.ndarray, n: int) -> np.ndarray:
    """At most ``n`` rows of ``new`` that are neither known nor repeated, order kept."""
    seen, kept = {row.tobytes() for row in np.asarray(known, np.int64)}, []
    for row in np.asarray(new, np.int64):
        if len(kept) == n:
            break
        if (code := row.tobytes()) not in seen:
            seen.add(code)
            kept.append(row)
    return np.array(kept, np.int64).reshape(-1, new.shape[1])
