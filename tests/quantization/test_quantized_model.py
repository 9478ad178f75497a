"""Quantized nnx models and pytrees: the user's model untouched, bits batched, gradients everywhere."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quantization_nets import NAMES, Net, images

from diffhw.quantization import (
    QuantizedModel,
    QuantSpec,
    batch_norm_pairs,
    calibrate,
    fold_arrays,
    fold_batch_norm,
    layers_of,
    quantizable,
    quantize_tree,
    quantized_apply,
)

X = images()
MODEL = Net()
Q = QuantizedModel.of(MODEL, X, activations=QuantSpec("auto"))
run = jax.jit(lambda q, bits, x: q(bits, x))


def by_hand(weight_bits, input_bits):
    """The forward pass written out, each kernel and each layer input quantized."""
    inputs = dict(zip(NAMES, Q.input_quantizers))
    model = nnx.clone(MODEL)
    for name, b in zip(NAMES, weight_bits):
        module = model.blocks[0] if name == "blocks/0" else getattr(model, name)
        kernel = module.kernel[...]
        module.kernel = nnx.Param(calibrate(kernel)(kernel, b))
    act = lambda name, x: inputs[name](x, input_bits[NAMES.index(name)])
    x = nnx.max_pool(jax.nn.relu(model.norm(model.stem(act("stem", X)))), (2, 2), (1, 1), "SAME")
    x = model.blocks[0](act("blocks/0", jax.nn.relu6(model.depthwise(act("depthwise", x)))))
    x = x + jax.nn.hard_swish(model.grouped(act("grouped", x)))
    return model.head(act("head", x.mean((1, 2))))


def test_layers_in_order_of_execution():
    layers = layers_of(MODEL, X)
    assert tuple(one.path for one in layers) == NAMES == Q.names
    assert [one.macs for one in layers] == [64 * 54, 16 * 54, 16 * 48, 16 * 8 * 36, 32]
    assert [one.weights for one in layers] == [54, 54, 48, 288, 32]
    assert layers[3].output_shape == (24, 4, 4, 8)


def test_equals_the_pass_written_out():
    weight_bits, input_bits = jnp.array([3.0, 4.5, 8.0, 2.0, 6.0]), jnp.array([8.0, 4.0, 3.7, 5.0, 8.0])
    got = run(Q, {"weights": weight_bits, "activations": input_bits}, X)
    np.testing.assert_allclose(got, jax.jit(by_hand)(weight_bits, input_bits), rtol=1e-4, atol=1e-4)


def test_widths_per_channel():
    q = QuantizedModel.of(MODEL, X, weights=QuantSpec(channel_axis=-1))
    mixed = (jnp.array([2.0, 3, 4, 5, 6, 8]), 4.0, jnp.linspace(2, 8, 8), 5.0, jnp.full(4, 3.0))
    kernels = q.quantized_kernels(mixed)
    alone = q.quantized_kernels(jnp.array([4.0, 4, 4, 5, 3]))
    np.testing.assert_allclose(kernels[0][..., 2], alone[0][..., 2], rtol=1e-6)
    for i in (1, 3, 4):
        np.testing.assert_allclose(kernels[i], alone[i], rtol=1e-6)
    slope = jax.jit(jax.grad(lambda b: jnp.sum(q((b, *mixed[1:]), X) ** 2)))(mixed[0])
    assert slope.shape == (6,) and np.all(np.asarray(slope) != 0)
    with pytest.raises(ValueError, match=r"layer 'stem' .* takes one width, or .* got \(5,\)"):
        q((jnp.ones(5), *mixed[1:]), X)
    with pytest.raises(ValueError, match=r"layer 'stem' .* takes one width"):
        Q(mixed, X)
    with pytest.raises(ValueError, match="one entry per quantized layer: got 4 for 5"):
        q(mixed[:4], X)


def test_full_precision_is_the_model():
    want = np.asarray(MODEL(X))
    for bits in (None, {"weights": 32, "activations": 32}, {}):
        np.testing.assert_allclose(run(Q, bits, X), want, rtol=1e-5, atol=1e-6)
    assert type(MODEL.stem) is nnx.Conv and "_diffhw_hook" not in vars(MODEL.stem)


@pytest.mark.slow
def test_batched_bits_equal_the_loop():
    rows = jax.random.uniform(jax.random.key(0), (5, 5), minval=1.0, maxval=9.0)
    batched = jax.jit(jax.vmap(lambda b: Q({"weights": b, "activations": b}, X)))(rows)
    for got, b in zip(batched, rows):
        np.testing.assert_allclose(got, run(Q, {"weights": b, "activations": b}, X), rtol=1e-4, atol=1e-4)
    weights_only = jax.jit(jax.vmap(lambda b: Q(b, X)))(rows)
    np.testing.assert_allclose(weights_only[2], run(Q, rows[2], X), rtol=1e-4, atol=1e-4)


def test_one_program_for_all_bits():
    count = 0

    @jax.jit
    def traced(bits):
        nonlocal count
        count += 1
        return Q(bits, X)

    for b in (1.0, 4.0, 7.5):
        traced(jnp.full(5, b))
    assert count == 1


@pytest.mark.slow
def test_tables_and_whole_bits_give_the_same():
    table = Q.tabulated(8)
    for b in (jnp.array([1.0, 3.0, 8.0, 2.0, 5.0]), jnp.array([1.5, 3.0, 7.2, 2.0, 5.0])):
        np.testing.assert_allclose(run(table, b, X), run(Q, b, X), rtol=1e-4, atol=1e-5)
    whole = QuantizedModel.of(MODEL, X, whole=True)
    b = jnp.array([1.0, 3.0, 8.0, 2.0, 5.0])
    np.testing.assert_allclose(run(whole, b, X), run(Q, b, X), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_gradients_reach_bits_weights_and_learned_quantizers():
    bits = jnp.array([3.3, 4.0, 2.5, 3.0, 4.0])
    loss = lambda q, b: jnp.mean(q({"weights": b, "activations": b}, X) ** 2)
    value, (of_model, of_bits) = jax.jit(jax.value_and_grad(loss, (0, 1)))(Q, bits)
    assert np.isfinite(value) and np.all(np.asarray(of_bits) != 0)
    kernels = [np.asarray(one.kernel[...]) for one in (of_model.params["stem"], of_model.params["head"])]
    assert all(np.abs(k).max() > 0 for k in kernels)
    assert all(np.all(np.asarray(q.inverse) == 0) for q in of_model.weight_quantizers)
    learned = Q.learned({"weights": 4, "activations": 4}, X, clip=True)
    slopes = jax.jit(jax.grad(loss))(learned, bits)
    leaves = jax.tree.leaves((slopes.weight_quantizers, slopes.input_quantizers))
    assert len(leaves) == 10 and all(np.isfinite(leaf) and leaf != 0 for leaf in leaves)


def test_training_through_the_quantizer_recovers_accuracy():
    """A short straight-through training at 2 bits lowers the distance to the float model's output."""
    model = QuantizedModel.of(fold_batch_norm(MODEL, X), X, live_weights=True)
    want = MODEL(X)
    error = lambda q: jnp.mean((q(2.0, X) - want) ** 2)

    @jax.jit
    def step(q):
        value, slope = jax.value_and_grad(error)(q)
        return value, replace(q, params=jax.tree.map(lambda p, g: p - 0.05 * g, q.params, slope.params))

    first, q = step(model)
    for _ in range(60):
        value, q = step(q)
    assert float(value) < 0.7 * float(first)
    assert isinstance(q.model(), Net)


