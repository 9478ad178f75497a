"""What a model returns."""

import functools
import operator

import jax.numpy as jnp
from flax import struct
from jax import Array

from diffhw.hardware import Accelerator, area_parts

__all__ = ["Cost", "cost_on"]


@struct.dataclass(kw_only=True)
class Cost:
    """Cost of one layer (leaves of shape ``()``) or of a network (the same, plus ``layers``).

    cycles:        runtime, stalls included.  energy_pj: all parts.  area_mm2.  macs: useful MACs.
    feasible:      1.0 or 0.0.  violation: 0 when feasible, else how far (relative).
    freq_hz, peak_macs_per_cycle: carried along for the derived figures.
    traffic_bytes: {"dram_input_read": bytes, ...}: per level and tensor.
    energy_parts, area_parts, cycle_parts: named shares; energy and area parts sum to the total.
    layers:        per-layer costs with a leading axis, each times its count, or None.
    """

    cycles: Array
    energy_pj: Array
    area_mm2: Array
    macs: Array
    feasible: Array
    violation: Array
    freq_hz: Array
    peak_macs_per_cycle: Array
    traffic_bytes: dict[str, Array]
    energy_parts: dict[str, Array]
    area_parts: dict[str, Array]
    cycle_parts: dict[str, Array]
    layers: "Cost | None" = None

    def by_layer(self) -> "Cost":
        """``layers``, or a ValueError if only totals were kept."""
        if self.layers is None:
            raise ValueError("per-layer costs were not kept: use layer_loop='vmap'")
        return self.layers

    @property
    def latency_s(self) -> Array:
        """Seconds."""
        return self.cycles / self.freq_hz

    @property
    def energy_j(self) -> Array:
        """Joules."""
        return self.energy_pj * 1e-12

    @property
    def edp(self) -> Array:
        """Energy-delay product, J s."""
        return self.energy_j * self.latency_s

    @property
    def power_w(self) -> Array:
        """Average power, W."""
        return self.energy_j / self.latency_s

    @property
    def utilization(self) -> Array:
        """Useful MACs over PE-cycles, 0 to 1."""
        return self.macs / (self.cycles * self.peak_macs_per_cycle)

    @property
    def dram_bytes(self) -> Array:
        """Bytes over the DRAM interface, reads and writes."""
        over_the_link = [value for name, value in self.traffic_bytes.items() if name.startswith("dram_")]
        return functools.reduce(operator.add, over_the_link)

    def __repr__(self) -> str:
        from diffhw.models import _show

        return _show.text(self)

    def _repr_html_(self) -> str:
        from diffhw.models import _show

        return _show.html(self)


def cost_on(
    hw: Accelerator,
    *,
    macs,
    compute,
    cycles,
    traffic: dict[str, Array],
    energy: dict[str, Array],
    violation=None,
    more_area: dict[str, Array] | None = None,
) -> Cost:
    """The cost of one layer on an accelerator.

    macs, compute (cycles without stalls), cycles: shape ().  traffic: bytes.  energy: pJ.
    violation: how far from fitting; None where every layer fits.  more_area: mm2 beside the hardware's own.
    """
    area = area_parts(hw) | (more_area or {})
    violation = jnp.zeros_like(cycles) if violation is None else violation
    return Cost(
        cycles=cycles,
        energy_pj=functools.reduce(operator.add, energy.values()),
        area_mm2=functools.reduce(operator.add, area.values()),
        macs=macs,
        feasible=jnp.where(violation <= 0, 1.0, 0.0) * jnp.ones_like(cycles),
        violation=violation,
        freq_hz=hw.freq_hz,
        peak_macs_per_cycle=hw.peak_macs_per_cycle,
        traffic_bytes=traffic,
        energy_parts=energy,
        area_parts=area,
        cycle_parts={"compute": compute, "stall": cycles - compute},
    )
