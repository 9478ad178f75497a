"""What ``diffhw sweep`` says: progress, the best designs, files for people, the Pareto picture."""

import csv
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from diffhw._cli._errors import UserError
from diffhw._cli._files import write_all

__all__ = ["Told", "report_sweep"]

_HEADS = {
    "edp": ("EDP", "J s", 1.0),
    "latency_s": ("latency", "s", 1.0),
    "energy_pj": ("energy", "J", 1e-12),
    "area_mm2": ("area", "mm2", 1.0),
    "power_w": ("power", "W", 1.0),
    "cycles": ("cycles", "cycles", 1.0),
    "idle": ("idle", "%", 1.0),
    "dram_bytes": ("DRAM", "B", 1.0),
}
_ALWAYS = ("edp", "latency_s", "energy_pj", "area_mm2")
_OBJECTIVES = {"edp": ("edp", 1.0), "latency_s": ("latency", 1.0), "energy_pj": ("energy", 1e-12)}
_SHOWN = 6  # choices of a design in a sentence
_CLOUD = 2048  # random designs drawn behind the Pareto set


class Told:
    """Hands the engine's status to the bar: rate, time left, the live best."""

    def __init__(self, progress):
        self._progress = progress

    def __call__(self, status) -> None:
        from diffhw.models._show import quantity

        note = [f"{quantity(status.rate, 'designs/s', 3)}"] if status.rate else []
        if status.eta_s is not None and status.done < status.total:
            note.append(f"{_time(status.eta_s)} left")
        self._progress("sweep", status.done, status.total, status.best, ", ".join(note))


