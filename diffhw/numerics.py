"""Exact steps forward, useful slopes backward: the only place with such tricks.

Hardware cost is made of steps: a fold count is a ceiling, "fits in the buffer" is a comparison.
Forward, every function here returns the exact step at any integer-valued input. Backward, it
returns the slope of a *surrogate*, written in its docstring, because the true slope is zero almost
everywhere and a search that sees zero goes nowhere (a zero slope for the ceiling left the median
restart of a first trial 100 to 2,800 % off). Plain values cost nothing extra: the slopes are
``custom_jvp`` rules and exist only when somebody differentiates.

`log`, `maximum`, `minimum`, `power` and `reciprocal` are ordinary mathematics in a form that
compiles to fewer, larger kernels.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

__all__ = [
    "as_float",
    "before",
    "ceil_div",
    "ceil_ratio",
    "fits",
    "floor_div",
    "if_fits",
    "is_infinite",
    "is_one",
    "log",
    "maximum",
    "minimum",
    "non_negative",
    "positive",
    "power",
    "reciprocal",
    "round_through",
]


def _exact_ceil(a, d):
    # XLA turns x / d into x * (1 / d) for a broadcast d, so float32 quotients of exact multiples
    # may land an ulp off on either side; one step of correction each way makes the count exact.
    q = jnp.ceil(a / d)
    q = jnp.where((q - 1) * d >= a, q - 1, q)
    return jnp.where(q * d < a, q + 1, q)


@jax.custom_jvp
def ceil_div(a, d):
    """``ceil(a / d)``, exact for integer-valued floats up to 2**24 (float32) or 2**53 (float64).

    Surrogate slope: that of ``max(a / d, 1)``, so a dimension smaller than the array is not
    rewarded for shrinking the array, and a larger one is, in proportion.

    >>> float(ceil_div(jnp.float32(49.0), jnp.float32(7.0)))
    7.0
    >>> float(jax.grad(ceil_div)(jnp.float32(50.0), jnp.float32(8.0)))
    0.125
    """
    return _exact_ceil(a, d)


def _ceil_slope(primals, tangents):
    """The surrogate: that of ``a / d`` above one step, none within the first."""
    a, d = primals
    da, dd = tangents
    inverse = reciprocal(d)
    slope = jnp.where(a > d, inverse, 0.0)
    return slope * (da - (a * inverse) * dd)


@ceil_div.defjvp
def _ceil_div_jvp(primals, tangents):
    return _exact_ceil(*primals), _ceil_slope(primals, tangents)


def _excess(q, d, a):
    """``q * d - a`` to about twice the precision: the product in halves whose own products are exact."""
    finfo = jnp.finfo(jnp.result_type(a, d))
    half = lambda x: jax.lax.reduce_precision(x, finfo.nexp, (finfo.nmant - 1) // 2)
    q_high, d_high = half(q), half(d)
    q_low, d_low = q - q_high, d - d_high
    return ((q_high * d_high - a) + (q_high * d_low + q_low * d_high)) + q_low * d_low


@jax.custom_jvp
def _ceil_ratio(a, d, rest):
    d = d + 0.0 * a
    q = jnp.ceil(a / d)
    q = jnp.where(_excess(q - 1, d, a) >= rest, q - 1, q)
    return jnp.where(_excess(q, d, a) < rest, q + 1, q)


def ceil_ratio(a, d, rest=0.0):
    """``ceil((a + rest) / d)`` of positive floats that need not be whole, right below 2**24 (float32).

    The plain quotient rounds to a whole number that the ratio exceeds by less than an ulp; at 60,000
    cycles that is an error of 1.7e-5. Surrogate slope: that of `ceil_div`.
    rest: what the dividend, rounded, lacks; at most an ulp or so of it, a constant for gradients.

    >>> float(ceil_ratio(jnp.float32(1003.0), jnp.float32(0.01)))  # the divisor is 0.00999999977648...
    100301.0
    """
    return _ceil_ratio(a, d, rest)


@_ceil_ratio.defjvp
def _ceil_ratio_jvp(primals, tangents):
    return _ceil_ratio(*primals), _ceil_slope(primals[:2], tangents[:2])


@jax.custom_jvp
def floor_div(a, d):
    """``floor(a / d)``, exact like `ceil_div`. Surrogate slope: that of ``a / d``."""
    q = jnp.floor(a / d)
    q = jnp.where((q + 1) * d <= a, q + 1, q)
    return jnp.where(q * d > a, q - 1, q)


@floor_div.defjvp
def _floor_div_jvp(primals, tangents):
    a, d = primals
    da, dd = tangents
    inverse = reciprocal(d)
    return floor_div(a, d), inverse * (da - (a * inverse) * dd)


@jax.custom_jvp
def fits(footprint, capacity):
    """1.0 where ``footprint <= capacity``, else 0.0.

    Surrogate slope: that of ``min(capacity / footprint, 1)``, the share of the footprint that the
    buffer holds: growing a buffer that is too small helps in proportion, and growing one that is
    large enough does nothing (which is the truth).
    """
    one = jnp.ones_like(footprint * 1.0)
    return jnp.where(footprint <= capacity, one, 0 * one)


@fits.defjvp
def _fits_jvp(primals, tangents):
    footprint, capacity = primals
    dfootprint, dcapacity = tangents
    out = fits(footprint, capacity)
    inverse = reciprocal(jnp.where(footprint > 0, footprint, 1.0))
    slope = jnp.where(footprint > capacity, inverse, 0.0)
    return out, slope * (dcapacity - (capacity * inverse) * dfootprint)


@jax.custom_jvp
def if_fits(footprint, capacity, inside, outside):
    """``inside`` where ``footprint <= capacity``, else ``outside``: one selection.

    Slopes: those of ``fits * inside + (1 - fits) * outside`` with the surrogate of `fits`.
    """
    return jnp.where(footprint <= capacity, inside, outside)


@if_fits.defjvp
def _if_fits_jvp(primals, tangents):
    footprint, capacity, inside, outside = primals
    _, slope = _fits_jvp(primals[:2], tangents[:2])
    along = jnp.where(footprint <= capacity, tangents[2], tangents[3])
    return if_fits(*primals), along + (inside - outside) * slope


@jax.custom_jvp
def before(a, b):
    """1.0 where ``a < b``, else 0.0: whether a place in an order comes before another.

    Surrogate slope: that of ``(b - a) / 8`` (places run from 0 to 7).
    """
    one = jnp.ones_like(a * 1.0)
    return jnp.where(a < b, one, 0 * one)


@before.defjvp
def _before_jvp(primals, tangents):
    return before(*primals), (tangents[1] - tangents[0]) * 0.125


@jax.custom_jvp
def round_through(x):
    """Nearest integer forward, identity backward (straight-through)."""
    return jnp.round(x)


@round_through.defjvp
def _round_through_jvp(primals, tangents):
    return jnp.round(primals[0]), tangents[0]


@jax.custom_jvp
def reciprocal(x):
    """``1 / x`` for positive x, in a form that XLA on CPU is willing to fuse.

    XLA does not fuse a division into several users (it counts as too expensive to repeat), and then
    not what it depends on either: a kernel breaks into pieces that meet in memory. One cheap
    operation between the division and its users, here the absolute value, lifts the ban.
    """
    return jnp.abs(1.0 / x)


@reciprocal.defjvp
def _reciprocal_jvp(primals, tangents):
    out = reciprocal(primals[0])
    return out, -(out * tangents[0]) * out  # in this order: XLA takes the absolute value out of a square


@jax.custom_jvp
def log(x):
    """Natural logarithm of a positive x; its derivative is a `reciprocal`."""
    return jnp.log(x)


@log.defjvp
def _log_jvp(primals, tangents):
    return log(primals[0]), reciprocal(primals[0]) * tangents[0]


_CENTRE = 64.0  # of the range that powers are taken over, in units: keeps the logarithms small


@jax.custom_jvp
def power(x, p, unit=1.0):
    """``(x / unit) ** p`` for positive x and unit, to 1e-6 in float32 for x / unit up to 2**14.

    A logarithm and an exponential, which XLA vectorises on CPU (its power it does not). An exponential's
    error is its argument's, so the logarithm is that of x over 64 units. The maximum is there for the
    reason given at `reciprocal`.
    """
    inner = jnp.exp(p * jnp.log(x / (unit * _CENTRE)))
    return jnp.maximum(inner * jnp.exp(p * math.log(_CENTRE)), 0.0)


@power.defjvp
def _power_jvp(primals, tangents):
    x, p, unit = primals
    dx, dp, dunit = tangents
    out, logarithm = power(x, p, unit), jnp.log(x / (unit * _CENTRE)) + math.log(_CENTRE)
    return out, out * (p * (dx * reciprocal(x) - dunit * reciprocal(unit)) + logarithm * dp)


def maximum(a, b) -> Array:
    """The larger of two. Slope: that of the larger, of ``a`` in a tie.

    `jnp.maximum` shares the slope of a tie between both, at the price of two divisions per maximum:
    they were most of a gradient's work in these models.
    """
    return jnp.where(b > a, b, a)  # with a strict comparison: one machine instruction


def minimum(a, b) -> Array:
    """The smaller of two. Slope: that of the smaller, of ``a`` in a tie; see `maximum`."""
    return jnp.where(b < a, b, a)


def is_one(value) -> bool:
    """True for a number that is 1 wherever it is known; False for a traced one."""
    return not isinstance(value, Tracer) and bool(np.all(np.asarray(value) == 1))


def is_infinite(value) -> bool:
    """True for a number known to be infinite, a limit that never binds; False for a traced one."""
    return not isinstance(value, Tracer) and bool(np.all(np.isinf(np.asarray(value))))


def as_float(value) -> Array:
    """Float array of the default dtype (or of the value's own float dtype), strongly typed.

    Without it a Python number and a float32 array are two cache entries of one jitted function.
    """
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
        return value if not value.weak_type else jnp.asarray(value, value.dtype)
    return jnp.asarray(value, float)


def _checked(name: str, value, lowest_is_allowed: bool) -> Array:
    if isinstance(value, Tracer):
        return value
    try:
        numbers = np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number, got {value!r}") from error
    low = float(numbers.min()) if numbers.size else 1.0
    if math.isnan(low) or not (low >= 0 if lowest_is_allowed else low > 0):
        bound = ">= 0" if lowest_is_allowed else "> 0"
        raise ValueError(f"{name} must be {bound}, got {value if numbers.ndim == 0 else low}")
    return as_float(value)


def positive(name: str, value) -> Array:
    """``value`` as a float array, or a ValueError that says ``name must be > 0``. Inf is allowed."""
    return _checked(name, value, lowest_is_allowed=False)


def non_negative(name: str, value) -> Array:
    """``value`` as a float array, or a ValueError that says ``name must be >= 0``."""
    return _checked(name, value, lowest_is_allowed=True)
