"""One failing call never costs its siblings: what a model reads of failures, in real graphs. R18, R29, R35."""

import asyncio
import json
import logging
import re
import threading
import time

import pytest
from adapter_kit import BOTH, Counter, Heard, ai, ask, call, node_graph, saying, thread, turn, wait
from langchain_core.messages import ToolMessage
from langchain_core.tools import StructuredTool, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt
from typing_extensions import Annotated

import ibidem
from ibidem import Breaker, Fault, Guard, Live, Nested, Pure, Read, Retry, Write

LONG = 20


class Unavailable(Exception):
    """What clients raise for a reply of 503."""

    status_code = 503

    def __str__(self):
        return "503 for url https://api.example/orders?key=s3cr3t"


class World:
    """Five tools: one raises, one hangs, one fails twice and then answers, one is known to be dead, one is fine."""

    def __init__(self):
        self.runs = Counter()
        self.let = threading.Event()
        self.alet = None

    def body(self, name):
        number = self.runs(name)
        if name == "raises":
            raise ToolException("no such order: 42")
        if name == "flaky" and self.runs.runs.count("flaky") <= 2:
            raise Unavailable
        if name == "dead":
            raise ConnectionRefusedError(111, "refused")
        return f"{name} {number}"

    def tools(self, way):
        names = ("raises", "hangs", "flaky", "dead", "fine")

        def sync(name):
            def run(order: int) -> str:
                if name == "hangs":
                    self.let.wait(LONG)
                return self.body(name)

            return run

        def later(name):
            async def run(order: int) -> str:
                while name == "hangs":  # it swallows every cancellation but the last
                    try:
                        await asyncio.sleep(LONG)
                    except asyncio.CancelledError:
                        if self.let.is_set():
                            raise
                        self.let.set()
                return self.body(name)

            return run

        return [
            StructuredTool.from_function(
                **{"func" if way == "sync" else "coroutine": make(name)}, name=name, description=name
            )
            for name in names
            for make in [sync if way == "sync" else later]
        ]


def guard(**more):
    effects = {
        "raises": Live(),
        "hangs": Read(timeout=0.2),
        "flaky": Read(retry=Retry(max_retries=2, first_delay="1ms")),
        "dead": Live(breaker=Breaker(failures=1)),
        "fine": Read(),
    }
    return Guard(effects=effects, **more)


def hand_built(tools, guard, asked):
    return ibidem.wrap(node_graph(ToolNode(tools)), guard)


def of_twins(tools, guard, asked):
    return node_graph(ToolNode(ibidem.wrap(tools, guard)))


def agent(tools, guard, asked):
    agents = pytest.importorskip("langchain.agents")
    return ibidem.wrap(agents.create_agent(saying(asked, "done"), tools), guard)


def agent_of_twins(tools, guard, asked):
    agents = pytest.importorskip("langchain.agents")
    return agents.create_agent(saying(asked, "done"), ibidem.wrap(tools, guard))


GRAPHS = pytest.mark.parametrize("make", [hand_built, of_twins, agent, agent_of_twins])


def answers(way, graph, asked, config=None):
    state = ask(
        way, graph, {"messages": [asked] if "tools" in graph.nodes and "model" not in graph.nodes else []}, config
    )
    return {m.tool_call_id: m for m in state["messages"] if isinstance(m, ToolMessage)}


def error_of(message):
    assert message.status == "error"
    return json.loads(message.content)["error"]


