"""The best mapping of a layer on a hierarchy, with a certificate.

Levels are decided from the outermost inwards. What is decided is priced exactly, by the rules of
`models.loopnest`; what is not is bounded from below (`_map_bounds`). Whatever cannot beat the best
mapping in hand is dropped, so what remains at the end is proven. Perfect factors.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from diffhw.mappings import LOOPS
from diffhw.recipes._map_bounds import (
    AXES,
    FREE,
    Prices,
    Tables,
    _coefficients,
    _input_terms,
    _visits,
    bound_tables,
    energy_prices,
    keepers,
    port_prices,
    siblings,
    slide_axes,
    spread,
    totals,
)
from diffhw.recipes._map_labels import INDEXED, RUN_ORDERS, Labels, concatenate, orders_of, run_through
from diffhw.recipes._map_lattice import AT, Chip, Lattice, Problem

__all__ = ["OBJECTIVES", "Found", "Searcher"]

OBJECTIVES = ("energy", "latency", "edp")


@dataclass(frozen=True)
class Found:
    """A complete mapping: score, energy (pJ) and cycles, and its temporal levels for `LoopNest.create`."""

    score: float
    energy_pj: float
    cycles: float
    levels: list


class Searcher:
    """The search on one lattice. Tables are made when first needed and serve every objective."""

    def __init__(self, lattice: Lattice, chip: Chip, ports: list[tuple[int, int]]):
        self.lattice, self.chip, self.ports = lattice, chip, ports
        self.problem = lattice.problem
        self.compute_cycles = float(np.prod(lattice.rest))
        self.strides = np.cumprod((1, *lattice.shape[::-1]))[::-1][1:].astype(np.int64)
        self.keepers = keepers(chip)
        self.sizes = totals(lattice)
        self.prices: list[Prices] = [
            energy_prices(chip),
            *(port_prices(chip, lattice, *port) for port in ports),
        ]
        self.tables: list[tuple[Tables, int]] = []
        self.constants, self.coef = zip(
            *(_coefficients(lattice, chip, price) for price in self.prices), strict=True
        )
        self._inputs: dict[int, list] = {}
        self._flat_tables: dict = {}
        self.evaluated = 0

    @cached_property
    def fits(self) -> list[np.ndarray]:
        """Per level, which tiles fit it."""
        return [self.lattice.fits(self.chip, k) for k in range(self.chip.depth)]

    @cached_property
    def base(self) -> dict[str, np.ndarray]:
        """Visits of weights and outputs per tile, flat."""
        spread_out = lambda a: np.broadcast_to(a, self.lattice.shape).reshape(-1)
        return {t: spread_out(_visits(self.lattice, FREE[t])) for t in "wo"}

    @cached_property
    def axes(self) -> list[str | None]:
        """Axes along which inputs slide."""
        return slide_axes(self.lattice)

    @cached_property
    def menu(self) -> list[tuple[str, str]]:
        """Orders to try."""
        return orders_of(self.lattice)

    @cached_property
    def permutations(self) -> list[np.ndarray]:
        """The menu as positions."""
        return [np.array([AT[d] for d in order]) for _, order in self.menu]

    def prepare(self, functionals: int) -> None:
        """Tables of the first so many functionals: energy, then every port that could bind."""
        missing = self.prices[len(self.tables) : functionals]
        if missing:
            made = bound_tables(self.lattice, self.chip, missing, self.fits)
            self.tables += [(made, j) for j in range(len(missing))]

    # Scores ----------------------------------------------------------------------------------

    def total_energy(self, energy, cycles):
        """PJ with MACs and static power."""
        energy = energy + self.problem.macs * self.chip.mac_pj
        static = self.chip.static_pj_per_cycle
        return energy + static * cycles if static > 0 else energy  # cycles are inf where nothing fits

    def cycles(self, costs: np.ndarray) -> np.ndarray:
        """Cycles from (n, functionals)."""
        cycles = np.full(len(costs), self.compute_cycles)
        if costs.shape[1] > 1:
            cycles = np.maximum(cycles, np.ceil(costs[:, 1:].max(axis=1) * (1 - 1e-12)))
        return cycles

    def score(self, objective, costs: np.ndarray) -> np.ndarray:
        """Objective from (n, functionals); a number as objective is the price of a cycle in pJ."""
        cycles = self.cycles(costs)
        energy = self.total_energy(costs[:, 0], cycles)
        if not isinstance(objective, str):
            return energy + objective * cycles
        return {"energy": energy, "latency": cycles, "edp": energy * cycles}[objective]

    def needed(self, objective) -> int:
        """How many functionals an objective looks at."""
        if objective == "energy" and self.chip.static_pj_per_cycle == 0:
            return 1
        return 1 + len(self.ports)

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

    # Exact children --------------------------------------------------------------------------

    def settle(self, labels: Labels, owner, flat, m: int, which) -> Labels:
        """Children with everything between levels m and m - 1 priced exactly.

        which: place of the order in the menu, or any order as positions of loops.
        """
        lattice, chip, c = self.lattice, self.chip, m - 1
        outer = lattice.unravel(labels.flat[owner]).astype(float)
        inner = lattice.unravel(flat).astype(float)
        factors = outer / inner
        order = self.permutations[which] if isinstance(which, int) else which
        sorted_factors = factors[:, order]
        steps = np.zeros_like(factors)
        for axis, (slide, taps) in enumerate(("pr", "qs")):
            for d, scale in ((slide, self.problem.stride[axis]), (taps, self.problem.dilation[axis])):
                steps[:, AT[d]] = scale * inner[:, AT[d]] * lattice.inside[c, AT[d]] * lattice.space[m, AT[d]]
        rho = np.empty((len(flat), 2))
        for i, t in enumerate("wo"):
            indexed = INDEXED[t][order]
            active = (sorted_factors > 1) & indexed
            led = np.cumsum(active, axis=1) == 0
            prefix = np.where(led & ~indexed, sorted_factors, 1.0).prod(axis=1)
            rho[:, i] = np.where(active.any(axis=1), self.base[t][flat] / prefix, labels.rho[owner, i])
        here = (sorted_factors, np.broadcast_to(order, sorted_factors.shape), steps[:, order])
        loops = [here, *(tuple(part[owner] for part in level) for level in labels.loops)]
        paid = labels.paid[owner].copy()
        child_tile = inner * lattice.inside[c]
        for v in range(3):
            if not chip.keeps[c, v]:
                continue
            k = next(level for level in self.keepers[v] if level > c)
            if v == 1:
                entering = run_through(loops, child_tile, self.problem)
                distinct = siblings(lattice, c + 1, child_tile)
                for j in range(c + 2, k + 1):  # levels in between pass inputs on
                    held = lattice.unravel(labels.tiles[j - 1 - m][owner]) * lattice.inside[j - 1]
                    distinct = distinct * siblings(lattice, j, held)
                moves = {"fill": (c, entering), "read": (k, entering * distinct)}
            else:
                t = "w" if v == 0 else "o"
                size, visits = self.sizes[0 if v == 0 else 1], rho[:, 0 if v == 0 else 1]
                # Per instance; a tile's words times loops that index it is the tensor's share.
                here_words = size * spread(lattice, c, FREE[t]) / spread(lattice, c, LOOPS)
                there_words = size * spread(lattice, k, FREE[t]) / spread(lattice, k, LOOPS)
                if v == 0:
                    moves = {"fill": (c, here_words * visits), "read": (k, there_words * visits)}
                else:
                    moves = {
                        "fill": (c, here_words * (visits - 1)),
                        "read": (k, there_words * (visits - 1)),
                        "update": (k, there_words * visits),
                    }
            for kind, (level, words) in moves.items():
                accesses = np.ceil(words * chip.bits[level, v] / chip.width[level] - 1e-9)
                instances = spread(lattice, level, LOOPS)
                paid[:, 0] += instances * accesses * getattr(chip, f"{kind}_pj")[level]
                for j, price in self.port_prices(paid):
                    paid[:, j] += instances * words * getattr(price, kind)[level, v]
            if v == 2:  # the constants took the first visit's returns back; they are not charged above
                for j, price in enumerate(self.prices[: paid.shape[1]]):
                    paid[:, j] += self.sizes[1] * (
                        spread(lattice, c, FREE["o"]) * price.fill[c, 2]
                        + spread(lattice, k, FREE["o"]) * price.read[k, 2]
                    )
        self.evaluated += len(flat)
        return Labels(
            flat,
            paid,
            rho,
            loops,
            [flat, *(tile[owner] for tile in labels.tiles)],
            [
                np.full(len(flat), which if isinstance(which, int) else -1, np.int8),
                *(o[owner] for o in labels.orders),
            ],
        )

    def start(self, functionals: int) -> Labels:
        """Everything still to decide; the constant costs are paid."""
        last = np.array([self.lattice.size - 1])
        paid = np.array([self.constants[:functionals]])
        return Labels(last, paid, np.ones((1, 2)), [], [last], [])

    def port_prices(self, costs: np.ndarray):
        """(functional, prices) of the ports among the columns of ``costs``."""
        return list(enumerate(self.prices[: costs.shape[1]]))[1:]

    def price(self, levels: list[dict]) -> tuple[float, float]:
        """PJ and cycles of a nest (levels as for `LoopNest.create`, this lattice's spatial factors)."""
        path = self.start(len(self.prices))
        tile = np.array(self.lattice.rest)
        for m in range(self.chip.depth - 1, 0, -1):
            factors = levels[m].get("temporal", {})
            order = levels[m].get("order", list(factors))
            tile = tile // np.array([factors.get(d, 1) for d in LOOPS])
            places = [
                int(np.flatnonzero(found == t)[0]) for found, t in zip(self.lattice.lists, tile, strict=True)
            ]
            flat = np.array([np.ravel_multi_index(places, self.lattice.shape)])
            whole = [*order, *(d for d in LOOPS if d not in order)]
            path = self.settle(path, np.zeros(1, int), flat, m, np.array([AT[d] for d in whole]))
        costs = self.finish(path)
        cycles = self.cycles(costs)
        return float(self.total_energy(costs[:, 0], cycles)[0]), float(cycles[0])

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

    def complete(self, labels: Labels, i: int) -> Labels:
        """Label ``i`` of a finished search, priced again with every functional."""
        path = self.start(len(self.prices))
        for m in range(self.chip.depth - 1, 0, -1):
            flat, which = labels.tiles[m - 1][i : i + 1], int(labels.orders[m - 1][i])
            path = self.settle(path, np.zeros(1, int), flat, m, which)
        return path

    def finish(self, labels: Labels) -> np.ndarray:
        """Exact costs of complete mappings: rounding of the constants and diagonal siblings included."""
        lattice, chip = self.lattice, self.chip
        costs = labels.paid.copy()
        for v in range(3):
            k = self.keepers[v][0]
            instances = spread(lattice, k, LOOPS)
            if v == 1:
                estimate = np.prod([siblings(lattice, j) for j in range(k + 1)])
                actual = np.ones(len(costs))
                for j in range(k + 1):
                    # The level inside level 0 is the MAC; labels.tiles[i] is the tile of level i.
                    step = (
                        np.ones((len(costs), len(LOOPS)))
                        if j == 0
                        else lattice.unravel(labels.tiles[j - 1]) * lattice.inside[j - 1]
                    )
                    actual = actual * siblings(lattice, j, step)
                words = {"read": (self.compute_cycles * actual, self.compute_cycles * estimate)}
            else:
                t = "w" if v == 0 else "o"
                asked = float(np.prod([lattice.rest[AT[d]] for d in FREE[t]]))
                size = self.sizes[0 if v == 0 else 1] * spread(lattice, k, FREE[t]) / instances
                words = {"read": (size * asked,) * 2}
                if v == 2:
                    words = {"read": (size * (asked - 1),) * 2, "update": (size * asked,) * 2}
            for kind, (real, guess) in words.items():
                share = chip.bits[k, v] / chip.width[k]
                pj = getattr(chip, f"{kind}_pj")[k]
                costs[:, 0] += instances * pj * (np.ceil(real * share - 1e-9) - guess * share)
                for j, price in self.port_prices(costs):
                    costs[:, j] += instances * (real - guess) * getattr(price, kind)[k, v]
        return costs

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
