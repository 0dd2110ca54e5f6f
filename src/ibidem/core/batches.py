"""Batches: a function of the user's that answers many calls at once, and what it must answer."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ibidem.core.faults import Fault
from ibidem.core.identity import is_async

MAX_SIZE = 100
"""Calls that go into one batch unless `Batch(max_size=...)` says otherwise."""


class BrokenBatch(TypeError):  # noqa: N818  # as CircuitOpen
    """A batch function did not answer as it must."""


class ItemsFailed(Exception):  # noqa: N818  # it carries a failure, and is none of its own
    """Carries the fault of an item of a batch that was answered, to where failures of the whole request are judged."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.kind)
        self.fault = fault


@dataclass(frozen=True)
class Batch:
    """Answers many calls of a tool with one.

    Args:
        function: Takes a list, one item for each call: a dict of its arguments, or with `arg=` the value of that argument.
            Sync or async. It answers a list in that order, or a dict by that value; an item may be an exception, which is the
            failure of that call alone.
        arg: The name of the one argument that the function is given; the tool must be called with nothing else.
        max_size: Calls that it is given at most.

    Raises:
        TypeError: No function, or the name of no argument.
        ValueError: A size below 1.
    """

    function: Callable[[list[Any]], Any]
    arg: str | None = None
    max_size: int = MAX_SIZE

    def __post_init__(self) -> None:
        if not callable(self.function) or isinstance(self.function, type):
            raise TypeError(f"batch={self.function!r} is no function: give one that takes a list, or ibidem.Batch(...)")
        if self.arg is not None and (not isinstance(self.arg, str) or not self.arg):
            raise TypeError(f"Batch(arg={self.arg!r}) names no argument")
        if not isinstance(self.max_size, int) or isinstance(self.max_size, bool) or self.max_size < 1:
            raise ValueError(f"Batch(max_size={self.max_size!r}) makes no sense: give a whole number from 1")

    def __repr__(self) -> str:
        shown = [self.name]
        shown += [f"arg={self.arg!r}"] if self.arg is not None else []
        shown += [f"max_size={self.max_size}"] if self.max_size != MAX_SIZE else []
        return f"Batch({', '.join(shown)})"

    @classmethod
    def of(cls, given: Any) -> Batch | None:
        """Read what an effect was given as `batch=`."""
        return given if given is None or isinstance(given, Batch) else cls(given)

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", None) or type(self.function).__name__)

    @functools.cached_property
    def awaits(self) -> bool:
        """Whether the function is asynchronous."""
        return is_async(self.function)

    def takes(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call can go into a batch: with `arg=`, whatever else it says would be lost."""
        return self.arg is None or arguments.keys() == {self.arg}

    def given(self, calls: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Give what the function takes for some calls."""
        return [dict(call) if self.arg is None else call[self.arg] for call in calls]

    def read(self, answer: Any, calls: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
        """Give what the function answered for each call: a value, or an exception, also where it did not answer."""
        if isinstance(answer, Mapping):
            keys = self._keys(calls)
            if keys is None:
                broken = self._broken(f"answered a dict for {len(calls)} calls of several arguments each")
                yield from (broken for _ in calls)
                return
            counts: Counter[Any] = Counter()
            for key in keys:
                with contextlib.suppress(TypeError):  # no key of a dict: it is left out
                    counts[key] += 1
            for key in keys:
                try:
                    value = answer[key]
                    if counts[key] > 1:
                        value = self._broken("answered a dict for calls that are one key in it, as 1 and True are")
                    yield value
                except (KeyError, TypeError):
                    yield self._broken(f"left out a call in its dict of {len(answer)}")
        elif isinstance(answer, (list, tuple)) and len(answer) == len(calls):
            yield from answer
        else:
            said = f"{len(answer)} results" if isinstance(answer, (list, tuple)) else f"a {type(answer).__name__}"
            yield from (self._broken(f"answered {said} for {len(calls)} calls") for _ in calls)

    def _keys(self, calls: Sequence[Mapping[str, Any]]) -> list[Any] | None:
        """Give what each call is found by in a dict; None: a call is more than one value."""
        if self.arg is not None:
            return [call[self.arg] for call in calls]
        return [next(iter(call.values())) for call in calls] if all(len(call) == 1 for call in calls) else None

    def _broken(self, what: str) -> BrokenBatch:
        by = "its argument" if self.arg is None else self.arg
        return BrokenBatch(
            f"the batch function {self.name} {what}: it must answer a list in the order of the calls, or a dict by {by}"
        )
