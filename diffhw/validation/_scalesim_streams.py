"""What SCALE-Sim's array asks of its buffers: addresses in order, demand row by demand row. Host only.

A demand row is one stall-free cycle. Words of a row are asked for from the first PE lane to the
last. An operand is a matrix of ``long`` x ``extent`` addresses cut along ``extent`` into blocks as
wide as the array side that takes it:

    operand       long  extent  block width  movement
    os input      K     M       rows         streams, block of the row fold
    os weight     K     N       columns      streams, block of the column fold
    ws input      M     K       rows         streams, block of the row fold
    ws weight     K     N       columns      stays: loaded bottom row first
    is input      K     M       columns      stays: loaded bottom row first
    is weight     N     K       rows         streams, block of the row fold
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["LayerRun", "Operand", "Piece"]

NULL = -1  # what a lane without work, or a tap that overhangs the input, asks for
_PIECE = 1 << 22  # words held at a time


@dataclass(frozen=True)
class LayerRun:
    """One run of the tool: a layer, an array, buffers. Sizes in elements, buffers in KiB (both halves)."""

    ifmap_h: int
    ifmap_w: int
    filter_h: int
    filter_w: int
    channels: int
    num_filters: int
    stride_h: int
    stride_w: int
    array_rows: int
    array_cols: int
    dataflow: str
    sram_ifmap_kb: int
    sram_filter_kb: int
    sram_ofmap_kb: int
    bw_mode: str
    bw_words: int

    @property
    def out_h(self) -> int:
        """Output rows; the last window may overhang the input."""
        return -(-(self.ifmap_h - self.filter_h + self.stride_h) // self.stride_h)

    @property
    def out_w(self) -> int:
        """Output columns; the last window may overhang the input."""
        return -(-(self.ifmap_w - self.filter_w + self.stride_w) // self.stride_w)

    @property
    def mnk(self) -> tuple[int, int, int]:
        """The GEMM after im2col: output pixels, filters, taps x channels."""
        return (
            self.out_h * self.out_w,
            self.num_filters,
            self.filter_h * self.filter_w * self.channels,
        )

    @property
    def spatial(self) -> tuple[int, int, int]:
        """Extents on rows, on columns and in time."""
        m, n, k = self.mnk
        return {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[self.dataflow]

    @property
    def folds(self) -> tuple[int, int]:
        """Row folds (inner loop) and column folds (outer loop)."""
        on_rows, on_cols, _ = self.spatial
        return -(-on_rows // self.array_rows), -(-on_cols // self.array_cols)

    @property
    def fold_rows(self) -> int:
        """Demand rows of a fold."""
        fill = self.array_rows + self.array_cols - 2
        return self.spatial[2] + fill + (0 if self.dataflow == "os" else self.array_rows)

    @cached_property
    def input(self) -> "Operand":
        """The input feature map as the array asks for it, im2col duplicates and overhang included."""
        ow, c = self.out_w, self.channels
        m, k = np.arange(self.mnk[0], dtype=np.int64), np.arange(self.mnk[2], dtype=np.int64)
        pixel_row, pixel_col = m // ow * self.stride_h, m % ow * self.stride_w
        tap_row, tap_col = k // (self.filter_w * c), k // c % self.filter_w
        pixels = (pixel_row * self.ifmap_w + pixel_col) * c
        taps = (tap_row * self.ifmap_w + tap_col) * c + k % c
        overhangs = (self.out_h - 1) * self.stride_h + self.filter_h > self.ifmap_h
        overhangs |= (self.out_w - 1) * self.stride_w + self.filter_w > self.ifmap_w
        edges = (pixel_row, pixel_col, tap_row, tap_col) if overhangs else None
        if self.dataflow == "ws":
            operand = Operand(self, pixels, taps, self.array_rows, "row fold", edges)
        else:
            edges = edges and edges[2:] + edges[:2]
            flows = self.dataflow == "os"
            width = self.array_rows if flows else self.array_cols
            operand = Operand(self, taps, pixels, width, "row fold" if flows else "stays", edges)
        rows = _windows(self.out_h, self.filter_h, self.stride_h, self.ifmap_h)
        cols = _windows(self.out_w, self.filter_w, self.stride_w, self.ifmap_w)
        operand.entries, operand.distinct = rows[0] * cols[0] * c, rows[1] * cols[1] * c
        return operand

    @cached_property
    def weight(self) -> "Operand":
        """The filters as the array asks for them: tap k of filter n is word n K + k."""
        _, n, k = self.mnk
        taps, filters = np.arange(k, dtype=np.int64), np.arange(n, dtype=np.int64) * k
        if self.dataflow == "os":
            return Operand(self, taps, filters, self.array_cols, "column fold")
        if self.dataflow == "ws":
            return Operand(self, taps, filters, self.array_cols, "stays")
        return Operand(self, filters, taps, self.array_rows, "row fold")


@dataclass(frozen=True)
class Piece:
    """Part of a block's demand: addresses in order; ``rows[i]`` is over after ``ends[i]`` of them."""

    addresses: np.ndarray
    rows: np.ndarray
    ends: np.ndarray

    def row(self, position: int) -> int:
        """Demand row, counted from the block's first, of the word at ``position``."""
        return int(self.rows[np.searchsorted(self.ends, position, side="right")])


