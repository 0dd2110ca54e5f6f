"""R10, R12: what is planted in the database is a miss: it runs no code, names no file, and takes no memory."""

import contextlib
import os
import pickle
import sqlite3
import time
import tracemalloc

import diskcache
import pytest
from disk_kit import KEY, Warnings

from ibidem.core.resources import read_cells
from ibidem.stores.codec import LARGEST
from ibidem.stores.disk import Disk
from ibidem.testing import a_key, an_entry, resources


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def folder(tmp_path):
    """A store that holds one entry."""
    store = Disk(tmp_path / "store", key=KEY)
    store.put(a_key(), entry(store))
    store.put(a_key("untouched"), entry(store))
    store.flush()
    store.close()
    return tmp_path / "store"


def entry(store, **changes):
    return an_entry(snapshot=store.stamps.now(), stored_at=store.now(), ttl=None, **changes)


def plant(folder, *statements):
    with contextlib.closing(sqlite3.connect(folder / "results" / "cache.db")) as plain:
        for statement in statements:
            plain.execute(*statement if isinstance(statement, tuple) else (statement,))
        plain.commit()


def row(folder):
    store = Disk(folder, key=KEY)
    try:
        return store._records.row(a_key())
    finally:
        store.close()


def used(folder):
    """Use the store in every way, as one that has just been opened, and give what stands under the key at first."""
    store = Disk(folder, key=KEY)
    try:
        first = store.get(a_key())
        list(store.entries())
        for _ in range(2):  # what was put before a database is set aside is gone with it, or counted as not stored
            store.put(a_key("new"), entry(store))
            store.flush()
            store._keeper._sweep_at = 0.0
            store._keeper.ask(lambda keeper: keeper._sweep_if_time(), 10)
        assert from_disk(store, a_key("new")) is not None, store.counts()
        store.forget(lambda *_: False)
        store.put(a_key(), entry(store))
        store.flush()
        assert from_disk(store, a_key()) is not None, store.counts()
        return first
    finally:
        store.close()


def from_disk(store, key):
    store._memory.close()
    store._reader.close()
    return store.get(key)


OUTSIDE = "outside"

POISONINGS = {
    "pickle": "UPDATE Cache SET mode = 4, value = :pickle WHERE key = :row",
    "pickle under its key as it was": "UPDATE Cache SET value = :pickle WHERE key = :row",
    "raw key": "UPDATE Cache SET raw = 0 WHERE key = :row",
    "pickled key": "UPDATE Cache SET raw = 0, key = :pickle WHERE key = :row",
    "text mode, another's file": "UPDATE Cache SET mode = 3, filename = :outside WHERE key = :row",
    "binary mode, another's file": "UPDATE Cache SET mode = 2, filename = :outside WHERE key = :row",
    "pickle mode, another's file": "UPDATE Cache SET mode = 4, filename = :outside, value = NULL WHERE key = :row",
    "a file beside the value": "UPDATE Cache SET filename = :outside WHERE key = :row",
    "a value that is text": "UPDATE Cache SET value = 'text' WHERE key = :row",
    "a value that is a number": "UPDATE Cache SET value = 5 WHERE key = :row",
    "no value": "UPDATE Cache SET value = NULL WHERE key = :row",
    "a mode that is text": "UPDATE Cache SET mode = 'pickle' WHERE key = :row",
    "a key that is text": "UPDATE Cache SET key = 'text' WHERE key = :row",
    "a key that is a huge number": "UPDATE Cache SET key = 1000000000000 WHERE key = :row",
    "a tag that is text": "UPDATE Cache SET tag = 'text' WHERE key = :row",
    "a tag that is no text": "UPDATE Cache SET tag = CAST(x'ff' AS TEXT) WHERE key = :row",
    "no tag": "UPDATE Cache SET tag = NULL WHERE key = :row",
    "a time that is text": "UPDATE Cache SET store_time = 'never', expire_time = 'never' WHERE key = :row",
    "no time": "UPDATE Cache SET store_time = NULL WHERE key = :row",
    "a size below nothing": "UPDATE Cache SET size = -1000000000000 WHERE key = :row",
    "a size that is text": "UPDATE Cache SET size = 'small' WHERE key = :row",
}
STAYS = {"no tag", "a tag that is text", "a tag that is no text", "a time that is text", "no time"}
STAYS |= {"a size below nothing", "a size that is text"}
"""What touches neither row nor record: the entry is still ours."""


