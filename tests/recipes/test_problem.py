"""The inner choice of a dataflow per layer, and the legal grid of the main job."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from diffhw.recipes._problem import make_problem


def problem(**more):
    arguments = dict(
        objective="edp", limits={}, bits=8, node_nm=22.0, freq_mhz=1000.0, dram="auto",
        per_layer_dataflow=True,
    )  # fmt: skip
    return make_problem((), **(arguments | more))


def test_the_legal_grid_is_the_one_promised():
    space = problem(per_layer_dataflow=False).space
    sizes = dict(zip(space.names, space.sizes, strict=True))
    assert sizes["hardware.rows"] == sizes["hardware.cols"] == 25
    assert [sizes[f"hardware.levels.{i}.capacity_bytes"] for i in range(3)] == [10, 10, 10]
    assert space.size == 25 * 25 * 10**3 * 5 * 3
    rows = space.variables[space.position("hardware.rows")].variable
    assert [rows.label(i) for i in range(25)] == [round(4 * 2 ** (i / 4)) for i in range(25)]
    buffer = space.variables[space.position("hardware.levels.0.capacity_bytes")].variable
    assert [buffer.label(i) for i in range(10)] == [8192 * 2**i for i in range(10)]


@pytest.mark.parametrize("objective", ["edp", "latency", "energy"])
def test_per_layer_choice_equals_brute_force(objective):
    """All 3^6 assignments of six layers, 50 random instances."""
    rng = np.random.default_rng(0)
    one = problem(objective=objective)
    for _ in range(50):
        energy, latency = np.exp(rng.normal(size=(2, 3, 6)))
        best = np.asarray(one.choose(jnp.asarray(energy), jnp.asarray(latency)))

        def figure(pick, energy=energy, latency=latency):
            e, t = (sum(x[d, i] for i, d in enumerate(pick)) for x in (energy, latency))
            return {"edp": e * t, "latency": t, "energy": e}[objective]

        assert figure(best) == pytest.approx(
            min(map(figure, itertools.product(range(3), repeat=6))), rel=1e-5
        )


def test_bad_objective_is_named():
    with pytest.raises(ValueError, match="objective must be one of edp, latency, energy, got 'speed'"):
        problem(objective="speed")
