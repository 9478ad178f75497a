"""Two processes on one folder; one of them is killed, the other ends the sweep."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys
import jax, jax.numpy as jnp
jax.config.update("jax_compilation_cache_dir", sys.argv[4])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
from diffhw import search
from diffhw.spaces import Integer, Space

def evaluate(d):
    slow = jax.lax.fori_loop(0, 1000, lambda i, x: jnp.sin(x) + d["a"], d["b"])
    return {"f": jnp.abs(d["a"] - 17.3) * (d["b"] + 1) + slow * 1e-3, "g": d["c"] + slow}

space = Space({"a": Integer(1, 60), "b": Integer(1, 60), "c": Integer(1, 100)})
print("ready", flush=True)
result = search.sweep(
    evaluate, space, out=sys.argv[1], objective="f", pareto=("f", "g"), record=("f",), chunk=4096, block=1024,
    identity={}, host=(int(sys.argv[2]), int(sys.argv[3])), claim_seconds=1.0,
)
print(result.evaluated)
"""


def start(folder, host, hosts, cache):
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(host), str(hosts), str(cache)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def end(worker):
    out, error = worker.communicate(timeout=120)
    assert worker.returncode == 0, error
    return int(out.split()[-1])


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "timing.json" and "chunks" not in path.parts
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    base = tmp_path_factory.mktemp("alone")
    assert end(start(base / "out", 0, 1, base / "cache")) == 360_000
    return base / "out", base / "cache"


def done(folder):
    return len(list(folder.glob("chunks/*.json")))


def wait_for_both(folder, workers):
    """Until each has finished a chunk: the second begins in the middle."""
    first, second = folder / "chunks" / "000000000.json", folder / "chunks" / "000000044.json"
    while not (first.exists() and second.exists()) and any(one.poll() is None for one in workers):
        time.sleep(0.005)


@pytest.mark.slow
def test_the_survivor_of_a_kill_ends_the_sweep(alone, tmp_path):
    reference, cache = alone
    workers = [start(tmp_path, host, 2, cache) for host in (0, 1)]
    wait_for_both(tmp_path, workers)
    victim = workers[1]
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    killed_at = done(tmp_path)
    begun = time.monotonic()
    survived = end(workers[0])
    assert killed_at < done(tmp_path) == 88 and survived > 0
    assert time.monotonic() - begun < 60
    assert contents(tmp_path) == contents(reference)


@pytest.mark.slow
def test_two_processes_share_the_work_and_a_rerun_ends_it(alone, tmp_path):
    reference, cache = alone
    workers = [start(tmp_path, host, 2, cache) for host in (0, 1)]
    wait_for_both(tmp_path, workers)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    before = done(tmp_path)
    again = end(start(tmp_path, 0, 1, cache))
    assert 2 <= before < 88 and again <= 360_000 - (before - 1) * 4096
    assert contents(tmp_path) == contents(reference)
    answer = json.loads((tmp_path / "result.json").read_text())
    assert answer["designs"] == 360_000 and len(answer["top"]) == 10
