"""Plots of a search: the Pareto front with the search path, convergence, roofline."""

import numpy as np

from diffhw.models._show import scaled_unit
from diffhw.report import _content as content
from diffhw.report._figure import COLOURS, axis_of, canvas, decades, name_points, style

__all__ = ["convergence", "pareto", "roofline"]


def _search_of(result):
    """The `SearchResult` of a `CodesignResult`, or the thing itself."""
    return getattr(result, "search", result)


def _objective_axis(result, size: float) -> tuple[str, float]:
    """(label, factor) of the objective; its unit is known for the main job only."""
    objective = getattr(result, "objective", None)
    if not isinstance(objective, str):
        return "objective", 1.0
    factor, unit = scaled_unit(size, content.OBJECTIVE_UNITS[objective])
    word = content.OBJECTIVE_WORDS[objective]
    return f"{word} ({unit.replace('u', 'µ', 1) if unit.startswith('u') else unit})", 1 / factor


_LATENCY, _ENERGY = ("latency_ms", "latency_s"), ("energy_mj", "energy_j", "energy_pj")


def _axes_of(names: tuple[str, ...]) -> tuple[str, str] | None:
    """What to plot against what: energy over latency if both were recorded, else objective over the rest."""
    x = next((name for name in _LATENCY if name in names), None)
    y = next((name for name in _ENERGY if name in names), None)
    if x and y:
        return x, y
    if "objective" in names and "area_mm2" in names:
        return "area_mm2", "objective"
    others = [name for name in names if name != "objective"]
    if "objective" in names and others:
        return others[0], "objective"
    return (others[0], others[1]) if len(others) > 1 else None


def _figures_of(name: str, costs, objective: float) -> float:
    """The figure called ``name`` of one design of the main job."""
    sums = content.totals(costs)
    worst_latency = max(float(cost.latency_s) for cost in costs)
    known = {
        "objective": objective,
        "energy_pj": sums["energy_j"] * 1e12,
        "energy_mj": sums["energy_j"] * 1e3,
        # Of several networks the main job records the slowest one's latency and the greatest power.
        "latency_ms": worst_latency * 1e3,
        "power_w": max(float(cost.power_w) for cost in costs),
    }
    return known.get(name, sums.get(name, float("nan")))


def pareto(result):
    """Evaluated designs, the search's path, the non-dominated ones, catalogue rivals, the found design.

    result: `CodesignResult` or `SearchResult`.  Returns a matplotlib figure. Axes: energy over latency
    where the search recorded both, else the objective over area (or over the first other figure).
    """
    search = _search_of(result)
    seen = search.seen if search.seen is not None else search.visited
    names = seen.names if seen is not None else ()
    axes = _axes_of(names)
    with style():
        if axes is None or not len(seen):
            return convergence(result)
        figure, grid = canvas()
        ax = grid[0, 0]
        labels, factors = [], []
        for name in axes:
            if name == "objective":
                label, factor = _objective_axis(result, search.value)
            else:
                label, factor = axis_of(name)
                if name == "latency_ms" and len(getattr(result, "networks", ())) > 1:
                    label = "latency of the slowest network (ms)"
            labels.append(label)
            factors.append(factor)

        def points(designs):
            columns = [designs.names.index(name) for name in axes]
            return designs.figures[:, columns] * np.asarray(factors)

        cloud = points(seen)
        legal = _legal(seen, search.limits) & np.isfinite(cloud).all(1) & (cloud > 0).all(1)
        broken = ~_legal(seen, search.limits) & np.isfinite(cloud).all(1) & (cloud > 0).all(1)
        dots = dict(s=5, linewidths=0, rasterized=True)
        if broken.any():
            ax.scatter(*cloud[broken].T, color=COLOURS["pale"], **dots)
            ax.scatter([], [], s=30, color=COLOURS["pale"], label="evaluated, over a budget")
        ax.scatter(*cloud[legal].T, color=COLOURS["sky"], **dots)
        ax.scatter([], [], s=30, color=COLOURS["sky"], label="evaluated, legal")
        front = _front(cloud[legal])
        ax.step(*front.T, where="post", color=COLOURS["blue"], lw=1.6, label="front of the legal ones")
        exact = getattr(getattr(result, "certificate", None), "pareto", None)
        if exact is not None and set(axes) <= set(exact.names):
            ax.step(
                *_front(points(exact)).T,
                where="post",
                color=COLOURS["green"],
                ls="--",
                lw=1.4,
                label="exact front of the whole grid",
            )
        path = _path(search, points)
        if len(path) > 1:
            ax.plot(*path.T, color=COLOURS["orange"], lw=1.3, marker="o", ms=3.5, label="best so far")
        rivals = _draw_rivals(ax, result, axes, factors)
        best = _best(search, result, axes, factors)
        if best is not None:
            ax.scatter(
                *best, marker="*", s=230, color=COLOURS["red"], edgecolor="white", zorder=5, label="found"
            )
        for name, draw in zip(axes, (ax.axvline, ax.axhline), strict=True):
            if name in search.limits:
                factor = factors[axes.index(name)]
                draw(search.limits[name] * factor, color=COLOURS["black"], ls="--", lw=1, label="budget")
        ax.set(xscale="log", yscale="log", xlabel=labels[0], ylabel=labels[1])
        _window(ax, cloud[legal] if legal.any() else cloud, rivals, best)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
        if len(rivals):
            name_points(ax, rivals, [rival.name for rival in result.rivals])
        return figure


