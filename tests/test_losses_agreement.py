"""Agreement of the losses with scikit-learn, SciPy's laws and minimisers, and a naive partial likelihood.

All problems of one loss have one shape and one penalty structure, so that each loss is compiled once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import partial_likelihood
from scipy import stats
from scipy.optimize import minimize
from sklearn.linear_model import GammaRegressor, PoissonRegressor, QuantileRegressor, TweedieRegressor
from sklearn.svm import LinearSVC

import l1jax

N, P = 40, 5
RNG = np.random.default_rng(4)
X = RNG.normal(size=(N, P)) * np.array([1, 0.5, 2, 1, 1])
LINEAR = 0.5 + X @ np.array([0.6, -0.8, 0.0, 0.0, 0.3])
WEIGHTS = RNG.uniform(0.5, 2, N)
SHARES = WEIGHTS / WEIGHTS.sum()
THETA = 1.7
RESPONSES = {
    "counts": RNG.poisson(np.exp(LINEAR)).astype(float),
    "amounts": RNG.gamma(2.0, np.exp(LINEAR) / 2),
    "dispersed": RNG.poisson(np.exp(LINEAR) * RNG.gamma(THETA, 1 / THETA, N)).astype(float),
    "heavy": LINEAR + RNG.standard_t(2, N),
    "classes": (LINEAR + RNG.logistic(size=N) > 0).astype(float),
}
FISHER = {"counts": l1jax.Poisson(), "amounts": l1jax.Gamma(), "dispersed": l1jax.NegativeBinomial(THETA)}


def fit(loss, y, lam, ratio, solver="newton", tol=1e-12, **options):
    """Our solution: lam*ratio of L1 and lam*(1 - ratio)/2 of squares (scikit-learn's alpha is lam at ratio 0)."""
    penalty = l1jax.ElasticNet(lam, ratio)
    problem = l1jax.Problem(X, y, loss=loss, penalty=penalty, sample_weight=WEIGHTS, **options)
    found = l1jax.solve(problem, solver=solver, tol=tol)
    assert found.converged
    return found


def minimised(value, lam, intercept=True):
    """(coef, intercept) of the ridge problem with a loss value(eta), by SciPy."""

    def objective(w):
        return value(X @ w[:P] + w[P] * intercept) + lam / 2 * w[:P] @ w[:P]

    found = minimize(objective, np.zeros(P + 1), method="BFGS", options={"gtol": 1e-9, "maxiter": 2000})
    again = minimize(objective, found.x, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 4000})
    return again.x[:P], again.x[P]