def _windows(out: int, taps: int, stride: int, size: int) -> tuple[int, int]:
    """(tap positions inside the input over all windows, how many of them differ), along one axis."""
    reach = np.add.outer(np.arange(out, dtype=np.int64) * stride, np.arange(taps))
    inside = reach[reach < size]
    return inside.size, len(np.unique(inside))


def _skewed(words: np.ndarray) -> np.ndarray:
    """Anti-diagonals as rows: out[d, x] = words[d - x, x], for d with all of d - x in range."""
    lines, width = words.shape
    step = words.strides[1]
    return np.lib.stride_tricks.as_strided(
        words[width - 1 :], (lines - width + 1, width), (width * step, (1 - width) * step), writeable=False
    )


class Operand:
    """Addresses ``along[l] + across[x]`` of one operand, and the order in which they are used."""

    def __init__(self, run: LayerRun, along, across, width: int, moves: str, edges=None):
        self.run, self.width, self.moves = run, width, moves
        self.along, self.across, self.edges = along, across, edges
        # Words asked for in one pass (duplicates counted, overhang left out), and how many differ.
        self.entries = self.distinct = len(along) * len(across)
        self.blocks = -(-len(across) // width)
        self.span = int(along.max() + across.max()) + 1
        self.dtype = np.int32 if self.span < 2**31 else np.int64

    @property
    def padded_entries(self) -> int:
        """Entries of one pass with the idle lanes of the last block and the overhang counted."""
        return self.blocks * self.width * len(self.along)

    def _words(self, lines: np.ndarray, x) -> np.ndarray:
        """Addresses at ``lines`` x ``x``, NULL where a tap overhangs."""
        words = (self.along[lines, None] + self.across[None, x]).astype(self.dtype)
        if self.edges is not None:
            row_a, col_a, row_b, col_b = self.edges
            outside = row_a[lines, None] + row_b[None, x] >= self.run.ifmap_h
            outside |= col_a[lines, None] + col_b[None, x] >= self.run.ifmap_w
            words[outside] = NULL
        return words

    def visits(self) -> Iterator[tuple[int, int]]:
        """(block, its first demand row) in order of use; a staying block covers all its row folds."""
        row_folds, col_folds = self.run.folds
        fold = self.run.fold_rows
        if self.moves == "stays":
            yield from ((col, col * row_folds * fold) for col in range(col_folds))
            return
        late = 0 if self.run.dataflow == "os" else self.run.array_rows
        for col in range(col_folds):
            for row in range(row_folds):
                block = row if self.moves == "row fold" else col
                yield block, (col * row_folds + row) * fold + late

    def demand(self, block: int) -> Iterator[Piece]:
        """The block's words in order of use, in pieces of bounded size."""
        x = slice(block * self.width, min((block + 1) * self.width, len(self.across)))
        return self._stationary(x) if self.moves == "stays" else self._streamed(x)

    def _streamed(self, x: slice) -> Iterator[Piece]:
        width, lines = x.stop - x.start, len(self.along)
        step = max(_PIECE // width, 4 * width)
        for first in range(0, lines + width - 1, step):
            stop = min(first + step, lines + width - 1)
            wanted = np.arange(first - width + 1, stop)
            words = np.full((len(wanted), width), NULL, self.dtype)
            inside = (wanted >= 0) & (wanted < lines)
            words[inside] = self._words(wanted[inside], x)
            yield _piece(_skewed(words), np.arange(first, stop))

    def _stationary(self, x: slice) -> Iterator[Piece]:
        rows, lines = self.run.array_rows, len(self.along)
        line = np.arange(lines)
        within = line % rows
        used = np.minimum(lines - (line - within), rows)
        order = line - within + (used - 1 - within)  # last line of a fold first
        at = line // rows * self.run.fold_rows + rows - used + within
        step = max(_PIECE // (x.stop - x.start), 1)
        for first in range(0, lines, step):
            part = slice(first, first + step)
            yield _piece(self._words(order[part], x), at[part])

    def fetch(self) -> Iterator[np.ndarray]:
        """Words in the order in which USER mode prefetches them: blocks stacked, nulls left out.

        Streamed operands go by anti-diagonals of the whole stack, staying ones line by line.
        """
        lines, width = len(self.along), self.width
        total, lead = self.blocks * lines, 0 if self.moves == "stays" else width - 1
        step = max(_PIECE // width, 4 * width)
        lane = np.arange(width)
        for first in range(0, total + lead, step):
            wanted = np.arange(first - lead, min(first + step, total + lead))
            words = np.full((len(wanted), width), NULL, self.dtype)
            for block in range(max(wanted[0], 0) // lines, min(wanted[-1], total - 1) // lines + 1):
                low = max(block * lines - wanted[0], 0)
                high = min((block + 1) * lines - wanted[0], len(wanted))
                x = lane[: len(self.across) - block * width] + block * width
                words[low:high, : len(x)] = self._words(wanted[low:high] - block * lines, x)
            words = _skewed(words) if lead else words
            words = words.reshape(-1)
            yield words[words != NULL]


def _piece(words: np.ndarray, rows: np.ndarray) -> Piece:
    used = words != NULL
    if used.all():
        return Piece(words.reshape(-1), rows, np.arange(1, len(rows) + 1) * words.shape[1])
    return Piece(words[used], rows, np.cumsum(used.sum(1)))
