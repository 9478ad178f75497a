"""Steps of a network in numpy integers. Values are fixed point: an int64 v stands for v / 2^fraction."""

from dataclasses import dataclass

import numpy as np

__all__ = ["IntegerLayer", "Requantize", "apply_layer", "apply_op", "shift_round"]


@dataclass(frozen=True)
class Requantize:
    """From fixed point to codes: ``round(v * multiplier / 2^shift) + zero``, kept within low to high.

    Codes are handed on with zero taken off, so that 0 stands for 0.0 (and pads).
    sign: the codes are -1 and +1.
    """

    multiplier: int
    shift: int
    zero: int
    low: int
    high: int
    sign: bool = False


@dataclass(frozen=True)
class IntegerLayer:
    """One convolution or dense layer.

    kernel: integer codes (zero taken off), (r, s, c / groups, k) or (c, k).  bias: (k,) int64, fixed point.
    multiplier, shift: (k,), the accumulator to fixed point.  inputs: `Requantize`.
    strides, padding, dilation, groups: of a convolution; padding as ((top, bottom), (left, right)).
    accumulator: "int32" where no input can overflow it, else "int64".
    weight_bits, input_bits, weight_step, input_step: for the record.
    """

    kernel: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    inputs: Requantize
    accumulator: str
    strides: tuple[int, ...] = ()
    padding: object = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    weight_bits: int = 8
    input_bits: int = 8
    weight_step: tuple[float, ...] = ()
    input_step: float = 1.0


def shift_round(v: np.ndarray, shift) -> np.ndarray:
    """``v / 2^shift``, rounded to nearest, half to even, in int64. shift: an int or (k,), any sign."""
    shift = np.asarray(shift, np.int64)
    right = np.maximum(shift, 0)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    moved = v + half
    result = moved >> right
    tie = (right > 0) & ((moved & ((np.int64(1) << right) - 1)) == 0)
    return (result - (tie & (result & 1))) << np.maximum(-shift, 0)


def divide_round(v: np.ndarray, count: int) -> np.ndarray:
    """``v / count``, rounded to nearest, half up."""
    return (2 * v + count) // (2 * count)


def to_codes(v: np.ndarray, to: Requantize) -> np.ndarray:
    """Codes less their zero point, int32."""
    if to.sign:
        slack = (np.int64(1) << max(to.shift, 0)) >> 12  # as `SIGN_SLACK` of the float quantizer
        return np.where(v * to.multiplier >= -slack, 1, -1).astype(np.int32)
    codes = np.clip(shift_round(v * to.multiplier, to.shift) + to.zero, to.low, to.high)
    return (codes - to.zero).astype(np.int32)


