"""Least DRAM traffic against the size of a buffer: the ski slope, proven point by point.

The exact mapper minimises whatever costs something. Where only the words that cross the DRAM port do, it
returns the least traffic that any mapping of the layer can have (Orojenesis draws such curves for one
buffer: Huang et al., ISCA 2024).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from diffhw.hardware import Hierarchy
from diffhw.recipes._map import best_mapping
from diffhw.workloads import Layer

__all__ = ["SkiSlope", "ski_slope"]


@dataclass(frozen=True)
class SkiSlope:
    """A curve. Arrays of one length, capacities ascending.

    capacity_bytes: of one instance of ``level``.  traffic_bytes: the least found over the DRAM port, reads
    and writes; nan where nothing fits.  bound_bytes: proven: no mapping moves less; equal where proven.
    compulsory_bytes: every weight and input that is used read once, every output written once.
    here: (capacity, bytes) of the hierarchy as it is; nan where nothing fits.
    """

    layer: Layer
    hierarchy: Hierarchy
    level: str
    capacity_bytes: np.ndarray
    traffic_bytes: np.ndarray
    bound_bytes: np.ndarray
    compulsory_bytes: float
    here: tuple[float, float]
    seconds: float

    @property
    def proven(self) -> np.ndarray:
        """True where the traffic is the least there is."""
        return self.traffic_bytes <= self.bound_bytes * (1 + 2e-9)


def _traffic_only(hierarchy: Hierarchy) -> Hierarchy:
    """The same shape with no price but one per bit that crosses the DRAM port, and no port to mind."""
    nothing, free = jnp.zeros_like(hierarchy.mac_pj), jnp.full_like(hierarchy.mac_pj, jnp.inf)
    ports = dict.fromkeys(("read_bits_per_cycle", "write_bits_per_cycle", "shared_bits_per_cycle"), free)
    levels = [
        replace(level, read_pj=nothing, fill_pj=nothing, update_pj=nothing, leakage_w=nothing, **ports)
        for level in hierarchy.levels
    ]
    one = jnp.ones_like(hierarchy.mac_pj)
    levels[-1] = replace(levels[-1], read_pj=one, fill_pj=one, update_pj=one, width_bits=one)
    return replace(hierarchy, levels=tuple(levels), mac_pj=nothing, static_w=nothing)


def _compulsory_bits(layer: Layer, hierarchy: Hierarchy) -> float:
    """Weights, outputs, and the pixels that a window reaches, once each."""
    f = lambda name: float(getattr(layer, name))
    dram = hierarchy.levels[-1]

    def touched(out: str, taps: str, stride: str, dilation: str) -> int:
        reach = {a * f(stride) + b * f(dilation) for a in range(int(f(out))) for b in range(int(f(taps)))}
        return len(reach)

    pixels = touched("p", "r", "stride_h", "dilation_h") * touched("q", "s", "stride_w", "dilation_w")
    return (
        f("g") * f("k") * f("c") * f("r") * f("s") * float(dram.weight_bits)
        + f("n") * f("g") * f("c") * pixels * float(dram.input_bits)
        + f("n") * f("g") * f("k") * f("p") * f("q") * float(dram.output_bits)
    )


def _least(layer, hierarchy, at: int, size: float, bypass, limit, seconds) -> tuple[float, float]:
    """(bytes, proven bound) with ``size`` bytes at level ``at``; nan where nothing fits."""
    try:
        chip = _sized(_traffic_only(hierarchy), at, size)
        best = best_mapping(layer, chip, "energy", bypass=bypass, limit=limit, seconds=seconds)
    except ValueError:
        return np.nan, np.nan
    return best.energy_pj / 8, best.bound / 8


def _sized(hierarchy: Hierarchy, at: int, size: float) -> Hierarchy:
    """``size`` bytes at level ``at``."""
    levels = list(hierarchy.levels)
    bits = jnp.asarray(size * 8, hierarchy.mac_pj.dtype)
    levels[at] = replace(levels[at], capacity_bits=bits)
    return replace(hierarchy, levels=tuple(levels))


def _why(layer, hierarchy, at: int, size: float, bypass) -> str:
    """Why nothing fits even with ``size`` bytes."""
    try:
        best_mapping(layer, _sized(hierarchy, at, size), "energy", bypass=bypass, limit=1, seconds=1)
    except ValueError as error:
        return str(error)
    return f"no mapping was found with {size:g} bytes in the time given: raise seconds"


def _curve(sizes: np.ndarray, least: Callable[[float], tuple[float, float]], progress) -> list:
    """`least` of every size. A larger buffer moves no more: between equal proven ends all are equal."""
    points: dict[int, tuple[float, float]] = {}

    def told(i: int) -> tuple[float, float]:
        if i not in points:
            points[i] = least(float(sizes[i]))
            if progress is not None:
                progress(len(points), len(sizes))
        return points[i]

    def between(low: int, high: int) -> None:
        small, large = told(low), told(high)
        if high - low < 2:
            return
        # The large end's bound holds for all smaller sizes, the small end's mapping fits all larger.
        if small[0] <= large[1] * (1 + 2e-9) or np.isnan(large[0]):
            points.update({i: (small[0], large[1]) for i in range(low + 1, high)})
            return
        middle = (low + high) // 2
        between(low, middle)
        between(middle, high)

    between(0, len(sizes) - 1)
    if progress is not None:
        progress(len(sizes), len(sizes))
    return [points[i] for i in range(len(sizes))]


def ski_slope(
    layer: Layer,
    hierarchy: Hierarchy,
    level: str | None = None,
    capacities: Sequence[float] | None = None,
    *,
    bypass: bool = False,
    limit: int = 50_000,
    seconds: float = 5.0,
    progress: Callable[[int, int], None] | None = None,
) -> SkiSlope:
    """Least DRAM traffic of a layer against the capacity of one level, every point with a proof or a gap.

    level: name of an on-chip level (default: the outermost).  capacities: bytes of one instance, any order
    (default: powers of two from 1/64 of what it has to 64 times).  bypass, limit, seconds: as in
    `recipes.best_mapping`, per point.  The other levels stay as they are: a small one inside may keep the
    curve above the compulsory traffic however large the swept one is. Perfect factors.
    Raises ValueError for an unknown level, one without a capacity, or where nothing fits at any size.
    """
    begin = time.perf_counter()
    inside = hierarchy.names[:-1]
    if not inside:
        raise ValueError(f"the hierarchy has only {hierarchy.names[-1]}: there is no buffer to size")
    level = inside[-1] if level is None else level
    if level not in inside:
        raise ValueError(f"no on-chip level is called {level!r}; known: {', '.join(inside)}")
    at = inside.index(level)
    own = float(hierarchy.levels[at].capacity_bits) / 8
    if capacities is None:
        if not np.isfinite(own):
            raise ValueError(f"{level} has no capacity to start from: give capacities in bytes")
        sizes = own * 2.0 ** np.arange(-6, 7)
    else:
        sizes = np.unique(np.asarray([*capacities], float))
        if not len(sizes) or not np.all(sizes > 0):
            raise ValueError(f"capacities must be numbers of bytes > 0, got {[*capacities]}")
    every = np.unique([*sizes, own]) if np.isfinite(own) else sizes
    points = _curve(every, lambda size: _least(layer, hierarchy, at, size, bypass, limit, seconds), progress)
    if np.isnan(points[-1][0]):
        raise ValueError(_why(layer, hierarchy, at, every[-1], bypass))
    found = dict(zip(every.tolist(), points, strict=True))
    traffic, bound = np.array([found[size] for size in sizes.tolist()]).T
    here = (own, found[own][0] if np.isfinite(own) else np.nan)
    return SkiSlope(
        layer=layer,
        hierarchy=hierarchy,
        level=level,
        capacity_bytes=sizes,
        traffic_bytes=traffic,
        bound_bytes=bound,
        compulsory_bytes=_compulsory_bits(layer, hierarchy) / 8,
        here=here,
        seconds=time.perf_counter() - begin,
    )
