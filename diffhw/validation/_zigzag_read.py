"""Tables of ZigZag's runs: architectures, layers and mappings, checked.

A table has one JSON object a line. Names of loops, operands and memories are the tool's.
"""

import difflib
import json
import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from diffhw.validation._zigzag_replay import Sliding, ZigzagMemory, ZigzagRun, distinct

__all__ = ["Architecture", "Row", "Unanswerable", "read_architectures", "read_rows"]

_MOVES = {"rd_out_to_low": "tl", "wr_in_by_low": "fl", "rd_out_to_high": "th", "wr_in_by_high": "fh"}
_FRACTION = 1e-9  # an unrolling as printed may be off by this much


@dataclass(frozen=True)
class Architecture:
    """units: MAC units.  mac_pj: of one.  memories: name -> its entry in the file."""

    name: str
    units: int
    mac_pj: float
    memories: dict[str, dict]


@dataclass(frozen=True)
class Unanswerable:
    """A row that we cannot replay, and why."""

    reason: str


@dataclass(frozen=True)
class Row:
    """One line."""

    path: str
    line: int
    cells: dict[str, Any]
    run: ZigzagRun | Unanswerable

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.path}, line {self.line}"

    @property
    def name(self) -> str:
        """Line, architecture and layer."""
        return f"line {self.line} {self.cells['arch']} {self.cells['layer']}"

    @property
    def kind(self) -> str:
        """One of even, uneven and fractional: see `ZigzagReport`."""
        assert isinstance(self.run, ZigzagRun)
        if any(one.denominator != 1 for one in self.run.unroll.values()):
            return "fractional"
        cuts: dict[str, set[int]] = {}
        for operand, chain in self.run.memories.items():
            inside = 0
            for memory, loops in zip(chain[:-1], self.run.temporal[operand], strict=False):
                inside += len(loops)
                cuts.setdefault(memory.name, set()).add(inside)
        return "even" if all(len(places) == 1 for places in cuts.values()) else "uneven"

    def _cell(self, keys: tuple) -> tuple[Any, str]:
        value, path = self.cells, ""
        for key in keys:
            path = f"{path}.{key}" if path else str(key)
            value = _need(value, key, f"{self.where}, key {path}")
        return value, f"{self.where}, key {path}"

    def integer(self, *keys) -> int:
        """The whole number under ``keys``."""
        value, where = self._cell(keys)
        if not _is_number(value) or value != int(value):
            raise ValueError(f"{where}: needs a whole number, got {value!r}")
        return int(value)

    def real(self, *keys) -> float:
        """The number under ``keys``."""
        value, where = self._cell(keys)
        if not _is_number(value):
            raise ValueError(f"{where}: needs a number, got {value!r}")
        return float(value)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _nearest(found, allowed) -> str:
    near = difflib.get_close_matches(str(found), [str(one) for one in allowed], 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _need(entry, key, where: str):
    if isinstance(entry, list) and isinstance(key, int) and key < len(entry):
        return entry[key]
    if not isinstance(entry, dict) or key not in entry:
        raise ValueError(f"{where}: is missing{_nearest(key, entry) if isinstance(entry, dict) else ''}")
    return entry[key]


def _read(path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ValueError(f"{path}: cannot be read ({reason})") from error


def _positive(entry, key, where: str, whole: bool = False, lowest: float = 0):
    value = _need(entry, key, where)
    if not _is_number(value) or value < lowest or (whole and value != int(value)):
        raise ValueError(f"{where}: needs a {'whole ' * whole}number >= {lowest}, got {value!r}")
    return int(value) if whole else float(value)


def read_architectures(path) -> dict[str, Architecture]:
    """The architectures of a JSON file, by name. Raises ValueError (one sentence)."""
    try:
        document = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(document, dict) or not document:
        raise ValueError(f"{path}: needs an object of architectures by name, got {type(document).__name__}")
    found = {}
    for name, entry in document.items():
        where = f"{path}, key {name}"
        array = _need(entry, "array", f"{where}.array")
        dims = _need(array, "dims", f"{where}.array.dims")
        if not isinstance(dims, dict):
            raise ValueError(f"{where}.array.dims: needs an object of sizes, got {dims!r}")
        sizes = [_positive(dims, dim, f"{where}.array.dims.{dim}", whole=True, lowest=1) for dim in dims]
        levels = _need(entry, "levels", f"{where}.levels")
        memories = {}
        for place, level in enumerate(_list(levels, f"{where}.levels")):
            here = f"{where}.levels.{place}"
            memories[str(_need(level, "name", f"{here}.name"))] = level
            _positive(level, "bits", f"{here}.bits", whole=True, lowest=1)
            for key in ("read_pj_per_full_width_access", "write_pj_per_full_width_access"):
                _positive(level, key, f"{here}.{key}")
            ports = _need(level, "ports", f"{here}.ports")
            for number, port in enumerate(_list(ports, f"{here}.ports")):
                there = f"{here}.ports.{number}"
                _list(_need(port, "moves", f"{there}.moves"), f"{there}.moves")
                low = _positive(port, "bits_per_cycle_min", f"{there}.bits_per_cycle_min", True, 1)
                _positive(port, "bits_per_cycle_max", f"{there}.bits_per_cycle_max", True, low)
        pj = _positive(array, "unit_energy_pj", f"{where}.array.unit_energy_pj")
        found[name] = Architecture(name, math.prod(sizes), pj, memories)
    return found


def read_rows(path, architectures: dict[str, Architecture]) -> list[Row]:
    """The runs of a JSON-lines file. Raises ValueError (one sentence with file, line and key)."""
    rows = []
    for line, text in enumerate(_read(path).splitlines(), start=1):
        if not text.strip():
            continue
        where = f"{path}, line {line}"
        try:
            cells = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not a JSON object ({error.msg})") from error
        for key in ("arch", "layer"):
            _need(cells, key, f"{where}, key {key}")
        arch = architectures.get(str(cells["arch"]))
        if arch is None:
            hint = _nearest(cells["arch"], architectures)
            raise ValueError(f"{where}, key arch: no architecture {cells['arch']!r}{hint}")
        rows.append(Row(str(path), line, cells, _run(cells, arch, where)))
    if not rows:
        raise ValueError(f"{path}: the table has no rows")
    return rows


def _run(cells: dict, arch: Architecture, where: str) -> ZigzagRun | Unanswerable:
    def cell(key: str, kind: type = dict):
        value = _need(cells, key, f"{where}, key {key}")
        if not isinstance(value, kind):
            raise ValueError(f"{where}, key {key}: needs a {kind.__name__}, got {value!r}")
        return value

    equation = cell("equation", str)
    terms = re.findall(r"(\w+)((?:\[\w+\])+)", equation)
    if len(terms) != 3 or "*" not in equation:
        return Unanswerable(f"{equation!r} is no product of two operands")
    names = [name for name, _ in terms]
    if set(names) != set("WIO") or names[0] != "O":
        return Unanswerable(f"{equation!r} is not O = W * I")
    indexes = {name: {one.upper() for one in re.findall(r"\[(\w+)\]", part)} for name, part in terms}
    sizes = {dim: _positive(cell("dims"), dim, f"{where}, key dims.{dim}", True, 1) for dim in cell("dims")}

    sliding = tuple(_relation(text, sizes, where) for text in cell("dimension_relations", list))
    moved = {one.axis for one in sliding}
    data = next((name for name in names if indexes[name] & moved), "")
    for name in names:
        for one in sliding:
            if one.axis in indexes[name]:
                indexes[name] = indexes[name] - {one.axis} | {one.slide, one.taps}
        unknown = indexes[name] - set(sizes)
        if unknown:
            raise ValueError(f"{where}, key equation: loop {min(unknown)!r} has no size in dims")

    memories, temporal, spatial, unroll = {}, {}, {}, {}
    for name in names:
        key = f"{where}, key memory_operand_links.{name}"
        link = _need(cell("memory_operand_links"), name, key)
        key = f"{where}, key mem_levels.{name}"
        chain = _list(_need(cell("mem_levels"), name, key), key)
        memories[name] = tuple(_memory(arch, str(level), link, key) for level in chain)
        _check_ports(memories[name], name == names[0], key)
        temporal[name] = _temporal(cells, name, len(chain), sizes, where)
        spatial[name] = _spatial(cells, name, len(chain), sizes, where)
    order = {name: [loop for place in temporal[name] for loop in place] for name in names}
    spread = {name: sorted(loop for place in spatial[name] for loop in place) for name in names}
    for name in names[1:]:
        for key, loops in (("temporal_mapping_inner_to_outer", order), ("spatial_mapping_truncated", spread)):
            if loops[name] != loops[names[0]]:
                raise ValueError(f"{where}, key {key}.{name}: its loops differ from those of {names[0]}")
    printed = cell("effective_unroll")
    for loop, size in sizes.items():
        factor = Fraction(size, math.prod(one for name, one in order[names[0]] if name == loop))
        given = printed.get(loop, 1.0)
        if not _is_number(given) or abs(float(factor) - given) > _FRACTION * abs(given):
            raise ValueError(
                f"{where}, key effective_unroll.{loop}: needs size over temporal loops, {float(factor):g}, "
                f"got {given!r}"
            )
        if factor != 1:
            unroll[loop] = factor
        if factor != 1 and spread[names[0]].count(loop) != 1:
            raise ValueError(f"{where}, key spatial_mapping_truncated: loop {loop!r} must be unrolled once")

    widths = cell("precision_bits")
    width = lambda key: _positive(widths, key, f"{where}, key precision_bits.{key}", True, 1)
    run = ZigzagRun(
        sizes=sizes,
        indexes={name: frozenset(found) for name, found in indexes.items()},
        sliding=sliding,
        data=data,
        extents={},
        output=names[0],
        bits={name: width(name) for name in names},
        final_bits=width("O_final"),
        memories=memories,
        temporal=temporal,
        spatial=spatial,
        unroll=unroll,
        units=arch.units,
        mac_pj=arch.mac_pj,
    )
    extents = _extents(cells, run, where)
    return extents if isinstance(extents, Unanswerable) else replace(run, extents=extents)


def _relation(text, sizes: dict[str, int], where: str) -> Sliding:
    found = re.fullmatch(r"\s*(\w+)\s*=\s*(\d+)\s*\*\s*(\w+)\s*\+\s*(\d+)\s*\*\s*(\w+)\s*", str(text))
    if not found or found[3].upper() not in sizes or found[5].upper() not in sizes:
        raise ValueError(
            f"{where}, key dimension_relations: needs axis = a*loop + b*loop with loops of dims, got {text!r}"
        )
    axis, stride, slide, dilation, taps = found.groups()
    if int(stride) < 1 or int(dilation) < 1:
        raise ValueError(f"{where}, key dimension_relations: factors must be >= 1, got {text!r}")
    return Sliding(axis.upper(), int(stride), slide.upper(), int(dilation), taps.upper())


def _memory(arch: Architecture, name, link, where: str) -> ZigzagMemory:
    entry = arch.memories.get(name)
    if entry is None:
        raise ValueError(f"{where}: {arch.name} has no memory {name!r}{_nearest(name, arch.memories)}")
    port = {}
    of_kind = lambda kind: sum(
        int(one["bits_per_cycle_max"]) for one in entry["ports"] if one.get("kind") == kind
    )
    for direction, move in _MOVES.items():
        for one in entry["ports"]:
            if f"{link}:{move}" in one["moves"]:
                port[direction] = (int(one["bits_per_cycle_min"]), int(one["bits_per_cycle_max"]))
                break
    return ZigzagMemory(
        name=name,
        bits=int(entry["bits"]),
        read_pj=entry["read_pj_per_full_width_access"],
        write_pj=entry["write_pj_per_full_width_access"],
        port=port,
        read_bits=of_kind("read"),
        write_bits=of_kind("write"),
        shared_bits=of_kind("read_write"),
    )


def _check_ports(chain: tuple[ZigzagMemory, ...], output: bool, where: str) -> None:
    if not chain:
        raise ValueError(f"{where}: needs at least one memory, got an empty list")
    for memory in chain:
        needed = {"rd_out_to_low"} | ({"wr_in_by_low"} if output else set())
        if memory is not chain[-1]:
            needed |= {"wr_in_by_high"} | ({"rd_out_to_high"} if output else set())
        missing = sorted(needed - set(memory.port))
        if missing:
            raise ValueError(
                f"{where}: {memory.name!r} has no port that does {missing[0]} ({_MOVES[missing[0]]})"
            )


def _list(value, where: str) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{where}: needs a list, got {value!r}")
    return value


def _temporal(cells: dict, name: str, depth: int, sizes: dict, where: str) -> list[list[tuple[str, int]]]:
    key = "temporal_mapping_inner_to_outer"
    here = f"{where}, key {key}.{name}"
    levels = _need(_need(cells, key, f"{where}, key {key}"), name, here)
    if not isinstance(levels, list) or len(levels) > depth:
        raise ValueError(f"{here}: needs a list of at most {depth} memories, got {levels!r}")
    found = []
    for place in levels + [[]] * (depth - len(levels)):
        loops = []
        for loop in _list(place, here):
            if not isinstance(loop, list) or len(loop) != 2 or str(loop[0]) not in sizes:
                raise ValueError(f"{here}: needs [loop, size] with a loop of dims, got {loop!r}")
            size = loop[1]
            if not _is_number(size) or size < 1 or size != int(size):
                raise ValueError(f"{here}: loop {loop[0]} needs a whole size >= 1, got {size!r}")
            loops.append((loop[0], int(size)))
        found.append(loops)
    return found


def _spatial(cells: dict, name: str, depth: int, sizes: dict, where: str) -> list[list[str]]:
    key = "spatial_mapping_truncated"
    here = f"{where}, key {key}.{name}"
    places = _need(_need(cells, key, f"{where}, key {key}"), name, here)
    if not isinstance(places, list) or len(places) > depth + 1 or any(places[depth:]):
        raise ValueError(f"{here}: needs a list of at most {depth} places, got {places!r}")
    found = []
    for place in places[:depth] + [[]] * (depth - len(places)):
        loops = [str(one).strip("() ").split(",")[0] for one in _list(place, here)]
        for loop in loops:
            if loop not in sizes:
                raise ValueError(f"{here}: no loop {loop!r} in dims{_nearest(loop, sizes)}")
        found.append(loops)
    return found


def _extents(cells: dict, run: ZigzagRun, where: str) -> dict[str, int] | Unanswerable:
    """Extent of the stored input per sliding axis: given, or told by the use of the outermost memory."""
    given = cells.get("input_size")
    if given is not None:
        return {
            one.axis: _positive(given, one.axis, f"{where}, key input_size.{one.axis}", True, 1)
            for one in run.sliding
        }
    if not run.sliding:
        return {}
    reach = {
        one.axis: distinct(one.stride, run.sizes[one.slide], one.dilation, run.sizes[one.taps])
        for one in run.sliding
    }
    outermost = run.memories[run.data][-1]
    used = _need(cells, "mem_utilization", f"{where}, key mem_utilization")
    used = _need(used, run.data, f"{where}, key mem_utilization.{run.data}")
    if not isinstance(used, list) or not used or not _is_number(used[-1]):
        raise ValueError(f"{where}, key mem_utilization.{run.data}: needs a list of numbers, got {used!r}")
    bits = used[-1] * outermost.bits
    for name, chain in run.memories.items():
        if name != run.data and chain[-1].name == outermost.name:
            width = run.final_bits if name == run.output else run.bits[name]
            bits -= width * run.tile(name, len(chain) - 1)
    loops = {loop for one in run.sliding for loop in (one.slide, one.taps)}
    per_channel = run.bits[run.data] * math.prod(run.sizes[loop] for loop in run.indexes[run.data] - loops)
    area = round(bits / per_channel)
    if abs(area * per_channel - bits) > 0.5e-10 * outermost.bits + 1e-6 * per_channel:
        return Unanswerable("the use of the outermost memory is no whole input: its padding is unknown")
    if area == math.prod(reach.values()):
        return reach
    (first, a), *rest = reach.items()
    if not rest:
        return {first: area}
    (second, b), *more = rest
    pairs = [(x, area // x) for x in range(1, a + 1) if area % x == 0 and area // x <= b] if not more else []
    # Padding and what a stride leaves over are usually the same on both axes.
    pairs = [pair for pair in pairs if a - pair[0] == b - pair[1]] or pairs
    if len(pairs) != 1:
        return Unanswerable("the padding of the input is unknown: give input_size")
    return {first: pairs[0][0], second: pairs[0][1]}
