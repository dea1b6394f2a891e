"""The units of a network: groups of parameters that are slices of one array of a tree, or of several."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array


class Member(NamedTuple):
    """An array's part in a set of units: unit i has its i-th slice along `axis` (its i-th of `count` blocks there)."""

    name: str
    axis: int | None
    blocks: int | None = None


class Units:
    """Sets of units: `{path: (name, axis)}`; arrays of one name share units, slice i of each the i-th. Static.

    Args:
      members: for each array's path ("dense/kernel"; "" for a tree that is one array) the name of its set and the axis
        that numbers the units; None makes the whole array one unit. (name, axis, n) cuts the axis in n equal blocks.

    Arrays left out belong to no unit. `|` joins two. The makers `neurons`, `slices`, `heads` and `leaves` read a
    parameter tree (arrays or their shapes). Raises ValueError for axes an array does not have.

    >>> Units({"dense/kernel": ("dense", -1), "dense/bias": ("dense", 0)})
    Units({'dense/bias': ('dense', 0), 'dense/kernel': ('dense', -1)})
    """

    def __init__(self, members: Mapping[str, Any]) -> None:
        try:
            self.members = {path: Member(*members[path]) for path in sorted(members)}
        except TypeError as error:
            raise TypeError(f"units: want {{path: (name, axis)}}, got {members!r}") from error
        self._key = tuple(self.members.items())

    @classmethod
    def neurons(cls, params: Any, *, axis: int = -1, where: Callable[[str], bool] | None = None) -> Self:
        """A unit for each slice along `axis` of each array of two axes or more, its entry of the bias with it.

        Neurons of dense layers and filters of convolutions, for kernels as flax has them: (..., in, out). `axis=0` for
        those of equinox and PyTorch: (out, in, ...). The bias is the vector of fitting length in the same branch of the
        tree, if that has one matrix. `where(path)` picks some of the matrices.
        """
        leaves = paths(params)
        members: dict[str, Member] = {}
        for path, leaf in leaves.items():
            if leaf.ndim < 2 or (where is not None and not where(path)):
                continue
            members[path] = Member(path, axis)
            beside = {p: a for p, a in leaves.items() if _parent(p) == _parent(path)}
            if sum(a.ndim >= 2 for a in beside.values()) == 1:
                vectors = [p for p, a in beside.items() if a.shape == (leaf.shape[axis],)]
                members |= {p: Member(path, 0) for p in vectors}
        return cls(members)

    @classmethod
    def slices(cls, params: Any, axis: int, *, where: Callable[[str], bool] | None = None) -> Self:
        """A unit for each slice along `axis` of each array of two axes or more that `where(path)` picks.

        Inputs of a layer are `axis=-2` (of equinox's, `axis=1`); rows of an embedding `axis=0`.
        """
        return cls({
            path: Member(path, axis)
            for path, leaf in paths(params).items()
            if leaf.ndim >= 2 and (where is None or where(path))
        })  # fmt: skip

    @classmethod
    def heads(cls, params: Any, axes: Mapping[str, int], count: int) -> Self:
        """A unit for each head of each attention layer: `axes` says the axis of the heads for the ends of paths.

        `{"query/kernel": 1, "key/kernel": 1, "value/kernel": 1, "out/kernel": 0}`, say; arrays whose paths are alike
        but for these ends form a layer. `count` heads; an axis longer than that is cut in as many blocks.
        """
        members: dict[str, Member] = {}
        for path, leaf in paths(params).items():
            for end, axis in axes.items():
                if path == end or path.endswith("/" + end):
                    blocks = None if leaf.shape[axis] == count else count
                    members[path] = Member("heads/" + path.removesuffix(end), axis, blocks)
        return cls(members)

    @classmethod
    def leaves(cls, params: Any, *, where: Callable[[str], bool] | None = None) -> Self:
        """A unit for each array that `where(path)` picks, the whole of it."""
        return cls({path: Member(path, None) for path in paths(params) if where is None or where(path)})

    def __or__(self, other: Self) -> Self:
        both = self.members.keys() & other.members.keys()
        if both:
            raise ValueError(f"units: groups may not overlap, but both sets have {', '.join(sorted(both))}")
        return type(self)({**self.members, **other.members})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Units) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        shown = {path: tuple(m)[: 3 if m.blocks else 2] for path, m in self.members.items()}
        return f"Units({shown})"

    def sets(self, w: Any) -> Iterator[tuple[str, "UnitSet"]]:
        """The sets of units that the arrays of `w` make up; a masked tree has fewer."""
        found: dict[str, list[Part]] = {}
        for place, (path, leaf) in enumerate(paths(w).items()):
            if path in self.members:
                found.setdefault(self.members[path].name, []).append(_part(path, place, leaf, self.members[path]))
        for name, parts in found.items():
            numbers = {part.units for part in parts}
            if len(numbers) != 1:
                sizes = ", ".join(f"{part.units} in {part.path!r}" for part in parts)
                raise ValueError(f"units: the arrays of {name!r} have different numbers of units: {sizes}")
            yield name, UnitSet(parts)


