"""AQGAN's flow on a problem with a known answer; the network itself is tested in tests/training."""

import numpy as np
import pytest
from analytic_bits import NAMES, WEIGHTS, Analytic, accuracy, toy_problem

from diffhw import recipes, training


@pytest.fixture(scope="module")
def problem():
    return toy_problem()


@pytest.fixture(scope="module")
def sampled(problem):
    """A training set, and how many evaluations it took."""
    before = problem.ledger.evaluations
    training_set = recipes.sample_bits(problem, 800, rounds=2, members=2, steps=250)
    return training_set, problem.ledger.evaluations - before


@pytest.fixture(scope="module")
def suite(problem, sampled):
    # Whole chunks of 250 and of 100 steps: a rest of another length is compiled as well.
    return recipes.aqgan(
        problem,
        training_set=sampled[0],
        members=2,
        surrogate_steps=500,
        pool=8_000,
        hidden=32,
        steps=300,
        polish=200,
    )


def test_the_training_set_is_distinct_counted_and_spread(sampled):
    (designs, found, aspects), evaluations = sampled
    assert len(np.unique(designs, axis=0)) == len(designs) == evaluations == 800
    assert aspects.shape == (800, 0)
    np.testing.assert_array_equal(found, accuracy(designs))
    plain = accuracy(np.random.default_rng(0).integers(0, 8, (800, 5)))
    spread = lambda values: np.count_nonzero(np.histogram(values, 20, (0.1, 1))[0] >= 16)
    assert spread(found) > spread(plain)


class _Stop(Exception):
    pass


def test_a_stopped_training_set_goes_on_and_evaluates_nothing_twice(problem, tmp_path):
    options = dict(rounds=1, members=1, steps=50)
    whole = recipes.sample_bits(problem, 200, 4, **options)

    def stop(phase, done, total):
        raise _Stop

    with pytest.raises(_Stop):
        recipes.sample_bits(problem, 200, 4, resume=tmp_path / "kept.npz", progress=stop, **options)
    before = problem.ledger.evaluations
    again = recipes.sample_bits(problem, 200, 4, resume=tmp_path / "kept.npz", **options)
    assert problem.ledger.evaluations == before + 140
    np.testing.assert_array_equal(whole.designs, again.designs)
    np.testing.assert_array_equal(whole.accuracy, again.accuracy)
    with pytest.raises(ValueError, match="other settings"):
        recipes.sample_bits(problem, 300, 4, resume=tmp_path / "kept.npz", **options)
    (tmp_path / "kept.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cannot be read as kept evaluations"):
        recipes.sample_bits(problem, 200, 4, resume=tmp_path / "kept.npz", **options)


def test_a_run_tells_the_classes_beside_the_accuracy():
    from diffhw.recipes._bit_front import tiny_network
    from diffhw.recipes._bit_problem import wrap

    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, 8, 8, 1)).astype(np.float32)
    images = training.Data(x, np.arange(70, dtype=np.int32) % 3, 3, "noise")
    tiny = wrap(tiny_network((8, 8, 1), 3), images, images, "cnn_tiny", calibration="mse")
    designs = rng.integers(0, 8, (9, 5))
    found, aspects = tiny.observe(designs)
    np.testing.assert_allclose(found, tiny.evaluate(designs), atol=1e-6)
    assert aspects.shape == (9, 4) and tiny.ledger.evaluations == 18
    shares = np.bincount(images.y) / 70
    np.testing.assert_allclose(aspects[:, :3] @ shares, found, rtol=1e-6)
    assert (aspects[:, 3] > 0).all() and (aspects[:, 3] < 1).all()
    assert tiny.fingerprint != wrap(tiny_network((8, 8, 1), 3), images, images, "cnn_tiny").fingerprint


