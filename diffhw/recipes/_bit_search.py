"""What every search of bit widths shares: the wish, the count of evaluations, the result."""

import difflib
import time
from dataclasses import dataclass

import numpy as np

from diffhw.recipes._bit_problem import BitProblem

__all__ = ["BitSearch", "BitWish", "Tries", "fitted"]


@dataclass(frozen=True)
class BitWish:
    """What is asked for: an accuracy to come near, a hard budget, or the best accuracy within a budget.

    target: accuracy in [0, 1], or None: as high as possible.  budget: most that may be spent of
    ``metric``, or None.  metric: a key of ``problem.tables``.
    """

    target: float | None = None
    budget: float | None = None
    metric: str = "bytes"

    def check(self, problem: BitProblem) -> "BitWish":
        """Itself. Raises ValueError for an unknown metric, or a target or budget that nothing can meet."""
        if self.metric not in problem.tables:
            near = difflib.get_close_matches(str(self.metric), problem.tables, 1, 0.0)[0]
            raise ValueError(
                f"no metric is called {self.metric!r}, did you mean {near!r}? "
                f"(known: {', '.join(problem.tables)})"
            )
        if self.target is not None and not 0 <= self.target <= 1:
            raise ValueError(f"target must be an accuracy from 0 to 1, got {self.target!r}")
        least = float(problem.tables[self.metric].min(axis=1).sum())
        if self.budget is not None and not self.budget >= least:
            raise ValueError(
                f"a budget of {self.budget:g} {self.metric} fits no configuration of {problem.network}: "
                f"the smallest takes {least:g}"
            )
        return self

    def fits(self, cost) -> np.ndarray:
        """Whether costs are within the budget."""
        cost = np.asarray(cost, float)
        return np.ones(cost.shape, bool) if self.budget is None else cost <= self.budget * (1 + 1e-12)

    def score(self, accuracy, cost) -> np.ndarray:
        """Larger is better: the accuracy, or minus its distance from the target; -inf over the budget."""
        accuracy = np.asarray(accuracy, float)
        value = accuracy if self.target is None else -np.abs(accuracy - self.target)
        return np.where(self.fits(cost), value, -np.inf)


@dataclass(frozen=True)
class BitSearch:
    """What a search found.

    name: of the method.  wish: what was asked.  indices: (K, L) bits - 1, in the order of evaluation (or of
    merit where nothing was evaluated).  accuracy: (K,) really evaluated.  cost: (K,) exact, of the wish's
    metric.  evaluations: networks run by this search, repeats within it not run again.  seconds.
    proposed: (K,) configurations that it had proposed by then, repeats included; None: as many as evaluated.
    note: one sentence on what else it cost.
    """

    name: str
    wish: BitWish
    indices: np.ndarray
    accuracy: np.ndarray
    cost: np.ndarray
    evaluations: int
    seconds: float
    proposed: np.ndarray | None = None
    note: str = ""

    @property
    def score(self) -> np.ndarray:
        """(K,) of `BitWish.score`."""
        return self.wish.score(self.accuracy, self.cost)

    @property
    def best(self) -> int:
        """Row that serves the wish best; of equal ones the cheapest. ValueError if there is none at all."""
        if not len(self.indices):
            raise ValueError(f"{self.name} found no configuration within the budget")
        return int(np.lexsort((self.cost, -self.score))[0])

    @property
    def bits(self) -> np.ndarray:
        """(L,) bit widths of the best."""
        return self.indices[self.best] + 1

    @property
    def feasible(self) -> bool:
        """Whether any row is within the budget."""
        return bool(np.isfinite(self.score).any())

    def kept(self, n: int = 8) -> np.ndarray:
        """Rows of the ``n`` best, best first; only such as are within the budget."""
        order = np.lexsort((self.cost, -self.score))[:n]
        return order[np.isfinite(self.score[order])]

    def evaluations_until(self, score: float, repeats: bool = False) -> int | None:
        """Evaluations after which the best score was at least ``score``; None if it never was.

        repeats: count a configuration each time it was proposed, as a search without a memory would pay.
        """
        reached = np.flatnonzero(self.score >= score - 1e-12)
        if not len(reached):
            return None
        if repeats and self.proposed is not None:
            return int(self.proposed[reached[0]])
        return min(int(reached[0]) + 1, max(self.evaluations, 1))


