"""Stability selection: plain loops, the bounds' own optimisation problem, and what keys promise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

import l1jax
from l1jax.selection.false_selections import concave_tail, false_selections

N, P, LAMS = 31, 5, np.array([0.1, 0.8, 0.3])
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, P))
    y = X @ [3.0, 0.3, 0, 0, 0] + rng.normal(size=N)
    return l1jax.Problem(X, y, penalty=l1jax.L1(1.0), sample_weight=rng.uniform(0.5, 2, N))


def supports(problem, rows):
    """Nonzeros, (L, p), of the path on some of the rows, drawn once or more."""
    lams = np.sort(LAMS)[::-1]
    fits = [
        l1jax.path(dataclasses.replace(problem, sample_weight=problem.sample_weight * w.astype(float)), lams=lams)
        for w in rows
    ]
    on = np.stack([np.asarray(fit.coef) != 0 for fit in fits])
    return on.mean(axis=0), np.maximum.accumulate(on, axis=1).mean(axis=0)


def test_pairs_are_disjoint_halves_and_shares_are_counts(problem):
    found = l1jax.stability_selection(problem, key=KEY, pairs=4, lams=LAMS)
    rows = []
    for b in range(4):
        place = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, b), N))
        rows += [place < N // 2, (place >= N // 2) & (place < N // 2 * 2)]
    assert all(a.sum() == b.sum() == N // 2 and not np.any(a & b) for a, b in zip(rows[::2], rows[1::2], strict=True))
    frequencies, entered = supports(problem, rows)
    np.testing.assert_allclose(found.frequencies, frequencies)
    np.testing.assert_allclose(found.entered, entered)
    np.testing.assert_allclose(found.average, entered.sum(axis=1))
    np.testing.assert_array_equal(found.lams, np.sort(LAMS)[::-1])
    more = l1jax.stability_selection(problem, key=KEY, pairs=8, lams=LAMS)
    rest = np.round(16 * np.asarray(more.entered) - 8 * entered)
    assert np.all((rest >= 0) & (rest <= 8))  # the first four pairs are the same
    traced = jax.jit(lambda problem, key: l1jax.stability_selection(problem, key=key, pairs=4, lams=LAMS))(problem, KEY)
    np.testing.assert_allclose(traced.entered, entered)
    assert "coef[0] 1.00" in repr(found)


def test_bootstraps_are_counts(problem):
    found = l1jax.bootstrap_support(problem, key=KEY, count=4, lams=LAMS)
    drawn = [np.asarray(jax.random.randint(jax.random.fold_in(KEY, k), (N,), 0, N)) for k in range(4)]
    frequencies, _ = supports(problem, [np.bincount(rows, minlength=N) for rows in drawn])
    np.testing.assert_allclose(found.frequencies, frequencies)
    with pytest.raises(ValueError, match="complementary pairs only"):
        found.bound(0.9)


def test_permuted_lambda_max_is_a_loop(problem):
    found = l1jax.permuted_lambda_max(problem, key=KEY, count=5)
    X, y, w = (np.asarray(a) for a in (problem.X, problem.y, problem.sample_weight))
    for k in range(5):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, k), N))
        s = w[order] / w.sum()
        assert float(found[k]) == pytest.approx(np.max(np.abs(X.T @ (s * (y[order] - s @ y[order])))))
    np.testing.assert_array_equal(found[:2], l1jax.permuted_lambda_max(problem, key=KEY, count=2))


@pytest.mark.parametrize(("pairs", "threshold"), [(10, 0.6), (10, 0.75), (10, 0.8), (25, 0.7), (25, 0.9), (50, 1.0)])
@pytest.mark.parametrize("theta", [0.05, 0.2, 0.4])
def test_the_bound_holds_for_every_unimodal_share(pairs, threshold, theta):
    """The greatest chance that the share of pairs in which both halves select, of mean theta^2, reaches 2*threshold-1.

    A linear programme over the unimodal distributions on {0, 1/B, ..., 1}: those of each mode are mixtures of uniform
    ones around it. The bound is theirs, by the theorem: never below what some such distribution reaches.
    """
    at = np.arange(pairs + 1) / pairs
    uniform = [np.where((at >= at[i]) & (at <= at[j]), 1.0, 0.0) for i in range(pairs + 1) for j in range(i, pairs + 1)]
    mean, tail = [], []
    for u in uniform:
        mean.append(at @ u / u.sum())
        tail.append(np.sum(u[at >= 2 * threshold - 1 - 1e-9]) / u.sum())
    mean, tail, greatest = np.array(mean), np.array(tail), 0.0
    spans = np.array([(i, j) for i in range(pairs + 1) for j in range(i, pairs + 1)])
    for mode in range(pairs + 1):
        around = (spans[:, 0] <= mode) & (mode <= spans[:, 1])
        best = linprog(
            -tail[around], A_ub=mean[around][None], b_ub=[theta**2], A_eq=np.ones((1, around.sum())), b_eq=[1]
        )
        if best.success:
            greatest = max(greatest, -best.fun)
    p = 100
    bound = float(false_selections(jnp.asarray(theta * p), p, pairs, threshold, "unimodal")) / p
    plain = theta**2 / (2 * threshold - 1)
    assert bound <= plain * (1 + 1e-12)
    assert greatest <= bound + 1e-9
    assert bound <= max(3 * greatest, 1.05 * greatest + 1 / pairs) or bound == pytest.approx(plain)


# Greatest chances by the program that Shah and Samworth published with their paper (r_concave_tail.R), for 50 pairs at
# thresholds 0.6, 0.75, 0.9: of both halves, to the power -1/2, and of the halves, to the power -1/4.
PUBLISHED = {
    0.05: ([2.605329e-03, 6.465258e-04, 1.688116e-04], [2.936703e-03, 1.21505e-03, 3.655754e-04]),
    0.1: ([1.141338e-02, 2.8582e-03, 7.524856e-04], [1.486142e-02, 6.52682e-03, 2.044121e-03]),
    0.2: ([5.572047e-02, 1.401161e-02, 3.737142e-03], [6.81369e-02, 3.313351e-02, 1.115878e-02]),
    0.3: ([1.624975e-01, 3.935406e-02, 1.070943e-02], [1.0, 8.294179e-02, 2.998981e-02]),
}


def test_r_concave_tails_are_the_published_ones():
    """To a hundredth, as theirs stops its search early: ours is never the smaller."""
    theta = jnp.array(list(PUBLISHED))
    both, each = np.array(list(PUBLISHED.values())).transpose(1, 2, 0)
    for mean, count, s, least, published in (
        (theta**2, 50, 2, (10, 25, 40), both),
        (theta, 100, 4, (60, 75, 90), each),
    ):
        ours = np.stack([concave_tail(mean, count, jnp.asarray(t), s) for t in least])
        np.testing.assert_allclose(ours, published, rtol=0.011)
        assert np.all(ours >= published * (1 - 1e-6))


def test_no_r_concave_share_exceeds_its_bound(rng):
    """Shares whose probabilities are 1/sqrt of convex functions, 0 beyond ends: tails against those of their means."""
    at, knots, shares = np.arange(51), rng.uniform(-5, 51, (400, 3, 1)), rng.random((400, 1))
    slopes = rng.choice([-1, 0, 1], (400, 3, 1)) * 10 ** rng.uniform(-3, 1, (400, 3, 1))
    convex = np.max(slopes * (at - knots), axis=1) + 10 ** rng.uniform(-2, 2, (400, 1))
    convex -= np.minimum(convex.min(axis=1, keepdims=True), 0) * 1.01
    chances = np.where(at <= 51 * np.maximum(shares, rng.random((400, 1))), np.maximum(convex, 1e-9) ** -2.0, 0)
    chances /= chances.sum(axis=1, keepdims=True)
    mean = chances @ at / 50
    for t in (10, 25, 40, 50):
        bound = np.asarray(concave_tail(jnp.asarray(mean), 50, jnp.asarray(t), 2))
        tails = chances[:, t:].sum(axis=1)
        assert np.all(tails <= bound * (1 + 1e-9))
        assert np.any((bound < 1) & (tails > 0.5 * bound))


def test_what_is_taken_for_granted_tightens_the_bound():
    found = l1jax.Stability(np.zeros((4, 100)), np.zeros((4, 100)), np.array([0.0, 5, 10, 20]), np.ones(4), 100, True)
    free, unimodal, concave = (np.asarray(found.bound(0.75, shape=shape)) for shape in ("any", "unimodal", "r-concave"))
    np.testing.assert_allclose(free, 100 * np.array([0.0, 0.05, 0.1, 0.2]) ** 2 / 0.5)
    assert np.all(unimodal <= free)
    np.testing.assert_allclose(concave[1:3], 100 * np.array([6.465258e-04, 2.8582e-03]), rtol=0.011)
    assert np.all(concave[1:] < 0.6 * unimodal[1:])
    assert concave[0] == 0
    with pytest.raises(ValueError, match="shape: want 'any', 'unimodal', 'r-concave'; got 'bell'"):
        found.bound(0.75, shape="bell")


def test_stable_features_are_those_at_the_last_strength_within_the_bound(problem):
    found = l1jax.stability_selection(problem, key=KEY, pairs=10, num=12)
    bound = np.asarray(found.bound(0.8))
    last = np.flatnonzero(bound <= 0.7)[-1]
    np.testing.assert_array_equal(found.stable(0.8, most=0.7), np.asarray(found.entered)[last] >= 0.8)
    assert bool(found.stable(0.8, most=0.7)[0])
    assert not np.any(found.stable(0.8, most=-1.0))


def test_wrong_arguments(problem):
    with pytest.raises(ValueError, match="pairs: want a whole number"):
        l1jax.stability_selection(problem, key=KEY, pairs=0)
    with pytest.raises(ValueError, match="count: want a whole number"):
        l1jax.permuted_lambda_max(problem, key=KEY, count=1.5)
    with pytest.raises(ValueError, match="threshold: want a number above 1/2"):
        l1jax.stability_selection(problem, key=KEY, pairs=1, lams=LAMS).bound(0.5)
    cox = dataclasses.replace(problem, y=jnp.arange(1.0, N + 1), loss=l1jax.Cox(np.ones(N)), fit_intercept=False)
    with pytest.raises(ValueError, match="Cox holds values of rows"):
        l1jax.permuted_lambda_max(cox, key=KEY)
    several = dataclasses.replace(problem, y=jnp.ones((N, 2)).at[0].set(0.0), loss=l1jax.MultiSquared())
    with pytest.raises(ValueError, match="MultiSquared has more"):
        l1jax.bootstrap_support(several, key=KEY)
