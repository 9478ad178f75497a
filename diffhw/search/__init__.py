"""HOW TO CHOOSE: search methods that know a space and a function given to them, and no model."""

from diffhw.search._enumeration import enumeration
from diffhw.search._generator import Condition, Generator, diversity, generator, load_generator
from diffhw.search._gradient import gradient
from diffhw.search._pareto import nondominated
from diffhw.search._random import local_search, random_search
from diffhw.search._refine import default_blocks, refine
from diffhw.search._result import Designs, SearchResult
from diffhw.search._surrogate import Surrogate, fit_surrogate
from diffhw.search._sweep import sweep
from diffhw.search._sweep_result import SweepDesigns, SweepResult, SweepStatus

__all__ = [
    "Condition",
    "Designs",
    "Generator",
    "SearchResult",
    "Surrogate",
    "SweepDesigns",
    "SweepResult",
    "SweepStatus",
    "default_blocks",
    "diversity",
    "enumeration",
    "fit_surrogate",
    "generator",
    "gradient",
    "load_generator",
    "local_search",
    "nondominated",
    "random_search",
    "refine",
    "sweep",
]
