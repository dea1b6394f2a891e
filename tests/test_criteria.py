"""Degrees of freedom and information criteria against closed forms, finite differences and scikit-learn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LassoLarsIC

import l1jax

N, P, LAMS = 30, 6, np.geomspace(0.8, 0.01, 6)
GROUPS = [0, 0, 1, 1, 1, 2]


def alone(ratio, factors=(1.0,) * P, bound=np.inf):
    """One structure for all, as programs are compiled by it."""
    penalty = l1jax.Factors(l1jax.ElasticNet(1.0, ratio), np.array(factors))
    return l1jax.Bounds(penalty, np.full(P, -bound), np.full(P, bound))


PENALTIES = {
    "lasso": alone(1.0),
    "bounds": alone(1.0, bound=0.5),
    "elastic net": alone(0.5, (1.0, 0.0, 1.0, 2.0, 0.5, 1.0)),
    "ridge": alone(0.0),
    "groups": l1jax.SparseGroupLasso(1.0, GROUPS, l1_ratio=jnp.asarray(0.0)),
    "sparse groups": l1jax.SparseGroupLasso(1.0, GROUPS, l1_ratio=jnp.asarray(0.3)),
}


def data(rng):
    X = rng.normal(size=(N, P)) * [1, 2, 1, 0.5, 1, 1]
    return X, X @ [1.0, 0.2, 0, 0, 0.7, 0] + rng.normal(size=N), rng.uniform(0.5, 2, N)


@pytest.mark.parametrize("name", PENALTIES)
def test_degrees_of_freedom_are_the_trace_of_the_fits_derivative(name, rng):
    X, y, w = data(rng)
    problem = l1jax.Problem(X, y, penalty=PENALTIES[name], sample_weight=w)

    def fit(y):
        return l1jax.path(dataclasses.replace(problem, y=jnp.asarray(y)), lams=LAMS, tol=1e-13, max_steps=20000)

    def row(i, y):
        found = fit(y)
        return np.asarray(found.coef) @ X[i] + np.asarray(found.intercept)

    h = 1e-4
    slopes = sum(row(i, y + h * e) - row(i, y - h * e) for i, e in enumerate(np.eye(N))) / (2 * h)
    found = fit(y)
    ours = l1jax.degrees_of_freedom(problem, found)
    np.testing.assert_allclose(ours + 1, slopes, rtol=0, atol=2e-4)  # the intercept counts in the slopes
    if name == "lasso":
        np.testing.assert_array_equal(ours, np.sum(np.asarray(found.coef) != 0, axis=1))


def test_yuan_and_lin_for_orthonormal_groups(rng):
    Q = np.linalg.qr(rng.normal(size=(N, P)))[0] * np.sqrt(N)
    y = Q @ [1.0, 0.5, 0.2, 0.1, 0.3, 0.8] + rng.normal(size=N)
    problem = l1jax.Problem(Q, y, penalty=l1jax.GroupLasso(1.0, GROUPS), fit_intercept=False)
    found = l1jax.path(problem, lams=LAMS, tol=1e-13)
    least, labels = Q.T @ y / N, np.array([0, 0, 1, 1, 1, 2])
    for df, coef in zip(l1jax.degrees_of_freedom(problem, found), np.asarray(found.coef), strict=True):
        groups = [
            (np.linalg.norm(coef[labels == g]), np.linalg.norm(least[labels == g]), sum(labels == g)) for g in range(3)
        ]
        assert float(df) == pytest.approx(sum((b > 0) + (m - 1) * b / c for b, c, m in groups), abs=1e-6)


def test_group_lasso_of_classes(rng):
    """The multinomial's H by finite differences of its gradient, in all coefficients and intercepts."""
    X, y = rng.normal(size=(N, 3)), rng.integers(0, 3, N).astype(float)
    penalty = l1jax.GroupLasso(0.05, range(3), weights=np.ones(3))
    problem = l1jax.Problem(X, y, loss=l1jax.Multinomial(3), penalty=penalty)
    found = l1jax.solve(problem, tol=1e-12, max_steps=100000)
    w, b, loss = np.asarray(found.coef), np.asarray(found.intercept), problem.loss
    Z = np.concatenate([X, np.ones((N, 1))], axis=1)

    def total(point):
        return loss.value(Z @ point, loss.encode(problem.y), problem.weights())

    H = jax.hessian(total)(jnp.concatenate([w, b[None]])).reshape(12, 12)
    bend = np.zeros((4, 3, 4, 3))
    on = np.linalg.norm(w, axis=1) > 0
    for j in np.flatnonzero(on):
        r = np.linalg.norm(w[j])
        bend[j, :, j] = 0.05 / r * (np.eye(3) - np.outer(w[j], w[j]) / r**2)
    keep = np.repeat(np.append(on, True), 3)
    H, bend = np.asarray(H)[np.ix_(keep, keep)], bend.reshape(12, 12)[np.ix_(keep, keep)]
    want = np.trace(np.linalg.pinv(H + bend, rcond=1e-10) @ H) - 2  # two of the three intercepts matter
    assert float(l1jax.degrees_of_freedom(problem, found)) == pytest.approx(want, abs=1e-5)
    assert 0 < want < 6


