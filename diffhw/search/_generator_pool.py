"""Designs to learn from, labelled without evaluation: random ones, and ones guided to every corner."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from diffhw.search._surrogate import Surrogate

__all__ = ["conditioned_pool", "random_designs"]

_CHAINS = 12_288
_CALM = 0.5  # share of the random designs that is kept: those on which the surrogate's members agree


def random_designs(rng: np.random.Generator, sizes: Sequence[int], n: int) -> np.ndarray:
    """(n, V): half uniform, half uniform above a floor of their own, so that the upper corner is covered."""
    most = np.asarray(sizes)
    floor = np.where(rng.random((n, 1)) < 0.5, 0.0, rng.random((n, 1)))
    low = np.floor(floor * most)
    return (low + np.floor(rng.random((n, len(most))) * (most - low))).astype(np.int32)


def _labels(surrogate: Surrogate, conditions, designs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) metrics in the order of the conditions, and (N, C) how far the members differ on them."""
    each, columns, doubts = None, [], []
    for one in conditions:
        if one.table is not None:
            columns.append(one.value(designs))
            doubts.append(np.zeros(len(designs)))
            continue
        if each is None:
            each = surrogate.predict_each(designs)
        said = each[..., surrogate.names.index(one.name)]
        columns.append(said.mean(axis=0))
        doubts.append(np.abs(said - columns[-1][None]).mean(axis=0))
    return np.stack(columns, axis=1).astype(np.float64), np.stack(doubts, axis=1)


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

    A third is random, less those on which the surrogate is most in doubt. The rest are chains of
    single-variable changes, each drawn to a place of its own: a value of every condition, uniform over its
    range, and little doubt. So joint conditions that random designs hardly ever meet (accurate and small)
    are in the pool too.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    sizes = np.asarray(surrogate.sizes)
    plain = random_designs(rng, surrogate.sizes, size // 3)
    values, doubt = _labels(surrogate, conditions, plain)
    low, high = values.min(axis=0), values.max(axis=0)
    for i, one in enumerate(conditions):
        if one.table is not None:
            rows = [one.table[v, :n] for v, n in enumerate(surrogate.sizes)]
            low[i] = one.base + sum(row.min() for row in rows)
            high[i] = one.base + sum(row.max() for row in rows)
    span = np.maximum(high - low, 1e-9)
    wild = (doubt / span).sum(axis=1)
    # Compared with those of like metrics: where accuracy is steep, all are in doubt.
    order = np.lexsort((wild, np.floor((values[:, 0] - low[0]) / span[0] * 30)))
    place = np.floor((values[order, 0] - low[0]) / span[0] * 30)
    first = np.searchsorted(place, place)
    length = np.searchsorted(place, place, side="right") - first
    calm = order[np.arange(len(order)) - first < np.maximum(_CALM * length, 1)]
    found, labels = [plain[calm]], [values[calm]]
    if known is not None and len(known):
        known = np.asarray(known, np.int32)
        found.append(known)
        labels.append(_labels(surrogate, conditions, known)[0])
    chains = min(_CHAINS, max(64, (size - size // 3) // 4))
    here = random_designs(rng, surrogate.sizes, chains)
    places = rng.random((chains, len(conditions)))
    # A chain minds some of the conditions only, as a user does.
    minds = rng.random(places.shape) < 0.7

    def look(designs):
        values, doubt = _labels(surrogate, conditions, designs)
        return values, (minds * (np.abs((values - low) / span - places) + doubt / span)).sum(axis=1)

    now, level = look(here)
    keep = max(1, sweeps // 4)
    for sweep in range(sweeps):
        heat = 0.1 * (1 - sweep / sweeps) + 1e-3
        tried = here.copy()
        for _ in range(1 + (sweep < sweeps // 2)):
            column = rng.integers(0, len(sizes), chains)
            tried[np.arange(chains), column] = rng.integers(0, sizes[column])
        values, other = look(tried)
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
