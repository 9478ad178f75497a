"""ONNX: real exported graphs give the zoo's MACs; small graphs made here cover the operators."""

import pathlib

import numpy as np
import pytest

from diffhw import workloads

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper

DATA = pathlib.Path(__file__).parents[1] / "data" / "onnx"
# The exporters fold each batch norm into its convolution: 2 x 26,560 parameters become 26,560 biases.
FOLDED = {"resnet50": 26_560}


@pytest.mark.parametrize("path", sorted(DATA.glob("*.onnx")), ids=lambda path: path.stem)
def test_exported_graphs_are_the_zoos(path):
    name = path.stem.rsplit("_", 1)[0]
    assert path.stat().st_size < 200_000
    net, zoo = workloads.from_onnx(path), workloads.load(name)
    expected = zoo.summary()
    expected["params"] -= FOLDED.get(name, 0)
    assert net.summary() == expected
    assert workloads.load(path, batch=4).summary()["macs"] == 4 * expected["macs"]
    assert "Softmax" in {op.kind for op in net.info.operators} or name == "resnet50"
    assert all(op.elements > 0 for op in net.info.operators)
    assert any("non-MAC operators" in note for note in net.info.notes)


def test_exported_layer_names():
    names = workloads.from_onnx(DATA / "bert_base_dynamo.onnx").names
    assert names[:2] == ("layers.0.att.query", "layers.0.att.key")
    names = workloads.from_onnx(DATA / "resnet50_dynamo.onnx").names
    assert names[1] == "3.a.0"


def model(tmp_path, nodes, inputs, weights=(), outputs=("y",), name="net.onnx", **options):
    """A file with float inputs {name: shape}, weights {name: shape or array}."""
    tensors = []
    for key, value in dict(weights).items():
        array = value if isinstance(value, np.ndarray) else np.zeros(value, np.float32)
        tensors.append(numpy_helper.from_array(array, key))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()],
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, None) for key in outputs],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in options.pop("domains", ()))]
    path = tmp_path / name
    onnx.save(helper.make_model(graph, opset_imports=opsets, **options), path)
    return path


def fields(row, names):
    return {name: int(getattr(row, name)) for name in names.split()}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (dict(pads=[1, 2, 1, 2], strides=[2, 1]), dict(p=5, q=11, pad_top=1, pad_left=2, stride_h=2)),
        (dict(auto_pad="SAME_UPPER", strides=[2, 2]), dict(p=5, q=5, pad_top=0, pad_left=1)),
        (dict(auto_pad="SAME_LOWER", strides=[2, 2]), dict(p=5, q=5, pad_top=1, pad_left=1)),
        (dict(auto_pad="VALID"), dict(p=8, q=7, pad_top=0)),
        (dict(dilations=[2, 2], group=3), dict(p=6, q=4, g=3, k=2, c=2, dilation_h=2)),
    ],
)
def test_conv_attributes(tmp_path, attributes, expected):
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    channels = 6 // attributes.get("group", 1)
    path = model(tmp_path, [node], {"x": ("n", 6, 10, 10)}, {"w": (6, channels, 3, 4)})
    row = workloads.from_onnx(path, batch=2).rows()[0]
    assert fields(row, " ".join(expected)) == expected
    assert fields(row, "n r s h w weight_is_activation") == dict(
        n=2, r=3, s=4, h=10, w=10, weight_is_activation=0
    )


def test_conv_of_one_and_three_axes_and_transposed(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    row = workloads.from_onnx(model(tmp_path, nodes, {"x": (1, 3, 10)}, {"w": (4, 3, 3)})).rows()[0]
    assert float(row.macs) == 4 * 3 * 3 * 8
    net = workloads.from_onnx(model(tmp_path, nodes, {"x": (1, 3, 5, 6, 7)}, {"w": (4, 3, 2, 3, 3)}))
    assert net.summary()["macs"] == 4 * 3 * (4 * 4 * 5) * 18
    up = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=2)]
    net = workloads.from_onnx(model(tmp_path, up, {"x": (1, 8, 5, 6)}, {"w": (8, 3, 2, 2)}))
    assert net.summary()["macs"] == 8 * 3 * 4 * 5 * 6
    assert net.summary()["params"] == 8 * 3 * 4
    assert any("transposed" in note for note in net.info.notes)


def test_gemm_and_matmul_sides(tmp_path):
    gemm = [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)]
    row = workloads.from_onnx(model(tmp_path, gemm, {"x": (2, 5)}, {"w": (7, 5)})).rows()[0]
    assert fields(row, "g p c k weight_is_activation") == dict(g=1, p=2, c=5, k=7, weight_is_activation=0)
    gemm = [helper.make_node("Gemm", ["w", "x"], ["y"], transA=1)]
    row = workloads.from_onnx(model(tmp_path, gemm, {"x": (5, 2)}, {"w": (5, 7)})).rows()[0]
    assert fields(row, "g p c k weight_is_activation") == dict(g=1, p=2, c=5, k=7, weight_is_activation=0)
    plain = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    row = workloads.from_onnx(model(tmp_path, plain, {"x": (2, 3, 4, 5)}, {"w": (5, 7)})).rows()[0]
    assert fields(row, "g p c k weight_is_activation") == dict(g=1, p=24, c=5, k=7, weight_is_activation=0)
    row = workloads.from_onnx(model(tmp_path, plain, {"x": (2, 3, 4, 5), "w": (3, 5, 7)})).rows()[0]
    assert fields(row, "g p c k weight_is_activation") == dict(g=6, p=4, c=5, k=7, weight_is_activation=1)


