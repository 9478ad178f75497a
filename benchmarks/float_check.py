"""Is float32 enough? The three models in float32 beside float64, on random designs and random layers.

    python -m benchmarks.float_check [--designs 1000000] [--models systolic dataflow loopnest] [--chunk C]

Layers come from the networks of the zoo; every design is random: array sides, lanes, widths, capacities and
bandwidths (systolic), directive programs of one to three levels on random arrays (dataflow), mappings of
Gemmini-, Eyeriss- and Simba-like hierarchies with scaled energies, ports and capacities (loopnest). The
inputs are float32 numbers, so both runs see the same ones.

Bars. *Counts* (folds, tiles, units, steps, compute cycles): equal wherever they are below 2**24. *Verdicts*
(feasible): equal. *Totals* (everything else): within 1e-6 of the float64 value; a difference of two totals
(stall, violation, what comes back) within 1e-6 of what it is a difference of. Exit code 1 if one is missed.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import numpy as np

from benchmarks import _common, _dataflows, _loopnests, _pairs
from benchmarks.loopnest_million import scaled
from diffhw import hardware
from diffhw._cli._progress import Progress
from diffhw.mappings import DIMS, LOOPS, Precision
from diffhw.models import (
    array_counts,
    dataflow,
    dataflow_counts,
    loopnest,
    loopnest_counts,
    nest_of,
    systolic,
)

QUICK = ["--models", "systolic", "loopnest", "--designs", "32768"]
LEFT_OUT = "the dataflow model (4,096 designs: tests/models/test_float32.py); most designs of the others"
EXACT_TO = 2.0**24
BAR = 1e-6
MODELS = ("systolic", "dataflow", "loopnest")


@dataclass(frozen=True)
class Case:
    """One compiled program of a model.

    batch: (count, seed) -> inputs, numpy float32 leaves (count,).
    figures: one design's inputs -> {"counts": {...}, "verdicts": {...}, "totals": {name: (value, scale)}}.
    """

    model: str
    name: str
    batch: Callable
    figures: Callable


@dataclass
class Leaf:
    """What was found about one leaf so far."""

    kind: str
    designs: int = 0
    equal: int = 0
    exact: int = 0  # of the counts: those below 2**24
    misses: int = 0
    error: float = 0.0
    worst: dict = field(default_factory=dict)


def _cost_leaves(cost, parts_of: dict[str, str]) -> dict:
    """Totals of a Cost, each with the figure that it is a difference of (else itself).

    parts_of: {leaf: leaf that its error is judged by}.
    """
    leaves = {
        "cycles": cost.cycles,
        "energy_pj": cost.energy_pj,
        "area_mm2": cost.area_mm2,
        "macs": cost.macs,
        "violation": cost.violation,
    }
    for group in ("traffic_bytes", "energy_parts", "area_parts", "cycle_parts"):
        leaves |= {f"{group}.{name}": value for name, value in getattr(cost, group).items()}
    judged = {name: (value, leaves[parts_of.get(name, name)]) for name, value in leaves.items()}
    judged["violation"] = (cost.violation, 1.0 + cost.violation)
    return judged


def _log_uniform(rng, low, high, count):
    return np.exp(rng.uniform(np.log(low), np.log(high), count))


def systolic_batch(count: int, seed: int) -> dict:
    """Zoo layers on any array: sides 1 to 512, 1 to 16 lanes, odd capacities, 4 to 16 bits."""
    rng = np.random.default_rng([seed, 1])
    columns = _pairs.pairs(count, seed)
    any_side = lambda: np.where(
        rng.random(count) < 0.5, 2.0 ** rng.integers(0, 10, count), rng.integers(1, 513, count)
    )
    made = {"rows": any_side(), "cols": any_side(), "lanes": 2.0 ** rng.integers(0, 5, count)}
    for name, _ in _pairs.BUFFERS:
        made[f"{name}_bytes"] = np.floor(_log_uniform(rng, 1024, 1 << 24, count))
    made["dram_gb_per_s"] = _log_uniform(rng, 0.5, 2000, count)
    made["operand_bits"] = rng.choice([4, 8, 16], count)
    made["psum_bits"] = rng.choice([16, 24, 32], count)
    return columns | {name: np.float32(column) for name, column in made.items()}


def systolic_figures(mapping: str, columns: dict) -> dict:
    layer, hw = _pairs.layer(columns), _pairs.design(_pairs.base(), columns)
    hw = replace(hw, lanes=columns["lanes"])
    bits = columns["operand_bits"]
    precision = Precision(weight=bits, input=bits, psum=columns["psum_bits"], output=bits)
    cost = systolic.layer(layer, hw, mapping, precision)
    m, k = layer.n * layer.p * layer.q, layer.c * layer.r * layer.s
    folds = array_counts(m, layer.k, k, hw.rows, hw.cols, mapping, hw.lanes)
    names = ("row_folds", "col_folds", "folds", "stream", "fold_cycles")
    totals = _cost_leaves(cost, {"cycle_parts.stall": "cycles"})
    totals |= {
        f"words.{name}": (getattr(folds, name), getattr(folds, name))
        for name in ("input_reads", "weight_reads", "output_writes", "psum_reads")
    }
    return {
        "counts": {name: getattr(folds, name) for name in names} | {"compute_cycles": folds.cycles},
        "verdicts": {"feasible": cost.feasible},
        "totals": totals,
    }


def dataflow_batch(count: int, seed: int) -> dict:
    """Zoo layers under random directive programs on random arrays."""
    layer, mapping = _dataflows.random_batch(count, seed)
    rng = np.random.default_rng([seed, 2])
    hw = jax.tree.map(lambda leaf: np.full((count,), leaf, np.float32), _dataflows.base())
    scale = lambda: np.float32(2.0 ** rng.uniform(-4, 4, count))
    side = lambda: np.float32(rng.integers(1, 65, count))
    levels = tuple(
        replace(
            level,
            capacity_bytes=np.floor(level.capacity_bytes * scale()),
            read_bytes_per_cycle=level.read_bytes_per_cycle * scale(),
        )
        for level in hw.levels
    )
    rows, cols = side(), side()
    levels = (replace(levels[0], instances=rows * cols), *levels[1:])
    return {"layer": layer, "mapping": mapping, "hw": replace(hw, rows=rows, cols=cols, levels=levels)}


def dataflow_figures(inputs: dict) -> dict:
    layer, hw, mapping = inputs["layer"], inputs["hw"], inputs["mapping"]
    cost = dataflow.layer(layer, hw, mapping)
    nest = nest_of(layer, mapping, hw.pes)
    found = dataflow_counts(nest, tuple(level.rank for level in mapping.levels))
    counts = {"steps": found.steps, "compute": found.compute}
    for d in DIMS:
        for i in range(3):
            counts[f"trips.{d}{i}"] = nest.sums[d].trips[i]
            counts[f"tiles.{d}{i}"] = nest.tiles[d][i]
            counts[f"units.{d}{i}"] = nest.units[d][i]
        counts[f"positions.{d}"] = nest.sums[d].steps[3]
    total = lambda value: (value, value)
    totals = _cost_leaves(
        cost,
        {"cycle_parts.stall": "cycles", "traffic_bytes.dram_psum_read": "traffic_bytes.dram_output_write"},
    )
    totals |= {
        f"words.{name}": total(getattr(found, name))
        for name in ("macs", "input_reads", "weight_reads", "input_fills", "weight_fills", "output_moves",
                     "output_drains", "psum_updates")
    }  # fmt: skip
    totals["words.output_returns"] = (found.output_returns, found.output_moves)
    return {"counts": counts, "verdicts": {"feasible": cost.feasible}, "totals": totals}


def loopnest_batch(name: str, count: int, seed: int) -> dict:
    """Zoo layers under random mappings of a hierarchy with scaled energies, ports and capacities."""
    base = hardware.hierarchy(name)
    layer, nest = _loopnests.random_batch(base, count, seed)
    return {"layer": layer, "nest": nest, "hierarchy": scaled(base, count, np.random.default_rng([seed, 3]))}


def loopnest_figures(inputs: dict) -> dict:
    layer, hierarchy, mapping = inputs["layer"], inputs["hierarchy"], inputs["nest"]
    cost = loopnest.layer(layer, hierarchy, mapping)
    found = loopnest_counts(layer, hierarchy, mapping)
    counts = {"steps": found.compute_cycles, "macs_used": found.macs_used}
    for k in range(len(hierarchy.levels)):
        counts[f"instances.{k}"] = found.instances[k]
        counts |= {f"tile.{d}{k}": found.nest.tile[k][d] + 0.0 * cost.cycles for d in LOOPS}
    totals = _cost_leaves(cost, {"cycle_parts.stall": "cycles", "cycle_parts.spatial_loss": "cycles"})
    for k, tensors in enumerate(found.tensors):
        for t, words in tensors.items():
            for name in ("tile", "reads", "fills", "updates"):
                value = getattr(words, name)
                totals[f"words.{name}.{t}{k}"] = (value, value)
    return {"counts": counts, "verdicts": {"feasible": cost.feasible}, "totals": totals}


def cases(models=MODELS) -> list[Case]:
    """The programs of the models, one per dataflow and hierarchy."""
    every = [
        Case("systolic", flow, systolic_batch, partial(systolic_figures, flow)) for flow in ("os", "ws", "is")
    ]
    every.append(Case("dataflow", "directives", dataflow_batch, dataflow_figures))
    every += [
        Case("loopnest", name, partial(loopnest_batch, name), loopnest_figures)
        for name in hardware.HIERARCHIES
    ]
    return [case for case in every if case.model in models]


def _judge(leaves: dict[str, Leaf], single: dict, double: dict, live: int, seed: int) -> None:
    """Adds one chunk's findings; only the first ``live`` designs count."""
    for kind, group in double.items():
        for name, exact in group.items():
            got = single[kind][name]
            exact, scale = exact if kind == "totals" else (exact, exact)
            got = got[0] if kind == "totals" else got
            got, exact, scale = (np.asarray(x)[:live].astype(np.float64) for x in (got, exact, scale))
            leaf = leaves.setdefault(name, Leaf(kind))
            same = got == exact
            with np.errstate(divide="ignore", invalid="ignore"):
                error = np.where(same, 0.0, np.abs(got - exact) / np.abs(scale))
            error = np.where(np.isnan(error), np.inf, error)
            small = np.abs(exact) < EXACT_TO
            must_be_equal = {"counts": small, "verdicts": True, "totals": False}[kind]
            missed = np.where(must_be_equal, ~same, error > BAR)
            leaf.designs += live
            leaf.equal += int(same.sum())
            leaf.exact += int(small.sum()) if kind == "counts" else 0
            leaf.misses += int(missed.sum())
            at = int(np.argmax(np.where(missed, error + 1e9, error)))
            if error[at] > leaf.error or (missed.any() and not leaf.worst.get("missed")):
                leaf.worst = {
                    "seed": seed, "index": at, "float32": float(got[at]), "float64": float(exact[at]),
                    "missed": bool(missed[at]),
                }  # fmt: skip
            leaf.error = max(leaf.error, float(error.max()))


