"""The zoo by name, and `load`, which takes a zoo name, a file or a network."""

import difflib
import os
from pathlib import Path

from diffhw.workloads._dosa_networks import DOSA_NETWORKS, dosa_network
from diffhw.workloads._layer import Network
from diffhw.workloads._maestro import is_maestro_csv, read_maestro, read_maestro_csv
from diffhw.workloads._onnx import from_onnx
from diffhw.workloads._scalesim_csv import read_scalesim
from diffhw.workloads._zoo_cnn import CNNS
from diffhw.workloads._zoo_transformer import TRANSFORMERS

__all__ = ["load", "names"]

_ZOO = CNNS | TRANSFORMERS
_SUFFIXES = (".onnx", ".csv", ".m")


def names() -> tuple[str, ...]:
    """Names of the zoo.

    >>> names()[:3]
    ('alexnet', 'vgg16', 'resnet18')
    """
    return tuple(_ZOO)


def load(source, batch: int = 1) -> Network:
    """A network from a zoo name, a file, or a `Network` (as is).

    Files: ``.onnx``, MAESTRO ``.m``, and ``.csv``: a SCALE-Sim topology, or with the header ``K,C,Y,X,R,S,T``
    a model of MAESTRO's searchers.
    ``dosa_bert``, ``dosa_resnet50``, ``dosa_unet`` and ``dosa_retinanet`` are the tables of DOSA's comparison.
    batch: samples at once; sequences for the decode networks. Only zoo names and ``.onnx`` have a batch
    to set. A JAX function goes through `from_jax`, which needs its abstract arguments.

    Raises ValueError for an unknown name (with the nearest ones), a missing file, or a wrong batch.

    >>> net = load("resnet50", batch=2)
    >>> net.summary()["macs"]
    8178368512
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch must be an integer >= 1, got {batch!r}")
    if isinstance(source, Network):
        if batch != 1:
            raise ValueError(f"a Network already has its batch: load it again with batch={batch}")
        return source
    if callable(source):
        raise ValueError(
            "a JAX function needs its abstract arguments: use workloads.from_jax(fn, *arguments)"
        )
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"a network is a zoo name, a file or a Network, got {type(source).__name__}")
    name = os.fspath(source)
    if name in _ZOO:
        return _ZOO[name](batch)
    if name in DOSA_NETWORKS:
        if batch != 1:
            raise ValueError(f"{name} is a fixed table of layers, so batch must be 1, got {batch}")
        return dosa_network(name)
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        if not path.is_file():
            raise ValueError(f"{name}: no such file")
        if suffix == ".onnx":
            return from_onnx(path, batch=batch)
        reader, what = read_scalesim, "a SCALE-Sim topology has"
        if suffix == ".m":
            reader, what = read_maestro, "a MAESTRO network has N in its layers and otherwise"
        elif is_maestro_csv(path):
            reader, what = read_maestro_csv, "a file of K,C,Y,X,R,S,T has"
        if batch != 1:
            raise ValueError(f"{name}: {what} no batch, so batch must be 1, got {batch}")
        return reader(path)
    near = difflib.get_close_matches(name.lower().replace("-", "_"), _ZOO, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_ZOO)}"
    raise ValueError(f"unknown network {name!r} ({hint} Files end in .onnx, .csv or .m)")
