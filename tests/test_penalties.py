"""Laws that every penalty keeps, each against the formula in tests/registry.py or an oracle made from it."""

import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import FACTORS, INF, PENALTIES, P, least
from scipy.optimize import minimize_scalar

import l1jax
from l1jax import L1, L2, Bounds, ElasticNet, Factors, Masked, NonNegative, NoPenalty, Sum

EPS = np.finfo(float).eps
RNG = np.random.default_rng(5)
KINKS = np.array([-2.5, -1.5, -1, -0.7, -0.5, -0.3, -0.0, 0.0, 0.3, 0.5, 0.7, 1, 1.5, 2, 2.5])
EVERYWHERE = np.concatenate([np.repeat(KINKS[:, None], P, axis=1), RNG.uniform(-5, 5, (9, P))])
STEPS = np.array([0.1, 1.0, 2.5])
S = STEPS[:, None, None]
LAMS = np.array([0.0, 0.3, 2.0])


def priced(case):
    """The coefficients on which the strength has a bearing, (P,)."""
    cost = case.cost(np.linspace(-10, 10, 81)[:, None] * np.ones(P), 1)
    return np.any(np.isfinite(cost) & (cost > 0), axis=0)


STRONG = [name for name, case in PENALTIES.items() if np.any(priced(case))]


@pytest.fixture(params=PENALTIES)
def case(request):
    return PENALTIES[request.param]


def each(f, *points):
    """f at each of the points, which lie along the leading axes."""
    for _ in range(np.ndim(points[0]) - 1):
        f = jax.vmap(f)
    return jax.device_get(f(*map(jnp.asarray, points)))


@functools.cache
def proxes(case):
    """The proximal map at every step and point, (steps, points, P)."""
    return np.stack([each(lambda v, step=step: case.penalty.prox(v, step), EVERYWHERE) for step in STEPS])


@functools.cache
def points(case):
    """Points inside the bounds and out, many of them at kinks and bounds."""
    return np.concatenate([EVERYWHERE, proxes(case)[1]])


def duals(case):
    """Points of the conjugate's domain, short of its edge by what rounding may carry over it."""
    return (EVERYWHERE - proxes(case)) / S * (1 - 1e-12)


def subdifferential(case, w, h=1e-7):
    """The one-sided derivatives of the formula, NaN outside the bounds."""
    at = case.cost(w)
    with np.errstate(invalid="ignore"):
        return (at - case.cost(w - h)) / h, (case.cost(w + h) - at) / h


def sup(case, u):
    """sup_w u*w - cost(w) for each coefficient; unbounded if it grows far out."""
    w = least(lambda w: case.cost(w) - u * w, u.shape)
    far = [u * w - case.cost(w) for w in (np.full(P, -1e9), np.full(P, 1e9))]
    return np.where(np.max(far, axis=0) > 1e6, INF, u * w - case.cost(w))


def test_value_is_the_formula(case):
    w = points(case)
    np.testing.assert_allclose(each(case.penalty.value, w), case.cost(w).sum(axis=-1), rtol=4 * EPS)


def test_prox_minimises_its_own_definition(case):
    def objective(w):
        return (w - EVERYWHERE) ** 2 / 2 + S * case.cost(w)

    found = proxes(case)
    blind = least(objective, found.shape)
    assert np.all(np.isfinite(objective(blind)))
    assert np.all(objective(found) <= objective(blind) * (1 + 4 * EPS))
    np.testing.assert_allclose(found, blind, atol=1e-6)


@pytest.mark.parametrize("name", ["l1", "l2", "elastic net", "box", "sum at twice its strength"])
def test_prox_and_value_agree_with_scipy(name):
    case = PENALTIES[name]
    for v in (-2.3, 0.2, 1.7):
        objective = lambda w, v=v: (w - v) ** 2 / 2 + 0.8 * float(case.penalty.value(jnp.full(1, w)))  # noqa: E731
        found = minimize_scalar(
            objective, bounds=(-3, 3) if name != "box" else (-1, 2), method="bounded", options={"xatol": 1e-9}
        )
        np.testing.assert_allclose(case.penalty.prox(jnp.full(1, v), 0.8)[0], found.x, atol=2e-6)


