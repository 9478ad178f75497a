"""Timeloop's architecture formats as one chain of parts, outermost first.

v0.4 (`nodes`), v0.2 and v0.3 and what its front end writes out (`subtree`, `local`), and the flat `arch`.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from diffhw._files.documents import Rows, Table, check_keys, nearest, rows, table, whole
from diffhw._files.timeloop import REFUSED

__all__ = ["Part", "chain"]

_NODE_KEYS = ("name", "class", "subclass", "attributes", "spatial", "constraints", "nodes")
_NODE_EXTRA = ("required_actions", "enabled", "area_scale", "energy_scale", "area_share", "version")
_TAGS = ("Component", "Container", "Parallel", "Hierarchical", "Nothing")
_COUNT = re.compile(r"\[\s*(\d+)\s*\.\.\s*(\d+)\s*\]$")
_NETWORKS = ("network", "noc", "reductiontree", "reduction_tree", "multicast")


@dataclass
class Part:
    """One level or the MACs. kind: "storage", "spatial" (a fan-out without memory) or "compute".

    attributes: of the part and of what holds it.  instances: in all.  mesh_x: along X, in all.
    fan_x, fan_y: children of each.  limits: constraint tables that stand in the node itself.
    rivals: indices of the parts beside it in a `!Parallel`; nothing: keeps of a `!Nothing` there.
    """

    name: str
    kind: str
    attributes: Table
    where: str
    class_name: str = ""
    instances: int = 1
    mesh_x: int = 1
    fan_x: int = 1
    fan_y: int = 1
    limits: list[Table] = field(default_factory=list)
    rivals: tuple[int, ...] = ()
    nothing: tuple[Table, ...] = ()


def chain(top: Table) -> list[Part]:
    """Parts, outermost first, the MACs last. Raises ValueError, one sentence with file, line and keys."""
    if "architecture" in top and "arch" in top:
        raise ValueError(f"{top.where('arch')}: both 'architecture' and 'arch' are given, one is needed")
    if "arch" in top:
        return _flat(table(top["arch"], top.where("arch")))
    if "architecture" not in top:
        raise ValueError(f"{top.file} has no architecture: the key 'architecture' (or 'arch') is missing")
    architecture = table(top["architecture"], top.where("architecture"))
    for key in REFUSED:
        if key in architecture:
            raise ValueError(f"{architecture.where(key)}: {REFUSED[key]} not supported")
    if "nodes" in architecture:
        check_keys(architecture, ("nodes", "version", "attributes", "variables"))
        return _nodes(architecture)
    if "subtree" in architecture:
        return _tree(architecture)
    if "storage" in architecture:
        return _flat(architecture)
    raise ValueError(
        f"{architecture.where()} needs 'nodes' (v0.4), 'subtree' (v0.2, v0.3) or 'storage' (flat)"
    )


def _name(node: Table) -> str:
    if "name" not in node:
        raise ValueError(f"{node.where()} needs a name{nearest('name', node)}")
    return str(node["name"])


def _attributes(node: Table, outer: Table) -> Table:
    own = node.get("attributes")
    own = Table() if own is None else table(own, node.where("attributes"))
    made = Table({**outer, **own}, file=node.file, path=own.path, line=own.line or node.line, lines=own.lines)
    return made


def _is_network(class_name: str) -> bool:
    return any(word in class_name.lower() for word in _NETWORKS)


# v0.4


def _nodes(architecture: Table) -> list[Part]:
    parts: list[Part] = []
    inherited = Table(architecture.get("attributes") or {}, file=architecture.file)
    _walk(rows(architecture["nodes"], architecture.where("nodes")), inherited, parts)
    _check_last(parts, architecture.where("nodes"))
    count, mesh = 1, 1
    for part in parts:
        part.instances, part.mesh_x = count, mesh
        count, mesh = count * part.fan_x * part.fan_y, mesh * part.fan_x
    return parts


def _walk(nodes: Rows, inherited: Table, parts: list[Part], parallel: bool = False) -> None:
    beside: list[int] = []
    nothing: list[Table] = []
    for index, node in enumerate(nodes):
        node = table(node, nodes.where(index))
        if node.tag not in _TAGS:
            what = f"the tag '!{node.tag}'" if node.tag else "a node without a tag"
            raise ValueError(
                f"{nodes.where(index)}: {what} is not "
                f"supported{nearest(node.tag, _TAGS) if node.tag else ''}; "
                f"known: {', '.join('!' + tag for tag in _TAGS)}"
            )
        if node.get("enabled") is False:
            continue
        check_keys(node, _NODE_KEYS, REFUSED, _NODE_EXTRA)
        if node.tag in ("Parallel", "Hierarchical"):
            if parallel:
                raise ValueError(f"{node.where()}: '!{node.tag}' inside '!Parallel' is not supported")
            _walk(rows(node.get("nodes"), node.where("nodes")), inherited, parts, node.tag == "Parallel")
            continue
        limits = _limits(node)
        if node.tag == "Nothing":
            nothing += limits
            continue
        attributes = _attributes(node, inherited)
        fan_x, fan_y = _spatial(node)
        if fan_x * fan_y > 1:
            if parallel:
                raise ValueError(f"{node.where('spatial')}: a fan-out inside '!Parallel' is not supported")
            name = f"inter_{_name(node)}_spatial"
            spread = [one for one in limits if one["type"] == "spatial"]
            made = Part(name, "spatial", attributes, node.where(), fan_x=fan_x, fan_y=fan_y, limits=spread)
            parts.append(made)
        if node.tag == "Container":
            inherited = attributes
            continue
        class_name = str(node.get("class", ""))
        if _is_network(class_name) or _is_network(str(node.get("subclass", ""))):
            raise ValueError(f"{node.where()}: user-defined networks ({class_name}) are not supported")
        limits = [one for one in limits if one["type"] != "spatial"]
        beside.append(len(parts))
        parts.append(Part(_name(node), "storage", attributes, node.where(), class_name, limits=limits))
    if parallel:
        for index in beside:
            parts[index].rivals = tuple(other for other in beside if other != index)
            parts[index].nothing = tuple(nothing)


def _spatial(node: Table) -> tuple[int, int]:
    spatial = node.get("spatial")
    if spatial is None:
        return 1, 1
    spatial = table(spatial, node.where("spatial"))
    check_keys(spatial, ("meshX", "meshY"), optional=("get_fanout", "power_gated_at"))
    return (
        whole(spatial.get("meshX", 1), spatial.where("meshX")),
        whole(spatial.get("meshY", 1), spatial.where("meshY")),
    )


def _limits(node: Table) -> list[Table]:
    """The node's constraints in the form of the other formats: one table each, with a type."""
    constraints = node.get("constraints")
    if constraints is None:
        return []
    constraints = table(constraints, node.where("constraints"))
    check_keys(constraints, ("dataspace", "temporal", "spatial"), optional=("utilization",))
    found = []
    for kind in ("dataspace", "temporal", "spatial"):
        if kind in constraints:
            one = table(constraints[kind], constraints.where(kind))
            entry = Table(
                {**one, "type": kind, "target": str(node.get("name", ""))},
                file=one.file,
                path=one.path,
                line=one.line,
                lines=one.lines,
            )
            found.append(entry)
    return found


