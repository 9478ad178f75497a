"""The systolic and loop-nest models on whatever device JAX has: evaluations/s, share of the limit, float32.

    python -m benchmarks.gpu [--designs N] [--rounds R] [--check N]

For an accelerator; it runs on a CPU as well. 65,536 different designs, repeated to the size of the batch on
the device, so that no transfer is timed. *full*: all leaves of `Cost` written to memory. *objective*: log EDP
only. *best*: the lowest log EDP of the batch, so that nothing is written (as a sweep does). Limits:
operations and bytes of one evaluation, from the compiled program's cost analysis, over this device's peak,
measured here by small loops (multiply-add chains in registers, y = a x + y within and beyond the caches).
--check: designs of the float32 check (`benchmarks.float_check`), its float32 half on this device.
"""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _common, _pairs, _peak, float_check
from benchmarks._loopnests import random_batch
from benchmarks._native import prepare
from diffhw import hardware
from diffhw.models import loopnest, systolic

QUICK = ["--designs", "65536", "--rounds", "5", "--check", "0"]
LEFT_OUT = "the check of float32 (benchmarks.float_check has it); large calls"
GOALS = {"systolic": 5e9, "loopnest": 2e9}  # full evaluations/s on one H200-class GPU


def _tiled(tree, count: int):
    """A batch of ``count`` made of the rows of a smaller one, on the device."""
    rows = jax.tree.leaves(tree)[0].shape[0]
    index = jnp.arange(count) % rows
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], tree)


def problems(count: int) -> dict:
    """model -> (one design's inputs to a Cost, a batch of ``count`` on the device)."""
    unique = min(count, 1 << 16)
    hw, chip = _pairs.base(), hardware.hierarchy("gemmini")
    layer, nest = random_batch(chip, unique)
    return {
        "systolic": (
            lambda x: systolic.layer(_pairs.layer(x), _pairs.design(hw, x), "ws"),
            _tiled(_pairs.pairs(unique), count),
        ),
        "loopnest": (lambda x: loopnest.layer(x[0], chip, x[1]), _tiled((layer, nest), count)),
    }


def measure(count: int, rounds: int, peak: dict) -> list[dict]:
    """One row per model and form."""
    rows = []
    for model, (cost, batch) in problems(count).items():
        forms = {
            "full": jax.vmap(cost),
            "objective": jax.vmap(lambda x, cost=cost: _common.log_edp(cost(x))),
            "best": lambda x, cost=cost: jax.vmap(lambda one: _common.log_edp(cost(one)))(x).min(),
        }
        for form, function in forms.items():
            begin = time.perf_counter()
            compiled = jax.jit(function).lower(batch).compile()
            compile_s = time.perf_counter() - begin
            jax.block_until_ready(compiled(batch))
            seconds = []
            for _ in range(rounds):
                begin = time.perf_counter()
                jax.block_until_ready(compiled(batch))
                seconds.append(time.perf_counter() - begin)
            rate = count / _common.median(seconds)
            asked = _peak.work(compiled, count)
            limit, bound_by = _peak.limit(asked, peak, from_memory=True)
            rows.append(
                {
                    "model": model, "form": form, "designs": count, "per_second": rate,
                    "compile_s": compile_s,
                    **asked, "limit_per_second": limit, "bound_by": bound_by, "share_of_limit": rate / limit,
                }
            )  # fmt: skip
    return rows


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--designs", type=int, help="in a call (default: 2**18 on a CPU, 2**24 elsewhere)")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, at least 5 (default 7)")
    parser.add_argument(
        "--check", type=int, default=100_000, help="designs of the float check (default 10^5)"
    )
    options = parser.parse_args(arguments)
    prepare()
    device = jax.devices()[0]
    count = options.designs or (1 << 18 if device.platform == "cpu" else 1 << 24)
    peak = _peak.measure(options.rounds)
    print(
        f"{device}: {peak['operations_per_s'] / 1e9:,.0f} G operations/s, "
        f"{peak['memory_bytes_per_s'] / 1e9:,.0f} GB/s of memory, "
        f"{peak['cache_bytes_per_s'] / 1e9:,.0f} GB/s of caches"
    )
    rows = measure(count, options.rounds, peak)
    _common.table(
        f"{count:,} designs a call on {device.device_kind}, median of {options.rounds}",
        [
            "model, form",
            "M/s",
            "compile s",
            "operations",
            "bytes",
            "limit M/s",
            "by",
            "share",
            "goal (GPU) M/s",
        ],
        [
            [
                f"{row['model']}, {row['form']}",
                row["per_second"] / 1e6,
                row["compile_s"],
                row["operations"],
                row["bytes"],
                row["limit_per_second"] / 1e6,
                row["bound_by"],
                row["share_of_limit"],
                GOALS[row["model"]] / 1e6 if row["form"] == "full" else "",
            ]
            for row in rows
        ],
    )
    result = {"device": device.device_kind, "platform": device.platform, "peak": peak, "rows": rows}
    if options.check:
        result["float_check"] = float_check.run(designs=options.check)
    _common.write("gpu" if device.platform != "cpu" else "gpu_on_cpu", result)
    misses = sum(model["misses"] for model in result.get("float_check", {}).get("models", {}).values())
    if misses:
        sys.exit(f"float32 misses the bars {misses} times")
    if not np.all([np.isfinite(row["per_second"]) for row in rows]):
        sys.exit("no rate")


if __name__ == "__main__":
    main()
