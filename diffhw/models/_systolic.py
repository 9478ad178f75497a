"""Systolic array, exact and differentiable: cycles, traffic, energy and area in closed form.

A layer is a GEMM after im2col, per group: M = n p q output pixels, N = k filters, K = c r s taps.
The array has R rows and C columns; folds do not overlap; column folds are the outer loop:

    dataflow   rows hold   columns hold   time runs over   cycles of a fold
    os         M           N              K                K + R + C - 2
    ws         K           N              M                M + 2R + C - 2
    is         K           M              N                N + 2R + C - 2

Source: SCALE-Sim (arXiv 1811.02883; fold counts as its v2 code measures them, which for os is R
cycles below the published 2R + C + T - 2). Cycles here are true counts: the tool's report is one
less (`diffhw.validation` replays that and its other slips).

Traffic rule (ours, physical): each operand has its own double buffer, half active, half
receiving the next tile. What fits in the active half is fetched once; else it is fetched again on
every pass. Partial sums that do not fit are written and read back once per row fold.

Runtime is max-plus over folds: a fold starts when its stationary tile has arrived and ends no
earlier than its streamed data; the DRAM link serves reads in order of need. Demand is linear
within few segments, so the maximum over folds is a maximum over the segments' ends.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffhw.hardware import Accelerator, area_parts, leakage_w
from diffhw.mappings import DATAFLOWS, Precision, dataflow_weights
from diffhw.models._cost import Cost
from diffhw.models._network import network_cost
from diffhw.models._roofline import touched
from diffhw.numerics import ceil_div, fits, floor_div
from diffhw.workloads import Layer, Network

__all__ = ["ArrayCounts", "array_counts", "systolic"]


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


def _pick(dataflow, os, ws, is_):
    """The value of a dataflow, chosen at trace time."""
    return (os, ws, is_)[DATAFLOWS.index(dataflow)]


def array_counts(m, n, k, rows, cols, dataflow: str, lanes=1.0) -> ArrayCounts:
    """Folds, cycles and SRAM words of an M x K by K x N product on a rows x cols array.

    m, n, k, rows, cols, lanes: integer-valued floats, shape (), all differentiable (fold counts
    through the surrogate slope of `numerics.ceil_div`, the rest exactly). lanes: MACs per PE,
    working along K. dataflow: "os", "ws" or "is", static. Source: module docstring.

    A 2 x 2 array and a 3 x 3 by 3 x 3 product, output stationary, on paper: 2 x 2 folds of
    3 + 2 + 2 - 2 = 5 cycles; inputs are read once per column fold, weights once per row fold.

    >>> counts = array_counts(3.0, 3.0, 3.0, 2.0, 2.0, "os")
    >>> float(counts.folds), float(counts.cycles), float(counts.input_reads)
    (4.0, 20.0, 18.0)
    """
    if dataflow not in DATAFLOWS:
        raise ValueError(f"dataflow must be one of {', '.join(DATAFLOWS)}, got {dataflow!r}")
    k_steps = ceil_div(k, lanes)
    spatial_rows = _pick(dataflow, m, k_steps, k_steps)
    spatial_cols = _pick(dataflow, n, n, m)
    stream = _pick(dataflow, k_steps, m, n)
    fill = rows + cols - 2 + _pick(dataflow, 0.0, rows, rows)
    row_folds, col_folds = ceil_div(spatial_rows, rows), ceil_div(spatial_cols, cols)
    one = jnp.ones_like(row_folds)
    visits = _pick(dataflow, one, row_folds, row_folds)
    return ArrayCounts(
        spatial_rows=spatial_rows,
        spatial_cols=spatial_cols,
        stream=stream,
        row_folds=row_folds,
        col_folds=col_folds,
        folds=row_folds * col_folds,
        fold_cycles=stream + fill,
        cycles=row_folds * col_folds * (stream + fill),
        input_reads=m * k * _pick(dataflow, col_folds, col_folds, one),
        weight_reads=k * n * _pick(dataflow, row_folds, one, col_folds),
        output_writes=m * n * visits,
        psum_reads=m * n * (visits - 1),
    )


@struct.dataclass(kw_only=True)
class _Rates:
    """What depends on the design and not on the layer: computed once per design."""

    weight_bits: Array
    input_bits: Array
    psum_bits: Array
    output_bits: Array
    weight_half: Array  # bytes of the active half of each buffer
    input_half: Array
    output_half: Array
    mac_pj: Array
    register_pj: Array  # per bit
    hop_pj: Array  # per bit and neighbour link
    weight_read_pj: Array  # per byte
    weight_write_pj: Array
    input_read_pj: Array
    input_write_pj: Array
    output_read_pj: Array
    output_write_pj: Array
    dram_pj: Array  # per byte
    leakage_pj: Array  # per cycle
    dram_static_pj: Array
    dram_bytes_per_cycle: Array
    area: dict[str, Array]


def _rates(hw: Accelerator, precision: Precision) -> _Rates:
    tech = hw.technology
    (w_level, w_bytes), (i_level, i_bytes), (o_level, o_bytes) = (hw.buffer(t) for t in "wio")
    read = [
        8 * tech.sram_read_pj_per_bit(lv.capacity_bytes, lv.word_bits) for lv in (w_level, i_level, o_level)
    ]
    write = [
        8 * tech.sram_write_pj_per_bit(lv.capacity_bytes, lv.word_bits) for lv in (w_level, i_level, o_level)
    ]
    mac = tech.mac_energy_pj(precision.weight, precision.input, precision.psum)
    return _Rates(
        weight_bits=precision.weight,
        input_bits=precision.input,
        psum_bits=precision.psum,
        output_bits=precision.output,
        weight_half=w_bytes / 2,
        input_half=i_bytes / 2,
        output_half=o_bytes / 2,
        mac_pj=mac * (1.0 + hw.flexible * tech.switch_energy_fraction),
        register_pj=tech.register_pj_per_bit,
        hop_pj=tech.wire_pj_per_bit_mm * hw.pe_pitch_mm(),
        weight_read_pj=read[0],
        weight_write_pj=write[0],
        input_read_pj=read[1],
        input_write_pj=write[1],
        output_read_pj=read[2],
        output_write_pj=write[2],
        dram_pj=8 * hw.dram.pj_per_bit,
        leakage_pj=leakage_w(hw) / hw.freq_hz * 1e12,
        dram_static_pj=hw.dram.static_w / hw.freq_hz * 1e12,
        dram_bytes_per_cycle=hw.dram_bytes_per_cycle,
        area=area_parts(hw),
    )


def _window(layer: Layer, pixels, touched_rows):
    """Input rows under ``pixels`` consecutive output pixels (unaligned: the worst position)."""
    out_rows = jnp.minimum(layer.p, ceil_div(pixels - 1, layer.q) + 1)
    return jnp.minimum(touched_rows, (out_rows - 1) * layer.stride_h + layer.dilation_h * (layer.r - 1) + 1)


@struct.dataclass(kw_only=True)
class _Demand:
    """Bytes of one group that the DRAM link moves, by tensor, and when the reads are needed."""

    input_read: Array
    weight_read: Array
    psum_read: Array
    output_write: Array  # final outputs and spilled partial sums
    column: Array  # needed within the first fold of each column
    stationary: Array  # needed before each fold
    first: Array  # streamed during each fold of the first column
    later: Array  # streamed during each fold of every later column


def _demand(layer, rates, counts, rows, cols, m, n, k, dataflow, keep_input, keep_output) -> _Demand:
    """The traffic rule of the module docstring, one dataflow, one group."""
    zero = jnp.zeros_like(counts.folds)
    input_bytes, weight_bytes = rates.input_bits / 8, rates.weight_bits / 8
    psum_bytes = rates.psum_bits / 8
    nr, nc = counts.row_folds, counts.col_folds

    touched_h = touched(layer.p, layer.r, layer.stride_h, layer.dilation_h, layer.pad_top, layer.h)
    touched_w = touched(layer.q, layer.s, layer.stride_w, layer.dilation_w, layer.pad_left, layer.w)
    channel = layer.n * touched_h * touched_w
    distinct = channel * layer.c

    # Inputs, one pass. os and is: a fold works on R (C) neighbouring pixels, all channels, and the
    # halo slides along. ws: the taps of R rows stream past all pixels, so the window is one pixel's
    # and a fold boundary inside a channel reads that channel twice.
    taps = layer.r * layer.s
    pixels = _pick(dataflow, rows, 1.0, cols)
    channels = _pick(dataflow, layer.c, jnp.minimum(layer.c, ceil_div(rows, taps) + 1), layer.c)
    held = _window(layer, pixels, touched_h) * touched_w * channels
    cut = _pick(dataflow, 0.0, channel * (nr - 1) * (rows > floor_div(rows, taps) * taps), 0.0)
    tiles = _pick(dataflow, nr, 1.0, nc)
    im2col = m * k
    again = jnp.minimum(
        im2col,
        _pick(dataflow, jnp.maximum(tiles * held, distinct), im2col, jnp.maximum(tiles * held, distinct)),
    )
    slides = fits(held * input_bytes, rates.input_half)
    one_pass = keep_input * input_bytes * (slides * jnp.minimum(distinct + cut, again) + (1 - slides) * again)
    keeps_inputs = fits(distinct * input_bytes, rates.input_half)
    later_inputs = _pick(dataflow, 1.0, 1.0, 0.0) * (1 - keeps_inputs) * one_pass

    # Weights: os keeps the tile of a column, is the whole operand, ws loads each word once.
    weights = k * n * weight_bytes
    column_tile = k * jnp.minimum(cols, n) * weight_bytes
    keeps_weights = fits(_pick(dataflow, column_tile, 0.0 * weights, weights), rates.weight_half)
    lost = 1 - keeps_weights
    weight_read = weights * (1 + _pick(dataflow, (nr - 1) * lost, 0.0, (nc - 1) * lost))
    column = _pick(dataflow, keeps_weights * weights / nc, 0.0, 0.0) + zero
    stationary = _pick(dataflow, zero, weights, one_pass) / counts.folds
    first = _pick(dataflow, one_pass / nr + lost * weights / nc, one_pass / nr, weights / nr)
    later = _pick(dataflow, later_inputs / nr + lost * weights / nc, later_inputs / nr, lost * weights / nr)
    input_read = one_pass + (nc - 1) * later_inputs

    # Partial sums of one column of folds.
    psum_tile = _pick(dataflow, zero, m * jnp.minimum(cols, n), n * jnp.minimum(cols, m))
    spill = 1 - fits(psum_tile * psum_bytes, rates.output_half)
    spilled = spill * m * n * (nr - 1) * psum_bytes
    # Spilled sums must be written before they are read, so both stand in the order of need.
    per_fold_spill = 2 * spilled / counts.folds
    return _Demand(
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
    inner = jnp.minimum(folds - 1, 1.0)
    t = seconds_per_byte
    first_start = stationary * t + folds * fold_cycles
    last_start = (start * inner + folds * stationary + (folds - 1) * streamed) * t + fold_cycles
    first_end = (start + stationary + streamed) * t + (folds - 1) * fold_cycles
    last_end = (start + folds * (stationary + streamed)) * t
    return jnp.maximum(jnp.maximum(first_start, last_start), jnp.maximum(first_end, last_end))


def _runtime(counts: ArrayCounts, demand: _Demand, groups, bytes_per_cycle):
    """Cycles of all groups, DRAM stalls included (module docstring, last paragraph)."""
    nr, nc, f = counts.row_folds, counts.col_folds, counts.fold_cycles
    t = 1.0 / bytes_per_cycle
    column_cycles = nr * f
    first_end = _column_end(demand.column, demand.stationary, demand.first, nr, f, t)
    later_end = _column_end(demand.column, demand.stationary, demand.later, nr, f, t)
    first_bytes = demand.column + nr * (demand.stationary + demand.first)
    later_bytes = demand.column + nr * (demand.stationary + demand.later)
    many = jnp.minimum(nc - 1, 1.0)
    through = first_bytes * t + later_end + (nc - 2) * jnp.maximum(later_bytes * t, column_cycles)
    group_end = jnp.maximum(first_end + (nc - 1) * column_cycles, many * through)
    group_reads = (first_bytes + (nc - 1) * later_bytes) * t
    reads_end = group_end + (groups - 1) * jnp.maximum(group_reads, counts.cycles)
    moved = demand.input_read + demand.weight_read + demand.psum_read + demand.output_write
    return jnp.maximum(reads_end, groups * moved * t)


def _level_cycles(level, read, write):
    """Cycles a buffer's ports need (0 for the default ports, as wide as the array's edge)."""
    port = jnp.maximum(read / level.read_bytes_per_cycle, write / level.write_bytes_per_cycle)
    return jnp.maximum(port, (read + write) / level.shared_bytes_per_cycle) / level.instances


def _dataflow_cost(
    layer: Layer, hw: Accelerator, rates: _Rates, dataflow: str, keep_input, keep_output
) -> Cost:
    g = layer.g
    m, n, k = layer.n * layer.p * layer.q, layer.k, layer.c * layer.r * layer.s
    counts = array_counts(m, n, k, hw.rows, hw.cols, dataflow, hw.lanes)
    d = _demand(layer, rates, counts, hw.rows, hw.cols, m, n, k, dataflow, keep_input, keep_output)

    i_bytes, w_bytes = rates.input_bits / 8, rates.weight_bits / 8
    psum_bytes, o_bytes = rates.psum_bits / 8, rates.output_bits / 8
    psum_reads = g * counts.psum_reads * psum_bytes
    traffic = {
        "dram_input_read": g * d.input_read,
        "dram_weight_read": g * d.weight_read,
        "dram_psum_read": g * d.psum_read,
        "dram_output_write": g * d.output_write,
        "sram_input_read": g * counts.input_reads * i_bytes,
        "sram_input_write": g * d.input_read,
        "sram_weight_read": g * counts.weight_reads * w_bytes,
        "sram_weight_write": g * d.weight_read,
        "sram_output_read": psum_reads + g * d.output_write,
        "sram_output_write": psum_reads + g * m * n * o_bytes + g * d.psum_read,
    }

    compute = g * counts.cycles
    cycles = _runtime(counts, d, g, rates.dram_bytes_per_cycle)
    for tensor, name in (("w", "weight"), ("i", "input"), ("o", "output")):
        level, _ = hw.buffer(tensor)
        port = _level_cycles(level, traffic[f"sram_{name}_read"], traffic[f"sram_{name}_write"])
        cycles = jnp.maximum(cycles, port)

    macs = g * m * n * k
    # Bits that move to a neighbour with each MAC, and those of the operand that is moved in or out once.
    psum_step = rates.psum_bits / hw.lanes
    per_mac = _pick(
        dataflow,
        rates.input_bits + rates.weight_bits,
        rates.input_bits + psum_step,
        rates.weight_bits + psum_step,
    )
    once = _pick(dataflow, m * n * rates.psum_bits, k * n * rates.weight_bits, m * k * rates.input_bits)
    kept = _pick(dataflow, psum_step, 0.0, 0.0)
    hops = macs * per_mac + g * once * (hw.rows / 2)
    dram = sum(value for name, value in traffic.items() if name.startswith("dram_"))
    sram = (
        traffic["sram_input_read"] * rates.input_read_pj
        + traffic["sram_input_write"] * rates.input_write_pj
        + traffic["sram_weight_read"] * rates.weight_read_pj
        + traffic["sram_weight_write"] * rates.weight_write_pj
        + traffic["sram_output_read"] * rates.output_read_pj
        + traffic["sram_output_write"] * rates.output_write_pj
    )
    energy = {
        "mac": macs * rates.mac_pj,
        "registers": (hops + macs * kept) * rates.register_pj,
        "sram": sram,
        "wires": hops * rates.hop_pj,
        "dram": dram * rates.dram_pj,
        "leakage": cycles * rates.leakage_pj,
        "dram_static": cycles * rates.dram_static_pj,
    }
    # Each active half must hold one vector of the array's edge.
    need = jnp.maximum(
        jnp.maximum(hw.rows * i_bytes / rates.input_half, hw.cols * w_bytes / rates.weight_half),
        hw.cols * psum_bytes / rates.output_half,
    )
    return Cost(
        cycles=cycles,
        energy_pj=sum(energy.values()),
        area_mm2=sum(rates.area.values()),
        macs=macs,
        feasible=(need <= 1) * jnp.ones_like(need),
        violation=jnp.maximum(need - 1, 0.0),
        freq_hz=hw.freq_hz,
        peak_macs_per_cycle=hw.peak_macs_per_cycle,
        traffic_bytes=traffic,
        energy_parts=energy,
        area_parts=rates.area,
        cycle_parts={"compute": compute, "stall": cycles - compute},
    )


def _resident(layer: Layer, rates: _Rates):
    """1.0 where the whole input (output) tensor fits both activation buffers' active halves."""
    smaller = jnp.minimum(rates.input_half, rates.output_half)
    inputs = fits(layer.input_words * rates.input_bits / 8, smaller)
    outputs = fits(layer.output_words * rates.output_bits / 8, smaller)
    return inputs, outputs


