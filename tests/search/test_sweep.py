"""Sweeps against brute force: best designs, fronts, orders, resumption, refusals, devices."""

import errno
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import search
from diffhw.search import _sweep, _sweep_chunks, _sweep_front, _sweep_order, _sweep_program
from diffhw.spaces import Choice, Integer, Real, Space

AXES = ("latency", "energy", "area")


def space_of(rows=12, cols=20, banks=5):
    return Space(
        {
            "flow": Choice(("os", "ws", "is")),
            "rows": Integer(1, rows),
            "cols": Integer(1, cols),
            "banks": Integer(1, banks),
        }
    )


def evaluate(design):
    """Whole numbers, so that NumPy agrees to the last bit; plateaus, so that ties abound."""
    rows, cols, banks = design["rows"], design["cols"], design["banks"]
    slow = design["flow"][0] * 3 + design["flow"][1] * 2 + design["flow"][2] * 5
    latency = jnp.floor(4000 / (rows * cols)) * slow + jnp.floor(10 / banks)
    energy = rows * 3 + jnp.abs(cols - 9) * 5 + slow * banks
    area = rows * cols + 4 * banks
    return {
        "latency": latency,
        "energy": energy,
        "area": area,
        "feasible": (area < 200) * jnp.ones_like(area),
    }


def table(space, positions=None, order=None):
    """Index vectors and figures of every design, evaluated one after the other in one vmap."""
    if order is None:
        index = np.concatenate([rows[:n] for rows, n in space.enumerate(4096)])
    else:
        index = order.index(np.asarray(positions))
    figures = jax.jit(jax.vmap(lambda row: evaluate(space.at(row))))(jnp.asarray(index))
    return index, {name: np.asarray(value) for name, value in figures.items()}


def brute(index, figures, k, drawn=False):
    """Positions of the best k and of the front, by plain loops."""
    legal = np.flatnonzero(figures["feasible"] > 0)
    ranked, seen = [], set()
    for i in sorted(legal, key=lambda i: (figures["latency"][i], i)):
        design = tuple(index[i])
        if not drawn or design not in seen:
            ranked.append(i)
            seen.add(design)
    points = np.stack([figures[name] for name in AXES], 1)
    front = []
    for i in legal:
        better = (points[legal] <= points[i]).all(1) & (points[legal] < points[i]).any(1)
        same = (points[legal] == points[i]).all(1) & (legal < i)
        if not (better | same).any():
            front.append(i)
    return ranked[:k], front


def run(space, **options):
    options = {"out": None, "objective": "latency", "pareto": AXES, "identity": {"net": "toy"}} | options
    return search.sweep(evaluate, space, **options)


def same(a, b):
    for one, two in ((a.top, b.top), (a.pareto, b.pareto)):
        assert one.flat == two.flat
        np.testing.assert_array_equal(one.index, two.index)
        np.testing.assert_array_equal(one.figures, two.figures)
    assert (a.designs, a.feasible) == (b.designs, b.feasible)


@pytest.fixture(scope="module")
def plain():
    return run(space_of())


@pytest.mark.parametrize("options", [{}, {"chunk": 700, "block": 512}, {"chunk": 40, "block": 40}])
def test_every_design_against_brute_force(options):
    space = space_of()
    index, figures = table(space)
    best, front = brute(index, figures, 10)
    found = run(space, **options)
    assert found.top.position.tolist() == best and found.top.flat == tuple(best)
    assert sorted(found.pareto.position) == front
    assert found.feasible == (figures["feasible"] > 0).sum() and found.designs == space.size
    np.testing.assert_array_equal(found.top.figures[:, 0], figures["latency"][best])
    for f, name in enumerate(AXES):
        np.testing.assert_array_equal(found.pareto.figures[:, f], figures[name][found.pareto.position])
    assert found.certified and float(found.design(0)["rows"]) == found.labels(0)["rows"]


@pytest.mark.parametrize("order", ["random", "low-discrepancy"])
@pytest.mark.parametrize("options", [{}, {"chunk": 333, "block": 128}])
def test_drawn_designs_against_brute_force(order, options):
    """A small space, so that many designs are drawn several times."""
    space = space_of(4, 5, 3)
    host = _sweep_order.order_of(order, space, 64, 5)
    index, figures = table(space, np.arange(3000), host)
    best, front = brute(index, figures, 40, drawn=True)
    found = run(space, order=order, budget=3000, seed=5, top_k=40, **options)
    assert found.top.position.tolist() == best
    assert sorted(found.pareto.position) == front
    assert not found.certified


