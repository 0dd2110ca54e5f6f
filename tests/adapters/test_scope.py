"""Nobody gets another's data (R15): two users through every adapter, anonymous runs side by side, and who is asked for."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from adapter_kit import BOTH, Counter, ai, ask, call, node_graph, saying, thread, turn, wait
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from typing_extensions import TypedDict

import ibidem
from ibidem import Guard, Read, Write

pytestmark = pytest.mark.filterwarnings("ignore:declared, but no tool:ibidem.report.events.IbidemWarning")

acting: ContextVar[str] = ContextVar("acting", default="nobody")
"""Whose data the tools answer with."""


def mailbox():
    """A tool that answers with the mail of whoever acts, and its runs."""
    runs = Counter()

    @tool
    def mail(box: str) -> str:
        """Mail."""
        runs(acting.get())
        return f"{box} of {acting.get()}"

    return mail, runs


# Each adapter: made once for a guard, then asked in a conversation by whoever acts.


def of_function(guard):
    runs = Counter()

    def mail(box: str) -> str:
        runs(acting.get())
        return f"{box} of {acting.get()}"

    async def amail(box: str) -> str:
        return mail(box)

    amail.__name__ = "mail"
    plain, later = ibidem.wrap(mail, guard), ibidem.wrap(amail, guard)

    def asked(way, conversation):
        with guard.conversation(conversation):
            return plain("inbox") if way == "sync" else wait(later("inbox"))

    return asked, runs


def of_tool(guard):
    mail, runs = mailbox()
    wrapped = ibidem.wrap([mail], guard)[0]

    def asked(way, conversation):
        with guard.conversation(conversation):
            return ask(way, wrapped, call("mail", {"box": "inbox"})).content

    return asked, runs


def of_tool_in_a_config(guard):
    mail, runs = mailbox()
    wrapped = ibidem.wrap(mail, guard)

    def asked(way, conversation):
        return ask(way, wrapped, call("mail", {"box": "inbox"}), thread(conversation, user_id=acting.get())).content

    return asked, runs


def of_node(guard):
    mail, runs = mailbox()
    graph = node_graph(ibidem.ToolNode([mail], guard=guard))

    def asked(way, conversation):
        return turn(way, graph, call("mail", {"box": "inbox"}), config=thread(conversation, user_id=acting.get()))[
            0
        ].content

    return asked, runs


def of_graph(guard):
    mail, runs = mailbox()
    graph = ibidem.wrap(node_graph(ToolNode([mail])), guard)

    def asked(way, conversation):
        return turn(way, graph, call("mail", {"box": "inbox"}), config=thread(conversation, user_id=acting.get()))[
            0
        ].content

    return asked, runs


def of_agent(guard):
    agents = pytest.importorskip("langchain.agents")
    mail, runs = mailbox()
    model = saying(ai(call("mail", {"box": "inbox"}, "1")), "done")
    graph = ibidem.wrap(agents.create_agent(model, [mail]), guard)

    def asked(way, conversation):
        found = ask(way, graph, {"messages": [HumanMessage("x")]}, thread(conversation, user_id=acting.get()))
        return next(m.content for m in found["messages"] if isinstance(m, ToolMessage))

    return asked, runs


def of_workflow(guard):
    mail, runs = mailbox()

    @entrypoint()
    def workflow(box: str) -> str:
        return mail.invoke({"box": box})

    @entrypoint()
    async def later(box: str) -> str:
        return await mail.ainvoke({"box": box})

    flows = {"sync": ibidem.wrap(workflow, guard), "async": ibidem.wrap(later, guard)}

    def asked(way, conversation):
        return ask(way, flows[way], "inbox", thread(conversation, user_id=acting.get()))

    return asked, runs


ADAPTERS = {
    "function": of_function,
    "tools in a list": of_tool,
    "tool with a config": of_tool_in_a_config,
    "ToolNode": of_node,
    "graph": of_graph,
    "create_agent": of_agent,
    "entrypoint": of_workflow,
}
EVERY_ADAPTER = pytest.mark.parametrize("adapter", ADAPTERS)


def who_acts(config, context):
    return acting.get()


class As:
    """Act as somebody."""

    def __init__(self, user: str) -> None:
        self.user = user

    def __enter__(self) -> None:
        self.token = acting.set(self.user)

    def __exit__(self, *_: Any) -> None:
        acting.reset(self.token)


@BOTH
@EVERY_ADAPTER
@pytest.mark.parametrize("scope", ["conversation", "user"])
def test_two_users_never_get_each_others_data(way, adapter, scope):
    """Identical calls, in turns; each user has two conversations."""
    guard = Guard(effects={"*mail": Read(scope=scope)}, user=who_acts)
    asked, runs = ADAPTERS[adapter](guard)
    for _ in range(3):
        for user in ("ann", "bob"):
            for number in (1, 2):
                with As(user):
                    assert asked(way, f"{user} {number}") == f"inbox of {user}"
    per_user = 2 if scope == "conversation" else 1
    assert sorted(runs.runs) == ["ann"] * per_user + ["bob"] * per_user


@BOTH
@EVERY_ADAPTER
def test_shared_is_for_everybody_and_only_where_it_is_declared(way, adapter):
    guard = Guard(effects={"*mail": Read(scope="shared")}, user=who_acts)
    asked, runs = ADAPTERS[adapter](guard)
    for user in ("ann", "bob"):
        with As(user):
            assert asked(way, user) == "inbox of ann"
    assert runs.runs == ["ann"]


@BOTH
@EVERY_ADAPTER
@pytest.mark.parametrize(
    "user",
    [
        None,
        lambda c, x: 1 / 0,
        lambda c, x: c["configurable"]["missing"],
        lambda c, x: None,
        lambda c, x: "",
        lambda c, x: True,
    ],
    ids=["not given", "raises", "missing", "None", "empty", "no name"],
)
def test_without_an_identity_nothing_of_a_user_is_remembered_and_it_is_counted(way, adapter, user):
    guard = Guard(effects={"*mail": Read(scope="user")}, user=user)
    asked, runs = ADAPTERS[adapter](guard)
    for who in ("ann", "bob", "ann"):
        with As(who):
            assert asked(way, "one") == f"inbox of {who}"
    assert len(runs) == 3
    assert len(guard.entries()) == 0
    ((reason, count),) = guard.stats().uncacheable.items()
    assert "user" in reason and count == 3


@BOTH
def test_bind_and_conversation_say_who_asks(way):
    mail, runs = mailbox()
    guard = Guard(effects={"mail": Read(scope="user")})
    for _ in range(2):
        for user in ("ann", "bob"):
            with As(user):
                bound = ibidem.wrap(mail, guard.bind(user=user))
                assert ask(way, bound, {"box": "inbox"}) == f"inbox of {user}"
                with guard.conversation("c", user=user):
                    assert ask(way, ibidem.wrap(mail, guard), {"box": "inbox"}) == f"inbox of {user}"
    assert sorted(runs.runs) == ["ann", "bob"]


@BOTH
def test_the_nearest_word_on_who_asks_wins(way):
    mail, runs = mailbox()
    guard = Guard(effects={"mail": Read(scope="user")}, user=lambda config, context: "from the config")
    with guard.conversation("c", user="around"):
        ask(way, ibidem.wrap(mail, guard.bind(user="bound")), {"box": "inbox"})
        ask(way, ibidem.wrap(mail, guard), {"box": "inbox"})
        with guard.conversation("d"):
            ask(way, ibidem.wrap(mail, guard), {"box": "inbox"})
    ask(way, ibidem.wrap(mail, guard), {"box": "inbox"})
    assert len(runs) == 3
    assert {row.conversation for row in guard.entries()} == {"c", ""}


@BOTH
def test_the_context_of_a_run_says_who_asks(way):
    class Context(TypedDict):
        user: str

    mail, runs = mailbox()
    builder = StateGraph(MessagesState, context_schema=Context)
    builder.add_node("tools", ToolNode([mail]))
    builder.add_edge(START, "tools")
    guard = Guard(effects={"mail": Read(scope="user")}, user=lambda config, context: context["user"])
    graph = ibidem.wrap(builder.compile(), guard)
    for user in ("ann", "bob", "ann"):
        with As(user):
            found = ask(way, graph, {"messages": [ai(call("mail", {"box": "inbox"}))]}, context={"user": user})
            assert found["messages"][-1].content == f"inbox of {user}"
    assert runs.runs == ["ann", "bob"]


# -- anonymous runs ---------------------------------------------------------------------------------------------------


def agent_of(mail, compiled=None):
    agents = pytest.importorskip("langchain.agents")
    script = (ai(call("mail", {"box": "inbox"}, "1")), ai(call("mail", {"box": "inbox"}, "2")), "done")
    return agents.create_agent(saying(*script), [mail], **(compiled or {}))


def hand_built_of(mail):
    builder = StateGraph(MessagesState)
    node = ToolNode([mail])
    for number in (1, 2):
        builder.add_node(
            f"model{number}", lambda state, n=number: {"messages": [ai(call("mail", {"box": "inbox"}, f"{n}"))]}
        )
        builder.add_node(f"tools{number}", node)
        builder.add_edge(f"model{number}", f"tools{number}")
    builder.add_edge(START, "model1")
    builder.add_edge("tools1", "model2")
    return builder.compile()


ANONYMOUS = {"create_agent": agent_of, "hand-built": hand_built_of}
COUNT = 50


@pytest.mark.parametrize("kind", ANONYMOUS)
@pytest.mark.parametrize("way", ["async", "threads"])
def test_fifty_anonymous_requests_side_by_side_never_cross(way, kind):
    """All are inside the tool at once, with identical arguments; each is answered with its own, and from its own memo."""
    runs = Counter()
    inside = threading.Barrier(COUNT)
    ready: dict[str, asyncio.Event] = {}

    @tool("mail")
    async def later(box: str) -> str:
        """Mail."""
        runs(acting.get())
        everybody = ready.setdefault("all", asyncio.Event())
        if len(runs) == COUNT:
            everybody.set()
        await asyncio.wait_for(everybody.wait(), 30)
        return f"{box} of {acting.get()}"

    @tool("mail")
    def blocking(box: str) -> str:
        """Mail."""
        runs(acting.get())
        inside.wait(30)
        return f"{box} of {acting.get()}"

    guard = Guard(reads=["mail"])
    graph = ibidem.wrap(ANONYMOUS[kind](later if way == "async" else blocking), guard)
    given = {"messages": [HumanMessage("x")]}

    if way == "async":

        async def request(number):
            acting.set(f"{number}")
            return await graph.ainvoke(given)

        async def everybody():
            return await asyncio.gather(*(asyncio.create_task(request(n)) for n in range(COUNT)))

        found = wait(everybody())
    else:

        def request(number):
            acting.set(f"{number}")
            return graph.invoke(given)

        with ThreadPoolExecutor(COUNT) as pool:
            found = list(pool.map(lambda n: copy_context().run(request, n), range(COUNT)))
    for number, state in enumerate(found):
        said = [m.content for m in state["messages"] if isinstance(m, ToolMessage)]
        assert said == [f"inbox of {number}"] * 2
    assert sorted(runs.runs, key=int) == [str(n) for n in range(COUNT)]
    assert guard.stats().memo == COUNT


def test_a_memo_without_scope_is_caught():
    """The negative control: the same requests through one dictionary cross."""
    remembered: dict[str, str] = {}

    @tool
    def mail(box: str) -> str:
        """Mail."""
        return remembered.setdefault(box, f"{box} of {acting.get()}")

    graph = hand_built_of(mail)
    said = []
    for user in ("ann", "bob"):
        with As(user):
            said.append(graph.invoke({"messages": []})["messages"][-1].content)
    assert said == ["inbox of ann"] * 2


@BOTH
def test_a_run_with_a_thread_and_one_without_share_nothing(way):
    mail, runs = mailbox()
    graph = ibidem.wrap(node_graph(ToolNode([mail])), Guard(reads=["mail"]))
    for config in (None, thread("1"), thread(1), None, thread("2"), thread("run")):
        turn(way, graph, call("mail", {"box": "inbox"}), config=config)
    assert len(runs) == 5, "the thread 1 and the thread '1' are one"


# -- what an undeclared call forgets --------------------------------------------------------------------------------------


@BOTH
def test_an_undeclared_call_forgets_the_reads_of_its_conversation_and_no_others(way):
    mail, runs = mailbox()

    @tool
    def act() -> str:
        """Act."""
        return "done"

    guard = Guard(effects={"mail": Read("never:named")})
    graph = ibidem.wrap(node_graph(ToolNode([mail, act])), guard)
    for name in ("t", "u"):
        turn(way, graph, call("mail", {"box": "inbox"}), config=thread(name))
    turn(way, graph, call("act"), config=thread("t"))
    for name in ("t", "u"):
        turn(way, graph, call("mail", {"box": "inbox"}), config=thread(name))
    assert len(runs) == 3


@BOTH
@pytest.mark.parametrize("scope", ["user", "shared"])
def test_an_undeclared_call_without_a_thread_is_told_to_its_user(way, scope):
    """Its conversation is never found again: so the user's entries, or without a user everybody's, are forgotten."""
    mail, runs = mailbox()

    @tool
    def act() -> str:
        """Act."""
        return "done"

    guard = Guard(effects={"mail": Read("never:named", scope=scope)}, user=who_acts)
    graph = ibidem.wrap(node_graph(ToolNode([mail, act])), guard)

    def look(user):
        with As(user):
            turn(way, graph, call("mail", {"box": "inbox"}))

    look("ann")
    look("bob")
    before = len(runs)
    with As("ann"):
        turn(way, graph, call("act"))
    look("bob")
    assert len(runs) == before, "what ann did is not told to bob"
    look("ann")
    assert len(runs) == before + 1


@BOTH
def test_a_write_is_seen_by_every_conversation_and_user(way):
    mail, runs = mailbox()

    @tool
    def send(box: str) -> str:
        """Send."""
        return "sent"

    guard = Guard(effects={"mail": Read("box:{box}", scope="user"), "send": Write("box:{box}")}, user=who_acts)
    graph = ibidem.wrap(node_graph(ToolNode([mail, send])), guard)
    for step in ("look", "write", "look"):
        for user in ("ann", "bob") if step == "look" else ("ann",):
            with As(user):
                name, box = ("mail", "inbox") if step == "look" else ("send", "inbox")
                turn(way, graph, call(name, {"box": box}), config=thread(user))
    assert sorted(runs.runs) == ["ann", "ann", "bob", "bob"]


@BOTH
def test_a_conversation_is_the_same_in_every_adapter(way):
    mail, runs = mailbox()
    guard = Guard(reads=["mail"])
    graph = ibidem.wrap(node_graph(ToolNode([mail]), checkpointer=InMemorySaver()), guard)
    turn(way, graph, call("mail", {"box": "inbox"}), config=thread("t"))
    wrapped = ibidem.wrap(mail, guard)
    with guard.conversation("t"):
        ask(way, wrapped, {"box": "inbox"})
    ask(way, ibidem.wrap(mail, guard.bind(conversation="t")), {"box": "inbox"})
    ask(way, wrapped, call("mail", {"box": "inbox"}), thread("t"))
    assert len(runs) == 1
