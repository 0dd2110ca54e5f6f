"""Batch fan-out in graphs: one request for a message, whatever the number of threads, and nothing is asked for too early."""

import pytest
from adapter_kit import BOTH, Counter, ai, ask, call, came, saying
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import Send

import ibidem
from ibidem import Batch, Guard, Read, Write

pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")


def hand_built(model, tools):
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile()


KINDS = {
    "hand-built": hand_built,
    "create_agent": create_agent,
    "react v2": lambda model, tools: create_react_agent(model, tools, version="v2"),
}


class Shop:
    def __init__(self, way):
        self.asked, self.prices = [], {}
        runs = self.single = Counter()

        def fetch(ids):
            self.asked.append(sorted(ids))
            return [f"{each}: {self.prices.get(each, 0)}" for each in ids]

        async def afetch(ids):
            return fetch(ids)

        @tool
        def get(product_id: int) -> str:
            """Get."""
            runs(product_id)
            return f"{product_id}: {self.prices.get(product_id, 0)}"

        @tool
        def put(product_id: int, price: int) -> str:
            """Put."""
            self.prices[product_id] = price
            return "ok"

        self.tools = [get, put]
        function = fetch if way == "sync" else afetch
        self.guard = Guard(
            effects={
                "get": Read("p:{product_id}", batch=Batch(function, arg="product_id"), identity="get"),
                "put": Write("p:{product_id}"),
            }
        )


def lookups(*ids):
    return [call("get", {"product_id": each}, f"{n}") for n, each in enumerate(ids)]


def answers(way, graph, **config):
    found = ask(way, graph, {"messages": [HumanMessage("x")]}, config)
    return [m for m in found["messages"] if isinstance(m, ToolMessage)]


@BOTH
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2, None])
def test_a_message_of_twenty_lookups_is_one_request(way, kind, threads):
    shop = Shop(way)
    graph = ibidem.wrap(KINDS[kind](saying(ai(*lookups(*range(20))), "done"), shop.tools), shop.guard)
    messages = answers(way, graph, max_concurrency=threads)
    assert [m.content for m in messages] == [f"{n}: 0" for n in range(20)]
    assert shop.asked == [list(range(20))]
    assert len(shop.single) == 0
    assert sorted(map(came, messages)) == ["batch"] * 19 + ["ran"]


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_what_must_wait_for_a_write_is_not_asked_for_before_it(way, kind):
    shop = Shop(way)
    calls = [*lookups(1, 2), call("put", {"product_id": 1, "price": 9}, "put"), call("get", {"product_id": 1}, "after")]
    graph = ibidem.wrap(KINDS[kind](saying(ai(*calls), "done"), shop.tools), shop.guard)
    assert [m.content for m in answers(way, graph)] == ["1: 0", "2: 0", "ok", "1: 9"]


class Refusing(AgentMiddleware):
    """Lets no lookup of product 2 through."""

    def wrap_tool_call(self, request, handler):
        if request.tool_call["args"]["product_id"] == 2:
            return ToolMessage("refused", tool_call_id=request.tool_call["id"])
        return handler(request)

    async def awrap_tool_call(self, request, handler):
        if request.tool_call["args"]["product_id"] == 2:
            return ToolMessage("refused", tool_call_id=request.tool_call["id"])
        return await handler(request)


@BOTH
def test_what_a_middleware_could_refuse_is_not_asked_for_by_a_sibling(way):
    shop = Shop(way)
    agent = create_agent(saying(ai(*lookups(1, 2, 3)), "done"), shop.tools, middleware=[Refusing()])
    messages = answers(way, ibidem.wrap(agent, shop.guard))
    assert [m.content for m in messages] == ["1: 0", "refused", "3: 0"]
    assert not any(2 in asked for asked in [*shop.asked, shop.single.runs])


@BOTH
def test_what_a_graph_of_the_users_own_does_not_send_is_not_asked_for(way):
    shop = Shop(way)
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda _: {"messages": [ai(*lookups(1, 2, 3))]})
    builder.add_node("tools", ToolNode(shop.tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model",
        lambda state: [Send("tools", [c]) for c in state["messages"][-1].tool_calls if c["id"] != "1"],
        ["tools"],
    )
    messages = answers(way, ibidem.wrap(builder.compile(), shop.guard))
    assert [m.content for m in messages] == ["1: 0", "3: 0"]
    assert not any(2 in asked for asked in [*shop.asked, shop.single.runs])


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_from_outside_between_the_request_and_a_late_sibling_is_seen(way, kind):
    """With one thread the second call begins when the request is over: what it is given must still be right."""
    shop = Shop(way)
    changed = []

    async def outside(step, inner):
        if step.arguments == {"product_id": 2} and step.tool.name == "get" and not changed:
            changed.append(True)
            shop.prices[2] = 5
            guard.touch("p:2")
        return await inner(step)

    guard = shop.guard.replace(outside=[outside])
    graph = ibidem.wrap(KINDS[kind](saying(ai(*lookups(1, 2)), "done"), shop.tools), guard)
    messages = answers(way, graph, max_concurrency=1)
    assert [m.content for m in messages] == ["1: 0", "2: 5"]
