"""Every design evaluated in one search, once: the only place where evaluations are counted."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from diffhw.search._problem import Constraint, Problem, constraints_of, problem_of
from diffhw.spaces import Space

__all__ = ["Archive", "violation_of"]

Progress = Callable[[float, float, float], None]


def violation_of(objective: np.ndarray, constrained: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Largest relative excess over the limits, (n,): 0 if feasible, inf if any figure is not a number."""
    excess = constrained / limits - 1.0
    worst = np.max(excess, axis=1, initial=0.0)
    broken = ~np.isfinite(objective) | np.isnan(excess).any(axis=1)
    return np.where(broken, np.inf, worst)


class Archive:
    """Index vectors with their figures, a budget, a clock and the history of the best.

    index: (n, V) int32.  objective, violation: (n,).  constrained: (n, C).  metrics: (n, M).
    Row -1 is a design that the budget left out: infinitely bad.
    """

    def __init__(
        self,
        objective: Callable,
        space: Space,
        *,
        constraints: Sequence[tuple] = (),
        metrics: Sequence = (),
        budget: float | None = None,
        progress: Progress | None = None,
        resume=None,
    ):
        if budget is not None and not budget > 0:
            raise ValueError(f"budget must be > 0 evaluations, got {budget}")
        self.constraints: tuple[Constraint, ...] = constraints_of(constraints)
        self.limits = np.array([one.limit for one in self.constraints], np.float64)
        measures = tuple(one.measure for one in self.constraints)
        self.problem: Problem = problem_of(objective, space, measures, tuple(metrics))
        self.space, self.budget, self.progress = space, budget, progress
        self.expected = float(budget or 0)
        self.evaluations, self.gradient_evaluations, self.gradient_cost = 0.0, 0, 1.0
        self.best_row = -1
        self.rounds = 0
        self._rows: dict[bytes, int] = {}
        self._size = 0
        self._allocate(1024)
        self._history: list[tuple[float, float, float]] = []
        self._excluded = self._told = self._earlier = 0.0
        self._compiled = self.problem.compile_seconds
        self._begin = time.perf_counter()
        if resume is not None:
            self._load(resume)

    def _allocate(self, capacity: int) -> None:
        def grown(old, shape, dtype, fill):
            new = np.full((capacity, *shape), fill, dtype)
            if old is not None:
                new[: self._size] = old[: self._size]
            return new

        wide = (len(self.space.sizes), len(self.constraints), len(self.problem.metrics))
        self._index = grown(getattr(self, "_index", None), wide[:1], np.int32, 0)
        self._constrained = grown(getattr(self, "_constrained", None), wide[1:2], np.float64, np.inf)
        self._metrics = grown(getattr(self, "_metrics", None), wide[2:], np.float64, np.inf)
        self._objective = grown(getattr(self, "_objective", None), (), np.float64, np.inf)
        self._violation = grown(getattr(self, "_violation", None), (), np.float64, np.inf)

    def _load(self, result) -> None:
        figures = result.seen.figures
        c = 1 + len(self.constraints)
        if figures.shape[1] != c + len(self.problem.metrics):
            raise ValueError("resume: the earlier search had other constraints or metrics")
        self.add(result.seen.index, figures[:, 0], figures[:, 1:c], figures[:, c:])
        self.restore(result)

    def restore(self, result) -> None:
        """Go on with the counts and the history of an earlier result."""
        self.evaluations, self._earlier = result.evaluations, result.seconds
        self.gradient_evaluations, self.gradient_cost = result.gradient_evaluations, result.gradient_cost
        self.rounds = result.rounds
        self._history = list(
            zip(*[result.history[k] for k in ("evaluations", "seconds", "best")], strict=True)
        )

    # What is known ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._size

    @property
    def index(self) -> np.ndarray:
        """(n, V) int32."""
        return self._index[: self._size]

    @property
    def objective(self) -> np.ndarray:
        """(n,); inf where it is not a number."""
        return self._objective[: self._size]

    @property
    def constrained(self) -> np.ndarray:
        """(n, C)."""
        return self._constrained[: self._size]

    @property
    def metrics(self) -> np.ndarray:
        """(n, M)."""
        return self._metrics[: self._size]

    @property
    def violation(self) -> np.ndarray:
        """(n,); 0 where feasible."""
        return self._violation[: self._size]

    @property
    def seconds(self) -> float:
        """Search time so far: compiling and timing the gradient are left out."""
        return self._earlier + time.perf_counter() - self._begin - self._excluded - self.compile_seconds

    @property
    def compile_seconds(self) -> float:
        """Time this search spent compiling."""
        return self.problem.compile_seconds - self._compiled

    @property
    def exhausted(self) -> bool:
        """True once the budget is spent."""
        return self.budget is not None and self.evaluations >= self.budget

    def score(self, row: int) -> tuple[float, float]:
        """(violation, objective) of a row: smaller is better, feasible first."""
        return float(self._violation[row]), float(self._objective[row])

    def best_of(self, rows: np.ndarray) -> int:
        """The best of some rows, feasible first."""
        violation = self._violation[rows]
        best = violation == violation.min()
        return int(rows[np.argmin(np.where(best, self._objective[rows], np.inf))])

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Rows from best to worst; ties by row."""
        return rows[np.lexsort((rows, self._objective[rows], self._violation[rows]))]

    # What is added ---------------------------------------------------------------------------

    def add(self, index, objective, constrained, metrics) -> np.ndarray:
        """Store figures computed elsewhere (nothing is counted); returns rows (n,)."""
        index = np.ascontiguousarray(index, np.int32)
        rows = np.empty(len(index), np.int64)
        fresh = []
        for i, key in enumerate(_keys(index)):
            row = self._rows.setdefault(key, self._size + len(fresh))
            if row == self._size + len(fresh):
                fresh.append(i)
            rows[i] = row
        if fresh:
            self._append(index[fresh], objective[fresh], constrained[fresh], metrics[fresh])
        return rows

    def _append(self, index, objective, constrained, metrics) -> None:
        end = self._size + len(index)
        if end >= len(self._objective):  # the last slot stays free: it is row -1
            self._allocate(2 * end)
        here = slice(self._size, end)
        objective = np.asarray(objective, np.float64)
        self._index[here], self._constrained[here], self._metrics[here] = index, constrained, metrics
        self._objective[here] = np.where(np.isfinite(objective), objective, np.inf)
        self._violation[here] = violation_of(objective, self._constrained[here], self.limits)
        self._size = end
        best = self.best_of(np.arange(here.start, end))
        if self.score(best) < self.score(self.best_row):
            self.best_row = best

    def evaluate(self, index: np.ndarray) -> np.ndarray:
        """Rows (n,) of index vectors (n, V); only the new ones cost an evaluation each."""
        index = np.ascontiguousarray(index, np.int32)
        keys = _keys(index)
        new: dict[bytes, int] = {}
        for i, key in enumerate(keys):
            if key not in self._rows and key not in new:
                new[key] = i
        if self.budget is not None:
            left = max(0, int(self.budget - self.evaluations))
            new = dict(list(new.items())[:left])
        if new:
            chosen = index[list(new.values())]
            figures = self.problem.evaluate(chosen)
            for offset, key in enumerate(new):
                self._rows[key] = self._size + offset
            self._append(chosen, *figures)
            self.count(len(chosen))
        return np.array([self._rows.get(key, -1) for key in keys], np.int64)

    def count(self, evaluations: float) -> None:
        """Charge evaluations, and note the history."""
        violation, best = self.score(self.best_row)
        self.note(evaluations, best if violation == 0 else np.inf)

    def note(self, evaluations: float, best: float) -> None:
        """Charge evaluations with the best feasible objective known after them."""
        self.evaluations += evaluations
        self._history.append((self.evaluations, self.seconds, best))
        now = time.perf_counter()
        if self.progress is not None and now - self._told > 0.1:
            self._told = now
            self.progress(self.evaluations, max(self.expected, self.evaluations), best)

    def exclude(self, seconds: float) -> None:
        """Leave a measurement out of the search time."""
        self._excluded += seconds

    @property
    def history(self) -> dict[str, np.ndarray]:
        """Columns evaluations, seconds, best (inf before the first feasible design)."""
        table = np.array(self._history, np.float64).reshape(-1, 3)
        return {"evaluations": table[:, 0], "seconds": table[:, 1], "best": table[:, 2]}


def _keys(index: np.ndarray) -> list[bytes]:
    """One hashable key per row, whatever the size of the space."""
    width = index.shape[1] * index.itemsize
    return [] if not len(index) else index.view(np.dtype((np.void, width))).ravel().tolist()
