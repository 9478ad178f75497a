"""``diffhw map``: the best mapping of every layer of a network on a memory hierarchy."""

import shlex
import tempfile
from pathlib import Path

from diffhw._cli._errors import UserError, nearest
from diffhw._cli._files import check_writable, write_all
from diffhw._cli._map_hardware import find_hierarchy
from diffhw._cli._progress import Progress
from diffhw._cli._runtime import emit, emit_json, start_jax

__all__ = ["run"]

_TOP_LAYERS = 12
_SLOPE_SECONDS = 3.0  # per point of the ski slope


def _one_layer(network, name: str):
    """A network of the named layer alone. Raises UserError."""
    from diffhw.workloads import Network, NetworkInfo

    if name not in network.names:
        hint = nearest(name, network.names) or ";"
        few = list(network.names[:4])
        more = "" if len(network.names) <= 4 else f", ... ({len(network.names)} in all)"
        raise UserError(f"{network.info.name} has no layer {name!r}{hint} it has {', '.join(few)}{more}")
    row = network.rows()[network.names.index(name)]
    return Network.create([row], info=NetworkInfo(name=network.info.name, names=(name,)))


def _solve(args, network, hierarchy, progress):
    """What `report` shows, of `recipes.best_mapping` or `best_mappings`; an error names the layer."""
    from diffhw import recipes
    from diffhw.recipes._map_lattice import problem_of
    from diffhw.report._loopnest import mapped

    options = dict(bypass=args.bypass, min_utilization=args.min_utilization, seconds=args.seconds)
    rows, done = network.rows(), [0]

    def told(finished: int, total: int) -> None:
        done[0] = finished
        progress("mapping", finished, total, None)

    told(0, network.size)
    try:
        if network.size == 1:  # the bound of one layer's EDP is better than that of a network's
            best = recipes.best_mapping(rows[0], hierarchy, args.objective, **options)
            return mapped(best, network.names[0], float(network.count[0]))
        return mapped(recipes.best_mappings(network, hierarchy, args.objective, progress=told, **options))
    except ValueError as error:
        text = str(error).replace("min_utilization", "--min-utilization")
        if not args.bypass:
            text = text.replace("let a tensor pass by", "let a tensor pass by (--bypass)")
        problems = [problem_of(row) for row in rows]  # like layers are searched once
        distinct = list(dict.fromkeys(problems))
        at = problems.index(distinct[done[0] % len(distinct)])
        raise UserError(f"layer {network.names[at]}: {text}") from None


def _sizes(args, network, hierarchy, progress) -> list[float] | None:
    """Mappings that fit, per layer."""
    from diffhw import recipes

    if not args.certify:
        return None
    sizes = []
    for i, row in enumerate(network.rows()):
        progress("counting mappings", i, network.size, None)
        sizes.append(recipes.mapping_space_size(row, hierarchy))
    return sizes


# Files ----------------------------------------------------------------------------------------


def _file_names(layers) -> list[str]:
    """A safe and unique word for each layer."""
    words: list[str] = []
    for one in layers:
        plain = one.name.split(" (+")[0]
        word = base = "".join(c if c.isalnum() or c in "-_." else "_" for c in plain).strip(".") or "layer"
        number = 2
        while word in words:
            word, number = f"{base}_{number}", number + 1
        words.append(word)
    return words


def _timeloop_files(what, hierarchy) -> tuple[dict[str, str], list[str]]:
    """({file name: text}, sentences on what Timeloop's files cannot hold)."""
    from diffhw import hardware, mappings, workloads

    named = lambda kind, one: f"{kind} of {one.name.split(' (+')[0]}"
    texts: dict[str, str] = {}
    missed: dict[str, list[str]] = {}

    def keep(what_for: str, write, *names: str) -> None:
        """Write in a scratch folder: what cannot be written must not cost the rest."""
        with tempfile.TemporaryDirectory() as scratch:
            try:
                write(Path(scratch) / names[0])
            except ValueError as error:
                missed.setdefault(str(error), []).append(what_for)
                return
            texts.update({name: (Path(scratch) / name).read_text(encoding="utf-8") for name in names})

    keep(
        "the architecture",
        lambda path: hardware.write_timeloop(hierarchy, path, form="flat"),
        "architecture.yaml",
        "architecture.ert.yaml",
    )
    for one, word in zip(what.layers, _file_names(what.layers), strict=True):
        best = one.best
        problem, mapping = f"{word}.problem.yaml", f"{word}.mapping.yaml"
        keep(
            named("problem", one),
            lambda path, best=best: workloads.write_timeloop_problem(best.layer, path),
            problem,
        )

        def write(path, best=best, problem=problem):
            known = None
            if problem in texts:
                known = path.with_name("problem.yaml")
                known.write_text(texts[problem], encoding="utf-8")
            mappings.write_timeloop_mapping(best.nest, best.hierarchy, path, problem=known)

        keep(named("mapping", one), write, mapping)
    notes = [f"not written: {', '.join(parts)}: {why}" for why, parts in missed.items()]
    return texts, notes


