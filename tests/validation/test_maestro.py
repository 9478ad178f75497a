"""MAESTRO's answers, row by row; where they are wrong, on layers small enough to count by hand."""

import csv
import json
import pathlib
from dataclasses import replace

import pytest

from diffhw.cli import main
from diffhw.mappings import Map, Program, ProgramLevel, parse
from diffhw.validation import (
    MAESTRO,
    MAESTRO_COLUMNS,
    REPAIRED,
    MaestroHardware,
    MaestroLayer,
    MaestroRules,
    maestro,
    validate_maestro,
)

DATA = pathlib.Path(__file__).parents[1] / "data"
GOLDEN, DEGENERATE, FAILURES = (DATA / f"maestro_{name}.csv" for name in ("golden", "degenerate", "failures"))
LANES = MaestroHardware(num_pes=168, noc_bw=81_920_000)


def _read(path) -> list[dict]:
    return list(csv.DictReader(path.read_text().splitlines()))


def _inputs(row: dict):
    sizes = {dim: int(row[dim]) for dim in "NMKCRSYX" if row[dim]}
    per_hop = int(row["noc_hop_latency"]) if row["hw_mode"] == "cli" else 1
    numbers = [int(row[name]) for name in ("num_pes", "noc_bw", "noc_hops", "offchip_bw", "simd_lanes")]
    numbers[2] *= per_hop
    layer = MaestroLayer(row["type"], sizes, int(row["stride"]))
    return layer, parse(row["directives"]), MaestroHardware(*numbers)


def _conv(stride=1, **sizes) -> MaestroLayer:
    return MaestroLayer("CONV", dict.fromkeys("KCRSYX", 1) | sizes, stride)


def _run(layer, text, pes=1, rules=MAESTRO, **hw):
    return maestro(layer, parse(text), MaestroHardware(pes, **{"noc_bw": 100, **hw}), rules)


# Golden tables -------------------------------------------------------------------------------------


def test_every_column_of_the_golden_table_is_exact():
    done = []
    report = validate_maestro([GOLDEN], progress=lambda i, n: done.append((i, n)))
    assert report.worst_exact_fraction == 1.0, str(report)
    assert report.rows == 300 and not report.skipped and not report.unhandled
    assert tuple(report.columns) == MAESTRO_COLUMNS
    assert {score.rows for score in report.columns.values()} == {300}
    assert done[-1] == (300, 300)
    wrong = {row["id"] for row in _read(GOLDEN) if row["macs_ratio"] != "1"}
    assert {item["row"] for item in report.flagged} == wrong and len(wrong) > 50


def test_degenerate_rows_are_flagged_and_failures_refused():
    report = validate_maestro([DEGENERATE, FAILURES])
    assert report.worst_exact_fraction == 1.0, str(report)
    assert (report.rows, report.columns["no_work"].rows, report.columns["refused"].rows) == (79, 28, 50)
    assert {item["row"] for item in report.flagged} >= {row["id"] for row in _read(DEGENERATE)}
    assert "16 PEs are fewer than the 49 of one cluster (7 x 7): give at least 49 PEs" in str(report)
    below = [item["row"] for item in report.flagged if "below the MACs" in item["reason"]]
    assert below == ["SH00657"]


def test_float32_counts_below_2_to_24_are_equal_and_the_rest_within_1e_6():
    for row in _read(GOLDEN):
        exact, rounded = maestro(*_inputs(row)), maestro(*_inputs(row), dtype="float32")
        for column in MAESTRO_COLUMNS:
            want, got = getattr(exact, column), getattr(rounded, column)
            if column == "compute_avg":  # a truncated mean: one cycle off
                assert abs(got - want) <= 1
            elif isinstance(want, int) and abs(want) < 2**24:
                assert got == want, (row["id"], column)
            else:
                assert float(got) == pytest.approx(want, rel=1e-6), (row["id"], column)


