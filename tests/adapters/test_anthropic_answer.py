"""Raw tool loops: all calls of a message in, one message of results out."""

import asyncio
import contextlib
import datetime as dt
import inspect
import json
import threading
import time
from dataclasses import dataclass

import pytest
from adapter_kit import BOTH, Counter, wait
from anthropic import beta_async_tool, beta_tool
from anthropic_kit import ASK, client, message
from langchain_core.tools import ToolException, tool

import ibidem
from ibidem import Guard, IbidemWarning, Live, Read, Write
from ibidem.anthropic import aanswer, answer, tools_for
from ibidem.anthropic.planning import Desk
from ibidem.anthropic.turns import ThreadTurn
from ibidem.testing import MessagesServer, Reply, server_use, text, use

LONG = 20


def answered(way, said, tools, guard):
    return answer(said, tools, guard) if way == "sync" else wait(aanswer(said, tools, guard))


def contents(reply):
    return [block["content"] for block in reply["content"]]


def told(block):
    assert block["is_error"] is True
    return json.loads(block["content"])["error"]


def a_world():
    """Orders, and what was done to them."""
    orders, log = {"1": "open", "2": "open"}, Counter()

    def get_order(order_id: str) -> str:
        """Look up an order.

        Args:
            order_id: Which.
        """
        log("get", order_id)
        return orders[order_id]

    def cancel_order(order_id: str) -> str:
        """Cancel an order."""
        log("cancel", order_id)
        orders[order_id] = "cancelled"
        return "done"

    return [get_order, cancel_order], log


EFFECTS = {"get_order": Read("order:{order_id}"), "cancel_order": Write("order:{order_id}")}


@BOTH
def test_all_calls_of_a_message_are_answered_in_one_message_in_order(way):
    tools, log = a_world()
    said = message(text("so"), use("get_order", {"order_id": "1"}), use("get_order", {"order_id": "2"}))
    reply = answered(way, said, tools, Guard(EFFECTS))
    assert reply["role"] == "user"
    assert reply["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_001_1", "content": "open"},
        {"type": "tool_result", "tool_use_id": "toolu_001_2", "content": "open"},
    ]
    assert len(log) == 2


@BOTH
def test_what_a_conversation_has_read_is_remembered_and_forgotten_with_its_write(way):
    tools, log = a_world()
    here = Guard(EFFECTS).bind(conversation="thread-42")
    look = message(use("get_order", {"order_id": "1"}))
    for _ in range(2):
        assert contents(answered(way, look, tools, here)) == ["open"]
    answered(way, message(use("cancel_order", {"order_id": "1"})), tools, here)
    assert contents(answered(way, look, tools, here)) == ["cancelled"]
    assert log.runs == [("get", "1"), ("cancel", "1"), ("get", "1")]
    other = here.guard.bind(conversation="another")
    answered(way, look, tools, other)
    assert len(log) == 4


@BOTH
def test_calls_that_touch_one_another_keep_their_order_within_a_message(way):
    tools, _ = a_world()
    calls = [use(name, {"order_id": "1"}) for name in ("get_order", "cancel_order", "get_order", "cancel_order")]
    guard = Guard(EFFECTS)
    for _ in range(20):
        tools, log = a_world()
        assert contents(answered(way, message(*calls), tools, guard.bind(conversation=str(id(tools))))) == [
            "open",
            "done",
            "cancelled",
            "done",
        ]
        assert [what for what, _ in log.runs] == ["get", "cancel", "get", "cancel"]


@BOTH
def test_calls_that_do_not_touch_one_another_run_at_the_same_time(way):
    meet = threading.Barrier(3, timeout=LONG)

    def get(key: str) -> str:
        meet.wait()
        return key

    def put(key: str) -> str:
        meet.wait()
        return key

    guard = Guard({"get": Read("key:{key}"), "put": Write("key:{key}")})
    said = message(use("get", {"key": "a"}), use("put", {"key": "b"}), use("get", {"key": "c"}))
    assert contents(answered(way, said, [get, put], guard)) == ["a", "b", "c"]


@BOTH
def test_a_read_behind_a_write_does_not_keep_others_from_beginning(way):
    """put a, get a, get b: the last meets the first, although the second waits for it."""
    meet = threading.Barrier(2, timeout=LONG)

    def get(key: str) -> str:
        if key == "b":
            meet.wait()
        return key

    def put(key: str) -> str:
        meet.wait()
        return key

    guard = Guard({"get": Read("key:{key}"), "put": Write("key:{key}")})
    said = message(use("put", {"key": "a"}), use("get", {"key": "a"}), use("get", {"key": "b"}))
    assert contents(answered(way, said, [get, put], guard)) == ["a", "a", "b"]


