"""Paths that the host drives take one BLAS thread, and give the others back."""

import sys
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg  # noqa: F401  # whose BLAS has threads of its own
from threadpoolctl import threadpool_info, threadpool_limits

import l1jax
from l1jax import _threads
from l1jax._threads import one_thread
from l1jax.engines.active import Path


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 30))
    return l1jax.Problem(X, X[:, 0] + rng.standard_normal(20), penalty=l1jax.L1(1.0))


def test_a_path_takes_one_thread(problem, monkeypatch):
    seen, run = [], Path.run
    monkeypatch.setattr(Path, "run", lambda self: (seen.append(blas_threads()), run(self))[1])
    with threadpool_limits(2, user_api="blas"):
        l1jax.path(problem, num=5)
        assert blas_threads() == {2}
    assert seen == [{1}]


def test_an_error_gives_them_back():
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(ZeroDivisionError), one_thread():
            1 / 0  # noqa: B018
        assert blas_threads() == {2}


def test_paths_go_without_threadpoolctl(problem, monkeypatch):
    known = l1jax.path(problem, num=5)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setattr(_threads, "_blas", _threads._blas.__wrapped__)
    found = l1jax.path(problem, num=5)
    np.testing.assert_array_equal(found.coef, known.coef)
    assert jnp.all(found.converged)


@pytest.fixture
def eager(monkeypatch):
    """All work is shared, however many cores there are."""
    monkeypatch.setattr(_threads, "CORES", 2)
    monkeypatch.setattr(_threads, "MANY", 1)


def test_shared_products_are_products(eager):
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((37, 11)), rng.standard_normal((11, 3))
    with one_thread():
        np.testing.assert_allclose(_threads.product(A, B), A @ B, rtol=1e-13)
        np.testing.assert_allclose(_threads.square(A), A @ A.T, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(_threads.square(A.T), A.T @ A, rtol=1e-12, atol=1e-14)


def test_work_is_shared_by_the_main_thread_alone(eager):
    def within():
        with one_thread():
            return _threads.cores(1) > 1

    with ThreadPoolExecutor(1) as pool:
        assert within()
        assert not pool.submit(within).result()
    assert _threads.cores(1) == 1


def test_parts_cover_the_whole_under_the_caller_s_settings():
    seen, settings = np.zeros(101, int), set()

    def part(at):
        seen[at] += 1
        settings.add(np.geterr()["over"])

    with np.errstate(over="raise"):
        _threads.in_parts(part, 101, 7)
    assert np.all(seen == 1)
    assert settings == {"raise"}


def test_an_error_in_a_part_is_the_caller_s():
    def part(at):
        if at.start == 49:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _threads.in_parts(part, 101, 7)
