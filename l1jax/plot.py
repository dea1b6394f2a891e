"""Pictures of paths, cross-validation, stability and zeros of networks; matplotlib is imported when one is drawn."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from l1jax.result import Result
from l1jax.selection import CrossValidation, Stability
from l1jax.zeros import SparsityReport

COLOURS = (
    *("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf"),
    *("#8c564b", "#e377c2", "#bcbd22", "#1b3a6b", "#7f1d1d", "#14532d"),
)
SMALL = 8  # font size of names and marks, in points
LINE = 1.25 * SMALL
AXES = {
    "lambda": "λ (decreasing, log scale)",
    "norm": "sum of |coefficients|",
    "deviance": "share of deviance explained",
}


def coefficient_path(
    result: Result,
    *,
    ax: Any = None,
    names: Sequence[str] | None = None,
    against: str = "lambda",
    mark: Mapping[str, float] | None = None,
) -> Any:
    """coef_j(lambda) for each j, as lines: how the coefficients of a path grow as lambda falls.

    Args:
      result: a path: L lambdas, in any order, with coef (L, p). Lambdas without an answer (NaN) are left out.
      ax: the matplotlib Axes to draw on; by default one of a new Figure, which matplotlib's pyplot does not keep.
      names: a name for each of the p coefficients; by default those of `result`, or x0, x1, ....
      against: the horizontal axis: "lambda" (log scale, the largest at the left), "norm" (sum_j |coef_j|) or
        "deviance" (the share explained, `dev_ratio`).
      mark: label -> lambda: strengths to mark by dashed verticals, each at the nearest lambda of the path.

    Returns the Axes. The largest coefficients at the end of the path, in the units of `result`, are coloured and
    named at their ends, the others grey. The top axis counts the nonzero coefficients. Raises ValueError for a result
    that is no path of at least two lambdas, names of another number, an unknown `against`, a mark beyond the path, a
    lambda of 0 on a log axis; ImportError without matplotlib.

    >>> found = path(Problem([[1.0, 0.0], [2.0, 1.0], [3.0, 0.0]], [1.0, 2.0, 4.0], penalty=L1(1.0)), num=5)
    >>> ax = coefficient_path(found, names=["dose", "age"], mark={"chosen": 0.1})
    >>> ax.figure.savefig("path.png")  # doctest: +SKIP
    >>> ax.get_ylabel()
    'coefficient'
    """
    Figure = _figure()
    curves = _curves(result, names, against)
    nearest = {label: _nearest(curves.lams, label, lam) for label, lam in (mark or {}).items()}
    if ax is None:
        ax = Figure(figsize=(7.5, 4.8), layout="constrained").add_subplot()
    _draw_lines(ax, curves)
    _frame(ax, curves, "coefficient", against, headroom=len(nearest))
    _mark(ax, curves, nearest)
    _count(ax, curves, np.sum(curves.coef != 0, axis=1), "nonzero coefficients")
    _name_lines(ax, curves)
    return ax


def cross_validation_curve(cv: CrossValidation, *, ax: Any = None) -> Any:
    """mean(lambda) +- one standard error: the score on rows that the fits have not seen.

    Args:
      cv: what `cross_validate` found. Of several l1_ratios or gammas the best is drawn with its errors, the others as
        grey lines at their own lambdas.
      ax: the matplotlib Axes to draw on; by default one of a new Figure, which matplotlib's pyplot does not keep.

    Returns the Axes. Dashed verticals mark lam_min and lam_1se; the top axis counts the nonzero coefficients of the
    fits to all rows. Raises ValueError for fewer than two lambdas, and for a lambda of 0, for which a log axis has no
    place; ImportError without matplotlib.

    >>> data = datasets.diabetes()
    >>> cv = cross_validate(Problem(data.X, data.y, penalty=L1(1.0)), folds=5, num=20, ratio=0.01)
    >>> cross_validation_curve(cv).get_ylabel()
    'mean deviance of 5 folds'
    """
    Figure = _figure()
    *others, least = (int(i) for i in cv.index_min)
    row = tuple(others)
    lams, mean, se, df = (np.asarray(a, np.float64)[row] for a in (cv.path.lams, cv.mean, cv.se, cv.path.df))
    order = np.argsort(-lams, kind="stable")
    curves = _single(lams[order], mean[order])
    if ax is None:
        ax = Figure(figsize=(7.5, 4.8), layout="constrained").add_subplot()
    for index in np.ndindex(cv.mean.shape[:-1]):
        if index != row:
            ax.plot(np.asarray(cv.path.lams[index]), np.asarray(cv.mean[index]), color="0.8", linewidth=0.8, zorder=0)
    ax.errorbar(
        curves.x, mean[order], se[order], color=COLOURS[1], ecolor="0.7", fmt="o", markersize=3, linewidth=0.9, zorder=2
    )
    _frame(ax, curves, f"mean {cv.score} of {cv.scores.shape[0]} folds", "lambda", headroom=2)
    place = np.argsort(order)
    _mark(ax, curves, {"λ min": int(place[least]), "λ 1se": int(place[int(cv.index_1se[-1])])})
    _count(ax, curves, df[order].astype(int), "nonzero coefficients")
    return ax


def stability_path(
    stability: Stability, *, ax: Any = None, names: Sequence[str] | None = None, threshold: float = 0.9
) -> Any:
    """entered_j(lambda) for each j, as lines: the share of resampled fits in which each coefficient has entered.

    Args:
      stability: what `stability_selection` or `bootstrap_support` found.
      ax: the matplotlib Axes to draw on; by default one of a new Figure, which matplotlib's pyplot does not keep.
      names: a name for each of the p coefficients; by default the columns' own, or x0, x1, ....
      threshold: the share, from 0 to 1, from which lines are coloured and named (the 12 largest); it is marked.

    Returns the Axes. The top axis has the mean number of coefficients that have entered. Raises ValueError for names
    of another number, a threshold outside [0, 1], fewer than two lambdas, a lambda of 0; ImportError without
    matplotlib.

    >>> data = datasets.diabetes()
    >>> problem = Problem(data.X, data.y, penalty=L1(1.0), names=data.names)
    >>> stability_path(stability_selection(problem, key=jax.random.key(0), pairs=3, num=5)).get_ylabel()
    'share of 6 fits'
    """
    Figure = _figure()
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: want a share from 0 to 1, got {threshold}")
    lams, shares = (np.asarray(a, np.float64) for a in (stability.lams, stability.entered))
    names = names or stability.names or tuple(f"x{j}" for j in range(shares.shape[1]))
    if len(names) != shares.shape[1]:
        raise ValueError(f"names: want {shares.shape[1]}, one for each coefficient; got {len(names)}")
    largest = [int(j) for j in np.argsort(-shares[-1], kind="stable") if shares[-1, j] >= threshold]
    colours = dict(zip(largest, COLOURS, strict=False))
    curves = dataclasses.replace(_single(lams, shares), names=tuple(names), colours=colours)
    if ax is None:
        ax = Figure(figsize=(7.5, 4.8), layout="constrained").add_subplot()
    ax.axhline(threshold, color="0.35", linestyle="--", linewidth=0.9, zorder=0)
    _draw_lines(ax, curves)
    _frame(ax, curves, f"share of {stability.samples} fits", "lambda", headroom=2)
    _count(ax, curves, np.round(np.asarray(stability.average), 1), "coefficients that have entered, on average")
    _name_lines(ax, curves)
    return ax


def sparsity(report: SparsityReport, *, ax: Any = None) -> Any:
    """nonzeros/size of each array, as bars: where in a network the zeros are; below them the units that are alive.

    Args:
      report: what `sparsity_report` found, with or without units.
      ax: the matplotlib Axes to draw on; by default one of a new Figure, which matplotlib's pyplot does not keep.

    Returns the Axes. From top to bottom stand the arrays, all of them together, and the sets of units; their counts at
    the right. Raises ValueError for a report of no arrays; ImportError without matplotlib.

    >>> import jax.numpy as jnp
    >>> ax = sparsity(sparsity_report({"kernel": jnp.array([[3.0, 0.0], [0.0, 0.0]]), "bias": jnp.array([4.0, 0.0])}))
    >>> [text.get_text() for text in ax.texts]
    ['1 of 2', '1 of 4', '2 of 6']
    """
    Figure = _figure()
    if not report.leaves:
        raise ValueError("report: want at least one array, got none")
    rows = [(a.path or ".", a.nonzeros, a.size, COLOURS[0]) for a in report.leaves]
    rows += [("all", report.nonzeros, report.size, "0.35")]
    rows += [(f"units of {a.name}" if a.name else "units", a.alive, a.units, COLOURS[4]) for a in report.units]
    names, some, every, colours = (list(column) for column in zip(*rows, strict=True))
    if ax is None:
        ax = Figure(figsize=(7.5, 1.1 + 0.3 * len(rows)), layout="constrained").add_subplot()
    places = np.arange(len(rows)) + 0.5 * np.repeat([0, 1, 2], [len(report.leaves), 1, len(report.units)])
    ax.barh(places, [1] * len(rows), color="0.93", height=0.7)
    ax.barh(places, [a / b if b else 0 for a, b in zip(some, every, strict=True)], color=colours, height=0.7)
    for place, a, b in zip(places, some, every, strict=True):
        ax.text(1.01, place, f"{a:,} of {b:,}", va="center", fontsize=SMALL, transform=ax.get_yaxis_transform())
    ax.set_yticks(places, names)
    ax.set_ylim(places[-1] + 0.6, places[0] - 0.6)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.set_xlabel("not zero (of units: alive)" if report.units else "not zero")
    ax.tick_params(axis="y", length=0)
    for side in ("right", "top", "left"):
        ax.spines[side].set_visible(False)
    return ax


def _figure() -> Any:
    """matplotlib's Figure."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "l1jax[plot]"') from error
    return Figure


