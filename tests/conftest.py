"""Four fake devices and strict ranks, before JAX is imported; compiled programs are kept between runs."""

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
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Compiled programs pile up to gigabytes over all modules; the cache on disk brings them back quickly."""
    yield
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 4_500_000:  # KiB
        jax.clear_caches()
