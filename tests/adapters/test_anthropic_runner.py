"""The SDK's runner through a guard: parallel, merged, ordered, remembered, and otherwise as it is."""

import asyncio
import inspect
import json
import logging
import threading
import warnings

import anthropic
import pytest
from adapter_kit import BOTH, Counter
from anthropic import beta_async_tool, beta_tool
from anthropic_kit import ASK, aclient, client

import ibidem
from ibidem import Guard, IbidemWarning, Read, Write
from ibidem.testing import MessagesServer, Reply, text, use

LONG = 20
NEWEST = "run_tools_eagerly" in inspect.signature(anthropic.resources.beta.Messages.tool_runner).parameters
EFFECTS = {"get": Read("key:{key}"), "put": Write("key:{key}")}


class World:
    """A tool that reads and one that writes, as the SDK's, sync or async."""

    def __init__(self, way, meet=None):
        self.log, self.values = Counter(), {}
        make = beta_tool if way == "sync" else beta_async_tool

        def get(key: str) -> str:
            """Get."""
            self.log("get", key)
            if meet is not None:
                meet.wait()
            if key == "bad":
                raise FileNotFoundError(key)
            return self.values.get(key, "nothing")

        def put(key: str, value: str) -> str:
            """Put."""
            self.log("put", key)
            self.values[key] = value
            return "done"

        async def aget(key: str) -> str:
            """Get."""
            await asyncio.sleep(0)
            return await asyncio.to_thread(get, key) if meet is not None else get(key)

        async def aput(key: str, value: str) -> str:
            """Put."""
            return put(key, value)

        self.tools = [make(get), make(put)] if way == "sync" else [make(aget, name="get"), make(aput, name="put")]


def looped(way, server, tools, guard, *, each=lambda runner, item: None, wrapped=True, **options):
    """Run the loop to its end, and give the messages, or streams, that it gave."""
    around = ibidem.anthropic.runner if wrapped else lambda runner, _: runner
    given = {**ASK, "tools": tools, **options}
    if way == "sync":
        with client(server) as ours:
            runner = around(ours.beta.messages.tool_runner(**given), guard)
            items = []
            for item in runner:
                items.append(item)
                each(runner, item)
            return items

    async def main():
        async with aclient(server) as ours:
            runner = around(ours.beta.messages.tool_runner(**given), guard)
            items = []
            async for item in runner:
                items.append(item)
                did = each(runner, item)
                if inspect.isawaitable(did):
                    await did
            return items

    return asyncio.run(main())


def results(server, number=-1):
    blocks = server.requests[number]["messages"][-1]["content"]
    return [block["content"] for block in blocks if block["type"] == "tool_result"]


@BOTH
def test_the_calls_of_a_message_run_at_the_same_time(way):
    world = World(way, threading.Barrier(3, timeout=LONG))
    calls = Reply([use("get", {"key": key}) for key in "abc"])
    with MessagesServer(calls, [text("done")]) as server:
        items = looped(way, server, world.tools, Guard(EFFECTS))
    assert results(server) == ["nothing"] * 3 and server.violations == []
    assert [item.stop_reason for item in items] == ["tool_use", "end_turn"]


@BOTH
def test_without_a_guard_they_run_one_after_another(way):
    """The negative control: were this to fail, the SDK had changed and the test above would show nothing."""
    world = World(way, threading.Barrier(2, timeout=0.2))
    calls = Reply([use("get", {"key": key}) for key in "ab"])
    with MessagesServer(calls, [text("done")]) as server:
        looped(way, server, world.tools, None, wrapped=False)
    assert all("BrokenBarrierError" in content for content in results(server))


