"""What people read: tables, plots, the HTML report, and the result as data."""

from diffhw.report._bars import breakdown, tornado
from diffhw.report._dataflow import loop_nest, reuse_table
from diffhw.report._dataflow_picture import dataflow_picture
from diffhw.report._export import layers_csv, to_json
from diffhw.report._grid import Table
from diffhw.report._html import html
from diffhw.report._plots import convergence, pareto, roofline
from diffhw.report._tables import table

__all__ = [
    "Table",
    "breakdown",
    "convergence",
    "dataflow_picture",
    "html",
    "layers_csv",
    "loop_nest",
    "pareto",
    "reuse_table",
    "roofline",
    "table",
    "to_json",
    "tornado",
]
