"""OUR MODELS AGAINST OTHER PEOPLE'S TOOLS: where a referee deviates from physics, it is replayed here."""

from diffhw.validation._scalesim import SCALESIM_COLUMNS, predict_scalesim, validate_scalesim
from diffhw.validation._scalesim_streams import LayerRun
from diffhw.validation._silicon import SiliconRow, eyeriss_alexnet
from diffhw.validation._table import ColumnScore, ValidationReport

__all__ = [
    "SCALESIM_COLUMNS",
    "ColumnScore",
    "LayerRun",
    "SiliconRow",
    "ValidationReport",
    "eyeriss_alexnet",
    "predict_scalesim",
    "validate_scalesim",
]
