"""Cross-validation against plain loops, scikit-learn, and R's glmnet (tests/data/cv.json.gz)."""

import dataclasses
import gzip
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import lasso_path

import l1jax
from l1jax.selection.scores import SCORES, scores_of

EXAMPLES = json.loads(gzip.decompress((Path(__file__).parent / "data" / "cv.json.gz").read_bytes()))
LOSSES = {"gaussian": l1jax.Squared(), "binomial": l1jax.Logistic(), "poisson": l1jax.Poisson()}
# Of R's glmnet, as its documentation's examples give them: lambda.min, its place, lambda.1se, its place, error, SE.
FIGURES = {
    "gaussian": (0.06896889, 35, 0.13227614, 28, 1.02147320, 0.08208298),
    "binomial": (0.02349477, 26, 0.05956780, 16, 0.83530515, 0.14250702),
    "poisson": (0.03482119, 64, 0.22383317, 44, 1.02347674, 0.06408024),
}
N, P, LAMS = 36, 5, np.geomspace(1.0, 0.02, 8)


def example(family):
    case = EXAMPLES[family]
    X = np.array(case["X"]).reshape(list(map(int, case["shape"])))
    problem = l1jax.Problem(X, case["y"], loss=LOSSES[family], penalty=l1jax.L1(1.0), standardize=True)
    # Beyond 50 strengths the classes are nearly separable: linear predictors in the hundreds, of no digits.
    some = slice(50 if family == "binomial" else None)
    measures = {name: {k: v[some] for k, v in of.items()} for name, of in case["measures"].items()}
    return problem, case["lams"][some], measures, case["more"]


@pytest.mark.parametrize("family", EXAMPLES)
def test_the_figures_of_glmnet(family):
    problem, lams, measures, more = example(family)
    gammas = [0.5, 1.0] if more else None
    cv = l1jax.cross_validate(problem, lams=lams, gammas=gammas, tol=1e-11)
    if more:
        np.testing.assert_allclose(cv.mean, more["relaxed"][1:], rtol=0, atol=1e-6)
        cv = dataclasses.replace(cv, **{k: getattr(cv, k)[..., -1, :] for k in ("mean", "se")}, path=cv.path[-1],
                                 scores=cv.scores[:, -1], eta=cv.eta[-1], gammas=None)  # fmt: skip
    ours = (
        cv.lam_min,
        cv.index_min[0] + 1,
        cv.lam_1se,
        cv.index_1se[0] + 1,
        cv.mean[cv.index_min],
        cv.se[cv.index_min],
    )
    np.testing.assert_allclose(ours, FIGURES[family], rtol=0, atol=1e-6 if family == "poisson" else 2e-7)
    y, loss = problem.y, problem.loss
    test = np.arange(len(y))[None] % 10 == np.arange(10)[:, None]
    for name, theirs in measures.items():
        score = {"class": "accuracy"}.get(name, name)
        each = np.array([scores_of(score, loss, cv.eta, y, jnp.asarray(fold / fold.sum())) for fold in test])
        if name == "class":
            each = 1 - each
        if family == "binomial" and name == "deviance":  # glmnet keeps probabilities away from 0 and 1
            p = np.clip(jax.nn.sigmoid(cv.eta), 1e-5, 1 - 1e-5)
            rows = -2 * np.where(np.asarray(y) == 1, np.log(p), np.log(1 - p))
            each = np.stack([rows[:, fold].mean(axis=1) for fold in test])
        np.testing.assert_allclose(each.mean(axis=0), theirs["mean"], rtol=0, atol=2e-6)  # thresh is glmnet's own
        np.testing.assert_allclose(each.std(axis=0) / 3, theirs["se"], rtol=0, atol=2e-6)


# -- plain loops; one shape and structure for all, as programs are compiled by them


def posed(rng, weights=True, ratio=0.7):
    X = rng.normal(size=(N, P)) * [1, 2, 0.5, 1, 3] + [0, 5, 0, -2, 0]
    y = X @ [1.0, 0.0, -1.5, 0.0, 0.3] + rng.normal(size=N)
    return l1jax.Problem(
        X,
        y,
        penalty=l1jax.Factors(l1jax.ElasticNet(1.0, ratio), [1.0, 1.0, 0.0, 2.0, 0.5]),
        sample_weight=rng.uniform(0.2, 2, size=N) if weights else np.ones(N),
        standardize=True,
    )