@BOTH
@GRAPHS
def test_four_of_five_results_reach_the_model_and_the_fifth_says_what_went_wrong(way, make):
    world, guarded = World(), guard()
    names = ("raises", "hangs", "flaky", "dead", "fine")
    asked = ai(*(call(name, {"order": 1}, f"id-{name}") for name in names))
    graph = make(world.tools(way), guarded, asked)
    answers(way, graph, ai(call("dead", {"order": 0}, "before")) if make in (hand_built, of_twins) else asked)
    world.runs.runs.clear()
    world.let.clear()
    guarded.forget()
    found = answers(way, graph, asked)
    assert set(found) == {f"id-{name}" for name in names}, "each call has exactly one answer"
    assert error_of(found["id-raises"]) == {
        "kind": "tool_error",
        "message": "no such order: 42",
        "retryable": False,
        "attempts": 1,
    }
    assert error_of(found["id-hangs"])["kind"] == "timeout"
    assert re.fullmatch(r"flaky \d", found["id-flaky"].content) and found["id-flaky"].status == "success"
    assert error_of(found["id-dead"])["kind"] == "circuit_open"
    assert error_of(found["id-dead"])["retry_after_s"] in range(1, 31)
    assert found["id-fine"].content.startswith("fine")
    assert world.runs.runs.count("flaky") == 3 and "dead" not in world.runs.runs
    world.let.set()


@BOTH
def test_without_a_guard_the_run_dies_and_the_results_are_lost(way):
    """The negative control: it is the guard that keeps them."""
    world = World()
    with pytest.raises(ToolException):
        turn(
            way,
            node_graph(ToolNode(world.tools(way))),
            call("raises", {"order": 1}, "1"),
            call("fine", {"order": 1}, "2"),
        )


@BOTH
def test_a_hanging_call_does_not_hold_up_the_turn_for_longer_than_its_timeout_r31(way):
    world = World()
    graph = hand_built(world.tools(way), guard(), None)
    began = time.monotonic()
    turn(way, graph, *(call("hangs", {"order": n}, str(n)) for n in range(4)))
    assert time.monotonic() - began < LONG / 2
    world.let.set()


# -- whose handler wins ------------------------------------------------------------------------------------------------


def failing(**options):
    def get(key: int) -> str:
        """Get."""
        raise ToolException(f"no {key}")

    return StructuredTool.from_function(get, **options)


def kind_of(do):
    """What becomes of a failure: raised, ibidem's message, or another's."""
    try:
        message = do()
    except ToolException:
        return "raised"
    message = message[0] if isinstance(message, list) else message
    try:
        return f"message {json.loads(message.content)['error']['kind']}"
    except (json.JSONDecodeError, TypeError):
        return f"other: {message.content}"


WHO = {
    # declared, errors, of the tool, of the node: what becomes of it
    (True, None, None, None): "message tool_error",
    (True, "message", None, None): "message tool_error",
    (True, "raise", None, None): "raised",
    (False, None, None, None): "raised",
    (False, "message", None, None): "message tool_error",
    (False, "raise", None, None): "raised",
    (True, None, "of the tool", None): "other: of the tool",
    (True, None, None, "of the node"): "other: of the node",
    (True, None, "of the tool", "of the node"): "other: of the tool",
    (True, "message", None, "of the node"): "other: of the node",
    (True, None, None, False): "raised",
    (False, "message", None, False): "raised",
}


@BOTH
@pytest.mark.parametrize("wrapped", ["node", "tools"])
@pytest.mark.parametrize("case", WHO, ids=repr)
def test_an_explicit_handler_wins_wherever_it_stands(way, wrapped, case):
    declared, errors, of_tool, of_node = case
    guarded = Guard(effects={"get": Read()} if declared else {"unused": Read()}, errors=errors)
    options = {} if of_node is None else {"handle_tool_errors": of_node}
    plain_tool = failing(handle_tool_error=of_tool)
    with _quiet():
        if wrapped == "node":
            node = ibidem.wrap(ToolNode([plain_tool], **options), guarded)
        else:
            node = ToolNode(ibidem.wrap([plain_tool], guarded), **options)
    assert kind_of(lambda: turn(way, node_graph(node), call("get", {"key": 1}))) == WHO[case]


