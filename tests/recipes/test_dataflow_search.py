"""Search for a dataflow of one layer."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import hardware
from diffhw.mappings import STYLES, fit, style, to_program
from diffhw.models import dataflow
from diffhw.recipes import _dataflow_search, map_layer
from diffhw.workloads import Layer

LAYER = Layer.create(k=48, c=20, p=14, q=14, r=3, s=3)


def accelerator():
    local = hardware.Level.create(name="l1", capacity_bytes=512, instances=64, word_bits=8)
    shared = hardware.Level.create(name="l2", capacity_bytes=40_000, read_bytes_per_cycle=16)
    return hardware.Accelerator.create(rows=8, cols=8, levels=(local, shared), dram=hardware.dram("LPDDR4"))


@pytest.fixture(scope="module")
def found():
    return map_layer(LAYER, accelerator(), generations=12)


def test_it_beats_every_named_style_and_says_its_own_cost(found):
    hw = accelerator()
    assert found.evaluations == 13 * 4096
    assert found.history == sorted(found.history, reverse=True)
    best = jax.tree.map(lambda leaf: leaf[0], found.dataflows)
    cost_of = jax.jit(dataflow.layer)
    cost = cost_of(LAYER, hw, best)
    assert float(cost.feasible) == 1
    assert float(jnp.log(cost.cycles) + jnp.log(cost.energy_pj)) == pytest.approx(found.scores[0], abs=1e-4)
    # As text and back it is the same dataflow.
    again = cost_of(LAYER, hw, fit(to_program(best, LAYER), LAYER))
    assert float(again.cycles) == float(cost.cycles)
    for name in STYLES:
        if not name.startswith("gemm"):
            rival = cost_of(LAYER, hw, fit(style(name, LAYER, 64), LAYER))
            if float(rival.feasible):
                assert float(cost.edp) < float(rival.edp)


def test_same_seed_same_answer(found):
    first, second = (map_layer(LAYER, accelerator(), generations=2) for _ in range(2))
    np.testing.assert_array_equal(first.scores, second.scores)
    jax.tree.map(np.testing.assert_array_equal, first.dataflows, second.dataflows)
    assert first.history == found.history[:3]


def test_objectives_are_what_they_say(monkeypatch):
    """With a model of three numbers in place of the real one, which takes long to compile for each of them."""

    def layer(layer, hw, flow, precision):
        cycles, energy = 1 + flow.levels[0].tile["k"], 2 + flow.levels[1].tile["c"]
        return SimpleNamespace(cycles=cycles, energy_pj=energy, violation=jnp.zeros_like(cycles))

    monkeypatch.setattr(_dataflow_search, "dataflow", SimpleNamespace(layer=layer))
    monkeypatch.setattr(_dataflow_search, "_scores", _dataflow_search._scores.__wrapped__)
    for objective in ("edp", "latency", "energy"):
        one = map_layer(LAYER, accelerator(), objective, generations=2)
        cost = layer(None, None, one.dataflows, None)
        wanted = {"latency": cost.cycles, "energy": cost.energy_pj, "edp": cost.cycles * cost.energy_pj}
        np.testing.assert_allclose(one.scores, np.log(wanted[objective]), rtol=1e-5)
    with pytest.raises(ValueError, match="edp, latency or energy"):
        map_layer(LAYER, accelerator(), "speed")
