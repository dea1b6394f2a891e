"""Derivatives of solutions in every leaf, of both orders and directions, traced and not; and at kinks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import assemble
from jax.test_util import check_grads

import l1jax
from l1jax import implicit, systems
from l1jax.engines.sets import SquaredSet

N, P = 20, 6
LEAVES = ["X", "y", "lam", "ratio", "factors", "weights", "offset"]
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, P)) * [1, 2, 0.5, 1, 1, 3] + 0.3
ETA = X @ [1.0, -0.5, 1.0, 0, 0, 0.2] + 0.5 * RNG.normal(size=N)
GIVEN = {
    "X": X,
    "y": ETA,
    "lam": 0.1 * np.ones(P),
    "ratio": 0.7 * np.ones(()),
    "factors": np.array([1, 0.5, 1, 2, 1, 0.3]),
    "weights": RNG.uniform(0.5, 1.5, N),
    "offset": 0.1 * RNG.normal(size=N),
}
ALONG = {name: RNG.normal(size=np.shape(a)) * np.std(a, where=True) + 0.1 * RNG.normal() for name, a in GIVEN.items()}
ALONG["ratio"], ALONG["lam"] = np.array(0.3), 0.1 * RNG.normal(size=P)
WEIGHT = np.cos(np.arange(P + 1.0))
UPPER = np.array([0.6, np.inf, np.inf, np.inf, np.inf, np.inf])


def answer(kind, given):
    """(coef, intercept) as one vector."""
    loss, intercept, standardize = kind
    parts = [given[name] for name in ("X", "y", "lam", "ratio", "factors")]
    values = (*parts, np.full(P, -np.inf), UPPER, given["weights"], given["offset"])
    found = l1jax.solve(assemble(values, loss, intercept, standardize), tol=1e-14, max_steps=2000)
    return jnp.append(found.coef, found.intercept)


def moved(given, name, t):
    return given | {name: given[name] + t * ALONG[name]}


def test_derivatives_in_every_leaf():
    """Outside tracing, where the solution is found on the host, forward and backward; central differences."""
    kind, given, h = ("squared", True, True), GIVEN, 1e-4
    here, pull = jax.vjp(functools.partial(answer, kind), given)
    assert here[0] == pytest.approx(UPPER[0])  # one at its bound, one 0, others free
    assert np.any(here[1:] == 0)
    (reverse,) = pull(jnp.asarray(WEIGHT))
    still = jax.tree.map(np.zeros_like, given)
    _, push = jax.linearize(functools.partial(answer, kind), given)
    for name in LEAVES:
        low2, low, up, up2 = (answer(kind, moved(given, name, k * h)) for k in (-2, -1, 1, 2))
        numeric = np.asarray((8 * (up - low) - (up2 - low2)) / (12 * h))
        size = np.max(np.abs(numeric))
        assert size > 1e-3
        np.testing.assert_allclose(push(still | {name: ALONG[name]}), numeric, atol=1e-6 * size, rtol=0)
        total = np.sum(reverse[name] * ALONG[name])
        np.testing.assert_allclose(total, WEIGHT @ numeric, atol=1e-6 * size, rtol=0)


def test_traced_derivatives_of_both_orders():
    """Under jit, all leaves at once: jvp, vjp, and the Hessian's product with a vector in both nestings."""
    kind = ("squared", False, True)
    along = {name: 0.1 * ALONG[name] for name in LEAVES}

    def scalar(given):
        return jnp.sum(answer(kind, given) * WEIGHT)

    @jax.jit
    def all_of(given):
        slope = jax.grad(scalar)
        value, first = jax.jvp(scalar, (given,), (along,))
        forward = jax.jvp(slope, (given,), (along,))[1]
        backward = jax.grad(lambda given: jax.jvp(scalar, (given,), (along,))[1])(given)
        return value, first, slope(given), forward, backward

    def moved_all(t):
        return {name: GIVEN[name] + t * along[name] for name in LEAVES}

    value, first, slope, forward, backward = jax.device_get(all_of(moved_all(0.0)))
    h = 1e-3
    low2, low, here, up, up2 = (float(scalar(moved_all(k * h))) for k in (-2, -1, 0, 1, 2))
    assert value == pytest.approx(here, rel=1e-6)
    assert first == pytest.approx((8 * (up - low) - (up2 - low2)) / (12 * h), rel=1e-6)
    bend = (-up2 + 16 * up - 30 * here + 16 * low - low2) / (12 * h**2)
    for second in (forward, backward):
        assert sum(np.sum(second[name] * along[name]) for name in LEAVES) == pytest.approx(bend, rel=1e-4)
    assert first == pytest.approx(sum(np.sum(slope[name] * along[name]) for name in LEAVES), rel=1e-9)
    for name in LEAVES:
        np.testing.assert_allclose(forward[name], backward[name], atol=1e-8 * np.max(np.abs(forward[name])) + 1e-12)


