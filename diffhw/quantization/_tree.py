"""Quantize the weights of any pytree."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffhw.quantization._bits import check_bits
from diffhw.quantization._calibrate import calibrate
from diffhw.quantization._quantizer import DEFAULT_SPEC, QuantSpec

__all__ = ["WeightLeaf", "quantizable", "quantize_tree"]


@dataclass(frozen=True)
class WeightLeaf:
    """One quantizable leaf: its path joined by "/", its shape, its number of values."""

    name: str
    shape: tuple[int, ...]
    size: int


def _key(entry) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _name(path) -> str:
    keys = [_key(entry) for entry in path]
    if len(keys) > 1 and keys[-1] == "value":  # the inside of an nnx variable
        keys = keys[:-1]
    return "/".join(keys)


def _is_weight(leaf, min_ndim: int) -> bool:
    return jnp.ndim(leaf) >= min_ndim and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def quantizable(params, *, min_ndim: int = 2) -> tuple[WeightLeaf, ...]:
    """The float leaves with at least ``min_ndim`` axes (kernels, not biases), in the tree's order.

    >>> [leaf.name for leaf in quantizable({"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}})]
    ['a/kernel']
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return tuple(
        WeightLeaf(_name(path), tuple(jnp.shape(leaf)), int(np.prod(jnp.shape(leaf))))
        for path, leaf in leaves
        if _is_weight(leaf, min_ndim)
    )


def quantize_tree(params, bits, spec: QuantSpec = DEFAULT_SPEC, *, min_ndim: int = 2, whole: bool = False):
    """``params`` with every quantizable leaf rounded to its grid, calibrated on the leaf itself.

    bits: one width for all; a vector in the order of `quantizable`; a dict from leaf names to widths
    (leaves left out stay as they are); or a pytree like ``params`` with None where nothing is to
    change. Real-valued, traceable, vmappable. spec: static; its channel axis counts for each leaf.
    whole: bits are known to be whole (see `Quantizer`).

    Differentiable in params (straight-through) and bits. Raises ValueError for a wrong number of bits,
    an unknown name, or bits below 1.
    """
    found = quantizable(params, min_ndim=min_ndim)
    names = tuple(leaf.name for leaf in found)
    widths = _widths(params, bits, names)
    leaves, tree = jax.tree_util.tree_flatten(params)
    places = [i for i, leaf in enumerate(leaves) if _is_weight(leaf, min_ndim)]
    for i, width in zip(places, widths, strict=True):
        if width is not None:
            leaves[i] = calibrate(leaves[i], spec)(leaves[i], width, whole=whole)
    return jax.tree_util.tree_unflatten(tree, leaves)


def _widths(params, bits, names) -> list[Array | None]:
    """One width, or None, per quantizable leaf."""
    if _is_vector(bits):
        return list(check_bits("weight", bits, names))
    none = lambda leaf: leaf is None
    if isinstance(bits, dict) and all(
        isinstance(k, str) and not isinstance(v, dict) for k, v in bits.items()
    ):
        unknown = sorted(set(bits) - set(names))
        if not unknown:
            return [check_bits("weight", bits[n], (n,))[0] if n in bits else None for n in names]
        import difflib

        if jax.tree_util.tree_structure(bits, is_leaf=none) != jax.tree_util.tree_structure(params):
            near = difflib.get_close_matches(unknown[0], names, 1, 0.0)[0]
            raise ValueError(f"no quantizable leaf is called {unknown[0]!r}; the nearest is {near!r}")
    by_name = {
        _name(path): width
        for path, width in jax.tree_util.tree_leaves_with_path(bits, is_leaf=none)
        if width is not None
    }
    return [check_bits("weight", by_name[n], (n,))[0] if n in by_name else None for n in names]


def _is_vector(bits) -> bool:
    """True for a number, or a list or array of them."""
    if isinstance(bits, list | tuple):
        return all(b is not None and not isinstance(b, dict) and np.ndim(b) == 0 for b in bits)
    return not isinstance(bits, dict) and hasattr(bits, "__float__") and np.ndim(bits) <= 1
