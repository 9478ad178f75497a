"""Gradient search: many projected Adam runs through snapped designs, then block refinement.

Each run sees only legal designs (straight-through snapping), so that the best feasible one on its
way can be kept: relaxed runs hardened at the end were mostly infeasible. Constraints enter as an
augmented Lagrangian on log(value / limit):

    loss = log f + sum_c (max(0, l_c + mu g_c)^2 - l_c^2) / (2 mu),   g_c = log(value_c / limit_c)

with l_c <- max(0, l_c + mu g_c) every few steps (Nocedal and Wright, Numerical Optimization, 17.4).
"""

import math
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diffhw.search._archive import Archive, Progress
from diffhw.search._problem import host_generator
from diffhw.search._refine import Blocks, Refiner
from diffhw.search._result import SearchResult, finish, key_of
from diffhw.spaces import Choice, Space

__all__ = ["gradient"]

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # of Adam (arXiv 1412.6980)
_TINY = 1e-30  # below any figure with a physical unit we use; keeps logarithms finite
_REPEATS = 7  # timed runs behind the measured cost of a gradient


class _Descent:
    """The compiled part: ``chunk`` steps of every run, and the same without gradients for timing."""

    def __init__(
        self, archive: Archive, restarts, chunk, steps, learning_rate, final_rate, temperature, penalty
    ):
        self.problem, self.space = archive.problem, archive.space
        self.restarts, self.chunk, self.steps = restarts, chunk, steps
        self.learning_rate, self.final_rate = learning_rate, final_rate
        self.temperature, self.penalty = temperature, penalty
        choices = [one.variable for one in self.space.variables if isinstance(one.variable, Choice)]
        self.noisy = any(one.relax == "gumbel" for one in choices)
        self.snaps = all(one.relax == "straight_through" for one in choices)
        self.name = (restarts, chunk, steps, learning_rate, final_rate, temperature, penalty)

    def _loss(self, params, multipliers, limits, heat, seed):
        key = jax.random.key(seed.astype(jnp.uint32)) if self.noisy else None
        design = self.space.decode(params, heat, key)
        objective, constrained, metrics = self.problem.figures(design)
        excess = jnp.log(jnp.maximum(constrained, _TINY) / limits)
        pressed = jnp.maximum(0.0, multipliers + self.penalty * excess)
        lagrangian = jnp.sum(pressed**2 - multipliers**2) / (2 * self.penalty)
        loss = jnp.log(jnp.maximum(objective, _TINY)) + lagrangian
        return loss, (objective, constrained, metrics, self.space.index(params), pressed)

    def _schedule(self, step):
        done = step / max(self.steps - 1, 1)
        rate = self.final_rate + (1 - self.final_rate) * 0.5 * (1 + jnp.cos(math.pi * done))
        hot, cold = self.temperature
        return self.learning_rate * rate, hot * (cold / hot) ** done

    def start(self, generator: np.random.Generator):
        """State of the runs, on the host: parameters, both Adam moments, multipliers, seeds of noise."""
        dtype = np.dtype(jnp.result_type(float))
        params = self.space.place(generator.random((self.restarts, self.space.width), dtype))
        zeros = {name: np.zeros_like(leaf) for name, leaf in params.items()}
        multipliers = np.zeros((self.restarts, len(self.problem.measures)), dtype)
        seeds = generator.integers(0, 2**31 - 1, self.restarts, np.int32)
        return params, zeros, zeros, multipliers, seeds

    def steps_with_gradient(self, state, first, limits):
        """``chunk`` Adam steps, then one multiplier update. Also returns the figures at every step."""
        slope = jax.vmap(jax.value_and_grad(self._loss, has_aux=True), in_axes=(0, 0, None, None, 0))

        def step(carry, i):
            params, mean, square, multipliers, seeds, _ = carry
            rate, heat = self._schedule(first + i)
            (_, (*figures, pressed)), grads = slope(params, multipliers, limits, heat, seeds + (first + i))
            grads = jax.tree.map(lambda g: jnp.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0), grads)
            mean = jax.tree.map(lambda m, g: _BETA1 * m + (1 - _BETA1) * g, mean, grads)
            square = jax.tree.map(lambda s, g: _BETA2 * s + (1 - _BETA2) * g * g, square, grads)
            count = first + i + 1.0
            a, b = 1 - _BETA1**count, 1 - _BETA2**count
            params = jax.tree.map(
                lambda p, m, s: p - rate * (m / a) / (jnp.sqrt(s / b) + _EPSILON), params, mean, square
            )
            params = jax.vmap(self.space.project)(params)
            return (params, mean, square, multipliers, seeds, pressed), tuple(figures)

        carry = (*state, state[3])
        (params, mean, square, multipliers, seeds, pressed), path = lax.scan(
            step, carry, jnp.arange(self.chunk, dtype=float)
        )
        pressed = jnp.where(jnp.isfinite(pressed), pressed, multipliers)
        return (params, mean, square, pressed, seeds), path

    def steps_without_gradient(self, state, first, limits):
        """The same evaluations, batch size and loop, values only."""
        value = jax.vmap(self._loss, in_axes=(0, 0, None, None, 0))

        def step(params, i):
            _, heat = self._schedule(first + i)
            loss, (*figures, _) = value(params, state[3], limits, heat, state[4])
            # The next step depends on this one, or the compiler would lift it out of the loop.
            nudge = jax.vmap(lambda p, x: jax.tree.map(lambda leaf: leaf + 1e-9 * jnp.tanh(x), p))
            return nudge(params, loss), tuple(figures)

        return lax.scan(step, state[0], jnp.arange(self.chunk, dtype=float))

    def builders(self) -> dict:
        """What to compile."""
        state = self.start(np.random.default_rng(0))
        scalar = jax.ShapeDtypeStruct((), jnp.result_type(float))
        limits = jax.ShapeDtypeStruct((len(self.problem.measures),), scalar.dtype)
        return {
            ("gradient", *self.name): lambda: jax.jit(self.steps_with_gradient).lower(state, scalar, limits),
            ("value", *self.name): lambda: jax.jit(self.steps_without_gradient).lower(state, scalar, limits),
        }


