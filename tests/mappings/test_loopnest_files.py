"""Mappings as Timeloop and ZigZag files, from one to the other and back; loop nests as text."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import hardware as h
from diffhw import mappings as m
from diffhw import models, workloads

CHIP = h.gemmini()
LAYER = workloads.Layer.create(n=2, k=32, c=48, p=8, q=6, r=3, s=1, stride_h=2)
LEVELS = [
    {"temporal": {"q": 6}},
    {"temporal": {"p": 2, "c": 3, "r": 3}, "y": {"c": 16}},
    {"temporal": {"n": 2, "k": 2}, "x": {"k": 16}},
    {"temporal": {"p": 4}},
]
NEST = m.LoopNest.create(LEVELS, CHIP, LAYER)

MAPPING = """\
mapping:
- {target: DRAM, type: temporal, factors: Q4, permutation: Q}
- {target: Scratchpad, type: datatype, keep: [Weights, Inputs], bypass: [Outputs]}
- {target: Scratchpad, type: spatial, factors: [K=16], permutation: [K], split: 1}
- {target: Scratchpad, type: temporal, factors: "N=2,K=2", permutation: N K}
- {target: Accumulator, type: spatial, factors: C16, permutation: CK, split: 0}
- {target: Accumulator, type: temporal, factors: {C: 3, Q: 2, S: 3}, permutation: QCSRPKN}
- {target: Registers, type: temporal, factors: P6 R1}
"""

ZIGZAG = """\
- name: default
  spatial_mapping: {D1: ["C, 16"], D2: ["K, 16"]}
  temporal_ordering:
  - [OX, 6]
  - [OY, 2]
  - [C, "*"]
  - [FY, 3]
  - [B, 2]
  - [K, 2]
  - [OY, 4]
  memory_operand_links: {O: O, W: I2, I: I1}
"""


def same(a, b):
    """The same loops and, among loops that run, the same order."""
    for k in range(len(a.levels)):
        assert a.loops(k) == b.loops(k)
        for axis in ("spatial_x", "spatial_y"):
            spread = [{d: float(f) for d, f in getattr(n.levels[k], axis).items() if f != 1} for n in (a, b)]
            assert spread[0] == spread[1]
    for x, y in zip(*(jax.tree.leaves(models.loopnest.layer(LAYER, CHIP, n)) for n in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def write(folder, text, name="map.yaml"):
    (folder / name).write_text(text)
    return folder / name


def test_timeloop_mapping_is_read(tmp_path):
    nest = m.read_timeloop_mapping(write(tmp_path, MAPPING), CHIP, LAYER)
    same(nest, NEST)
    assert jax.tree.structure(nest) == jax.tree.structure(NEST)


def test_a_run_of_the_referee(tmp_path):
    """Its first table row, in its own words: cycles and energy (uJ rounded to 10 fJ) as it printed them."""
    h.write_timeloop(h.gemmini(), tmp_path / "arch.yaml", form="flat")
    problem = "problem: {shape: cnn-layer, R: 3, S: 3, P: 56, Q: 56, C: 64, K: 64, N: 1}\n"
    text = """\
