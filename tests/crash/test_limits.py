"""R3 and R4: every result that was handed over is stored or reported, under contention and when there is no more room."""

import collections
import contextlib
import sqlite3

import pytest

from ibidem.stores.disk import Disk
from ibidem.testing import a_key, an_entry
from processes import KEY, SOAK, children

WRITES = 400 if SOAK else 100


def rows(folder):
    """Count the rows of each conversation."""
    with contextlib.closing(sqlite3.connect(folder / "results" / "cache.db")) as database:
        return dict(database.execute("SELECT tag, count(*) FROM Cache GROUP BY tag"))


def put(store, name, conversation="1", size=200):
    entry = an_entry(
        value="x" * size,
        size=size,
        snapshot=store.stamps.now(),
        stored_at=store.now(),
        ttl=None,
        conversation=conversation,
    )
    return store.put(a_key(name), entry)


def writer(pipe, folder, number):
    """Put results at the same time as others, and tell what became of them."""
    pipe.send("ready")
    pipe.recv()
    store = Disk(folder, key=KEY)
    put_ = sum(put(store, f"{number} {n}") for n in range(WRITES))
    store.flush(60)
    pipe.send((put_, dict(store.counts())))
    store.close()


@pytest.mark.soak
def test_sixteen_processes_drop_nothing_in_silence_r3(tmp_path):
    folder = tmp_path / "store"
    with children(writer, *((folder, number) for number in range(16))) as writers:
        for each in writers:
            assert each.hear() == "ready"
        for each in writers:
            each.tell("go")
        told = [each.hear(120) for each in writers]
        for each in writers:
            each.join()
    assert [(put_, sum(counts.values())) for put_, counts in told] == [(WRITES, WRITES)] * 16
    stored = sum(counts.get("stored", 0) for _, counts in told)
    assert sum(rows(folder).values()) == stored > 8 * WRITES
    store = Disk(folder, key=KEY)
    found = sum(store.get(a_key(f"{number} {n}")) is not None for number in range(16) for n in range(WRITES))
    store.close()
    assert found == stored


def test_all_that_is_put_past_the_limit_is_accounted_for_r4(tmp_path, caplog):
    store = Disk(tmp_path / "store", key=KEY, max_bytes=200_000)
    for n in range(2000):
        put(store, f"{n}", conversation=f"{n // 50}")
        if n % 20 == 19:
            store.flush()
    counts = collections.Counter(store.counts())
    swept = counts.pop("swept: to make room")
    left = rows(tmp_path / "store")
    assert sum(counts.values()) == 2000
    assert sum(left.values()) == counts["stored"] - swept
    assert swept > 1000
    assert [record.getMessage() for record in caplog.records if "max_bytes" in record.getMessage()] != []
    store.close()


def test_whole_conversations_make_room_and_the_oldest_first_r4(tmp_path):
    store = Disk(tmp_path / "store", key=KEY, max_bytes=100_000)
    for n in range(400):
        put(store, f"{n}", conversation=f"{n // 20}")
        store.flush()
    assert store.counts()["stored"] == 400
    left = [store._records.tag(f"{n}") in rows(tmp_path / "store") for n in range(20)]
    whole = [rows(tmp_path / "store").get(store._records.tag(f"{n}"), 0) for n in range(20)]
    assert left == sorted(left) and left[0] is False and left[-1] is True
    assert set(whole) == {0, 20}
    store.close()


def test_a_conversation_that_fills_the_store_alone_is_told_so_r4(tmp_path):
    store = Disk(tmp_path / "store", key=KEY, max_bytes=50_000)
    for n in range(400):
        put(store, f"{n}")
    store.flush()
    counts = store.counts()
    assert counts["stored"] + counts["the store is full: max_bytes"] == 400
    assert sum(rows(tmp_path / "store").values()) == counts["stored"] > 0
    store.close()
