"""Losses: one frozen pytree each, with its value, derivatives, conjugate and links.

A loss sees the whole vectors at once: `eta (n,)`, `y (n,)` and `s (n,)`, weights that sum to 1; one of several
outputs has `eta (n, k)`. It is convex and
smooth in eta and shifted so that its least value over eta is 0 (half the unit deviance).
"""

from l1jax.losses.base import Loss as Loss, Rowwise as Rowwise, per_weight as per_weight
from l1jax.losses.binary import Logistic as Logistic, SquaredHinge as SquaredHinge
from l1jax.losses.classes import Multinomial as Multinomial
from l1jax.losses.continuous import (
    Huber as Huber,
    MultiSquared as MultiSquared,
    Quantile as Quantile,
    Squared as Squared,
)
from l1jax.losses.counts import NegativeBinomial as NegativeBinomial, Poisson as Poisson
from l1jax.losses.positive import Gamma as Gamma
from l1jax.losses.survival import Cox as Cox
