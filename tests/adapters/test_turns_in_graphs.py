"""Turns in graphs: hand-built nodes, and agents that send each call as a task of its own."""

import threading
import time

import pytest
from adapter_kit import BOTH, Counter, ai, ask, call, contents, node_graph, saying, thread, turn
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import ToolNode, create_react_agent
from langgraph.types import Command, interrupt

import ibidem
from ibidem import Guard, Read, Write
from ibidem.core import turns

pytestmark = [
    pytest.mark.filterwarnings("ignore:declared, but no tool:ibidem.report.events.IbidemWarning"),
    pytest.mark.filterwarnings("ignore:create_react_agent has been moved"),
]
EFFECTS = {"get": Read("k:{key}"), "put": Write("k:{key}"), "pay": Write("k:{key}")}


def hand_built(calls, tools, guard, **compiled):
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import tools_condition

    model = saying(ai(*calls), "done")
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return ibidem.wrap(builder.compile(**compiled), guard)


def agent(calls, tools, guard, **compiled):
    return ibidem.wrap(create_agent(saying(ai(*calls), "done"), tools, **compiled), guard)


def react(version):
    def make(calls, tools, guard, **compiled):
        return ibidem.wrap(create_react_agent(saying(ai(*calls), "done"), tools, version=version, **compiled), guard)

    return make


KINDS = {"hand-built": hand_built, "create_agent": agent, "react v1": react("v1"), "react v2": react("v2")}
APART = ("create_agent", "react v2")
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


class World:
    def __init__(self):
        self.state = {}
        self.log = []
        self.lock = threading.Lock()

        @tool
        def get(key: str) -> str:
            """Get."""
            with self.lock:
                self.log.append(f"get {key}")
                return f"{key}={self.state.get(key, 0)}"

        @tool
        def put(key: str, value: int) -> str:
            """Put."""
            time.sleep(0.01)
            with self.lock:
                self.log.append(f"put {key} {value}")
                self.state[key] = value
            return "ok"

        @tool
        def pay(key: str) -> str:
            """Ask, then pay."""
            answer = interrupt({"pay": key})
            with self.lock:
                self.log.append(f"pay {key}")
                self.state[key] = answer
            return f"paid {answer}"

        self.tools = [get, put, pay]


def run(way, graph, config=None):
    found = ask(way, graph, {"messages": [HumanMessage("x")]}, config or {})
    return {m.tool_call_id: m.content for m in found["messages"] if isinstance(m, ToolMessage)}


def program(keys="ab", rounds=3):
    """Puts and gets of each key in turn, and what each must answer."""
    calls, expected = [], {}
    for n in range(1, rounds + 1):
        for key in keys:
            calls += [call("put", {"key": key, "value": n}, f"p{key}{n}"), call("get", {"key": key}, f"g{key}{n}")]
            expected |= {f"p{key}{n}": "ok", f"g{key}{n}": f"{key}={n}"}
    return calls, expected


@BOTH
@EVERY_KIND
@pytest.mark.parametrize("threads", [1, 2, 6])
def test_reads_and_writes_of_one_thing_keep_their_order_and_nothing_hangs(way, kind, threads):
    calls, expected = program()
    graph = KINDS[kind](calls, World().tools, Guard(effects=EFFECTS))
    assert run(way, graph, {"max_concurrency": threads}) == expected


@pytest.mark.parametrize("kind", APART)
def test_without_a_guard_they_do_not(kind):
    """The negative control: the check above can fail."""
    calls, expected = program()
    make = create_agent if kind == "create_agent" else create_react_agent
    assert any(run("sync", make(saying(ai(*calls), "done"), World().tools)) != expected for _ in range(5))