def _check_last(parts: list[Part], where: str) -> None:
    stores = [part for part in parts if part.kind == "storage"]
    if len(stores) < 2:
        raise ValueError(f"{where} needs at least one memory and, last, the MAC unit")
    if parts[-1].kind != "storage" or parts[-1].rivals:
        raise ValueError(f"{where} must end in one MAC unit (a component that stands alone)")
    parts[-1].kind = "compute"


# v0.2, v0.3 and flattened


def _counted(name: str, where: str) -> tuple[str, int]:
    """("PE", 168) of "PE[0..167]"."""
    match = _COUNT.search(name)
    if match is None:
        if "[" in name:
            raise ValueError(f"{where}: {name!r} has no count like PE[0..167]")
        return name, 1
    low, high = int(match[1]), int(match[2])
    if high < low:
        raise ValueError(f"{where}: the count of {name!r} runs backwards")
    return name[: match.start()], high - low + 1


def _tree(architecture: Table) -> list[Part]:
    parts: list[Part] = []
    check_keys(architecture, ("version", "attributes", "subtree", "local"), REFUSED, ("name", "nodes"))
    for part in _branch(architecture, Table(file=architecture.file), 1):
        parts.append(part)
    if not parts:
        raise ValueError(f"{architecture.where()} holds no components")
    _check_last(parts, architecture.where())
    _fan_outs(parts)
    return parts


