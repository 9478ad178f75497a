"""Few evaluations near the front, on a problem whose whole space is a formula."""

import numpy as np
import pytest
from analytic_bits import WEIGHTS, accuracy, toy_problem

from diffhw import recipes
from diffhw.recipes import _bit_near_front

EVERY = np.stack(np.unravel_index(np.arange(8**5), (8,) * 5), axis=-1)
CORNER = (0.1, float(WEIGHTS.sum()))


def share(problem, designs):
    """Of the exact front's hypervolume."""
    whole = recipes.hypervolume(accuracy(EVERY), problem.cost("bytes", EVERY), CORNER)
    return recipes.hypervolume(accuracy(designs), problem.cost("bytes", designs), CORNER) / whole


@pytest.fixture(scope="module")
def near():
    problem = toy_problem()
    return problem, recipes.sample_front(problem, 60, members=2, steps=250, rounds=2)


def test_beats_random_ones_at_the_same_number(near):
    problem, known = near
    assert problem.ledger.evaluations == len(np.unique(known.designs, axis=0)) == 60
    np.testing.assert_array_equal(known.accuracy, accuracy(known.designs))
    random = np.random.default_rng(0).integers(0, 8, (20, 60, 5))
    assert share(problem, known.designs) > max(share(problem, one) for one in random)


def test_the_suite_keeps_every_budget_and_spends_nothing(near):
    problem, known = near
    fitted = recipes.aqgan(
        problem, training_set=known, members=2, surrogate_steps=250, pool=4000, steps=200, polish=0
    )
    spent = problem.ledger.evaluations
    budgets = np.linspace(0.2, 1.0, 9) * WEIGHTS.sum()
    suite = recipes.front_suite(fitted, budgets)
    assert problem.ledger.evaluations == spent
    assert (problem.cost("bytes", suite) <= budgets).all()
    assert share(problem, suite) > 0.9


def test_layers_of_a_front_are_those_of_brute_force():
    rng = np.random.default_rng(3)
    cost, value = rng.integers(0, 9, 60).astype(float), rng.integers(0, 9, 60).astype(float)
    number, left, expected = 0, np.arange(60), np.zeros(60)
    while len(left):
        better = lambda i, left=left: any(
            cost[j] <= cost[i] and value[j] >= value[i] and (cost[j], value[j]) != (cost[i], value[i])
            for j in left
        )
        twin = lambda i, left=left: any(j < i and (cost[j], value[j]) == (cost[i], value[i]) for j in left)
        on = np.array([not better(i) and not twin(i) for i in left])
        expected[left[on]] = number
        left, number = left[~on], number + 1
    np.testing.assert_array_equal(_bit_near_front._layers(cost, value, 100), expected)


def test_errors_are_sentences():
    with pytest.raises(ValueError, match="at least 40 evaluations, got 10"):
        recipes.sample_front(toy_problem(), 10)
    with pytest.raises(ValueError, match="no metric is called 'watts': known are bytes, bops"):
        recipes.sample_front(toy_problem(), 60, metric="watts")