@BOTH
def test_calls_of_which_nothing_is_declared_run_one_after_another_as_without_ibidem(way):
    running, ran = [], []

    def act(n: int) -> str:
        assert not running
        running.append(n)
        time.sleep(0.002)
        running.remove(n)
        ran.append(n)
        return str(n)

    guard = Guard(reads=["nothing"])
    with pytest.warns(IbidemWarning, match="no tool has that name"):
        answered(way, message(*(use("act", {"n": n}) for n in range(8))), [act], guard)
    assert ran == list(range(8))


def test_calls_that_run_one_after_another_stay_in_the_thread_that_asked():
    def where() -> str:
        return str(threading.get_ident())

    with pytest.warns(IbidemWarning, match="nothing is declared"):
        reply = answer(message(use("where"), use("where")), [where], Guard())
    assert set(contents(reply)) == {str(threading.get_ident())}


@BOTH
def test_identical_calls_of_a_message_are_one_run(way):
    log = Counter()

    def get(key: str) -> str:
        log(key)
        time.sleep(0.01)
        return key

    said = message(*(use("get", {"key": "a"}) for _ in range(5)))
    assert contents(answered(way, said, [get], Guard(reads=["get"]))) == ["a"] * 5
    assert len(log) == 1


@BOTH
def test_a_failing_call_costs_its_siblings_nothing_and_is_told_in_json(way):
    def get(key: str) -> str:
        if key == "bad":
            raise FileNotFoundError("/secret/path")
        return key

    said = message(*(use("get", {"key": key}) for key in ("a", "bad", "b")))
    reply = answered(way, said, [get], Guard(reads=["get"]))
    assert [block.get("is_error", False) for block in reply["content"]] == [False, True, False]
    error = told(reply["content"][1])
    assert (error["kind"], error["retryable"]) == ("not_found", False)
    assert "/secret" not in json.dumps(reply)


@BOTH
@pytest.mark.parametrize("declared", [True, False])
def test_a_failure_of_an_undeclared_tool_is_told_too(way, declared):
    def get(key: str) -> str:
        raise PermissionError(key)

    guard = Guard(live=["get"] if declared else ["other"])
    with contextlib.nullcontext() if declared else pytest.warns(IbidemWarning):
        reply = answered(way, message(use("get", {"key": "a"})), [get], guard)
    assert told(reply["content"][0])["kind"] == "unauthorized"


@BOTH
def test_errors_are_raised_where_the_guard_says_so_and_its_words_are_used_where_it_has_some(way):
    def get() -> str:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        answered(way, message(use("get")), [get], Guard(live=["get"], errors="raise"))
    reply = answered(way, message(use("get")), [get], Guard(live=["get"], errors=lambda fault: f"oh: {fault.kind}"))
    assert contents(reply) == ["oh: unauthorized"]


@BOTH
def test_arguments_that_do_not_fit_never_reach_the_tool(way):
    log = Counter()

    def get(n: int) -> str:
        log(n)
        return str(n)

    said = message(use("get", {"n": "many"}), use("get", {}), use("get", {"n": 1, "x": 2}), use("get", {"n": "5"}))
    reply = answered(way, said, [get], Guard(reads=["get"]))
    assert [told(block)["kind"] for block in reply["content"][:3]] == ["invalid_arguments"] * 3
    assert contents(reply)[3] == "5" and log.runs == [5]


@BOTH
def test_arguments_are_a_key_as_the_tool_gets_them(way):
    log = Counter()

    def get(day: dt.date, n: int = 1) -> str:
        log(day, n)
        return day.isoformat()

    said = [use("get", {"day": "2026-01-02"}), use("get", {"n": "1", "day": "2026-01-02"})]
    guard = Guard(reads=["get"])
    for each in said:
        assert contents(answered(way, message(each), [get], guard)) == ["2026-01-02"]
    assert log.runs == [(dt.date(2026, 1, 2), 1)]


def every_kind():
    @tool
    def of_langchain(key: str) -> str:
        """Of LangChain."""
        return key

    @beta_tool
    def of_the_sdk(key: str) -> str:
        """Of the SDK."""
        return key

    def function(key: str) -> str:
        """A function."""
        return key

    return [of_langchain, of_the_sdk, function]


