"""Timeloop architectures and energy tables, in every form that is read, and back."""

import json
import pathlib

import jax
import numpy as np
import pytest

from diffhw import hardware as h
from diffhw import mappings as m
from diffhw import models, workloads
from diffhw.validation._timeloop_read import read_architectures

ARCHITECTURES = pathlib.Path(__file__).parents[1] / "data" / "timeloop_architectures.json"

NODES = """\
architecture:
  version: 0.4
  nodes:
  - !Container
    name: chip
    attributes: {datawidth: 8, technology: 22nm}
  - !Component
    name: Dram
    class: LPDDR
    attributes: {width: 32, shared_bandwidth: 4}
  - !Component
    name: Shared
    class: sram
    attributes: {depth: 1024, width: 64, n_banks: 4, read_bandwidth: 8, write_bandwidth: 8}
    constraints:
      dataspace: {keep: [Inputs, Outputs], bypass: [Weights]}
      temporal: {factors: [R=1]}
  - !Container
    name: Row
    spatial: {meshY: 4}
    constraints:
      spatial: {permutation: [C, S, K], split: 0, factors: [N=1, K=1, P=1, Q=1, R=1]}
  - !Container
    name: Pe
    spatial: {meshX: 8}
    constraints:
      spatial: {factors: [N=1, C=1, P=1, R=1, S=1]}
  - !Parallel
    nodes:
    - !Component
      name: Taps
      class: pad
      attributes: {depth: 32, width: 8, multiple_buffering: 2}
      constraints: {dataspace: {keep: [Weights]}}
    - !Component
      name: Sums
      class: pad
      attributes: {depth: 16, width: 24, datawidth: 24}
      constraints: {dataspace: {keep: [Outputs]}}
    - !Nothing {constraints: {dataspace: {keep: [Inputs]}}}
  - !Component
    name: Mac
    class: intmac
    attributes: {adder_width: 24}
"""

TABLES = """\
ERT:
  version: 0.4
  tables:
  - name: top.Dram[1..1]
    actions:
    - {name: read, energy: 100.0}
    - {name: write, energy: 110.0}
  - name: top.Shared[1..1]
    actions:
    - {name: read, arguments: {data: 0}, energy: 3.0}
    - {name: read, arguments: {data: 1}, energy: 5.0}
    - {name: write, energy: 6.0}
    - {name: update, energy: 7.0}
    - {name: leak, energy: 0.5}
  - name: top.Pe[0..31].Taps[1..32]
    actions:
    - {name: read, energy: 0.5}
    - {name: fill, energy: 0.75}
  - name: top.Sums[1..32]
    actions:
    - {name: read, energy: 0.25}
    - {name: write, energy: 0.5}
  - name: top.Mac[1..32]
    actions:
    - {name: compute, energy: 0.2}
    - {name: leak, energy: 0.001}
  - name: top.clock
    actions: []
ART:
  tables:
  - {name: top.Shared, area: 2000.0}
  - {name: top.Mac, area: 50.0}
"""

FLATTENED = """\
dumped_by_timeloop_front_end: true
architecture:
  version: '0.4'
  subtree:
  - name: system_top_level
    attributes: {version: '0.4', global_cycle_seconds: 1e-9, power_gated_at: null}
    local:
    - name: Dram[1..1]
      class: LPDDR
      attributes: {datawidth: 8, width: 32, shared_bandwidth: 4, cluster_size: 1, meshX: 1, meshY: 1, allow_overbooking: false}
    - name: Shared[1..1]
      class: sram
      attributes: {datawidth: 8, depth: 1024, width: 64, read_bandwidth: 8, write_bandwidth: 8, meshX: 1, meshY: 1}
      required_actions: [read, write]
      enabled: true
    - name: inter_Row_spatial[1..1]
      class: dummy_storage
      attributes: {width: 1, depth: 1, datawidth: 1, technology: -1, meshX: 1, meshY: 1}
    - name: inter_Pe_spatial[1..4]
      class: dummy_storage
      attributes: {width: 1, depth: 1, datawidth: 1, meshX: 1, meshY: 4}
    - name: Taps[1..32]
      class: pad
      attributes: {datawidth: 8, depth: 32, width: 8, multiple_buffering: 2, meshX: 8, meshY: 4}
    - name: Sums[1..32]
      class: pad
      attributes: {depth: 16, width: 24, datawidth: 24, meshX: 8, meshY: 4}
    - name: Mac[1..32]
      class: intmac
      attributes: {meshX: 8, meshY: 4}
architecture_constraints:
  targets:
  - {target: Shared, type: bypass, keep: [Inputs, Outputs], bypass: [Weights]}
  - {target: inter_Row_spatial, type: spatial, permutation: CSK, split: 0, factors: "N=1,K=1,P=1,Q=1,R=1"}
  - {target: inter_Row_spatial, type: bypass, bypass: [Weights, Inputs, Outputs]}
  - {target: inter_Pe_spatial, type: spatial, factors: "N=1,C=1,P=1,R=1,S=1"}
  - {target: inter_Pe_spatial, type: temporal, factors: "N=1,C=1,K=1,P=1,Q=1,R=1,S=1"}
  - {target: Taps, type: bypass, keep: [Weights], bypass: [Inputs, Outputs]}
  - {target: Sums, type: bypass, keep: [Outputs], bypass: [Inputs, Weights]}
"""

