"""Networks read from jaxprs: flax models against the zoo, control flow, training steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax

from diffhw import workloads

S = jax.ShapeDtypeStruct
f32 = jnp.float32


# --- ResNet-50 v1.5, flax nnx ---


class ConvNorm(nnx.Module):
    def __init__(self, c, k, f, stride, rngs):
        pad = (f - 1) // 2
        self.conv = nnx.Conv(c, k, (f, f), stride, padding=pad, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(k, use_running_average=True, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.conv(x))


class Bottleneck(nnx.Module):
    def __init__(self, c, width, stride, rngs):
        self.conv1 = ConvNorm(c, width, 1, 1, rngs)
        self.conv2 = ConvNorm(width, width, 3, stride, rngs)
        self.conv3 = ConvNorm(width, 4 * width, 1, 1, rngs)
        self.down = ConvNorm(c, 4 * width, 1, stride, rngs) if c != 4 * width else None

    def __call__(self, x):
        y = self.conv3(nnx.relu(self.conv2(nnx.relu(self.conv1(x)))))
        return nnx.relu(y + (self.down(x) if self.down else x))


class ResNet50(nnx.Module):
    def __init__(self, rngs):
        self.stem = ConvNorm(3, 64, 7, 2, rngs)
        blocks, c = [], 64
        for stage, count in enumerate((3, 4, 6, 3)):
            for i in range(count):
                blocks.append(Bottleneck(c, 64 << stage, 2 if stage and i == 0 else 1, rngs))
                c = 256 << stage
        self.blocks = nnx.List(blocks)
        self.fc = nnx.Linear(c, 1000, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), (2, 2), ((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((1, 2)))


def test_nnx_resnet50_is_the_zoos():
    model = nnx.eval_shape(lambda: ResNet50(nnx.Rngs(0)))  # abstract: no weight exists
    net, zoo = workloads.from_jax(model, S((1, 224, 224, 3), f32)), workloads.load("resnet50")
    assert net.summary() == zoo.summary()
    fields = ("n", "g", "k", "c", "p", "q", "r", "s", "h", "w", "pad_top", "stride_h")
    table = lambda one: sorted(tuple(float(getattr(row, f)) for f in fields) for row in one.rows())
    assert table(net) == table(zoo)
    assert net.info.name == "ResNet50"
    assert net.names[:3] == ("stem.conv", "blocks.0.conv1.conv", "blocks.0.conv2.conv")
    assert len(net.info.edges) == len(zoo.info.edges)
    assert {"max", "add", "reduce_window_max"} <= {op.kind for op in net.info.operators}
    assert any("% of all elements" in note for note in net.info.notes)


# --- BERT base, flax linen, layers by nn.scan or in a loop ---


class BertLayer(nn.Module):
    d: int = 768
    heads: int = 12

    @nn.compact
    def __call__(self, x, _=None):
        y = nn.MultiHeadDotProductAttention(self.heads, name="attention")(x, x)
        x = nn.LayerNorm(name="norm1")(x + y)
        y = nn.Dense(self.d, name="fc2")(nn.gelu(nn.Dense(4 * self.d, name="fc1")(x)))
        return nn.LayerNorm(name="norm2")(x + y), None


class Bert(nn.Module):
    scanned: bool = False
    d: int = 768

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(30522, self.d, name="words")(tokens)
        x = x + nn.Embed(512, self.d, name="positions")(jnp.arange(tokens.shape[1]))[None]
        x = nn.LayerNorm()(x + nn.Embed(2, self.d, name="segments")(jnp.zeros_like(tokens)))
        if self.scanned:
            over = nn.scan(BertLayer, variable_axes={"params": 0}, split_rngs={"params": True}, length=12)
            x, _ = over(name="layers")(x, None)
        else:
            for i in range(12):
                x, _ = BertLayer(name=f"layer{i}")(x)
        return jnp.tanh(nn.Dense(self.d, name="pooler")(x[:, 0]))


@pytest.mark.parametrize("scanned", [False, True])
def test_linen_bert_is_the_zoos(scanned):
    model, tokens = Bert(scanned), S((1, 128), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), tokens)
    net = workloads.from_jax(jax.jit(model.apply), variables, tokens, name="bert")
    assert net.summary() | {"rows": 0} == workloads.load("bert_base").summary() | {"rows": 0}
    products = [row for row in net.rows() if float(row.weight_is_activation)]
    assert {float(row.g) for row in products} == {12.0}
    if scanned:
        assert net.size == 9
        assert float(net.count.max()) == 12
    else:
        assert net.size == 97
        assert "Bert.layer3.attention.query" in net.names
        assert "Bert.layer11.fc1" in net.names


def test_grouped_heads_stand_in_p():
    def attend(q, k, v):  # 32 query heads, 8 key-value heads
        scores = jnp.einsum("bthgd,bshd->bhgts", q, k)
        return jnp.einsum("bhgts,bshd->bthgd", jax.nn.softmax(scores), v)

    kv = S((2, 2048, 8, 128), f32)
    net = workloads.from_jax(attend, S((2, 1, 8, 4, 128), f32), kv, kv)
    zoo = workloads.load("llama3_8b_decode", batch=2)
    here, there = net.rows(), [row for row, name in zip(zoo.rows(), zoo.names) if name.startswith("layer0.")]
    there = [row for row in there if float(row.weight_is_activation)]
    for one, other in zip(here, there):
        assert float(one.macs) == float(other.macs)
        assert float(one.g) == float(other.g) == 16


# --- one primitive at a time ---


def _single(fn, *args, **options):
    net = workloads.from_jax(fn, *args, **options)
    assert net.size == 1
    return net.rows()[0], net


@pytest.mark.parametrize(
    ("numbers", "lhs", "rhs"),
    [
        (("NCHW", "OIHW", "NCHW"), (2, 6, 9, 11), (8, 3, 3, 5)),
        (("NHWC", "HWIO", "NHWC"), (2, 9, 11, 6), (3, 5, 3, 8)),
        (("CHWN", "IHWO", "CNHW"), (6, 9, 11, 2), (3, 3, 5, 8)),
    ],
)
def test_convolution_dimension_numbers(numbers, lhs, rhs):
    def conv(x, w):
        return lax.conv_general_dilated(
            x,
            w,
            (2, 1),
            ((1, 1), (4, 3)),
            rhs_dilation=(1, 2),
            dimension_numbers=numbers,
            feature_group_count=2,
        )

    row, net = _single(conv, S(lhs, f32), S(rhs, f32), params_argnums=1)
    expected = dict(n=2, g=2, k=4, c=3, p=5, q=10, r=3, s=5, h=9, w=11, pad_top=1, pad_left=4)
    expected |= dict(stride_h=2, stride_w=1, dilation_h=1, dilation_w=2, weight_is_activation=0)
    assert {name: int(getattr(row, name)) for name in expected} == expected
    assert net.summary()["params"] == 8 * 3 * 3 * 5


def test_one_and_three_dimensional_convolutions():
    conv = partial(lax.conv_general_dilated, window_strides=(1,), padding="VALID")
    row, _ = _single(conv, S((2, 3, 10), f32), S((4, 3, 3), f32))
    assert float(row.macs) == 2 * 4 * 3 * 8 * 3
    conv = partial(lax.conv_general_dilated, window_strides=(1, 1, 1), padding="VALID")
    row, net = _single(conv, S((2, 3, 5, 6, 7), f32), S((4, 3, 2, 3, 3), f32))
    assert float(row.macs) == 2 * 4 * 3 * (4 * 4 * 5) * (2 * 3 * 3)
    assert any("three or more axes" in note for note in net.info.notes)


def test_transposed_convolution_counts_true_macs():
    up = lambda x, w: lax.conv_transpose(x, w, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    row, net = _single(up, S((1, 28, 28, 64), f32), S((2, 2, 64, 32), f32), params_argnums=1)
    assert float(row.macs) == 28 * 28 * 64 * 32 * 4  # not the 4 times that the zero-filled input would cost
    assert float(row.output_words) == 56 * 56 * 32
    assert any("dilated input" in note for note in net.info.notes)


def test_dot_general_batch_and_sides():
    row, _ = _single(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), S((3, 4, 5), f32), S((3, 5, 6), f32))
    assert [int(getattr(row, f)) for f in "gpck"] == [3, 4, 5, 6]
    assert int(row.weight_is_activation) == 1
    # the parameter on the left is still the weight, also through a transpose and a cast
    fn = lambda w, x: w.astype(jnp.bfloat16).T @ x.astype(jnp.bfloat16)
    row, _ = _single(fn, S((5, 7), f32), S((5, 2), f32), params_argnums=0)
    assert [int(getattr(row, f)) for f in "gpck"] == [1, 2, 5, 7]
    assert int(row.weight_is_activation) == 0


def test_closed_over_arrays_are_parameters():
    w = np.ones((5, 7), np.float32)
    row, net = _single(lambda x: x @ w, S((2, 5), f32))
    assert int(row.weight_is_activation) == 0
    assert net.summary()["params"] == 35


def test_experts_are_groups():
    fn = lambda params, x: jnp.einsum("etd,edf->etf", x, params[0])
    row, net = _single(fn, [S((8, 16, 32), f32)], S((8, 4, 16), f32))
    assert [int(getattr(row, f)) for f in "gpck"] == [8, 4, 16, 32]
    assert net.summary()["params"] == 8 * 16 * 32


# --- control flow ---

W = S((4, 4), f32)


def test_scan_multiplies_by_length_and_shares_weights():
    def rnn(params, xs):
        return lax.scan(lambda h, x: (jnp.tanh(h @ params["w"] + x), h), jnp.zeros((2, 4)), xs)

    row, net = _single(rnn, {"w": W}, S((10, 2, 4), f32))
    assert int(net.count[0]) == 10
    assert net.summary()["macs"] == 10 * 2 * 4 * 4
    assert net.summary()["params"] == 16
    assert int(row.weight_is_activation) == 0
    assert any("other_params is negative" in note for note in net.info.notes)


def test_cond_takes_the_dearer_branch_and_says_so():
    def fn(x, w):
        return lax.cond(x.sum() > 0, lambda: x @ w, lambda: (x @ w) @ w)

    net = workloads.from_jax(fn, S((2, 4), f32), W, params_argnums=1)
    assert net.summary()["macs"] == 2 * (2 * 4 * 4)
    assert any("dearest branch (64, 32 MACs)" in n or "(32, 64 MACs)" in n for n in net.info.notes)


def test_while_asks_for_a_trip_count():
    def fn(x, w):
        return lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w, x)

    args = S((2, 4), f32), W
    with pytest.raises(ValueError, match=r"while loop 0 .* pass trip_counts="):
        workloads.from_jax(fn, *args)
    assert workloads.from_jax(fn, *args, trip_counts=[7]).summary()["macs"] == 7 * 32
    assert workloads.from_jax(fn, *args, trip_counts=3).summary()["macs"] == 3 * 32
    with pytest.raises(ValueError, match="integers >= 0"):
        workloads.from_jax(fn, *args, trip_counts=[-1])


def test_nested_while_loops_are_numbered_outside_in():
    def fn(x, w):
        inner = lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w, x)
        return lax.while_loop(lambda x: x.sum() < 99, lambda x: inner(x @ w), x)

    net = workloads.from_jax(fn, S((2, 4), f32), W, trip_counts=[3, 5])
    assert net.summary()["macs"] == (3 + 3 * 5) * 32


def test_while_without_products_and_static_fori():
    def fn(x, w):
        x = lax.while_loop(lambda x: x.sum() < 9, lambda x: x * 2, x)
        return lax.fori_loop(0, 5, lambda _, x: x @ w, x)

    net = workloads.from_jax(fn, S((2, 4), f32), W)
    assert net.summary()["macs"] == 5 * 32
    assert any("as if it ran once" in note for note in net.info.notes)


def test_remat_custom_rules_vmap_and_names():
    @jax.custom_vjp
    def custom(x, w):
        return x @ w

    custom.defvjp(lambda x, w: (x @ w, (x, w)), lambda res, g: (g @ res[1].T, res[0].T @ g))

    def fn(params, x):
        with jax.named_scope("head"):
            x = jax.checkpoint(lambda x: jnp.sin(x @ params["a"]["w"]))(x)
        return jax.vmap(custom, (0, None))(x, params["b"]["w"])

    net = workloads.from_jax(fn, {"a": {"w": W}, "b": {"w": W}}, S((3, 2, 4), f32))
    assert net.names == ("head", "b")
    assert net.summary()["macs"] == 2 * (3 * 2 * 4 * 4)
    assert net.info.edges == ((0, 1),)


def test_shard_map_counts_every_shard():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    fn = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(spec("data"), spec()), out_specs=spec("data"))
    assert workloads.from_jax(fn, S((8, 4), f32), W).summary()["macs"] == 8 * 4 * 4


def test_pallas_grid_is_counted():
    pl = pytest.importorskip("jax.experimental.pallas")

    def kernel(x, w, o):
        o[...] = x[...] @ w[...]

    call = pl.pallas_call(
        kernel,
        out_shape=S((16, 4), f32),
        grid=(2,),
        in_specs=[pl.BlockSpec((8, 4), lambda i: (i, 0)), pl.BlockSpec((4, 4), lambda i: (0, 0))],
        out_specs=pl.BlockSpec((8, 4), lambda i: (i, 0)),
        interpret=True,
    )
    net = workloads.from_jax(call, S((16, 4), f32), W)
    assert net.summary()["macs"] == 16 * 4 * 4
    assert any("grid steps" in note for note in net.info.notes)


def test_what_multiplies_but_is_no_layer_is_noted():
    net = workloads.from_jax(lambda x, w: jnp.fft.rfft(x @ w), S((2, 4), f32), W)
    assert any(note.startswith("fft") for note in net.info.notes)


# --- training steps ---


class Small(nn.Module):
    """Strides, padding, 1x1 with stride, depthwise, dilation, pooling, dense."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (7, 7), 2, padding=3, name="first")(x))
        x = nn.relu(nn.Conv(16, (3, 3), 2, padding=1, name="second")(x))
        x = nn.relu(nn.Conv(16, (3, 3), padding=1, feature_group_count=16, name="depthwise")(x))
        x = nn.relu(nn.Conv(32, (1, 1), 2, name="pointwise")(x))
        x = nn.relu(
            nn.Conv(32, (3, 3), kernel_dilation=2, padding=2, feature_group_count=4, name="dilated")(x)
        )
        return nn.Dense(10, name="head")(x.mean((1, 2)))


