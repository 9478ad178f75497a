"""One operator with MACs, and a network of them: WHAT RUNS.

Letters: n batch, g groups, k output channels per group, c input channels per group, p and q output
rows and columns, r and s filter rows and columns, h and w input rows and columns (unpadded).
"""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.core import Tracer

from diffhw import numerics
from diffhw.workloads import _show

__all__ = ["Layer", "Network", "NetworkInfo", "Operator"]

_POSITIVE = ("n", "g", "k", "c", "p", "q", "r", "s", "h", "w")
_STEPS = ("stride_h", "stride_w", "dilation_h", "dilation_w")
_PADS = ("pad_top", "pad_left")
LAYER_FIELDS = (*_POSITIVE, *_PADS, *_STEPS, "weight_is_activation")


def layer_numbers(
    *,
    n=1,
    g=1,
    k=1,
    c=1,
    p: Any = None,
    q: Any = None,
    r=1,
    s=1,
    h: Any = None,
    w: Any = None,
    pad_top=0,
    pad_left=0,
    pad_bottom=None,
    pad_right=None,
    stride_h=1,
    stride_w=1,
    dilation_h=1,
    dilation_w=1,
    weight_is_activation=0,
) -> dict:
    """The fields of a layer, checked and completed, still plain numbers (readers stack them in numpy).

    Same arguments and errors as `Layer.create`.
    """
    for axis, out, size in (("h", "p", h), ("w", "q", w)):
        if size is None and {"p": p, "q": q}[out] is None:
            raise ValueError(f"a layer needs {axis} (input size) or {out} (output size)")
    if p is None:
        bottom = pad_top if pad_bottom is None else pad_bottom
        p = (h + pad_top + bottom - dilation_h * (r - 1) - 1) // stride_h + 1
    if q is None:
        right = pad_left if pad_right is None else pad_right
        q = (w + pad_left + right - dilation_w * (s - 1) - 1) // stride_w + 1
    if h is None:
        h = (p - 1) * stride_h + dilation_h * (r - 1) + 1 - 2 * pad_top
    if w is None:
        w = (q - 1) * stride_w + dilation_w * (s - 1) + 1 - 2 * pad_left
    sizes = dict(n=n, g=g, k=k, c=c, p=p, q=q, r=r, s=s, h=h, w=w)
    steps = dict(stride_h=stride_h, stride_w=stride_w, dilation_h=dilation_h, dilation_w=dilation_w)
    pads = dict(pad_top=pad_top, pad_left=pad_left)
    derived = dict(p=sizes.pop("p"), q=sizes.pop("q"))  # checked last: blame the size that was given
    for name, value in (sizes | steps | derived).items():
        if not isinstance(value, Tracer) and not np.all(np.asarray(value, float) >= 1):
            raise ValueError(f"layer size {name} must be >= 1, got {value}")
    for name, value in pads.items():
        if not isinstance(value, Tracer) and not np.all(np.asarray(value, float) >= 0):
            raise ValueError(f"{name} must be >= 0, got {value}")
    return sizes | derived | steps | pads | dict(weight_is_activation=weight_is_activation)


