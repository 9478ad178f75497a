"""What people read: tables, plots, the HTML report, and the result as data."""

from diffhw.report._bars import breakdown, tornado
from diffhw.report._export import layers_csv, to_json
from diffhw.report._grid import Table
from diffhw.report._html import html
from diffhw.report._plots import convergence, pareto, roofline
from diffhw.report._tables import table

__all__ = [
    "Table",
    "breakdown",
    "convergence",
    "html",
    "layers_csv",
    "pareto",
    "roofline",
    "table",
    "to_json",
    "tornado",
]
