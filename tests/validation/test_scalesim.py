"""SCALE-Sim's answers, row by row; and our replays against loops over every cycle and word."""

import csv
import json
import pathlib
import random
from dataclasses import replace

import numpy as np
import pytest

from diffhw.validation import SCALESIM_COLUMNS, LayerRun, predict_scalesim, validate_scalesim
from diffhw.validation._scalesim_calc import calc_dram
from diffhw.validation._scalesim_user import user_dram
from diffhw.validation._table import digits_printed

DATA = pathlib.Path(__file__).parents[1] / "data"
CALC, USER = DATA / "scalesim_calc.csv", DATA / "scalesim_user.csv"


def _read(path) -> list[dict]:
    return list(csv.DictReader(path.read_text().splitlines()))


# Golden tables -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_column_of_the_golden_tables_is_exact_in_float64():
    done = []
    report = validate_scalesim([CALC, USER], progress=lambda i, n: done.append((i, n)))
    assert report.worst_exact_fraction == 1.0, report.to_json()
    assert report.rows == 200 and not report.skipped and not report.unhandled
    assert tuple(report.columns) == SCALESIM_COLUMNS
    assert {score.rows for score in report.columns.values()} == {200}
    assert done[-1] == (200, 200)


@pytest.mark.slow
def test_float32_counts_below_2_to_24_are_equal_and_the_rest_within_1e_6():
    rows = _read(CALC) + _read(USER)
    answers, failures = predict_scalesim([_run(row) for row in rows], dtype="float32")
    assert not any(failures)
    for row, answer in zip(rows, answers):
        for column in SCALESIM_COLUMNS:
            want = float(row[column])
            if want == int(want) and want < 2**24 and column.startswith(("total", "stall", "sram", "dram")):
                assert answer[column] == want, (row["row_id"], column)
            assert answer[column] == pytest.approx(want, rel=1e-6, abs=1e-9), (row["row_id"], column)


def _run(row: dict) -> LayerRun:
    names = LayerRun.__dataclass_fields__
    return LayerRun(**{n: row[n] if n in ("dataflow", "bw_mode") else int(row[n]) for n in names})


def test_both_modes_in_one_file_and_rows_are_judged_from_their_own_columns(tmp_path):
    rows = _read(CALC)[:3] + _read(USER)[:3]
    for row in rows:
        row["row_id"] = "same"
        row["tool"] = "whatever"
    report = validate_scalesim(_write(tmp_path / "mixed.csv", rows))
    assert report.rows == 6 and report.worst_exact_fraction == 1.0


# Loops over every cycle and word -------------------------------------------------------------------


