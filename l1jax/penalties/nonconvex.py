"""Penalties of each coefficient alone that bend away from the V, so that large coefficients are shrunk less.

They have no duality gap. Solutions are stationary points, which `stationarity` measures, and may depend on the start.
"""

import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax import prox
from l1jax._arrays import ABOVE_0, set_hyperparameter
from l1jax._node import node
from l1jax.penalties.base import Elementwise, set_strength, tree_of, widened
from l1jax.penalties.combinators import Factors
from l1jax.penalties.curves import Curve
from l1jax.penalties.elementwise import L1
from l1jax.penalties.terms import fit


class Nonconvex(Elementwise):
    """A sum of scalar functions phi(w_j), concave on either side of 0."""

    certified = False
    curve: ClassVar[type[Curve]]

    def with_lam(self, lam: Any) -> Self:
        return dataclasses.replace(self, lam=lam)  # type: ignore[type-var]

    def terms(self, w: Any) -> list[Any]:
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        return [self.curve(*(fit(getattr(self, name), leaf) for name in names)) for leaf in jax.tree.leaves(w)]


@node
class _Mcp(Curve):
    lam: Array
    gamma: Array

    def at(self, size: Array, lam: Array) -> Array:
        inner = lam * size - size**2 / (2 * self.gamma)
        return jnp.where(size <= self.gamma * lam, inner, self.gamma * lam**2 / 2)

    def slope(self, size: Array, lam: Array) -> Array:
        return jnp.maximum(lam - size / self.gamma, 0.0)

    def threshold(self, v: Array, lam: Array, step: Array) -> Array:
        return prox.firm_threshold(v, lam, self.gamma, step)


@node
class MCP(Nonconvex):
    """sum lam*|w| - w^2/(2*gamma) where |w| <= gamma*lam, gamma*lam^2/2 beyond.

    Args:
      lam: the strength, at least 0: the slope at 0.
      gamma: how slowly it bends, above 0 (ncvreg's default is 3), in the units of coefficients over those of lam; the
        L1 norm as it grows.

    prox: the global minimiser for every step: firm thresholding for step < gamma, else hard at lam*sqrt(gamma*step).
    Zero is stationary from max |u| on. No certificate: gap is NaN, and `converged` speaks of the stationarity.
    `Factors` multiply lam. Raises ValueError for negative lam, or gamma that is not above 0.

    Source: Zhang (2010), "Nearly unbiased variable selection under minimax concave penalty", Ann. Statist. 38(2).

    >>> import jax.numpy as jnp
    >>> MCP(1.0, gamma=3.0).prox(jnp.array([-1.0, 2.0, 4.0]), 1.0).round(4)
    Array([0. , 1.5, 4. ], dtype=float32)
    """

    lam: Any
    gamma: Any = 3.0
    curve = _Mcp

    def __post_init__(self) -> None:
        set_strength(self)
        set_hyperparameter(self, "gamma", ABOVE_0, np.inf, "numbers above 0")


@node
class _Scad(Curve):
    lam: Array
    gamma: Array

    def at(self, size: Array, lam: Array) -> Array:
        return prox.scad(size, lam, self.gamma)

    def slope(self, size: Array, lam: Array) -> Array:
        return jnp.where(size <= lam, lam, jnp.maximum(self.gamma * lam - size, 0.0) / (self.gamma - 1))

    def threshold(self, v: Array, lam: Array, step: Array) -> Array:
        return prox.scad_threshold(v, lam, self.gamma, step)


@node
class SCAD(Nonconvex):
    """sum lam*|w| to |w| = lam, (2*gamma*lam*|w| - w^2 - lam^2)/(2*(gamma-1)) to gamma*lam, then lam^2*(gamma+1)/2.

    Args:
      lam: the strength, at least 0, and the end of the V (in units in which the coefficients are those of lam).
      gamma: above 1; 3.7 is Fan and Li's. It is flat from gamma*lam on.

    prox: the global minimiser for every step. Zero is stationary from max |u| on. No certificate: gap is NaN, and
    `converged` speaks of the stationarity. `Factors` multiply lam.

    Source: Fan and Li (2001), "Variable selection via nonconcave penalized likelihood and its oracle properties", JASA
    96(456).

    >>> import jax.numpy as jnp
    >>> SCAD(1.0, gamma=3.5).prox(jnp.array([-1.5, 3.0, 5.0]), 1.0).round(4)
    Array([-0.5   ,  2.6667,  5.    ], dtype=float32)
    """

    lam: Any
    gamma: Any = 3.7
    curve = _Scad

    def __post_init__(self) -> None:
        set_strength(self)
        set_hyperparameter(self, "gamma", float(np.nextafter(1, 2)), np.inf, "numbers above 1")


@node
class _L0(Curve):
    lam: Array

    def at(self, size: Array, lam: Array) -> Array:
        return jnp.where(size > 0, lam, jnp.zeros_like(size))

    def slope(self, size: Array, lam: Array) -> Array:
        return jnp.where(size == 0, jnp.inf, 0.0)

    def threshold(self, v: Array, lam: Array, step: Array) -> Array:
        return prox.hard_threshold(v, lam * step)


