"""Losses of several linear predictors a row, coefficients (p, k): laws, oracles, certificates."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import Phase, given, settings, strategies as st
from registry import MATRICES
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression, MultiTaskLasso

import l1jax
from l1jax import L1, L2, ElasticNet, Factors, GroupLasso, Multinomial, MultiSquared, NuclearNorm, Problem, solve

EPS = np.finfo(float).eps
RNG = np.random.default_rng(5)
N, K = 7, 3
S = RNG.uniform(0.5, 2, N)
S = S / S.sum()
LABELS = np.array([0, 1, 2, 1, 0, 2, 2.0])
RESPONSES = RNG.normal(size=(N, K))
LOSSES = {"multi squared": (MultiSquared(), RESPONSES), "multinomial": (Multinomial(K), LABELS)}
ETAS = RNG.normal(size=(12, N, K)) * np.repeat([0.1, 1, 10], 4)[:, None, None]


def cost(name, eta, y, s):
    """The formulas, in extended precision."""
    eta, s = np.asarray(eta, np.longdouble), np.asarray(s, np.longdouble)
    if name == "multi squared":
        return s @ np.sum((eta - y) ** 2, axis=-1) / 2
    own = np.take_along_axis(eta, np.asarray(y, int)[:, None], axis=1)
    return s @ (logsumexp(eta - own, axis=1))


@pytest.fixture(params=LOSSES)
def name(request):
    return request.param


@pytest.fixture
def loss(name):
    return LOSSES[name][0]


@pytest.fixture
def y(name, loss):
    return loss.encode(jnp.asarray(LOSSES[name][1]))


SHIFT = jax.jit(lambda loss, *at: loss.shift(*at))


@functools.partial(jax.jit, static_argnums=0)
def facts(kind, loss, eta, y, s):
    v = loss.gradient(eta, y, s)
    return {
        "value": loss.value(eta, y, s),
        "gradient": v,
        "by jax": jax.grad(loss.value)(eta, y, s),
        "curvature": loss.curvature(eta, y, s),
        "hessian": jax.jacfwd(loss.gradient)(eta, y, s),
        "bent": loss.bent(jnp.cos(eta), eta, y, s),
        "conjugate": loss.conjugate(v, y, s),
    }


def test_values_and_derivatives_are_those_of_the_formula(name, loss, y):
    raw = LOSSES[name][1]
    for eta in ETAS:
        found = facts(name, loss, eta, y, S)
        value = cost(name, eta, raw, S)
        size = float(value) + np.abs(found["gradient"]).sum() * np.abs(eta).max()
        assert abs(float(found["value"] - float(value))) <= 16 * EPS * size
        d = RNG.normal(size=eta.shape)
        slope = (cost(name, eta + 1e-6 * d, raw, S) - cost(name, eta - 1e-6 * d, raw, S)) / 2e-6
        np.testing.assert_allclose(np.sum(found["gradient"] * d), float(slope), rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found["by jax"], found["gradient"], rtol=1e-12, atol=1e-14)
        ahead, behind = (facts(name, loss, eta + c * d, y, S)["gradient"] for c in (1e-6, -1e-6))
        along = np.tensordot(found["hessian"], d, axes=2)
        np.testing.assert_allclose(along, (ahead - behind) / 2e-6, atol=1e-8)
        np.testing.assert_allclose(found["bent"], np.tensordot(found["hessian"], np.cos(eta), axes=2), atol=1e-13)
        whole = found["hessian"].reshape(N * K, N * K)
        assert np.linalg.eigvalsh(np.diag(found["curvature"].ravel()) - whole).min() > -1e-14
        assert np.linalg.eigvalsh(loss.smoothness * np.diag(np.repeat(S, K)) - whole).min() > -1e-14


def test_fenchel_and_young(name, loss, y):
    """f(eta) + f*(v) = <v, eta> at the gradient v, and at least that elsewhere."""
    for eta, other in zip(ETAS, ETAS[::-1], strict=True):
        v = loss.gradient(eta, y, S)
        inner = jnp.sum(v * eta)
        size = float(jnp.sum(jnp.abs(v * eta))) + 1e-12
        assert abs(loss.value(eta, y, S) + loss.conjugate(v, y, S) - inner) <= 64 * EPS * size
        assert loss.value(other, y, S) + loss.conjugate(v, y, S) >= jnp.sum(v * other) - 64 * EPS * size
    if name == "multinomial":
        v = np.array(loss.gradient(ETAS[5], y, S))
        for row, change in ((0, [0.1, -0.1, 0.1]), (1, [-0.9, 0.9, 0.0])):
            off = v.copy()
            off[row] += np.array(change) * S[row]
            assert loss.conjugate(off, y, S) == np.inf


def test_the_least_value_is_0(name, loss, y):
    if name == "multi squared":
        assert loss.value(y, y, S) == 0
    else:
        assert 0 <= loss.value(1e3 * y, y, S) < 1e-300
        tiny = loss.value(50 * y, y, S)  # 1 - q cancels here
        np.testing.assert_allclose(tiny, 2 * np.exp(-50), rtol=1e-12)
    assert np.all(np.isfinite(facts(name, loss, 1e4 * np.sign(ETAS[0]), y, S)["hessian"]))


def test_rows_of_weight_0_do_not_matter(name, loss, y):
    s = np.where(np.arange(N) == 2, 0, S)
    wild = ETAS[0].copy()
    wild[2] = [np.inf, 1e300, -np.inf]
    for part, want in facts(name, loss, ETAS[0], y, s).items():
        if part != "bent" and (part != "hessian" or name == "multinomial"):
            found = facts(name, loss, wild if name == "multinomial" else ETAS[0], y, s)[part]
            np.testing.assert_array_equal(found, want)


def test_the_shift_is_the_best_one(name, loss, y):
    """At ordinary points, and with rows that are far out, where Newton steps see a plateau."""
    far = np.array([1e3, 0, 0]) * np.arange(N)[:, None]
    for eta in [*ETAS, far, -far, 50 * ETAS[0]]:
        b = SHIFT(loss, jnp.asarray(eta), y, jnp.asarray(S))
        total = np.abs(loss.gradient(eta, y, S)).sum()
        assert np.abs(loss.gradient(eta + np.asarray(b), y, S).sum(axis=0)).max() <= 1e-12 * max(total, 1e-3), eta


def test_mean_and_link_are_inverses(loss):
    mu = loss.mean(jnp.asarray(ETAS[4]))
    np.testing.assert_allclose(loss.mean(loss.link(mu)), mu, rtol=1e-12)


def test_losses_are_data(loss):
    again = pickle.loads(pickle.dumps(loss))
    assert jax.tree.structure(again) == jax.tree.structure(loss)


def test_two_classes_are_the_logistic_loss():
    eta, label = ETAS[4][:, :2], (LABELS > 0).astype(float)
    two, one = Multinomial(2), l1jax.Logistic()
    y = two.encode(jnp.asarray(label))
    np.testing.assert_allclose(two.value(eta, y, S), one.value(eta[:, 1] - eta[:, 0], label, S), rtol=1e-13)


# -- solutions

ROWS, P = 60, 6
X = RNG.normal(size=(ROWS, P)) * [1, 2, 0.5, 1, 1, 3] + 1
BETA = RNG.normal(size=(P, K)) * np.array([1, 1, 0, 0, 0, 0.5])[:, None]
Y = X @ BETA + RNG.normal(size=(ROWS, K)) + [3, 0, -2]
CLASS = np.argmax(X @ BETA + 2 * RNG.gumbel(size=(ROWS, K)), axis=1).astype(float)
WEIGHTS = RNG.uniform(0.3, 2, ROWS)
OFFSET = 0.3 * RNG.normal(size=(ROWS, K))
DATA = {"multi squared": Y, "multinomial": CLASS}


def rows(lam):
    return GroupLasso(lam, range(P), weights=np.ones(P))


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_multi_task_lasso_is_that_of_scikit_learn(fit_intercept):
    for lam in (1.0, 0.2):
        found = solve(Problem(X, Y, loss=MultiSquared(), penalty=rows(lam), fit_intercept=fit_intercept), tol=1e-13)
        peer = MultiTaskLasso(alpha=lam, tol=1e-15, max_iter=10**6, fit_intercept=fit_intercept).fit(X, Y)
        np.testing.assert_allclose(found.coef, peer.coef_.T, atol=1e-7)
        np.testing.assert_allclose(found.intercept, peer.intercept_, atol=1e-7)
        assert found.converged
        assert np.all((np.asarray(found.coef) == 0) == (peer.coef_.T == 0))


def test_several_responses_with_a_separable_penalty_are_solved_one_by_one():
    penalty = Factors(ElasticNet(0.3, 0.8), [0, 1, 1, np.inf, 0.5, 1])
    both = solve(Problem(X, Y, loss=MultiSquared(), penalty=penalty, sample_weight=WEIGHTS), tol=1e-13)
    for k in range(K):
        one = solve(Problem(X, Y[:, k], penalty=penalty, sample_weight=WEIGHTS), tol=1e-13)
        np.testing.assert_allclose(both.coef[:, k], one.coef, atol=1e-6)
        np.testing.assert_allclose(both.intercept[k], one.intercept, atol=1e-6)


@pytest.mark.parametrize("penalty", [L2(0.02), L1(0.03)], ids=["ridge", "lasso"])
def test_multinomial_solutions_are_those_of_scikit_learn(penalty):
    """Through scikit-learn's sum over rows: C = 1/(n*2*lam) for lam*|w|^2, 1/(n*lam) for lam*|w|_1."""
    found = solve(Problem(X, CLASS, loss=Multinomial(K), penalty=penalty), tol=1e-12)
    assert found.converged
    if isinstance(penalty, L2):
        peer = LogisticRegression(C=1 / (2 * 0.02 * ROWS), tol=1e-12, max_iter=10**5).fit(X, CLASS)
        tol = 1e-6
    else:
        peer = LogisticRegression(
            C=1 / (0.03 * ROWS), l1_ratio=1, solver="saga", tol=1e-10, max_iter=10**5, random_state=0
        ).fit(X, CLASS)
        tol = 1e-4
    np.testing.assert_allclose(l1jax.predict(found, X, loss=Multinomial(K)), peer.predict_proba(X), atol=tol)
    if isinstance(penalty, L2):
        np.testing.assert_allclose(found.coef, peer.coef_.T, atol=tol)
    np.testing.assert_allclose(np.sum(found.intercept), 0, atol=1e-14)


