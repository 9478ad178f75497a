"""HOW IT RUNS: dataflows and precision (knows Layer and Accelerator, nothing above)."""

from diffhw.mappings._dataflow import DIMS, LEVELS, ClusterLevel, Dataflow
from diffhw.mappings._fit import check_pes, fit
from diffhw.mappings._loopnest import LOOPS, ORDERS, LoopLevel, LoopNest, loop_order
from diffhw.mappings._loopnest_text import loopnest_text
from diffhw.mappings._maestro import parse, read_programs
from diffhw.mappings._precision import Precision
from diffhw.mappings._program import Map, Program, ProgramLevel, Sz, cluster, spatial, temporal
from diffhw.mappings._styles import STYLES, style
from diffhw.mappings._systolic import DATAFLOWS, dataflow_weights
from diffhw.mappings._timeloop_map import read_timeloop_mapping, timeloop_keeps, write_timeloop_mapping
from diffhw.mappings._to_program import to_program
from diffhw.mappings._zigzag_map import read_zigzag_mapping, write_zigzag_mapping

__all__ = [
    "DATAFLOWS",
    "DIMS",
    "LEVELS",
    "LOOPS",
    "ORDERS",
    "STYLES",
    "ClusterLevel",
    "Dataflow",
    "LoopLevel",
    "LoopNest",
    "Map",
    "Precision",
    "Program",
    "ProgramLevel",
    "Sz",
    "check_pes",
    "cluster",
    "dataflow_weights",
    "fit",
    "loop_order",
    "loopnest_text",
    "parse",
    "read_programs",
    "read_timeloop_mapping",
    "read_zigzag_mapping",
    "spatial",
    "style",
    "temporal",
    "timeloop_keeps",
    "to_program",
    "write_timeloop_mapping",
    "write_zigzag_mapping",
]
