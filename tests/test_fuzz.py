"""No false certificates: hostile problems by the hundred, each claim checked in float64 by an independent oracle."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, assemble, response, slope_at_zero
from hypothesis import Phase, given, settings, strategies as st

import l1jax

BATCH = 24  # problems solved at once, by vmap: one compilation for each setting


class Setting(NamedTuple):
    n: int
    p: int
    loss: str
    fit_intercept: bool
    standardize: bool
    dtype: type
    solver: str = "auto"

    def __str__(self):
        flags = "b" * self.fit_intercept + "s" * self.standardize
        return f"{self.loss}-{self.n}x{self.p}-{flags}-{self.dtype.__name__}-{self.solver}"


SETTINGS = [
    Setting(30, 8, "squared", True, False, np.float64),
    Setting(30, 8, "squared", True, False, np.float32),
    Setting(30, 8, "logistic", True, False, np.float64),
    Setting(30, 8, "logistic", True, False, np.float32),
    Setting(6, 15, "squared", True, True, np.float64, "fista"),
    Setting(6, 15, "squared", False, False, np.float32),
    Setting(6, 15, "logistic", False, True, np.float32),
    Setting(12, 5, "squared", True, True, np.float32),
    Setting(12, 5, "logistic", True, True, np.float64),
    Setting(5, 3, "squared", False, True, np.float32, "fista"),
    Setting(1, 1, "squared", True, False, np.float64),
]
ACTIVE = [
    Setting(30, 8, "squared", True, False, np.float64, "active"),
    Setting(30, 8, "logistic", True, True, np.float32, "active"),
    Setting(6, 15, "squared", True, True, np.float32, "active"),
    Setting(6, 15, "logistic", False, False, np.float64, "active"),
]


def solve(setting, values):
    """(coef, intercept, gap, converged, tol)"""
    problem = assemble(values, setting.loss, setting.fit_intercept, setting.standardize)
    found = l1jax.solve(problem, solver=setting.solver)
    return found.coef, found.intercept, found.gap, found.converged, found.tol


@functools.cache
def solver(setting):
    """The same for a batch of problems, compiled once."""
    return jax.jit(jax.vmap(functools.partial(solve, setting)))


class Knobs(NamedTuple):
    """How hostile a batch is; all zero is a well-scaled random problem."""

    column_scale: int  # columns are multiplied by 2^(-k..k), exactly: duplicates remain duplicates
    column_mean: int  # and moved by 10^k standard deviations
    y_scale: int
    y_mean: int
    offset: int  # offsets of 10^(k-1), 0 for none
    correlation: int  # columns share a part of 1 - 10^-k
    duplicates: bool
    zero_weights: bool
    factors: str  # the kinds that occur: "1", "0", "i" for infinite
    bounds: str  # "-" none, "+" nonnegative, "b" both sides, "x" excluding 0
    ratios: bool  # elastic nets, down to the ridge
    lam: int  # between lambda_max and 10^-k of it; beyond 8, also 0


def draw_case(setting, knobs, rng):
    n, p = setting.n, setting.p
    X = rng.normal(size=(n, p))
    if knobs.correlation:
        shared = 1 - 10.0**-knobs.correlation
        X = np.sqrt(1 - shared) * X + np.sqrt(shared) * rng.normal(size=(n, 1))
    if knobs.duplicates and p > 1:
        X[:, -1] = X[:, 0]
        X[:, p // 2] = rng.choice([0.0, 1.0, 0.1])
    eta = X @ (rng.normal(size=p) * (rng.uniform(size=p) < 0.5)) / np.sqrt(p)
    y = response(rng, eta, setting.loss)
    unit = 1.0
    if setting.loss == "squared":
        unit = 10.0**knobs.y_scale
        y = (y + (10.0**knobs.y_mean if knobs.y_mean else 0.0)) * unit
    X = X + (10.0**knobs.column_mean if knobs.column_mean else 0.0)
    scale = 2.0 ** rng.integers(-abs(knobs.column_scale), abs(knobs.column_scale) + 1, size=p)
    kinds = {"1": 1.0, "0": 0.0, "i": np.inf}
    factors = np.array([kinds[k] for k in rng.choice(list(knobs.factors), size=p)])
    factors = np.where(factors == 1, rng.uniform(0.3, 3, size=p), factors)
    settled = np.isinf(factors) | np.all(X[0] == X, axis=0)  # their coefficients are 0, whatever the bounds
    bounds = np.where(settled, "-", rng.choice(list(knobs.bounds), size=p))
    reach = rng.uniform(0.05, 1, size=p) * unit / scale
    lower = np.select([bounds == "+", bounds == "b", bounds == "x"], [0.0, -reach, reach / 4], -np.inf)
    upper = np.select([bounds == "b", bounds == "x"], [reach / 2, reach], np.inf)
    weights = rng.uniform(0.2, 3, size=n)
    if knobs.zero_weights and n > 4:
        weights[rng.choice(n, size=n // 4, replace=False)] = 0.0
        if setting.loss == "logistic":  # both classes must remain
            weights[[np.argmax(y == 0), np.argmax(y == 1)]] = 1.0
    case = Case(
        X=X * scale,
        y=y,
        lam=0.0,
        ratio=rng.choice([1.0, 0.9, 0.3, 1e-3, 0.0]) if knobs.ratios else 1.0,
        factors=factors,
        lower=lower,
        upper=upper,
        weights=weights,
        offset=rng.normal(size=n) * (unit * 10.0 ** (knobs.offset - 1) if knobs.offset else 0.0),
        loss=setting.loss,
        fit_intercept=setting.fit_intercept,
        standardize=setting.standardize,
        dtype=setting.dtype,
    )
    lam = 10.0 ** -rng.uniform(0, knobs.lam) * slope_at_zero(case)
    if knobs.lam > 8 and rng.uniform() < 0.5:
        lam = 0.0
    largest = np.finfo(setting.dtype).max / 1e3
    return Case(**{**case.__dict__, "lam": min(lam, largest)})


def solve_batch(setting, cases):
    if setting.solver == "active":  # from the host, one by one
        return [jax.device_get(solve(setting, tuple(map(jnp.asarray, case.values())))) for case in cases]
    values = [np.stack(parts) for parts in zip(*(case.values() for case in cases), strict=True)]
    found = jax.device_get(solver(setting)(tuple(values)))
    return [tuple(part[k] for part in found) for k in range(len(cases))]


KNOBS = st.builds(
    Knobs,
    column_scale=st.integers(0, 60),
    column_mean=st.integers(0, 5),
    y_scale=st.integers(-25, 17),
    y_mean=st.integers(0, 5),
    offset=st.integers(0, 4),
    correlation=st.integers(0, 9),
    duplicates=st.booleans(),
    zero_weights=st.booleans(),
    factors=st.sampled_from(["1", "01", "1i", "0", "01i"]),
    bounds=st.sampled_from(["-", "+", "-b", "-+b", "x-", "+x"]),
    ratios=st.booleans(),
    lam=st.integers(1, 10),
)


@pytest.mark.parametrize("setting", SETTINGS + ACTIVE, ids=str)
@settings(max_examples=3, phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False)
@given(knobs=KNOBS, seed=st.integers(0, 2**31))
def test_no_false_certificate(setting, knobs, seed):
    rng = np.random.default_rng(seed)
    cases = [draw_case(setting, knobs, rng) for _ in range(BATCH)]
    for k, (case, (coef, intercept, gap, converged, tol)) in enumerate(
        zip(cases, solve_batch(setting, cases), strict=True)
    ):
        assert converged == (gap <= tol)
        if converged:
            eps = np.finfo(setting.dtype).eps
            false = case.oracle().false_certificate(coef, intercept, tol, eps, proven=True)
            assert not false, f"problem {k}: claims {gap}, but the gap is {case.oracle().gap(coef, intercept)}"


WELL_SCALED = Knobs(0, 0, 0, 0, 0, 0, False, False, "1", "-", False, 3)
FRIENDLY = [
    WELL_SCALED,
    WELL_SCALED._replace(ratios=True),
    WELL_SCALED._replace(bounds="-+b"),
    WELL_SCALED._replace(factors="01", zero_weights=True),
    WELL_SCALED._replace(offset=1, column_scale=3, column_mean=1, y_mean=1),
]


@pytest.mark.parametrize("setting", SETTINGS[:4] + ACTIVE[:2], ids=str)
def test_ordinary_problems_converge(setting):
    """At least 99 % of hundreds of well-scaled random problems, lambda_max/1000 <= lam, at the default tol.

    Those that have no minimiser (classes that unpenalised coefficients separate) are not counted.
    """
    rng = np.random.default_rng(1)
    claims = []
    for knobs in FRIENDLY * 3:
        cases = [draw_case(setting, knobs, rng) for _ in range(BATCH)]
        for case, (coef, intercept, _, converged, tol) in zip(cases, solve_batch(setting, cases), strict=True):
            if case.oracle().attained:
                claims.append(bool(converged))
            if converged:
                assert not case.oracle().false_certificate(coef, intercept, tol, np.finfo(setting.dtype).eps)
    assert len(claims) >= 300
    assert np.mean(claims) >= 0.99
