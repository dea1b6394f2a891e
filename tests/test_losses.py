"""Laws that every loss keeps, each against the formula of one row in tests/registry.py."""

import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import LOSSES
from sklearn.metrics import log_loss, mean_squared_error

from l1jax import (
    Cox,
    Gamma,
    Huber,
    Logistic,
    Loss,
    NegativeBinomial,
    Poisson,
    Quantile,
    Squared,
    SquaredHinge,
)

EPS = np.finfo(float).eps
RNG = np.random.default_rng(11)
N = 6
WEIGHTS = RNG.uniform(0.5, 2, N)
S = jnp.asarray(WEIGHTS / WEIGHTS.sum())
ETAS = RNG.normal(size=(20, N)) * np.repeat([0.1, 1, 3, 10], 5)[:, None]


ROWWISE = [name for name in LOSSES if LOSSES[name].coupled is None]
COUPLED = [name for name in LOSSES if LOSSES[name].coupled is not None]
DUAL = [name for name in LOSSES if type(LOSSES[name].loss).conjugate is not Loss.conjugate]
HYPERPARAMETERS = {
    "delta": (Huber, [0.3, 0.8, 2.0]),
    "theta": (NegativeBinomial, [0.1, 2.0, 50.0]),
    "q": (lambda q: Quantile(q, 0.3), [0.1, 0.5, 0.9]),
    "width": (lambda width: Quantile(0.8, width), [0.01, 0.3, 2.0]),
}


@pytest.fixture(params=LOSSES)
def name(request):
    return request.param


@pytest.fixture
def case(name):
    return LOSSES[name]


@pytest.fixture
def y(case):
    return case.loss.encode(jnp.asarray(case.y))


def light(loss, eta, y, s):
    """What a loss says of a point, and JAX's gradient of it."""
    v = loss.gradient(eta, y, s)
    return {
        "value": loss.value(eta, y, s),
        "gradient": v,
        "gradient by jax": jax.grad(loss.value)(eta, y, s),
        "curvature": loss.curvature(eta, y, s),
        "conjugate": loss.conjugate(v, y, s),
    }


def facts(loss, eta, y, s):
    return {**light(loss, eta, y, s), "hessian by jax": jax.jacfwd(loss.gradient)(eta, y, s)}


LIGHT = jax.jit(light)
PROGRAM = jax.jit(jax.vmap(facts, in_axes=(None, 0, None, None)))
SLOPES = jax.jit(jax.vmap(lambda loss, *at: (loss.value(*at), loss.gradient(*at)), in_axes=(None, 0, None, None)))


@functools.cache
def at_etas(name, dtype=np.float64):
    case = LOSSES[name]
    y = case.loss.encode(jnp.asarray(case.y)).astype(dtype)
    return jax.device_get(PROGRAM(case.loss, ETAS.astype(dtype), y, S.astype(dtype)))


def each(f, *points):
    return jax.device_get(jax.jit(jax.vmap(f))(*map(jnp.asarray, points)))


def differences(f, eta, h):
    """Central differences of f along each coordinate of eta (m, n), the coordinate last."""
    steps = h * np.eye(eta.shape[-1])
    ahead, behind = (np.asarray(f((eta[:, None] + d).reshape(-1, eta.shape[-1]))) for d in (steps, -steps))
    slopes = ((ahead - behind) / (2 * h)).reshape(*eta.shape, *ahead.shape[1:])
    return np.moveaxis(slopes, 1, -1)


def test_value_is_the_formula(name, case):
    """To the rounding of the value itself; for formulas with logarithms, of eta and log(y) too."""
    found = at_etas(name)
    y = np.asarray(case.loss.encode(jnp.asarray(case.y))).astype(np.longdouble)
    want = case.cost(ETAS.astype(np.longdouble), y, np.asarray(S).astype(np.longdouble)).astype(float)
    size = want
    if not isinstance(case.loss, Squared | Logistic):
        logs = 1 + np.abs(ETAS) + np.abs(np.log(getattr(case.loss, "theta", 1.0)))
        size = want + np.sum(np.abs(found["gradient"]) * logs, axis=-1)
    np.testing.assert_array_less(np.abs(found["value"] - want), 8 * EPS * size)


