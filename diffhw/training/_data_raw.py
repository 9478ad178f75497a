"""What a reader of a data set returns, before splitting and standardising."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Raw", "checked_images"]


@dataclass(frozen=True)
class Raw:
    """name, classes; parts: (x, y) of "train", "test" and perhaps "validation", or of "all" alone."""

    name: str
    classes: int
    parts: dict[str, tuple[np.ndarray, np.ndarray]]


def checked_images(where: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images as (n, h, w, c), labels as (n,) int32. Raises ValueError naming ``where``."""
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"{where}: images must be (n, rows, columns[, channels]), got shape {x.shape}")
    if x.dtype.kind not in "fiu":
        raise ValueError(f"{where}: images must be numbers, got dtype {x.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ValueError(f"{where}: the images hold values that are not finite")
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (len(x),):
        raise ValueError(f"{where}: there must be one label per image, got {y.shape} for {len(x)} images")
    if y.dtype.kind not in "iu" or (len(y) and y.min() < 0):
        raise ValueError(f"{where}: labels must be whole numbers from 0 on, got dtype {y.dtype}")
    return x, y.astype(np.int32)
