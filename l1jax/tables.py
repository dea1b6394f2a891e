"""CSV files in and out: numbers with named columns, and errors that name the cell."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from l1jax.datasets import Dataset
from l1jax.result import Result

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "."}


class TableError(ValueError):
    """What is wrong with a table, in words for the person whose table it is."""


def read_table(file: Path, target: str | None) -> Dataset:
    """The columns of a CSV file of numbers: X is all but `target`, y is `target`.

    Args:
      file: comma-separated UTF-8 text, with or without a byte-order mark, whose first line names the columns.
      target: the name of the column to explain.

    Raises TableError for anything that is no complete table of finite numbers, naming the line of the file and the
    column; OSError for a file that can't be read.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = _records(stream)
            _, header = next(lines, (0, None))
            names = _names(file, header)
            at = _position(file, names, target)
            rows = [_numbers(file, line, names, cells) for line, cells in lines]
    except UnicodeDecodeError as error:
        raise TableError(f"{file} is no UTF-8 text ({error.reason}); save it as CSV, UTF-8") from error
    except csv.Error as error:
        raise TableError(f"{file} is no CSV file: {error}") from error
    if not rows:
        raise TableError(f"{file} has a header and no rows")
    values = np.array(rows, dtype=np.float64)
    X, y = np.delete(values, at, axis=1), values[:, at]
    if not np.ptp(y):
        raise TableError(f"column {names[at]!r} is {y[0]:g} in every row: a constant target leaves nothing to explain")
    if not np.ptp(X, axis=0).any():
        raise TableError(f"{file}: every column besides {names[at]!r} is constant, so none can explain it")
    return Dataset(X, y, (*names[:at], *names[at + 1 :]), names[at])


def _records(stream: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """(the line at which it starts, stripped cells) of each record; empty lines are passed over."""
    reader = csv.reader(stream, strict=True)
    line = 1
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if stripped not in ([], [""]):
            yield line, stripped
        line = reader.line_num + 1


def _names(file: Path, header: list[str] | None) -> list[str]:
    if header is None:
        raise TableError(f"{file} is empty; its first line should name the columns")
    for k, name in enumerate(header, 1):
        if not name:
            raise TableError(f"{file}: column {k} of {len(header)} has no name (row numbers? write the file without)")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise TableError(f"{file}: more than one column is called {', '.join(map(repr, twice))}")
    return header


def _position(file: Path, names: list[str], target: str | None) -> int:
    listed = ", ".join(names)
    if target is None:
        raise TableError(f"say which column to explain: --target NAME. The columns of {file}: {listed}")
    if target not in names:
        comma = " (Columns must be separated by commas.)" if len(names) == 1 else ""
        raise TableError(f"{file} has no column {target!r}; its columns: {listed}{comma}")
    if len(names) == 1:
        raise TableError(f"{file} has no column besides {target!r}: nothing is left to explain it with")
    return names.index(target)


def _numbers(file: Path, line: int, names: list[str], cells: list[str]) -> list[float]:
    if len(cells) != len(names):
        raise TableError(f"{file}, line {line}: {len(cells)} cells, but the header names {len(names)} columns")
    return [_number(f"{file}, line {line}, column {name!r}", cell) for name, cell in zip(names, cells, strict=True)]


def _number(where: str, cell: str) -> float:
    if cell.lower() in MISSING:
        shown = f" ({cell})" if cell else ""
        raise TableError(f"{where}: the value is missing{shown}; fill it in or leave the row out")
    try:
        value = float("no" if "_" in cell else cell)  # float() takes 1_000, a person may mean anything by it
    except ValueError:
        raise TableError(f"{where}: {cell!r} is no number") from None
    if not np.isfinite(value):
        raise TableError(f"{where}: {cell!r} is no finite number")
    return value


def write_path(file: Path, result: Result, share: str) -> None:
    """One line for each lambda of a path: lambda, nonzeros, `share` (of deviance explained), gap, coefficients."""
    columns = np.column_stack(
        [np.asarray(a, np.float64) for a in (result.lams, result.df, result.dev_ratio, result.gap, result.intercept)]
        + [np.asarray(result.coef, np.float64)]
    )
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["lambda", "nonzeros", share, "gap", "intercept", *(result.names or ())])
        for lam, df, *rest in columns.tolist():
            writer.writerow([lam, int(df), *rest])
