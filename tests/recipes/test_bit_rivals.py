"""Searches of bit widths on a problem whose accuracy is a formula, so that its whole space is known."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from diffhw import training
from diffhw.recipes._bit_front import hypervolume, pareto_bits, tiny_network
from diffhw.recipes._bit_hawq import Sensitivities, bit_sensitivities, hawq_bits, knapsack
from diffhw.recipes._bit_policy import layer_features, policy_bits
from diffhw.recipes._bit_problem import BitProblem, wrap
from diffhw.recipes._bit_rivals import (
    best_of_random,
    evolve_bits,
    local_bits,
    nearest_known,
    random_bits,
    uniform_bits,
)
from diffhw.recipes._bit_search import BitWish, Tries, fitted

WEIGHTS = np.array([24.0, 160.0, 64.0, 320.0])
MACS = np.array([900.0, 400.0, 250.0, 60.0])
LOSS = np.array([1.1, 0.5, 0.8, 0.3])
MAX_BITS = 6
SEARCHES = (random_bits, evolve_bits, local_bits, policy_bits)


def accuracy(indices):
    """Saturates with each width, the first layer minding most."""
    return 0.1 + 0.9 * np.exp(-1.2 * (LOSS * np.exp(-0.9 * np.asarray(indices))).sum(axis=-1))


class Formula(BitProblem):
    """Evaluates the formula in place of a network, and remembers what it was asked."""

    def _run(self, indices, data, progress):
        seen.append(np.array(indices))
        return accuracy(indices)


seen: list[np.ndarray] = []


@pytest.fixture
def problem():
    seen.clear()
    bits = np.arange(1, MAX_BITS + 1)
    return Formula(
        network="formula",
        names=("a", "b", "c", "d"),
        weights=WEIGHTS,
        macs=MACS,
        max_bits=MAX_BITS,
        selection=SimpleNamespace(classes=10),
        test=None,
        float_accuracy=(1.0, 1.0),
        apply=None,
        quantized=None,
        model=None,
        tables={"bytes": WEIGHTS[:, None] * bits / 8, "bops": MACS[:, None] * bits * 8.0},
    )


EVERY = np.array(list(itertools.product(range(MAX_BITS), repeat=4)))
BYTES = ((EVERY + 1) * WEIGHTS).sum(axis=1) / 8


def exact(budget):
    return accuracy(EVERY)[budget >= BYTES].max()


@pytest.mark.parametrize("search", SEARCHES)
def test_budget_is_held_and_evaluations_are_what_the_ledger_says(problem, search):
    budget = 230.0
    found = search(problem, budget=budget, evaluations=150, seed=1)
    asked = np.concatenate(seen)
    assert found.evaluations == len(asked) == problem.ledger.evaluations <= 150
    np.testing.assert_array_equal(asked, found.indices)
    assert len(np.unique(asked, axis=0)) == len(asked)
    assert (found.cost <= budget).all()
    np.testing.assert_allclose(found.accuracy, accuracy(found.indices))
    np.testing.assert_allclose(found.cost, ((found.indices + 1) * WEIGHTS).sum(axis=1) / 8)
    assert found.proposed is not None and (np.diff(found.proposed) > 0).all()


@pytest.mark.parametrize(
    ("search", "short"), [(evolve_bits, 0.005), (local_bits, 0.005), (policy_bits, 0.03)]
)
def test_searches_come_near_the_best_within_a_budget(problem, search, short):
    found = search(problem, budget=230.0, evaluations=250, seed=0)
    assert found.accuracy[found.best] >= exact(230.0) - short
    reached = found.evaluations_until(exact(230.0) - short)
    assert reached is not None and reached <= found.evaluations_until(exact(230.0) - short, repeats=True)
    assert found.evaluations_until(1.1) is None


@pytest.mark.parametrize("search", (evolve_bits, local_bits))
def test_searches_come_near_a_target(problem, search):
    found = search(problem, target=0.6, evaluations=80)
    assert abs(found.accuracy[found.best] - 0.6) < 0.01
    both = search(problem, target=0.6, budget=190.0, evaluations=80)
    assert abs(both.accuracy[both.best] - 0.6) < 0.01 and (both.cost <= 190.0).all()


def test_same_seed_same_search(problem):
    for search in SEARCHES:
        a, b, c = (search(problem, target=0.5, evaluations=40, seed=s) for s in (3, 3, 4))
        np.testing.assert_array_equal(a.indices, b.indices)
        assert a.indices.shape != c.indices.shape or (a.indices != c.indices).any()


def test_small_space_ends_a_search(problem):
    """With room for two configurations only, nobody waits for more."""
    budget = float(BYTES.min() + 3)  # all at one bit, or the smallest layer at two
    for search in SEARCHES:
        assert search(problem, budget=budget, evaluations=50).evaluations == 2


def test_uniform_is_every_width_that_fits(problem):
    np.testing.assert_array_equal(uniform_bits(problem).bits, np.full(4, MAX_BITS))
    within = uniform_bits(problem, budget=230.0)
    assert within.evaluations == 3 and within.bits.tolist() == [3, 3, 3, 3]
    assert uniform_bits(problem, target=0.3).evaluations == MAX_BITS


def test_knapsack_equals_trying_all():
    rng = np.random.default_rng(0)
    loss = np.sort(rng.exponential(1.0, (4, MAX_BITS)), axis=1)[:, ::-1]
    bits = np.arange(1, MAX_BITS + 1)
    for cost in (WEIGHTS[:, None] * bits / 8, np.sqrt(WEIGHTS)[:, None] * bits):  # the second has no unit
        solve = knapsack(loss, cost)
        total = cost[np.arange(4), EVERY].sum(axis=1)
        values = loss[np.arange(4), EVERY].sum(axis=1)
        for budget in np.linspace(total.min(), total.max(), 9):
            row = solve(budget)
            assert cost[np.arange(4), row].sum() <= budget * (1 + 1e-12)
            least = values[total <= budget * (1 - 1e-4)].min(initial=np.inf)
            assert loss[np.arange(4), row].sum() <= least + 1e-12


def test_hessian_aware_choice_needs_one_evaluation_per_budget(problem):
    known = Sensitivities(LOSS[:, None] * np.exp(-0.9 * np.arange(MAX_BITS)), 0.0, 32, 64)
    found = hawq_bits(problem, [120.0, 230.0, 400.0], sensitivities=known)
    assert found.evaluations == 3 and "32 Hessian-vector products" in found.note
    # The formula is the sum of sensitivities: the knapsack is exact.
    np.testing.assert_allclose(found.accuracy, [exact(b) for b in (120.0, 230.0, 400.0)])
    aimed = hawq_bits(problem, target=0.6, sensitivities=known)
    assert abs(aimed.accuracy[aimed.best] - 0.6) < 0.05 and aimed.evaluations <= 10
    with pytest.raises(ValueError, match="a budget or a target"):
        hawq_bits(problem)


def test_nearest_known_evaluates_nothing(problem):
    found = nearest_known(problem, EVERY, accuracy(EVERY), target=0.6, budget=200.0, keep=8)
    assert found.evaluations == problem.ledger.evaluations == 0 and len(found.indices) == 8
    assert (found.cost <= 200.0).all()
    gaps = np.sort(np.abs(accuracy(EVERY) - 0.6)[BYTES <= 200.0])
    np.testing.assert_allclose(np.abs(found.accuracy - 0.6), gaps[:8], atol=1e-12)
    none = nearest_known(problem, EVERY[-1:], accuracy(EVERY[-1:]), budget=100.0)
    assert len(none.indices) == 0 and not none.feasible
    with pytest.raises(ValueError, match="nearest known found no configuration within the budget"):
        _ = none.best


@pytest.mark.parametrize("repair", (True, False))
def test_best_of_random_evaluates_what_the_surrogate_likes(problem, repair):
    guess = lambda designs: accuracy(designs)[:, None]
    found = best_of_random(problem, guess, target=0.6, budget=200.0, n=2000, keep=16, repair=repair)
    assert found.evaluations == 16 and (found.cost <= 200.0).all()
    assert np.abs(found.accuracy - 0.6).max() < 0.02


def test_lowering_to_a_budget_touches_nothing_that_fits(problem):
    wish = BitWish(budget=230.0)
    for rng in (None, np.random.default_rng(0)):
        lowered = fitted(problem, wish, EVERY, rng)
        assert (problem.cost("bytes", lowered) <= 230.0).all() and (lowered <= EVERY).all()
        np.testing.assert_array_equal(lowered[BYTES <= 230.0], EVERY[BYTES <= 230.0])


def test_front_is_exact_and_its_volume_adds_up(problem):
    front = pareto_bits(problem)
    assert problem.ledger.evaluations == 0
    np.testing.assert_allclose(front.accuracy, accuracy(EVERY))
    np.testing.assert_array_equal(front.at(np.arange(len(EVERY))), EVERY)
    for budget in (100.0, 230.0, 330.0):
        assert front.best(budget) == exact(budget)
    on = front.front
    assert (np.diff(front.cost[on]) > 0).all() and (np.diff(front.accuracy[on]) > 0).all()
    assert front.share(front.accuracy, front.cost) == pytest.approx(1.0)
    part = front.share(front.accuracy[on][::3], front.cost[on][::3])
    assert 0.7 < part < 1.0
    # The same area by counting fine cells.
    low, most = front.reference
    budgets = np.linspace(BYTES.min(), most, 20_001)
    heights = np.array(front.accuracy[on])[np.searchsorted(front.cost[on], budgets, side="right") - 1] - low
    assert front.volume == pytest.approx(heights[:-1].mean() * (most - BYTES.min()), rel=1e-3)
    with pytest.raises(ValueError, match="no configuration takes 1 bytes"):
        front.best(1.0)
    with pytest.raises(ValueError, match="configurations, more than 100"):
        pareto_bits(problem, most=100)


def test_hypervolume_by_hand():
    assert hypervolume([0.9, 0.5], [8.0, 2.0], (0.1, 10.0)) == pytest.approx(0.8 * 2 + 0.4 * 6)
    assert hypervolume([0.05, 0.9], [2.0, 12.0], (0.1, 10.0)) == 0.0  # neither is better in both
    assert hypervolume([], [], (0.1, 10.0)) == 0.0
    with pytest.raises(ValueError, match="must be"):
        hypervolume([0.5], [1.0, 2.0], (0.1, 10.0))


def test_layer_features_are_finite_and_tell_layers_apart(problem):
    features = layer_features(problem)
    assert np.isfinite(features).all() and len(np.unique(features, axis=0)) == 4


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"budget": 10.0}, "a budget of 10 bytes fits no configuration of formula: the smallest takes 71"),
        ({"budget": 1.0, "metric": "byte"}, "no metric is called 'byte', did you mean 'bytes'"),
        ({"target": 1.5}, "target must be an accuracy from 0 to 1, got 1.5"),
        ({"evaluations": 0}, "evaluations must be a whole number >= 1, got 0"),
    ],
)
def test_wishes_that_cannot_be_met(problem, asked, message):
    for search in SEARCHES:
        with pytest.raises(ValueError, match=message):
            search(problem, **asked)


def test_limit_is_hard(problem):
    tries = Tries(problem, BitWish(), 3, "test")
    scores = tries(EVERY[[5, 9, 5, 700, 800]])
    assert np.isfinite(scores[:4]).all() and scores[4] == -np.inf
    np.testing.assert_array_equal(tries.result().proposed, [1, 2, 4])
    assert tries.room == 0


@pytest.mark.slow
def test_searches_run_a_real_network():
    splits = training.load("digits")
    images = replace(splits.validation, x=splits.validation.x[:64], y=splits.validation.y[:64])
    tiny = wrap(tiny_network(images.input_shape, images.classes), images, images, "cnn_tiny")
    assert len(tiny.names) == 5 and tiny.space_size == 32_768
    policy = policy_bits(tiny, budget=1500.0, evaluations=32)
    assert (policy.cost <= 1500.0).all() and tiny.ledger.evaluations == policy.evaluations == 32
    np.testing.assert_array_equal(policy.accuracy, tiny.evaluate(policy.indices))
    np.testing.assert_array_equal(layer_features(tiny)[:, 3:7].sum(axis=1), 1)
    found = bit_sensitivities(tiny, samples=2, images=32)
    assert found.table.shape == (5, 8) and (found.table >= 0).all() and found.images == 32
    assert hawq_bits(tiny, 1500.0, sensitivities=found).cost[0] <= 1500.0
