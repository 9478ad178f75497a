"""What a sweep keeps on the host: the best designs and the front, whatever order they arrive in.

Of equal figures the design at the smaller position comes first, so the outcome is a function of the
set of designs that were evaluated.
"""

import math
from dataclasses import dataclass

import numpy as np

from diffhw.search._sweep_order import Enumerated, SweepOrder

__all__ = ["Found", "Front", "Leaders", "empty", "join"]

_ROWS = 512  # points compared at once


@dataclass(frozen=True)
class Found:
    """Designs by position, (n,) int64, and their figures, F x (n,)."""

    at: np.ndarray
    figures: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.at)

    def take(self, rows) -> "Found":
        """Some of them."""
        return Found(self.at[rows], tuple(column[rows] for column in self.figures))


def empty(figures: int, dtype) -> Found:
    """No designs."""
    return Found(np.zeros(0, np.int64), (np.zeros(0, dtype),) * figures)


def join(parts: list[Found]) -> Found:
    """All of them."""
    columns = zip(*(part.figures for part in parts), strict=True)
    return Found(np.concatenate([part.at for part in parts]), tuple(map(np.concatenate, columns)))


class Leaders:
    """The best ``count`` different designs by their first figure."""

    def __init__(self, order: SweepOrder, count: int, blank: Found):
        self.order, self.count, self.found = order, count, blank

    def add(self, new: Found) -> None:
        """Merge."""
        self.found = self.best(join([self.found, new]))

    def best(self, found: Found) -> Found:
        """The best of some, ascending."""
        found = found.take(np.lexsort((found.at, found.figures[0])))
        return found.take(self.different(found)[: self.count])

    def different(self, found: Found) -> np.ndarray:
        """Rows that do not repeat the design of an earlier one."""
        if isinstance(self.order, Enumerated):
            return np.flatnonzero(np.concatenate([[True], found.at[1:] != found.at[:-1]])[: len(found)])
        _, rows = np.unique(self.order.index(found.at), axis=0, return_index=True)
        return np.sort(rows)

    @property
    def bar(self) -> float:
        """Designs from here on do not matter: just above the last of a full list."""
        if len(self.found) < self.count:
            return math.inf
        worst = self.found.figures[0][-1]
        return float(np.nextafter(worst, np.array(np.inf, worst.dtype)))


class Front:
    """The non-dominated designs. metrics: which figures count."""

    def __init__(self, metrics: list[int], blank: Found):
        self.metrics, self.found = metrics, blank

    def points(self, found: Found) -> np.ndarray:
        """(n, M)."""
        return np.stack([found.figures[m] for m in self.metrics], axis=1)

    def add(self, new: Found) -> Found:
        """Merge, and return those of the new ones that no other beats."""
        if not self.metrics:
            return new.take(slice(0, 0))
        new = self.least(new.take(np.isfinite(self.points(new)).all(axis=1)))
        new = new.take(~self._beaten(new, self.found))
        old = self.found.take(~self._beaten(self.found, new))
        self.found = join([old, new])
        self.found = self.found.take(np.lexsort((self.found.at, *self.points(self.found).T[::-1])))
        return new

    def least(self, found: Found) -> Found:
        """The front of some, by ascending first metric."""
        found = found.take(np.lexsort((found.at, *self.points(found).T[::-1])))
        kept = found.take(slice(0, 0))
        for begin in range(0, len(found), _ROWS):  # a point is only ever beaten by an earlier one
            some = found.take(slice(begin, begin + _ROWS))
            some = some.take(~self._beaten(some, kept))
            kept = join([kept, some.take(~self._beaten(some, some))])
        return kept

    def _beaten(self, found: Found, others: Found) -> np.ndarray:
        """Which of them some other beats: nowhere above, and lower somewhere or at a smaller position."""
        beaten = np.zeros(len(found), bool)
        mine, theirs = self.points(found), self.points(others)
        for begin in range(0, len(found) if len(others) else 0, _ROWS):
            rows = slice(begin, begin + _ROWS)
            below = np.ones((len(others), len(mine[rows])), bool)
            same = below.copy()
            for m in range(len(self.metrics)):
                below &= theirs[:, m, None] <= mine[None, rows, m]
                same &= theirs[:, m, None] == mine[None, rows, m]
            later = others.at[:, None] >= found.at[None, rows]
            beaten[rows] = (below & ~(same & later)).any(axis=0)
        return beaten

    def known(self, position: int, count: int) -> np.ndarray:
        """Points to hand to the device for designs from ``position`` on: (n, M), spread along the front.

        The device drops what equals such a point. Where the point's own position is not smaller it is
        moved up by one unit in the last place, so that the equal design at the smaller position survives.
        """
        if not self.metrics or not len(self.found):
            return np.zeros((0, len(self.metrics)))
        some = self.found.take(np.unique(np.linspace(0, len(self.found) - 1, count).round().astype(int)))
        points = self.points(some)
        up = np.nextafter(points, np.array(np.inf, points.dtype))
        return np.where((some.at < position)[:, None], points, up)
