"""Designs to learn from, labelled without evaluation: random ones, and ones guided to every corner."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from diffhw.search._surrogate import Surrogate

__all__ = ["conditioned_pool", "random_designs"]

_CHAINS = 16_384


def random_designs(rng: np.random.Generator, sizes: Sequence[int], n: int) -> np.ndarray:
    """(n, V): half uniform, half uniform above a floor of their own, so that the upper corner is covered."""
    most = np.asarray(sizes)
    floor = np.where(rng.random((n, 1)) < 0.5, 0.0, rng.random((n, 1)))
    low = np.floor(floor * most)
    return (low + np.floor(rng.random((n, len(most))) * (most - low))).astype(np.int32)


def _labels(surrogate: Surrogate, conditions, designs: np.ndarray) -> np.ndarray:
    """(N, C) metrics in the order of the conditions."""
    guessed = None
    columns = []
    for one in conditions:
        if one.table is not None:
            columns.append(one.value(designs))
            continue
        if guessed is None:
            guessed = surrogate.predict(designs)
        columns.append(guessed[:, surrogate.names.index(one.name)])
    return np.stack(columns, axis=1).astype(np.float64)


def conditioned_pool(
    surrogate: Surrogate,
    conditions,
    key,
    size: int,
    known: np.ndarray | None = None,
    progress: Callable | None = None,
    sweeps: int = 40,
) -> tuple[np.ndarray, np.ndarray]:
    """Designs (N, V) and their labels (N, C).

    A third is random. The rest are chains of single-variable changes, each drawn to a place of its own: a
    value of every condition, uniform over its range. So joint conditions that random designs hardly ever
    meet (accurate and small) are in the pool too.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    sizes = np.asarray(surrogate.sizes)
    plain = random_designs(rng, surrogate.sizes, size // 3)
    found, labels = [plain], [_labels(surrogate, conditions, plain)]
    if known is not None and len(known):
        known = np.asarray(known, np.int32)
        found.append(known)
        labels.append(_labels(surrogate, conditions, known))
    low, high = labels[0].min(axis=0), labels[0].max(axis=0)
    for i, one in enumerate(conditions):
        if one.table is not None:
            rows = [one.table[v, :n] for v, n in enumerate(surrogate.sizes)]
            low[i] = one.base + sum(row.min() for row in rows)
            high[i] = one.base + sum(row.max() for row in rows)
    span = np.maximum(high - low, 1e-9)
    chains = min(_CHAINS, max(64, (size - size // 3) // 4))
    here = random_designs(rng, surrogate.sizes, chains)
    now = _labels(surrogate, conditions, here)
    places = rng.random((chains, len(conditions)))
    # A chain minds some of the conditions only, as a user does.
    minds = rng.random(places.shape) < 0.7
    energy = lambda values: (minds * np.abs((values - low) / span - places)).sum(axis=1)
    level = energy(now)
    keep = max(1, sweeps // 4)
    for sweep in range(sweeps):
        heat = 0.1 * (1 - sweep / sweeps) + 1e-3
        tried = here.copy()
        for _ in range(1 + (sweep < sweeps // 2)):
            column = rng.integers(0, len(sizes), chains)
            tried[np.arange(chains), column] = rng.integers(0, sizes[column])
        values = _labels(surrogate, conditions, tried)
        other = energy(values)
        accept = (other < level) | (rng.random(chains) < np.exp(-np.maximum(other - level, 0) / heat))
        here, now = np.where(accept[:, None], tried, here), np.where(accept[:, None], values, now)
        level = np.where(accept, other, level)
        if sweep % keep == keep - 1:
            found.append(here.copy())
            labels.append(now.copy())
        if progress is not None:
            progress("designs to learn from", sweep + 1, sweeps)
    designs, values = np.concatenate(found), np.concatenate(labels)
    _, once = np.unique(designs, axis=0, return_index=True)
    return designs[once], values[once]
