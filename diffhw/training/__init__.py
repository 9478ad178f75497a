"""Data sets, small real networks, and the training and evaluation of many networks at once.

Knows workloads (a network as layers, for cost models) and quantization. Names are loaded on first use,
because flax.nnx and optax are slow to import.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffhw.training._blocks import conv
    from diffhw.training._channel_major import bits_apply
    from diffhw.training._data import DATA_NAMES, Data, Splits, joined, load
    from diffhw.training._families import PARAMETERS
    from diffhw.training._many import ManyResult, evaluate_many, observe_many, train_many
    from diffhw.training._networks import ConvNet, abstract_network, network, network_names, to_network
    from diffhw.training._train import TrainResult, evaluate, train

_HOMES = {
    "DATA_NAMES": "_data",
    "PARAMETERS": "_families",
    "ConvNet": "_networks",
    "Data": "_data",
    "ManyResult": "_many",
    "Splits": "_data",
    "TrainResult": "_train",
    "abstract_network": "_networks",
    "bits_apply": "_channel_major",
    "conv": "_blocks",
    "evaluate": "_train",
    "evaluate_many": "_many",
    "joined": "_data",
    "load": "_data",
    "network": "_networks",
    "network_names": "_networks",
    "observe_many": "_many",
    "to_network": "_networks",
    "train": "_train",
    "train_many": "_many",
}

__all__ = [
    "DATA_NAMES",
    "PARAMETERS",
    "ConvNet",
    "Data",
    "ManyResult",
    "Splits",
    "TrainResult",
    "abstract_network",
    "bits_apply",
    "conv",
    "evaluate",
    "evaluate_many",
    "joined",
    "load",
    "network",
    "network_names",
    "observe_many",
    "to_network",
    "train",
    "train_many",
]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"diffhw.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'diffhw.training' has no attribute {name!r}; it has {', '.join(__all__)}")
