"""Gradient methods: any optax transformation, run on the full gradient."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from l1jax._arrays import eps
from l1jax._node import node
from l1jax.certificate import certify
from l1jax.engines.base import Engine
from l1jax.penalties import Penalty
from l1jax.penalties.base import Wrapper
from l1jax.standard_form import StandardForm
from l1jax.transforms import AdamMetric, Euclidean, Metric, carries_penalty, fista, iterate, proximal

CHUNK = 10  # steps between two looks at the gap, which costs about one step


@node
class OnCoef(Wrapper):
    """A penalty of `params["coef"]`; the intercept is left alone."""

    penalty: Any

    def value(self, w: Any) -> Array:
        return self.penalty.value(w["coef"])

    def prox(self, v: Any, step: Any) -> Any:
        return {**v, "coef": self.penalty.prox(v["coef"], step["coef"] if isinstance(step, dict) else step)}

    def alive(self, w: Any) -> Any:
        return {**jax.tree.map(lambda a: jnp.ones(a.shape, bool), w), "coef": self.penalty.alive(w["coef"])}

    def blockwise(self, scale: Any) -> Any:
        return {**scale, "coef": self.penalty.blockwise(scale["coef"])}

    def nearest_subgradient(self, w: Any, u: Any) -> Any:
        zero = jax.tree.map(jnp.zeros_like, w)
        return {**zero, "coef": self.penalty.nearest_subgradient(w["coef"], u["coef"])}

    def conjugate(self, u: Any) -> Array:
        return self.penalty.conjugate(u["coef"])

    def critical_lam(self, u: Any, corner: float = 0.0) -> Array:
        return self.penalty.critical_lam(u["coef"], corner)

    def free(self, w: Any) -> Any:
        return {**jax.tree.map(lambda a: jnp.ones(a.shape, bool), w), "coef": self.penalty.free(w["coef"])}

    def excess(self, u: Any) -> Any:
        return {**u, "coef": self.penalty.excess(u["coef"])}

    def scalings(self, u: Any) -> tuple[Array, Array]:
        return self.penalty.scalings(u["coef"])

    def valid(self, w: Any) -> Array:
        return self.penalty.valid(w["coef"])


class _GradientEngine(Engine):
    """What gradient engines share: params {coef, intercept}, the full gradient, and the certificate as the gap."""

    max_steps = 100_000
    patience = 200

    @abc.abstractmethod
    def transformation(self, work: Any, penalty: Penalty) -> optax.GradientTransformation:
        """The transformation to run, for a penalty of {coef, intercept}."""

    def init(self, form: StandardForm, work: Any, penalty: Any, z: Array, b: Array) -> Any:
        params = {"coef": z, "intercept": b}
        return params, self.transformation(work, OnCoef(penalty)).init(params)

    def advance(self, form: StandardForm, work: Any, penalty: Any, state: Any) -> tuple[Any, Array]:
        tx = self.transformation(work, OnCoef(penalty))
        return self._run(tx, form, *state), jnp.asarray(CHUNK, jnp.int32)

    def point(self, state: Any) -> tuple[Array, Array]:
        params, inner, *_ = state
        at = iterate(inner, params)
        return at["coef"], at["intercept"]

    def gap(self, form: StandardForm, work: Any, penalty: Any, state: Any, equalities: bool) -> Array:
        z, b = self.point(state)
        return certify(form, penalty, z, b, equalities).measure

    def _run(self, tx: optax.GradientTransformation, form: StandardForm, params: Any, state: Any) -> tuple[Any, Any]:
        def body(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            params, state = carry
            updates, state = tx.update(gradient(form, params), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, CHUNK, body, (params, state))


def gradient(form: StandardForm, params: dict[str, Array]) -> dict[str, Array]:
    """The loss's gradient in {coef, intercept}."""
    v = form.loss.gradient(form.eta(params["coef"], params["intercept"]), form.y, form.s)
    slope = jnp.sum(v, axis=0)
    return {"coef": form.design.tdot(v), "intercept": slope if form.intercept else jnp.zeros_like(slope)}


