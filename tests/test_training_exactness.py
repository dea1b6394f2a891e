"""Every proximal optimiser, full batch, reaches the solution of `solve`: coefficients, support, residual."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import l1jax
from l1jax import AdagradMetric, AdamMetric, RmsMetric

pytestmark = pytest.mark.usefixtures("standard_promotion")

GROUPS = np.repeat(np.arange(4), 3)


def scaled(X, y, share):
    """A lasso of largest curvature 1 and lambda_max 1: one learning rate will do for all."""
    X, y = X - X.mean(axis=0), y - y.mean()
    X = X / np.sqrt(np.linalg.eigvalsh(X.T @ X / len(y))[-1])
    return X, y / np.abs(X.T @ y / len(y)).max(), share


@functools.cache
def problems():
    """name: (X, y, lam, gradient in NumPy)."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((60, 12))
    data = l1jax.datasets.diabetes()
    found = {
        "synthetic": scaled(X, X[:, :4] @ [2.0, -1.0, 0.5, 0.2] + 0.3 * rng.standard_normal(60), 0.2),
        "diabetes": scaled(np.asarray(data.X), np.asarray(data.y), 0.3),
    }
    X = rng.standard_normal((80, 12))
    y = (X[:, :3] @ [1.5, -1.0, 0.5] + rng.standard_normal(80) > 0).astype(float)
    X = 2 * X / np.sqrt(np.linalg.eigvalsh(X.T @ X / 80)[-1])
    start = X.T @ (0.5 - y) / 80
    lam = 0.3 * max(np.linalg.norm(start[g == GROUPS]) for g in range(4)) / np.sqrt(3)
    return {**found, "logistic": (X, y, lam)}


def gradient(name, w):
    """Of the loss, in NumPy or jax.numpy, as `w` is."""
    X, y, _ = problems()[name]
    xp = jnp if isinstance(w, jax.Array) else np
    X, y = xp.asarray(X, w.dtype), xp.asarray(y, w.dtype)
    mean = 1 / (1 + xp.exp(-X @ w)) if name == "logistic" else X @ w
    return X.T @ (mean - y) / len(y)


def residual(name, w):
    """The largest violation of the optimality conditions, over lambda_max: NumPy float64, from the definitions."""
    w = np.asarray(w, np.float64)
    g, lam, zero = gradient(name, w), problems()[name][2], gradient(name, 0 * w)
    if name != "logistic":
        off = np.where(w == 0, np.maximum(np.abs(g) - lam, 0), np.abs(g + lam * np.sign(w)))
        return off.max() / np.abs(zero).max()
    off, top, t = [], [], lam * np.sqrt(3)
    for k in range(4):
        a, b = w[k == GROUPS], g[k == GROUPS]
        size = np.linalg.norm(a)
        off.append(max(np.linalg.norm(b) - t, 0) if size == 0 else np.abs(b + t * a / size).max())
        top.append(np.linalg.norm(zero[k == GROUPS]) / np.sqrt(3))
    return max(off) / max(top)


@functools.cache
def solutions():
    found = {}
    for name, (X, y, lam) in problems().items():
        penalty = l1jax.GroupLasso(lam, GROUPS) if name == "logistic" else l1jax.L1(lam)
        loss = l1jax.Logistic() if name == "logistic" else l1jax.Squared()
        problem = l1jax.Problem(X, y, loss=loss, penalty=penalty, fit_intercept=False)
        found[name] = np.asarray(l1jax.solve(problem, tol=1e-14).coef)
        assert residual(name, found[name]) < 1e-7
    return found


def directions(penalty, lr):
    """Directions of optax with the metric said, and the fused optimisers: (transformation, steps)."""
    proximal = functools.partial(l1jax.proximal, penalty=penalty)
    return {
        "prox_sgd": l1jax.prox_sgd(1.0, penalty),
        "prox_sgd momentum": l1jax.prox_sgd(0.3, penalty, momentum=0.9),
        "prox_sgd nesterov": l1jax.prox_sgd(0.3, penalty, momentum=0.9, nesterov=True),
        "prox_adam": l1jax.prox_adam(lr, penalty),
        "prox_adamw": l1jax.prox_adamw(lr, penalty, weight_decay=0.0),
        "prox_rmsprop": l1jax.prox_rmsprop(lr, penalty, decay=0.99),
        "prox_adagrad": l1jax.prox_adagrad(1.0, penalty),
        "ftrl": l1jax.ftrl(1.0, penalty),
        "nadam": proximal(optax.scale_by_adam(nesterov=True), learning_rate=lr, metric=AdamMetric()),
        "adam, exact": l1jax.prox_adam(lr, penalty, exact=True),
        "rmsprop": proximal(optax.scale_by_rms(0.99, eps_in_sqrt=False, bias_correction=True), learning_rate=lr,
                            metric=RmsMetric(0.99, eps_in_sqrt=False, bias_correction=True)),
        "adagrad": proximal(optax.scale_by_rss(0.0), learning_rate=1.0, metric=AdagradMetric()),
        "amsgrad": proximal(optax.scale_by_amsgrad(), learning_rate=3 * lr, metric=AdamMetric()),
        "yogi": proximal(optax.scale_by_yogi(), learning_rate=lr, metric=AdamMetric(eps=1e-3)),
        "belief": proximal(optax.scale_by_belief(eps=0.1), learning_rate=0.1, metric=AdamMetric(eps=0.1)),
        "ema": proximal(optax.ema(0.9), learning_rate=0.5),
    }  # fmt: skip


