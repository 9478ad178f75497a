"""Accelerator: area and leakage by hand, gradients, transforms, how it shows itself."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffhw import hardware as h


def design(rows=2.0, cols=3.0, **other):
    levels = [h.Level.create(name=k, keeps=k, capacity_bytes=2048) for k in "wio"]
    return h.Accelerator.create(rows=rows, cols=cols, levels=levels, dram=h.dram("LPDDR4"), **other)


def test_area_on_paper():
    """6 PEs of one MAC (8 x 8 + 32 bit) and 48 register bits; 6 links of 48 bits; 3 buffers of 2 KiB."""
    hw = design()
    t = hw.technology
    pe = float(t.multiplier_um2 + 32 * t.adder_um2_per_bit + 48 * t.register_um2_per_bit) * 1e-6
    pitch_um = np.sqrt(pe) * 1e3
    noc = 6 * 48 * pitch_um * float(t.wire_um2_per_bit_um) * 1e-6
    sram = 3 * float(t.sram_mm2) * 2 ** float(t.sram_area_power)
    parts = h.area_parts(hw)
    assert float(parts["pe"]) == pytest.approx(6 * pe, rel=1e-5)
    assert float(parts["noc"]) == pytest.approx(noc, rel=1e-5)
    assert float(parts["sram"]) == pytest.approx(sram, rel=1e-5)
    assert float(parts["phy"]) == 1.5
    assert float(h.area_mm2(hw)) == pytest.approx(6 * pe + noc + sram + 1.5, rel=1e-5)
    leak = 6144 * float(t.sram_leakage_w_per_byte) + (6 * pe + noc) * float(t.logic_leakage_w_per_mm2)
    assert float(h.leakage_w(hw)) == pytest.approx(leak, rel=1e-5)


def test_a_switchable_array_pays():
    fixed, flexible = design(), design(flexible=1)
    ratio = float(flexible.pe_area_mm2() / fixed.pe_area_mm2())
    assert ratio == pytest.approx(1 + float(fixed.technology.switch_area_fraction))


def test_area_grows_with_everything_that_grows():
    hw = design(rows=8.0, cols=8.0)
    base = float(h.area_mm2(hw))
    for name in ("rows", "cols", "lanes", "weight_bits", "input_bits", "psum_bits"):
        bigger = replace(hw, **{name: getattr(hw, name) * 2})
        assert float(h.area_mm2(bigger)) > base, name
        slope = jax.grad(lambda x, n=name: h.area_mm2(replace(hw, **{n: x})))(getattr(hw, name))
        assert float(slope) > 0, name
    slopes = jax.grad(lambda levels: h.area_mm2(replace(hw, levels=levels)))(hw.levels)
    assert all(float(level.capacity_bytes) > 0 for level in slopes)


def test_gradients_agree_with_differences():
    with jax.enable_x64(True):
        hw = design(rows=8.0, cols=12.0)

        def total(rows, cols, capacity):
            levels = tuple(replace(level, capacity_bytes=capacity) for level in hw.levels)
            out = replace(hw, rows=rows, cols=cols, levels=levels)
            return h.area_mm2(out) + 100 * h.leakage_w(out)

        at = (hw.rows, hw.cols, jnp.float64(3000.0))
        check_grads(total, at, order=1, modes=("fwd", "rev"), rtol=1e-4)


def test_transforms_agree():
    sizes = jnp.array([4.0, 16.0, 64.0, 256.0])
    hw = design()

    def area(rows):
        return h.area_mm2(replace(hw, rows=rows))

    looped = [float(area(rows)) for rows in sizes]
    np.testing.assert_allclose(jax.jit(jax.vmap(area))(sizes), looped, rtol=1e-6)
    slopes = [float(jax.grad(area)(rows)) for rows in sizes]
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(area)))(sizes), slopes, rtol=1e-6)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("population",))
    split = jax.device_put(sizes, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("population")))
    np.testing.assert_allclose(jax.jit(jax.vmap(area))(split), looped, rtol=1e-6)


def test_buffer_is_the_one_that_faces_the_dram():
    pad = h.Level.create(name="pad", keeps="w", capacity_bytes=64, instances=6)
    shared = h.Level.create(name="shared", keeps="wio", capacity_bytes=3000, instances=2)
    hw = replace(design(), levels=(pad, shared))
    level, share = hw.buffer("w")
    assert level is shared and float(share) == 2000
    with pytest.raises(ValueError, match="no level keeps tensor 'i'"):
        replace(hw, levels=(pad,)).buffer("i")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows must be > 0, got 0"),
        ({"cols": float("nan")}, "cols must be > 0, got nan"),
        ({"rows": "ten"}, "rows must be a number, got 'ten'"),
        ({"weight_bits": -8}, "weight_bits must be > 0, got -8"),
        ({"freq_hz": 0}, "freq_hz must be > 0"),
    ],
)
def test_create_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        design(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keeps": "x"}, "keeps must be distinct letters of 'wio', got 'x'"),
        ({"keeps": "ww"}, "keeps must be distinct letters"),
        ({"capacity_bytes": 0}, "buffer.capacity_bytes must be > 0"),
        ({"word_bits": -1}, "buffer.word_bits must be > 0"),
    ],
)
def test_level_create_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        h.Level.create(**({"capacity_bytes": 1024} | change))


def test_it_shows_itself():
    text = repr(h.load("eyeriss"))
    assert "12 rows x 14 columns" in text and "168 x 448 B for w" in text and "LPDDR4, 0.48 GB/s" in text
    assert "65 nm" in text and "mm2 (pe" in text
    assert "switchable" in repr(design(flexible=1))
    page = h.load("eyeriss")._repr_html_()
    assert page.startswith("<table>") and page.count("<tr>") == page.count("</tr>")


def test_it_shows_itself_whatever_its_leaves_are():
    hw = design()
    seen = []

    def look(hw):
        seen.append(repr(hw))
        seen.append(hw._repr_html_())
        return h.area_mm2(hw)

    jax.jit(look)(hw)
    assert "traced ()" in seen[0]
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), hw)
    assert "2 to 4 (2,) rows" in repr(batch)
    odd = replace(hw, rows="<Integer 4..256>", dram="Choice", levels=("any", hw.levels[0]), technology=None)
    assert "<Integer 4..256>" in repr(odd) and "&lt;Integer" in odd._repr_html_()
    assert repr(jax.tree.map(lambda leaf: None, hw)) and repr(jax.tree.map(lambda leaf: leaf.shape, hw))
