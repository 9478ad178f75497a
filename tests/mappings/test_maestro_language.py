"""The directive language: reading, printing, and one sentence for everything that cannot be read."""

import csv
import pathlib

import pytest

from diffhw.mappings import Map, Program, Sz, check_pes, cluster, parse, read_programs, spatial, temporal

DATA = pathlib.Path(__file__).parents[1] / "data"
KCP = """
    SpatialMap(1,1) K; TemporalMap(64,64) C;  // a remark; TemporalMap(9,9) Q
    TemporalMap(Sz(R),Sz(R)) R; TemporalMap(Sz(S),Sz(S)) S;
    TemporalMap(Sz(R),1) Y; TemporalMap(Sz(S),1) X;
    Cluster(64, P);
    SpatialMap(1,1) C; TemporalMap(Sz(R),1) Y; TemporalMap(Sz(S),1) X;
    TemporalMap(Sz(R),Sz(R)) R; TemporalMap(Sz(S), Sz(S)) S
"""


def golden_texts():
    with (DATA / "maestro_golden.csv").open(newline="") as file:
        return sorted({row["directives"] for row in csv.DictReader(file)})


def test_the_well_known_one():
    program = parse(KCP, name="kcp")
    assert [len(level.maps) for level in program.levels] == [6, 5]
    assert [level.units for level in program.levels] == [None, 64]
    assert program.levels[0].maps[0] == Map("spatial", 1, 1, "K")
    assert program.levels[0].maps[4] == Map("temporal", Sz("R"), 1, "Y")
    assert program.name == "kcp"


def test_what_it_prints_reads_back_the_same():
    texts = golden_texts()
    assert len(texts) > 20
    for text in texts:
        program = parse(text)
        assert parse(str(program)) == program
        # and nothing of the text is lost: the words are the same
        assert str(program).replace("\n", " ").split() == text.split()


def test_constants_wrapping_and_separators():
    plain = parse("SpatialMap(2,2) K; TemporalMap(8,8) C; Cluster(4, L); SpatialMap(1,1) C")
    named = "Dataflow { SpatialMap(T,T)->K, TemporalMap:(8 8) C Cluster(N,P) SpatialMap(1 1) C }"
    assert parse(named, {"T": 2, "N": 4}) == plain


def test_programs_from_python():
    made = Program.create(
        spatial(1, 1, "K"), temporal(Sz("R"), Sz("R"), "R"), cluster(Sz("R")), spatial(1, 1, "R")
    )
    assert made == parse("SpatialMap(1,1) K; TemporalMap(Sz(R),Sz(R)) R; Cluster(Sz(R),P); SpatialMap(1,1) R")
    assert hash(made) == hash(parse(str(made)))
    with pytest.raises(ValueError, match="level 1: no SpatialMap in this level"):
        Program.create(temporal(1, 1, "K"))
    with pytest.raises(ValueError, match=r"program 'x': level 2, SpatialMap.* twice"):
        Program.create(spatial(1, 1, "K"), cluster(2), temporal(1, 1, "C"), spatial(1, 1, "C"), name="x")
    for wrong in (lambda: spatial(0, 1, "K"), lambda: temporal(1, 1.5, "K"), lambda: cluster(True)):
        with pytest.raises(ValueError, match="whole number >= 1"):
            wrong()
    with pytest.raises(ValueError, match="dimension must be one of"):
        spatial(1, 1, "Q")
    with pytest.raises(ValueError, match="Sz\\(Q\\), but dimensions are"):
        cluster(Sz("Q"))
    with pytest.raises(ValueError, match="made by temporal, spatial or cluster, got str"):
        Program.create("SpatialMap(1,1) K")


