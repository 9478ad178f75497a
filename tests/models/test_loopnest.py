"""The loop-nest model: a case on paper, walks step by step, published answers, bad input."""

import functools
import math
import random
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loopnest_cases import STEPS, chip, compulsory_words, numbers, small_gemm, stacked
from loopnest_oracle import Walk, random_case

from diffhw import hardware
from diffhw.hardware import Hierarchy, Memory
from diffhw.mappings import LoopNest
from diffhw.models import loopnest, loopnest_counts
from diffhw.workloads import Layer

# ---- 1. On paper ------------------------------------------------------------------------------------


def test_two_macs_a_buffer_and_a_dram():
    """6 cycles. The buffer holds 6 weights, 3 inputs, 2 outputs: one row of the product.

    Weights: 2 a cycle (12); they stay while p runs, so 6 come in. Inputs: 1 a cycle for both MACs (6), each
    row comes in once (6). Outputs: 2 updates a cycle (12), of which the first of each of the 4 needs no
    read (8); they leave once (4). So 26 reads, 12 fills and 12 updates at 5 words a cycle: 10 cycles.
    Energy: 26 + 2 * 12 + 3 * 12 = 86; the DRAM in vectors of 4: ceil(6 / 4) twice and 4 / 4, 5 * 40 pJ;
    12 MACs; 1 mW for 10 ns is 10 pJ.
    """
    layer, hierarchy, nest = small_gemm()
    counts = loopnest_counts(layer, hierarchy, nest)
    assert numbers(counts) == [
        {
            "w": dict(tile=6, reads=12, fills=6, updates=0),
            "i": dict(tile=3, reads=6, fills=6, updates=0),
            "o": dict(tile=2, reads=8, fills=0, updates=12),
        },
        {
            "w": dict(tile=6, reads=6, fills=0, updates=0),
            "i": dict(tile=6, reads=6, fills=0, updates=0),
            "o": dict(tile=4, reads=0, fills=0, updates=4),
        },
    ]
    cost = loopnest.layer(layer, hierarchy, nest)
    assert (float(cost.cycles), float(cost.energy_pj), float(cost.macs)) == (10, 86 + 200 + 12 + 10, 12)
    assert {name: float(value) for name, value in cost.cycle_parts.items()} == dict(
        ideal=6, spatial_loss=0, stall=4
    )
    assert (float(cost.feasible), float(cost.violation)) == (1, 0)
    tight = replace(hierarchy, levels=(replace(hierarchy.levels[0], capacity_bits=80.0), hierarchy.levels[1]))
    over = loopnest.layer(layer, tight, nest)
    assert (float(over.feasible), float(over.violation)) == (0, pytest.approx(0.1))


# ---- 2. Oracle --------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=1)
def count_all(cases, keeps):
    def one(layer, nest):
        counts = loopnest_counts(layer, chip(keeps), nest)
        return numbers(counts), counts.compute_cycles, counts.macs_used

    return jax.vmap(one)(*cases)


