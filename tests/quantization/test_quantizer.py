"""Grids, straight-through slopes, real-valued bits, calibration: against loops in plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw.quantization import (
    FULL_BITS,
    GRIDS,
    Quantizer,
    QuantSpec,
    calibrate,
    code_range,
    fake_quantize,
    interpolate,
    quantize_codes,
)
from diffhw.quantization._calibrate import FACTORS, mse_ranges, squared_error

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)


def reference(x, bits, grid, low, high, mean):
    """One value at a time, in Python floats, with the quantizer's own step."""
    step = 1 / float(calibrate(x, QuantSpec(grid)).inverse[bits - 1])
    out = []
    for value in x.ravel().tolist():
        if grid == "symmetric" and bits == 1:
            out.append(step if value >= 0 else -step)
            continue
        bottom, top = {
            "symmetric": (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1),
            "unsigned": (0, 2**bits - 1),
            "affine": (0, 2**bits - 1),
        }[grid]
        zero = round(-min(low, 0) / step) if grid == "affine" else 0
        code = min(max(round(value / step) + zero, bottom), top)
        out.append((code - zero) * step)
    # The step itself: the range over the number of steps, to 12 bits.
    expected = {
        "symmetric": mean if bits == 1 else max(-low, high) / (2 ** (bits - 1) - 1 if bits > 1 else 1),
        "unsigned": high / (2**bits - 1),
        "affine": (max(high, 0) - min(low, 0)) / (2**bits - 1),
    }[grid]
    assert abs(step / expected - 1) < 2**-12
    return np.reshape(out, x.shape)


