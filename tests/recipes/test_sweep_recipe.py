"""A sweep's figures are the models' own; its identity is what makes it this sweep."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffhw as dh
from diffhw import hardware, mappings, models, recipes
from diffhw.recipes._sweep_models import combined
from diffhw.recipes._sweep_styles import StyleTable
from diffhw.workloads import Layer, Network, NetworkInfo

NETWORK = Network.create(
    [
        Layer.create(n=1, k=32, c=16, h=14, w=14, r=3, s=3, pad_top=1, pad_left=1),
        Layer.gemm(8, 96, 40),
        Layer.gemm(8, 96, 40),
    ],
    info=NetworkInfo(name="tiny", names=("conv", "fc1", "fc2")),
)
OTHER = Network.create([Layer.gemm(64, 64, 64)], info=NetworkInfo(name="gemm", names=("only",)))
EDGE = "base: edge\nvariables:\n  rows: {values: [4, 8, 32]}\n  cols: {values: [4, 16]}\n"


@pytest.fixture
def write(tmp_path):
    def put(text):
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return path

    return put


def check(problem, index, cost_of, rtol=1e-6):
    """`evaluate` under jit and vmap, `exact`, and the model itself agree."""
    index = np.asarray(index, np.int32)
    batch = jax.jit(jax.vmap(lambda row: problem.evaluate(problem.space.at(row))))(index)
    exact = problem.exact(index)
    assert set(exact) == {*recipes.METRICS, "feasible"} == set(batch)
    for i, row in enumerate(index):
        cost = cost_of(problem.space.at(row), problem.space.labels(row))
        want = combined([cost], "sum")
        for name in want:
            np.testing.assert_allclose(np.asarray(batch[name][i]), want[name], rtol=rtol, atol=1e-6)
            np.testing.assert_allclose(exact[name][i], want[name], rtol=20 * rtol, atol=1e-6)
            assert exact[name].dtype == np.float64


@pytest.mark.slow
def test_systolic(write):
    path = write(
        EDGE + "  dataflow: {choice: [is, ws]}\n  levels.input.capacity_bytes: {values: [64, 65536]}\n"
    )
    problem = recipes.sweep_problem(NETWORK, path)
    assert problem.space.names == ("dataflow", "rows", "cols", "levels.1.capacity_bytes")

    def cost(design, labels):
        return models.systolic(NETWORK, design["hardware"], labels["dataflow"])

    check(problem, [[0, 0, 0, 1], [1, 2, 1, 1], [0, 2, 0, 0]], cost, 1e-5)
    assert problem.exact([[1, 2, 0, 0]])["feasible"] == 1 and problem.exact([[0, 2, 1, 0]])["feasible"] == 1


@pytest.mark.slow
def test_a_fixed_dataflow_and_a_space_made_in_python():
    hw = hardware.load("edge")
    space = dh.Space(replace(hw, rows=dh.Integer(4, 8), freq_hz=dh.Real(1e8, 1e9, per_octave=1)))
    problem = recipes.sweep_problem(NETWORK, space, dataflow="os")
    assert problem.space.names == space.names == ("rows", "freq_hz") and problem.dataflow == "os"
    check(problem, [[0, 0], [4, 3]], lambda d, _: models.systolic(NETWORK, d["hardware"], "os"), 1e-5)


@pytest.mark.slow
def test_dataflow_programs_follow_the_number_of_pes(write):
    text = (
        "model: dataflow\n"
        + EDGE
        + "  dataflow: {choice: [kcp_ws, yrp_rs]}\nfixed: {levels.0.instances: 1}\n"
    )
    problem = recipes.sweep_problem(NETWORK, write(text))
    merged = NETWORK.merged()

    def cost(design, labels):
        flow = mappings.fit(mappings.style(labels["dataflow"], merged, design["hardware"].pes), merged)
        # As many rows as `best_styles` has: the program of its tests.
        rows = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * len(mappings.STYLES)), flow)
        costs = recipes.exact_dataflow_costs(merged, design["hardware"], rows)
        return jax.tree.map(lambda leaf: leaf[0], costs)

    check(problem, [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 2, 1], [1, 2, 0]], cost, 1e-5)


def test_a_style_that_needs_more_pes_than_there_are_is_infeasible():
    layer = Layer.create(n=1, k=4, c=4, h=14, w=14, r=5, s=5)
    network = Network.create([layer], info=NetworkInfo(name="five", names=("conv",)))
    table = StyleTable(network, ("kcp_ws", "yrp_rs"), np.array([2.0, 4.0, 6.0, 64.0]))
    classes = [2.0, *table.bounds]
    for weights, expected in (([1.0, 0.0], {2: 1, 64: 1}), ([0.0, 1.0], {2: 0, 4: 0, 6: 1, 64: 1})):
        for pes, applies in expected.items():
            pick = table.picker(jnp.asarray(weights), jnp.float32(pes))
            row = [jnp.asarray(entry[0], float) for entry in table.entries]
            assert float(pick(row)[1]) == applies, (weights, pes, classes)
    with pytest.raises(ValueError, match="dataflow 'yrp_rs' on layer 'conv'"):
        StyleTable(network, ("yrp_rs",), np.array([2.0, 4.0]))


@pytest.mark.slow
def test_all_mappings_of_a_layer_together_with_the_hardware(write):
    text = "model: loopnest\nbase: gemmini\nvariables: {pe_dim: {values: [4, 8]}, scratchpad_kb: {values: [1, 64]}}\n"
    problem = recipes.sweep_problem(NETWORK, write(text), layer="fc1")
    assert problem.layer == "fc1" and "mapping.tiles.c" in problem.space.names

    def cost(design, _):
        chip = hardware.gemmini(**design["hardware"])
        return models.loopnest.layer(NETWORK.rows()[1], chip, design["mapping"].nest())

    index = np.asarray(problem.space.sample(jax.random.key(0), 40))
    check(problem, index[:6], cost, 1e-5)
    legal = problem.exact(index)["feasible"]
    assert 0 < legal.sum() < len(legal)
    # A mapping may use every PE of the largest array, which the smaller one does not have.
    wide = recipes.sweep_problem(OTHER, write(text)).space
    assert any("8x" in str(slot.variable.label(i)) for slot in wide.variables[2:] for i in range(slot.size))


@pytest.mark.slow
def test_given_mappings(write, tmp_path):
    chip = hardware.hierarchy("gemmini")
    folder = tmp_path / "maps"
    folder.mkdir()
    best = {}
    for name, layer in (("conv", NETWORK.rows()[0]), ("fc1", NETWORK.rows()[1])):
        space = recipes.mapping_space(layer, chip)
        index = np.asarray(space.sample(jax.random.key(1), 1)[0])
        best[name] = space.at(index).nest()
        mappings.write_timeloop_mapping(best[name], chip, folder / f"{name}.map.yaml")
    text = "model: loopnest\nbase: gemmini\nmapping: maps\nvariables: {scratchpad_kb: {values: [1, 128]}}\n"
    problem = recipes.sweep_problem(NETWORK, write(text))

    def cost(design, _):
        hierarchy = hardware.gemmini(**design["hardware"])
        parts = [
            models.loopnest.layer(NETWORK.rows()[i], hierarchy, best[n]) for i, n in ((0, "conv"), (1, "fc1"))
        ]
        sums = {
            name: getattr(parts[0], name) + 2 * getattr(parts[1], name)
            for name in ("cycles", "energy_pj", "macs")
        }
        traffic = {k: v + 2 * parts[1].traffic_bytes[k] for k, v in parts[0].traffic_bytes.items()}
        legal = jnp.minimum(parts[0].feasible, parts[1].feasible)
        return replace(parts[0], **sums, traffic_bytes=traffic, feasible=legal)

    check(problem, [[0], [1]], cost, 1e-5)
    (folder / "conv.map.yaml").unlink()
    with pytest.raises(ValueError, match="has no mapping of layer 'conv'"):
        recipes.sweep_problem(NETWORK, write(text))


@pytest.mark.slow
def test_several_networks_and_limits(write):
    path = write(EDGE + "constraints: {area_mm2: 100}\n")
    both = (NETWORK, OTHER)
    one, two = (recipes.sweep_problem(net, path).exact([[1, 1]]) for net in both)
    total = recipes.sweep_problem(both, path).exact([[1, 1]])
    worst = recipes.sweep_problem(both, path, combine="worst").exact([[1, 1]])
    for name in ("latency_s", "energy_pj", "edp", "cycles", "dram_bytes"):
        np.testing.assert_allclose(total[name], one[name] + two[name], rtol=1e-12)
        np.testing.assert_allclose(worst[name], max(one[name], two[name]), rtol=1e-12)
    assert total["area_mm2"] == worst["area_mm2"] == one["area_mm2"] and total["feasible"] == 1
    np.testing.assert_allclose(total["power_w"], total["energy_pj"] * 1e-12 / total["latency_s"])
    area = float(one["area_mm2"][0])
    for limit, legal in ((area * 1.01, 1), (area * 0.99, 0)):
        problem = recipes.sweep_problem(NETWORK, path, constraints={"area_mm2": limit})
        feasible = jax.jit(lambda row, p=problem: p.evaluate(p.space.at(row))["feasible"])  # the rest is cut
        assert feasible(np.array([1, 1])) == legal


def differing(a, b, path=""):
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            one for key in {*a, *b} for one in differing(a.get(key), b.get(key), f"{path}.{key}".strip("."))
        ]
    return [] if a == b else [path]


def test_the_identity_names_what_differs(write):
    base = recipes.sweep_problem(NETWORK, write(EDGE)).identity
    json.dumps(base, allow_nan=False)
    assert differing(base, recipes.sweep_problem(NETWORK, write(EDGE)).identity) == []
    # Numbers and ranges of the design are the engine's to compare: `search.sweep`.
    assert (
        differing(base, recipes.sweep_problem(NETWORK, write(EDGE + "fixed: {freq_hz: 5e8}\n")).identity)
        == []
    )
    changes = {
        "base": recipes.sweep_problem(NETWORK, write(EDGE.replace("edge", "gemmini"))),
        "constraints.area_mm2": recipes.sweep_problem(NETWORK, write(EDGE + "constraints: {area_mm2: 4}\n")),
        "dataflow": recipes.sweep_problem(NETWORK, write(EDGE), dataflow="os"),
        "combine": recipes.sweep_problem(NETWORK, write(EDGE), combine="worst"),
        "options.dram": recipes.sweep_problem(NETWORK, write(EDGE + "  dram: {choice: [HBM2]}\n")),
    }
    for name, problem in changes.items():
        assert differing(base, problem.identity) == [name]
    changed = jax.tree.map(lambda leaf: leaf, NETWORK)
    changed = replace(changed, count=changed.count.at[0].set(2)).with_info(NETWORK.info)
    assert differing(base, recipes.sweep_problem(changed, write(EDGE)).identity) == ["networks.tiny"]


@pytest.mark.parametrize(
    "options, part",
    [
        ({"combine": "mean"}, "combine must be sum or worst"),
        ({"model": "systolik"}, "model must be one of"),
        ({"model": "dataflow"}, "needs a dataflow, as a variable or fixed; known: kcp_ws"),
        ({"model": "dataflow", "dataflow": "kcp"}, "dataflow must be one of"),
        ({"dataflow": "xs"}, "dataflow must be one of os, ws, is, got 'xs'"),
        ({"layer": "conv"}, "layer and mapping are for the loopnest model"),
        ({"constraints": {"area": 3}}, "no limit is called 'area'; did you mean 'area_mm2'?"),
        ({"networks": []}, "at least one network"),
        ({"networks": "alexnett"}, "alexnet"),
    ],
)
def test_mistakes(options, part, write):
    options = dict(options)
    with pytest.raises(ValueError) as caught:
        recipes.sweep_problem(options.pop("networks", NETWORK), write(EDGE), **options)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_mistakes_of_the_loopnest_model(write):
    path = write("model: loopnest\nbase: gemmini\n")
    for options, part in (
        ({}, "tiny has 2 distinct layers: name the one"),
        ({"layer": "fc3"}, "tiny has no layer 'fc3'; did you mean 'fc1'"),
        ({"mapping": "gone"}, "no such file or folder of mappings"),
        ({"dataflow": "ws"}, "the model here is loopnest"),
    ):
        with pytest.raises(ValueError) as caught:
            recipes.sweep_problem(NETWORK, path, **options)
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="one layer of one network"):
        recipes.sweep_problem([NETWORK, OTHER], path, layer="fc1")
