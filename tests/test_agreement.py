"""Agreement: with published numbers, scikit-learn, closed forms; between engines, modes, transformations and dtypes."""

import contextlib
import dataclasses
import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import Case, response, slope_at_zero
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, lars_path, lasso_path

import l1jax

# -- the diabetes data: published knots, scikit-learn's path and LARS

KNOTS = "949.4353 889.3138 452.8957 316.0734 130.1295 88.7843 68.9648 19.9812 5.4775 5.0882 2.1823 1.3104"
KNOTS_R = "949.435 889.316 452.901 316.074 130.131 88.782 68.965 19.981 5.477 5.089 2.182 1.310"
ENTRY = ["bmi", "s5", "bp", "s3", "sex", "s6", "s1", "s4", "s2", "age"]


def diabetes():
    data = l1jax.datasets.diabetes()
    return data.X, data.y


def diabetes_in_r():
    """R lars' copy: blood pressure in exact thirds, s5 the logarithm of a whole number (ours are rounded)."""
    raw = l1jax.datasets.diabetes(scaled=False)
    X = raw.X.copy()
    X[:, 3] = np.round(3 * X[:, 3]) / 3
    X[:, 8] = np.log(np.round(np.exp(X[:, 8])))
    X = X - X.mean(axis=0)
    return X / np.linalg.norm(X, axis=0), raw.y


@pytest.mark.parametrize(("data", "printed"), [(diabetes, KNOTS), (diabetes_in_r, KNOTS_R)], ids=["as shipped", "R"])
def test_the_support_changes_at_the_published_knots(data, printed):
    """Half a printed digit, and 1e-6 for the gap, to either side of a knot the supports differ by one feature."""
    X, y = data()
    knots = np.array([float(knot) for knot in printed.split()])
    width = 0.5 * 10.0 ** -len(printed.split()[0].split(".")[1]) * (1 + 1e-9) + 1e-6 * knots
    lams = np.stack([knots + width, knots - width], axis=1).ravel() / len(y)
    path = l1jax.path(l1jax.Problem(X, y, penalty=l1jax.L1(1.0)), lams=lams, tol=1e-13)
    supports = [frozenset(np.flatnonzero(coef)) for coef in np.asarray(path.coef)]
    assert supports[0] == frozenset()
    for k in range(len(knots)):
        above, below = supports[2 * k : 2 * k + 2]
        assert len(above ^ below) == 1, knots[k]
        if k:
            assert above == supports[2 * k - 1]


@pytest.fixture(scope="module")
def diabetes_path():
    X, y = diabetes()
    problem = l1jax.Problem(X, y, penalty=l1jax.L1(1.0), names=l1jax.datasets.diabetes().names)
    return l1jax.path(problem, tol=1e-12)


def test_diabetes_path_is_certified_to_1e_12(diabetes_path):
    X, y = diabetes()
    assert np.all(diabetes_path.gap <= 1e-12)
    assert np.all(diabetes_path.converged)
    for lam, coef, intercept in zip(diabetes_path.lams, diabetes_path.coef, diabetes_path.intercept, strict=True):
        oracle = Case(X, y, float(lam)).oracle()
        assert not oracle.false_certificate(coef, intercept, 1e-12, np.finfo(float).eps)


@pytest.mark.parametrize("peer", ["lasso_path", "lars_path"])
def test_diabetes_path_is_that_of_scikit_learn(diabetes_path, peer):
    X, y = diabetes()
    coef, lams = np.asarray(diabetes_path.coef), np.asarray(diabetes_path.lams)
    if peer == "lasso_path":
        _, want, _ = lasso_path(X, y - y.mean(), alphas=lams, tol=1e-12, max_iter=1_000_000)
    else:
        alphas, _, knots = lars_path(X, y - y.mean(), method="lasso")
        want = np.stack([np.interp(lams, alphas[::-1], row[::-1]) for row in knots])
    assert np.max(np.abs(coef - want.T)) <= 1e-6 * np.max(np.abs(want))


