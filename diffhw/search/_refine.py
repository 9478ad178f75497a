"""Block refinement: scan whole planes of a space through a start, until no scan helps.

Coordinate descent stops where two variables must change together: the product rows x cols must
divide a layer, one buffer must grow as another shrinks. A block is a set of variables of which every
combination is tried; pair moves (+-1 in two variables at once) tie the blocks together.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jax import Array

from diffhw.search._archive import Archive, Progress
from diffhw.search._pareto import nondominated
from diffhw.search._result import SearchResult, finish, key_of
from diffhw.spaces import Space

__all__ = ["Blocks", "Refiner", "default_blocks", "refine"]

Blocks = Sequence[Sequence[str | int]]

_BLOCK = 1000  # combinations of a default block: one or two calls' worth for a few starts
_FULL = 256  # values up to which a variable is scanned completely
_RUNNERS_UP = 4  # of each kind in a round of `Refiner.widen`
_PAIRS = 4096  # pair moves per start; with more variables than this allows, single moves only


def _ladder(size: int, here: int) -> np.ndarray:
    """Values tried for one variable: all of a short list, else doubling distances around ``here``."""
    if size <= _FULL:
        return np.arange(size)
    reach = 2 ** np.arange(size.bit_length())
    values = np.concatenate([[here], here - reach, here + reach])
    return np.unique(values[(values >= 0) & (values < size)])


def default_blocks(space: Space) -> list[list[int]]:
    """Variables grouped, the longest first, into blocks of up to about 1,000 combinations.

    >>> from diffhw.spaces import Choice, Integer
    >>> grid = lambda: Integer(4, 256, per_octave=4)
    >>> default_blocks(Space([Integer(1, 8), grid(), Integer(1, 8), grid(), Choice(("os", "ws"))]))
    [[1, 3], [0, 2, 4]]
    """
    counts = [len(_ladder(size, size // 2)) for size in space.sizes]
    blocks: list[list[int]] = []
    for v in sorted(range(len(counts)), key=lambda v: -counts[v]):
        if blocks and math.prod(counts[u] for u in blocks[-1]) * counts[v] <= _BLOCK:
            blocks[-1].append(v)
        else:
            blocks.append([v])
    return [sorted(block) for block in blocks]


def _resolved(space: Space, blocks: Blocks | None) -> list[list[int]]:
    if blocks is None:
        return default_blocks(space)
    resolved = [[space.position(v) if isinstance(v, str) else int(v) for v in block] for block in blocks]
    for block in resolved:
        if not block or not all(0 <= v < len(space.sizes) for v in block):
            raise ValueError(
                f"a block lists variables 0 to {len(space.sizes) - 1} or their names, got {block}"
            )
    return resolved


def _block_scan(space: Space, block: list[int]) -> Callable[[np.ndarray], np.ndarray]:
    def scan(here: np.ndarray) -> np.ndarray:
        values = [_ladder(space.sizes[v], int(here[v])) for v in block]
        grid = np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, len(block))
        rows = np.repeat(here[None], len(grid), axis=0)
        rows[:, block] = grid
        return rows

    return scan


def _pair_scan(space: Space) -> Callable[[np.ndarray], np.ndarray]:
    def scan(here: np.ndarray) -> np.ndarray:
        steps = [slot.variable.steps(int(i)) for slot, i in zip(space.variables, here, strict=True)]
        moves: list[tuple] = [((v, i),) for v, options in enumerate(steps) for i in options]
        counts = [len(options) for options in steps]
        if (sum(counts) ** 2 - sum(n * n for n in counts)) // 2 <= _PAIRS:
            moves += [
                ((u, i), (v, j))
                for u in range(len(steps))
                for v in range(u + 1, len(steps))
                for i in steps[u]
                for j in steps[v]
            ]
        rows = np.repeat(here[None], len(moves), axis=0)
        for row, move in zip(rows, moves, strict=True):
            for v, i in move:
                row[v] = i
        return rows

    return scan


class Refiner:
    """The scans of a space: blocks and pair moves, around any design of an archive."""

    def __init__(self, archive: Archive, blocks: Blocks | None = None, pairs: bool = True):
        self.archive = archive
        self.scans = [_block_scan(archive.space, block) for block in _resolved(archive.space, blocks)]
        if pairs:
            self.scans.append(_pair_scan(archive.space))
        self._done: set[int] = set()

    def descend(self, starts: np.ndarray) -> np.ndarray:
        """Refine several starts (S, V) side by side; returns the rows they end in, duplicates merged.

        Each scan is one batch over all starts that still move; feasible counts before better, and
        starts that meet go on as one. Stops at the archive's budget.
        """
        archive = self.archive
        current = np.unique(archive.evaluate(starts))
        current = current[current >= 0]
        moving = np.ones(len(current), bool)
        while moving.any() and not archive.exhausted:
            moved = np.zeros(len(current), bool)
            for scan in self.scans:
                who = np.flatnonzero(moving)
                candidates = [scan(archive.index[row]) for row in current[who]]
                rows = archive.evaluate(np.concatenate(candidates))
                ends = np.cumsum([len(c) for c in candidates])
                for s, found in zip(who, np.split(rows, ends[:-1]), strict=True):
                    if len(found) and archive.score(best := archive.best_of(found)) < archive.score(
                        current[s]
                    ):
                        current[s], moved[s] = best, True
            moving &= moved
            # A start that came where another one is has nothing new to find there.
            _, first = np.unique(current, return_index=True)
            current, moving = current[first], moving[first]
        self._done.update(current.tolist())
        return current

    def widen(self, rounds: int) -> None:
        """Scan around the runners-up too, until ``rounds`` rounds in a row brought nothing better.

        A limit couples what the blocks keep apart: a larger array is only legal with smaller buffers,
        so the plane of the array shows it as infeasible. A round therefore scans around the best
        designs not scanned yet, the feasible ones and the slightly infeasible ones that would be better.
        """
        archive, idle = self.archive, 0
        while idle < rounds and not archive.exhausted:
            best = archive.best_row
            chosen = self._runners_up()
            if not len(chosen):
                return
            self._done.update(chosen.tolist())
            around = [scan(archive.index[row]) for row in chosen for scan in self.scans]
            archive.evaluate(np.concatenate(around))
            idle += 1
            if archive.best_row != best:
                idle = 0
                self.descend(archive.index[archive.best_row][None])

    def _runners_up(self) -> np.ndarray:
        archive = self.archive
        fresh = np.ones(len(archive), bool)
        fresh[list(self._done)] = False
        legal = archive.order(np.flatnonzero(fresh & (archive.violation == 0)))[:_RUNNERS_UP]
        _, best = archive.score(archive.best_row)
        tempting = np.flatnonzero((archive.violation > 0) & (archive.objective < best))
        # Best objective for its violation, the least violation first.
        front = tempting[nondominated(np.stack([archive.violation, archive.objective], 1)[tempting])]
        return np.concatenate([legal, front[fresh[front]][:_RUNNERS_UP]])


def refine(
    objective: Callable,
    space: Space,
    starts,
    *,
    constraints: Sequence[tuple] = (),
    metrics: Sequence = (),
    budget: float | None = None,
    progress: Progress | None = None,
    blocks: Blocks | None = None,
    pairs: bool = True,
    widen: int = 2,
    resume: SearchResult | None = None,
    key: Array | int = 0,
) -> SearchResult:
    """Block refinement of given starts.

    objective, constraints, metrics, budget, progress, resume: as for `search.gradient`.
    starts: index vectors, shape (S, V) or (V,).
    blocks: lists of variable names or numbers; all combinations of a block are scanned (a variable
        of more than 256 values: a ladder of doubling distances). Default: `default_blocks`.
    pairs: also try +-1 in every variable and pair of variables.
    widen: then also scan around the best designs not scanned yet, until so many rounds in a row brought
        nothing better (each is at most 8 designs).
    key: only recorded; refinement is deterministic.
    """
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
    starts = np.atleast_2d(np.asarray(starts, np.int32))
    if starts.shape[1] != len(space.sizes):
        raise ValueError(f"starts are index vectors of {len(space.sizes)} entries, got shape {starts.shape}")
    refiner = Refiner(archive, blocks, pairs)
    ends = refiner.descend(starts)
    refiner.widen(widen)
    if resume is not None and resume.visited is not None:
        ends = np.concatenate([archive.evaluate(resume.visited.index), ends])  # all known: costs nothing
    return finish(archive, "refine", key_of(key), visited=ends)
