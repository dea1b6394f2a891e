"""What a penalty answers. Everything known about one penalty stands in one class."""

import abc
import dataclasses
from collections.abc import Callable
from operator import methodcaller
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import LARGEST, compute_dtype, floating, set_hyperparameter, unsigned_zero
from l1jax.penalties.terms import Terms


class Penalty(abc.ABC):
    """A function of the coefficients, and what optimisation needs to know of it.

    `w`, `v`, `u` are pytrees of arrays (a single array is one); each method works leaf by leaf. Penalties are
    data (pytrees whose hyperparameters are leaves) and are not callable.
    """

    lam: Any

    certified: bool = True
    """Whether a duality gap proves solutions; else the residual of the optimality conditions stands for it."""

    @abc.abstractmethod
    def with_lam(self, lam: Any) -> Self:
        """The same shape at strength `lam`."""

    @abc.abstractmethod
    def value(self, w: Any) -> Array:
        """The penalty of `w`, a scalar. `jax.grad` of it is the subgradient of least norm."""

    @abc.abstractmethod
    def prox(self, v: Any, step: Any) -> Any:
        """argmin_w 1/2 |w - v|^2 + step * value(w); `step` a number, an array, or a tree that matches `v`."""

    @abc.abstractmethod
    def nearest_subgradient(self, w: Any, u: Any) -> Any:
        """The element of the subdifferential at `w` that is nearest to `u`; NaN where it is empty."""

    @abc.abstractmethod
    def conjugate(self, u: Any) -> Array:
        """sup_w <u, w> - value(w), a scalar; infinite outside its domain."""

    @abc.abstractmethod
    def critical_lam(self, u: Any, corner: float = 0.0) -> Array:
        """The smallest strength at which 0 is optimal where minus the loss's gradient is `u`.

        Infinite where no strength will do: an entry of `u` that meets no corner at 0, or bounds that exclude 0.
        `corner` is the least weight given to the corner against the curvature: lambda grids of (nearly) smooth
        penalties start from `corner=1e-3`.
        """

    @abc.abstractmethod
    def free(self, w: Any) -> Any:
        """Truth values: the coefficients on which the penalty puts neither a price nor a bound."""

    def unpriced(self, w: Any) -> Any:
        """Truth values: the coefficients on which the penalty puts no price; these may have bounds."""
        return self.free(w)

    @abc.abstractmethod
    def excess(self, u: Any) -> Any:
        """The part of `u` that no positive scaling brings into the conjugate's domain: 0 for a usable dual point."""

    @abc.abstractmethod
    def scalings(self, u: Any) -> tuple[Array, Array]:
        """Factors c (m,) in [0, 1] worth trying on a dual point, and the conjugate (m,) at c * (u - excess)."""

    @abc.abstractmethod
    def valid(self, w: Any) -> Array:
        """Whether the hyperparameters make a penalty of coefficients like `w`: a scalar truth value."""

    def project(self, w: Any) -> Any:
        """The nearest point at which the penalty is finite, where rounding may have missed it: that within bounds."""
        return w

    def alive(self, w: Any) -> Any:
        """Truth values: the coefficients off zero, and those that no price holds there."""
        return jax.tree.map(lambda leaf, free: (leaf != 0) | free, w, self.free(w))

    def blockwise(self, scale: Any) -> Any:
        """The tree `scale` of a diagonal metric, with one value for coefficients whose `prox` wants one together."""
        return scale

    def subgradient(self, w: Any) -> Any:
        """The subgradient of least norm at `w`: 0 where 0 will do, so that 0 stays 0."""
        return self.nearest_subgradient(w, jax.tree.map(lambda leaf: jnp.zeros_like(floating(leaf)), w))

    def distance(self, w: Any, u: Any) -> Any:
        """|u - nearest subgradient|, entry by entry: 0 exactly where `u` is a subgradient; infinite where none is."""
        gaps = jax.tree.map(lambda a, b: jnp.abs(a - b), u, self.nearest_subgradient(w, u))
        return jax.tree.map(lambda gap, a: jnp.where(jnp.isnan(gap) & ~jnp.isnan(a), jnp.inf, gap), gaps, u)


