"""Training and evaluating one network."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.training._checkpoint import Checkpoint
from diffhw.training._data import Data, Splits
from diffhw.training._fit import Fit, Hyper, check_settings, default_rate

__all__ = ["TrainResult", "evaluate", "train"]

Progress = Callable[[float, float, float], None]
_TILE = 256  # images evaluated at once


@dataclass(frozen=True)
class TrainResult:
    """A trained network.

    model: in evaluation mode.  accuracy: on the validation images after the last epoch (not picked among
    epochs), or on the training images where there is no validation; test images are never looked at.
    loss, train_accuracy, validation_accuracy: (epochs,).  seconds: of the epochs run in this call.
    """

    model: Any
    accuracy: float
    loss: np.ndarray
    train_accuracy: np.ndarray
    validation_accuracy: np.ndarray
    seconds: float


def tiles(data: Data, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (t, size, h, w, c), labels (t, size) and mask (t, size), padded at the end."""
    n = len(data)
    size = min(size, n)
    count = -(-n // size)
    fill = lambda a: np.concatenate([a, np.zeros((count * size - n, *a.shape[1:]), a.dtype)])
    every = (data.x, data.y, np.ones(n, np.float32))
    x, y, on = (fill(a).reshape(count, size, *a.shape[1:]) for a in every)
    return x, y, on


def check_match(model, data: Data) -> None:
    """Raises ValueError if a `ConvNet` and images do not belong together."""
    shape, classes = getattr(model, "input_shape", None), getattr(model, "classes", None)
    name = getattr(model, "name", type(model).__name__)
    if shape is not None and tuple(shape) != data.input_shape:
        raise ValueError(f"{name} takes images of {shape}, and those of {data.name} are {data.input_shape}")
    if classes is not None and classes < data.classes:
        raise ValueError(f"{name} tells {classes} classes apart, and {data.name} has {data.classes}")


def evaluate(model, data: Data, *, batch: int = _TILE) -> float:
    """Share of the images that the model, in evaluation mode, recognises.

    model: an nnx module.  batch: images at once. Raises ValueError if images do not fit the model.
    """
    check_match(model, data)
    fit = Fit(model, optimizer="sgd", epochs=1, batch=1, images=1)
    right = jax.jit(fit.right)(fit.params, fit.rest, None, *tiles(data, batch))
    return float(right) / len(data)


def train(
    network,
    data: Splits | Data,
    *,
    epochs: int = 120,
    key=0,
    optimizer: Any = "sgd",
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    batch: int = 64,
    shift: int = 1,
    bits=None,
    progress: Progress | None = None,
    checkpoint=None,
    every: int = 10,
) -> TrainResult:
    """Train a network from the weights it has; the network given is left as it is.

    network: an nnx module, called with images (n, h, w, c).  data: `Splits`, or training images alone.
    key: a jax key or a seed: the order of images and their shifts.  optimizer: "sgd" (Nesterov momentum
    0.9), "adamw", or an optax transformation with its own learning rate.  learning_rate: default 0.1 (sgd)
    or 0.005 (adamw); falls to 0 along a half cosine.  weight_decay: of kernels, default 0.0005 (sgd) or
    0.05 (adamw).  shift: images are moved by up to this many pixels at random, their edges repeated.
    bits: (L,) weight bits or one number: quantization-aware training, straight-through.
    progress: ``progress(epoch, epochs, validation accuracy)`` after each epoch.  checkpoint: a folder; the
    state is written there every ``every`` epochs and at the end, and a run that finds one goes on from it,
    with the same result, bit for bit, as without the break (on one machine and version of JAX).

    One epoch is one jitted scan. Raises ValueError for settings or images that do not fit, or a checkpoint
    of another run.
    """
    parts = data if isinstance(data, Splits) else Splits(data, data, data)
    check_match(network, parts.train)
    check_settings(epochs=epochs, batch=batch, optimizer=optimizer, images=len(parts.train))
    key = jax.random.key(key) if isinstance(key, int) else key
    rate, decay = hyper_defaults(optimizer, learning_rate, weight_decay)
    hyper = Hyper(learning_rate=jnp.float32(rate), weight_decay=jnp.float32(decay), bits=None)
    if bits is not None:
        from diffhw.quantization import check_bits

        names = tuple(layer.path for layer in network.layers())
        hyper = replace(hyper, bits=check_bits("weight", bits, names))
    fit = Fit(network, optimizer=optimizer, epochs=epochs, batch=batch, images=len(parts.train), shift=shift)
    state, history, first, saved = fit.start(), np.zeros((3, epochs), np.float32), 0, None
    if checkpoint is not None:
        saved = Checkpoint(
            checkpoint,
            dict(
                network=getattr(network, "name", type(network).__name__),
                data=parts.train.name,
                images=len(parts.train),
                epochs=epochs,
                batch=batch,
                shift=shift,
                optimizer=optimizer if isinstance(optimizer, str) else "optax",
                learning_rate=rate,
                weight_decay=decay,
                key=np.asarray(jax.random.key_data(key)).tolist(),
                bits=None if bits is None else np.asarray(hyper.bits).tolist(),
            ),
        )
        found = saved.restore((state, history))
        if found is not None:
            first, (state, history) = found
            state, history = jax.tree.map(jnp.asarray, state), np.array(history)
    x, y = jnp.asarray(parts.train.x), jnp.asarray(parts.train.y)
    held = tuple(map(jnp.asarray, tiles(parts.validation, _TILE)))

    @jax.jit
    def epoch(state, key):
        state, loss, share = fit.epoch(state, hyper, key, x, y)
        right = fit.right(state.params, state.rest, hyper.bits, *held)
        return state, jnp.stack([loss, share, right / len(parts.validation)])

    began = time.perf_counter()
    for i in range(first, epochs):
        state, row = epoch(state, jax.random.fold_in(key, i))
        history[:, i] = np.asarray(row)
        if not np.isfinite(history[0, i]):
            raise ValueError(
                f"the loss is not finite after epoch {i + 1}: learning_rate {rate:g} is too high"
            )
        if saved is not None and ((i + 1) % every == 0 or i + 1 == epochs):
            saved.save(i + 1, (state, history))
        if progress is not None:
            progress(i + 1, epochs, float(history[2, i]))
    return TrainResult(
        model=_model(fit, state),
        accuracy=float(history[2, -1]),
        loss=history[0],
        train_accuracy=history[1],
        validation_accuracy=history[2],
        seconds=time.perf_counter() - began,
    )


def hyper_defaults(optimizer, learning_rate, weight_decay) -> tuple[float, float]:
    """(learning rate, weight decay), defaults filled in. Raises ValueError for negative ones."""
    rate = default_rate(optimizer) if learning_rate is None else float(learning_rate)
    decay = (0.05 if optimizer == "adamw" else 0.0005) if weight_decay is None else float(weight_decay)
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"learning_rate must be > 0, got {learning_rate!r}")
    if not (np.isfinite(decay) and decay >= 0):
        raise ValueError(f"weight_decay must be >= 0, got {weight_decay!r}")
    return rate, decay


def _model(fit: Fit, state) -> Any:
    from flax import nnx

    model = nnx.merge(fit.evaluating, state.params, state.rest)
    model.eval()
    return model
