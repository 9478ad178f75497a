"""Tiling against itertools, and Order."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw.spaces import Order, Space, Tiling


def legal(extent, slots, limits, ceil):
    """All factorisations, by trying everything; with ceil each chain of amounts left once."""
    found = set()
    for factors in itertools.product(range(1, extent + 1), repeat=slots):
        rest = extent
        for f in factors:
            smallest = rest % f == 0 or all(-(-rest // g) != -(-rest // f) for g in range(1, f))
            smallest &= not any(-(-rest // g) == -(-rest // f) for g in range(1, f))
            if not smallest or (not ceil and rest % f):
                break
            rest = -(-rest // f)
        else:
            if rest == 1 and all(f <= limit for f, limit in zip(factors, limits, strict=True)):
                found.add(factors)
    return found


CASES = [
    (12, 3, (math.inf,) * 3, False),
    (12, 3, (2, math.inf, 3), False),
    (8, 1, (math.inf,), False),
    (1, 2, (math.inf,) * 2, False),
    (7, 3, (math.inf,) * 3, True),
    (10, 2, (4, math.inf), True),
    (9, 3, (2, 4, 3), True),
]


@pytest.mark.parametrize(("extent", "slots", "limits", "ceil"), CASES)
def test_holds_every_factorisation_once(extent, slots, limits, ceil):
    tiling = Tiling(extent, slots, ceil=ceil, limits=limits)
    want = legal(extent, slots, limits, ceil)
    got = [tiling.factors(i) for i in range(tiling.size)]
    assert len(got) == len(set(got)) and set(got) == want
    traced = jax.jit(jax.vmap(tiling.at))(jnp.arange(tiling.size))
    np.testing.assert_array_equal(np.stack(traced, 1), got)
    for i, factors in enumerate(got):
        assert tiling.index_of(factors) == i
        assert set(tiling.steps(i)) <= set(range(tiling.size)) - {i}


@pytest.mark.parametrize(("extent", "slots", "limits", "ceil"), CASES[:2] + CASES[4:])
def test_steps_join_everything(extent, slots, limits, ceil):
    tiling = Tiling(extent, slots, ceil=ceil, limits=limits)
    reached, front = {0}, [0]
    while front:
        front = [j for i in front for j in tiling.steps(i) if j not in reached]
        reached.update(front)
    assert len(reached) == tiling.size


@pytest.mark.parametrize(("extent", "slots", "limits", "ceil"), CASES[:2] + CASES[4:])
def test_parameters_decode_to_legal_factors_with_slopes(extent, slots, limits, ceil):
    tiling = Tiling(extent, slots, ceil=ceil, limits=limits)
    uniform = jax.random.uniform(jax.random.key(0), (200, *tiling.param_shape))
    params = jax.vmap(tiling.init)(uniform)
    decoded = jax.vmap(lambda p: jnp.stack(tiling.decode(p, 1.0, None)))(params)
    index = jax.vmap(tiling.index)(params)
    np.testing.assert_array_equal(decoded, np.stack(jax.vmap(tiling.at)(index), 1))
    # More of one slot, less of the one that takes the rest; their product keeps.
    slope = jax.jacobian(lambda p: jnp.log(jnp.stack(tiling.decode(p, 1.0, None))))(params[0])
    assert np.all(np.abs(slope).sum(axis=0) > 0)
    np.testing.assert_allclose(slope.sum(axis=0), 0, atol=1e-6)


def test_within_a_space():
    space = Space({"tile": Tiling(12, 2), "order": Order(("pk", "kp"))})
    assert space.size == 12
    design = space.at([1, 3])
    assert sorted(space.names) == ["order", "tile"]
    assert np.prod([float(f) for f in design["tile"]]) == 12
    assert space.index_of(design).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Tiling(0, 2), "extent must be a whole number >= 1, got 0"),
        (lambda: Tiling(2.5, 2), "extent must be a whole number >= 1, got 2.5"),
        (lambda: Tiling(4, 0), "slots must be a whole number >= 1, got 0"),
        (lambda: Tiling(4, 2, limits=(1,)), r"one entry per slot \(2\), got 1"),
        (lambda: Tiling(7, 2, limits=(2, 3)), "no factorisation of 7 into 2 slots"),
        (lambda: Tiling(2**40, 12), "can be numbered"),
        (lambda: Tiling(12, 2).index_of((5, 2)), "5x2 is not legal: choose one that multiplies to 12"),
        (lambda: Tiling(12, 2).index_of((12,)), "needs 2 factors, got 1"),
        (lambda: Order({"a": "pk", "b": "pq"}), "'b' must name each of the loops 'kp' once, got 'pq'"),
    ],
)
def test_mistakes(make, words):
    with pytest.raises(ValueError, match=words):
        make()
