"""Timeloop's answers, row by row: counts, cycles, energy; what is refused; what a slip would show as."""

import csv
import dataclasses
import io
import json
import pathlib

import jax
import pytest

from diffhw.cli import main
from diffhw.validation import TIMELOOP_COLUMNS, _timeloop, validate_timeloop
from diffhw.validation._timeloop_recorded import older_input_words

DATA = pathlib.Path(__file__).parents[1] / "data"
GOLDEN, ARCHITECTURES = DATA / "timeloop_golden.csv", DATA / "timeloop_architectures.json"
RECORDED = (
    pathlib.Path(__file__).parents[3] / "shared" / "reference" / "timeloop" / "dosa_gemmini_recorded.csv"
)
ROWS = list(csv.DictReader(GOLDEN.read_text().splitlines()))


def _family(name: str) -> list[dict]:
    return [dict(row) for row in ROWS if row["arch_id"].startswith(name)]


def _write(path, rows, drop=()):
    text = io.StringIO()
    columns = [column for column in rows[0] if column not in drop]
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())
    return path


def _check(tmp_path, rows, **options):
    options.setdefault("architectures", ARCHITECTURES)
    return validate_timeloop([_write(tmp_path / "table.csv", rows)], **options)


@pytest.mark.parametrize(
    ("family", "rows"),
    [
        ("gemmini_like", 64),
        pytest.param("eyeriss_like", 65, marks=pytest.mark.slow),
        pytest.param("simba_like", 65, marks=pytest.mark.slow),
    ],
)
def test_every_column_of_the_golden_table_is_exact(tmp_path, family, rows):
    """Five rows of two families have links between neighbours; the tool's last cycle is rounding."""
    done = []
    report = _check(tmp_path, _family(family), progress=lambda i, n: done.append((i, n)))
    assert report.worst_exact_fraction == 1.0, str(report)
    assert report.rows == report.columns["whole_row"].rows == rows and done[-1] == (rows, rows)
    compared = {name for name, score in report.columns.items() if score.rows}
    optional = {"instances", "throttling", "level_energy_pJ", *(f"{t}_treductions" for t in "WIO")}
    assert compared == set(TIMELOOP_COLUMNS) - optional


def test_architectures_beside_the_table_are_the_default(tmp_path):
    table = _write(tmp_path / "table.csv", _family("gemmini_like"))
    with pytest.raises(
        ValueError, match=r"architectures\.json: the architectures of the table cannot be read"
    ):
        validate_timeloop([table])
    (tmp_path / "architectures.json").write_text(ARCHITECTURES.read_text())
    assert validate_timeloop([table]).worst_exact_fraction == 1.0


def test_float32_counts_are_close(tmp_path):
    report = _check(tmp_path, _family("gemmini_like"), dtype="float32")
    for name, score in report.columns.items():
        if name != "whole_row":
            assert score.worst_relative_error < 1e-5, (name, score)
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        validate_timeloop([GOLDEN], dtype="int8")


# Slips must show ---------------------------------------------------------------------------------------


def test_a_cell_off_by_one_is_seen(tmp_path):
    rows = _family("gemmini_like")
    for place, column in enumerate(("Scratchpad_I_fills", "Accumulator_O_reads", "DRAM_cycles", "cycles")):
        rows[place][column] = str(int(rows[place][column]) + 1)
    rows[5]["energy_pJ"] = str(float(rows[5]["energy_pJ"]) + 0.02)
    columns = _check(tmp_path, rows).columns
    for name in ("I_fills", "O_reads", "level_cycles", "cycles", "energy_pJ"):
        assert columns[name].rows - columns[name].exact == 1, name
    assert columns["I_fills"].worst_row == "line 2 Scratchpad"
    assert columns["whole_row"].rows - columns["whole_row"].exact == 5


def test_an_order_swapped_or_axes_paired_the_wrong_way_is_seen(tmp_path):
    rows = _family("gemmini_like")
    for row in rows:
        mapping = json.loads(row["mapping"])
        for level in mapping:
            level["temporal"].reverse()
        row["mapping"] = json.dumps(mapping)
    columns = _check(tmp_path, rows).columns
    assert columns["W_tile"].exact == columns["W_tile"].rows
    assert columns["I_fills"].exact < columns["I_fills"].rows
    assert columns["whole_row"].exact < len(rows) / 2
    rows = _family("gemmini_like")
    for row in rows:
        row["stride_w"], row["stride_h"] = str(int(row["stride_w"]) + 1), row["stride_h"]
    assert _check(tmp_path, rows).columns["I_tile"].exact < len(rows)