class Wrapper(Penalty):
    """A penalty around one other, whose strength and certificate are its own."""

    penalty: Any

    @property
    def lam(self) -> Any:
        return self.penalty.lam

    @property
    def certified(self) -> bool:  # type: ignore[override]
        return bool(self.penalty.certified)

    def with_lam(self, lam: Any) -> Self:
        return dataclasses.replace(self, penalty=self.penalty.with_lam(lam))  # type: ignore[type-var]

    def blockwise(self, scale: Any) -> Any:
        return self.penalty.blockwise(scale)


class Strengthless(Penalty):
    """A penalty without a strength: `with_lam` gives it back."""

    @property
    def lam(self) -> float:
        return 0.0

    def with_lam(self, lam: Any) -> Self:
        return self


class Elementwise(Penalty):
    """A convex penalty that is a sum of scalar functions, one per coefficient, given by `terms`."""

    @abc.abstractmethod
    def terms(self, w: Any) -> list[Terms]:
        """The scalar functions for each leaf of `w` (a tree of floating arrays, not half), in order."""

    def value(self, w: Any) -> Array:
        return jnp.sum(stacked(self._each(lambda t, leaf: t.value(leaf), w)))

    def prox(self, v: Any, step: Any) -> Any:
        steps = broadcast_leaves(step, v, "step")
        return tree_like(v, self._each(lambda t, leaf, s: t.prox(leaf, jnp.asarray(s, leaf.dtype)), v, steps))

    def project(self, w: Any) -> Any:
        return tree_like(w, self._each(lambda t, leaf: t.project(leaf), w))

    def nearest_subgradient(self, w: Any, u: Any) -> Any:
        return tree_like(w, self._each(lambda t, leaf, b: t.nearest(leaf, b), w, jax.tree.leaves(widened(u))))

    def smooth(self, w: Any) -> Any:
        """Truth values: the coefficients at which the penalty has a derivative."""
        return tree_of(w, self._each(lambda t, leaf: jnp.broadcast_to(t.smooth(leaf), leaf.shape), w))

    def slope(self, w: Any) -> Any:
        """That derivative."""
        return tree_of(w, self._each(lambda t, leaf: jnp.broadcast_to(t.slope_at(leaf), leaf.shape), w))

    def conjugate(self, u: Any) -> Array:
        return jnp.sum(stacked(self._each(lambda t, leaf: jnp.sum(t.conjugate(leaf)), u)))

    def critical_lam(self, u: Any, corner: float = 0.0) -> Array:
        parts = self.with_lam(1.0)._each(lambda t, leaf: t.critical(leaf, corner), u)
        return jnp.max(stacked(parts), initial=0.0)

    def free(self, w: Any) -> Any:
        return tree_of(w, self._each(lambda t, leaf: t.free(leaf), w))

    def unpriced(self, w: Any) -> Any:
        return tree_of(w, self._each(lambda t, leaf: t.unpriced(leaf), w))

    def excess(self, u: Any) -> Any:
        return tree_of(u, self._each(lambda t, leaf: t.excess(leaf), u))

    def scalings(self, u: Any) -> tuple[Array, Array]:
        # With curvature (l2) the conjugate is finite unscaled, but steep when l2 is small: offer both.
        factors = []
        for edges in (methodcaller("domain"), methodcaller("corners")):
            parts = self._each(lambda t, leaf, edges=edges: _largest_scaling(leaf - t.excess(leaf), *edges(t)), u)
            factors.append(jnp.min(stacked(parts), initial=1.0))

        def conjugate(t: Terms, leaf: Array, c: Array) -> Array:
            low, high = t.domain()  # the scaled point may miss the domain's edge by its last digit
            return jnp.sum(t.conjugate(jnp.clip(c.astype(leaf.dtype) * (leaf - t.excess(leaf)), low, high)))

        values = [jnp.sum(stacked(self._each(lambda t, leaf, c=c: conjugate(t, leaf, c), u))) for c in factors]
        return jnp.stack(factors), jnp.stack(values)

    def valid(self, w: Any) -> Array:
        return jnp.all(stacked(self._each(lambda t, leaf: t.valid(), w)))

    def _each(self, fact: Callable[..., Array], w: Any, *others: list[Any]) -> list[Array]:
        w = widened(w)
        return [fact(*at) for at in zip(self.terms(w), jax.tree.leaves(w), *others, strict=True)]


