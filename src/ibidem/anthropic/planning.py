"""Planning: from the blocks of a message to the calls that are to be made of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ibidem import wrapping
from ibidem.anthropic import tools as given_tools
from ibidem.anthropic.blocks import of
from ibidem.anthropic.tools import Key, Tools, is_langchain, is_plain, known_of
from ibidem.anthropic.turns import BARRIER, Planned
from ibidem.bound import Bound
from ibidem.core.asker import running_config
from ibidem.core.call import Outcome
from ibidem.core.faults import Fault
from ibidem.core.hazards import access
from ibidem.core.idempotency import idempotency_key
from ibidem.guard import Guard
from ibidem.report.events import logger


class Desk:
    """Plans calls: the tools of one loop, and the guard that they pass.

    Args:
        tools: As `answer` takes them.
        guard: What the calls pass.
        awaits: Whether they run on an event loop.
    """

    def __init__(self, tools: Tools, guard: Guard | Bound, *, awaits: bool) -> None:
        self.bound = guard.here()
        self.tools = given_tools.collected(tools)
        self._awaits = awaits
        with self.bound.guard.toolbox.looking() as found:
            self._wrapped: dict[Key, Any] = {
                key: None if self.bound.guard.off or is_plain(tool) else wrapping.adapt(tool, self.bound)
                for key, tool in self.tools.items()
            }
        self._found = found

    def reviewed(self) -> Desk:
        """Warn of declarations without a tool, and of tools without any declaration."""
        if not self.bound.guard.off:
            self.bound.guard.toolbox.review(self._found)
        return self

    def plan(self, block: Any, arguments: Any, message: str | None) -> Planned | None:
        """Plan the call that a block asks for; None: it is not ours to answer.

        Args:
            block: A `tool_use`.
            arguments: Its input, complete; anything but a dictionary is refused.
            message: The id of its message, if it has one.
        """
        name, family = str(of(block, "name")), of(block, "toolset_name")
        key: Key = name if family is None else (family, name)
        tool = self.tools.get(key)
        if tool is None:
            logger.info("the call of %r is left to you: it is none of the tools", name)
            return None
        if not isinstance(arguments, Mapping):
            return Planned(name, None, {}, family=family, refused=_refused())
        wrapped = self._wrapped[key]
        self._check(tool, wrapped)
        if wrapped is None:
            return _unguarded(tool, block, arguments, family)
        known = known_of(wrapped)
        assert known is not None  # noqa: S101  # an adapter that says nothing of its tool is a mistake of ours
        if is_langchain(tool):
            call = {"type": "tool_call", "id": of(block, "id"), "name": name, "args": dict(arguments)}
            touched, asked = wrapped.__ibidem_binding__.touched, call
        else:
            touched, asked = (
                wrapped.__ibidem_touched__,
                self._filled(known.effect.idempotency_key, block, arguments, message),
            )
        if not known.effect.declared:
            return Planned(name, wrapped, asked, BARRIER, family)
        resources = touched(arguments if is_langchain(tool) else asked)
        return Planned(name, wrapped, asked, access(known.effect, resources), family)

    def _filled(
        self, name: str | None, block: Any, arguments: Mapping[str, Any], message: str | None
    ) -> dict[str, Any]:
        """Fill in the text by which the other side knows the call again, where the tool takes one.

        A gateway in front of another model may count its calls anew in each message, so the message is part of it.
        """
        if name is None:
            return dict(arguments)
        own = {each: value for each, value in arguments.items() if each != name}
        call = f"{message or ''}/{of(block, 'id')}"
        text = idempotency_key(of(block, "name"), own, call, self.bound.given, running_config())
        return {**own, name: text}

    def _check(self, tool: Any, wrapped: Any) -> None:
        """Refuse a tool that only awaits where nobody can.

        Raises:
            TypeError: It is one.
        """
        if self._awaits:
            return
        binding = getattr(wrapped, "__ibidem_binding__", None)
        body = tool.call if is_plain(tool) else getattr(tool, "func", None)
        if inspect.iscoroutinefunction(body) or (binding is not None and binding.shape.only_awaits):
            raise TypeError(f"{tool.name!r} only awaits: await ibidem.anthropic.aanswer(...), or an AsyncAnthropic")


def _unguarded(tool: Any, block: Any, arguments: Mapping[str, Any], family: str | None) -> Planned:
    """Plan a call that passes no guard: the guard is off, or the tool is one of the SDK's own."""
    if not is_langchain(tool):
        return Planned(tool.name, tool.call, {"input": dict(arguments)}, BARRIER, family, guarded=False)
    call = {"type": "tool_call", "id": of(block, "id"), "name": tool.name, "args": dict(arguments)}
    return Planned(tool.name, tool.invoke, {"input": call}, BARRIER, family, guarded=False)


def _refused() -> Outcome:
    said = "The arguments are no complete JSON object, so the tool was not called."
    problem = ValueError(said)
    return Outcome(fault=Fault(problem, "invalid_arguments", said, may_have_run=False))
