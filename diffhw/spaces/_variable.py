"""What every variable offers to `Space`."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import Array, core

__all__ = ["SPAN", "Variable", "is_concrete"]

SPAN = 6.0
"""Length of the unconstrained interval [-SPAN / 2, SPAN / 2] onto which every legal range is mapped.

One learning rate then suits every variable, whatever its unit: 60 Adam steps at 0.3 with cosine
decay travel about nine, so any start can reach any end.
"""


class Variable:
    """A quantity to be chosen. Stands in a design where a number (or a part) would stand.

    Variables are static pytree nodes, so a dataclass that holds them passes through ``jit`` and
    ``tree.map``. They compare by identity: one object used twice in a design is a tie.

    size:        legal values, as a Python int.
    continuous:  True if the values are only finely resolved, not listed.
    param_shape: shape of the unconstrained parameter.
    """

    size: int
    continuous: bool = False
    param_shape: tuple[int, ...] = ()

    def init(self, uniform):
        """A parameter in the middle of the range, from uniform numbers in [0, 1) of the same shape."""
        raise NotImplementedError

    def project(self, param: Array) -> Array:
        """The nearest parameter within the range: apply after each optimiser step."""
        raise NotImplementedError

    def index(self, param: Array) -> Array:
        """Index of the legal value nearest to ``param``, int32, shape ()."""
        raise NotImplementedError

    def decode(self, param: Array, temperature, key: Array | None) -> Any:
        """The legal value forward, straight-through gradients backward."""
        raise NotImplementedError

    def at(self, index) -> Any:
        """The legal value with that index (a Python int or a traced int32)."""
        raise NotImplementedError

    def index_of(self, value) -> int:
        """Inverse of `at`. Raises ValueError for a value that is not legal."""
        raise NotImplementedError

    def label(self, index: int) -> float | int | str:
        """The value for display."""
        raise NotImplementedError

    def steps(self, index: int) -> Sequence[int]:
        """Indices of the neighbours of a value."""
        raise NotImplementedError

    def describe(self) -> str:
        """The legal values in one line."""
        raise NotImplementedError

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_static(cls)


def is_concrete(index) -> bool:
    """True if ``index`` is a number, False under jit or vmap."""
    return not isinstance(index, core.Tracer)
