"""The penalties that act on each coefficient alone."""

from typing import Any, Self

import jax
from jax import Array

from l1jax._arrays import set_hyperparameter
from l1jax._node import node
from l1jax.penalties.base import Elementwise, Strengthless, set_strength
from l1jax.penalties.terms import Terms, fit


@node
class L1(Elementwise):
    """lam * sum |w|.

    Args:
      lam: the strength, at least 0: a number, or an array that matches the coefficients' leading axes.

    prox: soft-thresholding at step*lam. conjugate: 0 if every |u| <= lam, else infinite. Zero is optimal from
    max |u| on. Raises ValueError for a negative, NaN or infinite lam.

    Source: Tibshirani (1996), "Regression shrinkage and selection via the lasso", JRSS B 58(1), eq. 1.

    >>> import jax.numpy as jnp
    >>> penalty = L1(0.5)
    >>> penalty.value(jnp.array([1.0, 0.0, -3.0]))
    Array(2., dtype=float32)
    >>> penalty.prox(jnp.array([1.0, 0.2, -3.0]), 1.0)
    Array([ 0.5,  0. , -2.5], dtype=float32)
    """

    lam: Any

    def __post_init__(self) -> None:
        set_strength(self)

    def with_lam(self, lam: Any) -> Self:
        return type(self)(lam)

    def terms(self, w: Any) -> list[Terms]:
        return [Terms.of(leaf, l1=self.lam) for leaf in jax.tree.leaves(w)]


@node
class L2(Elementwise):
    """lam * sum w^2 (derivative 2*lam*w, as in ridge regression).

    Args:
      lam: the strength, at least 0: a number, or an array that matches the coefficients' leading axes.

    prox: v / (1 + 2*step*lam). conjugate: sum u^2 / (4*lam), finite everywhere. Zero is optimal for no finite lam
    unless u = 0. Raises ValueError for a negative, NaN or infinite lam.

    Source: Hoerl and Kennard (1970), "Ridge regression", Technometrics 12(1).

    >>> import jax.numpy as jnp
    >>> penalty = L2(0.5)
    >>> penalty.value(jnp.array([1.0, 0.0, -3.0]))
    Array(5., dtype=float32)
    >>> penalty.prox(jnp.array([1.0, 0.0, -3.0]), 1.0)
    Array([ 0.5,  0. , -1.5], dtype=float32)
    """

    lam: Any

    def __post_init__(self) -> None:
        set_strength(self)

    def with_lam(self, lam: Any) -> Self:
        return type(self)(lam)

    def terms(self, w: Any) -> list[Terms]:
        return [Terms.of(leaf, l2=2 * fit(self.lam, leaf)) for leaf in jax.tree.leaves(w)]


@node
class ElasticNet(Elementwise):
    """lam * (l1_ratio * sum |w| + (1 - l1_ratio)/2 * sum w^2), as in scikit-learn.

    Args:
      lam: the strength, at least 0: a number, or an array that matches the coefficients' leading axes.
      l1_ratio: the share of L1, from 0 to 1.

    prox: soft_threshold(v, step*lam*l1_ratio) / (1 + step*lam*(1 - l1_ratio)). conjugate, for l1_ratio < 1:
    sum soft_threshold(u, lam*l1_ratio)^2 / (2*lam*(1 - l1_ratio)), finite everywhere. Zero is optimal from
    max |u| / l1_ratio on. Raises ValueError for a lam or l1_ratio outside its range.

    Source: Zou and Hastie (2005), "Regularization and variable selection via the elastic net", JRSS B 67(2); the
    parametrisation of Friedman, Hastie, Tibshirani (2010), J. Stat. Software 33(1), eq. 2.

    >>> import jax.numpy as jnp
    >>> penalty = ElasticNet(1.0, l1_ratio=0.5)
    >>> penalty.value(jnp.array([1.0, 0.0, -3.0]))
    Array(4.5, dtype=float32)
    >>> penalty.prox(jnp.array([1.0, 0.2, -3.5]), 1.0)
    Array([ 0.33333334,  0.        , -2.        ], dtype=float32)
    """

    lam: Any
    l1_ratio: Any = 0.5

    def __post_init__(self) -> None:
        set_strength(self)
        set_hyperparameter(self, "l1_ratio", 0.0, 1.0, "numbers from 0 to 1")

    def with_lam(self, lam: Any) -> Self:
        return type(self)(lam, self.l1_ratio)

    def terms(self, w: Any) -> list[Terms]:
        def term(leaf: Array) -> Terms:
            lam, ratio = fit(self.lam, leaf), fit(self.l1_ratio, leaf)
            return Terms.of(leaf, l1=lam * ratio, l2=lam * (1 - ratio))

        return [term(leaf) for leaf in jax.tree.leaves(w)]


@node
class NoPenalty(Strengthless, Elementwise):
    """0: the coefficients are fitted without any penalty.

    prox: v itself. conjugate: 0 at u = 0, else infinite. It has no strength: `with_lam` gives it back.

    >>> import jax.numpy as jnp
    >>> NoPenalty().prox(jnp.array([1.0, -3.0]), 1.0)
    Array([ 1., -3.], dtype=float32)
    """

    def terms(self, w: Any) -> list[Terms]:
        return [Terms.of(leaf) for leaf in jax.tree.leaves(w)]
