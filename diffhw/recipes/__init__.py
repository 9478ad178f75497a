"""PUBLISHED SYSTEMS and the main job, one file each: the only place where a model and a search meet."""

from diffhw.recipes._aqgan import Aqgan, AqganAnswer, aqgan, load_aqgan, sample_bits
from diffhw.recipes._bit_costs import BIT_ARRAYS, cost_tables
from diffhw.recipes._bit_front import BitFront, hypervolume, pareto_bits, tiny_bit_problem
from diffhw.recipes._bit_hawq import bit_sensitivities, hawq_bits
from diffhw.recipes._bit_near_front import front_suite, sample_front
from diffhw.recipes._bit_policy import policy_bits
from diffhw.recipes._bit_problem import BitProblem, Ledger, bit_problem
from diffhw.recipes._bit_rivals import (
    best_of_random,
    evolve_bits,
    local_bits,
    nearest_known,
    random_bits,
    uniform_bits,
)
from diffhw.recipes._bit_search import BitSearch, BitWish
from diffhw.recipes._bit_sweep import LayerSweep, sweep_layers
from diffhw.recipes._bit_through import ThroughNetwork, through_network
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
from diffhw.recipes._space_file import SpaceFile, read_space
from diffhw.recipes._sweep import METRICS, SweepProblem, run_sweep, sweep, sweep_problem

__all__ = [
    "BIT_ARRAYS",
    "MARVEL_RULES",
    "MARVEL_STYLES",
    "METRICS",
    "Aqgan",
    "AqganAnswer",
    "Assumption",
    "BestMapping",
    "BestMappings",
    "BitFront",
    "BitProblem",
    "BitSearch",
    "BitWish",
    "Certificate",
    "CodesignResult",
    "DataflowSearch",
    "Design",
    "DosaResult",
    "LayerSweep",
    "Ledger",
    "MappingSearch",
    "MarvelResult",
    "MarvelSpace",
    "Rival",
    "Sensitivity",
    "SingleStyle",
    "SkiSlope",
    "SpaceFile",
    "StyleChoice",
    "SweepProblem",
    "ThroughNetwork",
    "aqgan",
    "best_mapping",
    "best_mappings",
    "best_of_random",
    "best_styles",
    "bit_problem",
    "bit_sensitivities",
    "codesign",
    "cost_tables",
    "dosa",
    "dosa_bound",
    "evolve_bits",
    "evolve_dataflow",
    "exact_dataflow_costs",
    "front_suite",
    "hawq_bits",
    "hypervolume",
    "load_aqgan",
    "local_bits",
    "map_layer",
    "map_network",
    "mapping_space",
    "mapping_space_size",
    "marvel",
    "marvel_joint",
    "marvel_platform",
    "marvel_space",
    "marvel_styles",
    "nearest_known",
    "pareto_bits",
    "policy_bits",
    "random_bits",
    "read_design",
    "read_space",
    "run_sweep",
    "sample_bits",
    "sample_front",
    "search_mappings",
    "ski_slope",
    "sweep",
    "sweep_layers",
    "sweep_problem",
    "through_network",
    "tiny_bit_problem",
    "uniform_bits",
    "write_design",
]
