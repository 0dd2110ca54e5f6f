"""A node of tools that is resumed: no call is made twice, each has the answer that was given to it, and the order holds.

LangGraph runs the node again from its beginning, with all its calls, payments too (R18, R19).
"""

import asyncio
import inspect
import itertools
import os
import random
import threading

import pytest
from adapter_kit import ANYWHERE, BOTH, Counter, ai, ask, call, forget_tasks, saying, thread
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt
from pydantic import BaseModel, ValidationError

import ibidem
from ibidem import Guard, Live, Read, Write

EFFECTS = {"get": Read("k:{key}"), "put": Write("k:{key}"), "pay": Write("k:{key}"), "now": Live()}


class World:
    """Counters, and tools that read, change, and ask before they change."""

    def __init__(self, pause=0.0):
        self.state, self.made = {}, Counter()

        @tool
        def get(key: str) -> str:
            """Get."""
            self.made("get", key)
            return f"{key}={self.state.get(key, 0)}"

        @tool
        def put(key: str, value: str) -> str:
            """Put."""
            threading.Event().wait(pause)
            self.made("put", key)
            self.state[key] = value
            return f"put {value}"

        @tool
        def pay(key: str) -> str:
            """Pay."""
            answer = interrupt({"pay": key})
            self.made("pay", key)
            self.state[key] = answer
            return f"paid {answer}"

        @tool
        def now() -> str:
            """Now."""
            self.made("now", "")
            return "now"

        self.tools = [get, put, pay, now]


def node(tools, calls, **options):
    """A hand-built graph whose model makes these calls in one message."""
    model = saying(ai(*calls), "done")
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode(tools, **options))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=InMemorySaver())


def shown(graph, name="t"):
    return [each.value for task in graph.get_state(thread(name)).tasks for each in task.interrupts]


def answers(state):
    return {m.tool_call_id: m.content for m in state["messages"] if isinstance(m, ToolMessage)}


def start(way, graph, name="t"):
    return ask(way, graph, {"messages": [HumanMessage("x")]}, thread(name))


def answered(way, graph, name="t"):
    """Answer every question with the key that it asks about, one after the other; give the end."""
    found, asked = start(way, graph, name), []
    while questions := shown(graph, name):
        asked.append(questions[0]["pay"])
        assert len(asked) < 20
        found = ask(way, graph, Command(resume=f"yes to {questions[0]['pay']}"), thread(name))
    return found, asked


MIXED = [
    call("get", {"key": "a"}, "1"),
    call("put", {"key": "a", "value": "new"}, "2"),
    call("get", {"key": "a"}, "3"),
    call("now", {}, "4"),
    call("pay", {"key": "b"}, "5"),
    call("get", {"key": "b"}, "6"),
]


@ANYWHERE
@BOTH
def test_what_has_ended_is_not_made_again(way):
    world = World()
    found, asked = answered(way, ibidem.wrap(node(world.tools, MIXED), Guard(effects=EFFECTS)))
    assert answers(found) == {
        "1": "a=0",
        "2": "put new",
        "3": "a=new",
        "4": "now",
        "5": "paid yes to b",
        "6": "b=yes to b",
    }
    assert asked == ["b"]
    assert sorted(world.made.runs) == [
        ("get", "a"),
        ("get", "a"),
        ("get", "b"),
        ("now", ""),
        ("pay", "b"),
        ("put", "a"),
    ]


@BOTH
def test_without_a_guard_or_undeclared_the_change_is_made_twice(way):
    """The control."""
    for wrap in (lambda graph: graph, lambda graph: ibidem.wrap(graph, Guard(reads=["get"]))):
        world = World()
        answered(way, wrap(node(world.tools, MIXED)))
        assert world.made.runs.count(("put", "a")) == 2


