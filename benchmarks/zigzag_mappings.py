"""ZigZag's mappings re-costed in our model, then ours under the same spatial factors on the same chip.

Rows whose loops sit evenly over the memories of all operands (the others are no single loop nest). ZigZag
keeps at most `lpf_limit` loops, so its best mapping is the best of a reduced space; ours is the proven
optimum of all perfect factors and orders, with the same tensors kept at each level.

    python -m benchmarks.zigzag_mappings ROWS.jsonl [--architectures FILE]
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from rich.progress import track

from benchmarks._common import table, write
from diffhw.models import loopnest
from diffhw.recipes import best_mapping
from diffhw.validation._table import architectures_beside
from diffhw.validation._zigzag_loopnest import Nested, as_loopnest
from diffhw.validation._zigzag_read import Unanswerable, read_architectures, read_rows

QUICK = ["tests/data/zigzag_rows.jsonl", "--limit", "200"]
LEFT_OUT = "four fifths of the partial mappings kept per level"


def recost(nested: Nested) -> tuple[float, float, float]:
    """pJ x cycles, pJ and cycles of the row's own mapping, float64; inf if it does not fit."""
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
        cost = loopnest.layer(double(nested.layer), double(nested.hierarchy), double(nested.nest))
        energy, cycles = float(cost.energy_pj), float(cost.cycles)
        return (energy * cycles if float(cost.violation) < 0.01 else float("inf")), energy, cycles


def main() -> None:
    """Prints the table and writes JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--architectures", type=Path)
    parser.add_argument("--limit", type=int, default=1000, help="partial mappings kept per level")
    args = parser.parse_args()
    architectures = read_architectures(args.architectures or architectures_beside(args.rows))
    runs = [row for row in read_rows(args.rows, architectures)]
    gains, gaps, by_arch, worse, skipped, begin = [], [], {}, [], {}, time.perf_counter()
    for row in track(runs, description="layers"):
        nested = row.run.reason if isinstance(row.run, Unanswerable) else as_loopnest(row.run)
        if isinstance(nested, str):
            skipped[nested] = skipped.get(nested, 0) + 1
            continue
        theirs, _, _ = recost(nested)
        spatial = {
            level.name: {"x": {d: int(f) for d, f in of_level.spatial_x.items()}}
            for level, of_level in zip(nested.hierarchy.levels, nested.nest.levels, strict=True)
            if of_level.spatial_x
        }
        best = best_mapping(nested.layer, nested.hierarchy, "edp", spatial=spatial, limit=args.limit)
        gaps.append(best.gap)
        gain = theirs / best.score
        gains.append(gain)
        by_arch.setdefault(str(row.cells["arch"]), []).append(gain)
        if gain < 1 - 1e-6:
            worse.append((row.name, gain))
    finite = [g for g in gains if np.isfinite(g)]
    table(
        "EDP of ZigZag's mapping over ours, same spatial factors, our model",
        ["architecture", "rows", "median", "least", "most"],
        [[a, len(g), statistics.median(g), min(g), max(g)] for a, g in by_arch.items()]
        + [["all", len(finite), statistics.median(finite), min(finite), max(finite)]],
    )
    good = sum(g >= 1 - 1e-6 for g in gains)
    proven = sum(gap <= 2e-9 for gap in gaps)
    print(f"  ours is no worse on {good} of {len(gains)} rows; {proven} proven, largest gap {max(gaps):.2%}")
    print(f"  median improvement {100 * (1 - 1 / statistics.median(finite)):.1f} % of the EDP")
    for reason, count in skipped.items():
        print(f"  skipped {count}: {reason}")
    for name, gain in worse:
        print(f"  worse on {name}: {gain:.4f}")
    print(f"  {time.perf_counter() - begin:.1f} s")
    write("zigzag_mappings", {"gains": gains, "skipped": skipped, "worse": worse, "gaps": gaps})


if __name__ == "__main__":
    main()