@pytest.mark.parametrize("labels", ["logistic of 0 and 1", "logistic of -1 and 1"])
def test_logistic_is_scikit_learns_log_loss(labels):
    case = LOSSES[labels]
    for eta in ETAS[:10]:
        found = Logistic().value(jnp.asarray(eta), case.loss.encode(jnp.asarray(case.y)), S)
        want = log_loss(case.y > 0, np.asarray(Logistic().mean(jnp.asarray(eta))), sample_weight=WEIGHTS)
        np.testing.assert_allclose(found, want, rtol=1e-12)


def test_squared_is_half_of_scikit_learns_mean_squared_error():
    y = LOSSES["squared"].y
    found = Squared().value(jnp.asarray(ETAS[0]), jnp.asarray(y), S)
    np.testing.assert_allclose(found, mean_squared_error(y, ETAS[0], sample_weight=WEIGHTS) / 2, rtol=1e-12)


def test_bent_is_the_second_derivative_along_a_direction(name, case, y):
    d = jnp.asarray(np.linspace(-1, 1, len(y)))
    along = jax.jit(lambda eta: case.loss.bent(d, eta, jnp.asarray(y), S))
    for eta, whole in zip(ETAS[:3], at_etas(name)["hessian by jax"], strict=False):
        np.testing.assert_allclose(along(eta), whole @ d, rtol=1e-9, atol=1e-12)


def test_gradient_and_curvature_are_finite_differences(name, case, y):
    found = at_etas(name)
    digits = 1e-8 * np.maximum(1, found["value"])[:, None]  # what rounding leaves of a difference of such values
    want = differences(lambda eta: SLOPES(case.loss, eta, y, S)[0], ETAS, 1e-5)
    np.testing.assert_array_less(np.abs(found["gradient"] - want), 1e-6 * np.abs(want) + digits)
    hessian = differences(lambda eta: SLOPES(case.loss, eta, y, S)[1], ETAS, 1e-5)
    np.testing.assert_allclose(found["hessian by jax"], hessian, rtol=1e-6, atol=1e-9)
    if case.coupled is None:
        np.testing.assert_allclose(found["curvature"][..., None] * np.eye(N), hessian, rtol=1e-6, atol=1e-9)


def test_derivatives_by_jax_are_the_loss_s_own(name, case):
    found = at_etas(name)
    atol = 4 * EPS if case.coupled else 0  # of shares of risk, which sum to 1
    np.testing.assert_allclose(found["gradient by jax"], found["gradient"], rtol=1e-13, atol=atol)
    if case.coupled is None:
        curvature = found["curvature"][..., None] * np.eye(N)
        rtol = 8 * EPS if isinstance(case.loss, Squared | Logistic) else 1e-13
        np.testing.assert_allclose(found["hessian by jax"], curvature, rtol=rtol, atol=EPS)  # JAX's 1 - sigmoid


@pytest.mark.parametrize("name", COUPLED)
def test_the_curvature_of_coupled_rows_is_an_upper_bound(name):
    found = at_etas(name)
    hessian = found["hessian by jax"]
    np.testing.assert_allclose(hessian, np.swapaxes(hessian, -1, -2), atol=EPS)
    least = np.linalg.eigvalsh(hessian)[:, 0]
    margin = np.linalg.eigvalsh(found["curvature"][..., None] * np.eye(N) - hessian)[:, 0]
    assert np.all(least >= -8 * EPS)
    assert np.all(margin >= -8 * EPS)
    assert np.all(np.abs(np.sum(found["gradient"], axis=-1)) <= 8 * EPS)  # an intercept cancels


