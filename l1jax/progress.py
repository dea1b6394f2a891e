"""How far a long run has come, shown by tqdm where it is asked for."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(shown: bool, total: int, unit: str, name: str) -> Iterator[Callable[..., None]]:
    """A progress bar, as a function of how many units were done, and of what tells more of them, if it is shown."""
    if not shown:
        yield lambda done, told=None: None
        return
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
    with tqdm(total=total, unit=unit, desc=name) as bar:

        def advance(done: int, told: Callable[[], dict[str, object]] | None = None) -> None:
            if told is not None:
                bar.set_postfix(told(), refresh=False)
            bar.update(done)

        yield advance
