"""Compiled graphs of every shape run through a guard, and are otherwise what they were."""

import operator
import threading
from typing import Annotated, Any

import pytest
from adapter_kit import (
    BOTH,
    Counter,
    Heard,
    Scripted,
    ai,
    ask,
    call,
    came,
    contents,
    node_graph,
    saying,
    thread,
    turn,
    wait,
)
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, RetryPolicy, Send
from typing_extensions import TypedDict

import ibidem
from ibidem import Guard, Nested, Pure, Read, Write

pytestmark = [
    pytest.mark.filterwarnings("ignore:declared, but no tool:ibidem.report.events.IbidemWarning"),
    # create_react_agent is deprecated, and what is built on it uses it.
    pytest.mark.filterwarnings("ignore:create_react_agent has been moved"),
    pytest.mark.filterwarnings("ignore:AgentState"),
]


class Getting:
    """A tool `get` and what it was asked for."""

    def __init__(self) -> None:
        self.runs = Counter()

        @tool
        def get(key: str) -> str:
            """Get."""
            self.runs(key)
            return f"{key}!"

        self.tool = get


SCRIPT = (
    ai(call("get", {"key": "a"}, "1")),
    ai(call("get", {"key": "a"}, "2"), call("get", {"key": "b"}, "3")),
    "done",
)


def loop(model, node, **compiled):
    """The loop that everybody writes."""
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", node)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(**compiled)


def hand_built(getting):
    return loop(saying(*SCRIPT), ToolNode([getting.tool]))


def agent(getting, **options):
    langchain_agents = pytest.importorskip("langchain.agents")
    return langchain_agents.create_agent(saying(*SCRIPT), [getting.tool], **options)


def react(version):
    def make(getting):
        from langgraph.prebuilt import create_react_agent

        return create_react_agent(saying(*SCRIPT), [getting.tool], version=version)

    return make


def supervisor(getting):
    langgraph_supervisor = pytest.importorskip("langgraph_supervisor")
    from langgraph.prebuilt import create_react_agent

    def answer(messages):
        answered = sum(isinstance(m, ToolMessage) and m.name == "get" for m in messages)
        said_ = SCRIPT[min(answered, 2)]
        return AIMessage(said_) if isinstance(said_, str) else AIMessage("", tool_calls=said_.tool_calls)

    worker = create_react_agent(Scripted(answer=answer), [getting.tool], name="worker")
    boss = saying(ai(call("transfer_to_worker", {}, "t1")), "all done", "all done", "all done", "all done")
    return langgraph_supervisor.create_supervisor([worker], model=boss, output_mode="full_history").compile()


def subgraph(getting):
    builder = StateGraph(MessagesState)
    builder.add_node("sub", hand_built(getting))
    builder.add_edge(START, "sub")
    return builder.compile()


def in_a_node(build):
    def make(getting):
        builder = StateGraph(MessagesState)
        builder.add_node("only", build(getting))
        builder.add_edge(START, "only")
        return builder.compile()

    return make


def closure_of_graph(getting):
    inner = hand_built(getting)

    def run(state):
        return {"messages": inner.invoke(state)["messages"]}

    return run


def asynchronous_closure(getting):
    inner = hand_built(getting)

    async def run(state):
        return {"messages": (await inner.ainvoke(state))["messages"]}

    return run


def by_hand(find):
    """A node that calls tools itself, from whatever its closure holds."""

    def make(getting):
        held = find(getting.tool)

        def run(state):
            found = []
            for turn_ in SCRIPT[:2]:
                for made in turn_.tool_calls:
                    chosen = held["get"] if isinstance(held, dict) else held[0] if isinstance(held, list) else held
                    found.append(chosen.invoke(made))
            return {"messages": found}

        return run

    return make


def nested_functions(getting):
    chosen = getting.tool

    def inner(made):
        return chosen.invoke(made)

    def run(state):
        return {"messages": [inner(made) for turn_ in SCRIPT[:2] for made in turn_.tool_calls]}

    return run


def composed(compose):
    """A loop whose node of tools is part of something."""

    def make(getting):
        return loop(saying(*SCRIPT), compose(ToolNode([getting.tool])))

    return make


