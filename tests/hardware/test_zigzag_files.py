"""ZigZag accelerators read and written."""

import json
import pathlib

import jax
import numpy as np
import pytest
import yaml

from diffhw import hardware as h

ARCHITECTURES = pathlib.Path(__file__).parents[1] / "data" / "zigzag_architectures.json"

CHIP = """\
name: small
memories:
  taps:
    size: 64
    r_cost: 0.5
    w_cost: 0.75
    area: 0.25
    latency: 1
    operands: [I2]
    ports:
    - {name: r, type: read, bandwidth_min: 8, bandwidth_max: 16, allocation: ["I2, tl"]}
    - {name: w, type: write, bandwidth_min: 8, bandwidth_max: 16, allocation: ["I2, fh"]}
    served_dimensions: [D2]
  sums:
    size: 32
    r_cost: 0.25
    w_cost: 0.25
    operands: [O]
    ports:
    - {name: r, type: read, bandwidth_min: 16, bandwidth_max: 16, allocation: ["O, tl"]}
    - {name: r2, type: read, bandwidth_min: 16, bandwidth_max: 16, allocation: ["O, th"]}
    - {name: w, type: write, bandwidth_min: 16, bandwidth_max: 16, allocation: ["O, fh", "O, fl"]}
    served_dimensions: []
  dram:
    size: 10000000
    r_cost: 700
    w_cost: 750
    operands: [I1, I2, O]
    ports:
    - {name: rw, type: read_write, bandwidth_max: 64, allocation: ["I1, fh", "I1, tl", "I2, fh", "I2, tl", "O, fh", "O, tl", "O, fl", "O, th"]}
    served_dimensions: [D1, D2]
operational_array:
  unit_energy: 0.04
  unit_area: 0.001
  dimensions: [D1, D2]
  sizes: [32, 4]
"""


def write(folder, text, name="chip.yaml"):
    (folder / name).write_text(text)
    return folder / name


def test_memories_in_an_order_that_all_operands_share(tmp_path):
    path = write(tmp_path, CHIP)
    chip = h.read_zigzag(path)
    sums, taps, dram = chip.levels
    assert chip.names == ("sums", "taps", "dram") and [level.keeps for level in chip.levels] == [
        "o",
        "w",
        "wio",
    ]
    assert [(float(level.fanout_x), float(level.fanout_y)) for level in chip.levels] == [
        (1, 1),
        (4, 1),
        (32, 1),
    ]
    assert h.zigzag_dims(path) == ("D2", "D1") and h.array_axes(chip) == [(1, "x"), (2, "x")]
    # Two accesses of 8 bits are one of the port's 16 and cost as much.
    assert float(taps.width_bits) == 8 and float(taps.read_pj) == 0.25 and float(taps.fill_pj) == 0.375
    assert float(taps.read_bits_per_cycle) == 16 and np.isinf(taps.shared_bits_per_cycle)
    assert float(sums.read_bits_per_cycle) == 32 and float(sums.write_bits_per_cycle) == 16
    assert float(dram.shared_bits_per_cycle) == 64 and np.isinf(dram.read_bits_per_cycle)
    assert (float(sums.output_bits), float(dram.output_bits)) == (16, 8) and float(
        chip.mac_pj
    ) == pytest.approx(0.04)
    assert float(taps.area_mm2) == 0 and float(h.read_zigzag(path, areas=True).levels[1].area_mm2) == 0.25


def test_double_buffering_halves_the_room(tmp_path):
    text = CHIP.replace("    size: 64\n", "    size: 64\n    force_double_buffering: true\n")
    assert float(h.read_zigzag(write(tmp_path, text)).levels[1].capacity_bits) == 32


def test_more_than_two_dimensions_at_once(tmp_path):
    text = CHIP.replace("served_dimensions: [D2]", "served_dimensions: []")
    text = text.replace("served_dimensions: [D1, D2]", "served_dimensions: [D1, D2, D3]")
    text = text.replace(
        "dimensions: [D1, D2]\n  sizes: [32, 4]", "dimensions: [D1, D2, D3]\n  sizes: [32, 4, 2]"
    )
    path = write(tmp_path, text)
    chip = h.read_zigzag(path)
    assert chip.names == ("taps", "sums", "dram D3", "dram") and float(chip.macs_per_cycle) == 256
    assert h.array_axes(chip) == [(2, "x"), (3, "x"), (3, "y")] and h.zigzag_dims(path) == ("D3", "D1", "D2")


def as_yaml(entry):
    memories = {}
    for level in entry["levels"]:
        ports = [
            {
                "name": f"p{k}",
                "type": port["kind"],
                "bandwidth_min": port["bits_per_cycle_min"],
                "bandwidth_max": port["bits_per_cycle_max"],
                "allocation": [move.replace(":", ", ") for move in port["moves"]],
            }
            for k, port in enumerate(level["ports"])
        ]
        memories[level["name"]] = {
            "size": level["bits"],
            "r_cost": level["read_pj_per_full_width_access"],
            "w_cost": level["write_pj_per_full_width_access"],
            "operands": level["operands"],
            "ports": ports,
            "served_dimensions": level["served_dims"],
        }
    array = {
        "unit_energy": entry["array"]["unit_energy_pj"],
        "dimensions": list(entry["array"]["dims"]),
        "sizes": list(entry["array"]["dims"].values()),
    }
    return yaml.safe_dump({"name": "x", "memories": memories, "operational_array": array}, sort_keys=False)


