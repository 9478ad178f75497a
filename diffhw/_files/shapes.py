"""Which loop of another tool plays which part: from the tensors that a loop indexes.

Ours: n batch, g groups, k, c channels, p, q output rows and columns, r, s filter rows and columns.
"""

from dataclasses import dataclass, field

__all__ = ["Shape", "Slide", "assign"]


@dataclass(frozen=True)
class Slide:
    """An axis of the input: index = stride * out + dilation * taps.

    axis: "h", "w" or "" where the file does not say.  out, taps: the file's loops, "" for none.
    stride, dilation: the coefficients, as numbers or as names that the instance gives.
    """

    axis: str
    out: str = ""
    taps: str = ""
    stride: str | int = 1
    dilation: str | int = 1


@dataclass(frozen=True)
class Shape:
    """loops: the file's loop -> ours.  tensors: the file's tensor -> "w", "i", "o".

    steps: our field (``stride_h`` ...) -> number or name of a coefficient.
    """

    loops: dict[str, str]
    tensors: dict[str, str]
    steps: dict[str, str | int] = field(default_factory=dict)

    def named(self, loop: str) -> str | None:
        """The file's name of our loop, None if it has none."""
        return next((name for name, ours in self.loops.items() if ours == loop), None)


_BATCH = {"n", "b", "batch"}


def assign(where: str, dims, weights: set, inputs: set, outputs: set, slides: list[Slide]):
    """(loops, steps) of a product of two tensors; slides' loops count as indexing the input.

    Raises ValueError, one sentence that begins with ``where``, for loops that play no part we know.
    """
    loops: dict[str, str] = {}
    steps: dict[str, str | int] = {}
    if len(slides) > 2:
        raise ValueError(f"{where}: an input with {len(slides)} sliding axes is not supported, at most 2 are")

    def take(dim: str, *parts: str) -> None:
        free = next((part for part in parts if part not in loops.values()), None)
        if free is None:
            rival = next(name for name, part in loops.items() if part == parts[-1])
            raise ValueError(
                f"{where}: the loops {rival!r} and {dim!r} both index the same tensors; one of each "
                "kind is supported"
            )
        loops[dim] = free

    axes = [one.axis for one in slides]
    for one in slides:
        axis = one.axis or next(letter for letter in "hw" if letter not in axes)
        axes = [axis if place == "" and slide is one else place for place, slide in zip(axes, slides)]
        if one.out:
            take(one.out, "p" if axis == "h" else "q")
        if one.taps:
            take(one.taps, "r" if axis == "h" else "s")
        steps[f"stride_{axis}"], steps[f"dilation_{axis}"] = one.stride, one.dilation
    for dim in dims:
        if dim in loops:
            continue
        part = (dim in weights, dim in inputs, dim in outputs)
        if part == (True, True, True):
            take(dim, "g")
        elif part == (True, False, True):
            take(dim, "k")
        elif part == (True, True, False):
            take(dim, "c")
        elif part == (False, True, True):
            take(dim, *("n",) if slides or str(dim).lower() in _BATCH else "pqn")
        else:
            raise ValueError(
                f"{where}: the loop {dim!r} indexes {_which(part)}; in a convolution or matrix product every "
                f"loop indexes two of the three tensors or all"
            )
    return loops, steps


def _which(part) -> str:
    names = [name for name, there in zip(("the weights", "the input", "the output"), part) if there]
    return f"only {names[0]}" if names else "no tensor"
