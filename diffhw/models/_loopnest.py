"""Loop-nest model: any mapping on any memory hierarchy.

Any number of levels, each keeping some tensors while the others pass by; spatial fan-out along two axes
with multicast and spatial reduction; temporal order at each level; strides, dilations, groups, halos;
block sizes; read, write and shared bandwidths.

Counts: a tile held at a level comes in once per visit; visits are the temporal loops outside it but for
the leading ones that do not index its tensor. Children that want the same words are served by one read
(multicast), children that make the same output are reduced on the way. There is no reuse at the MAC
itself: the innermost level that keeps a tensor is read every cycle. Partial sums come back as fills and
are read to be added to. Input tiles are boxes that slide (`_loopnest_reuse`).

Cycles: every level runs for the product of the temporal factors, stretched by its worst port; the
runtime is the slowest level's (all levels overlap perfectly, no fill or drain). Energy: accesses of the
width of a level, rounded up per tensor, times the energy of a read, a fill or an update.

Factors that multiply to more than a loop's extent are padding: it is computed and moved like data, and
MACs count only the useful ones. Source: Parashar et al., ISPASS 2019 (Timeloop), as re-measured against
its program (`diffhw validate timeloop`).
"""

import functools
import operator

import jax.numpy as jnp
from jax import Array, lax

from diffhw.hardware import Hierarchy
from diffhw.mappings import LOOPS, LoopNest
from diffhw.models._cost import Cost
from diffhw.models._loopnest_counts import LoopnestCounts, loopnest_counts
from diffhw.models._loopnest_links import Links
from diffhw.models._model import with_kernel
from diffhw.models._network import network_cost
from diffhw.numerics import ceil_div, ceil_ratio, is_infinite, maximum
from diffhw.workloads import Layer, Network

__all__ = ["TENSORS", "level_cycles", "level_energy_pj", "loopnest"]

_total = lambda values: functools.reduce(operator.add, values)
TENSORS = {"w": "weight", "i": "input", "o": "output"}


def level_energy_pj(hierarchy: Hierarchy, counts: LoopnestCounts) -> dict[str, Array]:
    """PJ per level and tensor, all instances: {"DRAM_weight": pJ, ...}."""
    parts = {}
    for level, tensors, instances in zip(hierarchy.levels, counts.tensors, counts.instances, strict=True):
        for t, words in tensors.items():
            bits = level.bits(t)
            per_instance = (
                ceil_div(words.reads * bits, level.width_bits) * level.read_pj
                + ceil_div(words.fills * bits, level.width_bits) * level.fill_pj
                + ceil_div(words.updates * bits, level.width_bits) * level.update_pj
            )
            parts[f"{level.name}_{TENSORS[t]}"] = instances * per_instance
    return parts


def level_cycles(hierarchy: Hierarchy, counts: LoopnestCounts) -> tuple[Array, ...]:
    """Cycles that each level needs, innermost first: at least the compute cycles, more where a port binds."""
    found = []
    for level, tensors in zip(hierarchy.levels, counts.tensors, strict=True):
        zero = jnp.zeros_like(counts.compute_cycles)
        reads = _total([zero, *(words.reads * level.bits(t) for t, words in tensors.items())])
        writes = _total(
            [zero, *((words.fills + words.updates) * level.bits(t) for t, words in tensors.items())]
        )
        cycles = counts.compute_cycles
        for amount, port in ((reads, "read"), (writes, "write"), (reads + writes, "shared")):
            width = getattr(level, f"{port}_bits_per_cycle")
            if not is_infinite(width):
                cycles = maximum(cycles, amount / width)
        found.append(cycles)
    return tuple(found)


_CHUNK = 4096.0


def _bits(level, words: dict[str, Array], zero: Array) -> tuple[Array, Array]:
    """Bits of ``words`` as (chunks of 4096, rest): the sum in one float32 would be rounded from 2**24 on."""
    chunks = {t: lax.stop_gradient(jnp.floor(count * (1.0 / _CHUNK))) for t, count in words.items()}
    return (
        _total([zero, *(chunks[t] * level.bits(t) for t in words)]),
        _total([zero, *((count - _CHUNK * chunks[t]) * level.bits(t) for t, count in words.items())]),
    )


def _slowest(hierarchy: Hierarchy, counts: LoopnestCounts) -> tuple[Array, Array, Array]:
    """Bits, bits per cycle and rounding of the port that takes longest; cycles, 1 and 0 where the MACs do.

    Kept apart so that the whole cycles of their ratio can be found exactly. Rounding: what the bits lack.
    """
    longest = counts.compute_cycles
    zero = jnp.zeros_like(longest)
    chunks, rest, rate = zero, longest, jnp.ones_like(longest)
    for level, tensors in zip(hierarchy.levels, counts.tensors, strict=True):
        if not tensors:
            continue
        reads = _bits(level, {t: words.reads for t, words in tensors.items()}, zero)
        writes = _bits(level, {t: words.fills + words.updates for t, words in tensors.items()}, zero)
        ports = (
            (reads, level.read_bits_per_cycle),
            (writes, level.write_bits_per_cycle),
            (tuple(map(operator.add, reads, writes)), level.shared_bits_per_cycle),
        )
        for (many, few), per_cycle in ports:
            if is_infinite(per_cycle):
                continue
            cycles = (many * _CHUNK + few) / per_cycle
            binds = cycles > longest
            longest = jnp.where(binds, cycles, longest)
            chunks, rest = jnp.where(binds, many, chunks), jnp.where(binds, few, rest)
            rate = jnp.where(binds, per_cycle, rate)
    amount = chunks * _CHUNK + rest
    return amount, rate, lax.stop_gradient(rest - (amount - chunks * _CHUNK))


