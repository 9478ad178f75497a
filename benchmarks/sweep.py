"""What a sweep costs beside the evaluation: the same blocks, evaluated only, and with the best and the front.

One GEMM-like layer on the systolic model, 1.0e9 designs (sides, three buffers, DRAM bandwidth), calls of
2**22 designs from the middle of the space, all programs timed in turn. "evaluate" keeps the lowest of each
figure only, which the compiler fuses with the evaluation; "stored" writes the figures to memory,
which any use of single designs needs; "vmap" is the model over arrays of ready values.

    python -m benchmarks.sweep [--rounds R] [--orders enumerate ...] [--whole]

--whole: the whole space through `search.sweep`, with files, and the peak memory.
"""

import argparse
import functools
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _common
from benchmarks.kill_test import problem
from diffhw import search
from diffhw.search._sweep_order import order_of
from diffhw.search._sweep_program import Figures, Program

QUICK = ["--rounds", "5", "--orders", "enumerate"]
LEFT_OUT = "two of the three orders: random and low-discrepancy; the whole space"

ORDERS = ("enumerate", "random", "low-discrepancy")
AXES = ("latency_s", "energy_pj", "area_mm2")
NAMES = ("edp", *AXES, "feasible")
CALL = 1 << 22


def evaluated(order, evaluate, stored: bool):
    """A call that evaluates all blocks and keeps next to nothing."""

    def call(start, count):
        def one(carry):
            first, lowest, _ = carry
            values = order.figures(evaluate, start, first)
            if stored:
                return first + order.block, lowest, values
            low = {name: jnp.minimum(lowest[name], values[name].min()) for name in NAMES}
            return first + order.block, low, {}

        lowest = dict.fromkeys(NAMES, jnp.float32(np.inf))
        room = {name: jnp.zeros(order.shape) for name in NAMES} if stored else {}
        return jax.lax.while_loop(lambda carry: carry[0] < count, one, (jnp.int32(0), lowest, room))

    compiled = jax.jit(call).lower(order.start(0), np.int32(0)).compile()
    return lambda position, count: compiled(order.start(position), np.int32(count))


def swept(order, evaluate, axes: tuple[str, ...]):
    """The engine's own call; the front so far is that of the first call."""
    program = Program(order, Figures(evaluate, axes, ("edp", *axes), "feasible"), 10, jax.local_devices()[:1])
    program.compile(0)
    middle = 1 << 28
    middle -= middle % order.grain
    call = program.read(program.start(middle, 0, CALL, np.inf, np.zeros((0, len(axes)))), 0)
    known = np.stack(call.front.figures[1:], 1) if axes else np.zeros((0, 0))
    known = known[search.nondominated(known)] if axes else known
    best = np.sort(np.concatenate([found.figures[0] for found in call.best]))[9]
    return lambda position, count: program.start(position, 0, count, float(best), known)


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, at least 5 (default 7)")
    parser.add_argument("--orders", nargs="*", default=ORDERS, choices=ORDERS, help="(default: all)")
    parser.add_argument("--whole", action="store_true", help="also the whole space")
    options = parser.parse_args(arguments)
    evaluate, space = problem()
    only = lambda design: {name: value for name, value in evaluate(design).items() if name in NAMES}
    rows, results = [], []
    for name in options.orders:
        order = order_of(name, space, 1 << 15, 0)
        position = (1 << 28) - (1 << 28) % order.grain
        count = CALL // order.block * order.block
        calls = {
            "evaluate": evaluated(order, only, False),
            "stored": evaluated(order, only, True),
            "best 10": swept(order, only, ()),
            "best 10, front of 3": swept(order, only, AXES),
        }
        runs = {
            which: functools.partial(
                lambda *ask: jax.block_until_ready(ask[0](*ask[1:])), call, position, count
            )
            for which, call in calls.items()
        }
        if name == "enumerate":
            random = np.random.default_rng(0)
            chosen = [
                jnp.asarray(random.choice(s.variable.values, order.block), float) for s in space.variables
            ]
            batch = jax.jit(jax.vmap(lambda *values: only(space.fill(list(values)))))
            repeats = count // order.block

            def plain(chosen=chosen, batch=batch, repeats=repeats):
                for _ in range(repeats):
                    out = batch(*chosen)
                jax.block_until_ready(out)

            runs = {"vmap": plain} | runs
        cpu = {which: [] for which in runs}
        for which, run in runs.items():
            run()
            begun = time.process_time()
            run()
            cpu[which] = (time.process_time() - begun) / count * 1e9
        seconds = _common.timed_in_turn(runs, options.rounds)
        for which, times in seconds.items():
            rate = count / statistics.median(times) / 1e6
            rows.append([f"{name}: {which}", rate, count / min(times) / 1e6, cpu[which]])
            results.append({"order": name, "what": which, "m_per_s": rate, "cpu_ns": cpu[which]})
    header = ["", "M/s, median", "best", "CPU ns/design"]
    _common.table(f"sweep, {space.size:,} designs, calls of {CALL:,}", header, rows)
    result = {"rows": results, "rounds": options.rounds}
    if options.whole:
        with tempfile.TemporaryDirectory() as folder:
            found = search.sweep(evaluate, space, out=folder, objective="edp", pareto=AXES, identity={})
        print(found)
        result["whole"] = {
            "designs": found.designs,
            "seconds": found.seconds,
            "compile_seconds": found.compile_seconds,
            "m_per_s": found.rate / 1e6,
            "peak_memory_bytes": found.peak_memory_bytes,
            "front": len(found.pareto),
        }
    _common.write("sweep", result)


if __name__ == "__main__":
    main()