@ANYWHERE
@BOTH
@pytest.mark.parametrize("slots", [1, 2, None])
def test_each_of_several_that_ask_has_its_own_answer_and_pays_once(way, slots):
    world = World()
    keys = ["a", "b", "c", "d"]
    calls = [*(call("pay", {"key": key}, key) for key in keys), call("put", {"key": "e", "value": "1"}, "e")]
    graph = ibidem.wrap(node(world.tools, calls), Guard(effects=EFFECTS)).with_config(max_concurrency=slots)
    found, asked = answered(way, graph)
    assert answers(found) == {**{key: f"paid yes to {key}" for key in keys}, "e": "put 1"}
    assert sorted(asked) == keys
    assert sorted(world.made.runs) == [*(("pay", key) for key in keys), ("put", "e")]


def test_without_a_guard_the_first_pays_again():
    """The control."""
    world = World()
    found, _ = answered("sync", node(world.tools, [call("pay", {"key": key}, key) for key in "ab"]))
    assert world.made.runs.count(("pay", "a")) == 2
    assert found


@ANYWHERE
@BOTH
def test_one_that_asks_twice_has_both_answers_and_nothing_else_begins_meanwhile(way):
    world, runs = World(), Counter()

    @tool
    def book(key: str) -> str:
        """Book."""
        first = interrupt({"pay": f"{key}1"})
        second = interrupt({"pay": f"{key}2"})
        runs(key)
        return f"{first}, {second}"

    calls = [
        call("book", {"key": "a"}, "a"),
        call("book", {"key": "b"}, "b"),
        call("put", {"key": "c", "value": "1"}, "c"),
    ]
    guard = Guard(effects={**EFFECTS, "book": Write("k:{key}")})
    found, asked = answered(way, ibidem.wrap(node([*world.tools, book], calls), guard))
    assert answers(found) == {"a": "yes to a1, yes to a2", "b": "yes to b1, yes to b2", "c": "put 1"}
    assert sorted(asked) == ["a1", "a2", "b1", "b2"]
    assert sorted(runs.runs) == ["a", "b"]
    assert world.made.runs == [("put", "c")]


def test_a_change_that_still_runs_when_somebody_is_asked_is_waited_for():
    world = World(pause=0.2)
    calls = [call("put", {"key": "a", "value": "1"}, "1"), call("pay", {"key": "b"}, "2")]
    found, _ = answered("async", ibidem.wrap(node(world.tools, calls), Guard(effects=EFFECTS)))
    assert answers(found) == {"1": "put 1", "2": "paid yes to b"}
    assert sorted(world.made.runs) == [("pay", "b"), ("put", "a")]


@ANYWHERE
def test_a_change_that_was_cut_off_is_not_made_again():
    """The loop on which it ran is gone."""
    runs, began = Counter(), threading.Event()
    world = World()

    @tool
    async def send(key: str) -> str:
        """Send."""
        runs(key)
        began.set()
        await asyncio.sleep(3600)
        return "sent"

    @tool
    async def approve(key: str) -> str:
        """Approve."""
        while not began.is_set():
            await asyncio.sleep(0.001)
        return interrupt({"pay": key})

    calls = [call("send", {"key": "a"}, "1"), call("approve", {"key": "b"}, "2"), call("get", {"key": "c"}, "3")]
    guard = Guard(effects={**EFFECTS, "send": Write("mail"), "approve": Write("k:{key}")})
    graph = ibidem.wrap(node([*world.tools, send, approve], calls), guard)
    asyncio.run(graph.ainvoke({"messages": [HumanMessage("x")]}, thread("t")))
    found = answers(asyncio.run(graph.ainvoke(Command(resume="yes"), thread("t"))))
    assert '"maybe_executed"' in found["1"]
    assert (found["2"], found["3"]) == ("yes", "c=0")
    assert runs.runs == ["a"]


