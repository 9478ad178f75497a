"""Every fit behind `Technology`, with its data and its error, as rows that a command can print."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffhw.hardware import _tables as t
from diffhw.hardware._technology import Technology

__all__ = ["Fit", "fits"]


@dataclass(frozen=True)
class Fit:
    """One fit or check. points: (what, published value, our value) in ``unit``.

    role: "fit" (the formula was fitted to these points) or "check" (it was not).
    """

    quantity: str
    formula: str
    unit: str
    points: tuple[tuple[str, float, float], ...]
    source: str
    role: str = "fit"

    @property
    def errors(self) -> tuple[float, ...]:
        """|ours / published - 1| per point."""
        return tuple(abs(ours / data - 1) for _, data, ours in self.points)

    @property
    def mean_error(self) -> float:
        """Mean of `errors`."""
        return sum(self.errors) / len(self.errors)

    @property
    def worst_error(self) -> float:
        """Largest of `errors`."""
        return max(self.errors)


def _row(
    quantity, formula, unit, data: Sequence[tuple[str, float]], ours: Callable, source, role="fit"
) -> Fit:
    """``ours(i)`` is our value of the i-th point."""
    points = tuple((label, value, float(ours(i))) for i, (label, value) in enumerate(data))
    return Fit(quantity, formula, unit, points, source, role)


def _size(capacity_bytes: int) -> str:
    return f"{capacity_bytes // 2**20} MiB" if capacity_bytes >= 2**20 else f"{capacity_bytes // 1024} KiB"


def _arithmetic(tech: Technology) -> list[Fit]:
    rows = []
    for i, (unit, fields) in enumerate((("pJ", ("energy", "pj")), ("um2", ("area", "um2")))):
        name, suffix = fields
        scale, power = getattr(tech, f"multiplier_{suffix}"), getattr(tech, f"multiplier_{name}_power")
        widths = list(t.INT_MULTIPLY)
        rows.append(
            _row(
                f"multiplier {name}, 45 nm",
                f"{float(scale):.4g} {unit} x (bits / 8)^{float(power):.3f} (through two points)",
                unit,
                [(f"{bits} bit", row[i]) for bits, row in t.INT_MULTIPLY.items()],
                lambda j, s=scale, p=power, w=widths: s * (w[j] / 8) ** p,
                t.HOROWITZ,
            )
        )
        slope = getattr(tech, f"adder_{suffix}_per_bit")
        widths = list(t.INT_ADD)
        rows.append(
            _row(
                f"adder {name}, 45 nm",
                f"{float(slope):.4g} {unit} x bits",
                unit,
                [(f"{bits} bit", row[i]) for bits, row in t.INT_ADD.items()],
                lambda j, s=slope, w=widths: s * w[j],
                t.HOROWITZ,
            )
        )
    return rows


def _sram(tech: Technology) -> list[Fit]:
    plain = [size for size, port, node in t.CACTI_SRAM if (port, node) == (64, 45)]
    wide = [(size, port) for size, port, node in t.CACTI_SRAM if node == 45 and port != 64]
    other = [(size, node) for size, port, node in t.CACTI_SRAM if node != 45]
    at = {node: Technology.at(node) for _, node in other}

    def read(technology, size, port):
        return technology.sram_read_pj_per_bit(size, port) * port

    e, a = float(tech.sram_energy_power), float(tech.sram_area_power)
    nodes = "linear between 22, 32, 45, 65, 90 nm; factor of a node = geometric mean over 8, 64, 512 KiB"
    return [
        _row(
            "SRAM read energy, 45 nm, 64-bit port",
            f"{float(tech.sram_read_pj):.4g} pJ x KiB^{e:.3f}",
            "pJ",
            [(_size(size), t.CACTI_SRAM[size, 64, 45][0]) for size in plain],
            lambda j: read(tech, plain[j], 64),
            t.CACTI,
        ),
        _row(
            "SRAM read energy, 45 nm, other ports",
            f"x (port bits / 64)^{float(tech.sram_width_power):.3f}",
            "pJ",
            [(f"{_size(size)} x {port}", t.CACTI_SRAM[size, port, 45][0]) for size, port in wide],
            lambda j: read(tech, *wide[j]),
            t.CACTI,
        ),
        _row(
            "SRAM read energy, other nodes",
            f"x node factor ({nodes})",
            "pJ",
            [(f"{_size(size)} at {node} nm", t.CACTI_SRAM[size, 64, node][0]) for size, node in other],
            lambda j: read(at[other[j][1]], other[j][0], 64),
            t.CACTI,
        ),
        _row(
            "SRAM area, 45 nm, 64-bit port",
            f"{float(tech.sram_mm2):.4g} mm2 x KiB^{a:.3f}",
            "mm2",
            [(_size(size), t.CACTI_SRAM[size, 64, 45][1]) for size in plain],
            lambda j: tech.sram_area_mm2(plain[j]),
            t.CACTI,
        ),
        _row(
            "SRAM area, 45 nm, other ports",
            "the same, whatever the port",
            "mm2",
            [(f"{_size(size)} x {port}", t.CACTI_SRAM[size, port, 45][1]) for size, port in wide],
            lambda j: tech.sram_area_mm2(wide[j][0]),
            t.CACTI,
            "check",
        ),
        _row(
            "SRAM area, other nodes",
            f"x node factor ({nodes})",
            "mm2",
            [(f"{_size(size)} at {node} nm", t.CACTI_SRAM[size, 64, node][1]) for size, node in other],
            lambda j: at[other[j][1]].sram_area_mm2(other[j][0]),
            t.CACTI,
        ),
    ]


def _rest(tech: Technology) -> list[Fit]:
    lengths = list(t.NOXIM_LINK)
    leakage = [(name, watt / (um2 * 1e-6)) for name, (_, _, watt, um2) in t.ALADDIN_40NM.items()]
    _, register_pj, _, register_um2 = t.ALADDIN_40NM["register"]
    at40, at7 = Technology.at(40), Technology.at(7)
    seven = list(t.JOUPPI_7NM)

    def at_seven(j):
        kind, bits = seven[j]
        if kind == "add":
            return at7.adder_pj_per_bit * bits
        return at7.multiplier_pj * (bits / 8) ** at7.multiplier_energy_power

    return [
        _row(
            "register, 40 nm",
            "pJ and um2 per bit, as published",
            "pJ, um2",
            [("energy", register_pj), ("area", register_um2)],
            lambda j: (at40.register_pj_per_bit, at40.register_um2_per_bit)[j],
            t.ALADDIN,
        ),
        _row(
            "logic leakage",
            f"{float(tech.logic_leakage_w_per_mm2):.4g} W/mm2, the mean, at every node",
            "W/mm2",
            leakage,
            lambda j: tech.logic_leakage_w_per_mm2,
            t.ALADDIN,
        ),
        _row(
            "SRAM leakage",
            f"{float(tech.sram_leakage_w_per_byte):.3g} W/byte, at every node",
            "W/byte",
            [("at 1.0 V", 8 * t.SRAM_LEAKAGE_W_PER_BIT)],
            lambda j: tech.sram_leakage_w_per_byte,
            t.SRAM_LEAKAGE,
        ),
        _row(
            "SRAM leakage against a retention mode",
            "the same; ours is for an awake memory",
            "W/byte",
            [("at 0.5 V, sleeping", 8 * t.SRAM_RETENTION_W_PER_BIT)],
            lambda j: tech.sram_leakage_w_per_byte,
            t.SRAM_RETENTION,
            "check",
        ),
        _row(
            "wire energy",
            f"{float(tech.wire_pj_per_bit_mm):.4g} pJ x bits x mm, at every node",
            "pJ",
            [(f"{mm} mm", pj) for mm, pj in t.NOXIM_LINK.items()],
            lambda j: tech.wire_pj_per_bit_mm * lengths[j],
            t.NOXIM,
        ),
        _row(
            "wire energy against another tool",
            "the same",
            "pJ",
            [("1 mm", t.ALADDIN_WIRE_PJ_PER_BIT_MM)],
            lambda j: tech.wire_pj_per_bit_mm,
            "accelergy-aladdin-plug-in: 0.2 x 1.627 fF/um x (1 V)^2 (read)",
            "check",
        ),
        _row(
            "node scaling of arithmetic, 45 to 7 nm",
            "x energy factor of Stillmaker & Baas 2017 at 0.9 V, linear in the node between entries",
            "pJ",
            [(f"{kind} {bits} bit", pj) for (kind, bits), pj in t.JOUPPI_7NM.items()],
            at_seven,
            t.JOUPPI,
            "check",
        ),
    ]


def fits() -> tuple[Fit, ...]:
    """All fits and checks of `Technology.at`, evaluated anew. Host only (small float arithmetic)."""
    tech = Technology.at(45)
    return (*_arithmetic(tech), *_sram(tech), *_rest(tech))
