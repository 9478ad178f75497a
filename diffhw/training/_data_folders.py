"""Folders of images, laid out as ImageNet usually is: train/CLASS/*.jpg, val/CLASS/*.jpg."""

import os
from pathlib import Path

import numpy as np

from diffhw.training._data_raw import Raw

__all__ = ["is_image_folder", "read_image_folder"]

_SUFFIXES = (".jpg", ".jpeg", ".png")
_SHORT_SIDE = 256 / 224  # resized to this times the crop: the usual evaluation of ImageNet networks


def is_image_folder(folder: Path) -> bool:
    """Whether it has a train folder with a folder per class."""
    train = folder / "train"
    return train.is_dir() and any(child.is_dir() for child in train.iterdir())


def _files(split: Path, classes: list[str]) -> list[tuple[Path, int]]:
    found = []
    names = sorted(child.name for child in split.iterdir() if child.is_dir())
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise ValueError(f"{split / unknown[0]}: there is no class of this name in train")
    for name in names:
        images = sorted(p for p in (split / name).iterdir() if p.suffix.lower() in _SUFFIXES)
        found += [(path, classes.index(name)) for path in images]
    if not found:
        raise ValueError(f"{split}: no images found; they lie in {split.name}/CLASS/*.jpg or *.png")
    return found


def _image(path: Path, size: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ValueError(f"{path}: this image cannot be read ({error})") from error
    w, h = image.size
    short = max(size, round(size * _SHORT_SIDE))
    scale = short / min(w, h)
    w, h = max(size, round(w * scale)), max(size, round(h * scale))
    image = image.resize((w, h), Image.Resampling.BILINEAR)
    left, top = (w - size) // 2, (h - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)), np.uint8)


def read_image_folder(folder: Path, size: int) -> Raw:
    """All images in memory, the shorter side resized to 256/224 of size, the middle cropped to size.

    Classes are the folders of train, in the order of their names. Splits: train, val or validation, test.
    Raises ValueError naming the path for an unreadable image, a class that train does not have, a set that
    does not fit in memory, or a missing Pillow.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "images are read by Pillow, which is not installed: pip install 'diffhw[train]'"
        ) from error
    classes = sorted(child.name for child in (folder / "train").iterdir() if child.is_dir())
    places = {"train": folder / "train", "test": folder / "test"}
    for name in ("validation", "val"):
        if (folder / name).is_dir():
            places["validation"] = folder / name
    places = {name: place for name, place in places.items() if place.is_dir()}
    if "test" not in places:
        if "validation" not in places:
            raise ValueError(f"{folder}: a folder of images needs val/CLASS/*.jpg beside train/CLASS/*.jpg")
        places["test"] = places.pop("validation")
    listed = {name: _files(place, classes) for name, place in places.items()}
    _check_memory(folder, sum(map(len, listed.values())), size)
    parts = {}
    for name, files in listed.items():
        x = np.empty((len(files), size, size, 3), np.uint8)
        for i, (path, _) in enumerate(files):
            x[i] = _image(path, size)
        parts[name] = (x, np.array([label for _, label in files], np.int32))
    return Raw(folder.resolve().name, len(classes), parts)


def _check_memory(folder: Path, images: int, size: int) -> None:
    need = images * size * size * 3 * 5  # bytes, and the same as float32
    try:
        have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        return
    if need > have:
        raise ValueError(
            f"{folder}: {images} images of {size} x {size} need {need / 2**30:.0f} GiB of memory and this "
            f"machine has {have / 2**30:.0f}: give a smaller size= or a folder with fewer images"
        )