def objective(name, problem, value, coef, intercept):
    """P, from the formulas."""
    s = np.ones(ROWS) / ROWS if problem.sample_weight is None else np.asarray(problem.sample_weight)
    offset = 0 if problem.offset is None else np.asarray(problem.offset)
    eta = np.asarray(X, np.longdouble) @ np.asarray(coef) + np.asarray(intercept) + offset
    return cost(name, eta, DATA[name], s / s.sum()) + value(np.asarray(coef))


CASES = {
    "rows": (rows(0.15), lambda w: 0.15 * np.linalg.norm(w, axis=1).sum()),
    "l1, a free row": (Factors(L1(0.1), [0, 1, 1, 1, 1, 1]), lambda w: 0.1 * np.abs(w[1:]).sum()),
    "nuclear norm": (NuclearNorm(0.3), lambda w: 0.3 * np.linalg.svd(w, compute_uv=False).sum()),
}


@pytest.mark.parametrize("case", CASES)
def test_certificates_hold_and_lambda_max_is_sharp(name, case):
    penalty, value = CASES[case]
    problem = Problem(X, DATA[name], loss=LOSSES[name][0], penalty=penalty, sample_weight=WEIGHTS, offset=OFFSET)
    top = float(l1jax.lambda_max(problem))
    found = l1jax.path(problem, lams=[top, top * (1 - 1e-4), penalty.lam], tol=1e-10)
    assert np.all(found.converged)
    priced = np.asarray(found.coef)[:, 1:] if case.endswith("free row") else np.asarray(found.coef)
    assert np.all(priced[0] == 0)
    assert np.any(priced[1] != 0)

    def reached(coef, intercept):
        return float(objective(name, problem, value, coef, intercept))

    last = found[2]
    best, null = reached(last.coef, last.intercept), reached(np.zeros((P, K)), null_of(name, problem))
    np.testing.assert_allclose(last.objective, best, rtol=1e-12)
    np.testing.assert_allclose(last.dev_ratio, 1 - (best - value(np.asarray(last.coef))) / null, rtol=1e-6)
    gap = jax.jit(lambda coef, b: l1jax.duality_gap(problem, coef, b))
    assert gap(last.coef, last.intercept) <= 1e-9
    for size in (1e-6, 1e-3, 0.1, 1.0):
        coef = np.asarray(last.coef) + size * RNG.normal(size=(P, K))
        b = np.asarray(last.intercept) + size * RNG.normal(size=K)
        short = (reached(coef, b) - best) / null
        assert short >= -1e-10  # nothing near or far is better
        assert gap(coef, b) >= short - 1e-10


