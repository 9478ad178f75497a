"""One epoch of training as a pure function of arrays: what `train` jits and `train_many` vmaps."""

import difflib
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

__all__ = ["OPTIMIZERS", "Fit", "FitState", "Hyper", "check_settings", "cross_entropy"]

OPTIMIZERS = ("sgd", "adamw")


@struct.dataclass(kw_only=True)
class Hyper:
    """What may differ between networks trained together; a leading axis N in `train_many`.

    learning_rate:  at the first step; it falls to 0 along a half cosine.  Shape ().
    weight_decay:   of kernels only (not of biases and batch norms).  Shape ().
    bits:           None, or (L,) weight bits: quantization-aware training, straight-through.
    """

    learning_rate: Array
    weight_decay: Array
    bits: Array | None = None


@struct.dataclass(kw_only=True)
class FitState:
    """Everything that changes: params, rest (batch statistics), optimizer (optax state), step ()."""

    params: Any
    rest: Any
    optimizer: Any
    step: Array


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean cross-entropy. logits (n, classes), labels (n,) integers. Label smoothing is off."""
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
    return -picked.mean()


def check_settings(*, epochs, batch, optimizer, images: int) -> None:
    """Raises ValueError for what cannot be trained with."""
    for name, value in (("epochs", epochs), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if batch > images:
        raise ValueError(f"batch must be at most the number of training images ({images}), got {batch}")
    if isinstance(optimizer, str) and optimizer not in OPTIMIZERS:
        near = difflib.get_close_matches(optimizer, OPTIMIZERS, 1, 0.0)[0]
        raise ValueError(
            f"optimizer must be one of {', '.join(OPTIMIZERS)} or an optax transformation, got {optimizer!r} "
            f"(did you mean {near!r}?)"
        )


class Fit:
    """The training program of one kind of network.

    model: an nnx module (its weights are the start).  optimizer: "sgd" (Nesterov momentum 0.9), "adamw",
    or an optax transformation, which then has its own learning rate and decay.  epochs, batch: sizes;
    the last incomplete batch of an epoch is left out (images are drawn anew in each).
    """

    def __init__(self, model, *, optimizer: Any, epochs: int, batch: int, images: int, shift: int = 0):
        from flax import nnx

        self.batch, self.steps, self.shift = batch, images // batch, shift
        self.total = epochs * self.steps
        self.optimizer, self.transform = optimizer, _transform(optimizer)
        copy = nnx.clone(model)
        copy.train()
        self.training = nnx.split(copy, nnx.Param, ...)[0]
        copy.eval()
        self.evaluating, self.params, self.rest = nnx.split(copy, nnx.Param, ...)
        self._quantizing: dict[bool, Any] = {}
        self._copy = copy

    def start(self, params: Any = None, rest: Any = None) -> FitState:
        """State before the first step."""
        params = self.params if params is None else params
        rest = self.rest if rest is None else rest
        return FitState(params=params, rest=rest, optimizer=self.transform.init(params), step=jnp.int32(0))

    def logits(self, params, rest, hyper_bits, images: Array, *, training: bool = False):
        """(logits, rest) of images (n, h, w, c)."""
        from flax import nnx

        rest = jax.tree.map(lambda leaf: leaf, rest)  # nnx variables change only at the trace that made them
        if hyper_bits is not None:
            model = self._quantized(training, images)
            return replace(model, params=params, rest=rest).run(hyper_bits, images)
        model = nnx.merge(self.training if training else self.evaluating, params, rest)
        out = model(images)
        return out, nnx.state(model, nnx.Not(nnx.Param))

    def _quantized(self, training: bool, images: Array):
        """The model with quantized kernels, its arrays yet to be put in; made when first needed."""
        from flax import nnx

        from diffhw.quantization import QuantizedModel

        if training not in self._quantizing:
            copy = nnx.clone(self._copy)
            copy.train() if training else copy.eval()
            shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
            self._quantizing[training] = QuantizedModel.of(copy, shape, live_weights=True, whole=True)
        return self._quantizing[training]

    def epoch(self, state: FitState, hyper: Hyper, key: Array, x: Array, y: Array):
        """One pass over the images in random order. Returns (state, mean loss, share right) of the epoch."""
        order = jax.random.permutation(key, x.shape[0])[: self.steps * self.batch]
        moves = jax.random.randint(jax.random.fold_in(key, 1), (len(order), 2), 0, 2 * self.shift + 1)

        def step(state, part):
            index, move = part
            images, labels = _moved(x[index], move, self.shift), y[index]

            def loss_of(params):
                logits, rest = self.logits(params, state.rest, hyper.bits, images, training=True)
                return cross_entropy(logits, labels), (rest, logits)

            (loss, (rest, logits)), slope = jax.value_and_grad(loss_of, has_aux=True)(state.params)
            right = (logits.argmax(-1) == labels).mean()
            params, optimizer = self._update(state, hyper, slope)
            new = FitState(params=params, rest=rest, optimizer=optimizer, step=state.step + 1)
            return new, (loss, right)

        state, (losses, right) = lax.scan(
            step, state, (order.reshape(self.steps, self.batch), moves.reshape(self.steps, self.batch, 2))
        )
        return state, losses.mean(), right.mean()

    def _update(self, state, hyper, slope):
        import optax

        if not isinstance(self.optimizer, str):
            moves, optimizer = self.transform.update(slope, state.optimizer, state.params)
            return optax.apply_updates(state.params, moves), optimizer
        kernels = jax.tree.map(lambda p: float(p.ndim >= 2), state.params)
        decay = jax.tree.map(lambda p, on: hyper.weight_decay * on * p, state.params, kernels)
        if self.optimizer == "sgd":  # as in the papers: the decay is part of the gradient
            slope = jax.tree.map(jnp.add, slope, decay)
        moves, optimizer = self.transform.update(slope, state.optimizer, state.params)
        if self.optimizer == "adamw":
            moves = jax.tree.map(jnp.add, moves, decay)
        share = state.step.astype(jnp.float32) / self.total
        rate = hyper.learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * share))
        return jax.tree.map(lambda p, m: p - rate * m, state.params, moves), optimizer

    def right(self, params, rest, hyper_bits, x: Array, y: Array, mask: Array) -> Array:
        """How many of the images (tiles, n, h, w, c) are recognised where mask (tiles, n) is 1."""

        def tile(part):
            images, labels, on = part
            logits, _ = self.logits(params, rest, hyper_bits, images)
            return jnp.sum((logits.argmax(-1) == labels) * on)

        return lax.map(tile, (x, y, mask)).sum()


def _moved(images: Array, move: Array, most: int) -> Array:
    """Each image moved by (move - most) pixels, its edge repeated."""
    if most == 0:
        return images
    wide = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    cut = lambda image, at: lax.dynamic_slice(image, (at[0], at[1], 0), images.shape[1:])
    return jax.vmap(cut)(wide, move)


def _transform(optimizer) -> Any:
    import optax

    if optimizer == "sgd":
        return optax.trace(decay=0.9, nesterov=True)
    if optimizer == "adamw":
        return optax.scale_by_adam()
    return optimizer


def default_rate(optimizer: Any) -> float:
    """A learning rate that suits small networks: 0.1 (sgd), 0.005 (adamw)."""
    return 0.1 if optimizer == "sgd" else 0.005
