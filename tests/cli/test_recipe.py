"""``diffhw recipe aqgan`` on a problem whose accuracy is a formula."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from analytic_bits import accuracy, toy_problem

from diffhw import hardware, recipes
from diffhw.cli import main


@pytest.fixture
def quick(monkeypatch):
    """Small fits, no training of networks; the list of networks that were asked for."""
    asked = []

    def problem(network, data, **options):
        asked.append((network, data, options["epochs"]))
        return toy_problem()

    designs = np.random.default_rng(0).integers(0, 8, (400, 5))
    small = dict(
        training_set=(designs, accuracy(designs)),
        members=1,
        surrogate_steps=250,
        pool=2_000,
        steps=200,
        polish=0,
    )
    monkeypatch.setattr(recipes, "bit_problem", problem)
    monkeypatch.setattr(recipes, "aqgan", functools.partial(recipes.aqgan, **small))
    return asked


def test_asks_and_asks_again(quick, tmp_path, capsys):
    out = ["--out", str(tmp_path / "kept")]
    wish = ["recipe", "aqgan", "--accuracy", "0.6", "--budget-kb", "4"]
    assert main([*wish, "--evaluations", "150", "--epochs", "3", *out]) == 0
    printed = capsys.readouterr().out
    assert "configurations, best first" in printed and "size" in printed and "(kB)" in printed
    kept = json.loads((tmp_path / "kept" / "answer.json").read_text())
    for row in kept["configurations"]:
        assert row["bytes"] <= 4000
        assert row["accuracy"] == accuracy([b - 1 for b in row["bits"]])
    # The second wish needs none of the settings, and fits nothing.
    before = (tmp_path / "kept" / "generator.bin").read_bytes()
    assert main(["recipe", "aqgan", "--accuracy", "0.5", "--json", *out]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["wanted"] == {"accuracy": 0.5}
    assert (tmp_path / "kept" / "generator.bin").read_bytes() == before
    assert quick == [("mobilenet_v2_small", "digits", 3)] * 2
    # Other settings are another generator.
    assert main(["recipe", "aqgan", "--epochs", "9", *out]) == 2
    assert "made with epochs 3, not 9: use another --out, or leave --epochs out" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(quick, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "aqgan", interrupted)
    assert main(["recipe", "aqgan", "--accuracy", "0.6", "--out", str(tmp_path / "cut")]) == 130
    assert f"kept in {tmp_path / 'cut'}: run the same command to go on" in capsys.readouterr().err


def test_energy_and_latency_are_budgets_too(quick, tmp_path, capsys):
    out, chip = ["--out", str(tmp_path / "kept")], tmp_path / "chip.yaml"
    edge = hardware.load("edge")
    hardware.write_yaml(edge, chip)
    wish = ["recipe", "aqgan", "--array", "bit_serial", "--hardware", str(chip), "--json", *out]
    assert main([*wish, "--accuracy", "0.5"]) == 0
    row = json.loads(capsys.readouterr().out)["configurations"][0]
    energy, latency = 0.8 * row["energy_pj"] / 1e6, 0.9 * row["latency_s"] / 1e-6
    again = ["recipe", "aqgan", "--json", *out]
    assert main([*again, "--budget-uj", f"{energy}", "--budget-us", f"{latency}"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["configurations"] and set(document["wanted"]) == {"accuracy", "energy_pj", "latency_s"}
    for row in document["configurations"]:
        assert row["energy_pj"] <= energy * 1e6 and row["latency_s"] <= latency * 1e-6
    assert main(["recipe", "aqgan", "--budget-us", "1e-9", *out]) == 2
    assert "--budget-us 1e-09 is out of reach: mobilenet_v2_small takes" in capsys.readouterr().err
    # A comment in the file changes nothing; another number makes it another hardware.
    chip.write_text("# ours\n" + chip.read_text())
    assert main(again) == 0
    hardware.write_yaml(dataclasses.replace(edge, freq_hz=edge.freq_hz * 1.01), chip)
    capsys.readouterr()
    assert main(again) == 2
    assert "has other numbers than the generator in" in capsys.readouterr().err
    # A generator of sizes only does not learn more afterwards.
    sizes = ["--out", str(tmp_path / "sizes")]
    assert main(["recipe", "aqgan", "--accuracy", "0.5", *sizes]) == 0
    settings = json.loads((tmp_path / "sizes" / "settings.json").read_text())
    assert settings["array"] is settings["hardware"] is settings["hardware_digest"] is None
    capsys.readouterr()
    assert main(["recipe", "aqgan", "--budget-uj", "1", *sizes]) == 2
    assert (
        "holds a generator that knows sizes only: for energy and latency use another --out"
        in capsys.readouterr().err
    )


def test_no_generator_is_kept_without_its_settings(quick, tmp_path, capsys, monkeypatch):
    class Killed:
        def save(self, folder):
            assert (folder / "settings.json").exists()
            raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "aqgan", lambda *words, **options: Killed())
    wish = ["recipe", "aqgan", "--out", str(tmp_path)]
    for seed in "12":  # settings alone hold no generator, so others are not refused
        assert main([*wish, "--seed", seed]) == 130
    (tmp_path / "aqgan.json").touch()
    (tmp_path / "settings.json").unlink()
    assert main(wish) == 2
    assert "settings.json is missing or damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--budget-kb", "0.1"], "takes 0.747 kB at the least"),
        (["--accuracy", "1.2"], "--accuracy: must be from 0 to 1"),
        (["--kind", "gan"], "must be one of autoregressive, adversarial"),
        (["--hardware", "edge"], "--hardware is of energy and latency: give --array"),
        (["--array", "fixed", "--hardware", "egde"], "unknown hardware 'egde'; did you mean 'edge'?"),
    ],
)
def test_mistakes(quick, tmp_path, capsys, words, told):
    assert main(["recipe", "aqgan", "--evaluations", "120", *words, "--out", str(tmp_path / "o")]) == 2
    assert told in capsys.readouterr().err
