"""Sweeps that write down every design: a program that hands all figures to the host, and Parquet tables."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from diffhw.search._sweep_front import Found, Front, Leaders
from diffhw.search._sweep_order import SweepOrder
from diffhw.spaces import Space

__all__ = ["FullProgram", "leaders_of", "parquet", "survivors_of", "table_of", "variable_columns"]

_STRONG = 32  # points with which all designs of a chunk are compared
_FEW = 256  # designs that are left to the exact comparison
_LISTED = 2**16  # legal values of a variable that are labelled once for all chunks


class FullProgram:
    """All figures of all designs of a chunk. names: which figures.  devices: local ones."""

    def __init__(
        self, order: SweepOrder, evaluate: Callable, names: tuple[str, ...], chunk: int, devices: Sequence
    ):
        self.order, self.evaluate, self.names = order, evaluate, names
        self.mesh = Mesh(np.array(devices), ("population",))
        self.steps = -(-chunk // (order.block * len(devices)))
        sharded = jax.shard_map(
            self._part, mesh=self.mesh, in_specs=(P(),), out_specs=P("population"), check_vma=False
        )
        self._run: Any = jax.jit(sharded)

    def compile(self, position: int) -> None:
        """Compile, so that the time of it can be told apart."""
        self._run = self._run.lower(self.order.start(position)).compile()

    def start(self, position: int) -> dict[str, Array]:
        """Dispatch the chunk that begins at ``position``."""
        return self._run(self.order.start(position))

    def read(self, running: dict[str, Array], count: int) -> dict[str, np.ndarray]:
        """Wait; the first ``count`` designs in order, each figure (count,)."""
        flat = {}
        for name, value in running.items():
            parts = np.asarray(value)  # (devices, steps, block): device d has blocks d, d + devices, ...
            flat[name] = np.ascontiguousarray(parts.swapaxes(0, 1)).reshape(-1)[:count]
        return flat

    def _part(self, start) -> dict[str, Array]:
        device, devices = lax.axis_index("population").astype(jnp.int32), self.mesh.size
        dtype = jnp.result_type(float)

        def one(carry, step):
            values = self.order.figures(self.evaluate, start, (step * devices + device) * self.order.block)
            return carry, {name: values[name].astype(dtype).reshape(-1) for name in self.names}

        _, figures = lax.scan(one, 0, jnp.arange(self.steps, dtype=jnp.int32))
        return {name: value[None] for name, value in figures.items()}


def variable_columns(space: Space, names: Sequence[str]) -> list[tuple[str, Any]]:
    """Name of the column and labels (None if too many to list) of each variable; ``names`` are taken."""
    columns = []
    for slot in space.variables:
        name = slot.name if slot.name not in names else f"variable {slot.name}"
        labels = None if slot.size > _LISTED else [slot.variable.label(i) for i in range(slot.size)]
        columns.append((name, labels))
    return columns


def table_of(
    space: Space, index: np.ndarray, at: np.ndarray, figures: dict[str, np.ndarray], columns
) -> dict[str, Any]:
    """Columns: "design" (position), the value of each variable, the figures."""
    table: dict[str, Any] = {"design": at}
    for v, (name, labels) in enumerate(columns):
        digits = index[:, v]
        if labels is None:
            used, digits = np.unique(digits, return_inverse=True)
            labels = [space.variables[v].variable.label(int(i)) for i in used]
        table[name] = (labels, digits)
    return table | figures


def parquet(table: dict[str, Any]) -> bytes:
    """A Parquet file. A column is an array, or (labels, places). The same table gives the same bytes.

    Raises ImportError naming the extra if pyarrow is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError("a record needs pyarrow: pip install 'diffhw[sweep]'") from None
    arrays, listed = {}, []
    for name, column in table.items():
        if isinstance(column, tuple):
            labels, places = column
            listed.append(name)
            if labels and isinstance(labels[0], str):
                places = pyarrow.array(np.asarray(places, np.int32))
                arrays[name] = pyarrow.DictionaryArray.from_arrays(places, pyarrow.array(labels, "string"))
                continue
            whole = all(isinstance(label, int) for label in labels)
            column = np.asarray(labels, np.int64 if whole else np.float64)[np.asarray(places)]
        arrays[name] = pyarrow.array(column)
    sink = io.BytesIO()
    coded = {"design": "DELTA_BINARY_PACKED"} if "design" in arrays else None
    pyarrow.parquet.write_table(
        pyarrow.table(arrays), sink, compression="zstd", use_dictionary=listed, column_encoding=coded
    )
    return sink.getvalue()


def leaders_of(leaders: Leaders, found: Found) -> Found:
    """The best different designs of many legal ones."""
    count, value = 2 * leaders.count, found.figures[0]
    while True:
        rows = np.flatnonzero(value < np.inf)
        if len(rows) > count:
            rows = rows[value[rows] <= np.partition(value[rows], count - 1)[count - 1]]
        best = leaders.best(found.take(rows))
        if len(best) == leaders.count or count >= len(found):
            return best
        count *= 4  # the same designs were drawn again and again


def survivors_of(front: Front, found: Found) -> Found:
    """Those of many designs that a few strong ones among them, and in the front, do not beat."""
    points = [found.figures[m] for m in front.metrics]
    left = np.flatnonzero(np.isfinite(points).all(axis=0))
    columns = [point[left] for point in points]
    strong = front.known(0, _STRONG)
    for r in range(2 * _STRONG):
        if len(left) < _FEW:
            break
        own = np.argmin(_shares(columns)) if r >= len(strong) else 0
        best = strong[r] if r < len(strong) else [column[own] for column in columns]
        within = functools.reduce(np.logical_and, (c >= b for c, b in zip(columns, best, strict=True)))
        above = functools.reduce(np.logical_or, (c > b for c, b in zip(columns, best, strict=True)))
        kept = np.flatnonzero(~(within & above))
        if r >= len(strong) and len(kept) > 0.98 * len(left):
            break
        left, columns = left[kept], [column[kept] for column in columns]
    return found.take(left)


def _shares(columns: list[np.ndarray]) -> np.ndarray:
    """Sum of the figures, each from 0 for the lowest to 1 for the highest."""
    total = np.zeros(len(columns[0]))
    for column in columns:
        low, high = float(column.min()), float(column.max())
        total += (column - low) / ((high - low) or 1.0)
    return total
