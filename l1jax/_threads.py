"""How many threads work in NumPy takes."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within, one thread for the BLAS that NumPy uses, where threadpoolctl is installed.

    Steps of active sets are many small products. Threads that share these wait for each other, which gains little, and
    costs ten times the run where other work keeps the cores busy.
    """
    blas = _blas()
    with contextlib.nullcontext() if blas is None else blas.limit(limits=1):
        yield


def threads_are_set() -> bool:
    """Whether `one_thread` does what it says."""
    return _blas() is not None


@functools.cache
def _blas() -> Any:
    """What sets its threads; None where that is not installed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def in_parts(task: Callable[[slice], None], count: int, size: int) -> None:
    """task(slice) for all of range(count), `size` at a time; on every core, as NumPy's long calls run side by side."""
    parts = [slice(i, min(i + size, count)) for i in range(0, count, size)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(task, parts))
