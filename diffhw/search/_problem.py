"""An objective on a space with constraints, and the few compiled programs that evaluate it."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffhw.spaces import Space

__all__ = ["Constraint", "Problem", "constraints_of", "host_generator", "problem_of"]

Measure = Callable[[Any], Array] | str

BATCH = 2048
"""Designs per call. One size: a padded call costs milliseconds, another compile half a second."""

EXACT_BATCH = 64
"""Designs per float64 call."""

MOST_EXACT = 4096
"""Designs judged in float64 at the end of a search, at most."""

MARGIN = 1e-5
"""Relative error beyond which a float32 comparison is taken as decided (totals are within about 1e-6)."""


@dataclass(frozen=True)
class Constraint:
    """``measure(design) <= limit``; ``measure`` may also name a figure of the objective. limit > 0."""

    measure: Measure
    limit: float
    name: str


def _name_of(measure: Measure, number: int, kind: str) -> str:
    name = measure if isinstance(measure, str) else getattr(measure, "__name__", "")
    return f"{kind} {number}" if name in ("", "<lambda>") else name


def constraints_of(constraints: Sequence[tuple]) -> tuple[Constraint, ...]:
    """Check ``(function, limit)`` and ``(function, limit, name)`` entries. Raises ValueError."""
    parsed: list[Constraint] = []
    for number, entry in enumerate(constraints):
        if not isinstance(entry, tuple | list) or len(entry) not in (2, 3):
            raise ValueError(f"a constraint is (function, limit) or (function, limit, name), got {entry!r}")
        name = str(entry[2]) if len(entry) == 3 else _name_of(entry[0], number, "constraint")
        limit = float(entry[1])
        if not (math.isfinite(limit) and limit > 0):
            raise ValueError(f"the limit of {name} must be finite and > 0, got {limit:g}")
        if any(one.name == name for one in parsed):
            raise ValueError(f"two constraints are called {name!r}; give the second another name")
        parsed.append(Constraint(entry[0], limit, name))
    return tuple(parsed)


class Problem:
    """Compiled programs for one objective, its constrained quantities and its metrics.

    objective: design -> positive scalar, or -> (scalar, {name: scalar}): then constraints and
        metrics may be given by these names, and what they share is computed once.
    measures, metrics: functions of the design, or names.
    """

    def __init__(self, objective: Callable, space: Space, measures: tuple, metrics: tuple):
        self.objective, self.space = objective, space
        self.measures, self.metrics = measures, metrics
        self.compile_seconds = 0.0
        self._programs: dict[Any, Any] = {}

    def figures(self, design) -> tuple[Array, Array, Array]:
        """Objective (), constrained quantities (C,) and metrics (M,) of one design, in JAX."""
        out = self.objective(design)
        value, named = out if isinstance(out, tuple) else (out, {})

        def scalar(what, name) -> Array:
            what = jnp.asarray(what, float)
            if what.shape != ():
                raise ValueError(f"{name} must return a scalar, got shape {what.shape}")
            return what

        def measured(measure: Measure, number: int) -> Array:
            name = _name_of(measure, number, "function")
            if isinstance(measure, str) and measure not in named:
                raise ValueError(
                    f"the objective returns no figure {name!r}; it has {', '.join(named) or 'none'}"
                )
            return scalar(named[measure] if isinstance(measure, str) else measure(design), name)

        def stacked(measures) -> Array:
            each = [measured(measure, number) for number, measure in enumerate(measures)]
            return jnp.stack(each) if each else jnp.zeros((0,))

        return scalar(value, "the objective"), stacked(self.measures), stacked(self.metrics)

    def program(self, name, build: Callable[[], Any] | None = None):
        """The compiled program called ``name``; ``build()`` lowers it, unless it was prepared."""
        if build is not None:
            self.prepare({name: build})
        return self._programs[name]

    def prepare(self, builders: dict[Any, Callable[[], Any]]) -> None:
        """Compile several programs at once: tracing in turn, XLA in threads (it leaves the GIL)."""
        begin = time.perf_counter()
        lowered = {name: build() for name, build in builders.items() if name not in self._programs}
        if not lowered:
            return
        with ThreadPoolExecutor(len(lowered)) as pool:
            jobs = {name: pool.submit(one.compile, _effort(name)) for name, one in lowered.items()}
            self._programs |= {name: job.result() for name, job in jobs.items()}
        self.compile_seconds += time.perf_counter() - begin

    def evaluators(self) -> dict[Any, Callable[[], Any]]:
        """Builders of the float32 and the float64 evaluation, for `prepare`."""
        return {"evaluate": lambda: self._lower(BATCH), "exact": self._lower_exact}

    def _lower(self, batch: int):
        shape = jax.ShapeDtypeStruct((batch, len(self.space.sizes)), jnp.int32)
        return jax.jit(jax.vmap(lambda index: self.figures(self.space.at(index)))).lower(shape)

    def _lower_exact(self):
        try:
            with jax.enable_x64(True):
                return self._lower(EXACT_BATCH)
        except TypeError as error:
            error.add_note(
                "The objective is traced in float64 too: arrays that it captures (a network, say) must be of "
                "the default dtype then, as in jax.tree.map(lambda x: jnp.asarray(x, float), network)."
            )
            raise

    def _batched(self, program, index: np.ndarray, batch: int) -> tuple[np.ndarray, ...]:
        parts = []
        for begin in range(0, len(index), batch):
            rows = index[begin : begin + batch]
            count = len(rows)
            if count < batch:
                rows = np.concatenate([rows, np.broadcast_to(rows[:1], (batch - count, rows.shape[1]))])
            parts.append((program(rows), count))
        columns = zip(*[[np.asarray(x, np.float64)[:n] for x in out] for out, n in parts], strict=True)
        return tuple(np.concatenate(column) for column in columns)

    def evaluate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Objective (n,), constrained quantities (n, C), metrics (n, M) in the default dtype."""
        program = self.program("evaluate", lambda: self._lower(BATCH))
        objective, constrained, metrics = self._batched(program, np.asarray(index, np.int32), BATCH)
        return objective, constrained, metrics

    def exact(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same in float64. Arrays that the functions captured keep their own dtype."""
        program = self.program("exact", self._lower_exact)
        with jax.enable_x64(True):
            objective, constrained, metrics = self._batched(program, np.asarray(index, np.int32), EXACT_BATCH)
        return objective, constrained, metrics


def _effort(name) -> dict[str, int] | None:
    """Compiler options: programs that run for less time than they compile get less optimisation.

    On a 30-layer systolic network, level 1 compiled value and gradient in 5.4 instead of 7.1 CPU
    seconds and ran no slower; level 0 ran six times slower, which 64 designs do not notice.
    """
    if isinstance(name, tuple) and name[0] == "sweep":
        return None
    return {"xla_backend_optimization_level": 0 if name == "exact" else 1}


def host_generator(key: Array, number: int) -> np.random.Generator:
    """Random numbers of round ``number``, on the host: the device's generator takes a second to compile."""
    return np.random.default_rng([*np.asarray(jax.random.key_data(key)).ravel().tolist(), number])


@lru_cache(maxsize=8)
def _kept(objective, space, measures, metrics) -> Problem:
    return Problem(objective, space, measures, metrics)


def problem_of(objective, space, measures: tuple, metrics: tuple) -> Problem:
    """A `Problem`; calls with the same function and space objects share their compiled programs."""
    try:
        return _kept(objective, space, measures, metrics)
    except TypeError:  # a callable that cannot be hashed
        return Problem(objective, space, measures, metrics)