def test_the_least_value_is_0(name, case, y):
    assert np.all(at_etas(name)["value"] >= 0)
    best = jnp.asarray(case.best)
    slack = EPS * np.max(np.abs(case.best)) if case.coupled else 0
    assert 0 <= case.loss.value(best, y, S) <= slack
    np.testing.assert_allclose(case.loss.gradient(best, y, S), 0, atol=slack)
    sizes = 10.0 ** -np.arange(20)[:, None] * np.eye(N)[0]
    around = np.concatenate([case.best + k * sizes for k in (1, -1, 3, -3, 7, -7)])
    assert np.all(SLOPES(case.loss, around, y, S)[0] >= 0)


def test_attained_says_whether_the_least_value_is_taken(case):
    assert case.loss.attained == bool(np.all(np.abs(case.best) < 100))


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name].loss.smoothness is not None])
def test_smoothness_bounds_the_curvature_and_is_reached(name):
    loss = LOSSES[name].loss
    share = np.concatenate([at_etas(name)["curvature"], [np.asarray(loss.curvature(jnp.zeros(N), jnp.zeros(N), S))]])
    share = share / np.asarray(S)
    assert np.all((share >= 0) & (share <= loss.smoothness * (1 + 4 * EPS)))
    np.testing.assert_allclose(share.max(), loss.smoothness, rtol=4 * EPS)


@pytest.mark.parametrize("name", ["poisson", "gamma"])
def test_where_no_smoothness_is_given_there_is_none(name):
    assert np.max(at_etas(name)["curvature"] / np.asarray(S)) > 1e6


@pytest.mark.parametrize("name", DUAL)
def test_fenchel_and_young(name):
    """value(eta) + conjugate(v) >= <v, eta>, with equality where v is the gradient at eta."""
    found = at_etas(name)
    value, conjugate, inner = found["value"], found["conjugate"], ETAS @ found["gradient"].T
    size = np.maximum(value + np.abs(conjugate), np.sum(np.abs(found["gradient"] * ETAS), axis=-1))
    size = 0 if isinstance(LOSSES[name].loss, Squared | Logistic) else size
    gap = np.abs(value + conjugate - np.diag(inner))
    np.testing.assert_array_less(gap, 1e-12 * np.abs(np.diag(inner)) + 1e-13 * (1 + size))
    assert np.all(value[:, None] + conjugate >= inner - 1e-12 * (1 + np.abs(inner) + size))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - set(DUAL)))
def test_a_conjugate_that_is_not_known_is_nan(name):
    assert np.all(np.isnan(at_etas(name)["conjugate"]))


@pytest.mark.parametrize("by", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("name", DUAL)
def test_the_conjugate_is_infinite_outside_its_domain(name, by):
    case = LOSSES[name]
    y = case.loss.encode(jnp.asarray(case.y))
    low, high = np.broadcast_to(case.low, N), np.broadcast_to(case.high, N)
    inside = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, 0.0))
    other = np.where(np.isfinite(high), high, inside)
    beyond = [inside - by * row for row in np.eye(N)] + [other + by * row for row in np.eye(N)]
    found = each(lambda t: case.loss.conjugate(t * S, y, S), np.stack([inside, other, *beyond]))
    assert np.all(np.isfinite(found[:2]))
    np.testing.assert_array_equal(found[2:] == np.inf, np.isfinite(np.concatenate([low, high])))
    if isinstance(case.loss, Logistic):
        assert all(case.loss.conjugate(jnp.asarray(edge) * S, y, S) == 0 for edge in (inside, other))


