"""SCALE-Sim and ZigZag on a few layers, beside ours on the same layers and arrays.

    python -m benchmarks.peers [--tools scalesim zigzag] [--layers N]

Each comes from the package index into a virtual environment of its own, kept in benchmarks/build/peers;
without it the benchmark says so and goes on. SCALE-Sim: both sides give cycles, SRAM and DRAM words of a
stall-free run (InterfaceBandwidth CALC); CPU seconds per layer. The tool reports the index of the last cycle,
so its total is one below ours. ZigZag: mappings per CPU second of its cost model, called by its own search on
its TPU-like example, beside ours on the same file read as a hierarchy, random mappings of the same layer.
Whether the two agree is `diffhw validate zigzag`'s matter. Medians of five runs of either tool. The other
tools of our reference tables are no Python packages: their recorded times stand in docs/performance.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks import _common, _pairs
from benchmarks._loopnests import random_batch
from diffhw import hardware
from diffhw.models import loopnest, systolic
from diffhw.workloads import Layer, write_zigzag_workload

QUICK = ["--layers", "1"]
LEFT_OUT = "two of the three layers"

# six: of multiprocessing_on_dill, which does not ask for it.
PACKAGES = {"scalesim": ("scalesim==2.0.2", "numpy<2.4"), "zigzag": ("zigzag-dse==3.9.1", "six")}
INSTALL_S, RUN_S = 300, 120  # at most
REPEATS = 5  # of a peer's run
ROWS = COLS = 32
BUFFER_KB = 64
MAPPINGS = 32768  # of each layer in one call, for our time per mapping
COPIES = 65536  # of each layer in one call, for our time per layer

# name: input height and width, filter height and width, channels, filters, stride
LAYERS = {
    "conv 14 x 14, 64 to 64, 1 x 1": (14, 14, 1, 1, 64, 64, 1),
    "conv 28 x 28, 32 to 64, 3 x 3": (30, 30, 3, 3, 32, 64, 1),
    "conv 56 x 56, 64 to 64, 1 x 1": (56, 56, 1, 1, 64, 64, 1),
}

CONFIG = """[general]
run_name = peer
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {cols}
IfmapSramSzkB: {kb}
FilterSramSzkB: {kb}
OfmapSramSzkB: {kb}
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: {dataflow}
Bandwidth: 10
MemoryBanks: 1
[run_presets]
InterfaceBandwidth: CALC
"""

DRIVER = """
import csv, glob, json, sys, time
from scalesim.scale_sim import scalesim
config, topology, out, repeats = sys.argv[1:]
seconds = []
for i in range(int(repeats)):
    start = time.process_time()
    scalesim(save_disk_space=True, verbose=False, config=config, topology=topology).run_scale(top_path=out)
    seconds.append(time.process_time() - start)
with open(glob.glob(out + "/**/COMPUTE_REPORT.csv", recursive=True)[0]) as file:
    row = [{k.strip(): v for k, v in row.items() if k} for row in csv.DictReader(file)][0]
print("RESULT " + json.dumps({"seconds": seconds, "cycles": float(row["Total Cycles"])}))
"""


# The example has a key twice, which our reader refuses: written as ZigZag's own reader takes it, for both.
ZIGZAG_DRIVER = """
import json, logging, os, sys, time
import yaml, zigzag
from zigzag import api
from zigzag.stages.evaluation import cost_model_evaluation as stage
logging.disable(logging.CRITICAL)
plain, spent = stage.CostModelEvaluation, []
def counted(*arguments, **keywords):
    start = time.process_time()
    out = plain(*arguments, **keywords)
    spent.append(time.process_time() - start)
    return out
stage.CostModelEvaluation = counted
inputs = os.path.join(os.path.dirname(zigzag.__file__), "inputs")
workload, accelerator, out, repeats = sys.argv[1:]
with open(inputs + "/hardware/tpu_like.yaml") as given, open(accelerator, "w") as file:
    yaml.safe_dump(yaml.safe_load(given), file, sort_keys=False)
runs = []
for i in range(int(repeats)):
    spent.clear()
    start = time.process_time()
    api.get_hardware_performance_zigzag(
        workload, accelerator, inputs + "/mapping/default.yaml", opt="EDP", lpf_limit=4,
        dump_folder=out, nb_spatial_mappings_generated=1, loma_show_progress_bar=False)
    runs.append({"mappings": len(spent), "model_s": sum(spent), "all_s": time.process_time() - start})
