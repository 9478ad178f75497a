"""ZigZag's answers, row by row: accesses, energy, cycles; what is refused; what a slip would show as."""

import json
import pathlib
from dataclasses import replace
from fractions import Fraction

import pytest

from diffhw import models
from diffhw.cli import main
from diffhw.validation import (
    ZIGZAG_COLUMNS,
    ZigzagMemory,
    ZigzagRun,
    _zigzag,
    validate_zigzag,
    zigzag_replay,
)
from diffhw.validation._zigzag_loopnest import Nested, as_loopnest, loopnest_moved
from diffhw.validation._zigzag_read import read_architectures, read_rows
from diffhw.validation._zigzag_replay import Sliding, distinct

DATA = pathlib.Path(__file__).parents[1] / "data"
GOLDEN, ARCHITECTURES = DATA / "zigzag_rows.jsonl", DATA / "zigzag_architectures.json"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
CONV1 = ROWS[0]  # 7x7, stride 2, on the TPU-like array: even
RETURNS = next(row for row in ROWS if row["layer"] == "/layer4/layer4.0/conv1/Conv")  # partial sums come back
SHARED = pathlib.Path(__file__).parents[3] / "shared" / "reference" / "zigzag" / "rows.jsonl"


def _copy(row: dict) -> dict:
    return json.loads(json.dumps(row))


def _run(tmp_path, row: dict) -> ZigzagRun:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    run = read_rows(path, read_architectures(ARCHITECTURES))[0].run
    assert isinstance(run, ZigzagRun)
    return run


