"""What silicon costs: energy, area and leakage of MACs, registers, SRAM and wires.

Every number is a leaf, so a search may vary it and a report may halve or double it.
"""

import functools

import numpy as np
from flax import struct
from jax import Array

from diffhw import numerics
from diffhw.hardware import _assumed
from diffhw.hardware import _tables as t
from diffhw.hardware._scaling import area_factor, check_node, energy_factor, sram_factors

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
    switch_area_fraction, switch_energy_fraction: what a PE pays to change dataflow (of its area, of a MAC).

    Areas are those of the named cells: no control, clock tree, test logic or placement density, so
    published chips are about two to five times larger (`catalogue_entry` has their figures).
    Fits hold from 4 KiB to 4 MiB, 32 to 256-bit ports and 8 to 32-bit multipliers; beyond, they extrapolate.
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
        """Coefficients at a process node from 7 to 130 nm. node_nm: a plain number (not traced).

        MACs: through Horowitz's 45 nm points, registers and logic leakage: Aladdin at 40 nm, both scaled
        with Stillmaker & Baas at 0.9 V. SRAM: fits to a CACTI sweep with its own node factors, leakage
        from a published low-power memory. Wires: Noxim. `hardware.fits` prints every fit, its data and
        its error; `hardware.ASSUMED` lists what could not be cited. Raises ValueError for other nodes.
        """
        return cls.create(**_coefficients(check_node(node_nm)))

    def mac_energy_pj(self, weight_bits, input_bits, psum_bits) -> Array:
        """Energy of one multiply-accumulate: multiplier of the operands' widths, adder of the sum's."""
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
        """Energy per bit read from a buffer of that capacity through a port of ``word_bits``."""
        access = self.sram_read_pj * numerics.power(capacity_bytes, self.sram_energy_power, 1024.0)
        return access * (word_bits / 64.0) ** self.sram_width_power / word_bits

    def sram_write_pj_per_bit(self, capacity_bytes, word_bits) -> Array:
        """Energy per bit written."""
        return self.sram_write_ratio * self.sram_read_pj_per_bit(capacity_bytes, word_bits)

    def sram_area_mm2(self, capacity_bytes) -> Array:
        """mm2 of one buffer."""
        return self.sram_mm2 * numerics.power(capacity_bytes, self.sram_area_power, 1024.0)

    def sram_leakage_w(self, capacity_bytes) -> Array:
        """W of one buffer."""
        return self.sram_leakage_w_per_byte * capacity_bytes


def _power_law(x, y) -> tuple[float, float]:
    """(a, p) of ``y = a x ** p`` with the least squared error of log y."""
    power, log_scale = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(log_scale)), float(power)


def _proportional(x, y) -> float:
    """Slope a of ``y = a x`` with the least squared relative error."""
    inverse = np.asarray(x) / np.asarray(y)  # minimise the sum of (a inverse - 1) ** 2
    return float(inverse.sum() / (inverse**2).sum())


@functools.cache
def _at_table_nodes() -> dict[str, float]:
    """The fits at the nodes of their data: 45 nm, registers at 40 nm."""
    bits = np.array(list(t.INT_MULTIPLY))
    multiply = np.array(list(t.INT_MULTIPLY.values()))
    add_bits, add = np.array(list(t.INT_ADD)), np.array(list(t.INT_ADD.values()))
    multiplier_pj, energy_power = _power_law(bits / 8, multiply[:, 0])
    multiplier_um2, area_power = _power_law(bits / 8, multiply[:, 1])

    plain = {size: row for (size, port, node), row in t.CACTI_SRAM.items() if (port, node) == (64, 45)}
    kib = np.array(list(plain)) / 1024
    values = np.array(list(plain.values()))
    sram_pj, sram_energy_power = _power_law(kib, values[:, 0])
    sram_mm2, sram_area_power = _power_law(kib, values[:, 1])
    # The width's exponent from ratios to the 64-bit port of the same capacity, through 1 at 64 bits.
    ratios = [
        (np.log(port / 64), np.log(row[0] / plain[size][0]))
        for (size, port, node), row in t.CACTI_SRAM.items()
        if node == 45 and port != 64
    ]
    x, y = np.array(ratios).T
    _, register_pj, _, register_um2 = t.ALADDIN_40NM["register"]
    lengths, link = np.array(list(t.NOXIM_LINK)), np.array(list(t.NOXIM_LINK.values()))
    return dict(
        multiplier_pj=multiplier_pj,
        multiplier_energy_power=energy_power,
        multiplier_um2=multiplier_um2,
        multiplier_area_power=area_power,
        adder_pj_per_bit=_proportional(add_bits, add[:, 0]),
        adder_um2_per_bit=_proportional(add_bits, add[:, 1]),
        register_pj_per_bit=register_pj,
        register_um2_per_bit=register_um2,
        wire_pj_per_bit_mm=_proportional(lengths, link),
        sram_read_pj=sram_pj,
        sram_energy_power=sram_energy_power,
        sram_width_power=float((x @ y) / (x @ x)),
        sram_mm2=sram_mm2,
        sram_area_power=sram_area_power,
    )


@functools.cache
def _coefficients(node: float) -> dict[str, float]:
    """All fields of `Technology` at ``node``, plain floats."""
    energy, area = energy_factor(45, node), area_factor(45, node)
    sram_energy, sram_area = sram_factors(node)
    register_energy, register_area = energy_factor(40, node), area / area_factor(45, 40)
    scale = dict(
        multiplier_pj=energy,
        adder_pj_per_bit=energy,
        multiplier_um2=area,
        adder_um2_per_bit=area,
        register_pj_per_bit=register_energy,
        register_um2_per_bit=register_area,
        sram_read_pj=sram_energy,
        sram_mm2=sram_area,
    )
    fitted = {name: value * scale.get(name, 1.0) for name, value in _at_table_nodes().items()}
    return fitted | dict(
        node_nm=node,
        sram_write_ratio=_assumed.default("sram_write_ratio"),
        sram_leakage_w_per_byte=_assumed.default("sram_leakage"),
        logic_leakage_w_per_mm2=_assumed.default("logic_leakage"),
        wire_um2_per_bit_um=_assumed.default("wire_pitch") * node / 22,
        switch_area_fraction=_assumed.default("switch_area"),
        switch_energy_fraction=_assumed.default("switch_energy"),
    )
