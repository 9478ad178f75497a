"""OUR MODELS AGAINST OTHER PEOPLE'S TOOLS: where a referee deviates from physics, it is replayed here."""

from diffhw.validation._maestro import MAESTRO_COLUMNS, MaestroReport, validate_maestro
from diffhw.validation._maestro_levels import (
    MAESTRO,
    REPAIRED,
    MaestroHardware,
    MaestroLayer,
    MaestroRules,
)
from diffhw.validation._maestro_replay import maestro
from diffhw.validation._maestro_report import MaestroAnswer
from diffhw.validation._scalesim import SCALESIM_COLUMNS, predict_scalesim, validate_scalesim
from diffhw.validation._scalesim_streams import LayerRun
from diffhw.validation._silicon import SiliconRow, eyeriss_alexnet
from diffhw.validation._table import ColumnScore, ValidationReport

__all__ = [
    "MAESTRO",
    "MAESTRO_COLUMNS",
    "REPAIRED",
    "SCALESIM_COLUMNS",
    "ColumnScore",
    "LayerRun",
    "MaestroAnswer",
    "MaestroHardware",
    "MaestroLayer",
    "MaestroReport",
    "MaestroRules",
    "SiliconRow",
    "ValidationReport",
    "eyeriss_alexnet",
    "maestro",
    "predict_scalesim",
    "validate_maestro",
    "validate_scalesim",
]
