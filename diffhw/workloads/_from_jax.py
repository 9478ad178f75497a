"""Any JAX function as a network, from its jaxpr. Nothing is run and no weight is allocated."""

import sys
from collections.abc import Callable, Mapping, Sequence
from math import prod

import jax
import numpy as np

from diffhw.workloads._jax_walk import ACTIVATION, PARAMETER, Value, Walker
from diffhw.workloads._layer import Layer, Network, NetworkInfo, Operator, share_note

__all__ = ["from_jax"]


def _is_container(arg) -> bool:
    leaves = jax.tree.leaves(arg)
    return bool(leaves) and not (len(leaves) == 1 and leaves[0] is arg)


def _is_array(leaf) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _count_parameters(tree) -> int:
    """Elements of the trainable leaves: ``params`` of linen variables, ``nnx.Param``, else all."""
    if isinstance(tree, Mapping) and "params" in tree:
        tree = tree["params"]
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(tree, nnx.Module | nnx.State):
        state = nnx.state(tree) if isinstance(tree, nnx.Module) else tree
        tree = nnx.filter_state(state, nnx.Param)
    leaves = [leaf for leaf in jax.tree.leaves(tree) if _is_array(leaf)]
    return sum(
        prod(leaf.shape) for leaf in leaves if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )


def _unique(names: list[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(out)


def from_jax(
    fn: Callable,
    *abstract_args,
    name: str | None = None,
    params_argnums: int | Sequence[int] | None = None,
    trip_counts: int | Sequence[int] | None = None,
) -> Network:
    """Network of every product in ``fn(*abstract_args)``, from its jaxpr.

    fn: any traceable function: plain JAX, ``linen_module.apply``, an nnx module (also an abstract one
        from ``nnx.eval_shape``), a jitted function, a whole training step.
    abstract_args: arrays or ``jax.ShapeDtypeStruct`` (or pytrees of them); nothing is computed.
    name: of the network; default the function's.
    params_argnums: which arguments are parameters. A product whose second operand is made of parameters
        and constants alone is a weight layer, any other has ``weight_is_activation = 1``. Default: the
        module itself if ``fn`` is one; else the first of several arguments if it is a container (dict,
        list, dataclass, nnx state), as in ``apply(variables, x)``; closed-over arrays always are.
    trip_counts: runs of each while loop that holds products, in order of appearance (or one for all).

    scan multiplies by its length; cond takes the dearer branch and says so in ``info.notes``; backward
    convolutions and transposed ones have their true MACs. Layer names come from the name stack (linen,
    ``jax.named_scope``), else from the parameter's path, else from the primitive. Other primitives are
    listed in ``info.operators``, reshapes apart; their share of the elements is in the notes.

    Raises ValueError for a function without products, a while loop without trip count.

    >>> x, w = jax.ShapeDtypeStruct((8, 32), "float32"), jax.ShapeDtypeStruct((32, 16), "float32")
    >>> from_jax(lambda params, x: jax.nn.relu(x @ params["w"]), {"w": w}, x).summary()
    {'rows': 1, 'macs': 4096, 'macs_without_attention': 4096, 'params': 512}
    """
    owner = getattr(fn, "__self__", None)  # of a bound method such as linen's apply
    title = name or (
        type(owner).__name__ if owner is not None else getattr(fn, "__name__", type(fn).__name__)
    )
    if callable(fn) and _is_container(fn):
        abstract_args, params_argnums = (fn, *abstract_args), 0 if params_argnums is None else params_argnums
        fn = lambda module, *args: module(*args)
    if params_argnums is None:
        first = len(abstract_args) > 1 and _is_container(abstract_args[0])
        params_argnums = (0,) if first else ()
    elif isinstance(params_argnums, int):
        params_argnums = (params_argnums,)
    wrong = [i for i in params_argnums if not 0 <= i < len(abstract_args)]
    if wrong:
        raise ValueError(
            f"params_argnums: {wrong[0]} is not the index of one of {len(abstract_args)} arguments"
        )

    try:
        closed = jax.make_jaxpr(fn)(*abstract_args)
    except Exception as error:
        if type(error).__name__ != "TraceContextError":
            raise
        raise ValueError(
            f"{title}: a closed-over nnx module changes its state inside the function; give it as "
            f"an argument: from_jax(module, *inputs) or from_jax(fn, module, *inputs)"
        ) from error
    values = []
    for i, arg in enumerate(abstract_args):
        kind = PARAMETER if i in params_argnums else ACTIVATION
        for path, leaf in jax.tree_util.tree_flatten_with_path(arg)[0]:
            key = jax.dtypes.issubdtype(getattr(leaf, "dtype", np.dtype(float)), jax.dtypes.prng_key)
            label = jax.tree_util.keystr(path, simple=True, separator=".")
            values.append(Value(ACTIVATION if key else kind, label))
    walker = Walker(trip_counts)
    walker.run(closed.jaxpr, closed.consts, values, "", 1)
    layers = [found for found in walker.layers if found.count > 0]
    if not layers:
        raise ValueError(f"{title}: no convolution or matrix product found in the function")
    return _network(title, walker, layers, closed, abstract_args, params_argnums)


def _network(title, walker, layers, closed, args, params_argnums) -> Network:
    parameters = sum(_count_parameters(args[i]) for i in params_argnums)
    parameters += sum(
        prod(const.shape) for const in closed.consts if jax.numpy.issubdtype(const.dtype, jax.numpy.floating)
    )
    in_layers, produced = 0, 0
    for found in layers:
        size = found.numbers
        produced += found.count * size["n"] * size["g"] * size["k"] * size["p"] * size["q"]
        if not size["weight_is_activation"]:
            in_layers += found.count * size["g"] * size["k"] * size["c"] * size["r"] * size["s"]
    operators = tuple(
        Operator(scope, kind, elements, count) for (scope, kind, elements), count in walker.operators.items()
    )
    marked = ", ".join(map(str, params_argnums)) or "none"
    notes = [
        *walker.notes,
        f"parameters: argument(s) {marked} and closed-over arrays (see params_argnums)",
        share_note(operators, produced),
    ]
    if in_layers > parameters:
        notes.append(
            "some weights are used by several layers: other_params is negative so that params is right"
        )
    # Layers that ran zero times were dropped: indices of the rest move up.
    order = {id(found): i for i, found in enumerate(layers)}
    place = {i: order[id(found)] for i, found in enumerate(walker.layers) if id(found) in order}
    edges = {
        (place[source], place[i])
        for i, found in enumerate(walker.layers)
        for source in found.sources
        if i in place and source in place and source != i
    }
    return Network.create(
        [Layer(**found.numbers) for found in layers],
        counts=[found.count for found in layers],
        other_params=parameters - in_layers,
        info=NetworkInfo(
            name=title,
            names=_unique([found.name for found in layers]),
            edges=tuple(sorted(edges)),
            operators=operators,
            source="jaxpr",
            notes=tuple(notes),
        ),
    )