TREE = """\
architecture:
  version: 0.3
  subtree:
  - name: System
    attributes: {technology: 45nm, datawidth: 8}
    local:
    - {name: Dram, class: DRAM, attributes: {width: 32}}
    subtree:
    - name: Chip
      local:
      - name: Shared
        class: SRAM
        attributes: {memory_depth: 1024, width: 64, block-size: 8}
      subtree:
      - name: PE[0..31]
        local:
        - {name: Taps, class: regfile, attributes: {entries: 32, meshX: 8}}
        - {name: 'Mac[0..1]', class: intmac, attributes: {meshX: 16}}
"""

FLAT = """\
arch:
  arithmetic: {instances: 1024, word-bits: 8}
  storage:
  - {name: Regs, entries: 1, instances: 1024, meshX: 16, word-bits: 8, cluster-size: 64, vector-access-energy: 0.5}
  - {name: Dummy, entries: 0, instances: 16, meshX: 16, word-bits: 8}
  - {name: Buffer, sizeKB: 256, instances: 1, word-bits: 16, block-size: 8, bandwidth: 10, vector-access-energy: 20}
  - {name: DRAM, technology: DRAM, instances: 1, word-bits: 16, vector-access-energy: 200}
mapspace:
  constraints: ck
  constraints_ck:
  - {target: Buffer, type: datatype, keep: [Weights, Inputs], bypass: [Outputs]}
  - {target: Dummy, type: spatial, factors: P1 Q1 R1 S1 K1 N1, permutation: CKN, split: 0}
"""


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.array_equal(x, y)


def write(folder, text, name="arch.yaml"):
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def tables(tmp_path):
    return write(tmp_path, TABLES, "tables.yaml")


def test_nodes(tmp_path, tables):
    chip = h.read_timeloop(write(tmp_path, NODES), tables)
    assert chip.names == ("Sums", "Taps", "inter_Pe_spatial", "inter_Row_spatial", "Shared", "Dram")
    sums, taps, pe, row, shared, dram = chip.levels
    assert [level.keeps for level in chip.levels] == ["o", "w", "", "", "io", "wio"]
    assert float(taps.capacity_bits) == 16 * 8  # half of 32 words: double buffered
    assert float(sums.capacity_bits) == 16 * 24 and float(sums.width_bits) == 24
    assert float(shared.capacity_bits) == 1024 * 64 and float(shared.width_bits) == 64
    assert float(shared.read_bits_per_cycle) == 64 and float(dram.shared_bits_per_cycle) == 32
    assert np.isinf(dram.capacity_bits) and np.isinf(dram.read_bits_per_cycle)
    assert (float(pe.fanout_x), float(pe.fanout_y), pe.spatial_x, pe.spatial_y) == (8, 1, "kp", "")
    assert (float(row.fanout_x), float(row.fanout_y), row.spatial_x, row.spatial_y) == (1, 4, "", "cr")
    energies = [
        [float(getattr(level, f"{a}_pj")) for a in ("read", "fill", "update")] for level in chip.levels
    ]
    assert energies == [[0.25, 0.5, 0.5], [0.5, 0.75, 0.75], [0] * 3, [0] * 3, [5, 6, 7], [100, 110, 110]]
    assert float(chip.mac_pj) == pytest.approx(0.2) and float(chip.macs_per_cycle) == 32
    assert float(shared.leakage_w) == pytest.approx(0.5e-12 * 1e9)
    assert float(chip.static_w) == pytest.approx(32 * 0.001e-12 * 1e9)
    assert float(shared.area_mm2) == pytest.approx(2e-3) and float(chip.mac_area_mm2) == pytest.approx(5e-5)


