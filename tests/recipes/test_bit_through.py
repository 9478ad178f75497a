"""Training through the quantized network: the same network, slopes that point down, a generator that answers."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analytic_bits import toy_problem
from flax import nnx

from diffhw import training
from diffhw.recipes import _bit_through as through
from diffhw.recipes import through_network
from diffhw.recipes._bit_problem import wrap
from diffhw.search._generator_autoregressive import _log_probabilities, condition_features
from diffhw.training._plan import Plan


def small_problem():
    """Two layers that tell which half of an 2 x 2 image is bright; known weights, no training."""
    plan = Plan((2, 2, 1), "halves")
    x = plan.conv("input", "conv", 2, 1, act="relu")
    plan.dense(plan.mean(x, "mean"), "classifier", 2)
    model = training.ConvNet("halves", plan.input_shape, tuple(plan.steps), rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x = rng.random((40, 2, 2, 1)).astype(np.float32)
    y = (x.mean((1, 2, 3)) > 0.5).astype(np.int32)
    data = training.Data(x=x, y=y, classes=2, name="halves")
    return wrap(model, data, data, "halves", 8)


PROBLEM = small_problem()


def test_soft_kernels_are_the_networks_at_whole_widths():
    x = jnp.asarray(PROBLEM.selection.x)
    soft = jax.jit(lambda hot, x: through.soft_logits(PROBLEM.apply, PROBLEM.apply.func.key, hot, x))
    whole = jax.jit(PROBLEM.quantized)
    for bits in ([1, 4], [8, 2]):
        hot = jax.nn.one_hot(jnp.array(bits) - 1, 8)
        got = soft(hot, x)
        np.testing.assert_allclose(got, whole(jnp.array(bits, float), x), rtol=1e-4, atol=1e-5)


def test_the_margin_is_smooth_beside_the_accuracy():
    logits = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 2.9], [1.0, 0.0, 5.0]])
    smooth_accuracy = lambda z: through.smooth_accuracy(z, jnp.array([0, 2, 2]))
    (smooth, exact), slope = jax.jit(jax.value_and_grad(smooth_accuracy, has_aux=True))(logits)
    assert float(exact) == pytest.approx(2 / 3) and 0.5 < float(smooth) < 0.8
    assert slope[1, 2] > 0 > slope[1, 1]


def test_draws_have_the_density_of_the_family():
    params = through._start(jax.random.key(0), "score", (4, 3), 1)
    params["w3"] = params["w3"] * 30
    features = condition_features(jnp.full((4000, 1), 0.4), jnp.ones((4000, 1)))
    hot, logs, entropy = jax.jit(through.autoregressive_draw, static_argnums=1)(
        params, (4, 3), jax.random.key(1), features
    )
    designs = jnp.argmax(hot, axis=-1)
    assert designs.max(axis=0).tolist() == [3, 2]
    want = jax.jit(_log_probabilities, static_argnums=1)(params, (4, 3), designs, features).sum(axis=1)
    np.testing.assert_allclose(logs, want, rtol=1e-4, atol=1e-4)
    assert float(entropy.mean()) == pytest.approx(-float(logs.mean()), abs=0.1)
    share = float((designs == designs[:1]).all(axis=1).mean())
    assert share == pytest.approx(float(jnp.exp(logs[0])), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("way", through.WAYS)
def test_a_short_training_gives_a_generator(way):
    done = []
    made = through_network(
        PROBLEM,
        way,
        budgets=("bytes",),
        steps=50,  # two chunks of one length, so one program
        wishes=4,
        images=20,
        probes=200,
        rate=1e-2,
        progress=lambda *now: done.append(now),
    )
    assert done[-1] == (50, 50) and made.history.shape == (50,)
    assert made.history[-8:].mean() < made.history[:4].mean()
    forward = 50 * 4 * 8 * 20 / 40
    assert made.evaluations == pytest.approx(made.probes + forward * (1 if way == "score" else 3))
    least, most = (PROBLEM.tables["bytes"][:, end].sum() for end in (0, -1))
    wish = {"accuracy": made.generator.low[0], "bytes": (least + most) / 2}
    drawn = made.generator.sample(jax.random.key(0), wish, 16)
    assert drawn.shape == (16, 2) and drawn.max() < 8
    if way != "implicit":
        assert (PROBLEM.cost("bytes", drawn) <= wish["bytes"]).all()
    assert made.generator.predict(drawn)["accuracy"].shape == (16,)


def test_slopes_reach_every_layer():
    setting = SimpleNamespace(way="relaxed", key=PROBLEM.apply.func.key)
    x, y = jnp.asarray(PROBLEM.selection.x), jnp.asarray(PROBLEM.selection.y)
    hot = jax.nn.one_hot(jnp.array([[5, 3], [2, 4]]), 8)
    value, slope = jax.value_and_grad(lambda hot: through._measured(setting, PROBLEM.apply, hot, x, y).sum())(
        hot
    )
    assert float(value) == pytest.approx(PROBLEM.evaluate([[5, 3], [2, 4]], count=False).sum())
    assert (np.abs(np.asarray(slope)).sum(axis=-1) > 0).all()


def test_mistakes():
    with pytest.raises(ValueError, match="way must be one of implicit, relaxed, score, got 'reinforce'"):
        through_network(PROBLEM, "reinforce")
    with pytest.raises(ValueError, match="no metric is called 'joules'"):
        through_network(PROBLEM, budgets=("joules",))
    with pytest.raises(ValueError, match="steps must be a whole number >= 1, got 0"):
        through_network(PROBLEM, steps=0)
    with pytest.raises(ValueError, match="toy has no network to train through"):
        through_network(toy_problem())
