"""Searches over mappings: what they count, what they find, beside the exact mapper."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import hardware, models, recipes
from diffhw.mappings import LOOPS
from diffhw.recipes._map_moves import Moves
from diffhw.recipes._map_space import MENU, Genomes, genome_cost
from diffhw.workloads import Layer

LAYERS = [
    Layer.gemm(8, 12, 16),
    Layer.create(k=6, c=4, p=4, q=4, r=3, s=3),
    Layer.create(g=8, p=6, q=6, r=2, s=2, stride_h=2, stride_w=2),
]
CHIP = hardware.hierarchy("gemmini")
cost_of = jax.jit(models.loopnest.layer)


@pytest.fixture(scope="module")
def space():
    return Genomes(LAYERS, CHIP)


@pytest.fixture(scope="module")
def optima():
    return np.array([recipes.best_mapping(layer, CHIP, "edp").score for layer in LAYERS])


def search(method):
    return recipes.search_mappings(LAYERS, CHIP, method=method, budget=20_000, gradient_cost=10.0)


@pytest.fixture(scope="module")
def by_gradient():
    return search("gradient")


@pytest.mark.parametrize("method", ["gradient", "local", "evolution", "random"])
def test_never_beats_the_proven_optimum_and_keeps_its_budget(method, optima, by_gradient):
    found = by_gradient if method == "gradient" else search(method)
    assert found.feasible.all() and (found.evaluations <= 20_000).all()
    assert (found.scores >= optima * (1 - 1e-9)).all()
    for nest, layer, energy, cycles in zip(found.nests, LAYERS, found.energy_pj, found.cycles, strict=True):
        nest.check(layer)
        with jax.enable_x64(True):
            cost = cost_of(layer, CHIP, nest)
        np.testing.assert_allclose([cost.energy_pj, cost.cycles], [energy, cycles], rtol=1e-6)
    for past in found.history:
        scores = [score for _, score in past]
        assert scores == sorted(scores, reverse=True)
    if method == "gradient":
        np.testing.assert_allclose(found.scores, optima, rtol=1e-6)


def test_the_same_seed_finds_the_same(by_gradient):
    again = search("gradient")
    np.testing.assert_array_equal(again.scores, by_gradient.scores)
    np.testing.assert_array_equal(again.evaluations, by_gradient.evaluations)


@pytest.mark.parametrize("i", range(len(LAYERS)))
def test_moves_stay_mappings_of_the_layer(space, i):
    moves, rng = Moves(space, i), np.random.default_rng(0)
    start = moves.random(rng, 50)
    extents = [round(float(getattr(LAYERS[i], d))) for d in LOOPS]
    around = [moves.steps, moves.ordered_steps, moves.exchanges, moves.respread, moves.pairs]
    sets = [start, moves.children(rng, start, 200), *(move(start) for move in around)]
    assert len(sets[0]) == 50 and len(sets[1]) and len(sets[2]) and len(sets[3])
    for genomes in sets:
        assert (genomes[:, : space.layout.factors] <= space.limits[i]).all()
        for d, extent in zip(LOOPS, extents, strict=True):
            assert (genomes[:, space.layout.columns(d)].prod(axis=1) == extent).all()


def test_orders_called_equal_cost_the_same(space):
    """The saving in evaluations: an order is replaced by the first of the menu with the same cost."""
    rng = np.random.default_rng(1)
    price = jax.jit(jax.vmap(lambda t, g: genome_cost(space.layout, CHIP, t, g), in_axes=(None, 0)))
    for i in range(len(LAYERS)):
        genomes = Moves(space, i).random(rng, 300)
        canonical = space.canonical(i, genomes.copy())
        assert (canonical != genomes).any()
        table = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i], float), space.table)
        for one, other in zip(price(table, genomes), price(table, canonical), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_space_says_the_same_as_a_nest():
    space = recipes.mapping_space(LAYERS[0], CHIP)
    index = np.array([size // 2 for size in space.sizes])
    design = space.at(index)
    nest = design.nest()
    nest.check(LAYERS[0])
    assert space.index_of(design).tolist() == index.tolist()
    cost = cost_of(LAYERS[0], CHIP, nest)
    assert float(cost.macs) == 8 * 12 * 16
    params = space.init(jax.random.key(0))
    energy = lambda p: jnp.log(models.loopnest.layer(LAYERS[0], CHIP, space.decode(p).nest()).energy_pj)
    slope = jax.jit(jax.grad(energy))(params)
    moved = [name for name, leaf in slope.items() if np.any(np.asarray(leaf) != 0)]
    assert any("tiles" in name for name in moved) and any("orders" in name for name in moved)
    assert all(np.isfinite(leaf).all() for leaf in slope.values())


def test_menu_holds_every_class_of_orders_on_a_convolution():
    """Any order of k c p q r s at the outermost level costs what one of the menu costs, or more."""
    layer = Layer.create(k=4, c=2, p=3, q=2, r=2, s=3)
    space = Genomes([layer], CHIP)
    genomes = Moves(space, 0).random(np.random.default_rng(4), 12)
    places = np.array([[order.index(d) for d in LOOPS] for order in MENU.values()])
    every = np.array(
        [[(*order, "g", "n").index(d) for d in LOOPS] for order in itertools.permutations("kcpqrs")]
    )
    price = jax.jit(jax.vmap(lambda nest, rows: price_with(layer, nest, rows), in_axes=(None, 0)))
    for genome in genomes:
        nest = space.to_nest(0, genome)
        costs = np.asarray(price(nest, np.concatenate([places, every]) * 1.0))  # one program for both
        assert np.min(costs[len(places) :]) >= np.min(costs[: len(places)]) * (1 - 1e-6)


def price_with(layer, nest, places):
    """Energy with the outermost level in another order."""
    order = {d: places[i] for i, d in enumerate(LOOPS)}
    levels = (*nest.levels[:-1], nest.levels[-1].replace(order=order))
    return models.loopnest.layer(layer, CHIP, nest.replace(levels=levels)).energy_pj


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(objective="speed"), "objective must be one of edp, energy, latency, got 'speed'"),
        (dict(method="luck"), "method must be one of gradient, local, evolution, random, got 'luck'"),
        (dict(budget=3), "budget must be more than 16 evaluations, got 3"),
        (dict(budget=100, gradient_cost=10.0), "raise it to 1008 or lower steps"),
    ],
)
def test_mistakes(change, words):
    with pytest.raises(ValueError, match=words):
        recipes.search_mappings(LAYERS, CHIP, **change)
    with pytest.raises(ValueError, match="at least one layer"):
        recipes.search_mappings([], CHIP)
