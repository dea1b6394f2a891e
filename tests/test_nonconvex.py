"""Laws of nonconvex penalties: a blind grid finds no better point than the proximal map; solutions are stationary."""

import dataclasses
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import INF, NONCONVEX, P

import l1jax
from l1jax import L0, L1, MCP, SCAD, Bounds, Factors, LHalf, LogSum, Masked, NonNegative, Sum

EPS = np.finfo(float).eps
RNG = np.random.default_rng(3)
V = np.concatenate([np.linspace(-5, 5, 41), RNG.uniform(-4, 4, 20), [0.0]])[:, None] * np.ones(P)
STEPS = [0.1, 0.9, 1.0, 3.0, 20.0]
GRID = np.concatenate([np.linspace(-6, 6, 24001), [0.0]])


@pytest.fixture(params=NONCONVEX)
def case(request):
    return NONCONVEX[request.param]


def each(f, *points):
    return jax.device_get(jax.jit(jax.vmap(f))(*map(jnp.asarray, points)))


def test_value_is_the_formula(case):
    want = case.cost(V).sum(axis=1)
    np.testing.assert_allclose(each(case.penalty.value, V), want, rtol=8 * EPS, atol=8 * EPS)


@pytest.mark.parametrize("step", STEPS)
def test_prox_is_the_global_minimiser(case, step):
    """For every step, also where the objective has two minima; of two equal ones the smaller."""
    found = each(lambda v: case.penalty.prox(v, step), V)

    def objective(w, v):
        return (w - v) ** 2 / 2 + step * np.where(np.isinf(case.cost(w)), INF, case.cost(w))

    blind = np.min(objective(GRID[:, None, None] * np.ones((1, 1, P)), V), axis=0)
    assert np.all(objective(found, V) <= blind + 1e-12)
    assert not np.any(np.signbit(found) & (found == 0))
    assert np.all(found * V >= 0)
    assert np.all(np.abs(found) <= np.abs(V) * (1 + 1e-15))


def test_ties_go_to_zero():
    """At the point where both minima cost the same."""
    assert L0(2.0).prox(jnp.array([2.0, -2.0]), 1.0).tolist() == [0, 0]
    assert MCP(1.0, gamma=1.0).prox(jnp.array([2.0]), 4.0).tolist() == [0]
    assert LHalf(1.0).prox(jnp.array([1.5, -1.5]), 1.0).tolist() == [0, 0]


def test_the_envelope_has_gradient_v_minus_prox_over_step(case):
    """Where it has one: away from the jumps of the proximal map."""

    def envelope(v):
        w = case.penalty.prox(v, 0.5)
        return jnp.sum((w - v) ** 2) + case.penalty.value(w)

    v = V[41:61]
    found = each(lambda v: case.penalty.prox(v, 0.5), v)
    np.testing.assert_allclose(each(jax.grad(envelope), v), (v - found) / 0.5, rtol=1e-9, atol=1e-9)


def test_subgradients(case):
    """The one-sided derivatives bound the subdifferential; at 0 it is [-slope, slope], and 0 its shortest element."""
    w = V[np.all(np.isfinite(case.cost(V)), axis=1)]
    w = np.concatenate([w[np.abs(w[:, 0]) > 0.05], np.zeros((1, P))])
    h = 1e-6
    with np.errstate(invalid="ignore"):
        smooth = np.where(w == 0, 0, (case.cost(w + h) - case.cost(w - h)) / (2 * h))
    found = each(case.penalty.subgradient, w)
    kink = np.abs(found - smooth) > 1e-5  # a corner between w - h and w + h
    assert kink.sum() <= 2 * P
    np.testing.assert_allclose(each(jax.grad(case.penalty.value), w), found, rtol=1e-13, atol=1e-15)
    zero = jnp.zeros(P)
    u = np.array([-3.0, -0.3, 0.2, 50.0])
    slope = np.broadcast_to(case.slope, P)
    np.testing.assert_allclose(case.penalty.nearest_subgradient(zero, u), np.clip(u, -slope, slope), rtol=1e-12)
    with jax.debug_nans(True):
        assert np.all(jax.grad(case.penalty.value)(zero) == 0)
        assert np.all(np.isfinite(jax.jacrev(lambda v: case.penalty.prox(v, 1.0))(zero)))


