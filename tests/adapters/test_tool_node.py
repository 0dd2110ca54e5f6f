"""A ToolNode behind a guard: turns, wrappers, errors and inputs as LangGraph has them.

R17 (replays), R18 (what is no failure passes), R20 (nothing unless declared), and the seed's case: 20 calls, 4 unique.
"""

import asyncio
import itertools
import random
import threading
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from adapter_kit import BOTH, Counter, Heard, ai, ask, call, came, contents, ending, node_graph, plain, thread, turn
from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, StructuredTool, ToolException, tool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import InjectedState, InjectedStore, ToolNode, ToolRuntime
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command
from pydantic import BaseModel
from typing_extensions import TypedDict

import ibidem
from ibidem import Guard, Live, Pure, Read, Write

GUARDS = {
    "undeclared": lambda: Guard(effects={"unused": Read()}),
    "declared": lambda: Guard(default=Read()),
}
EVERY_GUARD = pytest.mark.parametrize("kind", GUARDS)
MAKERS = {
    "instance": lambda tools, guard, **options: ibidem.wrap(ToolNode(tools, **options), guard),
    "ibidem.ToolNode": lambda tools, guard, **options: ibidem.ToolNode(tools, guard=guard, **options),
}
EVERY_MAKER = pytest.mark.parametrize("maker", MAKERS)
pytestmark = pytest.mark.filterwarnings("ignore:declared, but no tool:ibidem.report.events.IbidemWarning")


def alone(way, node, given, config=None, store=None):
    """Run a node outside any graph."""
    config = {"configurable": {"__pregel_runtime": Runtime(store=store), **(config or {})}}
    return ask(way, node, given, config)


def getter(runs=None, value=lambda: "value"):
    runs = Counter() if runs is None else runs

    @tool
    def get(key: str) -> str:
        """Get."""
        runs(key)
        return f"{key}: {value()}"

    return get, runs


# -- turns ------------------------------------------------------------------------------------------------------------

UNIQUE = ("a", "b", "c", "d")
ORDERS = {
    "one by one": [key for key in UNIQUE for _ in range(5)],
    "in turn": [*UNIQUE] * 5,
    "last ones late": ["a"] * 17 + ["b", "c", "d"],
    **{f"shuffled {seed}": random.Random(seed).sample([*UNIQUE] * 5, 20) for seed in range(3)},
}


@EVERY_MAKER
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads", [4, None])
def test_a_turn_of_synchronous_tools_runs_each_call_once_and_all_at_once(maker, order, threads):
    """Each of the 4 runs ends only when all 4 are under way: a repeat that takes a thread would starve them."""
    runs, together = Counter(), threading.Barrier(4)

    @tool
    def get(key: str) -> str:
        """Get."""
        runs(key)
        together.wait(20)
        return f"{key}!"

    node = MAKERS[maker]([get], Guard(reads=["get"]))
    calls = [call("get", {"key": key}, f"c{n}") for n, key in enumerate(ORDERS[order])]
    messages = turn("sync", node_graph(node), *calls, config={"max_concurrency": threads} if threads else None)
    assert sorted(runs.runs) == list(UNIQUE)
    assert [m.tool_call_id for m in messages] == [c["id"] for c in calls]
    assert contents(messages) == [f"{key}!" for key in ORDERS[order]]
    assert sorted(came(m) == "ran" for m in messages) == [False] * 16 + [True] * 4


@EVERY_MAKER
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_turn_in_an_asynchronous_graph_runs_each_call_once_and_all_at_once(maker, order, kind):
    runs, together, barrier = Counter(), [], threading.Barrier(4)

    @tool
    async def get(key: str) -> str:
        """Get."""
        runs(key)
        together.append(asyncio.Event())
        mine = together[-1]
        if len(together) == 4:
            for event in together:
                event.set()
        await asyncio.wait_for(mine.wait(), 20)
        return f"{key}!"

    @tool("get")
    def blocking(key: str) -> str:
        """Get."""
        runs(key)
        barrier.wait(20)
        return f"{key}!"

    node = MAKERS[maker]([get if kind == "async" else blocking], Guard(reads=["get"]))
    calls = [call("get", {"key": key}, f"c{n}") for n, key in enumerate(ORDERS[order])]
    messages = turn("async", node_graph(node), *calls)
    assert sorted(runs.runs) == list(UNIQUE)
    assert [m.tool_call_id for m in messages] == [c["id"] for c in calls]
    assert contents(messages) == [f"{key}!" for key in ORDERS[order]]


