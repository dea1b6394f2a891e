"""Laws of convex penalties that tie coefficients together, against their formulas and those of their conjugates.

Fenchel and Young decide: u is a subgradient of f at w exactly where f(w) + f*(u) = <u, w>, f and f* in NumPy.
"""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import GROUPS, INF, JOINT, Q
from sklearn.isotonic import isotonic_regression

import l1jax
from l1jax import L1, SLOPE, Factors, GroupLasso, L1Ball, LInf, NuclearNorm, Simplex, SparseGroupLasso, TotalVariation
from l1jax.penalties.sequential import decreasing, fused

EPS = np.finfo(float).eps
RNG = np.random.default_rng(8)
V = np.concatenate(
    [
        RNG.normal(size=(12, Q)) * np.repeat([0.3, 1.0, 4.0], 4)[:, None],
        np.round(2 * RNG.normal(size=(6, Q))) / 2,
        [np.zeros(Q), np.ones(Q), [0, 0, 2, 1, -1, 0], [2, -2, 2, -2, 1, 1]],
    ]
)
STEPS = [0.05, 1.0, 2.5]


@pytest.fixture(params=JOINT)
def case(request):
    return JOINT[request.param]


def each(f, *points):
    return jax.device_get(jax.jit(jax.vmap(f))(*map(jnp.asarray, points)))


def rows(formula, points):
    return np.array([formula(np.asarray(w, float)) for w in points])


def subgradient_of(case, w, u, slack=1e-9):
    """Whether cost(w) + conjugate(u) = <u, w>, for rows; u drawn in by what rounding may carry over an edge."""
    cost, conjugate = rows(case.cost, w), rows(case.conjugate, np.asarray(u) * (1 - 1e-10))
    inner = np.sum(np.asarray(u) * w, axis=1)
    return np.abs(cost + conjugate - inner) <= slack * (1 + np.abs(inner))


def proxes(case, step):
    return each(lambda v: case.penalty.prox(v, step), V)


def test_value_is_the_formula(case):
    w = np.concatenate([V, proxes(case, 1.0)])
    found, want = each(case.penalty.value, w), rows(case.cost, w)
    np.testing.assert_allclose(found, want, rtol=16 * EPS, atol=1e-300)
    assert np.all(np.isfinite(found[len(V) :]))


@pytest.mark.parametrize("step", STEPS)
def test_prox_minimises_its_own_definition(case, step):
    """(v - prox)/step is a subgradient there; and no point near or far is better."""
    found = proxes(case, step)
    assert np.all(subgradient_of(case, found, (V - found) / step))

    def objective(w, v):
        return np.sum((w - v) ** 2) / 2 + step * case.cost(w)

    for w, v in zip(found, V, strict=True):
        for size in (1e-6, 1e-2, 1.0):
            other = np.array(w) + size * RNG.normal(size=Q) * (RNG.uniform(size=Q) < 0.5)
            assert objective(np.asarray(w, float), v) <= objective(other, v) + 1e-12


def test_prox_is_firmly_non_expansive(case):
    found = proxes(case, 1.0)
    dv, dw = V[:, None] - V, found[:, None] - found
    assert np.all(np.sum(dw**2, axis=-1) <= np.sum(dw * dv, axis=-1) + 1e-12)


def test_prox_at_steps_0_and_infinity(case):
    nearest = each(lambda v: case.penalty.prox(v, 0.0), V)
    feasible = np.isfinite(rows(case.cost, V))
    np.testing.assert_allclose(nearest[feasible], V[feasible], atol=1e-12)
    far, best = each(lambda v: case.penalty.prox(v, INF), V), proxes(case, 1e9)
    np.testing.assert_allclose(far, best, atol=1e-6)


def test_exact_zeros_and_ties(case):
    """What is 0 is 0.0, never -0.0, and stays 0; equal entries of SLOPE, LInf and TV are exactly equal."""
    for step in (1.0, INF):
        found = proxes(case, step)
        assert not np.any(np.signbit(found) & (found == 0))
    assert np.sum(proxes(case, 1.0) == 0) + np.sum(np.diff(np.abs(proxes(case, 1.0)), axis=1) == 0) > 20


