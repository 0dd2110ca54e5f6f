"""What is saved beside a question: values exactly, changes always, nothing that is not believed; and the graph is none the wiser."""

import asyncio
import logging
import threading

import pytest
from adapter_kit import ANYWHERE, BOTH, Counter, ai, ask, call, forget_tasks, in_a_node, node_graph, thread
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

import ibidem
from ibidem import Guard, Live, Plan, Write
from ibidem.resume import saving
from ibidem.resume.records import PLAIN, Done, Record

ROW = "__ibidem__"


class Opaque:
    """A value that no file can hold exactly."""


def rows(graph, name="t"):
    """What is saved of a thread, beside what LangGraph saves."""
    pending = graph.checkpointer.get_tuple(thread(name)).pending_writes
    return [value for _, channel, value in pending if channel == ROW]


def asking(gives):
    """A plan that changes something, looks, and then asks; and what ran of it."""
    ran = []

    def change():
        ran.append("change")
        return gives

    def look():
        ran.append("look")
        return gives

    def pay(changed):
        answer = interrupt("pay?")
        ran.append("pay")
        return f"paid {answer}"

    def build():
        plan = Plan()
        looked = plan.call(look)
        plan.call(pay, changed="x").after(plan.call(change).after(looked))
        return plan

    return build, Guard(effects={"change": Write("x"), "pay": Write("y"), "look": Live()}), ran


def resumed(way, gives):
    build, guard, ran = asking(gives)
    graph, results = in_a_node(way, build, guard)
    ask(way, graph, {"messages": []}, thread("t"))
    forget_tasks()
    ask(way, graph, Command(resume="yes"), thread("t"))
    return results[-1], ran


@BOTH
@pytest.mark.parametrize("value", [None, "text", {"a": [1, 2.5, ("t", b"b")]}, float("inf"), {1, 2}], ids=repr)
def test_a_plain_value_is_what_it_was(way, value):
    result, ran = resumed(way, value)
    assert (result["change"], result["look"], result["pay"]) == (value, value, "paid yes")
    assert type(result["change"]) is type(value)
    assert ran == ["look", "change", "pay"]


@BOTH
def test_a_change_that_gave_something_else_is_known_to_have_been_made(way):
    result, ran = resumed(way, Opaque())
    assert ran.count("change") == 1 and ran.count("look") == 2, "what only looks may look again"
    fault = result.outcome("change").fault
    assert fault.kind == "maybe_executed" and "It was made" in fault.message and "Opaque" in fault.message
    assert result.outcome("pay").fault.kind == "upstream_failed"


@BOTH
def test_arguments_are_not_saved_and_tell_calls_apart_all_the_same(way):
    """An approval that looks only, for each of a list: it counts for what was shown, wherever that stands in the list now."""
    names, asked = ["ann", "bob"], []

    def approve(name, token):
        asked.append(name)
        return interrupt(name)

    def build():
        plan = Plan()
        plan.call(approve, name=plan.item, token="hunter2").map(over=plan.call(people))
        return plan

    def people():
        return list(names)

    graph, results = in_a_node(way, build, Guard(effects={"approve": Live(), "people": Live()}), max_concurrency=1)
    state = ask(way, graph, {"messages": []}, thread("t"))
    for _ in range(2):
        forget_tasks()
        (shown,) = state["__interrupt__"]
        state = ask(way, graph, Command(resume=f"yes, {shown.value}"), thread("t"))
    assert results[-1]["approve"] == ["yes, ann", "yes, bob"]
    assert "hunter2" not in str(graph.checkpointer.writes)


def broken(row):
    return {**row, "records": {key: {**record, "done": 7} for key, record in row["records"].items()}}


def newer(row):
    return {**row, "form": saving._FORM + 1}


@BOTH
@pytest.mark.parametrize("spoil", [broken, newer])
def test_what_cannot_be_read_is_known_to_be_something(way, spoil, monkeypatch, caplog):
    """Another ibidem may have written it: no change is made that may have been made."""
    plain = InMemorySaver.put_writes
    monkeypatch.setattr(
        InMemorySaver,
        "put_writes",
        lambda self, config, writes, *args: plain(
            self, config, [(name, spoil(value) if name == ROW else value) for name, value in writes], *args
        ),
    )
    result, ran = resumed(way, "x")
    assert ran.count("change") == 1 and "pay" not in ran
    assert result.outcome("change").fault.kind == "maybe_executed"
    assert ("cannot be read" in caplog.text) == (spoil is broken)


