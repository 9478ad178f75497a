"""Surrogate and conditional generators on a toy with a known answer."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import search
from diffhw.search._generator_autoregressive import _log_probabilities, condition_features, initial
from diffhw.search._generator_pool import random_designs

SIZES = (6, 6, 5, 6, 6)
WEIGHTS = np.array([0.9, 0.4, 1.2, 0.7, 0.5])
TABLE = np.array([3.0, 9.0, 5.0, 20.0, 7.0])[:, None] * np.arange(1, 7)[None, :]


def accuracy(designs):
    """Saturates with every variable, as accuracy does with bits."""
    return 0.1 + 0.9 * np.exp(-1.3 * (WEIGHTS * np.exp(-0.9 * np.asarray(designs))).sum(axis=-1))


CONDITIONS = (search.Condition("accuracy"), search.Condition("bytes", "budget", TABLE, base=10.0))


@pytest.fixture(scope="module")
def surrogate():
    designs = random_designs(np.random.default_rng(0), SIZES, 1500)
    return search.fit_surrogate(
        designs,
        accuracy(designs)[:, None],
        SIZES,
        jax.random.key(0),
        names=["accuracy"],
        members=2,
        hidden=64,
        steps=750,
    )


FIT = dict(pool=12_000, steps=500, polish=260, hidden=48)


@pytest.fixture(scope="module")
def fitted(surrogate):
    return search.generator(surrogate, CONDITIONS, jax.random.key(1), **FIT)


def test_surrogate_predicts_designs_it_has_not_seen(surrogate):
    designs = random_designs(np.random.default_rng(9), SIZES, 1000)
    miss = np.abs(np.asarray(surrogate(designs))[:, 0] - accuracy(designs))
    plain = np.abs(accuracy(designs) - accuracy(designs).mean())
    assert miss.mean() < 0.02 < plain.mean()


def test_surrogate_is_exact_between_one_hot_and_soft_weights(surrogate):
    designs = jnp.asarray([[0, 1, 2, 3, 4], [5, 5, 4, 0, 1]])
    np.testing.assert_allclose(surrogate(designs), surrogate.soft(surrogate.one_hot(designs)), rtol=1e-6)
    slope = jax.grad(lambda w: surrogate.soft(w).sum())(surrogate.one_hot(designs))
    assert np.all(np.abs(slope).sum(axis=(0, 2)) > 0)


def test_density_sums_to_one_and_looks_back_only():
    sizes = (3, 2, 4)
    params = jax.jit(lambda key: initial(key, sizes, 1, 8))(jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params)
    every = np.stack([g.ravel() for g in np.meshgrid(*map(np.arange, sizes), indexing="ij")], axis=1)
    features = jnp.tile(condition_features(jnp.array([0.3]), jnp.ones(1))[None], (len(every), 1))
    logs = np.asarray(jax.jit(lambda *x: _log_probabilities(x[0], sizes, *x[1:]))(params, every, features))
    np.testing.assert_allclose(np.exp(logs.sum(axis=1)).sum(), 1.0, rtol=1e-5)
    first = logs[:, 0].reshape(sizes)
    np.testing.assert_allclose(first, np.broadcast_to(first[:, :1, :1], sizes), rtol=1e-6)


def test_samples_follow_the_density(fitted):
    """Drawing one by one and the parallel density are two programs; they must agree."""
    values, mask = fitted._asked({"accuracy": 0.6})
    features = condition_features(jnp.asarray(values, float), jnp.asarray(mask, float))
    designs = fitted.sample(jax.random.key(5), {"accuracy": 0.6}, 4000)
    shares = np.bincount(designs[:, 0], minlength=6) / 4000
    probes = np.zeros((6, 5), int)
    probes[:, 0] = np.arange(6)
    logs = _log_probabilities(fitted.params, SIZES, jnp.asarray(probes), jnp.tile(features[None], (6, 1)))
    np.testing.assert_allclose(shares, np.exp(logs[:, 0]), atol=0.03)


@pytest.mark.parametrize("target", [0.4, 0.7, 0.9])
def test_reaches_targets_with_different_designs(fitted, target):
    designs = fitted.sample(jax.random.key(2), {"accuracy": target})
    assert designs.shape == (64, 5) and (designs < np.array(SIZES)).all()
    raw = np.abs(accuracy(designs) - target).mean()
    corrected = fitted.correct(jax.random.key(3), designs, {"accuracy": target})
    assert raw < 0.09
    assert np.abs(accuracy(corrected) - target).mean() < raw
    # As different as 64 draws from all designs about as near, of which the toy has few at the top.
    every = np.stack([g.ravel() for g in np.meshgrid(*map(np.arange, SIZES), indexing="ij")], axis=1)
    near = (np.abs(accuracy(every) - target) < 2 * raw).sum()
    distinct, apart = search.diversity(designs)
    assert distinct > 0.75 * near * (1 - (1 - 1 / near) ** 64) / 64 and apart > 0.5


def test_no_design_breaks_a_budget(fitted):
    least = fitted.least(CONDITIONS[1])
    for budget in (least, least * 1.2, 100.0, 150.0):
        designs = fitted.sample(jax.random.key(4), {"bytes": budget}, 256)
        assert (CONDITIONS[1].value(designs) <= budget * (1 + 1e-6)).all()
    both = {"accuracy": 0.5, "bytes": 110.0}
    designs = fitted.sample(jax.random.key(5), both, 64)
    assert (CONDITIONS[1].value(designs) <= 110.0).all()
    corrected = fitted.correct(jax.random.key(6), designs, both)
    assert (CONDITIONS[1].value(corrected) <= 110.0).all()


def test_saved_and_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "g.bin")
    again = search.load_generator(tmp_path / "g.bin", SIZES)
    for wanted in ({"accuracy": 0.5}, {"bytes": 100.0}, {}):
        one, other = (g.sample(jax.random.key(7), wanted) for g in (fitted, again))
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="made for 5 variables"):
        search.load_generator(tmp_path / "g.bin", (6, 6))
    data = bytearray((tmp_path / "g.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "g.bin").write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        search.load_generator(tmp_path / "g.bin")
    with pytest.raises(ValueError, match="cannot be read"):
        search.load_generator(tmp_path / "none.bin")


class _Stop(Exception):
    pass


@pytest.mark.parametrize("kind", ["autoregressive", "adversarial"])
def test_a_stopped_fit_goes_on_to_the_same_end(surrogate, request, tmp_path, kind):
    # The autoregressive fit is that of the fixture, so that its programs are compiled once.
    options = dict(kind=kind, **(FIT if kind == "autoregressive" else dict(pool=600, steps=300, hidden=8)))

    def stop(phase, done, total):
        # In the middle of the first phase, or (autoregressive) of the second.
        if "generator" in phase and done < total and (phase.startswith("pol") or kind == "adversarial"):
            raise _Stop

    key = jax.random.key(1)
    if kind == "autoregressive":
        whole = request.getfixturevalue("fitted")
    else:
        whole = search.generator(surrogate, CONDITIONS, key, **options)
    with pytest.raises(_Stop):
        search.generator(surrogate, CONDITIONS, key, resume=tmp_path / "fit", progress=stop, **options)
    again = search.generator(surrogate, CONDITIONS, key, resume=tmp_path / "fit", **options)
    jax.tree.map(np.testing.assert_array_equal, whole.params, again.params)
    with pytest.raises(ValueError, match="another fit"):
        search.generator(surrogate, CONDITIONS, key, resume=tmp_path / "fit", **(options | {"steps": 400}))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"accuracy": 1.5}, "accuracy 1.5 is out of reach: designs have it from 0"),
        ({"bytes": 1.0}, "bytes 1 is out of reach: designs have it from 54 up"),
        ({"energy": 1.0}, "knows no condition 'energy': it knows accuracy, bytes"),
    ],
)
def test_wishes_out_of_reach(fitted, wanted, words):
    with pytest.raises(ValueError, match=words):
        fitted.sample(jax.random.key(0), wanted)


@pytest.mark.parametrize(
    ("conditions", "options", "words"),
    [
        (CONDITIONS, dict(kind="gan"), "kind must be one of autoregressive, adversarial, got 'gan'"),
        ((search.Condition("size", "budget"),), {}, "size: a budget needs a table"),
        ((search.Condition("energy"),), {}, "or a surrogate that predicts it"),
        ((replace(CONDITIONS[1], table=TABLE[:2]),), {}, r"must have shape \(5, 6\), got \(2, 6\)"),
        ((), {}, "at least one condition"),
    ],
)
def test_mistakes(surrogate, conditions, options, words):
    with pytest.raises(ValueError, match=words):
        search.generator(surrogate, conditions, jax.random.key(0), **options)


def test_mistakes_of_data():
    designs = np.zeros((40, 2), int)
    good = dict(sizes=(2, 2), key=jax.random.key(0), names=["a"])
    with pytest.raises(ValueError, match="one column per variable"):
        search.fit_surrogate(np.zeros((40, 3), int), np.zeros((40, 1)), **good)
    with pytest.raises(ValueError, match="at least 32 designs, got 4"):
        search.fit_surrogate(designs[:4], np.zeros((4, 1)), **good)
    with pytest.raises(ValueError, match="row 0 is not"):
        search.fit_surrogate(designs, np.full((40, 1), np.nan), **good)
