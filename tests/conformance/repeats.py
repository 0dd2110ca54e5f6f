"""Asks again for whatever was just remembered, so that a test sees answers from the memo instead of first ones.

Upstream's tests hardly repeat a call; without this the way of a hit would be compared with next to nothing. The second
call is made without callbacks, so that a test that counts what its handler hears hears of one call.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

from langchain_core.messages import ToolMessage

inside: ContextVar[bool] = ContextVar("inside", default=False)
"""Whether a call that is asked for twice is being made: what it calls in turn is asked for once."""


class Repeats:
    """Makes methods that ask twice."""

    def __init__(self, guard: Callable[[], Any]) -> None:
        self.guard = guard
        """Returns the guard of the running test."""
        self.answers = 0
        """How many of the repeats were answered from the memo."""
        self._classes: set[type] = set()
        self._numbers = itertools.count()

    def twice(self, call: Callable[[], Any], again: Callable[[], Any]) -> Any:
        """Make a call; if its result was remembered, make it *again* and answer that."""
        with self.alone() as remembers:
            answer = call()
            if remembers():
                with self.counted():
                    answer = bared(again())
            return answer

    async def atwice(self, call: Callable[[], Awaitable[Any]], again: Callable[[], Awaitable[Any]]) -> Any:
        """Do what `twice` does, for a coroutine function."""
        with self.alone() as remembers:
            answer = await call()
            if remembers():
                with self.counted():
                    answer = bared(await again())
            return answer

    @contextlib.contextmanager
    def alone(self) -> Iterator[Callable[[], bool]]:
        """Give a call and its repeat a conversation of their own, so that they meet nothing else of the test."""
        name, guard, token = f"repeat {next(self._numbers)}", self.guard(), inside.set(True)
        try:
            with guard.conversation(name):
                yield lambda: any(entry.conversation == name for entry in guard.entries())
        finally:
            inside.reset(token)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count the answers that come from the memo meanwhile."""
        stats = self.guard().stats
        before = stats().memo
        yield
        self.answers += stats().memo - before

    def patch(self, cls: type) -> None:
        """Let the tools of a wrapped class ask twice, once it is known."""
        if cls in self._classes:
            return
        self._classes.add(cls)
        for name in ("invoke", "ainvoke"):
            setattr(cls, name, self._asking(getattr(cls, name), unheard_config))
        for name in ("run", "arun"):
            setattr(cls, name, self._asking(getattr(cls, name), unheard))

    def _asking(self, original: Any, quietly: Callable[..., Any]) -> Any:
        def calls(*args: Any, **kwargs: Any) -> Any:
            return functools.partial(original, *args, **kwargs), functools.partial(quietly, original, *args, **kwargs)

        @functools.wraps(original)
        def method(tool: Any, *args: Any, **kwargs: Any) -> Any:
            return original(tool, *args, **kwargs) if inside.get() else self.twice(*calls(tool, *args, **kwargs))

        @functools.wraps(original)
        async def amethod(tool: Any, *args: Any, **kwargs: Any) -> Any:
            if inside.get():
                return await original(tool, *args, **kwargs)
            return await self.atwice(*calls(tool, *args, **kwargs))

        return amethod if inspect.iscoroutinefunction(original) else method


def bared(answer: Any) -> Any:
    """Take off the one thing by which an answer from the memo may differ from a first one."""
    if isinstance(answer, ToolMessage):
        answer.response_metadata.pop("ibidem", None)
    return answer


def unheard_config(invoke: Callable[..., Any], tool: Any, given: Any, config: Any = None, **kwargs: Any) -> Any:
    """Invoke a tool without callbacks."""
    return invoke(tool, given, {**(config or {}), "callbacks": []}, **kwargs)


def unheard(run: Callable[..., Any], tool: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a tool without callbacks."""
    return run(tool, *args, **{**kwargs, "callbacks": None})
