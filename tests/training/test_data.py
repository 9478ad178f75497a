"""Every reader on small files in the true format, written here; what is said when they are not right."""

import pickle
import struct
from typing import ClassVar

import numpy as np
import pytest

from diffhw.training import Data, joined, load
from diffhw.training._data import _split

RNG = np.random.default_rng(0)


def test_digits():
    data = load()
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [1100, 337, 360]
    assert all(part.x.dtype == np.float32 and part.y.dtype == np.int32 for part in parts)
    assert abs(data.train.x.mean()) < 1e-5 and abs(data.train.x.std() - 1) < 1e-5
    rows = {row.tobytes() for part in parts for row in part.x}
    assert len(rows) >= 1795  # nothing in two splits (a few digits are equal)
    for part in parts:
        assert np.bincount(part.y).min() > 0.08 * len(part)
    again, other = load("digits"), load("digits", seed=1)
    assert np.array_equal(again.test.x, data.test.x) and not np.array_equal(other.test.y, data.test.y)
    both = joined(data.train, data.validation)
    assert len(both) == 1437 and both.name == "digits train + digits validation"
    assert both.standard_error(0.5) == pytest.approx(0.0132, abs=1e-4)


def test_size_by_whole_factors():
    assert load("digits", size=16).train.input_shape == (16, 16, 1)
    assert load("digits", size=4).test.input_shape == (4, 4, 1)
    with pytest.raises(ValueError, match="8 x 8 cannot be scaled to 12 x 12"):
        load("digits", size=12)
    with pytest.raises(ValueError, match="size must be"):
        load("digits", size=0)


def test_split_keeps_the_classes_in_proportion():
    y = np.repeat(np.arange(4), 100)
    kept, held = _split(y, 40, np.random.default_rng(0))
    assert sorted([*kept, *held]) == list(range(400))
    assert np.bincount(y[held]).tolist() == [10, 10, 10, 10]


# --- CIFAR-10 -------------------------------------------------------------------------------------------


