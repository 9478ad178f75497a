"""Marvel's on-chip subspace: what a PE holds, what clusters and PEs share out, order; L2 tile given.

Candidates are made on the host, ranked there by a rough closed form (busiest PE's MACs, visits of the
distinct-block model one level further in), and the foremost are costed by `models.dataflow`.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.hardware import Accelerator, leakage_w
from diffhw.mappings import DIMS, ClusterLevel, Dataflow, Precision
from diffhw.models import dataflow
from diffhw.models._dataflow_buffers import local_level, shared_levels
from diffhw.models._locality import TILE_LOOPS, TILE_ORDERS
from diffhw.numerics import log
from diffhw.workloads import Layer

__all__ = [
    "CHUNK",
    "Machine",
    "OnChip",
    "Pool",
    "candidates",
    "costs",
    "dataflow_tile",
    "evaluate",
    "to_dataflow",
]

CHUNK = 16384
_NONE = len(DIMS)
_MOVES = {"w": "kcrs", "i": "ncpqrs", "o": "nkpq"}


@dataclass(frozen=True)
class Machine:
    """What the ranking needs of an accelerator, as plain numbers; bytes, cycles, pJ."""

    pes: int
    l1_bytes: float
    l2_bytes: float
    read: float
    l2_pj: float
    l1_pj: float
    mac_pj: float
    dram_pj: float
    dram_rate: float
    leak_pj: float
    width: dict[str, float]

    @classmethod
    def of(cls, hw: Accelerator, bits: Precision) -> "Machine":
        """Numbers of a concrete design; an L1 that it does not state has no limit."""
        local, shared = local_level(hw), shared_levels(hw)
        beside = local is not None and float(local.instances) >= float(hw.pes)
        read = sum(
            float(min(level.read_bytes_per_cycle, level.shared_bytes_per_cycle)) * float(level.instances)
            for level in shared
        )
        tech, last = hw.technology, shared[-1]
        l1 = float(local.capacity_bytes) if local is not None and beside else math.inf
        at = lambda level: 8 * float(tech.sram_read_pj_per_bit(level.capacity_bytes, level.word_bits))
        return cls(
            pes=int(float(hw.pes)),
            l1_bytes=l1,
            l2_bytes=sum(float(level.capacity_bytes) * float(level.instances) for level in shared),
            read=read,
            l2_pj=at(last),
            l1_pj=at(local) if local is not None and beside else at(last) / 8,
            mac_pj=float(tech.mac_energy_pj(bits.weight, bits.input, bits.psum)),
            dram_pj=8 * float(hw.dram.pj_per_bit),
            dram_rate=float(hw.dram_bytes_per_cycle),
            leak_pj=float(leakage_w(hw) + hw.dram.static_w) / float(hw.freq_hz) * 1e12,
            width={
                "w": float(bits.weight) / 8,
                "i": float(bits.input) / 8,
                "o": float(bits.output) / 8,
                "psum": float(bits.psum) / 8,
            },
        )


@dataclass
class Pool:
    """On-chip candidates, leading axis n. Arrays of seven follow `DIMS`.

    outer_tile, outer_rank: the L2 tile and the order of its loops.  held: what a PE holds.
    cluster: PEs of a cluster.  spread: dimension over clusters and inside one, _NONE for none.
    rank: order of the loops inside an L2 tile.  score: rough, less is better.
    """

    outer_tile: np.ndarray
    outer_rank: np.ndarray
    held: np.ndarray
    cluster: np.ndarray
    spread: np.ndarray
    rank: np.ndarray
    score: np.ndarray

    def take(self, index) -> "Pool":
        return Pool(**{name: value[index] for name, value in vars(self).items()})

    @staticmethod
    def join(pools: list["Pool"]) -> "Pool":
        return Pool(**{name: np.concatenate([vars(one)[name] for one in pools]) for name in vars(pools[0])})


@dataclass(frozen=True)
class OnChip:
    """What `candidates` found: the pool, candidates before and after the rules, what had to give way."""

    pool: Pool
    before: int
    after: int
    relaxed: tuple[str, ...]


def dataflow_tile(layer: Layer, tile: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A tile and an order over `TILE_LOOPS` as over `DIMS` (where c is a depthwise layer's groups)."""
    pick = list(DIMS)
    if float(layer.c) == 1 and float(layer.g) > 1:
        pick[pick.index("c")] = "g"
    index = [TILE_LOOPS.index(d) for d in pick]
    places = np.argsort(np.argsort(rank[index], kind="stable"), kind="stable")
    return tile[index].astype(float), places.astype(float)


