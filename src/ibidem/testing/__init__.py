"""The test kit: what ibidem tests itself with, for those who write stores, layers and tools.

- `StoreSuite`: what any store must pass, as a class to inherit from.
- `run_shuffled`: runs a coroutine in a controlled, random order and in virtual time; a seed gives the same run again.
- `Clock`: a clock that stands until it is told to move.
- `FaultServer`: an HTTP server on loopback that fails as it is told, and counts what it has done.

It needs no test framework; pytest finds the tests of a subclass by their names.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from ibidem.core.call import Key
from ibidem.core.resources import Cell, Resource, Template, read_cells, write_cells
from ibidem.stores.protocol import Entry, Store
from ibidem.testing.faulty import FaultServer as FaultServer

T = TypeVar("T")


class Clock:
    """A clock in seconds, for stores and tests: it stands still until it is moved, backwards too."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        """Move it by so many seconds."""
        self.now += seconds


class Stuck(RuntimeError):  # noqa: N818
    """Every task waits and no timer runs: in real time the program would hang here."""


class ShuffledLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time that runs one ready callback after the other in random order.

    asyncio runs what is ready first come, first served: most interleavings never happen in a test. Here each step is
    drawn from all that is ready. Sleeping takes no time: when nothing is ready, the clock jumps to the next timer.

    Args:
        seed: The same seed gives the same order.
        fifo: Keep asyncio's own order, for comparison; time is virtual all the same.
        threads: Whether other threads may wake the loop; it then waits for them instead of raising `Stuck`.
    """

    def __init__(self, seed: int, *, fifo: bool = False, threads: bool = False) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._fifo = fifo
        self._threads = threads
        self._virtual = 0.0
        super().__init__()

    def time(self) -> float:
        return self._virtual

    def _run_once(self) -> None:
        loop: Any = self  # the queues have no public name; they are the same in every supported Python
        ready = loop._ready
        if not ready and not loop._stopping:
            timers = [timer for timer in loop._scheduled if not timer.cancelled()]
            if timers:
                self._virtual = max(self._virtual, min(timer.when() for timer in timers))
            elif not self._threads:
                raise Stuck("every task waits, and nothing is left that could wake one")
        if self._fifo or len(ready) < 2:
            super()._run_once()  # type: ignore[misc]
            return
        chosen = self._random.randrange(len(ready))
        handle = ready[chosen]
        del ready[chosen]
        others = list(ready)
        ready.clear()
        ready.append(handle)
        super()._run_once()  # type: ignore[misc]
        ready.extendleft(reversed(others))


def run_shuffled(main: Coroutine[Any, Any, T], seed: int, *, fifo: bool = False, threads: bool = False) -> T:
    """Run a coroutine as `asyncio.run` does, but on a `ShuffledLoop` of this seed and these options.

    Raises:
        Stuck: Every task waits and no timer runs.
    """
    with asyncio.Runner(loop_factory=lambda: ShuffledLoop(seed, fifo=fifo, threads=threads)) as runner:
        return runner.run(main)


@contextmanager
def eager_switching() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can: then rare faults show in a short test."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(*functions: Callable[[], object]) -> None:
    """Run functions in threads that start together, and raise what the first of them raised."""
    together = threading.Barrier(len(functions))
    with ThreadPoolExecutor(len(functions), initializer=together.wait) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result()


READ = ("order", "order:1", "order:1:items", "order:*", "order:1:*", "order:2", "other", "*")

OVERLAPS = {
    "order": {"order", "order:*", "*"},
    "order:1": {"order:1", "order:*", "order:1:*", "*"},
    "order:1:items": {"order:1:items", "order:*", "order:1:*", "*"},
    "order:*": {*READ} - {"other"},
    "order:1:*": {"order:1", "order:1:items", "order:*", "order:1:*", "*"},
    "*": {*READ},
}
"""For each resource that is written, those of `READ` that it touches; it touches no other."""


def resources(*texts: str) -> list[Resource]:
    """Name resources by their texts."""
    return [resource for text in texts for resource in Template.parse(text).fill({})]


def a_key(name: str = "x") -> Key:
    """Make a key."""
    return Key("named:tool", ("thread", "1"), name.encode())


def an_entry(**changes: Any) -> Entry:
    """Make an entry that says nothing in particular."""
    value, cells = {"id": 1, "parts": ["a", None, 2.5, True]}, read_cells(resources("order:1"))
    plain = Entry(value, 0, cells, stored_at=1000.0, ttl=60.0, elapsed=0.25, tool="tool", conversation="1", size=200)
    return replace(plain, **changes)


