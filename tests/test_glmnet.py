"""Agreement with R's glmnet and survival, whose answers to small problems are in tests/data/glmnet.json.

Measured, as shares of the largest coefficient, at a tolerance of 1e-13: lasso 3e-10, logistic and Poisson lasso 2e-8,
elastic nets 1.4e-7, Cox 6e-12; all of it is our own distance from the optimum, as a gap of 1e-13 allows. Values,
gradients and second derivatives of Cox: 1e-15.
"""

import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from glmnet import DATA, FIXTURE, FOLDER, N, P, agree, named, solved

import l1jax

LOSSES = {"gaussian": l1jax.Squared(), "binomial": l1jax.Logistic(), "poisson": l1jax.Poisson()}
CASES, LIKELIHOODS = FIXTURE["glmnet"], FIXTURE["survival"]


def cox(case, ties="breslow"):
    return l1jax.Cox(DATA["event"], named(case["start"]), ties)


@pytest.mark.parametrize("name", CASES)
def test_paths_are_glmnets(name):
    case = CASES[name]
    loss = cox(case) if case["family"] == "cox" else LOSSES[case["family"]]
    factors = named(case["factors"], np.ones(P))
    # One structure for all: programs are compiled by it.
    penalty = l1jax.Factors(l1jax.ElasticNet(1.0, case["alpha"]), factors)
    penalty = l1jax.Bounds(penalty, np.full(P, case["lower"]), np.full(P, case["upper"]))
    # Cox has no gap: its tolerance is that of the fixed-point residual, as small as the coefficients' own error.
    agree(solved(case, loss, penalty, tol=1e-9 if case["family"] == "cox" else 1e-13), case)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_partial_likelihoods_are_coxphs(name):
    """Values, gradients and second derivatives in the coefficients, far from the optimum too."""
    case = LIKELIHOODS[name]
    X, y, betas = (jnp.asarray(a) for a in (DATA["X"], DATA[case["y"]], DATA["betas"]))
    loss = cox(case, case["ties"])
    weights = named(case["weights"], np.ones(N))
    s = jnp.asarray(weights / weights.sum())

    def facts(beta):
        eta = X @ beta
        bent = jax.vmap(lambda d: loss.bent(d, eta, y, s))(X.T)
        return loss.value(eta, y, s), X.T @ loss.gradient(eta, y, s), X.T @ bent.T

    value, gradient, hessian = jax.device_get(jax.jit(jax.vmap(facts))(betas))
    total = weights.sum()
    died = DATA["event"] == 1
    infimum = 0.0  # of minus the log partial likelihood; the docstring's sum, for weights that don't sum to 1
    for t in np.unique(DATA[case["y"]][died]):
        of_t = weights[died & (DATA[case["y"]] == t)]
        spared = np.arange(len(of_t)) / len(of_t) * (case["ties"] == "efron")
        infimum += of_t.sum() * (np.log(of_t.sum()) + np.mean(np.log(1 - spared)))
    np.testing.assert_allclose(infimum + total * value, -np.array(case["value"]), rtol=1e-12)
    scale = np.abs(case["score"]).max()
    np.testing.assert_allclose(total * gradient, -np.array(case["score"]), rtol=0, atol=1e-12 * scale)
    scale = np.abs(case["information"]).max()
    np.testing.assert_allclose(total * hessian, case["information"], rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("name", ["efron", "efron, weights", "efron, late entries"])
def test_cox_ridges_after_efron_are_coxphs(name):
    """What glmnet leaves us to ask survival for, with late entries at the times of others' events."""
    case = LIKELIHOODS[name]
    weights = named(case["weights"], np.ones(N))
    problem = l1jax.Problem(
        DATA["X"],
        DATA[case["y"]],
        loss=l1jax.Cox(DATA["event"], named(case["start"], np.zeros(N)), case["ties"]),
        penalty=l1jax.ElasticNet(1.0, 0.0),
        sample_weight=weights,
        fit_intercept=False,
    )
    found = l1jax.path(problem, lams=np.array(case["thetas"][1:]) / weights.sum(), tol=1e-10)
    assert np.all(found.converged)
    coef = np.array(case["coef"][1:])
    np.testing.assert_allclose(found.coef, coef, rtol=0, atol=1e-7 * np.abs(coef).max())


def near(found, want, where):
    """The same tree; numbers equal but for rounding."""
    assert type(found) is type(want), where
    if isinstance(want, dict):
        assert list(found) == list(want), where
        for key in want:
            near(found[key], want[key], f"{where}: {key}")
    elif isinstance(want, list):
        np.testing.assert_allclose(found, want, rtol=1e-7, atol=1e-9, err_msg=where)
    else:
        assert found == want, where


def test_r_still_gives_these_answers(tmp_path):
    if shutil.which("Rscript") is None:
        pytest.skip("Rscript is not installed: the committed answers stand unchecked")
    has = subprocess.run(["Rscript", "-e", "library(glmnet); library(survival)"], capture_output=True, check=False)
    if has.returncode:
        pytest.skip("R has no glmnet or no survival: the committed answers stand unchecked")
    file = tmp_path / "glmnet.json"
    subprocess.run(["Rscript", str(FOLDER / "glmnet.R"), str(file)], check=True, capture_output=True)
    near(json.loads(file.read_text()), FIXTURE, "glmnet.json")
