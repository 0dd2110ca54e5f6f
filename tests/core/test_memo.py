"""The memo: R22 under controlled schedules, with the controls that must fail; what changes forget; R20."""

import asyncio
import functools
import os
import threading
from unittest import mock

import pytest
from test_flights import offloaded, until
from worlds import Guarded, play

from ibidem import Guard, Memory, Nested, Pure, Read, Write, wrap
from ibidem.core import runtime as runtimes
from ibidem.core.pool import Pool
from ibidem.core.stamps import MemoryStamps
from ibidem.layers.memo import Memo
from ibidem.testing import Clock, Stuck, eager_switching, in_threads, run_shuffled

SOAK = bool(os.environ.get("IBIDEM_SOAK"))
SEEDS = 10_000 if SOAK else 1_000


@pytest.mark.soak
def test_r22_no_read_is_older_than_a_write_that_had_finished():
    memo = shared = 0
    for seed in range(SEEDS):
        world = play(seed)
        assert world.wrong == [], f"seed {seed}"
        assert len(world.tools) == 0, f"seed {seed} left a flight behind"
        assert world.unclear or not world.tools.guard.store.stamps._open, f"seed {seed} left a change open"
        memo += world.tools.guard.stats().memo
        shared += world.tools.guard.stats().shared
    assert memo > SEEDS and shared > SEEDS / 5, "too little was answered without a run to show anything"


class Naive:
    """What people write: a dictionary of futures by arguments, and a write that forgets the resource when it is done."""

    def __init__(self, tools):
        self.tools, self.world, self.cache, self.flights = tools, tools.world, {}, {}
        self.guard, self.enter = tools.guard, tools.enter

        def remembered(kind):
            async def read(name):
                key = kind, name
                if key in self.cache:
                    return self.cache[key]
                if key not in self.flights:
                    self.flights[key] = asyncio.ensure_future(self.world.look(name))
                    self.flights[key].add_done_callback(lambda done: landed(key, done))
                return await asyncio.shield(self.flights[key])

            def landed(key, done):
                del self.flights[key]
                self.cache[key] = done.result()

            return read

        async def write(name, done):
            try:
                await self.world.change([name], "declared", done)
            finally:
                for key in [key for key in self.cache if key[1] == name]:
                    del self.cache[key]

        self.write, self._reads = write, [("read", "conversation", remembered("read"))]
        self.write_all = lambda done: write("a", done)
        self.write_also = write
        self.unknown = self.unknown_reading = lambda name, by, done: write(name, done)
        self.agent = lambda job: job()

    def reads(self):
        return self._reads


def wrongs(make, seeds=60):
    return sum(bool(play(seed, make).wrong) for seed in range(seeds))


def test_r22_control_a_naive_dictionary_of_futures_is_caught():
    assert wrongs(lambda world: Naive(Guarded(world, Guard()))) > 5


class Blind(MemoryStamps):
    def fresh(self, cells, snapshot):
        return True


class NeverOpen(MemoryStamps):
    def still(self, cells):
        return True


class RaisesOnlyAtTheEnd(MemoryStamps):
    def open(self, raised, held):
        return super().open((), held)


class RaisesOnlyAtTheStart(MemoryStamps):
    def _close(self, held, counted, raised):
        super()._close(held, counted, ())


def with_stamps(stamps):
    def make(world):
        store = Memory()
        store.stamps = stamps()
        return Guarded(world, Guard(store=store))

    return make


@pytest.mark.parametrize("stamps", [Blind, RaisesOnlyAtTheStart])
def test_r22_control_stamps_that_miss_something_are_caught(stamps):
    assert wrongs(with_stamps(stamps), 150) > 0


def test_r22_control_joining_whatever_is_under_way_is_caught(monkeypatch):
    monkeypatch.setattr(Memo, "_joinable", lambda self, call, flight: True)
    assert wrongs(lambda world: Guarded(world, Guard()), 150) > 0


def test_r22_control_taking_the_snapshot_after_the_run_is_caught(monkeypatch):
    keep = Memo._keep

    def late(self, call, flight, outcome):
        flight.snapshot = self.store.stamps.now()
        return keep(self, call, flight, outcome)

    monkeypatch.setattr(Memo, "_keep", late)
    assert wrongs(lambda world: Guarded(world, Guard()), 150) > 0


