"""Result: what solving gives back, as plain arrays."""

import dataclasses
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from l1jax._node import node, static
from l1jax.losses import Loss
from l1jax.problem import numeric, on_device


@node
class Result:
    """The minimiser coef, intercept = argmin loss + penalty, and how good it is, proved.

    coef: coefficients in the raw units of X, (..., p), or (..., p, k) with k outputs. intercept: (...) or (..., k), 0
    without one. objective: the minimum reached.
    gap: a proved bound on (objective - minimum)/(objective of the null model). stationarity: the largest violation of
    the optimality conditions over that gradient's largest entry at the null model (lambda_max for L1). steps: passes or
    iterations taken. converged: exactly `gap <= tol`; where loss or penalty have no known dual (gap is NaN then),
    `stationarity <= tol`. tol: what was asked for. lams: the strength of the penalty. df: the number of nonzero
    coefficients. dev_ratio: 1 - loss/null loss, the share of deviance explained (R^2 for the squared loss). names: the
    columns' names, if they have any.

    Leading axes are batch axes, such as the lambdas of a path. Results are pytrees, also under `vmap`. Where there is
    no answer, entries are NaN and converged is False.

    >>> result = solve(Problem([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0], penalty=L1(0.5)))
    >>> print(f"{result.coef[0]:.3f}", result.converged)
    0.750 True
    """

    coef: Array
    intercept: Array
    objective: Array
    gap: Array
    stationarity: Array
    steps: Array
    converged: Array
    tol: Array
    lams: Array
    df: Array
    dev_ratio: Array
    names: tuple[str, ...] | None = static(default=None)

    def __getitem__(self, index: Any) -> Self:
        """The part of the leading axis that `index` names."""
        if self.gap.ndim == 0:
            raise IndexError("this result is a single solution: it has no batch axis to index")
        if isinstance(index, int | np.integer) and not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside the leading axis, of length {len(self)}")
        return jax.tree.map(lambda a: a[index], self)

    def __len__(self) -> int:
        if self.gap.ndim == 0:
            raise TypeError("this result is a single solution: it has no length")
        return int(self.gap.shape[0])

    def at(self, lam: ArrayLike, interpolate: bool = False) -> Self:
        """The solution of a path at strength `lam`: the nearest one, or between its neighbours on request.

        Args:
          lam: a strength, a scalar, within the path's range.
          interpolate: whether coefficients and intercept are interpolated linearly in lambda between the two
            neighbours. That is exact for the lasso where no coefficient enters or leaves between them, and otherwise
            no minimiser: `gap` is then NaN and `converged` False, unless `lam` is one of the path's own.

        Raises ValueError for a result that is no path, or a strength beyond its range.

        >>> both = path(Problem([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0], penalty=L1(1.0)), lams=[1.0, 0.5])
        >>> print(f"{both.at(0.75, interpolate=True).coef[0]:.3f}")
        0.375
        """
        if self.gap.ndim != 1 or self.lams.ndim != 1:
            raise ValueError(f"at: want the result of a path, with one batch axis; got batch shape {self.gap.shape}")
        wanted = float(lam)  # type: ignore[arg-type]
        lams = np.asarray(self.lams)
        low, high = float(lams.min()), float(lams.max())
        slack = 1e-6 * high
        if not low - slack <= wanted <= high + slack:
            raise ValueError(f"lam: want a strength within the path's range, {low:.4g} to {high:.4g}; got {wanted:.4g}")
        nearest = int(np.argmin(np.abs(lams - wanted)))
        if not interpolate or lams[nearest] == wanted:
            return self[nearest]
        above = int(np.argmin(np.where(lams >= wanted, lams, np.inf)))
        below = int(np.argmax(np.where(lams <= wanted, lams, -np.inf)))
        if not low <= wanted <= high or above == below:
            return self[nearest]
        t = (wanted - lams[below]) / (lams[above] - lams[below])
        mix = jax.tree.map(lambda a: _blend(a[below], a[above], t), self)
        unknown = jnp.full_like(mix.gap, jnp.nan)
        return dataclasses.replace(
            mix,
            gap=unknown,
            stationarity=unknown,
            objective=unknown,
            converged=jnp.zeros_like(self.converged[0]),
            lams=jnp.asarray(wanted, self.lams.dtype),
            df=jnp.sum(mix.coef != 0).astype(self.df.dtype),
        )

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write to an .npz file, whole or not at all (a reader never sees half a file).

        Args:
          file: the path; it is used as given.

        The arrays are stored under their names, `names` as text; nothing is pickled.
        """
        file = Path(file)
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "names"}
        if self.names is not None:
            arrays["names"] = np.asarray(self.names, dtype=np.str_)
        write_whole(file, lambda stream: np.savez(stream, **arrays))  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Args:
          file: the path.

        Raises ValueError for a file that is no saved result. float64 is read as float32 when x64 is off.
        """
        wanted = {f.name for f in dataclasses.fields(cls)} - {"names"}
        try:
            with open(file, "rb") as stream:
                stored = np.load(stream, allow_pickle=False)
                arrays = {name: stored[name] for name in stored.files} if hasattr(stored, "files") else {}
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise ValueError(f"{os.fspath(file)} is no saved l1jax result: {error}") from error
        if not wanted <= set(arrays):
            raise ValueError(f"{os.fspath(file)} is no saved l1jax result: it lacks {sorted(wanted - set(arrays))}")
        names = tuple(str(name) for name in arrays["names"]) if "names" in arrays else None
        return cls(**{name: jnp.asarray(arrays[name]) for name in wanted}, names=names)

    def __repr__(self) -> str:
        if not isinstance(self.gap, np.ndarray | jax.Array) or isinstance(self.gap, jax.core.Tracer):
            return f"Result(coef={self.coef}, gap={self.gap})"
        shape = self.gap.shape
        if shape == ():
            return _describe(self)
        each = " x ".join(str(m) for m in self.coef.shape[len(shape) :])
        head = f"Result of shape {shape}, {each} coefficients each: "
        done = int(np.sum(self.converged))
        lams = np.asarray(self.lams)
        span = f"lambda {lams.max():.4g} to {lams.min():.4g}, " if lams.size else ""
        counts = f"{int(np.min(self.df))} to {int(np.max(self.df))} nonzero, "
        worst = f"largest {_measured(self)} (tol {float(np.max(self.tol)):.0e}), "
        return head + span + counts + worst + f"{done} of {self.gap.size} converged"