def test_batch_statistics_are_handed_back():
    model = Net()
    model.norm.use_running_average = False
    q = QuantizedModel.of(model, X)
    _, rest = jax.jit(lambda q: q.run(8.0, X))(q)
    assert np.abs(np.asarray(rest["norm"]["mean"][...]) - np.asarray(model.norm.mean[...])).max() > 0
    again = replace(q, rest=rest)
    np.testing.assert_array_equal(again.model().norm.mean[...], rest["norm"]["mean"][...])


def test_without_calibration():
    got = jax.jit(lambda b: quantized_apply(MODEL, {"weights": b, "activations": b}, X))(12.0)
    np.testing.assert_allclose(got, MODEL(X), atol=0.05)
    batched = jax.jit(jax.vmap(lambda b: quantized_apply(MODEL, b, X)))(jnp.full((2, 5), 32.0))
    np.testing.assert_allclose(batched[1], MODEL(X), rtol=1e-4, atol=1e-4)


def test_a_layer_called_twice_is_one_layer():
    class Twice(nnx.Module):
        def __init__(self):
            self.one = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.one(jax.nn.relu(self.one(x)))

    (layer,) = layers_of(Twice(), jnp.ones((2, 3)))
    assert (layer.calls, layer.macs) == (2, 18)
    q = QuantizedModel.of(Twice(), jnp.ones((2, 3)), activations=QuantSpec("affine"))
    assert q({"weights": 4, "activations": 4}, jnp.ones((2, 3))).shape == (2, 3)


