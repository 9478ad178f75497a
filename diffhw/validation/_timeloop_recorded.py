"""DOSA's recorded Timeloop runs (Gemmini; Hong et al., MICRO 2023), replayed under their older rules.

The rules below are not read from that older program, of which no copy was at hand: they are what makes
840 recorded rows come out (cycles of all but one within a cycle). They differ from today's in

* outputs: the first visit of a partial sum at the accumulator is a read as well (today it is not);
* inputs: a window slides only along the innermost loop outside the tile, and a step whose net motion is
  nothing, after a fall-back of an inner loop, brings the whole tile again (today it is free).

Energy is counts times energies per word that were fitted to the same data set (DOSA's own linear fit).
"""

import functools
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from diffhw.hardware import Hierarchy, Memory
from diffhw.models import loopnest_counts
from diffhw.validation._table import ColumnScore, Table, ValidationReport, read_table
from diffhw.validation._timeloop_read import DIMS, stack_layers, stack_nests

__all__ = ["MeanScore", "TimeloopReport", "compare_recorded", "is_recorded"]

MAC_PJ, REGISTER_PJ, DRAM_PJ = 0.5608, 0.48746172, 100.0
_ACCUMULATOR_PJ = (1.94, 0.1005)  # + per KB of it and column
_SCRATCHPAD_PJ = (0.49, 0.02513)  # + per KB
_BANDWIDTHS = {
    "acc_bw_words_per_cycle_per_col": 1,
    "spad_bw_words_per_cycle": 2,
    "dram_bw_words_per_cycle": 3,
}
_SIZES = ("spad_words8b", "acc_words32b_per_col")
_NEEDED = (*DIMS, "stride_w", "stride_h", *_SIZES, *_BANDWIDTHS, "mapping", "cycles", "energy_uJ")
_LEVEL = re.compile(r"L(\d)\[(\w+)\](.*)")
_LOOP = re.compile(r"([A-Z])(\d+)(X?)")
_KEEPS = ("W", "O", "WI", "WIO")


@dataclass
class TimeloopReport(ValidationReport):
    """`ValidationReport`; notes: what the figures rest on, sentences."""

    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        return {**super().to_dict(), "notes": self.notes}

    def __str__(self) -> str:
        """The columns as an aligned table, for a terminal."""
        return "\n".join([super().__str__(), *self.notes])


@dataclass
class MeanScore(ColumnScore):
    """A column with the mean of |ours - reference| / |reference| as well."""

    mean_relative_error: float = 0.0

    def add(self, row: str, ours: float | None, reference: str) -> None:
        """Compare one cell."""
        super().add(row, ours, reference)
        known = abs(float(reference))
        error = 1.0 if ours is None else abs(ours - float(reference)) / (known or 1.0)
        self.mean_relative_error += (error - self.mean_relative_error) / self.rows


def is_recorded(row: dict[str, str]) -> bool:
    """Whether a table holds DOSA's recorded runs: sizes of a Gemmini in the row, no arch_id."""
    return "arch_id" not in row and "pe_dim" in row and "energy_uJ" in row


def _hierarchy() -> Hierarchy:
    wide = math.inf  # any array side; counts do not depend on the rest
    return Hierarchy.create(
        levels=[
            Memory.create(name="registers", keeps="w"),
            Memory.create(name="accumulator", keeps="o", fanout_y=wide, spatial_y="c", spatial_x=""),
            Memory.create(name="scratchpad", keeps="wi", fanout_x=wide, spatial_x="k", spatial_y=""),
            Memory.create(name="dram"),
        ],
        mac_pj=MAC_PJ,
    )


def _levels(table: Table, index: int) -> list[dict]:
    """Loops of the four levels, innermost first; ``order``: all of a level, innermost loop first."""
    where = f"{table.path}, line {table.lines[index]}, column mapping"
    parts = table.rows[index]["mapping"].split(" - ")
    if len(parts) != 4:
        raise ValueError(f"{where}: needs the four levels L3 to L0, separated by ' - ', got {len(parts)}")
    levels = []
    for k, part in enumerate(reversed(parts)):
        match = _LEVEL.fullmatch(part.strip())
        if match is None or int(match[1]) != k or match[2] != _KEEPS[k]:
            raise ValueError(f"{where}: needs L{k}[{_KEEPS[k]}] and its loops, got {part.strip()!r}")
        level: dict = {"temporal": {}, "x": {}, "y": {}}
        for word in reversed(match[3].split()):
            loop = _LOOP.fullmatch(word)
            if loop is None or loop[1] not in DIMS or int(loop[2]) < 1:
                raise ValueError(f"{where}: needs loops as in C2 or K16X, got {word!r}")
            d, factor = DIMS[loop[1]], int(loop[2])
            axis = {(1, "c"): "y", (2, "k"): "x"}.get((k, d)) if loop[3] else "temporal"
            if axis is None:
                raise ValueError(f"{where}: only C of L1 and K of L2 may be spatial, got {word!r} at L{k}")
            if d in level[axis]:
                raise ValueError(f"{where}: loop {loop[1]} stands twice in L{k}")
            if factor > 1:
                level[axis][d] = factor
        levels.append(level)
    for theirs, d in DIMS.items():
        product = math.prod(loops.get(d, 1) for level in levels for loops in level.values())
        if product != table.integer(index, theirs):
            raise ValueError(
                f"{where}: the factors of loop {theirs} multiply to {product}, the layer has "
                f"{table.rows[index][theirs]}"
            )
    return levels


