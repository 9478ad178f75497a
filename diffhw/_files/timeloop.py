"""Timeloop's words: problem shapes, factors, permutations, which tensors a level keeps.

A loop's part follows from the file's problem: P and R of its own `cnn_layer` go with Wstride and Wdilation,
so they are our q and s, and Q and S our p and r. Without a problem these names are assumed (`CONVENTION`).
"""

import re
from pathlib import Path
from typing import Any

from diffhw._files.documents import Rows, Table, load_yaml, nearest, rows, table, tidy, whole
from diffhw._files.shapes import Shape, Slide, assign

__all__ = [
    "CONVENTION",
    "REFUSED",
    "SHAPES",
    "USUAL",
    "constraints_of",
    "factors",
    "known_shape",
    "permutation",
    "problem_shape",
    "read_top",
    "split_axes",
    "tensor_letters",
]

CONVENTION = Shape(
    loops={"R": "s", "S": "r", "P": "q", "Q": "p", "C": "c", "K": "k", "N": "n", "G": "g"},
    tensors={"Weights": "w", "Inputs": "i", "Outputs": "o"},
    steps={
        "stride_w": "Wstride",
        "stride_h": "Hstride",
        "dilation_w": "Wdilation",
        "dilation_h": "Hdilation",
    },
)
"""The usual names; M is read as K, and what we write."""

_M = Shape(
    loops={"M" if name == "K" else name: ours for name, ours in CONVENTION.loops.items()},
    tensors=CONVENTION.tensors,
    steps=CONVENTION.steps,
)
_GEMM = Shape(loops={"M": "p", "N": "k", "K": "c"}, tensors={"A": "i", "B": "w", "Z": "o"})
USUAL = (CONVENTION, _M)
SHAPES = {"cnn_layer": CONVENTION, "gemm_ABZ": _GEMM}
"""Shapes that a problem may name instead of writing them out."""

REFUSED = {
    "sparse_optimizations": "sparse_optimizations (gating, skipping, compressed formats) are",
    "layout": "data layouts (layout) are",
    "layouts": "data layouts are",
    "networks": "user-defined networks are",
    "network": "user-defined networks are",
    "noc": "user-defined networks are",
    "workload": "AccelForge's and Timeloop v5's workload format is",
    "renames": "AccelForge's and Timeloop v5's renames are",
}
_TOP = (
    "architecture",
    "arch",
    "problem",
    "mapping",
    "architecture_constraints",
    "mapspace_constraints",
    "mapspace",
    "constraints",
    "ERT",
    "ART",
    "variables",
)
_LEFT_OUT = (
    "mapper",
    "model",
    "globals",
    "components",
    "compound_components",
    "primitive_components",
    "dumped_by_timeloop_front_end",
    "processors",
    "specification",
)


