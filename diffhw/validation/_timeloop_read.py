"""Tables of timeloop-model runs: architectures, layers and mappings, in our own terms.

The tables pair R, P with the width and S, Q with the height; our r, p go with the height.
"""

import difflib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffhw.hardware import Hierarchy, Memory
from diffhw.mappings import LOOPS, LoopLevel, LoopNest, loop_order
from diffhw.validation._table import Table, read_table
from diffhw.workloads import Layer
from diffhw.workloads._layer import layer_numbers

__all__ = ["Architecture", "Run", "read_architectures", "read_runs", "stack_layers", "stack_nests"]

DIMS = {"R": "s", "S": "r", "P": "q", "Q": "p", "C": "c", "K": "k", "N": "n"}
"""The tables' names of loops -> ours."""

STRIDES = ("stride_w", "stride_h", "dilation_w", "dilation_h")
COUNTS = ("tile", "reads", "fills", "updates")
_BANDWIDTHS = {
    "read": "read_bw",
    "write": "write_bw",
    "shared": "shared_bw_words_per_cycle_per_instance",
}


@dataclass(frozen=True)
class Architecture:
    """hierarchy: ours.  levels: as in the file, innermost first.  mac_pj, macs: of and how many MACs."""

    name: str
    hierarchy: Hierarchy
    levels: tuple[dict, ...]
    mac_pj: float
    macs: int


@dataclass(frozen=True)
class Run:
    """One row. layer: sizes and strides by our names.  levels: per level, innermost first, the keys
    ``temporal`` (innermost loop first), ``x``, ``y``: {loop: factor}.
    """

    table: Table
    index: int
    architecture: Architecture
    layer: dict[str, int]
    levels: tuple[dict[str, dict[str, int]], ...]

    @property
    def row(self) -> dict[str, str]:
        """Cells of the table."""
        return self.table.rows[self.index]

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.table.path}, line {self.table.lines[self.index]}"


