"""Energy and latency of bit widths as tables: what each layer adds at each width.

Layers run one after the other on one array, so both are sums over layers, and a budget on either is kept by
a generator as a budget of bytes is. Models, sources and what they leave out: `models.bit_serial`,
`models.bit_fusion`, `models.fixed_array` (published arrays, recalled; energies of `hardware.Technology`).
"""

import difflib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.hardware import Accelerator, load
from diffhw.mappings import Precision
from diffhw.models import bit_fusion, bit_serial, fixed_array
from diffhw.recipes._bit_problem import BitProblem
from diffhw.workloads import Layer, Network

__all__ = ["BIT_ARRAYS", "bit_cost_tables", "cost_tables"]

BIT_ARRAYS = {"bit_fusion": bit_fusion, "bit_serial": bit_serial, "fixed": fixed_array}
"""Arrays by name."""


def cost_tables(
    problem: BitProblem,
    array: str = "bit_fusion",
    hardware: Accelerator | str = "edge",
    *,
    activation_bits: float = 8,
    mapping: str = "ws",
    batch: int = 1,
) -> dict[str, np.ndarray]:
    """{"energy_pj": (L, B), "latency_s": (L, B)} of a problem, B widths from 1 bit on.

    array: one of `BIT_ARRAYS`.  hardware: an accelerator or a catalogue name.  activation_bits: of all layer
    inputs and outputs.  mapping: "os", "ws" or "is".  batch: images at once; the tables are of the batch.
    Add them to a problem's own, and they are metrics like "bytes":

        problem = dataclasses.replace(problem, tables=problem.tables | cost_tables(problem, "bit_serial"))

    A problem without a network is taken as matrix products of its weights and MACs. Raises ValueError for
    an unknown array or hardware.
    """
    layers = None
    if problem.model is not None:
        from diffhw.training import to_network

        network = to_network(problem.model, batch)
        if network.names != problem.names:
            raise ValueError(
                f"{problem.network}: its quantized layers are {', '.join(problem.names[:3])}, ..., "
                f"those of its model {', '.join(network.names[:3])}, ..."
            )
        layers = jax.tree.map(lambda leaf: leaf[: len(network.names)], network.layers)
    return bit_cost_tables(
        problem.weights,
        problem.macs * batch,
        layers,
        array=array,
        hardware=hardware,
        max_bits=problem.max_bits,
        activation_bits=activation_bits,
        mapping=mapping,
    )


def bit_cost_tables(
    weights,
    macs,
    layers: Layer | None = None,
    *,
    array: str = "bit_fusion",
    hardware: Accelerator | str = "edge",
    max_bits: int = 8,
    activation_bits: float = 8,
    mapping: str = "ws",
) -> dict[str, np.ndarray]:
    """The same of layers. weights, macs: (L,).  layers: stacked, leaves (L,), or None: products of an (m, c)
    by a (c, k) matrix with c k weights, m c k MACs, k the largest divisor of the weights up to their root.

    Energy in pJ: MACs, buffers, compulsory DRAM traffic, leakage and the DRAM's static power while the
    layer runs. Latency in s: the larger of the array's cycles and the time of that traffic, at the clock.
    """
    if array not in BIT_ARRAYS:
        near = difflib.get_close_matches(str(array), BIT_ARRAYS, 1, 0.0)[0]
        raise ValueError(
            f"array must be one of {', '.join(BIT_ARRAYS)}, got {array!r} (did you mean {near!r}?)"
        )
    if not 0 < activation_bits < np.inf:
        raise ValueError(f"activation_bits must be a finite number > 0, got {activation_bits!r}")
    hw = load(hardware) if isinstance(hardware, str) else hardware
    weights, macs = np.asarray(weights, float), np.asarray(macs, float)
    if weights.shape != macs.shape or weights.ndim != 1:
        raise ValueError(f"weights and macs must be (L,) both, got {weights.shape} and {macs.shape}")
    if layers is None:
        layers = _products(weights, macs)
    if np.shape(layers.k) != weights.shape:
        raise ValueError(f"layers must be stacked, {len(weights)} of them, got {np.shape(layers.k)}")
    kernel = BIT_ARRAYS[array].layer

    def one(layer: Layer, width):
        inputs = jnp.asarray(activation_bits, float)
        cost = kernel(
            layer, hw, mapping, Precision(weight=width, input=inputs, psum=jnp.asarray(32.0), output=inputs)
        )
        return cost.energy_pj, cost.latency_s

    widths = jnp.arange(1.0, max_bits + 1)
    energy, latency = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(layers, widths)
    return {"energy_pj": np.asarray(energy, float), "latency_s": np.asarray(latency, float)}


def _products(weights: np.ndarray, macs: np.ndarray) -> Any:
    rows = []
    for size, work in zip(weights.astype(int), macs, strict=True):
        k = next(d for d in range(int(size**0.5), 0, -1) if size % d == 0)
        rows.append(Layer.gemm(round(work / size), int(size // k), k))
    return jax.tree.map(lambda leaf: leaf[: len(rows)], Network.create(rows).layers)
