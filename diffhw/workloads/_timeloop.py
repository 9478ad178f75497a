"""Timeloop problem files: one layer, as `cnn_layer`, `gemm_ABZ` or a shape written out.

Which loop is which follows from the file's projections: what goes with Wstride and Wdilation is along the
width. In its own `cnn_layer` these are P and R (our q and s); Q and S are our p and r.
"""

from typing import Any

import numpy as np

from diffhw._files.documents import Table, check_keys, nearest, table, whole, write_text, write_yaml_text
from diffhw._files.timeloop import CONVENTION, SHAPES, problem_shape, read_top
from diffhw.workloads._layer import Layer

__all__ = ["read_timeloop_problem", "write_timeloop_problem"]

_PROBLEM = ("shape", "instance", "version", "name")
_REFUSED = {
    "densities": "sparse problems (densities) are",
    "commonDensity": "sparse problems (commonDensity) are",
    "common_density": "sparse problems (common_density) are",
}
_WINDOW = ("H", "W", "Hpad", "Wpad")


def read_timeloop_problem(path) -> Layer:
    """The layer of a Timeloop problem file (or of several files, one of which holds the problem).

    Sizes stand under ``instance`` or in the problem itself. H, W, Hpad, Wpad, which Timeloop skips, give the
    stored input; without them it is as large as the loops reach. A matrix product Z(m,n) += A(m,k) B(n,k)
    is p = m, c = k, k = n.

    Raises ValueError, one sentence with file, line and key: unknown or missing loops, sizes below 1, shapes
    that are neither a convolution nor a matrix product; refused by name: densities, flattened dimensions.
    """
    top = read_top(path)
    if "problem" not in top:
        raise ValueError(f"{top.file} has no problem: the key 'problem' is missing{nearest('problem', top)}")
    problem = table(top["problem"], top.where("problem"))
    shape = problem_shape(top)
    assert shape is not None
    if "instance" in problem:
        check_keys(problem, _PROBLEM, _REFUSED)
        instance = table(problem["instance"], problem.where("instance"))
    else:
        instance = Table(
            {key: value for key, value in problem.items() if key not in _PROBLEM},
            file=problem.file,
            path=problem.path,
            line=problem.line,
            lines=problem.lines,
        )
    coefficients = _defaults(problem)
    steps = {ours: name for ours, name in shape.steps.items() if isinstance(name, str)}
    for key, value in instance.items():
        if key in _REFUSED and value not in (None, {}, 1, 1.0):
            raise ValueError(f"{instance.where(key)}: {_REFUSED[key]} not supported")
        if (
            key not in shape.loops
            and key not in steps.values()
            and key not in (*_WINDOW, *_REFUSED, "version")
        ):
            raise ValueError(
                f"{instance.where(key)} is no known loop{nearest(key, [*shape.loops, *steps.values()])}"
            )
    sizes: dict[str, Any] = {"p": 1, "q": 1}
    for name, ours in shape.loops.items():
        if name not in instance:
            if shape is CONVENTION and name == "G":
                continue
            raise ValueError(f"{instance.where()}: the loop {name!r} has no size{nearest(name, instance)}")
        sizes[ours] = whole(instance[name], instance.where(name))
    for ours, name in shape.steps.items():
        value = name if isinstance(name, int) else instance.get(name, coefficients.get(name, 1))
        sizes[ours] = whole(value, instance.where(str(name)))
    if shape.steps:
        for side, key, pad in (("h", "H", "pad_top"), ("w", "W", "pad_left")):
            if key in instance and key not in shape.loops:
                sizes[side] = whole(instance[key], instance.where(key))
                sizes[pad] = whole(instance.get(f"{key}pad", 0), instance.where(f"{key}pad"), 0)
    return Layer.create(**sizes)


def _defaults(problem: Table) -> dict[str, int]:
    shape = problem.get("shape")
    held = shape.get("coefficients") if isinstance(shape, Table) else None
    return {
        str(one["name"]): one.get("default", 1)
        for one in held or []
        if isinstance(one, Table) and "name" in one
    }