def _sizes(extent: int, divisors: bool) -> np.ndarray:
    """Tile sizes that divide; all that split evenly where few divide (an L2 tile may be any number)."""
    even = np.array(sorted({math.ceil(extent / j) for j in range(1, extent + 1)}), float)
    exact = even[extent % even == 0]
    return exact if divisors and len(exact) > 4 else even


def _degrees(extent: float, pes: int) -> np.ndarray:
    """Cluster sizes worth trying: divisors of the PEs, even splits of the dimension inside."""
    most = int(min(extent, pes))
    split = {math.ceil(extent / j) for j in range(1, int(extent) + 1)}
    every = {n for n in range(1, pes + 1) if pes % n == 0} | split
    return np.array(sorted(n for n in every if 2 <= n <= most) or [1], float)


def _orders(extents: np.ndarray, rules) -> np.ndarray:
    """(M, 7) places of the loops inside an L2 tile."""
    if "P2" in rules:
        every = [[one[d] for d in DIMS] for one in TILE_ORDERS.values()]
        return np.argsort(np.argsort(np.array(every), -1), -1).astype(float)
    groups = ["n", "k", "c", "pq", "rs"]
    out = [[("".join(order)).index(d) for d in DIMS] for order in itertools.permutations(groups)]
    return np.array(out, float)


