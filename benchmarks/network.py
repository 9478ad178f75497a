"""Speed of a whole network's cost, in the forms that a search uses.

    python -m benchmarks.network [--rounds R] [--designs N ...]

mobilenet_v2, log EDP and its gradient in rows, cols, three capacities, DRAM bandwidth and the weights
over dataflows. Forms: one dataflow for all, or one-hot weights (values evaluate the chosen dataflow,
gradients all three); layers by vmap or scan; 64 designs (a gradient search) or more (a sweep).
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _common, _pairs
from diffhw import workloads
from diffhw.models import systolic

QUICK = ["--rounds", "5", "--designs", "4096"]
LEFT_OUT = "two of the four forms: those with 64 and with 1,024 designs in a call"

# mapping, layer loop, designs in a call
FORMS = (("ws", "vmap", 1024), ("ws", "scan", 4096), ("one-hot", "scan", 64), ("one-hot", "scan", 4096))


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds (default 9)")
    sizes = sorted({form[2] for form in FORMS})
    parser.add_argument(
        "--designs",
        type=int,
        nargs="*",
        default=sizes,
        choices=sizes,
        help="forms with as many (default all)",
    )
    options = parser.parse_args(arguments)
    rounds, forms = options.rounds, [form for form in FORMS if form[2] in options.designs]
    network, hw = workloads.load("mobilenet_v2").merged(), _pairs.base()
    columns = _pairs.pairs(4096)

    runs, compile_s = {}, {}
    for mapping, loop, count in forms:
        designs = {name: jnp.asarray(columns[name][:count]) for name in _pairs.KNOBS}
        designs["weights"] = jnp.asarray(np.eye(3, dtype=np.float32)[np.arange(count) % 3])

        def log_edp(x, mapping=mapping, loop=loop):
            hard = mapping == "one-hot"
            weights = x["weights"] if hard else mapping
            cost = systolic(network, _pairs.design(hw, x), weights, layer_loop=loop, one_hot=hard)
            return _common.log_edp(cost)

        for name, function in (("value", log_edp), ("gradient", jax.value_and_grad(log_edp))):
            start = time.perf_counter()
            compiled = jax.jit(jax.vmap(function)).lower(designs).compile()
            key = (mapping, loop, count, name)
            compile_s[key] = time.perf_counter() - start
            # Calls in a row last about as long in each form, so that the clock resolves the short ones.
            calls = max(1, (4096 if name == "value" else 1024) // count)

            def run(compiled=compiled, designs=designs, calls=calls):
                for _ in range(calls):
                    out = compiled(designs)
                jax.block_until_ready(out)

            runs[key] = (run, calls * count * network.size)
    seconds = _common.timed_in_turn({key: run for key, (run, _) in runs.items()}, rounds)
    rate = {key: work / _common.median(seconds[key]) / 1e6 for key, (_, work) in runs.items()}
    rows, results = [], []
    for form in forms:
        value, gradient = rate[*form, "value"], rate[*form, "gradient"]
        seconds_to_compile = [compile_s[*form, name] for name in ("value", "gradient")]
        rows.append([f"{form[0]}, {form[1]}, {form[2]} designs", value, gradient, value / gradient])
        rows[-1] += seconds_to_compile
        results.append({"form": form, "value": value, "gradient": gradient, "compile_s": seconds_to_compile})
    header = ["M layers/s", "value", "with gradient", "ratio", "compile value, s", "compile gradient, s"]
    _common.table(f"mobilenet_v2 ({network.size} distinct layers), median of {rounds}", header, rows)
    _common.write("network", {"rounds": rounds, "rows": results})


if __name__ == "__main__":
    main()