def test_zero_is_stationary_from_critical_lam_on(case):
    u = jnp.array([0.4, -2.0, 1.3, 0.7])
    slope = np.broadcast_to(case.slope, P) / np.max(np.asarray(case.penalty.lam))
    unit = case.penalty.with_lam(1.0)
    if np.ndim(case.penalty.lam):
        return
    want = max(abs(u[j]) / slope[j] if np.isfinite(slope[j]) else 0 for j in range(P) if slope[j] > 0)
    found = unit.critical_lam(u)
    np.testing.assert_allclose(found, want, rtol=1e-12)
    priced = slope > 0
    if found > 0:
        at, below = (np.asarray(unit.with_lam(found * c).distance(jnp.zeros(P), u)) for c in (1 + 1e-12, 1 - 1e-6))
        assert np.all(at[priced] == 0)
        assert np.any(below[priced] > 0)


def test_objects(case):
    penalty = case.penalty
    assert not penalty.certified
    assert not callable(penalty)
    again = pickle.loads(pickle.dumps(penalty))
    assert jax.tree.structure(again) == jax.tree.structure(penalty)
    assert penalty.valid(jnp.zeros(P))
    assert jnp.isnan(penalty.conjugate(jnp.ones(P)))
    batch = jax.vmap(penalty.with_lam)(jnp.array([0.3, 0.6]))
    v = jnp.asarray(V[45])
    found = jax.vmap(lambda penalty: penalty.prox(v, 0.5))(batch)
    np.testing.assert_allclose(found[1], penalty.with_lam(0.6).prox(v, 0.5), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_dtypes_are_kept(case, dtype):
    v = jnp.asarray(V, dtype)
    w = jax.vmap(lambda v: case.penalty.prox(v, 0.5))(v)
    assert w.dtype == v.dtype
    assert jnp.all(jnp.isfinite(w.astype(float)))


BAD = {
    "negative lam": (lambda: MCP(-1.0), ValueError, "lam"),
    "gamma 0": (lambda: MCP(1.0, gamma=0.0), ValueError, "gamma"),
    "gamma 1": (lambda: SCAD(1.0, gamma=1.0), ValueError, "gamma"),
    "eps 0": (lambda: LogSum(1.0, eps=0.0), ValueError, "eps"),
    "text": (lambda: L0("x"), TypeError, "lam"),
    "bounds": (lambda: Bounds(MCP(1.0), -1, 1).value(jnp.ones(2)), TypeError, "bounds"),
    "signs": (lambda: NonNegative(MCP(1.0)).prox(jnp.ones(2), 1.0), TypeError, "bounds"),
    "a sum": (lambda: Sum((MCP(1.0), L1(1.0))).value(jnp.ones(2)), TypeError, "sum"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_by_name(name):
    make, error, words = BAD[name]
    with pytest.raises(error, match=words):
        make()


# -- solutions

DATA = np.genfromtxt(Path(__file__).parent / "data" / "prostate.csv", delimiter=",", skip_header=1)
PRINTED = {  # ncvreg's documented fits of these data (Breheny and Huang 2011): intercept, then the coefficients
    "mcp": (MCP(0.1, gamma=3.0), [-0.69727026, 0.53871568, 0.63827013, 0, 0, 0.61036139, 0, 0, 0]),
    "scad": (SCAD(0.1, gamma=3.7), [-0.27476718, 0.58768848, 0.51503855, 0, 0.00368260, 0.41734960, 0, 0, 0]),
}


def slopes(X, y, coef, intercept, loss, standardize):
    """Minus the loss's gradient in the (standardised) coefficients, and those, in NumPy from the definitions."""
    eta = intercept + X @ coef
    residual = y - (eta if loss == "squared" else 1 / (1 + np.exp(-eta)))
    sd = X.std(axis=0) if standardize else np.ones(X.shape[1])
    return X.T @ residual / len(y) / sd, coef * sd


@pytest.mark.parametrize("name", PRINTED)
def test_the_prostate_data_give_what_ncvreg_prints(name):
    penalty, printed = PRINTED[name]
    problem = l1jax.Problem(DATA[:, :8], DATA[:, 8], penalty=penalty, standardize=True)
    found = l1jax.solve(problem, tol=1e-11)
    assert found.converged
    assert np.isnan(found.gap)
    assert "stationarity" in repr(found)
    np.testing.assert_allclose(np.append(found.intercept, found.coef), printed, atol=6e-9)


@pytest.mark.parametrize(
    ("name", "loss"), [("mcp", "squared"), ("scad", "squared"), ("log sum", "squared"), ("mcp", "logistic")]
)
def test_paths_end_at_stationary_points_no_worse_than_their_start(name, loss):
    X = DATA[:, :8]
    y = DATA[:, 8] if loss == "squared" else (DATA[:, 8] > np.median(DATA[:, 8])).astype(float)
    penalty = {"mcp": MCP(1.0, 3.0 if loss == "squared" else 20.0), "scad": SCAD(1.0, 3.7), "log sum": LogSum(1.0, 2.0)}
    problem = l1jax.Problem(
        X,
        y,
        loss=l1jax.Squared() if loss == "squared" else l1jax.Logistic(),
        penalty=penalty[name],
        standardize=True,
    )
    path = l1jax.path(problem, num=6, ratio=0.05, tol=1e-9, mode="warm")
    top = float(path.lams[0]) if name != "log sum" else float(path.lams[0]) / 2.0
    assert np.all(path.converged)
    assert np.all(path.coef[0] == 0)
    assert np.any(path.coef[1] != 0)
    for k in range(6):
        u, w = slopes(X, y, np.asarray(path.coef[k]), float(path.intercept[k]), loss, True)
        unit = problem.penalty.with_lam(path.lams[k])
        h = 1e-7
        right = np.array([float(unit.value(jnp.array([a + h])) - unit.value(jnp.array([a]))) / h for a in w])
        left = np.array([float(unit.value(jnp.array([a])) - unit.value(jnp.array([a - h]))) / h for a in w])
        low, high = np.minimum(left, right), np.maximum(left, right)
        assert np.all(u >= low - 1e-5 * top)
        assert np.all(u <= high + 1e-5 * top)
        if k:
            posed = dataclasses.replace(problem, penalty=unit)
            start = l1jax.solve(posed, init=path[k - 1], max_steps=0)
            assert path.objective[k] <= start.objective * (1 + 1e-12)


def test_strength_array_and_factors_agree():
    X, y = DATA[:, :8], DATA[:, 8]
    factors = np.linspace(0.5, 2, 8)
    ours = l1jax.solve(l1jax.Problem(X, y, penalty=Factors(MCP(0.1), factors), standardize=True), tol=1e-10)
    same = l1jax.solve(l1jax.Problem(X, y, penalty=MCP(0.1 * factors), standardize=True), tol=1e-10)
    np.testing.assert_allclose(ours.coef, same.coef, atol=1e-8)
    free = l1jax.solve(l1jax.Problem(X, y, penalty=Masked(SCAD(50.0), np.arange(8) > 1), standardize=True), tol=1e-10)
    design = np.column_stack([np.ones(len(y)), X[:, :2]])
    np.testing.assert_allclose(free.coef[:2], np.linalg.lstsq(design, y, rcond=None)[0][1:], rtol=1e-6)
    assert np.all(free.coef[2:] == 0)


@pytest.mark.parametrize("name", ["mcp", "scad"])
def test_local_linear_approximation_descends_to_a_stationary_point(name):
    """A few weighted lassos; the objective of the nonconvex problem never rises."""
    sd = DATA[:, :8].std(axis=0)
    X, y = DATA[:, :8] / sd, DATA[:, 8]
    penalty, printed = PRINTED[name]
    objectives, coef = [], jnp.zeros(8)
    for _ in range(60):
        found = l1jax.solve(l1jax.Problem(X, y, penalty=l1jax.majorizer(penalty, coef)), tol=1e-12)
        coef = found.coef
        loss = np.mean((y - X @ coef - found.intercept) ** 2) / 2
        objectives.append(float(loss + penalty.value(coef)))
    assert np.all(np.diff(objectives) <= 1e-12)
    np.testing.assert_allclose(coef / sd, printed[1:], atol=1e-5)
    assert np.all(l1jax.majorizer(LHalf(1.0), jnp.array([0.0, 4.0])).factors == np.array([INF, 0.25]))
    with pytest.raises(TypeError, match="nonconvex"):
        l1jax.majorizer(L1(1.0), coef)


@pytest.mark.parametrize(
    "penalty", [L0(0.05), LHalf(0.08), LogSum(0.05, 0.3), MCP(0.2)], ids=lambda p: type(p).__name__
)
def test_solutions_are_each_coefficient_s_own_minimum(penalty):
    """Also from a start at 0, which is stationary whatever L0 and LHalf have to choose from."""
    X, y = (DATA[:, :8] - DATA[:, :8].mean(axis=0)) / DATA[:, :8].std(axis=0), DATA[:, 8] - DATA[:, 8].mean()
    found = l1jax.solve(l1jax.Problem(X, y, penalty=penalty, fit_intercept=False), tol=1e-10)
    coef = np.array(found.coef)
    assert found.converged
    assert 0 < np.sum(coef != 0) < 8
    cost = np.vectorize(lambda w: float(penalty.value(np.array([w]))))

    def objective(j, values):
        rest = y - X @ coef + X[:, j] * coef[j]
        return np.mean((rest[:, None] - X[:, [j]] * values) ** 2, axis=0) / 2 + cost(values)

    for j in range(8):
        others = np.append(np.linspace(-1.5, 1.5, 201), 0.0)
        assert objective(j, np.array([coef[j]]))[0] <= objective(j, others).min() + 1e-9
