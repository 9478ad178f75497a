"""Can a generator of bit widths be trained through the quantized network itself?

    python -m benchmarks.through_network [--seeds 0 1] [--passes 7300] [--ways score ...] [--fresh]

On a network whose 32,768 configurations are all evaluated (`tiny_bit_problem`, trained here), every way of
`recipes.through_network` with and without entropy, at the same number of network passes (a gradient counts
as three), and `recipes.aqgan` with as many evaluations beside them. Raw error: mean |accuracy - target| in
points over 64 samples, by the exact table; 20 targets. The network, its table and rows finished before are
kept in benchmarks/build; --fresh measures the rows again. --no-table evaluates the samples only.
"""

import argparse
import json
import time

import jax
import numpy as np

from benchmarks import _common

QUICK = ["--ways", "score", "--entropies", "0.02", "--passes", "1500", "--fresh", "--no-table"]
LEFT_OUT = "three of the four ways, two of the three entropies, four fifths of the passes; the whole table"

KEPT = _common.BUILD / "through_network"
TARGETS = np.linspace(0.30, 0.97, 20)
SAMPLES = 64
WISHES, IMAGES = 16, 128
CASES = [
    ("implicit", 0.0),
    ("implicit", 0.02),
    ("implicit", 0.06),
    ("relaxed", 0.0),
    ("relaxed", 0.02),
    ("relaxed", 0.06),
    ("score", 0.0),
    ("score", 0.02),
    ("score", 0.06),
    ("aqgan", None),
]


def exact_table(problem) -> np.ndarray:
    """Accuracy of every configuration; kept in parts, so that an interrupted run goes on."""
    parts = np.array_split(np.arange(problem.space_size), 16)
    found = []
    for i, part in enumerate(parts):
        at = KEPT / f"{problem.fingerprint[:16]}-{i}.npy"
        if not at.exists():
            print(f"  evaluating all configurations, part {i + 1} of {len(parts)}")
            designs = np.stack(np.unravel_index(part, problem.sizes), axis=-1)
            np.save(at, problem.evaluate(designs, count=False))
        found.append(np.load(at))
    return np.concatenate(found)


def quality(problem, table: np.ndarray | None, generator, budget_share: float | None = None) -> dict:
    """Raw error and diversity over the targets; with a budget too, the share of samples that keep it."""
    from diffhw.search import diversity

    errors, distinct, distance, kept = [], [], [], []
    every = problem.tables["bytes"][:, -1].sum()
    for i, target in enumerate(TARGETS):
        wish = {"accuracy": float(np.clip(target, generator.low[0], generator.high[0]))}
        if budget_share is not None:
            wish["bytes"] = budget_share * every
        drawn = generator.sample(jax.random.key(1000 + i), wish, SAMPLES)
        if table is None:
            accuracy = problem.evaluate(drawn, count=False)
        else:
            accuracy = table[np.ravel_multi_index(drawn.T, problem.sizes)]
        errors.append(100 * np.abs(accuracy - target).mean())
        share, pairs = diversity(drawn)
        distinct.append(share)
        distance.append(pairs)
        if budget_share is not None:
            kept.append(float((problem.cost("bytes", drawn) <= wish["bytes"]).mean()))
    found = {
        "raw_mean_points": float(np.mean(errors)),
        "raw_worst_target_points": float(np.max(errors)),
        "distinct": float(np.mean(distinct)),
        "distinct_worst_target": float(np.min(distinct)),
        "pairwise_distance": float(np.mean(distance)),
    }
    return found | ({"within_budget": float(np.mean(kept))} if kept else {})


def of_data(problem, table: np.ndarray) -> dict:
    """Diversity of random configurations with the same accuracies: what a generator could have at best."""
    from diffhw.search import diversity

    rng, rows = np.random.default_rng(0), []
    every = np.stack(np.unravel_index(np.arange(len(table)), problem.sizes), axis=-1)
    for target in TARGETS:
        near = np.flatnonzero(np.abs(table - target) < 0.015)
        rows.append(diversity(every[rng.choice(near, SAMPLES)]))
    return {"distinct": float(np.mean(rows, 0)[0]), "pairwise_distance": float(np.mean(rows, 0)[1])}