def test_prox_at_an_infinite_step_is_the_nearest_point_of_least_cost(case):
    found = each(lambda v: case.penalty.prox(v, INF), EVERYWHERE)
    blind = least(lambda w: (w - EVERYWHERE) ** 2 / 2 + 1e12 * case.cost(w), EVERYWHERE.shape)
    np.testing.assert_allclose(found, blind, atol=1e-6)


def test_prox_is_firmly_non_expansive(case):
    dv = EVERYWHERE[:, None] - EVERYWHERE
    dw = proxes(case)[:, :, None] - proxes(case)[:, None]
    assert np.all(dw**2 <= dw * dv + 16 * EPS * np.abs(dv))


def test_the_envelope_has_gradient_v_minus_prox_over_step(case):
    """Also at kinks and bounds, where the derivative of prox is that of the constant side."""

    def envelope(v, step):
        w = case.penalty.prox(v, step)
        return jnp.sum((w - v) ** 2) / (2 * step) + case.penalty.value(w)

    for step, found in zip(STEPS, proxes(case), strict=True):
        gradient = each(jax.grad(lambda v, step=step: envelope(v, step)), EVERYWHERE)
        np.testing.assert_allclose(gradient, (EVERYWHERE - found) / step, rtol=1e-12, atol=1e-12)


def test_the_derivative_of_prox_is_that_of_its_flatter_side(case):
    h = 1e-6
    at, left, right = (each(lambda v: case.penalty.prox(v, 1.0), EVERYWHERE + d) for d in (0, -h, h))
    left, right = (at - left) / h, (right - at) / h
    jacobian = each(jax.jacfwd(lambda v: case.penalty.prox(v, 1.0)), EVERYWHERE)
    want = np.where(np.abs(left) < np.abs(right), left, right)
    np.testing.assert_allclose(jacobian, want[..., None] * np.eye(P), atol=1e-8)
    np.testing.assert_array_equal(each(jax.jacrev(lambda v: case.penalty.prox(v, 1.0)), EVERYWHERE), jacobian)


def test_conjugate_is_the_supremum(case):
    u = np.concatenate([duals(case)[1], EVERYWHERE])
    found, want = each(case.penalty.conjugate, u), sup(case, u).sum(axis=-1)
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-10)
    assert np.all(np.isfinite(found[: len(EVERYWHERE)]))


def test_fenchel_and_young(case):
    """value(w) + conjugate(u) >= <w, u>, with equality at a prox and its residual."""
    w, u = proxes(case), duals(case)
    value, conjugate = each(case.penalty.value, w), each(case.penalty.conjugate, u)
    inner = np.sum(w * u, axis=-1)
    np.testing.assert_allclose(value + conjugate, inner, rtol=1e-9, atol=1e-9)
    others = np.einsum("smp,tnp->smtn", w, u)
    assert np.all(value[..., None, None] + conjugate >= others - 1e-9 * (1 + np.abs(others)))


def test_moreau(case):
    """v/step - prox(v)/step is the proximal map of conjugate/step at v/step: a blind grid holds no better point."""
    step, found = STEPS[2], duals(case)[2][::3]
    x = EVERYWHERE[::3] / step

    def objective(z, x):
        return case.penalty.conjugate(z) / step + jnp.sum((z - x) ** 2) / 2

    at = each(objective, found, x)
    others = np.where(np.eye(P, dtype=bool)[:, None], np.linspace(-4, 4, 161)[:, None], found[:, None, None])
    beside = each(objective, others, np.broadcast_to(x[:, None, None], others.shape))
    assert np.all(np.isfinite(at))
    assert np.all(at[:, None, None] <= beside + 1e-10)


def test_subgradients(case):
    """The nearest element of the subdifferential, the one of least norm, and the distance to it."""
    w = points(case)
    u = RNG.uniform(-2, 2, w.shape)
    low, high = subdifferential(case, w)
    outside = np.isinf(case.cost(w))
    nearest = np.where(outside, np.nan, np.clip(u, low, high))
    np.testing.assert_allclose(each(case.penalty.nearest_subgradient, w, u), nearest, atol=1e-6)
    least_norm = np.where(outside, np.nan, np.clip(0, low, high))
    np.testing.assert_allclose(each(case.penalty.subgradient, w), least_norm, atol=1e-6)
    distance = np.where(outside, INF, np.abs(u - nearest))
    np.testing.assert_allclose(each(case.penalty.distance, w, u), distance, atol=1e-6)