def _legal(designs, limits) -> np.ndarray:
    ok = np.ones(len(designs), bool)
    for name, limit in limits.items():
        if name in designs.names:
            ok &= designs.figures[:, designs.names.index(name)] <= limit * (1 + 1e-5)
    return ok


def _front(points: np.ndarray) -> np.ndarray:
    """Non-dominated points of two figures, in order of the first."""
    if not len(points):
        return np.zeros((0, 2))
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    before = np.concatenate([[np.inf], np.minimum.accumulate(ordered[:-1, 1])])
    return ordered[ordered[:, 1] < before]


def _path(search, points) -> np.ndarray:
    """The designs of the path at which the best legal objective fell, in order."""
    visited = search.visited
    if visited is None or not len(visited) or "objective" not in visited.names:
        return np.zeros((0, 2))
    objective = visited.figures[:, visited.names.index("objective")]
    objective = np.where(_legal(visited, search.limits), objective, np.inf)
    before = np.concatenate([[np.inf], np.minimum.accumulate(objective[:-1])])
    path = points(visited)[objective < before]
    return path[np.isfinite(path).all(1) & (path > 0).all(1)]


def _draw_rivals(ax, result, axes, factors) -> np.ndarray:
    spots = []
    for rival in getattr(result, "rivals", ()):
        x, y = (
            _figures_of(name, rival.costs, rival.objective) * factor
            for name, factor in zip(axes, factors, strict=True)
        )
        spots.append((x, y))
        filled = not rival.over_budget
        ax.scatter(
            x, y, marker="s", s=34, zorder=4, color=COLOURS["black"] if filled else "white",
            edgecolor=COLOURS["black"],
            label="catalogue (hollow: over a budget)" if len(spots) == 1 else None,
        )  # fmt: skip
    return np.asarray(spots).reshape(-1, 2)


def _best(search, result, axes, factors) -> tuple[float, float] | None:
    if hasattr(result, "costs"):
        values = [_figures_of(name, result.costs, result.value) for name in axes]
    else:
        seen = search.seen if search.seen is not None else search.visited
        at = np.flatnonzero((seen.index == np.asarray(search.best_index)).all(1))
        if not len(at):
            return None
        values = [seen.figures[at[0], seen.names.index(name)] for name in axes]
    x, y = (value * factor for value, factor in zip(values, factors, strict=True))
    return x, y


def _window(ax, cloud, rivals, best) -> None:
    """Show the part that matters: everything but the cloud's worst tail, and all rivals near it."""
    if not len(cloud):
        return
    low, high = cloud.min(0), np.quantile(cloud, 0.9, axis=0)
    must = [low, high, *([np.asarray(best)] if best is not None else [])]
    must += [spot for spot in rivals if (spot < 40 * np.asarray(best if best is not None else low)).all()]
    spots = np.asarray(must)
    low, high = spots.min(0), spots.max(0)
    margin = np.maximum((high / low) ** 0.06, 1.03)
    ax.set_xlim(low[0] / margin[0], high[0] * margin[0] ** 1.6)
    ax.set_ylim(low[1] / margin[1], high[1] * margin[1])
    decades(ax.xaxis, [low[0], high[0]])
    decades(ax.yaxis, [low[1], high[1]])


