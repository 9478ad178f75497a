"""Marvel: the distinct-block optimum of small layers, what each rule costs there, counters, errors."""

import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import hardware
from diffhw.mappings import Precision, fit
from diffhw.models import TILE_LOOPS, dataflow, locality
from diffhw.recipes import (
    MARVEL_RULES,
    _marvel_off_chip,
    marvel,
    marvel_joint,
    marvel_platform,
    marvel_space,
    marvel_styles,
)
from diffhw.recipes._marvel_off_chip import off_chip
from diffhw.recipes._marvel_on_chip import Machine, candidates, dataflow_tile, evaluate
from diffhw.workloads import Layer

BLOCK = 8


@pytest.fixture(scope="module", autouse=True)
def _few_buckets():
    """All lists of orders but the shortest are filled up to 6!: fewer programs, and the same order twice is once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_marvel_off_chip, "_ORDER_BUCKETS", (3, 720, 5040, 40320))
        yield


WIDTH = {"w": 1.0, "i": 1.0, "o": 1.0, "psum": 1.0}

# name: (layer, words of L2)
SMALL = {
    "conv3x3": (Layer.create(k=8, c=6, p=7, q=7, r=3, s=3, h=7, w=7, pad_top=1, pad_left=1), 200),
    "conv1x1": (Layer.create(k=12, c=16, p=7, q=5), 240),
    "depthwise": (Layer.create(g=10, p=7, q=7, r=3, s=3, h=7, w=7, pad_top=1, pad_left=1), 120),
    "strided": (Layer.create(k=6, c=6, p=5, q=5, r=3, s=3, stride_h=2, stride_w=2), 260),
    "gemm": (Layer.gemm(14, 16, 12), 120),
}


def least(name, rules):
    """Least words moved under the rules, one set of tiles in L2."""
    layer, capacity = SMALL[name]
    found = off_chip(layer, capacity, BLOCK, WIDTH, double_buffered=False, rules=rules, f_min=0.25, keep=1)
    return float(found.movement[0])


@pytest.fixture(scope="module")
def optimum():
    """Every tile size, every order of the loops, every layout."""
    return {name: least(name, ()) for name in SMALL}


@jax.jit
def movement_of_everything(layer, tiles, orders, capacity):
    """Least of all orders and layouts for each tile, by `models.locality` alone: no bounds, no rules."""

    def one(sizes, order, pick):
        rank = {d: 0.0 for d in TILE_LOOPS} | dict(zip("kcpq", order))
        found = locality(
            layer, dict(zip("kcpq", sizes)), rank, {t: pick for t in "wio"}, block=4, capacity_words=capacity
        )
        return jnp.stack([found.traffic[t] for t in "wio"]), found.violation

    layouts = jax.vmap(one, (None, None, 0))
    moved, violation = jax.vmap(jax.vmap(layouts, (None, 0, None)), (0, None, None))(
        tiles, orders, jnp.eye(24)
    )
    each = jnp.sum(jnp.min(moved, 2), -1)  # a layout touches its own tensor only
    return jnp.where(violation[:, :, 0] > 0, jnp.inf, each)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "capacity"), [((4, 3, 4, 3), 40), ((3, 4, 3, 4), 30), ((4, 4, 3, 3), 60)])
def test_the_optimum_is_that_of_a_plain_loop_over_everything(sizes, capacity):
    layer = Layer.create(**dict(zip("kcpq", sizes)))
    tiles = np.array(list(itertools.product(*[range(1, n + 1) for n in sizes])), np.float32)
    orders = np.array(list(itertools.permutations(range(4))), np.float32)
    best = float(jnp.min(movement_of_everything(layer, tiles, orders, jnp.float32(capacity))))
    for rules in ((), ("P2",)):
        found = off_chip(layer, capacity, 4, WIDTH, double_buffered=False, rules=rules, f_min=0, keep=1)
        assert float(found.movement[0]) == best
        tile = dict(zip(TILE_LOOPS, found.tiles[0]))
        rank = dict(zip(TILE_LOOPS, found.order[0]))
        layout = {t: found.layouts[t][0] for t in "wio"}
        again = locality(layer, tile, rank, layout, block=4, capacity_words=capacity)
        assert float(again.data_movement) == best and float(again.feasible) == 1


# What a rule alone adds to the least movement, as a factor, where it adds anything: measured. Extents of 5
# and 7 have no divisors between (P1); a tile that takes rows of 7 whole moves several in a block (P7).
COST = {
    "P1": {"depthwise": 1.475, "strided": 1.2282},
    "P2": {},
    "P5": {},
    "P6": {},
    "P7": {"conv3x3": 1.2774, "depthwise": 2.59},
}


@pytest.mark.parametrize("rule", COST)
def test_what_a_rule_costs_off_chip(rule, optimum):
    for name in SMALL:
        ratio = least(name, (rule,)) / optimum[name]
        assert ratio == pytest.approx(COST[rule].get(name, 1.0), abs=5e-4), name


def test_the_default_loses_nothing_off_chip(optimum):
    for name in SMALL:
        assert least(name, ("P2",)) == optimum[name]


def test_rivals_do_more_work_and_move_little_more():
    layer, capacity = SMALL["conv3x3"]
    found = off_chip(
        layer, capacity, BLOCK, WIDTH, double_buffered=False, rules=("P2",), f_min=0, keep=4, slack=0.5
    )
    work = np.prod(found.tiles, 1)
    assert 2 <= len(work) <= 4 and (np.diff(work) > 0).all() and (np.diff(found.movement) >= 0).all()
    assert found.movement[-1] <= 1.5 * found.movement[0]


def machine_of(capacity, l1=64):
    """16 PEs with a buffer each."""
    local = hardware.Level.create(name="l1", capacity_bytes=l1, word_bits=8, instances=16)
    shared = hardware.Level.create(
        name="l2", capacity_bytes=capacity, read_bytes_per_cycle=8, write_bytes_per_cycle=8
    )
    return hardware.Accelerator.create(rows=4, cols=4, levels=(local, shared), dram=hardware.dram("LPDDR4"))


TINY = {
    "conv": Layer.create(k=4, c=16, p=5, r=2, s=1, q=1),
    "gemm": Layer.gemm(5, 16, 6),
    "depthwise": Layer.create(g=8, p=4, q=4, r=3, s=2),
}


def on_chip(name, rules, u_min=0.5):
    """Log EDP of the best on-chip mapping with the whole layer in L2, all costed, and how many."""
    layer, hw = TINY[name], machine_of(4096)
    hw = replace(hw, levels=tuple(replace(level, name="") for level in hw.levels))  # as `marvel` has them
    bits = Precision.of(hw)
    machine = Machine.of(hw, bits)
    sizes = np.array([float(getattr(layer, d)) for d in TILE_LOOPS])
    tile, rank = dataflow_tile(layer, sizes, np.arange(8.0))
    found = candidates(layer, tile, rank, machine, "edp", rules=rules, u_min=u_min)
    return float(evaluate(layer, hw, bits, found.pool, machine, "edp").min()), found.after


ON_CHIP_COST = {("P6", "conv"): 1.0767}  # EDP, as a factor: measured; all others cost nothing here


@pytest.fixture(scope="module")
def free():
    return {name: on_chip(name, ("P2",)) for name in TINY}


@pytest.mark.parametrize("rule", ["P1", "P3", "P4", "P6"])
def test_what_a_rule_costs_on_chip(rule, free):
    pruned = 0
    for name in TINY:
        best, left = on_chip(name, ("P2", rule))
        pruned += left < free[name][1]
        cost = ON_CHIP_COST.get((rule, name), 1.0)
        assert math.exp(best - free[name][0]) == pytest.approx(cost, abs=5e-4), name
    assert pruned


@pytest.mark.slow
def test_three_orders_are_as_good_on_chip_as_all(free):
    best, count = on_chip("gemm", ())
    assert count == 40 * free["gemm"][1]  # 120 orders of the groups
    assert math.exp(free["gemm"][0] - best) == pytest.approx(1, abs=5e-4)


LAYER = Layer.create(k=24, c=16, p=14, q=14, r=3, s=3, h=14, w=14, pad_top=1, pad_left=1)


@pytest.fixture(scope="module")
def found():
    return marvel(LAYER, machine_of(6000), block=BLOCK)


def test_the_result_is_what_the_models_say(found):
    cost_of = jax.jit(dataflow.layer)
    cost = cost_of(LAYER, machine_of(6000), found.dataflow)
    assert float(cost.feasible) == 1 and float(found.cost.feasible) == 1
    assert float(cost.edp) == pytest.approx(found.value, rel=1e-5)
    rank = {d: 0.0 for d in TILE_LOOPS} | {d: 1.0 + i for i, d in enumerate(found.order)}
    width = {"w": 1, "i": 1, "o": 1, "psum": 4}
    tile = {d: float(size) for d, size in found.tile.items()}
    moved = locality(
        LAYER, tile, rank, found.layouts, block=BLOCK, capacity_words=6000, double_buffered=True, width=width
    )
    assert float(moved.data_movement) == float(found.locality.data_movement) >= found.least_movement
    assert float(moved.feasible) == 1
    program = found.program()
    again = cost_of(LAYER, machine_of(6000), fit(program, LAYER))
    assert float(again.cycles) == float(cost.cycles)


def test_it_beats_the_fixed_styles(found):
    styles = marvel_styles(LAYER, machine_of(6000))
    assert set(styles) == {"nvdla", "row stationary", "shidiannao"}
    for cost in styles.values():
        assert cost is None or not float(cost.feasible) or found.value < float(cost.edp)


def test_objectives_and_repeatability(found):
    hw = machine_of(6000)
    fast, frugal = (marvel(LAYER, hw, block=BLOCK, objective=one) for one in ("latency", "energy"))
    assert fast.value == pytest.approx(float(fast.cost.latency_s))
    assert float(fast.cost.cycles) <= float(found.cost.cycles) * 1.001
    assert float(frugal.cost.energy_pj) <= float(found.cost.energy_pj) * 1.001
    assert marvel(LAYER, hw, block=BLOCK).value == found.value
    drawn = [marvel(LAYER, hw, jax.random.key(seed), block=BLOCK, budget=2000) for seed in (1, 1)]
    assert drawn[0].value == drawn[1].value and drawn[0].space.evaluated <= 2000 < drawn[0].space.on_chip


@pytest.mark.slow
def test_what_decoupling_costs():
    """Joint search on a small layer, on-chip part in full; measured: 0 to 31 % over six layers."""
    layer, hw = Layer.create(k=8, c=8, p=6, q=4), machine_of(400)
    rules = ("P1", "P2", "P3", "P6")
    joint = marvel_joint(layer, hw, block=BLOCK, rules=rules, per_tile=1000)
    strict, ours = (marvel(layer, hw, block=BLOCK, rules=rules, keep=keep) for keep in (1, 4))
    assert joint.value <= ours.value * 1.0001 <= strict.value * 1.001
    assert strict.value < 1.4 * joint.value
    assert joint.least_movement <= float(joint.locality.data_movement)


def test_spaces_are_counted_exactly():
    """k = 4, p = 6: tiles (T, t <= T): 10 x 21, of divisors (1 + 2 + 3) x (1 + 2 + 2 + 4); orders 2! twice;
    layouts: w has one dimension longer than 1, i one, o two; spread: k, p, kp, pk; 3 PEs.
    """
    layer = Layer.create(k=4, p=6, q=1)
    assert marvel_space(layer, 3) == (10 * 21 * 4 * 2 * 4 * 3, 6 * 9 * 4 * 2 * 4 * 3)
    assert isinstance(marvel_space(Layer.create(k=512, c=512, p=7, q=7, r=3, s=3), 168)[0], int)


def test_the_space_left_is_counted(found):
    space = found.space
    assert space.tiles["all"] == 24 * 16 * 14 * 14 * 9 == space.tiles["P6"]
    assert space.tiles["P5: fits"] == space.tiles["P5"] < space.tiles["all"]
    assert space.off_chip == space.tiles["P5"] * 3 * 24 * 6 * 6  # no batch: three dimensions of i and o
    assert space.full // (space.off_chip + space.on_chip) > 1e8
    ruled = marvel(LAYER, machine_of(6000), block=BLOCK, rules=MARVEL_RULES).space
    assert ruled.tiles["P1"] == 8 * 5 * 4 * 4 * 4 and ruled.tiles["P6"] == 8 * 5 * 4 * 4
    assert ruled.off_chip < space.off_chip and ruled.full == space.full


def test_depthwise_and_grouped_layers():
    depthwise = marvel(SMALL["depthwise"][0], machine_of(600), block=BLOCK)
    assert (float(depthwise.cost.feasible) == 1 and "g" not in depthwise.tile) or depthwise.tile["g"] >= 1
    grouped = marvel(Layer.create(g=4, k=4, c=4, p=6, q=6), machine_of(600), block=BLOCK)
    assert grouped.tile["g"] == 1 and float(grouped.cost.macs) == 4 * 4 * 4 * 36


def test_utilisation_gives_way():
    narrow = marvel(Layer.gemm(1, 64, 3), machine_of(2000), block=BLOCK, rules=MARVEL_RULES, u_min=1.0)
    assert narrow.relaxed in ((), ("P4",)) and float(narrow.cost.feasible) == 1
    few = marvel(Layer.gemm(1, 1, 5), machine_of(2000), block=BLOCK)
    assert few.relaxed == ("P4",) and float(few.cost.feasible) == 1


def test_failure_says_what_binds():
    with pytest.raises(ValueError, match=r"no tile fits L2 \(P5\): the smallest takes .* without P6"):
        marvel(LAYER, machine_of(30), rules=MARVEL_RULES)
    with pytest.raises(ValueError, match=r"no tile fits L2 \(P5\)"):
        marvel(LAYER, machine_of(3))
    with pytest.raises(ValueError, match=r"no on-chip mapping fits L1: the smallest .* P6 off"):
        marvel(LAYER, machine_of(6000, l1=8))
    with pytest.raises(ValueError, match="rule P5 leaves no tile"):
        marvel(Layer.create(k=2, c=512, p=1, q=1), machine_of(700), rules=("P1", "P5"), f_min=0.99)


def test_errors():
    hw = machine_of(6000)
    with pytest.raises(ValueError, match="objective must be edp, latency or energy, got 'speed'"):
        marvel(LAYER, hw, objective="speed")
    with pytest.raises(ValueError, match=r"rules are P1, P2, .*; got 'p9'"):
        marvel(LAYER, hw, rules=("P1", "p9"))
    with pytest.raises(ValueError, match="block must be a whole number"):
        marvel(LAYER, hw, block=0)
    with pytest.raises(ValueError, match="platform must be one of p1, p2"):
        marvel_platform("p3")
    with pytest.raises(ValueError, match="unknown hardware"):
        marvel(LAYER, "nowhere")
    with pytest.raises(ValueError, match="exceed the limit"):
        marvel_joint(LAYER, hw, limit=1000)
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), LAYER)
    with pytest.raises(ValueError, match="map its rows one by one"):
        marvel(batch, hw)


def test_platforms():
    assert float(marvel_platform("p1").pes) == 168 and float(marvel_platform("p2").pes) == 1024
    assert replace(marvel_platform("p1"), freq_hz=jnp.float32(2e9)).freq_hz == 2e9
