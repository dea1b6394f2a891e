"""Where a lambda path starts, and the grid it runs over."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import concrete, eps
from l1jax.certificate import downhill, newton_step, refit, shortened, size
from l1jax.penalties import Penalty
from l1jax.problem import Problem, check_values, numeric, on_device
from l1jax.standard_form import StandardForm, possible, prepared

CORNER = 1e-3  # grids of (nearly) smooth penalties start where an l1_ratio of 1e-3 would


def lambda_max(problem: Problem) -> Array:
    """min { lam : the solution has coef = 0 in every penalised place }.

    Args:
      problem: the problem; its penalty's own strength plays no part (a vector of strengths is refused: use `Factors`).

    For L1 and the squared loss it is max_j |x_j'(s*r)| with r the residual of the null model, which holds the
    intercept and the unpenalised coefficients; it is rounded up by a few ulp, so that the solution there is exactly
    zero (to the tolerance, if unpenalised coefficients have bounds). Infinite for a penalty without a corner at 0
    (L2), 0 for NoPenalty. Raises ValueError for bounds that exclude 0. Scalar; may be jitted and batched.

    >>> round(float(lambda_max(Problem([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0], penalty=L1(0.1)))), 4)
    1.0
    """
    check_values(problem)
    check_one_strength(problem.penalty)
    return _start(*prepared(problem), 0.0)


def lambda_grid(problem: Problem, *, num: int = 100, ratio: float | Array | None = None) -> Array:
    """lambda_max * ratio^(k/(num-1)), k = 0..num-1: strengths from all zeros down, evenly spaced in the logarithm.

    Args:
      problem: the problem.
      num: how many strengths, at least 1.
      ratio: the last over the first, between 0 and 1; by default 1e-4 if n > p and else 1e-2, as glmnet.

    L2 and elastic nets with l1_ratio < 1e-3, for which no (useful) lambda gives zeros, start where l1_ratio = 1e-3
    would. Raises ValueError where there is no such grid: NoPenalty, bounds that exclude 0, a response that the
    columns don't explain at all (lambda_max = 0).

    >>> problem = Problem([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0], penalty=L1(0.1))
    >>> print([f"{lam:.3f}" for lam in lambda_grid(problem, num=3, ratio=0.25)])
    ['1.000', '0.500', '0.250']
    """
    check_values(problem)
    check_one_strength(problem.penalty)
    return grid_of(problem.X.shape, *prepared(problem), num, ratio)


def grid_of(shape: tuple[int, int], form: StandardForm, penalty: Penalty, num: int, ratio: Any) -> Array:
    """The grid of a prepared problem."""
    start = _start(form, penalty, CORNER)
    if concrete(start) and not float(start) > 0:
        raise ValueError(
            "lambda_grid: there is no grid, as lambda_max is 0: the penalty penalises nothing, or y is constant or "
            "unrelated to every column. Pass lams=[...] instead."
        )
    return grid_from(start, shape, num, ratio)


def grid_from(start: Array, shape: tuple[int, int], num: int, ratio: Any) -> Array:
    """start * ratio^(k/(num-1)), for data of that shape."""
    n, p = shape
    if isinstance(num, bool) or not isinstance(num, int | np.integer) or num < 1:
        raise ValueError(f"num: want a whole number of lambdas, at least 1; got {num!r}")
    if ratio is None:
        ratio = 1e-4 if n > p else 1e-2
    if concrete(ratio) and not 0 < float(ratio) < 1:
        raise ValueError(f"ratio: want a number between 0 and 1, got {ratio}")
    return _geometric(num, start, ratio)


@functools.partial(jax.jit, static_argnums=0)
def _geometric(num: int, start: Array, ratio: Any) -> Array:
    exponents = jnp.linspace(0.0, 1.0, num, dtype=start.dtype)
    return start * jnp.asarray(ratio, start.dtype) ** exponents


def _start(form: StandardForm, penalty: Penalty, corner: float) -> Array:
    lam = critical(form, penalty, corner, has_unpriced(penalty, form))
    if concrete(lam):
        check_fit(form)
    if corner and concrete(lam) and np.isinf(lam):
        raise ValueError("lambda_grid: no lambda gives zero coefficients with this penalty. Pass lams=[...] instead.")
    if concrete(lam) and np.isnan(lam):
        raise ValueError(
            "penalty: its bounds exclude 0, so no lambda gives zero coefficients. Pass lams=[...] instead."
        )
    return lam


def check_fit(form: StandardForm) -> None:
    """Refuse data without an answer, whose values have been found good."""
    if concrete(form.fit) and not bool(form.fit):
        raise ValueError("X, y: their squares are too large or too small for the dtype; change their units")


def has_unpriced(penalty: Penalty, form: StandardForm) -> bool:
    """Whether some coefficient may have no price."""
    return possible(_any_unpriced, penalty, form)


@jax.jit
def _any_unpriced(penalty: Any, zero: Array) -> Array:
    """Whether some coefficient has no price, at whatever strength."""
    return jnp.any(penalty.with_lam(1.0).unpriced(zero))


@functools.partial(jax.jit, static_argnames=("corner", "unpriced"))
def critical(form: StandardForm, penalty: Any, corner: float = 0.0, unpriced: bool = True) -> Array:
    """The smallest strength at which zero is optimal; NaN if zero is not allowed or the data have no answer.

    `unpriced` says (statically) whether some coefficients may have no price, and so are fitted first.
    """
    unit = form.units(penalty).with_lam(1.0)
    zero, _ = form.start
    v = downhill(form, _null_model(form, unit) if unpriced else form.offset)
    u = jnp.where(unit.unpriced(zero), 0.0, form.design.tdot(v))
    # Rounded up by a few ulp, of lam and of the sums whose rounding it carries.
    u = u + jnp.sign(u) * 8 * eps(u.dtype) * size(v, form.s)
    lam = unit.critical_lam(u, corner) * (1 + 32 * eps(u.dtype))
    allowed = jnp.isfinite(unit.value(zero))
    return jnp.where(allowed & form.fit & penalty.valid(zero), lam, jnp.nan)


def _null_model(form: StandardForm, penalty: Any) -> Array:
    """The linear predictor of the best model in which every priced coefficient is 0.

    Unpriced ones may have bounds: those that hit one stay there, until all else has settled and one is let go.
    Source: Lawson and Hanson (1974), "Solving Least Squares Problems", chapter 23, with Newton steps for the fit.
    """
    zero, none = form.start
    unpriced, free = penalty.unpriced(zero), penalty.free(zero)
    z, b, eta = refit(form, penalty, zero, none, equalities=True)

    def loss(eta: Array) -> Array:
        return form.loss.value(eta, form.y, form.s)

    def unfinished(carry: Any) -> Array:
        *_, done, k = carry
        return ~done & (k < 4 * form.shape[1] + 50)

    def body(carry: Any) -> Any:
        z, b, eta, moving, _, k = carry
        db, dz, deta = newton_step(form, moving, eta)
        inside = penalty.project(z + dz)
        room = jnp.where(inside != z + dz, (inside - z) / jnp.where(dz == 0, 1.0, dz), 1.0)
        here = loss(eta) * (1 + 8 * eps(eta.dtype))
        t = shortened(lambda t: loss(eta + t * deta) > here, 2.0, jnp.min(room))
        hit = (room <= t) & (room < 1)
        z, b = jnp.where(hit, inside, z + t * dz), b + t * db
        eta = form.eta(z, b)
        v = -form.loss.gradient(eta, form.y, form.s)
        u = form.design.tdot(v)
        noise = 64 * eps(u.dtype) * size(v, form.s)
        still = t * jnp.max(jnp.abs(deta)) <= eps(u.dtype) * jnp.max(jnp.abs(eta))
        settled = ~jnp.any(hit) & (still | (jnp.max(jnp.where(moving, jnp.abs(u), 0.0)) <= noise))
        inward = unpriced & ~moving & (penalty.project(z + jnp.sign(u)) != z)
        pull = jnp.where(inward, jnp.abs(u), 0.0)
        let_go = settled & (pull > noise) & (pull == jnp.max(pull))
        return z, b, eta, (moving & ~hit) | let_go, settled & ~jnp.any(let_go), k + 1

    start = (z, b, eta, free, jnp.all(free == unpriced), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, body, start)[2]


def check_one_strength(penalty: Any) -> None:
    """Refuse a strength that is an array where one number is varied."""
    if jnp.ndim(penalty.lam):
        raise ValueError(
            f"penalty: want one strength, got lam of shape {jnp.shape(penalty.lam)}; "
            "give each coefficient its own with Factors(L1(lam), factors)"
        )


def check_lams(lams: ArrayLike, problem: Problem) -> Array:
    """Strengths (L,) as an array of the problem's dtype."""
    array = on_device(numeric(lams, "lams"), problem.dtype)
    if array is None or array.ndim != 1 or array.shape[0] == 0:
        raise ValueError(f"lams: want strengths of shape (L,), L at least 1; got {np.shape(lams)}")
    if concrete(array) and not np.all(np.isfinite(array) & (np.asarray(array) >= 0)):
        raise ValueError(f"lams: want finite numbers of at least 0, got {array}")
    return array


def descending(lams: Array) -> tuple[Array, Array | None]:
    """The strengths from the largest down, and where each came from; None if they were in order."""
    if concrete(lams) and np.all(np.diff(np.asarray(lams)) <= 0):
        return lams, None
    order = jnp.argsort(-lams, stable=True)
    return lams[order], jnp.argsort(order)
