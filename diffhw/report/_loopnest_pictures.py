"""Pictures of mappings: where energy and time go, what each number is worth, traffic against buffer size,
how sure a search is over its seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from diffhw.models import TENSORS
from diffhw.models._show import scaled_unit
from diffhw.report._bars import _label, _micro
from diffhw.report._figure import COLOURS, canvas, decades, style
from diffhw.report._loopnest import WORDS, energy_by_level, mapped
from diffhw.report._loopnest_slopes import mapping_slopes

__all__ = ["convergence_band", "energy_stack", "gradient_tornado", "latency_stack", "ski_slope_picture"]

_MOST = 40
_LEVEL_COLOURS = ("sky", "blue", "pink", "red", "black", "orange")
_HATCHES = {"weight": "", "input": "////", "output": "...."}
_TIME = {
    "ideal": ("all MACs busy", "blue"),
    "spatial_loss": ("MACs without work", "sky"),
    "stall": ("waiting for a port", "orange"),
}


def _shown(layers, weight) -> tuple[list[int], int]:
    """At most `_MOST` rows in order, the heaviest, and how many are left out."""
    if len(layers) <= _MOST:
        return list(range(len(layers))), 0
    keep = sorted(sorted(range(len(layers)), key=lambda i: -weight(layers[i]))[:_MOST])
    return keep, len(layers) - _MOST


def _width(rows: int) -> float:
    return min(max(4.2, 2.4 + 0.3 * rows), 12.0)


def _names(ax, rows) -> None:
    ax.set_xticks(range(len(rows)), [_label(one.name, one.count) for one in rows], rotation=90, fontsize=8)
    ax.set_xlim(-0.6, len(rows) - 0.4)
    ax.grid(axis="x", visible=False)


def _level_colours(names: Sequence[str]) -> dict[str, str]:
    """The DRAM orange, the others from light to dark outwards."""
    inner = [COLOURS[word] for word in _LEVEL_COLOURS[:-1]]
    found = {name: inner[i % len(inner)] for i, name in enumerate(names[:-1])}
    return found | {names[-1]: COLOURS["orange"], "MAC": COLOURS["green"], "static": COLOURS["grey"]}


def _pieces(parts: Mapping[str, Mapping[str, float]]):
    """(level, tensor, pJ) from the MACs outwards."""
    return [(level, tensor, value) for level, row in parts.items() for tensor, value in row.items()]


def energy_stack(result):
    """Energy by level and tensor: one bar of the whole network, one per layer (all its runs).

    result: of `recipes.best_mapping` or `best_mappings`. Colour is the level, hatching the tensor. Returns a
    matplotlib figure. Networks with more than 40 rows show the 40 that take most.
    """
    from matplotlib.patches import Patch

    what = mapped(result)
    colours = _level_colours(what.hierarchy.names)
    keep, left_out = _shown(what.layers, lambda one: one.count * float(one.cost.energy_pj))
    rows = [what.layers[i] for i in keep]
    total = energy_by_level(what)
    largest = max(one.count * float(one.cost.energy_pj) for one in rows) * 1e-12
    several = len(rows) > 1
    with style():
        ratios = [1, max(len(rows) * 0.55, 2.0)] if several else [1]
        figure, grid = canvas(
            width=_width(len(rows)) + 2.6, height=4.8, cols=1 + several, width_ratios=ratios
        )
        factor, unit = scaled_unit(what.energy_pj * 1e-12, "J")
        _energy_bar(grid[0, 0], 0, total, 1e-12 / factor, colours)
        title = "all layers" if several else rows[0].name
        grid[0, 0].set(xticks=[], xlim=(-0.75, 0.75), ylabel=f"energy ({_micro(unit)})", title=title)
        grid[0, 0].grid(axis="x", visible=False)
        if several:
            factor, unit = scaled_unit(largest, "J")
            ax = grid[0, 1]
            for x, one in enumerate(rows):
                alone = energy_by_level(replace(what, layers=(one,)))
                _energy_bar(ax, x, alone, 1e-12 / factor, colours)
            _names(ax, rows)
            ax.set_ylabel(f"energy ({_micro(unit)})")
            ax.set_title("layer by layer" + (f" ({left_out} smaller ones not shown)" if left_out else ""))
        used = {level: sum(row.values()) for level, row in total.items()}
        handles = [
            Patch(facecolor=colours[level], label=f"{level}, {100 * value / what.energy_pj:.1f} %")
            for level, value in reversed(used.items())
        ]
        tensors = [tensor for tensor in TENSORS.values() if any(tensor in row for row in total.values())]
        handles += [
            Patch(facecolor="white", edgecolor=COLOURS["black"], hatch=_HATCHES[t], label=t) for t in tensors
        ]
        figure.legend(handles=handles, loc="outside right center", handlelength=1.8, handleheight=1.2)
        return figure


def _energy_bar(ax, x: float, parts, factor: float, colours) -> None:
    floor = 0.0
    for level, tensor, value in _pieces(parts):
        height = value * factor
        if height <= 0:
            continue
        ax.bar(
            x, height, bottom=floor, width=0.82, color=colours[level], hatch=_HATCHES.get(tensor, ""),
            edgecolor="white", linewidth=0.4,
        )  # fmt: skip
        floor += height


def latency_stack(result):
    """Latency of each layer (all its runs): ideal, MACs without work, waiting for a port.

    result: of `recipes.best_mapping` or `best_mappings`. Below each bar the port that binds, if one does.
    Returns a matplotlib figure.
    """
    what = mapped(result)
    keep, left_out = _shown(what.layers, lambda one: one.count * float(one.cost.cycles))
    rows = [what.layers[i] for i in keep]
    seconds = lambda one: one.count / float(one.cost.freq_hz)
    with style():
        figure, grid = canvas(width=max(_width(len(rows)), 7.6), height=4.6)
        ax = grid[0, 0]
        factor, unit = scaled_unit(max(float(one.cost.cycles) * seconds(one) for one in rows), "s")
        floor = np.zeros(len(rows))
        for part, (word, colour) in _TIME.items():
            heights = np.array([float(one.cost.cycle_parts[part]) * seconds(one) for one in rows]) / factor
            lost = sum(one.count * float(one.cost.cycle_parts[part]) for one in what.layers) / what.cycles
            label = f"{word}, {100 * lost:.1f} %"
            ax.bar(range(len(rows)), heights, bottom=floor, width=0.82, color=COLOURS[colour], label=label)
            floor = floor + heights
        waits = [one for one in rows if one.bound_by != "MACs"]
        for x, one in enumerate(rows):
            if one in waits:
                name = one.bound_by.removesuffix(" port")
                ax.annotate(
                    name, (x, floor[x]), xytext=(0, 3), textcoords="offset points", ha="center",
                    rotation=90, fontsize=7.5,
                )  # fmt: skip
        _names(ax, rows)
        ax.set_ylim(0, max(floor) * (1.18 if waits else 1.05))
        ax.set_ylabel(f"latency ({_micro(unit)})")
        ax.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2, columnspacing=1.2)
        notes = (["written above a bar: the level whose port binds"] if waits else []) + (
            [f"{left_out} shorter layers not shown"] if left_out else []
        )
        if notes:
            figure.supxlabel("; ".join(notes), fontsize=8.5, x=0.02, ha="left", color="#555555")
        return figure


def gradient_tornado(result, objective: str | None = None, top: int = 12):
    """What one percent of each number is worth: of the network as bars, of each layer as a map.

    result: of `recipes.best_mapping` or `best_mappings`.  objective: default the result's.  top: numbers
    shown, the largest first. From `mapping_slopes`, with the energies of a level's accesses taken as one
    number, its ports as another, and the bits of an access left out (the mirror of its energy). Returns a
    matplotlib figure.
    """
    what = mapped(result)
    names, total, alone = _by_part(*mapping_slopes(what, objective))
    order = np.argsort(-np.abs(total))[:top]
    order = order[np.abs(total[order]) >= 5e-4]  # what would print as 0.000
    word = WORDS[objective or what.objective]
    several = len(what.layers) > 1
    with style():
        height = max(2.6, 0.32 * len(order) + (2.9 if several else 1.3))
        columns = len(what.layers)
        figure, grid = canvas(
            width=5.6 + (min(0.8 + 0.24 * columns, 8.0) if several else 0), height=height, cols=1 + several,
            width_ratios=[1, max(0.07 * columns, 0.5)] if several else [1],
        )  # fmt: skip
        ax, at = grid[0, 0], np.arange(len(order))
        if not len(order):
            ax.text(0.5, 0.5, "no number of the hardware matters", transform=ax.transAxes, ha="center")
            ax.set_axis_off()
            return figure
        slopes = total[order]
        ax.barh(at, slopes, 0.72, color=[COLOURS["red"] if s > 0 else COLOURS["blue"] for s in slopes])
        for y, slope in zip(at, slopes, strict=True):
            ax.annotate(
                f"{slope:+.3f}", (slope, y), xytext=(3 if slope > 0 else -3, 0),
                textcoords="offset points", va="center", ha="left" if slope > 0 else "right", fontsize=8,
            )  # fmt: skip
        reach = np.abs(slopes).max()
        pad = 0.42 * reach
        low, high = slopes.min(), slopes.max()
        ax.set_xlim(low - pad if low < 0 else -0.05 * reach, high + pad if high > 0 else 0.05 * reach)
        ax.set_yticks(at, [names[i] for i in order])
        ax.set_ylim(len(order) - 0.4, -0.6)
        ax.axvline(0, color=COLOURS["black"], lw=1)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(f"% of {word} per +1 % of the number,\nmappings as they are")
        if several:
            _slope_map(figure, grid[0, 1], alone[:, order].T, [one.name for one in what.layers])
        return figure


_PARTS = {
    "read_pj": "energy per access",
    "fill_pj": "energy per access",
    "update_pj": "energy per access",
    "read_bits_per_cycle": "bandwidth",
    "write_bits_per_cycle": "bandwidth",
    "shared_bits_per_cycle": "bandwidth",
    "weight_bits": "bits of weights",
    "input_bits": "bits of inputs",
    "output_bits": "bits of outputs",
    "leakage_w": "leakage",
    "mac_pj": "MAC energy",
    "freq_hz": "clock",
    "static_w": "static power",
}


def _by_part(names: Sequence[str], total: np.ndarray, alone: np.ndarray):
    """Slopes of what a designer turns: numbers that change together are one."""
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        level, _, field = name.rpartition(".")
        if field != "width_bits":
            groups.setdefault(f"{level} {_PARTS.get(field, field)}".strip(), []).append(i)
    return (
        list(groups),
        np.array([total[members].sum() for members in groups.values()]),
        np.stack([alone[:, members].sum(1) for members in groups.values()], 1)
        if groups
        else np.zeros((len(alone), 0)),
    )


def _slope_map(figure, ax, table: np.ndarray, names: Sequence[str]) -> None:
    """(numbers, layers) as colours; red: more costs more."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("worth", [COLOURS["blue"], "#FFFFFF", COLOURS["red"]], N=255)
    sizes = np.abs(table)
    # One odd layer must not make all others pale.
    reach = float(np.quantile(sizes, 0.97)) or float(sizes.max()) or 1.0
    clipped = reach < sizes.max()
    image = ax.imshow(table, cmap=colours, vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
    ax.set_yticks([])
    ax.set_xticks(range(len(names)), [_label(name, 1) for name in names], rotation=90, fontsize=7.5)
    ax.grid(visible=False)
    ax.set_title("of each layer alone", fontsize=10)
    bar = figure.colorbar(image, ax=ax, shrink=0.9, pad=0.02, extend="both" if clipped else "neither")
    bar.outline.set_visible(False)


def ski_slope_picture(curves, found=None, title: str | None = None, labels: Sequence[str] | None = None):
    """Least DRAM traffic against the size of a buffer.

    curves: a `recipes.SkiSlope` or several.  found: a `recipes.BestMapping` of the layer, whose own traffic
    is marked at the size it has.  labels: one per curve, default the level's name. Returns a figure.
    """
    curves = list(curves) if isinstance(curves, list | tuple) else [curves]
    labels = [curve.level for curve in curves] if labels is None else list(labels)
    colours = [COLOURS[word] for word in ("blue", "orange", "green", "pink", "red")]
    with style():
        figure, grid = canvas(width=6.4, height=4.2)
        ax = grid[0, 0]
        every = [c.traffic_bytes[np.isfinite(c.traffic_bytes)] for c in curves]
        unit_bytes, unit = scaled_unit(float(max(part.max() for part in every)), "B")
        loose, built = False, set()
        for i, (curve, label) in enumerate(zip(curves, labels, strict=True)):
            colour = colours[i % len(colours)]
            sizes = curve.capacity_bytes / 1024
            # A size between two points moves at most what the smaller one does: steps, not lines.
            ax.step(sizes, curve.traffic_bytes / unit_bytes, where="post", color=colour, lw=1.8)
            ax.plot(sizes, curve.traffic_bytes / unit_bytes, "o", ms=3.5, color=colour, label=label)
            gap = ~curve.proven & np.isfinite(curve.traffic_bytes)
            if gap.any():
                loose = True
                ax.vlines(
                    sizes[gap], curve.bound_bytes[gap] / unit_bytes, curve.traffic_bytes[gap] / unit_bytes,
                    color=colour, lw=4, alpha=0.3,
                )  # fmt: skip
            size, least = curve.here
            if math.isfinite(least):
                ax.plot(
                    size / 1024, least / unit_bytes, "o", ms=9, mfc="none", mew=1.6, color=colour,
                    label=f"as built: {_size_text(size)}" if size not in built else None,
                )  # fmt: skip
                built.add(size)
        floors = sorted({curve.compulsory_bytes for curve in curves})
        for i, curve in enumerate(curves):
            line = COLOURS["black"] if len(floors) == 1 else colours[i % len(colours)]
            ax.axhline(curve.compulsory_bytes / unit_bytes, color=line, ls="--", lw=1)
        ax.plot([], [], color=COLOURS["black"], ls="--", lw=1, label="compulsory: each word once")
        high = max(part.max() for part in every)
        if found is not None:
            moved, curve = float(found.cost.dram_bytes), curves[0]
            high = max(high, moved)
            ax.plot(
                curve.here[0] / 1024, moved / unit_bytes, "*", ms=14, color=COLOURS["red"], mec="white",
                zorder=5, label=f"mapping of least {WORDS[found.objective]}",
            )  # fmt: skip
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: _size_text(value * 1024))
        ax.set_ylim(min(floors) / unit_bytes / 1.25, high / unit_bytes * 1.25)
        decades(ax.yaxis, np.array([floors[0], high]) / unit_bytes)
        what = curves[0].level if len({curve.level for curve in curves}) == 1 else "the buffer"
        ax.set(xlabel=f"size of {what}", ylabel=f"least DRAM traffic ({unit})")
        head = title or ""
        if loose:
            head += " (pale bars: down to the proven bound)"
        ax.set_title(head, loc="left")
        ax.legend(loc="upper right")
        return figure