# ---- Batch norm ------------------------------------------------------------------------------------


def test_fold_arrays_is_the_norm_after_the_layer():
    rng = np.random.default_rng(0)
    kernel, bias, mean, scale, shift = (rng.normal(size=s).astype(np.float32) for s in ((5, 3), 3, 3, 3, 3))
    variance, x = rng.uniform(0.5, 2, 3).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    want = (x @ kernel + bias - mean) / np.sqrt(variance + 1e-5) * scale + shift
    folded, offset = fold_arrays(kernel, bias, mean, variance, scale, shift)
    np.testing.assert_allclose(x @ np.asarray(folded) + np.asarray(offset), want, rtol=1e-4, atol=1e-5)


def test_folding_a_model():
    assert batch_norm_pairs(MODEL, X) == [("stem", "norm")]
    folded = fold_batch_norm(MODEL, X)
    np.testing.assert_allclose(folded(X), MODEL(X), rtol=1e-4, atol=1e-5)
    assert folded.stem.bias is not None and not isinstance(folded.norm, nnx.BatchNorm)
    assert isinstance(MODEL.norm, nnx.BatchNorm) and MODEL.stem.bias is None


def test_folding_refuses_batch_statistics():
    model = Net()
    model.norm.use_running_average = False
    with pytest.raises(ValueError, match="batch statistics"):
        fold_batch_norm(model, X)


# ---- Pytrees ---------------------------------------------------------------------------------------

TREE = {
    "a": {"kernel": X[0, :, :, 0], "bias": jnp.ones(8)},
    "b": [X[1, :, :, 0]],
    "n": jnp.arange(6).reshape(2, 3),
}


def test_trees():
    assert [(leaf.name, leaf.size) for leaf in quantizable(TREE)] == [("a/kernel", 64), ("b/0", 64)]
    want = calibrate(TREE["a"]["kernel"])(TREE["a"]["kernel"], 3.5)
    forms = ([3.5, 32.0], {"a/kernel": 3.5}, {"a": {"kernel": 3.5, "bias": None}, "b": [None], "n": None})
    for bits in forms:
        out = quantize_tree(TREE, bits)
        np.testing.assert_allclose(out["a"]["kernel"], want, rtol=1e-6)
        np.testing.assert_array_equal(out["b"][0], TREE["b"][0])
        np.testing.assert_array_equal(out["a"]["bias"], TREE["a"]["bias"])
    rows = jnp.array([[2.0, 3.0], [4.5, 8.0]])
    batched = jax.vmap(lambda b: quantize_tree(TREE, b)["b"][0])(rows)
    np.testing.assert_allclose(batched[1], quantize_tree(TREE, rows[1])["b"][0], rtol=1e-6)
    assert [leaf.name for leaf in quantizable(nnx.state(MODEL))][:1] == ["blocks/0/kernel"]


# ---- Bad input -------------------------------------------------------------------------------------


def test_sentences():
    for bad, message in (
        (0, "weight bits must be >= 1"),
        ([8, -1, 8, 8, 8], "got -1 for layer 'depthwise'"),
        ([8, 8], "one entry per quantized layer: got 2 for 5 layers"),
        ({"weights": 8, "activation": 8}, "'weights' and 'activations', got 'activation'"),
        ({"activations": float("nan")}, "activation bits must be >= 1"),
        ("eight", "must be numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            Q(bad, X)
    with pytest.raises(ValueError, match="no nnx convolution or dense layer"):
        layers_of(nnx.BatchNorm(1, use_running_average=True, rngs=nnx.Rngs(0)), X)
    with pytest.raises(ValueError, match="channel_axis must be None"):
        QuantizedModel.of(MODEL, X, activations=QuantSpec(channel_axis=-1))
    with pytest.raises(ValueError, match="the nearest is 'a/kernel'"):
        quantize_tree(TREE, {"a/kernl": 4})
    with pytest.raises(ValueError, match="got 3 for 2 layers"):
        quantize_tree(TREE, [1, 2, 3])
    with pytest.raises(ValueError, match="max_bits must be from 1 to 16"):
        Q.tabulated(40)