def _nearest(found, allowed) -> str:
    near = difflib.get_close_matches(str(found), list(allowed), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _need(entry, key: str, where: str):
    if not isinstance(entry, dict) or key not in entry:
        hint = _nearest(key, entry) if isinstance(entry, dict) else ""
        raise ValueError(f"{where}: key {key!r} is missing{hint}")
    return entry[key]


def _number(entry, key: str, where: str, *, lowest: float = 0.0, absent_is: float | None = None) -> float:
    value = _need(entry, key, where)
    if value is None and absent_is is not None:
        return absent_is
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= lowest:
        raise ValueError(f"{where}: {key} must be a number >= {lowest:g}, got {value!r}")
    return float(value)


def read_architectures(path) -> dict[str, Architecture]:
    """Architectures by arch_id. Raises ValueError, one sentence, that names file, architecture and key."""
    path = Path(path)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ValueError(f"{path}: the architectures of the table cannot be read ({reason})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: needs a list of architectures, got {type(entries).__name__}")
    found = {}
    for place, entry in enumerate(entries):
        name = str(_need(entry, "arch_id", f"{path}, entry {place + 1}"))
        if name in found:
            raise ValueError(f"{path}: two architectures are called {name!r}")
        found[name] = _architecture(name, entry, f"{path}, {name}")
    return found


def _architecture(name: str, entry: dict, where: str) -> Architecture:
    levels = _need(entry, "levels_inner_to_outer", where)
    if not isinstance(levels, list) or not levels:
        raise ValueError(f"{where}: levels_inner_to_outer must be a list of levels, got {levels!r}")
    compute = _need(entry, "compute", where)
    mac_pj = _number(compute, "energy_pJ", f"{where}, compute")
    try:
        hierarchy = Hierarchy.create(
            levels=[_memory(level, k, levels, where) for k, level in enumerate(levels)], mac_pj=mac_pj
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where not in str(error) else str(error)) from None
    macs = _number(compute, "instances", f"{where}, compute", lowest=1)
    return Architecture(name, hierarchy, tuple(levels), mac_pj, int(macs))


def _memory(level: dict, k: int, levels: list, where: str) -> Memory:
    name = str(_need(level, "name", f"{where}, level {k}"))
    where = f"{where}, {name}"
    keeps = _need(level, "keeps", where)
    if not isinstance(keeps, list) or not set(map(str, keeps)) <= set("WIO"):
        raise ValueError(f"{where}: keeps must be a list of W, I, O, got {keeps!r}")
    spread = _need(level, "spatial_below", where) or {"x_dims": "", "x_size": 1, "y_dims": "", "y_size": 1}
    fan, dims = {}, {}
    for axis in "xy":
        letters = str(_need(spread, f"{axis}_dims", f"{where}, spatial_below"))
        unknown = [letter for letter in letters if letter not in DIMS]
        if unknown:
            raise ValueError(f"{where}: {axis}_dims may hold {''.join(DIMS)}, got {unknown[0]!r}")
        dims[axis] = "".join(DIMS[letter] for letter in letters)
        fan[axis] = _number(spread, f"{axis}_size", f"{where}, spatial_below", lowest=1)
    if k:  # neighbours are those of the mesh, which may be wider than what a mapping may use
        inner, own = levels[k - 1].get("meshX"), level.get("meshX")
        if isinstance(inner, int) and isinstance(own, int) and own > 0 and inner % own == 0:
            fan["x"] = max(fan["x"], inner // own)
    energy = _need(level, "energy_pJ_per_vector", where)
    pj = {f"{what}_pj": _number(energy, what, f"{where}, energy") for what in ("read", "fill", "update")}
    bandwidth = {
        f"{port}_words_per_cycle": _number(level, key, where, absent_is=math.inf)
        for port, key in _BANDWIDTHS.items()
    }
    entries = _number(level, "entries_words", where, absent_is=math.inf)
    return Memory.create(
        name=name,
        keeps="".join(keeps).lower(),
        capacity_words=None if entries == math.inf else entries,
        word_bits=_number(level, "word_bits", where),
        block_words=_number(level, "block_size_words", where),
        fanout_x=fan["x"],
        fanout_y=fan["y"],
        spatial_x=dims["x"],
        spatial_y=dims["y"],
        **bandwidth,
        **pj,
    )


def read_runs(path, architectures: dict[str, Architecture]) -> list[Run]:
    """Rows of a table, checked. Raises ValueError, one sentence, that names file, line and column."""
    table = read_table(path, ("arch_id", *DIMS, *STRIDES, "mapping", "cycles", "energy_pJ"))
    runs = []
    for index, row in enumerate(table.rows):
        where = f"{table.path}, line {table.lines[index]}"
        if row["arch_id"] not in architectures:
            raise ValueError(
                f"{where}, column arch_id: unknown architecture {row['arch_id']!r}"
                f"{_nearest(row['arch_id'], architectures) or '; known: ' + ', '.join(architectures)}"
            )
        architecture = architectures[row["arch_id"]]
        for level in architecture.levels:
            cells = [f"{t}_{count}" for t in level["keeps"] for count in COUNTS]
            for column in (f"{level['name']}_{cell}" for cell in (*cells, "cycles")):
                if column not in row:
                    raise ValueError(f"{table.path}: column {column!r} of {architecture.name} is missing")
        layer = {DIMS[d]: table.integer(index, d) for d in DIMS}
        layer |= {stride: table.integer(index, stride) for stride in STRIDES}
        levels = _levels(row["mapping"], architecture, f"{where}, column mapping")
        _check_cover(layer, levels, f"{where}, column mapping")
        runs.append(Run(table, index, architecture, layer, levels))
    return runs


def _levels(text: str, architecture: Architecture, where: str) -> tuple[dict, ...]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error})") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{where}: needs a list of levels, outermost first, got {text[:40]!r}")
    names = [str(level["name"]) for level in architecture.levels]
    found = [str(entry.get("level")) for entry in reversed(entries)]
    if found != names:
        wrong = next((name for name in found if name not in names), None)
        what = f"unknown level {wrong!r}{_nearest(wrong, names)}" if wrong else f"its levels are {found}"
        raise ValueError(f"{where}: {what} (outermost first: {', '.join(reversed(names))})")
    levels = []
    for entry, memory, name in zip(reversed(entries), architecture.hierarchy.levels, names, strict=True):
        unknown = set(entry) - {"level", "temporal", "spatial_x", "spatial_y"}
        if unknown:
            raise ValueError(f"{where}: {name} has an unknown key {min(unknown)!r}")
        at = f"{where}: {name}"
        temporal = _factors(list(reversed(_pairs(entry.get("temporal", []), f"{at}.temporal"))), at)
        level = {"temporal": temporal}
        for axis in "xy":
            key = f"spatial_{axis}"
            factors = entry.get(key, {})
            pairs = list(factors.items()) if isinstance(factors, dict) else _pairs(factors, f"{at}.{key}")
            level[axis] = _factors(pairs, f"{at}.{key}")
            allowed, most = getattr(memory, key), float(getattr(memory, f"fanout_{axis}"))
            for d in level[axis]:
                if d not in allowed:
                    theirs = "".join(name for name, ours in DIMS.items() if ours in allowed) or "none"
                    letter = next(name for name, ours in DIMS.items() if ours == d)
                    raise ValueError(f"{at}.{key}: loop {letter!r} may not be spread (allowed: {theirs})")
            if math.prod(level[axis].values()) > most:
                raise ValueError(
                    f"{at}.{key}: {math.prod(level[axis].values())} children, the level has {most:g}"
                )
        levels.append(level)
    return tuple(levels)


