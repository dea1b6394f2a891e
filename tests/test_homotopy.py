"""The lasso's path knot by knot, and the few rows that stand for many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kkt import Oracle
from sklearn.linear_model import lars_path

import l1jax
from l1jax import L1, Factors, Problem
from l1jax.engines.homotopy import Homotopy
from l1jax.hosted import Penalties, Summary
from l1jax.minimum import certify_all
from l1jax.standard_form import prepared
from l1jax.sufficient import few_rows, hidden, sufficient


def coherent(rng, n, p, rho=0.9):
    """Features enter and leave: neighbours stand in for each other."""
    X = rng.standard_normal((n, p))
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * X[:, j]
    return X, X[:, ::3] @ rng.standard_normal(len(X[0, ::3])) + 0.5 * rng.standard_normal(n)


def walked(problem, lams):
    """The homotopy alone: coefficients in raw units, and intercepts."""
    form, penalty = prepared(problem)
    line = Penalties(form, penalty, jnp.asarray(lams)).line()
    assert line is not None
    z, b, _ = Homotopy(form, *line, limit=500).run()
    return jax.vmap(form.to_raw)(jnp.asarray(z), jnp.asarray(b))


def test_its_knots_are_those_of_lars(rng):
    X, y = coherent(rng, 40, 12)
    y = y + 3 * rng.standard_normal(40)
    X, y = X - X.mean(axis=0), y - y.mean()
    knots, _, coefs = lars_path(X, y, method="lasso")
    assert len(knots) > 14  # some features left again
    between = np.concatenate([[2 * knots[0]], knots[:-1], (knots[1:] + knots[:-1]) / 2])
    at = np.argsort(-between)
    wanted = np.stack([np.interp(between, knots[::-1], row[::-1]) for row in coefs], axis=1)
    found, _ = walked(Problem(X, y, penalty=L1(1.0)), between[at])
    np.testing.assert_allclose(found, wanted[at], atol=1e-9)


def test_single_precision_costs_no_more_than_the_answer_s_own(rng):
    X, y = coherent(rng, 60, 10)
    lams = np.geomspace(1, 1e-3, 12)
    exact = l1jax.path(Problem(X, y, penalty=L1(1.0)), lams=lams, tol=1e-12).coef
    found = l1jax.path(Problem(X.astype("f4"), y.astype("f4"), penalty=L1(1.0)), lams=lams.astype("f4"))
    assert found.coef.dtype == np.float32
    assert np.all(found.converged)
    np.testing.assert_allclose(found.coef, exact, atol=2e-5)
    for _ in range(5):  # lambda_max is rounded, and still leaves nothing
        X, y = (a.astype("f4") for a in coherent(rng, 60, 10))
        whole = l1jax.path(Problem(X, y, penalty=L1(1.0)), num=12)
        assert not np.any(whole.coef[0])
        assert np.any(whole.coef[1])


@pytest.mark.parametrize(("factors", "standardize"), [([0.0, 1.0, 3.0], False), ([0.0, 0.0, 1.0], True)])
def test_factors_weights_and_free_coefficients(factors, standardize, rng):
    X, y = coherent(rng, 30, 9)
    factors, weights = np.resize(factors, 9), rng.integers(0, 3, 30).astype(float)
    problem = Problem(X, y, penalty=Factors(L1(1.0), factors), sample_weight=weights, standardize=standardize)
    lams = np.geomspace(1.0, 1e-3, 20)
    coef, intercept = walked(problem, lams)
    for lam, w, b in zip(lams, coef, intercept, strict=True):
        asked = {"weights": weights, "standardize": standardize}
        assert Oracle(X, y, l1=lam * factors, **asked).gap(w, b) < 1e-10


def test_what_it_can_t_walk_is_solved_otherwise(rng, monkeypatch):
    """Dependent columns, a wrong turn, a limit of knots: certificates tell, and other steps take over."""
    X, y = coherent(rng, 30, 6)
    lams = np.geomspace(0.5, 1e-3, 15)
    twice = Problem(np.hstack([X, X, -X]), y, penalty=L1(1.0))
    assert np.all(l1jax.path(twice, lams=lams, tol=1e-9).converged)
    sweep = Homotopy._sweep

    def spoiled(self, j):
        sweep(self, j)
        self.M[:-2] *= 1.3

    plain = Problem(X, y, penalty=L1(1.0))
    wanted = l1jax.path(plain, lams=lams, tol=1e-9, solver="cd")
    monkeypatch.setattr(Homotopy, "_sweep", spoiled)
    found = l1jax.path(plain, lams=lams, tol=1e-9)
    assert np.all(found.converged)
    np.testing.assert_allclose(found.objective, wanted.objective, rtol=1e-8)


@pytest.mark.parametrize(
    ("stop", "dtype"), [({"max_nonzeros": 4}, float), ({"max_dev_ratio": 0.6}, float), ({"max_nonzeros": 4}, "float32")]
)
def test_it_stops_where_it_is_told(stop, dtype, rng):
    X, y = (a.astype(dtype) for a in coherent(rng, 40, 8))
    lams = np.geomspace(2.0, 1e-3, 30)
    found, wanted = (
        l1jax.path(
            Problem(X, y, penalty=L1(1.0)), lams=lams, solver=solver, tol=1e-8 if dtype is float else 1e-5, **stop
        )
        for solver in ("auto", "cd")
    )
    np.testing.assert_array_equal(found.converged, wanted.converged)
    assert 0 < np.sum(found.converged) < 30
    assert not np.any(found.steps[np.sum(found.converged) :])


@pytest.mark.parametrize("name", ["no intercept", "weighted", "dependent", "constant", "scales"])
def test_few_rows_stand_for_many(name, rng):
    """The same moments, and the same objectives and certificates at any point but for what is said to be hidden."""
    X, y = coherent(rng, 60, 7)
    X += 3
    if name == "dependent":
        X[:, 4] = X[:, 1] + X[:, 2]
    if name == "constant":
        X[:, 4] = 1
    if name == "scales":
        X *= np.geomspace(1, 1e6, 7)
    weights = rng.integers(0, 4, 60).astype(float) if name == "weighted" else None
    problem = Problem(X, y, penalty=L1(0.1), sample_weight=weights, fit_intercept=name != "no intercept")
    form, penalty = prepared(problem)
    known = sufficient(form, 1e-6)
    few = few_rows(form, known)
    assert few.shape == (9, 7)
    sums = few.design.XT @ few.s
    np.testing.assert_allclose(sums, 0, atol=1e-12)
    for one, other in (
        (few.design.gram(few.s), form.design.gram(form.s)),
        (known.G, form.design.gram(form.s)),
        (known.c, form.design.tdot(form.s * form.y)),
        (few.design.tdot(few.s * few.y), form.design.tdot(form.s * form.y)),
        (jnp.sum(few.s * few.y**2), jnp.sum(form.s * form.y**2)),
    ):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)
    best = l1jax.solve(problem, tol=1e-12)
    z = np.stack([form.from_raw(best.coef, best.intercept)[0]] * 3) * np.array([1.0, 1.01, 3.0])[:, None]
    asked = (penalty, jnp.full(3, 0.1), jnp.asarray(z), jnp.zeros(3), False)
    theirs = certify_all(form, *asked)
    room, null = hidden(form, known.share, z), float(form.null_objective)
    for ours in (certify_all(few, *asked), Summary(form, *asked[:2], known).certified(z, np.zeros(3))):
        assert np.all(np.abs(ours.objective - theirs.objective) <= room * null)
        assert np.all((theirs.objective - best.objective) / null <= ours.gap + room)
        if name != "scales":  # there the slopes of huge columns are all rounding, beside their strengths
            assert np.all(np.abs(ours.gap - theirs.gap) <= room)
            np.testing.assert_allclose(ours.stationarity, theirs.stationarity, rtol=1e-9, atol=1e-12)


def test_many_rows_stay_where_few_would_hide_too_much(rng):
    X, y = coherent(rng, 60, 7)
    form, _ = prepared(Problem(X, y, penalty=L1(0.1)))
    assert sufficient(form, 1e-13) is None
    logistic = Problem(X, y > 0, loss=l1jax.Logistic(), penalty=L1(0.1))
    assert sufficient(prepared(logistic)[0], 1e-6) is None
    found = l1jax.path(Problem(X, y, penalty=L1(1.0)), num=5, tol=1e-14)
    assert np.all(found.converged)


@pytest.mark.filterwarnings("error")
def test_a_constant_response_and_a_column_of_zeros_leave_zeros(rng):
    X = rng.normal(size=(40, 3))
    X[:, 2] = 0
    found = l1jax.path(l1jax.Problem(X, np.ones(40), penalty=l1jax.L1(1.0)), lams=[0.1, 0.01])
    assert bool(jnp.all(found.converged))
    assert not np.any(found.coef)