@BOTH
def test_a_warm_turn_runs_nothing_and_mixes_with_a_cold_one(way):
    get, runs = getter()
    graph = node_graph(ibidem.wrap(ToolNode([get]), Guard(reads=["get"])))
    turn(way, graph, *(call("get", {"key": k}, k) for k in "ac"), config=thread("t"))
    messages = turn(way, graph, *(call("get", {"key": k}, f"{n}") for n, k in enumerate("abcab")), config=thread("t"))
    assert [m.tool_call_id for m in messages] == ["0", "1", "2", "3", "4"]
    assert contents(messages) == [f"{k}: value" for k in "abcab"]
    assert sorted(runs.runs) == ["a", "b", "c"]
    assert [came(messages[n]) for n in (0, 2, 3)] == ["memo"] * 3


@pytest.mark.parametrize("effect", [None, Write(), Live()], ids=str)
def test_what_nobody_shares_starts_in_the_order_of_emission(effect):
    """R20: as without a guard, also where a call is repeated."""
    log = []

    @tool
    def act(key: str) -> str:
        """Act."""
        log.append(key)
        return key

    keys = ["a", "b", "a", "c", "b", "a"]
    guard = Guard(effects={"act": effect} if effect else {"unused": Read()})
    graph = node_graph(ibidem.wrap(ToolNode([act]), guard))
    turn("sync", graph, *(call("act", {"key": k}, f"{n}") for n, k in enumerate(keys)), config={"max_concurrency": 1})
    assert log == keys


def test_no_repeat_is_moved_past_what_changes_it():
    log = []

    @tool
    def get(key: str) -> int:
        """Get."""
        log.append(f"get {key}")
        return len(log)

    @tool
    def put(key: str) -> str:
        """Put."""
        log.append(f"put {key}")
        return key

    node = ibidem.wrap(ToolNode([get, put]), Guard(effects={"get": Read("k:{key}"), "put": Write("k:{key}")}))
    calls = [call(name, {"key": key}, f"{n}") for n, (name, key) in enumerate(
        [("get", "a"), ("get", "a"), ("get", "b"), ("put", "a"), ("get", "a"), ("get", "a"), ("put", "b"), ("get", "b")]
    )]  # fmt: skip
    turn("sync", node_graph(node), *calls, config={"max_concurrency": 1})
    for key in "ab":
        assert [line for line in log if line.endswith(key)] == [f"get {key}", f"put {key}", f"get {key}"]


FORMS = {
    "messages": lambda calls: [HumanMessage("x"), ai(*calls)],
    "dict": lambda calls: {"messages": [HumanMessage("x"), ai(*calls)]},
    "calls": list,
}


def answers(found):
    return found if isinstance(found, list) else found["messages"]


@BOTH
@EVERY_MAKER
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("changing", [Write("k:a"), Write(), None], ids=str)
def test_a_read_behind_a_write_in_one_message_is_neither_replayed_nor_merged(way, maker, form, changing):
    """With what an earlier turn left in the memo, and with a read before the write that is still under way."""
    get, runs = getter()

    @tool
    def put(key: str) -> str:
        """Put."""
        return key

    effects = {"get": Read("k:{key}"), **({"put": changing} if changing else {})}
    node = MAKERS[maker]([get, put], Guard(effects=effects))
    config = {"thread_id": f"behind {form}"}
    alone(way, node, FORMS[form]([call("get", {"key": "a"})]), config)
    assert runs.runs == ["a"]
    found = alone(
        way,
        node,
        FORMS[form]([call("get", {"key": "a"}, "1"), call("put", {"key": "a"}, "2"), call("get", {"key": "a"}, "3")]),
        config,
    )
    messages = answers(found)["messages"] if isinstance(answers(found), dict) else answers(found)
    assert [m.tool_call_id for m in messages] == ["1", "2", "3"]
    assert came(messages[0]) == "memo"
    assert came(messages[2]) == "ran"
    assert runs.runs == ["a", "a"]


