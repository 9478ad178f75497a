"""Hardware files: our YAML, SCALE-Sim .cfg, MAESTRO and GAMMA."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import hardware as h

SHORT = """\
rows: 16
cols: 32
levels:
- {name: weight, keeps: w, capacity_bytes: 65536}
- {name: activation, keeps: io, capacity_bytes: 131072}
dram: lpddr4
technology: {node_nm: 28, wire_pj_per_bit_mm: 0.1}
freq_hz: 5e8
"""


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.array_equal(x, y)


@pytest.mark.parametrize("name", h.names())
def test_yaml_round_trip_is_exact(name, tmp_path):
    hw = h.load(name)
    h.write_yaml(hw, tmp_path / "hw.yaml")
    same(h.load(tmp_path / "hw.yaml"), hw)


def test_yaml_round_trip_of_odd_numbers_and_ports(tmp_path):
    rng = np.random.default_rng(0)
    hw = h.load("cloud")
    hw = jax.tree.map(lambda x: jnp.where(jnp.isinf(x), x, x * jnp.float32(rng.uniform(0.5, 1.5))), hw)
    whole = {name: jnp.float32(value) for name, value in (("rows", 291), ("cols", 7), ("lanes", 3))}
    hw = replace(hw, dram=replace(hw.dram, kind=jnp.float32(-1)), **whole)
    h.write_yaml(hw, tmp_path / "hw.yaml")
    same(h.read_yaml(tmp_path / "hw.yaml"), hw)
    # Written in float32 and read in float64, a number is the float32 one and not its short decimal.
    with jax.enable_x64(True):
        wide = h.read_yaml(tmp_path / "hw.yaml")
        assert float(wide.dram.pj_per_bit) == float(hw.dram.pj_per_bit)
        h.write_yaml(wide, tmp_path / "wide.yaml")
        same(h.read_yaml(tmp_path / "wide.yaml"), wide)


def test_yaml_short_form_and_design_file(tmp_path):
    path = tmp_path / "hw.yaml"
    path.write_text(SHORT)
    hw = h.load(path)
    assert (float(hw.rows), float(hw.cols), float(hw.freq_hz)) == (16, 32, 5e8)
    same(hw.dram, h.dram("LPDDR4"))
    assert float(hw.technology.wire_pj_per_bit_mm) == pytest.approx(0.1)
    assert float(hw.technology.multiplier_pj) == float(h.Technology.at(28).multiplier_pj)
    assert float(hw.buffer("i")[1]) == 65536
    path.write_text("batch: 1\nhardware:\n" + "".join(f"  {line}\n" for line in SHORT.splitlines()))
    same(h.load(path), hw)
    path.write_text(SHORT.replace("dram: lpddr4", "dram: {kind: HBM2, gb_per_s: 512, pj_per_bit: 3}"))
    dram = h.load(path).dram
    assert float(dram.phy_area_mm2) == pytest.approx(2 * float(h.dram("HBM2").phy_area_mm2))
    assert float(dram.pj_per_bit) == 3 and h.dram_name(dram) == "HBM2"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows: 16", "row: 16", r"hw.yaml line 1 column 6: row is no known key; did you mean 'rows'"),
        ("rows: 16", "rows: many", r"hw.yaml line 1 column 7: rows must be a number, got 'many'"),
        ("rows: 16", "rows: 0", r"line 1 column 7: rows must be > 0 and finite, got 0"),
        ("rows: 16", "rows: -4", r"rows must be > 0 and finite, got -4"),
        ("rows: 16", "rows: .nan", r"rows must be > 0 and finite, got nan"),
        ("rows: 16", "rows: .inf", r"rows must be > 0 and finite, got inf"),
        ("rows: 16", "rows: true", r"rows must be a number, got True"),
        ("rows: 16", "rows: [1]", r"rows must be a number, got \[1\]"),
        ("rows: 16\n", "", r"needs the key 'rows'"),
        ("keeps: io", "keeps: xy", r"line 5 column 3: levels\[1\]: keeps must be distinct letters of 'wio'"),
        ("capacity_bytes: 131072", "capacity_bytes: 0", r"line 5 .*levels\[1\].capacity_bytes must be > 0"),
        ("capacity_bytes: 131072", "size: 3", r"levels\[1\].size is no known key"),
        ("dram: lpddr4", "dram: lpdr4", r"line 6 column 7: dram: unknown DRAM type 'lpdr4'; did you mean"),
        ("dram: lpddr4", "dram: {gb_per_s: 4}", r"dram needs the key 'pj_per_bit'"),
        ("dram: lpddr4", "dram: 7", r"dram must be a mapping"),
        ("node_nm: 28", "node_nm: 2", r"line 7 column 23: technology.node_nm: node_nm must be from 7 to 130"),
        ("wire_pj_per_bit_mm: 0.1", "wire_pj: 1", r"did you mean 'wire_pj_per_bit_mm'"),
        ("levels:", "levels: 3\nlanes:", r"levels must be a list of at least one level, got 3"),
        ("cols: 32", "cols: [32", r"hw.yaml line 3 column 7: broken YAML"),
        ("cols: 32", "cols: 3\t: 2", r"broken YAML"),
    ],
)
def test_yaml_mistakes_name_the_place(old, new, message, tmp_path):
    path = tmp_path / "hw.yaml"
    assert old in SHORT
    path.write_text(SHORT.replace(old, new))
    with pytest.raises(ValueError, match=message) as error:
        h.load(path)
    assert "\n" not in str(error.value)


def test_files_that_hold_nothing(tmp_path):
    path = tmp_path / "hw.yaml"
    path.write_text("")
    with pytest.raises(ValueError, match="must hold a mapping of keys, found nothing"):
        h.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a text file"):
        h.load(path)
    with pytest.raises(ValueError, match=r"cannot read .*: No such file"):
        h.read_yaml(tmp_path / "none.yaml")


def test_from_dict_takes_a_plain_place():
    data = h.to_dict(h.load("edge"))
    same(h.from_dict(data), h.load("edge"))
    data["rows"] = -1
    with pytest.raises(ValueError, match=r"^a design: rows must be > 0"):
        h.from_dict(data, "a design")


V1 = "[general]\nrun_name = x\n[architecture_presets]\nArrayHeight:    32  \nArrayWidth:     16\n"
V1 += "IfmapSramSz: 64\nFilterSramSz: 32\nOfmapSramSz: 128\nIfmapOffset: 0\nDataflow: os   \n"
V3 = """\
[general]
run_name = v3

