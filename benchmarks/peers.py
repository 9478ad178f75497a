"""SCALE-Sim on a few layers, beside ours on the same layers and array.

    python -m benchmarks.peers

The simulator comes from the package index into a virtual environment of its own in a temporary
folder; without it the benchmark says so and ends. Both sides give cycles, SRAM and DRAM words of a
stall-free run (InterfaceBandwidth CALC); the comparison is CPU seconds per layer, one process each.
The tool reports the index of the last cycle, so its total is one below ours.
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
from diffhw.models import systolic
from diffhw.workloads import Layer

PACKAGES = ("scalesim==2.0.2", "numpy<2.4")
ROWS = COLS = 32
BUFFER_KB = 64
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


def install(folder: Path) -> Path | None:
    """Python of a virtual environment with the simulator, or None."""
    python = folder / "venv" / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, capture_output=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"SCALE-Sim could not be installed ({type(error).__name__}): the comparison is left out")
        return None
    return python


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


def main(arguments=None) -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    results, rows = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = install(folder)
        if python is None:
            return
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
    _common.table(f"{PACKAGES[0]}, {ROWS} x {COLS} array", [*header, "same cycles", "our compile s"], rows)
    _common.write("peers", {"packages": PACKAGES, "rows": results})


if __name__ == "__main__":
    main()
