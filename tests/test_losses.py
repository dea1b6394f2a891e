"""Laws that every loss keeps, each against the formula of one row in tests/registry.py."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import LOSSES
from sklearn.metrics import log_loss, mean_squared_error

from l1jax import Logistic, Squared

EPS = np.finfo(float).eps
RNG = np.random.default_rng(11)
N = 6
WEIGHTS = RNG.uniform(0.5, 2, N)
S = jnp.asarray(WEIGHTS / WEIGHTS.sum())
ETAS = RNG.normal(size=(20, N)) * np.repeat([0.1, 1, 3, 10], 5)[:, None]


@pytest.fixture(params=LOSSES)
def case(request):
    return LOSSES[request.param]


@pytest.fixture
def y(case):
    return case.loss.encode(jnp.asarray(case.y))


def each(f, *points):
    return jax.device_get(jax.vmap(f)(*map(jnp.asarray, points)))


def differences(f, eta, h):
    """Central differences of f along each coordinate of eta, the coordinate last."""
    return np.stack([(f(eta + d) - f(eta - d)) / (2 * h) for d in h * np.eye(N)], axis=-1)


def test_value_is_the_formula(case, y):
    want = np.sum(np.asarray(S) * case.row(ETAS, case.y), axis=-1)
    np.testing.assert_allclose(each(lambda eta: case.loss.value(eta, y, S), ETAS), want, rtol=8 * EPS)


@pytest.mark.parametrize("name", ["logistic of 0 and 1", "logistic of -1 and 1"])
def test_logistic_is_scikit_learns_log_loss(name):
    case = LOSSES[name]
    for eta in ETAS[:10]:
        found = Logistic().value(jnp.asarray(eta), case.loss.encode(jnp.asarray(case.y)), S)
        want = log_loss(case.y > 0, np.asarray(Logistic().mean(jnp.asarray(eta))), sample_weight=WEIGHTS)
        np.testing.assert_allclose(found, want, rtol=1e-12)


def test_squared_is_half_of_scikit_learns_mean_squared_error():
    y = LOSSES["squared"].y
    found = Squared().value(jnp.asarray(ETAS[0]), jnp.asarray(y), S)
    np.testing.assert_allclose(found, mean_squared_error(y, ETAS[0], sample_weight=WEIGHTS) / 2, rtol=1e-12)


def test_gradient_and_curvature_are_finite_differences(case, y):
    def loss(f):
        return lambda eta: each(lambda eta: f(eta, y, S), eta)

    gradient = loss(case.loss.gradient)(ETAS)
    np.testing.assert_allclose(gradient, differences(loss(case.loss.value), ETAS, 1e-5), rtol=1e-6, atol=1e-8)
    hessian = differences(loss(case.loss.gradient), ETAS, 1e-5)
    curvature = loss(case.loss.curvature)(ETAS)
    np.testing.assert_allclose(curvature[..., None] * np.eye(N), hessian, rtol=1e-6, atol=1e-9)


def test_derivatives_by_jax_are_the_loss_s_own(case, y):
    gradient = each(jax.grad(lambda eta: case.loss.value(eta, y, S)), ETAS)
    np.testing.assert_allclose(gradient, each(lambda eta: case.loss.gradient(eta, y, S), ETAS), rtol=1e-13)
    hessian = each(jax.jacfwd(lambda eta: case.loss.gradient(eta, y, S)), ETAS)
    curvature = each(lambda eta: case.loss.curvature(eta, y, S), ETAS)
    np.testing.assert_allclose(hessian, curvature[..., None] * np.eye(N), rtol=8 * EPS, atol=EPS)  # JAX's 1 - sigmoid


def test_the_least_value_is_0(case, y):
    assert np.all(each(lambda eta: case.loss.value(eta, y, S), ETAS) >= 0)
    best = y if isinstance(case.loss, Squared) else jnp.where(y > 0, 1e4, -1e4)
    assert case.loss.value(best, y, S) == 0
    np.testing.assert_array_equal(case.loss.gradient(best, y, S), 0)


def test_smoothness_bounds_the_curvature_and_is_reached(case, y):
    share = each(lambda eta: case.loss.curvature(eta, y, S) / S, np.concatenate([ETAS, np.zeros((1, N))]))
    assert np.all((share >= 0) & (share <= case.loss.smoothness * (1 + 4 * EPS)))
    np.testing.assert_allclose(share.max(), case.loss.smoothness, rtol=4 * EPS)


def test_fenchel_and_young(case, y):
    """value(eta) + conjugate(v) >= <v, eta>, with equality where v is the gradient at eta."""
    v = each(lambda eta: case.loss.gradient(eta, y, S), ETAS)
    value = each(lambda eta: case.loss.value(eta, y, S), ETAS)
    conjugate = each(lambda v: case.loss.conjugate(v, y, S), v)
    inner = ETAS @ v.T
    np.testing.assert_allclose(value + conjugate, np.diag(inner), rtol=1e-12, atol=1e-13)
    assert np.all(value[:, None] + conjugate >= inner - 1e-12 * (1 + np.abs(inner)))


@pytest.mark.parametrize("by", [1e-3, 1.0, 1e4])
def test_the_conjugate_is_infinite_outside_its_domain(by):
    y, sign = jnp.array([0.0, 1.0]), jnp.array([-1.0, 1.0])
    s = jnp.array([0.25, 0.75])
    edges = [jnp.zeros(2), -sign * s]  # of every row: slopes of the loss far out
    for edge in edges:
        assert Logistic().conjugate(edge, y, s) == 0
    for edge, outward in zip(edges, (sign, -sign), strict=True):
        for row in jnp.eye(2):
            assert Logistic().conjugate(edge + by * outward * s * row, y, s) == np.inf
    assert np.isfinite(Squared().conjugate(by * sign, y, s))


def test_nan_is_no_response_and_no_dual_point(case, y):
    nan = jnp.full(N, jnp.nan)
    assert np.isnan(case.loss.conjugate(nan, y, S))
    assert np.isnan(case.loss.value(nan, y, S))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logistic_is_accurate_far_out(dtype):
    """To rounding, relative, against extended precision; the softplus of 1e4 is 1e4, and of -1e4 it is 0."""
    eta = np.array([0, 1e-3, 0.5, 3, 10, 20, 40, 80, 1e3, 1e4], dtype)
    eta = np.concatenate([eta, -eta])
    y, s = np.ones_like(eta), np.ones_like(eta)
    with jax.debug_nans(True):
        value = jax.vmap(lambda *row: Logistic().value(*row))(*(a[:, None] for a in (eta, y, s)))
        by_jax = jax.vmap(jax.grad(Logistic().value))(*(a[:, None] for a in (eta, y, s)))[:, 0]
        by_jit = jax.jit(jax.grad(Logistic().value))(eta, y, s)
        gradient, curvature = Logistic().gradient(eta, y, s), Logistic().curvature(eta, y, s)
    wide = eta.astype(np.longdouble)
    tail = np.exp(-np.abs(wide))
    softplus = np.log1p(tail) + np.where(wide < 0, -wide, 0)
    sigmoid = np.where(wide < 0, 1, tail) / (1 + tail)  # of -eta
    tiny = np.finfo(dtype).tiny
    eps = np.finfo(dtype).eps
    pairs = [(value, softplus), (curvature, tail / (1 + tail) ** 2)]
    for found, want in pairs + [(found, -sigmoid) for found in (gradient, by_jax, by_jit)]:
        assert found.dtype == dtype
        np.testing.assert_allclose(found, want.astype(float), rtol=16 * eps, atol=tiny)
    assert value[9] == 0
    assert value[19] == 1e4


def test_squared_is_exact_far_out():
    for dtype in (np.float32, np.float64):
        eta, y, s = (np.array([a], dtype) for a in (1e4, -1e4, 1.0))
        assert Squared().value(eta, y, s) == 2e8
        assert Squared().gradient(eta, y, s) == 2e4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_weight_0_do_not_matter(case, y, dtype):
    far = 1e4 if isinstance(case.loss, Logistic) else np.finfo(dtype).max / 4
    eta, y = np.asarray(ETAS[5], dtype), np.asarray(y, dtype)
    s = np.asarray(S, dtype)
    more = [np.concatenate([a, np.array(b, dtype)]) for a, b in ((eta, [far, -far]), (y, [0, 1]), (s, [0, 0]))]
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(case.loss.value(*more), case.loss.value(eta, y, s), rtol=4 * eps)
    gradient = case.loss.gradient(*more)
    np.testing.assert_array_equal(gradient[-2:], 0)
    np.testing.assert_array_equal(case.loss.curvature(*more)[-2:], 0)
    np.testing.assert_array_equal(jax.grad(case.loss.value)(*more)[-2:], 0)
    short = case.loss.conjugate(gradient[:-2], y, s)
    np.testing.assert_allclose(case.loss.conjugate(gradient, *more[1:]), short, rtol=16 * eps)


def test_link_and_mean_are_inverses(case):
    eta = jnp.linspace(-15, 15, 61)
    mean = case.loss.mean(eta)
    np.testing.assert_allclose(case.loss.link(mean), eta, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(case.loss.mean(case.loss.link(mean)), mean, rtol=1e-13)


def test_the_gradient_is_weight_times_mean_minus_response(case, y):
    want = each(lambda eta: S * (case.loss.mean(eta) - y), ETAS)
    np.testing.assert_allclose(each(lambda eta: case.loss.gradient(eta, y, S), ETAS), want, atol=4 * EPS)


def test_absorbing_an_offset_changes_nothing(case, y):
    offset = jnp.asarray(ETAS[6])
    y2, offset2 = case.loss.absorb(y, offset)
    before = each(lambda eta: case.loss.value(offset + eta, y, S), ETAS)
    np.testing.assert_allclose(each(lambda eta: case.loss.value(offset2 + eta, y2, S), ETAS), before, rtol=1e-13)


def test_jit_and_vmap_change_nothing(case, y):
    def facts(eta):
        v = case.loss.gradient(eta, y, S)
        return v, case.loss.value(eta, y, S), case.loss.curvature(eta, y, S), case.loss.conjugate(v, y, S)

    loop = jax.tree.map(lambda *parts: np.stack(parts), *(facts(jnp.asarray(eta)) for eta in ETAS[:5]))
    for found in (jax.vmap(facts)(jnp.asarray(ETAS[:5])), jax.jit(jax.vmap(facts))(jnp.asarray(ETAS[:5]))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), found, loop)


@pytest.mark.parametrize(
    ("labels", "encoded"),
    [
        ([0, 1, 1], [0, 1, 1]),
        ([-1, 1, 1], [0, 1, 1]),
        ([-1, -1, -1], [0, 0, 0]),
        ([1, 1, 1], [1, 1, 1]),
        ([0, 1, 2], [np.nan] * 3),
        ([-1, 0, 1], [np.nan] * 3),
        ([0, 1, np.nan], [np.nan] * 3),
        ([0.5, 1, 0], [np.nan] * 3),
    ],
    ids=str,
)
def test_labels_are_read_as_0_and_1(labels, encoded):
    found = jax.jit(Logistic().encode)(jnp.array(labels, float))
    np.testing.assert_array_equal(found, encoded)
    np.testing.assert_array_equal(Logistic().encode(found), encoded)


def test_complaints_name_what_is_wrong():
    half = jnp.array([0.5, 0.5, 0.0])
    for labels, words in {
        (0, 1, 1): "",
        (0, 2, 1): "labels",
        (1, 1, 1): "both classes",
        (1, 1, 0): "both classes",
    }.items():
        y = jnp.array(labels, float)
        complaint = Logistic().complaint(y, half)
        assert words in complaint
        assert bool(complaint) == bool(words)
        assert bool(Logistic().answerable(Logistic().encode(y), half)) == (not words)
        assert Squared().complaint(y, half) == ""
        assert Squared().answerable(y, half)


def test_losses_are_data(case):
    loss = case.loss
    assert not callable(loss)
    assert jax.tree.leaves(loss) == []
    for other in (pickle.loads(pickle.dumps(loss)), dataclasses.replace(loss)):
        assert jax.tree.structure(other) == jax.tree.structure(loss)
    assert repr(loss) == f"{type(loss).__name__}()"
