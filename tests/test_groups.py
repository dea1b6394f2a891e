"""Active sets of groups: hard designs, the claims of their certificates, other engines' answers, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formulas import Jointly, norms

import l1jax
from l1jax.engines import groups

N, P, TOL = 20, 48, 1e-6
SIZES = [24, 8, 8, 4, 2, 1, 1]  # one is larger than N
LABELS = np.random.default_rng(3).permutation(np.repeat(np.arange(len(SIZES)), SIZES))
WEIGHTS = {
    "roots": np.sqrt(SIZES),
    "free groups": np.array([1.0, 2.0, 0.5, 1.0, 1.0, 0.0, 0.0]),
    "a fixed group": np.array([1.0, np.inf, 2.0, 1.0, 1.0, 1.0, 0.1]),
}


def normal(rng):
    return rng.standard_normal((N, P))


def changed(columns, change):
    def design(rng):
        X = normal(rng)
        X[:, columns] = change(X)
        return X

    return design


def coherent(rng):
    return normal(rng) @ np.linalg.cholesky(0.99 ** np.abs(np.subtract.outer(np.arange(P), np.arange(P)))).T


DESIGNS = {
    "normal": normal,
    "duplicates within groups and across": lambda rng: np.repeat(rng.standard_normal((N, 12)), 4, axis=1),
    "two equal groups": changed(LABELS == 2, lambda X: X[:, LABELS == 1]),
    "all columns equal": lambda rng: np.repeat(rng.standard_normal((N, 1)), P, axis=1),
    "one column 1e8 times another": changed(7, lambda X: 1e8 * X[:, 7]),
    "a group of zeros": changed(LABELS == 1, lambda X: 0.0),
    "coherent": coherent,
    "rank 3": lambda rng: rng.standard_normal((N, 3)) @ rng.standard_normal((3, P)),
}  # fmt: skip


def posed(rng, design, loss, weights="roots", dtype=np.float64, **others):
    X = DESIGNS[design](rng)
    eta = X[:, :5] @ np.ones(5) / np.abs(X).max()
    y = eta + 0.1 * np.std(eta) * rng.standard_normal(N)
    y = (y > np.median(y)).astype(float) if loss == "logistic" else y
    return l1jax.Problem(
        X.astype(dtype),
        y.astype(dtype),
        loss=l1jax.Logistic() if loss == "logistic" else l1jax.Squared(),
        penalty=l1jax.GroupLasso(1.0, LABELS, WEIGHTS[weights]),
        **others,
    )


def excess(problem, coef, intercept, lam):
    """The relative gap of a point, by formulas in extended precision."""
    weights = np.asarray(problem.penalty.weights)
    fixed = np.isinf(weights)
    X, unit, s = np.where(fixed[LABELS], 0, problem.X), 1.0, problem.sample_weight
    if problem.standardize:
        unit = np.sqrt(np.average((X - np.average(X, axis=0, weights=s)) ** 2, axis=0, weights=s))
    shape = norms(LABELS, np.where(fixed, 0, weights), 0.5, np.ones(P), 1.0)["group lasso"]
    oracle = Jointly(
        X / unit,
        problem.y,
        shape=shape,
        lam=float(lam),
        free=(weights == 0)[LABELS],
        loss="logistic" if isinstance(problem.loss, l1jax.Logistic) else "squared",
        weights=np.ones(N) if s is None else s,
        offset=np.zeros(N) if problem.offset is None else problem.offset,
        fit_intercept=problem.fit_intercept,
        eps=np.finfo(problem.X.dtype).eps,
    )
    assert np.all(np.asarray(coef)[fixed[LABELS]] == 0)
    coef = np.asarray(coef) * unit
    return (oracle.objective(coef, intercept) - oracle.bound_at(coef, intercept)) / oracle.null_objective


def check(problem, found):
    assert np.all(np.isfinite(found.coef))
    assert np.all(found.converged)
    tol = float(found.tol[0]) + 64 * np.finfo(found.coef.dtype).eps
    for k in (1, len(found.lams) // 2, -1):
        assert excess(problem, np.asarray(found.coef[k]), found.intercept[k], found.lams[k]) <= tol


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("name", DESIGNS)
def test_hard_designs_end_in_a_certificate_that_holds(name, loss, rng):
    problem = posed(rng, name, loss)
    check(problem, l1jax.path(problem, num=10, ratio=1e-3, tol=TOL))


SETTINGS = {
    "free groups": {"weights": "free groups"},
    "a fixed group": {"weights": "a fixed group"},
    "float32": {"dtype": np.float32},
    "weights, offset, units, no intercept": {
        "sample_weight": np.where(np.arange(N) == 3, 0.0, 1 + np.arange(N) % 3),
        "offset": np.linspace(-0.1, 0.1, N),
        "standardize": True,
        "fit_intercept": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_a_problem(name, rng):
    problem = posed(rng, "normal", "squared", **SETTINGS[name])
    check(problem, l1jax.path(problem, num=10, ratio=1e-2))


def test_they_agree_with_first_order_steps(rng):
    problem = posed(rng, "normal", "squared")
    lams = 10 ** np.linspace(-0.3, -1.2, 4) * l1jax.lambda_max(problem)
    found, other = (l1jax.path(problem, lams=lams, tol=1e-9, solver=solver) for solver in ("active", "fista"))
    assert np.all(found.converged)
    np.testing.assert_allclose(found.objective, other.objective, rtol=1e-8)
    np.testing.assert_allclose(found.coef, other.coef, atol=2e-4)
    assert np.all((np.asarray(found.coef) != 0) == (np.asarray(other.coef) != 0))


def test_groups_of_one_are_the_lasso(rng):
    X, y = rng.standard_normal((20, 40)), rng.standard_normal(20)
    lams = np.geomspace(0.3, 0.01, 6)
    grouped, lasso = (
        l1jax.path(l1jax.Problem(X, y, penalty=penalty), lams=lams, tol=1e-10)
        for penalty in (l1jax.GroupLasso(1.0, range(40)), l1jax.L1(1.0))
    )
    np.testing.assert_allclose(grouped.coef, lasso.coef, atol=1e-5)


def test_conjugate_gradients_and_elimination_agree(rng, monkeypatch):
    """Steps of both kinds, from a problem that is large enough for either."""
    X = rng.standard_normal((60, 300))
    problem = l1jax.Problem(
        X, X[:, :20] @ np.ones(20) + rng.standard_normal(60), penalty=l1jax.GroupLasso(1.0, np.arange(300) // 5)
    )
    run, reached = groups.GroupSet._conjugate_gradients, []

    def counted(*args):
        d, well = run(*args)
        reached.append(well)
        return d, well

    monkeypatch.setattr(groups.GroupSet, "_conjugate_gradients", counted)
    found = l1jax.path(problem, num=30, tol=1e-10)
    assert any(reached)
    monkeypatch.setattr(groups, "SMALL", 1000)
    other = l1jax.path(problem, num=30, tol=1e-10)
    assert np.all(found.converged & other.converged)
    np.testing.assert_allclose(found.objective, other.objective, rtol=1e-8)
    assert np.sum(found.steps) < 8 * 30


def test_a_limit_of_steps_ends_honestly(rng):
    problem = posed(rng, "coherent", "squared")
    found = l1jax.path(problem, num=10, ratio=1e-3, tol=1e-12, max_steps=1)
    assert not np.all(found.converged)
    assert np.all(np.asarray(found.steps) <= 1)
    np.testing.assert_array_equal(found.converged, found.gap <= 1e-12)


def test_derivatives_are_those_of_the_minimum(rng):
    X, y = rng.standard_normal((20, 40)), rng.standard_normal(20)
    problem = l1jax.Problem(X, y, penalty=l1jax.GroupLasso(1.0, range(40)))

    def total(lam):
        return jnp.sum(l1jax.path(problem, lams=lam * jnp.linspace(1, 0.5, 6), tol=1e-10).coef ** 2)

    slope = jax.grad(total)(0.1)
    np.testing.assert_allclose(slope, (total(0.1001) - total(0.0999)) / 2e-4, rtol=1e-3)


def test_a_start_in_a_group_that_is_fixed_at_0_is_left(rng):
    X = rng.standard_normal((30, 5))
    penalty = l1jax.GroupLasso(0.1, [0, 0, 1, 1, 2], weights=[1.0, np.inf, 1.0])
    problem = l1jax.Problem(X, X[:, 0] + rng.standard_normal(30), penalty=penalty)
    found = l1jax.solve(problem, init=(np.ones(5), np.zeros(())))
    assert found.converged
    np.testing.assert_allclose(found.coef, l1jax.solve(problem, solver="fista", tol=1e-10).coef, atol=1e-3)
    assert np.all(found.coef[2:4] == 0)