def test_jacobians_and_hessians_outside_tracing():
    kind = ("squared", False, True)

    def coef(lam):
        return answer(kind, GIVEN | {"lam": lam})

    forward, reverse = jax.jacfwd(coef)(GIVEN["lam"]), jax.jacrev(coef)(GIVEN["lam"])
    np.testing.assert_allclose(forward, reverse, atol=1e-10)
    check_grads(lambda lam: WEIGHT @ coef(lam) ** 2, (GIVEN["lam"],), order=2, modes=["rev"], eps=1e-4)


# -- closed forms


def test_an_orthonormal_design_moves_by_minus_the_sign():
    Q = np.linalg.qr(RNG.normal(size=(12, 5)))[0] * np.sqrt(12)
    y = Q @ [3.0, -2, 0.2, 0, 1] + 0.01

    def coef(lam):
        return l1jax.solve(l1jax.Problem(Q, y, penalty=l1jax.L1(lam), fit_intercept=False), tol=1e-14).coef

    here = np.asarray(coef(0.5))
    assert np.sum(here == 0) == 2
    np.testing.assert_allclose(jax.jacobian(coef)(0.5), -np.sign(here), atol=1e-12)


def test_ridge_is_its_formula():
    def coef(lam):
        return l1jax.solve(l1jax.Problem(X, ETA, penalty=l1jax.L2(lam), fit_intercept=False), tol=1e-14).coef

    def formula(lam):
        return jnp.linalg.solve(X.T @ X / N + 2 * lam * jnp.eye(P), X.T @ ETA / N)

    np.testing.assert_allclose(jax.jacfwd(coef)(0.3), jax.jacfwd(formula)(0.3), rtol=1e-9)


def test_the_diabetes_lasso_is_linear_between_knots_through_path():
    """d coef / d lam = -inv(G_AA) s_A, at each strength of a path; off the diagonal nothing moves."""
    data = l1jax.datasets.diabetes()
    centred = np.asarray(data.X) - np.mean(data.X, axis=0)
    problem = l1jax.Problem(data.X, data.y, penalty=l1jax.L1(1.0))
    lams = np.array([1.5, 0.5, 0.05])
    found = l1jax.path(problem, lams=lams, tol=1e-13)
    slopes = jax.jacrev(lambda lams: l1jax.path(problem, lams=lams, tol=1e-13).coef)(jnp.asarray(lams))
    for i in range(3):
        on = np.flatnonzero(found.coef[i])
        G = centred[:, on].T @ centred[:, on] / len(centred)
        expected = np.zeros(10)
        expected[on] = -np.linalg.solve(G, np.sign(found.coef[i])[on])
        np.testing.assert_allclose(slopes[i, :, i], expected, rtol=1e-7, atol=1e-7)
        assert np.all(slopes[i][:, np.arange(3) != i] == 0)


# -- kinks


