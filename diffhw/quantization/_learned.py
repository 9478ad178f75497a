"""Quantizers with a learned step (LSQ) or a learned clipping level (PACT)."""

import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from diffhw import numerics
from diffhw.quantization._bits import MAX_BITS, interpolate
from diffhw.quantization._quantizer import code_range, quantize_codes, shorten

__all__ = ["ClippedQuantizer", "LearnedQuantizer", "lsq", "lsq_step", "pact"]


def _scale_gradient(x, factor):
    """The value x, with ``factor`` times its gradient."""
    scaled = x * factor
    return lax.stop_gradient(x) + (scaled - lax.stop_gradient(scaled))


def lsq(x, step, bits, *, signed: bool = True) -> Array:
    """Learned step size quantization at a whole bit width.

    x: any shape.  step: (), learned; its inverse is used to 12 significant bits (see `Quantizer`).
    bits: whole, ().  Codes -2^(b-1) .. 2^(b-1) - 1 if signed (one bit:
    the sign), else 0 .. 2^b - 1.

    Gradient in step, per value: round(x / step) - x / step inside the range, the end's code outside, all
    times 1 / sqrt(N Qp) with N values and Qp the highest code; in x straight-through.
    Source: Esser et al., arXiv 1902.08153, equations 1 to 3 and section 2.2 (recalled).
    """
    x = jnp.asarray(x)
    low, high = code_range(bits, signed=signed, narrow=False)
    step = _scale_gradient(step, 1.0 / jnp.sqrt(x.size * high))
    inverse = shorten(1.0 / step)
    # Clipped first, rounded after: the same codes, but beyond the ends the paper's gradient.
    inside = numerics.minimum(high, numerics.maximum(low, x * inverse))
    return quantize_codes(inside, bits, 1.0, 0.0, signed=signed, narrow=False) / inverse


def lsq_step(x, bits, *, signed: bool = True) -> Array:
    """LSQ's first step: 2 mean|x| / sqrt(Qp), shape ()."""
    return 2 * jnp.abs(x).mean() / jnp.sqrt(code_range(bits, signed=signed)[1])


def pact(x, alpha, bits) -> Array:
    """Parameterised clipping activation at a whole bit width: clip(x, 0, alpha) on 2^b - 1 steps.

    x: any shape.  alpha: (), learned, > 0.  Gradient in alpha: 1 where x >= alpha, else 0; in x: 1 where
    0 < x < alpha, else 0. Source: Choi et al., arXiv 1805.06085, equations 1 to 3 (recalled).
    """
    clipped = _clip(x, alpha)
    inverse = shorten(1.0 / (alpha / code_range(bits, signed=False)[1]))
    value = quantize_codes(clipped, bits, inverse, 0.0, signed=False) / inverse
    return clipped + lax.stop_gradient(value - clipped)


def _clip(x, alpha):
    return numerics.minimum(alpha, numerics.maximum(0.0, x))  # a tie goes to the first: alpha, 0


@struct.dataclass(kw_only=True)
class LearnedQuantizer:
    """LSQ at any real-valued bit width, called as a `Quantizer` is.

    reach: the highest code's value, (), learned; at n bits the step is reach / Qp(n), so one parameter
    serves every width, and its gradient is that of LSQ's step, divided by Qp(n).
    signed: static.
    """

    reach: Array
    signed: bool = struct.field(pytree_node=False, default=True)

    @classmethod
    def create(cls, x, bits=8, *, signed: bool | None = None) -> "LearnedQuantizer":
        """LSQ's first step for data x at ``bits``; unsigned if x has no negative value, unless told."""
        signed = bool(jnp.min(x) < 0) if signed is None else signed
        bits = jnp.clip(jnp.round(jnp.asarray(bits, float)), 1, MAX_BITS)
        step = lsq_step(x, bits, signed=signed)
        return cls(reach=step * code_range(bits, signed=signed)[1], signed=signed)

    def inverse(self, n) -> Array:
        """1 / step at a whole width n, ()."""
        return shorten(1.0 / (self.reach / code_range(n, signed=self.signed)[1]))

    def __call__(self, x, bits, *, whole: bool = False) -> Array:
        """The quantized x; differentiable in x, bits and ``reach``."""
        return interpolate(lambda n: self.at(x, n), bits, whole=whole)

    def at(self, x, n) -> Array:
        """The quantized x at a whole width n; x itself from 17 on."""
        width = jnp.minimum(n, MAX_BITS)
        value = lsq(x, self.reach / code_range(width, signed=self.signed)[1], width, signed=self.signed)
        return jnp.where(jnp.asarray(n) > MAX_BITS, x, value)


@struct.dataclass(kw_only=True)
class ClippedQuantizer:
    """PACT at any real-valued bit width, called as a `Quantizer` is; for inputs that follow a ReLU.

    alpha: the clipping level, (), learned. At full precision it still clips.
    """

    alpha: Array

    @classmethod
    def create(cls, x) -> "ClippedQuantizer":
        """Start at the largest value of x, or 1 if nothing in x is positive."""
        top = jnp.max(jnp.asarray(x, float))
        return cls(alpha=jnp.where(top > 0, top, 1.0))

    def inverse(self, n) -> Array:
        """1 / step at a whole width n, ()."""
        return shorten(1.0 / (self.alpha / code_range(n, signed=False)[1]))

    def __call__(self, x, bits, *, whole: bool = False) -> Array:
        """The clipped and quantized x; differentiable in x, bits and ``alpha``."""
        return interpolate(lambda n: self.at(x, n), bits, whole=whole)

    def at(self, x, n) -> Array:
        """The same at a whole width n; from 17 on only clipped."""
        width = jnp.minimum(n, MAX_BITS)
        clipped = _clip(x, self.alpha)
        return jnp.where(jnp.asarray(n) > MAX_BITS, clipped, pact(x, self.alpha, width))
