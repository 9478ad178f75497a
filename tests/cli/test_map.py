"""``diffhw map``: tables, files that read back, one sentence for every mistake."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from diffhw import hardware, mappings, models, recipes, workloads
from diffhw._cli._map import _file_names
from diffhw._cli._map_hardware import find_hierarchy
from diffhw.cli import main

# Two layers, the first of which runs twice.
NET = """Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
a, 6, 6, 3, 3, 4, 8, 1,
b, 4, 4, 1, 1, 8, 4, 1,
a2, 6, 6, 3, 3, 4, 8, 1,
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.csv").write_text(NET)
    (tmp_path / "problem.yaml").write_text("problem:\n  shape: cnn_layer\n")
    return tmp_path


def run_json(capsys, *words):
    assert main(["map", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("objective", ["edp", "energy", "latency"])
def test_json_is_what_the_recipe_finds(folder, capsys, objective):
    found = run_json(capsys, "net.csv", "--hardware", "gemmini", "--objective", objective, "--certify")
    network, chip = workloads.load("net.csv").merged(), hardware.hierarchy("gemmini")
    want = recipes.best_mappings(network, chip, objective)
    assert found["score"] == pytest.approx(want.score) and found["bound"] == pytest.approx(want.bound)
    assert found["proven"] and [row["count"] for row in found["layers"]] == [2, 1]
    assert found["energy_pj"] == pytest.approx(want.energy_pj) and found["cycles"] == want.cycles
    assert found["edp_js"] == pytest.approx(want.energy_pj * 1e-12 * want.cycles * 1e-9)
    for row, best, layer in zip(found["layers"], want.layers, network.rows(), strict=True):
        assert row["mappings_that_fit"] == recipes.mapping_space_size(layer, chip)
        assert row["proven"] and row["score"] == pytest.approx(best.score)
        assert sum(row["energy_parts_pj"].values()) == pytest.approx(row["energy_pj"])
        assert sum(row["cycle_parts"].values()) == pytest.approx(row["cycles"])
        # The mapping as printed costs what was printed.
        levels = [
            {"temporal": dict(one["temporal_innermost_first"]), "x": one["spatial_x"], "y": one["spatial_y"]}
            for one in row["mapping"]
        ]
        nest = mappings.LoopNest.create(levels, chip, layer)
        cost = models.loopnest.layer(layer, chip, nest)
        np.testing.assert_allclose([cost.energy_pj, cost.cycles], [row["energy_pj"], row["cycles"]], 1e-6)
    assert sum(row["energy_share"] for row in found["layers"]) == pytest.approx(1)
    levels = sum(sum(part.values()) for part in found["energy_by_level_pj"].values())
    assert levels == pytest.approx(found["energy_pj"])


def test_tables(folder, capsys):
    assert main(["map", "net.csv", "--hardware", "gemmini"]) == 0
    out, err = capsys.readouterr()
    for part in (
        "256 MACs < Registers (weight, 1.000 B)",
        "net on gemmini, least edp",
        "a (+1 alike)",
        "no mappings have less EDP in all",
        "where the energy goes",
        "Scratchpad",
        "shares of all runs",
    ):
        assert part in out, out
    assert "mapping 0 %" in err and "mappings that" not in out


def test_one_layer_shows_its_nest(folder, capsys):
    assert main(["map", "net.csv", "--hardware", "gemmini", "--layer", "a2", "--objective", "energy"]) == 0
    out = capsys.readouterr().out
    assert "multiply-accumulate" in out and "proven: no mapping of this layer has less energy" in out
    assert "runs" not in out


def test_files_read_back(folder, capsys):
    """The written mapping costs the same; the written hardware gives the same answer."""
    words = ["net.csv", "--hardware", "gemmini", "--objective", "energy"]
    found = run_json(capsys, *words, "--out", "out")
    names = sorted(os.listdir("out"))
    assert names == [
        *("a.mapping.yaml", "a.problem.yaml", "architecture.ert.yaml", "architecture.yaml"),
        *("b.mapping.yaml", "b.problem.yaml", "loop_nests.txt", "summary.json"),
    ]
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["score"] == found["score"] and summary["not_written"] == []
    assert summary["command"].startswith("diffhw map net.csv")
    chip = hardware.hierarchy("out/architecture.yaml")
    for row in found["layers"]:
        word = row["layer"].split(" (")[0]
        layer = workloads.read_timeloop_problem(f"out/{word}.problem.yaml")
        nest = mappings.read_timeloop_mapping(
            f"out/{word}.mapping.yaml", chip, layer, problem=f"out/{word}.problem.yaml"
        )
        cost = models.loopnest.layer(layer, chip, nest)
        np.testing.assert_allclose([cost.energy_pj, cost.cycles], [row["energy_pj"], row["cycles"]], 1e-6)
    again = run_json(capsys, "net.csv", "--hardware", "out/architecture.yaml", "--objective", "energy")
    assert again["score"] == pytest.approx(found["score"])


@pytest.mark.slow
def test_pictures(folder, capsys):
    assert main(["map", "net.csv", "--hardware", "gemmini", "--plots", "p"]) == 0
    assert sorted(os.listdir("p")) == ["energy.png", "latency.png", "slopes.png", "traffic.png"]
    assert all((folder / "p" / name).read_bytes()[:4] == b"\x89PNG" for name in os.listdir("p"))
    assert "p/traffic.png" in capsys.readouterr().out


def test_bypass_and_utilisation_are_passed_on(folder, capsys):
    plain = run_json(capsys, "net.csv", "--hardware", "gemmini", "--layer", "b")
    free = run_json(capsys, "net.csv", "--hardware", "gemmini", "--layer", "b", "--bypass")
    assert free["score"] <= plain["score"] * (1 + 1e-9) and free["bypass"]
    full = run_json(capsys, "net.csv", "--hardware", "gemmini", "--layer", "b", "--min-utilization", "0.1")
    spread = 1
    for level in full["layers"][0]["mapping"]:
        spread *= np.prod([*level["spatial_x"].values(), *level["spatial_y"].values()])
    assert spread >= 0.1 * 256


def test_accelerators_spread_the_loops_of_their_dataflow(folder, capsys):
    assert main(["map", "net.csv", "--hardware", "edge", "--layer", "a"]) == 0
    assert "spreads k over columns and c, r, s over rows (ws; --spread" in capsys.readouterr().out
    for word, loops in (("os", ("k", "npq")), ("is", ("npq", "crs"))):
        chip, _ = find_hierarchy("edge", word)
        assert {(level.spatial_x, level.spatial_y) for level in chip.levels} == {loops}
    chip, text = find_hierarchy("edge", "any")
    assert chip.levels[1].spatial_x == hardware.ANY_DIM and "any loop" in text
    chip, _ = find_hierarchy("shidiannao", None)
    assert chip.levels[1].spatial_x == "k" and chip.levels[1].spatial_y == "npq"


def test_file_names_are_safe_and_unique():
    from types import SimpleNamespace

    names = ["a/b", "a b", "a_b (+2 alike)", "..", "conv.1"]
    assert _file_names([SimpleNamespace(name=name) for name in names]) == [
        *("a_b", "a_b_2", "a_b_3", "layer", "conv.1")
    ]


MISTAKES = [
    (["net.csv"], "required: --hardware"),
    (["net.csv", "--hardware", "gemini"], "did you mean 'gemmini'"),
    (["net.csv", "--hardware", "nope.yaml"], "nope.yaml"),
    (["net.csv", "--hardware", "problem.yaml"], "is a Timeloop problem: give a Timeloop architecture"),
    (["net.csv", "--hardware", "gemmini", "--spread", "ws"], "--spread is for accelerators"),
    (["net.csv", "--hardware", "edge", "--spread", "sw"], "must be one of ws, os, is, any"),
    (["net.csv", "--hardware", "gemmini", "--objective", "epd"], "did you mean 'edp'"),
    (["net.csv", "--hardware", "gemmini", "--layer", "c"], "net has no layer 'c'"),
    (["net.csv", "--hardware", "gemmini", "--seconds", "0"], "--seconds: must be a finite number > 0"),
    (["net.csv", "--hardware", "gemmini", "--min-utilization", "2"], "from 0 to 1, got 2"),
    (["net.csv", "--hardware", "gemmini", "--out", "net.csv"], "--out net.csv is a file"),
    (["net.csv", "--hardware", "gemmini", "--plots", "net.csv"], "--plots net.csv is a file"),
    (["net.csv", "--hardware", "gemmini", "--certfy"], "did you mean '--certify'"),
    (["net.csv", "--hardware", "gemmini", "--batch", "2"], "batch"),
    (["nope.csv", "--hardware", "gemmini"], "nope.csv"),
]


@pytest.mark.parametrize("words, part", MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_code_2(words, part, folder, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "best_mappings", lambda *args, **more: pytest.fail("work was begun"))
    assert main(["map", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("diffhw: error: ") and err.count("\n") == 1, err
    assert part in err and "Traceback" not in err
    assert sorted(os.listdir(folder)) == ["net.csv", "problem.yaml"]


def test_no_mapping_says_which_layer_and_what_would_help(folder, capsys):
    assert main(["map", "net.csv", "--hardware", "gemmini", "--min-utilization", "0.5"]) == 2
    text = capsys.readouterr().err
    assert "layer a (+1 alike): no mapping uses 50 %" in text and "lower --min-utilization to" in text


def test_a_level_that_is_too_small_is_named(folder, capsys):
    chip = hardware.hierarchy("gemmini")
    levels = list(chip.levels)
    levels[2] = replace(levels[2], capacity_bits=levels[2].capacity_bits * 0 + 8)
    small = replace(chip, levels=tuple(levels))
    hardware.write_timeloop(small, "small.yaml", form="flat")
    assert main(["map", "net.csv", "--hardware", "small.yaml"]) == 2
    text = capsys.readouterr().err
    assert "layer a (+1 alike): no mapping fits: Scratchpad holds 8 bits" in text
    assert "raise its capacity to 16 bits or let a tensor pass by (--bypass)" in text