def test_the_order_of_entry_on_diabetes(diabetes_path):
    active = np.asarray(diabetes_path.coef) != 0
    first = np.argmax(active, axis=0)
    assert np.all(active.any(axis=0))
    names = np.array(diabetes_path.names)
    fine = np.array([float(knot) for knot in KNOTS.split()])  # at the grid's own lambdas two may enter at once
    X, y = diabetes()
    between = np.sqrt(fine * np.append(fine[1:], 1.0)) / len(y)
    supports = np.asarray(l1jax.path(l1jax.Problem(X, y, penalty=l1jax.L1(1.0)), lams=between, tol=1e-12).coef) != 0
    order = []
    for support in supports:
        order += [name for name in names[support] if name not in order]
    assert order == ENTRY
    assert list(names[np.lexsort((np.argsort(np.argsort([ENTRY.index(n) for n in names])), first))]) == ENTRY
    s3 = supports[:, list(names).index("s3")].astype(int)
    assert np.diff(s3).tolist().count(-1) == 1  # it leaves
    assert np.diff(s3).tolist().count(1) == 2  # and returns
    assert s3[-1] == 1


# -- scikit-learn's estimators, with intercept, weights and standardisation

N, P = 30, 8
RNG = np.random.default_rng(8)
X = RNG.normal(size=(N, P)) * np.linspace(0.5, 2, P) + 1.0
WEIGHTS = RNG.uniform(0.2, 3, size=N)
ETA = (X - 1) @ np.array([1.0, -1.0, 0.5, 0, 0, 0, 0, 0])
Y = {loss: response(RNG, ETA, loss) for loss in ("squared", "logistic")}


def weighted_sd(weights):
    s = np.ones(N) / N if weights is None else weights / weights.sum()
    return np.sqrt(s @ (X - s @ X) ** 2)


def by_scikit_learn(case):
    """(coef, intercept) by the estimator of the same objective; standardised by hand."""
    weights = case.weights
    scale = weighted_sd(weights) if case.standardize else np.ones(P)
    given = {"fit_intercept": case.fit_intercept, "tol": 1e-13, "max_iter": 2_000_000}
    if case.loss == "logistic":
        total = N if weights is None else weights.sum()
        model = LogisticRegression(C=1 / (case.lam * total), l1_ratio=case.ratio, solver="saga", **given)
    elif case.ratio == 1:
        model = Lasso(alpha=case.lam, **given)
    else:
        model = ElasticNet(alpha=case.lam, l1_ratio=case.ratio, **given)
    fitted = model.fit(X / scale, Y[case.loss], sample_weight=weights)
    return np.ravel(fitted.coef_) / scale, float(np.ravel(fitted.intercept_)[0]) if case.fit_intercept else 0.0


GRID = list(itertools.product(["squared", "logistic"], [1.0, 0.5], [True, False], [None, WEIGHTS], [False, True]))


@pytest.mark.parametrize(
    ("loss", "ratio", "fit_intercept", "weights", "standardize"),
    GRID,
    ids=[
        "-".join(
            (
                "squared" if g[0] == "squared" else "logistic",
                f"ratio {g[1]}",
                *("intercept",) * g[2],
                *("weights",) * (g[3] is not None),
                *("standardize",) * g[4],
            )
        )
        for g in GRID
    ],
)
def test_solutions_are_those_of_scikit_learn(loss, ratio, fit_intercept, weights, standardize):
    case = Case(
        X, Y[loss], 0.0, ratio=ratio, loss=loss, fit_intercept=fit_intercept, weights=weights, standardize=standardize
    )
    case = dataclasses.replace(case, lam=slope_at_zero(case) / 3)
    found = l1jax.solve(case.problem(), tol=1e-11)
    oracle = case.oracle()
    assert found.converged
    assert not oracle.false_certificate(found.coef, found.intercept, found.tol, np.finfo(float).eps)
    assert oracle.residual(found.coef, found.intercept) < 1e-5
    coef, intercept = by_scikit_learn(case)
    assert 0 < np.count_nonzero(coef) < P + (ratio < 1)
    size = np.max(np.abs(coef))
    assert np.max(np.abs(np.asarray(found.coef) - coef)) <= 1e-5 * size
    assert abs(float(found.intercept) - intercept) <= 1e-5 * (size + abs(intercept))
    assert np.array_equal(np.asarray(found.coef) != 0, coef != 0)


