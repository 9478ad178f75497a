"""Thousands of networks trained, or bit configurations evaluated, by one compiled program in chunks."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from jax.tree_util import Partial

from diffhw.training._checkpoint import Checkpoint
from diffhw.training._data import Data, Splits
from diffhw.training._fit import Fit, Hyper, check_settings
from diffhw.training._train import Progress, check_match, hyper_defaults, tiles

__all__ = ["ManyResult", "evaluate_many", "observe_many", "train_many"]

_CONFIGS = ("seed", "learning_rate", "weight_decay", "bits")


@dataclass(frozen=True)
class ManyResult:
    """Networks trained together, in the order of their configurations.

    accuracy: (N,) on the validation images after the last epoch.  loss: (N, epochs) of training.
    configs: what was asked, every entry with a leading N.  states: (params, rest) with a leading N on the
    host, or None where they were not kept; `model` makes a module of one.
    """

    accuracy: np.ndarray
    loss: np.ndarray
    configs: dict[str, np.ndarray]
    states: Any
    fit: Any

    def model(self, index: int) -> Any:
        """The trained network number ``index``, in evaluation mode."""
        from flax import nnx

        if self.states is None:
            raise ValueError("the trained weights were not kept: train_many(..., keep=True)")
        params, rest = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), self.states)
        return nnx.merge(self.fit.evaluating, params, rest)


def _columns(configs, layers: int) -> dict[str, np.ndarray]:
    """Every entry as an array with a leading N. Raises ValueError naming the entry."""
    if isinstance(configs, int):
        configs = {"seed": np.arange(configs)}
    unknown = sorted(set(configs) - set(_CONFIGS))
    if unknown:
        raise ValueError(f"configs may have {', '.join(_CONFIGS)}, got {unknown[0]!r}")
    columns = {name: np.asarray(value) for name, value in configs.items()}
    sizes = {len(column) for column in columns.values() if column.ndim}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"configs must be of one length >= 1, got {', '.join(map(str, sorted(sizes))) or 'none'}"
        )
    n = sizes.pop()
    for name, column in columns.items():
        wanted = (n, layers) if name == "bits" else (n,)
        if column.ndim == 0 and name != "bits":
            columns[name] = np.full(n, column)
        elif column.shape != wanted:
            raise ValueError(f"configs: {name} must have shape {wanted}, got {column.shape}")
    if "bits" in columns and not (columns["bits"] >= 1).all():
        raise ValueError(f"configs: bits must be >= 1, got {columns['bits'].min()}")
    columns.setdefault("seed", np.arange(n))
    return columns


def train_many(
    make: Callable,
    configs,
    data: Splits | Data,
    *,
    epochs: int = 20,
    optimizer: str = "sgd",
    batch: int = 64,
    shift: int = 1,
    chunk: int = 16,
    keep: bool = True,
    devices=None,
    progress: Progress | None = None,
    checkpoint=None,
) -> ManyResult:
    """Train N networks of one kind, ``chunk`` at a time, in one vmapped program.

    make: ``make(key)`` returns a fresh nnx module; all have the same shapes.
    configs: a dict of arrays with a leading N: "seed" (start and order of images; default 0, 1, ...),
        "learning_rate", "weight_decay", "bits" (N, L: quantization-aware training); or N alone.
        Network i equals ``train(make(key), data, key=fold_in(key, 1))`` with key = jax.random.key(seed[i]),
        up to rounding.
    chunk: networks at once, split over the devices; the last chunk is padded to the same shape.
    keep: keep the trained weights.  devices: default all local ones, see `evaluate_many`.
    progress: ``progress(networks done, N, best accuracy)``.  checkpoint: a folder; finished chunks are
        written there, and a run that finds some goes on after them, with the same result bit for bit.

    Raises ValueError for settings, configs or images that do not fit, or a checkpoint of another run.
    """
    from flax import nnx

    parts = data if isinstance(data, Splits) else Splits(data, data, data)
    check_settings(epochs=epochs, batch=batch, optimizer=optimizer, images=len(parts.train))
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk must be an integer >= 1, got {chunk!r}")
    abstract = nnx.eval_shape(lambda: make(jax.random.key(0)))
    check_match(abstract, parts.train)
    quantized = isinstance(configs, dict) and "bits" in configs
    columns = _columns(configs, len(abstract.layers()) if quantized else 0)
    rate, decay = hyper_defaults(optimizer, None, None)
    n = len(columns["seed"])
    columns.setdefault("learning_rate", np.full(n, rate))
    columns.setdefault("weight_decay", np.full(n, decay))
    fit = Fit(abstract, optimizer=optimizer, epochs=epochs, batch=batch, images=len(parts.train), shift=shift)
    x, y = jnp.asarray(parts.train.x), jnp.asarray(parts.train.y)
    held = tuple(map(jnp.asarray, tiles(parts.validation, 256)))

    def one(seed, hyper):
        key = jax.random.key(seed)
        params, rest = nnx.split(make(key), nnx.Param, ...)[1:]
        state, order = fit.start(params, rest), jax.random.fold_in(key, 1)

        def epoch(state, i):
            state, loss, _ = fit.epoch(state, hyper, jax.random.fold_in(order, i), x, y)
            return state, loss

        state, losses = lax.scan(epoch, state, jnp.arange(epochs))
        right = fit.right(state.params, state.rest, hyper.bits, *held)
        return right / len(parts.validation), losses, (state.params, state.rest) if keep else None

    devices = _devices(devices, n)
    program = _over(devices, lambda _, configs: jax.vmap(one)(*configs), 2)
    chunk = -(-min(chunk, n) // len(devices)) * len(devices)
    count = -(-n // chunk)
    saved, done, accuracy = None, 0, np.zeros(n, np.float32)
    loss, states = np.zeros((n, epochs), np.float32), None
    if keep:
        shapes = (fit.params, fit.rest)
        states = jax.tree.map(lambda leaf: np.zeros((n, *leaf.shape), leaf.dtype), shapes)
    if checkpoint is not None:
        described = {name: column.tolist() for name, column in columns.items()}
        settings = dict(epochs=epochs, optimizer=optimizer, batch=batch, shift=shift, chunk=chunk, keep=keep)
        settings |= dict(network=getattr(abstract, "name", type(abstract).__name__), data=parts.train.name)
        saved = Checkpoint(checkpoint, settings | described)
        found = saved.restore((accuracy, loss, states))
        if found is not None:
            done, (accuracy, loss, states) = found
            accuracy, loss, states = jax.tree.map(np.array, (accuracy, loss, states))
    for i in range(done, count):
        rows = np.minimum(np.arange(i * chunk, (i + 1) * chunk), n - 1)
        real = np.arange(i * chunk, min(n, (i + 1) * chunk))
        hyper = Hyper(
            learning_rate=jnp.asarray(columns["learning_rate"][rows], jnp.float32),
            weight_decay=jnp.asarray(columns["weight_decay"][rows], jnp.float32),
            bits=jnp.asarray(columns["bits"][rows], jnp.float32) if "bits" in columns else None,
        )
        out = jax.tree.map(np.asarray, program(None, (jnp.asarray(columns["seed"][rows], jnp.uint32), hyper)))
        accuracy[real], loss[real] = out[0][: len(real)], out[1][: len(real)]
        for into, new in zip(jax.tree.leaves(states), jax.tree.leaves(out[2])):
            into[real] = new[: len(real)]
        if saved is not None:
            saved.save(i + 1, (accuracy, loss, states))
        if progress is not None:
            progress(len(real) + i * chunk, n, float(accuracy[: i * chunk + len(real)].max()))
    return ManyResult(accuracy, loss, columns, states, fit)


def _over(devices, function: Callable, arguments: int) -> Callable:
    """``function`` jitted with its second argument and its results split over devices on their leading axis.

    The other arguments are the same on each device.
    """
    mesh = Mesh(np.array(devices), ("population",))
    split, same = PartitionSpec("population"), PartitionSpec()
    specs = tuple(split if i == 1 else same for i in range(arguments))
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False))


def _right(logits: Array, labels: Array, on: Array) -> Array:
    """(1,): images recognised."""
    return jnp.sum((logits.argmax(-1) == labels) * on)[None]


def _right_by_class(logits: Array, labels: Array, on: Array) -> Array:
    """(1 + classes + 1,): `_right`, the same of each class, the sum of the probabilities of the right one."""
    own = jax.nn.one_hot(labels, logits.shape[-1]) * on[:, None]
    by_class = (logits.argmax(-1) == labels).astype(logits.dtype) @ own
    likely = (jax.nn.softmax(logits) * own).sum()[None]
    return jnp.concatenate([_right(logits, labels, on), by_class, likely])


@functools.cache
def _counter(devices: tuple, vectorize: int, measure: Callable) -> Callable:
    """(apply, configs, x, y, mask) to sums over the images of what is measured, (chunk, K)."""

    def count(apply, configs, x, y, mask) -> Array:
        def tile(config, part):
            images, labels, on = part
            return measure(apply(config, images), labels, on)

        one = lambda config: lax.map(lambda part: tile(config, part), (x, y, mask)).sum(axis=0)
        return lax.map(one, configs, batch_size=None if vectorize == 1 else vectorize)

    return _over(devices, count, 5)


def _devices(devices, n: int) -> tuple:
    """Those to use for n rows: all local ones by default, never more than rows."""
    chosen = tuple(jax.local_devices() if devices is None else devices)
    if not chosen:
        raise ValueError("devices must name at least one device, got none")
    return chosen[:n]


def evaluate_many(
    apply: Callable,
    bits,
    data: Data,
    *,
    chunk: int = 256,
    tile: int | None = None,
    vectorize: int | None = None,
    devices=None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Accuracy (N,) of N configurations on ``data``, each really run on every image.

    apply: ``apply(config, images) -> logits``, traceable; the fast one for bit widths is `bits_apply`.
        Give the same object again, and nothing is compiled anew.
    bits: (N, L), or a pytree of arrays with a leading N; ``apply`` sees one row.
    chunk: configurations per call of the compiled program (fixed shape, the last one padded), split over
        the devices.
    tile: images at once; default 64 on a CPU, where a tile's activations should stay in the cache, else 512.
    vectorize: configurations run as one batch inside; default 1 on a CPU (measured fastest there: matrix
        products are large enough, and a batch leaves the cache), else 64.
    devices: default all local ones. A CPU is one device unless JAX is told otherwise before its first use,
        and one device keeps little more than one core busy with products this small: call
        ``jax.config.update("jax_num_cpu_devices", os.cpu_count())`` first. mobilenet_v2_small on 1437
        digits: 188 configurations a second and core, 32 GMAC/s (AMD EPYC, float32).
    progress: ``progress(done, N, best accuracy so far)``.

    Raises ValueError for configurations that are empty, of different lengths, or not the network's.
    """
    sums = _sums(_right, apply, bits, data, chunk, tile, vectorize, devices, progress)
    return sums[:, 0] / np.float32(len(data))


