"""People in the loop: an answer belongs to the one call that asked.

R18 (interrupts, parent commands and invalid resumes pass), R19 (what ever interrupted is never replayed or merged).
"""

import threading
from typing import Any

import pytest
from adapter_kit import BOTH, Counter, ai, ask, call, came, forget_tasks, saying, thread
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Send, interrupt

import ibidem
from ibidem import Guard, Pure, Read, Write

pytestmark = pytest.mark.filterwarnings("ignore:declared, but no tool:ibidem.report.events.IbidemWarning")


def loop(model, tools, saver):
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=saver)


def sending(model, tools, saver):
    """Every call a task of its own, as `create_agent` does it."""
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model",
        lambda state: [Send("tools", [c]) for c in state["messages"][-1].tool_calls] or "__end__",
        ["tools", "__end__"],
    )
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=saver)


def agent(model, tools, saver):
    agents = pytest.importorskip("langchain.agents")
    return agents.create_agent(model, tools, checkpointer=saver)


HAND_BUILT = {"hand-built": loop}
APART = {"create_agent": agent, "send": sending}
EVERY_GRAPH = pytest.mark.parametrize("kind", {**HAND_BUILT, **APART})
EACH_APART = pytest.mark.parametrize("kind", APART)
MAKE = {**HAND_BUILT, **APART}

GUARDS = {
    "undeclared": {"effects": {"unused": Read()}},
    "Read": {"effects": {"pay": Read(), "look": Read()}},
    "Pure": {"effects": {"pay": Pure(), "look": Pure()}},
    "shared": {"effects": {"pay": Pure(scope="shared"), "look": Read(scope="shared")}},
    "Write": {"effects": {"pay": Write(), "look": Read()}},
}
APART_GUARDS = {**GUARDS, "Write": {"effects": {"pay": Write(lambda _: []), "look": Read()}}}
"""Here two payments touch nothing in common: otherwise the second would ask only after the first was answered."""
EVERY_GUARD = pytest.mark.parametrize("declared", GUARDS)


def paying():
    """A tool that asks before it pays, and what it did."""
    paid = Counter()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        answer = interrupt({"pay": amount})
        if answer == "YES":
            paid(amount)
        return f"{amount}: {answer}"

    return pay, paid


def answers(state):
    return {m.tool_call_id: m.content for m in state["messages"] if isinstance(m, ToolMessage)}


def start(way, graph, name="t"):
    return ask(way, graph, {"messages": [HumanMessage("x")]}, thread(name))


A_AND_B = ai(call("pay", {"amount": 5}, "A"), call("pay", {"amount": 5}, "B"))


def pending(graph, name="t"):
    """The interrupts that wait, by the id of the call that asks, as far as the tasks tell."""
    return [i for task in graph.get_state(thread(name)).tasks for i in task.interrupts]


# -- two identical calls, two answers -----------------------------------------------------------------------------------


@BOTH
@EACH_APART
@EVERY_GUARD
def test_a_yes_b_no_resumed_together(way, kind, declared):
    """R19: through the flight that both would share, and through the memo."""
    pay, paid = paying()
    graph = ibidem.wrap(MAKE[kind](saying(A_AND_B, "done"), [pay], InMemorySaver()), Guard(**APART_GUARDS[declared]))
    start(way, graph)
    waiting = pending(graph)
    assert len(waiting) == 2
    assert len({i.id for i in waiting}) == 2
    assert len(paid) == 0
    found = ask(way, graph, Command(resume={waiting[0].id: "YES", waiting[1].id: "NO"}), thread("t"))
    assert answers(found) == {"A": "5: YES", "B": "5: NO"}
    assert paid.runs == [5]
    assert {came(m) for m in found["messages"] if isinstance(m, ToolMessage)} == {"ran"}


@BOTH
@EACH_APART
@EVERY_GUARD
@pytest.mark.parametrize("first", [0, 1])
def test_a_yes_b_no_resumed_one_by_one(way, kind, declared, first):
    pay, paid = paying()
    graph = ibidem.wrap(MAKE[kind](saying(A_AND_B, "done"), [pay], InMemorySaver()), Guard(**APART_GUARDS[declared]))
    start(way, graph)
    said = ["YES", "NO"]
    ids = [i.id for i in pending(graph)]
    ask(way, graph, Command(resume={ids[first]: said[first]}), thread("t"))
    assert ids[1 - first] in [i.id for i in pending(graph)]
    found = ask(way, graph, Command(resume={ids[1 - first]: said[1 - first]}), thread("t"))
    assert answers(found) == {"A": "5: YES", "B": "5: NO"}
    assert paid.runs == [5]