def test_a_record_is_what_it_was():
    record = Record(PLAIN)
    record.done = {("a", -1): Done(None, PLAIN.read(PLAIN.write(_failed()))), ("b", 3): Done({"x": 1}, _failed(), True)}
    record.elements, record.asker, record.question = {"b": [1, "2"]}, ("b", 3), ["?"]
    record.offset, record.found, record.used, record.base = 1, 2, 3, 4
    record.questions, record.is_running = {("b", 3): {"ask": 1}}, False
    again = Record.read(record.write(), PLAIN)
    assert (again.elements, again.asker, again.question) == (record.elements, record.asker, record.question)
    assert (again.offset, again.found, again.used, again.base) == (1, 2, 3, 4)
    assert (again.questions, again.is_cut) == (record.questions, False)
    fault = again.done["b", 3].outcome.fault
    assert (fault.kind, fault.message, fault.retry_after, fault.attempts) == ("rate_limited", "Busy.", 3.0, 2)
    record.is_running = True
    assert Record.read(record.write(), PLAIN).is_cut


def _failed():
    from ibidem.core.call import Outcome
    from ibidem.core.faults import Fault

    return Outcome(fault=Fault(ConnectionError("secret"), "rate_limited", "Busy.", retry_after=3.0, attempts=2))


# -- the graph is none the wiser ----------------------------------------------------------------------------------------


def two_that_ask(ran):
    """A node of three calls, two of which ask."""

    @tool
    def put(key: str) -> str:
        """Put."""
        ran("put")
        return f"put {key}"

    @tool
    def pay(key: str) -> str:
        """Pay."""
        answer = interrupt(f"pay {key}?")
        ran(key)
        return f"{key} {answer}"

    return ToolNode([put, pay])


MESSAGE = ai(call("put", {"key": "p"}, "p"), call("pay", {"key": "a"}, "a"), call("pay", {"key": "b"}, "b"))
GUARD = {"put": Write("k:{key}"), "pay": Write("k:{key}")}


def told(state):
    return {m.tool_call_id: m.content for m in state["messages"] if isinstance(m, ToolMessage)}


def inside(node, below, **compiled):
    """A graph with a node of tools in a graph below it."""
    builder = StateGraph(MessagesState)
    builder.add_node("below", node_graph(node, **below))
    builder.add_edge(START, "below")
    return builder.compile(**compiled)


SHAPES = {
    "alone": lambda node: node_graph(node, checkpointer=InMemorySaver()),
    "in a subgraph": lambda node: inside(node, {}, checkpointer=InMemorySaver()),
    "in a subgraph that remembers": lambda node: inside(node, {"checkpointer": True}, checkpointer=InMemorySaver()),
    "two below": lambda node: _two_below(node),
}


def _two_below(node):
    builder = StateGraph(MessagesState)
    builder.add_node("middle", inside(node, {}))
    builder.add_edge(START, "middle")
    return builder.compile(checkpointer=InMemorySaver())


@ANYWHERE
@BOTH
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("shape", SHAPES)
def test_wherever_the_node_stands_and_whenever_the_graph_is_saved(way, shape, durability):
    ran = Counter()
    graph = ibidem.wrap(SHAPES[shape](two_that_ask(ran)), Guard(effects=GUARD))
    state = ask(way, graph, {"messages": [HumanMessage("x"), MESSAGE]}, thread("t"), durability=durability)
    for _ in range(2):
        (question,) = state["__interrupt__"]  # on a busy machine b may ask first
        word = "yes" if question.value == "pay a?" else "no"
        state = ask(way, graph, Command(resume=word), thread("t"), durability=durability)
    assert sorted(ran.runs) == ["a", "b", "put"]
    assert sorted(told(state).values()) == ["a yes", "b no", "put p"]


