"""An accelerator as a small table, for terminals and notebooks. Host only; never fails on odd leaves."""

import html as _html

import jax
import jax.core
import numpy as np

__all__ = ["html", "rows", "text"]

_BYTES = ((2**20, "MiB"), (2**10, "KiB"), (1, "B"))


def _number(value) -> float | None:
    """A concrete scalar as a float, else None."""
    if value is None or isinstance(value, jax.core.Tracer):
        return None  # numpy would read None as NaN
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        return None
    return float(array) if array.shape == () else None


def _show(value, unit: str = "", scale: float = 1.0) -> str:
    """One leaf for reading: a number, the range of a batch, or the name of what stands there."""
    tail = f" {unit}" if unit else ""
    number = _number(value)
    if number is not None:
        return f"{number * scale:.6g}{tail}"
    if isinstance(value, jax.core.Tracer):
        return f"traced {value.shape}"
    if value is None:
        return "None"
    try:
        array = np.asarray(value, float)
        return f"{array.min() * scale:.4g} to {array.max() * scale:.4g}{tail} {array.shape}"
    except (TypeError, ValueError):
        return str(value)


def _capacity(value) -> str:
    number = _number(value)
    if number is None:
        return _show(value, "B")
    factor, unit = next(((f, u) for f, u in _BYTES if number >= f), _BYTES[-1])
    return f"{number / factor:.6g} {unit}"


def _port(level) -> str:
    shares = [
        f"{word} {_show(value)} B/cycle"
        for word, value in (
            ("read", level.read_bytes_per_cycle),
            ("write", level.write_bytes_per_cycle),
            ("shared", level.shared_bytes_per_cycle),
        )
        if _number(value) != np.inf
    ]
    return ", ".join([f"{_show(level.word_bits)}-bit words", *shares])


def _area(hw) -> str | None:
    from diffhw.hardware._accelerator import area_parts

    if any(_number(leaf) is None for leaf in jax.tree.leaves(hw, is_leaf=lambda leaf: leaf is None)):
        return None
    try:
        parts = {name: float(value) for name, value in area_parts(hw).items()}
    except (TypeError, ValueError, AttributeError):  # a tree of shapes, shardings or the like
        return None
    return f"{sum(parts.values()):.4g} mm2 (" + ", ".join(f"{n} {v:.3g}" for n, v in parts.items()) + ")"


def rows(hw) -> list[tuple[str, str]]:
    """(what, value) pairs that describe ``hw``; leaves may be traced, batched or search variables."""
    from diffhw.hardware._accelerator import Dram, Level
    from diffhw.hardware._dram import DRAM_TYPES

    lanes = "" if _number(hw.lanes) == 1 else f", {_show(hw.lanes)} MACs each"
    flexible = _number(hw.flexible)
    out = [
        ("PEs", f"{_show(hw.rows)} rows x {_show(hw.cols)} columns{lanes}"),
        (
            "operands",
            f"weight {_show(hw.weight_bits)}, input {_show(hw.input_bits)}, "
            f"partial sum {_show(hw.psum_bits)} bit",
        ),
        ("clock", _show(hw.freq_hz, "MHz", 1e-6)),
    ]
    if flexible != 0:
        out.append(("dataflow", "switchable" if flexible == 1 else f"switchable {_show(hw.flexible)}"))
    for level in hw.levels if isinstance(hw.levels, tuple | list) else ():
        if not isinstance(level, Level):
            out.append(("level", str(level)))
            continue
        times = "" if _number(level.instances) == 1 else f"{_show(level.instances)} x "
        out.append(
            (level.name, f"{times}{_capacity(level.capacity_bytes)} for {level.keeps}, {_port(level)}")
        )
    if isinstance(hw.dram, Dram):
        kind = _number(hw.dram.kind)
        name = (
            "mixed"
            if kind is None
            else "custom"
            if not 0 <= kind < len(DRAM_TYPES)
            else DRAM_TYPES[int(kind)]
        )
        out.append(
            ("DRAM", f"{name}, {_show(hw.dram.gb_per_s, 'GB/s')}, {_show(hw.dram.pj_per_bit, 'pJ/bit')}")
        )
    else:
        out.append(("DRAM", str(hw.dram)))
    node = getattr(hw.technology, "node_nm", None)
    out.append(("technology", _show(node, "nm") if node is not None else str(hw.technology)))
    area = _area(hw)
    return out if area is None else [*out, ("area", area)]


def text(hw) -> str:
    """The table as aligned lines."""
    pairs = rows(hw)
    width = max(len(name) for name, _ in pairs)
    return "\n".join(["Accelerator", *(f"  {name:<{width}}  {value}" for name, value in pairs)])


def html(hw) -> str:
    """The table as HTML, all text escaped."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{_html.escape(name)}</th>"
        f"<td style='text-align:left'>{_html.escape(value)}</td></tr>"
        for name, value in rows(hw)
    )
    return f"<table><caption>Accelerator</caption>{cells}</table>"
