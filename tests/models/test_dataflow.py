"""The dataflow model: counts against a walk PE by PE, physics, gradients, transforms."""

import math
import random
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dataflow_oracle import DIMS, count, random_case, wide_case

from diffhw import hardware, search, workloads
from diffhw.mappings import ClusterLevel, Dataflow, fit, parse, style
from diffhw.models import dataflow, dataflow_counts, nest_of, roofline
from diffhw.spaces import Choice, Integer, Space
from diffhw.workloads import Layer

COUNTS = {
    "fills_input": "input_fills",
    "fills_weight": "weight_fills",
    "reads_input": "input_reads",
    "reads_weight": "weight_reads",
    "out_moves": "output_moves",
    "out_returns": "output_returns",
    "drains": "output_drains",
    "macs": "macs",
    "steps": "steps",
    "compute": "compute",
    "psum_updates": "psum_updates",
}


def accelerator(rows=8, cols=8, l1=512, l2=108_000, port=64.0, **more):
    local = hardware.Level.create(name="l1", capacity_bytes=l1, instances=rows * cols, word_bits=8)
    shared = hardware.Level.create(
        name="l2", capacity_bytes=l2, read_bytes_per_cycle=port, write_bytes_per_cycle=port
    )
    dram = hardware.dram("LPDDR4")
    return hardware.Accelerator.create(rows=rows, cols=cols, levels=(local, shared), dram=dram, **more)


def as_arrays(case):
    """Layer, Dataflow and PEs of an oracle case, numpy scalars."""
    extents, (sh, sw), (dh, dw), depthwise, levels, pes = case
    sizes = dict(extents)
    if depthwise:
        sizes |= {"g": sizes["c"], "c": 1}
    fields = dict.fromkeys(Layer.__dataclass_fields__, 1.0) | {k: float(v) for k, v in sizes.items()}
    fields |= dict(stride_h=sh, stride_w=sw, dilation_h=dh, dilation_w=dw)
    fields["h"] = (sizes["p"] - 1) * sh + dh * (sizes["r"] - 1) + 1
    fields["w"] = (sizes["q"] - 1) * sw + dw * (sizes["s"] - 1) + 1
    scalar = lambda values: {d: np.float32(values[d]) for d in DIMS}
    flow = Dataflow(
        levels=tuple(
            ClusterLevel(
                tile=scalar(one["tile"]),
                offset=scalar(one["tile"]),
                rank=scalar(one["rank"]),
                spatial=scalar(one["spatial"]),
                units=np.float32(one["units"]),
            )
            for one in levels
        )
    )
    return Layer(**{k: np.float32(v) for k, v in fields.items()}), flow, np.float32(pes)


@jax.jit
@jax.vmap
def closed_form(layer, flow, pes):
    return dataflow_counts(nest_of(layer, flow, pes), tuple(level.rank for level in flow.levels))


def touching(case):
    """The domain in which L2 input reads are promised exact (`_dataflow_counts`)."""
    extents, strides, dilations, _, levels, pes = case
    units = [pes // (levels[1]["units"] * levels[2]["units"]), levels[1]["units"], levels[2]["units"]]
    for out, taps, stride, dilation in zip("pq", "rs", strides, dilations):
        parent, dealt = extents[out], False
        for level, n in zip(levels, units):
            pieces = math.ceil(parent / min(level["tile"][out], parent))
            if dealt and pieces > 1 and dilation * (extents[taps] - 1) + 1 > 2 * stride:
                return False
            dealt |= bool(level["spatial"][out]) and n > 1 and pieces > 1
            parent = min(level["tile"][out], parent)
    return True


def idle():
    return dict(
        tile=dict.fromkeys(DIMS, 99), rank=dict(zip(DIMS, range(7))), spatial=dict.fromkeys(DIMS, 0), units=1
    )


@pytest.mark.parametrize(("draw", "seed"), [(random_case, 5), (wide_case, 6)])
def test_counts_equal_a_walk_pe_by_pe(draw, seed):
    rng = random.Random(seed)
    cases = [draw(rng) for _ in range(250)]
    for case in cases:
        case[4].extend(idle() for _ in range(3 - len(case[4])))
    ours = closed_form(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *[as_arrays(c) for c in cases]))
    inside = 0
    for i, case in enumerate(cases):
        walked = count(*case)
        inside += touching(case)
        for theirs, name in COUNTS.items():
            mine = float(getattr(ours, name)[i])
            if theirs == "reads_input" and not touching(case):
                assert mine >= walked[theirs], case
            else:
                assert mine == walked[theirs], (name, case)
    assert inside > 200  # the rest is where L2 reads of inputs may be too high


