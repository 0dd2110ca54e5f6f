"""Approvals of plans, whatever stands between the middleware and the plan, and plans that are resumed (R18, R19)."""

import asyncio
import inspect
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Annotated

import pytest
from adapter_kit import ANYWHERE, BOTH, ai, ask, call, forget_tasks, in_a_node, node_graph, saying, thread, wait
from langchain_core.callbacks import CallbackManagerForToolRun
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from langgraph.types import Command, interrupt

import ibidem
from ibidem import Guard, Live, Plan, Read, Write
from ibidem.langgraph.approvals import can_be_found

agents = pytest.importorskip("langchain.agents")
middleware = pytest.importorskip("langchain.agents.middleware")


class Between(middleware.AgentMiddleware):
    """Lets calls pass."""

    def wrap_tool_call(self, request, handler):
        return handler(request)

    async def awrap_tool_call(self, request, handler):
        return await handler(request)


class Elsewhere(Between):
    """Lets calls pass, in a thread or a task of their own, whose stack says nothing of what stands around."""

    def wrap_tool_call(self, request, handler):
        context = copy_context()
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: context.run(handler, request)).result()

    async def awrap_tool_call(self, request, handler):
        return await asyncio.create_task(handler(request))


@pytest.fixture
def ran():
    return []


@pytest.fixture
def tools(ran):
    @tool
    def get_order(order_id: str) -> dict:
        """Get an order."""
        ran.append(("get_order", order_id))
        return {"id": order_id}

    @tool
    def cancel_order(order_id: str) -> str:
        """Cancel an order."""
        ran.append(("cancel_order", order_id))
        return f"{order_id} cancelled"

    return [get_order, cancel_order]


@pytest.fixture
def guard():
    return Guard(effects={"get_order": Read("order:{order_id}"), "cancel_order": Write("order:{order_id}")}, timeout=20)


GET = {"id": "it", "tool": "get_order", "args": {"order_id": "1"}}
CANCEL = {"id": "gone", "tool": "cancel_order", "args": {"order_id": "$it.id"}}


FOUND = pytest.mark.skipif(
    not can_be_found(), reason="the middleware of this LangChain cannot be found: the plan tool says so"
)


def approving(mode):
    """The middleware, asking for all calls together or for each."""
    known = inspect.signature(middleware.HumanInTheLoopMiddleware).parameters
    if "interrupt_mode" not in known and mode != "batched":
        pytest.skip("this LangChain asks for all calls together only")
    options = {"interrupt_mode": mode} if "interrupt_mode" in known else {}
    return middleware.HumanInTheLoopMiddleware(interrupt_on={"cancel_order": True}, **options)


def agent_of(tools, plan_tool, stack, *steps, **more):
    model = saying(ai(call("plan", {"steps": list(steps)})), "Done.")
    return agents.create_agent(model, [*tools, plan_tool], middleware=stack, checkpointer=InMemorySaver(), **more)


def told(state):
    return json.loads(next(m.content for m in reversed(state["messages"]) if isinstance(m, ToolMessage)))


@ANYWHERE
@BOTH
@FOUND
@pytest.mark.parametrize("mode", ["batched", "per_call"])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("between", ["nothing", "passes", "elsewhere", "ibidem"])
@pytest.mark.parametrize("is_outer", [True, False])
def test_whatever_stands_around_or_between_a_guarded_call_is_asked_about(
    way, mode, wrapped, between, is_outer, tools, guard, ran
):
    """R18: LangChain runs what awaits in a task for each middleware, so that the stack ends at the innermost one."""
    others = {"nothing": [], "passes": [Between()], "elsewhere": [Elsewhere()], "ibidem": [ibidem.Middleware(guard)]}
    approval = approving(mode)
    stack = [approval, *others[between]] if is_outer else [*others[between], approval]
    agent = agent_of(tools, ibidem.plan_tool(tools, guard, writes=["cancel_order"]), stack, GET, CANCEL)
    agent = ibidem.wrap(agent, guard) if wrapped else agent
    state = ask(way, agent, {"messages": [("user", "Cancel it.")]}, thread("t"))
    assert ran == [("get_order", "1")]
    assert len(state["__interrupt__"]) == 1
    decision = {"type": "approve"}
    state = ask(way, agent, Command(resume=decision if mode == "per_call" else {"decisions": [decision]}), thread("t"))
    assert ran.count(("cancel_order", "1")) == 1
    assert told(state) == {"it": {"id": "1"}, "gone": "1 cancelled"}