class Naive:
    """The tool's rules with plain loops: demand rows as lists of addresses."""

    def __init__(self, run: LayerRun):
        self.run = run
        m, n, k = run.mnk
        rows, cols = run.array_rows, run.array_cols

        def pixel(i, j):
            y = i // run.out_w * run.stride_h + j // (run.filter_w * run.channels)
            x = i % run.out_w * run.stride_w + j // run.channels % run.filter_w
            inside = y < run.ifmap_h and x < run.ifmap_w
            return (y * run.ifmap_w + x) * run.channels + j % run.channels if inside else None

        weight = lambda j, f: f * k + j
        nr, nc = run.folds
        self.demand = {"i": [], "w": [], "o": []}
        for col in range(nc):
            for row in range(nr):
                r0, c0 = row * rows, col * cols
                fold = {x: [[] for _ in range(run.fold_rows)] for x in "iwo"}
                used_r, used_c = min(rows, run.spatial[0] - r0), min(cols, run.spatial[1] - c0)
                time = run.spatial[2]
                if run.dataflow == "os":
                    for t in range(time):
                        for r in range(used_r):
                            fold["i"][t + r].append((r, pixel(r0 + r, t)))
                        for c in range(used_c):
                            fold["w"][t + c].append((c, weight(t, c0 + c)))
                    for r in range(used_r):
                        for c in range(used_c):
                            fold["o"][time - 1 + rows - 1 - r + c].append((c, 0))
                else:
                    held, moved = ("w", "i") if run.dataflow == "ws" else ("i", "w")
                    for r in range(used_r):
                        for c in range(used_c):
                            word = weight(r0 + r, c0 + c) if held == "w" else pixel(c0 + c, r0 + r)
                            fold[held][rows - 1 - r].append((c, word))
                        for t in range(time):
                            word = pixel(t, r0 + r) if held == "w" else weight(r0 + r, t)
                            fold[moved][rows + t + r].append((r, word))
                    for t in range(time):
                        for c in range(used_c):
                            fold["o"][2 * rows - 1 + t + c].append((c, 0))
                for x in "iwo":
                    self.demand[x] += [[w for _, w in sorted(line, key=lambda p: p[0])] for line in fold[x]]
        # The order in which USER mode fetches: blocks stacked; streamed operands by anti-diagonals.
        self.fetch = {}
        for name, value, tall, wide, width, streams in (
            (
                "i",
                (lambda a, x: pixel(x, a)),
                k,
                m,
                rows if run.dataflow == "os" else cols,
                run.dataflow == "os",
            ),
            ("w", weight, k, n, cols, run.dataflow == "os"),
        ):
            if (run.dataflow, name) == ("ws", "i"):
                value, tall, wide, width, streams = pixel, m, k, rows, True
            if (run.dataflow, name) == ("is", "w"):
                value, tall, wide, width, streams = (lambda a, x: weight(x, a)), n, k, rows, True
            blocks = -(-wide // width)
            cells = [
                (((b * tall + a) + x, x) if streams else (b * tall + a, x), value(a, b * width + x))
                for b in range(blocks)
                for a in range(tall)
                for x in range(min(width, wide - b * width))
            ]
            self.fetch[name] = [w for _, w in sorted(cells, key=lambda p: p[0]) if w is not None]
            setattr(self, f"padded_{name}", blocks * width * tall)

    def calc(self, name: str, kb: int):
        held, words, flushes, first = set(), 0, [], None
        for row, line in enumerate(self.demand[name]):
            for word in line:
                if word is None:
                    continue
                first = row if first is None else first
                if word not in held:
                    held.add(word)
                    words += 1
                    if len(held) == 50 * (1024 * kb // 100):
                        held = set()
                        flushes.append(row)
        return words, flushes, first

    def user(self):
        """Total stall, DRAM words of input, weights and outputs."""
        run = self.run
        link = run.bw_words
        reads = {}
        for name, kb in (("i", run.sram_ifmap_kb), ("w", run.sram_filter_kb)):
            size = 1024 * kb
            per_line = -(-size // 100)
            lines = [
                set(self.fetch[name][i : i + per_line]) for i in range(0, len(self.fetch[name]) + 1, per_line)
            ]
            active = min(len(lines), -(-(size // 2) // per_line))
            step = min(len(lines) - active, -(-(size // 2) // per_line))
            reads[name] = {"lines": lines, "active": active, "step": step, "at": 0, "end": -1, "n": 0}
            reads[name]["burst"] = -(-(size // 2) // link)
        stall = 0
        size, half = 1024 * run.sram_ofmap_kb, 512 * run.sram_ofmap_kb
        free, closed, filling, drain_end, written = size, [], 0, 0, 0

        def drain(cycle):
            nonlocal free, written, drain_end, closed
            gone, closed = closed[: -(-half // link)], closed[-(-half // link) :]
            words = len(gone) * link - (link - gone[-1])
            free, written, drain_end = free + words, written + words, cycle + len(gone) - 1

        for row in range(len(self.demand["o"])):
            cycle, waits = row + stall, [0]
            for name, state in reads.items():
                offset = 1
                for word in self.demand[name][row]:
                    n = len(state["lines"])
                    while word is not None and not any(
                        word in state["lines"][(state["at"] + j) % n] for j in range(state["active"])
                    ):
                        state["at"] = (state["at"] + state["step"]) % n
                        state["end"] += state["burst"] + 1
                        state["n"] += 1
                        offset += max(state["end"] - cycle - offset, 0)
                waits.append(offset - 1)
            now = cycle
            for _ in self.demand["o"][row]:
                free -= 1
                filling += 1
                if filling == link:
                    closed, filling = [*closed, link], 0
                if now < drain_end:
                    if free <= 0:
                        now = drain_end
                elif free < size - half:
                    if filling:
                        closed, filling = [*closed, filling], 0
                    drain(now)
            waits.append(now - cycle)
            stall += max(waits)
        if filling:
            closed = [*closed, filling]
        while closed:
            drain(0)
        first = {n: min(-(-(512 * kb) // link), -(-getattr(self, f"padded_{n}") // link)) for n, kb in
                 (("i", run.sram_ifmap_kb), ("w", run.sram_filter_kb))}  # fmt: skip
        counts = [(first[n] + reads[n]["n"] * reads[n]["burst"]) * link for n in "iw"]
        return stall, *counts, written


def _random_runs(mode: str, count: int, seed: int):
    rnd = random.Random(seed)
    while count:
        fh, fw = rnd.choice([1, 2, 3, 5]), rnd.choice([1, 2, 3])
        run = LayerRun(
            fh + rnd.randrange(10),
            fw + rnd.randrange(10),
            fh,
            fw,
            rnd.choice([1, 2, 5, 12]),
            rnd.choice([1, 3, 10, 24]),
            rnd.choice([1, 1, 2, 3]),
            rnd.choice([1, 1, 2]),
            *rnd.choice([(1, 1), (1, 5), (4, 1), (3, 4), (8, 8), (6, 11), (16, 4)]),
            rnd.choice(["os", "ws", "is"]),
            *(rnd.choice([1, 1, 2]) for _ in range(3)),
            mode,
            rnd.choice([1, 3, 8, 70]),
        )
        if run.folds[0] * run.folds[1] * run.fold_rows < 4000 and np.prod(run.mnk) > 3000:
            count -= 1
            yield run


CALC_RUNS, USER_RUNS = list(_random_runs("CALC", 40, seed=1)), list(_random_runs("USER", 30, seed=2))


@pytest.mark.parametrize("run", CALC_RUNS)
def test_calc_dram_equals_a_walk_with_a_python_set(run):
    got_i, got_w, got_o, stall = calc_dram(run)
    naive = Naive(run)
    for name, got, kb in (("i", got_i, run.sram_ifmap_kb), ("w", got_w, run.sram_filter_kb)):
        words, flushes, first = naive.calc(name, kb)
        assert got.words == words
        assert got.stop == (flushes[-1] + 1 if flushes else -1)
        if flushes:
            assert got.start == first - -(-50 * (1024 * kb // 100) // 10)
    m, n, _ = run.mnk
    assert stall == 0
    assert got_o.words >= m * n * (1 if run.dataflow == "os" else run.folds[0])


@pytest.mark.parametrize("run", USER_RUNS)
def test_user_stalls_and_dram_equal_a_loop_over_cycles(run):
    read_i, read_w, out, stall, _ = user_dram(run)
    assert (stall, read_i.words, read_w.words, out.words) == Naive(run).user()


def test_the_random_runs_reach_the_hard_cases():
    walked = [run for run in CALC_RUNS if 512 <= run.input.distinct < run.input.entries]
    overhanging = [run for run in CALC_RUNS + USER_RUNS if run.input.edges is not None]
    stalled = [run for run in USER_RUNS if user_dram(run)[3] > 0]
    assert len(walked) >= 5 and len(overhanging) >= 10 and len(stalled) >= 10


def test_buffers_that_hold_all_never_stall_and_fetch_once():
    run = LayerRun(9, 9, 3, 3, 4, 8, 1, 1, 8, 8, "os", 100, 100, 100, "CALC", 0)
    read_i, read_w, out, stall = calc_dram(run)
    assert (read_i.words, read_w.words, out.words, stall) == (9 * 9 * 4, 36 * 8, 49 * 8, 0)
    assert user_dram(replace(run, bw_mode="USER", bw_words=10))[3] == 0


# Errors --------------------------------------------------------------------------------------------


def _write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _one(**changes) -> dict:
    return {**_read(CALC)[0], **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"array_rows": "many"}, r"line 2, column array_rows: needs a whole number >= 1, got 'many'"),
        ({"channels": "0"}, "column channels: needs a whole number >= 1, got '0'"),
        ({"stride_h": "nan"}, "column stride_h"),
        ({"num_filters": "-3"}, "column num_filters"),
        ({"total_cycles": "fast"}, "line 2, column total_cycles: needs a number, got 'fast'"),
    ],
)
def test_a_bad_cell_is_one_sentence_with_file_line_and_column(tmp_path, change, message):
    path = _write(tmp_path / "bad.csv", [_one(**change)])
    with pytest.raises(ValueError, match=message) as caught:
        validate_scalesim([path])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        validate_scalesim([tmp_path / "missing.csv"])
    with pytest.raises(ValueError, match="cannot be read"):
        validate_scalesim([tmp_path])
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(ValueError, match="the table is empty"):
        validate_scalesim([empty])
    row = _one()
    with pytest.raises(ValueError, match="dtype must be"):
        validate_scalesim([CALC], dtype="int8")
    row["strideh"] = row.pop("stride_h")
    with pytest.raises(ValueError, match=r"column 'stride_h' is missing.*'strideh'"):
        validate_scalesim([_write(tmp_path / "renamed.csv", [row])])
    only_header = tmp_path / "header.csv"
    only_header.write_text(",".join(_one()) + "\n")
    with pytest.raises(ValueError, match="no rows"):
        validate_scalesim([only_header])
    only_header.write_text(",".join(_one()) + "\nd1,2\n")
    with pytest.raises(ValueError, match="line 2: 2 cells where the header has"):
        validate_scalesim([only_header])


def test_rows_without_an_answer_of_ours_miss_and_rows_without_one_of_the_tool_are_skipped(tmp_path):
    rows = [
        _one(row_id="good"),
        _one(row_id="strange", dataflow="rs"),
        _one(row_id="mode", bw_mode="AUTO"),
        _one(row_id="large filter", filter_h="9999"),
        _one(row_id="blank", **dict.fromkeys(SCALESIM_COLUMNS, "")),
    ]
    report = validate_scalesim([_write(tmp_path / "mixed.csv", rows)])
    assert report.rows == 4
    assert [item["row"] for item in report.skipped] == ["blank"]
    assert [item["row"] for item in report.unhandled] == ["strange", "mode", "large filter"]
    found = json.loads(report.to_json())
    assert set(found) >= {"reference", "rows", "skipped", "columns"}
    assert found["columns"]["total_cycles"] == {
        "rows": 4,
        "exact": 1,
        "within_1pct": 1,
        "worst_relative_error": 1.0,
        "worst_row": "strange",
    }
    assert report.worst_exact_fraction == 0.25


def test_a_wrong_reference_is_a_miss_with_its_size(tmp_path):
    row = _one()
    row["total_cycles"] = str(2 * int(row["total_cycles"]))
    score = validate_scalesim([_write(tmp_path / "off.csv", [row])]).columns["total_cycles"]
    assert (score.exact, score.within_1pct, score.worst_relative_error) == (0, 0, 0.5)


def test_exact_means_the_digits_that_are_printed():
    assert [digits_printed(text) for text in ("5", "5.0", "43.17207014")] == [0, 1, 8]
