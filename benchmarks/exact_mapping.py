"""Proven optima in how long: one 512 x 512 x 512 GEMM, then every distinct layer of a network.

The GEMM runs on the first Gemmini-like architecture of our Timeloop tables (`hardware.gemmini(16, 32, 128)`).
Nothing is compiled: the exact mapper is NumPy on the host. Sizes of the spaces are counted, not estimated.

    python -m benchmarks.exact_mapping [--network resnet50] [--hierarchies gemmini ...]
"""

import argparse
import statistics
import time

from rich.progress import track

from benchmarks._common import table, write
from diffhw import hardware, workloads
from diffhw.recipes import best_mapping, best_mappings, mapping_space_size

QUICK = ["--hierarchies", "gemmini", "--network", "resnet18"]
LEFT_OUT = "two of the three hierarchies; resnet18 instead of resnet50"


def main() -> None:
    """Prints the tables and writes JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--hierarchies", nargs="*", default=list(hardware.HIERARCHIES))
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    gemm, chip, rows, results = workloads.Layer.gemm(512, 512, 512), hardware.gemmini(16, 32, 128), [], {}
    for objective in ("energy", "edp", "latency"):
        runs = [best_mapping(gemm, chip, objective) for _ in range(5)]
        middle = statistics.median(run.seconds for run in runs)
        rows.append([objective, runs[0].score, runs[0].certificate, runs[0].evaluated, middle])
        results[f"gemm {objective}"] = {"seconds": middle, "score": runs[0].score, "gap": runs[0].gap}
    table(
        "512 x 512 x 512 GEMM on gemmini(16, 32, 128)", ["objective", "score", "", "priced", "seconds"], rows
    )

    network = workloads.load(args.network)
    for name in args.hierarchies:
        chip, rows = hardware.hierarchy(name), []
        for row in track(network.rows(), description=name):
            found = {goal: best_mapping(row, chip, goal, seconds=args.seconds) for goal in ("energy", "edp")}
            begin = time.perf_counter()
            size = mapping_space_size(row, chip)
            counting = time.perf_counter() - begin
            rows.append((size, found["energy"], found["edp"], counting))
        sizes, energy, edp, _ = zip(*rows, strict=True)
        line = []
        for goal, found in (("energy", energy), ("edp", edp)):
            seconds = sorted(one.seconds for one in found)
            line.append(
                [
                    goal,
                    f"{sum(one.proven for one in found)} of {len(found)}",
                    max(one.gap for one in found),
                    statistics.median(seconds),
                    seconds[-1],
                    sum(seconds),
                ]
            )
        table(
            f"{args.network} on {name}: {min(sizes):.2g} to {max(sizes):.2g} valid mappings per layer",
            ["objective", "layers proven", "largest gap", "median s", "worst s", "all s"],
            line,
        )
        begin = time.perf_counter()
        whole = best_mappings(network, chip, "edp", seconds=args.seconds)
        print(
            f"  network EDP {whole.score:.5g} pJ x cycles, at most {whole.gap:.2%} above the optimum,"
            f" {time.perf_counter() - begin:.1f} s"
        )
        results[name] = {"lines": line, "sizes": sizes, "edp": whole.score, "edp_gap": whole.gap}
    write("exact_mapping", results)


if __name__ == "__main__":
    main()