def older_input_words(layer: dict[str, int], levels: list[dict]) -> int:
    """Words of input that enter the scratchpad from DRAM, by the older rules."""
    inside = {
        d: math.prod(loops.get(d, 1) for level in levels[:3] for loops in level.values()) for d in "nkcpqrs"
    }
    height = (inside["p"] - 1) * layer["stride_h"] + inside["r"]
    width = (inside["q"] - 1) * layer["stride_w"] + inside["s"]
    extent = (inside["n"], inside["c"], height, width)
    volume = math.prod(extent)
    axis = {"n": 0, "c": 1, "p": 2, "r": 2, "q": 3, "s": 3}
    step = {"p": layer["stride_h"], "q": layer["stride_w"]}
    moved_back, words, first = (0, 0, 0, 0), volume, None
    loops = list(levels[3]["temporal"].items())
    for place, (d, factor) in enumerate(loops):
        own = [0, 0, 0, 0]
        if d in axis:
            own[axis[d]] = step.get(d, 1) * inside[d]
        motion = tuple(a - b for a, b in zip(own, moved_back, strict=True))
        moved_back = tuple(a + b for a, b in zip(own, moved_back, strict=True))
        times = (factor - 1) * math.prod(f for _, f in loops[place + 1 :])
        if place == 0 and any(motion):
            first = motion
        if first is not None and motion == first:
            shared = math.prod(max(0, t - abs(a)) for t, a in zip(extent, motion, strict=True))
            words += times * (volume - shared)
        elif first is not None or any(motion):
            words += times * volume
    return words


@functools.partial(jax.jit, static_argnames="dtype")
def _counts(layers, hierarchy, nests, dtype: str) -> dict:
    def one(layer, nest) -> dict:
        found = loopnest_counts(layer, hierarchy, nest)
        words = [{t: dict(vars(count)) for t, count in tensors.items()} for tensors in found.tensors]
        return {"words": words, "instances": found.instances, "compute": found.compute_cycles}

    return jax.vmap(one)(layers, nests)


def compare_recorded(report: TimeloopReport, path, dtype: str, several: bool) -> None:
    """Enter the rows of a recorded table into the columns recorded_cycles and recorded_energy_uJ."""
    table = read_table(path, _NEEDED)
    rows = range(len(table.rows))
    size = {d: np.asarray([table.integer(i, name) for i in rows]) for name, d in DIMS.items()}
    scratchpad, accumulator = (np.asarray([table.integer(i, name) for i in rows], float) for name in _SIZES)
    port = {k: np.asarray([table.integer(i, name) for i in rows], float) for name, k in _BANDWIDTHS.items()}
    layers = [
        {d: int(values[i]) for d, values in size.items()}
        | {name: table.integer(i, name) for name in ("stride_w", "stride_h")}
        for i in rows
    ]
    nests = [_levels(table, i) for i in rows]
    with jax.enable_x64(dtype == "float64"):
        chip = _hierarchy()
        found = _counts(stack_layers(layers, dtype), chip, stack_nests(nests, chip, dtype), dtype)
        found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)

    inputs = np.asarray([older_input_words(*one) for one in zip(layers, nests, strict=True)], float)
    words, instances, compute = found["words"], found["instances"], found["compute"]
    words[1]["o"]["reads"] = words[1]["o"]["updates"]
    words[2]["i"]["fills"] = words[3]["i"]["reads"] = inputs
    speed, accesses = np.ones_like(compute), []
    for k, tensors in enumerate(words):
        here = [tensors[t] for t in "wio" if t in tensors]
        reads, writes = [one["reads"] for one in here], [one["fills"] + one["updates"] for one in here]
        accesses.append(instances[k] * (sum(reads) + sum(writes)))
        if k in port:  # divided, then added: the last cycle comes from rounding
            need = sum(words / compute for words in reads) + sum(words / compute for words in writes)
            speed = np.minimum(speed, port[k] / need)
    cycles = np.ceil(compute / speed)
    macs = np.prod(np.stack(list(size.values())).astype(float), axis=0)
    # 32-bit words; the size of the whole accumulator over its columns is the size of one column.
    accumulator_pj = _ACCUMULATOR_PJ[0] + _ACCUMULATOR_PJ[1] * accumulator * 4 / 1024
    scratchpad_pj = _SCRATCHPAD_PJ[0] + _SCRATCHPAD_PJ[1] * scratchpad / 1024
    each = (REGISTER_PJ, accumulator_pj, scratchpad_pj, DRAM_PJ)
    energy = macs * MAC_PJ + sum(count * pj for count, pj in zip(accesses, each, strict=True))

    for name in ("recorded_cycles", "recorded_energy_uJ"):
        report.columns.setdefault(name, MeanScore())
    for i in rows:
        name = f"line {table.lines[i]}"
        name = f"{Path(table.path).stem} {name}" if several else name
        where = f"{table.path}, line {table.lines[i]}"
        for column, ours in (("cycles", cycles[i]), ("energy_uJ", energy[i] / 1e6)):
            report.add(f"recorded_{column}", name, float(ours), table.rows[i][column], where)
    report.rows += len(rows)
    means = {name: one for name, one in report.columns.items() if isinstance(one, MeanScore)}
    note = ", ".join(f"{name} {100 * one.mean_relative_error:.2g} %" for name, one in means.items())
    report.notes = [f"older rules, mean absolute error: {note}"]
