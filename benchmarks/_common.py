"""What every benchmark needs: the machine, timing, tables, result files."""

import datetime
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
BUILD = HERE / "build"


def machine() -> dict:
    """Everything a reader needs to judge a figure."""
    import flax
    import jax
    import numpy

    import diffhw

    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else ():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": model,
        "cores": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 2),
        "devices": [str(device) for device in jax.devices()],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "numpy": numpy.__version__,
        "diffhw": diffhw.__version__,
        "dtype": "float32",
    }


def timed_in_turn(runs: dict, repeats: int = 7) -> dict[str, list[float]]:
    """Seconds of each callable, measured in turn so that a busy moment of the machine hits all alike."""
    for run in runs.values():
        run()
    seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


median = statistics.median


def log_edp(cost):
    """What the gradients of the benchmarks are of."""
    from diffhw import numerics

    return numerics.log(cost.cycles) + numerics.log(cost.energy_pj)


def table(title: str, header: list[str], rows: list[list]) -> None:
    """A plain text table."""
    text = [[f"{x:.3g}" if isinstance(x, float) else str(x) for x in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(header))]
    print(f"\n{title}")
    for row in text:
        print(
            "  "
            + "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        )


def read(name: str) -> dict:
    """``results/NAME.json``, or nothing."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(name: str, result: dict) -> None:
    """``results/NAME.json`` with machine, command and form beside the figures; quick forms in ``quick/``."""
    form = os.environ.get("BENCHMARKS_FORM", "")
    quick = form.startswith("quick")
    folder = RESULTS / "quick" if quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    script = Path(sys.argv[0]).stem
    about = {
        "command": " ".join(["python -m", f"benchmarks.{script}", *sys.argv[1:]]),
        "form": form if quick else "as commanded",
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**about, "machine": machine(), **result}, indent=1, default=float) + "\n")
    print(f"  -> {path.relative_to(HERE.parent)}")
