"""The certificate: a bound that holds at every point, sharp only at solutions; and where the path starts."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from cases import LOSSES, Case, assemble, response, slope_at_zero

import l1jax

N, P = 30, 8
RNG = np.random.default_rng(6)
X = RNG.normal(size=(N, P)) * 10.0 ** RNG.uniform(-1, 1, size=P) + 1.0
ETA = (X - 1) @ np.where(np.arange(P) < 4, 1 / X.std(axis=0), 0) / 2
Y = {loss: response(RNG, ETA, loss) for loss in LOSSES}
WEIGHTS = RNG.uniform(0.2, 3, size=N) * (np.arange(N) % 7 != 0)
OFFSET = RNG.normal(size=N) / 2
FREE = np.where(np.arange(P) % 4 == 1, 0.0, RNG.uniform(0.5, 2, size=P))
REACH = 0.3 / X.std(axis=0)

SHAPES = {  # what the penalty is besides lam
    "l1": {},
    "elastic net": {"ratio": 0.5},
    "l2": {"ratio": 0.0},
    "factors": {"factors": np.where(np.arange(P) == 2, np.inf, np.linspace(0.5, 2, P))},
    "zero factors": {"factors": FREE},
    "zero factors, elastic net": {"factors": FREE, "ratio": 0.5},
    "nonnegative": {"lower": 0.0},
    "nonnegative, zero factors": {"lower": 0.0, "factors": FREE},
    "bounds": {"lower": -REACH, "upper": REACH / 2},
    "bounds, zero factors": {"lower": -REACH, "upper": REACH / 2, "factors": FREE},
    "bounds that exclude 0": {"lower": REACH / 4, "upper": REACH},
    "no penalty": {"factors": 0.0},
}
DATA = {
    "plain": {},
    "weights": {"weights": WEIGHTS},
    "offset": {"offset": OFFSET},
    "weights and offset": {"weights": WEIGHTS, "offset": OFFSET},
}
STATIC = [("squared", True, False), ("squared", False, True), ("logistic", True, True), ("logistic", False, False)]
STATIC_IDS = [f"{loss}{'-intercept' * b}{'-standardize' * s}" for loss, b, s in STATIC]


def cases_of(loss, fit_intercept, standardize):
    """Each shape of penalty, at two strengths, the data in turn plain, weighted, with an offset."""
    found = {}
    data = itertools.cycle(DATA)
    for shape, share in itertools.product(SHAPES, [0.3, 0.01]):
        kind = next(data)
        case = Case(
            X,
            Y[loss],
            0.0,
            loss=loss,
            fit_intercept=fit_intercept,
            standardize=standardize,
            **{"factors": 1.0, **SHAPES[shape]},
            **DATA[kind],
        )
        case = dataclasses.replace(case, lam=share * slope_at_zero(case))
        found[f"{shape}, {share}, {kind}"] = case
    return found


@functools.cache
def tools(loss, fit_intercept, standardize):
    """Batched solve and gaps: values -> Result; values, coefs (m, p), intercepts (m,) -> gaps (m,)."""
    pose = functools.partial(assemble, loss=loss, fit_intercept=fit_intercept, standardize=standardize)

    def solve(values):
        return l1jax.solve(pose(values), tol=1e-11)

    def gaps(values, coefs, intercepts):
        return jax.vmap(lambda c, b: l1jax.duality_gap(pose(values), c, b))(coefs, intercepts)

    return jax.jit(jax.vmap(solve)), jax.jit(jax.vmap(gaps))


def perturbed(case, coef, intercept, rng):
    """Points near and far from a solution, within the bounds."""
    coefs, intercepts = [coef], [intercept]
    for size in 10.0 ** np.arange(-9, 2):
        for keep in (0.0, 1.0):  # with and without the zeros
            move = rng.normal(size=P) * size / X.std(axis=0)
            moved = coef + np.where((coef == 0) & (keep == 1), 0, move)
            pinned = np.isinf(np.broadcast_to(case.factors, P))
            lower, upper = np.where(pinned, 0, case.lower), np.where(pinned, 0, case.upper)
            coefs.append(np.clip(moved, lower, upper))
            shift = rng.normal() * size - (moved - coef) @ X.mean(axis=0)
            intercepts.append(intercept + shift if case.fit_intercept else 0.0)
    return np.array(coefs), np.array(intercepts)


@pytest.mark.parametrize(("loss", "fit_intercept", "standardize"), STATIC, ids=STATIC_IDS)
def test_the_gap_bounds_the_suboptimality_everywhere_and_vanishes_only_at_solutions(loss, fit_intercept, standardize):
    rng = np.random.default_rng(7)
    cases = cases_of(loss, fit_intercept, standardize)
    values = tuple(np.stack(part) for part in zip(*(case.values() for case in cases.values()), strict=True))
    solve, gaps = tools(loss, fit_intercept, standardize)
    found = jax.device_get(solve(values))
    points = [
        perturbed(case, c, b, rng) for case, c, b in zip(cases.values(), found.coef, found.intercept, strict=True)
    ]
    claimed = np.asarray(gaps(values, *(np.stack(part) for part in zip(*points, strict=True))))
    for k, (name, case) in enumerate(cases.items()):
        oracle = case.oracle()
        assert found.converged[k] == (found.gap[k] <= found.tol[k])
        if not oracle.attained:  # separable classes without a penalty: no minimiser, and no bound
            assert found.gap[k] == np.inf, name
            continue
        assert found.converged[k], name
        assert oracle.gap(found.coef[k], found.intercept[k]) <= 1e-11 + 64 * np.finfo(float).eps, name
        assert oracle.residual(found.coef[k], found.intercept[k]) < 1e-4, name
        null = float(oracle.null_objective)
        least = oracle.objective(*oracle.minimiser(found.coef[k], found.intercept[k]))
        least = min(least, oracle.objective(found.coef[k], found.intercept[k]))
        for coef, intercept, gap in zip(*points[k], claimed[k], strict=True):
            true = float(oracle.objective(coef, intercept) - least) / null
            assert gap >= true - 64 * np.finfo(float).eps * max(1, true), name
            if true > 1e-12:
                assert gap > 0, name


@pytest.mark.parametrize(("loss", "fit_intercept", "standardize"), STATIC, ids=STATIC_IDS)
def test_lambda_max_is_sharp_on_both_sides(loss, fit_intercept, standardize):
    """There the null model (every priced coefficient 0) meets the optimality conditions; a millionth below, it doesn't.

    And so it is with solutions: exact zeros at lambda_max, none a ten-thousandth below.
    """
    cases = {
        name: case
        for name, case in cases_of(loss, fit_intercept, standardize).items()
        if np.all(np.asarray(case.lower) <= 0) and case.ratio > 0 and np.any(np.asarray(case.factors) > 0)
    }
    values = tuple(np.stack(part) for part in zip(*(case.values() for case in cases.values()), strict=True))

    def ends(values):
        problem = assemble(values, loss, fit_intercept, standardize)
        lam = l1jax.lambda_max(problem)

        def at(lam):
            posed = dataclasses.replace(problem, penalty=problem.penalty.with_lam(lam))
            return l1jax.solve(posed, tol=1e-15, max_steps=20_000).coef

        return lam, jax.vmap(at)(lam * np.array([1.0, 1 - 1e-4]))

    lams, coefs = jax.device_get(jax.jit(jax.vmap(ends))(values))
    for k, (name, case) in enumerate(cases.items()):
        priced = np.broadcast_to(case.factors, P) > 0
        null = dataclasses.replace(case, factors=np.where(priced, np.inf, case.factors)).oracle().minimiser()
        residuals = [dataclasses.replace(case, lam=lams[k] * c).oracle().residual(*null) for c in (1.0, 1 - 1e-6)]
        assert residuals[0] < 5e-8, name
        assert residuals[1] > 5e-8, name
        at, below = coefs[k]
        if "zero factors" in name and (np.isfinite(case.lower) | np.isfinite(case.upper)).any():
            assert np.max(np.abs(at[priced]) * X.std(axis=0)[priced]) < 1e-6, name  # an unpriced one may be at a bound
        else:
            assert np.all(at[priced] == 0), name
        assert np.any(below[priced] != 0), name


def test_separable_classes_without_penalty_have_no_bound():
    y = (X[:, 0] > np.median(X[:, 0])).astype(float)
    problem = l1jax.Problem(X, y, loss=l1jax.Logistic(), penalty=l1jax.NoPenalty())
    found = l1jax.solve(problem, max_steps=200, tol=1e-8)
    assert found.gap == np.inf
    assert not found.converged
    assert l1jax.duality_gap(problem, np.ones(P)) == np.inf


def test_lambda_max_of_the_lasso_is_the_largest_correlation():
    problem = l1jax.Problem(X, Y["squared"], penalty=l1jax.L1(0.1))
    centred = X - X.mean(axis=0)
    want = np.max(np.abs(centred.T @ Y["squared"])) / N
    np.testing.assert_allclose(l1jax.lambda_max(problem), want, rtol=1e-12)
    half = dataclasses.replace(problem, penalty=l1jax.ElasticNet(0.1, l1_ratio=0.5))
    np.testing.assert_allclose(l1jax.lambda_max(half), 2 * want, rtol=1e-12)
    twice = dataclasses.replace(problem, penalty=l1jax.Factors(l1jax.L1(0.1), np.full(P, 2.0)))
    np.testing.assert_allclose(l1jax.lambda_max(twice), want / 2, rtol=1e-12)
    signs = dataclasses.replace(problem, penalty=l1jax.NonNegative(l1jax.L1(0.1)))
    np.testing.assert_allclose(l1jax.lambda_max(signs), np.max(centred.T @ Y["squared"]) / N, rtol=1e-12)


@pytest.mark.parametrize(("penalty", "want"), [(l1jax.L2(0.1), np.inf), (l1jax.NoPenalty(), 0.0)], ids=["l2", "none"])
def test_lambda_max_where_there_is_no_such_lambda(penalty, want):
    assert l1jax.lambda_max(l1jax.Problem(X, Y["squared"], penalty=penalty)) == want


@pytest.mark.parametrize(("rows", "ratio"), [(N, 1e-4), (P, 1e-2), (P + 1, 1e-4)], ids=["tall", "square", "just tall"])
def test_lambda_grid_runs_from_lambda_max_down_evenly_in_the_logarithm(rows, ratio):
    problem = l1jax.Problem(X[:rows], Y["squared"][:rows], penalty=l1jax.L1(0.1))
    grid = np.asarray(l1jax.lambda_grid(problem))
    assert grid.shape == (100,)
    assert grid[0] == l1jax.lambda_max(problem)
    np.testing.assert_allclose(grid[-1] / grid[0], ratio, rtol=1e-12)
    np.testing.assert_allclose(np.diff(np.log(grid)), np.log(ratio) / 99, rtol=1e-9)
    np.testing.assert_array_equal(l1jax.lambda_grid(problem, num=1), grid[:1])


@pytest.mark.parametrize("l1_ratio", [0.0, 1e-6, 1e-3], ids=str)
def test_nearly_smooth_penalties_start_where_an_l1_ratio_of_one_in_a_thousand_would(l1_ratio):
    problem = l1jax.Problem(X, Y["squared"], penalty=l1jax.ElasticNet(0.1, l1_ratio))
    lasso = l1jax.lambda_max(dataclasses.replace(problem, penalty=l1jax.L1(0.1)))
    np.testing.assert_allclose(l1jax.lambda_grid(problem, num=2)[0], 1000 * lasso, rtol=1e-9)


OUTSIDE = l1jax.Bounds(l1jax.L1(0.1), lower=1.0, upper=2.0)
NO_GRID = {
    "no penalty": (l1jax.NoPenalty(), Y["squared"], l1jax.lambda_grid, "lambda_max is 0"),
    "all factors 0": (l1jax.Factors(l1jax.L1(0.1), np.zeros(P)), Y["squared"], l1jax.lambda_grid, "lambda_max is 0"),
    "constant y": (l1jax.L1(0.1), np.full(N, 0.1), l1jax.lambda_grid, "lambda_max is 0"),
    "bounds exclude 0": (OUTSIDE, Y["squared"], l1jax.lambda_grid, "exclude 0"),
    "bounds exclude 0, lambda_max": (OUTSIDE, Y["squared"], l1jax.lambda_max, "exclude 0"),
    "bounds exclude 0, path": (OUTSIDE, Y["squared"], l1jax.path, "exclude 0"),
    "no penalty, path": (l1jax.NoPenalty(), Y["squared"], l1jax.path, "lambda_max is 0"),
}


@pytest.mark.parametrize("name", NO_GRID)
def test_where_there_is_no_grid_it_says_so(name):
    penalty, y, verb, words = NO_GRID[name]
    with pytest.raises(ValueError, match=words):
        verb(l1jax.Problem(X, y, penalty=penalty))


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9, 1e-13, 0.0], ids=str)
def test_converged_is_exactly_gap_at_most_tol(tol):
    problem = l1jax.Problem(X, Y["squared"], penalty=l1jax.L1(0.05))
    for max_steps in (0, 1, 3, 1000):
        found = l1jax.solve(problem, tol=tol, max_steps=max_steps)
        assert found.tol == tol
        assert found.converged == (found.gap <= tol)


def test_the_gap_of_a_result_is_that_of_its_point():
    problem = l1jax.Problem(X, Y["squared"], penalty=l1jax.L1(0.05))
    early = l1jax.solve(problem, solver="cd", max_steps=1, tol=0.0)
    np.testing.assert_allclose(l1jax.duality_gap(problem, early.coef, early.intercept), early.gap, rtol=1e-9)
    assert l1jax.duality_gap(problem, early.coef, early.intercept + 1) > early.gap + 0.1
    np.testing.assert_allclose(l1jax.duality_gap(problem, early.coef), early.gap, rtol=1e-9)


@pytest.mark.parametrize("coef", [-0.1, 2.0])
def test_a_point_outside_its_bounds_has_no_bound(coef):
    penalty = l1jax.Bounds(l1jax.L1(0.1), lower=0.0, upper=1.0)
    assert l1jax.duality_gap(l1jax.Problem(X, Y["squared"], penalty=penalty), np.full(P, coef)) == np.inf