def _time_ratio(dear: Callable, cheap: Callable) -> float:
    """Median time of ``dear`` over that of ``cheap``, run in turn so that a busy machine hits both."""
    times = []
    for _ in range(_REPEATS + 1):
        for run in (dear, cheap):
            begin = time.perf_counter()
            jax.block_until_ready(run())
            times.append(time.perf_counter() - begin)
    return float(np.median(times[2::2]) / np.median(times[3::2]))


def gradient(
    objective: Callable,
    space: Space,
    key: Array | int,
    *,
    constraints: Sequence[tuple] = (),
    metrics: Sequence = (),
    budget: float | None = None,
    progress: Progress | None = None,
    resume: SearchResult | None = None,
    restarts: int = 64,
    steps: int = 60,
    learning_rate: float = 0.3,
    final_rate: float = 0.05,
    temperature: tuple[float, float] = (1.0, 0.1),
    penalty: float = 20.0,
    update_every: int = 10,
    starts_to_refine: int = 16,
    blocks: Blocks | None = None,
    pairs: bool = True,
    widen: int = 2,
) -> SearchResult:
    """Gradient search ending in block refinement.

    objective: design -> positive scalar to be made small, in JAX and differentiable; or -> (scalar,
        {name: scalar}), and constraints and metrics may then be given by these names (what they
        share is computed once).
    space: what may be chosen.  key: `jax.random.key`, or a seed.
    constraints: (function or name, limit) or (function or name, limit, name): value <= limit, limit > 0.
    metrics: functions or names for the Pareto set; default: the objective and the constrained quantities.
    budget: most evaluations in all, a gradient counted at its measured cost; None: as the recipe needs.
    progress: called with (evaluations done, expected, best feasible objective), at most ten times a second.
    resume: an earlier result for the same objective, space, constraints and metrics: a new round of
        starts is added to all that it has seen.
    restarts, steps: Adam runs side by side, and their length, a multiple of ``update_every``, the steps
        between multiplier updates.
    learning_rate, final_rate: of the start, and its share left at the end (cosine decay).
    temperature: of every `Choice`, first and last.  penalty: mu of the module docstring.
    starts_to_refine: best ends of the runs that go into block refinement.
    blocks, pairs, widen: as for `refine`.

    Raises ValueError for a non-positive limit, budget, or number of restarts or steps.
    """
    for name, count in (("restarts", restarts), ("steps", steps), ("update_every", update_every)):
        if count < 1:
            raise ValueError(f"{name} must be >= 1, got {count}")
    archive = Archive(
        objective,
        space,
        constraints=constraints,
        metrics=metrics,
        budget=budget,
        progress=progress,
        resume=resume,
    )
    key, chunk = key_of(key), min(update_every, steps)
    chunks = math.ceil(steps / chunk)
    run = _Descent(
        archive, restarts, chunk, chunks * chunk, learning_rate, final_rate, tuple(temperature), penalty
    )
    problem = archive.problem
    problem.prepare(run.builders() | problem.evaluators())
    compiled = problem.program(("gradient", *run.name))
    limits = np.asarray(archive.limits, jnp.result_type(float))
    number = lambda value: np.asarray(value, jnp.result_type(float))

    state = run.start(host_generator(key, archive.rounds))
    measuring = time.perf_counter()
    plain = problem.program(("value", *run.name))
    ratio = _time_ratio(lambda: compiled(state, number(0), limits), lambda: plain(state, number(0), limits))
    archive.gradient_cost = cost = max(1.0, ratio)
    archive.exclude(time.perf_counter() - measuring)

    per_chunk = restarts * chunk * cost
    archive.expected = budget or archive.evaluations + chunks * per_chunk + 3000 * starts_to_refine
    path: list[np.ndarray] = []
    for i in range(chunks):
        if budget is not None and archive.evaluations + per_chunk > budget:
            break
        state, figures = compiled(state, number(i * chunk), limits)
        values, constrained, measured, index = (np.asarray(x) for x in figures)
        archive.gradient_evaluations += restarts * chunk
        archive.evaluations += per_chunk
        flat = index.reshape(-1, index.shape[-1])
        if run.snaps:
            rows = archive.add(
                flat,
                values.reshape(-1),
                constrained.reshape(len(flat), -1),
                measured.reshape(len(flat), -1),
            )
        else:  # what a soft or noisy choice saw was not the design of its index vector
            rows = archive.evaluate(flat)
        archive.count(0)
        path.extend(rows.reshape(chunk, restarts))

    if path:
        runs = np.stack(path)
        ends = np.unique([archive.best_of(runs[:, r]) for r in range(restarts)])
        ends = archive.index[archive.order(ends[ends >= 0])[:starts_to_refine]]
    else:
        runs = np.zeros((0, restarts), np.int64)
        ends = host_generator(key, archive.rounds).integers(
            0, space.sizes, (starts_to_refine, len(space.sizes))
        )
    refiner = Refiner(archive, blocks, pairs)
    refiner.descend(ends)
    refiner.widen(widen)
    return finish(archive, "gradient", key, visited=runs.reshape(-1))
