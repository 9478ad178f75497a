"""The loop-nest model on many random mappings: physics, gradients, transforms."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_jvp, check_vjp
from loopnest_cases import compulsory_words, numbers, random_batch, small_gemm
from loopnest_oracle import LOOPS

from diffhw import hardware
from diffhw.hardware import Hierarchy, Memory
from diffhw.mappings import LoopNest
from diffhw.models import level_cycles, level_energy_pj, loopnest, loopnest_counts
from diffhw.workloads import Layer, Network

# ---- 1. Properties ----------------------------------------------------------------------------------


ARCHITECTURES = tuple(hardware.HIERARCHIES)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None, 0))
def priced(layer, hierarchy, mapping):
    """Cost, counts, compute cycles and MAC units used."""
    counts = loopnest_counts(layer, hierarchy, mapping)
    cost = loopnest.layer(layer, hierarchy, mapping)
    return cost, numbers(counts), counts.compute_cycles, counts.macs_used


def costs(*arguments):
    return priced(*arguments)[0]


def log_edp(layer, hierarchy, mapping):
    cost = loopnest.layer(layer, hierarchy, mapping)
    return jnp.log(cost.cycles) + jnp.log(cost.energy_pj)


slopes_of = jax.jit(jax.vmap(jax.grad(log_edp, (0, 1, 2)), (0, None, 0)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_physics(name, seed):
    """48,000 mappings: MACs conserved, compulsory traffic, compute and bandwidth bounds, sums, finite."""
    chip, imperfect = hardware.hierarchy(name), seed >= 5
    layers, nests = random_batch(chip, seed, imperfect)
    cost, counts, cycles, units = jax.tree.map(np.asarray, priced(layers, chip, nests))
    least = 1 - 1e-5
    macs = np.asarray(layers.macs, float)
    np.testing.assert_allclose(cost.macs, macs, rtol=1e-6)
    room = np.asarray(cycles, float) * units
    assert np.all(room >= least * macs)
    if not imperfect:
        np.testing.assert_allclose(room, macs, rtol=1e-5)
    for t, words in compulsory_words(layers).items():
        moved = counts[-1][t]["updates" if t == "o" else "reads"]
        assert np.all(moved >= least * words), t
        assert np.all(counts[-1][t]["tile"] >= least * words), t
    assert np.all(cost.cycles >= least * macs / float(chip.macs_per_cycle))
    assert np.all(cost.cycles >= cycles)
    for k, level in enumerate(chip.levels):
        read, write = (
            sum((parts[m] * float(level.bits(t)) for t, parts in counts[k].items() for m in kind), 0.0)
            for kind in (("reads",), ("fills", "updates"))
        )
        for bits, port in ((read, "read"), (write, "write"), (read + write, "shared")):
            assert np.all(cost.cycles >= least * bits / float(getattr(level, f"{port}_bits_per_cycle")))
    np.testing.assert_allclose(sum(cost.energy_parts.values()), cost.energy_pj, rtol=1e-5)
    np.testing.assert_allclose(sum(cost.cycle_parts.values()), cost.cycles, rtol=1e-4)
    assert np.all((cost.utilization > 0) & (cost.utilization <= 1 + 1e-5))
    assert np.array_equal(cost.feasible == 1, cost.violation <= 1e-6)
    assert all(np.all(np.isfinite(leaf)) and np.all(leaf >= 0) for leaf in jax.tree.leaves((cost, counts)))


def test_padding_costs_what_the_padded_layer_costs():
    """Factors beyond the extent: the time and traffic of the larger layer, the MACs of the layer."""
    chip = hardware.hierarchy("gemmini")
    cut, nests = random_batch(chip, 7, imperfect=True)
    whole = jax.vmap(lambda layer, nest: replace(layer, **{d: nest.extent(d) for d in LOOPS}))(cut, nests)
    small, large = costs(cut, chip, nests), costs(whole, chip, nests)
    assert np.array_equal(small.cycles, large.cycles)
    assert all(np.array_equal(small.traffic_bytes[x], large.traffic_bytes[x]) for x in small.traffic_bytes)
    assert np.array_equal(small.macs, cut.macs) and np.any(small.macs < large.macs)
    assert np.array_equal(small.violation, large.violation)
    one = jax.tree.map(lambda leaf: leaf[0], nests)
    row = replace(jax.tree.map(lambda leaf: leaf[0], whole), c=jnp.float32(1))
    one.check(row, imperfect=True)
    short = loopnest.layer(replace(row, c=3 * one.extent("c")), chip, one)
    assert float(short.feasible) == 0 and float(short.violation) >= 2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_loop_of_one_has_no_place(name):
    """Permuting the places of loops with factor 1 changes no output."""
    chip = hardware.hierarchy(name)
    layers, nests = random_batch(chip, 11)
    rng = np.random.default_rng(0)
    shuffled = []
    for level in nests.levels:
        order = {d: np.array(place) for d, place in level.order.items()}
        one = {d: np.asarray(level.temporal[d]) == 1 for d in LOOPS}
        # Those that run keep their relative order; the others go anywhere, ties and far ends included.
        order = {d: np.where(one[d], rng.integers(-1, 10, 2000), place) for d, place in order.items()}
        shuffled.append(replace(level, order={d: jnp.asarray(place, float) for d, place in order.items()}))
    a, b = costs(layers, chip, nests), costs(layers, chip, LoopNest(levels=tuple(shuffled)))
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_more_bandwidth_never_slows_and_dearer_accesses_never_save():
    chip = hardware.hierarchy("gemmini")
    layers, nests = random_batch(chip, 12)
    base = costs(layers, chip, nests)
    wide = [replace(lv, shared_bits_per_cycle=2 * lv.shared_bits_per_cycle) for lv in chip.levels]
    assert np.all(costs(layers, replace(chip, levels=tuple(wide)), nests).cycles <= base.cycles)
    dear = [replace(lv, read_pj=2 * lv.read_pj) for lv in chip.levels]
    assert np.all(costs(layers, replace(chip, levels=tuple(dear)), nests).energy_pj > base.energy_pj)


# ---- 2. Gradients -----------------------------------------------------------------------------------


def relaxed_conv():
    """A strided convolution on three levels, with halo and returning sums; factors as a flat list."""
    hierarchy = Hierarchy.create(
        levels=[
            Memory.create(name="Pad", capacity_words=64, read_pj=0.5, fill_pj=0.7, shared_words_per_cycle=2),
            Memory.create(
                name="Buffer", capacity_words=4096, read_pj=3, fill_pj=4, update_pj=5, fanout_x=8, fanout_y=8,
                spatial_x="k", spatial_y="cp", read_words_per_cycle=1.5, write_words_per_cycle=1,
            ),
            Memory.create(name="DRAM", read_pj=100, shared_words_per_cycle=0.75),
        ],
        mac_pj=0.3, static_w=0.01,
    )  # fmt: skip

    def nest(f):
        levels = [
            {"temporal": dict(s=f[0], q=f[1])},
            {"temporal": dict(r=f[2], k=f[3], c=f[4]), "x": {"k": f[5]}, "y": {"c": f[6], "p": f[7]}},
            {"temporal": dict(q=f[8], c=f[9], k=f[10], p=f[11], n=f[12])},
        ]
        return LoopNest.create(levels, hierarchy)

    layer = Layer.create(n=2, k=12, c=10, p=14, q=9, r=3, s=3, stride_h=2)
    return layer, hierarchy, nest


def check_slopes(function, *arguments):
    """Forward and reverse against finite differences, each compiled as one program."""
    jvp = jax.jit(lambda at, along: jax.jvp(function, at, along))
    pull = jax.jit(lambda at, weights: jax.vjp(function, *at)[1](weights))
    check_jvp(jax.jit(function), jvp, arguments, rtol=1e-5)
    check_vjp(
        jax.jit(function), lambda *at: (function(*at), functools.partial(pull, at)), arguments, rtol=1e-5
    )


FACTORS = (2.3, 3.3, 2.6, 2.2, 3.1, 2.7, 1.4, 2.1, 2.4, 2.9, 2.5, 3.2, 2.6)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{}, {0: 1.4, 8: 1.6}], ids=("loops", "half loops"))
def test_count_gradients_are_exact_between_kinks(changed):
    """Every count in every factor: finite differences agree; between 1 and 2 a loop is partly there."""
    with jax.enable_x64(True):
        layer, hierarchy, nest = relaxed_conv()
        factors = jnp.array([changed.get(i, f) for i, f in enumerate(FACTORS)])

        @jax.jit
        def leaves(f):
            return jnp.stack(jax.tree.leaves(numbers(loopnest_counts(layer, hierarchy, nest(f)))))

        live = np.flatnonzero(np.asarray(leaves(factors)) > 0)
        assert len(live) > 20
        check_slopes(lambda f: jnp.log(leaves(f)[live]), factors)


def test_energy_and_cycle_gradients_are_exact_in_the_hierarchy():
    """Energy in its prices, cycles of each level in the bandwidths: nothing steps."""
    with jax.enable_x64(True):
        layer, hierarchy, nest = relaxed_conv()
        mapping = nest(jnp.array(FACTORS))
        counts = loopnest_counts(layer, hierarchy, mapping)
        names = ("read_pj", "fill_pj", "update_pj", "leakage_w")
        ports = [f"{kind}_bits_per_cycle" for kind in ("read", "write", "shared")]
        take = lambda keys: [{key: getattr(lv, key) for key in keys} for lv in hierarchy.levels]

        def chip(parts, **more):
            levels = tuple(replace(lv, **new) for lv, new in zip(hierarchy.levels, parts))
            return replace(hierarchy, levels=levels, **more)

        def energy(parts, mac, ghz, watts):
            new = chip(parts, mac_pj=mac, freq_hz=ghz * 1e9, static_w=watts)
            return loopnest.layer(layer, new, mapping).energy_pj * 1e-6

        prices = (take(names), jnp.float64(0.3), jnp.float64(1.2), jnp.float64(0.01))
        check_slopes(energy, *prices)
        finite = [{key: value for key, value in one.items() if np.isfinite(value)} for one in take(ports)]
        slowness = jax.jit(lambda parts: jnp.log(jnp.stack(level_cycles(chip(parts), counts))))
        check_slopes(slowness, finite)
        assert (
            sum(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(jax.jit(jax.jacrev(slowness))(finite)))
            >= 3
        )
        total = sum(float(part) for part in level_energy_pj(hierarchy, counts).values())
        cost = loopnest.layer(layer, hierarchy, mapping)
        rest = float(cost.energy_parts["mac"] + cost.energy_parts["static"])
        assert float(cost.energy_pj) == pytest.approx(total + rest, rel=1e-12)


@pytest.mark.slow
def test_no_promised_gradient_is_silently_zero():
    """Factors, places and the hierarchy: finite everywhere, and not zero where the leaf has a say."""
    chip = hardware.hierarchy("gemmini")
    layers, nests = random_batch(chip, 13)
    slopes = jax.tree.map(np.asarray, slopes_of(layers, chip, nests))
    _, of_chip, of_nest = slopes
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))
    share = lambda leaf: np.mean(np.abs(leaf) > 0)
    for level, slope in zip(nests.levels, of_nest.levels):
        for kind in ("temporal", "spatial_x", "spatial_y"):
            for d, leaf in getattr(slope, kind).items():
                assert share(leaf) > 0.9, (kind, d)
    places = [leaf for slope in of_nest.levels[1:] for leaf in slope.order.values()]
    assert share(np.any(np.stack(places) != 0, 0)) > 0.99
    assert share(of_chip.mac_pj) > 0.99 and share(of_chip.static_w) > 0.99
    for level, slope in zip(chip.levels, of_chip.levels):
        assert share(slope.leakage_w) > 0.99, level.name
        assert share(slope.read_pj) > 0.9 and share(slope.width_bits) > 0.9, level.name
        assert share(slope.update_pj) > 0.9 or "o" not in level.keeps, level.name
        for t, bits in (("w", slope.weight_bits), ("i", slope.input_bits), ("o", slope.output_bits)):
            assert share(bits) > 0.9 if t in level.keeps else not np.any(bits), (level.name, t)
    ports = [getattr(lv, f"{p}_bits_per_cycle") for lv in of_chip.levels for p in ("read", "write", "shared")]
    stalls = np.asarray(costs(layers, chip, nests).cycle_parts["stall"]) > 0
    assert stalls.sum() > 200 and np.all(np.any(np.stack(ports) != 0, 0)[stalls])


def test_a_mapping_that_does_not_fit_says_which_way_to_go():
    """The violation has a slope in what binds: capacity, fan-out, coverage."""
    layer, hierarchy, nest = small_gemm()

    def violation(capacity, fanout, c):
        inner = replace(hierarchy.levels[0], capacity_bits=capacity, fanout_x=fanout)
        chip = replace(hierarchy, levels=(inner, hierarchy.levels[1]))
        return loopnest.layer(replace(layer, c=c), chip, nest).violation

    slope = jax.jit(jax.grad(violation, (0, 1, 2)))
    for arguments, at in (((80.0, 2.0, 3.0), 0), ((88.0, 1.0, 3.0), 1), ((88.0, 2.0, 5.0), 2)):
        slopes = [float(x) for x in slope(*arguments)]
        assert slopes[at] != 0 and (slopes[at] > 0) == (at == 2)
        assert all(x == 0 for i, x in enumerate(slopes) if i != at)


# ---- 3. Transforms ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.slow
def test_batched_equals_looped():
    """Cost, and the slopes of a mean over mappings."""
    chip = small_gemm()[1]
    layers, nests = random_batch(chip, 14, count=4)

    @jax.jit
    def together(nests):
        edp = lambda nests: jnp.sum(jax.vmap(log_edp, (0, None, 0))(layers, chip, nests))
        return jax.vmap(loopnest.layer, (0, None, 0))(layers, chip, nests), jax.grad(edp)(nests)

    @jax.jit
    def alone(layer, nest):
        return loopnest.layer(layer, chip, nest), jax.grad(log_edp, 2)(layer, chip, nest)

    found = jax.tree.map(np.asarray, together(nests))
    for i in range(4):
        row, nest = jax.tree.map(lambda leaf: np.asarray(leaf)[i], (layers, nests))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5), found, alone(row, nest)
        )


@pytest.mark.parametrize("layer_loop", ["vmap", "scan"])
def test_a_network_is_the_masked_sum_of_its_layers(layer_loop):
    chip = small_gemm()[1]
    layers, nests = random_batch(chip, 15, count=4)
    rows = [jax.tree.map(lambda leaf: leaf[i], layers) for i in range(3)]
    network = Network.create(rows, counts=[1, 2, 3], pad_to=4)
    cost = loopnest(network, chip, nests, layer_loop=layer_loop)
    each = costs(layers, chip, nests)
    for name in ("cycles", "energy_pj", "macs"):
        want = sum(count * float(getattr(each, name)[i]) for i, count in enumerate((1, 2, 3)))
        assert float(getattr(cost, name)) == pytest.approx(want, rel=1e-5)
    with pytest.raises(ValueError, match="one row per padded layer row"):
        loopnest(network, chip, jax.tree.map(lambda leaf: leaf[:3], nests))
