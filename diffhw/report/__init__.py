"""What people read: tables, plots, the HTML report, and the result as data."""

from diffhw.report._bars import breakdown, tornado
from diffhw.report._dataflow import loop_nest, reuse_table
from diffhw.report._dataflow_picture import dataflow_picture
from diffhw.report._export import layers_csv, to_json
from diffhw.report._grid import Table
from diffhw.report._html import html
from diffhw.report._loopnest import (
    hardware_line,
    level_table,
    mapped,
    mapping_table,
    mapping_total,
)
from diffhw.report._loopnest_pictures import (
    convergence_band,
    energy_stack,
    gradient_tornado,
    latency_stack,
    ski_slope_picture,
)
from diffhw.report._loopnest_slopes import mapping_slopes
from diffhw.report._plots import convergence, pareto, roofline
from diffhw.report._tables import table

__all__ = [
    "Table",
    "breakdown",
    "convergence",
    "convergence_band",
    "dataflow_picture",
    "energy_stack",
    "gradient_tornado",
    "hardware_line",
    "html",
    "latency_stack",
    "layers_csv",
    "level_table",
    "loop_nest",
    "mapped",
    "mapping_slopes",
    "mapping_table",
    "mapping_total",
    "pareto",
    "reuse_table",
    "roofline",
    "ski_slope_picture",
    "table",
    "to_json",
    "tornado",
]
