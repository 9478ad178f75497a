"""What this machine can do at most, measured by two small loops, and what a compiled program asks for."""

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks._common import median
from benchmarks._native import InALoop, Program

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

    chains = tuple(x + float(i) for i in range(_CHAINS))
    return sum(lax.fori_loop(0, _STEPS // 8, step, chains))


def _unrolled(x):
    """The same without a loop: one kernel, so that XLA on CPU keeps the chains in registers."""
    a, b = jnp.float32(0.999), jnp.float32(1e-3)
    chains = [x + float(i) for i in range(_CHAINS)]
    for _ in range(32):
        chains = [c * a + b for c in chains]
    return sum(chains)


def _rate(function, columns: tuple, amount: float, rounds: int) -> float:
    """``amount`` per second of turn, median of rounds: turns of a loop, as the models are evaluated."""
    program = Program(InALoop(function), columns, columns[0].size)
    program(1), program.seconds.clear()
    once = program(8) is not None and program.seconds.pop()
    for _ in range(rounds):
        program(max(8, int(0.02 / once)))
    return amount / median(program.seconds)


def _stream(mebibytes: float, rounds: int) -> float:
    """Bytes/s of z = a x + b y: two reads and a write."""
    size = int(mebibytes * (1 << 20)) // 12 // 1024 * 1024
    columns = (jnp.ones(size, jnp.float32), jnp.ones(size, jnp.float32))
    return _rate(lambda x, y: x * jnp.float32(0.5) + y * jnp.float32(0.5), columns, 12.0 * size, rounds)


def measure(rounds: int = 7) -> dict:
    """Operations/s (a multiply-add counts two), bytes/s of the memory and of the caches. Float32, all cores.

    The best of two forms of the arithmetic loop, and of several sizes of a stream within the caches. On CPU
    it takes a device a core (`_native.prepare`), or one core is measured.
    """
    cpu = jax.default_backend() == "cpu"
    x = (jnp.ones(_LANES * (1 if cpu else 256), jnp.float32),)
    looped = _rate(_multiply_add, x, 2.0 * _CHAINS * _STEPS * x[0].size, rounds)
    unrolled = _rate(_unrolled, x, 2.0 * _CHAINS * 32 * x[0].size, rounds)
    memory = 512.0 if cpu else 4096.0
    from_memory = _stream(memory, rounds)
    cached = {size: _stream(size, rounds) for size in ((0.5, 1.0, 2.0, 8.0) if cpu else (8.0, 32.0))}
    return {
        "operations_per_s": max(looped, unrolled),
        "looped": looped,
        "unrolled": unrolled,
        "memory_bytes_per_s": from_memory,
        "memory_mebibytes": memory,
        # Starting a kernel takes an accelerator longer than such a stream does.
        "cache_bytes_per_s": max(*cached.values(), from_memory),
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


def limit(asked: dict, peak: dict, from_memory: bool) -> tuple[float, str]:
    """(evaluations/s that this program cannot exceed on this machine, what bounds it).

    Operations over the peak of the arithmetic, bytes between kernels over that of the caches and, of a batch
    that does not stay there, inputs and results over that of the memory. An optimist's limit: each at its
    best, all at the same time.
    """
    bounds = {
        "arithmetic": peak["operations_per_s"] / max(asked["operations"], 1e-9),
        "caches": peak["cache_bytes_per_s"] / max(asked["bytes"], 1e-9),
    }
    if from_memory:
        bounds["memory"] = peak["memory_bytes_per_s"] / max(asked["in_and_out_bytes"], 1e-9)
    least = min(bounds, key=lambda name: bounds[name])
    return bounds[least], least
