"""What one design costs, for a sweep: per model a function of one design; all figures are to be small."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhw import mappings, models
from diffhw.hardware import Accelerator, Hierarchy
from diffhw.models import Cost
from diffhw.models._network import network_cost
from diffhw.recipes._map_space import mapping_template
from diffhw.recipes._sweep_styles import StyleTable
from diffhw.spaces import Integer, Real, Variable
from diffhw.workloads import Network

__all__ = ["METRICS", "combined", "dataflow_costs", "free_mapping", "given_mappings", "systolic_costs"]

METRICS = {
    "edp": "J s",
    "latency_s": "s",
    "energy_pj": "pJ",
    "area_mm2": "mm2",
    "power_w": "W",
    "cycles": "cycles",
    "idle": "%",
    "dram_bytes": "B",
}
"""Figures of a design and their units; all are better when smaller. idle: 1 - utilization."""

Costs = Callable[[Any], list[Cost]]
"""Of one design (a pytree): the cost of each network, leaves of shape ()."""


def combined(costs: Sequence[Cost], how: str) -> dict[str, Any]:
    """`METRICS` and ``feasible`` of a design on several networks.

    how: "sum": they run one after the other, EDP is the sum of their own, power and idle are means over the
    whole time. "worst": the largest figure of any network.
    """
    own = [
        {
            "edp": cost.edp,
            "latency_s": cost.latency_s,
            "energy_pj": cost.energy_pj,
            "area_mm2": cost.area_mm2,
            "power_w": cost.power_w,
            "cycles": cost.cycles,
            "idle": 1.0 - cost.utilization,
            "dram_bytes": cost.dram_bytes,
        }
        for cost in costs
    ]
    found = dict(own[0])
    for name in found:
        for other in own[1:]:
            largest = how == "worst" or name == "area_mm2"
            found[name] = jnp.maximum(found[name], other[name]) if largest else found[name] + other[name]
    if how == "sum" and len(own) > 1:
        found["power_w"] = found["energy_pj"] * 1e-12 / found["latency_s"]
        macs = sum(cost.macs for cost in costs)
        found["idle"] = 1.0 - macs / (found["cycles"] * costs[0].peak_macs_per_cycle)
    feasible = costs[0].feasible
    for cost in costs[1:]:
        feasible = jnp.minimum(feasible, cost.feasible)
    return found | {"feasible": feasible}


def bare(network: Network) -> Network:
    """Like layers merged, no padding rows (half of a small network's work), float64 numpy leaves."""
    merged = network.merged()
    cut = lambda leaf: np.asarray(leaf, np.float64)[: merged.size] if np.ndim(leaf) else np.float64(leaf)
    return jax.tree.map(cut, merged)


def _now(tree):
    """Host arrays as arrays of the default dtype of the moment: searched in float32, checked in float64."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), tree)


# Models of an accelerator ---------------------------------------------------------------------


def systolic_costs(networks: Sequence[Network], build: Callable, dataflow: str | None) -> Costs:
    """Of designs {"hardware", "dataflow": one-hot (3,)}; ``dataflow`` where that is fixed."""
    rows = [bare(network) for network in networks]

    def costs(design) -> list[Cost]:
        mapping = design["dataflow"] if dataflow is None else dataflow
        hw = build(design["hardware"])
        return [
            models.systolic(_now(net), hw, mapping, layer_loop="scan", one_hot=dataflow is None)
            for net in rows
        ]

    return costs


def dataflow_costs(
    networks: Sequence[Network], template: dict, build: Callable, styles: Sequence[str]
) -> Costs:
    """Of designs {"hardware", "dataflow": one-hot over ``styles``}; without "dataflow" the one style.

    Programs are written for each number of PEs, as `mappings.style` does. Designs with fewer PEs than a
    style needs for some layer are infeasible. Raises ValueError for a style that fits no design.
    """
    pes = _products(template["hardware"])
    tables = [StyleTable(network.merged(), styles, pes) for network in networks]
    rows = [bare(network) for network in networks]

    def costs(design) -> list[Cost]:
        hw = build(design["hardware"])
        weights = design.get("dataflow")
        found = []
        for net, table in zip(rows, tables, strict=True):
            net, pick = _now(net), table.picker(weights, hw.pes)

            def one(row, pick=pick) -> Cost:
                of_layer, entries = row
                flow, applies = pick(entries)
                cost = models.dataflow.layer(of_layer, hw, flow)
                return replace(cost, feasible=cost.feasible * applies)

            leaves = (net.layers, _now(table.entries))
            found.append(network_cost(one, leaves, net.count, net.mask, "scan"))
        return found

    return costs


def _legal(value) -> np.ndarray:
    """Legal values of a number in a template."""
    if not isinstance(value, Variable):
        return np.asarray([float(value)])
    assert isinstance(value, Integer | Real)
    if value.values is None:
        raise ValueError("the dataflow model needs listed values of rows and cols, not a continuous range")
    return value.values


def _products(hw: Accelerator) -> np.ndarray:
    """Numbers of PEs that a template can have, ascending."""
    rows, cols = _legal(hw.rows), _legal(hw.cols)
    tied = hw.rows is hw.cols
    return np.unique(rows * rows if tied else np.outer(rows, cols))


# The loop-nest model --------------------------------------------------------------------------


def _corners(hardware, build: Callable) -> list[Hierarchy]:
    """Hierarchies with every variable at either end."""
    is_variable = lambda node: isinstance(node, Variable)
    leaves, structure = jax.tree.flatten(hardware, is_leaf=is_variable)
    variables = list(dict.fromkeys(leaf for leaf in leaves if is_variable(leaf)))
    found = []
    for corner in range(2 ** min(len(variables), 8)):
        ends = {v: v.at((v.size - 1) * (corner >> i & 1)) for i, v in enumerate(variables)}
        made = [ends.get(leaf, leaf) if is_variable(leaf) else leaf for leaf in leaves]
        found.append(build(jax.tree.unflatten(structure, made)))
    return found


def _widest(hardware, build: Callable) -> Hierarchy:
    """One hierarchy into which all that fit some design of the template fit."""
    corners = _corners(hardware, build)
    levels = []
    for of_level in zip(*(corner.levels for corner in corners), strict=True):
        most = lambda name, of_level=of_level: jnp.max(jnp.stack([getattr(one, name) for one in of_level]))
        least = lambda name, of_level=of_level: jnp.min(jnp.stack([getattr(one, name) for one in of_level]))
        levels.append(
            replace(
                of_level[0],
                **{name: most(name) for name in ("capacity_bits", "fanout_x", "fanout_y")},
                **{name: least(name) for name in ("weight_bits", "input_bits", "output_bits")},
            )
        )
    return replace(corners[0], levels=tuple(levels))


def free_mapping(network: Network, template: dict, build: Callable, layer: str | None):
    """(the template with all mappings of one layer, its name, costs of a design).

    layer: its name; None where the network has one distinct layer. The figures are those of one run.
    Raises ValueError for an unknown layer, or several and none named.
    """
    merged = network.merged()
    names = [name.split(" (+")[0] for name in merged.names]
    if layer is None and len(names) > 1:
        raise ValueError(
            f"{network.info.name} has {len(names)} distinct layers: name the one whose mappings are swept "
            f"(layer), or give mappings; layers: {_few(names)}"
        )
    every = {name: row for name, row in zip(network.names, network.rows(), strict=True)}
    every |= dict(zip(names, merged.rows(), strict=True))
    if layer is not None and layer not in every:
        from diffhw._files.documents import nearest

        hint = nearest(layer, names) if len(names) < 12 else f"; it has {_few(names)}"
        raise ValueError(f"{network.info.name} has no layer {layer!r}{hint}")
    name = names[0] if layer is None else layer
    widest = _widest(template["hardware"], build)
    row = jax.tree.map(lambda leaf: np.float64(leaf), every[name])
    template = {**template, "mapping": mapping_template(every[name], widest)}

    def costs(design) -> list[Cost]:
        hierarchy = build(design["hardware"])
        return [models.loopnest.layer(_now(row), hierarchy, design["mapping"].nest())]

    return template, name, costs


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f", ... ({len(names)} in all)" if len(names) > 6 else "")


def given_mappings(networks: Sequence[Network], template: dict, build: Callable, path: Path) -> Costs:
    """Costs of designs under Timeloop mapping files: one file for a network of one layer, else a folder.

    In a folder the file of a layer is ``LAYER.mapping.yaml`` (as `diffhw map --out` writes it, with the
    problem beside it) or ``LAYER.map.yaml`` (`diffhw codesign --model loopnest`). Raises ValueError.
    """
    hierarchy = _widest(template["hardware"], build)
    rows, nests = [], []
    for network in networks:
        merged = network.merged()
        found = []
        for name, layer in zip(merged.names, merged.rows(), strict=True):
            file, problem = _mapping_file(path, name.split(" (+")[0], merged.size)
            found.append(mappings.read_timeloop_mapping(file, hierarchy, layer, problem=problem))
        rows.append(bare(network))
        nests.append(jax.tree.map(lambda *leaves: np.stack([np.float64(x) for x in leaves]), *found))

    def costs(design) -> list[Cost]:
        hierarchy = build(design["hardware"])
        return [
            models.loopnest(_now(net), hierarchy, _now(nest), layer_loop="scan")
            for net, nest in zip(rows, nests, strict=True)
        ]

    return costs


def _mapping_file(path: Path, layer: str, layers: int) -> tuple[Path, Path | None]:
    if path.is_file():
        if layers > 1:
            raise ValueError(f"{path} is one mapping, the network has {layers} layers: give a folder")
        return path, None
    if not path.is_dir():
        raise ValueError(f"{path}: no such file or folder of mappings")
    word = "".join(c if c.isalnum() or c in "-_." else "_" for c in layer).strip(".")
    for suffix in (".mapping.yaml", ".map.yaml"):
        file, problem = path / f"{word}{suffix}", path / f"{word}.problem.yaml"
        if file.is_file():
            return file, problem if problem.is_file() else None
    raise ValueError(f"{path} has no mapping of layer {layer!r}: {word}.mapping.yaml is looked for")
