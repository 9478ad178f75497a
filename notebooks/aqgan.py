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
# # Ask for an accuracy, get bit widths
#
# A network of 20 layers, each quantized to 1 to 8 bits, has 8^20 configurations, 10^18. A search finds one for one
# target. AQGAN (Kao et al., arXiv 2006.03968) trains a *generator* instead: tell it an accuracy and a size, and it
# draws as many configurations as wanted.
#
# From the paper are the idea and the flow. The surrogate, the autoregressive generator and the budgets are ours
# (`docs/quantization.md`). Network and training are cut short here, to run in a minute: five layers that tell digits
# apart, 32,768 configurations. `diffhw recipe aqgan` does the same for 20 layers and more.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

from diffhw import recipes

begin = time.perf_counter()
problem = recipes.tiny_bit_problem(epochs=30)
layers = len(problem.names)
full = problem.tables["bytes"][:, -1].sum() / 1e3
print(
    f"{layers} layers, {problem.weights.sum():,.0f} weights, {full:.2f} kB at 8 bits, {problem.space_size:,} configurations"
)
print(
    f"float accuracy {problem.float_accuracy[0]:.1%} on {len(problem.selection)} images, training images among them;"
)
print(f"               {problem.float_accuracy[1]:.1%} on {len(problem.test)} test images")
print(f"trained in {time.perf_counter() - begin:.0f} s")

# %% [markdown]
# ## 1. The generator
#
# It learns from 1200 configurations that are really run, spread over accuracy by a surrogate fitted in between. The
# surrogate then labels the others at no cost, and the generator is fitted to those by likelihood.

# %%
begin = time.perf_counter()
training_set = recipes.sample_bits(problem, 1200, rounds=1, members=2, steps=300)
suite = recipes.aqgan(
    problem, training_set=training_set, members=2, surrogate_steps=600, steps=500, polish=150, pool=20_000
)
print(f"{suite.evaluations} evaluations, {time.perf_counter() - begin:.0f} s with the fit")

# %% [markdown]
# ## 2. Accuracy against size
#
# 24 configurations for each of five targets, straight from the generator and then really run. Grey: what it was
# trained on. The vertical spread of a colour is the raw error; the horizontal one is choice: at one accuracy, sizes
# differ by a factor of two to three.

# %%
targets = (0.4, 0.6, 0.8, 0.9, 0.96)
figure, ax = plt.subplots(figsize=(7.5, 4.2))
ax.scatter(
    problem.cost("bytes", suite.designs) / 1e3, suite.accuracy, s=5, color="#C9CED3", label="training set"
)
for target, colour in zip(targets, ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00")):
    drawn = suite.propose({"accuracy": target}, 24, correct=False)
    found = problem.evaluate(drawn)
    off, distinct = 100 * np.abs(found - target).mean(), len(np.unique(drawn, axis=0)) / len(drawn)
    print(f"target {target:.2f}: raw error {off:.1f} points, {distinct:.0%} distinct")
    ax.scatter(problem.cost("bytes", drawn) / 1e3, found, s=16, color=colour, label=f"asked for {target:.2f}")
    ax.axhline(target, color=colour, linewidth=0.8)
ax.set(xlabel="weights (kB)", ylabel="accuracy, really run")
ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
figure.tight_layout()

# %% [markdown]
# ## 3. Where the bits go
#
# Mean width of each layer over 256 proposals, from a low target to a high one. A pale cell is a layer that most
# proposals ruin on purpose: middling accuracies come more often from one layer at a single bit than from all of them
# at few. Near the top no layer may be pale.

# %%
asked = np.linspace(0.3, 0.96, 12)
mean = np.stack([suite.propose({"accuracy": t}, 256).mean(axis=0) + 1 for t in asked], axis=1)
figure, ax = plt.subplots(figsize=(7.5, 2.8))
image = ax.imshow(mean, aspect="auto", cmap="viridis_r", vmin=1, vmax=8)
ax.set_yticks(range(layers), problem.names)
ax.set_xticks(range(0, len(asked), 2), [f"{t:.2f}" for t in asked[::2]])
ax.set_xlabel("accuracy asked for")
figure.colorbar(image, label="mean bits")
figure.tight_layout()

# %% [markdown]
# ## 4. Accuracy and a budget
#
# A budget is kept by construction: what would break it is never drawn. Where no configuration reaches the target within
# the budget, the answer says so and gives the nearest. A new wish needs no training, only 64 evaluations to choose the
# best of 64 proposals, or none at all. In a live notebook put `ipywidgets.interact` around `show`.


# %%
def show(accuracy=0.9, budget_kb=1.5, evaluate=True):
    """One line for one wish: the best proposal."""
    answer = suite.ask(accuracy, budgets={"bytes": 1e3 * budget_kb}, evaluate=evaluate, keep=8)
    run = "" if answer.accuracy is None else f"{answer.accuracy[0]:8.3f}"
    bits = " ".join(map(str, answer.bits[0]))
    met = "" if answer.feasible else "out of reach"
    print(
        f"{accuracy:6.2f}{budget_kb:7.2f}{answer.predicted[0]:11.3f}{run:>8}{answer.costs['bytes'][0] / 1e3:8.2f}"
        f"{answer.evaluations:6d}{answer.seconds:7.2f}  {bits}  {met}"
    )


print(f"{'wish':>6}{'kB':>7}{'predicted':>11}{'run':>8}{'kB':>8}{'runs':>6}{'s':>7}  bits per layer")
for accuracy in (0.7, 0.9, 0.96):
    for share in (0.35, 0.5, 0.7):
        show(accuracy, share * full)

# %% [markdown]
# The proposals as they are, without running any:

# %%
show(0.9, 0.5 * full, evaluate=False)
begin = time.perf_counter()
suite.propose({"accuracy": 0.85, "bytes": 500 * full})
print(f"64 new proposals, corrected by the surrogate: {1e3 * (time.perf_counter() - begin):.0f} ms")

# %% [markdown]
# The accuracies are of the selection images, which the search may look at. What nothing has looked at:

# %%
answer = suite.ask(0.96, budgets={"bytes": 700 * full}, keep=8)
test = problem.test_accuracy(answer.bits - 1)
error = problem.test.standard_error(test.mean())
print(
    f"selection {answer.accuracy.mean():.3f}, test {test.mean():.3f} (standard error {error:.3f}), mean of the 8 kept"
)
