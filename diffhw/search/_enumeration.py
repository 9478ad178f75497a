"""Every design of a space: a certified optimum, the exact best few, the exact Pareto set."""

import math
from collections import deque
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffhw.search._archive import Archive, Progress
from diffhw.search._pareto import nondominated
from diffhw.search._problem import MARGIN, MOST_EXACT
from diffhw.search._result import Designs, SearchResult, all_names, binding_of, key_of, settle, shared_fields
from diffhw.spaces import Space

__all__ = ["enumeration"]

_IN_FLIGHT = 3  # chunks dispatched before the first is waited for
_REFERENCES = 32  # points of the running front that the device compares with


class _Sweep:
    """The compiled chunk: evaluate, compare with what is known, hand back the few rows that matter."""

    def __init__(self, archive: Archive, chunk: int, devices: Sequence):
        self.problem, self.space = archive.problem, archive.space
        self.chunk, self.devices = chunk, tuple(devices)
        own = 1 + len(archive.constraints)
        self.axes = slice(own, own + len(self.problem.metrics)) if self.problem.metrics else slice(0, own)
        self.names = all_names(archive)
        self.mesh = Mesh(np.array(self.devices), ("population",))
        offsets = np.arange(chunk * len(self.devices), dtype=np.int32)
        self.offsets = jax.device_put(offsets, NamedSharding(self.mesh, P("population")))

    def _part(self, offsets, start, count, threshold, limits, references):
        index = self.space.advance(start, offsets)
        objective, constrained, metrics = jax.vmap(lambda row: self.problem.figures(self.space.at(row)))(
            index
        )
        figures = jnp.concatenate([objective[:, None], constrained, metrics], axis=1)
        excess = jnp.max(constrained / limits[None] - 1.0, axis=1, initial=-1.0)
        real = (offsets < count) & jnp.isfinite(objective) & ~jnp.isnan(excess)
        points = figures[:, self.axes]

        # One reference at a time: a (rows, references, metrics) array would be slower on a CPU.
        def compare(r, beaten):
            lower = jnp.all(references[r][None] <= points, axis=1)
            return beaten | (lower & jnp.any(references[r][None] < points, axis=1))

        beaten = lax.fori_loop(0, _REFERENCES, compare, jnp.zeros_like(real))
        keep = real & (excess <= MARGIN) & ((objective <= threshold) | ((excess <= 0) & ~beaten))
        nearest = jnp.argmin(jnp.where(real, excess, jnp.inf))
        free = jnp.argmin(jnp.where(real, objective, jnp.inf))
        extremes = jnp.stack([nearest, free])
        # The host compacts: a nonzero on the device costs more to compile than it saves.
        return keep, figures, offsets[extremes], figures[extremes], real[extremes]

    def program(self, archive: Archive):
        """The compiled chunk over all devices, and the float64 evaluation beside it."""
        spread, same = P("population"), P()
        sharded = jax.shard_map(
            self._part,
            mesh=self.mesh,
            in_specs=(spread, same, same, same, same, same),
            out_specs=(spread,) * 5,
            check_vma=False,
        )
        dtype = jnp.result_type(float)
        shapes = (
            self.offsets,
            jax.ShapeDtypeStruct((len(self.space.sizes),), jnp.int32),
            jax.ShapeDtypeStruct((), jnp.int32),
            jax.ShapeDtypeStruct((), dtype),
            jax.ShapeDtypeStruct((len(archive.limits),), dtype),
            jax.ShapeDtypeStruct((_REFERENCES, len(self.names[self.axes])), dtype),
        )
        name = ("sweep", self.chunk, self.devices)
        builders = archive.problem.evaluators() | {name: lambda: jax.jit(sharded).lower(*shapes)}
        del builders["evaluate"]
        archive.problem.prepare(builders)
        return archive.problem.program(name)


