# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which dataflow for which layer, and what does bandwidth buy?
#
# A dataflow says which loop runs over PEs, what a PE keeps, and in which order the rest is walked. Here five
# well-known ones run VGG-16 on 256 PEs, over a range of bandwidths between the shared buffer (L2) and the PEs.
# All points of a layer are one call of one compiled function: order and tiles are data, not code.

# %%
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffhw as dh
from diffhw.mappings import STYLES, fit, parse, style
from diffhw.models import dataflow, roofline
from diffhw.recipes import best_styles

FIVE = ("kcp_ws", "xp_ws", "cp_nlr", "yrp_rs", "yxp_os")
for name in FIVE:
    print(f"{name:7s} {STYLES[name]}")

# %% [markdown]
# The hardware: 512 bytes beside each PE, 108 kB shared, 8-bit operands, 32-bit partial sums, LPDDR4.

# %%
local = dh.hardware.Level.create(name="l1", capacity_bytes=512, word_bits=8, instances=256)
shared = dh.hardware.Level.create(
    name="l2", capacity_bytes=108_000, read_bytes_per_cycle=64, write_bytes_per_cycle=64
)
hw = dh.hardware.Accelerator.create(rows=16, cols=16, levels=(local, shared), dram=dh.hardware.dram("LPDDR4"))
net = dh.workloads.load("vgg16").merged()
row = {name: layer for name, layer in zip(net.names, net.rows())}
early, late = "conv1_2", next(name for name in net.names if name.startswith("conv5"))


def with_port(hw, bytes_per_cycle):
    """The same hardware with so many bytes per cycle out of L2, and as many into it."""
    level = replace(hw.levels[1], read_bytes_per_cycle=bytes_per_cycle, write_bytes_per_cycle=bytes_per_cycle)
    return replace(hw, levels=(hw.levels[0], level))


# %% [markdown]
# ## 1. Runtime against bandwidth
#
# Early layers have many pixels and few channels, late ones the reverse. The dashed line is the roofline: no
# dataflow can be faster.

# %%
ports = jnp.logspace(0, 8, 49, base=2.0)


@jax.jit
def sweep(layer, flows):
    """Cycles of every dataflow at every port width: (dataflows, ports)."""
    cost = lambda flow, port: dataflow.layer(layer, with_port(hw, port), flow)
    return jax.vmap(lambda flow: jax.vmap(lambda port: cost(flow, port).cycles)(ports))(flows)


def flows_of(layer, names=FIVE):
    each = [fit(style(name, layer, 256), layer) for name in names]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
for axis, name in zip(axes, (early, late)):
    layer = row[name]
    cycles = np.asarray(sweep(layer, flows_of(layer)))
    for which, line in zip(FIVE, cycles):
        axis.loglog(ports, line, label=which, base=2)
    axis.set_yscale("log", base=10)
    axis.axhline(float(roofline.layer(layer, hw).cycles), color="black", ls="--", lw=1, label="roofline")
    axis.set_title(
        f"{name}: {int(layer.c)} channels, {int(layer.k)} filters, {int(layer.p)} x {int(layer.q)} outputs",
        fontsize=10,
    )
    axis.set_xlabel("bytes per cycle between L2 and the PEs")
axes[0].set_ylabel("cycles")
axes[0].legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# Where a curve is flat the PEs (or the DRAM) are the limit, where it falls the port is. Two things decide the
# height of the flat part: how many PEs have work, and how often the DRAM is asked again.

# %%
for name in (early, late):
    layer = row[name]
    costs = jax.vmap(lambda flow, layer=layer: dataflow.layer(layer, hw, flow))(flows_of(layer))
    busy = layer.macs / (np.asarray(costs.cycle_parts["compute"]) * 256)
    print(f"{name}: share of PE-cycles with work while computing; MB from and to the DRAM")
    for which, share, dram in zip(FIVE, busy, np.asarray(costs.dram_bytes)):
        print(f"  {which:7s} {share:6.1%}  {dram / 1e6:8.1f} MB")

# %% [markdown]
# ## 2. One dataflow for all layers, or one per layer
#
# `best_styles` costs every style on every layer at once and picks per layer what makes the network's EDP least.