@pytest.mark.slow
def test_without_links_five_rows_differ(monkeypatch, tmp_path):
    real = _timeloop.loopnest_counts
    monkeypatch.setattr(
        _timeloop, "loopnest_counts", lambda layer, chip, nest, links: real(layer, chip, nest)
    )
    jax.clear_caches()
    report = _check(tmp_path, _family("eyeriss_like") + _family("simba_like"))
    jax.clear_caches()
    assert report.rows - report.columns["whole_row"].exact == 5
    wrong = {name for name, score in report.columns.items() if score.exact < score.rows}
    assert wrong <= {"I_reads", "level_cycles", "cycles", "utilisation_pct", "energy_pJ", "whole_row"}


# What is refused ---------------------------------------------------------------------------------------


def _mapping(row, change):
    mapping = json.loads(row["mapping"])
    change(mapping)
    return {"mapping": json.dumps(mapping)}


REFUSED = {
    "arch": (
        lambda row: {"arch_id": "gemini_like_r0"},
        "line 2, column arch_id: unknown .* did you mean 'gemm",
    ),
    "cover": (
        lambda row: {"K": str(int(row["K"]) * 2)},
        "line 2, column mapping: the factors of loop K multiply to 64, the layer has 128",
    ),
    "dim": (
        lambda row: _mapping(row, lambda m: m[0]["temporal"].append(["Z", 2])),
        "column mapping: DRAM: unknown loop 'Z'",
    ),
    "twice": (
        lambda row: _mapping(row, lambda m: m[0]["temporal"].append(["Q", 2])),
        "DRAM: loop Q stands there twice",
    ),
    "level": (
        lambda row: _mapping(row, lambda m: m[1].update(level="Scratchpat")),
        "unknown level 'Scratchpat'; did you mean 'Scratchpad'",
    ),
    "axis": (
        lambda row: _mapping(row, lambda m: m[1].update(spatial_x={"C": 2})),
        "Scratchpad.spatial_x: loop 'C' may not be spread \\(allowed: K\\)",
    ),
    "wide": (
        lambda row: _mapping(row, lambda m: m[1].update(spatial_x={"K": 64})),
        "Scratchpad.spatial_x: 64 children, the level has 16",
    ),
    "half": (
        lambda row: _mapping(row, lambda m: m[0]["temporal"].append(["K", 1.5])),
        "loop K needs a whole factor >= 1, got 1.5",
    ),
    "key": (lambda row: _mapping(row, lambda m: m[0].update(order="KC")), "DRAM has an unknown key 'order'"),
    "json": (lambda row: {"mapping": "DRAM: K4"}, "column mapping: not JSON"),
    "size": (lambda row: {"P": "5.5"}, "line 2, column P: needs a whole number >= 1, got '5.5'"),
    "blank": (lambda row: {"DRAM_W_reads": ""}, "line 2, column DRAM_W_reads: needs a number"),
    "cell": (lambda row: {"cycles": "many"}, "line 2, column cycles: needs a number, got 'many'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_that_is_wrong_is_named(tmp_path, case):
    change, message = REFUSED[case]
    rows = _family("gemmini_like")
    rows[0] |= change(rows[0])
    with pytest.raises(
        ValueError, match=f"table.csv, {message}" if message[:4] == "line" else message
    ) as caught:
        _check(tmp_path, rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["arch_id", "mapping", "dilation_w", "Scratchpad_I_fills", "DRAM_cycles"])
def test_a_missing_column_is_named(tmp_path, column):
    table = _write(tmp_path / "table.csv", _family("gemmini_like"), drop=[column])
    with pytest.raises(ValueError, match=f"table.csv: column '{column}'.* is missing"):
        validate_timeloop([table], ARCHITECTURES)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("keeps", ["W", "X"], "DRAM: keeps must be a list of W, I, O"),
        ("keeps", ["W"], "gemmini_like_r0: the outermost level must keep w, i and o"),
        ("word_bits", 0, "DRAM.word_bits must be > 0"),
        ("shared_bw_words_per_cycle_per_instance", 0, "DRAM.shared_words_per_cycle must be > 0"),
        ("entries_words", "many", "DRAM: entries_words must be a number"),
        ("energy_pJ_per_vector", {"read": 1.0, "fill": 1.0}, "DRAM, energy: key 'update' is missing"),
        ("spatial_below", {"x_dims": "Z", "x_size": 2, "y_dims": "", "y_size": 1}, "x_dims may hold"),
        ("name", "Scratchpad", "two levels are called 'Scratchpad'"),
    ],
)
def test_an_architecture_that_is_wrong_is_named(tmp_path, key, value, message):
    entries = json.loads(ARCHITECTURES.read_text())
    entries[0]["levels_inner_to_outer"][-1][key] = value
    path = tmp_path / "other.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message) as caught:
        _check(tmp_path, _family("gemmini_like"), architectures=path)
    assert "other.json" in str(caught.value) and "\n" not in str(caught.value)


