"""What each PE holds in the first steps of a dataflow, drawn as the papers do: grids of PEs, one per tensor
and step. Equal tiles have equal colours, so a multicast or a spatial reduction is seen as one colour.
"""

import colorsys
import functools

import numpy as np

from diffhw.mappings import DIMS, LEVELS
from diffhw.report._dataflow import TENSORS, HostNest, host_nest, unit_words
from diffhw.report._figure import COLOURS, canvas, style

__all__ = ["dataflow_picture", "first_steps"]

_CLUSTERS, _INSIDE = 4, 6  # shown at most
_Interval = tuple[int, int]
_Tile = tuple[tuple[str, int, int], ...]  # (name, first, last) of each dimension


def _piece(nest: HostNest, level: int, dim: str, parent: _Interval, fold: int, unit: int) -> _Interval:
    """A unit's share of ``parent`` in one fold; empty (begin >= end) past its end."""
    tile, dealt = nest.tiles[level][dim], nest.dealt[level][dim]
    begin = parent[0] + (fold * dealt + (unit if dealt > 1 else 0)) * tile
    return begin, min(begin + tile, parent[1])


def _held(nest: HostNest, folds, units) -> dict[str, _Interval]:
    """Intervals of the PE (unit per level). Where a level deals nothing out, only its first unit works."""
    for level, unit in enumerate(units):
        if unit and all(nest.dealt[level][d] == 1 for d in DIMS):
            return dict.fromkeys(DIMS, (0, 0))
    held = {d: (0, nest.extents[d]) for d in DIMS}
    for level in range(LEVELS):
        held = {d: _piece(nest, level, d, held[d], folds[level][d], units[level]) for d in DIMS}
    return held


def first_steps(nest: HostNest, steps: int):
    """(positions of the loops, loop that advanced or None) of the first steps of the lockstep walk.

    A position is a list of {dim: fold} per level; trip counts are those of unit 0.
    """
    folds = [dict.fromkeys(DIMS, 0) for _ in range(LEVELS)]
    loops = [(level, d) for level in range(LEVELS) for d in nest.order[level]]
    out = [([dict(one) for one in folds], None)]
    while len(out) < steps:
        for place in range(len(loops) - 1, -1, -1):
            level, d = loops[place]
            parent = (0, nest.extents[d])
            for above in range(level):
                parent = _piece(nest, above, d, parent, folds[above][d], 0)
            span = nest.tiles[level][d] * nest.dealt[level][d]
            if (folds[level][d] + 1) * span < parent[1] - parent[0]:
                folds[level][d] += 1
                for inner_level, inner in loops[place + 1 :]:
                    folds[inner_level][inner] = 0
                out.append(([dict(one) for one in folds], (level, d)))
                break
        else:
            break  # the walk is over
    return out


def _tiles(nest: HostNest, held: dict[str, _Interval], strides) -> dict[str, _Tile] | None:
    """Tensor -> what the PE holds, None for an idle one. Input rows y and columns x count the padding."""
    if any(begin >= end for begin, end in held.values()):
        return None
    last = {d: (begin, end - 1) for d, (begin, end) in held.items()}

    def window(out: str, tap: str, stride: int, dilation: int):
        return tuple(stride * last[out][i] + dilation * last[tap][i] for i in (0, 1))

    (sh, sw), (dh, dw) = strides
    y, x = window("p", "r", sh, dh), window("q", "s", sw, dw)
    dims = lambda names: tuple((d, *last[d]) for d in names)
    return {
        "input": (*dims("nc"), ("y", *y), ("x", *x)),
        "weight": dims("kcrs"),
        "output": dims("nkc"[: 3 if nest.depthwise else 2]) + dims("pq"),
    }


def _colour(index: int) -> tuple[float, float, float]:
    """Pale colours, neighbours far apart."""
    hue = (0.58 + index * 0.618034) % 1.0
    return colorsys.hls_to_rgb(hue, (0.80, 0.88, 0.72)[index % 3], 0.62)


def _range(name: str, first: int, last: int) -> str:
    return f"{name}{first}" if first == last else f"{name}{first}-{last}"