def test_flattened_file_is_the_same_as_nodes(tmp_path, tables):
    same(
        h.read_timeloop(write(tmp_path, FLATTENED), tables),
        h.read_timeloop(write(tmp_path, NODES, "nodes.yaml"), tables),
    )


def test_folding_containers(tmp_path, tables):
    chip = h.read_timeloop(write(tmp_path, NODES), tables, fold=True)
    assert chip.names == ("Sums", "Taps", "Shared", "Dram")
    shared = chip.levels[2]
    assert (float(shared.fanout_x), float(shared.fanout_y)) == (8, 4)
    assert (shared.spatial_x, shared.spatial_y) == ("kp", "cr")


def test_levels_without_memory_cost_nothing_and_count_alike(tmp_path, tables):
    """Where no sliding loop is spread, a container's level and its folded form are the same machine."""
    layer = workloads.Layer.create(k=16, c=8, p=6, q=4, r=3, s=1)
    apart = h.read_timeloop(write(tmp_path, NODES), tables)
    one = h.read_timeloop(tmp_path / "arch.yaml", tables, fold=True)
    loops = [{"temporal": {"q": 4}}, {"temporal": {"r": 3}}, {"x": {"k": 8}}, {"y": {"c": 4}}]
    outer = [{"temporal": {"p": 3, "k": 2}}, {"temporal": {"c": 2, "p": 2}}]
    wide = m.LoopNest.create([*loops, *outer], apart, layer)
    slim = m.LoopNest.create([*loops[:2], {"x": {"k": 8}, "y": {"c": 4}} | outer[0], outer[1]], one, layer)
    costs = [models.loopnest.layer(layer, chip, nest) for chip, nest in ((apart, wide), (one, slim))]
    assert float(costs[0].cycles) == float(costs[1].cycles)
    assert float(costs[0].energy_pj) == pytest.approx(float(costs[1].energy_pj))
    assert float(costs[0].feasible) == 1


def test_tree_with_counts_in_names(tmp_path):
    chip = h.read_timeloop(write(tmp_path, TREE), "zero")
    taps, shared, dram = chip.levels
    assert chip.names == ("Taps", "Shared", "Dram") and float(chip.macs_per_cycle) == 64
    assert (float(taps.fanout_x), float(taps.fanout_y)) == (2, 1)
    assert (float(shared.fanout_x), float(shared.fanout_y)) == (8, 4)
    assert float(taps.capacity_bits) == 256 and float(shared.width_bits) == 64
    assert float(dram.width_bits) == 32 and taps.spatial_x == h.ANY_DIM and dram.spatial_x == ""
    assert float(chip.mac_pj) == 0 == float(dram.read_pj)


def test_old_flat_form(tmp_path):
    text = FLAT.replace("word-bits: 8}\n  storage", "word-bits: 8, energy-per-op: 0.125}\n  storage")
    chip = h.read_timeloop(write(tmp_path, text))
    regs, dummy, buffer, dram = chip.levels
    assert [level.keeps for level in chip.levels] == ["wio", "", "wi", "wio"]
    assert (float(dummy.fanout_x), float(dummy.fanout_y), dummy.spatial_y) == (1, 64, "c")
    assert float(buffer.capacity_bits) == 256 * 1024 * 8 and float(buffer.width_bits) == 128
    assert float(buffer.read_bits_per_cycle) == 5 * 16  # the old key "bandwidth" is read and write together
    assert float(regs.read_pj) == 0.5 and float(regs.width_bits) == 8 and float(chip.mac_pj) == 0.125
    assert np.isinf(dram.capacity_bits) and float(buffer.fanout_x) == 16


