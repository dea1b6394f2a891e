"""Proximal maps as plain functions: `prox(v) = argmin_w 1/2 (w - v)^2 + f(w)`, coefficient by coefficient.

Arguments broadcast, scalars against arrays. All maps can be jitted, batched and differentiated (where a map has
a kink, the derivative is that of the side on which the answer is constant), and none returns -0.0.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import eps, floating, unsigned_zero


def soft_threshold(v: ArrayLike, t: ArrayLike) -> Array:
    """sign(v) * max(|v| - t, 0): the proximal map of t*|w|.

    Args:
      v: the points, of any shape.
      t: the thresholds, at least 0, in the units of `v`; infinity gives 0.

    Source: Donoho (1995), "De-noising by soft-thresholding", IEEE Trans. Inf. Theory 41(3), eq. 5.

    >>> import jax.numpy as jnp
    >>> soft_threshold(jnp.array([-3.0, -0.5, 2.0]), 1.0)
    Array([-2.,  0.,  1.], dtype=float32)
    """
    v = floating(v)
    t = jnp.asarray(t, v.dtype)
    inside = (jnp.abs(v) <= t) & (t > 0)  # without a threshold there is no kink at 0
    return jnp.where(inside, jnp.zeros_like(v), v - jnp.copysign(t, v))


def shrink(v: ArrayLike, t: ArrayLike) -> Array:
    """v / (1 + t): the proximal map of t/2 * w^2 (never exactly zero unless v is).

    Args:
      v: the points, of any shape.
      t: the curvatures, at least 0, without unit.

    Source: Parikh and Boyd (2014), "Proximal Algorithms", section 6.1.1.

    >>> import jax.numpy as jnp
    >>> shrink(jnp.array([-3.0, 1.0]), 1.0)
    Array([-1.5,  0.5], dtype=float32)
    """
    v = floating(v)
    return unsigned_zero(v / (1 + jnp.asarray(t, v.dtype)))


def elastic_net(v: ArrayLike, t1: ArrayLike, t2: ArrayLike) -> Array:
    """soft_threshold(v, t1) / (1 + t2): the proximal map of t1*|w| + t2/2 * w^2.

    Args:
      v: the points, of any shape.
      t1: the thresholds, at least 0, in the units of `v`.
      t2: the curvatures, at least 0, without unit.

    Source: Zou and Hastie (2005), "Regularization and variable selection via the elastic net", eq. 12 without
    their rescaling.

    >>> import jax.numpy as jnp
    >>> elastic_net(jnp.array([-3.0, 0.5]), 1.0, 1.0)
    Array([-1.,  0.], dtype=float32)
    """
    return shrink(soft_threshold(v, t1), t2)


def clip_to_bounds(v: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Array:
    """min(max(v, lower), upper): the proximal map of the indicator of [lower, upper], whatever the step.

    Args:
      v: the points, of any shape.
      lower: the least values, in the units of `v`; -infinity for none.
      upper: the greatest values; infinity for none.

    After the proximal map of any convex function of one coefficient it gives the map of that function plus the
    bounds. Source: Parikh and Boyd (2014), "Proximal Algorithms", section 6.2.4.

    >>> import jax.numpy as jnp
    >>> clip_to_bounds(jnp.array([-3.0, 0.5]), 0.0, jnp.inf)
    Array([0. , 0.5], dtype=float32)
    """
    v = floating(v)
    lower, upper = jnp.asarray(lower, v.dtype), jnp.asarray(upper, v.dtype)
    return unsigned_zero(jnp.where(v <= lower, lower, jnp.where(v >= upper, upper, v)))


def hard_threshold(v: ArrayLike, t: ArrayLike) -> Array:
    """v where v^2 > 2*t, else 0: the proximal map of t*[w != 0].

    Args:
      v: the points, of any shape.
      t: the price of a nonzero, at least 0, in the squared units of `v`. A tie goes to 0.

    Source: Donoho and Johnstone (1994), "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81(3), eq. 11,
    at the threshold sqrt(2*t).

    >>> import jax.numpy as jnp
    >>> hard_threshold(jnp.array([-3.0, -1.0, 2.0]), 2.0)
    Array([-3.,  0.,  0.], dtype=float32)
    """
    v = floating(v)
    return jnp.where(jnp.abs(v) > jnp.sqrt(2 * jnp.asarray(t, v.dtype)), v, jnp.zeros_like(v))


def half_threshold(v: ArrayLike, t: ArrayLike) -> Array:
    """2/3 * v * (1 + cos(2*pi/3 - 2/3 * acos(t/4 * (|v|/3)^(-3/2)))) where |v| > 3/2 * t^(2/3), else 0.

    Args:
      v: the points, of any shape.
      t: the strength, at least 0, in the units of `v` to the power 3/2.

    The proximal map of t*sqrt(|w|). A tie goes to 0. Source: Xu, Chang, Xu, Zhang (2012), "L1/2 regularization: a
    thresholding representation theory and a fast solver", IEEE Trans. Neural Netw. 23(7), theorem 1.

    >>> import jax.numpy as jnp
    >>> half_threshold(jnp.array([-3.0, 1.0]), 1.0).round(4)
    Array([-2.6955,  0.    ], dtype=float32)
    """
    v = floating(v)
    t = jnp.asarray(t, v.dtype)
    size = jnp.abs(v)
    out = size > 1.5 * jnp.cbrt(t) ** 2
    third = jnp.where(out, size, 1.0) / 3
    angle = jnp.arccos(jnp.clip(jnp.where(out, t, 0.0) / 4 / (third * jnp.sqrt(third)), 0, 1))
    return jnp.where(out, v * (2 / 3) * (1 + jnp.cos(2 * (jnp.pi - angle) / 3)), jnp.zeros_like(v))


def log_threshold(v: ArrayLike, t: ArrayLike, eps: ArrayLike) -> Array:
    """The larger root of (w - |v|)*(w + eps) + t = 0, signed as v, where it costs less than 0; else 0.

    Args:
      v: the points, of any shape.
      t: the strength, at least 0, in the squared units of `v`.
      eps: where the logarithm bends, above 0, in the units of `v`.

    The proximal map of t*log(1 + |w|/eps). A tie goes to 0. Source: Gong, Zhang, Lu, Huang, Ye (2013), "A general
    iterative shrinkage and thresholding algorithm for non-convex regularized optimization problems", ICML, section 2.3.

    >>> import jax.numpy as jnp
    >>> log_threshold(jnp.array([-3.0, 1.0]), 1.0, 0.5).round(4)
    Array([-2.6861,  0.    ], dtype=float32)
    """
    v = floating(v)
    t, eps = jnp.asarray(t, v.dtype), jnp.asarray(eps, v.dtype)
    size = jnp.abs(v)
    square = (size + eps) ** 2 - 4 * t
    root = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    w = jnp.maximum((size - eps + root) / 2, 0.0)
    better = (square > 0) & (w > 0) & ((w - size) ** 2 / 2 + t * jnp.log1p(w / eps) < size**2 / 2)
    return jnp.where(better, jnp.copysign(w, v), jnp.zeros_like(v))


def firm_threshold(v: ArrayLike, lam: ArrayLike, gamma: ArrayLike, step: ArrayLike) -> Array:
    """soft_threshold(v, step*lam) / (1 - step/gamma) where |v| <= gamma*lam, else v, if step < gamma.

    Args:
      v: the points, of any shape.
      lam: the slope of the penalty at 0, at least 0, in the units of `v` over that of `step`.
      gamma: how slowly it bends, above 0, in the units of `step`.
      step: the step, at least 0.

    The proximal map of step*MCP. From step = gamma on the quadratic is concave: then the map is hard thresholding at
    lam*sqrt(gamma*step). A tie goes to 0.

    Source: Zhang (2010), "Nearly unbiased variable selection under minimax concave penalty", Ann. Statist. 38(2),
    eq. 2.14.

    >>> import jax.numpy as jnp
    >>> firm_threshold(jnp.array([-1.0, 2.0, 4.0]), 1.0, 3.0, 1.0).round(4)
    Array([0. , 1.5, 4. ], dtype=float32)
    """
    v = floating(v)
    lam, gamma, step = (jnp.asarray(a, v.dtype) for a in (lam, gamma, step))
    size = jnp.abs(v)
    bends = step < gamma
    inner = jnp.copysign((size - step * lam) / jnp.where(bends, 1 - step / gamma, 1.0), v)
    firm = jnp.where(size <= gamma * lam, jnp.where(size > step * lam, inner, jnp.zeros_like(v)), v)
    hard = jnp.where(size > lam * jnp.sqrt(gamma * step), v, jnp.zeros_like(v))
    return jnp.where(bends, firm, hard)


def scad_threshold(v: ArrayLike, lam: ArrayLike, gamma: ArrayLike, step: ArrayLike) -> Array:
    """The best of soft_threshold(v, step*lam), ((gamma-1)*v - sign(v)*gamma*lam*step)/(gamma-1-step) and v.

    Args:
      v: the points, of any shape.
      lam: the slope of the penalty at 0, at least 0, in the units of `v` over that of `step`.
      gamma: the penalty is flat from gamma*lam on; above 1 (in units in which `step` is 1).
      step: the step, at least 0.

    Each is held to the piece of the penalty it is the minimiser on: |w| <= lam, lam <= |w| <= gamma*lam and beyond.
    The proximal map of step*SCAD, for every step: a comparison, as the formulas of the pieces alone hold only for
    step < gamma - 1. A tie goes to the smaller |w|. Source: Fan and Li (2001), "Variable selection via nonconcave
    penalized likelihood and its oracle properties", JASA 96(456), eq. 2.8, at step 1.

    >>> import jax.numpy as jnp
    >>> scad_threshold(jnp.array([-1.5, 3.0, 5.0]), 1.0, 3.5, 1.0).round(4)
    Array([-0.5   ,  2.6667,  5.    ], dtype=float32)
    """
    v = floating(v)
    lam, gamma, step = (jnp.asarray(a, v.dtype) for a in (lam, gamma, step))
    size = jnp.abs(v)
    bends = step < gamma - 1
    soft = jnp.clip(size - step * lam, 0, lam)
    middle = ((gamma - 1) * size - gamma * lam * step) / jnp.where(bends, gamma - 1 - step, 1.0)
    middle = jnp.where(bends, jnp.clip(middle, lam, gamma * lam), soft)
    flat = jnp.maximum(size, gamma * lam)

    def cost(w: Array) -> Array:
        return (w - size) ** 2 / 2 + step * scad(w, lam, gamma)

    best = jnp.where(cost(middle) < cost(soft), middle, soft)
    best = jnp.where(cost(flat) < jnp.minimum(cost(middle), cost(soft)), flat, best)
    return jnp.where(best == 0, jnp.zeros_like(v), jnp.copysign(best, v))


def scad(size: Array, lam: Array, gamma: Array) -> Array:
    """The SCAD penalty at |w| = size: lam*size, then a parabola, then lam^2*(gamma+1)/2."""
    curved = (2 * gamma * lam * size - size**2 - lam**2) / (2 * (gamma - 1))
    return jnp.where(size <= lam, lam * size, jnp.where(size <= gamma * lam, curved, lam**2 * (gamma + 1) / 2))


def clip_to_total(v: ArrayLike, t: ArrayLike) -> Array:
    """clip(v, -k, k), the level k such that what is clipped off sums to t; 0 if all of v does: the map of t*max|w|.

    Args:
      v: the point, (p,).
      t: the strength, at least 0, in the units of `v`.

    Source: Parikh and Boyd (2014), "Proximal Algorithms", section 6.5.2, by the projection of Held, Wolfe, Crowder
    (1974), Math. Programming 6.

    >>> import jax.numpy as jnp
    >>> clip_to_total(jnp.array([3.0, -2.0, 0.5]), 2.0)
    Array([ 1.5, -1.5,  0.5], dtype=float32)
    """
    v = floating(v)
    t = jnp.asarray(t, v.dtype)
    top = jnp.maximum(level(jnp.abs(v), t), 0.0)
    return unsigned_zero(jnp.where(jnp.abs(v) > top, jnp.copysign(top, v), v))


def level(v: Array, total: Array) -> Array:
    """The level above which the entries of a vector hold `total` in all; entries of -infinity don't count.

    Source: Held, Wolfe, Crowder (1974), "Validation of subgradient optimization", Math. Programming 6, section 4.
    """
    x = -jnp.sort(-jax.lax.stop_gradient(v))
    sums = jnp.cumsum(jnp.where(jnp.isinf(x), 0.0, x)) - jax.lax.stop_gradient(total)
    means = sums / jnp.arange(1, x.size + 1, dtype=v.dtype)
    found = jnp.max(jnp.where(jnp.isinf(x), -jnp.inf, means), initial=-jnp.inf)
    # The same again as a formula of the entries above it, whose derivative is that of one side also at ties.
    above = v > found
    count = jnp.sum(above, dtype=v.dtype)
    exact = (jnp.sum(jnp.where(above, v, 0.0)) - jnp.where(count > 0, total, 0.0)) / jnp.maximum(count, 1.0)
    return jnp.where(count > 0, exact, found)


@jax.custom_jvp
def threshold_spectrum(v: Array, t: Array) -> Array:
    """U * max(s - t, 0) * V' for v = U s V': the proximal map of t times the nuclear norm, of a matrix (m, k).

    Its derivatives, of any order, are those of the function of the matrix, also where singular values are equal and the
    vectors' own derivatives are not finite. Source: Cai, Candès, Shen (2010), "A singular value thresholding algorithm
    for matrix completion", SIAM J. Optim. 20(4).
    """
    return _product(*_thresholded(v, t)[:3])


@threshold_spectrum.defjvp
def _threshold_spectrum_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return threshold_spectrum(*primals), jax.jvp(_smoothly, primals, tangents)[1]


def _smoothly(v: Array, t: Array) -> Array:
    """The same by functions of C = v'v that have derivatives of any order, whatever singular values are equal.

    v P (I - t R^-1), P the projector onto what is kept and R the root of C there.
    """
    if v.shape[0] < v.shape[1]:
        return _smoothly(v.T, t).T
    _, left, V, s = _thresholded(*jax.lax.stop_gradient((v, t)))
    P, inverse = _kept(v, V, s, left > 0)
    return _product(v, None, P - t * inverse)


def _kept(v: Array, V: Array, s: Array, kept: Array) -> tuple[Array, Array]:
    """P, and R^-1 P."""
    one, C = jnp.eye(len(s), dtype=v.dtype), _product(v.T, None, v)
    P = _projector(C, V, s**2, kept.astype(v.dtype))
    unit = jnp.max(s, initial=0.0)
    unit = jnp.where(unit > 0, unit, 1.0)
    R = _root(_product(_product(P, None, C), None, P) + unit**2 * (one - P), V, jnp.where(kept, s, unit))
    return P, jnp.linalg.solve(R, P)


@jax.custom_jvp
def spectrum_sum(v: Array) -> Array:
    """The sum of the singular values of a matrix (m, k); its derivatives are those among matrices of its rank."""
    return jnp.sum(jnp.linalg.svd(v, compute_uv=False))


@spectrum_sum.defjvp
def _spectrum_sum_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (v,), (dv,) = primals, tangents
    return spectrum_sum(v), jnp.sum(_signs(v) * dv)


@jax.custom_jvp
def _signs(v: Array) -> Array:
    """U V', of the vectors whose singular values are not 0."""
    U, s, V = _nonzero(v)
    return _product(U, jnp.sign(s), V)


