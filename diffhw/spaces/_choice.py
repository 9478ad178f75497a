"""A choice between named or structured options."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffhw import numerics
from diffhw.spaces._variable import SPAN, Variable, is_concrete

__all__ = ["Choice"]

_RELAXATIONS = ("straight_through", "softmax", "gumbel")


class Choice(Variable):
    """One of several options.

    options: strings (decoded to a one-hot float vector, shape (n,), in the order given), or pytrees
        of numbers of equal structure, such as several `hardware.Dram` (decoded to such a pytree,
        each leaf the sum of the options' leaves under one-hot weights). A mapping names the options.
    relax: "straight_through" (arg-max forward, softmax backward; best in our trials), "gumbel" (the
        same with noise, needs a key in `Space.decode`) or "softmax" (soft forward too: then only
        `Space.harden` gives legal designs).

    At one-hot weights the leaves are taken, not summed, so an infinite leaf of another option is no
    trouble; in gradients it counts as the largest finite leaf among the options.
    Raises ValueError for no options, equal names, or options that differ in structure.
    """

    def __init__(self, options: Mapping[str, Any] | Sequence[Any], relax: str = "straight_through"):
        if relax not in _RELAXATIONS:
            raise ValueError(f"Choice: relax must be one of {', '.join(_RELAXATIONS)}, got {relax!r}")
        if isinstance(options, str) or len(options) == 0:
            raise ValueError(f"Choice needs a non-empty list of options, got {options!r}")
        values = list(options.values()) if isinstance(options, Mapping) else list(options)
        self.relax = relax
        self.size = len(values)
        self.param_shape = (self.size,)
        self.is_named = all(isinstance(value, str) for value in values)
        if isinstance(options, Mapping):
            self.names = tuple(options)
        elif self.is_named:
            self.names = tuple(values)
        else:
            numbers = [isinstance(value, int | float) for value in values]
            self.names = tuple(
                f"{value:g}" if plain else f"option{i}"
                for i, (value, plain) in enumerate(zip(values, numbers, strict=True))
            )
        if len(set(self.names)) != self.size:
            raise ValueError(f"Choice: options must differ, got {list(self.names)}")
        if not self.is_named:
            self._tabulate(values)

    def _tabulate(self, values: list) -> None:
        is_variable = lambda node: isinstance(node, Variable)
        self._structure = jax.tree.structure(values[0])
        for name, value in zip(self.names, values, strict=True):
            if any(is_variable(leaf) for leaf in jax.tree.leaves(value, is_leaf=is_variable)):
                raise ValueError(f"Choice: option {name!r} holds a variable; put the Choice inside instead")
            if jax.tree.structure(value) != self._structure:
                raise ValueError(f"Choice: option {name!r} differs in structure from {self.names[0]!r}")
        # Host copies: a variable must not hold device arrays, and float64 runs get float64 tables.
        try:
            rows = [[np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(value)] for value in values]
            self._tables = [np.stack(column) for column in zip(*rows, strict=True)]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Choice: options must be strings, or numbers of equal shapes ({error})"
            ) from error

    def init(self, uniform):
        return 2.0 * uniform - 1.0

    def project(self, param: Array) -> Array:
        return jnp.clip(param - param.mean(), -SPAN / 2, SPAN / 2)

    def index(self, param: Array) -> Array:
        return jnp.argmax(param).astype(jnp.int32)

    def decode(self, param: Array, temperature, key: Array | None) -> Any:
        if self.relax == "gumbel" and key is not None:
            param = param + jax.random.gumbel(key, (self.size,), param.dtype)
        soft = jax.nn.softmax(param / temperature)
        if self.relax == "softmax":
            return soft if self.is_named else self._rebuild(lambda table: _expectation(soft, table))
        winner, through = jnp.argmax(param), soft - jax.lax.stop_gradient(soft)
        if self.is_named:
            return jax.nn.one_hot(winner, self.size, dtype=soft.dtype) + through
        return self._rebuild(
            lambda table: jnp.asarray(table, float)[winner] + _weighted(through, _finite(table))
        )

    def _rebuild(self, leaf_of) -> Any:
        same = lambda table: np.all(table == table[:1])
        leaves = [numerics.as_float(t[0]) if same(t) else leaf_of(t) for t in self._tables]
        return jax.tree.unflatten(self._structure, leaves)

    def at(self, index) -> Any:
        if is_concrete(index):
            i = int(index)
            if self.is_named:
                return numerics.as_float(np.eye(self.size)[i])
            return jax.tree.unflatten(self._structure, [numerics.as_float(t[i]) for t in self._tables])
        if self.is_named:
            return jax.nn.one_hot(index, self.size, dtype=float)
        return self._rebuild(lambda table: jnp.asarray(table, float).at[index].get(mode="clip"))

    def index_of(self, value) -> int:
        if self.is_named:
            weights = np.asarray(value, np.float64)
            if weights.shape != (self.size,) or not np.allclose(np.sort(weights)[-2:], [0, 1][-self.size :]):
                raise ValueError(f"needs one-hot weights over {', '.join(self.names)}, got {value!r}")
            return int(weights.argmax())
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(value)]
        if jax.tree.structure(value) == self._structure:
            for i in range(self.size):
                if all(
                    np.allclose(t[i], leaf, rtol=1e-6) for t, leaf in zip(self._tables, leaves, strict=True)
                ):
                    return i
        raise ValueError(f"is none of the options {', '.join(self.names)}")

    def label(self, index: int) -> str:
        return self.names[int(index)]

    def steps(self, index: int) -> Sequence[int]:
        return [i for i in range(self.size) if i != index]

    def describe(self) -> str:
        return f"{', '.join(self.names)} ({self.size} option{'s' * (self.size > 1)})"

    def __repr__(self) -> str:
        return f"Choice({self.describe()})"


def _finite(table: np.ndarray) -> np.ndarray:
    """Infinite entries replaced by the largest finite one, so that 0 x inf never meets a gradient."""
    finite = table[np.isfinite(table)]
    return np.where(np.isfinite(table), table, finite.max() if finite.size else 0.0)


def _weighted(weights: Array, table: np.ndarray) -> Array:
    """Sum over options of weight x leaf, for finite leaves."""
    values = jnp.asarray(table, float)
    return jnp.sum(weights.reshape(weights.shape + (1,) * (values.ndim - 1)) * values, axis=0)


def _expectation(soft: Array, table: np.ndarray) -> Array:
    """The same for soft weights; infinite if an infinite leaf has any weight."""
    unbounded = _weighted(soft, ~np.isfinite(table)) > 0
    return jnp.where(unbounded, jnp.inf, _weighted(soft, _finite(table)))
