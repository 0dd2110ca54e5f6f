"""Retry: what may be made again, how often, and after how long. R18, R20, R29, R30."""

import asyncio
import time

import pytest

from ibidem import Breaker, CallTimeout, Fault, Guard, Live, Nested, Pure, Read, Retry, Write, wrap
from ibidem.core.budget import RESERVE, Budget
from ibidem.core.policies import Defaults
from ibidem.layers.retry import Retries
from ibidem.testing import run_shuffled

QUICK = Retry(max_retries=2, first_delay="1ms")


class Unavailable(Exception):
    status_code = 503


class Flaky:
    """A tool that fails so many times and then answers."""

    def __init__(self, times, problem=Unavailable):
        self.times, self.problem, self.runs = times, problem, 0

    def tool(self):
        def tool():
            self.runs += 1
            if self.runs <= self.times:
                raise self.problem
            return self.runs

        return tool

    def ended(self, effect, **options):
        """Call it through a guard, and give the runs, or the class of what was raised."""
        self.runs = 0
        try:
            return wrap(effect(self.tool()), Guard(**options))()
        except Exception as problem:
            return type(problem)


@pytest.mark.parametrize("effect", [Pure, Read, Live], ids=lambda e: e.__name__)
def test_what_reads_is_retried_where_that_is_said(effect):
    flaky = Flaky(2)
    assert flaky.ended(effect(retry=QUICK)) == 3
    assert flaky.ended(effect(), retry=QUICK) == 3
    assert flaky.ended(effect()) is Unavailable and flaky.runs == 1
    assert flaky.ended(effect(retry=False), retry=QUICK) is Unavailable and flaky.runs == 1
    assert flaky.ended(effect(retry=Retry(max_retries=0)), retry=QUICK) is Unavailable and flaky.runs == 1


@pytest.mark.parametrize(
    "problem", [Unavailable(), TimeoutError(), ConnectionResetError(), ConnectionRefusedError()], ids=repr
)
def test_a_write_is_retried_only_if_it_is_idempotent_r29(problem):
    """Not even where nothing left: that is said of the last request of the tool, and it may make several."""
    flaky = Flaky(1, problem)
    assert flaky.ended(Write(), retry=QUICK) is type(problem) and flaky.runs == 1
    assert flaky.ended(Write(idempotent=True), retry=QUICK) == 2
    assert flaky.ended(Write(idempotent=True, retry=QUICK)) == 2


def test_a_retry_that_a_write_does_not_allow_is_refused():
    with pytest.raises(ValueError, match="only with idempotent=True"):
        Write("order:1", retry=QUICK)
    assert Write(retry=Retry(max_retries=0)).retry == Retry(max_retries=0)


def test_what_is_not_declared_and_what_runs_other_calls_is_not_retried_r20():
    flaky = Flaky(1)
    assert flaky.ended(lambda tool: tool, retry=QUICK, reads=["other"]) is Unavailable and flaky.runs == 1
    assert flaky.ended(Nested(), retry=QUICK) is Unavailable and flaky.runs == 1


@pytest.mark.parametrize("problem", [ValueError, LookupError, PermissionError, FileNotFoundError, RuntimeError])
def test_what_will_fail_again_is_not_retried_unless_it_is_named(problem):
    flaky = Flaky(1, problem)
    assert flaky.ended(Read(retry=QUICK)) is problem and flaky.runs == 1
    assert flaky.ended(Read(retry=Retry(on=problem, first_delay="1ms"))) == 2


@pytest.mark.parametrize("flow", [asyncio.CancelledError, KeyboardInterrupt])
def test_what_tears_a_call_away_is_not_retried_r18(flow):
    flaky = Flaky(1, flow)
    with pytest.raises(flow):
        wrap(Read(retry=QUICK)(flaky.tool()), Guard())()
    assert flaky.runs == 1


