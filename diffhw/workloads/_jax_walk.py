"""A walk over a jaxpr: every product, how often it runs, what its second operand is made of."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from diffhw.workloads._jax_layers import conv_numbers, dot_numbers, ragged_numbers
from diffhw.workloads._layer import layer_numbers

__all__ = ["ACTIVATION", "PARAMETER", "Value", "Walker"]

CONSTANT, PARAMETER, ACTIVATION = range(3)
# No arithmetic and no data movement of their own.
_FREE = {
    *("reshape", "squeeze", "expand_dims", "copy", "copy_p", "stop_gradient", "name"),
    *("sharding_constraint", "pvary", "optimization_barrier"),
}
# Multiplications that are no layer: said in the notes.
_UNCOUNTED = {
    *(
        "fft",
        "cholesky",
        "triangular_solve",
        "lu",
        "qr",
        "geqrf",
        "householder_product",
        "eigh",
        "eig",
        "svd",
    ),
    *("schur", "tridiagonal_solve", "custom_call", "ffi_call", "pure_callback", "io_callback"),
}
_LEAF_NAMES = {"kernel", "value", "weight", "w", "embedding", "params", "raw_value"}


@dataclass(frozen=True)
class Value:
    """What is known of a variable: constant, parameter or activation; its name; the layers it comes from."""

    kind: int = ACTIVATION
    label: str = ""
    made_by: frozenset = frozenset()


def _join(values: Sequence[Value]) -> Value:
    if not values:
        return Value(CONSTANT)
    top = max(values, key=lambda v: v.kind)
    return Value(top.kind, top.label, frozenset().union(*(v.made_by for v in values)))


@dataclass
class _Found:
    name: str
    numbers: dict
    count: int
    sources: frozenset

    @property
    def macs(self) -> int:
        return self.count * prod(self.numbers[axis] for axis in ("n", "g", "k", "c", "p", "q", "r", "s"))


def _scope(outer: str, eqn) -> str:
    inner = str(eqn.source_info.name_stack)
    return "/".join(part for part in (outer, inner) if part)


def _readable(scope: str) -> tuple[str, bool]:
    """Name stack without transform wrappers, and whether it belongs to a backward pass."""
    backward = "transpose(" in scope
    plain = re.sub(r"[A-Za-z_]+\(|\)", "", scope)
    parts = [part for part in plain.split("/") if part and part not in ("checkpoint", "rematted_computation")]
    return ".".join(parts), backward


def _sub_jaxprs(params: Mapping) -> list:
    """(jaxpr, its constants) in an equation's parameters, closed ones opened."""
    found = []
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "jaxpr") and hasattr(one, "consts"):
                found.append((one.jaxpr, one.consts))
            elif hasattr(one, "eqns") and hasattr(one, "invars"):
                found.append((one, ()))
    return found


