"""Where nothing is feasible: the design that misses by least, and what it misses."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from diffhw import search
from diffhw.recipes._sweep import SweepProblem

__all__ = ["NearestDesign", "nearest_design"]

_MOST = 2**21  # designs looked at again; of a larger space so many drawn at random


@dataclass(frozen=True)
class NearestDesign:
    """The design with the smallest largest excess of those looked at.

    choices: variable -> value.  binding: the limit that it exceeds most, or "fit" (a buffer or the array is
    too small for the layers).  over: by what share of the limit, float64.  value: its figure, None for "fit".
    looked: at how many designs.
    """

    choices: dict[str, Any]
    binding: str
    over: float
    value: float | None
    looked: int


def nearest_design(problem: SweepProblem, *, order: str, designs: int, seed: int) -> NearestDesign | None:
    """Of the designs of a sweep without a feasible one; of more than two million a random two million.

    order, designs, seed: of that sweep.  None if no design has a finite excess.
    """
    if designs > _MOST:
        order, designs = "random", _MOST
    largest = lambda design: functools.reduce(jnp.maximum, problem.excess(design).values())
    found = search.sweep(
        lambda design: {"excess": largest(design)},
        problem.space,
        out=None,
        objective="excess",
        order=order,
        budget=designs,
        seed=seed,
        top_k=1,
        identity={},
        feasible=None,
    )
    if not len(found.top):
        return None
    with jax.enable_x64(True):
        design = problem.space.at(found.top.index[0])
        excess = {name: float(value) for name, value in jax.jit(problem.excess)(design).items()}
    binding = max(excess, key=lambda name: excess[name])
    value = None if binding == "fit" else (1 + excess[binding]) * problem.limits[binding]
    return NearestDesign(found.labels(), binding, excess[binding], value, found.designs)
