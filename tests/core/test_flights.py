"""R21 and R23: identical calls under way share one run, and nobody pays for another's fate."""

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import threading
import traceback

import pytest

from ibidem import Guard, Live, Nested, Pure, Read, Write, wrap
from ibidem.core import flights as flights_module
from ibidem.core.runtime import ASYNCIO
from ibidem.functions import Arguments
from ibidem.testing import in_threads, run_shuffled

LONG = 20


def offloaded(guard, function, effect):
    """Call a synchronous tool from a loop, as the adapters do: it runs in a thread."""
    tool = wrap(effect(function), guard).__ibidem_tool__

    async def call(*args, **kwargs):
        arguments = Arguments(function)(args, kwargs)
        prepared = guard.prepare(guard.seek(tool, arguments), lambda: function(*args, **kwargs), ASYNCIO)
        return (await guard.through(prepared)).unwrap()

    return call


def under_way(guard):
    return len(guard._memo.flights)


def waiters(guard):
    with flights_module._lock:
        return sum(flight.waiters for flight in guard._memo.flights._flights.values())


async def until(condition, patience=LONG):
    """Turn the loop until something in another thread has happened; every test that uses it says what."""
    for _ in range(int(patience / 0.001)):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


def until_blocking(condition, patience=LONG):
    tick = threading.Event()
    for _ in range(int(patience / 0.001)):
        if condition():
            return
        tick.wait(0.001)
    raise AssertionError("it did not happen")


class Tool:
    """An async read that can be held: counts its runs, and says when one has begun."""

    def __init__(self, effect=None, answer=lambda n: {"run": n}):
        self.guard, self.runs, self.answer = Guard(), 0, answer
        self.began, self.let = asyncio.Event(), asyncio.Event()
        self.ended = []

        async def tool(key="x"):
            self.runs += 1
            run = self.runs
            self.began.set()
            try:
                await self.let.wait()
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
            self.ended.append("done")
            result = self.answer(run)
            if isinstance(result, BaseException):
                raise result
            return result

        self.call = wrap((effect or Read(identity="tool"))(tool), self.guard)


async def boarded(tool, count):
    """So many callers: the first leads, the others wait."""
    tasks = [asyncio.create_task(tool.call())]
    await tool.began.wait()
    tasks += [asyncio.create_task(tool.call()) for _ in range(count - 1)]
    await until(lambda: waiters(tool.guard) == count - 1)
    return tasks


# -- R21, one by one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [Read(identity="t"), Pure(identity="t"), Live(merge=True)], ids=repr)
def test_r21_50_callers_share_one_run(effect):
    async def main():
        tool = Tool(effect)
        tasks = await boarded(tool, 50)
        tool.let.set()
        assert await asyncio.gather(*tasks) == [{"run": 1}] * 50
        assert (tool.runs, tool.guard.stats().shared, under_way(tool.guard)) == (1, 49, 0)

    run_shuffled(main(), 0)


@pytest.mark.parametrize("effect", [None, Live(), Write(), Write("a"), Nested()], ids=repr)
def test_r20_what_is_not_declared_to_merge_runs_for_each_caller(effect):
    async def main():
        guard, runs, all_there = Guard(), [], asyncio.Event()

        async def tool():
            runs.append(1)
            if len(runs) == 5:
                all_there.set()
            await all_there.wait()

        call = wrap(tool if effect is None else effect(tool), guard)
        await asyncio.gather(*(call() for _ in range(5)))
        await call()
        assert len(runs) == 6 and guard.stats().saved == 0 and guard.entries().rows == () and under_way(guard) == 0

    run_shuffled(main(), 0)


def test_r21_a_cancelled_leader_that_ran_inline_hands_over():
    async def main():
        tool = Tool()
        leader, *others = await boarded(tool, 5)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        await until(lambda: tool.runs == 2)
        tool.let.set()
        assert await asyncio.gather(*others) == [{"run": 2}] * 4
        assert tool.ended == ["cancelled", "done"]

    run_shuffled(main(), 0)