def test_the_residual_of_prox_is_a_subgradient(case):
    """To the rounding of (v - prox)/step."""
    found = proxes(case)
    distance = each(case.penalty.distance, found, (EVERYWHERE - found) / S)
    assert np.all(distance <= 8 * EPS * (np.abs(EVERYWHERE) + np.abs(found)) / S)


def test_the_gradient_of_value_is_the_subgradient_of_least_norm(case):
    w = points(case)
    subgradient = each(case.penalty.subgradient, w)
    np.testing.assert_array_equal(each(jax.grad(case.penalty.value), w), subgradient)
    inside = np.isfinite(case.cost(w).sum(axis=-1))
    np.testing.assert_array_equal(each(jax.jacfwd(case.penalty.value), w)[inside], subgradient[inside])


def test_the_second_derivative_of_value_away_from_kinks(case):
    w = points(case)
    low, high = subdifferential(case, w)
    with np.errstate(invalid="ignore"):
        smooth = np.abs(high - low) < 1e-5
        want = (case.cost(w + 1e-4) - 2 * case.cost(w) + case.cost(w - 1e-4)) / 1e-8
    found = np.diagonal(each(jax.hessian(case.penalty.value), w), axis1=-2, axis2=-1)
    assert np.any(smooth)
    np.testing.assert_allclose(found[smooth], want[smooth], atol=1e-5)


def test_derivatives_at_0_are_finite_under_debug_nans(case):
    """At 0, or where 0 is forbidden at the point allowed that is nearest to it."""
    w, penalty = jnp.asarray(proxes(case)[1][np.flatnonzero(KINKS == 0)[0]]), case.penalty
    with jax.debug_nans(True):
        found = [
            jax.grad(penalty.value)(w),
            jax.jacfwd(penalty.value)(w),
            penalty.subgradient(w),
            jax.jacrev(lambda v: penalty.prox(v, 1.0))(w),
            jax.grad(lambda step: jnp.sum(penalty.prox(w, step)))(1.0),
        ]
    assert all(np.all(np.isfinite(a)) for a in found)


def test_free_and_excess_are_what_costs_nothing_far_out(case):
    cost = np.stack([case.cost(np.full(P, w)) for w in (-1e12, 1e12)])
    free = np.all(cost == 0, axis=0)
    excess = np.where(np.where(EVERYWHERE > 0, cost[1], cost[0]) == 0, EVERYWHERE, 0)
    np.testing.assert_array_equal(case.penalty.free(jnp.zeros(P)), free)
    np.testing.assert_array_equal(each(case.penalty.excess, EVERYWHERE), excess)


def test_scalings_reach_the_conjugates_domain(case):
    """The conjugate there is finite and what `conjugate` says a little further in; the last point kept is the edge."""
    u = EVERYWHERE
    (c, conjugate), excess = each(case.penalty.scalings, u), each(case.penalty.excess, u)
    scaled = c[..., None] * (u - excess)[:, None]
    assert np.all((c >= 0) & (c <= 1))
    assert np.all(np.isfinite(conjugate))
    np.testing.assert_allclose(conjugate, each(case.penalty.conjugate, scaled * (1 - 1e-12)), rtol=1e-9, atol=1e-10)
    largest = c.max(axis=-1)
    beyond = each(case.penalty.conjugate, np.minimum(largest * (1 + 1e-9), 2)[:, None] * (u - excess))
    assert np.all(np.isinf(beyond[largest < 1]))


@pytest.mark.parametrize("name", STRONG)
def test_zero_is_optimal_from_critical_lam_on(name):
    """Of the coefficients that have a price; and not just below. Infinite where no strength will do."""
    case = PENALTIES[name]
    u = EVERYWHERE
    lam = each(case.penalty.critical_lam, u)

    def far(lam):
        distance = jax.vmap(lambda u, lam: case.penalty.with_lam(lam).distance(jnp.zeros(P), u))(u, lam)
        return np.any(distance[:, priced(case)] > 0, axis=1)

    finite = np.isfinite(lam)
    assert np.all(lam >= 0)
    assert not np.any(far(np.where(finite, lam * (1 + 4 * EPS), 0))[finite])
    assert np.all(far(np.where(finite, lam * (1 - 1e-6), 1e6))[lam > 0])


