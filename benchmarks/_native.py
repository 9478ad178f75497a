"""Our kernels beside C programs of the same formulas: compile, run, time both sides, compare."""

import collections
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import _common
from diffhw import batching
from diffhw.batching import at_once, in_blocks, keep_memory

FLAGS = ("-O3", "-march=native", "-fopenmp", "-fopt-info-vec-optimized")
FASTEST = ("-ffast-math", "-fno-tree-pre")  # reciprocals for quotients, vector logarithms
IEEE = (
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-ffinite-math-only",
)  # exact quotients, as XLA


@dataclass
class Native:
    """A compiled C program (see kernel.h) and the arrays it reads; ``program`` is None without gcc."""

    name: str
    outputs: int
    defines: tuple[str, ...] = ()
    arithmetic: tuple[str, ...] = FASTEST
    program: str | None = None
    seconds: dict = field(default_factory=dict)
    cpu_seconds: dict = field(default_factory=dict)

    def __post_init__(self):
        if shutil.which("gcc") is None:
            return
        _common.BUILD.mkdir(exist_ok=True)
        _common.RESULTS.mkdir(exist_ok=True)
        words = [define.rpartition("=")[2].lower() for define in self.defines]
        of_arithmetic = {FASTEST: [], IEEE: ["ieee"], (): ["plain"]}[self.arithmetic]
        tag = "_".join([self.name, *words, *of_arithmetic])
        self.program = str(_common.BUILD / tag)
        flags = [*FLAGS, *self.arithmetic, *(f"-D{define}" for define in self.defines)]
        command = ["gcc", *flags, f"{self.name}.c", "-o", self.program, "-lm"]
        version = subprocess.run(["gcc", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
        head = [version, " ".join(["gcc", *flags, f"{self.name}.c", "-lm"])]
        report = _common.RESULTS / f"{tag}_vectorisation.txt"
        sources = [_common.HERE / name for name in (f"{self.name}.c", "kernel.h", "clock.h")]
        changed = max(path.stat().st_mtime for path in sources)
        built = os.path.getmtime(self.program) if os.path.exists(self.program) else 0.0
        if built > changed and report.exists() and report.read_text().splitlines()[:2] == head:
            return
        done = subprocess.run(command, cwd=_common.HERE, capture_output=True, text=True, check=True)
        lines = sorted({line for line in done.stderr.splitlines() if "loop vectorized" in line})
        report.write_text("\n".join([*head, *lines]) + "\n")

    def write(self, constants: np.ndarray, columns: list[np.ndarray]) -> None:
        """Inputs of all evaluations, one array per number."""
        self.count = len(columns[0])
        with open(f"{self.program}.in", "wb") as file:
            file.write(np.ascontiguousarray(constants, np.float32).tobytes())
            for column in columns:
                file.write(np.ascontiguousarray(np.broadcast_to(column, (self.count,)), np.float32).tobytes())

    def run(self, block: int, calls: int, repeats: int = 1) -> np.ndarray:
        """Times ``calls`` passes ``repeats`` times (seconds of one pass are kept by block); the outputs."""
        out = f"{self.program}.out"
        command = [
            self.program,
            f"{self.program}.in",
            out,
            self.count,
            min(block, self.count),
            calls,
            repeats,
        ]
        # Waking a thread after every pass costs more than small batches do.
        environment = {**os.environ, "OMP_WAIT_POLICY": "active"}
        text = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=True, env=environment
        ).stdout
        found = [[float(word) / calls for word in line.split()] for line in text.splitlines()]
        for kept, times in zip((self.seconds, self.cpu_seconds), zip(*found), strict=True):
            kept.setdefault(block, []).append(_common.median(times))
        return np.fromfile(out, np.float32).reshape(self.outputs, self.count)

    def rate(self, block: int) -> float:
        """Million evaluations per second with results in blocks of ``block``."""
        return self.count / _common.median(self.seconds[block]) / 1e6

    def rate_per_core(self, block: int) -> float:
        """Million evaluations per second of CPU time: little changed by other work on the machine."""
        return self.count / _common.median(self.cpu_seconds[block]) / 1e6


@dataclass(frozen=True)
class Blocks:
    """A form that is evaluated by `diffhw.batching.in_blocks`, on a device a core (`prepare`)."""

    function: Callable
    block: int


@dataclass(frozen=True)
class AtOnce:
    """A form that is evaluated by `diffhw.batching.at_once`."""

    function: Callable


@dataclass(frozen=True)
class InALoop:
    """A form that is evaluated turn after turn in one program, as a search does, a core a device (`prepare`).

    Vectors of full width, kernels uncut: no core waits for another before the last turn.
    """

    function: Callable

    def program(self, mesh: Mesh):
        """(turns, columns) -> results of the last turn."""

        def run(turns, *columns):
            batch = jax.vmap(self.function)
            results = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(batch, *columns))

            def turn(_, carry):
                columns, _ = lax.optimization_barrier(carry)  # no turn's work may move out of the loop
                return columns, batch(*columns)

            return lax.fori_loop(0, turns, turn, (columns, results))[1]

        def shared(turns, *columns):
            specs = (PartitionSpec(), *[PartitionSpec("batch")] * len(columns))
            split = jax.shard_map(
                run, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("batch"), check_vma=False
            )
            return split(turns, *columns)

        on_cpu = jax.default_backend() == "cpu"
        return jax.jit(shared, compiler_options=batching.WIDE | batching.UNCUT if on_cpu else None)


