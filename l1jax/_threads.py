"""How many threads NumPy's products take."""

import contextlib
import functools
from collections.abc import Iterator
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


@functools.cache
def _blas() -> Any:
    """What sets its threads; None where that is not installed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")
