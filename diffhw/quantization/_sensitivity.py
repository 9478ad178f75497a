"""How much each layer minds being quantized: sweeps of the loss, traces of its Hessian."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from diffhw.quantization._bits import FULL_BITS, check_bits
from diffhw.quantization._model import QuantizedModel
from diffhw.quantization._tree import quantizable

__all__ = ["hawq_sensitivity", "hessian_trace", "layer_sweep", "weight_error"]


def layer_sweep(
    quantized: QuantizedModel,
    loss: Callable,
    *args,
    bits=(1, 2, 3, 4, 5, 6, 7, 8),
    what: str = "weights",
    rest_bits: float = FULL_BITS,
    chunk: int = 16,
    **kwargs,
) -> Array:
    """Loss with one layer at b bits and the others at ``rest_bits``, shape (L, bits).

    loss: function of the model's output to a scalar.  args: the batch.  what: "weights", "activations" or
    "both".  chunk: configurations evaluated at once (one compiled program, vmapped within a chunk).
    Subtract ``loss(quantized(rest_bits, *args))`` for the increase. Raises ValueError for another
    ``what`` or bits below 1.
    """
    if what not in ("weights", "activations", "both"):
        raise ValueError(f"what must be 'weights', 'activations' or 'both', got {what!r}")
    for b in (*bits, rest_bits):
        check_bits("weight", float(b), quantized.names)
    size = len(quantized.layers)
    rows = jnp.full((size, len(bits), size), float(rest_bits))
    index = jnp.arange(size)
    rows = rows.at[index, :, index].set(jnp.broadcast_to(jnp.asarray(bits, float), (size, len(bits))))
    keys = ("weights", "activations") if what == "both" else (what,)

    @jax.jit
    def evaluate(model, rows, args):
        one = lambda row: loss(model(dict.fromkeys(keys, row), *args, **kwargs))
        return jax.lax.map(one, rows, batch_size=chunk)

    return evaluate(quantized, rows.reshape(-1, size), args).reshape(size, len(bits))


def hessian_trace(loss: Callable, params, key: Array, *, args=(), samples: int = 64, min_ndim: int = 2):
    """Trace of the loss's Hessian, block by block: (traces, standard errors), each (leaves,).

    loss: scalar function of ``params``, a pytree of float arrays, and of ``args`` (the data; what a
    loss closes over becomes a constant of the program, which is slow to compile).  The blocks are the
    leaves of `quantizable`, in its order.  Hutchinson's estimator: the mean of v_l . (H v)_l over
    vectors v of random signs; off-diagonal terms average out, and the standard error says how well.

    For a `QuantizedModel` q, traces in the order of its layers:

        loss = lambda kernels, q, x, y: ...(q.with_kernels(kernels)(None, x), y)
        hessian_trace(loss, q.kernels(), key, args=(q, x, y))

    Source: Hutchinson 1990; per-layer use: Dong et al., HAWQ-V2, arXiv 1911.03852 (recalled).
    """
    if samples < 2:
        raise ValueError(f"samples must be >= 2, got {samples}")
    leaves, tree = jax.tree_util.tree_flatten(params)
    chosen = [i for i, leaf in enumerate(leaves) if quantizable([leaf], min_ndim=min_ndim)]
    if not chosen:
        raise ValueError(f"params has no float leaf with at least {min_ndim} axes")

    def loss_of(blocks, leaves, args):
        full = list(leaves)
        for i, block in zip(chosen, blocks, strict=True):
            full[i] = block
        return loss(jax.tree_util.tree_unflatten(tree, full), *args)

    def probe(leaves, args, key):
        blocks = [leaves[i] for i in chosen]
        keys = jax.random.split(key, len(blocks))
        signs = [
            jax.random.rademacher(k, b.shape, b.dtype) for k, b in zip(keys, blocks, strict=True)
        ]  # fmt: skip
        _, product = jax.jvp(lambda b: jax.grad(loss_of)(b, leaves, args), (blocks,), (signs,))
        return jnp.stack([jnp.sum(v * hv) for v, hv in zip(signs, product, strict=True)])

    run = jax.jit(lambda leaves, args, keys: jax.lax.map(lambda key: probe(leaves, args, key), keys))
    values = run(leaves, args, jax.random.split(key, samples))
    return values.mean(0), values.std(0, ddof=1) / jnp.sqrt(samples)


def weight_error(quantized: QuantizedModel, bits=(1, 2, 3, 4, 5, 6, 7, 8)) -> Array:
    """Squared distance of each kernel from its quantized self, shape (L, bits)."""
    widths = jnp.asarray(bits, float)
    rows = []
    for i, kernel in enumerate(quantized.kernels()):
        quantizer = quantized._weight_quantizer(i, kernel)
        one = lambda b, q=quantizer, k=kernel: jnp.sum((q(k, b) - k) ** 2)
        rows.append(jax.vmap(one)(widths))
    return jnp.stack(rows)


def hawq_sensitivity(traces, quantized: QuantizedModel, bits=(1, 2, 3, 4, 5, 6, 7, 8)) -> Array:
    """HAWQ-V2's measure, shape (L, bits): mean Hessian trace of a layer times its `weight_error`.

    traces: (L,), of `hessian_trace`, in the order of the layers.
    Source: Dong et al., arXiv 1911.03852, equation 6 (recalled).
    """
    traces = jnp.asarray(traces, float)
    if traces.shape != (len(quantized.layers),):
        raise ValueError(
            f"traces must have one entry per layer ({len(quantized.layers)}), got {traces.shape}"
        )
    weights = jnp.asarray([one.weights for one in quantized.layers], float)
    return (traces / weights)[:, None] * weight_error(quantized, bits)
