"""Data sets behind one function: `load` gives train, validation (selection) and test, standardised."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffhw.training._data_cifar import find_cifar, read_cifar
from diffhw.training._data_folders import is_image_folder, read_image_folder
from diffhw.training._data_npz import read_npz
from diffhw.training._data_raw import Raw

__all__ = ["DATA_NAMES", "Data", "Splits", "joined", "load"]

DATA_NAMES = ("digits", "cifar10", "imagenet")
_WHERE = {
    "cifar10": "cifar10 is a folder with data_batch_1 to data_batch_5 and test_batch (python version) or the "
    "same with .bin (binary version), unpacked from https://www.cs.toronto.edu/~kriz/cifar.html",
    "imagenet": "imagenet is a folder with train/CLASS/*.jpg and val/CLASS/*.jpg (ILSVRC 2012, from "
    "https://image-net.org/download.php after registration)",
}
_DIGITS_TEST, _DIGITS_VALIDATION = 360, 337  # of 1797: 1100 are left for training


@dataclass(frozen=True)
class Data:
    """Images with labels, in memory.

    x: (n, rows, columns, channels) float32, standardised.  y: (n,) int32, 0 to classes - 1.
    classes: how many there are.  name: of the set and split.
    """

    x: np.ndarray
    y: np.ndarray
    classes: int
    name: str

    def __len__(self) -> int:
        return len(self.y)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(rows, columns, channels)."""
        return self.x.shape[1], self.x.shape[2], self.x.shape[3]

    def standard_error(self, accuracy: float) -> float:
        """Sampling error of an accuracy measured on these images: ``sqrt(a (1 - a) / n)``.

        >>> d = Data(np.zeros((400, 1, 1, 1), np.float32), np.zeros(400, np.int32), 2, "none")
        >>> d.standard_error(0.5)
        0.025
        """
        return float(np.sqrt(accuracy * (1 - accuracy) / len(self)))


@dataclass(frozen=True)
class Splits:
    """train: to fit weights.  validation: to select (bits, epochs, designs).  test: looked at last."""

    train: Data
    validation: Data
    test: Data


def joined(*parts: Data) -> Data:
    """Several splits as one, say train and validation for a selection split with less sampling error."""
    x, y = (np.concatenate([getattr(part, f) for part in parts]) for f in "xy")
    return Data(x, y, parts[0].classes, " + ".join(part.name for part in parts))


def _digits() -> Raw:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            "the digits come with scikit-learn, which is not installed: pip install 'diffhw[train]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    x = np.asarray(images, np.float32).reshape(-1, 8, 8, 1)
    return Raw("digits", 10, {"all": (x, np.asarray(labels, np.int32))})


def _read(source: str, root, size: int | None) -> Raw:
    path = Path(source)
    if source == "digits":
        return _digits()
    if source in _WHERE:
        if root is None:
            raise ValueError(
                f"{source} needs root=, the path of its folder on this machine: {_WHERE[source]}"
            )
        folder = Path(root)
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder; {_WHERE[source]}")
        found = find_cifar(folder) if source == "cifar10" else is_image_folder(folder)
        if not found:
            raise ValueError(f"{folder} does not have the files expected there: {_WHERE[source]}")
        return read_cifar(folder) if source == "cifar10" else read_image_folder(folder, size or 224)
    if path.suffix == ".npz" or path.is_dir():
        path = Path(root) / path if root is not None and not path.is_absolute() else path
    if path.suffix == ".npz":
        return read_npz(path)
    if path.is_dir():
        if find_cifar(path):
            return read_cifar(path)
        if is_image_folder(path):
            return read_image_folder(path, size or 224)
        raise ValueError(
            f"{path}: no data set was recognised there; it may hold CIFAR-10 batches (data_batch_1, ... or "
            f"data_batch_1.bin, ...) or images as train/CLASS/*.jpg and val/CLASS/*.jpg"
        )
    near = difflib.get_close_matches(source, DATA_NAMES, 1, 0.5)
    if os.sep in source or "." in source:
        hint = (
            "there is no such path; give an existing .npz file, a CIFAR-10 folder, or a folder of images as "
            "train/CLASS/*.jpg"
        )
    else:
        hint = f"no data set has this name{f', did you mean {near[0]!r}?' if near else ''}"
    raise ValueError(f"{source}: {hint} (names: {', '.join(DATA_NAMES)})")


