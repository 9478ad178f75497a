"""From a layer's cost to a network's: one loop over layer rows for every model."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax

from diffhw.models._cost import Cost

__all__ = ["folded", "network_cost"]


def _scale(cost: Cost, weight) -> Cost:
    """Extensive figures times ``weight`` (count x mask); area, rates and verdicts stay."""
    times = lambda part: {name: value * weight for name, value in part.items()}
    return replace(
        cost,
        cycles=cost.cycles * weight,
        energy_pj=cost.energy_pj * weight,
        macs=cost.macs * weight,
        traffic_bytes=times(cost.traffic_bytes),
        energy_parts=times(cost.energy_parts),
        cycle_parts=times(cost.cycle_parts),
    )


def _verdict(cost: Cost, mask) -> Cost:
    """Padding rows never decide feasibility."""
    return replace(cost, feasible=jnp.where(mask > 0, cost.feasible, 1.0), violation=cost.violation * mask)


def _add(a: Cost, b: Cost) -> Cost:
    both = lambda x, y: {name: x[name] + y[name] for name in x}
    return replace(
        b,
        cycles=a.cycles + b.cycles,
        energy_pj=a.energy_pj + b.energy_pj,
        macs=a.macs + b.macs,
        area_mm2=jnp.maximum(a.area_mm2, b.area_mm2),
        feasible=jnp.minimum(a.feasible, b.feasible),
        violation=jnp.maximum(a.violation, b.violation),
        traffic_bytes=both(a.traffic_bytes, b.traffic_bytes),
        energy_parts=both(a.energy_parts, b.energy_parts),
        cycle_parts=both(a.cycle_parts, b.cycle_parts),
    )


def network_cost(layer_cost, rows, weight, mask, layer_loop: str = "vmap", copies: int = 1) -> Cost:
    """Total over layer rows: cycles, energy, MACs and traffic add (times weight); area and violation
    take the maximum; feasible is AND.

    layer_cost: function of one row of ``rows`` (a pytree with a leading row axis) to Cost.
    weight: (rows,), count x mask, and a share if ``copies`` > 1.  mask: (rows,), 0 for padding.
    layer_loop: "vmap" (per-layer costs kept in ``.layers``) or "scan" (totals only).
    copies: the rows are so many versions of the same layers, one block after another; they are
        added up before per-layer costs are reported.
    """
    if layer_loop == "vmap":
        each = jax.vmap(lambda row, w, real: _verdict(_scale(layer_cost(row), w), real))(rows, weight, mask)
        if copies > 1:
            each = folded(jax.tree.map(lambda leaf: leaf.reshape(copies, -1), each))
        return replace(folded(each), layers=each)
    if layer_loop != "scan":
        raise ValueError(f"layer_loop must be 'vmap' or 'scan', got {layer_loop!r}")

    # The backward pass recomputes each layer instead of storing it: three times faster here.
    layer_cost = jax.checkpoint(layer_cost)

    def step(so_far, row_weight_mask):
        row, w, real = row_weight_mask
        return _add(so_far, _verdict(_scale(layer_cost(row), w), real)), None

    # Starting from neutral values keeps the layer's code in the program once.
    shape = jax.eval_shape(lambda: layer_cost(jax.tree.map(lambda leaf: leaf[0], rows)))
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
    start = replace(start, feasible=jnp.ones_like(start.feasible))
    return lax.scan(step, start, (rows, weight, mask))[0]


def folded(each: Cost) -> Cost:
    """Costs of layers, stacked on axis 0 and times their counts, as one. Leaves of jax or numpy."""
    total = lambda part: {name: value.sum(0) for name, value in part.items()}
    return Cost(
        cycles=each.cycles.sum(0),
        energy_pj=each.energy_pj.sum(0),
        area_mm2=each.area_mm2.max(0),
        macs=each.macs.sum(0),
        feasible=each.feasible.min(0),
        violation=each.violation.max(0),
        freq_hz=each.freq_hz[0],
        peak_macs_per_cycle=each.peak_macs_per_cycle[0],
        traffic_bytes=total(each.traffic_bytes),
        energy_parts=total(each.energy_parts),
        area_parts={name: value.max(0) for name, value in each.area_parts.items()},
        cycle_parts=total(each.cycle_parts),
    )
