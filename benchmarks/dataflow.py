"""The dataflow model: speed on mixed structures, and a million random mappings that must obey physics.

    python -m benchmarks.dataflow [--rounds R] [--batch B] [--million]

Batch: zoo layers under random directive programs (one to three levels, any order, ragged tiles), all
different, on 256 PEs. ``--million`` also checks 10^6 of them: none may beat the roofline, lose MACs,
move less than the compulsory traffic, or give a value or gradient that is not finite.
"""

import argparse
import json
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _common
from benchmarks._dataflows import base, random_batch
from diffhw._cli._progress import Progress
from diffhw.models import dataflow, roofline

QUICK = ["--rounds", "5", "--forms", "value"]
LEFT_OUT = "the gradient; the million random mappings; float64 beside float32"


def totals(layer, hw, mapping):
    cost = dataflow.layer(layer, hw, mapping)
    return cost.cycles, cost.energy_pj, cost.violation


def gradient(layer, hw, mapping):
    """Value and slopes in tiles and units, PEs, bandwidths and capacities."""

    def value(hw, mapping):
        return _common.log_edp(dataflow.layer(layer, hw, mapping))

    return jax.value_and_grad(value, argnums=(0, 1))(hw, mapping)


def tiles_gradient(layer, hw, mapping):
    """Value and slopes in the dataflow only."""
    return jax.value_and_grad(lambda m: _common.log_edp(dataflow.layer(layer, hw, m)))(mapping)


CALLS = 10  # in a row, as a sweep makes them
FORMS = {"value": totals, "value and gradient (dataflow)": tiles_gradient}


def speed(batch: int, rounds: int, forms=tuple(FORMS)) -> list[dict]:
    layer, mapping = jax.tree.map(jnp.asarray, random_batch(batch))
    hw = base()
    runs, compile_s = {}, {}
    for name in forms:
        function = FORMS[name]
        start = time.perf_counter()
        compiled = jax.jit(jax.vmap(function, in_axes=(0, None, 0))).lower(layer, hw, mapping).compile()
        compile_s[name] = time.perf_counter() - start

        def run(compiled=compiled):
            for _ in range(CALLS):
                jax.block_until_ready(compiled(layer, hw, mapping))

        runs[name] = run
    seconds = _common.timed_in_turn(runs, rounds)
    rows = []
    for name in forms:
        rate = CALLS * batch / _common.median(seconds[name])
        rows.append({"form": name, "batch": batch, "compile_s": compile_s[name], "evaluations_per_s": rate})
        print(f"{name:32s} batch {batch:6d}  compile {compile_s[name]:5.1f} s  {rate:12,.0f} evaluations/s")
    return rows


def violations(count: int, chunk: int = 10_000) -> dict[str, int]:
    """How many of ``count`` random mappings break a law, by law."""

    def check(layer, mapping, hw):
        cost = dataflow.layer(layer, hw, mapping)
        bound = roofline.layer(layer, hw)
        value, slopes = gradient(layer, hw, mapping)
        finite = jnp.isfinite(value) & jnp.isfinite(cost.cycles) & jnp.isfinite(cost.energy_pj)
        for leaf in jax.tree.leaves(slopes):
            finite &= jnp.isfinite(leaf)
        least = 1 - 1e-5  # float32
        return {
            "beats the roofline": cost.cycles < least * bound.cycles,
            "uses less energy than its MACs and compulsory traffic": cost.energy_pj < least * bound.energy_pj,
            "loses or invents MACs": jnp.abs(cost.macs / layer.macs - 1) > 1e-5,
            "reads less than compulsory": cost.dram_bytes < least * bound.dram_bytes,
            "reads L2 less than its inputs and weights": (
                cost.traffic_bytes["l2_input_read"] < least * bound.traffic_bytes["dram_input_read"]
            )
            | (cost.traffic_bytes["l2_weight_read"] < least * bound.traffic_bytes["dram_weight_read"]),
            "is not finite": ~finite,
        }

    run = jax.jit(jax.vmap(check, in_axes=(0, 0, 0)))
    found: dict[str, int] = {}
    with Progress() as progress:
        for done in range(0, count, chunk):
            layer, mapping = random_batch(chunk, seed=done + 1)
            rng = np.random.default_rng(done)
            hw = jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf), (chunk,)) + 0, base())
            scale = lambda rng=rng: np.float32(2.0 ** rng.uniform(-4, 4, chunk))
            hw = replace(
                hw,
                rows=np.float32(2.0 ** rng.integers(1, 8, chunk)),
                cols=np.float32(2.0 ** rng.integers(1, 8, chunk)),
                levels=tuple(
                    replace(
                        level,
                        capacity_bytes=level.capacity_bytes * scale(),
                        read_bytes_per_cycle=level.read_bytes_per_cycle * scale(),
                    )
                    for level in hw.levels
                ),
            )
            out = run(layer, mapping, hw)
            for name, broken in out.items():
                found[name] = found.get(name, 0) + int(np.sum(broken))
            progress("mappings", done + chunk, count, None)
    return found


def rounding(count: int = 8192) -> float:
    """Largest relative difference of cycles and energy between float32 and float64."""
    layer, mapping = random_batch(count, seed=3)
    hw = base()
    run = lambda *arguments: jax.jit(jax.vmap(totals, in_axes=(0, None, 0)))(*arguments)[:2]
    single = jax.tree.map(np.asarray, run(layer, hw, mapping))
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), (layer, hw, mapping))
        exact = jax.tree.map(np.asarray, run(*double))
    return max(float(np.max(np.abs(a / b - 1))) for a, b in zip(single, exact, strict=True))


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds (default 9)")
    parser.add_argument("--batch", type=int, default=8192, help="mappings in a call (default 8192)")
    parser.add_argument("--million", action="store_true", help="check 10^6 random mappings")
    parser.add_argument("--forms", nargs="*", default=FORMS, choices=FORMS, help="(default: all)")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args(arguments)
    result: dict = {"speed": speed(args.batch, args.rounds, args.forms)}
    if args.million:
        result["of_a_million"] = violations(1_000_000)
        for name, number in result["of_a_million"].items():
            print(f"of 1,000,000 mappings {number} {name}")
        result["float32"] = rounding()
        print(f"float32 beside float64, 8,192 mappings: cycles and energy within {result['float32']:.1e}")
    _common.write("dataflow", result)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
