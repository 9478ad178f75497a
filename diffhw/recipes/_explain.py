"""Why this design: rivals, sensitivities, what bounds each layer, what rests on assumed numbers."""

import math
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from diffhw import hardware
from diffhw.hardware import ASSUMED, Accelerator, scale_assumed
from diffhw.mappings import DATAFLOWS, Precision, dataflow_weights
from diffhw.models import Cost, systolic
from diffhw.models._bounds import bounds
from diffhw.recipes._design import Design
from diffhw.recipes._problem import Problem
from diffhw.recipes._result import Assumption, Rival, Sensitivity
from diffhw.search import refine
from diffhw.spaces import Real, Space
from diffhw.workloads import Network

__all__ = ["assumptions", "bounds", "exact_costs", "rivals", "sensitivities"]


@jax.jit
def _cost(network: Network, hw: Accelerator, dataflow) -> Cost:
    """One program for every dataflow (a one-hot) and every design of the same levels."""
    return systolic(network, hw, dataflow, one_hot=True)


def _double(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)


def exact_costs(networks, hw: Accelerator, dataflows) -> tuple[Cost, ...]:
    """Costs in float64 as numpy leaves, one per network; ``dataflows``: network name -> mapping."""
    out = []
    with jax.enable_x64(True):
        for network in networks:
            mapping = dataflows(network.info.name)
            out.append(_exact(network, hw, mapping))
    return tuple(out)


def _exact(network: Network, hw: Accelerator, mapping) -> Cost:
    weights = np.asarray(dataflow_weights(mapping), np.float64)
    if weights.ndim == 2:  # padding rows take any dataflow: the mask removes them
        padding = np.tile(np.eye(3)[:1], (network.mask.shape[0] - len(weights), 1))
        weights = np.concatenate([weights, padding])
    return jax.tree.map(np.asarray, _cost(_double(network), _double(_nameless(hw)), weights))


def _nameless(hw: Accelerator) -> Accelerator:
    """Level names are static: without them designs of one structure share compiled code."""
    return replace(hw, levels=tuple(replace(level, name="") for level in hw.levels))


def rivals(problem: Problem, hw: Accelerator) -> tuple[Rival, ...]:
    """Every catalogue design at the node, clock, widths and DRAM of ``hw``, each with its best dataflow."""
    out = []
    for name in hardware.names():
        other = hardware.normalise(
            hardware.load(name),
            weight_bits=hw.weight_bits,
            input_bits=hw.input_bits,
            psum_bits=hw.psum_bits,
            freq_hz=hw.freq_hz,
            dram=hw.dram,
            technology=hw.technology,
        )
        with jax.enable_x64(True):
            tried = {d: tuple(_exact(network, other, d) for network in problem.networks) for d in DATAFLOWS}
        dataflow = min(tried, key=lambda d, tried=tried: problem.value_of(tried[d]))
        costs = tried[dataflow]
        figures = problem.figures_of(other, costs)
        over = tuple(key for key, limit in problem.limits.items() if figures[key] > limit)
        design = Design(hardware=other, dataflow=dataflow, precision=Precision.of(other))
        value = problem.value_of(costs)
        out.append(Rival(name=name, design=design, costs=costs, objective=value, over_budget=over))
    return tuple(sorted(out, key=lambda rival: (bool(rival.over_budget), rival.objective)))


# Leaves of an accelerator worth turning, their unit, and whether only whole numbers make sense.
_KNOBS: tuple[tuple[str, str, Callable], ...] = (
    ("rows", "PEs", lambda hw: hw.rows),
    ("cols", "PEs", lambda hw: hw.cols),
    *(
        (f"{name} buffer", "bytes", lambda hw, i=i: hw.levels[i].capacity_bytes)
        for i, name in enumerate(("input", "weight", "output"))
    ),
    ("DRAM bandwidth", "GB/s", lambda hw: hw.dram.gb_per_s),
    ("DRAM energy", "pJ/bit", lambda hw: hw.dram.pj_per_bit),
    ("DRAM static power", "W", lambda hw: hw.dram.static_w),
    ("clock", "Hz", lambda hw: hw.freq_hz),
    ("MAC energy", "pJ", lambda hw: hw.technology.multiplier_pj),
    ("register energy", "pJ/bit", lambda hw: hw.technology.register_pj_per_bit),
    ("SRAM energy", "pJ", lambda hw: hw.technology.sram_read_pj),
    ("wire energy", "pJ/bit/mm", lambda hw: hw.technology.wire_pj_per_bit_mm),
    ("SRAM leakage", "W/byte", lambda hw: hw.technology.sram_leakage_w_per_byte),
    ("logic leakage", "W/mm2", lambda hw: hw.technology.logic_leakage_w_per_mm2),
)