@pytest.mark.parametrize("grid", ["symmetric", "unsigned", "affine"])
def test_whole_bits_equal_the_loop(grid):
    x = np.abs(X) if grid == "unsigned" else X
    quantizer = calibrate(x, QuantSpec(grid))
    for bits in (1, 2, 3, 5, 8, 11, 16):
        want = reference(x, bits, grid, float(x.min()), float(x.max()), float(np.abs(x).mean()))
        np.testing.assert_allclose(quantizer(x, float(bits)), want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(quantizer(x, float(bits), whole=True), want, rtol=1e-5, atol=1e-6)
        assert len(np.unique(np.asarray(quantizer.codes(x, bits)))) <= 2**bits


def test_code_ranges():
    for bits in range(1, 17):
        low, high = (float(v) for v in code_range(bits))
        assert (low, high) == ((-1, 1) if bits == 1 else (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1))
        assert [float(v) for v in code_range(bits, signed=False)] == [0, 2**bits - 1]
        assert float(code_range(bits, narrow=False)[0]) == -(2 ** (bits - 1))


def test_full_precision_is_the_value_itself():
    quantizer = calibrate(X)
    for bits in (17.0, 20.0, FULL_BITS):
        np.testing.assert_array_equal(quantizer(X, bits), X)
    halfway = np.asarray(quantizer(X, 16.5))
    np.testing.assert_allclose(halfway, (X + np.asarray(quantizer(X, 16.0))) / 2, rtol=1e-6, atol=1e-7)


def test_per_channel_is_each_channel_alone():
    quantizer = calibrate(X, QuantSpec(channel_axis=-1))
    assert quantizer.inverse.shape == (16, 6)
    for bits in (1.0, 3.0, 4.5):
        alone = [calibrate(X[:, i])(X[:, i], bits) for i in range(6)]
        np.testing.assert_allclose(quantizer(X, bits), np.stack(alone, 1), rtol=1e-6)


def test_widths_per_channel_are_each_channel_alone():
    quantizer = calibrate(X, QuantSpec(channel_axis=-1))
    widths = jnp.array([1.0, 2.5, 3.0, 8.0, 16.5, 17.0])
    alone = [calibrate(X[:, i])(X[:, i], b) for i, b in enumerate(widths)]
    np.testing.assert_allclose(quantizer(X, widths), np.stack(alone, 1), rtol=1e-5, atol=1e-6)
    weights = RNG.normal(size=X.shape).astype(np.float32)
    slope = jax.jit(jax.grad(lambda b: jnp.sum(weights * quantizer(X, b))))(widths)
    for i, b in enumerate(widths):
        one = lambda b, i=i: jnp.sum(weights[:, i] * calibrate(X[:, i])(X[:, i], b))
        np.testing.assert_allclose(slope[i], jax.grad(one)(b), rtol=1e-3, atol=1e-4)
    assert np.count_nonzero(slope) == 5  # all but the one in full precision
    first = calibrate(X.T, QuantSpec(channel_axis=0))
    np.testing.assert_allclose(first(X.T, widths), quantizer(X, widths).T, rtol=1e-6)
    with pytest.raises(ValueError, match=r"shape \(5,\) do not fit a quantizer with 6 channels"):
        quantizer(X, widths[:5])
    with pytest.raises(ValueError, match="with one step"):
        calibrate(X)(X, widths)


def test_fake_quantize_takes_widths_per_channel():
    bits, scale = np.array([[2, 3, 4, 5, 6, 8]]), np.full((1, 6), 0.25, np.float32)
    got = np.asarray(fake_quantize(X, bits, scale))
    for i in range(6):
        np.testing.assert_array_equal(got[:, i], fake_quantize(X[:, i], int(bits[0, i]), 0.25))


# ---- Real-valued bits ------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [QuantSpec(), QuantSpec("affine"), QuantSpec(channel_axis=-1)])
def test_between_whole_widths_the_value_is_interpolated(spec):
    quantizer = calibrate(X, spec)
    for low, t in ((1, 0.25), (3, 0.5), (7, 0.75)):
        below, above = np.asarray(quantizer.at(X, low)), np.asarray(quantizer.at(X, low + 1))
        np.testing.assert_allclose(quantizer(X, low + t), (1 - t) * below + t * above, rtol=1e-5, atol=1e-6)


def test_gradient_in_bits_is_the_difference_of_the_neighbours():
    quantizer = calibrate(X)
    weights = RNG.normal(size=X.shape).astype(np.float32)
    slope = jax.jit(jax.grad(lambda b: jnp.sum(weights * quantizer(X, b))))
    for bits in (2.0, 2.6, 5.0, 16.3):
        low = np.floor(bits)
        above = X if low == 16 else np.asarray(quantizer.at(X, low + 1))
        want = np.sum(weights * (above - np.asarray(quantizer.at(X, low))))
        np.testing.assert_allclose(slope(bits), want, rtol=2e-4, atol=1e-5)
    assert float(slope(20.0)) == 0
    np.testing.assert_allclose(slope(0.3), slope(1.0), rtol=1e-6)  # outside, the nearest slope
    assert float(jax.grad(lambda b: jnp.sum(quantizer(X, b, whole=True)))(3.0)) == 0


def test_interpolate_is_exact_at_whole_bits():
    for bits in (1.0, 4.0, 16.0, 17.0):
        assert float(interpolate(lambda n: 0.1 * n, bits)) == float(np.float32(0.1) * np.float32(bits))


def test_bits_batch_and_compile_once():
    quantizer = calibrate(X)
    widths = jnp.array([1.0, 2.5, 4.0, 8.0, 17.0])
    batched = jax.jit(jax.vmap(lambda b: quantizer(X, b)))(widths)
    for got, b in zip(batched, widths):
        np.testing.assert_allclose(got, quantizer(X, b), rtol=1e-6, atol=1e-7)


# ---- Slopes in the values and the scale ------------------------------------------------------------


def test_straight_through():
    inside = jax.grad(lambda x: fake_quantize(x, 3, 0.5))
    assert [float(inside(v)) for v in (0.3, 1.4, -1.5, 2.0, -2.0)] == [1, 1, 1, 0, 0]
    quantizer = calibrate(X)
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(quantizer(x, 4.3)))(X), np.ones_like(X), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(quantizer(x, 1.0)))(X), np.ones_like(X), rtol=1e-5)


def test_slope_in_the_scale():
    slope = jax.grad(lambda s, x: fake_quantize(x, 3, s), argnums=0)
    for x, want in ((0.6, 1 - 1.2), (0.3, 1 - 0.6), (-0.3, -1 + 0.6), (9.0, 3), (-9.0, -3)):
        assert float(slope(0.5, x)) == pytest.approx(want, abs=1e-6)


def test_affine_zero_is_exact():
    x = np.array([-0.3, 0.0, 1.7], np.float32)
    for bits in range(1, 17):
        assert float(calibrate(x, QuantSpec("affine"))(x, float(bits))[1]) == 0.0


