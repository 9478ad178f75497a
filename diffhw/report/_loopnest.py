"""Mappings for reading: what they cost level by level, what binds them, and how good they are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.hardware import Hierarchy
from diffhw.mappings import LOOPS
from diffhw.models import TENSORS, Cost, level_cycles, loopnest, loopnest_counts
from diffhw.models._show import quantity
from diffhw.report._grid import Table, column

if TYPE_CHECKING:
    from diffhw.recipes import BestMapping, BestMappings

__all__ = [
    "Mapped",
    "MappedLayer",
    "energy_by_level",
    "hardware_line",
    "level_table",
    "mapped",
    "mapping_json",
    "mapping_table",
    "mapping_total",
]

UNITS = {"energy": "J", "latency": "s", "edp": "J s"}
_PRICED = "priced energy"
_OF_NETWORK = ("runs", "of all energy", "of all time")
WORDS = {"energy": "energy", "latency": "latency", "edp": "EDP"}


# Not compiled: a layer takes 0.1 s op by op, its program 2 to 7 s to compile, anew for every hierarchy.
def _price(layer, hierarchy, nest):
    counts = loopnest_counts(layer, hierarchy, nest)
    return loopnest.layer(layer, hierarchy, nest), level_cycles(hierarchy, counts)


def double(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)


@dataclass(frozen=True)
class MappedLayer:
    """One row: a layer, how often it runs, its mapping, and what that costs (float64, once)."""

    name: str
    count: float
    best: "BestMapping"
    cost: Cost
    level_cycles: tuple[float, ...]

    @property
    def bound_by(self) -> str:
        """The word "MACs", or the level whose port is the slowest."""
        busiest = int(np.argmax(self.level_cycles))
        compute = float(self.cost.cycle_parts["ideal"] + self.cost.cycle_parts["spatial_loss"])
        names = self.best.hierarchy.names
        return "MACs" if self.level_cycles[busiest] <= compute * (1 + 1e-9) else f"{names[busiest]} port"

    @property
    def certificate(self) -> str:
        """Short: what the layer's mapping is the least of ("least EDP, proven"), or how far at most."""
        best, word = self.best, WORDS.get(self.best.objective, _PRICED)
        if best.proven:
            return f"least {word}, proven"
        if not math.isfinite(best.gap):
            return f"{word}: no bound of its own"
        return f"{word} at most {100 * best.gap:.2g} % above the least"


@dataclass(frozen=True)
class Mapped:
    """What is shown: the layers and their sums. objective, score, bound: as in `recipes.BestMappings`."""

    layers: tuple[MappedLayer, ...]
    objective: str
    score: float
    bound: float
    seconds: float

    @property
    def hierarchy(self) -> Hierarchy:
        """Of the first layer; what is kept may differ between layers if bypass was searched."""
        return self.layers[0].best.hierarchy

    @cached_property
    def energy_pj(self) -> float:
        """Of all runs of all layers."""
        return sum(one.count * float(one.cost.energy_pj) for one in self.layers)

    @cached_property
    def cycles(self) -> float:
        """Of all runs of all layers, one after the other."""
        return sum(one.count * float(one.cost.cycles) for one in self.layers)

    @property
    def macs(self) -> float:
        """Useful MACs."""
        return sum(one.count * float(one.cost.macs) for one in self.layers)

    @property
    def latency_s(self) -> float:
        """Seconds."""
        return self.cycles / float(self.hierarchy.freq_hz)

    @property
    def utilization(self) -> float:
        """Useful MACs over MAC-cycles."""
        return self.macs / (self.cycles * float(self.hierarchy.macs_per_cycle))

    @property
    def gap(self) -> float:
        """``score / bound - 1``."""
        return self.score / self.bound - 1 if self.bound > 0 else math.inf

    @property
    def proven(self) -> bool:
        """True if no other choice of mappings scores less (to one part in 10^9)."""
        return self.gap <= 2e-9

    def in_unit(self, score: float) -> float:
        """A score in J, s or J s."""
        per_s = 1 / float(self.hierarchy.freq_hz)
        return score * {"energy": 1e-12, "latency": per_s, "edp": 1e-12 * per_s}[self.objective]


def mapped(
    result: "BestMapping | BestMappings | Mapped", name: str | None = None, count: float = 1
) -> Mapped:
    """Costs of a result of `recipes.best_mapping` or `best_mappings`. name, count: of a single layer."""
    if isinstance(result, Mapped):
        return result
    from diffhw.recipes import BestMapping  # late: who prints costs needs no search

    if isinstance(result, BestMapping):
        rows = [(name or "layer", count, result)]
        # A layer that runs c times costs c times the energy and c times the cycles.
        scale = count**2 if result.objective == "edp" else count
        total = (result.score * scale, result.bound * scale)
    else:
        rows = list(zip(result.names, result.counts, result.layers, strict=True))
        total = (result.score, result.bound)
    layers = []
    with jax.enable_x64(True):
        for label, runs, best in rows:
            cost, cycles = _price(*map(double, (best.layer, best.hierarchy, best.nest)))
            layers.append(
                MappedLayer(
                    label, float(runs), best, jax.tree.map(np.asarray, cost), tuple(map(float, cycles))
                )
            )
    return Mapped(tuple(layers), result.objective, *total, result.seconds)