mapping:
- {target: DRAM, type: temporal, factors: Q7}
- {target: Scratchpad, type: spatial, factors: K16, permutation: K, split: 1}
- {target: Scratchpad, type: temporal, factors: K4}
- {target: Accumulator, type: spatial, factors: C16, permutation: KC, split: 1}
- {target: Accumulator, type: temporal, factors: Q4 R3 C4 S3 P4, permutation: PSCRQ}
- {target: Registers, type: temporal, factors: Q2 P14, permutation: PQ}
"""
    layer = workloads.read_timeloop_problem(write(tmp_path, problem, "problem.yaml"))
    chip = h.hierarchy(tmp_path / "arch.yaml")
    cost = models.loopnest.layer(layer, chip, m.read_timeloop_mapping(write(tmp_path, text), chip, layer))
    assert float(cost.cycles) == 451584
    assert float(cost.energy_pj) == pytest.approx(229025973.87, rel=2e-7)


def test_timeloop_round_trip(tmp_path):
    m.write_timeloop_mapping(NEST, CHIP, tmp_path / "map.yaml")
    same(m.read_timeloop_mapping(tmp_path / "map.yaml", CHIP, LAYER), NEST)


def test_through_both_formats_and_back(tmp_path):
    first, zigzag, second = (tmp_path / name for name in ("a.yaml", "z.yaml", "b.yaml"))
    m.write_timeloop_mapping(NEST, CHIP, first)
    m.write_zigzag_mapping(m.read_timeloop_mapping(first, CHIP, LAYER), CHIP, zigzag)
    m.write_timeloop_mapping(m.read_zigzag_mapping(zigzag, CHIP, LAYER), CHIP, second)
    assert first.read_text() == second.read_text()


def random_nest(rng, chip, layer):
    """A legal split of every loop over the levels, with orders; fan-outs used where loops may be spread."""
    levels = [
        {"temporal": {}, "x": {}, "y": {}, "order": list(rng.permutation(m.LOOPS))} for _ in chip.levels
    ]
    room = [{a: int(getattr(one, f"fanout_{a}")) for a in "xy"} for one in chip.levels]
    for d in m.LOOPS:
        left = int(getattr(layer, d))
        for prime in (2, 3, 5, 7):
            while left % prime == 0:
                left //= prime
                k = rng.integers(len(levels))
                axis = rng.choice(["x", "y", "temporal"])
                other = {"x": "y", "y": "x"}.get(axis)
                spread = axis != "temporal" and d in getattr(chip.levels[k], f"spatial_{axis}")
                if spread and room[k][axis] % prime == 0 and d not in levels[k][other]:
                    room[k][axis] //= prime
                else:
                    axis = "temporal"
                levels[k][axis][d] = levels[k][axis].get(d, 1) * prime
    return m.LoopNest.create(levels, chip, layer)


@pytest.mark.parametrize("name", h.HIERARCHIES)
def test_random_nests_survive_every_file(name, tmp_path):
    rng = np.random.default_rng(0)
    chip = h.hierarchy(name)
    layer = workloads.Layer.create(n=2, g=2, k=16, c=24, p=12, q=10, r=3, s=3, stride_w=2)
    for _ in range(20):
        nest = random_nest(rng, chip, layer)
        m.write_timeloop_mapping(nest, chip, tmp_path / "t.yaml")
        m.write_zigzag_mapping(nest, chip, tmp_path / "z.yaml")
        for back in (
            m.read_timeloop_mapping(tmp_path / "t.yaml", chip, layer),
            m.read_zigzag_mapping(tmp_path / "z.yaml", chip, layer),
        ):
            assert [back.loops(k) for k in range(len(chip.levels))] == [
                nest.loops(k) for k in range(len(chip.levels))
            ]
            for a, b in zip(nest.levels, back.levels, strict=True):
                for axis in ("spatial_x", "spatial_y"):
                    assert {d: float(f) for d, f in getattr(a, axis).items()} == {
                        d: float(f) for d, f in getattr(b, axis).items()
                    }


def test_names_of_the_problem(tmp_path):
    """Loops called M, and P and R that go with the height."""
    shape = """\
problem:
  shape:
    name: turned
    dimensions: [N, M, C, P, Q, R, S]
    coefficients: [{name: Hstride, default: 1}]
    data_spaces:
    - {name: Filter, projection: [[[M]], [[C]], [[R]], [[S]]]}
    - {name: Fmap, projection: [[[N]], [[C]], [[P, Hstride], [R]], [[Q], [S]]]}
    - {name: Out, projection: [[[N]], [[M]], [[P]], [[Q]]], read_write: True}
  instance: {N: 2, M: 32, C: 48, P: 8, Q: 6, R: 3, S: 1, Hstride: 2}
