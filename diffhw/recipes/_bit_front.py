"""The exact front of accuracy against cost of a network small enough to try every configuration."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffhw.recipes._bit_problem import BitProblem, wrap
from diffhw.recipes._bit_search import BitWish

__all__ = ["BitFront", "hypervolume", "pareto_bits", "tiny_bit_problem", "tiny_network"]

_CHUNK = 8192


@dataclass(frozen=True)
class BitFront:
    """All configurations of a problem, evaluated.

    metric: of the cost.  accuracy, cost: (N,) of all configurations, numbered as digits, the
    last layer's fastest (`at` decodes).  front: positions (F,) of the nondominated ones, cheapest first.
    reference: (accuracy, cost) of the worst corner: chance, and all layers at the widest.
    volume: exact area that the front dominates, up to the reference.  seconds: to evaluate all.
    """

    network: str
    metric: str
    accuracy: np.ndarray
    cost: np.ndarray
    front: np.ndarray
    reference: tuple[float, float]
    volume: float
    seconds: float
    sizes: tuple[int, ...]

    def at(self, positions) -> np.ndarray:
        """Index vectors (N, L)."""
        return np.stack(np.unravel_index(np.asarray(positions), self.sizes), axis=-1)

    def best(self, budget: float) -> float:
        """The highest accuracy of any configuration within the budget. ValueError if none is."""
        fits = BitWish(budget=budget).fits(self.cost)
        if not fits.any():
            raise ValueError(f"no configuration takes {budget:g} {self.metric} or less: {self.cost.min():g}")
        return float(self.accuracy[fits].max())

    def share(self, accuracy, cost) -> float:
        """Hypervolume of some configurations over that of the exact front."""
        return hypervolume(accuracy, cost, self.reference) / self.volume


def hypervolume(accuracy, cost, reference: tuple[float, float]) -> float:
    """Exact area between points and a reference that they dominate: accuracy x unit of the cost.

    accuracy, cost: (N,), the one to be large and the other small.  reference: (accuracy, cost); points that
    are not better than it in both count nothing.

    >>> hypervolume([0.9, 0.5, 0.4], [8.0, 2.0, 5.0], (0.1, 10.0))
    4.0
    """
    accuracy, cost = np.asarray(accuracy, float), np.asarray(cost, float)
    if accuracy.shape != cost.shape or accuracy.ndim != 1:
        raise ValueError(f"accuracy and cost must be (N,) both, got {accuracy.shape} and {cost.shape}")
    low, most = reference
    real = np.isfinite(accuracy) & np.isfinite(cost) & (accuracy > low) & (cost < most)
    if not real.any():
        return 0.0
    order = np.lexsort((-accuracy[real], cost[real]))
    heights = np.maximum.accumulate(accuracy[real][order]) - low
    widths = np.diff(np.append(cost[real][order], most))
    return float(heights @ widths)


def pareto_bits(
    problem: BitProblem,
    metric: str = "bytes",
    *,
    most: int = 300_000,
    progress: Callable[[int, int], None] | None = None,
) -> BitFront:
    """Every configuration of a problem evaluated, and the exact front.

    most: configurations that are still tried.  progress: called with (done, all). Not counted by the
    ledger: it is what searches are measured against.
    Raises ValueError for a larger space, or an unknown metric.
    """
    from diffhw.search import nondominated

    BitWish(metric=metric).check(problem)
    count = problem.space_size
    if count > most:
        raise ValueError(
            f"{problem.network} has {count:.3g} configurations, more than {most}: use `tiny_bit_problem`, "
            f"or fewer bits"
        )
    begin = time.perf_counter()
    every = np.stack(np.unravel_index(np.arange(count), problem.sizes), axis=-1)
    accuracy = np.zeros(count)
    for start in range(0, count, _CHUNK):
        part = every[start : start + _CHUNK]
        accuracy[start : start + len(part)] = problem.evaluate(part, count=False)
        if progress is not None:
            progress(start + len(part), count)
    cost = problem.cost(metric, every)
    front = nondominated(np.stack([cost, -accuracy], axis=1))
    reference = (1.0 / problem.selection.classes, float(problem.tables[metric][:, -1].sum()))
    return BitFront(
        network=problem.network,
        metric=metric,
        accuracy=accuracy,
        cost=cost,
        front=front,
        reference=reference,
        volume=hypervolume(accuracy[front], cost[front], reference),
        seconds=time.perf_counter() - begin,
        sizes=problem.sizes,
    )


def tiny_bit_problem(
    data: str = "digits",
    *,
    seed: int = 0,
    max_bits: int = 8,
    epochs: int = 40,
    checkpoint: Any = None,
    progress: Callable | None = None,
) -> BitProblem:
    """A trained network of five layers, whose whole space (8^5 = 32768) can be evaluated in a minute or two.

    Convolutions 3 x 3 of 6, 12 and 16 channels (the last two strided), 1 x 1 of 24, mean, dense. The
    families of the training room have 14 layers and more, 8^14 configurations at least.
    Arguments as `bit_problem`.
    """
    from diffhw import training

    splits = training.load(data, seed=seed)
    model = tiny_network(splits.train.input_shape, splits.train.classes, seed)
    trained = training.train(model, splits, epochs=epochs, key=seed, checkpoint=checkpoint, progress=progress)
    selection = training.joined(splits.train, splits.validation)
    return wrap(trained.model, selection, splits.test, "cnn_tiny", max_bits)


def tiny_network(input_shape: tuple[int, int, int], classes: int, seed: int = 0) -> Any:
    """Its network, untrained: a `training.ConvNet`."""
    from flax import nnx

    from diffhw import training
    from diffhw.training._plan import Plan

    plan = Plan(input_shape, "cnn_tiny")
    x = plan.conv("input", "conv1", 6, 3, act="relu")
    x = plan.conv(x, "conv2", 12, 3, act="relu", stride=2)
    x = plan.conv(x, "conv3", 16, 3, act="relu", stride=2)
    x = plan.conv(x, "conv4", 24, 1, act="relu")
    plan.dense(plan.mean(x, "mean"), "classifier", classes)
    return training.ConvNet("cnn_tiny", plan.input_shape, tuple(plan.steps), rngs=nnx.Rngs(seed))