def widened(w: Any) -> Any:
    """The tree in dtypes in which to compute: half precision and integers as float32 or wider."""
    leaves = jax.tree.map(floating, w)
    return jax.tree.map(lambda leaf: leaf.astype(compute_dtype(leaf.dtype)), leaves)


def tree_of(w: Any, leaves: list[Array]) -> Any:
    """A tree of the structure of `w`."""
    return jax.tree.unflatten(jax.tree.structure(w), leaves)


def tree_like(w: Any, leaves: list[Array]) -> Any:
    """A tree of the structure and dtypes of `w`."""
    given = jax.tree.leaves(w)
    return tree_of(w, [unsigned_zero(a.astype(floating(b).dtype)) for a, b in zip(leaves, given, strict=True)])


def stacked(parts: list[Array]) -> Array:
    """One number of each leaf, in the widest of their dtypes."""
    dtype = max((part.dtype for part in parts), key=lambda dtype: dtype.itemsize, default=jnp.result_type(float))
    return jnp.stack([part.astype(dtype) for part in parts]) if parts else jnp.zeros(0, dtype)


def _largest_scaling(u: Array, low: Array, high: Array) -> Array:
    """The largest c in [0, 1] with low <= c*u <= high, where 0 is inside on the side of `u`."""
    edge = jnp.where(u > 0, high, -low)
    outside = jnp.abs(u) > edge
    return jnp.min(jnp.where(outside, edge / jnp.where(outside, jnp.abs(u), 1.0), 1.0), initial=1.0)


def broadcast_leaves(prefix: Any, w: Any, name: str) -> list[Any]:
    """The leaves of `prefix`, a tree prefix of `w`, one for each leaf of `w`."""
    try:
        return list(jax.tree.leaves(jax.tree.broadcast(prefix, w)))
    except ValueError as error:
        raise ValueError(
            f"{name}: want one value, or a tree that matches the coefficients; got {jax.tree.structure(prefix)} "
            f"for {jax.tree.structure(w)}"
        ) from error


def set_strength(node: Any) -> None:
    """Convert the strength of a new penalty; refuse a negative, NaN or infinite one."""
    set_hyperparameter(node, "lam", 0.0, LARGEST, "finite numbers, at least 0")


def mean_scale(scale: Any, mean: Callable[[Any], Array]) -> Array:
    """(the mean of 1/scale^2)^(-1/2): the scale of the mean second moment. Entries of scale 0 have none yet."""
    moments = jax.tree.map(lambda a: jnp.where(a == 0, 0.0, 1 / jnp.where(a == 0, 1.0, a) ** 2), scale)
    moment = mean(moments)
    return jnp.where(moment == 0, 0.0, 1 / jnp.sqrt(jnp.where(moment == 0, 1.0, moment)))


def check_penalty(given: Any, name: str = "penalty") -> None:
    """Refuse what is no penalty."""
    if not isinstance(given, Penalty):
        raise TypeError(f"{name}: want a penalty such as l1jax.L1(0.1), got {given!r}")


def with_ratio(penalty: Penalty, l1_ratio: Any) -> Penalty:
    """The penalty with another l1_ratio, through any combinators."""
    if hasattr(penalty, "l1_ratio"):
        return dataclasses.replace(penalty, l1_ratio=l1_ratio)  # type: ignore[type-var]
    if hasattr(penalty, "penalty"):
        return dataclasses.replace(penalty, penalty=with_ratio(penalty.penalty, l1_ratio))  # type: ignore[type-var]
    raise ValueError(f"l1_ratios: want a penalty that has an l1_ratio, such as ElasticNet; got {penalty!r}")