def test_corner_is_the_least_weight_of_the_corner():
    u = jnp.asarray(EVERYWHERE[-1])
    almost = ElasticNet(0.3, 1e-3).critical_lam(u)
    np.testing.assert_allclose(ElasticNet(0.3, 0.0).critical_lam(u, corner=1e-3), almost, rtol=1e-12)
    np.testing.assert_allclose(L2(0.5).critical_lam(u, corner=1e-3), almost / 2, rtol=2e-3)
    assert L1(0.3).critical_lam(u, corner=1e-3) == L1(0.3).critical_lam(u) == jnp.max(jnp.abs(u))
    assert NoPenalty().critical_lam(u, corner=1e-3) == 0


def test_with_lam_is_the_same_shape_at_another_strength(case):
    w, penalty = points(case), case.penalty
    found = jax.vmap(lambda lam: jax.vmap(penalty.with_lam(lam).value)(jnp.asarray(w)))(jnp.asarray(LAMS))
    want = np.stack([case.cost(w, lam).sum(axis=-1) for lam in LAMS])
    np.testing.assert_allclose(found, want, rtol=4 * EPS)
    assert type(penalty.with_lam(0.3)) is type(penalty)
    assert jax.tree.structure(penalty.with_lam(0.3)) == jax.tree.structure(penalty)
    same(penalty.with_lam(penalty.lam), penalty)
    same(penalty.with_lam(0.0).with_lam(0.7), penalty.with_lam(0.7))
    assert penalty.with_lam(0.3).lam == (0.3 if np.any(priced(case)) else 0)


def same(a, b):
    assert type(a) is type(b)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def facts(penalty, v):
    """Everything a penalty says about a point."""
    w = penalty.prox(v, 0.7)
    named = ("conjugate", "critical_lam", "free", "excess", "scalings", "valid")
    return w, penalty.value(w), penalty.subgradient(w), penalty.distance(w, v), [getattr(penalty, f)(v) for f in named]


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=8 * EPS, atol=8 * EPS), a, b)


@pytest.fixture(params=["l1", "factors of an elastic net", "bounds of factors", "masked factors", "nonnegative sum"])
def typical(request):
    """One of each kind of combination, for laws that cost a compilation."""
    return PENALTIES[request.param]


def test_jit_changes_nothing(typical):
    found = jax.jit(jax.vmap(facts, in_axes=(None, 0)))(typical.penalty, EVERYWHERE)
    assert not np.any(np.signbit(found[0]) & (found[0] == 0))
    close(found, each(lambda v: facts(typical.penalty, v), EVERYWHERE))


def test_a_batch_of_penalties_is_a_loop(typical):
    v = jnp.asarray(EVERYWHERE[-1])
    lams = jnp.asarray(LAMS)
    found = jax.jit(jax.vmap(facts, in_axes=(0, None)))(jax.vmap(typical.penalty.with_lam)(lams), v)
    loop = [jax.jit(facts)(typical.penalty.with_lam(lam), v) for lam in LAMS]
    close(found, jax.tree.map(lambda *parts: np.stack(parts), *loop))