class _quiet:
    """Globs that match nothing are not what is tested here."""

    def __enter__(self):
        import warnings

        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("ignore", ibidem.IbidemWarning)

    def __exit__(self, *_):
        self.caught.__exit__(None, None, None)


@BOTH
def test_code_that_calls_a_tool_gets_the_exception_and_a_model_that_does_a_message(way):
    wrapped = ibidem.wrap(failing(), Guard(reads=["get"]))
    assert kind_of(lambda: ask(way, wrapped, call("get", {"key": 1}))) == "message tool_error"
    with pytest.raises(ToolException, match="no 1"):
        ask(way, wrapped, {"key": 1})
    with pytest.raises(ToolException, match="no 1"):
        ask(way, wrapped, {**call("get", {"key": 1}), "id": None})


@BOTH
def test_callbacks_hear_of_a_failure_that_became_a_message(way):
    heard = Heard()
    wrapped = ibidem.wrap(failing(), Guard(reads=["get"]))
    message = ask(way, wrapped, call("get", {"key": 1}), {"callbacks": [heard]})
    assert message.status == "error"
    assert [event[0] for event in heard.events] == ["start", "error"]


@BOTH
@pytest.mark.parametrize("wrapped", ["node", "tools"])
def test_arguments_that_do_not_fit_are_told_in_the_same_words(way, wrapped):
    guarded = Guard(reads=["get"])
    node = (
        ibidem.wrap(ToolNode([failing()]), guarded)
        if wrapped == "node"
        else ToolNode(ibidem.wrap([failing()], guarded))
    )
    (message,) = turn(way, node_graph(node), call("get", {"key": "no number"}))
    found = error_of(message)
    assert found["kind"] == "invalid_arguments" and "key: " in found["message"] and "no number" not in found["message"]


@BOTH
def test_an_interrupt_is_no_failure_r18(way):
    runs = Counter()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        runs(amount)
        return f"paid {interrupt('sure?')}"

    graph = ibidem.wrap(
        node_graph(ToolNode([pay]), checkpointer=InMemorySaver()),
        Guard(
            effects={"pay": Write(idempotent=True, timeout=LONG, retry=Retry(), breaker=Breaker(failures=1))},
            errors="message",
        ),
    )
    state = ask(way, graph, {"messages": [ai(call("pay", {"amount": 5}))]}, thread("t"))
    assert state["__interrupt__"][0].value == "sure?" and len(runs) == 1
    state = ask(way, graph, Command(resume="YES"), thread("t"))
    assert state["messages"][-1].content == "paid YES" and len(runs) == 2


# -- words --------------------------------------------------------------------------------------------------------------


@BOTH
def test_one_function_replaces_the_words(way):
    told = []

    def words(fault):
        told.append(fault)
        return f"Das ging schief: {fault.kind}"

    graph = ibidem.wrap(node_graph(ToolNode([failing()])), Guard(reads=["get"], errors=words))
    (message,) = turn(way, graph, call("get", {"key": 1}))
    assert message.content == "Das ging schief: tool_error" and message.status == "error"
    assert isinstance(told[0], Fault) and isinstance(told[0].exception, ToolException)


@pytest.mark.parametrize("words", [lambda fault: 1 / 0, lambda fault: None])
def test_words_that_cannot_be_had_are_replaced_by_ibidems(words, caplog):
    graph = ibidem.wrap(node_graph(ToolNode([failing()])), Guard(reads=["get"], errors=words))
    (message,) = turn("sync", graph, call("get", {"key": 1}))
    assert error_of(message)["kind"] == "tool_error"
    assert any("errors=" in record.message for record in caplog.records)


def test_a_message_says_the_same_to_programs_in_its_metadata():
    graph = ibidem.wrap(node_graph(ToolNode([failing()])), Guard(reads=["get"]))
    (message,) = turn("sync", graph, call("get", {"key": 1}))
    assert message.response_metadata["ibidem"] == {"how": "failed", "kind": "tool_error", "attempts": 1}
    assert json.loads(message.content)["note"].startswith("Other calls are unaffected")


