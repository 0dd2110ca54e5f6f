"""Trying a guard out through LangChain and LangGraph: `mode="shadow"` and `check=`, both ways of running."""

import asyncio

import pytest
from adapter_kit import BOTH, Counter, ai, ask, call, came, contents, node_graph, thread, turn, wait
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config, get_stream_writer
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

import ibidem
from ibidem import Guard, Pure, Read, Write

pytestmark = pytest.mark.filterwarnings("ignore:declared, but no tool:ibidem.report.events.IbidemWarning")


class Shop:
    """Three tools in a graph behind a guard; `answer` is what the read finds."""

    def __init__(self, *, saver=None, **options):
        runs = self.runs = Counter()
        self.answer = lambda: "old"
        shop = self

        @tool
        def get_order(order_id: str) -> str:
            """Get."""
            runs("get_order", order_id)
            return shop.answer()

        @tool
        def cancel_order(order_id: str) -> str:
            """Cancel."""
            runs("cancel_order", order_id)
            return "cancelled"

        @tool
        def search(query: str) -> str:
            """Search."""
            runs("search", query)
            return f"found {query}"

        @tool
        def pay(amount: int) -> str:
            """Pay."""
            return interrupt(amount)

        effects = {
            "get_order": Read("order:{order_id}"),
            "cancel_order": Write("order:{order_id}"),
            **options.pop("effects", {}),
        }
        self.guard = Guard(effects, **options)
        node = ToolNode([get_order, cancel_order, search, pay])
        self.graph = ibidem.wrap(node_graph(node, checkpointer=saver), self.guard)

    def turn(self, way, *calls):
        return turn(way, self.graph, *calls, config=thread("t"))

    def ran(self, name):
        return sum(run[0] == name for run in self.runs.runs)

    def found(self, name):
        return next((row for row in self.guard.report() if row.tool == name), None)

    def judged(self, count=1):
        """Let second runs come to an end, and give what was found about the read."""

        async def until():
            for _ in range(20_000):
                row = self.found("get_order")
                if row is not None and row.compared + row.failed + row.unclear >= count:
                    return row
                await asyncio.sleep(0.001)
            raise AssertionError("it was not judged")

        return wait(until())


GET = call("get_order", {"order_id": "1"}, "1")


@BOTH
def test_a_graph_in_shadow_runs_everything_and_says_what_it_would_have_saved(way):
    shop = Shop(mode="shadow")
    for _ in range(3):
        (message,) = shop.turn(way, GET)
        assert (message.content, came(message)) == ("old", "ran")
    assert shop.ran("get_order") == 3
    row = shop.found("get_order")
    assert (row.calls, row.served, row.differed, row.resources) == (3, 2, 0, "order:{order_id}")
    shop.turn(way, call("cancel_order", {"order_id": "1"}, "2"))
    shop.answer = lambda: "new"
    shop.turn(way, GET)
    assert shop.found("get_order").served == 2, "the write has forgotten it"
    shop.answer = lambda: "newer"
    shop.turn(way, GET)
    assert shop.found("get_order").differed == 1


@BOTH
def test_a_turn_of_equal_calls_runs_each_of_them_in_shadow(way):
    shop = Shop(mode="shadow")
    messages = shop.turn(way, *({**GET, "id": str(n)} for n in range(4)))
    assert contents(messages) == ["old"] * 4 and shop.ran("get_order") == 4
    assert [message.tool_call_id for message in messages] == ["0", "1", "2", "3"]


@BOTH
def test_repeats_of_a_tool_that_nobody_declared_suggest_how_to_declare_it(way):
    shop = Shop(mode="shadow")
    for n in range(6):
        shop.turn(way, call("search", {"query": "a"}, str(n)))
    assert shop.found("search").repeats == 5 and "if it only reads, Read(...)" in shop.found("search").advice


@BOTH
def test_a_tool_that_asks_a_person_is_never_suggested(way):
    shop = Shop(mode="shadow", saver=InMemorySaver())
    for _ in range(7):
        ask(way, shop.graph, {"messages": [ai(call("pay", {"amount": 1}, "1"))]}, thread("t"))
        ask(way, shop.graph, Command(resume="yes"), thread("t"))
    assert shop.found("pay").advice == "it asks a person: leave it undeclared"


@BOTH
def test_calls_that_a_resumed_task_repeats_are_no_repeats(way):
    shop = Shop(mode="shadow", saver=InMemorySaver())
    for _ in range(3):
        calls = ai(call("search", {"query": "a"}, "1"), call("pay", {"amount": 1}, "2"))
        ask(way, shop.graph, {"messages": [calls]}, thread("t"))
        ask(way, shop.graph, Command(resume="yes"), thread("t"))
    assert shop.ran("search") > 3
    assert shop.found("search").repeats == 2