same = RunnableLambda(lambda given: given)
SHAPES = {
    "hand-built": hand_built,
    "create_agent": agent,
    "create_react_agent v1": react("v1"),
    "create_react_agent v2": react("v2"),
    "supervisor": supervisor,
    "subgraph": subgraph,
    "subgraph twice": lambda g: _outer(subgraph(g)),
    "closure of a graph": in_a_node(closure_of_graph),
    "closure of a tool": in_a_node(by_hand(lambda t: t)),
    "closure of a dict of tools": in_a_node(by_hand(lambda t: {"get": t})),
    "closure of a list of tools": in_a_node(by_hand(lambda t: [t])),
    "closure of a function with a closure": in_a_node(nested_functions),
    "sequence": composed(lambda node: same | node),
    "longer sequence": composed(lambda node: same | same | node | same),
    "binding": composed(lambda node: node.with_config(tags=["t"])),
    "retry": composed(lambda node: node.with_retry(stop_after_attempt=2)),
    "fallbacks": composed(lambda node: node.with_fallbacks([same])),
    "as a fallback": composed(lambda node: RunnableLambda(_fail).with_fallbacks([node])),
    "branch": composed(lambda node: RunnableBranch((lambda _: True, node), same)),
    "lambda of a node": composed(lambda node: RunnableLambda(lambda state: node)),
}


def _fail(_):
    raise ValueError("no")


def _outer(graph):
    builder = StateGraph(MessagesState)
    builder.add_node("outer", graph)
    builder.add_edge(START, "outer")
    return builder.compile()


EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES)


BACK = "__is_handoff_back"
"""What a supervisor writes itself, with ids of its own."""


def said(messages):
    return [
        (type(m).__name__, m.content, str(getattr(m, "tool_call_id", ""))[:8])
        for m in messages
        if not getattr(m, "response_metadata", {}).get(BACK)
    ]


@BOTH
@EVERY_SHAPE
def test_every_shape_runs_through_a_guard(way, shape):
    getting = Getting()
    original = SHAPES[shape](getting)
    given = {"messages": [HumanMessage("x")]}
    guard = Guard(reads=["get"])
    wrapped = ibidem.wrap(original, guard)
    assert type(wrapped) is type(original)
    assert wrapped is not original
    assert ibidem.guard_of(wrapped) is guard
    assert ibidem.wrap(wrapped, guard) is wrapped
    expected = ask(way, original, given, thread("t"))["messages"]
    assert getting.runs.runs in (["a", "a", "b"], ["a", "b", "a"])
    assert guard.stats().calls == 0, "the original passes no guard"
    found = ask(way, wrapped, given, thread("t"))["messages"]
    assert said(found) == said(expected)
    assert sorted(getting.runs.runs[3:]) == ["a", "b"]
    assert [came(m) for m in found if getattr(m, "tool_call_id", "t1") in "123" and isinstance(m, ToolMessage)] == [
        "ran", "memo", "ran"
    ]  # fmt: skip
    assert guard.stats().tools["get"].memo == 1


@BOTH
@EVERY_SHAPE
def test_an_undeclared_graph_makes_the_same_calls(way, shape):
    """R20."""
    getting = Getting()
    original = SHAPES[shape](getting)
    wrapped = ibidem.wrap(original, Guard(effects={"unused": Read()}))
    given = {"messages": [HumanMessage("x")]}
    expected = ask(way, original, given)["messages"]
    runs = list(getting.runs.runs)
    found = ask(way, wrapped, given)["messages"]
    assert said(found) == said(expected)
    assert sorted(getting.runs.runs[len(runs) :]) == sorted(runs)


@EVERY_SHAPE
def test_the_original_is_not_touched(shape):
    getting = Getting()
    original = SHAPES[shape](getting)
    before = (dict(vars(original)), dict(original.nodes), {n: node.bound for n, node in original.nodes.items()})
    specs = {name: spec.runnable for name, spec in original.builder.nodes.items()}
    wrapped = ibidem.wrap(original, Guard(reads=["get"]))
    assert vars(original) == before[0]
    assert {n: node.bound for n, node in original.nodes.items()} == before[2]
    assert {name: spec.runnable for name, spec in original.builder.nodes.items()} == specs
    assert ibidem.guard_of(original) is None
    if wrapped is not original:
        assert wrapped.nodes is not original.nodes
        assert wrapped.builder is not original.builder
    for name in ("checkpointer", "store", "cache", "config", "stream_mode", "input_channels", "output_channels"):
        assert getattr(wrapped, name) is getattr(original, name)