@pytest.mark.parametrize(
    ("solver", "penalty", "fit_intercept"),
    [
        ("cd", l1jax.L1(0.0), True),
        ("cd", l1jax.NoPenalty(), False),
        ("fista", l1jax.L1(0.0), False),
        ("fista", l1jax.NoPenalty(), True),
    ],
    ids=["cd-lam 0-intercept", "cd-none", "fista-lam 0", "fista-none-intercept"],
)
def test_no_penalty_is_least_squares(solver, penalty, fit_intercept):
    design = np.column_stack([X, np.ones(N)]) if fit_intercept else X
    want = np.linalg.lstsq(design, Y["squared"], rcond=None)[0]
    problem = l1jax.Problem(X, Y["squared"], penalty=penalty, fit_intercept=fit_intercept)
    found = l1jax.solve(problem, solver=solver)
    assert found.converged
    np.testing.assert_allclose(found.coef, want[:P], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.intercept, want[P] if fit_intercept else 0.0, rtol=1e-7)


# -- engines, transformations, modes

LASSO = l1jax.Problem(X, Y["squared"], penalty=l1jax.L1(0.1))
LOGIT = l1jax.Problem(X, Y["logistic"], loss=l1jax.Logistic(), penalty=l1jax.L1(0.03))
SOLVERS = {
    "fista": "fista",
    "ssn": "ssn",
    "gradient": optax.identity(),
    "averaged gradient": optax.ema(0.9),
    "adam": optax.scale_by_adam(),
    "own fista": lambda penalty: l1jax.fista(0.5, penalty),
    "own chain": lambda penalty: optax.chain(optax.sgd(0.1), l1jax.prox_update(penalty, learning_rate=0.1)),
    "own momentum": lambda penalty: l1jax.proximal(optax.trace(0.5), penalty, 0.05, metric=l1jax.TraceMetric(0.5)),
}


@pytest.fixture(scope="module")
def solutions():
    return {"lasso": l1jax.solve(LASSO, solver="cd", tol=1e-12), "logistic": l1jax.solve(LOGIT, tol=1e-12)}


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_agree_on_a_lasso(solver, solutions, standard_promotion):
    found = l1jax.solve(LASSO, solver=SOLVERS[solver], tol=1e-8)
    assert found.converged
    np.testing.assert_allclose(found.coef, solutions["lasso"].coef, atol=1e-3)
    np.testing.assert_allclose(found.intercept, solutions["lasso"].intercept, atol=1e-3)
    np.testing.assert_array_equal(found.coef != 0, solutions["lasso"].coef != 0)


@pytest.mark.parametrize("solver", ["adam", "own chain"])
def test_solvers_agree_on_a_logistic_regression(solver, solutions, standard_promotion):
    found = l1jax.solve(LOGIT, solver=SOLVERS[solver])
    assert found.converged
    np.testing.assert_allclose(found.coef, solutions["logistic"].coef, atol=0.02)
    np.testing.assert_array_equal(found.coef != 0, solutions["logistic"].coef != 0)


LAMS = np.array([0.05, 0.4, 0.1, 0.2])  # not sorted


@pytest.mark.parametrize("posed", [LASSO, LOGIT], ids=["lasso", "logistic"])
def test_modes_of_a_path_agree_with_solving_one_by_one(posed):
    warm = l1jax.path(posed, lams=LAMS, mode="warm", tol=1e-11)
    together = l1jax.path(posed, lams=LAMS, mode="vmap", tol=1e-11)
    np.testing.assert_array_equal(warm.lams, LAMS)
    for k, lam in enumerate(LAMS):
        alone = l1jax.solve(dataclasses.replace(posed, penalty=l1jax.L1(lam)), tol=1e-11)
        for found in (warm[k], together[k]):
            assert found.converged
            np.testing.assert_allclose(found.coef, alone.coef, atol=1e-5)
            np.testing.assert_array_equal(found.coef != 0, alone.coef != 0)
            np.testing.assert_allclose(found.intercept, alone.intercept, atol=1e-5)


