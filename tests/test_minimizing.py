"""minimize: its answers and derivatives, and the table for those who come from jaxopt, row by row."""

import functools
import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest

import l1jax
from l1jax import minimize, proximal_step

with jax.numpy_dtype_promotion("standard"), warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # "JAXopt is no longer maintained"
    import jaxopt

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(2)
N, P = 30, 8
X = jnp.asarray(RNG.normal(size=(N, P)))
y = X @ jnp.array([2.0, -1, 1, 0, 0, 0, 0.5, 0]) + 0.3 * RNG.normal(size=N)


def half_squares(w, X, y):
    return jnp.mean((X @ w - y) ** 2) / 2


def logistic(params, X, y):
    eta = X @ params["kernel"] + params["bias"]
    return jnp.mean(jnp.logaddexp(0.0, -jnp.sign(y) * eta))


def network(params, t):
    """Neither convex nor quadratic; smooth."""
    hidden = jnp.tanh(X @ params["in"] * t)
    return jnp.mean((hidden @ params["out"] - y) ** 2) + 0.05 * sum(jnp.sum(a**2) for a in params.values())


START = {"in": 0.3 * jnp.asarray(RNG.normal(size=(P, 2))), "out": jnp.ones(2)}


def test_it_is_solve_where_solve_applies():
    posed = l1jax.Problem(X, jnp.sign(y) > 0, loss=l1jax.Logistic(), penalty=l1jax.ElasticNet(0.05, 0.8))
    expected = l1jax.solve(posed, tol=1e-14)
    start = {"kernel": jnp.zeros(P), "bias": jnp.zeros(())}
    found = minimize(logistic, start, l1jax.ElasticNet(0.05, 0.8), args=(X, y), mask={"kernel": True, "bias": False})
    assert found.converged
    np.testing.assert_allclose(found.params["kernel"], expected.coef, atol=1e-6)
    np.testing.assert_allclose(found.params["bias"], expected.intercept, atol=1e-6)
    assert np.array_equal(found.params["kernel"] == 0, expected.coef == 0)
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-10)


def test_derivatives_of_both_orders_are_those_of_differences():
    """Along lam and an argument of f together, of a function that is not convex, by jit, jvp, grad and Hessian."""

    def answer(t):
        found = minimize(network, START, l1jax.L1(0.02 + 0.01 * t), args=(1.0 + t,), tol=1e-13, max_steps=100_000)
        return jnp.concatenate([found.params["in"].ravel(), found.params["out"], found.objective[None]])

    h = 1e-3
    points = jax.jit(jax.vmap(answer))(h * jnp.arange(-2.0, 3.0))
    low2, low, here, up, up2 = points
    assert 2 < np.sum(np.asarray(here[:16]) == 0) < 15
    assert np.all((np.asarray(points) == 0) == (np.asarray(here) == 0))
    slope = (8 * (up - low) - (up2 - low2)) / (12 * h)
    bend = (-up2 + 16 * up - 30 * here + 16 * low - low2) / (12 * h**2)
    first, second = jax.jit(lambda t: jax.jvp(lambda t: jax.jvp(answer, (t,), (1.0,))[1], (t,), (1.0,)))(0.0)
    np.testing.assert_allclose(first, slope, atol=1e-6 * np.max(np.abs(slope)))
    np.testing.assert_allclose(second, bend, atol=1e-4 * np.max(np.abs(bend)))
    reverse = jax.grad(lambda t: jnp.sum(answer(t) * jnp.cos(jnp.arange(19.0))))(0.0)
    np.testing.assert_allclose(reverse, np.sum(slope * np.cos(np.arange(19.0))), rtol=1e-6)


def test_what_f_closes_over_is_not_silently_left_out():
    def total(y):
        return jnp.sum(minimize(lambda w: half_squares(w, X, y), jnp.zeros(P), l1jax.L1(0.1)).params)

    with pytest.raises(Exception, match=r"(?i)closed-over|tracer"):
        jax.grad(total)(y)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"f": 3.0}, TypeError, "f: want a function"),
        ({"f": lambda w: w}, TypeError, "to a scalar"),
        ({"args": 3.0}, TypeError, "args: want a tuple"),
        ({"params": {}}, ValueError, "at least one array"),
        ({"penalty": 0.1}, TypeError, "penalty: want a penalty"),
        ({"tol": -1.0}, ValueError, "at least 0"),
    ],
)
def test_complaints(change, error, words):
    given = {"f": jnp.sum, "params": jnp.zeros(2), "penalty": l1jax.L1(1.0)} | change
    with pytest.raises(error, match=words):
        minimize(given.pop("f"), given.pop("params"), given.pop("penalty"), **given)


def test_a_function_that_is_far_from_quadratic():
    """exp has no Lipschitz gradient: steps that overshoot are taken back."""
    found = minimize(lambda w: jnp.sum(jnp.exp(w) - 3 * w), jnp.full(3, -8.0), l1jax.L1(0.5))
    assert found.converged
    np.testing.assert_allclose(found.params, np.log(2.5), rtol=1e-7)


# -- those who come from jaxopt: README's table is run


