"""The space of mappings of a layer, and of many layers at once: genomes, their nests and what they cost.

A genome is a row of whole numbers: one factor per loop and slot (temporal at every level, spatial where
the hierarchy allows), then one place in a menu of orders per level above the innermost, whose order
changes nothing. Factors of a loop multiply to its extent. `mapping_space` says the same of one layer as a
`Space`, for any search; genomes serve many layers in one compiled program.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffhw import numerics
from diffhw.hardware import Hierarchy
from diffhw.mappings import LOOPS, ORDERS, LoopLevel, LoopNest, loop_order
from diffhw.models import loopnest
from diffhw.recipes._map_lattice import factorise
from diffhw.spaces import Order, Space, Tiling
from diffhw.workloads import Layer

__all__ = [
    "MENU",
    "PLACES",
    "Genomes",
    "Layout",
    "MapSlot",
    "TilesAndOrders",
    "genome_cost",
    "mapping_space",
    "mapping_template",
]

MENU = {**ORDERS, "w-pr": "prqnsckg", "w-qs": "qspnrckg", "o-rp": "rpscqnkg", "o-sq": "sqrcpnkg"}
"""`mappings.ORDERS` and those in which a slide goes on from an output loop to a filter loop or back."""

PLACES = np.array([[loop_order(order)[d] for d in LOOPS] for order in MENU.values()])
"""Places of the `LOOPS` under each order, (orders, 8)."""

_FREE = ("npq", "crs", "k")  # loops that do not index weights, outputs, inputs
_AXIS = {"p": 0, "r": 0, "q": 1, "s": 1}
_WINDOWS = (("p", "r", "stride_h", "dilation_h"), ("q", "s", "stride_w", "dilation_w"))


@dataclass(frozen=True)
class MapSlot:
    """A place for a factor: ``kind`` is "temporal", "spatial_x" or "spatial_y"."""

    level: int
    kind: str


def _slots_of(hierarchy: Hierarchy) -> dict[str, tuple[MapSlot, ...]]:
    """Per loop its slots: temporal ones from the innermost level out, then spatial ones."""
    found = {}
    for d in LOOPS:
        slots = [MapSlot(k, "temporal") for k in range(len(hierarchy.levels))]
        for k, level in enumerate(hierarchy.levels):
            for kind in ("spatial_x", "spatial_y"):
                if d in getattr(level, kind) and float(getattr(level, f"fanout_{kind[-1]}")) > 1:
                    slots.append(MapSlot(k, kind))
        found[d] = tuple(slots)
    return found


def _fan(level, kind: str) -> float:
    return float(getattr(level, f"fanout_{kind[-1]}")) + 1e-6


def _words(tensor: str, tile: dict, layer: Layer) -> float:
    size = lambda loops: math.prod(tile.get(d, 1) for d in loops)
    if tensor != "i":
        return size("gkcrs" if tensor == "w" else "ngkpq")
    window = 1.0
    for out, tap, stride, dilation in _WINDOWS:
        rows = (tile.get(out, 1) - 1) * float(getattr(layer, stride))
        window *= rows + (tile.get(tap, 1) - 1) * float(getattr(layer, dilation)) + 1
    return size("ngc") * window


def _limit(layer: Layer, hierarchy: Hierarchy, loop: str, slot: MapSlot) -> int:
    """The largest factor of ``loop`` in ``slot`` that fits where everything else is 1."""
    most = round(float(getattr(layer, loop)))
    if slot.kind != "temporal":
        most = min(most, math.floor(_fan(hierarchy.levels[slot.level], slot.kind)))
    for level in hierarchy.levels[slot.level :]:
        room = float(level.capacity_bits) * (1 + 1e-6)
        need = lambda f, level=level: sum(
            _words(t, {loop: f}, layer) * float(level.bits(t)) for t in level.keeps
        )
        if need(most) > room:
            low = 1
            while most - low > 1:
                middle = (low + most) // 2
                low, most = (middle, most) if need(middle) <= room else (low, middle)
            most = low
    return most


# One layer, as a Space ----------------------------------------------------------------------


@struct.dataclass(kw_only=True)
class TilesAndOrders:
    """What `mapping_space` decodes to.

    tiles:  per loop its factors, one per slot, leaves of shape ().
    orders: per level above the innermost, place of each loop, leaves of shape ().
    slots:  (loop, its slots) in the order of ``tiles``. Static.
    depth:  levels. Static.
    """

    tiles: dict[str, tuple[Array, ...]]
    orders: tuple[dict[str, Array], ...]
    slots: tuple[tuple[str, tuple[MapSlot, ...]], ...] = struct.field(pytree_node=False)
    depth: int = struct.field(pytree_node=False)

    def nest(self) -> LoopNest:
        """The loop nest, for `models.loopnest`."""
        parts: list[dict] = [{"temporal": {}, "spatial_x": {}, "spatial_y": {}} for _ in range(self.depth)]
        for d, slots in self.slots:
            for slot, factor in zip(slots, self.tiles[d], strict=True):
                parts[slot.level][slot.kind][d] = factor
        innermost = {d: numerics.as_float(place) for d, place in loop_order("").items()}
        orders = (innermost, *self.orders)
        return LoopNest(
            levels=tuple(LoopLevel(order=order, **part) for order, part in zip(orders, parts, strict=True))
        )


def mapping_space(layer: Layer, hierarchy: Hierarchy, *, keeps: tuple[str, ...] | None = None) -> Space:
    """All perfect mappings of a concrete layer: a `Tiling` per loop, an `Order` per level but the innermost.

    keeps: tensors kept per level, innermost first (`Hierarchy.keeping`); default: the hierarchy's own. For
        the cost, use ``hierarchy.keeping(keeps)`` too.
    Decodes to `TilesAndOrders`, whose ``nest()`` goes into `models.loopnest`. Factors too large for a
    buffer or a fan-out by themselves are left out; together they may still not fit (``violation``).
    Raises ValueError for a layer whose loops are no whole numbers.

    >>> from diffhw import hardware, workloads
    >>> space = mapping_space(workloads.Layer.gemm(4, 4, 4), hardware.hierarchy("gemmini"))
    >>> [float(f) for f in space.at([0] * 6).tiles["p"]], space.size
    ([4.0, 1.0, 1.0, 1.0], 1728000)
    """
    if keeps is not None:
        hierarchy = hierarchy.keeping(keeps)
    return Space(mapping_template(layer, hierarchy))


def mapping_template(layer: Layer, hierarchy: Hierarchy) -> TilesAndOrders:
    """What `mapping_space` is a space of: to stand in a larger design, beside hardware with variables.

    hierarchy: concrete, the largest that factors are to fit; see `mapping_space` for the errors.
    """
    slots, depth = _slots_of(hierarchy), len(hierarchy.levels)
    tiles: dict = {}
    for d in LOOPS:
        extent = _whole(layer, d)
        limits = [_limit(layer, hierarchy, d, slot) for slot in slots[d]]
        one = tuple(numerics.as_float(1) for _ in limits)
        tiles[d] = Tiling(extent, len(limits), limits=limits) if extent > 1 else one
    orders: tuple = tuple(Order(MENU) for _ in range(depth - 1))
    return TilesAndOrders(tiles=tiles, orders=orders, slots=tuple(slots.items()), depth=depth)


def _whole(layer: Layer, d: str) -> int:
    value = float(getattr(layer, d))
    if value != round(value):
        raise ValueError(f"loop {d!r} has {value:g} iterations: a mapping needs whole numbers")
    return round(value)


# Genomes, in compiled programs ---------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """What the columns of a genome mean; static in compiled programs.

    genes: (loop, slot) per factor column.  depth: levels.  loops: those that run in some layer; the
    others are left out of the program.
    """

    genes: tuple[tuple[str, MapSlot], ...]
    depth: int
    loops: tuple[str, ...]

    @property
    def factors(self) -> int:
        """Columns with factors; after them one column per order."""
        return len(self.genes)

    @property
    def width(self) -> int:
        """Columns."""
        return len(self.genes) + self.depth - 1

    def columns(self, d: str) -> list[int]:
        """Columns of a loop: temporal from the innermost level out, then spatial."""
        return [i for i, gene in enumerate(self.genes) if gene[0] == d]

    def nest(self, factors: Sequence, places: Sequence[Sequence]) -> LoopNest:
        """The nest of factors (one per gene) and places (per level above the innermost, per loop)."""
        parts: list[dict] = [{"temporal": {}, "spatial_x": {}, "spatial_y": {}} for _ in range(self.depth)]
        for (d, slot), factor in zip(self.genes, factors, strict=True):
            if d in self.loops:
                parts[slot.level][slot.kind][d] = factor
        rows = [[float(i) for i in range(len(self.loops))], *places]
        return LoopNest(
            levels=tuple(
                LoopLevel(
                    order={d: jnp.asarray(x, float) for d, x in zip(self.loops, row, strict=True)}, **part
                )
                for row, part in zip(rows, parts, strict=True)
            )
        )


def genome_cost(layout: Layout, hierarchy: Hierarchy, layer: Layer, genome: Array):
    """(energy in pJ, cycles, violation), shapes (), of a genome (width,) of whole numbers. jit, vmap."""
    table = jnp.asarray(PLACES[:, [LOOPS.index(d) for d in layout.loops]], float)
    numbers = genome.astype(float)
    places = []
    for m in range(layout.depth - 1):
        row = table[genome[layout.factors + m].astype(jnp.int32)]
        places.append([row[j] for j in range(len(layout.loops))])
    nest = layout.nest([numbers[i] for i in range(layout.factors)], places)
    cost = loopnest.layer(layer, hierarchy, nest)
    return cost.energy_pj, cost.cycles, cost.violation


# Genomes, on the host -------------------------------------------------------------------------


def _order_key(order: str, active: str, slides: tuple[bool, bool]):
    """What of an order changes cost: equal keys, equal cost. See `models._loopnest_reuse`."""
    running = [d for d in order if d in active]
    leads = []
    for free in _FREE:
        stop = next((i for i, d in enumerate(running) if d not in free), len(running))
        leads.append(frozenset(running[:stop]))
    slide, axis = [], None
    for d in running:
        if d != "k":
            if d not in _AXIS or not slides[_AXIS[d]] or axis not in (None, _AXIS[d]):
                break
            axis = _AXIS[d]
        slide.append(d)
    while slide and slide[-1] == "k":
        slide.pop()
    return tuple(leads), tuple(slide)


@functools.lru_cache(maxsize=8)
def order_keys(slides: tuple[bool, bool]) -> np.ndarray:
    """(256, orders): the first order of `MENU` that costs the same, by which loops run (bits)."""
    table = np.zeros((2 ** len(LOOPS), len(MENU)), np.int64)
    for mask in range(len(table)):
        active = "".join(d for i, d in enumerate(LOOPS) if mask >> i & 1)
        seen: dict = {}
        for o, order in enumerate(MENU.values()):
            table[mask, o] = seen.setdefault(_order_key(order, active, slides), o)
    return table


def _slides(layer: Layer) -> tuple[bool, bool]:
    """Whether windows can overlap along rows and along columns."""
    found = []
    for _, tap, stride, dilation in _WINDOWS:
        n = float(getattr(layer, tap))
        found.append(n > 1 and (n - 1) * float(getattr(layer, dilation)) + 1 >= float(getattr(layer, stride)))
    return found[0], found[1]


class Genomes:
    """Genomes of concrete ``layers`` on a concrete ``hierarchy``: what is legal and what it means.

    layout:  meaning of the columns.  temporal: (levels, 8) columns of temporal factors.
    limits:  (layers, factors) largest factor that can fit by itself.
    primes:  per layer, (loop number, prime, power) of what there is to deal out.
    axes:    (columns, fan-out) of every spatial axis.
    table:   `Layer` with leaves (layers,), numpy.
    """

    def __init__(self, layers: Sequence[Layer], hierarchy: Hierarchy):
        self.hierarchy, self.layers = hierarchy, list(layers)
        slots = _slots_of(hierarchy)
        extents = np.array([[_whole(one, d) for d in LOOPS] for one in self.layers])
        used = tuple(d for i, d in enumerate(LOOPS) if extents[:, i].max() > 1) or LOOPS[:1]
        genes = tuple((d, slot) for d in LOOPS for slot in slots[d])
        self.layout = Layout(genes, len(hierarchy.levels), used)
        self.temporal = np.array(
            [[self.layout.columns(d)[k] for d in LOOPS] for k in range(self.layout.depth)]
        )
        self.limits = np.array(
            [[_limit(one, hierarchy, d, slot) for d, slot in genes] for one in self.layers]
        )
        self.primes = [
            [(i, p, power) for i, n in enumerate(row) for p, power in factorise(n)]
            for row in extents.tolist()
        ]
        self.axes = []
        for k, level in enumerate(hierarchy.levels):
            for kind in ("spatial_x", "spatial_y"):
                columns = [c for c, (_, slot) in enumerate(genes) if slot == MapSlot(k, kind)]
                if columns:
                    self.axes.append((columns, _fan(level, kind)))
        self._keys = [order_keys(_slides(one)) for one in self.layers]
        stack = lambda *leaves: np.array([float(leaf) for leaf in leaves])
        self.table = jax.tree.map(stack, *self.layers)

    def canonical(self, i: int, genomes: np.ndarray) -> np.ndarray:
        """Genomes of layer ``i`` with every order replaced by the first that costs the same. In place."""
        bits = 1 << np.arange(len(LOOPS))
        for m in range(1, self.layout.depth):
            running = (genomes[:, self.temporal[m]] > 1) @ bits
            column = self.layout.factors + m - 1
            genomes[:, column] = self._keys[i][running, genomes[:, column]]
        return genomes

    def to_nest(self, i: int, genome: np.ndarray) -> LoopNest:
        """The checked `LoopNest` of a genome of layer ``i``."""
        menu = list(MENU.values())
        orders = ["".join(LOOPS), *(menu[int(o)] for o in genome[self.layout.factors :])]
        levels: list[dict] = [{"temporal": {}, "x": {}, "y": {}, "order": order} for order in orders]
        for (d, slot), factor in zip(self.layout.genes, genome, strict=False):
            if factor > 1:
                levels[slot.level][slot.kind if slot.kind == "temporal" else slot.kind[-1]][d] = int(factor)
        return LoopNest.create(levels, self.hierarchy, self.layers[i])