@BOTH
def test_what_becomes_a_message_is_logged_with_its_traceback_and_without_secrets_r35(caplog, way):
    @tool
    def get(key: int) -> str:
        """Get."""
        raise Unavailable

    graph = ibidem.wrap(node_graph(ToolNode([get])), Guard(reads=["get"]))
    with caplog.at_level(logging.WARNING, "ibidem"):
        (message,) = turn(way, graph, call("get", {"key": 1}))
    (record,) = caplog.records
    text = logging.Formatter().format(record)
    assert "Unavailable" in text and "test_failures.py" in text and "in get" in text
    (place,) = text.splitlines()[1:]
    assert "test_failures.py" in place, "the dozen calls that lead to the tool are no news"
    assert "s3cr3t" not in text and "s3cr3t" not in message.content
    assert error_of(message)["message"] == "The service is not available (HTTP 503)."


@pytest.mark.parametrize("kind", ["node", "tool", "anthropic"])
def test_arguments_that_do_not_fit_are_not_logged_since_they_may_be_secret_r35_r36(caplog, kind):
    @tool
    def get(url: str, pin: int) -> str:
        """Get."""
        return url

    given = {"url": "u, input_type=int with error: x", "pin": "hunter two, input_type=int with error: x"}
    guard = Guard({"get": Read(secret=["pin"])})
    with caplog.at_level(logging.DEBUG, "ibidem"):
        if kind == "node":
            turn("sync", ibidem.wrap(node_graph(ToolNode([get])), guard), call("get", given))
        elif kind == "tool":
            ibidem.wrap(get, guard).invoke(call("get", given))
        else:
            block = {"type": "tool_use", "id": "1", "name": "get", "input": given}
            ibidem.anthropic.answer({"role": "assistant", "content": [block]}, [get.func], guard)
    assert caplog.records, "it is logged that they did not fit"
    assert "hunter" not in caplog.text and "pin" in caplog.text


def test_the_prompt_explains_every_word_that_a_message_may_hold():
    for word in (
        "error",
        "kind",
        "message",
        "retryable",
        "retry_after_s",
        "attempts",
        "maybe_executed",
        "circuit_open",
    ):
        assert f'"{word}"' in ibidem.PARTIAL_RESULTS_PROMPT


# -- policies through LangChain -----------------------------------------------------------------------------------------


@BOTH
def test_each_attempt_gets_the_arguments_as_the_model_gave_them(way):
    seen = []

    @tool
    def put(items: list[int]) -> str:
        """Put."""
        seen.append(list(items))
        items.append(99)
        if len(seen) < 3:
            raise Unavailable
        return "done"

    wrapped = ibidem.wrap(put, Write(idempotent=True, retry=Retry(first_delay="1ms")))
    assert ask(way, wrapped, call("put", {"items": [1]})).content == "done"
    assert seen == [[1]] * 3


@BOTH
def test_a_write_that_is_not_idempotent_is_never_run_twice_r29(way):
    runs = Counter()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        runs(amount)
        raise TimeoutError

    graph = ibidem.wrap(node_graph(ToolNode([pay])), Guard(writes=["pay"], retry=Retry(first_delay="1ms")))
    (message,) = turn(way, graph, call("pay", {"amount": 1}))
    found = error_of(message)
    assert (found["kind"], found["retryable"], found["attempts"], len(runs)) == ("maybe_executed", False, 1, 1)
    assert "look before you try again" in found["message"]


