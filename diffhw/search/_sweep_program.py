"""The compiled part of a sweep: evaluate block after block, keep the few designs that matter.

Each device runs blocks of one shape, whatever the number of devices, so that the same design has the
same figures everywhere; device d of D takes blocks d, d + D, ... of a call.

Per block only two questions are asked of every design: is it better than the k-th best so far, and is
it beaten by one of a few strong points? Both are one pass of comparisons; what passes is rare, is picked
out, and is compared with a longer list. A design is dropped only if a point that is kept elsewhere
beats it, so the front is exact; what a fixed buffer cannot hold is reported, and the host calls again
for fewer designs.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from diffhw.search._sweep_front import Found
from diffhw.search._sweep_order import SweepOrder

__all__ = ["KNOWN", "Call", "Figures", "Program"]

_STRONG = 6  # points with which every design is compared
KNOWN = 256  # points with which the survivors are compared, and as many of the latest survivors
_PICKED = 512  # survivors handled at once
_APPENDED = 64  # of them, at most, kept at once
_CAPACITY = 16384  # survivors of a call and device


@dataclass(frozen=True)
class Figures:
    """What is computed for a design.

    evaluate: one design -> name -> scalar.  pareto: names, perhaps none.  names: the objective, then the
    others, each once.  feasible: name, or None if all designs are.
    """

    evaluate: Callable
    pareto: tuple[str, ...]
    names: tuple[str, ...]
    feasible: str | None


@jax.tree_util.register_dataclass
@dataclass
class _Kept:
    """The running result of a device. F figures, M metrics of the front, k best."""

    feasible: Array  # () int32: designs
    best: tuple[Array, ...]  # F x (k,), ascending by objective
    best_at: Array  # (k,) int32: offsets, -1 if empty
    front: tuple[Array, ...]  # F x (capacity + picked,)
    front_at: Array  # (capacity + picked,) int32
    count: Array  # () int32: survivors so far, perhaps more than fit
    strong: Array  # (_STRONG, M)
    keys: Array  # (_STRONG, M): the same as integers
    turn: Array  # () int32: the strong point to be replaced next


@dataclass(frozen=True)
class Call:
    """What a call found, unsorted.

    best: of each device.  overflow: True if survivors were lost: ask again for fewer designs.
    """

    feasible: int
    best: list[Found]
    front: Found
    overflow: bool


class Program:
    """``start`` a call, then ``read`` its result.

    devices: local ones.  top_k: how many of the best to keep, per device.
    """

    def __init__(self, order: SweepOrder, figures: Figures, top_k: int, devices: Sequence):
        self.order, self.wanted, self.top_k = order, figures, top_k
        self.mesh = Mesh(np.array(devices), ("population",))
        self.metrics = [figures.names.index(name) for name in figures.pareto]
        everything = (P(),) * 6
        sharded = jax.shard_map(
            self._part, mesh=self.mesh, in_specs=everything, out_specs=P("population"), check_vma=False
        )
        self._run: Any = jax.jit(sharded)

    def start(self, position: int, skip: int, stop: int, threshold: float, known):
        """Dispatch designs ``skip`` to ``stop`` after ``position``; returns at once.

        threshold: only designs with a lower objective count for the best.
        known: (n, M) points that are kept elsewhere and beat what they do not exceed anywhere.
        """
        return self._run(*self._arguments(position, skip, stop, threshold, known))

    def _arguments(self, position, skip, stop, threshold, known) -> tuple:
        shape = len(self.metrics)
        return (
            self.order.start(position),
            np.int32(skip),
            np.int32(stop),
            np.asarray(threshold, jnp.result_type(float)),
            _filled(known, _STRONG, shape),
            _filled(known, KNOWN, shape),
        )

    def read(self, running: _Kept, position: int) -> Call:
        """Wait for the call that began at ``position``."""
        kept: _Kept = jax.tree.map(np.asarray, running)
        taken = lambda at, columns, where: Found(
            position + at[where].astype(np.int64), tuple(column[where] for column in columns)
        )
        devices = range(len(kept.best_at))
        best = [
            taken(kept.best_at[d], [column[d] for column in kept.best], kept.best_at[d] >= 0) for d in devices
        ]
        stored = np.minimum(kept.count, _CAPACITY)
        place = np.arange(kept.front_at.shape[1])[None] < stored[:, None]
        front = taken(kept.front_at, kept.front, place)
        return Call(int(kept.feasible.sum()), best, front, bool((kept.count > _CAPACITY).any()))

    def compile(self, position: int) -> None:
        """Compile, so that the time of it can be told apart."""
        self._run = self._run.lower(*self._arguments(position, 0, 0, 0.0, np.zeros((0, 0)))).compile()

    # Traced -----------------------------------------------------------------------------------

    def _part(self, start, skip, stop, threshold, strong, known) -> _Kept:
        device, devices = lax.axis_index("population").astype(jnp.int32), self.mesh.size
        block, dtype = self.order.block, strong.dtype
        room = (_CAPACITY + _APPENDED) if self.metrics else 1
        names = self.wanted.names
        kept = _Kept(
            feasible=jnp.int32(0),
            best=tuple(jnp.full(self.top_k, jnp.inf, dtype) for _ in names),
            best_at=jnp.full(self.top_k, -1, jnp.int32),
            front=tuple(jnp.full(room, jnp.inf, dtype) for _ in names),
            front_at=jnp.full(room, -1, jnp.int32),
            count=jnp.int32(0),
            strong=strong,
            keys=_keys(strong),
            turn=jnp.int32(0),
        )
        first, step = (skip // block + device) * block, block * devices

        def one(carry):
            first, kept = carry
            values = self.order.figures(self.wanted.evaluate, start, first)
            columns = [values[name].astype(dtype) for name in self.wanted.names]
            if self.wanted.feasible is not None:
                columns.append(values[self.wanted.feasible].astype(dtype))
            # The condition always holds, which the compiler cannot know: else it would fuse the evaluation
            # into each of the comparisons that follow, and so do it several times.
            sift = lambda kept: self._sift(columns, first, skip, stop, threshold, known, kept)
            return first + step, lax.cond(first < stop, sift, lambda kept: kept, kept)

        _, kept = lax.while_loop(lambda carry: carry[0] < stop, one, (first, kept))
        return jax.tree.map(lambda leaf: leaf[None], kept)

    def _sift(self, columns, first, skip, stop, threshold, known, kept: _Kept) -> _Kept:
        columns = [column.reshape(-1) for column in columns]
        place = jnp.arange(self.order.block, dtype=jnp.uint32) - (skip - first).astype(jnp.uint32)
        feasible = jnp.ones((), columns[0].dtype) if self.wanted.feasible is None else columns.pop()
        # One unsigned comparison; 0 if the design does not count, else above 0.
        columns.append(jnp.where(place < (stop - skip).astype(jnp.uint32), feasible, 0.0))
        legal = columns[-1] > 0
        # Sums of floats: on CPUs they are several times faster than reductions of bools.
        number = jnp.sum(jnp.where(legal, jnp.float32(1), jnp.float32(0)))
        kept = dataclasses.replace(kept, feasible=kept.feasible + number.astype(jnp.int32))
        bar = jnp.minimum(threshold, kept.best[0][-1])
        better = lambda: legal & (columns[0] < bar)  # never true of what is not a number
        hot = jnp.sum(jnp.where(better(), jnp.float32(1), jnp.float32(0))) > 0
        merge = lambda kept: self._merge(columns, better(), first, kept)
        kept = lax.cond(hot, merge, lambda kept: kept, kept)
        if self.metrics:
            # The branch asks again who is alive: handing over the answers would cost more, at each block.
            alive = self._margin(columns, kept.keys) > 0
            some = jnp.sum(jnp.where(alive, jnp.float32(1), jnp.float32(0))) > 0
            emit = lambda kept: self._emit(columns, first, known, kept)
            kept = lax.cond(some, emit, lambda kept: kept, kept)
        return kept

    def _merge(self, columns, better, first, kept: _Kept) -> _Kept:
        """The best k of the block and those so far. Equal ones: the earlier first, as top_k is stable."""
        count = min(self.top_k, self.order.block)
        lower, place = lax.top_k(-jnp.where(better, columns[0], jnp.inf), count)
        at = jnp.where(lower > -jnp.inf, first + place, -1)
        both = jnp.concatenate([kept.best[0], -lower])
        _, order = lax.top_k(-both, self.top_k)
        join = lambda old, new: jnp.concatenate([old, new])[order]
        best = [
            both[order],
            *(
                join(old, new[place])
                for old, new in zip(kept.best[1:], columns[1 : len(kept.best)], strict=True)
            ),
        ]
        return dataclasses.replace(kept, best=tuple(best), best_at=join(kept.best_at, at))

    def _margin(self, columns, keys):
        """Above 0 where a design counts and no strong point beats it; (block,) integers."""
        points = [jnp.maximum(_bits(columns[m]), -1) for m in self.metrics]
        margin = (columns[-1] > 0).astype(keys.dtype)
        for r in range(_STRONG):
            worst = [keys[r, m] - point for m, point in enumerate(points)]
            margin = jnp.minimum(margin, functools.reduce(jnp.maximum, worst))
        return margin

    def _emit(self, columns, first, known, kept: _Kept) -> _Kept:
        """Append the survivors of a block, the earliest first, some at a time."""
        block = self.order.block
        place = jnp.arange(block, dtype=jnp.int32)
        picked = min(_PICKED, block)

        def some(carry):
            next_place, kept = carry
            alive = (self._margin(columns, kept.keys) > 0) & (place >= next_place)
            key = jnp.where(alive, (block - place).astype(jnp.float32), 0.0)
            found, at = lax.top_k(key, picked)
            # Reductions, as the compiler turns top_k into a full sort where single places of it are read.
            left = jnp.where(jnp.min(found) > 0, jnp.max(at) + 1, block)
            points = [column[at] for column in columns]
            kept, alive = self._confront(points, found > 0, known, kept)
            # Few are still alive; they alone are compared among themselves.
            few = min(_APPENDED, picked)
            found, row = lax.top_k(jnp.where(alive, picked - jnp.arange(picked), 0), few)
            left = jnp.where(jnp.min(found) > 0, at[jnp.max(row)] + 1, left)
            kept = self._append([point[row] for point in points], first + at[row], found > 0, kept)
            return left.astype(jnp.int32), kept

        more = lambda carry: carry[0] < block
        return lax.while_loop(more, some, (jnp.int32(0), kept))[1]

    def _confront(self, columns, alive, known, kept: _Kept):
        """Which of them no known point and no late survivor beats; the best killer becomes strong."""
        points = jnp.stack([columns[m] for m in self.metrics])  # (M, picked)
        recent = jnp.clip(jnp.minimum(kept.count, _CAPACITY) - KNOWN, 0)
        late = [lax.dynamic_slice(kept.front[m], (recent,), (KNOWN,)) for m in self.metrics]
        others = jnp.concatenate([known.T, jnp.stack(late)], axis=1)  # (M, known + recent)
        beats = jnp.where(_below(others, points) & alive[None], jnp.float32(1), jnp.float32(0))
        # Whoever beats most of the survivors will beat most of their neighbours too.
        kills = jnp.sum(beats, axis=1)
        turn = (jnp.arange(_STRONG) == kept.turn % _STRONG) & (kills.max() > 0)
        strong = jnp.where(turn[:, None], others.T[jnp.argmax(kills)][None], kept.strong)
        kept = dataclasses.replace(kept, strong=strong, keys=_keys(strong), turn=kept.turn + 1)
        return kept, alive & ~(jnp.sum(beats, axis=0) > 0)

    def _append(self, columns, offset, alive, kept: _Kept) -> _Kept:
        points = [columns[m] for m in self.metrics]
        # Among themselves: an earlier one beats what it does not exceed, a later one must also be better.
        below = _below(points, points) & alive[:, None]
        earlier = jnp.arange(len(alive))[:, None] < jnp.arange(len(alive))[None]
        alive &= ~jnp.any(below & (earlier | ~below.T), axis=0)
        # What the buffer cannot hold goes to its last places, which are never read.
        slot = jnp.minimum(kept.count + jnp.cumsum(alive) - 1, _CAPACITY + _APPENDED - 1)
        slot = jnp.where(alive, slot, _CAPACITY + _APPENDED)
        put = lambda old, new: old.at[slot].set(new, mode="drop")
        return dataclasses.replace(
            kept,
            front=tuple(
                put(old, new) for old, new in zip(kept.front, columns[: len(kept.front)], strict=True)
            ),
            front_at=put(kept.front_at, offset),
            count=kept.count + jnp.sum(alive, dtype=jnp.int32),
        )


def _bits(x):
    return lax.bitcast_convert_type(x, jnp.int32 if x.dtype == jnp.float32 else jnp.int64)


def _keys(strong):
    """Floats that are not negative as integers in the same order; negative ones are made to beat nothing.

    Integers need no care for NaN: comparing them is twice as fast. A negative figure of a design becomes -1,
    which nothing beats, so negative figures cost time, not designs.
    """
    bits = _bits(strong)
    return jnp.where(bits < 0, jnp.iinfo(bits.dtype).max - 1, bits)


def _below(a, b):
    """(M, n), (M, m) -> (n, m): a is nowhere above b."""
    return _all([x[:, None] <= y[None, :] for x, y in zip(a, b, strict=True)])


def _all(conditions):
    result = conditions[0]
    for condition in conditions[1:]:
        result &= condition
    return result


def _filled(points: np.ndarray, count: int, metrics: int) -> np.ndarray:
    """(count, metrics), spread evenly over the points; infinite (they beat nothing) where there are none."""
    result = np.full((count, metrics), math.inf, np.dtype(jnp.result_type(float)))
    if len(points):
        chosen = np.unique(np.linspace(0, len(points) - 1, count).round().astype(int))
        result[: len(chosen)] = points[chosen]
    return result