def observe_many(
    apply: Callable,
    bits,
    data: Data,
    *,
    chunk: int = 256,
    tile: int | None = None,
    vectorize: int | None = None,
    devices=None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`evaluate_many`, and what the same runs tell beside it: accuracy (N,) and aspects (N, classes + 1).

    aspects: the share recognised of each class and, last, the mean probability of the right class. The
    arguments are those of `evaluate_many`.
    """
    sums = _sums(_right_by_class, apply, bits, data, chunk, tile, vectorize, devices, progress)
    right, by_class, likely = np.split(sums.astype(np.float64), [1, -1], axis=1)
    images = np.maximum(np.bincount(np.asarray(data.y), minlength=by_class.shape[1]), 1)
    return right[:, 0] / len(data), np.concatenate([by_class / images, likely / len(data)], axis=1)


def _sums(measure, apply, bits, data, chunk, tile, vectorize, devices, progress) -> np.ndarray:
    """(N, K) of `_counter`, checked and in chunks; the first column of a measure is `_right`."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(bits)]
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError("configurations must be arrays with one row per configuration, and at least one row")
    n = sizes.pop()
    apply = apply if isinstance(apply, Partial) else Partial(apply)
    check = getattr(apply.func, "check", None)
    if check is not None:
        check(apply.args[0], bits, data)
    for name, value in (("chunk", chunk), ("tile", tile), ("vectorize", vectorize)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    devices = _devices(devices, n)
    on_cpu = devices[0].platform == "cpu"
    tile = (64 if on_cpu else 512) if tile is None else tile
    vectorize = (1 if on_cpu else 64) if vectorize is None else vectorize
    per_device = min(-(-chunk // len(devices)), 2 ** math.ceil(math.log2(-(-n // len(devices)))))
    chunk = per_device * len(devices)
    program = _counter(devices, min(vectorize, per_device), measure)
    arrays = tuple(map(jnp.asarray, tiles(data, tile)))
    count = -(-n // chunk)
    configs = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), bits)
    out, waiting = [], []

    def collect():
        at, sums = waiting.pop(0)
        out.append(np.asarray(sums)[: min(chunk, n - at)])
        if progress is not None:
            right = max(part[:, 0].max() for part in out)
            progress(at + len(out[-1]), n, float(right) / len(data))

    for i in range(count):
        rows = np.minimum(np.arange(i * chunk, (i + 1) * chunk), n - 1)
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], configs)
        waiting.append((i * chunk, program(apply, part, *arrays)))
        if len(waiting) > 1:  # one chunk runs while another is prepared
            collect()
    while waiting:
        collect()
    return np.concatenate(out)
