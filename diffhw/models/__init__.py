"""WHAT IT COSTS: cost models; each is ``model(network, hw, mapping, precision) -> Cost``."""

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
    "compulsory_bytes",
    "dataflow",
    "dataflow_counts",
    "dataflow_requirements",
    "level_cycles",
    "level_energy_pj",
    "locality",
    "loopnest",
    "loopnest_counts",
    "nest_of",
    "roofline",
    "systolic",
]
