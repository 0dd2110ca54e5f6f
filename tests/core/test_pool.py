"""The pool: its bound counts threads that run, and it never waits for itself."""

import asyncio
import threading

import pytest

from ibidem import Guard, Nested, Read, wrap
from ibidem.core import pool as pools
from ibidem.core import runtime as runtimes
from ibidem.core.pool import Pool, Task
from ibidem.core.runtime import ASYNCIO
from ibidem.functions import Arguments

LONG = 10


@pytest.fixture
def one(monkeypatch):
    """A pool with one place, in the place of the process's."""
    pool = Pool(1)
    monkeypatch.setattr(pools, "POOL", pool)
    monkeypatch.setattr(runtimes, "POOL", pool)
    return pool


def offloaded(guard, function, effect):
    """Call a synchronous tool from a loop, as the adapters do: it runs in the pool."""
    tool = wrap(effect(function), guard).__ibidem_tool__

    async def call(*args, **kwargs):
        arguments = Arguments(function)(args, kwargs)
        prepared = guard.prepare(guard.seek(tool, arguments), lambda: function(*args, **kwargs), ASYNCIO)
        return (await guard.through(prepared)).unwrap()

    return call


class Counting:
    """Counts how many of its calls run at once; each goes on when it is let."""

    def __init__(self):
        self.let, self.came = threading.Event(), threading.Semaphore(0)
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __call__(self):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.came.release()
        assert self.let.wait(LONG)
        with self.lock:
            self.now -= 1


def test_the_bound_counts_threads_that_run():
    pool, work = Pool(3), Counting()
    done = [threading.Event() for _ in range(12)]
    for each in done:
        pool.submit(work).when_done(each.set)
    for _ in range(3):
        assert work.came.acquire(timeout=LONG)
    assert not work.came.acquire(timeout=0.05), "a fourth began"
    work.let.set()
    assert all(each.wait(LONG) for each in done)
    assert work.most == 3


def test_a_thread_that_waits_gives_its_place_back_and_takes_it_again():
    pool = Pool(1)
    second_ran, first_done = threading.Event(), threading.Event()

    def first():
        with pool.waiting():
            pool.submit(second_ran.set)
            assert second_ran.wait(LONG)

    pool.submit(first).when_done(first_done.set)
    assert first_done.wait(LONG)
    assert pool._running <= 1


def test_waiting_inside_waiting_gives_one_place_back():
    pool = Pool(1)
    done, seen = threading.Event(), []

    def work():
        with pool.waiting():
            with pool.waiting():
                seen.append(pool._running)
            seen.append(pool._running)
        seen.append(pool._running)

    pool.submit(work).when_done(done.set)
    assert done.wait(LONG)
    assert seen == [0, 0, 1]


def test_waiting_elsewhere_changes_nothing():
    pool = Pool(1)
    with pool.waiting():
        assert pool._running == 0


def test_a_task_that_was_cancelled_in_the_queue_never_runs():
    pool, let, ran, last = Pool(1), threading.Event(), [], threading.Event()
    pool.submit(lambda: let.wait(LONG))
    task = pool.submit(lambda: ran.append(1))
    told = []
    task.when_done(lambda: told.append(task.finished))
    assert task.cancel() is True
    assert task.cancel() is True
    assert told == [False]
    pool.submit(last.set)
    let.set()
    assert last.wait(LONG)
    assert ran == []


def test_a_task_that_runs_cannot_be_cancelled():
    pool, began, let, done = Pool(1), threading.Event(), threading.Event(), threading.Event()
    task = pool.submit(lambda: (began.set(), let.wait(LONG))[1])
    assert began.wait(LONG)
    assert task.cancel() is False
    task.when_done(done.set)
    assert not task.finished
    let.set()
    assert done.wait(LONG)
    assert task.finished and task.cancel() is False


def test_a_task_never_both_runs_and_says_that_it_was_cancelled():
    """`cancel` looks and then ends the task: what is taken from the queue in between must not run."""
    ran = []
    task = Task(lambda: ran.append(1))
    lock, releases = task._lock, []

    class Turning:
        """A lock that lets the pool's thread run at the worst moment: whenever it is let go."""

        def __enter__(self):
            lock.acquire()

        def __exit__(self, *_):
            lock.release()
            releases.append(1)
            if len(releases) == 1:
                task.run()

    task._lock = Turning()
    cancelled = task.cancel()
    assert cancelled is (ran == [])


