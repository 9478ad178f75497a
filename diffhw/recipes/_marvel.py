"""Marvel: the best mapping of a layer, off-chip choices first, on-chip choices within them.

Moving data off chip costs hundreds of times what it costs on chip, so the two are decided one after
the other: L2 tiles, the order of their loops and the layouts by the distinct-block model (what moves
between DRAM and L2), then PE tiles, order, spread dimensions and degree of parallelism by the dataflow
model (runtime, energy). A product of two spaces becomes a sum.

Source: decoupling, the two models and the spaces are those of Marvel's abstract (Chatarasi et al., arXiv
2002.07752). The list of pruning rules is our reconstruction, not the paper's:

- P1 tiles divide the loops;
- P2 one order per tensor that stays in place (3 of all permutations);
- P3 one or two spread dimensions, none of one trip;
- P4 at least ``u_min`` of the PEs at work (gives way where no mapping reaches it);
- P5 L2 tiles take at least ``f_min`` of the room (or of the layer, if that is smaller);
- P6 filter rows and columns stay whole up to 3;
- P7 layouts with at least a block of elements in their contiguous dimension.

What each costs is measured by ``benchmarks/marvel.py`` and held by the tests. Off chip P1, P5, P6 and P7
can lose (P7 by far the most: a tile that takes short dimensions whole moves them in one run), and there
is time for all tiles without them; so by default only P2, which cannot lose, applies there.
"""

import difflib
import functools
import time
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from diffhw import hardware
from diffhw.hardware import Accelerator
from diffhw.mappings import Dataflow, Precision, fit, style
from diffhw.models import Cost
from diffhw.models._locality import TENSOR_LAYOUTS, TILE_LOOPS, Locality, locality
from diffhw.recipes._marvel_off_chip import OffChip, off_chip
from diffhw.recipes._marvel_on_chip import (
    CHUNK,
    Machine,
    OnChip,
    Pool,
    candidates,
    costs,
    dataflow_tile,
    evaluate,
    to_dataflow,
)
from diffhw.recipes._marvel_result import MarvelResult, MarvelSpace, marvel_space
from diffhw.workloads import Layer

__all__ = [
    "MARVEL_RULES",
    "MARVEL_STYLES",
    "MarvelResult",
    "MarvelSpace",
    "marvel",
    "marvel_joint",
    "marvel_platform",
    "marvel_space",
    "marvel_styles",
]

MARVEL_RULES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7")
MARVEL_STYLES = {"nvdla": "kcp_ws", "row stationary": "yrp_rs", "shidiannao": "yxp_os"}
"""The three fixed dataflows that Marvel is compared with, by their names in `mappings.STYLES`."""

OFF_CHIP_RULES = ("P2",)
ON_CHIP_RULES = ("P1", "P2", "P3", "P4", "P6")
_OBJECTIVES = ("edp", "latency", "energy")
_FINAL = 16  # candidates costed again in float64


def marvel_platform(name: str) -> Accelerator:
    """The two machines of the comparison: "p1" (edge) or "p2".

    p1: 168 PEs, 512 B beside each, 108 KB shared, as GAMMA's edge platform (read); p2: 1,024 PEs, 512 B,
    2 MiB (recalled as "1 to 8 MB"; 2 is ours). Ours besides: 64 and 256 bytes a cycle into and out of
    L2, LPDDR4, 22 nm, 1 GHz, operands of 8 and sums of 32 bits. Raises ValueError for another name.
    """
    shapes = {"p1": (12, 14, 108_000, 64), "p2": (32, 32, 2 * 2**20, 256)}
    if name not in shapes:
        raise ValueError(f"platform must be one of {', '.join(shapes)}, got {name!r}")
    rows, cols, shared, width = shapes[name]
    local = hardware.Level.create(name="l1", capacity_bytes=512, word_bits=8, instances=rows * cols)
    buffer = hardware.Level.create(
        name="l2", capacity_bytes=shared, read_bytes_per_cycle=width, write_bytes_per_cycle=width
    )
    return Accelerator.create(rows=rows, cols=cols, levels=(local, buffer), dram=hardware.dram("LPDDR4"))


