"""The three systolic dataflows as weights, so that a choice is data and can be relaxed."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from diffhw import numerics

__all__ = ["DATAFLOWS", "dataflow_weights"]

DATAFLOWS = ("os", "ws", "is")
"""Output, weight and input stationary, in the order of every weight vector."""


def dataflow_weights(mapping) -> Array:
    """Weights over ("os", "ws", "is"), shape (3,) or (L, 3).

    mapping: a name (the same for all layers), a sequence of names (one per layer row), or an array
    of weights whose last axis has size 3. Weights are differentiable: costs are expectations over
    them, exact at one-hot. Raises ValueError for an unknown name or a wrong shape.
    """
    if isinstance(mapping, str):
        if mapping not in DATAFLOWS:
            raise ValueError(f"dataflow must be one of {', '.join(DATAFLOWS)}, got {mapping!r}")
        return numerics.as_float(np.eye(3)[DATAFLOWS.index(mapping)])
    if isinstance(mapping, list | tuple) and mapping and isinstance(mapping[0], str):
        return jnp.stack([dataflow_weights(name) for name in mapping])
    weights = numerics.as_float(mapping)
    if weights.ndim == 0 or weights.shape[-1] != 3:
        raise ValueError(f"dataflow weights need a last axis of size 3, got shape {weights.shape}")
    return weights