def test_answers_a_target_within_a_budget(suite, problem):
    full = WEIGHTS.sum()
    answer = suite.ask(0.8, budgets={"bytes": 0.5 * full})
    assert answer.feasible and answer.nearest is None
    assert answer.bits.min() >= 1 and answer.bits.max() <= 8 and len(answer.bits) == 8
    np.testing.assert_array_equal(answer.accuracy, accuracy(answer.bits - 1))
    np.testing.assert_allclose(answer.costs["bytes"], answer.bits @ WEIGHTS / 8)
    assert (answer.costs["bytes"] <= 0.5 * full).all()
    assert np.abs(answer.accuracy - 0.8).max() < 0.02
    assert 0 < answer.evaluations <= 64


def test_says_what_is_nearest_where_nothing_fits(suite):
    every = np.stack([g.ravel() for g in np.meshgrid(*[np.arange(8)] * 5, indexing="ij")], axis=1)
    budget = 0.3 * WEIGHTS.sum()
    best = accuracy(every[(every + 1) @ WEIGHTS / 8 <= budget]).max()
    answer = suite.ask(0.95, budgets={"bytes": budget})
    assert not answer.feasible and "does not fit the budgets" in answer.note
    assert abs(answer.nearest - best) < 0.03
    assert (answer.costs["bytes"] <= budget).all()
    top = suite.ask(budgets={"bytes": budget})
    assert top.accuracy[0] > best - 0.03 and top.accuracy[0] == top.accuracy.max()


def test_asking_without_evaluation_costs_none(suite, problem):
    before = problem.ledger.evaluations
    answer = suite.ask(0.6, evaluate=False)
    assert answer.accuracy is None and answer.evaluations == 0 == problem.ledger.evaluations - before


def test_saved_and_loaded(suite, problem, tmp_path):
    suite.save(tmp_path / "kept")
    again = recipes.load_aqgan(tmp_path / "kept", problem)
    wish = {"accuracy": 0.7, "bytes": 3000.0}
    np.testing.assert_array_equal(suite.propose(wish), again.propose(wish))
    assert again.evaluations == suite.evaluations
    other = Analytic(**{**vars(problem), "names": NAMES[:4], "network": "other"})
    with pytest.raises(
        ValueError, match="made for toy with 5 quantized layers, the network given is other with 4"
    ):
        recipes.load_aqgan(tmp_path / "kept", other)
    trained_again = Analytic(**vars(problem))
    object.__setattr__(trained_again, "fingerprint", "other weights")
    with pytest.raises(ValueError, match="another training of toy"):
        recipes.load_aqgan(tmp_path / "kept", trained_again)
    with pytest.raises(ValueError, match="holds no saved generator"):
        recipes.load_aqgan(tmp_path / "nothing", problem)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (dict(accuracy=0.999), "accuracy 0.999 is out of reach"),
        (
            dict(accuracy=0.5, budgets={"bytes": 10.0}),
            "bytes 10 is out of reach: designs have it from 747 up",
        ),
        (dict(accuracy=0.5, budgets={"energy": 10.0}), "knows no condition 'energy'"),
    ],
)
def test_wishes_out_of_reach(suite, wish, words):
    with pytest.raises(ValueError, match=words):
        suite.ask(**wish)


def test_mistakes(problem):
    with pytest.raises(ValueError, match="at least 100 evaluations, got 5"):
        recipes.sample_bits(problem, 5)
    with pytest.raises(ValueError, match="no metric is called 'joules': known are bytes, bops"):
        recipes.aqgan(problem, budgets=("joules",))
    with pytest.raises(ValueError, match="max_bits must be a whole number from 1 to 16, got 0"):
        recipes.bit_problem(max_bits=0)


def test_what_no_proposal_keeps_is_said_and_never_in_a_suite_of_the_front(suite, problem):
    class Careless(recipes.Aqgan):
        def propose(self, wanted, n=64, seed=0, correct=True):
            return np.full((n, 5), 7)

    careless = Careless(problem, suite.generator, suite.designs, suite.accuracy, 0.0)
    budget = 0.4 * WEIGHTS.sum()
    answer = careless.ask(budgets={"bytes": budget}, evaluate=False)
    assert not answer.feasible and "over them" in answer.note
    least = WEIGHTS.sum() / 8
    chosen = recipes.front_suite(careless, [least, budget])
    assert (problem.cost("bytes", chosen) <= np.array([least, budget]) * (1 + 1e-9)).all()
