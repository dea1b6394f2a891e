"""The proximal maps against their definitions, blindly; and at the edges of their domain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import INF, least

from l1jax import clip_to_bounds, elastic_net, shrink, soft_threshold

V = np.array([-6.0, -2.0, -1.0, -0.7, -0.5, -0.0, 0.0, 0.3, 0.5, 0.7, 1.0, 2.5, 6.0])

MAPS = {  # name: (map, arguments, the function whose map it is, its kinks)
    "soft_threshold": (soft_threshold, (0.7,), lambda w: 0.7 * np.abs(w), [-0.7, 0.7]),
    "soft_threshold at 0": (soft_threshold, (0.0,), lambda w: 0 * w, []),
    "shrink": (shrink, (0.6,), lambda w: 0.3 * w**2, []),
    "elastic_net": (elastic_net, (0.5, 0.6), lambda w: 0.5 * np.abs(w) + 0.3 * w**2, [-0.5, 0.5]),
    "elastic_net without a threshold": (elastic_net, (0.0, 0.6), lambda w: 0.3 * w**2, []),
    "clip_to_bounds": (clip_to_bounds, (-1.0, 0.5), lambda w: np.where((w < -1) | (w > 0.5), INF, 0), [-1.0, 0.5]),
    "clip_to_bounds from 0": (clip_to_bounds, (-0.0, INF), lambda w: np.where(w < 0, INF, 0), [0.0]),
    "clip_to_bounds of nothing": (clip_to_bounds, (-INF, INF), lambda w: 0 * w, []),
}


@pytest.fixture(params=MAPS)
def case(request):
    return MAPS[request.param]


def test_each_map_minimises_its_definition(case):
    f, given, function, _ = case
    np.testing.assert_allclose(f(V, *given), least(lambda w: (w - V) ** 2 / 2 + function(w), V.shape), atol=1e-6)


def test_derivatives_at_a_kink_are_those_of_the_constant_side(case):
    f, given, _, kinks = case
    derivative = jax.vmap(jax.grad(lambda v: f(v, *given)))
    h = 1e-6
    smooth = V[~np.isin(V, kinks)]
    difference = (f(smooth + h, *given) - f(smooth - h, *given)) / (2 * h)
    np.testing.assert_allclose(derivative(jnp.asarray(smooth)), difference, atol=1e-8)
    if kinks:
        np.testing.assert_array_equal(derivative(jnp.array(kinks)), 0.0)
        sides = derivative(jnp.array([[k - h, k + h] for k in kinks]).ravel()).reshape(-1, 2)
        assert np.all(np.min(sides, axis=1) == 0)
        assert np.all(np.max(sides, axis=1) > 0.5)


def test_derivatives_with_respect_to_the_arguments():
    v = jnp.array([-2.0, 3.0])
    np.testing.assert_array_equal(jax.jacfwd(soft_threshold, 1)(v, 0.0), [1.0, -1.0])
    np.testing.assert_array_equal(jax.jacfwd(soft_threshold, 1)(v, 2.5), [0.0, -1.0])
    np.testing.assert_array_equal(jax.jacfwd(shrink, 1)(v, 0.0), -v)
    np.testing.assert_array_equal(jax.jacfwd(clip_to_bounds, 1)(v, -1.0, 5.0), [1.0, 0.0])
    np.testing.assert_array_equal(jax.jacfwd(clip_to_bounds, 2)(v, -5.0, 1.0), [0.0, 1.0])


def test_integers_are_taken_as_floats(case):
    f, given, *_ = case
    v = np.array([-3, 0, 2])
    np.testing.assert_array_equal(f(v, *given), f(v.astype(float), *given))
    assert f(3, *given).dtype == float


def test_infinite_arguments():
    np.testing.assert_array_equal(soft_threshold(V, INF), 0)
    np.testing.assert_array_equal(shrink(V, INF), 0)
    np.testing.assert_array_equal(elastic_net(V, INF, 1.0), 0)
    np.testing.assert_array_equal(elastic_net(V, 1.0, INF), 0)
    assert soft_threshold(INF, 1.0) == INF
    assert np.all(np.isfinite(jax.grad(lambda v: jnp.sum(soft_threshold(v, INF)))(jnp.asarray(V))))


def test_arguments_broadcast():
    t = np.array([0.0, 1.0, INF])
    np.testing.assert_array_equal(soft_threshold(2.0, t), [2, 1, 0])
    np.testing.assert_array_equal(soft_threshold(np.full(3, 2.0), t), [2, 1, 0])
    np.testing.assert_array_equal(elastic_net(np.full(3, 2.0), t, [0, 1, 1]), [2, 0.5, 0])


def test_complex_numbers_are_refused(case):
    f, given, *_ = case
    with pytest.raises(TypeError, match="complex"):
        f(1j, *given)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_dtypes_are_kept_and_there_is_no_minus_0(case, dtype):
    f, given, *_ = case
    tiny = float(jnp.finfo(dtype).smallest_subnormal)
    v = jnp.asarray([*V, tiny, -tiny]).astype(dtype)
    for found in (f(v, *given), jax.jit(f)(v, *given), f(v, *(10 * a for a in given))):
        assert found.dtype == v.dtype
        assert not np.any(np.signbit(found) & (np.asarray(found) == 0))
    np.testing.assert_allclose(f(v, *given).astype(float), f(v.astype(float), *given),
                               rtol=4 * float(jnp.finfo(dtype).eps), atol=2 * float(jnp.finfo(dtype).eps))  # fmt: skip


def test_jit_and_vmap_change_nothing(case):
    f, given, *_ = case
    want = f(V, *given)
    np.testing.assert_array_equal(jax.jit(f)(V, *given), want)
    np.testing.assert_array_equal(jax.vmap(lambda v: f(v, *given))(jnp.asarray(V)), want)
