"""In which order a sweep visits designs: from the position of a design to its index vector.

Every order is *counter-based*: the design at a position is a function of the position (and the seed)
alone, so the work can be cut into chunks, and spread over devices and hosts, in any way.

The device never sees a position beyond int32: the host computes with Python ints where a stretch of
designs starts, and the device goes on from there.
"""

import decimal
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diffhw.spaces import Space

__all__ = ["ORDERS", "Enumerated", "LowDiscrepancy", "Randomly", "SweepOrder", "order_of"]

_MASK32, _MASK64 = 2**32 - 1, 2**64 - 1
_WIDTHS = (128, 4096)  # designs of a row that shares its leading variables: least, and most wished for


class SweepOrder:
    """What the three orders share. Positions are Python ints from 0.

    block:   designs that one step evaluates; shape: the same as an array, in row-major order.
    stretch: calls never cross a multiple of it (0: no limit).  grain: calls start at a multiple of it.
    """

    name = ""
    stretch = 0
    grain = 1

    def __init__(self, space: Space, block: int, seed: int):
        self.space, self.block, self.seed = space, block, seed
        self.shape: tuple[int, ...] = (block,)

    def start(self, position: int) -> tuple:
        """What the device needs to go on from ``position``."""
        raise NotImplementedError

    def figures(self, evaluate: Callable, start: tuple, first: Array) -> dict[str, Array]:
        """Figures of a block, each of shape `shape`, from ``first`` (int32) after the start. Traced."""
        raise NotImplementedError

    def index(self, positions: np.ndarray) -> np.ndarray:
        """Index vectors on the host: (n,) int64 -> (n, V) int32."""
        raise NotImplementedError


