"""What became zero: the support of a tree of parameters, and a table of it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l1jax._arrays import concrete, numeric_leaf
from l1jax.penalties import Units
from l1jax.penalties.units import paths


def support(tree: Any) -> Any:
    """w != 0, entry by entry: truth values in a tree like the one given.

    Args:
      tree: parameters; any tree of arrays.

    >>> import jax.numpy as jnp
    >>> support({"kernel": jnp.array([1.5, 0.0]), "bias": jnp.zeros(1)})
    {'bias': Array([False], dtype=bool), 'kernel': Array([ True, False], dtype=bool)}
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) != 0, tree)


@dataclasses.dataclass(frozen=True)
class LeafSparsity:
    """One array: its path in the tree, its shape, and how many of its entries are not zero."""

    path: str
    shape: tuple[int, ...]
    nonzeros: int

    @property
    def size(self) -> int:
        """How many entries it has."""
        return math.prod(self.shape)

    @property
    def zeros(self) -> float:
        """The share of zeros, from 0 to 1."""
        return _share(self.nonzeros, self.size)


@dataclasses.dataclass(frozen=True)
class UnitSparsity:
    """One set of units: its name, how many units it has, and how many of them have a parameter off zero."""

    name: str
    units: int
    alive: int


@dataclasses.dataclass(frozen=True, repr=False)
class SparsityReport:
    """The zeros of a tree: `leaves` and `units` one by one, `nonzeros`, `size` and the share of `zeros` of it all."""

    leaves: tuple[LeafSparsity, ...]
    units: tuple[UnitSparsity, ...] = ()

    @property
    def nonzeros(self) -> int:
        """How many entries of all arrays are not zero."""
        return sum(leaf.nonzeros for leaf in self.leaves)

    @property
    def size(self) -> int:
        """How many entries all arrays have."""
        return sum(leaf.size for leaf in self.leaves)

    @property
    def zeros(self) -> float:
        """The share of zeros, from 0 to 1."""
        return _share(self.nonzeros, self.size)

    def __repr__(self) -> str:
        rows = [("array", "shape", "nonzero", "of", "zeros")]
        rows += [(a.path or ".", str(a.shape), str(a.nonzeros), str(a.size), f"{a.zeros:.1%}") for a in self.leaves]
        rows += [("all", "", str(self.nonzeros), str(self.size), f"{self.zeros:.1%}")]
        lines = _table(rows, "<<>>>")
        if self.units:
            alive = [(a.name or ".", str(a.alive), str(a.units)) for a in self.units]
            lines += ["", *_table([("units", "alive", "of"), *alive], "<>>")]
        return "\n".join(lines)


def sparsity_report(params: Any, units: Units | Mapping[str, Any] | None = None) -> SparsityReport:
    """How many parameters are zero, and how many units are alive: those with a parameter off zero.

    Args:
      params: the parameters, concrete; leaves of a model that are no floating numbers (functions, random keys) are
        passed over.
      units: sets of units, such as `Units.neurons(params)`, to count as well.

    It prints as a table; its fields (`leaves`, `units`, `nonzeros`, `size`, `zeros`) are numbers to compute with.
    Raises TypeError for traced parameters, ValueError for units that do not fit them.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.array([[3.0, 0.0], [0.0, 0.0]]), "bias": jnp.array([4.0, 0.0])}
    >>> sparsity_report(params, Units.neurons(params))
    array   shape   nonzero  of  zeros
    bias    (2,)          1   2  50.0%
    kernel  (2, 2)        1   4  75.0%
    all                   2   6  66.7%
    <BLANKLINE>
    units   alive  of
    kernel      1   2
    """
    params = jax.tree.map(lambda leaf: leaf if numeric_leaf(leaf) or isinstance(leaf, float) else None, params)
    if not concrete(params):
        raise TypeError("sparsity_report: want concrete parameters; under jit, count with l1jax.support(params)")
    nonzero = jax.tree.map(lambda leaf: np.asarray(leaf) != 0, params)
    leaves = [LeafSparsity(path, leaf.shape, int(leaf.sum())) for path, leaf in paths(nonzero).items()]
    if units is None:
        return SparsityReport(tuple(leaves))
    units = units if isinstance(units, Units) else Units(units)
    arrays, found = jax.tree.leaves(nonzero), []
    for name, each in units.sets(nonzero):
        alive = each.max([arrays[part.place].reshape(part.shape) for part in each.parts])
        found.append(UnitSparsity(name, each.units, int(alive.sum())))
    return SparsityReport(tuple(leaves), tuple(found))


def _share(nonzeros: int, size: int) -> float:
    return 1 - nonzeros / size if size else 0.0


def _table(rows: Sequence[tuple[str, ...]], sides: str) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
