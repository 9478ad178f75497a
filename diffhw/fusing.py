"""One kernel for all results of a function: what XLA on CPU does not do by itself.

XLA on CPU gives every result of a program a kernel of its own, and so repeats for each what they share: a
cost of three figures costs three times one figure, a gradient in 67 numbers up to 67 times. There is one
operation with several results that it compiles as one kernel: a reduction of several arrays at once.
`joined` evaluates the function along an axis of two equal entries, which is never stored, and takes the
larger of the two: the same numbers, bit for bit, from one pass that computes what is shared once. The
compiler sees that both entries are the same and drops one.

What leaves a joined function is in memory, so no user of it computes it anew: cutting a large model into
joined stages bounds how much is repeated, which otherwise grows with every stage. Measured
(docs/performance.md, "One kernel for many results").
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

__all__ = ["joined"]

MOST = 34
"""Results in one kernel. With many more LLVM gives up on vectors (50 worked on the loop nest's gradient,
67 did not: it stops telling apart more than about 250 pointers)."""


def _lowest(dtype) -> Array:
    return jnp.asarray(-jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min, dtype)


def _larger(left, right):
    return tuple(jnp.maximum(a, b) for a, b in zip(left, right, strict=True))


def _one_kernel(results: list[Array]) -> list[Array]:
    """The larger along the first axis of each, in one reduction for those of one shape."""
    shapes = list(dict.fromkeys(part.shape for part in results))
    out: dict[int, Array] = {}
    for shape in shapes:
        which = [i for i, part in enumerate(results) if part.shape == shape]
        parts = tuple(results[i] for i in which)
        if len(parts) == 1:
            parts = (*parts, parts[0])  # alone it would be simplified away
        reduced = lax.reduce(parts, tuple(_lowest(part.dtype) for part in parts), _larger, (0,))
        out.update(zip(which, reduced, strict=False))
    return [out[i] for i in range(len(results))]


def _evaluated(flat: Callable, leaves: list[Array], most: int, apart: int) -> list[Array]:
    """Results of ``flat(*leaves)``, a list of arrays, by one kernel for every ``most`` of them."""
    out: list[Array] = []
    while True:
        # Each kernel along an axis of its own length: else XLA would merge what kernels have in common
        # into arrays in memory, on which they no longer vectorise.
        length = 2 + apart + len(out) // most
        wide = [
            lax.rev(lax.broadcast_in_dim(x, (length, *x.shape), range(1, x.ndim + 1)), (0,)) for x in leaves
        ]
        results = jax.vmap(flat, axis_size=length)(*wide)
        out += _one_kernel(results[len(out) : len(out) + most])
        if len(out) == len(results):
            return out


# Slopes of a joined function are joined too, each way: a linear map that brings its own transpose.
# Inputs: ``count`` places, then what moves. push: along the inputs; pull: given which results matter, its
# transpose, of the places and the cotangents of those (a zero for the others would meet infinite slopes of
# what nobody asked for); plain: push before it was joined, for derivatives of derivatives.
_slopes = Primitive("joined_slopes")
_slopes.multiple_results = True
_slopes.def_impl(lambda *args, push, **_: push(*args))
_slopes.def_abstract_eval(
    lambda *args, push, **_: [ShapedArray(out.shape, out.dtype) for out in jax.eval_shape(push, *args)]
)
mlir.register_lowering(_slopes, mlir.lower_fun(lambda *args, push, **_: push(*args), multiple_results=True))


def _slopes_batched(args, dims, *, push, pull, plain, count):
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    # All that moves gets the axis: what the transpose returns for it has one.
    moved = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(args[count:], dims[count:], strict=True)
    ]
    places = [None if d is None else d for d in dims[:count]]
    axes = lambda arguments: (*places, *[0] * (len(arguments) - count))
    over = lambda function: lambda *x: jax.vmap(function, in_axes=axes(x), axis_size=size)(*x)
    functions = {"push": over(push), "pull": lambda live: over(pull(live)), "plain": over(plain)}
    out = _slopes.bind(*args[:count], *moved, count=count, **functions)
    return out, [0] * len(out)


def _slopes_transposed(cotangents, *args, pull, count, **_):
    live = tuple(not isinstance(part, ad.Zero) for part in cotangents)
    along = [part for part, keep in zip(cotangents, live, strict=True) if keep]
    return [None] * count + list(pull(live)(*args[:count], *along))


def _slopes_moved(primals, tangents, *, plain, **_):
    return jax.jvp(plain, primals, [ad.instantiate_zeros(part) for part in tangents])


batching.primitive_batchers[_slopes] = _slopes_batched
ad.primitive_transposes[_slopes] = _slopes_transposed
ad.primitive_jvps[_slopes] = _slopes_moved


_running: list[bool] = []  # joined functions being looked at; whether one was met inside


def joined(function: Callable, most: int = MOST, apart: int = 0) -> Callable:
    """``function``, its results computed together in one kernel on CPU; elsewhere, ``function`` itself.

    function: of any pytrees of numbers, to a pytree of arrays; pure, no state, cheap enough that all of it
    is wanted: no result is left out if nobody asks for it. Meant for scalars ``()`` under `jax.vmap`, as all
    kernels of `diffhw.models` are; results of several shapes take a kernel per shape.
    most:     results in one kernel; more of them are computed in several, which repeat what they share.

    Same values bit for bit, up to contractions (fused multiply-adds) that the compiler chooses per kernel.
    Differentiable like ``function``, once in reverse mode (slopes are joined likewise); second derivatives
    only in forward mode over it. Raises what ``function`` raises.

    >>> import jax
    >>> both = joined(lambda x: (jax.numpy.exp(x), 2 * jax.numpy.exp(x)))
    >>> [float(part) for part in both(0.0)]
    [1.0, 2.0]
    """

    @functools.wraps(function)
    def run(*args):
        if jax.default_backend() != "cpu":
            return function(*args)
        leaves, structure = jax.tree.flatten(args)
        leaves = [jnp.asarray(x) for x in leaves]
        found: dict = {}

        def flat(*leaves):
            results, found["structure"] = jax.tree.flatten(function(*jax.tree.unflatten(structure, leaves)))
            return [jnp.asarray(part) for part in results]

        if _running:
            _running[-1] = True
        _running.append(False)
        try:
            jax.eval_shape(flat, *leaves)
        finally:
            in_stages = _running.pop()
        if in_stages:
            return function(*args)

        @jax.custom_jvp
        def value(*leaves):
            return _evaluated(flat, list(leaves), most, apart)

        def rule(primals, tangents):
            moving = [i for i, part in enumerate(tangents) if not isinstance(part, SymbolicZero)]
            count = len(primals)

            def at(places):
                """``flat`` of what moves, and where it is."""

                def of(*moved):
                    full = list(places)
                    for i, part in zip(moving, moved, strict=True):
                        full[i] = part
                    return flat(*full)

                return of, [places[i] for i in moving]

            def plain(*x):
                of, here = at(x[:count])
                return jax.jvp(of, here, list(x[count:]))[1]

            def pull(live):
                def back(*x):
                    of, here = at(x[:count])
                    asked = lambda *moved: [part for part, keep in zip(of(*moved), live, strict=True) if keep]
                    return list(jax.vjp(asked, *here)[1](list(x[count:])))

                return together(back)

            # Not along an axis of the value's length: see `_evaluated`.
            together = lambda slopes: lambda *x: _evaluated(slopes, list(x), most, apart + 3)
            ways = {"push": together(plain), "pull": pull, "plain": plain}
            moved = [tangents[i] for i in moving]
            return value(*primals), _slopes.bind(*primals, *moved, count=count, **ways)

        value.defjvp(rule, symbolic_zeros=True)
        results = value(*leaves)
        return jax.tree.unflatten(found["structure"], results)

    return run
