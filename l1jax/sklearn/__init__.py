"""Estimators with scikit-learn's names, arguments and attributes: import l1jax.sklearn.

They compute in the dtype of X, float64 unless it is float32, whether or not JAX's x64 is on. Fits have certified gaps:
`tol` is the relative duality gap, by default 1e-6 (float32: 1e-5), and `dual_gap_` the gap in units of the objective.
Rows and columns are padded with zeros of no weight to round sizes, so that one compiled program serves many data sets.

scikit-learn's arguments about how its own solver works (`precompute`, `copy_X`, `random_state`, `selection`,
`n_jobs`, `verbose`) are taken and change nothing: X is never written to, and nothing is drawn at random.
"""

from l1jax.sklearn.classification import LogisticL1 as LogisticL1, LogisticL1CV as LogisticL1CV
from l1jax.sklearn.regression import ElasticNet as ElasticNet, Lasso as Lasso, MultiTaskLasso as MultiTaskLasso
from l1jax.sklearn.tuned import ElasticNetCV as ElasticNetCV, LassoCV as LassoCV
