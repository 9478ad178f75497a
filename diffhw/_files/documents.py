"""YAML files whose tables and lists know where they stand, and checks that say so.

Errors are ValueErrors of one sentence that begin with file, line and keys.
"""

import difflib
import math
import re
from pathlib import Path
from typing import Any

__all__ = [
    "Rows",
    "Table",
    "check_keys",
    "format_of",
    "load_yaml",
    "nearest",
    "number",
    "plain",
    "read_text",
    "rows",
    "table",
    "tidy",
    "whole",
    "write_text",
    "write_yaml_text",
]


class Table(dict):
    """A YAML mapping. tag: as "Component" of "!Component", else "".  lines: key -> line."""

    def __init__(self, *args, file="", path="", line=None, lines=None, tag=""):
        super().__init__(*args)
        self.file, self.path, self.line, self.lines, self.tag = file, path, line, lines or {}, tag

    def where(self, key=None) -> str:
        """File, line and keys of the table or of one key."""
        path = self.path if key is None else f"{self.path}.{key}".lstrip(".")
        return _place(self.file, self.lines.get(key, self.line), path)


class Rows(list):
    """A YAML list. lines: one per entry."""

    def __init__(self, *args, file="", path="", line=None, lines=()):
        super().__init__(*args)
        self.file, self.path, self.line, self.lines = file, path, line, tuple(lines)

    def where(self, index=None) -> str:
        """File, line and keys of the list or of one entry."""
        if index is None:
            return _place(self.file, self.line, self.path)
        line = self.lines[index] if index < len(self.lines) else self.line
        return _place(self.file, line, f"{self.path}[{index}]")


def _place(file, line, path) -> str:
    return f"{file}{'' if line is None else f' line {line}'}" + (f": {path}" if path else "")


def _loader(file: str):
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe, with duplicate keys refused and tags kept."""

    def make_table(loader, node):
        seen: dict = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"{file} line {key.start_mark.line + 1}: a list or a table cannot be a key")
            name = key.value if isinstance(key.value, str) else None
            if name is not None and name in seen and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                raise ValueError(
                    f"{file} line {line}: the key {name!r} stands twice, first in line {seen[name]}"
                )
            if name is not None:
                seen[name] = key.start_mark.line + 1
        loader.flatten_mapping(node)
        lines = {loader.construct_object(key): key.start_mark.line + 1 for key, _ in node.value}
        tag = node.tag[1:] if node.tag.startswith("!") else ""
        data = loader.construct_mapping(node, deep=True)
        return Table(data, file=file, line=node.start_mark.line + 1, lines=lines, tag=tag)

    def make_rows(loader, node):
        lines = [entry.start_mark.line + 1 for entry in node.value]
        data = loader.construct_sequence(node, deep=True)
        return Rows(data, file=file, line=node.start_mark.line + 1, lines=lines)

    def make_tagged(loader, suffix, node):
        if isinstance(node, yaml.MappingNode):
            return make_table(loader, node)
        if isinstance(node, yaml.SequenceNode):
            return make_rows(loader, node)
        if node.value == "":  # "- !Nothing"
            return Table(file=file, line=node.start_mark.line + 1, tag=suffix)
        return loader.construct_scalar(node)

    Loader.add_constructor("tag:yaml.org,2002:map", make_table)
    Loader.add_constructor("tag:yaml.org,2002:seq", make_rows)
    Loader.add_multi_constructor("!", make_tagged)
    return Loader


def _name_paths(value, path: str) -> None:
    if isinstance(value, Table):
        value.path = path
        for key, inner in value.items():
            _name_paths(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, Rows):
        value.path = path
        for index, inner in enumerate(value):
            _name_paths(inner, f"{path}[{index}]")


def read_text(path) -> str:
    """Text of a file. Raises ValueError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None


