"""Symmetric linear systems, singular ones too: least solutions, differentiable."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax._arrays import eps
from l1jax.design import HIGHEST

DENSE = 256  # the largest system whose matrix is made
REFINED = 2  # how often: an engine's inverse has about four digits
STEEP = 1e-3  # of a system whose condition, over that at which eigenvalues count as 0, is below this, none is near it


def least_solution(matvec: Callable[[Array], Array], b: Array, inverse: Array | None = None) -> Array:
    """The x of least norm among those with the least |matvec(x) - b|, for a symmetric matvec; differentiable.

    `inverse` is the least one of the system's matrix, where it is known.
    """
    solve: Callable[[Any, Array], Array] = conjugate_residuals
    if inverse is not None:
        solve = _by_products(inverse, refined=REFINED)
    elif b.size <= DENSE:
        values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix_of(matvec, b.size, b.dtype)))
        steep = jnp.abs(values) > _flat(b.size, b.dtype) * jnp.max(jnp.abs(values))
        inverse = jnp.where(steep, 1 / jnp.where(steep, values, 1.0), 0.0)
        solve = _by_products(vectors.T, inverse, vectors)
    return jax.lax.custom_linear_solve(matvec, b, solve=solve, symmetric=True)


def least_inverse(matrix: Any) -> Any:
    """The least inverse of a symmetric matrix (m, m); NaN of one that isn't finite."""
    if not np.all(np.isfinite(matrix)):
        return np.full_like(matrix, np.nan)
    flat = _flat(len(matrix), matrix.dtype)
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        inverse = np.full_like(matrix, np.inf)
    if np.linalg.norm(matrix, 1) * np.linalg.norm(inverse, 1) * flat < STEEP:
        return (inverse + inverse.T) / 2
    return np.linalg.pinv(matrix, rcond=flat, hermitian=True)


def _flat(size: int, dtype: Any) -> float:
    """Eigenvalues this small, relative to the largest, are rounding."""
    return max(size, 32) * eps(dtype)


def matrix_of(matvec: Callable[[Array], Array], size: int, dtype: Any) -> Array:
    """The matrix (size, size) of a symmetric matvec."""
    matrix = jax.vmap(matvec)(jnp.eye(size, dtype=dtype))
    return (matrix + matrix.T) / 2


def _by_products(*factors: Array, refined: int = 0) -> Callable[[Any, Array], Array]:
    """A solution by an inverse, given as matrices and diagonals, the first one first; `refined` so many times."""

    def applied(b: Array) -> Array:
        for factor in factors:
            b = jnp.matmul(factor, b, precision=HIGHEST) if factor.ndim == 2 else factor * b
        return b

    def solve(matvec: Callable[[Array], Array], b: Array) -> Array:
        x = applied(b)
        for _ in range(refined):
            x = x + applied(b - matvec(x))
        return x

    return solve


def conjugate_residuals(matvec: Callable[[Array], Array], b: Array) -> Array:
    """The least x with the least |matvec(x) - b|, to rounding, for a symmetric matvec without negative eigenvalues.

    The residual falls until it is rounding, or until its own curvature is (next to the largest seen): then it is what b
    has along flat directions, and x loses what it gathered there.

    Source: Stiefel (1955), "Relaxationsmethoden bester Strategie zur Lösung linearer Gleichungssysteme", Comment.
    Math. Helv. 29; the last step as in Liu, Milzarek, Roosta (2022), "Obtaining pseudo-inverse solutions with MINRES".
    """

    def body(carry: Any) -> Any:
        x, r, d, Ar, Ad, curved, top, k, _, _ = carry
        size = jnp.sum(Ad**2)
        step = jnp.where(size > 0, curved / jnp.where(size > 0, size, 1.0), 0.0)
        x, r = x + step * d, r - step * Ad
        Ar = matvec(r)
        new = jnp.sum(r * Ar)
        turn = new / jnp.where(curved > 0, curved, 1.0)
        length = jnp.sum(r**2)
        top = jnp.maximum(top, new / jnp.where(length > 0, length, 1.0))
        flat = new <= 4 * eps(b.dtype) * top * length
        going = ~flat & (length > tiny) & (k < limit)
        return x, r, r + turn * d, Ar, Ar + turn * Ad, new, top, k + 1, going, flat & (length > tiny)

    length = jnp.sum(b**2)
    tiny = eps(b.dtype) ** 2 * length
    limit = 10 * b.size + 20
    Ab = matvec(b)
    curved = jnp.sum(b * Ab)
    some = length > 0
    top = curved / jnp.where(some, length, 1.0)
    start = (jnp.zeros_like(b), b, b, Ab, Ab, curved, top, jnp.zeros((), jnp.int32), some & (curved > 0), ~some)
    x, r, *_, flat = jax.lax.while_loop(lambda carry: carry[-2], body, start)
    length = jnp.sum(r**2)
    beside = jnp.sum(r * x) / jnp.where(length > 0, length, 1.0)
    return jnp.where(flat, x - beside * r, x)
