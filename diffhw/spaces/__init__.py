"""WHAT CAN BE CHOSEN: a design with variables in place of numbers is a search space."""

from diffhw.spaces._choice import Choice
from diffhw.spaces._numbers import Bits, Integer, Real
from diffhw.spaces._space import Slot, Space
from diffhw.spaces._tiling import Order, Tiling
from diffhw.spaces._variable import Variable

__all__ = ["Bits", "Choice", "Integer", "Order", "Real", "Slot", "Space", "Tiling", "Variable"]
