"""``diffhw recipe aqgan``: bit widths per layer for a wished accuracy and budget."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

from diffhw._cli._errors import UserError
from diffhw._cli._runtime import emit, start_jax

__all__ = ["run"]


_SETTINGS = {
    "network": "mobilenet_v2_small",
    "data": "digits",
    "max_bits": 8,
    "epochs": 120,
    "evaluations": 6000,
    "kind": "autoregressive",
    "seed": 0,
    "array": None,
    "hardware": "edge",
}
"""What decides the generator, with the defaults. array None: sizes only, no energy and latency."""


class _Budget(NamedTuple):
    """What can be limited. scale: how much of the metric a unit is."""

    option: str
    metric: str
    title: str
    unit: str
    scale: float


_BUDGETS = (
    _Budget("budget_kb", "bytes", "size", "kB", 1e3),
    _Budget("budget_uj", "energy_pj", "energy", "uJ", 1e6),
    _Budget("budget_us", "latency_s", "latency", "us", 1e-6),
)


def _settle(args, out: Path) -> dict:
    """Fill in what was not given: from the generator that is kept in the folder, else the defaults.

    Returns the settings of that generator, or {}.
    """
    kept = {}
    if (out / "aqgan.json").exists():  # written last: without it there is no generator yet
        try:
            kept = json.loads((out / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{out / 'settings.json'} is missing or damaged ({error}); use another --out"
            ) from None
    limited = args.budget_uj or args.budget_us
    if kept and kept.get("array") is None and (limited or args.array or args.hardware):
        raise UserError(
            f"{out} holds a generator that knows sizes only: for energy and latency use another --out"
        )
    if not kept and args.array is None:
        if args.hardware and not limited:
            raise UserError(
                "--hardware is of energy and latency: give --array, --budget-uj or --budget-us too"
            )
        args.array = "bit_fusion" if limited else None
    for name, default in _SETTINGS.items():
        asked, known = getattr(args, name), kept.get(name, default)
        if kept and asked is not None and asked != known:
            raise UserError(
                f"{out} holds a generator made with {name.replace('_', ' ')} {known}, not {asked}: use "
                f"another --out, or leave --{name.replace('_', '-')} out"
            )
        setattr(args, name, known if asked is None else asked)
    if args.array is None:
        args.hardware = None
    return kept


def _digest(array) -> str:
    """Of all numbers of an accelerator, to five digits: those computed may differ by a rounding elsewhere."""
    from diffhw.hardware import to_dict

    numbers = json.loads(json.dumps(to_dict(array)), parse_float=lambda text: f"{float(text):.5g}")
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:12]


def run(args) -> int:
    """The command; see ``diffhw recipe aqgan --help``."""
    try:
        return _answered(args)
    except KeyboardInterrupt:
        ending = f"what is done is kept in {args.out}: run the same command to go on"
        print(f"diffhw: interrupted; {ending}", file=sys.stderr)
        return 130


def _answered(args) -> int:
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: --out needs a folder")
    kept = _settle(args, out)
    out.mkdir(parents=True, exist_ok=True)
    start_jax()
    from diffhw import hardware, recipes
    from diffhw._cli._progress import Progress

    array = None if args.array is None else hardware.load(args.hardware)  # a mistake in it costs no training
    digest = None if array is None else _digest(array)
    if kept.get("hardware_digest", digest) != digest:
        raise UserError(
            f"hardware {args.hardware} has other numbers than the generator in {out} was made with: use "
            "another --out, or give it its old numbers back"
        )
    with Progress() as progress:
        told = lambda epoch, epochs, accuracy: progress("training the network", epoch, epochs)
        problem = recipes.bit_problem(
            args.network,
            args.data,
            seed=args.seed,
            max_bits=args.max_bits,
            epochs=args.epochs,
            checkpoint=out / f"{args.network}-{args.epochs}-{args.seed}",
            progress=told,
        )
        if array is not None:
            more = recipes.cost_tables(problem, args.array, array)
            problem = dataclasses.replace(problem, tables=problem.tables | more)
        wished = {}
        for one in _BUDGETS:
            if asked := getattr(args, one.option):
                wished[one.metric] = asked * one.scale
                least = problem.tables[one.metric].min(axis=1).sum()
                if wished[one.metric] < least:
                    raise UserError(
                        f"--{one.option.replace('_', '-')} {asked:g} is out of reach: {args.network} takes "
                        f"{least / one.scale:.4g} {one.unit} at the least"
                    )
        if (out / "aqgan.json").exists():
            suite = recipes.load_aqgan(out, problem)
        else:
            suite = recipes.aqgan(
                problem,
                evaluations=args.evaluations,
                kind=args.kind,
                budgets=tuple(one.metric for one in _BUDGETS if one.metric in problem.tables),
                seed=args.seed,
                resume=out / "fit.npz",
                progress=progress,
            )
            settings = {name: getattr(args, name) for name in _SETTINGS} | {"hardware_digest": digest}
            (out / "settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            suite.save(out)
            (out / "fit.npz").unlink(missing_ok=True)
    answer = suite.ask(args.accuracy, budgets=wished or None, keep=args.keep, seed=args.seed)
    document = _document(args, suite, answer)
    (out / "answer.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if args.json:
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        _print(args, suite, answer, out)
    return 0


def _document(args, suite, answer) -> dict:
    problem = suite.problem
    tests = problem.test_accuracy(answer.bits - 1)
    return {
        "command": " ".join(["diffhw", *args.words]),
        "network": problem.network,
        "layers": list(problem.names),
        "float_accuracy": {"selection": problem.float_accuracy[0], "test": problem.float_accuracy[1]},
        "images": {"selection": len(problem.selection), "test": len(problem.test)},
        "wanted": answer.wanted,
        "feasible": answer.feasible,
        "note": answer.note,
        "configurations": [
            {
                "bits": [int(b) for b in bits],
                "accuracy": float(accuracy),
                "test_accuracy": float(test),
                "predicted": float(predicted),
                **{
                    one.metric: float(answer.costs[one.metric][i])
                    for one in _BUDGETS
                    if one.metric in answer.costs
                },
            }
            for i, (bits, accuracy, test, predicted) in enumerate(
                zip(answer.bits, answer.accuracy, tests, answer.predicted, strict=True)
            )
        ],
        "evaluations": {"training_set": suite.evaluations, "answer": answer.evaluations},
        "seconds": {"fit": suite.seconds, "answer": answer.seconds},
    }


def _print(args, suite, answer, out: Path) -> None:
    from diffhw.report._grid import Table

    problem, document = suite.problem, _document(args, suite, answer)
    full = problem.cost("bytes", [[problem.max_bits - 1] * len(problem.names)])[0]
    error = problem.test.standard_error(document["configurations"][0]["test_accuracy"])
    emit(
        f"{problem.network} on {args.data}: {len(problem.names)} quantized layers, "
        f"{problem.weights.sum():,.0f} weights, {full / 1e3:.4g} kB at {problem.max_bits} bits,"
        f" {float(problem.space_size):.1e} configurations",
        f"  float accuracy {problem.float_accuracy[0]:.1%} on the {len(problem.selection)} selection images"
        f" (training images among them), {problem.float_accuracy[1]:.1%} on {len(problem.test)} test images",
        "",
    )
    if answer.note:
        emit(f"  {answer.note}", "")
    rows = document["configurations"]
    columns = [
        ("accuracy (%)", [f"{100 * row['accuracy']:.1f}" for row in rows]),
        ("test (%)", [f"{100 * row['test_accuracy']:.1f}" for row in rows]),
        ("predicted (%)", [f"{100 * row['predicted']:.1f}" for row in rows]),
        *(
            (f"{one.title} ({one.unit})", [f"{row[one.metric] / one.scale:.4g}" for row in rows])
            for one in _BUDGETS
            if one.metric in rows[0]
        ),
        ("bits per layer", [" ".join(map(str, row["bits"])) for row in rows]),
    ]
    emit(Table.of_columns("configurations, best first", columns))
    if args.array is not None:
        emit(f"  energy and latency: one image, {args.array} array, hardware {args.hardware}")
    emit(
        f"  accuracy: really run on the selection images; test: standard error {100 * error:.1f} points",
        "",
        f"met: {'yes' if answer.feasible else 'no'}; {suite.evaluations:,} evaluations for the training set,"
        f" {answer.evaluations} for this answer in {answer.seconds:.2f} s",
        f"kept in {out}: asking again takes no training; delete it to begin anew",
    )
