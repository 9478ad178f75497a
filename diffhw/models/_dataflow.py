"""Data-centric dataflow model: any directive program on a PE array with a buffer per PE and a shared one.

Memories: a buffer beside each PE (L1; the accelerator's innermost level where it has an instance per PE,
for the tensors it keeps; what the hardware does not state is sized to the need and charged in area), the
shared buffer (L2: all outer levels together), DRAM. Transfers between
L2 and the PEs are counted exactly (`_dataflow_counts`), those with the DRAM by what L2 can hold
(`_dataflow_memory`).

Runtime: transfers overlap with compute through double buffers. For each loop, the steps on which it
advanced take the longest of their compute, ingress and egress together; the first step's data come
before and the last step's results after (fill, drain), with the latency of the array's half perimeter.
The DRAM works beside all of this. So runtime is at least the roofline at every level. Merging the
steps of a loop hides what ragged steps would add: never more than a step-by-step walk would take.

Work and energy: a PE reads both operands of each MAC from L1 and accumulates in a register within
a tile; energy per access is that of `Technology` at each buffer's size. Idle PEs are gated.

Source: Kwon et al., MICRO 2019 (directives, reuse, double buffering). The referee's own rules, slips
included, are replayed in `diffhw.validation`.
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import Array

from diffhw.fusing import joined
from diffhw.hardware import Accelerator, leakage_w
from diffhw.mappings import DIMS, Dataflow, Precision
from diffhw.models._cost import Cost, cost_on
from diffhw.models._dataflow_buffers import local_buffers, shared_levels
from diffhw.models._dataflow_counts import dataflow_counts, nest_of, one_dtype
from diffhw.models._dataflow_memory import dram_traffic
from diffhw.models._model import with_kernel
from diffhw.models._network import network_cost
from diffhw.numerics import ceil_div, maximum, reciprocal
from diffhw.workloads import Layer, Network

__all__ = ["dataflow"]

_total = lambda values: functools.reduce(operator.add, values)


def _port(levels, field, edge):
    """Bytes per cycle of all levels together; an unlimited port is as wide as the array's edge."""
    widths = [
        jnp.where(jnp.isinf(getattr(level, field)), edge, getattr(level, field)) * level.instances
        for level in levels
    ]
    return _total(widths)


def _violation(extents, tiles, levels) -> Array:
    """How far offsets leave MACs out or compute them twice. tiles: clipped; levels: (offset, tile) asked."""
    worst = 0.0 * extents["n"]
    for i, (offset, asked) in enumerate(levels):
        for d in DIMS:
            split = tiles[d][i] < (tiles[d][i - 1] if i else extents[d])
            off = jnp.abs(offset[d] - asked[d]) * reciprocal(asked[d])
            worst = maximum(worst, jnp.where(split, off, 0.0))
    return worst


def _bytes_of(part, i_byte, w_byte, psum_byte, o_byte):
    """Bytes into and out of the array."""
    into = part.input_reads * i_byte + part.weight_reads * w_byte + part.returns * psum_byte
    return into, (part.moves - part.returns) * o_byte + part.returns * psum_byte


def _longest(part, rates):
    """Cycles of a class of steps: of its MACs, ingress and egress the longest."""
    per_mac, per_read, per_write, per_byte, *widths = rates
    into, out = _bytes_of(part, *widths)
    transfer = maximum(maximum(into * per_read, out * per_write), (into + out) * per_byte)
    return maximum(part.compute * per_mac, transfer)