def hammered(store):
    """Threads read and write two resources as fast as they can; gives how often a read was too old, and was spared."""
    guard, rounds, together = Guard(store=store), 1000, threading.Barrier(6)
    world, finished, old = [0, 0], [0, 0], []
    locks = [threading.Lock(), threading.Lock()]

    def read(n):
        return world[n]

    def write(n):
        with locks[n]:
            world[n] += 1
            return world[n]

    call, change = wrap(Read("r:{n}", identity="r")(read), guard), wrap(Write("r:{n}")(write), guard)

    def writer(n):
        together.wait()
        for _ in range(rounds):
            done = change(n)
            with locks[n]:
                finished[n] = max(finished[n], done)

    def reader(n):
        together.wait()
        while finished[n] < rounds:
            least = finished[n]
            if call(n) < least:
                old.append(n)

    with eager_switching():
        in_threads(*(functools.partial(do, n) for n in range(2) for do in (writer, reader, reader)))
    assert len(guard._memo.flights) == 0 and not guard.store.stamps._open
    return len(old), guard.stats().saved


def test_r22_threads_that_read_and_write_at_once_are_given_nothing_old():
    found = [hammered(Memory()) for _ in range(5)]
    assert not any(old for old, _ in found) and any(saved for _, saved in found)


def test_r22_control_threads_with_stamps_that_are_always_fresh_are_caught():
    store = Memory()
    store.stamps = Blind()
    store.stamps.fresh = lambda cells, snapshot: snapshot > store.stamps.now() - 12  # so that readers come to an end
    assert any(hammered(store)[0] for _ in range(10))


def test_the_loop_gives_the_same_run_for_the_same_seed_and_others_for_others():
    def order(seed, **how):
        found = []

        async def one(n):
            for _ in range(3):
                found.append(n)
                await asyncio.sleep(0)

        async def main():
            await asyncio.gather(*map(one, range(4)))

        run_shuffled(main(), seed, **how)
        return tuple(found)

    assert order(1) == order(1)
    assert len({order(seed) for seed in range(20)}) > 15
    assert {order(seed, fifo=True) for seed in range(5)} == {(0, 1, 2, 3) * 3}


def test_the_loop_sleeps_in_no_time_and_in_order():
    found = []

    async def one(seconds):
        await asyncio.sleep(seconds)
        found.append((seconds, asyncio.get_running_loop().time()))

    async def main():
        await asyncio.gather(*map(one, (3600, 60, 86400)))

    run_shuffled(main(), 0)
    assert found == [(60, 60), (3600, 3600), (86400, 86400)]


def test_the_loop_says_when_every_task_waits_for_ever():
    async def main():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        run_shuffled(main(), 0)


# -- changes -----------------------------------------------------------------------------------------------------------


class Shop:
    """A guard, a read of `a:{key}`, and a way to see what a read finds: `ran` is counted."""

    def __init__(self, **options):
        self.guard = Guard(**options)
        self.ran = 0
        shop = self

        @Read("a:{key}", identity="read")
        def read(key="1"):
            shop.ran += 1
            return shop.ran

        @Read("a:{key}", scope="shared", identity="shared")
        def shared(key="1"):
            shop.ran += 1
            return shop.ran

        @Read("a:{key}", scope="user", identity="user")
        def of_user(key="1"):
            shop.ran += 1
            return shop.ran

        self.read, self.shared, self.of_user = (wrap(each, self.guard) for each in (read, shared, of_user))

    def tool(self, function, effect=None):
        return wrap(function if effect is None else effect(function), self.guard)

    def runs(self, read=None, *args):
        """Whether a read reaches the tool."""
        before = self.ran
        (read or self.read)(*args)
        return self.ran > before

    @property
    def still(self):
        return not self.guard.store.stamps._open


def test_r20_an_undeclared_call_is_never_remembered():
    shop, calls = Shop(), []
    tool = shop.tool(lambda x: calls.append(x))
    tool(1), tool(1)
    assert calls == [1, 1] and shop.guard.stats().saved == 0


