"""The exact mapper against every mapping of small layers, and its certificate."""

from dataclasses import replace

import jax.numpy as jnp
import mapping_brute
import numpy as np
import pytest

from diffhw import hardware, recipes, workloads
from diffhw.mappings import LoopNest

Layer = workloads.Layer


def shrunk(name, share):
    """A hierarchy whose buffers are so small that capacity binds."""
    chip = hardware.hierarchy(name)
    small = lambda level: replace(level, capacity_bits=jnp.maximum(level.capacity_bits * share, 64.0))
    return replace(chip, levels=(*map(small, chip.levels[:-1]), chip.levels[-1]))


CASES = [
    ("gemmini", 1.0, dict(k=4, c=4, p=4)),
    ("gemmini", 0.002, dict(k=2, c=2, p=4, r=3)),
    ("gemmini", 0.01, dict(k=2, p=3, q=3, r=2, stride_h=2)),
    ("gemmini", 1.0, dict(g=8)),  # one loop of one prime
    ("gemmini", 0.002, dict(n=2, c=3, p=2, r=3, stride_h=3, dilation_h=2)),
    ("gemmini", 0.002, dict(g=3, k=2, p=4, r=2)),
    ("eyeriss_like", 0.01, dict(k=2, c=2, p=3)),
    # The case that an earlier bound got wrong: a stride and a dilation leave gaps between unit tiles.
    ("eyeriss_like", 0.01, dict(c=2, p=3, r=2, stride_h=2, dilation_h=2)),
    ("eyeriss_like", 0.002, dict(n=2, p=3, r=3)),
    ("simba_like", 0.01, dict(k=3, p=4, r=2)),
    ("simba_like", 0.002, dict(c=2, q=2, r=2, dilation_h=2)),
]


@pytest.mark.parametrize(("name", "share", "sizes"), CASES)
def test_finds_what_trying_everything_finds(name, share, sizes):
    layer, chip = Layer.create(**({"p": 1, "q": 1} | sizes)), shrunk(name, share)
    count, valid, least = mapping_brute.optimum(layer, chip)
    assert 0 < valid <= count
    for objective, want in least.items():
        best = recipes.best_mapping(layer, chip, objective)
        assert best.proven, best.gap
        np.testing.assert_allclose(best.score, want, rtol=2e-9)


@pytest.mark.parametrize("sizes", [dict(k=4, c=2, p=4, q=1, r=2), dict(g=8, p=1, q=1)])
def test_counts_every_mapping(sizes):
    layer, chip = Layer.create(**sizes), shrunk("gemmini", 0.002)
    arrays = mapping_brute.all_nests(layer, chip, 10**6)
    _, _, feasible = mapping_brute.price(layer, chip, arrays)
    assert recipes.mapping_space_size(layer, chip, valid_only=False) == len(feasible)
    assert recipes.mapping_space_size(layer, chip) == feasible.sum()


@pytest.mark.parametrize("name", ["gemmini", "eyeriss_like", "simba_like"])
@pytest.mark.parametrize("objective", ["energy", "edp"])
def test_certificate_of_a_real_layer(name, objective):
    """The score is the model's, and the mapping fits."""
    layer, chip = Layer.gemm(128, 256, 96), hardware.hierarchy(name)
    best = recipes.best_mapping(layer, chip, objective)
    assert best.proven and best.certificate == f"proven optimum of {objective}"
    best.nest.check(layer)
    cost = best.cost
    assert cost.feasible == 1
    np.testing.assert_allclose([cost.energy_pj, cost.cycles], [best.energy_pj, best.cycles], rtol=1e-12)