def test_the_repair_changes_exactly_the_rows_that_another_program_found():
    seen = set()
    for row in _read(GOLDEN):
        before, after = maestro(*_inputs(row)), maestro(*_inputs(row), rules=REPAIRED)
        peak = int(row["num_pes"]) * int(row["simd_lanes"])
        assert after.runtime_cycles * peak >= after.macs_true
        if row["edge_sensitive"]:
            changed = (before.runtime_cycles, before.num_macs) != (after.runtime_cycles, after.num_macs)
            assert changed == (row["edge_sensitive"] == "1"), row["id"]
            seen.add(changed)
            assert before.conserves_macs <= after.conserves_macs
    assert seen == {True, False}


def test_repaired_degenerate_rows_are_possible():
    for row in _read(DEGENERATE):
        answer = maestro(*_inputs(row), rules=REPAIRED)
        assert answer.runtime_cycles * int(row["num_pes"]) * int(row["simd_lanes"]) >= answer.macs_true
        assert not any("below" in flag or "no step" in flag for flag in answer.flags)


WINDOW = "TemporalMap(Sz(R),Sz(R)) R; TemporalMap(Sz(S),Sz(S)) S;"
SLIDE = "TemporalMap(Sz(R),1) Y; TemporalMap(Sz(S),1) X;"
YRP_RS = (
    "SpatialMap(1,1) Y'; TemporalMap(1,1) X'; TemporalMap(1,1) C; TemporalMap(16,16) K;"
    f"{WINDOW} Cluster(Sz(R), P); SpatialMap(1,1) Y; SpatialMap(1,1) R; TemporalMap(Sz(S),Sz(S)) S;"
)
KCP_WS = f"SpatialMap(1,1) K; TemporalMap(7,7) C; {WINDOW} {SLIDE} Cluster(7, P); SpatialMap(1,1) C; {SLIDE} {WINDOW}"
CP_NLR = f"TemporalMap(1,1) K; {SLIDE} {WINDOW} SpatialMap(1,1) C;"
CP_DW = f"SpatialMap(1,1) C; {SLIDE} {WINDOW}"


@pytest.mark.parametrize(
    ("kind", "sizes", "text", "cycles"),
    [
        ("CONV", (64, 64, 224, 224, 3, 3), YRP_RS, 11_139_073),
        ("CONV", (256, 256, 14, 14, 3, 3), KCP_WS, 586_081),
        ("CONV", (2048, 512, 7, 7, 1, 1), CP_NLR, 401_409),
        ("DSCONV", (1, 384, 14, 14, 3, 3), CP_DW, 3_889),
        ("CONV", (1536, 512, 128, 1, 1, 1), CP_NLR, 786_433),
    ],
)
def test_the_five_layers_of_the_mapping_searches(kind, sizes, text, cycles):
    """Recorded latencies of textbook dataflows, 168 PEs; the repair does not change them."""
    layer = MaestroLayer(kind, dict(zip("KCYXRS", sizes)))
    for rules in (MAESTRO, REPAIRED):
        answer = maestro(layer, parse(text), LANES, rules)
        assert answer.runtime_cycles == cycles and answer.conserves_macs and not answer.flags


def test_a_layer_worked_on_paper():
    """K64 C64 R3 S3 Y58 X58 in clusters of 16, 64 PEs, NoC 4/cycle, latency 1.

    Below: 144 inputs + 144 weights in 72 cycles, then 9 MACs: 81. First step: 720 elements in 180, + 81.
    200,703 more steps cost 81; 45 wait 180 for weights and inputs, 3 as well, 15 wait 144 for weights only.
    """
    layer = MaestroLayer("CONV", dict(K=64, C=64, R=3, S=3, Y=58, X=58))
    text = f"SpatialMap(1,1) K; TemporalMap(16,16) C; {WINDOW} {SLIDE} Cluster(16, P); SpatialMap(1,1) C; {SLIDE}"
    answer = maestro(layer, parse(text), MaestroHardware(64, noc_bw=4, offchip_bw=16))
    assert answer.runtime_cycles == 180 + 81 + 200_703 * 81 + 45 * 99 + 3 * 99 + 15 * 63
    assert answer.l2_size_req == 288 + 1152 + 8
    assert answer.num_macs == 64 * 64 * 9 * 56 * 56


# Where the tool is wrong ---------------------------------------------------------------------------