@BOTH
def test_every_kind_of_tool_is_called_and_described(way):
    tools = every_kind()
    names = ["of_langchain", "of_the_sdk", "function"]
    guard = Guard(reads=names)
    said = message(*(use(name, {"key": name}) for name in names))
    assert contents(answered(way, said, tools, guard)) == names
    shown = tools_for(tools)
    assert [each["name"] for each in shown] == names
    assert all(each["input_schema"]["properties"]["key"]["type"] == "string" for each in shown)
    assert [each["description"] for each in shown] == ["Of LangChain.", "Of the SDK.", "A function."]
    assert [o.how for o in guard.gather([(tools[0], {"key": "of_langchain"})])] == ["memo"]


@BOTH
def test_a_dict_of_names_to_callables_is_tools_too(way):
    class Shop:
        def find(self, key: str) -> str:
            return f"found {key}"

    tools = {"find": Shop().find, "shout": lambda key: key.upper()}
    guard = Guard(live=["*"])
    said = message(use("find", {"key": "a"}), use("shout", {"key": "b"}))
    assert contents(answered(way, said, tools, guard)) == ["found a", "B"]
    assert [each["name"] for each in tools_for(tools)] == ["find", "shout"]


def test_asynchronous_tools_are_awaited_and_refused_where_nobody_can():
    async def get(key: str) -> str:
        await asyncio.sleep(0)
        return key

    @beta_async_tool
    async def of_the_sdk(key: str) -> str:
        return key

    @tool
    async def of_langchain(key: str) -> str:
        """Of LangChain."""
        return key

    tools, names = [get, of_the_sdk, of_langchain], ["get", "of_the_sdk", "of_langchain"]
    guard = Guard(reads=["*"])
    said = message(*(use(name, {"key": name}) for name in names))
    assert contents(wait(aanswer(said, tools, guard))) == names
    for name in names:
        with pytest.raises(TypeError, match="aanswer"):
            answer(message(use(name, {"key": "a"})), tools, guard)


@BOTH
def test_what_the_api_calls_a_result_is_made_of_anything(way):
    @dataclass
    class Point:
        x: int

    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aa=="}}
    given = {
        "text": "é",
        "none": None,
        "number": 1.5,
        "dict": {"a": [1, "é"]},
        "rows": [{"type": "order", "id": 1}],
        "like a block": [{"type": "image", "width": 3}],
        "blocks": [{"type": "text", "text": "see"}, image],
        "langchain": [{"type": "image", "base64": "aa==", "mime_type": "image/png"}],
        "openai": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aa=="}}],
        "empty": [],
        "class": Point(3),
        "half": "a\ud83d",
    }

    def get(key: str) -> object:
        return given[key]

    said = message(*(use("get", {"key": key}) for key in given))
    found = dict(zip(given, contents(answered(way, said, [get], Guard(live=["get"]))), strict=True))
    assert found == {
        "text": "é",
        "none": "null",
        "number": "1.5",
        "dict": '{"a": [1, "é"]}',
        "rows": '[{"type": "order", "id": 1}]',
        "like a block": '[{"type": "image", "width": 3}]',
        "blocks": [{"type": "text", "text": "see"}, image],
        "langchain": [image],
        "openai": [image],
        "empty": "[]",
        "class": '{"x": 3}',
        "half": "a\ufffd",
    }


@BOTH
def test_langchain_tools_say_by_their_message_what_the_model_reads(way):
    @tool(response_format="content_and_artifact")
    def look(key: str):
        """Look."""
        return [{"type": "text", "text": key}], {"the": "artifact"}

    @tool
    def refuse(key: str) -> str:
        """Refuse."""
        raise ToolException("not today")

    refuse.handle_tool_error = True
    said = message(use("look", {"key": "a"}), use("refuse", {"key": "a"}))
    reply = answered(way, said, [look, refuse], Guard(live=["*"]))
    assert reply["content"][0]["content"] == [{"type": "text", "text": "a"}]
    assert (reply["content"][1]["content"], reply["content"][1]["is_error"]) == ("not today", True)


@BOTH
def test_blocks_that_are_not_ours_are_left_alone(way):
    tools, _ = a_world()
    mcp = {"type": "mcp_tool_use", "id": "m", "name": "get_order", "server_name": "s", "input": {"order_id": "1"}}
    said = message(
        *server_use("web_search", {"query": "x"}),
        mcp,
        use("memory", {"command": "view"}),
        use("get_order", {"order_id": "1"}, toolset_name="browser"),
        use("get_order", {"order_id": "2"}, id="ours"),
    )
    reply = answered(way, said, tools, Guard(EFFECTS))
    assert [block["tool_use_id"] for block in reply["content"]] == ["ours"]


