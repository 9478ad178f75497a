"""DRAM types: what bandwidth costs in energy, in die area and in idle power."""

import difflib
from dataclasses import dataclass, replace

import numpy as np

from diffhw.hardware import _assumed
from diffhw.hardware._accelerator import Dram

__all__ = ["DRAM_TYPES", "DramType", "dram", "dram_name", "dram_type"]

DRAM_TYPES = ("LPDDR4", "DDR4", "GDDR5", "GDDR6", "HBM2")
"""Names in a fixed order; the index is `Dram.kind`."""


@dataclass(frozen=True)
class DramType:
    """One channel, device or stack. unit: which.  source: of the bandwidth and of the energy.

    PHY area and static power are assumed: `hardware.ASSUMED`.
    """

    name: str
    unit: str
    gb_per_s: float
    pj_per_bit: float
    source: str


_TYPES = (
    DramType(
        "LPDDR4",
        "one device, 32 data pins at 3.2 Gb/s",
        12.8,
        8.0,
        "bandwidth: 25.6 GB/s for two dies at 3200 Mb/s, semiengineering.com on LPDDR4 channels (read); "
        "energy: accelergy-cacti-plug-in table (read)",
    ),
    DramType(
        "DDR4",
        "one channel, 64 data pins at 3.2 Gb/s",
        25.6,
        20.3,
        "bandwidth: JEDEC JESD79-4, DDR4-3200 (recalled); energy: DDR3/4 of Jouppi et al., ISCA 2021 "
        "(recalled)",
    ),
    DramType(
        "GDDR5",
        "one device, 32 data pins at 8 Gb/s",
        32.0,
        14.0,
        "bandwidth: JEDEC JESD212 (recalled); energy: accelergy-cacti-plug-in table (read), the same as "
        "O'Connor et al., MICRO 2017 (recalled)",
    ),
    DramType(
        "GDDR6",
        "one device, 32 data pins at 16 Gb/s",
        64.0,
        6.5,
        "bandwidth: 256 GB/s from four devices, rambus.com on GDDR6 and HBM2 (read); energy: middle of 5.5 "
        "to 7.5, Jouppi et al., ISCA 2021 (recalled)",
    ),
    DramType(
        "HBM2",
        "one stack, 1024 data pins at 2 Gb/s",
        256.0,
        3.9,
        "bandwidth: 256 GB/s from one stack, rambus.com on GDDR6 and HBM2 (read); energy: "
        "accelergy-cacti-plug-in table (read)",
    ),
)


def dram_type(name: str) -> DramType:
    """The entry of ``name`` (any case). Raises ValueError naming the nearest type."""
    for entry in _TYPES:
        if entry.name == str(name).upper():
            return entry
    near = difflib.get_close_matches(str(name).upper(), DRAM_TYPES, 1, 0.0)[0]
    raise ValueError(f"unknown DRAM type {name!r}; did you mean {near}? There are {', '.join(DRAM_TYPES)}")


def dram(name: str, *, gb_per_s=None) -> Dram:
    """A `Dram` of one unit of a type, or of as much of it as ``gb_per_s`` (1e9 bytes/s) asks for.

    With ``gb_per_s`` the PHY area and the static power grow in proportion (channels side by side).
    Raises ValueError for an unknown type or a bandwidth that is not > 0.

    >>> float(dram("HBM2").gb_per_s)
    256.0
    """
    entry = dram_type(name)
    made = Dram.create(
        gb_per_s=entry.gb_per_s if gb_per_s is None else gb_per_s,
        pj_per_bit=entry.pj_per_bit,
        phy_area_mm2=_assumed.default(f"{entry.name}_phy_area"),
        static_w=_assumed.default(f"{entry.name}_static"),
        kind=DRAM_TYPES.index(entry.name),
    )
    if gb_per_s is None:
        return made
    units = made.gb_per_s / entry.gb_per_s
    return replace(made, phy_area_mm2=made.phy_area_mm2 * units, static_w=made.static_w * units)


def dram_name(dram: Dram) -> str:
    """Type of a concrete scalar `Dram` ("custom" if it is none of `DRAM_TYPES`). Host only."""
    kind = int(np.asarray(dram.kind))
    return DRAM_TYPES[kind] if 0 <= kind < len(DRAM_TYPES) else "custom"
