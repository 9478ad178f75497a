"""Programs fitted to layers, the well-known styles, and dataflows printed as programs."""

import numpy as np
import pytest

from diffhw import workloads
from diffhw.mappings import (
    DIMS,
    STYLES,
    Program,
    Sz,
    cluster,
    fit,
    parse,
    read_programs,
    spatial,
    style,
    temporal,
    to_program,
)
from diffhw.workloads import Layer

CONV = Layer.create(k=64, c=48, r=3, s=5, p=14, q=10)
STRIDED = Layer.create(k=96, c=3, r=11, s=11, h=227, w=227, stride_h=4, stride_w=4)
DEPTHWISE = Layer.create(g=96, r=3, s=3, p=14, q=14)
GEMM = Layer.gemm(128, 512, 96)
LAYERS = {"conv": CONV, "strided": STRIDED, "depthwise": DEPTHWISE, "gemm": GEMM}
WINDOW = "TemporalMap(Sz(R),Sz(R)) R; TemporalMap(Sz(S),Sz(S)) S; "


def extents(layer):
    sizes = {dim: float(getattr(layer, dim)) for dim in DIMS}
    return sizes | ({"c": float(layer.g)} if float(layer.c) == 1 and float(layer.g) > 1 else {})


def clipped(dataflow, layer):
    """What counts: units, and per level the cut or spread loops in order with their clipped tiles."""
    held, shown = extents(layer), []
    for level in dataflow.levels:
        ranks = [float(level.rank[dim]) for dim in DIMS]
        assert len(set(ranks)) == len(DIMS)
        loops = []
        for dim in sorted(DIMS, key=lambda d: float(level.rank[d])):
            tile = min(float(level.tile[dim]), held[dim])
            if tile < held[dim]:
                loops.append((dim, tile, float(level.offset[dim]), float(level.spatial[dim])))
            held[dim] = tile
        shown.append((float(level.units), loops))
    return shown


def one(text, layer=CONV, pes=None):
    return fit(parse(text), layer, pes)


def test_every_leaf_of_a_worked_case():
    flow = one(
        "SpatialMap(1,1) K; TemporalMap(16,16) C; " + WINDOW + "TemporalMap(Sz(R),1) Y; TemporalMap(9,5) X;"
        "Cluster(8, P); SpatialMap(1,1) C; TemporalMap(Sz(S),1) X;"
    )
    top, inner, last = flow.levels
    assert {d: float(v) for d, v in top.tile.items()} == dict(n=1e9, k=1, c=16, p=1, q=5, r=3, s=5)
    assert {d: float(v) for d, v in top.offset.items()} == dict(n=1e9, k=1, c=16, p=1, q=5, r=3, s=5)
    assert {d: float(v) for d, v in top.rank.items()} == dict(k=0, c=1, r=2, s=3, p=4, q=5, n=6)
    assert [d for d in DIMS if float(top.spatial[d])] == ["k"] and float(top.units) == 0
    # no S here: the five columns of the window are those handed down
    assert {d: float(v) for d, v in inner.tile.items() if v < 1e9} == dict(c=1, q=1)
    assert {d: float(v) for d, v in inner.rank.items()} == dict(c=0, q=1, n=2, k=3, p=4, r=5, s=6)
    assert float(inner.units) == 8 and float(last.units) == 1
    assert all(float(v) == 1e9 for v in last.tile.values()) and not any(map(float, last.spatial.values()))
    assert top.tile["k"].shape == () and top.tile["k"].dtype == CONV.k.dtype


def test_rows_and_columns_are_outputs():
    # whole input, as sizes of the file or of the layer; strides do not matter
    for text in ("TemporalMap(Sz(Y),Sz(Y)) Y; ", "TemporalMap(999,1) Y; "):
        assert float(one("SpatialMap(1,1) K; " + text, STRIDED).levels[0].tile["p"]) >= 55
    flow = one("SpatialMap(1,1) K; TemporalMap(Sz(Y'),Sz(Y')) Y'; TemporalMap(14,4) X; " + WINDOW, STRIDED)
    assert float(flow.levels[0].tile["p"]) == 55
    assert (float(flow.levels[0].tile["q"]), float(flow.levels[0].offset["q"])) == (4, 4)
    # a part of the filter on the units narrows the window of the same level
    flow = one("SpatialMap(1,1) R; TemporalMap(4,4) Y")
    assert (float(flow.levels[0].tile["p"]), float(flow.levels[0].tile["r"])) == (4, 1)


@pytest.mark.parametrize("rows", ["SpatialMap(1,1) Y", "SpatialMap(1,1) Y'"])
def test_a_diagonal_puts_filter_rows_on_units(rows):
    text = f"SpatialMap(1,1) Y'; {WINDOW} Cluster(Sz(R), P); TemporalMap(1,1) C; {rows}; SpatialMap(1,1) R;"
    inner = one(text).levels[1]
    assert [d for d in DIMS if float(inner.spatial[d])] == ["r"]
    assert (float(inner.tile["r"]), float(inner.tile["p"]), float(inner.units)) == (1, 1e9, 3)
    assert float(inner.rank["p"]) == 1


