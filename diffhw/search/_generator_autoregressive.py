"""The autoregressive family: an explicit density over designs, one variable after the other.

Every variable has two layers of its own on the one-hot values of those before it and on the conditions;
all of them are one einsum in training. Conditions are radial bumps and the number itself, behind a mask.
With a surrogate of chains each head also sees where their states stand before its variable ("guide"): what
the values so far have done to the metric, as far as the surrogate knows.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diffhw.search._generator_resume import Keeper
from diffhw.search._surrogate import doubted

__all__ = ["balanced", "condition_features", "fit_autoregressive", "initial", "sample_autoregressive"]

_BUMPS, _WIDTH = 24, 0.045
_SLACK = 0.15  # of its range: how far below an asked budget designs lie in training, at most
_JITTER = 0.004
_DROP = 0.25  # how often a condition is left out in training
_CHUNK = 100
_BATCH = 256
_GROUP = 8  # samples per condition in the policy gradient
_ENTROPY = 0.04  # per variable
_CELLS = 400
_POLISH_RATE = 3e-3  # tried once, 20 layers, 300 steps: 4.4 points off became 3.5 at 1e-3, 2.9 at this
_GUIDES = 4  # members of the surrogate whose states the heads see


def condition_features(values: Array, mask: Array) -> Array:
    """(..., C * (bumps + 2)) from unit-range values and a mask, both (..., C)."""
    centres = jnp.linspace(0.0, 1.0, _BUMPS)
    centres = centres.reshape((1,) * values.ndim + (-1,))
    bumps = jnp.exp(-0.5 * ((values[..., None] - centres) / _WIDTH) ** 2)
    rows = jnp.concatenate([bumps, values[..., None], jnp.ones_like(values[..., None])], axis=-1)
    rows = rows * mask[..., None]
    return rows.reshape(*rows.shape[:-2], -1)


def _guide(surrogate) -> dict:
    """The chains to follow, leaves (members, ...); nothing for a surrogate of another kind."""
    names = ("state", "into", "value", "out") if "state" in surrogate.params else ()
    return {name: surrogate.params[name][:_GUIDES] for name in names}


def initial(
    key: Array, sizes: tuple[int, ...], conditions: int, hidden: int, guide: dict | None = None
) -> dict:
    """Parameters to begin with."""
    v, b, f = len(sizes), max(sizes), conditions * (_BUMPS + 2)
    keys = jax.random.split(key, 4)
    follow = {"follow": jnp.zeros((v, guide["state"].size, hidden))} if guide else {}
    return follow | {
        # Into variable `out` from value `b` of variable `in`.
        "past": jax.random.normal(keys[0], (v, b, v, hidden)) / math.sqrt(v),
        "asked": jax.random.normal(keys[1], (v, f, hidden)) / math.sqrt(4.0 * conditions),
        "b1": jnp.zeros((v, hidden)),
        "w2": jax.random.normal(keys[2], (v, hidden, hidden)) / math.sqrt(hidden),
        "b2": jnp.zeros((v, hidden)),
        "w3": 0.1 * jax.random.normal(keys[3], (v, hidden, b)) / math.sqrt(hidden),
        "b3": jnp.zeros((v, b)),
    }


def _legal(sizes: tuple[int, ...]) -> np.ndarray:
    return np.arange(max(sizes))[None, :] < np.asarray(sizes)[:, None]


def _followed(guide: dict, i, states: Array, values: Array) -> Array:
    """States (N, K, S) after variable ``i`` took its values (N,)."""
    into, value, out = guide["into"][:, i], guide["value"][:, i], guide["out"][:, i]
    inner = jnp.einsum("nks,ksh->nkh", states, into) + jnp.moveaxis(value[:, values], 0, 1)
    return states + jnp.einsum("nkh,khs->nks", jax.nn.gelu(inner), out)


def _before(guide: dict, designs: Array) -> Array:
    """(V, N, K * S): the states before each variable."""

    def step(states, now):
        i, values = now
        return _followed(guide, i, states, values), states

    start = jnp.broadcast_to(guide["state"][None], (len(designs), *guide["state"].shape))
    states = lax.scan(step, start, (jnp.arange(designs.shape[1]), designs.T))[1]
    return states.reshape(*states.shape[:2], -1)


def _log_probabilities(params: dict, sizes: tuple[int, ...], designs: Array, features: Array) -> Array:
    """(N, V): of each variable's value given those before it; designs (N, V), features (N, F)."""
    v, b = len(sizes), max(sizes)
    hot = jax.nn.one_hot(designs, b, dtype=float)
    before = np.arange(v)[:, None] < np.arange(v)[None, :]  # in, out
    past = params["past"] * jnp.asarray(before, float)[:, None, :, None]
    h = jnp.einsum("nf,vfh->nvh", features, params["asked"]) + params["b1"][None]
    h = h + (hot.reshape(-1, v * b) @ past.reshape(v * b, -1)).reshape(h.shape)
    if "follow" in params:
        h = h + jnp.einsum("vns,vsh->nvh", _before(params["guide"], designs), params["follow"])
    h = jax.nn.gelu(h)
    h = jax.nn.gelu(jnp.einsum("nvh,vhk->nvk", h, params["w2"]) + params["b2"][None])
    logits = jnp.einsum("nvh,vhb->nvb", h, params["w3"]) + params["b3"][None]
    logits = jnp.where(_legal(sizes)[None], logits, -1e9)
    return jnp.take_along_axis(jax.nn.log_softmax(logits, -1), designs[..., None], -1)[..., 0]