@dataclasses.dataclass(frozen=True)
class _Curves:
    """What is drawn: lambdas (L,), places on the axis (L,), coefficients (L, p), names, and which lines stand out."""

    lams: np.ndarray
    x: np.ndarray
    coef: np.ndarray
    names: tuple[str, ...]
    colours: dict[int, str]


def _curves(result: Result, names: Sequence[str] | None, against: str) -> _Curves:
    if against not in AXES:
        raise ValueError(f"against: want {', '.join(map(repr, AXES))}; got {against!r}")
    lams, coef, share = (np.asarray(a, np.float64) for a in (result.lams, result.coef, result.dev_ratio))
    if lams.ndim != 1 or coef.ndim != 2:
        raise ValueError(f"result: want a path, with one batch axis and coef (L, p); got coef of shape {coef.shape}")
    if names is None:
        names = result.names or tuple(f"x{j}" for j in range(coef.shape[1]))
    if len(names) != coef.shape[1]:
        raise ValueError(f"names: want {coef.shape[1]}, one for each coefficient; got {len(names)}")
    order = np.argsort(-lams, kind="stable")
    order = order[np.all(np.isfinite(coef[order]), axis=1)]
    lams, coef, share = lams[order], coef[order], share[order]
    if len(lams) < 2:
        raise ValueError(f"result: want a path of at least two lambdas with an answer, got {len(lams)}")
    if against == "lambda" and lams[-1] <= 0:
        raise ValueError('against: a log axis has no place for lambda = 0; leave it out or take against="norm"')
    x = {"lambda": lams, "norm": np.abs(coef).sum(axis=1), "deviance": share}[against]
    largest = [int(j) for j in np.argsort(-np.abs(coef[-1]), kind="stable") if coef[-1, j] != 0]
    return _Curves(lams, x, coef, tuple(names), dict(zip(largest, COLOURS, strict=False)))


