"""``diffhw cost --dataflow``: a network under directives: a file's, a style's, or the best per layer."""

import os
from dataclasses import dataclass
from typing import Any

from diffhw._cli._errors import UserError, nearest
from diffhw._cli._files import check_writable, write_all
from diffhw._cli._runtime import emit, emit_json

__all__ = ["own_dataflows", "run_dataflow"]

_TOP_LAYERS = 12
_BEST, _SEARCH = "best", "search"


def own_dataflows(network: str) -> bool:
    """Whether a network file brings dataflows of its own."""
    from diffhw.workloads._maestro_text import read_maestro_text

    if not network.lower().endswith(".m") or not os.path.isfile(network):
        return False
    return any(layer.directives is not None for layer in read_maestro_text(network).layers)


@dataclass
class _Run:
    """What is shown. words: one style's name per layer row, or one word for all.  programs: one per row.
    singles: of `recipes.best_styles`.
    """

    network: Any
    cost: Any
    words: Any
    programs: tuple
    singles: tuple = ()


def _from_file(path: str, network) -> tuple[Any, list]:
    """(network, a program per row): by the names of the layers if the file is of this network."""
    from diffhw import mappings

    if not os.path.isfile(path):
        raise UserError(f"--dataflow {path}: no such file")
    programs = mappings.read_programs(path)
    missing = [name for name in network.names if name not in programs]
    if not missing:
        return network, [programs[name] for name in network.names]  # like layers may differ: not merged
    if len(programs) > 1:
        raise UserError(
            f"--dataflow {path} has {len(programs)} dataflows, none for layer {missing[0]!r} of "
            f"{network.info.name}{nearest(missing[0], programs)}; give the file of this network, or one "
            "with a single dataflow for all layers"
        )
    network = network.merged()
    return network, [*programs.values()] * network.size


def _of_style(name: str, network, pes: int) -> list:
    """A program per row; an error names the layer."""
    from diffhw import mappings

    programs = []
    for label, row in zip(network.names, network.rows()):
        try:
            programs.append(mappings.style(name, row, pes))
        except ValueError as error:
            raise UserError(f"layer {label}: {error}") from None
    return programs


def _evaluate(jax, args, network, design) -> _Run:
    import numpy as np

    from diffhw import mappings, recipes

    hw, precision, pes = design.hardware, design.precision, int(np.asarray(design.hardware.pes))
    if args.dataflow == _BEST:
        network = network.merged()
        chosen = recipes.best_styles(network, hw, precision)
        return _Run(network, chosen.cost, list(chosen.styles), chosen.programs, chosen.singles)
    if args.dataflow == _SEARCH:
        from diffhw._cli._progress import Progress

        network = network.merged()
        with Progress() as progress:
            told = lambda done, total: progress("search", done, total, None)
            programs = recipes.map_network(network, hw, precision=precision, progress=told)
    elif args.dataflow.lower().endswith(".m") or os.sep in args.dataflow:
        network, programs = _from_file(args.dataflow, network)
    elif args.dataflow in mappings.STYLES:
        network = network.merged()
        programs = _of_style(args.dataflow, network, pes)
    else:
        known = (_BEST, _SEARCH, *mappings.STYLES)
        hint = nearest(args.dataflow, known) or ";"
        raise UserError(
            f"--dataflow {args.dataflow!r} is no style and no .m file{hint} known are {', '.join(known)}"
        )
    flow = mappings.fit(programs, network, pes)
    stacked = jax.tree.map(lambda leaf: np.asarray(leaf)[None], flow)
    costs = recipes.exact_dataflow_costs(network, hw, stacked, precision)
    word = os.path.basename(args.dataflow)
    return _Run(network, jax.tree.map(lambda leaf: leaf[0], costs), word, tuple(programs))


def _singles_table(run: _Run):
    """The styles one by one, the choice per layer last."""
    import numpy as np

    from diffhw.report import Table
    from diffhw.report._grid import column

    feasible = int((np.asarray(run.cost.layers.feasible)[: run.network.size] > 0).sum())
    ranked = sorted(run.singles, key=lambda one: (one.cost is None, one.cost and float(one.cost.edp)))
    costs = [*(one.cost for one in ranked), run.cost]
    get = lambda name: [None if c is None else float(getattr(c, name)) for c in costs]
    counts = [*((one.applicable, one.feasible) for one in ranked), (run.network.size, feasible)]
    return Table.of_columns(
        "styles one by one, and the choice per layer",
        [
            ("dataflow", [*(one.name for one in ranked), "per layer"]),
            column("latency", get("latency_s"), "s"),
            column("energy", get("energy_j"), "J"),
            column("EDP", get("edp"), "J s"),
            column("utilization", get("utilization"), "%"),
            column("DRAM", get("dram_bytes"), "B"),
            ("layers it is for", [f"{a} of {run.network.size}" for a, _ in counts]),
            ("feasible layers", [f"{f} of {run.network.size}" for _, f in counts]),
        ],
        marked=(len(ranked),),
        notes=(
            "-: cannot be written for every layer",
            "a style that is not feasible everywhere is shown as if its buffers were large enough",
            "per layer: what makes the network's EDP least; changing dataflow between layers is free here",
        ),
    )


