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
from diffhw.validation._timeloop import TIMELOOP_COLUMNS, TimeloopReport, validate_timeloop
from diffhw.validation._zigzag import ZIGZAG_COLUMNS, ZigzagReport, validate_zigzag
from diffhw.validation._zigzag_replay import ZigzagAnswer, ZigzagMemory, ZigzagRun, zigzag_replay

__all__ = [
    "MAESTRO",
    "MAESTRO_COLUMNS",
    "REPAIRED",
    "SCALESIM_COLUMNS",
    "TIMELOOP_COLUMNS",
    "ZIGZAG_COLUMNS",
    "ColumnScore",
    "LayerRun",
    "MaestroAnswer",
    "MaestroHardware",
    "MaestroLayer",
    "MaestroReport",
    "MaestroRules",
    "SiliconRow",
    "TimeloopReport",
    "ValidationReport",
    "ZigzagAnswer",
    "ZigzagMemory",
    "ZigzagReport",
    "ZigzagRun",
    "eyeriss_alexnet",
    "maestro",
    "predict_scalesim",
    "validate_maestro",
    "validate_scalesim",
    "validate_timeloop",
    "validate_zigzag",
    "zigzag_replay",
]
