"""The walk PE by PE that the dataflow model is held to: cases worked by hand, and what must hold of any."""

import itertools
import math
import random

import pytest
from dataflow_oracle import DIMS, count, random_case, wide_case


def level(order="", spatial="", units=1, **tile):
    """A level whose loops in ``order`` come last (innermost at the end); what has no tile is whole."""
    rest = [d for d in DIMS if d not in order]
    return dict(
        tile={d: tile.get(d, 99) for d in DIMS},
        rank={d: i for i, d in enumerate([*rest, *order])},
        spatial={d: d in spatial for d in DIMS},
        units=units,
    )


def case(*levels, pes=1, stride=1, depthwise=False, **extents):
    sizes = dict.fromkeys(DIMS, 1) | extents
    return sizes, (stride, stride), (1, 1), depthwise, list(levels), pes


def expect(one, **expected):
    got = count(*one)
    assert {name: got[name] for name in expected} == expected


def test_weights_stay_while_a_row_slides():
    # 2 filters of 3 taps over 6 pixels, one PE, filters outside. Each filter is loaded once (2 x 3). Per
    # filter the window is loaded whole (3), then one new pixel for each of the 3 further outputs: 2 x 6.
    expect(
        case(level("kq", k=1, q=1), k=2, q=4, s=3),
        **dict(fills_input=12, reads_input=12, fills_weight=6, reads_weight=6),
        **dict(out_moves=8, out_returns=0, drains=8, psum_updates=8, macs=24, steps=8, compute=24),
    )


def test_a_sliding_window_needs_one_new_column():
    # 3 x 3 over 3 x 6 pixels: 9, then 3 times a column of 3.
    one = case(level("q", q=1), q=4, r=3, s=3)
    expect(one, fills_input=18, reads_input=18, reads_weight=9, out_moves=4, macs=36, compute=36)
    trace: list = []
    count(*one, trace=trace)
    assert [step["advanced"] for step in trace] == [None, (0, "q"), (0, "q"), (0, "q")]
    assert [step["needs"][0, 0, 0]["input"] for step in trace] == [9, 3, 3, 3]
    assert [step["intervals"][0, 0, 0]["q"] for step in trace] == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_stride_leaves_fewer_or_no_halo_columns():
    # Stride 2: one column of three is kept. Stride 3: none. Both: 9 first.
    expect(case(level("q", q=1), q=4, r=3, s=3, stride=2), fills_input=9 + 3 * 6)
    expect(case(level("q", q=1), q=4, r=3, s=3, stride=3), fills_input=4 * 9)


def test_a_jump_of_a_fold_loads_the_window_whole():
    # Outputs 0, 1 then 2, 3 on two PEs: each loads 9 in both folds; the two windows of a fold are 3 x 4.
    expect(
        case(level("q", spatial="q", q=1), pes=2, q=4, r=3, s=3),
        **dict(fills_input=36, reads_input=24, fills_weight=18, reads_weight=9),
        **dict(out_moves=4, drains=4, macs=36, steps=2, compute=18),
    )


def test_channels_outside_bring_partial_sums_back():
    # 3 channels x 2 outputs, 1 x 1. Channels outside: each output is visited 3 times, and comes back twice.
    outside = case(level("cq", c=1, q=1), c=3, q=2)
    expect(outside, out_moves=6, out_returns=4, drains=6, reads_weight=3, reads_input=6, psum_updates=6)
    inside = case(level("qc", c=1, q=1), c=3, q=2)
    expect(inside, out_moves=2, out_returns=0, drains=2, reads_weight=6, reads_input=6, psum_updates=6)


def test_channels_on_units_are_summed_on_the_way():
    # 2 channels on 2 PEs: each PE gives up its own partial sum (4), one sum per output arrives (2).
    expect(
        case(level("qc", spatial="c", c=1, q=1), pes=2, c=2, q=2),
        **dict(drains=4, out_moves=2, out_returns=0, psum_updates=4, macs=4, steps=2, compute=2),
        **dict(fills_weight=2, reads_weight=2, fills_input=4, reads_input=4),
    )


def test_depthwise_channels_have_outputs_of_their_own():
    # As above, but nothing is summed over channels.
    one = case(level("qc", spatial="c", c=1, q=1), pes=2, c=2, q=2, depthwise=True)
    expect(one, drains=4, out_moves=4, out_returns=0)