@dataclass(frozen=True)
class _Task:
    """One layer on one machine, everything concrete and checked."""

    layer: Layer
    hw: Accelerator
    bits: Precision
    machine: Machine
    objective: str
    rules: tuple[tuple[str, ...], tuple[str, ...]]  # off chip, on chip
    block: int
    double_buffered: bool
    start: float

    @classmethod
    def create(cls, layer, hw, precision, objective, rules, block, double_buffered) -> "_Task":
        start = time.perf_counter()
        if objective not in _OBJECTIVES:
            raise ValueError(f"objective must be edp, latency or energy, got {objective!r}")
        if int(block) != block or block < 1:
            raise ValueError(f"block must be a whole number of elements, at least 1, got {block!r}")
        if rules is None:
            pair = OFF_CHIP_RULES, ON_CHIP_RULES
        else:
            rules = (rules,) if isinstance(rules, str) else tuple(rules)
            pair = rules, rules
        for rule in rules or ():
            if rule not in MARVEL_RULES:
                near = difflib.get_close_matches(str(rule).upper(), MARVEL_RULES, 1, 0.0)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"rules are {', '.join(MARVEL_RULES)}; got {rule!r}{hint}")
        layer, hw, bits = _concrete(layer, hw, precision)
        machine = Machine.of(hw, bits)
        return cls(layer, hw, bits, machine, objective, pair, int(block), double_buffered, start)

    def off_chip(self, **options) -> OffChip:
        machine = self.machine
        return off_chip(
            self.layer,
            machine.l2_bytes,
            self.block,
            machine.width,
            double_buffered=self.double_buffered,
            rules=self.rules[0],
            **options,
        )

    def on_chip(self, tile, rank, u_min: float) -> OnChip:
        return candidates(
            self.layer, tile, rank, self.machine, self.objective, rules=self.rules[1], u_min=u_min
        )

    def scores(self, pool: Pool) -> np.ndarray:
        return evaluate(self.layer, self.hw, self.bits, pool, self.machine, self.objective)

    def result(self, found: OffChip, pool: Pool, owner, scores, relaxed, on_chip: int, evaluated: int):
        """The best candidate, costed in float64. owner: place of each candidate's L2 tile."""
        best = np.argsort(scores, kind="stable")[:_FINAL]
        best = np.concatenate([best, np.repeat(best[:1], _FINAL - len(best))])
        flows = to_dataflow(pool.take(best), self.machine)
        each = _exact(self.layer, self.hw, self.bits, flows)
        value = np.where(each.feasible > 0, _value(each, self.objective), np.inf)
        at = int(np.argmin(value))
        if not np.isfinite(value[at]):
            raise ValueError(
                f"no on-chip mapping of the L2 tiles tried is feasible under models.dataflow; the nearest "
                f"exceeds a buffer or the array by {100 * float(np.min(each.violation)):.1f} %"
            )
        place = int(owner[best[at]])
        layouts = {t: names[place] for t, names in found.layouts.items()}
        tile, rank = found.tiles[place], found.order[place]
        moving = [i for i, d in enumerate(TILE_LOOPS) if tile[i] < float(getattr(self.layer, d))]
        full, even = marvel_space(self.layer, self.machine.pes)
        flow, cost = jax.tree.map(lambda leaf: leaf[at], (flows, each))
        return MarvelResult(
            layer=self.layer,
            objective=self.objective,
            tile={d: int(x) for d, x in zip(TILE_LOOPS, tile)},
            order=tuple(TILE_LOOPS[i] for i in sorted(moving, key=lambda i: rank[i])),
            layouts=layouts,
            locality=self.movement(tile, rank, layouts),
            least_movement=float(found.movement[0]),
            dataflow=flow,
            cost=cost,
            value=float(value[at]),
            space=MarvelSpace(full, even, found.mappings, on_chip, found.tile_counts, evaluated),
            rules=self.rules,
            relaxed=tuple(sorted(relaxed)),
            seconds=time.perf_counter() - self.start,
        )

    def movement(self, tile, rank, layouts) -> Locality:
        """In float64. Layouts as weights: as static names each combination would compile anew."""
        by_loop = lambda row: {d: float(x) for d, x in zip(TILE_LOOPS, row)}
        one_hot = {t: [float(x == layouts[t]) for x in TENSOR_LAYOUTS[t]] for t in TENSOR_LAYOUTS}
        numbers = (self.layer, by_loop(tile), by_loop(rank), float(self.block), self.machine.l2_bytes)
        with jax.enable_x64(True):
            weights = {t: jnp.asarray(row, jnp.float64) for t, row in one_hot.items()}
            width = _double(self.machine.width)
            found = _movement(*_double(numbers), width, weights, self.double_buffered)
            return jax.tree.map(np.asarray, found)


