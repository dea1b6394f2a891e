"""The design matrix: all that the rest of the library may ask of X."""

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import eps
from l1jax._node import node

# Float32 products are TF32 on recent GPUs and bfloat16 on TPUs unless told otherwise; they decide supports and
# certificates here.
HIGHEST = jax.lax.Precision.HIGHEST


@node
class Design:
    """X in the units in which it is solved: columns centred (if there is an intercept) and scaled to about unit norm.

    `XT` is stored feature-major, (p, n). Column j is `(X[:, j] - center[j]) / scale[j]`, exactly 0 if X[:, j] is
    constant where that matters; its weighted 2-norm is `norm[j]`.
    """

    XT: Array
    center: Array
    scale: Array
    norm: Array

    def dot(self, z: Array) -> Array:
        """X z: (p,) -> (n,), (p, k) -> (n, k)."""
        return jnp.tensordot(self.XT, z, axes=(0, 0), precision=HIGHEST)

    def tdot(self, v: Array) -> Array:
        """X' v: (n,) -> (p,), (n, k) -> (p, k)."""
        return jnp.matmul(self.XT, v, precision=HIGHEST)

    def gram(self, s: Array) -> Array:
        """X' diag(s) X: (p, p)."""
        root = self.XT * jnp.sqrt(s)[None, :]
        return jnp.matmul(root, root.T, precision=HIGHEST)

    def only(self, ids: Array) -> "Design":
        """These features alone; columns of zeros for places past the end."""
        parts = ((self.XT, 0), (self.center, 0), (self.scale, 1), (self.norm, 0))
        return Design(*(a.at[ids].get(mode="fill", fill_value=fill) for a, fill in parts))


def prepare_design(X: Array, s: Array, center: bool, standardize: bool, one_scale: bool = False) -> Design:
    """The design of the rows X (n, p), weighted by s (n,) that sum to 1.

    `standardize` divides each column by its weighted standard deviation (about its mean, whether or not it is
    centred, as glmnet does); otherwise by a power of two, which is exact, and with `one_scale` the same for all. A
    column whose standard deviation is at most eps times its largest entry is constant: it becomes 0 if columns are
    centred or standardised.
    """
    # Transposed once, so that all passes read memory in order.
    XT = jax.lax.optimization_barrier(X.T)  # type: ignore[no-untyped-call]
    w = s[None, :]
    largest = jnp.max(jnp.where(w > 0, jnp.abs(XT), 0.0), axis=1)  # constancy is a column's own, whatever the unit
    # A unit before anything is squared: 1e20 squares to infinity in float32.
    unit = _power_of_two(jnp.full_like(largest, jnp.max(largest)) if one_scale else largest)
    XT = XT * (1 / unit)[:, None]
    mean = jnp.matmul(XT, s, precision=HIGHEST)
    mean = mean + jnp.sum((XT - mean[:, None]) * w, axis=1)  # a second pass wins back the rounding
    variance = jnp.sum((XT - mean[:, None]) ** 2 * w, axis=1)
    constant = variance <= (eps(X.dtype) * largest / unit) ** 2
    varying = jnp.sqrt(jnp.where(constant, 1.0, variance))
    shift = jnp.where(center, mean, 0.0)
    if standardize:
        norm = varying
    else:
        norm = jnp.where(constant, 0.0, varying) if center else jnp.sqrt(jnp.sum(XT**2 * w, axis=1))
        norm = _power_of_two(jnp.full_like(norm, jnp.max(norm)) if one_scale else norm)
    columns = (XT - shift[:, None]) * (1 / norm)[:, None]
    if center or standardize:
        columns = jnp.where(constant[:, None], 0.0, columns)
    return Design(columns, shift * unit, norm * unit, jnp.sqrt(jnp.sum(columns**2 * w, axis=1)))


def _power_of_two(x: Array) -> Array:
    """A power of two within a factor of two above |x|; 1 at 0. Its derivative is 0, as it only sets units."""
    _, exponent = jnp.frexp(jax.lax.stop_gradient(x))
    return jnp.where(x == 0, 1.0, jnp.ldexp(jnp.ones_like(x), exponent))