@EVERY_SHAPE
@pytest.mark.parametrize("xray", [False, True])
def test_the_drawing_is_the_same(shape, xray):
    original = SHAPES[shape](Getting())
    wrapped = ibidem.wrap(original, Guard(reads=["get"]))
    assert wrapped.get_graph(xray=xray).draw_mermaid() == original.get_graph(xray=xray).draw_mermaid()
    assert wrapped.get_input_jsonschema() == original.get_input_jsonschema()
    assert wrapped.get_output_jsonschema() == original.get_output_jsonschema()
    assert [name for name, _ in wrapped.get_subgraphs(recurse=True)] == [
        name for name, _ in original.get_subgraphs(recurse=True)
    ]


def test_where_there_is_nothing_to_wrap_the_same_object_comes_back():
    builder = StateGraph(MessagesState)
    outside = {"a": [1, 2]}
    builder.add_node("only", lambda state: {"messages": [AIMessage(str(outside["a"]))]})
    builder.add_edge(START, "only")
    for graph in (builder.compile(), _outer(builder.compile())):
        assert ibidem.wrap(graph, Guard()) is graph
        assert ibidem.guard_of(graph) is None


def test_a_graph_compiled_again_from_a_wrapped_one_passes_the_guard_too():
    getting = Getting()
    wrapped = ibidem.wrap(hand_built(getting), Guard(reads=["get"]))
    again = wrapped.builder.compile(checkpointer=InMemorySaver())
    again.invoke({"messages": [HumanMessage("x")]}, thread("t"))
    assert getting.runs.runs == ["a", "b"]


def test_copies_of_a_wrapped_graph_pass_the_guard():
    getting = Getting()
    guard = Guard(reads=["get"])
    wrapped = ibidem.wrap(hand_built(getting), guard)
    for copied in (wrapped.with_config(tags=["t"]), wrapped.copy()):
        assert ibidem.guard_of(copied) is guard
        assert ibidem.wrap(copied, guard) is copied
        with pytest.raises(ValueError, match="another guard"):
            ibidem.wrap(copied, Guard(reads=["get"]))


def test_one_tool_in_several_places_is_one_tool():
    getting = Getting()
    inner = hand_built(getting)
    builder = StateGraph(MessagesState)
    builder.add_node("first", inner)
    builder.add_node("second", in_a_node(by_hand(lambda t: t))(getting))
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    ibidem.wrap(builder.compile(), Guard(reads=["get"])).invoke({"messages": [HumanMessage("x")]})
    assert sorted(getting.runs.runs) == ["a", "b"]


def test_a_graph_that_holds_itself_ends():
    getting = Getting()
    held = {}

    def run(state):
        return {"messages": [held["tool"].invoke(call("get", {"key": "a"}))]} if held else {}

    builder = StateGraph(MessagesState)
    builder.add_node("only", run)
    builder.add_edge(START, "only")
    graph = builder.compile()
    held.update(graph=graph, tool=getting.tool)
    wrapped = ibidem.wrap(graph, Guard(reads=["get"]))
    for _ in range(2):
        wrapped.invoke({"messages": []}, thread("t"))
    assert getting.runs.runs == ["a"]


# -- what a graph keeps -----------------------------------------------------------------------------------------------


def test_what_was_compiled_in_stays():
    saver, store, cache = InMemorySaver(), InMemoryStore(), InMemoryCache()
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([Getting().tool]), retry_policy=RetryPolicy(max_attempts=2))
    builder.add_edge(START, "tools")
    graph = builder.compile(
        checkpointer=saver, store=store, cache=cache, interrupt_before=["tools"], name="mine"
    ).with_config(recursion_limit=7, tags=["t"])
    wrapped = ibidem.wrap(graph, Guard(reads=["get"]))
    assert (wrapped.checkpointer, wrapped.store, wrapped.cache) == (saver, store, cache)
    assert wrapped.interrupt_before_nodes == graph.interrupt_before_nodes == ["tools"]
    assert wrapped.name == "mine" and wrapped.config == graph.config
    assert wrapped.nodes["tools"].retry_policy == graph.nodes["tools"].retry_policy
    assert vars(wrapped).keys() - {"__ibidem__"} == vars(graph).keys()


