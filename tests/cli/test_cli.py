"""The command line: one sentence and code 2 for every mistake, whole files or none, quick help."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from diffhw import recipes, report, validation
from diffhw._cli import _codesign, _files
from diffhw._cli._parser import parse
from diffhw.cli import main

HERE = pathlib.Path(__file__).parent
_spec = importlib.util.spec_from_file_location("fake_result_cli", HERE.parent / "report" / "fake_result.py")
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

TWO_M = """Network two {
  Layer one {
    Type: CONV
    Dimensions { K: 64, C: 32, R: 3, S: 3, Y: 16, X: 16 }
    Dataflow { SpatialMap(1,1) K; TemporalMap(16,16) C; Cluster(16, P); SpatialMap(1,1) C; }
  }
  Layer other {
    Type: CONV
    Dimensions { K: 64, C: 32, R: 3, S: 3, Y: 16, X: 16 }
    Dataflow { SpatialMap(1,1) C; TemporalMap(16,16) K; Cluster(16, P); SpatialMap(1,1) K; }
  }
}
"""

FILES = ["design.cfg", "design.yaml", "layers.csv", "pareto.png", "report.html", "result.json"]


@pytest.fixture
def faked(monkeypatch, tmp_path):
    """`recipes.codesign` answers at once; the working folder is empty."""
    monkeypatch.setattr(recipes, "codesign", lambda *args, progress=None, **more: fake.make())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Without the drawing, which other tests look at."""
    monkeypatch.setattr(report, "html", lambda result, command: command)
    monkeypatch.setattr(
        report, "pareto", lambda result: SimpleNamespace(savefig=lambda path, dpi: path.touch())
    )


# ---- Help -------------------------------------------------------------------------------------------


