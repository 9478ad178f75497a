"""ZigZag's counts, energy and ideal cycles of one mapping, on the host, in exact fractions.

The rules, found from its output and checked on every row of it that we have:

- *Every operand has its own chain* of memories and its own cuts of the one loop order, so "uneven"
  mappings need no rule of their own. A spatial loop stands at the place in each chain where the copies
  of the memory inside it begin.
- *A tile* is what the loops at and inside a memory index. Along a sliding axis (IX = s OX + d FX) it is
  the number of *different* positions, at most the input extent without padding. The whole is rounded to
  the nearest element (half to even).
- *Transfers* of a tile into the memory inside: the loops from there outwards, without the leading
  ones that do not index the operand. Every new tile is loaded whole: overlapping windows share nothing,
  neither in time nor between neighbours in space. This holds also between the innermost memory and the
  MACs, so a weight that stays is read once; not for outputs, which are read and written every cycle.
- *Multicast and reduction*: the memory outside a spatial loop moves one tile per indexing instance (their
  number rounded), each instance inside moves its own (all of them, rounded).
- *Outputs* have the width of a finished one where no reduction is left outside, else that of a partial
  sum, and then come back as often as they go out: the first visit is not spared.
- *Words*: a transfer takes whole accesses of the narrowest width of the port, and is charged as that
  share of the widest. The sum is rounded down.
- *Fractional unrolling*: 1000 over 32 steps is 31.25 wide. Sizes of the loops on a sliding axis are
  rounded down first.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

__all__ = ["DIRECTIONS", "Sliding", "ZigzagAnswer", "ZigzagMemory", "ZigzagRun", "distinct", "zigzag_replay"]

DIRECTIONS = ("rd_out_to_low", "wr_in_by_low", "rd_out_to_high", "wr_in_by_high")
"""Read for the level inside; written from it; read for the level outside; written from it."""


class Sliding(NamedTuple):
    """IX = stride OX + dilation FX: an axis of the input."""

    axis: str
    stride: int
    slide: str
    dilation: int
    taps: str


@dataclass(frozen=True)
class ZigzagMemory:
    """One memory of an operand's chain.

    bits: capacity.  read_pj, write_pj: per access of the widest width.  port: per direction, the narrowest
    and widest width in bits, absent where there is no such port.
    read_bits, write_bits, shared_bits: per cycle, all ports that only read, only write, do both; of no use
    for the counts.
    """

    name: str
    bits: int
    read_pj: float
    write_pj: float
    port: dict[str, tuple[int, int]]
    read_bits: int = 0
    write_bits: int = 0
    shared_bits: int = 0


@dataclass(frozen=True)
class ZigzagRun:
    """One layer under one mapping.

    sizes:     loop -> size.  indexes: operand -> loops that index it, sliding ones included.
    sliding:   axes of the input; ``data`` is the operand that they belong to.
    extents:   axis -> size of the stored input; absent: as large as the loops reach.
    output:    name of the output operand.
    bits:      operand -> width; of the output: of a partial sum.  final_bits: of a finished output.
    memories:  operand -> its chain, innermost first.
    temporal:  operand -> per memory [(loop, size)], innermost loop first.
    spatial:   operand -> per place, from the MACs to the outermost memory, the loops unrolled there.
    unroll:    loop -> spatial factor; a loop left out is not unrolled.
    units:     MAC units.  mac_pj: of one.
    """

    sizes: dict[str, int]
    indexes: dict[str, frozenset[str]]
    sliding: tuple[Sliding, ...]
    data: str
    extents: dict[str, int]
    output: str
    bits: dict[str, int]
    final_bits: int
    memories: dict[str, tuple[ZigzagMemory, ...]]
    temporal: dict[str, list[list[tuple[str, int]]]]
    spatial: dict[str, list[list[str]]]
    unroll: dict[str, Fraction]
    units: int
    mac_pj: float

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return math.prod(self.sizes.values())

    def slides(self, operand: str) -> tuple[Sliding, ...]:
        """Sliding axes of an operand."""
        return self.sliding if operand == self.data else ()

    def tile(self, operand: str, level: int) -> int:
        """Elements held by one instance of memory ``level``; -1: one MAC's."""
        if level < 0:
            return 1
        factors: dict[str, Fraction] = defaultdict(lambda: Fraction(1))
        for place in range(level + 1):
            for loop, size in self.temporal[operand][place]:
                factors[loop] *= size
            for loop in self.spatial[operand][place]:
                factors[loop] *= self.unroll.get(loop, 1)
        if level == len(self.memories[operand]) - 1:
            factors.update((loop, Fraction(size)) for loop, size in self.sizes.items())
        return self.elements(operand, factors)

    def elements(self, operand: str, factors: dict[str, Fraction]) -> int:
        """Elements under a tile of the given loop sizes."""
        slides = self.slides(operand)
        plain = self.indexes[operand] - {loop for one in slides for loop in (one.slide, one.taps)}
        count = Fraction(math.prod(factors[loop] for loop in plain))
        for one in slides:
            reach = distinct(
                one.stride, math.floor(factors[one.slide]), one.dilation, math.floor(factors[one.taps])
            )
            count *= min(reach, self.extents.get(one.axis, reach))
        return round(count)

    def transfers(self, operand: str, level: int) -> tuple[int, int]:
        """How often the tile below memory ``level`` changes, and how often the same one comes again."""
        above = [loop for place in self.temporal[operand][level:] for loop in place]
        indexing = self.indexes[operand]
        while above and above[0][0] not in indexing:
            above.pop(0)
        again = math.prod(size for loop, size in above if loop not in indexing)
        return math.prod(size for _, size in above), again

    def finished(self, level: int) -> bool:
        """Whether memory ``level`` of the output holds finished ones: no reduction is left outside."""
        later = {loop for place in self.temporal[self.output][level + 1 :] for loop, _ in place}
        return later <= self.indexes[self.output]

    def copies(self, operand: str, place: int, indexing_only: bool = False) -> int:
        """Instances: unrolled at ``place``, or from there on outwards if not only those that index."""
        loops = (
            [loop for loop in self.spatial[operand][place] if loop in self.indexes[operand]]
            if indexing_only
            else [loop for later in self.spatial[operand][place:] for loop in later]
        )
        return round(Fraction(math.prod(self.unroll.get(loop, Fraction(1)) for loop in loops)))


