"""Approvals of plans, whatever stands between the middleware and the plan, and plans that are resumed (R18, R19)."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
from adapter_kit import BOTH, ai, ask, call, node_graph, saying, thread
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

import ibidem
from ibidem import Guard, Read, Write
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


def agent_of(tools, plan_tool, stack, *steps, **more):
    if not can_be_found():
        pytest.skip("the middleware of this LangChain cannot be found: the plan tool says so")
    model = saying(ai(call("plan", {"steps": list(steps)})), "Done.")
    return agents.create_agent(model, [*tools, plan_tool], middleware=stack, checkpointer=InMemorySaver(), **more)


def told(state):
    return json.loads(next(m.content for m in reversed(state["messages"]) if isinstance(m, ToolMessage)))


@BOTH
@pytest.mark.parametrize("mode", ["batched", "per_call"])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("between", ["nothing", "passes", "elsewhere", "ibidem"])
@pytest.mark.parametrize("is_outer", [True, False])
def test_whatever_stands_around_or_between_a_guarded_call_is_asked_about(
    way, mode, wrapped, between, is_outer, tools, guard, ran
):
    """R18: LangChain runs what awaits in a task for each middleware, so that the stack ends at the innermost one."""
    others = {"nothing": [], "passes": [Between()], "elsewhere": [Elsewhere()], "ibidem": [ibidem.Middleware(guard)]}
    approval = middleware.HumanInTheLoopMiddleware(interrupt_on={"cancel_order": True}, interrupt_mode=mode)
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
