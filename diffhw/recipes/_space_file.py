"""A search space as a file: which numbers of a base design are variables, and over which values.

    model: systolic                     # or dataflow, loopnest
    base: edge                          # catalogue name, or a file beside this one
    fixed: {freq_hz: 5e8}               # other numbers of the base
    variables:
      rows: {integer: [8, 128], per_octave: 2}
      cols: rows                        # a tie: always the same value
      levels.weight.capacity_bytes: {values: [32768, 65536, 131072]}
      dram: {choice: [LPDDR4, HBM2]}
      dataflow: {choice: [os, ws, is]}
    constraints: {area_mm2: 10}

Every mistake is a ValueError of one sentence with file, line and key. docs/sweep.md explains every key.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from diffhw import hardware, numerics
from diffhw._files import documents
from diffhw._files.documents import Table, number, table
from diffhw.hardware import ANY_DIM, Accelerator, Hierarchy
from diffhw.mappings import DATAFLOWS, STYLES
from diffhw.recipes._space_values import PARTS, check_range, checked_number, named_part, one_of, variable_of
from diffhw.spaces import Choice, Integer, Real, Space, Variable

__all__ = ["LIMITS", "MODELS", "NamedSpace", "SpaceFile", "read_space"]

MODELS = ("systolic", "dataflow", "loopnest")
LIMITS = {"area_mm2": "mm2", "power_w": "W", "latency_s": "s", "energy_pj": "pJ"}
"""Figures that a design may be limited in, and their units."""

_KEYS = ("model", "base", "layer", "mapping", "fixed", "variables", "constraints")
_NUMBERS = ("rows", "cols", "lanes", "weight_bits", "input_bits", "psum_bits", "flexible", "freq_hz")
_DRAM = ("gb_per_s", "pj_per_bit", "phy_area_mm2", "static_w")
_LEVEL_SPECS = ("name", "keeps", "spatial_x", "spatial_y")


class NamedSpace(Space):
    """A `Space` whose variables are called as in the file: ``rows``, not ``hardware.rows``."""

    def __init__(self, design: Any):
        super().__init__(design)
        short = lambda path: path.removeprefix("hardware.")
        self.variables = tuple(
            replace(slot, name=short(slot.name), paths=tuple(map(short, slot.paths)))
            for slot in self.variables
        )
        self.names = tuple(slot.name for slot in self.variables)


@dataclass(frozen=True, eq=False)
class SpaceFile:
    """What a space.yaml says.

    path: of the file.  model: one of `MODELS`.  base_name: as written.
    template: {"hardware": an `Accelerator`, a `Hierarchy` or sizes of one, with variables in it; "dataflow":
        a `Choice`, if it is a variable}.
    base:     the same hardware without variables.
    build:    turns ``design["hardware"]`` into what the model takes.
    dataflow: the dataflow or style where it is no variable.
    limits:   {"area_mm2": 10.0, ...}.
    spread:   of the loop-nest model on an accelerator: the dataflow whose loops its grid spreads.
    layer, mapping: of the loop-nest model: a layer's name or None; a path or None for all mappings.
    places:   {"layer": "space.yaml line 3: layer", ...}, to begin an error with.
    """

    path: Path
    model: str
    base_name: str
    template: dict[str, Any]
    base: Any
    build: Callable[[Any], Accelerator | Hierarchy]
    dataflow: str | None = None
    limits: dict[str, float] = field(default_factory=dict)
    spread: str | None = None
    layer: str | None = None
    mapping: Path | None = None
    places: dict[str, str] = field(default_factory=dict)

    @property
    def space(self) -> Space:
        """The space of the template: decodes to designs of the template's structure.

        Raises ValueError if nothing is variable (of the loop-nest model mappings may be all that varies).
        """
        return NamedSpace(self.template)


def read_space(path, model: str | None = None) -> SpaceFile:
    """Read a space.yaml; see the module's docstring and docs/sweep.md.

    model: what the caller is going to evaluate; must agree with the file if that names one (default:
    systolic). Raises ValueError naming file, line and key.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, a space is a YAML file")
    document = documents.load_yaml(path)
    if not isinstance(document, Table):
        found = "nothing" if document is None else type(document).__name__.lower()
        raise ValueError(f"{path} must hold a mapping of keys ({', '.join(_KEYS)}), found {found}")
    documents.check_keys(document, _KEYS)
    named = document.get("model")
    if named is not None and named not in MODELS:
        hint = documents.nearest(named, MODELS)
        raise ValueError(f"{document.where('model')} must be one of {', '.join(MODELS)}, got {named!r}{hint}")
    if model is not None and named is not None and named != model:
        raise ValueError(f"{document.where('model')} is {named}, but the model asked for is {model}")
    model = model or named or "systolic"
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    if "base" not in document:
        raise ValueError(f"{path} needs the key 'base': a catalogue name or a file of hardware")
    for key in ("layer", "mapping"):
        if key in document and model != "loopnest":
            raise ValueError(f"{document.where(key)} is for the loopnest model, the model here is {model}")
        if key in document and not isinstance(document[key], str):
            raise ValueError(f"{document.where(key)} must be a name, got {document[key]!r}")
    read = _Reader(document, path, model)
    read.fix(document.get("fixed"))
    read.vary(document.get("variables"))
    return SpaceFile(
        path=path,
        model=model,
        base_name=str(document["base"]),
        template=read.template,
        base=read.base,
        build=read.build,
        dataflow=None if "dataflow" in read.template or model == "loopnest" else read.dataflow,
        spread=read.dataflow if model == "loopnest" else None,
        limits=_limits(document),
        layer=document.get("layer"),
        mapping=_beside(path, document["mapping"]) if document.get("mapping", "free") != "free" else None,
        places={key: document.where(key) for key in document},
    )


