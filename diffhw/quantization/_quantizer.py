"""Uniform quantizers: values to integer codes and back, straight-through.

Codes of n bits, and the value of a code:

    symmetric   -(2^(n-1) - 1) .. 2^(n-1) - 1   code * step           (1 bit: -1 or +1, the sign)
    unsigned    0 .. 2^n - 1                     code * step           (after a ReLU)
    affine      0 .. 2^n - 1                     (code - zero) * step  (zero: the code of 0.0)

Sources (recalled): Jacob et al., arXiv 1712.05877 (affine and symmetric); Rastegari et al., arXiv
1603.05279 (one bit: sign times mean magnitude, which is also its least squared error).
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax
from jax.core import Tracer

from diffhw import numerics
from diffhw.quantization._bits import MAX_BITS, interpolate

__all__ = ["GRIDS", "QuantSpec", "Quantizer", "code_range", "fake_quantize", "quantize_codes"]

GRIDS = ("symmetric", "unsigned", "affine", "auto")
"""Kinds of grids; "auto" becomes unsigned where no negative value was seen and symmetric elsewhere."""
CALIBRATIONS = ("minmax", "percentile", "mse")

# A step's inverse keeps 12 significant bits, so that its product with a coarse value (a pixel k / 16)
# is exact: such values often lie half-way between two codes, and there a last bit would decide.
_MANTISSA = 11
# Sums that cancel to nothing are 0 up to rounding: their sign must not hang on the last bit.
SIGN_SLACK = -(2.0**-12)
_SMALLEST = 2.0**-24  # stands in for a range of zero


@dataclass(frozen=True)
class QuantSpec:
    """How a tensor is quantized. Static: hashable, plain Python.

    grid: one of `GRIDS`.  channel_axis: axis with a step of its own per entry (-1: the output channels
    of a flax kernel), or None for one step per tensor.  calibration: "minmax", "percentile" or "mse".
    percentile: share of values kept inside the range, in percent (percentile calibration only).
    Raises ValueError for an unknown word or a percentile outside (50, 100].
    """

    grid: str = "symmetric"
    channel_axis: int | None = None
    calibration: str = "minmax"
    percentile: float = 99.9

    def __post_init__(self):
        # Not a pytree node: JAX never rebuilds it, so checks may stand here.
        for name, value, allowed in (
            ("grid", self.grid, GRIDS),
            ("calibration", self.calibration, CALIBRATIONS),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile must be above 50 and at most 100, got {self.percentile!r}")


DEFAULT_SPEC = QuantSpec()


def code_range(bits, *, signed: bool = True, narrow: bool = True) -> tuple[Array, Array]:
    """Lowest and highest code of whole bit widths, any shape, as exact floats (up to 24 bits).

    signed: codes around zero, else from 0.  narrow: leave out -2^(bits-1), so that the grid is
    symmetric.  Signed 1 bit: (-1, 1), the code 0 being unused. No gradient.

    >>> [float(code) for code in code_range(4)], [float(code) for code in code_range(4, signed=False)]
    ([-7.0, 7.0], [0.0, 15.0])
    """
    bits = jnp.asarray(bits)
    one = jnp.ones(bits.shape, jnp.int32)
    whole = bits.astype(jnp.int32)
    if not signed:
        high = (jnp.left_shift(one, whole) - 1).astype(float)
        return jnp.zeros_like(high), high
    half = jnp.left_shift(one, whole - 1)
    high = jnp.maximum(half - 1, 1).astype(float)
    return (-high if narrow else -half.astype(float)), high


def quantize_codes(x, bits, inverse, zero, *, signed: bool = True, narrow: bool = True) -> Array:
    """Integer codes (as floats) of x on the grid with step ``1 / inverse``.

    x: any shape.  bits: whole; bits, inverse, zero: shape () or broadcastable to x of equal rank.
    Straight-through: rounding (half to even) has slope 1, codes beyond the ends have slope 0.
    """
    low, high = code_range(bits, signed=signed, narrow=narrow)
    scaled = x * inverse
    low, high = low.astype(scaled.dtype), high.astype(scaled.dtype)
    codes = numerics.minimum(numerics.maximum(numerics.round_through(scaled) + zero, low), high)
    if not signed:
        return codes
    sign = jnp.where(scaled >= SIGN_SLACK, 1.0, -1.0).astype(scaled.dtype)
    return jnp.where(jnp.asarray(bits) == 1, sign + (scaled - lax.stop_gradient(scaled)), codes)


def fake_quantize(x, bits, scale, zero_point=0.0, *, signed: bool = True, narrow: bool = True) -> Array:
    """Values rounded to the grid of a whole bit width: ``(codes - zero_point) * scale``.

    x: any shape.  bits: whole; for real-valued widths see `Quantizer`.  bits, scale, zero_point: shape ()
    or broadcastable to x of equal rank: widths per channel.

    Differentiable: in x straight-through (slope 1 inside the range, 0 outside), in ``scale`` as in LSQ
    (code - x / scale inside, the end's code outside); not in bits. Raises ValueError for bits < 1 or
    above 24, or that are not whole.

    >>> fake_quantize(jnp.array([0.26, -0.9, 3.0]), 3, 0.5).tolist()
    [0.5, -1.0, 1.5]
    """
    if not isinstance(bits, Tracer):
        number = np.asarray(bits, float)
        if not np.all((number >= 1) & (number <= 24) & (number == np.round(number))):
            raise ValueError(f"bits must be a whole number from 1 to 24, got {bits!r}")
    codes = quantize_codes(x, bits, 1.0 / scale, zero_point, signed=signed, narrow=narrow)
    return (codes - zero_point) * scale


def shorten(x):
    """The nearest number with 12 significant bits; a concrete numpy array gives the like."""
    if not isinstance(x, np.ndarray):
        short = lax.reduce_precision(lax.stop_gradient(x), 8, _MANTISSA)
        return x + (short - lax.stop_gradient(x))  # exact, with the slope of x
    bits = np.asarray(x, np.float32).view(np.uint32)
    drop = np.uint32(23 - _MANTISSA)
    half = (np.uint32(1) << (drop - np.uint32(1))) - np.uint32(1)
    return (((bits + half + ((bits >> drop) & np.uint32(1))) >> drop) << drop).view(np.float32)


@struct.dataclass(kw_only=True)
class Quantizer:
    """A calibrated quantizer of one tensor, for every bit width from 1 to 16 at once.

    inverse:  1 / step at each whole width, shape (16,), or (16, C) with a step per channel.
    zero:     code of 0.0, same shape; all 0 unless the grid is affine.
    signed:   whether codes lie around zero. Static.
    axis:     the channel axis, or None. Static.

    Steps are constants for derivatives here (`LearnedQuantizer` learns them).
    """

    inverse: Array
    zero: Array
    signed: bool = struct.field(pytree_node=False, default=True)
    axis: int | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def from_range(cls, low, high, *, grid="symmetric", axis=None, mean=None) -> "Quantizer":
        """Quantizer whose end codes lie at the ends of a range.

        low, high: shape () or (C,), or with a leading axis of 16, a range per bit width.
        grid: "symmetric" (range: the larger magnitude), "unsigned" (0 to high) or "affine" (0 included).
        axis: the channel axis if shapes have a C.  mean: mean magnitude, the step of a symmetric single
        bit, default half the range.
        """
        # In numpy if the values are known: no compiling per shape.
        traced = any(isinstance(v, Tracer) for v in (low, high, mean))
        xp = jnp if traced else np
        low, high = xp.asarray(low, xp.float32), xp.asarray(high, xp.float32)
        channels = 0 if axis is None else 1
        if low.ndim == channels:
            low, high = (xp.broadcast_to(v, (MAX_BITS, *v.shape)) for v in (low, high))
        signed = grid == "symmetric"
        top = np.array([max(2 ** (n - signed) - 1, 1) for n in range(1, MAX_BITS + 1)], np.float32)
        if signed:
            span = xp.maximum(xp.abs(low), xp.abs(high))
            one_bit = span[0] / 2 if mean is None else xp.asarray(mean, xp.float32)
            span = xp.concatenate([one_bit[None], span[1:]])
            low = xp.zeros_like(low)
        else:
            low = xp.minimum(low, 0.0) if grid == "affine" else xp.zeros_like(low)
            span = xp.maximum(high, 0.0) - low
        inverse = top.reshape(-1, *(1,) * channels) / xp.maximum(span, _SMALLEST)
        inverse = shorten(inverse)
        zero = xp.round(-low * inverse) if grid == "affine" else xp.zeros_like(inverse)
        return cls(
            inverse=lax.stop_gradient(numerics.as_float(inverse)),
            zero=lax.stop_gradient(numerics.as_float(zero)),
            signed=signed,
            axis=axis,
        )

    def __call__(self, x, bits, *, whole: bool = False) -> Array:
        """The quantized x at a real-valued bit width; exact at whole ones.

        x: any shape.  bits: shape (), or (C,), one width per entry of the channel axis.  Between two whole
        widths the value is their linear interpolation; above 16 bits it goes over to x itself, reached at
        17. whole: bits are known to be whole, which halves the work and gives no gradient in them.

        Differentiable in x (straight-through) and in bits (the difference of the neighbours). Traced widths
        below 1 count as 1. Raises ValueError for other widths below 1 or not numbers, and for widths per
        channel without a channel axis, or not as many as channels.
        """
        if not isinstance(bits, Tracer) and not (np.asarray(bits) >= 1).all():
            raise ValueError(f"bits must be >= 1, got {float(np.min(np.asarray(bits, float))):g}")
        if jnp.ndim(bits):
            if self.axis is None or jnp.shape(bits) != self.inverse.shape[1:]:
                steps = "one step" if self.axis is None else f"{self.inverse.shape[1]} channels"
                raise ValueError(f"bits of shape {jnp.shape(bits)} do not fit a quantizer with {steps}")
            bits = self._along(jnp.asarray(bits, float), jnp.ndim(x))
        return interpolate(lambda n: self.at(x, n), bits, whole=whole)

    def _along(self, row, ndim: int) -> Array:
        """(C,) as an array of ``ndim`` axes, C on the channel axis."""
        shape = [1] * ndim
        if self.axis is not None:
            shape[self.axis] = -1
        return row.reshape(shape)

    def _row(self, table, n, x) -> Array:
        place = jnp.clip(jnp.asarray(n).astype(jnp.int32) - 1, 0, MAX_BITS - 1)
        table = lax.stop_gradient(table)
        if self.axis is None:
            return table[place].astype(x.dtype)
        if place.ndim:  # a width of its own for each channel
            return self._along(table[place.reshape(-1), jnp.arange(table.shape[1])], x.ndim).astype(x.dtype)
        return self._along(table[place], x.ndim).astype(x.dtype)

    def codes(self, x, n) -> Array:
        """Integer codes, as floats, at a whole width n from 1 to 16, () or per channel of x's rank."""
        n = jnp.clip(jnp.asarray(n), 1, MAX_BITS)
        x = numerics.as_float(x)
        inverse, zero = self._row(self.inverse, n, x), self._row(self.zero, n, x)
        return quantize_codes(x, n, inverse, zero, signed=self.signed)

    def at(self, x, n) -> Array:
        """The quantized x at a whole width n, shaped as in `codes`; x itself from 17 on."""
        x = numerics.as_float(x)
        step = 1.0 / self._row(self.inverse, n, x)
        value = (self.codes(x, n) - self._row(self.zero, n, x)) * step
        return jnp.where(jnp.asarray(n) > MAX_BITS, x, value)
