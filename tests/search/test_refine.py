"""Block refinement, local and random search: what they find, and that nothing is counted twice."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import search
from diffhw.search._archive import Archive
from diffhw.spaces import Choice, Integer, Real, Space


def ridge_space():
    return Space({"a": Integer(1, 31, "linear"), "b": Integer(1, 32, "linear"), "c": Choice(("x", "y", "z"))})


def ridge(design):
    """Only a * b = 96 with a = 3 is good: coordinate steps along the ridge make it worse first."""
    return (
        1.0
        + jnp.abs(design["a"] * design["b"] - 96.0)
        + 0.01 * jnp.abs(design["a"] - 3.0)
        + design["c"] @ jnp.array([0.5, 0.0, 0.2])
    )


def test_a_plane_is_scanned_where_coordinates_are_stuck():
    space, start = ridge_space(), [11, 7, 0]  # 12 x 8 = 96
    alone = search.refine(ridge, space, start, blocks=[["a"], ["b"], ["c"]], pairs=False)
    plane = search.refine(ridge, space, start, blocks=[["a", "b"], ["c"]], pairs=False)
    assert alone.choices["a"] == 12 and plane.choices == {"a": 3, "b": 32, "c": "y"}
    assert plane.value == pytest.approx(1.0) and plane.method == "refine"


def test_counts_each_design_once():
    calls = []

    def counted(index):
        calls.append(len(index))
        return plain(index)

    space = ridge_space()
    archive = Archive(ridge, space)
    plain = archive.problem.evaluate
    archive.problem.evaluate = counted
    try:
        from diffhw.search._refine import Refiner

        refiner = Refiner(archive)
        ends = refiner.descend(np.array([[11, 7, 0], [0, 0, 0], [11, 7, 0]]))
        assert (
            archive.evaluations == sum(calls) == len(archive) == len({row.tobytes() for row in archive.index})
        )
        before = archive.evaluations
        refiner.descend(np.array([[11, 7, 0]]))
        assert archive.evaluations == before
        assert archive.best_of(ends) == archive.best_row
    finally:
        archive.problem.evaluate = plain
    # The whole plane of a and b, the three choices, and a few pair moves.
    assert 992 < before < 2600


def test_default_blocks_group_by_size():
    space = Space(
        [Choice(("a", "b", "c")), *[Integer(1, 25) for _ in range(2)], *[Integer(1, 8) for _ in range(3)]]
    )
    assert search.default_blocks(space) == [[1, 2], [3, 4, 5], [0]]
    wide = Space([Integer(1, 5000), Integer(1, 10)])
    assert search.default_blocks(wide) == [[0, 1]]  # the long one is a ladder of about 27


def test_long_and_continuous_variables_are_laddered():
    space = Space({"n": Integer(1, 100_000, "linear"), "x": Real(0.1, 10.0)})
    cost = lambda design: 1 + jnp.abs(design["n"] - 77_777) + jnp.abs(jnp.log(design["x"] / 2.0))
    result = search.refine(cost, space, [[5, 5], [90_000, 1_000_000]])
    assert result.choices["n"] == 77_777 and result.choices["x"] == pytest.approx(2.0, rel=1e-4)
    assert result.space_size == np.inf and result.evaluations < 20_000


def test_budget_is_kept_to_the_design():
    result = search.refine(ridge, ridge_space(), [11, 7, 0], budget=100)
    assert result.evaluations == 100 == len(result.seen)
    result = search.random_search(ridge, ridge_space(), 0, budget=77)
    assert result.evaluations == 77
    result = search.local_search(ridge, ridge_space(), 0, budget=500, starts=4)
    assert result.evaluations == 500


def test_feasible_comes_first():
    space = ridge_space()
    result = search.refine(ridge, space, [0, 0, 0], constraints=[(lambda d: d["b"], 16.0, "b")])
    assert result.feasible and result.choices["b"] == 16 and result.choices["a"] == 6
    assert result.binding == "b" and result.constraint_values == {"b": 16.0}


@pytest.mark.parametrize("start", [[1, 2], [[1, 2, 3, 4]]])
def test_starts_must_be_index_vectors(start):
    with pytest.raises(ValueError, match="3 entries"):
        search.refine(ridge, ridge_space(), start)


def test_blocks_must_name_variables():
    with pytest.raises(ValueError, match="no variable is called 'aa'; did you mean 'a'"):
        search.refine(ridge, ridge_space(), [0, 0, 0], blocks=[["aa"]])
    with pytest.raises(ValueError, match="0 to 2"):
        search.refine(ridge, ridge_space(), [0, 0, 0], blocks=[[7]])


def test_random_search_exhausts_a_small_space():
    space = Space({"a": Integer(1, 8), "b": Integer(1, 8)})
    result = search.random_search(lambda d: d["a"] / d["b"], space, 3, budget=10_000)
    assert result.evaluations == 64 and result.value == pytest.approx(1 / 8)


def test_baselines_find_their_way_and_repeat_themselves(toy):
    arguments = dict(constraints=toy.constraints, metrics=("latency_s", "energy_j"))
    drawn = [
        search.random_search(toy.objective, toy.space, seed, budget=5000, **arguments) for seed in (0, 0, 1)
    ]
    assert np.array_equal(drawn[0].seen.index, drawn[1].seen.index)
    assert not np.array_equal(drawn[0].seen.index, drawn[2].seen.index)
    assert 1.0 <= drawn[0].value / toy.best < 1.3
    local = search.local_search(toy.objective, toy.space, 0, budget=20_000, **arguments)
    assert local.value / toy.best < 1.02 and local.method == "local"


def test_resumed_search_goes_on(toy):
    arguments = dict(constraints=toy.constraints, metrics=("latency_s", "energy_j"))
    first = search.random_search(toy.objective, toy.space, 0, budget=4096, **arguments)
    more = search.random_search(toy.objective, toy.space, 0, budget=8192, resume=first, **arguments)
    assert more.evaluations == len(more.seen) == 8192 and more.rounds > first.rounds
    assert np.array_equal(more.seen.index[:4096], first.seen.index)
    assert more.value <= first.value and more.history["evaluations"][-1] == 8192
    with pytest.raises(ValueError, match="other constraints or metrics"):
        search.random_search(toy.objective, toy.space, 0, resume=first)


def test_widening_crosses_what_the_limit_forbids(toy):
    """The optimum has a larger array and smaller buffers; no legal scan around the trap leads there."""
    trap = {"array.cols": 76, "array.rows": 54, "buffers.0": 8192, "buffers.1": 32768, "flow": 0}
    start = [
        slot.variable.index_of(trap[slot.name]) if slot.name != "flow" else 0 for slot in toy.space.variables
    ]
    arguments = dict(constraints=toy.constraints, metrics=("latency_s", "energy_j"))
    stuck = search.refine(toy.objective, toy.space, start, widen=0, **arguments)
    freed = search.refine(toy.objective, toy.space, start, **arguments)
    assert stuck.value / toy.best > 1.01
    assert freed.value == pytest.approx(toy.best, rel=1e-12)
