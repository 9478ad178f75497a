"""What a systolic array's buffers make of one layer: DRAM traffic, and the stalls it causes.

The rules are those of `models.systolic`'s module docstring.
"""

import jax.numpy as jnp
from flax import struct
from jax import Array

from diffhw.models._roofline import touched
from diffhw.models._systolic_array import ArrayCounts, pick
from diffhw.numerics import ceil_div, floor_div, if_fits, maximum, minimum, reciprocal
from diffhw.workloads import Layer

__all__ = ["Demand", "demand_of", "runtime"]


def _window(layer: Layer, pixels, touched_rows):
    """Input rows under ``pixels`` consecutive output pixels (unaligned: the worst position)."""
    out_rows = minimum(layer.p, ceil_div(pixels - 1, layer.q) + 1)
    return minimum(touched_rows, (out_rows - 1) * layer.stride_h + layer.dilation_h * (layer.r - 1) + 1)


@struct.dataclass(kw_only=True)
class Demand:
    """Bytes of one group that the DRAM link moves, by tensor, and when the reads are needed."""

    input_read: Array
    weight_read: Array
    psum_read: Array
    output_write: Array  # final outputs and spilled partial sums
    column: Array  # needed within the first fold of each column
    stationary: Array  # needed before each fold
    first: Array  # streamed during each fold of the first column
    later: Array  # streamed during each fold of every later column


def demand_of(layer, rates, counts, rows, cols, m, n, k, dataflow, keep_input, keep_output) -> Demand:
    """The traffic rule of the module docstring, one dataflow, one group."""
    zero = jnp.zeros_like(counts.folds)
    input_bytes, weight_bytes = rates.input_bits / 8, rates.weight_bits / 8
    psum_bytes = rates.psum_bits / 8
    nr, nc = counts.row_folds, counts.col_folds
    per_row, per_col = reciprocal(nr), reciprocal(nc)

    touched_h = touched(layer.p, layer.r, layer.stride_h, layer.dilation_h, layer.pad_top, layer.h)
    touched_w = touched(layer.q, layer.s, layer.stride_w, layer.dilation_w, layer.pad_left, layer.w)
    channel = layer.n * touched_h * touched_w
    distinct = channel * layer.c

    # Inputs, one pass. os and is: a fold works on R (C) neighbouring pixels, all channels, and the
    # halo slides along. ws: the taps of R rows stream past all pixels, so the window is one pixel's
    # and a fold boundary inside a channel reads that channel twice.
    taps = layer.r * layer.s
    pixels = pick(dataflow, rows, 1.0, cols)
    whole = floor_div(rows, taps)  # channels
    cuts = jnp.where(rows > whole * taps, 1.0, 0.0)
    channels = pick(dataflow, layer.c, minimum(layer.c, whole + cuts + 1), layer.c)
    held = _window(layer, pixels, touched_h) * touched_w * channels
    cut = pick(dataflow, 0.0, channel * (nr - 1) * cuts, 0.0)
    tiles = pick(dataflow, nr, 1.0, nc)
    im2col = m * k
    again = minimum(
        im2col,
        pick(dataflow, maximum(tiles * held, distinct), im2col, maximum(tiles * held, distinct)),
    )
    slid = minimum(distinct + cut, again)
    one_pass = keep_input * input_bytes * if_fits(held * input_bytes, rates.input_half, slid, again)
    later_inputs = if_fits(distinct * input_bytes, rates.input_half, zero, one_pass)
    later_inputs = pick(dataflow, later_inputs, later_inputs, zero)

    # Weights: os keeps the tile of a column, is the whole operand, ws loads each word once.
    weights = k * n * weight_bytes
    column_tile = k * minimum(cols, n) * weight_bytes
    needed = pick(dataflow, column_tile, zero, weights)
    kept = lambda inside, outside: if_fits(needed, rates.weight_half, inside, outside)
    weight_read = pick(dataflow, kept(weights, weights * nr), weights, kept(weights, weights * nc))
    column = pick(dataflow, kept(weights * per_col, zero), zero, zero)
    stationary = pick(dataflow, zero, weights, one_pass) * per_row * per_col
    of_column = pick(dataflow, kept(zero, weights * per_col), 0.0, 0.0)
    first = pick(dataflow, one_pass, one_pass, weights) * per_row + of_column
    later = pick(dataflow, later_inputs, later_inputs, kept(zero, weights)) * per_row + of_column
    input_read = one_pass + (nc - 1) * later_inputs

    # Partial sums of one column of folds.
    psum_tile = pick(dataflow, zero, m * minimum(cols, n), n * minimum(cols, m))
    spilled = if_fits(psum_tile * psum_bytes, rates.output_half, zero, m * n * (nr - 1) * psum_bytes)
    # Spilled sums must be written before they are read, so both stand in the order of need.
    per_fold_spill = 2 * spilled * per_row * per_col
    return Demand(
        input_read=input_read,
        weight_read=weight_read,
        psum_read=spilled,
        output_write=spilled + keep_output * m * n * (rates.output_bits / 8),
        column=column,
        stationary=stationary,
        first=first + per_fold_spill,
        later=later + per_fold_spill,
    )


def _column_end(start, stationary, streamed, folds, fold_cycles, seconds_per_byte):
    """End of one column of folds that starts at 0 with an idle link: the maximum over its folds."""
    inner = minimum(folds - 1, 1.0)
    t = seconds_per_byte
    first_start = stationary * t + folds * fold_cycles
    last_start = (start * inner + folds * stationary + (folds - 1) * streamed) * t + fold_cycles
    first_end = (start + stationary + streamed) * t + (folds - 1) * fold_cycles
    last_end = (start + folds * (stationary + streamed)) * t
    return maximum(maximum(first_start, last_start), maximum(first_end, last_end))


def runtime(counts: ArrayCounts, demand: Demand, groups, bytes_per_cycle):
    """Cycles of all groups, DRAM stalls included (module docstring, last paragraph)."""
    nr, nc, f = counts.row_folds, counts.col_folds, counts.fold_cycles
    t = reciprocal(bytes_per_cycle)
    column_cycles = nr * f
    first_end = _column_end(demand.column, demand.stationary, demand.first, nr, f, t)
    later_end = _column_end(demand.column, demand.stationary, demand.later, nr, f, t)
    first_bytes = demand.column + nr * (demand.stationary + demand.first)
    later_bytes = demand.column + nr * (demand.stationary + demand.later)
    many = minimum(nc - 1, 1.0)
    through = first_bytes * t + later_end + (nc - 2) * maximum(later_bytes * t, column_cycles)
    group_end = maximum(first_end + (nc - 1) * column_cycles, many * through)
    group_reads = (first_bytes + (nc - 1) * later_bytes) * t
    reads_end = group_end + (groups - 1) * maximum(group_reads, counts.cycles)
    moved = demand.input_read + demand.weight_read + demand.psum_read + demand.output_write
    return maximum(reads_end, groups * moved * t)
