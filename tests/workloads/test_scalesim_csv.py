"""SCALE-Sim topologies: tolerant reading, strict messages, writing and reading back."""

import pathlib

import pytest

from diffhw import workloads
from diffhw.workloads import Layer, Network, NetworkInfo, read_scalesim, write_scalesim

HEAD = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"


@pytest.fixture
def file(tmp_path):
    def write(text, name="net.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def fields(row, names):
    return [int(getattr(row, name)) for name in names.split()]


def test_convolutions(file):
    net = read_scalesim(file(f"{HEAD}\nconv1, 230, 230, 7, 7, 3, 64, 2,\nfc, 1, 1, 1, 1, 2048, 1000, 1,\n"))
    assert net.names == ("conv1", "fc")
    # E = ceil((H - f + s) / s): the last window overhangs by one row
    assert fields(net.rows()[0], "k c p q r s h w stride_h stride_w pad_top") == [
        *(64, 3, 113, 113, 7, 7, 230, 230, 2, 2, 0)
    ]
    assert net.summary()["macs"] == 113 * 113 * 147 * 64 + 2048 * 1000
    assert workloads.load(file(f"{HEAD}\nfc, 1, 1, 1, 1, 8, 10, 1,\n")).summary()["macs"] == 80


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD}\na, 8, 8, 3, 3, 4, 6, 1,\nb, 6, 6, 1, 1, 6, 2, 1,\n",
        f"{HEAD[:-1]}\na,8,8,3,3,4,6,1\nb,6,6,1,1,6,2,1",
        f"\ufeff{HEAD}\r\n\r\na, 8, 8, 3, 3, 4, 6, 1,\r\n,,,,,,,,\r\n  \r\nb, 6, 6, 1, 1, 6, 2, 1,\r\n\r\n",
        f"{HEAD} Eh, Ew,\na, 8, 8, 3, 3, 4, 6, 1, 6, 6,\nb, 6, 6, 1, 1, 6, 2, 1, 6, 6,\n",
        f"{HEAD} Stride W,\na, 8, 8, 3, 3, 4, 6, 1, 1,\nb, 6, 6, 1, 1, 6, 2, 1, 1,\n",
        f"{HEAD} Sparsity,\na, 8, 8, 3, 3, 4, 6, 1, 1:1,\nb, 6, 6, 1, 1, 6, 2, 1, ,\n",
        f"{HEAD}\na, 8, 8, 3, 3, 4, 6, 1,#dw\n# a remark\nb, 6, 6, 1, 1, 6, 2, 1\n",
        f"{HEAD[:-1]},,,Eh,Ew,e2\n,,,,,,,,,,,,\na,8,8,3,3,4,6,1,,,6,6,36\nb,6,6,1,1,6,2,1,,,,,\n",
        f"{HEAD[:-1]}\na, 8, 8, 3, 3, 4, 6, 1\nb, 6, 6, 1, 1, 6, 2, 1\n".replace(", ", "\t"),
    ],
    ids=["trailing", "plain", "bom-crlf-blank", "extra", "stride", "dense", "remarks", "shipped", "tabs"],
)
def test_dialects(file, text):
    net = read_scalesim(file(text))
    assert net.names == ("a", "b")
    assert net.summary()["macs"] == 36 * 36 * 6 + 36 * 12


def test_column_stride(file):
    row = "a, 9, 9, 3, 3, 4, 6, 2, 1,\n"
    for head in (f"{HEAD} Stride Width,", HEAD):
        layer = read_scalesim(file(f"{head}\n{row}")).rows()[0]
        assert fields(layer, "stride_h stride_w p q") == [2, 1, 4, 7]


def test_gemm(file):
    text = "Layer, M, N, K,\nq, 128, 768, 512,\n\nk, 128, 10, 64,\n"
    net = read_scalesim(file(text))
    assert fields(net.rows()[0], "p k c") == [128, 768, 512]
    assert net.summary()["macs"] == 128 * 768 * 512 + 128 * 640
    assert (
        read_scalesim(file(text.replace("M, N, K", "rows, cols, inner")), gemm=True).summary()
        == net.summary()
    )
    swapped = read_scalesim(file("Layer, M, K, N\nq, 128, 512, 768\n"))
    assert fields(swapped.rows()[0], "p k c") == [128, 768, 512]


