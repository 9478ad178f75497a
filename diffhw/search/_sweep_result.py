"""What a sweep returns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffhw.search._result import Designs
from diffhw.spaces import Space

__all__ = ["SweepDesigns", "SweepResult", "SweepStatus"]


@dataclass(frozen=True)
class SweepDesigns(Designs):
    """`Designs` with their places: figures are those of the sweep's own float type.

    flat: flat numbers in the space, Python ints.  position: place in the order of the sweep, (n,) int64.
    """

    flat: tuple[int, ...] = ()
    position: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Name -> figures, each (n,)."""
        return {name: self.figures[:, f] for f, name in enumerate(self.names)}


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is: of all processes together.

    done, total: designs.  rate: designs per second since this call began to evaluate.  eta_s: seconds left,
    or None if unknown.  best: lowest objective so far (inf if none).  chunks, chunks_total: finished, all.
    """

    done: int
    total: int
    rate: float
    eta_s: float | None
    best: float
    chunks: int
    chunks_total: int


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepResult:
    """The answer of a sweep.

    top:        the best different designs by the objective, ascending; of equal ones the earlier first.
    pareto:     all non-dominated feasible designs over the chosen metrics, by ascending first metric; of
                equal points the earliest.
    designs:    how many were evaluated, in all calls and processes; feasible: how many of them count.
    evaluated:  designs evaluated by this call; rate: per second of it, compiling apart.
    seconds, compile_seconds: of this call.  peak_memory_bytes: of this process so far.
    certified:  True if every design of the space was evaluated, so that ``top`` and ``pareto`` are exact.
    files:      what lies in the folder.  notes: what had to be repaired.
    """

    space: Space
    objective: str
    order: str
    seed: int
    top: SweepDesigns
    pareto: SweepDesigns
    designs: int
    feasible: int
    evaluated: int
    rate: float
    seconds: float
    compile_seconds: float
    peak_memory_bytes: int
    certified: bool
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def design(self, i: int = 0) -> Any:
        """The i-th best design."""
        return self.space.at(self.top.index[i])

    def labels(self, i: int = 0) -> dict[str, float | int | str]:
        """Name -> value of each variable of the i-th best design."""
        return self.space.labels(self.top.index[i])

    def __repr__(self) -> str:
        lines = [
            f"sweep, {self.order}, seed {self.seed}: {self.designs:,} designs, {self.feasible:,} feasible",
            f"{self.evaluated:,} in {self.seconds:.2f} s ({self.rate:.3g}/s), compile "
            f"{self.compile_seconds:.2f} s, peak memory {self.peak_memory_bytes / 2**20:.0f} MiB",
            f"{len(self.pareto)} designs on the front of {', '.join(self.pareto.names)}"
            if len(self.pareto)
            else "no front",
        ]
        for i in range(min(len(self.top), 5)):
            values = ", ".join(f"{name} {value}" for name, value in self.labels(i).items())
            lines.append(f"{self.objective} {self.top.figures[i, 0]:.6g}: {values}")
        return "\n".join([*lines, *self.notes])
