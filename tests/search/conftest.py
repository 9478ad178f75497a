"""A small systolic-like cost with the traps of the real one: ceilings, buffers that fit or not, an area.

The numpy version below it is written separately, in float64 with integer arithmetic, and judges the searches.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw.numerics import ceil_div, fits
from diffhw.spaces import Choice, Integer, Space

GEMMS = np.array([[3136, 147, 64], [784, 1152, 128], [196, 256, 1024], [49, 4608, 512], [1, 2048, 1000]])
FLOWS = ("os", "ws", "is")


def figures(design):
    rows, cols, flow = design["array"]["rows"], design["array"]["cols"], design["flow"]
    inputs, weights = design["buffers"]

    def one(m, k, n):
        cycles = (
            flow[0] * ceil_div(m, rows) * ceil_div(n, cols) * (k + rows + cols - 2)
            + flow[1] * ceil_div(k, rows) * ceil_div(n, cols) * (m + 2 * rows + cols - 2)
            + flow[2] * ceil_div(k, rows) * ceil_div(m, cols) * (n + 2 * rows + cols - 2)
        )
        reads = m * k * (1 + (1 - fits(m * k, inputs / 2)) * (ceil_div(n, cols) - 1))
        reads = reads + k * n * (1 + (1 - fits(k * n, weights / 2)) * (ceil_div(m, rows) - 1))
        cycles = jnp.maximum(cycles, reads / 16)
        sram = jnp.sqrt(inputs / 1024) * 0.4 + jnp.sqrt(weights / 1024) * 0.6
        return cycles, m * k * n * 0.3 + reads * (20 + sram) + cycles * rows * cols * 0.01

    cycles, energy = jax.vmap(one)(*jnp.asarray(GEMMS.T, float))
    latency, joules = cycles.sum() * 1e-9, energy.sum() * 1e-12
    return latency * joules, {"latency_s": latency, "energy_j": joules}


def area_mm2(design):
    inputs, weights = design["buffers"]
    return design["array"]["rows"] * design["array"]["cols"] * 3e-4 + (inputs + weights) * 2e-6


def oracle(space):
    """Objective and area of every design of the space, numpy float64, in the order of enumeration."""
    cols, rows, inputs, weights, flow = np.array(
        [slot.variable.values if slot.name != "flow" else np.arange(3) for slot in space.variables], object
    )[[0, 1, 2, 3, 4]]
    grid = np.meshgrid(cols, rows, inputs, weights, flow, indexing="ij")
    cols, rows, inputs, weights, flow = (np.asarray(x, np.int64).ravel() for x in grid)
    total_cycles, total_energy = 0.0, 0.0
    for m, k, n in GEMMS.tolist():
        up = lambda a, d: -(-a // d)
        cycles = np.choose(
            flow,
            [
                up(m, rows) * up(n, cols) * (k + rows + cols - 2),
                up(k, rows) * up(n, cols) * (m + 2 * rows + cols - 2),
                up(k, rows) * up(m, cols) * (n + 2 * rows + cols - 2),
            ],
        )
        reads = m * k * np.where(2 * m * k <= inputs, 1, up(n, cols))
        reads = reads + k * n * np.where(2 * k * n <= weights, 1, up(m, rows))
        cycles = np.maximum(cycles, reads / 16)
        sram = np.sqrt(inputs / 1024) * 0.4 + np.sqrt(weights / 1024) * 0.6
        total_cycles = total_cycles + cycles
        total_energy = total_energy + m * k * n * 0.3 + reads * (20 + sram) + cycles * rows * cols * 0.01
    latency, energy = total_cycles * 1e-9, total_energy * 1e-12
    return SimpleNamespace(
        edp=latency * energy,
        latency=latency,
        energy=energy,
        area=rows * cols * 3e-4 + (inputs + weights) * 2e-6,
    )


def _space():
    side, buffer = Integer(4, 256, per_octave=4), Integer(8192, 1048576, per_octave=1)
    other_side, other_buffer = Integer(4, 256, per_octave=4), Integer(8192, 1048576, per_octave=1)
    return Space(
        {
            "array": {"rows": side, "cols": other_side},
            "buffers": (buffer, other_buffer),
            "flow": Choice(FLOWS),
        }
    )


@pytest.fixture(scope="session")
def toy():
    """objective, space, constraints and the oracle's best value and figures."""
    space = _space()
    truth = oracle(space)
    return SimpleNamespace(
        objective=figures,
        area=area_mm2,
        space=space,
        constraints=((area_mm2, 1.5),),
        truth=truth,
        best=truth.edp[truth.area <= 1.5].min(),
    )