def _pairs(value, where: str) -> list:
    if not isinstance(value, list) or not all(isinstance(one, list) and len(one) == 2 for one in value):
        raise ValueError(f'{where}: needs loops as in [["K", 4], ["P", 2]], got {str(value)[:40]!r}')
    return value


def _factors(pairs: list, where: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, factor in pairs:
        if name not in DIMS:
            raise ValueError(f"{where}: unknown loop {name!r} (allowed: {''.join(DIMS)})")
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise ValueError(f"{where}: loop {name} needs a whole factor >= 1, got {factor!r}")
        if DIMS[name] in found:
            raise ValueError(f"{where}: loop {name} stands there twice")
        if factor > 1:
            found[DIMS[name]] = factor
    return found


def _check_cover(layer: dict, levels, where: str) -> None:
    for theirs, d in DIMS.items():
        factors = [loops.get(d, 1) for level in levels for loops in level.values()]
        if math.prod(factors) != layer[d]:
            raise ValueError(
                f"{where}: the factors of loop {theirs} multiply to {math.prod(factors)}, "
                f"the layer has {layer[d]}"
            )


def _column(values: list, dtype) -> Any:
    return np.asarray(values, dtype)  # numpy: a batch goes to the device in one piece


def stack_layers(layers: list[dict[str, int]], dtype) -> Layer:
    """Layers of one batch: leaves of shape (rows,)."""
    rows = [layer_numbers(**layer) for layer in layers]
    return Layer(**{key: _column([row[key] for row in rows], dtype) for key in rows[0]})


def stack_nests(nests: list, hierarchy: Hierarchy, dtype) -> LoopNest:
    """Nests of one batch on hierarchies of one structure: leaves of shape (rows,)."""
    column = lambda values: _column(values, dtype)
    levels = []
    for k, memory in enumerate(hierarchy.levels):
        found = [nest[k] for nest in nests]
        orders = [loop_order("".join(level["temporal"])) for level in found]
        levels.append(
            LoopLevel(
                temporal={d: column([level["temporal"].get(d, 1) for level in found]) for d in LOOPS},
                order={d: column([order[d] for order in orders]) for d in LOOPS},
                spatial_x={d: column([level["x"].get(d, 1) for level in found]) for d in memory.spatial_x},
                spatial_y={d: column([level["y"].get(d, 1) for level in found]) for d in memory.spatial_y},
            )
        )
    return LoopNest(levels=tuple(levels))
