"""How often a gradient search and its rivals find the proven optimum mapping, at equal evaluations.

Sixty small layers of mixed type (convolutions, strided, dilated, depthwise, grouped, pointwise, GEMM,
batched GEMM) on three hierarchies. The optimum of each is proven by the exact mapper; spaces are counted,
not estimated. Every method gets the same budget of evaluations per layer: a mapping costed counts once,
whether it fits or not, and a gradient as often as it takes longer than a value, measured in this run.
"To its best" is the median of what was spent when the best was found.

    python -m benchmarks.mapping_search [--layers 60] [--budget 100000] [--seeds 1] [--objective edp]
"""

import argparse

import numpy as np
from rich.progress import Progress, track

from benchmarks._common import table, write
from diffhw import hardware
from diffhw.recipes import best_mapping, mapping_space_size, search_mappings
from diffhw.workloads import Layer

QUICK = ["--layers", "4", "--budget", "12000", "--hierarchies", "gemmini"]
LEFT_OUT = "56 of the 60 layers, two of the three hierarchies, nine tenths of the budget"

METHODS = ("gradient", "local", "evolution", "random")
HIERARCHIES = ("gemmini", "eyeriss_like", "simba_like")


def small_layers(count: int, seed: int = 0) -> list[Layer]:
    """Layers of eight kinds in turn, their sizes drawn at random."""
    rng = np.random.default_rng(seed)
    one = lambda *values: int(rng.choice(values))
    found = []
    for i in range(count):
        side, taps = one(3, 4, 6, 7, 8), one(2, 3)
        square, window = dict(p=side, q=side), dict(r=taps, s=taps)
        wide = dict(k=one(4, 6, 8, 12, 16), c=one(3, 4, 6, 8, 16))
        sizes = [
            wide | square | window,
            wide | square | window | dict(stride_h=2, stride_w=2),
            wide | square | window | dict(dilation_h=2, dilation_w=2),
            dict(g=one(4, 8, 12, 16)) | square | window,
            dict(g=one(2, 4), k=one(2, 3, 4), c=one(2, 4)) | square | window,
            wide | square,
            dict(k=one(8, 12, 16, 24, 32), c=one(8, 16, 20, 32), p=one(4, 6, 8, 16, 32), q=1),
            dict(g=one(2, 4, 8), k=one(4, 8, 16), c=one(4, 8, 16), p=one(4, 8, 16), q=1),
        ][i % 8]
        found.append(Layer.create(**sizes))
    return found


def main() -> None:
    """Prints the tables and writes JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--budget", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--objective", default="edp", choices=("edp", "energy", "latency"))
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--hierarchies", nargs="*", default=HIERARCHIES, choices=HIERARCHIES)
    args = parser.parse_args()
    layers, results = small_layers(args.layers), {"arguments": vars(args)}
    for name in args.hierarchies:
        chip, optima, sizes = hardware.hierarchy(name), [], []
        for layer in track(layers, description=f"{name}: proven optima"):
            optima.append(best_mapping(layer, chip, args.objective))
            sizes.append(mapping_space_size(layer, chip))
        assert all(best.proven for best in optima), "an optimum is not proven: take smaller layers"
        least = np.array([best.score for best in optima])
        rows, record = [], {"sizes": sizes, "optima": least.tolist(), "methods": {}}
        for method in args.methods:
            for seed in range(args.seeds):
                with Progress(transient=True) as bar:
                    task = bar.add_task(f"{name}: {method}", total=None)
                    step = lambda done, total, task=task, bar=bar: bar.update(
                        task, completed=done, total=total
                    )
                    found = search_mappings(
                        layers,
                        chip,
                        seed,
                        objective=args.objective,
                        method=method,
                        budget=args.budget,
                        progress=step,
                    )
                over = found.scores / least - 1
                rows.append(
                    [
                        f"{method}, seed {seed}",
                        f"{np.mean(over <= 1e-6):.1%}",
                        f"{np.mean(over):.3%}",
                        f"{np.max(over):.2%}",
                        f"{np.median([past[-1][0] for past in found.history]):,.0f}",
                        f"{found.evaluations.max():,.0f}",
                        f"{found.gradient_cost:.1f}",
                        f"{found.seconds:.1f}",
                        f"{found.compile_seconds:.1f}",
                    ]
                )
                record["methods"][f"{method} {seed}"] = {
                    "to_best": [past[-1][0] for past in found.history],
                    "over": over.tolist(),
                    "evaluations": found.evaluations.tolist(),
                    "gradient_cost": found.gradient_cost,
                    "seconds": found.seconds,
                    "compile_seconds": found.compile_seconds,
                }
        large = sum(size > 1e8 for size in sizes)
        table(
            f"{name}: {len(layers)} layers, {min(sizes):.2g} to {max(sizes):.2g} valid mappings,"
            f" {large} with more than 1e8; {args.objective}",
            [
                "method",
                "optimum",
                "mean gap",
                "worst",
                "to its best",
                "most evaluations",
                "gradient/value",
                "s",
                "compile s",
            ],
            rows,
        )
        results[name] = record
    write("mapping_search", results)


if __name__ == "__main__":
    main()