class StoreSuite:
    """What any store must pass: inherit from it, and say in `make_store` how to make one."""

    def make_store(self, clock: Callable[[], float]) -> Store:
        """Make an empty store.

        Args:
            clock: Shows the seconds that the store must go by.
        """
        raise NotImplementedError

    def test_what_was_put_is_got(self) -> None:
        store = self.make_store(Clock())
        assert store.get(a_key()) is None
        assert store.put(a_key(), an_entry()) is True
        assert store.get(a_key()) == an_entry()
        assert store.get(a_key("y")) is None

    def test_keys_are_told_apart_by_each_of_their_parts(self) -> None:
        store = self.make_store(Clock())
        key = a_key()
        others = [key._replace(identity="named:else"), key._replace(partition=("shared",)), a_key("X"), a_key("")]
        store.put(key, an_entry())
        assert [store.get(other) for other in others] == [None] * 4

    def test_a_second_put_replaces_the_first(self) -> None:
        store = self.make_store(Clock())
        store.put(a_key(), an_entry(value="old"))
        store.put(a_key(), an_entry(value="new"))
        assert [(key, entry.value) for key, entry in store.entries()] == [(a_key(), "new")]

    def test_an_entry_ends_with_its_time_to_live(self) -> None:
        clock = Clock()
        store = self.make_store(clock)
        store.put(a_key(), an_entry(ttl=60.0))
        store.put(a_key("for ever"), an_entry(ttl=None))
        clock.move(59.9)
        assert store.get(a_key()) is not None
        clock.move(0.1)
        assert store.get(a_key()) is None
        assert [key for key, _ in store.entries()] == [a_key("for ever")]

    def test_an_entry_from_the_future_is_not_believed(self) -> None:
        clock = Clock()
        store = self.make_store(clock)
        store.put(a_key(), an_entry(ttl=None))
        clock.move(-0.001)
        assert store.get(a_key()) is None

    def test_what_has_no_room_is_refused_and_not_kept(self) -> None:
        store = self.make_store(Clock())
        assert store.put(a_key(), an_entry(size=2**62)) is False
        assert store.get(a_key()) is None
        assert list(store.entries()) == []

    def test_forgetting_takes_what_is_asked_and_counts_it(self) -> None:
        store = self.make_store(Clock())
        for name in "abcd":
            store.put(a_key(name), an_entry(tool=name))
        assert store.forget(lambda key, entry: key.arguments == b"a" or entry.tool == "b") == 2
        assert {entry.tool for _, entry in store.entries()} == {"c", "d"}
        assert store.forget(lambda *_: False) == 0

    def test_a_mark_stays_with_its_tool(self) -> None:
        store = self.make_store(Clock())
        assert not store.marked("tool")
        store.mark("tool")
        store.mark("tool")
        store.forget(lambda *_: True)
        assert store.marked("tool")
        assert not store.marked("another")
        store.close()
        store.close()  # it can be closed twice

    def test_a_change_touches_what_it_overlaps_and_nothing_else(self) -> None:
        stamps = self.make_store(Clock()).stamps
        for written, touched in OVERLAPS.items():
            before = stamps.now()
            stamps.touch(write_cells(resources(written)))
            after = stamps.now()
            for read in READ:
                cells = read_cells(resources(read))
                assert stamps.fresh(cells, before) is (read not in touched), f"{written} written, {read} read"
                assert stamps.fresh(cells, after), f"{read} read after {written} was written"

    def test_a_change_under_way_is_seen_until_it_closes(self) -> None:
        stamps = self.make_store(Clock()).stamps
        raised, held = write_cells(resources("a")), write_cells(resources("a", "b"))
        a, b, c = (read_cells(resources(name)) for name in "abc")
        before = stamps.now()
        change, during = stamps.open(raised, held), stamps.now()
        assert [stamps.fresh(cells, before) for cells in (a, b, c)] == [False, True, True]
        assert [stamps.still(cells) for cells in (a, b, c)] == [False, False, True]
        change.close(held)
        assert [stamps.fresh(cells, during) for cells in (a, b, c)] == [False, False, True]
        assert [stamps.still(cells) for cells in (a, b, c)] == [True, True, True]
        after = stamps.now()
        change.close(held)
        assert stamps.fresh(a, after), "a change that is closed twice ends once"

    def test_changes_of_one_resource_may_overlap_in_time(self) -> None:
        stamps = self.make_store(Clock()).stamps
        raised, cells = write_cells(resources("a")), read_cells(resources("a"))
        first, second = stamps.open(raised, raised), stamps.open(raised, raised)
        first.close(raised)
        assert not stamps.still(cells)
        second.close(raised)
        assert stamps.still(cells)

    def test_what_depends_on_nothing_is_always_fresh(self) -> None:
        stamps = self.make_store(Clock()).stamps
        stamps.touch(write_cells(resources("*")))
        assert stamps.fresh((), 0)
        assert stamps.still(())

    def test_no_thread_keeps_what_another_has_changed(self, rounds: int = 300) -> None:
        """What passes `still` and `fresh` after it was read holds until `fresh` says no, whatever other threads do."""
        store = self.make_store(Clock())
        stamps, count = store.stamps, 2
        world, finished, looks = [0] * count, [0] * count, [0] * count
        locks = [threading.Lock() for _ in range(count)]
        cells: list[tuple[Cell, ...]] = [read_cells(resources(f"r:{n}")) for n in range(count)]

        def write(n: int) -> None:
            raised = write_cells(resources(f"r:{n}"))
            for _ in range(rounds):
                seen = looks[n]
                with locks[n]:
                    change = stamps.open(raised, raised)
                    world[n] += 1
                    change.close(raised)
                    finished[n] = world[n]
                for _ in range(1000):  # or all is written before anybody reads
                    if looks[n] != seen:
                        break
                    time.sleep(0)

        def read(n: int) -> None:
            while finished[n] < rounds:
                snapshot = stamps.now()
                value = world[n]
                if stamps.still(cells[n]) and stamps.fresh(cells[n], snapshot):
                    store.put(a_key(f"{n}"), an_entry(value=value, snapshot=snapshot, cells=cells[n]))
                known = finished[n]
                entry = store.get(a_key(f"{n}"))
                if entry is not None and stamps.fresh(entry.cells, entry.snapshot):
                    assert entry.value >= known, f"{entry.value} was served after {known} had been written"
                looks[n] += 1

        with eager_switching():
            in_threads(*(partial(do, n) for n in range(count) for do in (write, read, read)))
