"""All tilings of a layer on a hierarchy under one choice of spatial factors: a lattice of divisors.

A tiling is a chain of divisors per loop, one per level. The tile that a level holds says everything
about what is inside it and outside it, so the best mapping is a shortest path from the whole layer to a
single iteration through the levels, and minima over "all tiles that divide this one" are cumulative
minima along the prime factors. 10^19 mappings become a few thousand tiles per level.
"""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffhw.hardware import Hierarchy
from diffhw.mappings import LOOPS

__all__ = ["Chip", "Lattice", "Problem", "chip_of", "problem_of", "spatial_choices"]

AT = {d: i for i, d in enumerate(LOOPS)}


@dataclass(frozen=True)
class Problem:
    """A layer as plain numbers: extents in the order of `LOOPS`, strides and dilations."""

    extents: tuple[int, ...]
    stride: tuple[float, float]
    dilation: tuple[float, float]

    @property
    def macs(self) -> float:
        """Useful multiply-accumulates."""
        return float(math.prod(self.extents))


@dataclass(frozen=True)
class Chip:
    """A hierarchy as plain numbers, arrays of shape (levels,) or (levels, 3) with tensors w, i, o."""

    names: tuple[str, ...]
    keeps: np.ndarray
    capacity: np.ndarray
    width: np.ndarray
    bits: np.ndarray
    read_pj: np.ndarray
    fill_pj: np.ndarray
    update_pj: np.ndarray
    ports: np.ndarray
    fan: np.ndarray
    allowed: tuple[tuple[str, str], ...]
    mac_pj: float
    static_pj_per_cycle: float

    @property
    def depth(self) -> int:
        """Number of levels."""
        return len(self.names)


def problem_of(layer) -> Problem:
    """The numbers of a concrete `Layer`. Raises ValueError for extents that are not whole."""
    extents = []
    for d in LOOPS:
        value = float(getattr(layer, d))
        if value != round(value):
            raise ValueError(f"loop {d!r} has {value:g} iterations: an exact search needs whole numbers")
        extents.append(round(value))
    pair = lambda name: (float(getattr(layer, f"{name}_h")), float(getattr(layer, f"{name}_w")))
    return Problem(tuple(extents), pair("stride"), pair("dilation"))


def chip_of(hierarchy: Hierarchy) -> Chip:
    """The numbers of a concrete `Hierarchy`."""
    number = lambda field: np.array([float(getattr(level, field)) for level in hierarchy.levels])
    leakage = sum(
        float(level.leakage_w) * float(hierarchy.instances(k)) for k, level in enumerate(hierarchy.levels)
    )
    return Chip(
        names=hierarchy.names,
        keeps=np.array([[t in level.keeps for t in "wio"] for level in hierarchy.levels]),
        capacity=number("capacity_bits"),
        width=number("width_bits"),
        bits=np.stack([number("weight_bits"), number("input_bits"), number("output_bits")], axis=1),
        read_pj=number("read_pj"),
        fill_pj=number("fill_pj"),
        update_pj=number("update_pj"),
        ports=np.stack([number(f"{kind}_bits_per_cycle") for kind in ("read", "write", "shared")], axis=1),
        fan=np.stack([number("fanout_x"), number("fanout_y")], axis=1),
        allowed=tuple((level.spatial_x, level.spatial_y) for level in hierarchy.levels),
        mac_pj=float(hierarchy.mac_pj),
        static_pj_per_cycle=(float(hierarchy.static_w) + leakage) / float(hierarchy.freq_hz) * 1e12,
    )


@lru_cache(maxsize=4096)
def factorise(n: int) -> tuple[tuple[int, int], ...]:
    """Primes of ``n`` with their powers."""
    found, p = [], 2
    while n > 1:
        if p * p > n:
            p = n
        power = 0
        while n % p == 0:
            n //= p
            power += 1
        if power:
            found.append((p, power))
        p += 1
    return tuple(found)


@lru_cache(maxsize=4096)
def divisors(n: int) -> np.ndarray:
    """Divisors of ``n`` in the order of a box of prime exponents, the last prime fastest."""
    found = np.ones(1, np.int64)
    for p, power in factorise(n):
        found = (found[:, None] * p ** np.arange(power + 1)).reshape(-1)
    return found


@lru_cache(maxsize=65536)
def below(n: int, index: int) -> np.ndarray:
    """Positions, among the divisors of ``n``, of those that divide the one at ``index``."""
    all_of = divisors(n)
    return np.flatnonzero(all_of[index] % all_of == 0)


def _axis_choices(allowed: str, extents: tuple[int, ...], fan: float) -> list[tuple[int, ...]]:
    """Factors per loop along one axis: divisors whose product fits the fan-out."""
    loops = [AT[d] for d in allowed if extents[AT[d]] > 1]
    options = [[v for v in divisors(extents[i]).tolist() if v <= fan] for i in loops]
    found = []
    for values in itertools.product(*options):
        if math.prod(values) <= fan + 1e-9:
            row = [1] * len(LOOPS)
            for i, v in zip(loops, values, strict=True):
                row[i] = v
            found.append(tuple(row))
    return found


