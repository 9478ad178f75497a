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

import functools
import operator

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero

from diffhw.hardware import Accelerator, area_parts, leakage_w
from diffhw.mappings import DATAFLOWS, Precision, dataflow_weights
from diffhw.models._cost import Cost
from diffhw.models._model import with_kernel
from diffhw.models._network import network_cost
from diffhw.models._systolic_array import ArrayCounts, array_counts, pick
from diffhw.models._systolic_memory import demand_of, runtime
from diffhw.numerics import fits, is_infinite, maximum, minimum, reciprocal
from diffhw.workloads import Layer, Network

__all__ = ["ArrayCounts", "array_counts", "systolic"]


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
    # Of the buffers of w, i, o: cycles per byte read, written, either; None where that never binds.
    ports: tuple[tuple[Array | None, ...], ...]
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
    ports = tuple(
        tuple(
            None if is_infinite(bytes_per_cycle) else reciprocal(bytes_per_cycle) * reciprocal(lv.instances)
            for bytes_per_cycle in (
                lv.read_bytes_per_cycle,
                lv.write_bytes_per_cycle,
                lv.shared_bytes_per_cycle,
            )
        )
        for lv in (w_level, i_level, o_level)
    )
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
        ports=ports,
        area=area_parts(hw),
    )


def _port_cycles(cycles, port, read, write):
    """``cycles``, or more where a buffer's ports need it; the default ones, as wide as the array, never."""
    for amount, per_byte in zip((read, write, read + write), port, strict=True):
        if per_byte is not None:
            cycles = maximum(cycles, amount * per_byte)
    return cycles


def _dataflow_cost(layer: Layer, hw: Accelerator, rates: _Rates, dataflow, keep_input, keep_output) -> Cost:
    g = layer.g
    m, n, k = layer.n * layer.p * layer.q, layer.k, layer.c * layer.r * layer.s
    counts = array_counts(m, n, k, hw.rows, hw.cols, dataflow, hw.lanes)
    d = demand_of(layer, rates, counts, hw.rows, hw.cols, m, n, k, dataflow, keep_input, keep_output)

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
    cycles = runtime(counts, d, g, rates.dram_bytes_per_cycle)
    for name, port in zip(("weight", "input", "output"), rates.ports, strict=True):
        read, write = traffic[f"sram_{name}_read"], traffic[f"sram_{name}_write"]
        cycles = _port_cycles(cycles, port, read, write)

    macs = g * m * n * k
    # Bits that move to a neighbour with each MAC, and those of the operand that is moved in or out once.
    psum_step = rates.psum_bits / hw.lanes
    per_mac = pick(
        dataflow,
        rates.input_bits + rates.weight_bits,
        rates.input_bits + psum_step,
        rates.weight_bits + psum_step,
    )
    once = pick(dataflow, m * n * rates.psum_bits, k * n * rates.weight_bits, m * k * rates.input_bits)
    kept = pick(dataflow, psum_step, 0.0, 0.0)
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
    need = maximum(
        maximum(hw.rows * i_bytes / rates.input_half, hw.cols * w_bytes / rates.weight_half),
        hw.cols * psum_bytes / rates.output_half,
    )
    return Cost(
        cycles=cycles,
        energy_pj=functools.reduce(operator.add, energy.values()),
        area_mm2=functools.reduce(operator.add, rates.area.values()),
        macs=macs,
        feasible=((need <= 1) & (hw.rows >= 1) & (hw.cols >= 1)) * jnp.ones_like(need),
        violation=maximum(need - 1, 0.0),
        freq_hz=hw.freq_hz,
        peak_macs_per_cycle=hw.peak_macs_per_cycle,
        traffic_bytes=traffic,
        energy_parts=energy,
        area_parts=rates.area,
        cycle_parts={"compute": compute, "stall": cycles - compute},
    )


def _resident(layer: Layer, rates: _Rates):
    """1.0 where the whole input (output) tensor fits both activation buffers' active halves."""
    smaller = minimum(rates.input_half, rates.output_half)
    inputs = fits(layer.input_words * rates.input_bits / 8, smaller)
    outputs = fits(layer.output_words * rates.output_bits / 8, smaller)
    return inputs, outputs


def _layer_from_rates(layer, hw, rates, dataflow, keep_activations, edge) -> Cost:
    keep_input = keep_output = 1.0
    if keep_activations:
        inputs, outputs = _resident(layer, rates)
        keep_input = maximum(1 - inputs, edge[0])
        keep_output = maximum(1 - outputs, edge[1])
    return _dataflow_cost(layer, hw, rates, dataflow, keep_input, keep_output)


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
    rates = _rates(hw, Precision.of(hw) if precision is None else precision)
    mapping = _mapping_of(mapping)
    if isinstance(mapping, str):
        return _layer_from_rates(layer, hw, rates, mapping, False, None)
    one = lambda pair: _layer_from_rates(layer, hw, rates, pair, False, None)
    each = jax.vmap(one)(_pairs(jnp.eye(3)))
    return jax.tree.map(lambda leaf: jnp.sum(mapping * leaf), each)


