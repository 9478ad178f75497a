"""Lower bounds on what the inside of a mapping will cost: a shortest path over tiles, level by level.

The bound is admissible for every order of loops. At each level one tensor may stay while the innermost
loops run (weights: n, p, q; outputs: c, r, s; inputs: k, and a slide along one axis); all other tensors
come in once per tile. Where such a run goes on through the next level, weights and outputs are followed
exactly and inputs optimistically: that is what makes the bound loose, on layers with halos only.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from diffhw.mappings import LOOPS
from diffhw.recipes._map_lattice import AT, Chip, Lattice, tile_words

__all__ = ["Prices", "Tables", "bound_tables", "energy_prices", "port_prices"]

FREE = {"w": "npq", "o": "crs", "i": "k"}
AXES = {"h": "pr", "w": "qs"}


@dataclass(frozen=True)
class Prices:
    """What one word costs, summed over instances: arrays (levels, 3) with tensors w, i, o."""

    read: np.ndarray
    fill: np.ndarray
    update: np.ndarray


def energy_prices(chip: Chip) -> Prices:
    """PJ per word (a word is a share of an access; the program rounds accesses up)."""
    share = chip.bits / chip.width[:, None]
    return Prices(*(share * pj[:, None] for pj in (chip.read_pj, chip.fill_pj, chip.update_pj)))


def port_prices(chip: Chip, lattice: Lattice, level: int, port: int) -> Prices:
    """Cycles per word at one port of a level (0 read, 1 write, 2 shared) over all its instances."""
    zero = np.zeros_like(chip.bits)
    one = zero.copy()
    one[level] = chip.bits[level] / (chip.ports[level, port] * lattice.outside[level].prod())
    return Prices(one if port != 1 else zero, one if port != 0 else zero, one if port != 0 else zero)


@dataclass
class Tables:
    """Bounds of one lattice under several prices at once; every array has a leading price axis J.

    constant: (J,) what no tiling changes.  coef: (J, levels, 3) price of one visit of a tensor's tiles
    held there, parents included; 0 where it is not kept.  rest: per level, (J, *tiles): least cost of
    everything inside.  chain: per tensor "w" and "o", per length >= 1, per level: the same where the
    tensor's run goes on through so many levels, without its own cost there.
    """

    constant: np.ndarray
    coef: np.ndarray
    rest: list = field(default_factory=list)
    chain: dict = field(default_factory=dict)


def siblings(lattice: Lattice, level: int, step: np.ndarray | None = None) -> np.ndarray | float:
    """Distinct input tiles among the children of a level.

    step: (n, 8) tiles of the level inside, for exact values; without it, the least over all tiles.
    """
    space, problem = lattice.space[level], lattice.problem
    count: np.ndarray | float = float(space[AT["n"]] * space[AT["g"]] * space[AT["c"]])
    for axis, (slide, taps) in enumerate(("pr", "qs")):
        n, t = int(space[AT[slide]]), int(space[AT[taps]])
        if n == 1 or t == 1 or step is None:
            count = count * (n * t if n == 1 or t == 1 else n + t - 1)
            continue
        a = (problem.stride[axis] * step[:, AT[slide]]).astype(np.int64)
        b = (problem.dilation[axis] * step[:, AT[taps]]).astype(np.int64)
        g = np.gcd(a, b)
        count = count * (n * t - np.maximum(n - b // g, 0) * np.maximum(t - a // g, 0))
    return count


def keepers(chip: Chip) -> list[list[int]]:
    """Levels that keep each tensor, innermost first."""
    return [[k for k in range(chip.depth) if chip.keeps[k, v]] for v in range(3)]


def totals(lattice: Lattice) -> tuple[float, float]:
    """Words of the whole weight and output tensor."""
    whole = dict(zip(LOOPS, lattice.problem.extents, strict=True))
    return tile_words(lattice.problem, whole, "w"), tile_words(lattice.problem, whole, "o")


def spread(lattice: Lattice, level: int, loops: Iterable[str]) -> float:
    """Spatial factors of ``loops`` above a level."""
    return float(math.prod(lattice.outside[level, AT[d]] for d in loops))


def _visits(lattice: Lattice, loops: str) -> np.ndarray:
    found = np.ones((1,) * len(LOOPS))
    for d in loops:
        found = found * (lattice.rest[AT[d]] / lattice.values[AT[d]])
    return found


def _coefficients(lattice: Lattice, chip: Chip, prices: Prices) -> tuple[float, np.ndarray]:
    weights, outputs = totals(lattice)
    coef = np.zeros((chip.depth, 3))
    constant = 0.0
    cycles = float(np.prod(lattice.rest))
    for v, levels in enumerate(keepers(chip)):
        inner = levels[0]
        if v == 1:
            instances = spread(lattice, inner, LOOPS)
            distinct = np.prod([siblings(lattice, j) for j in range(inner + 1)])
            constant += instances * distinct * cycles * prices.read[inner, 1]
        else:
            loops, size = (FREE["w"], weights) if v == 0 else (FREE["o"], outputs)
            asked = float(np.prod([lattice.rest[AT[d]] for d in loops]))
            size *= spread(lattice, inner, loops)
            if v == 0:
                constant += size * asked * prices.read[inner, 0]
            else:
                constant += size * (asked * prices.update[inner, 2] + (asked - 1) * prices.read[inner, 2])
        for c, k in itertools.pairwise(levels):
            if v == 1:
                distinct = np.prod([siblings(lattice, j) for j in range(c + 1, k + 1)])
                coef[c, 1] = spread(lattice, c, LOOPS) * prices.fill[c, 1] + (
                    spread(lattice, k, LOOPS) * distinct * prices.read[k, 1]
                )
                continue
            loops, size = (FREE["w"], weights) if v == 0 else (FREE["o"], outputs)
            here, there = size * spread(lattice, c, loops), size * spread(lattice, k, loops)
            if v == 0:
                coef[c, 0] = here * prices.fill[c, 0] + there * prices.read[k, 0]
            else:
                back = here * prices.fill[c, 2] + there * prices.read[k, 2]
                coef[c, 2] = back + there * prices.update[k, 2]
                constant -= back
    return constant, coef


def _rows(lattice: Lattice, axis: int, p, r):
    """Distinct rows (or columns) of input that p outputs x r taps touch: the least any slide can bring.

    Windows with gaps (stride or dilation above 1) hold more than they touch, so this may be loose.
    """
    a, b = int(lattice.problem.stride[axis]), int(lattice.problem.dilation[axis])
    g = math.gcd(a, b)
    return p * r - np.maximum(p - b // g, 0) * np.maximum(r - a // g, 0)


def _input_terms(lattice: Lattice, level: int, axis: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Words that enter an instance of ``level``: while sliding along ``axis``, and slid all the way."""
    tile = {d: lattice.tile(level, d) for d in LOOPS}
    windows, slid = [], []
    for i, (name, (slide, taps)) in enumerate(AXES.items()):
        if name == axis:
            windows.append(_rows(lattice, i, tile[slide], tile[taps]))
            full = [lattice.rest[AT[d]] * lattice.inside[level, AT[d]] for d in (slide, taps)]
            slid.append(_rows(lattice, i, *full))
        else:
            problem = lattice.problem
            whole = (tile[slide] - 1) * problem.stride[i] + (tile[taps] - 1) * problem.dilation[i] + 1
            windows.append(whole)
            slid.append(whole)
    depth = tile["n"] * tile["g"] * tile["c"]
    run = AXES[axis] if axis else ""
    once = _visits(lattice, "".join(d for d in LOOPS if d not in run + "k"))
    return (
        depth * windows[0] * windows[1] * once * _visits(lattice, run + "k"),
        depth * slid[0] * slid[1] * once,
    )


