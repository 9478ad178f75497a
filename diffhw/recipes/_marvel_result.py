"""What Marvel returns: the mapping found for a layer, and how large the space around it was."""

import math
from dataclasses import dataclass

from diffhw.mappings import Dataflow, Program, to_program
from diffhw.models import Cost
from diffhw.models._locality import TENSOR_LAYOUTS, TILE_LOOPS, Locality
from diffhw.recipes._marvel_off_chip import divisors
from diffhw.workloads import Layer

__all__ = ["MarvelResult", "MarvelSpace", "marvel_space"]


@dataclass(frozen=True)
class MarvelSpace:
    """Numbers of mappings, exact Python integers.

    full:      every tile size 1..extent in L2 and every smaller one in a PE, every order of the loops
               longer than one at both levels, every order of each array's dimensions longer than one,
               one or two spread dimensions, clusters of 1 to all PEs.
    divisors:  the same with tiles that divide what they are cut from.
    off_chip:  tile x order x three layouts left by the rules.  on_chip: of the chosen L2 tiles.
    tiles:     L2 tiles left after each rule, in order.
    evaluated: on-chip mappings costed by `models.dataflow` (L2 tiles are all costed).
    """

    full: int
    divisors: int
    off_chip: int
    on_chip: int
    tiles: dict[str, int]
    evaluated: int

    @property
    def reduction(self) -> float:
        """The full space over what the decoupled and pruned search decides."""
        return self.full / (self.off_chip + self.on_chip)


@dataclass(frozen=True)
class MarvelResult:
    """The mapping found for one layer.

    tile, order:  L2 tile by loop of `models.TILE_LOOPS`; loops with more than one trip, outermost first.
    layouts:      by tensor (w, i, o), outermost dimension first.
    locality:     `Locality` of these in bytes (float64, numpy): what moves between DRAM and L2 in blocks.
    least_movement: bytes, of all tiles under the off-chip rules; ``locality.data_movement`` may exceed it
                  where another tile suits the array better.
    dataflow:     `Dataflow`, leaves (), numpy: loops over L2 tiles, clusters, PEs.
    cost:         `Cost` of it under `models.dataflow` (float64, numpy), DRAM by that model's own rule, which
                  knows no blocks.
    value:        the objective: J s, s or J.
    space:        what there was and what was left.
    rules:        off chip, on chip.  relaxed: those that had to give way.
    seconds:      wall time, compiling included where it happened.
    """

    layer: Layer
    objective: str
    tile: dict[str, int]
    order: tuple[str, ...]
    layouts: dict[str, str]
    locality: Locality
    least_movement: float
    dataflow: Dataflow
    cost: Cost
    value: float
    space: MarvelSpace
    rules: tuple[tuple[str, ...], tuple[str, ...]]
    relaxed: tuple[str, ...]
    seconds: float

    def program(self, name: str = "marvel") -> Program:
        """As directives. Raises ValueError for a level that cuts every loop and spreads none."""
        return to_program(self.dataflow, self.layer, name)


def marvel_space(layer: Layer, pes: int) -> tuple[int, int]:
    """(`MarvelSpace.full`, `MarvelSpace.divisors`) of a concrete layer on so many PEs."""
    sizes = {d: int(float(getattr(layer, d))) for d in (*TILE_LOOPS, "h", "w")}
    loops = [sizes[d] for d in TILE_LOOPS if sizes[d] > 1]
    orders = math.factorial(len(loops)) ** 2
    layouts = math.prod(
        math.factorial(sum(sizes[d] > 1 for d in menu[0])) for menu in TENSOR_LAYOUTS.values()
    )
    spread = max(len(loops) ** 2, 1)  # ordered pairs, or one alone
    rest = orders * layouts * spread * pes
    pairs = math.prod(size * (size + 1) // 2 for size in loops)
    even = math.prod(sum(len(divisors(size)) for size in divisors(extent)) for extent in loops)
    return pairs * rest, even * rest
