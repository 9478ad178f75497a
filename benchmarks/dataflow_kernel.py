"""Speed of the dataflow kernel beside a C program of the same formulas.

Layers of the zoo under random directive programs (one to three levels, any order, ragged tiles), all
different, on 256 PEs: cycles, energy and violation of each; log EDP; log EDP and its gradient in the
dataflow. Large batches "in blocks": by `diffhw.batching.in_blocks` (512-bit vectors always).

    python -m benchmarks.dataflow_kernel [--batches 8192 65536] [--rounds R] [--forms ...]

One batch is evaluated again and again, by JAX on whatever ``jax.devices()`` gives and by the C program
(benchmarks/dataflow.c) on this machine's cores. Each round times every program once.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _common
from benchmarks._dataflows import base, random_batch
from benchmarks._native import Blocks, Native, Program, measure, prepare, show
from diffhw.hardware import leakage_w
from diffhw.mappings import DIMS
from diffhw.models import dataflow

QUICK = ["--batches", "65536", "--forms", "value, in blocks", "--rounds", "5"]
LEFT_OUT = "log EDP and its gradient; batches of 8,192, which are not in blocks"

NAMES = ("cycles", "energy", "violation")
LARGEST = 32768  # by vmap: a pair takes some 1,300 bytes of the caches
BLOCKS = (256, 1024)  # and all


def arrays(layer, mapping) -> list[np.ndarray]:
    """The pairs as the C program reads them."""
    columns = [
        getattr(lv, part)[d]
        for part in ("tile", "offset", "rank", "spatial")
        for lv in mapping.levels
        for d in DIMS
    ]
    columns += [mapping.levels[1].units, mapping.levels[2].units]
    columns += [getattr(layer, name) for name in ("n", "g", "k", "c", "p", "q", "r", "s")]
    columns += [getattr(layer, name) for name in ("stride_h", "stride_w", "dilation_h", "dilation_w")]
    return [np.asarray(column) for column in columns]


def constants(hw) -> np.ndarray:
    """The accelerator of `base` as the C program reads it: a buffer beside each PE, a shared one."""
    tech, (l1, l2) = hw.technology, hw.levels
    i, w, p, o = (bits / 8 for bits in (hw.input_bits, hw.weight_bits, hw.psum_bits, hw.input_bits))
    read = lambda capacity, word: 8 * tech.sram_read_pj_per_bit(capacity, word)
    values = [hw.pes, hw.lanes, (hw.rows + hw.cols) / 2, i, w, p, o]
    values += [1 / l2.read_bytes_per_cycle, 1 / l2.write_bytes_per_cycle, 1 / l2.shared_bytes_per_cycle]
    values += [1 / hw.dram_bytes_per_cycle, l2.capacity_bytes, 1.0, l1.capacity_bytes]
    values += [read(l1.capacity_bytes, l1.word_bits), tech.sram_write_ratio]
    values += [read(l2.capacity_bytes, l2.word_bits)] * 3
    values += [
        tech.wire_pj_per_bit_mm * hw.pe_pitch_mm(),
        tech.mac_energy_pj(hw.weight_bits, hw.input_bits, hw.psum_bits),
    ]
    values += [8 * hw.dram.pj_per_bit, (leakage_w(hw) + hw.dram.static_w) / hw.freq_hz * 1e12]
    return np.asarray([float(value) for value in values], np.float32)


def forms(hw, batch: int) -> dict:
    """Functions of one pair: by vmap in batches that stay in the caches, larger ones in blocks."""

    def value(layer, mapping):
        cost = dataflow.layer(layer, hw, mapping)
        return cost.cycles, cost.energy_pj, cost.violation

    def log_edp(mapping, layer):
        return _common.log_edp(dataflow.layer(layer, hw, mapping))

    found = {
        "value": value,
        "log EDP": lambda layer, mapping: log_edp(mapping, layer),
        "+ gradient": lambda layer, mapping: jax.value_and_grad(log_edp)(mapping, layer),
    }
    if batch <= LARGEST:
        return found
    return {f"{name}, in blocks": Blocks(function, 256) for name, function in found.items()}


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="*", default=[8192, 65536])
    parser.add_argument("--forms", nargs="*", help="default: all")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, at least 5 (default 7)")
    parser.add_argument("--vector-width", type=int, help="bits XLA prefers on CPU (default: its own choice)")
    options = parser.parse_args(arguments)
    prepare()
    width = {"xla_cpu_prefer_vector_width": options.vector_width} if options.vector_width else None
    results = []
    hw = base()
    native = Native("dataflow", len(NAMES))
    for batch in options.batches:
        pairs = jax.tree.map(jnp.asarray, random_batch(batch))
        programs = {
            form: Program(function, pairs, batch, options=width)
            for form, function in forms(hw, batch).items()
            if not options.forms or form in options.forms
        }
        if native.program:
            native.write(constants(hw), arrays(*pairs))
        results += measure(native, programs, options.rounds, max(8, 131072 // batch), BLOCKS, NAMES)
    show(f"dataflow on 256 PEs, medians of {options.rounds}", results)
    name = f"dataflow_kernel{options.vector_width or ''}"
    _common.write(name, {"seed": 0, "rounds": options.rounds, "rows": results})


if __name__ == "__main__":
    main()
