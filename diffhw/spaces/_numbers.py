"""Variables that are numbers: Integer, Real, Bits."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffhw import numerics
from diffhw.spaces._variable import SPAN, Variable, is_concrete

__all__ = ["Bits", "Integer", "Real"]

_FINE = 2**20  # intervals of a continuous variable: 1e-6 of its range, about what float32 totals resolve
_LONGEST = 2**20  # values of a listed grid, which compiled programs hold as a constant
_MIDDLE = 0.8  # share of the range from which starts are drawn


class _Number(Variable):
    """A number with listed legal values, or a finely resolved interval.

    scale: "log" or "linear": the coordinate in which values are snapped, drawn and stepped.
    values: ascending legal values, float64, or None if continuous.
    """

    def __init__(self, low: float, high: float, scale: str | None, values: np.ndarray | None):
        kind = type(self).__name__
        if scale is None:
            scale = "log" if low > 0 else "linear"
        if scale not in ("linear", "log"):
            raise ValueError(f"{kind}: scale must be 'linear' or 'log', got {scale!r}")
        if scale == "log" and not low > 0:
            raise ValueError(f"{kind}: a log scale needs low > 0, got {low:g}")
        if values is not None:
            values = np.unique(np.asarray(values, np.float64))
            low, high = float(values[0]), float(values[-1])
            coordinate = np.log(values) if scale == "log" else values
            middles = (coordinate[1:] + coordinate[:-1]) / 2
            width = coordinate[-1] - coordinate[0]
            self._middles = (middles - coordinate[0]) / (width or 1.0)
        self.low, self.high, self.scale, self.values = low, high, scale, values
        self.continuous = values is None
        self.size = _FINE + 1 if values is None else len(values)

    def init(self, uniform):
        return (uniform - 0.5) * (_MIDDLE * SPAN)

    def project(self, param: Array) -> Array:
        return jnp.clip(param, -SPAN / 2, SPAN / 2)

    def index(self, param: Array) -> Array:
        share = jnp.clip(param / SPAN + 0.5, 0.0, 1.0)
        if self.values is None:
            return jnp.round(share * _FINE).astype(jnp.int32)
        # A short table is compared at once: a binary search is a loop inside the search loop.
        method = "compare_all" if self.size <= 64 else "scan"
        return jnp.searchsorted(jnp.asarray(self._middles, float), share, method=method).astype(jnp.int32)

    def decode(self, param: Array, temperature, key: Array | None) -> Array:
        value = self.at(self.index(param))
        # param - param is exactly 0, so the value stays exactly the legal one. Outside the range the
        # slope is kept: what `project` brings back must still feel which way to go.
        slope = value * math.log(self.high / self.low) if self.scale == "log" else self.high - self.low
        return value + jax.lax.stop_gradient(slope / SPAN) * (param - jax.lax.stop_gradient(param))

    def at(self, index) -> Array:
        if self.values is not None:
            if is_concrete(index):
                return numerics.as_float(self.values[int(index)])
            return jnp.asarray(self.values, float).at[index].get(mode="clip")
        if is_concrete(index):
            return numerics.as_float(self._fine(int(index)))
        share = index / _FINE
        if self.scale == "log":
            return self.low * jnp.exp(share * math.log(self.high / self.low))
        return self.low + share * (self.high - self.low)

    def _fine(self, index: int) -> float:
        share = index / _FINE
        if self.scale == "log":
            return self.low * math.exp(share * math.log(self.high / self.low))
        return self.low + share * (self.high - self.low)

    def index_of(self, value) -> int:
        number = float(value)
        slack = 1e-6 * max(abs(self.low), abs(self.high))
        if not self.low - slack <= number <= self.high + slack:
            raise ValueError(f"{number:g} is outside {self.low:g} to {self.high:g}")
        if self.values is None:
            share = (number - self.low) / ((self.high - self.low) or 1.0)
            if self.scale == "log":
                share = math.log(number / self.low) / (math.log(self.high / self.low) or 1.0)
            return int(np.clip(round(share * _FINE), 0, _FINE))
        nearest = int(np.abs(self.values - number).argmin())
        legal = float(self.values[nearest])
        if abs(legal - number) > 1e-5 * max(abs(legal), 1e-30):
            raise ValueError(f"{number:g} is not a legal value; the nearest is {legal:g}")
        return nearest

    def label(self, index: int) -> float | int:
        value = self._fine(int(index)) if self.values is None else float(self.values[int(index)])
        return int(value) if isinstance(self, Integer) else value

    def steps(self, index: int) -> Sequence[int]:
        # One step of a continuous variable would be lost in rounding.
        sizes = (_FINE // 32, _FINE // 1024) if self.continuous else (1,)
        around = [index + sign * size for size in sizes for sign in (-1, 1)]
        return [i for i in around if 0 <= i < self.size]

    def describe(self) -> str:
        if self.values is None:
            return f"{self.low:g} to {self.high:g}, continuous, {self.scale} scale"
        names = [f"{value:.7g}" for value in self.values]
        listed = ", ".join(names if len(names) <= 32 else [*names[:4], "...", *names[-2:]])
        return f"{listed} ({self.size} value{'s' * (self.size > 1)}, {self.scale} scale)"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.low:g}, {self.high:g}, {self.describe()})"


def _bounds(kind: str, low, high, values) -> tuple[float, float]:
    if values is not None:
        numbers = np.asarray(list(values), np.float64)
        if numbers.size == 0 or not np.all(np.isfinite(numbers)):
            raise ValueError(f"{kind}: values must be a non-empty list of finite numbers, got {values!r}")
        return float(numbers.min()), float(numbers.max())
    if low is None or high is None:
        raise ValueError(f"{kind} needs low and high, or values")
    low, high = float(low), float(high)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"{kind}: low and high must be finite with low <= high, got {low:g} and {high:g}")
    return low, high


def _grid(kind: str, low: float, high: float, step, per_octave, values) -> np.ndarray | None:
    """Listed values; exactly one of step, per_octave and values, or None of them for no grid."""
    given = {"step": step, "per_octave": per_octave, "values": values}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ValueError(f"{kind}: give one of step, per_octave and values, got {' and '.join(named)}")
    if not named:
        return None
    if values is not None:
        return np.asarray(list(values), np.float64)
    name = named[0]
    if not given[name] > 0:
        raise ValueError(f"{kind}: {name} must be > 0, got {given[name]!r}")
    if per_octave is not None and not low > 0:
        raise ValueError(f"{kind}: per_octave needs low > 0, got {low:g}")
    span = (high - low) / step if step is not None else math.log2(high / low) * per_octave
    count = math.floor(span + 1e-9) + 1
    if count > _LONGEST:
        raise ValueError(f"{kind}: {count:,} values are too many; give a larger step, or per_octave")
    steps = np.arange(count)
    return low + step * steps if step is not None else low * 2.0 ** (steps / per_octave)


class Integer(_Number):
    """A whole number. Differentiable: nearest legal value forward, identity in the scaled coordinate back.

    low, high: ends, both included.  scale: "log" (default if low > 0) or "linear".
    step: low, low + step, ... (default 1).  per_octave: round(low * 2**(i / per_octave)).  values: a list.
    Raises ValueError for an empty or reversed range, or more than one kind of grid.

    >>> Integer(4, 256, per_octave=4).size
    25
    >>> Integer(8, 64, per_octave=1).describe()
    '8, 16, 32, 64 (4 values, log scale)'
    """

    def __init__(self, low=None, high=None, scale=None, *, step=None, per_octave=None, values=None):
        kind = type(self).__name__
        low, high = _bounds(kind, low, high, values)
        if step is None and per_octave is None and values is None:
            step = 1
        points = _grid(kind, low, high, step, per_octave, values)
        assert points is not None
        if per_octave is None and np.any(points != np.round(points)):
            raise ValueError(f"{kind}: every value must be a whole number, got {points[:4].tolist()}")
        super().__init__(low, high, scale, np.round(points))


class Real(_Number):
    """A real number, continuous unless a grid is given.

    low, high: ends, both included.  scale: "log" (default if low > 0) or "linear".
    step, per_octave, values: an optional grid, as for `Integer` without rounding.
    Without one, index vectors resolve the range into 2**20 steps of the scaled coordinate, and
    `Space.size` counts it as infinite.
    """

    def __init__(self, low=None, high=None, scale=None, *, step=None, per_octave=None, values=None):
        low, high = _bounds("Real", low, high, values)
        super().__init__(low, high, scale, _grid("Real", low, high, step, per_octave, values))


class Bits(Integer):
    """A bit width: every whole number from low to high (or those listed), on a linear scale."""

    def __init__(self, low=1, high=8, *, step=None, values=None):
        super().__init__(low, high, "linear", step=step, values=values)
