"""Kills a sweep at random moments and compares what it leaves with an undisturbed run, byte for byte.

A sweep of a systolic space with a Parquet record of every design, sized to take about --seconds. Workers
are killed with SIGKILL and started again, first one process, then two on one folder, until each of the
two trials has seen --kills kills; a sweep that is finished before that is compared, and another is begun.

    python -m benchmarks.kill_test [--kills N] [--seconds S] [--processes P ...] [--seed K] [--folder DIR]

Local processes only. The folder (default: a temporary one) needs room for about 3 bytes per design, twice.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import _common

QUICK = ["--kills", "3", "--seconds", "3", "--processes", "1"]
LEFT_OUT = "two processes on one folder, 47 of the 50 kills, a sweep of a minute"

CHUNK = 1 << 17
PATIENCE = 5.0  # claim_seconds


def problem():
    """Space and cost: one layer, array sides, three buffers, DRAM bandwidth; 1.0e9 designs."""
    from dataclasses import replace

    import jax
    import numpy as np

    import diffhw as dh
    from benchmarks import _pairs

    hw = _pairs.base()
    levels = tuple(
        replace(level, capacity_bytes=dh.Integer(8192, 8192 * 2**7.5, per_octave=2)) for level in hw.levels
    )
    hw = replace(hw, rows=dh.Integer(4, 131), cols=dh.Integer(4, 131), levels=levels)
    space = dh.Space(replace(hw, dram=replace(hw.dram, gb_per_s=dh.Real(1.0, 15.0, step=1.0))))
    layer = jax.tree.map(lambda leaf: float(np.asarray(leaf)[3]), dh.workloads.load("resnet18").layers)

    def evaluate(design):
        cost = dh.models.systolic.layer(layer, design, "ws")
        names = ("edp", "latency_s", "energy_pj", "area_mm2", "feasible")
        return {name: getattr(cost, name) for name in names}

    return evaluate, space


def work(folder: str, budget: int, host: int, hosts: int) -> None:
    """One worker."""
    import jax

    jax.config.update("jax_compilation_cache_dir", os.environ["KILL_TEST_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    import diffhw as dh

    evaluate, space = problem()
    result = dh.search.sweep(
        evaluate,
        space,
        out=folder,
        objective="edp",
        budget=budget,
        top_k=100,
        pareto=("latency_s", "energy_pj", "area_mm2"),
        record=("edp",),
        chunk=CHUNK,
        identity={"network": "resnet18", "layer": 3},
        host=(host, hosts),
        claim_seconds=PATIENCE,
    )
    print(json.dumps({"rate": result.rate, "evaluated": result.evaluated, "notes": result.notes}))


def start(folder: Path, budget: int, host: int = 0, hosts: int = 1) -> subprocess.Popen:
    """A worker in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.kill_test", "--worker", str(folder)]
    command += [str(budget), str(host), str(hosts)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(worker: subprocess.Popen) -> dict:
    """What a worker that ended by itself said; a failed one ends the test."""
    out, error = worker.communicate()
    if worker.returncode != 0:
        sys.exit(f"a worker failed:\n{error}")
    return json.loads(out.splitlines()[-1])


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash of every file that must not depend on the history; leftovers show as files too."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    skip = {"timing.json"}
    names = {path.relative_to(folder).as_posix(): path for path in paths if path.name not in skip}
    # Chunk files hold candidates for the front: how many were ruled out at once depends on the history.
    return {
        name: "" if name.startswith("chunks/") else hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
    }


def trial(folder: Path, budget: int, kills: int, mean: float, hosts: int, rng, expected: dict) -> dict:
    """Kill and restart until ``kills`` kills are done and the last sweep has ended."""
    done, sweeps, wrong, unfinished, notes = 0, 0, [], [], 0
    begun = time.perf_counter()
    while done < kills:
        shutil.rmtree(folder, ignore_errors=True)
        workers = [start(folder, budget, host, hosts) for host in range(hosts)]
        while workers:
            moment = time.perf_counter() + rng.uniform(0, 2 * mean)
            while time.perf_counter() < moment and any(one.poll() is None for one in workers):
                time.sleep(0.01)
            if all(one.poll() is not None for one in workers):
                notes += sum(len(finished(one)["notes"]) for one in workers)
                break
            if done < kills:
                victim = rng.choice([i for i, one in enumerate(workers) if one.poll() is None])
                workers[victim].send_signal(signal.SIGKILL)
                workers[victim].communicate()
                done += 1
                unfinished.append(sum(1 for _ in folder.glob("chunks/*.json")))
                workers[victim] = start(folder, budget, victim, hosts)
        sweeps += 1
        found = fingerprint(folder)
        names = sorted(set(found) | set(expected))
        wrong += [name for name in names if found.get(name) != expected.get(name)]
        print(f"  {hosts} process(es), sweep {sweeps}: {done} kills, {len(wrong)} files differ", flush=True)
    return {
        "processes": hosts,
        "kills": done,
        "sweeps": sweeps,
        "chunks_at_kills": unfinished,
        "repaired": notes,
        "files_that_differ": wrong,
        "seconds": time.perf_counter() - begun,
    }


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="per trial (default 50)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the undisturbed sweep (default 60)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="trials (default 1 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        folder, *numbers = options.worker
        return work(folder, *map(int, numbers))
    base = Path(tempfile.mkdtemp(dir=options.folder))
    os.environ["KILL_TEST_CACHE"] = str(base / "cache")
    try:
        _main(options, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _main(options, base: Path) -> None:
    rng = random.Random(options.seed)
    finished(start(base / "warm", CHUNK))  # compiles into the cache
    rate = finished(start(base / "some", 40 * CHUNK))["rate"]
    budget = max(8, round(rate * options.seconds / CHUNK)) * CHUNK + CHUNK // 3
    begun = time.perf_counter()
    whole = finished(start(base / "reference", budget))
    seconds = whole["evaluated"] / whole["rate"]
    startup = time.perf_counter() - begun - seconds
    expected = fingerprint(base / "reference")
    print(
        f"undisturbed: {budget:,} designs, {len(expected)} files, {seconds:.1f} s, start-up {startup:.1f} s"
    )
    rows, trials = [], []
    for hosts in options.processes:
        # A worker lives long enough, on average, to get its share of the sweep done.
        mean = (startup + seconds / options.kills) / hosts
        found = trial(base / f"trial{hosts}", budget, options.kills, mean, hosts, rng, expected)
        trials.append(found)
        rows.append(
            [
                f"{hosts} process(es)",
                found["kills"],
                found["sweeps"],
                f"{min(found['chunks_at_kills'])} to {max(found['chunks_at_kills'])}",
                found["repaired"],
                len(found["files_that_differ"]),
                found["seconds"],
            ]
        )
    header = ["trial", "kills", "sweeps", "chunks done at kills", "repaired", "files that differ", "s"]
    _common.table(f"kill test, {budget:,} designs, {len(expected)} files compared", header, rows)
    result = {"designs": budget, "undisturbed_s": seconds, "startup_s": startup, "files": len(expected)}
    _common.write("kill_test", result | {"kills_each": options.kills, "seed": options.seed, "trials": trials})
    if any(found["files_that_differ"] for found in trials):
        sys.exit("files differ")


if __name__ == "__main__":
    main()
