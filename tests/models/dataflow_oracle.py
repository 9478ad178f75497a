"""The dataflow model's rules, walked step by step and PE by PE: sets of elements, no closed form.

A case is ``(extents, strides, dilations, depthwise, levels, pes)``: extents of n k c p q r s (depthwise:
c are the groups), (rows, columns) strides and dilations, one to three levels as dicts of ``tile``,
``rank``, ``spatial`` (per dimension) and ``units``. The rules are those of
`diffhw.models._dataflow_counts`; cases worked by hand are in ``test_dataflow_oracle.py``.

Two spatial dimensions in one level share the unit's number, so only pairs (i, i) are visited: MACs are
lost where both are cut. `random_case` has one at most, as `mappings.fit` makes them.
"""

import itertools
import math

DIMS = ("n", "k", "c", "p", "q", "r", "s")


class Walk:
    """One case: tiles, units, and the nest of loops in order."""

    def __init__(self, extents, strides, dilations, depthwise, levels, pes):
        idle = dict(tile=extents, rank=dict(zip(DIMS, range(7))), spatial=dict.fromkeys(DIMS, False), units=1)
        levels = [*levels, *[idle] * (3 - len(levels))]
        self.extents, self.strides, self.dilations, self.levels = extents, strides, dilations, levels
        inner = levels[1]["units"] * levels[2]["units"]
        units = [max(pes // inner, 1), levels[1]["units"], levels[2]["units"]]
        # A level that deals nothing out has one unit at work.
        self.units = [n if any(level["spatial"].values()) else 1 for n, level in zip(units, levels)]
        self.tile, outside = [], dict(extents)
        for level in levels:
            outside = {d: min(level["tile"][d], outside[d]) for d in DIMS}
            self.tile.append(outside)
        self.dealt = [
            {d: n if level["spatial"][d] else 1 for d in DIMS} for n, level in zip(self.units, levels)
        ]
        self.loops = [
            (i, d) for i, level in enumerate(levels) for d in sorted(DIMS, key=lambda d: level["rank"][d])
        ]
        self.coupled = {"weight": "kcrs", "output": "nkpqc" if depthwise else "nkpq"}

    def piece(self, whole, level, d, fold, unit):
        """The part of interval ``whole`` that a unit has in a fold; empty (a, a) past the end."""
        start = whole[0] + (fold * self.dealt[level][d] + unit) * self.tile[level][d]
        return (start, min(start + self.tile[level][d], whole[1])) if start < whole[1] else (start, start)

    def interval(self, position, pe, d):
        """What a PE has of dimension ``d``, or None."""
        part = (0, self.extents[d])
        for level in range(3):
            unit = pe[level] if self.levels[level]["spatial"][d] else 0
            part = self.piece(part, level, d, position[level, d], unit)
            if part[0] >= part[1]:
                return None
        return part

    def positions(self, loop=0, position=None):
        """All steps in order: {(level, d): fold}."""
        position = {} if position is None else position
        if loop == len(self.loops):
            yield dict(position)
            return
        level, d = self.loops[loop]
        part = (0, self.extents[d])
        for outer in range(level):
            part = self.piece(part, outer, d, position[outer, d], 0)
        folds = math.ceil((part[1] - part[0]) / (self.dealt[level][d] * self.tile[level][d]))
        for fold in range(folds):
            position[level, d] = fold
            yield from self.positions(loop + 1, position)

    def lines(self, outputs, taps, axis):
        """Input rows (axis 0) or columns (1) under an interval of outputs and one of filter taps."""
        stride, dilation = self.strides[axis], self.dilations[axis]
        window = range(dilation * taps[0], dilation * (taps[1] - 1) + 1)
        return {stride * i + m for i in range(*outputs) for m in window}

    def tile_of(self, tensor, has):
        """Elements of a tensor that a PE with intervals ``has`` holds."""
        if tensor == "input":
            if any(has[d] is None for d in "ncpqrs"):
                return set()
            rows, cols = self.lines(has["p"], has["r"], 0), self.lines(has["q"], has["s"], 1)
            return set(itertools.product(range(*has["n"]), range(*has["c"]), rows, cols))
        dims = self.coupled[tensor]
        if any(has[d] is None for d in dims):
            return set()
        return set(itertools.product(*[range(*has[d]) for d in dims]))

    def reloads_input(self, before, now):
        """Line buffers keep their rows only on an advance in time to the neighbouring tile."""
        moved = {(level, d) for level, d in self.loops if before[level, d] != now[level, d]}
        advanced = next(loop for loop in self.loops if loop in moved)
        for d in "rs":
            if any((level, d) in moved for level in range(3)):
                return True
        for d in "pq":
            if any((level, d) in moved for level in range(3)):
                level = advanced[0]
                inside = [
                    self.dealt[i][d] > 1 and math.ceil(self.tile[i - 1][d] / self.tile[i][d]) > 1
                    for i in range(level + 1, 3)
                ]
                if advanced[1] != d or self.dealt[level][d] > 1 or any(inside):
                    return True
        return False


def count(*case, trace: list | None = None) -> dict[str, int]:
    """Transfers, steps and work of a case, each counted one by one.

    trace: a list to append to, per step, ``advanced`` (the loop as (level, dimension), None at first),
    ``intervals`` (of each PE, per dimension, None where it has nothing) and ``needs`` (elements that
    each active PE lacked, per tensor).
    """
    walk = Walk(*case)
    names = (
        "fills_input fills_weight reads_input reads_weight out_moves out_returns drains macs steps compute"
    )
    total = dict.fromkeys([*names.split(), "psum_updates"], 0)
    pes = list(itertools.product(*[range(n) for n in walk.units]))
    seen_outputs: set = set()
    before = None
    for now in walk.positions():
        asked: dict[str, set] = {"input": set(), "weight": set(), "output": set()}
        longest = 0
        intervals, lacked = {}, {}
        for pe in pes:
            has = intervals[pe] = {d: walk.interval(now, pe, d) for d in DIMS}
            if any(part is None for part in has.values()):
                continue
            work = math.prod(b - a for a, b in has.values())
            total["macs"] += work
            longest = max(longest, work)
            had = None if before is None else {d: walk.interval(before, pe, d) for d in DIMS}
            for tensor in asked:
                new = walk.tile_of(tensor, has)
                old = set() if had is None else walk.tile_of(tensor, had)
                if tensor == "input" and before is not None and walk.reloads_input(before, now):
                    old = set()
                needs = new - old
                asked[tensor] |= needs
                lacked.setdefault(pe, {})[tensor] = len(needs)
                if tensor == "output":
                    total["drains"] += len(needs)
                    total["psum_updates"] += len(new)
                else:
                    total[f"fills_{tensor}"] += len(needs)
        total["reads_input"] += len(asked["input"])
        total["reads_weight"] += len(asked["weight"])
        total["out_moves"] += len(asked["output"])
        total["out_returns"] += len(asked["output"] & seen_outputs)
        seen_outputs |= asked["output"]
        total["steps"] += 1
        total["compute"] += longest
        if trace is not None:
            moved = (loop for loop in walk.loops if before and before[loop] != now[loop])
            trace.append(dict(advanced=next(moved, None), intervals=intervals, needs=lacked))
        before = now
    return total


def random_case(rng, most_macs=1500):
    """A small layer and dataflow: any order, ragged tiles, strides beyond the filter, three levels."""
    while True:
        extents = {d: rng.choice([1, 1, 2, 3, 4, 5]) for d in DIMS}
        extents |= {"n": rng.choice([1, 1, 2]), "r": rng.choice([1, 2, 3]), "s": rng.choice([1, 1, 3])}
        depthwise = rng.random() < 0.25
        if math.prod(extents.values()) <= most_macs and not (depthwise and extents["c"] < 2):
            break
    levels, used = [], set()
    for _ in range(3):
        tile = {d: rng.choice([1, 1, 2, 3, 99]) for d in DIMS} | {"r": 99, "s": 99}
        dealt = None
        if rng.random() < 0.7:
            # Windows are dealt out at one level, filters one tap to a unit.
            dealt = rng.choice([d for d in DIMS if d in "nkc" or d not in used])
            used.add(dealt)
            if dealt in "rs":
                tile[dealt] = 1
        order = rng.sample(range(7), 7)
        levels.append(
            dict(
                tile=tile,
                rank=dict(zip(DIMS, order)),
                spatial={d: d == dealt for d in DIMS},
                units=rng.choice([1, 2, 3]) if dealt else 1,
            )
        )
    pes = levels[1]["units"] * levels[2]["units"] * rng.choice([1, 2, 3])
    plain = extents["r"] == 1 or not any(level["spatial"]["r"] for level in levels)
    dilations = (rng.choice([1, 1, 2]) if plain else 1, 1)
    return extents, (rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2])), dilations, depthwise, levels, pes