@functools.partial(jax.jit, static_argnums=1)
def _draw(params: dict, sizes: tuple[int, ...], key: Array, features: Array, limits, tables, temperature):
    """Designs (N, V) for features (N, F). limits: (K,), tables: (K, V, B), in units of the limits."""
    v, b = len(sizes), max(sizes)
    n, k = features.shape[0], limits.shape[0]
    legal = jnp.asarray(_legal(sizes))
    dearest = jnp.where(legal[None], tables, jnp.inf).min(axis=-1)  # (K, V): least of each variable
    after = jnp.concatenate([jnp.cumsum(dearest[:, ::-1], axis=1)[:, ::-1][:, 1:], jnp.zeros((k, 1))], axis=1)
    base = jnp.einsum("nf,vfh->vnh", features, params["asked"]) + params["b1"][:, None]

    guide = params.get("guide") if "follow" in params else None

    def step(carry, now):
        sums, spent, states = carry
        i, key, base, w2, b2, w3, b3, past, open_, table, rest, follow = now
        h = base + sums[:, i]
        h = jax.nn.gelu(h if guide is None else h + states.reshape(n, -1) @ follow)
        h = jax.nn.gelu(h @ w2 + b2[None])
        logits = (h @ w3 + b3[None]) / temperature
        # A value that leaves too little for the cheapest rest would break a budget.
        total = spent[:, :, None] + table[None] + rest[None, :, None]
        fits = (total <= limits[None, :, None]).all(axis=1) & open_[None]
        cheapest = jax.nn.one_hot(jnp.argmin(jnp.where(open_, table.sum(axis=0), jnp.inf)), b, dtype=bool)
        fits = jnp.where(fits.any(axis=1, keepdims=True), fits, cheapest[None])
        value = jax.random.categorical(key, jnp.where(fits, logits, -jnp.inf), axis=-1)
        after = states if guide is None else _followed(guide, i, states, value)
        return (sums + past[value], spent + table[:, value].T, after), value

    now = (
        jnp.arange(v),
        jax.random.split(key, v),
        base,
        params["w2"],
        params["b2"],
        params["w3"],
        params["b3"],
        params["past"],
        legal,
        jnp.moveaxis(tables, 1, 0),
        after.T,
        params.get("follow", jnp.zeros((v, 0))),
    )
    states = (
        jnp.zeros((n, 0)) if guide is None else jnp.broadcast_to(guide["state"], (n, *guide["state"].shape))
    )
    start = (jnp.zeros((n, v, base.shape[-1])), jnp.zeros((n, k)), states)
    return lax.scan(step, start, now)[1].T


