"""R4, R7: forks, threads, loops, many conversations, descriptors, limits: no error, nothing left open, nothing lost unsaid."""

import asyncio
import contextlib
import fcntl
import gc
import os
import subprocess
import sys
import threading
import time

import pytest
from disk_kit import KEY, SOAK, Agent, Warnings, World, agents, run

from ibidem import Guard, Read, Write, wrap
from ibidem.stores import disk, journals
from ibidem.stores.board import Board, Gone
from ibidem.stores.disk import Disk
from ibidem.stores.keeper import Keeper
from ibidem.testing import a_key, an_entry, in_threads

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


def entry(store, **changes):
    return an_entry(**{"snapshot": store.stamps.now(), "stored_at": store.now(), "ttl": None, **changes})


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def are_back_at(count):
    """Whether no more descriptors are open than there were, when what other stores just do has ended."""
    ends = time.monotonic() + 20
    while descriptors() > count and time.monotonic() < ends:
        time.sleep(0.02)
    return descriptors() <= count


def keepers():
    return sum(thread.name == "ibidem keeper" for thread in threading.enumerate())


def forked(work):
    """Run something in a forked child, and give what it returned; it may take 20 seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b"failed"
        try:
            answer = str(work()).encode()
        except BaseException as problem:
            answer = repr(problem).encode()
        finally:
            os.write(writing, answer)
            os._exit(0)
    os.close(writing)
    try:
        ends = time.monotonic() + 20
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > ends:
                os.kill(child, 9)
                os.waitpid(child, 0)
                return "it hangs"
            time.sleep(0.005)
        return os.read(reading, 10_000).decode()
    finally:
        os.close(reading)


def test_a_forked_child_reads_and_writes_and_its_parent_sees_it_r7(folder):
    with agents(folder) as (world, parent):
        parent.write()
        assert parent.read() == 1
        parent.store.flush()

        def child():
            before = parent.read(), world.reads
            parent.write()
            after = parent.read()
            parent.store.flush()
            return before, after, parent.store.counts()["stored"] > 1

        assert forked(child) == "((1, 1), 2, True)"
        assert parent.read() == 2, "what the child had changed was served as it had been before"
        assert world.reads == 1


def test_a_fork_in_the_middle_of_everything_hangs_nobody_r7(folder):
    with agents(folder, 2) as (_, one, other):
        stop = threading.Event()

        def work(agent, n):
            while not stop.is_set():
                agent.write(f"{n}")
                agent.read(f"{n}")
                agent.store.flush(20)

        threads = [threading.Thread(target=work, args=(agent, n)) for n, agent in enumerate((one, other, one))]
        for thread in threads:
            thread.start()
        try:
            for _ in range(100 if SOAK else 15):

                def child():
                    one.write("child")
                    one.read("child")
                    one.store.flush(15)
                    disk.at(folder, KEY)
                    return "done"

                assert forked(child) == "done"
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_threads_that_fork_at_once_leave_the_store_as_it_was_r7(folder):
    with agents(folder) as (_, one):
        one.write()
        one.read()
        one.store.flush()

        spoilt = []

        def fork_often():
            for _ in range(10):
                spoilt.append(forked(lambda: one.store._keeper._spoilt or one.store._reader._spoilt))

        in_threads(fork_often, fork_often, fork_often)
        assert spoilt == ["False"] * 30
        assert one.store._reader._lock.acquire(timeout=5), "nobody lets go of it any more"
        one.store._reader._lock.release()
        one.store._memory.close()
        assert [entry.value for _, entry in one.store.entries()] == [1]


def test_one_that_cannot_stand_still_keeps_no_other_from_it_r7(folder, monkeypatch):
    with agents(folder, 2) as (_, one, other):
        one.read()
        other.read()
        one.store.flush()
        monkeypatch.setattr(one.store._keeper, "pause", lambda: 1 / 0)
        assert forked(lambda: [agent.store._reader._spoilt for agent in (one, other)]) == "[True, False]"


def test_a_store_that_is_collected_during_a_fork_hangs_nobody_r7(folder):
    script = """
        import os, sys
        from ibidem.core import forks
        from ibidem.stores.disk import Disk

        class Drops:
            def _before_fork(self):
                held.clear()

            def _after_fork_in_parent(self):
                pass

        for _ in range(10):
            drops, held = Drops(), [Disk(sys.argv[1], key="a key of the tests, long enough")]
            held[0].entries()
            forks.around(drops)
            child = os.fork()
            if child == 0:
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert not held
        print("done")
    """
    assert run(script, folder) == "done"


def test_a_fork_while_another_thread_opens_a_store_hangs_nobody_r7(folder):
    with disk._stores._lock:
        assert forked(lambda: disk.at(folder, KEY).path == folder) == "True"


def test_what_a_parent_has_under_way_stays_open_when_its_child_ends_r7(folder):
    with agents(folder, 2) as (_, one, other):
        cells = (("node", "x"),)
        change = one.store.stamps.open(cells, cells)
        assert forked(lambda: one.store.stamps.still(cells)) == "False"
        assert not other.store.stamps.still(cells)
        change.close(cells)
        assert other.store.stamps.still(cells)


def test_32_threads_share_one_store_r7(folder):
    with agents(folder, 2) as (_, one, other):

        def work(n):
            agent = (one, other)[n % 2]
            for step in range(20):
                agent.write(f"{n}")
                assert agent.read(f"{n}") == step + 1
                assert agent.read(f"{n}") == step + 1

        in_threads(*(lambda n=n: work(n) for n in range(32)))
        one.store.flush()


def test_4_loops_share_one_store_r7(folder):
    guard = Guard(store=Disk(folder, key=KEY))
    values = {}

    async def read(name):
        await asyncio.sleep(0)
        return values.get(name, 0)

    async def write(name):
        await asyncio.sleep(0)
        values[name] = values.get(name, 0) + 1

    reads = wrap(Read("item:{name}", identity="read", scope="shared")(read), guard)
    writes = wrap(Write("item:{name}")(write), guard)

    async def one(name):
        for step in range(10):
            await writes(name)
            assert await reads(name) == step + 1

    async def several(n):
        await asyncio.gather(*(one(f"{n}:{m}") for m in range(5)))

    in_threads(*(lambda n=n: asyncio.run(several(n)) for n in range(4)))
    guard.store.flush()
    guard.close()


@pytest.mark.soak
def test_10_000_conversations_are_kept_and_told_apart_r7(folder):
    count = 10_000 if SOAK else 1_000
    store = Disk(folder, key=KEY)
    before = descriptors()
    keys = [a_key(f"{n}")._replace(partition=("thread", f"{n}")) for n in range(count)]
    for n, key in enumerate(keys):
        store.put(key, entry(store, value=n, conversation=f"{n}"))
    store.flush()
    assert store.counts() == {"stored": count}
    store._memory.close()
    assert [store.get(key).value for key in keys] == list(range(count))
    assert descriptors() <= before + 8
    store.close()


def used(folder):
    store = Disk(folder, key=KEY)
    store.put(a_key(), entry(store))
    store.flush()
    store._memory.close()
    assert store.get(a_key()) is not None
    return store


def test_descriptors_and_threads_are_back_at_the_baseline_after_close_r7(folder, tmp_path):
    used(tmp_path / "warm").close()
    before, threads = descriptors(), keepers()
    for _ in range(5):
        several = [used(folder) for _ in range(4)]
        for store in several:
            store.stamps.still((("node", "x"),))
        for store in several:
            store.close()
        store.close()
    del several, store
    assert are_back_at(before)
    assert keepers() == threads


def test_a_store_that_nobody_holds_lets_go_of_its_descriptors_r7(folder, tmp_path):
    used(tmp_path / "warm").close()
    before, threads = descriptors(), keepers()
    for _ in range(5):
        used(folder)
    assert are_back_at(before)
    assert keepers() == threads


def test_descriptors_are_back_when_joining_failed_r7(folder, monkeypatch):
    healthy = used(folder)
    before = descriptors()
    monkeypatch.setattr(journals.Journal, "make", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    late = Disk(folder, key=KEY)
    assert not late.stamps.shared
    late.close()
    del late
    assert are_back_at(before)
    healthy.close()


def test_the_count_of_descriptors_can_fail_r7(folder):
    before = descriptors()
    store = used(folder)
    assert descriptors() > before
    store.close()


# -- closing under the feet of others --------------------------------------------------------------------------------------


def test_a_store_may_be_closed_at_any_time_r7(folder):
    with agents(folder, 2) as (_, one, other):
        stop = threading.Event()

        def close():
            while not stop.is_set():
                one.store.close(1.0)

        def work():
            try:
                for step in range(60):
                    one.write()
                    other.read()
                    one.store.mark(f"{step}")
                    one.store.flush(20)
            finally:
                stop.set()

        in_threads(work, close)


def test_a_lock_of_a_file_that_was_let_go_is_gone_and_no_error(folder):
    folder.mkdir(mode=0o700)
    board = Board(folder / "stamps")
    board.acquire()
    board.let_go()
    board.release()
    with pytest.raises(Gone):
        board.acquire()


def test_a_journal_that_was_let_go_is_not_taken_for_a_dead_one(folder):
    folder.mkdir(mode=0o700)
    journal = journals.Journal.make(folder)
    other = journals.Journal(journal.path)
    other.let_go()
    assert other.abandoned() is False


def test_a_living_process_is_not_taken_for_a_dead_one_for_want_of_descriptors(folder, monkeypatch):
    healthy = used(folder)
    change = healthy.stamps.open((("node", "x"),), (("node", "x"),))
    real = os.open

    def short(path, *rest, **more):
        if os.path.dirname(os.fspath(path)).endswith("open") and not rest[0] & os.O_EXCL:
            raise OSError(24, "Too many open files")
        return real(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", short)
        late = Disk(folder, key=KEY)
        assert not late.stamps.shared
    assert healthy._member._own.path.exists()
    change.close(())
    late.close()
    healthy.close()


def test_a_journal_that_was_deleted_is_made_again(folder):
    with agents(folder) as (_, one):
        (path,) = (folder / "open").iterdir()
        path.unlink()
        late = Agent(World(), folder)
        one.read()
        assert len(os.listdir(folder / "open")) == 2
        late.close()


# -- the keeper -----------------------------------------------------------------------------------------------------------


def test_the_thread_survives_whatever_a_batch_does(folder, monkeypatch):
    store = Disk(folder, key=KEY)
    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "_write", lambda *_: 1 / 0)
        store.put(a_key(), entry(store))
        store.flush(5)
    store.put(a_key("next"), entry(store))
    store.flush(5)
    assert store.counts()["stored"] == 1
    assert sum(store.counts().values()) == 2, "what was not stored was not counted"
    store.close()


def test_a_full_store_counts_every_result_r4(folder):
    store = Disk(folder, key=KEY, max_bytes=50_000)
    count = 2_000
    with Warnings(folder) as warned:
        for n in range(count):
            store.put(a_key(f"{n}"), entry(store, value=f"{n}" * 20, conversation="1"))
        store.flush()
    counts = store.counts()
    assert counts["stored"] + counts["the store is full: max_bytes"] == count
    assert counts["stored"] > 0
    size = sum(path.stat().st_size for path in (folder / "results").iterdir() if path.name == "cache.db")
    assert size < 10 * 50_000
    assert len(warned.texts) <= 1
    store.close()


def test_processes_that_begin_a_store_at_once_lose_nothing_r1(folder):
    script = """