def test_what_is_left_of_a_tile_inside_a_tile_that_is_cut_short():
    """119 columns in tiles of 73, inside of 64: 46 columns are left, and counted as 73 - 64 = 9."""
    text = "SpatialMap(1,1) K; TemporalMap(73,73) X; Cluster(1,P); SpatialMap(1,1) C; TemporalMap(64,64) X"
    answer, repaired = (_run(_conv(X=119), text, rules=rules) for rules in (MAESTRO, REPAIRED))
    assert answer.num_macs == 119 and answer.runtime_cycles == 85  # on one PE
    assert answer.flags == ("the runtime is below the MACs of the layer / (PEs x lanes)",)
    assert repaired.runtime_cycles == 122 and not repaired.flags


def test_units_with_a_partial_tile_are_lost():
    """7 columns, 2 a unit, 2 units: 4, then 2 + 1, of which the tool sees 1."""
    text = "SpatialMap(2,2) X; TemporalMap(1,1) K"
    assert _run(_conv(X=7), text, pes=2).num_macs == 5
    assert _run(_conv(X=7), text, pes=2, rules=REPAIRED).num_macs == 7


@pytest.mark.parametrize(
    ("layer", "text", "pes", "column", "tool"),
    [
        # 3 columns at stride 2 have 2 outputs, hence 2 MACs.
        (_conv(X=3, stride=2), "SpatialMap(1,1) K; TemporalMap(3,3) X", 1, "num_macs", 5),
        # 5 columns at stride 2 have 3 outputs.
        (_conv(X=5, stride=2), "SpatialMap(1,1) K; TemporalMap(1,1) X", 1, "output_l2_read", 5),
        # K moves on and C starts again: input 0 was replaced by input 1 and must come back, 4 in all.
        (_conv(K=2, C=2), "SpatialMap(1,1) Y; TemporalMap(1,1) K; TemporalMap(1,1) C", 1, "input_l2_read", 3),
        # The one output, summed over C, could stay until it is done.
        (_conv(C=2), "SpatialMap(1,1) Y; TemporalMap(1,1) C", 1, "output_l2_write", 2),
        # A multicast to two receivers is one read and two writes.
        (_conv(K=2), "SpatialMap(1,1) K; TemporalMap(1,1) C", 2, "input_l1_write", 1),
        # 3 output rows of 2 MACs on 2 units: the last one counts as many outputs as it has input rows.
        (_conv(Y=4, R=2), "SpatialMap(2,1) Y", 2, "num_macs", 8),
        # A tile larger than the layer: double buffers (2 x 2 are used) for elements that do not exist.
        (_conv(X=2), "SpatialMap(1,1) K; TemporalMap(4,4) X", 1, "l1_req_output", 8),
    ],
)
def test_small_layers_that_it_miscounts(layer, text, pes, column, tool):
    assert getattr(_run(layer, text, pes), column) == tool
    if column == "num_macs":
        assert layer.macs < tool


def test_each_step_pays_for_a_refill_of_the_whole_working_set():
    """64 weights that stay, 10 inputs, one element a cycle from outside: 74 cycles would do."""
    layer, text = _conv(K=64, X=10), "SpatialMap(1,1) K; TemporalMap(1,1) X"
    assert _run(layer, text, pes=64).runtime_cycles == 11
    assert _run(layer, text, pes=64, offchip_bw=1).runtime_cycles == 10 * 65


def test_energy_of_the_csv_file_leaves_out_l1_where_there_is_a_cluster_and_the_macs_always():
    plain, clustered = (
        _run(_conv(K=2), f"SpatialMap(1,1) K{inside}") for inside in ("", "; Cluster(1,P); SpatialMap(1,1) C")
    )
    assert plain.energy_total_mac_units == clustered.energy_total_mac_units
    l2 = plain.energy_l2 - 18.61 * plain.output_l2_read
    assert clustered.energy_csv_nj == pytest.approx(0.00023 * l2)
    assert plain.energy_csv_nj == pytest.approx(0.00023 * (l2 + plain.energy_l1))


