"""Millions to billions of designs: streamed in chunks, resumable, on all devices and several hosts.

A *chunk* is the unit of resumption, one file when finished; a *block* is what a device evaluates in one
step. Positions in the order are cut into chunks once and for all, so nothing depends on who works
on which chunk, when, or how often it was interrupted.
"""

import contextlib
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffhw.search._sweep_chunks import Done, blank, runner_of
from diffhw.search._sweep_claims import Claims
from diffhw.search._sweep_front import Found, Front, Leaders
from diffhw.search._sweep_plan import Plan
from diffhw.search._sweep_record import parquet, table_of, variable_columns
from diffhw.search._sweep_result import SweepDesigns, SweepResult, SweepStatus
from diffhw.search._sweep_store import Store
from diffhw.spaces import Space

__all__ = ["sweep"]

_IN_FLIGHT = 2  # chunks dispatched before the first is waited for
_LOOK_S = 0.1  # how often to look whether others have finished


def sweep(
    evaluate: Callable[[Any], Mapping[str, Any]],
    space: Space,
    *,
    out: Path | str | None,
    objective: str,
    order: str = "enumerate",
    budget: int | None = None,
    seed: int = 0,
    top_k: int = 10,
    pareto: tuple[str, ...] = (),
    record: tuple[str, ...] | bool = False,
    chunk: int | None = None,
    block: int | None = None,
    identity: Mapping[str, Any],
    feasible: str | None = "feasible",
    progress: Callable[[SweepStatus], None] | None = None,
    host: tuple[int, int] = (0, 1),
    claim_seconds: float = 60.0,
) -> SweepResult:
    """Evaluate the designs of a space, keep the best and the Pareto set, lose nothing in a kill.

    evaluate: one design -> {name: scalar}, pure JAX; all figures are better when smaller.
    out: folder of the sweep; None: nothing is written. The same call on the same folder goes on where the
        last one stopped; another one is refused.  objective: name of the figure to rank by.
    order: "enumerate" (by flat number), "random" (independent draws) or "low-discrepancy".
    budget: designs to visit; None: all of them (enumerate only).  seed: of the other two orders.
    top_k: how many of the best to keep.  pareto: names of the axes of the front.
    record: True for all figures of all designs, or names of some: Parquet files, needs pyarrow.
    chunk: designs of a unit of work; default 2^18 to 2^22, more beyond 4e9 designs; 2^18 with ``record``.
    block: designs per device and step; default 2^15 on CPUs, 2^20 elsewhere.
    identity: what decides the result beside the other arguments (model, network, options); JSON-able. The
        traced ``evaluate`` is compared too: changed code is refused.
    feasible: name of a figure that is 0 for designs to be left out of the best and the front; None, or a name
        that ``evaluate`` does not return: all count.
    progress: called with a `SweepStatus` after every chunk.
    host: (number of this process, how many): only says where to begin; any number of processes may work on
        one folder, and come and go.  claim_seconds: a chunk of a process that was not heard of for so long is
        taken over (at once if the process is dead on the same machine).

    The best, the front and the record are functions of the arguments alone, to the last bit: whatever the
    number of devices (on one kind of processor), processes, interruptions; with ``record`` another compiled
    program runs, whose figures may differ from those without it in the last bit. Of equal designs, the
    earlier in the order wins. Designs whose objective is not a number or infinite are never among the best.
    Nothing is differentiated. Memory does not grow with the number of designs, only with the front.

    Raises ValueError for a bad argument or a folder with another sweep (naming the difference), OSError if
    the folder cannot be written (what is finished stays), ImportError for a record without pyarrow.

    >>> from diffhw.spaces import Integer, Space
    >>> space = Space({"rows": Integer(1, 64), "cols": Integer(1, 64)})
    >>> def evaluate(d):
    ...     return {"cycles": 4096 / (d["rows"] * d["cols"]), "area": d["rows"] + d["cols"]}
    >>> found = sweep(evaluate, space, out=None, objective="cycles", pareto=("cycles", "area"), identity={})
    >>> found.designs, found.labels(0), len(found.pareto)
    (4096, {'cols': 64, 'rows': 64}, 127)
    """
    begun = time.perf_counter()
    if not claim_seconds > 0:
        raise ValueError(f"claim_seconds must be > 0, got {claim_seconds!r}")
    own, count = host
    if not 0 <= own < count:
        raise ValueError(f"host must be (number, count) with 0 <= number < count, got {host!r}")
    plan = Plan(
        evaluate,
        space,
        objective=objective,
        order=order,
        budget=budget,
        seed=seed,
        top_k=top_k,
        pareto=pareto,
        record=record,
        chunk=chunk,
        block=block,
        identity=identity,
        feasible=feasible,
    )
    store = None if out is None else Store(Path(out), plan.manifest, claim_seconds)
    claims = None if store is None else Claims(store.out / "claims", own, claim_seconds)
    work = _Work(plan, store, claims, plan.chunks * own // count, progress)
    with contextlib.ExitStack() as stack:
        if store is not None and claims is not None:
            with store.guard():
                stack.enter_context(claims)
        work.run()
        if claims is not None:
            claims.clear()
    return _answer(plan, store, work, begun)


class _Work:
    """The state of a sweep on the host."""

    def __init__(self, plan: Plan, store: Store | None, claims: Claims | None, offset: int, progress):
        self.plan, self.store, self.claims, self.progress = plan, store, claims, progress
        self.leaders = Leaders(plan.order, plan.top_k, blank(plan))
        self.front = Front(plan.metrics, blank(plan))
        self.order = [*range(offset, plan.chunks), *range(offset)]
        self.missing = dict.fromkeys(self.order)  # an ordered set
        self.feasible = self.evaluated = 0
        self.compile_seconds, self.began, self.spent = 0.0, time.perf_counter(), 0.0
        self.at_start = 0

    def run(self) -> None:
        """Until no chunk is missing."""
        for chunk in self.order:
            self._fetch(chunk)
        self.at_start = self._designs()
        if not self.missing:
            return
        before = time.perf_counter()
        runner = runner_of(self.plan, self.leaders, self.front, jax.local_devices())
        self.compile_seconds = time.perf_counter() - before
        self.began = time.perf_counter()
        running: deque = deque()
        ours: set[int] = set()
        while self.missing or running:
            for chunk in self._open(ours):
                ours.add(chunk)
                running.append((chunk, runner.start(chunk)))
                if len(running) >= _IN_FLIGHT:
                    self._finish(runner, ours, *running.popleft())
            if running:
                self._finish(runner, ours, *running.popleft())
            elif self.missing:
                time.sleep(min(_LOOK_S, self.claims.patience / 5 if self.claims else _LOOK_S))
        self.spent = time.perf_counter() - self.began

    def _open(self, ours: set[int]) -> Iterator[int]:
        """Missing chunks that nobody else is working on, each claimed."""
        for chunk in list(self.missing):
            if chunk in ours or chunk not in self.missing or self._fetch(chunk):
                continue
            if self._claim(chunk):
                # It may have been finished between the look and the claim.
                if self._fetch(chunk):
                    if self.claims is not None:
                        self.claims.release(chunk)
                    continue
                yield chunk

    def _claim(self, chunk: int) -> bool:
        if self.store is None or self.claims is None:
            return True
        with self.store.guard():
            return self.claims.take(chunk)

    def _fetch(self, chunk: int) -> bool:
        """Take over a chunk that is finished on disk."""
        if self.store is None or not self.store.is_done(chunk):
            return False
        loaded = self.store.load(chunk, blank(self.plan).figures[0].dtype)
        if loaded is None:
            return False
        feasible, best, front = loaded
        self._merge(chunk, feasible, best, front)
        return True

    def _finish(self, runner, ours: set[int], chunk: int, running) -> None:
        done: Done = runner.finish(chunk, running)
        front = self._merge(chunk, done.feasible, done.best, done.front)
        if self.store is not None:
            self.store.save(chunk, done.feasible, done.best, front, done.record)
        if self.claims is not None:
            self.claims.release(chunk)
        ours.discard(chunk)
        self.evaluated += self._length(chunk)
        if self.progress is not None:
            self.progress(self._status())

    def _merge(self, chunk: int, feasible: int, best: Found, front: Found) -> Found:
        self.missing.pop(chunk)
        self.feasible += feasible
        self.leaders.add(best)
        return self.front.add(front)

    def _length(self, chunk: int) -> int:
        return min(self.plan.chunk, self.plan.total - chunk * self.plan.chunk)

    def _designs(self) -> int:
        last = self.plan.chunks - 1
        whole = (self.plan.chunks - len(self.missing)) * self.plan.chunk
        return whole if last in self.missing else whole - self.plan.chunk + self._length(last)

    def _status(self) -> SweepStatus:
        done = self._designs()
        rate = (done - self.at_start) / max(time.perf_counter() - self.began, 1e-9)
        found = self.leaders.found
        return SweepStatus(
            done=done,
            total=self.plan.total,
            rate=rate,
            eta_s=(self.plan.total - done) / rate if rate > 0 else None,
            best=float(found.figures[0][0]) if len(found) else math.inf,
            chunks=self.plan.chunks - len(self.missing),
            chunks_total=self.plan.chunks,
        )


def _designs(plan: Plan, found: Found, names: tuple[str, ...]) -> SweepDesigns:
    index = plan.order.index(found.at)
    columns = [found.figures[plan.names.index(name)] for name in names]
    figures = np.stack(columns, axis=1) if columns else np.zeros((len(found), 0))
    flat = tuple(plan.space.to_flat(row) for row in index)
    return SweepDesigns(index, figures.astype(np.float64), names, flat, found.at)


def _answer(plan: Plan, store: Store | None, work: _Work, begun: float) -> SweepResult:
    top = _designs(plan, work.leaders.found, plan.names)
    names = (*plan.pareto, *(name for name in plan.names if name not in plan.pareto)) if plan.pareto else ()
    front = _designs(plan, work.front.found, names)
    peak = _peak_memory()
    seconds = time.perf_counter() - begun
    rate = work.evaluated / work.spent if work.evaluated else 0.0
    files: list[Path] = []
    if store is not None:
        result = {
            "designs": plan.total,
            "feasible": work.feasible,
            "objective": plan.objective,
            "order": plan.order.name,
            "seed": plan.seed,
            "top": _rows(plan, top),
            "pareto": _rows(plan, front),
        }
        timing = {
            "evaluated": work.evaluated,
            "seconds": seconds,
            "compile_seconds": work.compile_seconds,
            "designs_per_second": rate,
            "peak_memory_bytes": peak,
            "devices": [str(device) for device in jax.local_devices()],
            "notes": store.notes,
        }
        tables = {}
        with contextlib.suppress(ImportError):  # result.json holds the same
            tables = {"top.parquet": _table(plan, top), "pareto.parquet": _table(plan, front)}
        files = store.finish(result, timing, tables)
        files += [store.part(c) for c in range(plan.chunks)] if plan.recorded else []
    return SweepResult(
        space=plan.space,
        objective=plan.objective,
        order=plan.order.name,
        seed=plan.seed,
        top=top,
        pareto=front,
        designs=plan.total,
        feasible=work.feasible,
        evaluated=work.evaluated,
        rate=rate,
        seconds=seconds,
        compile_seconds=work.compile_seconds,
        peak_memory_bytes=peak,
        certified=plan.order.name == "enumerate" and plan.total == plan.space.size,
        files=tuple(files),
        notes=tuple(store.notes) if store is not None else (),
    )


def _rows(plan: Plan, designs: SweepDesigns) -> list[dict[str, Any]]:
    rows = []
    for i in range(len(designs)):
        figures = {name: float(x) for name, x in zip(designs.names, designs.figures[i], strict=True)}
        labels = plan.space.labels(designs.index[i])
        rows.append(
            {"flat": designs.flat[i], "design": int(designs.position[i])} | figures | {"values": labels}
        )
    return rows


def _table(plan: Plan, designs: SweepDesigns) -> bytes:
    columns = variable_columns(plan.space, designs.names)
    table = table_of(plan.space, designs.index, designs.position, designs.metrics, columns)
    small = plan.space.is_continuous or plan.space.size < 2**63
    flat = np.array(designs.flat, np.int64 if small and len(designs) else object)
    return parquet({"flat": flat if small else np.array([str(x) for x in designs.flat], object), **table})


def _peak_memory() -> int:
    try:
        import resource
    except ImportError:  # not a Unix
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
