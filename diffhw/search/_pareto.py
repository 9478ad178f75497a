"""Non-dominated points on the host."""

import numpy as np

__all__ = ["nondominated"]


def nondominated(points: np.ndarray) -> np.ndarray:
    """Positions of the points that no other point dominates, all columns to be made small.

    points: (n, M) floats. Returns positions by ascending first column; of equal points the first is
    kept; rows with NaN or inf are left out.

    >>> nondominated(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0], [3.0, 1.0], [1.0, 3.0]])).tolist()
    [0, 1, 3]
    """
    rows = np.flatnonzero(np.isfinite(points).all(axis=1))
    if points.shape[1] == 0 or len(rows) == 0:
        return rows[:0]
    # In lexicographic order a point can only be dominated by an earlier one.
    rows = rows[np.lexsort((rows, *points[rows].T[::-1]))]
    kept = points[rows]
    if points.shape[1] == 1:
        return rows[:1]
    if points.shape[1] == 2:
        before = np.concatenate([[np.inf], np.minimum.accumulate(kept[:-1, 1])])
        return rows[kept[:, 1] < before]
    front: list[int] = []
    alive = np.ones(len(rows), bool)
    for i in range(len(rows)):
        if alive[i]:
            front.append(i)
            alive[i + 1 :] &= ~np.all(kept[i + 1 :] >= kept[i], axis=1)
    return rows[front]