def _concrete(layer: Layer, hw, precision) -> tuple[Layer, Accelerator, Precision]:
    if isinstance(hw, str):
        hw = marvel_platform(hw) if hw in ("p1", "p2") else hardware.load(hw)
    if np.shape(layer.k) != ():
        raise ValueError(
            f"one layer has leaves of shape (), got {np.shape(layer.k)}: map its rows one by one"
        )
    # Level names are static: without them designs of one structure share compiled code.
    hw = replace(hw, levels=tuple(replace(level, name="") for level in hw.levels))
    bits = Precision.of(hw) if precision is None else precision
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), (layer, hw, bits))


def _double(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)


def _value(cost: Cost, objective: str):
    return {"edp": cost.edp, "latency": cost.latency_s, "energy": cost.energy_pj * 1e-12}[objective]


def _exact(layer, hw, bits, flows: Dataflow) -> Cost:
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, costs(*_double((layer, hw, bits, flows))))


@functools.partial(jax.jit, static_argnames="double_buffered")
def _movement(layer, tile, order, block, capacity, width, layouts, double_buffered):
    return locality(
        layer,
        tile,
        order,
        layouts,
        block=block,
        capacity_words=capacity,
        double_buffered=double_buffered,
        width=width,
    )


def _spread_out(pool: Pool, budget: int, key) -> Pool:
    """The foremost by the rough score, an eighth of the budget drawn from the rest."""
    if len(pool.score) <= budget:
        return pool
    first = budget - budget // 8
    order = np.argpartition(pool.score, first)
    key = jax.random.key(0) if key is None else key
    rest = order[first:]
    seed = np.asarray(jax.random.key_data(key)).tolist()
    more = np.random.default_rng(seed).choice(len(rest), budget - first, replace=False)
    return pool.take(np.concatenate([order[:first], rest[more]]))