def _size_text(size: float) -> str:
    for step, unit in ((2**20, "MiB"), (2**10, "KiB")):
        if size >= step:
            return f"{size / step:.4g} {unit}"
    return f"{size:.4g} B"


def convergence_band(
    histories: Mapping[str, Sequence], bound: float | None = None, unit: str = "", what: str = "objective"
):
    """Best so far against evaluations, over seeds: the median as a line, least to greatest as a band.

    histories: name of a method -> one history per seed, each (evaluations, best so far) pairs in order.
    bound: proven lower bound, a dashed line.  unit, what: for the axis. Returns a matplotlib figure.
    Raises ValueError where a history is empty.
    """
    colours = [COLOURS[word] for word in ("blue", "orange", "green", "pink", "red", "sky")]
    lowest, highest = math.inf, -math.inf
    with style():
        figure, grid = canvas(width=6.4, height=4.2)
        ax = grid[0, 0]
        for i, (name, runs) in enumerate(histories.items()):
            tables = [np.asarray(run, float).reshape(-1, 2) for run in runs]
            if not tables or any(not len(table) for table in tables):
                raise ValueError(f"convergence_band: {name!r} has a seed without a history")
            at = np.unique(np.concatenate([table[:, 0] for table in tables]))
            at = at[at >= max(table[0, 0] for table in tables)]  # where all seeds have a best
            best = np.stack(
                [
                    np.minimum.accumulate(t[:, 1])[np.searchsorted(t[:, 0], at, side="right") - 1]
                    for t in tables
                ]
            )
            colour = colours[i % len(colours)]
            seeds = f", {len(tables)} seeds" if len(tables) > 1 else ""
            ax.step(at, np.median(best, 0), where="post", color=colour, lw=1.8, label=f"{name}{seeds}")
            ax.fill_between(at, best.min(0), best.max(0), step="post", color=colour, alpha=0.2, lw=0)
            lowest, highest = min(lowest, best.min()), max(highest, best.max())
        if bound is not None:
            ax.axhline(bound, color=COLOURS["black"], ls="--", lw=1, label="proven bound")
            lowest = min(lowest, bound)
        ax.set_xscale("log")
        ax.set_yscale("log")
        decades(ax.yaxis, [lowest, highest])
        ax.set_xlabel("evaluations (a gradient at its measured cost)")
        ax.set_ylabel(f"best {what}" + (f" ({unit})" if unit else ""))
        ax.legend(loc="upper right")
        return figure
