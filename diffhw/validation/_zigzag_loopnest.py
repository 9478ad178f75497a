"""ZigZag's mappings as ours: one list of levels instead of a chain per operand.

What our loop-nest model says differently, by intent:

- a window of input that slides brings only its new part; ZigZag loads every window whole, and neighbours
  each their own. ZigZag in turn leaves out padding; our windows reach over it. So of the inputs we compare
  what is left: how many windows come, each counted as large as ZigZag's.
- the first visit of an output reads no partial sum; ZigZag reads and returns a zero. We add it.

All in elements, all instances together: a loop that indexes a tensor may stand on either side of a memory
that keeps it, the sum is the same.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.hardware import Hierarchy, Memory
from diffhw.mappings import LoopNest
from diffhw.models import loopnest_counts
from diffhw.models._loopnest_reuse import INDEXES, distinct_siblings, product, revisits
from diffhw.validation._zigzag_replay import ZigzagRun
from diffhw.workloads import Layer

__all__ = ["Moved", "Nested", "as_loopnest", "loopnest_moved"]

LOOP = {"B": "n", "G": "g", "K": "k", "C": "c", "OY": "p", "OX": "q", "FY": "r", "FX": "s", "D": "p"}
"""The tool's names of loops -> ours."""

_REGISTERS = "mac registers"


@dataclass(frozen=True)
class Nested:
    """A run in our terms. place: memory -> its level.

    Where a chain per operand is no single list, several instances of a memory make one level: its capacity
    and ports are theirs together. Energy per access is the tool's, registers at the MACs cost nothing.
    """

    layer: Layer
    hierarchy: Hierarchy
    nest: LoopNest
    place: dict[str, int]


def as_loopnest(run: ZigzagRun) -> Nested | str:
    """The run as layer, hierarchy and nest, or why it cannot be one.

    Level 0 holds the weight and the input that a MAC works on: ZigZag reads them once while they stay.
    A loop that comes twice within a level gets a level that keeps nothing.
    """
    unknown = set(run.sizes) - set(LOOP)
    if unknown:
        return f"loop {min(unknown)!r} has no counterpart"
    if len({LOOP[loop] for loop in run.sizes}) < len(run.sizes):
        return f"two of the loops {', '.join(run.sizes)} have the same counterpart"
    if any(one.denominator != 1 for one in run.unroll.values()):
        return "a loop is unrolled by no whole number"
    cuts: dict[str, int] = {}
    for operand, chain in run.memories.items():
        inside = 0
        for memory, loops in zip(chain, run.temporal[operand], strict=True):
            inside += len(loops)
            outermost = memory is chain[-1]
            at = sum(map(len, run.temporal[operand])) if outermost else inside
            if cuts.setdefault(memory.name, at) != at:
                return f"operands cut the loops at {memory.name} in different places"
    found = _ordered(run, cuts)
    if found is None:
        return "no order of the memories suits the spatial loops of every operand"
    order, spread = found
    loops = [loop for place in run.temporal[run.output] for loop in place]
    levels: list[dict] = [{"name": _REGISTERS, "keeps": "wi", "temporal": {}, "x": {}}]
    place, done = {}, 0
    for index, name in enumerate(order):
        keeps = "".join(t.lower() for t in "WIO" if name in [one.name for one in run.memories[t]])
        spatial: dict[str, int] = {}
        for loop in spread:
            if spread[loop] == index:
                spatial[LOOP[loop]] = int(run.unroll.get(loop, Fraction(1)))
        pieces: list[dict[str, int]] = [{}]
        for loop, size in loops[done : cuts[name]]:
            letter = LOOP[loop]
            if letter in pieces[-1] and list(pieces[-1])[-1] != letter:
                pieces.append({})
            pieces[-1][letter] = pieces[-1].get(letter, 1) * size
        done = cuts[name]
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            levels.append(
                {
                    "name": name if last else f"{name} loops {number}",
                    "keeps": keeps if last else "",
                    "temporal": piece,
                    "x": spatial if number == 0 else {},
                }
            )
        place[name] = len(levels) - 1
    try:
        memories = [
            _memory(run, one["name"], one["keeps"], one["x"], _lumped(run, order, spread, one["name"]))
            for one in levels
        ]
        hierarchy, layer = Hierarchy.create(levels=memories, mac_pj=run.mac_pj), _layer(run)
        factors = [{key: one[key] for key in ("temporal", "x")} for one in levels]
        return Nested(layer, hierarchy, LoopNest.create(factors, hierarchy, layer), place)
    except ValueError as error:
        return str(error)


