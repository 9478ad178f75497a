"""The layers of an nnx model, found by running it once on shapes; the hooks that find and change them.

nnx has no way to intercept calls, so a hook is a subclass: the modules of a *copy* of the model get a
class that calls the hook in place of the module. The user's model is never touched.
"""

import functools
from dataclasses import dataclass, replace

import jax
import numpy as np

__all__ = ["LayerInfo", "layers_of"]


@dataclass(frozen=True)
class LayerInfo:
    """One layer with a kernel, in the order of its first call.

    path: of the module, joined by "/".  kind: its class.  kernel_shape, weights: of the kernel.
    input_shape, output_shape: of the first call, batch included.  macs: per example, all calls.
    calls: how often one forward pass runs it.
    """

    path: str
    kind: str
    kernel_shape: tuple[int, ...]
    weights: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int
    calls: int = 1


@functools.cache
def _hooked(cls):
    """A subclass of a module class whose call goes through the instance's hook. One per class."""

    class Hooked(cls):
        def __call__(self, x, *args, **kwargs):
            return vars(self)["_diffhw_hook"](super().__call__, x, *args, **kwargs)

    Hooked.__name__, Hooked.__qualname__, Hooked.__module__ = cls.__name__, cls.__qualname__, cls.__module__
    return Hooked


def hook_module(module, hook) -> None:
    """From now on a call of ``module`` is ``hook(call, x, ...)``, ``call`` being the module's own."""
    object.__setattr__(module, "__class__", _hooked(type(module)))
    vars(module)["_diffhw_hook"] = hook


def path_name(path) -> str:
    """``blocks/0/conv`` for ("blocks", 0, "conv")."""
    return "/".join(str(key) for key in path)


def kernel_modules(model) -> dict:
    """{path name: module} of all convolutions and dense layers, in the graph's order."""
    from flax import nnx

    kinds = (nnx.Conv, nnx.ConvTranspose, nnx.Linear, nnx.LinearGeneral)
    return {path_name(path): m for path, m in nnx.iter_modules(model) if isinstance(m, kinds)}


def _macs(module, x, y) -> int:
    """Multiply-accumulates of one example."""
    from flax import nnx

    kernel = module.kernel.shape
    if isinstance(module, nnx.ConvTranspose):
        return int(np.prod(x.shape[1:-1])) * int(np.prod(kernel))
    features = np.prod(module.out_features) if isinstance(module, nnx.LinearGeneral) else kernel[-1]
    return int(np.prod(y.shape[1:]) // features) * int(np.prod(kernel))


def layers_of(model, *args, **kwargs) -> tuple[LayerInfo, ...]:
    """The convolutions and dense layers that ``model(*args, **kwargs)`` runs, in the order of first call.

    args: one batch (arrays or `jax.ShapeDtypeStruct`, batch first); nothing is computed. Layers that are
    never called are left out. Raises ValueError for a model without any.
    """
    from flax import nnx

    graphdef, state = nnx.split(model)
    found: dict[str, LayerInfo] = {}

    def run(state, *args):
        copy = nnx.merge(graphdef, state)
        for path, module in kernel_modules(copy).items():
            hook_module(module, functools.partial(note, path, module))
        return copy(*args, **kwargs)

    def note(path, module, call, x, *args, **kwargs):
        y = call(x, *args, **kwargs)
        macs = _macs(module, x, y)
        if path in found:
            old = found[path]
            found[path] = replace(old, macs=old.macs + macs, calls=old.calls + 1)
        else:
            kernel = tuple(module.kernel.shape)
            found[path] = LayerInfo(
                path, type(module).__name__, kernel, int(np.prod(kernel)), x.shape, y.shape, macs
            )
        return y

    jax.eval_shape(run, state, *args)
    if not found:
        raise ValueError("the model calls no nnx convolution or dense layer: there is nothing to quantize")
    return tuple(found.values())
