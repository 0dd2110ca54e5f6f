"""Inside a running loop, as in the cells of a notebook: what can only be awaited says so, and nothing waits for itself."""

import asyncio
import threading

import pytest
from adapter_kit import Counter, ai, call, contents, node_graph, thread, wait
from langchain_core.tools import BaseTool, StructuredTool, Tool, tool
from langgraph.prebuilt import ToolNode

import ibidem
from ibidem import Guard, Read, Write
from ibidem.core import flights

EFFECTS = pytest.mark.parametrize("effect", [Read(), Write(), None], ids=["read", "write", "undeclared"])
pytestmark = pytest.mark.filterwarnings("ignore:.*is declared:ibidem.report.events.IbidemWarning")


def only_awaited(kind="structured"):
    """A tool of a coroutine function alone, and its runs."""
    runs = Counter()

    async def get(key: str) -> str:
        """Get."""
        runs(key)
        return key

    if kind == "single":
        return Tool(name="get", description="Get.", func=None, coroutine=get), runs
    return tool(get), runs


def guard_with(effect, **options):
    return Guard(effects={} if effect is None else {"get": effect}, **options)


def refused(do):
    """The error of a synchronous call."""
    with pytest.raises(NotImplementedError) as raised:
        do()
    assert type(raised.value) is NotImplementedError
    return str(raised.value)


@EFFECTS
@pytest.mark.parametrize("loop", [True, False], ids=["in a loop", "without a loop"])
@pytest.mark.parametrize("kind", ["structured", "single"])
def test_a_synchronous_call_of_a_tool_that_only_awaits_says_what_to_do(kind, loop, effect):
    plain, runs = only_awaited(kind)
    wrapped = ibidem.wrap(plain, guard_with(effect))

    def calls():
        for do in (
            lambda each: each.invoke({"key": "a"} if kind == "structured" else "a"),
            lambda each: each.run({"key": "a"} if kind == "structured" else "a"),
            lambda each: each.invoke(call("get", {"key": "a"} if kind == "structured" else {"__arg1": "a"})),
        ):
            before = refused(lambda do=do: do(plain))
            after = refused(lambda do=do: do(wrapped))
            assert after.startswith(before + " 'get' has only an asynchronous function: `await tool.ainvoke(...)`")
            assert "`await graph.ainvoke(...)`" in after
            assert refused(lambda do=do: do(plain)) == before, "the tool itself stays as it is"

    async def cell():
        calls()

    wait(cell()) if loop else calls()
    assert len(runs) == 0


def test_so_does_a_graph_of_it():
    graph = ibidem.wrap(node_graph(ToolNode([only_awaited()[0]])), reads=["get"])

    async def cell():
        message = {"messages": [ai(call("get", {"key": "a"}))]}
        assert "`await graph.ainvoke(...)`" in refused(lambda: graph.invoke(message, thread("t")))
        return (await graph.ainvoke(message, thread("t")))["messages"][-1].content

    assert wait(cell()) == "a"


def test_a_refused_call_is_counted_and_explained():
    wrapped = ibidem.wrap(only_awaited()[0], guard := guard_with(Read()))
    refused(lambda: wrapped.invoke({"key": "a"}))
    assert (guard.stats().ran, guard.stats().total.failed) == (1, 1)
    assert "it was called synchronously and only awaits" in guard.stats().uncacheable


@pytest.mark.parametrize(("has_function", "led"), [(False, 0), (True, 1)])
def test_a_refused_call_leads_nobody_into_its_error(has_function, led):
    """Whoever joined it would be given an error that his own call, which awaits, would not have met."""
    seen = []

    async def look(step, inner):
        seen.append(len(guard._memo.flights))
        return await inner(step)

    guard = guard_with(Read(), inside=[look])
    plain, _ = only_awaited()
    if has_function:
        plain.func = lambda key: key
    wrapped = ibidem.wrap(plain, guard)
    if has_function:
        wrapped.invoke({"key": "a"})
    else:
        refused(lambda: wrapped.invoke({"key": "a"}))
    assert seen == [led]


def test_what_was_awaited_once_is_remembered_for_a_synchronous_call():
    plain, runs = only_awaited()
    wrapped = ibidem.wrap(plain, guard_with(Read()))

    async def cell():
        await wrapped.ainvoke({"key": "a"})
        return wrapped.invoke({"key": "a"}), wrapped.invoke(call("get", {"key": "a"})).content

    assert wait(cell()) == ("a", "a")
    assert len(runs) == 1


