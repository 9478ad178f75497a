"""Fake quantizers, real-valued bit widths, calibration, sensitivity, integer networks.

Knows numerics only: it works on arrays, pytrees and flax nnx models. Names are loaded on first use, so that
an integer network is evaluated without loading JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffhw.quantization._bits import FULL_BITS, MAX_BITS, check_bits, interpolate
    from diffhw.quantization._calibrate import calibrate
    from diffhw.quantization._fold import batch_norm_pairs, fold_arrays, fold_batch_norm
    from diffhw.quantization._graph import OP_KINDS, Graph, Op
    from diffhw.quantization._integer import integer_network
    from diffhw.quantization._integer_network import IntegerNetwork
    from diffhw.quantization._layers import LayerInfo, layers_of
    from diffhw.quantization._learned import ClippedQuantizer, LearnedQuantizer, lsq, lsq_step, pact
    from diffhw.quantization._model import QuantizedModel, TabulatedWeights, quantized_apply
    from diffhw.quantization._quantizer import (
        GRIDS,
        Quantizer,
        QuantSpec,
        code_range,
        fake_quantize,
        quantize_codes,
    )
    from diffhw.quantization._sensitivity import hawq_sensitivity, hessian_trace, layer_sweep, weight_error
    from diffhw.quantization._tree import WeightLeaf, quantizable, quantize_tree

_HOMES = {
    "FULL_BITS": "_bits",
    "GRIDS": "_quantizer",
    "MAX_BITS": "_bits",
    "OP_KINDS": "_graph",
    "ClippedQuantizer": "_learned",
    "Graph": "_graph",
    "IntegerNetwork": "_integer_network",
    "LayerInfo": "_layers",
    "LearnedQuantizer": "_learned",
    "Op": "_graph",
    "QuantSpec": "_quantizer",
    "QuantizedModel": "_model",
    "Quantizer": "_quantizer",
    "TabulatedWeights": "_model",
    "WeightLeaf": "_tree",
    "batch_norm_pairs": "_fold",
    "calibrate": "_calibrate",
    "check_bits": "_bits",
    "code_range": "_quantizer",
    "fake_quantize": "_quantizer",
    "fold_arrays": "_fold",
    "fold_batch_norm": "_fold",
    "hawq_sensitivity": "_sensitivity",
    "hessian_trace": "_sensitivity",
    "integer_network": "_integer",
    "interpolate": "_bits",
    "layer_sweep": "_sensitivity",
    "layers_of": "_layers",
    "lsq": "_learned",
    "lsq_step": "_learned",
    "pact": "_learned",
    "quantizable": "_tree",
    "quantize_codes": "_quantizer",
    "quantize_tree": "_tree",
    "quantized_apply": "_model",
    "weight_error": "_sensitivity",
}

__all__ = [
    "FULL_BITS",
    "GRIDS",
    "MAX_BITS",
    "OP_KINDS",
    "ClippedQuantizer",
    "Graph",
    "IntegerNetwork",
    "LayerInfo",
    "LearnedQuantizer",
    "Op",
    "QuantSpec",
    "QuantizedModel",
    "Quantizer",
    "TabulatedWeights",
    "WeightLeaf",
    "batch_norm_pairs",
    "calibrate",
    "check_bits",
    "code_range",
    "fake_quantize",
    "fold_arrays",
    "fold_batch_norm",
    "hawq_sensitivity",
    "hessian_trace",
    "integer_network",
    "interpolate",
    "layer_sweep",
    "layers_of",
    "lsq",
    "lsq_step",
    "pact",
    "quantizable",
    "quantize_codes",
    "quantize_tree",
    "quantized_apply",
    "weight_error",
]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"diffhw.quantization.{_HOMES[name]}"), name)
    raise AttributeError(
        f"module 'diffhw.quantization' has no attribute {name!r}; it has {', '.join(__all__)}"
    )
