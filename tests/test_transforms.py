"""optax transformations: published updates transcribed to NumPy, exact zeros, optax's own contract."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import l1jax


def soft(v, t):
    return np.sign(v) * np.maximum(np.abs(v) - t, 0)


@pytest.fixture
def lasso(rng):
    """A least-squares gradient (n=40, p=12), its Lipschitz constant, and a strength with zeros in the solution."""
    X = rng.standard_normal((40, 12))
    y = X[:, :3] @ np.array([2.0, -1.0, 0.5]) + 0.1 * rng.standard_normal(40)
    return X, y, np.linalg.eigvalsh(X.T @ X / 40)[-1], 0.1


def run(tx, grad, params, steps):
    state = tx.init(params)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(grad(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), length=steps)[0]


def gradient(X, y):
    X, y = jnp.asarray(X), jnp.asarray(y)
    return lambda w: X.T @ (X @ w - y) / len(y)


def test_fista_is_the_published_recursion(lasso):
    X, y, L, lam = lasso
    x = z = np.zeros(12)
    t = 1.0
    for _ in range(25):
        new = soft(z - X.T @ (X @ z - y) / 40 / L, lam / L)
        if (z - new) @ (new - x) > 0:  # O'Donoghue and Candès: momentum points uphill
            t, t_next, beta = 1.0, (1 + 5**0.5) / 2, 0.0
        else:
            t_next = (1 + np.sqrt(1 + 4 * t * t)) / 2
            beta = (t - 1) / t_next
        z, x, t = new + beta * (new - x), new, t_next
    tx = l1jax.fista(1 / L, l1jax.L1(lam))
    params, state = run(tx, gradient(X, y), jnp.zeros(12), 25)
    np.testing.assert_allclose(params, z, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(l1jax.iterate(state, params), x, rtol=1e-9, atol=1e-12)


def test_fista_shortens_a_step_that_is_too_long(lasso):
    X, y, L, lam = lasso
    params, state = run(l1jax.fista(20 / L, l1jax.L1(lam)), gradient(X, y), jnp.zeros(12), 500)
    problem = l1jax.Problem(X, y, penalty=l1jax.L1(lam), fit_intercept=False)
    assert l1jax.duality_gap(problem, l1jax.iterate(state, params), 0.0) < 1e-10


def test_prox_update_after_sgd_is_ista(lasso):
    X, y, L, lam = lasso
    w = np.zeros(12)
    for _ in range(30):
        w = soft(w - X.T @ (X @ w - y) / 40 / L, lam / L)
    tx = optax.chain(optax.sgd(1 / L), l1jax.prox_update(l1jax.L1(lam), 1 / L))
    chained, _ = run(tx, gradient(X, y), jnp.zeros(12), 30)
    wrapped, _ = run(l1jax.proximal(optax.identity(), l1jax.L1(lam), 1 / L), gradient(X, y), jnp.zeros(12), 30)
    np.testing.assert_allclose(chained, w, rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(chained == 0, w == 0)
    np.testing.assert_allclose(wrapped, w, rtol=1e-10, atol=1e-14)


def test_proximal_adam_is_proxgen(lasso, standard_promotion):
    """Yun, Lozano, Yang (2021), algorithm 1 with Adam's preconditioner."""
    X, y, _, lam = lasso
    lr, b1, b2, eps = 0.05, 0.9, 0.99, 1e-6
    w, m, v = np.ones(12), np.zeros(12), np.zeros(12)
    for k in range(1, 31):
        g = X.T @ (X @ w - y) / 40
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        scale = lr / (np.sqrt(v / (1 - b2**k)) + eps)
        w = soft(w - scale * m / (1 - b1**k), scale * lam)
    metric = l1jax.AdamMetric(b2=b2, eps=eps)
    tx = l1jax.proximal(optax.scale_by_adam(b1, b2, eps), l1jax.L1(lam), lr, metric=metric)
    ours, _ = run(tx, gradient(X, y), jnp.ones(12), 30)
    np.testing.assert_allclose(ours, w, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ours == 0, w == 0)


