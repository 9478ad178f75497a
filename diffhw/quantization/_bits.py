"""Real-valued bit widths: between two whole widths, the linear interpolation of what they give.

Source: the idea of fractional bit widths, Yang and Jin, FracBits, arXiv 2007.02017 (recalled).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer

__all__ = ["FULL_BITS", "MAX_BITS", "check_bits", "interpolate"]

MAX_BITS = 16
"""The widest grid; above it, a value goes over to full precision, reached at 17 bits."""
FULL_BITS = 32.0
"""Any width from 17 on means full precision; this is the one to write."""


def interpolate(at: Callable, bits, *, whole: bool = False) -> Array:
    """``(1 - t) at(n) + t at(n + 1)`` with n = floor(bits), t = bits - n; exactly ``at(bits)`` at whole bits.

    at: function of a whole width from 1 to 17, as a float, of the shape of bits.  bits: shape (), or one
    that broadcasts against what ``at`` returns; widths outside 1 to 17 count as the nearest of them.
    whole: if True, ``at`` of the nearest whole width alone.

    Differentiable in bits: the slope is at(n + 1) - at(n), n = floor(bits), also at whole bits and
    outside the range, so that a search that left the range feels the way back; zero from 17 bits on.
    """
    bits = jnp.asarray(bits, float)
    if whole:
        return at(lax.stop_gradient(jnp.clip(jnp.round(bits), 1, MAX_BITS + 1)))
    low = lax.stop_gradient(jnp.clip(jnp.floor(bits), 1, MAX_BITS + 1))
    share = bits - low
    share = share + lax.stop_gradient(jnp.clip(share, 0.0, 1.0) - share)
    below, above = at(low), at(jnp.minimum(low + 1, MAX_BITS + 1))
    return below + share * (above - below)


def check_bits(what: str, bits, names: tuple[str, ...]) -> Array:
    """``bits`` as a float array with one entry per name along its last axis; a scalar holds for all.

    Raises ValueError, naming the layer, for a wrong number of entries, or entries below 1 or not numbers
    (traced entries are not looked at).
    """
    if not isinstance(bits, Tracer):
        try:
            numbers = np.asarray(bits, float)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{what} bits must be numbers, got {bits!r}") from error
    else:
        numbers = None
    shape = np.shape(bits)
    if shape and shape[-1] != len(names):
        raise ValueError(
            f"{what} bits must have one entry per quantized layer: got {shape[-1]} for {len(names)} layers "
            f"({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})"
        )
    if numbers is not None:
        wrong = np.argwhere(~(numbers >= 1))
        if len(wrong):
            place = f" for layer {names[wrong[0][-1]]!r}" if shape else ""
            raise ValueError(
                f"{what} bits must be >= 1 ({FULL_BITS:g} means full precision), got "
                f"{numbers[tuple(wrong[0])]:g}{place}"
            )
    bits = jnp.asarray(bits, float)
    return bits if shape else jnp.broadcast_to(bits, (len(names),))