def _one_per_row(weights, network: Network):
    """Weights (L, 3) of the real rows, filled up to the padded rows; anything else is refused."""
    size, given = network.mask.shape[0], weights.shape[0]
    if given == size:
        return weights
    if isinstance(network.mask, Tracer):
        raise ValueError(f"of a traced network, give one dataflow per padded row: {given} for {size} rows")
    real = network.size
    if given != real:
        raise ValueError(f"{given} dataflows for a network of {real} layer rows")
    padding = jnp.broadcast_to(jnp.eye(3, dtype=weights.dtype)[0], (size - real, 3))
    return jnp.concatenate([weights, padding])


def _pairs(one_hot):
    """One-hots (..., 3) as the pair of bools that `pick` takes."""
    return one_hot[..., 0] > 0.5, one_hot[..., 1] > 0.5


def _network(network: Network, hw, mapping, precision, keep_activations, layer_loop, one_hot) -> Cost:
    """The three forms of a mapping, all one loop over rows: a name, hard one-hots, or weights.

    Weights cost three rows per layer, one for each dataflow, weighted; the compiled body stays one.
    """
    size = network.mask.shape[0]
    per_layer_bits = precision is not None and any(jnp.ndim(leaf) for leaf in jax.tree.leaves(precision))
    shared = None if per_layer_bits else _rates(hw, Precision.of(hw) if precision is None else precision)
    if per_layer_bits:
        precision = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size,)), precision)
    index = jnp.arange(size)
    last = jnp.sum(network.mask).astype(int) - 1
    edge = jnp.stack([index == 0, index == last], -1).astype(network.mask.dtype)
    weight = network.count * network.mask
    rows = (network.layers, precision if per_layer_bits else None, edge)
    mask, copies, each_row = network.mask, 1, None
    if not isinstance(mapping, str):
        if one_hot and mapping.ndim == 1:
            mapping = _pairs(mapping)
        else:
            weights = jnp.broadcast_to(mapping, (size, 3)) if mapping.ndim == 1 else mapping
            each_row = _pairs(weights)
            if not one_hot:
                copies = 3
                rows = jax.tree.map(lambda leaf: jnp.concatenate([leaf] * 3), rows)
                mask = jnp.concatenate([mask] * 3)
                weight = (weight[None] * weights.T).reshape(-1)
                each_row = _pairs(jnp.repeat(jnp.eye(3), size, axis=0))

    def one(row) -> Cost:
        (of_layer, bits, at_edge), pair = row
        rates = _rates(hw, bits) if per_layer_bits else shared
        return _layer_from_rates(
            of_layer, hw, rates, mapping if pair is None else pair, keep_activations, at_edge
        )

    return network_cost(one, (rows, each_row), weight, mask, layer_loop, copies)


@functools.cache
def _selected(keep_activations: bool, layer_loop: str):
    """One dataflow per layer chosen by data; its derivative is that of the weighted sum of all three."""
    settings = (keep_activations, layer_loop)

    @jax.custom_jvp
    def chosen(arguments):
        return _network(*arguments, *settings, True)

    def derivative(primals, tangents):
        # Only what varies is differentiated, or zeros would be computed for every other leaf.
        leaves, tree = jax.tree.flatten(primals)
        slopes = tree.flatten_up_to(tangents)
        live = [i for i, slope in enumerate(slopes) if not isinstance(slope, SymbolicZero)]

        def mixture(*values):
            full = list(leaves)
            for i, value in zip(live, values, strict=True):
                full[i] = value
            return _network(*jax.tree.unflatten(tree, full)[0], *settings, False)

        return jax.jvp(mixture, [leaves[i] for i in live], [slopes[i] for i in live])

    chosen.defjvp(derivative, symbolic_zeros=True)
    return chosen


@with_kernel(layer)
def systolic(
    network: Network,
    hw: Accelerator,
    mapping="ws",
    precision: Precision | None = None,
    *,
    keep_activations: bool = False,
    layer_loop: str = "vmap",
    one_hot: bool = False,
) -> Cost:
    """Cost of a network, layers run one after the other.

    mapping: a dataflow name or weights (3,) for all layers, or names / weights (L, 3) per layer row.
    precision: leaves () for all layers or (L,) per row; default: the datapath's widths.
    keep_activations: if True, a tensor that fits the active halves of both activation buffers stays
        on chip between layers (the first input and the last output still cross the DRAM link).
    layer_loop: "vmap" keeps per-layer costs in ``.layers``; "scan" keeps totals only, and is the
        faster form under a vmap over many designs.
    one_hot: if True, the weights are known to be one-hot: only the chosen dataflow is evaluated, a
        third of the work; gradients still see all three.

    Differentiable as `systolic.layer`; counts are not. Source: module docstring. Raises ValueError
    for an unknown dataflow, weights of another shape, or a design without a buffer for a tensor.

    >>> import diffhw as dh
    >>> cost = dh.models.systolic(dh.workloads.load("resnet18"), dh.hardware.load("tpu_v1"), "os")
    >>> f"{float(cost.utilization):.2f}"
    '0.07'
    """
    named = isinstance(mapping, list | tuple) and bool(mapping) and isinstance(mapping[0], str)
    mapping = _mapping_of(mapping)
    if not isinstance(mapping, str) and mapping.ndim == 2:
        mapping = _one_per_row(mapping, network)
    if isinstance(mapping, str) or not (one_hot or named):
        return _network(network, hw, mapping, precision, keep_activations, layer_loop, False)
    return _selected(keep_activations, layer_loop)((network, hw, mapping, precision))
