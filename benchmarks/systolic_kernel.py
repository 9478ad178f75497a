"""Speed of the systolic kernel beside a C program of the same formulas.

2**20 pairs of a real layer and a random legal array, three dataflows. For each: cycles only (DRAM
stalls included), full cost (all 31 leaves of `Cost`), and the value and gradient of log EDP in rows,
cols, three capacities and the DRAM bandwidth, by reverse and by forward mode.

    python -m benchmarks.systolic_kernel [--count N] [--rounds R] [--vector-width BITS]

"in blocks": by `diffhw.batching.in_blocks` (512-bit vectors always), the rest by vmap on one device.
JAX runs on whatever ``jax.devices()`` gives; the C program (benchmarks/systolic.c) on this machine's
cores, in blocks of several sizes: results of a block go to the same small arrays, or all are kept.
Each round times every program once, so that a busy moment of a shared machine hits all alike.
"""

import argparse
import os
import shutil
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _common, _pairs
from benchmarks._native import Blocks, device_per_core, many
from benchmarks._pairs import DATAFLOWS, KNOBS, LEAVES, SIZES
from diffhw.fusing import joined
from diffhw.models import array_counts, systolic

QUICK = ["--count", "262144", "--rounds", "5"]

BATCHES = (16384, 65536, 262144)
BLOCKS = (1024, *BATCHES)  # and all
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-fopt-info-vec-optimized")


# ---- The C program ----------------------------------------------------------------------------------