def _single(lams: np.ndarray, values: np.ndarray) -> _Curves:
    """Values over descending lambdas, none of them named."""
    if len(lams) < 2 or lams[-1] <= 0:
        raise ValueError(f"want at least two lambdas, all above 0, for a log axis; got {lams}")
    return _Curves(lams, lams, values.reshape(len(lams), -1), (), {})


def _nearest(lams: np.ndarray, label: str, lam: float) -> int:
    if not lams[-1] * (1 - 1e-6) <= lam <= lams[0] * (1 + 1e-6):
        raise ValueError(f"mark: {label} = {lam:.4g} is beyond the path, {lams[-1]:.4g} to {lams[0]:.4g}")
    return int(np.argmin(np.abs(lams - lam)))


def _draw_lines(ax: Any, curves: _Curves) -> None:
    ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    for j in range(curves.coef.shape[1]):
        if j not in curves.colours and np.any(curves.coef[:, j] != 0):
            ax.plot(curves.x, curves.coef[:, j], color="0.75", linewidth=0.7, zorder=1)
    for j, colour in curves.colours.items():
        ax.plot(curves.x, curves.coef[:, j], color=colour, linewidth=1.5, zorder=2, label=curves.names[j])


def _frame(ax: Any, curves: _Curves, label: str, against: str, headroom: int) -> None:
    """Scales and limits, with room at the right for the names and at the top for lines of text."""
    ax.set_ylabel(label)
    ax.set_xlabel(AXES[against])
    if against == "lambda":
        ax.set_xscale("log")
    ends = np.log(curves.x) if against == "lambda" else curves.x
    longest = max((len(curves.names[j]) for j in curves.colours), default=0)
    room = min(0.35, (0.6 * longest + 2.5) * SMALL / (72 * _size(ax)[0]))
    span = ends[-1] - ends[0]
    left, right = ends[0] - 0.02 * span, ends[-1] + span * room / (1 - room)
    if left != right:
        ax.set_xlim(*(np.exp([left, right]) if against == "lambda" else (left, right)))
    low, high = ax.get_ylim()
    room = min(0.35, LINE * (headroom + 0.3 * bool(headroom)) / (72 * _size(ax)[1]))
    ax.set_ylim(low, high + (high - low) * room / (1 - room))  # fixed: names are placed for these limits
    for side in ("right", "top"):
        ax.spines[side].set_visible(False)


