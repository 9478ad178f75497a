"""WHAT IT COSTS: cost models; each is ``model(network, hw, mapping, precision) -> Cost``."""

from diffhw.models._cost import Cost
from diffhw.models._systolic import systolic

__all__ = ["Cost", "systolic"]
