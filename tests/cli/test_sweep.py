"""``diffhw sweep``: one sentence and code 2 for every mistake, tables and files, going on after a stop."""

import csv
import json
import os
import re
from types import SimpleNamespace

import jax
import pytest

from diffhw import models, recipes, workloads
from diffhw._cli import _hosts, _sweep
from diffhw._cli._errors import UserError
from diffhw._cli._parser import parse
from diffhw.cli import main
from diffhw.workloads import Layer, Network, NetworkInfo

NETWORK = Network.create([Layer.gemm(8, 96, 40)], info=NetworkInfo(name="tiny", names=("fc",)))
SPACE = """base: edge
variables:
  rows: {integer: [4, 64], per_octave: 2}
  cols: {integer: [4, 64], per_octave: 2}
  levels.weight.capacity_bytes: {values: [1024, 65536]}
"""
HUGE = "  levels.input.capacity_bytes: {integer: [1, 1000000]}\n  levels.output.capacity_bytes: {integer: [1, 1000000]}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "huge.yaml").write_text(SPACE + HUGE)
    (tmp_path / "broken.yaml").write_text("base: [1,\n")
    (tmp_path / "typo.yaml").write_text(SPACE.replace("rows", "rowz"))
    (tmp_path / "real.yaml").write_text("base: edge\nvariables: {freq_hz: {real: [1e8, 1e9]}}\n")
    for name in ("SLURM_NTASKS", "SLURM_PROCID", "OMPI_COMM_WORLD_SIZE", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def tiny(monkeypatch):
    load = workloads.load
    monkeypatch.setattr(
        workloads, "load", lambda source, batch=1: NETWORK if source == "tiny" else load(source)
    )


S = ["sweep", "alexnet", "--space", "space.yaml"]
MISTAKES = [
    (["sweep"], "NETWORK"),
    (["sweep", "alexnet"], "--space"),
    (["sweep", "alexnett", "--space", "space.yaml"], "alexnet"),
    (["sweep", "alexnet", "--space", "gone.yaml"], "--space gone.yaml: no such file"),
    (["sweep", "alexnet", "--space", "broken.yaml"], "broken.yaml line"),
    (
        ["sweep", "alexnet", "--space", "typo.yaml"],
        "typo.yaml line 3: variables.rowz is no number of edge; did you",
    ),
    (["sweep", "alexnet", "--space", "huge.yaml"], "the space has 162,000,000,000,000 designs: say how many"),
    (["sweep", "alexnet", "--space", "real.yaml"], "inf designs: say how many with --budget N"),
    ([*S, "--model", "systolik"], "did you mean 'systolic'"),
    ([*S, "--model", "dataflow"], "needs a dataflow"),
    ([*S, "--model", "loopnest"], "name the one whose mappings are swept"),
    ([*S, "--objective", "edpp"], "no figure is called 'edpp'; did you mean 'edp'?"),
    ([*S, "--objective", "lateny"], "no figure is called 'lateny'; did you mean 'latency"),
    ([*S, "--pareto", "latency_s,aera_mm2"], "did you mean 'area_mm2'"),
    ([*S, "--pareto", "throughput"], "no figure is called 'throughput'; known: edp, latency_s, energy_pj"),
    ([*S, "--pareto", "a,,b"], "names with commas between them"),
    ([*S, "--record", "edpp"], "'edpp'"),
    ([*S, "--top-k", "0"], "--top-k: must be a whole number from 1"),
    ([*S, "--budget", "0"], "--budget: must be a whole number >= 1, got 0"),
    ([*S, "--budget", "5", "--all"], "not allowed with"),
    ([*S, "--order", "sorted"], "must be one of enumerate, random, low-discrepancy"),
    ([*S, "--order", "random"], "--order random draws as many designs as --budget N says"),
    ([*S, "--chunk", "many"], "--chunk"),
    ([*S, "--combine", "mean"], "must be one of sum, worst"),
    ([*S, "--dataflow", "xs"], "dataflow must be one of os, ws, is"),
    ([*S, "--layer", "conv1"], "layer and mapping are for the loopnest model"),
    ([*S, "--hosts", "2"], "--hosts 2 needs --host-id, from 0 to 1"),
    ([*S, "--host-id", "1"], "--host-id 1 needs --hosts"),
    ([*S, "--hosts", "2", "--host-id", "2"], "--host-id must be from 0 to 1"),
    ([*S, "--coordinator", "nowhere"], "--coordinator must be HOST:PORT"),
    ([*S, "--coordinator", "nowhere:1"], "--coordinator needs --hosts N"),
    ([*S, "--out", "space.yaml"], "--out space.yaml is a file"),
    ([*S, "--budgte", "5"], "did you mean '--budget'"),
]


@pytest.mark.parametrize("words, part", MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_code_2(words, part, folder, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "run_sweep", lambda *args, **more: pytest.fail("work was begun"))
    before = sorted(os.listdir(folder))
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("diffhw: error: ") and err.count("\n") == 1, err
    assert part in err and sorted(os.listdir(folder)) == before


@pytest.mark.slow
def test_a_sweep_prints_writes_and_goes_on(folder, tiny, capsys):
    words = ["sweep", "tiny", "--space", "space.yaml", "--top-k", "3", "--out", "a", "--chunk", "64"]
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["designs"] == 9 * 9 * 2 == document["evaluated_now"] and document["certified"] is True
    assert len(document["top"]) == 3 and "sweeping" in err
    best = document["top"][0]
    rows = list(csv.DictReader((folder / "a" / "top.csv").read_text().splitlines()))
    assert (
        len(rows) == 3
        and float(rows[0]["edp"]) == best["figures"]["edp"]
        and rows[0]["rows"] == str(best["choices"]["rows"])
    )
    design = recipes.read_design(folder / "a" / "design.yaml")
    cost = jax.jit(lambda hw: models.systolic(NETWORK, hw, design.dataflow))(design.hardware)
    assert float(cost.edp) == pytest.approx(best["figures"]["edp"], rel=1e-5)
    grid = recipes.sweep_problem(NETWORK, "space.yaml")
    every = grid.exact(next(grid.space.enumerate(162))[0])
    assert best["figures"]["edp"] == min(every["edp"][every["feasible"] > 0])
    assert (folder / "a" / "pareto.png").read_bytes().startswith(b"\x89PNG")

    answer = (folder / "a" / "result.json").read_bytes()
    lost = sorted((folder / "a" / "chunks").iterdir())[1]
    lost.unlink()
    assert main(words) == 0
    out, _ = capsys.readouterr()
    for part in (
        "the 3 best of 162 designs for tiny, by EDP",
        "weight",
        "went on where it stopped",
        "Pareto set",
    ):
        assert part in out
    assert (folder / "a" / "result.json").read_bytes() == answer
    assert main(words) == 0
    assert "nothing was left to do" in capsys.readouterr().out

    (folder / "space.yaml").write_text(SPACE.replace("65536", "32768"))
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "a holds another sweep" in err and "levels.0.capacity_bytes" in err and err.count("\n") == 1


@pytest.mark.slow
def test_nothing_feasible_names_the_nearest_design_and_what_binds(folder, tiny, capsys):
    """The smallest array and buffer have the least area, which does not depend on the mapping."""
    (folder / "space.yaml").write_text(SPACE + "constraints: {area_mm2: 0.001, latency_s: 10}\n")
    assert main(["sweep", "tiny", "--space", "space.yaml", "--out", "b"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") <= 2, err  # the bar, then the sentence
    assert "none of the 162 designs is feasible (area_mm2 <= 0.001, latency_s <= 10): area_mm2 binds" in err
    assert "the nearest one (rows 4, cols 4, weight (bytes) 1,024) has " in err
    least = recipes.sweep_problem(NETWORK, "space.yaml").exact([[0, 0, 0]])["area_mm2"][0]
    over = float(re.search(r"\(([\d.e+]+) % over\)", err)[1])
    assert over == pytest.approx(100 * (least / 0.001 - 1), rel=2e-3)
    assert err.endswith("raise the limit or widen the variables in space.yaml; the sweep is in b\n")


@pytest.mark.slow
def test_buffers_too_small_are_said(folder, tiny, capsys):
    (folder / "space.yaml").write_text(
        "base: edge\nvariables: {rows: {values: [64, 128]}}\nfixed: {levels.input.capacity_bytes: 64}\n"
    )
    assert main(["sweep", "tiny", "--space", "space.yaml", "--out", "b", "--pareto", "none"]) == 2
    err = capsys.readouterr().err
    # One half of 64 bytes holds 32 of the array's 64 rows of 8 bits.
    assert "none of the 2 designs is feasible (buffers too small): a buffer or the array is too small" in err
    assert "the nearest one (rows 64) by 100 %; allow larger ones in space.yaml" in err


@pytest.mark.slow
def test_the_best_mapping_is_written_as_loops(folder, tiny, capsys):
    (folder / "map.yaml").write_text(
        "model: loopnest\nbase: gemmini\nvariables: {pe_dim: {values: [4, 8]}}\n"
    )
    words = [
        "sweep",
        "tiny",
        "--space",
        "map.yaml",
        "--budget",
        "3000",
        "--out",
        "m",
        "--pareto",
        "latency,energy",  # short for latency_s and energy_pj
    ]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Pareto set over latency, energy: " in out
    assert (
        "designs for tiny layer fc, by EDP" in out
        and "random sample" in out
        and "area" not in out.split("Pareto")[0]
    )
    assert "Scratchpad: keeps" in (folder / "m" / "mapping.txt").read_text()


def test_an_interrupt_says_how_to_go_on(folder, tiny, monkeypatch, capsys):
    def interrupted(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "run_sweep", interrupted)
    assert main(["sweep", "tiny", "--space", "space.yaml", "--out", "c"]) == 130
    assert "run the same command to go on" in capsys.readouterr().err


def test_a_record_without_pyarrow_is_a_sentence(folder, tiny, monkeypatch, capsys):
    import builtins

    real = builtins.__import__

    def missing(name, *args, **more):
        if name == "pyarrow":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["sweep", "tiny", "--space", "space.yaml", "--record"]) == 2
    assert "--record needs pyarrow: pip install 'diffhw[sweep]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, environment, expected",
    [
        ([], {}, (0, 1)),
        (["--hosts", "4", "--host-id", "3"], {"SLURM_NTASKS": "9", "SLURM_PROCID": "8"}, (3, 4)),
        ([], {"SLURM_NTASKS": "9", "SLURM_PROCID": "8"}, (8, 9)),
        ([], {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, (0, 1)),
        ([], {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, (1, 2)),
        (["--hosts", "3"], {"JOB_COMPLETION_INDEX": "2"}, (2, 3)),
    ],
)
def test_which_host_this_is(words, environment, expected, folder, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _hosts.host_of(parse([*S, *words])) == expected


def test_jax_distributed_starts_only_when_asked(folder):
    calls = []
    distributed = SimpleNamespace(initialize=lambda *args, **more: calls.append((args, more)))
    jax = SimpleNamespace(distributed=distributed, config=SimpleNamespace(update=lambda *args: None))
    _hosts.start_distributed(jax, parse([*S, "--hosts", "2", "--host-id", "1"]), (1, 2))
    assert calls == []
    _hosts.start_distributed(jax, parse([*S, "--coordinator", "here:123"]), (1, 2))
    assert calls[0][0] == ("here:123", 2, 1) and calls[0][1]["heartbeat_timeout_seconds"] <= 10

    def refuse(*args, **more):
        raise RuntimeError("DEADLINE\nexceeded")

    distributed.initialize = refuse
    with pytest.raises(UserError, match="cannot be reached by all hosts: DEADLINE exceeded"):
        _hosts.start_distributed(jax, parse([*S, "--coordinator", "here:123"]), (1, 2))


def test_orders(folder):
    def amount(size, *words):
        space = SimpleNamespace(size=size, is_continuous=isinstance(size, float))
        return _sweep._amount(parse([*S, *words]), space)

    assert amount(100) == ("enumerate", None)
    assert amount(100, "--budget", "100") == ("enumerate", None)
    assert amount(100, "--budget", "50") == ("random", 50)
    assert amount(100, "--budget", "50", "--order", "enumerate") == ("enumerate", 50)
    assert amount(100, "--budget", "200", "--order", "low-discrepancy") == ("low-discrepancy", 200)
    assert amount(10**12, "--all") == ("enumerate", None)
    assert amount(float("inf"), "--budget", "1e6") == ("random", 10**6)


def test_help_names_every_figure(capsys):
    assert main(["sweep", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in recipes.METRICS)
