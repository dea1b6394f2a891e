"""What the modules share about arrays: floating dtypes, concreteness, plain conversions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

LARGEST = float(np.finfo(np.float64).max)
ALIGNED = 64  # bytes: an array that begins at a multiple of it is shared with JAX on CPUs, not copied
ABOVE_0 = float(np.finfo(np.float64).smallest_subnormal)


def floating(x: ArrayLike) -> Array:
    """`x` as an array of a floating dtype; integers and booleans take JAX's default one."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"complex arrays have no proximal maps here: got {x.dtype}, want a real dtype")
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def as_dtype(x: ArrayLike, dtype: DTypeLike) -> Array:
    """`x` as an array of `dtype`; an array that is one stays itself: a traced one would cost an operation."""
    if isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type:
        return x
    return jnp.asarray(x, dtype)


@jax.custom_jvp
def unsigned_zero(x: Array) -> Array:
    """`x` with 0.0 for -0.0; its derivative is that of `x`."""
    return jnp.where(x == 0, jnp.zeros_like(x), x)


@unsigned_zero.defjvp
def _unsigned_zero_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return unsigned_zero(*primals), tangents[0]


def compute_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype in which to compute with data of `dtype`: itself, but float32 for half precision."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype.itemsize < 4 else dtype


def eps(dtype: DTypeLike) -> float:
    """The spacing of 1.0 in `dtype`, as a number."""
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def numeric_leaf(leaf: Any) -> bool:
    """Whether a leaf of a model's tree is a floating array (traced or not), and no function, key or counter."""
    return jnp.issubdtype(getattr(leaf, "dtype", np.dtype(object)), jnp.inexact)


def aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Any:
    """A NumPy array that JAX takes as it is."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + ALIGNED, np.uint8)
    start = -memory.ctypes.data % ALIGNED
    return memory[start : start + size].view(dtype).reshape(shape)


def concrete(*trees: Any) -> bool:
    """Whether no leaf of `trees` is traced, so that its values may be looked at."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def hyperparameter(x: Any, name: str) -> Any:
    """A leaf as a penalty or loss keeps it: Python numbers as floats, all else as a floating array.

    Tracers and placeholders of JAX's own (axis numbers, None) pass: constructors may run under a trace.
    """
    if isinstance(x, bool | str):
        raise TypeError(f"{name}: want a number or an array of numbers, got {x!r}")
    if isinstance(x, (int, float)):
        return float(x)
    if x is None or isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct):
        return x
    try:
        return floating(x if isinstance(x, jax.Array) else np.asarray(x))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: want a number or an array of numbers, got {x!r}") from error


def set_hyperparameter(node: Any, name: str, low: float, high: float, wanted: str) -> None:
    """Convert the leaf `name` of a new node, and refuse values outside [low, high] where they can be seen."""
    leaf = hyperparameter(getattr(node, name), name)
    object.__setattr__(node, name, leaf)
    if leaf is None or not concrete(leaf) or isinstance(leaf, jax.ShapeDtypeStruct):
        return
    values = np.asarray(leaf).astype(np.float64)  # not in the leaf's dtype, in which `high` may overflow
    if not np.all((values >= low) & (values <= high)):
        raise ValueError(f"{name}: want {wanted}, got {leaf}")


def along(a: Array, like: Array) -> Array:
    """`a` with axes of length 1 appended, so that it meets the leading axes of `like`."""
    return a.reshape(a.shape + (1,) * (like.ndim - a.ndim))


def largest(dtype: DTypeLike) -> float:
    """The largest finite number of `dtype`."""
    return float(jnp.finfo(dtype).max)  # type: ignore[no-untyped-call]


def smallest(dtype: DTypeLike) -> float:
    """The smallest positive number of `dtype` that has all its digits."""
    return float(jnp.finfo(dtype).tiny)  # type: ignore[no-untyped-call]


def cast(tree: Any, dtype: DTypeLike) -> Any:
    """The same numbers in a dtype, where they are floating."""
    return jax.tree.map(lambda a: as_dtype(a, dtype) if numeric_leaf(a) else a, tree)


def rounded(z: Any, scale: Any, dtype: DTypeLike) -> Any:
    """z where z/scale are numbers of a dtype."""
    return z if z.dtype == dtype else (z / scale).astype(dtype).astype(z.dtype) * scale