class Tries:
    """Evaluates configurations for one search: each distinct one once, at most ``limit``, in order.

    A search that comes back to a configuration pays nothing, which favours those that repeat themselves.
    """

    def __init__(self, problem: BitProblem, wish: BitWish, limit: int, name: str):
        if isinstance(limit, bool) or int(limit) != limit or limit < 1:
            raise ValueError(f"{name}: evaluations must be a whole number >= 1, got {limit!r}")
        self.problem, self.wish, self.limit, self.name = problem, wish.check(problem), int(limit), name
        self.begin = time.perf_counter()
        self.rows: list[np.ndarray] = []
        self.accuracy: list[float] = []
        self.proposed: list[int] = []
        self.asked = 0
        self._place: dict[bytes, int] = {}

    @property
    def room(self) -> int:
        """Evaluations left."""
        return self.limit - len(self.rows)

    def known(self, designs: np.ndarray) -> np.ndarray:
        """(N,) whether each was evaluated before."""
        return np.array([_code(row) in self._place for row in designs], bool)

    def value(self, design: np.ndarray) -> float:
        """Accuracy of one that was evaluated; not counted as a proposal."""
        return self.accuracy[self._place[_code(design)]]

    def accuracies(self, designs: np.ndarray) -> np.ndarray:
        """(N,) accuracies; NaN where the limit forbids to evaluate."""
        designs = np.asarray(designs, np.int64)
        fresh: dict[bytes, tuple[int, np.ndarray]] = {}
        for i, row in enumerate(designs):
            code = _code(row)
            if code not in self._place and code not in fresh and len(fresh) < self.room:
                fresh[code] = i, row
        if fresh:
            found = self.problem.evaluate(np.stack([row for _, row in fresh.values()]))
            for (code, (i, row)), value in zip(fresh.items(), found, strict=True):
                self._place[code] = len(self.rows)
                self.rows.append(row)
                self.accuracy.append(float(value))
                self.proposed.append(self.asked + i + 1)
        self.asked += len(designs)
        places = [self._place.get(_code(row)) for row in designs]
        return np.array([np.nan if place is None else self.accuracy[place] for place in places])

    def __call__(self, designs: np.ndarray) -> np.ndarray:
        """(N,) scores; -inf where over the budget, or where the limit forbids to evaluate."""
        accuracy = self.accuracies(designs)
        score = self.wish.score(accuracy, self.problem.cost(self.wish.metric, designs))
        return np.where(np.isnan(accuracy), -np.inf, score)

    def result(self, note: str = "") -> BitSearch:
        """All that was evaluated."""
        indices = np.array(self.rows, np.int64).reshape(-1, len(self.problem.names))
        return BitSearch(
            name=self.name,
            wish=self.wish,
            indices=indices,
            accuracy=np.array(self.accuracy),
            cost=self.problem.cost(self.wish.metric, indices),
            evaluations=len(self.rows),
            seconds=time.perf_counter() - self.begin,
            proposed=np.array(self.proposed, np.int64),
            note=note,
        )


def _code(row: np.ndarray) -> bytes:
    return np.asarray(row, np.int64).tobytes()


def fitted(
    problem: BitProblem, wish: BitWish, designs: np.ndarray, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Designs (N, L) lowered, one bit of one layer at a time, until each is within the budget.

    rng: which layers; without one, all in turn from the first. The smallest configuration is assumed to
    fit, and more bits never to cost less.
    """
    out = np.array(designs, np.int64)
    if wish.budget is None:
        return out
    layer = -1
    over = np.flatnonzero(~wish.fits(problem.cost(wish.metric, out)) & (out > 0).any(axis=1))
    while len(over):
        if rng is None:
            layer = (layer + 1) % out.shape[1]
            chosen = np.full(len(over), layer)
        else:
            chosen = np.argmax(rng.random((len(over), out.shape[1])) * (out[over] > 0), axis=1)
        out[over, chosen] = np.maximum(out[over, chosen] - 1, 0)
        still = ~wish.fits(problem.cost(wish.metric, out[over])) & (out[over] > 0).any(axis=1)
        over = over[still]
    return out