@BOTH
@pytest.mark.usefixtures("refusing")
def test_where_nothing_could_be_saved_all_calls_are_made_again_and_have_their_answers(way, caplog):
    """As they would be without ibidem: in another process nothing is known of what had ended."""
    world = World()
    graph = ibidem.wrap(node(world.tools, MIXED), Guard(effects=EFFECTS))
    start(way, graph)
    forget_tasks()
    found = ask(way, graph, Command(resume="yes"), thread("t"))
    assert "could not be saved with the checkpoint" in caplog.text
    assert answers(found)["5"] == "paid yes"
    assert world.made.runs.count(("put", "a")) == 2
    assert world.made.runs.count(("pay", "b")) == 1


@ANYWHERE
@BOTH
def test_a_task_that_is_replayed_when_all_is_over_runs_anew(way):
    world = World()
    graph = ibidem.wrap(node(world.tools, MIXED), Guard(effects=EFFECTS))
    answered(way, graph)
    before = next(each for each in graph.get_state_history(thread("t")) if each.next == ("tools",))
    ask(way, graph, None, before.config)
    assert world.made.runs.count(("put", "a")) == 2


@ANYWHERE
@BOTH
def test_a_node_that_fails_begins_anew(way):
    """Whoever runs it again wants it run: what had ended is no answer to a question."""
    world, fails = World(), [True]

    @tool
    def breaks(key: str) -> str:
        """Break."""
        if fails.pop():
            raise ToolException("broken")
        return "mended"

    fails[:] = [False, True]
    calls = [call("put", {"key": "a", "value": "1"}, "1"), call("breaks", {"key": "b"}, "2")]
    guard = Guard(effects={**EFFECTS, "breaks": Write("b")}, errors="raise")
    graph = ibidem.wrap(node([*world.tools, breaks], calls, handle_tool_errors=False), guard)
    with pytest.raises(ToolException):
        start(way, graph)
    found = ask(way, graph, None, thread("t"))
    assert answers(found) == {"1": "put 1", "2": "mended"}
    assert world.made.runs.count(("put", "a")) == 2


@ANYWHERE
@BOTH
def test_a_wrapper_that_asks_for_each_call_is_answered_for_each(way):
    """It asks outside the tool, where the answers are counted for the call all the same."""
    world = World()

    def approved(request, execute):
        answer = interrupt({"pay": request.tool_call["args"]["key"]})
        message = execute(request)
        return message.model_copy(update={"content": f"{answer}: {message.content}"})

    async def aapproved(request, execute):
        answer = interrupt({"pay": request.tool_call["args"]["key"]})
        message = await execute(request)
        return message.model_copy(update={"content": f"{answer}: {message.content}"})

    calls = [call("put", {"key": key, "value": "1"}, key) for key in "abc"]
    wrapped = {"wrap_tool_call": approved} if way == "sync" else {"awrap_tool_call": aapproved}
    found, asked = answered(way, ibidem.wrap(node(world.tools, calls, **wrapped), Guard(effects=EFFECTS)))
    assert answers(found) == {key: f"yes to {key}: put 1" for key in "abc"}
    assert sorted(asked) == ["a", "b", "c"]
    assert sorted(world.made.runs) == [("put", "a"), ("put", "b"), ("put", "c")]


@ANYWHERE
@BOTH
def test_commands_and_failures_stand_as_they_were(way):
    runs, world = Counter(), World()

    @tool
    def note(key: str) -> Command:
        """Note."""
        runs("note", key)
        return Command(update={"messages": [ToolMessage("noted", tool_call_id=key)]})

    @tool
    def fails(key: str) -> str:
        """Fail."""
        runs("fails", key)
        raise ToolException("no such order")

    calls = [call("note", {"key": "n"}, "n"), call("fails", {"key": "f"}, "f"), call("pay", {"key": "p"}, "p")]
    guard = Guard(effects={**EFFECTS, "note": Write("n"), "fails": Write("f")})
    found, _ = answered(way, ibidem.wrap(node([*world.tools, note, fails], calls), guard))
    told = answers(found)
    assert (told["n"], told["p"]) == ("noted", "paid yes to p")
    assert "no such order" in told["f"]
    assert runs.runs == [("note", "n"), ("fails", "f")]