def null_of(name, problem):
    """The intercepts of the null model, by SciPy."""
    s = np.asarray(problem.sample_weight) / np.sum(problem.sample_weight)
    offset = np.asarray(problem.offset)
    return scipy.optimize.minimize(lambda b: float(cost(name, offset + b, DATA[name], s)), np.zeros(K), tol=1e-12).x


def test_a_path_of_matrices():
    problem = Problem(X, CLASS, loss=Multinomial(K), penalty=rows(1.0), standardize=True)
    found = l1jax.path(problem, num=5, ratio=0.05, tol=1e-8)
    together = jax.jit(lambda problem: l1jax.path(problem, num=5, ratio=0.05, tol=1e-8, mode="vmap"))(problem)
    assert found.coef.shape == (5, P, K)
    assert found.intercept.shape == (5, K)
    assert np.all(found.converged)
    np.testing.assert_allclose(found.coef, together.coef, atol=1e-3)
    np.testing.assert_array_equal(found.df, np.sum(np.asarray(found.coef) != 0, axis=(1, 2)))
    assert "6 x 3 coefficients" in repr(found)
    assert "coef[0][0]" in repr(found[-1])
    eta = np.asarray(found.intercept)[:, None, :] + np.einsum("mp,lpk->lmk", X, found.coef)
    np.testing.assert_allclose(l1jax.predict(found, X), eta, rtol=1e-12)
    np.testing.assert_allclose(l1jax.predict(found[2], X, offset=OFFSET), eta[2] + OFFSET, rtol=1e-12)
    shares = np.exp(eta) / np.exp(eta).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(l1jax.predict(found, X, loss=Multinomial(K)), shares, rtol=1e-12)
    sd = X.std(axis=0)
    s = np.exp(eta[3]) / np.exp(eta[3]).sum(axis=1, keepdims=True) - np.eye(K)[CLASS.astype(int)]
    slopes = (X - X.mean(axis=0)).T / sd[:, None] @ s / ROWS  # the penalty acts on columns of unit sd
    assert np.all(np.linalg.norm(slopes, axis=1) <= found.lams[3] * (1 + 1e-4))


