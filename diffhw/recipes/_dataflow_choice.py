"""The best well-known dataflow of each layer: every style on every layer in one compiled call, then a choice.

Per-layer EDP is the wrong price: a layer's cheapest choice by itself can make the product of the sums
worse. The network's EDP is quasi-concave in its two sums, so its minimum is a vertex of their hull, where
each layer takes the least energy + price x latency at one common price. All prices at which some layer
changes its mind are tried, so the answer is exact (the same argument as in `Problem.choose`).
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.hardware import Accelerator
from diffhw.mappings import STYLES, Dataflow, Precision, Program, fit, style
from diffhw.models import Cost, dataflow
from diffhw.models._network import network_cost
from diffhw.workloads import Network

__all__ = [
    "SingleStyle",
    "StyleChoice",
    "best_styles",
    "choose_edp",
    "dataflow_bounds",
    "exact_dataflow_costs",
]


@dataclass(frozen=True)
class SingleStyle:
    """One style on every layer.

    cost: of the network, numpy leaves; None where the style does not apply to some layer.
    applicable, feasible: distinct layers that it can be written for, and that then fit the hardware.
    """

    name: str
    cost: Cost | None
    applicable: int
    feasible: int


@dataclass(frozen=True)
class StyleChoice:
    """A style per layer.

    styles, programs: one per distinct layer, in order.  dataflow: `Dataflow`, one row per padded layer row.
    cost: of the network under that choice, float64 as numpy leaves, per-layer costs kept.
    singles: what each style would cost on every layer, as `STYLES` orders them.
    """

    styles: tuple[str, ...]
    programs: tuple[Program, ...]
    dataflow: Dataflow
    cost: Cost
    singles: tuple[SingleStyle, ...]


@jax.jit
def _costs(network: Network, hw: Accelerator, flows: Dataflow, precision: Precision) -> Cost:
    """Leaves (S,), per layer (S, L), of S dataflows."""
    return jax.vmap(lambda flow: dataflow(network, hw, flow, precision))(flows)


def _double(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)


def exact_dataflow_costs(
    network: Network, hw: Accelerator, flows: Dataflow, precision: Precision | None = None
) -> Cost:
    """`models.dataflow` in float64 of several dataflows of one network: leaves (S,), of ``layers`` (S, L).

    flows: `Dataflow`, leaves (S, L).  precision: leaves (); default: the datapath's widths.  Numpy out.
    """
    precision = Precision.of(hw) if precision is None else precision
    # Level names are static: without them designs of one structure share compiled code.
    hw = replace(hw, levels=tuple(replace(level, name="") for level in hw.levels))
    with jax.enable_x64(True):
        return jax.tree.map(
            np.asarray, _costs(_double(network), _double(hw), _double(flows), _double(precision))
        )


def _candidates(network: Network, pes: int) -> dict[str, list[Program | None]]:
    """Per style one program per distinct layer, None where the style cannot be written for it."""
    rows = jax.tree.map(np.asarray, network).with_info(network.info).rows()
    out: dict[str, list[Program | None]] = {}
    for name in STYLES:
        programs: list[Program | None] = []
        for row in rows:
            try:
                program = style(name, row, pes)
                assert isinstance(program, Program)
                fit(program, row, pes)
            except ValueError:
                program = None
            programs.append(program)
        out[name] = programs
    return out


def choose_edp(energy: np.ndarray, latency: np.ndarray) -> np.ndarray:
    """Choice per layer, shape (L,), that minimises (sum of energy) x (sum of latency), exactly.

    energy, latency: (S, L), inf where a choice is not allowed; each layer needs one that is.

    >>> choose_edp(np.array([[1.0, 10.0], [11.0, 9.0]]), np.array([[10.0, 1.0], [0.9, 2.0]]))
    array([1, 0])
    """
    changes = [np.empty(0)]
    for a in range(len(energy)):
        for b in range(a):
            both = np.isfinite(energy[a]) & np.isfinite(energy[b])
            de, dt = energy[a][both] - energy[b][both], latency[b][both] - latency[a][both]
            changes.append((de / np.where(dt == 0, np.inf, dt))[de * dt > 0])
    prices = np.unique(np.concatenate(changes))
    if prices.size:
        prices = np.concatenate([prices[:1] / 2, np.sqrt(prices[:-1] * prices[1:]), prices[-1:] * 2])
    else:
        prices = np.ones(1)
    best, least = np.zeros(energy.shape[1], int), np.inf
    rows = np.arange(energy.shape[1])
    for price in prices:
        pick = np.argmin(energy + price * latency, 0)
        value = energy[pick, rows].sum() * latency[pick, rows].sum()
        if value < least:
            best, least = pick, value
    return best


def _pick(each: Cost, applies: np.ndarray) -> np.ndarray:
    """Style index per layer: of the feasible ones by the network's EDP, else the least violation."""
    size = applies.shape[1]
    feasible = (np.asarray(each.feasible)[:, :size] > 0) & applies
    violation = np.where(applies, np.asarray(each.violation)[:, :size], np.inf)
    nearest = violation <= violation.min(0)
    allowed = np.where(feasible.any(0), feasible, nearest)
    energy, latency = (
        np.where(allowed, np.asarray(x)[:, :size], np.inf) for x in (each.energy_pj * 1e-12, each.latency_s)
    )
    return choose_edp(energy, latency)