def load_yaml(path, text: str | None = None) -> Any:
    """The one document of a file: `Table`, `Rows` or a scalar.

    text: its content, if already read. Raises ValueError for broken YAML, keys that stand twice, Jinja.
    """
    import yaml

    content = read_text(path) if text is None else text
    for number_, line in enumerate(content.splitlines(), 1):
        if "{{" in line.split("#")[0] or "{%" in line.split("#")[0]:
            raise ValueError(
                f"{path} line {number_}: Jinja templates are not supported; expand them first and "
                "read the result"
            )
    try:
        data = yaml.load(content, Loader=_loader(str(path)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" line {mark.line + 1} column {mark.column + 1}"
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise ValueError(f"{path}{place}: broken YAML: {problem}") from None
    _name_paths(data, "")
    return data


_FORMATS = (
    (r"^(architecture|arch)\s*:", "a Timeloop architecture"),
    (r"^(memories|operational_array)\s*:", "a ZigZag accelerator"),
    (r"^problem\s*:", "a Timeloop problem"),
    (r"^mapping\s*:", "a Timeloop mapping"),
    (r"^-\s.*?^\s+equation\s*:", "a ZigZag workload"),
    (r"^-\s.*?^\s+(spatial_mapping|temporal_ordering)\s*:", "a ZigZag mapping"),
)


def format_of(path) -> str:
    """What a YAML file of another tool is, by its keys: "a Timeloop architecture", ...; "" if none."""
    text = read_text(path)
    return next((kind for pattern, kind in _FORMATS if re.search(pattern, text, re.M | re.S)), "")


def tidy(value: Any) -> Any:
    """The same with "-" in keys as "_", all the way down: Timeloop knows both spellings."""
    if isinstance(value, Table):
        names = {key: key.replace("-", "_") if isinstance(key, str) else key for key in value}
        made = Table(file=value.file, path=value.path, line=value.line, tag=value.tag)
        for key, inner in value.items():
            if names[key] in made:
                raise ValueError(f"{value.where(key)} stands twice, once with - and once with _")
            made[names[key]] = tidy(inner)
            made.lines[names[key]] = value.lines.get(key)
        return made
    if isinstance(value, Rows):
        return Rows(
            [tidy(inner) for inner in value],
            file=value.file,
            path=value.path,
            line=value.line,
            lines=value.lines,
        )
    return value


def nearest(found, allowed) -> str:
    """The end of a sentence: the nearest of ``allowed``, else what is known."""
    allowed = [str(one) for one in allowed]
    near = difflib.get_close_matches(str(found), allowed, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(allowed) or 'none'}"


def check_keys(data: Table, allowed, refused=None, optional=()) -> None:
    """Raises ValueError for a key that is neither in ``allowed`` nor ``optional``.

    refused: key -> what it stands for: keys of the format that we do not support.
    optional: known and left out without harm; not offered as the nearest name.
    """
    for key in data:
        if refused and key in refused:
            raise ValueError(f"{data.where(key)}: {refused[key]} not supported")
        if key not in allowed and key not in optional:
            raise ValueError(f"{data.where(key)} is no known key{nearest(key, allowed)}")


def table(value, where: str) -> Table:
    """``value`` as a `Table`, or a ValueError."""
    if not isinstance(value, Table):
        found = "nothing" if value is None else repr(value)
        raise ValueError(f"{where} must be a mapping of keys, got {found[:60]}")
    return value


def rows(value, where: str) -> Rows:
    """``value`` as `Rows`, or a ValueError."""
    if not isinstance(value, Rows):
        found = "nothing" if value is None else repr(value)
        raise ValueError(f"{where} must be a list, got {found[:60]}")
    return value


def number(value, where: str, *, zero: bool = False, infinite: bool = False) -> float:
    """``value`` as a float > 0 (>= 0 with ``zero``). YAML reads 1e9 as text: that counts as a number."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        found = float(value)
    except ValueError:
        raise ValueError(f"{where} must be a number, got {value!r}") from None
    low = found < 0 or (found == 0 and not zero)
    if math.isnan(found) or low or (math.isinf(found) and not infinite):
        finite = "" if infinite else " and finite"
        raise ValueError(f"{where} must be {'>= 0' if zero else '> 0'}{finite}, got {value}")
    return found


def whole(value, where: str, lowest: int = 1) -> int:
    """``value`` as an integer >= ``lowest``."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str) or float(value) % 1:
            raise ValueError
        found = int(float(value))
        if found < lowest:
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"{where} must be a whole number >= {lowest}, got {value!r}") from None
    return found


def plain(value) -> int | float:
    """A concrete scalar as the Python number that reads back to the same float."""
    found = float(value)
    return int(found) if found.is_integer() and abs(found) < 2**53 else found


def write_text(path, text: str) -> None:
    """Write a file. Raises ValueError."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from None


def write_yaml_text(data) -> str:
    """``data`` as YAML, short lists and tables on one line, order kept; keys "!X" become tags.

    A table ``{"!Component": {...}}`` is written as a tagged table.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Knows short tables and tags; no anchors."""

        def ignore_aliases(self, data):
            return True

    def flow(value) -> bool:
        inner = value.values() if isinstance(value, dict) else value
        return (
            all(isinstance(one, int | float | str | bool) or one is None for one in inner)
            and len(str(value)) <= 70
        )

    def put_table(dumper, value):
        if len(value) == 1 and next(iter(value)).startswith("!"):
            ((tag, inner),) = value.items()
            return dumper.represent_mapping(tag, inner.items(), flow_style=False)
        return dumper.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=flow(value))

    def put_rows(dumper, value):
        return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow(value))

    Dumper.add_representer(dict, put_table)
    Dumper.add_representer(list, put_rows)
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, width=100)