def test_depthwise_by_name(file):
    net = read_scalesim(file(f"{HEAD}\nconv_DP1, 10, 10, 3, 3, 32, 1, 1,\n"))
    assert fields(net.rows()[0], "g k c p") == [32, 1, 1, 8]
    assert net.summary()["macs"] == 32 * 9 * 64
    assert any("depthwise" in note for note in net.info.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        (",,,,\n\n", "empty file"),
        (f"{HEAD}\n", "a header but no layers"),
        ("a, 8, 8, 3, 3, 4, 6, 1,\n", "line 1: header line missing"),
        (f"{HEAD}\n\na, 8, 8, x3, 3, 4, 6, 1,\n", "line 3, column 'Filter Height': 'x3' is not a number"),
        (
            f"{HEAD}\na, 8, 8, 3, 3, 0, 6, 1,\n",
            "line 2, column 'Channels': must be a whole number >= 1, got 0",
        ),
        (f"{HEAD}\na, 8, -8, 3, 3, 4, 6, 1,\n", "column 'IFMAP Width': must be a whole number >= 1, got -8"),
        (f"{HEAD}\na, 8, 8, 3, 3, 4, nan, 1,\n", "column 'Num Filter': must be a whole number >= 1, got nan"),
        (f"{HEAD}\na, 8, 8, 3, 3, 4, 6.5, 1,\n", "must be a whole number >= 1, got 6.5"),
        (f"{HEAD}\na, 8, 8, 3, 3, 4, inf, 1,\n", "must be a whole number >= 1, got inf"),
        (f"{HEAD}\na, 8, 8, 3, 3, 4, , 1,\n", "column 'Num Filter': '' is not a number"),
        (f"{HEAD}\na, 8, 8, 3, 3,\n", "line 2: 5 columns, missing Channels, Num Filter, Strides"),
        (f"{HEAD}\na, 2, 8, 5, 3, 4, 6, 1,\n", "line 2: the 5 x 3 filter does not fit the 2 x 8 input"),
        (f"{HEAD}\na, 8, 8, 3, 3, 4, 6, 1, 2:4,\n", "line 2, column '9': '2:4' is N:M sparsity"),
        (f"{HEAD} Sparsity,\na, 8, 8, 3, 3, 4, 6, 1, 2:4,\n", "column 'Sparsity': '2:4' is N:M sparsity"),
        ("Layer, M, N, K,\na, 8, 8, 3, 1:4\n", "N:M sparsity, which is not modelled"),
        ("Layer, M, N, K,\na, 8, 8\n", "missing K"),
    ],
)
def test_bad_files_are_one_sentence(file, text, message):
    path = file(text)
    with pytest.raises(ValueError) as error:
        read_scalesim(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_binary_files(file, tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_scalesim(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match="not a readable text file"):
        read_scalesim(file("é,\n", encoding="latin-1"))
    with pytest.raises(ValueError, match="not a readable text file"):
        read_scalesim(tmp_path)


@pytest.mark.parametrize(
    "name", ["resnet50", "alexnet", "mobilenet_v2", "shufflenet_v2", "unet", "bert_base", "llama3_8b_decode"]
)
def test_zoo_round_trip(tmp_path, name):
    net, path = workloads.load(name), tmp_path / f"{name}.csv"
    notes = write_scalesim(net, path)
    back = read_scalesim(path)
    assert back.summary()["macs"] == net.summary()["macs"]
    assert all(note.strip() and "\n" not in note for note in notes)
    if name == "mobilenet_v2":
        assert sum(name.endswith("_DP") for name in back.names) == 17
        assert back.summary()["params"] == net.summary()["params"] - float(net.other_params)
    if name == "bert_base":
        assert any("attention" in note for note in notes)


def test_round_trip_of_odd_layers(tmp_path):
    layers = [
        Layer.create(n=3, k=4, c=5, r=3, s=3, h=9, w=9, pad_top=1, pad_left=1),
        Layer.create(n=3, k=4, c=5, h=9, w=9, stride_h=2, stride_w=2),
        Layer.create(k=4, c=5, r=3, s=3, h=9, w=9, dilation_h=2, dilation_w=2),
        Layer.create(g=2, k=4, c=5, r=3, s=2, h=9, w=9, stride_h=2),
        Layer.create(g=6, c=1, k=2, r=3, s=3, h=9, w=9),
        Layer.gemm(7, 8, 9),
        Layer.create(k=2, c=2, r=3, s=3, h=8, w=8, p=4, q=4, stride_h=2, stride_w=2),
    ]
    names = ("batch, three", "points", "dilated", "grouped", "DPlike", "DP gemm", "overhang")
    net = Network.create(layers, counts=[1, 1, 1, 2, 1, 1, 1], info=NetworkInfo(names=names))
    notes = write_scalesim(net, tmp_path / "odd.csv")
    back = read_scalesim(tmp_path / "odd.csv")
    assert back.summary()["macs"] == net.summary()["macs"]
    assert len(notes) == 7
    assert "Strides Width" in (tmp_path / "odd.csv").read_text()
    assert back.names.count("overhang") == 1
    assert fields(back.rows()[-1], "h w p q") == [8, 8, 4, 4]  # written as it was: the tool overhangs too
    assert sum("DP" in name for name in back.names) == 1
    assert read_scalesim(tmp_path / "odd.csv").summary() == back.summary()


def test_writing_fails_in_one_sentence_and_leaves_nothing(tmp_path):
    net = Network.create([Layer.create(k=2.5, h=4, w=4)])
    with pytest.raises(ValueError, match="no whole numbers"):
        write_scalesim(net, tmp_path / "x.csv")
    net = Network.create([Layer.create(n=200_000, k=2, r=3, s=3, h=4, w=4)])
    with pytest.raises(ValueError, match="more than 100000 rows"):
        write_scalesim(net, tmp_path / "x.csv")
    with pytest.raises(ValueError, match="cannot be written"):
        write_scalesim(Network.create([Layer.create(h=4, w=4)]), tmp_path / "absent" / "x.csv")
    assert list(tmp_path.iterdir()) == []


def test_load_refuses_a_batch(file):
    path = file(f"{HEAD}\na, 8, 8, 3, 3, 4, 6, 1,\n")
    assert workloads.load(pathlib.Path(path)).size == 1
    with pytest.raises(ValueError, match="has no batch"):
        workloads.load(path, batch=2)