@BOTH
@EVERY_GUARD
def test_a_yes_b_no_in_one_node(way, declared):
    """A hand-built node asks one by one: all its calls are one task, and on resume all run again, the payment that was made too.

    Declared, what has ended does not: B's question is asked when A has paid, and A pays once.
    """
    pay, paid = paying()

    def run(wrap):
        graph = wrap(loop(saying(A_AND_B, "done"), [pay], InMemorySaver()))
        config = {**thread("t"), "max_concurrency": 1}
        stops = []
        given: Any = {"messages": [HumanMessage("x")]}
        for said in ("YES", "NO", None):
            found = ask(way, graph, given, config)
            stops.append([i.value for i in pending(graph)])
            given = Command(resume=said)
        given = answers(found)
        # On a loop both calls run at once, in threads: which of them asks first, and gets the YES, is open there.
        return stops, given if way == "sync" else sorted(given.values())

    expected = {"A": "5: YES", "B": "5: NO"}
    expected = ([[{"pay": 5}], [{"pay": 5}], []], expected if way == "sync" else sorted(expected.values()))
    assert run(lambda g: g) == expected
    before = len(paid)
    assert run(lambda g: ibidem.wrap(g, Guard(**GUARDS[declared]))) == expected
    assert before == 2
    assert len(paid) - before == (2 if declared == "undeclared" else 1)


@BOTH
@EACH_APART
@pytest.mark.parametrize("declared", ["Read", "Pure", "shared"])
def test_a_call_that_waits_for_one_that_interrupts_asks_for_itself(way, kind, declared):
    """R19, through a flight: the second call has boarded the first one's flight before that one asks."""
    paid = Counter()
    guard = Guard(**GUARDS[declared])
    boarded = threading.Event()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        if not boarded.is_set():
            never = threading.Event()
            for _ in range(5000):
                if any(flight.waiters for flight in list(guard._memo.flights._flights.values())):
                    break
                never.wait(0.002)
            else:
                raise AssertionError("the second call did not board the flight of the first")
            boarded.set()
        answer = interrupt({"pay": amount})
        paid(answer)
        return f"{amount}: {answer}"

    graph = ibidem.wrap(MAKE[kind](saying(A_AND_B, "done"), [pay], InMemorySaver()), guard)
    start(way, graph)
    waiting = pending(graph)
    assert len(waiting) == 2
    found = ask(way, graph, Command(resume={waiting[0].id: "YES", waiting[1].id: "NO"}), thread("t"))
    assert answers(found) == {"A": "5: YES", "B": "5: NO"}


def test_a_memo_that_knows_nothing_of_people_is_caught():
    """The negative control: the checks above find a plain dictionary in front of a tool that asks."""
    remembered: dict[int, str] = {}
    paid = Counter()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        if amount not in remembered:
            remembered[amount] = f"{amount}: {interrupt('?')} {paid(amount)}"
        return remembered[amount]

    graph = loop(saying(*PAY_AGAIN), [pay], InMemorySaver())
    start("sync", graph)
    found = ask("sync", graph, Command(resume="YES"), thread("t"))
    assert pending(graph) == []
    assert answers(found) == {"1": "5: YES 1", "2": "5: YES 1"}


# -- nothing approved is replayed -----------------------------------------------------------------------------------------


PAY_AGAIN = (ai(call("pay", {"amount": 5}, "1")), ai(call("pay", {"amount": 5}, "2")), "done")


@BOTH
@EVERY_GRAPH
@EVERY_GUARD
@pytest.mark.parametrize("lost", [False, True], ids=["marked", "mark lost"])
def test_an_approved_payment_is_never_replayed(way, kind, declared, lost):
    """R19: not in the same conversation, not on another thread, and not where the mark is lost: a new guard."""
    pay, paid = paying()
    saver = InMemorySaver()
    original = MAKE[kind](saying(*PAY_AGAIN), [pay], saver)
    guard = Guard(**GUARDS[declared])
    graph = ibidem.wrap(original, guard)

    def anew():
        return ibidem.wrap(original, Guard(**GUARDS[declared])) if lost else graph

    for name in ("t", "u"):
        start(way, anew(), name)
        assert len(pending(graph, name)) == 1
        ask(way, anew(), Command(resume="YES"), thread(name))
        assert len(pending(graph, name)) == 1, "the second payment asks again"
        found = ask(way, anew(), Command(resume="NO"), thread(name))
        assert answers(found) == {"1": "5: YES", "2": "5: NO"}
    assert paid.runs == [5, 5]
    assert len(guard.entries()) == 0


