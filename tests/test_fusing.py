"""`joined`: the numbers and slopes of the function itself, in one kernel."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw.fusing import joined


def work(x, y):
    z = x
    for _ in range(12):
        z = jnp.where(z > y, 0.7 * z + y, z * y + 0.1)
    return {"a": z * x, "b": [z + y, jnp.maximum(z, x) / y], "c": z - 3.0}


def loss(function):
    def of(x, y):
        out = function(x, y)
        return out["a"] * out["b"][1] + 2.0 * out["b"][0]

    return of


X, Y = jnp.linspace(0.1, 1.0, 256), jnp.linspace(1.0, 0.2, 256)


def close(ours, theirs):
    chex.assert_trees_all_close(ours, theirs, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("most", [2, 3, 34])
def test_values(most):
    close(jax.jit(jax.vmap(joined(work, most)))(X, Y), jax.jit(jax.vmap(work))(X, Y))
    close(joined(work)(0.3, 0.4), work(0.3, 0.4))  # not traced: the function itself


def test_results_share_one_kernel():
    def cost(function):
        compiled = jax.jit(jax.vmap(function)).lower(X, Y).compile()
        return compiled.cost_analysis()["flops"], compiled.as_text().count(" fusion(")

    (apart, kernels), (together, one) = cost(work), cost(joined(work))
    assert one == 1 < kernels
    assert together < 0.6 * apart  # counted along both entries, of which the machine works on one


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f: jax.value_and_grad(f, argnums=(0, 1)),
        lambda f: jax.grad(f),
        lambda f: jax.jacfwd(f, argnums=(0, 1)),
        lambda f: jax.jacfwd(jax.grad(f)),
        lambda f: jax.jacfwd(jax.jacfwd(f)),
        lambda f: jax.jacrev(jax.jacfwd(f)),
        lambda f: jax.jacfwd(jax.jacfwd(jax.grad(f))),
        lambda f: jax.grad(lambda x, y: jax.jit(f)(x, 0.7)),
        lambda f: jax.grad(lambda x, y: jax.lax.scan(lambda c, _: (f(c, y), None), x, None, length=2)[0]),
        lambda f: jax.grad(jax.grad(f)),
        lambda f: lambda x, y: jax.jvp(f, (x, y), (1.0 + x, y)),
        lambda f: jax.grad(jax.checkpoint(f), argnums=1),
    ],
)
def test_derivatives(derivative):
    ours, theirs = (jax.jit(jax.vmap(derivative(loss(f))))(X, Y) for f in (joined(work), work))
    close(ours, theirs)


def test_what_does_not_move_with_the_batch():
    over = lambda f: jax.vmap(jax.vmap(jax.grad(loss(f), argnums=(0, 1)), (None, 0)), (0, None))
    close(over(joined(work))(X[:5], Y[:7]), over(work)(X[:5], Y[:7]))
    total = lambda f: lambda y: jax.vmap(loss(f), (0, None))(X, y).sum()
    close(jax.grad(total(joined(work)))(0.5), jax.grad(total(work))(0.5))


def test_a_transpose_can_be_transposed():
    def forth(f):  # the transpose of the transpose of the slope at (0.3, 0.4)
        _, back = jax.vjp(loss(f), 0.3, 0.4)
        return jax.linear_transpose(back, jnp.ones(()))

    for f in (joined(work), work):
        (along,) = jax.jit(lambda f=f: forth(f)((1.0, 2.0)))()
        _, expected = jax.jvp(loss(work), (0.3, 0.4), (1.0, 2.0))
        np.testing.assert_allclose(along, expected, rtol=1e-5)


def test_a_result_nobody_uses_lends_no_slope():
    both = joined(lambda x: (2.0 * x, jnp.sqrt(x)))  # the second has an infinite slope at 0
    assert float(jax.grad(lambda x: both(x)[0])(0.0)) == 2.0


def test_whole_numbers_shapes_and_single_results():
    mixed = lambda x, n: {"n": n + 1, "pair": jnp.stack([x, -x]), "x": x * n}
    chex.assert_trees_all_equal(jax.jit(joined(mixed))(2.0, 3), mixed(2.0, 3))
    only = jax.jit(joined(lambda x: x + 1))
    assert float(only(1.0)) == 2.0
    assert np.isnan(float(only(jnp.nan)))
    assert float(only(-jnp.inf)) == -np.inf


def test_what_a_function_closes_over_has_slopes():
    def of(wrap):
        return lambda w: wrap(lambda x: (x * w, jnp.sin(w) + x))(2.0)[1] * w

    for derivative in (jax.grad, jax.jacfwd, lambda f: jax.jit(jax.grad(jax.jit(f)))):
        close(derivative(of(joined))(3.0), derivative(of(lambda f: f))(3.0))


def test_types_are_kept_apart_and_only_floats_have_slopes():
    mixed = lambda x, n, half: {"n": n + 1, "x": x * n, "low": half * 2, "true": x > 1, "y": x + half}
    inputs = (jnp.asarray(2.0), jnp.asarray(3), jnp.asarray(0.5, jnp.bfloat16))
    chex.assert_trees_all_equal(jax.jit(joined(mixed))(*inputs), mixed(*inputs))
    chex.assert_trees_all_equal_dtypes(jax.jit(joined(mixed))(*inputs), mixed(*inputs))
    slope = lambda f: jax.grad(lambda x, half: f(x, 3, half)["x"] + f(x, 3, half)["y"], argnums=(0, 1))
    chex.assert_trees_all_equal(slope(joined(mixed))(2.0, inputs[2]), slope(mixed)(2.0, inputs[2]))
    assert float(jax.jit(joined(lambda x, *, by: {"a": x * by, "b": x}))(2.0, by=3.0)["a"]) == 6.0
    with pytest.raises(TypeError, match="complex results cannot be joined"):
        jax.jit(joined(lambda x: (x, x * 1j)))(1.0)


@pytest.mark.parametrize("most", [0, 2.5, float("nan"), True, "3"])
def test_kernels_of_no_whole_number_of_results(most):
    with pytest.raises(ValueError, match=rf"most must be an integer >= 1 \(.*\), got {most!r}"):
        joined(work, most)


@pytest.mark.parametrize("apart", [-1, 3, 1.0, float("nan"), True])
def test_apart_is_0_1_or_2(apart):
    with pytest.raises(ValueError, match=f"apart must be 0, 1 or 2, got {apart!r}"):
        joined(work, apart=apart)


def test_only_functions_are_joined():
    with pytest.raises(TypeError, match="joined takes a function, got 3"):
        joined(3)


def test_under_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("d",))
    spec = jax.sharding.PartitionSpec("d")
    over = lambda f: jax.shard_map(jax.vmap(jax.grad(loss(f))), mesh=mesh, in_specs=spec, out_specs=spec)
    close(jax.jit(over(joined(work)))(X, Y), jax.jit(over(work))(X, Y))


def test_matrix_products_and_loops_are_left_alone():
    product = lambda x: (x @ x, x.T @ x)
    text = lambda f: str(jax.make_jaxpr(f)(jnp.ones((3, 3))))
    assert "reduce" not in text(joined(product))
    assert "reduce" not in text(joined(lambda x: (jnp.sort(x), x + 1)))
    assert "reduce" in text(joined(lambda x: (jnp.exp(x), x + 1)))


def test_what_is_in_stages_is_left_alone():
    def staged(x, y):
        part = joined(work)(x, y)
        return {"first": part["a"] + part["c"], "second": part["b"][0]}

    text = lambda f: jax.jit(jax.vmap(f)).lower(X, Y).as_text()
    inner = lambda text: text[text.index("{") :]
    assert inner(text(joined(staged))) == inner(text(staged))