def _beside(path: Path, name: str) -> Path:
    """A file that is named in ``path``: as it stands, else in the same folder."""
    return Path(name) if Path(name).exists() or Path(name).is_absolute() else path.parent / name


def _limits(document: Table) -> dict[str, float]:
    data = document.get("constraints")
    if data is None:
        return {}
    data = table(data, document.where("constraints"))
    documents.check_keys(data, LIMITS)
    return {name: number(value, data.where(name)) for name, value in data.items()}


class _Reader:
    """Puts variables into the places of a base design."""

    def __init__(self, document: Table, path: Path, model: str):
        self.document, self.path, self.model = document, path, model
        self.places: dict[str, tuple] = {}  # name -> where it stands: attribute names, indices, keys
        self.aliases: dict[str, str] = {}
        self.dataflows = {"systolic": DATAFLOWS, "dataflow": tuple(STYLES), "loopnest": ()}[model]
        self.dataflow: str | None = None
        self.build: Callable = lambda hw: hw
        self._load()
        self.template: dict[str, Any] = {"hardware": self.base}

    # The base ---------------------------------------------------------------------------------

    def _load(self) -> None:
        name, where = self.document["base"], self.document.where("base")
        if not isinstance(name, str):
            raise ValueError(f"{where} must be a catalogue name or a file, got {name!r}")
        is_file = Path(name).suffix != ""
        source = str(_beside(self.path, name)) if is_file else name
        try:
            if self.model == "loopnest":
                self._load_hierarchy(name, source)
                return
            self.base: Any = hardware.load(source)
            self._name_accelerator()
            if self.model == "systolic":
                self.dataflow = _own_dataflow(name, source)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if is_file and text.startswith(source) else f"{where}: {text}") from None

    def _load_hierarchy(self, name: str, source: str) -> None:
        if name in hardware.HIERARCHIES:
            make = hardware.HIERARCHIES[name]
            arguments = inspect.signature(make).parameters
            self.base = {size: float(one.default) for size, one in arguments.items()}
            self.build = lambda sizes: make(**sizes)
            self.places = {size: (size,) for size in self.base}
            return
        is_yaml = source.lower().endswith((".yaml", ".yml"))
        if is_yaml and documents.format_of(source):
            self.base = hardware.hierarchy(source)
            self._name_levels()
            self.places |= {name: (name,) for name in ("mac_pj", "mac_area_mm2", "freq_hz", "static_w")}
            return
        if Path(source).suffix == "" and name not in hardware.names():
            known = (*hardware.HIERARCHIES, *hardware.names())
            raise ValueError(f"unknown hardware {name!r}{documents.nearest(name, known)}")
        self.base = hardware.load(source)
        self._name_accelerator()
        self.dataflows, self.dataflow = (*DATAFLOWS, "any"), _own_dataflow(name, source)
        self.build = self._spread

    def _name_accelerator(self) -> None:
        self.places |= {name: (name,) for name in _NUMBERS}
        self._name_levels()
        self.places |= {f"dram.{name}": ("dram", name) for name in _DRAM}
        self.places |= {"dram": ("dram",), "technology.node_nm": ("technology",)}

    def _name_levels(self) -> None:
        """Numbers of a level, by its number and by its name."""
        names = [level.name for level in self.base.levels]
        for i, level in enumerate(self.base.levels):
            for one in fields(level):
                if one.name in _LEVEL_SPECS:
                    continue
                self.places[f"levels.{i}.{one.name}"] = ("levels", i, one.name)
                if names.count(level.name) == 1:
                    self.aliases[f"levels.{level.name}.{one.name}"] = f"levels.{i}.{one.name}"

    def _known(self, name, where: str) -> str:
        """The canonical name of a field. Raises ValueError with the nearest one."""
        if name in self.aliases:
            return self.aliases[name]
        if name == "dataflow" and self.dataflows:
            return name
        if name in self.places:
            return name
        known = [*self.places, *self.aliases, *(("dataflow",) if self.dataflows else ())]
        close = difflib.get_close_matches(str(name), known, 1, 0.5)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(self._short())}"
        raise ValueError(f"{where} is no number of {self.document['base']}{hint}")

    def _short(self) -> list[str]:
        named = {target: alias for alias, target in self.aliases.items()}
        names = [named.get(name, name) for name in self.places]
        return [*names, *(("dataflow",) if self.dataflows else ())]

    def _spread(self, hw: Accelerator) -> Hierarchy:
        """The hierarchy of an accelerator whose grid spreads the loops of its dataflow."""
        # How many instances there are shapes the hierarchy, so what is fixed must not be traced.
        template = self.template["hardware"].levels
        fixed = [not isinstance(level.instances, Variable) for level in template]
        levels = tuple(
            replace(level, instances=float(of_file.instances)) if is_fixed else level
            for level, of_file, is_fixed in zip(hw.levels, template, fixed, strict=True)
        )
        made = hardware.hierarchy(replace(hw, levels=levels))
        x, y = _LOOPS[self.dataflow or "ws"]
        return replace(made, levels=tuple(replace(level, spatial_x=x, spatial_y=y) for level in made.levels))

    # Fixed numbers ----------------------------------------------------------------------------

    def fix(self, data) -> None:
        """Put the numbers of ``fixed`` into the base."""
        if data is None:
            return
        data = table(data, self.document.where("fixed"))
        for key, value in data.items():
            where = data.where(key)
            name = self._known(key, where)
            if name == "dataflow":
                self.dataflow = one_of(value, self.dataflows, where)
            elif name in PARTS:
                self.base = _put(self.base, self.places[name], named_part(name, value, where))
            else:
                leaf = numerics.as_float(checked_number(name, value, where))
                self.base = _put(self.base, self.places[name], leaf)
        self.template = {"hardware": self.base}

    # Variables --------------------------------------------------------------------------------

    def vary(self, data) -> None:
        """Put the variables of ``variables`` into the template."""
        if data is None and self.model == "loopnest":
            return
        where = self.document.where("variables") if "variables" in self.document else str(self.path)
        if data is None:
            raise ValueError(f"{where} needs 'variables': at least one number that is to be chosen")
        data = table(data, where)
        if not data and self.model != "loopnest":
            raise ValueError(f"{where} names no number that is to be chosen")
        names: dict[str, Any] = {}
        for key in data:
            name = self._known(key, data.where(key))
            if name in names:
                raise ValueError(f"{data.where(key)} is the same number as {names[name]!r}")
            names[name] = key
        if self.model == "loopnest" and "dataflow" in names:
            raise ValueError(f"{data.where(names['dataflow'])} is no variable of the loopnest model: fix it")
        made: dict[str, Variable] = {}
        for name, key in names.items():
            if not isinstance(data[key], str):
                made[name] = variable_of(name, data[key], data.where(key), self.dataflows)
        for name, key in names.items():
            if isinstance(data[key], str):
                made[name] = self._tied(name, data[key], data.where(key), names, made)
        for name, key in names.items():
            if name.startswith("dram.") and "dram" in names:
                raise ValueError(f"{data.where(key)}: the whole dram is a variable already")
        template = dict(self.template)
        for name, variable in made.items():
            if name == "dataflow":
                template["dataflow"] = variable
            else:
                template["hardware"] = _put(template["hardware"], self.places[name], variable)
        self.template = template

    def _tied(self, name: str, target: str, where: str, names: dict, made: dict) -> Integer | Real:
        """The variable of another field, once more."""
        other = self.aliases.get(target, target)
        if other == name:
            raise ValueError(f"{where} is tied to itself")
        if other in names and other not in made:
            raise ValueError(f"{where}: {target!r} is a tie itself; tie both to the same variable")
        if other not in made:
            known = [key for field_name, key in names.items() if field_name != name]
            hint = documents.nearest(target, known)
            raise ValueError(f"{where} is tied to {target!r}, which is no variable of this file{hint}")
        if isinstance(made[other], Choice) or name == "dataflow" or name in PARTS:
            raise ValueError(f"{where}: only numbers can be tied, and not to {target!r}")
        check_range(name, made[other], where)
        return made[other]


