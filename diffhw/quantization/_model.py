"""Any flax nnx model with quantized weights and layer inputs, as a pure function of the bits."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffhw.quantization._bits import MAX_BITS, check_bits, interpolate
from diffhw.quantization._calibrate import calibrate
from diffhw.quantization._layers import LayerInfo, hook_module, kernel_modules, layers_of
from diffhw.quantization._learned import ClippedQuantizer, LearnedQuantizer
from diffhw.quantization._quantizer import DEFAULT_SPEC, Quantizer, QuantSpec

__all__ = ["QuantizedModel", "TabulatedWeights", "quantized_apply"]

_LIVE_GRIDS = {"auto": "affine"}  # of values that are not known yet


@struct.dataclass(kw_only=True)
class TabulatedWeights:
    """The quantized values of one fixed kernel at each whole width 1, 2, ...: a configuration is a gather.

    values: (n, ...); widths beyond n count as n, unless ``full`` (the float kernel, last) is asked for.
    No gradient in the kernel; the gradient in bits is that of `Quantizer`.
    """

    values: Array

    def __call__(self, x, bits, *, whole: bool = False) -> Array:
        """The table's row, or the interpolation of two; x is ignored."""
        row = lambda n: self.values[jnp.clip(n.astype(jnp.int32), 1, len(self.values)) - 1]
        return interpolate(row, bits, whole=whole)


@dataclass(frozen=True)
class _Static:
    """What shapes the program."""

    graphdef: Any
    layers: tuple[LayerInfo, ...]
    weights: QuantSpec
    activations: QuantSpec | None
    whole: bool


