"""Outcomes for code: a call is a value or a fault, several come in order, and a turn is summed up in a line."""

import asyncio
import functools
import gc
import threading

import pytest

from ibidem import Breaker, Guard, Live, Outcome, Outcomes, Read, Retry, Write, wrap

LONG = 20


def get(key):
    if key == "missing":
        raise FileNotFoundError(key)
    return key.upper()


async def aget(key):
    await asyncio.sleep(0)
    return get(key)


def hang(let):
    assert let.wait(LONG)


@pytest.fixture
def let():
    event = threading.Event()
    yield event
    event.set()


def test_a_call_gives_its_value_or_its_fault():
    guard = Guard(reads=["get"])
    well = guard.run(get, "a")
    assert (well.value, well.fault, well.how, well.failed) == ("A", None, "ran", False)
    assert guard.run(get, key="a").how == "memo"
    bad = guard.run(wrap(get, guard), "missing")
    assert bad.failed and bad.fault.kind == "not_found" and isinstance(bad.fault.exception, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        bad.unwrap()


def test_an_asynchronous_call_does_too():
    guard = Guard(reads=["get", "aget"])

    async def main():
        return [await guard.arun(aget, "a"), await guard.arun(aget, "missing"), await guard.arun(get, "a")]

    first, second, third = asyncio.run(main())
    assert (first.value, second.fault.kind, third.value) == ("A", "not_found", "A")


def test_arguments_that_do_not_fit_are_a_fault():
    outcome = Guard(reads=["get"]).run(get, "a", "b")
    assert outcome.fault.kind == "invalid_arguments" and not outcome.fault.may_have_run


@pytest.mark.parametrize("flow", [KeyboardInterrupt, asyncio.CancelledError])
def test_control_flow_passes_r18(flow):
    def tool():
        raise flow

    with pytest.raises(flow):
        Guard(live=["tool"]).run(tool)
    with pytest.raises(flow):
        Guard(live=["tool"]).gather([(tool, {}), (get, {"key": "a"})])


def test_several_calls_come_in_order_and_one_costs_the_others_nothing(let):
    guard = Guard(effects={"get": Read(), "hang": Live(timeout=0.05)})
    outcomes = guard.gather(
        [(get, {"key": "a"}), (get, {"key": "missing"}), functools.partial(hang, let), functools.partial(get, key="b")]
    )
    assert isinstance(outcomes, Outcomes) and len(outcomes) == 4
    assert [outcome.value for outcome in outcomes] == ["A", None, None, "B"]
    assert [outcome.value for outcome in outcomes.succeeded] == ["A", "B"]
    assert [outcome.fault.kind for outcome in outcomes.failed] == ["not_found", "timeout"]
    assert outcomes.timed_out == [outcomes[2]]
    assert str(outcomes) == "4 calls: 2 succeeded, 2 failed, 1 of them timed out (get: not_found, hang: timeout)"
    assert "not_found" in outcomes._repr_html_() and "<Outcomes of 4 calls" in repr(outcomes)


def test_several_asynchronous_calls_come_in_order_too(let):
    guard = Guard(effects={"*get": Read(), "hang": Live(timeout=0.05)})

    async def main():
        return await guard.agather([(aget, {"key": "a"}), (hang, {"let": let}), (get, {"key": "missing"})])

    outcomes = asyncio.run(main())
    assert [outcome.value for outcome in outcomes] == ["A", None, None]
    assert str(outcomes) == "3 calls: 1 succeeded, 2 failed, 1 of them timed out (hang: timeout, get: not_found)"


def test_identical_calls_of_one_gathering_are_one_run():
    runs, together = [], threading.Event()

    def read(key):
        runs.append(key)
        together.wait(0.05)
        return key

    outcomes = Guard(reads=["read"]).gather([(read, {"key": 1})] * 5)
    assert [outcome.value for outcome in outcomes] == [1] * 5 and runs == [1]
    assert [outcome.how for outcome in outcomes].count("ran") == 1


def test_more_calls_than_there_are_threads_all_come():
    guard = Guard(reads=["get"])
    assert [o.value for o in guard.gather((get, {"key": f"k{n}"}) for n in range(200))] == [f"K{n}" for n in range(200)]
    assert str(guard.gather([])) == "0 calls: 0 succeeded"


def test_who_asks_is_told_by_what_is_bound():
    guard = Guard(effects={"get": Read(scope="user")})
    ann, bob = guard.bind(conversation="1", user="ann"), guard.bind(conversation="2", user="bob")
    assert [ann.run(get, "a").how, ann.run(get, "a").how, bob.run(get, "a").how] == ["ran", "memo", "ran"]
    assert ann.gather([(get, {"key": "a"})])[0].how == "memo"


@pytest.mark.parametrize("call", [get, (get,), (get, "a"), 5])
def test_what_is_no_call_is_refused(call):
    with pytest.raises(TypeError, match="a call is"):
        Guard(reads=["get"]).gather([call])


def test_what_is_no_tool_is_refused():
    with pytest.raises(TypeError, match="no single tool"):
        Guard(reads=["get"]).run([get])


def test_a_write_whose_outcome_is_unknown_says_so_to_code():
    def pay():
        raise ConnectionResetError

    outcome = Guard(effects={"pay": Write(settle=0.01)}).run(pay)
    assert outcome.fault.kind == "maybe_executed" and isinstance(outcome.fault.exception, ConnectionResetError)


def test_a_write_whose_last_request_never_left_may_have_done_something_before_it_r29():
    """A tool that pays, and then cannot reach whom it would tell: a model that makes the call again pays twice."""
    paid = []

    def pay():
        paid.append(1)
        raise ConnectionRefusedError

    fault = Guard(effects={"pay": Write()}).run(pay).fault
    assert (fault.kind, fault.retryable, len(paid)) == ("maybe_executed", False, 1)
    assert "look before you try again" in fault.message
    for effect in (Read(), Write(idempotent=True)):
        fault = Guard(effects={"pay": effect}).run(pay).fault
        assert (fault.kind, fault.retryable) == ("unreachable", True)


def test_an_outcome_made_by_hand_is_one():
    assert Outcome(1).unwrap() == 1 and not Outcome(1).failed


def test_a_guard_that_is_off_gives_outcomes_all_the_same(monkeypatch):
    monkeypatch.setenv("IBIDEM", "off")
    guard = Guard(reads=["get", "aget"])
    assert guard.run(get, "a").value == "A" and guard.run(get, "missing").fault.kind == "not_found"
    assert asyncio.run(guard.arun(aget, "a")).value == "A"
    assert [o.value for o in guard.gather([(get, {"key": "a"})])] == ["A"]


@pytest.mark.parametrize("options", [{}, {"retry": Retry(), "breaker": Breaker()}, {"timeout": LONG}], ids=repr)
def test_a_call_leaves_nothing_for_the_garbage_collector(options):
    """A circle in each call would keep its arguments and its result until the collector comes, and make it come often."""
    guard = Guard(live=["aget", "get"], **options)
    first, second = wrap(get, guard), wrap(aget, guard)

    async def main():
        await second("a")
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                first("a")
                await second("a")
            return gc.collect()
        finally:
            gc.enable()

    first("a")
    assert asyncio.run(main()) < 50


@pytest.mark.parametrize("kind", ["function", "wrapped", "callable"])
@pytest.mark.parametrize("off", [False, True], ids=["on", "off"])
def test_an_asynchronous_function_is_refused_where_nobody_awaits_r22(kind, off, monkeypatch):
    """It would give a coroutine for a result: a write that is awaited after its guard has seen it end makes reads stale."""
    if off:
        monkeypatch.setenv("IBIDEM", "off")
    called = []

    class Put:
        async def __call__(self):
            called.append(1)

    async def put():
        called.append(1)

    guard = Guard(writes=["put"])
    target = {"function": put, "wrapped": wrap(put, guard), "callable": Put()}[kind]
    for ask in (guard.run, lambda each: guard.gather([(len, {"obj": ""}), (each, {})])):
        with pytest.raises(TypeError, match=r"is asynchronous: await guard\.arun\(\.\.\.\), or guard\.agather"):
            ask(target)
    assert called == [] and guard.stats().calls == 0
    asyncio.run(guard.arun(target))
    assert called == [1]


def test_a_table_of_several_calls_numbers_them():
    outcomes = Guard(reads=["get"]).gather([(get, {"key": key}) for key in ("a", "missing", "b")])
    lines = repr(outcomes.summary).splitlines()[3:]
    assert [line.split()[:2] for line in lines] == [["1", "get"], ["2", "get"], ["3", "get"]]
    assert "not_found" in lines[1]
    (alone,) = repr(Guard(reads=["get"]).gather([(get, {"key": "a"})]).summary).splitlines()[3:]
    assert alone.split()[0] == "get"
