"""One memo: what a LangGraph agent read, an Anthropic loop bound to its conversation does not read again, and vice versa."""

import pytest
from adapter_kit import BOTH, Counter, call, contents, node_graph, thread, turn, wait
from anthropic_kit import ASK, client, message
from langchain_core.tools import tool
from langgraph.prebuilt import ToolNode

import ibidem
from ibidem import Guard, Read, Write
from ibidem.anthropic import aanswer, answer, tools_for
from ibidem.testing import MessagesServer, text, use

EFFECTS = {"get_order": Read("order:{order_id}"), "cancel_order": Write("order:{order_id}")}


@pytest.fixture
def world():
    orders, log = {"1": "open"}, Counter()

    @tool
    def get_order(order_id: str) -> str:
        """Look up an order."""
        log("get")
        return orders[order_id]

    @tool
    def cancel_order(order_id: str) -> str:
        """Cancel an order."""
        log("cancel")
        orders[order_id] = "cancelled"
        return "done"

    return [get_order, cancel_order], log, orders


def looped(way, tools, here, name):
    said = message(use(name, {"order_id": "1"}))
    reply = answer(said, tools, here) if way == "sync" else wait(aanswer(said, tools, here))
    return reply["content"][0]["content"]


@BOTH
@pytest.mark.parametrize("first", ["graph", "loop"])
def test_what_one_read_the_other_does_not_read_again_and_a_write_is_seen_by_both(way, first, world):
    tools, log, orders = world
    guard = Guard(EFFECTS)
    graph = ibidem.wrap(node_graph(ToolNode(tools)), guard)
    here = guard.bind(conversation="thread-42")

    def in_graph(name):
        return contents(turn(way, graph, call(name, {"order_id": "1"}), config=thread("thread-42")))[0]

    def in_loop(name):
        return looped(way, tools, here, name)

    one, other = (in_graph, in_loop) if first == "graph" else (in_loop, in_graph)
    assert [one("get_order"), other("get_order"), one("get_order")] == ["open"] * 3
    assert log.runs == ["get"]
    one("cancel_order")
    assert [other("get_order"), one("get_order")] == ["cancelled"] * 2
    orders["1"] = "open"
    other("cancel_order")
    assert [one("get_order"), other("get_order")] == ["cancelled"] * 2
    assert log.runs == ["get", "cancel", "get", "cancel", "get"]


@BOTH
def test_a_loop_of_another_conversation_reads_by_itself(way, world):
    tools, log, _ = world
    guard = Guard(EFFECTS)
    graph = ibidem.wrap(node_graph(ToolNode(tools)), guard)
    turn(way, graph, call("get_order", {"order_id": "1"}), config=thread("thread-42"))
    looped(way, tools, guard.bind(conversation="thread-43"), "get_order")
    assert len(log) == 2


@BOTH
def test_a_conversation_around_the_loop_does_as_well(way, world):
    tools, log, _ = world
    guard = Guard(EFFECTS)
    graph = ibidem.wrap(node_graph(ToolNode(tools)), guard)
    turn(way, graph, call("get_order", {"order_id": "1"}), config=thread("thread-42"))
    with guard.conversation("thread-42"):
        assert looped(way, tools, guard, "get_order") == "open"
    assert len(log) == 1


def test_results_that_the_api_cleared_are_answered_from_the_memo_when_the_model_asks_again(world):
    """Context editing: old results are cleared from the model's view, and it makes the same call again."""
    tools, log, _ = world
    here = Guard(EFFECTS).bind(conversation="long")
    edits = {"edits": [{"type": "clear_tool_uses_20250919", "trigger": {"type": "input_tokens", "value": 100}}]}
    again = [use("get_order", {"order_id": "1"})]
    with MessagesServer(again, again, again, [text("done")]) as server, client(server) as ours:
        messages = [*ASK["messages"]]
        while True:
            reply = ours.beta.messages.create(
                **{**ASK, "messages": messages},
                tools=tools_for(tools),
                context_management=edits,
                betas=["context-management-2025-06-27"],
            )
            results = answer(reply, tools, here)
            messages.append({"role": "assistant", "content": reply.content})
            if results is None:
                break
            messages.append(results)
    assert server.violations == [] and len(server.requests) == 4 and log.runs == ["get"]
    assert server.results[0]["content"] == "open"


def test_a_function_and_a_langchain_tool_that_are_declared_to_be_one_have_one_memo(world):
    _, log, orders = world

    def get_order(order_id: str) -> str:
        """Look up an order."""
        log("get")
        return orders[order_id]

    guard = Guard({"get_order": Read("order:{order_id}", identity="orders")})
    here = guard.bind(conversation="7")
    graph = ibidem.wrap(node_graph(ToolNode([get_order])), guard)
    assert looped("sync", [get_order], here, "get_order") == "open"
    assert contents(turn("sync", graph, call("get_order", {"order_id": "1"}), config=thread("7"))) == ["open"]
    assert log.runs == ["get"]