print("RESULT " + json.dumps({"runs": runs}))
"""

ZIGZAG_NOTE = """\
  Not like for like. ZigZag, per mapping: a call of its Python cost model (occupation of every memory, words
  over every port, energy, stalls link by link), one mapping after another on one core, for mappings that its
  search proposes, in which each operand may cut the loops at levels of its own. Ours, per mapping: energy,
  cycles and how far it does not fit, from a compiled program, the loops cut at the same levels for all
  operands, stalls by the busiest port; random mappings. Both: one layer, the same memories; neither search
  nor reading of files is timed. "one a call" is by the clock, the rest by CPU seconds."""


def answer(command: list, folder: Path, what: str) -> dict | None:
    """What a peer's process reports, or None with a sentence."""
    try:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, cwd=folder, timeout=RUN_S
        )
    except subprocess.TimeoutExpired:
        print(f"{what}: stopped after {RUN_S} s")
        return None
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    print(f"{what} failed: {done.stderr.strip().splitlines()[-1:]}")
    return None


def install(tool: str) -> Path | None:
    """Python of a virtual environment with the tool, made if it is not there yet, or None."""
    place = _common.BUILD / "peers" / tool
    python, made = place / "bin" / "python", place / "installed.json"
    if made.exists() and json.loads(made.read_text()) == list(PACKAGES[tool]):
        return python
    try:
        command = [sys.executable, "-m", "venv", "--clear", str(place)]
        subprocess.run(command, check=True, capture_output=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES[tool]]
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_S)
    except (subprocess.SubprocessError, OSError) as error:
        name = PACKAGES[tool][0]
        print(f"{name} could not be installed ({type(error).__name__}): the comparison is left out")
        return None
    made.write_text(json.dumps(PACKAGES[tool]))
    return python


def layer_of(shape) -> Layer:
    h, w, r, s, c, k, stride = shape
    return Layer.create(h=h, w=w, r=r, s=s, c=c, k=k, stride_h=stride, stride_w=stride)


def zigzag(folder: Path, layers: dict, rounds: int = 5) -> list[dict]:
    """Mappings per CPU second: ZigZag's cost model in its own search, and ours in a batch and alone."""
    python = install("zigzag")
    if python is None:
        return []
    results, rows = [], []
    workload, accelerator = folder / "workload.yaml", folder / "accelerator.yaml"
    for label, shape in layers.items():
        layer = layer_of(shape)
        write_zigzag_workload(layer, workload)
        command = [python, "-c", ZIGZAG_DRIVER, workload, accelerator, folder / "zigzag-out", REPEATS]
        theirs = answer(command, folder, f"ZigZag on {label}")
        if theirs is None:
            continue
        chip = hardware.read_zigzag(accelerator)
        nests = jax.tree.map(jnp.asarray, random_batch(chip, MAPPINGS, layer=layer)[1])

        def figures(nest, layer=layer, chip=chip):
            cost = loopnest.layer(layer, chip, nest)
            return cost.energy_pj, cost.cycles, cost.violation

        start = time.process_time()
        batch = jax.jit(jax.vmap(figures)).lower(nests).compile()
        compile_s = time.process_time() - start
        first = jax.tree.map(lambda leaf: leaf[0], nests)
        single = jax.jit(figures).lower(first).compile()
        seconds, alone = [], []
        fit = float(jnp.mean(batch(nests)[2] <= 0))
        for _ in range(rounds):
            start = time.process_time()
            for _ in range(5):
                jax.block_until_ready(batch(nests))
            seconds.append((time.process_time() - start) / 5 / MAPPINGS)
            start = time.perf_counter()
            for _ in range(100):
                jax.block_until_ready(single(first))
            alone.append((time.perf_counter() - start) / 100)
        each = _common.median([run["model_s"] / run["mappings"] for run in theirs["runs"]])
        count = theirs["runs"][0]["mappings"]
        row = {
            "layer": label,
            "zigzag": theirs,
            "zigzag_per_s": 1 / each,
            "diffhw_per_s": 1 / _common.median(seconds),
            "diffhw_single_call_per_s": 1 / _common.median(alone),
            "share_that_fits": fit,
            "compile_s": compile_s,
        }
        row["ratio"] = row["diffhw_per_s"] / row["zigzag_per_s"]
        row["ratio_single_call"] = row["diffhw_single_call_per_s"] / row["zigzag_per_s"]
        results.append(row)
        rows.append([label, count, *(row[name] for name in ("zigzag_per_s", "diffhw_per_s", "ratio"))])
        rows[-1] += [row["diffhw_single_call_per_s"], row["ratio_single_call"], compile_s]
    header = ["mappings per CPU second", "its mappings", "ZigZag", f"ours, {MAPPINGS} a call", "ratio"]
    header += ["ours, one a call", "ratio", "our compile s"]
    _common.table(f"{PACKAGES['zigzag'][0]}, its TPU-like example", header, rows)
    print(ZIGZAG_NOTE)
    return results


