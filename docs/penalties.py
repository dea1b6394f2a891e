"""Write docs/penalties.md: what is known of each penalty, asked of the penalties themselves.

python docs/penalties.py
"""

import sys
from pathlib import Path

import jax.numpy as jnp

import l1jax
from l1jax.engines import ActiveSet, by_name

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import registry  # noqa: E402  (the tests' list of penalties)

HEAD = """# Penalties

Made by `python docs/penalties.py` from the tests' registry. Value and proximal map: every one, exact, batched and
differentiated. Certificate: "gap" is a duality gap, "residual" the violation of the optimality conditions.
lambda_max: where there is a smallest strength at which 0 is optimal (or stationary). Engines: "active" takes
second-order steps on the support, driven from the host (CPUs); "cd" is coordinate descent and "newton" proximal Newton
around it, also under tracing; "ssn" is semismooth Newton, of matrix products and factorisations alone, the form for GPU
and TPU; "fista" is proximal gradient. Derivatives: of solutions, by the implicit function theorem. `NuclearNorm` acts
on matrices, coefficients (p, k) of k outputs; `UnitLasso` on the `Units` of a network, in training only.

"""


def facts(penalty: l1jax.Penalty, like: jnp.ndarray) -> list[str]:
    """One row of the table."""
    loss = l1jax.MultiSquared() if like.ndim == 2 else l1jax.Squared()
    start = penalty.with_lam(1.0).critical_lam(jnp.arange(1.0, like.size + 1).reshape(like.shape))
    every = {"active": ActiveSet(by_name["fista"]), **by_name}
    engines = [name for name, engine in every.items() if not engine.refuses(loss, penalty)]
    return [
        "no" if jnp.isnan(penalty.conjugate(0 * like)) else "yes",
        "gap" if penalty.certified else "residual",
        "yes" if 0 < float(start) < float("inf") else "no",
        ", ".join(engines),
        "yes",
    ]


def table() -> str:
    """The whole page."""
    found: dict[str, list[str]] = {}
    cases = {**registry.PENALTIES, **registry.NONCONVEX, **registry.JOINT}
    sizes = {id(case): registry.Q if name in registry.JOINT else registry.P for name, case in cases.items()}
    for case in cases.values():
        name = type(case.penalty).__name__
        if name not in found:
            found[name] = facts(case.penalty, jnp.ones(sizes[id(case)]))
    for penalty, *_ in registry.MATRICES.values():
        found[type(penalty).__name__] = facts(penalty, jnp.ones((3, 2)))
    columns = ["penalty", "conjugate", "certificate", "lambda_max", "engines", "derivatives"]
    lines = [" | ".join(row) for row in [columns, ["---"] * 6, *([f"`{k}`", *v] for k, v in found.items())]]
    return HEAD + "\n".join(f"| {line} |" for line in lines) + "\n"


if __name__ == "__main__":
    (HERE / "penalties.md").write_text(table())