@BOTH
def test_calls_keep_the_order_that_they_need_and_repeats_are_one_run(way):
    world = World(way)
    calls = [use("get", {"key": "a"}), use("put", {"key": "a", "value": "1"}), use("get", {"key": "a"})]
    calls += [use("put", {"key": "a", "value": "2"}), use("get", {"key": "a"}), use("get", {"key": "a"})]
    with MessagesServer(Reply(calls), Reply([use("get", {"key": "a"})]), [text("done")]) as server:
        looped(way, server, world.tools, Guard(EFFECTS))
    assert results(server, 1) == ["nothing", "done", "1", "done", "2", "2"]
    assert results(server, 2) == ["2"]
    assert [what for what, _ in world.log.runs] == ["get", "put", "get", "put", "get"]


@BOTH
def test_two_writes_that_are_alike_both_run_and_each_once_r31(way):
    world = World(way)
    calls = Reply([use("put", {"key": "a", "value": "1"}), use("put", {"key": "a", "value": "1"})])
    with MessagesServer(calls, [text("done")]) as server:
        looped(way, server, world.tools, Guard(EFFECTS))
    assert world.log.runs == [("put", "a"), ("put", "a")] and results(server) == ["done", "done"]


@BOTH
def test_a_failing_call_is_told_in_json_and_costs_the_others_nothing(way, caplog):
    world = World(way)
    calls = Reply([use("get", {"key": "bad"}), use("get", {"key": "a"}), use("get", {})])
    with MessagesServer(calls, [text("done")]) as server:
        looped(way, server, world.tools, Guard(EFFECTS))
    bad, good, misfit = server.requests[-1]["messages"][-1]["content"]
    assert json.loads(bad["content"])["error"]["kind"] == "not_found" and bad["is_error"]
    assert json.loads(misfit["content"])["error"]["kind"] == "invalid_arguments" and misfit["is_error"]
    assert good["content"] == "nothing" and not good.get("is_error")
    assert server.violations == []


@BOTH
def test_a_tool_that_is_not_there_is_the_runners_to_tell(way):
    world = World(way)
    with MessagesServer(Reply([use("other"), use("get", {"key": "a"})]), [text("done")]) as server:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            looped(way, server, world.tools, Guard(EFFECTS))
    assert results(server) == ["Error: Tool 'other' not found", "nothing"]


@BOTH
def test_a_failure_of_an_undeclared_tool_is_told_as_without_ibidem(way, caplog):
    caplog.set_level(logging.CRITICAL)
    for guard in (None, Guard()):
        world = World(way)
        with MessagesServer(Reply([use("get", {"key": "bad"})]), [text("done")]) as server:
            if guard is None:
                looped(way, server, world.tools, None, wrapped=False)
            else:
                with pytest.warns(IbidemWarning, match="nothing is declared"):
                    looped(way, server, world.tools, guard)
        assert results(server) == ["FileNotFoundError('bad')"]


@BOTH
@pytest.mark.parametrize("cut", [0, 1, 10, 20, 30, 45, 60])
def test_a_message_that_is_cut_off_runs_nothing(way, cut):
    world = World(way)
    calls = [use("put", {"key": "a", "value": "1"}), use("get", {"key": "a"}), use("get", {"key": "b" * 20})]
    with MessagesServer(Reply(calls, cut=cut)) as server:
        looped(way, server, world.tools, Guard(EFFECTS))
    assert len(world.log) == 0 and len(server.requests) == 1


@BOTH
def test_an_answer_that_is_asked_for_twice_runs_its_calls_once(way):
    """`append_messages` lets the SDK go through the message again; a payment is not made again for that."""
    world = World(way)

    def each(runner, message):
        if message.stop_reason != "tool_use":
            return None
        if way == "sync":
            answer = runner.generate_tool_call_response()
            return runner.append_messages(message, answer)

        async def more():
            answer = await runner.generate_tool_call_response()
            runner.append_messages(message, answer)

        return more()

    with MessagesServer(Reply([use("put", {"key": "a", "value": "1"})]), [text("done")]) as server:
        looped(way, server, world.tools, Guard(EFFECTS), each=each)
    assert world.log.runs == [("put", "a")] and server.violations == []


