"""A quantized network exported as integers; `IntegerNetwork` evaluates them by numpy alone.

How it agrees with the fake-quantized forward pass. Layers multiply codes by codes and add up in int32
(int64 where the widths could overflow it). All other values - what accumulators turn into, biases,
residual sums, pools - are fixed point: an int64 with 24 fractional bits, about the resolution of float32.
A scale is an integer multiplier (up to 31 bits) and a right shift. A layer's input is requantized with a
multiplier that equals the float step's inverse bit for bit, rounding half to even as JAX does.

So nothing is a float between the input (rounded to fixed point once) and the logits, except a "lookup"
step (sigmoid, swish), whose function is evaluated in float64. Both passes round their in-between values
differently in the 24th bit: a code may differ where a value lies that close to the middle between two.

The schema of a network's graph is `Graph` (see ``_graph.py``).
"""

import math
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from diffhw.quantization._bits import MAX_BITS
from diffhw.quantization._graph import Graph
from diffhw.quantization._integer_network import IntegerNetwork
from diffhw.quantization._integer_ops import IntegerLayer, Requantize
from diffhw.quantization._layers import kernel_modules
from diffhw.quantization._learned import ClippedQuantizer, LearnedQuantizer
from diffhw.quantization._model import QuantizedModel

__all__ = ["integer_network"]


def _whole(what: str, bits, names) -> list[int]:
    if any(np.ndim(b) for b in bits):
        raise ValueError(f"integers need one {what} width per layer, got widths per channel")
    numbers = np.asarray(bits, float)
    for name, b in zip(names, numbers, strict=True):
        if not (1 <= b <= MAX_BITS and b == round(b)):
            raise ValueError(
                f"integers need whole {what} bits from 1 to {MAX_BITS}, got {b:g} for layer {name!r}"
            )
    return [int(b) for b in numbers]


def _grid(quantizer, n: int) -> tuple[float, int, int, int, bool]:
    """(inverse step, zero, low, high, sign) of an input quantizer at n bits, as JAX computes with them."""
    if isinstance(quantizer, LearnedQuantizer | ClippedQuantizer):
        signed = isinstance(quantizer, LearnedQuantizer) and quantizer.signed
        high = max(2 ** (n - 1) - 1, 1) if signed else 2**n - 1
        return float(quantizer.inverse(n)), 0, -(2 ** (n - 1)) if signed else 0, high, signed and n == 1
    inverse, zero = float(quantizer.inverse[n - 1]), int(quantizer.zero[n - 1])
    high = max(2 ** (n - 1) - 1, 1) if quantizer.signed else 2**n - 1
    return inverse, zero, -high if quantizer.signed else 0, high, quantizer.signed and n == 1


def _requantize(quantizer, n: int, fraction: int) -> tuple[Requantize, float]:
    inverse, zero, low, high, sign = _grid(quantizer, n)
    if not (math.isfinite(inverse) and inverse > 0):
        raise ValueError(
            f"an input step must be positive and finite, got {1 / inverse if inverse else 'inf'}"
        )
    mantissa, exponent = math.frexp(inverse)
    multiplier, exponent = int(mantissa * 2**24), exponent - 24  # exact for a float32
    while multiplier % 2 == 0:
        multiplier, exponent = multiplier // 2, exponent + 1
    return Requantize(multiplier, fraction - exponent, zero, low, high, sign), 1 / inverse


def _smallest(values: np.ndarray) -> np.ndarray:
    """The same integers in the smallest signed type that holds them."""
    top = int(np.abs(values).max(initial=0))
    return values.astype(next(t for t in (np.int8, np.int16, np.int32) if top <= np.iinfo(t).max))


