"""python -m l1jax: what it tells is true, and what it refuses it refuses in words."""

import csv
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import Lasso, LogisticRegression, lasso_path

from l1jax import L1, Folds, Problem, analysis, datasets, path, report
from l1jax.__main__ import main
from l1jax.tables import TableError, read_table

ENTRY = "Order of entry: bmi, s5, bp, s3, sex, s6, s1, s4, s2, age\n"  # Efron et al. (2004), figure 3
KNOTS = [949.4353, 889.3138, 452.8957, 316.0734, 130.1295, 88.7843, 68.9648, 19.9812, 5.4775, 5.0882, 2.1823, 1.3104]


def write(folder, header, rows, name="data.csv"):
    file = folder / name
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def read(file):
    with file.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    return header, np.array(rows, dtype=np.float64)


def standardized(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run of the program as a user starts it: its output, and the folder it wrote to."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "l1jax"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, folder / "l1jax-out"


def test_program_tells_the_published_order_of_entry(demo):
    out, _ = demo
    assert ENTRY in out
    assert "s3 leaves at lambda 0.09729, returns at lambda 0.0611\n" in out


def test_program_writes_the_path_of_scikit_learn(demo):
    out, folder = demo
    header, table = read(folder / "path.csv")
    data = datasets.diabetes(scaled=False)
    assert header == ["lambda", "nonzeros", "R2", "gap", "intercept", *data.names]
    Z, y = standardized(data.X), data.y - data.y.mean()
    lams, theirs, _ = lasso_path(Z, y, alphas=table[:, 0], tol=1e-12, max_iter=100_000)
    np.testing.assert_allclose(lams, table[:, 0])
    np.testing.assert_allclose(table[0, 0] * np.sqrt(442), KNOTS[0], rtol=1e-6)
    assert len(table) == 100
    assert table[:, 3].max() <= 1e-6
    np.testing.assert_array_equal(table[:, 1], np.sum(theirs != 0, axis=0))
    residual = y[:, None] - Z @ theirs
    np.testing.assert_allclose(table[:, 2], 1 - np.sum(residual**2, axis=0) / np.sum(y**2), atol=1e-5)
    # A gap of 1e-6 leaves near-collinear coefficients some freedom; the fit it leaves none.
    fitted = data.X @ table[:, 5:].T + table[:, 4]
    np.testing.assert_allclose(fitted, Z @ theirs + data.y.mean(), atol=2e-3 * data.y.std())
    assert f"{table[1, 0]:10.4g} {2:8d} {table[1, 2]:8.4f} {table[1, 3]:8.1e}  +bmi +s5\n" in out


def test_program_draws_a_picture(demo):
    out, folder = demo
    assert (folder / "path.png").read_bytes().startswith(b"\x89PNG")
    assert f"Wrote {folder.name}/path.png" in out.replace(os.sep, "/")


def test_program_chooses_as_a_plain_loop_over_scikit_learn(demo):
    out, folder = demo
    _, table = read(folder / "path.csv")
    data, lams = datasets.diabetes(scaled=False), table[:, 0]
    ids = Folds.of(442, 10, key=jax.random.key(0)).test.argmax(axis=0)
    error, weight = np.empty((10, 100)), np.bincount(ids)
    for k in range(10):
        train = ids != k
        centre, scale = data.X[train].mean(axis=0), data.X[train].std(axis=0)
        Z, mean = (data.X - centre) / scale, data.y[train].mean()
        _, coef, _ = lasso_path(Z[train], data.y[train] - mean, alphas=lams, tol=1e-10, max_iter=100_000)
        error[k] = np.mean((data.y[~train, None] - mean - Z[~train] @ coef) ** 2, axis=0)
    mean = weight @ error / 442
    se = np.sqrt(weight @ (error - mean) ** 2 / 442 / 9)
    best = np.argmin(mean)
    simplest = np.flatnonzero(mean <= mean[best] + se[best])[0]
    for label, k in (("lambda.min", best), ("lambda.1se", simplest)):
        line = next(line for line in out.splitlines() if line.startswith(f"  {label}"))
        np.testing.assert_allclose([float(cell) for cell in line.split()[1::3]], [lams[k], mean[k]], rtol=1e-3)
        np.testing.assert_allclose(float(line.split()[5]), se[k], rtol=1e-2)


def test_proof_one_weight_arrives_and_the_other_fades(demo):
    out, _ = demo
    assert report.proof() in out
    assert "     4          exactly 0            0.05625\n" in out
    assert report.proof().splitlines()[-1].split()[:3] == ["50", "exactly", "0"]
    assert 0 < float(report.proof().split()[-1]) < 1e-15


def test_changes_between_two_lambdas_are_told_apart():
    data = datasets.diabetes()
    problem = Problem(data.X, data.y, penalty=L1(1.0), sample_weight=np.ones(442), standardize=True)
    found = path(problem, mode="vmap")
    assert np.asarray(found.df[:2]).tolist() == [0, 2]  # bmi and s5 enter between the same two lambdas
    changes = analysis.support_changes(problem, found, "vmap")
    assert [data.names[c.feature] for c in changes if c.enters][:10] == ENTRY[16:-1].split(", ")
    assert [data.names[c.feature] for c in changes][-2:] == ["s3", "s3"]
    assert not any(c.tied for c in changes)
    share = np.array([c.lam for c in changes]) * np.sqrt(442) / KNOTS  # each knot is seen at the next lambda down
    assert np.all(share <= 1 + 1e-6)
    assert np.all(share >= 0.91)
    np.testing.assert_allclose(share[:2], 1, rtol=2e-3)


def test_features_that_enter_at_once_stay_tied(rng):
    x = np.array([1.0, -1.0, 1.0, -1.0])
    z = np.array([1.0, 1.0, -1.0, -1.0])
    problem = Problem(np.stack([x, z], axis=1), 2 * x + 2 * z, penalty=L1(1.0))
    changes = analysis.support_changes(problem, path(problem, num=10), "auto")
    assert [(c.feature, c.tied) for c in changes] == [(0, False), (1, True)]
    assert report.order_of_entry(changes, ["a", "b"]).startswith("Order of entry: a = b\n")


def test_own_file_with_the_squared_loss(tmp_path, capsys, rng):
    X = rng.standard_normal((60, 3)) * [1.0, 100.0, 0.01]
    y = 3 * X[:, 0] + 0.01 * X[:, 1] + 0.5 * rng.standard_normal(60)
    file = write(tmp_path, ["strong", "weak, far", "price", "none"], np.insert(X, 2, y, axis=1).tolist())
    assert main([str(file), "--target", "price", "--num", "30", "--out", str(tmp_path / "a" / "b")]) == 0
    out = capsys.readouterr().out
    assert "60 rows, 3 features, target price" in out
    assert "Order of entry: strong, weak, far, none\n" in out
    header, table = read(tmp_path / "a" / "b" / "path.csv")
    assert header[5:] == ["strong", "weak, far", "none"]
    assert len(table) == 30
    k = 20
    theirs = Lasso(alpha=table[k, 0], tol=1e-12).fit(standardized(X), y)
    np.testing.assert_allclose(table[k, 5:], theirs.coef_ / X.std(axis=0), rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(table[k, 2], theirs.score(standardized(X), y), atol=1e-5)
    assert (tmp_path / "a" / "b" / "path.png").exists()


def test_own_file_with_the_logistic_loss(tmp_path, capsys):
    data = load_breast_cancer()
    X, y, names = data.data[:, :6], data.target, [str(name) for name in data.feature_names[:6]]
    file = write(tmp_path, [*names, "benign"], np.column_stack([X, 2 * y - 1]).tolist())
    arguments = [str(file), "--target", "benign", "--loss", "logistic", "--num", "20", "--out", str(tmp_path)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "mean deviance" in out
    header, table = read(tmp_path / "path.csv")
    assert header[2] == "D2"
    k, Z = 10, standardized(X)
    theirs = LogisticRegression(l1_ratio=1.0, C=1 / (table[k, 0] * len(y)), solver="saga", tol=1e-8, max_iter=10**5)
    theirs.fit(Z, y)
    np.testing.assert_allclose(table[k, 5:] * X.std(axis=0), theirs.coef_[0], atol=5e-2)
    p = theirs.predict_proba(Z)[np.arange(len(y)), y]
    null = -np.mean(np.log(np.where(y == 1, y.mean(), 1 - y.mean())))
    np.testing.assert_allclose(table[k, 2], 1 + np.mean(np.log(p)) / null, atol=1e-5)


def test_files_as_spreadsheets_write_them(tmp_path):
    file = tmp_path / "excel.csv"
    file.write_bytes('\ufeff"größe, cm",y\r\n"1.5",2\r\n\r\n 3 , 4e0 \r\n\r\n'.encode())
    X, y, names, target = read_table(file, "y")
    np.testing.assert_array_equal(X, [[1.5], [3.0]])
    np.testing.assert_array_equal(y, [2.0, 4.0])
    assert (names, target) == (("größe, cm",), "y")


UNFIT = {
    "empty": ("", "is empty"),
    "blank": ("\n\n", "is empty"),
    "header only": ("a,y\n", "has a header and no rows"),
    "missing column": ("a,b\n1,2\n", "has no column 'y'; its columns: a, b"),
    "semicolons": ("a;y\n1;2\n", "separated by commas"),
    "duplicate names": ("a,b,a,y\n1,2,3,4\n", "more than one column is called 'a'"),
    "nameless": (",a,y\n0,1,2\n", "column 1 of 3 has no name"),
    "text": ("a,y\n1,2\n\n3,4\nx7,5\n", "line 5, column 'a': 'x7' is no number"),
    "text after a cell of two lines": ('a,y\n"1\n",2\nx,3\n', "line 4, column 'a': 'x' is no number"),
    "grouped digits": ("a,y\n1_000,2\n", "line 2, column 'a': '1_000' is no number"),
    "infinite": ("a,y\n1,2\n2,inf\n", "line 3, column 'y': 'inf' is no finite number"),
    "missing value": ("a,y\n1,2\n,3\n", "line 3, column 'a': the value is missing"),
    "NA": ("a,y\n1,2\n4,NA\n", "line 3, column 'y': the value is missing (NA)"),
    "ragged": ("a,y\n1,2\n1,2,3\n", "line 3: 3 cells, but the header names 2 columns"),
    "constant target": ("a,y\n1,2\n2,2\n", "column 'y' is 2 in every row"),
    "one row": ("a,y\n1,2\n", "column 'y' is 2 in every row"),
    "constant features": ("a,y\n1,2\n1,3\n", "every column besides 'y' is constant"),
    "no features": ("y\n1\n2\n", "no column besides 'y'"),
    "unclosed quote": ('a,y\n1,"2\n', "is no CSV file"),
    "unrelated": ("a,y\n1,1\n-1,1\n1,-1\n-1,-1\n", "lambda_max is 0"),
    "huge": ("a,y\n1,1e200\n2,3e200\n3,-1e200\n", "change their units"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_unfit_files_are_refused_in_words(tmp_path, capsys, case):
    text, message = UNFIT[case]
    file = tmp_path / "data.csv"
    file.write_text(text, encoding="utf-8")
    assert main([str(file), "--target", "y", "--num", "5", "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("l1jax: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("0 1 2 1", "labels 0 and 1 (or -1 and 1), got 0, 1, 2"),
        ("0.5 1 0 1", "labels 0 and 1"),
        ("1 2 1 2", "labels 0 and 1"),
        ("0 0 0 1", "only one row is 1"),
        ("1 1 1 1", "constant"),
    ],
)
def test_labels_unfit_for_logistic(tmp_path, capsys, labels, message):
    file = write(tmp_path, ["a", "y"], list(enumerate(labels.split())))
    assert main([str(file), "--target", "y", "--loss", "logistic", "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_files_that_cannot_be_read_or_written(tmp_path, capsys):
    assert main([str(tmp_path / "none.csv"), "--target", "y"]) == 2
    assert capsys.readouterr().err == f"l1jax: {tmp_path / 'none.csv'}: No such file or directory\n"
    assert main([str(tmp_path), "--target", "y"]) == 2
    assert "Is a directory" in capsys.readouterr().err
    file = write(tmp_path, ["a", "y"], [[1, 2], [2, 3], [3, 5]])
    assert main([str(file), "--target", "y", "--out", str(file)]) == 2
    assert "File exists" in capsys.readouterr().err
    with pytest.raises(TableError, match=r"--target NAME. The columns of .*: a, y"):
        read_table(file, None)
    file.write_bytes("a,y\n\xe4,1\n".encode("latin-1"))
    assert main([str(file), "--target", "y"]) == 2
    assert "no UTF-8 text" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--num", "1"], ["--target", "y"], ["--loss", "logistic"], ["--loss", "x"]])
def test_wrong_arguments_exit_with_2(argv, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    assert "python -m l1jax houses.csv --target price" in capsys.readouterr().out


def test_program_leaves_x64_as_it_was_and_runs_without_matplotlib(tmp_path, capsys, monkeypatch, float32):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    file = write(tmp_path, ["a", "b", "y"], [[1, 2, 3], [2, 5, 3.5], [3, 3, 5], [5, 1, 9]])
    assert main([str(file), "--target", "y", "--num", "5", "--out", str(tmp_path)]) == 0
    assert 'No picture: pictures need matplotlib: pip install "l1jax[plot]"' in capsys.readouterr().out
    assert not jax.config.jax_enable_x64
    assert read(tmp_path / "path.csv")[1][:, 3].max() <= 1e-6