@BOTH
@pytest.mark.parametrize("eagerly", [False, True])
def test_a_runner_that_streams_does_so_still(way, eagerly):
    if eagerly and not NEWEST:
        pytest.skip("this SDK runs no tools while it streams")
    world = World(way)
    calls = [use("put", {"key": "a", "value": "1"}), use("get", {"key": "a"}), use("get", {"key": "b"})]
    seen = []

    def each(_, stream):
        if way == "sync":
            seen.extend(event.type for event in stream)
            return None

        async def more():
            async for event in stream:
                seen.append(event.type)

        return more()

    options = {"run_tools_eagerly": True} if eagerly else {}
    with MessagesServer(Reply(calls), [text("done")]) as server:
        looped(way, server, world.tools, Guard(EFFECTS), each=each, stream=True, **options)
    assert results(server) == ["done", "1", "nothing"] and server.violations == []
    assert sorted(world.log.runs) == [("get", "a"), ("get", "b"), ("put", "a")]
    assert "content_block_stop" in seen


@BOTH
def test_wrapped_tools_do_in_a_runner_that_is_not(way):
    world = World(way)
    calls = Reply([use("get", {"key": "a"}), use("get", {"key": "a"}), use("get", {"key": "bad"})])
    tools = ibidem.wrap(world.tools, Guard(EFFECTS))
    assert [type(tool).__mro__[1] for tool in tools] == [type(tool) for tool in world.tools]
    with MessagesServer(calls, [text("done")]) as server:
        looped(way, server, tools, None, wrapped=False)
    assert results(server)[:2] == ["nothing"] * 2 and len(world.log) == 2
    assert json.loads(results(server)[2])["error"]["kind"] == "not_found"


def test_a_wrapped_tool_is_called_as_it_was():
    world = World("sync")
    guard = Guard(EFFECTS)
    get = ibidem.wrap(world.tools[0], guard)
    assert get("a") == get(key="a") == get.call({"key": "a"}) == "nothing"
    assert len(world.log) == 1 and get.to_dict() == world.tools[0].to_dict()
    assert ibidem.guard_of(get) is guard and ibidem.wrap(get, guard) is get
    with pytest.raises(FileNotFoundError):
        get("bad")
    with pytest.raises(TypeError, match="dictionary"):
        get.call("no dictionary")
    assert world.tools[0].func is not get.func


def test_a_conversation_is_bound_and_the_runner_stays_what_it_was():
    world, guard = World("sync"), Guard(EFFECTS)
    for name in ("1", "2", "1"):
        here = guard.bind(conversation=name)
        with MessagesServer(Reply([use("get", {"key": "a"})]), [text("done")]) as server, client(server) as ours:
            plain = ours.beta.messages.tool_runner(**ASK, tools=world.tools)
            around = ibidem.wrap(plain, here)
            assert isinstance(around, type(plain)) and around is not plain and ibidem.guard_of(around) is guard
            assert ibidem.anthropic.runner(around, here) is around
            assert around.until_done().content[0].text == "done"
            assert results(server) == ["nothing"]
    assert len(world.log) == 2


def test_a_runner_that_was_iterated_already_is_refused():
    world = World("sync")
    with MessagesServer(Reply([use("get", {"key": "a"})]), [text("done")]) as server, client(server) as ours:
        plain = ours.beta.messages.tool_runner(**ASK, tools=world.tools)
        next(plain)
        with pytest.raises(ValueError, match="iterated already"):
            ibidem.anthropic.runner(plain, Guard(EFFECTS))


def test_a_guard_that_is_off_leaves_a_runner_alone(monkeypatch):
    monkeypatch.setenv("IBIDEM", "off")
    with MessagesServer([text("done")]) as server, client(server) as ours:
        plain = ours.beta.messages.tool_runner(**ASK, tools=World("sync").tools)
        assert ibidem.anthropic.runner(plain, Guard(EFFECTS)) is plain


def test_what_is_no_runner_is_refused():
    with pytest.raises(TypeError, match="no runner"):
        ibidem.anthropic.runner([], Guard(EFFECTS))
