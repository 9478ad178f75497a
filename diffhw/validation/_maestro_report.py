"""MAESTRO's report of one layer: sums over its steps, buffers, energy, area and power."""

from dataclasses import dataclass
from typing import Any

from diffhw.validation._maestro_levels import WINDOWS, MaestroHardware, MaestroLayer

__all__ = ["MaestroAnswer", "Steps", "report"]

# Per access, in energies of one MAC; the last one in nJ. No buffer size, NoC or DRAM in them.
L1_ACCESS, L2_ACCESS, MAC_NJ = 1.68, 18.61, 0.00023


@dataclass(frozen=True)
class MaestroAnswer:
    """The tool's report of one layer, named as in tables of its runs. None: it divides zero by zero.

    macs_true: multiply-accumulates of the shape (ours);  num_macs: the tool's;  macs_ratio: of the two.
    runtime_cycles;  throughput_mac_per_cycle;  avg_active_pes: PEs at work, mean over the steps;
    utilisation: their share;  arithmetic_intensity: MACs per element that enters, of the last case.
    noc_bw_req_peak, noc_bw_req_avg, offchip_bw_req: elements per cycle, the first and last truncated.
    l2_size_req, l1_size_req and _req_ per tensor: elements, doubled for double buffering (L1: a PE).
    T_l1_read, T_l1_write, T_l2_read, T_l2_write: accesses, one element each, of T = input, filter, output.
    input_tensor_size, filter_tensor_size: elements.
    ingress_, egress_, compute_ min, max, avg: cycles of a step at the outermost level, avg truncated.
    energy_mac, energy_l1, energy_l2, energy_total_mac_units: in energies of one MAC.
    energy_csv_nj: nJ, of the tool's csv file: L2 only where there are clusters, never the MACs.
    area_um2: um2.  power_mw and pe_, l1_, l2_, noc_power: mW.
    """

    macs_true: int
    macs_ratio: Any
    runtime_cycles: Any
    num_macs: Any
    throughput_mac_per_cycle: Any
    avg_active_pes: Any
    utilisation: Any
    arithmetic_intensity: Any
    noc_bw_req_peak: Any
    noc_bw_req_avg: Any
    offchip_bw_req: Any
    l2_size_req: Any
    l1_size_req: Any
    l2_req_input: Any
    l2_req_filter: Any
    l2_req_output: Any
    l1_req_input: Any
    l1_req_filter: Any
    l1_req_output: Any
    input_l1_read: Any
    input_l1_write: Any
    input_l2_read: Any
    input_l2_write: Any
    filter_l1_read: Any
    filter_l1_write: Any
    filter_l2_read: Any
    filter_l2_write: Any
    output_l1_read: Any
    output_l1_write: Any
    output_l2_read: Any
    output_l2_write: Any
    input_tensor_size: Any
    filter_tensor_size: Any
    ingress_min: Any
    ingress_max: Any
    ingress_avg: Any
    egress_min: Any
    egress_max: Any
    egress_avg: Any
    compute_min: Any
    compute_max: Any
    compute_avg: Any
    energy_total_mac_units: Any
    energy_mac: Any
    energy_l1: Any
    energy_l2: Any
    energy_csv_nj: Any
    area_um2: Any
    power_mw: Any
    pe_power: Any
    l1_power: Any
    l2_power: Any
    noc_power: Any
    peak_macs_per_cycle: int

    @property
    def conserves_macs(self) -> bool:
        """Whether the tool counts as many MACs as the layer has (in float32: to its precision)."""
        slack = 0 if isinstance(self.num_macs, int) else 1e-5 * self.macs_true
        return abs(self.num_macs - self.macs_true) <= slack

    @property
    def flags(self) -> tuple[str, ...]:
        """What is impossible in this answer, a sentence each."""
        if self.runtime_cycles <= 0:
            return ("no step computes anything, so the runtime is 0 and averages divide by zero",)
        found = []
        if self.runtime_cycles * self.peak_macs_per_cycle < self.macs_true:
            found.append("the runtime is below the MACs of the layer / (PEs x lanes)")
        if not self.conserves_macs:
            found.append("the tool counts other MACs than the layer has")
        return tuple(found)


