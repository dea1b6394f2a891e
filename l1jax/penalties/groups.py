"""Penalties of groups of coefficients: whole groups become 0 together."""

from collections.abc import Hashable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax import prox
from l1jax._arrays import concrete, hyperparameter, set_hyperparameter
from l1jax._node import node, static
from l1jax.penalties.base import mean_scale, set_strength, stacked, tree_of
from l1jax.penalties.norms import Norm
from l1jax.penalties.radius import Sums, group_factors


class Groups:
    """A partition of coefficients: their labels, as numbers from 0 in the labels' own order. Hashable, and static."""

    def __init__(self, labels: Iterable[Hashable]) -> None:
        try:
            array = np.asarray(labels if isinstance(labels, np.ndarray) else list(labels))
        except ValueError:  # lists of different lengths
            array = np.empty((0, 0))
        if array.ndim != 1 or array.size == 0:
            raise ValueError(f"groups: want one label for each coefficient, (p,): groups may not overlap; got {labels}")
        if array.dtype.kind == "f" and not np.all(array == np.floor(array)):
            raise ValueError(f"groups: want labels (whole numbers or text), got {labels}")
        self.labels, self.of = np.unique(array, return_inverse=True)
        self.sizes = np.bincount(self.of)
        self._key = (self.of.tobytes(), tuple(self.labels.tolist()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Groups) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Groups({self.labels[self.of].tolist()})"

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Any:
        return iter(self.labels[self.of].tolist())


class _Grouped(Norm):
    """lam * (ratio * |w|_1 + (1 - ratio) * sum_g weights_g * |w_g|_2), an infinite weight fixing its group at 0."""

    groups: Groups
    weights: Any

    @property
    def ratio(self) -> Any:
        """The share of the L1 norm."""
        return 0.0

    def _set_up(self) -> None:
        set_strength(self)
        if not isinstance(self.groups, Groups):
            object.__setattr__(self, "groups", Groups(self.groups))
        weights = np.sqrt(self.groups.sizes) if self.weights is None else self.weights
        weights = hyperparameter(np.asarray(weights) if isinstance(weights, list | tuple) else weights, "weights")
        object.__setattr__(self, "weights", weights)
        if isinstance(weights, Array) and concrete(weights):
            if weights.shape != (len(self.groups),):
                raise ValueError(f"weights: want one for each of {len(self.groups)} groups, got shape {weights.shape}")
            if not np.all(np.asarray(weights) >= 0):
                raise ValueError(f"weights: want numbers from 0 to infinity, got {weights}")

    # -- sums over groups, and back

    def _sizes(self, w: Array) -> Array:
        """|w_g|_2, (G,); its derivative at 0 is 0."""
        rows = w.reshape(w.shape[0], -1)
        largest = jax.lax.stop_gradient(self._sum(jnp.max(jnp.abs(rows), axis=1), jax.ops.segment_max))
        unit = jnp.where(largest > 0, largest, 1.0)  # before anything is squared
        squares = self._sum(jnp.sum((rows / unit[self.groups.of][:, None]) ** 2, axis=1), jax.ops.segment_sum)
        some = squares > 0
        return jnp.where(some, unit * jnp.sqrt(jnp.where(some, squares, 1.0)), 0.0)

    def _sum(self, rows: Array, reduce: Any) -> Array:
        return reduce(rows, jnp.asarray(self.groups.of), len(self.groups))

    def _spread(self, of_groups: Array, like: Array) -> Array:
        """Each coefficient's group's number, in the shape of the coefficients."""
        rows = of_groups[self.groups.of].reshape(-1, *(1,) * (like.ndim - 1))
        return jnp.broadcast_to(rows, like.shape)

    def _weights(self, leaf: Array) -> tuple[Array, Array]:
        """Finite weights, and which groups are fixed at 0."""
        if leaf.ndim == 0 or leaf.shape[0] != len(self.groups.of):
            raise ValueError(f"groups: {len(self.groups.of)} labels do not match coefficients of shape {leaf.shape}")
        weights = jnp.asarray(self.weights, leaf.dtype)
        pinned = jnp.isinf(weights)
        return jnp.where(pinned, 0.0, weights), pinned

    # -- the facts

    def norm(self, w: Array) -> Array:
        weights, pinned = self._weights(w)
        sizes, ratio = self._sizes(w), jnp.asarray(self.ratio, w.dtype)
        ones = jnp.sum(w * jax.lax.stop_gradient(jnp.sign(w)))
        fixed = jnp.any(pinned & (sizes > 0))
        return jnp.where(fixed, jnp.inf, ratio * ones + (1 - ratio) * jnp.sum(weights * sizes))

    def value(self, w: Any) -> Array:
        def cost(leaf: Array) -> Array:  # 0 * infinity: a pinned group stays pinned at strength 0
            norm = self.norm(leaf)
            return jnp.where(jnp.isinf(norm), jnp.inf, self.strength(leaf) * jnp.where(jnp.isinf(norm), 0.0, norm))

        return jnp.sum(stacked(self._each(cost, w)))

    def leaf_prox(self, v: Array, step: Array) -> Array:
        weights, pinned = self._weights(v)
        t, ratio = self.total(step, v), jnp.asarray(self.ratio, v.dtype)
        v = prox.soft_threshold(v, jnp.where(ratio == 0, 0.0, t) * ratio)
        share = (1 - ratio) * weights
        if step.ndim:
            sums = Sums(lambda a: self._sum(a[0].reshape(len(a[0]), -1).sum(axis=1), jax.ops.segment_sum),
                        lambda a: self._sum(a[0].reshape(len(a[0]), -1).max(axis=1), jax.ops.segment_max),
                        lambda a: [self._spread(a, v)])  # fmt: skip
            (factor,) = group_factors(sums, [v], [jnp.broadcast_to(t, v.shape)], share)
            return jnp.where(self._spread(pinned, v), 0.0, v * factor)
        sizes = self._sizes(v)
        radius = jnp.where(share == 0, 0.0, t) * share
        alive = ((sizes > radius) | (radius == 0)) & ~pinned
        factor = jnp.where(alive & (radius > 0), 1 - radius / jnp.where(sizes > 0, sizes, 1.0), 1.0)
        return jnp.where(self._spread(alive, v), v * self._spread(factor, v), jnp.zeros_like(v))

    any_metric = True

    def blockwise(self, scale: Any) -> Any:
        def shared(scale: Array) -> Array:
            if not jnp.ndim(scale):
                return scale

            def mean(a: Array) -> Array:
                rows = jnp.mean(a.reshape(a.shape[0], -1), axis=1)
                return self._sum(rows, jax.ops.segment_sum) / jnp.asarray(self.groups.sizes, a.dtype)

            return self._spread(mean_scale(scale, mean), scale)

        return jax.tree.map(shared, scale)

    def alive(self, w: Any) -> Any:
        def leaf(w: Array, free: Array) -> Array:
            whole = self._spread(self._sum(jnp.any(w.reshape(len(w), -1) != 0, axis=1), jax.ops.segment_max), w)
            return jnp.where(jnp.asarray(self.ratio) > 0, w != 0, whole) | free

        return jax.tree.map(leaf, w, self.free(w))

    def nearest(self, w: Array, u: Array, lam: Array) -> Array:
        weights, pinned = self._weights(w)
        ratio = jnp.asarray(self.ratio, w.dtype)
        corner, radius = lam * ratio, lam * (1 - ratio) * weights
        sizes = self._sizes(w)
        # Where the group is 0: what the box of the L1 norm and the ball of the group leave of u stays off.
        rest = prox.soft_threshold(u, jnp.broadcast_to(corner, u.shape))
        length = self._sizes(rest)
        off = jnp.where(length > radius, 1 - radius / jnp.where(length > 0, length, 1.0), 0.0)
        at_zero = u - self._spread(off, w) * rest
        direction = w * self._spread(radius / jnp.where(sizes > 0, sizes, 1.0), w)
        elsewhere = direction + jnp.where(w == 0, jnp.clip(u, -corner, corner), jnp.sign(w) * corner)
        nearest = jnp.where(self._spread(sizes > 0, w), elsewhere, at_zero)
        return jnp.where(self._spread(pinned, w), jnp.where(self._spread(sizes > 0, w), jnp.nan, u), nearest)

    def dual(self, u: Array) -> Array:
        """max over groups of the root t of |soft_threshold(u_g, t*ratio)|_2 = t*(1 - ratio)*weights_g, by bisection."""
        weights, pinned = self._weights(u)
        ratio = jnp.asarray(self.ratio, u.dtype)
        share = (1 - ratio) * weights
        counted = ~pinned & ((ratio > 0) | (share > 0))
        largest = self._sum(jnp.max(jnp.abs(u).reshape(u.shape[0], -1), axis=1), jax.ops.segment_max)
        by_group = jnp.where(share > 0, self._sizes(u) / jnp.where(share > 0, share, 1.0), jnp.inf)
        by_entry = jnp.where(ratio > 0, largest / jnp.where(ratio > 0, ratio, 1.0), jnp.inf)

        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            t = (low + high) / 2
            inside = self._sizes(prox.soft_threshold(u, self._spread(t * ratio, u))) <= t * share
            return jnp.where(inside, low, t), jnp.where(inside, t, high)

        high = jnp.where(counted, jnp.minimum(by_group, by_entry), 0.0)
        if isinstance(self.ratio, float) and self.ratio == 0.0:
            return jnp.max(high, initial=0.0)
        _, high = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(high), high))
        return jnp.max(high, initial=0.0)

    def free(self, w: Any) -> Any:
        def leaf(w: Array) -> Array:
            weights, pinned = self._weights(w)
            ratio = jnp.asarray(self.ratio, w.dtype)
            priced = (self.strength(w) > 0) & ((ratio > 0) | ((1 - ratio) * weights > 0))
            return ~self._spread(priced | pinned, w)

        return tree_of(w, self._each(leaf, w))

    def valid(self, w: Any) -> Array:
        weights, ratio = jnp.asarray(self.weights), jnp.asarray(self.ratio)
        return super().valid(w) & jnp.all(weights >= 0) & jnp.all((ratio >= 0) & (ratio <= 1))


