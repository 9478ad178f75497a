"""The zoo against published counts, and `load`."""

import numpy as np
import pytest

from diffhw import workloads
from diffhw.workloads import PUBLISHED

NAMES = (
    *(
        "alexnet",
        "vgg16",
        "resnet18",
        "resnet50",
        "googlenet",
        "squeezenet1_1",
        "mobilenet_v1",
        "mobilenet_v2",
    ),
    *("mobilenet_v3_large", "efficientnet_b0", "mnasnet_b1", "shufflenet_v2", "unet", "bert_base"),
    *("bert_base_512", "vit_b16", "gpt2_prefill", "gpt2_decode", "llama3_8b_prefill", "llama3_8b_decode"),
)


def test_names():
    assert set(workloads.names()) == set(NAMES) == set(PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
def test_published_counts_within_one_percent(name):
    net, published = workloads.load(name), PUBLISHED[name]
    sums = net.summary()
    assert published.how in ("read", "recalled") and published.source
    assert abs(sums["params"] / published.params - 1) < 0.01
    if "torchvision" in published.source or "HuggingFace" in published.source:
        assert sums["params"] == published.params
    if published.macs is not None:
        assert abs(sums["macs"] / published.macs - 1) < 0.01
    # the traced sums are the exact ones within float32
    np.testing.assert_allclose(float(net.macs), sums["macs"], rtol=1e-6)
    np.testing.assert_allclose(float(net.params), sums["params"], rtol=1e-6)
    np.testing.assert_allclose(float(net.macs_without_attention), sums["macs_without_attention"], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_structure(name):
    net = workloads.load(name)
    info = net.info
    assert info.name == name and info.source
    assert len(set(info.names)) == net.size
    assert all(0 <= a < b < net.size for a, b in info.edges)
    assert {b for _, b in info.edges} >= set(range(1, net.size)) - {1, 2}
    assert info.operators and all(op.elements > 0 for op in info.operators)
    for row in net.rows()[:5]:  # outputs follow from inputs by the usual formula
        reach = float(row.dilation_h * (row.r - 1) + 1)
        assert float(row.p) == (float(row.h + 2 * row.pad_top) - reach) // float(row.stride_h) + 1
    twice = workloads.load(name, batch=2).summary()
    once = net.summary()
    assert twice["macs"] == 2 * once["macs"]
    assert twice["params"] == once["params"]


def test_attention_products():
    closed = {  # heads, head size, new tokens, context, blocks
        "bert_base": 2 * 12 * 64 * 128 * 128 * 12,
        "bert_base_512": 2 * 12 * 64 * 512 * 512 * 12,
        "vit_b16": 2 * 12 * 64 * 197 * 197 * 12,
        "gpt2_prefill": 2 * 12 * 64 * 1024 * 1024 * 12,
        "gpt2_decode": 2 * 12 * 64 * 1024 * 12,
        "llama3_8b_prefill": 2 * 32 * 128 * 2048 * 2048 * 32,
        "llama3_8b_decode": 2 * 32 * 128 * 2048 * 32,
    }
    for name in NAMES:
        sums = workloads.load(name).summary()
        assert sums["macs"] - sums["macs_without_attention"] == closed.get(name, 0)
    net = workloads.load("llama3_8b_decode", batch=3)
    scores = net.rows()[net.names.index("layer0.scores")]
    assert [float(getattr(scores, field)) for field in "gpck"] == [24, 4, 128, 2048]


def test_language_model_heads_are_explained():
    for name in NAMES:
        if name.startswith(("gpt2", "llama3", "bert")):
            assert any("head" in note for note in workloads.load(name).info.notes)


def test_load_errors():
    with pytest.raises(ValueError, match=r"unknown network 'resnet5' \(did you mean resnet50"):
        workloads.load("resnet5")
    with pytest.raises(ValueError, match="did you mean mobilenet_v2"):
        workloads.load("MobileNet-v2")
    with pytest.raises(ValueError, match="known: alexnet, vgg16"):
        workloads.load("zzzzzzzz")
    with pytest.raises(ValueError, match=r"vgg16\.m: no such file"):
        workloads.load("vgg16.m")
    with pytest.raises(ValueError, match="from_jax"):
        workloads.load(lambda x: x)
    with pytest.raises(ValueError, match=r"absent\.csv: no such file"):
        workloads.load("absent.csv")
    with pytest.raises(ValueError, match="a zoo name, a file or a Network, got int"):
        workloads.load(3)
    for batch in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="batch must be an integer >= 1"):
            workloads.load("resnet18", batch=batch)


def test_load_takes_a_network():
    net = workloads.load("alexnet")
    assert workloads.load(net) is net
    with pytest.raises(ValueError, match="already has its batch"):
        workloads.load(net, batch=2)


def test_merging_keeps_the_sums():
    net = workloads.load("bert_base")
    merged = net.merged()
    assert merged.size < 10
    assert merged.summary() | {"rows": 0} == net.summary() | {"rows": 0}
