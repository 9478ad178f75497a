"""Costs of bit assignments: integers in plain Python, and gradients that point the right way."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffhw import hardware
from diffhw.mappings import Precision
from diffhw.models import (
    bit_fusion,
    bit_precision,
    bit_serial,
    bops,
    brick_slices,
    fixed_array,
    model_size,
    roofline,
)
from diffhw.workloads import Layer, Network

LAYERS = [
    Layer.create(c=16, k=32, h=20, w=20, r=3, s=3),
    Layer.create(g=32, k=1, c=1, h=18, w=18, r=3, s=3, pad_top=1, pad_left=1),
    Layer.gemm(1, 512, 100),
]
NETWORK = Network.create(LAYERS, counts=[1, 2, 1])
HW = hardware.load("edge")
MODELS = {
    "fixed": fixed_array,
    "serial": bit_serial,
    "serial input": lambda *a, **k: bit_serial(*a, serial="input", **k),
    "serial weight": lambda *a, **k: bit_serial(*a, serial="weight", **k),
    "fusion": bit_fusion,
}


def bricks(b):
    return next(n for n in (1, 2, 4, 8, 16) if 2 * n >= b)


def share(kind, w, a):
    """Work of a MAC, as (numerator, denominator) of the 8 x 8 bit MAC's."""
    up = lambda b: math.ceil(b / 8)
    return {
        "fixed": (up(w) * up(a), 1),
        "serial": (w * a, 64),
        "serial input": (up(w) * a, 8),
        "serial weight": (w * up(a), 8),
        "fusion": (bricks(w) * bricks(a), 16),
    }[kind]


