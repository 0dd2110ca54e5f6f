"""What was acknowledged stays: whatever the other processes of the store open, close, write or begin at that time."""

import collections

import pytest

from ibidem.stores import keeper
from ibidem.stores.disk import Disk
from ibidem.testing import a_key, an_entry, read_cells, resources, write_cells
from processes import KEY, children

ORDER = read_cells(resources("order:1"))


def entry(store, value):
    return an_entry(value=value, snapshot=store.stamps.now(), stored_at=store.now(), ttl=None)


def user_of_a_store(pipe, folder):
    """Does to a store what it is told."""
    store = Disk(folder, key=KEY)
    while True:
        what, *arguments = pipe.recv()
        if what == "put":
            name, value = arguments
            store.put(a_key(name), entry(store, value))
            store.flush()
            pipe.send(dict(store.counts()))
        elif what == "get":
            found = store.get(a_key(*arguments))
            pipe.send(found and found.value)
        elif what == "close":
            store.close()
            pipe.send("closed")


def test_a_process_that_reads_first_and_writes_then_loses_nothing_when_another_closes_r1(tmp_path):
    with children(user_of_a_store, *[(tmp_path / "store",)] * 3) as (one, two, three):
        two.ask(("put", "seed", "0"))
        two.ask(("close",))
        assert one.ask(("get", "seed")) == "0"
        one.ask(("put", "first", "1"))
        two.ask(("put", "other", "2"))
        two.ask(("close",))
        assert one.ask(("put", "last", "3")) == {"stored": 2}
        one.kill()
        assert [three.ask(("get", name)) for name in ("seed", "first", "other", "last")] == ["0", "1", "2", "3"]


def test_processes_that_begin_a_store_at_the_same_time_lose_nothing_r3(tmp_path):
    for round_ in range(3):
        folder = tmp_path / f"store {round_}"
        with children(user_of_a_store, *[(folder,)] * 6) as processes:
            for n, process in enumerate(processes):
                process.tell(("put", f"{n}", n))
            assert [process.hear() for process in processes] == [{"stored": 1}] * 6
            assert [processes[0].ask(("get", f"{n}")) for n in range(6)] == list(range(6))
        assert {path.name for path in folder.iterdir()} == {"stamps", "open", "results"}


def test_a_result_that_waited_does_not_take_the_place_of_a_newer_one_r1(tmp_path):
    slow, quick = Disk(tmp_path / "store", key=KEY), Disk(tmp_path / "store", key=KEY)
    old = an_entry(value="old", snapshot=slow.stamps.now(), stored_at=slow.now(), ttl=None, cells=ORDER)
    incarnation, reasons = slow.stamps.incarnation, collections.Counter()
    encoded = list(slow._keeper._encoded([(a_key(), old)], incarnation, reasons))
    slow.stamps.touch(write_cells(resources("order:1")))
    new = an_entry(value="new", snapshot=quick.stamps.now(), stored_at=quick.now(), ttl=None, cells=ORDER)
    quick.put(a_key(), new)
    quick.flush()
    slow._keeper.ask(lambda thread: thread._do(lambda base: thread._write(base, encoded, incarnation, reasons), 0), 30)
    assert +reasons == {"outdated before it was written": 1}
    found = Disk(tmp_path / "store", key=KEY).get(a_key())
    assert found is not None and found.value == "new"
    for store in (slow, quick):
        store.close()


@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_in_the_place_of_the_database_is_not_followed(tmp_path, monkeypatch, dangling):
    monkeypatch.setattr(keeper, "TRIES", 0.1)
    target = tmp_path / "target"
    if not dangling:
        target.write_bytes(b"somebody's file")
    (tmp_path / "store").mkdir(mode=0o700)
    (tmp_path / "store" / "results").mkdir(mode=0o700)
    (tmp_path / "store" / "results" / "cache.db").symlink_to(target)
    store = Disk(tmp_path / "store", key=KEY)
    store.put(a_key(), entry(store, 1))
    store.flush()
    assert "stored" not in store.counts()
    assert target.exists() is not dangling
    assert dangling or target.read_bytes() == b"somebody's file"
    store.close()