def sample_autoregressive(params, sizes, key, values, mask, limits, tables, n: int, temperature) -> Array:
    """``n`` designs (n, V) for one set of conditions; see `Generator.sample`."""
    features = condition_features(jnp.asarray(values, float), jnp.asarray(mask, float))
    scale = np.where(np.isfinite(limits), np.maximum(limits, 1e-30), 1.0)
    # A hair inside, for sums in float32.
    room = np.where(np.isfinite(limits), 1.0 - 1e-6 * len(sizes) / 8, np.inf)
    return _draw(
        params,
        tuple(sizes),
        key,
        jnp.broadcast_to(features, (n, features.shape[0])),
        jnp.asarray(room, float),
        jnp.asarray(tables / scale[:, None, None], float),
        jnp.asarray(temperature, float),
    )


# Fitting ------------------------------------------------------------------------------------------


def balanced(unit: np.ndarray) -> tuple[Array, Array, Array]:
    """Rows sorted by cell of the conditions' space, first row and length of every occupied cell."""
    count = unit.shape[1]
    side = max(2, round(_CELLS ** (1 / count))) if count > 1 else 40
    cells = np.minimum((unit * side).astype(np.int64), side - 1) @ side ** np.arange(count)
    order = np.argsort(cells, kind="stable")
    _, begin, length = np.unique(cells[order], return_index=True, return_counts=True)
    return jnp.asarray(order, jnp.int32), jnp.asarray(begin, jnp.int32), jnp.asarray(length, float)


def asked_of(key: Array, unit: Array, budgets: tuple[bool, ...]) -> tuple[Array, Array]:
    """What a user might have asked to get designs of these labels: values and mask, (N, C)."""
    a, b, c = jax.random.split(key, 3)
    near = unit + _JITTER * jax.random.normal(a, unit.shape)
    above = jnp.minimum(unit + _SLACK * jax.random.uniform(b, unit.shape) ** 2, 1.0)
    is_budget = jnp.asarray(budgets)[None]
    mask = jax.random.uniform(c, unit.shape) >= (_DROP if len(budgets) > 1 else 0.05)
    return jnp.where(is_budget, above, near), mask.astype(float)


def pick(key: Array, cells, n: int) -> Array:
    """``n`` rows, every cell as likely as any other."""
    order, begin, length = cells
    a, b = jax.random.split(key)
    cell = jax.random.randint(a, (n,), 0, begin.shape[0])
    return order[begin[cell] + jnp.floor(jax.random.uniform(b, (n,)) * length[cell]).astype(jnp.int32)]


