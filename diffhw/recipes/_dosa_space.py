"""DOSA's design space as arrays: Gemmini's hardware, and one mapping per layer, many networks at once.

Four levels: registers (weights, one word), accumulator (outputs; c spreads below it), scratchpad (weights,
inputs; k spreads below it), DRAM. Arrays have the loops of `LOOPS` on their last axis.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffhw.hardware import Hierarchy, Technology, gemmini
from diffhw.mappings import LOOPS, ORDERS, LoopLevel, LoopNest, loop_order
from diffhw.models import loopnest
from diffhw.recipes._map_lattice import divisors, factorise
from diffhw.workloads import Layer, Network

__all__ = [
    "GemminiSizes",
    "Plan",
    "Problem",
    "gemmini_area_mm2",
    "hierarchy_of",
    "nest_of",
    "network_energy_cycles",
    "sizes_of",
]

AT = {d: i for i, d in enumerate(LOOPS)}
PLACES = np.array([[loop_order(order)[d] for d in LOOPS] for order in ORDERS.values()], np.float32)
"""Places of each loop under each order of the menu, shape (orders, 8)."""
STREAMED = np.array([d in "npq" for d in LOOPS])
"""Loops that may run at the registers: a PE holds one weight word."""
GROUPS = np.array([d == "g" for d in LOOPS])
"""Groups share no word, so they run at the DRAM: inside, they would only take room."""
MAX_SIDE = 128


@struct.dataclass(kw_only=True)
class Plan:
    """Mappings of one layer (or with leading axes). Factors are whole numbers >= 1.

    time: (3, 8) temporal factors of registers, accumulator, scratchpad; the DRAM has the rest.
    c_space, k_space: () spatial factors.  places: (4, 8) places of the loops in each level's order.
    """

    time: Array | np.ndarray
    c_space: Array | np.ndarray
    k_space: Array | np.ndarray
    places: Array | np.ndarray


@struct.dataclass(kw_only=True)
class GemminiSizes:
    """Leaves (): side of the PE array, KiB of accumulator and scratchpad."""

    side: Array
    accumulator_kb: Array
    scratchpad_kb: Array


@dataclass(frozen=True)
class Problem:
    """A network's layers as arrays: layers (L,) leaves, counts (L,), divisors (L, 8, M).

    L is the network's padded size (padding has count 0 and extents 1) and M at least 32, so that networks
    share compiled programs. rows: the real layers.
    """

    layers: Layer
    counts: Array
    extents: Array
    divisors: Array
    rows: tuple[Layer, ...]

    @classmethod
    def of(cls, network: Network) -> "Problem":
        """From a network."""
        rows = jax.tree.map(np.asarray, network).with_info(network.info).rows()
        extents = np.stack([np.asarray(getattr(network.layers, d), float) for d in LOOPS], axis=1)
        lists = [[divisors(int(n)) for n in row] for row in extents]
        longest = max(32, *(len(found) for row in lists for found in row))
        table = np.zeros((*extents.shape, longest))
        for i, row in enumerate(lists):
            for j, found in enumerate(row):
                table[i, j, : len(found)] = found
        return cls(
            network.layers,
            network.count * network.mask,
            jnp.asarray(extents, float),
            jnp.asarray(table, float),
            tuple(rows),
        )


def _spatial(plan: Plan, d: str):
    return plan.c_space if d == "c" else plan.k_space


def outermost(plan: Plan, extents: Array) -> Array:
    """(8,) temporal factors of the DRAM: what the inner levels leave."""
    inner = plan.time[0] * plan.time[1] * plan.time[2]
    spaces = jnp.stack([_spatial(plan, d) if d in "ck" else jnp.ones_like(plan.c_space) for d in LOOPS])
    return extents / (inner * spaces)


def nest_of(plan: Plan, extents: Array) -> LoopNest:
    """The loop nest of a plan; groups run at the DRAM."""
    outside = outermost(plan, extents)
    levels = []
    for m in range(4):
        factors = outside if m == 3 else plan.time[m]
        used = [d for d in LOOPS if (m == 3 if d == "g" else m > 0 or d in "npq")]
        levels.append(
            LoopLevel(
                temporal={d: factors[AT[d]] for d in used},
                order={d: plan.places[m, AT[d]] for d in used},
                spatial_x={"k": jnp.asarray(plan.k_space)} if m == 2 else {},
                spatial_y={"c": jnp.asarray(plan.c_space)} if m == 1 else {},
            )
        )
    return LoopNest(levels=tuple(levels))


def needs(plan: Plan, layer: Layer) -> tuple[Array, Array, Array]:
    """Words a plan needs: outputs per accumulator, weights and inputs in the scratchpad; and its side."""
    first = plan.time[0] * plan.time[1]
    inner = first * plan.time[2]
    t = {d: first[AT[d]] for d in LOOPS}
    outputs = t["n"] * t["k"] * t["p"] * t["q"]
    t = {d: inner[AT[d]] for d in LOOPS}
    t["c"], t["k"] = t["c"] * plan.c_space, t["k"] * plan.k_space
    weights = t["k"] * t["c"] * t["r"] * t["s"]
    height = (t["p"] - 1) * layer.stride_h + (t["r"] - 1) * layer.dilation_h + 1
    width = (t["q"] - 1) * layer.stride_w + (t["s"] - 1) * layer.dilation_w + 1
    return outputs, weights + t["n"] * t["c"] * height * width, jnp.maximum(plan.c_space, plan.k_space)


def _ceil_through(x):
    return x + jax.lax.stop_gradient(jnp.ceil(x - 1e-4) - x)


def sizes_of(plans: Plan, layers: Layer) -> GemminiSizes:
    """The hardware that the mappings of all layers (L,) ask for, as DOSA derives it: whole KiB."""
    outputs, scratch, side = jax.vmap(needs)(plans, layers)
    side = jnp.maximum(side.max(), 2.0)
    return GemminiSizes(
        side=side,
        accumulator_kb=_ceil_through(side * outputs.max() * 4 / 1024),
        scratchpad_kb=_ceil_through(scratch.max() / 1024),
    )


def hierarchy_of(sizes: GemminiSizes) -> Hierarchy:
    """`hardware.gemmini` of those sizes."""
    return gemmini(sizes.side, sizes.accumulator_kb, sizes.scratchpad_kb)


def gemmini_area_mm2(sizes: GemminiSizes) -> Array:
    """mm2 of MACs, their registers, accumulator and scratchpad at 40 nm by `Technology`; no control or links.

    DOSA's own model has no area; this is ours.
    """
    tech = Technology.at(40.0)
    pe = tech.mac_area_mm2(8.0, 8.0, 32.0) + tech.register_area_mm2(8.0 + 8.0 + 32.0)
    banks = tech.sram_area_mm2(sizes.accumulator_kb * 1024 / sizes.side) * sizes.side
    return sizes.side**2 * pe + banks + tech.sram_area_mm2(sizes.scratchpad_kb * 1024)


def network_energy_cycles(problem: Problem, plans: Plan, sizes: GemminiSizes) -> tuple[Array, Array]:
    """PJ and cycles of the network, shapes (): every layer on the same hardware."""
    chip = hierarchy_of(sizes)

    def one(layer, plan, extents):
        cost = loopnest.layer(layer, chip, nest_of(plan, extents))
        return cost.energy_pj, cost.cycles

    energy, cycles = jax.vmap(one)(problem.layers, plans, problem.extents)
    return (energy * problem.counts).sum(), (cycles * problem.counts).sum()


def random_sizes(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 3): side 2^1 to 2^7, accumulator and scratchpad 2^0 to 2^11 KiB: DOSA's range of starts."""
    return np.stack(
        [2.0 ** rng.integers(1, 8, n), 2.0 ** rng.integers(0, 12, n), 2.0 ** rng.integers(0, 12, n)], axis=1
    )


