"""Roofline: the bound that no mapping and no dataflow can beat."""

import functools
import operator

import jax.numpy as jnp

from diffhw.hardware import Accelerator, leakage_w
from diffhw.mappings import Precision
from diffhw.models._cost import Cost, cost_on
from diffhw.models._model import with_kernel
from diffhw.models._network import network_cost
from diffhw.numerics import maximum, minimum
from diffhw.workloads import Layer, Network

__all__ = ["compulsory_bytes", "roofline"]


def touched(out, taps, stride, dilation, pad, size):
    """Distinct input rows (or columns) under the windows of ``out`` outputs, padding left out.

    The windows reach the rows a x stride + b x dilation, a < out, b < taps. With stride or dilation 1 two
    pairs meet where a differs by the dilation and b by the stride, so those pairs count that have no next
    one. With both above 1 that depends on common factors, which would cost more than the rest of a
    roofline; there it is the least that two such progressions can reach, out + taps - 1, as equal ones do.
    All rows in the padding before and beyond the input's end are taken off. So it is exact where the
    windows leave no row out, and never too high, but for one row where all are padding.
    """
    apart = out * taps - maximum(out - dilation, 0.0) * maximum(taps - stride, 0.0)
    every = jnp.where(minimum(stride, dilation) > 1, out + taps - 1, apart)
    beyond = maximum((out - 1) * stride + (taps - 1) * dilation + 1 - pad - size, 0.0)
    return maximum(every - pad - beyond, 1.0)


def compulsory_bytes(layer: Layer, precision: Precision) -> dict:
    """Bytes each tensor must cross the DRAM link at least once: touched inputs, weights, outputs."""
    rows = touched(layer.p, layer.r, layer.stride_h, layer.dilation_h, layer.pad_top, layer.h)
    cols = touched(layer.q, layer.s, layer.stride_w, layer.dilation_w, layer.pad_left, layer.w)
    return {
        "dram_input_read": layer.n * layer.g * layer.c * rows * cols * precision.input / 8,
        "dram_weight_read": layer.weight_words * precision.weight / 8,
        "dram_output_write": layer.output_words * precision.output / 8,
    }


def layer(layer: Layer, hw: Accelerator, mapping=None, precision: Precision | None = None) -> Cost:
    """Lower bound of one layer: cycles = max(MACs / peak, compulsory bytes / bandwidth).

    Energy is the MACs', the compulsory DRAM traffic's and the static power over those cycles; every
    other part is at least zero. ``mapping`` is ignored (the bound holds for all). All leaves of layer,
    hw and precision are differentiable, exactly, almost everywhere.
    Source: Williams, Waterman, Patterson, CACM 2009 (the roofline), with compulsory traffic.
    """
    precision = Precision.of(hw) if precision is None else precision
    tech = hw.technology
    traffic = compulsory_bytes(layer, precision)
    dram = functools.reduce(operator.add, traffic.values())
    compute = layer.macs / hw.peak_macs_per_cycle
    cycles = maximum(compute, dram / hw.dram_bytes_per_cycle)
    seconds = cycles / hw.freq_hz
    energy = {
        "mac": layer.macs * tech.mac_energy_pj(precision.weight, precision.input, precision.psum),
        "dram": dram * 8 * hw.dram.pj_per_bit,
        "leakage": leakage_w(hw) * seconds * 1e12,
        "dram_static": hw.dram.static_w * seconds * 1e12,
    }
    return cost_on(hw, macs=layer.macs, compute=compute, cycles=cycles, traffic=traffic, energy=energy)


@with_kernel(layer)
def roofline(
    network: Network,
    hw: Accelerator,
    mapping=None,
    precision: Precision | None = None,
    *,
    layer_loop: str = "vmap",
) -> Cost:
    """Lower bound of a network, layers one after the other; see `roofline.layer`. precision: leaves ()."""
    bound = layer  # the kernel below takes one row
    weight = network.count * network.mask
    return network_cost(
        lambda row: bound(row, hw, None, precision), network.layers, weight, network.mask, layer_loop
    )