@BOTH
def test_a_read_behind_a_write_does_not_join_a_read_before_it(way):
    runs, puts = Counter(), Counter()

    @tool
    def get(key: str) -> str:
        """Get."""
        runs(key)
        return f"{key} after {len(puts)}"

    @tool
    def put(key: str) -> str:
        """Put."""
        puts(key)
        return key

    node = ibidem.wrap(ToolNode([get, put]), Guard(effects={"get": Read("k:{key}"), "put": Write("k:{key}")}))
    calls = [call("get", {"key": "a"}, "1"), call("put", {"key": "a"}, "2"), call("get", {"key": "a"}, "3")]
    messages = turn(way, node_graph(node), *calls)
    assert [came(m) for m in messages] == ["ran"] * 3
    assert contents(messages) == ["a after 0", "a", "a after 1"]


@BOTH
def test_an_unknown_tool_may_change_anything(way):
    get, runs = getter()
    graph = node_graph(ibidem.wrap(ToolNode([get]), Guard(reads=["get"])))
    turn(way, graph, call("get", {"key": "a"}), config=thread("t"))
    messages = turn(way, graph, call("missing", {}, "1"), call("get", {"key": "a"}, "2"), config=thread("t"))
    assert messages[0].status == "error"
    assert came(messages[1]) == "ran"
    assert len(runs) == 2


# -- inputs and outputs -------------------------------------------------------------------------------------------------


class ChatDict(TypedDict):
    chat: Annotated[list[AnyMessage], add_messages]


@dataclass
class ChatData:
    chat: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)


class ChatModel(BaseModel):
    chat: Annotated[list[AnyMessage], add_messages]


@BOTH
@EVERY_MAKER
@pytest.mark.parametrize("state", [ChatDict, ChatData, ChatModel], ids=lambda s: s.__name__)
def test_other_message_keys_and_states(way, maker, state):
    get, runs = getter()
    builder = StateGraph(state)
    builder.add_node("tools", MAKERS[maker]([get], Guard(reads=["get"]), messages_key="chat"))
    builder.add_edge(START, "tools")
    graph = builder.compile()
    for number in (1, 2):
        found = ask(way, graph, {"chat": [ai(call("get", {"key": "a"}, f"{number}"))]}, thread("t"))
        assert found["chat"][-1].tool_call_id == f"{number}"
    assert came(found["chat"][-1]) == "memo"
    assert runs.runs == ["a"]


@BOTH
@EVERY_GUARD
@pytest.mark.parametrize("form", FORMS)
def test_every_input_gives_what_it_gives_without_a_guard(way, kind, form):
    get, _ = getter()

    def run(node):
        calls = [call("get", {"key": k}, f"{n}") for n, k in enumerate("abab")]
        return ending(lambda: [plain(m) for m in flat(alone(way, node, FORMS[form](calls), {"thread_id": "t"}))])

    def flat(found):
        return [m for part in found for m in (part["messages"] if isinstance(part, dict) else [part])] if isinstance(
            found, list
        ) else found["messages"]  # fmt: skip

    expected = run(ToolNode([get]))
    node = ibidem.wrap(ToolNode([get]), GUARDS[kind]())
    assert [run(node), run(node)] == [expected] * 2
    assert expected[0] == "gave"


@BOTH
@EVERY_GUARD
def test_commands_and_lists_pass_and_are_never_stored(way, kind):
    """R17."""
    runs = Counter()

    @tool
    def move(id: Annotated[str, InjectedToolCallId]) -> Command:  # noqa: A002
        """Move."""
        return Command(update={"messages": [ToolMessage(f"moved {runs(1)}", tool_call_id=id)]})

    @tool
    def several(id: Annotated[str, InjectedToolCallId]) -> list[Any]:  # noqa: A002
        """Several."""
        return [Command(update={"messages": []}), ToolMessage(f"several {runs(1)}", tool_call_id=id)]

    guard = GUARDS[kind]()
    graph = node_graph(ibidem.wrap(ToolNode([move, several]), guard))
    found = []
    for number in range(2):
        messages = turn(way, graph, call("move", {}, f"m{number}"), call("several", {}, f"s{number}"))
        found.extend(messages)
    assert len(runs) == 4
    assert sorted(m.tool_call_id for m in found) == ["m0", "m1", "s0", "s1"]
    assert len({m.content for m in found}) == 4
    assert len(guard.entries()) == 0


