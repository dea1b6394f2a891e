"""The loss of survival times: it couples the rows."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from l1jax._arrays import LARGEST, concrete, largest, set_hyperparameter
from l1jax._node import node, static
from l1jax.losses.base import Loss
from l1jax.losses.bins import cover, gathered, pooled, spread
from l1jax.losses.special import exp_less_line


@node
class Cox(Loss):
    """sum over events i of s_i * (log(sum_{j at risk at y_i} s_j*exp(eta_j)) - eta_i), less its infimum.

    Minus Cox's log partial likelihood of right-censored times. The infimum is the sum over event times of W*log(W),
    with W the weight of the events then; it is approached, not attained, as eta falls ever more steeply with time.
    Row j is at risk at time t if start_j < t <= y_j. y holds the times; the loss holds what else is known of the rows.

    Args:
      event: 1 (or True) where y is the time of an event, 0 where the row was censored, last seen at y: (n,).
      start: the times from which on rows are at risk, (n,), each before its y: left truncation, or several rows for
        one subject whose covariates change (start, stop]; None for all from the beginning.
      ties: what is at risk when d events share a time. "breslow": all of them, for each. "efron": for the l-th of
        them, l = 0 ... d-1, all but a share l/d of their risk; and W/d is the weight of each. Then the infimum is
        sum W*(log(W) + (1/d)*sum_l log(1 - l/d)).

    y: times, in any unit and from any origin: only their order matters, after conversion to the problem's dtype. At
    least one event of positive weight. An intercept cancels out of the loss: `Problem` wants
    `fit_intercept=False`. Gradient s_i*(exp(eta_i)*(cumulative hazard while i is at risk) - event_i); `curvature`
    is the first part of it, an upper bound of the second derivative (as matrices, so of its diagonal too). The
    conjugate is not known: solutions are certified by their fixed-point residual. The mean is the relative hazard
    exp(eta); log link. All sums are taken in the log domain, without subtractions: they are stable for |eta| to 1e4
    and beyond. Cost: one sort of y, then sums in O(n), with `start` in O(n log n).

    Raises ValueError for events other than 0 and 1, unknown ties, or shapes that differ from y's. Rows that are at
    risk at no time (start >= y) are refused where y is.

    Source: Cox (1972), "Regression models and life-tables", JRSS B 34(2), eq. 12; ties: Breslow (1974), "Covariance
    analysis of censored survival data", Biometrics 30(1); Efron (1977), "The efficiency of Cox's likelihood function
    for censored data", JASA 72(359); weights and (start, stop]: Therneau and Grambsch (2000), "Modeling
    survival data", chapter 3.

    >>> import jax.numpy as jnp
    >>> loss = Cox(event=[1, 1, 0])
    >>> y, s = jnp.array([1.0, 2.0, 3.0]), jnp.ones(3) / 3
    >>> print(f"{loss.value(jnp.zeros(3), y, s):.5f}")  # (log 3 + log 2)/3
    0.59725
    >>> print(jnp.round(18 * loss.gradient(jnp.zeros(3), y, s)))  # (1/3 - 1)/3, (1/3 + 1/2 - 1)/3, (1/3 + 1/2)/3
    [-4. -1.  5.]
    """

    event: Any
    start: Any = None
    ties: str = static(default="breslow")

    attained = False
    curved = False  # its curvature is a bound, as rows are coupled
    location = False

    def __post_init__(self) -> None:
        if self.ties not in ("breslow", "efron"):
            raise ValueError(f'ties: want "breslow" or "efron", got {self.ties!r}')
        set_hyperparameter(self, "event", 0.0, 1.0, "1 for each event and 0 for each censored row")
        set_hyperparameter(self, "start", -LARGEST, LARGEST, "finite times")
        for name, leaf in (("event", self.event), ("start", self.start)):
            if isinstance(leaf, float):
                raise ValueError(f"{name}: want one value for each row, (n,), got {leaf:g}")
        if isinstance(self.event, jax.Array) and concrete(self.event):
            values = np.asarray(self.event)
            if not np.all((values == 0) | (values == 1)):
                raise ValueError(f"event: want 1 for each event and 0 for each censored row, got {self.event}")

    def value(self, eta: Array, y: Array, s: Array) -> Array:
        at = self._risk(eta, y, s)
        # Of each event time: what the others at risk add to the events' own, and how unlike these are among themselves.
        others = at.others[at.bin] - jnp.log1p(-at.share) - at.own[at.bin]
        return jnp.sum(at.each * jax.nn.softplus(others)) + jnp.sum(at.weight * at.unlike)

    def gradient(self, eta: Array, y: Array, s: Array) -> Array:
        return self.curvature(eta, y, s) - s * self._died(y, s)

    def curvature(self, eta: Array, y: Array, s: Array) -> Array:
        at = self._risk(eta, y, s)
        n, low = len(y), _low(eta)
        log_share = jnp.log1p(-at.share)
        risk = jnp.logaddexp(at.others[at.bin], at.own[at.bin] + log_share)
        hazard = jnp.where(at.each > 0, jnp.log(jnp.where(at.each > 0, at.each, 1.0)) - risk, low)
        to = jnp.where(at.each > 0, at.bin, n)
        before = at.size + gathered(pooled(hazard, to, n, low), at.last, at.nodes, low)
        when = at.size + jnp.append(pooled(hazard + log_share, to, n, low), low)[at.died_in]
        died = at.died_in < n
        return jnp.exp(before) + jnp.where(died, jnp.exp(jnp.where(died, when, low)), 0.0)

    def bent(self, d: Array, eta: Array, y: Array, s: Array) -> Array:
        return jax.jvp(lambda eta: self.gradient(eta, y, s), (eta,), (d,))[1]

    def mean(self, eta: Array) -> Array:
        return jnp.exp(eta)

    def link(self, mu: Array) -> Array:
        return jnp.log(mu)

    def encode(self, y: Array) -> Array:
        event, start = self._columns(y)
        sound = (event == 0) | (event == 1)
        return jnp.where(sound if start is None else sound & (start < y), y, jnp.nan)

    def complaint(self, y: Array, s: Array) -> str:
        event, start = self._columns(y)
        if not bool(jnp.all((event == 0) | (event == 1))):
            return "Cox wants an event of 1 or 0 for each row"
        if start is not None and not bool(jnp.all(start < y)):
            row = int(jnp.argmin(start < y))
            return (
                f"Cox wants times after their start; row {row} starts at {float(start[row]):g}, got {float(y[row]):g}"
            )
        if not bool(self.answerable(y, s)):
            return "Cox wants some events (among the rows of positive weight), got only censored rows"
        return ""

    def answerable(self, y: Array, s: Array) -> Array:
        return jnp.all(jnp.isfinite(y)) & jnp.any(self._died(y, s) > 0)

    def _columns(self, y: Array) -> tuple[Array, Array | None]:
        """event and start, in the dtype of y."""
        columns = []
        for name, leaf in (("event", self.event), ("start", self.start)):
            column = None if leaf is None else jnp.asarray(leaf, y.dtype)
            if column is not None and column.shape != y.shape:
                raise ValueError(f"Cox: want {name} and y of one shape, got {column.shape} and {y.shape}")
            columns.append(column)
        if columns[0] is None:
            raise ValueError("event: want 1 for each event and 0 for each censored row, got None")
        return columns[0], columns[1]

    def _died(self, y: Array, s: Array) -> Array:
        """1 for each row with an event that counts."""
        return jnp.where((self._columns(y)[0] == 1) & (s > 0), jnp.ones_like(y), 0.0)

    def _risk(self, eta: Array, y: Array, s: Array) -> "_Risk":
        """Who is at risk when, and the log risks; times are numbered 0, 1, ... < n (bins), n stands for never."""
        n, low, start = len(y), _low(eta), self._columns(y)[1]
        order = jnp.argsort(y)
        ordered = y[order]
        number = jnp.append(jnp.zeros(1, jnp.int32), jnp.cumsum((ordered[1:] != ordered[:-1]).astype(jnp.int32)))
        time = jnp.zeros(n, jnp.int32).at[order].set(number)
        died = self._died(y, s) > 0
        last = time - died.astype(jnp.int32)  # before its event a row is one of the others
        nodes = None
        if start is not None:
            entered = jnp.searchsorted(ordered, start, side="right")
            nodes = cover(number[jnp.minimum(entered, n - 1)], last, n)

        eta = jnp.where(jnp.isfinite(y), eta, jnp.nan)
        eta = eta - lax.stop_gradient(jnp.max(jnp.where(s > 0, eta, -jnp.inf)))  # a constant cancels
        eta = jnp.where(s > 0, eta, 0.0)
        size = jnp.where(s > 0, jnp.log(jnp.where(s > 0, s, 1.0)) + eta, low)
        others = spread(size, last, nodes, n, low)

        died_in = jnp.where(died, time, n)
        dead = jnp.where(died, s, 0.0)
        weight = jnp.zeros_like(s).at[died_in].add(dead, mode="drop")
        safe = jnp.where(weight > 0, weight, 1.0)
        share = dead / safe[time]
        mean = jnp.zeros_like(s).at[died_in].add(share * eta, mode="drop")
        unlike = _spread(eta - mean[time], share, died_in, low)
        own = unlike + jnp.log(safe) + mean

        bins = jnp.arange(n, dtype=jnp.int32)
        if self.ties == "breslow":
            return _Risk(died_in, last, nodes, size, others, own, unlike, weight, bins, weight, jnp.zeros_like(s))
        count = jnp.zeros(n, jnp.int32).at[died_in].add(1, mode="drop")
        end = jnp.cumsum(count)
        bin = jnp.minimum(jnp.searchsorted(end, bins, side="right"), n - 1).astype(jnp.int32)
        used = bins < end[-1]
        d = jnp.where(used, count[bin], 1).astype(s.dtype)
        rank = jnp.where(used, bins - (end - count)[bin], 0).astype(s.dtype)
        each = jnp.where(used, weight[bin] / d, 0.0)
        return _Risk(died_in, last, nodes, size, others, own, unlike, weight, bin, each, rank / d)


def _spread(d: Array, share: Array, at: Array, low: float) -> Array:
    """Of each bin, log(sum share*exp(d)), where sum share*d = 0: at least 0, also where that is all rounding."""
    n, inside = len(d), at < len(d)
    near = jnp.abs(d) < 1
    some = jnp.zeros(n, bool).at[at].max(~near, mode="drop")
    excess = jnp.where(inside, share * exp_less_line(jnp.where(near & inside, d, 0.0)), 0.0)
    little = jnp.log1p(jnp.zeros_like(d).at[at].add(excess, mode="drop"))
    much = pooled(jnp.where(inside, jnp.log(jnp.where(inside, share, 1.0)) + d, low), at, n, low)
    return jnp.where(some, much, jnp.where(jnp.zeros(n, bool).at[at].set(True, mode="drop"), little, low))


class _Risk(NamedTuple):
    """Risk sets: of rows, of the bins (distinct times), and of the terms of the partial likelihood."""

    died_in: Array  # of each row, the bin of its event; n if there is none
    last: Array  # the last bin in which it is at risk without an event; -1 if there is none
    nodes: Array | None  # with `start`: what covers these bins
    size: Array  # log(s*exp(eta))
    others: Array  # of each bin, the log of the risk of rows without an event then
    own: Array  # and of those with one
    unlike: Array  # by how much `own` exceeds log(weight) + the events' mean eta
    weight: Array  # of the events
    bin: Array  # of each term
    each: Array  # its weight
    share: Array  # of the events' own risk, what is left out


def _low(eta: Array) -> float:
    """The logarithm of nothing: finite, so that differences are numbers."""
    return -largest(eta.dtype) / 16
