"""tune: finds what a fine search finds, in each criterion; stops; stays in range; complains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import l1jax

RNG = np.random.default_rng(4)
N, P = 40, 20
X = RNG.normal(size=(2 * N, P))
y = X[:, :3] @ [1.5, -1, 0.5] + RNG.normal(size=2 * N)
FIT, OUT = (X[:N], y[:N]), (X[N:], y[N:])
PROBLEM = l1jax.Problem(*FIT, penalty=l1jax.L1(1.0))
GRID = np.geomspace(0.5, 0.005, 400)


def one(at):
    return l1jax.L1(at["lam"])


def out_of_sample(fit, out):
    path = l1jax.path(l1jax.Problem(*fit, penalty=l1jax.L1(1.0)), lams=GRID)
    return np.mean((np.asarray(path.coef) @ out[0].T + np.asarray(path.intercept)[:, None] - out[1]) ** 2, axis=1)


def test_held_out_rows_find_what_a_fine_grid_finds():
    expected = out_of_sample(FIT, OUT)
    found = l1jax.tune(PROBLEM, one, {"lam": 0.3}, held_out=OUT)
    assert found.criterion <= np.min(expected) * (1 + 2e-3)
    assert found.solves == len(found.history) + 1 < 101  # it stopped by itself
    again = np.mean((OUT[0] @ found.result.coef + found.result.intercept - OUT[1]) ** 2)
    np.testing.assert_allclose(again, found.criterion, rtol=1e-4)


def test_folds_find_what_a_fine_grid_finds():
    of = np.arange(N) % 4
    parts = [((FIT[0][of != k], FIT[1][of != k]), (FIT[0][of == k], FIT[1][of == k])) for k in range(4)]
    expected = np.mean([out_of_sample(*part) for part in parts], axis=0)
    found = l1jax.tune(PROBLEM, one, {"lam": 0.3}, criterion="folds", folds=of, max_steps=40)
    assert found.criterion <= np.min(expected) * (1 + 2e-3)
    assert found.solves == 4 * len(found.history) + 1


@pytest.mark.parametrize("loss", [l1jax.Squared(), l1jax.Cox(np.arange(N) % 3 > 0)])
def test_folds_count_by_their_weights(loss):
    """As in `cross_validate`, of the same strength and folds, also for a loss that holds values of rows."""
    weights, of = RNG.uniform(0.5, 3, N), np.arange(N) % 4 // 2
    problem = dataclasses.replace(
        PROBLEM,
        y=jnp.exp(-PROBLEM.y / 2),
        loss=loss,
        sample_weight=jnp.asarray(weights),
        fit_intercept=loss.location,
    )
    lam = float(l1jax.lambda_max(problem)) / 4
    found = l1jax.tune(problem, one, {"lam": lam}, criterion="folds", folds=of, max_steps=1, tol=1e-8)
    cv = l1jax.cross_validate(problem, folds=of, lams=[lam], tol=1e-8)
    np.testing.assert_allclose(found.criterion, cv.mean[0], rtol=1e-6)
    assert found.result.df > 0


def test_held_out_rows_may_have_values_of_their_own():
    """Weighted proportional hazards, by the definition of Breslow's partial likelihood on the held-out rows."""
    events, weights, times = RNG.random(2 * N) < 0.7, RNG.integers(1, 4, 2 * N), np.exp(-y / 2)

    def rows(at):
        return l1jax.Problem(
            X[at],
            times[at],
            l1jax.Cox(events[at]),
            l1jax.L1(1.0),
            sample_weight=weights[at],
            fit_intercept=False,
        )

    def deviance(coef, at):
        eta, t, d, w = X[at] @ coef, times[at], events[at], weights[at] / np.sum(weights[at])
        risks = [np.log(np.sum(w * np.exp(eta) * (t >= when))) for when in t]
        return 2 * sum(d * w * (risks - eta - np.log(w)))  # the infimum, without ties

    fit, out = rows(slice(N)), rows(slice(N, None))
    found = l1jax.tune(fit, one, {"lam": float(l1jax.lambda_max(fit)) / 2}, held_out=out, tol=1e-8)
    coefs = l1jax.path(fit, lams=GRID * 0.5, tol=1e-8).coef
    expected = [deviance(np.asarray(coef), slice(N, None)) for coef in coefs]
    np.testing.assert_allclose(found.criterion, deviance(np.asarray(found.result.coef), slice(N, None)), rtol=1e-5)
    assert 0.1 < np.argmin(expected) / len(GRID) < 0.9
    assert found.criterion <= np.min(expected) * (1 + 2e-3)


