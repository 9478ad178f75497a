"""WHAT IT RUNS ON: accelerators, memory levels, DRAM types, technology, the catalogue, readers."""

from diffhw.hardware._accelerator import Accelerator, Dram, Level, area_mm2, area_parts, leakage_w
from diffhw.hardware._assumed import ASSUMED, Assumed, scale_assumed
from diffhw.hardware._catalogue import CatalogueEntry, catalogue_entry, load, names, normalise
from diffhw.hardware._dram import DRAM_TYPES, DramType, dram, dram_name, dram_type
from diffhw.hardware._fits import Fit, fits
from diffhw.hardware._hierarchies import HIERARCHIES, eyeriss_like, gemmini, hierarchy, simba_like
from diffhw.hardware._hierarchy import ANY_DIM, Hierarchy, Memory
from diffhw.hardware._maestro_hw import read_maestro_hw, read_maestro_keys
from diffhw.hardware._scalesim_cfg import read_scalesim_cfg, write_scalesim_cfg
from diffhw.hardware._scaling import area_factor, energy_factor
from diffhw.hardware._technology import Technology
from diffhw.hardware._timeloop import read_timeloop
from diffhw.hardware._timeloop_write import write_timeloop
from diffhw.hardware._yaml import Where, from_dict, read_document, read_yaml, to_dict, write_yaml
from diffhw.hardware._zigzag import array_axes, read_zigzag, zigzag_dims
from diffhw.hardware._zigzag_write import write_zigzag

__all__ = [
    "ANY_DIM",
    "ASSUMED",
    "DRAM_TYPES",
    "HIERARCHIES",
    "Accelerator",
    "Assumed",
    "CatalogueEntry",
    "Dram",
    "DramType",
    "Fit",
    "Hierarchy",
    "Level",
    "Memory",
    "Technology",
    "Where",
    "area_factor",
    "area_mm2",
    "area_parts",
    "array_axes",
    "catalogue_entry",
    "dram",
    "dram_name",
    "dram_type",
    "energy_factor",
    "eyeriss_like",
    "fits",
    "from_dict",
    "gemmini",
    "hierarchy",
    "leakage_w",
    "load",
    "names",
    "normalise",
    "read_document",
    "read_maestro_hw",
    "read_maestro_keys",
    "read_scalesim_cfg",
    "read_timeloop",
    "read_yaml",
    "read_zigzag",
    "scale_assumed",
    "simba_like",
    "to_dict",
    "write_scalesim_cfg",
    "write_timeloop",
    "write_yaml",
    "write_zigzag",
    "zigzag_dims",
]
