"""The accelerator: PE grid, memory levels, DRAM, clock, technology. No dataflow in it (that is mapping)."""

import jax.numpy as jnp
from flax import struct
from jax import Array

from diffhw import numerics
from diffhw.hardware._technology import Technology

__all__ = ["Accelerator", "Dram", "Level", "area_mm2", "area_parts", "leakage_w"]


@struct.dataclass(kw_only=True)
class Level:
    """One on-chip memory level. Leaves of shape ``()``, all differentiable; names are static.

    name:                    for reports.
    keeps:                   tensors stored here, letters of "wio" (weight, input, output). Static.
    capacity_bytes:          capacity of one instance; half is active, half receives the next tile.
    word_bits:               port width, which sets the energy of a bit.
    block_bytes:             granularity of a transfer to the level below.
    read_bytes_per_cycle, write_bytes_per_cycle, shared_bytes_per_cycle: of one instance;
                             inf means the port is as wide as the array's edge.
    instances:               copies of this memory.
    """

    capacity_bytes: Array
    word_bits: Array
    block_bytes: Array
    read_bytes_per_cycle: Array
    write_bytes_per_cycle: Array
    shared_bytes_per_cycle: Array
    instances: Array
    name: str = struct.field(pytree_node=False, default="buffer")
    keeps: str = struct.field(pytree_node=False, default="wio")

    @classmethod
    def create(
        cls,
        *,
        capacity_bytes,
        name="buffer",
        keeps="wio",
        word_bits=64,
        block_bytes=1,
        read_bytes_per_cycle=jnp.inf,
        write_bytes_per_cycle=jnp.inf,
        shared_bytes_per_cycle=jnp.inf,
        instances=1,
    ) -> "Level":
        """Check and convert. Raises ValueError naming the field."""
        if not keeps or not set(keeps) <= set("wio") or len(set(keeps)) != len(keeps):
            raise ValueError(f"keeps must be distinct letters of 'wio', got {keeps!r}")
        values = dict(
            capacity_bytes=capacity_bytes,
            word_bits=word_bits,
            block_bytes=block_bytes,
            read_bytes_per_cycle=read_bytes_per_cycle,
            write_bytes_per_cycle=write_bytes_per_cycle,
            shared_bytes_per_cycle=shared_bytes_per_cycle,
            instances=instances,
        )
        return cls(
            **{key: numerics.positive(f"{name}.{key}", value) for key, value in values.items()},
            name=str(name),
            keeps=str(keeps),
        )


@struct.dataclass(kw_only=True)
class Dram:
    """An off-chip memory as seen from the chip. Leaves of shape ``()``, all differentiable.

    gb_per_s:      peak bandwidth, 1e9 bytes/s.
    pj_per_bit:    energy of a transferred bit, device and interface.
    phy_area_mm2:  area of the interface on our die.
    static_w:      power while idle (refresh, interface).
    kind:          index into `hardware.DRAM_TYPES`, -1 for none of them; for reports.
    """

    gb_per_s: Array
    pj_per_bit: Array
    phy_area_mm2: Array
    static_w: Array
    kind: Array

    @classmethod
    def create(cls, *, gb_per_s, pj_per_bit, phy_area_mm2=0.0, static_w=0.0, kind=-1) -> "Dram":
        """Check and convert. Raises ValueError naming the field."""
        return cls(
            gb_per_s=numerics.positive("dram.gb_per_s", gb_per_s),
            pj_per_bit=numerics.non_negative("dram.pj_per_bit", pj_per_bit),
            phy_area_mm2=numerics.non_negative("dram.phy_area_mm2", phy_area_mm2),
            static_w=numerics.non_negative("dram.static_w", static_w),
            kind=numerics.as_float(kind),
        )


