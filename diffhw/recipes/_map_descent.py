"""Gradient descent on mappings: layers x restarts side by side, a legal genome at every step.

Variables are the powers of each prime of a loop in each slot, as real numbers: logarithms of the factors
in units of the prime's. They snap to whole powers slot by slot (spatial ones first, then from the inside
out; the outermost level takes what is left), and one logit per order of the menu. Gradients pass straight
through both. What does not fit enters the loss as an augmented Lagrangian of log(1 + violation).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffhw.hardware import Hierarchy
from diffhw.mappings import LOOPS
from diffhw.models import loopnest
from diffhw.numerics import log, maximum
from diffhw.recipes._map_space import MENU, PLACES, Genomes, Layout
from diffhw.workloads import Layer

__all__ = ["Descent"]

_BETA1, _BETA2 = 0.9, 0.99
_FLOOR = 0.05  # of the learning rate, at the end of its cosine
_HOT, _COLD = 1.0, 0.1  # temperature of the orders, first and last
_EVERY = 10  # steps between multiplier updates
_LOGIT = 3.0  # largest logit of an order


@struct.dataclass(kw_only=True)
class _Tables:
    """prime, power: (layers, primes, loops), padded by 1 and 0; most: (layers, primes, loops, slots - 1)."""

    prime: Array
    power: Array
    most: Array


@struct.dataclass(kw_only=True)
class _State:
    """Runs of all layers; multiplier: (layers, restarts).

    theta: {"power": (layers, restarts, primes, loops, slots - 1), "order": (layers, restarts, levels - 1,
    orders)}; mean, square: Adam's moments of it.
    """

    theta: dict
    mean: dict
    square: dict
    multiplier: Array


@functools.lru_cache(maxsize=16)
def _turns(layout: Layout) -> tuple[tuple[int, ...], ...]:
    """Per loop, its columns in the order of snapping."""
    found = []
    for d in layout.loops:
        columns = layout.columns(d)
        found.append((*columns[layout.depth :], *columns[: layout.depth]))
    return tuple(found)


def _places(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Live columns, and (loop, slot) of each in the decoded arrays; the outermost level comes last there."""
    last = max(map(len, _turns(layout))) - 1
    live = {}
    for j, turn in enumerate(_turns(layout)):
        for s, column in enumerate(turn):
            live[column] = (j, last if s == len(turn) - 1 else s)
    columns = np.array(sorted(live))
    return columns, np.array([live[c] for c in columns])


def _each(function: Callable, over_restarts, over_layers=None) -> Callable:
    """Over layers and restarts; ``over_restarts`` as in_axes of the inner vmap."""
    over_layers = tuple(0 for _ in over_restarts) if over_layers is None else over_layers
    return jax.vmap(jax.vmap(function, in_axes=over_restarts), in_axes=over_layers)


def _snap(power: Array, tables: _Tables) -> Array:
    """Whole powers (primes, loops, slots) of one layer and restart."""
    rest, hard = tables.power, []
    for s in range(power.shape[-1]):
        hard.append(jnp.clip(jnp.round(power[..., s]), 0.0, jnp.minimum(rest, tables.most[..., s])))
        rest = rest - hard[-1]
    return jnp.stack([*hard, rest], axis=-1)


def _soft(theta, tables: _Tables, table, heat):
    """What gradients see: logarithms of factors (loops, slots) less constants, places (levels - 1, loops)."""
    logs = jnp.sum(theta["power"] * jnp.log(tables.prime)[..., None], axis=0)
    logs = jnp.concatenate([logs, -logs.sum(axis=-1, keepdims=True)], axis=-1)
    return logs, jax.nn.softmax(theta["order"] / heat, axis=-1) @ table


def _loss(factors, places, multiplier, layer, hierarchy, layout: Layout, objective: str, penalty: float):
    live, _ = _places(layout)
    values: list = [1.0] * layout.factors
    for column, factor in zip(live, factors, strict=True):
        values[column] = factor
    cost = loopnest.layer(layer, hierarchy, layout.nest(values, places))
    energy, cycles = log(cost.energy_pj), log(cost.cycles)
    value = {"edp": energy + cycles, "energy": energy, "latency": cycles}[objective]
    pressed = maximum(multiplier + penalty * jnp.log1p(cost.violation), 0.0)
    value = value + (pressed**2 - multiplier**2) / (2 * penalty)
    return value, (cost.energy_pj, cost.cycles, cost.violation, pressed)