@BOTH
def test_the_members_of_a_toolset_are_named_with_it_and_it_is_echoed(way):
    running = Counter()

    def click(x: int) -> str:
        running(x)
        time.sleep(0.002)
        return "clicked"

    said = message(*(use("click", {"x": x}, toolset_name="browser") for x in range(4)), use("click", {"x": 9}))
    reply = answered(way, said, {("browser", "click"): click}, Guard(live=["click"]))
    assert [block["toolset_name"] for block in reply["content"]] == ["browser"] * 4
    assert running.runs == [0, 1, 2, 3]


@BOTH
@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "pause_turn", "end_turn", "model_context_window_exceeded"])
def test_a_message_that_does_not_stop_for_its_tools_runs_none(way, reason):
    tools, log = a_world()
    said = message(use("cancel_order", {"order_id": "1"}), stop_reason=reason)
    assert answered(way, said, tools, Guard(EFFECTS)) is None
    assert answered(way, message(text("hello")), tools, Guard(EFFECTS)) is None
    assert len(log) == 0


@BOTH
def test_a_message_kept_as_a_dictionary_is_answered_too(way):
    tools, _ = a_world()
    said = {"role": "assistant", "content": [use("get_order", {"order_id": "1"}, id="a")]}
    assert contents(answered(way, said, tools, Guard(EFFECTS))) == ["open"]
    assert answered(way, {"role": "assistant", "content": "hello"}, tools, Guard(EFFECTS)) is None


@BOTH
def test_the_text_by_which_a_write_is_known_again_is_filled_in_and_shown_to_no_model_r34(way):
    seen = []

    def pay(amount: int, token: str) -> str:
        seen.append(token)
        if len(seen) == 1:
            raise ConnectionResetError
        return "paid"

    guard = Guard({"pay": Write(idempotency_key="token", retry=ibidem.Retry(first_delay="1ms"))})
    here = guard.bind(conversation="7")
    for said in (use("pay", {"amount": 1}), use("pay", {"amount": 1, "token": "the model's"})):
        assert contents(answered(way, message(said), [pay], here)) == ["paid"]
    assert len(set(seen)) == 1 and len(seen) == 3  # one call, as its id and its arguments say, tried three times in all
    answered(way, message(use("pay", {"amount": 1}, id="another")), [pay], here)
    assert len(set(seen)) == 2
    later = message(use("pay", {"amount": 1}))
    later.id = "msg_2"
    answered(way, later, [pay], here)  # whose calls are counted from the start in each message
    assert len(set(seen)) == 3
    schema = tools_for([pay], guard)[0]["input_schema"]
    assert "token" not in schema["properties"] and "token" not in schema["required"]
    assert "token" in tools_for([pay])[0]["input_schema"]["properties"]


def test_what_a_tool_says_beside_its_schema_is_kept():
    @tool(extras={"cache_control": {"type": "ephemeral"}, "input_examples": [{"key": "a"}]})
    def of_langchain(key: str) -> str:
        """Of LangChain."""

    if "strict" not in inspect.signature(beta_tool).parameters:
        pytest.skip("this SDK's tools say nothing beside their schema")

    @beta_tool(strict=True, name="renamed", input_examples=[{"key": "b"}])
    def of_the_sdk(key: str) -> str:
        """Of the SDK."""

    search = {"type": "web_search_20250305", "name": "web_search"}
    first, second, third = tools_for([of_langchain, of_the_sdk, search])
    assert first["cache_control"] == {"type": "ephemeral"} and first["input_examples"] == [{"key": "a"}]
    assert (second["name"], second["strict"], second["input_examples"]) == ("renamed", True, [{"key": "b"}])
    assert third == search


@BOTH
def test_a_tool_that_has_another_name_is_declared_by_it(way):
    log = Counter()

    @beta_tool(name="renamed")
    def original() -> str:
        return str(log())

    guard = Guard(reads=["renamed"])
    for _ in range(2):
        assert contents(answered(way, message(use("renamed")), [original], guard)) == ["1"]


@pytest.mark.parametrize(
    ("tools", "problem", "says"),
    [
        ([5], TypeError, "no tool"),
        ({5: str}, TypeError, "keyed by name"),
        ([every_kind()[1]] * 2, ValueError, "two tools"),
        ({"other": every_kind()[1]}, ValueError, "one name"),
    ],
)
def test_what_is_no_tool_is_refused(tools, problem, says):
    with pytest.raises(problem, match=says):
        answer(message(use("get")), tools, Guard(reads=["*"]))


@BOTH
def test_what_is_wrapped_already_passes_its_guard_once(way):
    tools, log = a_world()
    guard = Guard(EFFECTS)
    calls = Counter()
    counted = guard.replace(on_event=lambda event: calls(event))
    wrapped = ibidem.wrap(tools, counted)
    answered(way, message(use("get_order", {"order_id": "1"})), wrapped, counted)
    assert counted.stats().calls == 1 and len(log) == 1
    with pytest.raises(ValueError, match="another guard"):
        answered(way, message(use("get_order", {"order_id": "1"})), wrapped, guard)


