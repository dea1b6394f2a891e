"""The inverse of a matrix whose rows come and go is its inverse, whether changes are made at once or wait."""

import numpy as np
import pytest

from l1jax import _threads
from l1jax._threads import one_thread
from l1jax.engines import inverse
from l1jax.engines.inverse import Inverse, inverted
from l1jax.engines.working_set import exchanged


def matrix(rng, size):
    X = rng.standard_normal((size, 2 * size))
    return X @ X.T / size


@pytest.mark.parametrize("small", [0, 5, 1000], ids=["all wait", "some wait", "none waits"])
@pytest.mark.parametrize("shared", [False, True])
def test_it_follows_the_rows(rng, monkeypatch, small, shared):
    """Rows come and go, those that wait too; or go between a border's making and its entering."""
    monkeypatch.setattr(inverse, "SMALL", small)
    monkeypatch.setattr(inverse, "PENDING", 6)
    if shared:
        monkeypatch.setattr(_threads, "MANY", 1)
        monkeypatch.setattr(inverse, "ROWS", 3)
    A = matrix(rng, 40)
    with one_thread():
        follow(A, small, rng)


def follow(A, small, rng):
    H, rows, waited = Inverse(A.dtype), np.empty(0, int), 0

    def border(new):
        return H.border(A[np.ix_(rows, new)], A[np.ix_(new, new)])

    def gone(count):
        nonlocal rows
        k = len(rows)
        order = exchanged(rng.choice(k, count, replace=False), range(k - count, k))
        rows[order[0]] = rows[order[1]]
        rows = rows[: k - count]
        H.leave(*order, count)

    for step in range(60):
        new = rng.permutation(np.setdiff1d(np.arange(40), rows))[: rng.integers(1, 5)]
        made = border(new)
        if len(rows) > 8 and step % 3:
            gone(rng.integers(1, 4))
            made = made if H.pending else border(new)
        kept = rng.random(len(new)) < 0.8
        new, made, own = new[kept], made[kept], rng.random()
        if len(new):
            H.enter(made, own)
            A[new, new] += own
            rows = np.append(rows, new)
        if len(rows) > 12:
            gone(rng.integers(1, 5))
        v, wanted = rng.standard_normal(len(rows)), np.linalg.inv(A[np.ix_(rows, rows)])
        np.testing.assert_allclose(H.times(v), wanted @ v, rtol=1e-9, atol=1e-12)
        waited = max(waited, H.pending)
        if step % 7 == 0:
            np.testing.assert_allclose(H.change(), wanted, rtol=1e-9, atol=1e-12)
            assert not H.pending
    assert (waited > 2) == (small < 20)


@pytest.mark.parametrize("size", [1, 5, inverse.LONG + 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverses(rng, size, dtype):
    A = matrix(rng, size).astype(dtype)
    for each in (A, -A):  # a negative definite one has no Cholesky factor
        H = inverted(each)
        assert H.dtype == dtype
        np.testing.assert_array_equal(H, H.T)
        np.testing.assert_allclose(H @ each, np.eye(size), atol=1e3 * np.finfo(dtype).eps)
