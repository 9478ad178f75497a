"""A whole front of bit widths from one sweep of the layers: every width of every layer, alone.

A layer at few bits keeps a share of the accuracy above chance. The shares of several layers are taken to
multiply (ours; that sensitivities of layers add is what HAWQ-like methods assume, of a loss), so the
logarithm of what is kept adds up over layers, as sizes do, and the best prediction within each budget is a
merge of fronts, exact up to 20,000 points and thinned beyond. Measured on the enumerated network
(docs/performance.md, "Bit widths by AQGAN"); layers that make up for each other, or fail only together, are
not seen.
"""

from dataclasses import dataclass

import numpy as np

from diffhw.recipes._bit_problem import BitProblem

__all__ = ["LayerSweep", "sweep_layers"]

_MOST = 20_000  # points of a front while layers are merged; more are thinned evenly over cost
_KEPT = 1e-3  # share of the accuracy above chance below which nothing is told apart


@dataclass(frozen=True)
class LayerSweep:
    """What a sweep found. Of a problem with L layers and B widths at most.

    lost:        (L, B) -log of the share of the accuracy above chance that is left with one layer at that
        width and all others at the widest; inf where a layer has no such width.
    full:        accuracy with all layers at the widest.
    evaluations: that the sweep took, 1 + the sum of (widths - 1).
    """

    problem: BitProblem
    lost: np.ndarray
    full: float
    evaluations: int

    def predict(self, designs) -> np.ndarray:
        """(N,) accuracies of designs (N, L), indices of widths."""
        designs = np.asarray(designs)
        lost = self.lost[np.arange(len(self.problem.sizes)), designs].sum(axis=-1)
        chance = 1.0 / self.problem.selection.classes
        return chance + (self.full - chance) * np.exp(-lost)

    def suite(self, budgets, metric: str = "bytes") -> np.ndarray:
        """(N, L) the design of the best prediction within each budget (N,), no evaluation.

        Raises ValueError for an unknown metric, or a budget that no design keeps.
        """
        cost, designs = self._front(metric)
        budgets = np.asarray(budgets, float).reshape(-1)
        if not (budgets >= cost[0] * (1 - 1e-12)).all():
            raise ValueError(
                f"the smallest design takes {cost[0]:g} {metric}, got a budget of {budgets.min():g}"
            )
        at = np.searchsorted(cost, budgets * (1 + 1e-12), side="right") - 1
        return designs[at]

    def _front(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Costs and designs that no other beats by prediction, cheapest first."""
        if metric not in self.problem.tables:
            raise ValueError(f"no metric is called {metric!r}: known are {', '.join(self.problem.tables)}")
        table = np.asarray(self.problem.tables[metric], float)
        cost, lost = np.zeros(1), np.zeros(1)
        designs = np.zeros((1, 0), int)
        for layer, size in enumerate(self.problem.sizes):
            cost = (cost[:, None] + table[layer, :size]).ravel()
            lost = (lost[:, None] + self.lost[layer, :size]).ravel()
            wide = np.tile(np.arange(size), len(designs))[:, None]
            designs = np.hstack([np.repeat(designs, size, axis=0), wide])
            order = np.lexsort((lost, cost))
            least = np.minimum.accumulate(lost[order])
            first = np.concatenate([[True], least[1:] < least[:-1]])
            kept = order[first]
            if len(kept) > _MOST:
                kept = kept[np.unique(np.linspace(0, len(kept) - 1, _MOST).round().astype(int))]
            cost, lost, designs = cost[kept], lost[kept], designs[kept]
        return cost, designs


def sweep_layers(problem: BitProblem, *, progress=None) -> LayerSweep:
    """Evaluates every width of every layer with all others at the widest.

    problem: `BitProblem`.  progress: called with (done, count, best accuracy so far).
    Raises ValueError for a network that is no better than chance at its widest.
    """
    sizes = np.asarray(problem.sizes)
    widest = sizes - 1
    rows = [widest]
    where = []
    for layer, size in enumerate(sizes):
        for width in range(size - 1):
            one = widest.copy()
            one[layer] = width
            rows.append(one)
            where.append((layer, width))
    accuracy = problem.evaluate(np.array(rows), progress=progress)
    chance = 1.0 / problem.selection.classes
    if accuracy[0] <= chance:
        said = f"{problem.network} at its widest is right on {accuracy[0]:.1%}"
        raise ValueError(f"{said}, no better than chance: train it first")
    kept = np.clip((accuracy[1:] - chance) / max(accuracy[0] - chance, _KEPT), _KEPT, None)
    lost = np.full((len(sizes), sizes.max()), np.inf)
    lost[np.arange(len(sizes)), widest] = 0.0
    for (layer, width), share in zip(where, kept, strict=True):
        lost[layer, width] = -np.log(share)
    return LayerSweep(problem, lost, float(accuracy[0]), len(rows))
