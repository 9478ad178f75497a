"""SCALE-Sim's USER mode: prefetch windows, misses and the stalls they cause. Host only.

Each read buffer is given the order in which its operand is first used and prefetches along it; its
active window of lines only moves forward. Which demand rows miss does not depend on time, so the
misses are found first, by a walk over the addresses. Time enters after that, event by event: the
m-th prefetch ends at L_m = L_(m-1) + l + 1, a row that needs it waits, and the whole array waits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from diffhw.validation._scalesim_calc import DramWindow
from diffhw.validation._scalesim_streams import LayerRun, Operand, Piece
from diffhw.validation._scalesim_writes import OutputBuffer

__all__ = ["Misses", "find_misses", "user_dram"]

_MEMO_EVENTS = 4_000_000


@dataclass(frozen=True)
class Misses:
    """Demand rows with a miss, in order, and how many prefetches each needs."""

    rows: np.ndarray
    prefetches: np.ndarray


def user_dram(run: LayerRun) -> tuple[DramWindow, DramWindow, DramWindow, int, int]:
    """DRAM traffic of input, weights and outputs in USER mode, stall cycles, and how many of them are late.

    A read stall of the last demand row is late: the tool adds it to the stalls but not to the total
    (only in one-lane arrays does that row read at all).
    """
    sizes = (1024 * run.sram_ifmap_kb, 1024 * run.sram_filter_kb)
    operands = (run.input, run.weight)
    events = [find_misses(operand, size) for operand, size in zip(operands, sizes)]
    link = run.bw_words
    lines = [-(-(size // 2) // link) for size in sizes]  # of one prefetch

    writes = OutputBuffer(run, line=link)
    ends = [-1, -1]  # when the latest prefetch of each operand ends
    late = 0
    for row, counts in _merged(events):
        writes.run_to(row)
        cycle = row + writes.stall
        wait = 0
        for which, count in enumerate(counts):
            if count:
                ends[which] += count * (lines[which] + 1)
                wait = max(wait, ends[which] - cycle - 1)
        wait_write = writes.write_row(row)
        if row == writes.last_row and wait > wait_write:
            late = wait - wait_write
        writes.stall += max(wait, wait_write)
    writes.run_to(writes.last_row + 1)
    writes.finish(writes.last_row + writes.stall - late)

    windows = []
    for operand, size, line, end in zip(operands, sizes, lines, ends):
        first = min(-(-(size // 2) // link), -(-operand.padded_entries // link))
        prefetches = (end + 1) // (line + 1)
        windows.append(DramWindow((first + prefetches * line) * link, -first, end))
    out = DramWindow(writes.dram_writes, writes.dram_start or 0, writes.drain_end)
    return windows[0], windows[1], out, writes.stall, late


def _merged(events: list[Misses]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Rows with a miss of any operand, in order, with the prefetches of each."""
    rows = np.unique(np.concatenate([event.rows for event in events]))
    counts = np.zeros((len(events), len(rows)), np.int64)
    for which, event in enumerate(events):
        counts[which, np.searchsorted(rows, event.rows)] = event.prefetches
    yield from zip(rows.tolist(), zip(*counts.tolist()))


