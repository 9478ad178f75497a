"""MAESTRO's ``.m`` files as tokens and raw layers, with line numbers; what a layer means is `_maestro`.

Tokens end at a blank, ``,`` ``-`` ``>`` ``(`` ``)`` ``:`` ``;``; braces are tokens and must stand alone;
``//`` starts a comment only where a token would start.
"""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

__all__ = ["MaestroFile", "MaestroLayer", "Token", "fail", "nearest", "number", "read_maestro_text", "tokens"]

_SEPARATORS = r"\s,\->():;"
_TOKEN = re.compile(rf"//[^\n]*|[^{_SEPARATORS}]+")
_NEGATIVE = re.compile(rf"(?:^|[{_SEPARATORS}])-$")


@dataclass(frozen=True)
class Token:
    """A word of the file. negative: a minus sign stands before it, which MAESTRO skips."""

    text: str
    line: int
    negative: bool = False


@dataclass(frozen=True)
class MaestroLayer:
    """One layer as written. line: of its ``Layer``. stride, dims: with constants put in.

    directives: tokens between the braces of its Dataflow, None without one.
    """

    name: str
    kind: str
    line: int
    stride: dict[str, int]
    dims: dict[str, int]
    directives: tuple[Token, ...] | None


@dataclass
class MaestroFile:
    """The layers of one file in order, and its constants."""

    path: Path
    layers: list[MaestroLayer] = field(default_factory=list)
    constants: dict[str, int] = field(default_factory=dict)


def tokens(text: str) -> list[Token]:
    """The words of ``text`` without comments."""
    found, line, last = [], 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", last, match.start())
        last = match.start()
        if not match[0].startswith("//"):
            minus = bool(_NEGATIVE.search(text[max(last - 2, 0) : last]))
            found.append(Token(match[0], line, minus and match[0][0].isdigit()))
    return found


def fail(source, token: Token | None, sentence: str) -> NoReturn:
    """ValueError naming file, line and token."""
    place = f"{source}, end of file" if token is None else f"{source}, line {token.line}, {token.text!r}"
    raise ValueError(f"{place}: {sentence}")


def nearest(text: str, allowed) -> str:
    """``did you mean X?`` or the list of what is allowed."""
    folded = {one.lower(): one for one in reversed(tuple(allowed))}
    near = difflib.get_close_matches(text.lower(), folded, 1, 0.6)
    known = ", ".join(allowed)
    return f"did you mean {folded[near[0]]}? Allowed: {known}" if near else f"allowed: {known}"


def number(source, token: Token | None, constants: dict[str, int], what: str) -> int:
    """A whole number >= 1, written out or as the name of a constant."""
    if token is None:
        fail(source, None, f"{what} is missing")
    if any(brace in token.text for brace in "{}"):
        check_brace(source, token)
        fail(source, token, f"{what} is missing before the brace")
    if token.negative:
        fail(source, token, f"{what} must be >= 1, got -{token.text} (MAESTRO would skip the minus sign)")
    if token.text in constants:
        return constants[token.text]
    if re.search(r"[+*/]", token.text):
        fail(source, token, f"{what} must be one number, one constant or Sz(dimension), without arithmetic")
    if not token.text.isascii() or not token.text.isdigit():
        known = f" or one of the constants {', '.join(constants)}" if constants else ""
        fail(source, token, f"{what} must be a whole number >= 1{known}")
    if int(token.text) < 1:
        fail(source, token, f"{what} must be >= 1")
    return int(token.text)


def check_brace(source, token: Token) -> None:
    """Refuse a brace that is glued to a word: MAESTRO would read both as one word."""
    if len(token.text) > 1 and ("{" in token.text or "}" in token.text):
        fail(source, token, "a brace must stand alone, with a blank or separator on each side")


