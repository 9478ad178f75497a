"""Our loop-nest model against tables of timeloop-model runs, row by row."""

import functools
from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path

import jax
import numpy as np

from diffhw.models import Links, LoopnestCounts, loopnest_counts
from diffhw.validation._table import ColumnScore, architectures_beside, read_table
from diffhw.validation._timeloop_read import (
    COUNTS,
    Architecture,
    Run,
    read_architectures,
    read_runs,
    stack_layers,
    stack_nests,
)
from diffhw.validation._timeloop_recorded import TimeloopReport, compare_recorded, is_recorded

__all__ = ["TIMELOOP_COLUMNS", "TimeloopReport", "validate_timeloop"]

REFERENCE = "Timeloop (commit 4cf6d4cd043b, 2025-03-31)"

TIMELOOP_COLUMNS = (
    *(f"{t}_{kind}" for t in "WIO" for kind in ("tile", "reads", "fills", "updates", "treductions")),
    "instances",
    "level_cycles",
    "throttling",
    "level_energy_pJ",
    "cycles",
    "utilisation_pct",
    "energy_pJ",
    "whole_row",
)
"""What is compared: one cell per level (that keeps the tensor), then totals; a whole row last."""

_PRINTED = {"throttling": 2, "level_energy_pJ": 2, "utilisation_pct": 2, "energy_pJ": 2}
_CELLS = 4_000_000  # of siblings x loops x rows at a time: about 100 MB