def _violation(layer: Layer, hierarchy: Hierarchy, counts: LoopnestCounts, mapping: LoopNest) -> Array:
    """How far the mapping is from one that fits and covers the layer, relative; 0 if it does."""
    nest = counts.nest
    worst = jnp.ones_like(counts.compute_cycles)
    for k, (level, tensors) in enumerate(zip(hierarchy.levels, counts.tensors, strict=True)):
        if tensors:
            need = _total([words.tile * level.bits(t) for t, words in tensors.items()])
            worst = maximum(worst, need / level.capacity_bits)
        for axis in "xy":
            factors = getattr(mapping.levels[k], f"spatial_{axis}")
            if factors:
                used = functools.reduce(operator.mul, factors.values())
                worst = maximum(worst, used / getattr(level, f"fanout_{axis}"))
    for d in LOOPS:
        # The absolute value lets XLA fuse the quotient, see `numerics.reciprocal`; it must stay exact here.
        worst = maximum(worst, jnp.abs(getattr(layer, d) / nest.tile[-1][d]))
    return worst - 1


def layer(layer: Layer, hierarchy: Hierarchy, mapping: LoopNest, links: Links | tuple | None = None) -> Cost:
    """Cost of one layer under one mapping. Every leaf of shape ``()``.

    Units: cycles, pJ, mm2, bytes. Exact at integer factors and distinct places of an order. Differentiable
    in the factors (between legal values the gate of a loop goes from 0 at factor 1 to 1 at factor 2), in
    every leaf of the hierarchy and, by the slope of `numerics.before`, in the places of the orders.
    ``violation``: the worst of capacity, fan-out and coverage, relative.
    links: (x, y), the widest spread along each axis, or `Links`: neighbours pass inputs on. Static; dear.

    >>> from diffhw import hardware, mappings, workloads
    >>> chip = hardware.hierarchy("gemmini")
    >>> gemm = workloads.Layer.gemm(64, 64, 64)
    >>> nest = mappings.LoopNest.create(
    ...     [{"temporal": {"p": 64}}, {"temporal": {"c": 4}, "y": {"c": 16}},
    ...      {"temporal": {"k": 4}, "x": {"k": 16}}, {}], chip, gemm)
    >>> float(loopnest.layer(gemm, chip, nest).cycles)
    1536.0
    """
    counts = loopnest_counts(layer, hierarchy, mapping, links)
    cycles = ceil_ratio(*_slowest(hierarchy, counts))
    energy = level_energy_pj(hierarchy, counts)
    macs = layer.macs
    leakage = hierarchy.static_w
    for k, level in enumerate(hierarchy.levels):
        leakage = leakage + level.leakage_w * hierarchy.instances(k)
    energy |= {
        "mac": macs * hierarchy.mac_pj,
        "static": cycles * (leakage / hierarchy.freq_hz * 1e12),
    }
    traffic = {}
    last = len(hierarchy.levels) - 1
    for k, (level, tensors) in enumerate(zip(hierarchy.levels, counts.tensors, strict=True)):
        name = "dram" if k == last else level.name
        for t, words in tensors.items():
            size = counts.instances[k] * level.bits(t) / 8
            traffic[f"{name}_{TENSORS[t]}_read"] = size * words.reads
            traffic[f"{name}_{TENSORS[t]}_write"] = size * (words.fills + words.updates)
    violation = _violation(layer, hierarchy, counts, mapping)
    area = {level.name: hierarchy.instances(k) * level.area_mm2 for k, level in enumerate(hierarchy.levels)}
    area["mac"] = hierarchy.macs_per_cycle * hierarchy.mac_area_mm2
    ideal = macs / hierarchy.macs_per_cycle
    return Cost(
        cycles=cycles,
        energy_pj=_total(energy.values()),
        area_mm2=_total(area.values()),
        macs=macs,
        feasible=jnp.where(violation <= 1e-6, 1.0, 0.0) * jnp.ones_like(cycles),
        violation=violation,
        freq_hz=hierarchy.freq_hz,
        peak_macs_per_cycle=hierarchy.macs_per_cycle,
        traffic_bytes=traffic,
        energy_parts=energy,
        area_parts=area,
        cycle_parts={
            "ideal": ideal,
            "spatial_loss": counts.compute_cycles - ideal,
            "stall": cycles - counts.compute_cycles,
        },
    )


@with_kernel(layer)
def loopnest(network: Network, hierarchy: Hierarchy, mapping: LoopNest, *, layer_loop: str = "vmap") -> Cost:
    """Cost of a network, layers one after the other; see `loopnest.layer` for the physics.

    mapping: a `LoopNest` whose leaves have one row per padded layer row.
    layer_loop: "vmap" (per-layer costs kept) or "scan".
    """
    rows = (network.mask.shape[0],)
    found = mapping.levels[0].temporal["k"].shape[:1]
    if found != rows:
        raise ValueError(f"mapping needs one row per padded layer row ({rows[0]}), got {[*found] or 'one'}")
    kernel = layer
    return network_cost(
        lambda row: kernel(row[0], hierarchy, row[1]),
        (network.layers, mapping),
        network.count * network.mask,
        network.mask,
        layer_loop,
    )
