"""The data shipped with the package."""

import csv
from importlib import resources
from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """X (n, p) and y (n,) in float64, the columns' names, and the name of y."""

    X: np.ndarray
    y: np.ndarray
    names: tuple[str, ...]
    target: str


def diabetes(scaled: bool = True) -> Dataset:
    """442 patients x (age, sex, bmi, bp, s1..s6) -> the disease's progression one year later.

    Args:
      scaled: whether each column is centred and scaled to unit 2-norm, as in the article and in scikit-learn;
        otherwise years, kg/m^2, mmHg and mg/dl as measured.

    Source: Efron, Hastie, Johnstone, Tibshirani (2004), "Least angle regression", Annals of Statistics 32(2), table 1;
    the values are those of scikit-learn 1.9.1 (`load_diabetes(scaled=False)`).

    >>> diabetes().X.shape, diabetes().names[:4]
    ((442, 10), ('age', 'sex', 'bmi', 'bp'))
    """
    with resources.files("l1jax").joinpath("data/diabetes.csv").open(encoding="ascii") as stream:
        header, *rows = csv.reader(stream)
    values = np.array(rows, dtype=np.float64)
    X, y = values[:, :-1], values[:, -1]
    if scaled:
        X = X - X.mean(axis=0)
        X = X / np.linalg.norm(X, axis=0)
    return Dataset(X, y, tuple(header[:-1]), header[-1])