def window_pads(shape, window, strides, padding, dilation=(1, 1)) -> list[tuple[int, int]]:
    """Zeros before and after each spatial axis for "SAME", "VALID" or explicit pairs."""
    if padding == "VALID":
        return [(0, 0)] * len(window)
    if padding != "SAME":
        return [(int(a), int(b)) for a, b in padding]
    pads = []
    for size, taps, stride, rate in zip(shape, window, strides, dilation, strict=True):
        total = max((-(-size // stride) - 1) * stride + (taps - 1) * rate + 1 - size, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def _windows(x, window, strides, dilation, pads, fill):
    """For each tap, the (n, p, q, c) values that it meets."""
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    p, q = (
        (size - (taps - 1) * rate - 1) // stride + 1
        for size, taps, stride, rate in zip(x.shape[1:3], window, strides, dilation, strict=True)
    )
    for i in range(window[0]):
        for j in range(window[1]):
            y, z = i * dilation[0], j * dilation[1]
            yield (
                (i, j),
                x[
                    :,
                    y : y + (p - 1) * strides[0] + 1 : strides[0],
                    z : z + (q - 1) * strides[1] + 1 : strides[1],
                ],
            )


def _convolve(codes: np.ndarray, layer: IntegerLayer) -> np.ndarray:
    kernel = layer.kernel.astype(layer.accumulator)
    r, s, c, k = kernel.shape
    g = layer.groups
    pads = window_pads(codes.shape[1:3], (r, s), layer.strides, layer.padding, layer.dilation)
    total = None
    for (i, j), x in _windows(codes, (r, s), layer.strides, layer.dilation, pads, 0):
        n, p, q, _ = x.shape
        taps = kernel[i, j]  # (c, k), the k of group 0 first
        if c == 1:  # depthwise: channels do not meet
            part = (x[..., None] * taps.reshape(g, k // g)).reshape(n, p, q, k)
        elif g == 1:
            part = x @ taps
        else:
            rows = x.reshape(n * p * q, g, c).transpose(1, 0, 2)
            part = rows @ taps.reshape(c, g, k // g).transpose(1, 0, 2)
            part = part.transpose(1, 0, 2).reshape(n, p, q, k)
        total = part if total is None else total + part
    assert total is not None
    return total


def apply_layer(v: np.ndarray, layer: IntegerLayer) -> np.ndarray:
    """Fixed point to fixed point: requantize, multiply and accumulate in integers, scale, add the bias."""
    codes = to_codes(v, layer.inputs).astype(layer.accumulator)
    if layer.kernel.ndim == 4:
        total = _convolve(codes, layer)
    else:
        total = codes @ layer.kernel.astype(layer.accumulator)
    return shift_round(total.astype(np.int64) * layer.multiplier, layer.shift) + layer.bias


def _product(a, b, fraction):
    if int(np.abs(a).max()) * int(np.abs(b).max()) >= 2**62:
        raise ValueError(
            f"a product of activations overflows 64 bits: export with fewer than {fraction} fraction bits"
        )
    return shift_round(a * b, fraction)


def apply_op(kind: str, settings: dict, inputs: list[np.ndarray], fraction: int) -> np.ndarray:
    """Any step of `OP_KINDS` without a kernel, on fixed-point arrays (n, h, w, c) or (n, c)."""
    x = inputs[0]
    one = 1 << fraction
    if kind == "relu":
        high = settings.get("high")
        return np.clip(x, 0, None if high is None else round(high * one))
    if kind in ("hard_sigmoid", "hard_swish"):
        gate = divide_round(np.clip(x + 3 * one, 0, 6 * one), 6)
        return gate if kind == "hard_sigmoid" else _product(x, gate, fraction)
    if kind == "lookup":
        real = x / one
        value = 1 / (1 + np.exp(-real))
        value = value * real if settings["function"] == "swish" else value
        return np.round(value * one).astype(np.int64)
    if kind == "add":
        return x + inputs[1]
    if kind == "multiply":
        y = inputs[1]
        return _product(x, y[:, None, None, :] if y.ndim == 2 < x.ndim else y, fraction)
    if kind in ("max_pool", "avg_pool"):
        window, strides = settings["window"], settings["strides"]
        pads = window_pads(x.shape[1:3], window, strides, settings["padding"])
        fill = 0 if kind == "avg_pool" else np.iinfo(np.int64).min
        seen = [part for _, part in _windows(x, window, strides, (1, 1), pads, fill)]
        if kind == "max_pool":
            return np.maximum.reduce(seen)
        return divide_round(np.add.reduce(seen), window[0] * window[1])
    if kind == "mean":
        return divide_round(x.sum((1, 2)), x.shape[1] * x.shape[2])
    if kind == "concat":
        return np.concatenate(inputs, -1)
    if kind == "slice":
        return x[..., settings["start"] : settings["stop"]]
    if kind == "shuffle":
        groups = settings["groups"]
        return x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2).reshape(x.shape)
    if kind == "flatten":
        return x.reshape(len(x), -1)
    raise ValueError(f"no integer form of the step {kind!r}")