@FOUND
def test_where_the_stack_ends_nothing_runs_until_it_is_said_who_approves(tools, guard, ran):
    """R18: what stands around the graph's call cannot be seen from a task of the user's own."""
    for approvals in (None, []):
        plan_tool = ibidem.plan_tool(tools, guard, writes=["cancel_order"], approvals=approvals)

        async def node(state, plan_tool=plan_tool):
            return {"messages": [("user", await asyncio.create_task(plan_tool.ainvoke({"steps": [GET, CANCEL]})))]}

        graph = node_graph(node)
        if approvals is None:
            with pytest.raises(RuntimeError, match="around this call"):
                ask("async", graph, {"messages": []})
            assert ran == []
        else:
            state = ask("async", graph, {"messages": []})
            assert json.loads(state["messages"][-1].content)["gone"] == "1 cancelled"


@BOTH
@FOUND
def test_a_plan_tool_that_is_run_without_being_invoked_sees_what_stands_around(way, tools, guard, ran):
    plan_tool = ibidem.plan_tool(tools, guard, writes=["cancel_order"])

    @tool
    async def aclean() -> str:
        """Clean up."""
        return await plan_tool._arun(steps=[GET, CANCEL])

    @tool
    def clean() -> str:
        """Clean up."""
        return plan_tool._run(steps=[GET, CANCEL])

    approval = middleware.HumanInTheLoopMiddleware(interrupt_on={"cancel_order": True})
    own = clean if way == "sync" else aclean
    agent = agents.create_agent(
        saying(ai(call(own.name)), "Done."), [own], middleware=[approval], checkpointer=InMemorySaver()
    )
    if way == "sync":
        assert ask(way, agent, {"messages": [("user", "Clean.")]}, thread("t"))["__interrupt__"]
    else:  # LangChain runs it in a task
        with pytest.raises(RuntimeError, match="around this call"):
            ask(way, agent, {"messages": [("user", "Clean.")]}, thread("t"))
    assert all(name != "cancel_order" for name, _ in ran)


# -- resumed plans ------------------------------------------------------------------------------------------------------


def resumed(way, build, effects, between=lambda: None, **options):
    """Run a plan in a node, say yes to whatever it asks, and give its last result."""
    graph, results = in_a_node(way, build, Guard(effects=effects), **options)
    state = ask(way, graph, {"messages": []}, thread("t"))
    for _ in range(9):
        if "__interrupt__" not in state:
            return results[-1]
        between()
        state = ask(way, graph, Command(resume="yes"), thread("t"))
    raise AssertionError("it asks for ever")


@ANYWHERE
@BOTH
def test_a_mapped_change_goes_on_with_the_elements_it_had(way, ran):
    """The list is read again on resume, and has another order: what is done would be done twice, by its place."""
    orders = dict.fromkeys("123", "open")

    def get_orders():
        return [{"id": each} for each in sorted(orders, key=lambda each: (orders[each] != "open", each))]

    def cancel(order_id):
        if order_id == "2":
            interrupt("cancel 2?")
        ran.append(order_id)
        orders[order_id] = "cancelled"
        return order_id

    def build():
        plan = Plan()
        plan.call(cancel, order_id=plan.item["id"]).map(over=plan.call(get_orders))
        return plan

    effects = {"get_orders": Read("order:*"), "cancel": Write("order:{order_id}")}
    assert resumed(way, build, effects)["cancel"] == ran == ["1", "2", "3"]


