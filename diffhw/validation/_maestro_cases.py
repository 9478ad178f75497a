"""MAESTRO's iteration cases of one cluster level, and what moves in each: elements and MACs.

Every dimension is at its Init, Steady or Edge position; a case is one position of each, and occurs as
often as the product of the counts. Counts are in the number type of ``one`` (1 or np.float32(1)).
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from diffhw.validation._maestro_levels import WINDOWS, Level, LevelMap, MaestroRules, truncated

__all__ = ["INIT", "Case", "LevelCases", "State"]

INIT, STEADY, EDGE = range(3)


class State(NamedTuple):
    """Position of one dimension. edge: the tile is cut short, or the only one and smaller than its map;
    whole: the only one; ragged: the last unit has less than the others; count: how often it occurs.
    """

    position: int
    edge: bool
    whole: bool
    ragged: bool
    count: int


@dataclass(frozen=True)
class _Sizes:
    """Elements of a tile of one map: usual, new since the last tile, and both at the edge."""

    usual: int
    new: int
    edge: int
    new_edge: int


class LevelCases:
    """The cases of ``level`` when it is handed tiles of ``actual`` sizes.

    tensors: dimensions of input, filter, output.
    """

    def __init__(
        self, level: Level, actual: dict[str, int], tensors: tuple[str, ...], rules: MaestroRules, one: Any
    ):
        self.level, self.one, self.tensors, self.units = level, one, tensors, level.units
        self.maps = level.maps
        repaired = rules.ragged == "actual"
        sizes = actual if repaired else level.sizes
        self.inputs = [_sizes(mine, sizes[mine.dim], repaired) for mine in level.maps]
        self.outputs = list(self.inputs)  # the same, with Y, X counted in outputs
        places = {mine.dim: i for i, mine in enumerate(level.maps)}
        for dim, window in WINDOWS.items():
            if dim in tensors[2]:
                rows, reads = self.inputs[places[dim]], self.inputs[places[window]]
                usual, edge = rows.usual - reads.usual + 1, rows.edge - reads.edge + 1
                offset = level.maps[places[dim]].offset
                self.outputs[places[dim]] = _Sizes(usual, min(offset, rows.usual), edge, min(offset, edge))
        self.coupled = [[i for i, mine in enumerate(level.maps) if mine.dim in dims] for dims in tensors]
        self.edge_units = _edge_units(level.maps[level.spatial[0]], sizes, level.units, repaired)
        states = [
            (_spatial_states if mine.spatial else _temporal_states)(mine, actual[mine.dim], level.units)
            for mine in level.maps
        ]
        self.cases = [Case(self, chosen) for chosen in _ordered(states)]

    def spatial_in(self, tensor: int) -> list[int]:
        """Places of the spatial maps of a tensor's dimensions, in the tensor's own order."""
        order = self.tensors[tensor]
        found = [i for i in self.coupled[tensor] if self.maps[i].spatial]
        return sorted(found, key=lambda i: order.index(self.maps[i].dim))


def _sizes(mine: LevelMap, size: int, repaired: bool) -> _Sizes:
    full, offset = mine.size, mine.offset
    new = 0 if not mine.spatial and size <= full else min(full, offset)
    if repaired and full > size:
        return _Sizes(full, new, size, max(offset - (full - size), 0))
    steps = max(0, truncated(size - full, offset))
    left = size - (steps + 1) * offset
    left = size if left < 0 else left
    cut = steps * offset + full < size or full > size
    return _Sizes(full, new, left if cut else full, max(offset - (full - left), 0))


def _edge_units(mine: LevelMap, sizes: dict[str, int], units: int, repaired: bool) -> int:
    """Units at work where the spatial map runs over the edge."""
    size, full, offset = sizes[mine.dim], mine.size, mine.offset
    covered = offset * (units - 1) + full
    if size > covered:
        rounds = truncated(truncated(size - full, offset) + 1, units)
        left = size - rounds * offset * units
        busy = 1 if left < full else (left - full) // offset + 1
        partial = left >= full and (busy - 1) * offset + full < left
        return busy + (repaired and partial)
    if size > full:
        busy = (size - full) // offset + 1
        return busy + (offset * (busy - 1) + full < size)
    return 1


def _temporal_states(mine: LevelMap, size: int, units: int) -> list[State]:
    full, offset = mine.size, mine.offset
    short = size < full
    states = [State(INIT, short, size <= full, False, 1)]
    steps = truncated(size - full, offset)
    if full < size and steps > 0:
        states.append(State(STEADY, False, False, False, steps))
    if not short and steps * offset + full < size:
        states.append(State(EDGE, True, False, False, 1))
    return states


def _spatial_states(mine: LevelMap, size: int, units: int) -> list[State]:
    full, offset = mine.size, mine.offset
    covered = full + offset * (units - 1)
    short = size < covered
    states = [State(INIT, short, size <= covered, short, 1)]
    rounds = truncated(truncated(size - full, offset) + 1, units) - 1
    if covered < size and rounds > 0:
        states.append(State(STEADY, False, False, False, rounds))
    done = rounds * offset * units
    if size > covered and done + offset * units + covered > size and done + covered != size:
        left = size - done - offset * units
        busy = 1 if left < full else truncated(left - full, offset) + 1
        states.append(State(EDGE, True, False, (busy - 1) * offset + full < left, 1))
    return states


def _ordered(states: list[list[State]]) -> list[tuple[State, ...]]:
    """Every combination in the tool's order, which its "last case" figures depend on."""
    lengths = [len(one) for one in states]
    faster = [math.prod(lengths[i + 1 :]) for i in range(len(lengths))]
    return [
        tuple(one[-(-number // step) % len(one)] for one, step in zip(states, faster))
        for number in range(math.prod(lengths))
    ]


class Case:
    """One position of each dimension."""

    def __init__(self, table: LevelCases, states: tuple[State, ...]):
        self.table, self.states = table, states
        self.occurrences = math.prod(state.count for state in states)
        moving = [i for i, state in enumerate(states) if state.position != INIT]
        self.changed = moving[-1] if moving else -1
        lead = states[table.level.spatial[0]]
        self.units = table.edge_units if lead.edge else table.units
        self.ragged = lead.edge and lead.ragged

    # Inputs ------------------------------------------------------------------------------------------

    def restarted(self, tensor: int) -> bool:
        """Whether a later dimension of the tensor starts again."""
        return any(
            i > self.changed and self.states[i].position == INIT and not self.states[i].whole
            for i in self.table.coupled[tensor]
        )

    def ingress(self, tensor: int) -> Any:
        """Elements of input (0) or filter (1) that enter the level, multicast counted once."""
        changed = self.changed
        if changed >= 0 and changed not in self.table.coupled[tensor]:
            return self.table.one * 0
        restarted = changed >= 0 and self.restarted(tensor)
        unit = lambda first, ragged: self._unit_ingress(tensor, first, ragged, restarted)
        return self._over_units(tensor, unit)

    def _over_units(self, tensor: int, unit) -> Any:
        table = self.table
        spatial = table.spatial_in(tensor)
        if not spatial:
            return unit(True, False)
        if not any(self.states[i].edge for i in spatial):
            return unit(True, False) + (table.units - 1) * unit(False, False)
        ragged, busy = self.states[spatial[-1]].ragged, table.edge_units
        if busy == 1:
            return unit(True, ragged)
        total = unit(True, False)
        if busy - ragged - 1 > 0:
            total = total + (busy - ragged - 1) * unit(False, False)
        return total + unit(False, True) if ragged else total

    def _unit_ingress(self, tensor: int, first: bool, ragged: bool, restarted: bool) -> Any:
        table, changed = self.table, self.changed
        total = table.one
        for i in table.coupled[tensor]:
            size, state = table.inputs[i], self.states[i]
            if not table.maps[i].spatial:
                if state.position == INIT:
                    total = total * (size.edge if state.edge else size.usual)
                else:
                    total = total * (max(size.new, 1) if i == changed and not restarted else size.usual)
            elif changed < 0:
                if not state.edge or (table.edge_units > 1 and not ragged):
                    total = total * size.usual
                elif table.edge_units > 1 or first or ragged:
                    total = total * size.edge
            else:
                full, new = (size.edge, size.new_edge) if ragged else (size.usual, size.new)
                if first:
                    total = total * full
                elif state.position == INIT:
                    total = total * (full if i <= changed else new)
                else:
                    total = total * (new if i == changed and not restarted else full)
        return total

    # Outputs and work --------------------------------------------------------------------------------

    def egress(self) -> Any:
        """Outputs that leave the level."""
        return self._over_units(2, lambda first, ragged: self._made(False, first, ragged))

    @property
    def _any_edge(self) -> tuple[bool, bool]:
        spatial = [self.states[i] for i in self.table.level.spatial]
        return any(state.edge for state in spatial), spatial[-1].ragged

    def partial_sums(self) -> Any:
        """MACs of one unit, the busiest."""
        edge, ragged = self._any_edge
        return self._made(True, True, edge and ragged and self.table.edge_units == 1)

    def macs(self) -> Any:
        """MACs of all units."""
        edge, ragged = self._any_edge
        busy = self.table.edge_units
        if not edge:
            return self.table.units * self._made(True, True, False)
        total = self._made(True, True, busy == 1)
        if busy > 1:
            total = total + max(busy - ragged - 1, 0) * self._made(True, True, False)
            if ragged:
                total = total + self._made(True, False, True, reuse=False)
        return total

    def _made(self, sums: bool, first: bool, ragged: bool, reuse: bool = True) -> Any:
        """Outputs of one unit; with ``sums`` its MACs."""
        table = self.table
        total = table.one
        for i, mine in enumerate(table.maps):
            if i in table.coupled[2]:
                size = table.outputs[i]
            elif sums:
                size = table.inputs[i]
            else:
                continue
            state, busy = self.states[i], table.edge_units
            if not mine.spatial:
                total = total * (size.edge if state.edge else size.usual)
            elif state.position == INIT and state.edge and ragged:
                total = total * (size.edge if busy == 1 or not reuse else size.new_edge)
            elif state.position == EDGE and busy == 1:
                total = total * (table.inputs[i].edge if first else 1)
            elif state.position == EDGE and ragged:
                total = total * size.new_edge
            else:
                total = total * (size.usual if first else max(size.new, 1))
        return total

    # The level below ---------------------------------------------------------------------------------

    def handed_down(self, ragged: bool) -> dict[str, int]:
        """Sizes of the tile of one unit."""
        table = self.table
        sizes = {}
        for mine, size, state in zip(table.maps, table.inputs, self.states):
            cut = state.edge and (not mine.spatial or table.edge_units == 1 or ragged)
            sizes[mine.dim] = size.edge if cut else size.usual
        return sizes
