"""Breakers: when calls are let through. R33, R34."""

import asyncio
import random
import threading

import pytest

from ibidem import Breaker, CircuitOpen, Guard, Live, Nested, Read, Write, wrap
from ibidem.core.circuit import Circuit, Refused
from ibidem.testing import in_threads, run_shuffled

OPEN = Breaker(failures=3, rate=None, open_for=10)


class Down(ConnectionError):
    pass


class Unable(Exception):
    def __init__(self, status):
        self.status_code = status


def circuit(breaker=OPEN):
    return Circuit(breaker)


def opened(breaker=OPEN, now=0.0):
    made = circuit(breaker)
    era = made.enter(now)
    for _ in range(breaker.failures):
        made.failed(era, now)
    assert made.state == "open"
    return made


def test_failures_one_after_the_other_open_it_and_a_success_begins_anew():
    made = circuit()
    era = made.enter(0)
    assert [made.failed(era, 0), made.failed(era, 0)] == [False, False]
    made.succeeded(era, 0)
    assert [made.failed(era, 0), made.failed(era, 0), made.failed(era, 0)] == [False, False, True]
    assert made.enter(0) == Refused(10)
    assert made.enter(4) == Refused(6) and made.seconds_left(4) == 6


def test_a_part_of_the_calls_of_the_window_opens_it():
    made = circuit(Breaker(failures=99, rate=0.5, window=60, minimum=10, open_for=10))
    era = made.enter(0)
    for n in range(9):
        assert not (made.failed(era, n) if n % 2 else made.succeeded(era, n))
    assert made.failed(era, 9) is True


def test_what_lies_before_the_window_does_not_count():
    made = circuit(Breaker(failures=99, rate=0.5, window=60, minimum=10, open_for=10))
    era = made.enter(0)
    for n in range(9):
        made.failed(era, n)
    for n in range(20):
        made.succeeded(era, 70 + n)
    assert not made.failed(era, 100) and made.state == "closed"


def test_one_probe_at_a_time_tries_after_a_while_r33():
    made = opened()
    probe = made.enter(10)
    assert isinstance(probe, int) and made.state == "half-open"
    assert [made.enter(10 + n) for n in range(3)] == [Refused(10), Refused(9), Refused(8)]
    assert made.succeeded(probe, 13) is True
    assert made.state == "closed" and isinstance(made.enter(13), int)


def test_a_probe_that_fails_opens_it_for_as_long_again_r33():
    made = opened()
    probe = made.enter(10)
    assert made.failed(probe, 12) is True
    assert made.enter(12) == Refused(10) and made.opened == 2


def test_a_probe_that_hangs_is_replaced_and_its_late_word_does_not_count_r33():
    made = opened()
    hung = made.enter(10)
    second = made.enter(20)
    assert isinstance(second, int) and second != hung
    assert made.succeeded(hung, 21) is False and made.state == "half-open"
    assert made.succeeded(second, 22) is True


def test_a_probe_that_tells_nothing_makes_room_for_the_next_r33():
    made = opened()
    probe = made.enter(10)
    made.said_nothing(probe)
    assert isinstance(made.enter(10), int)


def test_what_was_let_through_before_it_opened_says_nothing_about_now():
    made = circuit()
    old = made.enter(0)
    for _ in range(3):
        made.failed(old, 0)
    probe = made.enter(10)
    assert made.failed(old, 11) is False and made.succeeded(old, 11) is False
    assert made.state == "half-open" and made.succeeded(probe, 12)


def test_exactly_one_probe_is_let_through_whatever_threads_do_r33():
    for _ in range(50):
        made, through = opened(), []

        def enter(made=made, through=through):
            era = made.enter(10)
            if not isinstance(era, Refused):
                through.append(era)

        in_threads(*[enter] * 8)
        assert len(through) == 1


def test_random_histories_keep_the_rules_r33():
    """Whatever happens in whatever order: half open means one probe, open means none."""
    for seed in range(300):
        rng, made, now = random.Random(seed), circuit(), 0.0
        running = []
        for _ in range(60):
            now += rng.choice((0, 0.1, 1, 5))
            if rng.random() < 0.5:
                before, until = made.state, made._until
                era = made.enter(now)
                assert isinstance(era, Refused) is (before != "closed" and now < until), f"seed {seed}"
                if not isinstance(era, Refused):
                    running.append(era)
            elif running:
                era = running.pop(rng.randrange(len(running)))
                current = era == made._era
                rng.choice((made.succeeded, made.failed, lambda e, _: made.said_nothing(e)))(era, now)
                assert current or made._era != era


# -- through a guard ------------------------------------------------------------------------------------------------------


def calls(guard, problem, times):
    """Call a tool that fails so many times, and give how often it ran."""
    runs = []

    def tool():
        runs.append(1)
        raise problem

    call = wrap(Live()(tool), guard)
    for _ in range(times):
        with pytest.raises((type(problem), CircuitOpen)):
            call()
    return len(runs)


