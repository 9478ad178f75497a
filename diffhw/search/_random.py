"""Baselines: random designs, and local search from random starts."""

from collections.abc import Callable, Sequence

import numpy as np
from jax import Array

from diffhw.search._archive import Archive, Progress
from diffhw.search._problem import BATCH, host_generator
from diffhw.search._refine import Blocks, Refiner
from diffhw.search._result import SearchResult, finish, key_of
from diffhw.spaces import Space

__all__ = ["local_search", "random_search"]

_PATIENCE = 20  # rounds in a row that found nothing unseen: the space is as good as exhausted


def _drawn(space: Space, key: Array, number: int, n: int) -> np.ndarray:
    return host_generator(key, number).integers(0, space.sizes, (n, len(space.sizes)), np.int32)


def random_search(
    objective: Callable,
    space: Space,
    key: Array | int,
    *,
    constraints: Sequence[tuple] = (),
    metrics: Sequence = (),
    budget: float | None = 20_000,
    progress: Progress | None = None,
    resume: SearchResult | None = None,
) -> SearchResult:
    """Distinct random designs until the budget is spent. Arguments as for `search.gradient`."""
    budget = 20_000 if budget is None else budget
    archive = Archive(
        objective,
        space,
        constraints=constraints,
        metrics=metrics,
        budget=budget,
        progress=progress,
        resume=resume,
    )
    archive.problem.prepare(archive.problem.evaluators())
    key, idle = key_of(key), 0
    while not archive.exhausted and idle < _PATIENCE and len(archive) < space.size:
        known = len(archive)
        archive.evaluate(_drawn(space, key, archive.rounds, BATCH))
        archive.rounds += 1
        idle = 0 if len(archive) > known else idle + 1
    return finish(archive, "random", key, visited=np.arange(len(archive)))


def local_search(
    objective: Callable,
    space: Space,
    key: Array | int,
    *,
    constraints: Sequence[tuple] = (),
    metrics: Sequence = (),
    budget: float | None = 50_000,
    progress: Progress | None = None,
    resume: SearchResult | None = None,
    starts: int = 64,
    blocks: Blocks | None = None,
    pairs: bool = True,
) -> SearchResult:
    """Local search from ``starts`` random designs at a time, again and again until the budget is spent.

    blocks: as for `search.refine`; default: every variable by itself (coordinate search), plus the
        +-1 pair moves unless ``pairs`` is False. Other arguments as for `search.gradient`.
    """
    budget = 50_000 if budget is None else budget
    archive = Archive(
        objective,
        space,
        constraints=constraints,
        metrics=metrics,
        budget=budget,
        progress=progress,
        resume=resume,
    )
    archive.problem.prepare(archive.problem.evaluators())
    blocks = [[v] for v in range(len(space.sizes))] if blocks is None else blocks
    refiner = Refiner(archive, blocks, pairs)
    key, ends, idle = key_of(key), [], 0
    while not archive.exhausted and idle < _PATIENCE and len(archive) < space.size:
        known = len(archive)
        first = _drawn(space, key, archive.rounds, starts)
        ends.append(refiner.descend(first))
        archive.rounds += 1
        idle = 0 if len(archive) > known else idle + 1
    visited = np.concatenate(ends) if ends else None
    return finish(archive, "local", key, visited=visited)
