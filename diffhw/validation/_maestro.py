"""Our replay of MAESTRO against tables of its runs, row by row."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation

import numpy as np

from diffhw.mappings import Program, parse
from diffhw.validation._maestro_levels import MaestroHardware, MaestroLayer
from diffhw.validation._maestro_replay import maestro
from diffhw.validation._maestro_report import MaestroAnswer
from diffhw.validation._table import ColumnScore, Table, ValidationReport, read_table

__all__ = ["MAESTRO_COLUMNS", "MaestroReport", "validate_maestro"]

REFERENCE = "MAESTRO (commit 4eb08d17c87c, 2022-08-27)"

MAESTRO_COLUMNS = tuple(one.name for one in fields(MaestroAnswer) if one.name != "peak_macs_per_cycle")
"""What is compared, as far as a table has it; ``runtime_cycles`` it must have."""

# Significant digits of the columns that are no counts; the energies are recomputed from exact counts.
_DIGITS = {
    **dict.fromkeys(("macs_ratio", "throughput_mac_per_cycle", "avg_active_pes", "utilisation"), 6),
    **dict.fromkeys(("arithmetic_intensity", "noc_bw_req_avg", "energy_csv_nj", "area_um2", "power_mw"), 6),
    **dict.fromkeys(("pe_power", "l1_power", "l2_power", "noc_power"), 6),
    **dict.fromkeys(("energy_l1", "energy_l2", "energy_total_mac_units"), 10),
}
_HARDWARE = ("num_pes", "noc_bw", "noc_hops", "noc_hop_latency", "offchip_bw", "simd_lanes")
_NEEDED = ("type", *"NMKCRSYX", "stride", "directives", "hw_mode", *_HARDWARE, "runtime_cycles")
_NEEDED_OF_FAILURES = ("type", "dims", "stride", "directives", "num_pes", "reason")
_UNDEFINED = ("nan", "-nan", str(-(2**63)))  # 0/0, as a real and as a count


@dataclass
class MaestroReport(ValidationReport):
    """`ValidationReport`; flagged: answers of the tool that are impossible, [{"row", "reason"}].

    Column ``refused``: inputs on which the tool died, exact where we refuse them in a sentence.
    Column ``no_work``: runs in which it computed nothing, exact where we say the same; their averages
    are 0/0 and their buffer sizes left-overs, so nothing else of them is compared.
    """

    flagged: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        return {**super().to_dict(), "flagged": self.flagged}

    def __str__(self) -> str:
        """The columns as an aligned table, for a terminal."""
        lines = [f"flagged: {item['row']}: {item['reason']}" for item in self.flagged]
        return "\n".join([super().__str__(), *lines])


@dataclass(frozen=True)
class _Run:
    """One row: ``inputs`` or the reason why there are none."""

    table: Table
    index: int
    inputs: tuple[MaestroLayer, Program, MaestroHardware] | str
    died: bool = False

    @property
    def row(self) -> dict[str, str]:
        return self.table.rows[self.index]

    @property
    def name(self) -> str:
        return self.row.get("id") or f"line {self.table.lines[self.index]}"


def _tables(path) -> list[_Run]:
    header = read_table(path, ()).rows[0]
    if "mapping_file" in header and "directives" not in header:
        raise ValueError(
            f"{path}: totals of whole mapping files cannot be replayed, the files are not in the table; "
            "a table with one row a layer is needed"
        )
    died = "dims" in header
    table = read_table(path, _NEEDED_OF_FAILURES if died else _NEEDED)
    return [_run(table, index, died) for index in range(len(table.rows))]


def _run(table: Table, index: int, died: bool) -> _Run:
    row = table.rows[index]
    where = f"{table.path}, line {table.lines[index]}"
    if died:
        try:
            sizes = {dim: int(size) for dim, size in (one.split("=") for one in row["dims"].split())}
        except ValueError:
            raise ValueError(
                f"{where}, column dims: needs sizes as in K=64 C=3, got {row['dims']!r}"
            ) from None
        hardware = {"num_pes": table.integer(index, "num_pes"), "noc_bw": 1}
    else:
        sizes = {dim: table.integer(index, dim) for dim in "NMKCRSYX" if row[dim]}
        value = {name: table.integer(index, name, lowest=int("hop" not in name)) for name in _HARDWARE}
        if row["hw_mode"] not in ("hwfile", "cli"):
            raise ValueError(f"{where}, column hw_mode: must be hwfile or cli, got {row['hw_mode']!r}")
        # With a hardware file the tool takes the hops themselves for the latency.
        per_hop = value["noc_hop_latency"] if row["hw_mode"] == "cli" else 1
        hardware = {name: value[name] for name in _HARDWARE if "hop" not in name}
        hardware["noc_latency"] = value["noc_hops"] * per_hop
    stride = table.integer(index, "stride")
    try:
        layer = MaestroLayer(row["type"], sizes, stride)
        return _Run(table, index, (layer, parse(row["directives"]), MaestroHardware(**hardware)), died)
    except ValueError as error:
        return _Run(table, index, str(error), died)


def validate_maestro(
    paths: Iterable, dtype: str = "float64", progress: Callable[[int, int], None] | None = None
) -> MaestroReport:
    """Compare our replay of the tool, its slips included, with tables of its runs.

    paths: csv files with one row a layer: type and sizes, the directives in one cell, hardware, and the
    tool's answers in columns of `MAESTRO_COLUMNS`; or with the inputs on which it died (columns dims and
    reason). dtype: "float64" (counts are exact integers) or "float32". progress: called with (rows
    done, rows).

    Exact: counts are equal, real numbers are equal after rounding ours to the digits that the tool
    prints, 6 (energies 10). Raises ValueError, one sentence, for a file that is unreadable, empty or not
    of this schema. A row that we cannot handle is a miss in every column.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    paths = [paths] if isinstance(paths, str) or hasattr(paths, "__fspath__") else list(paths)
    runs = [run for path in paths for run in _tables(path)]
    outcome = MaestroReport(reference=REFERENCE, dtype=dtype)
    outcome.columns = {
        name: ColumnScore()
        for name in MAESTRO_COLUMNS
        if any(name in run.row for run in runs if not run.died)
    }
    for done, run in enumerate(runs):
        answer, refusal = None, run.inputs
        if not isinstance(run.inputs, str):
            try:
                answer = maestro(*run.inputs, dtype=dtype)
            except ValueError as error:
                refusal = str(error)
        _compare(outcome, run, answer, str(refusal))
        if progress is not None:
            progress(done + 1, len(runs))
    return outcome


