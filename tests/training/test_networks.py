"""Five families: published counts, shapes, fast convolutions against lax, layer lists, folding, integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from diffhw import workloads
from diffhw.quantization import QuantizedModel
from diffhw.quantization._fold import fold_batch_norm
from diffhw.training import (
    PARAMETERS,
    ConvNet,
    abstract_network,
    bits_apply,
    conv,
    network_names,
    to_network,
)
from diffhw.training._blocks import major_conv, prepare_kernel
from diffhw.training._families import Conv, Family, Fire, Inverted, Pool, Separable, Shuffle
from diffhw.training._plan import Step

SMALL = [name for name in network_names() if name.endswith("_small")]


def parameters(model):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name):
    model = abstract_network(name, input_shape=(224, 224, 3), classes=1000)
    assert parameters(model) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "zoo"),
    [
        ("mobilenet_v2", "mobilenet_v2"),
        ("shufflenet_v2", "shufflenet_v2"),
        ("squeezenet", "squeezenet1_1"),
        ("mnasnet", "mnasnet_b1"),
        ("efficientnet", "efficientnet_b0"),
    ],
)
def test_same_layers_as_the_zoo(name, zoo):
    """Two tables, written separately: MACs, parameters and every layer's size agree."""
    made = to_network(abstract_network(name, input_shape=(224, 224, 3), classes=1000))
    known = workloads.load(zoo)
    assert made.summary() == known.summary()
    for field in ("g", "k", "c", "p", "q", "r", "stride_h"):
        ours, theirs = (
            sorted(np.asarray(getattr(n.layers, field))[: n.size].tolist()) for n in (made, known)
        )
        assert ours == theirs, field


@pytest.mark.parametrize("name", SMALL)
def test_layer_lists_agree(name):
    """`layers` (found by running) and `to_network` (from the steps): names, shapes, MACs."""
    model = abstract_network(name, input_shape=(8, 8, 1), classes=10)
    layers, net = model.layers(), to_network(model)
    assert [layer.path for layer in layers] == list(net.names)
    assert [layer.macs for layer in layers] == np.asarray(net.layers.macs)[: net.size].tolist()
    assert [layer.weights for layer in layers] == np.asarray(net.layers.params)[: net.size].tolist()
    assert net.summary()["params"] == parameters(model)
    assert to_network(model, batch=4).summary()["macs"] == 4 * net.summary()["macs"]


def test_three_small_ones_have_twenty_layers():
    counts = [len(abstract_network(n, input_shape=(8, 8, 1), classes=10).layers()) for n in SMALL]
    assert sum(count >= 20 for count in counts) >= 3


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_shapes(name, shape):
    model = abstract_network(name, input_shape=shape, classes=7)
    out = nnx.eval_shape(lambda m, x: m(x), model, jax.ShapeDtypeStruct((3, *shape), jnp.float32))
    assert out.shape == (3, 7)


def test_width():
    thin, wide = (
        abstract_network("mobilenet_v2", input_shape=(224, 224, 3), classes=1000, width=w) for w in (0.5, 1.4)
    )
    assert parameters(thin) == 1_968_680  # published for MobileNetV2 0.5: 1.97 M (recalled)
    assert 6.0e6 < parameters(wide) < 6.2e6  # 1.4: 6.06 M and up, with the rounding to 8 (recalled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(name="mobilnet_v2_small"), "did you mean 'mobilenet_v2_small'"),
        (dict(input_shape=(8, 8)), "input_shape must be"),
        (dict(name="squeezenet"), r"input_shape \(8, 8, 1\) is too small: pool2 has no pixel left"),
        (dict(classes=0), "classes must be >= 1"),
        (dict(width=-1.0), "width must be > 0"),
    ],
)
def test_what_cannot_be_built(options, message):
    options = dict(name="mobilenet_v2_small", input_shape=(8, 8, 1), classes=10) | options
    with pytest.raises(ValueError, match=message):
        abstract_network(options.pop("name"), **options)


def test_wrong_images():
    model = abstract_network("squeezenet_small", input_shape=(8, 8, 1), classes=10)
    with pytest.raises(ValueError, match=r"takes images of shape \(n, 8, 8, 1\), got \(2, 9, 9, 1\)"):
        model(jnp.zeros((2, 9, 9, 1)))


CASES = [  # rows, columns, channels in, out, filter, stride, pad, groups
    (8, 8, 1, 4, 3, 2, 1, 1),
    (4, 4, 6, 6, 3, 1, 1, 6),
    (5, 7, 6, 6, 3, 2, 1, 6),
    (12, 12, 4, 4, 5, 2, 2, 4),
    (4, 4, 6, 8, 1, 1, 0, 1),
    (4, 4, 6, 8, 3, 1, 1, 1),
    (40, 40, 8, 4, 3, 1, 1, 1),
    (6, 6, 8, 4, 3, 1, 1, 2),
    (2, 2, 6, 6, 5, 1, 2, 6),
]


