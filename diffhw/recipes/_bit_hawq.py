"""Hessian-aware bit widths: sensitivities of the layers, then a knapsack, one evaluation per budget."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffhw.recipes._bit_problem import BitProblem
from diffhw.recipes._bit_search import BitSearch, BitWish, Tries

__all__ = ["Sensitivities", "bit_sensitivities", "hawq_bits"]

_UNITS = 1 << 17  # entries of the knapsack's table at most


@dataclass(frozen=True)
class Sensitivities:
    """What each layer is expected to lose at each width, (L, max_bits), and what it took to find out."""

    table: np.ndarray
    seconds: float
    products: int
    images: int


def bit_sensitivities(
    problem: BitProblem, *, samples: int = 32, images: int = 512, seed: int = 0
) -> Sensitivities:
    """Mean Hessian trace of the loss in each layer x squared quantization error at each width.

    samples: Hessian-vector products of Hutchinson's estimator.  images: of the selection set, the first.
    Source: Dong et al., HAWQ-V2, arXiv 1911.03852, equation 6 (recalled).
    """
    import jax
    import jax.numpy as jnp

    from diffhw import quantization

    begin = time.perf_counter()
    x, y = (jnp.asarray(part[:images]) for part in (problem.selection.x, problem.selection.y))

    def loss(kernels, model, x, y):
        logs = jax.nn.log_softmax(model.with_kernels(kernels)(None, x))
        return -jnp.take_along_axis(logs, y[:, None], 1).mean()

    model = problem.quantized
    key = jax.random.key(seed)
    traces, _ = quantization.hessian_trace(loss, model.kernels(), key, args=(model, x, y), samples=samples)
    table = quantization.hawq_sensitivity(traces, model, tuple(range(1, problem.max_bits + 1)))
    # A negative trace (an estimate, or a saddle) would reward coarse weights.
    table = np.maximum(np.asarray(table, np.float64), 0.0)
    return Sensitivities(table, time.perf_counter() - begin, samples, len(x))


def hawq_bits(
    problem: BitProblem,
    budget: float | Sequence[float] | None = None,
    *,
    target: float | None = None,
    metric: str = "bytes",
    sensitivities: Sensitivities | None = None,
    evaluations: int = 10,
) -> BitSearch:
    """HAWQ-like choice: the least sum of sensitivities within a budget, by an exact knapsack.

    budget: one or several; each costs one evaluation, and its row has the same place.  target: with it the
    allowance is found by bisection, at most ``evaluations`` evaluations (the method itself has no notion
    of accuracy).  sensitivities: from `bit_sensitivities`; computed if left out, which the note counts.
    Raises ValueError if there is neither a budget nor a target.
    """
    if budget is None and target is None:
        raise ValueError("hawq_bits needs a budget or a target: without one all layers get the widest")
    most = float(problem.tables.get(metric, np.zeros((1, 1)))[:, -1].sum())
    asked = [most] if budget is None else [float(one) for one in np.atleast_1d(budget)]
    for one in asked:
        BitWish(target, one, metric).check(problem)
    wish = BitWish(target, None if budget is None else max(asked), metric)
    if target is not None and len(asked) > 1:
        raise ValueError("hawq_bits takes one budget beside a target")
    tries = Tries(problem, wish, len(asked) if target is None else evaluations, "Hessian-aware")
    found = bit_sensitivities(problem) if sensitivities is None else sensitivities
    solve = knapsack(found.table, problem.tables[metric])
    note = (
        f"{found.products} Hessian-vector products on {found.images} images, {found.seconds:.1f} s: "
        f"once per network"
    )
    if target is None:
        rows = np.stack([solve(one) for one in asked])
        accuracy, result = tries.accuracies(rows), tries.result(note)
        cost = problem.cost(metric, rows)
        return replace(result, indices=rows, accuracy=accuracy, cost=cost, proposed=None)
    low, high = float(problem.tables[metric][:, 0].sum()), asked[0]
    allowance = high
    while tries.room > 0 and high - low > 1e-4 * most:
        reached = float(tries.accuracies(solve(allowance)[None])[0])
        low, high = (low, allowance) if reached >= target else (allowance, high)
        if reached < target and allowance == asked[0]:
            break
        allowance = (low + high) / 2
    return tries.result(note)


def knapsack(loss: np.ndarray, cost: np.ndarray):
    """``solve(budget) -> (L,)``: one column per row with the least sum of losses, within the budget.

    loss, cost: (L, B). Exact (dynamic programming) where the costs are multiples of a unit and not more
    than 2^17 of it in all; otherwise they are rounded up to one, so that the budget holds all the same.
    """
    cost = np.asarray(cost, float)
    base = cost.min(axis=1)
    extra = cost - base[:, None]
    total = extra.max(axis=1).sum()
    unit = _unit(extra)
    if unit == 0 or total / unit > _UNITS:
        unit = max(total / _UNITS, 1e-300)
    steps = np.ceil(extra / unit - 1e-9).astype(np.int64)
    size = int(steps.max(axis=1).sum()) + 1
    best, chosen = np.zeros(size), np.zeros((len(cost), size), np.int8)
    for i in range(len(cost)):
        options = np.full((cost.shape[1], size), np.inf)
        for b, step in enumerate(steps[i]):
            options[b, step:] = loss[i, b] + best[: size - step]
        chosen[i] = np.argmin(options, axis=0)
        best = np.take_along_axis(options, chosen[i][None].astype(int), 0)[0]

    def solve(budget: float) -> np.ndarray:
        left = int(min(max(math.floor((budget - base.sum()) / unit + 1e-9), 0), size - 1))
        row = np.zeros(len(cost), np.int64)
        for i in range(len(cost) - 1, -1, -1):
            row[i] = chosen[i, left]
            left -= int(steps[i, row[i]])
        return row

    return solve


def _unit(extra: np.ndarray) -> float:
    """Greatest common divisor of numbers that are multiples of 1/8 (bytes of bits); 0 if they are not."""
    eighths = np.round(extra * 8)
    if not np.allclose(eighths, extra * 8, rtol=0, atol=1e-6) or eighths.max() > 2**52:
        return 0.0
    return float(np.gcd.reduce(eighths.astype(np.int64).ravel())) / 8
