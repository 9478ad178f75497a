"""The buffers that the dataflow model sees in an accelerator: beside each PE (L1) and shared (L2)."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from diffhw.hardware import Accelerator, Level
from diffhw.numerics import maximum

__all__ = ["LocalBuffers", "local_buffers", "local_level", "shared_levels"]

_NAMES = {"i": "input", "w": "weight", "o": "output"}


def local_level(hw: Accelerator) -> Level | None:
    """What may be the buffer beside each PE: the innermost level, if levels further out keep its tensors.

    It is one only where it has an instance per PE; else it is passed by.
    """
    first, outer = hw.levels[0], hw.levels[1:]
    kept_outside = set("".join(level.keeps for level in outer))
    return first if outer and set(first.keeps) <= kept_outside else None


def shared_levels(hw: Accelerator) -> tuple[Level, ...]:
    """The levels that together are L2."""
    return hw.levels if local_level(hw) is None else hw.levels[1:]


@dataclass(frozen=True)
class LocalBuffers:
    """L1 of one PE. Dicts by tensor: input, weight, output.

    need_bytes:     twice the tile: one in use, one arriving.
    kept_bytes:     need of the tensors that the hardware's level keeps.
    capacity_bytes: of that level, 0 where there is none.
    violation:      how far the kept tensors exceed it, relative.
    size_bytes:     of the buffer that a tensor is read from: the level's, else what the tensor needs.
    word_bits:      of that buffer's port.
    extra_bytes:    what a PE needs beyond the hardware's levels, and so in area.
    """

    need_bytes: dict[str, Array]
    kept_bytes: Array
    capacity_bytes: Array
    violation: Array
    size_bytes: dict[str, Array]
    word_bits: dict[str, Array]
    extra_bytes: Array


def local_buffers(hw: Accelerator, tile_bytes: dict[str, Array], bits: dict[str, Array]) -> LocalBuffers:
    """L1 under the given tiles. What the hardware does not state is sized to the need.

    tile_bytes, bits: of input, weight, output as a PE holds them.
    """
    need = {name: 2 * size for name, size in tile_bytes.items()}
    level = local_level(hw)
    kept = {name: level is not None and t in level.keeps for t, name in _NAMES.items()}
    zero = 0.0 * need["input"]
    in_level = sum((need[name] for name in need if kept[name]), zero)
    private = sum((need[name] for name in need if not kept[name]), zero)
    if level is None:
        own = maximum(private, 1.0)
        return LocalBuffers(need, zero, zero, zero, dict.fromkeys(need, own), dict(bits), own)
    beside = level.instances >= hw.pes  # one per PE
    size = jnp.where(beside, level.capacity_bytes, maximum(in_level, 1.0))
    return LocalBuffers(
        need_bytes=need,
        kept_bytes=jnp.where(beside, in_level, 0.0),
        capacity_bytes=jnp.where(beside, level.capacity_bytes, 0.0),
        violation=jnp.where(beside, maximum(in_level / level.capacity_bytes - 1, 0.0), 0.0),
        size_bytes={name: size if kept[name] else maximum(need[name], 1.0) for name in need},
        word_bits={name: jnp.where(beside & kept[name], level.word_bits, bits[name]) for name in need},
        extra_bytes=private + jnp.where(beside, 0.0, in_level),
    )