def test_a_failure_says_how_often_it_was_tried_and_the_guard_counts_it():
    events = []
    guard = Guard(on_event=events.append)
    with pytest.raises(Unavailable):
        wrap(Read(retry=QUICK)(Flaky(9).tool()), guard)()
    total = guard.stats().total
    assert (total.calls, total.ran, total.failed, total.retried, total.kinds) == (1, 1, 1, 2, {"unavailable": 1})
    assert [(event.kind, event.reason) for event in events] == [
        *[("retried", "unavailable")] * 2,
        ("failed", "unavailable"),
    ]
    assert "2" in str(guard.stats()) and "1 x unavailable" in str(guard.stats())


def test_arguments_that_cannot_be_had_twice_are_not_retried():
    runs = []

    def read(lines):
        runs.append(list(lines))
        raise Unavailable

    with pytest.raises(Unavailable):
        wrap(Live(retry=QUICK)(read), Guard())(line for line in "ab")
    assert runs == [["a", "b"]]


def test_an_identical_call_shares_the_retries_of_the_first():
    flaky = Flaky(2)

    async def main():
        async def read():
            await asyncio.sleep(1)
            return flaky.tool()()

        call = wrap(Read(identity="r", retry=QUICK)(read), Guard())
        return await asyncio.gather(*(call() for _ in range(9)))

    assert run_shuffled(main(), 1) == [3] * 9


# -- how long: pure decisions -------------------------------------------------------------------------------------------


def fault(seconds=None):
    return Fault(Unavailable(), "unavailable", retryable=True, retry_after=seconds)


def test_the_wait_is_drawn_between_nothing_and_a_limit_that_doubles_r30():
    retry = Retry(first_delay=1, max_delay=5)
    assert [retry.delay(n, fault(), 1.0) for n in (1, 2, 3, 4, 99)] == [1, 2, 4, 5, 5]
    assert [retry.delay(n, fault(), 0.0) for n in (1, 2, 3)] == [0, 0, 0]
    assert retry.delay(2, fault(), 0.25) == 0.5


def test_the_other_side_is_obeyed_or_the_call_ends_r30():
    retry = Retry(first_delay=1, max_delay=5)
    assert retry.delay(1, fault(3), 0.0) == 3
    assert retry.delay(1, fault(3), 0.5) == 3.5, "those that were told the same must not come back together"
    assert retry.delay(1, fault(6), 0.0) is None


def test_a_wait_that_outlasts_the_deadline_is_not_begun_r30():
    class Busy(Exception):
        status_code, retry_after = 429, 5

    flaky = Flaky(1, Busy)
    began = time.monotonic()
    assert flaky.ended(Read(timeout=2, retry=QUICK)) is Busy and flaky.runs == 1
    assert time.monotonic() - began < 2


def test_a_budget_lets_through_a_reserve_and_then_a_fifth_r30():
    budget, taken = Budget(0.2, now=0.0), 0
    for _ in range(1000):
        budget.earn()
        taken += sum(budget.take(now=0.0) for _ in range(2))
    assert 200 < taken <= 200 + RESERVE


def test_a_budget_is_refilled_by_time_and_by_calls_and_never_above_its_reserve():
    budget = Budget(0.5, now=0.0)
    assert sum(budget.take(0.0) for _ in range(20)) == RESERVE
    assert not budget.take(9.0) and budget.take(10.5)
    for _ in range(2):
        budget.earn()
    assert budget.take(10.5) and not budget.take(10.5)
    assert sum(budget.take(1e6) for _ in range(20)) == RESERVE
    assert not budget.take(0.0), "a clock that goes back gives nothing"


def test_retries_of_all_tools_of_a_dependency_come_from_one_budget_r30():
    guard = Guard(retry=Retry(first_delay="1ms"), breaker=Breaker(name="api", failures=10**6, rate=None))
    runs = []

    def make(name):
        def tool():
            runs.append(name)
            raise Unavailable

        tool.__name__ = name
        return wrap(Live()(tool), guard)

    first, second = make("first"), make("second")
    for _ in range(100):
        for tool in (first, second):
            with pytest.raises(Unavailable):
                tool()
    assert len(runs) <= 200 * 1.3


