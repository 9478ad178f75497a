"""Reuse, loops and pictures of a dataflow, against numbers worked out on paper and a plain walk."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from diffhw import hardware, report
from diffhw.mappings import Program, cluster, fit, spatial, style, temporal
from diffhw.report._dataflow import _double, _requirements, host_nest
from diffhw.report._dataflow_picture import _held, _tiles, first_steps
from diffhw.workloads import Layer


@pytest.fixture(scope="module")
def hw():
    """16 x 16 PEs without a level beside them."""
    return hardware.load("edge")


def requirements(layer, hw, flow):
    """`models.dataflow_requirements` as the table has it: in float64, the program of the table's test."""
    hw = replace(hw, levels=tuple(replace(level, name="") for level in hw.levels))
    with jax.enable_x64(True):
        return _requirements(*_double((layer, hw, flow)), None)


@pytest.fixture(scope="module")
def gemm():
    """8 rows x 64 inner x 32 columns; columns over 4 clusters, inner elements over 64 PEs."""
    layer = Layer.gemm(8, 64, 32)
    program = Program.create(
        spatial(1, 1, "N"), temporal(64, 64, "K"), temporal(1, 1, "M"), cluster(64), spatial(1, 1, "K")
    )
    return layer, fit(program, layer)


def test_requirements_of_a_matrix_product_by_hand(gemm, hw):
    """Weights stay in 256 PEs for 8 rows: 8 folds of 4 columns, 8 rows each, 64 steps."""
    layer, flow = gemm
    need = requirements(layer, hw, flow)
    f = lambda part: {name: float(value) for name, value in part.items()}
    assert float(need.macs) == 8 * 64 * 32 and float(need.steps) == 64
    assert f(need.unique) == {"input": 8 * 64, "weight": 64 * 32, "output": 8 * 32}
    assert f(need.l2_reads) == {"input": 64 * 64, "weight": 64 * 32, "output": 0}
    assert f(need.l2_writes) == {"input": 0, "weight": 0, "output": 8 * 32}
    assert f(need.l1_fills) == {"input": 64 * 256, "weight": 64 * 32, "output": 0}
    assert f(need.l1_drains) == {"input": 0, "weight": 0, "output": 8 * 32 * 64}
    assert f(need.tile) == {"input": 1, "weight": 1, "output": 1}
    assert f(need.l1_bytes) == {"input": 2, "weight": 2, "output": 8}
    # A new fold brings 256 weights and 64 inputs and takes 4 outputs away; a new row 64 inputs, 4 outputs.
    out = float(hw.input_bits) / 8
    assert float(need.noc_peak) == pytest.approx(256 + 64 + 4 * out)
    first = 64 * (56 + 7) + 256 * 7
    assert float(need.noc_average) == pytest.approx((first + 4 * 63 * out) / 64)


def test_the_table_has_these_numbers(gemm, hw):
    layer, flow = gemm
    text = report.reuse_table(layer, hw, flow).text(120)
    for part in ("16.38 k MACs in 64.00 steps", "4.096 k", "4.000", "64.00", "no such level", "/cycle"):
        assert part in text, text
    assert "TOO SMALL" not in text
    small = hardware.load("eyeriss")
    wide = fit(style("cp_dw", conv(), 168), conv())
    assert "448.0 B there, TOO SMALL" in str(report.reuse_table(conv(), small, wide))


def conv(**more):
    return Layer.create(**(dict(k=128, c=16, r=3, s=3, p=12, q=12) | more))


def test_the_loops_as_text(hw):
    layer = conv()
    text = report.loop_nest(layer, hw, fit(style("kcp_ws", layer, 256), layer))
    assert text.splitlines() == [
        "layer: k 128, c 16, p 12, q 12, r 3, s 3",
        "-- level 1: 16 clusters",
        "for k in 0..127 step 16 (spatial over 16 clusters, 1 each)",
        "  for p in 0..11 step 1",
        "    for q in 0..11 step 1",
        "      -- level 2: 16 PEs",
        "      all c in 0..15 at once: spatial over 16 PEs, 1 each",
        "      a PE: r 3, s 3: 9 MACs",
    ]


