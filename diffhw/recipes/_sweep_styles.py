"""Well-known dataflows as tables over numbers of PEs, so that a sweep may choose both.

`mappings.style` cuts clusters to the PEs there are, which is host work. A program changes with the PEs only
while there are few of them, so a few classes of PEs cover every design, and most numbers of a program are
the same in all classes and styles: only the others are looked up.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.mappings import Dataflow, Program, fit, style
from diffhw.workloads import Network

__all__ = ["StyleTable"]


class StyleTable:
    """Programs of ``styles`` on the rows of a concrete network for every number in ``pes`` (ascending).

    entries: [(rows, styles x classes) or (rows,) per leaf of a `Dataflow`, then whether a style applies].
    bounds:  the smallest number of PEs of each class but the first.
    Raises ValueError for a style that cannot be written for some layer with any number of the PEs.
    """

    def __init__(self, network: Network, styles: Sequence[str], pes: np.ndarray):
        self.styles = tuple(styles)
        self._network = network
        self._made: dict = {}
        self._sizes = [int(n) for n in pes]
        starts = {0}
        for name in styles:
            self._split(name, 0, len(self._sizes) - 1, starts)
        firsts = sorted(starts)
        self.bounds = [float(self._sizes[i]) for i in firsts[1:]]
        grid = [[self._table(name, self._sizes[i]) for i in firsts] for name in styles]
        for name, row in zip(styles, grid, strict=True):
            if not any(applies.all() for _, applies in row):
                self._refuse(name)
        self._structure = jax.tree.structure(grid[0][0][0])
        columns = zip(*(jax.tree.leaves(flow) for row in grid for flow, _ in row), strict=True)
        self.entries: list = []
        for column in columns:
            stacked = np.stack(column, axis=1)
            same = (stacked == stacked[:, :1]).all()
            self.entries.append(stacked[:, 0] if same else stacked)
        self.entries.append(np.stack([applies for row in grid for _, applies in row], axis=1))

    def _table(self, name: str, pes: int) -> tuple[Dataflow, np.ndarray]:
        """Leaves (rows,) float64, and 1.0 for the rows that the style can be written for."""
        if (name, pes) in self._made:
            return self._made[name, pes]
        programs, applies = [], []
        for layer in self._layers():
            try:
                program = style(name, layer, pes)
                assert isinstance(program, Program)
                fit(program, layer, pes)
            except ValueError:
                program = style("cp_nlr", layer, pes)  # a stand-in that is never looked at
                applies.append(0.0)
            else:
                applies.append(1.0)
            programs.append(program)
        cut = lambda leaf: np.asarray(leaf, np.float64)[: self._network.size]
        flow = jax.tree.map(cut, fit(programs, self._network, pes))
        self._made[name, pes] = flow, np.asarray(applies)
        return self._made[name, pes]

    def _layers(self):
        if not hasattr(self, "_rows"):
            self._rows = jax.tree.map(np.asarray, self._network).rows()
        return self._rows

    def _same(self, name: str, a: int, b: int) -> bool:
        pair = [jax.tree.leaves(self._table(name, self._sizes[i])) for i in (a, b)]
        return all(np.array_equal(x, y) for x, y in zip(*pair, strict=True))

    def _split(self, name: str, low: int, high: int, starts: set) -> None:
        # Clusters only grow with the PEs: what is equal at both ends is equal between them.
        if low == high or self._same(name, low, high):
            return
        if high == low + 1:
            starts.add(high)
            return
        middle = (low + high) // 2
        self._split(name, low, middle, starts)
        self._split(name, middle, high, starts)

    def _refuse(self, name: str) -> None:
        """Say why a style cannot be swept."""
        most = self._sizes[-1]
        for layer, title in zip(self._layers(), self._network.names, strict=True):
            try:
                program = style(name, layer, most)
                assert isinstance(program, Program)
                fit(program, layer, most)
            except ValueError as error:
                raise ValueError(f"dataflow {name!r} on layer {title!r}: {error}") from None

    # Traced -----------------------------------------------------------------------------------

    def picker(self, weights, pes) -> Callable[[list], tuple[Dataflow, Any]]:
        """Function of one row of ``entries`` to (`Dataflow` with leaves (), 1.0 if the style applies).

        weights: one-hot over the styles, shape (S,), or None for the only one.  pes: of the design, shape ().
        """
        at = jnp.zeros((), jnp.int32)
        for bound in self.bounds:
            at = at + (pes >= bound)
        if weights is not None and len(self.styles) > 1:
            at = at + (len(self.bounds) + 1) * jnp.argmax(weights).astype(jnp.int32)

        def of_row(entries: list) -> tuple[Dataflow, Any]:
            leaves = [_look_up(entry, at) for entry in entries]
            return jax.tree.unflatten(self._structure, leaves[:-1]), leaves[-1]

        return of_row


def _look_up(entry, at):
    """An entry of a short table by comparisons, of a long one by its index."""
    if entry.ndim == 0:
        return entry
    if entry.shape[0] > 16:
        return entry.at[at].get(mode="clip")
    value = entry[0]
    for i in range(1, entry.shape[0]):
        value = jnp.where(at == i, entry[i], value)
    return value