def best_styles(network: Network, hw: Accelerator, precision: Precision | None = None) -> StyleChoice:
    """Of the well-known dataflows the one for each layer that makes the network's EDP least.

    network: concrete; `merged` first, so that like layers are costed once.  A layer on which no style is
    feasible takes the one nearest to it (its ``violation`` says how far). Styles that cannot be written for
    a layer (matrix products on 3 x 3 filters, more filter rows than PEs) are left out there. No single
    style that is feasible everywhere is better than the choice.

    Switching the dataflow between layers is free here: the array and its network must be able to.
    """
    pes = int(np.asarray(hw.pes))
    programs = _candidates(network, pes)
    applies = np.array([[one is not None for one in row] for row in programs.values()])
    # Where nothing applies a stand-in is costed and never looked at.
    stand_in = [style("cp_nlr", row, pes) for row in jax.tree.map(np.asarray, network).rows()]
    flows = [
        fit([one or other for one, other in zip(row, stand_in)], network, pes) for row in programs.values()
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *flows)
    costs = exact_dataflow_costs(network, hw, stacked, precision)
    each = costs.by_layer()
    index = _pick(each, applies)

    width = np.shape(network.mask)[-1]
    full = np.zeros(width, int)
    full[: network.size] = index
    take = lambda leaf: leaf[full, np.arange(width)]
    with jax.enable_x64(True):
        mask = np.asarray(network.mask, float)
        chosen = network_cost(lambda row: row, jax.tree.map(take, each), np.ones(width), mask)
    names = list(STYLES)
    singles = []
    for i, name in enumerate(names):
        works = (np.asarray(each.feasible)[i, : network.size] > 0) & applies[i]
        cost = jax.tree.map(lambda leaf, i=i: leaf[i], costs) if applies[i].all() else None
        singles.append(SingleStyle(name, cost, int(applies[i].sum()), int(works.sum())))
    picked = [programs[names[style_index]][row] for row, style_index in enumerate(index)]
    return StyleChoice(
        styles=tuple(names[i] for i in index),
        programs=tuple(one for one in picked if one is not None),
        dataflow=jax.tree.map(take, stacked),
        cost=jax.tree.map(np.asarray, chosen),
        singles=tuple(singles),
    )


def dataflow_bounds(cost: Cost, dram_bytes_per_cycle: float, rows: int) -> tuple[str, ...]:
    """One word per distinct layer: what its runtime under `models.dataflow` is lost to.

    If over a tenth of the cycles wait: "DRAM" where the link is busy all the time, else "NoC" (transfers
    between L2 and the PEs, fill and drain). Else "idle PEs" where over a tenth of the PE-cycles of the
    compute has no work, else "compute".
    """
    each = cost.by_layer()
    out = []
    for i in range(rows):
        cycles, stall, work = (
            float(np.asarray(leaf)[i]) for leaf in (each.cycles, each.cycle_parts["stall"], each.macs)
        )
        link = float(np.asarray(each.dram_bytes)[i]) / dram_bytes_per_cycle
        peak = float(np.asarray(each.peak_macs_per_cycle)[i])
        if stall > 0.1 * cycles:
            out.append("DRAM" if link > 0.999 * cycles else "NoC")
        else:
            out.append("compute" if work > 0.9 * peak * (cycles - stall) else "idle PEs")
    return tuple(out)
