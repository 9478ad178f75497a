"""The adversarial family: a conditional Wasserstein GAN with gradient penalty over one-hot designs.

Generator: noise and conditions to categorical weights per variable, straight-through. Critic: designs and
conditions. Beside the critic's loss, an auxiliary regressor (the `Surrogate`, on what was drawn) and a
mode-seeking diversity term. All of it is our reconstruction of AQGAN (arXiv 2006.03968 does not say).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diffhw.search._generator_autoregressive import asked_of, balanced, condition_features, pick
from diffhw.search._generator_resume import Keeper

__all__ = ["dense", "fit_adversarial", "perceptron", "sample_adversarial"]

_NOISE = 32
_BATCH = 128
_CRITIC = 5  # critic steps per generator step
_PENALTY, _REGRESSOR, _SPREAD = 10.0, 2.0, 0.05
_RATE = 1e-4
_CHUNK = 100


def dense(key: Array, shapes: list[tuple[int, int]]) -> dict:
    """Start of a perceptron with layers of these (in, out)."""
    return {
        f"{name}{i}": jax.random.normal(k, shape) / math.sqrt(shape[0])
        if name == "w"
        else jnp.zeros(shape[1])
        for i, (k, shape) in enumerate(zip(jax.random.split(key, len(shapes)), shapes, strict=True))
        for name in "wb"
    }


def perceptron(params: dict, x: Array) -> Array:
    """(..., out) of (..., in)."""
    last = len(params) // 2 - 1
    for i in range(last + 1):
        x = x @ params[f"w{i}"] + params[f"b{i}"].reshape((1,) * (x.ndim - 1) + (-1,))
        x = x if i == last else jax.nn.leaky_relu(x, 0.2)
    return x


def _make(params: dict, sizes: tuple[int, ...], noise: Array, features: Array, key: Array, temperature=1.0):
    """Hard one-hot designs (N, V, B) with straight-through slopes; Gumbel noise makes them categorical."""
    v, b = len(sizes), max(sizes)
    logits = perceptron(params, jnp.concatenate([noise, features], axis=-1)).reshape(-1, v, b)
    legal = jnp.asarray(np.arange(b)[None, :] < np.asarray(sizes)[:, None])
    logits = jnp.where(legal[None], logits / temperature + jax.random.gumbel(key, logits.shape), -1e9)
    soft = jax.nn.softmax(logits, axis=-1)
    hard = jax.nn.one_hot(jnp.argmax(logits, axis=-1), b, dtype=soft.dtype)
    return hard + soft - lax.stop_gradient(soft)


@functools.partial(jax.jit, static_argnums=1)
def _draw(params, sizes, key, features, temperature):
    a, b = jax.random.split(key)
    noise = jax.random.normal(a, (features.shape[0], _NOISE))
    return jnp.argmax(_make(params["generator"], sizes, noise, features, b, temperature), axis=-1)


def sample_adversarial(params, sizes, key, values, mask, limits, tables, n: int, temperature) -> Array:
    """``n`` designs; budgets enter as conditions only, so some designs may break them."""
    del limits, tables
    features = condition_features(jnp.asarray(values, float), jnp.asarray(mask, float))
    features = jnp.broadcast_to(features, (n, features.shape[0]))
    return _draw(params, tuple(sizes), key, features, jnp.asarray(temperature, float))


@functools.cache
def _optimiser():
    import optax

    return optax.adam(_RATE, b1=0.0, b2=0.9)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _steps(sizes, budgets, carry, designs, unit, cells, keys, regress):
    surrogate, columns, low, high = regress
    b = max(sizes)

    def conditioned(key):
        a, c = jax.random.split(key)
        rows = pick(a, cells, _BATCH)
        values, mask = asked_of(c, unit[rows], budgets)
        return rows, values, mask, condition_features(values, mask)

    def score(params, hot, features):
        return perceptron(params, jnp.concatenate([hot.reshape(hot.shape[0], -1), features], axis=-1))[:, 0]

    def critic_loss(critic, generator, key):
        k = jax.random.split(key, 4)
        rows, _, _, features = conditioned(k[0])
        real = jax.nn.one_hot(designs[rows], b, dtype=float)
        fake = _make(generator, sizes, jax.random.normal(k[1], (_BATCH, _NOISE)), features, k[2])
        fake = lax.stop_gradient(fake)
        mix = jax.random.uniform(k[3], (_BATCH, 1, 1))
        between = mix * real + (1 - mix) * fake
        slope = jax.vmap(jax.grad(lambda one, f: score(critic, one[None], f[None])[0]))(between, features)
        size = jnp.sqrt((slope**2).sum(axis=(1, 2)) + 1e-12)
        gap = score(critic, fake, features).mean() - score(critic, real, features).mean()
        return gap + _PENALTY * ((size - 1) ** 2).mean()

    def generator_loss(generator, critic, key):
        k = jax.random.split(key, 5)
        _, values, mask, features = conditioned(k[0])
        z = jax.random.normal(k[1], (2, _BATCH, _NOISE))
        one, two = (_make(generator, sizes, z[i], features, k[2 + i]) for i in range(2))
        guessed = surrogate.soft(one)[:, columns]
        off = (guessed - low[None]) / (high - low)[None] - values
        regress = ((off * mask * (columns >= 0)[None]) ** 2).sum(axis=1).mean()
        apart = jnp.abs(one - two).sum(axis=(1, 2)) / jnp.abs(z[0] - z[1]).sum(axis=1)
        return -score(critic, one, features).mean() + _REGRESSOR * regress - _SPREAD * apart.mean()

    def one(carry, key):
        params, states = carry
        keys = jax.random.split(key, _CRITIC + 1)

        def critic_step(now, key):
            critic, state = now
            slope = jax.grad(critic_loss)(critic, params["generator"], key)
            update, state = _optimiser().update(slope, state)
            return (jax.tree.map(jnp.add, critic, update), state), None

        (critic, critic_state), _ = lax.scan(critic_step, (params["critic"], states["critic"]), keys[1:])
        value, slope = jax.value_and_grad(generator_loss)(params["generator"], critic, keys[0])
        update, state = _optimiser().update(slope, states["generator"])
        generator = jax.tree.map(jnp.add, params["generator"], update)
        return (
            {"generator": generator, "critic": critic},
            {"generator": state, "critic": critic_state},
        ), value

    return lax.scan(one, carry, keys)


def fit_adversarial(
    surrogate, conditions, budgets, designs, unit, ranges, key, steps, polish, hidden, resume, progress
):
    """(params, history); see `generator`. ``polish`` has no meaning here."""
    del polish
    start, key = jax.random.split(key)
    sizes = surrogate.sizes
    flat = len(sizes) * max(sizes)
    asked = condition_features(jnp.zeros(len(conditions)), jnp.zeros(len(conditions))).shape[0]
    a, b = jax.random.split(start)
    wide = 2 * hidden
    params = {
        "generator": dense(a, [(_NOISE + asked, wide), (wide, wide), (wide, wide), (wide, flat)]),
        "critic": dense(b, [(flat + asked, wide), (wide, wide), (wide, wide), (wide, 1)]),
    }
    states = {name: _optimiser().init(part) for name, part in params.items()}
    cells, labels = balanced(unit), jnp.asarray(unit, float)
    columns = [surrogate.names.index(one.name) if one.name in surrogate.names else -1 for one in conditions]
    low, high = (jnp.asarray(r, float) for r in ranges)
    regress = (surrogate, jnp.asarray(columns), low, high)
    keeper = Keeper(resume, ("adversarial", sizes, steps, hidden, unit))
    designs = jnp.asarray(designs)
    done, carry = keeper.restore(0, (params, states))
    history: list[tuple[int, float]] = []
    for begin in range(done, steps, _CHUNK):
        keys = jax.random.split(jax.random.fold_in(key, begin), _CHUNK)[: min(_CHUNK, steps - begin)]
        carry, values = _steps(sizes, budgets, carry, designs, labels, cells, keys, regress)
        history.append((begin + len(keys), float(values.mean())))
        keeper.keep(0, begin + len(keys), carry)
        if progress is not None:
            progress("fitting the generator", begin + len(keys), steps)
    return carry[0], history