@BOTH
def test_a_hit_of_a_graph_is_served_and_checked(way):
    shop = Shop(check=1)
    shop.turn(way, GET)
    (message,) = shop.turn(way, GET)
    assert (message.content, came(message)) == ("old", "memo")
    row = shop.judged()
    assert (row.compared, row.differed) == (1, 0) and shop.ran("get_order") == 2
    assert shop.guard.stats().tools["get_order"].calls == 2


@BOTH
def test_a_tool_of_a_graph_that_answers_otherwise_is_not_remembered_any_more(way):
    shop = Shop(check=1)
    shop.turn(way, GET)
    shop.answer = lambda: "new"
    assert contents(shop.turn(way, GET)) == ["old"]
    assert shop.judged().differed == 1
    assert [(m.content, came(m)) for m in shop.turn(way, GET) + shop.turn(way, GET)] == [("new", "ran")] * 2
    assert "second run" in next(row for row in shop.guard.explain() if row.tool == "get_order").note


@BOTH
def test_each_hit_of_a_graph_is_drawn_once_whatever_way_it_takes(way):
    shop = Shop(check=0.5)
    shop.turn(way, GET)
    drawn = iter([0.9, 0.1, 0.9])
    shop.guard._memo.lots.draw = lambda: next(drawn)
    for _ in range(3):
        assert came(shop.turn(way, GET)[0]) == "memo"
    shop.judged()
    assert shop.ran("get_order") == 2 and next(drawn, None) is None


@BOTH
def test_a_second_run_takes_no_answer_of_a_person_and_asks_nobody(way):
    """Asked in the middle of another call's run, it would be given the answer that is meant for that one."""
    shop = Shop(check=1, saver=InMemorySaver())
    shop.turn(way, GET)
    shop.answer = lambda: interrupt("may I?")
    messages = shop.turn(way, GET)
    assert contents(messages) == ["old"]
    row = shop.judged()
    assert (row.unclear, row.compared) == (1, 0)
    state = shop.graph.get_state(thread("t")) if way == "sync" else wait(shop.graph.aget_state(thread("t")))
    assert not state.interrupts
    assert not shop.guard.trials.distrusted


@BOTH
def test_in_a_task_that_is_resumed_nothing_is_checked(way):
    shop = Shop(check=1, saver=InMemorySaver())
    shop.turn(way, GET)
    shop.guard._memo.lots.draw = lambda: 1.0
    ask(way, shop.graph, {"messages": [ai(GET, call("pay", {"amount": 1}, "2"))]}, thread("t"))
    assert shop.ran("get_order") == 1
    shop.guard._memo.lots.draw = lambda: 0.0
    state = ask(way, shop.graph, Command(resume="yes"), thread("t"))
    assert [m.content for m in state["messages"] if isinstance(m, ToolMessage)][-2:] == ["old", "yes"]
    assert shop.ran("get_order") == 2, "it runs again, since the task does"
    assert shop.guard.report().rows == () and not shop.guard._memo.lots._drawn


@BOTH
def test_a_second_run_sees_the_users_configuration_and_nothing_of_the_run(way):
    shop, seen = Shop(check=1), []
    shop.answer = lambda: seen.append(get_config()) or "old"
    for _ in range(2):
        turn(way, shop.graph, GET, config=thread("t", tenant="ann"))
    shop.judged()
    first, second = (each["configurable"] for each in seen)
    assert first["tenant"] == second["tenant"] == "ann" and second["thread_id"] == "t"
    assert any(name.startswith("__pregel") for name in first)
    assert not any(name.startswith("__pregel") for name in second)


@BOTH
def test_a_second_run_writes_into_no_stream(way):
    shop = Shop(check=1, effects={"get_order": Pure()})
    shop.answer = lambda: get_stream_writer()("written") or "old"
    written = []

    async def stream():
        async for part in shop.graph.astream({"messages": [ai(GET)]}, thread("t"), stream_mode="custom"):
            written.append(part)

    for _ in range(2):
        if way == "sync":
            written.extend(shop.graph.stream({"messages": [ai(GET)]}, thread("t"), stream_mode="custom"))
        else:
            wait(stream())
    assert shop.judged().unclear == 1
    assert written == ["written"]


def test_a_tool_that_only_awaits_answers_a_synchronous_caller_from_the_memo_whatever_is_drawn():
    @tool
    async def later(key: str) -> str:
        """Look up."""
        return key

    guard = Guard({"later": Pure()}, check=1)
    (twin,) = ibidem.wrap([later], guard)
    asked = call("later", {"key": "a"})
    assert ask("async", twin, asked).content == "a"
    assert came(ask("sync", twin, asked)) == "memo"


def test_in_shadow_a_tool_that_only_awaits_refuses_a_synchronous_caller_as_without_a_guard():
    @tool
    async def later(key: str) -> str:
        """Look up."""
        return key

    (twin,) = ibidem.wrap([later], Guard({"later": Pure()}, mode="shadow"))
    asked = call("later", {"key": "a"})
    assert ask("async", twin, asked).content == "a"
    with pytest.raises(NotImplementedError):
        ask("sync", twin, asked)
