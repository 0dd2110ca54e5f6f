"""Failures of tools: when a model is told of one by a message, and when it is raised.

An explicit handler of the framework's wins, wherever it stands: a tool's own `handle_tool_error` sees the exception before
this module does; a node's `handle_tool_errors` is looked for.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from types import FrameType
from typing import Any

from langchain_core.messages import ToolMessage

from ibidem.core import telling
from ibidem.core.call import Outcome, Tool, current
from ibidem.core.classify import fault_of
from ibidem.core.faults import Fault, is_control_flow
from ibidem.core.hazards import After
from ibidem.guard import Guard


class Telling:
    """One call of a tool of which somebody above will tell the model if it fails."""

    __slots__ = ("after", "fault", "misfit", "misused", "parent", "tool")

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.parent = current.get()
        """The call in whose body it is made. What the tool's own body calls is another call."""
        self.after: tuple[After, ...] = ()
        """The calls of its turn that it came after."""
        self.fault: Fault | None = None
        """What the guard knows of the failure, which the exception alone does not say."""
        self.misfit: Exception | None = None
        """Why its arguments do not fit the tool, which a node puts into words of its own."""
        self.misused = False
        """Whether the program called the tool as it cannot be called: a mistake, of which no model is told."""


_telling: ContextVar[Telling | None] = ContextVar("ibidem_telling", default=None)
"""Set around a call by whoever decides what becomes of its failure."""


@contextlib.contextmanager
def deciding(tool: Tool) -> Iterator[Telling]:
    """Say that what becomes of a failure of the tool called here is decided out here."""
    holder = Telling(tool)
    token = _telling.set(holder)
    try:
        yield holder
    finally:
        _telling.reset(token)


def is_decided(tool: Tool) -> bool:
    """Whether somebody above decides what becomes of a failure of this call."""
    holder = _telling.get()
    return holder is not None and holder.tool is tool and holder.parent is current.get()


def note_fault(tool: Tool, outcome: Outcome) -> None:
    """Hand what the guard knows of a failure to whoever tells of it."""
    holder = _telling.get()
    if outcome.fault is not None and holder is not None and is_decided(tool):
        holder.fault, holder.after = outcome.fault, outcome.after


def note_misfit(tool: Tool, problem: Exception) -> None:
    """Hand why arguments do not fit to whoever tells of failures: a node in between answers, and raises nothing."""
    holder = _telling.get()
    if holder is not None and is_decided(tool):
        holder.misfit = problem


def note_misuse(tool: Tool) -> None:
    """Say that the program made a mistake in calling a tool: it is raised, whoever tells of failures."""
    holder = _telling.get()
    if holder is not None and is_decided(tool):
        holder.misused = True


def message_for(guard: Guard, holder: Telling, call: Mapping[str, Any], problem: Exception) -> ToolMessage | None:
    """Make the message that tells the model of a failure; None if it is none of the tool's, and must be raised.

    Args:
        guard: What the call passed, or was to pass.
        holder: That of the call.
        call: Its `name` and `id`.
        problem: What was raised.
    """
    if is_control_flow(problem) or holder.misused:
        return None
    fault = holder.fault
    if fault is None or not _stands_for(problem, fault.exception):
        fault = fault_of(problem, holder.tool.policies.faults)
    telling.log(holder.tool.name, fault)
    said: dict[str, Any] = {"how": "failed", "kind": fault.kind, "attempts": fault.attempts}
    if holder.after:
        said["after"] = [str(each) for each in holder.after]
    return ToolMessage(
        content=telling.told(fault, guard.errors),
        name=call["name"],
        tool_call_id=call["id"],
        status="error",
        response_metadata={"ibidem": said},
    )


def unmade(binding: Any, call: Mapping[str, Any], fault: Fault) -> ToolMessage:
    """Make the message of a call that is not made.

    Raises:
        Exception: That of the fault, where the model is told of no failures.
    """
    holder = Telling(binding.tool)
    holder.fault = fault
    message = message_for(binding.guard, holder, call, fault.exception) if binding.speaks else None
    if message is None:
        raise fault.exception
    return message


def _stands_for(problem: Exception, original: Exception) -> bool:
    """Whether an exception is what was raised below: asyncio makes a new one of a timeout, and a node of bad arguments."""
    return getattr(problem, "source", problem) is original or type(problem) is type(original)


def answered(guard: Guard, tool: Tool, call: Mapping[str, Any], go: Callable[[], Any]) -> Any:
    """Call a tool as a model asked for it; a failure becomes a message, unless a node above handles it."""
    with deciding(tool) as holder:
        try:
            return go()
        except Exception as problem:
            message = None if _handled_above() else message_for(guard, holder, call, problem)
            if message is None:
                raise
            return message


async def aanswered(guard: Guard, tool: Tool, call: Mapping[str, Any], go: Callable[[], Awaitable[Any]]) -> Any:
    """Do the same on an event loop."""
    with deciding(tool) as holder:
        try:
            return await go()
        except Exception as problem:
            message = None if _handled_above() else message_for(guard, holder, call, problem)
            if message is None:
                raise
            return message


def is_default(handler: Any) -> bool:
    """Whether a node's `handle_tool_errors` is what LangGraph puts there itself."""
    return getattr(handler, "__name__", "") == "_default_handle_tool_errors"


def _handled_above() -> bool:
    """Whether a node without a guard, but with a handler of its own, awaits this call.

    Nothing that a tool is given says so, and the rule that an explicit handler wins is worth a look at the frames: they are
    looked at when a call has failed, never before.
    """
    frame: FrameType | None = sys._getframe(1)
    for _ in range(16):
        if frame is None:
            return False
        if frame.f_code.co_name in ("_execute_tool_sync", "_execute_tool_async"):
            handler = getattr(frame.f_locals.get("self"), "_handle_tool_errors", None)
            return handler is not None and not is_default(handler)
        frame = frame.f_back
    return False
