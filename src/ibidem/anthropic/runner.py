"""The SDK's own loop (`client.beta.messages.tool_runner`): all calls of a message at once instead of one after another.

The twin of a runner stays what it is, and does what it did; only that, before it goes through the calls of a message one by
one, they have all been made, in the order that they need, and each tool answers with what came of it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from anthropic.lib.tools import _beta_runner as sdk

from ibidem.anthropic import twin
from ibidem.anthropic.blocks import of, uses
from ibidem.anthropic.planning import Desk
from ibidem.anthropic.turns import Planned, arun_all, run_all
from ibidem.bound import Bound
from ibidem.core.call import Outcome
from ibidem.core.effects import Effect
from ibidem.functions import another_guard
from ibidem.guard import Guard
from ibidem.wrapping import binding_of

T = TypeVar("T")


def runner(tool_runner: T, guard: Guard | Bound) -> T:
    """Let the calls that a runner makes pass a guard: those of one message at the same time, as far as they may.

    Args:
        tool_runner: Of `client.beta.messages.tool_runner(...)`, sync or async, streaming or not; not iterated yet.
        guard: What the calls pass; `guard.bind(conversation=...)` says whose they are.

    Returns:
        A runner of the same type; iterate it instead of the one that was given.

    Raises:
        TypeError: It is no runner, or one of an SDK whose runner has another shape.
        ValueError: It was iterated already, or passes another guard.
    """
    if not isinstance(tool_runner, sdk.BaseToolRunner):
        raise TypeError(f"{tool_runner!r} is no runner: give client.beta.messages.tool_runner(...)")
    guarded: T = _guarded(tool_runner, guard.here())
    return guarded


def adapt(target: Any, bound: Bound, effect: Effect | None = None) -> Any:
    """Wrap what comes from the SDK: a tool, or a runner."""
    return _guarded(target, bound) if isinstance(target, sdk.BaseToolRunner) else twin.adapt(target, bound, effect)


def _guarded(plain: Any, bound: Bound) -> Any:
    already = binding_of(plain)
    if already is not None:
        if already.guard is not bound.guard:
            raise another_guard(plain)
        if already.given == bound.given:
            return plain
    if bound.guard.off:
        return plain
    if plain._iteration_count or plain._last_message is not None:
        raise ValueError("this runner was iterated already: wrap it before that")
    guarded = copy.copy(plain)
    guarded.__class__ = _guarded_class(plain.__class__)
    guarded.__dict__["__ibidem__"] = bound
    guarded._ibidem_done = None, {}
    if not hasattr(plain, "_runnable_tools"):  # before the SDK has threads of messages, a dictionary holds the tools
        if not isinstance(getattr(plain, "_tools_by_name", None), dict):
            raise TypeError("the runner of this version of the SDK is not known to ibidem")
        guarded._tools_by_name = {name: twin.adapt(tool, bound) for name, tool in plain._tools_by_name.items()}
    guarded._iterator = guarded.__run__()  # that of the original goes on with the original
    Desk(_tools(guarded), bound, awaits=True).reviewed()
    return guarded


@functools.lru_cache(maxsize=64)
def _guarded_class(cls: type[Any]) -> type[Any]:
    """Make the class of a guarded runner: the SDK's, with one method that first makes all calls of a message."""
    base: Any = cls.__mro__[1] if hasattr(cls, "_is_guarded") else cls

    def _runnable_tools(self: Any) -> dict[str, Any]:
        return {name: twin.adapt(tool, self.__ibidem__) for name, tool in base._runnable_tools(self).items()}

    def generate_tool_call_response(self: Any) -> Any:
        if self._cached_tool_call_response is None:
            message = self._get_last_message()
            if _is_cut_off(message):
                return None
            blocks, calls = _planned(self, message, awaits=False)
            _note(self, blocks, run_all(self.__ibidem__, calls))
            with _ahead(self, message):
                return base.generate_tool_call_response(self)
        return base.generate_tool_call_response(self)

    async def agenerate_tool_call_response(self: Any) -> Any:
        if self._cached_tool_call_response is None:
            message = await self._get_last_message()
            if _is_cut_off(message):
                return None
            blocks, calls = _planned(self, message, awaits=True)
            _note(self, blocks, await arun_all(self.__ibidem__, calls))
            with _ahead(self, message):
                return await base.generate_tool_call_response(self)
        return await base.generate_tool_call_response(self)

    awaits = inspect.iscoroutinefunction(base.generate_tool_call_response)
    body: dict[str, Any] = {
        "generate_tool_call_response": functools.wraps(base.generate_tool_call_response)(
            agenerate_tool_call_response if awaits else generate_tool_call_response
        ),
        "_is_guarded": True,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
    }
    if hasattr(base, "_runnable_tools"):
        body["_runnable_tools"] = _runnable_tools
    return type(base.__name__, (base,), body)


def _is_cut_off(message: Any) -> bool:
    """Whether a message asks for calls that must not be made: its last one may be half of what the model meant."""
    content = of(message, "content") or ()
    return of(message, "stop_reason") != "tool_use" and any(of(block, "type") == "tool_use" for block in content)


def _planned(runner: Any, message: Any, *, awaits: bool) -> tuple[list[Any], list[Planned]]:
    """Plan the calls of a message that are still to be made.

    A runner may have made some while the message streamed, and goes through a message again whose answer was changed: no
    call is made twice.
    """
    if runner._ibidem_done[0] is not message:
        runner._ibidem_done = message, {}
    tools = _tools(runner)
    names = runner._available_tool_names() if hasattr(runner, "_available_tool_names") else tools
    made = {*runner._ibidem_done[1], *getattr(getattr(runner, "_eager_tool_calls", None), "results", ())}
    desk = Desk({name: tool for name, tool in tools.items() if name in names}, runner.__ibidem__, awaits=awaits)
    blocks = [block for block in uses(message) if block.id not in made]
    planned = [(block, desk.plan(block, block.input, of(message, "id"))) for block in blocks]
    ours = [(block, call) for block, call in planned if call is not None and call.guarded and call.refused is None]
    return [block for block, _ in ours], [call for _, call in ours]


def _tools(runner: Any) -> dict[str, Any]:
    found: dict[str, Any] = runner._runnable_tools() if hasattr(runner, "_runnable_tools") else runner._tools_by_name
    return found


def _note(runner: Any, blocks: Sequence[Any], outcomes: Sequence[Outcome]) -> None:
    runner._ibidem_done[1].update(zip((block.id for block in blocks), outcomes, strict=True))


@contextlib.contextmanager
def _ahead(runner: Any, message: Any) -> Iterator[None]:
    """Let the tools called here answer with what came of the calls of a message, each once, in their order."""
    done: dict[str, Outcome] = runner._ibidem_done[1]
    found: dict[tuple[str, str], deque[Outcome]] = {}
    for block in uses(message):
        if block.id in done:
            found.setdefault(_key(block.name, block.input), deque()).append(done[block.id])

    def look(tool: Any, arguments: Mapping[str, Any]) -> Outcome | None:
        left = found.get(_key(tool.name, arguments))
        return left.popleft() if left else None

    token = twin.ahead.set(look)
    try:
        yield
    finally:
        twin.ahead.reset(token)


def _key(name: str, arguments: Any) -> tuple[str, str]:
    return name, json.dumps(arguments, sort_keys=True, default=repr)