def test_loops_fit_80_columns_and_name_idle_units(hw):
    layer = Layer.create(n=2, g=2, k=999, c=999, r=3, s=3, p=999, q=999)
    one = ("K", "C", "Y'", "X'")
    program = Program.create(
        *(temporal(90, 90, dim) for dim in one), spatial(3, 3, "R"), temporal(3, 3, "S"), cluster(16),
        *(temporal(9, 9, dim) for dim in one), spatial(1, 1, "R"), temporal(3, 3, "S"), cluster(4),
        *(temporal(1, 1, dim) for dim in one[:3]), spatial(1, 1, "X'"), temporal(1, 1, "R"), temporal(3, 3, "S"),
    )  # fmt: skip
    text = report.loop_nest(layer, hw, fit(program, layer))
    assert max(map(len, text.splitlines())) <= 80
    assert "for group in 0..1" in text and "3 of 16 sub-clusters" in text
    assert "nothing is dealt out: 1 of 4 clusters works" in text


def walk(layer, flow, hw, steps):
    """Tiles of all PEs at each step."""
    nest = host_nest(layer, hw, flow)
    pes = [
        (a, b, c) for a in range(nest.units[0]) for b in range(nest.units[1]) for c in range(nest.units[2])
    ]
    strides = ((int(layer.stride_h), int(layer.stride_w)), (1, 1))
    return [
        [_tiles(nest, _held(nest, folds, pe), strides) for pe in pes] for folds, _ in first_steps(nest, steps)
    ]


@pytest.mark.parametrize("name", ["kcp_ws", "yxp_os", "yrp_rs", "maeri_3l", "cp_nlr"])
def test_the_drawn_walk_is_the_counted_one(name, hw):
    """All steps, PEs at work and outputs that leave, as the closed form counts them."""
    few = replace(hw, rows=hw.rows * 0 + 4, cols=hw.cols * 0 + 5)
    layer = Layer.create(k=5, c=6, r=3, s=3, p=5, q=4, stride_h=2)
    flow = fit(style(name, layer, 20), layer)
    need = requirements(layer, few, flow)
    steps = walk(layer, flow, few, 10**6)
    assert len(steps) == float(need.steps)
    drains, fills, size = 0, 0, lambda tile: int(np.prod([last - first + 1 for _, first, last in tile]))
    before = [None] * 20
    for step in steps:
        for pe, hold in enumerate(step):
            if hold is None:
                continue
            old = before[pe]
            drains += size(hold["output"]) if old is None or old["output"] != hold["output"] else 0
            fills += size(hold["weight"]) if old is None or old["weight"] != hold["weight"] else 0
        before = step
    assert drains == float(need.l1_drains["output"]) and fills == float(need.l1_fills["weight"])


def test_units_without_a_spatial_loop_idle(hw):
    layer = Layer.gemm(8, 64, 32)
    program = Program.create(spatial(8, 8, "M"), temporal(1, 1, "N"), cluster(8), spatial(8, 8, "K"))
    (first, *_) = walk(layer, fit(program, layer), hw, 1)
    assert [hold is not None for hold in first[:9]] == [True] * 8 + [False]


@pytest.mark.parametrize("name", ["kcp_ws", "yrp_rs", "xp_ws"])
def test_pictures_have_three_rows_and_a_column_per_step(name, hw, tmp_path):
    layer = conv()
    figure = report.dataflow_picture(layer, hw, fit(style(name, layer, 256), layer), steps=3, title=name)
    axes = figure.axes
    assert len(axes) == 9
    assert [ax.get_ylabel().split("\n")[0] for ax in axes[::3]] == ["input", "weight", "output"]
    assert axes[0].get_title() == "first step" and "advances" in axes[1].get_title()
    figure.savefig(tmp_path / "one.png", dpi=40)
    # Weights stay: nothing in the second step has a thick frame.
    frames = [
        {patch.get_linewidth() > 1 for patch in ax.patches if patch.get_linewidth()} for ax in axes[3:5]
    ]
    assert frames == [{True}, {False}]


def test_a_short_walk_and_wrong_arguments(hw):
    layer = Layer.gemm(1, 8, 8)
    flow = fit(style("gemm_np_os", layer, 256), layer)
    assert len(report.dataflow_picture(layer, hw, flow).axes) == 3
    with pytest.raises(ValueError, match="steps must be a whole number >= 1, got 0"):
        report.dataflow_picture(layer, hw, flow, steps=0)
    batch = jax.tree.map(lambda leaf: leaf[None], layer)
    for show in (report.reuse_table, report.loop_nest, report.dataflow_picture):
        with pytest.raises(ValueError, match=r"layer of shape \(1,\); take one row"):
            show(batch, hw, flow)
    half = jax.tree.map(lambda leaf: leaf * 1.0, flow)
    half.levels[0].tile["k"] = half.levels[0].tile["k"] * 0 + 1.5
    with pytest.raises(ValueError, match=r"tile of k, level 1, must be a whole number, got 1\.5"):
        report.loop_nest(layer, hw, half)
