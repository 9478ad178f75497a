"""What a network does between its layers, as a short list: all that integer evaluation needs to know.

A network that wants to be exported writes its forward pass a second time, on names in place of arrays:

    def graph(self):                          # of an nnx.Module
        g = Graph()
        x = g.relu(g.conv(g.input, "stem/conv"))
        for i, block in enumerate(self.blocks):
            y = g.relu6(g.conv(x, f"blocks/{i}/expand"))
            y = g.relu6(g.conv(y, f"blocks/{i}/depthwise"))
            y = g.conv(y, f"blocks/{i}/project")
            x = g.add(x, y) if block.residual else y
        return g.output(g.dense(g.mean(x), "head"))

A layer is named by its path in the module, joined by "/"; kernel, bias, strides, padding, dilation
and groups are read from the module there. Batch norms are folded into the layer before them first
(`fold_batch_norm`), so they have no step of their own. Arrays are channels last: (n, h, w, c).
"""

import difflib
from dataclasses import dataclass, field
from typing import Any

__all__ = ["OP_KINDS", "Graph", "Op"]

OP_KINDS = (
    "conv",
    "dense",
    "relu",
    "hard_sigmoid",
    "hard_swish",
    "lookup",
    "add",
    "multiply",
    "max_pool",
    "avg_pool",
    "mean",
    "concat",
    "slice",
    "shuffle",
    "flatten",
)
"""Kinds of steps, see the methods of `Graph` for what each does."""


@dataclass(frozen=True)
class Op:
    """One step.

    name: of its result, unique in the graph.  kind: of `OP_KINDS`.  inputs: names of results; "input"
    is the network's input.  layer: path of the module with the kernel (conv and dense only).
    settings: what else the kind needs, JSON-able: relu: high;  max_pool and avg_pool: window, strides,
    padding;  slice: start, stop;  shuffle: groups;  lookup: function.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    layer: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


class Graph:
    """A list of `Op` under construction. Each method adds a step and returns its name.

    Raises ValueError for the name of a result that does not exist (yet).

    >>> g = Graph()
    >>> g = g.output(g.dense(g.relu(g.dense(g.input, "first")), "second"))
    >>> [(op.kind, op.inputs) for op in g.ops]
    [('dense', ('input',)), ('relu', ('dense_0',)), ('dense', ('relu_0',))]
    """

    input = "input"

    def __init__(self):
        self.ops: list[Op] = []
        self.result: str | None = None

    def _add(self, kind, inputs, layer=None, **settings) -> str:
        names = ["input", *(op.name for op in self.ops)]
        for name in inputs:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, 1, 0.0)[0]
                raise ValueError(f"the graph has no result {name!r} for a {kind}; the nearest is {near!r}")
        name = f"{kind}_{sum(op.kind == kind for op in self.ops)}"
        self.ops.append(Op(name, kind, tuple(inputs), layer, settings))
        return name

    def conv(self, x: str, layer: str) -> str:
        """Two-dimensional convolution (any groups, strides, dilation) with the `nnx.Conv` at ``layer``."""
        return self._add("conv", [x], layer)

    def dense(self, x: str, layer: str) -> str:
        """Product over the last axis with the `nnx.Linear` at ``layer``."""
        return self._add("dense", [x], layer)

    def relu(self, x: str, high: float | None = None) -> str:
        """max(x, 0), and min(., high) if high is given."""
        return self._add("relu", [x], high=high)

    def relu6(self, x: str) -> str:
        """min(max(x, 0), 6)."""
        return self.relu(x, 6.0)

    def hard_sigmoid(self, x: str) -> str:
        """relu6(x + 3) / 6, as `jax.nn.hard_sigmoid`."""
        return self._add("hard_sigmoid", [x])

    def hard_swish(self, x: str) -> str:
        """The product of x and hard_sigmoid(x), as `jax.nn.hard_swish`."""
        return self._add("hard_swish", [x])

    def lookup(self, x: str, function: str) -> str:
        """A smooth function, "sigmoid" or "swish": computed in floating point, unlike all other steps."""
        if function not in ("sigmoid", "swish"):
            raise ValueError(f"function must be 'sigmoid' or 'swish', got {function!r}")
        return self._add("lookup", [x], function=function)

    def add(self, x: str, y: str) -> str:
        """The sum: the end of a residual block."""
        return self._add("add", [x, y])

    def multiply(self, x: str, y: str) -> str:
        """The product, broadcast; a y of shape (n, c) is taken as (n, 1, 1, c): squeeze and excite."""
        return self._add("multiply", [x, y])

    def max_pool(self, x: str, window=(2, 2), strides=None, padding="VALID") -> str:
        """Largest value under each window; strides default to the window (unlike `nnx.max_pool`)."""
        return self._pool("max_pool", x, window, strides, padding)

    def avg_pool(self, x: str, window=(2, 2), strides=None, padding="VALID") -> str:
        """Sum under each window over the window's size (padding counts, as in `nnx.avg_pool`)."""
        return self._pool("avg_pool", x, window, strides, padding)

    def _pool(self, kind, x, window, strides, padding):
        strides = window if strides is None else strides
        return self._add(kind, [x], window=list(window), strides=list(strides), padding=padding)

    def mean(self, x: str) -> str:
        """Mean over rows and columns: (n, h, w, c) to (n, c)."""
        return self._add("mean", [x])

    def concat(self, *xs: str) -> str:
        """Channels of all, one after the other."""
        return self._add("concat", xs)

    def slice(self, x: str, start: int | None, stop: int | None) -> str:
        """Channels start to stop, as in Python."""
        return self._add("slice", [x], start=start, stop=stop)

    def shuffle(self, x: str, groups: int) -> str:
        """Channel shuffle: channels seen as (groups, c / groups), transposed."""
        return self._add("shuffle", [x], groups=groups)

    def flatten(self, x: str) -> str:
        """(n, h, w, c) to (n, h w c)."""
        return self._add("flatten", [x])

    def output(self, x: str) -> "Graph":
        """Name the network's result; returns the graph."""
        if x not in ["input", *(op.name for op in self.ops)]:
            raise ValueError(f"the graph has no result {x!r} to return")
        self.result = x
        return self
