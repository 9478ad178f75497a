"""A cost model as an object for type checkers: callable on networks, with its kernel beside it."""

from collections.abc import Callable
from typing import Protocol, cast

from diffhw.models._cost import Cost

__all__ = ["Model", "with_kernel"]


class Model(Protocol):
    """``model(network, hw, ...) -> Cost`` of a network; ``model.layer(layer, hw, ...)`` of a layer."""

    layer: Callable[..., Cost]

    def __call__(self, *args, **kwargs) -> Cost:
        """Cost of a network."""
        ...


def with_kernel(kernel: Callable[..., Cost]) -> Callable[[Callable[..., Cost]], Model]:
    """Decorator that hangs the one-layer kernel on the network function, as ``.layer``."""

    def attach(function: Callable[..., Cost]) -> Model:
        model = cast(Model, function)
        model.layer = kernel
        return model

    return attach