def test_stein_s_estimate_counts_the_support():
    """Of an orthonormal design at lam: residual + 2*noise^2*nonzeros/n - noise^2, up to the random direction."""
    Q = np.linalg.qr(RNG.normal(size=(64, 6)))[0] * 8
    y = Q @ [2.0, 1, 0, 0, 0, 0] + RNG.normal(size=64)
    problem = l1jax.Problem(Q, y, penalty=l1jax.L1(1.0), fit_intercept=False)
    found = l1jax.tune(problem, one, {"lam": 0.4}, criterion="sure", noise=1.0, max_steps=1)
    assert found.result.df == 2
    residual = np.mean((problem.y - Q @ found.result.coef) ** 2)
    assert abs(found.history[0] - (residual - 1 + 4 / 64)) < 4 * 2 * np.sqrt(2 * 2) / 64


def test_many_hyperparameters_in_range_with_any_optimizer(capsys):

    def make(at):
        return l1jax.ElasticNet(at["lam"], at["l1_ratio"])

    start = {"lam": np.full(P, 0.2), "l1_ratio": 0.9}
    found = l1jax.tune(
        PROBLEM, make, start, held_out=OUT, optimizer=optax.sgd(50.0), span=2.0, max_steps=15, progress=True
    )
    assert "criterion" in capsys.readouterr().err
    assert found.criterion < found.history[0]
    assert np.all((found.values["lam"] >= 0.1 * (1 - 1e-9)) & (found.values["lam"] <= 0.4 * (1 + 1e-9)))
    assert 0 < found.values["l1_ratio"] < 1
    assert np.any(found.values["lam"] >= 0.399)  # some would have gone further
    assert "lam (20,)" in repr(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"criterion": "aic"}, 'want "held-out", "folds" or "sure"'),
        ({"held_out": None}, "wants held_out="),
        ({"held_out": (X[:, 1:], y)}, "want 20 columns, float64 and the loss Squared"),
        ({"held_out": l1jax.Problem(X, y > 0, l1jax.Logistic(), l1jax.L1(1.0))}, "the loss Squared, like"),
        ({"held_out": (X, np.where(y > 1, np.nan, y))}, "y: NaN"),
        ({"criterion": "folds", "folds": np.zeros(N)}, "at least 2 folds"),
        ({"criterion": "folds", "folds": np.arange(3)}, "at least 2 folds"),
        ({"criterion": "sure", "noise": 0.0}, "noise: want a number above 0"),
        ({"start": {"lam": 0.0}}, "want lam above 0"),
        ({"start": {"l1_ratio": 1.0}}, "below 1"),
        ({"span": 1.0}, "span: want"),
    ],
)
def test_complaints(change, words):
    given = {"start": {"lam": 0.3}, "held_out": OUT} | change
    with pytest.raises(ValueError, match=words):
        l1jax.tune(PROBLEM, one, given.pop("start"), **given)


def test_held_out_rows_of_losses_that_hold_rows_want_a_problem():
    problem = dataclasses.replace(PROBLEM, loss=l1jax.Cox(np.ones(N)), fit_intercept=False)
    with pytest.raises(ValueError, match="want a Problem of these rows, as Cox holds values"):
        l1jax.tune(problem, one, {"lam": 0.1}, held_out=OUT)


def test_it_is_no_layer_itself():
    with pytest.raises(ValueError, match="driven from the host"):
        jax.jit(lambda lam: jnp.asarray(l1jax.tune(PROBLEM, one, {"lam": lam}, held_out=OUT).criterion))(0.1)