def _layer_from_rates(layer, hw, rates, mapping, keep_activations, edge) -> Cost:
    keep_input = keep_output = 1.0
    if keep_activations:
        inputs, outputs = _resident(layer, rates)
        keep_input = jnp.maximum(1 - inputs, edge[0])
        keep_output = jnp.maximum(1 - outputs, edge[1])
    if isinstance(mapping, str):
        return _dataflow_cost(layer, hw, rates, mapping, keep_input, keep_output)
    costs = [_dataflow_cost(layer, hw, rates, name, keep_input, keep_output) for name in DATAFLOWS]
    return jax.tree.map(lambda os, ws, is_: mapping[0] * os + mapping[1] * ws + mapping[2] * is_, *costs)


def _mapping_of(mapping):
    return mapping if isinstance(mapping, str) and mapping in DATAFLOWS else dataflow_weights(mapping)


def layer(layer: Layer, hw: Accelerator, mapping="ws", precision: Precision | None = None) -> Cost:
    """Cost of one layer on one design: the kernel, scalars only. vmap it for batches.

    layer: `Layer`, leaves ().  hw: `Accelerator`, leaves ().  mapping: "os" | "ws" | "is" or weights
    over them, shape (3,).  precision: `Precision`, leaves (); default: the datapath's widths.

    Differentiable in every leaf of all four. Fold counts and "fits" carry the surrogate slopes of
    `numerics`; the rest is exact (almost everywhere). Weights over dataflows give the expectation.
    Raises ValueError for an unknown dataflow or a design without a buffer for a tensor.
    """
    precision = Precision.of(hw) if precision is None else precision
    return _layer_from_rates(layer, hw, _rates(hw, precision), _mapping_of(mapping), False, None)