def test_the_time_is_the_runtimes_and_chance_is_given():
    waits = []

    class Runtime:
        def now(self):
            return 0.0

        async def sleep(self, seconds):
            waits.append(seconds)

    layer = Retries(lambda *_: None, draw=lambda: 0.5)
    tool = type("Tool", (), {"name": "t", "policies": Defaults(retry=Retry(first_delay=1)).policies("t", Read())})
    call = type(
        "Call",
        (),
        {"tool": tool, "runtime": Runtime(), "remaining": lambda s: None, "work": type("W", (), {"single": False})},
    )()
    from ibidem import Outcome
    from ibidem.core.runtime import run_blocking

    async def inner(_):
        return Outcome(fault=fault())

    outcome = run_blocking(layer(call, inner))
    assert outcome.fault.attempts == outcome.attempts == 3 and waits == [0.5, 1.0]


# -- bad input ------------------------------------------------------------------------------------------------------------

BAD = [
    (lambda: Retry(max_retries=-1), ValueError, "whole number from 0"),
    (lambda: Retry(max_retries=True), ValueError, "whole number from 0"),
    (lambda: Retry(first_delay=0), ValueError, "first_delay=0"),
    (lambda: Retry(max_delay=-1), ValueError, "max_delay=-1"),
    (lambda: Retry(attempt_timeout=float("nan")), ValueError, "attempt_timeout=nan"),
    (lambda: Retry(budget=0), ValueError, "above 0"),
    (lambda: Retry(on="gone"), ValueError, "is no kind"),
    (lambda: Retry(on=(KeyboardInterrupt,)), ValueError, "is no kind"),
    (lambda: Breaker(failures=0), ValueError, "whole number from 1"),
    (lambda: Breaker(rate=2), ValueError, "up to 1"),
    (lambda: Breaker(open_for=0), ValueError, "open_for=0"),
    (lambda: Breaker(window=None), ValueError, "window=None"),
    (lambda: Breaker(name=""), ValueError, "names nothing"),
    (lambda: Guard(timeout=0), ValueError, "timeout=0"),
    (lambda: Guard(timeout="soon"), ValueError, "is not a time"),
    (lambda: Read(timeout=-3), ValueError, "timeout=-3"),
    (lambda: Read(timeout=True), ValueError, "is not a time"),
    (lambda: Write(settle=0), ValueError, "settle=0"),
    (lambda: Write(idempotency_key=""), TypeError, "names no argument"),
    (lambda: Write(fallback=1), TypeError, "Write has no option 'fallback'"),
    (lambda: Nested(retry=QUICK), TypeError, "Nested has no option 'retry'"),
    (lambda: Read(retry=3), TypeError, "retry=ibidem.Retry"),
    (lambda: Read(retry=Retry), TypeError, "retry=ibidem.Retry"),
    (lambda: Guard(breaker=True), TypeError, "breaker=ibidem.Breaker"),
    (lambda: Guard(errors="msg"), TypeError, '"message", "raise"'),
    (lambda: Guard(errors=ValueError), TypeError, '"message", "raise"'),
    (lambda: Read(is_error=3), TypeError, "is given a result"),
    (lambda: Read(timeout_thread="no"), TypeError, "True or False"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_says_what_to_do_instead(case):
    do, kind, says = BAD[case]
    with pytest.raises(kind) as caught:
        do()
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_functions_that_would_have_to_be_awaited_are_refused():
    async def later(*_):
        return None

    for name in ("fallback", "is_error"):
        with pytest.raises(TypeError, match="plain function"):
            Read(**{name: later})


def test_values_say_what_they_are():
    assert repr(Read("a:{b}", timeout="3s", retry=QUICK)).startswith(
        "Read('a:{b}', timeout=3.0, retry=Retry(max_retries=2"
    )
    assert Read(timeout=3) == Read(timeout="3s") != Read(timeout=4)
    assert Retry(on="timeout") == Retry(on=("timeout",)) and not Retry().wants(
        Fault(CallTimeout(1), "timeout", retryable=True)
    )
