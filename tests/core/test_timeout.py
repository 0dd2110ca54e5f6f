"""Timeouts and deadlines: nobody waits longer than it has time, and what goes on alone does no harm. R31, R32."""

import asyncio
import contextvars
import subprocess
import sys
import threading
import time

import pytest
from test_flights import offloaded
from test_flights import until_blocking as until

from ibidem import CallTimeout, Guard, Live, Memory, Nested, Pure, Read, Retry, Write, wrap
from ibidem.core import pool as pools
from ibidem.core import runtime as runtimes
from ibidem.core.later import Later
from ibidem.core.pool import Pool
from ibidem.core.resources import read_cells
from ibidem.testing import resources, run_shuffled

LONG = 20


class Hung:
    """A synchronous tool that goes on until it is let, and says how it ended."""

    def __init__(self, result="late"):
        self.let, self.began, self.ended = threading.Event(), threading.Semaphore(0), threading.Event()
        self.result, self.runs = result, 0

    def tool(self):
        def tool():
            self.runs += 1
            self.began.release()
            assert self.let.wait(LONG)
            if isinstance(self.result, BaseException):
                raise self.result
            return self.result

        return tool


def still(guard, resource="a:1"):
    return guard.store.stamps.still(read_cells(resources(resource)))


@pytest.fixture
def later(monkeypatch):
    """What is to happen later happens when the test says so."""
    due = []
    monkeypatch.setattr(runtimes, "LATER", lambda seconds, function: due.append((seconds, function)))
    return due


# -- the wait ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [Pure, Read, Live, Write, Nested], ids=lambda e: e.__name__)
def test_a_synchronous_caller_waits_no_longer_than_it_has_time_r31(effect):
    hung = Hung()
    call = wrap(effect(timeout="50ms")(hung.tool()), Guard())
    with pytest.raises(CallTimeout, match=r"no answer within 0\.05 s"):
        call()
    assert not hung.let.is_set()
    hung.let.set()


@pytest.mark.parametrize("effect", [Pure, Read, Live, Write, Nested], ids=lambda e: e.__name__)
def test_an_asynchronous_tool_that_swallows_its_cancellation_is_left_behind_r31(effect):
    async def main():
        asked, let = [], asyncio.Event()

        async def tool():
            while not let.is_set():
                try:
                    await let.wait()
                except asyncio.CancelledError:
                    asked.append(1)

        call = wrap(effect(timeout=5)(tool), Guard())
        began = asyncio.get_running_loop().time()
        with pytest.raises(CallTimeout):
            await call()
        took = asyncio.get_running_loop().time() - began
        await asyncio.sleep(0.1)
        assert asked == [1], "it was asked to end"
        let.set()
        await asyncio.sleep(0.1)
        return took

    assert run_shuffled(main(), 3) == pytest.approx(5, abs=0.05)


def test_an_asynchronous_caller_of_a_synchronous_tool_waits_no_longer_either_r31():
    hung = Hung()

    async def main():
        with pytest.raises(CallTimeout):
            await offloaded(Guard(), hung.tool(), Read(identity="t", timeout=0.05))()

    asyncio.run(main())
    hung.let.set()


def test_what_is_in_time_comes_as_it_is():
    for effect in (Pure, Read, Live, Write, Nested):
        assert wrap(effect(timeout=LONG)(lambda: 1), Guard())() == 1
        problem = LookupError("mine")

        def fail(problem=problem):
            raise problem

        with pytest.raises(LookupError) as raised:
            wrap(effect(timeout=LONG)(fail), Guard())()
        assert raised.value is problem


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, StopIteration])
def test_what_a_tool_in_a_thread_raises_reaches_its_caller(kind):
    def tool():
        raise kind("mine")

    with pytest.raises(kind, match="mine"):
        wrap(Live(timeout=LONG)(tool), Guard())()


def test_the_tools_own_timeout_is_told_apart_r31():
    def tool():
        raise TimeoutError("the tool's own")

    guard = Guard()
    with pytest.raises(TimeoutError, match="the tool's own") as raised:
        wrap(Live(timeout=LONG)(tool), guard)()
    assert not isinstance(raised.value, CallTimeout)
    assert guard.stats().total.kinds == {"timeout": 1}


def test_context_variables_go_along_r32():
    variable = contextvars.ContextVar("variable", default="outside")

    def tool():
        return variable.get(), threading.current_thread().daemon, threading.current_thread() is threading.main_thread()

    token = variable.set("inside")
    try:
        assert wrap(Live(timeout=LONG)(tool), Guard())() == ("inside", True, False)
    finally:
        variable.reset(token)