def _check(tmp_path, *rows, architectures=ARCHITECTURES, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return validate_zigzag(path, architectures, **options)


@pytest.fixture
def replay_only(monkeypatch):
    monkeypatch.setattr(_zigzag, "loopnest_moved", lambda runs, dtype: iter(()))


def _missed(report) -> set[str]:
    return {name for name, score in report.columns.items() if score.exact < score.rows}


def test_every_golden_row_is_exact_whether_its_loops_are_even_or_not(replay_only):
    report = validate_zigzag([GOLDEN], ARCHITECTURES)
    assert not _missed(report), str(report)
    assert report.rows == len(ROWS) == 27 and not report.skipped and not report.unhandled
    assert report.kinds == {"even": 14, "uneven": 1, "fractional": 12}
    assert report.columns["whole_row"].exact == 27
    assert set(report.columns) == set(ZIGZAG_COLUMNS)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_our_model_counts_the_same_where_one_nest_serves_all_operands(tmp_path, dtype):
    rows = [row for row in ROWS if row["arch"] == "tesla_npu_like"][:2]
    done = []
    report = _check(tmp_path, *rows, dtype=dtype, progress=lambda i, n: done.append((i, n)))
    assert not _missed(report), str(report)
    assert report.columns["loopnest_cycles"].rows == 2 and report.columns["loopnest_O"].rows == 2 * 3 * 4
    assert done[-1] == (4, 4) and done == sorted(done)


@pytest.mark.slow
def test_our_model_on_every_even_golden_row():
    report = validate_zigzag(GOLDEN, ARCHITECTURES)
    assert not _missed(report), str(report)
    assert report.columns["loopnest_cycles"].exact == 14
    assert [report.columns[f"loopnest_{t}"].exact for t in "WIO"] == [80, 68, 168]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the full table is not in the repository")
def test_full_table(replay_only):
    report = validate_zigzag(SHARED)
    assert not _missed(report) and report.rows == 113, str(report)
    assert report.kinds == {"even": 66, "uneven": 1, "fractional": 46}


def _all(*places) -> dict[str, list]:
    return {operand: list(places) for operand in "OWI"}


def _small(**changes) -> ZigzagRun:
    """O[k][ox] = W[k][c][fx] I[c][ix] on two columns (K) of a register per tensor under one memory.

    K = 4: two in space, two in time; C = 3, OX = 4, FX = 2, from the inside: FX, C | OX, K.
    """
    loops = [("FX", 2), ("C", 3)], [("OX", 4), ("K", 2)]
    word = {move: (8, 8) for move in ("rd_out_to_low", "wr_in_by_low", "rd_out_to_high", "wr_in_by_high")}
    wide = {move: (16, 64) for move in word}
    register = ZigzagMemory("register", 64, 1.0, 2.0, word)
    memory = ZigzagMemory("memory", 8192, 10.0, 20.0, wide)
    run = ZigzagRun(
        sizes={"K": 4, "C": 3, "OX": 4, "FX": 2},
        indexes={
            "W": frozenset({"K", "C", "FX"}),
            "I": frozenset({"C", "OX", "FX"}),
            "O": frozenset({"K", "OX"}),
        },
        sliding=(Sliding("IX", 1, "OX", 1, "FX"),),
        data="I",
        extents={"IX": 5},
        output="O",
        bits={"W": 8, "I": 8, "O": 8},
        final_bits=8,
        memories=dict.fromkeys("OWI", (register, memory)),
        temporal=_all(*loops),
        spatial=_all([], ["K"], []),
        unroll={"K": Fraction(2)},
        units=2,
        mac_pj=0.5,
    )
    return replace(run, **changes)


def test_hand_worked_case():
    """48 cycles, 96 MACs.

    Weights: the tile of 6 comes for each of 2 K (OX does not index it and is innermost outside): 12 a column.
    Inputs: C x (FX window of 2) = 6, for 4 OX x 2 K: 48 a column, one for both on the way.
    Outputs: one a column, final after FX and C: 8 each. The memory moves 2 words = 16 bits = 1/4 access.
    """
    answer = zigzag_replay(_small())
    assert (answer.ideal_temporal_cycle, answer.ideal_cycle, answer.mac_energy_pj) == (48, 48, 48.0)
    register, memory = (
        dict(zip("WIO", pair, strict=True)) for pair in zip(*(answer.accesses[t] for t in "WIO"))
    )
    assert register["W"] == {"rd_out_to_low": 96, "wr_in_by_low": 0, "rd_out_to_high": 0, "wr_in_by_high": 24}
    assert register["I"] == {"rd_out_to_low": 96, "wr_in_by_low": 0, "rd_out_to_high": 0, "wr_in_by_high": 96}
    assert register["O"] == {
        "rd_out_to_low": 96,
        "wr_in_by_low": 96,
        "rd_out_to_high": 16,
        "wr_in_by_high": 0,
    }
    assert memory["W"]["rd_out_to_low"] == 2 * 12 * 8 // 64  # per K: 12 words
    assert memory["I"]["rd_out_to_low"] == 8 * 6 * 8 // 64  # 8 windows of 48 bits
    assert memory["O"]["wr_in_by_low"] == 8 * 16 // 64 and memory["O"]["rd_out_to_low"] == 0
    assert answer.mem_energy_per_level["O"] == [(96 + 16) * 1.0 + 96 * 2.0, 2 * 20.0]
    assert answer.mem_utilization["I"][0] == pytest.approx((6 + 6 + 1) * 8 / 64)


def test_uneven_cut_needs_no_rule_of_its_own():
    """The output's register also runs over OX: 4 outputs a column, and only 2 transfers of them."""
    even = _small()
    cuts = {**even.temporal, "O": [[("FX", 2), ("C", 3), ("OX", 4)], [("K", 2)]]}
    answer, before = zigzag_replay(replace(even, temporal=cuts)), zigzag_replay(even)
    assert answer.accesses["W"] == before.accesses["W"] and answer.accesses["I"] == before.accesses["I"]
    assert answer.moved["O"][0]["rd_out_to_high"] == before.moved["O"][0]["rd_out_to_high"] == 16
    assert (
        as_loopnest(replace(even, temporal=cuts)) == "operands cut the loops at register in different places"
    )


def test_partial_sums_return_as_often_as_they_leave():
    """Reduction over C outside: every output goes out and comes back 3 times, the first visit included."""
    run = _small(temporal=_all([("FX", 2)], [("OX", 4), ("K", 2), ("C", 3)]), final_bits=4)
    out = zigzag_replay(run).moved["O"]
    assert out[0]["rd_out_to_high"] == out[0]["wr_in_by_high"] == out[1]["rd_out_to_low"] == 3 * 16
    assert not run.finished(0) and run.finished(1)


@pytest.mark.parametrize(("step", "other"), [(1, 1), (2, 1), (3, 2), (4, 6), (2, 2)])
def test_distinct_positions(step, other):
    for count in range(1, 6):
        for taps in range(1, 6):
            found = {step * x + other * f for x in range(count) for f in range(taps)}
            assert distinct(step, count, other, taps) == len(found)


@pytest.mark.parametrize("operand", "WIO")
def test_a_changed_count_makes_the_row_fail(tmp_path, replay_only, operand):
    for level in range(len(CONV1["accesses"][operand])):
        for direction in CONV1["accesses"][operand][level]:
            row = _copy(CONV1)
            row["accesses"][operand][level][direction] += 1
            missed = _missed(_check(tmp_path, row))
            assert missed - {"whole_row"} <= {f"{operand}_{direction}"} and "whole_row" in missed


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("energy_pj", 1e-9),
        ("mem_energy_pj", 1e-9),
        ("mac_energy_pj", 1e-9),
        ("ideal_cycle", 1e-5),
        ("ideal_temporal_cycle", 1e-6),
        ("mac_spatial_utilization", 1e-9),
    ],
)
def test_a_changed_total_makes_its_column_fail(tmp_path, replay_only, column, change):
    row = _copy(CONV1)
    value = row[column]
    row[column] = value * (1 + change) if isinstance(value, float) and column[0] != "i" else value + 1
    assert _missed(_check(tmp_path, row)) == {column, "whole_row"}