def test_a_declared_write_forgets_what_it_touches_everywhere_and_nothing_else():
    shop = Shop()
    write = shop.tool(lambda key: None, Write("a:{key}"))
    for conversation in ("x", "y"):
        with shop.guard.conversation(conversation):
            shop.read("1"), shop.read("2"), shop.shared("1")
    with shop.guard.conversation("z"):
        write("1")
    for conversation in ("x", "y"):
        with shop.guard.conversation(conversation):
            assert shop.runs(shop.read, "1") and not shop.runs(shop.read, "2")
    with shop.guard.conversation("x"):
        assert shop.runs(shop.shared, "1") and not shop.runs(shop.shared, "1")


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, asyncio.CancelledError])
def test_a_write_that_fails_has_touched_what_it_might_have(kind):
    shop = Shop()

    def write():
        raise kind

    write = shop.tool(write, Write("a:1"))
    shop.read()
    with pytest.raises(kind):
        write()
    assert shop.runs() and not shop.runs() and shop.still


def test_a_write_that_is_cancelled_closes_and_has_touched():
    async def main():
        shop, began = Shop(), asyncio.Event()

        @Write("a:1")
        async def write():
            began.set()
            await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(wrap(write, shop.guard)())
        await began.wait()
        assert shop.runs() and shop.runs(), "nothing is kept while the write is open"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert shop.still and shop.runs() and not shop.runs()

    run_shuffled(main(), 0)


def test_a_write_that_never_began_touches_nothing_more():
    """Cancelled in the queue of the pool, it closes at once."""

    async def main():
        shop = Shop()
        pool = Pool(1)
        let = threading.Event()
        pool.submit(lambda: let.wait(20))
        with mock.patch.object(runtimes, "POOL", pool):
            ran = []
            task = asyncio.create_task(offloaded(shop.guard, lambda: ran.append(1), Write("a:1"))())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not shop.still
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert shop.still
        let.set()
        assert ran == []

    asyncio.run(main())


