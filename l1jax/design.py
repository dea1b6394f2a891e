"""The design matrix: all that the rest of the library may ask of X."""

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import along
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
        return second_moments(self.XT, s)

    def squares(self, w: Array) -> Array:
        """sum_i w_i * X_ij^2: (p,)."""
        return jnp.matmul(self.XT**2, w, precision=HIGHEST)

    def columns(self, ids: Array) -> Array:
        """The columns at `ids`, feature-major: (m, n)."""
        return self.XT[ids]

    def only(self, ids: Array) -> "Design":
        """These features alone; columns of zeros for places past the end."""
        parts = ((self.XT, 0), (self.center, 0), (self.scale, 1), (self.norm, 0))
        return Design(*(a.at[ids].get(mode="fill", fill_value=fill) for a, fill in parts))


def second_moments(XT: Array, s: Array) -> Array:
    """X' diag(s) X: (p, p)."""
    root = XT * jnp.sqrt(s)[None, :]
    return jnp.matmul(root, root.T, precision=HIGHEST)


@node
class Reweighted(Design):
    """A design whose columns are `(XT[j] - shift[j]) / unit[j]`: other weights, the same matrix in memory.

    `center` and `scale` are those of the raw columns, as ever.
    """

    shift: Array
    unit: Array

    def dot(self, z: Array) -> Array:
        w = z / along(self.unit, z)
        return Design.dot(self, w) - jnp.sum(along(self.shift, w) * w, axis=0)[None]

    def tdot(self, v: Array) -> Array:
        u = Design.tdot(self, v)
        return (u - along(self.shift, u) * jnp.sum(v, axis=0)[None]) / along(self.unit, u)

    def gram(self, s: Array) -> Array:
        return self.gram_from(second_moments(self.XT, s), s)

    def gram_from(self, moments: Array, s: Array) -> Array:
        """The same, where the moments of XT are known."""
        mean = Design.tdot(self, s) - self.shift * jnp.sum(s)
        cross = mean[:, None] * self.shift[None]
        about = moments - cross - cross.T - jnp.sum(s) * self.shift[:, None] * self.shift[None]
        return about / (self.unit[:, None] * self.unit[None])

    def squares(self, w: Array) -> Array:
        about = Design.squares(self, w) - 2 * self.shift * Design.tdot(self, w) + self.shift**2 * jnp.sum(w)
        return jnp.maximum(about, 0.0) / self.unit**2

    def columns(self, ids: Array) -> Array:
        return (Design.columns(self, ids) - self.shift[ids][:, None]) / self.unit[ids][:, None]

    def only(self, ids: Array) -> "Reweighted":
        near = Design.only(self, ids)
        shift, unit = (a.at[ids].get(mode="fill", fill_value=fill) for a, fill in ((self.shift, 0), (self.unit, 1)))
        return Reweighted(near.XT, near.center, near.scale, near.norm, shift, unit)


def reweighted(design: Design, s: Array, center: bool, standardize: bool, square: Array | None = None) -> Reweighted:
    """A prepared design under other weights s (n,) that sum to 1; one output only. `square`: design.squares(s)."""
    square = design.squares(s) if square is None else square
    return reweighted_by(design, design.tdot(s), square, center, standardize)


def reweighted_by(design: Design, mean: Array, square: Array, center: bool, standardize: bool) -> Reweighted:
    """The same, where the weighted means (p,) of the columns and of their squares are known."""
    variance = jnp.maximum(square - mean**2, 0.0)
    length = jnp.sqrt(variance if center else square)
    unit = jnp.sqrt(jnp.where(variance > 0, variance, 1.0)) if standardize else jnp.ones_like(mean)
    shift = mean if center else jnp.zeros_like(mean)
    moved = design.center + shift * design.scale
    return Reweighted(design.XT, moved, design.scale * unit, length / unit, shift, unit)
