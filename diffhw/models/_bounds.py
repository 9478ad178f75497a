"""What the runtime of each layer on a systolic array is lost to."""

import jax
import numpy as np

from diffhw.hardware import Accelerator
from diffhw.mappings import DATAFLOWS
from diffhw.models._cost import Cost
from diffhw.models._systolic_array import array_counts
from diffhw.workloads import Network

__all__ = ["bounds"]


def bounds(network: Network, hw: Accelerator, mapping, cost: Cost) -> tuple[str, ...]:
    """One word per distinct layer: what its runtime is lost to, first cause first.

    "DRAM": more than a tenth of the cycles wait for data. Else the larger of "part-filled folds" (PEs
    without work) and "fill and drain" (cycles of a fold beyond its stream) if it costs over a tenth,
    else "compute".
    """
    of_rows = network.size
    names = [mapping] * of_rows if isinstance(mapping, str) else list(mapping)
    flows = tuple(np.array([name == flow for name in names]) for flow in DATAFLOWS[:2])
    layers = jax.tree.map(lambda leaf: np.asarray(leaf)[:of_rows], network.layers)

    @jax.jit
    def shares(layers, hw, flows):
        def of_one(layer, flow):
            m, k = layer.n * layer.p * layer.q, layer.c * layer.r * layer.s
            counts = array_counts(m, layer.k, k, hw.rows, hw.cols, flow, hw.lanes)
            filled = counts.spatial_rows * counts.spatial_cols / (counts.folds * hw.rows * hw.cols)
            return filled, counts.stream / counts.fold_cycles

        return jax.vmap(of_one)(layers, flows)

    filled_of, streaming_of = jax.tree.map(np.asarray, shares(layers, hw, flows))
    by_layer = cost.by_layer()
    cycles_of, stall_of = np.asarray(by_layer.cycles), np.asarray(by_layer.cycle_parts["stall"])
    out = []
    for cycles, stall, filled, streaming in zip(cycles_of, stall_of, filled_of, streaming_of, strict=False):
        if stall > 0.1 * cycles:
            out.append("DRAM")
        elif min(filled, streaming) > 0.9:
            out.append("compute")
        else:
            out.append("part-filled folds" if filled < streaming else "fill and drain")
    return tuple(out)