@pytest.mark.parametrize(
    ("kind", "peer"),
    [
        ("counts", PoissonRegressor),
        ("amounts", GammaRegressor),
        ("counts", functools.partial(TweedieRegressor, power=1, link="log")),
        ("amounts", functools.partial(TweedieRegressor, power=2, link="log")),
    ],
    ids=["poisson", "gamma", "tweedie of power 1", "tweedie of power 2"],
)
@pytest.mark.parametrize("lam", [0.01, 0.5])
def test_ridge_is_scikit_learns(kind, peer, lam):
    y = RESPONSES[kind]
    want = peer(alpha=lam, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(X, y, sample_weight=WEIGHTS)
    found = fit(FISHER[kind], y, lam, 0.0)
    np.testing.assert_allclose(found.coef, want.coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.intercept, want.intercept_, rtol=1e-5, atol=1e-6)


def test_l2_of_half_alpha_is_scikit_learns_ridge():
    y = RESPONSES["counts"]
    want = PoissonRegressor(alpha=0.2, solver="newton-cholesky", tol=1e-10).fit(X, y)
    problem = l1jax.Problem(X, y, loss=l1jax.Poisson(), penalty=l1jax.L2(0.1))
    found = l1jax.solve(problem, solver="fista", tol=1e-10)
    assert found.converged
    np.testing.assert_allclose(found.coef, want.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.dev_ratio, want.score(X, y), rtol=1e-6)


def slopes(kind, eta, y):
    """The derivative of half the deviance of one row, from the law: (mu - y) / (variance over mu)."""
    mu = np.exp(eta)
    return (mu - y) / {"counts": 1, "amounts": mu, "dispersed": 1 + mu / THETA}[kind]


@pytest.mark.parametrize("kind", FISHER)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_l1_solutions_meet_their_kkt_conditions(kind, share):
    y = RESPONSES[kind]
    null = np.log(SHARES @ y)
    lam_max = np.max(np.abs(X.T @ (SHARES * slopes(kind, np.full(N, null), y))))
    lam = share * lam_max
    found = fit(FISHER[kind], y, lam, 1.0, tol=1e-13)
    coef = np.asarray(found.coef)
    v = SHARES * slopes(kind, X @ coef + float(found.intercept), y)
    gradient = X.T @ v
    assert 0 < np.sum(coef != 0) <= P
    np.testing.assert_allclose(gradient[coef != 0], -lam * np.sign(coef[coef != 0]), rtol=1e-5)
    assert np.all(np.abs(gradient) <= lam * (1 + 1e-5))
    assert abs(np.sum(v)) <= 1e-8
    above = fit(FISHER[kind], y, lam_max * (1 + 1e-9), 1.0)
    assert np.all(np.asarray(above.coef) == 0)
    np.testing.assert_allclose(above.intercept, null, rtol=1e-9)


@pytest.mark.parametrize("kind", FISHER)
@pytest.mark.parametrize("level", [1.0, 3.0, 0.3, 1e5])
def test_a_constant_response_is_a_perfect_null_model(kind, level):
    found = fit(FISHER[kind], np.full(N, level), 0.1, 1.0)
    assert np.all(np.asarray(found.coef) == 0)
    assert found.gap == 0
    np.testing.assert_allclose(found.intercept, np.log(level), rtol=1e-14, atol=1e-15)


def test_negative_binomial_is_scipys_law():
    y = RESPONSES["dispersed"]

    def value(eta):
        return -SHARES @ stats.nbinom.logpmf(y, THETA, THETA / (THETA + np.exp(eta)))

    found = fit(FISHER["dispersed"], y, 0.1, 0.0)
    coef, intercept = minimised(value, 0.1)
    np.testing.assert_allclose(found.coef, coef, atol=1e-5)
    np.testing.assert_allclose(found.intercept, intercept, atol=1e-5)
    at_best = -SHARES @ stats.nbinom.logpmf(y, THETA, THETA / (THETA + y))  # p = 1 where y = 0
    ridge = 0.1 / 2 * coef @ coef
    np.testing.assert_allclose(found.objective, value(X @ coef + intercept) - at_best + ridge, rtol=1e-8)


def test_poisson_and_gamma_are_scipys_laws():
    eta, s = jnp.asarray(LINEAR), jnp.asarray(SHARES)
    y = RESPONSES["counts"]
    want = SHARES @ (stats.poisson.logpmf(y, y) - stats.poisson.logpmf(y, np.exp(LINEAR)))
    np.testing.assert_allclose(l1jax.Poisson().value(eta, jnp.asarray(y), s), want, rtol=1e-12)
    y = RESPONSES["amounts"]
    want = SHARES @ (stats.expon.logpdf(y, scale=y) - stats.expon.logpdf(y, scale=np.exp(LINEAR)))  # of shape 1
    np.testing.assert_allclose(l1jax.Gamma().value(eta, jnp.asarray(y), s), want, rtol=1e-12)


def test_huber_is_scipys():
    y = RESPONSES["heavy"]

    def value(eta):
        r = np.abs(eta - y)
        return SHARES @ np.where(r <= 0.7, r**2 / 2, 0.7 * r - 0.7**2 / 2)

    found = fit(l1jax.Huber(0.7), y, 0.1, 0.0)
    coef, intercept = minimised(value, 0.1)
    np.testing.assert_allclose(found.coef, coef, atol=1e-5)
    np.testing.assert_allclose(found.intercept, intercept, atol=1e-5)


@pytest.mark.parametrize("q", [0.5, 0.8])
def test_quantiles_are_scikit_learns_in_the_limit(q):
    y, lam = RESPONSES["heavy"], 0.05
    want = QuantileRegressor(quantile=q, alpha=lam, solver="highs").fit(X, y, sample_weight=WEIGHTS)

    def pinball(coef, intercept):
        r = y - X @ np.asarray(coef) - float(intercept)
        return SHARES @ np.maximum(q * r, (q - 1) * r) + lam * np.abs(coef).sum()

    least = pinball(want.coef_, want.intercept_)
    for width in (1.0, 0.03, 1e-3):
        found = fit(l1jax.Quantile(q, width), y, lam, 1.0, solver="fista", tol=1e-7)
        excess = pinball(found.coef, found.intercept) - least
        assert -1e-9 <= excess <= width / 4 + 1e-6
    np.testing.assert_allclose(found.coef, want.coef_, atol=0.01)
    assert np.array_equal(np.asarray(found.coef) != 0, np.abs(want.coef_) > 1e-9)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_squared_hinge_is_liblinears(norm):
    y, lam = RESPONSES["classes"], 0.05
    C = 1 / (2 * lam * WEIGHTS.sum())
    peer = LinearSVC(
        penalty=norm, loss="squared_hinge", dual=False, C=C, fit_intercept=False, tol=1e-10, max_iter=100_000
    )
    want = peer.fit(X, y, sample_weight=WEIGHTS)
    found = fit(l1jax.SquaredHinge(), y, lam, float(norm == "l1"), fit_intercept=False)
    np.testing.assert_allclose(found.coef, want.coef_[0], atol=1e-5)


# -- Cox

EVENTS = (np.array([4.0, 1, 1, 2, 2, 3]), np.array([1.0, 1, 0, 1, 1, 0]), np.array([0.0, 1, 1, 1, 0, 0]))
OF_EVENTS = {  # log partial likelihoods as functions of r = exp(beta), and where they are largest
    "breslow": (lambda r: 2 * np.log(r) - np.log(3 * r + 3) - 2 * np.log(r + 3), np.log((3 + np.sqrt(33)) / 2)),
    "efron": (lambda r: 2 * np.log(r) - np.log(3 * r + 3) - np.log(r + 3) - np.log(r / 2 + 2.5), 1.676857),
}


@pytest.mark.parametrize("ties", OF_EVENTS)
def test_cox_has_the_published_solution(ties):
    """The first worked example of Therneau and Grambsch (2000), appendix E."""
    y, event, x = EVENTS
    likelihood, best = OF_EVENTS[ties]
    loss, s = l1jax.Cox(event, ties=ties), jnp.full(6, 1 / 6)
    infimum = 2 / 6 * np.log(1 / 6) + 2 / 6 * np.log(2 / 6) + (1 / 6 * np.log(1 / 2) if ties == "efron" else 0)
    for beta in (0.0, best, -2.0, 5.0):
        found = loss.value(jnp.asarray(beta * x), jnp.asarray(y), s)
        want = -likelihood(np.exp(beta))
        np.testing.assert_allclose(6 * (found + infimum) + 4 * np.log(6), want, rtol=1e-12)  # weights of 1, not 1/6
    slope = x @ np.asarray(loss.gradient(jnp.asarray(best * x), jnp.asarray(y), s))
    np.testing.assert_allclose(slope, 0, atol=1e-7)


def censored(rng, n):
    """(eta, y, event, start, s) with ties, censoring, late entries and rows of weight 0."""
    y = rng.integers(1, 7, n).astype(float)
    event = (rng.uniform(size=n) < 0.6).astype(float)
    event[0] = 1
    start = y - rng.integers(1, 6, n)
    s = np.where(rng.uniform(size=n) < 0.2, 0, rng.uniform(0.2, 1, n))
    s[0] = 1
    return 2 * rng.normal(size=n), y, event, start, s / s.sum()


@pytest.mark.parametrize("ties", ["breslow", "efron"])
@pytest.mark.parametrize("late", [False, True], ids=["from the beginning", "late entries"])
def test_cox_is_the_naive_partial_likelihood(ties, late):
    rng = np.random.default_rng(8)
    cases = [np.stack(parts) for parts in zip(*(censored(rng, 11) for _ in range(60)), strict=True)]
    eta, y, event, start, s = cases
    loss = l1jax.Cox(event, start if late else None, ties)

    def facts(loss, eta, y, s):
        return loss.value(eta, y, s), loss.gradient(eta, y, s)

    value, gradient = jax.device_get(jax.jit(jax.vmap(facts))(loss, eta, y, s))
    for k in range(len(eta)):
        rest = (y[k], s[k], event[k], start[k] if late else None, ties)
        np.testing.assert_allclose(value[k], partial_likelihood(eta[k], *rest), rtol=1e-12, atol=1e-14)
        h = 1e-5 * np.eye(11)
        slope = [(partial_likelihood(eta[k] + d, *rest) - partial_likelihood(eta[k] - d, *rest)) / 2e-5 for d in h]
        np.testing.assert_allclose(gradient[k], slope, rtol=1e-6, atol=1e-9)


def test_cox_has_no_intercept():
    with pytest.raises(ValueError, match=r"fit_intercept: want False with Cox"):
        l1jax.Problem(X, np.arange(1.0, N + 1), loss=l1jax.Cox(np.ones(N)), penalty=l1jax.L1(0.1))


@pytest.mark.parametrize("solver", ["newton", "fista"])
def test_cox_lasso_meets_its_kkt_conditions(solver):
    """With ties after Efron, late entries and weights; the gradient by central differences of the naive likelihood."""
    rng = np.random.default_rng(9)
    _, y, event, start, _ = censored(rng, N)
    y = y + np.where(X[:, 0] > 0, 0, 1)  # so that there is something to find
    problem = l1jax.Problem(
        X,
        y,
        loss=l1jax.Cox(event, start, "efron"),
        penalty=l1jax.L1(0.03),
        sample_weight=WEIGHTS,
        fit_intercept=False,
    )
    found = l1jax.solve(problem, solver=solver, tol=1e-8)
    assert found.converged
    assert np.isnan(found.gap)
    coef = np.asarray(found.coef)

    def value(coef):
        return partial_likelihood(X @ coef, y, SHARES, event, start, "efron")

    gradient = np.array([(value(coef + d) - value(coef - d)) / 2e-5 for d in 1e-5 * np.eye(P)])

    assert 0 < np.sum(coef != 0) < P
    np.testing.assert_allclose(gradient[coef != 0], -0.03 * np.sign(coef[coef != 0]), rtol=1e-5)
    assert np.all(np.abs(gradient) <= 0.03 * (1 + 1e-5))
    np.testing.assert_allclose(found.objective, value(coef) + 0.03 * np.abs(coef).sum(), rtol=1e-10)