def test_constructors_batch():
    lams = jnp.array([0.1, 0.5, 2.0])
    v = jnp.asarray(EVERYWHERE[-1])
    makers = {
        "L1": L1,
        "ElasticNet": lambda lam: ElasticNet(lam, lam / 2),
        "Bounds": lambda lam: Bounds(L1(0.1), -lam, lam),
        "Factors": lambda lam: Factors(L1(0.1), lam * jnp.ones(P)),
        "Sum": lambda lam: NonNegative(Sum((L1(lam), L2(lam)))),
    }
    for make in makers.values():
        found = jax.jit(jax.vmap(facts, in_axes=(0, None)))(jax.vmap(make)(lams), v)
        close(found, jax.tree.map(lambda *parts: np.stack(parts), *(jax.jit(facts)(make(lam), v) for lam in lams)))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_dtypes_are_kept(typical, dtype):
    v = jnp.asarray(EVERYWHERE, dtype)
    wide = v.astype(float)
    w = jax.vmap(lambda v: typical.penalty.prox(v, 0.5))(v)
    subgradient = jax.vmap(typical.penalty.subgradient)(w)
    value, conjugate = jax.vmap(typical.penalty.value)(w), jax.vmap(typical.penalty.conjugate)(v)
    c, at = jax.vmap(typical.penalty.scalings)(v)
    computed = np.float64 if dtype == "float64" else np.float32
    assert w.dtype == subgradient.dtype == v.dtype
    assert {a.dtype for a in (value, conjugate, c, at)} == {np.dtype(computed)}
    want = jax.vmap(lambda v: typical.penalty.prox(v, 0.5))(wide)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(w.astype(float), want, rtol=4 * eps, atol=4 * eps)
    np.testing.assert_allclose(value, jax.vmap(typical.penalty.value)(w.astype(float)), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_there_is_no_minus_0(case, dtype):
    tiny = float(jnp.finfo(dtype).smallest_subnormal)
    v = jnp.concatenate([jnp.asarray(EVERYWHERE), jnp.array([[tiny], [-tiny]]) * jnp.ones((1, P))]).astype(dtype)
    found = [jax.vmap(lambda v, step=step: case.penalty.prox(v, step))(v) for step in (0.0, 1.0, INF)]
    found += [jax.vmap(case.penalty.subgradient)(v)]
    for a in found:
        assert not np.any(np.signbit(np.asarray(a)) & (np.asarray(a) == 0))


def test_derivatives_with_respect_to_hyperparameters(case):
    """Finite everywhere, and equal to finite differences of each leaf by a share of itself."""
    w = jnp.asarray(proxes(case)[1][-4:])
    v = jnp.asarray(EVERYWHERE[-4:])
    c = jnp.asarray(RNG.uniform(1, 2, v.shape))

    def value(penalty):
        return jnp.sum(jax.vmap(penalty.value)(w))

    def prox(penalty):
        return jnp.sum(c * jax.vmap(lambda v: penalty.prox(v, 0.9))(v))

    def moved(share):
        return jax.tree.map(lambda leaf: leaf * (1 + share), case.penalty)

    within = all(np.all(case.cost(w * scale) < INF) for scale in (1 - 1e-5, 1 + 1e-5))
    for f in (value, prox) if within else (prox,):
        gradient = jax.grad(f)(case.penalty)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
        along = jax.tree.map(
            lambda g, leaf: np.sum(np.where(np.isinf(leaf), 0, g * np.nan_to_num(leaf))), gradient, case.penalty
        )
        difference = (f(moved(1e-6)) - f(moved(-1e-6))) / 2e-6
        np.testing.assert_allclose(sum(jax.tree.leaves(along)), difference, rtol=1e-6, atol=1e-7)


def test_the_derivative_with_respect_to_lam_at_0():
    v = jnp.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(jax.grad(lambda lam: L1(lam).value(v))(0.0), 5)
    np.testing.assert_array_equal(jax.jacfwd(lambda lam: L1(lam).prox(v, 0.5))(0.0)[jnp.array([0, 2])], [0.5, -0.5])
    np.testing.assert_array_equal(jax.jacfwd(lambda lam: L2(lam).prox(v, 0.5))(0.0), -v)


def test_an_infinite_factor_pins_the_coefficient_at_every_strength():
    for penalty in (L1(0.0), L1(0.5), L2(0.0), ElasticNet(0.0), NoPenalty(), Sum((L1(1.0),), lam=0.0)):
        pinned = Factors(penalty, [1.0, INF])
        for lam in (0.0, 1.0):
            here = pinned.with_lam(lam)
            assert here.prox(jnp.array([3.0, 3.0]), 0.1)[1] == 0
            assert np.isinf(here.value(jnp.array([0.0, 1e-9])))
            assert here.value(jnp.zeros(2)) == 0
            assert here.valid(jnp.zeros(2))


# -- trees

TREE = {
    "kernel": jnp.asarray(RNG.normal(size=(3, 2))),
    "bias": jnp.asarray(RNG.normal(size=2)),
    "deep": {"scale": jnp.asarray(-0.4)},
}
LEAFWISE = {  # a penalty of the whole tree, and what it is on each leaf in turn (bias, deep, kernel)
    "one penalty": (ElasticNet(0.3, 0.5), [ElasticNet(0.3, 0.5)] * 3),
    "nonnegative sum": (NonNegative(Sum((L1(0.3), L2(0.1)))), [NonNegative(Sum((L1(0.3), L2(0.1))))] * 3),
    "a factor for each leaf": (
        Factors(L1(0.3), {"kernel": 2, "bias": 0, "deep": INF}),
        [L1(0.0), Factors(L1(0.3), INF), L1(0.6)],
    ),
    "a matching tree of factors": (
        Factors(L1(0.3), {"kernel": np.array([1, 2, 0]), "bias": np.array([1, 3]), "deep": {"scale": 0.5}}),
        [Factors(L1(0.3), [1, 3]), L1(0.15), Factors(L1(0.3), [1, 2, 0])],
    ),
    "bounds by leaf": (
        Bounds(L2(0.2), lower={"kernel": -0.1, "bias": -INF, "deep": 0}, upper=0.5),
        [Bounds(L2(0.2), upper=0.5), Bounds(L2(0.2), 0, 0.5), Bounds(L2(0.2), -0.1, 0.5)],
    ),
    "a mask by leaf": (Masked(L1(0.3), {"kernel": True, "bias": False, "deep": False}), [NoPenalty()] * 2 + [L1(0.3)]),
    "a mask by row": (
        Masked(L1(0.3), {"kernel": np.array([True, False, True]), "bias": True, "deep": False}),
        [L1(0.3), NoPenalty(), Factors(L1(0.3), [1, 0, 1])],
    ),
}


@pytest.mark.parametrize("name", LEAFWISE)
def test_on_trees_each_leaf_has_its_own(name):
    def ask(penalty, tree):
        w = penalty.prox(tree, 0.5)
        values = penalty.value(w), penalty.conjugate(w)
        return w, penalty.subgradient(w), jax.grad(penalty.value)(w), values, penalty.scalings(tree)[0]

    penalty, parts = LEAFWISE[name]
    *trees, values, c = jax.jit(ask)(penalty, TREE)
    wanted = jax.jit(lambda tree: [ask(part, v) for part, v in zip(parts, jax.tree.leaves(tree), strict=True)])(TREE)
    *leaves, terms, scalings = zip(*wanted, strict=True)
    for tree, want in zip(trees, leaves, strict=True):
        assert jax.tree.structure(tree) == jax.tree.structure(TREE)
        close(jax.tree.leaves(tree), list(want))
    np.testing.assert_allclose(values, np.sum(terms, axis=0), rtol=8 * EPS)
    np.testing.assert_allclose(c, np.min(scalings, axis=0), rtol=4 * EPS)


def test_a_step_may_be_a_tree_or_an_array():
    steps = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.1, TREE)
    want = jax.tree.map(lambda v, step: jnp.sign(v) * jnp.maximum(jnp.abs(v) - 0.3 * step, 0), TREE, steps)
    close(L1(0.3).prox(TREE, steps), want)
    with pytest.raises(ValueError, match="step"):
        L1(0.3).prox(TREE, {"kernel": 1.0})


