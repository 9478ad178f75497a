"""Genomes of one layer: drawn at random, moved by a step or two, crossed. Plain numpy on the host."""

import numpy as np

from diffhw.mappings import LOOPS
from diffhw.recipes._map_space import MENU, Genomes

__all__ = ["Moves"]

_ORDERS = len(MENU)


class Moves:
    """Moves of the genomes of layer ``i``. Whatever is returned obeys limits and fan-outs; it may not fit.

    A tile move takes a prime of a loop, or a power of it, from one slot to another; an order move puts
    another order of the menu at a level.
    """

    def __init__(self, space: Genomes, i: int):
        self.space, self.i, self.layout = space, i, space.layout
        self.limits, self.primes = space.limits[i], space.primes[i]
        rows = []
        for loop, prime, power in self.primes:
            columns = self.open(loop, prime)
            for e in range(1, power + 1):
                step = prime**e
                rows += [
                    (a, b, step, e == 1)
                    for a in columns
                    for b in columns
                    if a != b and min(self.limits[a], self.limits[b]) >= step
                ]
        # Moves: from, to, factor.
        table = np.array(rows, np.int64).reshape(-1, 4)
        self.powers, self.single = table[:, :3], table[table[:, 3] == 1, :3]
        genes = self.layout.genes
        self.loop = np.array([LOOPS.index(d) for d, _ in genes])
        self.spatial = np.array([slot.kind != "temporal" for _, slot in genes])
        self.level = np.array([slot.level for _, slot in genes])
        source, target = (2 * self.level + self.spatial)[self.single[:, :2].T]
        # Which moves go back between the levels that a first one joins.
        self._returns = (source[:, None] == target) & (target[:, None] == source)

    def open(self, loop: int, prime: int) -> list[int]:
        """Columns that can take a prime of a loop."""
        return [c for c in self.layout.columns(LOOPS[loop]) if self.limits[c] >= prime]

    def legal(self, genomes: np.ndarray) -> np.ndarray:
        """Those within the limit of every slot and the fan-out of every axis."""
        factors = genomes[:, : self.layout.factors]
        good = (factors <= self.limits).all(axis=1)
        for columns, fan in self.space.axes:
            good &= factors[:, columns].prod(axis=1) <= fan
        return genomes[good]

    def random(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """``n`` genomes: every prime falls on a slot at random, spatial ones as likely as temporal ones."""
        found: list[np.ndarray] = []
        while sum(map(len, found)) < n:
            batch = np.ones((max(2 * n, 64), self.layout.width), np.int64)
            rows = np.arange(len(batch))
            for loop, prime, power in self.primes:
                columns = self.open(loop, prime)
                for _ in range(power):
                    batch[rows, rng.choice(columns, len(batch))] *= prime
            batch[:, self.layout.factors :] = rng.integers(0, _ORDERS, (len(batch), self.layout.depth - 1))
            found.append(self.legal(batch))
        return np.concatenate(found)[:n]

    # Neighbourhoods of genomes (n, width) -------------------------------------------------------

    def _moved(self, genomes: np.ndarray, steps: np.ndarray, allowed=True) -> tuple[np.ndarray, np.ndarray]:
        """All genomes one of ``steps`` away, and which step led there.  allowed: (n, steps) or True."""
        a, b, factor = steps.T
        possible = allowed & (genomes[:, a] % factor == 0) & (genomes[:, b] * factor <= self.limits[b])
        owner, step = np.nonzero(possible)
        out = genomes[owner]
        rows = np.arange(len(out))
        out[rows, a[step]] //= factor[step]
        out[rows, b[step]] *= factor[step]
        return out, step

    def _reordered(self, genomes: np.ndarray, column) -> np.ndarray:
        """Every order of the menu in a column, one column for all or one per genome."""
        out = np.repeat(genomes, _ORDERS, axis=0)
        columns = np.repeat(np.broadcast_to(column, len(genomes)), _ORDERS)
        out[np.arange(len(out)), columns] = np.tile(np.arange(_ORDERS), len(genomes))
        return out

    def steps(self, genomes: np.ndarray) -> np.ndarray:
        """One prime moved, or one order changed."""
        orders = [self._reordered(genomes, c) for c in range(self.layout.factors, self.layout.width)]
        return np.concatenate([self.legal(self._moved(genomes, self.single)[0]), *orders])

    def ordered_steps(self, genomes: np.ndarray) -> np.ndarray:
        """`steps`, and one prime moved with any order at either of the two levels concerned."""
        moved, step = self._moved(genomes, self.single)
        out = []
        for side in (0, 1):
            column = self.single[step, side]
            here = np.flatnonzero(~self.spatial[column] & (self.level[column] > 0))
            out.append(self._reordered(moved[here], self.layout.factors + self.level[column[here]] - 1))
        return np.concatenate([self.steps(genomes), self.legal(np.concatenate(out))])

    def exchanges(self, genomes: np.ndarray) -> np.ndarray:
        """A prime moved from one level to another, and another prime (of any loop) back."""
        moved, step = self._moved(genomes, self.single)
        return self.legal(self._moved(moved, self.single, self._returns[step])[0])

    def respread(self, genomes: np.ndarray) -> np.ndarray:
        """A spatial factor changed: two moves of a loop by powers of primes, the first of a spatial slot."""
        moved, step = self._moved(genomes, self.powers, self.spatial[self.powers[:, :2]].any(axis=1))
        loop = self.loop[self.powers[:, 0]]
        return self.legal(self._moved(moved, self.powers, loop[step][:, None] == loop)[0])

    def pairs(self, genomes: np.ndarray) -> np.ndarray:
        """Any two primes moved."""
        moved, _ = self._moved(genomes, self.single)
        return self.legal(self._moved(moved, self.single)[0])

    # Evolution ----------------------------------------------------------------------------------

    def children(self, rng: np.random.Generator, genomes: np.ndarray, n: int) -> np.ndarray:
        """``n`` children of GAMMA's operators at its rates (Kao and Krishna, ICCAD 2020).

        genomes: parents, best first. Crossover of tiles (0.57): the tiling of one to all loops from a second
        parent; change of an order (0.47); mutation of tiles (0.53): a loop dealt out anew over time;
        mutation of the parallel dimension (0.1): a prime moved to or from a spatial slot.
        """
        first, second = (rng.integers(0, len(genomes), n) for _ in range(2))
        out = genomes[first].copy()
        cross = rng.random(n) < 0.57
        for loop in range(len(LOOPS)):
            columns = np.array(self.layout.columns(LOOPS[loop]))
            rows = np.flatnonzero(cross & (rng.random(n) < 0.5))[:, None]
            out[rows, columns] = genomes[second[rows], columns]
        swap = np.flatnonzero(rng.random(n) < 0.47)
        column = rng.integers(self.layout.factors, self.layout.width, len(swap))
        out[swap, column] = rng.integers(0, _ORDERS, len(swap))
        if len(self.primes):
            mutate = rng.random(n) < 0.53
            fresh = self.random(rng, n)
            chosen = rng.choice(sorted({loop for loop, _, _ in self.primes}), n)
            for loop in np.unique(chosen):
                columns = np.array(self.layout.columns(LOOPS[loop]))
                rows = np.flatnonzero(mutate & (chosen == loop))[:, None]
                out[rows, columns] = fresh[rows, columns]
        steps = self.single[self.spatial[self.single[:, :2]].any(axis=1)]
        if len(steps):
            rows = np.flatnonzero(rng.random(n) < 0.1)
            a, b, factor = steps[rng.integers(0, len(steps), len(rows))].T
            able = out[rows, a] % factor == 0
            rows, a, b, factor = rows[able], a[able], b[able], factor[able]
            out[rows, a] //= factor
            out[rows, b] *= factor
        return self.legal(out)