def candidates(
    layer: Layer,
    tile: np.ndarray,
    rank: np.ndarray,
    machine: Machine,
    objective: str,
    *,
    rules: tuple[str, ...],
    u_min: float,
) -> OnChip:
    """All on-chip mappings of one L2 tile under the rules, with a rough score.

    tile, rank: over `DIMS`, shape (7,).  Raises ValueError where L1 is too small for any.
    """
    at = {d: i for i, d in enumerate(DIMS)}
    depthwise = float(layer.c) == 1 and float(layer.g) > 1
    stride = {"p": float(layer.stride_h), "q": float(layer.stride_w)}
    dilation = {"p": float(layer.dilation_h), "q": float(layer.dilation_w)}
    moves = {t: m for t, m in _MOVES.items()} | ({"o": "nkcpq"} if depthwise else {})
    width, pes = machine.width, machine.pes

    def line(d, outputs, of_taps):
        wide = dilation[d] * (of_taps - 1) + 1
        return np.minimum(stride[d], wide) * outputs + np.maximum(wide - stride[d], 0)

    def elements(size):
        """Of a tile by tensor. size: (..., 7)."""
        g = lambda d: size[..., at[d]]
        return {
            "w": g("k") * g("c") * g("r") * g("s"),
            "i": g("n") * g("c") * line("p", g("p"), g("r")) * line("q", g("q"), g("s")),
            "o": g("n") * g("k") * g("p") * g("q") * (g("c") if depthwise else 1),
        }

    extents = np.array(tile, float)
    orders = _orders(extents, rules)
    menus = {d: _sizes(int(extents[at[d]]), "P1" in rules) for d in DIMS}
    for d in "rs":
        if "P6" in rules and extents[at[d]] <= 3:
            menus[d] = extents[at[d]][None]
    live = [i for i in range(len(DIMS)) if extents[i] > 1]
    places = live if "P3" in rules else list(range(len(DIMS)))
    pairs = [(a, b) for a in places for b in [*places, _NONE] if a != b]
    if not pairs or "P3" not in rules:
        pairs.append((_NONE, _NONE))

    parts, before, tight, unused, best_unused = [], 0, math.inf, [], 0.0
    for outer, inner in pairs:
        own = dict(menus)
        for i in (outer, inner):  # a dealt filter dimension goes one row (or column) to a unit
            if i < _NONE and DIMS[i] in "rs" and "P6" in rules:
                own[DIMS[i]] = np.ones(1)
        held = np.stack(np.meshgrid(*[own[d] for d in DIMS], indexing="ij"), -1).reshape(-1, len(DIMS))
        degrees = _degrees(extents[inner], pes) if inner < _NONE else np.ones(1)
        before += len(held) * len(degrees) * len(orders)
        words = elements(held)
        need = 2 * (words["w"] * width["w"] + words["i"] * width["i"] + words["o"] * width["psum"])
        tight = min(tight, float(need.min()))
        held = held[need <= machine.l1_bytes]
        if not len(held):
            continue
        clusters = np.maximum(np.floor(pes / degrees), 1)
        size = np.broadcast_to(held, (len(degrees), *held.shape)).copy()
        pieces = degrees[:, None] + 0 * size[..., 0]
        if inner < _NONE:
            walked = np.minimum(size[..., inner] * degrees[:, None], extents[inner])
            pieces = np.ceil(walked / size[..., inner])
            size[..., inner] = walked
        used = pieces
        if outer < _NONE:
            blocks = np.ceil(extents[outer] / size[..., outer])
            used = used * blocks / np.ceil(blocks / clusters[:, None])
            size[..., outer] = np.minimum(size[..., outer] * clusters[:, None], extents[outer])
        share = used / pes
        busy = share >= u_min if "P4" in rules else share > 0
        # A dimension that is dealt to one unit is not dealt: another pair has that candidate.
        if "P3" in rules:
            if outer < _NONE:
                busy &= held[None, :, outer] < extents[outer]
            if inner < _NONE:
                busy &= (held[None, :, inner] < extents[inner]) & (pieces > 1)
        best_unused = max(best_unused, float(share.max()))
        chosen = np.argwhere(busy)
        if "P4" in rules and not len(parts):
            unused.append((outer, inner, held, degrees, size, share))
        if len(chosen):
            parts.append((outer, inner, held[chosen[:, 1]], degrees[chosen[:, 0]], size[busy], share[busy]))
    if tight > machine.l1_bytes:
        raise ValueError(
            f"no on-chip mapping fits L1: the smallest tiles take {tight:,.0f} bytes, double buffered, "
            f"and a PE has {machine.l1_bytes:,.0f}; give L1 that much, or switch rule P6 off"
        )
    relaxed: tuple[str, ...] = ()
    if not parts:  # P4: as many PEs as can be had
        relaxed = ("P4",)
        for outer, inner, held, degrees, size, share in unused:
            busy = share >= best_unused * 0.5
            chosen = np.argwhere(busy)
            parts.append((outer, inner, held[chosen[:, 1]], degrees[chosen[:, 0]], size[busy], share[busy]))

    tiles = float(np.prod([math.ceil(float(getattr(layer, d)) / extents[at[d]]) for d in "nkpq"]))
    if not depthwise:
        tiles *= math.ceil(float(layer.c) / extents[at["c"]]) * float(layer.g)
    else:
        tiles *= math.ceil(float(layer.g) / extents[at["c"]])
    macs = float(np.prod(extents)) * tiles
    # Latency: the energy decides between equals.
    time_weight, energy_weight = {"edp": (1, 1), "latency": (1, 1e-3), "energy": (0, 1)}[objective]
    constant = macs * (machine.mac_pj + machine.l1_pj * 2)
    pools = []
    for outer, inner, held, degrees, size, _ in parts:
        trips = np.ceil(extents / size)
        words = elements(size)
        cycles = np.prod(trips * held, -1) * tiles
        spread = np.stack([np.full(len(held), outer), np.full(len(held), inner)], -1)
        for order in orders:
            out_of, fills = 0.0, 0.0
            for t in "wio":
                own = [at[d] for d in moves[t]]
                last = np.max(np.where(trips[:, own] > 1, order[own], -1), -1)
                passes = np.prod(trips[:, own], -1)
                rest = [i for i in range(len(DIMS)) if i not in own]
                again = np.prod(np.where(order[rest] < last[:, None], trips[:, rest], 1), -1)
                moved = passes * words[t] * tiles
                out_of = out_of + (
                    moved * again * width[t]
                    if t != "o"
                    else moved * (2 * (again - 1) * width["psum"] + width["o"])
                )
                fills = fills + moved * again * (width["psum"] if t == "o" else width[t])
            time = np.maximum(cycles, out_of / machine.read)
            energy = constant + out_of * machine.l2_pj + fills * machine.l1_pj + time * machine.leak_pj
            score = np.log(time) * time_weight + np.log(energy) * energy_weight
            n = len(held)
            pools.append(
                Pool(
                    np.broadcast_to(extents, (n, 7)),
                    np.broadcast_to(rank, (n, 7)),
                    held,
                    degrees,
                    spread,
                    np.broadcast_to(order, (n, 7)),
                    score,
                )
            )
    pool = Pool.join(pools)
    return OnChip(pool, before, len(pool.score), relaxed)


