"""The floors of docs/design.md: nobody imports upward or sideways; imports stay light."""

import ast
import pathlib
import subprocess
import sys

import diffhw

ROOT = pathlib.Path(diffhw.__file__).parent
FLOORS = [
    {"batching", "fusing", "numerics"},
    {"workloads", "hardware", "mappings", "spaces", "quantization"},
    {"models", "noc", "training"},
    {"search"},
    {"recipes"},
    {"validation", "report"},
    {"cli", "_cli", "__main__"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
ALLOWED_SIBLINGS = {
    ("mappings", "hardware"),
    ("mappings", "workloads"),
    ("cli", "_cli"),
    ("__main__", "cli"),
    ("_cli", "cli"),
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("diffhw"):
            parts = node.module.split(".")
            if len(parts) > 1:
                yield parts[1]
            else:
                yield from (name.name for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (n.name.split(".")[1] for n in node.names if n.name.startswith("diffhw."))


def test_nobody_imports_upward():
    wrong = []
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for other in imports(path):
            if (
                other in FLOOR
                and other != room
                and (room, other) not in ALLOWED_SIBLINGS
                and FLOOR[other] >= FLOOR[room]
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert not wrong, wrong


def test_import_touches_no_device_and_help_needs_no_jax():
    code = (
        "import sys, diffhw; assert 'jax' not in sys.modules\n"
        "import diffhw.models, diffhw.search, diffhw.recipes, jax\n"
        "from jax._src import xla_bridge; assert not xla_bridge._backends, 'a device was touched'\n"
        "assert 'matplotlib' not in sys.modules and 'onnx' not in sys.modules and 'optax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys\nfrom diffhw.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nassert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