def _leaves(layout: Layout, tables: _Tables, theta):
    """Factors and places of every layer and restart, one array per leaf, and the genomes (.., width)."""
    columns, at = _places(layout)
    hard = _each(_snap, (0, None))(theta["power"], tables)
    logp = jnp.log(tables.prime)[:, None, ..., None]
    grid = jnp.round(jnp.exp(jnp.sum(hard * logp, axis=2)))
    order = jnp.argmax(theta["order"], axis=-1)
    table = jnp.asarray(PLACES[:, [LOOPS.index(d) for d in layout.loops]], float)
    rows = table[order]
    factors = tuple(grid[:, :, j, s] for j, s in at)
    places = tuple(tuple(rows[:, :, m, j] for j in range(len(layout.loops))) for m in range(layout.depth - 1))
    genomes = jnp.ones((*order.shape[:2], layout.width))
    genomes = genomes.at[:, :, columns].set(jnp.stack(factors, axis=-1))
    genomes = genomes.at[:, :, layout.factors :].set(order.astype(float))
    return factors, places, genomes.astype(jnp.uint16)


def _update(
    layout: Layout, steps: int, rate: float, tables: _Tables, state: _State, i, factors, slopes, pressed
):
    """One Adam step from the slopes of the leaves."""
    _, at = _places(layout)
    by_factor, by_place = slopes
    clean = lambda g: jnp.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0)
    logs = clean(jnp.stack([g * f for g, f in zip(by_factor, factors, strict=True)], axis=-1))
    shape = (*state.multiplier.shape, state.theta["power"].shape[3], state.theta["power"].shape[4] + 1)
    grid = jnp.zeros(shape).at[:, :, at[:, 0], at[:, 1]].set(logs)
    rows = clean(jnp.stack([jnp.stack(row, axis=-1) for row in by_place], axis=2))
    done = i / max(steps - 1, 1)
    heat = _HOT * (_COLD / _HOT) ** done
    table = jnp.asarray(PLACES[:, [LOOPS.index(d) for d in layout.loops]], float)

    def pull(theta, row, grid, rows):
        return jax.vjp(lambda t: _soft(t, row, table, heat), theta)[1]((grid, rows))[0]

    slope = _each(pull, (0, None, 0, 0))(state.theta, tables, grid, rows)
    mean = jax.tree.map(lambda m, g: _BETA1 * m + (1 - _BETA1) * g, state.mean, slope)
    square = jax.tree.map(lambda s, g: _BETA2 * s + (1 - _BETA2) * g * g, state.square, slope)
    count = i + 1.0
    step = rate * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + jnp.cos(math.pi * done)))
    a, b = 1 - _BETA1**count, 1 - _BETA2**count
    theta = jax.tree.map(
        lambda p, m, s: p - step * (m / a) / (jnp.sqrt(s / b) + 1e-8), state.theta, mean, square
    )
    theta = {
        "power": jnp.clip(theta["power"], 0.0, tables.most[:, None]),
        "order": jnp.clip(theta["order"], -_LOGIT, _LOGIT),
    }
    now = (jnp.mod(count, _EVERY) == 0) & jnp.isfinite(pressed)
    return _State(theta=theta, mean=mean, square=square, multiplier=jnp.where(now, pressed, state.multiplier))


def _gradient(layout, objective, penalty, layers, hierarchy, factors, places, multiplier):
    slope = jax.value_and_grad(_loss, argnums=(0, 1), has_aux=True)
    fixed = lambda f, p, m, layer: slope(f, p, m, layer, hierarchy, layout, objective, penalty)
    (_, figures), slopes = _each(fixed, (0, 0, 0, None))(factors, places, multiplier, layers)
    return slopes, figures


