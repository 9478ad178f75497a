"""What a bit assignment costs: size, bit operations, and three kinds of arrays.

Each array is a grid of the accelerator's PEs whose MAC takes one cycle at the datapath's widths Bw x Ba.
A layer of bw-bit weights and ba-bit inputs needs this share of that work per MAC:

    fixed        ceil(bw / Bw) ceil(ba / Ba)         narrow operands gain nothing in the array
    bit serial   (bw / Bw) (ba / Ba), or one factor  one bit of one or both operands per cycle
    bit fusion   s(bw) s(ba) / (s(Bw) s(Ba))         s(b) two-bit bricks: 1, 2, 4, 8 for b <= 2, 4, 8, 16

and takes the cycles of `array_counts` with K times the share. Latency is the larger of those and the
time of the compulsory DRAM traffic at the operands' own widths, packed. A unit draws the same power in
each cycle, so the energy of a MAC is that of the full-width MAC (`Technology`) times the share.

Sources: bit serial in one operand, Judd et al., Stripes, MICRO 2016 (inputs); in both, Sharify et al.,
Loom, arXiv 1706.07853; bricks, Sharma et al., Bit Fusion, arXiv 1712.01507 (all recalled). Assumed: the
same silicon area and the same energy per full-width MAC for the three (``overhead`` raises the
latter); products of one PE pack along K without gaps; buffers hold what is reused, so that the DRAM
sees each word once; energy of registers and wires inside the array is left out. `systolic` with a
per-layer `Precision` has refetching and wires, but no gain in time from narrow operands' arithmetic.

Differentiable in bits, sizes and the design: bit serial exactly; the steps of the others through
the surrogates of `numerics`.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from diffhw.hardware import Accelerator, leakage_w
from diffhw.mappings import Precision
from diffhw.models._cost import Cost, cost_on
from diffhw.models._model import with_kernel
from diffhw.models._network import network_cost
from diffhw.models._roofline import compulsory_bytes
from diffhw.models._systolic_array import array_counts
from diffhw.numerics import as_float, ceil_div, fits, maximum
from diffhw.workloads import Layer, Network

__all__ = [
    "SERIAL_OPERANDS",
    "bit_fusion",
    "bit_precision",
    "bit_serial",
    "bops",
    "brick_slices",
    "fixed_array",
    "model_size",
]

SERIAL_OPERANDS = ("both", "input", "weight")
"""Operands that a bit-serial array takes bit by bit."""


def _column(of, field: str, bits) -> tuple[Array, Array]:
    """(amounts, bits) of equal length, from a `Network` or plain per-layer numbers."""
    if isinstance(of, Network):
        amounts = getattr(of.layers, field) * of.count * of.mask
        return amounts, _padded(of, bits, field)
    amounts, bits = as_float(of), as_float(bits)
    if bits.ndim and bits.shape[-1] != amounts.shape[-1]:
        raise ValueError(
            f"{bits.shape[-1]} bit widths for {amounts.shape[-1]} layers: there must be one per layer"
        )
    return amounts, jnp.broadcast_to(bits, amounts.shape)


def _padded(network: Network, bits, what: str) -> Array:
    """Bits (rows,) of a network's padded rows, from one number or one per real row; padding gets 8."""
    rows = network.mask.shape[0]
    if not isinstance(bits, Tracer) and not np.all(np.asarray(bits, float) > 0):
        raise ValueError(f"{what} bits must be > 0, got {float(np.asarray(bits, float).min()):g}")
    bits = as_float(bits)
    if bits.ndim == 0 or bits.shape == (rows,):
        return jnp.broadcast_to(bits, (rows,))
    real = rows if isinstance(network.mask, Tracer) else network.size
    if bits.shape != (real,):
        raise ValueError(
            f"{what} bits must be one number or one per layer: got {bits.shape} for {real} layers"
        )
    return jnp.concatenate([bits, jnp.full((rows - real,), 8.0, bits.dtype)])


def model_size(weights, bits) -> Array:
    """Bytes of the weights at their widths: sum of weights x bits / 8, shape ().

    weights: numbers per layer (L,), or a `Network` (its parameters; `other_params` left out).
    bits: one number or (L,). Exactly differentiable. Raises ValueError for a wrong number of bits.

    >>> float(model_size([100, 60], [8, 4]))
    130.0
    """
    weights, bits = _column(weights, "params", bits)
    return jnp.sum(weights * bits, -1) / 8