class Walker:
    def __init__(self, trip_counts):
        self.layers: list[_Found] = []
        self.operators: dict[tuple[str, str, int], int] = {}
        self.notes: list[str] = []
        self.trip_counts = trip_counts
        self.loops = 0

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def run(self, jaxpr, consts, values: Sequence[Value], outer: str, times: int) -> list[Value]:
        """Walk one jaxpr; returns what is known of its outputs."""
        env: dict[Any, Value] = dict(zip(jaxpr.constvars, [Value(PARAMETER)] * len(consts)))
        env |= dict(zip(jaxpr.invars, values))
        read = lambda atom: Value(CONSTANT) if hasattr(atom, "val") else env.get(atom, Value())
        for eqn in jaxpr.eqns:
            outs = self.equation(eqn, [read(atom) for atom in eqn.invars], _scope(outer, eqn), times)
            env |= dict(zip(eqn.outvars, outs))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn, values, scope: str, times: int) -> list[Value]:
        kind = eqn.primitive.name
        special = getattr(self, f"_{kind}", None)
        if special is not None:
            return special(eqn, values, scope, times)
        if (subs := _sub_jaxprs(eqn.params)) and (outs := self.call(eqn, subs, values, scope, times)):
            return outs
        out = _join(values)
        if kind in _UNCOUNTED:
            self.note(f"{kind} multiplies, but is no layer: its work is not counted in the MACs")
            out = Value(ACTIVATION, "", out.made_by)
        self.operator(eqn, out, scope, times)
        return [out] * len(eqn.outvars)

    def operator(self, eqn, out: Value, scope: str, times: int) -> None:
        if eqn.primitive.name in _FREE or out.kind == CONSTANT:
            return
        elements = sum(prod(var.aval.shape) for var in eqn.outvars if hasattr(var.aval, "shape"))
        key = (_readable(scope)[0] or eqn.primitive.name, eqn.primitive.name, elements)
        self.operators[key] = self.operators.get(key, 0) + times

    def layer(self, eqn, numbers: dict, values, weight: Value, scope: str, times: int) -> list[Value]:
        if 0 in (numbers.get("n", 1), numbers["c"], numbers["p"], numbers["k"]):
            return [Value()]  # an empty product is no work
        name, backward = _readable(scope)
        path = [part for part in weight.label.split(".") if part not in _LEAF_NAMES]
        name = name or ".".join(path) or f"{eqn.primitive.name}{len(self.layers)}"
        sources = frozenset().union(*(value.made_by for value in values))
        numbers = layer_numbers(**numbers, weight_is_activation=int(weight.kind == ACTIVATION))
        index = len(self.layers)
        self.layers.append(_Found(name + (".backward" if backward else ""), numbers, times, sources))
        return [Value(ACTIVATION, "", frozenset({index}))]

    def _conv_general_dilated(self, eqn, values, scope, times):
        numbers, notes = conv_numbers(eqn)
        for note in notes:
            self.note(note)
        return self.layer(eqn, numbers, values, values[1], scope, times)

    def _dot_general(self, eqn, values, scope, times):
        swap = values[0].kind != ACTIVATION and values[1].kind == ACTIVATION
        weight = values[0] if swap else values[1]
        return self.layer(eqn, dot_numbers(eqn, swap), values, weight, scope, times)

    def _ragged_dot_general(self, eqn, values, scope, times):
        self.note(
            "a ragged product is one matrix product of all its rows; its groups' weights are not separate"
        )
        return self.layer(eqn, ragged_numbers(eqn), values, values[1], scope, times)

    def call(self, eqn, subs, values, scope, times) -> list[Value] | None:
        """jit, remat, custom rules, shard_map and whatever else holds a body; None if it is plain."""
        kind = eqn.primitive.name
        if kind == "shard_map":
            sizes = dict(eqn.params["mesh"].shape)
            shards = prod(sizes[axis] for axis in eqn.params.get("manual_axes", sizes))
            self.note(f"shard_map: shapes are those of one shard, counted {shards} times")
            times *= shards
        jaxpr, consts = subs[0]
        if len(subs) == 1 and len(jaxpr.invars) == len(values) and len(jaxpr.outvars) == len(eqn.outvars):
            if not any(_sub_jaxprs(e.params) or len(e.outvars) for e in jaxpr.eqns):
                return None
            if kind.startswith(("reduce", "scatter", "sort", "select_and", "argm")):
                return None
            return self.run(jaxpr, consts, values, scope, times)
        mark = self.mark()
        grid = getattr(eqn.params.get("grid_mapping"), "grid", ())
        steps = prod(size for size in grid if isinstance(size, int))
        for jaxpr, consts in subs:
            unknown = [Value(ACTIVATION, "", _join(values).made_by)] * len(jaxpr.invars)
            self.run(jaxpr, consts, unknown, scope, times * steps)
        if not self.macs_since(mark):
            self.restore(mark)
            return None
        how = f"{steps} grid steps" if grid else "once for each body"
        self.note(f"{kind}: the products in its body are counted {how}, all operands as activations")
        return [Value(ACTIVATION, "", frozenset({len(self.layers) - 1}))] * len(eqn.outvars)

    def _scan(self, eqn, values, scope, times):
        closed, length = eqn.params["jaxpr"], eqn.params["length"]
        fixed, carried = eqn.params["num_consts"], eqn.params["num_carry"]
        jaxpr = closed.jaxpr
        inside = list(values)
        for i in range(fixed, fixed + carried):
            if jaxpr.outvars[i - fixed] is not jaxpr.invars[i]:  # changes from step to step
                inside[i] = Value(ACTIVATION, "", values[i].made_by)
        return self.run(jaxpr, closed.consts, inside, scope, times * length)

    def _while(self, eqn, values, scope, times):
        cond, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
        head, fixed = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        carry = [Value(ACTIVATION, "", v.made_by) for v in values[head + fixed :]]
        mark, index = self.mark(), self.loops
        self.loops += 1  # inner loops are numbered after this one
        self.run(body.jaxpr, body.consts, [*values[head : head + fixed], *carry], scope, times)
        self.run(cond.jaxpr, cond.consts, [*values[:head], *carry], scope, times)
        products = self.macs_since(mark)
        self.restore(mark)
        if products:
            self.loops = index + 1
            trips = self.trips(index, scope)
        else:
            self.loops, trips = index, 1
            self.note("a while loop without products is listed as if it ran once")
        outs = self.run(body.jaxpr, body.consts, [*values[head : head + fixed], *carry], scope, times * trips)
        self.run(cond.jaxpr, cond.consts, [*values[:head], *carry], scope, times * (trips + 1))
        return outs

    def trips(self, index: int, scope: str) -> int:
        given = self.trip_counts
        if isinstance(given, int):
            trips = given
        elif given is not None and index < len(given):
            trips = given[index]
        else:
            place = _readable(scope)[0] or "the top level"
            raise ValueError(
                f"while loop {index} (in {place}) holds products and runs an unknown number of times: pass "
                f"trip_counts=[...] with one integer per such loop in order of appearance, or one for all"
            )
        if isinstance(trips, bool) or not isinstance(trips, int | np.integer) or trips < 0:
            raise ValueError(f"trip_counts must be integers >= 0, got {trips!r} for while loop {index}")
        self.note(f"while loop {index} counted {trips} times, as given in trip_counts")
        return int(trips)

    def _cond(self, eqn, values, scope, times):
        mark, loops, results = self.mark(), self.loops, []
        for branch in eqn.params["branches"]:
            self.loops = loops
            outs = self.run(branch.jaxpr, branch.consts, values[1:], scope, times)
            results.append((self.macs_since(mark), self.mark(), outs, self.loops))
            self.restore(mark)
        costs = [macs for macs, *_ in results]
        best = int(np.argmax(costs))
        _, state, outs, _ = results[best]
        self.restore(state)
        self.loops = max(loops for *_, loops in results)
        if len(set(costs)) > 1:
            place = _readable(scope)[0] or "the top level"
            shown = ", ".join(f"{macs:,}" for macs in costs)
            self.note(f"a conditional in {place} is counted by its dearest branch ({shown} MACs)")
        return outs

    def mark(self):
        return list(self.layers), dict(self.operators), list(self.notes)

    def restore(self, mark) -> None:
        self.layers, self.operators, self.notes = (type(part)(part) for part in mark)

    def macs_since(self, mark) -> int:
        return sum(found.macs for found in self.layers[len(mark[0]) :])
