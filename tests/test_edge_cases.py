"""Strange but legal data: the right answer, or an honest converged=False. Every claim is checked in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, assemble, response, slope_at_zero

import l1jax

N, P = 30, 8
RNG = np.random.default_rng(12)
X = RNG.normal(size=(N, P))
ETA = X @ np.where(np.arange(P) < 3, 1.0, 0.0)
Y = {loss: response(RNG, ETA, loss) for loss in ("squared", "logistic")}
DTYPES = [np.float64, np.float32]
OFTEN = 2.0 ** np.where(np.arange(P) % 2, 40, -40)


def with_columns(**columns):
    changed = X.copy()
    for k, column in columns.items():
        changed[:, int(k[1:])] = column
    return changed


DESIGNS = {  # name: (X, whether it must converge in every dtype)
    "ordinary": X,
    "zero column": with_columns(c0=0.0),
    "constant column": with_columns(c0=0.1),
    "all columns constant but one": np.where(np.arange(P) == 1, X, 3.7),
    "all columns zero": 0 * X,
    "duplicate columns": with_columns(c1=X[:, 0], c5=X[:, 0]),
    "opposite columns": with_columns(c1=-X[:, 0]),
    "all columns the same": np.repeat(X[:, :1], P, axis=1),
    "times 1e-20": X * 1e-20,
    "times 1e20": X * 1e20,
    "columns from 1e-12 to 1e12": X * OFTEN,
    "integers": np.round(3 * X),
    "truth values": (X > 0).astype(float),
    "one row differs": np.where(np.arange(N)[:, None] == 3, X, 1.0),
}


@functools.cache
def solver(loss, fit_intercept, standardize, dtype):
    def solve(values):
        return l1jax.solve(assemble(values, loss, fit_intercept, standardize))

    return jax.jit(jax.vmap(solve))


def solve_all(cases):
    """Solutions of cases of one setting, in one batch; each claim checked."""
    case = cases[0]
    run = solver(case.loss, case.fit_intercept, case.standardize, case.dtype)
    values = tuple(np.stack(part) for part in zip(*(c.values() for c in cases), strict=True))
    found = jax.device_get(run(values))
    results = [jax.tree.map(lambda a, k=k: a[k], found) for k in range(len(cases))]
    for c, result in zip(cases, results, strict=True):
        honest(c, result)
    return results


def honest(case, result):
    assert result.converged == (result.gap <= result.tol)
    assert not (
        result.converged
        and case.oracle().false_certificate(result.coef, result.intercept, result.tol, np.finfo(case.dtype).eps)
    )


SETTINGS = [("squared", True, False), ("squared", False, True), ("logistic", True, True)]
SETTING_IDS = ["squared-intercept", "squared-standardize", "logistic-intercept-standardize"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("loss", "fit_intercept", "standardize"), SETTINGS, ids=SETTING_IDS)
def test_strange_columns_have_right_answers(loss, fit_intercept, standardize, dtype):
    cases = {}
    for name, design in DESIGNS.items():
        for ratio in (1.0, 0.5):
            case = Case(
                design,
                Y[loss],
                0.0,
                ratio=ratio,
                loss=loss,
                fit_intercept=fit_intercept,
                standardize=standardize,
                dtype=dtype,
            )
            cases[name, ratio] = dataclasses.replace(case, lam=slope_at_zero(case) / 10)
    for (name, ratio), found in zip(cases, solve_all(list(cases.values())), strict=True):
        assert found.converged, (name, ratio, found.gap)
        constant = np.all(DESIGNS[name] == DESIGNS[name][0], axis=0)
        if fit_intercept or standardize:
            assert np.all(found.coef[constant] == 0), (name, ratio)
        if not constant.all() and ratio == 1:
            assert np.any(found.coef != 0), (name, ratio)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("loss", "fit_intercept", "standardize"), SETTINGS, ids=SETTING_IDS)
def test_scaling_x_scales_the_coefficients(loss, fit_intercept, standardize, dtype):
    """Scaled by a power of two, and lam with it (unless columns are standardised), nothing else changes."""
    case = Case(X, Y[loss], 0.0, loss=loss, fit_intercept=fit_intercept, standardize=standardize, dtype=dtype)
    case = dataclasses.replace(case, lam=slope_at_zero(case) / 10)
    scales = 2.0 ** np.array([0, 66, -66, 20])
    scaled = [dataclasses.replace(case, X=X * c, lam=case.lam * (1 if standardize else c)) for c in scales]
    plain, *others = solve_all(scaled)
    assert plain.converged
    for c, found in zip(scales[1:], others, strict=True):
        assert found.converged
        np.testing.assert_allclose(found.coef * dtype(c), plain.coef, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(found.intercept, plain.intercept, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_y_of_any_size(fit_intercept, dtype):
    """The answer scales with y, as long as the squares that make P0 have all their digits; else nothing is claimed."""
    low, top = (1e-15, 1e16) if dtype == np.float32 else (1e-140, 1e140)
    sizes = [low / 1e5, low, 1e-3, 1e3, top, top * 100]
    case = Case(X, Y["squared"], 0.0, fit_intercept=fit_intercept, dtype=dtype)
    lam = slope_at_zero(case) / 10
    cases = [dataclasses.replace(case, y=case.y * c, lam=lam * c) for c in (1.0, *sizes)]
    plain, *others = solve_all(cases)
    assert plain.converged
    for c, found in zip(sizes, others, strict=True):
        if low <= c <= top:
            assert found.converged, c
            np.testing.assert_allclose(found.coef / dtype(c), plain.coef, rtol=1e-2, atol=1e-3)


def test_tiny_y_in_float32_is_no_zero_gap():
    """y^2 underflows: P0 is 0 in float32 though y is not constant."""
    case = Case(X, Y["squared"] * 1e-30, 0.0, dtype=np.float32)
    for lam in (0.0, slope_at_zero(case) / 10, 2 * slope_at_zero(case)):
        found = l1jax.solve(dataclasses.replace(case, lam=lam).problem())
        honest(dataclasses.replace(case, lam=lam), found)
        wrong = l1jax.duality_gap(dataclasses.replace(case, lam=lam).problem(), np.full(P, 1e-30), 0.0)
        assert not wrong <= 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e10])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_a_constant_y_has_coefficients_0_and_gap_0(value, dtype, weighted):
    weights = RNG.uniform(0.2, 3, size=N) if weighted else None
    for lam in (0.0, 0.1):
        case = Case(X, np.full(N, value), lam, dtype=dtype, weights=weights)
        found = l1jax.solve(case.problem())
        assert np.all(found.coef == 0)
        assert found.gap == 0
        assert found.converged
        assert found.df == 0
        assert found.dev_ratio == 0
        np.testing.assert_allclose(found.intercept, dtype(value), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("mean", "sure"), [(1e2, True), (1e4, False)], ids=["1e2", "1e4"])
@pytest.mark.parametrize("where", ["X", "y", "both"])
def test_large_means(where, mean, sure, dtype):
    """mean/sd = 1e4 leaves three digits in float32: the certificate must know."""
    cases = []
    for standardize in (False,):
        for share in (0.5, 0.1, 0.01):
            case = Case(
                X + mean * (where != "y"),
                Y["squared"] + mean * (where != "X"),
                0.0,
                standardize=standardize,
                dtype=dtype,
            )
            cases.append(dataclasses.replace(case, lam=share * slope_at_zero(case)))
    for found in solve_all(cases):
        assert found.converged or not (sure or dtype == np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_infinite_factors_are_zeros_for_every_lambda(lam, dtype):
    factors = np.where(np.arange(P) % 2, np.inf, 1.0)
    case = Case(X, Y["squared"], lam, factors=factors, dtype=dtype)
    (found,) = solve_all([case])
    assert found.converged
    assert np.all(found.coef[1::2] == 0)
    assert np.all(found.coef[0:3:2] != 0)
    if lam == 0:
        design = np.column_stack([X[:, ::2], np.ones(N)])
        want = np.linalg.lstsq(design, Y["squared"], rcond=None)[0]
        np.testing.assert_allclose(found.coef[::2], want[:-1], atol=1e-2 if dtype == np.float32 else 1e-6)


SMALL = {
    "n = 1, p = 1": (1, 1),
    "n = 1": (1, 8),
    "n = 2": (2, 8),
    "p = 1": (30, 1),
    "p >> n": (5, 60),
}


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_small_and_wide_problems(name, fit_intercept):
    n, p = SMALL[name]
    rng = np.random.default_rng(13)
    x, y = rng.normal(size=(n, p)), rng.normal(size=n)
    for lam in (0.3, 0.01, 0.0):
        problem = l1jax.Problem(x, y, penalty=l1jax.L1(lam), fit_intercept=fit_intercept)
        found = l1jax.solve(problem)
        oracle = Case(x, y, lam, fit_intercept=fit_intercept).oracle()
        if lam:
            assert found.converged
        assert not (found.converged and oracle.false_certificate(found.coef, found.intercept, found.tol, 2.3e-16))
        if n == 1 and fit_intercept:
            assert np.all(found.coef == 0)
            np.testing.assert_allclose(found.intercept, y[0], rtol=1e-12)


def test_one_row_without_intercept_is_a_soft_threshold():
    found = l1jax.solve(l1jax.Problem([[2.0]], [3.0], penalty=l1jax.L1(1.0), fit_intercept=False), tol=1e-14)
    np.testing.assert_allclose(found.coef, [(2 * 3 - 1) / 4], rtol=1e-12)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.bool_], ids=lambda kind: kind.__name__)
def test_whole_numbers_are_data(kind):
    counts = np.random.default_rng(14).integers(0, 2 if kind is np.bool_ else 9, size=(N, P)).astype(kind)
    y = np.round(10 * Y["squared"]).astype(np.int64)
    found = l1jax.solve(l1jax.Problem(counts, y, penalty=l1jax.L1(0.5)))
    assert found.coef.dtype == jnp.float64
    assert found.converged
    assert (
        not Case(counts.astype(float), y.astype(float), 0.5)
        .oracle()
        .false_certificate(found.coef, found.intercept, found.tol, 2.3e-16)
    )


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_rows_of_weight_0_are_as_if_left_out(loss):
    weights = np.where(np.arange(N) < 20, 1.0, 0.0)
    wild = np.where(np.arange(N)[:, None] < 20, X, 1e6 * X)
    case = Case(wild, Y[loss], 0.05, weights=weights, loss=loss)
    (found,) = solve_all([dataclasses.replace(case, fit_intercept=True)])
    fewer = Case(X[:20], Y[loss][:20], 0.05, loss=loss).oracle()
    assert found.converged
    assert fewer.gap(found.coef, found.intercept) <= 2e-6


def test_labels_of_minus_one_and_one_are_read_as_zero_and_one():
    given = {"loss": l1jax.Logistic(), "penalty": l1jax.L1(0.03)}
    a, b = (l1jax.solve(l1jax.Problem(X, y, **given)) for y in (Y["logistic"], 2 * Y["logistic"] - 1))
    np.testing.assert_array_equal(a.coef, b.coef)


@pytest.mark.parametrize("standardize", [False, True])
def test_bounds_hold_exactly(standardize):
    lower, upper = -np.full(P, 0.1), np.linspace(0.05, 0.4, P) / 3
    case = Case(X * np.linspace(0.3, 3, P), Y["squared"], 0.001, lower=lower, upper=upper, standardize=standardize)
    found = l1jax.solve(case.problem())
    assert found.converged
    assert np.sum(np.isclose(found.coef, upper, rtol=1e-12)) >= 2
    assert np.all(found.coef >= lower)
    assert np.all(found.coef <= upper)
