"""SCALE-Sim and ZigZag on a few layers, beside ours on the same layers and arrays.

    python -m benchmarks.peers [--tools scalesim zigzag]

Each comes from the package index into a virtual environment of its own in a temporary folder; without it
the benchmark says so and goes on. SCALE-Sim: both sides give cycles, SRAM and DRAM words of a stall-free run
(InterfaceBandwidth CALC); CPU seconds per layer, one process each. The tool reports the index of the last
cycle, so its total is one below ours. ZigZag: CPU seconds per mapping that its own search evaluates on its
TPU-like example (its cost model, no import or parsing), beside ours on the same file read as a hierarchy,
random mappings of zoo layers priced on this one (most do not fit it; the work is the same); whether the two
agree is `diffhw validate zigzag`'s matter. The other
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

QUICK = ["--tools", "scalesim"]

PACKAGES = {"scalesim": ("scalesim==2.0.2", "numpy<2.4"), "zigzag": ("zigzag-dse==3.9.1", "six")}
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
config, topology, out = sys.argv[1:]
start = time.process_time()
scalesim(save_disk_space=True, verbose=False, config=config, topology=topology).run_scale(top_path=out)
seconds = time.process_time() - start
with open(glob.glob(out + "/**/COMPUTE_REPORT.csv", recursive=True)[0]) as file:
    row = [{k.strip(): v for k, v in row.items() if k} for row in csv.DictReader(file)][0]
print("RESULT " + json.dumps({"seconds": seconds, "cycles": float(row["Total Cycles"])}))
"""


ZIGZAG_DRIVER = """
import json, logging, os, sys, time
import zigzag
from zigzag import api
from zigzag.stages.evaluation import cost_model_evaluation as stage
logging.disable(logging.CRITICAL)
plain, spent = stage.CostModelEvaluation, [0, 0.0]
def counted(*arguments, **keywords):
    start = time.process_time()
    out = plain(*arguments, **keywords)
    spent[0] += 1
    spent[1] += time.process_time() - start
    return out
stage.CostModelEvaluation = counted
inputs = os.path.join(os.path.dirname(zigzag.__file__), "inputs")
workload, out = sys.argv[1:]
start = time.process_time()
api.get_hardware_performance_zigzag(
    workload, inputs + "/hardware/tpu_like.yaml", inputs + "/mapping/default.yaml", opt="EDP", lpf_limit=4,
    dump_folder=out, nb_spatial_mappings_generated=1, loma_show_progress_bar=False)
print("RESULT " + json.dumps({"mappings": spent[0], "model_s": spent[1], "all_s": time.process_time() - start,
                              "accelerator": inputs + "/hardware/tpu_like.yaml"}))
"""


def install(folder: Path, tool: str) -> Path | None:
    """Python of a virtual environment with the tool, or None."""
    python = folder / tool / "bin" / "python"
    try:
        command = [sys.executable, "-m", "venv", str(folder / tool)]
        subprocess.run(command, check=True, capture_output=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES[tool]]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (subprocess.SubprocessError, OSError) as error:
        name = PACKAGES[tool][0]
        print(f"{name} could not be installed ({type(error).__name__}): the comparison is left out")
        return None
    return python


def zigzag(folder: Path, rounds: int = 5) -> list[dict]:
    """CPU seconds per mapping: ZigZag's cost model in its own search, and ours in a batch."""
    python = install(folder, "zigzag")
    if python is None:
        return []
    results, rows = [], []
    for label, (h, w, r, s, c, k, stride) in LAYERS.items():
        layer = Layer.create(h=h, w=w, r=r, s=s, c=c, k=k, stride_h=stride, stride_w=stride)
        path = folder / "workload.yaml"
        write_zigzag_workload(layer, path)
        command = [str(python), "-c", ZIGZAG_DRIVER, str(path), str(folder / "zigzag-out")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not found:
            print(f"ZigZag failed on {label}: {done.stderr.strip().splitlines()[-1:]}")
            continue
        theirs = json.loads(found[-1].removeprefix("RESULT "))
        chip = hardware.read_zigzag(theirs.pop("accelerator"))
        nests = jax.tree.map(jnp.asarray, random_batch(chip, MAPPINGS)[1])
        costs = lambda nest, layer=layer, chip=chip: loopnest.layer(layer, chip, nest)
        figures = lambda nest, costs=costs: (costs(nest).energy_pj, costs(nest).cycles)
        start = time.process_time()
        batch = jax.jit(jax.vmap(figures)).lower(nests).compile()
        compile_s, seconds = time.process_time() - start, []
        jax.block_until_ready(batch(nests))
        for _ in range(rounds):
            start = time.process_time()
            for _ in range(5):
                jax.block_until_ready(batch(nests))
            seconds.append((time.process_time() - start) / 5 / MAPPINGS)
        ours, each = _common.median(seconds), theirs["model_s"] / theirs["mappings"]
        row = {"layer": label, "zigzag": theirs, "zigzag_s": each, "diffhw_s": ours, "compile_s": compile_s}
        results.append(row | {"ratio": each / ours})
        rows.append([label, theirs["mappings"], each * 1e3, ours * 1e9, each / ours, compile_s])
    header = ["CPU time per mapping", "evaluated", "ZigZag ms", "ours ns (in a batch)", "ratio"]
    _common.table(f"{PACKAGES['zigzag'][0]}, its TPU-like example", [*header, "our compile s"], rows)
    return results


def simulate(python: Path, folder: Path, shape, dataflow: str) -> dict | None:
    """Its CPU seconds and cycles for one layer."""
    h, w, r, s, c, k, stride = shape
    topology, config, out = folder / "layer.csv", folder / "scale.cfg", folder / "out"
    header = "Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Strides,"
    topology.write_text(f"{header}\nlayer,{h},{w},{r},{s},{c},{k},{stride},\n")
    config.write_text(CONFIG.format(rows=ROWS, cols=COLS, kb=BUFFER_KB, dataflow=dataflow))
    command = [str(python), "-c", DRIVER, str(config), str(topology), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    print(f"SCALE-Sim failed on {shape}: {done.stderr.strip().splitlines()[-1:]}")
    return None


def ours(shape, dataflow: str) -> dict:
    """Our CPU seconds per layer within one call of `COPIES`, seconds of a call for one, and compile time."""
    h, w, r, s, c, k, stride = shape
    one = Layer.create(h=h, w=w, r=r, s=s, c=c, k=k, stride_h=stride, stride_w=stride)
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


def scalesim(folder: Path) -> list[dict]:
    """CPU seconds per layer: SCALE-Sim, and ours in a batch and alone."""
    results, rows = [], []
    python = install(folder, "scalesim")
    if python is None:
        return []
    for label, shape in LAYERS.items():
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
    options = parser.parse_args(arguments)
    result: dict = {"packages": PACKAGES}
    with tempfile.TemporaryDirectory() as name:
        if "scalesim" in options.tools:
            result["rows"] = scalesim(Path(name))
        if "zigzag" in options.tools:
            result["zigzag"] = zigzag(Path(name))
    _common.write("peers", result)


if __name__ == "__main__":
    main()