@pytest.mark.parametrize("order", ["random", "low-discrepancy"])
def test_drawn_designs_cover_a_space_evenly(order):
    space = Space({"a": Integer(1, 7), "b": Integer(1, 100000), "c": Real(1.0, 2.0)})
    index = _sweep_order.order_of(order, space, 64, 1).index(np.arange(70000))
    assert index.min() >= 0 and (index.max(0) < np.array(space.sizes)).all()
    counts = np.bincount(index[:, 0], minlength=7)
    spread = 600 if order == "random" else 10
    assert np.abs(counts - 10000).max() < spread
    coarse = np.histogram2d(index[:, 1] / 100000, index[:, 2] / 2**20, bins=8, range=[[0, 1], [0, 1]])[0]
    assert np.abs(coarse - 70000 / 64).max() < (200 if order == "random" else 40)
    assert abs(np.corrcoef(index[:-1, 1], index[1:, 1])[0, 1]) < 0.02 or order != "random"


@pytest.mark.parametrize("order", ["enumerate", "random", "low-discrepancy"])
@pytest.mark.parametrize("position", [0, 3 * 2**32 - 17])
def test_device_and_host_agree_on_every_position(order, position):
    """Also across a multiple of 2^32, and with variables of more than 2^16 values."""
    space = Space(
        {name: Integer(1, size) for name, size in (("a", 70001), ("b", 90), ("c", 3), ("d", 50000))}
    )
    visit = _sweep_order.order_of(order, space, 64, 3)
    read = lambda d: {name: d[name] for name in "abcd"}
    position -= position % visit.grain
    if visit.stretch:
        pieces = [(position, 17 if position else 64)] + ([(position + 17, 47)] if position else [])
    else:
        pieces = [(position, 64)]
    device = []
    for begin, count in pieces:
        values = jax.jit(lambda start: visit.figures(read, start, jnp.int32(0)))(visit.start(begin))
        device.append(np.stack([np.asarray(values[name]).ravel()[:count] - 1 for name in "abcd"], 1))
    host = visit.index(position + np.arange(sum(count for _, count in pieces)))
    np.testing.assert_array_equal(np.concatenate(device), host)


def test_a_space_beyond_64_bits():
    space = Space({f"x{i}": Integer(0, 999) for i in range(8)})
    total = lambda d: {"sum": sum((i + 1) * d[f"x{i}"] for i in range(8)), "last": d["x7"]}
    assert space.size > 2**63
    found = search.sweep(total, space, out=None, objective="sum", budget=5000, identity={})
    assert found.top.flat[:3] == (0, 1000, 1) and found.designs == 5000  # x6 weighs less than x7
    drawn = search.sweep(
        total,
        space,
        out=None,
        objective="sum",
        order="random",
        budget=50000,
        identity={},
        pareto=("sum", "last"),
    )
    assert max(drawn.top.flat) > 2**63
    assert [space.to_flat(row) for row in drawn.top.index] == list(drawn.top.flat)
    sums = (drawn.top.index * np.arange(1, 9)).sum(1)
    np.testing.assert_array_equal(drawn.top.figures[:, 0], sums)


def test_four_devices_give_what_one_gives(plain, monkeypatch):
    assert len(jax.local_devices()) == 4
    one = jax.local_devices()[:1]
    for options in ({}, {"block": 256, "chunk": 1024}, {"order": "random", "budget": 3000}):
        four = run(space_of(), **options)
        monkeypatch.setattr(_sweep.jax, "local_devices", lambda: one)
        same(four, run(space_of(), **options))
        monkeypatch.undo()


def test_a_front_that_does_not_fit_is_asked_for_in_parts(plain, monkeypatch):
    monkeypatch.setattr(_sweep_program, "_CAPACITY", 300)
    monkeypatch.setattr(_sweep_program, "KNOWN", 4)
    monkeypatch.setattr(_sweep_chunks, "KNOWN", 4)
    line = Space({"x": Integer(0, 3999)})
    both = lambda d: {"up": d["x"], "down": 4000 - d["x"]}  # every design is on the front
    found = search.sweep(both, line, out=None, objective="up", pareto=("up", "down"), identity={}, block=500)
    assert found.pareto.position.tolist() == list(range(4000))
    same(plain, run(space_of()))


def test_negative_and_infinite_figures():
    line = Space({"x": Integer(0, 99)})
    signed = lambda d: {
        "a": d["x"] - 50,
        "b": jnp.where(d["x"] > 90, jnp.inf, 20 - d["x"]),
        "c": jnp.where(d["x"] < 5, jnp.nan, 1.0 + 0 * d["x"]),
    }
    found = search.sweep(signed, line, out=None, objective="a", pareto=("a", "b"), identity={})
    assert found.pareto.position.tolist() == list(range(91))
    assert found.top.position.tolist() == list(range(10))
    other = search.sweep(signed, line, out=None, objective="c", pareto=("a", "c"), identity={})
    assert other.pareto.position.tolist() == [5]
    assert other.top.position.tolist() == list(range(5, 15))


