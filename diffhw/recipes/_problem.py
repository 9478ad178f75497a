"""The main job as a space, an objective and constraints: which array for which networks."""

import functools
import math
import operator
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diffhw import hardware
from diffhw.hardware import Accelerator, Level
from diffhw.mappings import DATAFLOWS
from diffhw.models import Cost, systolic
from diffhw.spaces import Choice, Integer, Space
from diffhw.workloads import Network

__all__ = ["BUFFERS", "LIMITS", "METRICS", "OBJECTIVES", "Problem", "make_problem"]

OBJECTIVES = {"edp": "J s", "latency": "s", "energy": "J"}
METRICS = ("latency_ms", "energy_mj", "area_mm2")
"""Axes of the Pareto set."""
LIMITS = {"area_mm2": "mm2", "power_w": "W", "latency_ms": "ms"}
BUFFERS = ("input", "weight", "output")


def _figure(energy_j, latency_s, objective: str):
    return {"edp": energy_j * latency_s, "latency": latency_s, "energy": energy_j}[objective]


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything a search needs, and how to read its answer.

    networks: merged.  base: the accelerator whose numbers are not searched.  template: the design with
    variables, a dict {"hardware": Accelerator, "dataflow": one-hot (3,)}, without "dataflow" when it is
    chosen per layer.  space: over it.
    limits: {"area_mm2": 4.0, ...}.
    """

    networks: tuple[Network, ...]
    base: Accelerator
    template: dict
    space: Space
    objective_name: str
    limits: dict[str, float]
    per_layer: bool

    def totals(self, design: dict) -> tuple[list[Array], list[Array]]:
        """Energy (J) and latency (s) of each network, shape () each. Differentiable in the design."""
        hw = design["hardware"]
        # In the default dtype of the moment: the same function is evaluated in float64 at the end.
        networks = [jax.tree.map(lambda leaf: jnp.asarray(leaf, float), network) for network in self.networks]
        if self.per_layer:
            pairs = [self._switched(network, hw) for network in networks]
        else:
            dataflow = design["dataflow"]
            costs = [systolic(net, hw, dataflow, layer_loop="scan", one_hot=True) for net in networks]
            pairs = [(cost.energy_j, cost.latency_s) for cost in costs]
        return [energy for energy, _ in pairs], [latency for _, latency in pairs]

    def objective(self, design: dict) -> tuple[Array, dict[str, Array]]:
        """The figure to minimise, summed over networks, and the named figures limits are about. Shapes ().

        Power and latency are the worst network's; energy_mj is the sum, latency_ms the slowest.
        """
        energies, latencies = self.totals(design)
        each = [_figure(e, t, self.objective_name) for e, t in zip(energies, latencies, strict=True)]
        value = functools.reduce(operator.add, each)
        power = [e / t for e, t in zip(energies, latencies, strict=True)]
        return value, {
            "area_mm2": hardware.area_mm2(design["hardware"]),
            "power_w": jnp.max(jnp.stack(power)),
            "latency_ms": jnp.max(jnp.stack(latencies)) * 1e3,
            "energy_mj": functools.reduce(operator.add, energies) * 1e3,
        }

    def constraints(self) -> list[tuple[str, float]]:
        """(figure, limit) pairs for a search."""
        return list(self.limits.items())

    # -- One dataflow per layer --------------------------------------------------------------------

    def per_layer_figures(self, network: Network, hw: Accelerator) -> tuple[Array, Array]:
        """Energy (J) and latency (s) of each layer row under each dataflow, shapes (3, L)."""
        costs = [systolic(network, hw, name).by_layer() for name in DATAFLOWS]
        energy = jnp.stack([cost.energy_pj * 1e-12 for cost in costs])
        return energy, jnp.stack([cost.cycles / hw.freq_hz for cost in costs])

    def choose(self, energy: Array, latency: Array) -> Array:
        """Best dataflow index of each layer row, shape (L,), from (3, L) figures.

        The product of two sums is quasi-concave, so its minimum is a vertex of the convex hull of all
        pairs of sums. Going along that hull from least energy to least latency, layers change their
        mind one by one, in the order of what a second costs them: at most two changes a layer, so
        sorting the changes and adding them up visits every vertex, exactly.

        With a power or latency limit the best vertex that keeps it is taken (an optimum inside the
        hull is not looked for).
        """
        first, last = jnp.argmin(energy, axis=0), jnp.argmin(latency, axis=0)
        middle = jnp.where(first == last, first, 3 - first - last)
        at = lambda figures, index: jnp.take_along_axis(figures, index[None], axis=0)[0]
        (e0, e1, e2), (t0, t1, t2) = ([at(x, i) for i in (first, middle, last)] for x in (energy, latency))
        on_hull = (t1 < t0) & (t2 < t1) & ((e1 - e0) * (t0 - t2) < (e2 - e0) * (t0 - t1))
        e1, t1 = jnp.where(on_hull, e1, e2), jnp.where(on_hull, t1, t2)

        def price(de, dt):  # J per saved second; never for a layer that saves nothing
            return jnp.where(dt > 0, de / jnp.where(dt > 0, dt, 1.0), jnp.inf)

        price_a, price_b = price(e1 - e0, t0 - t1), price(e2 - e1, t1 - t2)
        prices = jnp.concatenate([jnp.zeros(1, energy.dtype), price_a, price_b])
        gains = [
            jnp.concatenate([x0.sum()[None], x1 - x0, x2 - x1]) for x0, x1, x2 in ((e0, e1, e2), (t0, t1, t2))
        ]
        prices, *gains = lax.sort((prices, *gains), num_keys=1)
        # Steps at price inf change nothing that counts: their gains are zero.
        total_energy, total_latency = jnp.cumsum(gains[0]), jnp.cumsum(gains[1])
        value = _figure(total_energy, total_latency, self.objective_name)
        over = jnp.zeros_like(value)
        if "latency_ms" in self.limits:
            over = jnp.maximum(over, total_latency * 1e3 / self.limits["latency_ms"] - 1)
        if "power_w" in self.limits:
            over = jnp.maximum(over, total_energy / total_latency / self.limits["power_w"] - 1)
        worst = jnp.max(value)
        best = prices[jnp.argmin(jnp.where(over > 0, worst * (2 + over), value))]
        return jnp.where(price_a > best, first, jnp.where(on_hull & (price_b > best), middle, last))

    def _switched(self, network: Network, hw: Accelerator) -> tuple[Array, Array]:
        energy, latency = self.per_layer_figures(network, hw)
        best = self.choose(jax.lax.stop_gradient(energy), jax.lax.stop_gradient(latency))
        pick = jax.nn.one_hot(best, 3, axis=0, dtype=energy.dtype)
        return (energy * pick).sum(), (latency * pick).sum()

    # -- Reading an answer -------------------------------------------------------------------------

    def dataflow_names(self, design: dict) -> str | dict[str, tuple[str, ...]]:
        """The dataflow of a legal design: a name, or per network one name per distinct layer."""
        if not self.per_layer:
            return DATAFLOWS[int(np.argmax(np.asarray(design["dataflow"])))]
        out = {}
        for network in self.networks:
            best = np.asarray(self.choose(*self.per_layer_figures(network, design["hardware"])))
            out[network.info.name] = tuple(DATAFLOWS[i] for i in best[: network.size])
        return out

    def value_of(self, costs: list[Cost] | tuple[Cost, ...]) -> float:
        """The objective from costs, as a float."""
        return math.fsum(float(_figure(c.energy_j, c.latency_s, self.objective_name)) for c in costs)

    def figures_of(self, hw: Accelerator, costs) -> dict[str, float]:
        """What the limits are about: area, power and latency of the worst network."""
        return {
            "area_mm2": float(hardware.area_mm2(hw)),
            "power_w": max(float(cost.power_w) for cost in costs),
            "latency_ms": max(float(cost.latency_s) for cost in costs) * 1e3,
        }


def make_problem(
    networks: tuple[Network, ...],
    *,
    objective: str,
    limits: dict[str, float],
    bits: float,
    node_nm: float,
    freq_mhz: float,
    dram: str,
    per_layer_dataflow: bool,
) -> Problem:
    """The legal grid of the main job: rows, cols, three buffers, DRAM type and dataflow.

    Raises ValueError for an unknown objective or DRAM type.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    types = hardware.DRAM_TYPES if dram == "auto" else (hardware.dram_name(hardware.dram(dram)),)
    levels = [Level.create(name=name, keeps=name[0], capacity_bytes=65536) for name in BUFFERS]
    base = Accelerator.create(
        rows=32,
        cols=32,
        levels=levels,
        dram=hardware.dram(types[0]),
        technology=hardware.Technology.at(node_nm),
        weight_bits=bits,
        input_bits=bits,
        psum_bits=max(32, 2 * bits + 16),
        flexible=1.0 if per_layer_dataflow else 0.0,
        freq_hz=freq_mhz * 1e6,
    )
    searched = replace(
        base,
        rows=Integer(4, 256, per_octave=4),
        cols=Integer(4, 256, per_octave=4),
        levels=tuple(
            replace(level, capacity_bytes=Integer(8 * 1024, 4 * 1024 * 1024, per_octave=1))
            for level in levels
        ),
        dram=Choice({name: hardware.dram(name) for name in types}) if len(types) > 1 else base.dram,
    )
    design = {"hardware": searched}
    if not per_layer_dataflow:
        design["dataflow"] = Choice(DATAFLOWS)
    return Problem(
        networks=networks,
        base=base,
        template=design,
        space=Space(design),
        objective_name=objective,
        limits=limits,
        per_layer=per_layer_dataflow,
    )
