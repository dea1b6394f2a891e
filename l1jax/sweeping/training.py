"""Folds from moments: sums over all rows without those over the rows that a fold leaves out."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax._arrays import cast
from l1jax._threads import in_parts, one_thread
from l1jax.engines import ActiveSet
from l1jax.engines.kinks import Floats, Indices
from l1jax.hosted import Penalties, driven
from l1jax.minimum import Controls
from l1jax.result import Result
from l1jax.standard_form import StandardForm
from l1jax.sufficient import Moments, about, digits, moments, under

ROWS = 4096  # taken at a time
KEPT = 4  # so many times the numbers of X may be kept of the folds' sums


class Training:
    """The training parts of a form's rows, `train` (K, n).

    Sums are of the products, two by two, of the columns of X, 1 and y: (p + 2, p + 2). `whole` are those over all rows,
    `parts` those over the rows that each fold leaves out. All is in double precision.
    """

    def __init__(self, form: StandardForm, train: np.ndarray) -> None:
        self.XT, self.s, self.y = (np.asarray(a) for a in (form.design.XT, form.s, form.y))
        self.form = dataclasses.replace(form, design=dataclasses.replace(form.design, XT=form.design.XT[:, :0]))
        self.inside, self.outside = train & (self.s > 0), ~train & (self.s > 0)
        with one_thread():
            self.parts = self._parts()
            self.whole = jnp.asarray(self.sums(self.s > 0) if self.parts is None else sum(self.parts))

    def sums(self, rows: Any) -> Floats:
        """Those over some rows, a mask (n,)."""
        at: Indices = np.flatnonzero(rows)

        def part(i: int) -> Floats:
            ids = at[i : i + ROWS]
            some = np.concatenate([self.XT[:, ids], np.ones((1, len(ids))), self.y[None, ids]])
            return moments(some, self.s[ids])

        total = part(0)
        for i in range(ROWS, len(at), ROWS):
            total += part(i)
        return total

    def _parts(self) -> list[Floats] | None:
        """Those over the rows that each fold leaves out, if these make up all rows: then they are all there is to do.

        None where they do not, or are too many to be kept.
        """
        once = np.array_equal(np.sum(self.outside, axis=0), self.s > 0)
        if not once or len(self.outside) * (len(self.XT) + 2) ** 2 > KEPT * self.XT.size:
            return None
        parts: list[Any] = [None] * len(self.outside)

        def fill(at: slice) -> None:
            parts[at] = [self.sums(rows) for rows in self.outside[at]]

        in_parts(fill, len(parts), 1)
        return parts

    @one_thread()
    def solve(
        self, engine: ActiveSet, k: int, penalty: Any, lams: Array, controls: Controls, dtype: Any
    ) -> Result | None:
        """The results of a fold at strengths (L,), largest first, rounded to a dtype.

        None where its moments have lost their digits.
        """
        if np.sum(self.inside[k]) <= np.sum(self.outside[k]):
            form, G, c, share = _posed(self.form, self.sums(self.inside[k]), None)
        else:
            left_out = self.parts[k] if self.parts else self.sums(self.outside[k])
            form, G, c, share = _posed(self.form, self.whole, left_out)
        if not bool(form.fit) or not float(share) < np.inf:
            return None
        known = Moments(np.asarray(G), np.asarray(c), 2 * float(form.null_objective), float(share))
        start = jax.tree.map(lambda a: a[None], form.start)
        penalties = Penalties(form, penalty, lams)
        found = driven(engine, False, form, penalties, start, controls, known, dtype=dtype)
        return cast(Result(**found.told, lams=lams), dtype)


@jax.jit
def _posed(form: StandardForm, whole: Any, left_out: Any) -> Any:
    """A fold's form, without its rows, and its moments; by how much they may be wrong."""
    sums = whole if left_out is None else whole - left_out
    total = sums[-2, -2]
    means, sizes = sums / total, jnp.diagonal(whole) / total
    posed, c, lost = under(form, means[:, -2], means[:, -1], jnp.diagonal(means), sizes)
    own: Any = posed.design
    G = about(means[:-2, :-2], own.shift, own.unit)
    return posed, G, c, digits(form.shape) * lost
