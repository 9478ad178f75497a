"""Speed of the systolic kernel beside a C program of the same formulas.

Pairs of a real layer and a random legal array, three dataflows. For each: cycles (DRAM stalls included); log
EDP, and its gradient in rows, cols, three capacities and the DRAM bandwidth; all 31 figures of a cost.

    python -m benchmarks.systolic_kernel [--batches 65536 1048576] [--dataflows os ws is] [--rounds R]

"at once": by `diffhw.batching.at_once`. "in a loop": turn after turn in one program, a core a device, as a
search evaluates. "joined": one kernel for the results. The rest by vmap. JAX runs on whatever
``jax.devices()`` gives, the C programs (benchmarks/systolic.c) on this machine's cores, their results kept or
in blocks of 1,024 pairs, one over another: by the fastest flags found, -ffast-math among them, and by others
in a line above the table. Each round times every program once, so that a busy moment of a shared machine hits
all alike.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _common, _pairs
from benchmarks._native import IEEE, AtOnce, InALoop, Native, Program, measure, prepare, show
from benchmarks._pairs import DATAFLOWS, KNOBS, LEAVES, SIZES
from diffhw.fusing import joined
from diffhw.models import array_counts, systolic

QUICK = ["--batches", "65536", "--dataflows", "ws", "--rounds", "5"]
LEFT_OUT = "os and is; pairs that do not stay in a cache"

BLOCKS = (1024,)  # and all
LARGEST = 65536  # of gradients and whole costs: 31 results of 2**20 pairs are 130 MB a call
KINDS = {
    "cycles": ("ONLY_CYCLES", ("cycles",)),
    "log EDP": ("ONLY_LOG_EDP", ("log EDP",)),
    "cost": ("", LEAVES),
}


def forms(hw, dataflow: str, kind: str) -> dict:
    """Functions of one pair, columns -> outputs."""

    def cost(columns):
        return systolic.layer(_pairs.layer(columns), _pairs.design(hw, columns), dataflow)

    def log_edp(knobs, columns):
        return _common.log_edp(cost({**columns, **knobs}))

    def split(columns):
        return {name: columns[name] for name in KNOBS}

    def forward(columns):
        knobs = split(columns)

        def slope(name):  # one number at a time: what does not depend on it costs nothing
            along = lambda x: log_edp({**knobs, name: x}, columns)
            return jax.jvp(along, (knobs[name],), (jnp.ones_like(knobs[name]),))[1]

        return log_edp(knobs, columns), {name: slope(name) for name in KNOBS}

    reverse = lambda columns: jax.value_and_grad(log_edp)(split(columns), columns)

    def every(columns):
        found = cost(columns)
        return tuple(_pairs.leaf(found, name) for name in LEAVES)

    if kind == "cost":
        return {
            "value": every,
            "value, joined": joined(every),
            "value, joined, at once": AtOnce(joined(every)),
            "value, joined, in a loop": InALoop(joined(every)),
        }
    one = (
        (lambda columns: (cost(columns).cycles,))
        if kind == "cycles"
        else (lambda columns: (log_edp(split(columns), columns),))
    )
    found = {"value": one, "value, at once": AtOnce(one), "value, in a loop": InALoop(one)}
    if kind == "log EDP":
        found |= {
            "+ gradient, reverse": reverse,
            "+ gradient, forward": forward,
            "+ gradient, joined": joined(reverse),
            "+ gradient, joined, at once": AtOnce(joined(reverse)),
            "+ gradient, joined, in a loop": InALoop(joined(reverse)),
        }
    return found


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
    parser.add_argument("--batches", type=int, nargs="*", default=[65536, 1048576])
    parser.add_argument("--dataflows", nargs="*", choices=DATAFLOWS, default=list(DATAFLOWS))
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, at least 5 (default 7)")
    parser.add_argument("--name", default="systolic_kernel", help="of the result file")
    options = parser.parse_args(arguments)
    prepare()
    hw, results, exact = _pairs.base(), [], {}
    for dataflow in options.dataflows:
        for kind in options.kinds:
            define, names = KINDS[kind]
            defines = (f"DATAFLOW={dataflow.upper()}", *filter(None, [define]))
            native, *others = [
                Native("systolic", len(names), defines, *flags)
                # Without -ffast-math gcc has no vector logarithm; with neither, it vectorises no floor.
                for flags in ((), (IEEE,) if kind == "cycles" else None, ((),))
                if flags is not None
            ]
            for batch in options.batches:
                columns = _pairs.pairs(batch)
                exact[f"{dataflow} {batch}"] = folds_are_exact(columns, dataflow)
                programs = {
                    form: Program(function, ({name: jnp.asarray(x) for name, x in columns.items()},), batch)
                    for form, function in forms(hw, dataflow, kind).items()
                    if batch <= LARGEST or (kind != "cost" and "gradient" not in form)
                }
                if not programs:
                    continue
                for one in (native, *others) if native.program else ():
                    one.write(_pairs.constants(hw), [columns[name] for name in (*SIZES, *KNOBS)])
                calls = max(8, 4194304 // batch)
                title = f"{dataflow} {kind}"
                results += measure(native, programs, options.rounds, calls, BLOCKS, names, title, others)
    show(f"systolic kernel, medians of {options.rounds}", results)
    wrong = [name for name, right in exact.items() if not right]
    print(f"  fold counts against 64-bit integers: {'all equal' if not wrong else f'unequal in {wrong}'}")
    _common.write(
        options.name, {"seed": 0, "rounds": options.rounds, "folds_exact": not wrong, "rows": results}
    )


if __name__ == "__main__":
    main()
