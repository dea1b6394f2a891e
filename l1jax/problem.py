"""Problem: data, loss and penalty as one value."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from l1jax._arrays import as_dtype, compute_dtype, concrete
from l1jax._node import node, static
from l1jax.losses import Loss, Squared
from l1jax.penalties import Penalty
from l1jax.penalties.base import check_penalty


@node
class Problem:
    """minimise (1/sum(w)) * sum_i w_i * loss(intercept + X_i coef + offset_i, y_i) + penalty(coef).

    Args:
      X: the design, (n, p): a NumPy or JAX array, a list of rows, or a pandas DataFrame (whose column names are
        kept). No missing values.
      y: the response, (n,), as the loss wants it; (n, k) for a loss of k responses, `MultiSquared()`.
      loss: `Squared()`, `Logistic()`, ...; half the unit deviance, so that `penalty.lam` is scikit-learn's `alpha`
        and glmnet's `lambda`.
      penalty: `L1(0.1)`, `ElasticNet(0.1, l1_ratio=0.5)`, ...; the intercept is never penalised.
      sample_weight: weights w of the rows, (n,), at least 0 and not all 0; None for equal ones. Only their ratios
        matter.
      offset: a fixed part of the linear predictor, (n,); (n, k) where a loss has k of them; None for 0.
      fit_intercept: whether an unpenalised intercept is fitted.
      standardize: whether the penalty acts on the coefficients of columns scaled to unit standard deviation (weighted,
        1/n), as in glmnet. Coefficients, bounds and starting points are always in the raw units of X.
      names: names of the columns; by default those of a DataFrame.

    All computation is in JAX's canonical dtype of X and y. **NumPy's float64 becomes float32 unless x64 is on**
    (`jax.config.update("jax_enable_x64", True)` before any array is made); half precision is computed in float32.

    Raises ValueError or TypeError for wrong shapes, text, or parts that are no loss or penalty. Values (NaN,
    negative weights, wrong labels) are checked by the functions that take a problem, when they are not traced.

    Source: Friedman, Hastie, Tibshirani (2010), "Regularization paths for generalized linear models via coordinate
    descent", J. Stat. Software 33(1), eq. 1.

    >>> problem = Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1, 2, 4], penalty=L1(0.1))
    >>> problem.X.shape
    (3, 2)
    """

    X: Any
    y: Any
    loss: Loss = Squared()
    penalty: Any = None
    sample_weight: Any = None
    offset: Any = None
    fit_intercept: bool = static(default=True)
    standardize: bool = static(default=False)
    names: tuple[str, ...] | None = static(default=None)

    def __post_init__(self) -> None:
        check_penalty(self.penalty)
        if not isinstance(self.loss, Loss):
            raise TypeError(f"loss: want a loss such as l1jax.Squared(), got {self.loss!r}")
        for name in ("fit_intercept", "standardize"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise TypeError(f"{name}: want True or False, got {getattr(self, name)!r}")
            object.__setattr__(self, name, bool(getattr(self, name)))
        if self.fit_intercept and not self.loss.location:
            loss = type(self.loss).__name__
            raise ValueError(f"fit_intercept: want False with {loss}, out of which an intercept cancels; got True")
        names = self.names
        if names is None and hasattr(self.X, "columns"):
            names = tuple(str(column) for column in self.X.columns)
        arrays = {k: numeric(getattr(self, k), k) for k in ("X", "y", "sample_weight", "offset")}
        dtype = data_dtype(arrays["X"], arrays["y"])
        for name, array in arrays.items():
            object.__setattr__(self, name, on_device(array, dtype))
        self._check_shapes(names)
        object.__setattr__(self, "names", None if names is None else tuple(names))

    def _check_shapes(self, names: tuple[str, ...] | None) -> None:
        X, y = self.X.shape, self.y.shape
        if len(X) != 2:
            raise ValueError(f"X: want two axes, (n, p); got shape {X}")
        if 0 in X:
            raise ValueError(f"X: want at least one row and one column; got shape {X}")
        if y[:1] != X[:1] or len(y) != self.loss.axes or 0 in y:
            want = f"{X[:1]}, one value" if self.loss.axes == 1 else f"({X[0]}, k), k values"
            raise ValueError(f"y: want shape {want} for each row of X {X}; got shape {y}")
        for name, shape in (("sample_weight", X[:1]), ("offset", (*X[:1], *self.outputs))):
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"{name}: want shape {shape}, for the rows of X {X}; got {array.shape}")
        if names is not None and len(names) != X[1]:
            raise ValueError(f"names: want {X[1]} names, one for each column of X {X}; got {len(names)}")

    @property
    def dtype(self) -> Any:
        return self.X.dtype

    def flags(self) -> dict[str, Array]:
        """Truth values that say of each part whether it is fit for use; all must hold."""
        s = self.weights()
        coef = jnp.zeros((self.X.shape[1], *self.outputs), self.dtype)
        parts = {"X": self.X, "y": self.y, "sample_weight": self.sample_weight, "offset": self.offset}
        flags = {k: jnp.all(jnp.isfinite(a)) for k, a in parts.items() if a is not None}
        if self.sample_weight is not None:
            flags["sign"] = jnp.all(self.sample_weight >= 0)
            flags["sum"] = jnp.any(self.sample_weight > 0)
        flags["loss"] = self.loss.answerable(self.loss.encode(self.y), s)
        flags["penalty"] = self.penalty.valid(coef)
        return flags

    @property
    def outputs(self) -> tuple[int, ...]:
        """() for one linear predictor a row, (k,) for several."""
        return self.loss.outputs(self.y.shape)

    def weights(self) -> Array:
        """The sample weights, scaled to sum to 1."""
        if self.sample_weight is None:
            return jnp.full(self.X.shape[:1], 1 / self.X.shape[0], self.dtype)
        w = self.sample_weight / jnp.max(self.sample_weight)  # a sum of large weights may overflow
        return w / jnp.sum(w)


_flags = jax.jit(Problem.flags)

_WRONG = {
    "X": "X: NaN or infinite values{hint}",
    "y": "y: NaN or infinite values{hint}",
    "sample_weight": "sample_weight: NaN or infinite values{hint}",
    "offset": "offset: NaN or infinite values{hint}",
    "sign": "sample_weight: want numbers of at least 0, got negative ones",
    "sum": "sample_weight: all are 0",
    "penalty": "penalty: want finite strengths, at least 0, and bounds that some coefficients meet; got {penalty}",
}


def check_values(problem: Problem) -> None:
    """Refuse values that have no answer, where they can be seen; a traced problem passes."""
    check_problem(problem)
    if not concrete(problem):
        return
    with jax.ensure_compile_time_eval():  # the problem may be a constant of a function that is being traced
        flags = {name: bool(flag) for name, flag in jax.device_get(_flags(problem)).items()}
        complaint, loss = "", problem.loss
        answered = flags["loss"] and type(loss).answerable is not Loss.answerable  # then there is nothing to look for
        if not answered and flags["y"] and flags.get("sum", True):
            complaint = loss.complaint(problem.y, problem.weights())
    hint = " (x64 is off: values beyond 3e38 count as infinite)" if jnp.result_type(float) == jnp.float32 else ""
    for name, wrong in _WRONG.items():
        if not flags.get(name, True):
            raise ValueError(wrong.format(hint=hint, penalty=problem.penalty))
    if complaint:
        raise ValueError(f"y: {complaint}")


def check_problem(problem: Any) -> None:
    """Refuse what is no problem."""
    if not isinstance(problem, Problem):
        raise TypeError(f"problem: want l1jax.Problem(X, y, penalty=...), got {type(problem).__name__}")
    if not isinstance(problem.penalty, Penalty):
        raise TypeError(f"penalty: want a penalty such as l1jax.L1(0.1), got {problem.penalty!r}")


def numeric(x: Any, name: str) -> Any:
    """`x` as an array of numbers, NumPy's or JAX's; None stays None."""
    if x is None or isinstance(x, jax.Array | jax.ShapeDtypeStruct):
        return x
    if hasattr(x, "toarray"):
        raise TypeError(f"{name}: sparse matrices are not supported; pass {name}.toarray()")
    array = np.asarray(x)
    if array.dtype.kind == "O":
        if any(isinstance(value, str) for value in array.ravel()):
            raise TypeError(f"{name}: want numbers, got text")
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: want an array of numbers, got {type(x).__name__} ({error})") from error
    if array.dtype.kind not in "fiub" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: want numbers, got {'text' if array.dtype.kind in 'US' else array.dtype}")
    return array


def data_dtype(*arrays: Any) -> DTypeLike:
    """The dtype in which to compute with these data; integers and truth values have no say in it."""
    dtypes = [jax.dtypes.canonicalize_dtype(a.dtype) for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]
    return compute_dtype(max(dtypes, key=lambda dtype: dtype.itemsize, default=jnp.result_type(float)))


def on_device(array: Any, dtype: DTypeLike) -> Array | None:
    """A JAX array of `dtype`; None stays None."""
    if isinstance(array, np.ndarray):
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused as such
            array = jnp.asarray(array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(np.float64))
    return None if array is None else as_dtype(array, dtype)
