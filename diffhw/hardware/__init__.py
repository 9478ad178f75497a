"""WHAT IT RUNS ON: accelerators, memory levels, DRAM types, technology, the catalogue, readers."""

from diffhw.hardware._accelerator import Accelerator, Dram, Level, area_mm2, area_parts, leakage_w
from diffhw.hardware._technology import Technology

__all__ = ["Accelerator", "Dram", "Level", "Technology", "area_mm2", "area_parts", "leakage_w"]
