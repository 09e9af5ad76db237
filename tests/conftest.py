"""What all tests share: the CPU, fixed seeds, a switch for 64-bit arithmetic, and how programs are compiled."""

import os
import shutil
from pathlib import Path

# Nearly all of a test's time is compiling, so what was compiled is kept in the tree. Each worker has a folder of its
# own: JAX's cache does not write its files at once, and another process may read half of one.
COMPILED = Path(__file__).parents[1] / ".jax_cache" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# For each program that it reads back XLA says at length that the processor lacks a feature which no processor has.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

MOST_COMPILED = 40_000  # some 300 MB
#: Flags with which small programs compile in as little as a third of the time, and the version of JAX from which they
#: are left out: XLA ends the process on one that it does not know.
CHEAP = {"--xla_cpu_use_fusion_emitters=false": (0, 11), "--xla_cpu_parallel_codegen_split_count=1": (0, 13)}

settings.register_profile(
    "jgd", derandomize=True, deadline=None, max_examples=20, suppress_health_check=list(HealthCheck)
)
settings.load_profile("jgd")


def pytest_configure(config):
    """The fast tier compiles cheaply, since its programs run but a few times; the slow tier compiles as users do."""
    if COMPILED.is_dir() and len(os.listdir(COMPILED)) > MOST_COMPILED:
        shutil.rmtree(COMPILED, ignore_errors=True)
    if config.option.markexpr == "not slow":
        jax.config.update("jax_disable_most_optimizations", True)
        flags = [flag for flag, unknown_from in CHEAP.items() if jax.version.__version_info__ < unknown_from]
        os.environ["XLA_FLAGS"] = " ".join([*os.environ.get("XLA_FLAGS", "").split(), *flags])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The fast tier runs the examples of the README and of docstrings; those of the documentation's pages are slow."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and "pages" in item.path.parts:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def as_compiled_for_users():
    """Programs that are optimized, for tests of what a compiler makes of them."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def x64():
    """64-bit arithmetic for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def programs_do_not_pile_up():
    """Thousands of small compiled programs would fill the memory of a small machine."""
    yield
    jax.clear_caches()
