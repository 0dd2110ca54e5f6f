"""A graph that asked a person in one process, and is resumed in another: with real processes, and checkpoints in a file.

What its calls had done is saved beside the question, so nothing is done twice, and nobody is asked twice (R18, R19).
"""

import asyncio
import os
import signal
import time

import pytest
from adapter_kit import BOTH, ai, call, saying, thread
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

import ibidem
from ibidem import Guard, Plan, Read, Write
from ibidem.langgraph.approvals import can_be_found
from ibidem.resume import tasks
from processes import Child, Log, lines

pytest.importorskip("langgraph.checkpoint.sqlite")
pytest.importorskip("langchain.agents.middleware")

EFFECTS = {"get": Read("k:{key}"), "put": Write("k:{key}"), "pay": Write("k:{key}"), "die": Write("k:{key}")}


def make_tools(log):
    """Tools that write down each run of theirs."""

    @tool
    def get(key: str) -> str:
        """Get."""
        log(f"get {key}")
        return f"got {key}"

    @tool
    def put(key: str) -> dict:
        """Put."""
        log(f"put {key}")
        return {"put": key}

    @tool
    def pay(key: str) -> str:
        """Pay, if somebody says so."""
        answer = interrupt(f"pay {key}?")
        log(f"pay {key}")
        return f"{key}: {answer}"

    @tool
    def die(key: str) -> str:
        """Pay, if somebody says so, and do not live to tell."""
        answer = interrupt(f"die {key}?")
        log(f"die {key}")
        if answer == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{key}: {answer}"

    return [get, put, pay, die]


def plan_of(names, tools):
    """A plan of changes, one after the other; what one gave is not asked for again."""
    by_name, plan, before = {each.name: each for each in tools}, Plan(), None
    for name, key in names:
        step = plan.call(by_name[name], key=key)
        before = step.after(before) if before is not None else step
    return plan


def make_graph(kind, calls, log, saver):
    """A graph whose calls are those of one message, in one node, or steps of one plan; or an agent that submits the plan."""
    tools, guard = make_tools(log), Guard(effects=EFFECTS)
    builder = StateGraph(MessagesState)
    if kind == "plan":

        def run(state):
            result = plan_of(calls, tools).run(guard)
            return {"messages": [ToolMessage(str(result.outcome(step)), tool_call_id=step) for step in result]}

        builder.add_node("plan", run)
        builder.add_edge(START, "plan")
        return builder.compile(checkpointer=saver)
    message = ai(*(call(name, {"key": key}, key) for name, key in calls))
    if kind == "agent":
        from langchain.agents import create_agent
        from langchain.agents.middleware import HumanInTheLoopMiddleware

        steps = [{"id": key, "tool": name, "args": {"key": key}} for name, key in calls]
        plan_tool = ibidem.plan_tool(tools, guard, writes=["put"])
        model = saying(ai(call("plan", {"steps": steps}, "plan")), "done")
        approval = HumanInTheLoopMiddleware(interrupt_on={"put": True})
        return create_agent(model, [*tools, plan_tool], middleware=[approval], checkpointer=saver)
    model = saying(message, "done")
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    graph = builder.compile(checkpointer=saver)
    return ibidem.wrap(graph, guard) if kind == "node" else graph


def told(state):
    """What a process tells of how a run ended: its answers, and what it asks."""
    answers = {m.tool_call_id: m.content for m in state["messages"] if isinstance(m, ToolMessage)}
    return answers, [each.value for each in state.get("__interrupt__", ())]


async def answer_async(kind, calls, log, folder, name, given):
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        return told(await make_graph(kind, calls, log, saver).ainvoke(given, thread(name), durability="sync"))


def meeting():
    """A checkpointer whose process, when it resumes, goes on only when another one does too."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    class Meeting(SqliteSaver):
        def put_writes(self, config, writes, *args):
            super().put_writes(config, writes, *args)
            if writes[0][0] == "__ibidem__" and writes[0][1]["version"] == tasks.SAVED + 1:
                wait_for(lambda: self.resumed(config) == 2)

        def resumed(self, config):
            rows = [row for _, channel, row in self.get_tuple(config).pending_writes if channel == "__ibidem__"]
            return sum(row["version"] == tasks.SAVED + 1 for row in rows)

    return Meeting


def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def worker(pipe, folder):
    """A process that runs graphs, and is told what to give them."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    for way, kind, calls, name, answer in iter(pipe.recv, None):
        log = Log(folder / name)
        given = {"messages": [HumanMessage("go")]} if answer is None else Command(resume=answer)
        if way == "async":
            pipe.send(asyncio.run(answer_async(kind, calls, log, folder, name, given)))
        else:
            with (meeting() if way == "together" else SqliteSaver).from_conn_string(
                str(folder / "checkpoints.db")
            ) as saver:
                pipe.send(told(make_graph(kind, calls, log, saver).invoke(given, thread(name))))


