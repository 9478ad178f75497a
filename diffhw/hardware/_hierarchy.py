"""A memory hierarchy: what the loop-nest model runs on.

An `Accelerator` says what is built (a PE grid, buffers in bytes, a DRAM type, a technology). A
`Hierarchy` says what each word costs on its way: any number of levels, what each keeps, how many
children each instance feeds, energy per access. `hierarchy` derives the second from the first;
files of Timeloop and ZigZag are hierarchies at once.
"""

from dataclasses import replace

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.core import Tracer

from diffhw import numerics

__all__ = ["ANY_DIM", "Hierarchy", "Memory"]

ANY_DIM = "ngkcpqrs"
"""Loops that may be spread over instances, unless a level says less: see `mappings.LOOPS`."""

_BITS = {"w": "weight_bits", "i": "input_bits", "o": "output_bits"}


@struct.dataclass(kw_only=True)
class Memory:
    """One level. Leaves of shape ``()``, all differentiable, per instance.

    capacity_bits:   usable capacity, shared by the kept tensors; inf for none to mind.
    width_bits:      bits per access: what one ``*_pj`` buys.
    read_bits_per_cycle, write_bits_per_cycle, shared_bits_per_cycle: ports; inf for none to mind.
    weight_bits, input_bits, output_bits: of a word as stored here (partial sums where they live).
    read_pj, fill_pj, update_pj: pJ per access: read; written from above; written from below.
    fanout_x, fanout_y: children (instances of the level inside, or MACs) along the two axes.
    area_mm2:        of one instance; 0 where nobody said.
    leakage_w:       of one instance.
    name:            for reports and files. Static.
    keeps:           tensors that may be stored here, letters of "wio"; the others pass by. Static.
    spatial_x, spatial_y: loops that may be spread over the children along each axis. Static.
    """

    capacity_bits: Array
    width_bits: Array
    read_bits_per_cycle: Array
    write_bits_per_cycle: Array
    shared_bits_per_cycle: Array
    weight_bits: Array
    input_bits: Array
    output_bits: Array
    read_pj: Array
    fill_pj: Array
    update_pj: Array
    fanout_x: Array
    fanout_y: Array
    area_mm2: Array
    leakage_w: Array
    name: str = struct.field(pytree_node=False, default="memory")
    keeps: str = struct.field(pytree_node=False, default="wio")
    spatial_x: str = struct.field(pytree_node=False, default=ANY_DIM)
    spatial_y: str = struct.field(pytree_node=False, default=ANY_DIM)

    @classmethod
    def create(
        cls,
        *,
        name="memory",
        keeps="wio",
        capacity_words=None,
        capacity_bits=None,
        word_bits=8,
        weight_bits=None,
        input_bits=None,
        output_bits=None,
        block_words=1,
        width_bits=None,
        read_words_per_cycle=jnp.inf,
        write_words_per_cycle=jnp.inf,
        shared_words_per_cycle=jnp.inf,
        read_pj=0.0,
        fill_pj=None,
        update_pj=None,
        fanout_x=1,
        fanout_y=1,
        spatial_x=ANY_DIM,
        spatial_y=ANY_DIM,
        area_mm2=0.0,
        leakage_w=0.0,
    ) -> "Memory":
        """Check and convert. Words are ``word_bits`` wide; a tensor's own width may differ.

        capacity_words or capacity_bits: neither means unlimited (DRAM).  block_words or width_bits:
        what one access moves.  fill_pj, update_pj: default to ``read_pj``, ``fill_pj``.
        Raises ValueError naming the level and the field: a capacity below one word, a bandwidth of 0,
        an unknown letter.
        """
        if len(set(keeps)) != len(keeps) or not set(keeps) <= set("wio"):
            raise ValueError(f"{name}.keeps must be distinct letters of 'wio', got {keeps!r}")
        for axis, dims in (("spatial_x", spatial_x), ("spatial_y", spatial_y)):
            if len(set(dims)) != len(dims) or not set(dims) <= set(ANY_DIM):
                raise ValueError(f"{name}.{axis} must be distinct letters of {ANY_DIM!r}, got {dims!r}")
        positive = lambda key, value: numerics.positive(f"{name}.{key}", value)
        word = positive("word_bits", word_bits)
        if capacity_bits is None:
            capacity_bits = (
                jnp.inf if capacity_words is None else positive("capacity_words", capacity_words) * word
            )
        bits = {"w": weight_bits, "i": input_bits, "o": output_bits}
        bits = {t: word if value is None else positive(_BITS[t], value) for t, value in bits.items()}
        width = word * positive("block_words", block_words) if width_bits is None else width_bits
        fill_pj = read_pj if fill_pj is None else fill_pj
        update_pj = fill_pj if update_pj is None else update_pj
        self = cls(
            capacity_bits=positive("capacity_bits", capacity_bits),
            width_bits=positive("width_bits", width),
            read_bits_per_cycle=positive("read_words_per_cycle", read_words_per_cycle) * word,
            write_bits_per_cycle=positive("write_words_per_cycle", write_words_per_cycle) * word,
            shared_bits_per_cycle=positive("shared_words_per_cycle", shared_words_per_cycle) * word,
            weight_bits=bits["w"],
            input_bits=bits["i"],
            output_bits=bits["o"],
            read_pj=numerics.non_negative(f"{name}.read_pj", read_pj),
            fill_pj=numerics.non_negative(f"{name}.fill_pj", fill_pj),
            update_pj=numerics.non_negative(f"{name}.update_pj", update_pj),
            fanout_x=positive("fanout_x", fanout_x),
            fanout_y=positive("fanout_y", fanout_y),
            area_mm2=numerics.non_negative(f"{name}.area_mm2", area_mm2),
            leakage_w=numerics.non_negative(f"{name}.leakage_w", leakage_w),
            name=str(name),
            keeps=str(keeps),
            spatial_x=str(spatial_x),
            spatial_y=str(spatial_y),
        )
        for letter in self.keeps:
            small = self.capacity_bits < self.bits(letter)
            if not isinstance(small, Tracer) and bool(jnp.any(small)):
                raise ValueError(
                    f"{name} holds {float(self.capacity_bits):g} bits, less than one word of "
                    f"{float(self.bits(letter)):g} bits of tensor {letter!r}: raise its capacity or drop "
                    f"{letter!r} from keeps"
                )
        return self

    def bits(self, tensor: str) -> Array:
        """Width of a stored word of ``tensor`` ("w", "i" or "o")."""
        return getattr(self, _BITS[tensor])


