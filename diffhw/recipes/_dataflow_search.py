"""Search for a dataflow of one layer: which dimensions go over clusters and PEs, tiles, loop orders.

An evolution over integer genes with any score that costs a batch of `Dataflow` at once (the successor
of GAMMA, Kao and Krishna, ICCAD 2020: same choices, thousands of candidates per call instead of one
process per candidate). Genes, of seven dimensions each: what a PE holds, how many such tiles a
unit of the outer level walks through in time, and the order of the loops of both levels; besides, the
dimension dealt over clusters, the one dealt inside a cluster, and the cluster's size.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhw.hardware import Accelerator
from diffhw.mappings import DIMS, ClusterLevel, Dataflow, Precision, Program, to_program
from diffhw.models import dataflow
from diffhw.numerics import log
from diffhw.workloads import Layer, Network

__all__ = ["DataflowSearch", "evolve_dataflow", "layer_extents", "map_layer", "map_network"]

_NONE = len(DIMS)  # gene value: no dimension is dealt out at this level


@dataclass(frozen=True)
class DataflowSearch:
    """Best dataflows found, best first.

    dataflows:   `Dataflow`, leaves (top,), numpy.  scores: (top,).
    evaluations: candidates costed.  seconds: wall time without compiling.
    history:     best score after each generation.
    """

    dataflows: Dataflow
    scores: np.ndarray
    evaluations: int
    seconds: float
    history: list[float]


def layer_extents(layer: Layer) -> np.ndarray:
    """Extents in the order of `mappings.DIMS`; channels of a depthwise layer are its groups."""
    sizes = {d: float(getattr(layer, d)) for d in DIMS}
    if sizes["c"] == 1 and float(layer.g) > 1:
        sizes["c"] = float(layer.g)
    return np.array([sizes[d] for d in DIMS])


def _leaf(values) -> Any:
    """float32 on the host: candidates are made and read there, and cross to the device in one call."""
    return np.asarray(values, np.float32)


@dataclass
class _Genes:
    """Leading axis: candidates."""

    outer: np.ndarray  # dimension dealt over clusters, or _NONE
    inner: np.ndarray  # dimension dealt inside a cluster, or _NONE
    cluster: np.ndarray  # units of a cluster
    held: np.ndarray  # (n, 7) what a PE holds
    times: np.ndarray  # (n, 7) tiles of a PE that a unit walks through in time, inside
    order: np.ndarray  # (n, 2, 7) sort keys of the loops

    def take(self, index) -> "_Genes":
        return _Genes(**{name: value[index] for name, value in vars(self).items()})

    def join(self, other: "_Genes") -> "_Genes":
        return _Genes(
            **{name: np.concatenate([value, vars(other)[name]]) for name, value in vars(self).items()}
        )


class _Space:
    """Legal gene values of a layer on so many PEs."""

    def __init__(self, extents: np.ndarray, pes: int):
        self.extents, self.pes = extents, pes
        self.tiles = [self._sizes(extent) for extent in extents]
        self.dealt = [i for i in range(len(DIMS)) if extents[i] > 1]
        sizes = {1, pes}
        for extent in extents:
            sizes |= {int(np.ceil(extent / j)) for j in range(1, 9)}
        sizes |= {n for n in range(1, pes + 1) if pes % n == 0}
        self.clusters = np.array(sorted(n for n in sizes if n <= pes), float)

    @staticmethod
    def _sizes(extent) -> np.ndarray:
        """Tile sizes worth trying: those that split evenly or nearly so, and powers of two."""
        even = {int(np.ceil(extent / j)) for j in range(1, min(int(extent), 64) + 1)}
        return np.array(sorted(even | {2**i for i in range(12) if 2**i <= extent} | {1}), float)

    def tile(self, rng, dim: int, n: int) -> np.ndarray:
        return rng.choice(self.tiles[dim], n)

    def random(self, rng, n: int) -> _Genes:
        held = np.ones((n, len(DIMS)))
        times = np.ones((n, len(DIMS)))
        for i in range(len(DIMS)):
            held[:, i] = np.where(rng.random(n) < 0.6, 1, self.tile(rng, i, n))
            times[:, i] = np.where(rng.random(n) < 0.8, 1, self.tile(rng, i, n))
        genes = _Genes(
            outer=rng.choice(self.dealt or [_NONE], n),
            inner=rng.choice([*self.dealt, _NONE], n),
            cluster=rng.choice(self.clusters, n),
            held=held,
            times=times,
            order=rng.random((n, 2, len(DIMS))),
        )
        return self.legal(genes)

    def legal(self, genes: _Genes) -> _Genes:
        """Filters stay whole in a PE unless they are dealt out; one dimension is dealt once."""
        genes.inner = np.where(genes.inner == genes.outer, _NONE, genes.inner)
        genes.cluster = np.where(genes.inner == _NONE, 1, genes.cluster)
        for i in (DIMS.index("r"), DIMS.index("s")):
            dealt = (genes.outer == i) | (genes.inner == i)
            genes.held[:, i] = np.where(dealt, 1, self.extents[i])
            genes.times[:, i] = 1
        return genes

    def mutate(self, rng, parents: _Genes) -> _Genes:
        """One to three genes of each parent drawn anew or nudged."""
        genes = _Genes(**{name: value.copy() for name, value in vars(parents).items()})
        n = len(genes.outer)
        rows = np.arange(n)
        for rounds in range(3):
            act = rng.random(n) < (1.0, 0.5, 0.25)[rounds]
            what = rng.integers(0, 8, n)
            dim = rng.integers(0, len(DIMS), n)
            fresh = np.stack([self.tile(rng, i, n) for i in range(len(DIMS))], 1)[rows, dim]
            near = np.clip(genes.held[rows, dim] + rng.choice([-1, 1], n), 1, self.extents[dim])
            genes.held[rows, dim] = np.where(
                act & (what == 0), fresh, np.where(act & (what == 1), near, genes.held[rows, dim])
            )
            genes.times[rows, dim] = np.where(act & (what == 2), fresh, genes.times[rows, dim])
            genes.times[rows, dim] = np.where(act & (what == 3), 1, genes.times[rows, dim])
            new = rng.choice(self.clusters, n)
            genes.cluster = np.where(act & (what == 4), new, genes.cluster)
            genes.outer = np.where(act & (what == 5), rng.choice(self.dealt or [_NONE], n), genes.outer)
            genes.inner = np.where(act & (what == 6), rng.choice([*self.dealt, _NONE], n), genes.inner)
            genes.cluster = np.where(act & (what == 6), new, genes.cluster)
            swap = act & (what == 7)
            genes.order[swap] = np.where(
                rng.random((n, 2, 1)) < 0.5, genes.order, rng.random((n, 2, len(DIMS)))
            )[swap]
        return self.legal(genes)

    def dataflow(self, genes: _Genes) -> Dataflow:
        """Genes as a batch of dataflows: two levels, the third one idle."""
        n = len(genes.outer)
        one_hot = lambda gene: (gene[:, None] == np.arange(len(DIMS))).astype(float)
        inner, outer = one_hot(genes.inner), one_hot(genes.outer)
        held = np.minimum(genes.held, self.extents)
        walked = held * genes.times * np.where(inner > 0, genes.cluster[:, None], 1)
        rank = np.argsort(np.argsort(genes.order, -1), -1).astype(float)
        split = lambda values: {d: _leaf(values[:, i]) for i, d in enumerate(DIMS)}
        whole = np.full((n, len(DIMS)), 1e9)
        level = lambda tile, spatial, order, units: ClusterLevel(
            tile=split(tile),
            offset=split(tile),
            rank=split(order),
            spatial=split(spatial),
            units=_leaf(units),
        )
        return Dataflow(
            levels=(
                level(walked, outer, rank[:, 0], np.zeros(n)),
                level(held, inner, rank[:, 1], genes.cluster),
                level(whole, np.zeros_like(whole), np.tile(np.arange(7.0), (n, 1)), np.ones(n)),
            )
        )


def evolve_dataflow(
    score: Callable[[Dataflow], jax.Array],
    layer: Layer,
    pes: int,
    seed: int = 0,
    *,
    population: int = 4096,
    elite: int = 256,
    generations: int = 30,
    top: int = 64,
) -> DataflowSearch:
    """Evolve dataflows of one layer towards the lowest score.

    score: a compiled function from a batch of `Dataflow`, leaves (population,), to (population,) scores;
    infeasible candidates should score worse than any feasible one. layer: concrete. pes: PEs.
    population: candidates per call.  elite: survivors per generation.  top: how many to return.
    """
    rng = np.random.default_rng(seed)
    space = _Space(layer_extents(layer), int(pes))

    def cost(genes):
        return np.asarray(score(jax.tree.map(jnp.asarray, space.dataflow(genes))), np.float64)

    start = time.perf_counter()
    pool = space.random(rng, population)
    scores = cost(pool)
    history, evaluations = [], population
    for _ in range(generations):
        best = np.argsort(scores, kind="stable")[:elite]
        pool, scores = pool.take(best), scores[best]
        history.append(float(scores[0]))
        # Better parents have more children; a tenth of each generation is new blood.
        fresh = population // 10
        parents = np.minimum(rng.exponential(elite / 4, population - fresh).astype(int), elite - 1)
        children = space.mutate(rng, pool.take(parents)).join(space.random(rng, fresh))
        pool, scores = pool.join(children), np.concatenate([scores, cost(children)])
        evaluations += population
    _, distinct = np.unique(scores, return_index=True)
    order = distinct[np.argsort(scores[distinct])]
    rest = np.setdiff1d(np.argsort(scores, kind="stable")[: 4 * top], order, assume_unique=True)
    best = np.concatenate([order, rest])[:top]
    history.append(float(scores[best[0]]))
    return DataflowSearch(
        space.dataflow(pool.take(best)), scores[best], evaluations, time.perf_counter() - start, history
    )


@functools.partial(jax.jit, static_argnames="objective")
def _scores(layer, hw, precision, candidates, objective):
    def one(candidate):
        cost = dataflow.layer(layer, hw, candidate, precision)
        value = {
            "edp": lambda: log(cost.cycles) + log(cost.energy_pj),
            "latency": lambda: log(cost.cycles),
            "energy": lambda: log(cost.energy_pj),
        }[objective]()
        # A misfit is worse than any legal candidate, and a large one worse than a small one.
        return value + jnp.where(cost.violation > 0, 100 + jnp.log1p(cost.violation), 0.0)

    return jax.vmap(one)(candidates)


def map_layer(
    layer: Layer,
    hw: Accelerator,
    objective: str = "edp",
    precision: Precision | None = None,
    *,
    seed: int = 0,
    generations: int = 30,
    top: int = 16,
) -> DataflowSearch:
    """The best dataflows found for one layer on one accelerator, under the physical rules.

    objective: "edp", "latency" or "energy"; scores are its natural logarithm (pJ, cycles), plus 100 or
    more for a candidate that does not fit. layer, hw: concrete, leaves (). About 120,000 candidates;
    print a result with `mappings.to_program`. Raises ValueError for another objective.
    """
    if objective not in ("edp", "latency", "energy"):
        raise ValueError(f"objective must be edp, latency or energy, got {objective!r}")
    bits = Precision.of(hw) if precision is None else precision
    score = lambda candidates: _scores(layer, hw, bits, candidates, objective)
    return evolve_dataflow(score, layer, int(hw.pes), seed, generations=generations, top=top)


def map_network(
    network: Network,
    hw: Accelerator,
    objective: str = "edp",
    precision: Precision | None = None,
    *,
    seed: int = 0,
    generations: int = 30,
    progress: Callable[[int, int], None] | None = None,
) -> list[Program]:
    """`map_layer` for every layer row: the best program of each, named after its layer.

    Layers are searched one by one, so the product of the network's sums is not itself minimised.
    progress: called with (rows done, rows). Raises ValueError naming a layer for which no candidate can
    be written as directives.
    """
    programs = []
    for i, (name, row) in enumerate(zip(network.names, network.rows(), strict=True)):
        found = map_layer(row, hw, objective, precision, seed=seed, generations=generations)
        for place in range(len(found.scores)):
            one = jax.tree.map(lambda leaf, place=place: leaf[place], found.dataflows)
            try:
                programs.append(to_program(one, row, name))
                break
            except ValueError:  # a level that deals nothing out and cuts every loop has no text
                continue
        else:
            raise ValueError(f"layer {name}: none of the dataflows found can be written as directives")
        if progress is not None:
            progress(i + 1, network.size)
    return programs