@ANYWHERE
@BOTH
@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_change_that_was_made_is_reported_as_made(way, is_mapped, ran):
    """Its own change makes its condition false, and then what it needed cannot be read any more."""
    order = {"status": "open"}

    def get_order():
        if order["status"] == "gone":
            raise ConnectionError("down")
        return {**order, "parts": [1, 2]}

    def close(part=None):
        ran.append(part)
        order["status"] = "closed"
        return "closed"

    def pay(number):
        return interrupt(f"pay {number}?")

    def build():
        plan = Plan()
        found = plan.call(get_order)
        closed = plan.call(close, **({"part": plan.item} if is_mapped else {})).when(found["status"], "eq", "open")
        if is_mapped:
            closed.map(over=found["parts"])
        plan.call(pay, number=2).after(plan.call(pay, number=1).after(closed))
        return plan

    def between():
        order["status"] = "closed" if order["status"] == "open" else "gone"

    result = resumed(
        way, build, {"get_order": Read("order"), "close": Write("order"), "pay": Write("account")}, between
    )
    assert result["close"] == (["closed", "closed"] if is_mapped else "closed")
    assert ran == ([1, 2] if is_mapped else [None])
    assert [result[step] for step in ("pay", "pay_2")] == ["yes", "yes"]


@ANYWHERE
@BOTH
def test_a_mapped_change_that_was_half_made_is_reported_so_where_it_cannot_go_on(way, ran):
    is_down = []

    def get_orders():
        if is_down:
            raise ConnectionError("down")
        return ["1", "2"]

    def cancel(order_id):
        if order_id == "2":
            interrupt("cancel 2?")
        ran.append(order_id)

    def build():
        plan = Plan()
        plan.call(cancel, order_id=plan.item).map(over=plan.call(get_orders))
        return plan

    effects = {"get_orders": Read("order:*"), "cancel": Write("order:{order_id}")}
    fault = resumed(way, build, effects, lambda: is_down.append(1)).outcome("cancel").fault
    assert (ran, fault.kind) == (["1"], "maybe_executed")
    assert "it needs step 'get_orders'" in fault.message


@BOTH
@pytest.mark.usefixtures("refusing")
def test_what_another_process_may_have_changed_is_not_changed_at_the_second_resume_either(way, ran):
    """R19: the first resume in the new process says that nobody knows, and asks again; the second must not forget that."""

    def change():
        ran.append("change")

    def look():
        return interrupt("and?")

    def build():
        plan = Plan()
        plan.call(change)
        plan.call(look)
        return plan

    times = iter([forget_tasks])  # the process is another one at the first resume, and the same at the second
    result = resumed(way, build, {"look": Live(), "change": Write("x")}, lambda: next(times, list)(), max_concurrency=1)
    assert ran == ["change"]
    assert (result.outcome("change").fault.kind, result["look"]) == ("maybe_executed", "yes")


@ANYWHERE
@BOTH
@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_change_that_was_given_up_while_it_ran_is_not_made_again(way, is_mapped, ran):
    """The plan's time is over while a person is asked: what still ran then may have been carried out."""

    def change(part=None):
        ran.append(part)
        time.sleep(0.4)

    async def achange(part=None):
        ran.append(part)
        await asyncio.sleep(0.4)

    def pay():
        time.sleep(0.05)
        return interrupt("pay?")

    def build():
        plan = Plan()
        body = change if way == "sync" else achange
        if is_mapped:
            plan.call(body, part=plan.item).map(over=plan.call(lambda: [1, 2]))
        else:
            plan.call(body)
        plan.call(pay)
        return plan

    name = "change" if way == "sync" else "achange"
    result = resumed(way, build, {name: Write("x"), "pay": Write("account")}, timeout=0.2)
    assert ran == ([1] if is_mapped else [None])
    assert (result.outcome(name).fault.kind, result["pay"]) == ("maybe_executed", "yes")


def test_a_change_that_was_cancelled_is_not_made_again(ran):
    results = []

    async def change():
        ran.append("change")
        await asyncio.sleep(10)

    async def node(state):
        plan = Plan()
        plan.call(change)
        results.append(await plan.arun(Guard(effects={"change": Write("x")})))
        return {}

    async def twice():
        graph = node_graph(node, checkpointer=InMemorySaver())
        task = asyncio.create_task(graph.ainvoke({"messages": []}, thread("t")))
        while not ran:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await graph.ainvoke(None, thread("t"))

    wait(twice())
    assert ran == ["change"]
    assert results[0].outcome("change").fault.kind == "maybe_executed"


# -- what LangChain gives ------------------------------------------------------------------------------------------------


def with_config(x: int, config: RunnableConfig | None = None) -> str:
    """Look."""
    return str(config)


