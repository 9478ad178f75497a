"""A `ConvNet` in evaluation mode, run on channel-major images: how thousands of bit vectors are tried.

Arrays are (channels, rows, columns, images). Kernels come prepared (`prepare_kernel`): the quantized
kernels of all bit widths are prepared once, so that a configuration is a gather per layer.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from diffhw.training._blocks import major_conv, prepare_kernel
from diffhw.training._networks import ACTIVATIONS, ConvNet
from diffhw.training._plan import Step

__all__ = ["bits_apply", "run_major"]


def run_major(
    steps: tuple[Step, ...],
    kernels: dict[str, Array],
    biases: dict[str, Array],
    images: Array,
    observe: Callable | None = None,
) -> Array:
    """Logits (n, classes) of images (n, h, w, c).

    kernels: by step name, from `prepare_kernel`, batch norms folded.  biases: by step name, (k,).
    observe: ``observe(name, x)`` replaces the input of each layer (an activation quantizer).
    """
    made = {"input": jnp.transpose(images, (3, 1, 2, 0))}
    for step in steps:
        x, *more = (made[name] for name in step.inputs)
        match step.kind:
            case "conv" | "dense":
                x = x if observe is None else observe(step.name, x)
                y = major_conv(step, x, kernels[step.name], biases.get(step.name))
            case "act":
                y = ACTIVATIONS[step.function](x)
            case "add":
                y = x + more[0]
            case "multiply":
                y = x * more[0]
            case "mean":
                y = x.mean((1, 2), keepdims=True)
            case "max_pool":
                y = _max_pool(step, x)
            case "concat":
                y = jnp.concatenate([x, *more], 0)
            case "slice":
                y = x[step.start : step.stop]
            case "shuffle":
                y = jnp.swapaxes(x.reshape(step.groups, -1, *x.shape[1:]), 0, 1).reshape(x.shape)
            case _:
                raise ValueError(f"a step of unknown kind {step.kind!r}")
        made[step.name] = y
    return made[steps[-1].name][:, 0, 0].T


def _max_pool(step: Step, x: Array) -> Array:
    pads = ((0, 0), (step.pad, step.pad), (step.pad, step.pad), (0, 0))
    x = jnp.pad(x, pads, constant_values=-jnp.inf) if step.pad else x
    t, f, (p, q, _) = step.stride, step.filter, step.shape
    starts = [(i, j) for i in range(f) for j in range(f)]
    return functools.reduce(
        jnp.maximum, (x[:, i : i + (p - 1) * t + 1 : t, j : j + (q - 1) * t + 1 : t] for i, j in starts)
    )


def bits_apply(quantized, max_bits: int = 8) -> Callable:
    """``apply(bits, images) -> logits`` of a quantized `ConvNet`, in its fastest form for `evaluate_many`.

    quantized: a `quantization.QuantizedModel` of a `ConvNet` with folded batch norms.  max_bits: widest
    weights that will be asked for; wider ones count as it.
    The returned function takes bits (L,), whole numbers, in the order of ``quantized.names``, or a dict of
    "weights" and "activations", and images (n, h, w, c). It gives the same logits as
    ``quantized(bits, images)`` up to rounding, has no gradient, and is a pytree (tables of kernels are its
    leaves), so that it may be an argument of a jitted function.
    Raises ValueError if the model is no `ConvNet` or still has batch norms.
    """
    model = quantized.model()
    if not isinstance(model, ConvNet):
        raise ValueError(f"bits_apply takes a quantized ConvNet, got a {type(model).__name__}")
    norms = [path for path, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)]
    if norms:
        raise ValueError(
            f"{model.name} still has batch norms (such as {norms[0][0]!r}): fold them first with "
            f"quantization.fold_batch_norm(model, images)"
        )
    shapes = {"input": model.input_shape} | {step.name: step.shape for step in model.steps}
    by_name = {step.name: step for step in model.steps}

    @jax.jit  # one program: some hundred small ones take longer to compile
    def tables(quantized):
        made = {}
        for name, table in zip(quantized.names, quantized.tabulated(max_bits).weight_quantizers):
            shape = shapes[by_name[name].inputs[0]]
            prepare = lambda kernel, name=name, shape=shape: prepare_kernel(by_name[name], shape, kernel)
            made[name] = jax.vmap(prepare)(table.values)
        return made

    prepared = tables(quantized)
    biases = {
        name: getattr(model, name).bias[...]
        for name in by_name
        if hasattr(getattr(model, name, None), "bias")
    }
    biases = {name: bias for name, bias in biases.items() if bias is not None}
    inputs = quantized.input_quantizers
    quantizers = None if inputs is None else dict(zip(quantized.names, inputs))
    leaves = (prepared, biases, quantizers)
    return jax.tree_util.Partial(_Apply(model.name, model.input_shape, model.steps, quantized.names), leaves)


class _Apply:
    """The static half of `bits_apply`; equal ones share compiled code."""

    def __init__(self, title, input_shape, steps, names):
        self.title, self.input_shape = title, input_shape
        self.key = (steps, names)

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return type(other) is _Apply and other.key == self.key

    def check(self, leaves, bits, data) -> None:
        """Raises ValueError for rows of bits, or images, that are not this network's."""
        names = self.key[1]
        most = len(leaves[0][names[0]])
        if data.input_shape != self.input_shape:
            raise ValueError(
                f"{self.title} takes images of {self.input_shape}, and those of {data.name} are "
                f"{data.input_shape}"
            )
        weights = np.asarray(bits["weights"] if isinstance(bits, dict) else bits, float)
        if weights.ndim != 2 or weights.shape[1] != len(names):
            raise ValueError(
                f"bits must have shape (N, {len(names)}), one column per layer of {self.title}, "
                f"got {weights.shape}"
            )
        wrong = np.argwhere(~((weights >= 1) & (weights <= most) & (weights == np.round(weights))))
        if len(wrong):
            row, layer = wrong[0]
            raise ValueError(
                f"bits must be whole numbers from 1 to {most}, got {weights[row, layer]:g} for layer "
                f"{names[layer]!r} in row {row}"
            )

    def __call__(self, leaves, bits, images) -> Array:
        (tables, biases, quantizers), (steps, names) = leaves, self.key
        weights, inputs = bits, None
        if isinstance(bits, dict):
            weights, inputs = bits["weights"], bits.get("activations")
        row = lambda i, table: table[jnp.clip(jnp.round(weights[i]).astype(jnp.int32), 1, len(table)) - 1]
        kernels = {name: row(i, tables[name]) for i, name in enumerate(names)}
        observe = None
        if inputs is not None and quantizers is not None:
            place = {name: i for i, name in enumerate(names)}
            observe = lambda name, x: quantizers[name](x, inputs[place[name]], whole=True)
        return run_major(steps, kernels, biases, images, observe)
