"""An ensemble of small networks that predicts metrics of a discrete design from its index vector.

Variables enter as one-hot vectors: with a scalar code per variable the same data gives two to three
times the error (on bit widths). Two kinds of members: a "perceptron" sees all variables at once; a "chain"
carries a state through them in their order, each with weights of its own, as the layers of a network do
with their images. Measured once while building (no script; mobilenet_v2_small, 20 layers, 9233 bit
configurations, mean error over the range of accuracy, two members): perceptron 3.9 points, chain 3.5; with
the accuracy of each class learned beside it ("aspects") 2.95 and 2.6.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

__all__ = ["Surrogate", "doubted", "fit_surrogate"]

KINDS = ("perceptron", "chain")
_DECAY = {"perceptron": 1e-4, "chain": 0.3}
_RATE = {"perceptron": 3e-3, "chain": 1e-2}
_ASPECT = 0.3  # weight of an aspect in the loss, beside 1 of a metric
_HUBER = 0.05  # of the range of a metric
_BINS = 30
_ROOM = 0.02  # of the range of a metric, at either end
_PART = 2048  # designs predicted per compiled call
_SMALL = 256  # the same for a handful
_DOUBT = 1.5  # by how much the spread of the members is widened
_STATE, _INNER = 24, 32  # widths of a chain
_CHUNK = 250  # steps per compiled call, between which progress is told


@struct.dataclass
class Surrogate:
    """Predicts metrics, shape (..., C), of index vectors, shape (..., V), as the mean of its members.

    params: leaves with a leading axis of members.  low, high: (C,) range of each metric; predictions stay
    inside.  sizes: legal values per variable.  names: of the metrics. Differentiable in ``one_hot``.
    """

    params: dict
    low: Array
    high: Array
    sizes: tuple[int, ...] = struct.field(pytree_node=False)
    names: tuple[str, ...] = struct.field(pytree_node=False)

    def seen(self, name: str) -> tuple[float, float]:
        """Least and most of a metric among the designs it was fitted to."""
        place = self.names.index(name)
        low, high = float(self.low[place]), float(self.high[place])
        room = (high - low) * _ROOM / (1 + 2 * _ROOM)
        return low + room, high - room

    def one_hot(self, indices: Array | np.ndarray) -> Array:
        """(..., V, B) with B the largest size."""
        return jax.nn.one_hot(indices, max(self.sizes), dtype=float)

    def soft(self, weights: Array) -> Array:
        """(..., C) from weights over the values of each variable, (..., V, B): exact at one-hot ones."""
        return self._each(weights).mean(axis=0)

    def _each(self, weights: Array) -> Array:
        unit = jax.vmap(_forward, in_axes=(0, None))(self.params, weights)
        low = self.low.reshape((1,) * (unit.ndim - 1) + (-1,))
        return low + unit * (self.high - self.low).reshape(low.shape)

    def __call__(self, indices: Array | np.ndarray) -> Array:
        return self.soft(self.one_hot(indices))

    def each(self, indices: Array | np.ndarray) -> Array:
        """(members, ..., C): what every member says. Where they differ, all of them are in doubt."""
        return self._each(self.one_hot(indices))

    def predict(self, indices: np.ndarray) -> np.ndarray:
        """The mean, compiled, on the host, float64; large batches in parts."""
        return self.predict_each(indices).mean(axis=0)

    def predict_each(self, indices: np.ndarray) -> np.ndarray:
        """(members, ..., C), compiled, on the host, float64; large batches in parts."""
        indices = np.asarray(indices, np.int32)
        flat = indices.reshape(-1, indices.shape[-1])
        part = _SMALL if len(flat) <= _SMALL else _PART
        padded = np.concatenate([flat, np.zeros((-len(flat) % part, flat.shape[1]), np.int32)])
        parts = [_predict(self, padded[i : i + part]) for i in range(0, len(padded), part)]
        found = np.concatenate([np.asarray(one, np.float64) for one in parts], axis=1)[:, : len(flat)]
        return found.reshape(len(found), *indices.shape[:-1], -1)


def doubted(each, asked, weight: float = _DOUBT):
    """Mean distance from ``asked`` (...) of what members say (members, ...), their spread widened.

    So a design that the members agree on is nearer than one that they differ on with the same mean. Members
    learned the same designs and err alike, hence the weight.
    """
    mean = each.mean(axis=0)
    return abs(mean[None] + weight * (each - mean[None]) - asked[None]).mean(axis=0)


@jax.jit
def _predict(surrogate: Surrogate, indices: Array) -> Array:
    return surrogate.each(indices)


def _forward(params: dict, weights: Array) -> Array:
    """Unit-range metrics of one member, from weights (..., V, B)."""
    if "state" in params:
        h = _chain(params, weights.reshape(-1, *weights.shape[-2:]))
        h = h.reshape(*weights.shape[:-2], -1)
    else:
        flat = weights.reshape(*weights.shape[:-2], -1)
        h = jax.nn.gelu(_affine(flat, params["w1"], params["b1"]))
    h = jax.nn.gelu(_affine(h, params["w2"], params["b2"]))
    return jax.nn.sigmoid(_affine(h, params["w3"], params["b3"]))


def _chain(params: dict, weights: Array) -> Array:
    """(N, _STATE) after all variables, from (N, V, B)."""

    def step(state, now):
        into, value, out, chosen = now
        return state + jax.nn.gelu(state @ into + chosen @ value) @ out, None

    start = jnp.broadcast_to(params["state"][None], (len(weights), _STATE))
    steps = (params["into"], params["value"], params["out"], jnp.moveaxis(weights, 1, 0))
    return lax.scan(step, start, steps)[0]


def _affine(x: Array, w: Array, b: Array) -> Array:
    return x @ w + b.reshape((1,) * (x.ndim - 1) + (-1,))


def _init(key: Array, kind: str, variables: int, widest: int, hidden: int, outputs: int) -> dict:
    keys = jax.random.split(key, 3)
    dense = lambda k, *shape: jax.random.normal(k, shape) / math.sqrt(shape[-2])
    if kind == "chain":
        a, b, c, d = jax.random.split(keys[0], 4)
        first = {
            "state": 0.5 * jax.random.normal(a, (_STATE,)),
            "into": dense(b, variables, _STATE, _INNER),
            "value": jax.random.normal(c, (variables, widest, _INNER)),
            "out": 0.5 * dense(d, variables, _INNER, _STATE),
        }
        inner = _STATE
    else:
        # One input of a one-hot group is on, so the fan-in is the number of groups.
        first = {
            "w1": dense(keys[0], variables * widest, hidden) * math.sqrt(8.0),
            "b1": jnp.zeros(hidden),
        }
        inner = hidden
    return first | {
        "w2": dense(keys[1], inner, hidden),
        "b2": jnp.zeros(hidden),
        "w3": dense(keys[2], hidden, outputs),
        "b3": jnp.zeros(outputs),
    }


@functools.cache
def _optimiser(steps: int, rate: float, decay: float):
    import optax  # only fitting needs it

    return optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=decay)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _steps(count: int, recipe: tuple[int, float, float], batch: int, carry, data, keys):
    """``count`` steps of every member; data: one-hot (N, V, B), unit targets (N, C), weights (C,), bins."""
    hot, unit, weight, (begin, length), order = data
    optimiser = _optimiser(*recipe)

    def loss(params, rows):
        miss = jnp.abs(_forward(params, hot[rows]) - unit[rows])
        huber = jnp.where(miss < _HUBER, 0.5 * miss**2 / _HUBER, miss - 0.5 * _HUBER)
        return (huber * weight[None]).mean()

    def draw(key):
        # Half of a batch as the data lie, half spread evenly over the bins of the first metric.
        a, b, c = jax.random.split(key, 3)
        plain = jax.random.randint(a, (batch // 2,), 0, hot.shape[0])
        bins = jax.random.randint(b, (batch - batch // 2,), 0, begin.shape[0])
        within = jnp.floor(jax.random.uniform(c, bins.shape) * length[bins]).astype(jnp.int32)
        return jnp.concatenate([plain, order[begin[bins] + within]])

    def one(carry, key):
        params, state = carry
        value, slope = jax.value_and_grad(loss)(params, draw(key))
        update, state = optimiser.update(slope, state, params)
        return (jax.tree.map(jnp.add, params, update), state), value

    def member(carry, key):
        return lax.scan(one, carry, jax.random.split(key, count))

    return jax.vmap(member)(carry, keys)


def fit_surrogate(
    indices: np.ndarray,
    metrics: np.ndarray,
    sizes: Sequence[int],
    key: Array,
    *,
    names: Sequence[str],
    members: int = 6,
    hidden: int = 128,
    steps: int = 3000,
    batch: int = 256,
    rate: float | None = None,
    kind: str = "perceptron",
    aspects: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Surrogate:
    """A `Surrogate` of evaluated designs.

    indices: (N, V) whole numbers.  metrics: (N, C) finite.  sizes: legal values per variable.
    names: of the C metrics; batches are balanced over the first.  members: of the ensemble, each with its
    own start and batches.  kind: "perceptron", or "chain" where variables act in their order.
    aspects: (N, A) finite, what else the evaluations told: learned beside the metrics, which sharpens
    them, and then forgotten.  progress: called with steps done and in all.
    Raises ValueError for an unknown kind, shapes that do not match, fewer than 32 designs, or a metric
    that is not finite.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    indices, metrics = np.asarray(indices), np.asarray(metrics, np.float64)
    sizes = tuple(int(size) for size in sizes)
    if indices.ndim != 2 or indices.shape[1] != len(sizes):
        raise ValueError(
            f"indices must have one column per variable ({len(sizes)}), got shape {indices.shape}"
        )
    if metrics.shape != (len(indices), len(names)):
        raise ValueError(f"metrics must have shape {(len(indices), len(names))}, got {metrics.shape}")
    if len(indices) < 32:
        raise ValueError(f"a surrogate needs at least 32 designs, got {len(indices)}")
    wrong = np.argwhere((indices < 0) | (indices >= np.asarray(sizes)))
    if len(wrong):
        row, column = wrong[0]
        most, found = sizes[column] - 1, indices[row, column]
        raise ValueError(f"indices of variable {column} must be 0 to {most}, got {found} in row {row}")
    if not np.isfinite(metrics).all():
        raise ValueError(f"metrics must be finite, row {int(np.argmin(np.isfinite(metrics).all(1)))} is not")
    count = len(names)
    if aspects is not None:
        aspects = np.asarray(aspects, np.float64)
        if aspects.ndim != 2 or len(aspects) != len(indices) or not np.isfinite(aspects).all():
            raise ValueError(f"aspects must be finite, one row per design, got shape {aspects.shape}")
        metrics = np.concatenate([metrics, aspects], axis=1)
    weight = np.where(np.arange(metrics.shape[1]) < count, 1.0, _ASPECT)
    low, high = metrics.min(axis=0), metrics.max(axis=0)
    room = _ROOM * np.maximum(high - low, 1e-9)
    low, high = low - room, high + room
    unit = (metrics - low) / (high - low)
    bins = np.minimum((unit[:, 0] * _BINS).astype(int), _BINS - 1)
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins, minlength=_BINS)
    begin = np.concatenate([[0], np.cumsum(counts)[:-1]])[counts > 0]
    recipe = (steps, _RATE[kind] if rate is None else rate, _DECAY[kind])
    data = (
        jnp.asarray(np.eye(max(sizes), dtype=np.float32)[indices], float),
        jnp.asarray(unit, float),
        jnp.asarray(weight, float),
        (jnp.asarray(begin, jnp.int32), jnp.asarray(counts[counts > 0], float)),
        jnp.asarray(order, jnp.int32),
    )
    start, key = jax.random.split(key)
    fresh = lambda k: _init(k, kind, len(sizes), max(sizes), hidden, len(low))
    params = jax.vmap(fresh)(jax.random.split(start, members))
    carry = (params, jax.vmap(_optimiser(*recipe).init)(params))
    for done in range(0, steps, _CHUNK):
        now = min(_CHUNK, steps - done)
        keys = jax.random.split(jax.random.fold_in(key, done), members)
        carry, _ = _steps(now, recipe, batch, carry, data, keys)
        if progress is not None:
            jax.block_until_ready(carry)
            progress(done + now, steps)
    kept = {name: leaf[..., :count] if name in ("w3", "b3") else leaf for name, leaf in carry[0].items()}
    return Surrogate(
        params=kept,
        low=jnp.asarray(low[:count], float),
        high=jnp.asarray(high[:count], float),
        sizes=sizes,
        names=tuple(names),
    )
