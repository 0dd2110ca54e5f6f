"""The middleware for `langchain.agents.create_agent`: an agent's calls pass a guard without the agent being wrapped."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool
from langchain_core.tracers import context as tracing
from langgraph.prebuilt import ToolNode as PlainToolNode

from ibidem import langchain
from ibidem.bound import Bound
from ibidem.core.asker import NOBODY
from ibidem.guard import Guard
from ibidem.langchain.failures import Telling, deciding, is_decided, message_for
from ibidem.langgraph.turns import Twins, sibling_place

Handler = Callable[[Any], Any]
AsyncHandler = Callable[[Any], Awaitable[Any]]


class Middleware(AgentMiddleware[Any, Any, Any]):
    """Lets every call of an agent's tools pass a guard, below whatever other middleware does.

    Each call is handed on with its tool replaced by the wrapped one: what other middleware refuses, approves or edits is
    refused, approved and edited, wherever this one stands in the list. First in the list it sees every call before another
    can refuse it, so that nothing waits for a call that never comes.

    Args:
        guard: The guard that the calls pass, or a bound one; None: one made of the options.
        name: What LangChain calls it; two of one name in one agent are an error.
        **options: Of `Guard`; not together with a guard.

    Raises:
        TypeError: A guard and options.
    """

    def __init__(self, guard: Guard | Bound | None = None, *, name: str = "ibidem", **options: Any) -> None:
        super().__init__()
        if guard is not None and options:
            raise TypeError(f"Middleware() takes a guard or options, not both: guard.replace({', '.join(options)}=...)")
        guard = guard if guard is not None else Guard(**options)
        self.__ibidem__ = guard if isinstance(guard, Bound) else Bound(guard, NOBODY)
        self._name = name
        self._reviewed = False

    @property
    def name(self) -> str:
        return self._name

    def wrap_tool_call(self, request: Any, handler: Handler) -> Any:
        """Let a call pass the guard."""
        twin = self._twin(request)
        if twin is None:
            return handler(request)
        place = self._place(request, handler)
        if place is None:
            return self._told(twin, request, handler)
        with place:
            return self._told(twin, request, handler)

    @property
    def awrap_tool_call(self) -> Callable[[Any, AsyncHandler], Awaitable[Any]]:  # type: ignore[override]
        """Do the same on an event loop.

        When an agent is made, LangChain lets LangSmith wrap this, and that takes a coroutine function through the loop's
        default executor twice a call, traced or not: behind busy threads even a hit would wait for them. A function that
        returns a coroutine goes straight through. Its span in a trace would end too early, so tracing that is on by then
        gets the coroutine function.
        """
        return self._awrap_tool_call if tracing._tracing_v2_is_enabled() else self._wrap_without_hops

    def _wrap_without_hops(self, request: Any, handler: AsyncHandler) -> Awaitable[Any]:
        return self._awrap_tool_call(request, handler)

    async def _awrap_tool_call(self, request: Any, handler: AsyncHandler) -> Any:
        twin = self._twin(request)
        if twin is None:
            return await handler(request)
        place = self._place(request, handler)
        if place is None:
            return await self._atold(twin, request, handler)
        with place:
            return await self._atold(twin, request, handler)

    def _told(self, twin: Any, request: Any, handler: Handler) -> Any:
        """Answer from memory, or hand on; a failure that a model is to be told of becomes a message."""
        binding = twin.__ibidem_binding__
        request = request.override(tool=twin)
        if not binding.speaks or is_decided(binding.tool):
            return handler(request)
        with deciding(binding.tool) as holder:
            try:
                return _in_our_words(handler(request), binding, holder, request.tool_call)
            except Exception as problem:
                message = message_for(binding.guard, holder, request.tool_call, problem)
                if message is None:
                    raise
                return message

    async def _atold(self, twin: Any, request: Any, handler: Handler) -> Any:
        """Do the same on an event loop."""
        binding = twin.__ibidem_binding__
        request = request.override(tool=twin)
        if not binding.speaks or is_decided(binding.tool):
            return await handler(request)
        with deciding(binding.tool) as holder:
            try:
                return _in_our_words(await handler(request), binding, holder, request.tool_call)
            except Exception as problem:
                message = message_for(binding.guard, holder, request.tool_call, problem)
                if message is None:
                    raise
                return message

    def _twin(self, request: Any) -> Any:
        tool = request.tool
        if tool is None or self.__ibidem__.guard.off:
            return None
        if not self._reviewed:
            self._review(request)
        known = tool.__ibidem__ if hasattr(type(tool), "__ibidem__") else None
        if known is not None and known.guard is not self.__ibidem__.guard:
            return None  # it passes another guard already, and a call passes one only
        return langchain.adapt(tool, self.__ibidem__)

    def _review(self, request: Any) -> None:
        """Warn, as `wrap` does, of declarations without a tool. An agent's tools are known when it first calls one."""
        self._reviewed = True
        toolbox = self.__ibidem__.guard.toolbox
        with toolbox.looking() as found:
            for tool in _tools(request):
                with contextlib.suppress(Exception):  # what is wrong with a tool is said when it is called
                    langchain.adapt(tool, self.__ibidem__)
        if found:
            toolbox.review(found)

    def _place(self, request: Any, handler: Any) -> Any:
        """Find the place of a call among its siblings, which the last message of the state names."""
        calls = _last_calls(request.state)
        if len(calls) < 2:
            return None
        names = {call["name"] for call in calls}
        named = {tool.name: tool for tool in [*_tools(request), request.tool] if tool.name in names}
        twins: Twins = {name: (tool, langchain.adapt(tool, self.__ibidem__)) for name, tool in named.items()}
        guard, whole = self.__ibidem__.guard, functools.partial(self._is_alone, handler)
        config = request.runtime.config
        return sibling_place(guard, twins, request.tool_call, request.state, "messages", config, whole=whole)

    def _is_alone(self, handler: Any) -> bool:
        """Whether nothing but this middleware stands between a message and the tools.

        Nothing that it is given says so. The handler is then the node's own function, and the node knows what wraps it.
        """
        names: Any = getattr(getattr(handler, "__code__", None), "co_freevars", ())
        cells: Any = getattr(handler, "__closure__", None) or ()
        held = next((cell for name, cell in zip(names, cells, strict=False) if name == "self"), None)
        node = held.cell_contents if held is not None else None
        if not isinstance(node, PlainToolNode):
            return False
        wraps = [each for each in (node._wrap_tool_call, node._awrap_tool_call) if each is not None]
        return all(getattr(getattr(each, "__wrapped__", each), "__self__", None) is self for each in wraps)


def _in_our_words(answer: Any, binding: Any, holder: Telling, call: Any) -> Any:
    """Tell of arguments that do not fit as a wrapped agent does: the node has put that into words of its own."""
    if holder.misfit is None or getattr(answer, "status", None) != "error":
        return answer
    return message_for(binding.guard, holder, call, holder.misfit) or answer


def _tools(request: Any) -> list[BaseTool]:
    """Give all tools of the agent that makes a call; none where its LangGraph does not say."""
    return [tool for tool in getattr(request.runtime, "tools", None) or () if isinstance(tool, BaseTool)]


def _last_calls(state: Any) -> list[Any]:
    messages = state.get("messages") if isinstance(state, dict) else getattr(state, "messages", None)
    for message in reversed(messages or ()):
        if isinstance(message, AIMessage):
            return list(message.tool_calls)
    return []
