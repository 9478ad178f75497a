"""The roofline's inputs, held to an enumeration of every row that a window reaches."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw.models._roofline import touched

SMALL = np.array(list(itertools.product(range(1, 7), range(1, 6), range(1, 5), range(1, 5))), np.float32)
count = jax.jit(touched)


def reached(out, taps, stride, dilation):
    return {a * stride + b * dilation for a in range(int(out)) for b in range(int(taps))}


def test_every_row_reached_is_counted_once():
    """Without padding, on an input that holds all windows: apart, touching and over each other."""
    out, taps, stride, dilation = SMALL.T
    size = (out - 1) * stride + (taps - 1) * dilation + 1
    found = np.asarray(count(out, taps, stride, dilation, np.zeros_like(size), size))
    want = np.array([len(reached(*row)) for row in SMALL])
    both = (stride > 1) & (dilation > 1)
    exact = ~both | (stride == dilation)
    np.testing.assert_array_equal(found[exact], want[exact])
    assert (found <= want).all()
    assert (want[both] < np.minimum(size, out * taps)[both]).any()  # what used to be counted


def test_padding_and_overhang_never_count_too_many():
    rows = np.concatenate([np.c_[SMALL, np.full(len(SMALL), pad)] for pad in range(5)])
    rows = rows[rows[:, 4] <= (rows[:, 1] - 1) * rows[:, 3]]
    extent = (rows[:, 0] - 1) * rows[:, 2] + (rows[:, 1] - 1) * rows[:, 3] + 1
    for shorter in (0, 1, 3):
        inside = np.maximum(extent - rows[:, 4] - shorter, 1)
        found = np.asarray(count(*rows.T, inside.astype(np.float32)))
        sets = [reached(*row[:4]) for row in rows]
        real = np.array(
            [sum(p <= x < p + s for x in one) for one, p, s in zip(sets, rows[:, 4], inside, strict=True)]
        )
        assert (found <= np.maximum(real, 1)).all() and (found >= 1).all()
        dense = np.array([len(one) for one in sets]) == extent
        assert dense.sum() > 200
        np.testing.assert_array_equal(found[dense], real[dense])


@pytest.mark.parametrize("stride, dilation", [(1.0, 1.0), (2.0, 1.0), (2.0, 2.0), (1.0, 3.0)])
def test_slopes_are_those_of_the_count(stride, dilation):
    """One more output (tap) at the point adds what the slope says, where the count is linear there."""
    at = lambda out, taps: touched(out, taps, stride, dilation, 0.0, 100.0)
    slopes = jax.grad(at, (0, 1))(jnp.float32(8.0), jnp.float32(5.0))
    one = float(at(9.0, 5.0) - at(8.0, 5.0)), float(at(8.0, 6.0) - at(8.0, 5.0))
    np.testing.assert_allclose(slopes, one, rtol=1e-6)
