"""Start-up: imports, cold and warm commands and their compile share, compile time of a network's gradient.

    python -m benchmarks.startup [--repeats R] [--commands N] [--forms N]

Every figure comes from fresh processes. Cold: an empty cache folder (XDG_CACHE_HOME) for each run; warm:
the same command again. A command's seconds are those of the whole process, interpreter included; its trace,
compile and cache shares are what JAX reports. Bars: import <= 0.3 s on top of jax, compile (one dataflow)
<= 2 s, ``diffhw cost resnet50`` <= 3 s cold and <= 1.5 s warm.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import _common

QUICK = ["--commands", "1", "--forms", "1"]
LEFT_OUT = "diffhw sweep, which has no bar; five of the six forms of the gradient"

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
from benchmarks import _common, _pairs
from diffhw import models, workloads
network = workloads.load("mobilenet_v2").merged()
hw, mapping, loop, batch = _pairs.base(), sys.argv[1], sys.argv[2], int(sys.argv[3])
start = {"rows": 16.0, "cols": 16.0, "weight_bytes": 65536.0, "input_bytes": 65536.0, "output_bytes": 65536.0,
         "dram_gb_per_s": 12.8, "weights": [1.0, 0.0, 0.0]}
start = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
def log_edp(x):
    weights, design = mapping if mapping in ("os", "ws", "is") else x["weights"], _pairs.design(hw, x)
    cost = models.systolic(network, design, weights, layer_loop=loop, one_hot=mapping == "one-hot")
    return _common.log_edp(cost)
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


COMMAND = """
import contextlib, io, json, sys
from diffhw import cli
from diffhw._cli._runtime import start_jax
jax = start_jax()  # as the command itself would next
spent = {}
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **more: spent.update({event: spent.get(event, 0.0) + seconds}))
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(io.StringIO()) as said:
    code = cli.main(sys.argv[1:])
if code:
    sys.exit(said.getvalue())
print(json.dumps(spent))
"""

COMMANDS = {  # name: (arguments, bar cold, bar warm)
    "diffhw cost resnet50": (["cost", "resnet50", "--hardware", "edge"], 3.0, 1.5),
    "diffhw sweep alexnet": (
        ["sweep", "alexnet", "--space", "docs/examples/space.yaml", "--budget", "1024", "--out", "{out}"],
        None,
        None,
    ),
}
FORMS = (
    ("ws", "scan", 1),
    ("one-hot", "scan", 64),
    ("ws", "vmap", 1),
    ("ws", "scan", 64),
    ("mixture", "vmap", 1),
    ("mixture", "scan", 1),
)


def fresh(code: str, *arguments, **settings) -> dict:
    """The JSON that ``code`` prints in a new process, without compilation cache unless ``settings`` say."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_ENABLE_COMPILATION_CACHE": "false", **settings}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def middle(code: str, repeats: int, *arguments) -> dict:
    """Medians over fresh processes."""
    runs = [fresh(code, *arguments) for _ in range(repeats)]
    return {name: _common.median([run[name] for run in runs]) for name in runs[0]}


def command(words: list[str], repeats: int) -> dict[str, dict]:
    """{"cold": ..., "warm": ...}: medians of the seconds of a command, by `COMMAND`."""
    found: dict[str, list[dict]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(repeats):
            for kind, runs in found.items():
                filled = [word.replace("{out}", f"{folder}/out-{i}-{kind}") for word in words]
                settings = {"XDG_CACHE_HOME": f"{folder}/cache-{i}", "JAX_ENABLE_COMPILATION_CACHE": "true"}
                begin = time.perf_counter()
                spent = fresh(COMMAND, *filled, **settings)
                seconds = time.perf_counter() - begin
                of = lambda *ends, spent=spent: sum(v for k, v in spent.items() if k.endswith(ends))
                runs.append(
                    {
                        "seconds": seconds,
                        "trace": of("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration"),
                        "compile_or_load": of("backend_compile_duration"),
                    }
                )
    return {
        kind: {name: _common.median([run[name] for run in runs]) for name in runs[0]}
        for kind, runs in found.items()
    }


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="processes per figure (default 5)")
    parser.add_argument("--commands", type=int, default=len(COMMANDS), help="the first of them (default all)")
    parser.add_argument("--forms", type=int, default=len(FORMS), help="of the gradient (default all)")
    options = parser.parse_args(arguments)
    repeats = options.repeats
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
    rows, commands = [], {}
    for name, (words, *bars) in list(COMMANDS.items())[: options.commands]:
        commands[name] = command(words, repeats)
        for (kind, figures), bar in zip(commands[name].items(), bars, strict=True):
            rows.append([f"{name}, {kind}", *figures.values(), "" if bar is None else bar])
    _common.table(
        "commands, seconds of the whole process",
        ["command", "seconds", "trace", "compile or load", "bar"],
        rows,
    )
    rows, compiles = [], []
    for mapping, loop, batch in FORMS[: options.forms]:
        times = middle(COMPILE, repeats, mapping, loop, batch)
        total = sum(times.values())
        compiles.append({"mapping": mapping, "layer_loop": loop, "designs": batch, **times, "total": total})
        rows.append([f"{mapping}, {loop}, {batch} designs", *times.values(), total])
    _common.table(
        "value and gradient of a network's log EDP (mobilenet_v2), seconds",
        ["mapping, form", "trace", "lower", "compile", "total (bar 2, one dataflow)"],
        rows,
    )
    result = {
        "repeats": repeats,
        "imports": imports,
        "help": helped,
        "commands": commands,
        "compile": compiles,
    }
    _common.write("startup", result)


if __name__ == "__main__":
    main()