NAMES = list(directions(l1jax.L1(1.0), 0.1))
STEPS = 3000


def train(tx, names, dtype, steps=STEPS):
    start = {name: jnp.zeros(problems()[name][0].shape[1], dtype) for name in names}

    def step(carry, _):
        params, state = carry
        grads = {name: gradient(name, params[name]) for name in params}
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), length=steps)[0])()


def check(name, w, dtype):
    want = solutions()[name]
    top, tight = np.abs(want).max(), dtype == jnp.float64
    assert w.dtype == dtype
    np.testing.assert_allclose(w, want, rtol=0, atol=1e-5 * top)
    np.testing.assert_array_equal(np.asarray(w) != 0, want != 0)
    assert residual(name, w) < (1e-6 if tight else 2e-5)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("name", NAMES)
def test_a_lasso_is_solved(name, dtype):
    lams = {key: jnp.asarray(problems()[key][2], dtype) for key in ("synthetic", "diabetes")}
    tx = directions(l1jax.Factors(l1jax.L1(1.0), lams), 0.02)[name]
    params, _ = train(tx, lams, dtype)
    for key in lams:
        check(key, params[key], dtype)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("name", NAMES)
def test_a_logistic_group_lasso_is_solved(name, dtype):
    lam = problems()["logistic"][2]
    tx = directions(l1jax.GroupLasso(lam, GROUPS), 0.02)[name]
    params, _ = train(tx, ["logistic"], dtype)
    check("logistic", params["logistic"], dtype)


def test_dual_averaging_identifies_the_support_at_its_rate():
    """Under noise the support is found and kept, and the error falls as 1/sqrt(t), or with the learning rate."""
    lam, want = problems()["synthetic"][2], solutions()["synthetic"]

    makers = {
        "rda": lambda: l1jax.rda(1.0, l1jax.L1(lam)),
        "rmda": lambda: l1jax.ramda(lambda t: (10 + t) ** -0.5, l1jax.L1(lam), momentum=0.5, adaptive=False),
        "ramda": lambda: l1jax.ramda(lambda t: 1 / (10 + t), l1jax.L1(lam), momentum=0.5),
    }
    for name, make in makers.items():
        tx, marks = make(), (300, 1200, 4800)

        def step(carry, key, tx=tx):
            w, state = carry
            noise = 0.3 * lam * jax.random.normal(key, w.shape, w.dtype)
            updates, state = tx.update(gradient("synthetic", w) + noise, state, w)
            w = optax.apply_updates(w, updates)
            return (w, state), (w, l1jax.iterate(state, w))

        keys = jax.random.split(jax.random.key(0), marks[-1])
        start = jnp.zeros(12)
        _, (dense, sparse) = jax.lax.scan(step, (start, tx.init(start)), keys)
        supports = np.asarray(sparse)[marks[-2] :] != 0
        assert np.all(supports == (want != 0)), name
        errors = [np.abs(np.asarray(dense)[m - 100 : m] - want).max() for m in marks]
        assert errors[2] < 0.45 * errors[0], (name, errors)  # 16 times the steps: a quarter, were there no luck in it


def test_a_proximal_step_flickers_where_dual_averaging_does_not():
    lam, want = problems()["synthetic"][2], solutions()["synthetic"]

    def wrong(tx):
        def step(carry, key):
            w, state = carry
            noise = lam * jax.random.normal(key, w.shape, w.dtype)
            updates, state = tx.update(gradient("synthetic", w) + noise, state, w)
            w = optax.apply_updates(w, updates)
            return (w, state), w

        keys = jax.random.split(jax.random.key(1), 2000)
        start = jnp.zeros(12)
        _, path = jax.lax.scan(step, (start, tx.init(start)), keys)
        return np.mean((np.asarray(path)[1000:] != 0) != (want != 0))

    assert wrong(l1jax.prox_sgd(0.1, l1jax.L1(lam))) > 0.05
    assert wrong(l1jax.rda(1.0, l1jax.L1(lam))) < 0.01
