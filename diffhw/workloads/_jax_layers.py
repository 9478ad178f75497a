"""Shapes of JAX's products as layers: ``conv_general_dilated``, ``dot_general``, ``ragged_dot_general``."""

from math import prod

__all__ = ["conv_numbers", "dot_numbers", "ragged_numbers"]

TRANSPOSED = (
    "convolutions over a dilated input (transposed ones, input gradients) are written as the products they "
    "are: every input pixel by k x taps; the sum of overlapping outputs is not a layer"
)
THREE_D = (
    "convolutions over three or more axes have the leading axes folded: outputs into n, taps into c "
    "(MACs exact, input words counted once per tap of those axes)"
)


def _axis(size, taps, outs, stride, dilation, lhs_dilation, pad_low):
    """One spatial axis: (h, taps in the layer, taps moved into k, p, stride, dilation, pad)."""
    if lhs_dilation == 1:
        return size, taps, 1, outs, stride, dilation, max(0, pad_low)
    if stride == 1:
        # Zeros between the pixels are no work: each real pixel meets each tap once (cropped ones counted,
        # as padding taps are in a plain convolution), which equals the forward layer's count.
        return size, 1, taps, size, 1, 1, 0
    hits = sum(
        (o * stride + t * dilation - pad_low) % lhs_dilation == 0 for o in range(outs) for t in range(taps)
    )
    return max(hits, 1), 1, 1, max(hits, 1), 1, 1, 0


def conv_numbers(eqn) -> tuple[dict, list[str]]:
    """Fields of the layer of a ``conv_general_dilated`` equation, and notes."""
    params = eqn.params
    spec = params["dimension_numbers"]
    lhs, rhs = (atom.aval.shape for atom in eqn.invars)
    out = eqn.outvars[0].aval.shape
    features, batches = params["feature_group_count"], params["batch_group_count"]
    g = max(features, batches)
    n = lhs[spec.lhs_spec[0]] // batches
    k, c = rhs[spec.rhs_spec[0]] // g, rhs[spec.rhs_spec[1]]
    axes = [
        _axis(lhs[i], rhs[j], out[o], stride, rhs_dilation, lhs_dilation, pad[0])
        for i, j, o, stride, rhs_dilation, lhs_dilation, pad in zip(
            spec.lhs_spec[2:],
            spec.rhs_spec[2:],
            spec.out_spec[2:],
            params["window_strides"],
            params["rhs_dilation"],
            params["lhs_dilation"],
            params["padding"],
        )
    ]
    notes = [TRANSPOSED] if any(d > 1 for d in params["lhs_dilation"]) else []
    while len(axes) < 2:
        axes.append((1, 1, 1, 1, 1, 1, 0))
    for _, taps, moved, outs, *_ in axes[:-2]:
        n, c, k = n * outs, c * taps, k * moved
    if len(axes) > 2:
        notes.append(THREE_D)
    (h, r, up, p, stride_h, dilation_h, top), (w, s, across, q, stride_w, dilation_w, left) = axes[-2:]
    return dict(
        n=n,
        g=g,
        k=k * up * across,
        c=c,
        p=p,
        q=q,
        r=r,
        s=s,
        h=h,
        w=w,
        pad_top=top,
        pad_left=left,
        stride_h=stride_h,
        stride_w=stride_w,
        dilation_h=dilation_h,
        dilation_w=dilation_w,
    ), notes


def dot_numbers(eqn, swap: bool) -> dict:
    """Fields of the layer of a ``dot_general``: batch -> g, contracting -> c, free axes -> p and k.

    swap: the left operand is the weight, so its free axes are k.
    """
    (lhs_contract, _), (lhs_batch, rhs_batch) = eqn.params["dimension_numbers"]
    lhs, rhs = (atom.aval.shape for atom in eqn.invars)
    g = prod(lhs[i] for i in lhs_batch)
    c = prod(lhs[i] for i in lhs_contract)
    free_left = prod(lhs) // max(g * c, 1)
    free_right = prod(rhs) // max(prod(rhs[i] for i in rhs_batch) * c, 1)
    p, k = (free_right, free_left) if swap else (free_left, free_right)
    return dict(g=g, p=p, q=1, c=c, k=k)


def ragged_numbers(eqn) -> dict:
    """Fields of the layer of a ``ragged_dot_general``: every left row meets one group's matrix."""
    lhs, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    (contract, _), _ = eqn.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    return dict(p=prod(out[:-1]), q=1, c=prod(lhs[i] for i in contract), k=out[-1])
