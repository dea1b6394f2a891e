"""Folds from moments: X'X of all rows without those that a fold leaves out."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax.design import Design, reweighted
from l1jax.engines import ActiveSet
from l1jax.engines.kinks import Floats
from l1jax.hosted import Penalties, driven
from l1jax.minimum import Controls
from l1jax.problem import Problem
from l1jax.result import Result
from l1jax.standard_form import StandardForm, form_with
from l1jax.sufficient import Moments, digits, moments


class Training:
    """The training parts of a problem's rows, `train` (K, n), over its design."""

    def __init__(self, problem: Problem, form: StandardForm, train: np.ndarray) -> None:
        self.problem, self.form, self.train = problem, form, train
        self.XT, self.s = np.asarray(form.design.XT), np.asarray(form.s)

    @functools.cached_property
    def whole(self) -> Floats:
        return moments(self.XT, self.s)

    def moments(self, k: int) -> Floats:
        """X'SX of the rows that a fold fits: of these, or of all without the others, whichever are fewer."""
        inside, outside = (np.flatnonzero(rows & (self.s > 0)) for rows in (self.train[k], ~self.train[k]))
        if len(inside) <= len(outside):
            total = moments(self.XT[:, inside], self.s[inside])
        else:
            total = self.whole - moments(self.XT[:, outside], self.s[outside])
        return total / np.sum(self.s[inside])

    def solve(
        self, engine: ActiveSet, k: int, weights: Array, y: Array | None, penalty: Any, lams: Array, controls: Controls
    ) -> Result | None:
        """The results of a fold at strengths (L,), largest first; None where its moments have lost their digits."""
        form, (G, c, yy, share) = _posed(self.problem, self.form.design, jnp.asarray(self.moments(k)), weights, y)
        if not bool(form.fit) or not float(share) < np.inf:
            return None
        known = Moments(np.asarray(G), np.asarray(c), float(yy), digits(self.form.shape) * float(share))
        start = jax.tree.map(lambda a: a[None], form.start)
        found = driven(engine, False, form, Penalties(form, penalty, lams), start, controls, known)
        return Result(**found.told, lams=lams)


@jax.jit
def _posed(problem: Problem, design: Design, moments: Array, weights: Array, y: Array | None) -> Any:
    """A fold's form, without its rows, and its moments; by how much they lost digits to the shift of means."""
    posed = dataclasses.replace(problem, sample_weight=weights, y=problem.y if y is None else y)
    s = posed.weights()
    own = reweighted(design, s, problem.fit_intercept, problem.standardize, jnp.diagonal(moments))
    form = form_with(posed, own)
    norm = own.norm * own.unit  # in the units of the design
    whole = jnp.sqrt(jnp.diagonal(moments))
    lost = jnp.max(jnp.where(whole > 0, whole / jnp.where(norm > 0, norm, 0.0), 1.0)) ** 2
    G, c = own.gram_from(moments, s), own.tdot(s * form.y)
    bare = dataclasses.replace(form, design=dataclasses.replace(own, XT=jnp.zeros((*own.center.shape, 0), c.dtype)))
    return bare, (G, c, jnp.sum(s * form.y**2), lost)