def cycles_of(layer, kind, w, a):
    """Weight-stationary folds in integers: rows hold K, columns hold N, time runs over M."""
    get = lambda name: int(getattr(layer, name))
    rows, cols, lanes = int(HW.rows), int(HW.cols), int(HW.lanes)
    top, bottom = share(kind, w, a)
    k = -(-get("c") * get("r") * get("s") * top // (lanes * bottom))
    folds = -(-k // rows) * -(-get("k") // cols)
    return get("g") * folds * (get("n") * get("p") * get("q") + 2 * rows + cols - 2)


@pytest.mark.parametrize("kind", MODELS)
def test_cycles_and_energy_in_integers(kind):
    fast = replace(HW, dram=replace(HW.dram, gb_per_s=jnp.float32(1e9)))
    run = jax.jit(lambda precision: MODELS[kind](NETWORK, fast, "ws", precision).by_layer())
    full = float(HW.technology.mac_energy_pj(8.0, 8.0, 32.0))
    assert int(HW.weight_bits) == int(HW.input_bits) == 8
    for w, a in ((8, 8), (1, 1), (2, 2), (3, 5), (4, 8), (8, 2), (7, 3), (16, 9)):
        cost = run(bit_precision(NETWORK, float(w), float(a)))
        top, bottom = share(kind, w, a)
        for i, (layer, count) in enumerate(zip(LAYERS, (1, 2, 1))):
            assert float(cost.cycles[i]) == count * cycles_of(layer, kind, w, a), (kind, w, a, i)
            want = count * float(layer.macs) * full * top / bottom
            assert float(cost.energy_parts["mac"][i]) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_at_full_width_all_arrays_are_one(kind):
    one, other = MODELS[kind](NETWORK, HW), fixed_array(NETWORK, HW)
    np.testing.assert_allclose(one.cycles, other.cycles)
    np.testing.assert_allclose(one.energy_pj, other.energy_pj, rtol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_physics(kind):
    """Never below the DRAM's time or its compulsory traffic; parts add up; overhead only costs energy."""
    for w, a in ((8.0, 8.0), (2.0, 4.0), (1.0, 1.0)):
        precision = bit_precision(NETWORK, w, a)
        cost, bound = (
            MODELS[kind](NETWORK, HW, "os", precision),
            roofline(NETWORK, HW, None, Precision.create(weight=w, input=a)),
        )
        np.testing.assert_allclose(cost.dram_bytes, bound.dram_bytes, rtol=1e-6)
        assert float(cost.cycles) >= float(cost.dram_bytes / HW.dram_bytes_per_cycle) * (1 - 1e-6)
        np.testing.assert_allclose(sum(cost.energy_parts.values()), cost.energy_pj, rtol=1e-5)
        np.testing.assert_allclose(cost.macs, NETWORK.macs)
        scan = MODELS[kind](NETWORK, HW, "os", precision, layer_loop="scan")
        np.testing.assert_allclose(scan.energy_pj, cost.energy_pj, rtol=1e-5)


def test_narrow_bits_on_a_fixed_array_save_traffic_only():
    wide, narrow = (fixed_array(NETWORK, HW, "ws", bit_precision(NETWORK, b, b)) for b in (8.0, 4.0))
    np.testing.assert_allclose(narrow.cycle_parts["compute"], wide.cycle_parts["compute"])
    np.testing.assert_allclose(narrow.dram_bytes, wide.dram_bytes / 2)
    assert float(narrow.energy_parts["mac"]) == float(wide.energy_parts["mac"])


@pytest.mark.parametrize("kind", ["serial", "fusion"])
def test_slopes_point_down_and_are_finite(kind):
    def total(bits, part):
        precision = bit_precision(NETWORK, bits[0], bits[1])
        return part(MODELS[kind](NETWORK, HW, "ws", precision))

    for part in (lambda c: c.energy_pj, lambda c: c.latency_s):
        for w, a in ((6.0, 6.0), (5.3, 7.9), (8.0, 3.0)):
            slopes = jax.grad(total)(jnp.array([[w] * 3, [a] * 3]), part)
            assert np.all(np.isfinite(slopes)) and np.all(slopes[:, 0] > 0)
    half = lambda b: MODELS[kind](NETWORK, HW, "ws", bit_precision(NETWORK, b, b)).energy_pj
    batched = jax.jit(jax.vmap(half))(jnp.array([2.0, 4.0, 8.0]))
    np.testing.assert_allclose(batched, [half(b) for b in (2.0, 4.0, 8.0)], rtol=1e-5)
    assert batched[0] < batched[1] < batched[2]


def test_bit_serial_energy_is_smooth():
    with jax.enable_x64(True):
        layer = Layer.create(c=16, k=32, h=20, w=20, r=3, s=3)
        hw = hardware.load("edge")
        precision = lambda b: Precision.create(weight=b[0], input=b[1])
        energy = lambda b: bit_serial.layer(layer, hw, "ws", precision(b)).energy_parts["mac"] / 1e6
        check_grads(energy, (jnp.array([5.3, 6.1]),), 1, ["fwd", "rev"])


def test_size_and_bit_operations():
    bits, inputs = [8.0, 4.0, 2.5], [8.0, 6.0, 3.0]
    weights = [16 * 32 * 9, 2 * 32 * 9, 51200]
    macs = [float(layer.macs) * n for layer, n in zip(LAYERS, (1, 2, 1))]
    want = sum(w * b for w, b in zip(weights, bits)) / 8
    for of in (NETWORK, weights):
        assert float(model_size(of, bits)) == pytest.approx(want, rel=1e-6)
    want = sum(m * b * a for m, b, a in zip(macs, bits, inputs))
    for of in (NETWORK, macs):
        assert float(bops(of, bits, inputs)) == pytest.approx(want, rel=1e-6)
    assert float(model_size(NETWORK, 8)) == sum(weights)
    np.testing.assert_allclose(
        jax.grad(lambda b: model_size(weights, b))(jnp.array(bits)), np.array(weights) / 8
    )
    rows = jnp.array([bits, [1.0, 2.0, 3.0]])
    np.testing.assert_allclose(jax.vmap(lambda b: model_size(NETWORK, b))(rows)[0], model_size(NETWORK, bits))


def test_slices():
    for b in range(1, 33):
        assert float(brick_slices(float(b))) == bricks(b)
    assert [float(jax.grad(brick_slices)(b)) > 0 for b in (1.0, 2.0, 3.0, 4.0, 8.0)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_outputs_are_stored_for_the_next_layer():
    precision = bit_precision(NETWORK, 4, [8.0, 6.0, 3.0], last=16)
    assert precision.output[:3].tolist() == [6.0, 3.0, 16.0]
    assert precision.weight.shape == NETWORK.mask.shape


def test_sentences():
    with pytest.raises(ValueError, match="one per layer: got"):
        bit_precision(NETWORK, [8, 8])
    with pytest.raises(ValueError, match="bits must be > 0, got 0"):
        bit_precision(NETWORK, 8, [8, 0, 8])
    with pytest.raises(ValueError, match="2 bit widths for 3 layers"):
        model_size([1, 2, 3], [8, 8])
    with pytest.raises(ValueError, match="serial must be one of both, input, weight"):
        bit_serial(NETWORK, HW, serial="weights")
    with pytest.raises(ValueError, match="dataflow must be one of"):
        bit_fusion(NETWORK, HW, "rs")