def test_columns_and_larger_diagonals():
    inner = one("SpatialMap(1,1) K; Cluster(5,P); SpatialMap(4,1) X; SpatialMap(1,1) S").levels[1]
    assert [d for d in DIMS if float(inner.spatial[d])] == ["s"]
    assert (float(inner.tile["q"]), float(inner.offset["q"])) == (4, 4)


def test_matrix_products_in_their_own_dimensions():
    flow = one("TemporalMap(4,4) M; SpatialMap(1,1) N; TemporalMap(Sz(K),Sz(K)) K", GEMM)
    assert {d: float(v) for d, v in flow.levels[0].tile.items() if v < 1e9} == dict(p=4, k=1, c=512)
    assert float(flow.levels[0].spatial["k"]) == 1


@pytest.mark.parametrize(
    ("text", "layer", "message"),
    [
        ("SpatialMap(1,1) M", CONV, "M N K are for matrix products, this layer has 3 x 5 filters"),
        ("SpatialMap(Sz(C),1) M", GEMM, "Sz\\(C\\) is not a size of this layer, which has M, K, N"),
        ("SpatialMap(Sz(M),1) K", CONV, "Sz\\(M\\) is not a size of this layer"),
        ("SpatialMap(2,1) Y", CONV, "2 rows or columns are fewer than the 3 of the filter in this tile"),
        ("SpatialMap(1,1) K; Cluster(2,P); SpatialMap(2,1) Y", CONV, "level 2, SpatialMap\\(2,1\\) Y"),
        ("SpatialMap(1,1) K; SpatialMap(1,1) C", CONV, "are no diagonal; two SpatialMaps may be Y with R"),
        ("SpatialMap(1,1) Y; SpatialMap(1,1) S", CONV, "are no diagonal; two"),
        ("SpatialMap(2,2) Y; SpatialMap(1,1) R", CONV, "are no diagonal, which needs equal offsets"),
        ("SpatialMap(1,1) K; Cluster(20,P); SpatialMap(1,1) C", CONV, "20 PEs do not fit in 16 PEs"),
        ("SpatialMap(1,1) K; Cluster(Sz(C),P); SpatialMap(1,1) C", CONV, "48 PEs do not fit in 16 PEs"),
    ],
)
def test_one_sentence_for_what_does_not_fit(text, layer, message):
    with pytest.raises(ValueError, match=message):
        one(text, layer, pes=16)


def test_what_is_no_layer():
    net = workloads.load("alexnet")
    program = parse("SpatialMap(1,1) K")
    with pytest.raises(ValueError, match="give the Network instead"):
        fit(program, net.layers)
    with pytest.raises(ValueError, match="one layer takes one Program, got list"):
        fit([program], CONV)
    with pytest.raises(ValueError, match="one program per row: got 2 for"):
        fit([program] * 2, net)
    with pytest.raises(ValueError, match="no program for layer"):
        fit({"x": program}, net)
    with pytest.raises(ValueError, match=r"program 'p' on layer '[a-z0-9_.]+', level 1, SpatialMap"):
        fit(parse("SpatialMap(1,1) Y; TemporalMap(Sz(S),Sz(S)) S", name="p"), net)


def test_a_network_is_its_rows():
    net = workloads.load("alexnet")
    flow = fit(style("kcp_ws", net, 256), net, 256)
    rows = net.rows()
    for i, layer in enumerate(rows):
        alone = fit(style("kcp_ws", layer, 256), layer, 256)
        for level, same in zip(alone.levels, flow.levels):
            for name in ("tile", "offset", "rank", "spatial"):
                for dim in DIMS:
                    assert float(getattr(level, name)[dim]) == float(getattr(same, name)[dim][i])
            assert float(level.units) == float(same.units[i])
    pad = net.size
    assert flow.levels[0].tile["k"].shape == net.mask.shape
    assert all((np.asarray(flow.levels[0].tile[dim])[pad:] == 1e9).all() for dim in DIMS)
    assert all((np.asarray(flow.levels[1].spatial[dim])[pad:] == 0).all() for dim in DIMS)
    by_name = dict(zip(net.names, style("kcp_ws", net, 256)))
    again = fit(by_name, net).levels[1].units
    assert (np.asarray(again) == np.asarray(flow.levels[1].units)).all()


