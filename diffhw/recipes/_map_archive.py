"""What a search over mappings knows: the scores of genomes, and how many more may be asked for.

The `Coster` prices genomes of any layers in one compiled program; an `Archive` keeps what is known of one
layer, so that nothing is costed twice and no budget is passed.
"""

import functools
from collections.abc import Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.recipes._map_moves import Moves
from diffhw.recipes._map_space import Genomes, genome_cost

__all__ = ["CHUNK", "SMALL", "UNFIT", "Archive", "Coster", "Search", "log_score"]

CHUNK, SMALL = 8192, 512
"""Genomes per compiled call, and where fewer are asked for."""
UNFIT = 1e3
"""Score of a mapping that does not fit, plus how far from fitting: above all logarithms."""
_POOL = 2000  # best genomes remembered

Search = Generator[np.ndarray, Any, Any]
"""Asks for the scores of genomes (n, width) of its layer and gets them, (n,)."""


@functools.partial(jax.jit, static_argnums=0)
def _costs(layout, table, hierarchy, rows, genomes):
    layers = jax.tree.map(lambda column: column[rows], table)
    return jax.vmap(lambda layer, genome: genome_cost(layout, hierarchy, layer, genome))(layers, genomes)


def log_score(objective: str, energy, cycles, violation) -> np.ndarray:
    """Logarithm of the objective, or a figure above all of them for what does not fit."""
    energy, cycles = (np.asarray(leaf, np.float64) for leaf in (energy, cycles))
    value = {"edp": energy * cycles, "energy": energy, "latency": cycles}[objective]
    misfit = np.log1p(np.minimum(np.asarray(violation, np.float64), 1e30))
    return np.where(violation <= 1e-6, np.log(value), UNFIT + misfit)


class Coster:
    """Scores of genomes of any layers, in chunks of one compiled program."""

    def __init__(self, space: Genomes, objective: str):
        self.space, self.objective = space, objective
        self.table = jax.tree.map(lambda column: jnp.asarray(column, float), space.table)

    def figures(self, rows: np.ndarray, genomes: np.ndarray) -> list[np.ndarray]:
        """Energy, cycles, violation, each (n,)."""
        n = len(rows)
        chunk = CHUNK if n > 4 * SMALL else SMALL
        padding = -n % chunk
        rows = np.concatenate([rows, np.zeros(padding, int)]).astype(np.int32)
        genomes = np.concatenate([genomes, np.ones((padding, genomes.shape[1]), int)]).astype(np.int32)
        parts = [
            _costs(
                self.space.layout,
                self.table,
                self.space.hierarchy,
                rows[s : s + chunk],
                genomes[s : s + chunk],
            )
            for s in range(0, n, chunk)
        ]
        return [np.concatenate([np.asarray(part[j]) for part in parts])[:n] for j in range(3)]

    def __call__(self, rows: np.ndarray, genomes: np.ndarray) -> np.ndarray:
        return log_score(self.objective, *self.figures(rows, genomes))

    def exactly(self, rows: np.ndarray, genomes: np.ndarray) -> list[np.ndarray]:
        """`figures` in float64."""
        with jax.enable_x64(True):
            double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)
            found = _costs(
                self.space.layout,
                double(self.space.table),
                double(self.space.hierarchy),
                rows.astype(np.int32),
                genomes.astype(np.int32),
            )
            return [np.asarray(leaf) for leaf in found]


class Archive:
    """All that is known of one layer: scores of genomes seen, the best of them, evaluations left."""

    def __init__(self, space: Genomes, i: int, budget: float):
        self.space, self.i, self.moves = space, i, Moves(space, i)
        self.spent, self.budget = 0.0, float(budget)
        codes = np.random.default_rng(2024).integers(1, 2**63, space.layout.width, dtype=np.uint64)
        self._codes = codes | np.uint64(1)
        self._keys, self._values = np.zeros(0, np.uint64), np.zeros(0)
        self.pool, self.scores = np.zeros((0, space.layout.width), np.int64), np.zeros(0)
        self.history: list[tuple[float, float]] = []

    @property
    def left(self) -> int:
        """Evaluations left."""
        return max(0, int(self.budget - self.spent))

    def keys(self, genomes: np.ndarray) -> np.ndarray:
        """64-bit names of canonical genomes."""
        mixed = (genomes.astype(np.uint64) * self._codes).sum(axis=1, dtype=np.uint64)
        return (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)

    def ask(self, genomes: np.ndarray) -> Search:
        """(canonical genomes, scores), inf where the budget did not reach; asks only for what is new."""
        genomes = self.space.canonical(self.i, genomes)
        keys, first, back = np.unique(self.keys(genomes), return_index=True, return_inverse=True)
        scores = np.full(len(keys), np.inf)
        place = np.searchsorted(self._keys, keys)
        known = place < len(self._keys)
        known[known] = self._keys[place[known]] == keys[known]
        scores[known] = self._values[place[known]]
        fresh = np.flatnonzero(~known)[: self.left]
        if len(fresh):
            scores[fresh] = yield genomes[first[fresh]]
            self.spent += len(fresh)
            self.record(genomes[first[fresh]], keys[fresh], scores[fresh])
        return genomes, scores[back]

    def record(self, genomes: np.ndarray, keys: np.ndarray, scores: np.ndarray) -> None:
        """New genomes with distinct keys, already paid for."""
        keys_, values = np.concatenate([self._keys, keys]), np.concatenate([self._values, scores])
        order = np.argsort(keys_, kind="stable")
        self._keys, self._values = keys_[order], values[order]
        best = float(scores.min())
        if not self.history or best < self.history[-1][1]:
            self.history.append((self.spent, best))
        self.pool = np.concatenate([self.pool, genomes])
        self.scores = np.concatenate([self.scores, scores])
        if len(self.scores) > 2 * _POOL:
            self.best(_POOL)

    def best(self, n: int) -> np.ndarray:
        """The ``n`` best genomes, best first."""
        order = np.argsort(self.scores, kind="stable")
        kept = order[:_POOL]
        self.pool, self.scores = self.pool[kept], self.scores[kept]
        return self.pool[:n]

    def record_path(self, genomes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Genomes (steps, runs, width) that a descent paid for; the best of each run, best first."""
        _, runs, width = genomes.shape
        flat = self.space.canonical(self.i, genomes.reshape(-1, width).astype(np.int64))
        every = self.keys(flat)
        keys, first = np.unique(every, return_index=True)
        new = ~np.isin(keys, self._keys)
        if new.any():
            self.record(flat[first[new]], keys[new], scores.reshape(-1)[first[new]])
        at = scores.argmin(axis=0) * runs + np.arange(runs)
        _, once = np.unique(every[at], return_index=True)
        ends = at[once]
        return flat[ends[np.argsort(scores.reshape(-1)[ends], kind="stable")]]