def convergence(result):
    """Best objective against evaluations, a gradient counted at its measured cost.

    result: `CodesignResult` or `SearchResult`. The enumerated optimum, where known, is a dashed line.
    """
    search = _search_of(result)
    history = search.history
    best = np.asarray(history.get("best", ()), float)
    spent = np.asarray(history.get("evaluations", ()), float)
    known = np.isfinite(best)
    with style():
        figure, grid = canvas(height=3.8)
        ax = grid[0, 0]
        size = float(best[known][-1]) if known.any() else search.value
        label, factor = _objective_axis(result, size)
        if known.any():
            ax.step(spent[known], best[known] * factor, where="post", color=COLOURS["blue"], lw=1.8)
            ax.plot(spent[known][-1], best[known][-1] * factor, "o", color=COLOURS["red"], label="found")
        else:
            ax.text(0.5, 0.5, "no legal design was seen", transform=ax.transAxes, ha="center")
        certificate = getattr(result, "certificate", None)
        if certificate is not None and certificate.optimum is not None:
            ax.axhline(
                certificate.optimum * factor,
                color=COLOURS["black"],
                ls="--",
                lw=1,
                label="enumerated optimum",
            )
        if known.any():
            ax.set_yscale("log")
            decades(ax.yaxis, [best[known].min(), best[known].max()])
            ax.legend(loc="upper right")
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set(xlabel="evaluations (a gradient at its measured cost)", ylabel=f"best legal {label}")
        return figure


def roofline(result):
    """Each layer's speed over its MACs per DRAM byte, under the design's peak and bandwidth.

    result: `CodesignResult`. The area of a dot is the layer's share of the time; the three longest are named.
    """
    hw = result.design.hardware
    peak = float(hw.peak_macs_per_cycle) * float(hw.freq_hz) / 1e9
    bandwidth = float(hw.dram.gb_per_s)
    with style():
        figure, grid = canvas()
        ax = grid[0, 0]
        words = {}
        palette = ["blue", "orange", "green", "pink", "sky", "grey"]
        xs, ys = [peak / bandwidth], [peak]
        named: list[tuple[tuple[float, float], str]] = []
        for network, cost, bounds in zip(result.networks, result.costs, result.bounds, strict=True):
            rows = content.layer_rows(cost, network, bounds=bounds)
            rows = [row for row in rows if row["dram_bytes"] > 0 and row["latency_s"] > 0]
            longest = sorted(rows, key=lambda row: -row["latency_s"])[:3]
            for row in sorted(rows, key=lambda row: -row["latency_s"]):
                x, y = row["macs"] / row["dram_bytes"], row["macs"] / row["latency_s"] / 1e9
                xs.append(x)
                ys.append(y)
                colour = words.setdefault(row["bound"], COLOURS[palette[len(words) % len(palette)]])
                ax.scatter(
                    x,
                    y,
                    s=14 + 900 * row["latency_share"],
                    color=colour,
                    alpha=0.75,
                    edgecolor="white",
                    lw=0.6,
                )
                if row in longest:
                    name = row["layer"].split(" (+")[0]
                    named.append(((x, y), name if len(name) <= 24 else "..." + name[-21:]))
        span = np.geomspace(min(xs) / 2, max(xs) * 2, 200)
        roof = np.minimum(peak, span * bandwidth)
        ax.plot(span, roof, color=COLOURS["black"], lw=1.6)
        ax.annotate(
            f"peak {peak:,.0f} GMAC/s", (span[-1], peak), xytext=(-4, 5), textcoords="offset points",
            ha="right", fontsize=9,
        )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel="MACs per byte of DRAM traffic", ylabel="speed (GMAC/s)")
        ax.set_xlim(span[0], span[-1])
        ax.set_ylim(min(min(ys), roof[0]) / 1.6, peak * 2.2)
        ax.set_title(f"slope: DRAM at {bandwidth:g} GB/s", loc="left", fontsize=9.5, color="#555555")
        for word, colour in words.items():
            ax.scatter([], [], color=colour, label=f"bound by: {word}")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        decades(ax.xaxis, [span[0], span[-1]])
        decades(ax.yaxis, [min(ys), peak])
        name_points(ax, [point for point, _ in named], [name for _, name in named])
        return figure
