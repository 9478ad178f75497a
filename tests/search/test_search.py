"""Gradient search: the optimum of an enumerable space, constraints, honest counts, what a result says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import search
from diffhw.search._archive import Archive
from diffhw.search._gradient import _Descent
from diffhw.spaces import Choice, Integer, Real, Space

METRICS = ("latency_s", "energy_j")


@pytest.fixture(scope="module")
def found(toy):
    return [
        search.gradient(toy.objective, toy.space, seed, constraints=toy.constraints, metrics=METRICS)
        for seed in range(5)
    ]


def test_finds_the_enumerated_optimum(toy, found):
    gaps = [result.value / toy.best - 1 for result in found]
    assert max(gaps) <= 0.01
    assert all(result.feasible and result.violation == 0 for result in found)
    # At a cost of 8 per gradient, which is far from what this toy measures.
    assert max(len(result.seen) + 8 * result.gradient_evaluations for result in found) < 60_000


def test_every_design_seen_is_legal_and_its_figures_are_right(toy, found):
    seen = found[0].seen
    assert seen.names == ("objective", "area_mm2", *METRICS)
    assert (seen.index >= 0).all() and (seen.index < np.array(toy.space.sizes)).all()
    flat = np.array([toy.space.to_flat(row) for row in seen.index])
    assert len(set(flat)) == len(flat)
    np.testing.assert_allclose(seen.figures[:, 0], toy.truth.edp[flat], rtol=2e-6)
    np.testing.assert_allclose(seen.figures[:, 1], toy.truth.area[flat], rtol=2e-6)


def test_counts_add_up(found):
    for result in found:
        gradients = result.gradient_evaluations
        assert gradients == 64 * 60 and result.gradient_cost >= 1
        scanned = result.evaluations - gradients * result.gradient_cost
        # What the runs passed and refinement met again was not evaluated again.
        assert scanned == pytest.approx(round(scanned), abs=1e-3) and 0 < scanned <= len(result.seen)
        history = result.history
        assert history["evaluations"][-1] == result.evaluations
        assert (np.diff(history["evaluations"]) >= 0).all() and (np.diff(history["seconds"]) >= 0).all()
        assert (np.diff(history["best"][np.isfinite(history["best"])]) <= 0).all()
        assert result.seconds > 0


def test_same_key_same_answer(toy, found):
    again = search.gradient(
        toy.objective, toy.space, jax.random.key(3), constraints=toy.constraints, metrics=METRICS
    )
    assert np.array_equal(again.seen.index, found[3].seen.index) and again.value == found[3].value
    assert not np.array_equal(found[0].seen.index, found[3].seen.index)
    assert again.seed == 3 and again.key_data == found[3].key_data
    assert again.compile_seconds == 0  # the same function and space share their programs


def test_gradients_reach_every_variable(toy):
    archive = Archive(toy.objective, toy.space, constraints=toy.constraints, metrics=METRICS)
    run = _Descent(archive, 64, 10, 60, 0.3, 0.05, (1.0, 0.1), 20.0)
    params, _, _, multipliers, seeds = run.start(np.random.default_rng(0))
    slope = jax.jit(jax.vmap(jax.grad(lambda *a: run._loss(*a)[0]), in_axes=(0, 0, None, None, 0)))
    slopes = slope(params, multipliers, np.array([1.5], np.float32), np.float32(1.0), seeds)
    for name, values in slopes.items():
        assert np.isfinite(values).all()
        # Not everywhere: a choice of dataflow does not matter where bandwidth bounds every layer.
        assert (np.abs(values).reshape(64, -1).max(axis=1) > 0).mean() > 0.5, name


def test_constraints_are_met_and_the_binding_one_is_named(toy, found):
    assert {result.binding for result in found} == {"area_mm2"}
    both = search.gradient(
        toy.objective,
        toy.space,
        0,
        constraints=[(toy.area, 1.5), ("latency_s", 9e-4, "latency")],
        restarts=32,
        steps=20,
    )
    legal = (toy.truth.area <= 1.5) & (toy.truth.latency <= 9e-4)
    assert legal.any() and both.feasible
    assert both.constraint_values["latency"] <= 9e-4 and both.limits == {"area_mm2": 1.5, "latency": 9e-4}
    assert both.value / toy.truth.edp[legal].min() - 1 <= 0.01


def test_an_impossible_limit_is_reported(toy):
    smallest = toy.truth.area.min()
    result = search.gradient(
        toy.objective, toy.space, 0, constraints=[(toy.area, smallest / 4)], metrics=METRICS
    )
    assert not result.feasible and result.binding == "area_mm2"
    assert result.violation == pytest.approx(3.0) and len(result.pareto) == 0
    assert np.isinf(result.history["best"]).all()
    assert "INFEASIBLE" in repr(result) and "area_mm2 exceeded by at least 300 %" in repr(result)


def test_budget_holds(toy):
    result = search.gradient(
        toy.objective, toy.space, 0, constraints=toy.constraints, metrics=METRICS, budget=6000
    )
    assert result.evaluations <= 6000
    none_left = search.gradient(
        toy.objective, toy.space, 0, constraints=toy.constraints, metrics=METRICS, budget=500
    )
    assert none_left.gradient_evaluations == 0 and none_left.evaluations == 500


def test_resume_adds_a_round(toy, found):
    more = search.gradient(
        toy.objective, toy.space, 0, constraints=toy.constraints, metrics=METRICS, resume=found[0]
    )
    assert more.rounds == 2 and more.gradient_evaluations == 2 * 3840
    assert np.array_equal(more.seen.index[: len(found[0].seen)], found[0].seen.index)
    assert more.value <= found[0].value and more.evaluations > found[0].evaluations
    polished = search.refine(
        toy.objective,
        toy.space,
        [0, 0, 0, 0, 0],
        constraints=toy.constraints,
        metrics=METRICS,
        resume=found[0],
    )
    assert polished.gradient_cost == found[0].gradient_cost and polished.value <= found[0].value


def test_pareto_and_path(toy, found):
    result = found[0]
    assert result.pareto.names == METRICS and len(result.pareto) >= 1
    assert (np.diff(result.pareto.figures[:, 0]) > 0).all() and (
        np.diff(result.pareto.figures[:, 1]) < 0
    ).all()
    assert len(result.visited) == 3840 and result.visited.names == result.seen.names
    legal = result.seen.figures[result.seen.figures[:, 1] <= 1.5]
    for point in result.pareto.figures:
        assert not np.any(np.all(legal[:, 2:] < point, axis=1))
    assert (np.diff(result.top.figures[:, 0]) >= 0).all()


def test_without_metrics_the_front_is_over_objective_and_constraints():
    space = Space({"x": Integer(1, 32), "y": Integer(1, 32)})
    result = search.refine(
        lambda d: 1 / d["x"], space, [0, 0], constraints=[(lambda d: d["x"] * d["y"], 16, "area")]
    )
    assert result.pareto.names == ("objective", "area")
    assert result.pareto.figures[:, 1].tolist() == list(range(16, 0, -1))


def test_certified_by_keeps_the_answer(toy, found):
    proof = search.enumeration(toy.objective, toy.space, constraints=toy.constraints, metrics=METRICS)
    judged = found[0].certified_by(proof)
    assert judged.certified and judged.value == found[0].value
    assert judged.optimality_gap == pytest.approx(found[0].value / toy.best - 1, abs=1e-12)
    with pytest.raises(ValueError, match="not certified"):
        proof.certified_by(found[0])


def test_result_shows_itself(found):
    text, page = repr(found[0]), found[0]._repr_html_()
    for word in (
        "array.rows",
        "objective",
        "area_mm2",
        "<= 1.5",
        "(binds)",
        "of 120,000 designs",
        "gradients",
    ):
        assert word in text
    assert page.startswith("<table>") and "&lt;= 1.5" in page
    assert json.loads(json.dumps(found[0].figures()))["choices"] == found[0].choices


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (dict(constraints=[(lambda d: d["x"], 0.0, "x")]), "limit of x must be finite and > 0, got 0"),
        (
            dict(constraints=[(lambda d: d["x"], float("nan"))]),
            "constraint 0 must be finite and > 0, got nan",
        ),
        (dict(constraints=[lambda d: d["x"]]), "a constraint is"),
        (dict(constraints=[("area", 1.0)]), "no figure 'area'"),
        (dict(constraints=[(lambda d: d["x"], 1.0, "x"), (lambda d: d["x"], 2.0, "x")]), "two constraints"),
        (dict(budget=-1), "budget must be > 0"),
        (dict(budget=float("nan")), "budget must be > 0"),
        (dict(restarts=0), "restarts must be >= 1"),
        (dict(metrics=(lambda d: jnp.stack([d["x"], d["x"]]),)), "must return a scalar"),
    ],
)
def test_mistakes_are_named(more, words):
    with pytest.raises(ValueError, match=words):
        search.gradient(lambda d: d["x"], Space({"x": Integer(1, 4)}), 0, **more)


def small(design):
    return 1 + (jnp.log(design["x"] / 3.0)) ** 2 + design["c"] @ jnp.array([1.0, 0.0, 0.5])


@pytest.mark.parametrize("relax", ["straight_through", "softmax", "gumbel"])
def test_every_relaxation_ends_in_a_legal_design(relax):
    space = Space({"x": Real(0.1, 100.0), "c": Choice(("p", "q", "r"), relax=relax)})
    result = search.gradient(small, space, 0, restarts=8, steps=20, update_every=10)
    assert result.choices["c"] == "q" and result.choices["x"] == pytest.approx(3.0, rel=1e-3)
    assert result.best["c"].tolist() == [0, 1, 0] and result.binding is None


def test_not_a_number_on_the_way_does_no_harm():
    space = Space({"x": Integer(1, 64), "c": Choice(("p", "q", "r"))})
    holes = lambda d: jnp.where((d["x"] > 10) & (d["x"] < 20), jnp.nan, small(d))
    result = search.gradient(holes, space, 0, restarts=8, steps=20)
    assert result.choices == {"c": "q", "x": 3} and result.value == pytest.approx(1.0)


def test_progress_is_told(toy):
    told = []
    result = search.gradient(
        toy.objective,
        toy.space,
        0,
        constraints=toy.constraints,
        metrics=METRICS,
        progress=lambda done, total, best: told.append((done, total, best)),
    )
    assert told[-1][0] == result.evaluations and all(done <= total for done, total, _ in told)


def test_captured_arrays_of_the_wrong_width_are_explained():
    weights = jnp.ones(3)

    def scanned(design):
        total, _ = jax.lax.scan(lambda sum_, w: (sum_ + w * design["x"], None), weights[0], weights)
        return total

    with pytest.raises(TypeError) as caught:
        search.gradient(scanned, Space({"x": Integer(1, 4)}), 0, restarts=2, steps=1)
    assert "traced in float64 too" in " ".join(caught.value.__notes__)