class Part(NamedTuple):
    """One array of a set of units: where it stands in the tree, and as what shape its units lie along `axis`."""

    path: str
    place: int
    shape: tuple[int, ...]
    axis: int | None
    units: int

    @property
    def lean(self) -> tuple[int, ...]:
        """The shape of one number per unit."""
        return tuple(n if i == self.axis else 1 for i, n in enumerate(self.shape))

    def over(self, reduce: Any, array: Array) -> Array:
        """Each unit's sum or largest entry, (units,)."""
        axes = tuple(i for i in range(len(self.shape)) if i != self.axis)
        return reduce(array, axis=axes).reshape(self.units)


class UnitSet(NamedTuple):
    """The arrays that share units."""

    parts: list[Part]

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.parts[0].units

    @property
    def size(self) -> int:
        """How many coefficients a unit has."""
        return sum(math.prod(part.shape) for part in self.parts) // self.units

    def sum(self, arrays: list[Array]) -> Array:
        """Each unit's sum over arrays, which are like the parts or have one number per unit, (units,)."""
        return sum((self._over(jnp.sum, p, a) for p, a in zip(self.parts, arrays, strict=True)), start=jnp.zeros(()))

    def max(self, arrays: list[Array]) -> Array:
        """Each unit's largest entry."""
        return functools.reduce(
            jnp.maximum, (self._over(jnp.max, p, a) for p, a in zip(self.parts, arrays, strict=True))
        )

    def _over(self, reduce: Any, part: Part, array: Array) -> Array:
        return array.reshape(self.units) if array.shape == part.lean else part.over(reduce, array)

    def spread(self, of_units: Array) -> list[Array]:
        """One number per unit as it lies along each part."""
        return [of_units.reshape(part.lean) for part in self.parts]

    def matrix(self, arrays: list[Array]) -> Array:
        """All coefficients, a row for each unit."""
        rows = [a if p.axis is None else jnp.moveaxis(a, p.axis, 0) for p, a in zip(self.parts, arrays, strict=True)]
        return jnp.concatenate([a.reshape(self.units, -1) for a in rows], axis=1)

    def from_matrix(self, matrix: Array) -> list[Array]:
        """The arrays of the matrix's coefficients."""
        rests = [tuple(n for i, n in enumerate(p.shape) if i != p.axis) for p in self.parts]
        ends = list(itertools.accumulate(math.prod(rest) for rest in rests))
        blocks = jnp.split(matrix, ends[:-1], axis=1)
        return [
            block.reshape(p.shape) if p.axis is None else jnp.moveaxis(block.reshape(self.units, *rest), 0, p.axis)
            for p, rest, block in zip(self.parts, rests, blocks, strict=True)
        ]


def paths(tree: Any) -> dict[str, Any]:
    """The leaves of a tree, in order, by their paths: "dense/kernel"."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in found}


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _part(path: str, place: int, leaf: Any, member: Member) -> Part:
    shape, axis, count = tuple(leaf.shape), member.axis, member.blocks
    if axis is None:
        return Part(path, place, shape, None, 1)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"units: {path!r} has no axis {axis}, its shape is {shape}")
    axis %= len(shape)
    if count is None:
        return Part(path, place, shape, axis, shape[axis])
    if shape[axis] % count:
        raise ValueError(f"units: {count} blocks do not fit axis {axis} of {path!r}, its shape is {shape}")
    blocks = (*shape[:axis], count, shape[axis] // count, *shape[axis + 1 :])
    return Part(path, place, blocks, axis, count)