@BOTH
@EVERY_KIND
def test_what_waits_for_an_interrupted_call_runs_after_it_on_resume(way, kind):
    world = World()
    calls = [
        call("get", {"key": "a"}, "before"),
        call("pay", {"key": "a"}, "pay"),
        call("get", {"key": "a"}, "after"),
        call("get", {"key": "b"}, "other"),
    ]
    graph = KINDS[kind](calls, world.tools, Guard(effects=EFFECTS), checkpointer=InMemorySaver())
    ask(way, graph, {"messages": [HumanMessage("x")]}, thread("t"))
    assert [i.value for task in graph.get_state(thread("t")).tasks for i in task.interrupts] == [{"pay": "a"}]
    assert "get a" in world.log and world.log.count("get a") == 1, "what comes after it has not run"
    found = ask(way, graph, Command(resume=7), thread("t"))
    answers = {m.tool_call_id: m.content for m in found["messages"] if isinstance(m, ToolMessage)}
    assert answers == {"before": "a=0", "pay": "paid 7", "after": "a=7", "other": "b=0"}
    assert world.log.count("pay a") == 1
    if kind in APART:
        assert sorted(world.log) == ["get a", "get a", "get b", "pay a"], "what has ended does not run again"


@BOTH
@EVERY_KIND
def test_two_writes_of_the_same_thing_ask_one_after_the_other(way, kind):
    world = World()
    calls = [call("pay", {"key": "a"}, "1"), call("pay", {"key": "a"}, "2")]
    graph = KINDS[kind](calls, world.tools, Guard(effects=EFFECTS), checkpointer=InMemorySaver())
    ask(way, graph, {"messages": [HumanMessage("x")]}, thread("t"))

    answered = set()

    def resume(answer):
        asked = [i.id for task in graph.get_state(thread("t")).tasks for i in task.interrupts]
        new = set(asked) - answered  # LangGraph 1.2.0 lists the others on; a node built by hand has one id for all
        assert len(new) == 1 or (not new and len(asked) == 1), "both ask at once"
        waiting = new.pop() if new else asked[0]
        answered.add(waiting)
        return ask(way, graph, Command(resume={waiting: answer}), thread("t"))

    resume("YES")
    found = resume("NO")
    answers = {m.tool_call_id: m.content for m in found["messages"] if isinstance(m, ToolMessage)}
    assert answers == {"1": "paid YES", "2": "paid NO"}


@BOTH
@pytest.mark.parametrize("kind", ["hand-built", "create_agent"])
def test_resumed_in_another_process_the_order_holds(way, kind):
    """What is known of the turn is lost: another guard."""
    world, saver = World(), InMemorySaver()
    calls = [
        call("put", {"key": "a", "value": 1}, "put"),
        call("pay", {"key": "b"}, "pay"),
        call("get", {"key": "b"}, "get"),
    ]
    ask(
        way,
        KINDS[kind](calls, world.tools, Guard(effects=EFFECTS), checkpointer=saver),
        {"messages": [HumanMessage("x")]},
        thread("t"),
    )
    again = KINDS[kind](calls, world.tools, Guard(effects=EFFECTS), checkpointer=saver)
    found = ask(way, again, Command(resume=7), thread("t"))
    answers = {m.tool_call_id: m.content for m in found["messages"] if isinstance(m, ToolMessage)}
    assert answers == {"put": "ok", "pay": "paid 7", "get": "b=7"}