class Python2Pickler(pickle._Pickler):
    """Writes what the published files hold: protocol 2, byte strings, numpy under its old name."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, obj):
        self.write(b"T" + struct.pack("<i", len(obj)) + obj)
        self.memoize(obj)

    dispatch[bytes] = save_bytes

    def save_global(self, obj, name=None):
        name = getattr(obj, "__qualname__", obj.__name__)
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name}\n".encode())
        self.memoize(obj)

    dispatch[type(np.ndarray.__reduce__)] = save_global
    dispatch[type(np.zeros(0).__reduce__()[0])] = save_global
    dispatch[type] = save_global


def cifar_rows(n):
    return RNG.integers(0, 256, (n, 3072), dtype=np.uint8), np.arange(n) % 10


def write_python(folder, n=12):
    folder.mkdir(parents=True)
    written = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        x, y = cifar_rows(n)
        batch = {
            b"batch_label": b"some batch",
            b"labels": y.tolist(),
            b"data": x,
            b"filenames": [b"a.png"] * n,
        }
        with open(folder / name, "wb") as file:
            Python2Pickler(file, 2).dump(batch)
        written[name] = (x, y)
    return written


def test_cifar_python(tmp_path):
    written = write_python(tmp_path / "cifar-10-batches-py")
    raw = (tmp_path / "cifar-10-batches-py" / "test_batch").read_bytes()
    assert b"numpy.core.multiarray" in raw and b"_codecs" not in raw
    data = load("cifar10", root=tmp_path)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [54, 6, 12]
    x, y = written["test_batch"]
    assert np.array_equal(data.test.y, y)
    # Row-major colour planes: the pixel (row 3, column 5) of green is byte 1024 + 3 * 32 + 5.
    byte = x[:, 1024 + 3 * 32 + 5].astype(np.float64)
    value = data.test.x[:, 3, 5, 1].astype(np.float64)
    assert abs(np.corrcoef(byte, value)[0, 1] - 1) < 1e-6
    same = load(tmp_path / "cifar-10-batches-py")
    assert np.array_equal(same.train.x, data.train.x)


def test_cifar_binary(tmp_path):
    train = []
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        x, y = cifar_rows(4)
        np.concatenate([y[:, None].astype(np.uint8), x], 1).tofile(tmp_path / f"{name}.bin")
        train.append(y)
    data = load(tmp_path)
    assert len(data.train) + len(data.validation) == 20 and data.train.input_shape == (32, 32, 3)
    assert np.array_equal(data.test.y, train[-1])
    (tmp_path / "data_batch_3.bin").write_bytes(b"12345")
    with pytest.raises(ValueError, match=r"data_batch_3\.bin: .*3073 bytes per image, got 5"):
        load(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"data_batch_3\.bin: this batch is missing"):
        load(tmp_path)


def test_a_pickle_may_not_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("the pickle ran code",))

    write_python(tmp_path / "c", 2)
    (tmp_path / "c" / "data_batch_2").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}, 2))
    with pytest.raises(ValueError, match=r"data_batch_2.*wants \w+\.print, and only numpy arrays"):
        load(tmp_path / "c")
    (tmp_path / "c" / "data_batch_2").write_bytes(pickle.dumps({b"data": np.zeros(3)}, 2))
    with pytest.raises(ValueError, match="it has no b'labels'"):
        load(tmp_path / "c")


# --- folders of images ----------------------------------------------------------------------------------


def write_images(folder, classes=("cat", "dog"), n=10, suffix="png", shape=(20, 30)):
    from PIL import Image

    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = RNG.integers(0, 100, (*shape, 3), dtype=np.uint8) + np.uint8(100 * c)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.{suffix}")


def test_image_folders(tmp_path):
    write_images(tmp_path / "train", n=10)
    write_images(tmp_path / "val", n=4, suffix="jpg", shape=(40, 16))
    data = load(tmp_path, size=8)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [18, 2, 8]
    assert data.train.input_shape == (8, 8, 3) and data.train.classes == 2
    means = data.test.x.mean((1, 2, 3))
    assert means[data.test.y == 0].max() < means[data.test.y == 1].min()
    write_images(tmp_path / "test", n=3)
    data = load("imagenet", root=tmp_path, size=8)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [20, 8, 6]
    (tmp_path / "val" / "cat" / "000.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"000\.jpg: this image cannot be read"):
        load(tmp_path, size=8)


def test_image_folders_that_are_not_right(tmp_path):
    write_images(tmp_path / "train", n=1)
    with pytest.raises(ValueError, match="needs val/CLASS"):
        load(tmp_path, size=8)
    write_images(tmp_path / "val", classes=("cow",), n=1)
    with pytest.raises(ValueError, match="cow: there is no class of this name in train"):
        load(tmp_path, size=8)
    with pytest.raises(ValueError, match="GiB of memory"):
        from diffhw.training._data_folders import _check_memory

        _check_memory(tmp_path, 10**9, 224)


def test_center_crop(tmp_path):
    from PIL import Image

    from diffhw.training._data_folders import _image

    pixels = np.zeros((224, 448, 3), np.uint8)
    pixels[:, 112:336] = 255  # the middle square
    Image.fromarray(pixels).save(tmp_path / "a.png")
    got = _image(tmp_path / "a.png", 56)
    assert got.shape == (56, 56, 3) and got.min() > 250


# --- npz -------------------------------------------------------------------------------------------------


def test_npz(tmp_path):
    x, y = RNG.normal(size=(30, 6, 6)), np.arange(30) % 3
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    data = load(tmp_path / "a.npz")
    assert [len(p) for p in (data.train, data.validation, data.test)] == [27, 3, 5]
    assert data.train.input_shape == (6, 6, 1) and data.train.classes == 3
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_val=x, y_val=y, x_test=x, y_test=y[:, None])
    assert len(load("b.npz", root=tmp_path).validation) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(x_test=None), "has no x_test; an .npz data set holds x_train"),
        (dict(y_train=np.zeros(3, int)), "x_train: there must be one label per image"),
        (dict(y_train=np.full(30, -1)), "labels must be whole numbers from 0"),
        (dict(x_train=np.full((30, 6, 6), np.nan)), "not finite"),
        (dict(x_test=np.zeros((5, 4, 4))), "images of one shape"),
        (dict(x_val=np.zeros((5, 6, 6))), "has no y_val"),
        (dict(x_train=np.array(["a"] * 30)), r"images must be \(n, rows"),
    ],
)
def test_npz_that_is_not_right(tmp_path, change, message):
    x, y = np.zeros((30, 6, 6)), np.arange(30) % 3
    arrays = dict(x_train=x, y_train=y, x_test=x[:5], y_test=y[:5]) | change
    np.savez(tmp_path / "a.npz", **{name: a for name, a in arrays.items() if a is not None})
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "a.npz")


def test_paths_that_are_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    cases = [
        (("digit",), {}, "did you mean 'digits'"),
        (("cifar10",), {}, r"needs root=.*data_batch_1 to data_batch_5.*www\.cs\.toronto\.edu"),
        (("cifar10",), dict(root=tmp_path / "no"), "no such folder; cifar10 is a folder with"),
        (("imagenet",), dict(root=tmp_path / "empty"), "does not have the files expected.*image-net.org"),
        ((tmp_path / "empty",), {}, "no data set was recognised there"),
        ((tmp_path / "no.npz",), {}, r"no\.npz: there is no such file; an .npz data set holds"),
        ((tmp_path / "bad.npz",), {}, "no .npz file of plain arrays"),
        ((tmp_path / "no" / "folder",), {}, "there is no such path; give an existing"),
    ]
    for args, options, message in cases:
        with pytest.raises(ValueError, match=message):
            load(*args, **options)


def test_digits_without_scikit_learn(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'diffhw\[train\]'"):
        load("digits")


def test_data_knows_its_shape():
    data = Data(np.zeros((3, 2, 4, 1), np.float32), np.zeros(3, np.int32), 2, "x")
    assert data.input_shape == (2, 4, 1) and len(data) == 3
