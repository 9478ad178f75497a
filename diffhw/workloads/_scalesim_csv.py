"""SCALE-Sim topology files: reader and writer.

Convolution rows are ``name, ifmap h, ifmap w, filter h, filter w, channels, filters, stride[, stride w]``,
matrix-product rows ``name, M, N, K``. Inputs are already padded there, and outputs are
``E = ceil((H - f + s) / s)``, so the last window may overhang the input.
"""

import csv
import os
import re
from pathlib import Path

import numpy as np

from diffhw.workloads._layer import LAYER_FIELDS, Layer, Network, NetworkInfo, layer_numbers

__all__ = ["read_scalesim", "write_scalesim"]

_CONV = (
    *("IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width"),
    *("Channels", "Num Filter", "Strides"),
)
_GEMM = ("M", "N", "K")
_SPARSITY = re.compile(r"\d+\s*:\s*\d+")
_MOST_ROWS = 100_000


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of the lines that hold anything, trailing empty cells cut."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
        # Some shipped topologies are separated by tabs.
        delimiter = "\t" if "\t" in text and "," not in text else ","
        reader = csv.reader(text.splitlines(), delimiter=delimiter)
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable text file ({error})") from error
    kept = []
    for line, cells in rows:
        while cells and not cells[-1]:
            cells.pop()
        if cells and not cells[0].startswith("#"):
            kept.append((line, cells))
    if not kept:
        raise ValueError(f"{path}: empty file, expected a header line and one line per layer")
    return kept


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _size(text: str, path: Path, line: int, column: str) -> int:
    """A whole number >= 1, or one sentence saying where it is not."""
    place = f"{path}, line {line}, column {column!r}"
    if not _is_number(text):
        raise ValueError(f"{place}: {text!r} is not a number, a whole number >= 1 is needed")
    value = float(text)
    if not (value >= 1 and value.is_integer()):
        raise ValueError(f"{place}: must be a whole number >= 1, got {text}")
    return int(value)


def _refuse_sparsity(text: str, path: Path, line: int, column: str) -> None:
    parts = [part.strip() for part in text.split(":")]
    if text and not (len(parts) == 2 and parts[0] == parts[1] and parts[0].isdigit()):
        raise ValueError(
            f"{path}, line {line}, column {column!r}: {text!r} is N:M sparsity, which is not modelled; "
            f"remove the column to read the layer as dense"
        )


def _cells(cells, names, header, path, line) -> list[int]:
    """The sizes under ``names``: position and name of each are (index, shown name)."""
    if len(cells) <= max(index for index, _ in names):
        missing = [name for index, name in names if index >= len(cells)]
        raise ValueError(f"{path}, line {line}: {len(cells)} columns, missing {', '.join(missing)}")
    return [
        _size(cells[index], path, line, header[index] if index < len(header) else name)
        for index, name in names
    ]