STRUCTURES = [("wio", "wio"), ("w", "o", "wio"), ("i", "wo", "wio"), ("wo", "i", "o", "wio"), ("", "wio", "wi", "wio")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("keeps", STRUCTURES, ids="-".join)
def test_counts_equal_the_walk(keeps):
    """Any kept tensors, loops, orders, strides, dilations, groups and spatial loops: exactly."""
    rng = random.Random("-".join(keeps))
    cases = [random_case(rng, keeps) for _ in range(80)]
    got, cycles, units = jax.tree.map(np.asarray, count_all(stacked(cases), keeps))
    for i, case in enumerate(cases):
        walk = Walk(*case)
        done = walk.macs()
        assert len(set(done)) == len(done) == cycles[i] * units[i], case
        assert cycles[i] == walk.cycles(), case
        assert jax.tree.map(lambda leaf: int(leaf[i]), got) == walk.counts(), case


def nest(*levels):
    """Levels of an oracle case with what is not said left empty."""
    return [{"temporal": list(one.get("temporal", {}).items()), "x": one.get("x", {}), "y": {}} for one in levels]  # fmt: skip


# Smallest nests in which the rule and what really moves differ, by a search over 45,000 random ones.
DIFFERENCES = {
    # The window 0 1 slides to 1 2, k steps and it returns. The direction changed: the rule loads both
    # words, really 1 is still there. And so on: 2 + 1 + 2 + 1 words against 2 + 1 + 1 + 1.
    "a change of direction drops all": (
        nest({"temporal": {"s": 2}}, {"temporal": {"q": 2, "k": 2}}), 6, 5, 6, 5,
    ),
    # Words 0 1 2, then s steps. The rule sees q come back from 1, as far as s goes: no motion. Really
    # the window goes back from 2 to 1.
    "a return is as long as one step": (nest({}, {"temporal": {"q": 3, "s": 2}}), 5, 6, 5, 6),
    # Children hold words 0 1 and 1 2. Equal requests are one; overlapping ones are not.
    "siblings that overlap are served one by one": (
        nest({"temporal": {"q": 2}}, {"x": {"s": 2}}), 2, 2, 4, 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENCES)
def test_where_timeloops_convention_is_not_what_moves(name):
    levels, rule_fills, real_fills, rule_reads, real_reads = DIFFERENCES[name]
    walk = lambda rule: Walk(STEPS, levels, ["i", "wio"], rule).counts()
    rule, real = walk("timeloop"), walk("physical")
    assert (rule[0]["i"]["fills"], rule[1]["i"]["reads"]) == (rule_fills, rule_reads)
    assert (real[0]["i"]["fills"], real[1]["i"]["reads"]) == (real_fills, real_reads)
    layers, nests = stacked([(STEPS, levels, None)])
    got, _, _ = count_all((layers, nests), ("i", "wio"))
    assert (float(got[0]["i"]["fills"][0]), float(got[1]["i"]["reads"][0])) == (rule_fills, rule_reads)


def test_the_convention_never_counts_fewer_words_than_are_needed():
    """It may count fewer than a buffer of one tile moves (above), never fewer than the MACs touch."""
    rng = random.Random(3)
    cases = [random_case(rng, ["i", "wio"], 200) for _ in range(300)]
    compulsory = compulsory_words(stacked(cases)[0])
    for i, case in enumerate(cases):
        rule, real = Walk(*case).counts(), Walk(*case, rule="physical").counts()
        needed = Walk(*case).needed("i")
        assert needed == compulsory["i"][i]
        assert min(rule[1]["i"]["reads"], real[1]["i"]["reads"]) >= needed, case
        assert [rule[1][t] for t in "wo"] == [real[1][t] for t in "wo"], case


# ---- 3. Published figures ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "p", "expected"), [({"p": 2}, 2, (48, 32, 64)), ({}, 4, (48, 48, 96))], ids=("halo", "apart")
)
def test_worked_examples(inner, p, expected):
    """Inputs of two nests run through timeloop-model (commit 4cf6d4c; the second without its link transfers).

    Filters of 3 taps over 8 pixels, 2 channels, 2 filters. Reads and fills inside, reads outside.
    """
    hierarchy = Hierarchy.create(
        levels=[Memory.create(name="L0"), Memory.create(name="L1", fanout_x=2, spatial_x="p")], mac_pj=1.0
    )
    layer = Layer.create(r=3, p=8, c=2, k=2, q=1)
    levels = [{"temporal": inner}, {"temporal": {"r": 3, "p": p, "k": 2, "c": 2}, "x": {"p": 2}}]
    inside, outside = numbers(loopnest_counts(layer, hierarchy, LoopNest.create(levels, hierarchy, layer)))
    assert (inside["i"]["reads"], inside["i"]["fills"], outside["i"]["reads"]) == expected


# ---- 4. Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(keeps="wx"), "L.keeps must be distinct letters of 'wio'"),
        (dict(keeps="ww"), "L.keeps must be distinct"),
        (dict(spatial_x="kz"), "L.spatial_x must be distinct letters of 'ngkcpqrs'"),
        (dict(read_words_per_cycle=0), "L.read_words_per_cycle must be > 0, got 0"),
        (dict(write_words_per_cycle=0), "L.write_words_per_cycle must be > 0, got 0"),
        (dict(shared_words_per_cycle=0), "L.shared_words_per_cycle must be > 0, got 0"),
        (dict(capacity_words=0), "L.capacity_words must be > 0, got 0"),
        (dict(capacity_words=0.5), "L holds 4 bits, less than one word of 8 bits of tensor 'w'"),
        (dict(capacity_bits=8, output_bits=32), "less than one word of 32 bits of tensor 'o'"),
        (dict(read_pj=-1), "L.read_pj must be >= 0, got -1"),
        (dict(fanout_y=0), "L.fanout_y must be > 0, got 0"),
        (dict(word_bits=math.nan), "L.word_bits must be > 0, got nan"),
        (dict(block_words="four"), "L.block_words must be a number, got 'four'"),
    ],
)  # fmt: skip
def test_bad_memory(wrong, said):
    with pytest.raises(ValueError, match=said):
        Memory.create(name="L", **wrong)