def test_progress_changes_nothing(capsys):
    plain = l1jax.path(LASSO, num=7, tol=1e-12)
    shown = l1jax.path(LASSO, num=7, tol=1e-12, progress=True)
    assert "path" in capsys.readouterr().err
    np.testing.assert_allclose(shown.coef, plain.coef, atol=1e-8)
    np.testing.assert_array_equal(shown.lams, plain.lams)
    assert shown.coef.shape == plain.coef.shape == (7, P)


@pytest.mark.parametrize("mode", ["warm", "vmap"])
@pytest.mark.parametrize("limit", [{"max_nonzeros": 3}, {"max_dev_ratio": 0.5}], ids=["nonzeros", "deviance"])
def test_an_early_stop_is_followed_by_nothing(limit, mode):
    full = l1jax.path(LASSO, num=7, tol=1e-10)
    said = l1jax.path(LASSO, num=7, tol=1e-10, mode=mode, **limit)
    reached = np.asarray(full.df) >= 3 if "max_nonzeros" in limit else np.asarray(full.dev_ratio) >= 0.5
    last = int(np.argmax(reached))
    assert reached.any()
    assert last < 6
    np.testing.assert_allclose(said.coef[: last + 1], full.coef[: last + 1], atol=1e-4)
    assert np.all(said.converged[: last + 1])
    for part in (said.coef, said.intercept, said.gap, said.objective):
        assert np.all(np.isnan(part[last + 1 :]))
    assert not np.any(said.converged[last + 1 :])


# -- transformations of JAX


def test_vmap_over_data_weights_lambda_and_nested_is_a_loop():
    rng = np.random.default_rng(9)
    ys = jnp.asarray(Y["squared"] + rng.normal(size=(2, N)))
    weights = jnp.asarray(rng.uniform(0.5, 2, size=(2, N)))
    xs = jnp.asarray(X + 0.1 * rng.normal(size=(2, N, P)))
    lams = jnp.array([0.3, 0.1])

    def coef(x, y, w, lam):
        return l1jax.solve(l1jax.Problem(x, y, penalty=l1jax.L1(lam), sample_weight=w), tol=1e-12).coef

    nested = coef
    for axis in reversed(range(4)):
        nested = jax.vmap(nested, in_axes=tuple(0 if k == axis else None for k in range(4)))
    all_of_them = jax.jit(nested)(xs, ys, weights, lams)
    assert all_of_them.shape == (2, 2, 2, 2, P)
    for i, j, k, m in itertools.product(range(2), repeat=4):
        want = Case(np.asarray(xs[i]), np.asarray(ys[j]), float(lams[m]), weights=np.asarray(weights[k])).oracle()
        np.testing.assert_allclose(all_of_them[i, j, k, m], want.minimiser()[0].astype(float), atol=1e-5)


@contextlib.contextmanager
def compilations():
    """Counts the programs compiled within."""
    seen = []

    class Handler(logging.Handler):
        def emit(self, record):
            if "Finished XLA compilation" in record.getMessage():
                seen.append(record.getMessage())

    handler, logger = Handler(), logging.getLogger("jax._src.dispatch")
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            yield seen
    finally:
        logger.removeHandler(handler)


@pytest.mark.filterwarnings("default")
def test_one_compilation_serves_all_values():
    @jax.jit
    def run(x, y, lams, tol):
        return l1jax.path(l1jax.Problem(x, y, penalty=l1jax.L1(1.0)), lams=lams, tol=tol).coef

    args = [
        (jnp.asarray(X) * c, jnp.asarray(Y["squared"]) + c, jnp.asarray(LAMS) * c, t)
        for c, t in [(1.0, 1e-6), (2.0, 1e-9), (0.5, 1e-3)]
    ]
    with compilations() as first:
        jax.block_until_ready(run(*args[0]))
    assert first
    with compilations() as more:
        jax.block_until_ready([run(*a) for a in args[1:]])
    assert not more
    assert run._cache_size() == 1
    l1jax.solve(LASSO)
    l1jax.path(LASSO, lams=LAMS)
    others = [dataclasses.replace(LASSO, y=LASSO.y * c, penalty=l1jax.L1(0.1 * c)) for c in (2.0, 0.5)]
    with compilations() as eager:
        for k, other in enumerate(others):
            l1jax.solve(other, tol=10.0 ** -(5 + k), max_steps=1000 + k)
            l1jax.path(other, lams=LAMS / (k + 2), tol=10.0 ** -(5 + k))
    assert not eager


