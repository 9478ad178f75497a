"""What one percent of each number of the hardware is worth, at the mappings found."""

import functools
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.hardware import Hierarchy
from diffhw.models import LoopnestCounts, TensorCounts, level_cycles, level_energy_pj, loopnest_counts
from diffhw.numerics import maximum
from diffhw.report._loopnest import UNITS, double, mapped

__all__ = ["mapping_slopes"]


@jax.jit
def _slopes(hierarchy, words, instances, compute_cycles, macs):
    """Slopes of (energy, cycles) in the hierarchy. Counts do not depend on its numbers: given, not traced."""
    tensors = tuple({t: TensorCounts(*four) for t, four in level.items()} for level in words)
    counts = LoopnestCounts(tensors, instances, compute_cycles, compute_cycles, cast(Any, None))

    def both(hierarchy):
        cycles = functools.reduce(maximum, level_cycles(hierarchy, counts))
        leakage = hierarchy.static_w
        for k, level in enumerate(hierarchy.levels):
            leakage = leakage + level.leakage_w * hierarchy.instances(k)
        parts = [*level_energy_pj(hierarchy, counts).values(), macs * hierarchy.mac_pj]
        return jnp.stack([sum(parts) + cycles * (leakage / hierarchy.freq_hz * 1e12), cycles])

    return jax.jacrev(both)(hierarchy)


def _slopes_of(layer, hierarchy, nest):
    counts = loopnest_counts(layer, hierarchy, nest)
    words = [{t: tuple(vars(n).values()) for t, n in level.items()} for level in counts.tensors]
    return _slopes(hierarchy, words, counts.instances, counts.compute_cycles, layer.macs)


def mapping_slopes(result, objective: str | None = None) -> tuple[list[str], np.ndarray, np.ndarray]:
    """What one percent of each number of the hardware is worth, at the found mappings.

    objective: "energy", "latency" or "edp" (default: the result's).  Returns the names of the numbers
    ("DRAM.read_pj"), d log objective / d log number of the network (numbers,), and per layer (layers,
    numbers): of the layer alone. By `jax.jacrev` through energy and cycles of `models.loopnest`, float64.
    Mappings stay as they are, so a capacity has no slope of its own (see `recipes.ski_slope`). Numbers
    that are 0 or inf, or matter nowhere, are left out.
    """
    what = mapped(result)
    objective = objective or what.objective
    if objective not in UNITS:
        raise ValueError(f"objective must be one of {', '.join(UNITS)}, got {objective!r}")
    rows, names = [], []
    with jax.enable_x64(True):
        for one in what.layers:
            arguments = tuple(map(double, (one.best.layer, one.best.hierarchy, one.best.nest)))
            hierarchy, slopes = arguments[1], _slopes_of(*arguments)
            paths, values = zip(*jax.tree_util.tree_flatten_with_path(hierarchy)[0], strict=True)
            names = [_name_of(path, hierarchy) for path in paths]
            rows.append(
                [
                    np.asarray(slope) * (float(value) if math.isfinite(float(value)) else 0.0)
                    for slope, value in zip(jax.tree.leaves(slopes), values, strict=True)
                ]
            )
    table = np.nan_to_num(np.array(rows))  # (layers, numbers, 2): d quantity / d log number
    sizes = np.array([[float(one.cost.energy_pj), float(one.cost.cycles)] for one in what.layers])
    counts = np.array([one.count for one in what.layers])
    total = np.einsum("l,lnx->nx", counts, table) / (counts @ sizes)
    alone = table / sizes[:, None, :]
    pick = {"energy": [1.0, 0.0], "latency": [0.0, 1.0], "edp": [1.0, 1.0]}[objective]
    total, alone = total @ pick, alone @ pick
    matters = np.flatnonzero(np.abs(alone).max(0) > 1e-9)
    return [names[i] for i in matters], total[matters], alone[:, matters]


def _name_of(path, hierarchy: Hierarchy) -> str:
    """``DRAM.read_pj``."""
    if len(path) == 1:
        return path[0].name
    _, level, field = path  # levels, place, name
    return f"{hierarchy.levels[level.idx].name}.{field.name}"
