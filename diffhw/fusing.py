"""One kernel for all results of a function: what XLA on CPU does not do by itself.

XLA on CPU gives every result of a program a kernel of its own, and so repeats for each what they share: a
cost of three figures costs three times one figure, a gradient in 67 numbers up to 67 times. There is one
operation with several results that it compiles as one kernel: a reduction of several arrays at once.
`joined` evaluates the function along an axis of two equal entries, which is never stored, and takes the
larger of the two: the same numbers from one pass that computes what is shared once. Of elementwise code
the compiler sees that both entries are the same and drops one; other code is left alone.

What leaves a joined function is in memory, so no user of it computes it anew: cutting a large model into
joined stages bounds how much is repeated, which otherwise grows with every stage. Measured
(docs/performance.md, "One kernel for many results").
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer, eval_jaxpr
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

__all__ = ["joined"]

MOST = 34
"""Results in one kernel, unless said otherwise. With too many LLVM gives up on vectors: of the loop nest's
gradient 50 still had them and 67 had not (presumably it tells no more than some 250 arrays apart, inputs
included, so that functions of fewer inputs may have more results)."""

_LEFT_ALONE = {"cond", "conv_general_dilated", "dot_general", "fft", "pure_callback", "ragged_dot_general"}
_LEFT_ALONE |= {
    "scan",
    "scatter",
    "scatter-add",
    "sort",
    "top_k",
    "while",
    "custom_linear_solve",
    "shard_map",
}
"""Operations that would really be done once per entry of the axis."""


def _lowest(dtype) -> Array:
    if jnp.issubdtype(dtype, jnp.bool_):
        return jnp.asarray(False)
    return jnp.asarray(-jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min, dtype)


def _larger(left, right):
    return tuple(jnp.maximum(a, b) for a, b in zip(left, right, strict=True))


def _one_kernel(results: Sequence[Array]) -> list[Array]:
    """The larger along the first axis of each, in one reduction for those of one shape and type."""
    out: dict[int, Array] = {}
    for kind in dict.fromkeys((part.shape, part.dtype) for part in results):
        which = [i for i, part in enumerate(results) if (part.shape, part.dtype) == kind]
        parts = tuple(results[i] for i in which)
        reduced = lax.reduce(parts, tuple(_lowest(part.dtype) for part in parts), _larger, (0,))
        out.update(zip(which, reduced, strict=True))
    return [out[i] for i in range(len(results))]


def _evaluated(flat: Callable, leaves: Sequence, most: int, apart: int) -> list[Array]:
    """Results of ``flat(*leaves)``, a list of arrays, by one kernel for every ``most`` of them."""
    leaves = [jnp.asarray(x) for x in leaves]
    out: list[Array] = []
    while True:
        # Each kernel along an axis of its own length: else XLA would merge what kernels have in common
        # into arrays in memory, on which they no longer vectorise. Reversed, or it would see a broadcast
        # and take divisions and logarithms out of the kernel.
        length = 2 + apart + len(out) // most
        wide = [
            lax.rev(lax.broadcast_in_dim(x, (length, *x.shape), range(1, x.ndim + 1)), (0,)) for x in leaves
        ]
        results = jax.vmap(flat, axis_size=length)(*wide)
        out += _one_kernel(results[len(out) : len(out) + most])
        if len(out) == len(results):
            return out


# Slopes of a joined function are joined too, each way: a linear map that brings its own transpose.
# Inputs: ``count`` places, then what moves. plain: the map, for further derivatives; push: the same joined;
# back: which results matter -> (push, plain) of its transpose, from the places and the cotangents of those
# (a zero for the others would meet infinite slopes of what nobody asked for); None for a transpose itself.
_slopes = Primitive("joined_slopes")
_slopes.multiple_results = True
_slopes.def_impl(lambda *args, push, **_: push(*args))
_slopes.def_abstract_eval(
    lambda *args, push, **_: [one.strip_weak_type() for one in jax.make_jaxpr(push)(*args).out_avals]
)
mlir.register_lowering(_slopes, mlir.lower_fun(lambda *args, push, **_: push(*args), multiple_results=True))


def _slopes_batched(args, dims, *, push, plain, back, count):
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    # All that moves gets the axis: what the transpose returns for it has one.
    moved = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(args[count:], dims[count:], strict=True)
    ]

    def over(function):
        axes = lambda x: (*dims[:count], *[0] * (len(x) - count))
        return lambda *x: jax.vmap(function, in_axes=axes(x), axis_size=size)(*x)

    both = {"push": over(push), "plain": over(plain)}
    back_over = back and (lambda live: tuple(map(over, back(live))))
    out = _slopes.bind(*args[:count], *moved, **both, back=back_over, count=count)
    return out, [0] * len(out)


def _slopes_transposed(cotangents, *args, plain, back, count, **_):
    live = tuple(not isinstance(part, ad.Zero) for part in cotangents)
    along = _chosen(cotangents, live)
    if back is not None:
        push, plain = back(live)
        return [None] * count + _slopes.bind(
            *args[:count], *along, push=push, plain=plain, back=None, count=count
        )
    linear = lambda *moved: _chosen(plain(*args[:count], *moved), live)
    return [None] * count + list(jax.linear_transpose(linear, *[one.aval for one in args[count:]])(along))


def _slopes_moved(primals, tangents, *, plain, **_):
    return jax.jvp(plain, tuple(primals), tuple(ad.instantiate_zeros(part) for part in tangents))


batching.primitive_batchers[_slopes] = _slopes_batched
ad.primitive_transposes[_slopes] = _slopes_transposed
ad.primitive_jvps[_slopes] = _slopes_moved


def _names(jaxpr) -> set[str]:
    """Operations of a program, those of the programs inside it too; of joined stages "joined"."""
    found = set()
    for line in jaxpr.eqns:
        several = line.primitive.name == "reduce" and len(line.outvars) == len(line.invars) // 2
        found.add("joined" if several or line.primitive is _slopes else line.primitive.name)
        for value in line.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found |= _names(inner)
    return found


def _chosen(parts, keep) -> list:
    return [part for part, kept in zip(parts, keep, strict=True) if kept]


def joined(function: Callable, most: int = MOST, apart: int = 0) -> Callable:
    """``function``, its results computed together in one kernel on CPU; elsewhere, ``function`` itself.

    function: of any pytrees of numbers, to a pytree of arrays (floats, whole numbers, bools); pure, and
        traced, so no branch on values. Meant for elementwise scalar code under `jax.vmap`, as the kernels
        of `diffhw.models` are. Where it is joined inside, or has matrix products, loops or sorts, it is
        left as it is. Results of several shapes or types take a kernel for each.
    most:  results in one kernel, and slopes in one; more are computed in several, which repeat what they
        share.
    apart: of another function of the same inputs that is joined in the same program, say 1 more than here:
        kernels that share parts but not ``apart`` are not merged (0 to 2; slopes are apart from values).

    The same values up to contractions (fused multiply-adds) that the compiler chooses per kernel. All
    derivatives that ``function`` has; the first in either mode are joined likewise. Outside of `jax.jit` and
    other transforms it is ``function``. Which backend counts is `jax.default_backend` when it is traced.
    Raises what ``function`` raises, TypeError for no function or complex results, and ValueError for a
    ``most`` that is no integer >= 1 or an ``apart`` that is not 0, 1 or 2.

    >>> import jax
    >>> both = jax.jit(joined(lambda x: (jax.numpy.exp(x), 2 * jax.numpy.exp(x))))
    >>> [float(part) for part in both(0.0)]
    [1.0, 2.0]
    """
    if not callable(function):
        raise TypeError(f"joined takes a function, got {function!r}")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ValueError(f"most must be an integer >= 1 (results a kernel), got {most!r}")
    if isinstance(apart, bool) or not isinstance(apart, int) or apart not in (0, 1, 2):
        raise ValueError(f"apart must be 0, 1 or 2, got {apart!r}")

    @functools.wraps(function)
    def run(*args, **kwargs):
        leaves, structure = jax.tree.flatten((args, kwargs))
        if jax.default_backend() != "cpu" or not any(isinstance(x, Tracer) for x in leaves):
            return function(*args, **kwargs)  # operation by operation there is nothing to join
        leaves = [jnp.asarray(x) for x in leaves]
        found: dict = {}

        def listed(*leaves):
            args, kwargs = jax.tree.unflatten(structure, leaves)
            results, found["structure"] = jax.tree.flatten(function(*args, **kwargs))
            return [jnp.asarray(part) for part in results]

        program = jax.make_jaxpr(listed)(*leaves)
        kinds = [one.dtype for one in program.out_avals]
        if not kinds or _names(program.jaxpr) & (_LEFT_ALONE | {"joined"}):
            return function(*args, **kwargs)
        if any(jnp.issubdtype(kind, jnp.complexfloating) for kind in kinds):
            raise TypeError("complex results cannot be joined: return real and imaginary parts")
        # What the function closes over is an argument too, or derivatives in it would be lost.
        inputs = len(leaves)
        leaves = [*leaves, *program.consts]
        flat = lambda *x: eval_jaxpr(program.jaxpr, x[inputs:], *x[:inputs])
        results = _with_slopes(flat, kinds, most, apart)(*leaves)
        return jax.tree.unflatten(found["structure"], results)

    return run


def _with_slopes(flat: Callable, kinds: list, most: int, apart: int) -> Callable:
    """``flat`` evaluated together, with its derivatives."""
    smooth = [jnp.issubdtype(kind, jnp.floating) for kind in kinds]
    # Slopes not along an axis of the value's length: see `_evaluated`.
    together = lambda slopes: lambda *x: _evaluated(slopes, x, most, apart + 3)

    @jax.custom_jvp
    def value(*leaves):
        return _evaluated(flat, leaves, most, apart)

    def rule(primals, tangents):
        moving = [i for i, part in enumerate(tangents) if not isinstance(part, SymbolicZero)]
        count = len(primals)

        def at(places):
            """Smooth results as a function of what moves, and where it is."""

            def of(*moved):
                full = list(places)
                for i, part in zip(moving, moved, strict=True):
                    full[i] = part
                return _chosen(flat(*full), smooth)

            return of, [places[i] for i in moving]

        def forth(*x):
            of, here = at(x[:count])
            return jax.jvp(of, here, list(x[count:]))[1]

        def back(live):
            def plain(*x):
                of, here = at(x[:count])
                return list(jax.vjp(lambda *moved: _chosen(of(*moved), live), *here)[1](list(x[count:])))

            return together(plain), plain

        results = value(*primals)
        if not any(smooth) or not moving:
            slopes = iter([jnp.zeros_like(part) for part in _chosen(results, smooth)])
        else:
            moved = [tangents[i] for i in moving]
            slopes = iter(
                _slopes.bind(*primals, *moved, push=together(forth), plain=forth, back=back, count=count)
            )
        none = lambda part: np.zeros(part.shape, jax.dtypes.float0)
        along = [next(slopes) if keep else none(part) for part, keep in zip(results, smooth, strict=True)]
        return results, along

    value.defjvp(rule, symbolic_zeros=True)
    return value
