"""WHAT IT COSTS: cost models; each is ``model(network, hw, mapping, precision) -> Cost``."""

from diffhw.models._cost import Cost
from diffhw.models._model import Model
from diffhw.models._roofline import compulsory_bytes, roofline
from diffhw.models._systolic import ArrayCounts, array_counts, systolic

__all__ = ["ArrayCounts", "Cost", "Model", "array_counts", "compulsory_bytes", "roofline", "systolic"]
