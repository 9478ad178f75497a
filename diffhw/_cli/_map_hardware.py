"""What ``--hardware`` of ``diffhw map`` names: a memory hierarchy, or an accelerator made into one."""

from dataclasses import replace

from diffhw._cli._errors import UserError, nearest

__all__ = ["find_hierarchy"]

_SPREAD = {"ws": ("k", "crs"), "os": ("k", "npq"), "is": ("npq", "crs")}
"""Loops over columns and over rows of a systolic array, by dataflow."""


_HIERARCHY_FILES = ("a Timeloop architecture", "a ZigZag accelerator")


def _accelerator(name: str):
    """(accelerator, its dataflow or None). Raises ValueError."""
    from diffhw import hardware, recipes

    if name in hardware.names():
        entry = hardware.catalogue_entry(name)
        return entry.hardware, entry.dataflow
    lower = name.lower()
    if lower.endswith((".cfg", ".ini")):
        return hardware.read_scalesim_cfg(name)
    if lower.endswith((".yaml", ".yml", ".json")):
        data, _ = hardware.read_document(name)
        if "hardware" in data and "mapping" in data:
            design = recipes.read_design(name)
            return design.hardware, design.dataflow if isinstance(design.dataflow, str) else None
    return hardware.load(name), None


def find_hierarchy(name: str, spread: str | None):
    """(hierarchy, sentence on what the PE grid spreads or ""). Raises ValueError.

    spread: of ``--spread``. A hierarchy says itself which loops may be spread; an accelerator does not, and
    all loops along both axes of a large array are too many to search: 700,668 choices for one 3 x 3
    convolution on 256 x 256 PEs.
    """
    import os

    from diffhw import hardware
    from diffhw._files.documents import format_of

    kind = ""
    if name.lower().endswith((".yaml", ".yml")) and os.path.isfile(name):
        kind = format_of(name)
        if kind and kind not in _HIERARCHY_FILES:
            raise UserError(f"--hardware {name} is {kind}: give {' or '.join(_HIERARCHY_FILES)}")
    if name in hardware.HIERARCHIES or kind:
        if spread is not None:
            raise UserError(f"--spread is for accelerators: {name} says itself which loops may be spread")
        return hardware.hierarchy(name), ""
    known = tuple(dict.fromkeys([*hardware.HIERARCHIES, *hardware.names()]))
    if name not in known and not os.path.splitext(name)[1] and not os.path.exists(name):
        hint = nearest(name, known) or ";"
        raise UserError(f"unknown hardware {name!r}{hint} known are {', '.join(known)}, or a file")
    accelerator, own = _accelerator(name)
    found = hardware.hierarchy(accelerator)
    word = spread or own or "ws"
    if word == "any":
        return found, "the PE grid may spread any loop along either axis"
    x, y = _SPREAD[word]
    levels = tuple(replace(level, spatial_x=x, spatial_y=y) for level in found.levels)
    return (
        replace(found, levels=levels),
        f"the PE grid spreads {', '.join(x)} over columns and {', '.join(y)} over rows ({word}; --spread "
        "changes that)",
    )
