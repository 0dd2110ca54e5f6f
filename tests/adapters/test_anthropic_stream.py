"""Early dispatch: calls begin while the message streams, no sooner than they are certain, and never on half an input."""

import asyncio
import json
import random
import threading
import types

import anthropic
import pytest
from adapter_kit import BOTH, Counter
from anthropic_kit import ASK, SOAK, aclient, client

from ibidem import Guard, Live, Nested, Pure, Read, Write
from ibidem.anthropic import stream
from ibidem.anthropic.certainty import Certainty
from ibidem.testing import MessagesServer, Reply, text, use

LONG = 20
CUTS = 1000 if SOAK else 100
REQUEST = {"model": "claude-test", "max_tokens": 100, "messages": ASK["messages"]}


class World:
    """Tools that write down what reaches them."""

    def __init__(self):
        self.log = Counter()
        self.started = threading.Event()

        def get(key: str = "none") -> str:
            """Get."""
            self.log("get", key)
            self.started.set()
            return f"got {key}"

        def put(key: str = "none") -> str:
            """Put."""
            self.log("put", key)
            return f"put {key}"

        def act(key: str) -> str:
            """Act."""
            self.log("act", key)
            return f"acted {key}"

        self.tools = [get, put, act]
        self.guard = Guard({"get": Read("key:{key}"), "put": Write("key:{key}"), "act": Nested()})


def streamed(way, server, world, look=lambda event: None, pause=0.005):
    """Stream a message, look at each event, and give the answer."""
    if way == "sync":
        with client(server) as ours, stream(ours, world.guard, tools=world.tools, **REQUEST) as early:
            for event in early:
                look(event)
            return early.answer()

    async def main():
        async with aclient(server) as ours, stream(ours, world.guard, tools=world.tools, **REQUEST) as early:
            async for event in early:
                if event.type in ("content_block_start", "content_block_stop"):
                    await asyncio.sleep(pause)  # what began gets a turn of the loop
                look(event)
            return await early.answer()

    return asyncio.run(main())


def contents(answer):
    return [block["content"] for block in answer["content"]]


@BOTH
def test_a_read_begins_before_the_message_ends_and_a_write_when_it_asks_for_its_tools(way):
    world = World()
    calls = [use("get", {"key": "a"}), use("put", {"key": "b"}), text("and that is all"), use("act", {"key": "c"})]
    ended = []

    def look(event):
        if event.type == "content_block_start" and event.index == 1:
            assert world.started.wait(LONG)
        if event.type != "message_delta" and not ended:
            assert [what for what, _ in world.log.runs if what != "get"] == []
        else:
            ended.append(event)

    with MessagesServer(calls, wire=9) as server:
        answer = streamed(way, server, world, look)
    assert contents(answer) == ["got a", "put b", "acted c"]
    assert sorted(world.log.runs) == [("act", "c"), ("get", "a"), ("put", "b")] and len(ended) >= 1


@BOTH
def test_a_call_without_arguments_is_certain_when_the_next_block_begins(way):
    world = World()

    def look(event):
        if event.type == "content_block_start" and event.index == 1:
            assert world.started.wait(LONG)
        elif event.type == "content_block_stop" and event.index == 0:
            assert not world.started.is_set()

    with MessagesServer([use("get"), use("get", {"key": "b"})]) as server:
        assert contents(streamed(way, server, world, look)) == ["got none", "got b"]


@BOTH
def test_a_read_waits_for_a_write_before_it(way):
    world = World()
    calls = [use("put", {"key": "a"}), use("get", {"key": "a"}), use("get", {"key": "b"}), use("put", {"key": "b"})]
    with MessagesServer(calls) as server:
        assert contents(streamed(way, server, world)) == ["put a", "got a", "got b", "put b"]
    order = world.log.runs
    assert order.index(("put", "a")) < order.index(("get", "a"))
    assert order.index(("get", "b")) < order.index(("put", "b"))