@BOTH
@EVERY_GRAPH
@pytest.mark.parametrize("declared", ["Read", "Pure", "shared"])
@pytest.mark.parametrize("lost", [False, True], ids=["marked", "mark lost"])
def test_a_tool_that_asks_only_sometimes_is_not_replayed_once_it_has_asked(way, kind, declared, lost):
    """Approved above a limit: what was approved is stored nowhere, whatever ran before."""
    paid = Counter()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        if amount > 10:
            answer = interrupt({"pay": amount})
            return f"{amount}: {answer} {paid(amount)}"
        return f"{amount}: paid {paid(amount)}"

    script = (ai(call("pay", {"amount": 50}, "1")), ai(call("pay", {"amount": 50}, "2")), "done")
    original = MAKE[kind](saying(*script), [pay], InMemorySaver())
    guard = Guard(**GUARDS[declared])
    for number, name in enumerate(("t", "u")):
        graph = ibidem.wrap(original, Guard(**GUARDS[declared]) if lost else guard)
        start(way, graph, name)
        ask(way, graph, Command(resume="YES"), thread(name))
        assert len(pending(graph, name)) == 1
        found = ask(way, graph, Command(resume="YES"), thread(name))
        assert answers(found) == {"1": f"50: YES {2 * number + 1}", "2": f"50: YES {2 * number + 2}"}
    assert len(guard.entries()) == 0


@BOTH
@EVERY_GRAPH
@pytest.mark.parametrize("declared", ["Read", "Pure", "shared"])
@pytest.mark.parametrize("where", ["here", "in another process"])
@pytest.mark.usefixtures("refusing")
def test_what_runs_again_beside_an_answer_is_not_stored_or_served(way, kind, declared, where):
    """R19, the backstop: a task that resumes never leads, joins, stores or is served."""
    pay, _ = paying()
    looked = Counter()

    @tool
    def look(key: str) -> str:
        """Look."""
        return f"{key} {looked(key)}"

    script = (ai(call("look", {"key": "a"}, "1"), call("pay", {"amount": 5}, "2")), "done")
    graph = ibidem.wrap(MAKE[kind](saying(*script), [look, pay], InMemorySaver()), Guard(**GUARDS[declared]))
    start(way, graph)
    if where != "here":
        forget_tasks()
    found = ask(way, graph, Command(resume="YES"), thread("t"))
    assert answers(found) == {"1": f"a {len(looked)}", "2": "5: YES"}
    # Where nothing is known of the node's first run, the sibling runs again; as a task of its own it does not.
    assert len(looked) == (2 if kind == "hand-built" and where != "here" else 1)
    assert came(next(m for m in found["messages"] if getattr(m, "tool_call_id", "") == "1")) == "ran"


@BOTH
@EVERY_GRAPH
def test_reads_are_remembered_before_and_after_people_were_asked(way, kind):
    """The next run of the conversation resumes nothing any more."""
    pay, _ = paying()
    looked = Counter()

    @tool
    def look(key: str) -> str:
        """Look."""
        return f"{key} {looked(key)}"

    def look_at(n):
        return ai(call("look", {"key": "a"}, f"look{n}"))

    script = (look_at(1), ai(call("pay", {"amount": 5}, "pay")), "done", look_at(2), "done")
    effects = {"look": Read("k:{key}"), "pay": Write("money")}
    graph = ibidem.wrap(MAKE[kind](saying(*script), [look, pay], InMemorySaver()), Guard(effects=effects))
    start(way, graph)
    ask(way, graph, Command(resume="YES"), thread("t"))
    found = start(way, graph)
    assert answers(found)["look2"] == "a 1"
    assert len(looked) == 1


# -- control flow passes (R18) ----------------------------------------------------------------------------------------------


@BOTH
@EVERY_GRAPH
@EVERY_GUARD
@pytest.mark.parametrize("flow", ["interrupt", "parent command", "bare interrupt"])
def test_control_flow_passes_and_is_no_failure(way, kind, declared, flow):
    """Never retried, counted as a failure, made a message, or stored."""
    runs = Counter()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        runs(amount)
        if flow == "parent command":
            raise ParentCommand(
                Command(graph=Command.PARENT, goto="elsewhere", update={"messages": [HumanMessage("p")]})
            )
        if flow == "bare interrupt":
            raise GraphInterrupt(())
        return interrupt("?")

    guard = Guard(**GUARDS[declared])
    inner = MAKE[kind](saying(ai(call("pay", {"amount": 5}, "1")), "done"), [pay], None)
    builder = StateGraph(MessagesState)
    builder.add_node("inner", ibidem.wrap(inner, guard))
    builder.add_node("elsewhere", lambda state: {"messages": [HumanMessage("elsewhere")]})
    builder.add_edge(START, "inner")
    graph = builder.compile(checkpointer=InMemorySaver())
    found = start(way, graph)
    stats = guard.stats()
    assert len(runs) == 1
    assert stats.total.failed == 0
    assert len(guard.entries()) == 0
    if flow == "parent command":
        assert [m.content for m in found["messages"]][-2:] == ["p", "elsewhere"]
    else:
        assert answers(found) == {}
        assert graph.get_state(thread("t")).next == ("inner",)


