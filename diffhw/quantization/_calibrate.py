"""Where the grid's ends lie: min-max, percentile, least squared error."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from diffhw.quantization._bits import MAX_BITS
from diffhw.quantization._quantizer import DEFAULT_SPEC, Quantizer, QuantSpec

__all__ = ["calibrate", "mse_ranges"]

FACTORS = np.linspace(1.0, 0.02, 50)
"""Shares of the min-max range tried by the least-squares calibration."""
_SAMPLES = 2**15  # values per tensor that calibration by error looks at


def _by_channel(x, axis):
    """(C, rest), C = 1 without a channel axis."""
    if axis is None:
        return x.reshape(1, -1)
    return (jnp if isinstance(x, Tracer) else np).moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def calibrate(x, spec: QuantSpec = DEFAULT_SPEC, *, grid: str | None = None) -> Quantizer:
    """The quantizer of ``spec`` for data like x.

    x: any shape (a kernel, or a sample of activations).  grid: overrides that of ``spec``; "auto" looks
    at the values.  Min-max and percentile calibration may be traced (with a grid that is not "auto");
    no gradient. A symmetric single bit gets the mean magnitude under every calibration: its optimum.

    minmax: ends at the extremes.  percentile: ends that leave (100 - percentile) % outside (of the
    magnitudes, or on each side if affine).  mse: for each bit width, the share of the min-max range,
    from 2 to 100 %, with the least squared error on at most 32,768 values, evenly picked.
    Raises ValueError for an empty tensor, or values that are not finite (traced ones are not looked at).
    """
    xp = jnp if isinstance(x, Tracer) else np  # numpy where values are known: no compiling per shape
    x = xp.asarray(x, xp.float32)
    if x.size == 0:
        raise ValueError("calibration needs at least one value, got an empty tensor")
    if xp is np and not np.isfinite(x).all():
        raise ValueError(
            "calibration needs finite values, got NaN or infinity: check the data or the training"
        )
    grid = spec.grid if grid is None else grid
    if grid == "auto":
        grid = "unsigned" if float(x.min()) >= 0 else "symmetric"
    axis = spec.channel_axis
    rows = _by_channel(x, axis)
    mean = xp.abs(rows).mean(1)
    if spec.calibration == "mse":
        low, high = mse_ranges(np.asarray(rows, np.float64), grid)
    elif spec.calibration == "percentile" and grid == "symmetric":
        high = xp.percentile(xp.abs(rows), spec.percentile, axis=1)
        low = -high
    elif spec.calibration == "percentile":
        low = xp.percentile(rows, 100 - spec.percentile, axis=1)
        high = xp.percentile(rows, spec.percentile, axis=1)
    else:
        low, high = rows.min(1), rows.max(1)
    if axis is None:
        low, high, mean = low[..., 0], high[..., 0], mean[0]
    return Quantizer.from_range(low, high, grid=grid, axis=axis, mean=mean)


def mse_ranges(rows: np.ndarray, grid: str, factors: np.ndarray = FACTORS) -> tuple[np.ndarray, np.ndarray]:
    """Ends with the least squared error at each bit width, each of shape (16, C).

    rows: (C, values).  factors: shares of the min-max range to try; both ends shrink alike.
    """
    per_row = max(_SAMPLES // len(rows), 64)
    rows = rows[:, :: -(-rows.shape[1] // per_row)] if rows.shape[1] > per_row else rows
    low, high = rows.min(1), rows.max(1)
    if grid == "symmetric":
        high = np.abs(rows).max(1)
        low = -high
    best_low, best_high = np.tile(low, (MAX_BITS, 1)), np.tile(high, (MAX_BITS, 1))
    for n in range(1 if grid != "symmetric" else 2, MAX_BITS + 1):
        least = np.full(len(rows), np.inf)
        for factor in factors:
            error = squared_error(rows, n, low * factor, high * factor, grid)
            better = error < least
            best_low[n - 1, better], best_high[n - 1, better] = (
                (low * factor)[better],
                (high * factor)[better],
            )
            least = np.minimum(error, least)
    return best_low, best_high


def squared_error(rows, n, low, high, grid) -> np.ndarray:
    """Sum of squared errors of each row, shape (C,), at n bits."""
    top = 2 ** (n - 1) - 1 if grid == "symmetric" else 2**n - 1
    low = np.minimum(low, 0) if grid == "affine" else np.zeros_like(low)
    bottom = -top if grid == "symmetric" else 0
    step = (np.maximum(np.maximum(high, 0) - low, 2.0**-24) / top)[:, None]
    zero = np.round(-low[:, None] / step)
    codes = np.clip(np.round(rows / step) + zero, bottom, top)
    return (((codes - zero) * step - rows) ** 2).sum(1)