MESSAGE = [
    text("Let me see."),
    use("get", {"key": "alpha"}),
    use("put", {"key": "beta", "note": "x" * 20}),
    use("get"),
    use("act", {"key": "gamma"}),
    use("put", {"key": 'delta, with "quotes" and {braces}'}),
    text("That is it."),
    use("get", {"key": "epsilon é"}),
]  # fmt: skip


@pytest.mark.soak
@BOTH
def test_a_message_that_is_cut_off_starts_no_write_and_gives_no_tool_half_an_input(way):
    """At random places, in pieces of the network of random size; whatever was started is discarded."""
    whole = {("get", "alpha"), ("get", "none"), ("get", "epsilon é")}
    length, reads = Reply(MESSAGE).length, 0
    draw = random.Random(7)
    cuts = [draw.randrange(length + 1) for _ in range(CUTS // 2)]
    waiting = list(cuts)

    def turn(_):
        cut = waiting.pop(0)
        end = draw.choice(["max_tokens", "max_tokens", "refusal"])
        return Reply(MESSAGE, cut=cut, end=end, seed=cut)

    with MessagesServer(turn) as server:
        for cut in cuts:
            server.wire = draw.choice([None, None, 17, 64])
            world = World()
            assert streamed(way, server, world, pause=0) is None, cut
            assert set(world.log.runs) <= whole, cut
            reads += len(world.log)
    assert reads > 0


@BOTH
def test_the_message_that_is_not_cut_off_runs_all_of_it(way):
    """The negative control of the test above."""
    world = World()
    world.guard = world.guard.replace(effects={"get": Read("key:{key}"), "put": Write("key:{key}"), "act": Nested()})
    calls = [block for block in MESSAGE if block.get("input", {}).get("note") is None]
    with MessagesServer(calls, wire=3) as server:
        answer = streamed(way, server, world)
    assert len(world.log) == len(answer["content"]) == 5


@BOTH
@pytest.mark.parametrize("end", ["error", "drop"])
def test_an_error_in_the_middle_of_the_stream_is_raised_and_starts_no_write(way, end):
    world = World()
    length = Reply(MESSAGE).length
    with MessagesServer(Reply(MESSAGE, cut=length - 3, end=end)) as server, pytest.raises(Exception) as raised:
        streamed(way, server, world)
    assert isinstance(raised.value, anthropic.APIError) or "incomplete" in str(raised.value)
    assert {what for what, _ in world.log.runs} <= {"get"}


@BOTH
def test_arguments_that_are_no_json_are_refused_although_the_sdk_makes_something_of_them(way):
    world = World()
    broken = Reply([use("get", {"key": "a"}), use("put", {"key": "b"})], raw={0: '{"key": "al', 1: '{"key": "b"'})
    with MessagesServer(broken) as server:
        answer = streamed(way, server, world)
    assert [json.loads(content)["error"]["kind"] for content in contents(answer)] == ["invalid_arguments"] * 2
    assert all(block["is_error"] for block in answer["content"]) and len(world.log) == 0


@BOTH
def test_the_stream_is_the_sdks_still(way):
    world = World()
    with MessagesServer(Reply([text("one two"), use("get", {"key": "a"})], delay=0.001)) as server:
        if way == "sync":
            with client(server) as ours, stream(ours.beta, world.guard, tools=world.tools, **REQUEST) as early:
                assert "".join(early.text_stream) == "one two"
                assert early.get_final_message().stop_reason == "tool_use"
                assert early.current_message_snapshot.id == "msg_001"
            assert contents(early.answer()) == contents(early.answer()) == ["got a"]
        else:

            async def main():
                async with aclient(server) as ours:
                    async with stream(ours.beta, world.guard, tools=world.tools, **REQUEST) as early:
                        assert "".join([piece async for piece in early.text_stream]) == "one two"
                        assert (await early.get_final_message()).stop_reason == "tool_use"
                    return await early.answer()

            assert contents(asyncio.run(main())) == ["got a"]
    assert len(world.log) == 1
    assert [tool["name"] for tool in server.requests[0]["tools"]] == ["get", "put", "act"]


def test_a_stream_that_has_not_begun_says_so():
    with MessagesServer([text("x")]) as server, client(server) as ours:
        early = stream(ours, Guard(reads=["get"]), tools=World().tools[:1], **REQUEST)
        with pytest.raises(AttributeError, match="begins in its `with` block"):
            early.text_stream


def test_leaving_before_the_end_cancels_what_was_read_for_it():
    cancelled, began = [], []

    async def slow(key: str) -> str:
        began.append(key)
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            cancelled.append(key)
            raise

    async def main():
        guard = Guard(live=["slow"])
        async with aclient(server) as ours, stream(ours, guard, tools=[slow], **REQUEST) as early:
            async for event in early:
                if event.type == "content_block_start" and event.index == 1:
                    await asyncio.sleep(0.005)
                    break
        await asyncio.sleep(0.005)

    with MessagesServer(Reply([use("slow", {"key": "a"}), text("x" * 50)], delay=0.002)) as server:
        asyncio.run(main())
    assert began == cancelled == ["a"]


@BOTH
def test_a_loop_of_streams_is_remembered_like_any_other(way):
    world = World()
    world.guard = world.guard.bind(conversation="9")
    with MessagesServer([use("get", {"key": "a"})]) as server:
        for _ in range(3):
            assert contents(streamed(way, server, world)) == ["got a"]
    assert len(world.log) == 1


# -- the decision alone ---------------------------------------------------------------------------------------------------


def event(kind, **more):
    return types.SimpleNamespace(type=kind, **more)


def start(index, block):
    return event("content_block_start", index=index, content_block=block)


def json_of(index, raw):
    return event("content_block_delta", index=index, delta=event("input_json_delta", partial_json=raw))


def stop(index):
    return event("content_block_stop", index=index)


def levels(*events):
    certainty = Certainty()
    return [[(call.block["name"], level) for call, level in certainty.follow(each)] for each in events]


def test_a_call_is_parsed_then_passed_then_asked():
    asked = event("message_delta", delta=event("", stop_reason="tool_use"))
    events = start(0, use("a")), json_of(0, '{"x"'), json_of(0, ": 1}"), stop(0), start(1, text("")), stop(1), asked
    assert levels(*events) == [[], [], [], [("a", "parsed")], [("a", "passed")], [], [("a", "asked")]]


@pytest.mark.parametrize("raw", ["", "{", '{"x": 1', "[1]", "1", "null", '{"x": NaN}', '{"x": 1}}'])
def test_what_is_no_whole_object_is_not_parsed(raw):
    assert levels(start(0, use("a")), json_of(0, raw), stop(0)) == [[], [], []]


def test_nothing_is_certain_once_another_model_has_taken_over_until_it_asks():
    asked = event("message_delta", delta=event("", stop_reason="tool_use"))
    certainty = Certainty()
    events = (
        start(0, use("a")),
        stop(0),
        start(1, {"type": "fallback"}),
        stop(1),
        start(2, use("b")),
        json_of(2, "{}"),
        stop(2),
    )
    assert [certainty.follow(each) for each in events] == [[]] * 7
    (first, _), (second, _) = certainty.follow(asked)
    assert first.arguments(complete=True) is None and second.arguments(complete=True) == {}


@pytest.mark.parametrize("effect", [Pure(), Read(), Live()], ids=repr)
def test_every_harmless_call_begins_early(effect):
    world = World()
    world.guard = Guard({"get": effect, "put": Write(), "act": Write()})

    def look(event):
        if event.type == "message_delta":
            assert world.started.wait(LONG)

    with MessagesServer([use("get", {"key": "a"})]) as server:
        assert contents(streamed("sync", server, world, look)) == ["got a"]
