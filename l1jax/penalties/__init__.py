"""Penalties: one class each, with everything that is known about it."""

from l1jax.penalties.base import Elementwise as Elementwise, Penalty as Penalty, with_ratio as with_ratio
from l1jax.penalties.combinators import (
    Bounds as Bounds,
    Factors as Factors,
    Masked as Masked,
    NonNegative as NonNegative,
    Sum as Sum,
    straight as straight,
)
from l1jax.penalties.elementwise import (
    L1 as L1,
    L2 as L2,
    ElasticNet as ElasticNet,
    NoPenalty as NoPenalty,
)
from l1jax.penalties.groups import GroupLasso as GroupLasso, SparseGroupLasso as SparseGroupLasso
from l1jax.penalties.nonconvex import (
    L0 as L0,
    MCP as MCP,
    SCAD as SCAD,
    LHalf as LHalf,
    LogSum as LogSum,
    majorizer as majorizer,
)
from l1jax.penalties.norms import (
    SLOPE as SLOPE,
    LInf as LInf,
    NuclearNorm as NuclearNorm,
    TotalVariation as TotalVariation,
)
from l1jax.penalties.sets import Box as Box, L1Ball as L1Ball, Simplex as Simplex
from l1jax.penalties.terms import Terms as Terms
from l1jax.penalties.unit_lasso import UnitLasso as UnitLasso
from l1jax.penalties.units import Units as Units
