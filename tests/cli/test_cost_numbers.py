"""`diffhw cost` compiles all its dataflows as one program: the numbers are those of the models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import hardware, workloads
from diffhw._cli import _cost
from diffhw.mappings import Precision
from diffhw.models import roofline, systolic
from diffhw.models._bounds import bounds


@pytest.fixture(scope="module")
def problem():
    hw = hardware.load("edge")
    return workloads.load("alexnet").merged(), hw, Precision.of(hw)


def test_named_and_per_layer_dataflows(problem):
    network, hw, precision = problem
    flows = [("os", "ws", "is")[i % 3] for i in range(network.size)]
    found, bound = _cost._evaluate(jax, network, hw, precision, {"ws": "ws", "per layer": flows})
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)
        wide = double((network, hw, precision))
        for name, mapping in (("ws", "ws"), ("per layer", flows)):
            cost = jax.jit(lambda hw, p, m=mapping: systolic(wide[0], hw, m, p))(*wide[1:])
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found[name], cost)
        exact = jax.jit(lambda net, hw, p: roofline(net, hw, None, p))(*wide)
        for field in ("cycles", "energy_pj", "latency_s"):
            np.testing.assert_allclose(getattr(bound, field), getattr(exact, field), rtol=1e-12)


def test_another_release_without_the_options_compiles_all_the_same(problem, monkeypatch):
    from diffhw._cli import _runtime

    monkeypatch.setattr(_runtime, "_QUICK_COMPILE", {"xla_no_such_option": 1})
    assert _runtime.compute_once(jax, lambda x: x + 1, np.float32(1)) == 2


def test_what_bounds_each_layer(problem):
    network, hw, _ = problem
    cost = jax.jit(lambda net, hw: systolic(net, hw, "ws"))(network, hw)
    words = bounds(network, hw, "ws", cost)
    assert len(words) == network.size
    assert words == bounds(network, hw, ["ws"] * network.size, cost)
    for word, cycles, stall in zip(words, cost.layers.cycles, cost.layers.cycle_parts["stall"], strict=False):
        assert (word == "DRAM") == bool(stall > 0.1 * cycles)