@struct.dataclass(kw_only=True)
class Accelerator:
    """A PE grid with its memories. Leaves of shape ``()``; all differentiable unless said otherwise.

    rows, cols:      PEs along the two axes.  lanes: MACs per PE and cycle.
    weight_bits, input_bits, psum_bits: widths of the datapath (area, and the default `Precision`).
    flexible:        1 if the array can change dataflow between layers (pays the switch overhead), else 0.
    levels:          on-chip memories, innermost first; `buffer` gives the one that faces the DRAM.
    dram:            `Dram`.  freq_hz: clock.  technology: `Technology`.
    """

    rows: Array
    cols: Array
    lanes: Array
    weight_bits: Array
    input_bits: Array
    psum_bits: Array
    flexible: Array
    freq_hz: Array
    levels: tuple[Level, ...]
    dram: Dram
    technology: Technology

    @classmethod
    def create(
        cls,
        *,
        rows,
        cols,
        levels,
        dram,
        technology=None,
        lanes=1,
        weight_bits=8,
        input_bits=8,
        psum_bits=32,
        flexible=0,
        freq_hz=1e9,
    ) -> "Accelerator":
        """Check and convert. Default technology: 22 nm. Raises ValueError naming the field."""
        for name, value in (("rows", rows), ("cols", cols)):
            numerics.positive(name, value)
        return cls(
            rows=numerics.positive("rows", rows),
            cols=numerics.positive("cols", cols),
            lanes=numerics.positive("lanes", lanes),
            weight_bits=numerics.positive("weight_bits", weight_bits),
            input_bits=numerics.positive("input_bits", input_bits),
            psum_bits=numerics.positive("psum_bits", psum_bits),
            flexible=numerics.non_negative("flexible", flexible),
            freq_hz=numerics.positive("freq_hz", freq_hz),
            levels=tuple(levels),
            dram=dram,
            technology=Technology.at(22.0) if technology is None else technology,
        )

    @property
    def pes(self) -> Array:
        """Number of PEs."""
        return self.rows * self.cols

    @property
    def peak_macs_per_cycle(self) -> Array:
        """PEs times lanes."""
        return self.rows * self.cols * self.lanes

    @property
    def dram_bytes_per_cycle(self) -> Array:
        """DRAM bandwidth in bytes per accelerator cycle."""
        return self.dram.gb_per_s * 1e9 / self.freq_hz

    def buffer(self, tensor: str) -> tuple[Level, Array]:
        """The outermost level that keeps ``tensor`` ("w", "i" or "o") and the bytes it has there.

        That is the buffer which exchanges tiles with the DRAM; levels further in (registers or scratch
        pads beside the PEs) are left to models that know them. A level shared by several tensors is
        split evenly between them.
        """
        for level in reversed(self.levels):
            if tensor in level.keeps:
                return level, level.capacity_bytes * level.instances / len(level.keeps)
        raise ValueError(
            f"no level keeps tensor {tensor!r}; levels keep {[level.keeps for level in self.levels]}"
        )

    def pe_area_mm2(self) -> Array:
        """mm2 of one PE: its MACs and the operand, weight and partial-sum registers."""
        tech = self.technology
        mac = tech.mac_area_mm2(self.weight_bits, self.input_bits, self.psum_bits)
        registers = tech.register_area_mm2(self.weight_bits + self.input_bits + self.psum_bits)
        return self.lanes * (mac + registers) * (1.0 + self.flexible * tech.switch_area_fraction)

    def pe_pitch_mm(self) -> Array:
        """Side of a square PE: the length of one neighbour link."""
        return jnp.sqrt(self.pe_area_mm2())

    def __repr__(self) -> str:
        from diffhw.hardware._show import text

        return text(self)

    def _repr_html_(self) -> str:
        from diffhw.hardware._show import html

        return html(self)


def area_parts(hw: Accelerator) -> dict[str, Array]:
    """mm2 of each part: pe, sram, noc (neighbour links of the grid), phy. Differentiable."""
    tech = hw.technology
    link_bits = hw.weight_bits + hw.input_bits + hw.psum_bits
    noc = hw.pes * tech.wire_um2_per_bit_um * link_bits * hw.pe_pitch_mm() * 1e-3
    sram = sum(level.instances * tech.sram_area_mm2(level.capacity_bytes) for level in hw.levels)
    return {
        "pe": hw.pes * hw.pe_area_mm2(),
        "sram": jnp.asarray(sram),
        "noc": noc,
        "phy": hw.dram.phy_area_mm2,
    }


def area_mm2(hw: Accelerator) -> Array:
    """Total mm2, shape (). Differentiable in every leaf of ``hw``."""
    parts = area_parts(hw)
    return parts["pe"] + parts["sram"] + parts["noc"] + parts["phy"]


def leakage_w(hw: Accelerator) -> Array:
    """Leakage of logic and SRAM in W, shape (); the DRAM's static power is separate."""
    tech = hw.technology
    parts = area_parts(hw)
    sram = sum(level.instances * tech.sram_leakage_w(level.capacity_bytes) for level in hw.levels)
    return sram + tech.logic_leakage_w_per_mm2 * (parts["pe"] + parts["noc"])