def _branch(node: Table, outer: Table, count: int) -> Iterator[Part]:
    attributes = _attributes(node, outer)
    local = node.get("local")
    local = Rows() if local is None else rows(local, node.where("local"))
    for index, one in enumerate(local):
        one = table(one, local.where(index))
        if one.get("enabled") is False:
            continue
        check_keys(one, ("name", "class", "subclass", "attributes"), REFUSED, _NODE_EXTRA)
        name, copies = _counted(_name(one), one.where("name"))
        class_name = str(one.get("class", ""))
        if _is_network(class_name):
            raise ValueError(f"{one.where()}: user-defined networks ({class_name}) are not supported")
        own = table(one.get("attributes") or Table(), one.where("attributes"))
        part = Part(name, "storage", _attributes(one, attributes), one.where(), class_name, count * copies)
        # Meshes are a part's own; those of what holds it say nothing about it.
        part.attributes.update({key: own.get(key) for key in ("meshX", "meshY", "instances")})
        yield part
    subtree = node.get("subtree")
    subtree = Rows() if subtree is None else rows(subtree, node.where("subtree"))
    if len(subtree) > 1:
        raise ValueError(f"{subtree.where()}: {len(subtree)} subtrees side by side are not supported, one is")
    for index, one in enumerate(subtree):
        one = table(one, subtree.where(index))
        check_keys(one, ("name", "attributes", "local", "subtree"), REFUSED, _NODE_EXTRA)
        _, copies = _counted(str(one.get("name", "")), one.where("name"))
        yield from _branch(one, attributes, count * copies)


def _fan_outs(parts: list[Part]) -> None:
    """Instances and meshes of all parts, then what each feeds."""
    for index, part in enumerate(parts):
        held = part.attributes
        count = held.get("instances")
        part.instances = part.instances if count is None else whole(count, held.where("instances"))
        x, y = (held.get(axis) for axis in ("meshX", "meshY"))
        total = part.instances
        if x is not None:
            part.mesh_x = whole(x, held.where("meshX"))
        elif y is not None and total % whole(y, held.where("meshY")) == 0:
            part.mesh_x = total // whole(y, held.where("meshY"))
        elif part.kind == "compute" and index and total % parts[index - 1].mesh_x == 0:
            part.mesh_x = parts[index - 1].mesh_x  # beside the innermost memory
        else:
            part.mesh_x = total
        if total % part.mesh_x or (y is not None and whole(y, held.where("meshY")) * part.mesh_x != total):
            raise ValueError(
                f"{part.where}: {total} instances are no mesh of {part.mesh_x} along X by {y or '?'} along Y"
            )
    for outer, inner in itertools.pairwise(parts):
        fan = inner.instances // outer.instances
        if fan * outer.instances != inner.instances:
            raise ValueError(
                f"{inner.where}: {inner.instances} instances of {inner.name} cannot be shared evenly by "
                f"{outer.instances} of {outer.name}"
            )
        x = inner.mesh_x // outer.mesh_x
        if x * outer.mesh_x != inner.mesh_x or x == 0 or fan % x:
            raise ValueError(
                f"{inner.where}: a mesh {inner.mesh_x} wide under one {outer.mesh_x} wide does not suit the "
                f"fan-out of {fan}; give meshX to both"
            )
        outer.fan_x, outer.fan_y = x, fan // x


# flat


def _flat(arch: Table) -> list[Part]:
    check_keys(arch, ("arithmetic", "storage"), REFUSED, ("version", "subclass", "attributes"))
    storage = rows(arch.get("storage"), arch.where("storage"))
    parts = []
    for index, one in enumerate(storage):
        one = table(one, storage.where(index))
        for key in REFUSED:
            if key in one:
                raise ValueError(f"{one.where(key)}: {REFUSED[key]} not supported")
        class_name = "DRAM" if one.get("technology") == "DRAM" else str(one.get("class", ""))
        parts.append(Part(_name(one), "storage", one, one.where(), class_name))
    if not parts:
        raise ValueError(f"{storage.where()} needs at least one memory, innermost first")
    parts.reverse()
    compute = table(arch.get("arithmetic"), arch.where("arithmetic"))
    parts.append(Part(str(compute.get("name", "arithmetic")), "compute", compute, compute.where()))
    _fan_outs(parts)
    return parts