"""
    problem = write(tmp_path, shape, "problem.yaml")
    text = MAPPING.replace("Weights, Inputs", "Filter, Fmap").replace("Outputs", "Out").replace("K", "M")
    swap = {"Q": "P", "P": "Q", "R": "S", "S": "R"}
    text = re.sub(r"\b([PQRS])(?=\d|:)", lambda found: swap[found[1]], text)
    text = text.replace("permutation: Q}", "permutation: P}").replace("QCSRPMN", "PCRSQMN")
    nest = m.read_timeloop_mapping(write(tmp_path, text), CHIP, LAYER, problem=problem)
    same(nest, NEST)
    m.write_timeloop_mapping(nest, CHIP, tmp_path / "out.yaml", problem=problem)
    assert "Filter" in (tmp_path / "out.yaml").read_text() and "K" not in (tmp_path / "out.yaml").read_text()
    same(m.read_timeloop_mapping([tmp_path / "out.yaml", problem], CHIP, LAYER), NEST)


def test_m_is_read_as_k(tmp_path):
    same(m.read_timeloop_mapping(write(tmp_path, MAPPING.replace("K", "M")), CHIP, LAYER), NEST)


def test_bypass_beyond_the_hierarchy(tmp_path):
    text = MAPPING.replace(
        "keep: [Weights, Inputs], bypass: [Outputs]", "keep: [Inputs], bypass: [Weights, Outputs]"
    )
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=r"keeps 'i' at Scratchpad .* hierarchy\.keeping"):
        m.read_timeloop_mapping(path, CHIP, LAYER)
    keeps = m.timeloop_keeps(path, CHIP)
    assert keeps == ("w", "o", "i", "wio")
    m.read_timeloop_mapping(path, CHIP.keeping(keeps), LAYER)


def test_containers_are_found_by_their_name(tmp_path):
    spread = h.Memory.create(name="inter_PE_spatial", keeps="", fanout_x=4, spatial_x="k", spatial_y="")
    chip = h.Hierarchy.create(levels=[spread, h.Memory.create(name="DRAM")], mac_pj=1)
    layer = workloads.Layer.gemm(2, 1, 4)
    text = "mapping:\n- {target: PE, type: spatial, factors: K4}\n- {target: DRAM, type: temporal, factors: Q2}\n"
    nest = m.read_timeloop_mapping(write(tmp_path, text), chip, layer)
    assert float(nest.levels[0].spatial_x["k"]) == 4


@pytest.mark.parametrize(
    "old, new, needle",
    [
        ("factors: Q4", "factors: Q5", "'p' multiply to 10, the layer has 8: iterations overlap"),
        ("factors: Q4", "factors: Q1", "'p' multiply to 2, the layer has 8: iterations are missing"),
        ("factors: Q4", "factors: Q0", "a factor of 0"),
        ("factors: Q4", "factors: Q4 Q2", "two factors, 4 and 2"),
        ("factors: Q4", 'factors: "Q4,2"', "residual .*ruby"),
        ("factors: Q4", "factors: Z4", "unknown loop 'Z'"),
        ("factors: Q4", "factors: '*4'", "is no factor"),
        ("factors: Q4", "skew: 1", "skew"),
        ("permutation: QCSRPKN", "permutation: QQSRPKN", "'Q' twice"),
        ("target: DRAM", "target: DRM", "did you mean 'DRAM'"),
        ("type: datatype", "type: datatyp", "did you mean 'datatype'"),
        ("target: DRAM", "tarket: DRAM", "did you mean 'target'"),
        ("keep: [Weights, Inputs]", "keep: [Weight, Inputs]", "did you mean 'Weights'"),
        ("keep: [Weights, Inputs], bypass: [Outputs]", "keep: [Outputs]", "may keep wi of w, i, o, not 'o'"),
        ("bypass: [Outputs]", "bypass: [Inputs]", "keeps and bypasses"),
        ("factors: [K=16]", "factors: [R=1, C=16]", "loop 'c' may not be spread"),
        ("mapping:", "mappings:", "did you mean 'mapping'"),
        (
            "- {target: DRAM, type: temporal",
            "- {target: Registers, type: temporal",
            "two temporal directives",
        ),
    ],
)
def test_timeloop_mapping_refused(old, new, needle, tmp_path):
    assert old in MAPPING
    with pytest.raises(ValueError, match=needle) as caught:
        m.read_timeloop_mapping(write(tmp_path, MAPPING.replace(old, new, 1)), CHIP, LAYER)
    assert "map.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_split_is_needed_on_two_axes(tmp_path):
    chip = h.eyeriss_like()
    text = "mapping:\n- {target: SharedGLB, type: spatial, factors: K2 C2}\n"
    with pytest.raises(ValueError, match="'split' is needed"):
        m.read_timeloop_mapping(write(tmp_path, text), chip)


def test_what_cannot_be_written(tmp_path):
    path = tmp_path / "out.yaml"
    chip = h.eyeriss_like()
    both = m.LoopNest.create([{}, {}, {}, {"x": {"k": 2}, "y": {"k": 3}}, {}], chip)
    with pytest.raises(ValueError, match="spread along both axes"):
        m.write_timeloop_mapping(both, chip, path)
    m.write_zigzag_mapping(both, chip, path)  # there each dimension of the array is on its own
    half = jax.tree.map(lambda leaf: leaf + 0.5, NEST)
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), NEST)
    for write_one in (m.write_timeloop_mapping, m.write_zigzag_mapping):
        with pytest.raises(ValueError, match="whole number"):
            write_one(half, CHIP, path)
        with pytest.raises(ValueError, match="batch"):
            write_one(stack, CHIP, path)
        with pytest.raises(ValueError, match="5 levels, the mapping 4"):
            write_one(NEST, chip, path)


def test_zigzag_mapping_without_levels_goes_as_far_in_as_fits(tmp_path):
    """A register holds one weight: OX and OY do not change it, C does. All outputs of a column fit."""
    nest = m.read_zigzag_mapping(write(tmp_path, ZIGZAG), CHIP, LAYER)
    accumulator = {"temporal": {"c": 3, "r": 3, "n": 2, "k": 2, "p": 4}, "y": {"c": 16}}
    want = m.LoopNest.create([{"temporal": {"q": 6, "p": 2}}, accumulator, {"x": {"k": 16}}, {}], CHIP, LAYER)
    same(nest, want)
    assert float(models.loopnest.layer(LAYER, CHIP, nest).feasible) == 1
    # With room for 48 outputs the last loop has to go further out.
    small = h.gemmini(accumulator_kb=4)
    nest = m.read_zigzag_mapping(tmp_path / "map.yaml", small, LAYER)
    assert nest.loops(1)[-1] == ("k", 2.0) and nest.loops(2) == [("p", 4.0)]


def test_zigzag_dimensions_by_the_names_of_the_accelerator(tmp_path):
    """The file's D2 is the innermost fan-out and its D1 the outer one."""
    port = "ports: [{name: p, type: read_write, bandwidth_max: 64, allocation: []}]"
    text = f"""\
name: small
memories:
  taps: {{size: 8, r_cost: 1, w_cost: 1, operands: [I2], {port}, served_dimensions: [D2]}}
  dram: {{size: 1e9, r_cost: 1, w_cost: 1, operands: [I1, I2, O], {port}, served_dimensions: [D1, D2]}}
operational_array: {{unit_energy: 1, dimensions: [D1, D2], sizes: [8, 2]}}
"""
    path = write(tmp_path, text, "chip.yaml")
    chip, dims = h.read_zigzag(path), h.zigzag_dims(path)
    layer = workloads.Layer.create(k=8, c=1, p=2, q=3)
    order = (
        '- {name: default, spatial_mapping: {D1: ["K, 8"], D2: ["OY, 2"]}, temporal_ordering: [[OX, 3]]}\n'
    )
    nest = m.read_zigzag_mapping(write(tmp_path, order), chip, layer, dims=dims)
    assert float(nest.levels[0].spatial_x["p"]) == 2 and float(nest.levels[1].spatial_x["k"]) == 8
    m.write_zigzag_mapping(nest, chip, tmp_path / "out.yaml", dims=dims)
    back = m.read_zigzag_mapping(tmp_path / "out.yaml", chip, layer, dims=dims)
    assert repr(back) == repr(nest)