@BOTH
@pytest.mark.parametrize("hidden", [True, False])
def test_an_idempotency_key_is_one_for_every_attempt_and_another_for_every_call(way, hidden):
    from langchain_core.tools import InjectedToolArg

    seen = []
    if hidden:

        @tool
        def pay(amount: int, key: Annotated[str, InjectedToolArg]) -> str:
            """Pay."""
            seen.append(key)
            if len(seen) % 2:
                raise Unavailable
            return "paid"
    else:

        @tool
        def pay(amount: int, key: str = "") -> str:
            """Pay."""
            seen.append(key)
            if len(seen) % 2:
                raise Unavailable
            return "paid"

    effects = {"pay": Write(idempotency_key="key", retry=Retry(first_delay="1ms"))}
    graph = ibidem.wrap(node_graph(ToolNode([pay])), Guard(effects=effects))
    said = {"amount": 1} if hidden else {"amount": 1, "key": "from the model"}
    for number in ("1", "2"):
        (message,) = turn(way, graph, call("pay", said, number), config=thread("t"))
        assert message.content == "paid"
    assert len(seen) == 4 and seen[0] == seen[1] != seen[2] == seen[3]
    assert "from the model" not in seen and all(seen)


@BOTH
def test_an_idempotency_key_is_the_same_after_a_resume_and_another_in_the_next_turn(way):
    seen = []

    @tool
    def pay(amount: int, key: str = "") -> str:
        """Pay."""
        seen.append(key)
        return f"paid {interrupt('sure?')}"

    guarded = Guard(effects={"pay": Write(idempotency_key="key")})
    graph = ibidem.wrap(node_graph(ToolNode([pay]), checkpointer=InMemorySaver()), guarded)
    for _ in range(2):  # a model that counts its calls from zero in every turn
        ask(way, graph, {"messages": [ai(call("pay", {"amount": 1}, "call_0"))]}, thread("t"))
        state = ask(way, graph, Command(resume="YES"), thread("t"))
        assert state["messages"][-1].content == "paid YES"
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_an_idempotency_key_that_names_no_argument_is_refused():
    with pytest.raises(ValueError, match="it has: key"):
        ibidem.wrap(failing(), Guard(effects={"get": Write(idempotency_key="kee")}))


@BOTH
@pytest.mark.parametrize("artifact", [True, False])
def test_a_fallback_stands_for_a_result_and_says_so(way, artifact):
    runs = Counter()

    def get(key: int):
        """Get."""
        runs(key)
        raise Unavailable

    made = StructuredTool.from_function(get, response_format="content_and_artifact" if artifact else "content")
    guarded = Guard(
        effects={"get": Read(fallback=lambda arguments, fault: f"nothing on {arguments['key']}: {fault.kind}")}
    )
    wrapped = ibidem.wrap(made, guarded)
    for _ in range(2):
        message = ask(way, wrapped, call("get", {"key": 1}))
        assert message.content == "nothing on 1: unavailable" and message.status == "success"
        assert message.response_metadata["ibidem"] == {"how": "fallback", "age_s": 0, "kind": "unavailable"}
    assert len(runs) == 2, "it is never remembered"
    assert guarded.stats().total.fallback == 2


@BOTH
def test_bad_arguments_are_told_although_there_is_a_fallback(way):
    wrapped = ibidem.wrap(failing(), Read(fallback="nothing"))
    assert kind_of(lambda: ask(way, wrapped, call("get", {"key": 1}))) == "message tool_error"


@BOTH
def test_a_message_that_reports_an_error_is_retried_and_reaches_the_model_as_the_tool_made_it(way):
    runs = Counter()

    @tool
    def get(key: int) -> ToolMessage:
        """Get."""
        return ToolMessage(f"busy {runs(key)}", tool_call_id="c1", status="error")

    guarded = Guard(effects={"get": Live(retry=Retry(on="tool_error", first_delay="1ms"))})
    message = ask(way, ibidem.wrap(get, guarded), call("get", {"key": 1}))
    assert (message.content, message.status, len(runs)) == ("busy 3", "error", 3)
    assert guarded.stats().total.failed == 1 and guarded.stats().total.retried == 2


