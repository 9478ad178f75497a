"""Our replay of ZigZag against tables of its runs, row by row."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from diffhw.validation._table import ColumnScore, ValidationReport, architectures_beside
from diffhw.validation._zigzag_loopnest import Moved, loopnest_moved
from diffhw.validation._zigzag_read import Row, Unanswerable, read_architectures, read_rows
from diffhw.validation._zigzag_replay import DIRECTIONS, ZigzagAnswer, ZigzagRun, zigzag_replay

__all__ = ["ZIGZAG_COLUMNS", "ZigzagReport", "validate_zigzag"]

REFERENCE = "ZigZag (zigzag-dse 3.9.1)"

# Weights and inputs only come in and are read: the tool's other counts of them are 0 (see whole_row).
_MOVES = {"W": ("rd_out_to_low", "wr_in_by_high"), "I": ("rd_out_to_low", "wr_in_by_high"), "O": DIRECTIONS}
_TOTALS = ("mac_energy_pj", "mem_energy_pj", "energy_pj", "ideal_cycle", "ideal_temporal_cycle")
ZIGZAG_COLUMNS = (
    *(f"{operand}_{direction}" for operand, moves in _MOVES.items() for direction in moves),
    *(f"{operand}_energy_pj" for operand in "WIO"),
    "mem_utilization",
    *_TOTALS,
    "mac_spatial_utilization",
    "whole_row",
    *(f"loopnest_{operand}" for operand in "WIO"),
    "loopnest_cycles",
)
"""What is compared: one cell per memory of an operand (accesses per direction, energy, utilisation),
then totals; a whole row. Last what `models.loopnest` counts, in elements, beside the replay.
"""

_CLOSE = 1e-12  # real numbers: the same sum in another order
_PRINTED = 0.51e-10  # utilisation of a memory, printed with ten digits after the point


@dataclass
class ZigzagReport(ValidationReport):
    """`ValidationReport`; kinds: how many of the compared rows have loops of which kind.

    even: all operands that share a memory cut the loops at the same place.  uneven: they do not.
    fractional: a loop is unrolled by no whole number (cut evenly or not).
    """

    kinds: dict[str, int] = field(default_factory=lambda: {"even": 0, "uneven": 0, "fractional": 0})

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        return {**super().to_dict(), "kinds": self.kinds, "notes": self.notes}

    @property
    def notes(self) -> list[str]:
        """What a reader of the table should know, a sentence each."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        return [
            f"rows by their loops: {kinds}",
            "accesses, energy and utilisation: a replay of the tool's rules; "
            "loopnest columns: our model, where all operands share one nest",
            "latency beyond the product of the temporal loops (stalls, on- and off-loading) is not compared",
        ]

    def __str__(self) -> str:
        """The columns as an aligned table, for a terminal."""
        return "\n".join([super().__str__(), *self.notes])