def find_misses(operand: Operand, size: int) -> Misses:
    """Walk over the addresses of an operand whose buffer holds ``size`` words, both halves."""
    per_line, half = -(-size // 100), size // 2
    lines = operand.entries // per_line + 1
    active = min(lines, -(-half // per_line))
    if active == lines:
        return Misses(np.zeros(0, np.int64), np.zeros(0, np.int64))
    step = min(lines - active, -(-(size - half) // per_line))
    kind = _UniqueWindow if operand.distinct == operand.entries else _CountingWindow
    window = kind(operand, lines, active, step, per_line)

    rows: list[np.ndarray] = []
    prefetches: list[np.ndarray] = []
    memo: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, int]] = {}
    kept = 0
    for block, first_row in operand.visits():
        state = (block, window.start)
        if state in memo:
            found_rows, found_counts, end = memo[state]
            window.start = end
        else:
            found: list[int] = []
            counts: list[int] = []
            for piece in operand.demand(block):
                _walk(window, piece, found, counts)
            found_rows, found_counts = np.asarray(found, np.int64), np.asarray(counts, np.int64)
            kept += len(found) + 8
            if kept < _MEMO_EVENTS:
                memo[state] = (found_rows, found_counts, window.start)
        rows.append(found_rows + first_row)
        prefetches.append(found_counts)
    return Misses(np.concatenate(rows), np.concatenate(prefetches))


def _walk(window, piece: Piece, rows: list[int], counts: list[int]) -> None:
    """Misses of one piece, appended as (row within the block, prefetches)."""
    addresses = window.prepare(piece.addresses)
    at, ahead, count = 0, 256, len(addresses)
    while at < count:
        missed = window.misses(addresses[at : at + ahead])
        position = int(missed.argmax())
        if not missed[position]:
            at += len(missed)
            ahead = min(2 * ahead, 1 << 20)
            continue
        at += position
        row, moves = piece.row(at), window.move_until_hit(addresses[at])
        if rows and rows[-1] == row:
            counts[-1] += moves
        else:
            rows.append(row)
            counts.append(moves)
        at += 1
        ahead = 256


class _UniqueWindow:
    """Active lines ``start .. start + active`` (cyclic) when each address is in one line only."""

    def __init__(self, operand: Operand, lines: int, active: int, step: int, per_line: int):
        self.lines, self.active, self.step, self.start = lines, active, step, 0
        self.line_of = np.zeros(operand.span, np.int32)
        done = 0
        for words in operand.fetch():
            self.line_of[words] = np.arange(done, done + len(words)) // per_line
            done += len(words)

    def prepare(self, addresses: np.ndarray) -> np.ndarray:
        """What the walk needs of the addresses: their lines."""
        return self.line_of[addresses]

    def misses(self, words: np.ndarray) -> np.ndarray:
        end = self.start + self.active
        if end <= self.lines:
            return (words < self.start) | (words >= end)
        return (words < self.start) & (words >= end - self.lines)

    def move_until_hit(self, word) -> int:
        return self._move((int(word) - self.start) % self.lines)

    def _move(self, distance: int) -> int:
        """Steps until a line ``distance`` ahead is active; a step is never wider than the window."""
        moves = (distance - self.active) // self.step + 1
        self.start = (self.start + moves * self.step) % self.lines
        return moves


class _CountingWindow(_UniqueWindow):
    """The same when im2col puts an address in several lines: how often the window holds each."""

    def __init__(self, operand: Operand, lines: int, active: int, step: int, per_line: int):
        self.lines, self.active, self.step, self.start = lines, active, step, 0
        self.per_line = per_line
        self.fetch = np.concatenate(list(operand.fetch()))
        self.held = np.zeros(operand.span, np.int32)
        self._at = 0  # the start of the window that ``held`` describes
        self._add(0, active, 1)
        # Lines of each address, ascending: those of address a stand at first[a] .. first[a + 1].
        bits = len(self.fetch).bit_length()
        keys = self.fetch.astype(np.int64) << bits
        keys |= np.arange(len(keys))
        keys.sort()
        keys &= (1 << bits) - 1
        self.lines_of = (keys // per_line).astype(np.int32)
        self.first = np.concatenate([[0], np.bincount(self.fetch, minlength=operand.span).cumsum()])

    def _add(self, first: int, count: int, sign: int) -> None:
        first %= self.lines
        one = self.held.dtype.type(sign)  # of the same type: thirty times faster
        for low, high in ((first, min(first + count, self.lines)), (0, first + count - self.lines)):
            if high > low:
                np.add.at(self.held, self.fetch[low * self.per_line : high * self.per_line], one)

    def _sync(self) -> None:
        moved = min((self.start - self._at) % self.lines, self.active)
        if moved:
            self._add(self._at, moved, -1)
            self._add(self.start + self.active - moved, moved, 1)
            self._at = self.start

    def prepare(self, addresses: np.ndarray) -> np.ndarray:
        self._sync()
        return addresses

    def misses(self, words: np.ndarray) -> np.ndarray:
        return self.held[words] == 0

    def move_until_hit(self, word) -> int:
        lines = self.lines_of[self.first[word] : self.first[word + 1]]
        moves = self._move(int(((lines - self.start) % self.lines).min()))
        self._sync()
        return moves
