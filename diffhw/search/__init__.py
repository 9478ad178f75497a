"""HOW TO CHOOSE: search methods that know a space and a function given to them, and no model."""

from diffhw.search._enumeration import enumeration
from diffhw.search._gradient import gradient
from diffhw.search._pareto import nondominated
from diffhw.search._random import local_search, random_search
from diffhw.search._refine import default_blocks, refine
from diffhw.search._result import Designs, SearchResult

__all__ = [
    "Designs",
    "SearchResult",
    "default_blocks",
    "enumeration",
    "gradient",
    "local_search",
    "nondominated",
    "random_search",
    "refine",
]
