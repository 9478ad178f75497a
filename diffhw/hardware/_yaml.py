"""Our own hardware format: an accelerator as a plain dict and as YAML, with an exact round trip.

    rows: 16
    cols: 16
    levels:
    - {name: weight, keeps: w, capacity_bytes: 65536}
    - {name: activation, keeps: io, capacity_bytes: 65536}
    dram: LPDDR4                  # or the numbers: gb_per_s, pj_per_bit, phy_area_mm2, static_w, kind
    technology: {node_nm: 22}     # coefficients written here replace the fitted ones of that node

What is left out has the default of `create`. Errors name file, line, key, what was found and what is allowed.
"""

import dataclasses
import difflib
from pathlib import Path

import numpy as np

from diffhw._files.documents import number, plain, read_text
from diffhw.hardware._accelerator import Accelerator, Dram, Level
from diffhw.hardware._dram import DRAM_TYPES
from diffhw.hardware._dram import dram as make_dram
from diffhw.hardware._technology import Technology

__all__ = ["Where", "from_dict", "read_document", "read_yaml", "to_dict", "write_yaml"]

_NUMBERS = ("rows", "cols", "lanes", "weight_bits", "input_bits", "psum_bits", "flexible", "freq_hz")
_PARTS = ("levels", "dram", "technology")
_LEVEL_NUMBERS = (
    "capacity_bytes",
    "word_bits",
    "block_bytes",
    "read_bytes_per_cycle",
    "write_bytes_per_cycle",
    "shared_bytes_per_cycle",
    "instances",
)
_MAY_BE_ZERO = {"flexible", "pj_per_bit", "phy_area_mm2", "static_w"}
_MAY_BE_INF = {"read_bytes_per_cycle", "write_bytes_per_cycle", "shared_bytes_per_cycle"}
_DRAM_NUMBERS = ("gb_per_s", "pj_per_bit", "phy_area_mm2", "static_w")
_TECHNOLOGY = tuple(field.name for field in dataclasses.fields(Technology))


class Where:
    """A place in a document, for error messages: ``where / "levels" / 0`` is a place further in.

    ``str(where)`` reads "design.yaml line 4 column 9: levels[0]"; without a parsed document only the file
    and the keys are known.
    """

    def __init__(self, file, node=None, keys: tuple = ()):
        self.file, self.node, self.keys = str(file), node, keys

    def __truediv__(self, key) -> "Where":
        value = getattr(self.node, "value", None)
        node = None
        if isinstance(value, list) and isinstance(key, int) and key < len(value):
            node = value[key]
        elif isinstance(value, list) and isinstance(key, str):
            node = next(
                (v for pair in value if isinstance(pair, tuple) for k, v in [pair] if k.value == key), None
            )
        return Where(self.file, node if node is not None else self.node, (*self.keys, key))

    def __str__(self) -> str:
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys).lstrip(".")
        mark = getattr(self.node, "start_mark", None)
        line = "" if mark is None else f" line {mark.line + 1} column {mark.column + 1}"
        return f"{self.file}{line}" + (f": {path}" if path else "")


def _where(where) -> Where:
    return where if isinstance(where, Where) else Where(where)


def mapping(value, allowed, where) -> dict:
    """``value`` as a dict whose keys are all among ``allowed``, or a ValueError with the nearest key."""
    where = _where(where)
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a mapping of {', '.join(allowed)}, got {value!r}")
    for key in value:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, 1, 0.0)[0]
            place = where / key if isinstance(key, str) else where
            raise ValueError(f"{place} is no known key; did you mean {near!r}? Allowed: {', '.join(allowed)}")
    return value


def to_dict(hw: Accelerator) -> dict:
    """``hw`` as plain numbers, strings, lists and dicts. Leaves must be concrete scalars.

    The DRAM's kind is written as its name (or "custom").
    """
    kind = int(np.asarray(hw.dram.kind))
    return {
        **{name: plain(getattr(hw, name)) for name in _NUMBERS},
        "levels": [
            {"name": level.name, "keeps": level.keeps}
            | {name: plain(getattr(level, name)) for name in _LEVEL_NUMBERS}
            for level in hw.levels
        ],
        "dram": {
            "kind": DRAM_TYPES[kind] if 0 <= kind < len(DRAM_TYPES) else "custom",
            **{name: plain(getattr(hw.dram, name)) for name in _DRAM_NUMBERS},
        },
        "technology": {name: plain(getattr(hw.technology, name)) for name in _TECHNOLOGY},
    }


def _numbers(data: dict, names, where: Where) -> dict[str, float]:
    return {
        name: number(data[name], where / name, zero=name in _MAY_BE_ZERO, infinite=name in _MAY_BE_INF)
        for name in names
        if name in data
    }