@node
class GroupLasso(_Grouped):
    """lam * sum_g weights_g * |w_g|_2: the coefficients of a group become 0 together.

    Args:
      lam: the strength, at least 0.
      groups: one label for each coefficient, (p,): whole numbers or text. Groups do not overlap. For coefficients
        (p, k) of k responses a row is labelled: `range(p)` gives the L2,1 norm of the multi-task lasso.
      weights: one for each group, in the labels' order: by default the square root of the number of its labels; 0
        leaves a group unpenalised, infinity fixes it at 0.

    prox: each group shrunk towards 0 by step*lam*weights_g in length. conjugate: 0 if every |u_g|_2 <= lam*weights_g,
    else infinite. Zero is optimal from max |u_g|_2/weights_g on. Certificate: duality gap. Raises ValueError for
    labels that are no partition, and for negative weights.

    Source: Yuan and Lin (2006), "Model selection and estimation in regression with grouped variables", JRSS B 68(1).

    >>> import jax.numpy as jnp
    >>> GroupLasso(5.0, ["a", "a", "b"], weights=[1.0, 1.0]).prox(jnp.array([6.0, 8.0, 0.5]), 1.0)
    Array([3., 4., 0.], dtype=float32)
    """

    lam: Any
    groups: Any = static()
    weights: Any = None

    def __post_init__(self) -> None:
        self._set_up()