def test_a_synchronous_tool_of_an_asynchronous_graph_may_be_left_behind_whatever_its_effect_r32():
    """Its thread is ours: it takes none of the executor that all others share."""
    let, began = threading.Event(), []

    @tool
    def hang(n: int) -> str:
        """Hang."""
        began.append(threading.current_thread().name)
        let.wait(LONG)
        return "late"

    graph = ibidem.wrap(node_graph(ToolNode([hang])), Guard(effects={"hang": Live(timeout=0.2)}))
    messages = wait(_turn(graph, [call("hang", {"n": n}, str(n)) for n in range(40)]))
    assert [error_of(message)["kind"] for message in messages] == ["timeout"] * 40
    assert began == ["ibidem"] * 40, "all of them had a thread at once"
    let.set()


async def _turn(graph, calls):
    state = await graph.ainvoke({"messages": [ai(*calls)]})
    return state["messages"][1:]


@BOTH
def test_a_sub_agent_is_not_cut_short_by_what_the_guard_says_of_tools(way):
    @tool
    def research(topic: str) -> str:
        """Research."""
        time.sleep(0.05)
        return "found"

    wrapped = ibidem.wrap(research, Guard(effects={"research": Nested()}, timeout=0.01))
    assert ask(way, wrapped, call("research", {"topic": "x"})).content == "found"
    bounded = ibidem.wrap(research, Guard(effects={"research": Nested(timeout=0.01)}))
    assert kind_of(lambda: ask(way, bounded, call("research", {"topic": "x"}))) == "message timeout"


@BOTH
def test_what_is_not_declared_fails_as_without_a_guard_whatever_the_guard_says_of_failures_r20(way):
    runs = Counter()

    @tool
    def get(key: int) -> str:
        """Get."""
        time.sleep(0.02)
        raise TimeoutError(runs(key))

    guarded = Guard(effects={"other": Pure()}, timeout=0.01, retry=Retry(), breaker=Breaker(failures=1))
    with _quiet():
        wrapped = ibidem.wrap([get], guarded)[0]
    for number in (1, 2):
        with pytest.raises(TimeoutError, match=str(number)):
            ask(way, wrapped, call("get", {"key": 1}))


# -- outcomes for code ----------------------------------------------------------------------------------------------------


def test_a_langchain_tool_gives_its_outcome_to_code():
    @tool
    def get(key: int) -> str:
        """Get."""
        if key == 0:
            raise Unavailable
        return f"value {key}"

    guarded = Guard(effects={"get": Read(retry=Retry(first_delay="1ms"))})
    first, again = guarded.run(get, key=1), guarded.run(get, {"key": 1})
    assert (first.value, first.how, again.value, again.how) == ("value 1", "ran", "value 1", "memo")
    bad = guarded.run(get, key=0)
    assert (bad.fault.kind, bad.attempts) == ("unavailable", 3)
    assert guarded.run(get, key="no number").fault.kind == "invalid_arguments"
    assert wait(guarded.arun(get, key=2)).value == "value 2"
    assert [o.value for o in guarded.gather([(get, {"key": 1}), (get, {"key": 0}), (get, {"key": 3})])] == [
        "value 1",
        None,
        "value 3",
    ]


@BOTH
@GRAPHS
def test_the_last_turn_of_a_graph_is_summed_up_in_a_line(way, make):
    world, guarded = World(), guard()
    world.let.set()
    asked = ai(*(call(name, {"order": 1}, f"id-{name}") for name in ("raises", "flaky", "fine")))
    answers(way, make(world.tools(way), guarded, asked), asked, thread("t"))
    summary = guarded.last_turn()
    assert sorted(row.tool for row in summary) == ["fine", "flaky", "raises"]
    assert str(summary) == "3 calls: 2 succeeded, 1 failed (raises: tool_error)"
    assert str(guarded.last_turn("t")) == str(summary) and len(guarded.last_turn("other")) == 0
    assert "no such order: 42" in summary._repr_html_()