class _Reader:
    def __init__(self, path: Path, text: str):
        self.path, self.words, self.at = path, tokens(text), 0
        self.file = MaestroFile(path)

    def peek(self) -> Token | None:
        return self.words[self.at] if self.at < len(self.words) else None

    def take(self, expected: str) -> Token:
        token = self.peek()
        if token is None:
            fail(self.path, None, f"{expected} is missing")
        check_brace(self.path, token)
        self.at += 1
        return token

    def brace(self, which: str, where: str) -> None:
        token = self.take(f"{which!r} {where}")
        if token.text != which:
            fail(self.path, token, f"expected {which!r} {where}")

    def name(self, default: str, where: str) -> str:
        """Up to the brace, and past it. Minus signs separate words in names too: Conv2d-1 is three words."""
        parts: list[str] = []
        while True:
            token = self.take(f"'{{' after {where}")
            if token.text == "{":
                return "-".join(parts) or default
            if token.text in _KEYWORDS:
                fail(self.path, token, f"expected '{{' after {' '.join((where, *parts))}")
            parts.append(token.text)

    def read(self) -> MaestroFile:
        while (token := self.peek()) is not None:
            check_brace(self.path, token)
            self.at += 1
            if token.text == "Constant":
                name = self.take("the name of the constant").text
                value = number(self.path, self.peek(), {}, f"constant {name}")
                self.at += 1
                self.file.constants[name] = value
            elif token.text == "Network":
                self.name("", "Network")
                while (inner := self.take("'}' at the end of Network")).text != "}":
                    if inner.text != "Layer":
                        fail(self.path, inner, "only Layer may stand in a Network")
                    self.layer(inner)
            elif token.text == "Accelerator":
                self.skip()
            elif token.text == "}":
                fail(self.path, token, "closes nothing; there is one brace too many")
            else:
                fail(self.path, token, nearest(token.text, ("Network", "Constant", "Accelerator")))
        if not self.file.layers:
            raise ValueError(f"{self.path}: no layers, expected Network {{ Layer NAME {{ ... }} ... }}")
        return self.file

    def skip(self) -> None:
        """The Accelerator section, which MAESTRO ignores."""
        depth = 0
        while (token := self.peek()) is not None:
            self.at += 1
            depth += token.text.count("{") - token.text.count("}")
            if depth == 0 and ("}" in token.text):
                return
        fail(self.path, None, "'}' at the end of Accelerator is missing")

    def layer(self, start: Token) -> None:
        name = self.name(f"layer{len(self.file.layers)}", "Layer")
        same = sum(one.name.rpartition("#")[0] == name or one.name == name for one in self.file.layers)
        name = f"{name}#{same + 1}" if same else name  # names tell dataflows apart
        kind, stride, dims, flow = "", {}, {}, None
        done: list[str] = []
        while (token := self.take(f"'}}' at the end of layer {name}")).text != "}":
            if token.text not in _SECTIONS:
                fail(self.path, token, f"no section of a layer; {nearest(token.text, _SECTIONS)}")
            if token.text in done:
                fail(self.path, token, f"twice in layer {name}")
            late = [one for one in done if _SECTIONS.index(one) > _SECTIONS.index(token.text)]
            if late:
                fail(self.path, token, f"must stand before {late[0]} (order: {', '.join(_SECTIONS)})")
            done.append(token.text)
            if token.text == "Type":
                kind = self.take(f"the type of layer {name}").text
            elif token.text == "Stride":
                stride = self.sizes("Stride")
            elif token.text == "Dimensions":
                dims = self.sizes("Dimensions")
            else:
                flow = self.directives()
        for section in ("Type", "Dimensions"):
            if section not in done:
                fail(self.path, start, f"layer {name} has no {section}")
        self.file.layers.append(MaestroLayer(name, kind, start.line, stride, dims, flow))

    def sizes(self, section: str) -> dict[str, int]:
        self.brace("{", f"after {section}")
        found: dict[str, int] = {}
        while (token := self.take(f"'}}' at the end of {section}")).text != "}":
            if token.text not in _DIMENSIONS:
                fail(self.path, token, f"unknown dimension in {section}; {nearest(token.text, _DIMENSIONS)}")
            if token.text in found:
                fail(self.path, token, f"twice in {section}")
            found[token.text] = number(self.path, self.peek(), self.file.constants, f"size of {token.text}")
            self.at += 1
        return found

    def directives(self) -> tuple[Token, ...]:
        self.brace("{", "after Dataflow")
        start = self.at
        while self.take("'}' at the end of Dataflow").text != "}":
            pass
        return tuple(self.words[start : self.at - 1])


_SECTIONS = ("Type", "Stride", "Dimensions", "Dataflow")
_KEYWORDS = (*_SECTIONS, "Network", "Layer", "Constant", "Accelerator", "}")
_DIMENSIONS = ("N", "G", "K", "C", "R", "S", "Y", "X", "Y'", "X'", "M")


def read_maestro_text(path) -> MaestroFile:
    """The raw layers of a ``.m`` file. Raises ValueError naming file, line, word and rule."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable text file ({error})") from error
    return _Reader(path, text).read()