@_signs.defjvp
def _signs_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    def smoothly(v: Array) -> Array:
        """v R^-1 P."""
        if v.shape[0] < v.shape[1]:
            return smoothly(v.T).T
        _, s, V = _nonzero(jax.lax.stop_gradient(v))
        return _product(v, None, _kept(v, V, s, s > 0)[1])

    return _signs(*primals), jax.jvp(smoothly, primals, tangents)[1]


def _nonzero(v: Array) -> tuple[Array, Array, Array]:
    U, s, V = jnp.linalg.svd(v, full_matrices=False)
    return U, jnp.where(s > eps(v.dtype) * max(v.shape) * jnp.max(s, initial=0.0), s, 0.0), V


@jax.custom_jvp
def _projector(C: Array, V: Array, squares: Array, kept: Array) -> Array:
    """That onto those eigenvectors of C, the rows of V, that are kept; `squares` are the eigenvalues."""
    return _product(V.T, kept, V)


@_projector.defjvp
def _projector_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    """P A (I - P) for the A with C A - A C = P dC (I - P), and its transpose."""
    C, V, squares, kept = primals
    P = _projector(*primals)
    off = jnp.eye(len(P), dtype=P.dtype) - P

    def across(A: Array) -> Array:
        return _product(_product(P, None, A), None, off)

    def matvec(A: Array) -> Array:
        inner = across(A)
        return across(_product(C, None, inner) - _product(inner, None, C)) + A - inner

    apart = (kept[:, None] > 0) & (kept[None, :] == 0)
    gaps = jnp.where(apart, squares[:, None] - squares[None, :], 1.0)
    A = jax.lax.custom_linear_solve(matvec, across(tangents[0]), _in_basis(V, gaps), symmetric=True)
    return P, A + A.T


