"""Words that every level of a loop nest reads, takes in from above and from below, per instance."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
from jax import Array

from diffhw.hardware import Hierarchy
from diffhw.mappings import LOOPS, LoopNest
from diffhw.models._loopnest_links import Links, linked_inputs
from diffhw.models._loopnest_reuse import (
    INDEXES,
    Nest,
    distinct_siblings,
    input_window,
    nest_of_loops,
    product,
    revisits,
    sliding_fills,
)

__all__ = ["LoopnestCounts", "TensorCounts", "loopnest_counts"]


@dataclass(frozen=True)
class TensorCounts:
    """One tensor at one level, words per instance. Leaves of shape ``()``.

    tile: held at a time.  reads: read out (of outputs only what is read to be added to: the last drain
    upwards is free, as in Timeloop).
    fills: written from above (for outputs: returning partial sums).  updates: written from below.
    """

    tile: Array
    reads: Array
    fills: Array
    updates: Array


@dataclass(frozen=True)
class LoopnestCounts:
    """Counts of a nest on one layer.

    tensors:        per level, innermost first, {"w" | "i" | "o": `TensorCounts`} of the kept tensors.
    instances:      per level, instances used (the product of the spatial factors outside).
    compute_cycles: product of all temporal factors.
    macs_used:      MAC units used.
    nest:           the factors, for those who need more.
    """

    tensors: tuple[dict[str, TensorCounts], ...]
    instances: tuple[Array, ...]
    compute_cycles: Array
    macs_used: Array
    nest: Nest


def loopnest_counts(
    layer, hierarchy: Hierarchy, mapping: LoopNest, links: Links | tuple | None = None
) -> LoopnestCounts:
    """Exact word counts of one layer under one mapping; see `models.loopnest` for the rules.

    layer: `Layer`, leaves ``()``.  mapping: `LoopNest` with one entry per level of ``hierarchy``.
    links: (x, y), the widest spread along each axis, or `Links`: neighbours pass inputs on. Static.
    Differentiable in the factors; the places of an order have the slope of `numerics.before`.
    """
    nest = nest_of_loops(mapping)
    depth = nest.depth
    if depth != len(hierarchy.levels):
        raise ValueError(f"the hierarchy has {len(hierarchy.levels)} levels, the mapping {depth}")
    keepers = {t: [k for k in range(depth) if t in hierarchy.levels[k].keeps] for t in "wio"}
    found: list[dict[str, TensorCounts]] = [{} for _ in range(depth)]
    compute = nest.all_time("".join(LOOPS)) * jnp.ones_like(layer.n)
    visits = {t: revisits(nest, t) for t in "wio"}
    zero = jnp.zeros_like(compute)

    for t in "wo":
        indexing = INDEXES[t]
        others = "".join(d for d in LOOPS if d not in indexing)
        child = -1
        for k in keepers[t]:
            tile = nest.all_tile(k, indexing) + zero
            distinct = product([tile, nest.all_time(indexing, above=k)])
            # As often as the level inside asks; the MACs ask every cycle.
            asked = nest.all_time(others) if child < 0 else visits[t][child]
            outermost = k == keepers[t][-1]
            back = zero if outermost else distinct * (visits[t][k] - 1.0)
            if t == "w":
                fills = zero if outermost else product([distinct, visits[t][k]])
                found[k][t] = TensorCounts(tile, product([distinct, asked]) + zero, fills + zero, zero)
            else:
                # Products of differences: differences of products print phantom reads in float32.
                found[k][t] = TensorCounts(
                    tile, distinct * (asked - 1.0), back + zero, product([distinct, asked]) + zero
                )
            child = k

    held = keepers["i"][:-1]
    entering = dict(zip(held, sliding_fills(nest, layer, held, visits["i"]), strict=True))
    demand = compute
    for k in range(depth):
        demand = product([demand, distinct_siblings(nest, layer, k)])
        if k not in keepers["i"]:
            continue
        height, width = input_window(layer, nest.tile[k])
        tile = product([*(nest.tile[k][d] for d in "ngc"), height, width]) + zero
        fills = entering.get(k, zero)
        found[k]["i"] = TensorCounts(tile, demand, fills, zero)
        demand = fills
    if links is not None:
        passed = linked_inputs(layer, hierarchy, mapping, nest, compute, Links(*links))
        for k in keepers["i"]:
            found[k]["i"] = replace(found[k]["i"], reads=passed[k][0], fills=passed[k][1])

    everything = "".join(LOOPS)
    return LoopnestCounts(
        tensors=tuple(found),
        instances=tuple(nest.all_space(everything, k + 1, depth - 1) + zero for k in range(depth)),
        compute_cycles=compute,
        macs_used=nest.all_space(everything, 0, depth - 1) + zero,
        nest=nest,
    )