def check(case: Case, designs: int, chunk: int, seed: int = 0, progress=None) -> dict[str, Leaf]:
    """Findings per leaf over ``designs`` random designs of one case."""
    leaves: dict[str, Leaf] = {}
    program = jax.jit(jax.vmap(case.figures))
    for first in range(0, designs, chunk):
        inputs = case.batch(chunk, seed + first)
        with jax.enable_x64(False):
            single = jax.tree.map(np.asarray, program(inputs))
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), inputs)
            double = jax.tree.map(np.asarray, program(wide))
        _judge(leaves, single, double, min(chunk, designs - first), seed + first)
        if progress is not None:
            progress(f"{case.model} {case.name}", min(first + chunk, designs), designs, None)
    return leaves


def merged(found: list[dict[str, Leaf]]) -> dict[str, Leaf]:
    """Findings of several cases of a model as one; leaves of several loops and levels stay apart."""
    total: dict[str, Leaf] = {}
    for leaves in found:
        for name, leaf in leaves.items():
            into = total.setdefault(name, Leaf(leaf.kind))
            for count in ("designs", "equal", "exact", "misses"):
                setattr(into, count, getattr(into, count) + getattr(leaf, count))
            if leaf.error > into.error or (leaf.misses and not into.worst.get("missed")):
                into.worst = leaf.worst
            into.error = max(into.error, leaf.error)
    return total


