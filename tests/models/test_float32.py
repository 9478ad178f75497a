"""Float32 beside float64: counts equal below 2**24, totals within 1e-6, on thousands of random designs.

`benchmarks.float_check` does the same on a million; the two functions below are what it found wanting.
"""

import math
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import float_check
from diffhw import hardware, numerics, workloads
from diffhw.mappings import LoopNest
from diffhw.models import loopnest, loopnest_counts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["os", "directives", "gemmini"])
def test_counts_are_equal_and_totals_within_a_millionth(name):
    case = next(case for case in float_check.cases() if case.name == name)
    leaves = float_check.check(case, 4096, 4096, seed=7)
    assert len(leaves) > 30 and all(leaf.designs == 4096 for leaf in leaves.values())
    missed = {n: (leaf.kind, leaf.error, leaf.worst) for n, leaf in leaves.items() if leaf.misses}
    assert not missed


@pytest.mark.parametrize(
    ("name", "designs"),
    [
        ("gemmini", [(147456, 4970), (278528, 996)]),  # bits over a port that are no float32
        ("simba_like", [(229376, 13660), (196608, 2538), (311296, 12454)]),  # words that slide in; both
        ("eyeriss_like", [(278528, 13013)]),
    ],
)
def test_designs_of_the_million_that_once_missed(name, designs):
    """(seed, index) of every one that `benchmarks.float_check` found beyond a millionth."""
    case = next(case for case in float_check.cases(("loopnest",)) if case.name == name)
    rows = [jax.tree.map(lambda x, i=i: x[i], case.batch(16384, seed)) for seed, i in designs]
    few = jax.tree.map(lambda *x: np.stack(x), *rows)
    leaves = float_check.check(replace(case, batch=lambda *_: few), len(rows), len(rows))
    assert leaves["cycles"].designs == len(designs)
    assert not {n: leaf.error for n, leaf in leaves.items() if leaf.misses}


def test_the_check_sees_a_miss():
    leaves: dict = {}
    one = lambda x: {
        "counts": {"folds": np.array([3.0, x])},
        "verdicts": {},
        "totals": {"t": (np.ones(2) * x, np.ones(2))},
    }
    float_check._judge(leaves, one(5.0), one(5.0), 2, 0)
    assert not any(leaf.misses for leaf in leaves.values())
    float_check._judge(leaves, one(5.0), one(5.00001), 2, 0)
    assert leaves["folds"].misses == 1 and leaves["t"].misses == 2


def test_ceil_ratio_is_exact_where_the_quotient_rounds_to_a_whole_number():
    a, d = np.float32(1003), np.float32(0.01)
    assert np.ceil(a / d) == 100300 and math.ceil(Fraction(1003) / Fraction(float(d))) == 100301
    rng = np.random.default_rng(0)
    # Ratios at, just above and just below whole numbers; whole and broken divisors.
    d = np.float32(np.concatenate([rng.uniform(0.01, 300, 2000), rng.integers(1, 4096, 2000)]))
    q = rng.integers(1, 60_000, 4000)
    a = np.float32(q * d.astype(np.float64))
    a = np.concatenate([a, np.nextafter(a, np.float32(np.inf)), np.nextafter(a, np.float32(0))])
    d = np.tile(d, 3)
    got = np.asarray(jax.jit(numerics.ceil_ratio)(a, d))
    exact = [math.ceil(Fraction(float(x)) / Fraction(float(y))) for x, y in zip(a, d, strict=True)]
    np.testing.assert_array_equal(got, exact)


def test_ceil_ratio_has_the_slope_of_ceil_div():
    for a, d in ((50.0, 8.0), (3.0, 8.0)):
        slopes = [
            jax.grad(f, (0, 1))(jnp.float32(a), jnp.float32(d))
            for f in (numerics.ceil_ratio, numerics.ceil_div)
        ]
        np.testing.assert_allclose(*slopes)


def test_ceil_ratio_of_a_dividend_in_two_parts():
    """276,992,016 bits are no float32: the nearest is 16 less, and one cycle fewer at this width."""
    bits, width = 276_992_016, np.float32(539.6961)
    rounded = np.float32(bits)
    exact = math.ceil(Fraction(bits) / Fraction(float(width)))
    assert int(numerics.ceil_ratio(rounded, width)) == exact - 1
    assert int(numerics.ceil_ratio(rounded, width, np.float32(bits - int(rounded)))) == exact


def test_if_fits_is_a_selection_with_the_slopes_of_fits():
    mixture = lambda need, room, a, b: numerics.fits(need, room) * a + (1 - numerics.fits(need, room)) * b
    for need in (3.0, 5.0, 7.0):
        at = tuple(jnp.float32(x) for x in (need, 5.0, 2.0, 11.0))
        of = lambda f, at=at: jax.value_and_grad(f, (0, 1, 2, 3))(*at)
        np.testing.assert_allclose(*(jnp.stack([x[0], *x[1]]) for x in (of(numerics.if_fits), of(mixture))))


def test_cycles_of_a_port_with_a_broken_width():
    """The bits over a port's width exceed a whole number by less than float32 can tell: one cycle more."""
    layer, memory = workloads.Layer.gemm(64, 64, 64), hardware.Memory.create
    levels = [
        memory(name=name, word_bits=8, read_pj=1.0, spatial_x="", spatial_y="") for name in ("L0", "DRAM")
    ]
    chip = hardware.Hierarchy.create(levels=levels, mac_pj=1.0)
    nest = LoopNest.create([{"temporal": {"p": 64, "c": 64, "k": 64}}, {}], chip, layer)
    bits = 8 * sum(float(words.reads) for words in loopnest_counts(layer, chip, nest).tensors[0].values())
    whole = 600_000
    width = np.float32(bits / whole)
    while math.ceil(Fraction(bits) / Fraction(float(width))) == whole:
        width = np.nextafter(width, np.float32(0))
    exact = math.ceil(Fraction(bits) / Fraction(float(width)))
    port = replace(chip.levels[0], read_bits_per_cycle=jnp.asarray(width))
    chip = replace(chip, levels=(port, chip.levels[1]))
    assert float(loopnest.layer(layer, chip, nest).cycles) == exact == whole + 1


def test_power_is_within_a_millionth_over_sixteen_mebibytes():
    x = np.float32(np.exp(np.random.default_rng(0).uniform(np.log(256), np.log(2**24), 20_000)))
    for p in (0.3, 0.5, 0.9, 1.0):
        got = np.asarray(jax.jit(lambda x, p=p: numerics.power(x, jnp.float32(p), 1024.0))(x), np.float64)
        exact = (x.astype(np.float64) / 1024) ** float(np.float32(p))
        assert np.max(np.abs(got / exact - 1)) < 1e-6