@struct.dataclass(kw_only=True)
class Layer:
    """One operator with MACs, written as a grouped convolution. Every field has shape ``()``.

    A GEMM of M x K by K x N is ``p = M, c = K, k = N``; a depthwise convolution is
    ``g = channels, k = c = 1``; an attention product is a GEMM with ``g = batch * kv heads`` and
    ``weight_is_activation = 1`` (its second operand is computed, not a parameter).
    h and w stand beside p and q because real files overhang the input or leave pixels untouched.
    All sizes are floats, so that widths can be relaxed: differentiable wherever a model says so.
    """

    n: Array
    g: Array
    k: Array
    c: Array
    p: Array
    q: Array
    r: Array
    s: Array
    h: Array
    w: Array
    pad_top: Array
    pad_left: Array
    stride_h: Array
    stride_w: Array
    dilation_h: Array
    dilation_w: Array
    weight_is_activation: Array

    @classmethod
    def create(
        cls,
        *,
        n=1,
        g=1,
        k=1,
        c=1,
        p=None,
        q=None,
        r=1,
        s=1,
        h=None,
        w=None,
        pad_top=0,
        pad_left=0,
        pad_bottom=None,
        pad_right=None,
        stride_h=1,
        stride_w=1,
        dilation_h=1,
        dilation_w=1,
        weight_is_activation=0,
    ) -> "Layer":
        """Check and convert. Give h and w (then p and q follow), or p and q (then h and w follow).

        pad_bottom, pad_right: default to pad_top, pad_left; used only to derive p and q.
        Raises ValueError naming the field for a size below one or not a number.
        """
        numbers = layer_numbers(
            n=n,
            g=g,
            k=k,
            c=c,
            p=p,
            q=q,
            r=r,
            s=s,
            h=h,
            w=w,
            pad_top=pad_top,
            pad_left=pad_left,
            pad_bottom=pad_bottom,
            pad_right=pad_right,
            stride_h=stride_h,
            stride_w=stride_w,
            dilation_h=dilation_h,
            dilation_w=dilation_w,
            weight_is_activation=weight_is_activation,
        )
        return cls(**{name: numerics.as_float(value) for name, value in numbers.items()})

    @classmethod
    def gemm(cls, m, k, n, *, batch=1, weight_is_activation=0) -> "Layer":
        """``batch`` products of an m x k by a k x n matrix (each with its own second operand)."""
        return cls.create(g=batch, p=m, q=1, c=k, k=n, weight_is_activation=weight_is_activation)

    @property
    def macs(self) -> Array:
        """Multiply-accumulates, padding taps included (as published counts do)."""
        return self.n * self.g * self.k * self.c * self.p * self.q * self.r * self.s

    @property
    def weight_words(self) -> Array:
        """Words of the second operand (parameters unless ``weight_is_activation``)."""
        return self.g * self.k * self.c * self.r * self.s

    @property
    def input_words(self) -> Array:
        """Words of the whole input tensor, unpadded."""
        return self.n * self.g * self.c * self.h * self.w

    @property
    def output_words(self) -> Array:
        """Words of the output tensor."""
        return self.n * self.g * self.k * self.p * self.q

    @property
    def params(self) -> Array:
        """Parameters: the weight words, or 0 for a product of two activations (no bias)."""
        return self.weight_words * (1 - self.weight_is_activation)

    def __repr__(self) -> str:
        return _show.layer_text(self)


@dataclass(frozen=True)
class Operator:
    """A non-MAC operator of a network, for the record: no model charges for it yet.

    name, kind: as the source graph calls them.  elements: output elements of one run.
    count: runs per inference.
    """

    name: str
    kind: str
    elements: int
    count: int = 1


def share_note(operators, layer_elements: int) -> str:
    """One sentence: how much of what a network produces comes from its non-MAC operators."""
    elements = sum(one.elements * one.count for one in operators)
    share = 100 * elements / max(elements + layer_elements, 1)
    return (
        f"non-MAC operators: {len(operators)} listed, {elements:,} elements, {share:.0f} % of all elements "
        f"produced; models do not charge for them"
    )