def _nests(what) -> str:
    from diffhw import mappings

    return "\n".join(
        f"{one.name}, {one.count:g} times: {one.certificate}\n"
        f"{mappings.loopnest_text(one.best.nest, one.best.hierarchy, one.best.layer)}\n"
        for one in what.layers
    )


def _write(what, hierarchy, document: dict, out: Path) -> tuple[list[Path], list[str]]:
    """All files, the summary last; and what could not be written."""
    import json

    from diffhw.report._export import clean

    texts, notes = _timeloop_files(what, hierarchy)
    texts["loop_nests.txt"] = _nests(what)
    document = clean(document | {"not_written": notes})
    texts["summary.json"] = json.dumps(document, indent=1, allow_nan=False) + "\n"
    writers = {
        name: lambda path, text=text: path.write_text(text, encoding="utf-8") for name, text in texts.items()
    }
    return write_all(out, writers), notes


def _plots(args, what, hierarchy, folder: Path, progress) -> list[Path]:
    """Energy, latency, slopes; traffic against buffer size for the layer with the most DRAM energy."""
    from diffhw import recipes, report

    dram = hierarchy.names[-1]
    parts = lambda one: sum(
        float(v) for name, v in one.cost.energy_parts.items() if name.startswith(f"{dram}_")
    )
    heaviest = max(what.layers, key=lambda one: one.count * parts(one))
    curves = []
    if len(hierarchy.names) > 1:
        curves.append(
            recipes.ski_slope(
                heaviest.best.layer,
                heaviest.best.hierarchy,
                bypass=args.bypass,
                seconds=min(args.seconds, _SLOPE_SECONDS),
                progress=lambda done, total: progress("traffic against buffer size", done, total, None),
            )
        )
    title = heaviest.name.split(" (+")[0]
    writers = {
        "energy.png": lambda path: report.energy_stack(what).savefig(path, dpi=150),
        "latency.png": lambda path: report.latency_stack(what).savefig(path, dpi=150),
        "slopes.png": lambda path: report.gradient_tornado(what).savefig(path, dpi=150),
    }
    if curves:
        writers["traffic.png"] = lambda path: report.ski_slope_picture(
            curves, found=heaviest.best, title=title
        ).savefig(path, dpi=150)
    progress("drawing", 0, 1, None)
    return write_all(folder, writers)


def run(args) -> int:
    """The command; see ``diffhw map --help``."""
    start_jax()
    from diffhw import mappings, report, workloads
    from diffhw.report._loopnest import hardware_line, mapping_json, mapping_total

    out = None if args.out is None else check_writable(args.out)
    folder = None if args.plots is None else check_writable(args.plots, "--plots")
    hierarchy, spread = find_hierarchy(args.hardware, args.spread)
    network = workloads.load(args.network, batch=args.batch)
    network = network.merged() if args.layer is None else _one_layer(network, args.layer)
    files, notes = [], []
    with Progress() as progress:
        what = _solve(args, network, hierarchy, progress)
        sizes = _sizes(args, network, hierarchy, progress)
        document = {
            "tool": "diffhw map",
            "command": shlex.join(["diffhw", *args.words]),
            "network": network.info.name,
            "hardware_name": args.hardware,
            "bypass": args.bypass,
            "min_utilization": args.min_utilization,
            "seconds_per_search": args.seconds,
            **mapping_json(what, sizes),
        }
        if out is not None:
            files, notes = _write(what, hierarchy, document, out)
        if folder is not None:
            files += _plots(args, what, hierarchy, folder, progress)
    if args.json:
        emit_json(document)
        return 0
    title = f"{network.info.name} on {args.hardware}, least {args.objective}"
    emit(hardware_line(hierarchy), *([spread] if spread else []), "")
    top = None if args.layers else _TOP_LAYERS
    emit(report.mapping_table(what, sizes=sizes, top=top, title=title), "")
    if args.layer is not None:
        best = what.layers[0].best
        emit(mappings.loopnest_text(best.nest, best.hierarchy, best.layer), "")
    emit(report.level_table(what), "", *mapping_total(what))
    if sizes is not None and args.bypass:
        emit("mappings are counted with every tensor kept where it may be")
    emit(f"found in {what.seconds:.3g} s")
    for note in notes:
        emit(note)
    if files:
        emit("files: " + ", ".join(str(path) for path in files if path.suffix != ".yaml"))
        count = sum(path.suffix == ".yaml" for path in files)
        if count:
            emit(f"  and {count} Timeloop files in {out}")
    return 0