def test_a_jitted_path_is_the_path():
    jitted = jax.jit(lambda problem: l1jax.path(problem, num=7, tol=1e-11))(LASSO)
    eager = l1jax.path(LASSO, num=7, tol=1e-11)
    np.testing.assert_allclose(jitted.lams, eager.lams, rtol=1e-12)
    np.testing.assert_allclose(jitted.coef, eager.coef, atol=1e-5)
    assert np.all(jitted.converged)


# -- float32 and half precision

LOW = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": jnp.bfloat16,
}


@pytest.mark.parametrize("kind", LOW)
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_low_precision_data_is_solved_in_float32(kind, loss):
    rounded, y = (np.asarray(jnp.asarray(a).astype(LOW[kind]).astype(jnp.float64)) for a in (X, Y[loss]))
    case = Case(rounded, y, 0.05, loss=loss)
    low = l1jax.Problem(
        jnp.asarray(X).astype(LOW[kind]),
        jnp.asarray(Y[loss]).astype(LOW[kind]),
        loss=case.problem().loss,
        penalty=l1jax.L1(0.05),
    )
    found = l1jax.solve(low)
    assert found.coef.dtype == jnp.float32
    assert found.tol == np.float32(1e-5)
    assert found.converged
    oracle = case.oracle()
    assert not oracle.false_certificate(found.coef, found.intercept, found.tol, np.finfo(np.float32).eps)
    np.testing.assert_allclose(found.coef, oracle.minimiser()[0].astype(float), atol=0.01)


def test_the_main_flow_with_x64_off(float32):
    problem = l1jax.Problem(*diabetes(), penalty=l1jax.L1(1.0), names=l1jax.datasets.diabetes().names)
    path = l1jax.path(problem)
    assert path.coef.dtype == jnp.float32
    assert np.all(path.converged)
    X, y = (a.astype(np.float32) for a in diabetes())
    for k in range(0, 100, 11):
        oracle = Case(X, y, float(path.lams[k])).oracle()
        assert not oracle.false_certificate(path.coef[k], path.intercept[k], path.tol[k], np.finfo(np.float32).eps)
    assert l1jax.predict(path, problem.X).dtype == jnp.float32
    assert float(path.dev_ratio[-1]) == pytest.approx(0.5177, abs=1e-3)  # R^2 of least squares on these data


# -- derivatives


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_derivatives_of_solutions_are_those_of_finite_differences(loss):
    lam, given = 0.05, jnp.asarray(Y[loss])
    direction = jnp.asarray(np.random.default_rng(10).normal(size=(N, P)))
    move = jnp.asarray(np.random.default_rng(11).normal(size=N)) * (1.0 if loss == "squared" else 0.0)

    def answer(t):
        """Along t, lam, X and y move together; three separate directions."""
        posed = l1jax.Problem(
            jnp.asarray(X) + t[1] * direction,
            given + t[2] * move,
            loss=LOGIT.loss if loss == "logistic" else LASSO.loss,
            penalty=l1jax.L1(lam + t[0]),
        )
        found = l1jax.solve(posed, tol=1e-15, max_steps=3000)
        return jnp.append(found.coef, found.intercept)

    answer = jax.jit(answer)
    zero = jnp.zeros(3)
    forward, reverse = jax.jacfwd(answer)(zero), jax.jacrev(answer)(zero)
    h = 1e-4
    numeric = np.stack([(answer(zero.at[k].set(h)) - answer(zero.at[k].set(-h))) / (2 * h) for k in range(3)], axis=1)
    assert np.any(np.abs(numeric[:, 0]) > 0.1)
    np.testing.assert_allclose(forward, numeric, atol=2e-4 * np.max(np.abs(numeric)))
    np.testing.assert_allclose(reverse, forward, atol=1e-8 * np.max(np.abs(numeric)))
