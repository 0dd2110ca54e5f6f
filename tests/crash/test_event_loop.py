"""R6: while another process holds SQLite's write lock, an event loop goes on, and every call is answered."""

import asyncio
import sqlite3
import time

import pytest

from ibidem import Guard, Read, Write, wrap
from ibidem.stores.disk import Disk
from processes import KEY, children

HELD = 0.8
"""Seconds that the lock is held in a try."""
MOST = 0.02
"""Seconds that a loop may stand still."""
TRIES = 20
"""The machine is shared with others: one try without a longer stop shows that the store makes none."""


def holder(pipe, folder):
    """Holds the write lock of the database, each time it is told to."""
    with_lock = sqlite3.connect(folder / "results" / "cache.db", isolation_level=None)
    for seconds in iter(pipe.recv, "end"):
        with_lock.execute("BEGIN IMMEDIATE")
        pipe.send("held")
        time.sleep(seconds)
        with_lock.execute("ROLLBACK")
        pipe.send("released")


async def longest_stop(ends):
    """Give the longest time that the loop took to come back."""
    longest, before = 0.0, time.perf_counter()
    while not ends():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    return longest


async def calls(read, write, ends):
    count = 0
    while not ends():
        await asyncio.gather(*(read(f"{count % 50}.{n}") for n in range(4)))
        await write(f"{count % 50}.0")
        count += 1
        await asyncio.sleep(0.001)
    return count


def test_a_loop_goes_on_while_another_process_holds_the_write_lock_r6(tmp_path):
    disk = Disk(tmp_path / "store", key=KEY)
    guard = Guard(store=disk)

    async def read(name):
        return name * 100

    async def write(name):
        return None

    read, write = (
        wrap(Read("r:{name}", scope="shared", identity="read")(read), guard),
        wrap(Write("r:{name}")(write), guard),
    )
    asyncio.run(read("first"))
    disk.flush()
    tries = []
    with children(holder, (tmp_path / "store",)) as (process,):
        for _ in range(TRIES):
            assert process.ask(HELD) == "held"

            async def main():
                ends = time.monotonic() + HELD - 0.2
                done = lambda: time.monotonic() > ends
                return await asyncio.gather(longest_stop(done), calls(read, write, done))

            tries.append(asyncio.run(main()))
            assert process.hear() == "released"
            disk.flush()
            if min(tries)[0] <= MOST:
                break
    longest, count = min(tries)
    assert longest <= MOST and count > 20, tries
    assert sum(disk.counts().values()) > 0 and "the disk" not in " ".join(disk.counts())
    disk.close()


def test_the_measure_sees_a_loop_that_waits_for_the_lock_r6(tmp_path):
    disk = Disk(tmp_path / "store", key=KEY)
    wrap(Read(scope="shared", identity="read")(lambda: 1), Guard(store=disk))()
    disk.flush()

    async def main():
        ends = time.monotonic() + 0.5
        measured = asyncio.ensure_future(longest_stop(lambda: time.monotonic() > ends))
        await asyncio.sleep(0.01)
        other = sqlite3.connect(tmp_path / "store" / "results" / "cache.db", timeout=0.2, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError):
            other.execute("BEGIN IMMEDIATE")
        other.close()
        return await measured

    with children(holder, (tmp_path / "store",)) as (process,):
        assert process.ask(HELD) == "held"
        assert asyncio.run(main()) > MOST
    disk.close()