class _Pool:
    """What the host keeps: candidates for the best few, the front, and the two extreme designs."""

    def __init__(self, archive: Archive, sweep: _Sweep, top: int):
        self.limits, self.axes, self.top = archive.limits, sweep.axes, top
        width, variables = len(sweep.names), len(archive.space.sizes)
        self.constrained = slice(1, 1 + len(self.limits))
        empty = (np.zeros((0, variables), np.int32), np.zeros((0, width)))
        self.index, self.figures = empty
        self.front_index, self.front = empty
        self.extremes = [empty, empty]  # nearest to feasible, best without constraints
        self.threshold = self.best = math.inf

    def excess(self, figures: np.ndarray) -> np.ndarray:
        return np.max(figures[:, self.constrained] / self.limits - 1.0, axis=1, initial=-1.0)

    def add(self, index: np.ndarray, figures: np.ndarray) -> None:
        excess = self.excess(figures)
        near = (excess <= MARGIN) & (figures[:, 0] <= self.threshold)
        self.index = np.concatenate([self.index, index[near]])
        self.figures = np.concatenate([self.figures, figures[near]])
        self._prune()
        legal = excess <= 0
        if legal.any():
            self.best = min(self.best, float(figures[legal, 0].min()))
            joint = np.concatenate([self.front, figures[legal]])
            front = nondominated(joint[:, self.axes])
            self.front_index = np.concatenate([self.front_index, index[legal]])[front]
            self.front = joint[front]

    def _prune(self) -> None:
        # Designs within the margin of the k-th safe one may still be among the best k in float64.
        safe = self.figures[self.excess(self.figures) <= -MARGIN, 0]
        if len(safe) >= self.top:
            self.threshold = float(np.partition(safe, self.top - 1)[self.top - 1]) * (1 + MARGIN)
            near = self.figures[:, 0] <= self.threshold
            self.index, self.figures = self.index[near], self.figures[near]

    def extreme(self, which: int, index: np.ndarray, figures: np.ndarray) -> None:
        old_index, old = self.extremes[which]
        index, figures = np.concatenate([old_index, index]), np.concatenate([old, figures])
        score = self.excess(figures) if which == 0 else figures[:, 0]
        best = np.array([score.argmin()])
        self.extremes[which] = index[best], figures[best]

    def references(self, shape: tuple[int, int]) -> np.ndarray:
        """Points spread along the front; inf where there are none (they beat nothing)."""
        points = np.full(shape, np.inf)
        if len(self.front):
            spread = np.linspace(0, len(self.front) - 1, shape[0]).round().astype(int)
            points[:] = self.front[spread][:, self.axes]
        return points


def enumeration(
    objective: Callable,
    space: Space,
    key: Array | int = 0,
    *,
    constraints: Sequence[tuple] = (),
    metrics: Sequence = (),
    budget: float | None = None,
    progress: Progress | None = None,
    resume: SearchResult | None = None,
    top: int = 16,
    chunk: int = 32_768,
    devices: Sequence | None = None,
) -> SearchResult:
    """Evaluate every design: the optimum is certified, ``top`` and ``pareto`` are exact.

    Streams in chunks of one shape, sharded over the devices. Ties that float32 cannot decide (within
    1e-5) are settled in float64; the Pareto set is exact in the default dtype, of equal points one is kept.

    objective, constraints, metrics, progress: as for `search.gradient`.  key: only recorded.
    budget: stop after so many designs (rounded up to chunks): not certified then, and ``resume``
        goes on from there.  top: how many of the best to keep.
    chunk: designs per device and call.  devices: default all local ones.
    Raises ValueError for a continuous space.
    """
    if space.is_continuous:
        next(space.enumerate(1))  # raises, naming the variables without a grid
    if top < 1 or chunk < 1:
        raise ValueError(f"top and chunk must be >= 1, got {top} and {chunk}")
    archive = Archive(
        objective, space, constraints=constraints, metrics=metrics, budget=budget, progress=progress
    )
    devices = jax.local_devices() if devices is None else devices
    size = math.prod(space.sizes)
    chunk = min(chunk, 1 << max(0, math.ceil(size / len(devices)) - 1).bit_length())
    sweep = _Sweep(archive, chunk, devices)
    pool = _Pool(archive, sweep, top)
    program = sweep.program(archive)
    archive.expected = size
    position = 0
    if resume is not None:
        position = int(resume.evaluations)
        _reload(archive, pool, resume)
    dtype = np.dtype(jnp.result_type(float))
    limits = np.asarray(archive.limits, dtype)
    stride = chunk * len(devices)
    stop = size if budget is None else min(size, math.ceil(budget / stride) * stride)
    running: deque = deque()
    while position < stop or running:
        if position < stop:
            count = min(stride, size - position)
            start = space.from_flat(position)
            threshold = np.asarray(pool.threshold, dtype)
            references = pool.references((_REFERENCES, len(sweep.names[sweep.axes]))).astype(dtype)
            out = program(sweep.offsets, start, np.int32(count), threshold, limits, references)
            running.append((start, count, out))
            position += count
        # The host digests one chunk while others run: a CPU device uses a core per chunk in flight.
        if len(running) >= _IN_FLIGHT or position >= stop:
            _digest(archive, sweep, pool, *running.popleft())
    return _finish(archive, sweep, pool, key, complete=position >= size)


