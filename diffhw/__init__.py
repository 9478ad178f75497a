"""diffhw: differentiable hardware models for co-designing neural networks and accelerators.

A design is a pytree, a cost is a pure function of it, a search space is the same pytree with
variables in place of numbers, and every search method works on any space with any cost.

Rooms are loaded on first use, so that ``import diffhw`` is quick, touches no device, reads no
file and changes no ``jax.config``.
"""

import importlib

__version__ = "0.1.0"

_ROOMS = (
    "batching",
    "fusing",
    "hardware",
    "mappings",
    "models",
    "numerics",
    "quantization",
    "recipes",
    "report",
    "search",
    "spaces",
    "training",
    "validation",
    "workloads",
)
_NAMES = {
    "Accelerator": "hardware",
    "Bits": "spaces",
    "Choice": "spaces",
    "Cost": "models",
    "Integer": "spaces",
    "Layer": "workloads",
    "Network": "workloads",
    "Precision": "mappings",
    "Real": "spaces",
    "Space": "spaces",
}

__all__ = [*_ROOMS, *_NAMES]


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"diffhw.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"diffhw.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'diffhw' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
