"""Tables of energy and latency: sums of the arrays' own costs, and budgets of a generator."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analytic_bits import accuracy, toy_problem
from flax import nnx

from diffhw import hardware, models, search, training
from diffhw.recipes import cost_tables
from diffhw.recipes._bit_costs import bit_cost_tables
from diffhw.recipes._bit_front import tiny_network


@pytest.mark.parametrize("array", ["bit_serial", "bit_fusion", "fixed"])
def test_rows_add_up_to_the_cost_of_the_network(array):
    network = training.to_network(nnx.eval_shape(lambda: tiny_network((8, 8, 1), 10)))
    layers = jax.tree.map(lambda leaf: leaf[: network.size], network.layers)
    macs = np.asarray(layers.macs)
    hw = hardware.load("edge")
    tables = bit_cost_tables(macs, macs, layers, array=array, hardware=hw)
    bits = np.array([8, 3, 1, 5, 6])
    model = {"bit_serial": models.bit_serial, "bit_fusion": models.bit_fusion, "fixed": models.fixed_array}[
        array
    ]
    cost = jax.jit(lambda b: model(network, hw, precision=models.bit_precision(network, b, 8)))(
        jnp.asarray(bits)
    )
    for metric in ("energy_pj", "latency_s"):
        total = tables[metric][np.arange(5), bits - 1].sum()
        np.testing.assert_allclose(total, float(getattr(cost, metric)), rtol=1e-5)
        assert tables[metric].shape == (5, 8) and (np.diff(tables[metric]) >= 0).all()
        assert tables[metric].min() > 0
    # Some layers are bound by arithmetic: bits that the array can use save time.
    saved = tables["latency_s"][:, 7] / tables["latency_s"][:, 1]
    assert (saved.max() > 1.5) == (array != "fixed")


@pytest.mark.slow
def test_a_generator_keeps_budgets_of_energy_and_time():
    problem = toy_problem()
    tables = cost_tables(problem, "bit_serial") | {
        f"fusion_{name}": table for name, table in cost_tables(problem, "bit_fusion").items()
    }
    problem = replace(problem, tables=problem.tables | tables)
    every = np.stack(np.unravel_index(np.arange(8**5), problem.sizes), axis=-1)
    rows = np.random.default_rng(0).permutation(every)[:2000]
    surrogate = search.fit_surrogate(
        rows,
        accuracy(rows)[:, None],
        problem.sizes,
        jax.random.key(0),
        names=["accuracy"],
        members=1,
        steps=100,
    )
    budgets = ("energy_pj", "latency_s", "fusion_energy_pj")
    conditions = [search.Condition("accuracy"), *(search.Condition(n, "budget", tables[n]) for n in budgets)]
    made = search.generator(surrogate, conditions, jax.random.key(1), pool=4000, steps=100, polish=0)
    for metric in budgets:
        cost = problem.cost(metric, every)
        limit = float(np.quantile(cost, 0.3))
        drawn = made.sample(jax.random.key(2), {"accuracy": 0.5, metric: limit}, 64)
        assert (problem.cost(metric, drawn) <= limit).all()
        assert len(np.unique(drawn, axis=0)) > 32


def test_mistakes():
    with pytest.raises(
        ValueError, match=r"array must be one of .*, got 'bitfusion' \(did you mean 'bit_fusion'"
    ):
        cost_tables(toy_problem(), "bitfusion")
    with pytest.raises(ValueError, match=r"weights and macs must be \(L,\) both"):
        bit_cost_tables([1.0], [1.0, 2.0])
    for bits in (0, -8, float("nan")):
        with pytest.raises(ValueError, match="activation_bits must be a finite number > 0"):
            cost_tables(toy_problem(), activation_bits=bits)
