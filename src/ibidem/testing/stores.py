"""The suite that a store must pass, and what it is made of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ibidem.core.call import Key
from ibidem.core.resources import Cell, Resource, Template, read_cells, write_cells
from ibidem.stores.protocol import Entry, Store
from ibidem.testing.schedules import Clock, eager_switching, in_threads

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
    """Make an entry that says nothing in particular, and that no change makes stale."""
    value, cells = {"id": 1, "parts": ["a", None, 2.5, True]}, read_cells(resources("order:1"))
    plain = Entry(
        value, 2**62, cells, stored_at=1000.0, ttl=60.0, elapsed=0.25, tool="tool", conversation="1", size=200
    )
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

    def test_what_was_read_before_a_purge_is_not_kept_after_it_r37(self) -> None:
        store = self.make_store(Clock())
        before = store.stamps.now()
        store.forget(lambda *_: False)  # whatever it takes: it is not asked about reads that are under way
        assert before < store.purged_at <= store.stamps.now()
        assert store.put(a_key(), an_entry(snapshot=before, cells=())) is False
        assert store.get(a_key()) is None
        assert store.put(a_key(), an_entry(snapshot=store.stamps.now())) is True
        assert store.stamps.fresh(read_cells(resources("*")), before), "a purge is no change of a resource"

    def test_no_thread_brings_back_what_was_purged_r37(self, rounds: int = 300) -> None:
        store = self.make_store(Clock())
        begun, back = [0], list[Entry]()

        def purge() -> None:
            for number in range(1, rounds + 1):
                begun[0] = number
                store.forget(lambda *_: True)
                back.extend(entry for _, entry in store.entries() if entry.value < number)

        def read() -> None:
            while begun[0] < rounds:
                snapshot, value = store.stamps.now(), begun[0]
                time.sleep(0.0002)  # or nobody ever purges between the two
                store.put(a_key(), an_entry(snapshot=snapshot, value=value, cells=()))

        with eager_switching():
            in_threads(purge, read, read)
        assert back == []

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
        assert all(stamps.alone(cells) for cells in (a, b, c)), "it is no other process's"
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
        stale: list[str] = []
        locks = [threading.Lock() for _ in range(count)]
        cells: list[tuple[Cell, ...]] = [read_cells(resources(f"r:{n}")) for n in range(count)]

        def write(n: int) -> None:
            raised = write_cells(resources(f"r:{n}"))
            for _ in range(rounds):
                if stale:
                    return
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
            while finished[n] < rounds and not stale:
                snapshot = stamps.now()
                value = world[n]
                if stamps.still(cells[n]) and stamps.fresh(cells[n], snapshot):
                    store.put(a_key(f"{n}"), an_entry(value=value, snapshot=snapshot, cells=cells[n]))
                known = finished[n]
                entry = store.get(a_key(f"{n}"))
                if entry is not None and stamps.fresh(entry.cells, entry.snapshot) and entry.value < known:
                    stale.append(f"{entry.value} was served after {known} had been written")
                looks[n] += 1

        with eager_switching():
            in_threads(*(partial(do, n) for n in range(count) for do in (write, read, read)))
        assert not stale, stale[0]