def _lumped(run: ZigzagRun, order: list[str], spread: dict[str, int], name: str) -> float:
    """Instances of ``name`` that make one instance of its level."""
    most = 0.0
    for operand, chain in run.memories.items():
        for level, memory in enumerate(chain):
            if memory.name == name:
                count = 1.0
                for loop in spread:
                    at = next(k for k, place in enumerate(run.spatial[operand]) if loop in place)
                    inside, ours = level >= at, order.index(name) >= spread[loop]
                    count *= float(run.unroll.get(loop, 1)) ** (int(ours) - int(inside))
                most = max(most, count)
    return most


def _memory(run: ZigzagRun, name: str, keeps: str, spatial: dict[str, int], lumped: float) -> Memory:
    """The memory ``name``, or one without energy and limits where the tool has none."""
    spread = {"fanout_x": math.prod(spatial.values()), "spatial_x": "".join(spatial), "spatial_y": ""}
    found = [one for chain in run.memories.values() for one in chain if one.name == name]
    if not found:
        return Memory.create(name=name, keeps=keeps, **spread)
    memory = found[0]
    widest = max(widths[1] for one in found for widths in one.port.values())
    bits = dict(run.bits)
    if "o" in keeps:
        level = [one.name for one in run.memories[run.output]].index(name)
        if run.finished(level):
            bits[run.output] = run.final_bits
    return Memory.create(
        name=name,
        keeps=keeps,
        capacity_bits=memory.bits * lumped,
        word_bits=1,  # bandwidths and widths are in bits
        weight_bits=bits["W"],
        input_bits=bits["I"],
        output_bits=bits["O"],
        width_bits=widest,
        # A port that does both adds to neither.
        read_words_per_cycle=np.inf if memory.shared_bits else (memory.read_bits or widest) * lumped,
        write_words_per_cycle=np.inf if memory.shared_bits else (memory.write_bits or widest) * lumped,
        shared_words_per_cycle=memory.shared_bits * lumped or np.inf,
        read_pj=memory.read_pj,
        fill_pj=memory.write_pj,
        **spread,
    )


def _layer(run: ZigzagRun) -> Layer:
    sizes = {LOOP[loop]: size for loop, size in run.sizes.items()}
    for one in run.sliding:
        side = {"p": "h", "q": "w"}[LOOP[one.slide]]
        sizes[f"stride_{side}"], sizes[f"dilation_{side}"] = one.stride, one.dilation
    return Layer.create(**{"p": 1, "q": 1, **sizes})


def _ordered(run: ZigzagRun, cuts: dict[str, int]) -> tuple[list[str], dict[str, int]] | None:
    """Memories innermost first, and per spatial loop the memory under which it is unrolled."""
    groups = [[name for name in cuts if cuts[name] == at] for at in sorted(set(cuts.values()))]
    before = {
        (a.name, b.name) for chain in run.memories.values() for a, b in itertools.combinations(chain, 2)
    }
    loops = sorted({one for places in run.spatial.values() for place in places for one in place})
    best: tuple[int, list[str], dict[str, int]] | None = None
    for picked in itertools.product(*(itertools.permutations(group) for group in groups)):
        order = [name for group in picked for name in group]
        if any((b, a) in before for a, b in itertools.combinations(order, 2)):
            continue
        spread, wrong = {}, 0
        for loop in loops:
            misfits = [(_misfit(run, order, loop, index), index) for index in range(len(order))]
            least, spread[loop] = min(misfits)
            wrong += least
        if wrong < _NEVER and (best is None or wrong < best[0]):
            best = (wrong, order, spread)
    return None if best is None else best[1:]


_NEVER = 1000


