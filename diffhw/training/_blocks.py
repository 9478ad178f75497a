"""Convolutions that stay fast on a CPU when every image batch has its own weights.

XLA turns a convolution with batched weights into a grouped one, and runs grouped and depthwise ones on a
CPU at about 1 GMAC/s a core (measured: one inverted residual block, 4 x 4 pixels, 16-48-16 channels). A
1 x 1 convolution is a matrix product; a depthwise one is a sum of shifted products; a small dense one is a
product with gathered patches: 10 times that. `channel_major` arrays (channels, rows, columns, images) have
the images innermost, so that a depthwise convolution of a few pixels is a batch of small matrix products
as well: 20 times.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

__all__ = ["conv", "depthwise_taps", "major_conv", "prepare_kernel"]

_PATCH_WORDS = 1 << 15  # a dense convolution gathers patches up to this many words per image
_TAP_PIXELS = 64  # a depthwise one becomes matrix products up to this many input pixels


def conv(
    x: Array,
    kernel: Array,
    strides: Any,
    padding: Any,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> Array:
    """`lax.conv_general_dilated` for channels-last images, in a form that batches well over weights.

    x: (n, h, w, c).  kernel: (r, s, c / groups, k).  padding: pairs, or "SAME" or "VALID".
    The same numbers up to rounding; what it has no form for goes to `lax`. Differentiable, exactly.
    """
    general = lambda: lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        **options,
    )
    r, s, c, k = kernel.shape
    dilated = any(step != 1 for d in (lhs_dilation, rhs_dilation) if d is not None for step in d)
    depthwise = feature_group_count == x.shape[-1] == k
    if dilated or not (depthwise or feature_group_count == 1):
        return general()
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], (r, s), strides, padding)
    pads = [tuple(int(p) for p in pair) for pair in padding]
    p, q = ((x.shape[1 + i] + sum(pads[i]) - kernel.shape[i]) // strides[i] + 1 for i in range(2))
    if not depthwise and r * s > 1 and p * q * r * s * c > _PATCH_WORDS:
        return general()
    n, h, w, _ = x.shape
    if (
        depthwise
        and h * w <= _TAP_PIXELS
        and r == s
        and strides[0] == strides[1]
        and len(set(sum(pads, ()))) == 1
    ):
        # One small matrix per channel: fewer operations to compile than shifted products.
        taps = depthwise_taps(h, w, r, strides[0], pads[0][0])
        matrices = jnp.einsum("tc,tpi->cpi", kernel.reshape(r * r, k), taps)
        return jnp.einsum("cpi,nic->npc", matrices, x.reshape(n, h * w, k)).reshape(n, p, q, k)
    if any(map(any, pads)):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    taps = [
        x[:, i : i + (p - 1) * strides[0] + 1 : strides[0], j : j + (q - 1) * strides[1] + 1 : strides[1]]
        for i in range(r)
        for j in range(s)
    ]
    if depthwise:
        weights = kernel.reshape(r * s, 1, 1, 1, k)
        return sum((tap * weights[t] for t, tap in enumerate(taps[1:], 1)), taps[0] * weights[0])
    patches = taps[0] if len(taps) == 1 else jnp.concatenate(taps, -1)
    return patches @ kernel.reshape(r * s * c, k)


def depthwise_taps(h: int, w: int, filter: int, stride: int, pad: int) -> np.ndarray:
    """(filter^2, output pixels, input pixels): 1 where a tap joins two pixels, else 0."""
    p, q = ((size + 2 * pad - filter) // stride + 1 for size in (h, w))
    out = np.zeros((filter, filter, p, q, h, w), np.float32)
    for i in range(filter):
        for j in range(filter):
            for a in range(p):
                for b in range(q):
                    y, x = a * stride + i - pad, b * stride + j - pad
                    if 0 <= y < h and 0 <= x < w:
                        out[i, j, a, b, y, x] = 1
    return out.reshape(filter * filter, p * q, h * w)


def prepare_kernel(step, in_shape: tuple[int, int, int], kernel: Array) -> Array:
    """The kernel of a conv or dense `Step` in the form `major_conv` multiplies by.

    kernel: as flax keeps it, (r, s, c / groups, k) or (c, k).  Returns (k, r s c) for products with
    patches, (c, output pixels, input pixels) for small depthwise ones, else the kernel itself. Linear.
    """
    h, w, c = in_shape
    if step.kind == "dense":
        return kernel.T
    if _is_depthwise(step, c):
        if h * w > _TAP_PIXELS:
            return kernel
        taps = depthwise_taps(h, w, step.filter, step.stride, step.pad)
        flat = kernel.reshape(step.filter**2, c).T @ taps.reshape(step.filter**2, -1)
        return flat.reshape(c, *taps.shape[1:])
    if _is_patched(step, in_shape):
        return kernel.reshape(-1, kernel.shape[-1]).T
    return kernel


def _is_depthwise(step, channels: int) -> bool:
    return step.groups == channels == step.shape[2] and channels > 1


def _is_patched(step, in_shape) -> bool:
    words = step.shape[0] * step.shape[1] * step.filter**2 * in_shape[2]
    return step.groups == 1 and (step.filter == 1 or words <= _PATCH_WORDS)


def major_conv(step, x: Array, kernel: Array, bias: Array | None) -> Array:
    """A conv or dense `Step` on channel-major images.

    x: (c, h, w, n).  kernel: from `prepare_kernel`.  bias: (k,) or None.  Returns (k, p, q, n).
    """
    c, h, w, n = x.shape
    if step.kind == "dense":
        out = (kernel @ x.reshape(c * h * w, n)).reshape(-1, 1, 1, n)
    elif _is_depthwise(step, c) and h * w <= _TAP_PIXELS:
        out = jnp.einsum("cpi,cin->cpn", kernel, x.reshape(c, h * w, n)).reshape(c, *step.shape[:2], n)
    elif _is_patched(step, (h, w, c)):
        patches = _taps(step, x)
        patches = patches[0] if len(patches) == 1 else jnp.concatenate(patches, 0)
        out = (kernel @ patches.reshape(patches.shape[0], -1)).reshape(-1, *step.shape[:2], n)
    elif _is_depthwise(step, c):
        weights = kernel.reshape(step.filter**2, c, 1, 1, 1)
        first, *rest = (weights[t] * tap for t, tap in enumerate(_taps(step, x)))
        out = sum(rest, first)
    else:
        out = lax.conv_general_dilated(
            x,
            kernel,
            (step.stride, step.stride),
            ((step.pad, step.pad),) * 2,
            dimension_numbers=("CHWN", "HWIO", "CHWN"),
            feature_group_count=step.groups,
        )
    return out if bias is None else out + bias[:, None, None, None]


def _taps(step, x: Array) -> list[Array]:
    """The input seen through each tap of the filter: filter^2 arrays (c, p, q, n)."""
    if step.pad:
        x = jnp.pad(x, ((0, 0), (step.pad, step.pad), (step.pad, step.pad), (0, 0)))
    t, (p, q, _) = step.stride, step.shape
    return [
        x[:, i : i + (p - 1) * t + 1 : t, j : j + (q - 1) * t + 1 : t]
        for i in range(step.filter)
        for j in range(step.filter)
    ]
