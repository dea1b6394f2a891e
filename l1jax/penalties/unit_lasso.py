"""The group lasso of the units of a network."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax import prox
from l1jax._arrays import set_hyperparameter
from l1jax._node import node, static
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
from l1jax.penalties.groups import SparseGroupLasso
from l1jax.penalties.radius import Sums, group_factors
from l1jax.penalties.units import Units, UnitSet, paths


@node
class UnitLasso(Penalty):
    """lam * (l1_ratio * sum |w| + (1 - l1_ratio) * sum_u sqrt(p_u) |w_u|_2), over the units of a tree of parameters.

    Args:
      lam: the strength, at least 0.
      units: the units, slices of one array or of several: `Units.neurons(params)`, say. p_u counts a unit's
        parameters. Arrays in no unit are not penalised.
      l1_ratio: the share of the L1 norm, from 0 (whole units die) to 1.

    prox: that of the sparse-group lasso, in any diagonal metric. Where arrays are split over devices, the norms are
    those of the whole. Raises ValueError where the units do not fit the tree.

    Source: Yuan and Lin (2006), JRSS B 68(1), eq. 2.1; of units of networks, Alvarez and Salzmann (2016), "Learning the
    number of neurons in deep networks", NeurIPS.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.array([[3.0, 0.1], [0.0, 0.2]]), "bias": jnp.array([4.0, 0.2])}
    >>> bias = UnitLasso(3**-0.5, Units.neurons(params)).prox(params, 1.0)["bias"]
    >>> print([f"{b:.2f}" for b in bias])
    ['3.20', '0.00']
    """

    lam: Any
    units: Any = static()
    l1_ratio: Any = 0.0

    def __post_init__(self) -> None:
        set_strength(self)
        set_hyperparameter(self, "l1_ratio", 0.0, 1.0, "numbers from 0 to 1")
        if not isinstance(self.units, Units):
            object.__setattr__(self, "units", Units(self.units))

    def with_lam(self, lam: Any) -> Self:
        return dataclasses.replace(self, lam=lam)

    def prox(self, v: Any, step: Any) -> Any:
        steps = broadcast_leaves(step, v, "step")
        leaves = jax.tree.leaves(widened(v))
        for _, units in self.units.sets(v):
            arrays = _arrays(units, leaves)
            lean = [_lean(part, steps[part.place], a) for part, a in zip(units.parts, arrays, strict=True)]
            for part, array in zip(units.parts, self._shrunk(units, arrays, lean), strict=True):
                leaves[part.place] = array.reshape(leaves[part.place].shape)
        return tree_like(v, leaves)

    def _shrunk(self, units: UnitSet, v: list[Array], steps: list[Array]) -> list[Array]:
        lam, ratio = (jnp.asarray(a, v[0].dtype) for a in (self.lam, self.l1_ratio))
        t = [jnp.where(lam == 0, 0.0, s.astype(a.dtype)) * lam.astype(a.dtype) for s, a in zip(steps, v, strict=True)]
        v = [prox.soft_threshold(a, jnp.where(ratio == 0, 0.0, b) * ratio) for a, b in zip(v, t, strict=True)]
        # A part with one step per unit counts by its lengths alone: the equation is then one of few numbers.
        cells = [
            a if s.shape == a.shape else _lengths(part, a).reshape(part.lean)
            for part, a, s in zip(units.parts, v, t, strict=True)
        ]
        weights = jnp.full(units.units, (1 - ratio) * units.size**0.5)
        factors = group_factors(Sums(units.sum, units.max, units.spread), cells, t, weights)
        return [a * f for a, f in zip(v, factors, strict=True)]

    def blockwise(self, scale: Any) -> Any:
        leaves = jax.tree.leaves(scale)
        if not any(jnp.ndim(a) for a in leaves):
            return scale
        for _, units in self.units.sets(scale):

            def mean(moments: list[Array], units: UnitSet = units) -> Array:
                return units.sum(moments) / units.size

            shared = units.spread(mean_scale(_arrays(units, leaves), mean))
            for part, array in zip(units.parts, shared, strict=True):
                leaf = leaves[part.place]
                whole = jnp.broadcast_to(array, part.shape).reshape(leaf.shape)
                leaves[part.place] = array if len(part.shape) == leaf.ndim else whole
        return tree_of(scale, leaves)

    def alive(self, w: Any) -> Any:
        leaves = [leaf != 0 for leaf in jax.tree.leaves(w)]
        free = jax.tree.leaves(self.free(w))
        for _, units in self.units.sets(w):
            whole = units.spread(units.max(_arrays(units, leaves)))
            for part, some in zip(units.parts, whole, strict=True):
                own = leaves[part.place].reshape(part.shape)
                found = jnp.where(jnp.asarray(self.l1_ratio) > 0, own, jnp.broadcast_to(some, part.shape))
                leaves[part.place] = found.reshape(leaves[part.place].shape)
        return tree_of(w, [a | b for a, b in zip(leaves, free, strict=True)])

    # -- the other facts are those of matrices with a row for each unit

    def _each(self, fact: Callable[..., Any], w: Any, *others: Any) -> list[Any]:
        trees = [jax.tree.leaves(widened(tree)) for tree in (w, *others)]
        return [
            fact(self._of_rows(units), *(units.matrix(_arrays(units, leaves)) for leaves in trees))
            for _, units in self.units.sets(w)
        ]

    def _of_rows(self, units: UnitSet) -> SparseGroupLasso:
        return SparseGroupLasso(self.lam, np.arange(units.units), self.l1_ratio, jnp.full(units.units, units.size**0.5))

    def _tree(self, fact: Callable[..., Any], w: Any, rest: Any, *others: Any) -> Any:
        leaves = jax.tree.leaves(rest)
        matrices = self._each(fact, w, *others)
        for (_, units), matrix in zip(self.units.sets(w), matrices, strict=True):
            for part, array in zip(units.parts, units.from_matrix(matrix), strict=True):
                leaves[part.place] = array.reshape(leaves[part.place].shape)
        return tree_of(w, leaves)

    def value(self, w: Any) -> Array:
        return jnp.sum(stacked(self._each(lambda rows, a: rows.value(a), w)))

    def nearest_subgradient(self, w: Any, u: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, widened(w))
        found = self._tree(lambda rows, a, b: rows.nearest_subgradient(a, b), w, zeros, u)
        return tree_like(w, jax.tree.leaves(found))

    def conjugate(self, u: Any) -> Array:
        outside = jnp.any(stacked([jnp.any(a != 0).astype(float) for a in jax.tree.leaves(self.excess(u))]) != 0)
        return jnp.where(outside, jnp.inf, jnp.sum(stacked(self._each(lambda rows, a: rows.conjugate(a), u))))

    def critical_lam(self, u: Any, corner: float = 0.0) -> Array:
        return jnp.max(stacked(self._each(lambda rows, a: rows.critical_lam(a, corner), u)), initial=0.0)

    def free(self, w: Any) -> Any:
        return tree_of(
            w,
            [
                jnp.broadcast_to((jnp.asarray(self.lam) == 0) | (path not in self.units.members), jnp.shape(leaf))
                for path, leaf in paths(w).items()
            ],
        )

    def excess(self, u: Any) -> Any:
        return jax.tree.map(lambda a, free: jnp.where(free, a, 0.0), widened(u), self.free(u))

    def scalings(self, u: Any) -> tuple[Array, Array]:
        c = jnp.min(stacked(self._each(lambda rows, a: rows.scalings(a)[0][0], u)), initial=1.0)
        return c[None], jnp.zeros_like(c)[None]

    def valid(self, w: Any) -> Array:
        lam, ratio = jnp.asarray(self.lam), jnp.asarray(self.l1_ratio)
        return (lam >= 0) & jnp.isfinite(lam) & (ratio >= 0) & (ratio <= 1)


def _arrays(units: UnitSet, leaves: list[Any]) -> list[Array]:
    """A set's arrays, of all leaves, in the shapes in which its units lie along an axis."""
    return [jnp.asarray(leaves[part.place]).reshape(part.shape) for part in units.parts]


def _lean(part: Any, step: Any, like: Array) -> Array:
    """A step as one number per unit if it is known to be one; else of the shape of its part."""
    step = jnp.asarray(step)
    if step.ndim == 0 or step.shape == part.lean:
        return jnp.broadcast_to(step, part.lean)
    leaf = part.shape if len(part.shape) == step.ndim else _joined(part)
    return jnp.broadcast_to(step, leaf).reshape(part.shape)


def _joined(part: Any) -> tuple[int, ...]:
    """The array's own shape, its blocks put together."""
    axis = part.axis
    return (*part.shape[:axis], part.shape[axis] * part.shape[axis + 1], *part.shape[axis + 2 :])


def _lengths(part: Any, v: Array) -> Array:
    """|v_u|_2 of one part, (units,); its derivative at 0 is 0."""
    largest = jax.lax.stop_gradient(part.over(jnp.max, jnp.abs(v)))
    unit = jnp.where(largest > 0, largest, 1.0)
    squares = part.over(jnp.sum, (v / unit.reshape(part.lean)) ** 2)
    return jnp.where(squares > 0, unit * jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
