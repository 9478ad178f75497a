"""What silicon costs: energy, area and leakage of MACs, registers, SRAM and wires.

Every number is a leaf, so a search may vary it and a report may halve or double it.
"""

from flax import struct
from jax import Array

from diffhw import numerics

__all__ = ["Technology"]


@struct.dataclass(kw_only=True)
class Technology:
    """Coefficients of one process node and corner. All leaves have shape ``()``, differentiable.

    node_nm:                   process node, for the record (the coefficients are already at it).
    multiplier_pj:             energy of one 8 x 8 bit integer multiplication.
    multiplier_energy_power:   exponent of that energy in the operand width (2 would be area of a square).
    multiplier_um2:            area of an 8 x 8 bit multiplier.
    multiplier_area_power:     exponent of that area.
    adder_pj_per_bit, adder_um2_per_bit: of the accumulator's adder.
    register_pj_per_bit, register_um2_per_bit: one flip-flop, written once and read once.
    wire_pj_per_bit_mm:        one bit moved one millimetre.
    wire_um2_per_bit_um:       area of one bit of link per micrometre of length (pitch).
    sram_read_pj:              read of one 64-bit word from a 1 KiB buffer.
    sram_write_ratio:          energy of a write over that of a read.
    sram_energy_power:         exponent of the access energy in the capacity.
    sram_width_power:          exponent of the access energy in the port width.
    sram_mm2:                  area of a 1 KiB buffer.
    sram_area_power:           exponent of that area in the capacity.
    sram_leakage_w_per_byte:   low-power cells.
    logic_leakage_w_per_mm2:   PEs and links.
    switch_area_fraction, switch_energy_fraction: what a PE pays to change dataflow (of PE area, of MAC energy).
    """

    node_nm: Array
    multiplier_pj: Array
    multiplier_energy_power: Array
    multiplier_um2: Array
    multiplier_area_power: Array
    adder_pj_per_bit: Array
    adder_um2_per_bit: Array
    register_pj_per_bit: Array
    register_um2_per_bit: Array
    wire_pj_per_bit_mm: Array
    wire_um2_per_bit_um: Array
    sram_read_pj: Array
    sram_write_ratio: Array
    sram_energy_power: Array
    sram_width_power: Array
    sram_mm2: Array
    sram_area_power: Array
    sram_leakage_w_per_byte: Array
    logic_leakage_w_per_mm2: Array
    switch_area_fraction: Array
    switch_energy_fraction: Array

    @classmethod
    def create(cls, **values) -> "Technology":
        """Check every coefficient (>= 0) and convert; fields as in the class docstring."""
        return cls(**{name: numerics.non_negative(name, value) for name, value in values.items()})

    @classmethod
    def at(cls, node_nm=22.0) -> "Technology":
        """Technology scaled to ``node_nm``."""
        e, a = 0.30, 0.24
        return cls.create(
            node_nm=node_nm,
            multiplier_pj=0.2 * e,
            multiplier_energy_power=1.98,
            multiplier_um2=282 * a,
            multiplier_area_power=1.82,
            adder_pj_per_bit=0.1 / 32 * e,
            adder_um2_per_bit=137 / 32 * a,
            register_pj_per_bit=0.009 * e,
            register_um2_per_bit=5.98 * a,
            wire_pj_per_bit_mm=0.1,
            wire_um2_per_bit_um=0.08,
            sram_read_pj=0.9 * e,
            sram_write_ratio=1.0,
            sram_energy_power=0.588,
            sram_width_power=0.65,
            sram_mm2=0.0054 * a,
            sram_area_power=0.97,
            sram_leakage_w_per_byte=1e-9,
            logic_leakage_w_per_mm2=1e-3,
            switch_area_fraction=0.1,
            switch_energy_fraction=0.05,
        )

    def mac_energy_pj(self, weight_bits, input_bits, psum_bits) -> Array:
        """pJ of one multiply-accumulate: the multiplier grows with the operand widths, the adder with the sum's."""
        width = weight_bits * input_bits / 64.0
        multiply = self.multiplier_pj * width ** (self.multiplier_energy_power / 2)
        return multiply + self.adder_pj_per_bit * psum_bits

    def mac_area_mm2(self, weight_bits, input_bits, psum_bits) -> Array:
        """mm2 of one multiplier and accumulator adder."""
        width = weight_bits * input_bits / 64.0
        multiply = self.multiplier_um2 * width ** (self.multiplier_area_power / 2)
        return 1e-6 * (multiply + self.adder_um2_per_bit * psum_bits)

    def register_area_mm2(self, bits) -> Array:
        """mm2 of ``bits`` flip-flops."""
        return 1e-6 * self.register_um2_per_bit * bits

    def sram_read_pj_per_bit(self, capacity_bytes, word_bits) -> Array:
        """pJ per bit read from a buffer of that capacity through a port of ``word_bits``."""
        access = self.sram_read_pj * (capacity_bytes / 1024.0) ** self.sram_energy_power
        return access * (word_bits / 64.0) ** self.sram_width_power / word_bits

    def sram_write_pj_per_bit(self, capacity_bytes, word_bits) -> Array:
        """pJ per bit written."""
        return self.sram_write_ratio * self.sram_read_pj_per_bit(capacity_bytes, word_bits)

    def sram_area_mm2(self, capacity_bytes) -> Array:
        """mm2 of one buffer."""
        return self.sram_mm2 * (capacity_bytes / 1024.0) ** self.sram_area_power

    def sram_leakage_w(self, capacity_bytes) -> Array:
        """W of one buffer."""
        return self.sram_leakage_w_per_byte * capacity_bytes
