"""Pairs of a real layer and a random legal array, for JAX and for the C program."""

from dataclasses import replace

import numpy as np

import diffhw as dh
from diffhw.mappings import DATAFLOWS

SIZES = ("n", "g", "k", "c", "p", "q", "r", "s", "h", "w", "pad_top", "pad_left")
SIZES += ("stride_h", "stride_w", "dilation_h", "dilation_w")
KNOBS = ("rows", "cols", "weight_bytes", "input_bytes", "output_bytes", "dram_gb_per_s")
BUFFERS = (("weight", "w"), ("input", "i"), ("output", "o"))

# Leaves of a Cost in the order of the C program's OUTPUTS.
SCALARS = (
    "cycles",
    "energy_pj",
    "area_mm2",
    "macs",
    "feasible",
    "violation",
    "freq_hz",
    "peak_macs_per_cycle",
)
TRAFFIC = ("dram_input_read", "dram_weight_read", "dram_psum_read", "dram_output_write")
TRAFFIC += ("sram_input_read", "sram_input_write", "sram_weight_read", "sram_weight_write")
TRAFFIC += ("sram_output_read", "sram_output_write")
ENERGY = ("mac", "registers", "sram", "wires", "dram", "leakage", "dram_static")
AREA = ("pe", "sram", "noc", "phy")
CYCLES = ("compute", "stall")
LEAVES = (
    *SCALARS,
    *(f"traffic_bytes.{name}" for name in TRAFFIC),
    *(f"energy_parts.{name}" for name in ENERGY),
    *(f"area_parts.{name}" for name in AREA),
    *(f"cycle_parts.{name}" for name in CYCLES),
)


def pairs(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of ``count`` float32 numbers: layers of the whole zoo, arrays of the legal grid of codesign."""
    rng = np.random.default_rng(seed)
    networks = [dh.workloads.load(name) for name in dh.workloads.names()]
    real = [[np.asarray(getattr(net.layers, name))[: net.size] for name in SIZES] for net in networks]
    layers = np.unique(np.concatenate([np.stack(columns, 1) for columns in real]), axis=0)
    chosen = layers[rng.integers(0, len(layers), count)]
    grid = np.round(4 * 2 ** (np.arange(25) / 4))
    capacity = 1024.0 * 2.0 ** np.arange(3, 13)
    bandwidth = [dh.hardware.dram_type(name).gb_per_s for name in dh.hardware.DRAM_TYPES]
    choices = (grid, grid, capacity, capacity, capacity, np.asarray(bandwidth))
    columns = {name: chosen[:, i] for i, name in enumerate(SIZES)}
    columns |= {name: rng.choice(values, count) for name, values in zip(KNOBS, choices)}
    return {name: np.ascontiguousarray(column, np.float32) for name, column in columns.items()}


def base() -> dh.Accelerator:
    """The design whose six numbers vary: 22 nm, 1 GHz, 8-bit operands, 32-bit sums."""
    level = dh.hardware.Level.create
    levels = [level(name=name, keeps=keeps, capacity_bytes=65536) for name, keeps in BUFFERS]
    return dh.Accelerator.create(rows=16, cols=16, levels=levels, dram=dh.hardware.dram("LPDDR4"))


def design(hw: dh.Accelerator, columns: dict) -> dh.Accelerator:
    """``hw`` with the six varied numbers in place."""
    levels = tuple(
        replace(level, capacity_bytes=columns[f"{name}_bytes"])
        for level, (name, _) in zip(hw.levels, BUFFERS)
    )
    dram = replace(hw.dram, gb_per_s=columns["dram_gb_per_s"])
    return replace(hw, rows=columns["rows"], cols=columns["cols"], levels=levels, dram=dram)


def layer(columns: dict) -> dh.Layer:
    """The layer of a pair."""
    return dh.Layer(**{name: columns[name] for name in SIZES}, weight_is_activation=0.0)


def constants(hw: dh.Accelerator) -> np.ndarray:
    """What does not vary, in the order of the C program's CONSTANTS."""
    tech = hw.technology
    mac = tech.mac_energy_pj(hw.weight_bits, hw.input_bits, hw.psum_bits)
    read = 8 * tech.sram_read_pj_per_bit(1024.0, hw.levels[0].word_bits)
    noc = dh.hardware.area_parts(hw)["noc"] / hw.pes
    values = [hw.weight_bits, hw.input_bits, hw.psum_bits, hw.input_bits, hw.lanes, hw.freq_hz]
    values += [mac, tech.register_pj_per_bit, tech.wire_pj_per_bit_mm * hw.pe_pitch_mm()]
    values += [8 * hw.dram.pj_per_bit, hw.dram.static_w, hw.dram.phy_area_mm2]
    values += [read, tech.sram_write_ratio, tech.sram_energy_power, tech.sram_mm2, tech.sram_area_power]
    values += [tech.sram_leakage_w_per_byte, hw.pe_area_mm2(), noc, tech.logic_leakage_w_per_mm2]
    return np.asarray([float(value) for value in values], np.float32)


def leaf(cost, name: str):
    """A leaf of a Cost by the name in `LEAVES`."""
    field, _, part = name.partition(".")
    return getattr(cost, field)[part] if part else getattr(cost, field)


assert len(LEAVES) == 31
__all__ = ["DATAFLOWS", "KNOBS", "LEAVES", "SIZES", "base", "constants", "design", "layer", "leaf", "pairs"]
