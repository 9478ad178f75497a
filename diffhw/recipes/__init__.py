"""PUBLISHED SYSTEMS and the main job, one file each: the only place where a model and a search meet."""

from diffhw.recipes._codesign import codesign
from diffhw.recipes._dataflow_choice import SingleStyle, StyleChoice, best_styles, exact_dataflow_costs
from diffhw.recipes._dataflow_search import DataflowSearch, evolve_dataflow, map_layer, map_network
from diffhw.recipes._design import Design, read_design, write_design
from diffhw.recipes._result import Assumption, Certificate, CodesignResult, Rival, Sensitivity

__all__ = [
    "Assumption",
    "Certificate",
    "CodesignResult",
    "DataflowSearch",
    "Design",
    "Rival",
    "Sensitivity",
    "SingleStyle",
    "StyleChoice",
    "best_styles",
    "codesign",
    "evolve_dataflow",
    "exact_dataflow_costs",
    "map_layer",
    "map_network",
    "read_design",
    "write_design",
]
