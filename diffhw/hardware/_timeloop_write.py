"""A `Hierarchy` as Timeloop architecture: v0.4 nodes, or the flat form that timeloop-model reads alone."""

import math
from pathlib import Path

import numpy as np

from diffhw._files.documents import plain, write_text, write_yaml_text
from diffhw._files.timeloop import CONVENTION
from diffhw.hardware._hierarchy import ANY_DIM, Hierarchy, Memory

__all__ = ["write_timeloop"]

_DIMS = {ours: theirs for theirs, ours in CONVENTION.loops.items()}
_SPACES = {ours: theirs for theirs, ours in CONVENTION.tensors.items()}


def write_timeloop(hierarchy: Hierarchy, path, ert=None, *, form: str = "v0.4") -> tuple[Path, Path]:
    """Write the architecture and, beside it, its energy and area reference tables; both paths are returned.

    form: "v0.4": nodes for Timeloop's front end (read it back with ``fold=True``: a fan-out is a container
        there); "flat": the old form, whose levels are ours one to one and which timeloop-model reads alone.
    ert: path of the tables; by default ``path`` with ".ert.yaml" in place of its suffix.

    Which loops may be spread stands in constraints; where they cannot say it (one loop allowed along both
    axes, another along one) the keys ``diffhw_x`` and ``diffhw_y``, which Timeloop skips, say it too.
    Raises ValueError for what the format cannot hold: tensors of different width in one level, words that do
    not fill accesses, fan-outs that are not whole, batches of hierarchies.
    """
    if form not in ("v0.4", "flat"):
        raise ValueError(f"form must be 'v0.4' or 'flat', got {form!r}")
    path = Path(path)
    ert = path.with_suffix(".ert.yaml") if ert is None else Path(ert)
    checked = [_checked(level) for level in hierarchy.levels]
    macs = _whole("the number of MACs", hierarchy.macs_per_cycle)
    document = _nodes(hierarchy, checked) if form == "v0.4" else _flat(hierarchy, checked, macs)
    note = "# Written by diffhw. P, R go with the width (our q, s), Q, S with the height (our p, r).\n"
    write_text(path, note + write_yaml_text(document))
    write_text(ert, write_yaml_text(_tables(hierarchy, macs)))
    return path, ert


def _number(what: str, value) -> float:
    if np.ndim(value) != 0:
        raise ValueError(f"{what} is a batch of shape {np.shape(value)}: write one hierarchy at a time")
    return float(value)


def _whole(what: str, value) -> int:
    found = _number(what, value)
    if abs(found - round(found)) > 1e-6 * max(found, 1.0):
        raise ValueError(f"{what} must be a whole number in a Timeloop file, got {found:g}")
    return round(found)


def _checked(level: Memory) -> dict:
    """Attributes of a level in Timeloop's terms; {} for one without memory."""
    _whole(f"{level.name}.fanout_x", level.fanout_x), _whole(f"{level.name}.fanout_y", level.fanout_y)
    if not level.keeps:
        return {}
    bits = {t: _number(f"{level.name} bits", level.bits(t)) for t in level.keeps}
    if len(set(bits.values())) > 1:
        raise ValueError(
            f"{level.name} keeps words of {', '.join(f'{b:g} bits ({t})' for t, b in bits.items())}: "
            f"a level has one word width in Timeloop"
        )
    word = _whole(f"{level.name} bits of a word", next(iter(bits.values())))
    block = _whole(f"{level.name}: words per access", level.width_bits / word)
    found: dict = {"datawidth": word, "width": word * block, "block": block}
    capacity = _number(f"{level.name}.capacity_bits", level.capacity_bits)
    if not math.isinf(capacity):
        # What is left of a word holds nothing.
        found["entries"] = math.floor(capacity / word + 1e-6)
    for kind in ("read", "write", "shared"):
        port = _number(f"{level.name}.{kind}", getattr(level, f"{kind}_bits_per_cycle"))
        if not math.isinf(port):
            found[f"{kind}_bandwidth"] = plain(port / word)
    return found


def _datatypes(level: Memory) -> dict:
    kept = [_SPACES[t] for t in "wio" if t in level.keeps]
    return {"keep": kept, "bypass": [name for name in _SPACES.values() if name not in kept]}


def _spread(level: Memory) -> dict:
    """Constraint on the loops over the level's children; {} for none."""
    allowed = {
        a: getattr(level, f"spatial_{a}") if float(getattr(level, f"fanout_{a}")) > 1 else "" for a in "xy"
    }
    fans = [a for a in "xy" if float(getattr(level, f"fanout_{a}")) > 1]
    if not fans or all(allowed[a] == ANY_DIM for a in fans):
        return {}
    # G is no loop of cnn_layer: named only where it may be spread.
    barred = [d for d in ANY_DIM if d not in allowed["x"] + allowed["y"] and d != "g"]
    found: dict = {"factors": [f"{_DIMS[d]}=1" for d in barred]}
    if set(allowed["x"]) & set(allowed["y"]):
        return found | {f"diffhw_{a}": [_DIMS[d] for d in allowed[a]] for a in "xy"}
    order = [*allowed["x"], *allowed["y"], *barred]
    return found | {"permutation": [_DIMS[d] for d in order], "split": len(allowed["x"])}


