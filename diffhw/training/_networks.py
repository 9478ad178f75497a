"""Small real members of five efficient families, and the full-size ones, as flax nnx modules."""

import difflib
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from diffhw.training._blocks import conv
from diffhw.training._families import FAMILIES
from diffhw.training._plan import Step
from diffhw.workloads import Layer, Network, NetworkInfo, Operator

if TYPE_CHECKING:  # quantization loads its nnx parts when they are used
    from diffhw.quantization import Graph, LayerInfo

__all__ = ["ACTIVATIONS", "ConvNet", "abstract_network", "network", "network_names", "to_network"]

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "swish": jax.nn.swish,
    "sigmoid": jax.nn.sigmoid,
}


class ConvNet(nnx.Module):
    """A convolutional network made from a list of `Step`.

    Each conv or dense step is an `nnx.Conv` or `nnx.Linear` attribute of the step's name; its batch norm
    is ``<name>_norm``. Called with images (n, h, w, c), it returns logits (n, classes). Batch norms use the
    batch's statistics after ``train()`` and running averages after ``eval()``, in which it starts.

    name, input_shape (h, w, c), classes, steps: what it is; static.
    """

    def __init__(self, name: str, input_shape, steps: tuple[Step, ...], *, rngs: nnx.Rngs):
        self.name = name
        self.input_shape = tuple(input_shape)
        self.classes = steps[-1].shape[2]
        self.steps = tuple(steps)
        shapes = {"input": self.input_shape} | {step.name: step.shape for step in steps}
        # torchvision's start: fan-out for convolutions (fan-in where depthwise: equal to it per group).
        start = nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
        thin = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
        for step in steps:
            c, k = shapes[step.inputs[0]][2], step.shape[2]
            if step.kind == "dense":
                setattr(self, step.name, nnx.Linear(c, k, rngs=rngs))
            elif step.kind == "conv":
                made = nnx.Conv(
                    c,
                    k,
                    (step.filter, step.filter),
                    strides=(step.stride, step.stride),
                    padding=((step.pad, step.pad),) * 2,
                    feature_group_count=step.groups,
                    use_bias=not step.norm,
                    kernel_init=start if step.groups == 1 and step.norm else thin,
                    conv_general_dilated=conv,
                    rngs=rngs,
                )
                setattr(self, step.name, made)
                if step.norm:
                    setattr(self, f"{step.name}_norm", nnx.BatchNorm(k, momentum=0.9, rngs=rngs))
        self.eval()

    def __call__(self, x: Array) -> Array:
        """Logits (n, classes) of images (n, h, w, c)."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"{self.name} takes images of shape (n, {', '.join(map(str, self.input_shape))}), "
                f"got {tuple(x.shape)}"
            )
        made = {"input": x}
        for step in self.steps:
            y = self._run(step, *(made[name] for name in step.inputs))
            made[step.name] = y
        return made[self.steps[-1].name]

    def _run(self, step: Step, x: Array, *more: Array) -> Array:
        match step.kind:
            case "conv":
                y = getattr(self, step.name)(x)
                return getattr(self, f"{step.name}_norm")(y) if step.norm else y
            case "dense":
                return getattr(self, step.name)(x)
            case "act":
                return ACTIVATIONS[step.function](x)
            case "add":
                return x + more[0]
            case "multiply":
                return x * more[0][:, None, None, :]
            case "mean":
                return x.mean((1, 2))
            case "max_pool":
                pads = ((step.pad, step.pad),) * 2
                return nnx.max_pool(x, (step.filter,) * 2, (step.stride,) * 2, pads)
            case "concat":
                return jnp.concatenate([x, *more], -1)
            case "slice":
                return x[..., step.start : step.stop]
            case "shuffle":
                parts = x.reshape(*x.shape[:-1], step.groups, -1)
                return jnp.swapaxes(parts, -1, -2).reshape(x.shape)
        raise ValueError(f"{self.name} has a step of unknown kind {step.kind!r}")

    def layers(self) -> "tuple[LayerInfo, ...]":
        """The layers with kernels in order: path, kind, kernel shape, shapes, MACs per image."""
        from diffhw.quantization import layers_of

        return layers_of(self, jax.ShapeDtypeStruct((1, *self.input_shape), jnp.float32))

    def graph(self) -> "Graph":
        """The steps as a `quantization.Graph`, batch norms taken as folded: for integer export."""
        from diffhw.quantization import Graph

        g = Graph()
        made = {"input": g.input}
        for step in self.steps:
            made[step.name] = _graph_step(g, step, [made[name] for name in step.inputs])
        return g.output(made[self.steps[-1].name])


def _graph_step(g: Any, step: Step, inputs: list[str]) -> str:
    x = inputs[0]
    match step.kind:
        case "conv":
            return g.conv(x, step.name)
        case "dense":
            return g.dense(x, step.name)
        case "act":
            smooth = step.function in ("swish", "sigmoid")
            return g.lookup(x, step.function) if smooth else getattr(g, step.function)(x)
        case "max_pool":
            pads = ((step.pad, step.pad),) * 2 if step.pad else "VALID"
            return g.max_pool(x, (step.filter,) * 2, (step.stride,) * 2, pads)
        case "slice":
            return g.slice(x, step.start, step.stop)
        case "shuffle":
            return g.shuffle(x, step.groups)
    return getattr(g, step.kind)(*inputs)  # add, multiply, mean, concat


def network_names() -> tuple[str, ...]:
    """Names that `network` knows.

    >>> network_names()[:2]
    ('mobilenet_v2', 'shufflenet_v2')
    """
    return tuple(FAMILIES)


def network(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    rngs: Any = 0,
) -> ConvNet:
    """A network by name, freshly initialised, in evaluation mode.

    name: one of `network_names`; ``_small`` ones are for 8 x 8 to 32 x 32 pixels.  input_shape: (rows,
    columns, channels).  width: factor of all channel counts, rounded as the family does (the last 1 x 1
    convolution only grows; ShuffleNetV2's published tables for other widths differ from this rule).
    rngs: `nnx.Rngs`, or a seed.

    Raises ValueError for an unknown name (the nearest is named), an input too small, a bad width.

    >>> net = abstract_network("mobilenet_v2_small", input_shape=(8, 8, 1), classes=10)
    >>> len(net.layers())
    20
    """
    if name not in FAMILIES:
        near = difflib.get_close_matches(str(name), FAMILIES, 1, 0.0)[0]
        raise ValueError(
            f"there is no network {name!r}, did you mean {near!r}? (known: {', '.join(FAMILIES)})"
        )
    if len(input_shape) != 3 or any(int(size) != size or size < 1 for size in input_shape):
        raise ValueError(f"input_shape must be (rows, columns, channels), got {input_shape!r}")
    if classes < 1:
        raise ValueError(f"classes must be >= 1, got {classes!r}")
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width must be > 0, got {width!r}")
    h, w, c = (int(size) for size in input_shape)
    plan = FAMILIES[name].plan(name, (h, w, c), int(classes), width)
    rngs = nnx.Rngs(rngs) if isinstance(rngs, int) else rngs
    return ConvNet(name, plan.input_shape, tuple(plan.steps), rngs=rngs)


def abstract_network(
    name: str, *, input_shape: tuple[int, int, int], classes: int, width: float = 1.0
) -> ConvNet:
    """The same with shapes in place of weights: nothing is computed or allocated."""
    make = lambda: network(name, input_shape=input_shape, classes=classes, width=width)
    return nnx.eval_shape(make)


def to_network(model: ConvNet, batch: int = 1) -> Network:
    """The model as a `workloads.Network`, for cost models: layers in the order of ``model.layers()``.

    batch: images at once. Dense layers are GEMMs with p = batch; batch-norm parameters count as
    ``other_params`` (running averages do not).
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch must be an integer >= 1, got {batch!r}")
    shapes = {"input": model.input_shape} | {step.name: step.shape for step in model.steps}
    layers, names, edges, operators, other = [], [], set(), [], 0
    made_by: dict[str, set[int]] = {"input": set()}
    for step in model.steps:
        h, w, c = shapes[step.inputs[0]]
        p, q, k = step.shape
        sources = set().union(*(made_by[name] for name in step.inputs))
        if step.kind not in ("conv", "dense"):
            operators.append(Operator(step.name, step.function or step.kind, batch * p * q * k))
            made_by[step.name] = sources
            continue
        if step.kind == "dense":
            layers.append(Layer.create(p=batch, q=1, c=c, k=k))
        else:
            g, f, t = step.groups, step.filter, step.stride
            sizes: dict[str, Any] = dict(g=g, k=k // g, c=c // g, p=p, q=q, r=f, s=f, h=h, w=w)
            pads = dict(pad_top=step.pad, pad_left=step.pad)
            layers.append(Layer.create(n=batch, stride_h=t, stride_w=t, **sizes, **pads))
        other += 2 * k if step.norm else k
        edges |= {(source, len(names)) for source in sources}
        made_by[step.name] = {len(names)}
        names.append(step.name)
    info = NetworkInfo(
        name=model.name,
        names=tuple(names),
        edges=tuple(sorted(edges)),
        operators=tuple(operators),
        source=f"training.network({model.name!r}), input {model.input_shape}",
    )
    return Network.create(layers, other_params=other, info=info)
