"""How fast is the loop-nest model: mixed layers and mappings in one batch, four levels, two cores.

Value: energy, cycles and violation of each mapping. Gradient: of log EDP in every factor and every place
of the orders. Referees on the same class of machine (measured once, see docs/performance.md):
timeloop-mapper 27 mappings/s per core, ZigZag 250/s, DOSA 178/s with gradient.

    python -m benchmarks.loopnest [--batches 4096 32768 131072] [--hierarchy gemmini] [--forms value]
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._common import log_edp, table, write
from diffhw import hardware, workloads
from diffhw.mappings import LOOPS, ORDERS, LoopLevel, LoopNest, loop_order
from diffhw.models import loopnest

QUICK = ["--batches", "8192", "32768", "--forms", "value"]
LEFT_OUT = "the gradient (benchmarks.loopnest_kernel has it); batches of 4,096 and 131,072"

PLACES = np.array([[loop_order(order)[d] for d in LOOPS] for order in ORDERS.values()], np.float32)
FORMS = ("value", "value and gradient")
NETWORKS = ("resnet50", "mobilenet_v2", "bert_base", "vgg16")


def random_batch(chip, size: int, seed: int = 0):
    """(layers, nests): leaves (size,). Prime factors of every loop fall on the slots at random."""
    rng = np.random.default_rng(seed)
    rows = [row for name in NETWORKS for row in workloads.load(name).rows()]
    pick = rng.integers(0, len(rows), size)
    columns = {name: np.array([float(getattr(row, name)) for row in rows])[pick] for name in vars(rows[0])}
    layers = workloads.Layer(**{name: jnp.asarray(values, jnp.float32) for name, values in columns.items()})
    depth = len(chip.levels)
    slots = [("t", m, LOOPS) for m in range(depth)]
    for m, level in enumerate(chip.levels):
        for axis in "xy":
            if float(getattr(level, f"fanout_{axis}")) > 1:
                slots.append((axis, m, getattr(level, f"spatial_{axis}")))
    factors = {(kind, m, d): np.ones(size, np.float32) for kind, m, loops in slots for d in loops}
    for d in LOOPS:
        mine = [slot for slot in slots if d in slot[2]]
        left = columns[d].astype(int)
        for prime in range(2, int(left.max()) + 1):
            while (divides := left % prime == 0).any():
                place = rng.integers(0, len(mine), size)
                for i, (kind, m, _) in enumerate(mine):
                    factors[kind, m, d] *= np.where(divides & (place == i), prime, 1)
                left = np.where(divides, left // prime, left)
            if (left == 1).all():
                break
    order = rng.integers(0, len(PLACES), (size, depth))
    of = lambda kind, m: {d: jnp.asarray(v) for (k, n, d), v in factors.items() if (k, n) == (kind, m)}
    levels = tuple(
        LoopLevel(
            temporal=of("t", m),
            order={d: jnp.asarray(PLACES[order[:, m], i]) for i, d in enumerate(LOOPS)},
            spatial_x=of("x", m),
            spatial_y=of("y", m),
        )
        for m in range(depth)
    )
    return layers, LoopNest(levels=levels)


def rate(function, *arguments, calls: int = 10, repeats: int = 5) -> tuple[float, float]:
    """(seconds per call, compile seconds): median of ``repeats`` medians of calls in a row."""
    begin = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    compiling = time.perf_counter() - begin
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(calls):
            out = compiled(*arguments)
        jax.block_until_ready(out)
        seconds.append((time.perf_counter() - begin) / calls)
    analysis = compiled.cost_analysis() or {}
    rate.analysis = (analysis.get("flops", 0.0), analysis.get("bytes accessed", 0.0))
    return statistics.median(seconds), compiling


def main() -> None:
    """Prints the table and writes JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="*", default=[4096, 8192, 32768, 131072])
    parser.add_argument("--hierarchy", default="gemmini")
    parser.add_argument("--forms", nargs="*", default=FORMS, choices=FORMS, help="(default: all)")
    args = parser.parse_args()
    chip = hardware.hierarchy(args.hierarchy)

    def value(layer, nest):
        cost = loopnest.layer(layer, chip, nest)
        return cost.energy_pj, cost.cycles, cost.violation

    def loss(nest, layer):
        return log_edp(loopnest.layer(layer, chip, nest))

    forward = jax.jit(jax.vmap(value))
    backward = jax.jit(jax.vmap(lambda layer, nest: jax.value_and_grad(loss)(nest, layer)))
    rows, results = [], {}
    for size in args.batches:
        batch = random_batch(chip, size)
        for name, function in zip(FORMS, (forward, backward), strict=True):
            if name not in args.forms:
                continue
            seconds, compiling = rate(function, *batch)
            flops, traffic = rate.analysis
            rows.append(
                [name, size, f"{size / seconds:,.0f}", round(compiling, 2), flops / size, traffic / size]
            )
            results[f"{name} {size}"] = {"per_second": size / seconds, "compile_s": compiling}
    table(
        f"{args.hierarchy}: mappings per second",
        ["", "batch", "per second", "compile s", "operations each", "bytes each"],
        rows,
    )
    write(f"loopnest_{args.hierarchy}", results)


if __name__ == "__main__":
    main()
