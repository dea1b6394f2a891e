"""Frozen dataclasses that are pytrees, rebuilt without their constructors."""

import copy
import dataclasses
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l1jax._node import node, static

RUNS = []


@node
class Point:
    x: Any
    kind: str = static(default="plain")
    y: Any = 2.0

    def __post_init__(self):
        RUNS.append(self.kind)
        object.__setattr__(self, "x", jnp.asarray(self.x))

    def norm(self):
        return jnp.sum(self.x**2) + self.y**2


@pytest.fixture
def point():
    made = Point([3.0, 4.0], kind="round")
    RUNS.clear()
    return made


def test_unflattening_runs_no_constructor(point):
    leaves, structure = jax.tree.flatten(point)
    for odd in ([None, None], [0, object()], ["text", 1]):
        again = jax.tree.unflatten(structure, odd)
        assert [again.x, again.y] == odd
        assert again.kind == "round"
    jax.jit(lambda p: p.norm())(point)
    assert RUNS == []
    assert [np.shape(leaf) for leaf in leaves] == [(2,), ()]


def test_static_fields_are_structure(point):
    other = dataclasses.replace(point, kind="square")
    assert jax.tree.structure(point) != jax.tree.structure(other)
    assert jax.tree.structure(point) == jax.tree.structure(dataclasses.replace(point, y=5.0))
    assert jax.jit(lambda p: jnp.asarray(p.kind == "square"))(other)
    assert not jax.jit(lambda p: jnp.asarray(p.kind == "square"))(point)
    with pytest.raises(ValueError, match=r"kind|square|[Mm]ismatch"):
        jax.tree.map(lambda a, b: a, point, other)


def test_paths_name_the_fields(point):
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path({"p": point})]
    assert paths == ["['p'].x", "['p'].y"]


def test_batches_and_derivatives_are_nodes(point):
    gradient = jax.grad(Point.norm)(point)
    assert isinstance(gradient, Point)
    assert gradient.kind == "round"
    np.testing.assert_array_equal(gradient.x, [6, 8])
    assert gradient.y == 4
    batch = jax.vmap(lambda y: dataclasses.replace(point, y=y))(jnp.arange(3.0))
    np.testing.assert_array_equal(jax.vmap(Point.norm)(batch), [25, 26, 29])
    axes = jax.tree.unflatten(jax.tree.structure(point), [None, 0])
    np.testing.assert_array_equal(jax.vmap(Point.norm, in_axes=(axes,))(dataclasses.replace(point, y=jnp.arange(3.0))),
                                  [25, 26, 29])  # fmt: skip


def test_nodes_are_frozen_and_compared_by_identity(point):
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.y = 1.0
    assert point != dataclasses.replace(point)
    assert len({point, point}) == 1


def test_replace_runs_the_constructor(point):
    again = dataclasses.replace(point, x=[1, 2])
    assert RUNS == ["round"]
    np.testing.assert_array_equal(again.x, [1, 2])
    assert (again.kind, again.y) == ("round", 2.0)


@pytest.mark.parametrize("copied", [lambda p: pickle.loads(pickle.dumps(p)), copy.copy, copy.deepcopy],
                         ids=["pickle", "copy", "deepcopy"])  # fmt: skip
def test_copies_hold_the_same(point, copied):
    again = copied(point)
    assert RUNS == []
    assert type(again) is Point
    assert (again.kind, again.y) == (point.kind, point.y)
    np.testing.assert_array_equal(again.x, point.x)


def test_nodes_print_as_their_constructor(point):
    assert repr(dataclasses.replace(point, x=1.5)).startswith("Point(x=Array(1.5")
    assert repr(point).endswith("kind='round', y=2.0)")