# ---- Calibration -----------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", ["symmetric", "unsigned", "affine"])
def test_mse_beats_every_other_share_of_the_range(grid):
    x = np.abs(X) if grid == "unsigned" else X
    rows = x.reshape(1, -1).astype(np.float64)
    low, high = mse_ranges(rows, grid)
    full_low, full_high = (-np.abs(rows).max(1), np.abs(rows).max(1)) if grid == "symmetric" else (
        rows.min(1), rows.max(1),
    )  # fmt: skip
    for bits in (2, 3, 4, 6):
        best = squared_error(rows, bits, low[bits - 1], high[bits - 1], grid)
        every = [squared_error(rows, bits, full_low * f, full_high * f, grid) for f in FACTORS]
        assert best == min(every)
    spec = QuantSpec(grid, calibration="mse")
    error = lambda spec, b: float(np.sum((np.asarray(calibrate(x, spec)(x, b)) - x) ** 2))
    assert all(error(spec, b) <= error(QuantSpec(grid), b) * 1.001 for b in (2.0, 3.0, 4.0, 8.0))
    assert error(spec, 2.0) < 0.8 * error(QuantSpec(grid), 2.0)


def test_one_bit_mean_is_the_least_squares_step():
    step = 1 / float(calibrate(X).inverse[0])
    error = lambda s: np.sum((np.where(X >= 0, s, -s) - X) ** 2)
    assert all(error(step) <= error(step * f) for f in (0.9, 0.99, 1.01, 1.1))


def test_percentile_ends():
    spec = QuantSpec("affine", calibration="percentile", percentile=90)
    low, high = np.percentile(X, 10), np.percentile(X, 90)
    assert 255 / float(calibrate(X, spec).inverse[7]) == pytest.approx(high - low, rel=1e-3)
    spec = QuantSpec(calibration="percentile", percentile=90)
    assert 127 / float(calibrate(X, spec).inverse[7]) == pytest.approx(np.percentile(np.abs(X), 90), rel=1e-3)


def test_auto_grid_looks_at_the_sign():
    assert not calibrate(np.abs(X), QuantSpec("auto")).signed
    assert calibrate(X, QuantSpec("auto")).signed


def test_calibration_of_traced_values_is_that_of_known_ones():
    for spec in (QuantSpec(), QuantSpec("affine", channel_axis=-1), QuantSpec(calibration="percentile")):
        known, traced = calibrate(X, spec), jax.jit(lambda x: calibrate(x, spec))(X)
        np.testing.assert_allclose(known.inverse, traced.inverse, rtol=3e-4)
        np.testing.assert_array_equal(known.zero.round(-2), traced.zero.round(-2))


def test_coarse_values_meet_their_ties_exactly():
    """8/16 at 4 bits lies half-way between two codes: eager, jitted and in exact arithmetic, one answer."""
    pixels = np.arange(17, dtype=np.float32) / 16
    quantizer = calibrate(pixels, QuantSpec("unsigned"))
    for bits in range(1, 9):
        inverse = float(quantizer.inverse[bits - 1])
        want = [min(round(float(p) * inverse), 2**bits - 1) for p in pixels]  # Python rounds half to even
        np.testing.assert_array_equal(quantizer.codes(pixels, bits), want)
        np.testing.assert_array_equal(jax.jit(lambda b: quantizer.codes(pixels, b))(bits), want)


def test_constant_and_zero_tensors():
    zero = np.zeros(5, np.float32)
    for grid in ("symmetric", "unsigned", "affine"):
        out = np.asarray(calibrate(zero, QuantSpec(grid))(zero, 4.0))
        assert np.all(np.isfinite(out)) and np.abs(out).max() < 1e-6


# ---- Bad input -------------------------------------------------------------------------------------


def test_sentences():
    for bits in (0, -2, 3.5, 40):
        with pytest.raises(ValueError, match="bits must be a whole number from 1 to 24"):
            fake_quantize(X, bits, 0.1)
    with pytest.raises(ValueError, match="grid must be one of symmetric"):
        QuantSpec("symetric")
    with pytest.raises(ValueError, match="calibration must be one of minmax"):
        QuantSpec(calibration="max")
    with pytest.raises(ValueError, match="percentile must be above 50"):
        QuantSpec(percentile=3)
    with pytest.raises(ValueError, match="at least one value"):
        calibrate(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="finite values, got NaN"):
        calibrate(np.array([1.0, np.nan]))
    for bits in (0, -1.5, np.nan):
        with pytest.raises(ValueError, match="bits must be >= 1, got"):
            Quantizer.from_range(-1.0, 1.0)(X, bits)
    assert set(GRIDS) == {"symmetric", "unsigned", "affine", "auto"}
    codes = quantize_codes(jnp.array([0.9]), 2, 1.0, 0.0)
    assert isinstance(Quantizer.from_range(-1.0, 1.0), Quantizer) and float(codes[0]) == 1