def wide_case(rng, most_macs=1200):
    """As `random_case`, and filters cut in time, both dilations, strides to 3, fewer levels."""
    while True:
        extents = {d: rng.choice([1, 1, 2, 3, 4, 5, 6]) for d in DIMS}
        extents |= {"n": rng.choice([1, 1, 2]), "r": rng.choice([1, 2, 3, 4]), "s": rng.choice([1, 1, 2, 3])}
        depthwise = rng.random() < 0.25
        if math.prod(extents.values()) <= most_macs and not (depthwise and extents["c"] < 2):
            break
    strides = (rng.choice([1, 2, 3]), rng.choice([1, 2, 3]))
    depth = rng.choice([1, 2, 3, 3])
    cut = {d: rng.randrange(depth) for d in "rs"}  # the level that may cut a filter
    levels, used = [], set()
    for i in range(depth):
        tile = {d: rng.choice([1, 1, 2, 3, 4, 99]) for d in DIMS}
        tile |= {d: 99 for d in "rs" if cut[d] != i}
        dealt = rng.choice([None, *[d for d in DIMS if d not in used]])
        if dealt in tuple("pqrs"):
            used.add(dealt)
        if dealt in ("r", "s"):
            tile[dealt] = rng.choice([1, 99])
        levels.append(
            dict(
                tile=tile,
                rank=dict(zip(DIMS, rng.sample(range(7), 7))),
                spatial={d: d == dealt for d in DIMS},
                units=rng.choice([1, 2, 3]) if dealt else 1,
            )
        )
    pes = math.prod(level["units"] for level in levels[1:]) * rng.choice([1, 2, 3])
    dilations = tuple(
        rng.choice([1, 2]) if all(level["tile"][d] >= extents[d] for level in levels) else 1 for d in "rs"
    )
    return extents, strides, dilations, depthwise, levels, pes
