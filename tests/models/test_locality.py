"""Distinct blocks of a tiled layer: by hand, against a walk over tiles and addresses, slopes, transforms."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw.models import TENSOR_LAYOUTS, TILE_LOOPS, TILE_ORDERS, locality
from diffhw.workloads import Layer

ARRAYS = {"w": "gkcrs", "i": "ngchw", "o": "ngkpq"}


def walk(layer, tile, rank, layout, block):
    """{tensor: (blocks moved, blocks of partial sums read)}, tile by tile, address by address.

    A run is a stretch of touched addresses without a gap; rows skipped inside the box may be taken along
    if that needs fewer blocks. Nothing here knows about trips, visits or merging.
    """
    size = {d: int(getattr(layer, d)) for d in (*TILE_LOOPS, "h", "w")}
    starts = {d: list(range(0, size[d], int(tile[d]))) for d in TILE_LOOPS}
    loops = sorted(TILE_LOOPS, key=lambda d: rank[d])
    stride = {"h": int(layer.stride_h), "w": int(layer.stride_w)}
    dilation = {"h": int(layer.dilation_h), "w": int(layer.dilation_w)}

    def touched(at, d, filled):
        """Positions of an array dimension that the tile beginning at ``at`` uses."""
        if d not in "hw":
            return range(at[d], min(at[d] + int(tile[d]), size[d]))
        out, tap = ("p", "r") if d == "h" else ("q", "s")
        many = len(touched(at, out, False)), len(touched(at, tap, False))
        wide = (many[1] - 1) * dilation[d] + 1
        rows = sorted({o * stride[d] + x for o in range(many[0]) for x in range(wide)})
        if filled:
            rows = list(range(rows[-1] + 1))
        if rows[-1] + 1 <= size[d]:
            return rows
        # The box overhangs: all of the array, or as many rows as are touched if fewer.
        return range(min(len(rows), size[d]))

    def blocks(t, at):
        order = layout[t]

        # The innermost dimension that is not there in full ends the runs; rows skipped in it may be filled.
        ends = [i for i in range(len(order)) if len(touched(at, order[i], False)) < size[order[i]]]
        end = ends[-1] if ends else 0

        def count(filled):
            address = [0]
            for i in range(end, len(order)):
                here = touched(at, order[i], filled and i == end)
                address = [a * size[order[i]] + x for a in address for x in here]
            runs, total = 1, 0
            for before, after in itertools.pairwise(sorted(address)):
                if after == before + 1:
                    runs += 1
                else:
                    total, runs = total + math.ceil(runs / block), 1
            return total + math.ceil(runs / block)

        outside = math.prod(len(touched(at, d, False)) for d in order[:end])
        return outside * min(count(False), count(True))

    resident, moved, read, seen = {}, dict.fromkeys("wio", 0), 0, set()
    moves = {"w": "gkcrs", "i": "ngcpqrs", "o": "ngkpq"}
    for place in itertools.product(*[starts[d] for d in loops]):
        at = dict(zip(loops, place))
        for t in "wio":
            name = tuple(at[d] for d in moves[t])
            if resident.get(t) == name:
                continue
            resident[t] = name
            here = blocks(t, at)
            moved[t] += here
            if t == "o":
                if name in seen:
                    read += here
                    moved[t] += here
                seen.add(name)
    return moved, read


LAYERS = {
    "conv": Layer.create(k=4, c=3, p=5, q=4, r=3, s=3, h=5, w=4, pad_top=1, pad_left=1),
    "strided": Layer.create(n=2, k=3, c=4, h=9, w=7, r=3, s=3, stride_h=2, stride_w=2),
    "skipping": Layer.create(k=4, c=6, h=8, w=7, stride_h=2, stride_w=2),
    "dilated": Layer.create(k=2, c=3, h=9, w=8, r=3, s=2, dilation_h=2),
    "depthwise": Layer.create(g=6, h=6, w=6, r=3, s=3, pad_top=1, pad_left=1),
    "grouped": Layer.create(g=2, k=3, c=4, p=4, q=3),
    "gemm": Layer.gemm(6, 8, 10),
}


def one_hot(menu, choice):
    return jnp.asarray([float(one == choice) for one in menu])


@jax.jit
def found(layer, tile, rank, layout, block):
    return locality(layer, tile, rank, layout, block=block)


def cases(layer, count, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        tile = {}
        for d in TILE_LOOPS:
            extent = int(getattr(layer, d))
            tile[d] = extent if rng.random() < 0.45 else int(rng.integers(1, extent + 1))
        rank = dict(zip(TILE_LOOPS, rng.permutation(8).tolist()))
        layout = {t: menu[rng.integers(24)] for t, menu in TENSOR_LAYOUTS.items()}
        yield tile, rank, layout, int(rng.choice([1, 2, 3, 4, 7, 16]))


@pytest.mark.parametrize("name", LAYERS)
def test_a_walk_over_the_tiles_counts_the_same(name):
    layer = LAYERS[name]
    for tile, rank, layout, block in cases(layer, 25, seed=len(name)):
        moved, read = walk(layer, tile, rank, layout, block)
        number = lambda values: {d: jnp.float32(value) for d, value in values.items()}
        shares = {t: one_hot(TENSOR_LAYOUTS[t], layout[t]) for t in layout}
        got = found(layer, number(tile), number(rank), shares, jnp.float32(block))
        context = (tile, rank, layout, block)
        assert {t: int(got.blocks[t]) for t in "wio"} == moved, context
        assert int(got.returns) == read * block, context


def test_by_hand():
    """Product of 4 x 6 by 6 x 8 in tiles of 2 x 3 x 4 (p, c, k), blocks of 4, output staying.

    Order k, p, c: the two channel tiles run inside. Weights (k outside c): four tiles of 4 x 3, in rows of 3,
    that is 4 blocks; both move in each of the 2 x 2 rounds: 8 tiles of 4 blocks = 32. Inputs, stored
    channels outside rows: 3 runs of 2 = 3 blocks; 8 tiles, 24. Outputs, filters outside rows: 4 runs of 2, 4
    blocks, four tiles once: 16. Channels outermost: weights change with k and c only, 4 x 4 = 16; outputs are
    visited twice: 16 written, 16 read and 16 written again.
    """
    layer = Layer.gemm(4, 6, 8)
    tile = {"p": 2.0, "c": 3.0, "k": 4.0}
    inside = locality(layer, tile, "o", block=4)
    assert {t: int(x) for t, x in inside.blocks.items()} == {"w": 32, "i": 24, "o": 16}
    assert float(inside.returns) == 0 and float(inside.data_movement) == 4 * 72
    assert float(inside.footprint) == 12 + 6 + 8
    outside = locality(layer, tile, "w", block=4)
    assert {t: int(x) for t, x in outside.blocks.items()} == {"w": 16, "i": 24, "o": 48}
    assert float(outside.returns) == 64
    # The array's rows of 6 channels in memory order merge where a tile takes them whole.
    whole = locality(layer, {"p": 2.0}, "o", {"i": "nhwgc"}, block=4)
    assert float(whole.blocks["i"]) == 2 * 3


def test_a_loop_of_one_trip_may_stand_anywhere():
    layer = LAYERS["conv"]
    tile = {"k": 2.0, "c": 1.0, "r": 3.0, "s": 3.0, "p": 5.0, "q": 4.0}
    number = lambda values: {d: jnp.float32(value) for d, value in values.items()}
    full = {d: tile.get(d, 1.0) for d in TILE_LOOPS}
    moving = ("k", "c")
    rest = [d for d in TILE_LOOPS if d not in moving]
    shares = {t: one_hot(menu, menu[0]) for t, menu in TENSOR_LAYOUTS.items()}
    for first in (moving, moving[::-1]):
        seen = set()
        for split in itertools.product(range(3), repeat=len(rest)):
            if len(seen) and sum(split) % 5:
                continue
            order = [d for d, s in zip(rest, split) if s == 0] + [first[0]]
            order += [d for d, s in zip(rest, split) if s == 1] + [first[1]]
            order += [d for d, s in zip(rest, split) if s == 2]
            rank = {d: order.index(d) for d in TILE_LOOPS}
            got = found(layer, number(full), number(rank), shares, jnp.float32(4))
            seen.add(tuple(float(x) for x in got.traffic.values()))
        assert len(seen) == 1


def test_no_order_beats_the_three():
    """All 720 orders of the loops that move (rule P2), on random tiles."""
    layer = Layer.create(n=2, k=4, c=4, p=4, q=4, r=2, s=1)
    loops = "nkcpqr"
    places = np.zeros((720, 8), np.float32)
    for i, order in enumerate(itertools.permutations(loops)):
        places[i, [TILE_LOOPS.index(d) for d in order]] = range(1, 7)
    ranks = {d: places[:, i] for i, d in enumerate(TILE_LOOPS)}
    three = {d: np.float32([one[d] for one in TILE_ORDERS.values()]) for d in TILE_LOOPS}

    @jax.jit
    def least(tile, orders):
        return jnp.min(jax.vmap(lambda rank: locality(layer, tile, rank, block=4).data_movement)(orders))

    rng = np.random.default_rng(0)
    for _ in range(40):
        tile = {d: jnp.float32(rng.integers(1, int(getattr(layer, d)) + 1)) for d in TILE_LOOPS}
        assert float(least(tile, ranks)) == float(least(tile, three))


def test_moves_no_less_than_it_must():
    for name, layer in LAYERS.items():
        if name == "skipping":
            continue
        for tile, rank, layout, block in cases(layer, 10, seed=3):
            number = lambda values: {d: jnp.float32(value) for d, value in values.items()}
            shares = {t: one_hot(TENSOR_LAYOUTS[t], layout[t]) for t in layout}
            got = found(layer, number(tile), number(rank), shares, jnp.float32(block))
            assert float(got.traffic["w"]) >= float(layer.weight_words)
            assert float(got.traffic["o"]) >= float(layer.output_words)


def test_capacity():
    layer = Layer.gemm(4, 6, 8)
    room = lambda words, **options: locality(layer, {"k": 4.0}, capacity_words=words, **options)
    # Inputs stay as they are (24); weights (24) and outputs (16) come in two tiles.
    assert float(room(64.0).footprint) == 24 + 24 + 16 and float(room(64.0).feasible) == 1
    twice = room(64.0, double_buffered=True)
    assert float(twice.footprint) == 24 + 2 * (24 + 16) and float(twice.feasible) == 0
    assert float(twice.violation) == pytest.approx(104 / 64 - 1)
    bytes_of = {"w": 1, "i": 1, "o": 1, "psum": 4}
    assert float(room(112.0, width=bytes_of).footprint) == 24 + 24 + 64


def test_widths_weigh_the_movement():
    layer, tile = Layer.gemm(4, 6, 8), {"p": 2.0, "c": 3.0, "k": 4.0}
    plain = locality(layer, tile, "w", block=4)
    wide = locality(layer, tile, "w", block=4, width={"w": 2, "i": 3, "o": 5, "psum": 7})
    w, i = (float(plain.traffic[t]) for t in "wi")
    assert float(plain.data_movement) == sum(float(x) for x in plain.traffic.values())
    # 64 words come back and go out again as sums, 64 leave as results.
    assert float(wide.data_movement) == 2 * w + 3 * i + 5 * 64 + 7 * 2 * 64


def test_weights_over_orders_and_layouts_give_the_expectation():
    layer, tile = LAYERS["conv"], {"k": 2.0, "c": 1.0, "p": 2.0}
    share = jnp.asarray([0.2, 0.3, 0.5])
    each = [locality(layer, tile, name, block=4) for name in TILE_ORDERS]
    mixed = locality(layer, tile, share, block=4)
    for t in "wio":
        assert float(mixed.traffic[t]) == pytest.approx(
            sum(float(s * one.traffic[t]) for s, one in zip(share, each)), rel=1e-6
        )
    slope = jax.grad(lambda w: locality(layer, tile, w, block=4).data_movement)(share)
    # Weights sum to one, so a slope common to all of them means nothing.
    whole = np.array([float(one.data_movement) for one in each])
    np.testing.assert_allclose(slope - slope.mean(), whole - whole.mean(), rtol=1e-4)
    menu = TENSOR_LAYOUTS["i"]
    even = jnp.full(24, 1 / 24)
    mixed = locality(layer, tile, "o", {"i": even}, block=4).traffic["i"]
    mean = np.mean([float(locality(layer, tile, "o", {"i": one}, block=4).traffic["i"]) for one in menu])
    assert float(mixed) == pytest.approx(mean, rel=1e-5)


def test_slopes_point_the_right_way():
    layer = Layer.create(k=32, c=32, p=16, q=16, r=3, s=3)

    def moved(tile, block, capacity):
        got = locality(layer, tile, "w", block=block, capacity_words=capacity)
        return got.data_movement, got.feasible

    tile = {"k": jnp.float32(8), "c": jnp.float32(8), "p": jnp.float32(4), "q": jnp.float32(4)}
    slope = jax.jit(jax.grad(lambda *a: moved(*a)[0], (0, 1)))(tile, jnp.float32(16), jnp.float32(100.0))
    # Weights stay: larger k reads the inputs less often, larger c the sums, larger p loses less halo.
    assert all(float(slope[0][d]) < 0 for d in "kcpq") and float(slope[1]) > 0
    assert float(jax.grad(lambda c: moved(tile, 16.0, c)[1])(jnp.float32(100.0))) > 0
    rank = {d: jnp.float32(x) for d, x in TILE_ORDERS["w"].items()}
    by_order = jax.grad(lambda rank: locality(layer, tile, rank).traffic["o"])(rank)
    assert float(by_order["c"]) < 0  # channels further in: fewer rounds over the sums


def test_block_of_one_is_differentiable_like_the_relaxation():
    """With relaxed tiles the words of a pass do not depend on the tile; visits do, as extent / tile."""
    layer = Layer.gemm(64, 32, 48)
    value = lambda p: locality(layer, {"p": p, "k": 16.0}, "i").traffic["w"]
    with jax.enable_x64(True):
        moved, slope = jax.jit(jax.value_and_grad(value))(jnp.float64(8.0))
        assert float(slope) == pytest.approx(-float(moved) / 8, rel=1e-6)


def test_batched_is_looped():
    layer = LAYERS["strided"]
    rows = list(cases(layer, 6, seed=9))
    stack = lambda items: jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *items)
    tiles, ranks = stack([row[0] for row in rows]), stack([row[1] for row in rows])
    one = lambda tile, rank: locality(layer, tile, rank, block=4).data_movement
    alone = jax.jit(jax.value_and_grad(one))  # outside of the loop, or each row traces it anew
    batched = jax.jit(jax.vmap(jax.value_and_grad(one), in_axes=(0, 0)))(tiles, ranks)
    for i in range(6):
        pick = lambda tree, i=i: jax.tree.map(lambda leaf: leaf[i], tree)
        value, slope = alone(pick(tiles), pick(ranks))
        assert float(value) == float(batched[0][i])
        for d in TILE_LOOPS:
            assert float(slope[d]) == pytest.approx(float(batched[1][d][i]), rel=1e-4, abs=1e-3)
            assert np.isfinite(float(slope[d]))


def test_errors():
    layer = LAYERS["gemm"]
    with pytest.raises(ValueError, match=r"loops of a tile must be of g, n, k.*'y'"):
        locality(layer, {"y": 2.0})
    with pytest.raises(ValueError, match="order must be of w, i, o"):
        locality(layer, {}, "output")
    with pytest.raises(ValueError, match=r"one place for each of .* check r, s"):
        locality(layer, {}, {d: 0.0 for d in "gnkcpq"})
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        locality(layer, {}, jnp.ones(4))
    with pytest.raises(ValueError, match="layout of i must be an order of n g c h w, got 'nchw'"):
        locality(layer, {}, "o", {"i": "nchw"})
    with pytest.raises(ValueError, match=r"shape \(24,\)"):
        locality(layer, {}, "o", {"w": jnp.ones(5)})
    with pytest.raises(ValueError, match="tensors of a layout must be of w, i, o; got 'x'"):
        locality(layer, {}, "o", {"x": "gkcrs"})
    with pytest.raises(ValueError, match="tensors of a width must be of w, i, o, psum"):
        locality(layer, {}, width={"p": 2})