@BOTH
@pytest.mark.parametrize("kind", APART)
def test_a_call_that_never_comes_is_not_waited_for_without_end(way, kind, monkeypatch):
    """A wrapper of the user's graph sends only some calls: the rest runs, is not remembered, and says so."""
    monkeypatch.setattr(turns, "COMES", 0.05)
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.types import Send

    world, events = World(), []
    calls = [call("put", {"key": "a", "value": 1}, "put"), call("get", {"key": "a"}, "get")]
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [ai(*calls)]})
    builder.add_node("tools", ToolNode(world.tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda state: [Send("tools", [state["messages"][-1].tool_calls[1]])], ["tools"]
    )
    guard = Guard(effects=EFFECTS, on_event=events.append)
    graph = ibidem.wrap(builder.compile(), guard)
    assert run(way, graph) == {"get": "a=0"}
    assert [e.reason for e in events if e.kind == "passed"] == ["1 put (read after write, late)"]
    assert len(guard.entries()) == 0


@BOTH
def test_several_that_wait_for_a_call_that_never_comes_wait_once_in_all(way, monkeypatch):
    """Each comes after the one before it: were each to wait anew, a long message would take seconds."""
    monkeypatch.setattr(turns, "COMES", 1.0)
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.types import Send

    first, *rest = program("a", 5)[0]
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [ai(first, *rest)]})
    builder.add_node("tools", ToolNode(World().tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", lambda state: [Send("tools", [each]) for each in rest], ["tools"])
    graph, began = ibidem.wrap(builder.compile(), Guard(effects=EFFECTS)), time.monotonic()
    answers = run(way, graph)
    assert time.monotonic() - began < 4 * turns.COMES
    assert [answers[each["id"]] for each in rest] == ["a=0", "ok", "a=2", "ok", "a=3", "ok", "a=4", "ok", "a=5"]


@BOTH
@EVERY_KIND
def test_the_last_turn_names_what_was_ordered_after_what_and_draws_it(way, kind):
    calls = [call("put", {"key": "a", "value": 1}, "1"), call("get", {"key": "a"}, "2"), call("get", {"key": "b"}, "3")]
    guard = Guard(effects=EFFECTS)
    run(way, KINDS[kind](calls, World().tools, guard))
    summary = guard.last_turn()
    assert [(row.number, row.tool, [str(each) for each in row.after]) for row in summary] == [
        (1, "put", []),
        (2, "get", ["1 put (read after write)"]),
        (3, "get", []),
    ]
    picture, table = summary._repr_html_().split("<table")
    assert "1 put (read after write)" in table
    assert (picture.count("<rect"), picture.count("<title>1 put (read after write)</title>")) == (3, 1)


@BOTH
@EVERY_KIND
def test_what_is_answered_from_memory_has_its_place_in_the_last_turn(way, kind):
    tools, guard = World().tools, Guard(effects=EFFECTS)
    remembered = call("get", {"key": "b"}, "3")
    calls = [call("put", {"key": "a", "value": 1}, "1"), call("get", {"key": "a"}, "2"), remembered]
    run(way, KINDS[kind]([remembered], tools, guard), thread("t"))
    run(way, KINDS[kind](calls, tools, guard), thread("t"))
    assert [(row.number, row.how) for row in guard.last_turn("t")] == [(1, "ran"), (2, "ran"), (3, "memo")]


@BOTH
@EVERY_KIND
def test_a_message_says_what_became_of_what_it_came_after(way, kind):
    @tool
    def put(key: str, value: int) -> str:
        """Put."""
        raise TimeoutError

    calls = [
        call("put", {"key": "a", "value": 1}, "1"),
        call("put", {"key": "a", "value": 2}, "2"),
        call("get", {"key": "a"}, "3"),
    ]
    graph = KINDS[kind](calls, [put, World().tools[0]], Guard(effects=EFFECTS))
    found = ask(way, graph, {"messages": [HumanMessage("x")]})
    said = [m for m in found["messages"] if isinstance(m, ToolMessage)]
    assert ["maybe_executed" in said[0].content, "upstream_failed" in said[1].content] == [True, True]
    assert [m.response_metadata["ibidem"].get("after") for m in said[1:]] == [
        ["1 put (write after write, unknown)"],
        ["1 put (read after write, unknown)", "2 put (read after write, failed)"],
    ]


@BOTH
def test_several_graphs_at_once_do_not_wait_for_each_other(way):
    calls, expected = program("a", 2)
    guard = Guard(effects=EFFECTS)
    graphs = [agent(calls, World().tools, guard) for _ in range(4)]
    found = []
    threads = [threading.Thread(target=lambda g=g: found.append(run("sync", g))) for g in graphs]
    [each.start() for each in threads]
    [each.join(30) for each in threads]
    assert found == [expected] * 4


@BOTH
def test_a_wrapper_may_change_what_a_call_touches(way):
    """What is executed decides, not what the message says."""
    world = World()

    def edit(request, execute):
        if request.tool_call["name"] == "put":
            request = request.override(tool_call={**request.tool_call, "args": {"key": "a", "value": 5}})
        return execute(request)

    async def aedit(request, execute):
        if request.tool_call["name"] == "put":
            request = request.override(tool_call={**request.tool_call, "args": {"key": "a", "value": 5}})
        return await execute(request)

    node = ibidem.wrap(ToolNode(world.tools, wrap_tool_call=edit, awrap_tool_call=aedit), Guard(effects=EFFECTS))
    messages = turn(way, node_graph(node), call("put", {"key": "b", "value": 1}, "1"), call("get", {"key": "a"}, "2"))
    assert contents(messages) == ["ok", "a=5"]


@BOTH
def test_a_wrapper_that_refuses_a_call_lets_what_waits_go_on(way):
    world = World()

    def refuse(request, execute):
        if request.tool_call["name"] == "put":
            return ToolMessage("no", tool_call_id=request.tool_call["id"], name="put")
        return execute(request)

    async def arefuse(request, execute):
        if request.tool_call["name"] == "put":
            return ToolMessage("no", tool_call_id=request.tool_call["id"], name="put")
        return await execute(request)

    node = ibidem.wrap(ToolNode(world.tools, wrap_tool_call=refuse, awrap_tool_call=arefuse), Guard(effects=EFFECTS))
    messages = turn(way, node_graph(node), call("put", {"key": "a", "value": 1}, "1"), call("get", {"key": "a"}, "2"))
    assert contents(messages) == ["no", "a=0"]


@BOTH
def test_asynchronous_graphs_order_more_synchronous_writes_than_there_are_threads(way):
    runs = Counter()

    @tool
    def put(key: str) -> str:
        """Put."""
        runs(key)
        return key

    node = ibidem.wrap(ToolNode([put]), Guard(effects={"put": Write("one")}))
    calls = [call("put", {"key": f"{n}"}, f"{n}") for n in range(60)]
    assert contents(turn(way, node_graph(node), *calls)) == [f"{n}" for n in range(60)]
    assert runs.runs == [f"{n}" for n in range(60)]


@BOTH
@pytest.mark.parametrize("kind", APART)
def test_calls_of_one_id_keep_their_order_too(way, kind):
    calls = [call("put", {"key": "a", "value": 1}, "same"), call("get", {"key": "a"}, "same")]
    graph = KINDS[kind](calls, World().tools, Guard(effects=EFFECTS))
    found = ask(way, graph, {"messages": [HumanMessage("x")]})
    assert contents(m for m in found["messages"] if isinstance(m, ToolMessage)) == ["ok", "a=1"]


@BOTH
@pytest.mark.parametrize("kind", APART)
def test_calls_of_one_id_are_told_apart_by_their_tools_and_their_tasks(way, kind):
    world = World()

    @tool
    def touch(key: str) -> str:
        """Look at how often it was touched, and touch it."""
        seen = world.state.get(key, 0)
        time.sleep(0.005)
        world.state[key] = seen + 1
        return f"touched {seen}"

    calls = [call(name, {"key": "a"}, "same") for name in ("get", "touch", "touch", "get", "touch", "get")]
    graph = KINDS[kind](calls, [*world.tools, touch], Guard(effects={**EFFECTS, "touch": Write("k:{key}")}))
    found = ask(way, graph, {"messages": [HumanMessage("x")]})
    answers = contents(m for m in found["messages"] if isinstance(m, ToolMessage))
    assert answers == ["a=0", "touched 0", "touched 1", "a=2", "touched 2", "a=3"]


@BOTH
def test_one_call_given_twice_has_two_places(way):
    """The very same object: what waits for the first of them must not wait for ever."""
    world = World()
    node, twice = ibidem.wrap(ToolNode(world.tools), Guard(effects=EFFECTS)), call("put", {"key": "a", "value": 1}, "1")
    message = ai()
    message.tool_calls = [twice, twice, call("get", {"key": "a"}, "2")]
    found = ask(way, node_graph(node), {"messages": [message]})
    assert contents(m for m in found["messages"] if isinstance(m, ToolMessage)) == ["ok", "ok", "a=1"]
    assert world.log == ["put a 1", "put a 1", "get a"]
