"""Sweeps against the loop; Hutchinson's traces against the exact Hessian."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffhw.quantization import (
    QuantizedModel,
    QuantSpec,
    hawq_sensitivity,
    hessian_trace,
    layer_sweep,
    weight_error,
)


class Small(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.b, self.a = nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.a(jax.nn.tanh(self.b(x)))


X = jax.random.normal(jax.random.key(0), (32, 4))
Q = QuantizedModel.of(Small(), X, activations=QuantSpec("affine"))


def loss(out):
    return jnp.mean(out**2)


@pytest.mark.slow
def test_sweep_equals_the_loop():
    one = jax.jit(lambda bits: loss(Q(bits, X)))
    for what in ("weights", "activations", "both"):
        got = layer_sweep(Q, loss, X, bits=(1, 3, 8), what=what, chunk=4)
        for i in range(2):
            for j, b in enumerate((1.0, 3.0, 8.0)):
                row = jnp.full(2, 32.0).at[i].set(b)
                keys = ("weights", "activations") if what == "both" else (what,)
                np.testing.assert_allclose(got[i, j], one(dict.fromkeys(keys, row)), rtol=1e-5)


@pytest.mark.slow
def test_traces_are_those_of_the_exact_hessian():
    of_kernels = lambda kernels, q, x: loss(q.with_kernels(kernels)(None, x))
    kernels = Q.kernels()
    flat, back = jax.flatten_util.ravel_pytree(kernels)
    hessian = np.asarray(jax.jit(jax.hessian(lambda v: of_kernels(back(v), Q, X)))(flat))
    traces, errors = hessian_trace(of_kernels, kernels, jax.random.key(1), args=(Q, X), samples=1000)
    size = kernels[0].size
    blocks = (slice(0, size), slice(size, None))
    for block, trace, error in zip(blocks, traces, errors):
        own, rest = hessian[block, block], np.delete(hessian[block], block, 1)
        assert abs(trace - np.trace(own)) < 4 * error
        # Its spread is what theory says: twice the squares off the diagonal, plus those of other blocks.
        spread = 2 * (np.sum(own**2) - np.sum(np.diag(own) ** 2)) + np.sum(rest**2)
        assert error == pytest.approx(np.sqrt(spread / 1000), rel=0.15)
    assert [one.path for one in Q.layers] == ["b", "a"]
    measure = hawq_sensitivity(traces, Q, bits=(2, 4, 8))
    assert measure.shape == (2, 3) and np.all(np.diff(measure, axis=1) < 0)


def test_quadratic_loss_has_exact_traces_in_every_sample():
    """v . diag(d) v is the sum of d for any signs: no spread at all."""
    d = jnp.arange(1.0, 7.0).reshape(2, 3)
    traces, errors = hessian_trace(
        lambda p: 0.5 * jnp.sum(d * p["w"] ** 2), {"w": d, "b": d[0]}, jax.random.key(0), samples=3
    )
    np.testing.assert_allclose(traces, [21.0], rtol=1e-6)
    np.testing.assert_allclose(errors, [0.0], atol=1e-5)


def test_weight_error():
    errors = np.asarray(weight_error(Q, (2, 4, 8)))
    kernels = Q.quantized_kernels(4.0)
    np.testing.assert_allclose(
        errors[0, 1], np.sum((np.asarray(kernels[0]) - np.asarray(Q.kernels()[0])) ** 2), rtol=1e-4
    )


def test_sentences():
    with pytest.raises(ValueError, match="what must be"):
        layer_sweep(Q, loss, X, what="weight")
    with pytest.raises(ValueError, match="bits must be >= 1"):
        layer_sweep(Q, loss, X, bits=(0, 1))
    with pytest.raises(ValueError, match="samples must be >= 2"):
        hessian_trace(loss, {"w": X}, jax.random.key(0), samples=1)
    with pytest.raises(ValueError, match="no float leaf"):
        hessian_trace(loss, {"w": X[0]}, jax.random.key(0))
    with pytest.raises(ValueError, match="one entry per layer"):
        hawq_sensitivity([1.0], Q)
