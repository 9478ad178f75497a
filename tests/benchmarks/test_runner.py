"""The benchmark runner: every script is found with its question; a failing one does not stop the rest."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import __main__ as runner
from benchmarks import _common


def test_every_script_has_a_question():
    scripts = runner.found()
    assert {"float_check", "gpu", "scaling", "startup", "peers", "systolic_kernel"} <= set(scripts)
    assert not [name for name, script in scripts.items() if len(script["question"]) < 10]
    assert not [name for name, script in scripts.items() if script["quick"] is None]
    assert {"--models", "--designs"} < set(scripts["float_check"]["quick"])
    assert "sweep" in scripts["startup"]["left_out"]


def test_list_runs_nothing(capsys, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("ran"))
    assert runner.main(["--list"]) == 0
    assert "Is float32 enough?" in capsys.readouterr().out


def test_unknown_name(capsys):
    with pytest.raises(SystemExit) as stopped:
        runner.main(["no_such"])
    assert stopped.value.code == 2 and "no benchmark 'no_such'" in capsys.readouterr().err


def test_a_failing_script_is_reported_and_the_rest_goes_on(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(_common, "RESULTS", tmp_path)
    ran = []

    def run(name, quick, limit, form):
        ran.append((name, quick, form))
        code = 3 if name == "startup" else 0
        return dict(name=name, arguments=quick, code=code, seconds=1.0, cpu_seconds=1.0, files=[])

    monkeypatch.setattr(runner, "run", run)
    assert runner.main(["startup", "float_check"]) == 1
    scripts = runner.found()
    assert [row[:2] for row in ran] == [(name, scripts[name]["quick"]) for name in ("startup", "float_check")]
    out = capsys.readouterr().out
    assert "FAILED: 3" in out and scripts["startup"]["left_out"] in out
    assert scripts["startup"]["left_out"] in ran[0][2]
    assert [row["code"] for row in json.loads((tmp_path / "summary.json").read_text())["runs"]] == [3, 0]
    assert runner.main(["float_check"]) == 0


def test_quick_results_stay_apart_and_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(_common, "HERE", tmp_path)
    monkeypatch.setattr(_common, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("BENCHMARKS_FORM", "quick (--count 4); left out: the rest")
    _common.write("thing", {"x": 1})
    found = json.loads((tmp_path / "results" / "quick" / "thing.json").read_text())
    assert found["x"] == 1 and found["form"].endswith("left out: the rest") and "jax" in found["machine"]
    assert _common.read("thing") == {}
