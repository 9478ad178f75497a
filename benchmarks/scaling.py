"""How the cost of an evaluation grows: with layers, designs in a batch, memory levels, cores; and its limits.

    python -m benchmarks.scaling [--parts layers designs levels cores limits] [--models ...] [--rounds R]

Seconds per design, compile seconds, bytes per design (arguments, results and temporaries of the compiled
program, from its memory analysis). Value: cycles, energy and violation. Gradient: log EDP and its slopes in
six numbers of the array (systolic), in tiles and units (dataflow), in factors and orders (loopnest).

layers:  networks of 16 to 256 layers, so many designs that a call has as many layer evaluations throughout.
designs: one layer each, batches of 64 to 131,072.
levels:  loop nests on two to seven memory levels.
cores:   one core (this process pinned to it), two cores as one CPU device, and as two fake CPU devices
         with the designs sharded over them: fake devices are threads of one processor, not more hardware.
limits:  operations and bytes of one evaluation against this machine's measured peak, value and gradient.

Parts that were measured before stay in the result file, so that the long form can be run in pieces.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks import _common, _dataflows, _loopnests, _pairs, _peak
from benchmarks._native import Blocks, InALoop, Program, prepare
from diffhw import hardware, workloads
from diffhw.fusing import joined
from diffhw.models import dataflow, loopnest, systolic

QUICK = ["--models", "systolic", "--quick", "--rounds", "5"]
LEFT_OUT = "the dataflow and loop-nest models (but for memory levels), half of the sizes, gradients"
MODELS = ("systolic", "dataflow", "loopnest")
PARTS = ("layers", "designs", "levels", "cores", "limits")
LAYERS = (16, 64, 256)
LEVELS = (2, 3, 4, 5, 6, 7)
BATCHES = {"systolic": (64, 1024, 8192, 32768, 131072), "dataflow": (64, 1024, 4096, 16384),
           "loopnest": (64, 1024, 8192, 32768, 131072)}  # fmt: skip
USUAL = {"systolic": 65536, "dataflow": 8192, "loopnest": 8192}


def figures(cost):
    return cost.cycles, cost.energy_pj, cost.violation


def stack_of(levels: int):
    """A hierarchy of so many levels, each keeping all tensors; numbers of no particular chip."""
    memory = hardware.Memory.create
    inner = [
        memory(
            name=f"L{i}", capacity_words=16 * 32**i, word_bits=8, shared_words_per_cycle=4 * 2**i,
            read_pj=0.1 * 3**i, fanout_x=4 if i in (1, 2) else 1, spatial_x="k" if i in (1, 2) else "",
            spatial_y="",
        )
        for i in range(levels - 1)
    ]  # fmt: skip
    outer = memory(
        name="DRAM", word_bits=8, shared_words_per_cycle=8, read_pj=100.0, spatial_x="", spatial_y=""
    )
    return hardware.Hierarchy.create(levels=(*inner, outer), mac_pj=0.5)


def one_layer(model: str, count: int, chip=None):
    """(value, gradient, batch): functions of one row of the batch, one layer each."""
    if model == "systolic":
        hw, columns = _pairs.base(), _pairs.pairs(count)
        parts = [{n: jnp.asarray(columns[n]) for n in names} for names in (_pairs.SIZES, _pairs.KNOBS)]
        of = lambda sizes, knobs: systolic.layer(_pairs.layer(sizes), _pairs.design(hw, knobs), "ws")
    elif model == "dataflow":
        hw, parts = _dataflows.base(), jax.tree.map(jnp.asarray, _dataflows.random_batch(count))
        of = lambda layer, mapping: dataflow.layer(layer, hw, mapping)
    else:
        chip = hardware.hierarchy("gemmini") if chip is None else chip
        parts = jax.tree.map(jnp.asarray, _loopnests.random_batch(chip, count))
        of = lambda layer, nest: loopnest.layer(layer, chip, nest)
    value = lambda row: figures(of(*row))
    gradient = lambda row: jax.value_and_grad(lambda x: _common.log_edp(of(row[0], x)))(row[1])
    return value, gradient, tuple(parts)


def whole_network(model: str, layers: int, count: int):
    """(value, batch): a function of one design, the network of ``layers`` rows closed over."""
    rows = [row for name in _dataflows.NETWORKS for row in workloads.load(name).rows()]
    network = workloads.Network.create([rows[i % len(rows)] for i in range(layers)], pad_to=layers)
    shaped = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(count, layers), tree)
    if model == "systolic":
        hw, columns = _pairs.base(), _pairs.pairs(count)
        knobs = {name: jnp.asarray(columns[name]) for name in _pairs.KNOBS}
        return lambda x: figures(systolic(network, _pairs.design(hw, x), "ws")), knobs
    if model == "dataflow":
        hw, (_, mapping) = _dataflows.base(), _dataflows.random_batch(count * layers)
        return lambda m: figures(dataflow(network, hw, m)), shaped(mapping)
    chip = hardware.hierarchy("gemmini")
    _, nest = _loopnests.random_batch(chip, count * layers)
    return lambda m: figures(loopnest(network, chip, m)), shaped(nest)


def timed(function, batch, count: int, rounds: int, calls: int = 3) -> dict:
    """Compile seconds, seconds per design (median of rounds), bytes and operations per design."""
    begin = time.perf_counter()
    compiled = jax.jit(jax.vmap(function)).lower(batch).compile()
    compile_s = time.perf_counter() - begin
    jax.block_until_ready(compiled(batch))
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        jax.block_until_ready([compiled(batch) for _ in range(calls)])  # as a sweep makes them
        seconds.append((time.perf_counter() - begin) / calls)
    asked = _peak.work(compiled, count)
    return {
        "designs": count,
        "compile_s": compile_s,
        "s_per_design": _common.median(seconds) / count,
        "memory_bytes_per_design": asked["in_and_out_bytes"] + asked["temporary_bytes"],
        **asked,
    }


def layers_part(models, rounds, quick) -> list[dict]:
    rows = []
    for model in models:
        for layers in LAYERS[::2] if quick else LAYERS:
            count = USUAL[model] // layers
            function, batch = whole_network(model, layers, count)
            rows.append({"model": model, "layers": layers, **timed(function, batch, count, rounds)})
    return rows


def designs_part(models, rounds, quick) -> list[dict]:
    rows = []
    for model in models:
        for count in BATCHES[model][1::2] if quick else BATCHES[model]:
            function, _, batch = one_layer(model, count)
            calls = max(3, 8192 // count)
            rows.append({"model": model, **timed(function, batch, count, rounds, calls)})
    return rows


def levels_part(models, rounds, quick) -> list[dict]:
    rows = []
    for levels in LEVELS[::3] if quick else LEVELS:
        function, gradient, batch = one_layer("loopnest", 8192, stack_of(levels))
        row = {"levels": levels, "value": timed(function, batch, 8192, rounds)}
        if not quick and levels in (2, 4):
            row["gradient"] = timed(gradient, batch, 8192, rounds)
        rows.append(row)
    return rows


_FORMS = {"one core": (1, 1), "two cores, one device": (2, 1), "two cores, two fake devices": (2, 2)}


def cores_worker(cores: int, devices: int, model: str, rounds: int) -> dict:
    """In a process of its own, pinned before JAX starts its threads: designs shared out between the devices.

    A device a core: as a search evaluates them; several cores as one device: as JAX shows them.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    count = USUAL[model]
    function, _, batch = one_layer(model, count)
    way = usual_way(model, function) if devices == cores else joined(function)
    program = Program(way, (batch,), count)
    for _ in range(rounds + 1):
        program(max(4, 262144 // count))
    seconds = _common.median(program.seconds[1:]) / count
    return {"designs": count, "compile_s": program.compile_s, "s_per_design": seconds}


def cores_part(models, rounds, quick) -> list[dict]:
    rows, own = [], sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for model in ("systolic",) if quick else models:
        for form, (cores, devices) in _FORMS.items():
            if len(own) < cores:
                continue
            flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.scaling", "--rounds", str(rounds),
                 "--worker", str(cores), str(devices), model],
                capture_output=True, text=True, cwd=Path(__file__).parent.parent,
                env={**os.environ, "XLA_FLAGS": flags.strip()},
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(done.stderr)
            rows.append({"model": model, "form": form, **json.loads(done.stdout.splitlines()[-1])})
    return rows


def usual_way(model: str, function):
    """As a search evaluates: turns of a loop; a model of many kernels in blocks."""
    return Blocks(function, 256) if model == "dataflow" else InALoop(joined(function))


def once(model: str, function, batch, counted: float) -> float:
    """Operations of one evaluation. The compiler counts all entries of the axis that `joined` evaluates
    along, of which the machine works on one: an axis longer by one counts one evaluation more. The dataflow
    model has such axes inside, of two entries or more: half of the count, which is too much if anything.
    """
    if model == "dataflow":
        return counted / 2
    longer = jax.jit(jax.vmap(joined(function, apart=1))).lower(batch).compile()
    return _peak.work(longer, USUAL[model])["operations"] - counted


def limits_part(models, rounds, quick) -> dict:
    peak, rows = _peak.measure(rounds), []
    for model in models:
        value, gradient, batch = one_layer(model, USUAL[model])
        forms = {"value": value} if quick else {"value": value, "gradient": gradient}
        for form, function in forms.items():
            row = {"model": model, "form": form, **timed(joined(function), batch, USUAL[model], 5, 1)}
            row["operations"] = once(model, function, batch, row["operations"])
            row["limit_per_s"], row["bound_by"] = _peak.limit(row, peak, from_memory=False)
            program = Program(usual_way(model, function), (batch,), USUAL[model])
            for _ in range(rounds + 1):
                program(max(4, 262144 // USUAL[model]))
            row["s_per_design"] = _common.median(program.seconds[1:]) / USUAL[model]
            row["share_of_limit"] = 1 / row["s_per_design"] / row["limit_per_s"]
            rows.append(row)
    ratios = {}
    for model in models:
        seconds = {row["form"]: row["s_per_design"] for row in rows if row["model"] == model}
        if "gradient" in seconds:
            ratios[model] = seconds["gradient"] / seconds["value"]
    return {"peak": peak, "rows": rows, "gradient_over_value": ratios}


def show(part: str, found) -> None:
    cells = lambda row: [
        1e9 * row["s_per_design"], row["compile_s"], row["memory_bytes_per_design"], row["operations"],
    ]  # fmt: skip
    head = ["ns/design", "compile s", "memory B/design", "operations"]
    if part == "levels":
        rows = [
            [f"{row['levels']} levels, {form}", *cells(row[form])]
            for row in found
            for form in ("value", "gradient")
            if form in row
        ]
        _common.table("loopnest, memory levels", ["", *head], rows)
    elif part == "limits":
        peak = found["peak"]
        _common.table(
            f"limits: {peak['operations_per_s'] / 1e9:.0f} G operations/s, caches "
            f"{peak['cache_bytes_per_s'] / 1e9:.0f} GB/s, memory {peak['memory_bytes_per_s'] / 1e9:.1f} GB/s",
            ["", *head, "bytes between kernels", "M/s", "limit M/s", "by", "share"],
            [
                [f"{row['model']}, {row['form']}", *cells(row), row["bytes"], 1e-6 / row["s_per_design"],
                 row["limit_per_s"] / 1e6, row["bound_by"], row["share_of_limit"]]
                for row in found["rows"]
            ],
        )  # fmt: skip
        for model, ratio in found["gradient_over_value"].items():
            print(f"  {model}: a gradient costs {ratio:.1f} values")
    elif part == "cores":
        rows = [[f"{r['model']}, {r['form']}", 1e-6 / r["s_per_design"], r["compile_s"]] for r in found]
        _common.table(part, ["", "M/s", "compile s"], rows)
    else:
        label = {"layers": lambda r: f"{r['layers']} layers", "designs": lambda r: f"{r['designs']} designs"}
        name = label.get(part, lambda r: r["form"])
        _common.table(part, ["", *head], [[f"{r['model']}, {name(r)}", *cells(r)] for r in found])


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--models", nargs="*", default=MODELS, choices=MODELS)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, at least 5 (default 7)")
    parser.add_argument("--quick", action="store_true", help="fewer sizes, no gradients")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        cores, devices, model = options.worker
        print(json.dumps(cores_worker(int(cores), int(devices), model, options.rounds)))
        return
    prepare()
    made = {"layers": layers_part, "designs": designs_part, "levels": levels_part, "cores": cores_part,
            "limits": limits_part}  # fmt: skip
    earlier = {} if options.quick else _common.read("scaling")
    result = {part: earlier[part] for part in PARTS if part in earlier}
    measured = {part: "a day not kept" for part in result} | earlier.get("measured", {})
    for part in options.parts:
        result[part] = made[part](options.models, options.rounds, options.quick)
        measured[part] = _common.machine()["date"]
        show(part, result[part])
        _common.write("scaling", {"rounds": options.rounds, "measured": measured, **result})


if __name__ == "__main__":
    main()
