"""`ibidem.Middleware` beside a wrapped agent, and below what makes calls several times: a call has one place in its turn."""

import asyncio
import threading
import time

import pytest
from adapter_kit import BOTH, ai, ask, call, contents, saying
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tools import tool

import ibidem
from ibidem import Guard, Read, Write

EFFECTS = {"get": Read("k:{key}"), "put": Write("k:{key}")}
PUT_AND_GET = [
    call("put", {"key": "a", "value": 1}, "1"),
    call("get", {"key": "a"}, "2"),
    call("get", {"key": "b"}, "3"),
]


def world():
    """Two tools, and the writes that they made."""
    state, written, lock = {}, [], threading.Lock()

    @tool
    def get(key: str) -> str:
        """Get."""
        return f"{key}={state.get(key, 0)}"

    @tool
    def put(key: str, value: int) -> str:
        """Put."""
        time.sleep(0.01)
        with lock:
            state[key] = value
            written.append(key)
        return "ok"

    return [get, put], written


def messages(way, agent, config=None):
    found = ask(way, agent, {"messages": [HumanMessage("x")]}, config)
    return [m for m in found["messages"] if isinstance(m, ToolMessage)]


@BOTH
@pytest.mark.parametrize("place", [0, 1])
def test_a_model_reads_of_arguments_that_do_not_fit_what_it_reads_in_a_wrapped_agent(way, place):
    def answer(make):
        model, tools = saying(ai(call("put", {"key": "a"}, "1")), "done"), world()[0]
        found = messages(way, make(model, tools))[0]
        return found.content, found.status, found.response_metadata

    beside = [Lets()]
    beside.insert(place, ibidem.Middleware(Guard(effects=EFFECTS)))
    wrapped = answer(lambda model, tools: ibidem.wrap(create_agent(model, tools), Guard(effects=EFFECTS)))
    assert answer(lambda model, tools: create_agent(model, tools, middleware=beside)) == wrapped
    assert '"kind": "invalid_arguments"' in wrapped[0]


class Lets(AgentMiddleware):
    """Lets calls pass."""

    def wrap_tool_call(self, request, handler):
        return handler(request)

    async def awrap_tool_call(self, request, handler):
        return await handler(request)


class Twice(AgentMiddleware):
    """Makes each call twice at once, and takes the first answer."""

    def wrap_tool_call(self, request, handler):
        with ContextThreadPoolExecutor(2) as threads:
            return [each.result() for each in [threads.submit(handler, request) for _ in range(2)]][0]

    async def awrap_tool_call(self, request, handler):
        return (await asyncio.gather(handler(request), handler(request)))[0]


@BOTH
@pytest.mark.parametrize("threads", [1, 6])
def test_an_agent_that_has_it_can_be_wrapped_with_the_same_guard(way, threads):
    """A call passes the guard once, and has one place in its turn."""
    tools, guard = world()[0], Guard(effects=EFFECTS)
    agent = create_agent(saying(ai(*PUT_AND_GET), "done"), tools, middleware=[ibidem.Middleware(guard)])
    assert contents(messages(way, ibidem.wrap(agent, guard), {"max_concurrency": threads})) == ["ok", "a=1", "b=0"]
    assert guard.stats().calls == 3


@BOTH
def test_a_wrapped_agent_with_the_middleware_of_another_guard_says_what_to_do(way):
    """It is a mistake of the program's: no model is told that its call failed."""
    agent = create_agent(saying(ai(*PUT_AND_GET), "done"), world()[0], middleware=[ibidem.Middleware(default=Read())])
    with pytest.raises(ValueError, match=r"a call passes one only: .*guard_of\(...\).replace"):
        messages(way, ibidem.wrap(agent, Guard(effects=EFFECTS)))


@BOTH
def test_a_call_that_another_makes_twice_at_once_ends_when_both_have(way):
    tools, written = world()
    middleware = [Twice(), ibidem.Middleware(Guard(effects=EFFECTS))]
    found = messages(way, create_agent(saying(ai(*PUT_AND_GET), "done"), tools, middleware=middleware))
    assert contents(found) == ["ok", "a=1", "b=0"]
    assert written == ["a", "a"]
