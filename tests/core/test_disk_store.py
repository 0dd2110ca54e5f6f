"""The disk store: the suite of any store, from memory and read back from the disk, in one process and in two."""

import functools
import os

import pytest

from ibidem.stores.disk import Disk
from ibidem.testing import StoreSuite, a_key, an_entry

KEY = "a key of the tests, long enough"
CELL = ("resource", "x")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


class DiskSuite(StoreSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, folder):
        self.folder = folder
        self.made = []
        yield
        for store in self.made:
            store.close()

    def make_store(self, clock):
        store = Disk(self.folder, key=KEY, clock=clock)
        self.made.append(store)
        return store


class TestDisk(DiskSuite):
    pass


class ReadBack(Disk):
    """Holds nothing in its own memory: what it gives comes from the disk."""

    def get(self, key):
        self.flush()
        self._memory.close()
        self._reader.close()
        return super().get(key)

    def entries(self):
        self.flush()
        self._memory.close()
        self._reader.close()
        return super().entries()


class TestDiskReadBack(DiskSuite):
    def make_store(self, clock):
        store = ReadBack(self.folder, key=KEY, clock=clock)
        self.made.append(store)
        return store

    test_no_thread_keeps_what_another_has_changed = None  # it takes minutes when every look is a look at the disk


def test_what_one_process_has_put_another_is_given(folder):
    one, other = Disk(folder, key=KEY), Disk(folder, key=KEY)
    entry = an_entry(snapshot=one.stamps.now(), stored_at=one.now(), ttl=None)
    one.put(a_key(), entry)
    one.flush()
    assert other.get(a_key()) == entry
    one.close()
    other.close()
    assert os.listdir(folder / "open") == []


def test_a_row_read_from_the_disk_does_not_displace_what_was_put_meanwhile(folder, monkeypatch):
    """Another thread puts a newer result while an older row, not yet overwritten, is being read."""
    store = Disk(folder, key=KEY)
    entry = functools.partial(an_entry, cells=(CELL,), stored_at=store.now(), ttl=None)
    store.put(a_key(), entry(value="old", snapshot=store.stamps.now()))
    store.flush()
    store.stamps.touch([CELL])
    newer = entry(value="new", snapshot=store.stamps.now())
    row = store._reader.row
    late = []

    def slow(name):
        found = row(name)
        late.append(found)
        monkeypatch.setattr(store._keeper, "put", lambda *_: None)  # it waits to be written
        store.put(a_key(), newer)
        return found

    monkeypatch.setattr(store._reader, "row", slow)
    assert store.get(a_key()).value == "new"
    assert late[0] is not None, "no row was read: the test shows nothing"
    assert store.get(a_key()).value == "new"
    store.close()
