"""Agreement with R's glmnet for several outputs: multinomial, by coefficient and by group, and grouped Gaussian.

The coefficients of three classes are unique up to one shift a row. The penalty settles it: an L1 norm is least where
the median is 0, a squared or a group norm where the mean is; glmnet centres intercepts too, which no penalty settles.
"""

import numpy as np
import pytest
from glmnet import DATA, FIXTURE, P, agree, solved

import l1jax

CASES = FIXTURE["multi"]
K = 3


@pytest.mark.parametrize("name", CASES)
def test_paths_are_glmnets(name):
    case = CASES[name]
    loss = l1jax.Multinomial(K) if case["family"] == "multinomial" else l1jax.MultiSquared()
    by_group = l1jax.GroupLasso(1.0, range(P), weights=np.ones(P))
    penalty = by_group if case["grouped"] else l1jax.ElasticNet(1.0, case["alpha"])
    agree(solved(case, loss, penalty, tol=1e-14), case)  # a gap of 1e-13 leaves the elastic net 8e-7 away


def test_several_responses_under_l1_are_one_lasso_each():
    case = {**CASES["several responses"], "grouped": False}
    found = solved(case, l1jax.MultiSquared(), l1jax.L1(1.0))
    for k in range(K):
        problem = l1jax.Problem(DATA["X"], DATA[case["y"]][:, k], penalty=l1jax.L1(1.0))
        alone = l1jax.path(problem, lams=case["lams"], tol=1e-13)
        np.testing.assert_allclose(found.coef[:, :, k], alone.coef, atol=1e-6)
        np.testing.assert_allclose(found.intercept[:, k], alone.intercept, atol=1e-6)