def gradients(X, y, lam=0.1, penalty=l1jax.L1):
    """d (coef . weights) / d (X, y, lam) on the host."""

    def total(X, y, lam):
        found = l1jax.solve(l1jax.Problem(X, y, penalty=penalty(lam), fit_intercept=False), tol=1e-13)
        return jnp.sum(found.coef * jnp.cos(jnp.arange(found.coef.size, dtype=float)).reshape(found.coef.shape))

    return jax.grad(total, (0, 1, 2))(jnp.asarray(X), jnp.asarray(y), lam)


def test_at_the_threshold_a_zero_stays():
    """Orthogonal columns: the second coefficient is exactly at its threshold, and reaches 0 there."""
    of_X, of_y, of_lam = gradients(2 * np.eye(8), np.array([8.0, 2.0, *np.zeros(6)]), lam=0.5)
    np.testing.assert_allclose(of_lam, -2.0)
    np.testing.assert_allclose(of_y, [0.5, *np.zeros(7)], atol=1e-12)
    assert np.all(np.isfinite(of_X))


@pytest.mark.parametrize("name", ["equal columns", "opposite columns", "more columns than rows", "ties"])
def test_singular_systems_give_small_finite_derivatives(name):
    base = RNG.normal(size=(8, 4))
    X = {
        "equal columns": np.hstack([base, base]),
        "opposite columns": np.hstack([base, -base]),
        "more columns than rows": np.repeat(RNG.normal(size=(4, 8)), 2, axis=0),
        "ties": np.repeat(base, 2, axis=1),
    }[name]
    lam = 1e-6 if "rows" in name else 0.05
    for part in gradients(X, X @ np.ones(X.shape[1]) + 1.0, lam):
        assert np.all(np.isfinite(part))
        assert np.max(np.abs(part)) < 1e3


def test_least_solutions_of_flat_systems():
    """By matrix and by iteration: the pseudo-inverse's answer, whatever the right-hand side."""
    half = RNG.normal(size=(12, 5))
    A, b = half @ half.T, RNG.normal(size=12)
    expected = np.linalg.pinv(A, rcond=1e-12) @ b
    np.testing.assert_allclose(systems.least_solution(lambda x: A @ x, jnp.asarray(b)), expected, rtol=1e-9)
    for rhs in (b, A @ b, 0 * b):
        iterated = systems.conjugate_residuals(lambda x: jnp.asarray(A) @ x, jnp.asarray(rhs))
        np.testing.assert_allclose(iterated, np.linalg.pinv(A, rcond=1e-12) @ rhs, rtol=1e-6, atol=1e-9)
    for matrix, rcond in ((A, 1e-12), (A + np.eye(12), 0.0)):
        inverse = jnp.asarray(systems.least_inverse(matrix))
        found = systems.least_solution(lambda x, matrix=matrix: matrix @ x, jnp.asarray(b), inverse)
        np.testing.assert_allclose(found, np.linalg.pinv(matrix, rcond=rcond) @ b, rtol=1e-9)
    assert np.all(np.isnan(systems.least_inverse(np.full((3, 3), np.nan))))


def test_a_solve_that_is_not_differentiated_meets_no_boundary(monkeypatch):
    monkeypatch.setattr("l1jax.loop._boundary", None)
    problem = l1jax.Problem(RNG.normal(size=(8, 4)), RNG.normal(size=8), penalty=l1jax.L1(0.1))
    assert l1jax.solve(problem).converged
    with pytest.raises(TypeError):
        jax.grad(lambda lam: l1jax.solve(dataclasses.replace(problem, penalty=l1jax.L1(lam))).objective)(0.1)