def test_nan_is_no_response_and_no_dual_point(case, y):
    nan = jnp.full(N, jnp.nan)
    assert np.isnan(case.loss.conjugate(nan, y, S))
    assert np.isnan(case.loss.value(nan, y, S))
    assert np.isnan(case.loss.value(jnp.zeros(N), nan, S))
    assert np.all(np.isnan(case.loss.gradient(jnp.zeros(N), nan, S)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_are_stable_far_out(case, y, dtype):
    """To rounding where the value is finite; infinite only where it overflows; nowhere NaN."""
    signs = np.random.default_rng(3).choice([-1, 1], size=(18, N))
    eta = np.concatenate([1e4 * signs[:12], 80 * signs[12:], [np.full(N, 1e4), np.full(N, -1e4)]]).astype(dtype)
    y, s = np.asarray(y, dtype), np.asarray(S, dtype)
    found = jax.device_get(PROGRAM(case.loss, eta, y, s))
    want = case.cost(*(a.astype(np.longdouble) for a in (eta, y, s)))
    overflows = want > np.finfo(dtype).max
    assert all(np.all(~np.isnan(found[part])) for part in ("value", "gradient", "curvature", "gradient by jax"))
    assert all(found[part].dtype == dtype for part in found)
    np.testing.assert_array_equal(np.isinf(found["value"]), overflows)
    eps = np.finfo(dtype).eps
    size = np.where(overflows, 0, want + np.sum(np.abs(found["gradient"] * eta), axis=-1))
    error = np.abs(np.where(overflows, 0, found["value"] - want))
    assert np.all(error <= 8 * eps * size)
    assert np.all(found["curvature"] >= 0)


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
def test_rows_of_weight_0_do_not_matter(name, case, y, dtype):
    far = 1e4 if isinstance(case.loss, Logistic) else np.finfo(dtype).max / 4
    eta, y = np.asarray(ETAS[5], dtype), np.asarray(y, dtype)
    s, loss = np.asarray(S, dtype), case.loss
    more = [np.concatenate([a, np.array(b, dtype)]) for a, b in ((eta, [far, -far]), (y, y[:2]), (s, [0, 0]))]
    if isinstance(loss, Cox):
        start = None if loss.start is None else np.append(loss.start, np.asarray(loss.start)[:2])
        loss = dataclasses.replace(loss, event=np.append(loss.event, [1, 1]), start=start)
    eps = np.finfo(dtype).eps
    few, many = at_etas(name, dtype), jax.device_get(LIGHT(loss, *more))
    np.testing.assert_allclose(many["value"], few["value"][5], rtol=4 * eps)
    for part in ("gradient", "gradient by jax", "curvature"):
        np.testing.assert_array_equal(many[part][-2:], 0)
        np.testing.assert_allclose(many[part][:-2], few[part][5], rtol=16 * eps)
    np.testing.assert_allclose(many["conjugate"], few["conjugate"][5], rtol=16 * eps)


def test_link_and_mean_are_inverses(case):
    eta = jnp.linspace(-case.predicts, case.predicts, 61)
    mean = case.loss.mean(eta)
    np.testing.assert_allclose(case.loss.link(mean), eta, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(case.loss.mean(case.loss.link(mean)), mean, rtol=1e-13)


@pytest.mark.parametrize("name", ROWWISE)
def test_the_gradient_pulls_the_mean_towards_the_response(name):
    """Or, of quantiles, eta towards where the loss is least."""
    case = LOSSES[name]
    y = np.asarray(case.loss.encode(jnp.asarray(case.y)))
    y = case.best if isinstance(case.loss, Quantile) else y
    pull = np.sign(at_etas(name)["gradient"])
    assert np.all((pull == np.sign(np.asarray(case.loss.mean(jnp.asarray(ETAS))) - y)) | (pull == 0))


@pytest.mark.parametrize("name", ["squared", "logistic of 0 and 1", "logistic of -1 and 1", "poisson"])
def test_the_gradient_of_canonical_links_is_weight_times_mean_minus_response(name):
    case = LOSSES[name]
    y = np.asarray(case.loss.encode(jnp.asarray(case.y)))
    mean = np.asarray(case.loss.mean(jnp.asarray(ETAS)))
    atol = 4 * EPS * np.maximum(1, np.maximum(y, mean) * np.abs(ETAS) if name == "poisson" else 1)
    assert np.all(np.abs(at_etas(name)["gradient"] - np.asarray(S) * (mean - y)) <= atol)


def test_absorbing_an_offset_changes_nothing(case, y):
    offset = jnp.asarray(ETAS[6])
    y2, offset2 = case.loss.absorb(y, offset)
    before = each(lambda eta: case.loss.value(offset + eta, y, S), ETAS)
    np.testing.assert_allclose(each(lambda eta: case.loss.value(offset2 + eta, y2, S), ETAS), before, rtol=1e-13)


@pytest.mark.parametrize("name", ["squared", "logistic of 0 and 1", "negative binomial", "quantile", "cox"])
def test_jit_and_vmap_change_nothing(name):
    case = LOSSES[name]
    y = case.loss.encode(jnp.asarray(case.y))
    with jax.disable_jit():
        for k in (0, 6):
            eta = jnp.asarray(ETAS[k])
            v = case.loss.gradient(eta, y, S)
            np.testing.assert_allclose(v, at_etas(name)["gradient"][k], rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(case.loss.value(eta, y, S), at_etas(name)["value"][k], rtol=1e-12)
            conjugate = case.loss.conjugate(v, y, S)
            np.testing.assert_allclose(conjugate, at_etas(name)["conjugate"][k], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("leaf", HYPERPARAMETERS)
def test_hyperparameters_are_leaves(leaf):
    """vmap over them is a loop, and derivatives in them are finite differences."""
    make, values = HYPERPARAMETERS[leaf]
    y, eta = jnp.asarray(LOSSES["poisson"].y), jnp.asarray(ETAS[12])

    def value(leaf):
        return make(leaf).value(eta, y, S)

    np.testing.assert_allclose(each(value, np.array(values)), [value(leaf) for leaf in values], rtol=1e-13)
    batch = jax.vmap(make)(jnp.array(values))  # a batched loss is a value
    np.testing.assert_allclose(
        jax.vmap(lambda loss: loss.value(eta, y, S))(batch), [value(leaf) for leaf in values], rtol=1e-13
    )
    found = each(jax.grad(value), np.array(values))
    for slope, leaf in zip(found, values, strict=True):
        h = 1e-5 * leaf
        np.testing.assert_allclose(slope, (value(leaf + h) - value(leaf - h)) / (2 * h), rtol=1e-6, atol=1e-8)
    per_row = np.resize(values, N)
    want = sum(s * make(float(a)).value(eta[i : i + 1], y[i : i + 1], jnp.ones(1))
               for i, (a, s) in enumerate(zip(per_row, np.asarray(S), strict=True)))  # fmt: skip
    np.testing.assert_allclose(value(per_row), want, rtol=1e-12)


def test_pinball_is_near():
    """Within width/4 of the pinball loss, as the docstring says."""
    eta, y = np.linspace(-2, 2, 401)[:, None], np.zeros(1)
    for q, width in ((0.5, 0.3), (0.9, 1.0), (0.2, 1e-3)):
        smooth = each(lambda eta: Quantile(q, width).value(eta, jnp.asarray(y), jnp.ones(1)), eta)  # noqa: B023
        pinball = np.maximum(q * (y - eta), (q - 1) * (y - eta))[:, 0]
        off = np.max(np.abs(smooth - pinball))
        assert width / 8 <= off <= width / 4 * (1 + 1e-9)


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


BAD = [
    (Logistic(), [0, 2, 1], "labels 0 and 1"),
    (SquaredHinge(), [0, 2, 1], "labels 0 and 1"),
    (SquaredHinge(), [1, 1, 0], "both classes"),
    (Poisson(), [1, -2, 0], "Poisson wants counts, numbers of at least 0, got -2"),
    (Poisson(), [0, 0, 1], "above 0"),
    (NegativeBinomial(2.0), [1, -2, 0], "NegativeBinomial wants counts, numbers of at least 0, got -2"),
    (NegativeBinomial(2.0), [0, 0, 1], "above 0"),
    (Gamma(), [1, 0, 2], "Gamma wants numbers above 0, got 0"),
    (Gamma(), [1, -3, 2], "Gamma wants numbers above 0, got -3"),
    (Cox([0, 0, 1]), [1, 2, 3], "some events"),
    (Cox([1, 0, 1], [0, 2, 0]), [1, 2, 3], "row 1 starts at 2, got 2"),
]
GOOD = [
    (SquaredHinge(), [-1, 1, 1]),
    (Poisson(), [0, 0.5, 0]),
    (NegativeBinomial(2.0), [0, 3, 0]),
    (Gamma(), [1e-3, 3, 2]),
    (Huber(1.0), [-1, 0, 1]),
    (Quantile(0.5, 0.1), [-1, 0, 1]),
    (Cox([0, 1, 0]), [-1, 2, 2]),
    (Cox([0, 1, 0], [-2, 1, 1]), [-1, 2, 2]),
]


@pytest.mark.parametrize(("loss", "y", "words"), BAD + [(*good, "") for good in GOOD], ids=str)
def test_complaints_and_traced_answers_agree(loss, y, words):
    half, y = jnp.array([0.5, 0.5, 0.0]), jnp.array(y, float)
    complaint = loss.complaint(y, half)
    assert words in complaint
    assert bool(complaint) == bool(words)
    answer = jax.jit(lambda loss, y: loss.answerable(loss.encode(y), half))(loss, y)
    assert bool(answer) == (not words)
    each_row = any(part in words for part in ("labels", "at least 0", "Gamma", "row 1"))  # and not the whole of y
    assert bool(jnp.any(jnp.isnan(jax.jit(lambda loss, y: loss.encode(y))(loss, y)))) == each_row
    assert not jax.jit(lambda loss, y: loss.answerable(loss.encode(y), half))(loss, y.at[0].set(jnp.nan))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Huber(0.0), "delta: want a finite number above 0, got 0.0"),
        (lambda: Huber(np.nan), "delta: want"),
        (lambda: Huber("1"), "delta: want a number"),
        (lambda: NegativeBinomial(-1), "theta: want a finite number above 0, got -1.0"),
        (lambda: NegativeBinomial(np.inf), "theta: want"),
        (lambda: Quantile(0, 0.1), "q: want numbers between 0 and 1, got 0.0"),
        (lambda: Quantile(1, 0.1), "q: want"),
        (lambda: Quantile(0.5, 0), "width: want a finite number above 0"),
        (lambda: Cox([0, 1, 2]), "event: want 1 for each event and 0"),
        (lambda: Cox([0, 0.5]), "event: want 1 for each event and 0"),
        (lambda: Cox(1), "event: want one value for each row"),
        (lambda: Cox([1, 0], 0), "start: want one value for each row"),
        (lambda: Cox([1, 0], [np.nan, 0]), "start: want finite times"),
        (lambda: Cox([1, 0], ties="exact"), 'ties: want "breslow" or "efron", got .exact.'),
        (lambda: Cox([1, 0]).encode(jnp.ones(3)), r"want event and y of one shape, got \(2,\) and \(3,\)"),
        (lambda: Cox([1, 0, 1], [0, 0]).encode(jnp.ones(3)), "want start and y of one shape"),
        (lambda: Cox(None).encode(jnp.ones(3)), "event: want 1 for each event"),
        (lambda: Huber(np.ones(2)).value(*jnp.ones((3, 3))), "delta: want one number, or one for each row"),
    ],
)  # fmt: skip
def test_bad_hyperparameters_are_refused_by_name(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_losses_are_data(case):
    loss = case.loss
    assert not callable(loss)
    leaves = [getattr(loss, field.name) for field in dataclasses.fields(loss) if not field.metadata.get("static")]
    given = jax.tree.leaves(loss)
    assert all(a is b for a, b in zip(given, [leaf for leaf in leaves if leaf is not None], strict=True))
    for other in (pickle.loads(pickle.dumps(loss)), dataclasses.replace(loss)):
        assert jax.tree.structure(other) == jax.tree.structure(loss)
        jax.tree.map(np.testing.assert_array_equal, other, loss)
    assert repr(loss).startswith(f"{type(loss).__name__}(")
