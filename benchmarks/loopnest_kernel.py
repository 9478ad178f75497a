"""Speed of the loop-nest kernel beside a C program of the same formulas.

Layers of the zoo (or GEMMs) under random mappings on the Gemmini-like hierarchy, all different: energy,
cycles and violation of each; EDP, infinite where it does not fit; log EDP; log EDP and its gradient in all
factors and places. "joined": one kernel for the results (`diffhw.fusing.joined`); "at once": by
`diffhw.batching.at_once`, vectors of full width; "in a loop": turn after turn in one program, a core a
device, as a search evaluates.

    python -m benchmarks.loopnest_kernel [--batches 8192 65536] [--kinds conv gemm] [--rounds R]

One batch is evaluated again and again, by JAX on whatever ``jax.devices()`` gives and by the C program
(benchmarks/loopnest.c) on this machine's cores. Each round times every program once.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _common
from benchmarks._native import AtOnce, InALoop, Native, Program, measure, prepare, show
from benchmarks.loopnest import random_batch
from diffhw import hardware, workloads
from diffhw.fusing import joined
from diffhw.mappings import LOOPS, LoopLevel, LoopNest
from diffhw.models import loopnest

QUICK = [
    "--batches",
    "8192",
    "--rounds",
    "5",
    "--forms",
    "value, joined, at once",
    "value, joined, in a loop",
]
LEFT_OUT = "objective, log EDP and its gradient; a batch of 65,536"

NAMES = ("energy", "cycles", "violation")
KINDS = ("conv", "gemm")
GEMM = "pck"
BLOCKS = (1024,)  # and all
PER_LEVEL = ("capacity_bits", "width_bits", "read_bits_per_cycle", "write_bits_per_cycle")
PER_LEVEL += ("shared_bits_per_cycle", "weight_bits", "input_bits", "output_bits")
PER_LEVEL += ("read_pj", "fill_pj", "update_pj")


def gemms(chip, size: int, seed: int = 0):
    """(layers, nests) of GEMMs with loops p, c and k only; leaves (size,)."""
    rng = np.random.default_rng(seed)
    sizes = {d: 2 ** rng.integers(4, 13, size) * rng.choice([1, 3], size) for d in GEMM}
    depth = len(chip.levels)
    slots = {d: [("time", m) for m in range(depth)] for d in GEMM}
    slots["c"].append(("y", 1))
    slots["k"].append(("x", 2))
    factors = {(kind, m, d): np.ones(size, np.float32) for d in GEMM for kind, m in slots[d]}
    for d in GEMM:
        left = sizes[d].copy()
        while np.any(left > 1):
            prime = np.where(left % 2 == 0, 2, np.where(left > 1, 3, 1))
            place = rng.integers(0, len(slots[d]), size)
            for i, (kind, m) in enumerate(slots[d]):
                factors[kind, m, d] *= np.where(place == i, prime, 1)
            left //= prime
    of = lambda kind, m: {d: jnp.asarray(v) for (k, n, d), v in factors.items() if (k, n) == (kind, m)}
    order = lambda: np.argsort(rng.random((size, len(GEMM))), 1).astype(np.float32)
    levels = tuple(
        LoopLevel(
            temporal=of("time", m),
            order={d: jnp.asarray(places[:, i]) for i, d in enumerate(GEMM)},
            spatial_x=of("x", m),
            spatial_y=of("y", m),
        )
        for m, places in enumerate(order() for _ in range(depth))
    )
    one = jnp.ones(size)
    columns = {name: one for name in workloads.Layer.__dataclass_fields__}
    columns |= {d: jnp.asarray(sizes[d], jnp.float32) for d in GEMM}
    return workloads.Layer(**columns), LoopNest(levels=levels)


def arrays(layer, nest) -> list[np.ndarray]:
    """The pairs as the C program reads them."""
    one = np.ones_like(np.asarray(layer.n))
    columns = [level.temporal.get(d, one) for level in nest.levels for d in LOOPS]
    columns += [level.order.get(d, one) for level in nest.levels for d in LOOPS]
    columns += [nest.levels[1].spatial_y["c"], nest.levels[2].spatial_x["k"]]
    columns += [getattr(layer, name) for name in LOOPS]
    columns += [layer.stride_h, layer.stride_w, layer.dilation_h, layer.dilation_w]
    return [np.asarray(column) for column in columns]


def constants(chip) -> np.ndarray:
    """The hierarchy as the C program reads it."""
    leakage = chip.static_w + sum(lv.leakage_w * chip.instances(k) for k, lv in enumerate(chip.levels))
    values = [float(getattr(level, name)) for level in chip.levels for name in PER_LEVEL]
    values += [float(chip.levels[1].fanout_y), float(chip.levels[2].fanout_x), float(chip.mac_pj)]
    return np.asarray([*values, float(leakage / chip.freq_hz * 1e12)], np.float32)


def forms(chip) -> dict:
    """Functions of one pair."""

    def value(layer, nest):
        cost = loopnest.layer(layer, chip, nest)
        return cost.energy_pj, cost.cycles, cost.violation

    def objective(layer, nest):
        cost = loopnest.layer(layer, chip, nest)
        return jnp.where(cost.violation <= 1e-6, cost.energy_pj * cost.cycles, jnp.inf)

    def log_edp(nest, layer):
        return _common.log_edp(loopnest.layer(layer, chip, nest))

    gradient = lambda layer, nest: jax.value_and_grad(log_edp)(nest, layer)
    return {
        "value": value,
        "value, joined": joined(value),
        "value, joined, at once": AtOnce(joined(value)),
        "value, joined, in a loop": InALoop(joined(value)),
        "objective, at once": AtOnce(objective),
        "objective, in a loop": InALoop(objective),
        "log EDP, in a loop": InALoop(lambda layer, nest: log_edp(nest, layer)),
        "+ gradient": gradient,
        "+ gradient, joined": joined(gradient),
        "+ gradient, joined, at once": AtOnce(joined(gradient)),
        "+ gradient, joined, in a loop": InALoop(joined(gradient)),
    }


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="*", default=[8192, 65536])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--forms", nargs="*", help="default: all")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, at least 5 (default 7)")
    parser.add_argument("--name", default="loopnest_kernel", help="of the result file")
    options = parser.parse_args(arguments)
    prepare()
    results = []
    chip = hardware.hierarchy("gemmini")
    for kind in options.kinds:
        native = Native("loopnest", len(NAMES), ("GEMM",) if kind == "gemm" else ())
        for batch in options.batches:
            pairs = (gemms if kind == "gemm" else random_batch)(chip, batch)
            programs = {
                form: Program(function, pairs, batch)
                for form, function in forms(chip).items()
                if not options.forms or form in options.forms
            }
            if native.program:
                native.write(constants(chip), arrays(*pairs))
            results += measure(
                native, programs, options.rounds, max(8, 1048576 // batch), BLOCKS, NAMES, kind
            )
    show(f"loop nest on gemmini, medians of {options.rounds}", results)
    _common.write(options.name, {"seed": 0, "rounds": options.rounds, "rows": results})


if __name__ == "__main__":
    main()