def dataflow_picture(layer, hw, dataflow, steps: int = 4, title: str | None = None):
    """Grids of PEs: rows are input, weight and output, columns the first ``steps`` steps of the walk.

    layer: concrete `Layer`, leaves ().  dataflow: `Dataflow`, leaves ().  Returns a matplotlib figure.
    A row of a grid is a cluster (first 4), a box in it a PE (first 6); of an array without clusters the
    first 24 PEs. A box names the indices that its PE holds (input rows y and columns x, padding included;
    what every box has in common is in the row's head). One colour is one tile: several PEs of it share a
    multicast, or add to the same outputs. Thick frames: not what the PE held in the step before. Grey: idle.
    Raises ValueError for a batch, tiles that are no whole numbers, or steps < 1.
    """
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number >= 1, got {steps!r}")
    nest = host_nest(layer, hw, dataflow)
    number = lambda name: int(np.asarray(getattr(layer, name)))
    strides = (
        (number("stride_h"), number("stride_w")),
        (number("dilation_h"), number("dilation_w")),
    )
    inside = nest.units[1] * nest.units[2]
    if inside == 1:
        grid = [[(row * _INSIDE + col, 0, 0) for col in range(_INSIDE)] for row in range(_CLUSTERS)]
    else:
        shown = range(min(inside, _INSIDE))
        grid = [
            [(cluster, i // nest.units[2], i % nest.units[2]) for i in shown] for cluster in range(_CLUSTERS)
        ]
    grid = [[pe for pe in row if pe[0] < nest.units[0]] for row in grid]
    grid = [row for row in grid if row]

    walk = first_steps(nest, steps)
    holds = [
        [[_tiles(nest, _held(nest, folds, pe), strides) for pe in row] for row in grid] for folds, _ in walk
    ]
    with style():
        return _draw(nest, grid, walk, holds, inside, title)


def _draw(nest: HostNest, grid, walk, holds, inside: int, title: str | None):
    words = unit_words(nest)
    wide, high = max(map(len, grid)), len(grid)
    figure, axes = canvas(
        width=max(1.6 + len(walk) * max(0.62 * wide, 1.9), 6.4), height=1.5 + 3 * max(0.60 * high, 1.25),
        rows=3, cols=len(walk),
    )  # fmt: skip
    for i, tensor in enumerate(TENSORS):
        every = [hold[tensor] for step in holds for row in step for hold in row if hold is not None]
        common = functools.reduce(lambda a, b: [x for x in a if x in b], every, list(every[0]))
        common_names = {name for name, *_ in common}
        colours: dict[_Tile, int] = {}
        for j, (_, moved) in enumerate(walk):
            ax = axes[i, j]
            before = holds[j - 1] if j else None
            for row, line in enumerate(holds[j]):
                for col, hold in enumerate(line):
                    old = before[row][col] if before else None
                    _box(ax, row, col, hold, old, tensor, colours, common_names)
            ax.set(xlim=(-0.06, wide + 0.02), ylim=(high + 0.02, -0.06), xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
            if i == 0:
                ax.set_title(_step_title(j, moved, nest), fontsize=10)
            if j == 0:
                shared = ", ".join(_range(*one) for one in common if one[1:] != (0, 0))
                ax.set_ylabel(tensor + (f"\nall: {shared}" if shared else ""), fontsize=9.5)
    total = nest.units[0]
    if inside == 1:
        what = f"boxes: {sum(map(len, grid))} of {total} {words[0]}"
    else:
        what = f"rows: {high} of {total} clusters; boxes: {wide} of {inside} PEs in each"
    gap = "\n" if figure.get_figwidth() < 8.5 else " "
    figure.supxlabel(
        f"{what}.{gap}Same colour and indices: same tile. Thick frame: new in this step. Grey: idle.",
        fontsize=9,
        x=0.02,
        ha="left",
    )
    if title:
        figure.suptitle(title, fontsize=11, x=0.02, ha="left")
    return figure


def _step_title(step: int, moved, nest: HostNest) -> str:
    if moved is None:
        return "first step"
    level, d = moved
    several = sum(nest.trips(one, d) > 1 for one in range(LEVELS)) > 1
    return f"then {d} advances" + (f" (level {level + 1})" if several else "")


def _box(ax, row: int, col: int, hold, old, tensor: str, colours: dict, common_names: set) -> None:
    """One PE of one grid."""
    from matplotlib.patches import Rectangle

    size = 0.93
    if hold is None:
        ax.add_patch(Rectangle((col, row), size, size, facecolor=COLOURS["pale"], linewidth=0))
        return
    tile = hold[tensor]
    colour = _colour(colours.setdefault(tile, len(colours)))
    new = old is None or old[tensor] != tile
    pad = 0.035 if new else 0.0
    ax.add_patch(
        Rectangle(
            (col + pad, row + pad), size - 2 * pad, size - 2 * pad, facecolor=colour,
            edgecolor=COLOURS["black"] if new else "#FFFFFF", linewidth=1.9 if new else 0.5,
        )
    )  # fmt: skip
    lines = [_range(*one) for one in tile if one[0] not in common_names]
    longest = max(map(len, lines), default=1)
    ax.text(
        col + size / 2, row + size / 2, "\n".join(lines), ha="center", va="center", linespacing=1.02,
        fontsize=min(7.5, 46 / max(longest, 1), 27 / max(len(lines), 1)), color=COLOURS["black"],
    )  # fmt: skip