def write_whole(file: Path, write: Callable[[Any], Any]) -> None:
    """write(a binary stream) to a file that appears whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def predict(result: Result, X: Any, *, offset: Any = None, loss: Loss | None = None) -> Array:
    """intercept + X coef + offset: the linear predictor, or the mean response if a loss is given.

    Args:
      result: a solution, or a path or any other batch of them.
      X: new rows, (m, p); the columns of a DataFrame must be those of the fit.
      offset: the rows' offset, (m,) or (m, k); None for 0.
      loss: the loss of the fit: its inverse link is applied (probabilities, for `Logistic()`).

    Gives (..., m), or (..., m, k) with k outputs: the batch axes of `result`, then the rows. Raises ValueError for
    columns or shapes that do not match.

    >>> result = solve(Problem([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0], penalty=L1(0.5)))
    >>> print(f"{predict(result, [[4.0]])[0]:.3f}")
    3.833
    """
    outputs = result.coef.shape[result.gap.ndim + 1 :]
    p = result.coef.shape[result.gap.ndim]
    columns = tuple(str(c) for c in X.columns) if hasattr(X, "columns") else None
    if columns is not None and result.names is not None and columns != result.names:
        raise ValueError(f"X: want the columns of the fit, {result.names}; got {columns}")
    dtype = result.coef.dtype
    X = on_device(numeric(X, "X"), dtype)
    if X.ndim != 2 or X.shape[1] != p:
        raise ValueError(f"X: want shape (m, {p}), a column for each coefficient; got {X.shape}")
    offset = on_device(numeric(offset, "offset"), dtype)
    if offset is not None and offset.shape != (*X.shape[:1], *outputs):
        want = (*X.shape[:1], *outputs)
        raise ValueError(f"offset: want shape {want}, for the rows of X {X.shape}; got {offset.shape}")
    coef, intercept = (a if outputs else a[..., None] for a in (result.coef, result.intercept))
    eta = jnp.einsum("mp,...pk->...mk", X, coef, precision=jax.lax.Precision.HIGHEST) + intercept[..., None, :]
    eta = eta if outputs else eta[..., 0]
    if offset is not None:
        eta = eta + offset.reshape((1,) * (eta.ndim - offset.ndim) + offset.shape)
    return eta if loss is None else loss.mean(eta)


def _blend(below: Array, above: Array, t: float) -> Array:
    if not jnp.issubdtype(below.dtype, jnp.floating):
        return below
    mix = below + jnp.asarray(t, below.dtype) * (above - below)
    return jnp.where((below == 0) & (above == 0), 0.0, mix)


def _describe(result: Result) -> str:
    coef, intercept = np.asarray(result.coef), np.asarray(result.intercept)
    names = result.names or tuple(f"coef[{j}]" for j in range(len(coef)))
    if coef.ndim == 2:
        names = tuple(f"{name}[{k}]" for name in names for k in range(coef.shape[1]))
        coef = coef.ravel()
    order = np.argsort(-np.abs(coef), kind="stable")
    nonzero = [j for j in order if coef[j] != 0]
    shown = ", ".join(f"{names[j]} {coef[j]:.4g}" for j in nonzero[:8]) + (", ..." if len(nonzero) > 8 else "")
    lam = np.asarray(result.lams)
    strength = f"lambda {float(lam):.4g}, " if lam.ndim == 0 else ""
    shifts = " ".join(f"{b:.4g}" for b in intercept.ravel())
    verdict = "converged" if bool(result.converged) else "not converged"
    return (
        f"Result: {strength}{len(nonzero)} of {coef.size} nonzero ({shown}), intercept {shifts}, "
        f"{_measured(result)} (tol {float(result.tol):.0e}), {verdict} after {int(result.steps)} steps"
    )


def _measured(result: Result) -> str:
    """The largest gap; the largest stationarity where no gap is known."""
    for name in ("gap", "stationarity"):
        values = np.asarray(getattr(result, name))
        known = values[~np.isnan(values)]
        if known.size:
            return f"{name} {float(known.max()):.1e}"
    return "gap nan"
