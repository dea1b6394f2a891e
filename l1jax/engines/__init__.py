"""Engines: one algorithm a file. `by_name` lists those that `solve` knows by a name."""

from l1jax.engines.active import ActiveSet as ActiveSet
from l1jax.engines.base import Engine as Engine
from l1jax.engines.coordinate import CoordinateDescent as CoordinateDescent
from l1jax.engines.gradient import (
    Direction as Direction,
    Fista as Fista,
    Transformation as Transformation,
    from_transformation as from_transformation,
)
from l1jax.engines.newton import ProximalNewton as ProximalNewton
from l1jax.engines.semismooth import SemismoothNewton as SemismoothNewton

by_name: dict[str, Engine] = {
    "cd": CoordinateDescent(),
    "newton": ProximalNewton(),
    "ssn": SemismoothNewton(),
    "fista": Fista(),
}