def load(name_or_path="digits", *, seed: int = 0, root=None, size: int | None = None) -> Splits:
    """A data set as train, validation and test.

    name_or_path: "digits" (bundled with scikit-learn, 1797 images of 8 x 8: 1100 / 337 / 360);
        "cifar10" or "imagenet" with ``root=`` their folder; or a path: a CIFAR-10 folder (python or binary
        batches), a folder of images ``train/CLASS/*.jpg|png`` with ``val`` and perhaps ``test``, or an
        ``.npz`` with x_train, y_train, x_test, y_test and perhaps x_val, y_val.
    seed: of the split, where the set has none of its own.  size: rows and columns: folders of images are
        resized and cropped to it (default 224); other sets are scaled by a whole factor, up or down.

    A set without a validation split gives up 10 % of its training images for one, drawn by class; a folder
    of images with ``val`` and no ``test`` has its ``val`` as test. Images are standardised with the mean
    and deviation of the training images per channel. Reading is deterministic.

    Raises ValueError naming the path, the layout expected and where to get the files.

    >>> data = load("digits")
    >>> [len(part) for part in (data.train, data.validation, data.test)], data.train.input_shape
    ([1100, 337, 360], (8, 8, 1))
    """
    if size is not None and (isinstance(size, bool) or int(size) != size or size < 1):
        raise ValueError(f"size must be a whole number of pixels >= 1, got {size!r}")
    raw = _read(os.fspath(name_or_path), root, size)
    parts = dict(raw.parts)
    rng = np.random.default_rng(seed)
    if "all" in parts:
        x, y = parts["all"]
        rest, test = _split(y, _DIGITS_TEST, rng)
        parts = {"train": (x[rest], y[rest]), "test": (x[test], y[test])}
    if "validation" not in parts:
        x, y = parts["train"]
        held = _DIGITS_VALIDATION if "all" in raw.parts else max(1, len(y) // 10)
        rest, part = _split(y, held, rng)
        parts |= {"train": (x[rest], y[rest]), "validation": (x[part], y[part])}
    if size is not None:
        parts = {name: (_scaled(x, size, raw.name), y) for name, (x, y) in parts.items()}
    mean, deviation = _statistics(parts["train"][0])
    made = {}
    for name, (x, y) in parts.items():
        x = (x.astype(np.float32) - mean) / deviation
        made[name] = Data(x, np.asarray(y, np.int32), raw.classes, f"{raw.name} {name}")
    return Splits(made["train"], made["validation"], made["test"])


def _split(y: np.ndarray, held: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held out), the latter spread over the classes as evenly as the set is."""
    order = rng.permutation(len(y))
    ranked = order[np.argsort(y[order], kind="stable")]
    take = np.zeros(len(y), bool)
    take[ranked[(np.arange(held) * len(y) // held)]] = True
    return order[~take[order]], order[take[order]]


def _statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per channel, in float64 sums a slice at a time."""
    total, square, count = np.zeros(x.shape[-1]), np.zeros(x.shape[-1]), 0
    for at in range(0, len(x), 1024):
        part = x[at : at + 1024].astype(np.float64)
        total += part.sum((0, 1, 2))
        square += (part**2).sum((0, 1, 2))
        count += part[..., 0].size
    mean = total / count
    deviation = np.sqrt(np.maximum(square / count - mean**2, 0))
    return mean.astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)


def _scaled(x: np.ndarray, size: int, name: str) -> np.ndarray:
    """Rows and columns repeated, or averaged, by a whole factor."""
    n, h, w, c = x.shape
    if (h, w) == (size, size):
        return x
    if size % h == 0 and size % w == 0:
        return x.repeat(size // h, 1).repeat(size // w, 2)
    if h % size == 0 and w % size == 0:
        return x.reshape(n, size, h // size, size, w // size, c).mean((2, 4), dtype=np.float32)
    raise ValueError(f"{name}: images of {h} x {w} cannot be scaled to {size} x {size} by a whole factor")