@dataclass(frozen=True)
class NetworkInfo:
    """What only people read: never traced, never part of the compiled program.

    name: of the network.  names: one per layer row.  edges: (producer, consumer) layer indices.
    operators: the non-MAC operators.  source: where the shapes come from.
    notes: sentences a reader of the numbers must know (a branch dropped, a trip count assumed).
    """

    name: str = "network"
    names: tuple[str, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()
    operators: tuple[Operator, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = field(default=())


def _bucket(n: int) -> int:
    size = 16
    while size < n:
        size *= 2
    return size


@struct.dataclass(kw_only=True)
class Network:
    """Layers stacked on a leading axis, padded to 16, 32, 64, ... rows of ones.

    layers: `Layer` with leaves of shape (L,).  mask: (L,), 1 for a real layer, 0 for padding.
    count: (L,), how many times the layer runs per inference (identical layers are merged).
    other_params: (), parameters that belong to no Layer (norms, embeddings, biases).

    The host-side `NetworkInfo` rides along as the plain attribute ``info``; it is no field, so
    networks of one bucket share compiled code, and it is lost by design in traced copies.
    """

    layers: Layer
    mask: Array
    count: Array
    other_params: Array

    @classmethod
    def create(
        cls, layers: list[Layer], *, counts=None, other_params=0, info: NetworkInfo | None = None, pad_to=None
    ) -> "Network":
        """Stack scalar layers. Raises ValueError for an empty list or lists that do not match."""
        n = len(layers)
        if n == 0:
            raise ValueError("a network needs at least one layer with MACs, got none")
        counts = [1] * n if counts is None else list(counts)
        if len(counts) != n:
            raise ValueError(f"counts must have one entry per layer: got {len(counts)} for {n} layers")
        size = _bucket(n) if pad_to is None else pad_to
        if size < n:
            raise ValueError(f"pad_to must be >= the number of layers ({n}), got {pad_to}")
        columns = {}
        for name in LAYER_FIELDS:
            fill = 0.0 if name in _PADS or name == "weight_is_activation" else 1.0
            column = np.full(size, fill)
            column[:n] = [float(getattr(one, name)) for one in layers]
            columns[name] = numerics.as_float(column)
        mask = np.zeros(size)
        mask[:n] = 1
        count = np.zeros(size)
        count[:n] = counts
        network = cls(
            layers=Layer(**columns),
            mask=numerics.as_float(mask),
            count=numerics.as_float(count),
            other_params=numerics.as_float(other_params),
        )
        return network.with_info(info or NetworkInfo())

    @property
    def info(self) -> NetworkInfo:
        """Names and other host-side facts; a default one after tracing or ``replace``."""
        return self.__dict__.get("_info", NetworkInfo())

    def with_info(self, info: NetworkInfo) -> "Network":
        """The same network with ``info`` attached."""
        copy = replace(self)
        object.__setattr__(copy, "_info", info)
        return copy

    @property
    def size(self) -> int:
        """Number of real rows (distinct layers, if merged). Host only."""
        return int(np.asarray(self.mask).sum())

    @property
    def names(self) -> tuple[str, ...]:
        """One name per real row."""
        names = self.info.names
        return names if len(names) == self.size else tuple(f"layer{i}" for i in range(self.size))

    def summary(self) -> dict[str, int]:
        """Exact host-side integers: ``rows, macs, macs_without_attention, params``. Not under tracing."""
        return _show.totals(self)

    def __repr__(self) -> str:
        return _show.network_text(self)

    def _repr_html_(self) -> str:
        return _show.network_html(self)

    def rows(self) -> list[Layer]:
        """The real rows as scalar layers. Host only."""
        return [jax.tree.map(lambda leaf, i=i: leaf[i], self.layers) for i in range(self.size)]

    def _weighted(self, values) -> Array:
        return jnp.sum(values * self.count * self.mask, axis=-1)

    @property
    def macs(self) -> Array:
        """Multiply-accumulates of one inference, attention products included."""
        return self._weighted(self.layers.macs)

    @property
    def macs_without_attention(self) -> Array:
        """The same without products of two activations."""
        return self._weighted(self.layers.macs * (1 - self.layers.weight_is_activation))

    @property
    def params(self) -> Array:
        """Parameters of the layers plus `other_params`."""
        return self._weighted(self.layers.params) + self.other_params

    def merged(self) -> "Network":
        """Identical layers merged into one row with a count; order of first appearance kept."""
        table = np.stack([np.asarray(getattr(self.layers, f), np.float64) for f in LAYER_FIELDS], 1)
        count, first = np.asarray(self.count, np.float64), {}
        for i in range(self.size):
            first.setdefault(tuple(table[i]), []).append(i)
        host = jax.tree.map(np.asarray, self.layers)
        keep = [indices[0] for indices in first.values()]
        names = tuple(
            self.names[ids[0]] + (f" (+{len(ids) - 1} alike)" if len(ids) > 1 else "")
            for ids in first.values()
        )
        info = NetworkInfo(
            name=self.info.name,
            names=names,
            operators=self.info.operators,
            source=self.info.source,
            notes=self.info.notes,
        )
        return Network.create(
            [jax.tree.map(lambda leaf, i=i: leaf[i], host) for i in keep],
            counts=[sum(count[i] for i in ids) for ids in first.values()],
            other_params=self.other_params,
            info=info,
        )
