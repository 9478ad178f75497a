"""The systolic model against loops and integers that share no formula with it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffhw.hardware import Accelerator, Dram, Level
from diffhw.mappings import DATAFLOWS, Precision
from diffhw.models import array_counts, roofline, systolic
from diffhw.models._systolic_memory import Demand, runtime
from diffhw.workloads import Layer, Network


def make_hw(rows=8, cols=8, kb=(8, 8, 8), gb_per_s=12.8, **more):
    levels = [
        Level.create(name=n, keeps=k, capacity_bytes=c * 1024)
        for (n, k), c in zip((("weight", "w"), ("input", "i"), ("output", "o")), kb)
    ]
    dram = Dram.create(gb_per_s=gb_per_s, pj_per_bit=8.0, static_w=0.05)
    return Accelerator.create(rows=rows, cols=cols, levels=levels, dram=dram, **more)


# ---- 1. On paper ------------------------------------------------------------------------------------


def test_two_by_two_array_three_by_three_gemm():
    """Output stationary: 2 x 2 folds of 3 + 2 + 2 - 2 = 5 cycles; weight stationary: 3 + 4 + 2 - 2 = 7."""
    for dataflow, cycles, inputs, weights, writes in (
        ("os", 20, 18, 18, 9),
        ("ws", 28, 18, 9, 18),
        ("is", 28, 9, 18, 18),
    ):
        c = array_counts(3.0, 3.0, 3.0, 2.0, 2.0, dataflow)
        assert (float(c.cycles), float(c.input_reads), float(c.weight_reads), float(c.output_writes)) == (
            cycles, inputs, weights, writes,
        )  # fmt: skip


# ---- 2. Oracles -------------------------------------------------------------------------------------


def simulate_fold(rows, cols, stream, dataflow):
    """Cycles until the last PE has done its last MAC: PE (r, c) sees step t at cycle preload + r + c + t."""
    preload = 0 if dataflow == "os" else rows
    last = 0
    for r in range(rows):
        for c in range(cols):
            for t in range(stream):
                last = max(last, preload + r + c + t)
    return last + 1


def count_gemm(m, n, k, rows, cols, dataflow):
    """Walk the tiles and count words one tile at a time."""
    extents = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    folds = reads_i = reads_w = writes = 0
    for c0 in range(0, extents[1], cols):
        for r0 in range(0, extents[0], rows):
            a = min(rows, extents[0] - r0)
            b = min(cols, extents[1] - c0)
            folds += 1
            if dataflow == "os":
                reads_i, reads_w, writes = reads_i + a * k, reads_w + b * k, writes + a * b
            elif dataflow == "ws":
                reads_i, reads_w, writes = reads_i + a * m, reads_w + a * b, writes + b * m
            else:
                reads_i, reads_w, writes = reads_i + a * b, reads_w + a * n, writes + b * n
    return folds, reads_i, reads_w, writes


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_fold_length_is_a_wavefront(dataflow):
    for rows, cols, t in ((1, 1, 1), (2, 3, 4), (5, 2, 9), (8, 8, 1)):
        c = array_counts(float(rows), float(cols), float(t), rows * 1.0, cols * 1.0, "os")
        if dataflow != "os":
            mnk = (t, cols, rows) if dataflow == "ws" else (cols, t, rows)
            c = array_counts(*map(float, mnk), rows * 1.0, cols * 1.0, dataflow)
        assert float(c.fold_cycles) == simulate_fold(rows, cols, t, dataflow)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_counts_equal_the_tile_walk(dataflow):
    rng = np.random.default_rng(0)
    cases = np.stack([rng.integers(1, hi, 300) for hi in (200, 200, 300, 40, 40)], 1)
    counts = jax.vmap(lambda x: array_counts(x[0], x[1], x[2], x[3], x[4], dataflow))(
        jnp.asarray(cases, float)
    )
    for row, (m, n, k, r, c) in enumerate(cases.tolist()):
        folds, reads_i, reads_w, writes = count_gemm(m, n, k, r, c, dataflow)
        got = [
            float(v[row])
            for v in (counts.folds, counts.input_reads, counts.weight_reads, counts.output_writes)
        ]
        assert got == [folds, reads_i, reads_w, writes], (m, n, k, r, c)


def walk_traffic(shape, rows, cols, half, dataflow):
    """DRAM words by sets of coordinates: input, weight, partial sums read back; and which rule applied."""
    n, k, c, h, w, r, s, stride, pad = (
        shape[x] for x in ("n", "k", "c", "h", "w", "r", "s", "stride", "pad")
    )
    p, q = (h + 2 * pad - r) // stride + 1, (w + 2 * pad - s) // stride + 1
    m, kk = n * p * q, c * r * s

    def under(pixels, taps):
        seen = set()
        for pixel in pixels:
            b, y, x = pixel // (p * q), pixel // q % p, pixel % q
            for tap in taps:
                ch, i, j = tap // (r * s), tap // s % r, tap % s
                yy, xx = y * stride + i - pad, x * stride + j - pad
                if 0 <= yy < h and 0 <= xx < w:
                    seen.add((b, ch, yy, xx))
        return seen

    whole = under(range(m), range(kk))
    nr = math.ceil({"os": m, "ws": kk, "is": kk}[dataflow] / rows)
    nc = math.ceil({"os": k, "ws": k, "is": m}[dataflow] / cols)
    fits = len(whole) <= half["i"]
    inputs = weights = 0
    for j in range(nc):
        visited = set()
        for i in range(nr):
            if dataflow == "os":
                visited |= under(range(i * rows, min(m, (i + 1) * rows)), range(kk))
                tile = kk * min(cols, k - j * cols)
                first_tile = kk * min(cols, k)
                weights += tile if (i == 0 or first_tile > half["w"]) else 0
            elif dataflow == "ws":
                new = under(range(m), range(i * rows, min(kk, (i + 1) * rows)))
                inputs += len(new) if not fits else 0
                weights += min(rows, kk - i * rows) * min(cols, k - j * cols)
            else:
                weights += min(rows, kk - i * rows) * k if (j == 0 or kk * k > half["w"]) else 0
        if dataflow == "os" and not fits:
            inputs += len(visited)
    if fits or dataflow == "is":
        inputs = len(whole)
    out_tile = {"os": 0, "ws": m * min(cols, k), "is": k * min(cols, m)}[dataflow]
    psums = m * k * (nr - 1) if dataflow != "os" and out_tile > half["o"] else 0
    return inputs, weights, psums


def worst_window(shape, rows, cols, dataflow):
    """Words to hold so that the halo slides along: the widest span of input rows at any position."""
    p, q = ((shape[x] + 2 * shape["pad"] - shape[y]) // shape["stride"] + 1 for x, y in ("hr", "ws"))
    pixels = {"os": rows, "ws": 1, "is": cols}[dataflow]
    spans = []
    for first in range(max(1, p * q - pixels + 1)):
        outs = [pixel // q for pixel in range(first, min(first + pixels, p * q))]
        top, bottom = min(outs) * shape["stride"], max(outs) * shape["stride"] + shape["r"]
        spans.append(min(bottom - top, shape["h"]))
    channels = shape["c"] if dataflow != "ws" else min(shape["c"], -(-rows // (shape["r"] * shape["s"])) + 1)
    return max(spans) * shape["w"] * channels


SHAPES = [
    dict(n=1, k=5, c=3, h=9, w=7, r=3, s=3, stride=1, pad=1),
    dict(n=2, k=12, c=4, h=8, w=8, r=1, s=1, stride=1, pad=0),
    dict(n=1, k=7, c=6, h=11, w=11, r=3, s=3, stride=2, pad=0),
    dict(n=1, k=9, c=8, h=10, w=6, r=1, s=1, stride=2, pad=0),
    dict(n=2, k=20, c=2, h=6, w=6, r=2, s=2, stride=2, pad=0),
    dict(n=1, k=4, c=1, h=14, w=14, r=5, s=5, stride=1, pad=2),
]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"k{s['k']}c{s['c']}r{s['r']}st{s['stride']}")
def test_dram_traffic_equals_the_set_walk(shape, dataflow):
    """Exact where the sliding window fits. Words of one byte; buffers from tiny to ample."""
    layer = Layer.create(
        **{x: shape[x] for x in "nkchwrs"},
        stride_h=shape["stride"], stride_w=shape["stride"], pad_top=shape["pad"], pad_left=shape["pad"],
    )  # fmt: skip
    taps = shape["r"] * shape["s"]
    bits = Precision.create(weight=8, input=8, psum=8)
    # ws: whole channels per fold, so that no boundary cuts a channel (the cut is bounded below).
    sizes = (
        [(taps, 4), (2 * taps, 3), (3 * taps, 8)] if dataflow == "ws" else [(4, 4), (3, 5), (8, 2), (16, 16)]
    )
    for rows, cols in sizes:
        for words in (150, 400, 4000):
            hw = make_hw(rows, cols, kb=(2 * words / 1024,) * 3)
            cost = systolic.layer(layer, hw, dataflow, bits)
            got = [float(cost.traffic_bytes[f"dram_{x}_read"]) for x in ("input", "weight", "psum")]
            want = walk_traffic(shape, rows, cols, dict(i=words, w=words, o=words), dataflow)
            window = worst_window(shape, rows, cols, dataflow)
            if window <= words or float(layer.input_words) <= words:
                assert got[0] == want[0], (rows, cols, words)
            else:  # the window may not fit: more than each word once a pass, never more than im2col
                m, k = float(layer.n * layer.p * layer.q), float(layer.c) * taps
                passes = -(-shape["k"] // cols) if dataflow != "is" else 1
                assert want[0] <= got[0] <= max(m * k * passes, want[0])
            assert got[1:] == list(want[1:]), (rows, cols, words)


def test_a_fold_boundary_inside_a_channel_reads_it_twice():
    """ws, 3 x 3 taps on 6 rows: 18 taps of 2 channels in 3 folds; both boundaries cut a channel."""
    layer = Layer.create(k=4, c=2, h=40, w=40, r=3, s=3)
    hw = make_hw(6, 4, kb=(8, 1, 8))
    read = float(systolic.layer(layer, hw, "ws").traffic_bytes["dram_input_read"])
    assert read == (2 + 2) * 40 * 40


def recursion(nr, nc, f, groups, demand, bytes_per_cycle):
    """Event by event: the link serves reads in order of need, the array waits for what it needs."""
    t, link, end = 1 / bytes_per_cycle, 0.0, 0.0
    for _ in range(groups):
        for j in range(nc):
            for i in range(nr):
                link += demand["stationary"] * t
                start = max(end, link)
                link += ((demand["column"] if i == 0 else 0) + demand["first" if j == 0 else "later"]) * t
                end = max(start + f, link)
    return end


def test_runtime_equals_the_fold_recursion():
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        for _ in range(400):
            nr, nc, groups = (int(x) for x in rng.integers(1, 6, 3))
            f = float(rng.integers(1, 50))
            scale = rng.choice([0, 1, 10, 100, 1000], 4) * rng.random(4)
            demand = dict(zip(("column", "stationary", "first", "later"), scale))
            if demand["column"] and demand["stationary"]:
                demand["stationary"] = 0.0  # no dataflow has both
            demand["later"] = min(demand["later"], demand["first"])
            bw = float(rng.choice([1.0, 7.0, 50.0]))
            counts = array_counts(nr * 1.0, nc * 1.0, 1.0, 1.0, 1.0, "os")
            counts = dataclasses.replace(counts, fold_cycles=jnp.float64(f), cycles=jnp.float64(nr * nc * f))
            reads = groups * nc * (demand["column"] + nr * demand["stationary"])
            zero = jnp.float64(0)
            d = Demand(
                input_read=zero, weight_read=zero, psum_read=zero, output_write=zero,
                **{name: jnp.float64(value) for name, value in demand.items()},
            )  # fmt: skip
            got = float(runtime(counts, d, jnp.float64(groups), jnp.float64(bw)))
            want = recursion(nr, nc, f, groups, demand, bw)
            assert got == pytest.approx(want, rel=1e-12), (nr, nc, groups, f, demand, bw, reads)


# ---- 3. Properties ----------------------------------------------------------------------------------


def random_batch(count, seed=0):
    """Layers of real-looking shapes and designs of the whole legal range, as stacked pytrees."""
    rng = np.random.default_rng(seed)
    pick = lambda *values: rng.choice(values, count).astype(float)
    r = pick(1, 1, 3, 3, 5, 7)
    depthwise = rng.random(count) < 0.2
    stride = pick(1, 1, 2)
    h = np.maximum(r, np.round(np.exp(rng.uniform(np.log(1), np.log(230), count))))
    pad = np.floor((r - 1) / 2) * (rng.random(count) < 0.7)
    channels = np.round(np.exp(rng.uniform(0, np.log(2048), count)))
    p = np.floor((h + 2 * pad - r) / stride) + 1
    one = np.ones(count)
    layers = Layer(
        n=pick(1, 1, 1, 2, 8), g=np.where(depthwise, channels, 1.0),
        k=np.where(depthwise, 1.0, np.round(np.exp(rng.uniform(0, np.log(2048), count)))),
        c=np.where(depthwise, 1.0, channels), p=p, q=p, r=r, s=r, h=h, w=h, pad_top=pad, pad_left=pad,
        stride_h=stride, stride_w=stride, dilation_h=one, dilation_w=one, weight_is_activation=0 * one,
    )  # fmt: skip
    grid = np.round(4 * 2 ** (np.arange(25) / 4))
    hw = jax.vmap(lambda i: make_hw())(jnp.arange(count))
    levels = tuple(
        dataclasses.replace(lv, capacity_bytes=jnp.asarray(pick(*(2.0 ** np.arange(13, 23))), float))
        for lv in hw.levels
    )
    hw = dataclasses.replace(
        hw, rows=jnp.asarray(rng.choice(grid, count), float), cols=jnp.asarray(rng.choice(grid, count), float),
        levels=levels, dram=dataclasses.replace(hw.dram, gb_per_s=jnp.asarray(pick(4, 12.8, 25.6, 256.0), float)),
    )  # fmt: skip
    return jax.tree.map(lambda x: jnp.asarray(x, float), layers), hw


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_physics(dataflow):
    """Runtime >= MACs/PEs and >= traffic/bandwidth; traffic >= compulsory; parts sum to totals."""
    layers, hw = random_batch(2000)
    cost = jax.jit(jax.vmap(lambda a, b: systolic.layer(a, b, dataflow)))(layers, hw)
    slack = 1 - 1e-6
    assert np.all(cost.cycles >= slack * layers.macs / hw.peak_macs_per_cycle)
    assert np.all(cost.cycles >= slack * cost.dram_bytes / hw.dram_bytes_per_cycle)
    assert np.all(cost.cycles >= cost.cycle_parts["compute"])
    traffic = cost.traffic_bytes
    assert np.all(traffic["dram_weight_read"] >= slack * layers.weight_words)
    assert np.all(traffic["dram_output_write"] >= slack * layers.output_words)
    dense = (layers.stride_h <= layers.r) & (layers.pad_top * 2 == layers.r - 1) & (layers.stride_h == 1)
    assert np.all(np.where(dense, traffic["dram_input_read"] >= slack * layers.input_words, True))
    assert np.allclose(sum(cost.energy_parts.values()), cost.energy_pj, rtol=1e-5)
    assert np.allclose(sum(cost.area_parts.values()), cost.area_mm2, rtol=1e-5)
    assert np.all((cost.utilization > 0) & (cost.utilization <= 1 + 1e-6))
    assert all(np.all(np.isfinite(leaf)) and np.all(leaf >= 0) for leaf in jax.tree.leaves(cost))


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_more_bandwidth_never_slows_and_more_buffer_never_adds_traffic(dataflow):
    layers, hw = random_batch(1000, seed=3)
    run = jax.jit(jax.vmap(lambda a, b: systolic.layer(a, b, dataflow)))
    base = run(layers, hw)
    wide = run(
        layers, dataclasses.replace(hw, dram=dataclasses.replace(hw.dram, gb_per_s=2 * hw.dram.gb_per_s))
    )
    assert np.all(wide.cycles <= base.cycles)
    levels = tuple(dataclasses.replace(lv, capacity_bytes=2 * lv.capacity_bytes) for lv in hw.levels)
    large = run(layers, dataclasses.replace(hw, levels=levels))
    assert np.all(large.dram_bytes <= base.dram_bytes * (1 + 1e-6))


def small_network(pad_to=None):
    rows = [
        Layer.create(c=3, k=32, h=32, w=32, r=3, s=3, pad_top=1, pad_left=1),
        Layer.create(g=32, h=32, w=32, r=3, s=3, pad_top=1, pad_left=1, stride_h=2, stride_w=2),
        Layer.gemm(64, 300, 100),
    ]
    return Network.create(rows, counts=[1, 2, 3], pad_to=pad_to)


def test_network_is_the_masked_sum_of_its_layers():
    """Padding, the form of the loop, and batching change nothing."""
    hw = make_hw(12, 20)
    network = small_network()
    loop = [systolic.layer(row, hw, "ws") for row in network.rows()]
    cycles = sum(c * float(one.cycles) for c, one in zip((1, 2, 3), loop))
    energy = sum(c * float(one.energy_pj) for c, one in zip((1, 2, 3), loop))
    for form in ("vmap", "scan"):
        padded = jax.jit(lambda network, form=form: systolic(network, hw, "ws", layer_loop=form))
        for pad in (3, 16, 64):
            cost = padded(small_network(pad))
            assert float(cost.cycles) == pytest.approx(cycles, rel=1e-6)
            assert float(cost.energy_pj) == pytest.approx(energy, rel=1e-6)
            assert float(cost.macs) == pytest.approx(float(network.macs), rel=1e-6)
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), hw)
    both = jax.jit(jax.vmap(lambda h: systolic(network, h, "ws").cycles))(batch)
    assert np.allclose(both, cycles, rtol=1e-6)


def test_weights_over_dataflows_are_an_expectation_exact_at_one_hot():
    hw, network = make_hw(12, 20), small_network()
    each = [float(systolic(network, hw, name).energy_pj) for name in DATAFLOWS]
    weighted = jax.jit(lambda w: systolic(network, hw, w).energy_pj)
    chosen = jax.jit(lambda w: systolic(network, hw, w, one_hot=True, layer_loop="scan").energy_pj)
    for i in range(3):
        assert float(weighted(jnp.eye(3)[i])) == pytest.approx(each[i], rel=1e-6)
        assert float(chosen(jnp.eye(3)[i])) == pytest.approx(each[i], rel=1e-6)
    mixed = weighted(jnp.array([0.2, 0.3, 0.5]))
    assert float(mixed) == pytest.approx(0.2 * each[0] + 0.3 * each[1] + 0.5 * each[2], rel=1e-5)
    slope = lambda one_hot: jax.jit(
        jax.grad(lambda w: jnp.log(systolic(network, hw, w, one_hot=one_hot).edp))
    )(jnp.eye(3)[1])
    assert np.allclose(slope(True), slope(False), rtol=1e-4)
    per_layer = systolic(network, hw, ["os", "ws", "is"])
    rows = [systolic.layer(row, hw, name) for row, name in zip(network.rows(), DATAFLOWS)]
    assert float(per_layer.cycles) == pytest.approx(
        sum(c * float(x.cycles) for c, x in zip((1, 2, 3), rows)), rel=1e-6
    )


def test_activations_that_fit_stay_on_chip():
    hw = make_hw(12, 20, kb=(512, 512, 512))
    network = small_network()
    through, kept = systolic(network, hw, "ws"), systolic(network, hw, "ws", keep_activations=True)
    inner = sum(
        c * (float(i) + float(o))
        for c, i, o in zip((1, 2, 3), through.layers.traffic_bytes["dram_input_read"], through.layers.traffic_bytes["dram_output_write"])
    )  # fmt: skip
    assert inner > 0
    assert float(kept.dram_bytes) < float(through.dram_bytes)
    first = float(kept.layers.traffic_bytes["dram_input_read"][0])
    assert first == float(through.layers.traffic_bytes["dram_input_read"][0])
    assert float(kept.layers.traffic_bytes["dram_input_read"][1]) == 0
    assert float(kept.layers.traffic_bytes["dram_output_write"][2]) > 0


# ---- 4. Gradients -----------------------------------------------------------------------------------


def test_no_promised_gradient_is_silently_zero():
    layers, hw = random_batch(200, seed=5)
    bits = Precision.create()

    def log_edp(layer, hw, weights, bits):
        return jnp.log(systolic.layer(layer, hw, weights, bits).edp)

    grads = jax.jit(jax.vmap(jax.grad(log_edp, argnums=(0, 1, 2, 3)), (0, 0, None, None)))(
        layers, hw, jnp.array([0.3, 0.3, 0.4]), bits
    )
    layer_grad, hw_grad, weight_grad, bits_grad = grads
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(grads))
    promised = [layer_grad.k, layer_grad.c, layer_grad.p, hw_grad.rows, hw_grad.cols, hw_grad.dram.gb_per_s]
    promised += [level.capacity_bytes for level in hw_grad.levels] + [
        bits_grad.weight,
        bits_grad.input,
        bits_grad.psum,
    ]
    for grad in promised:
        assert np.mean(np.abs(grad) > 0) > 0.6
    assert np.all(np.any(weight_grad != 0, axis=-1))


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_gradients_are_exact_where_nothing_steps(dataflow):
    """Energy in technology, DRAM and bits has no step in it: finite differences must agree."""
    with jax.enable_x64(True):
        hw = make_hw(8.0, 8.0)
        layer = Layer.create(c=16, k=32, h=20, w=20, r=3, s=3)

        def energy(mac, dram, freq):
            tech = dataclasses.replace(hw.technology, multiplier_pj=mac)
            new = dataclasses.replace(
                hw, technology=tech, dram=dataclasses.replace(hw.dram, pj_per_bit=dram), freq_hz=freq
            )
            return systolic.layer(layer, new, dataflow).energy_pj * 1e-6

        args = (jnp.float64(0.06), jnp.float64(8.0), jnp.float64(1.0))

        def scaled(mac, dram, ghz):
            return energy(mac, dram, ghz * 1e9)

        check_grads(scaled, args, order=1, modes=("fwd", "rev"), rtol=1e-4)


def test_following_the_gradient_improves_the_hardened_design():
    """One step of 20 % against the gradient in (rows, cols), rounded: better than the step the other way."""
    network = small_network()

    def log_edp(rows, cols):
        return jnp.log(
            systolic(
                network, dataclasses.replace(make_hw(), rows=rows, cols=cols), jnp.array([1.0, 0, 0])
            ).edp
        )

    value, grad = jax.jit(log_edp), jax.jit(jax.grad(log_edp, (0, 1)))
    rng, wins, total = np.random.default_rng(0), 0, 0
    for _ in range(40):
        rows, cols = (float(np.round(np.exp(rng.uniform(np.log(8), np.log(200))))) for _ in "rc")
        gr, gc = (float(g) for g in grad(rows, cols))
        step = 1.25
        down = value(*(float(round(x * step ** -np.sign(g))) for x, g in ((rows, gr), (cols, gc))))
        up = value(*(float(round(x * step ** np.sign(g))) for x, g in ((rows, gr), (cols, gc))))
        total += 1
        wins += float(down) < float(up)
    assert wins / total >= 0.75, wins / total


def test_unknown_dataflow_and_missing_buffer():
    with pytest.raises(ValueError, match="os, ws, is"):
        systolic(small_network(), make_hw(), "rs")
    hw = make_hw()
    with pytest.raises(ValueError, match="no level keeps tensor 'o'"):
        systolic(small_network(), dataclasses.replace(hw, levels=hw.levels[:2]), "ws")


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_nothing_beats_the_roofline(dataflow):
    layers, hw = random_batch(2000, seed=7)
    cost = jax.jit(jax.vmap(lambda a, b: systolic.layer(a, b, dataflow)))(layers, hw)
    bound = jax.jit(jax.vmap(roofline.layer))(layers, hw)
    for figure in ("cycles", "energy_pj", "dram_bytes"):
        assert np.all(getattr(cost, figure) >= getattr(bound, figure) * (1 - 1e-6)), figure


def test_one_dataflow_per_layer_row_or_a_sentence():
    for mapping in (["os"], ["os"] * 2, jnp.tile(jnp.eye(3)[:1], (2, 1))):
        with pytest.raises(ValueError, match="dataflows for a network of 3 layer rows"):
            systolic(small_network(), make_hw(), mapping)
    with pytest.raises(ValueError, match="one dataflow per padded row"):
        jax.jit(lambda net: systolic(net, make_hw(), ["os"] * 3).cycles)(small_network())


def test_an_array_without_rows_is_not_feasible():
    assert (
        float(systolic(small_network(), dataclasses.replace(make_hw(), rows=jnp.float32(0.5)), "os").feasible)
        == 0
    )