@BOTH
def test_state_is_kept_read_and_changed_as_without_a_guard(way):
    def run(wrap):
        getting = Getting()
        graph = wrap(loop(saying(*SCRIPT), ToolNode([getting.tool]), checkpointer=InMemorySaver()))
        seen = []
        ask(way, graph, {"messages": [HumanMessage("x")]}, thread("t"))
        seen.append(said(graph.get_state(thread("t")).values["messages"]))
        graph.update_state(thread("t"), {"messages": [AIMessage("by hand")]})
        seen.append(said(graph.get_state(thread("t")).values["messages"]))
        history = list(graph.get_state_history(thread("t")))
        seen.append([(s.next, len(s.values.get("messages", []))) for s in history])
        forked = next(s for s in history if s.next == ("tools",))
        seen.append(said(ask(way, graph, None, forked.config)["messages"]))
        return seen

    assert run(lambda g: ibidem.wrap(g, Guard(reads=["get"]))) == run(lambda g: g)


@BOTH
def test_interrupts_before_and_after_nodes(way):
    def run(wrap):
        getting = Getting()
        graph = loop(
            saying(*SCRIPT), ToolNode([getting.tool]), checkpointer=InMemorySaver(), interrupt_before=["tools"]
        )
        graph = wrap(graph)
        stops = []
        given = {"messages": [HumanMessage("x")]}
        for _ in range(3):
            found = ask(way, graph, given, thread("t"))
            stops.append((graph.get_state(thread("t")).next, said(found["messages"])))
            given = None
        return stops

    assert run(lambda g: ibidem.wrap(g, Guard(reads=["get"]))) == run(lambda g: g)


MODES = ["values", "updates", "messages", "custom", "debug", "tasks", "checkpoints", ["updates", "custom"]]


def shape_of(chunk):
    """A chunk without ids and times."""
    if isinstance(chunk, ToolMessage):
        return ("ToolMessage", chunk.content, chunk.tool_call_id)
    if hasattr(chunk, "content"):
        return (type(chunk).__name__, chunk.content)
    if isinstance(chunk, dict):
        changing = {
            "id",
            "timestamp",
            "checkpoint_id",
            "checkpoint_ns",
            "thread_id",
            "config",
            "parent_config",
            "run_id",
        }
        return {
            k: shape_of(v)
            for k, v in chunk.items()
            if k not in changing and not (k.startswith("langgraph_checkpoint") or k == "metadata")
        }
    if isinstance(chunk, (list, tuple)):
        return [shape_of(part) for part in chunk]
    return chunk if isinstance(chunk, (str, int, float, type(None))) else type(chunk).__name__


@BOTH
@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_streams_are_the_same(way, mode, kind):
    """What a tool that runs writes is streamed; nothing else changes."""

    def run(wrap):
        @tool("get")
        def blocking(key: str) -> str:
            """Get."""
            get_stream_writer()({"wrote": key})
            return f"{key}!"

        @tool("get")
        async def later(key: str) -> str:
            """Get."""
            get_stream_writer()({"wrote": key})
            return f"{key}!"

        if way == "sync" and kind == "async":
            pytest.skip("an asynchronous tool in a synchronous graph")
        script = (ai(call("get", {"key": "a"}, "1")), ai(call("get", {"key": "b"}, "2")), "done")
        graph = wrap(
            loop(saying(*script), ToolNode([blocking if kind == "sync" else later]), checkpointer=InMemorySaver())
        )
        given, config = {"messages": [HumanMessage("x")]}, thread("t")
        if way == "sync":
            return [shape_of(chunk) for chunk in graph.stream(given, config, stream_mode=mode)]

        async def collect():
            return [shape_of(chunk) async for chunk in graph.astream(given, config, stream_mode=mode)]

        return wait(collect())

    streamed = run(lambda g: ibidem.wrap(g, Guard(reads=["get"])))
    assert streamed == run(lambda g: g)
    assert streamed


@BOTH
def test_tokens_from_within_tools_are_streamed(way):
    def run(wrap):
        inner = saying("thought")

        @tool
        def get(key: str) -> str:
            """Get."""
            return inner.invoke(key).content

        graph = wrap(loop(saying(ai(call("get", {"key": "a"}, "1")), "done"), ToolNode([get])))
        given = {"messages": [HumanMessage("x")]}
        if way == "sync":
            chunks = list(graph.stream(given, stream_mode="messages"))
        else:

            async def collect():
                return [chunk async for chunk in graph.astream(given, stream_mode="messages")]

            chunks = wait(collect())
        return [(m.content, about["langgraph_node"]) for m, about in chunks]

    streamed = run(lambda g: ibidem.wrap(g, Guard(reads=["get"])))
    assert streamed == run(lambda g: g)
    assert ("thought", "tools") in streamed