cost_of = jax.jit(dataflow.layer)


def conv(**more):
    return Layer.create(**(dict(k=8, c=4, p=6, q=6, r=3, s=3) | more))


def test_physics_holds_on_random_cases():
    rng = random.Random(7)
    cases = [draw(rng) for draw in (random_case, wide_case) for _ in range(256)]
    for case in cases:
        case[4].extend(idle() for _ in range(3 - len(case[4])))
    layers, flows, _ = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[as_arrays(c) for c in cases])
    hw = accelerator(rows=2, cols=2, port=2.0, l2=500)

    def check(layer, flow):
        cost, bound = dataflow.layer(layer, hw, flow), roofline.layer(layer, hw)
        least = 1 - 1e-6
        return {
            "time": cost.cycles >= least * bound.cycles,
            "energy": cost.energy_pj >= least * bound.energy_pj,
            "macs": cost.macs == layer.macs,
            "dram": cost.dram_bytes >= least * bound.dram_bytes,
            "finite": jnp.isfinite(cost.cycles) & jnp.isfinite(cost.energy_pj),
            "verdict": (cost.feasible == 1) == (cost.violation <= 0),
        }

    held = jax.jit(jax.vmap(check))(layers, flows)
    assert {law: int(np.sum(~np.asarray(ok))) for law, ok in held.items()} == dict.fromkeys(held, 0)


def test_hand_worked_weight_stationary_row():
    # 1 x 1 filters, one PE: K outside, columns inside. Each of 2 filters is loaded once; the 3 columns of
    # input come once per filter (the second time the first tile is not the last one); outputs leave once.
    layer = Layer.create(k=2, c=1, p=1, q=3)
    flow = fit(parse("TemporalMap(1,1) K; SpatialMap(1,1) X'; TemporalMap(1,1) R; TemporalMap(1,1) S"), layer)
    c = dataflow_counts(nest_of(layer, flow, jnp.float32(1)), tuple(level.rank for level in flow.levels))
    assert (float(c.weight_reads), float(c.input_reads), float(c.output_moves)) == (2, 6, 6)
    assert (float(c.steps), float(c.macs), float(c.output_returns)) == (6, 6, 0)


def test_loop_order_decides_what_stays():
    layer, hw = conv(k=16, c=16), accelerator()
    inner = "TemporalMap(Sz(R),Sz(R)) R; TemporalMap(Sz(S),Sz(S)) S; TemporalMap(1,1) Y'; SpatialMap(1,1) X'"
    weights = cost_of(layer, hw, fit(parse(f"TemporalMap(1,1) K; TemporalMap(1,1) C; {inner}"), layer))
    outer = "TemporalMap(1,1) Y'; SpatialMap(1,1) X'; TemporalMap(1,1) K; TemporalMap(1,1) C"
    window = "TemporalMap(Sz(R),Sz(R)) R; TemporalMap(Sz(S),Sz(S)) S"
    outputs = cost_of(layer, hw, fit(parse(f"{outer}; {window}"), layer))
    assert weights.traffic_bytes["l2_weight_read"] == layer.weight_words
    assert outputs.traffic_bytes["l2_weight_read"] == 6 * layer.weight_words
    # Output stationary: nothing comes back; weight stationary: once per further channel.
    psums = lambda cost: float(cost.traffic_bytes["l2_output_write"]) - float(layer.output_words)
    assert psums(outputs) == 0
    assert psums(weights) == 15 * float(layer.output_words) * 4  # 32-bit partial sums


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_macs_and_roofline_for_named_styles(stride):
    layer = conv(k=48, c=30, p=13, q=13, stride_h=stride, stride_w=stride)
    hw = accelerator()
    bound = roofline.layer(layer, hw)
    for name in ("kcp_ws", "ckp_ws", "xp_ws", "cp_nlr", "yrp_rs", "yxp_os", "maeri_3l"):
        cost = cost_of(layer, hw, fit(style(name, layer, 64), layer))
        assert float(cost.macs) == float(layer.macs)
        assert float(cost.cycles) >= float(bound.cycles)
        assert float(cost.dram_bytes) >= float(bound.dram_bytes) * (1 - 1e-6)
        assert float(cost.utilization) <= 1
        parts = sum(float(value) for value in cost.energy_parts.values())
        assert parts == pytest.approx(float(cost.energy_pj), rel=1e-6)


