"""Layers, hierarchies and mappings that the tests of the loop-nest model share."""

import math
import random

import jax
import jax.numpy as jnp
import numpy as np
from loopnest_oracle import LOOPS

from diffhw.hardware import Hierarchy, Memory
from diffhw.mappings import LoopLevel, LoopNest
from diffhw.workloads import Layer

STEPS = dict(stride_h=1, stride_w=1, dilation_h=1, dilation_w=1)


def chip(keeps, fanout=4):
    """Levels that keep what they are told, with fan-outs along both axes everywhere."""
    levels = [
        Memory.create(name=f"L{k}", keeps=kept, fanout_x=fanout, fanout_y=fanout)
        for k, kept in enumerate(keeps)
    ]
    return Hierarchy.create(levels=levels, mac_pj=1.0)


def numbers(counts):
    """Counts as plain containers, as the oracle has them."""
    return [{t: dict(vars(words)) for t, words in tensors.items()} for tensors in counts.tensors]


def stacked(cases, seed=0):
    """Layers and nests of oracle cases, numpy leaves (cases,); a loop that is absent has a random place."""
    rng = random.Random(seed)
    column = lambda values: np.asarray(values, np.float32)
    sizes = []
    for steps, levels, _ in cases:
        extent = {
            d: math.prod(dict(lv[kind]).get(d, 1) for lv in levels for kind in ("temporal", "x", "y"))
            for d in LOOPS
        }
        sizes.append(dict.fromkeys(Layer.__dataclass_fields__, 1.0) | steps | extent)
    made = []
    for found in zip(*(levels for _, levels, _ in cases)):
        places = []
        for level in found:
            order = [d for d, _ in level["temporal"]]
            for d in LOOPS:
                if d not in order:
                    order.insert(rng.randint(0, len(order)), d)
            places.append(order)
        pick = lambda kind, d, found=found: column([dict(level[kind]).get(d, 1) for level in found])
        made.append(
            LoopLevel(
                temporal={d: pick("temporal", d) for d in LOOPS},
                order={d: column([order.index(d) for order in places]) for d in LOOPS},
                spatial_x={d: pick("x", d) for d in LOOPS},
                spatial_y={d: pick("y", d) for d in LOOPS},
            )
        )
    layers = Layer(**{name: column([one[name] for one in sizes]) for name in sizes[0]})
    return layers, LoopNest(levels=tuple(made))


def small_gemm():
    """2 x 3 by 3 x 2: a buffer over two MACs (k), a DRAM; c inside, p outside."""
    buffer = Memory.create(
        name="Buffer", capacity_words=11, shared_words_per_cycle=5, read_pj=1, fill_pj=2, update_pj=3,
        fanout_x=2, spatial_x="k", spatial_y="",
    )  # fmt: skip
    dram = Memory.create(name="DRAM", block_words=4, read_pj=40)
    hierarchy = Hierarchy.create(levels=[buffer, dram], mac_pj=1, static_w=1e-3)
    layer = Layer.gemm(2, 3, 2)
    nest = LoopNest.create([{"temporal": {"c": 3}, "x": {"k": 2}}, {"temporal": {"p": 2}}], hierarchy, layer)
    return layer, hierarchy, nest


def random_batch(hierarchy, seed=0, imperfect=False, count=2000):
    """Stacked layers and mappings of a hierarchy: any factor anywhere, any order, fan-outs respected."""
    rng = np.random.default_rng(seed)
    leaf = lambda values: jnp.asarray(np.broadcast_to(values, (count,)), float)
    extent = {d: np.ones(count) for d in LOOPS}
    levels = []
    for level in hierarchy.levels:
        time = {d: rng.choice([1, 1, 1, 2, 2, 3, 4, 7], count) for d in LOOPS}
        space: dict = {}
        for axis in "xy":
            room = np.full(count, float(getattr(level, f"fanout_{axis}")))
            dims = getattr(level, f"spatial_{axis}")
            space[axis] = {d: np.ones(count) for d in (dims if room[0] > 1 else "")}
            for d in rng.permutation(list(space[axis])):
                space[axis][d] = np.floor(room ** rng.random(count))
                room = np.floor(room / space[axis][d])
        for factors in (time, *space.values()):
            for d, f in factors.items():
                extent[d] = extent[d] * f
        places = rng.permuted(np.tile(np.arange(8.0), (count, 1)), axis=1)
        levels.append(
            LoopLevel(
                temporal={d: leaf(f) for d, f in time.items()},
                order={d: leaf(places[:, i]) for i, d in enumerate(LOOPS)},
                spatial_x={d: leaf(f) for d, f in space["x"].items()},
                spatial_y={d: leaf(f) for d, f in space["y"].items()},
            )
        )
    if imperfect:
        extent = {d: np.ceil(e * rng.uniform(0.5, 1, count)) for d, e in extent.items()}
    fields = dict.fromkeys(Layer.__dataclass_fields__, 1.0) | extent
    fields |= {name: rng.choice([1, 1, 2, 3], count) for name in STEPS}
    return Layer(**{name: leaf(values) for name, values in fields.items()}), LoopNest(levels=tuple(levels))


def touched(out, taps, stride, dilation):
    """Distinct input rows under all windows: those at which two windows coincide count once."""
    common = np.gcd(np.asarray(stride, int), np.asarray(dilation, int))
    return out * taps - np.maximum(out - dilation / common, 0) * np.maximum(taps - stride / common, 0)


def compulsory_words(layer):
    """Words of each tensor that must cross the outermost level."""
    one = jax.tree.map(lambda leaf: np.asarray(leaf, float), layer)
    rows = touched(one.p, one.r, one.stride_h, one.dilation_h)
    columns = touched(one.q, one.s, one.stride_w, one.dilation_w)
    return {"w": one.weight_words, "i": one.n * one.g * one.c * rows * columns, "o": one.output_words}
