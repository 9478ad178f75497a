"""Energy and area reference tables of Timeloop, and numbers of its attributes."""

import re
from typing import Any

from diffhw._files.documents import Table, number, rows, table
from diffhw.hardware._timeloop_parts import Part

__all__ = ["access_energies", "attribute", "compound_classes", "mac_energy", "positive", "reference_tables"]

_READ = ("random_read", "read")
_FILL = ("random_fill", "random_write", "fill", "write")
_UPDATE = ("random_update", "update", *_FILL)
_MAC = ("mac_random", "mult_random", "mac", "mult", "compute", "multiply", "mac_op")


def attribute(attributes: Table, *keys: str) -> tuple[str, Any]:
    """(key, value) of the first key that is there, ("", None) for none."""
    return next(((key, attributes[key]) for key in keys if attributes.get(key) is not None), ("", None))


def positive(attributes: Table, *keys: str, zero: bool = False) -> float | None:
    """The number of the first key that is there; None for none."""
    key, value = attribute(attributes, *keys)
    if value is None:
        return None
    if isinstance(value, str) and not _is_number(value):
        raise ValueError(
            f"{attributes.where(key)} is {value!r}: expressions and names are not supported, write "
            "the number "
            f"or read what Timeloop's front end writes out"
        )
    return number(value, attributes.where(key), zero=zero)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def access_energies(part: Part, pj: dict[str, float], zero: bool, compound: bool) -> dict[str, float]:
    """Energy of a read, a fill and an update by the names of `Memory`."""
    if zero:
        return {}
    old = positive(part.attributes, "vector_access_energy", zero=True)
    found = {}
    for kind, actions in (("read", _READ), ("fill", _FILL), ("update", _UPDATE)):
        value = next((pj[action] for action in actions if action in pj), old)
        if value is None:
            raise ValueError(_no_energy(part, compound, kind if pj else None))
        found[f"{kind}_pj"] = value
    return found


def _no_energy(part: Part, compound: bool, kind: str | None) -> str:
    what = f"the compound component {part.name}" if compound else part.name
    lack = "is in no energy reference table" if kind is None else f"has no energy for {kind!r} in its table"
    kind = part.class_name or "no class"
    return f'{part.where}: {what} ({kind}) {lack}: give ert=FILE, or ert="zero" to go without'


def mac_energy(part: Part, pj: dict[str, float], zero: bool, compound: bool) -> tuple[float, float]:
    """(pJ of a multiply-accumulate, leakage in pJ per cycle)."""
    if zero:
        return 0.0, 0.0
    old = positive(part.attributes, "energy_per_op", zero=True)
    value = next((pj[action] for action in _MAC if action in pj), old)
    if value is None:
        raise ValueError(_no_energy(part, compound, "compute" if pj else None))
    return value, pj.get("leak", 0.0)


def compound_classes(top: Table) -> set[str]:
    """Names of the compound components that the files define."""
    held = top.get("compound_components")
    entries = held.get("classes", []) if isinstance(held, Table) else []
    return {str(one.get("name")) for one in entries if isinstance(one, dict)}


def reference_tables(top: Table, key: str, parts: list[Part]) -> dict[str, dict[str, float]]:
    """{part: {action: pJ}} of an ERT, {part: {"area": um2}} of an ART; the largest where arguments vary."""
    if key not in top:
        return {}
    held = table(top[key], top.where(key))
    found: dict[str, dict[str, float]] = {}
    entries = rows(held.get("tables"), held.where("tables"))
    known = {part.name for part in parts}
    for index, one in enumerate(entries):
        one = table(one, entries.where(index))
        name = _last(str(one.get("name", "")))
        if name not in known:
            continue  # tables of parts that a mapping never sees
        if name in found:
            raise ValueError(f"{entries.where(index)}: {name!r} has two tables in {key}")
        found[name] = {}
        if key == "ART":
            found[name]["area"] = number(one.get("area"), one.where("area"), zero=True)
            continue
        actions = rows(one.get("actions"), one.where("actions"))
        for place, action in enumerate(actions):
            action = table(action, actions.where(place))
            value = number(action.get("energy"), action.where("energy"), zero=True)
            named = str(action.get("name"))
            found[name][named] = max(value, found[name].get(named, 0.0))
    return found


def _last(name: str) -> str:
    """Last name of a path like system.PE[0..3].psum_spad[1..168], without counts."""
    return re.sub(r"\[[^\]]*\]", "", name).split(".")[-1]
