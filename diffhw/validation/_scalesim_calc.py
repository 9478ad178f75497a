"""SCALE-Sim's CALC mode: DRAM reads and their window of cycles, stall free. Host only.

A read buffer is a set that forgets everything when its q-th new word has been added. Where a
closed form exists it is used; overlapping convolution windows that do not fit need a walk over the
addresses in order of use.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from diffhw.validation._scalesim_streams import LayerRun, Operand, Piece
from diffhw.validation._scalesim_writes import OutputBuffer

__all__ = ["DramWindow", "calc_dram"]

_FIRST_FILL = 10  # words a cycle, fixed in the tool


@dataclass(frozen=True)
class DramWindow:
    """Words moved, and the first and last cycle in which some were."""

    words: int
    start: int
    stop: int


def calc_dram(run: LayerRun) -> tuple[DramWindow, DramWindow, DramWindow, int]:
    """DRAM traffic of input, weights and outputs in CALC mode, and the stall cycles (none)."""
    reads = [
        _read(operand, 1024 * kb // 100)
        for operand, kb in ((run.input, run.sram_ifmap_kb), (run.weight, run.sram_filter_kb))
    ]
    writes = OutputBuffer(run, line=run.array_cols)
    writes.run_to(writes.last_row + 1)
    writes.finish(writes.last_row + writes.stall)
    out = DramWindow(writes.dram_writes, writes.dram_start or 0, writes.drain_end)
    return reads[0], reads[1], out, writes.stall


def _read(operand: Operand, set_words: int) -> DramWindow:
    """Reads of one operand; its buffer has 50 sets of ``set_words`` words in the active half."""
    capacity = 50 * set_words
    if operand.distinct < capacity:
        sets = -(-operand.distinct // set_words)  # one fill before the start, in whole sets
        return DramWindow(operand.distinct, -_fill_cycles(sets * set_words), -1)
    if operand.distinct < operand.entries or operand.edges is not None:
        words, last_flush = _walk(operand, capacity)
    elif operand.moves == "column fold":
        words, last_flush = _repeated_tiles(operand, capacity)
    else:
        words, last_flush = _every_access_misses(operand, capacity)
    block, row = next(operand.visits())
    first_request = row + next(operand.demand(block)).row(0)
    return DramWindow(words, first_request - _fill_cycles(capacity), last_flush + 1)


def _fill_cycles(words: int) -> int:
    return -(-words // _FIRST_FILL)


def _demand_row(operand: Operand, block: int, position: int) -> int:
    """Row within the block of its ``position``-th word (from 0), no overhang: closed form."""
    lines = len(operand.along)
    width = min(operand.width, len(operand.across) - block * operand.width)
    if operand.moves == "stays":
        line = position // width
        rows = operand.run.array_rows
        used = min(rows, lines - line // rows * rows)
        return line // rows * operand.run.fold_rows + rows - used + line % rows
    short, long = min(lines, width), max(lines, width)

    def through(row: int) -> int:
        """Words in rows <= row of a skewed lines x width tile."""
        rise, fall = min(row + 1, short), max(row + 1 - long, 0)
        return rise * (rise + 1) // 2 + max(row + 1 - short, 0) * short - fall * (fall + 1) // 2

    return bisect_left(range(lines + width - 1), position + 1, key=through)


def _block_words(operand: Operand, block: int) -> int:
    return min(operand.width, len(operand.across) - block * operand.width) * len(operand.along)


def _every_access_misses(operand: Operand, capacity: int) -> tuple[int, int]:
    """A cycle of distinct words longer than the buffer: each access is new. Words, row of last flush."""
    passes = operand.run.folds[1] if operand.moves == "row fold" else 1
    words = operand.entries * passes
    last = words // capacity * capacity - 1  # the access that filled the buffer for the last time
    done, rest = divmod(last, operand.entries)
    block = rest // (operand.width * len(operand.along))
    row_folds, fold = operand.run.folds[0], operand.run.fold_rows
    if operand.moves == "stays":
        start = block * row_folds * fold
    else:
        start = (done * row_folds + block) * fold
        start += 0 if operand.run.dataflow == "os" else operand.run.array_rows
    return words, start + _demand_row(operand, block, rest - block * operand.width * len(operand.along))


def _repeated_tiles(operand: Operand, capacity: int) -> tuple[int, int]:
    """Output-stationary weights: each column tile is used once per row fold, then never again."""
    visits, fold = operand.run.folds[0], operand.run.fold_rows
    words = held = 0
    last_flush = -1
    for block in range(operand.blocks):
        tile = _block_words(operand, block)
        visit = position = None
        if tile >= capacity:
            cost = tile * visits
            flushes, after = divmod(held + cost, capacity)
            if flushes:
                visit, position = divmod(flushes * capacity - held - 1, tile)
            held = after
        elif held + tile < capacity:
            cost = tile
            held += tile
        else:
            flushed = capacity - held  # these words of the first visit are lost and wanted again
            visit, position = 0, flushed - 1
            cost = tile + (flushed if visits > 1 else 0)
            held = tile if visits > 1 else tile - flushed
        words += cost
        if visit is not None and position is not None:
            last_flush = (block * visits + visit) * fold + _demand_row(operand, block, position)
    return words, last_flush


def _walk(operand: Operand, capacity: int) -> tuple[int, int]:
    """Exact walk over the addresses. Words added to the set, demand row of the last flush."""
    set_ = _FlushingSet(operand.span, capacity)
    row_folds, col_folds = operand.run.folds
    if operand.moves != "row fold":
        for block, row in operand.visits():
            for piece in operand.demand(block):
                set_.take(piece, row)
        return set_.words, set_.last_flush

    # The same pass col_folds times. All that one pass hands to the next is how far back the last
    # flush lies (each pass flushes at least once), so a repeated distance repeats all that follows.
    pass_rows = row_folds * operand.run.fold_rows
    seen: dict[int, int] = {}
    history: list[tuple[int, int]] = []
    visits = list(operand.visits())[:row_folds]
    for turn in range(col_folds):
        state = set_.taken - set_.since
        history.append((set_.words, set_.last_flush))
        if turn and state in seen:
            start = seen[state]
            period = turn - start
            cycles, rest = divmod(col_folds - turn, period)
            words = set_.words + cycles * (set_.words - history[start][0])
            words += history[start + rest][0] - history[start][0]
            twin = start + rest if rest else turn  # the end of this turn looks like that of the last one
            return words, history[twin][1] + (col_folds - twin) * pass_rows
        seen[state] = turn
        for block, row in visits:
            for piece in operand.demand(block):
                set_.take(piece, row + turn * pass_rows)
    return set_.words, set_.last_flush


class _FlushingSet:
    """A set that forgets all when full, fed with runs of addresses."""

    def __init__(self, span: int, capacity: int):
        self.last_use = np.full(span, -1, np.int64)  # by address: when it was last asked for
        self.capacity, self.held = capacity, 0
        self.taken = self.since = 0  # words asked for so far; when the set was last emptied
        self.words, self.last_flush = 0, -1

    def _previous_use(self, addresses: np.ndarray) -> np.ndarray:
        """For each access, when its address was asked for before (-1: never); then all are noted."""
        count = len(addresses)
        bits = max(count - 1, 1).bit_length()
        keys = (addresses.astype(np.int64) << bits) | np.arange(count)
        keys.sort()
        order, sorted_addresses = keys & ((1 << bits) - 1), keys >> bits
        again = sorted_addresses[1:] == sorted_addresses[:-1]
        previous = self.last_use[addresses]
        previous[order[1:][again]] = order[:-1][again] + self.taken
        newest = np.append(~again, True)
        self.last_use[sorted_addresses[newest]] = order[newest] + self.taken
        return previous

    def take(self, piece: Piece, first_row: int) -> None:
        """Ask for the words of a piece; ``first_row``: demand row of its block."""
        if not len(piece.addresses):
            return
        previous = self._previous_use(piece.addresses)
        at, window, count = 0, 0, len(previous)
        while at < count:
            missing = self.capacity - self.held
            window = max(2 * window, 2 * missing, 1024)
            new = previous[at : at + window] < self.since
            found = int(np.count_nonzero(new))
            if found < missing:
                self.held += found
                self.words += found
                at += window
                continue
            at += int(np.flatnonzero(new)[missing - 1]) + 1
            self.words += missing
            self.last_flush = first_row + piece.row(at - 1)
            self.held, self.since, window = 0, self.taken + at, 0
        self.taken += count