@BOTH
def test_a_replayed_message_is_appended_and_does_not_overwrite_the_first(way):
    """`add_messages` gives each message its id in place: one object returned twice would replace itself. R17."""
    get, runs = getter()
    builder = StateGraph(ChatDict)
    node = ibidem.wrap(ToolNode([get], messages_key="chat"), Guard(reads=["get"]))
    builder.add_node("tools", node)
    builder.add_node("again", lambda state: {"chat": [ai(call("get", {"key": "a"}, "second"))]})
    builder.add_node("tools again", node)
    builder.add_edge(START, "tools")
    builder.add_edge("tools", "again")
    builder.add_edge("again", "tools again")
    found = ask(way, builder.compile(), {"chat": [ai(call("get", {"key": "a"}, "first"))]})
    messages = [m for m in found["chat"] if isinstance(m, ToolMessage)]
    assert [m.tool_call_id for m in messages] == ["first", "second"]
    assert len({m.id for m in messages}) == 2
    assert len(runs) == 1


# -- errors -----------------------------------------------------------------------------------------------------------------


def on_value_error(problem: ValueError) -> str:
    return f"handled: {problem}"


HANDLERS = {
    "default": {},
    "True": {"handle_tool_errors": True},
    "False": {"handle_tool_errors": False},
    "text": {"handle_tool_errors": "try something else"},
    "type": {"handle_tool_errors": ValueError},
    "types": {"handle_tool_errors": (ValueError, ToolException)},
    "function": {"handle_tool_errors": on_value_error},
}


@BOTH
@EVERY_GUARD
@EVERY_MAKER
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("problem", [ValueError("bad"), KeyError("bad"), ToolException("bad"), None], ids=repr)
def test_errors_are_handled_as_without_a_guard_and_never_stored(way, kind, maker, handler, problem):
    def run(make):
        runs = Counter()

        @tool
        def get(key: int) -> str:
            """Get."""
            runs(key)
            if problem is not None:
                raise problem
            return "fine"

        node = make([get], **HANDLERS[handler])
        given = {"key": 1} if problem is not None else {"key": "no number"}
        return [
            ending(lambda: [plain(m) for m in alone(way, node, [ai(call("get", given))], {"thread_id": "t"})])
            for _ in range(2)
        ], len(runs)

    guard = GUARDS[kind]().replace(errors="raise")
    assert run(ToolNode) == run(lambda tools, **options: MAKERS[maker](tools, guard, **options))
    assert len(guard.entries()) == 0


@BOTH
@EVERY_GUARD
def test_one_failure_and_its_siblings_end_as_without_a_guard(way, kind):
    def run(make):
        @tool
        def get(key: str) -> str:
            """Get."""
            if key == "b":
                raise ValueError(key)
            return key

        calls = [call("get", {"key": k}, f"{n}") for n, k in enumerate("abca")]
        return ending(lambda: [plain(m) for m in alone(way, make([get]), [ai(*calls)])])

    def handled(make):
        return run(lambda tools: make(tools, handle_tool_errors=True))

    for check in (run, handled):
        assert check(ToolNode) == check(
            lambda tools, **o: ibidem.wrap(ToolNode(tools, **o), GUARDS[kind]().replace(errors="raise"))
        )


# -- wrappers of the node ---------------------------------------------------------------------------------------------------


def wrappers(act):
    """The same wrapper in both colours."""

    def sync(request, execute):
        return act(request, lambda r: execute(r), lambda x, then: then(x))

    async def later(request, execute):
        answer = act(request, lambda r: ("await", r), lambda x, then: (x, then))
        then = None
        if isinstance(answer, tuple) and answer[0].__class__ is tuple:
            answer, then = answer
        if isinstance(answer, tuple):
            answer = await execute(answer[1])
        return then(answer) if then else answer

    return {"wrap_tool_call": sync, "awrap_tool_call": later}


def changed_arguments(request, execute, _):
    changed = {**request.tool_call, "args": {"key": request.tool_call["args"]["key"].upper()}}
    return execute(request.override(tool_call=changed))


