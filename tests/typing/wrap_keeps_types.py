"""What type checkers must find: `wrap` gives back the type that it was given. Read by pyright and mypy, never run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, assert_type

from langchain_core.tools import BaseTool, StructuredTool
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode

import ibidem
from ibidem import Bound, Effect, Event, Guard, Outcome, Pure, Read, Report, Stats

if TYPE_CHECKING:
    Graph = CompiledStateGraph[Any, Any, Any, Any]


class OwnTool(StructuredTool):
    """A user's class."""


def read(key: str, count: int = 1) -> dict[str, int]:
    """Read."""
    return {key: count}


async def read_later(key: str) -> list[str]:
    """Read."""
    return [key]


@Read("order:{order_id}")
def decorated(order_id: int) -> str:
    """Read."""
    return str(order_id)


def wraps(tool: BaseTool, own: OwnTool, node: ToolNode, graph: Graph, guard: Guard, bound: Bound) -> None:
    """`wrap` with a guard, a bound one, options or an effect."""
    assert_type(ibidem.wrap(tool, guard), BaseTool)
    assert_type(ibidem.wrap(own, bound), OwnTool)
    assert_type(ibidem.wrap(node, reads=["get_*"]), ToolNode)
    assert_type(ibidem.wrap(graph, guard), Graph)
    assert_type(ibidem.wrap([tool], guard), list[BaseTool])
    assert_type(ibidem.wrap({"x": own}, guard), dict[str, OwnTool])
    assert_type(ibidem.wrap(ibidem.wrap(node, guard), guard), ToolNode)


def functions() -> None:
    """Functions keep their signatures."""
    wrapped = ibidem.wrap(read, Read(ttl="5m"))
    assert_type(wrapped("a", count=2), dict[str, int])
    plain: Callable[[str, int], dict[str, int]] = ibidem.wrap(read, Pure())
    later: Callable[[str], Awaitable[list[str]]] = ibidem.wrap(read_later, Pure())
    assert_type(decorated(5), str)
    assert_type(plain("a", 1), dict[str, int])
    assert_type(decorated(order_id=5), str)
    assert callable(later)
    wrapped(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ibidem.wrap(read, "guard")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def questions(guard: Guard, node: ToolNode) -> None:
    """Answers have types."""
    assert_type(ibidem.guard_of(node), Guard | None)
    assert_type(guard.stats(), Stats)
    assert_type(guard.stats().saved, int)
    assert_type(guard.forget(conversation="t", user="ann"), int)
    assert_type(guard.report(), Report)
    assert_type(guard.bind(user="ann"), Bound)
    assert_type([row.tool for row in guard.explain()], list[str])
    with guard.conversation("t", user="ann") as bound:
        assert_type(bound, Bound)
    assert_type(guard.replace(on_event=heard), Guard)
    assert_type(ibidem.ToolNode([read], guard=guard), ibidem.ToolNode)
    as_plain: ToolNode = ibidem.ToolNode([read], guard=guard)
    assert_type(as_plain.tools_by_name, dict[str, BaseTool])


def heard(event: Event) -> None:
    """Hear."""
    assert_type(event.tool, str)


async def layer(call: ibidem.Call, inner: ibidem.Inner, /) -> Outcome:
    """Pass on."""
    assert_type(call.effect, Effect)
    return await inner(call)


GUARD = Guard(effects={"get": Read("x")}, outside=[layer], inside=[layer], user=lambda config, context: config["user"])