def bops(macs, weight_bits, input_bits) -> Array:
    """Bit operations: sum of MACs x weight bits x input bits, shape ().

    macs: per layer (L,), or a `Network`.  bits: one number or (L,) each. Exactly differentiable.
    Source: the convention of Wang et al., HAQ, arXiv 1811.08886, and Yao et al., HAWQ-V3, arXiv
    2011.10680 (recalled). Raises ValueError for a wrong number of bits.
    """
    amounts, first = _column(macs, "macs", weight_bits)
    return jnp.sum(amounts * first * _column(macs, "macs", input_bits)[1], -1)


def bit_precision(network: Network, weight=8, activation=8, *, psum=32, last=None) -> Precision:
    """The `Precision` of a bit assignment: one entry per row of the network, padding included.

    weight, activation: bits of weights and of layer inputs, one number or (layers,). A layer's output is
    stored at the next row's input width (exact for a chain), the last one's at ``last`` (default: its
    own input width). Raises ValueError for a wrong number of bits or bits <= 0.
    """
    inputs = _padded(network, activation, "activation")
    real = network.mask.shape[0] if isinstance(network.mask, Tracer) else network.size
    end = inputs[real - 1 : real] if last is None else jnp.reshape(as_float(last), (1,))
    outputs = jnp.concatenate([inputs[1:real], end, inputs[real:]])
    rows = inputs.shape
    return Precision(
        weight=_padded(network, weight, "weight"),
        input=inputs,
        psum=jnp.broadcast_to(as_float(psum), rows),
        output=outputs,
    )


def brick_slices(bits) -> Array:
    """2-bit bricks that one operand spans, a power of two: 1, 2, 4, 8, 16 for up to 2, 4, 8, 16, 32 bits.

    Surrogate slope: each step's is that of `numerics.fits`, so a narrower operand always helps.

    >>> [float(brick_slices(b)) for b in (1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 9.0)]
    [1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0]
    """
    beyond = lambda limit: 1.0 - fits(bits, as_float(limit))
    return 1.0 + beyond(2.0) + 2.0 * beyond(4.0) + 4.0 * beyond(8.0) + 8.0 * beyond(16.0)


def _fixed(bits, width):
    return ceil_div(bits, width), jnp.ones_like(width)


def _serial(bits, width):
    return bits, width


def _bricks(bits, width):
    return brick_slices(bits), brick_slices(width)


def _layer(layer: Layer, hw: Accelerator, mapping, precision: Precision | None, shares, overhead) -> Cost:
    """One layer; shares: (work, full work) of each operand, as functions of (bits, datapath width)."""
    precision = Precision.of(hw) if precision is None else precision
    tech = hw.technology
    of_weight, of_input = shares
    weight, full_weight = of_weight(precision.weight, hw.weight_bits)
    inputs, full_input = of_input(precision.input, hw.input_bits)
    work, full = weight * inputs, full_weight * full_input

    m, n, k = layer.n * layer.p * layer.q, layer.k, layer.c * layer.r * layer.s
    # Scaling K and lanes, not lanes alone, keeps whole numbers whole.
    counts = array_counts(m, n, k * work, hw.rows, hw.cols, mapping, hw.lanes * full)
    traffic = compulsory_bytes(layer, precision)
    dram = functools.reduce(operator.add, traffic.values())
    sram = {
        "sram_input_read": layer.g * counts.input_reads / work * precision.input / 8,
        "sram_weight_read": layer.g * counts.weight_reads / work * precision.weight / 8,
        "sram_output_read": layer.g * counts.psum_reads * precision.psum / 8,
        "sram_output_write": layer.g * counts.output_writes * precision.psum / 8,
    }
    compute = layer.g * counts.cycles
    cycles = maximum(compute, dram / hw.dram_bytes_per_cycle)
    picojoule_s = 1e12 / hw.freq_hz
    mac = tech.mac_energy_pj(hw.weight_bits, hw.input_bits, hw.psum_bits)
    energy = {
        "mac": layer.macs * mac * (work / full) * overhead,
        "sram": _sram_pj(hw, sram),
        "dram": dram * 8 * hw.dram.pj_per_bit,
        "leakage": leakage_w(hw) * cycles * picojoule_s,
        "dram_static": hw.dram.static_w * cycles * picojoule_s,
    }
    return cost_on(hw, macs=layer.macs, compute=compute, cycles=cycles, traffic=traffic | sram, energy=energy)


