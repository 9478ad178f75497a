"""``diffhw codesign --model loopnest``: Gemmini's hardware and every layer's mapping together."""

import json
import sys
from pathlib import Path

from diffhw._cli._errors import UserError
from diffhw._cli._files import check_writable, write_all
from diffhw._cli._runtime import emit, start_jax

__all__ = ["run"]

_NOT_HERE = {
    "power_w": "--power-w",
    "latency_ms": "--latency-ms",
    "hardware": "--hardware",
    "per_layer_dataflow": "--per-layer-dataflow",
}


def _check(args) -> Path:
    """Raises UserError for options that this model has no use for."""
    for name, option in _NOT_HERE.items():
        if getattr(args, name):
            raise UserError(
                f"{option} does not go with --model loopnest: leave it out, or use --model systolic"
            )
    if args.objective != "edp":
        raise UserError(f"--model loopnest minimises edp, got --objective {args.objective}: use diffhw map")
    if len(args.networks) != 1:
        raise UserError(f"--model loopnest takes one network, got {len(args.networks)}")
    return check_writable(args.out)


def _document(result, loose: str, command: str) -> dict:
    layers = [
        {"layer": name, "count": float(count), "energy_pj": float(energy), "cycles": float(cycles)}
        for name, count, energy, cycles in _layers(result)
    ]
    side, accumulator, scratchpad = result.sizes
    return {
        "command": command,
        "hardware": {"pe_side": side, "accumulator_kib": accumulator, "scratchpad_kib": scratchpad},
        "area_mm2": result.area_mm2,
        "edp_uj_cycles": result.edp,
        "energy_pj": result.energy_pj,
        "cycles": result.cycles,
        "bound_edp_uj_cycles": result.bound,
        "bound_loose": loose,
        "samples": result.samples,
        "seconds": result.seconds,
        "layers": layers,
    }


def _layers(result):
    cost = result.cost.by_layer()
    return zip(result.network.names, result.network.count, cost.energy_pj, cost.cycles, strict=False)


def _print(result, loose: str, files: list[Path]) -> None:
    from diffhw.models._show import quantity
    from diffhw.report._grid import Table, column

    side, accumulator, scratchpad = result.sizes
    emit(
        f"{result.network.info.name}: EDP {result.edp:.4g} uJ x cycles"
        f" ({quantity(result.energy_pj * 1e-12, 'J')}, {result.cycles:,.0f} cycles)",
        f"  PE array         {side:g} x {side:g}",
        f"  accumulator      {accumulator:g} KiB",
        f"  scratchpad       {scratchpad:g} KiB",
        f"  area             {result.area_mm2:.3g} mm2 (40 nm cells and macros, no control; ours)",
        f"  proven bound     {result.bound:.4g} uJ x cycles: the design is at most"
        f" {100 * (result.edp / result.bound - 1):.2g} % above the optimum",
        f"  what is loose    {loose}",
        f"  spent            {result.samples:,.0f} network evaluations, {result.seconds:.1f} s",
        "",
    )
    rows = list(_layers(result))
    columns = [
        ("layer", [name for name, *_ in rows]),
        ("count", [f"{float(count):g}" for _, count, _, _ in rows]),
        column("energy", [float(energy) * 1e-12 for _, _, energy, _ in rows], "J"),
        column("cycles", [float(cycles) for *_, cycles in rows], "cycles"),
        column("energy share", [float(energy) / result.energy_pj for _, _, energy, _ in rows], "%"),
    ]
    emit(Table.of_columns("layers, repeats included", columns), "")
    parts = result.cost.energy_parts
    total = sum(float(v) for v in parts.values())
    emit("where the energy goes")
    for name, value in sorted(parts.items(), key=lambda one: -float(one[1])):
        if float(value) > 0.001 * total:
            emit(f"  {name.replace('_', ' '):<22}{100 * float(value) / total:5.1f} %")
    emit("", f"files in {files[0].parent}: " + ", ".join(path.name for path in files))


def run(args) -> int:
    """The command; see ``diffhw codesign --help``."""
    out = _check(args)
    start_jax()
    import shlex
    from dataclasses import replace

    from diffhw import hardware, mappings, recipes, workloads
    from diffhw._cli._progress import Progress

    network = workloads.load(args.networks[0], batch=args.batch).merged()
    with Progress("uJ x cycles") as progress:
        note = lambda spent, edp: progress("search", spent, args.samples, edp)
        result = recipes.dosa(
            network,
            args.seed,
            samples=args.samples,
            area_mm2=args.area_mm2 or float("inf"),
            progress=note,
        )
        bound, loose = recipes.dosa_bound(network, result.edp, seconds=0.0 if args.no_certify else 20.0)
        result = replace(result, bound=bound)
        if args.area_mm2:
            loose = f"the bound knows no area budget; {loose}"
    document = _document(result, loose, shlex.join(["diffhw", *args.words]))
    writers = {
        "arch.yaml": lambda path: hardware.write_timeloop(result.hierarchy, path),
        "result.json": lambda path: path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8"),
    }
    for name, nest in zip(network.names, result.nests, strict=True):
        safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name.split(" (+")[0])
        writers[f"{safe}.map.yaml"] = lambda path, nest=nest: mappings.write_timeloop_mapping(
            nest, result.hierarchy, path
        )
    files = write_all(out, writers)
    if args.json:
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        _print(result, loose, files)
    return 0
