"""A dataflow for reading: what is reused where, and its loops as text. The drawing is `_dataflow_picture`."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.mappings import DIMS, LEVELS
from diffhw.models import dataflow_requirements, nest_of
from diffhw.models._show import quantity
from diffhw.report._grid import Table, column

__all__ = ["HostNest", "host_nest", "loop_nest", "reuse_table"]

TENSORS = ("input", "weight", "output")
WIDTH = 80


@jax.jit
def _requirements(layer, hw, mapping, precision):
    return dataflow_requirements(layer, hw, mapping, precision)


def _double(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)


def _check_scalar(layer, dataflow) -> None:
    for what, leaf in (("layer", layer.k), ("dataflow", dataflow.levels[0].units)):
        if np.ndim(leaf) != 0:
            raise ValueError(
                f"a report shows one layer and its dataflow, got a {what} of shape {np.shape(leaf)}; take "
                "one row: jax.tree.map(lambda leaf: leaf[i], ...)"
            )


def reuse_table(layer, hw, dataflow, precision=None) -> Table:
    """What a dataflow moves and needs, per tensor: from L2 to the PEs, into their L1s, and the room for it.

    layer: concrete `Layer`, leaves ().  dataflow: `Dataflow`, leaves ().  precision: default the datapath's.
    "PEs per L2 access": receivers of one read (multicast), or PEs whose sums are added up on the way to one
    write (spatial reduction). Notes below say what buffers and network must offer, beside what is there.
    Raises ValueError for a batch.
    """
    _check_scalar(layer, dataflow)
    hw = replace(hw, levels=tuple(replace(level, name="") for level in hw.levels))
    with jax.enable_x64(True):
        need = _requirements(
            *_double((layer, hw, dataflow)), None if precision is None else _double(precision)
        )
        need = jax.tree.map(float, need)
    get = lambda part: [part[t] for t in TENSORS]
    reads = [need.l2_reads[t] + need.l2_writes[t] for t in TENSORS]
    fills = [need.l1_fills[t] + need.l1_drains[t] for t in TENSORS]
    per = lambda top, bottom: top / bottom if bottom else float("inf")
    shared = [
        per(need.l1_fills["input"], need.l2_reads["input"]),
        per(need.l1_fills["weight"], need.l2_reads["weight"]),
        per(need.l1_drains["output"], need.l2_writes["output"]),
    ]
    columns = [
        ("tensor", list(TENSORS)),
        ("unique elements", _counts(get(need.unique))),
        ("L2 reads (elements)", _counts(get(need.l2_reads))),
        ("L2 writes (elements)", _counts(get(need.l2_writes))),
        ("into L1 (elements)", _counts(get(need.l1_fills))),
        ("out of L1 (elements)", _counts(get(need.l1_drains))),
        column("MACs per L2 access", [per(need.macs, n) for n in reads], ""),
        column("MACs per L1 transfer", [per(need.macs, n) for n in fills], ""),
        column("PEs per L2 access", shared, ""),
        column("tile of a PE (elements)", get(need.tile), ""),
        column("L1 for it (B)", get(need.l1_bytes), ""),
    ]
    l1 = sum(need.l1_bytes.values())
    has = "no such level: sized to that"
    if need.l1_capacity_bytes:
        kept = need.l1_kept_bytes
        has = f"{quantity(kept, 'B')} of it in a level, {_of(kept, need.l1_capacity_bytes)}"
    fits = need.l2_bytes <= need.l2_capacity_bytes
    used = f"; {quantity(need.l2_held_bytes, 'B')} used for the least DRAM traffic" if fits else ""
    notes = (
        f"L1 of a PE: {quantity(l1, 'B')} needed (two tiles of each tensor), {has}",
        f"L2: {quantity(need.l2_bytes, 'B')} needed at least, "
        f"{_of(need.l2_bytes, need.l2_capacity_bytes)}{used}",
        f"network: {quantity(need.noc_average, 'B')}/cycle on average, {quantity(need.noc_peak, 'B')}/cycle "
        "on the loop that wants most, for PEs that never wait",
    )
    title = f"reuse: {quantity(need.macs, 'MACs')} in {_count(need.steps)} steps"
    return Table.of_columns(title, columns, notes=notes)


def _count(value: float) -> str:
    """``1.606 M``."""
    return quantity(value, "MACs").removesuffix("MACs").strip()


def _counts(values) -> list[str]:
    return [_count(value) for value in values]


def _of(need: float, have: float) -> str:
    return f"{quantity(have, 'B')} there" + ("" if need <= have else ", TOO SMALL")


@dataclass(frozen=True)
class HostNest:
    """`models.nest_of` in whole numbers.

    dealt: units that a loop is spread over, per level.  order: dimensions of each level, outermost first.
    """

    extents: dict[str, int]
    tiles: list[dict[str, int]]
    dealt: list[dict[str, int]]
    units: list[int]
    order: list[list[str]]
    depthwise: bool
    repeats: int

    def parent(self, level: int, dim: str) -> int:
        """What a level gets of a dimension."""
        return self.tiles[level - 1][dim] if level else self.extents[dim]

    def pieces(self, level: int, dim: str) -> int:
        """Tiles of what the level gets."""
        return -(-self.parent(level, dim) // self.tiles[level][dim])

    def trips(self, level: int, dim: str) -> int:
        """Iterations of the loop over a full parent."""
        return -(-self.pieces(level, dim) // self.dealt[level][dim])


def host_nest(layer, hw, dataflow) -> HostNest:
    """The loops of a concrete layer. Raises ValueError for batches and tiles that are no whole numbers."""
    _check_scalar(layer, dataflow)
    with jax.enable_x64(True):
        nest = nest_of(*_double((layer, dataflow)), jnp.asarray(float(np.asarray(hw.pes)), jnp.float64))

    def whole(value, what: str) -> int:
        number = float(np.asarray(value))
        if not number.is_integer():
            raise ValueError(f"{what} must be a whole number, got {number:g}; harden the dataflow first")
        return int(number)

    by_level = lambda part, what: [
        {d: whole(part[d][level], f"{what} of {d}, level {level + 1},") for d in DIMS}
        for level in range(LEVELS)
    ]
    return HostNest(
        extents={d: whole(nest.extents[d], f"extent of {d}") for d in DIMS},
        tiles=by_level(nest.tiles, "tile"),
        dealt=by_level(nest.units, "units"),
        units=[whole(n, "units of a level") for n in nest.level_units],
        order=[
            sorted(DIMS, key=lambda d, one=one: float(np.asarray(one.rank[d]))) for one in dataflow.levels
        ],
        depthwise=float(nest.depthwise) > 0,
        repeats=whole(nest.repeats, "groups"),
    )


def unit_words(nest: HostNest) -> list[str]:
    """What a unit of each level is: the innermost level with several is of PEs."""
    last = max((i for i in range(LEVELS) if nest.units[i] > 1), default=0)
    middle = "sub-clusters" if last > 1 else "PEs"
    return ["PEs" if last == 0 else "clusters", middle, "PEs"]


def loop_nest(layer, hw, dataflow) -> str:
    """The loops as text, at most 80 columns: level by level those with more than one trip or dealt to units.

    Ranges of an inner level are inside the tile that the level above hands down. A loop that is dealt out
    steps over what all units take together. layer, dataflow: leaves (). Raises ValueError for a batch or
    tiles that are no whole numbers.
    """
    nest = host_nest(layer, hw, dataflow)
    words = unit_words(nest)
    lines, depth = [_sizes("layer", nest.extents)], 0
    if nest.repeats > 1:
        lines.append(f"for group in 0..{nest.repeats - 1}, one after the other")
        depth = 1
    for level in range(LEVELS):
        loops = [d for d in nest.order[level] if nest.pieces(level, d) > 1]
        if nest.units[level] == 1 and not loops:
            continue
        lines.append("  " * depth + f"-- level {level + 1}: {nest.units[level]} {words[level]}")
        for d in loops:
            parent, tile, dealt = nest.parent(level, d), nest.tiles[level][d], nest.dealt[level][d]
            if dealt > 1:
                busy = min(dealt, nest.pieces(level, d))
                share = "1 each" if tile == 1 else f"{tile} each"
                some = f"{busy}" if busy == dealt else f"{busy} of {dealt}"
                text = f"step {tile * busy} (spatial over {some} {words[level]}, {share})"
            else:
                text = f"step {tile}"
            if nest.trips(level, d) == 1:
                lines.append(
                    "  " * depth + f"all {d} in 0..{parent - 1} at once: {text.partition(' (')[2][:-1]}"
                )
            else:
                lines.append("  " * depth + f"for {d} in 0..{parent - 1} {text}")
                depth += 1
        dealt_out = any(nest.dealt[level][d] > 1 and nest.pieces(level, d) > 1 for d in DIMS)
        if nest.units[level] > 1 and not dealt_out:
            lines.append(
                "  " * depth + f"(nothing is dealt out: 1 of {nest.units[level]} {words[level]} works)"
            )
    tile = nest.tiles[-1]
    macs = int(np.prod([tile[d] for d in DIMS]))
    lines.append("  " * depth + _sizes("a PE", tile) + f": {macs} MAC" + ("" if macs == 1 else "s"))
    return "\n".join(line if len(line) <= WIDTH else _squeezed(line) for line in lines)


def _sizes(what: str, sizes: dict[str, int]) -> str:
    shown = [f"{d} {n}" for d, n in sizes.items() if n > 1] or ["one of each"]
    return f"{what}: {', '.join(shown)}"


def _squeezed(line: str) -> str:
    """A line that is too deep: its indent is cut."""
    text = line.lstrip()
    return " " * max(WIDTH - len(text), 0) + text
