"""The problems of tests/data/glmnet.R, with the answers of R's glmnet and survival (tests/data/glmnet.json)."""

import json
from pathlib import Path

import numpy as np

import l1jax

FOLDER = Path(__file__).parent / "data"
FIXTURE = json.loads((FOLDER / "glmnet.json").read_text())
DATA = {name: np.array(values, float) for name, values in FIXTURE["data"].items()}
N, P = DATA["X"].shape


def named(name, otherwise=None):
    return otherwise if name is None else DATA[name]


def solved(case, loss, penalty, tol=1e-13):
    """Our certified path for a case. It always has weights and an offset: programs are compiled by structure."""
    problem = l1jax.Problem(
        DATA["X"],
        DATA[case["y"]],
        loss=loss,
        penalty=penalty,
        sample_weight=named(case["weights"], np.ones(N)),
        offset=named(case["offset"], np.zeros((N, *np.shape(case["coef"])[2:]))),
        fit_intercept=case["fit_intercept"],
        standardize=case["standardize"],
    )
    found = l1jax.path(problem, lams=case["lams"], tol=tol)
    assert np.all(found.converged)
    return found


def agree(found, case):
    """Coefficients and intercepts within 1e-6 of the largest coefficient, the same zeros, the same deviance."""
    coef = np.array(case["coef"])
    size = np.abs(coef).max()
    np.testing.assert_allclose(found.coef, coef, rtol=0, atol=1e-6 * size)
    np.testing.assert_array_equal(np.asarray(found.coef) != 0, coef != 0)
    np.testing.assert_allclose(found.intercept, 0 if case["intercept"] is None else case["intercept"], atol=1e-6 * size)
    np.testing.assert_allclose(found.dev_ratio, case["dev_ratio"], rtol=0, atol=1e-7)
