"""Resumes where things are not as they should be: loops that are blocked, tasks that are pushed out, plans inside of calls."""

import asyncio
import contextlib
import threading
from collections import Counter as Counted
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from adapter_kit import ANYWHERE, BOTH, Counter, ai, ask, call, forget_tasks, in_a_node, node_graph, thread
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

import ibidem
from ibidem import Guard, Live, Plan, Read, Write
from ibidem.resume import tasks

pytestmark = pytest.mark.filterwarnings("ignore:declared, but no tool")
"""One guard for the graph and for what its calls run."""

EFFECTS = {"put": Write("k:{key}"), "pay": Write("k:{key}"), "both": Write("b:{key}"), "settle": Write("s:{key}")}


class World:
    """Functions that change something, at once or when somebody says so; and what ran of them."""

    def __init__(self):
        self.made = Counter()

    def put(self, key):
        """Put."""
        self.made("put", key)
        return f"put {key}"

    def pay(self, key):
        """Pay."""
        answer = interrupt(f"pay {key}?")
        self.made("pay", key)
        return f"{answer} for {key}"

    def plan(self, key):
        """A plan that puts, and then pays."""

        def put(key):
            return self.put(key)

        def pay(key):
            return self.pay(key)

        plan = Plan()
        plan.call(pay, key=key).after(plan.call(put, key=key))
        return plan


def told(state):
    return {m.tool_call_id: m.content for m in state["messages"] if isinstance(m, ToolMessage)}


def answered(way, graph, *calls, most=9):
    """Answer whatever is asked with what was asked, one after the other; give the end, and what was asked."""
    state, asked = ask(way, graph, {"messages": [ai(*calls)]}, thread("t")), []
    while "__interrupt__" in state:
        (question,) = state["__interrupt__"]
        asked.append(question.value)
        assert len(asked) <= most, "it asks for ever"
        state = ask(way, graph, Command(resume=f"yes to {question.value}"), thread("t"))
    return state, asked


# -- tasks that are pushed out ------------------------------------------------------------------------------------------


@ANYWHERE
@BOTH
def test_a_task_that_is_under_way_is_known_however_many_others_there_are(way, monkeypatch):
    """R18, R19: a second plan of one task had the answers of the first, when others had pushed the task out between them."""
    monkeypatch.setattr(tasks, "TASKS", 1)
    world, guard, given = World(), Guard(effects=EFFECTS), []
    other, _ = in_a_node("sync", lambda: World().plan("z"), guard)

    def push_out():
        beside = threading.Thread(target=lambda: other.invoke({"messages": []}, thread("other")))
        beside.start()
        beside.join()

    def node(state):
        first = world.plan("a").run(guard)
        push_out()
        given.append((first["pay"], world.plan("b").run(guard)["pay"]))
        return {}

    async def anode(state):
        first = await world.plan("a").arun(guard)
        push_out()
        given.append((first["pay"], (await world.plan("b").arun(guard))["pay"]))
        return {}

    graph = node_graph(node if way == "sync" else anode, checkpointer=InMemorySaver())
    _, asked = answered(way, graph)
    assert asked == ["pay a?", "pay b?"]
    assert given == [("yes to pay a? for a", "yes to pay b? for b")]
    assert sorted(world.made.runs) == [("pay", "a"), ("pay", "b"), ("put", "a"), ("put", "b")]


