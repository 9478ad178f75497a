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
# # What would you change about this chip?
#
# A cost model that is a pure JAX function answers more than "how long does it take". This notebook asks
# one question in four ways: by evaluating, by differentiating, by evaluating everything, and by searching.
# Every number is computed here, on real layer shapes (ResNet-50 v1.5) and cited technology data.

# %%
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffhw as dh

# %% [markdown]
# ## 1. A network, a chip, a cost

# %%
net = dh.workloads.load("resnet50").merged()
net

# %%
hw = dh.hardware.load("edge")
hw

# %%
cost = dh.models.systolic(net, hw, "os")
cost

# %% [markdown]
# Where does the energy go?

# %%
parts = {name: float(value) * 1e-9 for name, value in cost.energy_parts.items()}
fig, ax = plt.subplots(figsize=(7, 2.6))
ax.barh(list(parts), list(parts.values()), color="#0072B2")
ax.set_xlabel("energy of one inference (mJ)")
ax.spines[["top", "right"]].set_visible(False)
fig.tight_layout()

# %% [markdown]
# ## 2. The gradient says what to change
#
# One backward pass gives the slope of the energy-delay product in *every* number of the design. Counts such
# as the fold count are steps: forward they are exact, backward they have the slope of `max(x / rows, 1)`
# (`dh.numerics.ceil_div` says so). An elasticity of -0.5 reads: one per cent more of it, half a per cent less EDP.

# %%
log_edp = lambda design: jnp.log(dh.models.systolic(net, design, "os").edp)
slope = jax.grad(log_edp)(hw)
elasticity = {
    "rows": slope.rows * hw.rows,
    "columns": slope.cols * hw.cols,
    "DRAM bandwidth": slope.dram.gb_per_s * hw.dram.gb_per_s,
    "DRAM energy per bit": slope.dram.pj_per_bit * hw.dram.pj_per_bit,
    "clock": slope.freq_hz * hw.freq_hz,
    "MAC energy": slope.technology.multiplier_pj * hw.technology.multiplier_pj,
} | {f"{lv.name} buffer": g.capacity_bytes * lv.capacity_bytes for lv, g in zip(hw.levels, slope.levels)}
elasticity = dict(sorted(elasticity.items(), key=lambda item: abs(item[1])))
fig, ax = plt.subplots(figsize=(7, 3.2))
values = [float(v) for v in elasticity.values()]
ax.barh(list(elasticity), values, color=["#D55E00" if v > 0 else "#009E73" for v in values])
ax.axvline(0, color="black", lw=0.8)
ax.set_xlabel("change of EDP per +1 % of the number (%)")
ax.spines[["top", "right"]].set_visible(False)
fig.tight_layout()

# %% [markdown]
# ## 3. Sixty-four thousand arrays in one call
#
# The same function under `vmap`: every array from 4 x 4 to 256 x 256.

# %%
edp = lambda rows, cols: (
    dh.models.systolic(net, replace(hw, rows=rows, cols=cols), "os", layer_loop="scan").edp
)
sides = jnp.arange(4.0, 257.0)
plane = np.asarray(jax.jit(jax.vmap(jax.vmap(edp, (None, 0)), (0, None)))(sides, sides)) * 1e6
area = np.asarray(
    jax.vmap(lambda r: jax.vmap(lambda c: dh.hardware.area_mm2(replace(hw, rows=r, cols=c)))(sides))(sides)
)
print(f"{plane.size:,} arrays, EDP from {plane.min():.1f} to {plane.max():.0f} uJ s")

# %%
fig, ax = plt.subplots(figsize=(6.2, 5))
mesh = ax.pcolormesh(sides, sides, np.log10(plane), shading="nearest", cmap="viridis_r")
lines = ax.contour(sides, sides, area, levels=[2, 3, 4, 6, 8], colors="white", linewidths=1)
ax.clabel(lines, fmt="%g mm2")
ax.set_xlabel("columns")
ax.set_ylabel("rows")
fig.colorbar(mesh, label="log10 EDP (uJ s)")
ax.set_title("EDP of ResNet-50, output stationary; area in white")
fig.tight_layout()

# %% [markdown]
# The ridges are where rows or columns just miss a divisor of a layer: a search must cope with them.
#
# ## 4. Co-design: everything at once, under a budget, with a proof
#
# The main job chooses rows, columns, three buffers, the DRAM type and the dataflow from about 10^7 legal
# designs. Adam follows the gradient through snapped designs from 64 starts, block refinement finishes, and then
# the whole grid is enumerated to say how far off the answer is. (The command line does the same:
# `diffhw codesign resnet50 --area-mm2 12`.)

# %%
result = dh.recipes.codesign("resnet50", area_mm2=12, explain=False)
result.search

# %%
print(f"gap to the optimum of {result.certificate.designs:,} designs: {result.certificate.gap:.2%}")
print(f"evaluations spent: {result.search.evaluations:,.0f}")

# %%
dh.report.pareto(result)

# %% [markdown]
# What to take along: the cost is exact at legal designs, the gradient is a guide and not the answer, and the answer
# says how good it is. Next: `dh.workloads.from_jax(your_function, ...)` puts your own network in place of ResNet-50.
