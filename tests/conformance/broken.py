"""The negative control: faults that a careless layer would have. The comparison must find every one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from patches import Way, put

Fault = Callable[[Any, Callable[[], Any]], Any]
"""Gets a call, and what answers it; answers in its place."""


class Counting(Way):
    """Counts the calls of each test, as a guard would."""

    count = 0

    def calls(self) -> int:
        return self.count

    @contextlib.contextmanager
    def test(self, item: pytest.Item) -> Iterator[None]:
        self.count = 0
        yield


class FaultyNode(Counting):
    """Replaces ToolNode by one that treats the answer to a call as *fault* says."""

    def __init__(self, fault: Fault) -> None:
        from langgraph.prebuilt import ToolNode as Theirs

        way = self

        class ToolNode(Theirs):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                way.wrapped += 1

            def _execute_tool_sync(self, request: Any, *rest: Any) -> Any:
                way.count += 1
                return fault(request, lambda: Theirs._execute_tool_sync(self, request, *rest))

            async def _execute_tool_async(self, request: Any, *rest: Any) -> Any:
                way.count += 1
                try:
                    answer = await Theirs._execute_tool_async(self, request, *rest)
                except Exception as raised:
                    failure = raised
                    return fault(request, lambda: throw(failure))
                return fault(request, lambda: answer)

        put(ToolNode)


class FaultyTools(Counting):
    """Lets every tool answer as *change* says, given the content and the artifact that it made."""

    def __init__(self, change: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        from langchain_core.tools import base

        output = base._format_output

        def changed(content: Any, artifact: Any, *rest: Any) -> Any:
            self.wrapped = 1
            self.count += 1
            return output(*change(content, artifact), *rest)

        base._format_output = changed


def throw(exception: Exception) -> Any:
    raise exception


def repeats_itself(request: Any, answer: Callable[[], Any]) -> Any:
    """Answer every call with two messages."""
    found = answer()
    return [found, found.model_copy()] if hasattr(found, "tool_call_id") else found


def swallows_control_flow(request: Any, answer: Callable[[], Any]) -> Any:
    """Take an interrupt, or a command to a parent graph, for a failure of the tool."""
    from langchain_core.messages import ToolMessage
    from langgraph.errors import GraphBubbleUp

    try:
        return answer()
    except GraphBubbleUp as bubble:
        call = request.tool_call
        return ToolMessage(repr(bubble), name=call["name"], tool_call_id=call["id"], status="error")


def remembers_messages() -> Fault:
    """Make a memo by name and arguments, for everybody, that hands out the very message that it keeps."""
    memo: dict[str, Any] = {}

    def fault(request: Any, answer: Callable[[], Any]) -> Any:
        key = f"{request.tool_call['name']} {request.tool_call['args']}"
        if key not in memo:
            memo[key] = answer()
        return memo[key]

    return fault


@dataclass(frozen=True)
class Control:
    """A fault, and the small suite that must find it."""

    make: Callable[[], Way]
    suite: str = "prebuilt"
    file: str = "tests/test_tool_node.py"


INERT: Final = "inert"
"""Not a fault of a layer but of the plugin: it changes nothing, so nothing is compared, and that must be said."""

KINDS: Final[dict[str, Control]] = {
    "repeats itself": Control(lambda: FaultyNode(repeats_itself)),
    "swallows control flow": Control(lambda: FaultyNode(swallows_control_flow)),
    "remembers messages": Control(lambda: FaultyNode(remembers_messages())),
    "loses artifacts": Control(
        lambda: FaultyTools(lambda content, artifact: (content, None)), "core", "tests/unit_tests/test_tools.py"
    ),
    "answers in strings": Control(
        lambda: FaultyTools(lambda content, artifact: (str(content), artifact)),
        "core",
        "tests/unit_tests/test_tools.py",
    ),
    INERT: Control(Way),
}
