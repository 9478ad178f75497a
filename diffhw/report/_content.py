"""What a report says, as plain numbers: one row per layer, totals of a design. No formatting here."""

import math
from typing import Any

import numpy as np

from diffhw import hardware
from diffhw.models import Cost

__all__ = [
    "OBJECTIVE_UNITS",
    "OBJECTIVE_WORDS",
    "add_parts",
    "buffers_text",
    "dataflow_text",
    "dataflow_word",
    "dram_text",
    "grid_text",
    "layer_rows",
    "limit_name",
    "network_name",
    "space_rows",
    "totals",
]

OBJECTIVE_UNITS = {"edp": "J s", "latency": "s", "energy": "J"}
OBJECTIVE_WORDS = {"edp": "EDP", "latency": "latency", "energy": "energy"}
_LIMITS = {
    "area_mm2": ("area", "mm2", 1.0),
    "power_w": ("power", "W", 1.0),
    "latency_ms": ("latency", "s", 1e-3),
}


def limit_name(key: str) -> tuple[str, str, float]:
    """(word, unit, factor to that unit) of a constraint's key."""
    return _LIMITS.get(key, (key, "", 1.0))


def _number(value) -> float:
    return float(np.asarray(value))


def layer_rows(cost: Cost, network=None, dataflow: Any = None, bounds=None, roofline=None) -> list[dict]:
    """One dict per real layer row of a network's `Cost` (numbers as floats, times the row's count).

    network: for names and counts.  dataflow: a name or one per row.  bounds: one word per row.
    roofline: the `Cost` of `models.roofline` on the same network, for the bound beside.
    Raises ValueError for a cost without per-layer costs.
    """
    each = cost.layers
    if each is None or np.ndim(each.cycles) != 1:
        raise ValueError("a table needs the cost of one network with per-layer costs (layer_loop='vmap')")
    freq, peak = _number(cost.freq_hz), _number(cost.peak_macs_per_cycle)
    total_cycles, total_energy = _number(cost.cycles), _number(cost.energy_pj)
    real = network.size if network is not None else int((np.asarray(each.macs) > 0).sum())
    names = network.names if network is not None else [f"layer{i}" for i in range(real)]
    rows = []
    for i in range(real):
        at = lambda leaf, i=i: float(np.asarray(leaf)[i])
        part = lambda parts, i=i: {name: float(np.asarray(leaf)[i]) for name, leaf in parts.items()}
        cycles, energy, macs = at(each.cycles), at(each.energy_pj), at(each.macs)
        traffic = part(each.traffic_bytes)
        row: dict[str, Any] = {
            "layer": names[i],
            "count": at(network.count) if network is not None else None,
            "dataflow": dataflow if isinstance(dataflow, str) or dataflow is None else dataflow[i],
            "cycles": cycles,
            "latency_s": cycles / freq,
            "latency_share": cycles / total_cycles if total_cycles else 0.0,
            "energy_j": energy * 1e-12,
            "energy_share": energy / total_energy if total_energy else 0.0,
            "macs": macs,
            "utilization": macs / (cycles * peak) if cycles else 0.0,
            "dram_bytes": sum(value for name, value in traffic.items() if name.startswith("dram_")),
            "bound": bounds[i] if bounds is not None else None,
            "cycle_parts": part(each.cycle_parts),
            "energy_parts": part(each.energy_parts),
            "traffic_bytes": traffic,
        }
        if roofline is not None:
            row["roofline_s"] = float(np.asarray(roofline.layers.cycles)[i]) / freq
        rows.append(row)
    return rows


def totals(costs) -> dict[str, float]:
    """Figures of one design on several networks, one after the other; EDP is the sum of the networks' own."""
    cycles = math.fsum(_number(cost.cycles) for cost in costs)
    latency = math.fsum(_number(cost.latency_s) for cost in costs)
    energy = math.fsum(_number(cost.energy_j) for cost in costs)
    macs = math.fsum(_number(cost.macs) for cost in costs)
    return {
        "cycles": cycles,
        "latency_s": latency,
        "energy_j": energy,
        "edp_js": math.fsum(_number(cost.edp) for cost in costs),
        "power_w": energy / latency if latency else 0.0,
        "area_mm2": max(_number(cost.area_mm2) for cost in costs),
        "macs": macs,
        "utilization": macs / (cycles * _number(costs[0].peak_macs_per_cycle)) if cycles else 0.0,
        "dram_bytes": math.fsum(_number(cost.dram_bytes) for cost in costs),
    }


def add_parts(costs, field: str) -> dict[str, float]:
    """``energy_parts``, ``cycle_parts`` or ``traffic_bytes`` summed over networks."""
    out: dict[str, float] = {}
    for cost in costs:
        for name, value in getattr(cost, field).items():
            out[name] = out.get(name, 0.0) + _number(value)
    return out


def network_name(network, index: int = 0) -> str:
    """Its name, or a number for one that lost it in tracing."""
    name = network.info.name
    return name if name and name != "network" else f"network {index + 1}"


def grid_text(hw) -> str:
    """``32 x 64``."""
    lanes = _number(hw.lanes)
    return f"{_number(hw.rows):g} x {_number(hw.cols):g}" + ("" if lanes == 1 else f" x {lanes:g}")


def buffers_text(hw) -> str:
    """Bytes that face the DRAM for input, weight and output: ``64/128/64``, in KiB."""
    return "/".join(f"{_number(hw.buffer(tensor)[1]) / 1024:.6g}" for tensor in "iwo")


def dataflow_text(dataflow) -> str:
    """A name, or how often each is chosen."""
    if isinstance(dataflow, str):
        return dataflow
    chosen = [name for names in dataflow.values() for name in names]
    return "per layer (" + ", ".join(f"{chosen.count(n)} {n}" for n in sorted(set(chosen))) + ")"


def dataflow_word(dataflow) -> str:
    """A name, or "per layer"."""
    return dataflow if isinstance(dataflow, str) else "per layer"


def dram_text(hw) -> str:
    """``LPDDR4``."""
    return hardware.dram_name(hw.dram)


def space_rows(result) -> list[tuple[str, str]]:
    """(variable, its legal values) of the grid, with the levels' own names."""
    text = result.space_text
    for i, level in enumerate(result.design.hardware.levels):
        text = text.replace(f"levels.{i}.capacity_bytes", f"{level.name} buffer (bytes)")
    pairs = [line.partition("  ") for line in text.replace("hardware.", "").splitlines()]
    return [(name, rest.strip()) for name, space, rest in pairs if space]