def _clock(hierarchy: Hierarchy) -> dict:
    return {"version": 0.4, "global_cycle_seconds": 1 / _number("freq_hz", hierarchy.freq_hz)}


def _nodes(hierarchy: Hierarchy, checked: list[dict]) -> dict:
    nodes: list[dict] = []
    last = len(checked) - 1
    for k in range(last, -1, -1):
        level, held = hierarchy.levels[k], dict(checked[k])
        fan = {f"mesh{a.upper()}": round(float(getattr(level, f"fanout_{a}"))) for a in "xy"}
        if not held and fan == {"meshX": 1, "meshY": 1}:
            raise ValueError(f"{level.name} keeps nothing and feeds one child: v0.4 has no place for it")
        if held:
            block, entries = held.pop("block"), held.pop("entries", None)
            if entries is not None:
                held |= {"depth": entries // block} if entries % block == 0 else {"entries": entries}
            nodes.append(
                {
                    "!Component": {
                        "name": level.name,
                        "class": "DRAM" if k == last and entries is None else "storage",
                        "attributes": held,
                        "constraints": {"dataspace": _datatypes(level)},
                    }
                }
            )
        if fan != {"meshX": 1, "meshY": 1}:
            name = (
                level.name.removeprefix("inter_").removesuffix("_spatial")
                if not held
                else f"{level.name}_children"
            )
            container: dict = {"name": name, "spatial": fan}
            spread = _spread(level)
            if spread:
                container["constraints"] = {"spatial": spread}
            nodes.append({"!Container": container})
    nodes.append({"!Component": {"name": "MAC", "class": "compute", "attributes": {"datawidth": 8}}})
    return {"architecture": {"version": 0.4, "nodes": nodes}, "variables": _clock(hierarchy)}


def _flat(hierarchy: Hierarchy, checked: list[dict], macs: int) -> dict:
    storage, targets, across = [], [], [1]
    for level in reversed(hierarchy.levels):
        across.append(across[-1] * round(float(level.fanout_x)))
    for k, (level, held) in enumerate(zip(hierarchy.levels, checked)):
        entry: dict = {
            "name": level.name,
            "instances": _whole(f"instances of {level.name}", hierarchy.instances(k)),
            "meshX": across[len(checked) - 1 - k],
        }
        if held:
            entry |= {"word-bits": held["datawidth"], "block-size": held["block"]}
            entry |= {key: held[key] for key in held if key == "entries" or key.endswith("_bandwidth")}
        else:
            entry |= {"word-bits": 1, "entries": 0}
        if k == len(checked) - 1 and "entries" not in entry:
            entry["technology"] = "DRAM"
        storage.append(entry)
        targets.append({"target": level.name, "type": "datatype"} | _datatypes(level))
        spread = _spread(level)
        if spread:
            spread = {
                key: ("".join(value) if key == "permutation" else " ".join(f.replace("=", "") for f in value))
                if key in ("permutation", "factors")
                else value
                for key, value in spread.items()
            }
            targets.append({"target": level.name, "type": "spatial"} | spread)
    word = checked[0].get("datawidth", 8)
    compute = {"name": "MAC", "instances": macs, "meshX": across[-1], "word-bits": word}
    document = {"arch": {"arithmetic": compute, "storage": storage}}
    document["mapspace"] = {"template": "uber", "constraints": targets}
    if float(hierarchy.freq_hz) != 1e9:
        document["variables"] = _clock(hierarchy)
    return document


def _tables(hierarchy: Hierarchy, macs: int) -> dict:
    hertz = float(hierarchy.freq_hz)
    per_cycle = lambda watts: plain(watts * 1e12 / hertz)
    energy, area = [], []
    for level in hierarchy.levels:
        if not level.keeps:
            continue
        actions = {"read": level.read_pj, "write": level.fill_pj, "update": level.update_pj}
        pj = {name: plain(_number(f"{level.name}.{name}", value)) for name, value in actions.items()}
        if float(level.leakage_w):
            pj["leak"] = per_cycle(float(level.leakage_w))
        energy.append(_entry(level.name, pj))
        area.append({"name": f"system.{level.name}", "area": plain(float(level.area_mm2) * 1e6)})
    pj = {"compute": plain(_number("mac_pj", hierarchy.mac_pj))}
    if float(hierarchy.static_w):
        pj["leak"] = per_cycle(float(hierarchy.static_w) / macs)
    energy.append(_entry("MAC", pj))
    area.append({"name": "system.MAC", "area": plain(float(hierarchy.mac_area_mm2) * 1e6)})
    found = {"ERT": {"version": 0.4, "tables": energy}}
    if any(one["area"] for one in area):
        found["ART"] = {"version": 0.4, "tables": area}
    return found


def _entry(name: str, pj: dict) -> dict:
    return {
        "name": f"system.{name}",
        "actions": [{"name": action, "energy": value} for action, value in pj.items()],
    }
