"""Lanes: standard forms side by side, over one matrix or over their own."""

import dataclasses
from typing import Any

import jax
from jax import Array

from l1jax._node import node, static
from l1jax.standard_form import StandardForm


@node
class Block:
    """The standard forms of N lanes, (N, ...), and the matrix (p, n) that they share, or their own, (N, p, n)."""

    forms: StandardForm  # without the matrix
    XT: Array
    shared: bool = static()

    def over(self, function: Any, *own: Any) -> Any:
        """function(form, *own) of each lane, their results stacked."""

        def lane(form: StandardForm, XT: Array, *own: Any) -> Any:
            return function(dataclasses.replace(form, design=dataclasses.replace(form.design, XT=XT)), *own)

        return jax.vmap(lane, in_axes=(0, None if self.shared else 0, *(0 for _ in own)))(self.forms, self.XT, *own)

    def at(self, ids: Array) -> "Block":
        """These lanes alone."""
        forms, XT = jax.tree.map(lambda a: a[ids], (self.forms, None if self.shared else self.XT))
        return Block(forms, self.XT if self.shared else XT, self.shared)


def bare(form: StandardForm) -> StandardForm:
    """A standard form without its matrix."""
    design: Any = form.design
    return dataclasses.replace(form, design=dataclasses.replace(design, XT=None))