def test_r21_a_cancelled_leader_in_a_thread_goes_on_and_lands():
    async def main():
        guard, runs, began, let = Guard(), [], threading.Event(), threading.Event()

        def tool():
            runs.append(1)
            began.set()
            assert let.wait(LONG)
            return {"run": len(runs)}

        call = offloaded(guard, tool, Read(identity="t"))
        tasks = [asyncio.create_task(call()) for _ in range(5)]  # asyncio starts them in this order
        await until(lambda: began.is_set() and waiters(guard) == 4)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        late = asyncio.create_task(call())
        await until(lambda: waiters(guard) == 5)
        let.set()
        assert await asyncio.gather(*tasks[1:], late) == [{"run": 1}] * 5
        assert await call() == {"run": 1}, "and it is remembered"
        assert len(runs) == 1 and under_way(guard) == 0

    asyncio.run(main())


def test_r21_a_failure_in_the_thread_of_a_cancelled_leader_reaches_the_others():
    async def main():
        guard, runs, began, let = Guard(), [], threading.Event(), threading.Event()

        def tool():
            runs.append(1)
            began.set()
            assert let.wait(LONG)
            raise OSError("gone")

        call = offloaded(guard, tool, Read(identity="t"))
        tasks = [asyncio.create_task(call()) for _ in range(3)]
        await until(lambda: began.is_set() and waiters(guard) == 2)
        tasks[0].cancel()
        let.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in found] == [asyncio.CancelledError, OSError, OSError]
        assert len(runs) == 1

    asyncio.run(main())


def test_what_is_forgotten_while_it_is_read_is_not_kept_and_not_joined_r37():
    async def main():
        tool = Tool()
        before = asyncio.create_task(tool.call())
        await tool.began.wait()
        assert tool.guard.forget() == 0
        after = asyncio.create_task(tool.call())
        await until(lambda: tool.runs == 2)
        tool.let.set()
        assert (await before, await after) == ({"run": 1}, {"run": 2})
        assert [row.value for row in tool.guard.entries()] == [{"run": 2}]
        assert tool.guard.stats().uncacheable == {"it was forgotten meanwhile": 1}

    run_shuffled(main(), 0)


def test_a_read_in_a_thread_of_its_own_is_not_kept_either_once_it_was_forgotten_r37():
    async def main():
        guard, began, let = Guard(), threading.Event(), threading.Event()

        def tool():
            began.set()
            assert let.wait(LONG)
            return "old"

        call = offloaded(guard, tool, Pure(identity="t"))
        task = asyncio.create_task(call())
        await until(began.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        guard.forget(tool="tool")
        let.set()
        await until(lambda: under_way(guard) == 0)
        assert guard.entries().rows == ()
        await call()
        assert len(guard.entries()) == 1

    asyncio.run(main())


def test_r21_a_cancelled_waiter_hurts_nobody():
    async def main():
        tool = Tool()
        tasks = await boarded(tool, 6)
        for task in tasks[1:4]:
            task.cancel()
        await asyncio.wait(tasks[1:4])
        assert waiters(tool.guard) == 2
        tool.let.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in found] == [False, True, True, True, False, False]
        assert tool.runs == 1

    run_shuffled(main(), 0)


@pytest.mark.parametrize("leader_first", [True, False])
def test_r21_all_cancelled_stops_the_work_and_frees_the_key(leader_first):
    async def main():
        tool = Tool()
        tasks = await boarded(tool, 5)
        for task in tasks if leader_first else reversed(tasks):
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert set(tool.ended) == {"cancelled"} and under_way(tool.guard) == 0
        tool.let.set()
        assert await tool.call() == {"run": tool.runs}

    run_shuffled(main(), 0)


def test_r21_all_cancelled_while_the_work_is_queued_takes_it_from_the_queue(monkeypatch):
    from ibidem.core import runtime as runtimes
    from ibidem.core.pool import Pool

    pool, let, runs = Pool(1), threading.Event(), []
    monkeypatch.setattr(runtimes, "POOL", pool)
    pool.submit(lambda: let.wait(LONG))

    async def main():
        guard = Guard()
        call = offloaded(guard, lambda: runs.append(1), Read(identity="t"))
        for order in (1, -1):
            tasks = [asyncio.create_task(call()) for _ in range(3)]
            await until(lambda: waiters(guard) == 2)
            for task in tasks[::order]:
                task.cancel()
                await asyncio.wait([task])
            assert under_way(guard) == 0
        done = threading.Event()
        pool.submit(done.set)
        let.set()
        await until(done.is_set)
        assert runs == []

    asyncio.run(main())