def test_a_tool_that_must_run_in_its_callers_thread_does_and_is_waited_for_r32():
    def tool():
        time.sleep(0.03)
        return threading.current_thread()

    call = wrap(Live(timeout=0.01, timeout_thread=False)(tool), Guard())
    assert call() is threading.current_thread()


def test_a_caller_that_is_cancelled_takes_its_tool_along():
    async def main():
        ended = []

        async def tool():
            try:
                await asyncio.sleep(LONG)
            finally:
                await asyncio.sleep(1)
                ended.append(1)

        task = asyncio.create_task(wrap(Live(timeout=10)(tool), Guard())())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return ended

    assert run_shuffled(main(), 1) == [1]


def test_a_tool_that_cancels_itself_is_no_timeout():
    async def main():
        async def tool():
            raise asyncio.CancelledError("mine")

        with pytest.raises(asyncio.CancelledError):
            await wrap(Live(timeout=10)(tool), Guard())()

    run_shuffled(main(), 1)


def test_nothing_is_said_of_a_task_that_fails_after_its_time(caplog):
    async def main():
        async def tool():
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                raise LookupError("late") from None

        with pytest.raises(CallTimeout):
            await wrap(Live(timeout=1)(tool), Guard())()
        await asyncio.sleep(1)

    run_shuffled(main(), 1)
    assert caplog.records == []


# -- one budget for the call --------------------------------------------------------------------------------------------


def test_the_time_of_a_call_covers_its_retries_and_an_attempt_has_its_own():
    async def main():
        runs = []

        async def tool():
            runs.append(asyncio.get_running_loop().time())
            await asyncio.sleep(LONG)

        retry = Retry(max_retries=1, attempt_timeout=2, first_delay="1ms")
        with pytest.raises(CallTimeout, match="within 2 s"):
            await wrap(Live(timeout=1000, retry=retry)(tool), Guard())()
        return runs

    runs = run_shuffled(main(), 1)
    assert len(runs) == 2 and runs[1] - runs[0] == pytest.approx(2, abs=0.01)


def test_a_call_in_the_body_of_another_has_no_more_time_than_that():
    guard, seen = Guard(), []

    def inner():
        from ibidem.core.call import current

        seen.append(current.get().remaining())

    call = wrap(Live(timeout=LONG)(inner), guard)
    wrap(Nested(timeout=2)(lambda: call()), guard)()
    wrap(Nested(timeout=LONG * 2)(lambda: call()), guard)()
    assert 0 < seen[0] <= 2 < seen[1] <= LONG


def test_a_waiter_waits_no_longer_than_it_has_time_and_hurts_nobody_r31():
    async def main():
        runs = []

        async def tool():
            runs.append(1)
            await asyncio.sleep(5)
            return len(runs)

        guard = Guard()
        call = wrap(Read(identity="r", timeout=100)(tool), guard)

        async def hasty():
            return await call()

        loop, hasty = asyncio.get_running_loop(), wrap(Nested(timeout=2)(hasty), guard)
        first = asyncio.create_task(call())
        await asyncio.sleep(0)
        began = loop.time()
        with pytest.raises(CallTimeout):
            await hasty()
        return loop.time() - began, await first, len(runs)

    took, first, runs = run_shuffled(main(), 1)
    assert took == pytest.approx(2, abs=0.05) and (first, runs) == (1, 1)


def test_a_synchronous_waiter_waits_no_longer_either_r31():
    guard, hung = Guard(), Hung("there")
    call = wrap(Read(identity="r", timeout=LONG)(hung.tool()), guard)
    hasty = wrap(Nested(timeout=0.1)(lambda: call()), guard)
    results = []
    first = threading.Thread(target=lambda: results.append(call()))
    first.start()
    assert hung.began.acquire(timeout=LONG)
    with pytest.raises(CallTimeout):
        hasty()
    hung.let.set()
    first.join(LONG)
    assert results == ["there"] and hung.runs == 1


def test_the_deadline_of_a_leader_is_not_the_failure_of_those_who_wait_r31():
    """The first caller's time is over while the second's is not: the second leads, and gets the result."""

    async def main():
        runs = []

        async def tool():
            runs.append(1)
            await asyncio.sleep(4)
            return len(runs)

        call = wrap(Read(identity="r", timeout=5)(tool), Guard())

        async def after(seconds):
            await asyncio.sleep(seconds)
            return await call()

        return await asyncio.gather(call(), after(0.5), return_exceptions=True), runs

    results, runs = run_shuffled(main(), 1)
    assert results == [1, 1] and len(runs) == 1