def _digest(archive: Archive, sweep: _Sweep, pool: _Pool, start, count, out) -> None:
    keep, figures, offsets, extremes, real = out
    index_of = lambda places: archive.space.advance(start.astype(np.int64), places.astype(np.int64))
    rows = np.flatnonzero(np.asarray(keep))
    if len(rows):
        pool.add(index_of(rows), np.asarray(figures)[rows].astype(np.float64))
    offsets, extremes, real = np.asarray(offsets), np.asarray(extremes, np.float64), np.asarray(real)
    for which in (0, 1):
        places = np.arange(which, len(real), 2)[real[which::2]]
        if len(places):
            pool.extreme(which, index_of(offsets[places]), extremes[places])
    archive.note(count, pool.best)


def _reload(archive: Archive, pool: _Pool, result: SearchResult) -> None:
    names = all_names(archive)
    if result.method != "enumeration" or result.seen is None or result.seen.names != names:
        raise ValueError("resume: needs an earlier enumeration with the same constraints and metrics")
    archive.restore(result)
    pool.add(result.seen.index, result.seen.figures)
    for which in (0, 1):
        pool.extreme(which, result.seen.index, result.seen.figures)


def _finish(archive: Archive, sweep: _Sweep, pool: _Pool, key, complete: bool) -> SearchResult:
    seen_index = np.concatenate([pool.index, pool.front_index, *[i for i, _ in pool.extremes]])
    seen = np.concatenate([pool.figures, pool.front, *[f for _, f in pool.extremes]])
    if not len(seen):
        raise ValueError("the objective is not a number for any design of this space")
    best, value, values, violation = settle(archive, seen_index, seen[:, 0], seen[:, pool.constrained])
    feasible = violation == 0
    (_, free) = pool.extremes[1]
    leaders = Designs(np.zeros((0, seen_index.shape[1]), np.int32), seen[:0], sweep.names)
    if len(pool.index):
        index = pool.index[np.argsort(pool.figures[:, 0], kind="stable")[:MOST_EXACT]]
        objective, constrained, metrics = archive.problem.exact(index)
        exact = np.concatenate([objective[:, None], constrained, metrics], axis=1)
        legal = np.flatnonzero(pool.excess(exact) <= 0)
        order = np.lexsort((*index[legal].T[::-1], exact[legal, 0]))[: pool.top]
        leaders = Designs(index[legal][order], exact[legal][order], sweep.names)
    binding = binding_of(archive, feasible, value, free[0, 0], values, free[0, pool.constrained])
    return SearchResult(
        **shared_fields(archive, "enumeration", key_of(key)),
        best=archive.space.at(best),
        best_index=best,
        choices=archive.space.labels(best),
        value=value,
        feasible=feasible,
        violation=violation,
        constraint_values={one.name: float(v) for one, v in zip(archive.constraints, values, strict=True)},
        binding=binding,
        certified=complete,
        optimality_gap=0.0 if complete and feasible else None,
        pareto=Designs(pool.front_index, pool.front[:, sweep.axes], sweep.names[sweep.axes]),
        top=leaders,
        seen=Designs(seen_index, seen, sweep.names),
    )