def test_leaves_of_several_dtypes():
    w = {"a": jnp.array([1.0, -2.0], "float32"), "b": jnp.array([0.5]), "c": jnp.array([1.5], "bfloat16")}

    @jax.jit
    def ask(w):
        named = ("value", "conjugate", "critical_lam", "scalings", "valid")
        return penalty.prox(w, 1.0), *(getattr(penalty, f)(w) for f in named)

    penalty = ElasticNet(0.5, 0.5)
    prox, value, conjugate, critical, scalings, valid = ask(w)
    assert jax.tree.map(lambda a: a.dtype, prox) == jax.tree.map(lambda a: a.dtype, w)
    np.testing.assert_allclose(value, 0.25 * 5 + 0.125 * 7.5, rtol=1e-6)
    assert {a.dtype for a in (value, conjugate, critical, *scalings)} == {np.dtype(float)}
    assert valid


def test_a_tree_without_coefficients_costs_nothing():
    assert L1(0.5).value({}) == L1(0.5).conjugate({}) == L1(0.5).critical_lam({}) == 0
    assert L1(0.5).prox({}, 1.0) == {}
    assert L1(0.5).value(jnp.zeros(0)) == L1(0.5).critical_lam(jnp.zeros(0)) == 0


def test_integers_are_taken_as_floats():
    assert L1(1).value(np.array([1, -2])) == 3
    np.testing.assert_array_equal(L1(1).prox(np.array([3, -1]), 1), [2.0, 0.0])
    np.testing.assert_array_equal(L1(1).subgradient(np.array([3, 0])), [1.0, 0.0])