def test_events_are_the_same():
    def run(wrap):
        graph = wrap(hand_built(Getting()))

        async def collect():
            events = graph.astream_events({"messages": [HumanMessage("x")]}, version="v2")
            return sorted([(event["event"], event["name"]) async for event in events])

        return wait(collect())

    assert run(lambda g: ibidem.wrap(g, Guard(reads=["get"]))) == run(lambda g: g)


@BOTH
def test_callbacks_of_a_run_hear_the_same(way):
    def run(wrap):
        heard = Heard()
        ask(way, wrap(hand_built(Getting())), {"messages": [HumanMessage("x")]}, {"callbacks": [heard]})
        return sorted(map(repr, heard.events))

    told = run(lambda g: ibidem.wrap(g, Guard(reads=["get"])))
    assert told == run(lambda g: g)
    assert len(told) == 6


def test_a_node_with_a_cache_policy_keeps_it():
    getting = Getting()
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([getting.tool]), cache_policy=CachePolicy())
    builder.add_edge(START, "tools")
    graph = ibidem.wrap(builder.compile(cache=InMemoryCache()), Guard(effects={"unused": Read()}))
    given = {"messages": [AIMessage("", tool_calls=[call("get", {"key": "a"})], id="fixed")]}
    for _ in range(2):
        graph.invoke(given)
    assert getting.runs.runs == ["a"], "LangGraph's own cache answered the second"


# -- turns of agents ----------------------------------------------------------------------------------------------------


@BOTH
def test_siblings_that_are_sent_one_by_one_share_a_run(way):
    """`create_agent` sends every call as a task of its own."""
    meet = threading.Barrier(2)
    runs = Counter()

    @tool
    def get(key: str) -> str:
        """Get."""
        runs(key)
        meet.wait(20)
        return f"{key}!"

    agents = pytest.importorskip("langchain.agents")
    keys = ["a", "b", "a", "b"]
    model = saying(ai(*(call("get", {"key": k}, f"{n}") for n, k in enumerate(keys))), "done")
    graph = ibidem.wrap(agents.create_agent(model, [get]), Guard(reads=["get"]))
    found = ask(way, graph, {"messages": [HumanMessage("x")]})["messages"]
    assert sorted(runs.runs) == ["a", "b"]
    assert said(m for m in found if isinstance(m, ToolMessage)) == [
        ("ToolMessage", f"{k}!", f"{n}") for n, k in enumerate(keys)
    ]


AGENTS = {
    "create_agent": lambda model, tools: pytest.importorskip("langchain.agents").create_agent(model, tools),
    "v1": lambda model, tools: _react(model, tools, "v1"),
    "v2": lambda model, tools: _react(model, tools, "v2"),
    "hand-built": lambda model, tools: loop(model, ToolNode(tools)),
    "send": lambda model, tools: sending(model, tools),
}


def _react(model, tools, version):
    from langgraph.prebuilt import create_react_agent

    return create_react_agent(model, tools, version=version)


def sending(model, tools):
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda state: [Send("tools", [c]) for c in state["messages"][-1].tool_calls] or END, ["tools", END]
    )
    builder.add_edge("tools", "model")
    return builder.compile()


@BOTH
@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize(
    "effects", [{"get": Read()}, {"get": Read("k:{key}"), "put": Write("k:{key}")}], ids=["bare", "named"]
)
def test_a_read_behind_a_write_is_not_replayed_in_agents(way, kind, effects):
    getting = Getting()

    @tool
    def put(key: str) -> str:
        """Put."""
        return key

    script = (
        ai(call("get", {"key": "a"}, "1")),
        ai(call("get", {"key": "a"}, "2"), call("put", {"key": "a"}, "3"), call("get", {"key": "a"}, "4")),
        ai(call("get", {"key": "a"}, "5")),
        "done",
    )
    graph = ibidem.wrap(AGENTS[kind](saying(*script), [getting.tool, put]), Guard(effects=effects))
    found = {
        m.tool_call_id: came(m)
        for m in ask(way, graph, {"messages": [HumanMessage("x")]})["messages"]
        if isinstance(m, ToolMessage)
    }
    assert found["4"] == "ran"
    assert found["1"] == "ran"
    assert len(getting.runs) >= 2


