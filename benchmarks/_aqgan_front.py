"""The suite of a generator against the exact front of the network whose whole space is enumerated."""

import json
import time
from pathlib import Path

import numpy as np

from benchmarks import _common

POINTS, BUDGETS = 100, 10
EVALUATIONS = (120, 300)  # training sets
POLICY = 400  # evaluations at most for one budget
COLUMNS = ("hypervolume_share", "within_budget", "gap_mean_points", "within_1_point", "evaluations_per_point")
COLUMNS += ("seconds",)


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
    said = quality(problem, designs, evaluations, budgets, best, reference, whole)
    return {"seed": seed, **said, "seconds": seconds}


def sweep_of(problem, budgets, best, reference, whole: float) -> dict:
    """The suite of one sweep of the layers, really evaluated."""
    from diffhw import recipes

    begin = time.perf_counter()
    found = recipes.sweep_layers(problem)
    designs = found.suite(budgets)
    seconds = time.perf_counter() - begin
    return quality(problem, designs, found.evaluations, budgets, best, reference, whole) | {
        "seconds": seconds
    }


def quality(problem, designs, evaluations: int, budgets, best, reference, whole: float) -> dict:
    """Of a suite, by evaluating it."""
    from diffhw import recipes

    found, used = problem.evaluate(designs), problem.cost("bytes", designs)
    gap = 100 * (best - found)
    return {
        "evaluations": evaluations,
        "hypervolume_share": recipes.hypervolume(found, used, reference) / whole,
        "within_budget": float((used <= budgets * (1 + 1e-9)).mean()),
        "gap_mean_points": float(gap.mean()),
        "within_1_point": float((gap <= 1.0).mean()),
        "evaluations_per_point": evaluations / POINTS,
    }


def enumerated(folder: Path, seed: int):
    """The tiny network trained from this seed: (problem, budgets, exact best within each, corner, volume)."""
    from diffhw import recipes
    from diffhw.recipes._bit_front import tiny_bit_problem

    problem = tiny_bit_problem(seed=seed, checkpoint=folder / f"tiny_{seed}_trained")
    accuracy, cost = exact(problem, folder / f"tiny_{seed}_exact.npy")
    reference = (1.0 / problem.selection.classes, float(problem.tables["bytes"][:, -1].sum()))
    least = problem.tables["bytes"].min(axis=1).sum()
    budgets = np.linspace(least, reference[1], POINTS + 1)[1:]
    best = best_within(accuracy, cost, budgets)
    return problem, accuracy, cost, budgets, best, reference, recipes.hypervolume(accuracy, cost, reference)


def measure(folder: Path, seeds=(0, 1, 2)) -> dict:
    """Hypervolume of suites as a share of the exact front's, and evaluations per design point."""
    from diffhw import recipes

    folder.mkdir(parents=True, exist_ok=True)
    rows, suites, swept = [], [], []
    for seed in seeds:  # of the network's training: a sweep itself draws nothing
        problem, _, _, *of = enumerated(folder, seed)
        swept.append({"network_seed": seed, **sweep_of(problem, *of)})
        rows.append([f"one sweep, network {seed}", *(swept[-1][name] for name in COLUMNS)])
        print(" ", swept[-1], flush=True)
    problem, accuracy, cost, budgets, best, reference, whole = enumerated(folder, 0)
    for evaluations in EVALUATIONS:
        for seed in seeds:
            path = folder / f"front_{evaluations}_{seed}.json"
            if not path.exists():  # a stopped run loses one suite at most
                one = suite_of(problem, evaluations, seed, budgets, best, reference, whole)
                path.write_text(json.dumps(one))
            one = json.loads(path.read_text())
            suites.append(one)
            rows.append([f"{evaluations}, seed {seed}", *(one[name] for name in COLUMNS)])
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
    counts = (swept[0]["evaluations"], *EVALUATIONS)
    fewer = {str(n): {"spread": median / (n / POINTS), "not_spread": median / n} for n in counts if median}
    print(f"  times fewer evaluations a design point than the policy gradient: {fewer}")
    return {
        "network": problem.network,
        "configurations": problem.space_size,
        "exact_hypervolume": whole,
        "swept": swept,
        "suites": suites,
        "policy": {"runs": len(policy), "reached": len(reached), "median_evaluations": median},
        "times_fewer": fewer,
    }