@dataclass
class ZigzagAnswer:
    """What ZigZag reports of a run, by our rules.

    memories:   operand -> names of its chain, innermost first.
    accesses:   operand -> per memory, direction -> accesses of the widest width.
    moved:      the same in elements, before widths and rounding.
    mem_energy_per_level: operand -> per memory, pJ.  mac_energy_pj, mem_energy_pj, energy_pj: pJ.
    ideal_cycle: MACs over units, rounded up.  ideal_temporal_cycle: product of the temporal loops.
    mac_spatial_utilization: of the two.
    mem_utilization: operand -> per memory, share of its capacity in use, by all operands in it.
    """

    memories: dict[str, tuple[str, ...]]
    accesses: dict[str, list[dict[str, int]]]
    moved: dict[str, list[dict[str, int]]]
    mem_energy_per_level: dict[str, list[float]]
    mac_energy_pj: float
    ideal_cycle: int
    ideal_temporal_cycle: int
    mem_utilization: dict[str, list[float]]

    @property
    def mem_energy_pj(self) -> float:
        """Of all memories."""
        return sum(sum(levels) for levels in self.mem_energy_per_level.values())

    @property
    def energy_pj(self) -> float:
        """Memories and MACs; no leakage, no network on chip."""
        return self.mac_energy_pj + self.mem_energy_pj

    @property
    def mac_spatial_utilization(self) -> float:
        """Share of the MAC units at work."""
        return self.ideal_cycle / self.ideal_temporal_cycle


def distinct(step: int, count: int, other: int, taps: int) -> int:
    """Different values of step x + other f for x < count, f < taps.

    >>> distinct(1, 4, 1, 3), distinct(2, 4, 1, 3), distinct(2, 4, 1, 1)
    (6, 9, 4)
    """
    g = math.gcd(step, other)
    return count * taps - max(0, count - other // g) * max(0, taps - step // g)


def zigzag_replay(run: ZigzagRun) -> ZigzagAnswer:
    """The tool's answer to ``run``; see the rules at the top of this module."""
    accesses, moved, energy = {}, {}, {}
    for operand, chain in run.memories.items():
        accesses[operand] = [dict.fromkeys(DIRECTIONS, 0) for _ in chain]
        moved[operand] = [dict.fromkeys(DIRECTIONS, 0) for _ in chain]
        for level in range(len(chain)):
            _boundary(run, operand, level, accesses[operand], moved[operand])
        energy[operand] = [
            (words["rd_out_to_low"] + words["rd_out_to_high"]) * memory.read_pj
            + (words["wr_in_by_low"] + words["wr_in_by_high"]) * memory.write_pj
            for memory, words in zip(chain, accesses[operand], strict=True)
        ]
    first = next(iter(run.temporal.values()))
    return ZigzagAnswer(
        memories={operand: tuple(one.name for one in chain) for operand, chain in run.memories.items()},
        accesses=accesses,
        moved=moved,
        mem_energy_per_level=energy,
        mac_energy_pj=run.macs * run.mac_pj,
        ideal_cycle=-(-run.macs // run.units),
        ideal_temporal_cycle=math.prod(size for place in first for _, size in place),
        mem_utilization=_utilization(run),
    )


def _boundary(run: ZigzagRun, operand: str, level: int, words: list[dict], moved: list[dict]) -> None:
    """Enter what passes between memory ``level`` and the one inside it (or the MACs)."""
    output, at_macs = operand == run.output, level == 0
    visits, again = run.transfers(operand, level)
    bits, back = run.bits[operand], output
    if output and at_macs:
        visits = math.prod(size for place in run.temporal[operand] for _, size in place)
    elif output:
        back = again > 1
        bits = bits if back else run.final_bits
    tile = run.tile(operand, level - 1)
    outside, copies = tile * run.copies(operand, level, indexing_only=True), run.copies(operand, level + 1)
    down = not output or back
    passing = [(level, "rd_out_to_low", outside, copies)] * down
    passing += [(level, "wr_in_by_low", outside, copies)] * output
    if not at_macs:
        inner = run.copies(operand, level)
        passing += [(level - 1, "wr_in_by_high", tile, inner)] * down
        passing += [(level - 1, "rd_out_to_high", tile, inner)] * output
    for where, direction, elements, instances in passing:
        narrowest, widest = run.memories[operand][where].port[direction]
        each = Fraction(-(-elements * bits // narrowest) * narrowest, widest)
        words[where][direction] = math.floor(visits * each * instances)
        moved[where][direction] = visits * elements * instances


def _utilization(run: ZigzagRun) -> dict[str, list[float]]:
    used: dict[str, Fraction] = defaultdict(Fraction)
    for operand, chain in run.memories.items():
        for level, memory in enumerate(chain):
            done = operand == run.output and run.finished(level)
            bits = run.final_bits if done else run.bits[operand]
            used[memory.name] += Fraction(run.tile(operand, level) * bits, memory.bits)
    return {
        operand: [float(used[memory.name]) for memory in chain] for operand, chain in run.memories.items()
    }
