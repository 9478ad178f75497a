"""Our systolic model against SCALE-Sim v2, row by row of its golden tables."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffhw.mappings import DATAFLOWS
from diffhw.validation._scalesim_calc import calc_dram
from diffhw.validation._scalesim_rules import stall_free_report, timed_report
from diffhw.validation._scalesim_streams import LayerRun
from diffhw.validation._scalesim_user import user_dram
from diffhw.validation._table import ColumnScore, Table, ValidationReport, read_table

__all__ = ["SCALESIM_COLUMNS", "predict_scalesim", "validate_scalesim"]

REFERENCE = "SCALE-Sim v2 (scale-sim-v2 commit 22f88b17f1dd, 2025-02-25)"

SCALESIM_COLUMNS = (
    "total_cycles",
    "stall_cycles",
    "overall_util_pct",
    "mapping_eff_pct",
    "compute_util_pct",
    "sram_ifmap_reads",
    "sram_filter_reads",
    "sram_ofmap_writes",
    "dram_ifmap_reads",
    "dram_filter_reads",
    "dram_ofmap_writes",
    "avg_sram_bw_ifmap",
    "avg_sram_bw_filter",
    "avg_sram_bw_ofmap",
    "avg_dram_bw_ifmap",
    "avg_dram_bw_filter",
    "avg_dram_bw_ofmap",
)
"""What is compared; ``compute_cycles_stallfree`` too where the table has it."""

_DERIVED = "compute_cycles_stallfree"
_INPUTS = tuple(field.name for field in fields(LayerRun))


def _runs(table: Table) -> list[LayerRun | str]:
    """Inputs of each row, or why this row cannot be handled."""
    runs: list[LayerRun | str] = []
    for index, row in enumerate(table.rows):
        mode, dataflow = row["bw_mode"].upper(), row["dataflow"].lower()
        values: dict = {"bw_mode": mode, "dataflow": dataflow, "bw_words": 0}
        for name in _INPUTS:
            if name not in values and name != "bw_words":
                values[name] = table.integer(index, name)
        if mode == "USER":
            values["bw_words"] = table.integer(index, "bw_words")
        run = LayerRun(**values)
        if mode not in ("CALC", "USER"):
            runs.append(f"bw_mode is CALC or USER, got {row['bw_mode']!r}")
        elif dataflow not in DATAFLOWS:
            runs.append(f"dataflow is one of {', '.join(DATAFLOWS)}, got {row['dataflow']!r}")
        elif min(run.out_h, run.out_w) < 1:
            runs.append("the filter is larger than the input")
        else:
            runs.append(run)
    return runs


def predict_scalesim(
    runs: list[LayerRun], dtype="float64", progress: Callable[[int, int], None] | None = None
) -> tuple[list[dict[str, float]], list[str | None]]:
    """What the tool would report for each run, and for each the reason why not, or None.

    Counts, cycles and utilisations come from `diffhw.models.array_counts` in ``dtype``; DRAM counts and
    stalls from integer replays on the host. progress: called with (runs replayed, runs).
    """
    memory = np.zeros((len(runs), 8), np.int64)  # words and window of each operand, stall, late
    failures: list[str | None] = [None] * len(runs)
    for index, run in enumerate(runs):
        try:
            *dram, stall, late = user_dram(run) if run.bw_mode == "USER" else (*calc_dram(run), 0)
            windows = [part.stop - part.start + 1 for part in dram]
            memory[index] = [*(part.words for part in dram), *windows, stall, late]
        except (ValueError, IndexError, OverflowError, MemoryError) as error:
            failures[index] = f"the replay failed ({type(error).__name__}: {error})"
        if progress is not None:
            progress(index + 1, len(runs))

    answers: list[dict[str, float]] = [{} for _ in runs]
    with jax.enable_x64(np.dtype(dtype) == np.float64):
        for dataflow in DATAFLOWS:
            chosen = [i for i, run in enumerate(runs) if run.dataflow == dataflow and failures[i] is None]
            if not chosen:
                continue
            sizes = [(*runs[i].mnk, runs[i].array_rows, runs[i].array_cols) for i in chosen]
            data = np.concatenate([np.asarray(sizes), memory[chosen]], axis=1)
            padding = max(64, 1 << (len(chosen) - 1).bit_length()) - len(chosen)  # few shapes to compile
            data = np.pad(data, ((0, padding), (0, 0)), mode="edge")
            figures = _figures([jnp.asarray(column, dtype) for column in data.T], dataflow=dataflow)
            columns = {name: np.asarray(value, np.float64).tolist() for name, value in figures.items()}
            for place, index in enumerate(chosen):
                answers[index] = {name: column[place] for name, column in columns.items()}
    return answers, failures


@functools.partial(jax.jit, static_argnames="dataflow")
def _figures(columns: list[Array], dataflow: str) -> dict[str, Array]:
    m, n, k, rows, cols, *dram, stall, late = columns
    figures = stall_free_report(m, n, k, rows, cols, dataflow)
    windows = dict(zip(("ifmap", "filter", "ofmap"), zip(dram[:3], dram[3:])))
    return timed_report(figures, m * n * k, rows * cols, stall, late, windows)


def validate_scalesim(
    paths: Iterable, dtype: str = "float64", progress: Callable[[int, int], None] | None = None
) -> ValidationReport:
    """Compare our model, with the tool's slips replayed, with tables of SCALE-Sim v2 runs.

    paths: csv files with one row a run: layer, array, buffers, bandwidth mode and the tool's answers
    (any layers, both modes mixed; a row is judged from its own columns). dtype: "float64" or
    "float32", of everything that the model computes. progress: called with (rows done, rows).

    Raises ValueError, one sentence, for a file that is unreadable, empty or not of this schema. A row
    that we cannot handle is a miss in every column; a row is skipped only where the table has no
    answer of the tool (it did not finish).
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    paths = [paths] if isinstance(paths, str) or hasattr(paths, "__fspath__") else list(paths)
    tables = [read_table(path, ("row_id", *_INPUTS, *SCALESIM_COLUMNS)) for path in paths]
    report = ValidationReport(reference=REFERENCE, dtype=dtype)
    report.columns = {name: ColumnScore() for name in SCALESIM_COLUMNS}
    if any(_DERIVED in table.rows[0] for table in tables):
        report.columns[_DERIVED] = ColumnScore()

    compared: list[tuple[Table, int, LayerRun | str]] = []
    for table in tables:
        for index, run in enumerate(_runs(table)):
            row = table.rows[index]
            if not any(row[name] for name in SCALESIM_COLUMNS):
                reason = "the table has no answer: the tool did not finish this run"
                report.skipped.append({"row": row["row_id"], "reason": reason})
            else:
                compared.append((table, index, run))
    runs = [run for _, _, run in compared if isinstance(run, LayerRun)]
    answers, failures = predict_scalesim(runs, dtype, progress)
    results = iter(zip(answers, failures))

    for table, index, run in compared:
        row = table.rows[index]
        answer, failure = next(results) if isinstance(run, LayerRun) else ({}, run)
        report.rows += 1
        if failure:
            report.unhandled.append({"row": row["row_id"], "reason": failure})
        for column in report.columns:
            if row.get(column):
                where = f"{table.path}, line {table.lines[index]}"
                report.add(column, row["row_id"], answer.get(column), row[column], where)
    return report
