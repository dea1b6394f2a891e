"""Penalties: one class each, with everything that is known about it."""

from l1jax.penalties.base import Elementwise as Elementwise, Penalty as Penalty
from l1jax.penalties.combinators import (
    Bounds as Bounds,
    Factors as Factors,
    Masked as Masked,
    NonNegative as NonNegative,
    Sum as Sum,
)
from l1jax.penalties.elementwise import (
    L1 as L1,
    L2 as L2,
    ElasticNet as ElasticNet,
    NoPenalty as NoPenalty,
)
from l1jax.penalties.terms import Terms as Terms