@dataclasses.dataclass(frozen=True)
class Fista(_GradientEngine):
    """Accelerated proximal gradient with adaptive restart: `l1jax.fista` at a step of 1/L.

    L bounds the loss's curvature times the largest eigenvalue of X'SX, by power iteration; the transformation
    shortens the step if that was too little.
    """

    def prepare(self, form: StandardForm) -> Array:
        """The gradient's Lipschitz constant."""
        bound = form.loss.smoothness
        curved = form.s if bound is None else jnp.asarray(bound, form.s.dtype) * form.s
        if bound is None:
            curved = form.loss.curvature(form.offset, form.y, form.s)
            curved = jnp.max(curved.reshape(*form.s.shape, -1), axis=1)

        def body(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            x, _ = carry
            x = x / jnp.linalg.norm(x)
            y = form.design.tdot(curved * form.design.dot(x))
            return y, jnp.linalg.norm(y)

        p = form.shape[1]
        # A fixed start: no column is orthogonal to it, and the answer does not depend on chance.
        start = 1 + jax.random.uniform(jax.random.key(0), (p,), form.y.dtype)
        start = start + 0 * form.design.norm
        _, largest = jax.lax.fori_loop(0, 30, body, (start, 0 * form.null_objective))
        largest = jnp.maximum(largest, jnp.max(form.design.squares(curved)))
        return 1.02 * jnp.maximum(largest, jnp.sum(curved) if form.intercept else 0.0)

    def transformation(self, work: Array, penalty: Penalty) -> optax.GradientTransformation:
        return fista(1 / jnp.where(work > 0, work, 1.0), penalty)


@dataclasses.dataclass(frozen=True)
class Transformation(_GradientEngine):
    """A transformation of the caller's: `make(penalty)` gives it, with the learning rates that the caller chose."""

    make: Callable[[Penalty], optax.GradientTransformation]

    def prepare(self, form: StandardForm) -> None:
        return None

    def transformation(self, work: None, penalty: Penalty) -> optax.GradientTransformation:
        return self.make(penalty)


@dataclasses.dataclass(frozen=True)
class Direction(_GradientEngine):
    """A plain direction of the caller's (`optax.scale_by_adam()`), wrapped in `proximal`.

    It owns the learning rate: the first step is at most 1/L for every entry; a chunk of steps that raises the
    objective is taken back and the rate halved, any other raises the rate a little.
    """

    direction: optax.GradientTransformation

    def prepare(self, form: StandardForm) -> Array:
        return Fista().prepare(form)

    def init(self, form: StandardForm, work: Array, penalty: Any, z: Array, b: Array) -> Any:
        params = {"coef": z, "intercept": b}
        largest = jnp.ones((), z.dtype)
        if isinstance(self._metric(params), AdamMetric):  # its first step is the rate itself, whatever the gradient
            grads = gradient(form, params)
            largest = jnp.maximum(jnp.max(jnp.abs(grads["coef"])), jnp.max(jnp.abs(grads["intercept"])))
        rate = jnp.where(largest > 0, largest, 1.0) / jnp.where(work > 0, work, 1.0)
        tx = self.transformation(rate, OnCoef(penalty))
        return params, tx.init(params), rate, self._objective(form, penalty, params)

    def advance(self, form: StandardForm, work: Array, penalty: Any, state: Any) -> tuple[Any, Array]:
        params, inner, rate, objective = state
        tx = self.transformation(rate, OnCoef(penalty))
        new, new_inner = self._run(tx, form, params, inner)
        reached = self._objective(form, penalty, new)
        better = reached <= objective * (1 + 4 * eps(reached.dtype))
        # Memory is kept when a chunk is taken back: it has turned towards the gradient. Not if it blew up.
        memory = jax.tree.map(lambda a, new: jnp.where(jnp.isfinite(reached), a, new), new_inner, tx.init(params))
        ahead, back = (new, new_inner, rate * 1.1, reached), (params, memory, rate / 2, objective)
        kept = jax.tree.map(lambda a, old: jnp.where(better, a, old), ahead, back)
        return kept, jnp.asarray(CHUNK, jnp.int32)

    def transformation(self, work: Array, penalty: Penalty) -> optax.GradientTransformation:
        """`proximal` around the direction, at a learning rate of `work`."""
        metric = self._metric({"coef": jnp.zeros(1), "intercept": jnp.zeros(())})
        return proximal(self.direction, penalty, work, metric=metric)

    def _metric(self, params: Any) -> Metric:
        state = jax.eval_shape(self.direction.init, params)
        if isinstance(state, optax.TraceState):
            raise ValueError(
                "solver: the decay of optax.trace is not in its state; pass optax.ema(decay), or lambda penalty: "
                "l1jax.proximal(optax.trace(decay), penalty, learning_rate, metric=l1jax.TraceMetric(decay))"
            )
        return AdamMetric() if isinstance(state, optax.ScaleByAdamState) else Euclidean()

    def _objective(self, form: StandardForm, penalty: Any, params: Any) -> Array:
        eta = form.eta(params["coef"], params["intercept"])
        return form.loss.value(eta, form.y, form.s) + penalty.value(params["coef"])


def from_transformation(solver: Any) -> Engine:
    """The engine for a solver given as an optax transformation, or as a function from a penalty to one."""
    if isinstance(solver, optax.GradientTransformation):
        params = {"coef": jnp.zeros(1), "intercept": jnp.zeros(())}
        if carries_penalty(jax.eval_shape(solver.init, params)):
            raise ValueError(
                "solver: this transformation holds a penalty of its own, and the problem has one too; pass a function "
                "of the penalty instead, such as solver=lambda penalty: l1jax.fista(0.1, penalty)"
            )
        return Direction(solver)
    return Transformation(solver)