def test_the_envelope_has_gradient_v_minus_prox_over_step(case):
    def envelope(v):
        w = case.penalty.prox(v, 0.7)
        finite = case.penalty.value(w)
        return jnp.sum((w - v) ** 2) / 1.4 + jnp.where(jnp.isfinite(finite), finite, 0.0)

    found = each(lambda v: case.penalty.prox(v, 0.7), V)
    np.testing.assert_allclose(each(jax.grad(envelope), V), (V - found) / 0.7, rtol=1e-9, atol=1e-9)


def test_the_derivative_of_prox_is_that_of_differences(case):
    v = V[:12]
    found = each(jax.jacfwd(lambda v: case.penalty.prox(v, 0.7)), v)
    np.testing.assert_allclose(each(jax.jacrev(lambda v: case.penalty.prox(v, 0.7)), v), found, atol=1e-12)
    h = 1e-6
    moved = [each(jax.vmap(lambda v: case.penalty.prox(v, 0.7)), v + c * h * np.eye(Q)[:, None]) for c in (1, -1)]
    np.testing.assert_allclose(found, np.moveaxis(moved[0] - moved[1], 0, -1) / (2 * h), atol=1e-7)
    assert np.all(np.isfinite(each(jax.jacfwd(lambda v: case.penalty.prox(v, 0.7)), V)))


def test_conjugate_is_the_formula(case):
    w = proxes(case, 1.0)
    u = np.concatenate([(V - w) * (1 - 1e-9), V, 0.1 * V])
    found, want = each(case.penalty.conjugate, u), rows(case.conjugate, u)
    np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12)
    assert np.any(np.isfinite(want))


def test_nearest_subgradients(case):
    """They are subgradients, no other is nearer, and that of 0 is the gradient of `value`."""
    w = proxes(case, 1.0)
    u = [RNG.normal(size=w.shape) * c for c in (0.3, 1.0, 3.0)]
    g = [each(case.penalty.nearest_subgradient, w, a) for a in u]
    for a in g:
        assert np.all(subgradient_of(case, w, a))
    if not isinstance(case.penalty, L1Ball | Simplex):  # whose normal cones it meets at the residual of a step
        for a, b in zip(u, g, strict=True):
            for other in g:
                assert np.all(np.sum((a - b) * (other - b), axis=1) <= 1e-9 * (1 + np.sum(a**2, axis=1)))
        least = each(case.penalty.subgradient, w)
        assert np.all(subgradient_of(case, w, least))
        np.testing.assert_allclose(each(jax.grad(case.penalty.value), w), least, atol=1e-12)
    distance = each(case.penalty.distance, w, u[1])
    np.testing.assert_allclose(distance, np.abs(u[1] - g[1]), atol=1e-12)
    on_it = each(case.penalty.distance, w, V - w)
    assert np.max(on_it) < 1e-10


def test_derivatives_at_0_are_finite_under_debug_nans(case):
    zero = jnp.zeros(Q)
    with jax.debug_nans(True):
        w = case.penalty.prox(zero, 1.0)
        found = [jax.grad(case.penalty.value)(w), jax.jacrev(lambda v: case.penalty.prox(v, 1.0))(zero)]
    assert all(np.all(np.isfinite(a)) for a in found)


def test_zero_is_optimal_from_critical_lam_on(case):
    if not case.penalty.lam:
        return
    u = V if not isinstance(case.penalty, TotalVariation) else V - V.mean(axis=1, keepdims=True)
    lam = each(case.penalty.critical_lam, u)
    free = np.asarray(case.penalty.free(jnp.zeros(Q)))
    for c, optimal in ((1 + 1e-9, True), (1 - 1e-6, False)):
        far = each(lambda u, lam: case.penalty.with_lam(lam).distance(jnp.zeros(Q), u), u, lam * c)
        far = np.max(np.where(free, 0, far), axis=1)
        assert np.all(far[lam > 0] > 1e-9) if not optimal else np.all(far <= 1e-9 * (1 + np.abs(u).max()))


