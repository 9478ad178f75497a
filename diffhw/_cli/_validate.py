"""``diffhw validate``: our models beside another tool's recorded answers."""

import json
from collections import Counter

from diffhw._cli._errors import UserError
from diffhw._cli._runtime import emit, start_jax

__all__ = ["run"]


def _table(document: dict):
    from diffhw.report import Table

    rows = []
    for name, column in document["columns"].items():
        count = column["rows"]
        part = lambda key, column=column, count=count: f"{100 * column[key] / count:.2f}" if count else "-"
        rows.append(
            (
                name,
                f"{count:,}",
                f"{column['exact']:,}",
                part("exact"),
                part("within_1pct"),
                f"{column['worst_relative_error']:.3g}",
                str(column["worst_row"] or "-"),
            )
        )
    heads = ("column", "rows", "exact", "exact (%)", "within 1 % (%)", "worst relative error", "worst row")
    skipped = document["skipped"]
    reasons = Counter(one["reason"] for one in skipped)
    notes = [f"{count} rows skipped: {reason}" for reason, count in reasons.most_common()]
    unhandled = document.get("unhandled", [])
    if unhandled:
        notes.append(f"{len(unhandled)} rows not handled (misses in every column): {unhandled[0]['reason']}")
    flagged = document.get("flagged", [])
    for reason, count in Counter(one["reason"] for one in flagged).most_common():
        name = next(one["row"] for one in flagged if one["reason"] == reason)
        rows_flagged = f"{count} rows flagged ({name}, ...)" if count > 1 else f"1 row flagged ({name})"
        notes.append(f"{rows_flagged}: {reason}")
    notes += document.get("notes", [])
    title = f"against {document['reference']}, {document['rows']:,} rows, {document.get('dtype', '')}"
    return Table(title, heads, tuple(rows), left=(0, 6), notes=tuple(notes))


def _silicon() -> int:
    from diffhw.report import Table
    from diffhw.validation import eyeriss_alexnet

    heads = (
        "layer",
        "published processing (ms)",
        "ours without stalls (ms)",
        "ratio",
        "dataflow",
        "roofline (ms)",
        "published with transfers (ms)",
        "ours with stalls (ms)",
        "published DRAM (MB)",
        "ours DRAM (MB)",
        "published chip (mW)",
        "ours (mW)",
    )
    rows = tuple(
        (
            row.layer,
            f"{row.published_processing_ms:.1f}",
            f"{row.compute_ms:.1f}",
            f"{row.compute_ms / row.published_processing_ms:.2f}",
            row.dataflow,
            f"{row.bound_ms:.1f}",
            f"{row.published_ms:.1f}",
            f"{row.ours_ms:.1f}",
            f"{row.published_dram_mb:.1f}",
            f"{row.ours_dram_mb:.1f}",
            f"{row.published_mw:.0f}",
            f"{row.ours_mw:.0f}",
        )
        for row in eyeriss_alexnet()
    )
    notes = (
        "published: Chen et al., JSSC 2017, AlexNet at batch 4 (recalled, not re-read)",
        "the chip is row stationary and keeps partial sums in its PEs; our array spills them where the "
        "buffer is small, hence the stalls and the traffic; the chip also compresses zeros bound for DRAM",
        "power: ours is data path and memories only, without clock tree and control",
    )
    emit(Table("Eyeriss, the systolic model beside the chip", heads, rows, left=(0, 4), notes=notes))
    return 0


def run(args) -> int:
    """The command; see ``diffhw validate --help``. Returns 1 below --require."""
    if args.architectures is not None and args.tool not in ("timeloop", "zigzag"):
        raise UserError(f"--architectures belongs to validate timeloop and zigzag, not to {args.tool}")
    if args.tool == "silicon":
        if args.files:
            raise UserError("validate silicon takes no files: the published figures are in the package")
        start_jax()
        return _silicon()
    if not args.files:
        ending = "jsonl" if args.tool == "zigzag" else "csv"
        raise UserError(f"validate {args.tool} needs at least one table: FILE.{ending}")
    start_jax()
    from diffhw import validation
    from diffhw._cli._progress import Progress

    compare = getattr(validation, f"validate_{args.tool}")
    more = {"architectures": args.architectures} if args.tool in ("timeloop", "zigzag") else {}
    with Progress() as progress:
        report = compare(
            args.files,
            dtype=args.dtype,
            progress=lambda done, total: progress("validate", done, total, None),
            **more,
        )
    document = json.loads(report.to_json())
    shares = {name: one["exact"] / one["rows"] for name, one in document["columns"].items() if one["rows"]}
    worst = min(shares, key=lambda name: shares[name]) if shares else None
    if args.json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        emit(_table(document))
    if args.require is not None and (worst is None or shares[worst] < args.require):
        import sys

        what = (
            "no rows were compared"
            if worst is None
            else f"column {worst} has {100 * shares[worst]:.2f} % exact"
        )
        print(f"diffhw: {what}, {100 * args.require:g} % required", file=sys.stderr)
        return 1
    return 0
