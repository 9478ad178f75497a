"""A generator of bit widths trained through the quantized network itself, with no surrogate between.

Three ways to get a gradient, all on mini-batches of images and with the same conditions:

    implicit   noise and wish to widths of all layers at once, kernels as sums of y_b Q_b(w) with one-hot y
               straight-through Gumbel, the accuracy's slope that of a smooth margin: no density to speak of
    relaxed    the same slopes, through the autoregressive family: an explicit density, layer after layer
    score      the autoregressive family, and no slope of the network at all: REINFORCE (Williams 1992,
               recalled) with a leave-one-out baseline on mini-batch accuracies of whole widths

Each with an entropy bonus or without. Measured (`python -m benchmarks.through_network`; docs/quantization.md
has the table and its limits: fewer steps and half the rate straight-through): an explicit density alone
cures nothing, and straight-through entropy trades collapse for error (those slopes are biased: our reading,
not measured). With the score's slopes, which are not, entropy cures the collapse. As many evaluations spent
on a surrogate (`aqgan`) give half the error, so that is the recommended way.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diffhw.recipes._bit_problem import BitProblem

__all__ = ["WAYS", "ThroughNetwork", "through_network"]

WAYS = ("implicit", "relaxed", "score")
_GROUP = 8  # samples per wish
_HIDDEN = 128
_NOISE = 32  # numbers that an implicit generator starts from
_CHUNK = 25  # steps per compiled call
_SOFT = 0.3  # width of the smooth margin, in root mean squares of it
_FLOOR = 0.1  # of margins, in logits
_BACKWARD = 3.0  # a value and its gradient, in forward passes: assumed


@dataclass(frozen=True)
class ThroughNetwork:
    """What `through_network` made.

    generator: a `search.Generator`; its `predict` and `correct` use a small surrogate of the probes alone.
    way, entropy: as asked.  probes: whole evaluations before the training.  evaluations: of the network in
    all, in passes over the selection images: a mini-batch counts as its share, a gradient as three.
    history: (steps,) mean distance from the wishes, in shares of the range, before the entropy.  seconds.
    """

    generator: Any
    way: str
    entropy: float
    probes: int
    evaluations: float
    history: np.ndarray
    seconds: float


def through_network(
    problem: BitProblem,
    way: str = "score",
    *,
    entropy: float = 0.06,
    budgets: tuple[str, ...] = (),
    steps: int = 600,
    wishes: int = 16,
    images: int = 128,
    rate: float = 1e-3,
    probes: int = 512,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ThroughNetwork:
    """A conditional generator fitted by the true network's loss.

    way: "implicit", "relaxed" or "score" (module docstring).  entropy: weight of the entropy per layer,
    in shares of the accuracy's range; 0 leaves it out.  budgets: metrics of ``problem.tables`` as further
    conditions, kept softly in training (differentiable in the widths) and hard when "relaxed" or "score"
    are sampled.  steps: of Adam at ``rate``, each on ``wishes`` wishes with 8 samples and ``images`` images.
    probes: configurations evaluated in full first, 64 at least: they say what can be asked.
    Loss: |accuracy - wish| + max(cost - budget, 0), each in shares of its range. Accuracies are those of the
    whole widths drawn; only slopes are smooth. Raises ValueError for an unknown way or metric, a problem
    without a network, or sizes below 1 (probes: 64).
    """
    from diffhw import search
    from diffhw.search._generator_autoregressive import balanced
    from diffhw.search._generator_pool import random_designs

    begin = time.perf_counter()
    _check(problem, way, budgets, dict(steps=steps, wishes=wishes, images=images, probes=probes))
    key = jax.random.key(seed)
    rng = np.random.default_rng([seed, 7])
    designs = np.unique(random_designs(rng, problem.sizes, probes), axis=0)
    accuracy = problem.evaluate(designs)
    conditions = [
        search.Condition("accuracy"),
        *(search.Condition(name, "budget", problem.tables[name]) for name in budgets),
    ]
    labels = np.stack([accuracy, *(problem.cost(name, designs) for name in budgets)], axis=1)
    low, high = labels.min(axis=0), labels.max(axis=0)
    for i, name in enumerate(budgets, 1):
        low[i], high[i] = (problem.tables[name][:, end].sum() for end in (0, -1))
    high = np.maximum(high, low + 1e-9)
    unit = (labels - low) / (high - low)

    kinds = tuple(one.kind == "budget" for one in conditions)
    setting = _Setting(way, problem.sizes, kinds, wishes, images, rate, steps, problem.apply.func.key)
    params = _start(jax.random.fold_in(key, 0), way, problem.sizes, len(conditions))
    tables = [problem.tables[name] / (high[i] - low[i]) for i, name in enumerate(budgets, 1)]
    data = (
        problem.apply,
        jnp.asarray(problem.selection.x),
        jnp.asarray(problem.selection.y),
        jnp.asarray(unit, float),
        balanced(unit),
        jnp.asarray(np.array(tables).reshape(-1, len(problem.names), problem.max_bits), float),
        jnp.asarray(low / (high - low), float),
        jnp.asarray(1 / (high - low), float),
        jnp.asarray(entropy / len(problem.names), float),
    )
    carry, history = (params, _adam(rate, steps).init(params)), []
    for done in range(0, steps, _CHUNK):
        keys = jax.random.split(jax.random.fold_in(key, 1 + done), _CHUNK)[: min(_CHUNK, steps - done)]
        carry, off = _steps(setting, carry, keys, data)
        history.append(np.asarray(off))
        if progress is not None:
            progress(done + len(keys), steps)
    spent = steps * wishes * _GROUP * min(images, len(problem.selection)) / len(problem.selection)
    spent *= 1.0 if way == "score" else _BACKWARD
    surrogate = search.fit_surrogate(
        designs,
        accuracy[:, None],
        problem.sizes,
        jax.random.fold_in(key, 1 + 2 * steps),
        names=["accuracy"],
        members=2,
        steps=500,
    )
    seconds = time.perf_counter() - begin
    made = search.Generator(
        kind="adversarial" if way == "implicit" else "autoregressive",
        sizes=problem.sizes,
        conditions=tuple(conditions),
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
        params=carry[0],
        surrogate=surrogate,
        names=tuple(problem.names),
        history=tuple((i + 1, float(v)) for i, v in enumerate(np.concatenate(history))),
        seconds=seconds,
        notes={"way": way, "entropy": entropy},
    )
    return ThroughNetwork(
        generator=made,
        way=way,
        entropy=float(entropy),
        probes=len(designs),
        evaluations=len(designs) + spent,
        history=np.concatenate(history),
        seconds=seconds,
    )


def _check(problem: BitProblem, way: str, budgets: tuple[str, ...], counts: dict[str, int]) -> None:
    if way not in WAYS:
        raise ValueError(f"way must be one of {', '.join(WAYS)}, got {way!r}")
    if problem.apply is None:
        raise ValueError(f"{problem.network} has no network to train through")
    for name in budgets:
        if name not in problem.tables:
            raise ValueError(f"no metric is called {name!r}: known are {', '.join(problem.tables)}")
    for name, value in counts.items():
        least = 64 if name == "probes" else 1
        if isinstance(value, bool) or int(value) != value or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")


@dataclass(frozen=True)
class _Setting:
    """What shapes the program. key: (steps, layer names) of the network."""

    way: str
    sizes: tuple[int, ...]
    budgets: tuple[bool, ...]
    wishes: int
    images: int
    rate: float
    steps: int
    key: tuple


@functools.cache
def _adam(rate: float, steps: int) -> Any:
    import optax

    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, steps)))


def _start(key: Array, way: str, sizes: tuple[int, ...], conditions: int) -> dict:
    from diffhw.search._generator_adversarial import dense
    from diffhw.search._generator_autoregressive import condition_features, initial

    if way != "implicit":
        return initial(key, sizes, conditions, _HIDDEN)
    asked = condition_features(jnp.zeros(conditions), jnp.zeros(conditions)).shape[0]
    wide = 2 * _HIDDEN
    return {"generator": dense(key, [(_NOISE + asked, wide), (wide, wide), (wide, len(sizes) * max(sizes))])}


# Drawing with slopes ------------------------------------------------------------------------------


def _through(logits: Array, key: Array) -> Array:
    """One-hot draws of softmax(logits) over the last axis; slopes of the softmax of the noisy logits."""
    noisy = logits + jax.random.gumbel(key, logits.shape)
    soft = jax.nn.softmax(noisy, axis=-1)
    return jax.nn.one_hot(jnp.argmax(noisy, -1), logits.shape[-1], dtype=soft.dtype) + (
        soft - lax.stop_gradient(soft)
    )


def _entropy(logs: Array) -> Array:
    return -(jnp.exp(logs) * logs).sum(axis=-1)


def autoregressive_draw(params: dict, sizes: tuple[int, ...], key: Array, features: Array):
    """(one-hot (N, V, B), log probability (N,), entropy (N,)) of the autoregressive family's density.

    The parameters are those of `search.Generator`. Slopes pass straight through every draw, into the layers
    after it too. Entropy: sum of the conditional ones along the draw, in the mean that of the density.
    """
    v, b = len(sizes), max(sizes)
    legal = jnp.arange(b)[None, :] < jnp.asarray(sizes)[:, None]
    base = jnp.einsum("nf,vfh->vnh", features, params["asked"]) + params["b1"][:, None]

    def step(sums, now):
        i, key, base, w2, b2, w3, b3, past, open_ = now
        h = jax.nn.gelu(base + lax.dynamic_index_in_dim(sums, i, 1, keepdims=False))
        h = jax.nn.gelu(h @ w2 + b2[None])
        logits = jnp.where(open_[None], h @ w3 + b3[None], -1e9)
        logs = jax.nn.log_softmax(logits, axis=-1)
        hot = _through(logits, key)
        taken = (lax.stop_gradient(hot) * logs).sum(axis=-1)
        return sums + jnp.einsum("nb,bvh->nvh", hot, past), (hot, taken, _entropy(logs))

    now = (
        jnp.arange(v),
        jax.random.split(key, v),
        base,
        params["w2"],
        params["b2"],
        params["w3"],
        params["b3"],
    )
    start = jnp.zeros((features.shape[0], v, base.shape[-1]))
    _, (hot, logs, entropy) = lax.scan(step, start, (*now, params["past"], legal))
    return jnp.moveaxis(hot, 0, 1), logs.sum(axis=0), entropy.sum(axis=0)


def implicit_draw(params: dict, sizes: tuple[int, ...], key: Array, features: Array):
    """The same of noise and a wish; the entropy is that given the noise, and there is no log probability."""
    from diffhw.search._generator_adversarial import perceptron

    a, c = jax.random.split(key)
    noise = jax.random.normal(a, (features.shape[0], _NOISE))
    logits = perceptron(params["generator"], jnp.concatenate([noise, features], axis=-1))
    logits = logits.reshape(-1, len(sizes), max(sizes))
    logits = jnp.where((jnp.arange(max(sizes))[None] < jnp.asarray(sizes)[:, None])[None], logits, -1e9)
    return _through(logits, c), None, _entropy(jax.nn.log_softmax(logits, axis=-1)).sum(axis=-1)


# The network on a mini-batch ----------------------------------------------------------------------


def soft_logits(apply, key: tuple, hot: Array, x: Array) -> Array:
    """Logits (n, classes) of one network whose kernels are sums of ``hot`` (V, B) times those of each width.

    Exactly the quantized network's at one-hot rows.
    """
    from diffhw.training._channel_major import run_major

    (tables, biases, _), (steps, names) = apply.args[0], key
    kernels = {name: jnp.tensordot(hot[i], tables[name], axes=1) for i, name in enumerate(names)}
    return run_major(steps, kernels, biases, x)


def smooth_accuracy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """(smooth, exact) share of images (n,) recognised: mean of sigmoid(margin / width), and of margin > 0."""
    true = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    others = jnp.where(jax.nn.one_hot(labels, logits.shape[1], dtype=bool), -jnp.inf, logits)
    margin = true - others.max(axis=1)
    # With a floor: a network that died has margins of nothing, and must not outweigh all others.
    width = _SOFT * jnp.sqrt(lax.stop_gradient(margin**2).mean() + _FLOOR**2)
    return jax.nn.sigmoid(margin / width).mean(), (logits.argmax(axis=1) == labels).mean()


def _measured(setting: _Setting, apply, hot: Array, x: Array, y: Array) -> Array:
    """(N,) exact accuracies of drawn widths; slopes of the smooth ones, unless "score" needs none."""
    batch = None if jax.default_backend() == "cpu" else 32
    if setting.way == "score":
        bits = jnp.argmax(hot, axis=-1) + 1.0
        return lax.map(lambda row: (apply(row, x).argmax(-1) == y).mean(), bits, batch_size=batch)

    def one(row):
        soft = lambda row: smooth_accuracy(soft_logits(apply, setting.key, row, x), y)
        (_, exact), slope = jax.value_and_grad(soft, has_aux=True)(row)
        return exact, slope

    exact, slope = lax.map(one, lax.stop_gradient(hot), batch_size=batch)
    return exact + ((hot - lax.stop_gradient(hot)) * slope).sum(axis=(1, 2))


@functools.partial(jax.jit, static_argnums=0)
def _steps(setting: _Setting, carry, keys: Array, data):
    """Some steps; (carry, mean distance from the wishes of each)."""
    from diffhw.search._generator_autoregressive import asked_of, condition_features, pick

    apply, x, y, unit, cells, tables, base, scale, weight = data
    draw = implicit_draw if setting.way == "implicit" else autoregressive_draw
    optimiser = _adam(setting.rate, setting.steps)

    def loss(params, key):
        a, b, c, d, e = jax.random.split(key, 5)
        values, mask = asked_of(b, unit[pick(a, cells, setting.wishes)], setting.budgets)
        # Every accuracy, that below a probe's within its budget: with the probes' own alone, wishes in the
        # gaps between them are never learned.
        top = jnp.where(mask[:, 1:].any(axis=1), values[:, 0], 1.0)
        values = values.at[:, 0].set(jax.random.uniform(e, top.shape) * jnp.clip(top, 0.05, 1.0))
        features = jnp.repeat(condition_features(values, mask), _GROUP, axis=0)
        hot, logs, entropy = draw(params, setting.sizes, c, features)
        rows = jax.random.choice(d, x.shape[0], (min(setting.images, x.shape[0]),), replace=False)
        accuracy = _measured(setting, apply, hot, x[rows], y[rows])[:, None] * scale[0]
        costs = jnp.einsum("nvb,kvb->nk", hot, tables)
        off = jnp.concatenate([accuracy, costs], axis=1) - base[None] - jnp.repeat(values, _GROUP, axis=0)
        off = jnp.where(jnp.asarray(setting.budgets)[None], jnp.maximum(off, 0.0), jnp.abs(off))
        off = (off * jnp.repeat(mask, _GROUP, axis=0)).sum(axis=1)
        if setting.way != "score":
            return (off - weight * entropy).mean(), off.mean()
        reward = lax.stop_gradient(-off - weight * logs).reshape(setting.wishes, _GROUP)
        others = (reward.sum(axis=1, keepdims=True) - reward) / (_GROUP - 1)
        return -((reward - others).reshape(-1) * logs).mean(), off.mean()

    def one(carry, key):
        params, state = carry
        (_, off), slope = jax.value_and_grad(loss, has_aux=True)(params, key)
        change, state = optimiser.update(slope, state, params)
        return (jax.tree.map(jnp.add, params, change), state), off

    return lax.scan(one, carry, keys)
