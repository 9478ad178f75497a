"""Start-up: import time on top of jax, ``--help`` without jax, compile time of a network's gradient.

    python -m benchmarks.startup [--repeats R]

Every figure of an import comes from a fresh process; every compile from a fresh process without the
persistent cache. Bars: import <= 0.3 s on top of jax, compile (one dataflow) <= 2 s.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import _common

ROOT = Path(__file__).parent.parent

IMPORT = """
import time
start = time.perf_counter(); import jax; middle = time.perf_counter()
import diffhw
diffhw.Layer, diffhw.Accelerator, diffhw.models.systolic, diffhw.Space, diffhw.search.gradient
end = time.perf_counter()
import json; print(json.dumps({"jax": middle - start, "diffhw": end - middle}))
"""

HELP = """
import time
start = time.perf_counter()
from diffhw import cli
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as text:
    code = cli.main(["--help"])
seconds = time.perf_counter() - start
import json, sys; print(json.dumps({"seconds": seconds, "jax": "jax" in sys.modules, "code": code}))
"""

COMPILE = """
import json, sys, time
import jax, jax.numpy as jnp
from benchmarks import _pairs
from diffhw import models, numerics, workloads
network = workloads.load("mobilenet_v2").merged()
hw, mapping, loop, batch = _pairs.base(), sys.argv[1], sys.argv[2], int(sys.argv[3])
start = {"rows": 16.0, "cols": 16.0, "weight_bytes": 65536.0, "input_bytes": 65536.0, "output_bytes": 65536.0,
         "dram_gb_per_s": 12.8, "weights": [1.0, 0.0, 0.0]}
start = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
def log_edp(x):
    weights, design = mapping if mapping in ("os", "ws", "is") else x["weights"], _pairs.design(hw, x)
    cost = models.systolic(network, design, weights, layer_loop=loop, one_hot=mapping == "one-hot")
    return numerics.log(cost.energy_pj) + numerics.log(cost.cycles)
jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))  # the backend is up
function = jax.value_and_grad(log_edp)
if batch > 1:
    start = jax.tree.map(lambda leaf: jnp.stack([leaf] * batch), start)
    function = jax.vmap(function)
times = [time.perf_counter()]
traced = jax.jit(function).trace(start); times.append(time.perf_counter())
lowered = traced.lower(); times.append(time.perf_counter())
lowered.compile(); times.append(time.perf_counter())
print(json.dumps(dict(zip(("trace", "lower", "compile"), (b - a for a, b in zip(times, times[1:]))))))
"""


def fresh(code: str, *arguments) -> dict:
    """The JSON that ``code`` prints in a new process."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def middle(code: str, repeats: int, *arguments) -> dict:
    """Medians over fresh processes."""
    runs = [fresh(code, *arguments) for _ in range(repeats)]
    return {name: _common.median([run[name] for run in runs]) for name in runs[0]}


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="processes per figure (default 5)")
    repeats = parser.parse_args(arguments).repeats
    imports, helped = middle(IMPORT, repeats), middle(HELP, repeats)
    _common.table(
        "start-up, seconds (median of fresh processes)",
        ["what", "seconds", "bar"],
        [
            ["import jax", imports["jax"], ""],
            ["import diffhw on top, rooms used", imports["diffhw"], "0.3"],
            [f"diffhw --help (jax imported: {bool(helped['jax'])})", helped["seconds"], "no jax"],
        ],
    )
    rows, compiles = [], []
    for mapping, loop, batch in (
        ("ws", "vmap", 1),
        ("ws", "scan", 1),
        ("ws", "scan", 64),
        ("mixture", "vmap", 1),
        ("mixture", "scan", 1),
        ("one-hot", "scan", 64),
    ):
        times = middle(COMPILE, repeats, mapping, loop, batch)
        total = sum(times.values())
        compiles.append({"mapping": mapping, "layer_loop": loop, "designs": batch, **times, "total": total})
        rows.append([f"{mapping}, {loop}, {batch} designs", *times.values(), total])
    _common.table(
        "value and gradient of a network's log EDP (mobilenet_v2), seconds",
        ["mapping, form", "trace", "lower", "compile", "total (bar 2, one dataflow)"],
        rows,
    )
    _common.write("startup", {"repeats": repeats, "imports": imports, "help": helped, "compile": compiles})


if __name__ == "__main__":
    main()
