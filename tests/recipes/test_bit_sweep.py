"""One sweep of the layers, on problems whose whole space is a formula."""

import dataclasses

import numpy as np
import pytest
from analytic_bits import NEED, WEIGHTS, accuracy, toy_problem

from diffhw import recipes
from diffhw.recipes import _bit_sweep

EVERY = np.stack(np.unravel_index(np.arange(8**5), (8,) * 5), axis=-1)
BUDGETS = np.linspace(0.13, 1.0, 40) * WEIGHTS.sum()


def problem_of(formula):
    """The toy problem with another accuracy."""
    problem = toy_problem()
    object.__setattr__(problem, "_run", lambda indices, data, progress: formula(indices))
    return problem


def gaps(swept, formula=accuracy):
    """How much less accurate than the exact best each design of a suite is; all keep their budgets."""
    cost, suite = swept.problem.cost("bytes", EVERY), swept.suite(BUDGETS)
    assert (swept.problem.cost("bytes", suite) <= BUDGETS).all()
    return np.array([formula(EVERY)[cost <= budget].max() for budget in BUDGETS]) - formula(suite)


def test_the_front_is_exact_where_shares_multiply():
    problem = toy_problem()
    swept = recipes.sweep_layers(problem)
    assert swept.evaluations == problem.ledger.evaluations == 1 + 5 * 7
    np.testing.assert_allclose(swept.predict(EVERY), accuracy(EVERY), atol=1e-9)
    np.testing.assert_allclose(gaps(swept), 0, atol=1e-9)
    assert problem.ledger.evaluations == 36


def lacking(indices):
    return NEED * np.exp(-0.8 * np.asarray(indices))


def together(indices):
    """The two largest layers fail most where both are narrow, which no width alone shows."""
    lack = lacking(indices)
    return 0.1 + 0.88 * np.exp(-1.5 * (lack.sum(axis=-1) + 8 * lack[..., 2] * lack[..., 3]))


def worst(indices):
    """The layer that lacks most decides alone."""
    return 0.1 + 0.88 * np.exp(-3.0 * lacking(indices).max(axis=-1))


@pytest.mark.parametrize(("formula", "gap"), [(together, 0.01), (worst, 0.03)])
def test_near_the_enumerated_front_where_shares_do_not_multiply(formula, gap):
    problem = problem_of(formula)
    swept = recipes.sweep_layers(problem)
    assert np.abs(swept.predict(EVERY) - formula(EVERY)).max() > 0.2  # it is wrong about some designs
    found = gaps(swept, formula)
    uniform = np.arange(8)[:, None].repeat(5, axis=1)
    cost = problem.cost("bytes", uniform)
    alike = np.array([formula(uniform)[cost <= budget].max() for budget in BUDGETS])
    assert 0 < found.mean() < gap  # and not exact, but better than equal widths nearly everywhere
    assert (formula(swept.suite(BUDGETS)) >= alike).mean() > 0.9


def test_thinned_fronts_keep_their_ends_and_most_of_the_accuracy(monkeypatch):
    swept = recipes.sweep_layers(toy_problem())
    whole = swept._front("bytes")
    assert len(whole) > 200
    monkeypatch.setattr(_bit_sweep, "_MOST", 100)
    thinned = swept._front("bytes")
    assert len(thinned) == 100
    np.testing.assert_array_equal(thinned[[0, -1]], whole[[0, -1]])
    assert 0 < gaps(swept).mean() < 0.005


def test_a_budget_of_just_what_a_design_takes_is_kept_whatever_the_rounding():
    table = np.random.default_rng(0).uniform(0.1, 1.0, (5, 8)).cumsum(axis=1)
    problem = dataclasses.replace(toy_problem(), tables={"energy_pj": table})
    swept = recipes.sweep_layers(problem)
    front = swept._front("energy_pj")
    np.testing.assert_array_equal(swept.suite(problem.cost("energy_pj", front), "energy_pj"), front)
    assert not swept.suite(table[:, 0].sum(), "energy_pj").any()


def test_mistakes():
    swept = recipes.sweep_layers(toy_problem())
    with pytest.raises(ValueError, match="no metric is called 'grams': known are"):
        swept.suite([1e6], "grams")
    with pytest.raises(ValueError, match=r"the smallest design takes .* got a budget of 1"):
        swept.suite([1.0, 1e6])
    with pytest.raises(ValueError, match="no better than chance: train it first"):
        recipes.sweep_layers(problem_of(lambda indices: np.full(len(indices), 0.1)))