def slide_axes(lattice: Lattice) -> list[str | None]:
    """Axes along which neighbouring windows can overlap; [None] if there is none."""
    problem, found = lattice.problem, []
    for i, (name, (_, taps)) in enumerate(AXES.items()):
        window = (problem.extents[AT[taps]] - 1) * problem.dilation[i] + 1
        if problem.extents[AT[taps]] > 1 and window >= problem.stride[i]:
            found.append(name)
    return found or [None]


def bound_tables(lattice: Lattice, chip: Chip, prices: list[Prices], fits: list[np.ndarray]) -> Tables:
    """Tables of ``lattice`` under each of ``prices``; ``fits``: per level, which tiles fit it."""
    pairs = [_coefficients(lattice, chip, price) for price in prices]
    constant, coef = np.array([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
    depth, shape = chip.depth, (len(prices), *lattice.shape)
    tables = Tables(constant, coef, chain={"w": {}, "o": {}})
    tables.rest = [np.zeros(shape)]
    visits = {t: _visits(lattice, FREE[t]) for t in "wo"}
    axes = slide_axes(lattice)
    column = {"w": 0, "i": 1, "o": 2}
    least = lattice.cummin
    others = lambda loops: "".join(d for d in LOOPS if d not in loops)
    along = lambda price: price.reshape(-1, *(1 for _ in LOOPS))
    for m in range(1, depth):
        c = m - 1
        barred = np.where(fits[c], 0.0, np.inf)
        price = {t: along(coef[:, c, column[t]]) for t in "wio"}
        term = {t: price[t] * visits[t] for t in "wo"}
        inside = tables.rest[c] + barred
        inputs_matter = bool(coef[:, c, 1].any())
        terms = [
            (AXES[axis] if axis else "", *(price["i"] * part for part in _input_terms(lattice, c, axis)))
            for axis in (axes if inputs_matter else axes[:1])
        ]
        best = None
        for run, sliding, slid in terms:
            cases: list[tuple[str, np.ndarray, np.ndarray | float]] = []
            for kept in "wo":
                other = term["o" if kept == "w" else "w"]
                for length in range(m):
                    deeper = inside if length == 0 else tables.chain[kept][length][c] + barred
                    own = along(coef[:, c - length : c + 1, column[kept]].sum(axis=1))
                    cases.append((run, other + deeper, own * visits[kept]))
            if inputs_matter:
                cases.append((run + "k", term["w"] + term["o"] + inside, 0.0))
            for replaced, within, kept_cost in cases:
                if not inputs_matter:
                    moved = least(within, LOOPS) + kept_cost
                else:
                    moved = least(least(within, replaced) + sliding, others(replaced)) + kept_cost
                best = moved if best is None else np.minimum(best, moved)
                if inputs_matter and m < depth - 1:  # the slide may come from the level outside
                    best = np.minimum(best, least(within, run + "k") + slid + kept_cost)
        assert best is not None
        for kept in "wo":
            other = term["o" if kept == "w" else "w"]
            for length in range(1, m + 1):
                deeper = inside if length == 1 else tables.chain[kept][length - 1][c] + barred
                found = None
                within = other + deeper
                for axis_run, sliding, slid in terms:
                    run = "".join(d for d in axis_run if d in FREE[kept])
                    step = least(within, run)
                    rest = "".join(d for d in FREE[kept] if d not in run)
                    here = np.minimum(least(step + sliding, rest), step + slid)
                    found = here if found is None else np.minimum(found, here)
                assert found is not None
                tables.chain[kept].setdefault(length, {})[m] = np.broadcast_to(found, shape)
        tables.rest.append(np.broadcast_to(best, shape))
    return tables