import sys
from ibidem.stores.disk import Disk
from ibidem.testing import a_key, an_entry
sys.stdin.readline()
store = Disk(sys.argv[1], key="a key of the tests, long enough")
store.put(a_key(sys.argv[2]), an_entry(snapshot=store.stamps.now(), stored_at=store.now(), ttl=None))
store.flush()
print(store.counts().get("stored"))
"""
    for attempt in range(5 if SOAK else 2):
        place = folder / f"{attempt}"
        children = [
            subprocess.Popen(
                [sys.executable, "-c", script, place, f"{n}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for n in range(3)
        ]
        time.sleep(0.3)
        for child in children:
            child.stdin.write("\n")
            child.stdin.flush()
        for child in children:
            assert child.communicate() == ("1\n", "")
        store = Disk(place, key=KEY)
        assert all(store.get(a_key(f"{n}")) is not None for n in range(3))
        store.close()


def test_a_call_on_a_loop_waits_for_a_held_lock_for_milliseconds_r6(folder):
    with agents(folder) as (_, one), contextlib.ExitStack() as held:
        file = os.open(folder / "stamps", os.O_RDWR)
        held.callback(os.close, file)
        fcntl.flock(file, fcntl.LOCK_EX)

        async def change():
            began = time.perf_counter()
            one.store.stamps.touch((("node", "x"),))
            return time.perf_counter() - began

        assert min(asyncio.run(change()) for _ in range(3)) < 0.2