def _family(name: str, kind: str) -> str:
    """Leaves of all loops and levels on one line of the table: "tiles.k0" -> "tiles"."""
    if kind == "counts":
        return name.partition(".")[0]
    return ".".join(name.split(".")[:2]) if name.startswith("words.") else name


def _print(model: str, leaves: dict[str, Leaf]) -> None:
    groups: dict[tuple[str, str], list[Leaf]] = {}
    for name, leaf in leaves.items():
        groups.setdefault((leaf.kind, _family(name, leaf.kind)), []).append(leaf)
    rows = []
    for (kind, name), group in groups.items():
        share = sum(leaf.equal for leaf in group) / sum(leaf.designs for leaf in group)
        rows.append(
            [
                name,
                kind,
                f"{share:.4%}",
                max(leaf.error for leaf in group),
                sum(leaf.misses for leaf in group),
            ]
        )
    _common.table(
        f"{model}: float32 beside float64", ["leaf", "kind", "equal", "largest error", "misses"], rows
    )


def run(
    models=MODELS, designs: int = 1_000_000, chunk: int = 16_384, seed: int = 0, show: bool = True
) -> dict:
    """``designs`` per model, dealt out evenly to its cases; the findings as JSON would have them."""
    result: dict = {"designs_per_model": designs, "bar": BAR, "exact_to": EXACT_TO, "models": {}}
    for model in models:
        mine, found, begin = cases((model,)), [], time.perf_counter()
        for i, case in enumerate(mine):
            share = designs // len(mine) + (i < designs % len(mine))
            with Progress() as progress:
                leaves = check(case, share, min(chunk, share), seed, progress)
            for leaf in leaves.values():
                leaf.worst["case"] = case.name
            found.append(leaves)
        leaves = merged(found)
        if show:
            _print(model, leaves)
        result["models"][model] = {
            "designs": designs,
            "cases": [case.name for case in mine],
            "seconds": time.perf_counter() - begin,
            "misses": sum(leaf.misses for leaf in leaves.values()),
            "leaves": {
                name: {
                    "kind": leaf.kind, "equal_share": leaf.equal / leaf.designs, "misses": leaf.misses,
                    "largest_error": leaf.error if np.isfinite(leaf.error) else "inf", "worst": leaf.worst,
                } | ({"share_below_2_24": leaf.exact / leaf.designs} if leaf.kind == "counts" else {})
                for name, leaf in leaves.items()
            },
        }  # fmt: skip
    return result


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--designs", type=int, default=1_000_000, help="per model (default 10^6)")
    parser.add_argument("--models", nargs="*", default=MODELS, choices=MODELS)
    parser.add_argument("--chunk", type=int, default=16_384, help="designs in a call (default 16384)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="float_check", help="of the result file")
    args = parser.parse_args(arguments)
    result = run(args.models, args.designs, args.chunk, args.seed)
    missed = {model: row["misses"] for model, row in result["models"].items() if row["misses"]}
    # Models of an earlier run over as many designs stay in the file: a long check can be made in parts.
    earlier = _common.read(args.name)
    if earlier.get("designs_per_model") == args.designs:
        result["models"] = {**earlier["models"], **result["models"]}
    _common.write(args.name, result)
    if missed:
        sys.exit(f"float32 misses the bars: {missed} (leaves and worst designs in the result file)")
    print("  float32 meets the bars on every design")


if __name__ == "__main__":
    main()
