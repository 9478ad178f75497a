"""``diffhw codesign``: the main job."""

import json
import sys
from pathlib import Path

from diffhw._cli._errors import UserError
from diffhw._cli._files import check_writable, write_all
from diffhw._cli._runtime import emit, start_jax

__all__ = ["run"]

_TOP_LAYERS = 6
_WORDS = {"area_mm2": "--area-mm2", "power_w": "--power-w", "latency_ms": "--latency-ms"}


def _check(args) -> Path:
    """Everything that can be wrong with the arguments, before any work. Raises ValueError."""
    from diffhw import hardware, workloads

    if args.dram != "auto":
        hardware.dram_type(args.dram)
    hardware.Technology.at(args.node_nm)
    if args.hardware is not None:
        hardware.load(args.hardware)
    for name in args.networks:
        workloads.load(name, batch=args.batch)
    return check_writable(args.out)


def _infeasible(result) -> str:
    """Which budget binds and by how much the nearest design misses it."""
    from diffhw.models._show import quantity
    from diffhw.report._content import limit_name

    over = {key: result.figures[key] / limit for key, limit in result.limits.items() if key in result.figures}
    if not over or max(over.values()) <= 1:
        return (
            "no legal design can run these networks: the buffers of the grid are too small for their widths"
        )
    key = max(over, key=lambda name: over[name])
    word, unit, factor = limit_name(key)
    return (
        f"no design found meets the budget: {word} binds, the nearest one seen has "
        f"{quantity(result.figures[key] * factor, unit)} where {_WORDS[key]} allows "
        f"{quantity(result.limits[key] * factor, unit)} ({100 * (over[key] - 1):.3g} % over)"
    )


def _write(result, out: Path, command: str) -> list[Path]:
    """All files of the report, the small complete record last."""
    from diffhw import hardware, recipes, report

    flow = result.design.dataflow
    named = flow if isinstance(flow, str) else max(_all(flow), key=_all(flow).count)
    document = report.to_json(result) | {"command": command}

    def figure(path):
        report.pareto(result).savefig(path, dpi=150)

    return write_all(
        out,
        {
            "design.yaml": lambda path: recipes.write_design(result.design, path),
            # The format knows one dataflow: of several, the one that most layers use.
            "design.cfg": lambda path: hardware.write_scalesim_cfg(result.design.hardware, named, path),
            "layers.csv": lambda path: path.write_text(report.layers_csv(result), encoding="utf-8"),
            "pareto.png": figure,
            "report.html": lambda path: path.write_text(
                report.html(result, command=command), encoding="utf-8"
            ),
            "result.json": lambda path: path.write_text(
                json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8"
            ),
        },
    )


def _all(flow: dict) -> list[str]:
    return [name for names in flow.values() for name in names]


def _print(result, files: list[Path]) -> None:
    from diffhw.report import _tables as tables
    from diffhw.report._content import OBJECTIVE_WORDS, space_rows
    from diffhw.report._html import _facts, _lead

    emit(_lead(result), *(f"  {name:<32}{value}" for name, value in _facts(result)), "")
    emit(tables.comparison_table(result, brief=True), "")
    emit("how good it is", *(f"  {line}" for line in tables.certificate_lines(result)), "")
    if result.sensitivities:
        emit(tables.sensitivities_table(result), "")
    for table in tables.bounds_tables(result, top=_TOP_LAYERS):
        emit(table, "")
    emit(tables.energy_table(result.costs), "")
    if result.assumptions:
        worst = sorted(result.assumptions, key=lambda one: -max(abs(one.halved[0]), abs(one.doubled[0])))[:3]
        emit(
            f"{len(result.assumptions)} numbers are assumed (all in report.html); those that matter most, "
            f"halved and doubled, change the {OBJECTIVE_WORDS[result.objective]} by: "
            + "; ".join(
                f"{o.name} {100 * o.halved[0]:+.2f} % and {100 * o.doubled[0]:+.2f} %" for o in worst
            ),
            "",
        )
    emit(
        f"legal grid ({result.space_size:,} designs)",
        *(f"  {name:<24}{values}" for name, values in space_rows(result)),
        "",
    )
    emit(f"files in {files[0].parent}: " + ", ".join(path.name for path in files))


def run(args) -> int:
    """The command; see ``diffhw codesign --help``."""
    if args.model == "loopnest":
        from diffhw._cli import _codesign_loopnest

        return _codesign_loopnest.run(args)
    start_jax()
    out = _check(args)
    import shlex

    from diffhw import recipes
    from diffhw._cli._progress import Progress
    from diffhw.report._content import OBJECTIVE_UNITS

    with Progress(OBJECTIVE_UNITS[args.objective]) as progress:
        result = recipes.codesign(
            args.networks,
            objective=args.objective,
            area_mm2=args.area_mm2,
            power_w=args.power_w,
            latency_ms=args.latency_ms,
            hardware=args.hardware,
            bits=args.bits,
            batch=args.batch,
            node_nm=args.node_nm,
            freq_mhz=args.freq_mhz,
            dram=args.dram,
            per_layer_dataflow=args.per_layer_dataflow,
            seed=args.seed,
            certify=not args.no_certify,
            progress=progress,
        )
        if not result.feasible:
            raise UserError(_infeasible(result))
        progress("report", 1, 1, result.value)
        files = _write(result, out, shlex.join(["diffhw", *args.words]))
    # Files first: a reader of standard output that goes away must not cost the result.
    if args.json:
        sys.stdout.write((out / "result.json").read_text(encoding="utf-8"))
    else:
        _print(result, files)
    return 0