def test_bad_hierarchy():
    dram = Memory.create(name="DRAM")
    for levels, more, said in (
        ([], {}, "at least one level"),
        ([dram, Memory.create(name="Top", keeps="wo")], {}, "outermost level must keep w, i and o, 'Top' keeps 'wo'"),
        ([dram, dram], {}, "two levels are called 'DRAM'"),
        ([dram], dict(mac_pj=-1), "mac_pj must be >= 0"),
        ([dram], dict(freq_hz=0), "freq_hz must be > 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            Hierarchy.create(**({"levels": levels, "mac_pj": 1} | more))
    with pytest.raises(ValueError, match="Pad may keep 'w', asked to keep 'wi'"):
        Hierarchy.create(levels=[Memory.create(name="Pad", keeps="w"), dram], mac_pj=1).keeping(("wi", "wio"))
    with pytest.raises(ValueError, match="did you mean 'gemmini'"):
        hardware.hierarchy("gemini")


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([{}], "the hierarchy has 2 levels .Buffer, DRAM., the mapping 1"),
        ([{"time": {}}, {}], "Buffer: unknown key 'time'; known: temporal, order, x, y"),
        ([{"temporal": {"m": 2}}, {}], "Buffer: unknown loop 'm'; known: n, g, k, c, p, q, r, s"),
        ([{}, {"y": {"x": 2}}], "DRAM: unknown loop 'x'"),
        ([{"order": "kk"}, {}], "Buffer: the order 'kk' names a loop twice"),
        ([{"x": {"c": 2}}, {}], "Buffer: loop 'c' may not be spread along x .allowed: k."),
        ([{"y": {"c": 2}}, {}], "Buffer: loop 'c' may not be spread along y .allowed: none."),
        ([{}, {"x": {"c": 2}}], "DRAM: loop 'c' may not be spread along x .it has one child there."),
        ([{"temporal": {"k": 0}}, {}], "Buffer: the factor of loop 'k' must be >= 1, got 0"),
        ([{"temporal": {"k": 0.5}}, {}], "Buffer: the factor of loop 'k' must be >= 1, got 0.5"),
        ([{"temporal": {"c": 3, "p": 2}}, {}], "loop 'k' multiply to 1, the layer has 2: iterations are missing"),
        (
            [{"temporal": {"c": 3, "p": 2}, "x": {"k": 2}}, {"temporal": {"c": 2}}],
            "loop 'c' multiply to 6, the layer has 3: iterations overlap",
        ),
    ],
)  # fmt: skip
def test_bad_nest(levels, said):
    layer, hierarchy, _ = small_gemm()
    with pytest.raises(ValueError, match=said):
        LoopNest.create(levels, hierarchy, layer)


def test_a_nest_of_another_hierarchy():
    layer, hierarchy, nest = small_gemm()
    with pytest.raises(ValueError, match="the hierarchy has 2 levels, the mapping 1"):
        loopnest_counts(layer, hierarchy, LoopNest(levels=nest.levels[:1]))
    with pytest.raises(ValueError, match="iterations overlap"):
        nest.check(replace(layer, c=jnp.float32(2)))
    nest.check(replace(layer, c=jnp.float32(2)), imperfect=True)
    with pytest.raises(ValueError, match="iterations are missing"):
        nest.check(replace(layer, c=jnp.float32(4)), imperfect=True)