def test_padded_rows_and_networks():
    net = workloads.load("alexnet").merged()
    hw = accelerator()
    flow = fit(style("kcp_ws", net, 64), net)
    total = dataflow(net, hw, flow)
    assert float(total.macs) == pytest.approx(float(np.sum(net.count * net.mask * net.layers.macs)), rel=1e-6)
    scanned = dataflow(net, hw, flow, layer_loop="scan")
    assert float(scanned.energy_pj) == pytest.approx(float(total.energy_pj), rel=1e-6)
    with pytest.raises(ValueError, match="one row per padded layer row"):
        dataflow(net, hw, jax.tree.map(lambda leaf: leaf[0], flow))


def test_infeasible_is_a_value():
    layer = conv()
    flow = fit(style("kcp_ws", layer, 64), layer)
    assert float(cost_of(layer, accelerator(), flow).feasible) == 1
    small = cost_of(layer, accelerator(l1=8), flow)
    assert float(small.feasible) == 0 and float(small.violation) > 0
    gap = replace(flow.levels[0], offset={**flow.levels[0].offset, "p": jnp.float32(2.0)})
    lossy = cost_of(layer, accelerator(), Dataflow(levels=(gap, *flow.levels[1:])))
    assert float(lossy.feasible) == 0
    crowded = cost_of(layer, accelerator(rows=1, cols=2), flow)
    assert float(crowded.feasible) == 0
    assert float(crowded.cycles) >= float(layer.macs) / 2
    # Two dimensions dealt out at one level would need a grid of units: only the outermost is.
    both = replace(flow.levels[0], spatial={**flow.levels[0].spatial, "p": jnp.float32(1.0)})
    doubled = cost_of(layer, accelerator(), Dataflow(levels=(both, *flow.levels[1:])))
    assert float(doubled.feasible) == 0
    assert float(doubled.utilization) <= 1 and float(doubled.macs) == float(layer.macs)


def test_more_never_hurts():
    layer = conv(k=64, c=64, p=28, q=28)
    flow = fit(style("kcp_ws", layer, 64), layer)
    cycles = lambda **more: float(cost_of(layer, accelerator(**more), flow).cycles)
    ports = [cycles(port=port) for port in (1, 2, 4, 8, 16)]
    assert ports == sorted(ports, reverse=True) and ports[0] > ports[-1]
    drams = [
        float(cost_of(layer, accelerator(l2=size), flow).dram_bytes) for size in (2_000, 20_000, 2_000_000)
    ]
    assert drams == sorted(drams, reverse=True) and drams[0] > drams[-1]