def test_a_tile_that_overhangs_the_layer_loses_all_work():
    layer, text = _conv(X=2, S=2), "SpatialMap(1,1) K; TemporalMap(3,2) X"
    answer = _run(layer, text)
    assert (answer.runtime_cycles, answer.num_macs, answer.output_l2_write) == (0, 0, -1)
    assert answer.throughput_mac_per_cycle is None and answer.compute_avg is None
    assert answer.flags == ("no step computes anything, so the runtime is 0 and averages divide by zero",)
    assert _run(layer, text, rules=REPAIRED).num_macs == 2


def test_without_latency_an_empty_transfer_costs_minus_one_cycle():
    """A depthwise layer whose file has a K: nothing moves when K advances."""
    layer = MaestroLayer("DSCONV", dict.fromkeys("KCRSYX", 1) | {"K": 2})
    for latency in (0, 1):
        answer = _run(layer, "SpatialMap(1,1) C; TemporalMap(1,1) K", noc_latency=latency)
        assert answer.ingress_min == latency - 1
        assert (answer.num_macs, answer.macs_true) == (2, 1)


# Refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "text", "message"),
    [
        (_conv(), "SpatialMap(1,1) K; Cluster(4,P); SpatialMap(1,1) C", "1 PEs are fewer than the 4 of one"),
        (_conv(R=3, Y=5), "SpatialMap(1,1) K; TemporalMap(1,1) R", "must take all 3 of R at once"),
        (
            _conv(S=2, X=4),
            "SpatialMap(1,1) K; TemporalMap(4,3) X; Cluster(1,P); SpatialMap(1,1) C; TemporalMap(5,4) X",
            "the tool divides by their 0 cycles: make the inner tiles no larger",
        ),
        (_conv(K=9**9, C=9**9), "SpatialMap(1,1) K; TemporalMap(1,1) C", "and the tool counts in 32 bits"),
        (_conv(), "SpatialMap(1,1) M", "dimension that the layer does not have"),
        (_conv(), "SpatialMap(Sz(M),1) K", "the layer has no dimension M"),
    ],
)
def test_what_kills_the_tool_is_a_sentence(layer, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        _run(layer, text)
    assert "\n" not in str(caught.value)


def _level(*maps) -> Program:
    return Program((ProgramLevel(tuple(Map(kind, 1, 1, dim) for kind, dim in maps)),))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Program(()), "the program has no maps"),
        (_level(("temporal", "K")), "needs one or two SpatialMaps, it has 0"),
        (_level(*(("spatial", dim) for dim in "KCY")), "it has 3"),
        (_level(("spatial", "K"), ("temporal", "K")), "dimension K is mapped twice"),
        (_level(("spatial", "Y'")), "a map of Y' needs a map of R at the same level"),
    ],
)
def test_programs_built_by_hand_are_checked_too(program, message):
    with pytest.raises(ValueError, match=message):
        maestro(_conv(), program, LANES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaestroLayer("LSTM", {}), "must be one of CONV, DSCONV, GEMM, got 'LSTM'"),
        (lambda: MaestroLayer("GEMM", {"M": 1, "N": 2}), "a GEMM layer needs the size of K"),
        (lambda: _conv(K=0), "K must be a whole number >= 1, got 0"),
        (lambda: _conv(R=3), "the filter is larger than the input: R = 3, Y = 1"),
        (lambda: replace(LANES, noc_bw=0), "noc_bw must be a whole number >= 1, got 0"),
        (lambda: MaestroRules(ragged="true"), "ragged must be 'steady' or 'actual'"),
        (
            lambda: maestro(_conv(), parse("SpatialMap(1,1) K"), LANES, dtype="int8"),
            "dtype must be float32 or float64",
        ),
    ],
)
def test_wrong_inputs_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The validator -------------------------------------------------------------------------------------


