"""Fake quantizers, real-valued bit widths, calibration, sensitivity, integer networks.

Knows numerics only: it works on arrays, pytrees and flax nnx models.
"""

from diffhw.quantization._bits import FULL_BITS, MAX_BITS, check_bits, interpolate
from diffhw.quantization._calibrate import calibrate
from diffhw.quantization._fold import batch_norm_pairs, fold_arrays, fold_batch_norm
from diffhw.quantization._graph import OP_KINDS, Graph, Op
from diffhw.quantization._integer import IntegerNetwork, integer_network
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
