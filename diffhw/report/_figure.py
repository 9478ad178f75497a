"""What all plots share: colours that colour-blind readers can tell apart, sizes, axis labels, saving."""

import io
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["COLOURS", "axis_of", "canvas", "decades", "name_points", "png", "style", "svg"]

# Okabe and Ito's palette (2008), the usual safe choice; yellow is left out: too pale on white.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "pink": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#222222",
    "grey": "#9AA0A6",
    "pale": "#D5D8DC",
}

_STYLE: Any = {
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E8EB",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.fonttype": "path",
    "savefig.facecolor": "white",
    "figure.facecolor": "white",
    # Names with underscores are text, not formulas; powers of ten still need mathtext.
    "text.usetex": False,
}


@contextmanager
def style() -> Generator[None]:
    """The report's matplotlib settings, for the time of drawing only."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def canvas(width: float = 5.9, height: float = 4.3, rows: int = 1, cols: int = 1, **more):
    """(figure, array of axes) without pyplot: nothing global is touched, nothing must be closed.

    The figure shows itself in a notebook even if no inline backend is active.
    """
    from matplotlib.figure import Figure

    class ReportFigure(Figure):
        def _repr_png_(self):
            return png(self)

    figure = ReportFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, cols, squeeze=False, **more)


def png(figure, dpi: int = 150) -> bytes:
    """The figure as PNG."""
    out = io.BytesIO()
    with style():
        figure.savefig(out, format="png", dpi=dpi)
    return out.getvalue()


def svg(figure) -> bytes:
    """The figure as SVG, without the date, so that equal results give equal files."""
    import matplotlib

    out = io.BytesIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": "diffhw"}):
        figure.savefig(out, format="svg", dpi=150, metadata={"Date": None})
    return out.getvalue()


_SUFFIXES = (
    ("_mm2", "mm²", 1.0),
    ("_ms", "ms", 1.0),
    ("_s", "ms", 1e3),
    ("_j", "mJ", 1e3),
    ("_mj", "mJ", 1.0),
    ("_pj", "mJ", 1e-9),
    ("_w", "W", 1.0),
    ("_js", "J s", 1.0),
)


def axis_of(name: str) -> tuple[str, float]:
    """(label with unit, factor) of a figure's name: ``area_mm2`` reads "area (mm²)"."""
    for suffix, unit, factor in _SUFFIXES:
        if name.lower().endswith(suffix):
            return f"{name[: -len(suffix)].replace('_', ' ')} ({unit})", factor
    return name.replace("_", " "), 1.0


def decades(axis, values) -> None:
    """Plain numbers instead of powers of ten on a log axis that spans few decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = float(np.min(values)), float(np.max(values))
    spread = high / low if low > 0 else 1e9
    if spread < 1e3:
        many = (1, 2, 5) if spread > 8 else (1, 1.5, 2, 3, 4, 5, 6, 8)
        axis.set_major_locator(LogLocator(subs=many))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axis.set_minor_formatter(NullFormatter())


# Where a name may stand, in points from its dot, nearest first: (dx, dy, alignment).
_PLACES = [
    (sign * dx, dy, "left" if sign > 0 else "right")
    for dx, dy in (
        (6, 3),
        (6, -10),
        (3, 10),
        (3, -17),
        (6, 16),
        (6, -24),
        (10, 25),
        (10, -34),
        (14, 36),
        (14, -46),
    )
    for sign in (1, -1)
]
_NAME_SIZE = 8.5


def name_points(ax, points, names) -> None:
    """Write names beside dots so that no two names, and no name and dot, overlap. Limits must be set."""
    ax.figure.draw_without_rendering()  # settles the layout, so that pixels mean something
    to_points = 72 / ax.figure.dpi
    spots = ax.transData.transform(np.asarray(points, float).reshape(-1, 2)) * to_points
    frame = ax.get_window_extent()
    low, high = np.array([frame.x0, frame.y0]) * to_points, np.array([frame.x1, frame.y1]) * to_points
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    for (x, y), point, name in zip(spots, points, names, strict=True):
        if not (low[0] <= x <= high[0] and low[1] <= y <= high[1]):
            continue
        width = 0.58 * _NAME_SIZE * len(name)

        def box(place, x=x, y=y, width=width):
            dx, dy, side = place
            left = x + dx if side == "left" else x + dx - width
            return left, y + dy - 1, left + width, y + dy + _NAME_SIZE

        def free(place, box=box):
            a, b, c, d = box(place)
            inside = a >= low[0] and c <= high[0] and b >= low[1] and d <= high[1]
            return inside and all(a > r or c < p or b > s or d < q for p, q, r, s in taken)

        place = next((place for place in _PLACES if free(place)), None)
        if place is None:
            continue
        taken.append(box(place))
        far = abs(place[1]) > 12
        ax.annotate(
            name,
            point,
            xytext=place[:2],
            textcoords="offset points",
            fontsize=_NAME_SIZE,
            ha=place[2],
            zorder=6,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": COLOURS["grey"]} if far else None,
        )