@struct.dataclass(kw_only=True, eq=False)  # compared and hashed by identity: `jax.jit(q)` works
class QuantizedModel:
    """An nnx model as data; calling it with bits quantizes its kernels and the inputs of its layers.

    params:             the model's parameters (nnx.State).
    rest:               its other state (batch statistics, random keys).
    weight_quantizers:  one per layer, or None: min-max of the kernel as it is at each call, which is
                        what training needs.
    input_quantizers:   one per layer, or None: min-max of the batch at each call (affine).
    static:             graph, layers and specs.

    A pytree: `jax.grad` through a call reaches params (straight-through), learned quantizers and bits;
    `jax.vmap` over bits (or over stacked models) compiles once. A layer is a convolution or dense
    module; one called twice has one entry. Biases and everything between layers stay in floating point.

        q = QuantizedModel.of(model, x, activations=QuantSpec("auto"))
        logits = q({"weights": w_bits, "activations": a_bits}, x)       # each (L,) or a number
        many = jax.jit(jax.vmap(lambda bits: q(bits, x)))(bit_vectors)  # (B, L) of weight bits
    """

    params: Any
    rest: Any
    weight_quantizers: tuple | None
    input_quantizers: tuple | None
    static: _Static = struct.field(pytree_node=False)

    @classmethod
    def of(
        cls,
        model,
        *args,
        weights: QuantSpec = DEFAULT_SPEC,
        activations: QuantSpec | None = None,
        live_weights: bool = False,
        whole: bool = False,
        **kwargs,
    ) -> "QuantizedModel":
        """Find the layers of ``model(*args, **kwargs)``, calibrate kernels, and inputs on args.

        weights, activations: how; None leaves inputs unquantized (then args may be shapes). live_weights:
        min-max of the kernels at each call in place of calibrated steps.  whole: bits will be whole
        numbers, which halves the work and gives no gradient in them.
        Raises ValueError for a model without layers, or a channel axis for activations.
        """
        from flax import nnx

        if activations is not None and activations.channel_axis is not None:
            raise ValueError("activations have one step per tensor: channel_axis must be None")
        layers = layers_of(model, *args, **kwargs)
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        quantizers = None
        if not live_weights:
            modules = kernel_modules(model)
            quantizers = tuple(calibrate(modules[one.path].kernel[...], weights) for one in layers)
        made = cls(
            params=params,
            rest=rest,
            weight_quantizers=quantizers,
            input_quantizers=None,
            static=_Static(graphdef, layers, weights, activations, whole),
        )
        if activations is not None:
            seen = made.layer_inputs(*args, **kwargs)
            made = replace(made, input_quantizers=tuple(calibrate(x, activations) for x in seen))
        return made

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The quantized layers, in the order of bits."""
        return self.static.layers

    @property
    def names(self) -> tuple[str, ...]:
        """Their paths."""
        return tuple(one.path for one in self.layers)

    def bits(self, bits) -> tuple[Array | None, Array | None]:
        """(weight bits, activation bits), each (L,) or None for full precision, from any accepted form.

        bits: (L,) or a number for the weights alone; or a dict of "weights" and "activations", each
        (L,) or a number; what is left out stays in full precision; None: all of it. Weights with a step per
        channel may have widths per channel: a tuple with a number or (C,) for each layer.
        Raises ValueError as `check_bits`, or for widths per channel that do not fit.
        """
        if bits is None:
            return None, None
        if not isinstance(bits, dict):
            return self._weight_bits(bits), None
        unknown = sorted(set(bits) - {"weights", "activations"})
        if unknown:
            raise ValueError(f"bits must be given for 'weights' and 'activations', got {unknown[0]!r}")
        weight, inputs = bits.get("weights"), bits.get("activations")
        return (
            None if weight is None else self._weight_bits(weight),
            None if inputs is None else check_bits("activation", inputs, self.names),
        )

    def _weight_bits(self, bits):
        """(L,), or a tuple of L where some layer has a width per channel."""
        if not isinstance(bits, tuple | list) or not any(np.ndim(b) for b in bits):
            return check_bits("weight", bits, self.names)
        if len(bits) != len(self.names):
            raise ValueError(
                f"weight bits must have one entry per quantized layer: got {len(bits)} for {len(self.names)}"
            )
        made = []
        for i, (b, layer) in enumerate(zip(bits, self.layers, strict=True)):
            if np.ndim(b):
                quantizer = None if self.weight_quantizers is None else self.weight_quantizers[i]
                axis = self.static.weights.channel_axis
                fits = axis is not None and np.shape(b) == (layer.kernel_shape[axis],)
                if not fits or not isinstance(quantizer, Quantizer | None):
                    raise ValueError(
                        f"layer {layer.path!r} (kernel {layer.kernel_shape}) takes one width, or with "
                        f"QuantSpec(channel_axis=...) one per channel, got {np.shape(b)}"
                    )
            made.append(check_bits("weight", b, (layer.path,) * max(np.size(b), 1)))
        return tuple(w[0] if np.ndim(b) == 0 else w for b, w in zip(bits, made, strict=True))

    def __call__(self, bits, *args, **kwargs):
        """The model's output under ``bits`` (see `bits`). Raises ValueError for bits that do not fit."""
        return self.run(bits, *args, **kwargs)[0]

    def run(self, bits, *args, **kwargs):
        """(output, rest): also the state a training forward pass leaves behind (batch statistics)."""
        from flax import nnx

        model, _ = self._quantized(*self.bits(bits))
        out = model(*args, **kwargs)
        return out, nnx.state(model, nnx.Not(nnx.Param))

    def layer_inputs(self, *args, **kwargs) -> tuple[Array, ...]:
        """The inputs of each layer in full precision, the calls of one layer stacked."""

        @jax.jit
        def run(q):
            model, seen = q._quantized(None, None)
            model(*args, **kwargs)
            return seen

        seen = run(self)
        flat = lambda calls: calls[0] if len(calls) == 1 else jnp.concatenate([x.reshape(-1) for x in calls])
        return tuple(flat(seen[name]) for name in self.names)

    def kernels(self) -> tuple[Array, ...]:
        """The float kernels, in the order of bits."""
        modules = kernel_modules(self.model())
        return tuple(modules[name].kernel[...] for name in self.names)

    def with_kernels(self, kernels) -> "QuantizedModel":
        """The same with other float kernels, in the order of bits; calibrated quantizers stay."""
        from flax import nnx

        model = self.model()
        modules = kernel_modules(model)
        for name, kernel in zip(self.names, kernels, strict=True):
            modules[name].kernel = nnx.Param(kernel)
        return replace(self, params=nnx.state(model, nnx.Param))

    def quantized_kernels(self, bits) -> tuple[Array, ...]:
        """The kernels as the network multiplies by them under ``bits``."""
        widths, _ = self.bits(bits)
        if widths is None:
            return self.kernels()
        return tuple(
            self._weight_quantizer(i, k)(k, widths[i], whole=self.static.whole)
            for i, k in enumerate(self.kernels())
        )

    def _weight_quantizer(self, i, kernel):
        if self.weight_quantizers is not None:
            return self.weight_quantizers[i]
        grid = _LIVE_GRIDS.get(self.static.weights.grid, self.static.weights.grid)
        return calibrate(kernel, self.static.weights, grid=grid)

    def _input_quantizer(self, i, x):
        if self.input_quantizers is not None:
            return self.input_quantizers[i]
        return calibrate(x, QuantSpec("affine"))

    def _quantized(self, weight_bits, input_bits):
        """A copy of the model whose layers quantize, and what its layers were called with."""
        from flax import nnx

        model = nnx.merge(self.static.graphdef, self.params, self.rest)
        modules, seen = kernel_modules(model), {name: [] for name in self.names}
        whole = self.static.whole

        def call_with(i, name, call, x, *args, **kwargs):
            seen[name].append(x)
            if input_bits is not None:
                x = self._input_quantizer(i, x)(x, input_bits[i], whole=whole)
            return call(x, *args, **kwargs)

        for i, name in enumerate(self.names):
            if name not in modules:
                raise ValueError(f"the model has no layer {name!r}; it has {', '.join(modules)}")
            module = modules[name]
            if weight_bits is not None:
                kernel = module.kernel[...]
                quantized = self._weight_quantizer(i, kernel)(kernel, weight_bits[i], whole=whole)
                module.kernel = nnx.Param(quantized)
            hook_module(module, functools.partial(call_with, i, name))
        return model, seen

    def tabulated(self, max_bits: int = 8) -> "QuantizedModel":
        """The same with a table of each kernel at 1 to ``max_bits`` bits: fast to evaluate, not to train.

        A wider kernel than ``max_bits`` is refused by nobody: it counts as ``max_bits``.
        """
        if not 1 <= max_bits <= MAX_BITS:
            raise ValueError(f"max_bits must be from 1 to {MAX_BITS}, got {max_bits}")
        widths = jnp.arange(1.0, max_bits + 1)
        tables = [
            jax.vmap(lambda n, i=i, k=k: self._weight_quantizer(i, k)(k, n, whole=True))(widths)
            for i, k in enumerate(self.kernels())
        ]
        return replace(self, weight_quantizers=tuple(TabulatedWeights(values=t) for t in tables))

    def learned(self, bits, *args, clip: bool = False, **kwargs) -> "QuantizedModel":
        """The same with learned quantizers for training: LSQ for kernels, LSQ or PACT for inputs.

        bits: the widths at which LSQ's first steps are set.  args: a batch for the inputs' first steps.
        clip: PACT in place of LSQ for inputs that are never negative.
        """
        weight_bits, input_bits = self.bits(bits)
        kernels = [
            LearnedQuantizer.create(k, 8 if weight_bits is None else weight_bits[i], signed=True)
            for i, k in enumerate(self.kernels())
        ]
        inputs = None
        if input_bits is not None:
            seen = self.layer_inputs(*args, **kwargs)
            inputs = tuple(
                ClippedQuantizer.create(x)
                if clip and float(np.min(x)) >= 0
                else LearnedQuantizer.create(x, input_bits[i])
                for i, x in enumerate(seen)
            )
        return replace(
            self, weight_quantizers=tuple(kernels), input_quantizers=inputs or self.input_quantizers
        )

    def model(self):
        """The nnx model in full precision, with the present params (after training)."""
        from flax import nnx

        return nnx.merge(self.static.graphdef, self.params, self.rest)


def quantized_apply(model, bits, *args, weights: QuantSpec = DEFAULT_SPEC, **kwargs):
    """``model(*args, **kwargs)`` with quantized kernels and, if asked for, layer inputs.

    model: any flax nnx model.  bits: as `QuantizedModel.bits`; layers are ordered by `layers_of`.
    Steps are the min-max of each kernel and of each batch of inputs (affine); `QuantizedModel` calibrates
    inputs once instead. Differentiable in the model's parameters (straight-through), args and bits;
    vmappable over bits. Raises ValueError for bits that do not fit.
    """
    made = QuantizedModel.of(model, *args, weights=weights, live_weights=True, **kwargs)
    return made(bits, *args, **kwargs)
