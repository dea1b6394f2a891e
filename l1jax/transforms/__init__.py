"""optax transformations: subgradient and proximal updates, and their accelerated and dual-averaging relatives."""

from l1jax.transforms.accelerated import fista as fista
from l1jax.transforms.aliases import (
    prox_adagrad as prox_adagrad,
    prox_adam as prox_adam,
    prox_adamw as prox_adamw,
    prox_rmsprop as prox_rmsprop,
    prox_sgd as prox_sgd,
)
from l1jax.transforms.base import prox_update as prox_update, proximal as proximal
from l1jax.transforms.dual import ftrl as ftrl, ramda as ramda, rda as rda
from l1jax.transforms.masks import weights_only as weights_only
from l1jax.transforms.metrics import (
    AdagradMetric as AdagradMetric,
    AdamMetric as AdamMetric,
    Euclidean as Euclidean,
    Metric as Metric,
    RmsMetric as RmsMetric,
    TraceMetric as TraceMetric,
)
from l1jax.transforms.states import carries_penalty as carries_penalty, iterate as iterate
from l1jax.transforms.subgradient import add_subgradient as add_subgradient, stop_at_zero as stop_at_zero