@functools.cache
def _programs() -> tuple[Callable, Callable, Callable]:
    """Compiled parts of a step: leaves, gradient, update.

    XLA's fusion on CPU copies what several slopes share, which makes the gradient's program nine times as
    long and its compilation half a minute (measured); without it, 3 s, and it runs no slower.
    """
    plain = {"xla_disable_hlo_passes": "fusion", "xla_backend_optimization_level": 1}
    options = plain if jax.default_backend() == "cpu" else None
    return (
        jax.jit(_leaves, static_argnums=0),
        jax.jit(_gradient, static_argnums=(0, 1, 2), compiler_options=options),
        jax.jit(_update, static_argnums=(0, 1, 2)),
    )


class Descent:
    """Runs of all layers of ``space`` at once.

    objective: "edp", "energy" or "latency".  steps: of Adam.  rate: its first learning rate, in powers of
    a prime.  penalty: mu of the augmented Lagrangian.
    """

    def __init__(self, space: Genomes, objective: str, steps: int, rate: float = 0.3, penalty: float = 5.0):
        self.space, self.layout, self.objective = space, space.layout, objective
        self.steps, self.rate, self.penalty = steps, rate, penalty
        turns, loops = _turns(self.layout), [LOOPS.index(d) for d in self.layout.loops]
        deep = max(sum(loop == i for loop, _, _ in row) for row in space.primes for i in loops) or 1
        shape = (len(space.layers), deep, len(loops))
        self.prime, self.power = np.ones(shape), np.zeros(shape)
        self.most = np.zeros((*shape, max(map(len, turns)) - 1))
        for i, row in enumerate(space.primes):
            for loop, p, power in row:
                j = loops.index(loop)
                k = int((self.power[i, :, j] > 0).sum())
                self.prime[i, k, j], self.power[i, k, j] = p, power
                for s, column in enumerate(turns[j][:-1]):
                    limit = math.log(space.limits[i, column]) / math.log(p)
                    self.most[i, k, j, s] = min(power, int(limit + 1e-9))
        as_float = lambda values: jnp.asarray(values, float)
        self.tables = _Tables(
            prime=as_float(self.prime), power=as_float(self.power), most=as_float(self.most)
        )
        self.layers: Layer = jax.tree.map(as_float, space.table)
        self.hierarchy: Hierarchy = space.hierarchy

    def state(self, genomes: np.ndarray, rng: np.random.Generator) -> _State:
        """Runs that start at genomes (layers, restarts, width)."""
        lead = genomes.shape[:2]
        power = np.zeros((*lead, *self.most.shape[1:]))
        for j, turn in enumerate(_turns(self.layout)):
            for k in range(self.prime.shape[1]):
                p = self.prime[:, k, j].astype(np.int64)[:, None]
                for s, column in enumerate(turn[:-1]):
                    rest = genomes[:, :, column].copy()
                    for _ in range(int(self.power[:, k, j].max())):
                        divides = (p > 1) & (rest % p == 0)
                        power[:, :, k, j, s] += divides
                        rest = np.where(divides, rest // p, rest)
        power = np.clip(power + rng.uniform(-0.4, 0.4, power.shape), 0, self.most[:, None])
        order = genomes[:, :, self.layout.factors :, None] == np.arange(len(MENU))
        theta = {"power": power, "order": order + rng.normal(0, 0.3, order.shape)}
        theta = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), theta)
        zero = jax.tree.map(jnp.zeros_like, theta)
        return _State(theta=theta, mean=zero, square=zero, multiplier=jnp.zeros(lead))

    def step(self, state: _State, i: int):
        """The next state, and genomes (layers, restarts, width), energy, cycles and violation before it."""
        leaves, gradient, update = _programs()
        factors, places, genomes = leaves(self.layout, self.tables, state.theta)
        slopes, (energy, cycles, violation, pressed) = gradient(
            self.layout,
            self.objective,
            self.penalty,
            self.layers,
            self.hierarchy,
            factors,
            places,
            state.multiplier,
        )
        state = update(
            self.layout, self.steps, self.rate, self.tables, state, jnp.float32(i), factors, slopes, pressed
        )
        return state, (genomes, energy, cycles, violation)