def test_loops_are_named_by_the_problem(tmp_path, tables):
    """Here P and R are called Y and V and go with the height."""
    shape = """\
problem:
  shape:
    name: other
    dimensions: [B, M, C, Y, X, V, U]
    coefficients: [{name: Hstride, default: 1}, {name: Wstride, default: 1}]
    data-spaces:
    - {name: Filters, projection: [[[M]], [[C]], [[V]], [[U]]]}
    - {name: Fmap, projection: [[[B]], [[C]], [[Y, Hstride], [V]], [[X, Wstride], [U]]]}
    - {name: Sums, projection: [[[B]], [[M]], [[Y]], [[X]]], read-write: True}
  instance: {B: 1, M: 8, C: 4, Y: 6, X: 5, V: 3, U: 2, Hstride: 2}
"""
    text = NODES.replace("[Inputs, Outputs]", "[Fmap, Sums]").replace("[Weights]", "[Filters]")
    text = text.replace("[Outputs]", "[Sums]").replace("[Inputs]", "[Fmap]").replace("[R=1]", "[V=1]")
    text = text.replace("[C, S, K]", "[C, V, M]").replace(
        "[N=1, K=1, P=1, Q=1, R=1]", "[B=1, M=1, Y=1, X=1, U=1]"
    )
    text = text.replace("[N=1, C=1, P=1, R=1, S=1]", "[B=1, C=1, X=1, U=1, V=1]")
    files = [write(tmp_path, text), write(tmp_path, shape, "problem.yaml")]
    usual = h.read_timeloop(write(tmp_path, NODES, "usual.yaml"), tables)
    same(h.read_timeloop(files, tables), usual)
    layer = workloads.read_timeloop_problem(files)
    assert [float(getattr(layer, d)) for d in "nkcpqrs"] == [1, 8, 4, 6, 5, 3, 2]
    assert float(layer.stride_h) == 2 and float(layer.stride_w) == 1


def test_architectures_of_the_referee_round_trip(tmp_path):
    found = read_architectures(ARCHITECTURES)
    assert len(found) == len(json.loads(ARCHITECTURES.read_text())) >= 3
    for name, one in found.items():
        same(
            h.read_timeloop(*h.write_timeloop(one.hierarchy, tmp_path / f"{name}.yaml", form="flat")),
            one.hierarchy,
        )
        files = h.write_timeloop(one.hierarchy, tmp_path / f"{name}.v4.yaml")
        same(h.read_timeloop(*files, fold=True), one.hierarchy)


@pytest.mark.parametrize("form", ["flat", "v0.4"])
def test_round_trip_of_what_was_read(form, tmp_path, tables):
    """Levels without memory, leakage, areas and another clock survive."""
    text = NODES + "variables: {global_cycle_seconds: 2e-9}\n"
    chip = h.read_timeloop(write(tmp_path, text), tables)
    assert float(chip.freq_hz) == 5e8
    back = h.read_timeloop(*h.write_timeloop(chip, tmp_path / "out.yaml", form=form))
    assert jax.tree.structure(back) == jax.tree.structure(chip)
    for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(chip), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_hierarchy_takes_the_file(tmp_path):
    chip = h.simba_like()
    h.write_timeloop(chip, tmp_path / "chip.yaml", form="flat")
    same(h.hierarchy(str(tmp_path / "chip.yaml")), chip)
    with pytest.raises(ValueError, match=r"is a Timeloop architecture.*hardware\.hierarchy"):
        h.load(tmp_path / "chip.yaml")


REFUSED = [
    ("version: 0.4\n  nodes:", "version: {{v}}\n  nodes:", "Jinja"),
    ("architecture:", "sparse_optimizations: {}\narchitecture:", "sparse_optimizations"),
    ("architecture:", "layout: []\narchitecture:", r"data layouts"),
    ("architecture:", "architectures: {}\narchitecture:", "did you mean 'architecture'"),
    ("    class: LPDDR", "    network: {}\n    class: LPDDR", "user-defined networks"),
    ("    class: LPDDR", "    clas: LPDDR", "did you mean 'class'"),
    ("class: sram", "class: XY_NoC", "user-defined networks"),
    ("!Container\n    name: Row", "!Contaner\n    name: Row", "did you mean 'Container'"),
    ("!Container\n    name: Row", "!Pipelined\n    name: Row", "'!Pipelined' is not supported"),
    ("name: Sums\n", "name: Sums\n      spatial: {meshX: 2}\n", "inside '!Parallel'"),
    ("depth: 1024", "depth: 32 * 32", "expressions and names are not supported"),
    ("depth: 1024", "dept: 1024", "did you mean 'depth'"),
    ("depth: 1024", "depth: 0", "must be > 0"),
    ("depth: 16,", "entries: 0.5,", "less than one word"),
    ("read_bandwidth: 8", "read_bandwidth: 0", "read_bandwidth must be > 0"),
    ("read_bandwidth: 8", "metadata_datawidth: 4", "compressed formats"),
    ("read_bandwidth: 8", "allow_overbooking: true", "overbooking"),
    ("read_bandwidth: 8", "network_fill: x", "user-defined networks"),
    ("width: 64, n_banks", "width: 60, n_banks", "no whole"),
    ("meshX: 8", "meshX: 1.5", "whole number"),
    ("meshX: 8", "meshZ: 8", "did you mean 'mesh[XY]'"),
    ("[Inputs, Outputs], bypass", "[Input, Outputs], bypass", "did you mean 'Inputs'"),
    ("bypass: [Weights]", "bypass: [Inputs]", "keeps and bypasses"),
    ("bypass: [Weights]", "no_coalesce: [Weights]", "no_coalesce is not supported"),
    ("permutation: [C, S, K]", "permutation: [C, Z, K]", "unknown loop 'Z'"),
    ("permutation: [C, S, K]", "permutation: [C, C, K]", "'C' twice"),
    ("permutation: [C, S, K]", "no_link_transfer: [Inputs]", "no_link_transfer is not supported"),
    ("[N=1, K=1, P=1, Q=1, R=1]", "[N=1, N=2]", "has two factors"),
    ("[N=1, K=1, P=1, Q=1, R=1]", "[N>2]", "is a bound"),
    ("[N=1, K=1, P=1, Q=1, R=1]", '"C8,3"', "residual"),
    ("    attributes: {adder_width: 24}", "    attributes: {adder_width: 24}\n    name: Mac", "stands twice"),
    ("datawidth: 8, technology", "technology", "needs datawidth"),
]


