"""Networks of MAESTRO's ``.m`` files and of the CSV files of the searchers built on it.

Y and X are input sizes with the padding already in them; padding itself cannot be said.

| Type | T in CSV | layer |
|---|---|---|
| CONV | 1 | N K C R S Y X, or Y' X' in place of Y X |
| DSCONV | 2 | depthwise: C groups, one filter each |
| GEMM | 3 | M x K times K x N (CSV columns K, C, Y hold M, N, K) |
"""

import csv
import re
from pathlib import Path

from diffhw.workloads._layer import Layer, Network, NetworkInfo, layer_numbers
from diffhw.workloads._maestro_text import MaestroLayer, nearest, read_maestro_text

__all__ = ["is_maestro_csv", "read_maestro", "read_maestro_csv"]

_TYPES = {
    "CONV": ("K", "C", "R", "S", "Y", "X"),
    "DSCONV": ("C", "R", "S", "Y", "X"),
    "GEMM": ("M", "N", "K"),
}
_INSTEAD = {
    "TRCONV": "MAESTRO costs it as CONV; write CONV with the input it has after zeros are put in",
    "NGCONV": "MAESTRO couples its channels wrongly; write DSCONV if depthwise, else one CONV of "
    "K filters and C/G channels per group",
    "FC": "write GEMM with M samples, K inputs, N outputs",
    "LSTM": "write one GEMM with M samples, K inputs plus state, N four times the state",
    "POOL": "it has no MACs; leave it out",
}
_COLUMNS = ("K", "C", "Y", "X", "R", "S", "T")


def _layer(raw: MaestroLayer, path) -> dict:
    """Numbers of a `Layer`, or one sentence saying what the raw one lacks."""
    place = f"{path}, line {raw.line}, layer {raw.name}"
    if raw.kind in _INSTEAD:
        raise ValueError(f"{place}: type {raw.kind} is not read: {_INSTEAD[raw.kind]}")
    if raw.kind not in _TYPES:
        raise ValueError(f"{place}: unknown type {raw.kind!r}; {nearest(raw.kind, _TYPES)}")
    z, wanted = raw.dims, _TYPES[raw.kind]
    for axis, window in (("Y", "R"), ("X", "S")):
        if f"{axis}'" in z:
            if axis in z:
                raise ValueError(f"{place}: give {axis} (input) or {axis}' (output), not both")
            z = z | {axis: z[f"{axis}'"] + z.get(window, 1) - 1}
    missing = [dim for dim in wanted if dim not in z]
    if missing:
        raise ValueError(
            f"{place}: Dimensions lack {', '.join(missing)}; {raw.kind} needs {', '.join(wanted)}"
        )
    foreign = [dim for dim in raw.dims if dim.rstrip("'") not in (*wanted, "N", "G", "K")]
    if foreign:
        raise ValueError(
            f"{place}: {foreign[0]} is no dimension of {raw.kind}, which has {', '.join(wanted)}"
        )
    if z.get("G", 1) > 1:
        raise ValueError(f"{place}: G groups are not read in {raw.kind}; {_INSTEAD['NGCONV']}")
    if raw.kind == "DSCONV" and z.get("K", 1) > 1:
        raise ValueError(f"{place}: K = {z['K']} filters per channel, DSCONV has one: leave K out or write 1")
    if raw.kind == "GEMM":
        return layer_numbers(p=z["M"], q=1, c=z["K"], k=z["N"])
    if z["R"] > z["Y"] or z["S"] > z["X"]:
        size = f"{z['Y']} x {z['X']}"
        raise ValueError(f"{place}: the {z['R']} x {z['S']} filter does not fit the {size} input")
    depthwise = raw.kind == "DSCONV"
    return layer_numbers(
        n=z.get("N", 1),
        g=z["C"] if depthwise else 1,
        k=1 if depthwise else z["K"],
        c=1 if depthwise else z["C"],
        r=z["R"],
        s=z["S"],
        h=z["Y"],
        w=z["X"],
        stride_h=raw.stride.get("Y", 1),
        stride_w=raw.stride.get("X", 1),
    )


def _network(path: Path, layers: list[dict], names: list[str], what: str, notes: tuple[str, ...]) -> Network:
    info = NetworkInfo(
        name=path.stem,
        names=tuple(names),
        edges=tuple((i, i + 1) for i in range(len(layers) - 1)),
        source=f"{what} {path.name}",
        notes=notes,
    )
    return Network.create([Layer(**numbers) for numbers in layers], info=info)


def read_maestro(path) -> Network:
    """Network of a MAESTRO ``.m`` file; its dataflows, if any, are read by `mappings.read_programs`.

    Raises ValueError naming file, line, word and rule: unknown words, glued braces, sections out of order
    (Type, Stride, Dimensions, Dataflow), sizes missing or below 1, types that are not read (with what to
    write in their place), no layers.
    """
    file = read_maestro_text(path)
    layers = [_layer(raw, file.path) for raw in file.layers]
    notes = ("input sizes are those of the file, padding already in them",)
    return _network(file.path, layers, [raw.name for raw in file.layers], "MAESTRO network", notes)


def is_maestro_csv(path) -> bool:
    """Whether the first line of a CSV file is ``K,C,Y,X,R,S,T``."""
    try:
        with Path(path).open(encoding="utf-8-sig", errors="replace") as file:
            header = file.readline()
    except OSError:
        return False
    return tuple(re.sub(r"[\s\"]", "", header).rstrip(",").split(",")) == _COLUMNS


def read_maestro_csv(path) -> Network:
    """Network of a model file of GAMMA and its kin: columns ``K,C,Y,X,R,S,T``, no strides.

    Raises ValueError naming file, line and column.
    """
    path = Path(path)
    if not is_maestro_csv(path):
        raise ValueError(f"{path}: expected the header {','.join(_COLUMNS)}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    layers = []
    for line, row in enumerate(rows[1:], 2):
        cells = [cell.strip() for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        if len(cells) != len(_COLUMNS):
            raise ValueError(f"{path}, line {line}: {len(cells)} columns, expected {','.join(_COLUMNS)}")
        for column, cell in zip(_COLUMNS, cells):
            if not (cell.isascii() and cell.isdigit() and int(cell) >= 1):
                raise ValueError(
                    f"{path}, line {line}, column {column!r}: must be a whole number >= 1, got {cell!r}"
                )
        z = dict(zip(_COLUMNS, map(int, cells)))
        kind = {1: "CONV", 2: "DSCONV", 3: "GEMM", 4: "FC"}.get(z.pop("T"))
        if kind is None:
            raise ValueError(
                f"{path}, line {line}, column 'T': must be 1 (CONV), 2 (DSCONV) or 3 (GEMM), got {cells[-1]}"
            )
        if kind == "DSCONV":
            z.pop("K")  # the searchers ignore it there
        elif kind == "GEMM":
            z = {"M": z["K"], "N": z["C"], "K": z["Y"]}
        layers.append(_layer(MaestroLayer(f"layer{len(layers)}", kind, line, {}, z, None), path))
    if not layers:
        raise ValueError(f"{path}: a header but no layers")
    notes = ("sizes are those of the file: no strides there, padding already in the inputs",)
    return _network(path, layers, [f"layer{i}" for i in range(len(layers))], "searcher's model file", notes)