def to_dataflow(pool: Pool, machine: Machine) -> Dataflow:
    """Candidates as a batch of dataflows, numpy float32: loops over L2 tiles, clusters, PEs."""
    n = len(pool.cluster)
    leaf: Any = lambda values: np.asarray(values, np.float32)
    split: Any = lambda values: {d: leaf(values[:, i]) for i, d in enumerate(DIMS)}
    one_hot = lambda index: (index[:, None] == np.arange(len(DIMS))).astype(float)
    outer, inner = one_hot(pool.spread[:, 0]), one_hot(pool.spread[:, 1])
    walked = pool.held * np.where(inner > 0, pool.cluster[:, None], 1)
    clusters = np.maximum(np.floor(machine.pes / pool.cluster), 1)
    level = lambda tile, spatial, rank, units: ClusterLevel(
        tile=split(tile), offset=split(tile), rank=split(rank), spatial=split(spatial), units=leaf(units)
    )
    none = np.zeros((n, len(DIMS)))
    return Dataflow(
        levels=(
            level(pool.outer_tile, none, pool.outer_rank, np.zeros(n)),
            level(np.minimum(walked, pool.outer_tile), outer, pool.rank, clusters),
            level(pool.held, inner, pool.rank, pool.cluster),
        )
    )


@jax.jit
def costs(layer, hw, precision, flows):
    """`Cost` of each dataflow, leaves (n,)."""
    return jax.vmap(lambda flow: dataflow.layer(layer, hw, flow, precision))(flows)


@jax.jit
def _scores(layer, hw, precision, flows):
    """Log cycles, log energy, violation of each."""

    def one(flow):
        cost = dataflow.layer(layer, hw, flow, precision)
        return log(cost.cycles), log(cost.energy_pj), cost.violation

    return jax.vmap(one)(flows)


def evaluate(layer, hw, precision, pool: Pool, machine: Machine, objective: str) -> np.ndarray:
    """Log objective of each candidate under `models.dataflow`, 100 or more if it does not fit."""
    out = []
    for start in range(0, len(pool.score), CHUNK):
        part = pool.take(slice(start, start + CHUNK))
        n = len(part.score)
        if n < CHUNK:
            part = part.take(np.concatenate([np.arange(n), np.zeros(CHUNK - n, int)]))
        flows = jax.tree.map(jnp.asarray, to_dataflow(part, machine))
        cycles, energy, violation = (np.asarray(leaf)[:n] for leaf in _scores(layer, hw, precision, flows))
        value = {"edp": cycles + energy, "latency": cycles, "energy": energy}[objective]
        out.append(value + np.where(violation > 0, 100 + np.log1p(np.maximum(violation, 0)), 0.0))
    return np.concatenate(out)