def _composed(hw, precision, groups, rates, counts, dram, violation, split) -> dict:
    """What a `Cost` needs, from what moves; in one kernel."""
    tech = hw.technology
    per_mac, per_read, per_write, _, i_byte, w_byte, psum_byte, o_byte = rates
    # Buffers.
    l1 = local_buffers(
        hw,
        {
            "input": counts.pe_input * i_byte,
            "weight": counts.pe_weight * w_byte,
            "output": counts.pe_output * psum_byte,
        },
        {"input": precision.input, "weight": precision.weight, "output": precision.psum},
    )

    # Runtime.
    latency = (hw.rows + hw.cols) / 2
    first_in, last_out = _bytes_of(counts.first, *rates[4:])
    fill = latency + first_in * per_read
    drain = latency + last_out * per_write
    on_chip = groups * (fill + counts.first.compute * per_mac + counts.time + drain)
    dram_bytes = groups * (dram.input_read + dram.weight_read + dram.psum_read + dram.output_write)
    per_dram_byte = reciprocal(hw.dram_bytes_per_cycle)
    dram_fill = (counts.first.input_reads * i_byte + counts.first.weight_reads * w_byte) * per_dram_byte
    cycles = dram_fill + maximum(on_chip, dram_bytes * per_dram_byte - dram_fill)
    compute = groups * counts.compute * per_mac

    macs = groups * counts.macs
    returns, moves = counts.output_returns, counts.output_moves
    traffic = {
        "dram_input_read": groups * dram.input_read,
        "dram_weight_read": groups * dram.weight_read,
        "dram_psum_read": groups * dram.psum_read,
        "dram_output_write": groups * dram.output_write,
        "l2_input_read": groups * counts.input_reads * i_byte,
        "l2_input_write": groups * dram.input_read,
        "l2_weight_read": groups * counts.weight_reads * w_byte,
        "l2_weight_write": groups * dram.weight_read,
        "l2_output_read": groups * (returns * psum_byte + dram.output_write),
        "l2_output_write": groups * (returns * psum_byte + (moves - returns) * o_byte + dram.psum_read),
        "l1_input_read": macs * i_byte,
        "l1_input_write": groups * counts.input_fills * i_byte,
        "l1_weight_read": macs * w_byte,
        "l1_weight_write": groups * counts.weight_fills * w_byte,
        "l1_output_read": groups * (counts.psum_updates + counts.output_drains) * psum_byte,
        "l1_output_write": groups * (counts.psum_updates + returns) * psum_byte,
    }

    # Energy.
    l2_read, l2_write = {}, {}
    for t, name in (("i", "input"), ("w", "weight"), ("o", "output")):
        level, _ = hw.buffer(t)
        l2_read[name] = 8 * tech.sram_read_pj_per_bit(level.capacity_bytes, level.word_bits)
        l2_write[name] = l2_read[name] * tech.sram_write_ratio
    names = ("input", "weight", "output")
    l1_read = {x: 8 * tech.sram_read_pj_per_bit(l1.size_bytes[x], l1.word_bits[x]) for x in names}
    l1_write = {x: l1_read[x] * tech.sram_write_ratio for x in names}
    # A word travels half the array to the first PE that takes it, and one link to each further one.
    bit_hops = (
        8
        * groups
        * (
            latency
            * (counts.input_reads * i_byte + counts.weight_reads * w_byte + (returns + moves) * psum_byte)
            + maximum(counts.input_fills - counts.input_reads, 0.0) * i_byte
            + maximum(counts.weight_fills - counts.weight_reads, 0.0) * w_byte
            + maximum(counts.output_drains - moves, 0.0) * psum_byte
        )
    )
    hop = tech.wire_pj_per_bit_mm * hw.pe_pitch_mm()
    mac = tech.mac_energy_pj(precision.weight, precision.input, precision.psum)
    energy = {
        "mac": macs * mac,
        "l1": _total(
            [traffic[f"l1_{x}_read"] * l1_read[x] + traffic[f"l1_{x}_write"] * l1_write[x] for x in names]
        ),
        "l2": _total(
            [traffic[f"l2_{x}_read"] * l2_read[x] + traffic[f"l2_{x}_write"] * l2_write[x] for x in names]
        ),
        "noc": bit_hops * hop,
        "dram": dram_bytes * 8 * hw.dram.pj_per_bit,
        "leakage": cycles * (leakage_w(hw) / hw.freq_hz * 1e12),
        "dram_static": cycles * (hw.dram.static_w / hw.freq_hz * 1e12),
    }

    return {
        "macs": macs,
        "compute": compute,
        "cycles": cycles,
        "traffic": traffic,
        "energy": energy,
        "violation": maximum(maximum(violation, l1.violation), _violation(*split)),
        "l1_area": hw.pes * tech.sram_area_mm2(l1.extra_bytes),
    }


