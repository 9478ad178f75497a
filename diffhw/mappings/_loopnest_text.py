"""A loop nest as text that a designer can check by eye."""

import jax
import jax.core
import numpy as np

from diffhw import numerics
from diffhw.mappings._loopnest import LOOPS, LoopNest

__all__ = ["check_whole", "loopnest_text", "nest_repr", "tile_words"]

_TENSORS = {"w": "weights", "i": "inputs", "o": "outputs"}
_PLAIN = {"w": "gkcrs", "i": "ngc", "o": "ngkpq"}


def loopnest_text(nest: LoopNest, hierarchy=None, layer=None) -> str:
    """The nest as indented loops, outermost level first; ``0..8`` runs from 0 to 7.

    hierarchy: adds the names of the levels, what each keeps and how full it is.
    layer: adds strides and dilations to the input tiles (both 1 without it), and the loops' extents.
    Each level shows the tile that one of its instances holds, in words.

    Raises ValueError for a batch of nests or a hierarchy with another number of levels.

    >>> nest = LoopNest.create([{"temporal": {"c": 4}}, {"x": {"k": 16}, "temporal": {"p": 8}}])
    >>> print(loopnest_text(nest))
    level 1: tiles of 64 weights, 32 inputs, 128 outputs
      for p in 0..8
        parallel-for k in 0..16 (x)
          level 0: tiles of 4 weights, 4 inputs, 1 outputs
            for c in 0..4
              multiply-accumulate
    """
    if any(np.ndim(level.temporal[d]) != 0 for level in nest.levels for d in LOOPS):
        raise ValueError("the nest is a batch: take one of it, as jax.tree.map(lambda leaf: leaf[0], nest)")
    if hierarchy is not None and len(hierarchy.levels) != len(nest.levels):
        raise ValueError(f"the hierarchy has {len(hierarchy.levels)} levels, the mapping {len(nest.levels)}")
    lines, depth = [], 0
    if layer is not None:
        sizes = {d: float(getattr(layer, d)) for d in LOOPS}
        lines.append("layer: " + " ".join(f"{d} {size:g}" for d, size in sizes.items() if size != 1))
    for k in range(len(nest.levels) - 1, -1, -1):
        level = nest.levels[k]
        lines.append("  " * depth + _head(nest, k, hierarchy, layer))
        depth += 1
        for d, factor in reversed(nest.loops(k)):
            lines.append("  " * depth + f"for {d} in 0..{factor:g}")
            depth += 1
        for axis in "xy":
            for d, factor in getattr(level, f"spatial_{axis}").items():
                if not numerics.is_one(factor):
                    lines.append("  " * depth + f"parallel-for {d} in 0..{float(factor):g} ({axis})")
                    depth += 1
    return "\n".join([*lines, "  " * depth + "multiply-accumulate"])


def nest_repr(nest: LoopNest) -> str:
    """The text of a concrete nest; how many levels and nests of a batch or a traced one."""
    leaves = jax.tree.leaves(nest)
    numbers = all(isinstance(leaf, np.ndarray | jax.Array | float | int) for leaf in leaves)
    if numbers and not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        shapes = {np.shape(leaf) for leaf in leaves}
        if shapes == {()}:
            return loopnest_text(nest)
        if len(shapes) == 1:
            return f"LoopNest({len(nest.levels)} levels, leaves of shape {shapes.pop()})"
    return f"LoopNest({len(nest.levels)} levels)"


def check_whole(nest: LoopNest, names) -> None:
    """Raises ValueError for a batch of nests, and for factors that are not whole: files hold neither."""
    for name, level in zip(names, nest.levels, strict=True):
        for held in (level.temporal, level.spatial_x, level.spatial_y):
            for d, factor in held.items():
                if np.ndim(factor) != 0:
                    raise ValueError(
                        f"the mapping is a batch of shape {np.shape(factor)}: write one nest at a time"
                    )
                if float(factor) % 1:
                    raise ValueError(
                        f"{name}: the factor of loop {d!r} must be a whole number in a file, got "
                        f"{float(factor):g}"
                    )


def tile_words(nest: LoopNest, index: int, layer=None) -> dict[str, float]:
    """Words of each tensor in one instance of level ``index``: {"w": ..., "i": ..., "o": ...}."""
    tile = dict.fromkeys(LOOPS, 1.0)
    for level in nest.levels[: index + 1]:
        for held in (level.temporal, level.spatial_x, level.spatial_y):
            for d, factor in held.items():
                tile[d] *= float(factor)
    words = {t: float(np.prod([tile[d] for d in loops])) for t, loops in _PLAIN.items()}
    for out, taps, side in (("p", "r", "h"), ("q", "s", "w")):
        stride, dilation = (
            1.0 if layer is None else float(getattr(layer, f"{what}_{side}"))
            for what in ("stride", "dilation")
        )
        words["i"] *= (tile[out] - 1) * stride + (tile[taps] - 1) * dilation + 1
    return words


def _head(nest: LoopNest, index: int, hierarchy, layer) -> str:
    words = tile_words(nest, index, layer)
    if hierarchy is None:
        return f"level {index}: tiles of " + ", ".join(f"{words[t]:,.0f} {_TENSORS[t]}" for t in "wio")
    memory = hierarchy.levels[index]
    if not memory.keeps:
        return f"{memory.name}: keeps nothing"
    kept = [t for t in "wio" if t in memory.keeps]
    text = f"{memory.name}: keeps " + ", ".join(f"{words[t]:,.0f} {_TENSORS[t]}" for t in kept)
    capacity = memory.capacity_bits
    if np.ndim(capacity) == 0 and np.isfinite(float(capacity)):
        used = sum(words[t] * float(memory.bits(t)) for t in kept) / float(capacity)
        text += f" ({100 * used:.3g} % of its capacity)"
    return text