def test_scalings_reach_the_conjugates_domain(case):
    if not case.penalty.certified:
        return
    c, conjugate = each(case.penalty.scalings, V)
    u = V - each(case.penalty.excess, V)
    assert np.all((c >= 0) & (c <= 1))
    np.testing.assert_allclose(conjugate[:, 0], rows(case.conjugate, c * u * (1 - 1e-9)), rtol=1e-6, atol=1e-12)
    outside = rows(case.conjugate, np.minimum(c * (1 + 1e-6), 2) * u)
    assert np.all(np.isinf(outside[c[:, 0] < 1]))


def test_with_lam_and_batches(case):
    w = proxes(case, 1.0)
    if case.penalty.lam:
        doubled = each(case.penalty.with_lam(2 * case.penalty.lam).value, w)
        np.testing.assert_allclose(doubled, 2 * each(case.penalty.value, w), rtol=1e-12)
        batch = jax.vmap(case.penalty.with_lam)(jnp.array([0.0, 0.5]))
        found = jax.vmap(lambda penalty: penalty.prox(V[5], 1.0))(batch)
        np.testing.assert_allclose(found[1], case.penalty.with_lam(0.5).prox(V[5], 1.0), atol=1e-14)
        traced = jax.jit(lambda lam: case.penalty.with_lam(lam).valid(V[0]))
        assert [bool(traced(lam)) for lam in (-1.0, np.nan, INF, 0.0, 1.0)] == [False] * 3 + [True] * 2
    else:
        assert case.penalty.with_lam(3.0) is case.penalty


def test_objects(case):
    penalty = case.penalty
    again = pickle.loads(pickle.dumps(penalty))
    assert jax.tree.structure(again) == jax.tree.structure(penalty)
    assert hash(jax.tree.structure(again)) == hash(jax.tree.structure(penalty))
    assert not callable(penalty)
    assert penalty.valid(jnp.zeros(Q))
    assert repr(penalty).startswith(type(penalty).__name__)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_are_kept(case, dtype):
    v = jnp.asarray(V, dtype)
    w = jax.vmap(lambda v: case.penalty.prox(v, 0.5))(v)
    assert w.dtype == v.dtype
    eps = float(jnp.finfo(dtype).eps)
    want = each(lambda v: case.penalty.prox(v, 0.5), v.astype(float))
    np.testing.assert_allclose(w.astype(float), want, rtol=8 * eps, atol=64 * max(eps, 1e-7))


