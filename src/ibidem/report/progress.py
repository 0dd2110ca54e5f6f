"""Progress: a bar for what takes long, where a person looks."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds after which a bar appears: what ends sooner needs none."""


def track(
    items: Iterable[T], total: int | None, what: str, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[T]:
    """Give the items one by one, and show how far that is: in a notebook or a terminal, with `tqdm`, after a second.

    Args:
        items: What is gone through.
        total: How many there are; None: that is not known.
        what: What is being done, a few words.
        clock: A monotonic clock in seconds.
    """
    if not _somebody_looks():
        yield from items
        return
    begun, bar, done = clock(), None, 0
    try:
        for item in items:
            if bar is None and clock() - begun >= PATIENCE:
                begun = float("inf")  # asked once: without tqdm there is no bar however long it takes
                bar = _bar(done, total, what)
            yield item
            done += 1
            if bar is not None:
                bar.update(1)
    finally:
        if bar is not None:
            bar.close()


def _somebody_looks() -> bool:
    """Whether standard error is a terminal, or we are in a notebook, told without importing IPython."""
    with contextlib.suppress(Exception):  # there may be no standard error, or a stranger's
        if sys.stderr.isatty():
            return True
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and hasattr(get_ipython(), "kernel")


def _bar(done: int, total: int | None, what: str) -> Any:
    """Make a bar that begins where we are and vanishes at the end; None without tqdm.

    Not `tqdm.auto`: its widgets stay in a notebook that is saved, and it warns where they are not installed.
    """
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        return None
    return tqdm(total=total, desc=what, initial=done, leave=False, file=sys.stderr)
