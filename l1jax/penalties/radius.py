"""The proximal map of a sum of Euclidean norms in a diagonal metric: one scalar equation per group."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import eps


class Sums(NamedTuple):
    """How parts (arrays whose entries belong to G groups) are reduced to (G,), and how (G,) is laid out like them."""

    sum: Callable[[list[Array]], Array]
    max: Callable[[list[Array]], Array]
    spread: Callable[[Array], list[Array]]


def group_factors(sums: Sums, v: list[Array], steps: list[Array], weights: Array) -> list[Array]:
    """Factors f with f*v = argmin_w sum (w - v)^2/(2*steps) + sum_g weights_g |w_g|_2.

    f = r/(r + steps*weights), r = |w_g| the root of sum v^2/(r + steps*weights)^2 = 1, 0 if there is none. Newton's
    method on the root's inverse root, which is nearly a line (a line for equal steps), rises to it from below.
    """
    size = [jnp.abs(a) for a in v]
    unit = sums.max(size)
    unit = jnp.where(unit > 0, unit, 1.0)
    x = [a / u for a, u in zip(size, sums.spread(unit), strict=True)]
    radii = [s * b for s, b in zip(steps, sums.spread(weights / unit), strict=True)]
    tiny = eps(unit.dtype) ** 2

    def moments(r: Array, x: list[Array], radii: list[Array]) -> tuple[Array, Array]:
        wide = [a + b for a, b in zip(sums.spread(r), radii, strict=True)]
        squares = [jnp.where(a == 0, 0.0, (a / jnp.where(a == 0, 1.0, b)) ** 2) for a, b in zip(x, wide, strict=True)]
        cubes = [a / jnp.where(b == 0, 1.0, b) for a, b in zip(squares, wide, strict=True)]
        return sums.sum(squares), sums.sum(cubes)

    def newton(r: Array, x: list[Array], radii: list[Array]) -> Array:
        second, third = moments(r, x, radii)
        step = (second * jnp.sqrt(jnp.where(second > 0, second, 1.0)) - second) / jnp.where(third > 0, third, 1.0)
        return jnp.maximum(r + step, tiny)

    fixed_x, fixed_radii = jax.lax.stop_gradient((x, radii))
    # |v/radius| <= 1 holds the group at 0, unless an entry has no radius
    held = [jnp.where(a == 0, 0.0, a / jnp.where(b > 0, b, tiny)) for a, b in zip(fixed_x, fixed_radii, strict=True)]
    top = sums.max(held)
    safe = jnp.maximum(top, 1.0)
    held = [a / b for a, b in zip(held, sums.spread(safe), strict=True)]
    alive = safe * jnp.sqrt(sums.sum([a**2 for a in held])) > 1

    def moving(carry: tuple[Array, Array, Array]) -> Array:
        r, before, count = carry
        return (count < 50) & jnp.any(alive & (jnp.abs(r - before) > 4 * eps(r.dtype) * r))

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        r, _, count = carry
        return newton(r, fixed_x, fixed_radii), r, count + 1

    length = jnp.sqrt(sums.sum([a**2 for a in fixed_x]))
    start = jnp.maximum(length - sums.max(fixed_radii), tiny)
    r, _, _ = jax.lax.while_loop(moving, body, (start, jnp.full_like(start, -1.0), jnp.zeros((), jnp.int32)))
    r = newton(jax.lax.stop_gradient(r), x, radii)  # the root again, as a formula with its derivative
    r = jnp.where(alive, r, 0.0)
    return [jnp.where(a > 0, a / jnp.where(a > 0, a + b, 1.0), 0.0) for a, b in zip(sums.spread(r), radii, strict=True)]