def fit(name, lam, tol=1e-14):
    """A solution; the elastic net's coefficients are smooth in lam."""
    problem = Problem(X, DATA[name], loss=LOSSES[name][0], penalty=ElasticNet(lam, 0.5), sample_weight=WEIGHTS)
    return solve(problem, tol=tol)


def test_derivatives_are_those_of_differences():
    def solution(lam):
        found = fit("multi squared", lam)
        return jnp.concatenate([found.coef, found.intercept[None]])

    h = 1e-5
    many = jax.jit(jax.vmap(solution))(jnp.array([0.2 - h, 0.2, 0.2 + h]))
    found = jax.jit(jax.jacrev(solution))(0.2)
    np.testing.assert_allclose(found, (many[2] - many[0]) / (2 * h), atol=2e-5)


def test_float32():
    name = "multi squared"
    problem = Problem(*(a.astype(np.float32) for a in (X, DATA[name])), loss=LOSSES[name][0], penalty=rows(0.15))
    found = solve(problem)
    assert found.converged
    assert found.coef.dtype == np.float32
    value = CASES["rows"][1]
    exact = Problem(X, DATA[name], loss=LOSSES[name][0], penalty=rows(0.15))
    best = float(solve(exact, tol=1e-12, init=(found.coef, found.intercept)).objective)
    short = float(objective(name, exact, value, found.coef, found.intercept)) - best
    null = float(cost(name, np.zeros((ROWS, K)), DATA[name], np.full(ROWS, 1 / ROWS)))
    assert short <= 3e-5 * null  # tol, and a rounding of the data


BATCH = 24


@functools.partial(jax.jit, static_argnums=0)
def batch(name, X, y, lam, weights, offset, tol):
    def one(X, y, lam, weights, offset):
        found = solve(Problem(X, y, LOSSES[name][0], rows(lam), weights, offset), tol=tol, max_steps=2000)
        return found.coef, found.intercept, found.gap, found.converged

    return jax.vmap(one)(X, y, lam, weights, offset)