# %%
chosen = best_styles(net, hw)
print(dict(zip(net.names, chosen.styles)))
shown = [one for one in chosen.singles if one.cost is not None and one.feasible == one.applicable == net.size]
shown.sort(key=lambda one: float(one.cost.edp))
labels = [one.name for one in shown] + ["per layer"]
costs = [one.cost for one in shown] + [chosen.cost]
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
for axis, values, unit in (
    (axes[0], [float(c.latency_s) * 1e3 for c in costs], "latency (ms)"),
    (axes[1], [float(c.energy_j) * 1e3 for c in costs], "energy (mJ)"),
):
    bars = axis.barh(labels, values, color=["C0"] * len(shown) + ["C3"])
    axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 2, max(values) * 4)
    axis.set_xlabel(unit)
figure.tight_layout()
gain = float(shown[0].cost.edp / chosen.cost.edp)
print(f"EDP of the best single style over that of one per layer: {gain:.3f}")

# %% [markdown]
# ## 3. What would one percent more buy?
#
# The gradient answers for every part at once: elasticities, d log runtime / d log x. Bandwidths and rates are
# differentiated exactly (almost everywhere); what fits into a buffer is a step, and its slope is the surrogate of
# `numerics.fits`: the share of the footprint that the buffer holds.

# %%
layer = row[late]
flow = fit(style("kcp_ws", layer, 256), layer)


def log_runtime(log_port, log_l2):
    design = with_port(hw, jnp.exp(log_port))
    level = replace(design.levels[1], capacity_bytes=jnp.exp(log_l2))
    return jnp.log(dataflow.layer(layer, replace(design, levels=(design.levels[0], level)), flow).cycles)


slopes = jax.jit(jax.vmap(jax.value_and_grad(log_runtime, argnums=(0, 1)), in_axes=(0, None)))
value, (of_port, _) = slopes(jnp.log(ports), jnp.log(108_000.0))
finite = np.gradient(np.asarray(value), np.log(np.asarray(ports)))

sizes = jnp.logspace(12, 22, 41, base=2.0)
slow = replace(hw, dram=replace(hw.dram, gb_per_s=jnp.float32(1.0)))


def log_runtime_of_size(log_l2):
    level = replace(slow.levels[1], capacity_bytes=jnp.exp(log_l2))
    return jnp.log(dataflow.layer(layer, replace(slow, levels=(slow.levels[0], level)), flow).cycles)


of_size_value, of_size = jax.jit(jax.vmap(jax.value_and_grad(log_runtime_of_size)))(jnp.log(sizes))

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
axes[0].semilogx(ports, of_port, base=2, label="gradient (exact)")
axes[0].semilogx(ports, finite, ".", base=2, label="finite difference")
axes[0].set_xlabel("bytes per cycle between L2 and the PEs")
axes[0].set_ylabel("d log runtime / d log x")
axes[0].set_title(f"{late}, kcp_ws: bandwidth", fontsize=10)
axes[0].legend(fontsize=8)
axes[1].semilogx(sizes / 1024, of_size, base=2, label="gradient (surrogate)")
axes[1].semilogx(sizes / 1024, np.asarray(of_size_value) - float(of_size_value[-1]), base=2, ls="--",
                 label="log runtime over its least")  # fmt: skip
axes[1].set_xlabel("L2 (KiB)")
axes[1].set_title("L2 size, with a DRAM of 1 GB/s", fontsize=10)
axes[1].legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# Left, the two agree wherever the runtime is smooth. Right, the runtime is a staircase whose true slope is zero;
# the surrogate is negative on every step that a larger buffer would leave, and zero once all fits.

# %% [markdown]
# ## 4. Beside a chip
#
# Eyeriss (Chen et al., JSSC 2017) ran AlexNet's five convolutions row stationary at batch 4: processing time
# 16.5, 39.2, 21.8, 16.0 and 10.0 ms, with transfers 20.9, 41.9, 23.6, 18.4 and 10.5 ms, on 154, 135, 156, 156 and
# 156 of 168 PEs, moving 5.0, 4.0, 3.0, 2.1 and 1.3 MB to and from the DRAM. These figures are
# **recalled, not re-read**: a check of order and ranking. `yrp_rs` puts output rows on clusters of R PEs; where
# that leaves PEs over, the chip repeats the block for other filters, which is a third level here.