def test_no_promised_gradient_is_silently_zero():
    layer = conv(k=64, c=64, p=28, q=28)
    flow = fit(style("kcp_ws", layer, 64), layer)
    hw = accelerator(port=4.0, l2=3_000)

    def log_edp(layer, hw, flow):
        return jnp.log(cost_of(layer, hw, flow).edp)

    of_layer, of_hw, of_flow = jax.jit(jax.grad(log_edp, argnums=(0, 1, 2)))(layer, hw, flow)
    for name in ("k", "c", "p", "q", "r", "s"):
        assert float(getattr(of_layer, name)) > 0, name
    assert float(of_hw.levels[1].read_bytes_per_cycle) < 0
    assert float(of_hw.levels[1].capacity_bytes) < 0  # more of L2: less DRAM traffic
    assert float(of_hw.dram.gb_per_s) < 0 and float(of_hw.dram.pj_per_bit) > 0
    assert float(of_flow.levels[0].tile["k"]) != 0 and float(of_flow.levels[0].tile["p"]) != 0
    assert float(of_flow.levels[1].units) != 0
    for leaf in jax.tree.leaves((of_layer, of_hw, of_flow)):
        assert np.isfinite(leaf)


def test_smooth_parts_match_finite_differences():
    layer = conv(k=16, c=16, p=14, q=14)
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)
        flow, hw = double(fit(style("yxp_os", layer, 64), layer)), double(accelerator(port=4.0))
        layer = double(layer)

        def value(port, pj):
            levels = (hw.levels[0], replace(hw.levels[1], read_bytes_per_cycle=port))
            design = replace(hw, levels=levels, dram=replace(hw.dram, pj_per_bit=pj))
            return jnp.log(cost_of(layer, design, flow).edp)

        point = (jnp.float64(4.0), jnp.float64(5.0))
        both = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))  # one program for values and slopes
        for i, slope in enumerate(both(*point)[1]):
            ends = [both(*[x + (h if j == i else 0) for j, x in enumerate(point)])[0] for h in (1e-5, -1e-5)]
            assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_batched_equals_looped():
    layer = conv()
    names = ("kcp_ws", "yrp_rs", "yxp_os")
    flows = [fit(style(name, layer, 64), layer) for name in names]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *flows)
    hw = accelerator()
    batched = jax.jit(jax.vmap(dataflow.layer, in_axes=(None, None, 0)))(layer, hw, stacked)
    for i, flow in enumerate(flows):
        one = cost_of(layer, hw, flow)
        assert float(batched.cycles[i]) == pytest.approx(float(one.cycles), rel=1e-6)
        assert float(batched.energy_pj[i]) == pytest.approx(float(one.energy_pj), rel=1e-6)


def test_tiles_offsets_order_and_whole_dataflows_are_variables_of_a_space():
    layer, hw = conv(k=16, c=16), accelerator(port=8.0)
    start = fit(style("kcp_ws", layer, 64), layer)
    outer = start.levels[0]
    by = lambda *dims: {d: jnp.float32(dims.index(d)) for d in DIMS}
    orders = {"weights stay": by(*"kcrspqn"), "outputs stay": by(*"kpqcrsn")}
    rows = Integer(1, 6)
    outer = replace(
        outer,
        rank=Choice(orders),
        tile={**outer.tile, "p": rows},
        offset={**outer.offset, "p": rows},  # one variable twice: a tie
    )
    space = Space(replace(start, levels=(outer, *start.levels[1:])))
    assert space.size == 12

    def objective(flow):
        cost = dataflow.layer(layer, hw, flow)
        return jnp.log(cost.edp) + 5 * jnp.log1p(cost.violation)

    every = jax.jit(jax.vmap(lambda i: objective(space.at(i))))(
        jnp.array([[a, b] for a in range(space.sizes[0]) for b in range(space.sizes[1])])
    )
    found = search.local_search(objective, space, jax.random.key(0), budget=500)
    assert found.value == pytest.approx(float(every.min()), abs=1e-4)
    assert float(found.best.levels[0].tile["p"]) == float(found.best.levels[0].offset["p"])

    named = {name: fit(style(name, layer, 64), layer) for name in ("kcp_ws", "yxp_os", "cp_nlr")}
    whole = Space({"flow": Choice(named)})
    best = min(named, key=lambda name: float(objective(named[name])))
    costs = [float(objective(whole.at(jnp.array([i]))["flow"])) for i in range(3)]
    assert list(named)[int(np.argmin(costs))] == best