@ANYWHERE
@BOTH
def test_other_threads_and_later_messages_are_their_own(way):
    world = World()
    graph = ibidem.wrap(node(world.tools, MIXED), Guard(effects=EFFECTS))
    start(way, graph, "1")
    start(way, graph, "2")
    found = ask(way, graph, Command(resume="second"), thread("2"))
    assert answers(found)["5"] == "paid second"
    found = ask(way, graph, Command(resume="first"), thread("1"))
    assert answers(found)["5"] == "paid first"
    assert world.made.runs.count(("put", "a")) == 2  # once in each


def random_calls(rng, most):
    """The calls of a message: two to so many."""
    calls = []
    for number in range(rng.randrange(2, most + 1)):
        name, key = rng.choice(["get", "put", "pay", "pay"]), rng.choice("abc")
        arguments = {"key": key} if name != "put" else {"key": key, "value": f"v{number}"}
        calls.append(call(name, arguments, f"{number}"))
    return calls


def one_by_one(calls):
    """What the calls of a message give if they are made one after the other, and what they leave."""
    state, said = {}, {}
    for each in calls:
        name, key = each["name"], each["args"].get("key")
        if name == "put":
            state[key] = each["args"]["value"]
            said[each["id"]] = f"put {state[key]}"
        elif name == "pay":
            state[key] = f"yes to {key}"
            said[each["id"]] = f"paid {state[key]}"
        else:
            said[each["id"]] = f"{key}={state.get(key, 0)}"
    return said, state


@ANYWHERE
@pytest.mark.soak
@BOTH
def test_random_messages_give_what_their_calls_give_one_by_one(way):
    for seed in range(400 if os.environ.get("IBIDEM_SOAK") else 40):
        rng, world = random.Random(seed), World()
        calls = random_calls(rng, 6)
        slots = rng.choice([1, 2, None])
        graph = ibidem.wrap(node(world.tools, calls), Guard(effects=EFFECTS)).with_config(max_concurrency=slots)
        found, _ = answered(way, graph)
        expected, state = one_by_one(calls)
        assert answers(found) == expected, (seed, calls)
        assert world.state == state, (seed, calls)
        made = [(each["name"], each["args"]["key"]) for each in calls if each["name"] != "get"]
        assert sorted(run for run in world.made.runs if run[0] != "get") == sorted(made), (seed, calls)


@ANYWHERE
@BOTH
def test_an_answer_that_is_refused_leaves_the_question_and_what_had_ended(way):
    """R18: a value that does not match the interrupt's schema fails the run, and the same question is answered again."""
    if "response_schema" not in inspect.signature(interrupt).parameters:
        pytest.skip("this LangGraph takes any answer")
    world, approved = World(), Counter()

    class Approval(BaseModel):
        yes: bool

    @tool
    def approve(key: str) -> str:
        """Approve."""
        answer = interrupt({"pay": key}, response_schema=Approval)
        approved(key)
        return f"approved {key}: {answer.yes}"

    calls = [
        call("put", {"key": "p", "value": "1"}, "p"),
        *(call("approve", {"key": key}, key) for key in "ab"),
    ]
    guard = Guard(effects={**EFFECTS, "approve": Write("approval:{key}")})
    graph = ibidem.wrap(node([*world.tools, approve], calls), guard)
    start(way, graph)
    for _ in range(2):
        (question,) = shown(graph)
        with pytest.raises(ValidationError):
            ask(way, graph, Command(resume={"yes": "perhaps"}), thread("t"))
        assert shown(graph) == [question]
        (pending,) = (each for task in graph.get_state(thread("t")).tasks for each in task.interrupts)
        with pytest.raises(ValidationError):
            ask(way, graph, Command(resume={pending.id: {"yes": "perhaps"}}), thread("t"))
        found = ask(way, graph, Command(resume={pending.id: {"yes": question["pay"] == "a"}}), thread("t"))
    assert answers(found) == {"p": "put 1", "a": "approved a: True", "b": "approved b: False"}
    assert world.made.runs == [("put", "p")]
    assert sorted(approved.runs) == ["a", "b"]


