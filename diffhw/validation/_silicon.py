"""Our models beside published chips: for sanity, not for fitting."""

from dataclasses import dataclass

import jax
import numpy as np

from diffhw import hardware
from diffhw.hardware import Accelerator
from diffhw.mappings import DATAFLOWS
from diffhw.models import roofline, systolic
from diffhw.workloads import Layer

__all__ = ["SiliconRow", "eyeriss_alexnet"]


@dataclass(frozen=True)
class SiliconRow:
    """One layer of a published chip and what the systolic model says. Times in ms, bytes in MB, power in mW.

    published_ms: total latency.  published_processing_ms: without transfers.  bound_ms: roofline.
    dataflow: our fastest.  ours_ms, compute_ms: its latency with and without DRAM stalls.
    published_dram_mb, ours_dram_mb; published_mw, ours_mw: chip without DRAM.
    """

    layer: str
    published_ms: float
    published_processing_ms: float
    bound_ms: float
    dataflow: str
    ours_ms: float
    compute_ms: float
    published_dram_mb: float
    ours_dram_mb: float
    published_mw: float
    ours_mw: float


# Chen et al., JSSC 2017, performance breakdown of AlexNet's CONV layers at batch 4 (recalled, not re-read):
# (latency ms, processing ms, DRAM MB, chip power mW).
_PUBLISHED = {
    "conv1": (20.9, 16.5, 5.0, 332.0),
    "conv2": (41.9, 39.2, 4.0, 288.0),
    "conv3": (23.6, 21.8, 3.0, 266.0),
    "conv4": (18.4, 16.0, 2.1, 235.0),
    "conv5": (10.5, 10.0, 1.3, 236.0),
}


def _layers(batch: int) -> dict[str, Layer]:
    """AlexNet as Eyeriss ran it: two groups in conv2, conv4, conv5; 227 x 227 input."""
    conv = lambda size, k, c, r, **more: Layer.create(n=batch, h=size, w=size, k=k, c=c, r=r, s=r, **more)
    pad = lambda p: dict(pad_top=p, pad_left=p)
    return {
        "conv1": conv(227, 96, 3, 11, stride_h=4, stride_w=4),
        "conv2": conv(27, 128, 48, 5, g=2, **pad(2)),
        "conv3": conv(13, 384, 256, 3, **pad(1)),
        "conv4": conv(13, 192, 192, 3, g=2, **pad(1)),
        "conv5": conv(13, 128, 192, 3, g=2, **pad(1)),
    }


def eyeriss_alexnet(hw: Accelerator | None = None, batch: int = 4) -> list[SiliconRow]:
    """Eyeriss' five AlexNet layers under our systolic model, the published figures beside.

    hw: default the catalogue's eyeriss (65 nm, 168 PEs, 16 bit, 200 MHz). The chip is row stationary,
    which the systolic model is not: it is a check of order and ranking, not a validation.
    """
    hw = hardware.load("eyeriss") if hw is None else hw
    rows = []
    for name, layer in _layers(batch).items():
        costs = {d: jax.tree.map(np.asarray, systolic.layer(layer, hw, d)) for d in DATAFLOWS}
        best = min(costs, key=lambda d: float(costs[d].cycles))
        cost, bound = costs[best], roofline.layer(layer, hw)
        ms = 1e3 / float(hw.freq_hz)
        on_chip = sum(float(v) for k, v in cost.energy_parts.items() if not k.startswith("dram"))
        latency, processing, dram, power = _PUBLISHED[name]
        rows.append(
            SiliconRow(
                layer=name,
                published_ms=latency,
                published_processing_ms=processing,
                bound_ms=float(bound.cycles) * ms,
                dataflow=best,
                ours_ms=float(cost.cycles) * ms,
                compute_ms=float(cost.cycle_parts["compute"]) * ms,
                published_dram_mb=dram,
                ours_dram_mb=float(cost.dram_bytes) / 1e6,
                published_mw=power,
                ours_mw=on_chip * 1e-12 / float(cost.latency_s) * 1e3,
            )
        )
    return rows