def spatial_choices(problem: Problem, chip: Chip) -> list[tuple[np.ndarray, np.ndarray]]:
    """All choices of spatial factors: pairs (x, y) of integer arrays (levels, loops)."""
    partial: list[tuple[tuple[int, ...], list, list]] = [(problem.extents, [], [])]
    for m in range(chip.depth):
        grown = []
        for left, xs, ys in partial:
            for x in _axis_choices(chip.allowed[m][0], left, chip.fan[m, 0]):
                rest = tuple(a // b for a, b in zip(left, x, strict=True))
                for y in _axis_choices(chip.allowed[m][1], rest, chip.fan[m, 1]):
                    grown.append((tuple(a // b for a, b in zip(rest, y, strict=True)), [*xs, x], [*ys, y]))
        partial = grown
    return [(np.array(xs), np.array(ys)) for _, xs, ys in partial]


class Lattice:
    """The tiles of one spatial choice, and what holding each costs.

    rest: extents left to time (8,).  shape: divisors per loop.  values: per loop, its divisors as an
    array that broadcasts over the lattice.  size: tiles.
    """

    def __init__(self, problem: Problem, space: np.ndarray):
        self.problem = problem
        self.space = space
        extents = np.array(problem.extents)
        used = space.prod(axis=0)
        self.rest = tuple(int(v) for v in extents // used)
        self.inside = np.cumprod(space, axis=0)  # spatial factors at or below a level
        self.outside = used / self.inside  # above a level
        self.lists = [divisors(n) for n in self.rest]
        self.shape = tuple(len(found) for found in self.lists)
        self.size = math.prod(self.shape)
        self.values = [
            found.reshape([-1 if i == d else 1 for i in range(len(LOOPS))]).astype(float)
            for d, found in enumerate(self.lists)
        ]
        self.box = tuple(power + 1 for n in self.rest for _, power in factorise(n)) or (1,)
        self.box_axes: list[tuple[int, ...]] = []
        axis = 0
        for n in self.rest:
            primes = len(factorise(n))
            self.box_axes.append(tuple(range(axis, axis + primes)))
            axis += primes

    def cummin(self, values: np.ndarray, loops) -> np.ndarray:
        """Per tile, the least value among the tiles that divide it in ``loops`` and equal it elsewhere.

        values: any leading axes, then the lattice's (or axes that broadcast to them).
        """
        return self._accumulate(np.minimum, values, loops)

    def cumsum(self, values: np.ndarray, loops) -> np.ndarray:
        """The same with sums."""
        return self._accumulate(np.add, values, loops)

    def _accumulate(self, operation, values: np.ndarray, loops) -> np.ndarray:
        lead = values.shape[: values.ndim - len(LOOPS)]
        axes = [axis for d in loops for axis in self.box_axes[AT[d]]]
        if not axes:
            return values
        found = np.broadcast_to(values, (*lead, *self.shape)).reshape(*lead, *self.box)
        if not found.flags.writeable or np.shares_memory(found, values):
            found = found.copy()
        # In place: one slab after the other along a prime, which beats `accumulate` on short axes.
        for axis in axes:
            moved = np.moveaxis(found, len(lead) + axis, 0)
            for i in range(1, moved.shape[0]):
                # Slices, since an index would take a copy where the lattice has this one axis only.
                operation(moved[i : i + 1], moved[i - 1 : i], out=moved[i : i + 1])
        return found.reshape(*lead, *self.shape)

    def tile(self, level: int, d: str) -> np.ndarray:
        """Extent of loop ``d`` in the tile of a level."""
        return self.values[AT[d]] * self.inside[level, AT[d]]

    def words(self, level: int, tensor: str) -> np.ndarray:
        """Words of ``tensor`` in the tile of a level."""
        tile = {d: self.tile(level, d) for d in LOOPS}
        return tile_words(self.problem, tile, tensor)

    def fits(self, chip: Chip, level: int) -> np.ndarray:
        """True where the kept tensors fit the level."""
        need = np.zeros((1,) * len(LOOPS))
        for v, t in enumerate("wio"):
            if chip.keeps[level, v]:
                need = need + self.words(level, t) * chip.bits[level, v]
        return np.broadcast_to(need <= chip.capacity[level] * (1 + 1e-9), self.shape)

    def unravel(self, flat: np.ndarray) -> np.ndarray:
        """Temporal tile extents (n, 8) of flat positions."""
        places = np.unravel_index(flat, self.shape)
        return np.stack([self.lists[d][place] for d, place in enumerate(places)], axis=1)

    def under(self, flat: int) -> np.ndarray:
        """Flat positions of all tiles that divide the one at ``flat``."""
        found = np.zeros(1, np.int64)
        stride = self.size
        rest = int(flat)
        for d, n in enumerate(self.rest):
            stride //= self.shape[d]
            place, rest = divmod(rest, stride)
            found = (found[:, None] + below(n, place) * stride).reshape(-1)
        return found


def tile_words(problem: Problem, tile: dict, tensor: str):
    """Words of a tensor in a tile given by extents per loop."""
    if tensor == "w":
        return tile["g"] * tile["k"] * tile["c"] * tile["r"] * tile["s"]
    if tensor == "o":
        return tile["n"] * tile["g"] * tile["k"] * tile["p"] * tile["q"]
    height = (tile["p"] - 1) * problem.stride[0] + (tile["r"] - 1) * problem.dilation[0] + 1
    width = (tile["q"] - 1) * problem.stride[1] + (tile["s"] - 1) * problem.dilation[1] + 1
    return tile["n"] * tile["g"] * tile["c"] * height * width
