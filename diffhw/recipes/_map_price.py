"""What mappings of one lattice cost, settled level by level from the outermost inwards.

A *functional* is a sum over accesses: energy, or the cycles of one port; all are priced in the same way,
exactly, by the rules of `models.loopnest`.
"""

from functools import cached_property

import numpy as np

from diffhw.mappings import LOOPS
from diffhw.recipes._map_bounds import (
    FREE,
    Prices,
    _coefficients,
    _visits,
    energy_prices,
    keepers,
    port_prices,
    siblings,
    spread,
    totals,
)
from diffhw.recipes._map_labels import INDEXED, Labels, orders_of, run_through
from diffhw.recipes._map_lattice import AT, Chip, Lattice

__all__ = ["Pricer"]


class Pricer:
    """Exact costs on one lattice, for every functional."""

    def __init__(self, lattice: Lattice, chip: Chip, ports: list[tuple[int, int]]):
        self.lattice, self.chip, self.ports = lattice, chip, ports
        self.problem = lattice.problem
        self.compute_cycles = float(np.prod(lattice.rest))
        self.keepers = keepers(chip)
        self.sizes = totals(lattice)
        self.prices: list[Prices] = [
            energy_prices(chip),
            *(port_prices(chip, lattice, *port) for port in ports),
        ]
        self.constants, self.coef = zip(
            *(_coefficients(lattice, chip, price) for price in self.prices), strict=True
        )
        self.evaluated = 0

    @cached_property
    def base(self) -> dict[str, np.ndarray]:
        """Visits of weights and outputs per tile, flat."""
        spread_out = lambda a: np.broadcast_to(a, self.lattice.shape).reshape(-1)
        return {t: spread_out(_visits(self.lattice, FREE[t])) for t in "wo"}

    @cached_property
    def menu(self) -> list[tuple[str, str]]:
        """Orders to try."""
        return orders_of(self.lattice)

    @cached_property
    def permutations(self) -> list[np.ndarray]:
        """The menu as positions."""
        return [np.array([AT[d] for d in order]) for _, order in self.menu]

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

    def complete(self, labels: Labels, i: int) -> Labels:
        """Label ``i`` of a finished search, priced again with every functional."""
        path = self.start(len(self.prices))
        for m in range(self.chip.depth - 1, 0, -1):
            flat, which = labels.tiles[m - 1][i : i + 1], int(labels.orders[m - 1][i])
            path = self.settle(path, np.zeros(1, int), flat, m, which)
        return path

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