def sensitivities(problem: Problem, design: dict) -> tuple[Sensitivity, ...]:
    """Relative change of the objective for +10 % of each number, largest first.

    By gradient: 0.1 times the elasticity (for rows and columns through the surrogate slope of the
    fold count). By value: the model at the number times 1.1 (rows and columns to the next whole PE).
    """
    leaves, tree = jax.tree.flatten(design["hardware"])
    labels = {}
    for name, unit, get in _KNOBS:
        marked = jax.tree.unflatten(tree, list(range(len(leaves))))
        labels[get(marked)] = (name, unit)
    where = jnp.asarray(list(labels))

    def log_objective(scale):
        scaled = list(leaves)
        for i, position in enumerate(labels):
            scaled[position] = leaves[position] * scale[i]
        hw = jax.tree.unflatten(tree, scaled)
        return jnp.log(problem.objective({**design, "hardware": hw})[0])

    ones = jnp.ones(len(where))
    turned = 1 + 0.1 * np.eye(len(where))
    for i, (name, _) in enumerate(labels.values()):
        if name in ("rows", "cols"):
            value = float(leaves[list(labels)[i]])
            turned[i, i] = math.ceil(value * 1.1) / value
    value, slope = jax.jit(jax.value_and_grad(log_objective))(ones)
    moved = jax.jit(jax.vmap(log_objective))(jnp.asarray(turned, float))
    out = [
        Sensitivity(
            name=name,
            value=float(leaves[position]),
            unit=unit,
            by_gradient=float(slope[i]) * 0.1,
            by_value=math.expm1(float(moved[i]) - float(value)),
        )
        for i, (position, (name, unit)) in enumerate(labels.items())
    ]
    return tuple(sorted(out, key=lambda one: -max(abs(one.by_gradient), abs(one.by_value))))


def assumptions(
    problem: Problem, best_index, blocks: list[list[str]], labels: Callable[[dict], str]
) -> tuple[Assumption, ...]:
    """For each assumed number: the answer searched again, around the found one, with it halved and doubled.

    One compiled program serves all: the factors are variables of a wider space that the refinement
    may not touch. ``labels`` turns a design into the text that is compared.
    """
    used = [one for one in ASSUMED if problem.per_layer or not one.name.startswith("switch_")]
    factors = {one.name: Real(values=(0.5, 1.0, 2.0)) for one in used}
    space_names = problem.space.names
    wide = Space({"design": problem.template, "factors": factors})

    def unpack(design):
        hw = design["design"]["hardware"]
        for name, factor in design["factors"].items():
            hw = scale_assumed(hw, name, factor)
        return {**design["design"], "hardware": hw}

    columns = {one.name: wide.position(f"factors.{one.name}") for one in used}
    own = [v for v in range(len(wide.names)) if v not in columns.values()]
    centre = np.ones(len(wide.names), np.int32)
    centre[own] = np.asarray(best_index)
    cases = [None, *((one.name, level) for one in used for level in (0, 2))]
    starts = np.repeat(centre[None], len(cases), 0)
    for row, case in enumerate(cases):
        if case is not None:
            starts[row, columns[case[0]]] = case[1]
    ends = refine(
        lambda design: problem.objective(unpack(design)),
        wide,
        starts,
        constraints=problem.constraints(),
        blocks=[[own[space_names.index(name)] for name in block] for block in blocks],
        pairs=False,
    ).visited
    assert ends is not None
    # Ends come back in any order; the untouched factors say whose they are.
    found = {}
    for index, figures in zip(ends.index, ends.figures, strict=True):
        moved = [(name, int(index[column])) for name, column in columns.items() if index[column] != 1]
        found[moved[0] if moved else None] = (float(figures[0]), labels(unpack(wide.at(index))))
    base_value, base_text = found[None]

    def verdict(case):
        value, text = found[case]
        return value / base_value - 1, "" if text == base_text else text

    return tuple(
        Assumption(
            name=one.name,
            value=one.default,
            unit=one.unit,
            why=one.why,
            halved=verdict((one.name, 0)),
            doubled=verdict((one.name, 2)),
        )
        for one in used
    )
