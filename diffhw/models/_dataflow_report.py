"""What a dataflow asks of the hardware: reuse per tensor, buffers, bandwidth between L2 and the PEs.

The figures that Kwon et al. (MICRO 2019) report beside runtime and energy, from the same counts as
`models.dataflow`.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from diffhw.hardware import Accelerator
from diffhw.mappings import DIMS, LEVELS, Dataflow, Precision
from diffhw.models._dataflow_buffers import local_buffers, shared_levels
from diffhw.models._dataflow_counts import (
    _alike,
    _by_level,
    _Class,
    _step_class,
    dataflow_counts,
    nest_of,
    one_dtype,
)
from diffhw.models._dataflow_memory import dram_traffic
from diffhw.numerics import ceil_div, maximum, reciprocal
from diffhw.workloads import Layer

__all__ = ["DataflowRequirements", "dataflow_requirements"]


@struct.dataclass(kw_only=True)
class DataflowRequirements:
    """Of one layer under one dataflow, all groups; leaves ``()``. Dicts have keys input, weight, output.

    macs:          MACs.  steps: steps of the walk.
    unique:        distinct elements (inputs: the dense windows of all outputs, padding included).
    l2_reads:      elements out of L2, a multicast counted once; of outputs, partial sums coming back.
    l2_writes:     elements from the PEs into L2: outputs and partial sums, 0 for the operands.
    l1_fills:      elements into L1s, once per receiver; of outputs, partial sums coming back.
    l1_drains:     elements out of L1s towards L2, each PE's own; 0 for the operands.
    tile:          elements of the tile that one PE holds.
    l1_bytes:      bytes of L1 that each tensor needs: twice its tile (one in use, one arriving).
    l1_kept_bytes: of that, what the tensors kept by the hardware's L1 need.
    l1_capacity_bytes: of one PE, for the tensors that its level keeps; 0 where the hardware has none.
    l2_bytes:      least bytes of L2 under which the dataflow can run.  l2_held_bytes: those it then uses.
    l2_capacity_bytes: of all outer levels together.
    noc_peak, noc_average: bytes per cycle between L2 and the PEs, both ways, that would keep the PEs at
                   work: the greatest over the loops (over all steps on which that loop advanced), and the
                   mean over the compute cycles. The first step's data come before and do not count.
    """

    macs: Array
    steps: Array
    unique: dict[str, Array]
    l2_reads: dict[str, Array]
    l2_writes: dict[str, Array]
    l1_fills: dict[str, Array]
    l1_drains: dict[str, Array]
    tile: dict[str, Array]
    l1_bytes: dict[str, Array]
    l1_kept_bytes: Array
    l1_capacity_bytes: Array
    l2_bytes: Array
    l2_held_bytes: Array
    l2_capacity_bytes: Array
    noc_peak: Array
    noc_average: Array


def dataflow_requirements(
    layer: Layer, hw: Accelerator, mapping: Dataflow, precision: Precision | None = None
) -> DataflowRequirements:
    """Reuse, buffers and bandwidth of one layer on one design; arguments as of `models.dataflow.layer`.

    A kernel of scalars: vmap it over any of its arguments. Rates with a denominator of zero steps are 0.
    """
    precision = Precision.of(hw) if precision is None else precision
    layer, hw, mapping, precision = one_dtype((layer, hw, mapping, precision))
    nest = nest_of(layer, mapping, hw.pes)
    ranks = tuple(level.rank for level in mapping.levels)
    counts = dataflow_counts(nest, ranks)
    groups = nest.repeats
    i_byte, w_byte, psum_byte = precision.input / 8, precision.weight / 8, precision.psum / 8
    o_byte = precision.output / 8
    pe_macs = functools.reduce(lambda a, b: a * b, [nest.tiles[d][2] for d in DIMS])
    per_mac = ceil_div(pe_macs, hw.lanes) * reciprocal(pe_macs)

    def wanted(part):
        """(bytes both ways, cycles of compute) of a class of steps."""
        into = part.input_reads * i_byte + part.weight_reads * w_byte + part.returns * psum_byte
        out = (part.moves - part.returns) * o_byte + part.returns * psum_byte
        return into + out, part.compute * per_mac

    # One body for the three levels.
    alike, values = _alike(nest), _by_level(nest)
    at = [
        {d: {name: (v[level], v[level + 1]) for name, v in values[d].items()} for d in DIMS}
        | {f"slides_{d}": nest.sums[d].slides[level] for d in ("p", "q")}
        for level in range(LEVELS)
    ]
    stack = lambda *leaves: jnp.stack(leaves)

    def one_level(so_far, level):
        pairs, rank = level
        peak, moved, cycles = so_far
        for d in DIMS:
            part = _step_class(_Class(d, {other: rank[other] < rank[d] for other in DIMS}), pairs, alike)
            transferred, busy = wanted(part)
            rate = jnp.where(busy > 0, transferred * reciprocal(jnp.where(busy > 0, busy, 1.0)), 0.0)
            peak, moved, cycles = maximum(peak, rate), moved + transferred, cycles + busy
        return (peak, moved, cycles), None

    start = (0.0 * pe_macs, 0.0 * pe_macs, counts.first.compute * per_mac)
    levels = (jax.tree.map(stack, *at), jax.tree.map(stack, *ranks))
    (peak, moved, cycles), _ = lax.scan(one_level, start, levels)

    shared = shared_levels(hw)
    capacity = functools.reduce(
        lambda a, b: a + b, [level.capacity_bytes * level.instances for level in shared]
    )
    bits = {"i": precision.input, "w": precision.weight, "o": precision.output}
    dram = dram_traffic(nest, mapping.levels[0].rank, capacity, bits, precision.psum)
    extents, rows, cols, channels = nest.extents, nest.rows, nest.cols, nest.depthwise > 0
    zero = 0.0 * groups
    l1 = local_buffers(
        hw,
        {
            "input": counts.pe_input * i_byte,
            "weight": counts.pe_weight * w_byte,
            "output": counts.pe_output * psum_byte,
        },
        {"input": precision.input, "weight": precision.weight, "output": precision.psum},
    )
    tile = {"input": counts.pe_input, "weight": counts.pe_weight, "output": counts.pe_output}
    return DataflowRequirements(
        macs=groups * counts.macs,
        steps=groups * counts.steps,
        unique={
            "input": groups
            * (extents["n"] * extents["c"])
            * (extents["p"] * rows.full_slope + rows.full_base)
            * (extents["q"] * cols.full_slope + cols.full_base),
            "weight": groups * extents["k"] * extents["c"] * extents["r"] * extents["s"],
            "output": groups
            * (extents["n"] * extents["k"] * extents["p"] * extents["q"])
            * jnp.where(channels, extents["c"], 1.0),
        },
        l2_reads={
            "input": groups * counts.input_reads,
            "weight": groups * counts.weight_reads,
            "output": groups * counts.output_returns,
        },
        l2_writes={"input": zero, "weight": zero, "output": groups * counts.output_moves},
        l1_fills={
            "input": groups * counts.input_fills,
            "weight": groups * counts.weight_fills,
            "output": groups * counts.output_returns,
        },
        l1_drains={"input": zero, "weight": zero, "output": groups * counts.output_drains},
        tile=tile,
        l1_bytes=l1.need_bytes,
        l1_kept_bytes=l1.kept_bytes,
        l1_capacity_bytes=l1.capacity_bytes,
        l2_bytes=dram.need,
        l2_held_bytes=dram.held,
        l2_capacity_bytes=capacity,
        noc_peak=peak,
        noc_average=moved * reciprocal(cycles),
    )
