"""How costs show themselves: numbers scaled for reading, a text table, an HTML table.

Host only. A traced or abstract cost has no numbers to print and falls back to shapes; a batch of
costs shows ranges.
"""

import html as _html
import math

import jax
import jax.core
import numpy as np

__all__ = ["html", "quantity", "rows", "scaled_unit", "text", "total_line"]

_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))
_SMALL = ((1e-12, "p"), (1e-15, "f"), (1e-18, "a"))
_NEVER_SMALL = {"B", "cycles", "MACs"}


def scaled_unit(size: float, unit: str) -> tuple[float, str]:
    """(factor, unit) in which a number of that size reads best: (1e-3, "ms") for 0.004 s.

    Bytes are decimal (1 MB = 1e6 B). mm2, "%" and counts of cycles or MACs keep sensible steps.
    """
    if unit in ("", "mm2", "pJ", "V"):
        return 1.0, unit
    if unit == "%":
        return 0.01, "%"
    steps = _SI if unit not in _NEVER_SMALL else _SI[:5]
    if unit == "s":
        steps = _SI[4:]
    if unit not in _NEVER_SMALL:
        steps = (*steps, *_SMALL)
    size = abs(size)
    if size == 0 or not math.isfinite(size):
        return 1.0, unit
    space = " " if unit in ("cycles", "MACs") else ""
    for factor, prefix in steps:
        if size >= factor * 0.99995:
            return factor, f"{prefix}{space if prefix else ''}{unit}"
    factor, prefix = steps[-1]
    return factor, f"{prefix}{space if prefix else ''}{unit}"


def digits(value: float, significant: int = 4) -> str:
    """Plain decimal text with about ``significant`` digits, no exponent for usual sizes."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    value = float(f"{value:.{significant - 1}e}")  # 0.99999 has the digits of 1.000
    size = abs(value)
    if size >= 1e7 or size < 1e-4:
        return f"{value:.{significant - 1}e}"
    decimals = max(0, significant - 1 - math.floor(math.log10(size)))
    return f"{value:.{decimals}f}"


def quantity(value: float, unit: str, significant: int = 4) -> str:
    """A number with its unit, scaled for reading.

    >>> quantity(0.00123456, "s")
    '1.235 ms'
    >>> quantity(0.5, "%")
    '50.0 %'
    """
    if unit == "%":
        return f"{value * 100:.1f} %" if abs(value) < 10 else f"{value * 100:.0f} %"
    factor, name = scaled_unit(value, unit)
    return f"{digits(value / factor, significant)} {name}".rstrip()


def _array(value) -> np.ndarray | None:
    """A concrete leaf as float64, or None (traced, abstract, a placeholder)."""
    if isinstance(value, jax.core.Tracer):
        return None
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None


def _reading(value, unit: str) -> str:
    """One number, the range of a batch, or a shape."""
    array = _array(value)
    if array is None:
        return f"shape {getattr(value, 'shape', '?')}"
    if array.ndim == 0:
        return quantity(float(array), unit)
    if array.size == 0:
        return "none"
    ends = quantity(float(array.min()), unit), quantity(float(array.max()), unit)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _shares(parts: dict) -> str:
    """``dram 61 %, sram 20 %, ...``, largest first, of concrete scalars; of a batch the mean shares."""
    known = {name: _array(value) for name, value in parts.items()}
    arrays = {name: array for name, array in known.items() if array is not None}
    if len(arrays) < len(parts):
        return ", ".join(parts)
    means = {name: float(array.mean()) if array.size else 0.0 for name, array in arrays.items()}
    total = sum(means.values())
    if not total > 0:
        return ", ".join(means)
    ordered = sorted(means.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {quantity(value / total, '%')}" for name, value in ordered)


def _concrete(cost) -> bool:
    leaves = (cost.cycles, cost.energy_pj, cost.area_mm2, cost.macs, cost.freq_hz, cost.peak_macs_per_cycle)
    return all(_array(leaf) is not None for leaf in leaves)


def rows(cost) -> list[tuple[str, str]]:
    """(what, value with unit) pairs of a `Cost`; shapes where nothing is concrete."""
    if not _concrete(cost):
        return [
            (name, _reading(getattr(cost, name), unit))
            for name, unit in (
                ("cycles", "cycles"),
                ("energy_pj", "pJ"),
                ("area_mm2", "mm2"),
                ("macs", "MACs"),
            )
        ]
    get = lambda name: np.asarray(getattr(cost, name), np.float64)
    seconds, joules = get("cycles") / get("freq_hz"), get("energy_pj") * 1e-12
    with np.errstate(divide="ignore", invalid="ignore"):
        power = joules / seconds
        use = get("macs") / (get("cycles") * get("peak_macs_per_cycle"))
    dram = {
        name[5:].replace("_", " "): v for name, v in cost.traffic_bytes.items() if name.startswith("dram_")
    }
    moved = sum(np.asarray(value, np.float64) for value in dram.values()) if dram else np.zeros(())
    feasible = get("feasible")
    out = [
        (
            "latency",
            f"{_reading(seconds, 's')} ({_reading(get('cycles'), 'cycles')}: {_shares(cost.cycle_parts)})",
        ),
        ("energy", f"{_reading(joules, 'J')} ({_shares(cost.energy_parts)})"),
        ("EDP", _reading(joules * seconds, "J s")),
        ("power", _reading(power, "W")),
        ("area", f"{_reading(get('area_mm2'), 'mm2')} ({_shares(cost.area_parts)})"),
        ("work", f"{_reading(get('macs'), 'MACs')}, utilization {_reading(use, '%')}"),
        ("DRAM", f"{_reading(moved, 'B')} ({_shares(dram)})"),
    ]
    if feasible.size and not np.all(feasible > 0):
        share = f"{int((feasible > 0).sum())} of {feasible.size} designs feasible" if feasible.ndim else "no"
        out.append(("feasible", f"{share}, violation {_reading(get('violation'), '')}"))
    return out


def total_line(cost) -> str:
    """What the cost is of: one design, a batch, or a traced value."""
    shape = getattr(cost.cycles, "shape", ())
    if not _concrete(cost):
        return "Cost (traced or abstract)"
    return "Cost" if shape == () else f"Cost of a batch of shape {tuple(shape)}: smallest to largest"


def text(cost) -> str:
    """The table as aligned lines."""
    pairs = rows(cost)
    width = max(len(name) for name, _ in pairs)
    return "\n".join([total_line(cost), *(f"  {name:<{width}}  {value}" for name, value in pairs)])


def html(cost) -> str:
    """The table as HTML, all text escaped."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{_html.escape(name)}</th>"
        f"<td style='text-align:left'>{_html.escape(value)}</td></tr>"
        for name, value in rows(cost)
    )
    return f"<table><caption>{_html.escape(total_line(cost))}</caption>{cells}</table>"
