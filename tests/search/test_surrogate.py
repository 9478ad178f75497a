"""Surrogates of two kinds on metrics in which variables act one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import search
from diffhw.search._surrogate import doubted

SIZES = (4, 4, 3, 4, 4, 4)


def parts(designs):
    """(N, 3): a signal that every variable weakens, by what is left of it; the mean is the metric."""
    noise = np.exp(-0.8 * np.asarray(designs, float))
    slope = np.array([[0.9, 0.4, 1.2, 0.7, 0.5, 0.8], [0.2, 1.0, 0.3, 1.1, 0.9, 0.1], [1.0] * 6])
    signal = np.ones((len(designs), 3))
    for v in range(len(SIZES)):
        signal = signal * (1 - 0.4 * slope[:, v] * noise[:, v : v + 1]) ** (2 - signal)
    return signal


def drawn(seed, n):
    return np.random.default_rng(seed).integers(0, SIZES, (n, len(SIZES)))


@pytest.fixture(scope="module")
def chain():
    designs = drawn(0, 1200)
    return search.fit_surrogate(
        designs,
        parts(designs).mean(axis=1)[:, None],
        SIZES,
        jax.random.key(0),
        names=["accuracy"],
        members=3,
        hidden=32,
        steps=500,
        kind="chain",
        aspects=parts(designs),
    )


def test_a_chain_predicts_designs_it_has_not_seen(chain):
    designs = drawn(9, 800)
    truth = parts(designs).mean(axis=1)
    miss = np.abs(chain.predict(designs)[:, 0] - truth).mean()
    assert miss < 0.01 and miss < 0.1 * np.abs(truth - truth.mean()).mean()


def test_aspects_are_learned_and_forgotten(chain):
    designs = drawn(3, 300)
    assert chain.names == ("accuracy",)
    assert chain.predict(designs).shape == (300, 1)
    each = chain.predict_each(designs)
    assert each.shape == (3, 300, 1)
    np.testing.assert_allclose(each.mean(axis=0), chain.predict(designs))
    np.testing.assert_allclose(each, chain.each(designs), rtol=1e-5)


def test_a_chain_is_exact_at_one_hot_weights_and_has_slopes(chain):
    designs = jnp.asarray(drawn(4, 6)).reshape(2, 3, -1)
    np.testing.assert_allclose(chain(designs), chain.soft(chain.one_hot(designs)), rtol=1e-6)
    slope = jax.grad(lambda w: chain.soft(w).sum())(chain.one_hot(designs))
    assert np.all(np.abs(slope).sum(axis=(0, 1, 3)) > 0)


def test_members_that_differ_are_farther_from_a_wish():
    each = np.array([[0.5, 0.6], [0.5, 0.4]])
    calm, wild = doubted(each, np.array([0.5, 0.5]))
    assert calm == 0.0 and wild == pytest.approx(0.15)


def test_mistakes():
    designs, good = drawn(0, 40), dict(sizes=SIZES, key=jax.random.key(0), names=["a"])
    with pytest.raises(ValueError, match="kind must be one of perceptron, chain, got 'tree'"):
        search.fit_surrogate(designs, np.zeros((40, 1)), kind="tree", **good)
    with pytest.raises(ValueError, match="aspects must be finite, one row per design"):
        search.fit_surrogate(designs, np.zeros((40, 1)), aspects=np.zeros((39, 2)), **good)
    beyond = designs.copy()
    beyond[3, 1] = SIZES[1]
    with pytest.raises(ValueError, match=r"indices of variable 1 must be 0 to \d, got \d in row 3"):
        search.fit_surrogate(beyond, np.zeros((40, 1)), **good)
