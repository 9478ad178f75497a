"""CIFAR-10 as published: the python version (pickled batches) and the binary version.

Formats: https://www.cs.toronto.edu/~kriz/cifar.html. A row is 3072 bytes: 1024 red, green, blue, each 32 x 32
by rows; in the binary version the label's byte comes first.
"""

import io
import pickle
from pathlib import Path

import numpy as np

from diffhw.training._data_raw import Raw

__all__ = ["find_cifar", "read_cifar"]

_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_ROW = 3072


def find_cifar(folder: Path) -> tuple[Path, str] | None:
    """(the folder with the batches, "" or ".bin"), also one level down as the archives unpack; or None."""
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        for suffix in ("", ".bin"):
            if (place / f"data_batch_1{suffix}").is_file():
                return place, suffix
    return None


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays and nothing else: a pickle may otherwise run any code."""

    def find_class(self, module: str, name: str):
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.ndarray.__reduce__(np.zeros(0))[0]  # wherever this numpy keeps it
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in old protocols
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it wants {module}.{name}, and only numpy arrays are read")


def _python_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        batch = {key if isinstance(key, bytes) else str(key).encode(): value for key, value in batch.items()}
        return np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except Exception as error:  # a broken pickle fails in many ways; all mean the same to a user
        what = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: this is no CIFAR-10 python batch ({what})") from error


def _binary_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data = np.fromfile(path, np.uint8)
    if len(data) == 0 or len(data) % (_ROW + 1):
        raise ValueError(
            f"{path}: a CIFAR-10 binary batch has {_ROW + 1} bytes per image, got {len(data)} bytes in all"
        )
    rows = data.reshape(-1, _ROW + 1)
    return rows[:, 1:], rows[:, 0]


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"{path}: this batch is missing (CIFAR-10 has 5 training batches and a test batch)")
    x, y = _binary_batch(path) if path.suffix == ".bin" else _python_batch(path)
    if x.ndim != 2 or x.shape[1] != _ROW or x.dtype != np.uint8:
        raise ValueError(f"{path}: data must be uint8 of shape (n, {_ROW}), got {x.dtype} {x.shape}")
    if len(y) != len(x) or y.dtype.kind not in "iu" or (len(y) and not 0 <= y.min() <= y.max() <= 9):
        raise ValueError(f"{path}: there must be one label from 0 to 9 per image")
    return np.ascontiguousarray(x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), y.astype(np.int32)


def read_cifar(folder: Path) -> Raw:
    """Both versions, chosen by what is there. Raises ValueError naming a missing or broken batch."""
    found = find_cifar(folder)
    if found is None:
        raise ValueError(f"{folder}: there is no data_batch_1 or data_batch_1.bin in it")
    place, suffix = found
    train = [_batch(place / f"{name}{suffix}") for name in _BATCHES]
    x, y = (np.concatenate(column) for column in zip(*train))
    return Raw("cifar10", 10, {"train": (x, y), "test": _batch(place / f"test_batch{suffix}")})
