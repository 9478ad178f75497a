"""MAESTRO's network files and the CSV files of its searchers: reading, and one sentence where not."""

import numpy as np
import pytest

from diffhw import workloads
from diffhw.workloads import read_maestro

GOOD = """// first line
Constant Filters 16;
Accelerator { PE { NumPEs 256 } Buffer{ L1 { Size: 2 } } }
Network torchvision.small-net {
  Layer Conv2d-1 { // stem
    Type: CONV
    Stride { X: 1, Y: 2 }
    Dimensions { N 4, K Filters, C 3, R 3, S 5, Y 227, X 30 }
    Dataflow {
      SpatialMap(1,1) K; // not looked at by the reader of networks
    }
  }
  Layer DW { Type: DSCONV Dimensions { K: 1, C: 32, R: 3, S: 3, Y': 7, X': 8 } }
  Layer FC { Type: GEMM; Dimensions { M: 4, N: 1000, K: 512; } }
  Layer { Type -> CONV Dimensions { K: 8, C: 8, R: 1, S: 1, Y: 5, X: 5 } }
  Layer DW { Type: CONV Dimensions { K: 8, C: 8, R: 1, S: 1, Y: 5, X: 5 } }
}
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name="net.m"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def fields(row, names):
    return [int(getattr(row, name)) for name in names.split()]


def test_layers(file):
    net = workloads.load(file(GOOD))
    assert net.names == ("Conv2d-1", "DW", "FC", "layer3", "DW#2")
    conv, depthwise, gemm, *_ = net.rows()
    # 227 rows in steps of two
    assert fields(conv, "n g k c p q r s h w stride_h stride_w pad_top") == [
        *(4, 1, 16, 3, 113, 26, 3, 5, 227, 30, 2, 1, 0)
    ]
    assert fields(depthwise, "n g k c p q h w") == [1, 32, 1, 1, 7, 8, 9, 10]
    assert fields(gemm, "p q c k r s") == [4, 1, 512, 1000, 1, 1]
    assert net.info.source == "MAESTRO network net.m" and "padding" in net.info.notes[0]
    assert net.info.edges == ((0, 1), (1, 2), (2, 3), (3, 4))


def test_comments_start_where_words_start(file):
    text = "Network x { //Layer y {\n Layer a//b { Type: CONV// Dimensions { K 1 } \n Dimensions { K 1 } } }"
    with pytest.raises(ValueError, match="'Dimensions': twice in layer a//b"):
        read_maestro(file(text))
    with pytest.raises(ValueError, match="layer a//b: unknown type 'CONV//'; did you mean CONV"):
        read_maestro(file(text.replace("// Dim", "// //Dim")))


ONE = "Layer a { Type: CONV Dimensions { K: 8, C: 4, R: 3, S: 3, Y: 10, X: 10 } }"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no layers, expected Network"),
        ("Network x { }", "no layers"),
        ("Netwrok x { " + ONE + " }", "line 1, 'Netwrok': did you mean Network\\?"),
        ("Network x {\n" + ONE, "end of file: '}' at the end of Network is missing"),
        ("Network x {\n" + ONE[:-2], "end of file: '}' at the end of layer a is missing"),
        ("Network x{ " + ONE + "}", "'x{': a brace must stand alone"),
        ("Network x {\nLayer a-b Type: CONV { } }", "line 2, 'Type': expected '{' after Layer a b"),
        ("Network x { " + ONE + " } }", "'}': closes nothing; there is one brace too many"),
        ("Network x {\n" + ONE.replace("{ K", "{K") + " }", "line 2, '{K': a brace must stand alone"),
        ("Network x { Lyer a { } }", "'Lyer': only Layer may stand in a Network"),
        ("Network x { " + ONE.replace("Type", "Typ") + " }", "'Typ': no section .*did you mean Type\\?"),
        ("Network x { " + ONE.replace("Type: CONV", "") + " }", "'Layer': layer a has no Type"),
        ("Network x { Layer a { Type: CONV } }", "layer a has no Dimensions"),
        (
            "Network x { " + ONE.replace("} }", "} Stride { X 1 } }") + " }",
            "'Stride': must stand before Dimensions \\(order: Type, Stride, Dimensions, Dataflow\\)",
        ),
        ("Network x { " + ONE.replace("Type", "Type: CONV Type") + " }", "'Type': twice in layer a"),
        ("Network x { " + ONE.replace("K:", "k:") + " }", "'k': unknown dimension .* did you mean K\\?"),
        ("Network x { " + ONE.replace("C:", "K:") + " }", "'K': twice in Dimensions"),
        ("Network x { " + ONE.replace("8", "0") + " }", "'0': size of K must be >= 1"),
        ("Network x { " + ONE.replace("8", "-8") + " }", "size of K must be >= 1, got -8"),
        ("Network x { " + ONE.replace("8", "Kt") + " }", "'Kt': size of K must be a whole number"),
        ("Network x { " + ONE.replace("8,", "}") + " }", "'}': size of K is missing before the brace"),
        ("Network x { " + ONE.replace("C: 4,", "") + " }", "Dimensions lack C; CONV needs K, C, R, S, Y, X"),
        ("Network x { " + ONE.replace("C: 4", "C: 4 M: 2") + " }", "M is no dimension of CONV"),
        ("Network x { " + ONE.replace("C: 4", "C: 4 G: 2") + " }", "G groups are not read in CONV"),
        (
            "Network x { " + ONE.replace("C: 4", "C: 4 Y': 2") + " }",
            "Y \\(input\\) or Y' \\(output\\), not both",
        ),
        (
            "Network x { " + ONE.replace("R: 3", "R: 11") + " }",
            "11 x 3 filter does not fit the 10 x 10 input",
        ),
        ("Network x { " + ONE.replace("CONV", "DSCONV") + " }", "K = 8 filters per channel, DSCONV has one"),
        ("Network x { " + ONE.replace("CONV", "CNV") + " }", "unknown type 'CNV'; did you mean CONV\\?"),
        *(
            (
                "Network x { " + ONE.replace("CONV", kind) + " }",
                f"line 1, layer a: type {kind} is not read: {use}",
            )
            for kind, use in (
                ("TRCONV", "MAESTRO costs it as CONV"),
                ("NGCONV", "MAESTRO couples its channels wrongly; write DSCONV"),
                ("FC", "write GEMM"),
                ("LSTM", "write one GEMM"),
                ("POOL", "it has no MACs"),
            )
        ),
        ("Constant T", "constant T is missing"),
        ("Constant T 0", "constant T must be >= 1"),
        ("Accelerator { PE { }", "'}' at the end of Accelerator is missing"),
        ("Network x { " + ONE[:-1] + "Dataflow { SpatialMap(1,1) K", "'}' at the end of Dataflow is missing"),
        ("Network x { " + ONE[:-1] + "Dataflow { SpatialMap(1,1) K} } }", "'K}': a brace must stand alone"),
    ],
)
def test_one_sentence_for_what_cannot_be_read(file, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        workloads.load(file(text))
    assert "net.m" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_maestro(tmp_path / "x.m")
    with pytest.raises(ValueError, match="no such file"):
        workloads.load(tmp_path / "x.m")
    (tmp_path / "b.m").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a readable text file"):
        read_maestro(tmp_path / "b.m")


def test_a_batch_is_in_the_file(file):
    with pytest.raises(ValueError, match="batch must be 1, got 2"):
        workloads.load(file(GOOD), batch=2)


CSV = "K,C,Y,X,R,S,T\n"


def test_files_of_the_searchers(file):
    net = workloads.load(
        file(CSV + "64,32,56,56,3,3,1\n1,96,114,114,3,3,2\n128,2048,4096,1,1,1,3\n\n", "m.csv")
    )
    conv, depthwise, gemm = net.rows()
    assert fields(conv, "k c p q h w") == [64, 32, 54, 54, 56, 56]
    assert fields(depthwise, "g k c p q") == [96, 1, 1, 112, 112]
    assert fields(gemm, "p c k q") == [128, 4096, 2048, 1]
    assert net.info.source == "searcher's model file m.csv"
    assert np.asarray(net.mask).sum() == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "a header but no layers"),
        ("1,2,3", "line 2: 3 columns, expected K,C,Y,X,R,S,T"),
        ("64,32,56,56,3,3,1\n64,32,x,56,3,3,1", "line 3, column 'Y': must be a whole number >= 1, got 'x'"),
        ("64,32,56,0,3,3,1", "column 'X': must be a whole number >= 1, got '0'"),
        ("64,32,56,56,3,3,7", "column 'T': must be 1 \\(CONV\\), 2 \\(DSCONV\\) or 3 \\(GEMM\\), got 7"),
        ("64,32,56,56,3,3,4", "type FC is not read: write GEMM"),
        ("64,32,2,2,3,3,1", "the 3 x 3 filter does not fit the 2 x 2 input"),
    ],
)
def test_one_sentence_for_csv(file, body, message):
    with pytest.raises(ValueError, match=message):
        workloads.load(file(CSV + body, "m.csv"))
    with pytest.raises(ValueError, match="batch must be 1"):
        workloads.load(file(CSV + body, "m.csv"), batch=2)