def test_a_ragged_fold_leaves_units_idle():
    # 5 filters on 2 PEs, 2 channels each: 3 folds, the last with one idle. The 2 inputs are sent once,
    # to both, and stay.
    expect(
        case(level("k", spatial="k", k=1), pes=2, k=5, c=2),
        **dict(steps=3, macs=10, compute=6, fills_weight=10, reads_weight=10),
        **dict(fills_input=4, reads_input=2, out_moves=5, drains=5, psum_updates=5),
    )
    # 5 outputs in pieces of 2, 2, 1: the last fold is one output long.
    expect(
        case(level("q", spatial="q", q=2), pes=2, q=5),
        **dict(steps=2, macs=5, compute=3, fills_input=5, reads_input=5, fills_weight=2, reads_weight=1),
    )


def test_an_idle_unit_asks_for_nothing():
    # 3 outputs on 2 PEs, 2 filters. In the last fold only the first PE loads the two filters again.
    one = case(level("qk", spatial="q", q=1, k=1), pes=2, q=3, k=2)
    expect(one, fills_weight=4 + 2, reads_weight=2 + 2, fills_input=3, reads_input=3, out_moves=6)
    # Filters outside: both PEs keep theirs over the ragged fold.
    expect(case(level("kq", spatial="q", q=1, k=1), pes=2, q=3, k=2), fills_weight=4, reads_weight=2)


def test_a_filter_cut_in_time():
    # 4 taps as 3 + 1 outside, 2 outputs inside. Taps 0..2: pixels 0 1 2, then 3. Tap 3: pixel 3 (loaded
    # whole, the filter moved), then 4. Both outputs are visited twice.
    one = case(level("sq", s=3, q=1), q=2, s=4)
    expect(one, fills_input=6, reads_input=6, reads_weight=4, out_moves=4, out_returns=2, macs=8, compute=8)
    # Both outputs in one tile, taps 2 + 2: pixels 0 1 2, then 2 3 4, although 2 was there.
    expect(case(level("s", s=2), q=2, s=4), fills_input=6, out_moves=2, out_returns=0, drains=2, macs=8)


def test_two_levels_slide_over_the_border_of_a_tile():
    # 4 outputs as 2 x 2 in time: the step from output 1 to 2 advances the outer loop and restarts the
    # inner one, yet the tiles are neighbours, so the halo stays: 3 + 1 + 1 + 1.
    expect(case(level("q", q=2), level("q", q=1), q=4, s=3), fills_input=6, steps=4)
    # With rows outside in the outer level, one more restart: per row 3 rows x (3 + 3).
    expect(case(level("pq", p=1, q=2), level("q", q=1), p=2, q=4, r=3, s=3), fills_input=2 * 3 * 6, steps=8)


def touched(extents, strides, dilations, depthwise):
    """Distinct elements that the MACs of a layer use: inputs, weights, outputs."""
    inputs, weights, outputs = set(), set(), set()
    for n, k, c, p, q, r, s in itertools.product(*[range(extents[d]) for d in DIMS]):
        inputs.add((n, c, strides[0] * p + dilations[0] * r, strides[1] * q + dilations[1] * s))
        weights.add((k, c, r, s))
        outputs.add((n, k, p, q, c if depthwise else 0))
    return len(inputs), len(weights), len(outputs)


@pytest.mark.parametrize("make", [random_case, wide_case])
def test_what_holds_of_any_case(make):
    rng = random.Random(3)
    for _ in range(60):
        one = make(rng)
        got = count(*one)
        inputs, weights, outputs = touched(*one[:4])
        assert got["macs"] == math.prod(one[0].values()), one
        assert got["fills_input"] >= got["reads_input"] >= inputs, one
        assert got["fills_weight"] >= got["reads_weight"] >= weights, one
        assert got["drains"] >= got["out_moves"] >= outputs, one
        assert got["out_returns"] == got["out_moves"] - outputs, one
        assert got["macs"] >= got["psum_updates"] >= got["drains"], one
        assert got["macs"] >= got["compute"] >= got["macs"] / one[5], one
        assert got["steps"] <= got["compute"], one
        assert got["steps"] < 3000, one


@pytest.mark.parametrize("depthwise", [False, True])
def test_one_tile_moves_everything_once(depthwise):
    sizes = dict(n=2, k=2, c=3, p=2, q=3, r=3, s=2)
    one = case(level(), depthwise=depthwise, **sizes)
    inputs, weights, outputs = touched(*one[:4])
    expect(
        one,
        **dict(fills_input=inputs, reads_input=inputs, fills_weight=weights, reads_weight=weights),
        **dict(out_moves=outputs, drains=outputs, psum_updates=outputs, out_returns=0, steps=1),
        compute=math.prod(sizes.values()),
    )