class Steps:
    """Sums over the cases of the outermost level; ``first``: what moves in its first step."""

    def __init__(self, hw: MaestroHardware, one: Any, first: tuple[Any, Any, Any]):
        self.hw, self.one = hw, one
        self.buffers = [2 * elements for elements in first]
        self.fill = self.buffers[0] + self.buffers[1]
        # Every step is charged a refill of the whole working set.
        self.refill = max(self.fill // hw.offchip_bw // 2, self.buffers[2] // hw.offchip_bw // 2)
        zero = 0 * one
        self.runtime = self.macs = self.output_macs = zero
        self.moved = [zero, zero, zero]
        self.peak = self.demand = self.offchip = zero
        self.active, self.count = 0.0 * one, 0
        self.lowest: list[Any] = [None] * 3
        self.highest, self.total = [zero] * 3, [zero] * 3
        self.last = (zero, zero)  # MACs and ingress of the last case

    def outputs(self, occurs: int, egress: Any, macs: Any) -> None:
        """Outputs are counted also in the cases that compute nothing."""
        self.moved[2] = self.moved[2] + occurs * egress
        self.output_macs = self.output_macs + occurs * macs

    def add(self, occurs: int, moved: tuple, delays: tuple, macs: Any, active: Any, first: bool) -> None:
        """A case. moved: elements of input, filter, output; delays: ingress, egress, compute."""
        inputs, weights, egress = moved
        cycles = delays[2]
        step = cycles + delays[0] if first else max(delays)
        self.runtime = self.runtime + occurs * max(step, self.refill)
        self.macs = self.macs + occurs * macs
        self.moved[0] = self.moved[0] + occurs * inputs
        self.moved[1] = self.moved[1] + occurs * weights
        busiest = max(inputs + weights, egress)
        self.peak = max(self.peak, busiest // cycles)
        self.demand = self.demand + occurs * busiest // cycles
        # Halved at every case, so only the last ones count.
        self.offchip = max(self.offchip, self.buffers[2] // cycles, self.fill // cycles) // 2
        self.active = self.active + occurs * active
        self.count += occurs
        for i, delay in enumerate(delays):
            low = self.lowest[i]
            self.lowest[i] = delay if low is None else min(low, delay)
            self.highest[i] = max(self.highest[i], delay) if low is not None else delay
            self.total[i] = self.total[i] + occurs * delay
        self.last = (macs, inputs + weights)


def report(
    layer: MaestroLayer, hw: MaestroHardware, steps: Steps, tiles: list[Any], clustered: bool
) -> MaestroAnswer:
    """The answer. tiles: elements of each tensor in a PE; clustered: whether there is a Cluster."""
    ratio = lambda a, b: a / b if b else None
    mean = lambda total: int(total / steps.count) if steps.count else None
    out: dict[str, Any] = {"macs_true": layer.macs, "num_macs": steps.macs, "runtime_cycles": steps.runtime}
    out["peak_macs_per_cycle"] = hw.num_pes * hw.simd_lanes
    out["macs_ratio"] = steps.macs / layer.macs
    out["throughput_mac_per_cycle"] = ratio(steps.macs, steps.runtime)
    out["avg_active_pes"] = steps.active / max(steps.count, 1)
    out["utilisation"] = out["avg_active_pes"] / hw.num_pes
    out["arithmetic_intensity"] = ratio(*steps.last) if steps.count else 0.0
    out["noc_bw_req_peak"], out["offchip_bw_req"] = steps.peak, steps.offchip
    out["noc_bw_req_avg"] = ratio(steps.demand, steps.count)
    for i, name in enumerate(("ingress", "egress", "compute")):
        out[f"{name}_min"], out[f"{name}_max"] = steps.lowest[i], steps.highest[i]
        out[f"{name}_avg"] = mean(steps.total[i])

    whole = [steps.one] * 3
    for i, dims in enumerate(layer.tensors):
        for dim in dims:  # outputs: the stride is forgotten
            sliding = i == 2 and dim in WINDOWS
            whole[i] = whole[i] * (layer.sizes[dim] - sliding * (layer.sizes[WINDOWS.get(dim, dim)] - 1))
    out["input_tensor_size"], out["filter_tensor_size"] = whole[:2]
    l1 = l2 = 0
    for i, name in enumerate(("input", "filter", "output")):
        out[f"l1_req_{name}"], out[f"l2_req_{name}"] = 2 * tiles[i], steps.buffers[i]
        one_read = steps.output_macs if i == 2 else steps.macs
        out[f"{name}_l1_read"] = one_read
        out[f"{name}_l1_write"] = one_read if i == 2 else steps.moved[i]
        out[f"{name}_l2_read"] = whole[i] if i == 2 else steps.moved[i]
        out[f"{name}_l2_write"] = steps.moved[i] if i == 2 else whole[i]
        l1 = l1 + out[f"{name}_l1_read"] + out[f"{name}_l1_write"]
        l2 = l2 + out[f"{name}_l2_read"] + out[f"{name}_l2_write"]
    l1_size, l2_size = 2 * sum(tiles), sum(steps.buffers)
    out["l1_size_req"], out["l2_size_req"] = l1_size, l2_size

    out["energy_mac"], out["energy_l1"], out["energy_l2"] = steps.macs, L1_ACCESS * l1, L2_ACCESS * l2
    out["energy_total_mac_units"] = steps.macs + out["energy_l1"] + out["energy_l2"]
    csv_accesses = L2_ACCESS * (l2 - whole[2]) + (0 if clustered else L1_ACCESS * l1)
    out["energy_csv_nj"] = MAC_NJ * csv_accesses
    out |= _area_and_power(hw, hw.num_pes * steps.one, max(1, l1_size), max(1, l2_size))
    return MaestroAnswer(**out)


def _area_and_power(hw: MaestroHardware, pes: Any, l1: Any, l2: Any) -> dict[str, Any]:
    """The bus dominates beside a fast NoC, the arbiter (quadratic in PEs) on large arrays."""
    bus = 14.662 * pes + 28.895
    arbiter = 1.2886 * pes * pes + 5.5814 * pes - 23.711
    power = {
        "pe_power": pes * 1.2223 * hw.simd_lanes,
        "l1_power": pes * 0.00345 * l1,
        "l2_power": 0.00345 * l2,
        "noc_power": 0.8 * bus / 1000 * hw.noc_bw + max(0.34, 0.34 * arbiter / 1000),
    }
    cores = pes * (283 * hw.simd_lanes + 0.104 * l1) + 0.104 * l2
    area = cores + 101.7938 * bus * hw.noc_bw + 395.473 * arbiter
    return {**power, "power_mw": sum(power.values()), "area_um2": area}