@node
class SparseGroupLasso(_Grouped):
    """lam * (l1_ratio * sum |w| + (1 - l1_ratio) * sum_g weights_g * |w_g|_2).

    Args:
      lam: the strength, at least 0.
      groups: one label for each coefficient, as for `GroupLasso`.
      l1_ratio: the share of the L1 norm, from 0 (the group lasso) to 1 (the lasso).
      weights: one for each group; by default the square root of its size.

    prox: soft-thresholding, then the group lasso's. Zero is optimal from the largest root t of
    |soft_threshold(u_g, t*l1_ratio)|_2 = t*(1 - l1_ratio)*weights_g on. Certificate: duality gap.

    Source: Simon, Friedman, Hastie, Tibshirani (2013), "A sparse-group lasso", J. Comput. Graph. Stat. 22(2).

    >>> import jax.numpy as jnp
    >>> SparseGroupLasso(1.0, [0, 0, 1], l1_ratio=0.5, weights=[1.0, 1.0]).prox(jnp.array([3.5, 0.4, 0.75]), 1.0)
    Array([2.5, 0. , 0. ], dtype=float32)
    """

    lam: Any
    groups: Any = static()
    l1_ratio: Any = 0.5
    weights: Any = None

    def __post_init__(self) -> None:
        self._set_up()
        set_hyperparameter(self, "l1_ratio", 0.0, 1.0, "numbers from 0 to 1")

    @property
    def ratio(self) -> Any:
        return self.l1_ratio
