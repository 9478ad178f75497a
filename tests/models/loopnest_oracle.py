"""A small loop nest walked step by step: sets of words, no closed form.

A case is ``(steps, levels, keeps)``: strides and dilations by name; per level, innermost first, the loops
``temporal`` [(loop, factor), ...] innermost first and ``x``, ``y`` {loop: factor}; per level the letters
of the kept tensors. Every temporal iteration is visited in order. In each of them every child of one
instance of each level holds a tile, which is a set of words; what is not in the tile held before comes
in, and the parent reads what its children ask for, equal requests once.

Inputs are boxes that overlap in time, and two walks tell what comes in:

* ``rule="timeloop"``: a loop is looked at in its iterations 0 and 1 only. When a loop steps, the loops
  inside it are taken to come from iteration 1, whatever their last. If nothing moved, nothing comes in;
  if the tile moved just as in the first motion of all, what the old tile had not; else the whole tile.
* ``rule="physical"``: what the tile of the step before really had not.
"""

import functools
import itertools
import random

LOOPS = "ngkcpqrs"
ORIGIN = (0,) * len(LOOPS)
INDEXES = {"w": "gkcrs", "o": "ngkpq"}


class Walk:
    """One case. Level -1 is the MACs: one iteration each, nothing held from one to the next."""

    def __init__(self, steps: dict, levels: list[dict], keeps: list[str], rule: str = "timeloop"):
        self.steps, self.keeps, self.rule, self.depth = steps, keeps, rule, len(levels)
        size = dict.fromkeys(LOOPS, 1)
        self.size = {-1: dict(size)}  # iterations of each loop under a tile
        self.time = []  # (level, step of the corner, factor), innermost first
        self.children = []  # per level: corners of the children, relative to the parent's
        for k, level in enumerate(levels):
            corners = [ORIGIN]
            for axis in "xy":
                for d, f in level[axis].items():
                    step = self.along(d, size[d])
                    corners = [add(c, step, i) for c in corners for i in range(f)]
                    size[d] *= f
            self.children.append(corners)
            for d, f in level["temporal"]:
                self.time.append((k, self.along(d, size[d]), f))
                size[d] *= f
            self.size[k] = dict(size)
        self.tile = functools.cache(self.tile)

    @staticmethod
    def along(d: str, length: int) -> tuple:
        return tuple(length * (d == other) for other in LOOPS)

    def tile(self, tensor: str, k: int, corner: tuple) -> frozenset:
        """Words of ``tensor`` under level k's tile at an iteration."""
        spans = {d: range(at, at + self.size[k][d]) for d, at in zip(LOOPS, corner)}
        if tensor != "i":
            return frozenset(itertools.product(*(spans[d] for d in INDEXES[tensor])))
        lines = []
        for out, taps, axis in (("p", "r", "h"), ("q", "s", "w")):
            touched = [
                i * self.steps[f"stride_{axis}"] + j * self.steps[f"dilation_{axis}"]
                for i in spans[out]
                for j in spans[taps]
            ]
            lines.append(range(min(touched), max(touched) + 1))
        return frozenset(itertools.product(*(spans[d] for d in "ngc"), *lines))

    def moments(self, k: int):
        """Steps in time of a tile of level k: (corner, corner before, what Timeloop takes for that).

        The last two are None in the first step.
        """
        loops = [(step, f) for level, step, f in self.time if level > k and f > 1]

        def at(digits):
            return functools.reduce(lambda c, one: add(c, one[0][0], one[1]), zip(loops, digits), ORIGIN)

        before = None
        for outer_first in itertools.product(*(range(f) for _, f in reversed(loops))):
            digits = outer_first[::-1]
            if before is None:
                yield at(digits), None, None
            else:
                stepped = next(j for j, (new, old) in enumerate(zip(digits, before)) if new > old)
                taken = (*[1] * stepped, digits[stepped] - 1, *digits[stepped + 1 :])
                yield at(digits), at(before), at(taken)
            before = digits

    def asked(self, low: int, high: int, corner: tuple, words) -> frozenset:
        """What an instance of ``high`` is asked for by its children's children down to level ``low`` - 1.

        words: corner of a child -> its words. A set of words, or of requests: equal ones are one.
        """
        if high < low:
            return words(corner)
        return frozenset(self.asked(low, high - 1, add(corner, c), words) for c in self.children[high])

    def below(self, low: int, high: int) -> list[tuple]:
        """Corners of all tiles of level ``low`` - 1 under an instance of ``high``."""
        corners = [ORIGIN]
        for k in range(low, high + 1):
            corners = [add(a, b) for a in corners for b in self.children[k]]
        return corners

    def arrivals(self, tensor: str, k: int):
        """Steps in which words may come into level k: (corner, corner of the tile still there or None)."""
        direction = None
        for corner, before, taken in self.moments(k):
            if k < 0 or before is None:
                yield corner, None
            elif tensor == "w" or self.rule == "physical":
                yield corner, before
            else:
                moved = self.motion(taken, corner)
                if any(moved):
                    direction = direction or moved
                    yield corner, taken if moved == direction else None

    def read_only(self, tensor: str, child: int, parent: int) -> tuple[int, int]:
        """Words that one child takes in, and that its parent reads; child -1 takes one every cycle."""
        reads = fills = 0
        for corner, held in self.arrivals(tensor, child):

            def new(offset, corner=corner, held=held):
                words = self.tile(tensor, child, add(corner, offset))
                return words if held is None else words - self.tile(tensor, child, add(held, offset))

            fills += len(new(ORIGIN))
            if tensor == "i" and self.rule == "timeloop":
                reads += weigh(self.asked(child + 1, parent, ORIGIN, new), parent - child)
            else:
                reads += len(frozenset().union(*map(new, self.below(child + 1, parent))))
        return fills, reads

    def motion(self, start: tuple, end: tuple) -> tuple:
        """How far an input tile moves between two corners: batch, group, channel, row, column."""
        n, g, _, c, p, q, r, s = (b - a for a, b in zip(start, end))
        of = self.steps
        return (
            n, g, c,
            p * of["stride_h"] + r * of["dilation_h"],
            q * of["stride_w"] + s * of["dilation_w"],
        )  # fmt: skip

    def sums(self, child: int, parent: int) -> tuple[int, int, int]:
        """Outputs: partial sums brought back to one child; updates of its parent, and reads for them.

        A tile goes up when another takes its place and at the end; siblings with the same outputs are
        added up on the way. A word that was there before is read and added to.
        """
        brought = updates = reads = 0
        had, known = set(), set()
        below = self.below(child + 1, parent)
        before = None
        for corner, _, _ in [*self.moments(child), (None, None, None)]:
            held = None if before is None else self.tile("o", child, before)
            tile = None if corner is None else self.tile("o", child, corner)
            if held is not None and (tile != held or child < 0):
                up = frozenset().union(*(self.tile("o", child, add(before, offset)) for offset in below))
                updates += len(up)
                reads += len(up & known)
                known |= up
            if tile is not None and tile != held:
                brought += len(tile & had)
                had |= tile
            before = corner
        return brought, updates, reads

    def counts(self) -> list[dict]:
        """Per level, innermost first, {tensor: {"tile", "reads", "fills", "updates"}} of the kept tensors."""
        found = [{t: dict(reads=0, fills=0, updates=0) for t in kept} for kept in self.keeps]
        for tensor in "wio":
            child = -1
            for k in range(self.depth):
                if tensor not in self.keeps[k]:
                    continue
                here = found[k][tensor]
                here["tile"] = len(self.tile(tensor, k, ORIGIN))
                if tensor == "o":
                    fills, here["updates"], here["reads"] = self.sums(child, k)
                else:
                    fills, here["reads"] = self.read_only(tensor, child, k)
                if child >= 0:
                    found[child][tensor]["fills"] = fills
                child = k
        return found

    def cycles(self) -> int:
        """Steps in time."""
        return sum(1 for _ in self.moments(-1))

    def macs(self) -> list[tuple]:
        """Every iteration that some MAC unit does, as often as it is done."""
        units = self.below(0, self.depth - 1)
        return [add(corner, unit) for corner, _, _ in self.moments(-1) for unit in units]

    def needed(self, tensor: str) -> int:
        """Distinct words of ``tensor`` that MACs touch."""
        return len(frozenset().union(*(self.tile(tensor, -1, at) for at in self.macs())))