def read_top(paths) -> Table:
    """All files as one table, keys with "_"; which keys belong to which file stays in the places.

    Raises ValueError for a key in two files, unknown keys, and what we do not support by name.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    merged = Table(file=", ".join(map(str, paths)))
    for path in paths:
        data = load_yaml(path)
        if not isinstance(data, Table):
            raise ValueError(f"{path} must hold a mapping of keys, found {_kind(data)}")
        for key, value in tidy(data).items():
            place = f"{path} line {data.lines.get(key) or data.line}"
            if key in REFUSED:
                raise ValueError(f"{place}: {REFUSED[key]} not supported")
            if key not in _TOP and key not in _LEFT_OUT:
                raise ValueError(f"{place}: {key!r} is no known key of a Timeloop file{nearest(key, _TOP)}")
            if key in merged:
                raise ValueError(f"{place}: the key {key!r} stands in {merged[key].file} already")
            if not isinstance(value, Table | Rows):
                value = Table(file=str(path), path=key)
            merged[key] = value
            merged.lines[key] = value.line
    return merged


def _kind(value) -> str:
    return "nothing" if value is None else "a list" if isinstance(value, list) else f"{value!r}"


def problem_shape(top: Table) -> Shape | None:
    """The shape of the problem among the files, None if there is no problem."""
    if "problem" not in top:
        return None
    problem = table(top["problem"], top.where("problem"))
    shape = problem.get("shape", "cnn_layer" if "instance" not in problem else None)
    if isinstance(shape, str):
        name = shape.lower().replace("-", "_")
        known = {key.lower(): value for key, value in SHAPES.items()} | {"cnnlayer": CONVENTION}
        if name not in known:
            raise ValueError(f"{problem.where('shape')}: unknown shape {shape!r}{nearest(shape, SHAPES)}")
        return known[name]
    if isinstance(shape, Table):
        return _written_out(shape)
    raise ValueError(
        f"{problem.where()} needs a shape: a name ({', '.join(SHAPES)}) or dimensions and data_spaces"
    )


def _written_out(shape: Table) -> Shape:
    for key in ("dimensions", "data_spaces"):
        if key not in shape:
            raise ValueError(f"{shape.where()} needs the key {key!r}{nearest(key, shape)}")
    if "flattened_indices" in shape or ":" in str(shape["dimensions"]):
        raise ValueError(f"{shape.where()}: flattened dimensions are not supported")
    dims = [str(d) for d in rows(shape["dimensions"], shape.where("dimensions"))]
    if len(set(dims)) != len(dims):
        raise ValueError(f"{shape.where('dimensions')} names a loop twice: {', '.join(dims)}")
    coefficients = shape.get("coefficients")
    coefficients = Rows() if coefficients is None else rows(coefficients, shape.where("coefficients"))
    known = {str(one.get("name")) for one in coefficients if isinstance(one, dict)}
    plain: dict[str, set] = {}
    sliding: dict[str, list] = {}
    output = ""
    spaces = rows(shape["data_spaces"], shape.where("data_spaces"))
    for index, space in enumerate(spaces):
        space = table(space, spaces.where(index))
        name = str(space.get("name", ""))
        if name in plain:
            raise ValueError(f"{spaces.where(index)}: two data spaces are called {name!r}")
        plain[name], sliding[name] = _projection(space, dims, known)
        if space.get("read_write", False) in (True, "true", "True"):
            if output:
                raise ValueError(
                    f"{spaces.where(index)}: {output!r} and {name!r} are both outputs, one is supported"
                )
            output = name
    others = [name for name in plain if name != output]
    if not output or len(others) != 2:
        raise ValueError(
            f"{shape.where('data_spaces')} must be two inputs and one output (read_write: True), "
            f"got {', '.join(plain) or 'none'}"
        )
    data = next((name for name in others if sliding[name]), "")
    for name in () if data else others:
        if name.lower().startswith(("input", "ifmap", "act")):
            data = name
    data = data or next((n for n in others if not n.lower().startswith(("weight", "filter"))), others[0])
    weights = next(name for name in others if name != data)
    for name in (weights, output):
        if sliding[name]:
            raise ValueError(
                f"{shape.where('data_spaces')}: sums of loops may index one tensor only, {name!r} has "
                "them too"
            )
    pairs = []
    for terms, where in sliding[data]:
        out = [term for term in terms if term[0] in plain[output]]
        taps = [term for term in terms if term[0] in plain[weights]]
        if len(terms) > 2 or len(out) > 1 or len(taps) > 1 or len(out) + len(taps) != len(terms):
            raise ValueError(
                f"{where}: an index of the input must be stride x output loop + dilation x filter loop"
            )
        pairs.append((out[0] if out else ("", 1), taps[0] if taps else ("", 1)))
    slides = _slides(pairs)
    index_inputs = plain[data] | {dim for one in slides for dim in (one.out, one.taps)}
    loops, steps = assign(shape.where(), dims, plain[weights], index_inputs, plain[output], slides)
    return Shape(loops=loops, tensors={weights: "w", data: "i", output: "o"}, steps=steps)


def _projection(space: Table, dims, known) -> tuple[set[str], list]:
    """(loops that index alone, [(terms of a sum, where)])."""
    plain: set[str] = set()
    sums = []
    projection = rows(space.get("projection"), space.where("projection"))
    for index, one in enumerate(projection):
        terms = []
        for term in rows(one, projection.where(index)):
            dim, *coefficient = term if isinstance(term, list) else [term]
            if str(dim) not in dims:
                raise ValueError(f"{projection.where(index)}: unknown loop {str(dim)!r}{nearest(dim, dims)}")
            for name in coefficient:
                if not isinstance(name, int) and str(name) not in known:
                    raise ValueError(
                        f"{projection.where(index)}: unknown coefficient {str(name)!r}{nearest(name, known)}"
                    )
            terms.append((str(dim), coefficient[0] if coefficient else 1))
        if len(terms) == 1 and terms[0][1] == 1:
            plain.add(terms[0][0])
        else:
            sums.append((terms, projection.where(index)))
    return plain, sums


def _slides(pairs: list[tuple[tuple, tuple]]) -> list[Slide]:
    """Axes of the input: named by their coefficients, by the usual loops where none is."""
    axes = []
    for out, taps in pairs:
        names = [str(name).lower() for name in (out[1], taps[1]) if not isinstance(name, int)]
        across = any(name.startswith(("w", "x")) for name in names)
        down = any(name.startswith(("h", "y")) for name in names)
        axes.append("w" if across else "h" if down else "")
    if not any(axes):
        loops = [{str(out[0]).upper(), str(taps[0]).upper()} for out, taps in pairs]
        axes = ["w" if one & {"P", "R"} else "h" if one & {"Q", "S"} else "" for one in loops]
    return [
        Slide(axis, str(out[0]), str(taps[0]), out[1], taps[1])
        for axis, (out, taps) in zip(axes, pairs, strict=True)
    ]


def known_shape(found: Shape | None, names: set[str]) -> Shape:
    """``found``, else the usual names with K or M, whichever ``names`` has."""
    if found is not None:
        return found
    return _M if "M" in names and "K" not in names else CONVENTION


_FACTOR = re.compile(r"\s*([A-Za-z_]+)\s*(<=|>=|=|<|>)?\s*(\d+)\s*(,\s*\d+)?")


def factors(value: Any, where: str) -> dict[str, int]:
    """{the file's loop: factor} of "C1 M8", "C=1,M=8", a list of such, or a table.

    Raises ValueError for a loop that stands twice, residuals ("C8,3"), inequalities and what is no factor.
    """
    if isinstance(value, Table):
        return {str(dim): whole(factor, f"{where}: factor of {dim}", 0) for dim, factor in value.items()}
    text = " ".join(str(one) for one in value) if isinstance(value, list) else str(value or "")
    found: dict[str, int] = {}
    place = 0
    while place < len(text):
        if text[place] in " ,\t\n":
            place += 1
            continue
        match = _FACTOR.match(text, place)
        if match is None:
            raise ValueError(f"{where}: {text[place:][:20]!r} is no factor; write C=8 or C8")
        dim, sign, number, residual = match.groups()
        if residual is not None:
            raise ValueError(
                f"{where}: residual factors ({match[0].strip()!r}, imperfect 'ruby' tiles) are not supported"
            )
        if sign not in (None, "="):
            raise ValueError(f"{where}: {match[0].strip()!r} is a bound, only fixed factors are supported")
        if dim in found:
            raise ValueError(f"{where}: the loop {dim!r} has two factors, {found[dim]} and {number}")
        found[dim] = int(number)
        place = match.end()
    return found


def permutation(value: Any, where: str, dims) -> list[str]:
    """The file's loops, innermost first, of "CMRS", "C M R S" or a list."""
    if isinstance(value, list):
        names = [str(one) for one in value]
    else:
        names = []
        for word in re.split(r"[\s,]+", str(value or "").strip()):
            names += [word] if word in dims else list(word)
    for name in names:
        if name not in dims:
            raise ValueError(f"{where}: unknown loop {name!r}{nearest(name, dims)}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{where}: the permutation names the loop {twice!r} twice")
    return names


def split_axes(order: list[str], dims, split) -> tuple[list[str], list[str]]:
    """(along X, along Y) of the loops of a fan-out: the first ``split`` loops of the permutation go along X.

    Loops that the permutation leaves out come after it, as Timeloop completes it.
    """
    full = [*order, *(dim for dim in dims if dim not in order)]
    return full[:split], full[split:]


def tensor_letters(value: Any, shape: Shape, where: str) -> str:
    """Our letters of a list of data spaces (or one, or "*" for all)."""
    found = ""
    for name in value if isinstance(value, list) else [] if value is None else [value]:
        if str(name) == "*":
            return "wio"
        if str(name) not in shape.tensors:
            raise ValueError(f"{where}: unknown data space {str(name)!r}{nearest(name, shape.tensors)}")
        found += shape.tensors[str(name)]
    return found


def constraints_of(top: Table) -> list[Table]:
    """The single constraints of all keys that may hold them, each with "target" and "type"."""
    found = []
    for key in ("architecture_constraints", "mapspace_constraints", "constraints", "mapspace"):
        if key not in top:
            continue
        held: Any = top[key]
        if isinstance(held, Table):
            for inner in ("targets", "constraints"):
                if isinstance(held.get(inner), str):  # an old form: the name of another key
                    held = held.get(f"{inner}_{held[inner]}", Rows(file=held.file))
                    break
                if inner in held:
                    held = held[inner]
                    break
            else:
                held = Rows(file=held.file)
        for index, one in enumerate(rows(held, top.where(key))):
            one = table(one, held.where(index))
            if "target" not in one or "type" not in one:
                raise ValueError(f"{one.where()} needs the keys 'target' and 'type'")
            found.append(one)
    return found