def fitted(problem, rows, lams=LAMS, tol=1e-12):
    """The path of some of the rows."""
    part = dataclasses.replace(problem, **{k: getattr(problem, k)[rows] for k in ("X", "y", "sample_weight")})
    return l1jax.path(part, lams=lams, tol=tol)


@pytest.fixture(scope="module")
def found():
    problem = posed(np.random.default_rng(1))
    ids = np.random.default_rng(2).permutation(np.arange(N) % 4)
    return problem, ids, l1jax.cross_validate(problem, folds=ids, lams=LAMS, tol=1e-12)


def test_it_is_a_loop_of_separate_fits(found):
    problem, ids, cv = found
    X, y, w = (np.asarray(a) for a in (problem.X, problem.y, problem.sample_weight))
    scores = []
    for k in range(4):
        fit = fitted(problem, np.flatnonzero(ids != k))
        eta = np.asarray(fit.coef) @ X[ids == k].T + np.asarray(fit.intercept)[:, None]
        scores.append(np.average((y[ids == k] - eta) ** 2, axis=1, weights=w[ids == k]))
        np.testing.assert_allclose(cv.eta[:, ids == k], eta, rtol=0, atol=1e-6)
    W = np.bincount(ids, w)
    mean = np.average(scores, axis=0, weights=W)
    np.testing.assert_allclose(cv.scores, scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(cv.weights, W)
    np.testing.assert_allclose(cv.mean, mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(cv.se, np.sqrt(np.average((scores - mean) ** 2, axis=0, weights=W) / 3), atol=1e-6)
    np.testing.assert_allclose(cv.path.coef, fitted(problem, np.arange(N)).coef, rtol=0, atol=1e-9)
    best = np.argmin(mean)
    assert float(cv.lam_min) == pytest.approx(LAMS[best])
    np.testing.assert_array_equal(cv.at_min.coef, cv.path.coef[best])
    assert float(cv.lam_1se) == pytest.approx(max(LAMS[mean <= mean[best] + cv.se[best]]))


def test_it_is_a_loop_over_scikit_learn(rng):
    problem = dataclasses.replace(posed(rng, weights=False), penalty=l1jax.L1(1.0), standardize=False)
    cv = l1jax.cross_validate(problem, folds=5, lams=LAMS, score="mse", tol=1e-12)
    X, y = np.asarray(problem.X), np.asarray(problem.y)
    for k in range(5):
        test = np.arange(N) % 5 == k
        center, level = X[~test].mean(axis=0), y[~test].mean()
        _, coefs, _ = lasso_path(X[~test] - center, y[~test] - level, alphas=LAMS, tol=1e-13, max_iter=100000)
        errors = y[test][:, None] - level - (X[test] - center) @ coefs
        np.testing.assert_allclose(cv.scores[k], np.mean(errors**2, axis=0), rtol=0, atol=1e-6)


def test_whole_weights_are_repeated_rows(rng):
    problem = posed(rng)
    counts = rng.integers(0, 3, size=N)
    counts[:4] = 1
    rows = np.repeat(np.arange(N), counts)
    ids = np.arange(N) % 4
    weighted = dataclasses.replace(problem, sample_weight=jnp.asarray(counts, float))
    repeated = dataclasses.replace(problem, X=problem.X[rows], y=problem.y[rows], sample_weight=jnp.ones(len(rows)))
    ours, same = (l1jax.cross_validate(at, folds=i, lams=LAMS, tol=1e-11) for at, i in
                  ((weighted, ids), (repeated, ids[rows])))  # fmt: skip
    for name in ("scores", "weights", "mean", "se"):
        np.testing.assert_allclose(getattr(ours, name), getattr(same, name), rtol=1e-7)


def test_nothing_is_compiled_for_a_second_data_set(rng, found):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(listener := lambda name, *_, **__: compiled.append(name))
    try:
        l1jax.cross_validate(posed(rng), folds=np.arange(N) % 4, lams=LAMS)
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert not [name for name in compiled if "backend_compile" in name]


# -- choosing


def chosen(mean, se, lams, score="deviance"):
    mean, se, lams = (jnp.asarray(a, float) for a in (mean, se, lams))
    blank = l1jax.Result(*[lams] * 11)
    cv = l1jax.CrossValidation(mean[None], lams[:1], mean, se, blank, mean, None, None, score)
    return float(cv.lam_min), float(cv.lam_1se)


def test_ties_go_to_the_larger_lambda_in_any_order():
    lams = [4.0, 3.0, 2.0, 1.0, 0.5]
    mean, se = [9.0, 6.0, 5.0, 5.0, 7.0], [1.0] * 5
    assert chosen(mean, se, lams) == (2.0, 3.0)
    assert chosen(mean[::-1], se, lams[::-1]) == (2.0, 3.0)
    assert chosen([-m for m in mean], se, lams, "auc") == (2.0, 3.0)
    assert chosen([np.nan, *mean[1:]], [0.5] * 5, lams) == (2.0, 2.0)


def test_ratios_and_gammas_are_separate_runs(found):
    problem, ids, cv = found
    both = l1jax.cross_validate(problem, folds=ids, lams=LAMS, l1_ratios=[0.4, 0.7], gammas=[0.0, 1.0], tol=1e-12)
    assert both.scores.shape == (4, 2, 2, len(LAMS))
    assert both.eta.shape == (2, 2, len(LAMS), N)
    np.testing.assert_allclose(both.scores[:, 1, 1], cv.scores, rtol=1e-9)
    np.testing.assert_allclose(both.eta[1, 1], cv.eta, rtol=0, atol=1e-8)
    a, g, at = both.index_min
    assert float(both.mean[a, g, at]) == float(np.min(both.mean))
    np.testing.assert_array_equal(both.at_min.coef, both.path.coef[a, g, at])
    assert [int(i) for i in both.index_1se[:2]] == [int(a), int(g)]
    other = dataclasses.replace(problem, penalty=l1jax.penalties.with_ratio(problem.penalty, 0.4))
    alone = l1jax.cross_validate(other, folds=ids, num=len(LAMS), tol=1e-12)
    grids = l1jax.cross_validate(problem, folds=ids, num=len(LAMS), l1_ratios=[0.4, 0.7], tol=1e-12)
    np.testing.assert_allclose(grids.lams[0], alone.lams)
    np.testing.assert_allclose(grids.mean[0], alone.mean, rtol=1e-7)
    assert "l1_ratio" in repr(both)


def test_relaxed_fits_are_least_squares_on_the_support(found):
    problem, _, cv = found
    X, y, w = (np.asarray(a) for a in (problem.X, problem.y, problem.sample_weight))
    free = l1jax.relax(problem, cv.path)
    for lane in range(len(LAMS)):
        on = np.flatnonzero(cv.path.coef[lane])
        Z = np.column_stack([np.ones(N), X[:, on]])
        fit = np.linalg.lstsq(Z * np.sqrt(w)[:, None], y * np.sqrt(w))[0]
        np.testing.assert_allclose(np.append(free.intercept[lane], free.coef[lane][on]), fit, atol=1e-8)
        assert np.flatnonzero(free.coef[lane]).tolist() == on.tolist()
    blends = l1jax.relax(problem, cv.path, gamma=[1.0, 0.25])
    np.testing.assert_array_equal(blends.coef[0], cv.path.coef)
    np.testing.assert_allclose(blends.coef[1], 0.25 * cv.path.coef + 0.75 * free.coef, rtol=1e-12)
    assert bool(np.all(blends.converged[0]))
    assert not np.any(blends.converged[1])


# -- folds


def test_folds_hold_each_row_out_once():
    key = jax.random.key(0)
    strata = np.repeat([0, 1, 2], [20, 9, 7])
    groups = np.repeat(np.arange(9), [9, 7, 5, 5, 3, 3, 2, 1, 1])
    for folds in (
        l1jax.Folds.of(N, 5),
        l1jax.Folds.of(N, 5, key=key, repeats=3),
        l1jax.Folds.of(N, 5, key=key, groups=groups),
        l1jax.Folds.of(N, 5, groups=groups),
        l1jax.Folds.of(N, 5, key=key, strata=strata),
    ):
        assert np.all(folds.train == ~folds.test)
        assert np.all(folds.test.reshape(folds.repeats, -1, N).sum(axis=1) == 1)
        sizes = folds.test.sum(axis=1)
        assert sizes.max() - sizes.min() <= 1 + (folds.repeats == 1) * 2
    np.testing.assert_array_equal(l1jax.Folds.of(N, 5).test[2], np.arange(N) % 5 == 2)
    rounds = l1jax.Folds.of(N, 5, key=key, repeats=3).test
    assert np.any(rounds[:5] != rounds[5:10])
    np.testing.assert_array_equal(rounds[:5], l1jax.Folds.of(N, 5, key=key).test)
    by_class = np.stack(
        [l1jax.Folds.of(N, 5, key=key, strata=strata).test[:, strata == c].sum(axis=1) for c in range(3)]
    )
    assert np.all(by_class.max(axis=1) - by_class.min(axis=1) <= 1)
    together = l1jax.Folds.of(N, 5, key=key, groups=groups).test
    assert all(len(np.unique(np.argmax(together[:, groups == g], axis=0))) == 1 for g in range(9))
    np.testing.assert_array_equal(l1jax.Folds.from_ids(["b", "a", "b", "c"]).test.argmax(axis=0), [1, 0, 1, 2])


def test_in_time_the_past_foretells():
    times = np.array([3.0, 1, 2, 5, 5, 4, 7, 6, 8, 9])
    folds = l1jax.Folds.in_time(times, 3)
    seen = np.zeros(10, bool)
    for train, test in zip(folds.train, folds.test, strict=True):
        assert times[train].max() < times[test].min()
        assert not np.any(seen & test)
        seen |= test
    assert len(folds) == 3


def test_repeats_average_their_rounds(found):
    problem, _, _ = found
    folds = l1jax.Folds.of(N, 4, key=jax.random.key(3), repeats=2)
    cv = l1jax.cross_validate(problem, folds=folds, lams=LAMS)
    rounds = [l1jax.cross_validate(problem, folds=l1jax.Folds(folds.train[k], folds.test[k]), lams=LAMS) for k in
              (slice(4), slice(4, 8))]  # fmt: skip
    for name in ("mean", "se", "eta"):
        np.testing.assert_allclose(getattr(cv, name), np.mean([getattr(r, name) for r in rounds], axis=0), rtol=1e-9)


def test_rows_never_held_out_have_no_prediction(found):
    problem, _, _ = found
    folds = l1jax.Folds.in_time(np.arange(N), 4)
    cv = l1jax.cross_validate(problem, folds=folds, lams=LAMS)
    np.testing.assert_array_equal(np.isnan(cv.eta[0]), ~folds.test.any(axis=0))
    same = l1jax.Folds.from_splits([(np.flatnonzero(a), np.flatnonzero(b)) for a, b in
                                    zip(folds.train, folds.test, strict=True)], N)  # fmt: skip
    np.testing.assert_array_equal(same.train, folds.train)


# -- scores


def test_scores_are_scikit_learns(rng):
    y = rng.integers(0, 2, size=20).astype(float)
    eta = np.round(rng.normal(size=(3, 20)), 1)  # with ties
    w = rng.uniform(size=20) * (rng.uniform(size=20) < 0.8)
    p = 1 / (1 + np.exp(-eta))
    theirs = {
        "mse": lambda k: metrics.mean_squared_error(y, p[k], sample_weight=w),
        "mae": lambda k: metrics.mean_absolute_error(y, p[k], sample_weight=w),
        "deviance": lambda k: 2 * metrics.log_loss(y, p[k], sample_weight=w),
        "accuracy": lambda k: metrics.accuracy_score(y, eta[k] > 0, sample_weight=w),
        "auc": lambda k: metrics.roc_auc_score(y, eta[k], sample_weight=w),
    }
    assert set(theirs) == set(SCORES)
    arrays = [jnp.asarray(a) for a in (eta, y, w / w.sum())]
    for name, oracle in theirs.items():
        ours = scores_of(name, l1jax.Logistic(), *arrays)
        np.testing.assert_allclose(ours, [oracle(k) for k in range(3)], rtol=1e-9)
    Y = rng.normal(size=(20, 2))
    two = scores_of("mse", l1jax.MultiSquared(), jnp.zeros((1, 20, 2)), jnp.asarray(Y), arrays[2])
    np.testing.assert_allclose(two, 2 * metrics.mean_squared_error(Y, 0 * Y, sample_weight=w))


# -- under transformations


def test_traced_it_is_the_same_and_has_derivatives(found):
    """One program: batched over responses, its derivatives in X, y, weights and strengths by finite differences."""
    problem, ids, cv = found
    point = (problem.X, problem.y, problem.sample_weight, jnp.asarray(LAMS))
    draw = np.random.default_rng(5).normal
    direction = jax.tree.map(lambda a: jnp.asarray(draw(size=a.shape)), point)

    def scored(X, y, w, lams):
        at = dataclasses.replace(problem, X=X, y=y, sample_weight=w)
        found = l1jax.cross_validate(at, folds=ids, lams=lams, tol=1e-13)
        return found.mean, found.lam_min

    @jax.jit
    @jax.vmap
    def along(y):
        mean, pull, lam_min = jax.vjp(scored, point[0], y, *point[2:], has_aux=True)
        return mean, lam_min, jax.vmap(pull)(jnp.eye(len(LAMS)))

    means, picked, slopes = along(jnp.stack([problem.y, problem.y[::-1]]))
    np.testing.assert_allclose(means[0], cv.mean, rtol=1e-6)
    assert float(picked[0]) == float(cv.lam_min)
    h = 1e-5
    ahead, behind = (scored(*jax.tree.map(lambda a, d, h=h: a + h * d, point, direction))[0] for h in (h, -h))
    ours = sum(np.tensordot(s[0], d, np.ndim(d)) for s, d in zip(slopes, direction, strict=True))
    np.testing.assert_allclose(ours, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-6)


# -- errors


def test_wrong_arguments(found):
    problem, _, _ = found
    run = l1jax.cross_validate
    for match, change in {
        r"folds: want a whole number from 2 to 36; got 1": {"folds": 1},
        "folds: want one for each of 36 rows, got 3": {"folds": [0, 1, 1]},
        "folds: want fold ids": {"folds": np.ones(N) / 2},
        "folds: want at least two folds": {"folds": np.zeros(N, int)},
        "key: it shuffles a number": {"folds": np.arange(N) % 2, "key": jax.random.key(0)},
        "score: want 'deviance', 'mse'": {"score": "r2"},
        "score: auc wants Logistic or SquaredHinge as loss, got Squared": {"score": "auc"},
        r"gamma: want numbers from 0 to 1, got \[2\]": {"gammas": [2]},
        r"l1_ratios: want numbers of shape \(A,\)": {"l1_ratios": 0.5},
        "lams: want finite": {"lams": [-1.0]},
    }.items():
        with pytest.raises(ValueError, match=match):
            run(problem, **change)
    with pytest.raises(ValueError, match="l1_ratios: want a penalty that has an l1_ratio"):
        run(dataclasses.replace(problem, penalty=l1jax.L1(1.0)), l1_ratios=[0.5])
    y = jnp.asarray(np.arange(N) % 4 == 1, float)
    labels = dataclasses.replace(problem, y=y, loss=l1jax.Logistic(), penalty=l1jax.L1(1.0))
    with pytest.raises(ValueError, match="fold 1: y: Logistic wants both classes"):
        run(labels, folds=4)
    with pytest.raises(ValueError, match="fold 0 wants some rows to fit"):
        l1jax.Folds(np.ones((1, 3), bool), np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="relaxed fits know no bounds"):
        run(dataclasses.replace(problem, penalty=l1jax.NonNegative(l1jax.L1(1.0))), gammas=[0.5])
    with pytest.raises(ValueError, match="progress: folds can't be counted"):
        jax.jit(lambda y: run(dataclasses.replace(problem, y=y), progress=True).mean)(problem.y)


def test_one_fold_has_no_standard_error(rng):
    folds = l1jax.Folds.in_time(np.arange(N), 1)
    cv = l1jax.cross_validate(posed(rng), folds=folds, lams=LAMS)
    assert cv.lam_1se == cv.lam_min


def test_a_fold_without_weight_has_no_say(rng):
    X, ids = rng.normal(size=(60, 4)), np.arange(60) // 12
    weight = np.r_[np.zeros(12), 1 + rng.random(48)]
    y = X[:, 0] + rng.normal(size=60)
    some = l1jax.cross_validate(l1jax.Problem(X, y, penalty=l1jax.L1(1.0), sample_weight=weight), folds=ids, num=6)
    heavy = slice(12, None)
    few = l1jax.cross_validate(
        l1jax.Problem(X[heavy], y[heavy], penalty=l1jax.L1(1.0), sample_weight=weight[heavy]),
        folds=ids[heavy],
        lams=some.path.lams,
    )
    np.testing.assert_allclose(some.mean, few.mean, rtol=1e-6)
    np.testing.assert_allclose(some.se, few.se, rtol=1e-6)
    assert np.all(np.isnan(some.scores[0]))