def _write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_wrong_reference_is_a_miss_also_in_the_digits_that_the_tool_drops(tmp_path):
    row = next(row for row in _read(GOLDEN) if len(row["utilisation"]) == 8 and row["macs_ratio"] == "1")
    row["runtime_cycles"] = str(2 * int(row["runtime_cycles"]))
    row["macs_ratio"] = "1.00001"
    row["area_um2"] = f"{float(row['area_um2']) * 1.00001:.6g}"
    row["utilisation"] = row["utilisation"][:-1]
    report = validate_maestro(_write(tmp_path / "off.csv", [row]))
    wrong = {name for name, score in report.columns.items() if not score.exact}
    assert wrong == {"runtime_cycles", "macs_ratio", "area_um2", "utilisation"}
    assert report.columns["runtime_cycles"].worst_relative_error == 0.5


def test_rows_that_we_refuse_miss_and_rows_without_an_answer_are_skipped(tmp_path):
    rows = [row for row in _read(GOLDEN) if "Cluster(" in row["directives"]][:4]
    rows[1] |= {"id": "few PEs", "num_pes": "1"}
    rows[2] |= {"id": "words", "directives": "SpatialMap 1 K"}
    rows[3] |= {"id": "blank", **dict.fromkeys(MAESTRO_COLUMNS, "")}
    report = validate_maestro([_write(tmp_path / "mixed.csv", rows)])
    assert report.rows == 3 and [item["row"] for item in report.skipped] == ["blank"]
    assert [item["row"] for item in report.unhandled] == ["few PEs", "words"]
    assert report.worst_exact_fraction == 1 / 3
    found = json.loads(report.to_json())
    assert set(found) >= {"reference", "rows", "skipped", "columns", "flagged"}


def test_a_failure_that_we_do_not_refuse_is_a_miss(tmp_path):
    row = _read(FAILURES)[0] | {"num_pes": "4096"}
    report = validate_maestro([_write(tmp_path / "alive.csv", [row])])
    assert report.worst_exact_fraction == 0 and "not refused" in report.flagged[0]["reason"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_pes": "many"}, r"line 2, column num_pes: needs a whole number >= 1, got 'many'"),
        ({"hw_mode": "file"}, r"line 2, column hw_mode: must be hwfile or cli, got 'file'"),
        ({"area_um2": "large"}, r"line 2, column area_um2: needs a number, got 'large'"),
        ({"Y": "-1"}, r"line 2, column Y: needs a whole number >= 1"),
    ],
)
def test_a_bad_cell_is_one_sentence_with_file_line_and_column(tmp_path, change, message):
    path = _write(tmp_path / "bad.csv", [_read(GOLDEN)[0] | change])
    with pytest.raises(ValueError, match=message) as caught:
        validate_maestro(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        validate_maestro([tmp_path / "missing.csv"])
    with pytest.raises(ValueError, match="dtype must be"):
        validate_maestro([GOLDEN], dtype="int8")
    row = _read(GOLDEN)[0]
    row["directive"] = row.pop("directives")
    with pytest.raises(ValueError, match=r"column 'directives' is missing.*'directive'"):
        validate_maestro([_write(tmp_path / "renamed.csv", [row])])
    row = _read(FAILURES)[0] | {"dims": "K 64"}
    with pytest.raises(ValueError, match="column dims: needs sizes as in K=64 C=3, got 'K 64'"):
        validate_maestro([_write(tmp_path / "dims.csv", [row])])
    totals = [{"mapping_file": "Resnet50_kcp_ws", "layers": 66, "total_runtime_cycles": 81071185}]
    with pytest.raises(ValueError, match="totals of whole mapping files cannot be replayed"):
        validate_maestro([_write(tmp_path / "totals.csv", totals)])


def test_the_command(tmp_path, capsys):
    few = _write(tmp_path / "few.csv", _read(GOLDEN)[:8])
    assert main(["validate", "maestro", str(few), str(DEGENERATE), str(FAILURES), "--require", "1"]) == 0
    out = capsys.readouterr().out
    assert "28 rows flagged (SH00699, ...): no step computes anything" in out and "refused" in out
    assert main(["validate", "maestro", str(few), "--dtype", "float32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dtype"] == "float32"
    assert main(["validate", "maestro", str(few), "--dtype", "float32", "--require", "1"]) == 1
    assert main(["validate", "maestro"]) == 2
    assert "validate maestro needs at least one table" in capsys.readouterr().err
