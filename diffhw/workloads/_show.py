"""How layers and networks show themselves: a text table in a terminal, an HTML table in a notebook.

Works on anything with the fields of `Layer` and `Network`; values that are traced or batched have no
numbers to print, and fall back to their shapes.
"""

import html

import numpy as np

__all__ = ["layer_text", "network_html", "network_text", "totals"]

_SIZES = ("n", "g", "k", "c", "p", "q", "r", "s")
_ONES = (*_SIZES, "stride_h", "stride_w", "dilation_h", "dilation_w")
_HEADS = ("layer", "count", "g", "k", "c", "p x q", "r x s", "stride", "MACs", "params", "operands")
_SHOWN = 12


def _concrete(value, ndim: int) -> np.ndarray | None:
    """``value`` as float64 if it is a plain array of that rank, else None (traced, batched, placeholder)."""
    try:
        array = np.asarray(value, np.float64)
    except Exception:  # a tracer or any placeholder a transform puts into the tree
        return None
    return array if array.ndim == ndim else None


def _columns(network) -> dict[str, np.ndarray] | None:
    """Columns of the real rows, or None where there is nothing concrete to show."""
    mask = _concrete(network.mask, 1)
    if mask is None:
        return None
    real = mask > 0
    columns = {"count": _concrete(network.count, 1)}
    for name in (*_ONES, "weight_is_activation"):
        columns[name] = _concrete(getattr(network.layers, name, None), 1)
    if any(column is None or column.shape != mask.shape for column in columns.values()):
        return None
    return {name: column[real] for name, column in columns.items()}  # ty: ignore[not-subscriptable]


def _products(columns) -> tuple[np.ndarray, np.ndarray]:
    """MACs and weight words of one run of each row."""
    macs = np.prod([columns[name] for name in _SIZES], axis=0)
    return macs, columns["g"] * columns["k"] * columns["c"] * columns["r"] * columns["s"]


def totals(network) -> dict[str, int]:
    """Exact integers of a concrete network (float64 products are exact to 2**53)."""
    columns = _columns(network)
    if columns is None:
        raise ValueError("summary() needs one concrete network, got a traced or batched one")
    macs, words = _products(columns)
    fixed = 1 - columns["weight_is_activation"]
    add = lambda values: sum(round(v) for v in values * columns["count"])
    return {
        "rows": len(macs),
        "macs": add(macs),
        "macs_without_attention": add(macs * fixed),
        "params": add(words * fixed) + round(float(network.other_params)),
    }


def _short(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{value:g}"


def _table(network, limit: int):
    """(title, rows of cells, rows left out), or None."""
    columns = _columns(network)
    if columns is None:
        return None
    macs, words = _products(columns)
    sums, info = totals(network), network.info
    names = network.names
    rows = []
    for i in range(min(limit, len(macs))):
        get = lambda name, i=i: f"{columns[name][i]:g}"
        computed = columns["weight_is_activation"][i] > 0
        rows.append(
            (
                names[i],
                get("count"),
                get("g"),
                get("k"),
                get("c"),
                f"{get('p')} x {get('q')}",
                f"{get('r')} x {get('s')}",
                f"{get('stride_h')} x {get('stride_w')}",
                _short(macs[i] * columns["count"][i]),
                "0" if computed else _short(words[i] * columns["count"][i]),
                "two activations" if computed else "weights",
            )
        )
    title = (
        f"{info.name}: {sums['rows']} layer rows, {_short(sums['macs'])} MACs "
        f"({_short(sums['macs_without_attention'])} without products of two activations), "
        f"{_short(sums['params'])} params"
    )
    return title, rows, len(macs) - len(rows)


def _fallback(network) -> str:
    shape = getattr(network.mask, "shape", "?")
    return f"Network(traced, batched or abstract; mask of shape {shape})"


def layer_text(layer) -> str:
    """``Layer(k=64, c=3, ...)``: fields that differ from a 1x1 product of one, or shapes when traced."""
    parts = []
    for name, default in (
        *((name, 1.0) for name in (*_SIZES, "h", "w")),
        ("pad_top", 0.0),
        ("pad_left", 0.0),
        *((name, 1.0) for name in _ONES[len(_SIZES) :]),
        ("weight_is_activation", 0.0),
    ):
        value = getattr(layer, name, None)
        number = _concrete(value, 0)
        if number is None:
            parts.append(f"{name}={getattr(value, 'shape', value)}")
        elif number != default:
            parts.append(f"{name}={float(number):g}")
    return f"Layer({', '.join(parts)})"


def network_text(network) -> str:
    """Title line, one line per layer row (the first ones), notes."""
    table = _table(network, _SHOWN)
    if table is None:
        return _fallback(network)
    title, rows, left = table
    cells = [_HEADS, *rows]
    widths = [min(max(len(row[i]) for row in cells), 40) for i in range(len(_HEADS))]

    def line(row):
        first = f"{row[0][:40]:<{widths[0]}}"
        return "  ".join([first, *(f"{cell:>{size}}" for cell, size in zip(row[1:], widths[1:]))]).rstrip()

    lines = [title, *(line(row) for row in cells)]
    if left:
        lines.append(f"... and {left} more")
    lines += [f"note: {note}" for note in network.info.notes]
    return "\n".join(lines)


def network_html(network) -> str:
    """The same as an HTML table."""
    table = _table(network, 2 * _SHOWN)
    if table is None:
        return f"<code>{html.escape(_fallback(network))}</code>"
    title, rows, left = table
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in _HEADS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    more = f"<p>... and {left} more</p>" if left else ""
    notes = "".join(f"<p><em>{html.escape(note)}</em></p>" for note in network.info.notes)
    return f"<p><b>{html.escape(title)}</b></p><table><tr>{head}</tr>{body}</table>{more}{notes}"