@pytest.mark.parametrize("poisoning", POISONINGS)
def test_a_poisoned_row_is_a_miss_r10(poisoning, folder, tmp_path):
    ran, outside = tmp_path / "ran", tmp_path / OUTSIDE
    outside.write_bytes(pickle.dumps(Payload(ran)))
    names = {"pickle": pickle.dumps(Payload(ran)), "outside": f"../../{OUTSIDE}", "row": row(folder)}
    plant(folder, (POISONINGS[poisoning], names))
    with Warnings(folder) as warned:
        found = used(folder)
    assert (found is not None) is (poisoning in STAYS)
    assert not ran.exists(), "code ran"
    assert outside.exists(), "a file was deleted"
    assert warned.texts == [], "a sound database was taken for a damaged one"


def test_plain_diskcache_runs_what_is_planted_r10(tmp_path):
    """The control: the same row, in the same table."""
    ran = tmp_path / "ran"
    with diskcache.Cache(str(tmp_path / "plain"), disk=diskcache.JSONDisk) as cache:
        cache.set("x", 1)
        cache._sql("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Payload(ran)),))
        with contextlib.suppress(Exception):
            cache.get("x")
    assert ran.exists()


SETTINGS = {
    "disk_pickle_protocol": 0,
    "disk_x": "y",
    "sqlite_journal_mode": "delete",
    "sqlite_query_only": 1,
    "sqlite_max_page_count": 1,
    "sqlite_mmap_size": 2**40,
    "sqlite_x; DROP TABLE Cache": 1,
    "eviction_policy": "least-recently-used",
    "size_limit": 1,
    "cull_limit": 10,
    "statistics": 1,
    "tag_index": 0,
    "__class__": "str",
    "close": 1,
    "_disk": 5,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_planted_setting_sets_nothing_r10(name, folder):
    plant(folder, ("INSERT OR REPLACE INTO Settings VALUES (?, ?)", (name, SETTINGS[name])))
    with Warnings(folder) as warned:
        assert used(folder) is not None
    assert warned.texts == []
    with contextlib.closing(sqlite3.connect(folder / "results" / "cache.db")) as plain:
        found = dict(plain.execute("SELECT key, value FROM Settings"))
    assert found.get(name) != SETTINGS[name] or type(found[name]) is not type(SETTINGS[name])


def test_plain_diskcache_obeys_a_planted_setting_r10(tmp_path):
    with diskcache.Cache(str(tmp_path)) as cache:
        cache._sql("INSERT OR REPLACE INTO Settings VALUES ('size_limit', 1)")
    with diskcache.Cache(str(tmp_path)) as cache:
        assert cache.size_limit == 1


STRANGE = {
    "a table": ["CREATE TABLE Foreigner (x)"],
    "a view": ["CREATE VIEW Foreigner AS SELECT 1"],
    "a view in the place of the rows": [
        *(
            "DROP TRIGGER Settings_" + name
            for name in ("count_insert", "count_delete", "size_insert", "size_update", "size_delete")
        ),
        "DROP TABLE Cache",
        "CREATE VIEW Cache AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS rowid, "
        "zeroblob(32) AS key, 1 AS raw, 1.0 AS store_time, NULL AS expire_time, zeroblob(16) AS tag, 1 AS size, "
        "1 AS mode, NULL AS filename, zeroblob(1000) AS value FROM n",
    ],
    "a trigger that deletes": ["CREATE TRIGGER t AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END"],
    "a trigger without end": [
        "CREATE TRIGGER t AFTER DELETE ON Cache BEGIN INSERT INTO Cache (key, raw, tag) VALUES (OLD.key, 1, OLD.tag); END"
    ],
    "a trigger under the name of one of ours": [
        "DROP TRIGGER Settings_count_insert",
        "CREATE TRIGGER Settings_count_insert AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
    ],
    "settings that are none": ["DROP TABLE Settings", "CREATE TABLE Settings (x)"],
    "settings without names": [
        "DROP TABLE Settings",
        "CREATE TABLE Settings (key, value)",
        "INSERT INTO Settings VALUES (NULL, 1)",
    ],
    "settings named twice": [
        *(
            "DROP TRIGGER Settings_" + name
            for name in ("count_insert", "count_delete", "size_insert", "size_update", "size_delete")
        ),
        "CREATE TABLE Other AS SELECT * FROM Settings",
        "DROP TABLE Settings",
        "ALTER TABLE Other RENAME TO Settings",
        "INSERT INTO Settings SELECT * FROM Settings",
    ],
    "a counter that is text": ["UPDATE Settings SET value = 'many' WHERE key = 'count'"],
    "a setting of 100 MB": ["INSERT INTO Settings VALUES ('huge', zeroblob(100000000))"],
    "rows of another shape": ["DROP TABLE Cache", "CREATE TABLE Cache (key, value)"],
}


@pytest.mark.parametrize("strange", STRANGE)
def test_a_database_that_is_not_ours_is_set_aside_r10(strange, folder):
    plant(folder, *STRANGE[strange])
    with Warnings(folder) as warned:
        used(folder)
    assert len(warned.texts) == 1 and "was damaged" in warned.texts[0]
    assert len([path for path in folder.iterdir() if path.name.startswith("set-aside-")]) <= 1


def test_half_of_a_database_that_another_process_is_making_is_no_damage_r1(folder):
    plant(folder, "DROP TABLE Cache", "DELETE FROM Settings WHERE key > 'd'")
    with Warnings(folder) as warned:
        used(folder)
    assert warned.texts == []


def peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("column", ["value", "key", "tag", "filename"])
def test_a_row_over_the_cap_is_never_read_into_memory_r12(column, folder):
    huge = "zeroblob(40000000)" if column != "filename" else "CAST(zeroblob(40000000) AS TEXT)"
    plant(folder, (f"UPDATE Cache SET {column} = {huge} WHERE key = ?", (row(folder),)))
    began = time.perf_counter()
    assert peak(lambda: used(folder)) < 2 * LARGEST + 2**21
    assert time.perf_counter() - began < 30


def test_the_check_of_memory_can_fail_r12(folder):
    plant(folder, "UPDATE Cache SET value = zeroblob(20000000)")

    def naive():
        with contextlib.closing(sqlite3.connect(folder / "results" / "cache.db")) as plain:
            plain.execute("SELECT value FROM Cache").fetchone()

    assert peak(naive) > 2 * LARGEST + 2**21


def test_a_record_over_the_cap_is_not_written_and_counted_r12(tmp_path):
    store = Disk(tmp_path / "store", key=KEY)
    store.put(a_key(), entry(store, value="x" * LARGEST))
    store.put(a_key("fits"), entry(store, value="x" * (LARGEST - 1000)))
    store.flush()
    assert store.counts()["stored"] == 1
    assert sum(store.counts().values()) == 2
    store._memory.close()
    assert store.get(a_key()) is None
    assert store.get(a_key("fits")).value == "x" * (LARGEST - 1000)
    store.close()


def test_a_reader_gives_up_a_table_without_end_r12(folder):
    store = Disk(folder, key=KEY)
    store.get(a_key())
    plant(folder, *STRANGE["a view in the place of the rows"])
    store._memory.close()
    store._reader.close()
    began = time.perf_counter()
    assert store.get(a_key("another")) is None
    assert time.perf_counter() - began < 5
    store.close()


def test_cells_and_names_come_back_as_they_were(tmp_path):
    store = Disk(tmp_path / "store", key=KEY)
    strange = entry(store, cells=read_cells(resources("a:*")), tool="\ud800", conversation="a\0b")
    store.put(a_key(), strange)
    store.flush()
    store._memory.close()
    assert store.get(a_key()) == strange
    store.close()