def test_the_advice_is_not_given_for_an_error_of_the_tool_s_own():
    class Own(BaseTool):
        name: str = "get"
        description: str = "Get."

        def _run(self, key: str) -> str:
            raise NotImplementedError("not yet")

    assert refused(lambda: ibidem.wrap(Own(), guard_with(Read())).invoke({"key": "a"})) == "not yet"


def both_ways(runs, started=None, go_on=None):
    """A tool with a function and a coroutine; the coroutine says that it started and waits until it may go on."""

    def get(key: str) -> str:
        """Get."""
        return f"{key} {runs('sync')}"

    async def aget(key: str) -> str:
        runs("async")
        if started is not None:
            started.set()
            await go_on.wait()
        return f"{key} awaited"

    return StructuredTool.from_function(func=get, coroutine=aget, name="get", description="Get.")


def test_synchronous_calls_in_a_cell_are_remembered_like_any():
    runs = Counter()

    def fetch(key):
        return f"{key} {runs('function')}"

    guard = Guard(effects={"get": Read(), "fetch": Read(identity="fetch")})
    function, wrapped = ibidem.wrap(fetch, guard), ibidem.wrap(both_ways(runs), guard)
    graph = ibidem.wrap(node_graph(ToolNode([wrapped])), guard)
    message = {"messages": [ai(call("get", {"key": "b"}, "1"), call("get", {"key": "b"}, "2"))]}

    async def cell():
        with guard.conversation("t"):
            assert function("a") == function("a") == "a 1"
            assert wrapped.invoke({"key": "a"}) == wrapped.invoke({"key": "a"}) == "a 2"
            for _ in range(2):
                assert contents(graph.invoke(message)["messages"][-2:]) == ["b 3", "b 3"]

    wait(cell())
    assert runs.runs == ["function", "sync", "sync"]


def test_a_synchronous_call_does_not_wait_for_a_task_of_its_own_loop():
    async def cell():
        started, go_on, runs = asyncio.Event(), asyncio.Event(), Counter()
        wrapped = ibidem.wrap(both_ways(runs, started, go_on), guard_with(Read()))
        leader = asyncio.ensure_future(wrapped.ainvoke({"key": "a"}))
        await started.wait()
        alone = wrapped.invoke({"key": "a"})
        follower = asyncio.ensure_future(wrapped.ainvoke({"key": "a"}))
        await asyncio.sleep(0)
        go_on.set()
        return alone, await leader, await follower, runs.runs

    alone, led, followed, runs = wait(cell())
    assert (alone, led, followed) == ("a 2", "a awaited", "a awaited")
    assert runs == ["async", "sync"], "the flight of the others is as it was"


def test_a_graph_s_threads_do_not_wait_for_ever_for_the_loop_that_waits_for_them(monkeypatch):
    monkeypatch.setattr(flights, "DEAF", 0.2)

    async def cell():
        started, go_on, runs = asyncio.Event(), asyncio.Event(), Counter()
        wrapped = ibidem.wrap(both_ways(runs, started, go_on), guard := guard_with(Read()))
        graph = ibidem.wrap(node_graph(ToolNode([wrapped])), guard)
        with guard.conversation("t"):
            leader = asyncio.ensure_future(wrapped.ainvoke({"key": "a"}))
            await started.wait()
            state = graph.invoke({"messages": [ai(call("get", {"key": "a"}))]})
            go_on.set()
            return state["messages"][-1].content, await leader, runs.runs

    assert wait(cell()) == ("a 2", "a awaited", ["async", "sync"])


def test_a_synchronous_call_in_a_cell_neither_waits_for_a_thread_nor_takes_its_flight_away():
    runs, started, go_on = Counter(), threading.Event(), threading.Event()
    answers = {}

    def get(key: str) -> str:
        """Get."""
        number = runs(threading.current_thread().name)
        if number == 1:
            started.set()
            assert go_on.wait(30)
        return f"{key} {number}"

    wrapped = ibidem.wrap(tool(get), guard := guard_with(Read()))

    def ask():
        with guard.conversation("t"):
            answers[threading.current_thread().name] = wrapped.invoke({"key": "a"})

    async def cell():
        ask()

    leader, follower = (threading.Thread(target=ask, name=name) for name in ("leader", "follower"))
    leader.start()
    assert started.wait(30)
    follower.start()
    while not any(flight.waiters for flight in guard._memo.flights._flights.values()):
        pass
    wait(cell())
    go_on.set()
    leader.join(30), follower.join(30)
    assert answers == {"leader": "a 1", "follower": "a 1", threading.current_thread().name: "a 2"}
    assert guard.stats().shared == 1
