"""Every number that nobody could cite, by name, so that a report can halve and double each."""

import difflib
from dataclasses import dataclass, replace

import jax.numpy as jnp

from diffhw.hardware import _tables as t

__all__ = ["ASSUMED", "Assumed", "scale_assumed"]


@dataclass(frozen=True)
class Assumed:
    """One assumed number.

    name: for people and the command line.  default, unit: at 22 nm.  why: how it was chosen.
    path: the leaf of an `Accelerator` that carries it.
    kind: index into `DRAM_TYPES` if it holds for that DRAM type only, else None.
    """

    name: str
    default: float
    unit: str
    why: str
    path: str
    kind: int | None = None


_TECHNOLOGY = (
    Assumed(
        "sram_write_ratio",
        1.0,
        "write / read energy",
        "CACTI's write energy in the sweep is that of full-row writes and not of one word",
        "technology.sram_write_ratio",
    ),
    Assumed(
        "sram_leakage",
        8 * t.SRAM_LEAKAGE_W_PER_BIT,
        "W/byte",
        "a published 65 nm low-power value (84 pW/bit at 1.0 V), used at every node: low-power cells of "
        "newer nodes are designed to a leakage target",
        "technology.sram_leakage_w_per_byte",
    ),
    Assumed(
        "logic_leakage",
        sum(watt / (um2 * 1e-6) for _, _, watt, um2 in t.ALADDIN_40NM.values()) / len(t.ALADDIN_40NM),
        "W/mm2",
        "the mean of a published 40 nm register, adder and multiplier, used per mm2 at every node",
        "technology.logic_leakage_w_per_mm2",
    ),
    Assumed(
        "wire_pitch",
        0.08,
        "um2 per bit and um",
        "one 80 nm track per bit, about the tightest metal pitch at 22 nm, in proportion at other nodes; "
        "links take area of their own (none runs over cells)",
        "technology.wire_um2_per_bit_um",
    ),
    Assumed(
        "switch_area",
        0.1,
        "of the PE's area",
        "multiplexers that let one PE change its dataflow",
        "technology.switch_area_fraction",
    ),
    Assumed(
        "switch_energy",
        0.05,
        "of the MAC's energy",
        "the same multiplexers, switching",
        "technology.switch_energy_fraction",
    ),
)

_PHY = (
    "size of the interface and its controller on our die, not scaled with the node (analogue); GDDR6 follows "
    "from HBM2 by a published ratio (S. Woo, Rambus: 1.5 to 1.75 x the PHY area of HBM2 at 256 GB/s), the "
    "rest is our estimate"
)
_STATIC = (
    "device and interface while idle, refresh included; DDR4 from a published module (Transcend "
    "TS4GHR72V1C, 18 devices: IDD2N 1040 mA at 1.2 V, so 0.28 W for a channel of four), the rest is our "
    "estimate"
)
# type, in the order of DRAM_TYPES: (PHY mm2, static W)
_DRAM = {
    "LPDDR4": (1.5, 0.04),
    "DDR4": (4.0, 0.28),
    "GDDR5": (3.5, 0.4),
    "GDDR6": (4.9, 0.5),
    "HBM2": (12.0, 1.0),
}

ASSUMED: tuple[Assumed, ...] = (
    *_TECHNOLOGY,
    *(
        Assumed(f"{name}_{what}", values[i], unit, why, path, kind)
        for i, (what, unit, why, path) in enumerate(
            (("phy_area", "mm2", _PHY, "dram.phy_area_mm2"), ("static", "W", _STATIC, "dram.static_w"))
        )
        for kind, (name, values) in enumerate(_DRAM.items())
    ),
)
"""All assumed numbers, in a fixed order."""


def default(name: str) -> float:
    """Default of the assumed number ``name``."""
    return find(name).default


def find(name: str) -> Assumed:
    """The entry ``name``. Raises ValueError naming the nearest one."""
    for entry in ASSUMED:
        if entry.name == name:
            return entry
    names = [entry.name for entry in ASSUMED]
    near = difflib.get_close_matches(name, names, 1, 0.0)[0]
    raise ValueError(f"unknown assumed number {name!r}; did you mean {near!r}? There are {', '.join(names)}")


def scale_assumed(hw, name: str, factor):
    """``hw`` with the assumed number ``name`` multiplied by ``factor``.

    hw: `Accelerator`, leaves of any one shape; differentiable in them and in ``factor``. An entry of
    one DRAM type leaves designs with another type as they are. Raises ValueError for an unknown name.
    """
    entry = find(name)
    part_name, leaf_name = entry.path.split(".")
    part = getattr(hw, part_name)
    leaf = getattr(part, leaf_name)
    if entry.kind is not None:
        # Half a unit of slack: a straight-through choice may leave the kind an ulp off.
        factor = jnp.where(jnp.abs(part.kind - entry.kind) < 0.5, factor, 1.0).astype(leaf.dtype)
    return replace(hw, **{part_name: replace(part, **{leaf_name: leaf * factor})})