TRANSFORMATIONS = {
    "fista": lambda penalty, **k: l1jax.fista(0.1, penalty, **k),
    "proximal": lambda penalty, **k: l1jax.proximal(optax.trace(0.5), penalty, 0.1, metric=l1jax.TraceMetric(0.5), **k),
    "prox_update": lambda penalty, **k: l1jax.prox_update(penalty, 0.1, **k),
}
each = pytest.mark.parametrize("make", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)


@each
@pytest.mark.filterwarnings("ignore:params.*bfloat16 rounds small shrinkages away")
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_dtypes_are_kept_and_zeros_exact(make, dtype):
    params = {"w": jnp.asarray([1.0, 0.01, -0.01, 0.0], dtype), "b": jnp.asarray(0.001, dtype)}
    tx = make(l1jax.L1(1.0))
    state = tx.init(params)
    updates, new = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    moved = l1jax.iterate(new, optax.apply_updates(params, updates))
    np.testing.assert_array_equal(np.asarray(moved["w"], float) == 0, [False, True, True, True])
    assert moved["b"] == 0


@each
def test_schedules_traced_values_and_strength(make):
    params, grads = jnp.array([1.0, -2.0]), jnp.array([0.1, 0.2])
    want, _ = make(l1jax.L1(0.6)).update(grads, make(l1jax.L1(0.6)).init(params), params)

    def one(strength):
        tx = make(l1jax.L1(0.3), strength=strength)
        return tx.update(grads, tx.init(params), params)[0]

    np.testing.assert_allclose(one(2.0), want, rtol=1e-12)
    np.testing.assert_allclose(one(lambda count: 2.0 + 0.0 * count.astype(float)), want, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(one)(2.0), want, rtol=1e-12)


@each
def test_vmap_over_lambda_is_a_loop(make):
    params, grads, lams = jnp.array([1.0, -0.02, 0.3]), jnp.array([0.1, 0.2, 0.0]), jnp.array([0.1, 1.0, 10.0])

    def one(lam):
        tx = make(l1jax.L1(lam))
        return tx.update(grads, tx.init(params), params)[0]

    np.testing.assert_allclose(jax.vmap(one)(lams), jnp.stack([one(lam) for lam in lams]), rtol=1e-12)


@each
def test_bad_use_says_what_is_wanted(make):
    with pytest.raises(TypeError, match="penalty"):
        make(0.1)
    tx = make(l1jax.L1(0.1))
    params = jnp.ones(2)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_keeps_the_strength_of_the_penalty(lasso, nesterov):
    X, y, L, lam = lasso
    tx = l1jax.proximal(optax.trace(0.8, nesterov), l1jax.L1(lam), 0.2 / L, metric=l1jax.TraceMetric(0.8))
    params, _ = run(tx, gradient(X, y), jnp.zeros(12), 800)
    problem = l1jax.Problem(X, y, penalty=l1jax.L1(lam), fit_intercept=False)
    assert l1jax.duality_gap(problem, params, 0.0) < 1e-12


@pytest.mark.parametrize("direction", [optax.trace(0.9), optax.scale_by_adam()], ids=["trace", "adam"])
def test_a_wrong_metric_is_refused(direction):
    with pytest.raises(ValueError, match="metric"):
        l1jax.proximal(direction, l1jax.L1(0.1), 0.1).init(jnp.ones(2))


def test_adam_metric_needs_a_second_moment():
    params = jnp.ones(2)
    tx = l1jax.proximal(optax.identity(), l1jax.L1(0.1), 0.1, metric=l1jax.AdamMetric())
    with pytest.raises(ValueError, match="second moment"):
        tx.update(params, tx.init(params), params)


def test_solve_refuses_a_penalty_stated_twice(lasso):
    X, y, _, lam = lasso
    problem = l1jax.Problem(X, y, penalty=l1jax.L1(lam))
    for make in TRANSFORMATIONS.values():
        with pytest.raises(ValueError, match="penalty of its own"):
            l1jax.solve(problem, solver=make(l1jax.L1(lam)))
        with pytest.raises(ValueError, match="penalty of its own"):
            l1jax.solve(problem, solver=optax.chain(optax.sgd(0.1), make(l1jax.L1(lam))))
