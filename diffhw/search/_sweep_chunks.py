"""Doing one chunk: dispatch it, wait for it, and boil it down to the few designs that matter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffhw.search._sweep_front import Found, Front, Leaders, empty, join
from diffhw.search._sweep_order import Enumerated
from diffhw.search._sweep_plan import Plan
from diffhw.search._sweep_program import KNOWN, Figures, Program
from diffhw.search._sweep_record import (
    FullProgram,
    leaders_of,
    parquet,
    survivors_of,
    table_of,
    variable_columns,
)

__all__ = ["Done", "FullRunner", "Runner", "blank", "runner_of"]

_SPARE = 8  # places for designs that were drawn twice


@dataclass(frozen=True)
class Done:
    """A finished chunk. front: what no point known so far beats.  record: a Parquet file, or None."""

    feasible: int
    best: Found
    front: Found
    record: bytes | None = None


class Runner:
    """Chunks of which only the best designs and the front leave the device."""

    def __init__(self, plan: Plan, leaders: Leaders, front: Front, devices: Sequence):
        self.plan, self.leaders, self.front = plan, leaders, front
        self.drawn = not isinstance(plan.order, Enumerated)
        figures = Figures(plan.evaluate, plan.pareto, plan.names, plan.feasible)
        self.program = Program(plan.order, figures, plan.top_k + _SPARE * self.drawn, devices)
        self.program.compile(0)

    def start(self, chunk: int) -> list[tuple]:
        """Dispatch; returns at once."""
        first = chunk * self.plan.chunk
        stop, stretch = min(first + self.plan.chunk, self.plan.total), self.plan.order.stretch
        pieces = []
        while first < stop:
            end = min(stop, first - first % stretch + stretch) if stretch else stop
            pieces.append(self._ask(first, 0, end - first))
            first = end
        return pieces

    def finish(self, chunk: int, pieces: list[tuple]) -> Done:
        """Wait, and ask again where something did not fit."""
        calls, waiting = [], list(pieces)
        while waiting:
            position, skip, stop, running = waiting.pop(0)
            call = self.program.read(running, position)
            if self._is_whole(call):
                calls.append(call)
                continue
            middle = (skip + stop) // 2
            waiting += [self._ask(position, *half) for half in ((skip, middle), (middle, stop))]
        best = self.leaders.best(join([found for call in calls for found in call.best]))
        return Done(sum(call.feasible for call in calls), best, join([call.front for call in calls]))

    def _ask(self, position: int, skip: int, stop: int) -> tuple:
        known = self.front.known(position, KNOWN)
        return position, skip, stop, self.program.start(position, skip, stop, self.leaders.bar, known)

    def _is_whole(self, call) -> bool:
        if call.overflow:
            return False
        # A full list in which designs repeat may hide others.
        return not self.drawn or all(
            len(found) < self.program.top_k or len(self.leaders.different(found)) >= self.plan.top_k
            for found in call.best
        )


class FullRunner:
    """Chunks of which every design is written down."""

    def __init__(self, plan: Plan, leaders: Leaders, front: Front, devices: Sequence):
        self.plan, self.leaders, self.front = plan, leaders, front
        flag = () if plan.feasible is None else (plan.feasible,)
        names = tuple(dict.fromkeys([*plan.names, *plan.recorded, *flag]))
        self.columns = variable_columns(plan.space, names)
        parquet({"design": np.zeros(0, np.int64)})  # raises without pyarrow, before anything is evaluated
        self.program = FullProgram(plan.order, plan.evaluate, names, plan.chunk, devices)
        self.program.compile(0)

    def start(self, chunk: int) -> Any:
        """Dispatch; returns at once."""
        return self.program.start(chunk * self.plan.chunk)

    def finish(self, chunk: int, running: Any) -> Done:
        """Wait, sort out the best designs and the front, make the table."""
        plan, first = self.plan, chunk * self.plan.chunk
        count = min(plan.chunk, plan.total - first)
        figures = self.program.read(running, count)
        at = first + np.arange(count, dtype=np.int64)
        legal = np.ones(count, bool) if plan.feasible is None else figures[plan.feasible] > 0
        found = Found(at, tuple(figures[name] for name in plan.names)).take(np.flatnonzero(legal))
        best = leaders_of(self.leaders, found)
        front = survivors_of(self.front, found) if plan.metrics else found.take(slice(0, 0))
        recorded = {name: figures[name] for name in plan.recorded}
        table = table_of(plan.space, plan.order.index(at), at, recorded, self.columns)
        return Done(int(legal.sum()), best, front, parquet(table))


def runner_of(plan: Plan, leaders: Leaders, front: Front, devices: Sequence) -> Runner | FullRunner:
    """What the plan needs, compiled."""
    return (FullRunner if plan.recorded else Runner)(plan, leaders, front, devices)


def blank(plan: Plan) -> Found:
    """No designs, with the figures of the plan."""
    return empty(len(plan.names), np.dtype(jnp.result_type(float)))
