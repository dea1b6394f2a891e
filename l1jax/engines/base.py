"""What an engine is: a way to improve a point, with an honest guess of how far it is from the end."""

import abc
import math
from typing import Any

from jax import Array

from l1jax.losses import Loss
from l1jax.penalties import Penalty
from l1jax.problem import Problem
from l1jax.standard_form import StandardForm


class Engine(abc.ABC):
    """One algorithm: a hashable value, equal to another of the same settings (compiled programs are kept by it).

    Engines are interchangeable: `solve` runs them all in the same loop, and certifies what they give.

    `work` is what depends on the data alone, made once for a whole path; `state` is a pytree of fixed shapes, and all
    methods can be jitted and batched over penalties.
    """

    max_steps: int
    """The default limit of steps (each about one pass over the coefficients)."""

    patience: int
    """How many looks at the gap may pass without a smaller one before the engine counts as stalled."""

    def refuses(self, loss: Loss, penalty: Penalty) -> str:
        """Why the engine can't solve such a problem, in words; empty if it can."""
        return ""

    def numbers(self, problem: Problem) -> int:
        """How many numbers the search of one solution holds at a time, within a factor of two; data come on top."""
        return 16 * sum(problem.X.shape) * math.prod(problem.outputs)

    @abc.abstractmethod
    def prepare(self, form: StandardForm) -> Any:
        """`work`: what all penalties share."""

    @abc.abstractmethod
    def init(self, form: StandardForm, work: Any, penalty: Any, z: Array, b: Array) -> Any:
        """The state at a starting point."""

    @abc.abstractmethod
    def advance(self, form: StandardForm, work: Any, penalty: Any, state: Any) -> tuple[Any, Array]:
        """Improve, until it is worth looking at the gap again: (state, steps taken)."""

    @abc.abstractmethod
    def point(self, state: Any) -> tuple[Array, Array]:
        """The point (z, b) that the state stands for."""

    @abc.abstractmethod
    def gap(self, form: StandardForm, work: Any, penalty: Any, state: Any, equalities: bool) -> Array:
        """The relative gap at the point, or a cheap estimate of it: it ends the loop, and is certified after."""