def _plots(run: _Run, design, folder) -> list:
    """Bars of time and energy, and for each style what PEs hold in its longest layer; the files' paths."""
    from types import SimpleNamespace

    import numpy as np

    from diffhw import mappings, report

    cycles = np.asarray(run.cost.by_layer().cycles)[: run.network.size]
    longest: dict[str, int] = {}  # a program's name is its style's, or its layer's in the file
    for i in sorted(range(run.network.size), key=lambda i: -cycles[i]):
        longest.setdefault(run.programs[i].name, i)
    shown = dict(list(longest.items())[:_TOP_LAYERS])
    bars = SimpleNamespace(networks=[run.network], costs=[run.cost])
    writers = {"breakdown.png": lambda path: report.breakdown(bars).savefig(path, dpi=150)}
    rows = run.network.rows()
    nests = []
    for word, i in shown.items():
        flow = mappings.fit(run.programs[i], rows[i])
        label = run.network.names[i]
        title = label if label == word else f"{word} on {label}"
        nests.append(f"{title}\n{report.loop_nest(rows[i], design.hardware, flow)}\n")
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in word)
        writers[f"dataflow_{safe}.png"] = lambda path, i=i, flow=flow, title=title: report.dataflow_picture(
            rows[i], design.hardware, flow, title=title
        ).savefig(path, dpi=150)
    writers["loop_nests.txt"] = lambda path: path.write_text("\n".join(nests))
    return write_all(folder, writers)


def run_dataflow(jax, args, design, hardware_name: str) -> int:
    """The command; args: as `diffhw cost` has them, with a dataflow."""
    import jax.numpy as jnp
    import numpy as np

    from diffhw import workloads
    from diffhw.models import roofline
    from diffhw.models._show import quantity
    from diffhw.recipes._dataflow_choice import dataflow_bounds
    from diffhw.report import _export as export
    from diffhw.report import _tables as tables

    folder = None if args.plots is None else check_writable(args.plots, "--plots")
    network = workloads.load(args.network, batch=design.batch)
    run = _evaluate(jax, args, network, design)
    network, cost = run.network, run.cost
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)
        inputs = double((network, design.hardware, design.precision))
        bound = jax.tree.map(np.asarray, jax.jit(lambda a, b, c: roofline(a, b, None, c))(*inputs))
    causes = dataflow_bounds(cost, float(np.asarray(design.hardware.dram_bytes_per_cycle)), network.size)
    feasible = np.asarray(cost.by_layer().feasible)[: network.size] > 0
    drawn = [] if folder is None else _plots(run, design, folder)
    if args.json:
        emit_json(
            {
                "tool": "diffhw cost",
                "model": "dataflow",
                "hardware_name": hardware_name,
                "design": export.design_json(design),
                "dataflow": args.dataflow,
                "feasible": bool(feasible.all()),
                "violation": float(cost.violation),
                "per_style": {
                    one.name: {"layers_it_is_for": one.applicable, "feasible_layers": one.feasible}
                    | ({} if one.cost is None else export.cost_json(one.cost, network, layers=False))
                    for one in run.singles
                },
                **export.cost_json(cost, network, run.words, causes, bound),
                "programs": {name: str(one) for name, one in zip(network.names, run.programs)},
            }
        )
    else:
        title = f"{network.info.name} on {hardware_name}, " + (
            "best style per layer by EDP" if args.dataflow == _BEST else f"dataflow {args.dataflow}"
        )
        if not feasible.all():
            title += (
                f"; NOT FEASIBLE: {(~feasible).sum()} of {network.size} layers need more buffer or PEs, "
                f"by up to {100 * float(cost.violation):.3g} %"
            )
            causes = tuple(cause + ("" if ok else " (infeasible)") for cause, ok in zip(causes, feasible))
        top = None if args.layers else _TOP_LAYERS
        emit(
            tables.cost_table(
                cost, network, dataflow=run.words, bounds=causes, roofline=bound, top=top, title=title
            ),
            "",
        )
        if run.singles:
            emit(_singles_table(run), "")
        emit(tables.energy_table((cost,)), "", tables.area_table(cost), "")
        emit(
            f"total: latency {quantity(float(cost.latency_s), 's')} "
            f"({quantity(float(cost.cycles), 'cycles')}), energy {quantity(float(cost.energy_j), 'J')}, "
            f"EDP {quantity(float(cost.edp), 'J s')}, area {quantity(float(cost.area_mm2), 'mm2')}, "
            f"power {quantity(float(cost.power_w), 'W')}, utilization "
            f"{quantity(float(cost.utilization), '%')}; no mapping can be faster than "
            f"{quantity(float(bound.latency_s), 's')} (roofline)"
        )
        emit(*(f"wrote {path}" for path in drawn))
    return 0
