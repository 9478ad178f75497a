"""The best mapping of a layer on a hierarchy, with a certificate.

Levels are decided from the outermost inwards. What is decided is priced exactly (`_map_price`); what is not
is bounded from below (`_map_bounds`). Whatever cannot beat the best
mapping in hand is dropped, so what remains at the end is proven. Perfect factors.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from diffhw.mappings import LOOPS
from diffhw.recipes._map_bounds import (
    AXES,
    Tables,
    _input_terms,
    bound_tables,
    slide_axes,
)
from diffhw.recipes._map_labels import INDEXED, RUN_ORDERS, Labels, concatenate, run_through
from diffhw.recipes._map_lattice import AT, Chip, Lattice, Problem
from diffhw.recipes._map_price import Pricer

__all__ = ["OBJECTIVES", "Found", "Searcher"]

OBJECTIVES = ("energy", "latency", "edp")


@dataclass(frozen=True)
class Found:
    """A complete mapping: score, energy (pJ) and cycles, and its temporal levels for `LoopNest.create`."""

    score: float
    energy_pj: float
    cycles: float
    levels: list


class Searcher(Pricer):
    """The search on one lattice. Tables are made when first needed and serve every objective."""

    def __init__(self, lattice: Lattice, chip: Chip, ports: list[tuple[int, int]]):
        super().__init__(lattice, chip, ports)
        self.strides = np.cumprod((1, *lattice.shape[::-1]))[::-1][1:].astype(np.int64)
        self.tables: list[tuple[Tables, int]] = []
        self._inputs: dict[int, list] = {}
        self._flat_tables: dict = {}

    @cached_property
    def fits(self) -> list[np.ndarray]:
        """Per level, which tiles fit it."""
        return [self.lattice.fits(self.chip, k) for k in range(self.chip.depth)]

    @cached_property
    def axes(self) -> list[str | None]:
        """Axes along which inputs slide."""
        return slide_axes(self.lattice)

    def prepare(self, functionals: int) -> None:
        """Tables of the first so many functionals: energy, then every port that could bind."""
        missing = self.prices[len(self.tables) : functionals]
        if missing:
            made = bound_tables(self.lattice, self.chip, missing, self.fits)
            self.tables += [(made, j) for j in range(len(missing))]

    def stages(self, objective) -> int:
        """How many times `floor` can be sharpened."""
        return 1 if self.needed(objective) == 1 else 2

    def quick_floor(self, objective) -> float:
        """A bound without tables: every tile comes in once."""
        once = [c + coef[:, [0, 2]].sum() for c, coef in zip(self.constants, self.coef, strict=True)]
        return float(self.score(objective, np.array([once[: self.needed(objective)]]))[0])

    def floor(self, objective, stage: int) -> float:
        """A lower bound on everything in this lattice: stage 0 from energy alone, 1 from every functional."""
        self.prepare(1 if stage == 0 else self.needed(objective))
        tables = self.tables[: 1 if stage == 0 else self.needed(objective)]
        costs = np.array([[t.constant[j] + t.rest[-1][j].reshape(-1)[-1] for t, j in tables]])
        return float(self.score(objective, costs)[0])

    # Bounds of children ----------------------------------------------------------------------

    def table(self, j: int, kind: str, length: int, level: int) -> np.ndarray:
        """A bound table, flat."""
        key = (j, kind, length, level)
        if key not in self._flat_tables:
            tables, place = self.tables[j]
            found = tables.rest[level] if kind == "rest" else tables.chain[kind][length][level]
            self._flat_tables[key] = found[place].reshape(-1)
        return self._flat_tables[key]

    def inside(self, j: int, level: int, flat: np.ndarray, rho: np.ndarray) -> np.ndarray:
        """Least cost of everything inside tiles held at ``level``."""
        best = self.table(j, "rest", 0, level)[flat]
        for i, t in enumerate("wo"):
            column = 0 if t == "w" else 2
            for length in range(1, level + 1):
                own = self.coef[j][level - length : level, column].sum()
                best = np.minimum(best, rho[:, i] * own + self.table(j, t, length, level)[flat])
        return best

    def inputs(self, level: int) -> list:
        """Flat input terms per axis: (run loops, sliding, slid)."""
        if level not in self._inputs:
            flat = lambda a: np.broadcast_to(a, self.lattice.shape).reshape(-1)
            self._inputs[level] = [
                (AXES[axis] if axis else "", *map(flat, _input_terms(self.lattice, level, axis)))
                for axis in self.axes
            ]
        return self._inputs[level]

    def children_bounds(self, labels: Labels, owner, flat, m: int):
        """Per kept tensor: lower bounds of the functionals of (label, tile of level m - 1) pairs."""
        lattice, c = self.lattice, m - 1
        before = np.array(np.unravel_index(labels.flat, lattice.shape)).T[owner]
        after = np.array(np.unravel_index(flat, lattice.shape)).T
        changed = before != after
        rho = labels.rho[owner]
        at_t = {t: self.base[t][labels.flat[owner]] for t in "wo"}
        at_y = {t: self.base[t][flat] for t in "wo"}
        passes = {t: ~(changed[:, INDEXED[t]].any(axis=1)) for t in "wo"}
        fresh = {t: np.where(passes[t], rho[:, i], at_y[t]) for i, t in enumerate("wo")}
        kept_visits = {t: np.where(passes[t], rho[:, i], at_t[t]) for i, t in enumerate("wo")}
        needs_inputs = any(coef[c, 1] for coef in self.coef[: labels.paid.shape[1]])
        words = {}
        if needs_inputs:
            for kept in "woi":
                best = np.full(len(flat), np.inf)
                for run, sliding, slid in self.inputs(c):
                    replaced = run + ("k" if kept == "i" else "")
                    shift = sum(
                        ((before[:, AT[d]] - after[:, AT[d]]) * self.strides[AT[d]] for d in replaced),
                        np.zeros(len(flat), np.int64),
                    )
                    best = np.minimum(best, sliding[flat + shift])
                    if m < self.chip.depth - 1:
                        only = np.array([d not in run + "k" for d in LOOPS])
                        goes_on = ~(changed[:, only].any(axis=1))
                        best = np.minimum(best, np.where(goes_on, slid[flat], np.inf))
                words[kept] = best
        found = {}
        for kept in "woi":
            visits = {t: kept_visits[t] if t == kept else fresh[t] for t in "wo"}
            child_rho = np.stack([visits["w"], visits["o"]], axis=1)
            costs = np.empty((len(flat), labels.paid.shape[1]))
            for j, coef in enumerate(self.coef[: costs.shape[1]]):
                cost = labels.paid[owner, j] + self.inside(j, c, flat, child_rho)
                cost = cost + coef[c, 0] * visits["w"] + coef[c, 2] * visits["o"]
                if coef[c, 1]:
                    cost = cost + coef[c, 1] * words[kept]
                costs[:, j] = cost
            found[kept] = costs
        return found

    def found(self, objective, levels: list[dict]) -> Found | None:
        """A nest as a start for `descend`; None if it does not fit."""
        tile = np.array(self.lattice.rest)
        for m in range(self.chip.depth - 1, -1, -1):
            places = [
                int(np.flatnonzero(found == t)[0]) for found, t in zip(self.lattice.lists, tile, strict=True)
            ]
            if not self.fits[m][tuple(places)]:
                return None
            tile = tile // np.array([levels[m].get("temporal", {}).get(d, 1) for d in LOOPS])
        energy, cycles = self.price(levels)
        name = objective if isinstance(objective, str) else "priced"
        score = {"energy": energy, "latency": cycles, "edp": energy * cycles}.get(name)
        return Found(energy + objective * cycles if score is None else score, energy, cycles, levels)

    # The search ------------------------------------------------------------------------------

    def descend(self, objective, best: float, limit: int) -> tuple[Found | None, float]:
        """The best complete mapping better than ``best``, and a bound on all that was dropped.

        limit: room per level; the bound is inf if nothing was dropped for want of room.
        """
        self.prepare(self.needed(objective))
        labels, dropped = self.start(self.needed(objective)), math.inf
        target = best * (1 - 1e-9)
        for m in range(self.chip.depth - 1, 0, -1):
            grown: list[Labels] = []
            bounds: list[np.ndarray] = []
            for owner, flat in self.pairs(labels, m):
                for kept, costs in self.children_bounds(labels, owner, flat, m).items():
                    score = self.score(objective, costs)
                    hope = np.flatnonzero(score < target)
                    if not len(hope):
                        continue
                    if len(hope) > 8 * limit:  # a quick look prices the most promising only
                        hope = hope[np.argsort(score[hope], kind="stable")]
                        dropped = min(dropped, float(score[hope[8 * limit]]))
                        hope = hope[: 8 * limit]
                    for which, (tensor, _) in enumerate(self.menu):
                        if tensor != kept:
                            continue
                        keep = hope[self.distinct(labels, owner[hope], flat[hope], which)]
                        if not len(keep):
                            continue
                        child = self.settle(labels, owner[keep], flat[keep], m, which)
                        exact = np.stack(
                            [
                                child.paid[:, j] + self.inside(j, m - 1, child.flat, child.rho)
                                for j in range(child.paid.shape[1])
                            ],
                            axis=1,
                        )
                        bound = self.score(objective, exact)
                        good = np.flatnonzero(bound < target)
                        if len(good):
                            grown.append(child.take(good))
                            bounds.append(bound[good])
            if not grown:
                return None, dropped
            labels, bound = concatenate(grown), np.concatenate(bounds)
            labels, bound = self.without_twins(labels, bound)
            if len(bound) > limit:
                order = np.argsort(bound, kind="stable")
                dropped = min(dropped, float(bound[order[limit]]))
                labels = labels.take(order[:limit])
        costs = self.finish(labels)
        score = self.score(objective, costs)
        i = int(np.argmin(score))
        if not score[i] < best:
            return None, dropped
        every = self.finish(self.complete(labels, i))
        cycles = self.cycles(every)
        energy = self.total_energy(every[:, 0], cycles)
        return Found(float(score[i]), float(energy[0]), float(cycles[0]), self.nest(labels, i)), dropped

    def pairs(self, labels: Labels, m: int, chunk: int = 400_000):
        """(label, tile of level m - 1) pairs that fit, in chunks."""
        fits = self.fits[m - 1].reshape(-1)
        owners, flats, held = [], [], 0
        under: dict[int, np.ndarray] = {}
        for i, flat in enumerate(labels.flat.tolist()):
            if flat not in under:
                found = self.lattice.under(flat)
                under[flat] = found[fits[found]]
            found = under[flat]
            owners.append(np.full(len(found), i))
            flats.append(found)
            held += len(found)
            if held > chunk:
                yield np.concatenate(owners), np.concatenate(flats)
                owners, flats, held = [], [], 0
        if held:
            yield np.concatenate(owners), np.concatenate(flats)

    def distinct(self, labels: Labels, owner, flat, which: int) -> np.ndarray:
        """True where the order's leading loop runs: else another order of the menu is the same."""
        lattice = self.lattice
        before = np.array(np.unravel_index(labels.flat[owner], lattice.shape))
        after = np.array(np.unravel_index(flat, lattice.shape))
        changed = before != after
        kept, order = self.menu[which]
        if order in RUN_ORDERS:
            return changed[AT[order[0]]] & changed[AT[order[1]]]
        lead = order[1] if kept == "i" else order[0]
        twin = {"p": "q", "q": "p", "r": "s", "s": "r"}[lead]
        first_of_kind = lead in "pr"
        rest_idle = ~changed[AT[twin]] if kept != "i" else ~changed[[AT[d] for d in "pqrs"]].any(axis=0)
        if kept == "i":
            return changed[AT[lead]] | (rest_idle & (lead == "p"))
        return changed[AT[lead]] | (rest_idle & first_of_kind)

    def without_twins(self, labels: Labels, bound: np.ndarray):
        """Drops partial mappings that another of the same tile beats in everything that is settled.

        Inputs remember more than a number where windows slide, so there only equal futures compare.
        """
        slides = max(self.problem.extents[AT["r"]], self.problem.extents[AT["s"]]) > 1
        if len(bound) < 2 or slides:
            return labels, bound
        keys = np.concatenate([labels.paid, labels.rho], axis=1)
        # Whether inputs go on through the next level depends on the loops outside: k first.
        led = self.input_visits(labels)
        keys = np.concatenate([keys, led[:, None]], axis=1)
        order = np.lexsort((keys[:, 0], labels.flat))
        keep = np.ones(len(order), bool)
        start = 0
        flat = labels.flat[order]
        ends = np.flatnonzero(np.diff(flat)) + 1
        for end in [*ends.tolist(), len(order)]:
            group = order[start:end]
            if 1 < len(group) <= 4000:
                front: list[np.ndarray] = []
                for place, i in enumerate(group):
                    if front and np.any(np.all(np.array(front) <= keys[i] * (1 + 1e-12), axis=1)):
                        keep[start + place] = False
                    else:
                        front.append(keys[i])
            start = end
        chosen = order[keep]
        return labels.take(chosen), bound[chosen]

    def input_visits(self, labels: Labels) -> np.ndarray:
        """Visits of an input tile held here, without slides."""
        ones = np.ones((len(labels.flat), len(LOOPS)))
        plain = Problem(self.problem.extents, (1e9, 1e9), (1.0, 1.0))
        return run_through(labels.loops, ones, plain)

    def nest(self, labels: Labels, i: int) -> list[dict]:
        """Label ``i`` as levels for `LoopNest.create`, innermost first."""
        tiles = [self.lattice.unravel(tile[i : i + 1])[0] for tile in labels.tiles]
        levels = []
        for k in range(self.chip.depth):
            inner = tiles[k - 1] if k else np.ones(len(LOOPS), np.int64)
            factors = tiles[k] // inner
            order = "".join(LOOPS) if k == 0 else self.menu[labels.orders[k - 1][i]][1]
            levels.append(
                {"temporal": {d: int(factors[AT[d]]) for d in LOOPS if factors[AT[d]] > 1}, "order": order}
            )
        return levels