@pytest.mark.parametrize("old, new, needle", REFUSED)
def test_refused_by_name_in_one_sentence(old, new, needle, tmp_path, tables):
    assert old in NODES
    with pytest.raises(ValueError, match=needle) as caught:
        h.read_timeloop(write(tmp_path, NODES.replace(old, new, 1)), tables)
    message = str(caught.value)
    assert "arch.yaml" in message and "\n" not in message


@pytest.mark.parametrize(
    "text, needle",
    [
        (FLAT.replace("instances: 1024, meshX", "instances: 1000, meshX"), "no mesh"),
        (FLAT.replace("instances: 16, meshX: 16", "instances: 15, meshX: 15"), "shared evenly"),
        (
            FLAT.replace("word-bits: 16, block-size: 8", "word-bits: 16, block-size: 8, depth: 4"),
            "one of depth",
        ),
        (FLAT.replace("target: Buffer", "target: Bufer"), "did you mean 'Buffer'"),
        (FLAT.replace("target: Dummy, type", "target: Dummy, kind"), "'target' and 'type'"),
        (FLAT, "arithmetic .* is in no energy reference table"),
        (TREE.replace("PE[0..31]", "PE[31]"), "has no count"),
        (TREE.replace("class: regfile", "class: regfile, subtree: []"), "no known key"),
        ("problem: {}\n", "has no architecture"),
        ("- 1\n", "must hold a mapping"),
        ("arch: {storage: [}\n", "broken YAML"),
    ],
)
def test_other_forms_refused(text, needle, tmp_path):
    with pytest.raises(ValueError, match=needle) as caught:
        h.read_timeloop(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_compound_components_need_a_table(tmp_path):
    text = NODES + "compound_components: {classes: [{name: sram}]}\n"
    with pytest.raises(ValueError, match=r"compound component Shared .*ert=FILE"):
        h.read_timeloop(
            write(tmp_path, text), write(tmp_path, TABLES.replace("top.Shared", "top.Shard"), "t.yaml")
        )
    with pytest.raises(ValueError, match=r"has no energy for 'fill'"):
        h.read_timeloop(
            tmp_path / "arch.yaml",
            write(
                tmp_path,
                TABLES.replace("    - {name: write, energy: 6.0}\n    - {name: update, energy: 7.0}\n", ""),
                "u.yaml",
            ),
        )


def test_what_cannot_be_written(tmp_path):
    mixed = h.Memory.create(name="Mixed", word_bits=8, output_bits=32, read_pj=1)
    outer = h.Memory.create(name="DRAM", read_pj=1)
    odd = h.Memory.create(name="Odd", width_bits=12, read_pj=1)
    for inner, needle in ((mixed, "one word width"), (odd, "words per access must be a whole number")):
        with pytest.raises(ValueError, match=needle):
            h.write_timeloop(h.Hierarchy.create(levels=[inner, outer], mac_pj=1), tmp_path / "x.yaml")
    batch = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), h.gemmini())
    with pytest.raises(ValueError, match="batch"):
        h.write_timeloop(batch, tmp_path / "x.yaml", form="flat")
    with pytest.raises(ValueError, match="form must be"):
        h.write_timeloop(h.gemmini(), tmp_path / "x.yaml", form="v5")