@ANYWHERE
@BOTH
def test_each_interrupt_may_be_answered_by_its_id(way):
    ran = Counter()
    graph = ibidem.wrap(node_graph(two_that_ask(ran), checkpointer=InMemorySaver()), Guard(effects=GUARD))
    state = ask(way, graph, {"messages": [MESSAGE]}, thread("t"))
    for _ in range(2):
        (asked,) = state["__interrupt__"]
        state = ask(way, graph, Command(resume={asked.id: f"said of {asked.value}"}), thread("t"))
    assert told(state) == {"p": "put p", "a": "a said of pay a?", "b": "b said of pay b?"}
    assert sorted(ran.runs) == ["a", "b", "put"]


@BOTH
def test_what_is_saved_shows_nowhere_in_the_state_of_a_graph(way):
    graph = ibidem.wrap(node_graph(two_that_ask(Counter()), checkpointer=InMemorySaver()), Guard(effects=GUARD))
    plain = node_graph(two_that_ask(Counter()), checkpointer=InMemorySaver())
    seen = []
    for each in (graph, plain):
        ask(way, each, {"messages": [HumanMessage("x", id="h"), MESSAGE.model_copy(update={"id": "m"})]}, thread("t"))
        state = each.get_state(thread("t"))
        tasks = [(task.name, task.error, [i.value for i in task.interrupts], task.result) for task in state.tasks]
        seen.append((state.values, state.next, tasks, len(list(each.get_state_history(thread("t"))))))
    assert rows(graph) and not rows(plain)
    assert seen[0] == seen[1]
    graph.checkpointer.delete_thread("t")
    assert graph.checkpointer.get_tuple(thread("t")) is None


@BOTH
def test_nothing_is_saved_where_nobody_is_asked(way):
    ran = Counter()

    @tool
    def put(key: str) -> str:
        """Put."""
        ran(key)
        return key

    graph = ibidem.wrap(
        node_graph(ToolNode([put]), checkpointer=InMemorySaver()), Guard(effects={"put": Write("k:{key}")})
    )
    ask(way, graph, {"messages": [ai(*(call("put", {"key": key}, key) for key in "ab"))]}, thread("t"))
    assert ROW not in str(graph.checkpointer.writes)


@ANYWHERE
@BOTH
def test_a_thread_that_goes_on_from_an_earlier_checkpoint_begins_anew(way):
    """What was done for another branch of a conversation is no answer in this one."""
    ran = Counter()
    graph = ibidem.wrap(node_graph(two_that_ask(ran), checkpointer=InMemorySaver()), Guard(effects=GUARD))
    ask(way, graph, {"messages": [MESSAGE]}, thread("t"))
    ask(way, graph, Command(resume="yes"), thread("t"))
    ask(way, graph, Command(resume="yes"), thread("t"))
    before = next(each for each in graph.get_state_history(thread("t")) if each.next == ("tools",))
    state = ask(way, graph, None, before.config)
    assert [each.value for each in state["__interrupt__"]] == ["pay a?"]
    assert ran.runs.count("put") == 2 and ran.runs.count("a") == 1


@ANYWHERE
@BOTH
def test_a_message_that_was_changed_while_a_person_was_asked_is_another(way):
    ran = Counter()
    graph = ibidem.wrap(node_graph(two_that_ask(ran), checkpointer=InMemorySaver()), Guard(effects=GUARD))
    message = MESSAGE.model_copy(update={"id": "m"})
    ask(way, graph, {"messages": [message]}, thread("t"))
    calls = [{**each, "args": {"key": "z"}} for each in message.tool_calls[:2]]
    graph.update_state(thread("t"), {"messages": [message.model_copy(update={"tool_calls": calls})]}, as_node=START)
    state = ask(way, graph, None, thread("t"))
    assert [each.value for each in state["__interrupt__"]] == ["pay z?"]
    state = ask(way, graph, Command(resume="yes"), thread("t"))
    assert told(state) == {"p": "put z", "a": "z yes"}
    assert sorted(ran.runs) == ["put", "put", "z"]