[architecture_presets]
ARRAYHEIGHT : 256
arraywidth  : 128
IfmapSramSzkB : 6144
FilterSramSzkB : 6144
OfmapSramSzkB : 2048
Bandwidth : 10, 20, 30
Dataflow : WS
MemoryBanks : 1
ReadRequestBuffer : 32

[layout]
IfmapCustomLayout : False

[run_presets]
InterfaceBandwidth : CALC
UseRamulatorTrace : False
"""


def test_scalesim_cfg_of_v1_and_v3(tmp_path):
    path = tmp_path / "a.cfg"
    path.write_text(V1)
    hw, dataflow = h.read_scalesim_cfg(path)
    assert dataflow == "os" and (float(hw.rows), float(hw.cols)) == (32, 16)
    assert [float(hw.buffer(t)[1]) / 1024 for t in "iwo"] == [64, 32, 128]
    same(hw.dram, h.dram("LPDDR4"))
    path.write_text(V3)
    hw, dataflow = h.read_scalesim_cfg(path, freq_hz=2e9, word_bits=16)
    assert dataflow == "ws" and (float(hw.rows), float(hw.cols)) == (256, 128)
    assert float(hw.buffer("o")[1]) == 2048 * 1024
    assert float(hw.dram.gb_per_s) == pytest.approx(10 * 2 * 2)  # 10 words of 2 bytes, 2e9 times a second
    same(h.load(path).levels, hw.levels)
    path.write_text(V3.replace("Dataflow : WS\n", ""))
    assert h.read_scalesim_cfg(path)[1] is None


def test_scalesim_cfg_round_trip(tmp_path):
    hw = h.load("edge")
    hw = replace(hw, dram=h.dram("LPDDR4", gb_per_s=12))
    h.write_scalesim_cfg(hw, "is", tmp_path / "a.cfg")
    again, dataflow = h.read_scalesim_cfg(tmp_path / "a.cfg")
    assert dataflow == "is" and float(again.dram.gb_per_s) == 12
    for tensor in "wio":
        assert float(again.buffer(tensor)[1]) == float(hw.buffer(tensor)[1])
    assert ";" not in (tmp_path / "a.cfg").read_text()
    h.write_scalesim_cfg(h.load("edge"), "os", tmp_path / "b.cfg")  # 12.8 words per cycle
    assert "; Bandwidth 12.8 written as 12" in (tmp_path / "b.cfg").read_text()
    assert float(h.load(tmp_path / "b.cfg").dram.gb_per_s) == 12
    with pytest.raises(ValueError, match="dataflow must be one of os, ws, is"):
        h.write_scalesim_cfg(hw, "rs", tmp_path / "c.cfg")
    with pytest.raises(ValueError, match=r"ArrayHeight must be a whole number, got 2.5"):
        h.write_scalesim_cfg(replace(hw, rows=jnp.float32(2.5)), "os", tmp_path / "c.cfg")
    assert not (tmp_path / "c.cfg").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ARRAYHEIGHT", "ArrayHieght", r"needs the key ArrayHeight; did you mean that by 'arrayhieght'"),
        ("ARRAYHEIGHT : 256", "ArrayHeight : tall", r"a.cfg: ArrayHeight must be a number, got 'tall'"),
        ("ARRAYHEIGHT : 256", "ArrayHeight : 2.5", r"ArrayHeight must be a whole number, got 2.5"),
        ("ARRAYHEIGHT : 256", "ArrayHeight : 0", r"ArrayHeight must be > 0"),
        ("OfmapSramSzkB : 2048", "OfmapSramSzkB : nan", r"OfmapSramSzkB must be > 0 and finite, got nan"),
        ("OfmapSramSzkB : 2048", "x : 1", r"needs the key OfmapSramSzkB"),
        ("Bandwidth : 10, 20, 30", "Bandwidth : -1", r"Bandwidth must be > 0"),
        ("Dataflow : WS", "Dataflow : rs", r"Dataflow must be one of os, ws, is, got 'rs'"),
        ("[architecture_presets]", "[arch]", r"needs a section \[architecture_presets\]; sections found"),
        ("[general]", "general", r"is no SCALE-Sim .cfg: .*line: 1"),
    ],
)
def test_scalesim_cfg_mistakes(old, new, message, tmp_path):
    path = tmp_path / "a.cfg"
    assert old in V3
    path.write_text(V3.replace(old, new))
    with pytest.raises(ValueError, match=message) as error:
        h.load(path)
    assert "\n" not in str(error.value)


MAESTRO = """\
num_pes: 56 // on two rows
l1_size_cstr: 512

