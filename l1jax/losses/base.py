"""What a loss answers, and what the losses that are sums over rows share."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from l1jax._arrays import along, eps
from l1jax.losses.shift import shift


class Loss(abc.ABC):
    """A convex, smooth function of the linear predictors, with its derivatives and links.

    A loss sees the whole vectors at once: `eta (n,)`, `y (n,)` and `s (n,)`, weights that sum to 1; most are sums
    over rows, sum_i s_i * l(eta_i, y_i), but it may couple rows. It is shifted so that its least value over eta is 0:
    certificates are relative to the null model's value. A loss of `several` outputs has k linear predictors a row:
    eta, gradients and curvatures are (n, k) then, coefficients (p, k), and the intercept (k,).

    **A loss of your own** is a frozen dataclass that is a pytree, with five methods: `value`, `gradient`,
    `curvature`, `mean` and `link`. Hyperparameters are its fields. `conjugate` is optional: without it there is no
    duality gap, and a solution is certified by its fixed-point residual, `Result.stationarity`. `encode`, `complaint`
    and `answerable` are optional checks of y; `smoothness` is optional and spares line searches.

    >>> import dataclasses, jax, jax.numpy as jnp
    >>> @jax.tree_util.register_dataclass
    ... @dataclasses.dataclass(frozen=True, eq=False)
    ... class LogCosh(Loss):
    ...     '''sum_i s_i * log(cosh(eta_i - y_i)).'''
    ...     def value(self, eta, y, s):
    ...         r = jnp.abs(eta - y)
    ...         return jnp.sum(s * (r + jnp.log1p(jnp.exp(-2 * r)) - jnp.log(2.0)))
    ...     def gradient(self, eta, y, s):
    ...         return s * jnp.tanh(eta - y)
    ...     def curvature(self, eta, y, s):
    ...         return s / jnp.cosh(eta - y) ** 2
    ...     def mean(self, eta):
    ...         return eta
    ...     def link(self, mu):
    ...         return mu
    >>> X, y = [[1.0], [2.0], [3.0], [4.0], [5.0]], [1.0, 2.0, 30.0, 4.0, 5.0]
    >>> result = solve(Problem(X, y, loss=LogCosh(), penalty=L1(0.01)), tol=1e-4)  # shrugs the outlier off
    >>> print(f"{result.coef[0]:.1f}", result.converged)
    1.0 True
    """

    attained: bool = True
    """Whether every row's least value 0 is taken at a finite eta, rather than approached as eta grows."""

    curved: bool = True
    """Whether the curvature says how far a second-order step may go: not where it is 0 on most rows, or a bound."""

    location: bool = True
    """Whether an intercept has a bearing on it."""

    several: bool = False
    """Whether each row has several linear predictors."""

    @property
    def holds_rows(self) -> bool:
        """Whether it holds values of rows, and so goes with these rows, in this order, alone."""
        return any(np.ndim(leaf) for leaf in jax.tree.leaves(self))

    axes: int = 1
    """The number of axes of y."""

    @property
    def smoothness(self) -> Any:
        """A bound of the second derivative, over s, if there is one (else None): it is at most smoothness*diag(s)."""
        return None

    @abc.abstractmethod
    def value(self, eta: Array, y: Array, s: Array) -> Array:
        """sum_i s_i * l(eta_i, y_i), a scalar of at least 0."""

    @abc.abstractmethod
    def gradient(self, eta: Array, y: Array, s: Array) -> Array:
        """The derivative of `value` in eta, (n,)."""

    @abc.abstractmethod
    def curvature(self, eta: Array, y: Array, s: Array) -> Array:
        """The diagonal of the second derivative in eta, (n,), at least 0.

        If rows or outputs are coupled, a diagonal that is an upper bound of the whole.
        """

    def bent(self, d: Array, eta: Array, y: Array, s: Array) -> Array:
        """The second derivative in eta times a direction d, (n,): a loss that couples rows says its own."""
        return self.curvature(eta, y, s) * d

    def conjugate(self, v: Array, y: Array, s: Array) -> Array:
        """sup_eta <v, eta> - value(eta), a scalar; infinite outside its domain. `v` has the units of `gradient`.

        NaN, as here, says that it is not known: the certificate is then the fixed-point residual.
        """
        return jnp.full((), jnp.nan, v.dtype)

    @abc.abstractmethod
    def mean(self, eta: Array) -> Array:
        """The inverse link: the expected y at linear predictor eta."""

    @abc.abstractmethod
    def link(self, mu: Array) -> Array:
        """The link: the linear predictor at expected value mu."""

    def outputs(self, y: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one row's linear predictors, given that of y: () for one, (k,) for several."""
        return ()

    def shift(self, eta: Array, y: Array, s: Array) -> Array:
        """argmin_b value(eta + b, y, s), the same b for all rows. Right as it is where outputs don't couple."""
        return shift(self, eta, y, s)

    def centred(self, intercept: Array) -> Array:
        """The intercept to report, where several give the same fit."""
        return intercept

    def encode(self, y: Array) -> Array:
        """y as the formulas take it; NaN where it is no response of this loss."""
        return y

    def absorb(self, y: Array, offset: Array) -> tuple[Array, Array]:
        """An equivalent (y, offset), with the offset 0 where the loss allows it."""
        return y, offset

    def complaint(self, y: Array, s: Array) -> str:
        """What is wrong with a concrete, finite response, in words; empty if nothing is."""
        return ""

    def answerable(self, y: Array, s: Array) -> Array:
        """Whether an encoded response has a finite fit: a scalar truth value."""
        return jnp.all(jnp.isfinite(y))


class Rowwise(Loss):
    """A loss sum_i s_i * l(eta_i, y_i), given by the function of one row and its derivatives.

    Rows of weight 0 are left out whatever they hold: where l overflows, 0 * l would be NaN.
    """

    @abc.abstractmethod
    def row(self, eta: Array, y: Array) -> Array:
        """l, row by row."""

    @abc.abstractmethod
    def slope(self, eta: Array, y: Array) -> Array:
        """l', row by row."""

    @abc.abstractmethod
    def bend(self, eta: Array, y: Array) -> Array:
        """l'', row by row."""

    @abc.abstractmethod
    def row_conjugate(self, t: Array, y: Array, scale: Array) -> Array:
        """sup_eta t*eta - l(eta), row by row; `scale`, the mean of |y|, is the size of what rounding may add to t."""

    def value(self, eta: Array, y: Array, s: Array) -> Array:
        return jnp.sum(s * self.row(*_weighed(eta, y, s)))

    def gradient(self, eta: Array, y: Array, s: Array) -> Array:
        return s * self.slope(*_weighed(eta, y, s))

    def curvature(self, eta: Array, y: Array, s: Array) -> Array:
        return s * self.bend(*_weighed(eta, y, s))

    def conjugate(self, v: Array, y: Array, s: Array) -> Array:
        _, y = _weighed(y, y, s)
        return jnp.sum(s * self.row_conjugate(per_weight(v, s), y, jnp.sum(s * jnp.abs(y))))


def _weighed(eta: Array, y: Array, s: Array) -> tuple[Array, Array]:
    """(eta, y), rows of weight 0 replaced by harmless ones."""
    return jnp.where(s > 0, eta, 0.0), jnp.where(s > 0, y, 1.0)


def per_weight(v: Array, s: Array) -> Array:
    """v / s, rows of weight 0 (in which v is 0) giving 0."""
    s = along(s, v)
    return jnp.where(s > 0, v / jnp.where(s > 0, s, 1.0), 0.0)


def fit(leaf: Any, eta: Array, name: str) -> Array:
    """A hyperparameter in the dtype of eta: one number, or one for each row."""
    a = jnp.asarray(leaf, eta.dtype)
    if a.ndim and a.shape != eta.shape:
        raise ValueError(f"{name}: want one number, or one for each row {eta.shape}; got shape {a.shape}")
    return a


def into(t: Array, low: Array | float, high: Array | float, size: Array | float) -> tuple[Array, Array]:
    """t clipped to [low, high], and what that costs a conjugate: 0 within rounding of numbers of `size`, else inf."""
    clipped = jnp.clip(t, low, high)
    near = jnp.abs(t - clipped) <= 8 * eps(t.dtype) * size
    return clipped, jnp.where(near, 0.0, jnp.where(jnp.isnan(t), t, jnp.inf))


def listed(y: Array, most: int) -> str:
    """The values that occur, for a complaint to show: the first few of them."""
    values = jnp.unique(y)
    return ", ".join(f"{value:g}" for value in values[:most].tolist()) + (", ..." if values.size > most else "")


def settled(d: Array, size: Array | float) -> Array:
    """d, a difference of numbers of `size`, with 0 where it is only their rounding; its derivative is that of d.

    So that a perfect fit, that of a constant y say, has a loss of 0.
    """
    return d - lax.stop_gradient(jnp.where(jnp.abs(d) <= 4 * eps(d.dtype) * size, d, 0.0))