def validate_timeloop(
    paths: Iterable | str,
    architectures=None,
    dtype: str = "float64",
    progress: Callable[[int, int], None] | None = None,
) -> TimeloopReport:
    """Compare our model, neighbour links included, with tables of timeloop-model runs.

    paths: csv files with one row a run: arch_id, layer, mapping and the tool's answers; any architecture,
    layer and mapping with perfect factors. Or recorded runs of DOSA's data set (of an older Timeloop:
    see `diffhw.validation._timeloop_recorded`), which need no architectures.
    architectures: JSON of levels per arch_id; default: architectures.json beside each table.
    dtype: "float64" (counts are exact) or "float32", of the counts; the rest is done on the host in
    float64, in the tool's order of operations where the last cycle depends on it.

    Exact: counts and cycles are equal; energies are equal after rounding to the 2 decimals printed (a
    total is the sum of printed parts), utilisation and throttling likewise. Raises ValueError, one
    sentence, for a file that is unreadable, empty or not of this schema.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    recorded = [path for path in paths if is_recorded(read_table(path, ()).rows[0])]
    plain = [path for path in paths if path not in recorded]
    report = TimeloopReport(reference=REFERENCE, dtype=dtype)
    several = len(paths) > 1
    if plain:
        report.columns = {name: ColumnScore() for name in TIMELOOP_COLUMNS}
        known, runs = {}, []
        for path in plain:
            beside = architectures_beside(path) if architectures is None else architectures
            if beside not in known:
                known[beside] = read_architectures(beside)
            runs += read_runs(path, known[beside])
        for done, (run, answer) in enumerate(_replay(runs, dtype)):
            _compare(report, run, answer, several)
            if progress is not None:
                progress(done + 1, len(runs))
    for path in recorded:
        report.reference = "an older Timeloop with Accelergy (2022-2023), recorded by DOSA"
        compare_recorded(report, path, dtype, several)
        if progress is not None:
            progress(report.rows, report.rows)
    if plain and recorded:
        report.reference = f"{REFERENCE} and older runs recorded by DOSA"
    return report


@functools.partial(jax.jit, static_argnames="links")
def _counts(layers, hierarchies, nests, links) -> dict:
    def one(layer, hierarchy, nest) -> dict:
        found: LoopnestCounts = loopnest_counts(layer, hierarchy, nest, links)
        words = [{t: dict(vars(count)) for t, count in tensors.items()} for tensors in found.tensors]
        return {"words": words, "instances": found.instances, "compute": found.compute_cycles}

    return jax.vmap(one)(layers, hierarchies, nests)


def _replay(runs: list[Run], dtype: str):
    """(run, answer) of every run, in batches of one structure of hierarchy."""
    groups: dict = {}
    for run in runs:
        groups.setdefault(jax.tree.structure(run.architecture.hierarchy), []).append(run)
    for group in groups.values():
        levels = [level for run in group for level in run.architecture.hierarchy.levels]
        wide = [int(max([1.0, *(float(getattr(one, f"fanout_{axis}")) for one in levels)])) for axis in "xy"]
        loops = 8 * len(group[0].levels)
        most = max(1, _CELLS // (loops * wide[0] * wide[1]))
        # Few shapes to compile: full chunks, and a last one padded to it.
        size = min(1 << (min(most, len(group)).bit_length() - 1 + (most > len(group))), 256)
        for start in range(0, len(group), size):
            chunk = group[start : start + size]
            padded = chunk + [chunk[-1]] * (size - len(chunk))
            with jax.enable_x64(dtype == "float64"):
                hierarchies = jax.tree.map(
                    lambda *leaves: np.asarray([float(leaf) for leaf in leaves], dtype),
                    *[run.architecture.hierarchy for run in padded],
                )
                found = _counts(
                    stack_layers([run.layer for run in padded], dtype),
                    hierarchies,
                    stack_nests([run.levels for run in padded], chunk[0].architecture.hierarchy, dtype),
                    Links(wide[0], wide[1]),
                )
                found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64).tolist(), found)
            for place, run in enumerate(chunk):
                here = jax.tree.map(
                    lambda leaf, place=place: leaf[place], found, is_leaf=lambda one: _is_column(one)
                )
                yield run, _answer(run, here)


def _is_column(one) -> bool:
    return isinstance(one, list) and bool(one) and isinstance(one[0], float)


def throttled(level: dict, words: dict, compute: float) -> tuple[float, float]:
    """(cycles, share of full speed) of one level, added and divided in the tool's order.

    words: {"w" | "i" | "o": {"reads", "fills", "updates"}}, words per instance. In exact arithmetic the
    cycles are the ceiling of an integer quotient; the tool's last cycle comes from rounding.
    """
    tensors = [words[t] for t in "wio" if t in words]
    need_r = sum(one["reads"] / compute for one in tensors)
    need_w = sum((one["fills"] + one["updates"]) / compute for one in tensors)
    speed = 1.0
    ports = (("read_bw", need_r), ("write_bw", need_w))
    for key, need in (*ports, ("shared_bw_words_per_cycle_per_instance", need_r + need_w)):
        if level[key] is not None and need > 0:
            speed = min(speed, level[key] / need)
    return float(np.ceil(compute / speed)), speed


def _answer(run: Run, found: dict) -> dict[str, list[tuple[str, float]]]:
    """Our figures: column of the report -> [(column of the table, value)]."""
    architecture: Architecture = run.architecture
    answer: dict[str, list[tuple[str, float]]] = {name: [] for name in TIMELOOP_COLUMNS[:-1]}
    macs = float(np.prod([float(run.layer[d]) for d in "nkcpqrs"]))
    total, cycles = round(macs * architecture.mac_pj, 2), found["compute"]
    for level, words, instances in zip(architecture.levels, found["words"], found["instances"], strict=True):
        name = level["name"]
        needed, speed = throttled(level, words, found["compute"])
        cycles = max(cycles, needed)
        answer["level_cycles"].append((f"{name}_cycles", needed))
        answer["throttling"].append((f"{name}_throttling", speed))
        for letter in level["keeps"]:
            word = words[letter.lower()]
            word["treductions"] = word["reads"] if letter == "O" else 0.0
            for kind, value in word.items():
                answer[f"{letter}_{kind}"].append((f"{name}_{letter}_{kind}", value))
            block, pj = level["block_size_words"], level["energy_pJ_per_vector"]
            parts = (("reads", "read"), ("fills", "fill"), ("updates", "update"))
            spent = instances * sum(-(-word[kind] // block) * pj[action] for kind, action in parts)
            total += round(spent, 2)
            answer["level_energy_pJ"].append((f"{name}_{letter}_energy_pJ", spent))
            answer["instances"].append((f"{name}_{letter}_instances", instances))
    answer["cycles"].append(("cycles", cycles))
    answer["utilisation_pct"].append(("utilisation_pct", 100 * macs / (cycles * architecture.macs)))
    answer["energy_pJ"].append(("energy_pJ", total))
    return answer


def _compare(report: TimeloopReport, run: Run, answer: dict, several: bool) -> None:
    """Enter one row."""
    line = f"line {run.table.lines[run.index]}"
    name = f"{Path(run.table.path).stem} {line}" if several else line
    report.rows += 1
    whole = True
    for column, cells in answer.items():
        score = report.columns[column]
        for cell, ours in cells:
            text = run.row.get(cell)
            if not text:
                if cell.endswith(("cycles", *(f"_{kind}" for kind in COUNTS))) or cell == "energy_pJ":
                    raise ValueError(f"{run.where}, column {cell}: needs a number, got ''")
                continue
            exact, level = score.exact, cell.split("_")[0]
            digits = _PRINTED.get(column)
            if digits is not None:
                text, ours = _rounded(text, digits), round(ours, digits)
            report.add(column, name if cell == column else f"{name} {level}", ours, text, run.where)
            whole &= score.exact > exact
    report.columns["whole_row"].add(name, 1.0 if whole else None, "1")


def _rounded(text: str, digits: int) -> str:
    """The cell with as many decimals as the tool prints: tables drop zeros, and sums carry noise."""
    try:
        return f"{Decimal(text):.{digits}f}"
    except InvalidOperation:
        return text  # the report says where