BAD = {
    "nested labels": (lambda: GroupLasso(1.0, [[0, 1], [2]]), ValueError, "groups"),
    "a matrix of labels": (lambda: GroupLasso(1.0, np.eye(3)), ValueError, "groups.*overlap"),
    "no labels": (lambda: GroupLasso(1.0, []), ValueError, "groups"),
    "labels between": (lambda: GroupLasso(1.0, [0.5, 1.0]), ValueError, "groups"),
    "too few weights": (lambda: GroupLasso(1.0, [0, 0, 1], weights=[1.0]), ValueError, "weights"),
    "negative weights": (lambda: GroupLasso(1.0, [0, 0, 1], weights=[1.0, -1.0]), ValueError, "weights"),
    "other coefficients": (lambda: GroupLasso(1.0, [0, 0, 1]).value(jnp.ones(4)), ValueError, r"groups: 3.*\(4,\)"),
    "l1_ratio": (lambda: SparseGroupLasso(1.0, [0, 0, 1], l1_ratio=2), ValueError, "l1_ratio"),
    "lams that grow": (lambda: SLOPE([1.0, 2.0]), ValueError, "lams"),
    "lams of 0": (lambda: SLOPE([0.0, 0.0]), ValueError, "lams"),
    "too few lams": (lambda: SLOPE([2.0, 1.0]).value(jnp.ones(3)), ValueError, "lams"),
    "lam of an array": (lambda: LInf([1.0, 2.0]).value(jnp.ones(2)), ValueError, "lam"),
    "a vector for a matrix": (lambda: NuclearNorm(1.0).value(jnp.ones(3)), ValueError, "matrix"),
    "radius 0": (lambda: L1Ball(0.0), ValueError, "radius"),
    "another metric": (lambda: LInf(1.0).prox(jnp.ones(3), jnp.ones(3)), ValueError, "step"),
    "factors of groups": (lambda: Factors(GroupLasso(1.0, [0, 1]), 2.0), TypeError, "each coefficient alone"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_by_name(name):
    make, error, words = BAD[name]
    with pytest.raises(error, match=words):
        make()


# -- the sequential maps, against other libraries and the conditions of optimality


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_isotonic_regression_is_that_of_scikit_learn(n):
    for v in RNG.normal(size=(6, n)):
        np.testing.assert_allclose(decreasing(jnp.asarray(v)), isotonic_regression(v, increasing=False), atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 60])
def test_the_fused_map_meets_its_optimality_conditions(n):
    """The running sum of v - w stays within the weights, and is at one exactly where w jumps."""
    weights = np.abs(RNG.normal(size=(6, n - 1))) * RNG.choice([0.0, 0.3, 3.0], size=(6, n - 1))
    v = RNG.normal(size=(6, n))
    w = each(fused, v, weights)
    sums, jump = np.cumsum(v - w, axis=1), np.sign(np.diff(w, axis=1))
    np.testing.assert_allclose(sums[:, -1], 0, atol=1e-11)
    assert np.all(np.abs(sums[:, :-1]) <= weights + 1e-11)
    np.testing.assert_allclose(np.where(jump == 0, 0, sums[:, :-1]), -weights * jump * (jump != 0), atol=1e-11)


def test_the_nuclear_norm():
    penalty, v = NuclearNorm(0.8), RNG.normal(size=(5, 3))
    s = np.linalg.svd(v, compute_uv=False)
    np.testing.assert_allclose(penalty.value(v), 0.8 * s.sum(), rtol=1e-12)
    w = np.asarray(penalty.prox(v, 0.5))
    np.testing.assert_allclose(np.linalg.svd(w, compute_uv=False), np.maximum(s - 0.4, 0), atol=1e-12)
    u = (v - w) / 0.5
    assert np.linalg.norm(u, 2) <= 0.8 * (1 + 1e-12)
    np.testing.assert_allclose(np.sum(u * w), penalty.value(w), rtol=1e-12)
    assert np.max(penalty.distance(w, u)) < 1e-10
    np.testing.assert_allclose(penalty.critical_lam(v), s[0], rtol=1e-12)
    np.testing.assert_allclose(jax.grad(penalty.value)(jnp.asarray(v)), penalty.subgradient(v), atol=1e-12)
    assert np.all(jax.grad(penalty.value)(jnp.zeros((3, 2))) == 0)


def test_rows_of_a_matrix_are_groups():
    """The L2,1 norm of the multi-task lasso."""
    v = RNG.normal(size=(4, 3))
    length = np.linalg.norm(v, axis=1, keepdims=True)
    want = v * np.maximum(1 - 0.5 / length, 0)
    np.testing.assert_allclose(GroupLasso(0.5, range(4)).prox(v, 1.0), want, atol=1e-14)


# -- solutions

N = 40
X = RNG.normal(size=(N, Q)) * np.array([1, 2, 0.5, 1, 3, 1]) + 1
BETA = np.array([1.0, 1.0, 0, 0, 0, -1.0])
Y = X @ BETA + RNG.normal(size=N)
CERTIFIED = [name for name, case in JOINT.items() if case.penalty.certified]


@pytest.mark.parametrize(
    ("name", "loss"),
    [*((name, "squared") for name in JOINT), ("sparse group lasso", "logistic"), ("slope", "logistic")],
)
def test_solutions_have_a_gap_that_the_formulas_confirm(name, loss):
    """Objective and bound written out in NumPy: the bound is that of the dual point the solution gives."""
    case = JOINT[name]
    y = Y if loss == "squared" else (np.median(Y) < Y).astype(float)
    problem = l1jax.Problem(
        X, y, loss=l1jax.Squared() if loss == "squared" else l1jax.Logistic(), penalty=case.penalty, standardize=True
    )
    scale = 0.2 if loss == "squared" else 0.02
    penalty = case.penalty.with_lam(scale) if case.penalty.lam else case.penalty
    found = l1jax.solve(dataclasses.replace(problem, penalty=penalty), tol=1e-9)
    assert found.converged, (found.gap, found.stationarity)
    assert np.isnan(found.gap) != case.penalty.certified
    sd = X.std(axis=0)
    w = np.asarray(found.coef) * sd
    eta = float(found.intercept) + X @ np.asarray(found.coef)
    residual = y - (eta if loss == "squared" else 1 / (1 + np.exp(-eta)))
    u = (X - X.mean(axis=0)).T @ residual / N / sd
    assert abs(residual.mean()) < 1e-4
    ratio = scale / case.penalty.lam if case.penalty.lam else 1.0
    u = np.where(np.abs(u) < 1e-12, 0.0, u)  # the free coefficients' share, which must be 0
    slack = ratio * (case.cost(w) + _conjugate(case, u / ratio)) - u @ w
    assert abs(slack) < 1e-4


def _conjugate(case, u):
    """f*(u), u drawn in by the least of a few shares that bring it into the domain."""
    for share in (0, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3):
        value = case.conjugate(u * (1 - share))
        if np.isfinite(value):
            return value
    return INF


def test_groups_of_one_are_the_lasso():
    lasso = l1jax.Problem(X, Y, penalty=L1(0.3))
    want = l1jax.solve(lasso, tol=1e-11)
    for penalty in (GroupLasso(0.3, range(Q)), SLOPE(np.ones(Q), lam=0.3)):
        problem = dataclasses.replace(lasso, penalty=penalty)
        np.testing.assert_allclose(l1jax.lambda_max(problem), l1jax.lambda_max(lasso), rtol=1e-12)
        found = l1jax.solve(problem, tol=1e-11)
        assert found.converged
        np.testing.assert_allclose(found.coef, want.coef, atol=1e-5)


def test_whole_groups_enter_and_leave():
    path = l1jax.path(l1jax.Problem(X, Y, penalty=GroupLasso(1.0, GROUPS), standardize=True), num=12, tol=1e-8)
    assert np.all(path.converged)
    alive = np.asarray(path.coef) != 0
    assert not alive[0].any()
    assert alive[-1].all()
    for g in range(3):
        assert np.all(alive[:, g == GROUPS].all(axis=1) == alive[:, g == GROUPS].any(axis=1))


def test_the_l1_ball_is_the_lasso_at_its_multiplier():
    lasso = l1jax.solve(l1jax.Problem(X, Y, penalty=L1(0.4)), tol=1e-12)
    ball = l1jax.solve(l1jax.Problem(X, Y, penalty=L1Ball(float(jnp.sum(jnp.abs(lasso.coef))))), tol=1e-9)
    assert ball.converged
    np.testing.assert_allclose(ball.coef, lasso.coef, atol=1e-4)


def test_total_variation_is_the_lasso_of_steps():
    """Coefficients are running sums of steps, all but the first of which are penalised."""
    tv = l1jax.solve(l1jax.Problem(X, Y, penalty=TotalVariation(0.5)), tol=1e-9)
    steps = np.cumsum(X[:, ::-1], axis=1)[:, ::-1]
    lasso = l1jax.solve(l1jax.Problem(steps, Y, penalty=Factors(L1(0.5), [0.0] + [1.0] * (Q - 1))), tol=1e-12)
    assert tv.converged
    np.testing.assert_allclose(tv.coef, np.cumsum(lasso.coef), atol=1e-5)


@pytest.mark.parametrize("penalty", [L1Ball(1.0), LInf(0.0), TotalVariation(1.0)], ids=["ball", "lam 0", "tv"])
def test_where_there_is_no_grid_it_says_so(penalty):
    if isinstance(penalty, LInf):
        assert l1jax.lambda_grid(l1jax.Problem(X, Y, penalty=penalty), num=2).shape == (2,)
        return
    with pytest.raises(ValueError, match="lams="):
        l1jax.lambda_grid(l1jax.Problem(X, Y, penalty=penalty))
