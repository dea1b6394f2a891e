"""A path in words and numbers that a person can read."""

import textwrap
from collections.abc import Sequence

import numpy as np

from l1jax.analysis import Change
from l1jax.penalties import L1
from l1jax.result import Result
from l1jax.selection import CrossValidation

WIDTH = 100
ROWS = 20  # a table longer than a screen is not read


def path_table(result: Result, share: str) -> str:
    """The lambdas at which the set of features changes, and the ends; at most about ROWS of them."""
    support = np.asarray(result.coef) != 0
    names = _names(result)
    changed = [k for k in range(1, len(support)) if np.any(support[k] != support[k - 1])]
    if len(changed) > ROWS - 2:
        changed = [changed[i] for i in np.unique(np.linspace(0, len(changed) - 1, ROWS - 2).round().astype(int))]
    shown = sorted({0, *changed, len(support) - 1})
    lines = [
        f"{len(shown)} of {len(support)} lambdas, with the features that entered (+) or left (-) since the line above",
        f"  {'lambda':>10} {'nonzeros':>8} {share:>8} {'gap':>8}",
    ]
    for before, k in zip([0, *shown], shown, strict=False):
        moved = [f"{'+' if support[k, j] else '-'}{names[j]}" for j in np.flatnonzero(support[k] != support[before])]
        more = f" and {len(moved) - 5} more" if len(moved) > 5 else ""
        row = result[k]
        line = f"  {float(row.lams):10.4g} {int(row.df):8d} {_share(row):8.4f} {float(row.gap):8.1e}"
        lines.append(f"{line}  {' '.join(moved[:5])}{more}".rstrip())
    return "\n".join(lines)


def order_of_entry(changes: Sequence[Change], names: Sequence[str], most: int = 20) -> str:
    """The features by when they first enter, tied ones joined by "="; then those that leave, and perhaps return."""
    first: dict[int, Change] = {}
    for change in changes:
        first.setdefault(change.feature, change)
    if not first:
        return "Order of entry: no feature enters"
    listed = list(first.values())[:most]
    text = "".join((" = " if c.tied else ", ") + names[c.feature] for c in listed)[2:].strip()
    more = f", ... ({len(first) - most} more)" if len(first) > most else ""
    lines = [_wrap(f"Order of entry: {text}{more}")]
    if any(c.tied for c in listed):
        lines.append('("=": so close together that the path does not tell which is first)')
    moves = [(j, [c for c in changes if c.feature == j][1:]) for j in first]
    restless = [(j, rest) for j, rest in moves if rest]
    for j, rest in restless[:5]:
        steps = [f"{'returns' if c.enters else 'leaves'} at lambda {c.lam:.4g}" for c in rest[:4]]
        lines.append(_wrap(f"{names[j]} {', '.join(steps)}{', ...' if len(rest) > 4 else ''}"))
    if len(restless) > 5:
        lines.append(f"({len(restless) - 5} more features leave again)")
    return "\n".join(lines)


def model(result: Result, cv: CrossValidation, scale: np.ndarray, share: str, error: str) -> str:
    """lambda.min and lambda.1se, and the coefficients at each; the largest first, in units of `scale` (p,)."""
    chosen = {"lambda.min": int(cv.index_min[0]), "lambda.1se": int(cv.index_1se[0])}
    lines = [f"  {'':10} {'lambda':>10} {'nonzeros':>8} {share:>8} {error:>18} {'SE':>10}"]
    for label, k in chosen.items():
        fit = f"{float(result.lams[k]):10.4g} {int(result.df[k]):8d} {_share(result[k]):8.4f}"
        lines.append(f"  {label} {fit} {float(cv.mean[k]):18.5g} {float(cv.se[k]):10.3g}")
    names = _names(result)
    coef = np.asarray(result.coef)[list(chosen.values())]
    size = np.abs(coef * scale).max(axis=0)
    order = [j for j in np.argsort(-size, kind="stable") if np.any(coef[:, j] != 0)]
    width = max([9, *(len(names[j]) for j in order[:ROWS])])
    lines += [
        "",
        "Chosen: lambda.1se, the largest lambda whose error is within one SE of the least (lambda.min).",
        'Coefficients in the units of the data, the most important first ("." is exactly 0):',
        f"  {'':{width}} {'lambda.min':>12} {'lambda.1se':>12}",
    ]
    rows = [("intercept", np.asarray(result.intercept)[list(chosen.values())])]
    rows += [(names[j], coef[:, j]) for j in order[:ROWS]]
    lines += [f"  {name:{width}}" + "".join(f" {_number(w):>12}" for w in pair) for name, pair in rows]
    if len(order) > ROWS:
        lines.append(f"  and {len(order) - ROWS} more")
    zero = [name for j, name in enumerate(names) if np.all(coef[:, j] == 0)]
    if zero:
        more = ", ..." if len(zero) > ROWS else ""
        lines.append(_wrap(f"  0 in both: {', '.join(zero[:ROWS])}{more}"))
    return "\n".join(lines)


def proof(w: float = 0.9, step: float = 0.25) -> str:
    """One weight, shrunk by gradient steps on |w| and on w^2: the first arrives at zero, the second never does."""
    shrunk = faded = w
    lines = [f"  {'step':>4} {f'w - {step:g}*sign(w)':>18} {f'w - {step:g}*2w':>18}"]
    for k in range(51):
        if k <= 6 or k in (10, 20, 50):
            lines.append(f"  {k:4d} {_number(shrunk, 'exactly 0'):>18} {_number(faded, 'exactly 0'):>18}")
        shrunk = float(L1(1.0).prox(shrunk, step))  # the step on |w|, ended at zero where it would cross
        faded = faded - step * 2 * faded
    return "\n".join(lines)


def _names(result: Result) -> tuple[str, ...]:
    return result.names or tuple(f"x{j}" for j in range(result.coef.shape[-1]))


def _share(row: Result) -> float:
    return round(float(row.dev_ratio), 4) + 0.0  # rounding gives the null model -1e-16; people read -0 as a fault


def _number(value: float, zero: str = ".") -> str:
    return f"{float(value):.5g}" if value != 0 else zero


def _wrap(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
