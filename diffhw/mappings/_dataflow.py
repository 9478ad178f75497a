"""A dataflow as data: what a directive program says about one layer, as arrays of fixed shape.

Three cluster levels of seven loops each; what a program leaves out is padded with loops of one trip.
So one compiled program costs every dataflow, and order, tiles and kinds may be batched by vmap.
"""

from flax import struct
from jax import Array

__all__ = ["DIMS", "LEVELS", "ClusterLevel", "Dataflow"]

DIMS = ("n", "k", "c", "p", "q", "r", "s")
"""Loops of a convolution: batch, filters, channels, output rows, output columns, filter rows, filter
columns. Of a depthwise layer ``c`` are its groups; of a GEMM M x K by K x N, p = M, c = K, k = N."""

LEVELS = 3


@struct.dataclass(kw_only=True)
class ClusterLevel:
    """One cluster level. Every leaf has shape ``()``; dicts have the keys of `DIMS`.

    tile:    size of a unit's share of a dimension, in iterations (outputs for p and q). Larger than
             what the level above hands down means all of it. Differentiable.
    offset:  step between neighbouring tiles, same unit; equals ``tile`` in a program that computes
             every MAC once.
    rank:    place of the loop in its level, 0 outermost, distinct within a level.
    spatial: 1.0 where the tiles are spread over the units of the level, else 0.0.
    units:   units of this level inside one parent (unused at the outermost level, where it is the
             number of PEs over the product of the units below).
    """

    tile: dict[str, Array]
    offset: dict[str, Array]
    rank: dict[str, Array]
    spatial: dict[str, Array]
    units: Array


@struct.dataclass(kw_only=True)
class Dataflow:
    """Directives of one layer: three `ClusterLevel`, outermost first. Made by `mappings.fit`."""

    levels: tuple[ClusterLevel, ClusterLevel, ClusterLevel]
