"""An ensemble of small networks that predicts metrics of a discrete design from its index vector.

Variables enter as one-hot vectors: with a scalar code per variable the same data gives two to three
times the error (measured on bit widths; docs/performance.md). Inputs need no order and no unit.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

__all__ = ["Surrogate", "fit_surrogate"]

_HUBER = 0.05  # of the range of a metric
_BINS = 30
_PART = 2048  # designs predicted per compiled call
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

    def one_hot(self, indices: Array | np.ndarray) -> Array:
        """(..., V, B) with B the largest size."""
        return jax.nn.one_hot(indices, max(self.sizes), dtype=float)

    def soft(self, weights: Array) -> Array:
        """(..., C) from weights over the values of each variable, (..., V, B): exact at one-hot ones."""
        flat = weights.reshape(*weights.shape[:-2], -1)
        unit = jax.vmap(_forward, in_axes=(0, None))(self.params, flat).mean(axis=0)
        low = self.low.reshape((1,) * (unit.ndim - 1) + (-1,))
        return low + unit * (self.high - self.low).reshape(low.shape)

    def __call__(self, indices: Array | np.ndarray) -> Array:
        return self.soft(self.one_hot(indices))

    def predict(self, indices: np.ndarray) -> np.ndarray:
        """The same, compiled, on the host, float64; large batches in parts."""
        indices = np.asarray(indices, np.int32)
        flat = indices.reshape(-1, indices.shape[-1])
        padded = np.concatenate([flat, np.zeros((-len(flat) % _PART, flat.shape[1]), np.int32)])
        parts = [_predict(self, padded[i : i + _PART]) for i in range(0, len(padded), _PART)]
        found = np.concatenate([np.asarray(part, np.float64) for part in parts])[: len(flat)]
        return found.reshape(*indices.shape[:-1], -1)


@jax.jit
def _predict(surrogate: Surrogate, indices: Array) -> Array:
    return surrogate(indices)


def _forward(params: dict, flat: Array) -> Array:
    """Unit-range metrics of one member."""
    h = jax.nn.gelu(_affine(flat, params["w1"], params["b1"]))
    h = jax.nn.gelu(_affine(h, params["w2"], params["b2"]))
    return jax.nn.sigmoid(_affine(h, params["w3"], params["b3"]))


def _affine(x: Array, w: Array, b: Array) -> Array:
    return x @ w + b.reshape((1,) * (x.ndim - 1) + (-1,))


def _init(key: Array, inputs: int, hidden: int, outputs: int) -> dict:
    keys = jax.random.split(key, 3)
    dense = lambda k, a, b: jax.random.normal(k, (a, b)) / math.sqrt(a)
    # One input of a one-hot group is on, so the fan-in is the number of groups.
    return {
        "w1": dense(keys[0], inputs, hidden) * math.sqrt(8.0),
        "b1": jnp.zeros(hidden),
        "w2": dense(keys[1], hidden, hidden),
        "b2": jnp.zeros(hidden),
        "w3": dense(keys[2], hidden, outputs),
        "b3": jnp.zeros(outputs),
    }


@functools.cache
def _optimiser(steps: int, rate: float):
    import optax  # only fitting needs it

    return optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=1e-4)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _steps(count: int, total: int, rate: float, batch: int, carry, data, keys):
    """``count`` steps of every member; data: flat (N, VB), unit targets (N, C), rows by bin (2, bins)."""
    flat, unit, (begin, length), order = data
    optimiser = _optimiser(total, rate)

    def loss(params, rows):
        miss = jnp.abs(_forward(params, flat[rows]) - unit[rows])
        return jnp.where(miss < _HUBER, 0.5 * miss**2 / _HUBER, miss - 0.5 * _HUBER).mean()

    def draw(key):
        # Half of a batch as the data lie, half spread evenly over the bins of the first metric.
        a, b, c = jax.random.split(key, 3)
        plain = jax.random.randint(a, (batch // 2,), 0, flat.shape[0])
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
    rate: float = 3e-3,
    progress: Callable[[int, int], None] | None = None,
) -> Surrogate:
    """A `Surrogate` of evaluated designs.

    indices: (N, V) whole numbers.  metrics: (N, C) finite.  sizes: legal values per variable.
    names: of the C metrics; batches are balanced over the first.  members: of the ensemble, each with its
    own start and batches.  progress: called with steps done and in all.
    Raises ValueError for shapes that do not match, fewer than 32 designs, or a metric that is not finite.
    """
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
    if not np.isfinite(metrics).all():
        raise ValueError(f"metrics must be finite, row {int(np.argmin(np.isfinite(metrics).all(1)))} is not")
    low, high = metrics.min(axis=0), metrics.max(axis=0)
    room = 0.02 * np.maximum(high - low, 1e-9)
    low, high = low - room, high + room
    unit = (metrics - low) / (high - low)
    bins = np.minimum((unit[:, 0] * _BINS).astype(int), _BINS - 1)
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins, minlength=_BINS)
    begin = np.concatenate([[0], np.cumsum(counts)[:-1]])[counts > 0]
    flat = np.eye(max(sizes), dtype=np.float32)[indices].reshape(len(indices), -1)
    data = (
        jnp.asarray(flat),
        jnp.asarray(unit, float),
        (jnp.asarray(begin, jnp.int32), jnp.asarray(counts[counts > 0], float)),
        jnp.asarray(order, jnp.int32),
    )
    start, key = jax.random.split(key)
    params = jax.vmap(lambda k: _init(k, flat.shape[1], hidden, len(names)))(jax.random.split(start, members))
    carry = (params, jax.vmap(_optimiser(steps, rate).init)(params))
    for done in range(0, steps, _CHUNK):
        count = min(_CHUNK, steps - done)
        keys = jax.random.split(jax.random.fold_in(key, done), members)
        carry, _ = _steps(count, steps, rate, batch, carry, data, keys)
        if progress is not None:
            jax.block_until_ready(carry)
            progress(done + count, steps)
    return Surrogate(
        params=carry[0],
        low=jnp.asarray(low, float),
        high=jnp.asarray(high, float),
        sizes=sizes,
        names=tuple(names),
    )
