"""Integer networks: the same predictions as the fake-quantized model, from numpy and from a file."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from quantization_nets import NAMES, Net, images

from diffhw.quantization import (
    Graph,
    IntegerNetwork,
    QuantizedModel,
    QuantSpec,
    fold_batch_norm,
    integer_network,
)
from diffhw.quantization._integer_ops import apply_op, divide_round, shift_round, window_pads

X = images(64)
MODEL = fold_batch_norm(Net(), X)
GRAPH = Net().graph()
run = jax.jit(lambda q, bits, x: q(bits, x))
MAKE = {
    "per tensor": lambda: QuantizedModel.of(MODEL, X, activations=QuantSpec("auto")),
    "per channel, affine inputs": lambda: QuantizedModel.of(
        MODEL, X, weights=QuantSpec(channel_axis=-1), activations=QuantSpec("affine")
    ),
    "least squares": lambda: QuantizedModel.of(
        MODEL,
        X,
        weights=QuantSpec("affine", calibration="mse"),
        activations=QuantSpec("auto", calibration="mse"),
    ),
    "learned": lambda: MODELS["per tensor"].learned({"weights": 4, "activations": 4}, X, clip=True),
}


class Models(dict):
    """Calibrated when first asked for: each worker reads this file, one runs its tests."""

    def __missing__(self, name):
        self[name] = MAKE[name]()
        return self[name]


MODELS = Models()
BITS = [
    {"weights": float(w), "activations": float(a)}
    for w, a in ((1, 1), (2, 3), (4, 4), (8, 8), (3, 12), (16, 16))
] + [{"weights": np.array([8.0, 3, 5, 2, 1]), "activations": np.array([8.0, 4, 6, 3, 2])}]


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
def test_same_outputs_as_the_quantized_model(name):
    q = MODELS[name]
    for bits in BITS:
        network = integer_network(q, bits, GRAPH)
        full = {k: np.broadcast_to(v, (5,)).astype(np.float32) for k, v in bits.items()}
        want, got = np.asarray(run(q, full, X)), network.logits(X)
        scale = max(np.abs(want).max(), 1e-6)
        close = np.abs(want - got).max(1) < 1e-4 * scale
        # A code within float rounding of a tie may fall either way: hardly ever, and never far.
        assert close.mean() > 0.95, (bits, close.mean())
        assert np.abs(want - got).max() < 0.05 * scale
        top = np.sort(want, 1)
        clear = close & (top[:, -1] - top[:, -2] > 1e-3 * scale)
        np.testing.assert_array_equal(network.predict(X)[clear], want.argmax(1)[clear])
        assert network.run(X).dtype == np.int64
        assert all(np.issubdtype(layer.kernel.dtype, np.integer) for layer in network.layers.values())


def test_accumulators_are_as_wide_as_needed():
    q = MODELS["per tensor"]
    narrow = integer_network(q, {"weights": 8, "activations": 8}, GRAPH)
    wide = integer_network(q, {"weights": 16, "activations": 16}, GRAPH)
    assert {one.accumulator for one in narrow.layers.values()} == {"int32"}
    assert "int64" in {one.accumulator for one in wide.layers.values()}
    assert {one.kernel.dtype for one in narrow.layers.values()} == {np.dtype(np.int8)}
    assert narrow.weight_bytes == 54 + 54 + 48 + 288 + 32


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files(tmp_path, suffix):
    network = integer_network(MODELS["per channel, affine inputs"], BITS[-1], GRAPH, sample=X)
    arrays, scales = network.save(tmp_path / f"net{suffix}")
    for path in (arrays, scales):
        np.testing.assert_array_equal(IntegerNetwork.load(path).run(X), network.run(X))
    text = json.loads((tmp_path / "net.json").read_text())
    assert text["layers"]["stem"]["weight_bits"] == 8 and len(text["layers"]["head"]["weight_step"]) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", f"net{suffix}"]


def test_safetensors_is_the_public_format(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    network = integer_network(MODELS["per tensor"], BITS[2], GRAPH)
    path, _ = network.save(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(safetensors.load_file(path)["stem:kernel"], network.layers["stem"].kernel)


def test_steps_against_jax():
    x = np.random.default_rng(0).normal(size=(3, 5, 6, 8)) * 3
    fixed = np.round(x * 2**24).astype(np.int64)
    settings = dict(window=[3, 2], strides=[2, 1], padding="SAME")
    real = lambda kind, settings={}, *more: apply_op(kind, settings, [fixed, *more], 24) / 2**24
    f = x.astype(np.float32)
    cases = (
        (real("relu", {"high": None}), jax.nn.relu(f)),
        (real("relu", {"high": 6.0}), jax.nn.relu6(f)),
        (real("hard_sigmoid"), jax.nn.hard_sigmoid(f)),
        (real("hard_swish"), jax.nn.hard_swish(f)),
        (real("lookup", {"function": "swish"}), jax.nn.swish(f)),
        (real("lookup", {"function": "sigmoid"}), jax.nn.sigmoid(f)),
        (real("add", {}, fixed), 2 * f),
        (real("multiply", {}, fixed[:, 0, 0, :]), f * f[:, :1, :1, :]),
        (real("max_pool", settings), nnx.max_pool(f, (3, 2), (2, 1), "SAME")),
        (real("avg_pool", settings), nnx.avg_pool(f, (3, 2), (2, 1), "SAME")),
        (real("mean"), f.mean((1, 2))),
        (real("concat", {}, fixed), np.concatenate([f, f], -1)),
        (real("slice", {"start": 2, "stop": None}), f[..., 2:]),
        (real("shuffle", {"groups": 2}), f.reshape(3, 5, 6, 2, 4).swapaxes(-1, -2).reshape(f.shape)),
        (real("flatten"), f.reshape(3, -1)),
    )
    for i, (got, want) in enumerate(cases):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6, err_msg=str(i))


def test_roundings():
    v = np.arange(-20, 21)
    np.testing.assert_array_equal(shift_round(v, 2), np.round(v / 4))  # half to even, as numpy and JAX
    np.testing.assert_array_equal(shift_round(v, -2), v * 4)
    np.testing.assert_array_equal(shift_round(v, 0), v)
    np.testing.assert_array_equal(divide_round(v, 5), np.floor(v / 5 + 0.5))
    for size in (5, 6, 8):
        assert window_pads((size, size), (3, 3), (2, 2), "SAME") == list(
            jax.lax.padtype_to_pads((size, size), (3, 3), (2, 2), "SAME")
        )


def test_read_without_jax(tmp_path):
    network = integer_network(MODELS["per tensor"], BITS[3], GRAPH)
    network.save(tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, numpy as np\n"
        "from diffhw.quantization import IntegerNetwork\n"
        "net, x = IntegerNetwork.load(sys.argv[1] + '/net.npz'), np.load(sys.argv[1] + '/x.npy')\n"
        "print(*net.predict(x))\n"
        "assert not {'jax', 'flax'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=True, capture_output=True, text=True)
    np.testing.assert_array_equal([int(word) for word in done.stdout.split()], network.predict(X))


def test_sentences(tmp_path):
    q = MODELS["per tensor"]
    eight = {"weights": 8, "activations": 8}
    with pytest.raises(ValueError, match=r"whole weight bits from 1 to 16, got 4\.5 for layer 'stem'"):
        integer_network(q, {"weights": 4.5, "activations": 8}, GRAPH)
    with pytest.raises(ValueError, match="bits for both"):
        integer_network(q, 8, GRAPH)
    with pytest.raises(ValueError, match="calibrated inputs"):
        integer_network(QuantizedModel.of(MODEL, X), eight, GRAPH)
    with pytest.raises(ValueError, match=r"end it with Graph\.output"):
        integer_network(q, eight, Graph())
    g = Graph()
    with pytest.raises(ValueError, match="layer 'steam' is not in the model"):
        integer_network(q, eight, g.output(g.conv(g.input, "steam")))
    g = Graph()
    with pytest.raises(ValueError, match="the nearest is 'input'"):
        g.relu("imput")
    g = Graph()
    x = g.relu(g.conv(g.input, "stem"))  # the pool is missing
    x = g.conv(g.relu6(g.conv(x, "depthwise")), "blocks/0")
    g.output(g.dense(g.mean(g.add(x, g.hard_swish(g.conv(x, "grouped")))), "head"))
    with pytest.raises(ValueError, match="its graph is not the model's"):
        integer_network(q, eight, g, sample=X)
    network = integer_network(q, eight, GRAPH)
    with pytest.raises(ValueError, match="inputs must be numbers below"):
        network.run(np.full((1, 8, 8, 1), 1e9))
    with pytest.raises(ValueError, match=r"saved as \.npz or \.safetensors"):
        network.save(tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net\.npz is missing"):
        IntegerNetwork.load(tmp_path / "net.npz")
    network.save(tmp_path / "net.npz")
    (tmp_path / "net.npz").write_bytes((tmp_path / "net.npz").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"net.npz is not a readable .npz file"):
        IntegerNetwork.load(tmp_path / "net.npz")
    network.save(tmp_path / "net.safetensors")
    (tmp_path / "net.json").write_text("{")
    with pytest.raises(ValueError, match="does not describe an integer network"):
        IntegerNetwork.load(tmp_path / "net.safetensors")
    assert tuple(network.layers) == NAMES