@pytest.mark.parametrize(
    ("rule", "columns"),
    [
        ({"transfers": lambda self, operand, level: (1, 1)}, {"W_rd_out_to_low", "O_rd_out_to_high"}),
        ({"tile": lambda self, operand, level: 1}, {"W_wr_in_by_high", "I_wr_in_by_high", "mem_utilization"}),
        ({"finished": lambda self, level: False}, {"mem_utilization"}),
    ],
)
def test_a_wrong_rule_shows(replay_only, monkeypatch, rule, columns):
    for name, method in rule.items():
        monkeypatch.setattr(ZigzagRun, name, method)
    assert columns <= _missed(validate_zigzag(GOLDEN, ARCHITECTURES))


def test_our_model_is_really_compared(tmp_path):
    """Runs in one batch get each their own answer, the replay's; another order of loops another one."""
    run = _run(tmp_path, RETURNS)
    changed = _small(temporal=_all([("FX", 2)], [("C", 3), ("OX", 4), ("K", 2)]))
    moved = []
    for index, answer in sorted(loopnest_moved([run, changed, _small()])):
        assert not isinstance(answer, str)
        one = (run, changed, _small())[index]
        theirs = zigzag_replay(one)
        assert answer[1] == theirs.ideal_temporal_cycle
        for t in "WIO":
            for ours, level in zip(answer[0][t], theirs.moved[t], strict=True):
                assert ours == {key: level[key] for key in ours}
        moved.append(answer[0])
    assert moved[1]["W"] != moved[2]["W"]


def test_a_row_costs_something_in_our_model(tmp_path):
    run = _run(tmp_path, RETURNS)
    nested = as_loopnest(run)
    assert isinstance(nested, Nested)
    cost = models.loopnest.layer(nested.layer, nested.hierarchy, nested.nest)
    assert float(cost.macs) == run.macs and float(cost.feasible) == 1.0
    assert float(cost.energy_pj) == pytest.approx(RETURNS["energy_pj"], rel=0.5)