def marvel(
    layer: Layer,
    hw: Accelerator | str,
    key=None,
    *,
    objective: str = "edp",
    rules: tuple[str, ...] | None = None,
    block: int = 64,
    precision: Precision | None = None,
    double_buffered: bool = True,
    u_min: float = 0.5,
    f_min: float = 0.25,
    keep: int = 4,
    slack: float = 0.5,
    budget: int = 65536,
) -> MarvelResult:
    """The best mapping of one layer: L2 tile, order and layouts first, what is on chip within them.

    layer, hw: concrete, leaves (); hw also "p1", "p2" (`marvel_platform`), a catalogue name or a file.
    key:       draws candidates where the on-chip space exceeds the budget; default: seed 0.
    objective: "edp", "latency" or "energy", of the on-chip part; off chip it is always the bytes moved.
    rules:     of `MARVEL_RULES`, those to apply off chip and on chip. Default: P2 off chip (all tile sizes up
               to a million tiles, above that all that split evenly), P1 to P4 and P6 on chip.
    block:     elements of a DRAM transfer (64: assumed).
    double_buffered: a second set of tiles arrives in L2 while one is worked on.
    keep:      L2 tiles handed on: 1 is strict decoupling; more adds tiles of more work each that move at
               most ``slack`` more (a tile of least movement may leave the array too little to do).
    budget:    on-chip mappings costed; the off-chip part is enumerated in full.

    Raises ValueError that names what binds: no L2 tile fits (P5), no PE tile fits L1, a rule unknown.
    """
    task = _Task.create(layer, hw, precision, objective, rules, block, double_buffered)
    found = task.off_chip(f_min=f_min, keep=keep, slack=slack)
    pools, owners, relaxed, after = [], [], set(), 0
    for i in range(len(found.tiles)):
        part = task.on_chip(*dataflow_tile(task.layer, found.tiles[i], found.order[i]), u_min)
        pools.append(_spread_out(part.pool, budget // len(found.tiles), key))
        owners.append(np.full(len(pools[-1].score), i))
        relaxed |= set(part.relaxed)
        after += part.after
    pool, owner = Pool.join(pools), np.concatenate(owners)
    scores = task.scores(pool)
    return task.result(found, pool, owner, scores, relaxed, after, len(scores))


def marvel_joint(
    layer: Layer,
    hw: Accelerator | str,
    key=None,
    *,
    objective: str = "edp",
    rules: tuple[str, ...] | None = ("P1", "P2", "P3", "P6"),
    block: int = 64,
    precision: Precision | None = None,
    double_buffered: bool = True,
    per_tile: int = 4096,
    limit: int = 20_000_000,
) -> MarvelResult:
    """The same choice not decoupled: every L2 tile that fits, under every order, with its own on-chip part.

    For small layers: what `marvel` loses by deciding the tile first is measured against this.
    per_tile: on-chip mappings costed for each tile and order, the foremost by a rough score (all, if there
    are no more). limit: ValueError above so many. Other arguments as `marvel`.
    """
    task = _Task.create(layer, hw, precision, objective, rules, block, double_buffered)
    found = task.off_chip(f_min=0.0, keep=1, every_order=True)
    if len(found.tiles) * per_tile > limit:
        raise ValueError(
            f"{len(found.tiles):,} tiles and orders with {per_tile:,} on-chip mappings each exceed the limit "
            f"of {limit:,}: take a smaller layer or lower per_tile"
        )
    made: dict = {}
    best, waiting, after, evaluated = [], [], 0, 0
    for i in range(len(found.tiles)):
        tile, rank = dataflow_tile(task.layer, found.tiles[i], found.order[i])
        if tuple(tile) not in made:  # its orders share it
            part = task.on_chip(tile, rank, 0.0)
            made = {tuple(tile): (_spread_out(part.pool, per_tile, key), part.after)}
        pool, count = made[tuple(tile)]
        after += count
        waiting.append((replace(pool, outer_rank=np.broadcast_to(rank, pool.outer_rank.shape)), i))
        if sum(len(pool.score) for pool, _ in waiting) < 16 * CHUNK and i + 1 < len(found.tiles):
            continue
        batch = Pool.join([pool for pool, _ in waiting])
        owner = np.concatenate([np.full(len(pool.score), place) for pool, place in waiting])
        waiting = []
        scores = task.scores(batch)
        evaluated += len(scores)
        first = np.argsort(scores, kind="stable")[:_FINAL]
        best.append((batch.take(first), owner[first], scores[first]))
    pool = Pool.join([one[0] for one in best])
    owner, scores = (np.concatenate([one[j] for one in best]) for j in (1, 2))
    return task.result(found, pool, owner, scores, (), after, evaluated)


def marvel_styles(
    layer: Layer, hw: Accelerator | str, precision: Precision | None = None
) -> dict[str, Cost | None]:
    """`Cost` (float64, numpy) of the three fixed dataflows of `MARVEL_STYLES` on one layer.

    None where one cannot be written for the layer (more filter rows than PEs). Not all need be feasible.
    """
    layer, hw, bits = _concrete(layer, hw, precision)
    pes = int(float(hw.pes))
    flows = {}
    for title, name in MARVEL_STYLES.items():
        try:
            flows[title] = fit(style(name, layer, pes), layer, pes)
        except ValueError:
            flows[title] = None
    known = [flow for flow in flows.values() if flow is not None]
    if not known:
        return dict.fromkeys(flows)
    rows = known + [known[0]] * (_FINAL - len(known))
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *rows)
    each, at, out = _exact(layer, hw, bits, stacked), 0, {}
    for title, flow in flows.items():
        out[title] = None if flow is None else jax.tree.map(lambda leaf, at=at: leaf[at], each)
        at += flow is not None
    return out
