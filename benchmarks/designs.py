"""The data of the path benchmark: one `Design` a row of its table, made in NumPy float64."""

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ISLP = HERE / ".data"  # the wheel with the expression sets, fetched once


@dataclass
class Design:
    """X (n, p), y (n,), what is fitted to them, and the strengths of its path."""

    X: np.ndarray
    y: np.ndarray
    kind: str  # "gaussian", "logistic" or "group"
    lams: np.ndarray
    group: int = 1  # consecutive columns in a group


def autoregressive(n, p, rho=0.5, nonzeros=20, seed=0, group=1):
    """Columns with correlation rho^|i-j|, a sparse signal (whole groups of columns), and a generator for the rest."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * X[:, j]
    coef = np.zeros((p // group, group))
    chosen = rng.choice(p // group, nonzeros // group, replace=False)
    coef[chosen] = rng.standard_normal((len(chosen), group))
    return X, X @ coef.ravel(), rng


def strengths(X, y, num, group=1):
    """num strengths from lambda_max, where all coefficients are 0, to a hundredth of it."""
    correlations = np.abs((y - y.mean()) @ X) / len(y)
    if group > 1:
        correlations = np.linalg.norm(correlations.reshape(-1, group), axis=1) / np.sqrt(group)
    top = correlations.max()
    return np.geomspace(top, top / 100, num)


def gaussian(n, p, rho=0.5, num=100):
    """Noise of half the signal's size."""
    X, signal, rng = autoregressive(n, p, rho)
    y = signal + 0.5 * signal.std() * rng.standard_normal(n)
    return Design(X, y, "gaussian", strengths(X, y, num))


def logistic(n, p):
    """Log-odds of standard deviation 2."""
    X, signal, rng = autoregressive(n, p)
    y = (rng.random(n) < 1 / (1 + np.exp(-2 * signal / signal.std()))).astype(float)
    return Design(X, y, "logistic", strengths(X, y, 50))


def grouped(n, p, group):
    """Two groups of ten carry the signal; the weight of a group is the square root of its size."""
    X, signal, rng = autoregressive(n, p, group=group)
    y = signal + 0.5 * signal.std() * rng.standard_normal(n)
    return Design(X, y, "group", strengths(X, y, 100, group), group)


def diabetes():
    """The ten columns, their squares and products, without the square of sex, which has two values: 442 x 64."""
    from l1jax.datasets import diabetes as load

    data = load()
    pairs = [(i, j) for i in range(10) for j in range(i, 10) if not data.names[i] == data.names[j] == "sex"]
    X = np.column_stack([data.X, *(data.X[:, i] * data.X[:, j] for i, j in pairs)])
    return standardised(X, data.y, "gaussian", 100)


def khan():
    """63 tumours x 2308 genes: Ewing's sarcoma (class 2, 23 of them) or another."""
    X = np.genfromtxt(StringIO(islp("Khan_xtrain.csv").decode()), delimiter=",", skip_header=1)[:, -2308:]
    labels = np.genfromtxt(StringIO(islp("Khan_ytrain.csv").decode()), delimiter=",", skip_header=1)
    labels = labels if labels.ndim == 1 else labels[:, -1]
    return standardised(X, (labels == 2).astype(float), "logistic", 50)


def nci60():
    """64 cell lines x 6830 genes: the first gene predicted from the 6829 others."""
    X = np.load(BytesIO(islp("NCI60data.npy")))
    return standardised(X[:, 1:], X[:, 0], "gaussian", 100)


def standardised(X, y, kind, num):
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return Design(X, y, kind, strengths(X, y, num))


def islp(name):
    """A data file of the wheel of ISLP 0.4 or later, which pip fetches at the first call."""
    if not list(ISLP.glob("*.whl")):
        ISLP.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "ISLP==0.6.0", "-d", folder]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            for wheel in Path(folder).glob("*.whl"):
                (ISLP / wheel.name).write_bytes(wheel.read_bytes())
    with zipfile.ZipFile(next(ISLP.glob("*.whl"))) as wheel:
        return wheel.read(f"ISLP/data/{name}")


ROWS = {
    "200x5000": lambda: gaussian(200, 5000),
    "200x5000 rho .95": lambda: gaussian(200, 5000, 0.95),
    "200x5000 rho .99": lambda: gaussian(200, 5000, 0.99),
    "10000x500": lambda: gaussian(10000, 500),
    "100x20000": lambda: gaussian(100, 20000),
    "1000x5000": lambda: gaussian(1000, 5000),
    "1000x5000 rho .95": lambda: gaussian(1000, 5000, 0.95),
    "5000x5000": lambda: gaussian(5000, 5000),
    "logistic 1000x2000": lambda: logistic(1000, 2000),
    "logistic 5000x300": lambda: logistic(5000, 300),
    "logistic 100x5000": lambda: logistic(100, 5000),
    "diabetes 442x64": diabetes,
    "NCI60 64x6829": nci60,
    "Khan 63x2308, logistic": khan,
    "groups of 10, 1000x5000": lambda: grouped(1000, 5000, 10),
    "500x200000": lambda: gaussian(500, 200_000),
    "1800x200, 4096 lambdas": lambda: gaussian(1800, 200, num=4096),
}
TINY = {  # for a smoke run, of every kind
    "40x60": lambda: gaussian(40, 60, num=10),
    "80x30": lambda: gaussian(80, 30, num=10),
    "logistic 60x40": lambda: logistic(60, 40),
    "groups of 10, 40x60": lambda: grouped(40, 60, 10),
}
ALONE = ("500x200000", "1800x200, 4096 lambdas")  # rows of l1jax without peers
# The bars: l1jax's time over the best peer's, at the targets 1e-4 and 1e-6.
BARS = {
    "1000x5000": (0.7, 0.1),
    "1000x5000 rho .95": (1.0, 0.3),
    "10000x500": (0.6, 0.5),
    "100x20000": (0.6, 0.2),
    "200x5000": (0.9, 0.2),
    "200x5000 rho .95": (1.0, 0.5),
    "200x5000 rho .99": (1.0, 0.5),
    "5000x5000": (0.8, 0.3),
    "logistic 1000x2000": (1.0, 0.5),
    "logistic 5000x300": (1.0, 0.5),
    "logistic 100x5000": (1.0, 0.5),
    "diabetes 442x64": (1.0, 0.5),
    "NCI60 64x6829": (1.0, 0.5),
    "Khan 63x2308, logistic": (1.0, 0.5),
    "groups of 10, 1000x5000": (1.0, 0.7),
}
