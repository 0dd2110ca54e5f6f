"""Resumes where things are not as they should be: loops that are blocked, tasks that are pushed out, plans inside of calls."""

import asyncio
import threading

import pytest
from adapter_kit import ANYWHERE, BOTH, Counter, ai, ask, in_a_node, node_graph, thread
from langchain_core.messages import ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from ibidem import Guard, Plan, Write
from ibidem.plan import tasks

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