def _time(seconds: float) -> str:
    """``75 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _word(problem, name: str) -> str:
    """A variable as people read it: levels by their names."""
    parts = name.split(".")
    if parts[0] == "levels" and len(parts) > 2:
        levels = getattr(problem.space.template["hardware"], "levels", ())
        parts[1] = levels[int(parts[1])].name
        return " ".join([parts[1], *parts[2:]]).replace("capacity_bytes", "(bytes)")
    return name.removeprefix("mapping.")


def _cell(value) -> str:
    return value if isinstance(value, str) else f"{value:,.7g}"


def _table(problem, result, figures, objective: str):
    from diffhw.report._grid import Table, column

    labels = [result.labels(i) for i in range(len(result.top))]
    columns = [("rank", [str(i + 1) for i in range(len(labels))])]
    names = [objective, *(name for name in _ALWAYS if name != objective)]
    if problem.model == "loopnest" and not np.any(figures["area_mm2"]):
        names.remove("area_mm2")
    for name in names:
        head, unit, factor = _HEADS[name]
        columns.append(column(head, [float(v) * factor for v in figures[name]], unit))
    columns += [
        (_word(problem, slot.name), [_cell(one[slot.name]) for one in labels])
        for slot in problem.space.variables
    ]
    networks = ", ".join(network.info.name for network in problem.networks)
    on = f" layer {problem.layer}" if problem.layer else ""
    title = (
        f"the {len(labels)} best of {result.designs:,} designs for {networks}{on}, by {_HEADS[objective][0]}"
    )
    return Table.of_columns(title, columns)


def _csv(problem, designs, figures) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [name for name in figures if name != "feasible"]
    writer.writerow([*problem.space.names, *names])
    for i, row in enumerate(designs.index):
        writer.writerow([*problem.space.labels(row).values(), *(repr(float(figures[n][i])) for n in names)])
    return out.getvalue()


def _picture(problem, result, front, path: Path) -> None:
    """The objective over area where both are axes, else the first two axes; random designs behind."""
    import jax

    from diffhw import report
    from diffhw.search import Designs

    word, factor = _OBJECTIVES.get(result.objective, ("", 1.0))
    axes = [name for name in result.pareto.names if np.all(front[name] > 0)]
    if word and "area_mm2" in axes and result.objective != "area_mm2":
        axes = ["area_mm2"]
    names = tuple(["objective"] * (len(axes) == 1) + axes[:2])
    columns = lambda found: np.stack(
        [found[result.objective] * factor if name == "objective" else found[name] for name in names], 1
    )
    sample = np.asarray(problem.space.sample(jax.random.key(0), _CLOUD))
    cloud = problem.exact(sample)
    legal = cloud["feasible"] > 0
    best = problem.exact(result.top.index[:1])
    seen = Designs(
        np.concatenate([sample[legal], result.pareto.index, result.top.index[:1]]),
        np.concatenate([columns(cloud)[legal], columns(front), columns(best)]),
        names,
    )
    search = SimpleNamespace(
        seen=seen,
        visited=None,
        limits={name: limit for name, limit in problem.limits.items() if name in names},
        objective=word or None,
        value=float(best[result.objective][0] * factor),
        best_index=result.top.index[0],
        history={},
    )
    report.pareto(search).savefig(path, dpi=150)


def _best_files(problem, result) -> dict:
    """The best design for the other commands: design.yaml, or hardware.yaml, and its loop nest."""
    from diffhw import hardware, mappings, recipes

    best, writers = result.design(), {}
    hw = best["hardware"]
    networks = ", ".join(network.info.name for network in problem.networks)
    note = f"The best of {result.designs:,} designs of a sweep for {networks}, by {result.objective}."
    if problem.model == "systolic":
        flow = problem.dataflow or result.labels()["dataflow"]
        design = recipes.Design(
            hardware=hw, dataflow=flow, precision=mappings.Precision.of(hw), notes=(note,)
        )
        writers["design.yaml"] = lambda path: recipes.write_design(design, path)
    elif isinstance(hw, hardware.Accelerator):
        writers["hardware.yaml"] = lambda path: hardware.write_yaml(hw, path)
    if "mapping" in best:
        (merged,) = problem.networks
        names = [name.split(" (+")[0] for name in merged.names]
        layer = merged.rows()[names.index(problem.layer)] if problem.layer in names else None
        text = mappings.loopnest_text(best["mapping"].nest(), problem.build(hw), layer)
        writers["mapping.txt"] = lambda path: path.write_text(text + "\n", encoding="utf-8")
    return writers


def _lines(args, problem, result, host) -> list[str]:
    """How much was done, now and before; how good the answer is."""
    from diffhw.models._show import quantity

    before = result.designs - result.evaluated
    share = f"{100 * result.feasible / result.designs:.3g} % of all are feasible"
    lines = [f"nothing was left to do: {result.designs:,} designs were done before; {share}"]
    if result.evaluated:
        rate = f"{quantity(result.rate, 'designs/s', 3)}, {result.compile_seconds:.1f} s of compiling"
        lines = [f"{result.evaluated:,} designs in {_time(result.seconds)}, {rate}; {share}"]
    if result.evaluated and before and host[1] > 1:
        lines.append(f"host {host[0]} of {host[1]}: {before:,} designs were done by others or before")
    elif result.evaluated and before:
        lines.append(f"went on where it stopped: {before:,} designs were done before")
    if result.certified:
        lines.append(
            f"every design of the space was evaluated: nothing in it has less {_HEADS[result.objective][0]}"
        )
    else:
        size = problem.space.size
        text = f"{size:,}" if isinstance(size, int) and size < 10**15 else f"{float(size):.3g}"
        lines.append(f"{result.order} sample of {text} designs: better ones may exist")
    return [*lines, *result.notes]


def _nothing(args, problem, result, out: Path) -> str:
    """Which limit binds, by how much the nearest design misses it, and what to do. One sentence."""
    from diffhw.models._show import quantity
    from diffhw.recipes._sweep import METRICS
    from diffhw.recipes._sweep_nearest import nearest_design

    limits = ", ".join(f"{name} <= {limit:g}" for name, limit in problem.limits.items())
    text = f"none of the {result.designs:,} designs is feasible ({limits or 'buffers too small'})"
    near = nearest_design(problem, order=result.order, designs=result.designs, seed=result.seed)
    if near is None:
        return f"{text}: widen the variables in {args.space}; the sweep is in {out}"
    choices = [f"{_word(problem, name)} {_cell(value)}" for name, value in near.choices.items()]
    more = f" and {len(choices) - _SHOWN} more" if len(choices) > _SHOWN else ""
    which = f"the nearest one ({', '.join(choices[:_SHOWN])}{more})"
    if near.looked < result.designs:
        which = f"the nearest of {near.looked:,} drawn at random ({', '.join(choices[:_SHOWN])}{more})"
    if near.value is None:
        return (
            f"{text}: a buffer or the array is too small for the layers, {which} by {100 * near.over:.3g} %; "
            f"allow larger ones in {args.space}; the sweep is in {out}"
        )
    unit = METRICS[near.binding]
    return (
        f"{text}: {near.binding} binds, {which} has {quantity(near.value, unit)} where the limit is "
        f"{quantity(problem.limits[near.binding], unit)} ({100 * near.over:.3g} % over); raise the limit or "
        f"widen the variables in {args.space}; the sweep is in {out}"
    )


def report_sweep(args, problem, result, objective: str, out: Path, host: tuple[int, int]):
    """Writes files for people beside the engine's; returns (document for --json, what to print).

    Raises UserError if nothing was feasible.
    """
    from diffhw.recipes._sweep import metric_name

    if not len(result.top):
        raise UserError(_nothing(args, problem, result, out))
    figures = problem.exact(result.top.index)
    writers = {"top.csv": lambda path: path.write_text(_csv(problem, result.top, figures), encoding="utf-8")}
    if len(result.pareto):
        front = problem.exact(result.pareto.index)
        writers["pareto.csv"] = lambda path: path.write_text(
            _csv(problem, result.pareto, front), encoding="utf-8"
        )
        if len(args.pareto) > 1:
            writers["pareto.png"] = lambda path: _picture(problem, result, front, path)
    writers |= _best_files(problem, result)
    files = [*write_all(out, writers), *result.files]
    document = {
        "objective": objective,
        "model": problem.model,
        "networks": [network.info.name for network in problem.networks],
        "order": result.order,
        "seed": result.seed,
        "designs": result.designs,
        "feasible": result.feasible,
        "certified": result.certified,
        "top": [
            {
                "choices": result.labels(i),
                "figures": {name: float(v[i]) for name, v in figures.items() if name != "feasible"},
            }
            for i in range(len(result.top))
        ],
        "pareto": {"metrics": list(result.pareto.names), "designs": len(result.pareto)},
        "evaluated_now": result.evaluated,
        "seconds": result.seconds,
        "compile_seconds": result.compile_seconds,
        "rate_per_s": result.rate,
        "peak_memory_bytes": result.peak_memory_bytes,
        "notes": list(result.notes),
        "files": [str(path) for path in files],
    }
    shown = [_table(problem, result, figures, objective), ""]
    if len(result.pareto):
        axes = ", ".join(_HEADS[metric_name(name)][0] for name in args.pareto)
        shown += [f"Pareto set over {axes}: {len(result.pareto):,} designs"]
    shown += [*_lines(args, problem, result, host), ""]
    names = dict.fromkeys(Path(path).relative_to(out).parts[0] for path in files)
    shown.append(f"files in {out}: " + ", ".join(names))
    return document, shown