def compile_c() -> str | None:
    """Path of the program, or None without gcc. Keeps the vectorisation report beside the results."""
    if shutil.which("gcc") is None:
        return None
    _common.BUILD.mkdir(exist_ok=True)
    _common.RESULTS.mkdir(exist_ok=True)
    program, source = _common.BUILD / "systolic", "systolic.c"
    command = ["gcc", *FLAGS, source, "-o", str(program), "-lm"]
    done = subprocess.run(command, cwd=_common.HERE, capture_output=True, text=True, check=True)
    version = subprocess.run(["gcc", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    report = sorted({line for line in done.stderr.splitlines() if "loop vectorized" in line})
    text = f"{version}\ngcc {' '.join(FLAGS)} {source} -lm\n" + "\n".join(report) + "\n"
    (_common.RESULTS / "systolic_vectorisation.txt").write_text(text)
    return str(program)


def write_input(columns: dict, hw) -> str:
    """The pairs as the C program reads them."""
    path = _common.BUILD / "pairs.bin"
    with open(path, "wb") as file:
        file.write(_pairs.constants(hw).tobytes())
        for name in (*SIZES, *KNOBS):
            file.write(columns[name].tobytes())
    return str(path)


def run_c(program, pairs, count, dataflow, mode, block, repeats=3) -> tuple[list[float], np.ndarray]:
    """Seconds of each repeat, and the outputs."""
    out = str(_common.BUILD / "out.bin")
    command = [program, pairs, out, count, DATAFLOWS.index(dataflow), mode, min(block, count), repeats]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    text = subprocess.run(
        map(str, command), capture_output=True, text=True, check=True, env=environment
    ).stdout
    return [float(line.split()[0]) for line in text.splitlines()], np.fromfile(out, np.float32).reshape(
        -1, count
    )


# ---- The JAX programs -------------------------------------------------------------------------------


def forms(hw, dataflow: str) -> dict:
    """Functions of one pair, columns -> outputs."""

    def full(columns):
        return systolic.layer(_pairs.layer(columns), _pairs.design(hw, columns), dataflow)

    def log_edp(knobs, columns):
        return _common.log_edp(full({**columns, **knobs}))  # and a constant

    def split(columns):
        return {name: columns[name] for name in KNOBS}

    def forward(columns):
        knobs = split(columns)

        def slope(name):  # one number at a time: what does not depend on it costs nothing
            along = lambda x: log_edp({**knobs, name: x}, columns)
            return jax.jvp(along, (knobs[name],), (jnp.ones_like(knobs[name]),))[1]

        return log_edp(knobs, columns), {name: slope(name) for name in KNOBS}

    cycles = lambda columns: full(columns).cycles
    return {
        "cycles": cycles,
        "cycles, in blocks": Blocks(cycles, 1024),
        "full": full,
        "full, joined": joined(full),
        "full, in blocks": Blocks(joined(full), 1024),
        "log EDP": lambda columns: log_edp(split(columns), columns),
        "+ gradient, reverse": lambda columns: jax.value_and_grad(log_edp)(split(columns), columns),
        "+ gradient, reverse, joined": joined(
            lambda columns: jax.value_and_grad(log_edp)(split(columns), columns)
        ),
        "+ gradient, forward": forward,
    }


class Program:
    """One compiled form at one batch size."""

    def __init__(self, function, chunks: list[dict], options: dict | None = None):
        start = time.perf_counter()
        self.chunks = []
        for chunk in chunks:
            jitted, (columns,), options = many(function, (chunk,), options)
            self.chunks.append(columns)
        lowered = jitted.lower(columns)
        self.lower_s = time.perf_counter() - start
        start = time.perf_counter()
        self.compiled = lowered.compile(options)
        self.compile_s = time.perf_counter() - start
        analysis = {} if isinstance(function, Blocks) else self.compiled.cost_analysis() or {}
        batch = len(chunks[0]["rows"])
        self.operations = analysis.get("flops", float("nan")) / batch
        self.bytes = analysis.get("bytes accessed", float("nan")) / batch
        self.kernels = self.compiled.as_text().count(" fusion(")

    def __call__(self):
        """All pairs, in batches."""
        for chunk in self.chunks:
            out = self.compiled(chunk)
        jax.block_until_ready(out)


def compare(hw, columns, run: Program, dataflow, c_out) -> dict:
    """Largest difference of each leaf from the C program (of cycles for the stall), fold counts exact."""
    worst = {}
    parts = [jax.tree.map(np.asarray, run.compiled(chunk)) for chunk in run.chunks]
    for leaf, other in zip(LEAVES, c_out):
        mine = np.concatenate([_pairs.leaf(part, leaf) for part in parts])
        scale = c_out[0] if leaf == "cycle_parts.stall" else np.maximum(np.abs(mine), 1e-30)
        worst[leaf] = float(np.max(np.abs(mine - other) / scale))
    return {"largest_relative_difference": max(worst.values()), "where": max(worst, key=worst.get)}


def folds_are_exact(columns, dataflow) -> bool:
    """Fold counts against 64-bit integers."""
    whole = {name: columns[name].astype(np.int64) for name in columns}
    m, n = whole["n"] * whole["p"] * whole["q"], whole["k"]
    k = whole["c"] * whole["r"] * whole["s"]
    rows, cols = {"os": (m, n), "ws": (k, n), "is": (k, m)}[dataflow]
    want = -(-rows // whole["rows"]) * -(-cols // whole["cols"])
    arguments = [x.astype(np.float32) for x in (m, n, k)] + [columns["rows"], columns["cols"]]
    got = jax.jit(jax.vmap(lambda *x: array_counts(*x, dataflow).folds))(*arguments)
    small = want < 2**24  # float32 holds them all
    return bool(np.all(np.asarray(got)[small] == want[small]))


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1 << 20, help="pairs (default 2**20)")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, at least 5 (default 7)")
    parser.add_argument(
        "--vector-width", type=int, help="bits XLA prefers on CPU (default: its own choice, 256 on AVX-512)"
    )
    options = parser.parse_args(arguments)
    device_per_core()
    width = {"xla_cpu_prefer_vector_width": options.vector_width} if options.vector_width else None
    count, hw = options.count, _pairs.base()
    columns = _pairs.pairs(count)
    program = compile_c()
    pairs = write_input(columns, hw) if program else None
    if program is None:
        print("no gcc here: the C program is left out")
    batches = sorted({min(batch, count) for batch in BATCHES})
    blocks = sorted({min(block, count) for block in (*BLOCKS, count)})
    chunks = {
        batch: [
            {name: jnp.asarray(x[i : i + batch]) for name, x in columns.items()}
            for i in range(0, count, batch)
        ]
        for batch in batches
    }

    results, rows = [], []
    for dataflow in DATAFLOWS:
        runs = {
            (form, batch): Program(function, chunks[batch], width)
            for form, function in forms(hw, dataflow).items()
            for batch in batches
        }
        seconds = {key: [] for key in runs}
        c_seconds = {(mode, block): [] for mode in ("cycles", "full") for block in blocks} if program else {}
        for run in runs.values():
            run()
        for _ in range(options.rounds):
            for key, run in runs.items():
                start = time.perf_counter()
                run()
                seconds[key].append(time.perf_counter() - start)
            for mode, block in c_seconds:
                times, out = run_c(program, pairs, count, dataflow, mode, block)
                c_seconds[mode, block].append(_common.median(times))
        rate = lambda times: count / _common.median(times) / 1e6
        c_rates = {key: rate(times) for key, times in c_seconds.items()}
        checks = {"folds_exact": folds_are_exact(columns, dataflow)}
        if program:
            out = run_c(program, pairs, count, dataflow, "full", count, 1)[1]
            checks |= {
                form: compare(hw, columns, runs[form, batches[-1]], dataflow, out)
                for form in ("full", "full, in blocks")
            }
        for form in forms(hw, dataflow):
            per_batch = {batch: rate(seconds[form, batch]) for batch in batches}
            best = max(per_batch, key=per_batch.get)
            run = runs[form, best]
            row = {
                "dataflow": dataflow,
                "form": form,
                "m_per_s": per_batch,
                "best_batch": best,
                "operations_per_pair": run.operations,
                "bytes_per_pair": run.bytes,
                "kernels": run.kernels,
                "lower_s": run.lower_s,
                "compile_s": run.compile_s,
            }
            ratio = same = ""
            mode = form.split(",")[0]
            if mode in ("cycles", "full") and program:
                row["c_m_per_s"] = {block: c_rates[mode, block] for block in blocks}
                row["ratio_to_best_c"] = ratio = per_batch[best] / max(row["c_m_per_s"].values())
                row["ratio_to_c_same_batch"] = same = per_batch[best] / c_rates[mode, best]
                row["ratio_to_c_all_kept"] = per_batch[best] / c_rates[mode, count]
            results.append(row | checks)
            rows.append(
                [f"{dataflow} {form}"]
                + [per_batch[batch] for batch in batches]
                + [
                    f"{run.operations:.0f}",
                    f"{run.bytes:.0f}",
                    run.kernels,
                    run.lower_s + run.compile_s,
                    ratio,
                    same,
                ]
            )
        if program:
            for mode in ("cycles", "full"):
                c_text = ", ".join(f"{block}: {c_rates[mode, block]:.3g}" for block in blocks)
                print(f"{dataflow} {mode}, C, M/s by block: {c_text}")
        print(f"{dataflow} checks: {checks}", flush=True)
    header = ["M pairs/s", *(f"batch {batch}" for batch in batches)]
    header += ["ops/pair", "bytes/pair", "kernels", "compile s", "to best C", "to C, same batch"]
    _common.table(f"systolic kernel, {count} pairs, medians of {options.rounds}", header, rows)
    _common.write(
        f"systolic_kernel{options.vector_width or ''}",
        {
            "count": count,
            "seed": 0,
            "rounds": options.rounds,
            "vector_width": options.vector_width,
            "rows": results,
        },
    )


if __name__ == "__main__":
    main()
