"""The estimators are scikit-learn's: its own checks, its answers, its tools."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import linear_model as theirs
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
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


@pytest.mark.parametrize("name", ["Lasso", "ElasticNet", "LassoCV", "ElasticNetCV", "MultiTaskLasso"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("targets", [None, 1, 3])
def test_paths_are_scikit_learns(data, rng, name, dtype, targets):
    X, y, _ = data
    if targets:
        y = y[:, None] + rng.normal(size=(N, targets))
    settings = [{"alphas": [0.1, 0.5, 0.2]}, {"alphas": 5}, {"alphas": None, "n_alphas": 4, "eps": 0.01}]
    if targets is None:
        settings += [{"alphas": 4, "positive": True}]
    ratios = [1.0] if targets or name == "LassoCV" else [1.0, 0.4]  # LassoCV's of scikit-learn takes no other
    exact = {"tol": 1e-12} if dtype == np.float64 else {"tol": 1e-6}
    X, y = X.astype(dtype), y.astype(dtype)
    for ratio in ratios:
        mixed = {} if name == "LassoCV" else {"l1_ratio": ratio}
        for more in settings:
            got = getattr(ours, name).path(X, y, **mixed, **more, **exact, return_n_iter=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # theirs, of n_alphas and None
                grid = getattr(theirs, name).path(X, y, **mixed, **more, tol=1e-2)[0]
            more = {"positive": more.get("positive", False), "alphas": got[0]}  # single precision's grid is its own
            want = getattr(theirs, name).path(
                X.astype(float), y.astype(float), **mixed, **more, tol=1e-12, max_iter=100000, return_n_iter=True
            )
            np.testing.assert_allclose(got[0], grid, rtol=1e-12 if dtype == np.float64 else 1e-5)
            assert [a.shape for a in got[:3]] == [a.shape for a in want[:3]]
            assert [a.dtype for a in got[:3]] == [np.float64, dtype, np.float64]
            np.testing.assert_allclose(got[1], want[1], rtol=0, atol=1e-6)
            assert np.min(got[2]) >= 0
            assert np.max(got[2]) <= exact["tol"] * np.sum(y**2) / N  # scikit-learn's own criterion
            assert [type(steps) for steps in got[3]] == [type(steps) for steps in want[3]]


def test_arguments_of_paths(data):
    X, y, w = data
    two = np.stack([y, -y], axis=1)
    idle = {"precompute": True, "Xy": X.T @ y, "copy_X": False, "coef_init": np.ones(P), "verbose": 2}
    idle |= {"check_input": False, "random_state": 0, "selection": "random"}
    for a, b in zip(ours.Lasso.path(X, y, alphas=3, **idle), ours.Lasso.path(X, y, alphas=3), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(ours.ElasticNetCV.path(X.tolist(), y.tolist())[0]) == 100
    weighted = np.sqrt(w * N / w.sum())[:, None]
    want = theirs.lasso_path(X * weighted, two * weighted, alphas=4, tol=1e-12)
    got = ours.MultiTaskLasso.path(X, two, alphas=4, tol=1e-12, sample_weight=w)
    np.testing.assert_allclose(got[1], want[1], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"l1_ratio=1 and positive=False; got 0\.5 and False"):
        ours.ElasticNet.path(X, two)
    with pytest.raises(ValueError, match=r"l1_ratio=1 and positive=False; got 1\.0 and True"):
        ours.Lasso.path(X, two, positive=True)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[60, 50\]"):
        ours.Lasso.path(X, y[:50])
    with pytest.raises(ValueError, match=r"sample_weight\.shape == \(3,\), expected \(60,\)"):
        ours.Lasso.path(X, y, sample_weight=np.ones(3))
    with pytest.warns(ConvergenceWarning, match="the relative duality gap"):
        ours.MultiTaskLasso.path(X, two, max_iter=1)


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
