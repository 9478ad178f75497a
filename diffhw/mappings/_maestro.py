"""MAESTRO's directive language: text to `Program`. Printing is ``str(program)``.

Knows the token rules of `workloads` (same floor: a dataflow stands inside the layer of a network file).
Where MAESTRO crashes, reads uninitialised memory or rejects a file without saying why, we say it.
"""

from diffhw.mappings._program import CONV_DIMENSIONS, DIMENSIONS, Map, Program, ProgramLevel, Sz, find_problem
from diffhw.workloads._maestro_text import (
    MaestroLayer,
    Token,
    check_brace,
    fail,
    nearest,
    number,
    read_maestro_text,
    tokens,
)

__all__ = ["parse", "read_programs"]

_KINDS = {"TemporalMap": "temporal", "SpatialMap": "spatial"}


def parse(text: str, constants: dict[str, int] | None = None, name: str = "", source="text") -> Program:
    """Program of a text of directives, or of a whole ``Dataflow { ... }``.

    constants: values of the names that may stand in place of sizes (put in: printing shows numbers).
    source: what errors call the text.

    Raises ValueError naming source, line, word and rule: unknown words, sizes below 1, levels without or
    with more than two SpatialMaps, a dimension twice in a level, Y' or X' without R or S in its level, part
    of R or S in time, dimensions of matrix products beside those of convolutions, empty or too many levels.

    >>> print(parse("SpatialMap(1,1) K; TemporalMap(T,T) C", {"T": 16}))
    SpatialMap(1,1) K;
    TemporalMap(16,16) C;
    """
    words = tokens(text)
    if words and words[0].text.startswith("Dataflow"):
        check_brace(source, words[0])
        for token in words[1:2]:
            check_brace(source, token)
        if len(words) < 2 or words[1].text != "{":
            fail(source, words[0], "'{' is missing after Dataflow")
        check_brace(source, words[-1])
        if words[-1].text != "}":
            fail(source, words[-1], "'}' is missing at the end of Dataflow")
        words = words[2:-1]
    return _parse(words, constants or {}, name, source)


def _parse(words, constants: dict[str, int], name: str, source) -> Program:
    """The same from tokens, which know their lines."""
    if not words:
        raise ValueError(f"{source}: no directives, expected TemporalMap, SpatialMap and Cluster")
    rest = list(reversed(words))
    units: list[int | Sz | None] = [None]
    maps: list[list[Map]] = [[]]
    starts, places = [words[0]], [[]]  # tokens to blame: of levels and of maps

    def take() -> Token | None:
        return rest.pop() if rest else None

    def dimension(after: Token, what: str) -> str:
        token = take()
        if token is None:
            fail(source, after, f"{what} is missing at the end of the text")
        check_brace(source, token)
        if token.text not in DIMENSIONS:
            fail(source, token, f"no dimension ({what} is expected here); {nearest(token.text, DIMENSIONS)}")
        return token.text

    def size(after: Token, what: str) -> int | Sz:
        token = take()
        if token is None:
            fail(source, after, f"{what} is missing at the end of the text")
        if token.text == "Sz":
            return Sz(dimension(after, "the dimension of Sz"))
        return number(source, token, constants, what)

    while (token := take()) is not None:
        check_brace(source, token)
        if token.text == "Cluster":
            units.append(size(token, "the size of Cluster"))
            kind = take()
            if kind is None or kind.text not in ("P", "L"):
                fail(source, kind or token, "after the size of a Cluster stands P or L: Cluster(8, P)")
            maps.append([])
            starts.append(token)
            places.append([])
        elif token.text in _KINDS:
            extent = size(token, f"the size of {token.text}")
            step = size(token, f"the offset of {token.text}")
            over = dimension(token, f"the dimension of {token.text}")
            maps[-1].append(Map(_KINDS[token.text], extent, step, over))
            places[-1].append(token)
        else:
            fail(source, token, f"no directive; {nearest(token.text, (*_KINDS, 'Cluster'))}")
    levels = tuple(ProgramLevel(tuple(some), count) for some, count in zip(maps, units))
    problem = find_problem(levels)
    if problem is not None:
        level, index, sentence = problem
        blamed = starts[level] if index is None else places[level][index]
        shown = "" if index is None else f"{levels[level].maps[index]}: "
        fail(source, blamed, f"{shown}{sentence}")
    return Program(levels, name)


def read_programs(path) -> dict[str, Program]:
    """The dataflows of a MAESTRO ``.m`` file by the names of its layers, for `fit` with `read_maestro`.

    Raises ValueError as `parse` does, and for a layer without Dataflow (MAESTRO documents that it inherits
    the one before, and aborts) or a TemporalMap over a part of R or S.
    """
    file = read_maestro_text(path)
    programs: dict[str, Program] = {}
    for layer in file.layers:
        place = f"{file.path}, line {layer.line}, layer {layer.name}"
        if layer.directives is None:
            raise ValueError(
                f"{place}: no Dataflow; write one in each layer, or use the network alone with mappings.style"
            )
        if not layer.directives:
            raise ValueError(f"{place}: its Dataflow is empty")
        program = _parse(layer.directives, file.constants, layer.name, file.path)
        programs[layer.name] = _for_layer(program, layer, place)
    return programs


def _for_layer(program: Program, layer: MaestroLayer, place: str) -> Program:
    """Rules that need the layer: its type, and windows taken whole."""
    maps = [one for level in program.levels for one in level.maps]
    gemm = layer.kind == "GEMM"
    for one in maps:
        if one.dim not in (("M", "N", "K") if gemm else CONV_DIMENSIONS):
            raise ValueError(f"{place}: {one}: {layer.kind} has no dimension {one.dim}")
        full = layer.dims.get(one.dim)
        size = layer.dims.get(one.size.dim) if isinstance(one.size, Sz) else one.size
        if one.kind == "temporal" and one.dim in ("R", "S") and size != full:
            raise ValueError(
                f"{place}: {one}: MAESTRO wants all {full} of {one.dim} in a TemporalMap; "
                f"write TemporalMap(Sz({one.dim}),Sz({one.dim})) {one.dim}"
            )
    if gemm and all(one.dim != "M" for one in maps):  # left out means whole; M also says which language it is
        first, *rest = program.levels
        whole = Map("temporal", Sz("M"), Sz("M"), "M")
        return Program((ProgramLevel((*first.maps, whole), first.units), *rest), program.name)
    return program