def measure(
    problem, table, way: str, entropy, seed: int, passes: int, budgets: tuple[str, ...], fresh: bool
) -> dict:
    """One row; from an earlier run if it was finished, unless ``fresh``."""
    from diffhw import recipes

    name = "-".join(map(str, (way, entropy, seed, passes, *budgets)))
    at = KEPT / f"{problem.fingerprint[:16]}-{name}.json"
    if at.exists() and not fresh:
        return json.loads(at.read_text())
    begin = time.perf_counter()
    if way == "aqgan":
        suite = recipes.aqgan(problem, evaluations=passes, seed=seed, budgets=budgets)
        made, spent = suite.generator, float(suite.evaluations)
    else:
        share = WISHES * 8 * IMAGES / len(problem.selection) * (1 if way == "score" else 3)
        steps = round((passes - 512) / share)
        through = recipes.through_network(
            problem,
            way,
            entropy=entropy,
            steps=steps,
            wishes=WISHES,
            images=IMAGES,
            rate=RATES[way],
            seed=seed,
            budgets=budgets,
        )
        made, spent = through.generator, through.evaluations
    found = quality(problem, table, made)
    found |= {"way": way, "entropy": entropy, "seed": seed, "passes": spent}
    found |= {"seconds": time.perf_counter() - begin}
    if budgets:
        found["joint"] = quality(problem, table, made, 0.6)
    at.write_text(json.dumps(found))
    return found


RATES = {"implicit": 1e-3, "relaxed": 1e-3, "score": 2e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--passes", type=int, default=7300, help="of the network over the selection images")
    parser.add_argument("--budgets", nargs="*", default=[], help="further conditions, such as bytes")
    parser.add_argument("--ways", nargs="+", default=["implicit", "relaxed", "score", "aqgan"])
    parser.add_argument("--entropies", nargs="+", type=float, default=[0.0, 0.02, 0.06])
    parser.add_argument("--fresh", action="store_true", help="measure what was finished before again")
    parser.add_argument(
        "--table", action=argparse.BooleanOptionalAction, default=True,
        help="evaluate all configurations once, for the row of random ones with the same accuracies",
    )  # fmt: skip
    parser.add_argument("--json", default="through_network", help="name of the result file")
    args = parser.parse_args()
    from diffhw.recipes._bit_front import tiny_bit_problem

    KEPT.mkdir(parents=True, exist_ok=True)
    problem = tiny_bit_problem(checkpoint=KEPT / "cnn_tiny")
    table = exact_table(problem) if args.table else None
    rows, found = [], []
    for way, entropy in CASES:
        if way not in args.ways or entropy not in (None, *args.entropies):
            continue
        for seed in args.seeds:
            asked = (way, entropy, seed, args.passes, tuple(args.budgets), args.fresh)
            found.append(measure(problem, table, *asked))
        same = found[-len(args.seeds) :]
        mean = lambda key, same=same: float(np.mean([one[key] for one in same]))
        rows.append(
            [
                way,
                "-" if entropy is None else f"{entropy:g}",
                f"{mean('raw_mean_points'):.2f}",
                f"{mean('raw_worst_target_points'):.1f}",
                f"{mean('distinct'):.2f}",
                f"{min(one['distinct_worst_target'] for one in same):.2f}",
                f"{mean('pairwise_distance'):.2f}",
                f"{mean('passes'):.0f}",
                f"{mean('seconds'):.0f}",
            ]
        )
    data = {} if table is None else of_data(problem, table)
    if data:
        shares = (f"{data['distinct']:.2f}", "", f"{data['pairwise_distance']:.2f}")
        rows.append(["random, same accuracy", "", "", "", *shares, "", ""])
    _common.table(
        f"cnn_tiny, {len(args.seeds)} seeds, {len(TARGETS)} targets, {SAMPLES} samples each",
        ["", "entropy", "raw", "worst", "distinct", "worst", "distance", "passes", "s"],
        rows,
    )
    _common.write(args.json, {"rows": found, "data": data, "images": len(problem.selection)})


if __name__ == "__main__":
    main()
