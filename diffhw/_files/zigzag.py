"""ZigZag's words: loop names and its equations."""

import re
from typing import Any

from diffhw._files.documents import Table, nearest, whole
from diffhw._files.shapes import Shape, Slide, assign

__all__ = ["DEFAULT_LINKS", "LOOPS", "OPERANDS", "equation_shape", "loop_sizes"]

LOOPS = {"B": "n", "G": "g", "K": "k", "C": "c", "OY": "p", "OX": "q", "FY": "r", "FX": "s"}
"""Its usual names of loops -> ours."""

OPERANDS = {"I1": "i", "I2": "w", "O": "o"}
"""Operands of memories -> our letters, under the usual links W: I2, I: I1, O: O."""

DEFAULT_LINKS = {"O": "O", "W": "I2", "I": "I1"}

_TERM = re.compile(r"([A-Za-z]\w*)((?:\s*\[\s*\w+\s*\])+)")
_RELATION = re.compile(r"^\s*(\w+)\s*=\s*(?:(\d+)\s*\*\s*)?(\w+)\s*\+\s*(?:(\d+)\s*\*\s*)?(\w+)\s*$")


def equation_shape(layer: Table) -> tuple[Shape, dict[str, str]] | None:
    """(shape, input axis -> "h" or "w") of a layer's equation; loops in upper case.

    None for an equation that is no product of two tensors. Raises ValueError, one sentence with its place.
    """
    text = str(layer.get("equation", ""))
    where = layer.where("equation")
    parts = re.match(r"\s*([^=+]*)\+?=(.*)", text)
    if parts is None:
        raise ValueError(f"{where} must read like O[b][k]+=W[k][c]*I[b][c], got {text!r}")
    left, right = parts.groups()
    found = {}
    for name, indices in _TERM.findall(f"{left} {right}"):
        if name in found:
            raise ValueError(f"{where}: {name!r} stands twice")
        found[name] = [one.upper() for one in re.findall(r"\w+", indices)]
    if "*" not in right or "+" in right:
        return None
    if set(found) != {"O", "W", "I"}:
        raise ValueError(f"{where} must name O, W and I, got {', '.join(found) or 'none'}")
    slides, axes = [], {}
    relations: Any = layer.get("dimension_relations") or []
    for place, one in enumerate(relations if isinstance(relations, list) else [relations]):
        match = _RELATION.match(str(one))
        if match is None:
            raise ValueError(f"{layer.where('dimension_relations')}: {one!r} must read like ix=2*ox+1*fx")
        axis, stride, out, dilation, taps = match.groups()
        axis, out, taps = axis.upper(), out.upper(), taps.upper()
        if axis not in found["I"]:
            raise ValueError(
                f"{layer.where('dimension_relations')}: {axis} is no index of I{nearest(axis, found['I'])}"
            )
        stride, dilation = int(stride or 1), int(dilation or 1)
        if out not in found["O"] and taps in found["O"]:
            out, taps, stride, dilation = taps, out, dilation, stride
        if out not in found["O"]:
            raise ValueError(
                f"{layer.where('dimension_relations')}: {out} is no index of O{nearest(out, found['O'])}"
            )
        side = "w" if axis.endswith("X") else "h" if axis.endswith("Y") else "hw"[place % 2]
        axes[axis] = side
        slides.append(Slide(side, out, taps, stride, dilation))
    inputs = set(found["I"]) - set(axes) | {dim for one in slides for dim in (one.out, one.taps)}
    dims = list(loop_sizes(layer))
    for name in sorted(set(found["W"]) | inputs | set(found["O"])):
        if name and name not in dims:
            raise ValueError(
                f"{layer.where('loop_dims')}: {name} is an index but no loop{nearest(name, dims)}"
            )
    loops, steps = assign(where, dims, set(found["W"]), inputs, set(found["O"]), slides)
    return Shape(loops=loops, tensors={"W": "w", "I": "i", "O": "o"}, steps=steps), axes


def loop_sizes(layer: Table) -> dict[str, int]:
    """{loop in upper case: size} of a layer's loop_dims and loop_sizes."""
    dims, sizes = layer.get("loop_dims"), layer.get("loop_sizes")
    if not isinstance(dims, list) or not isinstance(sizes, list):
        raise ValueError(f"{layer.where()} needs loop_dims and loop_sizes, lists of the same length")
    if len(dims) != len(sizes):
        raise ValueError(f"{layer.where('loop_sizes')}: {len(sizes)} sizes for {len(dims)} loops")
    found = {str(dim).upper(): whole(size, layer.where("loop_sizes")) for dim, size in zip(dims, sizes)}
    if len(found) != len(dims):
        raise ValueError(f"{layer.where('loop_dims')} names a loop twice: {', '.join(map(str, dims))}")
    return found
