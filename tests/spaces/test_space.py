"""Spaces: legal values, ties, choices, index vectors, gradients at the bounds."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffhw.hardware import Dram
from diffhw.spaces import Bits, Choice, Integer, Real, Space


@struct.dataclass(kw_only=True)
class Array2D:
    rows: jax.Array
    cols: jax.Array
    freq_hz: jax.Array = dataclasses.field(default_factory=lambda: jnp.float32(1e9))


def drams():
    return {
        "lpddr4": Dram.create(gb_per_s=25.6, pj_per_bit=4.0, phy_area_mm2=1.0, kind=0),
        "hbm2": Dram.create(gb_per_s=256.0, pj_per_bit=3.9, phy_area_mm2=10.0, kind=1),
        "ideal": Dram.create(gb_per_s=jnp.inf, pj_per_bit=3.9, phy_area_mm2=10.0, kind=2),
    }


def full_space():
    hw = Array2D(rows=Integer(4, 256, per_octave=4), cols=Integer(4, 64, per_octave=1))
    return Space(
        {
            "bits": Bits(2, 8),
            "dram": Choice(drams()),
            "flow": Choice(("os", "ws", "is")),
            "hw": hw,
            "name": "fixed text",
            "volt": Real(0.5, 1.0, step=0.25),
        }
    )


def test_grids_are_the_ones_asked_for():
    assert Integer(4, 256, per_octave=4).values.tolist() == [round(4 * 2 ** (i / 4)) for i in range(25)]
    buffers = Integer(8192, 4194304, per_octave=1)
    assert buffers.values.tolist() == [8192 * 2**i for i in range(10)]
    assert Integer(1, 10, step=3).values.tolist() == [1, 4, 7, 10]
    assert Integer(values=(16, 4, 4)).values.tolist() == [4, 16]
    assert Bits(2, 8).values.tolist() == [2, 3, 4, 5, 6, 7, 8] and Bits(2, 8).scale == "linear"
    assert Real(0.0, 1.0, step=0.1).size == 11
    assert Integer(1, 8, per_octave=4).size == len({round(2 ** (i / 4)) for i in range(13)})
    assert Integer(7, 7).size == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Integer(8, 4), "low <= high"),
        (lambda: Integer(0, 4, "log"), "low > 0"),
        (lambda: Integer(1, 4, step=1, per_octave=2), "one of step"),
        (lambda: Integer(1.5, 4), "whole number"),
        (lambda: Integer(4, 8, "cubic"), "'linear' or 'log'"),
        (lambda: Integer(4, 8, step=0), "step must be > 0"),
        (lambda: Integer(1, 2**30), "too many"),
        (lambda: Real(values=[]), "non-empty"),
        (lambda: Real(1.0), "low and high"),
        (lambda: Choice([]), "non-empty"),
        (lambda: Choice(["a", "a"]), "must differ"),
        (lambda: Choice(["a", "b"], relax="hard"), "relax must be one of"),
        (lambda: Choice([{"a": 1.0}, {"b": 1.0}]), "structure"),
        (lambda: Choice([{"a": 1.0}, {"a": Real(0, 1)}]), "holds a variable"),
        (lambda: Choice(["a", 1.0]), "structure|numbers"),
        (lambda: Space({"a": 1.0}), "at least one variable"),
        (lambda: Space((Integer(1, 2), dataclasses.make_dataclass("Plain", ["x"])(Integer(1, 2)))), "pytree"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_variables_pass_through_transformations():
    template = Array2D(rows=Integer(1, 4), cols=Integer(1, 4))
    assert jax.tree.leaves(template) == [template.freq_hz]
    assert jax.jit(lambda hw: hw.freq_hz * 2)(template) == 2e9
    assert jax.tree.map(lambda x: x, template).rows is template.rows


def test_names_size_and_description():
    space = full_space()
    assert space.names == ("bits", "dram", "flow", "hw.rows", "hw.cols", "volt")
    assert space.size == 7 * 3 * 3 * 25 * 5 * 3
    assert space.position("hw.cols") == 4
    with pytest.raises(ValueError, match=r"did you mean 'hw.rows'"):
        space.position("hw.row")
    text = space.describe()
    assert "lpddr4, hbm2, ideal" in text and "23,625 designs" in text and "0.5, 0.75, 1" in text
    assert space.labels([0, 1, 2, 0, 4, 1]) == {
        "bits": 2,
        "dram": "hbm2",
        "flow": "is",
        "hw.rows": 4,
        "hw.cols": 64,
        "volt": 0.75,
    }


def test_fixed_fields_pass_through():
    design = full_space().at([0, 0, 0, 0, 0, 0])
    assert design["name"] == "fixed text" and design["hw"].freq_hz == 1e9
    assert isinstance(design["hw"], Array2D)


def test_one_object_twice_is_a_tie():
    side = Integer(4, 16, per_octave=1)
    space = Space(Array2D(rows=side, cols=side))
    assert space.size == 3 and space.variables[0].paths == ("rows", "cols")
    design = space.at([2])
    assert design.rows == design.cols == 16
    assert "tied: cols" in space.describe()
    slope = jax.grad(lambda p: space.decode(p).rows * space.decode(p).cols)(space.init(jax.random.key(0)))
    assert slope["rows"] > 0
    assert space.index_of(design).tolist() == [2]
    with pytest.raises(ValueError, match="cols: tied to rows"):
        space.index_of(dataclasses.replace(design, cols=jnp.float32(8)))
    two = Space(Array2D(rows=Integer(4, 16, per_octave=1), cols=Integer(4, 16, per_octave=1)))
    assert two.size == 9


def test_choice_of_parts_is_exact_even_with_infinite_leaves():
    space, options = full_space(), list(drams().values())
    for i, option in enumerate(options):
        index = jnp.array([0, i, 0, 0, 0, 0], jnp.int32)
        chex.assert_trees_all_equal(space.at(np.asarray(index))["dram"], option)
        chex.assert_trees_all_equal(jax.jit(lambda n: space.at(n)["dram"])(index), option)
    params = space.init(jax.random.key(1)) | {"dram": jnp.array([0.0, 1.0, 0.0])}
    decode = lambda p: space.decode(p, 0.5)["dram"]
    chex.assert_trees_all_equal(decode(params), options[1])
    slope = jax.grad(lambda p: decode(p).phy_area_mm2)(params)["dram"]
    assert np.all(np.isfinite(slope)) and slope[0] < 0 < slope[1]
    # An infinite option counts as the largest finite one in the slope, so nothing turns into NaN.
    assert np.all(np.isfinite(jax.grad(lambda p: decode(p).gb_per_s)(params)["dram"]))


def test_choice_of_names_is_one_hot_with_a_straight_through_slope():
    space = Space({"flow": Choice(("os", "ws", "is"))})
    price = jnp.array([3.0, 1.0, 2.0])
    params = {"flow": jnp.array([0.3, 0.0, 0.1])}
    assert space.decode(params)["flow"].tolist() == [1, 0, 0]
    slope = jax.grad(lambda p: jnp.sum(space.decode(p)["flow"] * price))(params)["flow"]
    soft = jax.nn.softmax(params["flow"])
    chex.assert_trees_all_close(slope, soft * (price - jnp.sum(soft * price)), rtol=1e-5)


def test_soft_and_noisy_choices():
    soft = Space([Choice((8.0, 16.0), relax="softmax")])
    assert soft.decode({"0": jnp.zeros(2)})[0] == 12.0
    unbounded = Space([Choice((8.0, math.inf), relax="softmax")])
    assert unbounded.decode({"0": jnp.zeros(2)})[0] == math.inf
    assert soft.harden({"0": jnp.array([0.0, 1.0])})[0] == 16.0
    noisy = Space([Choice((8.0, 16.0), relax="gumbel")])
    drawn = {float(noisy.decode({"0": jnp.zeros(2)}, 1.0, jax.random.key(s))[0]) for s in range(20)}
    assert drawn == {8.0, 16.0}
    assert noisy.decode({"0": jnp.zeros(2)})[0] == 8.0


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_decode_snaps_to_the_nearest_in_the_scaled_coordinate(scale):
    space = Space([Integer(1, 100, scale)])
    coordinate = np.log if scale == "log" else np.asarray
    values = np.arange(1, 101.0)
    for u in np.linspace(-2.97, 2.96, 23):
        share = u / 6 + 0.5
        wanted = coordinate(1.0) + share * (coordinate(100.0) - coordinate(1.0))
        nearest = values[np.abs(coordinate(values) - wanted).argmin()]
        assert space.decode({"0": jnp.float32(u)})[0] == nearest


def test_decoded_values_are_legal_to_the_last_bit():
    space = full_space()
    params = space.place(1.5 * np.random.default_rng(0).random((64, space.width), np.float32) - 0.25)
    rows = jax.jit(jax.vmap(lambda p: space.decode(p)["hw"].rows))(params)
    assert set(np.asarray(rows).tolist()) <= set(space.variables[3].variable.values.tolist())
    again = jax.jit(jax.vmap(lambda p: space.harden(p)["hw"].rows))(params)
    chex.assert_trees_all_equal(again, rows)


def test_slope_is_that_of_the_scaled_coordinate_and_lives_at_the_bounds():
    space = Space([Integer(4, 256, per_octave=4)])
    slope = jax.grad(lambda p: jnp.log(space.decode(p)[0]))
    for u in (-9.0, -3.0, 0.1, 3.0, 9.0):
        assert slope({"0": jnp.float32(u)})["0"] == pytest.approx(math.log(64) / 6, rel=1e-5)
    projected = space.project({"0": jnp.float32(9.0)})
    assert projected["0"] == 3.0 and space.harden(projected)[0] == 256
    # Descending from the bound leaves it.
    params = projected
    for _ in range(20):
        step = jax.grad(lambda p: (jnp.log(space.decode(p)[0]) - jnp.log(32.0)) ** 2)(params)
        params = space.project({"0": params["0"] - 0.5 * step["0"]})
    assert space.harden(params)[0] == 32


def test_init_is_in_the_middle_and_reaches_most_of_the_range():
    space = full_space()
    draw = jax.jit(jax.vmap(lambda key: space.index(space.init(key))))
    index = np.asarray(draw(jax.random.split(jax.random.key(0), 500)))
    assert index[:, 3].min() in range(1, 5) and index[:, 3].max() in range(20, 24)
    assert set(index[:, 1]) == {0, 1, 2}
    assert np.array_equal(index, draw(jax.random.split(jax.random.key(0), 500)))
    placed = space.place(np.full((3, space.width), 0.5, np.float32))
    assert placed["hw.rows"].shape == (3,) and placed["dram"].shape == (3, 3)


def test_index_round_trips():
    space = full_space()
    for row in np.asarray(space.sample(jax.random.key(3), 20)):
        design = space.at(row)
        assert space.index_of(design).tolist() == row.tolist()
        assert space.from_flat(space.to_flat(row)).tolist() == row.tolist()


def test_index_of_names_the_place():
    space = full_space()
    design = space.at([0, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"hw.rows: 33 is not a legal value; the nearest is 32"):
        space.index_of(design | {"hw": dataclasses.replace(design["hw"], rows=33.0)})
    with pytest.raises(ValueError, match="bits: 9 is outside 2 to 8"):
        space.index_of(design | {"bits": 9.0})
    with pytest.raises(ValueError, match="flow: needs one-hot"):
        space.index_of(design | {"flow": jnp.array([0.5, 0.5, 0.0])})
    with pytest.raises(ValueError, match="dram: is none of"):
        space.index_of(design | {"dram": dataclasses.replace(design["dram"], kind=jnp.float32(7))})
    with pytest.raises(ValueError, match="structure"):
        space.index_of({"bits": 2})


def test_sample_is_uniform_and_reproducible():
    space = full_space()
    rows = np.asarray(space.sample(jax.random.key(0), 6000))
    assert rows.dtype == np.int32 and (rows >= 0).all() and (rows < np.array(space.sizes)).all()
    counts = np.bincount(rows[:, 1], minlength=3)
    assert (abs(counts - 2000) < 200).all()
    assert np.array_equal(rows, space.sample(jax.random.key(0), 6000))
    assert not np.array_equal(rows, space.sample(jax.random.key(1), 6000))


def test_neighbours():
    space = full_space()
    rows = space.neighbours([0, 1, 2, 24, 2, 1])
    # one step in bits and rows (at a bound), two in cols and volt, two other options for each choice
    assert len(rows) == 1 + 2 + 2 + 1 + 2 + 2
    assert all((row != [0, 1, 2, 24, 2, 1]).sum() == 1 for row in rows)


def test_spaces_beyond_int32_and_int64():
    space = Space([Integer(1, 1000000) for _ in range(12)])
    assert space.size == 10**72
    row = np.arange(12) * 310007 % 10**6
    flat = space.to_flat(row)
    assert flat > 2**63 and space.from_flat(flat).tolist() == row.tolist()
    assert space.from_flat(space.size - 1).tolist() == [999999] * 12
    with pytest.raises(ValueError, match="outside this space"):
        space.from_flat(space.size)
    _, (rows, count) = next(space.enumerate(4)), next(space.enumerate(4, start=space.size - 3))
    assert (
        count == 3 and rows[:3, -1].tolist() == [999997, 999998, 999999] and (rows[:3, :-1] == 999999).all()
    )
    on_device = jax.jit(space.advance)(jnp.asarray(space.from_flat(flat)), jnp.arange(5000))
    assert np.array_equal(on_device, space.advance(space.from_flat(flat), np.arange(5000)))
    assert space.to_flat(np.asarray(on_device[4321])) == flat + 4321


def test_enumerate_is_ordered_complete_and_padded():
    space = Space((Integer(1, 3), Choice(("abcd", "e")), Integer(1, 5)))
    chunks = list(space.enumerate(7))
    assert all(rows.shape == (7, 3) and rows.dtype == np.int32 for rows, _ in chunks)
    assert [count for _, count in chunks] == [7, 7, 7, 7, 2]
    rows = np.concatenate([rows[:count] for rows, count in chunks])
    assert [space.to_flat(row) for row in rows] == list(range(30))
    assert (chunks[-1][0] < np.array(space.sizes)).all()


def test_continuous_variables():
    space = Space({"a": Real(1.0, 10.0), "b": Integer(1, 4)})
    assert (
        space.size == math.inf and "continuous" in space.describe() and "infinitely many" in space.describe()
    )
    with pytest.raises(ValueError, match="a cannot be enumerated"):
        next(space.enumerate(4))
    row = space.index_of({"a": 3.3, "b": 2.0})
    assert float(space.at(row)["a"]) == pytest.approx(3.3, rel=3e-6)
    traced = jax.jit(lambda i: space.at(i)["a"])(jnp.asarray(row))
    assert float(traced) == pytest.approx(float(space.at(row)["a"]), rel=1e-6)
    assert float(space.decode({"a": jnp.float32(0), "b": jnp.float32(0)})["a"]) == pytest.approx(
        10**0.5, rel=1e-5
    )
    assert len(space.neighbours(row)) == 6


@pytest.mark.parametrize("transform", ["jit", "vmap", "grad of vmap"])
def test_transforms(transform):
    space = full_space()
    rows = space.sample(jax.random.key(0), 8)
    area = lambda design: design["hw"].rows * design["hw"].cols + design["dram"].phy_area_mm2
    plain = np.array([float(area(space.at(np.asarray(row)))) for row in rows])
    if transform == "jit":
        each = jax.jit(lambda row: area(space.at(row)))
        got = np.array([float(each(row)) for row in rows])
    elif transform == "vmap":
        got = np.asarray(jax.jit(jax.vmap(lambda row: area(space.at(row))))(rows))
    else:
        params = space.place(np.random.default_rng(0).random((8, space.width), np.float32))
        total = lambda p: jnp.sum(jax.vmap(lambda q: area(space.decode(q)))(p))
        slopes = jax.jit(jax.grad(total))(params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
        assert (slopes["hw.rows"] > 0).all() and (slopes["hw.cols"] > 0).all()
        return
    np.testing.assert_array_equal(got, plain)


def test_float64_runs_see_float64_values():
    space = Space({"x": Real(0.1, 0.7, step=0.1), "fixed": jnp.float32(2.0)})
    with jax.enable_x64(True):
        design = jax.jit(space.at)(jnp.array([2], jnp.int32))
        assert design["x"].dtype == design["fixed"].dtype == jnp.float64
        assert float(design["x"]) == pytest.approx(0.3, rel=1e-15)