def test_zigzag_unrolls_no_more_than_there_is(tmp_path):
    layer = workloads.Layer.create(k=16, c=4, p=2, q=2)
    text = ZIGZAG.split("  temporal")[0] + "  temporal_ordering: [[OX, 2], [OY, 2]]\n"
    nest = m.read_zigzag_mapping(write(tmp_path, text), CHIP, layer)
    assert float(nest.levels[1].spatial_y["c"]) == 4  # "C, 16" of a layer with 4


@pytest.mark.parametrize(
    "old, new, needle",
    [
        ("temporal_ordering", "temporal_odering", "did you mean 'temporal_ordering'"),
        ("  - [OY, 4]\n", "  - [OY, 2]\n", "OY multiply to 4, the layer has 8: iterations are missing"),
        ("  - [OY, 4]\n", "  - [OY, 8]\n", "OY multiply to 16, the layer has 8: iterations overlap"),
        ("  - [OY, 4]\n", '  - [OY, "*"]\n  - [OY, "*"]\n', "two sizes of '\\*'"),
        ("  - [OY, 4]\n", "  - [OZ, 4]\n", "unknown loop 'OZ'"),
        ("  - [OY, 4]\n", "  - [OY]\n", r"must be \[loop, size\]"),
        ("C, 16", "C, 32", "does not divide|the array has"),
        ("D1:", "D3:", "no dimension 'D3'"),
        ("W: I2, I: I1", "W: I1, I: I2", "links other than"),
        ("- name: default", "- core_allocation: [0, 1]\n  name: default", "several cores"),
        ("- name: default", "- name: conv", "no entry is called 'default'"),
    ],
)
def test_zigzag_mapping_refused(old, new, needle, tmp_path):
    text = ZIGZAG
    assert old in text
    with pytest.raises(ValueError, match=needle) as caught:
        m.read_zigzag_mapping(write(tmp_path, text.replace(old, new, 1)), CHIP, LAYER)
    assert "map.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_zigzag_has_to_say_the_order(tmp_path):
    text = ZIGZAG.split("  temporal_ordering")[0]
    with pytest.raises(ValueError, match="nothing to read"):
        m.read_zigzag_mapping(write(tmp_path, text), CHIP, LAYER)


