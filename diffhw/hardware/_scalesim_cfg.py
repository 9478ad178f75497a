"""SCALE-Sim .cfg files, v1 to v3, read and written.

Mapping to our types: one word is one operand, a kB is 1024 bytes, the three SRAMs are one level
each, and ``Bandwidth`` (words per cycle, first entry of the list) times the operand width and the
clock is the DRAM's bandwidth. The file knows no clock, widths, node or DRAM type: those are options.
"""

import configparser
import difflib
import math
from pathlib import Path

import numpy as np

from diffhw._files.documents import number, read_text
from diffhw.hardware._accelerator import Accelerator, Level
from diffhw.hardware._dram import dram as make_dram
from diffhw.hardware._technology import Technology

__all__ = ["read_scalesim_cfg", "write_scalesim_cfg"]

_SECTION = "architecture_presets"
_SRAMS = (
    ("ifmap", "i", ("IfmapSramSzkB", "IfmapSramSz")),
    ("filter", "w", ("FilterSramSzkB", "FilterSramSz")),
    ("ofmap", "o", ("OfmapSramSzkB", "OfmapSramSz")),
)
_DATAFLOWS = ("os", "ws", "is")


def _parse(path) -> dict[str, str]:
    """The architecture section, keys in lower case."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(read_text(path), source=str(path))
    except configparser.Error as error:
        detail = " ".join(str(error).split())
        raise ValueError(f"{path} is no SCALE-Sim .cfg: {detail}") from None
    sections = {name.strip().lower(): name for name in parser.sections()}
    if _SECTION not in sections:
        found = ", ".join(parser.sections()) or "none"
        raise ValueError(f"{path} needs a section [{_SECTION}]; sections found: {found}")
    return {key.lower().strip(): (value or "").strip() for key, value in parser[sections[_SECTION]].items()}


def _value(keys: dict[str, str], spellings, path) -> tuple[str, str]:
    """(spelling, text) of the first spelling that is there."""
    for spelling in spellings:
        if spelling.lower() in keys:
            return spelling, keys[spelling.lower()]
    near = difflib.get_close_matches(spellings[0].lower(), list(keys), 1, 0.6)
    hint = f"; did you mean that by {near[0]!r}?" if near else f"; keys found: {', '.join(keys) or 'none'}"
    raise ValueError(f"{path}: [{_SECTION}] needs the key {spellings[0]}{hint}")


def _count(text: str, key: str, path) -> int:
    value = number(text, f"{path}: {key}")
    if value != int(value):
        raise ValueError(f"{path}: {key} must be a whole number, got {text}")
    return int(value)


def read_scalesim_cfg(
    path, *, freq_hz=1e9, word_bits=8, psum_bits=32, node_nm=22.0, dram="LPDDR4"
) -> tuple[Accelerator, str | None]:
    """(accelerator, dataflow or None) from a .cfg of SCALE-Sim v1, v2 or v3 (keys in any case).

    freq_hz, word_bits, psum_bits, node_nm, dram: what the file does not say. ``dram`` names the type
    whose energy, PHY area and static power hold per GB/s. Without ``Bandwidth`` it is one unit of the type.
    Raises ValueError naming file, key, found and allowed.
    """
    keys = _parse(path)
    rows, cols = (_count(_value(keys, (key,), path)[1], key, path) for key in ("ArrayHeight", "ArrayWidth"))
    levels = []
    for name, keeps, spellings in _SRAMS:
        key, text = _value(keys, spellings, path)
        levels.append(Level.create(name=name, keeps=keeps, capacity_bytes=1024 * _count(text, key, path)))
    gb_per_s = None
    if keys.get("bandwidth"):
        words = number(keys["bandwidth"].split(",")[0].strip(), f"{path}: Bandwidth")
        gb_per_s = words * word_bits / 8 * freq_hz / 1e9
    dataflow = keys.get("dataflow", "").lower() or None
    if dataflow is not None and dataflow not in _DATAFLOWS:
        raise ValueError(f"{path}: Dataflow must be one of {', '.join(_DATAFLOWS)}, got {keys['dataflow']!r}")
    hw = Accelerator.create(
        rows=rows,
        cols=cols,
        levels=levels,
        weight_bits=word_bits,
        input_bits=word_bits,
        psum_bits=psum_bits,
        freq_hz=freq_hz,
        dram=make_dram(dram, gb_per_s=gb_per_s),
        technology=Technology.at(node_nm),
    )
    return hw, dataflow


def write_scalesim_cfg(hw: Accelerator, dataflow: str, path, *, run_name: str = "diffhw") -> None:
    """Write ``hw`` (concrete scalars) for SCALE-Sim v2 and v3.

    The format holds whole kB and whole words per cycle: what does not fit is rounded down (at least
    1) and a comment in the file says so. Raises ValueError for an unknown dataflow or fractional rows.
    """
    if dataflow not in _DATAFLOWS:
        raise ValueError(f"dataflow must be one of {', '.join(_DATAFLOWS)}, got {dataflow!r}")
    comments: list[str] = []

    def whole(name: str, value: float) -> int:
        result = max(1, math.floor(value))
        if result != value:
            comments.append(f"; {name} {value:g} written as {result}")
        return result

    sides = {}
    for key, side in (("ArrayHeight", hw.rows), ("ArrayWidth", hw.cols)):
        sides[key] = int(np.asarray(side))
        if sides[key] != float(np.asarray(side)):
            raise ValueError(f"{key} must be a whole number, got {float(np.asarray(side)):g}")
    srams = {
        spellings[0]: whole(spellings[0], float(hw.buffer(keeps)[1]) / 1024) for _, keeps, spellings in _SRAMS
    }
    words = whole(
        "Bandwidth", round(float(hw.dram_bytes_per_cycle) * 8 / float(np.asarray(hw.input_bits)), 6)
    )
    lines = [
        "[general]",
        f"run_name = {run_name}",
        "",
        "[architecture_presets]",
        *comments,
        *(f"{key} : {value}" for key, value in (sides | srams).items()),
        "IfmapOffset : 0",
        "FilterOffset : 10000000",
        "OfmapOffset : 20000000",
        f"Bandwidth : {words}",
        f"Dataflow : {dataflow}",
        "MemoryBanks : 1",
        "ReadRequestBuffer : 32",
        "WriteRequestBuffer : 32",
        "",
        "[run_presets]",
        "InterfaceBandwidth : USER",
        "",
    ]
    Path(path).write_text("\n".join(lines), encoding="utf-8")