class Processes:
    """Two processes that share a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.pair = [Child(worker, folder), Child(worker, folder)]

    def restart(self, number):
        self.pair[number].wait()
        self.pair[number] = Child(worker, self.folder)

    def runs(self, name):
        return lines(self.folder / name)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    both = Processes(tmp_path_factory.mktemp("shared"))
    yield both
    for each in both.pair:
        each.kill()


@pytest.fixture
def name(request):
    return request.node.name.translate(str.maketrans("[]", "--"))


CALLS = [("get", "a"), ("put", "b"), ("pay", "c"), ("put", "d"), ("pay", "e")]


@BOTH
@pytest.mark.parametrize("kind", ["node", "plan"])
def test_each_is_done_once_whoever_goes_on(way, kind, processes, name):
    """Each answer is given in the process that did not ask."""
    answers, asked = processes.pair[0].ask((way, kind, CALLS, name, None))
    questions = list(asked)
    for turn in range(1, 3):
        answers, asked = processes.pair[turn % 2].ask((way, kind, CALLS, name, f"yes {turn}"))
        questions += asked
    assert sorted(questions) == ["pay c?", "pay e?"] and asked == []
    given = sorted(answer.partition(": ")[2][:5] for answer in map(str, answers.values()) if "yes" in answer)
    assert len(given) == 2, answers
    runs = processes.runs(name)
    assert sorted(run for run in runs if not run.startswith("get")) == ["pay c", "pay e", "put b", "put d"]
    assert "maybe_executed" not in str(answers)


@BOTH
def test_control_without_a_guard_the_changes_are_made_with_every_answer(way, processes, name):
    processes.pair[0].ask((way, "bare", CALLS, name, None))
    for turn in range(1, 3):
        processes.pair[turn % 2].ask((way, "bare", CALLS, name, f"yes {turn}"))
    assert processes.runs(name).count("put b") == 3


@pytest.mark.skipif(not can_be_found(), reason="this LangChain's middleware cannot be found from a plan")
@BOTH
def test_an_approval_that_a_plan_asks_for_is_given_once_in_whatever_process(way, processes, name):
    calls = [("get", "a"), ("put", "b"), ("put", "c")]
    _, (question,) = processes.pair[0].ask((way, "agent", calls, name, None))
    shown = [question["action_requests"][0]["args"]["key"]]
    for turn in range(1, 3):
        answers, asked = processes.pair[turn % 2].ask((way, "agent", calls, name, {"decisions": [{"type": "approve"}]}))
        shown += [each["action_requests"][0]["args"]["key"] for each in asked]
    assert sorted(shown) == ["b", "c"]
    assert sorted(run for run in processes.runs(name) if run.startswith("put")) == ["put b", "put c"]
    assert "maybe_executed" not in str(answers)


DYING = [("put", "a"), ("die", "b")]


@BOTH
@pytest.mark.parametrize("kind", ["node", "plan"])
def test_what_a_process_was_killed_over_is_not_done_again(way, kind, processes, name):
    """It had been approved, and was begun: whether it was done nobody knows."""
    processes.pair[0].ask((way, kind, DYING, name, None))
    processes.pair[1].tell((way, kind, DYING, name, "die"))
    processes.restart(1)
    answers, asked = processes.pair[0].ask((way, kind, DYING, name, "yes"))
    assert asked == []
    assert processes.runs(name) == ["put a", "die b"]
    assert "maybe_executed" in str(answers)


@pytest.mark.parametrize("kind", ["node", "plan"])
def test_of_two_that_resume_at_the_same_moment_none_does_what_the_other_may_do(kind, processes, name):
    """A queue that delivers twice, or a person who clicks twice, to two workers: neither has seen the other begin."""
    calls = [("put", "a"), ("pay", "b"), ("put", "c")]
    processes.pair[0].ask(("sync", kind, calls, name, None))
    for process in processes.pair:
        process.tell(("together", kind, calls, name, "yes"))
    for process in processes.pair:
        assert "maybe_executed" in str(process.hear()[0])
    runs = processes.runs(name)
    assert "pay b" not in runs
    assert runs.count("put a") == 1 and runs.count("put c") <= 1


def test_control_without_a_guard_it_is_done_again(processes, name):
    processes.pair[0].ask(("sync", "bare", DYING, name, None))
    processes.pair[1].tell(("sync", "bare", DYING, name, "die"))
    processes.restart(1)
    processes.pair[0].ask(("sync", "bare", DYING, name, "yes"))
    assert processes.runs(name).count("die b") == 2
