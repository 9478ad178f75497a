"""Layer and Network: checks, stacking, and how they show themselves, also where values are traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import workloads
from diffhw.workloads import Layer, Network, NetworkInfo


def test_sizes_follow_each_other():
    layer = Layer.create(k=64, c=3, r=7, s=7, h=224, w=224, pad_top=3, pad_left=3, stride_h=2, stride_w=2)
    assert float(layer.p) == float(layer.q) == 112
    assert float(layer.macs) == 112 * 112 * 49 * 3 * 64
    back = Layer.create(p=5, q=5, r=3, s=3, dilation_h=2, stride_w=2)
    assert [float(back.h), float(back.w)] == [9, 11]
    gemm = Layer.gemm(4, 5, 6, batch=3, weight_is_activation=1)
    assert float(gemm.macs) == 360
    assert float(gemm.params) == 0
    assert float(gemm.input_words) == 60
    assert float(gemm.output_words) == 72


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(h=4), "needs w"),
        (dict(h=4, w=0), "w must be >= 1, got 0"),
        (dict(h=4, w=float("nan")), "must be >= 1"),
        (dict(h=2, w=2, r=5), "p must be >= 1"),
        (dict(h=4, w=4, pad_top=-1), "pad_top must be >= 0"),
    ],
)
def test_bad_sizes(fields, message):
    with pytest.raises(ValueError, match=message):
        Layer.create(**fields)


def small():
    layers = [Layer.create(k=8, c=3, r=3, s=3, h=10, w=10), Layer.gemm(1, 512, 10)]
    info = NetworkInfo(name="small", names=("conv", "fc"), notes=("a note & more",))
    return Network.create(layers, counts=[2, 1], other_params=18, info=info)


def test_stacking_and_sums():
    net = small()
    assert net.mask.shape == (16,)
    assert net.size == 2
    sums = net.summary()
    assert sums == dict(rows=2, macs=2 * 64 * 27 * 8 + 5120, macs_without_attention=sums["macs"], params=5570)
    assert float(net.macs) == sums["macs"]
    assert float(net.params) == sums["params"]
    with pytest.raises(ValueError, match="at least one layer"):
        Network.create([])
    with pytest.raises(ValueError, match="one entry per layer"):
        Network.create(net.rows(), counts=[1])
    with pytest.raises(ValueError, match="pad_to must be >="):
        Network.create(net.rows(), pad_to=1)


def test_info_rides_along_and_is_lost_in_transforms():
    net = small()
    assert net.info.name == "small"
    copy = jax.tree.map(lambda leaf: leaf, net)
    assert copy.info == NetworkInfo()
    assert copy.names == ("layer0", "layer1")
    assert jax.tree.structure(copy) == jax.tree.structure(net)


def test_text_table():
    text = repr(small())
    lines = text.splitlines()
    assert (
        lines[0]
        == "small: 2 layer rows, 32.8 k MACs (32.8 k without products of two activations), 5570 params"
    )
    assert lines[1].split() == [
        "layer",
        "count",
        "g",
        "k",
        "c",
        "p",
        "x",
        "q",
        "r",
        "x",
        "s",
        "stride",
        "MACs",
        "params",
        "operands",
    ]
    assert lines[2].split()[0] == "conv"
    assert lines[-1] == "note: a note & more"
    assert max(map(len, lines)) < 110
    assert str(small()) == text
    assert "... and 42 more" in repr(workloads.load("resnet50"))
    assert repr(Layer.create(k=8, c=3, h=4, w=4)) == "Layer(k=8, c=3, p=4, q=4, h=4, w=4)"


def test_html_table():
    page = small()._repr_html_()
    assert "<table>" in page
    assert "a note &amp; more" in page
    assert page.count("<tr>") == 3


def test_showing_never_breaks_under_tracing():
    net, seen = small(), []

    def look(net):
        seen.append((repr(net), net._repr_html_(), repr(net.layers)))
        return net.macs

    jax.jit(look)(net)
    jax.grad(look)(net)
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), net)
    jax.vmap(look)(two)
    seen.append((repr(two), two._repr_html_(), repr(two.layers)))
    abstract = jax.eval_shape(lambda: net)
    seen.append((repr(abstract), abstract._repr_html_(), repr(abstract.layers)))
    odd = jax.tree.map(lambda leaf: None, net)
    seen.append((repr(odd), odd._repr_html_(), repr(odd.layers)))
    for text, page, layer in seen:
        assert text.startswith("Network(")
        assert page.startswith("<code>")
        assert layer.startswith("Layer(")
    with pytest.raises(ValueError, match="one concrete network"):
        abstract.summary()


def test_padding_changes_no_sum():
    net = small()
    more = Network.create(net.rows(), counts=[2, 1], other_params=18, pad_to=64)
    assert float(more.macs) == float(net.macs)
    assert more.summary() == net.summary()
    np.testing.assert_array_equal(np.asarray(more.mask)[:16], np.asarray(net.mask))
