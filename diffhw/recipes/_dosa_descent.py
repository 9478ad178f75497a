"""DOSA's variables relaxed: logarithms of factors, soft orders, hardware that follows the mappings."""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffhw.mappings import ORDERS
from diffhw.recipes._dosa_space import (
    AT,
    GROUPS,
    MAX_SIDE,
    PLACES,
    STREAMED,
    Plan,
    Problem,
    gemmini_area_mm2,
    network_energy_cycles,
    random_plans,
    random_sizes,
    sizes_of,
)

__all__ = ["compiled_descent", "dosa_starts", "parameters"]


def _snap(table, rest, target, limit):
    """The divisor nearest in logarithm among those of ``table`` that divide ``rest`` and obey the limit."""
    safe = jnp.maximum(table, 1.0)
    quotient = rest[..., None] / safe
    legal = (
        (table > 0)
        & (table <= limit[..., None])
        & (jnp.abs(jnp.round(quotient) * safe - rest[..., None]) < 0.5)
    )
    distance = jnp.where(legal, jnp.abs(jnp.log(safe) - target[..., None]), jnp.inf)
    return jnp.take_along_axis(table, jnp.argmin(distance, -1)[..., None], -1)[..., 0]


def _decode(theta, table, extents, temperature) -> Plan:
    """A legal plan of one layer; straight-through gradients in logarithms."""
    through = lambda hard, log: hard * jnp.exp(log - lax.stop_gradient(log))
    free = jnp.where(GROUPS, 1.0, 1e9)
    c, k = AT["c"], AT["k"]
    streams = _snap(table, extents, theta["t0"], jnp.where(STREAMED, 1e9, 1.0))
    rest = extents / streams
    c_space = _snap(table[c], rest[c], theta["c_space"], jnp.asarray(float(MAX_SIDE)))
    k_space = _snap(table[k], rest[k], theta["k_space"], jnp.asarray(float(MAX_SIDE)))
    rest = rest.at[c].divide(c_space).at[k].divide(k_space)
    first = _snap(table, rest, theta["t1"], free)
    second = _snap(table, rest / first, theta["t2"], free)
    soft = jax.nn.softmax(theta["order"] / temperature, axis=-1)
    hot = jax.nn.one_hot(jnp.argmax(soft, -1), len(ORDERS), dtype=soft.dtype)
    weights = hot + soft - lax.stop_gradient(soft)
    places = jnp.concatenate([jnp.asarray(PLACES[:1], soft.dtype), weights @ jnp.asarray(PLACES, soft.dtype)])
    return Plan(
        time=jnp.stack(
            [
                jnp.where(STREAMED, through(streams, theta["t0"]), 1.0),
                through(first, theta["t1"]),
                through(second, theta["t2"]),
            ]
        ),
        c_space=through(c_space, theta["c_space"]),
        k_space=through(k_space, theta["k_space"]),
        places=places,
    )


def _loss(theta, arrays, temperature, area_limit):
    layers, counts, extents, table = arrays
    plans = jax.vmap(_decode, in_axes=(0, 0, 0, None))(theta, table, extents, temperature)
    sizes = sizes_of(plans, layers)
    problem = Problem(layers, counts, extents, table, ())
    energy, cycles = network_energy_cycles(problem, plans, sizes)
    # Beyond the budget a mm2 costs more than it can ever save (EDP gains at most a power of the area).
    over = jnp.maximum(jnp.log(gemmini_area_mm2(sizes) / area_limit), 0.0)
    return jnp.log(energy) + jnp.log(cycles) + 8.0 * over, (energy, cycles, sizes, plans)


def _descend(arrays, theta, area_limit, steps: int, rate: float):
    """Adam from every start at once; the best plans of each, and the best loss per step."""
    import optax  # only this search needs it

    schedule = optax.cosine_decay_schedule(rate, steps, 0.05)
    optimiser = optax.adam(schedule)
    slope = jax.vmap(jax.value_and_grad(_loss, has_aux=True), in_axes=(0, None, None, None))
    limit = {name: jnp.log(arrays[2]) for name in ("t0", "t1", "t2")}
    limit |= {f"{d}_space": jnp.minimum(jnp.log(arrays[2][:, AT[d]]), math.log(MAX_SIDE)) for d in "ck"}

    def step(carry, i):
        theta, state, best = carry
        (loss, found), gradient = slope(theta, arrays, 0.1 ** (i / steps), area_limit)
        gradient = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), gradient)
        better = loss < best[0]
        pick = lambda old, new: jnp.where(better.reshape(-1, *(1 for _ in new.shape[1:])), new, old)
        best = jax.tree.map(pick, best, (loss, found))
        update, state = optimiser.update(gradient, state)
        theta = jax.tree.map(operator.add, theta, update)
        theta = theta | {name: jnp.clip(theta[name], 0.0, top[None]) for name, top in limit.items()}
        return (theta, state, best), best[0].min()

    shapes = jax.eval_shape(lambda t: jax.vmap(lambda one: _loss(one, arrays, 1.0, area_limit))(t), theta)
    worst = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.inf, leaf.dtype), shapes)
    (_, _, best), history = lax.scan(
        step, (theta, optimiser.init(theta), worst), jnp.arange(steps, dtype=float)
    )
    return best, history


@functools.cache
def compiled_descent():
    # Thousands of scalars on small batches: on CPU fusing them triples the compilation and gains nothing.
    options = {"xla_disable_hlo_passes": "fusion"} if jax.default_backend() == "cpu" else None
    return jax.jit(_descend, static_argnums=(3, 4), compiler_options=options)


def dosa_starts(problem: Problem, rng: np.random.Generator, n: int) -> tuple[np.ndarray, list[list[Plan]]]:
    """``n`` random hardware sizes (n, 3) and, for each, one random mapping per layer that fits it.

    DOSA's ranges (side 2 to 128, buffers 1 to 2048 KiB); its starts came from a commercial solver.
    """
    hardware, plans = random_sizes(rng, n), []
    for i in range(n):
        while True:
            found = [random_plans(rng, row, hardware[i], 1) for row in problem.rows]
            if all(plan is not None for plan in found):
                break
            hardware[i] = random_sizes(rng, 1)[0]
        plans.append(found)
    return hardware, plans


def parameters(plans: list[list[Plan]], rng: np.random.Generator, size: int):
    """Unconstrained variables of starts, leaves (restarts, size, ...); padding starts at factors of 1."""
    real = len(plans[0])

    def stack(leaf_of):
        logs = np.log(np.array([[leaf_of(plan) for plan in row] for row in plans]))
        return np.concatenate([logs, np.zeros((len(plans), size - real, *logs.shape[2:]))], axis=1)

    theta = {f"t{m}": stack(lambda plan, m=m: plan.time[0, m]) for m in range(3)}
    theta |= {"c_space": stack(lambda plan: plan.c_space[0]), "k_space": stack(lambda plan: plan.k_space[0])}
    theta["order"] = 0.5 * rng.normal(size=(len(plans), size, 3, len(ORDERS)))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), theta)