@settings(max_examples=2, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 2**31),
    scale=st.integers(0, 6),
    mean=st.integers(0, 2),
    shift=st.integers(0, 2),
    depth=st.integers(1, 3),
    hostile=st.booleans(),
)
@pytest.mark.parametrize("name", LOSSES)
def test_no_false_certificate(name, seed, scale, mean, shift, depth, hostile):
    """No better point is at hand than a certified one by more than tol, by the formulas; ordinary problems converge."""
    rng = np.random.default_rng(seed)
    scale, n = (scale if hostile else 1), 12
    X = (rng.normal(size=(BATCH, n, P)) + mean) * 2.0 ** rng.integers(-scale, scale + 1, (BATCH, 1, P))
    offset = rng.normal(size=(BATCH, n, K)) * (10.0**shift if hostile else 0.1)
    eta = rng.normal(size=(BATCH, n, K))
    y = eta if name == "multi squared" else np.argmax(eta, axis=2).astype(float)
    if name == "multinomial":
        y[:, :K] = np.arange(K)  # every class is met
    weights = rng.uniform(0.2, 2, (BATCH, n))
    weights[:, K:][rng.uniform(size=(BATCH, n - K)) < 0.2 * hostile] = 0.0
    lam = 10.0 ** -rng.uniform(0, depth, BATCH)
    claims, better = (
        zip(*jax.device_get(batch(name, X, y, lam, weights, offset, tol)), strict=True) for tol in (1e-6, 1e-11)
    )
    for k, ((coef, b, gap, converged), (other, other_b, *_)) in enumerate(zip(claims, better, strict=True)):
        s = weights[k] / weights[k].sum()

        def value(coef, b, k=k, s=s):
            price = lam[k] * np.linalg.norm(coef, axis=1).sum()
            return float(cost(name, X[k] @ coef + b + offset[k], y[k], s)) + price

        assert converged or hostile
        if converged:
            start = np.average(y[k] - offset[k], axis=0, weights=s) if name == "multi squared" else np.zeros(K)
            null = scipy.optimize.minimize(lambda b, value=value: value(np.zeros((P, K)), b), start, tol=1e-9).fun
            assert value(coef, b) - value(other, other_b) <= (1e-6 + 64 * EPS) * null, (k, gap)


BAD = {
    "one response": (lambda: Problem(X, Y[:, 0], loss=MultiSquared(), penalty=L1(1.0)), r"y: want shape \(60, k\)"),
    "a matrix": (lambda: Problem(X, Y, loss=Multinomial(3), penalty=L1(1.0)), r"y: want shape \(60,\)"),
    "an offset of one": (
        lambda: Problem(X, Y, loss=MultiSquared(), penalty=L1(1.0), offset=Y[:, 0]),
        r"offset: want shape \(60, 3\)",
    ),
    "one class": (lambda: Multinomial(1), "num_classes"),
    "half a class": (lambda: solve(Problem(X, CLASS / 2, loss=Multinomial(3), penalty=L1(1.0))), "classes 0 to 2"),
    "a class unseen": (lambda: solve(Problem(X, CLASS, loss=Multinomial(4), penalty=L1(1.0))), "every class"),
    "coordinate descent": (
        lambda: solve(Problem(X, Y, loss=MultiSquared(), penalty=L1(1.0)), solver="cd"),
        "coordinate descent wants",
    ),
    "newton": (lambda: solve(Problem(X, CLASS, loss=Multinomial(3), penalty=L1(1.0)), solver="newton"), "Newton"),
    "init": (lambda: solve(Problem(X, Y, loss=MultiSquared(), penalty=L1(1.0)), init=(np.zeros(P), 0.0)), "init"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arguments_are_refused_by_name(what):
    make, words = BAD[what]
    with pytest.raises(ValueError, match=words):
        make()


# -- the nuclear norm, which is of matrices only


@pytest.mark.parametrize("what", MATRICES)
def test_the_laws_of_a_penalty_of_matrices(what):
    penalty, value, conjugate = MATRICES[what]
    for v in RNG.normal(size=(6, 5, 3)) * np.array([0.1, 0.3, 1, 1, 3, 10])[:, None, None]:
        for step in (0.1, 1.0):
            w = np.asarray(penalty.prox(v, step))
            u = (v - w) / step
            np.testing.assert_allclose(penalty.value(w), value(w), rtol=1e-12, atol=1e-14)
            assert conjugate(u * (1 - 1e-9)) == 0
            np.testing.assert_allclose(np.sum(u * w), value(w), rtol=1e-9, atol=1e-12)
            assert np.max(penalty.distance(w, u)) < 1e-9
        assert conjugate(v / penalty.critical_lam(v) * penalty.lam * (1 - 1e-9)) == 0
        assert conjugate(v / penalty.critical_lam(v) * penalty.lam * (1 + 1e-6)) == np.inf