def test_time_runs_out_with_a_proven_gap():
    layer, chip = Layer.create(k=16, c=16, p=14, q=14, r=3, s=3), hardware.hierarchy("simba_like")
    exact = recipes.best_mapping(layer, chip, "edp")
    quick = recipes.best_mapping(layer, chip, "edp", seconds=0.0)
    assert exact.proven and quick.evaluated <= exact.evaluated
    assert quick.bound <= exact.score * (1 + 1e-9) and quick.score >= exact.score * (1 - 1e-9)
    narrow = recipes.best_mapping(layer, chip, "edp", limit=1)
    assert narrow.bound <= exact.score * (1 + 1e-9) <= narrow.score * (1 + 2e-9)


def test_fixed_spatial_factors_and_utilisation():
    layer, chip = Layer.gemm(64, 64, 64), hardware.hierarchy("gemmini")
    fixed = recipes.best_mapping(layer, chip, "energy", spatial={"Scratchpad": {"x": {"k": 4}}})
    assert float(fixed.nest.levels[2].spatial_x["k"]) == 4
    assert float(fixed.nest.levels[1].spatial_y["c"]) == 1
    free = recipes.best_mapping(layer, chip, "energy")
    assert free.score <= fixed.score
    full = recipes.best_mapping(layer, chip, "energy", min_utilization=1.0)
    assert full.nest.levels[2].spatial_x["k"] * full.nest.levels[1].spatial_y["c"] == 256


def test_bypass_never_hurts():
    layer, chip = Layer.gemm(32, 32, 32), hardware.hierarchy("eyeriss_like")
    kept, free = (recipes.best_mapping(layer, chip, "energy", bypass=bypass) for bypass in (False, True))
    assert free.score <= kept.score
    assert free.hierarchy.levels[0].keeps in ("o", "")
    np.testing.assert_allclose(free.cost.energy_pj, free.energy_pj, rtol=1e-12)


def test_a_network_adds_up_and_is_bounded():
    layers = [Layer.gemm(64, 96, 32), Layer.create(k=16, c=8, p=14, q=14, r=3, s=3)]
    network = workloads.Network.create(layers, counts=[2, 1])
    chip = hardware.hierarchy("gemmini")
    found = recipes.best_mappings(network, chip, "edp")
    energies = [one.energy_pj for one in found.layers]
    np.testing.assert_allclose(found.energy_pj, 2 * energies[0] + energies[1], rtol=1e-12)
    assert found.bound <= found.score * (1 + 1e-9)
    least = recipes.best_mappings(network, chip, "energy")
    assert least.energy_pj <= found.energy_pj * (1 + 1e-9)
    assert least.gap <= 2e-9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(objective="speed"), "objective must be one of energy, latency, edp, got 'speed'"),
        (dict(spatial={"Sratchpad": {}}), "no level is called 'Sratchpad'"),
        (dict(spatial={"Scratchpad": {"x": {"k": 5}}}), "does not divide its extent 64"),
        (dict(spatial={"Scratchpad": {"x": {"z": 5}}}), "unknown loop 'z'"),
    ],
)
def test_wrong_wishes(change, words):
    with pytest.raises(ValueError, match=words):
        recipes.best_mapping(Layer.gemm(64, 64, 64), hardware.hierarchy("gemmini"), **change)


def test_says_what_binds():
    layer = Layer.gemm(7, 5, 3)
    with pytest.raises(ValueError, match=r"fill at most 15 .*lower min_utilization to 0.05859"):
        recipes.best_mapping(layer, hardware.hierarchy("gemmini"), min_utilization=0.9)
    chip = hardware.hierarchy("gemmini")
    tiny = replace(chip.levels[2], capacity_bits=jnp.float32(12.0))
    chip = replace(chip, levels=(*chip.levels[:2], tiny, chip.levels[3]))
    with pytest.raises(ValueError, match=r"Scratchpad holds 12 bits.*take 16; raise its capacity to 16 bits"):
        recipes.best_mapping(layer, chip)


def test_a_nest_of_the_mapper_is_a_loop_nest():
    best = recipes.best_mapping(Layer.gemm(16, 16, 16), hardware.hierarchy("gemmini"))
    assert isinstance(best.nest, LoopNest)
    assert float(best.nest.extent("k")) == 16