def test_a_sweep_without_feasible_designs():
    never = lambda d: {"a": d["x"], "feasible": 0 * d["x"]}
    found = search.sweep(
        never, Space({"x": Integer(0, 99)}), out=None, objective="a", pareto=("a",), identity={}
    )
    assert len(found.top) == 0 and len(found.pareto) == 0 and found.feasible == 0


# Folders ---------------------------------------------------------------------------------------


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timing.json" and "chunks" not in path.parts
    }


OPTIONS = {"chunk": 512, "block": 256}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    result = run(space_of(), out=folder, record=True, **OPTIONS)
    return folder, result, contents(folder)


def copy_of(finished, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    return folder


def test_files_and_record(finished):
    import pyarrow.parquet

    folder, result, files = finished
    assert {"manifest.json", "result.json", "top.parquet", "pareto.parquet"} <= set(files)
    assert not list((folder / "claims").iterdir())
    answer = json.loads(files["result.json"])
    assert [row["flat"] for row in answer["top"]] == list(result.top.flat)
    parts = [pyarrow.parquet.read_table(path) for path in sorted((folder / "record").iterdir())]
    whole = {
        name: np.concatenate([part[name].to_numpy() for part in parts]) for name in ("design", *AXES, "cols")
    }
    index, figures = table(space_of())
    np.testing.assert_array_equal(whole["design"], np.arange(result.designs))
    np.testing.assert_array_equal(whole["cols"], index[:, 1] + 1)  # variables go by name
    for name in AXES:
        np.testing.assert_array_equal(whole[name], figures[name])
    assert parts[0]["flow"].to_pylist()[0] == "os"


def test_a_record_does_not_change_the_answer(finished, plain):
    same(plain, finished[1])


def test_a_finished_sweep_is_only_read(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    again = run(space_of(), out=folder, record=True, **OPTIONS)
    assert again.evaluated == 0 and not again.notes
    same(again, finished[1])
    assert contents(folder) == finished[2]


def test_damage_is_said_and_repaired(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    chunks, parts = folder / "chunks", folder / "record"
    (chunks / "000000000.json").write_text((chunks / "000000000.json").read_text()[:100])
    text = (chunks / "000000001.json").read_text()
    (chunks / "000000001.json").write_text(text.replace('"feasible": ', '"feasible": 1'))
    (chunks / "000000002.json").unlink()
    part = parts / "part-000000003.parquet"
    part.write_bytes(part.read_bytes()[:-30])
    (parts / "part-000000004.parquet").unlink()
    flipped = parts / "part-000000005.parquet"
    flipped.write_bytes(flipped.read_bytes().replace(b"design", b"desigm", 1))
    (folder / ".tmp~elsewhere~1~x").write_text("still young, perhaps alive")
    import socket

    dead = folder / f".tmp~{socket.gethostname()}~999999999~result.json"
    dead.write_text("half")
    again = run(space_of(), out=folder, record=True, **OPTIONS)
    assert again.evaluated == 6 * 512
    assert len(again.notes) == 5 and "checksum" in again.notes[1] and "30" not in again.notes[1]
    assert "part-000000003.parquet has" in again.notes[2]
    assert "part-000000005.parquet does not match its checksum" in again.notes[4]
    assert not dead.exists() and (folder / ".tmp~elsewhere~1~x").exists()
    (folder / ".tmp~elsewhere~1~x").unlink()
    same(again, finished[1])
    assert contents(folder) == finished[2]


def test_another_sweep_is_refused_with_the_difference(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    cases = [
        (r"space variable rows: Integer 1, .* 12 .* in .*, Integer .* 13 .* now", space_of(rows=13), {}),
        (r"top_k: 10 in .*, 11 now", space_of(), {"top_k": 11}),
        (r": net: \"?toy\"? in .*, other now", space_of(), {"identity": {"net": "other"}}),
        (r"seed: 0 in .*, 4 now", space_of(), {"seed": 4}),
        (r"chunk: 512 in .*, 1024 now", space_of(), {"chunk": 1024}),
        (r"record: ", space_of(), {"record": False}),
    ]
    for message, space, options in cases:
        with pytest.raises(ValueError, match=message):
            run(space, out=folder, **({"record": True} | OPTIONS | options))
    twice = lambda design: evaluate(design) | {"area": evaluate(design)["area"] * 2}
    with pytest.raises(ValueError, match=r": the traced evaluate: \w+ in .*, \w+ now"):
        search.sweep(
            twice,
            space_of(),
            out=folder,
            record=True,
            **({"objective": "latency", "pareto": AXES, "identity": {"net": "toy"}} | OPTIONS),
        )
    assert contents(folder) == finished[2]


def test_a_full_disk_is_one_sentence_and_keeps_what_is_done(tmp_path, monkeypatch, plain):
    write, left = _sweep.Store.write, [3]

    def full(self, path, content, replace=True):
        if path.parent.name == "chunks":
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(self, path, content, replace)

    monkeypatch.setattr(_sweep.Store, "write", full)
    with pytest.raises(
        OSError, match="disk is full; 3 finished chunks are safe: make room and run"
    ) as caught:
        run(space_of(), out=tmp_path / "out", **OPTIONS)
    assert caught.value.errno == errno.ENOSPC and str(caught.value).count("cannot write") == 1
    monkeypatch.undo()
    again = run(space_of(), out=tmp_path / "out", **OPTIONS)
    assert again.evaluated == space_of().size - 3 * 512
    same(again, plain)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="make the folder writable"):
        run(space_of(), out=tmp_path / "out")


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        run(space_of(), out=tmp_path / "out")


def test_progress_counts_what_was_done_before(tmp_path):
    seen = []

    def stop(status):
        seen.append(status)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(space_of(), out=tmp_path, progress=stop, **OPTIONS)
    assert not list((tmp_path / "claims").iterdir())  # given back
    run(space_of(), out=tmp_path, progress=seen.append, **OPTIONS)
    assert [status.chunks for status in seen] == list(range(1, 9))
    assert seen[-1].done == seen[-1].total == 3600 and seen[-1].best == run(space_of()).top.figures[0, 0]


# Claims ------------------------------------------------------------------------------------------


def test_a_claim_is_exclusive_until_it_is_stale(tmp_path):
    with _sweep.Claims(tmp_path, 0, 60) as one, _sweep.Claims(tmp_path, 1, 60) as two:
        assert one.take(3) and not two.take(3) and two.take(4)
        one.release(3)
        assert two.take(3)
        old = two.path(4)
        os.utime(old, (1, 1))
        assert one.take(4) and not two.take(4)
        two.release(4)  # no longer its own: left alone
        assert old.exists()
    assert not list(tmp_path.iterdir())


def test_a_claim_of_a_dead_process_is_free_at_once(tmp_path):
    import socket

    claim = {"host": 5, "name": socket.gethostname(), "pid": 999999999, "token": "x"}
    with _sweep.Claims(tmp_path, 0, 60) as claims:
        claims.path(7).write_text(json.dumps(claim))
        assert claims.take(7)
        claims.path(8).write_text(json.dumps(claim | {"name": "elsewhere"}))
        assert not claims.take(8)


# Arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("no 'latenci'; did you mean 'latency'", {"objective": "latenci"}),
        ("no 'speed'; known: area", {"pareto": ("speed",)}),
        ("pareto must be names", {"pareto": "latency"}),
        ("order must be one of enumerate, random, low-discrepancy, got 'sobol'", {"order": "sobol"}),
        ("needs a budget", {"order": "random"}),
        ("top_k must be a whole number >= 1, got 0", {"top_k": 0}),
        ("identity must be plain", {"identity": {"a": object()}}),
        ("host must be", {"host": (2, 2)}),
        ("claim_seconds must be > 0", {"claim_seconds": 0}),
    ],
)
def test_mistakes_are_one_sentence(message, options):
    with pytest.raises(ValueError, match=message):
        run(space_of(), **options)


def test_a_continuous_variable_is_sampled_but_not_enumerated():
    space = Space({"x": Real(1.0, 9.0), "y": Integer(1, 4)})
    square = lambda d: {"f": (d["x"] - 3) ** 2 + d["y"]}
    with pytest.raises(ValueError, match="x cannot be enumerated"):
        search.sweep(square, space, out=None, objective="f", identity={})
    found = search.sweep(
        square, space, out=None, objective="f", order="low-discrepancy", budget=20000, identity={}
    )
    assert found.labels(0)["y"] == 1 and abs(found.labels(0)["x"] - 3) < 0.01


def test_a_front_of_many_points_is_exact():
    """The host's merge against the plain definition, with ties."""
    rng = np.random.default_rng(0)
    points = rng.integers(0, 12, (3000, 3)).astype(np.float32)
    front = _sweep_front.Front([0, 1, 2], _sweep_front.empty(3, np.float32))
    order = rng.permutation(3000)
    for rows in np.array_split(order, 7):
        front.add(_sweep_front.Found(rows.astype(np.int64), tuple(points[rows].T)))
    expected = [
        i
        for i in range(3000)
        if not ((points <= points[i]).all(1) & ((points < points[i]).any(1) | (np.arange(3000) < i))).any()
    ]
    assert sorted(front.found.at) == expected
