"""Doctests run as in a user's session: float32, promotion as JAX ships it, every public name at hand."""

import jax
import jax.numpy as jnp
import pytest

import l1jax


@pytest.fixture(autouse=True)
def _doctest_in_float32(request, doctest_namespace):
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    names = {name: getattr(l1jax, name) for name in dir(l1jax) if not name.startswith("_")}
    doctest_namespace.update(names, jnp=jnp, jax=jax)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield
