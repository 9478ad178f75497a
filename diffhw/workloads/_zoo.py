"""The zoo by name, and `load`, which takes a zoo name, a file or a network."""

import difflib
import os
from pathlib import Path

from diffhw._files.documents import format_of
from diffhw.workloads._dosa_networks import DOSA_NETWORKS, dosa_network
from diffhw.workloads._layer import Network, NetworkInfo
from diffhw.workloads._maestro import is_maestro_csv, read_maestro, read_maestro_csv
from diffhw.workloads._onnx import from_onnx
from diffhw.workloads._scalesim_csv import read_scalesim
from diffhw.workloads._timeloop import read_timeloop_problem
from diffhw.workloads._zigzag import read_zigzag_workload
from diffhw.workloads._zoo_cnn import CNNS
from diffhw.workloads._zoo_transformer import TRANSFORMERS

__all__ = ["load", "names"]

_ZOO = CNNS | TRANSFORMERS
_SUFFIXES = (".onnx", ".csv", ".m", ".yaml", ".yml")


def names() -> tuple[str, ...]:
    """Names of the zoo.

    >>> names()[:3]
    ('alexnet', 'vgg16', 'resnet18')
    """
    return tuple(_ZOO)


def _read_yaml(path: Path) -> Network:
    """A ZigZag workload, or a Timeloop problem as a network of one layer."""
    kind = format_of(path)
    if kind == "a ZigZag workload":
        return read_zigzag_workload(path)
    if kind == "a Timeloop problem" or "problem:" in path.read_text(encoding="utf-8"):
        info = NetworkInfo(name=path.stem, names=(path.stem,), source=f"Timeloop problem {path}")
        return Network.create([read_timeloop_problem(path)], info=info)
    raise ValueError(
        f"{path} is {kind or 'no file that we know'}; a network is a ZigZag workload or a Timeloop problem"
    )


def load(source, batch: int = 1) -> Network:
    """A network from a zoo name, a file, or a `Network` (as is).

    Files: ``.onnx``, MAESTRO ``.m``, ``.yaml`` of ZigZag (a workload) or Timeloop (a problem), and
    ``.csv``: a SCALE-Sim topology, or with the header ``K,C,Y,X,R,S,T`` a model of MAESTRO's searchers.
    ``dosa_bert``, ``dosa_resnet50``, ``dosa_unet`` and ``dosa_retinanet`` are tables of DOSA's comparison.
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
        elif suffix in (".yaml", ".yml"):
            reader, what = _read_yaml, "a ZigZag or Timeloop file has its own and otherwise"
        elif is_maestro_csv(path):
            reader, what = read_maestro_csv, "a file of K,C,Y,X,R,S,T has"
        if batch != 1:
            raise ValueError(f"{name}: {what} no batch, so batch must be 1, got {batch}")
        return reader(path)
    near = difflib.get_close_matches(name.lower().replace("-", "_"), _ZOO, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_ZOO)}"
    raise ValueError(f"unknown network {name!r} ({hint} Files end in .onnx, .csv, .m or .yaml)")