@pytest.mark.parametrize("also", [None, lambda args, result: [("b", result)]], ids=["plain", "also"])
def test_a_write_whose_thread_outlives_its_caller_stays_open_until_the_thread_ends(also):
    async def main():
        shop, began, let, ended = Shop(), threading.Event(), threading.Event(), threading.Event()

        def write():
            began.set()
            assert let.wait(20)
            ended.set()
            return "1"

        call = offloaded(shop.guard, write, Write("a:1", also=also))
        task = asyncio.create_task(call())
        await until(began.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not shop.still
        assert shop.runs() and shop.runs(), "what is read meanwhile is not kept"
        let.set()
        await until(lambda: shop.still)
        assert ended.is_set()
        assert shop.runs() and not shop.runs()

    asyncio.run(main())


@pytest.mark.parametrize("effect", [Write("a:1"), Write("b", also=lambda args, result: [("a", "1")]), None], ids=str)
def test_whoever_goes_on_before_a_write_is_over_is_given_nothing_from_before_r1(effect):
    """The answer was lost: the write stays open for `settle=`, and has taken effect all the same."""

    async def main():
        shop, world, began, act, let = Shop(), ["old"], [], asyncio.Event(), asyncio.Event()

        async def write():
            began.append("write")
            await act.wait()
            world[0] = "new"
            raise TimeoutError("the answer was lost")

        async def read(where="1"):
            seen = world[0]
            began.append(where)
            if where == "1":
                await let.wait()
            return seen

        write, read = shop.tool(write, effect), shop.tool(read, Read("a:1"))
        with shop.guard.conversation("1"):
            assert await read("2") == "old"
            writing = asyncio.create_task(write())
            await until(lambda: "write" in began)
            first = asyncio.create_task(read())
            await until(lambda: "1" in began)
            act.set()
            with pytest.raises(TimeoutError):
                await writing
            assert not shop.still, "it may still act"
            assert await read("2") == "new", "it was remembered before"
            second = asyncio.create_task(read())
            for _ in range(9):
                await asyncio.sleep(0)
            let.set()
            assert await asyncio.gather(first, second) == ["old", "new"], "it was under way before"

    asyncio.run(main())


def test_whoever_is_cancelled_while_a_write_goes_on_is_given_nothing_from_before_r1():
    async def main():
        shop, world, let = Shop(), ["old"], threading.Event()

        def write():
            world[0] = "new"
            assert let.wait(20)

        read = shop.tool(lambda: world[0], Read("a:1", identity="world"))
        assert read() == "old"
        task = asyncio.create_task(offloaded(shop.guard, write, Write("b", also=lambda args, result: [("a", "1")]))())
        await until(lambda: world[0] == "new")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not shop.still and read() == "new"
        let.set()
        await until(lambda: shop.still)

    asyncio.run(main())


def test_what_also_names_is_touched_and_everything_while_it_runs():
    shop = Shop()
    inside = []

    def write(fail=False):
        inside.append((shop.runs(shop.read, "1"), shop.runs(shop.read, "1")))
        if fail:
            raise OSError
        return "2"

    write = shop.tool(write, Write(also=lambda args, result: [("a", result)]))
    shop.read("1"), shop.read("2")
    write()
    assert inside == [(True, True)], "its own reads run, and are not kept"
    assert shop.runs(shop.read, "2") and not shop.runs(shop.read, "2")
    shop.read("1")
    write()
    assert not shop.runs(shop.read, "1"), "it named another"
    with pytest.raises(OSError):
        write(fail=True)
    assert shop.runs(shop.read, "1") and shop.runs(shop.read, "2") and shop.still


@pytest.mark.parametrize(
    "also", [lambda args, result: 1 / 0, lambda args, result: None, lambda args, result: "a:1", lambda: []]
)
def test_also_of_a_write_that_fails_to_say_means_everything(also):
    shop = Shop()
    write = shop.tool(lambda: "fine", Write("b", also=also))
    shop.read()
    assert write() == "fine"
    assert shop.runs() and shop.still


@pytest.mark.parametrize("also", [lambda args, result: 1 / 0, lambda args, result: None, lambda args, result: 5])
def test_also_of_a_read_that_fails_to_say_means_not_kept(also):
    shop, calls = Shop(), []
    read = shop.tool(lambda: calls.append(1), Read("b", also=also, identity="b"))
    read(), read()
    assert len(calls) == 2 and shop.guard.stats().tools["<lambda>"].uncacheable


def test_also_of_a_read_depends_on_what_the_result_names():
    shop, calls = Shop(), []
    read = shop.tool(lambda: calls.append(1) or "7", Read("b", also=lambda args, result: [("c", result)], identity="b"))
    read(), read()
    shop.guard.touch("c:8")
    read()
    assert len(calls) == 1
    shop.guard.touch("c:7")
    read(), read()
    assert len(calls) == 2


@pytest.mark.parametrize("declared", [lambda args: 1 / 0, lambda args: None, lambda args: [5], lambda args: ["{key}"]])
def test_a_declaration_that_fails_to_say(declared):
    shop, calls = Shop(), []
    read = shop.tool(lambda: calls.append(1), Read(declared, identity="b"))
    read(), read()
    assert len(calls) == 2, "a read is not kept"
    shop.read()
    shop.tool(lambda: None, Write(declared))()
    assert shop.runs(), "a write touches everything"


def test_a_read_inside_an_open_write_of_what_it_reads_runs_alone():
    async def main():
        shop, inside = Shop(), []

        @Write("a:1")
        async def write():
            for key in ("1", "2"):
                inside.append([shop.runs(shop.read, key) for _ in range(2)])

        await wrap(write, shop.guard)()
        assert inside == [[True, True], [True, False]], "what it does not touch is kept"
        assert shop.runs(shop.read, "1") and not shop.runs(shop.read, "1")

    run_shuffled(main(), 0)


def test_a_read_during_anothers_open_write_does_not_wait_and_is_not_kept():
    async def main():
        shop, began, let = Shop(), asyncio.Event(), asyncio.Event()

        @Write("a:1")
        async def write():
            began.set()
            await let.wait()

        task = asyncio.create_task(wrap(write, shop.guard)())
        await began.wait()
        assert shop.runs() and shop.runs() and not task.done()
        let.set()
        await task
        assert shop.runs() and not shop.runs()

    run_shuffled(main(), 0)


def test_an_undeclared_call_forgets_its_own_conversation_and_only_that():
    shop = Shop()
    tool = shop.tool(lambda: None)
    for conversation in ("x", "y"):
        with shop.guard.conversation(conversation, user="ann"):
            shop.read(), shop.shared(), shop.of_user()
    with shop.guard.conversation("x", user="ann"):
        tool()
        assert shop.runs(shop.shared) and shop.runs(shop.of_user) and shop.runs(shop.read)
    with shop.guard.conversation("y", user="ann"):
        assert not shop.runs(shop.read) and not shop.runs(shop.shared) and not shop.runs(shop.of_user)


def test_an_undeclared_call_forgets_also_the_conversations_of_its_ancestors():
    shop = Shop()
    tool = shop.tool(lambda: None)

    def agent():
        with shop.guard.conversation("sub"):
            shop.read()
            tool()
            assert shop.runs()

    agent = shop.tool(agent, Nested())
    for conversation in ("x", "y"):
        with shop.guard.conversation(conversation):
            shop.read()
    with shop.guard.conversation("x"):
        agent()
        assert shop.runs()
    with shop.guard.conversation("y"):
        assert not shop.runs()


def test_an_undeclared_call_in_no_thread_forgets_what_its_user_or_everyone_is_given():
    shop = Shop()
    tool = shop.tool(lambda: None)

    def as_(conversation, user):
        return shop.guard.conversation(conversation, user=user)

    def fill():
        for user in ("ann", "bob"):
            with as_("x", user):
                shop.read(), shop.of_user(), shop.shared()

    def kept():
        found = []
        for user in ("ann", "bob"):
            with as_("x", user):
                found.append((not shop.runs(shop.read), not shop.runs(shop.of_user)))
        return found

    fill()
    with as_(None, "ann"):
        tool()
    assert kept() == [(True, False), (True, True)]
    fill()
    tool()
    assert kept() == [(True, False), (True, False)], "nobody said whose it was: everyone's"
    fill()
    with as_("thread", "ann"):
        tool()
    assert kept() == [(True, True), (True, True)], "in a thread it is that thread's"


def test_reads_during_an_undeclared_call_of_the_same_conversation_are_not_kept():
    async def main():
        shop, began, let = Shop(), asyncio.Event(), asyncio.Event()

        async def tool():
            began.set()
            await let.wait()

        with shop.guard.conversation("x"):
            shop.read()
            task = asyncio.create_task(wrap(tool, shop.guard)())
            await began.wait()
            assert shop.runs() and shop.runs()
        with shop.guard.conversation("y"):
            assert shop.runs() and not shop.runs()
        let.set()
        await task
        with shop.guard.conversation("x"):
            assert shop.runs() and not shop.runs()

    run_shuffled(main(), 0)


def test_an_undeclared_call_does_not_touch_what_depends_on_arguments_alone():
    shop, calls = Shop(), []
    pure = shop.tool(lambda x: calls.append(x), Pure(identity="pure"))
    pure(1)
    shop.tool(lambda: None)()
    shop.guard.touch("*")
    pure(1)
    assert calls == [1]


def test_errors_and_what_is_error_are_not_remembered():
    shop, calls = Shop(), []

    def read(fail):
        calls.append(1)
        if fail:
            raise OSError
        return {"error": "busy"}

    read = shop.tool(read, Read(identity="r", is_error=lambda result: "error" in result))
    for fail in (True, True, False, False):
        try:
            assert read(fail) == {"error": "busy"}
        except OSError:
            assert fail
    assert len(calls) == 4 and shop.guard.entries().rows == ()


def test_is_error_that_fails_means_not_remembered():
    shop, calls = Shop(), []
    read = shop.tool(lambda: calls.append(1), Read(identity="r", is_error=lambda result: 1 / 0))
    read(), read()
    assert len(calls) == 2


def test_a_store_that_fails_to_keep_costs_nobody_the_result():
    store = Memory()
    store.put = mock.Mock(side_effect=OSError("disk full"))
    shop = Shop(store=store)
    assert shop.runs() and shop.runs() and len(shop.guard._memo.flights) == 0


def test_what_has_no_key_runs_each_time_and_says_why():
    shop = Shop()
    assert shop.runs(shop.read, object) and shop.runs(shop.read, object)
    reasons = shop.guard.stats().tools["read"].uncacheable
    assert any("no exact encoding" in reason for reason in reasons)


def test_the_time_to_live_is_of_the_read_and_the_clock_of_the_store():
    clock, calls = Clock(), []
    guard = Guard(store=Memory(clock=clock))
    read = wrap(Read(ttl="10m", identity="r")(lambda: calls.append(1)), guard)
    for seconds in (0, 599, 1, 0, -1):
        clock.move(seconds)
        read()
    assert len(calls) == 3, "after ten minutes, and when the clock went back"