def test_a_change_that_ends_after_the_question_is_saved_when_it_has_ended():
    """The question waits a moment only; what is saved then is replaced."""
    let, ran = threading.Event(), Counter()

    @tool
    def slow(key: str) -> str:
        """Put, slowly."""
        let.wait(20)
        ran(key)
        return f"put {key}"

    @tool
    def pay(key: str) -> str:
        """Pay."""
        return f"paid {interrupt('pay?')}"

    node = ToolNode([slow, pay])
    graph = ibidem.wrap(
        node_graph(node, checkpointer=InMemorySaver()), Guard(effects={"slow": Write("s"), "pay": Write("p")})
    )

    async def main():
        message = ai(call("slow", {"key": "s"}, "s"), call("pay", {"key": "p"}, "p"))
        await graph.ainvoke({"messages": [message]}, thread("t"))
        begun = len(rows(graph))
        let.set()
        while len(rows(graph)) == begun:
            await asyncio.sleep(0.01)
        forget_tasks()
        return await graph.ainvoke(Command(resume="yes"), thread("t"))

    assert told(asyncio.run(main())) == {"s": "put s", "p": "paid yes"}
    assert ran.runs == ["s"]


@BOTH
@pytest.mark.usefixtures("refusing")
def test_a_checkpointer_that_refuses_keeps_nobody_from_being_asked(way, caplog):
    caplog.set_level(logging.WARNING)
    ran = Counter()
    graph = ibidem.wrap(node_graph(two_that_ask(ran), checkpointer=InMemorySaver()), Guard(effects=GUARD))
    ask(way, graph, {"messages": [MESSAGE]}, thread("t"))
    for _ in range(2):
        ask(way, graph, Command(resume="yes"), thread("t"))
    assert sorted(ran.runs) == ["a", "b", "put"], "this process knows"
    assert "could not be saved with the checkpoint" in caplog.text


def to_the_end(way, graph, given):
    """Answer whatever is asked, and give the end."""
    state = ask(way, graph, given, thread("t"))
    for _ in range(4):
        asked = state.get("__interrupt__") if isinstance(state, dict) else None
        if not asked:
            return state
        state = ask(way, graph, Command(resume={each.id: f"yes {each.value}" for each in asked}), thread("t"))
    raise AssertionError("it asks for ever")


@ANYWHERE
@BOTH
def test_nodes_that_ask_at_the_same_time_have_their_own_answers(way):
    ran = Counter()
    builder = StateGraph(MessagesState)
    for name in "xy":
        builder.add_node(name, two_that_ask(ran))
        builder.add_edge(START, name)
    graph = ibidem.wrap(builder.compile(checkpointer=InMemorySaver()), Guard(effects=GUARD))
    to_the_end(way, graph, {"messages": [MESSAGE]})
    assert sorted(ran.runs) == sorted(["a", "b", "put"] * 2), "each node makes its calls, and makes them once"


@ANYWHERE
@BOTH
def test_a_graph_that_stops_before_and_after_its_node_goes_on_as_any(way):
    ran = Counter()
    graph = node_graph(
        two_that_ask(ran), checkpointer=InMemorySaver(), interrupt_before=["tools"], interrupt_after=["tools"]
    )
    graph = ibidem.wrap(graph, Guard(effects=GUARD))
    ask(way, graph, {"messages": [MESSAGE]}, thread("t"))
    to_the_end(way, graph, None)
    assert sorted(told(ask(way, graph, None, thread("t"))).values()) == ["a yes pay a?", "b yes pay b?", "put p"]
    assert sorted(ran.runs) == ["a", "b", "put"]


@ANYWHERE
@BOTH
def test_a_plan_in_a_function_that_is_a_graph(way):
    ran, guard = Counter(), Guard(effects=GUARD)
    put, pay = two_that_ask(ran).tools_by_name.values()

    def build():
        plan = Plan()
        paid = plan.call(pay, key="a").after(plan.call(put, key="p"))
        plan.call(pay, key="b").after(paid)
        return plan

    def flow(given):
        return list(build().run(guard).values())

    async def aflow(given):
        return list((await build().arun(guard)).values())

    graph = entrypoint(checkpointer=InMemorySaver())(flow if way == "sync" else aflow)
    assert sorted(to_the_end(way, graph, 1)) == ["a yes pay a?", "b yes pay b?", "put p"]
    assert sorted(ran.runs) == ["a", "b", "put"]
