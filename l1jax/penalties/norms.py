"""Penalties that are norms of many coefficients together."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax import prox
from l1jax._arrays import concrete, eps, hyperparameter
from l1jax._node import node
from l1jax.penalties.base import (
    Penalty,
    broadcast_leaves,
    mean_scale,
    set_strength,
    stacked,
    tree_like,
    tree_of,
    widened,
)
from l1jax.penalties.sequential import decreasing, fused


class Joint(Penalty):
    """A convex penalty that ties the coefficients of an array together; on a tree, the sum over its leaves.

    Each fact of a tree is put together from that of its leaves, arrays of a floating dtype, not half.
    """

    any_metric: bool = False
    """Whether `prox` knows steps of their own for the coefficients of an array."""

    def prox(self, v: Any, step: Any) -> Any:
        steps = broadcast_leaves(step, v, "step")
        if any(jnp.ndim(s) for s in steps) and not self.any_metric:
            raise ValueError(
                f"step: {type(self).__name__} has no proximal map in other metrics: want one number a leaf"
            )
        return tree_like(v, self._each(lambda leaf, s: self.leaf_prox(leaf, jnp.asarray(s, leaf.dtype)), v, steps))

    def blockwise(self, scale: Any) -> Any:
        return jax.tree.map(lambda a: mean_scale(a, jnp.mean) if jnp.ndim(a) else a, scale)

    @abc.abstractmethod
    def leaf_prox(self, v: Array, step: Array) -> Array:
        """`prox` of one array."""

    @abc.abstractmethod
    def leaf_nearest(self, w: Array, u: Array) -> Array:
        """`nearest_subgradient` of one array."""

    def nearest_subgradient(self, w: Any, u: Any) -> Any:
        return tree_like(w, self._each(self.leaf_nearest, w, jax.tree.leaves(widened(u))))

    def free(self, w: Any) -> Any:
        return tree_of(w, self._each(lambda leaf: jnp.zeros(leaf.shape, bool), w))

    def excess(self, u: Any) -> Any:
        masks = jax.tree.leaves(self.free(u))
        return tree_of(u, self._each(lambda leaf, free: jnp.where(free, leaf, 0.0), u, masks))

    def _each(self, fact: Callable[..., Array], w: Any, *others: list[Any]) -> list[Array]:
        return [fact(*at) for at in zip(jax.tree.leaves(widened(w)), *others, strict=True)]


class Norm(Joint):
    """lam * norm(w): a subclass says the norm, its dual, its proximal map and its subdifferential."""

    @abc.abstractmethod
    def norm(self, w: Array) -> Array:
        """The norm of one array."""

    @abc.abstractmethod
    def dual(self, u: Array) -> Array:
        """sup { <u, w> : norm(w) <= 1 }, over what has a price."""

    @abc.abstractmethod
    def nearest(self, w: Array, u: Array, lam: Array) -> Array:
        """The element of the subdifferential of lam * norm at `w` that is nearest to `u`."""

    def leaf_nearest(self, w: Array, u: Array) -> Array:
        return self.nearest(w, u, self.strength(w))

    def with_subgradient(self, norm: Array, w: Array) -> Array:
        """`norm`, that of w as a constant, with the subgradient of least norm for its derivative in `w`."""
        here = jax.lax.stop_gradient(w)
        least = self.nearest(here, jnp.zeros_like(w), jnp.ones((), w.dtype))  # moves with weights that the norm has
        return norm + jnp.sum((w - here) * least)

    def with_lam(self, lam: Any) -> Self:
        return dataclasses.replace(self, lam=lam)  # type: ignore[type-var]

    def strength(self, leaf: Array) -> Array:
        """lam in the dtype of a leaf."""
        if jnp.ndim(self.lam):
            raise ValueError(f"{type(self).__name__}: want one strength, got lam of shape {jnp.shape(self.lam)}")
        return jnp.asarray(self.lam, leaf.dtype)

    def total(self, step: Array, leaf: Array) -> Array:
        """step * lam, 0 for an infinite step of strength 0."""
        lam = self.strength(leaf)
        return jnp.where(lam == 0, 0.0, step) * lam

    def value(self, w: Any) -> Array:
        return jnp.sum(stacked(self._each(lambda leaf: self.strength(leaf) * self.norm(leaf), w)))

    def conjugate(self, u: Any) -> Array:
        def inside(leaf: Array, excess: Array) -> Array:
            kept = (self.dual(leaf) <= self.strength(leaf)) & jnp.all(excess == 0)
            return jnp.where(kept, jnp.zeros((), leaf.dtype), jnp.inf)

        return jnp.sum(stacked(self._each(inside, u, jax.tree.leaves(widened(self.excess(u))))))

    def critical_lam(self, u: Any, corner: float = 0.0) -> Array:
        return jnp.max(stacked(self._each(self.dual, u)), initial=0.0)

    def free(self, w: Any) -> Any:
        return tree_of(w, self._each(lambda leaf: jnp.broadcast_to(self.strength(leaf) == 0, leaf.shape), w))

    def scalings(self, u: Any) -> tuple[Array, Array]:
        def scaling(leaf: Array) -> Array:
            dual, lam = self.dual(leaf), self.strength(leaf)
            return jnp.where(dual > lam, lam / jnp.where(dual > 0, dual, 1.0), 1.0)

        c = jnp.min(stacked(self._each(scaling, u)), initial=1.0)
        return c[None], jnp.zeros_like(c)[None]

    def valid(self, w: Any) -> Array:
        lam = jnp.asarray(self.lam)
        return jnp.all((lam >= 0) & jnp.isfinite(lam))


@node
class LInf(Norm):
    """lam * max |w|, of all entries of an array.

    Args:
      lam: the strength, at least 0.

    prox: clipping, at the level at which what is clipped off sums to step*lam. conjugate: 0 if sum |u| <= lam, else
    infinite. Zero is optimal from sum |u| on. It makes entries equal rather than 0. Certificate: duality gap.

    Source: Parikh and Boyd (2014), "Proximal Algorithms", section 6.

    >>> import jax.numpy as jnp
    >>> LInf(2.0).prox(jnp.array([3.0, -2.0, 0.5]), 1.0)
    Array([ 1.5, -1.5,  0.5], dtype=float32)
    """

    lam: Any

    def __post_init__(self) -> None:
        set_strength(self)

    def norm(self, w: Array) -> Array:
        return self.with_subgradient(jnp.max(jnp.abs(jax.lax.stop_gradient(w)), initial=0.0), w)

    def dual(self, u: Array) -> Array:
        return jnp.sum(jnp.abs(u))

    def leaf_prox(self, v: Array, step: Array) -> Array:
        return prox.clip_to_total(v.ravel(), self.total(step, v)).reshape(v.shape)

    def nearest(self, w: Array, u: Array, lam: Array) -> Array:
        size = jnp.abs(w)
        top = (size == jnp.max(size, initial=0.0)) & (size > 0)
        along = u * jnp.sign(w)  # on the face: the simplex of the largest entries
        face = prox.level(jnp.where(top, along, -jnp.inf), lam)
        shares = jnp.maximum(along - jnp.where(jnp.any(top), face, 0.0), 0.0)
        ball = u - prox.clip_to_total(u.ravel(), lam).reshape(u.shape)
        return jnp.where(jnp.any(top), jnp.where(top, jnp.sign(w) * shares, 0.0), ball)


@node
class SLOPE(Norm):
    """lam * sum_i lams_i * |w|_(i), |w|_(1) >= |w|_(2) >= ... the sorted magnitudes.

    Args:
      lams: the weights of the largest magnitude, of the second largest, ..., (p,): decreasing, at least 0, the first
        above 0.
      lam: the strength of the whole, at least 0; 1 as built.

    prox: isotonic regression of the sorted magnitudes less the weights. conjugate: 0 if the k largest |u| sum to at
    most lam times the k largest weights, for every k; else infinite. Certificate: duality gap. Raises ValueError for
    weights that increase or are negative.

    Source: Bogdan, van den Berg, Sabatti, Su, Candès (2015), "SLOPE: adaptive variable selection via convex
    optimization", Ann. Appl. Stat. 9(3).

    >>> import jax.numpy as jnp
    >>> SLOPE([2.0, 1.0, 0.5]).prox(jnp.array([3.0, -2.5, 0.4]), 1.0)
    Array([ 1.25, -1.25,  0.  ], dtype=float32)
    """

    lams: Any
    lam: Any = 1.0

    def __post_init__(self) -> None:
        set_strength(self)
        lams = hyperparameter(self.lams, "lams")
        object.__setattr__(self, "lams", lams)
        if concrete(lams) and isinstance(lams, Array):
            values = np.asarray(lams, np.float64)
            if not (values.ndim == 1 and values[0] > 0 and np.all(values >= 0) and np.all(np.diff(values) <= 0)):
                raise ValueError(f"lams: want decreasing numbers of at least 0, the first above 0; got {self.lams}")

    def weights(self, leaf: Array) -> Array:
        lams = jnp.asarray(self.lams, leaf.dtype)
        if leaf.ndim != 1 or lams.shape != leaf.shape:
            raise ValueError(f"lams: want one weight for each coefficient, {leaf.shape}; got {lams.shape}")
        return lams

    def norm(self, w: Array) -> Array:
        sizes = -jnp.sort(-jnp.abs(jax.lax.stop_gradient(w)))
        return self.with_subgradient(jnp.sum(self.weights(w) * sizes), w)

    def dual(self, u: Array) -> Array:
        return jnp.max(jnp.cumsum(-jnp.sort(-jnp.abs(u))) / jnp.cumsum(self.weights(u)), initial=0.0)

    def leaf_prox(self, v: Array, step: Array) -> Array:
        lams, t = self.weights(v), self.total(step, v)
        order = jnp.argsort(-jnp.abs(v), stable=True)
        pulled = jnp.abs(v)[order] - jnp.where(lams == 0, 0.0, t) * lams
        w = jnp.zeros_like(v).at[order].set(jnp.maximum(decreasing(pulled), 0.0))
        return jnp.where(v < 0, -w, w)

    def nearest(self, w: Array, u: Array, lam: Array) -> Array:
        """On each block of equal magnitudes, the projection onto the permutahedron of its weights."""
        lams = lam * self.weights(w)
        sign = jnp.where(w == 0, jnp.where(u < 0, -1.0, 1.0), jnp.sign(w)).astype(w.dtype)
        order = jnp.lexsort((-sign * u, -jnp.abs(w)))
        size, x = jnp.abs(w)[order], (sign * u)[order]
        apart = jnp.append(jnp.ones(1, bool), size[1:] != size[:-1])
        rest = decreasing(x - lams, apart)
        rest = jnp.where(size == 0, jnp.maximum(rest, 0.0), rest)
        return jnp.zeros_like(w).at[order].set(sign[order] * (x - rest))

    def valid(self, w: Any) -> Array:
        lams = jnp.asarray(self.lams)
        return super().valid(w) & jnp.all(lams >= 0) & jnp.all(lams[1:] <= lams[:-1]) & jnp.all(jnp.isfinite(lams))


@node
class TotalVariation(Norm):
    """lam * sum_j |w_{j+1} - w_j|: the fused penalty of neighbours, along the first axis of a vector.

    Args:
      lam: the strength, at least 0.

    prox: exact, by dynamic programming. Constant vectors cost nothing, so that 0 is optimal only where u sums to 0,
    and there from max |cumsum u| on; the conjugate is 0 if sum u = 0 and |cumsum u| <= lam, else infinite.
    Certificate: the residual of a proximal step, as rounding leaves no dual point feasible. (A problem in steps, X
    cumulated from the right, with `Factors(L1(lam), [0, 1, 1, ...])`, is the same and has a duality gap.)

    Source: Tibshirani, Saunders, Rosset, Zhu, Knight (2005), "Sparsity and smoothness via the fused lasso", JRSS B
    67(1), the second term of their penalty.

    >>> import jax.numpy as jnp
    >>> TotalVariation(1.0).prox(jnp.array([0.0, 4.0, 5.0]), 1.0)
    Array([1., 4., 4.], dtype=float32)
    """

    lam: Any
    certified = False

    def __post_init__(self) -> None:
        set_strength(self)

    def norm(self, w: Array) -> Array:
        return self.with_subgradient(jnp.sum(jnp.abs(jnp.diff(jax.lax.stop_gradient(w)))), w)

    def dual(self, u: Array) -> Array:
        sums = jnp.cumsum(u)
        balanced = jnp.abs(sums[-1]) <= 64 * eps(u.dtype) * jnp.sum(jnp.abs(u))
        return jnp.where(balanced, jnp.max(jnp.abs(sums[:-1]), initial=0.0), jnp.inf)

    def leaf_prox(self, v: Array, step: Array) -> Array:
        t = jnp.minimum(self.total(step, v), 2 * jnp.sum(jnp.abs(v)))  # from there on all is constant
        return fused(v, jnp.broadcast_to(t, (v.shape[0] - 1,)))

    def nearest(self, w: Array, u: Array, lam: Array) -> Array:
        """The ends of constant pieces pull on them; within, the fused map gives the projection."""
        jump = jnp.sign(jnp.diff(w))
        none = jnp.zeros(1, w.dtype)
        ends = lam * (jnp.concatenate([none, jump]) - jnp.concatenate([jump, none]))
        return u - fused(u - ends, jnp.where(jump == 0, lam, 0.0))


@node
class NuclearNorm(Norm):
    """lam * sum of the singular values of a matrix.

    Args:
      lam: the strength, at least 0.

    prox: soft-thresholding of the singular values. conjugate: 0 if the largest singular value of u is at most lam,
    else infinite. Zero is optimal from there on: lower rank, rather than zeros. Certificate: duality gap.

    Source: Cai, Candès, Shen (2010), "A singular value thresholding algorithm for matrix completion", SIAM J. Optim.
    20(4).

    >>> import jax.numpy as jnp
    >>> NuclearNorm(1.0).prox(jnp.array([[3.0, 0.0], [0.0, 0.5]]), 1.0).round(4)
    Array([[2., 0.],
           [0., 0.]], dtype=float32)
    """

    lam: Any

    def __post_init__(self) -> None:
        set_strength(self)

    def norm(self, w: Array) -> Array:
        return prox.spectrum_sum(_matrix(w))

    def dual(self, u: Array) -> Array:
        return jnp.max(jnp.linalg.svd(_matrix(u), compute_uv=False), initial=0.0)

    def leaf_prox(self, v: Array, step: Array) -> Array:
        return prox.threshold_spectrum(_matrix(v), self.total(step, v))

    def nearest(self, w: Array, u: Array, lam: Array) -> Array:
        """lam * U V' plus, off the rows and columns that w spans, what of u the spectral ball of radius lam holds."""
        U, s, V = jnp.linalg.svd(_matrix(w), full_matrices=False)
        spanned = s > eps(w.dtype) * max(w.shape) * jnp.max(s, initial=0.0)
        U, V = jnp.where(spanned[None, :], U, 0.0), jnp.where(spanned[:, None], V, 0.0)
        beside = u - U @ (U.T @ u)
        beside = beside - (beside @ V.T) @ V
        P, t, Q = jnp.linalg.svd(beside, full_matrices=False)
        return lam * (U @ V) + (P * jnp.minimum(t, lam)[None, :]) @ Q


def _matrix(w: Array) -> Array:
    if w.ndim != 2:
        raise ValueError(f"NuclearNorm: want a matrix, got shape {w.shape}")
    return w
