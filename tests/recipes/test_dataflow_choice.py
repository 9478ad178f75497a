"""A style per layer: the least EDP of all choices, and never worse than one style for all."""

import itertools

import jax
import numpy as np
import pytest

from diffhw import hardware
from diffhw.mappings import STYLES, fit, style
from diffhw.recipes import best_styles, exact_dataflow_costs
from diffhw.recipes._dataflow_choice import choose_edp, dataflow_bounds
from diffhw.workloads import Layer, Network, NetworkInfo


def network(*layers):
    names = tuple(f"layer{i}" for i in range(len(layers)))
    return Network.create(list(layers), info=NetworkInfo(name="tiny", names=names))


@pytest.fixture(scope="module")
def hw():
    return hardware.load("edge")


@pytest.fixture(scope="module")
def tiny():
    """A convolution with many channels and a depthwise one: no style suits both."""
    return network(
        Layer.create(k=64, c=64, r=3, s=3, p=14, q=14),
        Layer.create(g=64, k=1, c=1, r=3, s=3, p=28, q=28),
    )


@pytest.fixture(scope="module")
def choice(tiny, hw):
    return best_styles(tiny, hw)


def test_the_least_product_of_sums_is_found():
    """All assignments of five choices to four layers, some not allowed, 60 instances."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        energy, latency = np.exp(rng.normal(size=(2, 5, 4)))
        banned = rng.random((5, 4)) < 0.3
        banned[0] = False
        energy, latency = np.where(banned, np.inf, energy), np.where(banned, np.inf, latency)
        rows = np.arange(4)
        value = lambda pick, e=energy, t=latency: e[pick, rows].sum() * t[pick, rows].sum()
        best = min(value(np.array(pick)) for pick in itertools.product(range(5), repeat=4))
        assert value(choose_edp(energy, latency)) == pytest.approx(best, rel=1e-12)


def test_the_least_edp_of_each_layer_may_be_a_bad_choice():
    """(1, 10) or (11, 1); then (10.5, 1) or (1, 11). Both firsts make 11.5 x 11; the best is 2 x 21."""
    energy, latency = np.array([[1.0, 10.5], [11.0, 1.0]]), np.array([[10.0, 1.0], [1.0, 11.0]])
    alone = np.argmin(energy * latency, 0)
    assert list(alone) == [0, 0]
    assert list(choose_edp(energy, latency)) == [0, 1]


def test_one_way_is_taken():
    assert list(choose_edp(np.array([[2.0, 3.0]]), np.array([[1.0, 1.0]]))) == [0, 0]


def test_the_choice_is_never_worse_than_one_style(choice):
    single = {one.name: float(one.cost.edp) for one in choice.singles if one.cost is not None}
    everywhere = [one.name for one in choice.singles if one.feasible == 2]
    assert [one.name for one in choice.singles] == list(STYLES) and len(everywhere) > 5
    assert float(choice.cost.edp) <= min(single[name] for name in everywhere) * (1 + 1e-12)
    assert float(choice.cost.edp) < min(single[name] for name in everywhere) * 0.999
    assert len(set(choice.styles)) == 2 and float(choice.cost.feasible) == 1


@pytest.fixture(scope="module")
def alone(tiny, hw):
    """Exact cost of programs, leaves (1,); as many rows as `best_styles` has, which is one program for both."""

    def cost(programs):
        flow = fit(programs, tiny, int(hw.pes))
        rows = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * len(STYLES)), flow)
        return jax.tree.map(lambda leaf: leaf[:1], exact_dataflow_costs(tiny, hw, rows))

    return cost


def test_its_cost_is_that_of_its_programs(choice, alone):
    again = alone(list(choice.programs))
    assert float(again.cycles[0]) == pytest.approx(float(choice.cost.cycles), rel=1e-12)
    assert float(again.energy_pj[0]) == pytest.approx(float(choice.cost.energy_pj), rel=1e-12)
    assert again.cycles.dtype == np.float64


def test_each_style_alone_is_what_the_model_says(tiny, hw, choice, alone):
    one = next(one for one in choice.singles if one.name == "kcp_ws")
    again = alone(style("kcp_ws", tiny, int(hw.pes)))
    assert float(again.edp[0]) == pytest.approx(float(one.cost.edp))


def test_styles_that_do_not_apply_are_left_out(choice):
    gemm = next(one for one in choice.singles if one.name == "gemm_nmk")
    assert gemm.cost is None and gemm.applicable == 0 and gemm.feasible == 0
    assert not any(name.startswith("gemm") for name in choice.styles)


def test_without_a_feasible_style_the_nearest_is_taken(tiny, hw):
    from dataclasses import replace

    small = replace(hw, levels=tuple(replace(lv, capacity_bytes=lv.capacity_bytes / 1e5) for lv in hw.levels))
    choice = best_styles(tiny, small)
    assert float(choice.cost.feasible) == 0
    assert all(one.feasible == 0 for one in choice.singles)
    least = min(float(one.cost.violation) for one in choice.singles if one.cost is not None)
    assert 0 < float(choice.cost.violation) <= least


def test_bounds_say_where_time_goes(tiny, hw, choice):
    from dataclasses import replace

    words = dataflow_bounds(choice.cost, float(hw.dram_bytes_per_cycle), 2)
    assert set(words) <= {"compute", "idle PEs", "NoC", "DRAM"} and len(words) == 2
    slow = replace(hw, dram=replace(hw.dram, gb_per_s=hw.dram.gb_per_s / 1e3))
    words = dataflow_bounds(best_styles(tiny, slow).cost, float(slow.dram_bytes_per_cycle), 2)
    assert words == ("DRAM", "DRAM")
    narrow = replace(
        hw,
        levels=tuple(replace(lv, read_bytes_per_cycle=np.float32(0.01)) for lv in hw.levels),
    )
    words = dataflow_bounds(best_styles(tiny, narrow).cost, float(hw.dram_bytes_per_cycle), 2)
    assert words == ("NoC", "NoC")