def layer(layer: Layer, hw: Accelerator, mapping: Dataflow, precision: Precision | None = None) -> Cost:
    """Cost of one layer on one design: the kernel, scalars only. vmap it over any of its arguments.

    layer: `Layer`, leaves ().  hw: `Accelerator`, leaves ().  mapping: `Dataflow`, leaves ().
    precision: `Precision`, leaves (); default: the datapath's widths.

    Differentiable in every leaf except ranks, kinds (spatial) and offsets: rates, capacities, energies
    exactly almost everywhere; tiles, units, PEs and layer sizes through the surrogate slope of
    `numerics.ceil_div`; what fits through that of `numerics.fits`. ``feasible`` is 0 where a buffer is
    too small, clusters need more PEs than there are, a level deals out two dimensions (the outermost is
    dealt), or an offset leaves MACs out or computes them twice (costed as offset = tile).
    """
    precision = Precision.of(hw) if precision is None else precision
    layer, hw, mapping, precision = one_dtype((layer, hw, mapping, precision))
    nest = nest_of(layer, mapping, hw.pes)
    i_byte, w_byte = precision.input / 8, precision.weight / 8
    psum_byte, o_byte = precision.psum / 8, precision.output / 8

    # How long a class of steps takes.
    shared = shared_levels(hw)
    edge = hw.rows * i_byte + hw.cols * w_byte
    per_read = reciprocal(_port(shared, "read_bytes_per_cycle", edge))
    per_write = reciprocal(_port(shared, "write_bytes_per_cycle", hw.cols * psum_byte))
    per_byte = _total([jnp.where(jnp.isinf(lv.shared_bytes_per_cycle), 0.0, 1.0) for lv in shared])
    per_byte = per_byte * reciprocal(_port(shared, "shared_bytes_per_cycle", 1.0))
    pe_macs = functools.reduce(operator.mul, [nest.tiles[d][2] for d in DIMS])
    per_mac = ceil_div(pe_macs, hw.lanes) * reciprocal(pe_macs)

    rates = (per_mac, per_read, per_write, per_byte, i_byte, w_byte, psum_byte, o_byte)
    counts = dataflow_counts(nest, tuple(level.rank for level in mapping.levels), _longest, rates)

    l2_bytes = _total([level.capacity_bytes * level.instances for level in shared])
    dram = dram_traffic(
        nest,
        mapping.levels[0].rank,
        l2_bytes,
        {"i": precision.input, "w": precision.weight, "o": precision.output},
        precision.psum,
    )

    asked = [(level.offset, level.tile) for level in mapping.levels]
    inner = mapping.levels[1].units * mapping.levels[2].units
    violation = maximum(maximum(inner / hw.pes - 1, 0.0), nest.crowded)
    violation = maximum(violation, maximum(dram.need / l2_bytes - 1, 0.0))
    parts = joined(_composed, apart=2)(
        hw, precision, nest.repeats, rates, counts, dram, violation, (nest.extents, nest.tiles, asked)
    )
    area = parts.pop("l1_area")
    return cost_on(hw, **parts, more_area={"l1": area})


@with_kernel(layer)
def dataflow(
    network: Network,
    hw: Accelerator,
    mapping: Dataflow,
    precision: Precision | None = None,
    *,
    layer_loop: str = "vmap",
) -> Cost:
    """Cost of a network, layers one after the other; see `dataflow.layer` for the physics.

    mapping: a `Dataflow` with one row per padded layer row, as `mappings.fit(program, network)` makes it.
    precision: `Precision`, leaves () or (rows,).  layer_loop: "vmap" (per-layer costs kept) or "scan".
    """
    size = network.mask.shape[0]
    rows = mapping.levels[0].units.shape[:1]
    if rows != (size,):
        raise ValueError(
            f"mapping needs one row per padded layer row ({size}), got {[*rows] or 'one'}: "
            "mappings.fit(program, network) makes it"
        )
    precision = Precision.of(hw) if precision is None else precision
    per_row = any(jnp.ndim(leaf) for leaf in jax.tree.leaves(precision))
    if per_row:
        precision = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size,)), precision)
    kernel = layer

    def one(row) -> Cost:
        of_layer, of_mapping, bits = row
        return kernel(of_layer, hw, of_mapping, bits if per_row else precision)

    inputs = (network.layers, mapping, precision if per_row else None)
    return network_cost(one, inputs, network.count * network.mask, network.mask, layer_loop)
