"""Data sets as one .npz file."""

import zipfile
from pathlib import Path

import numpy as np

from diffhw.training._data_raw import Raw, checked_images

__all__ = ["read_npz"]

_LAYOUT = "x_train, y_train, x_test, y_test, and perhaps x_val and y_val"


def read_npz(path: Path) -> Raw:
    """Arrays x_* of (n, rows, columns[, channels]) and y_* of (n,). Raises ValueError naming the file."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; an .npz data set holds {_LAYOUT} (numpy.savez)")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: this is no .npz file of plain arrays ({error})") from error
    missing = [name for name in ("x_train", "y_train", "x_test", "y_test") if name not in arrays]
    missing += [other for name, other in (("x_val", "y_val"), ("y_val", "x_val"))
                if name in arrays and other not in arrays]  # fmt: skip
    if missing:
        raise ValueError(f"{path} has no {missing[0]}; an .npz data set holds {_LAYOUT}")
    parts = {}
    for name, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        if f"x_{key}" in arrays:
            where = f"{path}: x_{key}"
            parts[name] = checked_images(where, arrays[f"x_{key}"], arrays[f"y_{key}"])
    shapes = {x.shape[1:] for x, _ in parts.values()}
    if len(shapes) > 1:
        raise ValueError(f"{path}: all splits must have images of one shape, got {sorted(shapes)}")
    classes = 1 + max(int(y.max()) for _, y in parts.values())
    return Raw(path.stem, classes, parts)