@functools.cache
def _optimiser(steps: int, rate: float):
    import optax

    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(rate, steps, 0.02))
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _likelihood_steps(count, total, sizes, budgets, carry, guide, designs, unit, cells, keys):
    optimiser = _optimiser(total, 2e-3)

    def loss(params, key):
        a, b = jax.random.split(key)
        rows = pick(a, cells, _BATCH)
        values, mask = asked_of(b, unit[rows], budgets)
        whole = params | {"guide": guide}
        logs = _log_probabilities(whole, sizes, designs[rows], condition_features(values, mask))
        return -logs.sum(axis=1).mean() / len(sizes)

    def one(carry, key):
        params, state = carry
        value, slope = jax.value_and_grad(loss)(params, key)
        update, state = optimiser.update(slope, state, params)
        return (jax.tree.map(jnp.add, params, update), state), value

    return lax.scan(one, carry, keys[:count])


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _policy_steps(count, total, sizes, budgets, carry, guide, unit, cells, keys, metrics, ranges):
    """REINFORCE with a leave-one-out baseline; metrics: (surrogate, columns, tables, bases)."""
    optimiser = _optimiser(total, _POLISH_RATE)
    surrogate, columns, tables, bases = metrics
    low, high = ranges
    groups = _BATCH // _GROUP

    def off(samples, asked):
        """(N, C): how far from what was asked, in unit ranges; where members differ, further."""
        guessed = surrogate.each(samples)
        found = []
        for c in range(len(budgets)):
            summed = bases[c] + sum(tables[c][v][samples[:, v]] for v in range(len(sizes)))
            column = guessed[..., jnp.maximum(columns[c], 0)]
            unit = (jnp.where(columns[c] >= 0, column, summed[None]) - low[c]) / (high[c] - low[c])
            if budgets[c]:
                found.append(jnp.maximum(unit.mean(axis=0) - asked[:, c], 0.0))
            else:
                found.append(doubted(unit, asked[:, c]))
        return jnp.stack(found, axis=1)

    def loss(params, key):
        a, b, c = jax.random.split(key, 3)
        rows = pick(a, cells, groups)
        values, mask = asked_of(b, unit[rows], budgets)
        features = jnp.repeat(condition_features(values, mask), _GROUP, axis=0)
        none = jnp.zeros((0, len(sizes), max(sizes)))
        whole = params | {"guide": guide}
        samples = _draw(lax.stop_gradient(whole), sizes, c, features, jnp.zeros(0), none, 1.0)
        logs = _log_probabilities(whole, sizes, samples, features).sum(axis=1)
        missed = off(samples, jnp.repeat(values, _GROUP, axis=0))
        reward = -(missed * jnp.repeat(mask, _GROUP, axis=0)).sum(axis=1)
        reward = reward - _ENTROPY / len(sizes) * lax.stop_gradient(logs)
        grouped = reward.reshape(groups, _GROUP)
        others = (grouped.sum(axis=1, keepdims=True) - grouped) / (_GROUP - 1)
        return -((grouped - others).reshape(-1) * logs).mean(), -reward.mean()

    def one(carry, key):
        params, state = carry
        (_, value), slope = jax.value_and_grad(loss, has_aux=True)(params, key)
        update, state = optimiser.update(slope, state, params)
        return (jax.tree.map(jnp.add, params, update), state), value

    return lax.scan(one, carry, keys[:count])


def fit_autoregressive(
    surrogate, conditions, budgets, designs, unit, ranges, key, steps, polish, hidden, resume, progress
):
    """(params, history); see `generator`."""
    start, key = jax.random.split(key)
    cells, labels = balanced(unit), jnp.asarray(unit, float)
    sizes = surrogate.sizes
    guide = _guide(surrogate)
    params = initial(start, sizes, len(conditions), hidden, guide)
    columns = tuple(-1 if one.table is not None else surrogate.names.index(one.name) for one in conditions)
    widest = (len(sizes), max(sizes))
    tables = [jnp.zeros(widest) if one.table is None else jnp.asarray(one.table, float) for one in conditions]
    bases = [jnp.asarray(one.base, float) for one in conditions]
    metrics = (surrogate, jnp.asarray(columns), tables, bases)
    keeper = Keeper(resume, ("autoregressive", sizes, steps, polish, hidden, unit))
    history: list[tuple[int, float]] = []
    phases = (
        ("fitting the generator", steps, 2e-3, _likelihood_steps, (jnp.asarray(designs), labels, cells)),
        ("polishing the generator", polish, _POLISH_RATE, _policy_steps, (labels, cells)),
    )
    before = 0
    for number, (phase, total, rate, run, data) in enumerate(phases):
        if total < 1:
            continue
        carry = (params, _optimiser(total, rate).init(params))
        begin, carry = keeper.restore(number, carry)
        for done in range(begin, total, _CHUNK):
            count = min(_CHUNK, total - done)
            keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, number), done), _CHUNK)
            more = (metrics, tuple(jnp.asarray(r, float) for r in ranges)) if number else ()
            carry, values = run(count, total, sizes, budgets, carry, guide, *data, keys, *more)
            history.append((before + done + count, float(values.mean())))
            keeper.keep(number, done + count, carry)
            if progress is not None:
                progress(phase, done + count, total)
        params, before = carry[0], before + total
    return params | {"guide": guide}, history