def write_timeloop_problem(layer: Layer, path, *, shape: str = "cnn_layer") -> None:
    """Write a layer as a Timeloop problem with its shape written out.

    shape: "cnn_layer" (a loop G is added where there are groups) or "gemm_ABZ" for matrix products.
    Input sizes and padding stand in H, W, Hpad, Wpad where they differ from what the loops reach.
    Raises ValueError for fractional sizes, batches, and what "gemm_ABZ" cannot hold.
    """
    sizes = {}
    for name in ("n", "g", "k", "c", "p", "q", "r", "s", "h", "w", "pad_top", "pad_left"):
        sizes[name] = _integer(name, getattr(layer, name))
    steps = {name: _integer(name, getattr(layer, name)) for name in CONVENTION.steps}
    if shape == "gemm_ABZ":
        extra = {d: sizes[d] for d in "ngqrs" if sizes[d] != 1}
        extra |= {name: step for name, step in steps.items() if name.startswith("stride") and step != 1}
        if extra:
            raise ValueError(f"gemm_ABZ has no place for {', '.join(f'{d} = {v}' for d, v in extra.items())}")
        names = SHAPES["gemm_ABZ"].loops
        document: dict = {
            "name": "gemm_ABZ",
            "dimensions": list(names),
            "data_spaces": [
                _space("A", [["M"]], [["K"]]),
                _space("B", [["N"]], [["K"]]),
                _space("Z", [["M"]], [["N"]]) | {"read_write": True},
            ],
        }
        instance = {name: sizes[ours] for name, ours in names.items()}
    elif shape == "cnn_layer":
        document, instance = _convolution(sizes, steps)
    else:
        raise ValueError(f"shape must be {' or '.join(SHAPES)}, got {shape!r}")
    problem = {"problem": {"version": 0.4, "shape": document, "instance": instance}}
    write_text(path, write_yaml_text(problem))


def _integer(name: str, value) -> int:
    if np.ndim(value) != 0:
        raise ValueError(f"{name} is a batch of shape {np.shape(value)}: write one layer at a time")
    if float(value) % 1:
        raise ValueError(f"{name} must be a whole number in a file, got {float(value):g}")
    return int(float(value))


def _space(name: str, *projection) -> dict:
    return {"name": name, "projection": list(projection)}


def _convolution(sizes: dict[str, int], steps: dict[str, int]) -> tuple[dict, dict]:
    group = [[["G"]]] if sizes["g"] > 1 else []
    names = {name: ours for name, ours in CONVENTION.loops.items() if ours != "g" or group}
    document = {
        "name": "cnn_layer" if not group else "grouped_cnn_layer",
        "dimensions": list(names),
        "coefficients": [{"name": name, "default": 1} for name in CONVENTION.steps.values()],
        "data_spaces": [
            {"name": "Weights", "projection": [*group, [["C"]], [["K"]], [["R"]], [["S"]]]},
            {
                "name": "Inputs",
                "projection": [
                    [["N"]],
                    *group,
                    [["C"]],
                    [["R", "Wdilation"], ["P", "Wstride"]],
                    [["S", "Hdilation"], ["Q", "Hstride"]],
                ],
            },
            {
                "name": "Outputs",
                "projection": [[["N"]], *group, [["K"]], [["Q"]], [["P"]]],
                "read_write": True,
            },
        ],
    }
    instance = {name: sizes[ours] for name, ours in names.items()}
    instance |= {str(name): steps[ours] for ours, name in CONVENTION.steps.items()}
    reach = {
        "h": (sizes["p"] - 1) * steps["stride_h"] + (sizes["r"] - 1) * steps["dilation_h"] + 1,
        "w": (sizes["q"] - 1) * steps["stride_w"] + (sizes["s"] - 1) * steps["dilation_w"] + 1,
    }
    if any(sizes[side] != reach[side] for side in "hw") or sizes["pad_top"] or sizes["pad_left"]:
        instance |= {"H": sizes["h"], "W": sizes["w"], "Hpad": sizes["pad_top"], "Wpad": sizes["pad_left"]}
    return document, instance
