"""A function of one design for a whole batch, as fast as the processor's cores, vectors and caches allow.

`jax.vmap` alone carries each intermediate array of a batch through memory, and XLA on CPU cuts each kernel
between the cores, which wait for one another after every one; it takes vectors of half the width that newer
processors have, and the results of every call lie in memory that the system has to hand out first.

- `at_once`: one call for the batch, vectors of full width. For a function that is one kernel (what
  `diffhw.fusing.joined` makes), or on an accelerator.
- `in_blocks`: the batch in blocks that stay in a core's cache, each device by itself. For a model of many
  kernels.
- `keep_memory`: of the process; for a program that makes many calls.

Measured in docs/performance.md, "In blocks, a core a device" and "What a call costs".
"""

import ctypes
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import Mesh, PartitionSpec

__all__ = ["at_once", "in_blocks", "keep_memory"]

_BLOCK = 256
# XLA takes 256 bits where the processor has 512.
WIDE = {"xla_cpu_prefer_vector_width": 512}
# One device is one core: its kernels are not cut between threads.
UNCUT = {"xla_disable_hlo_passes": "cpu-parallel-task-assigner"}
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


class _Program:
    """A jitted function that says why it is not called under another one."""

    def __init__(self, jitted, name: str):
        self._jitted, self._name, self.lower = jitted, name, jitted.lower

    def __call__(self, *args):
        if any(isinstance(x, Tracer) for x in jax.tree.leaves(args)):
            raise TypeError(
                f"{self._name} makes a program of its own: call it outside of jax.jit, jax.grad and the "
                "like, or use jax.vmap there (gradients belong inside its function)"
            )
        return self._jitted(*args)


def _count(name: str, args) -> int:
    """Length of the leading axis that all leaves have."""
    lengths = {jnp.shape(x)[:1] for x in jax.tree.leaves(args)}
    if len(lengths) != 1 or lengths == {()} or lengths == {(0,)}:
        found = sorted((x[0] if x else "none" for x in lengths), key=str) if lengths else "no arrays"
        raise ValueError(f"{name} needs one leading axis of 1 or more on every leaf, got {found}")
    ((count,),) = lengths
    return count


def at_once(function: Callable) -> Callable:
    """``jax.jit(jax.vmap(function))`` with the widest vectors of the processor (on CPU; elsewhere just that).

    function: of any pytrees, for one design. Fastest where it is one kernel: see `diffhw.fusing.joined`.

    Returns a jitted function (called, or ``.lower(*args).compile()``) of positional arguments, every leaf
    with the same leading axis. Results are those of vmap up to contractions (fused multiply-adds) that the
    compiler chooses per program. Gradients belong inside ``function``.
    Raises TypeError under `jax.jit` and other transforms; ValueError for leaves without or with different
    leading axes.

    >>> import jax
    >>> at_once(lambda x, y: x * y)(jax.numpy.arange(3.0), jax.numpy.ones(3)).tolist()
    [0.0, 1.0, 2.0]
    """

    def run(*args):
        _count("at_once", args)
        return jax.vmap(function)(*args)

    on_cpu = jax.default_backend() == "cpu"
    return _Program(jax.jit(run, compiler_options=WIDE if on_cpu else None), "at_once")


def keep_memory() -> bool:
    """Lets this process keep the memory that it frees, for its next arrays; True if it could be told.

    The results of every call lie in new memory; of many or large ones the system hands it out page by page,
    which costs as much time as the model itself. With glibc (most Linux systems) malloc is told to hand
    nothing back and to map nothing apart below 1 GiB; elsewhere nothing happens and the answer is False.
    A setting of the whole process, which then keeps its peak of memory until it ends: for a program or a
    notebook to call, before it starts; diffhw never does by itself.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; no such library (Windows)
        return False
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_MMAP_THRESHOLD, 2**30))


def in_blocks(function: Callable, block: int | None = None, devices: Sequence | None = None) -> Callable:
    """``jax.jit(jax.vmap(function))``, its batch walked in blocks and shared out between devices.

    function: of any pytrees, for one design.
    block:    designs at a time. Default: 256 on CPU, where what a design leaves between the stages of its
        model should fit a core's cache (a kilobyte or so a design); elsewhere the device's whole share.
    devices:  of one kind; default: `jax.local_devices()`. JAX shows all cores of a processor as one device,
        of which only one is used here: ask for a device a core before anything touches JAX, by
        ``jax.config.update("jax_num_cpu_devices", cores)`` or ``JAX_NUM_CPU_DEVICES=cores``.

    Returns a jitted function (called, or ``.lower(*args).compile()``) of positional arguments, every leaf
    with the same leading axis of any length (the last block is filled up with copies of the last design,
    which are dropped). Results are those of vmap up to contractions (fused multiply-adds) that the compiler
    chooses per program, and lie across the devices. Gradients belong inside ``function``.
    Raises ValueError for a block that is not whole or below 1, no device, leaves without or with different
    leading axes; TypeError under `jax.jit` and other transforms.

    >>> import jax
    >>> rows = in_blocks(lambda x, y: {"sum": x + y}, block=4)(jax.numpy.arange(6.0), jax.numpy.ones(6))
    >>> rows["sum"].tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """
    if block is not None and not (block >= 1 and block % 1 == 0):
        raise ValueError(f"block must be a whole number of designs, at least 1, got {block}")
    chosen = jax.local_devices() if devices is None else list(devices)
    if not chosen:
        raise ValueError("in_blocks needs a device, got none")
    on_cpu = chosen[0].platform == "cpu"
    mesh = Mesh(np.array(chosen), ("batch",))
    split = PartitionSpec("batch")

    def walk(size, args):
        """One device's share: a whole number of blocks."""
        if jax.tree.leaves(args)[0].shape[0] == size:  # one block: nothing to walk, nothing to copy
            return jax.vmap(function)(*args)
        steps = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), args)
        out = lax.map(lambda rows: jax.vmap(function)(*lax.optimization_barrier(rows)), steps)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)

    def run(*args):
        count = _count("in_blocks", args)
        share = -(-count // len(chosen))
        size = min(share, block or (_BLOCK if on_cpu else share))
        missing = -count % (size * len(chosen))
        fill = lambda x: jnp.concatenate([x, jnp.broadcast_to(x[-1:], (missing, *x.shape[1:]))])
        rows = jax.tree.map(fill, args) if missing else args
        shared = jax.shard_map(
            lambda *rows: walk(size, rows), mesh=mesh, in_specs=split, out_specs=split, check_vma=False
        )
        out = shared(*rows)
        return jax.tree.map(lambda x: x[:count], out) if missing else out

    return _Program(jax.jit(run, compiler_options=WIDE | UNCUT if on_cpu else None), "in_blocks")
