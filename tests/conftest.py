"""What all tests share: the CPU, fixed seeds, and a switch for 64-bit arithmetic."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "jgd", derandomize=True, deadline=None, max_examples=20, suppress_health_check=list(HealthCheck)
)
settings.load_profile("jgd")


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
