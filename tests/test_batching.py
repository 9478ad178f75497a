"""`in_blocks` and `at_once`: what vmap gives, for batches of any length; what a process keeps of its memory."""

import platform
import subprocess
import sys
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import batching
from diffhw.batching import at_once, in_blocks


def work(x, y):
    return {"a": jnp.where(x > y["b"], x * y["b"], y["b"] - x), "rows": y["v"] * x}


def inputs(count):
    rng = np.random.default_rng(count)
    return rng.random(count, np.float32), {"b": rng.random(count, np.float32), "v": rng.random((count, 3))}


@pytest.mark.parametrize(
    ("count", "block", "devices"), [(1, 4, 1), (7, 4, 1), (64, 4, 4), (65, 4, 4), (3, 8, 4), (50, None, 2)]
)
def test_equals_vmap(count, block, devices):
    """Whole and broken last blocks, fewer designs than devices."""
    args = inputs(count)
    ours = in_blocks(work, block, jax.devices()[:devices])(*args)
    chex.assert_trees_all_close(ours, jax.vmap(work)(*args), rtol=1e-6)


def test_lies_across_devices_and_its_kernels_are_not_cut():
    run = in_blocks(lambda x: jnp.exp(jnp.sin(x)) / x, 1 << 18)
    x = jnp.ones(1 << 20)
    assert len(run(x).sharding.device_set) == len(jax.devices()) == 4
    cut = lambda compiled: "outer_dimension_partitions" in compiled.as_text()
    if cut(jax.jit(jax.vmap(lambda x: jnp.exp(jnp.sin(x)) / x)).lower(x).compile()):  # more than one core
        assert not cut(run.lower(x).compile())


def test_gradients_inside():
    slope = in_blocks(jax.grad(lambda x: x**3), 4)
    np.testing.assert_allclose(slope(jnp.arange(9.0)), 3 * np.arange(9.0) ** 2, rtol=1e-6)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap])
def test_is_a_program_of_its_own(transform):
    with pytest.raises(TypeError, match="call it outside of"):
        transform(lambda x: in_blocks(jnp.sin)(jnp.ones(4) * jnp.sum(x)).sum())(
            jnp.ones(()) if transform is jax.grad else jnp.ones(2)
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: in_blocks(work, 0), "at least 1, got 0"),
        (lambda: in_blocks(work, 2.5), "whole number of designs"),
        (lambda: in_blocks(work, devices=[]), "needs a device"),
        (lambda: in_blocks(jnp.add)(1.0, 2.0), "one leading axis"),
        (lambda: in_blocks(jnp.add)(jnp.ones(2), jnp.ones(3)), r"got \[2, 3\]"),
        (lambda: in_blocks(jnp.add)(jnp.ones(2), 1.0), r"got \[2, 'none'\]"),
        (lambda: in_blocks(jnp.add)(jnp.ones(0), jnp.ones(0)), "of 1 or more"),
        (lambda: in_blocks(lambda: 1.0)(), "no arrays"),
        (
            lambda: at_once(jnp.add)(jnp.ones(3), jnp.ones(4)),
            r"at_once needs one leading axis .*got \[3, 4\]",
        ),
        (lambda: at_once(jnp.sin)(1.0), r"got \['none'\]"),
    ],
)
def test_sentences(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_at_once_equals_vmap_with_gradients_inside():
    args = inputs(65)
    chex.assert_trees_all_close(at_once(work)(*args), jax.vmap(work)(*args), rtol=1e-6)
    slope = at_once(jax.grad(lambda x: jnp.sin(x) * x))(jnp.arange(5.0))
    np.testing.assert_allclose(slope, np.sin(np.arange(5)) + np.arange(5) * np.cos(np.arange(5)), rtol=1e-6)


def test_at_once_is_a_program_of_its_own():
    with pytest.raises(TypeError, match="at_once makes a program of its own"):
        jax.jit(at_once(jnp.sin))(jnp.ones(3))


@pytest.mark.parametrize("failing", [AttributeError, OSError, TypeError])
def test_keep_memory_says_where_it_can_do_nothing(monkeypatch, failing):
    def library(_):
        raise failing

    monkeypatch.setattr(batching.ctypes, "CDLL", library)
    assert batching.keep_memory() is False


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="keep_memory needs glibc")
@pytest.mark.parametrize("keep", [True, False])
def test_keep_memory_keeps_what_arrays_leave(keep):
    """Resident memory after 200 MB of arrays are gone: still there, or handed back."""
    code = f"""
        import numpy as np
        from diffhw.batching import keep_memory

        if {keep}:
            assert keep_memory()
        resident = lambda: int(next(x for x in open("/proc/self/status") if x.startswith("VmRSS")).split()[1])
        before = resident()
        arrays = [np.ones(1 << 18, np.float32) for _ in range(200)]
        assert resident() - before > 190_000
        del arrays
        assert (resident() - before > 190_000) == {keep}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