def test_a_callback_that_fails_costs_no_place(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    pool, done, others = Pool(1), threading.Event(), []

    def fail():
        raise SystemExit

    began = threading.Event()
    task = pool.submit(lambda: began.wait(LONG))
    task.when_done(fail)
    task.when_done(lambda: others.append(1))
    began.set()
    pool.submit(done.set)
    assert done.wait(LONG), "the place was lost with the thread"
    assert others == [1], "the others were not told"


def test_idle_threads_go_and_come_back(monkeypatch):
    monkeypatch.setattr(pools, "IDLE", 0.01)
    pool, seen = Pool(2), []
    for _ in range(3):
        done = threading.Event()
        pool.submit(lambda: seen.append(threading.current_thread())).when_done(done.set)
        assert done.wait(LONG)
        seen[-1].join(LONG)
        assert not seen[-1].is_alive()
    assert pool._running == pool._idle == 0
    assert len(set(seen)) == 3
    assert all(thread.daemon for thread in seen)


def test_r21_one_place_and_a_tool_that_waits_for_one_in_the_queue(one):
    """A synchronous tool waits for a read whose leader is in the queue behind it."""
    guard, runs = Guard(), []
    queued = threading.Event()

    def slow():
        runs.append("slow")
        return "slow"

    read_slow = offloaded(guard, slow, Read(identity="slow"))
    blocking_slow = wrap(Read(identity="slow")(slow), guard)

    def outer():
        assert queued.wait(LONG)
        return blocking_slow()

    call_outer = offloaded(guard, outer, Nested())

    async def main():
        first = asyncio.create_task(call_outer())
        await asyncio.sleep(0)
        second = asyncio.create_task(read_slow())
        await asyncio.sleep(0)
        assert one._queue, "the leader must wait for a place"
        queued.set()
        return await asyncio.wait_for(asyncio.gather(first, second), LONG)

    assert asyncio.run(main()) == ["slow", "slow"]
    assert runs == ["slow"]


def test_r21_one_place_and_a_tool_that_runs_a_loop_of_its_own(one):
    """A synchronous tool runs a sub-agent on a loop of its own, whose synchronous tools need a place too."""
    guard = Guard()

    def inner(n):
        return n + 1

    read_inner = offloaded(guard, inner, Read(identity="inner"))

    def outer():
        async def agent():
            return await asyncio.wait_for(asyncio.gather(*map(read_inner, range(5))), LONG)

        return asyncio.run(agent())

    call_outer = offloaded(guard, outer, Nested())
    assert asyncio.run(asyncio.wait_for(call_outer(), LONG + 1)) == [1, 2, 3, 4, 5]
    assert one._running <= 1


def test_r21_one_place_and_a_loop_of_its_own_that_waits_for_one_in_the_queue(one):
    guard, queued = Guard(), threading.Event()

    def slow():
        return "slow"

    read_slow = offloaded(guard, slow, Read(identity="slow"))

    def outer():
        assert queued.wait(LONG)
        return asyncio.run(asyncio.wait_for(read_slow(), LONG))

    call_outer = offloaded(guard, outer, Nested())

    async def main():
        first = asyncio.create_task(call_outer())
        await asyncio.sleep(0)
        second = asyncio.create_task(read_slow())
        await asyncio.sleep(0)
        queued.set()
        return await asyncio.wait_for(asyncio.gather(first, second), LONG + 1)

    assert asyncio.run(main()) == ["slow", "slow"]


def test_a_hundred_nested_calls_in_one_place(one):
    guard, runs = Guard(), []
    wrapped = {}

    def level(n):
        runs.append(n)
        return n if n == 0 else wrapped["level"](n - 1) + 1

    wrapped["level"] = wrap(Read(identity="level")(level), guard)
    call = offloaded(guard, level, Read(identity="level"))

    async def main():
        return await asyncio.wait_for(asyncio.gather(*(call(n) for n in (30, 20, 10, 30))), LONG)

    assert asyncio.run(main()) == [30, 20, 10, 30]
    assert sorted(runs) == list(range(31))
