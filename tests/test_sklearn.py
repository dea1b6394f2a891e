"""The estimators are scikit-learn's: its own checks, its answers, its tools."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn import linear_model as theirs
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from l1jax import sklearn as ours

N, P = 60, 6
CHECKED = [
    ours.Lasso(),
    ours.ElasticNet(),
    ours.LassoCV(alphas=8, cv=3),
    ours.ElasticNetCV(alphas=8, cv=3),
    ours.MultiTaskLasso(),
    ours.LogisticL1(),
    ours.LogisticL1CV(alphas=3, eps=0.1, cv=2),
]


@pytest.fixture(autouse=True)
def _as_shipped(standard_promotion, float32):
    """JAX as a user finds it: x64 is off, and yet the estimators compute in the dtype of X."""


@parametrize_with_checks(CHECKED)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture
def data(rng):
    X = rng.normal(size=(N, P))
    return X, X @ [2.0, -1.0, 0, 0, 0.5, 0] + rng.normal(size=N), rng.uniform(0.2, 2, N)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_elastic_nets_are_scikit_learns(data, positive, intercept):
    X, y, w = data
    settings = {"alpha": 0.2, "fit_intercept": intercept, "positive": positive}
    for name, more in (("Lasso", {}), ("ElasticNet", {"l1_ratio": 0.3})):
        want = getattr(theirs, name)(**settings, **more, tol=1e-12).fit(X, y, w)
        got = getattr(ours, name)(**settings, **more, tol=1e-13).fit(X, y, w)
        assert got.coef_.dtype == np.float64
        np.testing.assert_allclose(got.coef_, want.coef_, rtol=0, atol=1e-6)
        np.testing.assert_allclose(got.intercept_, want.intercept_, rtol=0, atol=1e-6)
        np.testing.assert_allclose(got.predict(X), want.predict(X), rtol=0, atol=1e-6)
        assert 0 <= got.dual_gap_ <= 1e-10
        np.testing.assert_array_equal(got.sparse_coef_.toarray()[0], got.coef_)
    two = ours.Lasso(**settings).fit(X, np.stack([y, -y], axis=1), w)
    assert two.coef_.shape == (2, P)
    np.testing.assert_allclose(two.coef_[0], ours.Lasso(**settings).fit(X, y, w).coef_, rtol=0, atol=1e-9)


def test_several_targets_are_scikit_learns(data, rng):
    X, y, _ = data
    Y = np.stack([y, rng.normal(size=N), 0.5 * y + rng.normal(size=N)], axis=1)
    want = theirs.MultiTaskLasso(alpha=0.2, tol=1e-12).fit(X, Y)
    got = ours.MultiTaskLasso(alpha=0.2, tol=1e-11).fit(X, Y)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.intercept_, want.intercept_, rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_scikit_learns(data, classes):
    X, y, w = data
    labels = np.array(["a", "b", "c"])[np.digitize(y, [0] if classes == 2 else [-1, 1])]
    C = 1 / (0.05 * w.sum())
    want = theirs.LogisticRegression(l1_ratio=1.0, solver="saga", C=C, tol=1e-9, max_iter=100000).fit(X, labels, w)
    got = ours.LogisticL1(alpha=0.05, tol=1e-10, max_iter=100000).fit(X, labels, w)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=0, atol=2e-4)
    np.testing.assert_allclose(got.predict_proba(X), want.predict_proba(X), rtol=0, atol=2e-4)
    np.testing.assert_array_equal(got.predict(X), want.predict(X))


def test_paths_and_cross_validation_are_scikit_learns():
    X, y = load_diabetes(return_X_y=True)
    alphas, coefs, _ = theirs.lasso_path(X, y - y.mean(), alphas=12, tol=1e-11, max_iter=100000)
    found = ours.Lasso.path(X, y - y.mean(), alphas=12, tol=1e-12)
    np.testing.assert_allclose(found[0], alphas)
    np.testing.assert_allclose(found[1], coefs, rtol=0, atol=1e-4)
    settings = {"alphas": 12, "cv": KFold(4, shuffle=True, random_state=0)}
    settings |= {"max_iter": 100000}
    exact = {"tol": 1e-13}  # of ours; of theirs 1e-10 is exact to the sixth digit
    want, got = theirs.LassoCV(tol=1e-10, **settings).fit(X, y), ours.LassoCV(**exact, **settings).fit(X, y)
    np.testing.assert_allclose(got.mse_path_, want.mse_path_, rtol=1e-6)
    np.testing.assert_allclose(got.alphas_, want.alphas_)
    assert got.alpha_ == pytest.approx(want.alpha_)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=0, atol=1e-4)
    settings |= {"l1_ratio": [0.5, 0.9]}
    want, got = theirs.ElasticNetCV(tol=1e-10, **settings).fit(X, y), ours.ElasticNetCV(**exact, **settings).fit(X, y)
    np.testing.assert_allclose(got.mse_path_, want.mse_path_, rtol=1e-6)
    assert (got.alpha_, got.l1_ratio_) == (pytest.approx(want.alpha_), want.l1_ratio_)
    assert got.alphas_.shape == want.alphas_.shape == (2, 12)


def test_scikit_learns_tools(data):
    X, y, w = data
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = ours.Lasso(alpha=0.1).fit(frame, y, sample_weight=w)
    assert list(model.feature_names_in_) == list("abcdef")
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("fedcba")])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(frame), model.predict(frame))
    assert clone(model).alpha == 0.1
    search = GridSearchCV(make_pipeline(StandardScaler(), ours.Lasso()), {"lasso__alpha": [10.0, 0.1]}, cv=3).fit(X, y)
    assert search.best_params_ == {"lasso__alpha": 0.1}
    single = ours.Lasso(alpha=0.1).fit(X.astype(np.float32), y)
    assert single.coef_.dtype == np.float32
    again = ours.Lasso(alpha=0.1, warm_start=True, tol=1e-13).fit(X, y)
    first = again.coef_.copy()
    np.testing.assert_allclose(again.fit(X, y).coef_, first, rtol=0, atol=1e-9)


def test_wrong_arguments(data):
    X, y, _ = data
    with pytest.raises(ValueError, match="alpha: want a finite number"):
        ours.Lasso(alpha=-1).fit(X, y)
    with pytest.raises(ValueError, match="want several targets"):
        ours.MultiTaskLasso().fit(X, y)
    with pytest.raises(ValueError, match="at least one non-zero"):
        ours.Lasso().fit(X, y, np.zeros(N))
    with pytest.raises(ValueError, match="one class only"):
        ours.LogisticL1().fit(X, np.ones(N))