def _mark(ax: Any, curves: _Curves, marks: Mapping[str, int]) -> None:
    """A dashed vertical for each mark, its label above the curves, one line of text for each."""
    for row, (label, k) in enumerate(marks.items()):
        ax.axvline(curves.x[k], color="0.35", linestyle="--", linewidth=0.9, zorder=1)
        at_right = _across(ax, curves)[k] > 0.7
        ax.annotate(
            label,
            (curves.x[k], 1.0),
            xycoords=ax.get_xaxis_transform(),
            xytext=(-3 if at_right else 3, -LINE * (row + 0.3)),
            textcoords="offset points",
            ha="right" if at_right else "left",
            va="top",
            fontsize=SMALL,
            color="0.25",
        )


def _count(ax: Any, curves: _Curves, counts: np.ndarray, label: str) -> None:
    """Numbers of coefficients, at places spread evenly over the top axis."""
    across = _across(ax, curves)
    ticks = np.unique([np.argmin(np.abs(across - at)) for at in np.linspace(across[0], across[-1], 10)])
    top = ax.secondary_xaxis("top")
    top.set_xticks(curves.x[ticks], labels=[f"{count:g}" for count in counts[ticks]], fontsize=SMALL)
    top.set_xticks([], minor=True)
    top.set_xlabel(label, fontsize=SMALL)


def _name_lines(ax: Any, curves: _Curves) -> None:
    """Names right of the lines' ends, pushed apart until none overlap, each joined to its line."""
    lines = sorted(curves.colours, key=lambda j: curves.coef[-1, j])
    low, high = ax.get_ylim()
    ends = [float((curves.coef[-1, j] - low) / (high - low)) for j in lines]
    places = spread(ends, LINE / (72 * _size(ax)[1]))
    for j, end, place in zip(lines, ends, places, strict=True):
        ax.annotate(
            curves.names[j],
            (curves.x[-1], low + end * (high - low)),
            xytext=(14, (place - end) * 72 * _size(ax)[1]),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=curves.colours[j],
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": curves.colours[j], "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0},
        )


def spread(places: Sequence[float], apart: float) -> list[float]:
    """The ascending places nearest to `places` (ascending, in [0, 1]) that are at least `apart` from each other.

    Least squares: places too close form a block, which sits at the mean of where its members would be.
    """
    blocks: list[list[float]] = []  # of places less their rank * apart, which have only to ascend
    for rank, place in enumerate(places):
        blocks.append([place - rank * apart])
        while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [float(np.mean(block)) + rank * apart for rank, block in enumerate(b for b in blocks for _ in b)]


def _across(ax: Any, curves: _Curves) -> np.ndarray:
    """Where the lambdas stand, (L,), as shares of the width of the Axes."""
    points = np.column_stack([curves.x, np.zeros_like(curves.x)])
    return np.asarray(ax.transAxes.inverted().transform(ax.transData.transform(points))[:, 0])


def _size(ax: Any) -> tuple[float, float]:
    """Width and height of the Axes in inches."""
    box = ax.get_position()
    width, height = ax.figure.get_size_inches()
    return float(width * box.width), float(height * box.height)