def _compare(outcome: MaestroReport, run: _Run, answer: MaestroAnswer | None, refusal: str) -> None:
    """Enter one row."""
    row = run.row
    item = lambda reason: {"row": run.name, "reason": reason}
    if run.died:
        outcome.rows += 1
        _agree(outcome, "refused", run.name, answer is None)
        outcome.flagged.append(item(refusal if answer is None else f"not refused, the tool: {row['reason']}"))
        return
    if not any(row.get(column) for column in MAESTRO_COLUMNS):
        outcome.skipped.append(item("the table has no answer: the tool did not finish this run"))
        return
    outcome.rows += 1
    if answer is None:
        outcome.unhandled.append(item(refusal))
    else:
        outcome.flagged += [item(reason) for reason in answer.flags]
    where = f"{run.table.path}, line {run.table.lines[run.index]}"
    if row["runtime_cycles"] == "0":
        _agree(outcome, "no_work", run.name, answer is not None and answer.runtime_cycles == 0)
        return
    for column in outcome.columns:
        if row.get(column):
            ours = getattr(answer, column, None)
            ours = float(ours) if isinstance(ours, np.floating) else ours
            ours, text = _as_printed(column, ours, row)
            outcome.add(column, run.name, ours, text, where)


def _agree(outcome: MaestroReport, column: str, name: str, equal: bool) -> None:
    outcome.columns.setdefault(column, ColumnScore()).add(name, 1 if equal else None, "1")


def _as_printed(column: str, ours, row: dict[str, str]) -> tuple[float | None, str]:
    """Ours and the cell with equally many significant digits: the tool drops zeros at the end."""
    text, digits = row[column], _DIGITS.get(column)
    if text in _UNDEFINED:
        return (0.0 if ours is None else None), "0"
    if digits is None or ours is None:
        return ours, text
    try:
        cell = Decimal(text)
    except InvalidOperation:
        return ours, text  # the report says where
    if column == "utilisation":  # the table's is the printed figure over the PEs
        active = float(f"{ours * float(row['num_pes']):.6g}")
        ours = active / float(row["num_pes"])
    digits = max(digits, len(cell.normalize().as_tuple().digits))
    return float(f"{ours:.{digits}g}"), f"{cell:.{digits - 1}e}"