def test_training_step_is_three_forwards_less_the_first_input_gradient():
    model, x, labels = Small(), S((2, 32, 32, 3), f32), S((2,), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)

    def step(variables, x, labels):
        def loss(variables):
            logits = nn.log_softmax(model.apply(variables, x))
            return -(logits * jax.nn.one_hot(labels, 10)).sum()

        value, grads = jax.value_and_grad(loss)(variables)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, variables, grads)

    forward = workloads.from_jax(model.apply, variables, x)
    train = workloads.from_jax(step, variables, x, labels)
    first = float(forward.rows()[0].macs)
    assert forward.names[0] == "Small.first"
    assert train.summary()["macs"] == 3 * forward.summary()["macs"] - first
    assert train.summary()["params"] == forward.summary()["params"]
    assert train.size == 3 * forward.size - 1
    gradients = [row for row, name in zip(train.rows(), train.names) if ".backward" in name]
    assert sum(int(row.weight_is_activation) for row in gradients) == forward.size  # the weight gradients


# --- errors ---


def test_errors_are_sentences():
    with pytest.raises(ValueError, match="no convolution or matrix product"):
        workloads.from_jax(lambda x: x + 1, S((2,), f32), name="adder")
    module = nnx.BatchNorm(4, rngs=nnx.Rngs(0))  # in training mode
    with pytest.raises(ValueError, match=r"give it as an argument: from_jax\(module"):
        workloads.from_jax(lambda x: module(x @ x), S((4, 4), f32))
    with pytest.raises(ValueError, match="params_argnums: 3 is not the index"):
        workloads.from_jax(lambda x, w: x @ w, S((2, 4), f32), W, params_argnums=3)