def with_user(x: int, user: Annotated[str, InjectedToolArg] = "me") -> str:
    """Look."""
    return user


def with_runtime(x: int, runtime: "ToolRuntime | None" = None) -> str:
    """Look."""
    return str(runtime)


@tool
def of_state(x: int, state: Annotated[dict, InjectedState] | None = None) -> str:
    """Look."""
    return str(state)


class OfRuntime(BaseTool):
    name: str = "of_runtime"
    description: str = "Look."

    def _run(
        self, x: int, runtime: ToolRuntime | None = None, run_manager: CallbackManagerForToolRun | None = None
    ) -> str:
        return str(runtime)


class WithState:
    __name__ = "with_state"

    def __call__(self, x: int, state: Annotated[dict, InjectedState] = {}) -> str:  # noqa: B006
        return str(state)


@BOTH
@pytest.mark.parametrize(
    "function",
    [with_config, with_user, with_runtime, WithState(), partial(with_user), of_state, OfRuntime()],
    ids=lambda each: getattr(each, "__name__", None) or getattr(each, "name", "partial"),
)
def test_a_plan_gives_a_function_nothing_that_langchain_would_give_its_tool(way, function, guard, tools):
    """As tools of an agent these functions take no such argument from a model."""
    name = getattr(function, "__name__", None) or getattr(function, "name", "partial")
    guard = guard.replace(effects={**guard._options["effects"], name: Live()})
    plan_tool = ibidem.plan_tool([*tools, function], guard, approvals=[])
    assert name not in plan_tool.description
    for more in ({}, {"config": {}}, {"user": "eve"}, {"runtime": {}}, {"state": {}}):
        steps = [{"id": "a", "tool": name, "args": {"x": 1, **more}}]
        message = ask(way, plan_tool, call("plan", {"steps": steps}))
        assert message.status == "error"
        assert "from the framework, which a plan cannot give" in message.content


# -- a plan beside other calls of its message ----------------------------------------------------------------------------


def submitted(name, *steps):
    return call("plan", {"steps": list(steps)}, name)


LOOK = {"id": "a", "tool": "look", "args": {"order_id": "1"}}
CLOSE = {"id": "a", "tool": "close", "args": {"order_id": "1"}}
LOOKS, CLOSES = call("look", {"order_id": "1"}, "1"), call("close", {"order_id": "1"}, "1")


@BOTH
@pytest.mark.parametrize("wrapped", ["node", "agent", "middleware"])
@pytest.mark.parametrize(
    ("first", "second", "seen"),
    [
        (CLOSES, submitted("2", LOOK), "closed"),
        (submitted("1", CLOSE), {**LOOKS, "id": "2"}, "closed"),
        (submitted("1", CLOSE), submitted("2", LOOK), "closed"),
        (LOOKS, submitted("2", CLOSE), "open"),
        (submitted("1", LOOK), {**CLOSES, "id": "2"}, "open"),
    ],
)
def test_a_plan_keeps_its_place_among_the_calls_of_its_message(way, wrapped, first, second, seen):
    """A read after a change that the model wrote before it sees the change, whichever of them is in a plan."""
    order = {"1": "open"}

    @tool
    def look(order_id: str) -> str:
        """Look at an order."""
        status = order[order_id]
        time.sleep(0.02)
        return status

    @tool
    def close(order_id: str) -> str:
        """Close an order."""
        time.sleep(0.02)
        order[order_id] = "closed"
        return "ok"

    guard = Guard(effects={"look": Read("order:{order_id}"), "close": Write("order:{order_id}")})
    tools = [look, close, ibidem.plan_tool([look, close], guard, writes=["close"], approvals=[])]
    if wrapped == "node":
        graph = ibidem.wrap(node_graph(ToolNode(tools)), guard)
        state = ask(way, graph, {"messages": [ai(first, second)]})
    else:
        stack = [ibidem.Middleware(guard)] if wrapped == "middleware" else []
        agent = agents.create_agent(saying(ai(first, second), "Done."), tools, middleware=stack)
        agent = agent if stack else ibidem.wrap(agent, guard)
        state = ask(way, agent, {"messages": [("user", "Go on.")]})
    answers = "".join(message.content for message in state["messages"] if isinstance(message, ToolMessage))
    assert seen in answers
    assert ({"open", "closed"} - {seen}).pop() not in answers


