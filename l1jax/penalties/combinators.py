"""Penalties made of penalties: factors, signs, bounds, masks, sums."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from l1jax._arrays import concrete, hyperparameter
from l1jax._node import node
from l1jax.penalties.base import Elementwise, Penalty, Wrapper, broadcast_leaves, set_strength
from l1jax.penalties.elementwise import L1
from l1jax.penalties.terms import Terms, fit


@node
class Factors(Wrapper, Elementwise):
    """sum_j factors_j * penalty_j(w_j): penalty factors, one per coefficient, used as given.

    Args:
      penalty: the penalty, one that acts on each coefficient alone; its L2 part is multiplied too.
      factors: numbers from 0 to infinity; an array that matches the coefficients' leading axes, or a tree that
        matches theirs. 0 leaves a coefficient unpenalised, infinity fixes it at 0 for every lam, 0 included.

    They are never rescaled (R's glmnet uses factors*p/sum(factors)). Raises TypeError for a penalty that does not
    act on each coefficient alone, ValueError for negative or NaN factors.

    Source: Zou (2006), "The adaptive lasso and its oracle properties", JASA 101(476), eq. 4.

    >>> import jax.numpy as jnp
    >>> penalty = Factors(L1(0.5), jnp.array([0.0, 1.0, jnp.inf]))
    >>> penalty.prox(jnp.array([3.0, 3.0, 3.0]), 1.0)
    Array([3. , 2.5, 0. ], dtype=float32)
    """

    penalty: Any
    factors: Any

    def __post_init__(self) -> None:
        _check_elementwise(self.penalty, "Factors")
        _set_tree(self, "factors")
        _check_tree(lambda f: f >= 0, "factors: want numbers from 0 to infinity", self.factors)

    def terms(self, w: Any) -> list[Terms]:
        w_leaves, factors = jax.tree.leaves(w), broadcast_leaves(self.factors, w, "factors")
        inner = self.penalty.terms(w)
        return [t.times(fit(f, leaf)) for t, f, leaf in zip(inner, factors, w_leaves, strict=True)]


@node
class Bounds(Wrapper, Elementwise):
    """penalty(w) where lower <= w <= upper, infinite elsewhere.

    Args:
      penalty: the penalty, one that acts on each coefficient alone.
      lower: the least values, -infinity for none; a number, an array that matches the coefficients' leading axes,
        or a tree that matches theirs. In the coefficients' raw units, also under `standardize`.
      upper: the greatest values, infinity for none.

    prox: that of the penalty, clipped. Raises ValueError where lower > upper.

    >>> import jax.numpy as jnp
    >>> Bounds(L1(0.5), lower=-1.0, upper=2.0).prox(jnp.array([-3.0, 1.0, 3.0]), 1.0)
    Array([-1. ,  0.5,  2. ], dtype=float32)
    """

    penalty: Any
    lower: Any = -jnp.inf
    upper: Any = jnp.inf

    def __post_init__(self) -> None:
        _check_elementwise(self.penalty, "Bounds")
        _set_tree(self, "lower")
        _set_tree(self, "upper")
        same = bool(jax.tree.structure(self.lower) == jax.tree.structure(self.upper))  # type: ignore[operator]
        if same:
            _check_tree(lambda low, high: low <= high, "lower, upper: want lower <= upper", self.lower, self.upper)

    def terms(self, w: Any) -> list[Terms]:
        lower, upper = broadcast_leaves(self.lower, w, "lower"), broadcast_leaves(self.upper, w, "upper")
        return [
            t.clipped(fit(low, leaf), fit(high, leaf))
            for t, low, high, leaf in zip(self.penalty.terms(w), lower, upper, jax.tree.leaves(w), strict=True)
        ]


@node
class NonNegative(Wrapper, Elementwise):
    """penalty(w) where w >= 0, infinite elsewhere.

    Args:
      penalty: the penalty, one that acts on each coefficient alone.

    prox: that of the penalty at max(v, 0).

    >>> import jax.numpy as jnp
    >>> NonNegative(L1(0.5)).prox(jnp.array([-3.0, 1.0]), 1.0)
    Array([0. , 0.5], dtype=float32)
    """

    penalty: Any

    def __post_init__(self) -> None:
        _check_elementwise(self.penalty, "NonNegative")

    def terms(self, w: Any) -> list[Terms]:
        leaves = jax.tree.leaves(w)
        return [
            t.clipped(fit(0.0, leaf), fit(jnp.inf, leaf)) for t, leaf in zip(self.penalty.terms(w), leaves, strict=True)
        ]


@node
class Masked(Wrapper, Elementwise):
    """penalty(w) over the coefficients where `mask` is true; the others are left alone (free, unbounded).

    Args:
      penalty: the penalty, one that acts on each coefficient alone.
      mask: truth values: an array that matches the coefficients' leading axes, or a tree that matches theirs
        (one value for a whole leaf will do).

    Raises TypeError for a mask that is no truth value.

    >>> import jax.numpy as jnp
    >>> penalty = Masked(L1(0.5), {"kernel": True, "bias": False})
    >>> penalty.prox({"kernel": jnp.array([1.0]), "bias": jnp.array([1.0])}, 1.0)
    {'bias': Array([1.], dtype=float32), 'kernel': Array([0.5], dtype=float32)}
    """

    penalty: Any
    mask: Any

    def __post_init__(self) -> None:
        _check_elementwise(self.penalty, "Masked")
        # Kept as 0.0 and 1.0: an integer or boolean leaf would break `grad` with respect to a penalty.
        object.__setattr__(self, "mask", jax.tree.map(_truth, self.mask))

    def terms(self, w: Any) -> list[Terms]:
        masks = broadcast_leaves(self.mask, w, "mask")
        return [
            t.where(fit(m, leaf) != 0)
            for t, m, leaf in zip(self.penalty.terms(w), masks, jax.tree.leaves(w), strict=True)
        ]


@node
class Sum(Elementwise):
    """lam * (penalties[0](w) + penalties[1](w) + ...): one strength, 1 as built, times fixed proportions.

    Args:
      penalties: penalties whose joint proximal map is exact: those of this library that act on each coefficient
        alone, with their combinators.
      lam: the strength of the whole, at least 0.

    `with_lam(lam)` scales the whole and keeps the proportions. Raises TypeError for a penalty whose sum with the
    others has no exact proximal map.

    >>> import jax.numpy as jnp
    >>> Sum((L1(0.5), L2(0.5))).prox(jnp.array([3.0, 0.2]), 1.0)
    Array([1.25, 0.  ], dtype=float32)
    """

    penalties: Any
    lam: Any = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.penalties, tuple | list) or not self.penalties:
            raise TypeError(f"penalties: want a tuple of penalties, got {self.penalties!r}")
        for penalty in self.penalties:
            _check_elementwise(penalty, "Sum")
        object.__setattr__(self, "penalties", tuple(self.penalties))
        set_strength(self)

    def with_lam(self, lam: Any) -> Self:
        return dataclasses.replace(self, lam=lam)

    def terms(self, w: Any) -> list[Terms]:
        total = self.penalties[0].terms(w)
        for penalty in self.penalties[1:]:
            total = [t.plus(other) for t, other in zip(total, penalty.terms(w), strict=True)]
        return [t.scaled(fit(self.lam, leaf)) for t, leaf in zip(total, jax.tree.leaves(w), strict=True)]


def straight(penalty: Any) -> bool:
    """Whether a penalty is its strength times sum base_j*|w_j|, whatever the strength."""
    return isinstance(penalty.penalty if isinstance(penalty, Factors) else penalty, L1)


def _check_elementwise(penalty: Any, name: str) -> None:
    if not isinstance(penalty, Elementwise):
        known = "acts on each coefficient alone" if isinstance(penalty, Penalty) else "is a penalty"
        raise TypeError(f"{name}: want a penalty that {known}, such as l1jax.L1(0.1); got {penalty!r}")


def _set_tree(node: Any, name: str) -> None:
    """Convert the leaves of a field that may be a tree."""
    field = getattr(node, name)
    if isinstance(field, list | tuple) and all(isinstance(x, int | float | np.number) for x in field):
        field = np.asarray(field)  # a plain list of numbers is an array, not a tree of scalars
    object.__setattr__(node, name, jax.tree.map(lambda leaf: hyperparameter(leaf, name), field))


def _check_tree(holds: Callable[..., Any], wanted: str, *trees: Any) -> None:
    if not concrete(*trees):
        return
    for leaves in zip(*map(jax.tree.leaves, trees), strict=True):
        if not np.all(holds(*map(np.asarray, leaves))):  # NumPy: under a trace jnp would give tracers
            raise ValueError(f"{wanted}, got {' and '.join(str(leaf) for leaf in leaves)}")


def _truth(mask: ArrayLike) -> Any:
    if isinstance(mask, bool):
        return float(mask)
    if concrete(mask):
        values = np.asarray(mask)
        if values.dtype.kind in "USO" or not np.all((values == 0) | (values == 1)):
            raise TypeError(f"mask: want truth values, got {mask}")
    return jnp.asarray(mask, float)