@struct.dataclass(kw_only=True)
class Hierarchy:
    """Memory levels from the MACs outwards. Leaves of shape ``()``, all differentiable.

    levels:   innermost first; the last one (the DRAM) keeps all three tensors.
    mac_pj:   energy of a multiply-accumulate.  mac_area_mm2: of one.
    freq_hz:  clock.
    static_w: power that flows whatever happens (DRAM refresh, logic leakage).
    """

    levels: tuple[Memory, ...]
    mac_pj: Array
    mac_area_mm2: Array
    freq_hz: Array
    static_w: Array

    @classmethod
    def create(cls, *, levels, mac_pj, mac_area_mm2=0.0, freq_hz=1e9, static_w=0.0) -> "Hierarchy":
        """Check and convert. Raises ValueError where the outermost level does not keep every tensor, or
        two levels share a name.
        """
        levels = tuple(levels)
        if not levels:
            raise ValueError("a hierarchy needs at least one level, got none")
        if set(levels[-1].keeps) != set("wio"):
            raise ValueError(
                f"the outermost level must keep w, i and o, {levels[-1].name!r} keeps {levels[-1].keeps!r}"
            )
        names = [level.name for level in levels]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two levels are called {name!r}: names must differ")
        return cls(
            levels=levels,
            mac_pj=numerics.non_negative("mac_pj", mac_pj),
            mac_area_mm2=numerics.non_negative("mac_area_mm2", mac_area_mm2),
            freq_hz=numerics.positive("freq_hz", freq_hz),
            static_w=numerics.non_negative("static_w", static_w),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the levels, innermost first."""
        return tuple(level.name for level in self.levels)

    @property
    def macs_per_cycle(self) -> Array:
        """MAC units: the product of all fan-outs."""
        return self.instances(-1)

    def instances(self, index: int) -> Array:
        """How many instances level ``index`` has; -1 for the MACs."""
        count = jnp.ones_like(self.mac_pj)
        for level in self.levels[index + 1 :]:
            count = count * level.fanout_x * level.fanout_y
        return count

    @property
    def area_mm2(self) -> Array:
        """mm2 of MACs and levels; 0 for parts whose area nobody said."""
        area = self.macs_per_cycle * self.mac_area_mm2
        for index, level in enumerate(self.levels):
            area = area + self.instances(index) * level.area_mm2
        return area

    def keeping(self, keeps: tuple[str, ...]) -> "Hierarchy":
        """The same with other tensors kept, one string of "wio" per level, innermost first.

        Raises ValueError for a tensor that a level cannot keep.
        """
        if len(keeps) != len(self.levels):
            raise ValueError(f"keeps needs {len(self.levels)} entries, got {len(keeps)}")
        for level, kept in zip(self.levels, keeps, strict=True):
            if not set(kept) <= set(level.keeps):
                raise ValueError(f"{level.name} may keep {level.keeps!r}, asked to keep {kept!r}")
        levels = tuple(replace(level, keeps=kept) for level, kept in zip(self.levels, keeps, strict=True))
        return replace(self, levels=levels)