K = "SpatialMap(1,1) K; "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no directives"),
        ("TemporalMap(1,1) K;", "no SpatialMap in this level, which needs 1 or 2"),
        (K + "Cluster(4,P); TemporalMap(1,1) C", "no SpatialMap in this level"),
        (K + "SpatialMap(1,1) C; SpatialMap(1,1) N", "3 SpatialMaps in this level, which may have 1 or 2"),
        ("Cluster(4, P); " + K, "line 1, 'Cluster': no TemporalMap or SpatialMap before the first Cluster"),
        (K + "\nCluster(4, P);", "line 2, 'Cluster': no TemporalMap or SpatialMap inside this Cluster"),
        (K + "Cluster(2,P); Cluster(2,P); " + K, "no TemporalMap or SpatialMap inside this Cluster"),
        (K + ("Cluster(2,P); " + K) * 3, "4 levels of clusters, but at most 3"),
        (K + "TemporalMap(1,1) K", "K mapped twice in one level"),
        (K + "TemporalMap(3,1) Y; TemporalMap(1,1) Y'; TemporalMap(3,3) R", "Y and Y' mapped twice"),
        (K + "TemporalMap(1,1) Y'", "Y' counts outputs and needs a map over R in the same level"),
        (K + "TemporalMap(1,1) X'; TemporalMap(3,3) R", "needs a map over S"),
        (K + "TemporalMap(3,1) R", "TemporalMap over R must take all of it: Sz\\(R\\),Sz\\(R\\)"),
        (K + "TemporalMap(Sz(S),1) S", "TemporalMap over S must take all of it"),
        (K + "TemporalMap(1,1) M; TemporalMap(1,1) C", "C of a convolution beside M of a matrix product"),
        (K + "TemporalMap(1,1) y", "'y': no dimension .* did you mean Y\\?"),
        (K + "TemporalMap(1,1) Q", "no dimension .* allowed: N, K, C"),
        (K + "TemporalMap(Sz(Q),1) C", "'Q': no dimension \\(the dimension of Sz is expected"),
        (K + "\nTemporalMap(0,1) C", "line 2, '0': the size of TemporalMap must be >= 1"),
        (K + "TemporalMap(1,-1) C", "the offset of TemporalMap must be >= 1, got -1"),
        (K + "TemporalMap(1.5,1) C", "'1.5': the size of TemporalMap must be a whole number"),
        (K + "TemporalMap(CTile,1) C", "'CTile': .* whole number >= 1 or one of the constants T"),
        (K + "TemporalMap(8+Sz(S),1) X", "'8\\+Sz': .* without arithmetic"),
        (K + "TemporalMap(1,1)", "the dimension of TemporalMap is missing at the end"),
        (K + "TemporalMap(1", "the offset of TemporalMap is missing at the end"),
        (K + "temporalmap(1,1) C", "'temporalmap': no directive; did you mean TemporalMap\\?"),
        (K + "Cluster(8); " + K, "after the size of a Cluster stands P or L"),
        (K + "Cluster(0, P); " + K, "the size of Cluster must be >= 1"),
        ("Dataflow {" + K, "'{SpatialMap': a brace must stand alone"),
        ("Dataflow { " + K, "'}' is missing at the end of Dataflow"),
        ("Dataflow " + K, "'{' is missing after Dataflow"),
        ("Dataflow { " + K + "TemporalMap(1,1) C}", "'C}': a brace must stand alone"),
        ("Dataflow{ " + K + "}", "'Dataflow{': a brace must stand alone"),
        ("Dataflow { }", "no directives"),
    ],
)
def test_one_sentence_for_what_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse(text, {"T": 2}, source="kcp.m")
    assert str(caught.value).startswith("kcp.m") and "\n" not in str(caught.value)


def test_pes_of_the_clusters():
    program = parse("SpatialMap(1,1) K; Cluster(4,P); SpatialMap(1,1) C; Cluster(Sz(R),P); SpatialMap(1,1) R")
    assert check_pes(program, {"R": 3}, 12) == 12
    with pytest.raises(ValueError, match="clusters of 4 x 3 = 12 PEs do not fit in 11 PEs"):
        check_pes(program, {"R": 3}, 11)
    with pytest.raises(ValueError, match="Sz\\(R\\) is not a size of this layer"):
        check_pes(program, {"K": 3}, 16)
    assert check_pes(parse("SpatialMap(1,1) K"), {}, 1) == 1


LAYER = "Layer a { Type: CONV Dimensions { K: 8, C: 4, R: 3, S: 3, Y: 10, X: 10 } Dataflow { %s } }"


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "net.m"
        path.write_text(text)
        return path

    return write


def test_programs_of_a_network_file(file):
    path = file(
        "Constant Tile 4;\nNetwork x {\n"
        + LAYER % "SpatialMap(1,1) K; TemporalMap(Tile,Tile) C; TemporalMap(Sz(R),Sz(R)) S;"
        + "\nLayer g { Type: GEMM Dimensions { M: 4, N: 6, K: 8 } Dataflow { SpatialMap(1,1) N; } }\n}"
    )
    programs = read_programs(path)
    assert list(programs) == ["a", "g"]
    assert programs["a"] == parse(
        "SpatialMap(1,1) K; TemporalMap(4,4) C; TemporalMap(Sz(R),Sz(R)) S", name="a"
    )
    # M left out of a matrix product means all of it
    assert programs["g"].levels[0].maps[-1] == Map("temporal", Sz("M"), Sz("M"), "M")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAYER.replace("Dataflow { %s }", ""), "line 2, layer a: no Dataflow; write one in each layer"),
        (LAYER % "", "layer a: its Dataflow is empty"),
        (LAYER % (K + "TemporalMap(2,2) R"), "MAESTRO wants all 3 of R in a TemporalMap; write"),
        (LAYER % (K + "TemporalMap(Sz(C),Sz(C)) R"), "MAESTRO wants all 3 of R"),
        (LAYER % (K + "TemporalMap(1,1) M"), "CONV has no dimension M"),
        (LAYER % (K + "TemporalMap(1,1) K"), "line 2, 'TemporalMap': .*K mapped twice"),
        (
            "Layer g { Type: GEMM Dimensions { M: 4, N: 6, K: 8 } Dataflow { SpatialMap(1,1) C; } }",
            "GEMM has no dimension C",
        ),
    ],
)
def test_sentences_of_network_files(file, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_programs(file("Network x {\n" + text + "\n}"))
    assert "net.m" in str(caught.value) and "\n" not in str(caught.value)