def add(a: tuple, b: tuple, times: int = 1) -> tuple:
    """``a + times * b``."""
    return tuple(x + times * y for x, y in zip(a, b))


def weigh(request: frozenset, depth: int) -> int:
    """Words in requests nested ``depth`` deep."""
    return len(request) if depth == 0 else sum(weigh(one, depth - 1) for one in request)


def random_case(rng: random.Random, keeps, most: int = 400, loops: str = LOOPS):
    """A nest of at most ``most`` MACs: up to eight factors of 2 to 4 anywhere, strides 1 to 3."""
    steps = {f"stride_{axis}": rng.choice((1, 1, 2, 3)) for axis in "hw"}
    steps |= {f"dilation_{axis}": rng.choice((1, 1, 2)) for axis in "hw"}
    levels = [{"temporal": [], "x": {}, "y": {}} for _ in keeps]
    macs = 1
    for _ in range(rng.randint(2, 8)):
        f, d, level = rng.choice((2, 2, 2, 3, 3, 4)), rng.choice(loops), rng.choice(levels)
        kind = rng.choice(("temporal", "temporal", "x", "y"))
        if macs * f > most or d in dict(level[kind]):
            continue
        macs *= f
        if kind == "temporal":
            level[kind].insert(rng.randint(0, len(level[kind])), (d, f))
        else:
            level[kind][d] = f
    return steps, levels, list(keeps)