@jax.custom_jvp
def _root(C: Array, V: Array, roots: Array) -> Array:
    """The square root of C, whose eigenvectors are the rows of V; `roots` are those of its eigenvalues."""
    return _product(V.T, roots, V)


@_root.defjvp
def _root_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    """dR with R dR + dR R = dC."""
    _, V, roots = primals
    R = _root(*primals)

    def matvec(A: Array) -> Array:
        return _product(R, None, A) + _product(A, None, R)

    solve = _in_basis(V, roots[:, None] + roots[None, :])
    return R, jax.lax.custom_linear_solve(matvec, tangents[0], solve, symmetric=True)


def _in_basis(V: Array, factors: Array) -> Callable[[Any, Array], Array]:
    """Division by `factors`, entry by entry in the basis of the rows of V."""

    def solve(_: Any, b: Array) -> Array:
        return _product(_product(V.T, None, _product(_product(V, None, b), None, V.T) / factors), None, V)

    return solve


def _thresholded(v: Array, t: Array) -> tuple[Array, Array, Array, Array]:
    U, s, V = jnp.linalg.svd(v, full_matrices=False)
    return U, jnp.maximum(s - t, 0.0), V, s


def _product(a: Array, d: Array | None, b: Array) -> Array:
    """a diag(d) b."""
    return jnp.matmul(a if d is None else a * d[None, :], b, precision=jax.lax.Precision.HIGHEST)