def validate_zigzag(
    paths: Iterable | str | Path,
    architectures=None,
    dtype: str = "float64",
    progress: Callable[[int, int], None] | None = None,
) -> ZigzagReport:
    """Compare our replay of ZigZag's counting rules with tables of its runs.

    paths: JSON-lines files, one run a line: sizes, relations, widths, the mapping per operand and the
    tool's answers. Any architecture, network and mapping; uneven and fractional loops too.
    architectures: JSON of memories per architecture; default: architectures.json beside each table.
    dtype: "float64" or "float32", of our model's counts; the replay is in exact fractions.
    progress: called with (rows done, rows), every row counting twice: replay and model.

    Exact: counts and cycles are equal; real numbers agree to 12 digits (memory utilisation: to the ten
    decimals printed). The tables do not say how much padding the input has. We take it from the use of the
    outermost memory, which is not compared, or from ``input_size`` ({"IX": 56, ...}) where a row has it.

    Skipped, with the reason: rows whose input extent cannot be told so, and layers that are no multiply
    of two operands into one. Not compared at all: ``latency_total0`` to ``2``. Stalls need the tool's
    windows in which a double-buffered or shared port may transfer; on- and off-loading need the same per
    chain of memories. What is compared of the time is its floor: the product of the temporal loops.

    Raises ValueError, one sentence, for a file that is unreadable, empty or not of this schema.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    rows: list[Row] = []
    known: dict = {}
    for path in paths:
        beside = architectures_beside(path) if architectures is None else architectures
        if beside not in known:
            known[beside] = read_architectures(beside)
        rows += read_rows(path, known[beside])
    report = ZigzagReport(reference=REFERENCE, dtype=dtype)
    report.columns = {name: ColumnScore() for name in ZIGZAG_COLUMNS}
    answered: list[tuple[str, Row, ZigzagAnswer]] = []
    for done, row in enumerate(rows):
        name = f"{Path(row.path).stem} {row.name}" if len(paths) > 1 else row.name
        if isinstance(row.run, Unanswerable):
            report.skipped.append({"row": name, "reason": row.run.reason})
        else:
            report.rows += 1
            report.kinds[row.kind] += 1
            answered.append((name, row, zigzag_replay(row.run)))
            _compare(report, *answered[-1])
        if progress is not None:
            progress(done + 1, 2 * len(rows))
    found = loopnest_moved([row.run for _, row, _ in answered if isinstance(row.run, ZigzagRun)], dtype)
    for done, (index, ours) in enumerate(found):
        if not isinstance(ours, str):
            _compare_loopnest(report, *answered[index], *ours)
        if progress is not None:
            progress(2 * len(rows) - len(answered) + done + 1, 2 * len(rows))
    return report


def _compare_loopnest(
    report: ZigzagReport, name: str, row: Row, answer: ZigzagAnswer, moved: Moved, cycles: float
) -> None:
    """Enter our traced model's counts of a row that is one nest for all operands."""
    for operand, levels in moved.items():
        for level, moves in enumerate(levels):
            for direction, elements in moves.items():
                cell = f"{name} {answer.memories[operand][level]} {direction}"
                found = str(answer.moved[operand][level][direction])
                report.add(f"loopnest_{operand}", cell, elements, found, row.where)
    report.add("loopnest_cycles", name, cycles, str(answer.ideal_temporal_cycle), row.where)


def _compare(report: ZigzagReport, name: str, row: Row, answer: ZigzagAnswer) -> None:
    """Enter one row."""
    whole = True

    def add(column: str, where: str, ours: float, theirs, slack: float = 0.0) -> None:
        nonlocal whole
        score = report.columns[column]
        before = score.exact
        agree = (
            math.isclose(ours, theirs, rel_tol=_CLOSE, abs_tol=slack) if isinstance(theirs, float) else False
        )
        report.add(column, where, theirs if agree else ours, repr(theirs), row.where)
        whole &= score.exact > before

    for operand, chain in answer.memories.items():
        for level, memory in enumerate(chain):
            cell = f"{name} {memory}"
            for direction in DIRECTIONS:
                ours = answer.accesses[operand][level][direction]
                found = row.integer("accesses", operand, level, direction)
                if direction in _MOVES[operand]:
                    add(f"{operand}_{direction}", cell, ours, found)
                whole &= ours == found
            found = row.real("mem_energy_per_level", operand, level)
            add(f"{operand}_energy_pj", cell, answer.mem_energy_per_level[operand][level], found)
            if level < len(chain) - 1:
                found = row.real("mem_utilization", operand, level)
                add("mem_utilization", cell, answer.mem_utilization[operand][level], found, _PRINTED)
    for column in _TOTALS[:3]:
        add(column, name, getattr(answer, column), row.real(column))
    for column in _TOTALS[3:]:
        add(column, name, getattr(answer, column), row.integer(column))
    found = row.real("mac_spatial_utilization")
    add("mac_spatial_utilization", name, answer.mac_spatial_utilization, found)
    report.columns["whole_row"].add(name, 1.0 if whole else None, "1")
