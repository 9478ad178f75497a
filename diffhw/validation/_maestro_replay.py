"""MAESTRO's whole analysis of one layer: delays level by level, then its report."""

from typing import Any

import numpy as np

from diffhw.mappings import Program
from diffhw.validation._maestro_cases import Case, LevelCases
from diffhw.validation._maestro_levels import (
    MAESTRO,
    MaestroHardware,
    MaestroLayer,
    MaestroRules,
    split,
)
from diffhw.validation._maestro_report import MaestroAnswer, Steps, report

__all__ = ["maestro"]


def maestro(
    layer: MaestroLayer,
    program: Program,
    hw: MaestroHardware,
    rules: MaestroRules = MAESTRO,
    dtype: str = "float64",
) -> MaestroAnswer:
    """What MAESTRO reports for one layer, mapped by ``program``, slips included.

    program: from `diffhw.mappings.parse` or built by hand.  rules: `MAESTRO`, the tool as it is, or
    `REPAIRED`, its ragged tiles repaired.  dtype: "float64" counts in exact integers, "float32" rounds
    every count and every sum to float32.

    Raises ValueError, one sentence, where the tool crashes or aborts: fewer PEs than a cluster has,
    no or three spatial maps at a level, Y' or X' without its window at the same level, a cut filter
    dimension, a level below that computes nothing, counts beyond 32 bits.
    Not differentiable: a replay on the host. Source: Kwon et al., MICRO 2019, and observed behaviour.

    >>> from diffhw.mappings import parse
    >>> layer = MaestroLayer("GEMM", {"M": 100, "N": 100, "K": 100})
    >>> program = parse("TemporalMap(10,10) M; SpatialMap(1,1) N; TemporalMap(100,100) K")
    >>> maestro(layer, program, MaestroHardware(num_pes=50, noc_bw=1000)).runtime_cycles
    20006
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    run = _Replay(layer, program, hw, rules, np.float32(1) if dtype == "float32" else 1)
    return report(layer, hw, run.top_steps(), run.l1_elements(), clustered=len(run.levels) > 1)


class _Replay:
    """Delays of all levels. Tiles of equal sizes are analysed once."""

    def __init__(self, layer, program, hw, rules, one):
        self.layer, self.hw, self.rules, self.one = layer, hw, rules, one
        self.levels = split(layer, program, hw.num_pes)
        self.known: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def cases(self, depth: int, actual: dict[str, int]) -> LevelCases:
        return LevelCases(self.levels[depth], actual, self.layer.tensors, self.rules, self.one)

    def delay(self, elements: Any) -> Any:
        """Cycles of one transfer. Without latency an empty one costs -1, as in the tool."""
        return self.hw.noc_latency + -(-elements // self.hw.noc_bw) - 1

    def compute(self, depth: int, case: Case) -> tuple[Any, Any]:
        """Cycles of the busiest unit of a case, and the PEs at work."""
        if depth + 1 == len(self.levels):
            return -(-case.partial_sums() // self.hw.simd_lanes), case.units * self.one
        if not case.ragged:
            cycles, active = self.below(depth, case, ragged=False)
            return cycles, case.units * active
        cycles, active = self.below(depth, case, ragged=True)
        if case.units > 1:
            others, each = self.below(depth, case, ragged=False)
            cycles, active = max(cycles, others), active + (case.units - 1) * each
        return cycles, active

    def below(self, depth: int, case: Case, ragged: bool) -> tuple[Any, Any]:
        """Cycles of the level below for the tile of one unit, and its PEs at work on average."""
        actual = case.handed_down(ragged)
        key = (depth, *actual.values())
        if key not in self.known:
            cycles, active, steps = 0 * self.one, 0.0 * self.one, 0
            for inner in self.cases(depth + 1, actual).cases:
                if inner.partial_sums() <= 0:
                    continue
                work, busy = self.compute(depth + 1, inner)
                ingress = self.delay(inner.ingress(0) + inner.ingress(1))
                first = inner.changed < 0
                step = work + ingress if first else max(work, ingress, self.delay(inner.egress()))
                cycles = cycles + inner.occurrences * step
                active = active + inner.occurrences * busy
                steps += inner.occurrences
            self.known[key] = cycles, active / steps if steps else active
        return self.known[key]

    def top_steps(self) -> Steps:
        """Sums over the cases of the outermost level."""
        cases = self.cases(0, self.levels[0].sizes).cases
        if self.rules.counts_32_bit:
            most = max(case.occurrences for case in cases)
            if most > 2**31 - 1:
                raise ValueError(
                    f"a step occurs {most:,} times and the tool counts in 32 bits: larger tiles help"
                )
        first = cases[0]
        steps = Steps(self.hw, self.one, (first.ingress(0), first.ingress(1), first.egress()))
        for case in cases:
            egress = case.egress()
            macs = case.macs()
            steps.outputs(case.occurrences, egress, macs)
            if case.partial_sums() <= 0:
                continue
            inputs, weights = case.ingress(0), case.ingress(1)
            cycles, active = self.compute(0, case)
            if cycles == 0:
                raise ValueError(
                    "the clusters below compute nothing in some step and the tool divides by their "
                    "0 cycles: make the inner tiles no larger than the tiles they are handed"
                )
            delays = (self.delay(inputs + weights), self.delay(egress), cycles)
            steps.add(case.occurrences, (inputs, weights, egress), delays, macs, active, case.changed < 0)
        return steps

    def l1_elements(self) -> list[Any]:
        """Elements of one tile of input, filter and output in a PE; outputs are sized as inputs are."""
        last = self.cases(len(self.levels) - 1, self.levels[-1].sizes)
        elements = []
        for places in last.coupled:
            total = self.one
            for i in places:
                total = total * last.inputs[i].usual
            elements.append(total)
        return elements