def passing(request, execute, _):
    return execute(request)


def refusing(request, execute, _):
    if request.tool_call["args"]["key"] == "b":
        return ToolMessage("refused", tool_call_id=request.tool_call["id"], name="get")
    return execute(request)


def annotating(request, execute, then):
    return then(execute(request), lambda m: m.model_copy(update={"additional_kwargs": {"seen": True}}))


def raising(request, execute, _):
    if request.tool_call["args"]["key"] == "b":
        raise ValueError("no")
    return execute(request)


WRAPPERS = {
    f.__name__: f for f in (passing, changed_arguments, refusing, annotating, raising)
}  # fmt: skip


@BOTH
@EVERY_GUARD
@EVERY_MAKER
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("handled", [True, False])
def test_wrappers_see_every_call_and_the_memo_is_below_them(way, kind, maker, wrapper, handled):
    """An outermost cache would skip what a wrapper checks; ours is innermost."""
    seen = Counter()

    def run(make):
        get, _ = getter()

        def act(request, execute, then):
            seen(request.tool_call["id"])
            return WRAPPERS[wrapper](request, execute, then)

        node = make([get], handle_tool_errors=handled, **wrappers(act))
        calls = [call("get", {"key": k}, f"{n}") for n, k in enumerate("abca")]
        found = []
        for _ in range(2):
            found.append(ending(lambda: [plain(m) for m in alone(way, node, [ai(*calls)], {"thread_id": "t"})]))
        return found

    expected = run(ToolNode)
    handed = len(seen)
    assert run(lambda tools, **options: MAKERS[maker](tools, GUARDS[kind](), **options)) == expected
    if handled or wrapper != "raising":
        assert len(seen) == 2 * handed


@BOTH
@EVERY_MAKER
def test_a_wrapper_may_bring_a_tool_of_its_own(way, maker):
    get, runs = getter()
    guard = Guard(reads=["get", "extra"])

    @tool
    def extra(key: str) -> str:
        """Extra."""
        return f"extra {runs(key)}"

    def act(request, execute, _):
        return execute(request.override(tool=extra) if request.tool_call["name"] == "extra" else request)

    graph = node_graph(MAKERS[maker]([get], guard, **wrappers(act)))
    for number in range(2):
        messages = turn(way, graph, call("extra", {"key": "a"}, f"{number}"), config=thread("t"))
        assert contents(messages) == ["extra 1"]
    assert came(messages[0]) == "memo"
    assert runs.runs == ["a"]
    assert guard.stats().tools["extra"].memo == 1


@BOTH
def test_a_wrapper_that_tries_again_runs_again(way):
    """R17: an error is not remembered, also between two tries of one call."""
    runs = Counter()

    @tool
    def get(key: str) -> str:
        """Get."""
        if runs(key) < 3:
            raise ValueError(key)
        return "at last"

    def sync(request, execute):
        while True:
            try:
                return execute(request)
            except ValueError:
                continue

    async def later(request, execute):
        while True:
            try:
                return await execute(request)
            except ValueError:
                continue

    node = ibidem.wrap(
        ToolNode([get], handle_tool_errors=False, wrap_tool_call=sync, awrap_tool_call=later), Guard(reads=["get"])
    )
    assert contents(turn(way, node_graph(node), call("get", {"key": "a"}))) == ["at last"]
    assert len(runs) == 3


def test_a_synchronous_wrapper_in_an_asynchronous_graph():
    get, runs = getter()
    node = ibidem.wrap(ToolNode([get], wrap_tool_call=lambda request, execute: execute(request)), Guard(reads=["get"]))
    graph = node_graph(node)
    for _ in range(2):
        messages = turn(
            "async", graph, *(call("get", {"key": k}, k + str(n)) for n, k in enumerate("aab")), config=thread("t")
        )
    assert sorted(runs.runs) == ["a", "b"]
    assert contents(messages) == ["a: value", "a: value", "b: value"]


# -- nodes ------------------------------------------------------------------------------------------------------------------


