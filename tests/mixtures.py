"""Losses and penalties that are one of several, told by a number: many problems then share one compiled program.

A mixture answers what its chosen part answers; it has no mathematics of its own.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import l1jax
from l1jax._node import node
from l1jax.penalties.curves import Curve
from l1jax.penalties.nonconvex import Nonconvex


def _picks(*methods):
    """A class decorator: each of these methods is that of the chosen part."""

    def method(name):
        def pick(self, *args):
            parts = [lambda *args, part=part: getattr(part, name)(*args) for part in self.parts]
            return jax.lax.switch(self.index.astype(jnp.int32), parts, *args)

        return pick

    def decorate(cls):
        for name in methods:
            setattr(cls, name, method(name))
        cls.__abstractmethods__ = frozenset()
        return cls

    return decorate


@_picks(
    "value", "gradient", "curvature", "bent", "conjugate", "mean", "link", "encode", "absorb", "answerable"
)  # fmt: skip
@node
class AnyLoss(l1jax.Loss):
    index: Any
    parts: Any

    @property
    def attained(self):
        return all(part.attained for part in self.parts)

    @property
    def curved(self):
        return all(part.curved for part in self.parts)

    @property
    def smoothness(self):
        bounds = [part.smoothness for part in self.parts]
        if any(bound is None for bound in bounds):
            return None
        dtype = self.index.dtype if jnp.issubdtype(self.index.dtype, jnp.floating) else float
        return jnp.stack([jnp.asarray(bound, dtype) for bound in bounds])[self.index.astype(jnp.int32)]


@_picks(
    "value", "prox", "project", "nearest_subgradient", "distance", "conjugate", "critical_lam", "free", "unpriced",
    "excess", "scalings", "valid",
)  # fmt: skip
@node
class AnyJoint(l1jax.Penalty):
    index: Any
    parts: Any

    @property
    def lam(self):
        return next(part.lam for part in self.parts if not isinstance(part, l1jax.L1Ball | l1jax.Simplex))

    def with_lam(self, lam):
        return dataclasses.replace(self, parts=tuple(part.with_lam(lam) for part in self.parts))


@node
class _AnyCurve(Curve):
    lam: Any
    index: Any
    parts: Any

    def _pick(self, answers):
        return jnp.select([self.index == k for k in range(len(answers))], answers)

    def at(self, size, lam):
        return self._pick([part.at(size, lam) for part in self.parts])

    def slope(self, size, lam):
        return self._pick([part.slope(size, lam) for part in self.parts])

    def threshold(self, v, lam, step):
        return self._pick([part.threshold(v, lam, step) for part in self.parts])


@node
class AnyNonconvex(Nonconvex):
    """The parts' strengths are replaced by `lam`."""

    lam: Any
    index: Any
    parts: Any

    def terms(self, w):
        def term(leaf):
            parts = tuple(part.terms(leaf)[0] for part in self.parts)
            return _AnyCurve(*(jnp.asarray(a, leaf.dtype) for a in (self.lam, self.index)), parts)

        return [term(leaf) for leaf in jax.tree.leaves(w)]


def one_of(mixture, index, parts, **others):
    """The only part itself, or a mixture of several."""
    return parts[0] if len(parts) == 1 else mixture(index=index, parts=tuple(parts), **others)


def batched(problems):
    """Dictionaries of arrays, stacked."""
    return {name: np.stack([problem[name] for problem in problems]) for name in problems[0]}
