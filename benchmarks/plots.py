"""The pictures of docs/performance.md, from the result files and from nothing else.

    python -m benchmarks.plots [--out docs/performance]

A picture whose result file is missing is left out with a sentence; files of quick forms are not read. Each
names the file, the date and the processor that its numbers come from.
"""

import argparse
import json
from pathlib import Path

from benchmarks import _common

QUICK = []

ROOT = _common.HERE.parent
# Colours of Okabe and Ito, told apart by the colour-blind; shapes tell the models apart in grey.
COLOURS = {"systolic": "#0072B2", "dataflow": "#D55E00", "loopnest": "#009E73"}
MARKS = {"systolic": "o", "dataflow": "s", "loopnest": "^"}
GREY, SKY, YELLOW = "#666666", "#56B4E9", "#E69F00"


def _axes(columns: int, height: float = 3.4, width: float = 4.2):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
                         "axes.grid": True, "grid.alpha": 0.25, "svg.hashsalt": "diffhw"})  # fmt: skip
    figure, axes = plt.subplots(1, columns, figsize=(width * columns, height), layout="constrained")
    return figure, [axes] if columns == 1 else list(axes)


def _save(figure, name: str, result: dict, out: Path) -> None:
    import matplotlib.pyplot as plt

    about = result["machine"]
    # Of a file made in parts, the day of this one.
    date = result.get("measured", {}).get(name.removeprefix("scaling_"), about["date"])
    figure.text(
        1.0, -0.02, f"{name}: {date}, {about['cpu']}, {about['cores']} cores, jax {about['jax']}",
        ha="right", va="top", fontsize=6, color=GREY,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{name}.png", dpi=130, bbox_inches="tight")
    plt.close(figure)
    print(f"  -> {(out / name).with_suffix('.png')}")


def float_check(result: dict, out: Path) -> None:
    """Largest relative error of every leaf, by model."""
    figure, (axis,) = _axes(1, width=6.5)
    ticks = []
    for place, (model, row) in enumerate(result["models"].items()):
        leaves = [leaf for leaf in row["leaves"].values() if leaf["kind"] == "totals"]
        errors = sorted(float(leaf["largest_error"]) for leaf in leaves)
        shown = [max(error, 3e-9) for error in errors]
        spread = [place + 0.6 * (i / max(len(shown) - 1, 1) - 0.5) for i in range(len(shown))]
        axis.plot(spread, shown, MARKS[model], color=COLOURS[model], markersize=4, alpha=0.8)
        counts = [leaf for leaf in row["leaves"].values() if leaf["kind"] == "counts"]
        wrong = sum(leaf["misses"] for leaf in counts)
        exact = sum(error == 0 for error in errors)
        ticks.append(
            f"{model}\n{row['designs']:,} designs\n{len(errors)} totals, {exact} without error\n"
            f"{len(counts)} counts, {wrong} unequal below $2^{{24}}$"
        )
    axis.axhline(result["bar"], color="black", linewidth=1, linestyle="--")
    axis.text(-0.4, result["bar"] * 1.15, "bar: $10^{-6}$", fontsize=8)
    axis.set_yscale("log")
    axis.set_ylim(2e-9, 1e-5)
    axis.set_yticks(
        [3e-9, 1e-8, 1e-7, 1e-6, 1e-5], ["none", "$10^{-8}$", "$10^{-7}$", "$10^{-6}$", "$10^{-5}$"]
    )
    axis.set_xticks(range(len(ticks)), ticks, fontsize=7)
    axis.set_ylabel("largest relative error of a total,\nfloat32 to float64")
    axis.set_title("Float32 beside float64, one mark per leaf", fontsize=10)
    _save(figure, "float_check", result, out)


def startup(result: dict, out: Path) -> None:
    """Cold and warm commands, split."""
    figure, (axis,) = _axes(1, height=2.6, width=6.5)
    bars = [
        (f"{name}\n{kind}", row) for name, kinds in result["commands"].items() for kind, row in kinds.items()
    ]
    for place, (_, row) in enumerate(bars):
        left = 0.0
        rest = row["seconds"] - row["trace"] - row["compile_or_load"]
        parts = ((rest, GREY, "Python, imports, tables"), (row["trace"], SKY, "trace and lower"),
                 (row["compile_or_load"], YELLOW, "compile (cold) or load (warm)"))  # fmt: skip
        for seconds, colour, label in parts:
            axis.barh(place, seconds, left=left, color=colour, label=label if place == 0 else None)
            left += seconds
        axis.text(
            left,
            place,
            f" {left:.2f} s",
            va="center",
            fontsize=8,
            zorder=3,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    for place, bar in ((0, 3.0), (1, 1.5)):
        axis.plot([bar, bar], [place - 0.42, place + 0.42], color="black", linestyle="--", linewidth=1.2)
    axis.plot([], [], color="black", linestyle="--", label="bar")
    axis.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("seconds of the whole process")
    axis.legend(fontsize=7, frameon=False)
    axis.set_title("Start of a command", fontsize=10)
    _save(figure, "startup", result, out)


def scaling(result: dict, out: Path) -> None:
    """Time, memory and compile time against layers, designs and levels; cores; limits."""
    if "layers" in result:
        figure, axes = _axes(3)
        for axis, key, label in zip(
            axes,
            ("s_per_design", "memory_bytes_per_design", "compile_s"),
            ("microseconds per design", "KB per design", "compile, seconds"),
            strict=True,
        ):
            scale = {"s_per_design": 1e6, "memory_bytes_per_design": 1e-3, "compile_s": 1.0}[key]
            for model in COLOURS:
                rows = [row for row in result["layers"] if row["model"] == model]
                if rows:
                    axis.plot([r["layers"] for r in rows], [scale * r[key] for r in rows], f"{MARKS[model]}-",
                              color=COLOURS[model], label=model)  # fmt: skip
            axis.set_xscale("log", base=2)
            axis.set_yscale("linear" if key == "compile_s" else "log")
            if key == "compile_s":
                axis.set_ylim(bottom=0)
            axis.set_xticks([16, 64, 256], ["16", "64", "256"])
            axis.set_xlabel("layers of the network")
            axis.set_ylabel(label)
        axes[0].legend(fontsize=8, frameon=False)
        _save(figure, "scaling_layers", result, out)
    if "designs" in result:
        figure, axes = _axes(2)
        for model in COLOURS:
            rows = [row for row in result["designs"] if row["model"] == model]
            if rows:
                sizes = [row["designs"] for row in rows]
                style = dict(color=COLOURS[model], label=model)
                axes[0].plot(sizes, [1e-6 / r["s_per_design"] for r in rows], f"{MARKS[model]}-", **style)
                axes[1].plot(sizes, [r["memory_bytes_per_design"] for r in rows], f"{MARKS[model]}-", **style)
        for axis, label in zip(axes, ("million evaluations per second", "bytes per design"), strict=True):
            axis.set_xscale("log", base=2)
            if axis is axes[0]:
                axis.set_yscale("log")
            else:
                axis.set_ylim(bottom=0)
            axis.set_xlabel("designs in a batch (one layer each)")
            axis.set_ylabel(label)
        axes[0].legend(fontsize=8, frameon=False)
        _save(figure, "scaling_designs", result, out)
    if "levels" in result:
        figure, axes = _axes(3)
        scales = {"s_per_design": 1e9, "compile_s": 1.0, "memory_bytes_per_design": 1.0}
        labels = ("nanoseconds per mapping", "compile, seconds", "bytes per mapping")
        for axis, (key, scale), label in zip(axes, scales.items(), labels, strict=True):
            for form, colour, mark in (("value", COLOURS["loopnest"], "^"), ("gradient", "#CC79A7", "v")):
                rows = [(row["levels"], row[form]) for row in result["levels"] if form in row]
                if rows:
                    label_of = "value" if form == "value" else "value and gradient"
                    xs, ys = [n for n, _ in rows], [scale * r[key] for _, r in rows]
                    axis.plot(xs, ys, f"{mark}-", color=colour, label=label_of)
            axis.set_yscale("log")
            axis.set_xlabel("memory levels")
            axis.set_ylabel(label)
        axes[0].legend(fontsize=8, frameon=False)
        _save(figure, "scaling_levels", result, out)
    if "cores" in result:
        figure, (axis,) = _axes(1, width=5.5)
        forms = list(dict.fromkeys(row["form"] for row in result["cores"]))
        models = [model for model in COLOURS if any(row["model"] == model for row in result["cores"])]
        for j, model in enumerate(models):
            rates = {r["form"]: 1 / r["s_per_design"] for r in result["cores"] if r["model"] == model}
            for i, form in enumerate(forms):
                if form in rates:
                    gain = rates[form] / rates[forms[0]]
                    axis.bar(
                        i + 0.27 * (j - 1), gain, 0.25, color=COLOURS[model], label=model if i == 0 else None
                    )
                    axis.text(i + 0.27 * (j - 1), gain, f"{gain:.2f}", ha="center", va="bottom", fontsize=7)
        axis.axhline(2, color="black", linestyle="--", linewidth=1)
        axis.set_ylim(0, 1.35 * axis.get_ylim()[1])
        axis.set_xticks(range(len(forms)), [form.replace(", ", ",\n") for form in forms], fontsize=8)
        axis.set_ylabel("throughput over one core's")
        axis.legend(fontsize=8, frameon=False, loc="upper left", ncols=3)
        _save(figure, "scaling_cores", result, out)
    if "limits" in result:
        figure, (axis,) = _axes(1, height=2.8, width=6.5)
        rows = result["limits"]["rows"]
        for place, row in enumerate(rows):
            rate, limit = 1e-6 / row["s_per_design"], row["limit_per_s"] / 1e6
            axis.barh(place, limit, color="#DDDDDD", label="limit" if place == 0 else None)
            axis.barh(place, rate, 0.5, color=COLOURS[row["model"]], label="measured" if place == 0 else None)
            axis.text(max(limit, rate), place, f" {100 * row['share_of_limit']:.2g} %, {row['bound_by']}",
                      va="center", fontsize=8)  # fmt: skip
        axis.set_yticks(range(len(rows)), [f"{row['model']}, {row['form']}" for row in rows], fontsize=8)
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.set_xlim(
            0.5e-6 * min(1 / row["s_per_design"] for row in rows),
            4 * max(row["limit_per_s"] / 1e6 for row in rows),
        )
        axis.set_xlabel("million evaluations per second")
        axis.legend(fontsize=8, frameon=False)
        axis.set_title("Measured against the stated limit of the compiled program", fontsize=10)
        _save(figure, "limits", result, out)


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance")
    parser.add_argument("--results", type=Path, default=_common.RESULTS, help="where the result files are")
    options = parser.parse_args(arguments)
    drawn = 0
    for name, draw in {"float_check": float_check, "startup": startup, "scaling": scaling}.items():
        path = options.results / f"{name}.json"
        result = json.loads(path.read_text()) if path.exists() else {}
        if not result or (name == "startup" and "commands" not in result):
            print(f"  no {path.name}: python -m benchmarks.{name} makes it")
            continue
        draw(result, options.out)
        drawn += 1
    _common.write("plots", {"drawn": drawn})


if __name__ == "__main__":
    main()