# Tables ---------------------------------------------------------------------------------------


def mapping_table(
    result, sizes: Sequence[float] | None = None, top: int | None = None, title: str | None = None
) -> Table:
    """Per layer: energy, cycles, utilisation, share of the network, what binds, certificate.

    result: of `recipes.best_mapping` or `best_mappings`.  sizes: mappings that fit, per layer
    (`recipes.mapping_space_size`).  top: only the layers with the largest share of the objective.
    """
    what = mapped(result)
    share_e = [one.count * float(one.cost.energy_pj) / what.energy_pj for one in what.layers]
    share_t = [one.count * float(one.cost.cycles) / what.cycles for one in what.layers]
    weight = {"energy": share_e, "latency": share_t}.get(
        what.objective, [a + b for a, b in zip(share_e, share_t, strict=True)]
    )
    order = list(range(len(what.layers)))
    if top is not None and len(order) > top:
        order = sorted(sorted(order, key=lambda i: -weight[i])[:top])
    rows = [what.layers[i] for i in order]
    columns = [
        ("layer", [one.name for one in rows]),
        ("runs", [f"{one.count:g}" for one in rows]),
        column("MACs", [float(one.cost.macs) for one in rows], "MACs"),
        column("energy", [float(one.cost.energy_pj) * 1e-12 for one in rows], "J"),
        column("of all energy", [share_e[i] for i in order], "%"),
        column("cycles", [float(one.cost.cycles) for one in rows], "cycles"),
        column("of all time", [share_t[i] for i in order], "%"),
        column("utilization", [float(one.cost.utilization) for one in rows], "%"),
        ("bound by", [one.bound_by for one in rows]),
        ("certificate", [one.certificate for one in rows]),
    ]
    if sizes is not None:
        columns.insert(9, ("mappings that fit", [f"{sizes[i]:.1e}" for i in order]))
    if len(what.layers) == 1:
        columns = [one for one in columns if one[0].partition(" (")[0] not in _OF_NETWORK]
    left = tuple(i for i, (head, _) in enumerate(columns) if head in ("layer", "bound by", "certificate"))
    notes = []
    if any(one.count != 1 for one in what.layers):
        notes.append("energy and cycles of one run; shares of all runs")
    priced = [one.best.objective for one in rows if one.best.objective not in WORDS]
    if priced:
        notes.append(f"{_PRICED}: {priced[0]}, the trade that suits the network's EDP")
    if len(rows) < len(what.layers):
        notes.append(
            f"{len(what.layers) - len(rows)} more layers: "
            f"{quantity(1 - sum(share_e[i] for i in order), '%')} of the energy, "
            f"{quantity(1 - sum(share_t[i] for i in order), '%')} of the time"
        )
    return Table.of_columns(title or "mappings", columns, left=left, notes=tuple(notes))


def energy_by_level(result) -> dict[str, dict[str, float]]:
    """PJ of all runs: {level name: {"weight" | "input" | "output": pJ}}, innermost first, after "MAC".

    Also "static" if anything leaks. Their sum is the energy of the network.
    """
    what = mapped(result)
    found: dict[str, dict[str, float]] = {"MAC": {"": 0.0}}
    for one in what.layers:
        found["MAC"][""] += one.count * float(one.cost.energy_parts["mac"])
    for name in what.hierarchy.names:
        found[name] = {}
        for tensor in TENSORS.values():
            parts = [
                one.count * float(one.cost.energy_parts[f"{name}_{tensor}"])
                for one in what.layers
                if f"{name}_{tensor}" in one.cost.energy_parts
            ]
            if parts:
                found[name][tensor] = sum(parts)
    static = sum(one.count * float(one.cost.energy_parts["static"]) for one in what.layers)
    if static > 0:
        found["static"] = {"": static}
    return found


def level_table(result) -> Table:
    """Where the energy goes: level by level, tensor by tensor."""
    what = mapped(result)
    parts = energy_by_level(what)
    sums = {name: sum(row.values()) for name, row in parts.items()}
    total = sum(sums.values())
    like = max(sums.values()) * 1e-12
    joule = lambda value: None if value is None else value * 1e-12
    columns = [("level", list(parts))]
    for tensor in TENSORS.values():
        columns.append(column(tensor, [joule(row.get(tensor)) for row in parts.values()], "J", like))
    columns.append(column("total", [joule(value) for value in sums.values()], "J", like))
    columns.append(column("share", [value / total for value in sums.values()], "%"))
    return Table.of_columns("where the energy goes", columns, notes=("-: the level does not keep it",))