def test_r21_one_failure_is_shared_by_one_run_and_not_remembered():
    async def main():
        tool = Tool(answer=lambda n: LookupError("no order", 42) if n == 1 else "fine")
        tasks = await boarded(tool, 20)
        tool.let.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(type(each), each.args) for each in found] == [(LookupError, ("no order", 42))] * 20
        assert len({id(each) for each in found}) == 20, "each has an exception of its own"
        assert tool.runs == 1
        assert await tool.call() == "fine"

    run_shuffled(main(), 0)


def test_r21_the_traceback_does_not_grow():
    async def main():
        guard, let = Guard(), asyncio.Event()
        failure = LookupError("always the same object")

        async def tool():
            await let.wait()
            failure.__traceback__ = None
            raise failure

        call = wrap(Read(identity="t")(tool), guard)
        depths = []
        for _ in range(3):
            let.clear()
            tasks = [asyncio.create_task(call()) for _ in range(100)]
            await until(lambda: waiters(guard) == 99)
            let.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            depths.append([len(traceback.extract_tb(each.__traceback__)) for each in found])
        assert max(depths[-1]) == max(depths[0]) < 20
        assert max(depths[-1]) - min(depths[-1]) <= 3

    run_shuffled(main(), 0)


class Uncopyable(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.lock = threading.Lock()

    def __copy__(self):
        raise TypeError("no")


def test_r21_an_exception_that_cannot_be_copied_is_not_shared():
    async def main():
        tool = Tool(answer=lambda n: Uncopyable(n, "no"))
        tasks = await boarded(tool, 4)
        tool.let.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(map(str, found)) == ["1: no", "2: no", "3: no", "4: no"]

    run_shuffled(main(), 0)


class NeedsTwo(Exception):
    def __init__(self, code, reason):
        super().__init__(code, reason)
        self.code, self.notes = code, ["a"]


def test_r21_a_copied_exception_is_like_the_original():
    async def main():
        cause = ValueError("deep down")

        def answer(_):
            error = NeedsTwo(7, "no")
            error.__cause__ = cause
            error.add_note("seen twice")
            return error

        tool = Tool(answer=answer)
        tasks = await boarded(tool, 3)
        tool.let.set()
        for each in await asyncio.gather(*tasks, return_exceptions=True):
            assert (type(each), each.args, each.code, each.__notes__) == (NeedsTwo, (7, "no"), 7, ["seen twice"])
            assert each.__cause__ is cause

    run_shuffled(main(), 0)


def test_r21_nothing_is_left_that_was_never_retrieved():
    said = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
        for answer in (lambda n: OSError("no"), lambda n: "fine"):
            tool = Tool(answer=answer)
            tasks = await boarded(tool, 6)
            tasks[0].cancel()
            tasks[3].cancel()
            await asyncio.sleep(0)
            tool.let.set()
            await asyncio.wait(tasks)
            for task in tasks:
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    task.result()
        del tool, tasks, task
        gc.collect()
        await asyncio.sleep(0)

    for seed in range(20):
        run_shuffled(main(), seed)
    gc.collect()
    assert said == []


class Stop(BaseException):
    pass


@pytest.mark.parametrize("kind", [Stop, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_r21_a_base_exception_is_the_leaders_own(kind):
    """It crosses untouched, and those who wait run for themselves."""
    guard, runs, began, let = Guard(), [], threading.Event(), threading.Event()

    @Read(identity="t")
    def tool():
        runs.append(1)
        if len(runs) == 1:
            began.set()
            assert let.wait(LONG)
            raise kind("stop")
        return "fine"

    call, found = wrap(tool, guard), []

    def lead():
        try:
            call()
        except BaseException as error:
            found.append(type(error))

    leader = threading.Thread(target=lead)
    leader.start()
    assert began.wait(LONG)
    waiter = threading.Thread(target=lambda: found.append(call()))
    waiter.start()
    until_blocking(lambda: waiters(guard) == 1)
    let.set()
    leader.join(LONG)
    waiter.join(LONG)
    assert sorted(map(str, found)) == sorted([str(kind), "fine"]) and len(runs) == 2 and under_way(guard) == 0


def test_r21_work_that_cancels_itself_is_not_a_cancelled_waiter():
    """A tool raises CancelledError of its own accord: its caller sees it, and those who wait run for themselves."""

    async def main():
        tool = Tool(answer=lambda n: asyncio.CancelledError("by the tool") if n == 1 else "fine")
        tasks = await boarded(tool, 4)
        tool.let.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in done] == [asyncio.CancelledError, str, str, str]
        assert under_way(tool.guard) == 0

    for seed in range(20):
        run_shuffled(main(), seed)


def test_r21_a_reentrant_call_of_the_same_key_runs_alone():
    guard, runs = Guard(), []

    @Read(identity="t")
    def tool(n):
        runs.append(n)
        return call(n) + 1 if len(runs) < 3 else 0

    call = wrap(tool, guard)
    assert call(7) == 2 and runs == [7, 7, 7] and under_way(guard) == 0

    async def main():
        guard, runs = Guard(), []

        @Read(identity="t")
        async def tool(n):
            runs.append(n)
            return (await asyncio.create_task(call(n))) + 1 if len(runs) < 3 else 0

        call = wrap(tool, guard)
        assert await call(7) == 2 and len(runs) == 3 and under_way(guard) == 0

    run_shuffled(main(), 0)


@pytest.mark.parametrize("guards", [1, 2])
@pytest.mark.parametrize("length", [2, 3, 5])
def test_r21_a_waits_for_b_waits_for_a(guards, length):
    async def main():
        made = [Guard() for _ in range(guards)]
        all_there, runs = asyncio.Event(), []
        calls = []

        def make(n):
            @Read(identity=f"tool {n}")
            async def tool(deep):
                runs.append(n)
                if len(runs) == length:
                    all_there.set()
                await all_there.wait()
                return [n, *(await calls[(n + 1) % length](deep=True) if not deep or len(runs) < 40 else [])][:length]

            return wrap(tool, made[n % guards])

        calls.extend(make(n) for n in range(length))
        found = await asyncio.gather(*(calls[n](deep=True) for n in range(length)))
        assert [each[0] for each in found] == list(range(length))
        assert all(under_way(guard) == 0 for guard in made)

    for seed in range(10):
        run_shuffled(main(), seed)  # raises Stuck if they wait for each other


def test_r21_a_waits_for_b_waits_for_a_in_threads():
    guards = Guard(), Guard()
    inside = threading.Barrier(2)
    calls = []

    def make(n):
        @Read(identity=f"tool {n}")
        def tool(key):
            if key == "outer":
                inside.wait(LONG)
            if threading.current_thread().name.startswith("deep"):
                return n
            name, threading.current_thread().name = threading.current_thread().name, "deep"
            try:
                return 10 * n + calls[1 - n](key)
            finally:
                threading.current_thread().name = name

        return wrap(tool, guards[n])

    calls.extend(make(n) for n in range(2))
    done = []
    threads = [
        threading.Thread(target=lambda n=n: done.append(calls[n]("x" if n else "x")), daemon=True) for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert len(done) == 2


def test_r21_siblings_in_the_body_of_one_call_do_wait_for_each_other():
    """Only a circle runs alone: two children of one parent share a run."""

    async def main():
        guard, runs, let = Guard(), [], asyncio.Event()

        @Read(identity="child")
        async def child():
            runs.append(1)
            await let.wait()

        child = wrap(child, guard)

        @Read(identity="parent")
        async def parent():
            tasks = [asyncio.create_task(child()) for _ in range(5)]
            await until(lambda: waiters(guard) == 4)
            let.set()
            await asyncio.gather(*tasks)

        await wrap(parent, guard)()
        assert len(runs) == 1

    run_shuffled(main(), 0)


def test_r21_each_caller_has_a_copy_of_its_own():
    async def main():
        tool = Tool(answer=lambda n: {"rows": [{"id": 1}], "set": {1}})
        tasks = await boarded(tool, 5)
        tool.let.set()
        found = [*await asyncio.gather(*tasks), await tool.call(), await tool.call()]
        for each in found:
            assert each == {"rows": [{"id": 1}], "set": {1}}
            each["rows"][0]["id"] = "mine"
            each["rows"].append("mine")
            each["set"].clear()
        assert await tool.call() == {"rows": [{"id": 1}], "set": {1}}
        assert tool.runs == 1

    run_shuffled(main(), 0)


class Locked:
    """Cannot be copied."""

    def __init__(self, n):
        self.n, self.lock = n, threading.Lock()


class CopiedOnce:
    """Can be copied, but its copy cannot."""

    def __init__(self, n):
        self.n = n

    def __deepcopy__(self, memo):
        return Locked(self.n)


@pytest.mark.parametrize("kind", [Locked, CopiedOnce])
def test_r21_results_that_cannot_be_copied_run_for_each_caller(kind):
    async def main():
        tool = Tool(answer=kind)
        tasks = await boarded(tool, 4)
        tool.let.set()
        found = await asyncio.gather(*tasks)
        assert sorted(each.n for each in found) == [1, 2, 3, 4]
        assert (await tool.call()).n == 5
        assert tool.guard.stats().saved == 0

    run_shuffled(main(), 0)


def test_r21_arguments_are_copied_before_the_tool_gets_them():
    """What a caller, or the tool, does to an argument later belongs to no key."""

    async def main():
        guard, seen, began, let = Guard(), [], asyncio.Event(), asyncio.Event()

        @Read(identity="t")
        async def tool(names):
            began.set()
            await let.wait()
            seen.append(list(names))
            names.append("by the tool")
            return list(names)

        call = wrap(tool, guard)
        mine, yours = ["a"], ["a"]
        leader = asyncio.create_task(call(mine))
        await began.wait()
        waiter = asyncio.create_task(call(yours))
        await until(lambda: waiters(guard) == 1)
        yours.append("changed while waiting")
        leader.cancel()
        await asyncio.wait([leader])
        await until(lambda: under_way(guard) == 1)
        let.set()
        assert await waiter == ["a", "by the tool"]
        assert seen == [["a"]] and mine == ["a"]
        assert await call(["a"]) == ["a", "by the tool"]
        assert yours == ["a", "changed while waiting"]

    run_shuffled(main(), 0)


def test_r21_three_loops_and_threads_at_once_share_one_run():
    guard, runs, began, let = Guard(), [], threading.Event(), threading.Event()

    @Read(identity="t")
    def read():
        runs.append(1)
        began.set()
        assert let.wait(LONG)
        return {"run": len(runs)}

    on_loops, in_thread = offloaded(guard, read, Read(identity="t")), wrap(read, guard)
    found = []

    def loop():
        async def main():
            found.extend(await asyncio.gather(*(on_loops() for _ in range(10))))

        asyncio.run(main())

    def release():
        until_blocking(lambda: waiters(guard) == 39)
        let.set()

    in_threads(*[loop] * 3, *[lambda: found.append(in_thread())] * 10, release)
    assert found == [{"run": 1}] * 40 and len(runs) == 1


def test_r21_three_loops_share_the_run_of_a_coroutine():
    guard, runs, let = Guard(), [], threading.Event()

    @Read(identity="t")
    async def read():
        runs.append(1)
        await until(let.is_set)
        return "fine"

    call, found = wrap(read, guard), []

    def loop():
        async def main():
            found.extend(await asyncio.gather(*(call() for _ in range(10))))

        asyncio.run(main())

    def release():
        until_blocking(lambda: waiters(guard) == 29)
        let.set()

    in_threads(*[loop] * 3, release)
    assert found == ["fine"] * 30 and len(runs) == 1


def test_r21_a_synchronous_call_on_the_loops_own_thread_does_not_deadlock():
    """The leader is a task of this very loop: waiting for it here would stop it."""

    async def main():
        guard, runs, began, let = Guard(), [], asyncio.Event(), asyncio.Event()

        async def read():
            runs.append("async")
            began.set()
            await let.wait()
            return "async"

        def read_sync():
            runs.append("sync")
            return "sync"

        call = wrap(Read(identity="t")(read), guard)
        read_sync.__name__ = "read"
        call_sync = wrap(Read(identity="t")(read_sync), guard)
        leader = asyncio.create_task(call())
        await began.wait()
        assert call_sync() == "sync"
        let.set()
        assert await leader == "async" and runs == ["async", "sync"]

    run_shuffled(main(), 0)


def test_r21_a_waiting_thread_that_blocks_the_leaders_loop_does_not_deadlock(monkeypatch):
    """Somebody calls a synchronous graph inside a coroutine: its threads wait for a task of the loop that it blocks."""
    monkeypatch.setattr(flights_module, "DEAF", 0.05)

    async def main():
        guard, began, let = Guard(), asyncio.Event(), asyncio.Event()

        async def read():
            began.set()
            await let.wait()
            return "async"

        call = wrap(Read(identity="t")(read), guard)
        read_sync = Read(identity="t")(lambda: "sync")
        read_sync.__name__ = "read"
        call_sync = wrap(read_sync, guard)
        leader = asyncio.create_task(call())
        await began.wait()
        found = []
        thread = threading.Thread(target=lambda: found.append(call_sync()), daemon=True)
        thread.start()
        thread.join(LONG)  # this blocks the loop
        assert found == ["sync"]
        let.set()
        assert await leader == "async"

    asyncio.run(main())


# -- R23 ---------------------------------------------------------------------------------------------------------------


def a_loop_that_stops_under_its_leader(call, began, close):
    """Run a leader on a loop of another thread until it has begun, then stop the loop under it."""
    loop = asyncio.new_event_loop()
    kept = []

    def run():
        kept.append(loop.create_task(call()))
        loop.run_forever()
        if close:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert began.wait(LONG)
    return loop, thread, kept


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("close", [False, True], ids=["stopped", "closed"])
@pytest.mark.parametrize("waiter", ["thread", "loop", "late"])
def test_r23_the_leaders_loop_dies_and_another_takes_over(close, waiter):
    guard, runs, began = Guard(), [], threading.Event()

    @Read(identity="t")
    async def tool():
        runs.append(1)
        began.set()
        if len(runs) == 1:
            await asyncio.get_running_loop().create_future()
        return "fine"

    @Read(identity="t")
    def tool_sync():
        runs.append(1)
        return "fine"

    tool_sync.__name__ = "tool"
    call, call_sync = wrap(tool, guard), wrap(tool_sync, guard)
    loop, thread, kept = a_loop_that_stops_under_its_leader(call, began, close)
    found = []

    def wait():
        found.append(call_sync() if waiter == "thread" else asyncio.run(asyncio.wait_for(call(), LONG)))

    waiting = threading.Thread(target=wait)
    if waiter != "late":
        waiting.start()
        until_blocking(lambda: waiters(guard) == 1)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LONG)
    if waiter == "late":
        waiting.start()
    waiting.join(LONG)
    assert found == ["fine"] and len(runs) == 2 and under_way(guard) == 0
    assert call_sync() == "fine" and len(runs) == 2
    kept[0]._log_destroy_pending = False  # that the task is destroyed is what this is about
    if not close:
        loop.close()
    kept.clear()
    gc.collect()


@pytest.mark.parametrize("offload", [True, False])
def test_r23_the_end_of_asyncio_run_hands_over(offload):
    """`asyncio.run` ends under a leader that nobody awaits any more."""
    guard, runs, began, let = Guard(), [], threading.Event(), threading.Event()

    def tool():
        runs.append(1)
        began.set()
        assert let.wait(LONG)
        return "fine"

    async def tool_inline():
        runs.append(1)
        began.set()
        await until(let.is_set)
        return "fine"

    call = offloaded(guard, tool, Read(identity="t")) if offload else wrap(Read(identity="t")(tool_inline), guard)
    stop, found = threading.Event(), []

    def lead():
        async def main():
            task = asyncio.create_task(call())
            await until(stop.is_set)
            return task

        asyncio.run(main())

    leader, follower = threading.Thread(target=lead), threading.Thread(target=lambda: found.append(asyncio.run(call())))
    leader.start()
    assert began.wait(LONG)
    follower.start()
    until_blocking(lambda: waiters(guard) == 1)
    stop.set()
    leader.join(LONG)
    let.set()
    follower.join(LONG)
    assert found == ["fine"] and len(runs) == (1 if offload else 2)


def test_r23_a_loop_that_is_run_again_takes_up_its_leader():
    guard, runs, let = Guard(), [], asyncio.Event()

    @Read(identity="t")
    async def tool():
        runs.append(1)
        await let.wait()
        return "fine"

    call = wrap(tool, guard)
    loop = asyncio.new_event_loop()
    leader = loop.create_task(call())
    loop.run_until_complete(asyncio.sleep(0))
    follower = loop.create_task(call())
    loop.run_until_complete(asyncio.sleep(0))
    let.set()
    assert loop.run_until_complete(asyncio.gather(leader, follower)) == ["fine", "fine"]
    loop.close()
    assert len(runs) == 1


def test_r23_no_uncancelled_caller_sees_a_cancellation():
    """Random cancellations of leaders and waiters in any order: only who was cancelled sees it."""

    async def main(seed):
        import random

        rng = random.Random(seed)
        guard = Guard()

        @Read(identity="t", ttl=5)
        async def tool(key):
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(rng.choice((0, 1)))
            if rng.random() < 0.2:
                raise OSError
            return key

        call = wrap(tool, guard)
        tasks, cancelled = [], set()
        for _ in range(25):
            tasks.append(asyncio.create_task(call(rng.randrange(2))))
            if rng.random() < 0.4:
                task = rng.choice(tasks)
                if task.cancel():
                    cancelled.add(task)
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            guard.touch("*")
        await asyncio.wait(tasks)
        assert {task for task in tasks if task.cancelled()} <= cancelled
        assert {type(task.exception()) for task in tasks if not task.cancelled()} <= {OSError, type(None)}
        assert under_way(guard) == 0

    for seed in range(300):
        run_shuffled(main(seed), seed)


def in_a_process(program):
    """Run a program of its own: it forks, and threads of the test runner must not be in its way."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_r23_a_forked_child_waits_for_no_flight_of_its_parent():
    assert in_a_process("""
        import os, threading
        from ibidem import Guard, Read, Write, wrap

        guard, began, let, runs = Guard(), threading.Event(), threading.Event(), []

        @Read("a", identity="t")
        def tool():
            runs.append(1)
            if len(runs) == 1:
                began.set()
                let.wait(30)
            return os.getpid()

        @Write("a")
        def write():
            writing.set()
            let.wait(30)

        writing = threading.Event()
        call, change = wrap(tool, guard), wrap(write, guard)
        threads = [threading.Thread(target=call), threading.Thread(target=change)]
        threads[0].start()
        began.wait(30)
        threads[1].start()
        writing.wait(30)
        with guard.store._lock, guard.store.stamps._lock:  # as another thread might
            child = os.fork()
            if child == 0:
                runs.append("child")
                ok = call() == os.getpid() and call() == os.getpid() and len(guard._memo.flights) == 0
                ok = ok and runs == [1, "child", 1]
                os._exit(0 if ok else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        let.set()
        for thread in threads:
            thread.join()
    """) == ["0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_r23_a_fork_inside_a_write_leaves_nothing_open_in_the_child():
    assert in_a_process("""
        import os
        from ibidem import Guard, Read, Write, wrap

        guard, runs = Guard(), []

        @Read("a", identity="t")
        def tool():
            runs.append(1)

        @Write("a")
        def write():
            return os.fork()

        call, change = wrap(tool, guard), wrap(write, guard)
        child = change()
        call(), call()
        if child == 0:
            os._exit(0 if runs == [1] else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *runs)
    """) == ["0", "1"]


def test_a_hundred_rounds_leave_nothing_behind():
    async def main():
        tool = Tool()
        tool.let.set()
        for _ in range(100):
            await asyncio.gather(*(tool.call() for _ in range(5)))
            tool.guard.touch("*")
        assert under_way(tool.guard) == 0
        return tool.guard._memo.flights

    table = run_shuffled(main(), 1)
    gc.collect()
    assert [each for each in gc.get_objects() if type(each) is flights_module.Flight and each.table is table] == []