def _required(data: dict, names, where: Where) -> None:
    for name in names:
        if name not in data:
            raise ValueError(f"{where} needs the key {name!r}; it has {', '.join(map(str, data)) or 'none'}")


def _level(data, where: Where) -> Level:
    data = mapping(data, ("name", "keeps", *_LEVEL_NUMBERS), where)
    _required(data, ("keeps", "capacity_bytes"), where)
    try:
        return Level.create(
            name=str(data.get("name", "buffer")),
            keeps=str(data["keeps"]),
            **_numbers(data, _LEVEL_NUMBERS, where),
        )
    except ValueError as error:
        raise error if str(error).startswith(where.file) else ValueError(f"{where}: {error}") from None


def _dram(data, where: Where) -> Dram:
    try:
        if isinstance(data, str):
            return make_dram(data)
        data = mapping(data, ("kind", *_DRAM_NUMBERS), where)
        numbers = _numbers(data, _DRAM_NUMBERS, where)
        kind = str(data.get("kind", "custom"))
        if kind == "custom":
            _required(data, ("gb_per_s", "pj_per_bit"), where)
            return Dram.create(**numbers)
        base = make_dram(kind, gb_per_s=numbers.pop("gb_per_s", None))
        other = Dram.create(**({"gb_per_s": 1, "pj_per_bit": 1} | numbers))
        return dataclasses.replace(base, **{name: getattr(other, name) for name in numbers})
    except ValueError as error:
        raise error if str(error).startswith(where.file) else ValueError(f"{where}: {error}") from None


def _technology(data, where: Where) -> Technology:
    data = mapping(data, _TECHNOLOGY, where)
    values = {name: number(value, where / name, zero=name != "node_nm") for name, value in data.items()}
    if len(values) == len(_TECHNOLOGY):
        return Technology.create(**values)
    try:
        base = Technology.at(values.get("node_nm", 22.0))
    except ValueError as error:
        raise ValueError(f"{where / 'node_nm'}: {error}") from None
    own = Technology.create(**({name: 0.0 for name in _TECHNOLOGY} | values))
    return dataclasses.replace(base, **{name: getattr(own, name) for name in values})


def from_dict(data: dict, where="hardware") -> Accelerator:
    """The inverse of `to_dict`; also takes the short forms of the module's docstring.

    where: a `Where` or a string to begin error messages with. Raises ValueError.
    """
    where = _where(where)
    data = mapping(data, (*_NUMBERS, *_PARTS), where)
    _required(data, ("rows", "cols", "levels", "dram"), where)
    if not isinstance(data["levels"], list) or not data["levels"]:
        raise ValueError(f"{where / 'levels'} must be a list of at least one level, got {data['levels']!r}")
    numbers = _numbers(data, _NUMBERS, where)
    for name in ("rows", "cols", "lanes"):
        if name in numbers and numbers[name] % 1:
            raise ValueError(f"{where / name} must be a whole number, got {data[name]}")
    made = Accelerator.create(
        **numbers,
        levels=[_level(level, where / "levels" / i) for i, level in enumerate(data["levels"])],
        dram=_dram(data["dram"], where / "dram"),
        technology=_technology(data["technology"], where / "technology") if "technology" in data else None,
    )
    homeless = [tensor for tensor in "wio" if not any(tensor in level.keeps for level in made.levels)]
    if homeless:
        kept = ", ".join(level.keeps for level in made.levels)
        raise ValueError(f"{where / 'levels'}: no level keeps {homeless[0]!r} of w, i, o; they keep {kept}")
    return made


def read_document(path) -> tuple[dict, Where]:
    """Parse a YAML file whose top is a mapping: (data, place of the top).

    Raises ValueError in one sentence with line and column for broken YAML.
    """
    import yaml

    content = read_text(path)
    try:
        data, node = yaml.safe_load(content), yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" line {mark.line + 1} column {mark.column + 1}"
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise ValueError(f"{path}{place}: broken YAML: {problem}") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise ValueError(f"{path} must hold a mapping of keys, found {found}")
    return data, Where(path, node)


def read_yaml(path) -> Accelerator:
    """An accelerator from a file in our format, or the ``hardware`` part of a whole design's file."""
    data, where = read_document(path)
    if "hardware" in data:
        return from_dict(data["hardware"], where / "hardware")
    return from_dict(data, where)


def write_yaml(hw: Accelerator, path) -> None:
    """Write all numbers of ``hw``; `read_yaml` gives the same leaves bit for bit."""
    import yaml

    Path(path).write_text(yaml.safe_dump(to_dict(hw), sort_keys=False), encoding="utf-8")