# -- graphs as tools, the functional API --------------------------------------------------------------------------------


@BOTH
def test_a_graph_as_a_tool_is_nested(way):
    """Its inner calls speak for themselves: a write inside it is seen outside, and a read inside shares the memo."""
    world = Counter()

    @tool
    def get(key: str) -> int:
        """Get."""
        return len(world)

    @tool
    def put(key: str) -> str:
        """Put."""
        world(key)
        return "done"

    guard = Guard(effects={"get": Read("k:{key}"), "put": Write("k:{key}"), "research": Nested()})
    script = (ai(call("get", {"key": "a"}, "i1")), ai(call("put", {"key": "a"}, "i2")), "researched")
    inner = ibidem.wrap(loop(saying(*script), ToolNode([get, put])), guard)

    @tool
    def research(question: str) -> str:
        """Research."""
        return inner.invoke({"messages": [HumanMessage(question)]})["messages"][-1].content

    @tool("research")
    async def aresearch(question: str) -> str:
        """Research."""
        return (await inner.ainvoke({"messages": [HumanMessage(question)]}))["messages"][-1].content

    outer_script = (
        ai(call("get", {"key": "a"}, "1")),
        ai(call("research", {"question": "q"}, "2")),
        ai(call("get", {"key": "a"}, "3")),
        ai(call("get", {"key": "a"}, "4")),
        "done",
    )
    tools = [get, put, research if way == "sync" else aresearch]
    graph = ibidem.wrap(loop(saying(*outer_script), ToolNode(tools)), guard)
    found = ask(way, graph, {"messages": [HumanMessage("x")]}, thread("t"))["messages"]
    answers = {m.tool_call_id: (m.content, came(m)) for m in found if isinstance(m, ToolMessage)}
    assert answers == {"1": ("0", "ran"), "2": ("researched", "ran"), "3": ("1", "ran"), "4": ("1", "memo")}
    assert guard.stats().tools["get"].memo == 2, "the read inside was answered from the memo of its conversation"


@pytest.mark.parametrize("also_inner", [False, True])
def test_a_graph_that_only_a_nested_tool_holds_is_warned_of_and_seen_once_it_is_wrapped(also_inner):
    world = Counter()

    @tool
    def get(key: str) -> int:
        """Get."""
        return len(world)

    @tool
    def put(key: str) -> str:
        """Put."""
        world(key)
        return "done"

    guard = Guard(effects={"get": Read("k:{key}"), "put": Write("k:{key}"), "research": Nested()})
    inner = node_graph(ToolNode([put]))
    if also_inner:
        inner = ibidem.wrap(inner, guard.bind())

    @tool
    def research(question: str) -> str:
        """Research."""
        inner.invoke({"messages": [ai(call("put", {"key": "a"}))]})
        return "researched"

    outer = node_graph(ToolNode([get, research]))
    if not also_inner:
        with pytest.warns(ibidem.IbidemWarning, match=r"what it calls as 'inner' passes no guard"):
            ibidem.wrap(outer, guard)
        return
    graph = ibidem.wrap(outer, guard)
    turn("sync", graph, call("get", {"key": "a"}), config=thread("t"))
    turn("sync", graph, call("research", {"question": "q"}), config=thread("t"))
    assert contents(turn("sync", graph, call("get", {"key": "a"}), config=thread("t"))) == ["1"]


def test_a_graph_made_a_tool_keeps_its_schema():
    pytest.importorskip("langchain.agents")
    guard = Guard(effects={"sub": Nested()})
    getting = Getting()

    class Given(TypedDict):
        key: str

    builder = StateGraph(Given)
    builder.add_node("only", lambda state: {"key": getting.tool.invoke({"key": state["key"]})})
    builder.add_edge(START, "only")
    with pytest.warns(match="beta"):
        made = builder.compile().as_tool(name="sub", description="Sub.")
    with pytest.warns(ibidem.IbidemWarning, match="before the tool is made"):
        wrapped = ibidem.wrap(made, guard)
    assert wrapped.args == made.args
    assert wrapped.invoke({"key": "a"}) == made.invoke({"key": "a"})


