"""LSQ and PACT: their gradients are the papers' formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw.quantization import ClippedQuantizer, LearnedQuantizer, lsq, lsq_step, pact

RNG = np.random.default_rng(1)
X = RNG.normal(size=200).astype(np.float32)


@pytest.mark.parametrize("bits,signed", [(2, True), (3, True), (4, False), (8, True)])
def test_lsq_gradient(bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    step = 0.25  # its inverse has few bits, so the step is used as it is
    given = RNG.normal(size=200).astype(np.float32)
    want, slopes = 0.0, []
    for v, g in zip(X.tolist(), given.tolist()):
        ratio = v / step
        inside = low < ratio < high
        want += g * ((round(ratio) - ratio) if inside else low if ratio <= low else high)
        slopes.append(1.0 if inside else 0.0)
    want /= np.sqrt(X.size * high)
    loss = lambda x, s: jnp.sum(given * lsq(x, s, bits, signed=signed))
    in_x, in_step = jax.grad(loss, (0, 1))(X, step)
    assert float(in_step) == pytest.approx(want, rel=1e-4)
    np.testing.assert_allclose(in_x, given * np.array(slopes), rtol=1e-6)


def test_lsq_values_and_first_step():
    values = np.asarray(lsq(X, 0.25, 3)) / 0.25
    assert set(values.tolist()) <= set(range(-4, 4))
    assert float(lsq_step(X, 3)) == pytest.approx(2 * np.abs(X).mean() / np.sqrt(3), rel=1e-6)


def test_pact():
    x = jnp.array([-1.0, 0.2, 0.9, 1.5, 3.0])
    np.testing.assert_allclose(pact(x, 1.5, 2), [0, 0, 1, 1.5, 1.5], atol=1e-3)
    in_x, in_alpha = jax.vmap(jax.grad(lambda x, a: pact(x, a, 2), (0, 1)), (0, None))(x, 1.5)
    np.testing.assert_array_equal(in_x, [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(in_alpha, [0, 0, 0, 1, 1])


def test_learned_quantizers_at_real_valued_bits():
    for quantizer in (LearnedQuantizer.create(X, 4), ClippedQuantizer.create(X)):
        below, above = quantizer.at(X, 3.0), quantizer.at(X, 4.0)
        np.testing.assert_allclose(quantizer(X, 3.25), 0.75 * below + 0.25 * above, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            jax.grad(lambda b: jnp.sum(quantizer(X, b)))(3.25), jnp.sum(above - below), rtol=1e-3
        )
        learned = jax.grad(lambda q: jnp.sum(q(X, 3.25) ** 2))(quantizer)
        assert all(np.all(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(learned))
    assert not LearnedQuantizer.create(np.abs(X)).signed
    np.testing.assert_array_equal(LearnedQuantizer.create(X)(X, 32.0), X)
    np.testing.assert_allclose(
        float(lsq(X, lsq_step(X, 4), 4)[0]), float(LearnedQuantizer.create(X, 4)(X, 4.0)[0])
    )


def test_learning_the_step_lowers_the_error():
    quantizer = LearnedQuantizer.create(X, 3)
    loss = jax.jit(jax.value_and_grad(lambda q: jnp.mean((q(X, 3.0) - X) ** 2)))
    first, _ = loss(quantizer)
    for _ in range(100):
        value, slope = loss(quantizer)
        quantizer = jax.tree.map(lambda p, g: p - 5 * g, quantizer, slope)
    assert float(value) < 0.9 * float(first)
