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
# # 10^19 mappings, one second
#
# A mapping says how the loops of a layer are cut into tiles for each memory, which loops run side by side, and
# in which order the rest is walked. One layer of ResNet-50 at batch 16 has more than 10^19 of them on a
# hierarchy of six levels. Here the best one is found, and it is *proven* that none is better.

# %%
import time
from dataclasses import replace

import diffhw as dh
from diffhw.hardware import hierarchy
from diffhw.mappings import loopnest_text
from diffhw.recipes import best_mapping, best_mappings, mapping_space_size, ski_slope
from diffhw.report import hardware_line, mapping_total

CHIPS = {name: hierarchy(name) for name in ("gemmini", "eyeriss_like", "simba_like")}
for name, chip in CHIPS.items():
    print(f"{name}: {hardware_line(chip)}")

# %% [markdown]
# ## 1. How many there are
#
# Tile factors that divide, spatial factors that the fan-outs allow, orders of the loops that run; counted
# exactly up to 2^53 and rounded beyond. First all of them, then those whose tiles fit the memories.

# %%
net = dh.workloads.load("resnet50", batch=16)
layers = dict(zip(net.names, net.rows()))
every = mapping_space_size(layers["layer1.0.conv2"], CHIPS["simba_like"], valid_only=False)
print(f"layer1.0.conv2 on simba_like: {every:.1e} mappings")
shown = ("layer1.0.conv2", "fc")
for name in shown:
    for chip_name, chip in CHIPS.items():
        print(f"{name:16s}{chip_name:14s}{mapping_space_size(layers[name], chip):8.1e} fit")

# %% [markdown]
# ## 2. The best of them
#
# A tile that a level holds says everything about what is inside it and what is outside it. So a mapping is a
# path from the whole layer down to one multiply-accumulate, through a few thousand tiles per level, and the
# best mapping is a shortest path. What is decided is priced exactly, what is not is bounded from below, and
# whatever cannot beat the mapping in hand is dropped. What remains at the end is proven.

# %%
print(
    f"{'layer':16s}{'hierarchy':14s}{'EDP (uJ s)':>11s}{'utilization':>12s}{'seconds':>9s}{'priced':>8s}  certificate"
)
best = {}
for name in shown:
    for chip_name, chip in CHIPS.items():
        begin = time.perf_counter()
        found = best[name, chip_name] = best_mapping(layers[name], chip, "edp")
        seconds = time.perf_counter() - begin
        edp = found.score * 1e-12 / float(chip.freq_hz) * 1e6
        busy = float(found.cost.utilization)
        print(
            f"{name:16s}{chip_name:14s}{edp:11.3g}{busy:12.0%}{seconds:9.2f}{found.evaluated:8d}  {found.certificate}"
        )

# %% [markdown]
# "priced" is the number of partial mappings whose cost was worked out. The largest space again, as loops:

# %%
one = best["layer1.0.conv2", "simba_like"]
print(loopnest_text(one.nest, one.hierarchy, one.layer))

# %% [markdown]
# ## 3. What the certificate means
#
# `score` is the cost of the mapping by `models.loopnest`, in float64. `bound` is below the cost of every
# mapping of the space. Where they meet, the mapping is an optimum of *this model and this space*: perfect
# factors, the tensors kept as the hierarchy says, no overlap of layers. With less room to search the answer is
# still a mapping with a proof, of a gap then. Here ShiDianNao's levels from the catalogue, output rows and
# columns over the rows of the array, filters over its columns:

# %%
chip = hierarchy(dh.hardware.load("shidiannao"))
chip = replace(chip, levels=tuple(replace(level, spatial_x="k", spatial_y="npq") for level in chip.levels))
merged = dh.workloads.load("resnet50").merged()
row = merged.rows()[merged.names.index("layer1.0.conv2 (+2 alike)")]
answers = {limit: best_mapping(row, chip, "edp", limit=limit) for limit in (1, 100, 1_000, 10_000)}
truth = answers[10_000].score
for limit, found in answers.items():
    above = found.score / truth - 1
    print(
        f"limit {limit:6d}: {found.certificate}; priced {found.evaluated:6d}; {above:.2%} above the last one"
    )

# %% [markdown]
# The mapping does not get better: the work beyond the first answer goes into the proof.
#
# For a whole network the EDP is a product of two sums, so each layer offers several mappings and the best
# combination is taken. The bound goes through sums and may stay below:

# %%
result = best_mappings(merged, CHIPS["gemmini"], "edp")
print(f"{result.seconds:.1f} s")
priced = dh.report.mapped(result)  # costs of all layers, once for what follows
print("\n".join(mapping_total(priced)))

# %% [markdown]
# ## 4. Where the energy and the time go

# %%
dh.report.energy_stack(priced)

# %%
dh.report.latency_stack(priced)

# %% [markdown]
# ## 5. What a buffer buys
#
# Let nothing cost but the words that cross the DRAM port, and the same search gives the least traffic that any
# mapping can have. Over the size of one buffer that is a ski slope. Left of it the layer asks the DRAM for the
# same words again, on the flat part every word crosses once and a larger buffer buys nothing.

# %%
rows = {name.split(" (+")[0]: row for name, row in zip(merged.names, merged.rows())}
three = ("layer1.0.conv2", "layer2.1.conv2", "layer3.1.conv2")
curves = [ski_slope(rows[name], CHIPS["gemmini"]) for name in three]
for name, curve in zip(three, curves):
    points = f"{curve.proven.sum()} of {len(curve.proven)} points proven"
    print(f"{name}: {curve.compulsory_bytes / 1e3:.0f} kB compulsory, {points}, {curve.seconds:.1f} s")
dh.report.ski_slope_picture(curves, labels=three, title="gemmini")

# %% [markdown]
# ## 6. What one percent more would be worth
#
# The model is differentiable in every number of the hierarchy. At the mappings found, as they are:

# %%
dh.report.gradient_tornado(priced)

# %% [markdown]
# Bars are of the network, colours of each layer alone (red: more costs more EDP). A capacity has no slope here,
# since the mapping stays: section 5 is its curve.