def _weight_codes(quantizer, kernel, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(codes less the zero point, step per output channel as float64)."""
    if isinstance(quantizer, LearnedQuantizer):
        inverse = np.asarray(quantizer.inverse(n), np.float64)
        return np.rint(np.asarray(quantizer.at(kernel, float(n)), np.float64) * inverse), 1 / inverse
    zero = quantizer._row(quantizer.zero, n, kernel)
    inverse = np.asarray(quantizer._row(quantizer.inverse, n, kernel), np.float64)
    if inverse.ndim and inverse.shape[-1] != inverse.size:
        raise ValueError("integers need kernels with one step, or one per output channel (channel_axis=-1)")
    return np.rint(np.asarray(quantizer.codes(kernel, n) - zero)), 1 / inverse.reshape(-1)


def _layer(module, quantizers, bits, fraction) -> IntegerLayer:
    from flax import nnx

    (weight_quantizer, input_quantizer), (w_bits, a_bits) = quantizers, bits
    kernel = module.kernel[...]
    codes, weight_step = _weight_codes(weight_quantizer, kernel, w_bits)
    inputs, input_step = _requantize(input_quantizer, a_bits, fraction)
    codes = codes.astype(np.int64)
    channels = codes.shape[-1]
    # No input can push an accumulator further than this.
    reach = int(np.abs(codes).reshape(-1, channels).sum(0).max()) * max(
        abs(inputs.low - inputs.zero), abs(inputs.high - inputs.zero)
    )
    width = min(31, 62 - max(reach, 1).bit_length())
    scale = np.broadcast_to(weight_step * input_step * 2.0**fraction, (channels,))
    mantissa, exponent = np.frexp(scale)
    multiplier, shift = np.rint(mantissa * 2.0**width).astype(np.int64), width - exponent.astype(np.int64)
    multiplier, shift = np.where(shift > 62, 0, multiplier), np.minimum(shift, 62)
    bias = np.zeros(channels) if module.bias is None else np.asarray(module.bias[...], np.float64)
    more: dict[str, Any] = {}
    if isinstance(module, nnx.Conv):
        more = _convolution(module)
    return IntegerLayer(
        kernel=_smallest(codes),
        bias=np.rint(bias * 2.0**fraction).astype(np.int64),
        multiplier=multiplier,
        shift=shift,
        inputs=inputs,
        accumulator="int32" if reach < 2**31 else "int64",
        weight_bits=w_bits,
        input_bits=a_bits,
        weight_step=tuple(np.ravel(weight_step).tolist()),
        input_step=input_step,
        **more,
    )


def _convolution(module) -> dict[str, Any]:
    """Strides, padding, dilation and groups of an nnx.Conv."""

    def pair(value):
        return (1, 1) if value is None else (value,) * 2 if isinstance(value, int) else tuple(value)

    padding = module.padding
    if isinstance(padding, int):
        padding = [padding] * 2
    if not isinstance(padding, str):
        padding = tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)
    elif padding not in ("SAME", "VALID"):
        raise ValueError(f"integer convolutions pad 'SAME', 'VALID' or by numbers, got {padding!r}")
    if len(module.kernel_size) != 2 or module.mask is not None or pair(module.input_dilation) != (1, 1):
        raise ValueError("integer convolutions have two spatial axes, no mask and no input dilation")
    return dict(
        strides=pair(module.strides),
        padding=padding,
        dilation=pair(module.kernel_dilation),
        groups=module.feature_group_count,
    )


def integer_network(
    quantized: QuantizedModel, bits, graph: Graph, *, sample=None, fraction: int = 24
) -> IntegerNetwork:
    """The integer form of a quantized model.

    bits: as `QuantizedModel.bits`, whole numbers from 1 to 16, for weights and activations.
    graph: the model's steps (its batch norms folded before).  sample: a batch on which the integer
    output is compared with the model's, to catch a graph that is not the model's.
    fraction: fractional bits between layers.
    Raises ValueError for bits that are not whole, activations that were not calibrated, a layer that is
    missing, unknown or not a two-dimensional convolution or dense layer, or outputs that differ (median
    over the examples of ``sample``) by more than 1 % of the largest.
    """
    from flax import nnx

    weight_bits, input_bits = quantized.bits(bits)
    if weight_bits is None or input_bits is None:
        raise ValueError("integers need bits for both weights and activations")
    if quantized.input_quantizers is None:
        raise ValueError(
            "integers need calibrated inputs: QuantizedModel.of(..., activations=QuantSpec('auto'))"
        )
    if graph.result is None:
        raise ValueError("the graph has no output: end it with Graph.output")
    if quantized.weight_quantizers is None:
        live = [quantized._weight_quantizer(i, k) for i, k in enumerate(quantized.kernels())]
        quantized = replace(quantized, weight_quantizers=tuple(live))
    names = quantized.names
    widths = list(
        zip(_whole("weight", weight_bits, names), _whole("activation", input_bits, names), strict=True)
    )
    model = quantized.model()
    modules = kernel_modules(model)
    used = [op.layer for op in graph.ops if op.layer is not None]
    for name in [*used, *names]:
        if name not in names or name not in used:
            where = "model" if name in used else "graph"
            raise ValueError(f"layer {name!r} is not in the {where}; the model has {', '.join(names)}")
        if not isinstance(modules[name], nnx.Conv | nnx.Linear):
            raise ValueError(f"layer {name!r} is a {type(modules[name]).__name__}: no integer form of it")
    weight_quantizers, input_quantizers = quantized.weight_quantizers, quantized.input_quantizers
    assert weight_quantizers is not None and input_quantizers is not None
    layers = {
        name: _layer(modules[name], (weight_quantizers[i], input_quantizers[i]), widths[i], fraction)
        for i, name in enumerate(names)
    }
    network = IntegerNetwork(tuple(graph.ops), layers, graph.result, fraction)
    if sample is not None:
        expected = np.asarray(jax.jit(lambda q, x: q(bits, x))(quantized, sample), np.float64)
        got = network.logits(np.asarray(sample))
        if expected.shape != got.shape:
            raise ValueError(f"the graph gives outputs of shape {got.shape}, the model {expected.shape}")
        # The median: a code that falls on the other side of a tie moves a few examples only.
        axes = tuple(range(1, got.ndim))
        gap = np.median(np.abs(expected - got).max(axes)) / max(np.abs(expected).max(), 1e-30)
        if gap > 0.01:
            raise ValueError(
                f"the integer network's output is {100 * gap:.2g} % off the model's: "
                f"its graph is not the model's"
            )
    return network