def prepare() -> None:
    """Before anything touches JAX: a device a core, and the memory of results is kept as C keeps its own.

    What is not in blocks still runs on the first device, with all cores.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    keep_memory()


def many(form, columns, options: dict | None):
    """A form of one design for many: the jitted function, its columns where it wants them, its options."""
    if isinstance(form, Blocks | InALoop):  # with options of their own
        mesh = Mesh(np.array(jax.local_devices()), ("batch",))
        spread = jax.device_put(columns, NamedSharding(mesh, PartitionSpec("batch")))
        if isinstance(form, Blocks):
            return in_blocks(form.function, form.block), spread, None
        return form.program(mesh), (1, *spread), None
    if isinstance(form, AtOnce):
        return at_once(form.function), columns, None
    return jax.jit(jax.vmap(form)), columns, options


class Program:
    """One compiled form of ours on one batch; ``columns`` are its arguments, leaves (batch,)."""

    def __init__(self, form, columns: tuple, batch: int, options: dict | None = None):
        self.batch, self.seconds, self.cpu_seconds = batch, [], []
        self.in_a_loop = isinstance(form, InALoop)
        start = time.perf_counter()
        jitted, self.columns, options = many(form, columns, options)
        lowered = jitted.lower(*self.columns)
        self.lower_s = time.perf_counter() - start
        start = time.perf_counter()
        self.compiled = lowered.compile(options)
        self.compile_s = time.perf_counter() - start
        # Of a loop the compiler counts one turn: no figure of a batch in blocks.
        analysis = {} if isinstance(form, Blocks | InALoop) else self.compiled.cost_analysis() or {}
        self.operations = analysis.get("flops", float("nan")) / batch
        self.bytes = analysis.get("bytes accessed", float("nan")) / batch
        self.kernels = self.compiled.as_text().count(" fusion(")

    def results(self):
        """Those of one call."""
        return self.compiled(*self.columns)

    def __call__(self, calls: int = 1):
        """Times ``calls`` calls (or turns of the loop), at most four in flight; their last result.

        Each is started without waiting for the one before, so that no core is idle between them.
        """
        start, cpu = time.perf_counter(), time.process_time()
        if self.in_a_loop:
            out = jax.block_until_ready(self.compiled(calls, *self.columns[1:]))
        else:
            flying = collections.deque()
            for _ in range(calls):
                if len(flying) == 4:
                    jax.block_until_ready(flying.popleft())
                flying.append(self.results())
            out = jax.block_until_ready(list(flying))[-1]
        self.seconds.append((time.perf_counter() - start) / calls)
        self.cpu_seconds.append((time.process_time() - cpu) / calls)
        return out

    def rate(self) -> float:
        """Million evaluations per second."""
        return self.batch / _common.median(self.seconds) / 1e6

    def rate_per_core(self) -> float:
        """Million evaluations per second of CPU time."""
        return self.batch / _common.median(self.cpu_seconds) / 1e6

    def row(self, form: str) -> dict:
        """What goes into the result file."""
        return {
            "form": form,
            "batch": self.batch,
            "m_per_s": self.rate(),
            "m_per_core_s": self.rate_per_core(),
            "operations": self.operations,
            "bytes": self.bytes,
            "kernels": self.kernels,
            "lower_s": self.lower_s,
            "compile_s": self.compile_s,
        }


def differences(ours, theirs: np.ndarray, names) -> dict[str, float]:
    """Largest difference of each output, relative: of a violation to 1 where it is smaller, of a log EDP to 1
    (so that it is the EDP's), of a stall to the cycles (the first output), which it is a difference of."""
    found = {}
    for name, mine, other in zip(names, ours, theirs, strict=True):
        mine = np.asarray(mine, np.float64)
        scale = np.maximum(np.abs(mine), 1.0 if name == "violation" else 1e-30)
        scale = theirs[0] if name.endswith("stall") else 1.0 if name == "log EDP" else scale
        found[name] = float(np.max(np.abs(mine - other) / scale))
    return found


def measure(
    native: Native, programs: dict, rounds: int, calls: int, blocks: tuple, names, kind: str = "", others=()
) -> list[dict]:
    """Times every program once a round, in turn; rows for the result file.

    Forms whose name begins with "value" are compared with C; costs are in evaluations of the fastest of them.
    others: the same C program with other arithmetic, in the smallest of the blocks.
    """
    batch = next(iter(programs.values())).batch
    blocks = sorted({min(block, batch) for block in (*blocks, batch)}) if native.program else []
    # Enough of them to keep all cores busy with kernels of several results.
    of = lambda form: max(2 * (os.cpu_count() or 1), calls // 8) if "gradient" in form else calls
    for program in programs.values():
        program()
        program.seconds.clear(), program.cpu_seconds.clear()
    others = [other for other in others if other.program]
    for program in (native, *others):
        program.seconds.clear(), program.cpu_seconds.clear()
    theirs = None
    for _ in range(rounds):
        for form, program in programs.items():
            program(of(form))
        for block in blocks:
            theirs = native.run(block, calls)
        for other in others:
            other.run(blocks[0], max(1, calls // 8))
    worst = {}
    for form, program in programs.items():
        if theirs is not None and form.startswith("value"):
            found = differences(program.results(), theirs, names)
            worst = {name: max(worst.get(name, 0.0), off) for name, off in found.items()}
    if worst:
        at = max(worst, key=worst.get)
        print(f"{kind} {batch}: largest relative difference from C {worst[at]:.2g} ({at})", flush=True)
    rates = {" ".join((*FLAGS[:2], *other.arithmetic)): other.rate(blocks[0]) for other in others}
    for flags, rate in rates.items():
        print(f"{kind} {batch}: C with {flags}: {rate:.3g} M/s", flush=True)
    rows = []
    for form, program in programs.items():
        row = {"kind": kind, **program.row(form), "largest_relative_difference": worst}
        row["c_m_per_s"] = {block: native.rate(block) for block in blocks}
        row["c_m_per_s_other_flags"] = rates
        row["c_m_per_core_s"] = {block: native.rate_per_core(block) for block in blocks}
        if blocks:
            row["ratio_to_c"] = program.rate() / max(row["c_m_per_s"].values())
            row["ratio_by_cpu_time"] = program.rate_per_core() / max(row["c_m_per_core_s"].values())
        values = [other.rate() for name, other in programs.items() if name.startswith("value")]
        if values:
            row["cost_in_values"] = max(values) / program.rate()
        rows.append(row)
    return rows


def show(title: str, rows: list[dict]) -> None:
    """The table of some rows of `measure`."""
    best = lambda rates: max(rates.values(), default=float("nan"))
    lines = [
        [
            f"{row['kind']} {row['form']}",
            *(row["batch"], row["m_per_s"], best(row["c_m_per_s"]), row.get("ratio_to_c", "")),
            *(row["m_per_core_s"], best(row["c_m_per_core_s"]), row.get("ratio_by_cpu_time", "")),
            *(row.get("cost_in_values", ""), f"{row['operations']:.0f}", f"{row['bytes']:.0f}"),
            *(row["kernels"], row["lower_s"] + row["compile_s"]),
        ]
        for row in rows
    ]
    header = ["M evaluations/s", "batch", "ours", "C", "ratio", "ours, CPU s", "C, CPU s", "ratio"]
    _common.table(title, [*header, "in values", "ops", "bytes", "kernels", "compile s"], lines)