l2_size_cstr: 108000
noc_bw_cstr: 32
offchip_bw_cstr: 16
NoC_NumHops: 2
"""


def test_maestro_and_gamma_files(tmp_path):
    path = tmp_path / "accelerator_1.m"
    path.write_text(MAESTRO)
    hw = h.load(path)
    assert (float(hw.rows), float(hw.cols)) == (7, 8)
    assert [level.name for level in hw.levels] == ["l1", "l2"] and float(hw.levels[0].instances) == 56
    level, share = hw.buffer("w")
    assert level.name == "l2" and float(share) == pytest.approx(36000)
    assert float(level.read_bytes_per_cycle) == 32
    assert float(hw.dram_bytes_per_cycle) == pytest.approx(16)
    assert h.read_maestro_keys(path)["NoC_NumHops"] == 2
    gamma = tmp_path / "hw_config.m"
    gamma.write_text("NumPEs: 56\nL1Size: 512\nL2Size: 108000\nNoC_BW: 32\n")
    again = h.load(gamma)
    same(again.levels, hw.levels)
    assert h.dram_name(again.dram) == "LPDDR4"
    gamma.write_text("NumPEs: 7\nL2Size: 100")
    prime = h.load(gamma)
    assert (float(prime.rows), float(prime.cols), len(prime.levels)) == (1, 7, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_pe: 4\n", r"hw.m line 1: unknown key 'num_pe'; did you mean 'num_pes'"),
        ("num_pes: 4\nl2_size_cstr: big\n", r"hw.m line 2: l2_size_cstr must be an integer, got 'big'"),
        ("num_pes: 0\n", r"line 1: num_pes must be >= 1, got 0"),
        ("num_pes 4\n", r"line 1: expected 'key: integer', got 'num_pes 4'"),
        ("num_pes: 4\n", r"needs l2_size_cstr"),
        ("// nothing\n", r"holds no hardware"),
    ],
)
def test_maestro_mistakes(text, message, tmp_path):
    path = tmp_path / "hw.m"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        h.load(path)


def test_rows_are_whole_and_every_tensor_has_a_home(tmp_path):
    data = h.to_dict(h.load("edge"))
    with pytest.raises(ValueError, match=r"rows must be a whole number, got 3.5"):
        h.from_dict(data | {"rows": 3.5})
    with pytest.raises(ValueError, match=r"no level keeps 'w' of w, i, o"):
        h.from_dict(data | {"levels": [level for level in data["levels"] if level["keeps"] != "w"]})
