"""Batch norms folded into the layer before them: what is quantized is what the hardware multiplies by."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diffhw.quantization._layers import hook_module, kernel_modules, path_name

__all__ = ["batch_norm_pairs", "fold_arrays", "fold_batch_norm"]


# The check runs once: compiling it well would take longer than running it.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def fold_arrays(
    kernel, bias, mean, variance, scale=None, shift=None, epsilon: float = 1e-5
) -> tuple[Array, Array]:
    """(kernel, bias) of the one layer that equals a layer and the batch norm after it.

    The norm is (y - mean) / sqrt(variance + epsilon) * scale + shift.  kernel: (..., C), output channels
    last.  bias: (C,) or None.  mean, variance, scale, shift: (C,); None for scale 1 or shift 0.
    Source: Jacob et al., arXiv 1712.05877, equation 14 (recalled). Differentiable, exactly.
    """
    gain = lax.rsqrt(jnp.asarray(variance) + epsilon)
    gain = gain if scale is None else gain * scale
    offset = (0.0 if bias is None else bias) - jnp.asarray(mean)
    offset = offset * gain + (0.0 if shift is None else shift)
    return kernel * gain.reshape((1,) * (jnp.ndim(kernel) - 1) + (-1,)), offset


@functools.cache
def _pass_through():
    from flax import nnx

    class Identity(nnx.Module):
        """Where a batch norm was."""

        def __call__(self, x, *args, **kwargs):
            return x

    return Identity


def batch_norm_pairs(model, *args, **kwargs) -> list[tuple[str, str]]:
    """(layer path, batch norm path) wherever a batch norm is called on just what a layer returned."""
    from flax import nnx

    graphdef, state = nnx.split(model)
    pairs, made = [], []

    def run(state, *args):
        copy = nnx.merge(graphdef, state)
        norms = {path_name(p): m for p, m in nnx.iter_modules(copy) if isinstance(m, nnx.BatchNorm)}
        for path, module in kernel_modules(copy).items():
            hook_module(module, functools.partial(note_layer, path))
        for path, module in norms.items():
            hook_module(module, functools.partial(note_norm, path))
        return copy(*args, **kwargs)

    def note_layer(path, call, x, *args, **kwargs):
        y = call(x, *args, **kwargs)
        made.append((path, y))
        return y

    def note_norm(path, call, x, *args, **kwargs):
        pairs.extend((layer, path) for layer, y in made if y is x)
        return call(x, *args, **kwargs)

    jax.eval_shape(run, state, *args)
    return pairs


def _owner(model, path: str) -> tuple[Any, Any]:
    """(the object that holds the module at ``path``, the attribute or index)."""
    *front, last = path.split("/")
    at = model
    for key in front:
        at = at[int(key)] if key.isdigit() else getattr(at, key)
    return at, int(last) if last.isdigit() else last


def fold_batch_norm(model, *args, tolerance: float = 1e-3, **kwargs):
    """A copy of an nnx model whose batch norms are folded into the layers before them.

    args: one batch for ``model(*args, **kwargs)``, which must use running averages; needed to see which
    norm follows which layer, and to check that both models agree. The norms become identities; the
    layers get a bias. Raises ValueError if a norm follows no layer, if a layer or norm is shared, or if
    outputs differ by more than ``tolerance`` of the largest (statistics of the batch are in use, or a
    layer's output is used beside its norm).
    """
    from flax import nnx

    pairs = batch_norm_pairs(model, *args, **kwargs)
    norms = {path_name(p): m for p, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)}
    for which, names in (("layer", [a for a, _ in pairs]), ("batch norm", [b for _, b in pairs])):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{which} {twice[0]!r} is used more than once: it cannot be folded")
    alone = sorted(set(norms) - {norm for _, norm in pairs})
    if alone:
        raise ValueError(f"batch norm {alone[0]!r} does not follow a convolution or dense layer directly")
    folded = nnx.clone(model)
    modules = kernel_modules(folded)
    made = _folded([(modules[layer], norms[norm]) for layer, norm in pairs])
    for (layer, norm), (kernel, offset) in zip(pairs, made, strict=True):
        module = modules[layer]
        module.kernel, module.bias, module.use_bias = nnx.Param(kernel), nnx.Param(offset), True
        owner, key = _owner(folded, norm)
        if isinstance(key, int):
            owner[key] = _pass_through()()
        else:
            setattr(owner, key, _pass_through()())
    before, after = (_output(one, args, kwargs) for one in (model, folded))
    gap = float(np.abs(before - after).max()) / max(float(np.abs(before).max()), 1e-30)
    if gap > tolerance:
        raise ValueError(
            f"folding changed the output by {100 * gap:.2g} % of its largest value: the norms use batch "
            f"statistics (switch them to running averages), or a layer's output is used beside its norm"
        )
    return folded


def _folded(pairs) -> list[tuple[Array, Array]]:
    """(kernel, bias) of (layer, norm) modules, by one program: eager, each shape compiles alone."""
    value = lambda variable: None if variable is None else variable[...]
    parts = [
        (value(m.kernel), value(m.bias), value(of.mean), value(of.var), value(of.scale), value(of.bias))
        for m, of in pairs
    ]
    epsilons = [of.epsilon for _, of in pairs]
    fold = lambda parts: [fold_arrays(*part, epsilon=e) for part, e in zip(parts, epsilons, strict=True)]
    return jax.jit(fold)(parts)


def _output(model, args, kwargs) -> np.ndarray:
    """One forward pass of a copy, compiled."""
    from flax import nnx

    graphdef, state = nnx.split(model)
    run = lambda state, args: nnx.merge(graphdef, state)(*args, **kwargs)
    return np.asarray(jax.jit(run, compiler_options=_QUICK)(state, args))
