"""What a call costs beside the model itself: new memory for the results, vectors of half the width, waiting.

    python -m benchmarks.calls [--batch 65536] [--rounds R]

Three figures of GEMM mappings by the loop-nest model and all 31 of pairs by the systolic one, joined
(`fusing.joined`), one batch again and again: by vmap, by `diffhw.batching.at_once`, and turn after turn in
one program. In processes whose memory goes back to the system and in ones that keep it
(`diffhw.batching.keep_memory`).
"""

import argparse
import json
import os
import resource
import subprocess
import sys

import jax
import jax.numpy as jnp

from benchmarks import _common, _pairs
from benchmarks._native import AtOnce, InALoop, Program
from diffhw import hardware
from diffhw.batching import keep_memory
from diffhw.fusing import joined
from diffhw.models import systolic

QUICK = ["--rounds", "1"]
LEFT_OUT = "four of five processes of each kind; the median within one is of five"
CALLS = 16


def worker(batch: int, keep: bool) -> dict:
    """Million evaluations/s and page faults a call of each form, in this process."""
    from benchmarks.loopnest_kernel import forms, gemms

    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    if keep and not keep_memory():
        raise SystemExit("keep_memory has no effect here: it needs glibc")
    chip = hardware.hierarchy("gemmini")
    columns = {name: jnp.asarray(x) for name, x in _pairs.pairs(batch).items()}
    cost = lambda x: systolic.layer(_pairs.layer(x), _pairs.design(_pairs.base(), x), "ws")
    of = {
        "loop nest, GEMMs, 3 results": (joined(forms(chip)["value"]), gemms(chip, batch)),
        "systolic, 31 results": (joined(cost), (columns,)),
    }
    found = {}
    for model, (value, inputs) in of.items():
        for name, form in {"vmap": value, "at once": AtOnce(value), "in a loop": InALoop(value)}.items():
            program = Program(form, inputs, batch)
            program(CALLS), program.seconds.clear()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(5):
                program(CALLS)
            faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / (5 * CALLS)
            found[f"{model}, {name}"] = {"m_per_s": program.rate(), "page_faults_per_call": faults}
    return found


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind (default 5)")
    parser.add_argument("--worker", choices=["kept", "handed back"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(worker(options.batch, options.worker == "kept")))
        return
    found: dict[str, list[dict]] = {"handed back": [], "kept": []}
    for _ in range(options.rounds):
        for memory, runs in found.items():
            command = [sys.executable, "-m", "benchmarks.calls", "--batch", options.batch, "--worker", memory]
            done = subprocess.run(
                list(map(str, command)), cwd=_common.HERE.parent, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(done.stderr.strip())
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    of = lambda runs, form, what: _common.median([run[form][what] for run in runs])
    rows = [
        {
            "memory": memory, "form": form, "m_per_s": of(runs, form, "m_per_s"),
            "page_faults_per_call": of(runs, form, "page_faults_per_call"),
        }
        for memory, runs in found.items()
        for form in runs[0]
    ]  # fmt: skip
    _common.table(
        f"{options.batch} a call, joined, medians of {options.rounds} processes",
        ["memory of results", "form", "M/s", "page faults a call"],
        [list(row.values()) for row in rows],
    )
    _common.write("calls", {"batch": options.batch, "rounds": options.rounds, "rows": rows})


if __name__ == "__main__":
    main()
