"""WHAT IT COSTS: cost models; each is ``model(network, hw, mapping, precision) -> Cost``."""

from diffhw.models._bits import (
    SERIAL_OPERANDS,
    bit_fusion,
    bit_precision,
    bit_serial,
    bops,
    brick_slices,
    fixed_array,
    model_size,
)
from diffhw.models._cost import Cost
from diffhw.models._dataflow import dataflow
from diffhw.models._dataflow_counts import DataflowCounts, dataflow_counts, nest_of
from diffhw.models._dataflow_report import DataflowRequirements, dataflow_requirements
from diffhw.models._locality import TENSOR_LAYOUTS, TILE_LOOPS, TILE_ORDERS, Locality, locality
from diffhw.models._loopnest import TENSORS, level_cycles, level_energy_pj, loopnest
from diffhw.models._loopnest_counts import LoopnestCounts, TensorCounts, loopnest_counts
from diffhw.models._loopnest_links import Links
from diffhw.models._model import Model
from diffhw.models._roofline import compulsory_bytes, roofline
from diffhw.models._systolic import ArrayCounts, array_counts, systolic

__all__ = [
    "SERIAL_OPERANDS",
    "TENSORS",
    "TENSOR_LAYOUTS",
    "TILE_LOOPS",
    "TILE_ORDERS",
    "ArrayCounts",
    "Cost",
    "DataflowCounts",
    "DataflowRequirements",
    "Links",
    "Locality",
    "LoopnestCounts",
    "Model",
    "TensorCounts",
    "array_counts",
    "bit_fusion",
    "bit_precision",
    "bit_serial",
    "bops",
    "brick_slices",
    "compulsory_bytes",
    "dataflow",
    "dataflow_counts",
    "dataflow_requirements",
    "fixed_array",
    "level_cycles",
    "level_energy_pj",
    "locality",
    "loopnest",
    "loopnest_counts",
    "model_size",
    "nest_of",
    "roofline",
    "systolic",
]
