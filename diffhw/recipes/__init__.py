"""PUBLISHED SYSTEMS and the main job, one file each: the only place where a model and a search meet."""

from diffhw.recipes._codesign import codesign
from diffhw.recipes._dataflow_choice import SingleStyle, StyleChoice, best_styles, exact_dataflow_costs
from diffhw.recipes._dataflow_search import DataflowSearch, evolve_dataflow, map_layer, map_network
from diffhw.recipes._design import Design, read_design, write_design
from diffhw.recipes._dosa import DosaResult, dosa
from diffhw.recipes._dosa_bound import dosa_bound
from diffhw.recipes._map import (
    BestMapping,
    BestMappings,
    best_mapping,
    best_mappings,
    mapping_space_size,
)
from diffhw.recipes._map_search import MappingSearch, search_mappings
from diffhw.recipes._map_space import mapping_space
from diffhw.recipes._marvel import (
    MARVEL_RULES,
    MARVEL_STYLES,
    MarvelResult,
    MarvelSpace,
    marvel,
    marvel_joint,
    marvel_platform,
    marvel_space,
    marvel_styles,
)
from diffhw.recipes._result import Assumption, Certificate, CodesignResult, Rival, Sensitivity
from diffhw.recipes._ski_slope import SkiSlope, ski_slope

__all__ = [
    "MARVEL_RULES",
    "MARVEL_STYLES",
    "Assumption",
    "BestMapping",
    "BestMappings",
    "Certificate",
    "CodesignResult",
    "DataflowSearch",
    "Design",
    "DosaResult",
    "MappingSearch",
    "MarvelResult",
    "MarvelSpace",
    "Rival",
    "Sensitivity",
    "SingleStyle",
    "SkiSlope",
    "StyleChoice",
    "best_mapping",
    "best_mappings",
    "best_styles",
    "codesign",
    "dosa",
    "dosa_bound",
    "evolve_dataflow",
    "exact_dataflow_costs",
    "map_layer",
    "map_network",
    "mapping_space",
    "mapping_space_size",
    "marvel",
    "marvel_joint",
    "marvel_platform",
    "marvel_space",
    "marvel_styles",
    "read_design",
    "search_mappings",
    "ski_slope",
    "write_design",
]