PAGE = (ROOT / "README.md").read_text()
ROWS = [tuple(re.findall("`([^`]+)`", line)[:2]) for line in PAGE.splitlines() if line.startswith("| `")]
NAMES = {name: getattr(l1jax, name) for name in dir(l1jax) if name[0] != "_"} | {
    "jaxopt": jaxopt,
    "prox": jaxopt.prox,
    "jnp": jnp,
    "jax": jax,
    "l1jax": l1jax,
    "f": half_squares,
    "v": jnp.array([3.0, -0.4, 0.7, -2.0]),
    "lam": 0.4,
    "gamma": 0.5,
    "step": 0.5,
    "w": jnp.zeros(P),
    "X": X,
    "y": y,
}


def optimality(w, lam, X, y):
    return w - jaxopt.prox.prox_lasso(w - jax.grad(half_squares)(w, X, y), lam)


NAMES["optimality"] = optimality
NAMES["solver"] = lambda start, lam, X, y: minimize(half_squares, start, l1jax.L1(lam), args=(X, y)).params


def test_the_table_has_what_jaxopt_s_users_lost():
    solvers = ["ProximalGradient", "BlockCoordinateDescent", "custom_root"]
    wanted = ["prox_lasso", "prox_elastic_net", "prox_group_lasso", "prox_ridge", *solvers]
    assert all(any(name in row[0] for row in ROWS) for name in wanted)


@pytest.mark.parametrize("row", ROWS, ids=[re.search(r"\w+\.?\w+", row[0])[0] for row in ROWS])
def test_a_row_of_the_table(row):
    """Both sides at lam, and for solvers d/d lam too."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        sides = [lambda lam, side=side: eval(side, NAMES | {"lam": lam}) for side in row]
        theirs, ours = (side(0.4) for side in sides)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        if "run" in row[0] or "custom" in row[0]:
            theirs, ours = (jax.jacobian(side)(0.4) for side in sides)
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_jaxopt_s_ridge_is_not_what_it_says():
    v = jnp.array([3.0])
    grid = np.linspace(0, 3, 30001)
    best = grid[np.argmin((grid - 3) ** 2 / 2 + grid**2)]  # the formula of prox_ridge's own page, at 1
    np.testing.assert_allclose(l1jax.L2(1.0).prox(v, 1.0), best, atol=1e-4)
    assert abs(jaxopt.prox.prox_ridge(v, 1.0)[0] - best) > 0.4


# -- and from optimistix


def test_optimistix_fixed_points_have_the_right_derivatives():
    rate = 0.3
    step = proximal_step(lambda w, data: half_squares(w, *data), rate)

    def by_fixed_point(lam):
        solver = optimistix.FixedPointIteration(rtol=1e-12, atol=1e-12)
        found = optimistix.fixed_point(step, solver, jnp.zeros(P), (l1jax.L1(lam), (X, y)), max_steps=5000)
        return found.value

    ours = functools.partial(lambda lam: minimize(half_squares, jnp.zeros(P), l1jax.L1(lam), args=(X, y)).params)
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose(by_fixed_point(0.2), ours(0.2), atol=1e-7)
        found = jax.jacfwd(by_fixed_point)(0.2)
    expected = jax.jacfwd(ours)(0.2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    on = np.flatnonzero(ours(0.2))
    formula = -np.linalg.solve(X[:, on].T @ X[:, on] / N, np.sign(ours(0.2)[on]))
    np.testing.assert_allclose(expected[on], formula, rtol=1e-6)


def test_jacobians_are_those_of_the_support_not_of_least_squares():
    """optimistix's minimiser, with proximal steps, finds the lasso and differentiates g = 0: pinv(X), and 0 in lam."""
    rate = 0.3

    def theirs(lam, y):
        steps = optax.chain(optax.sgd(rate), l1jax.prox_update(l1jax.L1(lam), rate))
        solver = optimistix.OptaxMinimiser(steps, rtol=1e-10, atol=1e-10)
        return optimistix.minimise(lambda w, y: half_squares(w, X, y), solver, jnp.zeros(P), y, max_steps=5000).value

    def ours(lam, y):
        return minimize(half_squares, jnp.zeros(P), l1jax.L1(lam), args=(X, y)).params

    here = ours(0.2, y)
    on = np.flatnonzero(here)
    assert len(on) < P
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose(theirs(0.2, y), here, atol=1e-7)
        of_lam, of_y = jax.jacfwd(theirs, (0, 1))(0.2, y)
    np.testing.assert_allclose(of_lam, 0.0)
    np.testing.assert_allclose(of_y, np.linalg.pinv(X), atol=1e-9)
    expected = np.zeros((P, N))
    expected[on] = np.linalg.pinv(X[:, on])
    of_lam, of_y = jax.jacrev(ours, (0, 1))(0.2, y)
    np.testing.assert_allclose(of_y, expected, atol=1e-6)
    formula = -np.linalg.solve(X[:, on].T @ X[:, on] / N, np.sign(here[on]))
    np.testing.assert_allclose(of_lam[on], formula, rtol=1e-6)
