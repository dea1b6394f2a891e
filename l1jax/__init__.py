"""L1 regularization and sparsity for JAX: exact zeros, whole lambda paths, certificates, and gradients through them."""

from l1jax import datasets as datasets
from l1jax.grid import lambda_grid as lambda_grid, lambda_max as lambda_max
from l1jax.losses import Logistic as Logistic, Loss as Loss, Squared as Squared
from l1jax.paths import path as path
from l1jax.penalties import (
    L1 as L1,
    L2 as L2,
    Bounds as Bounds,
    ElasticNet as ElasticNet,
    Elementwise as Elementwise,
    Factors as Factors,
    Masked as Masked,
    NonNegative as NonNegative,
    NoPenalty as NoPenalty,
    Penalty as Penalty,
    Sum as Sum,
)
from l1jax.problem import Problem as Problem
from l1jax.prox import (
    clip_to_bounds as clip_to_bounds,
    elastic_net as elastic_net,
    shrink as shrink,
    soft_threshold as soft_threshold,
)
from l1jax.result import Result as Result, predict as predict
from l1jax.solving import duality_gap as duality_gap, solve as solve
from l1jax.transforms import (
    AdamMetric as AdamMetric,
    Euclidean as Euclidean,
    TraceMetric as TraceMetric,
    fista as fista,
    iterate as iterate,
    prox_update as prox_update,
    proximal as proximal,
)
from l1jax.version import __version__ as __version__