class Stuck(InMemorySaver):
    """A checkpointer that saves nothing any more of what LangGraph gives it, once it is told so."""

    is_stuck = False

    async def aput_writes(self, config, writes, *args):
        if self.is_stuck and writes[0][0] != "__ibidem__":
            await asyncio.sleep(3600)
        await super().aput_writes(config, writes, *args)


@ANYWHERE
def test_an_answer_to_a_question_that_is_over_is_nobody_elses():
    """R19: A has paid and B has asked, but the run is cancelled before that is saved, and A's question is shown again."""
    world, saver = World(), Stuck()
    plain = node(world.tools, [call("pay", {"key": key}, key) for key in "ab"])
    graph = ibidem.wrap(plain.copy(update={"checkpointer": saver}), Guard(effects=EFFECTS))

    async def main():
        given = {"messages": [HumanMessage("x")]}
        await graph.ainvoke(given, thread("t"), durability="sync")
        saver.is_stuck = True
        running = asyncio.ensure_future(graph.ainvoke(Command(resume="yes to a"), thread("t"), durability="sync"))
        while world.made.runs != [("pay", "a")]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.wait([running])
        saver.is_stuck = False
        assert shown(graph) == [{"pay": "a"}]
        await graph.ainvoke(Command(resume="yes to a"), thread("t"))
        assert shown(graph) == [{"pay": "b"}]
        return answers(await graph.ainvoke(Command(resume="no to b"), thread("t")))

    assert asyncio.run(main()) == {"a": "paid yes to a", "b": "paid no to b"}
    assert world.made.runs == [("pay", "a"), ("pay", "b")]


async def interrupted_by_cancelling(seed, run, turns):
    """Answer the questions of a random message, and cancel one run after some turns of the loop.

    Returns:
        What the calls gave, the calls, and the world.
    """
    world, calls = World(pause=seed % 2 * 0.003), random_calls(random.Random(seed), 5)
    graph = ibidem.wrap(node(world.tools, calls), Guard(effects=EFFECTS))
    given = {"messages": [HumanMessage("x")]}
    for number in range(25):
        running = asyncio.ensure_future(graph.ainvoke(given, thread("t"), durability="sync"))
        for _ in range(turns if number == run else 0):
            await asyncio.sleep(0)
        if number == run:
            running.cancel()
        await asyncio.wait([running])
        state = await graph.aget_state(thread("t"))
        asked = [each.value["pay"] for task in state.tasks for each in task.interrupts]
        if not state.next and not asked:  # an older LangGraph names no next node where one asks again
            return answers(state.values), calls, world
        given = Command(resume=f"yes to {asked[0]}") if asked else None
    raise AssertionError("it does not end")


@ANYWHERE
@pytest.mark.soak
def test_whenever_a_run_is_cancelled_no_change_is_made_twice_and_no_answer_is_anothers():
    seeds = 25 if os.environ.get("IBIDEM_SOAK") else 2
    for seed, run, turns in itertools.product(range(seeds), (1, 2, 3), range(0, 60, 3)):
        found, calls, world = asyncio.run(interrupted_by_cancelling(seed, run, turns))
        expected, _ = one_by_one(calls)
        unknown = [name for name, content in found.items() if "maybe_executed" in content]
        assert unknown or found == expected, (seed, run, turns)
        for each in calls:
            kind = each["name"], each["args"]["key"]
            wanted = sum((other["name"], other["args"]["key"]) == kind for other in calls)
            assert kind[0] == "get" or world.made.runs.count(kind) <= wanted, (seed, run, turns)
