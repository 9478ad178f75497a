"""Bar charts: where the time and the energy go layer by layer, and what each number is worth."""

import numpy as np

from diffhw.models._show import scaled_unit
from diffhw.report import _content as content
from diffhw.report._figure import COLOURS, canvas, style
from diffhw.report._tables import part_name

__all__ = ["breakdown", "tornado"]

_MOST = 40
_ENERGY_COLOURS = {
    "mac": COLOURS["green"],
    "registers": COLOURS["sky"],
    "sram": COLOURS["blue"],
    "wires": COLOURS["grey"],
    "l1": COLOURS["sky"],
    "l2": COLOURS["blue"],
    "noc": COLOURS["grey"],
    "dram": COLOURS["orange"],
    "dram_static": COLOURS["pink"],
    "leakage": COLOURS["black"],
}
_TIME_COLOURS = {"compute": COLOURS["blue"], "stall": COLOURS["orange"]}
_TIME_WORDS = {"compute": "array busy", "stall": "waiting for DRAM or buffers"}


def _fewer(rows: list[dict]) -> tuple[list[dict], int]:
    """At most `_MOST` rows: the longest, in the order they run, and the number left out."""
    if len(rows) <= _MOST:
        return rows, 0
    keep = sorted(sorted(range(len(rows)), key=lambda i: -rows[i]["latency_s"])[:_MOST])
    return [rows[i] for i in keep], len(rows) - _MOST


def _stack(ax, rows, key: str, factor: float, colours: dict, words) -> None:
    at, floor = np.arange(len(rows)), np.zeros(len(rows))
    names = [name for name in rows[0][key] if any(row[key][name] > 0 for row in rows)]
    for i, name in enumerate(sorted(names, key=lambda name: -sum(row[key][name] for row in rows))):
        heights = np.array([row[key][name] for row in rows]) * factor
        colour = colours.get(name, list(COLOURS.values())[i % len(COLOURS)])
        ax.bar(at, heights, bottom=floor, width=0.82, color=colour, label=words(name))
        floor = floor + heights


def breakdown(result):
    """Latency and energy of each distinct layer as stacked bars, one pair of axes per network.

    result: `CodesignResult`. Networks with more than 40 distinct layers show the 40 longest and say so.
    """
    count = len(result.networks)
    with style():
        figure, grid = canvas(width=8.6, height=6.4 * count, rows=2 * count)
        for i, (network, cost) in enumerate(zip(result.networks, result.costs, strict=True)):
            rows, left_out = _fewer(content.layer_rows(cost, network))
            top, bottom = grid[2 * i, 0], grid[2 * i + 1, 0]
            freq = float(cost.freq_hz)
            factor, unit = scaled_unit(max(row["latency_s"] for row in rows), "s")
            _stack(
                top, rows, "cycle_parts", 1 / freq / factor, _TIME_COLOURS, lambda n: _TIME_WORDS.get(n, n)
            )
            top.set_ylabel(f"latency ({_micro(unit)})")
            title = f"{content.network_name(network, i)}, layers in the order they run"
            if left_out:
                title += f" ({left_out} shorter layers not shown)"
            factor, unit = scaled_unit(max(row["energy_j"] for row in rows), "J")
            _stack(bottom, rows, "energy_parts", 1e-12 / factor, _ENERGY_COLOURS, part_name)
            bottom.set_ylabel(f"energy ({_micro(unit)})")
            names = [_label(row["layer"], row["count"]) for row in rows]
            for ax in (top, bottom):
                ax.grid(axis="x", visible=False)
                ax.set_xlim(-0.6, len(rows) - 0.4)
                ax.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
            top.set_title(title, loc="left", pad=24)
            top.set_xticks(range(len(rows)), [])
            bottom.set_xticks(range(len(rows)), names, rotation=90, fontsize=8.5 if len(rows) <= 24 else 7.5)
        return figure


def _micro(unit: str) -> str:
    return "µ" + unit[1:] if unit.startswith("u") else unit


def _label(layer: str, count) -> str:
    name = layer.split(" (+")[0]
    name = name if len(name) <= 24 else "..." + name[-21:]
    return name + (f" x{count:g}" if count and count != 1 else "")


def tornado(result):
    """Change of the objective for +10 % of each number: by gradient and evaluated again.

    result: `CodesignResult` with sensitivities; without any the figure says so.
    """
    rows = list(reversed(result.sensitivities))
    with style():
        figure, grid = canvas(height=max(2.2, 0.34 * len(rows) + 1.3))
        ax = grid[0, 0]
        if not rows:
            ax.text(0.5, 0.5, "no sensitivities were computed", transform=ax.transAxes, ha="center")
            ax.set_axis_off()
            return figure
        at = np.arange(len(rows))
        ax.barh(
            at + 0.2,
            [100 * one.by_gradient for one in rows],
            0.38,
            color=COLOURS["blue"],
            label="by gradient",
        )
        ax.barh(
            at - 0.2,
            [100 * one.by_value for one in rows],
            0.38,
            color=COLOURS["orange"],
            label="evaluated again",
        )
        ax.set_yticks(at, [one.name for one in rows])
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ax.axvline(0, color=COLOURS["black"], lw=1)
        ax.grid(axis="y", visible=False)
        word = content.OBJECTIVE_WORDS[result.objective]
        ax.set_xlabel(f"change of {word} for +10 % of the number (%)")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return figure