@BOTH
def test_the_functional_api_where_it_can_be_reached(way):
    getting = Getting()
    held = getting.tool

    if way == "sync":

        @entrypoint(checkpointer=InMemorySaver())
        def workflow(keys: list[str]) -> list[str]:
            return [held.invoke({"key": key}) for key in keys]
    else:

        @entrypoint(checkpointer=InMemorySaver())
        async def workflow(keys: list[str]) -> list[str]:
            return [await held.ainvoke({"key": key}) for key in keys]

    wrapped = ibidem.wrap(workflow, Guard(reads=["get"]))
    assert wrapped is not workflow and type(wrapped) is type(workflow)
    for _ in range(2):
        assert ask(way, wrapped, ["a", "b", "a"], thread("t")) == ["a!", "b!", "a!"]
    assert getting.runs.runs == ["a", "b"]
    ask(way, workflow, ["a"], thread("u"))
    assert len(getting.runs) == 3


def test_tools_in_parallel_branches():
    getting = Getting()

    class State(TypedDict):
        found: Annotated[list[Any], operator.add]

    step = RunnableParallel(
        found=RunnableLambda(lambda state: {"key": "a"}) | getting.tool | RunnableLambda(lambda x: [x])
    )
    builder = StateGraph(State)
    builder.add_node("one", step)
    builder.add_node("two", step)
    builder.add_edge(START, "one")
    builder.add_edge("one", "two")
    graph = ibidem.wrap(builder.compile(), Guard(effects={"get": Pure()}))
    assert graph.invoke({"found": []})["found"] == ["a!", "a!"]
    assert getting.runs.runs == ["a"]


# -- conversations --------------------------------------------------------------------------------------------------------


@BOTH
def test_a_thread_is_a_conversation(way):
    getting = Getting()
    graph = ibidem.wrap(node_graph(ToolNode([getting.tool])), Guard(reads=["get"]))
    for name in ("t", "t", "u", "t", "u"):
        turn(way, graph, call("get", {"key": "a"}), config=thread(name))
    assert len(getting.runs) == 2


@BOTH
def test_a_run_without_a_thread_is_a_conversation(way):
    getting = Getting()
    graph = ibidem.wrap(hand_built(getting), Guard(reads=["get"]))
    for _ in range(3):
        ask(way, graph, {"messages": [HumanMessage("x")]})
    assert getting.runs.runs == ["a", "b"] * 3


@BOTH
def test_a_run_without_a_thread_is_one_with_its_subgraphs(way):
    getting = Getting()
    inner = hand_built(getting)
    builder = StateGraph(MessagesState)
    builder.add_node("first", inner)
    builder.add_node("clear", lambda state: {"messages": [ai(call("get", {"key": "a"}, "9"))]})
    builder.add_node("second", ToolNode([getting.tool]))
    builder.add_edge(START, "first")
    builder.add_edge("first", "clear")
    builder.add_edge("clear", "second")
    ask(way, ibidem.wrap(builder.compile(), Guard(reads=["get"])), {"messages": [HumanMessage("x")]})
    assert getting.runs.runs == ["a", "b"]


@BOTH
def test_a_bound_guard_fixes_the_conversation(way):
    getting = Getting()
    guard = Guard(reads=["get"])
    original = node_graph(ToolNode([getting.tool]))
    graphs = [ibidem.wrap(original, guard.bind(conversation=name)) for name in ("x", "y", "x")]
    for graph in graphs:
        turn(way, graph, call("get", {"key": "a"}), config=thread("t"))
    assert len(getting.runs) == 2
    assert {row.conversation for row in guard.entries()} == {"x", "y"}
    assert turn(way, ibidem.wrap(original, guard), call("get", {"key": "a"}), config=thread("x"))[0].content == "a!"
    assert len(getting.runs) == 2, "a bound conversation is one with the thread of its name"


@BOTH
def test_an_ambient_conversation(way):
    getting = Getting()
    guard = Guard(reads=["get"])
    wrapped = ibidem.wrap(getting.tool, guard)
    for name in ("x", "y", "x"):
        with guard.conversation(name):
            ask(way, wrapped, {"key": "a"})
    assert len(getting.runs) == 2
    graph = ibidem.wrap(node_graph(ToolNode([getting.tool])), guard)
    assert contents(turn(way, graph, call("get", {"key": "a"}), config=thread("x"))) == ["a!"]
    assert len(getting.runs) == 2
