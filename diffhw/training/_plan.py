"""A network as a list of steps: what its forward pass, its graph, its layer list and its cost all read.

Shapes are (rows, columns, channels) of one image.
"""

from dataclasses import dataclass

__all__ = ["Plan", "Step", "rounded"]


@dataclass(frozen=True)
class Step:
    """One step of a forward pass. Static: hashable, plain Python.

    name: of the step and its result; that of the nnx module for conv and dense.
    kind: conv, dense, act, add, multiply, max_pool, mean, concat, slice, shuffle.
    inputs: names of results; "input" is the image.  shape: of the result.
    filter, stride, pad: of a conv or max_pool (square; pad on every side).  groups: of a conv or shuffle.
    norm: a batch norm follows the conv (and it has no bias).  function: of an act.
    start, stop: channels of a slice.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, int, int]
    filter: int = 1
    stride: int = 1
    pad: int = 0
    groups: int = 1
    norm: bool = False
    function: str = ""
    start: int = 0
    stop: int = 0


def rounded(channels: float, by: int) -> int:
    """Nearest multiple of ``by``, not below 90 % of ``channels``: the rounding MobileNets use.

    >>> rounded(24 * 0.5, 8), rounded(24 * 0.5, 4)
    (16, 12)
    """
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest + by if nearest < 0.9 * channels else nearest


class Plan:
    """A list of `Step` under construction. Each method adds steps and returns the name of the result."""

    def __init__(self, input_shape: tuple[int, int, int], title: str):
        self.steps: list[Step] = []
        self.title = title
        self.shapes = {"input": input_shape}
        self.input_shape = input_shape

    def _add(self, step: Step) -> str:
        if min(step.shape) < 1:
            raise ValueError(
                f"{self.title}: input_shape {self.input_shape} is too small: {step.name} has no pixel left"
            )
        self.steps.append(step)
        self.shapes[step.name] = step.shape
        return step.name

    def conv(
        self,
        x: str,
        name: str,
        channels: int,
        filter: int,
        *,
        act: str,
        stride: int = 1,
        pad: int | None = None,
        groups: int = 1,
        norm: bool = True,
    ) -> str:
        """Convolution, batch norm (or bias), activation ("" for none). pad: default half the filter."""
        h, w, _ = self.shapes[x]
        pad = filter // 2 if pad is None else pad
        p, q = ((size + 2 * pad - filter) // stride + 1 for size in (h, w))
        self._add(Step(name, "conv", (x,), (p, q, channels), filter, stride, pad, groups=groups, norm=norm))
        return self.act(name, act)

    def depthwise(self, x: str, name: str, filter: int, *, act: str, stride: int = 1) -> str:
        """One filter per channel."""
        c = self.shapes[x][2]
        return self.conv(x, name, c, filter, act=act, stride=stride, groups=c)

    def dense(self, x: str, name: str, channels: int, *, act: str = "") -> str:
        """Product over channels, after `mean`."""
        self._add(Step(name, "dense", (x,), (1, 1, channels)))
        return self.act(name, act)

    def act(self, x: str, function: str) -> str:
        """An activation: relu, relu6, swish, sigmoid; "" is none."""
        if not function:
            return x
        return self._add(Step(f"{x}_{function}", "act", (x,), self.shapes[x], function=function))

    def add(self, x: str, y: str, name: str) -> str:
        """The end of a residual block."""
        return self._add(Step(name, "add", (x, y), self.shapes[x]))

    def squeeze_excite(self, x: str, name: str, squeezed: int, *, act: str) -> str:
        """Channels of x times a gate computed from their means (Hu et al., arXiv 1709.01507)."""
        c = self.shapes[x][2]
        s = self.mean(x, f"{name}_mean")
        s = self.dense(s, f"{name}_squeeze", squeezed, act=act)
        s = self.dense(s, f"{name}_excite", c, act="sigmoid")
        return self._add(Step(f"{name}_scale", "multiply", (x, s), self.shapes[x]))

    def max_pool(self, x: str, name: str, filter: int, stride: int, pad: int = 0) -> str:
        """Largest value under each window."""
        h, w, c = self.shapes[x]
        p, q = ((size + 2 * pad - filter) // stride + 1 for size in (h, w))
        return self._add(Step(name, "max_pool", (x,), (p, q, c), filter, stride, pad))

    def mean(self, x: str, name: str) -> str:
        """Mean over pixels."""
        return self._add(Step(name, "mean", (x,), (1, 1, self.shapes[x][2])))

    def concat(self, x: str, y: str, name: str) -> str:
        """Channels of x, then those of y."""
        h, w, c = self.shapes[x]
        return self._add(Step(name, "concat", (x, y), (h, w, c + self.shapes[y][2])))

    def slice(self, x: str, name: str, start: int, stop: int) -> str:
        """Channels start to stop."""
        h, w, _ = self.shapes[x]
        return self._add(Step(name, "slice", (x,), (h, w, stop - start), start=start, stop=stop))

    def shuffle(self, x: str, name: str, groups: int) -> str:
        """Channel shuffle (Zhang et al., arXiv 1707.01083)."""
        return self._add(Step(name, "shuffle", (x,), self.shapes[x], groups=groups))
