"""What every computing command needs: a quiet JAX with its compilation cache on, and printing."""

import atexit
import gc
import logging
import os
import sys
from pathlib import Path

__all__ = ["compute_once", "emit", "emit_json", "start_jax"]

# For programs that run once: a third of the usual compile time, and a slower program.
_QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def start_jax():
    """Import JAX without log noise and keep compiled programs in the user's cache folder; returns jax.

    Only the command line does this: the library never touches `jax.config`. A cache that was set by
    the user, or a folder that cannot be written, is left alone.
    """
    # Importing and tracing make half a million lasting objects: looking through them for garbage again and
    # again, and once more at the end, takes a fifth of a short command.
    gc.set_threshold(100_000, 20, 100)
    atexit.register(gc.freeze)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("jax").setLevel(logging.ERROR)
    import jax

    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "diffhw"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            writable = os.access(folder, os.W_OK)
        except OSError:
            writable = False
        if writable:
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.03)
            jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return jax


def compute_once(jax, function, *arguments):
    """``function(*arguments)``, compiled for a short compile rather than a short run; numpy leaves."""
    import numpy as np

    try:
        out = jax.jit(function, compiler_options=_QUICK_COMPILE)(*arguments)
    except jax.errors.JaxRuntimeError:  # another release, without these options
        out = jax.jit(function)(*arguments)
    return jax.tree.map(np.asarray, out)


def emit(*things) -> None:
    """Print tables and lines: by rich on a terminal, as aligned text elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        for thing in things:
            console.print(thing, markup=False)
        return
    for thing in things:
        print(thing)


def emit_json(document) -> None:
    """One strict JSON object."""
    import json

    from diffhw.report._export import clean

    print(json.dumps(clean(document), indent=1, allow_nan=False))
