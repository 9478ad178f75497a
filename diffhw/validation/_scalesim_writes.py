"""SCALE-Sim's output buffer: words packed in lines, half-full drains, write stalls. Host only.

Words fill lines of the link's width. As soon as more than half of the buffer is held and no drain
runs, the line being filled is closed as it is and half a buffer of lines leaves, one line a cycle.
A partly filled line inside a drain is counted (and freed) as a full one; only in the last line of
a drain are the nulls left out. That miscount is the tool's, and is kept.
"""

from bisect import bisect_left
from collections import deque

import numpy as np

from diffhw.validation._scalesim_streams import LayerRun

__all__ = ["OutputBuffer"]


class _Arrivals:
    """How many output words the array has produced before a demand row, and the row of the k-th word."""

    def __init__(self, run: LayerRun):
        on_rows, on_cols, steps = run.spatial
        row_folds, col_folds = run.folds
        rows, cols, self.fold = run.array_rows, run.array_cols, run.fold_rows
        edge_row, edge_col = on_rows - (row_folds - 1) * rows, on_cols - (col_folds - 1) * cols
        first = steps - 1 if run.dataflow == "os" else 2 * rows - 1

        def within(used_rows, used_cols):
            """Words produced up to and including each row of a fold: a skewed rectangle drains."""
            height, start = (used_rows, first + rows - used_rows) if run.dataflow == "os" else (steps, first)
            turns = np.zeros(self.fold + 2, np.int64)  # second differences of the words a row
            np.add.at(turns, [start, start + height + used_cols], 1)
            np.add.at(turns, [start + height, start + used_cols], -1)
            return turns[: self.fold].cumsum().cumsum().cumsum().tolist()

        shapes = {}
        self.shapes, totals = [], []
        for col in range(col_folds):
            used_cols = edge_col if col == col_folds - 1 else cols
            for row in range(row_folds):
                used_rows = edge_row if row == row_folds - 1 else rows
                if run.dataflow != "os":
                    used_rows = rows
                shape = shapes.setdefault((used_rows, used_cols), [])
                if not shape:
                    shape.extend(within(used_rows, used_cols))
                self.shapes.append(shape)
                totals.append(shape[-1])
        self.before_fold = [0, *np.cumsum(totals).tolist()]
        self.total = self.before_fold[-1]

    def before(self, row: int) -> int:
        """Words that arrive in rows < ``row``."""
        if row <= 0:
            return 0
        fold, rest = divmod(row, self.fold)
        if fold >= len(self.shapes):
            return self.total
        return self.before_fold[fold] + (self.shapes[fold][rest - 1] if rest else 0)

    def row(self, word: int) -> int:
        """Demand row in which the ``word``-th word (from 1) arrives."""
        fold = bisect_left(self.before_fold, word) - 1
        return fold * self.fold + bisect_left(self.shapes[fold], word - self.before_fold[fold])


class OutputBuffer:
    """Replay of the buffer; ``stall`` is the array's accumulated stall, which the caller may raise.

    line: words a cycle that the link to DRAM takes.
    """

    def __init__(self, run: LayerRun, line: int):
        self.arrivals = _Arrivals(run)
        self.last_row = run.folds[0] * run.folds[1] * run.fold_rows - 1
        self.size = self.free = 1024 * run.sram_ofmap_kb
        self.half, self.line = self.size // 2, line
        self.drain_lines = -(-self.half // line)
        self.stored = self.filled = 0  # words so far; of them in the line being filled
        self.closed: deque[list[int]] = deque()  # [lines, words in each]
        self.closed_lines = 0
        self.drain_end = 0
        self.stall = self.dram_writes = 0
        self.dram_start: int | None = None

    def _store(self, words: int) -> None:
        self.stored += words
        self.free -= words
        lines, self.filled = divmod(self.filled + words, self.line)
        self._close(lines, self.line)

    def _close(self, lines: int, words: int) -> None:
        if lines:
            self.closed.append([lines, words])
            self.closed_lines += lines

    def _drain(self, cycle: int) -> None:
        lines = left = min(self.drain_lines, self.closed_lines)
        self.closed_lines -= lines
        words = self.line
        while left:
            group = self.closed[0]
            taken = min(left, group[0])
            left -= taken
            group[0] -= taken
            words = group[1]
            if not group[0]:
                self.closed.popleft()
        gone = lines * self.line - (self.line - words)
        self.dram_writes += gone
        self.free += gone
        self.drain_end = cycle + lines - 1
        if self.dram_start is None:
            self.dram_start = cycle

    def _flush_line(self) -> None:
        self._close(1 if self.filled else 0, self.filled)
        self.filled = 0

    def write_row(self, row: int) -> int:
        """Take the words of one demand row; the cycles it has to wait."""
        start = cycle = row + self.stall
        end = self.arrivals.before(row + 1)
        while self.stored < end:
            draining = cycle < self.drain_end
            needed = self.free if draining else self.half + 1 - (self.size - self.free)
            words = max(needed, 1)
            if self.stored + words > end:
                self._store(end - self.stored)
                break
            self._store(words)
            if draining:  # no word of space left: wait for the drain
                cycle = self.drain_end
            else:
                self._flush_line()
                self._drain(cycle)
        return cycle - start

    def run_to(self, row: int) -> None:
        """Take the words of all demand rows before ``row``; write stalls go into ``stall``."""
        while True:
            full = self.stored + max(self.half + 1 - (self.size - self.free), 1)
            idle = self.arrivals.before(self.drain_end - self.stall) + 1
            no_space = self.stored + max(self.free, 1)
            event = no_space if no_space < idle else max(full, idle)
            if event > self.arrivals.total:
                break
            at = self.arrivals.row(event)
            if at >= row:
                break
            self._store(self.arrivals.before(at) - self.stored)
            self.stall += self.write_row(at)
        words = self.arrivals.before(row) - self.stored
        if words > 0:
            self._store(words)

    def finish(self, cycle: int) -> None:
        """Drain what is left, from ``cycle`` on; the tool does not wait for a drain that still runs."""
        self._flush_line()
        while self.closed_lines:
            self._drain(cycle)
            cycle = self.drain_end + 1
