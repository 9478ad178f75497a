"""Four fake devices and strict ranks, before JAX is imported; compiled programs are kept between runs."""

import gc
import os
import pathlib
import resource

flags = os.environ.get("XLA_FLAGS", "")
if "host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=4".strip()
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
cache = os.environ.get("DIFFHW_TEST_CACHE", str(pathlib.Path.home() / ".cache" / "diffhw-tests"))
jax.config.update("jax_compilation_cache_dir", cache)
# Small programs as well: what one worker has compiled the others load (half of a room's time, measured).
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_configure(config):
    # Halves of the list, evened out at the end: a file's programs and fixtures are made by one worker.
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "worksteal"
    # A worker may meet an entry of the cache that another is just writing; then it compiles.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache")


def pytest_collection_finish(session):
    # Tracing makes objects by the million, nearly none of them garbage: a sixth of its time went into looking.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Compiled programs pile up to gigabytes over all modules; the cache on disk brings them back quickly."""
    yield
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 4_500_000:  # KiB
        jax.clear_caches()