@BOTH
def test_a_guard_that_is_off_runs_the_calls_as_a_loop_would(way, monkeypatch):
    monkeypatch.setenv("IBIDEM", "off")
    tools = [*every_kind(), *a_world()[0]]
    said = message(
        use("of_langchain", {"key": "a"}), use("of_the_sdk", {"key": "b"}), use("get_order", {"order_id": "x"})
    )
    reply = answered(way, said, tools, Guard(EFFECTS))
    assert contents(reply)[:2] == ["a", "b"] and reply["content"][2]["is_error"]


@BOTH
def test_what_a_tool_of_the_sdk_says_of_its_error_itself_is_kept(way):
    error = pytest.importorskip("anthropic.lib.tools", reason="a newer SDK").__dict__.get("ToolError")
    if error is None:
        pytest.skip("this SDK has no ToolError")
    parts = [{"type": "text", "text": "in my words"}, {"type": "image", "source": {}}]

    def get() -> str:
        raise error(parts)

    reply = answered(way, message(use("get")), [get], Guard(live=["get"]))
    assert reply["content"][0]["content"] == parts[:1] and reply["content"][0]["is_error"]


def test_a_whole_loop_against_the_api():
    tools, log = a_world()
    here = Guard(EFFECTS).bind(conversation="loop")
    turns = (
        Reply([use("get_order", {"order_id": "1"}), use("get_order", {"order_id": "3"})]),
        Reply(server_use("web_search"), stop_reason="pause_turn"),
        Reply([use("cancel_order", {"order_id": "1"}), use("get_order", {"order_id": "1"})]),
        [text("done")],
    )
    with MessagesServer(*turns) as server, client(server) as ours:
        messages = [*ASK["messages"]]
        for _ in range(10):
            reply = ours.messages.create(**{**ASK, "messages": messages}, tools=tools_for(tools))
            messages.append({"role": "assistant", "content": reply.content})
            results = answer(reply, tools, here)
            if results is not None:
                messages.append(results)
            elif reply.stop_reason != "pause_turn":
                break
    assert server.violations == [] and len(server.requests) == 4
    assert [block["content"] for block in server.results] == ["done", "cancelled"]


def test_cancelling_cancels_what_still_runs():
    began, ended = [], []

    async def slow(key: str) -> str:
        began.append(key)
        try:
            await asyncio.sleep(LONG)
        finally:
            ended.append(key)

    async def put(key: str) -> str:
        await asyncio.sleep(LONG)

    async def main():
        guard = Guard({"slow": Live(), "put": Write("a")})
        said = message(use("slow", {"key": "a"}), use("slow", {"key": "b"}), use("put", {"key": "c"}))
        task = asyncio.create_task(aanswer(said, [slow, put], guard))
        while len(began) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)

    asyncio.run(main())
    assert sorted(ended) == ["a", "b"]


def test_what_has_not_begun_when_its_caller_is_gone_never_begins():
    """Ctrl-C while a read runs: the write that waits for it is not made behind the back of whoever pressed it."""
    began, let, log = threading.Event(), threading.Event(), Counter()

    def get(key: str) -> str:
        began.set()
        assert let.wait(LONG)
        return key

    def put(key: str) -> str:
        log(key)
        return key

    guard = Guard({"get": Read("key:{key}"), "put": Write("key:{key}")})
    desk = Desk([get, put], guard, awaits=False)
    turn = ThreadTurn(desk.bound)
    places = [turn.add(desk.plan(use(name, {"key": "a"}), {"key": "a"}, None)) for name in ("get", "put")]
    for place in places:
        turn.start(place)
    assert began.wait(LONG)
    turn.stop()
    let.set()
    while not turn._slots[0].ended:
        time.sleep(0.001)
    assert not turn._slots[1].ended and len(log) == 0


@BOTH
def test_control_flow_passes_and_what_waited_for_it_never_begins_r18(way):
    class Stop(BaseException):
        pass

    log = Counter()

    def put(key: str) -> str:
        if key == "stop":
            raise Stop
        log(key)
        return key

    guard = Guard({"put": Write("key"), "get": Read("other")})
    said = message(use("get"), use("put", {"key": "stop"}), use("put", {"key": "a"}))
    with pytest.raises(Stop):
        answered(way, said, {"put": put, "get": lambda: "x"}, guard)
    assert len(log) == 0