# %%
eyeriss = dh.hardware.load("eyeriss")
chip = {  # recalled: processing ms, ms with transfers, PEs at work, DRAM MB
    "conv1": (16.5, 20.9, 154, 5.0),
    "conv2": (39.2, 41.9, 135, 4.0),
    "conv3": (21.8, 23.6, 156, 3.0),
    "conv4": (16.0, 18.4, 156, 2.1),
    "conv5": (10.0, 10.5, 156, 1.3),
}
make = lambda size, k, c, r, **more: dh.Layer.create(n=4, h=size, w=size, k=k, c=c, r=r, s=r, **more)
alexnet = {
    "conv1": make(227, 96, 3, 11, stride_h=4, stride_w=4),
    "conv2": make(27, 128, 48, 5, g=2, pad_top=2, pad_left=2),
    "conv3": make(13, 384, 256, 3, pad_top=1, pad_left=1),
    "conv4": make(13, 192, 192, 3, g=2, pad_top=1, pad_left=1),
    "conv5": make(13, 128, 192, 3, g=2, pad_top=1, pad_left=1),
}


def row_stationary(layer, pes=168):
    """Blocks of output rows x filter rows; as many blocks as fit, each with 16 filters of its own."""
    rows, taps = int(layer.p), int(layer.r)
    rows = min(rows, pes // taps)
    channels = max(1, min(int(layer.c), 112 // (16 * taps)))
    window = "TemporalMap(Sz(R),Sz(R)) R; TemporalMap(Sz(S),Sz(S)) S"
    return parse(
        f"SpatialMap(16,16) K; TemporalMap(1,1) N; TemporalMap({channels},{channels}) C; "
        f"TemporalMap({rows},{rows}) Y'; TemporalMap(1,1) X'; {window}; Cluster({rows}, P); "
        f"SpatialMap(1,1) Y'; TemporalMap(1,1) X'; {window}; Cluster({taps}, P); "
        "SpatialMap(1,1) Y; SpatialMap(1,1) R; TemporalMap(Sz(S),Sz(S)) S",
        name="row stationary",
    )


kernel = jax.jit(dataflow.layer)
table = []
for name, layer in alexnet.items():
    plain = kernel(layer, eyeriss, fit(style("yrp_rs", layer, 168), layer))
    blocks = kernel(layer, eyeriss, fit(row_stationary(layer), layer))
    ms = lambda cost: float(cost.cycle_parts["compute"] / eyeriss.freq_hz * 1e3)
    busy = float(layer.macs / blocks.cycle_parts["compute"])
    processing, total, pes, dram = chip[name]
    latency = float(blocks.latency_s) * 1e3
    table.append((processing, ms(plain), ms(blocks), total, latency))
    print(
        f"{name}: chip {processing:4.1f} ms on {pes} PEs, {total:4.1f} ms and {dram:3.1f} MB in all | "
        f"yrp_rs {ms(plain):4.1f} ms | in blocks {ms(blocks):4.1f} ms on {busy:5.1f} PEs, "
        f"{latency:4.1f} ms and {float(blocks.dram_bytes) / 1e6:4.1f} MB in all"
    )

# %%
figure, axis = plt.subplots(figsize=(8, 3.6))
heads = ("chip, processing (recalled)", "yrp_rs", "in blocks", "chip, with transfers (recalled)", "in blocks")
colours = ("0.2", "C1", "C0", "0.6", "C9")
for i, (head, column) in enumerate(zip(heads, zip(*table))):
    extra = ", with transfers" if i == 4 else ""
    axis.bar(np.arange(5) + 0.16 * (i - 2), column, 0.16, label=head + extra, color=colours[i])
axis.set_xticks(range(5), list(alexnet))
axis.set_ylabel("ms, batch 4")
axis.legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# In blocks the model keeps as many PEs at work as the chip and needs 4 to 16 % less processing time: it has no
# pipeline to fill between passes and no control. With transfers it is close for four layers, while it moves more
# over the DRAM link: the chip compresses zeros, the model stores the padding. conv1 is twice as slow here: its
# large outputs go over a link of 0.48 GB/s, an uncertain figure of the catalogue, uncompressed.