class Enumerated(SweepOrder):
    """All designs by flat number. The position is the flat number.

    A block is a grid: *rows* that share the leading variables, times all values of the trailing ones.
    So nothing is divided or looked up per design, and what depends on one side only is computed once
    per row or once per column: 4 times as fast as the vmapped model on the systolic space.
    """

    name = "enumerate"

    def __init__(self, space: Space, block: int, seed: int = 0):
        if space.is_continuous:
            next(space.enumerate(1))  # raises, naming the variables without a grid
        self.width, self.lead = 1, len(space.sizes)
        width = 1
        for v in reversed(range(len(space.sizes))):
            width *= space.sizes[v]
            if width > block:
                break
            if width >= _WIDTHS[0] and (self.width == 1 or width <= _WIDTHS[1]):
                self.width, self.lead = width, v
        self.rows = max(1, block // self.width)
        super().__init__(space, self.rows * self.width, seed)
        self.grain = self.width
        if self.width > 1:
            self.shape = (self.rows, self.width)  # never reshaped: that would undo the sharing

    def start(self, position: int) -> tuple:
        assert position % self.width == 0
        return (self.space.from_flat(position),)

    def figures(self, evaluate: Callable, start: tuple, first: Array) -> dict[str, Array]:
        sizes, slots, lead = self.space.sizes, self.space.variables, self.lead
        fill = lambda values: evaluate(self.space.fill(values))
        trailing = _values(slots[lead:], _digits(sizes[lead:], None, np.arange(self.width)))
        row = first // self.width + jnp.arange(self.rows, dtype=jnp.int32)
        leading = _values(slots[:lead], _digits(sizes[:lead], start[0][:lead], row))
        if not trailing:
            return jax.vmap(lambda *values: fill(list(values)))(*leading)
        columns = lambda values: jax.vmap(lambda *rest: fill([*values, *rest]))(*trailing)
        if not leading:
            return {name: value[None] for name, value in columns([]).items()}
        return jax.vmap(lambda *values: columns(values))(*leading)

    def index(self, positions: np.ndarray) -> np.ndarray:
        first = int(positions.min()) if len(positions) else 0
        return self.space.advance(self.space.from_flat(first).astype(np.int64), positions - first)


class _Drawn(SweepOrder):
    """Orders that make one 32-bit word per variable: digit = floor(word x size / 2^32)."""

    def words(self, start: tuple, offset) -> list:
        """One uint32 word per variable; NumPy in, NumPy out."""
        raise NotImplementedError

    def figures(self, evaluate: Callable, start: tuple, first: Array) -> dict[str, Array]:
        offset = first.astype(jnp.uint32) + jnp.arange(self.block, dtype=jnp.uint32)
        words = self.words(start, offset)
        digits = [
            _multiply_high(word, size).astype(jnp.int32)
            for word, size in zip(words, self.space.sizes, strict=True)
        ]
        values = _values(self.space.variables, digits)
        return jax.vmap(lambda *values: evaluate(self.space.fill(list(values))))(*values)

    def index(self, positions: np.ndarray) -> np.ndarray:
        found = np.zeros((len(positions), len(self.space.sizes)), np.int32)
        for high in np.unique(positions >> 32):
            rows = np.flatnonzero(positions >> 32 == high)
            words = self.words(self.start(int(high) << 32), positions[rows].astype(np.uint32))
            for v, (word, size) in enumerate(zip(words, self.space.sizes, strict=True)):
                found[rows, v] = word.astype(np.uint64) * np.uint64(size) >> np.uint64(32)
        return found


class Randomly(_Drawn):
    """Independent uniform draws, with replacement, by an integer hash of the position.

    Word v of position 2^32 h + l is mix(m_v mix(l + a) + b_v), with mix the 32-bit finaliser of
    MurmurHash3 (xor-shift, multiply, twice) and a, m_v (odd), b_v drawn for seed, h and v by
    SplitMix64. A digit is off uniform by at most size / 2^32 of its probability.
    """

    name = "random"
    stretch = 2**32  # within it only the low word changes

    def start(self, position: int) -> tuple:
        high, low = divmod(position, 2**32)
        keys = []
        for v in range(len(self.space.sizes) + 1):
            word = _splitmix(_splitmix(_splitmix(self.seed) + high) + v)
            keys.append([word >> 32 | 1, word & _MASK32])
        return np.uint32(low), np.array(keys, np.uint32)

    def words(self, start: tuple, offset) -> list:
        low, keys = start
        state = _mix(offset + low + keys[-1, 1])
        return [_mix(state * keys[v, 0] + keys[v, 1]) for v in range(len(self.space.sizes))]


class LowDiscrepancy(_Drawn):
    """An additive recurrence: variable v of position n is frac(shift_v + n alpha_v), in 64 bits.

    alpha_v = g^-(v + 1) with g the positive root of x^(V + 1) = x + 1 (the generalised golden ratio, as
    M. Roberts proposed for quasi-random sequences in 2018; recalled). The shifts come from the seed.
    """

    name = "low-discrepancy"

    def __init__(self, space: Space, block: int, seed: int = 0):
        super().__init__(space, block, seed)
        self.steps = _golden(len(space.sizes))
        self.shifts = [_splitmix(_splitmix(seed) + v) for v in range(len(space.sizes))]

    def start(self, position: int) -> tuple:
        sums = [
            (shift + position * step) & _MASK64 for shift, step in zip(self.shifts, self.steps, strict=True)
        ]
        return (np.array([[total >> 32, total & _MASK32] for total in sums], np.uint32),)

    def words(self, start: tuple, offset) -> list:
        words = []
        for v, step in enumerate(self.steps):
            high, low = step >> 32, step & _MASK32
            total = offset * np.uint32(low) + start[0][v, 1]
            carry = (total < start[0][v, 1]).astype(np.uint32)
            words.append(offset * np.uint32(high) + _multiply_high(offset, low) + carry + start[0][v, 0])
        return words


ORDERS: dict[str, type[SweepOrder]] = {order.name: order for order in (Enumerated, Randomly, LowDiscrepancy)}


def order_of(name: str, space: Space, block: int, seed: int) -> SweepOrder:
    """The order called ``name``. Raises ValueError for another name, or a space it cannot visit."""
    if name not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {name!r}")
    return ORDERS[name](space, block, seed)


# Arithmetic ------------------------------------------------------------------------------------


def _digits(sizes: Sequence[int], start, offset) -> list:
    """Mixed-radix digits of start + offset (below 2^30), one array per digit; wraps around at the end."""
    found = []
    for v in reversed(range(len(sizes))):
        size, digit = sizes[v], 0 if start is None else start[v]
        if size > 2**30:  # the sum might not fit
            over = offset >= size - digit
            found.append(jnp.where(over, offset - (size - digit), digit + jnp.where(over, 0, offset)))
            offset = over.astype(offset.dtype)
        else:
            found.append((digit + offset) % size)
            offset = (digit + offset) // size
    return found[::-1]


def _values(slots, digits: list) -> list[Any]:
    # Behind a barrier the tables are read once; else each kernel that needs a value reads its table again.
    values = [
        jax.vmap(slot.variable.at)(jnp.asarray(digit, jnp.int32))
        for slot, digit in zip(slots, digits, strict=True)
    ]
    return lax.optimization_barrier(values) if values else values


def _multiply_high(word, factor: int):
    """floor(word x factor / 2^32) of uint32 words, for a factor below 2^32, in 32-bit arithmetic."""
    high, low = np.uint32(factor >> 16), np.uint32(factor & 0xFFFF)
    top, bottom = word >> np.uint32(16), word & np.uint32(0xFFFF)
    if not high:
        return (top * low + (bottom * low >> np.uint32(16))) >> np.uint32(16)
    middle, cross = top * low, bottom * high
    carry = (bottom * low >> np.uint32(16)) + (middle & np.uint32(0xFFFF)) + (cross & np.uint32(0xFFFF))
    shift = np.uint32(16)
    return top * high + (middle >> shift) + (cross >> shift) + (carry >> shift)


def _mix(word):
    word = (word ^ (word >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    word = (word ^ (word >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return word ^ (word >> np.uint32(16))


def _splitmix(number: int) -> int:
    """SplitMix64 of a Python int: 64 well mixed bits."""
    z = (number + 0x9E3779B97F4A7C15) & _MASK64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK64
    return z ^ (z >> 31)


def _golden(count: int) -> list[int]:
    """floor(2^64 g^-(v + 1)) for v below ``count``, made odd so that the period is 2^64."""
    with decimal.localcontext(prec=60):
        root = decimal.Decimal(2)
        for _ in range(math.ceil(math.log2(count + 2)) + 60):  # Newton's rule, from above
            power = root**count
            root -= (power * root - root - 1) / ((count + 1) * power - 1)
        return [int(2**64 / root ** (v + 1)) | 1 for v in range(count)]
