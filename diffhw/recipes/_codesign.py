"""The main job: the best array for given networks under a budget, with a proof of how good it is."""

import datetime
import math
import platform
import time
from collections.abc import Callable

import jax
import numpy as np

import diffhw
from diffhw import hardware as hardware_room
from diffhw import workloads
from diffhw.mappings import Precision
from diffhw.recipes._design import Design
from diffhw.recipes._explain import assumptions, bounds, exact_costs, rivals, sensitivities
from diffhw.recipes._problem import LIMITS, METRICS, OBJECTIVES, Problem, make_problem
from diffhw.recipes._result import Certificate, CodesignResult
from diffhw.search import enumeration, gradient, refine
from diffhw.spaces import Space

__all__ = ["EFFORT", "blocks_of", "codesign"]

EFFORT = {"restarts": 32, "steps": 40, "starts_to_refine": 8}
"""Of the gradient search; `benchmarks.search_quality` prints what it finds and what it costs."""


def codesign(
    networks,
    *,
    objective: str = "edp",
    area_mm2: float | None = None,
    power_w: float | None = None,
    latency_ms: float | None = None,
    hardware: str | None = None,
    bits: float = 8,
    batch: int = 1,
    node_nm: float = 22.0,
    freq_mhz: float = 1000.0,
    dram: str = "auto",
    per_layer_dataflow: bool = False,
    seed: int = 0,
    certify: bool = True,
    explain: bool = True,
    progress: Callable | None = None,
) -> CodesignResult:
    """Choose rows, columns, three buffers, DRAM type and dataflow for one or several networks.

    networks: a source for `workloads.load` or a sequence of them; the objective is summed over them.
    objective: "edp" (J s), "latency" (s) or "energy" (J).
    area_mm2, power_w, latency_ms: budgets; power and latency hold for the worst network.
    hardware: a catalogue name or file, snapped to the legal grid, to start from as well.
    bits: of weights and activations; partial sums have max(32, 2 bits + 16).
    per_layer_dataflow: the array may change dataflow between layers (stated overhead), chosen exactly.
    certify: enumerate the legal grid after the answer is frozen, and say how far off it is.
    explain: add rivals' figures, sensitivities and what the assumed numbers do.
    progress: called as ``progress(stage, done, total, best)``.

    Returns `CodesignResult`; ``feasible`` is False if no design met the budget (then it is the
    nearest miss). Raises ValueError for a bad argument. Seeded: the same seed gives the same answer.
    """
    limits = {"area_mm2": area_mm2, "power_w": power_w, "latency_ms": latency_ms}
    limits = {name: _budget(name, value) for name, value in limits.items() if value is not None}
    for name, value in (("bits", bits), ("node_nm", node_nm), ("freq_mhz", freq_mhz)):
        _budget(name, value)
    if isinstance(batch, bool) or int(batch) != batch or batch < 1:
        raise ValueError(f"batch must be a whole number >= 1, got {batch}")
    sources = (
        [networks] if isinstance(networks, str | workloads.Network) or callable(networks) else list(networks)
    )
    if not sources:
        raise ValueError("codesign needs at least one network, got none")
    start = None if hardware is None else hardware_room.load(hardware)
    loaded = tuple(workloads.load(source, batch=int(batch)).merged() for source in sources)
    problem = make_problem(
        loaded,
        objective=objective,
        limits=limits,
        bits=bits,
        node_nm=node_nm,
        freq_mhz=freq_mhz,
        dram=dram,
        per_layer_dataflow=per_layer_dataflow,
    )
    tell = progress or (lambda stage, done, total, best: None)
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(stage):
        nonlocal clock
        seconds[stage] = time.perf_counter() - clock
        clock = time.perf_counter()

    blocks = blocks_of(problem.space)
    watch = lambda done, total, best: tell("search", done, total, best)
    found = gradient(
        problem.objective,
        problem.space,
        jax.random.key(seed),
        constraints=problem.constraints(),
        metrics=METRICS,
        blocks=blocks,
        restarts=EFFORT["restarts"],
        steps=EFFORT["steps"],
        starts_to_refine=EFFORT["starts_to_refine"],
        progress=watch,
    )
    if start is not None:
        found = refine(
            problem.objective,
            problem.space,
            _snap(problem, start),
            constraints=problem.constraints(),
            metrics=METRICS,
            blocks=blocks,
            resume=found,
            progress=watch,
        )
    lap("search")
    answer = _answer(problem, found.best_index, int(batch))
    hw = answer.hardware
    costs = exact_costs(loaded, hw, answer.mapping_of)
    value = problem.value_of(costs)
    figures = problem.figures_of(hw, costs)
    feasible = bool(found.feasible)
    # From here on the answer is frozen: what follows explains and judges it.
    certificate = None
    if certify and feasible:
        certificate = _certify(problem, value, int(batch), tell)
        lap("certificate")
    explained = explain and feasible
    tell("report", 0, 3, value)
    others = rivals(problem, hw) if explained else ()
    tell("report", 1, 3, value)
    turned = sensitivities(problem, problem.space.at(found.best_index)) if explained else ()
    tell("report", 2, 3, value)
    rests = assumptions(problem, found.best_index, blocks, lambda d: _label(problem, d)) if explained else ()
    tell("report", 3, 3, value)
    lap("report")
    return CodesignResult(
        networks=loaded,
        objective=objective,
        value=value,
        limits=limits,
        figures=figures,
        feasible=feasible,
        design=answer,
        costs=costs,
        search=found,
        rivals=others,
        certificate=certificate,
        sensitivities=turned,
        assumptions=rests,
        bounds=tuple(
            bounds(network, hw, answer.mapping_of(network.info.name), cost)
            for network, cost in zip(loaded, costs, strict=True)
        ),
        space_size=int(problem.space.size),
        space_text=problem.space.describe(),
        config={
            "networks": [network.info.name for network in loaded],
            "objective": objective,
            "unit": OBJECTIVES[objective],
            "limits": {name: {"value": limit, "unit": LIMITS[name]} for name, limit in limits.items()},
            "hardware": hardware,
            "bits": bits,
            "batch": int(batch),
            "node_nm": node_nm,
            "freq_mhz": freq_mhz,
            "dram": dram,
            "per_layer_dataflow": per_layer_dataflow,
            "seed": seed,
            "versions": {
                "diffhw": diffhw.__version__,
                "jax": jax.__version__,
                "python": platform.python_version(),
            },
            "device": str(jax.devices()[0].device_kind),
            "dtype": "float32 search, float64 answer",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
        seconds=seconds,
    )


def _budget(name: str, value) -> float:
    number = float(value)
    if not number > 0 or math.isinf(number):
        raise ValueError(f"{name} must be a positive finite number, got {value}")
    return number


def blocks_of(space: Space) -> list[list[str]]:
    """What the refinement scans as a whole: the array's plane, the buffers, the rest."""
    array = [name for name in space.names if name.endswith(("rows", "cols"))]
    buffers = [name for name in space.names if "capacity" in name]
    rest = [name for name in space.names if name not in array and name not in buffers]
    return [block for block in (array, buffers, rest) if block]


def _snap(problem: Problem, start) -> np.ndarray:
    """Index vector of the legal design nearest to a given accelerator."""
    index = []
    for slot in problem.space.variables:
        wanted = None
        if slot.name.endswith("rows"):
            wanted = float(start.rows)
        elif slot.name.endswith("cols"):
            wanted = float(start.cols)
        elif "capacity" in slot.name:
            level = int(slot.name.split("levels.")[1].split(".")[0])
            wanted = float(start.buffer("iwo"[level])[1])
        if wanted is not None:
            labels = np.array([float(slot.variable.label(i)) for i in range(slot.size)])
            index.append(int(np.argmin(np.abs(np.log(labels / wanted)))))
        elif "dram" in slot.name:
            names = [slot.variable.label(i) for i in range(slot.size)]
            name = hardware_room.dram_name(start.dram)
            index.append(names.index(name) if name in names else 0)
        else:
            index.append(0)
    return np.asarray(index, np.int32)


def _answer(problem: Problem, index, batch: int) -> Design:
    design = problem.space.at(index)
    hw = design["hardware"]
    return Design(
        hardware=hw,
        dataflow=problem.dataflow_names(design),
        precision=Precision.of(hw),
        batch=batch,
        notes=("Written by diffhw codesign; every number is legal on the grid of the main job.",),
    )


def _label(problem: Problem, design: dict) -> str:
    """One line that says what a design is."""
    hw = design["hardware"]
    buffers = "/".join(f"{float(level.capacity_bytes) / 1024:g}" for level in hw.levels)
    dataflow = problem.dataflow_names(design)
    flow = dataflow if isinstance(dataflow, str) else "per layer"
    return (
        f"{float(hw.rows):g} x {float(hw.cols):g}, {buffers} KB, {hardware_room.dram_name(hw.dram)}, {flow}"
    )


def _certify(problem: Problem, value: float, batch: int, tell) -> Certificate:
    """Enumerate the legal grid that the search ran on."""
    began = time.perf_counter()
    done = enumeration(
        problem.objective,
        problem.space,
        constraints=problem.constraints(),
        metrics=METRICS,
        progress=lambda at, total, best: tell("certificate", at, total, best),
    )
    optimum = _answer(problem, done.best_index, batch)
    best_value = problem.value_of(exact_costs(problem.networks, optimum.hardware, optimum.mapping_of))
    return Certificate(
        how=f"all {done.space_size:,} legal designs evaluated after the answer was frozen",
        gap=value / best_value - 1,
        optimum=best_value,
        optimum_design=optimum,
        designs=int(done.space_size),
        seconds=time.perf_counter() - began,
        pareto=done.pareto,
    )
