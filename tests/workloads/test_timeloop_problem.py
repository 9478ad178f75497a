"""Timeloop problems and ZigZag workloads, read and written."""

import numpy as np
import pytest

from diffhw import workloads as w
from diffhw.workloads._layer import LAYER_FIELDS

OLD = """\
problem:
  shape: cnn-layer
  R: 3
  S: 5
  P: 16
  Q: 8
  C: 4
  K: 32
  N: 2
  Wstride: 1
  Hstride: 2
  Wdilation: 1
  Hdilation: 3
"""

GEMM = """\
problem:
  version: 0.4
  shape:
    name: product
    dimensions: [M, N, K]
    data-spaces:
    - {name: A, projection: [[[M]], [[K]]]}
    - {name: B, projection: [[[N]], [[K]]]}
    - {name: Z, projection: [[[M]], [[N]]], read-write: True}
  instance: {M: 64, N: 32, K: 16}
"""

DEPTHWISE = """\
problem:
  shape:
    name: depthwise
    dimensions: [N, C, P, Q, R, S]
    coefficients: [{name: Wstride, default: 2}, {name: Hstride, default: 1}]
    data_spaces:
    - {name: Weights, projection: [[[C]], [[R]], [[S]]]}
    - {name: Inputs, projection: [[[N]], [[C]], [[R], [P, Wstride]], [[S], [Q, Hstride]]]}
    - {name: Outputs, projection: [[[N]], [[C]], [[P]], [[Q]]], read_write: true}
  instance: {N: 1, C: 32, P: 14, Q: 28, R: 3, S: 3, H: 28, W: 28, Hpad: 1, Wpad: 1}
"""

ZIGZAG = """\
- id: 0
  name: conv
  operator_type: Conv
  equation: O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]
  dimension_relations: [ix=2*ox+1*fx, iy=1*oy+3*fy]
  loop_dims: [B, K, C, OY, OX, FY, FX]
  loop_sizes: [2, 32, 4, 16, 8, 5, 3]
  operand_precision: {W: 8, I: 8, O: 16, O_final: 8}
  operand_source: {I: 0, W: 0}
- id: 1
  operator_type: Pooling
  equation: O[b][g][oy][ox]+=W[fx][fy]*I[b][g][iy][ix]
  dimension_relations: [ix=2*ox+1*fx, iy=2*oy+1*fy]
  loop_dims: [B, G, OY, OX, FX, FY]
  loop_sizes: [2, 32, 8, 4, 3, 3]
  operand_source: {I: 0, W: 1}
- id: 2
  name: depthwise
  operator_type: Conv
  equation: O[b][g][oy][ox]+=W[g][fy][fx]*I[b][g][iy][ix]
  dimension_relations: [ix=1*ox+1*fx, iy=1*oy+1*fy]
  loop_dims: [B, G, OY, OX, FY, FX]
  loop_sizes: [2, 32, 8, 4, 3, 3]
  pr_loop_dims: [IX, IY]
  pr_loop_sizes: [4, 8]
  padding: [[1, 1], [1, 1]]
  operand_source: {I: 1, W: 2}
- id: 3
  name: product
  operator_type: Gemm
  equation: O[b][k]+=I[b][c]*W[c][k]
  dimension_relations: []
  loop_dims: [B, C, K]
  loop_sizes: [512, 64, 16]
  operand_source: {I: 2, W: 0}
"""


def write(folder, text, name="problem.yaml"):
    (folder / name).write_text(text)
    return folder / name


def sizes(layer, names):
    return [float(getattr(layer, name)) for name in names.split()]


def same(a, b):
    for name in LAYER_FIELDS:
        assert float(getattr(a, name)) == float(getattr(b, name)), name


def test_the_old_form_swaps_rows_and_columns(tmp_path):
    layer = w.read_timeloop_problem(write(tmp_path, OLD))
    assert sizes(layer, "n g k c p q r s") == [2, 1, 32, 4, 8, 16, 5, 3]
    assert sizes(layer, "stride_h stride_w dilation_h dilation_w") == [2, 1, 3, 1]
    assert sizes(layer, "h w") == [7 * 2 + 4 * 3 + 1, 15 + 2 + 1]


