"""What the main job returns; `report` and the CLI read it, nothing else is needed."""

from dataclasses import dataclass

from diffhw.models import Cost
from diffhw.recipes._design import Design
from diffhw.search import Designs, SearchResult
from diffhw.workloads import Network

__all__ = ["Assumption", "Certificate", "CodesignResult", "Rival", "Sensitivity"]


@dataclass(frozen=True)
class Rival:
    """A catalogue design brought to the same node, clock, width and DRAM, with its best dataflow.

    over_budget: names of the constraints it breaks.
    """

    name: str
    design: Design
    costs: tuple[Cost, ...]
    objective: float
    over_budget: tuple[str, ...]


@dataclass(frozen=True)
class Certificate:
    """How good the answer is: ``gap = found / optimum - 1`` against the enumerated legal grid.

    optimum, optimum_design: the enumerated best.  designs: how many were evaluated.
    pareto: the exact Pareto set over latency (ms), energy (mJ) and area (mm2).
    """

    how: str
    gap: float | None
    optimum: float | None
    optimum_design: Design | None
    designs: int
    seconds: float
    pareto: Designs | None = None


@dataclass(frozen=True)
class Sensitivity:
    """Relative change of the objective for +10 % of one number: by gradient, and by evaluating again."""

    name: str
    value: float
    unit: str
    by_gradient: float
    by_value: float


@dataclass(frozen=True)
class Assumption:
    """An assumed number, and what halving or doubling it does to the answer.

    halved, doubled: (relative change of the best objective after searching again around the
    answer, text of what changed in the design, "" if nothing).
    """

    name: str
    value: float
    unit: str
    why: str
    halved: tuple[float, str]
    doubled: tuple[float, str]


@dataclass(frozen=True)
class CodesignResult:
    """The answer of `recipes.codesign`.

    networks: merged networks, in order.  objective: "edp" (J s), "latency" (s) or "energy" (J).
    value: the objective of ``design``, summed over networks, float64.  limits: {"area_mm2": 4.0, ...}.
    costs: one `Cost` per network, numpy float64 leaves, per-layer costs in ``.layers``.
    bounds: per network, one word per layer row: what limits it.
    config: the arguments, seed and versions, for the record.
    """

    networks: tuple[Network, ...]
    objective: str
    value: float
    limits: dict[str, float]
    figures: dict[str, float]
    feasible: bool
    design: Design
    costs: tuple[Cost, ...]
    search: SearchResult
    rivals: tuple[Rival, ...]
    certificate: Certificate | None
    sensitivities: tuple[Sensitivity, ...]
    assumptions: tuple[Assumption, ...]
    bounds: tuple[tuple[str, ...], ...]
    space_size: int
    space_text: str
    config: dict
    seconds: dict[str, float]