class Watching(ToolNode):
    """Keeps state of its own, and refuses some calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen = 0
        self.refused: set[str] = set()

    def _check(self, call):
        self.seen += 1
        if call["args"]["key"] in self.refused:
            return ToolMessage("refused", tool_call_id=call["id"], name=call["name"])
        return None

    def _run_one(self, call, *args):
        return self._check(call) or super()._run_one(call, *args)

    async def _arun_one(self, call, *args):
        return self._check(call) or await super()._arun_one(call, *args)


@BOTH
@EVERY_GUARD
def test_a_subclass_keeps_its_state_and_sees_every_call(way, kind):
    get, runs = getter()
    original = Watching([get])
    node = ibidem.wrap(original, GUARDS[kind]())
    assert isinstance(node, Watching) and type(node).__name__ == "Watching"
    graph = node_graph(node)
    for _ in range(3):
        turn(way, graph, call("get", {"key": "a"}), config=thread("t"))
    assert node.seen == 3
    assert len(runs) == (1 if kind == "declared" else 3)
    node.refused.add("a")
    assert contents(turn(way, graph, call("get", {"key": "a"}), config=thread("t"))) == ["refused"]


def test_the_original_node_stays_as_it_is():
    get, runs = getter()
    original = ToolNode([get], name="mine", tags=["t"])
    before = dict(vars(original))
    node = ibidem.wrap(original, Guard(reads=["get"]))
    assert vars(original) == before
    assert type(original) is ToolNode
    assert isinstance(node, ToolNode)
    assert node.name == "mine" and node.tags == ["t"]
    assert node.tools_by_name == original.tools_by_name == {"get": get}
    assert node.func.__self__ is node and node.afunc.__self__ is node
    assert ibidem.guard_of(original) is None
    for _ in range(2):
        turn("sync", node_graph(original), call("get", {"key": "a"}), config=thread("t"))
    assert len(runs) == 2


@EVERY_MAKER
def test_a_wrapped_node_is_answered_as_it_is(maker):
    get, _ = getter()
    guard = Guard(reads=["get"])
    node = MAKERS[maker]([get], guard)
    assert ibidem.wrap(node, guard) is node
    assert ibidem.guard_of(node) is guard
    with pytest.raises(ValueError, match="another guard"):
        ibidem.wrap(node, Guard(reads=["get"]))


def test_a_node_of_plain_functions_and_of_wrapped_tools():
    runs = Counter()

    def get(key: str) -> int:
        """Get."""
        return runs(key)

    guard = Guard(reads=["get"])
    nodes = (ibidem.ToolNode([get], guard=guard), ToolNode([ibidem.wrap(tool(get), guard)]))
    for number, node in enumerate(nodes, 1):
        for _ in range(2):
            found = turn("sync", node_graph(node), call("get", {"key": "a"}), config=thread("t"))
            assert contents(found) == [str(number)]


def test_the_default_guard_of_a_node_is_its_own():
    get, runs = getter()
    with pytest.warns(ibidem.IbidemWarning, match="nothing is declared"):
        nodes = [ibidem.ToolNode([get]), ibidem.ToolNode([get])]
    assert ibidem.guard_of(nodes[0]) is not ibidem.guard_of(nodes[1])
    assert turn("sync", node_graph(nodes[0]), call("get", {"key": "a"}))[0].content == "a: value"


# -- what the framework injects ------------------------------------------------------------------------------------------------


def injected(scope):
    """Tools that take state, store, runtime and call id, with what they were given."""
    seen = Counter()

    @tool
    def of_state(key: str, state: Annotated[dict, InjectedState]) -> str:
        """Of state."""
        seen(len(state["messages"]))
        return key

    @tool
    def of_field(key: str, messages: Annotated[list, InjectedState("messages")]) -> str:
        """Of a field."""
        seen(len(messages))
        return key

    @tool
    def of_store(key: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
        """Of the store."""
        seen(store.get(("x",), "k").value["v"])
        return key

    @tool
    def of_runtime(key: str, runtime: ToolRuntime) -> str:
        """Of the runtime."""
        seen(runtime.tool_call_id)
        return key

    @tool
    def of_id(key: str, id: Annotated[str, InjectedToolCallId]) -> str:  # noqa: A002
        """Of the id."""
        seen(id)
        return f"{key} {id}"

    return [of_state, of_field, of_store, of_runtime, of_id], seen


@BOTH
@EVERY_MAKER
@pytest.mark.parametrize("name", ["of_state", "of_field", "of_store", "of_runtime", "of_id"])
@pytest.mark.parametrize("spelled", [False, True])
def test_injected_arguments_arrive_and_are_no_part_of_the_key(way, maker, name, spelled):
    """R15: a tool that takes them is not remembered unless that is spelled out."""
    tools, seen = injected(None)
    guard = Guard(effects={"of_*": Read(scope="conversation") if spelled else Read()})
    store = InMemoryStore()
    store.put(("x",), "k", {"v": 1})
    graph = node_graph(MAKERS[maker](tools, guard), store=store)
    for number in range(2):
        messages = turn(way, graph, call(name, {"key": "a"}, f"c{number}"), config=thread("t"))
    assert len(seen) == (1 if spelled else 2)
    assert messages[0].status == "success"
    assert [came(m) for m in messages] == ["memo" if spelled else "ran"]
    if not spelled:
        (reason,) = guard.stats().uncacheable
        assert "scope=" in reason and "identity=" in reason
    assert not any(
        each in row.arguments for row in guard.entries() for each in ("state", "store", "runtime", '"id"', "messages")
    )


@BOTH
def test_what_a_model_gives_for_injected_arguments_is_not_believed(way):
    tools, seen = injected(None)
    graph = node_graph(ibidem.wrap(ToolNode(tools), Guard(effects={"of_*": Read(scope="conversation")})))
    turn(way, graph, call("of_id", {"key": "a", "id": "forged"}, "real"))
    assert seen.runs == ["real"]


def test_callbacks_of_a_graph_hear_of_hits():
    get, runs = getter()
    graph = node_graph(ibidem.wrap(ToolNode([get]), Guard(reads=["get"])))
    told = []
    for number in range(2):
        heard = Heard()
        turn("sync", graph, call("get", {"key": "a"}, "c"), config={**thread("t"), "callbacks": [heard]})
        told.append(heard.events)
    assert len(runs) == 1
    assert told[0] == told[1]
    assert [event[0] for event in told[0]] == ["start", "end"]


def test_a_conversation_of_many_turns_is_never_stale():
    """Random turns of reads and writes against a plain dictionary: what a turn reads is no older than its beginning."""
    random_ = random.Random(7)
    world = dict.fromkeys("abc", 0)
    lock = threading.Lock()

    @tool
    def get(key: str) -> int:
        """Get."""
        with lock:
            return world[key]

    @tool
    def put(key: str) -> str:
        """Put."""
        with lock:
            world[key] += 1
        return "done"

    guard = Guard(effects={"get": Read("k:{key}"), "put": Write("k:{key}")})
    graph = node_graph(ibidem.wrap(ToolNode([get, put]), guard))
    ids = itertools.count()
    for step in range(60):
        before = dict(world)
        calls = [
            call(random_.choice(["get", "get", "get", "put"]), {"key": random_.choice("abc")}, f"c{next(ids)}")
            for _ in range(random_.randint(1, 6))
        ]
        messages = turn("sync" if step % 2 else "async", graph, *calls, config=thread("t"))
        for made, message in zip(calls, messages, strict=True):
            assert message.tool_call_id == made["id"]
            if made["name"] == "get":
                assert before[made["args"]["key"]] <= int(message.content) <= world[made["args"]["key"]]
    stats = guard.stats()
    assert stats.memo > 10 and stats.tools["put"].ran == sum(world.values())


def test_pure_tools_outlive_writes_and_a_plain_structured_tool_is_found_by_name():
    runs = Counter()
    found = StructuredTool.from_function(lambda a: runs(a), name="square", description="Square.", args_schema={
        "type": "object", "properties": {"a": {"type": "integer"}}
    })  # fmt: skip

    @tool
    def put(key: str) -> str:
        """Put."""
        return key

    graph = node_graph(ibidem.wrap(ToolNode([found, put]), Guard(effects={"square": Pure()})))
    turn("sync", graph, call("square", {"a": 2}), config=thread("t"))
    turn("sync", graph, call("put", {"key": "x"}), config=thread("t"))
    assert came(turn("sync", graph, call("square", {"a": 2}), config=thread("t"))[0]) == "memo"
    assert len(runs) == 1