def test_scikit_learns_aic_and_bic():
    data = l1jax.datasets.diabetes()
    problem = l1jax.Problem(data.X, data.y, penalty=l1jax.L1(1.0))
    for name, price in (("aic", 2.0), ("bic", np.log(len(data.y)))):
        theirs = LassoLarsIC(criterion=name).fit(data.X, data.y)
        found = l1jax.path(problem, lams=theirs.alphas_[1:-1], tol=1e-13)
        ours = l1jax.information_criteria(problem, found, dispersion=theirs.noise_variance_)
        df = (theirs.criterion_[1:-1] - np.asarray(ours.deviance)) / price
        np.testing.assert_allclose(df, np.round(df), rtol=0, atol=1e-6)
        assert np.all(np.abs(np.asarray(ours.df) - df) < 1.5)  # at its knots a path is about to gain or lose one
        assert float(found.lams[ours.best(name)]) == pytest.approx(theirs.alpha_)


@pytest.mark.parametrize("known", [True, False])
def test_closed_forms_of_the_squared_loss(known, rng):
    X, y, w = data(rng)
    counts = rng.integers(0, 3, N)
    for weights, given, count in (
        ("importance", w, N),
        ("frequency", counts, counts.sum()),
        ("importance", counts, np.sum(counts > 0)),
    ):
        problem = l1jax.Problem(X, y, penalty=l1jax.L1(1.0), sample_weight=given)
        found = l1jax.path(problem, lams=LAMS)
        ours = l1jax.information_criteria(problem, found, dispersion=1.3 if known else None, weights=weights, gamma=0.5)
        for k in range(len(LAMS)):
            df = np.sum(np.asarray(found.coef[k]) != 0)
            mean = np.average((y - X @ found.coef[k] - found.intercept[k]) ** 2, weights=given)
            v = 1.3 if known else mean
            twice = count * np.log(2 * np.pi * v) + count * mean / v
            d = df + 1 + (not known)
            ebic = twice + np.log(count) * d + np.log(float([1, 6, 15, 20, 15, 6, 1][df]))
            want = (twice, twice + 2 * d, twice + 2 * d + 2 * d * (d + 1) / (count - d - 1), twice + np.log(count) * d,
                    ebic, mean / (1 - (df + 1) / count) ** 2)  # fmt: skip
            got = [getattr(ours, name)[k] for name in ("deviance", "aic", "aicc", "bic", "ebic", "gcv")]
            np.testing.assert_allclose(got, want, rtol=1e-9)
        assert int(ours.best("bic")) == int(np.argmin(ours.bic))


def test_frequencies_are_repeated_rows(rng):
    """For the losses without a variance too; and jitted."""
    X, y, _ = data(rng)
    counts = rng.integers(1, 3, N)
    rows = np.repeat(np.arange(N), counts)
    y = np.floor(np.exp(y / 2))
    answers = []
    for at, weight in ((np.arange(N), counts), (rows, np.ones(len(rows)))):
        problem = l1jax.Problem(X[at], y[at], loss=l1jax.Poisson(), penalty=l1jax.L1(1.0), sample_weight=weight)
        found = l1jax.path(problem, lams=LAMS, tol=1e-11)
        answers.append(l1jax.information_criteria(problem, found, weights="frequency"))
    for name in ("deviance", "aicc", "bic", "gcv"):
        np.testing.assert_allclose(getattr(answers[0], name), getattr(answers[1], name), rtol=1e-7)
    traced = jax.jit(lambda problem, found: l1jax.information_criteria(problem, found).bic)(problem, found)
    np.testing.assert_allclose(traced, answers[1].bic, rtol=1e-12)
    assert "bic" in repr(answers[0])


def test_wrong_arguments(rng):
    X, y, _ = data(rng)
    problem = l1jax.Problem(X, y, penalty=l1jax.L1(1.0))
    found = l1jax.path(problem, lams=LAMS)
    with pytest.raises(ValueError, match='weights: want "importance" or "frequency"'):
        l1jax.information_criteria(problem, found, weights="x")
    with pytest.raises(ValueError, match="dispersion: want a number above 0"):
        l1jax.information_criteria(problem, found, dispersion=0.0)
    with pytest.raises(ValueError, match="name: want 'aic'"):
        l1jax.information_criteria(problem, found).best("x")