def mapping_total(result) -> list[str]:
    """Sentences: the sums, and how good they are."""
    what = mapped(result)
    edp = what.energy_pj * 1e-12 * what.latency_s
    lines = [
        f"total: energy {quantity(what.energy_pj * 1e-12, 'J')}, latency {quantity(what.latency_s, 's')} "
        f"({quantity(what.cycles, 'cycles')}), EDP {quantity(edp, 'J s')}, utilization "
        f"{quantity(what.utilization, '%')}"
    ]
    word, unit = WORDS[what.objective], UNITS[what.objective]
    bound = quantity(what.in_unit(what.bound), unit)
    alone = len(what.layers) == 1
    none = f"no mapping of this layer has less {word}" if alone else f"no mappings have less {word} in all"
    if what.proven:
        lines.append(f"proven: {none} (perfect factors)")
    elif what.bound > 0:
        lines.append(
            f"proven: {none} than {bound} (perfect factors); this is at most {100 * what.gap:.2g} % above"
        )
        if what.objective == "edp" and not alone:
            lines.append(
                "  (a product of two sums, bounded through them: a gap may stay though each layer is proven)"
            )
    else:
        lines.append(f"no lower bound of the {word} was found in the time given")
    return lines


def hardware_line(hierarchy: Hierarchy) -> str:
    """One line: the levels from the MACs out, what each keeps and holds."""
    parts = [f"{float(hierarchy.macs_per_cycle):,.0f} MACs"]
    for level in hierarchy.levels:
        size = float(level.capacity_bits) / 8
        holds = f", {quantity(size, 'B')}" if math.isfinite(size) else ""
        kept = ", ".join(TENSORS[t] for t in level.keeps) or "nothing"
        parts.append(f"{level.name} ({kept if len(level.keeps) < 3 else 'all'}{holds})")
    return " < ".join(parts)


def mapping_json(result, sizes: Sequence[float] | None = None) -> dict:
    """Everything as plain data. sizes: mappings that fit, per layer. Units are in the keys."""
    what = mapped(result)
    rows = []
    for i, one in enumerate(what.layers):
        best, cost = one.best, one.cost
        rows.append(
            {
                "layer": one.name,
                "count": one.count,
                "sizes": {d: int(float(getattr(best.layer, d))) for d in LOOPS},
                "energy_pj": float(cost.energy_pj),
                "cycles": float(cost.cycles),
                "macs": float(cost.macs),
                "utilization": float(cost.utilization),
                "energy_share": one.count * float(cost.energy_pj) / what.energy_pj,
                "time_share": one.count * float(cost.cycles) / what.cycles,
                "bound_by": one.bound_by,
                "objective": best.objective,
                "score": best.score,
                "bound": best.bound,
                "gap": best.gap if math.isfinite(best.gap) else None,
                "proven": best.proven,
                "certificate": one.certificate,
                "mappings_that_fit": None if sizes is None else sizes[i],
                "mapping": [
                    {
                        "level": name,
                        "keeps": best.hierarchy.levels[k].keeps,
                        "temporal_innermost_first": [[d, int(f)] for d, f in best.nest.loops(k)],
                        "spatial_x": _factors(best.nest.levels[k].spatial_x),
                        "spatial_y": _factors(best.nest.levels[k].spatial_y),
                    }
                    for k, name in enumerate(best.hierarchy.names)
                ],
                "energy_parts_pj": {name: float(value) for name, value in cost.energy_parts.items()},
                "cycle_parts": {name: float(value) for name, value in cost.cycle_parts.items()},
                "traffic_bytes": {name: float(value) for name, value in cost.traffic_bytes.items()},
            }
        )
    return {
        "objective": what.objective,
        "score_unit": {"energy": "pJ", "latency": "cycles", "edp": "pJ x cycles"}[what.objective],
        "score": what.score,
        "bound": what.bound,
        "gap": what.gap if math.isfinite(what.gap) else None,
        "proven": what.proven,
        "energy_pj": what.energy_pj,
        "cycles": what.cycles,
        "latency_s": what.latency_s,
        "edp_js": what.energy_pj * 1e-12 * what.latency_s,
        "utilization": what.utilization,
        "energy_by_level_pj": energy_by_level(what),
        "seconds": what.seconds,
        "layers": rows,
    }


def _factors(spatial: dict) -> dict[str, int]:
    return {d: int(float(f)) for d, f in spatial.items() if float(f) > 1}