@pytest.mark.parametrize("pes", [256, 168, 121])
@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("kind", LAYERS)
def test_styles_fit_and_print(name, kind, pes):
    layer = LAYERS[kind]
    if name.startswith("gemm") and kind != "gemm":
        with pytest.raises(ValueError, match="filters larger than 1 x 1"):
            style(name, layer, pes)
        return
    program = style(name, layer, pes)
    assert parse(str(program), name=name) == program
    flow = fit(program, layer, pes)
    for level in flow.levels:
        assert sum(float(level.spatial[dim]) for dim in DIMS) <= 1
        for dim in DIMS:  # each computes every MAC once
            assert float(level.tile[dim]) == float(level.offset[dim])
    printed = to_program(flow, layer, "again")
    assert parse(str(printed), name="again") == printed
    assert clipped(fit(printed, layer, pes), layer) == clipped(flow, layer)


def test_clusters_of_styles_fit():
    assert style("kcp_ws", CONV, 256).levels[1].units == 48  # no more than channels
    assert style("kcp_ws", CONV, 16).levels[1].units == 16  # nor than PEs
    assert style("kcp_ws", GEMM, 256).levels[1].units == 64
    assert style("kcp_ws", DEPTHWISE, 256).levels[1].units == 64
    assert style("yxp_os", CONV, 256).levels[1].units == 8
    assert str(style("yrp_rs", CONV, 256)).count("Cluster(Sz(R), P)") == 1
    with pytest.raises(ValueError, match=r"'yrp_rs' puts the 11 filter rows of this layer on PEs, .* are 8"):
        style("yrp_rs", STRIDED, 8)
    with pytest.raises(ValueError, match="'maeri_3l' puts the 121 filter taps"):
        style("maeri_3l", STRIDED, 120)
    with pytest.raises(ValueError, match="unknown style 'kcp'; did you mean kcp_ws\\? Known: "):
        style("kcp", CONV, 8)
    with pytest.raises(ValueError, match="pes must be >= 1"):
        style("kcp_ws", CONV, 0)
    assert all(text and not text.endswith(".") for text in STYLES.values())


def test_what_directives_cannot_say():
    def of(**changes):
        top = one("SpatialMap(1,1) K; TemporalMap(8,8) C").levels[0]
        leaves = {name: getattr(top, name) | value for name, value in changes.items()}
        flow = one("SpatialMap(1,1) K; TemporalMap(8,8) C")
        return flow.replace(levels=(top.replace(**leaves), *flow.levels[1:]))

    with pytest.raises(ValueError, match="level 1: k and c are spatial, directives spread one loop a level"):
        to_program(of(spatial={"c": CONV.n}), CONV)
    with pytest.raises(ValueError, match=r"tile of c must be a whole number, got 2.5; harden"):
        to_program(of(tile={"c": CONV.n * 2.5}), CONV)
    # no spatial loop: a whole dimension stands in
    printed = to_program(of(spatial={"k": CONV.n * 0}), CONV)
    assert str(printed) == "TemporalMap(1,1) K;\nTemporalMap(8,8) C;\nSpatialMap(Sz(R),Sz(R)) R;"
    assert clipped(fit(printed, CONV), CONV)[0][1] == [("k", 1, 1, 0), ("c", 8, 8, 0)]
    cut = {dim: CONV.n for dim in ("k", "c", "r", "s", "n")}
    big = Layer.create(n=2, k=2, c=2, r=2, s=2, p=2, q=2)
    with pytest.raises(ValueError, match="no spatial loop and every loop cut in time"):
        to_program(of(tile=cut, spatial={"k": CONV.n * 0}), big)


def test_partial_windows_and_idle_units_print():
    text = "TemporalMap(2,2) R; SpatialMap(2,2) Y'; Cluster(4, P); SpatialMap(Sz(K),Sz(K)) K"
    flow = one(text)
    printed = to_program(flow, CONV)
    assert clipped(fit(printed, CONV), CONV) == clipped(flow, CONV)
    assert printed.levels[1].units == 4  # kept: it takes PEs


def test_file_to_dataflow(tmp_path):
    path = tmp_path / "two.m"
    layer = "Layer %s { Type: %s Stride { X: 1, Y: 1 } Dimensions { %s } Dataflow { %s } }\n"
    path.write_text(
        "Network two {\n"
        + layer % ("a", "CONV", "K: 8, C: 4, R: 3, S: 3, Y: 10, X: 12", "SpatialMap(1,1) K; " + WINDOW)
        + layer % ("b", "GEMM", "M: 5, N: 6, K: 7", "SpatialMap(1,1) N; Cluster(2,P); SpatialMap(1,1) K;")
        + "}"
    )
    net = workloads.load(path)
    flow = fit(read_programs(path), net, pes=4)
    assert np.asarray(flow.levels[0].spatial["k"])[:3].tolist() == [1, 1, 0]
    assert np.asarray(flow.levels[1].spatial["c"])[:3].tolist() == [0, 1, 0]
    assert np.asarray(flow.levels[1].units)[:3].tolist() == [1, 2, 1]


def test_made_in_python():
    made = Program.create(spatial(1, 1, "K"), temporal(Sz("C"), Sz("C"), "C"), cluster(4), spatial(1, 1, "C"))
    assert float(fit(made, CONV).levels[0].tile["c"]) == 48