# The command and the recorded table --------------------------------------------------------------------


def test_the_command(tmp_path, capsys):
    table = str(_write(tmp_path / "table.csv", _family("gemmini_like")))
    command = ["validate", "timeloop", table, "--architectures", str(ARCHITECTURES)]
    assert main([*command, "--require", "1"]) == 0
    assert "whole_row" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["columns"]["energy_pJ"]["exact"] == 64
    assert main(["validate", "timeloop", table]) == 2
    assert "architectures.json" in capsys.readouterr().err
    assert main(["validate", "maestro", table, "--architectures", "x.json"]) == 2
    assert "--architectures belongs to validate timeloop" in capsys.readouterr().err


def test_older_rules_by_hand():
    """One row of 4 inputs, a 3-tap window; two loops outside, the tile is one word wide.

    s runs inside: motion +1, all of the tile is new each time. q steps while s falls back by one: today the
    net motion of 0 is free, in the older rules the word comes again: 1 + 2 x 3 + 2 = 9 words.
    """
    layer = dict.fromkeys(("stride_w", "stride_h"), 1)
    none: dict = {"temporal": {}, "x": {}, "y": {}}
    slide = [none, none, none, {"temporal": {"s": 3, "q": 3}, "x": {}, "y": {}}]
    assert older_input_words(layer, slide) == 1 + 2 * 3 + 2
    slide[3] = {"temporal": {"k": 2, "q": 3}, "x": {}, "y": {}}
    held = [{"temporal": {"s": 3}, "x": {}, "y": {}}, none, none]
    assert older_input_words(layer, [*held, slide[3]]) == 3 + 2 * 3  # a loop inside: no sliding
    slide[3] = {"temporal": {"q": 3, "k": 2}, "x": {}, "y": {}}
    assert older_input_words(layer, [*held, slide[3]]) == 3 + 2 * 2 * 1 + 3


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded table is not in the repository")
def test_recorded_runs_under_their_older_rules():
    """The bars: mean absolute error of energy 0.2 %, of cycles 0.01 %."""
    report = validate_timeloop([RECORDED])
    cycles, energy = (report.columns[f"recorded_{name}"] for name in ("cycles", "energy_uJ"))
    assert report.rows == 840 and cycles.within_1pct == energy.within_1pct == 840
    assert dataclasses.asdict(cycles)["mean_relative_error"] < 1e-8
    assert dataclasses.asdict(energy)["mean_relative_error"] < 3e-4
    assert cycles.exact >= 818
    assert "mean absolute error" in report.notes[0]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            "L3[WIO] C2 - L2[WI] N1 - L1[O] K2 - L0[W] N1",
            "the factors of loop K multiply to 2, the layer has 4",
        ),
        ("L3[WIO] C2 K4 - L2[WI] N1 - L1[O] N1", "needs the four levels"),
        ("L3[WIO] C2X K4 - L2[WI] N1 - L1[O] N1 - L0[W] N1", "only C of L1 and K of L2 may be spatial"),
        ("L3[WIO] C2 K4 - L2[WIO] N1 - L1[O] N1 - L0[W] N1", r"needs L2\[WI\] and its loops"),
        ("L3[WIO] C2 Z4 - L2[WI] N1 - L1[O] N1 - L0[W] N1", "needs loops as in C2 or K16X, got 'Z4'"),
    ],
)
def test_a_recorded_row_that_is_wrong_is_named(tmp_path, mapping, message):
    row = dict.fromkeys(("R", "S", "P", "Q", "N", "stride_w", "stride_h"), 1) | {"C": 2, "K": 4, "pe_dim": 2}
    row |= dict.fromkeys(("spad_words8b", "acc_words32b_per_col", "spad_bw_words_per_cycle"), 1024)
    row |= {"acc_bw_words_per_cycle_per_col": 2, "dram_bw_words_per_cycle": 8, "mapping": mapping}
    row |= {"cycles": 8, "energy_uJ": 1}
    with pytest.raises(ValueError, match=f"line 2, column mapping: {message}"):
        validate_timeloop(_write(tmp_path / "recorded.csv", [row]))
