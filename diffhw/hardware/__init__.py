"""WHAT IT RUNS ON: accelerators, memory levels, DRAM types, technology, the catalogue, readers."""

from diffhw.hardware._accelerator import Accelerator, Dram, Level, area_mm2, area_parts, leakage_w
from diffhw.hardware._assumed import ASSUMED, Assumed, scale_assumed
from diffhw.hardware._catalogue import CatalogueEntry, catalogue_entry, load, names, normalise
from diffhw.hardware._dram import DRAM_TYPES, DramType, dram, dram_name, dram_type
from diffhw.hardware._fits import Fit, fits
from diffhw.hardware._maestro_hw import read_maestro_hw, read_maestro_keys
from diffhw.hardware._scalesim_cfg import read_scalesim_cfg, write_scalesim_cfg
from diffhw.hardware._scaling import area_factor, energy_factor
from diffhw.hardware._technology import Technology
from diffhw.hardware._yaml import Where, from_dict, read_document, read_yaml, to_dict, write_yaml

__all__ = [
    "ASSUMED",
    "DRAM_TYPES",
    "Accelerator",
    "Assumed",
    "CatalogueEntry",
    "Dram",
    "DramType",
    "Fit",
    "Level",
    "Technology",
    "Where",
    "area_factor",
    "area_mm2",
    "area_parts",
    "catalogue_entry",
    "dram",
    "dram_name",
    "dram_type",
    "energy_factor",
    "fits",
    "from_dict",
    "leakage_w",
    "load",
    "names",
    "normalise",
    "read_document",
    "read_maestro_hw",
    "read_maestro_keys",
    "read_scalesim_cfg",
    "read_yaml",
    "scale_assumed",
    "to_dict",
    "write_scalesim_cfg",
    "write_yaml",
]