def test_matrix_product(tmp_path):
    same(w.read_timeloop_problem(write(tmp_path, GEMM)), w.Layer.gemm(64, 16, 32))
    named = GEMM.split("  shape:")[0] + "  shape: gemm-ABZ\n  instance: {M: 64, N: 32, K: 16}\n"
    same(w.read_timeloop_problem(write(tmp_path, named)), w.Layer.gemm(64, 16, 32))


def test_depthwise_is_found_from_the_projections(tmp_path):
    layer = w.read_timeloop_problem(write(tmp_path, DEPTHWISE))
    assert sizes(layer, "n g k c p q r s h w") == [1, 32, 1, 1, 28, 14, 3, 3, 28, 28]
    assert sizes(layer, "stride_h stride_w pad_top pad_left") == [1, 2, 1, 1]


@pytest.mark.parametrize(
    "layer",
    [
        dict(n=2, k=8, c=3, p=5, q=7, r=3, s=2, stride_h=2, dilation_w=3),
        dict(g=16, h=14, w=12, r=3, s=5, pad_top=1, pad_left=2),
        dict(k=8, c=4, p=9, q=1),
    ],
)
def test_problem_round_trip(layer, tmp_path):
    layer = w.Layer.create(**layer)
    w.write_timeloop_problem(layer, tmp_path / "out.yaml")
    same(w.read_timeloop_problem(tmp_path / "out.yaml"), layer)


def test_matrix_product_round_trip(tmp_path):
    layer = w.Layer.gemm(8, 16, 32)
    w.write_timeloop_problem(layer, tmp_path / "out.yaml", shape="gemm_ABZ")
    same(w.read_timeloop_problem(tmp_path / "out.yaml"), layer)
    with pytest.raises(ValueError, match="gemm_ABZ has no place for r = 3"):
        w.write_timeloop_problem(w.Layer.create(p=4, r=3, q=1), tmp_path / "out.yaml", shape="gemm_ABZ")
    with pytest.raises(ValueError, match="shape must be"):
        w.write_timeloop_problem(layer, tmp_path / "out.yaml", shape="gemm")
    with pytest.raises(ValueError, match="whole number"):
        w.write_timeloop_problem(w.Layer.gemm(8.5, 16, 32), tmp_path / "out.yaml")


def test_load_takes_problems_and_workloads(tmp_path):
    net = w.load(write(tmp_path, OLD))
    assert net.size == 1 and net.names == ("problem",)
    same(net.rows()[0], w.read_timeloop_problem(tmp_path / "problem.yaml"))
    assert w.load(write(tmp_path, ZIGZAG, "net.yml")).size == 3
    with pytest.raises(ValueError, match="batch must be 1"):
        w.load(tmp_path / "net.yml", batch=2)
    with pytest.raises(ValueError, match="is a Timeloop mapping"):
        w.load(write(tmp_path, "mapping: []\n"))