@pytest.mark.parametrize(
    "problem",
    [Down(), TimeoutError(), Unable(503), Unable(500), Unable(429), Unable(408), RuntimeError("down"), OSError("down")],
    ids=repr,
)
def test_what_tells_of_a_dependency_that_does_not_work_counts_r34(problem):
    assert calls(Guard(breaker=OPEN), problem, 10) == 3


@pytest.mark.parametrize(
    "problem",
    [*(Unable(status) for status in (400, 401, 403, 404, 409, 422)), ValueError("x"), TypeError("x"), KeyError("x")],
    ids=lambda p: f"{p!r}{getattr(p, 'status_code', '')}",
)
def test_bad_arguments_and_refusals_never_count_r34(problem):
    assert calls(Guard(breaker=OPEN), problem, 10) == 10


def test_what_is_named_counts_too():
    assert calls(Guard(breaker=Breaker(failures=3, on=KeyError)), KeyError("x"), 10) == 3
    assert calls(Guard(breaker=Breaker(failures=3, on="not_found")), Unable(404), 10) == 3


@pytest.mark.parametrize("flow", [asyncio.CancelledError, KeyboardInterrupt])
def test_what_tears_a_call_away_never_counts_r34(flow):
    runs = []

    def tool():
        runs.append(1)
        raise flow

    call = wrap(Live(breaker=OPEN)(tool), Guard())
    for _ in range(10):
        with pytest.raises(flow):
            call()
    assert len(runs) == 10


def test_thirty_failures_at_once_open_it_at_five_r34():
    runs = []

    async def main():
        async def tool(n):
            runs.append(n)
            await asyncio.sleep(1)
            raise Down

        call = wrap(Live(breaker=Breaker(failures=5))(tool), Guard())
        first = await asyncio.gather(*(call(n) for n in range(30)), return_exceptions=True)
        then = await asyncio.gather(call(30), return_exceptions=True)
        return first, then

    first, then = run_shuffled(main(), 1)
    assert {type(each) for each in first} == {Down} and len(runs) == 30
    assert type(then[0]) is CircuitOpen


def test_a_closed_breaker_makes_nobody_wait_r34():
    together = threading.Barrier(8, timeout=20)

    def tool(n):
        return together.wait() >= 0

    call = wrap(Live(breaker=Breaker())(tool), Guard())
    in_threads(*[lambda: call(1)] * 8)


def test_an_open_breaker_answers_from_the_memo_all_the_same():
    fail = []

    def read(key):
        if fail:
            raise Down
        return key

    call = wrap(Read(identity="r", breaker=Breaker(failures=1))(read), Guard())
    assert call(1) == 1
    fail.append(1)
    with pytest.raises(Down):
        call(2)
    with pytest.raises(CircuitOpen):
        call(3)
    assert call(1) == 1


def test_tools_of_one_name_share_a_breaker_and_others_have_their_own():
    guard = Guard(
        effects={
            "a": Live(breaker=Breaker(1, name="api")),
            "b": Write(breaker=Breaker(1, name="api")),
            "c": Read(breaker=Breaker(1)),
        }
    )
    made = {}
    for name in "abc":

        def tool():
            raise Down

        tool.__name__ = name
        made[name] = wrap(tool, guard)
    for name, problem in (("a", Down), ("b", CircuitOpen), ("c", Down), ("c", CircuitOpen)):
        with pytest.raises(problem):
            made[name]()
    states = {circuit.name: circuit for circuit in guard.circuits()}
    assert {name: (c.state, c.opened) for name, c in states.items()} == {"api": ("open", 1), "c": ("open", 1)}
    assert 0 < states["api"].seconds_left <= 30
    assert "api" in str(guard.circuits()) and "open" in guard.circuits()._repr_html_()


def test_one_name_with_two_breakers_is_refused():
    guard = Guard(effects={"a": Live(breaker=Breaker(1, name="api")), "b": Live(breaker=Breaker(2, name="api"))})

    def a():
        return 1

    def b():
        return 1

    wrap(a, guard)
    with pytest.raises(ValueError, match="one name is one breaker"):
        wrap(b, guard)


def test_a_circuit_tells_when_it_opens_and_closes(monkeypatch):
    events, fail, now = [], [1], [0.0]
    from ibidem.core import runtime

    monkeypatch.setattr(runtime.BlockingRuntime, "now", lambda self: now[0])

    def tool():
        if fail:
            raise Down

    call = wrap(Live(breaker=Breaker(1, open_for=10))(tool), Guard(on_event=events.append))
    for problem in (Down, CircuitOpen):
        with pytest.raises(problem):
            call()
    fail.clear()
    now[0] = 10.0
    call()
    assert [event.kind for event in events] == ["opened", "failed", "failed", "closed", "ran"]


def test_a_sub_agent_has_a_breaker_only_if_it_says_so():
    assert calls(Guard(breaker=OPEN, default=Nested()), Down(), 1) == 1

    def agent():
        raise Down

    call = wrap(Nested()(agent), Guard(breaker=OPEN))
    for _ in range(10):
        with pytest.raises(Down):
            call()
