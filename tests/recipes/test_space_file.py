"""space.yaml: what it means, and one sentence with file and line for every mistake."""

import pathlib

import jax
import numpy as np
import pytest

from diffhw import hardware
from diffhw.recipes import read_space

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path):
    def put(text, name="space.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return put


def test_the_example_of_the_docs():
    file = read_space(ROOT / "docs" / "examples" / "space.yaml")
    assert file.model == "systolic" and file.limits == {"area_mm2": 12.0}
    assert file.space.names[:3] == ("dataflow", "rows", "cols") and file.space.size == 3_857_868
    design = file.space.at([1, 0, 20, 0, 1, 2, 3])
    assert float(design["hardware"].rows) == 8 and float(design["hardware"].cols) == 256
    assert np.asarray(design["dataflow"]).tolist() == [0, 1, 0]
    assert [float(level.capacity_bytes) for level in design["hardware"].levels] == [16384, 32768, 65536]
    assert hardware.dram_name(design["hardware"].dram) == "HBM2"


def test_fixed_ties_parts_and_a_subset_of_dataflows(write):
    path = write(
        """
base: edge
fixed: {freq_hz: 5e8, technology.node_nm: 16, dram: HBM2}
variables:
  rows: {values: [8, 16]}
  cols: rows
  levels.input.capacity_bytes: {integer: [1024, 4096], step: 1024}
  levels.2.capacity_bytes: levels.input.capacity_bytes
  weight_bits: {bits: [2, 8]}
  dram.gb_per_s: {real: [10, 40], per_octave: 2}
  dataflow: {choice: [is, os]}
"""
    )
    file = read_space(path)
    space = file.space
    assert space.names == ("dataflow", "rows", "weight_bits", "levels.1.capacity_bytes", "dram.gb_per_s")
    assert space.variables[1].paths == ("rows", "cols") and space.size == 2 * 2 * 7 * 4 * 5
    assert float(file.base.freq_hz) == 5e8 and float(file.base.technology.node_nm) == 16
    design = space.at([0, 1, 0, 3, 4])
    hw = design["hardware"]
    assert np.asarray(design["dataflow"]).tolist() == [0, 0, 1]
    assert float(hw.cols) == 16 and float(hw.levels[2].capacity_bytes) == 4096
    assert float(hw.dram.gb_per_s) == pytest.approx(40) and file.dataflow is None


def test_the_base_brings_its_dataflow(write):
    text = "base: shidiannao\nvariables: {rows: {values: [4, 8]}}\n"
    assert read_space(write(text)).dataflow == "os"
    assert read_space(write("fixed: {dataflow: is}\n" + text)).dataflow == "is"


def test_a_base_file_beside_the_space(write):
    hardware.write_yaml(hardware.load("edge"), write("").with_name("mine.yaml"))
    file = read_space(write("base: mine.yaml\nvariables: {rows: {values: [4, 8]}}\n"))
    assert file.dataflow == "ws" and file.space.size == 2


def test_node_as_a_choice_of_whole_technologies(write):
    file = read_space(write("base: edge\nvariables: {technology.node_nm: {choice: [7, 22]}}\n"))
    assert file.space.labels([0]) == {"technology": "7"}
    small, large = (file.space.at([i])["hardware"].technology for i in (0, 1))
    assert float(small.node_nm) == 7 and float(small.mac_area_mm2(8, 8, 32)) < float(
        large.mac_area_mm2(8, 8, 32)
    )


def test_hierarchies_by_their_sizes(write):
    file = read_space(write("model: loopnest\nbase: gemmini\nvariables: {pe_dim: {values: [8, 16]}}\n"))
    assert file.space.names == ("pe_dim",)
    assert float(file.build(file.space.at([0])["hardware"]).macs_per_cycle) == 64
    only_mappings = read_space(write("model: loopnest\nbase: gemmini\nlayer: conv2\n"))
    assert only_mappings.layer == "conv2"
    with pytest.raises(ValueError, match="at least one variable"):
        _ = only_mappings.space


def test_an_accelerator_for_the_loop_nest_model(write):
    text = "model: loopnest\nbase: edge\nfixed: {dataflow: os}\nvariables: {rows: {values: [4, 8]}}\n"
    file = read_space(write(text))
    chip = file.build(file.space.at([1])["hardware"])
    assert float(chip.macs_per_cycle) == 8 * 16 and float(chip.area_mm2) > 0
    assert chip.levels[1].spatial_y == "npq" and file.dataflow is None
    areas = jax.vmap(lambda row: file.build(file.space.at(row)["hardware"]).area_mm2)(np.array([[0], [1]]))
    np.testing.assert_allclose(areas[1], chip.area_mm2, rtol=1e-6)


V = "base: edge\nvariables:\n  "
MISTAKES = {
    "": "must hold a mapping",
    "- 1": "must hold a mapping of keys",
    "base: [": "line 1 column",
    "a: 1\na: 2": "line 2: the key 'a' stands twice, first in line 1",
    "bse: edge": "line 1: bse is no known key; did you mean 'base'?",
    "variables: {}": "needs the key 'base'",
    "base: 7\n": "line 1: base must be a catalogue name",
    "base: edgy\nvariables: {}": "line 1: base: unknown hardware 'edgy'; did you mean 'edge'",
    "base: gone.yaml\nvariables: {}": "no such file",
    "base: edge": "needs 'variables'",
    "base: edge\nvariables: {}": "line 2: variables names no number",
    "base: edge\nvariables: 3": "line 2: variables must be a mapping",
    "base: edge\nmodel: systolik": "line 2: model must be one of systolic, dataflow, loopnest",
    "base: edge\nlayer: conv1": "line 2: layer is for the loopnest model",
    "base: edge\nfixed: {rows: 2.5}": "rows must be a whole number, got 2.5",
    "base: edge\nfixed: {rows: many}": "line 2: fixed.rows must be a number, got 'many'",
    "base: edge\nfixed: {dram: DDR9}": "fixed.dram: unknown DRAM type 'DDR9'",
    "base: edge\nfixed: {dataflow: wss}": "unknown name 'wss'; did you mean 'ws'?",
    "base: edge\nconstraints: {area: 4}": "variables",
    V
    + "rows: {values: [4]}\nconstraints: {area: 4}": "line 4: constraints.area is no known key; did you mean",
    V + "rows: {values: [4]}\nconstraints: {area_mm2: -4}": "line 4: constraints.area_mm2 must be > 0",
    V + "rowz: {values: [4]}": "line 3: variables.rowz is no number of edge; did you mean 'rows'?",
    V + "levels.weights.capacity_bytes: {values: [4]}": "did you mean 'levels.weight.capacity_bytes'",
    V + "levels.9.capacity_bytes: {values: [4]}": "line 3",
    V + "rows: 4": "line 3: variables.rows is one number, 4: put it under 'fixed'",
    V + "rows: [4, 8]": "variables.rows (a variable, such as",
    V + "rows: {integer: [8, 4]}": "line 3: variables.rows.integer is empty: its lowest, 8, is above",
    V + "rows: {integer: [8]}": "must be [lowest, highest]",
    V + "rows: {integer: 8}": "must be [lowest, highest]",
    V + "rows: {integer: [a, 8]}": "variables.rows.integer[0] must be a number, got 'a'",
    V + "rows: {integer: [1.5, 8]}": "must be two whole numbers",
    V + "rows: {integer: [0, 8]}": "rows must be > 0, got 0",
    V + "rows: {integer: [-1, 8]}": "must be >= 0",
    V + "rows: {integer: [4, 8], stp: 2}": "variables.rows.stp is no known key; did you mean 'step'?",
    V + "rows: {integer: [4, 8], step: 9}": "variables.rows.step: 9 is wider than the range",
    V + "rows: {integer: [4, 8], step: 2, per_octave: 1}": "give one of step, per_octave and values",
    V + "rows: {integer: [4, 8], scale: lin}": "scale must be log or linear, got 'lin'",
    V + "rows: {integer: [4, 8], values: [3]}": "needs exactly one of integer, real",
    V + "rows: {scale: log}": "needs exactly one of integer, real, bits, values, choice, got none",
    V + "rows: {real: [4, 8]}": "rows takes whole numbers",
    V + "rows: {values: [4.5]}": "rows takes whole numbers",
    V + "rows: {values: []}": "variables.rows.values is empty",
    V + "rows: {values: [4, 4]}": "4 is listed twice",
    V + "rows: {choice: [4]}": "rows is a number; give integer, real or values",
    V + "dataflow: {values: [ws]}": "dataflow takes choice",
    V + "dataflow: {choice: [ws, xs]}": "line 3: variables.dataflow.choice[1]: unknown name 'xs'",
    V + "dram: {choice: [LPDDR5]}": "unknown DRAM type 'LPDDR5'",
    V + "technology.node_nm: {values: [-3]}": "technology.node_nm.values[0] must be > 0",
    V
    + "dram: {choice: [HBM2]}\n  dram.gb_per_s: {values: [3]}": "line 4: variables.dram.gb_per_s: the whole dram",
    V + "rows: cols": "line 3: variables.rows is tied to 'cols', which is no variable of this file",
    V + "rows: rows": "is tied to itself",
    V
    + "rows: {values: [4]}\n  cols: row": "tied to 'row', which is no variable of this file; did you mean 'rows'",
    V + "rows: cols\n  cols: rows": "'cols' is a tie itself",
    V + "dataflow: {choice: [ws]}\n  cols: dataflow": "only numbers can be tied",
    V + "freq_hz: {real: [1e8, 1e9]}\n  cols: freq_hz": "cols takes whole numbers",
    V
    + "levels.0.word_bits: {values: [8]}\n  levels.weight.word_bits: {values: [16]}": "is the same number as",
    "model: loopnest\nbase: edge\nvariables: {dataflow: {choice: [ws]}}": "no variable of the loopnest model",
    "model: loopnest\nbase: gemini": "did you mean 'gemmini'",
    "model: loopnest\nbase: gemmini\nvariables: {pe: {values: [4]}}": "did you mean 'pe_dim'",
}


@pytest.mark.parametrize("text, part", MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_one_sentence_with_its_place(text, part, write):
    path = write(text)
    with pytest.raises(ValueError) as caught:
        _ = read_space(path).space
    message = str(caught.value)
    assert part in message and "\n" not in message
    assert str(path) in message or "gone.yaml" in message


def test_no_file_and_another_model(write, tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*gone\.yaml"):
        read_space(tmp_path / "gone.yaml")
    with pytest.raises(ValueError, match="is a folder"):
        read_space(tmp_path)
    path = write("model: systolic\nbase: edge\nvariables: {rows: {values: [4]}}\n")
    with pytest.raises(ValueError, match="line 1: model is systolic, but the model asked for is dataflow"):
        read_space(path, "dataflow")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        read_space(tmp_path / "binary.yaml")
