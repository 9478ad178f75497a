"""Enumeration: certified against a separate numpy oracle, whole, in chunks, sharded, resumed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import search
from diffhw.spaces import Choice, Integer, Real, Space

METRICS = ("latency_s", "energy_j")


@pytest.fixture(scope="module")
def whole(toy):
    return search.enumeration(
        toy.objective,
        toy.space,
        constraints=toy.constraints,
        metrics=METRICS,
        devices=jax.local_devices()[:1],
    )


def test_the_oracle_and_the_objective_agree(toy):
    rows = np.asarray(toy.space.sample(jax.random.key(0), 50))
    with jax.enable_x64(True):
        values, named = jax.jit(jax.vmap(lambda row: toy.objective(toy.space.at(row))))(jnp.asarray(rows))
    flat = [toy.space.to_flat(row) for row in rows]
    np.testing.assert_allclose(values, toy.truth.edp[flat], rtol=1e-12)
    np.testing.assert_allclose(named["latency_s"], toy.truth.latency[flat], rtol=1e-12)


def test_finds_the_optimum_to_the_last_digit(toy, whole):
    assert whole.certified and whole.optimality_gap == 0 and whole.feasible
    assert whole.value == pytest.approx(toy.best, rel=1e-12)
    assert whole.evaluations == toy.space.size == 120_000
    flat = toy.space.to_flat(whole.best_index)
    assert toy.truth.area[flat] == pytest.approx(whole.constraint_values["area_mm2"], rel=1e-12)
    assert float(toy.objective(whole.best)[0]) == pytest.approx(toy.best, rel=1e-5)


def test_top_is_the_exact_best_few(toy, whole):
    legal = np.where(toy.truth.area <= 1.5, toy.truth.edp, np.inf)
    np.testing.assert_allclose(whole.top.figures[:, 0], np.sort(legal)[:16], rtol=1e-12)
    flat = [toy.space.to_flat(row) for row in whole.top.index]
    assert len(set(flat)) == 16
    np.testing.assert_allclose(legal[flat], whole.top.figures[:, 0], rtol=1e-12)


def test_pareto_set_is_exact(toy, whole):
    legal = np.flatnonzero(toy.truth.area <= 1.5)
    # float32 decides ties here as it does in the sweep
    points = np.stack([toy.truth.latency, toy.truth.energy], 1)[legal]
    front = points[search.nondominated(points)]
    assert whole.pareto.names == METRICS
    for point in front:
        assert np.any(np.all(np.abs(whole.pareto.figures / point - 1) < 2e-6, axis=1))
    for point in whole.pareto.figures:
        assert not np.any(np.all(front < point * (1 - 2e-6), axis=1))


def test_without_metrics_the_front_is_over_objective_and_constraints():
    space = Space({"x": Integer(1, 32), "y": Integer(1, 32)})
    area = lambda d: d["x"] * d["y"]
    result = search.enumeration(lambda d: 1 / d["x"], space, constraints=[(area, 16, "area")], chunk=64)
    assert result.pareto.names == ("objective", "area")
    assert result.pareto.figures[:, 1].tolist() == list(range(16, 0, -1))


def test_binding_constraint(toy, whole):
    assert whole.binding == "area_mm2"
    loose = search.enumeration(toy.objective, toy.space, constraints=[(toy.area, 1e3)], metrics=METRICS)
    assert loose.binding is None and loose.value == pytest.approx(toy.truth.edp.min(), rel=1e-12)


def test_sharded_equals_unsharded(toy, whole):
    assert len(jax.local_devices()) == 4
    sharded = search.enumeration(
        toy.objective, toy.space, constraints=toy.constraints, metrics=METRICS, chunk=8192
    )
    assert sharded.value == whole.value
    np.testing.assert_array_equal(sharded.best_index, whole.best_index)
    np.testing.assert_array_equal(sharded.top.index, whole.top.index)
    np.testing.assert_allclose(sharded.pareto.figures, whole.pareto.figures, rtol=1e-6)


def test_stops_at_the_budget_and_resumes(toy, whole):
    call = lambda **more: search.enumeration(
        toy.objective,
        toy.space,
        constraints=toy.constraints,
        metrics=METRICS,
        devices=jax.local_devices()[:1],
        **more,
    )
    part = call(budget=40_000)
    assert not part.certified and part.optimality_gap is None and part.evaluations == 65_536
    rest = call(resume=part)
    assert rest.certified and rest.evaluations == 120_000 and rest.value == whole.value
    np.testing.assert_array_equal(rest.top.index, whole.top.index)
    assert len(rest.history["best"]) == len(whole.history["best"])


def test_infeasible_names_the_nearest_design(toy):
    smallest = toy.truth.area.min()
    result = search.enumeration(toy.objective, toy.space, constraints=[(toy.area, smallest / 2, "die")])
    assert not result.feasible and result.certified and result.optimality_gap is None
    assert result.violation == pytest.approx(1.0) and result.binding == "die"
    assert result.constraint_values["die"] == pytest.approx(smallest)
    assert len(result.pareto) == len(result.top) == 0 and "INFEASIBLE" in repr(result)


def test_a_limit_exactly_at_a_design_is_met():
    # 0.1 * 7 is above 0.7 in float32 and in float64 it is not the float32 limit: float64 decides.
    space = Space({"x": Integer(1, 20, "linear")})
    use = lambda design: design["x"] * 0.1
    result = search.enumeration(lambda design: 1 / design["x"], space, constraints=[(use, 7 * 0.1, "use")])
    assert result.choices["x"] == 7 and result.feasible


def test_not_a_number_is_infeasible():
    space = Space({"x": Integer(1, 20, "linear"), "unused": Choice(("a", "b", "c"))})
    odd = lambda design: jnp.where(design["x"] < 5, jnp.nan, design["x"])
    result = search.enumeration(odd, space, chunk=16)
    assert result.choices == {"unused": "a", "x": 5} and result.value == 5
    with pytest.raises(ValueError, match="not a number for any"):
        search.enumeration(lambda design: design["x"] * jnp.nan, space)


def test_float64_decides_between_neighbours_that_float32_confuses():
    space = Space({"x": Integer(0, 4095, "linear")})
    close = lambda design: 1e4 + ((design["x"] - 2741) * 1e-4) ** 2
    assert search.enumeration(close, space, chunk=1024).choices["x"] == 2741


def test_continuous_spaces_are_refused():
    with pytest.raises(ValueError, match="x cannot be enumerated"):
        search.enumeration(lambda design: design["x"], Space({"x": Real(1, 2)}))


def test_progress_reaches_the_end(toy):
    seen = []
    search.enumeration(
        toy.objective,
        toy.space,
        constraints=toy.constraints,
        metrics=METRICS,
        devices=jax.local_devices()[:1],
        progress=lambda done, total, best: seen.append((done, total, best)),
    )
    assert seen[-1][0] == 120_000 and seen[-1][2] == pytest.approx(toy.best, rel=1e-5)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_nondominated_equals_the_definition(columns):
    points = np.random.default_rng(0).integers(0, 6, (80, columns)).astype(float)
    points[3] = np.nan
    kept = search.nondominated(points)
    beats = lambda a, b: np.all(a <= b) and np.any(a < b)
    wanted = [
        i for i in range(80) if i != 3 and not any(beats(points[j], points[i]) for j in range(80) if j != 3)
    ]
    assert {tuple(points[i]) for i in kept} == {tuple(points[i]) for i in wanted}
    assert len({tuple(points[i]) for i in kept}) == len(kept)