def test_weights_through_constants_transpose_and_dequantize(tmp_path):
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    nodes = [
        helper.make_node("Constant", [], ["s"], value=scale),
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("Transpose", ["d"], ["w"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    net = workloads.from_onnx(model(tmp_path, nodes, {"x": ("b", 50)}, {"q": np.ones((70, 50), np.int8)}))
    assert net.summary() == dict(rows=1, macs=3500, macs_without_attention=3500, params=3500)
    assert [(op.kind, op.elements) for op in net.info.operators] == [("Relu", 70)]


def test_shape_arithmetic_is_folded(tmp_path):
    """Shape -> Gather -> Concat -> Reshape with a free batch, as TorchScript writes it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["b"]),
        helper.make_node("Mul", ["b", "three"], ["b3"]),
        helper.make_node("Concat", ["b3", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    small = {"zero": np.array([0]), "three": np.array([3]), "rest": np.array([-1])}
    path = model(tmp_path, nodes, {"x": ("b", 6, 4)}, {"w": (8, 5), **small})
    assert workloads.from_onnx(path, batch=7).summary()["macs"] == 21 * 8 * 5


def test_named_dimensions(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = model(tmp_path, nodes, {"x": ("b", "sequence", 4)}, {"w": (4, 5)})
    with pytest.raises(
        ValueError, match=r"free dimension 'sequence' at axis 1: pass dims=\{'sequence': size\}"
    ):
        workloads.from_onnx(path)
    assert workloads.from_onnx(path, batch=2, dims={"sequence": 9}).summary()["macs"] == 18 * 20


def test_fixed_batch(tmp_path):
    path = model(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (3, 4)}, {"w": (4, 5)})
    net = workloads.from_onnx(path)
    assert net.summary()["macs"] == 60
    assert any("first dimension of 3" in note for note in net.info.notes)
    with pytest.raises(ValueError, match="fixed first dimension of 3, so batch=2"):
        workloads.from_onnx(path, batch=2)


def test_quantized_convolution(tmp_path):
    inputs = ["x8", "s", "z", "w", "s", "z", "s", "z"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x8"]),
        helper.make_node("QLinearConv", inputs, ["y8"]),
        helper.make_node("DequantizeLinear", ["y8", "s", "z"], ["y"]),
    ]
    weights = {"s": np.float32(1), "z": np.uint8(0), "w": np.zeros((4, 3, 3, 3), np.uint8)}
    weights = {key: np.asarray(value) for key, value in weights.items()}
    net = workloads.from_onnx(model(tmp_path, nodes, {"x": (1, 3, 8, 8)}, weights))
    assert net.summary()["macs"] == 36 * 4 * 27
    assert net.summary()["params"] == 108


def test_unsupported_operators_are_listed_with_their_share(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Einsum", ["a", "a"], ["b"], equation="ij,jk->ik"),
        helper.make_node("Einsum", ["b", "b"], ["c"], equation="ij,jk->ik"),
        helper.make_node("FancyAttention", ["c"], ["y"], domain="com.example"),
    ]
    path = model(tmp_path, nodes, {"x": (4, 4)}, domains=("com.example",))
    with pytest.raises(
        ValueError, match=r"3 of 4 nodes \(75.0 %\).*Einsum x2, com.example.FancyAttention x1"
    ):
        workloads.load(path)


def test_products_inside_control_flow_are_refused(tmp_path):
    out = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["t"])], "body", [], [out])
    nodes = [helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body)]
    path = model(tmp_path, nodes, {"x": (4, 4)}, {"flag": np.array(True)})
    with pytest.raises(ValueError, match="MatMul inside If/Loop/Scan x2"):
        workloads.load(path)


def test_local_functions_are_inlined(tmp_path):
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function(
        "here", "Dense", ["a", "b"], ["c"], [helper.make_node("MatMul", ["a", "b"], ["c"])], opset
    )
    nodes = [helper.make_node("Dense", ["x", "w"], ["y"], domain="here")]
    path = model(tmp_path, nodes, {"x": (2, 4)}, {"w": (4, 5)}, domains=("here",), functions=[function])
    assert workloads.from_onnx(path).summary()["macs"] == 40


def test_bad_files_are_sentences(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.onnx: no such file"):
        workloads.load(tmp_path / "absent.onnx")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not an onnx file at all")
    with pytest.raises(ValueError, match=r"bad\.onnx: (not an ONNX file|an ONNX file without any node)"):
        workloads.load(bad)
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.onnx: an ONNX file without any node"):
        workloads.load(empty)
    relu = model(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], {"x": (4, 4)})
    with pytest.raises(ValueError, match="no convolution or matrix product among 1 nodes"):
        workloads.load(relu)


def test_missing_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"pip install 'diffhw\[onnx\]'"):
        workloads.from_onnx(DATA / "resnet50_dynamo.onnx")
