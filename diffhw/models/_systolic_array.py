"""What a systolic array does for one GEMM, memory left out: folds, cycles, words at its edges."""

import jax.numpy as jnp
from flax import struct
from jax import Array

from diffhw.mappings import DATAFLOWS
from diffhw.numerics import ceil_div

__all__ = ["ArrayCounts", "array_counts", "pick"]


@struct.dataclass(kw_only=True)
class ArrayCounts:
    """What the array does for one GEMM, memory left out. Leaves of shape (), exact integers.

    spatial_rows, spatial_cols: extents held by the array.  stream: steps in time of one fold.
    row_folds, col_folds, folds: tiles.  fold_cycles: cycles of one.  cycles: all of them.
    input_reads, weight_reads, output_writes, psum_reads: words between SRAM and array.
    """

    spatial_rows: Array
    spatial_cols: Array
    stream: Array
    row_folds: Array
    col_folds: Array
    folds: Array
    fold_cycles: Array
    cycles: Array
    input_reads: Array
    weight_reads: Array
    output_writes: Array
    psum_reads: Array


def pick(dataflow, os, ws, is_):
    """The value that belongs to a dataflow: by name at trace time, or by data.

    As data: a pair (is it os, is it ws) of bools, shape () each. It keeps one compiled body for all
    three; two scalars, since slices of a (3,) inside the body would break its vectorisation.
    """
    if isinstance(dataflow, str):
        return (os, ws, is_)[DATAFLOWS.index(dataflow)]
    return jnp.where(dataflow[0], os, jnp.where(dataflow[1], ws, is_))


def array_counts(m, n, k, rows, cols, dataflow, lanes=1.0) -> ArrayCounts:
    """Folds, cycles and SRAM words of an M x K by K x N product on a rows x cols array.

    m, n, k, rows, cols, lanes: integer-valued floats, shape (), all differentiable (fold counts
    through the surrogate slope of `numerics.ceil_div`, the rest exactly). lanes: MACs per PE,
    working along K. dataflow: "os", "ws" or "is" (static), or the pair of `pick`. Source:
    `models.systolic`.

    A 2 x 2 array and a 3 x 3 by 3 x 3 product, output stationary, on paper: 2 x 2 folds of
    3 + 2 + 2 - 2 = 5 cycles; inputs are read once per column fold, weights once per row fold.

    >>> counts = array_counts(3.0, 3.0, 3.0, 2.0, 2.0, "os")
    >>> float(counts.folds), float(counts.cycles), float(counts.input_reads)
    (4.0, 20.0, 18.0)
    """
    if isinstance(dataflow, str) and dataflow not in DATAFLOWS:
        raise ValueError(f"dataflow must be one of {', '.join(DATAFLOWS)}, got {dataflow!r}")
    k_steps = ceil_div(k, lanes)
    spatial_rows = pick(dataflow, m, k_steps, k_steps)
    spatial_cols = pick(dataflow, n, n, m)
    stream = pick(dataflow, k_steps, m, n)
    fill = rows + cols - 2 + pick(dataflow, 0.0, rows, rows)
    row_folds, col_folds = ceil_div(spatial_rows, rows), ceil_div(spatial_cols, cols)
    one = jnp.ones_like(row_folds)
    visits = pick(dataflow, one, row_folds, row_folds)
    return ArrayCounts(
        spatial_rows=spatial_rows,
        spatial_cols=spatial_cols,
        stream=stream,
        row_folds=row_folds,
        col_folds=col_folds,
        folds=row_folds * col_folds,
        fold_cycles=stream + fill,
        cycles=row_folds * col_folds * (stream + fill),
        input_reads=m * k * pick(dataflow, col_folds, col_folds, one),
        weight_reads=k * n * pick(dataflow, row_folds, one, col_folds),
        output_writes=m * n * visits,
        psum_reads=m * n * (visits - 1),
    )
