"""How many threads work in NumPy takes."""

import contextlib
import contextvars
import functools
import operator
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

MANY = 8_000_000  # multiplications, for each core that shares them: asking it takes time, too
CORES = os.cpu_count() or 1
PARTS = 2  # of a product, for each core: one that is late takes fewer

_limited = contextvars.ContextVar("whether BLAS has one thread", default=False)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within, one thread for the BLAS that NumPy uses, where threadpoolctl is installed.

    Steps of active sets are many small products. Threads that share these wait for each other, which gains little, and
    costs ten times the run where other work keeps the cores busy.
    """
    blas = _blas()
    if blas is None:
        yield
        return
    outside = _limited.set(True)
    try:
        with blas.limit(limits=1):
            yield
    finally:
        _limited.reset(outside)


@functools.cache
def _blas() -> Any:
    """What sets its threads; None where that is not installed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    import scipy.linalg  # noqa: F401  # so that its BLAS is there to be seen

    return ThreadpoolController().select(user_api="blas")


def in_parts(task: Callable[[slice], None], count: int, size: int) -> None:
    """task(slice) for all of range(count), `size` at a time, on every core: NumPy's long calls run side by side.

    This thread never waits for another to begin: where cores are busy it does all parts itself.
    """
    starts = iter(range(0, count, size))

    def work() -> None:
        for start in starts:
            task(slice(start, min(start + size, count)))

    helpers = min(CORES, -(-count // size)) - 1
    # How NumPy treats errors is a matter of the context.
    begun = [_helpers().submit(contextvars.copy_context().run, work) for _ in range(helpers)]
    try:
        work()
    finally:
        for helper in begun:
            if not helper.cancel():
                helper.result()


@functools.cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES)


def cores(multiplications: int) -> int:
    """How many cores so much work is worth: one beside threads of BLAS, and in threads that have others beside them."""
    if multiplications < MANY or not _limited.get() or threading.current_thread() is not threading.main_thread():
        return 1
    return min(CORES, 1 + multiplications // MANY)


def product(A: Any, B: Any) -> Any:
    """A B, some rows of A at a time."""
    count = cores(A.size * B.shape[1])
    if count == 1:
        return A @ B
    out = np.empty((len(A), B.shape[1]), A.dtype)

    def part(at: slice) -> None:
        np.matmul(A[at], B, out=out[at])

    in_parts(part, len(A), -(-len(A) // (PARTS * count)))
    return out


def square(A: Any) -> Any:
    """A A', some columns of A at a time; NumPy sees the symmetry, and does half of the work."""
    count, length = cores(A.size * len(A) // 2), A.shape[1]
    if count == 1:
        return A @ A.T
    size = -(-length // count)
    sums: list[Any] = [0.0] * -(-length // size)

    def part(at: slice) -> None:
        sums[at.start // size] = A[:, at] @ A[:, at].T

    in_parts(part, length, size)
    return functools.reduce(operator.iadd, sums)