@pytest.mark.parametrize("case", CASES)
def test_fast_convolutions_equal_lax(case):
    h, w, c, k, f, t, pad, g = case
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, h, w, c)).astype(np.float32)
    kernel = rng.normal(size=(f, f, c // g, k)).astype(np.float32)
    options = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=g)

    @jax.jit
    def all_three(x, kernel):
        want = lax.conv_general_dilated(x, kernel, (t, t), ((pad, pad),) * 2, **options)
        got = conv(x, kernel, (t, t), ((pad, pad),) * 2, **options)
        step = Step("c", "conv", ("input",), (*want.shape[1:3], k), f, t, pad, g)
        prepared = prepare_kernel(step, (h, w, c), kernel)
        major = major_conv(step, x.transpose(3, 1, 2, 0), prepared, None).transpose(3, 1, 2, 0)
        return want, got, major

    want, got, major = all_three(x, kernel)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(major, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_fast_convolution_with_named_padding(padding):
    x, kernel = jnp.arange(72.0).reshape(1, 6, 6, 2), jnp.arange(18.0).reshape(3, 3, 1, 2)
    options = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2)
    want = lax.conv_general_dilated(x, kernel, (2, 2), padding, **options)
    np.testing.assert_allclose(conv(x, kernel, (2, 2), padding, **options), want, rtol=1e-5)


TINY = {  # every kind of block and step once: what a compiled test can afford
    "inverted": Family("relu6", (Conv(8, 3, 2), Inverted(1, 8, 1, 1, 3), Inverted(3, 8, 2, 2, 5)), by=4),
    "separable": Family("relu", (Conv(8, 3), Separable(8, 3, 2), Conv(16, 1, last=True)), by=4),
    "shuffle": Family("relu", (Conv(8, 3, 2), Shuffle(16, 2)), by=4),
    "fire": Family("relu", (Conv(8, 3), Pool(3, 2, 1), Fire(4, 8)), by=4, conv_classes=True),
    "excite": Family("swish", (Conv(8, 3, 2), Inverted(3, 8, 1, 1, 3, 0.25)), by=4),
}


def tiny(name):
    """Weights by numpy: with JAX every shape of a kernel is a program of its own."""
    plan = TINY[name].plan(name, (8, 8, 1), 10, 1.0)
    model = nnx.eval_shape(lambda: ConvNet(name, plan.input_shape, tuple(plan.steps), rngs=nnx.Rngs(3)))
    graph, state = nnx.split(model)
    rng = np.random.default_rng(3)

    def draw(path, leaf):
        if leaf.ndim < 2:
            return jnp.full(leaf.shape, float("scale" in str(path) or "var" in str(path)), leaf.dtype)
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])), leaf.dtype)

    return nnx.merge(graph, jax.tree.map_with_path(draw, state))


@pytest.fixture(scope="module", params=TINY)
def folded(request):
    """A network whose batch norms did something, and its folded copy."""
    model = tiny(request.param)
    rng = np.random.default_rng(0)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            n = module.mean[...].shape
            module.mean[...] = jnp.asarray(rng.normal(0, 0.1, n), jnp.float32)
            module.var[...] = jnp.asarray(rng.uniform(0.5, 1.5, n), jnp.float32)
    x = jnp.asarray(rng.normal(size=(16, 8, 8, 1)), jnp.float32)
    return model, fold_batch_norm(model, x), x


@pytest.mark.slow
def test_bits_apply_equals_the_quantized_model(folded):
    _, model, x = folded
    q = QuantizedModel.of(model, x, whole=True)
    apply = bits_apply(q)
    plain, fast = (jax.jit(lambda f, bits, x: f(bits, x)) for _ in range(2))
    rng = np.random.default_rng(1)
    for _ in range(2):
        bits = jnp.asarray(rng.integers(1, 9, len(q.names)), jnp.float32)
        want, got = plain(q, bits, x), fast(apply, bits, x)
        np.testing.assert_allclose(got, want, atol=1e-4 * float(jnp.abs(want).max()))


def test_bits_apply_wants_folded_norms():
    q = QuantizedModel.of(tiny("fire"), jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))
    with pytest.raises(ValueError, match="fire still has batch norms"):
        bits_apply(q)


@pytest.mark.slow
def test_integer_network_predicts_the_same(folded):
    from diffhw.quantization import QuantSpec
    from diffhw.quantization._integer import integer_network

    _, model, x = folded
    q = QuantizedModel.of(model, x, activations=QuantSpec("auto"), whole=True)
    bits = {"weights": 6.0, "activations": 8.0}
    exported = integer_network(q, bits, model.graph())
    logits = np.asarray(jax.jit(q)(bits, x))
    near = np.abs(exported.logits(x) - logits).max() / np.abs(logits).max()
    assert near < 0.02
    assert (exported.predict(x) == logits.argmax(-1)).mean() >= 15 / 16