@BOTH
@EVERY_GRAPH
@EVERY_GUARD
def test_an_invalid_resume_fails_the_run_and_can_be_answered_again(way, kind, declared):
    """R18. LangGraph before 1.2 knows no response schema."""
    schema = pytest.importorskip("langgraph.errors")
    if not hasattr(schema, "is_invalid_resume"):
        pytest.skip("this LangGraph knows no invalid resumes")
    from pydantic import BaseModel

    class Approval(BaseModel):
        approved: bool

    paid = Counter()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        answer = interrupt({"pay": amount}, response_schema=Approval)
        return f"{amount}: {answer.approved} {paid(amount)}"

    guard = Guard(**GUARDS[declared])
    make = MAKE[kind](saying(ai(call("pay", {"amount": 5}, "1")), "done"), [pay], InMemorySaver())
    graph = ibidem.wrap(make, guard)
    start(way, graph)
    with pytest.raises(Exception) as caught:
        ask(way, graph, Command(resume={"nonsense": 1}), thread("t"))
    assert schema.is_invalid_resume(caught.value)
    assert guard.stats().total.failed == 0
    assert len(paid) == 0
    found = ask(way, graph, Command(resume={"approved": True}), thread("t"))
    assert answers(found) == {"1": "5: True 1"}


@BOTH
@EVERY_GRAPH
@pytest.mark.parametrize("handled", [False, True])
def test_a_failure_after_an_approval_is_a_failure(way, kind, handled):
    """An error that a tool raises is told apart from what a person answered."""
    runs = Counter()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        interrupt({"pay": amount})
        raise ToolException(f"no money {runs(amount)}")

    pay.handle_tool_error = handled
    graph = ibidem.wrap(
        MAKE[kind](saying(ai(call("pay", {"amount": 5}, "1")), "done"), [pay], InMemorySaver()),
        Guard(errors="raise", **GUARDS["Read"]),
    )
    start(way, graph)
    if handled:
        assert answers(ask(way, graph, Command(resume="YES"), thread("t"))) == {"1": "no money 1"}
    else:
        with pytest.raises(ToolException, match="no money 1"):
            ask(way, graph, Command(resume="YES"), thread("t"))


@BOTH
@pytest.mark.parametrize("declared", ["undeclared", "Read", "Pure"])
def test_human_in_the_loop_middleware(way, declared):
    """It decides before the tool is reached; what was edited is what is executed and remembered."""
    agents = pytest.importorskip("langchain.agents")
    middleware = pytest.importorskip("langchain.agents.middleware")
    paid = Counter()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount} {paid(amount)}"

    script = (
        ai(call("pay", {"amount": 5}, "A"), call("pay", {"amount": 5}, "B"), call("pay", {"amount": 5}, "C")),
        "done",
    )
    graph = ibidem.wrap(
        agents.create_agent(
            saying(*script),
            [pay],
            middleware=[middleware.HumanInTheLoopMiddleware(interrupt_on={"pay": True})],
            checkpointer=InMemorySaver(),
        ),
        Guard(**GUARDS[declared]),
    )
    start(way, graph)
    assert len(paid) == 0
    edited = {"type": "edit", "edited_action": {"name": "pay", "args": {"amount": 7}}}
    decisions = [{"type": "approve"}, edited, {"type": "reject", "message": "never"}]
    found = ask(way, graph, Command(resume={"decisions": decisions}), thread("t"))
    said = answers(found)
    assert sorted(paid.runs) == [5, 7]
    assert "paid 5" in said["A"] and "paid 7" in said["B"] and "never" in said["C"]


@BOTH
@pytest.mark.parametrize("declared", ["undeclared", "Read", "Pure", "shared"])
def test_interrupts_from_a_graph_that_is_a_tool(way, declared):
    """The inner graph asks; the outer call is marked too, and nobody is given its answer."""
    inner_paid = Counter()

    builder = StateGraph(MessagesState)

    def approve(state):
        return {"messages": [HumanMessage(f"{interrupt('?')} {inner_paid(1)}")]}

    builder.add_node("approve", approve)
    builder.add_edge(START, "approve")
    inner = builder.compile()

    @tool("pay")
    def blocking(amount: int) -> str:
        """Pay."""
        return inner.invoke({"messages": []})["messages"][-1].content

    @tool("pay")
    async def later(amount: int) -> str:
        """Pay."""
        return (await inner.ainvoke({"messages": []}))["messages"][-1].content

    guard = Guard(**GUARDS[declared])
    graph = ibidem.wrap(loop(saying(*PAY_AGAIN), [blocking if way == "sync" else later], InMemorySaver()), guard)
    start(way, graph)
    ask(way, graph, Command(resume="YES"), thread("t"))
    found = ask(way, graph, Command(resume="NO"), thread("t"))
    assert answers(found) == {"1": "YES 1", "2": "NO 2"}
    assert len(guard.entries()) == 0
