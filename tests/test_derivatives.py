"""Derivatives of solutions where coefficients are tied together or the penalty is not convex, against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l1jax import (
    MCP,
    SLOPE,
    GroupLasso,
    L1Ball,
    LogSum,
    Multinomial,
    MultiSquared,
    NuclearNorm,
    Problem,
    SparseGroupLasso,
    Squared,
    TotalVariation,
    solve,
)

RNG = np.random.default_rng(3)
N, P, K = 40, 6, 3
X = RNG.normal(size=(N, P)) + 0.5
BETA = np.array([1.0, 1.2, 0, 0, 0.4, -1])
Y = X @ BETA + RNG.normal(size=N)
MANY = X @ np.outer(BETA, [1, -0.5, 0.2]) + RNG.normal(size=(N, K))
GROUPS = [0, 0, 1, 1, 2, 2]
ALONG = RNG.normal(size=(N, P)), RNG.normal(size=N)

CASES = {  # the loss, the response, the penalty at t, and lam
    "sparse group lasso": (Squared(), Y, lambda t: SparseGroupLasso(t, GROUPS, l1_ratio=0.4), 0.25),
    "slope": (Squared(), Y, lambda t: SLOPE(np.linspace(2, 1, P), t), 0.25),
    "total variation": (Squared(), Y, TotalVariation, 0.25),
    "l1 ball": (Squared(), Y, lambda t: L1Ball(4 * t), 0.5),
    "rows": (Multinomial(K), np.argmax(MANY, axis=1) * 1.0, lambda t: GroupLasso(t, range(P)), 0.05),
    "nuclear norm": (MultiSquared(), MANY, NuclearNorm, 0.5),
    "mcp": (Squared(), Y, MCP, 0.25),
    "log sum": (Squared(), Y, lambda t: LogSum(t, 2.0), 0.25),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_of_solutions_are_those_of_differences(name):
    loss, y, penalty, lam = CASES[name]
    move = ALONG[1] if isinstance(loss, Squared) and y.ndim == 1 else 0 * y

    def answer(t):
        """Along t, lam, X and y move together."""
        problem = Problem(X + t * ALONG[0], y + t * move, loss=loss, penalty=penalty(lam + t))
        found = solve(problem, tol=1e-15, max_steps=20_000)
        return jnp.concatenate([found.coef, found.intercept[None]])

    h = 1e-4
    further_below, below, here, above, further = jax.jit(jax.vmap(answer))(h * jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    numeric = (8 * (above - below) - (further - further_below)) / (12 * h)
    size = float(jnp.max(jnp.abs(numeric)))
    assert size > 0.1
    if name != "nuclear norm":
        assert np.all((np.asarray(above) == 0) == (np.asarray(here) == 0))  # no change of support between
    _, forward = jax.jit(lambda t, d: jax.jvp(answer, (t,), (d,)))(0.0, 1.0)
    np.testing.assert_allclose(forward, numeric, rtol=0, atol=1e-6 * size)
    if name in ("sparse group lasso", "nuclear norm"):
        weight = jnp.cos(jnp.arange(forward.size, dtype=float)).reshape(forward.shape)
        reverse = jax.jit(jax.grad(lambda t: jnp.sum(answer(t) * weight)))(0.0)
        np.testing.assert_allclose(reverse, jnp.sum(forward * weight), rtol=1e-9)
