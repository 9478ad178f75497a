"""What this machine can do at most, measured by two small loops, and what a compiled program asks for."""

import time

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks._common import median

__all__ = ["limit", "measure", "work"]

_LANES = 1 << 16  # numbers at once: fits the caches, enough for every core
_CHAINS = 8  # independent multiply-adds, so that their latency is hidden
_STEPS = 512


def _multiply_add(x):
    """Chains of multiply-adds on numbers that stay in registers."""
    a, b = jnp.float32(0.999), jnp.float32(1e-3)

    def step(_, chains):
        for _ in range(8):
            chains = tuple(c * a + b for c in chains)
        return chains

    def of_one(value):
        chains = tuple(value + float(i) for i in range(_CHAINS))
        return sum(lax.fori_loop(0, _STEPS // 8, lambda i, c: step(i, c), chains))

    return of_one(x)


def _unrolled(x):
    """The same without a loop: one kernel, so that XLA on CPU keeps the chains in registers."""
    a, b = jnp.float32(0.999), jnp.float32(1e-3)
    chains = [x + float(i) for i in range(_CHAINS)]
    for _ in range(32):
        chains = [c * a + b for c in chains]
    return sum(chains)


def _seconds(run, rounds: int, calls: int) -> float:
    """Seconds of one call: median over rounds of some calls in a row."""
    run()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        seconds.append((time.perf_counter() - begin) / calls)
    return median(seconds)


def _arithmetic(function, x, amount: float, rounds: int) -> float:
    compiled = jax.jit(function).lower(x).compile()
    return amount / _seconds(lambda: jax.block_until_ready(compiled(x)), rounds, 10)


def _stream(mebibytes: float, rounds: int) -> float:
    """Bytes/s of y = a x + y, in place: two reads and a write."""
    size = int(mebibytes * (1 << 20)) // 8
    x = jnp.ones(size, jnp.float32)
    state = [jnp.ones(size, jnp.float32)]
    update = jax.jit(lambda y, x: x * jnp.float32(0.5) + y * jnp.float32(0.5), donate_argnums=0)

    def run():
        state[0] = jax.block_until_ready(update(state[0], x))

    return 12.0 * size / _seconds(run, rounds, 10)


def measure(rounds: int = 7) -> dict:
    """Operations/s (a multiply-add counts two), bytes/s of the memory and of the caches. Float32, all cores.

    The best of two forms of the arithmetic loop, and of several sizes of a stream within the caches.
    """
    cpu = jax.default_backend() == "cpu"
    x = jnp.ones(_LANES * (1 if cpu else 256), jnp.float32)
    looped = _arithmetic(_multiply_add, x, 2.0 * _CHAINS * _STEPS * x.size, rounds)
    unrolled = _arithmetic(_unrolled, x, 2.0 * _CHAINS * 32 * x.size, rounds)
    memory = 512.0 if cpu else 4096.0
    cached = {size: _stream(size, rounds) for size in ((0.5, 1.0, 2.0, 8.0) if cpu else (8.0, 32.0))}
    return {
        "operations_per_s": max(looped, unrolled),
        "looped": looped,
        "unrolled": unrolled,
        "memory_bytes_per_s": _stream(memory, rounds),
        "memory_mebibytes": memory,
        "cache_bytes_per_s": max(cached.values()),
        "cache_by_mebibytes": cached,
    }


def work(compiled, count: int) -> dict:
    """Per design: operations and bytes between kernels, as the compiler counts them, and inputs plus results.

    A transcendental counts as one operation, which favours the limit.
    """
    found = compiled.cost_analysis() or {}
    found = found[0] if isinstance(found, list) else found
    sizes = compiled.memory_analysis()
    operations = found.get("flops", 0.0) + found.get("transcendentals", 0.0)
    return {
        "operations": operations / count,
        "bytes": found.get("bytes accessed", 0.0) / count,
        "in_and_out_bytes": (sizes.argument_size_in_bytes + sizes.output_size_in_bytes) / count,
        "temporary_bytes": sizes.temp_size_in_bytes / count,
    }


def limit(asked: dict, peak: dict) -> tuple[float, str]:
    """(evaluations/s that this program cannot exceed on this machine, what bounds it).

    Operations over the peak of the arithmetic, bytes between kernels over that of the caches, inputs and
    results over that of the memory. An optimist's limit: each at its best, all at the same time.
    """
    bounds = {
        "arithmetic": peak["operations_per_s"] / max(asked["operations"], 1e-9),
        "caches": peak["cache_bytes_per_s"] / max(asked["bytes"], 1e-9),
        "memory": peak["memory_bytes_per_s"] / max(asked["in_and_out_bytes"], 1e-9),
    }
    least = min(bounds, key=lambda name: bounds[name])
    return bounds[least], least
