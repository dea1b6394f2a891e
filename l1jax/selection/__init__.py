"""Choosing a model: cross-validation, information criteria, stability."""

from l1jax.selection.criteria import (
    Criteria as Criteria,
    degrees_of_freedom as degrees_of_freedom,
    information_criteria as information_criteria,
)
from l1jax.selection.cross_validation import (
    CrossValidation as CrossValidation,
    cross_validate as cross_validate,
)
from l1jax.selection.relaxation import relax as relax
from l1jax.selection.stability import (
    Stability as Stability,
    bootstrap_support as bootstrap_support,
    permuted_lambda_max as permuted_lambda_max,
    stability_selection as stability_selection,
)
