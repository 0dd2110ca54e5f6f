"""`ibidem.Middleware`: everything a wrapped agent does, whatever its place in the list and whoever stands beside it."""

import asyncio
import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from adapter_kit import BOTH, Counter, Scripted, ai, ask, call, came, contents, saying, thread
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware, ToolRetryMiddleware
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from langsmith import tracing_context

import ibidem
from ibidem import Batch, Guard, Read, Retry, Write

EFFECTS = {"get": Read("k:{key}", identity="get"), "put": Write("k:{key}")}


class World:
    def __init__(self):
        self.state, self.runs = {}, Counter()

        @tool
        def get(key: str) -> str:
            """Get."""
            self.runs("get", key)
            return f"{key}={self.state.get(key, 0)}"

        @tool
        def put(key: str, value: int) -> str:
            """Put."""
            time.sleep(0.01)
            self.runs("put", key)
            self.state[key] = value
            return "ok"

        self.tools = [get, put]


class Around(AgentMiddleware):
    """Notes what passes; lets it pass."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def wrap_tool_call(self, request, handler):
        self.seen.append(request.tool_call["id"])
        return handler(request)

    async def awrap_tool_call(self, request, handler):
        self.seen.append(request.tool_call["id"])
        await asyncio.sleep(0)
        return await handler(request)


def messages(way, agent, config=None):
    found = ask(way, agent, {"messages": [HumanMessage("x")]}, config)
    return [m for m in found["messages"] if isinstance(m, ToolMessage)]


PLACES = {
    "alone": lambda ours, other: [ours],
    "first": lambda ours, other: [ours, other],
    "last": lambda ours, other: [other, ours],
}
EVERY_PLACE = pytest.mark.parametrize("place", PLACES)


@BOTH
@EVERY_PLACE
def test_a_read_is_remembered_and_a_write_forgets_it(way, place):
    world, other = World(), Around()
    turns = [
        ai(call("get", {"key": "a"}, "1")),
        ai(call("get", {"key": "a"}, "2")),
        ai(call("put", {"key": "a", "value": 2}, "3")),
        ai(call("get", {"key": "a"}, "4")),
    ]
    guard = Guard(effects=EFFECTS)
    agent = create_agent(saying(*turns, "done"), world.tools, middleware=PLACES[place](ibidem.Middleware(guard), other))
    found = messages(way, agent)
    assert contents(found) == ["a=0", "a=0", "ok", "a=2"]
    assert [came(m) for m in found] == ["ran", "memo", "ran", "ran"]
    assert guard.stats().memo == 1
    assert other.seen == ([] if place == "alone" else ["1", "2", "3", "4"])


@BOTH
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reads": ["gte"]}, "no tool has that name: 'gte'; the tools are: get, put"),
        ({}, "nothing is declared.*get, put"),
    ],
    ids=["a miss", "nothing"],
)
def test_declarations_without_a_tool_are_warned_of_once_as_where_an_agent_is_wrapped(way, options, said):
    calls = [ai(call("get", {"key": "a"}, "1")), ai(call("get", {"key": "a"}, "2"))]
    agent = create_agent(saying(*calls, "done"), World().tools, middleware=[ibidem.Middleware(**options)])
    with pytest.warns(ibidem.IbidemWarning, match=said) as caught:
        messages(way, agent)
    assert len(caught) == 1


@BOTH
@EVERY_PLACE
@pytest.mark.parametrize("threads", [1, 2, 6])
def test_a_turn_keeps_its_order(way, place, threads):
    world = World()
    calls, expected = [], []
    for n in range(1, 4):
        for key in "ab":
            calls += [call("put", {"key": key, "value": n}, f"p{key}{n}"), call("get", {"key": key}, f"g{key}{n}")]
            expected += ["ok", f"{key}={n}"]
    agent = create_agent(
        saying(ai(*calls), "done"),
        world.tools,
        middleware=PLACES[place](ibidem.Middleware(Guard(effects=EFFECTS)), Around()),
    )
    assert contents(messages(way, agent, {"max_concurrency": threads})) == expected


@BOTH
@EVERY_PLACE
def test_what_a_person_rejects_or_edits_is_not_run_as_the_message_had_it(way, place):
    world = World()
    calls = [
        call("put", {"key": "a", "value": 1}, "edited"),
        call("put", {"key": "b", "value": 1}, "rejected"),
        call("get", {"key": "a"}, "get a"),
        call("get", {"key": "b"}, "get b"),
        call("get", {"key": "c"}, "get c"),
    ]
    person = HumanInTheLoopMiddleware(interrupt_on={"put": True})
    agent = create_agent(
        saying(ai(*calls), "done"),
        world.tools,
        middleware=PLACES["first" if place == "alone" else place](ibidem.Middleware(Guard(effects=EFFECTS)), person),
        checkpointer=InMemorySaver(),
    )
    messages(way, agent, thread("t"))
    decisions = [
        {"type": "edit", "edited_action": {"name": "put", "args": {"key": "c", "value": 7}}},
        {"type": "reject", "message": "no"},
    ]
    found = ask(way, agent, Command(resume={"decisions": decisions}), thread("t"))
    answers = {m.tool_call_id: m.content for m in found["messages"] if isinstance(m, ToolMessage)}
    assert "rejected" in answers["rejected"] or answers["rejected"] == "no"  # an older LangChain gives the words alone
    assert [answers[f"get {key}"] for key in "abc"] == ["a=0", "b=0", "c=7"]
    assert [run for run in world.runs.runs if run[0] == "put"] == [("put", "c")]


@BOTH
def test_a_failure_is_retried_below_the_model_and_told_in_our_words(way):
    tries = Counter()

    class Down(Exception):
        status_code = 503

    @tool
    def get(key: str) -> str:
        """Get."""
        if tries(key) < 2:
            raise Down
        raise ToolException("no such key")

    middleware = ibidem.Middleware(effects={"get": Read()}, retry=Retry(first_delay=0.001, budget=1.0))
    found = messages(way, create_agent(saying(ai(call("get", {"key": "a"})), "done"), [get], middleware=[middleware]))
    assert len(tries) == 2
    assert '"kind": "tool_error"' in found[0].content
    assert found[0].status == "error"


@BOTH
def test_an_outer_retry_middleware_tries_again(way):
    tries = Counter()

    @tool
    def get(key: str) -> str:
        """Get."""
        if tries(key) < 2:
            raise ToolException("not yet")
        return "fine"

    ours = ibidem.Middleware(effects={"get": Read()}, errors="raise")
    outer = ToolRetryMiddleware(max_retries=2, initial_delay=0.001)
    agent = create_agent(saying(ai(call("get", {"key": "a"})), "done"), [get], middleware=[outer, ours])
    assert contents(messages(way, agent)) == ["fine"]


@BOTH
def test_alone_it_makes_one_request_of_a_message(way):
    asked = []

    def fetch(keys):
        asked.append(sorted(keys))
        return [f"{key}=0" for key in keys]

    async def afetch(keys):
        return fetch(keys)

    batch = Batch(fetch if way == "sync" else afetch, arg="key")
    calls = [call("get", {"key": f"{n}"}, f"{n}") for n in range(20)]
    agent = create_agent(
        saying(ai(*calls), "done"),
        World().tools,
        middleware=[ibidem.Middleware(effects={"get": Read("k:{key}", batch=batch, identity="get")})],
    )
    assert contents(messages(way, agent)) == [f"{n}=0" for n in range(20)]
    assert asked == [sorted(f"{n}" for n in range(20))]


@BOTH
def test_it_leaves_tools_alone_that_pass_another_guard(way):
    world = World()
    agent = create_agent(
        saying(ai(call("get", {"key": "a"}, "1")), ai(call("get", {"key": "a"}, "2")), "done"),
        ibidem.wrap(world.tools, Guard(effects=EFFECTS)),
        middleware=[ibidem.Middleware(default=Read())],
    )
    assert [came(m) for m in messages(way, agent)] == ["ran", "memo"]


def test_two_of_one_name_need_another_name():
    first, second = ibidem.Middleware(default=Read()), ibidem.Middleware(default=Read(), name="second")
    assert (first.name, second.name) == ("ibidem", "second")
    create_agent(saying("done"), World().tools, middleware=[first, second])


def test_a_guard_and_options_are_refused():
    with pytest.raises(TypeError, match=r"guard.replace\(timeout=...\)"):
        ibidem.Middleware(Guard(), timeout=3)


def test_it_answers_for_its_guard():
    guard = Guard()
    assert ibidem.guard_of(ibidem.Middleware(guard)) is guard


class Awaiting(Scripted):
    """A model that takes no thread either."""

    async def _agenerate(self, *args, **kwargs):
        return self._generate(*args, **kwargs)


class TestHops:
    """LangSmith, by which LangChain has each middleware wrapped, takes a coroutine function through an executor."""

    @staticmethod
    async def waits_for_threads(make) -> bool:
        """Run an agent of asynchronous tools while every thread of the loop's default executor is busy."""
        loop, free = asyncio.get_running_loop(), threading.Event()
        with ThreadPoolExecutor(1) as executor:
            loop.set_default_executor(executor)

            @tool
            async def get(key: str) -> str:
                """Get."""
                return key

            model = Awaiting(answer=saying(ai(call("get", {"key": "a"})), "done").answer)
            agent = create_agent(model, [get], middleware=[make()])
            busy = loop.run_in_executor(None, free.wait)
            running = asyncio.ensure_future(agent.ainvoke({"messages": [HumanMessage("x")]}))
            ended, _ = await asyncio.wait([running], timeout=1)
            free.set()
            await busy
            said = [m for m in (await running)["messages"] if isinstance(m, ToolMessage)]
            assert contents(said) == ["a"]
            return not ended

    def test_no_call_waits_for_a_thread_that_it_does_not_need(self):
        assert not asyncio.run(self.waits_for_threads(lambda: ibidem.Middleware(reads=["get"])))

    def test_another_middleware_would(self):
        assert asyncio.run(self.waits_for_threads(Around))

    def test_what_is_traced_from_the_start_is_a_coroutine_function(self):
        """Only so does its span in a trace end when the call does."""
        ours = ibidem.Middleware(reads=["get"])
        with tracing_context(enabled=True):
            assert inspect.iscoroutinefunction(ours.awrap_tool_call)
        assert not inspect.iscoroutinefunction(ours.awrap_tool_call)
