"""How good is the search of the main job? Gap to the enumerated optimum, beside two rivals at equal cost.

`python -m benchmarks.search_quality [--seeds 20] [--large]` prints per case: the enumerated optimum, the
share of seeds within 1 %, the worst, evaluations against the size of the grid, and the two rivals with
the same budget. ``--large`` adds a space of more than 1e9 designs, judged by the best any method found.
"""

import argparse
from dataclasses import replace

import jax
import numpy as np

from benchmarks._common import table, write
from diffhw import hardware, workloads
from diffhw.recipes._codesign import EFFORT, blocks_of
from diffhw.recipes._problem import make_problem
from diffhw.search import enumeration, gradient, local_search, random_search
from diffhw.spaces import Choice, Integer, Space

QUICK = ["--seeds", "5", "--cases", "1"]
LEFT_OUT = "three of the four cases, the large space, 15 of the 20 seeds"

CASES = (("mobilenet_v2", 4.0), ("mobilenet_v2", 2.5), ("resnet50", 12.0), ("bert_base", 12.0))


def main_problem(network: str, area_mm2: float, extra=()):
    return make_problem(
        tuple(workloads.load(name).merged() for name in (network, *extra)),
        objective="edp", limits={"area_mm2": area_mm2}, bits=8, node_nm=22.0, freq_mhz=1000.0,
        dram="auto", per_layer_dataflow=False,
    )  # fmt: skip


def large_problem(network: str, area_mm2: float):
    """Every whole number of rows and columns, buffers in quarter octaves: 5e10 designs."""
    problem = main_problem(network, area_mm2)
    hw = problem.template["hardware"]
    fine = replace(
        hw,
        rows=Integer(4, 256),
        cols=Integer(4, 256),
        levels=tuple(replace(lv, capacity_bytes=Integer(8192, 4194304, per_octave=4)) for lv in hw.levels),
        dram=Choice({name: hardware.dram(name) for name in hardware.DRAM_TYPES}),
    )
    template = {**problem.template, "hardware": fine}
    return replace(problem, template=template, space=Space(template))


def run(problem, seeds: int, optimum: float | None):
    # One function object, so that all seeds and methods share compiled programs.
    objective, constraints = problem.objective, problem.constraints()
    blocks = blocks_of(problem.space)
    found = {"gradient": [], "random": [], "local": []}
    spent, costs = [], []
    for seed in range(seeds):
        key = jax.random.key(seed)
        ours = gradient(objective, problem.space, key, constraints=constraints, blocks=blocks, **EFFORT)
        spent.append(ours.evaluations)
        costs.append(ours.gradient_cost)
        found["gradient"].append(ours)
        common = dict(constraints=constraints, budget=ours.evaluations)
        found["random"].append(random_search(objective, problem.space, key, **common))
        found["local"].append(local_search(objective, problem.space, key, **common))
    best = min(r.value for rs in found.values() for r in rs if r.feasible)
    reference = best if optimum is None else optimum
    out = {}
    for name, results in found.items():
        gaps = np.array([r.value / reference - 1 if r.feasible else np.inf for r in results])
        out[name] = {
            "within_1pct": float(np.mean(gaps <= 0.01)),
            "median_gap": float(np.median(gaps)),
            "worst_gap": float(gaps.max()),
            "seconds": float(np.median([r.seconds for r in results])),
        }
    first = found["gradient"][0]
    return {
        "designs": int(problem.space.size),
        "reference": reference,
        "reference_is": "enumerated optimum" if optimum is not None else "best found by any method",
        "binding": first.binding,
        "area_mm2": first.constraint_values["area_mm2"],
        "evaluations_median": float(np.median(spent)),
        "evaluations_worst": float(np.max(spent)),
        "fewer_than_grid": float(problem.space.size / np.max(spent)),
        "gradient_cost_median": float(np.median(costs)),
        "methods": out,
    }


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--cases", type=int, default=len(CASES), help="the first of the cases (default: all)")
    options = parser.parse_args(arguments)
    results, rows = {}, []
    cases = [(f"{n} {a:g} mm2", main_problem(n, a), True) for n, a in CASES[: options.cases]]
    if options.large:
        cases += [(f"{n} {a:g} mm2, fine", large_problem(n, a), False) for n, a in CASES[2:]]
    for name, problem, small in cases:
        optimum = None
        if small:
            proof = enumeration(problem.objective, problem.space, constraints=problem.constraints())
            optimum = proof.value
        one = results[name] = run(problem, options.seeds, optimum)
        for method, figures in one["methods"].items():
            rows.append(
                (
                    name,
                    method,
                    f"{one['designs']:.3g}",
                    f"{one['evaluations_worst']:,.0f}",
                    f"{one['fewer_than_grid']:,.0f}x",
                    f"{100 * figures['within_1pct']:.0f} %",
                    f"{100 * figures['median_gap']:.2f} %",
                    f"{100 * figures['worst_gap']:.2f} %",
                    f"{figures['seconds']:.2f}",
                )
            )
        print(
            f"{name}: binding {one['binding']}, gradient counted as {one['gradient_cost_median']:.1f}",
            flush=True,
        )
    heads = [
        "case",
        "method",
        "designs",
        "evaluations (worst)",
        "fewer",
        "within 1 %",
        "median",
        "worst",
        "s/seed",
    ]
    table(f"Gap to the optimum, {options.seeds} seeds", heads, rows)
    write("search_quality", {"seeds": options.seeds, "cases": results})
    return results


if __name__ == "__main__":
    main()