def test_input_extent_is_told_or_the_row_is_skipped(tmp_path, replay_only):
    told = _copy({**CONV1, "input_size": {"IX": 224, "IY": 224}})
    told["mem_utilization"]["I"][-1] = 0.5
    assert not _missed(_check(tmp_path, told))
    untold = {key: value for key, value in told.items() if key != "input_size"}
    report = _check(tmp_path, CONV1, untold)
    assert report.rows == 1 and "padding" in report.skipped[0]["reason"]
    assert report.skipped[0]["row"].startswith("line 2 ")


def test_other_operators_are_skipped(tmp_path, replay_only):
    add = {**_copy(CONV1), "equation": "O[b][k] = X[b][k] + Y[b][k]"}
    report = _check(tmp_path, add)
    assert report.rows == 0 and "product of two" in report.skipped[0]["reason"]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (["arch"], "tpu_lik", "did you mean 'tpu_like'?"),
        (["layer"], None, None),
        (["mem_levels", "O", 0], "rf_2b", "did you mean 'rf_2B'?"),
        (["dims", "K"], 0, "dims.K: needs a whole number >= 1, got 0"),
        (["dims", "K"], 65, "effective_unroll.K"),
        (["temporal_mapping_inner_to_outer", "W", 0, 0], ["FX", 5], "its loops differ from those of O"),
        (["temporal_mapping_inner_to_outer", "O", 0, 0], ["FZ", 7], "needs [loop, size]"),
        (["spatial_mapping_truncated", "I", 0], [], "its loops differ"),
        (["dimension_relations", 0], "IX = OX + FX", "dimension_relations"),
        (["precision_bits", "O"], "wide", "precision_bits.O"),
        (["accesses", "O", 0, "rd_out_to_low"], 1.5, "needs a whole number, got 1.5"),
        (["energy_pj"], "much", "energy_pj: needs a number, got 'much'"),
        (["mem_utilization", "I"], [], "mem_utilization.I"),
    ],
)
def test_malformed_rows_are_refused_in_one_sentence(tmp_path, replay_only, path, value, says):
    row = _copy(CONV1)
    target = row
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    if says is None:
        del target[path[-1]]
        says = "layer: is missing"
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2") as caught:
        _check(tmp_path, CONV1, row)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_malformed_files_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match=r"architectures\.json: cannot be read"):
        validate_zigzag(path)
    with pytest.raises(ValueError, match=r"rows\.jsonl: cannot be read"):
        validate_zigzag(path, ARCHITECTURES)
    path.write_text("\n")
    with pytest.raises(ValueError, match="has no rows"):
        validate_zigzag(path, ARCHITECTURES)
    path.write_text("{,}")
    with pytest.raises(ValueError, match="line 1: not a JSON object"):
        validate_zigzag(path, ARCHITECTURES)
    with pytest.raises(ValueError, match="dtype must be"):
        validate_zigzag(path, ARCHITECTURES, dtype="float16")
    broken = json.loads(ARCHITECTURES.read_text())
    broken["tpu_like"]["levels"][0]["ports"][0]["bits_per_cycle_max"] = 4
    (tmp_path / "architectures.json").write_text(json.dumps(broken))
    path.write_text(json.dumps(CONV1))
    with pytest.raises(
        ValueError, match=r"tpu_like.levels.0.ports.0.bits_per_cycle_max: needs a whole number >= 8"
    ):
        validate_zigzag(path)


def test_command(tmp_path, capsys, replay_only):
    call = ["validate", "zigzag", str(GOLDEN), "--architectures", str(ARCHITECTURES), "--json"]
    assert main([*call, "--require", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == 27 and document["kinds"]["even"] == 14
    row = _copy(CONV1)
    row["accesses"]["W"][0]["rd_out_to_low"] += 1
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    call[2] = str(tmp_path / "rows.jsonl")
    assert main([*call, "--require", "1"]) == 1
    assert main(["validate", "zigzag", str(GOLDEN)]) == 0  # zigzag_architectures.json lies beside it
    capsys.readouterr()
    assert main(["validate", "zigzag", str(tmp_path / "rows.jsonl")]) == 2
    assert "architectures.json: cannot be read" in capsys.readouterr().err
