"""One entry of a space.yaml as a variable or a number; see `_space_file`. Errors begin with their place."""

import math
from collections.abc import Sequence

import numpy as np

from diffhw import hardware
from diffhw._files import documents
from diffhw._files.documents import Rows, Table, number, table
from diffhw.mappings import DATAFLOWS
from diffhw.spaces import Bits, Choice, Integer, Real

__all__ = ["PARTS", "check_range", "checked_number", "named_part", "one_of", "variable_of"]

PARTS = ("dram", "technology.node_nm")
"""Fields that stand for a whole part: a type of DRAM, the technology of a node."""

_KINDS = ("integer", "real", "bits", "values", "choice")
_OPTIONS = {
    "integer": ("scale", "step", "per_octave"),
    "real": ("scale", "step", "per_octave"),
    "bits": ("step",),
    "values": ("scale",),
    "choice": (),
}
_WHOLE = ("rows", "cols", "lanes", "instances", "fanout_x", "fanout_y", "pe_dim", "pe_x", "pe_y")
_MAY_BE_ZERO = ("flexible", "pj_per_bit", "phy_area_mm2", "static_w", "mac_pj", "mac_area_mm2")
_MAY_BE_ZERO += ("read_pj", "fill_pj", "update_pj", "area_mm2", "leakage_w")


def variable_of(name: str, data, where: str, dataflows: Sequence[str]) -> Integer | Real | Choice:
    """The variable of a field. data: one kind and its options, ``{integer: [4, 256], per_octave: 2}``."""
    if isinstance(data, int | float) and not isinstance(data, bool):
        raise ValueError(f"{where} is one number, {data}: put it under 'fixed', or give a range")
    data = table(data, f"{where} (a variable, such as {{integer: [4, 256]}})")
    kinds = [key for key in data if key in _KINDS]
    options = _OPTIONS[kinds[0]] if len(kinds) == 1 else _OPTIONS["integer"]
    documents.check_keys(data, (*_KINDS, *options))
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none"
        raise ValueError(f"{where} needs exactly one of {', '.join(_KINDS)}, got {found}")
    kind, place = kinds[0], data.where(kinds[0])
    if name == "dataflow":
        return _dataflows(data, kind, place, dataflows)
    if name in PARTS:
        wanted = ("choice",) if name == "dram" else ("choice", "values")
        if kind not in wanted:
            raise ValueError(f"{place}: {name} takes {' or '.join(wanted)}, a list")
        found = _entries(data[kind], place)
        return Choice({str(one): named_part(name, one, found.where(i)) for i, one in enumerate(found)})
    if kind == "choice":
        raise ValueError(f"{place}: {name} is a number; give integer, real or values")
    try:
        made = _numeric(kind, data, place)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(data.file) else f"{place}: {text}") from None
    check_range(name, made, place)
    return made


def check_range(name: str, made: Integer | Real, where: str) -> None:
    """Raises ValueError where the values of a variable are not legal for a field."""
    last = name.rpartition(".")[2]
    zero = last in _MAY_BE_ZERO
    if last in _WHOLE and not isinstance(made, Integer):
        raise ValueError(f"{where}: {name} takes whole numbers; give integer, or whole values")
    if made.low < 0 or (made.low == 0 and not zero):
        raise ValueError(f"{where}: {name} must be {'>= 0' if zero else '> 0'}, got {made.low:g}")


def checked_number(name: str, value, where: str) -> float:
    """A fixed number that is legal for a field."""
    last = name.rpartition(".")[2]
    found = number(value, where, zero=last in _MAY_BE_ZERO)
    if last in _WHOLE and found % 1:
        raise ValueError(f"{where} must be a whole number, got {value}")
    return found


def one_of(value, known: Sequence[str], where: str) -> str:
    """A name out of ``known``, or a ValueError with the nearest one."""
    if value not in known:
        raise ValueError(f"{where}: unknown name {value!r}{documents.nearest(value, known)}")
    return value


def named_part(name: str, value, where: str):
    """A `Dram` by its type, or the `Technology` of a node."""
    if name == "dram" and not isinstance(value, str):
        raise ValueError(f"{where} must be a type of DRAM, got {value!r}")
    node = 0.0 if name == "dram" else number(value, where)
    try:
        return hardware.dram(value) if name == "dram" else hardware.Technology.at(node)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _entries(found, place: str) -> Rows:
    """A list of at least one value, none twice."""
    if not isinstance(found, Rows):
        raise ValueError(f"{place} must be a list, got {found!r}")
    if not found:
        raise ValueError(f"{place} is empty: it needs at least one value")
    for i, one in enumerate(found):
        if one in found[:i]:
            raise ValueError(f"{found.where(i)}: {one!r} is listed twice")
    return found


def _dataflows(data: Table, kind: str, place: str, known: Sequence[str]) -> Choice:
    if kind != "choice":
        raise ValueError(f"{place}: dataflow takes choice, a list of names out of {', '.join(known)}")
    found = _entries(data[kind], place)
    names = [one_of(one, known, found.where(i)) for i, one in enumerate(found)]
    if known != DATAFLOWS or tuple(names) == DATAFLOWS:
        return Choice(names)
    # The systolic model takes weights over all three.
    return Choice({name: np.eye(3)[DATAFLOWS.index(name)] for name in names})


def _numeric(kind: str, data: Table, place: str) -> Integer | Real:
    options = {key: data[key] for key in data if key != kind}
    for key in ("step", "per_octave"):
        if key in options:
            options[key] = number(options[key], data.where(key))
    if options.get("scale", "log") not in ("log", "linear"):
        raise ValueError(f"{data.where('scale')} must be log or linear, got {options['scale']!r}")
    found = data[kind]
    if kind == "values":
        found = _entries(found, place)
    elif not isinstance(found, Rows) or len(found) != 2:
        raise ValueError(f"{place} must be [lowest, highest], got {found!r}")
    numbers = [number(one, found.where(i), zero=True) for i, one in enumerate(found)]
    if kind == "values":
        made = Integer if all(one % 1 == 0 for one in numbers) else Real
        return made(values=numbers, **options)
    low, high = numbers
    if low > high:
        raise ValueError(f"{place} is empty: its lowest, {low:g}, is above its highest, {high:g}")
    if kind != "real" and (low % 1 or high % 1):
        raise ValueError(f"{place} must be two whole numbers, got {low:g} and {high:g}")
    if high > low and options.get("step", 0) > high - low:
        raise ValueError(f"{data.where('step')}: {options['step']:g} is wider than the range")
    if kind == "bits":
        return Bits(int(low), int(high), **options)
    if math.isinf(low + high):
        raise ValueError(f"{place} must be finite")
    return {"integer": Integer, "real": Real}[kind](low, high, **options)