def test_those_who_wait_for_a_leader_whose_time_is_over_look_again_r31():
    async def main():
        runs = []

        async def tool():
            runs.append(1)
            if len(runs) == 1:
                await asyncio.sleep(LONG)
            return "there"

        guard = Guard()
        call = wrap(Read(identity="r", timeout=LONG)(tool), guard)

        async def hasty():
            return await call()

        first = asyncio.create_task(wrap(Nested(timeout=1)(hasty), guard)())
        while not runs:
            await asyncio.sleep(0)
        second = await asyncio.gather(call(), call())
        first = await asyncio.gather(first, return_exceptions=True)
        return type(first[0]), second, len(runs)

    for seed in range(20):
        assert run_shuffled(main(), seed) == (CallTimeout, ["there", "there"], 2)


# -- what goes on alone: R32 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [False, True])
def test_a_late_result_is_kept_if_nothing_that_it_read_has_changed_r32(changed):
    hung, guard = Hung("late"), Guard()
    call = wrap(Read("a:1", identity="r", timeout=0.05)(hung.tool()), guard)
    with pytest.raises(CallTimeout):
        call()
    assert len(guard._memo.flights) == 0, "nobody joins what hangs"
    if changed:
        guard.touch("a:1")
    hung.let.set()
    if changed:
        until(lambda: not pools.TIMED._left)
        time.sleep(0.05)
        assert len(guard.entries()) == 0
    else:
        until(lambda: len(guard.entries()) == 1)
        assert call() == "late" and hung.runs == 1


def test_a_late_result_of_what_is_not_remembered_is_gone_r32():
    hung, guard = Hung("late"), Guard(store=Memory())
    with pytest.raises(CallTimeout):
        wrap(Live(merge=True, timeout=0.05)(hung.tool()), guard)()
    hung.let.set()
    until(lambda: not pools.TIMED._left)
    assert len(guard.entries()) == 0


def test_the_resources_of_a_write_stay_open_until_its_thread_ends(later):
    hung, guard = Hung("done"), Guard()
    call = wrap(Write("a:1", timeout=0.05)(hung.tool()), guard)
    with pytest.raises(CallTimeout):
        call()
    assert not still(guard)
    before = guard.store.stamps.now()
    hung.let.set()
    until(lambda: still(guard))
    assert not guard.store.stamps.fresh(read_cells(resources("a:1")), before)
    assert later == [], "it is known how it ended"


def test_the_resources_of_a_write_whose_outcome_is_unknown_stay_open_for_a_while_more(later):
    guard = Guard()

    def pay():
        raise TimeoutError("the answer was lost")

    with pytest.raises(TimeoutError):
        wrap(Write("a:1", settle="5m")(pay), guard)()
    assert guard.stats().total.kinds == {"maybe_executed": 1}
    assert not still(guard)
    ((seconds, close),) = later
    assert seconds == 300
    before = guard.store.stamps.now()
    close()
    assert still(guard) and not guard.store.stamps.fresh(read_cells(resources("a:1")), before)


def test_a_write_that_ends_without_an_answer_after_its_time_settles_from_then_on(later):
    hung, guard = Hung(ConnectionResetError()), Guard()
    with pytest.raises(CallTimeout):
        wrap(Write("a:1", timeout=0.05)(hung.tool()), guard)()
    assert later == [] and not still(guard)
    hung.let.set()
    until(lambda: later)
    assert later[0][0] == 60 and not still(guard)
    later[0][1]()
    assert still(guard)


def test_a_write_that_is_known_to_have_failed_closes_at_once(later):
    guard = Guard()
    for problem in (ConnectionRefusedError(), ValueError(), LookupError()):

        def pay(problem=problem):
            raise problem

        with pytest.raises(type(problem)):
            wrap(Write("a:1")(pay), guard)()
        assert still(guard)
    assert later == []


def test_an_undeclared_call_whose_outcome_is_unknown_keeps_its_conversation_open(later):
    guard = Guard(reads=["read"])
    runs = []

    def read():
        runs.append(1)
        return len(runs)

    def unknown():
        raise TimeoutError

    read = wrap(read, guard)
    with guard.conversation("t"):
        with pytest.raises(TimeoutError):
            wrap(unknown, guard)()
        assert read() == 1 and read() == 2, "what it did may still be on its way"
        later[0][1]()
        assert read() == read() == 3