@ANYWHERE
@BOTH
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_comes_after_a_plan_that_asks_waits_for_the_answer(way, wrapped, tools, guard, ran):
    approval = middleware.HumanInTheLoopMiddleware(interrupt_on={"cancel_order": True})
    if not can_be_found():
        pytest.skip("the middleware of this LangChain cannot be found: the plan tool says so")
    plan_tool = ibidem.plan_tool(tools, guard, writes=["cancel_order"])
    calls = (
        submitted("1", GET, CANCEL),
        call("get_order", {"order_id": "1"}, "2"),
        submitted("3", CANCEL | {"args": {"order_id": "2"}}),
    )
    agent = agents.create_agent(
        saying(ai(*calls), "Done."), [*tools, plan_tool], middleware=[approval], checkpointer=InMemorySaver()
    )
    agent = ibidem.wrap(agent, guard) if wrapped else agent
    state = ask(way, agent, {"messages": [("user", "Cancel them.")]}, thread("t"))
    for _ in range(4):
        if "__interrupt__" not in state:
            break
        answers = {each.id: {"decisions": [{"type": "approve"}]} for each in state["__interrupt__"]}
        state = ask(way, agent, Command(resume=answers), thread("t"))
    assert [m.content for m in state["messages"] if isinstance(m, ToolMessage)] == [
        '{"it": {"id": "1"}, "gone": "1 cancelled"}',
        '{"id": "1"}',
        '{"gone": "2 cancelled"}',
    ]
    assert sorted(each for each in ran if each[0] == "cancel_order") == [("cancel_order", "1"), ("cancel_order", "2")]
    if wrapped:
        assert ran.index(("cancel_order", "1")) < len(ran) - 1 - ran[::-1].index(("get_order", "1"))


@BOTH
def test_a_plan_is_not_remembered_because_a_glob_names_everything(way, tools, ran):
    """What a plan does is in its steps: some are never remembered, and a change is made as often as it is asked for."""

    @tool
    def clock() -> str:
        """The time."""
        ran.append(("clock",))
        return str(len(ran))

    guard = Guard(reads=["*"], effects={"clock": Live(), "cancel_order": Write("order:{order_id}")})
    plan_tool = ibidem.plan_tool([*tools, clock], guard, writes=["cancel_order"], approvals=[])
    graph = ibidem.wrap(node_graph(ToolNode([*tools, clock, plan_tool]), checkpointer=InMemorySaver()), guard)
    for _ in range(2):
        ask(way, graph, {"messages": [ai(submitted("1", {"id": "now", "tool": "clock"}))]}, thread("t"))
    assert ran == [("clock",)] * 2
    ask(
        way,
        graph,
        {"messages": [ai(*(submitted(name, CANCEL | {"args": {"order_id": "1"}}) for name in "12"))]},
        thread("t"),
    )
    assert ran[2:] == [("cancel_order", "1")] * 2


@BOTH
@pytest.mark.parametrize(
    ("given", "told"),
    [({"number": "5"}, 5), ({"number": "$it"}, 7), ({"number": "five"}, None), ({"number": "$other"}, None)],
)
def test_a_function_is_given_what_the_tool_of_an_agent_would_be_given(way, given, told):
    """`create_agent` makes a tool of a function, which validates what a model gives: a step must not get round that."""

    def it():
        return "7"

    def other():
        return "seven"

    @Live()
    def look(number: int):
        return [type(number).__name__, number]

    @Live()
    async def alook(number: int):
        return look(number)

    function = look if way == "sync" else alook
    plan_tool = ibidem.plan_tool([it, other, function], Guard(reads=["it", "other"]), approvals=[])
    steps = [
        {"id": "it", "tool": "it"}, {"id": "other", "tool": "other"}, {"id": "a", "tool": function.__name__, "args": given}
    ]  # fmt: skip
    message = ask(way, plan_tool, call("plan", {"steps": steps}))
    if told is not None:
        assert json.loads(message.content)["a"] == ["int", told]
    else:
        assert "integer" in message.content