@pytest.mark.parametrize("nonzeros", [20, 300])
def test_the_inverse_that_the_engine_holds_is_taken(nonzeros, monkeypatch):
    """No matrix is made where the engine's inverse is good; an old one is refused. The slope is -inv(G) sign."""
    n, p = 900, 400
    rng = np.random.default_rng(0)
    X, coef = rng.normal(size=(n, p)), np.where(np.arange(p) < nonzeros, 2.0, 0.0)
    y = X @ coef + 0.1 * rng.normal(size=n)

    def solution(lam):
        return l1jax.solve(l1jax.Problem(X, y, penalty=l1jax.L1(lam), fit_intercept=False), tol=1e-12).coef

    at = np.asarray(solution(0.5))
    on = np.flatnonzero(at)
    assert len(on) >= nonzeros
    wanted = np.zeros(p)
    wanted[on] = -np.linalg.solve(X[:, on].T @ X[:, on] / n, np.sign(at[on]))
    made, inverses = [], implicit._inverses
    monkeypatch.setattr(implicit, "_inverses", lambda *given: made.append(1) or inverses(*given))
    np.testing.assert_allclose(jax.jacrev(solution)(0.5), wanted, rtol=1e-9, atol=1e-12)
    assert not made
    held = SquaredSet.inverse

    def worn(self, kinks):
        self.H.change()[:] *= 1.001
        return held(self, kinks)

    monkeypatch.setattr(SquaredSet, "inverse", worn)
    np.testing.assert_allclose(jax.jacrev(solution)(0.5), wanted, rtol=1e-7, atol=1e-9)
    assert made


def test_equal_columns_share_alike_though_the_engine_holds_an_inverse():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 400))
    X[:, [4, 6]] = X[:, [2]]
    y = X[:, :8].sum(axis=1) + 0.1 * rng.normal(size=100)

    def solution(lam):
        return l1jax.solve(l1jax.Problem(X, y, penalty=l1jax.L1(lam)), tol=1e-11).coef

    slope, h = jax.jacrev(solution)(0.1), 1e-5
    np.testing.assert_allclose(slope[jnp.array([4, 6])], slope[2], rtol=1e-9)
    differences = (solution(0.1 + h) - solution(0.1 - h)) / (2 * h)
    np.testing.assert_allclose(3 * slope[2], jnp.sum(differences[jnp.array([2, 4, 6])]), rtol=1e-5)


def test_equal_singular_values_have_the_map_s_derivative():
    """At c * I and along a symmetric direction, both singular values above the threshold move as the matrix does."""
    prox = l1jax.NuclearNorm(1.0).prox
    d = jnp.array([[1.0, 0.5], [0.5, -2.0]])
    out, along = jax.jvp(lambda v: prox(v, 1.0), (3 * jnp.eye(2),), (d,))
    np.testing.assert_allclose(out, 2 * np.eye(2), atol=1e-12)
    np.testing.assert_allclose(along, d, atol=1e-12)
    turn = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    _, along = jax.jvp(lambda v: prox(v, 1.0), (3 * jnp.eye(2),), (turn,))
    np.testing.assert_allclose(along, turn * 2 / 3, atol=1e-12)


def test_second_derivatives_where_singular_values_are_equal():
    """Kept ones, both or one of them, and none; a matrix of zeros has derivatives too."""
    h, d = 1e-3, jnp.array([[1.0, 0.5], [0.3, -2.0], [0.7, 0.2]])
    starts = jnp.stack([3 * jnp.eye(3, 2), jnp.diag(jnp.array([3.0, 2.0, 0.0]))[:, :2], 0.5 * jnp.eye(3, 2), 0 * d])

    @jax.jit
    @jax.vmap
    def of(v):
        def moved(t):
            return l1jax.NuclearNorm(1.0).prox(v + t * d, 1.0)

        low2, low, here, up, up2 = jax.vmap(moved)(h * jnp.arange(-2.0, 3.0))
        numeric = (-up2 + 16 * up - 30 * here + 16 * low - low2) / (12 * h**2)
        forward = jax.jvp(lambda t: jax.jvp(moved, (t,), (1.0,))[1], (0.0,), (1.0,))[1]
        return numeric, forward, jax.hessian(lambda t: jnp.sum(moved(t) * d))(0.0)

    numeric, forward, twice = of(starts)
    assert np.max(np.abs(numeric[0])) > 0.1
    np.testing.assert_allclose(forward, numeric, atol=1e-7)
    np.testing.assert_allclose(twice, jnp.sum(forward * d[None], axis=(1, 2)), atol=1e-12)