def test_the_tools_own_examples(tmp_path):
    found = json.loads(ARCHITECTURES.read_text())
    assert len(found) >= 2
    for name, entry in found.items():
        path = write(tmp_path, as_yaml(entry), f"{name}.yaml")
        if name == "meta_prototype":
            with pytest.raises(ValueError, match="operands shared over different dimensions"):
                h.read_zigzag(path)
            continue
        chip = h.read_zigzag(path)
        assert float(chip.macs_per_cycle) == np.prod(list(entry["array"]["dims"].values()))
        for t, operand in (("w", "I2"), ("i", "I1"), ("o", "O")):  # each chain in its order
            want = [level["name"] for level in entry["levels"] if operand in level["operands"]]
            assert [level.name for level in chip.levels if t in level.keeps] == want


def test_round_trip(tmp_path):
    chip = h.read_zigzag(write(tmp_path, CHIP), areas=True)
    h.write_zigzag(chip, tmp_path / "out.yaml")
    back = h.read_zigzag(tmp_path / "out.yaml", areas=True)
    assert jax.tree.structure(back) == jax.tree.structure(chip)
    for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(chip), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    assert h.hierarchy(tmp_path / "out.yaml").names == chip.names


def test_gemmini_as_zigzag(tmp_path):
    chip = h.gemmini()
    h.write_zigzag(chip, tmp_path / "out.yaml", unlimited_bits_per_cycle=8)
    back = h.read_zigzag(tmp_path / "out.yaml", psum_bits=32)
    assert back.names == chip.names and np.isinf(back.levels[-1].capacity_bits)
    for one, other in zip(chip.levels, back.levels, strict=True):
        assert one.keeps == other.keeps and float(one.capacity_bits) == float(other.capacity_bits)
        assert float(one.read_pj) == pytest.approx(float(other.read_pj))
        assert float(one.fanout_x * one.fanout_y) == float(other.fanout_x * other.fanout_y)


@pytest.mark.parametrize(
    "old, new, needle",
    [
        ("name: small", "dataflows: {}", "dataflows in the accelerator"),
        ("name: small", "nam: small", "did you mean 'name'"),
        ("unit_area: 0.001", "is_imc: true", "in-memory computing"),
        ("unit_area: 0.001", "adc_resolution: 4", "in-memory computing"),
        ("size: 64", "size: 64\n    auto_cost_extraction: true", "CACTI"),
        ("r_cost: 0.5", "r_cost: null", "CACTI"),
        ("size: 64", "r_bw: 8\n    size: 64", "older memory keys"),
        ("size: 64", "sise: 64", "did you mean 'size'"),
        ("size: 64", "size: 4", "less than one word"),
        ("size: 64", "size: big", "must be a number"),
        ("operands: [O]", "operands: [S]", "unknown operand 'S'"),
        ("served_dimensions: [D2]", "served_dimensions: [D3]", "unknown dimension 'D3'"),
        ("served_dimensions: [D1, D2]", "served_dimensions: [D2]", "must serve every dimension, D1"),
        ("served_dimensions: []", "served_dimensions: [D1]", "different dimensions are not supported"),
        (
            "bandwidth_min: 8, bandwidth_max: 16",
            "bandwidth_min: 0, bandwidth_max: 16",
            "bandwidth_min must be > 0",
        ),
        (
            "bandwidth_min: 8, bandwidth_max: 16",
            "bandwidth_min: 32, bandwidth_max: 16",
            "more than bandwidth_max",
        ),
        ("type: read,", "type: reads,", "must be read, write or read_write"),
        ('["I2, tl"]', '["I1, tl"]', "must be an operand of the memory"),
        ("sizes: [32, 4]", "sizes: [32]", "1 sizes for the dimensions D1, D2"),
        ("sizes: [32, 4]", "sizes: [32, 0]", "whole number >= 1"),
        ("memories:", "cores: {}\nmemories:", "several cores"),
    ],
)
def test_refused(old, new, needle, tmp_path):
    assert old in CHIP
    with pytest.raises(ValueError, match=needle) as caught:
        h.read_zigzag(write(tmp_path, CHIP.replace(old, new, 1)))
    assert "chip.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_what_cannot_be_written(tmp_path):
    path = tmp_path / "out.yaml"
    with pytest.raises(ValueError, match="say unlimited_bits_per_cycle"):
        h.write_zigzag(h.gemmini(), path)
    port = dict(read_words_per_cycle=1, write_words_per_cycle=1)
    outer = h.Memory.create(name="DRAM", read_pj=1, shared_words_per_cycle=8)
    for inner, needle in (
        (h.Memory.create(name="A", read_pj=1, fill_pj=2, update_pj=3, **port), "one cost of a write"),
        (h.Memory.create(name="B", block_words=4, **port), "several cycles"),
        (h.Memory.create(name="C", shared_words_per_cycle=1, **port), "besides those of its ports"),
        (h.Memory.create(name="D", fanout_x=1.5, **port), "whole number"),
    ):
        with pytest.raises(ValueError, match=needle):
            h.write_zigzag(h.Hierarchy.create(levels=[inner, outer], mac_pj=1), path)