def _sram_pj(hw: Accelerator, traffic: dict) -> Array:
    tech, total = hw.technology, 0.0
    for tensor, name in (("w", "weight"), ("i", "input"), ("o", "output")):
        level, _ = hw.buffer(tensor)
        read = tech.sram_read_pj_per_bit(level.capacity_bytes, level.word_bits)
        write = tech.sram_write_pj_per_bit(level.capacity_bytes, level.word_bits)
        total = total + 8 * read * traffic[f"sram_{name}_read"]
        if name == "output":
            total = total + 8 * write * traffic["sram_output_write"]
    return jnp.asarray(total)


def _network(network: Network, precision: Precision | None, hw, kernel, layer_loop) -> Cost:
    rows = network.mask.shape[0]
    precision = Precision.of(hw) if precision is None else precision
    precision = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows,)), precision)
    one = lambda row: kernel(row[0], row[1])
    weight = network.count * network.mask
    return network_cost(one, (network.layers, precision), weight, network.mask, layer_loop)


def _fixed_layer(
    layer: Layer, hw: Accelerator, mapping="ws", precision: Precision | None = None, *, overhead=1.0
) -> Cost:
    """One layer on an array of fixed width; see `fixed_array`."""
    return _layer(layer, hw, mapping, precision, (_fixed, _fixed), overhead)


@with_kernel(_fixed_layer)
def fixed_array(
    network: Network, hw: Accelerator, mapping="ws", precision: Precision | None = None, *, layer_loop="vmap"
) -> Cost:
    """Cost on an array whose MACs have the datapath's width: narrow operands save memory traffic only.

    Operands wider than the datapath take several passes. mapping: "os", "ws" or "is".  precision: leaves
    () or (rows,), see `bit_precision`; default: the datapath's widths.  layer_loop: as in `systolic`.
    Model, sources and assumptions: module docstring.
    """
    kernel = lambda layer, bits: _fixed_layer(layer, hw, mapping, bits)
    return _network(network, precision, hw, kernel, layer_loop)


def _serial_layer(
    layer: Layer,
    hw: Accelerator,
    mapping="ws",
    precision: Precision | None = None,
    *,
    serial: str = "both",
    overhead=1.0,
) -> Cost:
    """One layer on a bit-serial array; see `bit_serial`."""
    if serial not in SERIAL_OPERANDS:
        raise ValueError(f"serial must be one of {', '.join(SERIAL_OPERANDS)}, got {serial!r}")
    shares = (_fixed if serial == "input" else _serial, _fixed if serial == "weight" else _serial)
    return _layer(layer, hw, mapping, precision, shares, overhead)


@with_kernel(_serial_layer)
def bit_serial(
    network: Network,
    hw: Accelerator,
    mapping="ws",
    precision: Precision | None = None,
    *,
    serial: str = "both",
    overhead=1.0,
    layer_loop="vmap",
) -> Cost:
    """Cost on an array that takes one bit of an operand per cycle, with enough units to match the
    fixed array at full width: time and MAC energy in proportion to the bits.

    serial: "both" operands (Loom), "input" only (Stripes) or "weight" only; the other one is of fixed
    width.  overhead: energy of a full-width MAC over that of the fixed array's (assumed 1).
    Utilization counts full-width MACs, so it may exceed 1. Other arguments: `fixed_array`.
    """
    kernel = lambda layer, bits: _serial_layer(layer, hw, mapping, bits, serial=serial, overhead=overhead)
    return _network(network, precision, hw, kernel, layer_loop)


def _fusion_layer(
    layer: Layer, hw: Accelerator, mapping="ws", precision: Precision | None = None, *, overhead=1.0
) -> Cost:
    """One layer on an array of fused 2-bit bricks; see `bit_fusion`."""
    return _layer(layer, hw, mapping, precision, (_bricks, _bricks), overhead)


@with_kernel(_fusion_layer)
def bit_fusion(
    network: Network,
    hw: Accelerator,
    mapping="ws",
    precision: Precision | None = None,
    *,
    overhead=1.0,
    layer_loop="vmap",
) -> Cost:
    """Cost on an array whose PEs are 16 two-bit bricks (for an 8 x 8 bit datapath), fused per layer.

    A PE forms 16 products of 2 x 2 bits per cycle, 4 of 4 x 4, 1 of 8 x 8; wider operands take several
    cycles. Only powers of two exist: 3 bits cost as 4, 5 as 8 (`brick_slices`). overhead: as in
    `bit_serial`. Utilization may exceed 1. Other arguments: `fixed_array`.
    """
    kernel = lambda layer, bits: _fusion_layer(layer, hw, mapping, bits, overhead=overhead)
    return _network(network, precision, hw, kernel, layer_loop)