@pytest.mark.parametrize(
    "text, old, new, needle",
    [
        (OLD, "shape: cnn-layer", "shape: cnn_layers", "did you mean 'cnn_layer'"),
        (OLD, "  R: 3\n", "", "the loop 'R' has no size"),
        (OLD, "  R: 3\n", "  R: 0\n", "whole number >= 1"),
        (OLD, "  R: 3\n", "  R: 3\n  R: 4\n", "stands twice"),
        (OLD, "Wstride", "Wstrid", "did you mean 'Wstride'"),
        (OLD, "problem:", "problems:", "did you mean 'problem'"),
        (OLD, "problem:", "sparse_optimizations: {}\nproblem:", "sparse_optimizations"),
        (GEMM, "{M: 64,", "{densities: {A: 0.5}, M: 64,", "densities"),
        (GEMM, "[[N]], [[K]]", "[[N]], [[L]]", "unknown loop 'L'"),
        (GEMM, ", read-write: True", "", "two inputs and one output"),
        (GEMM, "[M, N, K]", "[M, N, K, J]", "'J' indexes no tensor"),
        (GEMM, "[M, N, K]", "[M, M, K]", "names a loop twice"),
        (
            GEMM,
            "name: B, projection: [[[N]]",
            "name: B, projection: [[[N], [M]]",
            "stride x output loop",
        ),
        (DEPTHWISE, "[[R], [P, Wstride]]", "[[R], [P, Wstrid]]", "did you mean 'Wstride'"),
        (DEPTHWISE, "[[R], [P, Wstride]]", "[[R], [P], [Q]]", "stride x output loop"),
        (DEPTHWISE, "[[N]], [[C]], [[P]], [[Q]]]", "[[N]], [[C]], [[P]]]", "stride x output loop"),
    ],
)
def test_problem_refused(text, old, new, needle, tmp_path):
    assert old in text
    with pytest.raises(ValueError, match=needle) as caught:
        w.read_timeloop_problem(write(tmp_path, text.replace(old, new, 1)))
    assert "problem.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_zigzag_workload(tmp_path):
    net = w.read_zigzag_workload(write(tmp_path, ZIGZAG))
    conv, depthwise, product = net.rows()
    assert net.names == ("conv", "depthwise", "product")
    assert sizes(conv, "n g k c p q r s") == [2, 1, 32, 4, 16, 8, 5, 3]
    assert sizes(conv, "stride_h stride_w dilation_h dilation_w") == [1, 2, 3, 1]
    assert sizes(depthwise, "n g k c p q r s h w pad_top pad_left") == [2, 32, 1, 1, 8, 4, 3, 3, 8, 4, 1, 1]
    assert sizes(product, "n k c p q weight_is_activation") == [512, 16, 64, 1, 1, 1]
    assert net.info.edges == ((0, 1), (1, 2), (0, 2))
    assert [(one.kind, one.elements) for one in net.info.operators] == [("Pooling", 2 * 32 * 8 * 4)]
    assert "W 8, I 8, O 16, O_final 8" in net.info.notes[0]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_zigzag_round_trip(name, tmp_path):
    net = w.load(name)
    w.write_zigzag_workload(net, tmp_path / "net.yaml")
    back = w.load(tmp_path / "net.yaml")
    assert back.names == net.names
    for field in LAYER_FIELDS:
        a, b = (np.asarray(getattr(one.layers, field)) for one in (net, back))
        assert np.array_equal(a, b), field
    w.write_zigzag_workload(net.rows()[0], tmp_path / "one.yaml")
    same(w.load(tmp_path / "one.yaml").rows()[0], net.rows()[0])


@pytest.mark.parametrize(
    "old, new, needle",
    [
        ("equation: O[b][k][oy]", "equasion: O[b][k][oy]", "did you mean 'equation'"),
        ("O[b][k][oy][ox]+=", "O[b][k][oy][ox]", "must read like"),
        ("W[k][c][fy][fx]", "X[k][c][fy][fx]", "must name O, W and I"),
        ("ix=2*ox+1*fx", "ix=2*ox", "must read like ix"),
        ("ix=2*ox+1*fx", "iz=2*ox+1*fx", "IZ is no index of I"),
        ("loop_sizes: [2, 32, 4, 16, 8, 5, 3]", "loop_sizes: [2, 32, 4]", "3 sizes for 7 loops"),
        ("loop_sizes: [2, 32, 4, 16, 8, 5, 3]", "loop_sizes: [2, 0, 4, 16, 8, 5, 3]", "whole number >= 1"),
        (
            "loop_dims: [B, K, C, OY, OX, FY, FX]",
            "loop_dims: [B, K, C, OY, OX, FY, FY]",
            "names a loop twice",
        ),
        (
            "loop_dims: [B, K, C, OY, OX, FY, FX]",
            "loop_dims: [B, K, C, OY, OX, FY, FZ]",
            "FX is an index but no loop",
        ),
        ("id: 1", "id: 0", "two layers have the id 0"),
    ],
)
def test_zigzag_refused(old, new, needle, tmp_path):
    assert old in ZIGZAG
    with pytest.raises(ValueError, match=needle) as caught:
        w.read_zigzag_workload(write(tmp_path, ZIGZAG.replace(old, new, 1)))
    assert "problem.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_zigzag_without_macs(tmp_path):
    with pytest.raises(ValueError, match="no layer with MACs"):
        w.read_zigzag_workload(write(tmp_path, ZIGZAG[ZIGZAG.index("- id: 1") : ZIGZAG.index("- id: 2")]))