def test_help_and_version_import_neither_jax_nor_flax():
    code = (
        "import sys, diffhw.cli as c\n"
        "for words in (['--help'], ['codesign', '--help'], ['--version'], ['cdesign']): c.main(words)\n"
        "heavy = {'jax', 'flax', 'numpy', 'rich', 'matplotlib', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--per-layer-dataflow" in done.stdout and "diffhw 0." in done.stdout
    assert done.stderr.count("\n") == 1


def test_python_dash_m_works():
    done = subprocess.run([sys.executable, "-m", "diffhw", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("diffhw ")


def test_defaults_are_those_of_the_issue():
    args = vars(parse(["codesign", "alexnet"]))
    assert (args["objective"], args["bits"], args["batch"], args["node_nm"]) == ("edp", 8, 1, 22.0)
    assert (args["freq_mhz"], args["dram"], args["seed"], args["out"]) == (1000.0, "auto", 0, "diffhw-out")
    assert args["area_mm2"] is None and not args["no_certify"] and not args["debug"]


# ---- Mistakes ---------------------------------------------------------------------------------------

MISTAKES = [
    ([], "required: COMMAND"),
    (["codesing"], "did you mean 'codesign'"),
    (["codesign"], "required: NETWORK"),
    (["codesign", "mobilenet_v9"], "mobilenet_v"),
    (["codesign", "nope.csv"], "nope.csv"),
    (["codesign", "empty.csv"], "empty.csv"),
    (["codesign", "alexnet", "--objective", "epd"], "did you mean 'edp'"),
    (["codesign", "alexnet", "--aera-mm2", "4"], "did you mean '--area-mm2'"),
    (["codesign", "alexnet", "--area-mm2", "-4"], "--area-mm2: must be a finite number > 0, got -4"),
    (["codesign", "alexnet", "--area-mm2", "0"], "> 0, got 0"),
    (["codesign", "alexnet", "--power-w", "nan"], "> 0, got nan"),
    (["codesign", "alexnet", "--latency-ms", "inf"], "> 0, got inf"),
    (["codesign", "alexnet", "--area-mm2", "large"], "needs a number, got 'large'"),
    (["codesign", "alexnet", "--bits", "2.5"], "whole number from 1 to 64, got 2.5"),
    (["codesign", "alexnet", "--batch", "0"], "whole number >= 1, got 0"),
    (["codesign", "alexnet", "--seed", "-1"], "whole number from 0"),
    (["codesign", "alexnet", "--node-nm", "1000"], "node_nm"),
    (["codesign", "alexnet", "--dram", "HBM"], "HBM2"),
    (["codesign", "alexnet", "--hardware", "eyeris"], "eyeriss"),
    (["codesign", "alexnet", "--out", "empty.csv"], "is a file"),
    (["codesign", "alexnet", "--out", "empty.csv/below"], "cannot be made"),
    (["codesign", "alexnet", "--out", ""], "--out needs the name of a folder"),
    (["cost", "alexnet"], "one of --hardware"),
    (["cost", "alexnet", "--hardware", "edge", "--design", "x"], "one of --hardware"),
    (["cost", "alexnet", "--hardware", "egde"], "did you mean 'edge'"),
    (["cost", "alexnet", "--hardware", "edge", "--mapping", "sw"], "must be one of os, ws, is, best"),
    (["cost", "alexnet", "--hardware", "edge", "--dataflow", "kpc_ws"], "did you mean 'kcp_ws'"),
    (["cost", "alexnet", "--hardware", "edge", "--dataflow", "nope.m"], "nope.m: no such file"),
    (["cost", "alexnet", "--hardware", "edge", "--dataflow", "best", "--mapping", "ws"], "not both"),
    (["cost", "alexnet", "--hardware", "edge", "--dataflow", "gemm_nmk"], "layer conv1: style 'gemm_nmk'"),
    (["cost", "alexnet", "--hardware", "edge", "--dataflow", "two.m"], "none for layer 'conv1' of alexnet"),
    (["cost", "two.m", "--hardware", "edge", "--batch", "2"], "no batch"),
    (["cost", "alexnet", "--hardware", "edge", "--plots", "x"], "give --dataflow as well"),
    (
        ["cost", "alexnet", "--hardware", "edge", "--dataflow", "best", "--plots", "empty.csv"],
        "--plots empty.csv",
    ),
    (["cost", "alexnet", "--design", "nope.yaml"], "nope.yaml"),
    (["cost", "alexnet", "--design", "broken.yaml"], "broken.yaml"),
    (["networks", "alexnett"], "alexnet"),
    (["hardware", "nope.cfg"], "nope.cfg"),
    (["validate", "scalesmi", "x.csv"], "did you mean 'scalesim'"),
    (["validate", "scalesim", "nope.csv"], "nope.csv"),
    (["validate", "scalesim", "empty.csv"], "empty.csv"),
    (["validate", "scalesim", "x.csv", "--require", "2"], "from 0 to 1, got 2"),
    (["validate", "scalesim", "x.csv", "--dtype", "float16"], "float32, float64"),
]


@pytest.mark.parametrize("words, part", MISTAKES, ids=[" ".join(words) or "nothing" for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_code_2(words, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "broken.yaml").write_text("hardware: [1,\n")
    (tmp_path / "two.m").write_text(TWO_M)
    monkeypatch.setattr(recipes, "codesign", lambda *args, **more: pytest.fail("work was begun"))
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("diffhw: error: ") and err.count("\n") == 1, err
    assert part in err and "Traceback" not in err
    assert sorted(os.listdir(tmp_path)) == ["broken.yaml", "empty.csv", "two.m"]


def test_an_error_of_ours_is_short_unless_debugging(monkeypatch, capsys):
    def broken(*args, **more):
        raise KeyError("lost")

    monkeypatch.setattr(_codesign, "_check", broken)
    assert main(["codesign", "alexnet"]) == 70
    assert "internal" in capsys.readouterr().err
    with pytest.raises(KeyError):
        main(["codesign", "alexnet", "--debug"])


def test_interrupt_is_130_and_one_line(monkeypatch, capsys):
    def interrupted(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(_codesign, "_check", interrupted)
    assert main(["codesign", "alexnet"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(monkeypatch):
    class Gone:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            pass

        def isatty(self):
            return False

        def fileno(self):
            raise OSError

    monkeypatch.setattr(sys, "stdout", Gone())
    assert main(["hardware", "edge"]) == 141
    sys.stdout.close()


# ---- codesign ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_codesign_writes_all_files_and_prints_the_tables(faked, capsys):
    assert main(["codesign", "alexnet", "--area-mm2", "3", "--out", "a/b"]) == 0
    out, _ = capsys.readouterr()
    assert sorted(os.listdir("a/b")) == FILES and os.listdir("a") == ["b"]
    for words in (
        "rival",
        "over area",
        "gap to the optimum 1.230 %",
        "why this design",
        "where the energy goes",
    ):
        assert words in out
    document = json.loads((faked / "a/b/result.json").read_text())
    assert document["command"] == "diffhw codesign alexnet --area-mm2 3 --out a/b"
    assert recipes.read_design("a/b/design.yaml").dataflow == "ws"
    assert (faked / "a/b/pareto.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_all_that_stands_on_standard_output(faked, quick, capsys):
    assert main(["codesign", "alexnet", "--json"]) == 0
    out, _ = capsys.readouterr()
    assert out == (faked / "diffhw-out" / "result.json").read_text()
    assert json.loads(out)["optimality_gap"] == 0.0123


def test_a_budget_no_design_meets(faked, monkeypatch, capsys):
    result = replace(fake.make(), feasible=False, limits={"area_mm2": 0.5, "power_w": 1e3})
    monkeypatch.setattr(recipes, "codesign", lambda *args, **more: result)
    assert main(["codesign", "alexnet", "--area-mm2", "0.5"]) == 2
    out, err = capsys.readouterr()
    assert "area binds" in err and "--area-mm2 allows 0.5000 mm2" in err and "% over" in err
    assert out == "" and os.listdir(faked) == []


@pytest.mark.parametrize("when", ["writing", "moving"])
def test_a_kill_leaves_whole_files(when, tmp_path, monkeypatch):
    out = tmp_path / "out"
    _files.write_all(out, {"a": lambda p: p.write_text("old a"), "b": lambda p: p.write_text("old b")})
    real, moved = os.replace, []

    def killed(*args):
        raise KeyboardInterrupt

    def move_one(source, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        real(source, target)

    if when == "moving":
        monkeypatch.setattr(os, "replace", move_one)
    second = killed if when == "writing" else lambda p: p.write_text("new b")
    with pytest.raises(KeyboardInterrupt):
        _files.write_all(out, {"a": lambda p: p.write_text("new a"), "b": second})
    texts = {name: (out / name).read_text() for name in os.listdir(out)}
    assert texts == {"a": "old a" if when == "writing" else "new a", "b": "old b"}
    assert os.listdir(tmp_path) == ["out"]


def test_progress_writes_lines_to_standard_error_only(capsys):
    from diffhw._cli._progress import Progress

    with Progress("J s") as progress:
        for done in range(5):
            progress("search", done, 5, 1e-6 if done else None)
        progress("certificate", 1, 2, float("inf"))
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 2 and "searching" in err and "certifying" in err


# ---- The other commands -----------------------------------------------------------------------------


@pytest.mark.slow
def test_cost_of_a_design_file_is_the_cost_that_was_found(faked, quick, monkeypatch, capsys):
    assert main(["codesign", "alexnet"]) == 0
    capsys.readouterr()
    from diffhw import workloads

    monkeypatch.setattr(workloads, "load", lambda source, batch=1: fake.network())
    assert main(["cost", "tiny", "--design", "diffhw-out/design.yaml", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = json.loads(pathlib.Path("diffhw-out/result.json").read_text())["figures"]
    assert {key: document[key] for key in found} == found
    assert document["mapping"] == "ws" and len(document["layers"]) == 3


@pytest.mark.slow
def test_cost_under_the_dataflows_of_a_file(tmp_path, monkeypatch, capsys):
    """A .m network brings its own; like layers with unlike dataflows stay apart; pictures are written whole."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.m").write_text(TWO_M)
    assert main(["cost", "two.m", "--hardware", "edge", "--plots", "plots"]) == 0
    out = capsys.readouterr().out
    assert "two on edge, dataflow two.m" in out and "L2 (shared)" in out and "roofline" in out
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == ["breakdown.png", "dataflow_one.png", "dataflow_other.png", "loop_nests.txt"]
    assert "spatial over 16 clusters" in (tmp_path / "plots" / "loop_nests.txt").read_text()
    assert main(["cost", "two.m", "--hardware", "edge", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    one, other = document["layers"]
    assert one["macs"] == other["macs"] and one["energy_j"] < other["energy_j"]
    assert document["programs"]["other"].startswith("SpatialMap(1,1) C;") and document["feasible"] is True


@pytest.mark.slow
def test_cost_under_the_best_style_per_layer(monkeypatch, capsys):
    from diffhw import workloads

    # Two layers, as the test above and those of the recipe have them: equal shapes are one program.
    layers = [workloads.Layer.create(k=64, c=64, r=3, s=3, p=14, q=14), workloads.Layer.gemm(1, 512, 10)]
    two = workloads.Network.create(layers, info=workloads.NetworkInfo(name="tiny", names=("conv", "fc")))
    monkeypatch.setattr(workloads, "load", lambda source, batch=1: two)
    assert main(["cost", "tiny", "--hardware", "edge", "--dataflow", "best"]) == 0
    out = capsys.readouterr().out
    for part in ("best style per layer", "styles one by one", "kcp_ws", "> per layer", "layers it is"):
        assert part in out
    assert main(["cost", "tiny", "--hardware", "edge", "--dataflow", "best", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == "dataflow" and document["per_style"]["kcp_ws"]["edp_js"] >= document["edp_js"]
    assert main(["cost", "tiny", "--hardware", "edge", "--dataflow", "cp_nlr"]) == 0
    assert "tiny on edge, dataflow cp_nlr" in capsys.readouterr().out


@pytest.mark.slow
def test_cost_names_the_best_dataflow(monkeypatch, capsys):
    from diffhw import workloads

    monkeypatch.setattr(workloads, "load", lambda source, batch=1: fake.network())
    assert main(["cost", "tiny", "--hardware", "edge"]) == 0
    out = capsys.readouterr().out
    assert "the best of the three by EDP" in out and "roofline" in out and "depthwise" in out
    for unit in ("us", "uJ", "mm2", "%"):
        assert unit in out


@pytest.mark.parametrize(
    "words, parts",
    [
        (["networks", "alexnet"], ("fc6", "max_pool", "source")),
        (["hardware"], ("eyeriss", "published", "mm2")),
        (["hardware", "eyeriss"], ("source", "168")),
        (["hardware", "--assumed"], ("sram_leakage", "W/byte")),
        (["hardware", "--fits"], ("error", "source", "SRAM")),
    ],
)
def test_lists(words, parts, capsys):
    assert main(words) == 0
    out = capsys.readouterr().out
    for part in parts:
        assert part in out


@pytest.mark.parametrize("require, code", [("1.0", 1), ("0.9", 0), (None, 0)])
def test_validate_fails_below_the_required_share(require, code, monkeypatch, capsys):
    scores = validation.ValidationReport(reference="a tool", rows=10)
    scores.columns = {"cycles": validation.ColumnScore(rows=10, exact=9, within_1pct=10, worst_row="r1")}
    monkeypatch.setattr(validation, "validate_scalesim", lambda *args, **more: scores)
    words = ["validate", "scalesim", "x.csv", *(["--require", require] if require else [])]
    assert main(words) == code
    out, err = capsys.readouterr()
    assert "90.00" in out and ("cycles" in err) == (code == 1)
    assert main([*words, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["columns"]["cycles"]["exact"] == 9