def test_a_cancelled_asynchronous_write_that_goes_on_keeps_its_resources_open(later):
    async def main():
        guard, let, ended = Guard(), asyncio.Event(), []

        async def pay():
            while not let.is_set():
                try:
                    await let.wait()
                except asyncio.CancelledError:
                    continue
            ended.append(still(guard))
            return "done"

        with pytest.raises(CallTimeout):
            await wrap(Write("a:1", timeout=1)(pay), guard)()
        await asyncio.sleep(3)
        assert not still(guard)
        let.set()
        await asyncio.sleep(1)
        return ended, still(guard)

    assert run_shuffled(main(), 1) == ([False], True)
    assert later == []


def test_an_idempotent_write_stays_open_while_an_attempt_of_it_goes_on(later):
    let, runs = threading.Event(), []
    guard = Guard()

    def put():
        runs.append(1)
        if len(runs) == 1:
            assert let.wait(LONG)
        return len(runs)

    retry = Retry(attempt_timeout=0.05, first_delay="1ms")
    assert wrap(Write("a:1", idempotent=True, retry=retry)(put), guard)() == 2
    assert not still(guard), "the first attempt may still act"
    let.set()
    until(lambda: still(guard))


# -- threads: R32 -----------------------------------------------------------------------------------------------------------


def test_hung_tools_do_not_keep_others_waiting_for_a_thread_r32():
    hung, guard = Hung(), Guard()
    call = wrap(Live(timeout=2)(hung.tool()), guard)  # long enough for a busy machine to start a hundred threads
    fine = wrap(Live(timeout=LONG)(lambda: "fine"), guard)
    callers = [threading.Thread(target=lambda: pytest.raises(CallTimeout, call)) for _ in range(100)]
    for caller in callers:
        caller.start()
    for _ in range(100):
        assert hung.began.acquire(timeout=LONG)
    assert fine() == "fine", "while all hundred of them hang"
    for caller in callers:
        caller.join(LONG)
    assert pools.TIMED._running <= len(callers)
    assert fine() == "fine"
    hung.let.set()
    until(lambda: not pools.TIMED._left)


def test_threads_that_were_left_behind_count_again_when_they_are_too_many_r32(monkeypatch):
    monkeypatch.setattr(pools, "LEFT_BEHIND", 2)
    pool, let, ran = Pool(1), threading.Event(), []
    for _ in range(2):
        task = pool.submit(lambda: let.wait(LONG))
        until(lambda task=task: task.runs)
        pool.leave(task)
        done = threading.Event()
        pool.submit(lambda: ran.append(1)).when_done(done.set)
        assert done.wait(LONG)
    third = pool.submit(lambda: let.wait(LONG))
    until(lambda: third.runs)
    pool.leave(third)
    waiting = pool.submit(lambda: ran.append(2))
    time.sleep(0.05)
    assert ran == [1, 1] and not waiting.finished, "the bound holds for it"
    let.set()
    until(lambda: waiting.finished)
    until(lambda: pool._running == 0 and not pool._left)


def test_a_task_that_ended_just_before_it_was_left_keeps_its_place():
    pool = Pool(1)
    for _ in range(200):
        task = pool.submit(lambda: None)
        pool.leave(task)
        until(lambda task=task: task.finished)
    until(lambda: pool._running == 0 and not pool._left)


def test_a_process_with_a_hundred_hung_tools_can_end_r32():
    script = (
        "import threading, time, ibidem\n"
        "call = ibidem.wrap(lambda n: time.sleep(600), ibidem.Live(timeout=0.2))\n"
        "def caller(n):\n"
        "    try: call(n)\n"
        "    except ibidem.CallTimeout: pass\n"
        "threads = [threading.Thread(target=caller, args=(n,)) for n in range(100)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print('over')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "over\n" and done.stderr == ""


def test_a_write_that_never_began_says_so(monkeypatch):
    pool, let = Pool(1), threading.Event()
    monkeypatch.setattr(runtimes, "TIMED", pool)
    busy = pool.submit(lambda: let.wait(LONG))
    until(lambda: busy.runs)
    guard, ran = Guard(), []
    with pytest.raises(CallTimeout):
        wrap(Write("a:1", timeout=0.05)(lambda: ran.append(1)), guard)()
    assert guard.stats().total.kinds == {"timeout": 1} and still(guard)
    let.set()
    until(lambda: busy.finished)
    assert ran == []


def test_what_is_to_happen_later_happens_in_the_order_of_its_time():
    later, happened, all_of_it = Later(), [], threading.Event()
    later(0.03, all_of_it.set)
    later(0.02, lambda: happened.append(2))
    later(0.0, lambda: 1 / 0)
    later(0.01, lambda: happened.append(1))
    assert all_of_it.wait(LONG) and happened == [1, 2]
    until(lambda: not later._runs)
    again = threading.Event()
    later(0.0, again.set)
    assert again.wait(LONG), "its thread begins anew"