def _misfit(run: ZigzagRun, order: list[str], loop: str, index: int) -> int:
    """How many memories have ``loop`` on the wrong side if it is unrolled right under memory ``index``.

    `_NEVER` for a memory that the loop does not index: there it would change the counts.
    """
    wrong = 0
    for operand, chain in run.memories.items():
        at = next(k for k, place in enumerate(run.spatial[operand]) if loop in place)
        for level, memory in enumerate(chain):
            if (level >= at) != (order.index(memory.name) >= index):
                wrong += 1 if loop in run.indexes[operand] else _NEVER
    return wrong


def _counts(layer: Layer, hierarchy: Hierarchy, nest: LoopNest) -> dict:
    """Words per instance of every level; of inputs the number of windows and of different neighbours."""
    found = loopnest_counts(layer, hierarchy, nest)
    depth = len(hierarchy.levels)
    again = revisits(found.nest, "i")
    one = 1.0 + 0.0 * found.compute_cycles
    return {
        "words": [{t: dict(vars(count)) for t, count in tensors.items()} for tensors in found.tensors],
        "instances": found.instances,
        "cycles": found.compute_cycles,
        "windows": [
            product([one, found.nest.all_time(INDEXES["i"], above=k), again[k]]) for k in range(depth)
        ],
        "neighbours": [product([one, distinct_siblings(found.nest, layer, k)]) for k in range(depth)],
        "tile": [{d: size * one for d, size in tile.items()} for tile in found.nest.tile],
    }


Moved = dict[str, list[dict[str, float]]]
"""Operand -> per memory, {direction: elements, all instances together}."""


def loopnest_moved(
    runs: Sequence[ZigzagRun], dtype: str = "float64"
) -> Iterator[tuple[int, tuple[Moved, float] | str]]:
    """Per run its index, and our model's counts and cycles or why our hierarchy cannot express it.

    In any order.
    """
    groups: dict = {}
    for index, run in enumerate(runs):
        with jax.enable_x64(dtype == "float64"):
            one = as_loopnest(run)
        if isinstance(one, str):
            yield index, one
        else:
            groups.setdefault(jax.tree.structure((one.hierarchy, one.nest)), []).append((index, one))
    for members in groups.values():
        with jax.enable_x64(dtype == "float64"):
            # The counts are element by element: without vmap, whose tracing costs three times as much.
            layers, hierarchies, nests = jax.tree.map(
                lambda *leaves: jnp.stack(leaves),
                *[(one.layer, one.hierarchy, one.nest) for _, one in members],
            )
            found = jax.tree.map(np.asarray, _counts(layers, hierarchies, nests))
        for row, (index, one) in enumerate(members):
            here = jax.tree.map(lambda leaf, row=row: float(leaf[row]), found)
            yield index, (_moved(one, here, runs[index]), here["cycles"])


def _moved(nested: Nested, found: dict, run: ZigzagRun) -> Moved:
    moved: Moved = {}
    for operand, chain in run.memories.items():
        moved[operand] = []
        for level, memory in enumerate(chain):
            at = nested.place[memory.name]
            words, outermost = found["words"][at][operand.lower()], level == len(chain) - 1
            if operand == run.data:
                inner = nested.place[chain[level - 1].name] if level else 0
                copies = math.prod(found["neighbours"][inner + 1 : at + 1])
                moves = {
                    "rd_out_to_low": found["windows"][inner] * _window(run, found["tile"][inner]) * copies,
                    "wr_in_by_high": 0.0
                    if outermost
                    else found["windows"][at] * _window(run, found["tile"][at]),
                }
            elif operand == run.output:
                first = words["updates"] - words["reads"]
                moves = {
                    "wr_in_by_low": words["updates"],
                    "rd_out_to_low": words["updates"] if level == 0 or words["reads"] > 0 else 0.0,
                    "rd_out_to_high": 0.0 if outermost else words["fills"] + first,
                    "wr_in_by_high": words["fills"] + first if words["fills"] > 0 else 0.0,
                }
            else:
                moves = {"rd_out_to_low": words["reads"], "wr_in_by_high": words["fills"]}
            moved[operand].append({key: value * found["instances"][at] for key, value in moves.items()})
    return moved


def _window(run: ZigzagRun, tile: dict[str, float]) -> int:
    """Elements of ZigZag's window under a tile of ours."""
    factors = {loop: Fraction(tile[LOOP[loop]]) for loop in run.sizes}
    return run.elements(run.data, factors)
