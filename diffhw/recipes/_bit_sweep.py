"""A whole front of bit widths from one sweep of the layers: every width of every layer, alone.

A layer at few bits keeps a share of the accuracy above chance. The shares of several layers are taken to
multiply (ours; that sensitivities of layers add is what HAWQ-like methods assume, of a loss), so the
logarithm of what is kept adds up over layers, as sizes do, and the best prediction within each budget is a
merge of fronts, exact up to 20,000 points and thinned by rank beyond. Measured on the enumerated network
(docs/performance.md, "Bit widths by AQGAN"); layers that make up for each other, or fail only together, are
not seen.
"""

from dataclasses import dataclass

import numpy as np

from diffhw.recipes._bit_problem import BitProblem

__all__ = ["LayerSweep", "sweep_layers"]

_MOST = 20_000  # points of a front while layers are merged; of more, as many are kept, evenly by rank
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
        designs = self._front(metric)
        cost = np.maximum.accumulate(self.problem.cost(metric, designs))  # equal ones may round apart
        budgets = np.asarray(budgets, float).reshape(-1)
        if not (budgets >= cost[0]).all():
            raise ValueError(
                f"the smallest design takes {cost[0]:g} {metric}, got a budget of {budgets.min():g}"
            )
        return designs[np.searchsorted(cost, budgets, side="right") - 1]

    def _front(self, metric: str) -> np.ndarray:
        """Designs that no other beats by cost and prediction, cheapest first."""
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
                kept = kept[np.linspace(0, len(kept) - 1, _MOST).round().astype(int)]
            cost, lost, designs = cost[kept], lost[kept], designs[kept]
        return designs


def sweep_layers(problem: BitProblem, *, progress=None) -> LayerSweep:
    """Evaluates every width of every layer with all others at the widest.

    problem: `BitProblem`.  progress: called with (done, count, best accuracy so far).
    Raises ValueError for a network that is no better than chance at its widest.
    """
    widest = np.asarray(problem.sizes) - 1
    layers, widths = np.nonzero(np.arange(widest.max()) < widest[:, None])
    rows = np.tile(widest, (1 + len(layers), 1))
    rows[1 + np.arange(len(layers)), layers] = widths
    accuracy = problem.evaluate(rows, progress=progress)
    chance = 1.0 / problem.selection.classes
    if accuracy[0] <= chance:
        said = f"{problem.network} at its widest is right on {accuracy[0]:.1%}"
        raise ValueError(f"{said}, no better than chance: train it first")
    kept = np.maximum((accuracy[1:] - chance) / (accuracy[0] - chance), _KEPT)
    lost = np.full((len(widest), widest.max() + 1), np.inf)
    lost[np.arange(len(widest)), widest] = 0.0
    lost[layers, widths] = -np.log(kept)
    return LayerSweep(problem, lost, float(accuracy[0]), len(rows))