def test_what_is_over_is_pushed_out(monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", 2)
    graph, _ = in_a_node("sync", lambda: World().plan("a"), Guard(effects=EFFECTS))
    for name in range(5):
        graph.invoke({"messages": []}, thread(name))
    assert len(tasks.KEPT.tasks) == 2


# -- a loop that is blocked ---------------------------------------------------------------------------------------------


@ANYWHERE
def test_a_checkpointer_that_works_on_a_loop_is_not_waited_for_there(tmp_path, caplog, anywhere):
    """A plan that is not awaited blocks the loop on which it would be saved: it waited for itself, for ever."""
    saving = pytest.importorskip("langgraph.checkpoint.sqlite.aio")
    world, given = World(), []

    async def node(state):
        given.append(world.plan("a").run(Guard(effects=EFFECTS)))
        return {}

    async def main():
        async with saving.AsyncSqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
            graph = node_graph(node, checkpointer=saver)
            await graph.ainvoke({"messages": []}, thread("t"))
            await graph.ainvoke(Command(resume="yes"), thread("t"))

    running = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    running.start()
    running.join(30)
    assert not running.is_alive()
    assert "plan.arun()" in caplog.text
    if anywhere == "here":
        assert given[0]["pay"] == "yes for a"
    else:
        assert given[0].outcome("put").fault.kind == "maybe_executed"
    assert world.made.runs.count(("put", "a")) == 1


# -- plans inside of calls ----------------------------------------------------------------------------------------------


def running_plans(way, world, guard, build, after):
    """A tool that runs a plan, and then does something."""

    def both(key: str) -> str:
        """Run both."""
        return after(build(key).run(guard), key)

    async def aboth(key: str) -> str:
        """Run both."""
        return after(await build(key).arun(guard), key)

    return tool("both")(both) if way == "sync" else tool("both")(aboth)


def graph_of(way, around, both, guard):
    """A graph that makes the calls of a message, in a node of tools or as steps of a plan."""
    if around == "node":
        return ibidem.wrap(node_graph(ToolNode([both]), checkpointer=InMemorySaver()), guard)

    def build(state):
        plan, keys = Plan(), [each["args"]["key"] for each in state["messages"][-1].tool_calls]
        return plan, {key: plan.call(both, key=key) for key in keys}

    def give(result, steps):
        outcomes = {key: result.outcome(step) for key, step in steps.items()}
        return {
            "messages": [ToolMessage(str(each.value or each.fault), tool_call_id=k) for k, each in outcomes.items()]
        }

    def node(state):
        plan, steps = build(state)
        return give(plan.run(guard), steps)

    async def anode(state):
        plan, steps = build(state)
        return give(await plan.arun(guard), steps)

    return node_graph(node if way == "sync" else anode, checkpointer=InMemorySaver())


CALLS = [call("both", {"key": key}, key) for key in "abc"]


@ANYWHERE
@BOTH
@pytest.mark.parametrize("around", ["node", "plan"])
def test_a_plan_that_a_call_runs_is_not_run_again_when_the_call_asks(way, around):
    """R18: it stopped the whole process, since what counts the call's questions was asked how many there had been."""
    world, guard = World(), Guard(effects=EFFECTS)

    def build(key):
        def put(key):
            return world.put(key)

        plan = Plan()
        plan.call(put, key=key)
        return plan

    def then_pay(result, key):
        return f"{result['put']}, {world.pay(key)}"

    both = running_plans(way, world, guard, build, then_pay)
    state, asked = answered(way, graph_of(way, around, both, guard), *CALLS)
    assert told(state) == {key: f"put {key}, yes to pay {key}? for {key}" for key in "abc"}
    assert sorted(asked) == [f"pay {key}?" for key in "abc"]
    assert sorted(world.made.runs) == [(name, key) for name in ("pay", "put") for key in "abc"]


@ANYWHERE
@BOTH
@pytest.mark.parametrize("around", ["node", "plan"])
@pytest.mark.parametrize("below", [False, True])
def test_a_plan_that_a_call_runs_asks_nobody(way, around, below):
    """R19: its answers could not be told apart from those of the plan or the node around it."""
    world, guard = World(), Guard(effects=EFFECTS)

    def pay(state):
        return {"messages": [("user", world.pay("x"))]}

    graph = node_graph(pay)

    def build(key):
        def settle(key):
            return graph.invoke({"messages": []}) and "settled"

        async def asettle(key):
            return await graph.ainvoke({"messages": []}) and "settled"

        plan = world.plan(key)
        if below:
            plan.call(settle if way == "sync" else asettle, key=key)
        return plan

    def tell(result, key):
        return "; ".join(each.outcome.fault.message for each in result.failed)

    both = running_plans(way, world, guard.replace(effects={**EFFECTS, "asettle": Write("s:{key}")}), build, tell)
    state, asked = answered(way, graph_of(way, around, both, guard), *CALLS)
    assert asked == []
    for content in told(state).values():
        assert content.count("cannot ask a person") == 1 + below
    assert sorted(world.made.runs) == [("put", key) for key in "abc"]


# -- questions that are saved as something else ---------------------------------------------------------------------------


class Key(str):
    __slots__ = ()


@dataclass
class Point:
    x: int


QUESTIONS = [("a", 1), Key("a"), {1: "a"}, OrderedDict(a=(1,)), Counted("aab"), bytearray(b"a"), ValueError("a")]


@ANYWHERE
@BOTH
@pytest.mark.parametrize("question", QUESTIONS, ids=repr)
@pytest.mark.parametrize("kind", ["node", "plan"])
def test_a_question_that_is_saved_as_another_value_is_answered(way, question, kind):
    """R19: it was taken for one that never left, and asked again for ever."""
    world, guard = World(), Guard(effects=EFFECTS)

    def pay(key):
        """Pay."""
        interrupt(question)
        world.made("pay", key)
        return "paid"

    def build():
        def put(key):
            return world.put(key)

        plan = Plan()
        plan.call(pay, key="b").after(plan.call(pay, key="a").after(plan.call(put, key="p")))
        return plan

    if kind == "node":
        graph = ibidem.wrap(node_graph(ToolNode([world.put, pay]), checkpointer=InMemorySaver()), guard)
    else:
        graph, _ = in_a_node(way, build, guard)
    answered(way, graph, call("put", {"key": "p"}, "p"), *(call("pay", {"key": key}, key) for key in "ab"), most=2)
    assert sorted(world.made.runs) == [("pay", "a"), ("pay", "b"), ("put", "p")]


@ANYWHERE
@BOTH
@pytest.mark.parametrize("value", [Point(1), (1, (2,)), {1: 2}, {"a", "b"}, date(2020, 1, 1)], ids=repr)
def test_an_approval_of_any_arguments_that_can_be_shown_is_one(way, value):
    """R19: with arguments that are not plain it was asked for again by each other process."""
    made = Counter()

    @tool
    def look() -> Any:
        """Look."""
        return {"it": value}

    @tool
    def change(key: Any) -> str:
        """Change."""
        made(key)
        return "changed"

    guard = Guard(effects={"look": Live(), "change": Write("x")})
    plan_tool = ibidem.plan_tool([look, change], guard, writes=["change"], approvals=["change"])
    graph = node_graph(ToolNode([plan_tool]), checkpointer=InMemorySaver())
    steps = [{"id": "a", "tool": "look", "args": {}}, {"id": "b", "tool": "change", "args": {"key": "$a.it"}}]
    ask(way, graph, {"messages": [ai(call("plan", {"steps": steps}))]}, thread("t"))
    state = ask(way, graph, Command(resume={"decisions": [{"type": "approve"}]}), thread("t"))
    assert "__interrupt__" not in state
    assert made.runs == [value]


# -- nodes that ask beside their calls ------------------------------------------------------------------------------------


@ANYWHERE
@BOTH
def test_a_node_that_asks_after_its_calls_has_them_made_once(way):
    """R18: another process knew that the node had begun, and not that all of its calls had ended: each was paid twice."""
    world = World()
    tools = ToolNode([world.put, world.pay])

    def node(state):
        answers = tools.invoke(state)["messages"]
        return {"messages": [*answers, ("user", interrupt("enough?"))]}

    async def anode(state):
        answers = (await tools.ainvoke(state))["messages"]
        return {"messages": [*answers, ("user", interrupt("enough?"))]}

    graph = node_graph(node if way == "sync" else anode, checkpointer=InMemorySaver())
    calls = [call("put", {"key": "p"}, "p"), *(call("pay", {"key": key}, key) for key in "ab")]
    state, asked = answered(way, ibidem.wrap(graph, Guard(effects=EFFECTS)), *calls)
    assert asked == ["pay a?", "pay b?", "enough?"]
    assert told(state) == {"p": "put p", **{key: f"yes to pay {key}? for {key}" for key in "ab"}}
    assert state["messages"][-1].content == "yes to enough?"
    assert sorted(world.made.runs) == [("pay", "a"), ("pay", "b"), ("put", "p")]


@ANYWHERE
@BOTH
@pytest.mark.parametrize("slots", [1, None])
def test_what_must_come_before_the_call_that_was_answered_is_not_kept_waiting_by_it(way, slots):
    """R5: what a read gave could not be saved, so it reads again; it waited for the answered write, and that for it."""
    world, held = World(), ["old"]

    @tool(response_format="content_and_artifact")
    def get(key: str) -> Any:
        """Get."""
        return held[0], threading.Lock()

    @tool
    def pay(key: str) -> str:
        """Pay."""
        held[0] = world.pay(key)
        return held[0]

    tools = ToolNode([get, pay])

    def plain(found):
        return {"messages": [each.model_copy(update={"artifact": None}) for each in found["messages"]]}

    def node(state):
        return plain(tools.invoke(state))

    async def anode(state):
        return plain(await tools.ainvoke(state))

    graph = node_graph(node if way == "sync" else anode, checkpointer=InMemorySaver())
    graph = ibidem.wrap(graph, Guard(effects={"get": Read("k"), "pay": Write("k")})).with_config(max_concurrency=slots)
    calls = [call("get", {"key": "a"}, "1"), call("pay", {"key": "a"}, "2"), call("get", {"key": "a"}, "3")]
    state, _ = answered(way, graph, *calls)
    assert told(state) == {"1": "old", "2": "yes to pay a? for a", "3": "yes to pay a? for a"}


@ANYWHERE
def test_a_read_that_was_cut_off_is_made_before_the_write_that_was_answered(caplog):
    """R5: a wrapper had asked about the write before it waited for the read, and then it did not wait."""
    world, held, runs, answer = World(), ["old"], Counter(), asyncio.Event()

    @tool
    async def get(key: str) -> str:
        """Get."""
        if runs(key) == 1:
            await answer.wait()
        return held[0]

    @tool
    async def put(key: str) -> str:
        """Put."""
        held[0] = "new"
        return world.put(key)

    async def approved(request, execute):
        if request.tool_call["name"] == "put":
            interrupt("put?")
            answer.set()
        return await execute(request)

    node = node_graph(ToolNode([get, put], awrap_tool_call=approved), checkpointer=InMemorySaver())
    graph = ibidem.wrap(node, Guard(effects={"get": Read("k"), "put": Write("k")}))
    state, _ = answered("async", graph, call("get", {"key": "a"}, "1"), call("put", {"key": "a"}, "2"))
    assert told(state) == {"1": "old", "2": "put a"}
    assert "without waiting" not in caplog.text


# -- resumes without an answer --------------------------------------------------------------------------------------------


def graph_that_pays(way, kind, keys, saver=None):
    """A graph that pays once for each key, asking for each: in a node of tools, in one plan, or in a plan for each part."""
    world, guard = World(), Guard(effects=EFFECTS)
    if kind == "node":
        graph = ibidem.wrap(node_graph(ToolNode([world.pay]), checkpointer=saver or InMemorySaver()), guard)
        return graph, world, [call("pay", {"key": key}, key) for part in keys for key in part]

    def build(part):
        def pay(key):
            return world.pay(key)

        plan, before = Plan(), None
        for key in part:
            step = plan.call(pay, key=key)
            before = step.after(before) if before is not None else step
        return plan

    def node(state):
        results = [build(part).run(guard) for part in keys]
        return give([result[step] for result in results for step in result])

    async def anode(state):
        results = [await build(part).arun(guard) for part in keys]
        return give([result[step] for result in results for step in result])

    def give(values):
        return {"messages": [ToolMessage(each, tool_call_id=each[-1]) for each in values]}

    return node_graph(node if way == "sync" else anode, checkpointer=saver or InMemorySaver()), world, []


@ANYWHERE
@BOTH
@pytest.mark.parametrize("kind", ["node", "plan"])
@pytest.mark.parametrize("keys", ["abc", "a/bc", "ab/c"])
def test_a_graph_that_is_run_on_without_an_answer_asks_again(way, kind, keys):
    """R19: LangGraph gives the last answer once more, to whoever asks next: a's approval paid for b."""
    graph, world, calls = graph_that_pays(way, kind, keys.split("/"))
    state = ask(way, graph, {"messages": [ai(*calls)]}, thread("t"))
    for key in "abc":
        for _ in range(2):
            (question,) = state["__interrupt__"]
            assert question.value == f"pay {key}?"
            state = ask(way, graph, None, thread("t"))
        answer = f"yes to {key}"
        state = ask(way, graph, Command(resume={question.id: answer} if key == "c" else answer), thread("t"))
    assert told(state) == {key: f"yes to {key} for {key}" for key in "abc"}
    assert world.made.runs == [("pay", key) for key in "abc"]


def test_control_without_a_guard_the_last_answer_is_given_once_more():
    world = World()
    graph = node_graph(ToolNode([world.pay]), checkpointer=InMemorySaver()).with_config(max_concurrency=1)
    graph.invoke({"messages": [ai(*(call("pay", {"key": key}, key) for key in "ab"))]}, thread("t"))
    graph.invoke(Command(resume="yes to a"), thread("t"))
    assert told(graph.invoke(None, thread("t")))["b"] == "yes to a for b"


class Stuck(InMemorySaver):
    """A checkpointer that saves nothing any more of what LangGraph gives it, once it is told so."""

    is_stuck = False

    async def aput_writes(self, config, writes, *args):
        if self.is_stuck and writes[0][0] != "__ibidem__":
            await asyncio.Event().wait()
        await super().aput_writes(config, writes, *args)


@ANYWHERE
@pytest.mark.parametrize("kind", ["node", "plan"])
def test_an_answer_that_was_had_in_a_run_that_was_cancelled_is_nobody_elses(kind):
    """R19: a was paid and b had asked, but that was not saved; without a new answer b had a's at the second run."""
    saver = Stuck()
    graph, world, calls = graph_that_pays("async", kind, ["ab"], saver)

    async def main():
        await graph.ainvoke({"messages": [ai(*calls)]}, thread("t"), durability="sync")
        saver.is_stuck = True
        running = asyncio.ensure_future(graph.ainvoke(Command(resume="yes to a"), thread("t"), durability="sync"))
        while not any(row[1] == "__ibidem__" and row[2]["asked"][0][1] == "pay b?" for row in rows(saver)):
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        saver.is_stuck = False
        for _ in range(3):
            state = await graph.ainvoke(None, thread("t"))
            assert [each.value for each in state["__interrupt__"]] == ["pay b?"]
        return told(await graph.ainvoke(Command(resume="no to b"), thread("t")))

    assert asyncio.run(main()) == {"a": "yes to a for a", "b": "no to b for b"}
    assert world.made.runs == [("pay", "a"), ("pay", "b")]


def rows(saver):
    return saver.get_tuple(thread("t")).pending_writes


# -- what another process could not save ------------------------------------------------------------------------------------


class Refusing(InMemorySaver):
    """A checkpointer that takes nothing but what is LangGraph's, while it is told so."""

    is_refusing = False

    def put_writes(self, config, writes, *args):
        if self.is_refusing and writes[0][0] == "__ibidem__":
            raise ValueError("no such channel")
        super().put_writes(config, writes, *args)

    async def aput_writes(self, config, writes, *args):
        self.put_writes(config, writes, *args)


@BOTH
@pytest.mark.parametrize("kind", ["node", "plan"])
@pytest.mark.parametrize("knows", [True, False], ids=["the first process", "a third"])
def test_what_another_process_did_and_could_not_save_is_not_done_again(way, kind, knows, monkeypatch):
    """R19: what the first process remembers, or finds saved, is older than what is answered now."""
    saver = Refusing()
    graph, world, calls = graph_that_pays(way, kind, ["abc"], saver)
    ask(way, graph, {"messages": [ai(*calls)]}, thread("t"))
    first, saver.is_refusing = tasks.KEPT.tasks.copy(), True
    tasks.KEPT.tasks.clear()
    state = ask(way, graph, Command(resume="yes to a"), thread("t"))
    assert [each.value for each in state["__interrupt__"]] == ["pay b?"]
    tasks.KEPT.tasks.clear()
    tasks.KEPT.tasks.update(first if knows else {})
    saver.is_refusing = False
    results = []
    monkeypatch.setattr(Plan, "run", noting(Plan.run, results))
    monkeypatch.setattr(Plan, "arun", anoting(Plan.arun, results))
    with contextlib.suppress(RuntimeError):  # the program of the plan looks at the result
        state = ask(way, graph, Command(resume="yes to b"), thread("t"))
    assert world.made.runs.count(("pay", "a")) == 1
    answered = str(results[-1].outcome("pay").fault) if kind == "plan" else told(state)["a"]
    assert "maybe_executed" in answered


def noting(run, results):
    def noted(*args, **kwargs):
        results.append(run(*args, **kwargs))
        return results[-1]

    return noted


def anoting(run, results):
    async def noted(*args, **kwargs):
        results.append(await run(*args, **kwargs))
        return results[-1]

    return noted


@BOTH
@pytest.mark.usefixtures("refusing")
def test_a_plan_that_is_run_on_elsewhere_without_an_answer_and_without_what_it_did(way):
    """R19: that a question was saved, and nobody answered it, tells that the plan had been begun."""
    world = World()

    def build():
        def put(key):
            return world.put(key)

        def pay(key, put):
            return world.pay(key)

        plan = Plan()
        plan.call(pay, key="a", put=plan.call(put, key="a"))
        return plan

    graph, results = in_a_node(way, build, Guard(effects=EFFECTS))
    ask(way, graph, {"messages": []}, thread("t"))
    forget_tasks()
    ask(way, graph, None, thread("t"))
    assert world.made.runs == [("put", "a")]
    assert results[-1].outcome("put").fault.kind == "maybe_executed"


def test_a_checkpointer_that_works_on_a_loop_is_not_looked_into_there_either(caplog):
    """Whether somebody else resumes the same task is looked up when a resume was saved."""

    class Looping(InMemorySaver):
        """A checkpointer that works on a loop, and waits for it."""

        loop = None

        def get_tuple(self, config):
            assert asyncio._get_running_loop() is not self.loop or self.loop is None, "it would wait for itself"
            return super().get_tuple(config)

        async def aget_tuple(self, config):
            return InMemorySaver.get_tuple(self, config)

    world, saver = World(), Looping()

    async def node(state):
        world.plan("a").run(Guard(effects=EFFECTS))
        return {}

    async def main():
        graph = node_graph(node, checkpointer=saver)
        await graph.ainvoke({"messages": []}, thread("t"))
        saver.loop = asyncio.get_running_loop()
        await graph.ainvoke(Command(resume="yes"), thread("t"))

    asyncio.run(main())
    assert world.made.runs == [("put", "a"), ("pay", "a")]
    assert "it would wait for itself" not in caplog.text


def test_what_an_old_attempt_saves_late_is_not_taken_for_the_last(monkeypatch):
    """R19: calls that the question left behind end when another process has paid and asked on: it would have paid again."""
    let, world = asyncio.Event(), World()

    @tool
    async def slow(key: str) -> str:
        """Change something slowly."""
        await let.wait()
        return "changed"

    keys = "defghi"
    graph = node_graph(ToolNode([world.pay, slow]), checkpointer=InMemorySaver())
    graph = ibidem.wrap(graph, Guard(effects={**EFFECTS, "slow": Write("s:{key}")}))
    calls = [*(call("slow", {"key": key}, key) for key in keys), *(call("pay", {"key": key}, key) for key in "ab")]
    left = []
    monkeypatch.setattr(asyncio, "gather", holding(asyncio.gather, left))

    async def main():
        state = await graph.ainvoke({"messages": [ai(*calls)]}, thread("t"))
        forget_tasks()
        for key in "ab":
            (question,) = state["__interrupt__"]
            state = await graph.ainvoke(Command(resume=f"yes to {question.value}"), thread("t"))
            if key == "a":
                let.set()
                await asyncio.wait([each for each in left if not each.done()])
            forget_tasks()
        return told(state)

    found = asyncio.run(main())
    assert {key: found[key] for key in "ab"} == {key: f"yes to pay {key}? for {key}" for key in "ab"}
    assert sorted(world.made.runs) == [("pay", "a"), ("pay", "b")]


def holding(gather, left):
    """Keep what is gathered, which nobody may hold any more when it was left behind."""

    def held(*awaitables, **options):
        tasks = [asyncio.ensure_future(each) for each in awaitables]
        left.extend(tasks)
        return gather(*tasks, **options)

    return held
