"""A search space: a design with variables in place of numbers.

The common coin of every search method is the *index vector*: one integer per variable, shape (V,),
int32. Flat numbers are its mixed-radix digits (the first variable is the most significant) and are
Python ints, so spaces beyond 2**63 are no trouble.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffhw.spaces._variable import Variable, is_concrete

__all__ = ["Slot", "Space"]


@dataclass(frozen=True)
class Slot:
    """A variable with its place in a design.

    name: path of its first use ("levels.0.capacity_bytes").  variable.  paths: all its uses (ties).
    """

    name: str
    variable: Variable
    paths: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of legal values."""
        return self.variable.size


def _is_variable(node) -> bool:
    return isinstance(node, Variable)


class Space:
    """All designs that a template with variables can become.

    design: any pytree (dataclasses, tuples, dicts) in which some numbers, or whole parts under a
        `Choice`, were replaced by variables. Everything else passes through as it is. One variable
        object used twice is a tie: it counts once and gets the same value in both places.

    variables: tuple of `Slot`, in the order of an index vector.
    sizes: legal values of each, a tuple of Python ints.
    size: number of designs, an exact Python int, or inf with a continuous variable.

    Raises ValueError for a design without variables, or with one in a dataclass
    that is not a pytree.

    >>> from diffhw.spaces import Choice, Integer, Space
    >>> side = Integer(4, 16, per_octave=1)
    >>> space = Space({"rows": side, "cols": side, "dataflow": Choice(("os", "ws")), "bits": 8})
    >>> space.size, [slot.name for slot in space.variables]
    (6, ['cols', 'dataflow'])
    >>> {name: float(x) for name, x in space.at([1, 0]).items() if name != "dataflow"}
    {'bits': 8.0, 'cols': 8.0, 'rows': 8.0}
    """

    def __init__(self, design: Any):
        leaves, self._structure = jax.tree_util.tree_flatten_with_path(design, is_leaf=_is_variable)
        paths: dict[Variable, list[str]] = {}
        self._leaves: list[Any] = []
        for path, leaf in leaves:
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "design"
            if _is_variable(leaf):
                paths.setdefault(leaf, []).append(name)
            elif dataclasses.is_dataclass(leaf) and any(map(_is_variable, vars(leaf).values())):
                kind = type(leaf).__name__
                raise ValueError(
                    f"{name} holds a variable, but {kind} is not registered with JAX as a pytree"
                )
            self._leaves.append(leaf)
        if not paths:
            raise ValueError("a space needs at least one variable (Integer, Real, Choice, Bits), got none")
        self.variables = tuple(Slot(where[0], one, tuple(where)) for one, where in paths.items())
        self.names = tuple(slot.name for slot in self.variables)
        self.sizes = tuple(slot.size for slot in self.variables)
        self._number = {slot.variable: v for v, slot in enumerate(self.variables)}

    @property
    def is_continuous(self) -> bool:
        """True if some variable has no grid."""
        return any(slot.variable.continuous for slot in self.variables)

    @property
    def size(self) -> int | float:
        """Number of legal designs: an exact Python int, or inf with a continuous variable."""
        return math.inf if self.is_continuous else math.prod(self.sizes)

    def position(self, name: str) -> int:
        """Index of the variable called ``name``. Raises ValueError with the nearest name."""
        for v, slot in enumerate(self.variables):
            if name in slot.paths:
                return v
        known = [path for slot in self.variables for path in slot.paths]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
        raise ValueError(f"no variable is called {name!r}{hint}")

    # Unconstrained parameters, for gradients -------------------------------------------------

    def init(self, key: Array) -> dict[str, Array]:
        """Unconstrained parameters drawn in the middle of every range: name -> () or (n,) floats."""
        return self.place(jax.random.uniform(key, (self.width,), float))

    @property
    def width(self) -> int:
        """Number of unconstrained parameters."""
        return sum(math.prod(slot.variable.param_shape) for slot in self.variables)

    def place(self, uniform) -> dict[str, Any]:
        """Parameters from uniform numbers in [0, 1), shape (..., `width`): NumPy in, NumPy out."""
        params, begin = {}, 0
        for slot in self.variables:
            shape = slot.variable.param_shape
            piece = uniform[..., begin : begin + math.prod(shape)]
            params[slot.name] = slot.variable.init(piece.reshape(*uniform.shape[:-1], *shape))
            begin += math.prod(shape)
        return params

    def project(self, params: dict[str, Array]) -> dict[str, Array]:
        """The nearest parameters within the ranges: apply after each optimiser step.

        `decode` keeps its slope at and beyond the bounds, so nothing sticks there.
        """
        return {slot.name: slot.variable.project(params[slot.name]) for slot in self.variables}

    def decode(self, params: dict[str, Array], temperature=1.0, key: Array | None = None) -> Any:
        """The design of ``params``: legal values forward, straight-through gradients backward.

        temperature: of every `Choice`; lower is closer to one-hot in the gradients.
        key: noise of the choices with ``relax="gumbel"``; without it they are plain arg-max.
        """
        values = []
        for v, slot in enumerate(self.variables):
            noise = None if key is None else jax.random.fold_in(key, v)
            values.append(slot.variable.decode(params[slot.name], temperature, noise))
        return self.fill(values)

    def index(self, params: dict[str, Array]) -> Array:
        """Index vector of the nearest legal design, int32, shape (V,). jit, vmap."""
        return jnp.stack([slot.variable.index(params[slot.name]) for slot in self.variables])

    def harden(self, params: dict[str, Array]) -> Any:
        """The nearest legal design."""
        return self.at(self.index(params))

    # Index vectors, for everything else ------------------------------------------------------

    def at(self, index) -> Any:
        """The design with that index vector, shape (V,). Works under jit and vmap."""
        index = np.asarray(index) if is_concrete(index) else index
        if index.shape != (len(self.variables),):
            raise ValueError(f"an index vector has shape ({len(self.variables)},), got {index.shape}")
        return self.fill([slot.variable.at(index[v]) for v, slot in enumerate(self.variables)])

    @property
    def template(self) -> Any:
        """The design with its variables, as it was given."""
        return jax.tree.unflatten(self._structure, self._leaves)

    def fill(self, values: Sequence[Any]) -> Any:
        """The design with these values of the variables, as `Variable.at` gives them, in order."""
        leaves = [
            values[self._number[leaf]] if _is_variable(leaf) else _widened(leaf) for leaf in self._leaves
        ]
        return jax.tree.unflatten(self._structure, leaves)

    def index_of(self, design: Any) -> np.ndarray:
        """Index vector of a design, int32, shape (V,): the inverse of `at`.

        Raises ValueError naming the place of a value that is not legal, or of a broken tie.
        """
        try:
            parts = self._structure.flatten_up_to(design)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the design does not have the structure of this space: {error}") from error
        index = np.full(len(self.variables), -1, np.int32)
        uses = {v: iter(slot.paths) for v, slot in enumerate(self.variables)}
        for leaf, part in zip(self._leaves, parts, strict=True):
            if not _is_variable(leaf):
                continue
            v = self._number[leaf]
            path = next(uses[v])
            try:
                found = leaf.index_of(part)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}: {error}") from error
            if index[v] not in (-1, found):
                raise ValueError(f"{path}: tied to {self.names[v]}, but the two differ")
            index[v] = found
        return index

    def sample(self, key: Array, n: int) -> Array:
        """``n`` random index vectors, int32, shape (n, V), uniform in every variable."""
        limits = jnp.broadcast_to(jnp.asarray(self.sizes, jnp.int32), (n, len(self.sizes)))
        return jax.random.randint(key, limits.shape, 0, limits, jnp.int32)

    def neighbours(self, index) -> np.ndarray:
        """Index vectors one step away, int32, shape (m, V): +-1 in a number, any other option of a choice."""
        index = np.asarray(index, np.int32)
        rows = []
        for v, slot in enumerate(self.variables):
            for other in slot.variable.steps(int(index[v])):
                row = index.copy()
                row[v] = other
                rows.append(row)
        return np.array(rows, np.int32).reshape(-1, len(self.variables))

    def to_flat(self, index) -> int:
        """Position in the order of `enumerate`: the digits ``index`` read as a mixed-radix Python int."""
        flat = 0
        for digit, size in zip(np.asarray(index).tolist(), self.sizes, strict=True):
            if not 0 <= digit < size:
                raise ValueError(f"index {digit} is outside 0 to {size - 1}")
            flat = flat * size + digit
        return flat

    def from_flat(self, flat: int) -> np.ndarray:
        """Index vector of a position, int32, shape (V,): the inverse of `to_flat`."""
        if not 0 <= flat < math.prod(self.sizes):
            raise ValueError(f"position {flat} is outside this space of {math.prod(self.sizes)} designs")
        digits = []
        for size in reversed(self.sizes):
            flat, digit = divmod(int(flat), size)
            digits.append(digit)
        return np.array(digits[::-1], np.int32)

    def advance(self, index, offset) -> Any:
        """Index vectors ``offset`` places after ``index`` in the order of `enumerate`.

        index: (V,).  offset: (n,), each offset + size of a variable below 2**31.  Returns (n, V)
        int32; runs on the host for NumPy arrays, on the device (also traced) for JAX arrays. Past
        the end it wraps around.
        """
        columns = []
        for v in reversed(range(len(self.sizes))):
            total = index[v] + offset
            columns.append(total % self.sizes[v])
            offset = total // self.sizes[v]
        xp = np if isinstance(offset, np.ndarray) else jnp
        return xp.stack(columns[::-1], axis=-1).astype(xp.int32)

    def enumerate(self, chunk: int, start: int = 0) -> Iterator[tuple[np.ndarray, int]]:
        """All designs in order: yields ((chunk, V) int32, count); the last one is padded by legal rows.

        start: position of the first design. Raises ValueError for a continuous space.
        """
        if self.is_continuous:
            names = [slot.name for slot in self.variables if slot.variable.continuous]
            raise ValueError(
                f"{', '.join(names)} cannot be enumerated: give a grid (step, per_octave or values)"
            )
        size, offset = math.prod(self.sizes), np.arange(chunk)
        while start < size:
            yield self.advance(self.from_flat(start), offset), min(chunk, size - start)
            start += chunk

    # For people ------------------------------------------------------------------------------

    def labels(self, index) -> dict[str, float | int | str]:
        """Name -> value of an index vector, for display."""
        return {slot.name: slot.variable.label(int(i)) for slot, i in zip(self.variables, index, strict=True)}

    def describe(self) -> str:
        """The legal values of each variable, one per line, and the number of designs."""
        width = max(map(len, self.names))
        lines = []
        for slot in self.variables:
            tied = f"  (tied: {', '.join(slot.paths[1:])})" if len(slot.paths) > 1 else ""
            lines.append(f"{slot.name:<{width}}  {slot.variable.describe()}{tied}")
        total = "infinitely many" if self.is_continuous else f"{self.size:,}"
        return "\n".join([*lines, f"{total} designs"])

    def __repr__(self) -> str:
        return f"Space of {len(self.variables)} variables\n{self.describe()}"


def _widened(leaf):
    # In a float64 run the fixed numbers are float64 too; else a stray float32 product of two of
    # them would spoil the figures that are reported.
    if isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 and jnp.result_type(float) == jnp.float64:
        return leaf.astype(jnp.float64)
    return leaf
