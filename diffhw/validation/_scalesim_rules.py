"""What SCALE-Sim v2 reports beside what our model says: its deviations in closed form.

Everything here is `diffhw.models.array_counts` plus the tool's slips, in plain JAX, any dtype:

    off by one        Total Cycles is the index of the last cycle, one less than their number
    os output writes  M N + folds (rows + columns); the second term is a slip, the truth is M N
    ws/is utilisation divides by T + 2R + 2C - 3 cycles a fold; a fold takes T + 2R + C - 2
"""

from jax import Array

from diffhw.models import array_counts

__all__ = ["stall_free_report", "timed_report"]


def stall_free_report(m, n, k, rows, cols, dataflow: str) -> dict[str, Array]:
    """The tool's figures that do not depend on the memory. Shapes as the inputs', which are floats.

    m, n, k: the GEMM of one layer. rows, cols: PEs. Differentiable as `array_counts` is.
    """
    counts = array_counts(m, n, k, rows, cols, dataflow)
    held = counts.spatial_rows * counts.spatial_cols
    room = counts.folds * rows * cols
    slip = 0.0 if dataflow == "os" else cols - 1
    writes = counts.output_writes
    return {
        "compute_cycles_stallfree": counts.cycles - 1,
        "mapping_eff_pct": 100 * held / room,
        "compute_util_pct": 100 * held * counts.stream / (room * (counts.fold_cycles + slip)),
        "sram_ifmap_reads": counts.input_reads,
        "sram_filter_reads": counts.weight_reads,
        "sram_ofmap_writes": writes + counts.folds * (rows + cols) if dataflow == "os" else writes,
    }


def timed_report(figures: dict[str, Array], macs, pes, stall, late, dram: dict) -> dict[str, Array]:
    """``figures`` with stalls, overall utilisation and average bandwidths (words a cycle) added.

    macs, pes, stall, late: per row; ``late`` is the part of the stall that the total leaves out.
    dram: operand name to (words, cycles of that operand's own DRAM window).
    """
    total = figures["compute_cycles_stallfree"] + (stall - late)
    out = dict(figures, total_cycles=total, stall_cycles=stall)
    out["compute_cycles_stallfree"] = total - stall
    out["overall_util_pct"] = 100 * macs / (total * pes)
    for operand, verb in (("ifmap", "reads"), ("filter", "reads"), ("ofmap", "writes")):
        words, cycles = dram[operand]
        out[f"dram_{operand}_{verb}"] = words
        out[f"avg_sram_bw_{operand}"] = figures[f"sram_{operand}_{verb}"] / total
        out[f"avg_dram_bw_{operand}"] = words / cycles
    return out