def simulate(python: Path, folder: Path, shape, dataflow: str) -> dict | None:
    """Its CPU seconds and cycles for one layer."""
    h, w, r, s, c, k, stride = shape
    topology, config, out = folder / "layer.csv", folder / "scale.cfg", folder / "out"
    header = "Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Strides,"
    topology.write_text(f"{header}\nlayer,{h},{w},{r},{s},{c},{k},{stride},\n")
    config.write_text(CONFIG.format(rows=ROWS, cols=COLS, kb=BUFFER_KB, dataflow=dataflow))
    command = [python, "-c", DRIVER, config, topology, out, REPEATS]
    found = answer(command, folder, f"SCALE-Sim on {shape}")
    return found and found | {"seconds": _common.median(found["seconds"])}


def ours(shape, dataflow: str) -> dict:
    """Our CPU seconds per layer within one call of `COPIES`, seconds of a call for one, and compile time."""
    one = layer_of(shape)
    hw = _pairs.design(
        _pairs.base(),
        {
            "rows": jnp.float32(ROWS),
            "cols": jnp.float32(COLS),
            "dram_gb_per_s": jnp.float32(1e6),  # no stalls
            **{f"{name}_bytes": jnp.float32(BUFFER_KB * 1024) for name, _ in _pairs.BUFFERS},
        },
    )

    def counts(layer):
        cost = systolic.layer(layer, hw, dataflow)
        return cost.cycle_parts["compute"], cost.traffic_bytes

    many = jax.tree.map(lambda leaf: jnp.full(COPIES, leaf), one)
    start = time.process_time()
    batch = jax.jit(jax.vmap(counts)).lower(many).compile()
    compile_s = time.process_time() - start
    single = jax.jit(counts).lower(one).compile()
    per_layer, per_call = [], []
    for _ in range(9):
        start = time.process_time()
        jax.block_until_ready(batch(many))
        per_layer.append((time.process_time() - start) / COPIES)
        start = time.perf_counter()
        jax.block_until_ready(single(one))
        per_call.append(time.perf_counter() - start)
    return {
        "cycles": float(single(one)[0]),
        "seconds": _common.median(per_layer),
        "single_call_s": _common.median(per_call),
        "compile_s": compile_s,
    }


def scalesim(folder: Path, layers: dict) -> list[dict]:
    """CPU seconds per layer: SCALE-Sim, and ours in a batch and alone."""
    results, rows = [], []
    python = install("scalesim")
    if python is None:
        return []
    for label, shape in layers.items():
        for dataflow in ("os", "ws"):
            theirs, mine = simulate(python, folder, shape, dataflow), ours(shape, dataflow)
            if theirs is None:
                continue
            same = mine["cycles"] - 1 == theirs["cycles"]
            ratio, alone = theirs["seconds"] / mine["seconds"], theirs["seconds"] / mine["single_call_s"]
            results.append(
                {
                    "layer": label,
                    "dataflow": dataflow,
                    "scalesim": theirs,
                    "diffhw": mine,
                    "ratio": ratio,
                    "ratio_single_call": alone,
                }
            )
            rows.append(
                [
                    f"{label}, {dataflow}",
                    theirs["seconds"],
                    mine["seconds"] * 1e9,
                    ratio,
                    alone,
                    same,
                    mine["compile_s"],
                ]
            )
    header = ["CPU time per layer", "SCALE-Sim s", "ours ns (in a batch)", "ratio", "ratio, one call"]
    _common.table(
        f"{PACKAGES['scalesim'][0]}, {ROWS} x {COLS} array", [*header, "same cycles", "our compile s"], rows
    )
    return results


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", nargs="*", default=tuple(PACKAGES), choices=tuple(PACKAGES))
    parser.add_argument("--layers", type=int, default=len(LAYERS), help="the first of them (default all)")
    options = parser.parse_args(arguments)
    layers = dict(list(LAYERS.items())[: options.layers])
    result: dict = {"packages": PACKAGES}
    with tempfile.TemporaryDirectory() as name:
        if "scalesim" in options.tools:
            result["rows"] = scalesim(Path(name), layers)
        if "zigzag" in options.tools:
            result["zigzag"] = zigzag(Path(name), layers)
    _common.write("peers", result)


if __name__ == "__main__":
    main()