@pytest.mark.parametrize(
    ("penalty", "name"),
    [
        (Factors(L1(0.1), {"kernel": 1.0}), "factors"),
        (Bounds(L1(0.1), lower={"kernel": 1.0}), "lower"),
        (Bounds(L1(0.1), upper={"kernel": 1.0}), "upper"),
        (Masked(L1(0.1), {"kernel": True}), "mask"),
        (Masked(L1(0.1), [True, False, True]), "mask"),
        (Factors(L1(0.1), np.ones(5)), r"\(5,\)"),
        (L1(np.ones((2, 2))), r"\(2, 2\)"),
    ],
)
def test_hyperparameters_of_another_shape_are_refused_by_name(penalty, name):
    with pytest.raises(ValueError, match=name):
        penalty.prox(TREE, 1.0)


def test_axes_match_the_leading_ones():
    w = TREE["kernel"]
    for penalty in (L1([1, 2, 3]), Factors(L1(1.0), np.array([1, 2, 3]))):
        np.testing.assert_allclose(penalty.value(w), np.sum(np.abs(w) * [[1], [2], [3]]), rtol=4 * EPS)


# -- what penalties are as objects

BAD = {
    "negative lam": (lambda: L1(-0.1), ValueError, "lam"),
    "one negative lam": (lambda: L1([0.1, -0.1]), ValueError, "lam"),
    "NaN lam": (lambda: L2(np.nan), ValueError, "lam"),
    "infinite lam": (lambda: ElasticNet(INF), ValueError, "lam"),
    "text lam": (lambda: L1("0.1"), TypeError, "lam"),
    "text array": (lambda: L1(np.array(["0.1"])), TypeError, "lam"),
    "True": (lambda: L1(True), TypeError, "lam"),
    "complex lam": (lambda: L1(1j), TypeError, "lam"),
    "ragged lam": (lambda: L1([1.0, [2.0]]), TypeError, "lam"),
    "a penalty for lam": (lambda: L1(L1(0.1)), TypeError, "lam"),
    "negative with_lam": (lambda: L1(0.1).with_lam(-1), ValueError, "lam"),
    "negative with_lam of factors": (lambda: Factors(L1(0.1), 1.0).with_lam(-1), ValueError, "lam"),
    "negative with_lam of a sum": (lambda: Sum((L1(0.1),)).with_lam(-1), ValueError, "lam"),
    "infinite lam of a sum": (lambda: Sum((L1(0.1),), lam=INF), ValueError, "lam"),
    "l1_ratio 1.5": (lambda: ElasticNet(0.1, 1.5), ValueError, "l1_ratio"),
    "negative l1_ratio": (lambda: ElasticNet(0.1, -0.1), ValueError, "l1_ratio"),
    "NaN l1_ratio": (lambda: ElasticNet(0.1, np.nan), ValueError, "l1_ratio"),
    "text l1_ratio": (lambda: ElasticNet(0.1, "half"), TypeError, "l1_ratio"),
    "negative factors": (lambda: Factors(L1(0.1), [1.0, -1.0]), ValueError, "factors"),
    "NaN factors": (lambda: Factors(L1(0.1), np.array([1.0, np.nan])), ValueError, "factors"),
    "negative factors in a tree": (lambda: Factors(L1(0.1), {"a": -1.0}), ValueError, "factors"),
    "text factors": (lambda: Factors(L1(0.1), "one"), TypeError, "factors"),
    "crossed bounds": (lambda: Bounds(L1(0.1), 1.0, -1.0), ValueError, "lower.*upper"),
    "one crossed bound": (lambda: Bounds(L1(0.1), [0.0, 1.0], 0.5), ValueError, "lower.*upper"),
    "NaN bound": (lambda: Bounds(L1(0.1), np.nan), ValueError, "lower"),
    "text bound": (lambda: Bounds(L1(0.1), upper="x"), TypeError, "upper"),
    "text mask": (lambda: Masked(L1(0.1), "kernel"), TypeError, "mask"),
    "text mask array": (lambda: Masked(L1(0.1), np.array(["kernel"])), TypeError, "mask"),
    "half a mask": (lambda: Masked(L1(0.1), 0.5), TypeError, "mask"),
    "numbers for a mask": (lambda: Masked(L1(0.1), np.array([0, 1, 2])), TypeError, "mask"),
    "factors of a number": (lambda: Factors(0.1, 1.0), TypeError, "Factors.*0.1"),
    "factors of a class": (lambda: Factors(L1, 1.0), TypeError, "Factors"),
    "bounds of none": (lambda: Bounds(None), TypeError, "Bounds.*None"),
    "nonnegative number": (lambda: NonNegative(0.1), TypeError, "NonNegative.*0.1"),
    "mask of text": (lambda: Masked("l1", True), TypeError, "Masked.*l1"),
    "sum of numbers": (lambda: Sum((L1(0.1), 0.2)), TypeError, "Sum.*0.2"),
    "sum of nothing": (lambda: Sum(()), TypeError, "penalties"),
    "sum of one penalty": (lambda: Sum(L1(0.1)), TypeError, "penalties"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_by_name(name):
    make, error, words = BAD[name]
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("name", STRONG)
def test_a_traced_strength_out_of_range_is_not_valid(name):
    penalty = PENALTIES[name].penalty
    valid = jax.jit(jax.vmap(lambda lam: penalty.with_lam(lam).valid(jnp.zeros(P))))
    np.testing.assert_array_equal(valid(jnp.array([-1, np.nan, INF, 0, 1e-300, 1])), [False] * 3 + [True] * 3)


@pytest.mark.parametrize(
    ("make", "bad", "good"),
    [
        (lambda x: ElasticNet(0.1, x), [-0.1, 1.1, np.nan], [0, 0.5, 1]),
        (lambda x: Factors(L1(0.1), x * jnp.ones(P)), [-1, -INF, np.nan], [0, 1, INF]),
        (lambda x: Bounds(L1(0.1), x, 1.0), [2, INF, np.nan], [-INF, 0, 1]),
        (lambda x: Bounds(L1(0.1), -1.0, x), [-2, -INF, np.nan], [INF, 0, -1]),
        (lambda x: Factors(Bounds(L1(0.1), x, 2.0), INF), [0.5, 1, 2], [-1, -0.5, 0]),
    ],
    ids=["l1_ratio", "factors", "lower", "upper", "pinned outside the bounds"],
)
def test_traced_hyperparameters_out_of_range_are_not_valid(make, bad, good):
    valid = jax.jit(jax.vmap(lambda x: make(x).valid(jnp.zeros(P))))
    np.testing.assert_array_equal(valid(jnp.array([*bad, *good], float)), [False] * 3 + [True] * 3)


def test_objects(case):
    """Data that can be pickled, replaced and printed; nothing to call."""
    penalty = case.penalty
    assert not callable(penalty)
    same(pickle.loads(pickle.dumps(penalty)), penalty)
    same(dataclasses.replace(penalty), penalty)
    with pytest.raises(dataclasses.FrozenInstanceError):
        penalty.lam = 1.0
    names = {**vars(l1jax), "inf": INF, "Array": lambda values, dtype, **_: jnp.array(values, dtype), "float64": float}
    same(eval(repr(penalty), names), penalty)
    assert penalty.valid(jnp.zeros(P))


def test_hyperparameters_of_any_kind():
    for factors in (FACTORS, list(FACTORS), tuple(FACTORS), jnp.asarray(FACTORS), FACTORS.tolist()):
        np.testing.assert_array_equal(Factors(L1(1.0), factors).prox(jnp.full(P, 3.0), 1.0), [3, 2.5, 1, 0])
    for lam in (1, 1.0, np.int64(1), np.float32(1), np.ones(P, int), [1] * P, jnp.ones(P)):
        np.testing.assert_array_equal(L1(lam).prox(jnp.full(P, 3.0), 1.0), [2] * P)
    for mask in (np.array([1, 0]), jnp.array([True, False]), np.array([1.0, 0.0])):
        np.testing.assert_array_equal(Masked(L1(1), mask).prox(jnp.full(2, 3.0), 1.0), [2, 3])
    for mask in (True, np.True_, 1):
        np.testing.assert_array_equal(Masked(L1(1), mask).prox(jnp.full(2, 3.0), 1.0), [2, 2])