@node
class L0(Nonconvex):
    """lam * (the number of coefficients that are not 0).

    Args:
      lam: the price of a nonzero, at least 0, in the units of the objective.

    prox: hard thresholding at sqrt(2*step*lam). Zero is stationary at every lam, so that there is no lambda_max and no
    grid: pass lams. No certificate: gap is NaN, and `converged` speaks of the stationarity, which every subset's least
    squares fit has. `Factors` multiply lam.

    Source: Blumensath and Davies (2008), "Iterative thresholding for sparse approximations", J. Fourier Anal. Appl.
    14.

    >>> import jax.numpy as jnp
    >>> L0(2.0).prox(jnp.array([-3.0, -1.0, 2.0]), 1.0)
    Array([-3.,  0.,  0.], dtype=float32)
    """

    lam: Any
    curve = _L0

    def __post_init__(self) -> None:
        set_strength(self)


@node
class _Half(Curve):
    lam: Array

    def at(self, size: Array, lam: Array) -> Array:
        return lam * jnp.sqrt(size)

    def slope(self, size: Array, lam: Array) -> Array:
        return jnp.where(size == 0, jnp.inf, lam / (2 * jnp.sqrt(jnp.where(size == 0, 1.0, size))))

    def threshold(self, v: Array, lam: Array, step: Array) -> Array:
        return prox.half_threshold(v, lam * step)


@node
class LHalf(Nonconvex):
    """lam * sum sqrt|w|.

    Args:
      lam: the strength, at least 0.

    prox: the global minimiser, in closed form: 0 up to 3/2*(step*lam)^(2/3). Zero is stationary at every lam, so that
    there is no lambda_max and no grid: pass lams. No certificate: gap is NaN, and `converged` speaks of the
    stationarity. `Factors` multiply lam.

    Source: Xu, Chang, Xu, Zhang (2012), "L1/2 regularization: a thresholding representation theory and a fast solver",
    IEEE Trans. Neural Netw. 23(7).

    >>> import jax.numpy as jnp
    >>> LHalf(1.0).prox(jnp.array([-3.0, 1.0]), 1.0).round(4)
    Array([-2.6955,  0.    ], dtype=float32)
    """

    lam: Any
    curve = _Half

    def __post_init__(self) -> None:
        set_strength(self)


@node
class _Log(Curve):
    lam: Array
    eps: Array

    def at(self, size: Array, lam: Array) -> Array:
        return lam * jnp.log1p(size / self.eps)

    def slope(self, size: Array, lam: Array) -> Array:
        return lam / (size + self.eps)

    def threshold(self, v: Array, lam: Array, step: Array) -> Array:
        return prox.log_threshold(v, lam * step, self.eps)


@node
class LogSum(Nonconvex):
    """lam * sum log(1 + |w|/eps).

    Args:
      lam: the strength, at least 0.
      eps: where the logarithm bends, above 0, in the units of the coefficients; its slope at 0 is lam/eps.

    prox: the global minimiser, in closed form. Zero is stationary from eps * max |u| on. No certificate: gap is NaN,
    and `converged` speaks of the stationarity. `Factors` multiply lam. Its majorisers are the reweighted lasso.

    Source: Candès, Wakin, Boyd (2008), "Enhancing sparsity by reweighted l1 minimization", J. Fourier Anal. Appl. 14.

    >>> import jax.numpy as jnp
    >>> LogSum(1.0, eps=0.5).prox(jnp.array([-3.0, 1.0]), 1.0).round(4)
    Array([-2.6861,  0.    ], dtype=float32)
    """

    lam: Any
    eps: Any = 1.0
    curve = _Log

    def __post_init__(self) -> None:
        set_strength(self)
        set_hyperparameter(self, "eps", ABOVE_0, np.inf, "numbers above 0")


def majorizer(penalty: Nonconvex, coef: Any) -> Factors:
    """sum_j phi'(|coef_j|) * |w_j|: the weighted lasso whose V, up to a constant, lies on phi at coef and above it.

    Args:
      penalty: `MCP`, `SCAD`, `LogSum`, ...
      coef: the coefficients, on the scale on which the penalty acts (standardised ones under `standardize`).

    Solving it and majorising again at the solution never raises the objective: local linear approximation for MCP and
    SCAD, the reweighted lasso for LogSum. With 1/|coef|^gamma for factors, by hand, it is the adaptive lasso. Where the
    slope is infinite (L0 and LHalf at 0) the coefficient is fixed at 0.

    Source: Zou and Li (2008), "One-step sparse estimates in nonconcave penalized likelihood models", Ann. Statist.
    36(4).

    >>> import jax.numpy as jnp
    >>> majorizer(MCP(1.0, gamma=3.0), jnp.array([0.0, 1.5, 9.0])).factors
    Array([1. , 0.5, 0. ], dtype=float32)
    """
    if not isinstance(penalty, Nonconvex):
        raise TypeError(f"majorizer: want a nonconvex penalty such as l1jax.MCP(0.1), got {penalty!r}")
    sizes = jax.tree.map(jnp.abs, widened(coef))
    slopes = [t.interval(leaf)[1] for t, leaf in zip(penalty.terms(sizes), jax.tree.leaves(sizes), strict=True)]
    return Factors(L1(1.0), tree_of(sizes, slopes))
