"""What a sweep will do, settled and checked before anything runs."""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffhw
from diffhw.search._sweep_order import ORDERS, Enumerated, order_of
from diffhw.search._sweep_store import FORMAT
from diffhw.spaces import Space

__all__ = ["Plan"]

# A chunk is large enough that its file costs little, and small enough that there are many.
_SMALLEST_CHUNK, _CHUNK, _LARGEST_CHUNK = 2**18, 2**22, 2**28
_MANY, _MOST_CHUNKS = 64, 1024
_LONGEST_CHUNK = 2**30  # offsets are int32
_BLOCK = {"cpu": 2**15}
_OTHER_BLOCK = 2**20
_LISTED = 2**16
_MOST = 2**62


class Plan:
    """Arguments of `search.sweep`, checked. Raises ValueError.

    order, chunk, chunks, total (designs), names (figures kept: the objective, then the metrics), metrics
    (places of the axes in ``names``), feasible (name or None), recorded (names), manifest.
    """

    def __init__(
        self,
        evaluate: Callable,
        space: Space,
        *,
        objective: str,
        order: str,
        budget: int | None,
        seed: int,
        top_k: int,
        pareto: tuple[str, ...],
        record: tuple[str, ...] | bool,
        chunk: int | None,
        block: int | None,
        identity: Mapping[str, Any],
        feasible: str | None,
    ):
        self.evaluate, self.space, self.objective = evaluate, space, objective
        for name, value in {"top_k": top_k, "chunk": chunk, "block": block, "budget": budget}.items():
            if value is not None and (isinstance(value, bool) or value != int(value) or value < 1):
                raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
        self.top_k, self.seed = int(top_k), int(seed)
        self.known = self._outputs()
        self.feasible = feasible if feasible in self.known else None
        self.names = tuple(dict.fromkeys([objective, *pareto]))
        if isinstance(pareto, str):
            raise ValueError(f"pareto must be names, such as ({pareto!r},), got {pareto!r}")
        self.pareto = tuple(dict.fromkeys(pareto))
        if record is True:
            self.recorded = tuple(self.known)
        else:
            self.recorded = tuple(dict.fromkeys(record or ()))
        for name in (*self.names, *self.recorded):
            self._check(name)
        self.metrics = [self.names.index(name) for name in self.pareto]
        self.total = self._amount(order, budget)
        wanted = int(block or _BLOCK.get(jax.default_backend(), _OTHER_BLOCK))
        wanted = min(wanted, int(chunk or wanted), max(256, 1 << (self.total - 1).bit_length()))
        self.order = order_of(order, space, wanted, self.seed)
        self.chunk = self._chunk_size(chunk)
        self.chunks = -(-self.total // self.chunk)
        self.manifest = self._manifest(identity)

    def _outputs(self) -> dict[str, Any]:
        index = np.zeros(len(self.space.sizes), np.int32)
        traced = jax.make_jaxpr(lambda index: self.evaluate(self.space.at(index)), return_shape=True)
        program, outputs = traced(index)
        self.program = _digest(program)
        if not isinstance(outputs, dict) or not outputs:
            raise ValueError(f"evaluate must return a dict of scalars, got {type(outputs).__name__}")
        for name, value in outputs.items():
            if getattr(value, "shape", None) != ():
                raise ValueError(f"evaluate: {name} must be a scalar, got shape {value.shape}")
        return outputs

    def _check(self, name: str) -> None:
        if name not in self.known:
            near = difflib.get_close_matches(str(name), list(self.known), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.known)}"
            raise ValueError(f"evaluate returns no {name!r}; {hint}")

    def _amount(self, order: str, budget: int | None) -> int:
        if order in ORDERS and budget is None and order != Enumerated.name:
            raise ValueError(f"order {order!r} needs a budget; only 'enumerate' can visit all designs")
        if order == Enumerated.name and not self.space.is_continuous:
            size = self.space.size
            budget = int(size) if budget is None else min(int(budget), int(size))
        total = int(budget or 1)  # of an order that will be refused
        if total > _MOST:
            raise ValueError(f"{total:.3g} designs are too many to visit; give a budget")
        return total

    def _chunk_size(self, chunk: int | None) -> int:
        block = self.order.block
        if chunk is None:
            chunk, limit = _SMALLEST_CHUNK, _SMALLEST_CHUNK if self.recorded else _LARGEST_CHUNK
            while chunk < limit and self.total > chunk * (_MANY if chunk < _CHUNK else _MOST_CHUNKS):
                chunk *= 2
        chunk = min(chunk, self.total)
        chunk = -(-chunk // block) * block  # whole blocks
        if chunk > _LONGEST_CHUNK:
            raise ValueError(f"chunk must be at most {_LONGEST_CHUNK:,}, got {chunk:,}")
        return int(chunk)

    def _manifest(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        try:
            identity = json.loads(json.dumps(identity))
        except TypeError as error:
            raise ValueError(f"identity must be plain numbers, strings, lists and dicts: {error}") from None
        return {
            "identity": identity,
            "space": {
                "variables": {slot.name: _described(slot) for slot in self.space.variables},
                "ties": {slot.name: list(slot.paths[1:]) for slot in self.space.variables if slot.paths[1:]},
                "size": str(self.space.size),
                "first design": _first(self.space),
            },
            "program": self.program,
            "objective": self.objective,
            "pareto": list(self.pareto),
            "feasible": self.feasible,
            "order": self.order.name,
            "seed": self.seed,
            "designs": self.total,
            "top_k": self.top_k,
            "record": list(self.recorded),
            "chunk": self.chunk,
            "block": self.order.block,
            "dtype": jnp.result_type(float).name,
            "platform": jax.default_backend(),
            "diffhw": diffhw.__version__,
            "jax": jax.__version__,
            "format": FORMAT,
        }


def _digest(program) -> str:
    """Of a traced function: its operations and the arrays within, not where it lies in memory."""
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", str(program.jaxpr)).encode())
    for constant in program.consts:
        digest.update(np.asarray(constant).tobytes())
    return digest.hexdigest()[:12]


def _described(slot) -> str:
    """The legal values of a variable, with a hash where the text does not list them all."""
    text = f"{type(slot.variable).__name__} {slot.variable.describe()}"
    if slot.size > _LISTED:
        return text
    labels = json.dumps([slot.variable.label(i) for i in range(slot.size)])
    return f"{text} [{hashlib.sha256(labels.encode()).hexdigest()[:12]}]"


def _first(space: Space) -> dict[str, Any]:
    """Every number of the first design: what does not vary is part of the space too."""
    design = space.at(np.zeros(len(space.sizes), np.int32))
    numbers = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(design)[0]:
        value = np.asarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "design"
        if value.dtype.kind not in "fiub":
            numbers[name] = str(leaf)
        elif value.ndim == 0:
            number = value.item()
            numbers[name] = number if np.isfinite(number) else str(number)  # nan differs from itself
        else:
            numbers[name] = hashlib.sha256(value.tobytes()).hexdigest()[:12]
    return numbers
