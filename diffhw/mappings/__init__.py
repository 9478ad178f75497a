"""HOW IT RUNS: dataflows and precision (knows Layer and Accelerator, nothing above)."""

from diffhw.mappings._precision import Precision
from diffhw.mappings._systolic import DATAFLOWS, dataflow_weights

__all__ = ["DATAFLOWS", "Precision", "dataflow_weights"]
