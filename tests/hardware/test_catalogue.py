"""The catalogue: published facts, plausible areas, fair comparison."""

import jax
import jax.numpy as jnp
import pytest

from diffhw import hardware as h
from diffhw import models, workloads

NAMES = (
    "eyeriss",
    "tpu_v1",
    "nvdla_small",
    "nvdla_large",
    "shidiannao",
    "gemmini",
    "edge",
    "mobile",
    "cloud",
)


def test_names():
    assert h.names() == NAMES


@pytest.mark.parametrize(
    ("name", "pes", "bits", "mhz", "kib", "node"),
    [
        ("eyeriss", 168, 16, 200, 108, 65),  # 100 + 8 KiB of buffer, the PEs' pads apart
        ("tpu_v1", 65536, 8, 700, 28 * 1024 + 256, 28),
        ("nvdla_small", 64, 8, 1000, 128, 16),
        ("nvdla_large", 2048, 8, 1000, 512, 16),
        ("shidiannao", 64, 16, 1000, 256, 65),
        ("gemmini", 256, 8, 1000, 320, 22),
    ],
)
def test_published_facts(name, pes, bits, mhz, kib, node):
    entry = h.catalogue_entry(name)
    hw = entry.hardware
    ours = {"weight_pad"} | ({"accumulators"} if name.startswith("nvdla") else set())
    total = sum(float(level.capacity_bytes) for level in hw.levels if level.name not in ours)
    assert (float(hw.pes), float(hw.weight_bits), float(hw.freq_hz) / 1e6) == (pes, bits, mhz)
    assert (total / 1024, float(hw.technology.node_nm)) == (kib, node)
    assert "recalled" in entry.source or "read" in entry.source


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_says_its_source_and_runs(name):
    entry = h.catalogue_entry(name)
    assert entry.dataflow in ("os", "ws", "is") and entry.source and entry.notes
    for tensor in "wio":
        assert float(entry.hardware.buffer(tensor)[1]) > 0
    if name in ("edge", "mobile", "cloud"):
        assert entry.source.startswith("ours")
    assert float(h.area_mm2(entry.hardware)) > 0 and float(h.leakage_w(entry.hardware)) > 0


# Published mm2, ours without the PHY, ours / published, as first measured. Ours counts the named cells
# only (no control, clock tree, placement density), so it must lie below, within an order of magnitude.
PLAUSIBLE = {
    "eyeriss": (12.25, 2.36, 0.19),
    "tpu_v1": (331.0, 70.6, 0.21),  # the published figure is an upper bound on the die
    "shidiannao": (4.86, 2.73, 0.56),
    "gemmini": (0.806, 0.39, 0.48),
}


@pytest.mark.parametrize("name", PLAUSIBLE)
def test_areas_are_plausible(name):
    entry = h.catalogue_entry(name)
    published, measured, ratio = PLAUSIBLE[name]
    parts = h.area_parts(entry.hardware)
    ours = float(sum(value for part, value in parts.items() if part != "phy"))
    assert entry.published_area_mm2 == published and entry.published_area_is
    assert ours == pytest.approx(measured, rel=0.01)
    assert ours / published == pytest.approx(ratio, abs=0.01)
    assert 0.1 < ours / published < 1.0


def test_a_large_array_at_22_nm():
    """256 x 256 8-bit MACs with registers, links and an LPDDR4 PHY: the size the main job's budgets face."""
    levels = [h.Level.create(name=k, keeps=k, capacity_bytes=8192) for k in "wio"]
    hw = h.Accelerator.create(rows=256, cols=256, levels=levels, dram=h.dram("LPDDR4"))
    parts = h.area_parts(hw)
    assert 10 < float(parts["pe"] + parts["noc"] + parts["phy"]) < 25


def test_normalise_keeps_the_array_and_replaces_the_rest():
    eyeriss = h.load("eyeriss")
    same = h.normalise(eyeriss, dram="HBM2")
    assert (float(same.rows), float(same.cols)) == (12, 14)
    assert jax.tree.leaves(same.levels) == jax.tree.leaves(eyeriss.levels)
    assert float(same.technology.node_nm) == 22 and float(same.freq_hz) == 1e9
    assert (float(same.weight_bits), float(same.input_bits), float(same.psum_bits)) == (8, 8, 32)
    assert h.dram_name(same.dram) == "HBM2"
    assert float(h.area_parts(same)["pe"]) < float(h.area_parts(eyeriss)["pe"])
    technology, dram = h.Technology.at(7), h.Dram.create(gb_per_s=5, pj_per_bit=1)
    other = h.normalise(eyeriss, technology=technology, dram=dram)
    assert other.technology is technology and other.dram is dram
    with pytest.raises(ValueError, match="weight_bits must be > 0"):
        h.normalise(eyeriss, weight_bits=0)
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), eyeriss)
    assert h.normalise(twice).rows.tolist() == [12, 24]


def test_a_catalogue_design_runs_a_layer():
    layer = workloads.Layer.create(c=16, k=32, p=14, q=14, r=3, s=3)
    cost = jax.jit(models.systolic.layer, static_argnums=2)
    for name in ("gemmini", "eyeriss"):
        got = cost(layer, h.load(name), "ws")
        assert float(got.cycles) >= float(got.macs) / float(h.load(name).pes)


def test_unknown_names_and_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'eyeriss'"):
        h.load("eyeris")
    with pytest.raises(ValueError, match="unknown hardware 'tpu'"):
        h.catalogue_entry("tpu")
    with pytest.raises(ValueError, match=r"no such file: .*missing.yaml"):
        h.load(tmp_path / "missing.yaml")


def test_entries_follow_the_default_dtype():
    with jax.enable_x64(True):
        assert h.load("edge").rows.dtype == jnp.float64
    assert h.load("edge").rows.dtype == jnp.float32
