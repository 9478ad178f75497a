"""``python -m benchmarks``: all benchmarks in turn; see the package's docstring."""

import argparse
import ast
import contextlib
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import _common

HERE = Path(__file__).parent


def found() -> dict[str, dict]:
    """Every script, without importing it: {"question": ..., "quick": arguments or None, "left_out": ...}.

    question: first line of its docstring.  left_out: what the quick form does not measure.
    """
    scripts = {}
    for path in sorted(HERE.glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if "main" not in functions:
            continue
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if getattr(target, "id", "") in ("QUICK", "LEFT_OUT")
        }
        read = {name: ast.literal_eval(value) for name, value in constants.items()}
        scripts[path.stem] = {
            "question": (ast.get_docstring(tree) or "").partition("\n")[0],
            "quick": [str(word) for word in read["QUICK"]] if "QUICK" in read else None,
            "left_out": read.get("LEFT_OUT", ""),
        }
    return scripts


def run(name: str, quick: list[str] | None, limit: float | None, form: str = "quick") -> dict:
    """One script in a process of its own: seconds, CPU seconds, exit code, files written.

    form: what its files say of it.
    """
    arguments = quick or []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    environment["BENCHMARKS_FORM"] = "full" if quick is None else form
    started, begin = time.time(), time.perf_counter()
    cpu = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    # In a session of its own, so that its workers are stopped with it.
    process = subprocess.Popen(command, env=environment, cwd=HERE.parent, start_new_session=True)
    try:
        code: int | str = process.wait(limit)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        code = f"stopped after {limit:.0f} s"
    folder = _common.RESULTS if quick is None else _common.RESULTS / "quick"
    written = [p for p in folder.glob("*.json") if p.stat().st_mtime >= started] if folder.exists() else []
    return {
        "name": name,
        "arguments": arguments,
        "code": code,
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - cpu,
        "files": sorted(str(p.relative_to(HERE.parent)) for p in written),
    }


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="All benchmarks in turn.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--list", action="store_true", help="print what each answers, run nothing")
    parser.add_argument("--full", action="store_true", help="the full forms: minutes to hours")
    parser.add_argument(
        "--limit", type=float, default=120.0, help="seconds for each quick form (default 120)"
    )
    options = parser.parse_args(arguments)
    scripts = found()
    unknown = [name for name in options.names if name not in scripts]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(scripts)}")
    names = options.names or list(scripts)
    if options.list:
        width = max(map(len, names))
        for name in names:
            quick = scripts[name]["quick"]
            form = "no quick form" if quick is None else " ".join(quick) or "as it is"
            print(f"{name.ljust(width)}  {scripts[name]['question']}\n{' ' * width}  quick: {form}")
            if scripts[name]["left_out"]:
                print(f"{' ' * width}  left out: {scripts[name]['left_out']}")
        return 0
    rows = []
    for name in names:
        print(f"\n== {name}: {scripts[name]['question']}", flush=True)
        if options.full:
            rows.append(run(name, None, None))
            continue
        quick, form = scripts[name]["quick"] or [], "quick"
        if quick:
            left_out = scripts[name]["left_out"] or "see the arguments beside the defaults in --help"
            form = f"quick ({shlex.join(quick)}); left out: {left_out}"
        print(form if quick else "quick: as it is", flush=True)
        rows.append(run(name, quick, options.limit, form))
    failed = [row for row in rows if row["code"] != 0]
    _common.table(
        f"{len(rows)} benchmarks, {sum(row['seconds'] for row in rows):.0f} s, {len(failed)} failed",
        ["benchmark", "seconds", "CPU s", "result", "files"],
        [
            [
                row["name"],
                round(row["seconds"], 1),
                round(row["cpu_seconds"], 1),
                "ok" if row["code"] == 0 else f"FAILED: {row['code']}",
                ", ".join(row["files"]) or "none",
            ]
            for row in rows
        ],
    )
    # By hand: `_common.write` asks JAX for its devices, which the scripts may need for themselves.
    _common.RESULTS.mkdir(exist_ok=True)
    (_common.RESULTS / "summary.json").write_text(json.dumps({"full": options.full, "runs": rows}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
