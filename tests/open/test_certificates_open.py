"""Laws of certificates that do not hold yet."""

from test_certificates import *


@pytest.mark.parametrize(("loss", "fit_intercept", "standardize"), STATIC, ids=STATIC_IDS)
def test_lambda_max_is_sharp_on_both_sides(loss, fit_intercept, standardize):
    """At lambda_max every penalised coefficient is exactly 0; 1e-6 below it, some is not."""
    cases = [
        case
        for name, case in cases_of(loss, fit_intercept, standardize).items()
        if np.all(np.asarray(case.lower) <= 0) and case.ratio > 0 and np.any(np.asarray(case.factors) > 0)
    ]
    values = tuple(np.stack(part) for part in zip(*(case.values() for case in cases), strict=True))

    def pose(values, lam):
        problem = assemble(values, loss, fit_intercept, standardize)
        return dataclasses.replace(problem, penalty=problem.penalty.with_lam(lam))

    def ends(values):
        lam = l1jax.lambda_max(pose(values, 1.0))
        solved = [l1jax.solve(pose(values, lam * c), tol=1e-15, max_steps=20_000) for c in (1.0, 1 - 1e-6)]
        return lam, *((s.coef, s.gap) for s in solved)

    lams, (at, gap_at), (below, gap_below) = jax.device_get(jax.jit(jax.vmap(ends))(values))
    for k, case in enumerate(cases):
        penalised = np.broadcast_to(case.factors, P) > 0
        assert np.all(at[k][penalised] == 0)
        assert np.any(below[k][penalised] != 0)
        assert gap_at[k] <= 1e-11
        assert gap_below[k] <= 1e-11
        assert 0 < lams[k] < np.inf


def test_separable_classes_without_penalty_have_no_bound():
    y = (X[:, 0] > np.median(X[:, 0])).astype(float)
    problem = l1jax.Problem(X, y, loss=l1jax.Logistic(), penalty=l1jax.NoPenalty())
    found = l1jax.solve(problem, max_steps=200, tol=1e-8)
    assert found.gap == np.inf
    assert not found.converged
    assert l1jax.duality_gap(problem, jnp.ones(P)) == np.inf
