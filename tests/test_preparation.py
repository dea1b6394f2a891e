"""A design is the same by NumPy and by XLA, and no derivative depends on which of them made it."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import l1jax
from l1jax import standard_form
from l1jax.preparation import BLOCK, prepare_design, prepare_on_host

CONSTANT = [3, 4, -1]


def data(dtype, one_scale):
    """Columns of all kinds, more of them than are prepared at a time."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, BLOCK // 300 + 50))
    X[:, 0] += 100
    if not one_scale:
        X[:, 1] *= 1e12
        X[:, 2] *= 1e-12
    X[:, CONSTANT] = [7.1, 0.0, 0.1]
    s = rng.integers(0, 3, 300).astype(dtype)
    return X.astype(dtype), s / s.sum()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("weighted", [False, True])
def test_designs_agree(dtype, flags, weighted):
    center, standardize, one_scale = flags
    X, s = data(dtype, one_scale)
    s = s if weighted else None
    ours = prepare_on_host(X, s, center, standardize, one_scale)
    theirs = jax.jit(prepare_design, static_argnums=(2, 3, 4))(X, s, center, standardize, one_scale)
    share = 64 * np.finfo(dtype).eps
    lost = np.ones(X.shape[1])
    lost[0] = 100  # a mean takes digits along
    for name in ("scale", "norm", "center", "XT"):
        a, b = (np.asarray(getattr(design, name)) for design in (ours, theirs))
        assert a.dtype == b.dtype == dtype
        if name == "center":
            a, b = a / np.asarray(theirs.scale), b / np.asarray(theirs.scale)
        off = np.abs(a - b) / np.maximum(np.abs(b), 1 if name in ("center", "XT") else 0.25)
        off = off if off.ndim == 1 else off.max(axis=1)
        assert np.all((off <= share * lost) | np.isin(np.arange(len(off)), np.arange(len(off))[CONSTANT])), name
        if center or standardize:
            assert name in ("scale", "center") or not np.any(a[CONSTANT])
    columns = np.asarray(ours.XT)[5:-1] * np.asarray(ours.scale)[5:-1, None] + np.asarray(ours.center)[5:-1, None]
    alive = slice(None) if s is None else s > 0
    np.testing.assert_allclose(columns[:, alive], X.T[5:-1, alive], atol=share * 4)


@pytest.fixture
def on_host(monkeypatch):
    monkeypatch.setattr(standard_form, "LARGE", 0)
    made = []

    def prepare(*given):
        made.append(given)
        return prepare_on_host(*given)

    monkeypatch.setattr(standard_form, "prepare_on_host", prepare)
    return made


def problem(X, y, lam=0.1, weight=None):
    return l1jax.Problem(X, y, penalty=l1jax.L1(lam), sample_weight=weight)


def small():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 6))
    return X, X[:, 0] - X[:, 1] + 0.1 * rng.standard_normal(40), rng.random(40)


def test_values_are_prepared_by_numpy(on_host):
    X, y, weight = small()
    found = l1jax.path(problem(X, y, weight=weight), tol=1e-10)
    assert len(on_host) == 1
    assert bool(jnp.all(found.converged))
    for lam, coef, intercept in zip(found.lams, found.coef, found.intercept, strict=True):
        at = l1jax.Problem(X, y, penalty=l1jax.L1(lam), sample_weight=weight)
        assert l1jax.duality_gap(at, coef, intercept) <= 1e-10


def test_derivatives_are_the_same(on_host, monkeypatch):
    X, y, weight = small()

    base = problem(X, y)

    def of_lam(lam):
        return jnp.sum(l1jax.solve(dataclasses.replace(base, penalty=l1jax.L1(lam)), tol=1e-12).coef ** 2)

    def of_data(X, weight):
        return jnp.sum(l1jax.solve(problem(X, y, 0.1, weight), tol=1e-12).coef ** 2)

    by_host = jax.grad(of_lam)(0.1), jax.grad(jax.jit(of_lam))(0.1)
    assert len(on_host) == 2  # the data are constants there
    count = len(on_host)
    traced = jax.grad(of_data, argnums=(0, 1))(jnp.asarray(X), jnp.asarray(weight))
    assert len(on_host) == count
    monkeypatch.setattr(standard_form, "LARGE", 10**9)
    np.testing.assert_allclose(by_host, jax.grad(of_lam)(0.1), rtol=1e-8)
    for a, b in zip(traced, jax.grad(of_data, argnums=(0, 1))(jnp.asarray(X), jnp.asarray(weight)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
