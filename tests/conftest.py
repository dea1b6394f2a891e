"""Test settings: float64, no silent promotion of ranks or dtypes, fixed seeds."""

import os
from importlib.metadata import version

# Programs are compiled once each and run on small data here: the compiler's own time is most of the suite's. Without
# the fusion emitters it is half; XLA stops at a flag that it does not know, so that is for versions that have it.
FLAGS = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # without it one of scikit-learn's checks of estimators skips itself

import jax
import numpy as np
import pytest
from hypothesis import settings

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
settings.register_profile("l1jax", deadline=None, derandomize=True, database=None)
settings.load_profile("l1jax")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def standard_promotion():
    """For tests through optax's adam, schedules and the like, which are not clean under strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def float32():
    """JAX as a notebook finds it: x64 off."""
    with jax.enable_x64(False):
        yield


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Compiled programs of a finished file are dropped: each takes memory maps, of which a process has only so many."""
    yield
    jax.clear_caches()