def _own_dataflow(name: str, source: str) -> str:
    """The dataflow that a catalogue entry, a SCALE-Sim file or a design file comes with; else ws."""
    if name in hardware.names():
        return hardware.catalogue_entry(name).dataflow
    if source.lower().endswith((".cfg", ".ini")):
        return hardware.read_scalesim_cfg(source)[1] or "ws"
    if source.lower().endswith((".yaml", ".yml")):
        from diffhw.recipes._design import read_design

        if "hardware" in documents.load_yaml(source):
            flow = read_design(source).dataflow
            return flow if isinstance(flow, str) else "ws"
    return "ws"


_LOOPS = {"ws": ("k", "crs"), "os": ("k", "npq"), "is": ("npq", "crs"), "any": (ANY_DIM, ANY_DIM)}
"""Loops that the columns and the rows of a PE grid may spread, by dataflow."""


def _put(node, place: tuple, value):
    """``node`` with ``value`` at a place: a copy."""
    if not place:
        return value
    head, *rest = place
    if isinstance(node, dict):
        return {**node, head: _put(node[head], tuple(rest), value)}
    if isinstance(node, tuple):
        return tuple(_put(one, tuple(rest), value) if i == head else one for i, one in enumerate(node))
    return replace(node, **{head: _put(getattr(node, head), tuple(rest), value)})
