"""The suite of a generator against the exact front of the network whose whole space is enumerated."""

import json
import time
from pathlib import Path

import numpy as np

from benchmarks import _common

POINTS, BUDGETS = 100, 10
EVALUATIONS = (120, 300)  # training sets
POLICY = 400  # evaluations at most for one budget


def exact(problem, path: Path):
    """`pareto_bits`, its accuracies kept on disk."""
    from diffhw import recipes

    if not path.exists():
        told = lambda done, count: print(f"  enumerated {done} of {count}", flush=True)
        np.save(path, recipes.pareto_bits(problem, progress=told).accuracy)
    kept = np.load(path)
    every = np.stack(np.unravel_index(np.arange(problem.space_size), problem.sizes), axis=-1)
    return kept, problem.cost("bytes", every)


def best_within(accuracy, cost, budgets) -> np.ndarray:
    """(N,) exact best accuracy within each budget."""
    return np.array([accuracy[cost <= budget * (1 + 1e-9)].max() for budget in budgets])


def suite_of(problem, evaluations: int, seed: int, budgets, best, reference, whole: float) -> dict:
    """One training set, its suite, and the suite really evaluated."""
    from diffhw import recipes

    begin = time.perf_counter()
    known = recipes.sample_front(problem, evaluations, seed)
    suite = recipes.aqgan(problem, seed=seed, training_set=known, surrogate_steps=1000, pool=30_000)
    designs = recipes.front_suite(suite, budgets, seed=seed)
    seconds = time.perf_counter() - begin
    found, used = problem.evaluate(designs), problem.cost("bytes", designs)
    gap = 100 * (best - found)
    return {
        "evaluations": evaluations,
        "seed": seed,
        "hypervolume_share": recipes.hypervolume(found, used, reference) / whole,
        "within_budget": float((used <= budgets * (1 + 1e-9)).mean()),
        "gap_mean_points": float(gap.mean()),
        "within_1_point": float((gap <= 1.0).mean()),
        "evaluations_per_point": evaluations / POINTS,
        "seconds": seconds,
    }


def measure(folder: Path, seeds=(0, 1, 2)) -> dict:
    """Hypervolume of suites as a share of the exact front's, and evaluations per design point."""
    from diffhw import recipes
    from diffhw.recipes._bit_front import tiny_bit_problem

    folder.mkdir(parents=True, exist_ok=True)
    problem = tiny_bit_problem(checkpoint=folder / "tiny_trained")
    accuracy, cost = exact(problem, folder / "tiny_exact.npy")
    reference = (1.0 / problem.selection.classes, float(problem.tables["bytes"][:, -1].sum()))
    whole = recipes.hypervolume(accuracy, cost, reference)
    least = problem.tables["bytes"].min(axis=1).sum()
    budgets = np.linspace(least, reference[1], POINTS + 1)[1:]
    best = best_within(accuracy, cost, budgets)
    rows, suites = [], []
    for evaluations in EVALUATIONS:
        for seed in seeds:
            path = folder / f"front_{evaluations}_{seed}.json"
            if not path.exists():  # a stopped run loses one suite at most
                one = suite_of(problem, evaluations, seed, budgets, best, reference, whole)
                path.write_text(json.dumps(one))
            one = json.loads(path.read_text())
            suites.append(one)
            rows.append([f"{evaluations}, seed {seed}", *list(one.values())[2:]])
            print(" ", one, flush=True)
    policy = []
    for budget in budgets[POINTS // BUDGETS - 1 :: POINTS // BUDGETS][: BUDGETS - 1]:
        goal = float(best_within(accuracy, cost, [budget])[0]) - 0.01
        for seed in seeds:
            found = recipes.policy_bits(problem, budget=float(budget), evaluations=POLICY, seed=seed)
            policy.append(found.evaluations_until(goal))
    reached = [value for value in policy if value is not None]
    _common.table(
        f"{POINTS} design points, tiny network ({problem.space_size} configurations)",
        ["training set", "hypervolume", "in budget", "gap", "within 1 point", "evaluations a point", "s"],
        rows,
    )
    median = float(np.median(reached)) if reached else None
    print(f"  policy gradient: within 1 point in {len(reached)} of {len(policy)} runs, median {median}")
    return {
        "network": problem.network,
        "configurations": problem.space_size,
        "exact_hypervolume": whole,
        "suites": suites,
        "policy": {"runs": len(policy), "reached": len(reached), "median_evaluations": median},
        "times_fewer": {
            str(n): {"spread": median / (n / POINTS), "not_spread": median / n} for n in EVALUATIONS
        }
        if median
        else None,
    }