def systolic(
    network: Network,
    hw: Accelerator,
    mapping="ws",
    precision: Precision | None = None,
    *,
    keep_activations: bool = False,
    layer_loop: str = "vmap",
) -> Cost:
    """Cost of a network, layers run one after the other.

    mapping: a dataflow name or weights (3,) for all layers, or names / weights (L, 3) per layer row.
    precision: leaves () for all layers or (L,) per row; default: the datapath's widths.
    keep_activations: if True, a tensor that fits the active halves of both activation buffers stays
        on chip between layers (the first input and the last output still cross the DRAM link).
    layer_loop: "vmap" keeps per-layer costs in ``.layers``; "scan" keeps totals only, and is the
        faster form under a vmap over many designs.

    Differentiable as `systolic.layer`; counts are not. Source: module docstring.
    """
    mapping = _mapping_of(mapping)
    size = network.mask.shape[0]
    per_layer_bits = precision is not None and any(jnp.ndim(leaf) for leaf in jax.tree.leaves(precision))
    shared = None if per_layer_bits else _rates(hw, Precision.of(hw) if precision is None else precision)

    def one(row, row_mapping, row_precision, edge):
        rates = _rates(hw, row_precision) if per_layer_bits else shared
        return _layer_from_rates(row, hw, rates, row_mapping, keep_activations, edge)

    index = jnp.arange(size)
    last = jnp.sum(network.mask).astype(int) - 1
    edge = jnp.stack([index == 0, index == last], -1).astype(network.mask.dtype)
    if per_layer_bits:
        precision = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size,)), precision)
    row_mapping = mapping if not isinstance(mapping, str) and mapping.ndim == 2 else None
    if row_mapping is not None and row_mapping.shape[0] != size:
        # One entry per real row: padding rows take the first dataflow, the mask removes them.
        pad = size - row_mapping.shape[0]
        row_mapping = jnp.concatenate([row_mapping, jnp.zeros((pad, 3)).at[:, 0].set(1.0)])

    def body(row, mapped, bits, at_edge):
        return one(row, mapping if mapped is None else mapped, bits, at_edge)

    rows = (network.layers, row_mapping, precision if per_layer_bits else None, edge)
    return network_cost(body, rows, network, layer_loop)


systolic.layer = layer  # ty: ignore[unresolved-attribute]