def random_plans(
    rng: np.random.Generator, row: Layer, sizes: np.ndarray, n: int, tries: int = 40
) -> Plan | None:
    """``n`` random mappings of a layer that fit hardware (3,), numpy leaves (n, ...); None if none was found.

    Half of the draws of each spatial factor take the largest divisor that fits the side; all other prime
    factors fall on slots at random, orders too. (Without that half random search ends at twice the EDP.)
    """
    side, acc_words, spad_words = sizes[0], sizes[1] * 256 / sizes[0], sizes[2] * 1024
    kept: list[Plan] = []
    found = 0
    for _ in range(tries):
        batch = max(4 * n, 256)
        time = np.ones((batch, 3, 8))
        space = {"c": np.ones(batch), "k": np.ones(batch)}
        for d in LOOPS:
            if d == "g":
                continue
            extent = int(getattr(row, d))
            if d in "ck":
                widest = max(v for v in divisors(extent).tolist() if v <= side)
                wide = rng.random(batch) < 0.5
                space[d][wide] = widest
            for prime, power in factorise(extent):
                slots = ["t1", "t2", "t3"] + (["t0"] if d in "npq" else []) + (["s"] if d in "ck" else [])
                spatial = dict(factorise(widest)).get(prime, 0) if d in "ck" else 0
                for number in range(power):
                    chosen = rng.integers(0, len(slots), batch)
                    if d in "ck":  # the widest draws have their spatial factor already
                        again = rng.integers(0, len(slots) - 1, batch)
                        chosen = np.where(wide, np.where(number < spatial, -1, again), chosen)
                    for i, slot in enumerate(slots):
                        here = chosen == i
                        if slot == "s":
                            space[d][here] *= prime
                        elif slot != "t3":
                            time[here, int(slot[1]), AT[d]] *= prime
        order = rng.integers(0, len(PLACES), (batch, 4))
        plans = Plan(time=time, c_space=space["c"], k_space=space["k"], places=PLACES[order])
        outputs, scratch, wide = _needs_numpy(plans, row)
        fits = (outputs <= acc_words) & (scratch <= spad_words) & (wide <= side)
        index = np.flatnonzero(fits)
        if len(index):
            kept.append(jax.tree.map(lambda leaf, index=index: leaf[index], plans))
            found += len(index)
        if found >= n:
            break
    if not found:
        return None
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *kept)
    pick = np.arange(n) % found
    return jax.tree.map(lambda leaf: leaf[pick], joined)


def _needs_numpy(plans: Plan, row: Layer):
    """`needs` of a numpy batch."""
    first = plans.time[:, 0] * plans.time[:, 1]
    inner = first * plans.time[:, 2]
    t = {d: first[:, AT[d]] for d in LOOPS}
    outputs = t["n"] * t["k"] * t["p"] * t["q"]
    t = {d: inner[:, AT[d]] for d in LOOPS}
    t["c"], t["k"] = t["c"] * plans.c_space, t["k"] * plans.k_space
    weights = t["k"] * t["c"] * t["r"] * t["s"]
    height = (t["p"] - 1) * float(row.stride_h) + (t["r"] - 1) * float(row.dilation_h) + 1
    width = (t["q"] - 1) * float(row.stride_w) + (t["s"] - 1) * float(row.dilation_w) + 1
    return outputs, weights + t["n"] * t["c"] * height * width, np.maximum(plans.c_space, plans.k_space)
