"""L1 regularization and sparsity for JAX: exact zeros, whole lambda paths, certificates, and gradients through them."""

from l1jax import datasets as datasets
from l1jax.chains import Layer as Layer, chain_of as chain_of
from l1jax.compaction import compact as compact
from l1jax.folds import Folds as Folds
from l1jax.grid import lambda_grid as lambda_grid, lambda_max as lambda_max
from l1jax.losses import (
    Cox as Cox,
    Gamma as Gamma,
    Huber as Huber,
    Logistic as Logistic,
    Loss as Loss,
    Multinomial as Multinomial,
    MultiSquared as MultiSquared,
    NegativeBinomial as NegativeBinomial,
    Poisson as Poisson,
    Quantile as Quantile,
    Squared as Squared,
    SquaredHinge as SquaredHinge,
)
from l1jax.minimizing import minimize as minimize, proximal_step as proximal_step
from l1jax.paths import path as path
from l1jax.penalties import (
    L0 as L0,
    L1 as L1,
    L2 as L2,
    MCP as MCP,
    SCAD as SCAD,
    SLOPE as SLOPE,
    Bounds as Bounds,
    Box as Box,
    ElasticNet as ElasticNet,
    Elementwise as Elementwise,
    Factors as Factors,
    GroupLasso as GroupLasso,
    L1Ball as L1Ball,
    LHalf as LHalf,
    LInf as LInf,
    LogSum as LogSum,
    Masked as Masked,
    NonNegative as NonNegative,
    NoPenalty as NoPenalty,
    NuclearNorm as NuclearNorm,
    Penalty as Penalty,
    Simplex as Simplex,
    SparseGroupLasso as SparseGroupLasso,
    Sum as Sum,
    TotalVariation as TotalVariation,
    UnitLasso as UnitLasso,
    Units as Units,
    majorizer as majorizer,
)
from l1jax.polishing import (
    apply_prox as apply_prox,
    freeze_support as freeze_support,
    kkt_residual as kkt_residual,
    polish as polish,
)
from l1jax.problem import Problem as Problem
from l1jax.prox import (
    clip_to_bounds as clip_to_bounds,
    clip_to_total as clip_to_total,
    elastic_net as elastic_net,
    firm_threshold as firm_threshold,
    half_threshold as half_threshold,
    hard_threshold as hard_threshold,
    log_threshold as log_threshold,
    scad_threshold as scad_threshold,
    shrink as shrink,
    soft_threshold as soft_threshold,
)
from l1jax.result import Result as Result, predict as predict
from l1jax.selection import (
    Criteria as Criteria,
    CrossValidation as CrossValidation,
    Stability as Stability,
    bootstrap_support as bootstrap_support,
    cross_validate as cross_validate,
    degrees_of_freedom as degrees_of_freedom,
    information_criteria as information_criteria,
    permuted_lambda_max as permuted_lambda_max,
    relax as relax,
    stability_selection as stability_selection,
)
from l1jax.solving import duality_gap as duality_gap, solve as solve
from l1jax.sweeping import sweep as sweep
from l1jax.transforms import (
    AdagradMetric as AdagradMetric,
    AdamMetric as AdamMetric,
    Euclidean as Euclidean,
    RmsMetric as RmsMetric,
    TraceMetric as TraceMetric,
    add_subgradient as add_subgradient,
    fista as fista,
    ftrl as ftrl,
    iterate as iterate,
    prox_adagrad as prox_adagrad,
    prox_adam as prox_adam,
    prox_adamw as prox_adamw,
    prox_rmsprop as prox_rmsprop,
    prox_sgd as prox_sgd,
    prox_update as prox_update,
    proximal as proximal,
    ramda as ramda,
    rda as rda,
    stop_at_zero as stop_at_zero,
    weights_only as weights_only,
)
from l1jax.tuning import tune as tune
from l1jax.version import __version__ as __version__
from l1jax.zeros import sparsity_report as sparsity_report, support as support