def _conv(name: str, sizes: list[int], stride_w: int, path: Path, line: int) -> dict:
    h, w, r, s, channels, filters, stride = sizes
    p, q = -(-(h - r + stride) // stride), -(-(w - s + stride_w) // stride_w)
    if p < 1 or q < 1:
        raise ValueError(f"{path}, line {line}: the {r} x {s} filter does not fit the {h} x {w} input")
    per_channel = "DP" in name  # the tool expands such a row to one layer per channel
    return layer_numbers(
        g=channels if per_channel else 1,
        k=filters,
        c=1 if per_channel else channels,
        p=p,
        q=q,
        r=r,
        s=s,
        h=h,
        w=w,
        stride_h=stride,
        stride_w=stride_w,
    )


def read_scalesim(path, *, gemm: bool | None = None) -> Network:
    """Network of a SCALE-Sim topology file.

    gemm: whether rows are matrix products; None decides by the header (columns named M, N and K).

    With or without trailing commas, blank and all-comma lines, extra columns, remarks that start with #,
    tabs in place of commas, byte-order mark, CRLF. What
    stands behind the stride is decided by its header: a column stride, sparsity (refused unless N:N), or
    something to ignore; without a header, ``N:M`` is refused as sparsity and a number is the column stride.
    A layer whose name holds ``DP`` is depthwise: one layer per channel, as in the tool.

    Raises ValueError naming file, line and column: text, zero, negative or NaN where a size belongs, missing
    columns, no header, no layers, an empty or missing file.
    """
    path = Path(path)
    (first, header), *body = _rows(path)
    if len(header) > 1 and all(_is_number(cell) for cell in header[1:4]):
        raise ValueError(
            f"{path}, line {first}: header line missing, it would be read as a layer by SCALE-Sim"
        )
    plain = [re.sub(r"[^a-z]", "", cell.lower()) for cell in header]
    if gemm is None:
        gemm = {"m", "n", "k"} <= set(plain)
    if gemm:
        named = {"m", "n", "k"} <= set(plain)
        columns = [(plain.index(n.lower()) if named else i, n) for i, n in enumerate(_GEMM, 1)]
    else:
        columns = list(enumerate(_CONV, 1))
    last = max(index for index, _ in columns) + 1
    if not body:
        raise ValueError(f"{path}: a header but no layers")
    rows, names, notes = [], [], []
    for line, cells in body:
        name = cells[0] or f"layer{len(rows)}"
        sizes = _cells(cells, columns, header, path, line)
        stride_w = sizes[-1]
        for index in range(last, len(cells)):
            title, text = (header[index] if index < len(header) else ""), cells[index]
            words = title.lower()
            if text.startswith("#"):  # a remark, as in the shipped mobilenet
                break
            if "spars" in words or (not title and _SPARSITY.fullmatch(text)):
                _refuse_sparsity(text, path, line, title or f"{index + 1}")
            elif not gemm and text and ("stride" in words or (not title and index == last)):
                stride_w = _size(text, path, line, title or f"{index + 1}")
        if gemm:
            m, n, k = sizes
            rows.append(layer_numbers(p=m, q=1, c=k, k=n))
        else:
            rows.append(_conv(name, sizes, stride_w, path, line))
        names.append(name)
    if not gemm:
        notes.append("input sizes are those of the file, padding already in them")
        if any("DP" in name for name in names):
            notes.append("rows named DP are depthwise: one layer per channel, here g = channels")
    return Network.create(
        [Layer(**numbers) for numbers in rows],
        info=NetworkInfo(
            name=path.stem,
            names=tuple(names),
            edges=tuple((i, i + 1) for i in range(len(rows) - 1)),
            source=f"SCALE-Sim topology {path.name}",
            notes=tuple(notes),
        ),
    )


def _padded(size: int, pad: int, outputs: int, taps: int, stride: int) -> int:
    """Input size to write: the real one if the tool finds the same outputs in it, else what windows touch."""
    if pad == 0 and -(-(size - taps + stride) // stride) == outputs:
        return size
    return (outputs - 1) * stride + taps


def _expressed(z: dict, notes: list[str]) -> tuple[list[int], int, bool]:
    """(cells of the row, how often to repeat it, whether it is depthwise)."""

    def note(text):
        if text not in notes:
            notes.append(text)

    n, g, k, c, p, q, r, s = (z[name] for name in ("n", "g", "k", "c", "p", "q", "r", "s"))
    stride_h, stride_w = z["stride_h"], z["stride_w"]
    if z["weight_is_activation"]:
        note("that a second operand is computed (attention) cannot be said: it becomes a filter")
    if z["dilation_h"] > 1 or z["dilation_w"] > 1:
        note("dilated convolutions are written as matrix products: MACs exact, input words those of im2col")
        c, r, s, stride_h, stride_w = c * r * s, 1, 1, 1, 1
        h, w = p, q
    else:
        h = _padded(z["h"], z["pad_top"], p, r, stride_h)
        w = _padded(z["w"], z["pad_left"], q, s, stride_w)
        if (h, w) != (z["h"], z["w"]):
            note(
                "padding is written into the input size; rows and columns that no window touches are left out"
            )
    if n > 1 and (r, s) == (1, 1):
        note("a batch of 1 x 1 products is written as more rows of the input")
        h, w, stride_h, stride_w, n = n * p, q, 1, 1, 1
    elif n > 1:
        note("a batch cannot be said: the layer is repeated once per sample")
    depthwise = g > 1 and c == 1
    if g > 1 and not depthwise:
        note("groups cannot be said: the layer is repeated once per group")
    cells = [h, w, r, s, g if depthwise else c, k, stride_h, stride_w]
    return cells, n * (1 if depthwise else g), depthwise


def write_scalesim(network: Network, path) -> tuple[str, ...]:
    """Write a network as a SCALE-Sim topology in convolution form; returns what the format cannot say.

    Matrix products become 1 x 1 convolutions (M rows, one column, K channels, N filters). Depthwise layers
    get ``DP`` in their name and one row (channels = g, filters per channel = k). Batches, groups and counts
    become repeated rows. Two strides need a ninth column, which SCALE-Sim v2 reads and v3 does not. Reading
    the file gives the same MACs; operators, edges and ``other_params`` are lost.

    Raises ValueError for sizes that are no whole numbers, for more than 100,000 rows, or if the file cannot
    be written; nothing is half-written.
    """
    path, notes, lines = Path(path), [], []
    columns = {field: np.asarray(getattr(network.layers, field), float) for field in LAYER_FIELDS}
    counts = np.asarray(network.count, float)
    for row, (name, count) in enumerate(zip(network.names, counts)):
        numbers = {field: column[row] for field, column in columns.items()}
        if not all(value % 1 == 0 for value in (*numbers.values(), count)):
            raise ValueError(f"layer {name!r} has sizes that are no whole numbers; harden the network first")
        cells, repeats, depthwise = _expressed({f: int(v) for f, v in numbers.items()}, notes)
        if count > 1:
            text = "layers that run several times are repeated"
            notes += [] if text in notes else [text]
        repeats *= int(count)
        plain = re.sub(r"[,\r\n\"]", ";", name).strip() or "layer"
        # DP anywhere in a name makes the tool expand the row.
        plain = f"{plain.replace('DP', 'D_P')}_DP" if depthwise else plain.replace("DP", "D_P")
        if len(lines) + repeats > _MOST_ROWS:
            raise ValueError(
                f"{name!r} brings the file to more than {_MOST_ROWS} rows (batch, groups or counts)"
            )
        for i in range(repeats):
            lines.append((f"{plain}_{i + 1}of{repeats}" if repeats > 1 else plain, cells))
    two_strides = any(cells[6] != cells[7] for _, cells in lines)
    if two_strides:
        notes.append("two different strides need a ninth column, which SCALE-Sim v2 reads and v3 does not")
    header = ["Layer name", *_CONV, *(["Strides Width"] if two_strides else [])]
    text = ", ".join(header) + ",\n"
    for name, cells in lines:
        text += ", ".join([name, *map(str, cells if two_strides else cells[:7])]) + ",\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ValueError(f"{path}: cannot be written ({error.strerror or error})") from error
    return tuple(notes)
