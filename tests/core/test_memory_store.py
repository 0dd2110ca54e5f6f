"""The memory store: the suite of any store, and its own bounds."""

from dataclasses import replace

import pytest

from ibidem import Memory
from ibidem.core.stamps import MemoryStamps
from ibidem.testing import Clock, StoreSuite, a_key, an_entry, in_threads, read_cells, resources


class TestMemory(StoreSuite):
    def make_store(self, clock):
        return Memory(clock=clock)


class TestMemoryThatFoldsItsStampsAllTheTime(StoreSuite):
    """Folding forgets too much, never too little: only what must stay fresh is not asked of it."""

    def make_store(self, clock):
        store = Memory(clock=clock)
        store.stamps = MemoryStamps(limit=3)
        return store

    def test_a_change_touches_what_it_overlaps_and_nothing_else(self):
        with pytest.raises(AssertionError):
            super().test_a_change_touches_what_it_overlaps_and_nothing_else()


class TestTheSuiteFindsFaults:
    """Each fault is one a store could well have; the suite must say so."""

    def broken(self, test, change):
        class Suite(StoreSuite):
            def make_store(self, clock):
                store = Memory(clock=clock)
                change(store)
                return store

        with pytest.raises(AssertionError):
            for _ in range(20):  # where threads take part, chance does
                getattr(Suite(), test)()

    def test_a_store_that_believes_the_future(self):
        def change(store):
            store.get = lambda key: store._entries.get(key)

        self.broken("test_an_entry_from_the_future_is_not_believed", change)
        self.broken("test_an_entry_ends_with_its_time_to_live", change)

    def test_stamps_that_are_always_fresh(self):
        def change(store):
            store.stamps.fresh = lambda cells, snapshot: True

        self.broken("test_a_change_touches_what_it_overlaps_and_nothing_else", change)

    def test_stamps_that_are_always_fresh_in_front_of_entries_that_stay(self):
        def change(store):
            put = store.put
            store.stamps.fresh = lambda cells, snapshot: True
            store.put = lambda key, entry: key in store._entries or put(key, entry)

        self.broken("test_no_thread_keeps_what_another_has_changed", change)

    def test_stamps_that_do_not_raise_when_a_change_opens(self):
        def change(store):
            opened = store.stamps.open
            store.stamps.open = lambda raised, held: opened((), held)

        self.broken("test_a_change_under_way_is_seen_until_it_closes", change)

    def test_stamps_that_do_not_hold_what_is_open(self):
        def change(store):
            opened = store.stamps.open
            store.stamps.open = lambda raised, held: opened(raised, ())

        self.broken("test_a_change_under_way_is_seen_until_it_closes", change)
        self.broken("test_changes_of_one_resource_may_overlap_in_time", change)

    def test_marks_that_are_forgotten_with_the_entries(self):
        def change(store):
            forget = store.forget
            store.forget = lambda unwanted: (store._marks.clear(), forget(unwanted))[1]

        self.broken("test_a_mark_stays_with_its_tool", change)

    def test_a_purge_that_late_reads_undo(self):
        def change(store):
            put = store.put
            store.put = lambda key, entry: put(key, replace(entry, snapshot=max(entry.snapshot, store.purged_at)))

        self.broken("test_what_was_read_before_a_purge_is_not_kept_after_it_r37", change)

    def test_a_purge_that_is_numbered_after_the_entries_are_gone(self):
        def change(store):
            forget = store.forget

            def late(unwanted):
                with store._lock:
                    for key in [key for key, entry in store._entries.items() if unwanted(key, entry)]:
                        store._drop(key)
                store.put(a_key(), an_entry(snapshot=store.stamps.now(), value=0, cells=()))  # what another thread does
                return forget(lambda *_: False)

            store.forget = late

        self.broken("test_no_thread_brings_back_what_was_purged_r37", change)


def test_the_least_recently_used_makes_room_and_is_counted():
    store = Memory(max_entries=2, clock=Clock())
    for name in "ab":
        store.put(a_key(name), an_entry())
    store.get(a_key("a"))
    store.put(a_key("c"), an_entry())
    assert [key.arguments for key, _ in store.entries()] == [b"a", b"c"]
    assert store.evicted == 1


def test_the_dead_make_room_without_being_counted():
    clock = Clock()
    store = Memory(max_entries=1, clock=clock)
    store.put(a_key("a"), an_entry(ttl=1.0))
    clock.move(2)
    store.put(a_key("b"), an_entry())
    assert store.evicted == 0


def test_bytes_are_bounded():
    store = Memory(max_bytes=1000, clock=Clock())
    for n in range(50):
        assert store.put(a_key(str(n)), an_entry(size=300))
    assert len(list(store.entries())) == 3
    store.put(a_key("49"), an_entry(size=1000))
    assert [key.arguments for key, _ in store.entries()] == [b"49"]


def test_a_hundred_thousand_entries_stay_within_the_bound():
    store = Memory(max_entries=1000, clock=Clock())
    entry = an_entry()
    for n in range(100_000):
        store.put(a_key(str(n)), entry)
    assert len(list(store.entries())) == 1000
    assert store.evicted == 99_000


def test_bytes_are_counted_right_by_many_threads():
    store = Memory(max_entries=20, max_bytes=5000, clock=Clock())

    def work(seed):
        for n in range(500):
            name = str((n * seed) % 40)
            store.put(a_key(name), an_entry(size=100 + n % 7, snapshot=store.stamps.now()))
            store.get(a_key(str(n % 40)))
            if n % 50 == 0:
                store.forget(lambda key, entry: entry.size == 103)

    in_threads(*(lambda seed=seed: work(seed) for seed in (1, 3, 7, 11)))
    assert store._bytes == sum(entry.size for _, entry in store.entries()) <= 5000
    store.close()
    assert store._bytes == 0 and list(store.entries()) == []


@pytest.mark.parametrize("options", [{"max_entries": 0}, {"max_bytes": -1}, {"max_entries": True}, {"max_bytes": 1.5}])
def test_a_bound_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match="give a whole number from 1"):
        Memory(**options)


def test_folding_forgets_everything_and_keeps_what_is_open():
    stamps = MemoryStamps(limit=10)
    cells = read_cells(resources("a"))
    held = (("node", "a"),)
    change = stamps.open(held, held)
    before = stamps.now()
    for n in range(40):
        stamps.touch([("node", str(n))])
    assert len(stamps._cells) <= 11
    assert not stamps.fresh(cells, before)
    assert not stamps.still(cells)
    change.close(held)
    assert stamps.still(cells)
    assert stamps.fresh(cells, stamps.now())
