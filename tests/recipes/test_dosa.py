"""Hardware and mappings together: legal, exact, better than where it started, never above its bound."""

import numpy as np
import pytest

from diffhw import recipes, workloads
from diffhw.recipes import _dosa_refine as refine
from diffhw.recipes._dosa_space import Problem, random_plans, random_sizes


@pytest.fixture(scope="module")
def network():
    layers = [workloads.Layer.gemm(64, 96, 128), workloads.Layer.create(k=32, c=16, p=14, q=14, r=3, s=3)]
    return workloads.Network.create(layers, counts=[2, 1])


@pytest.fixture(scope="module")
def result(network):
    return recipes.dosa(network, 0, samples=2_000, restarts=8)


def test_the_design_is_legal_and_its_cost_is_the_models(result):
    cost = result.cost
    assert cost.feasible == 1
    np.testing.assert_allclose(cost.energy_pj, result.energy_pj, rtol=1e-6)
    np.testing.assert_allclose(cost.cycles, result.cycles, rtol=1e-6)
    assert result.samples <= 2_000
    for nest, row in zip(result.nests, result.network.rows(), strict=False):
        nest.check(row)


def test_descent_costs_what_the_exact_mapper_costs():
    """Groups, strides and dilations included: the best of the descent, priced again.

    Steps, restarts and the longest list of divisors are those of ``result``, so the descent is compiled once.
    """
    layers = [
        workloads.Layer.create(g=6, k=96, c=16, p=14, q=1),
        workloads.Layer.create(k=8, c=4, p=7, q=7, r=3, s=3, stride_h=2, dilation_w=2),
    ]
    network = workloads.Network.create(layers, counts=[2, 1])
    result = recipes.dosa(network, 1, samples=1_000, restarts=8, refine=0.0)
    np.testing.assert_allclose(result.edp, result.history[-1][1], rtol=1e-4)
    assert result.cost.feasible == 1


def test_descent_moves_the_hardware(result):
    moved = (result.starts != result.ends).any(axis=1)
    assert moved.mean() > 0.5
    values = [edp for _, edp in result.history]
    assert values == sorted(values, reverse=True) and values[-1] < values[0]


def test_hardware_is_what_the_mappings_ask_for(result):
    levels = []
    for nest in result.nests:
        levels.append(
            [
                {
                    "temporal": {d: int(f) for d, f in level.temporal.items()},
                    "x": {d: int(f) for d, f in level.spatial_x.items()},
                    "y": {d: int(f) for d, f in level.spatial_y.items()},
                }
                for level in nest.levels
            ]
        )
    assert refine.derived_sizes(levels, result.network.rows()) == result.sizes


def test_the_bound_holds_and_tightens(network, result):
    first, _ = recipes.dosa_bound(network, result.edp, seconds=0.0)
    later, why = recipes.dosa_bound(network, result.edp, seconds=1.0)
    assert 0 < first <= later <= result.edp * (1 + 1e-9)
    assert why


def test_an_area_budget_is_kept(network):
    small = recipes.dosa(network, 0, samples=2_000, restarts=8, area_mm2=0.5)
    assert small.area_mm2 <= 0.5
    with pytest.raises(ValueError, match=r"no design of at most 0.001 mm2 was found"):
        recipes.dosa(network, 0, samples=2_000, restarts=8, area_mm2=0.001)


def test_random_mappings_fit_their_hardware(network):
    rng = np.random.default_rng(0)
    problem = Problem.of(network)
    for sizes in random_sizes(rng, 4):
        for row in problem.rows:
            plans = random_plans(rng, row, sizes, 5)
            if plans is not None:
                assert (np.maximum(plans.c_space, plans.k_space) <= sizes[0]).all()
                assert (plans.time >= 1).all()


def test_too_small_a_budget():
    with pytest.raises(ValueError, match="samples must be at least 60"):
        recipes.dosa(workloads.load("dosa_bert"), samples=10)


def test_dosa_networks_are_those_of_the_comparison():
    counts = {"dosa_bert": 757_071_872, "dosa_resnet50": 4_089_184_256}
    for name, macs in counts.items():
        assert float(workloads.load(name).macs) == macs
