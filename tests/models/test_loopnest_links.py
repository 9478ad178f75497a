"""Neighbour links: worked examples, random nests beside integers, transforms and gradients."""

import functools
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loopnest_links_oracle import input_counts

from diffhw.hardware import Hierarchy, Memory
from diffhw.mappings import LOOPS, LoopLevel, LoopNest, loop_order
from diffhw.models import Links, loopnest, loopnest_counts
from diffhw.workloads import Layer

DIMS = "nkcpqrs"


def _chip(keeps, mesh=(4, 4)):
    levels = [Memory.create(name="L0", keeps=keeps[0])]
    levels += [
        Memory.create(
            name=f"L{k}", keeps=kept, fanout_x=mesh[0], fanout_y=mesh[1], spatial_x=DIMS, spatial_y=DIMS
        )
        for k, kept in enumerate(keeps[1:], 1)
    ]
    return Hierarchy.create(levels=levels, mac_pj=1.0)


EXAMPLE = dict(r=3, p=8, c=2, k=2, q=1)


def _example(second: bool):
    """Along p and r; the two-level nests of the note on which the rule was worked out."""
    inner = {} if second else {"p": 2}
    outer = {"r": 3, "p": 4 if second else 2, "k": 2, "c": 2}
    chip = Hierarchy.create(
        levels=[Memory.create(name="L0"), Memory.create(name="L1", fanout_x=2, spatial_x="p")], mac_pj=1.0
    )
    layer = Layer.create(**EXAMPLE)
    return (
        layer,
        chip,
        LoopNest.create([{"temporal": inner}, {"temporal": outer, "x": {"p": 2}}], chip, layer),
    )


@pytest.mark.parametrize(("second", "expected"), [(False, (48, 32, 64)), (True, (70, 48, 52))])
def test_the_worked_examples(second, expected):
    """Example 1 has a halo and no link; in example 2 each child takes 22 words from the other.

    Timeloop's own answers, recorded with the rule: reads and fills inside, reads outside.
    """
    inner, outer = (level["i"] for level in loopnest_counts(*_example(second), links=(2, 1)).tensors)
    assert (float(inner.reads), float(inner.fills), float(outer.reads)) == expected


def test_links_are_off_by_default_and_move_reads_inwards():
    without = [level["i"].reads for level in loopnest_counts(*_example(True)).tensors]
    assert [float(reads) for reads in without] == [48, 96]
    cost = loopnest.layer(*_example(True), links=(2, 1))
    assert float(cost.traffic_bytes["dram_input_read"]) == 52


def test_too_small_an_array_means_no_links():
    inner, outer = (level["i"] for level in loopnest_counts(*_example(True), links=(1, 1)).tensors)
    assert (float(inner.reads), float(outer.reads)) == (48, 96)


def _random_nest(rng: random.Random, depth: int):
    steps = {name: rng.choice((1, 1, 2)) for name in ("stride_h", "stride_w", "dilation_h", "dilation_w")}
    levels = []
    for k in range(depth):
        loops = rng.sample(DIMS, rng.randint(0, 4))
        level: dict = {"temporal": [(d, rng.choice((2, 3))) for d in loops], "x": {}, "y": {}}
        for axis in "xy" if k else "":
            room = 4
            for d in rng.sample("pqrsckn", rng.randint(0, 2)):
                f = rng.choice((2, 3, 4))
                if f <= room:
                    level[axis][d] = f
                    room //= f
        levels.append(level)
    return steps, levels


def _arrays(cases, depth, dtype):
    column = lambda values: jnp.asarray(np.asarray(values, dtype))
    extent = lambda levels, d: math.prod(
        dict(level["temporal"]).get(d, 1) * level["x"].get(d, 1) * level["y"].get(d, 1) for level in levels
    )
    sizes = [Layer.create(**steps, **{d: extent(levels, d) for d in DIMS}) for steps, levels in cases]
    layers = jax.tree.map(lambda *leaves: column([float(leaf) for leaf in leaves]), *sizes)
    nest = []
    for k in range(depth):
        found = [levels[k] for _, levels in cases]
        orders = [loop_order([d for d, _ in level["temporal"]]) for level in found]
        spatial = {
            axis: {d: column([level[axis].get(d, 1) for level in found]) for d in (DIMS if k else "")}
            for axis in "xy"
        }
        nest.append(
            LoopLevel(
                temporal={d: column([dict(level["temporal"]).get(d, 1) for level in found]) for d in LOOPS},
                order={d: column([order[d] for order in orders]) for d in LOOPS},
                spatial_x=spatial["x"],
                spatial_y=spatial["y"],
            )
        )
    return layers, LoopNest(levels=tuple(nest))


@functools.partial(jax.jit, static_argnames="links")
def _inputs(layers, chip, nests, links):
    def one(layer, nest):
        counts = loopnest_counts(layer, chip, nest, links)
        return [(level["i"].reads, level["i"].fills) if "i" in level else None for level in counts.tensors]

    return jax.vmap(one)(layers, nests)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keeps", "mesh"), [(("wio", "wio", "wio"), 4), (("wo", "wio", "wio"), 6), (("wio", "wo", "wio"), 4)]
)
def test_random_nests_equal_the_integers(keeps, mesh):
    """A bypassed level, all seven loops on either axis, a mesh wider than the mapping."""
    rng, depth = random.Random(f"{keeps} {mesh}"), len(keeps)
    cases, answers, linked = [], [], 0
    while len(cases) < 512:
        steps, levels = _random_nest(rng, depth)
        answer, links = input_counts(
            steps, levels, ["i" in kept for kept in keeps], [1] + [mesh] * (depth - 1)
        )
        if links or len(cases) < 384:  # links are rare: a quarter of the nests has them
            cases.append((steps, levels))
            answers.append(answer)
            linked += links > 0
    with jax.enable_x64(True):
        chip = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), _chip(keeps, (mesh, 4)))
        layers, nests = _arrays(cases, depth, np.float64)
        found = jax.tree.map(np.asarray, _inputs(layers, chip, nests, Links(4, 4)))
    for case, answer in enumerate(answers):
        for k, words in enumerate(answer):
            if words is not None:
                assert tuple(float(part[case]) for part in found[k]) == words, (cases[case], k)
    assert linked >= 128


def test_jit_vmap_and_gradients():
    """Loop, jit and vmap agree; the words are differentiable in the factors, nothing is undefined."""
    layer, chip, nest = _example(True)

    def reads(nest):
        return loopnest_counts(layer, chip, nest, links=(2, 1)).tensors[1]["i"].reads

    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), nest)
    value, slopes = jax.jit(jax.vmap(jax.value_and_grad(reads)))(batch)
    assert value.tolist() == [52, 52] and float(reads(nest)) == 52
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(slopes))
    assert bool(jnp.all(slopes.levels[1].temporal["c"] > 0))