def test_zigzag_note_must_suit(tmp_path):
    m.write_zigzag_mapping(NEST, CHIP, tmp_path / "z.yaml")
    text = (tmp_path / "z.yaml").read_text()
    for old, new in (("Registers 1", "Registers 2"), ("Registers 1", "Regs 1")):
        with pytest.raises(ValueError, match="mend or remove it"):
            m.read_zigzag_mapping(write(tmp_path, text.replace(old, new)), CHIP, LAYER)


def test_text():
    assert (
        m.loopnest_text(NEST, CHIP, LAYER)
        == """\
layer: n 2 k 32 c 48 p 8 q 6 r 3
DRAM: keeps 4,608 weights, 9,792 inputs, 3,072 outputs
  for p in 0..4
    Scratchpad: keeps 4,608 weights, 2,880 inputs (5.71 % of its capacity)
      for k in 0..2
        for n in 0..2
          parallel-for k in 0..16 (x)
            Accumulator: keeps 12 outputs (2.34 % of its capacity)
              for r in 0..3
                for c in 0..3
                  for p in 0..2
                    parallel-for c in 0..16 (y)
                      Registers: keeps 1 weights (100 % of its capacity)
                        for q in 0..6
                          multiply-accumulate"""
    )
    # Tiles as the model counts them.
    counts = models.loopnest_counts(LAYER, CHIP, NEST)
    assert float(counts.tensors[2]["i"].tile) == 2880 and float(counts.tensors[3]["i"].tile) == 9792


def test_repr():
    assert repr(NEST).startswith("level 3: tiles of 4,608 weights")
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), NEST)
    assert repr(stack) == "LoopNest(4 levels, leaves of shape (2,))"
    seen = []
    jax.jit(lambda nest: seen.append(repr(nest)) or nest)(NEST)
    assert seen == ["LoopNest(4 levels)"]
    assert repr(jax.tree.map(lambda _: object(), NEST)) == "LoopNest(4 levels)"
    with pytest.raises(ValueError, match="batch"):
        m.loopnest_text(stack)