def test_batches_of_batches_of_gradients():
    """Strengths within responses, through `path`: as one by one."""
    ys, lams = np.stack([ETA, ETA[::-1]]), jnp.array([0.1, 0.2, 0.3])

    def total(lam, y):
        posed = l1jax.Problem(X, y, penalty=l1jax.L1(1.0))
        return jnp.sum(l1jax.path(posed, lams=lam * jnp.array([1.0, 0.5]), tol=1e-12).coef ** 2)

    slopes = jax.grad(total, (0, 1))
    nested = jax.jit(jax.vmap(jax.vmap(slopes, (0, None)), (None, 0)))(lams, ys)
    for i, k in ((0, 2), (1, 0)):
        for batched, alone in zip(nested, slopes(lams[k], ys[i]), strict=True):
            np.testing.assert_allclose(batched[i, k], alone, rtol=1e-7, atol=1e-9)


# -- where others fail


def test_a_thousand_features_four_of_them_nonzero():
    """jaxopt's issue 274: n = 100, p = 1000, 4 nonzeros; traced and not, the support's own formula."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 1000))
    y = X[:, :4] @ [3.0, -2, 2, 1.5] + 0.1 * rng.normal(size=100)

    def coef(lam):
        return l1jax.solve(l1jax.Problem(X, y, penalty=l1jax.L1(lam), fit_intercept=False), tol=1e-12).coef

    here = np.asarray(coef(0.5))
    on = np.flatnonzero(here)
    assert len(on) == 4
    expected = np.zeros(1000)
    expected[on] = -np.linalg.solve(X[:, on].T @ X[:, on] / 100, np.sign(here[on]))
    along = jax.grad(lambda lam: jnp.sum(coef(lam) * np.sign(here)))(0.5)
    np.testing.assert_allclose(along, expected @ np.sign(here), rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(coef))(0.5), expected, atol=1e-7)


def test_an_optax_direction_as_solver_has_the_same_derivatives():
    def total(lam, solver):
        problem = l1jax.Problem(X, ETA, penalty=l1jax.L1(lam))
        return jnp.sum(l1jax.solve(problem, tol=1e-12, solver=solver, max_steps=50_000).coef ** 2)

    expected = jax.grad(total)(0.2, "auto")
    with jax.numpy_dtype_promotion("standard"):
        found = jax.grad(total)(0.2, optax.identity())
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_float32_data_have_derivatives_while_x64_is_on(rng):
    X = rng.standard_normal((30, 5)).astype(np.float32)
    y, weights = X[:, 0] + rng.standard_normal(30).astype(np.float32), np.ones(30, np.float32)
    weights[0] = 0
    huge = X.copy()
    huge[0, 0] = 1e25  # a row of weight 0 may hold anything

    def total(lam, X):
        return jnp.sum(l1jax.solve(l1jax.Problem(X, y, penalty=l1jax.L1(lam), sample_weight=weights), tol=1e-6).coef)

    here = jax.grad(total)(jnp.float32(0.1), X)
    double = [a.astype(np.float64) for a in (X, y, weights)]
    step = 1e-4

    def exactly(lam):
        posed = l1jax.Problem(double[0], double[1], penalty=l1jax.L1(lam), sample_weight=double[2])
        return float(np.sum(l1jax.solve(posed, tol=1e-13).coef))

    np.testing.assert_allclose(here, (exactly(0.1 + step) - exactly(0.1 - step)) / (2 * step), rtol=1e-4)
    np.testing.assert_allclose(jax.grad(total)(jnp.float32(0.1), huge), here, rtol=1e-5)
