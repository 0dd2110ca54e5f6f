"""One folder, several processes: what one does the others see; and folders that are copied, restored, replaced or rebooted."""

import os
import shutil
import sqlite3
import time

import pytest
from disk_kit import delete
from langgraph.errors import GraphInterrupt

from ibidem import Guard, Read, Write, wrap
from ibidem.stores import board, membership
from ibidem.stores.board import CLEAN, LOOK
from ibidem.stores.disk import Disk
from ibidem.testing import Clock, a_key, an_entry, read_cells, resources, write_cells
from processes import KEY, children


def user(pipe, folder):
    """Calls what it is told through a guard; a file in the folder above is the world."""
    guard = Guard(store=Disk(folder, key=KEY))
    world = folder.parent / "world"
    runs = 0

    def read(name, ask=False):
        nonlocal runs
        runs += 1
        if ask:
            raise GraphInterrupt(())
        return world.read_text() if world.exists() else ""

    def write(name, text):
        world.write_text(text)

    def unknown(text):
        world.write_text(text)

    tools = {
        scope: wrap(Read("order:{name}", scope=scope, identity=f"read {scope}", ttl=None)(read), guard)
        for scope in ("conversation", "user", "shared")
    }
    tools["write"] = wrap(Write("order:{name}")(write), guard)
    tools["unknown"] = wrap(unknown, guard)
    for what, conversation, who, arguments in iter(pipe.recv, "end"):
        before = runs
        if what == "flush":
            pipe.send(guard.store.flush())
            continue
        try:
            with guard.conversation(conversation, user=who):
                answer = tools[what](*arguments)
        except GraphInterrupt:
            answer = "asked"
        pipe.send((answer, runs - before))


@pytest.fixture
def two(tmp_path):
    with children(user, (tmp_path / "store",), (tmp_path / "store",)) as (one, other):
        yield one, other


def call(process, what, *arguments, conversation="1", who="ann"):
    return process.ask((what, conversation, who, arguments))


def flush(process):
    process.ask(("flush", None, None, ()))


@pytest.mark.parametrize("scope", ["conversation", "user", "shared"])
def test_what_one_process_read_the_other_is_given_and_a_write_of_either_both_see_at_once(two, scope):
    one, other = two
    assert call(one, scope, "x") == ("", 1)
    flush(one)
    assert call(other, scope, "x") == ("", 0)
    for n, (writes, reads) in enumerate([(one, other), (other, one)] * 5):
        call(writes, "write", "x", f"{n}")
        assert call(reads, scope, "x") == (f"{n}", 1)
        flush(reads)
        assert call(writes, scope, "x") == (f"{n}", 0)


def test_an_undeclared_call_of_one_process_is_seen_by_its_conversation_in_the_other_and_by_no_other(two):
    one, other = two
    for conversation in "12":
        call(other, "conversation", "x", conversation=conversation)
    call(one, "unknown", "new", conversation="1")
    assert call(other, "conversation", "x", conversation="1") == ("new", 1)
    assert call(other, "conversation", "x", conversation="2") == ("", 0)


def test_nobody_elses_results_are_given_in_another_process_r15(two):
    one, other = two
    call(one, "user", "x", who="ann")
    call(one, "conversation", "x", conversation="1")
    flush(one)
    assert call(other, "user", "x", who="ann") == ("", 0)
    assert call(other, "user", "x", who="bob") == ("", 1)
    assert call(other, "conversation", "x", conversation="2") == ("", 1)


def test_a_tool_that_asked_a_person_in_one_process_is_marked_in_the_other_and_after_a_kill_r19(tmp_path, two):
    one, other = two
    assert call(other, "shared", "x") == ("", 1)
    flush(other)
    assert call(one, "shared", "x") == ("", 0)
    assert call(one, "shared", "x", True) == ("asked", 1)
    assert call(other, "shared", "x") == ("", 1)
    one.kill()
    other.kill()
    with children(user, (tmp_path / "store",)) as (later,):
        assert call(later, "shared", "x") == ("", 1)
        assert call(later, "shared", "x") == ("", 1)


# -- processes that die ---------------------------------------------------------------------------------------------------

CELLS, RAISED = read_cells(resources("order:1")), write_cells(resources("order:1"))


def entry(store, value="value"):
    return an_entry(value=value, snapshot=store.stamps.now(), stored_at=store.now(), ttl=None, cells=CELLS)


def opener(pipe, folder):
    """Begins a change, and never ends it."""
    Disk(folder, key=KEY).stamps.open(RAISED, RAISED)
    pipe.send("open")
    pipe.recv()


def test_what_is_read_while_a_process_dies_in_the_middle_of_a_change_is_not_kept(tmp_path):
    store = Disk(tmp_path / "store", key=KEY)
    store.put(a_key(), entry(store, "before"))
    with children(opener, (tmp_path / "store",)) as (dying,):
        assert dying.hear() == "open"
        before, during = store.get(a_key()), store.stamps.now()
        assert before is None or not store.stamps.fresh(CELLS, before.snapshot)
        assert not store.stamps.still(CELLS)
        dying.kill()
        # Still now: the change is over. But what was read meanwhile may be half of it.
        assert not (store.stamps.still(CELLS) and store.stamps.fresh(CELLS, during))
    after = store.stamps.now()
    assert store.stamps.still(CELLS) and store.stamps.fresh(CELLS, after)
    store.close()


def test_a_change_whose_process_died_before_anybody_else_came_is_buried_by_the_next(tmp_path):
    with children(opener, (tmp_path / "store",)) as (dying,):
        assert dying.hear() == "open"
        dying.kill()
    store = Disk(tmp_path / "store", key=KEY)
    assert store.stamps.still(CELLS)
    assert len(os.listdir(tmp_path / "store" / "open")) == 1
    store.close()


def test_a_clock_that_was_moved_back_makes_misses(tmp_path):
    clock = Clock()
    store = Disk(tmp_path / "store", key=KEY, clock=clock)
    store.put(a_key(), entry(store))
    store.flush()
    for now, found in ((999.0, False), (1000.0, True)):
        other = Disk(tmp_path / "store", key=KEY, clock=Clock(now))
        assert (other.get(a_key()) is not None) is found
        other.close()
    clock.move(-1)
    assert store.get(a_key()) is None
    store.close()


# -- reboots --------------------------------------------------------------------------------------------------------------


def holder(pipe, folder):
    """Stores one result and a mark, and waits to be killed, or closes."""
    store = Disk(folder, key=KEY)
    store.put(a_key(), entry(store))
    store.mark("asker")
    store.flush()
    pipe.send("stored")
    pipe.recv()
    store.close()


def reboot(folder):
    """Leave in the board the boot id of another boot, as a machine that was started again finds it."""
    with (folder / "stamps").open("r+b") as file:
        header = file.read(8 * board.FIRST)
        file.seek(header.index(membership._boot()))
        file.write(b"another boot".ljust(64, b"\0"))
        return bool(memoryview(header).cast("Q")[CLEAN])


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("rebooted", [True, False])
def test_after_the_machine_went_down_only_what_was_closed_is_believed(tmp_path, closed, rebooted):
    folder = tmp_path / "store"
    with children(holder, (folder,)) as (process,):
        assert process.hear() == "stored"
        if closed:
            process.tell("close")
            process.join()
    if rebooted:
        assert reboot(folder) is closed
    store = Disk(folder, key=KEY)
    assert (store.get(a_key()) is not None) is (closed or not rebooted)
    assert store.marked("asker")
    store.close()


# -- copies ---------------------------------------------------------------------------------------------------------------


def stored(folder, value="value"):
    """Make a store with one result in it, and close it."""
    store = Disk(folder, key=KEY)
    store.put(a_key(), entry(store, value))
    store.flush()
    store.close()


def served(folder):
    store = Disk(folder, key=KEY)
    found = store.get(a_key())
    store.close()
    return found is not None


def test_a_copied_folder_is_not_believed_and_the_original_is(tmp_path):
    stored(tmp_path / "store")
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    assert not served(tmp_path / "copy")
    assert served(tmp_path / "store")


def test_a_folder_that_was_moved_is_believed(tmp_path):
    stored(tmp_path / "store")
    (tmp_path / "store").rename(tmp_path / "moved")
    assert served(tmp_path / "moved")


def test_a_folder_that_was_deleted_and_restored_from_a_copy_is_not_believed(tmp_path):
    """The file system gives the copy the numbers of the files that were deleted just before."""
    for n in range(5):
        folder, copy = tmp_path / f"store {n}", tmp_path / f"copy {n}"
        stored(folder)
        shutil.copytree(folder, copy)
        store = Disk(folder, key=KEY)
        store.stamps.touch(RAISED)  # of which the copy knows nothing
        store.close()
        delete(folder)
        shutil.copytree(copy, folder)
        assert not served(folder)


def test_a_folder_that_is_replaced_under_a_living_process_ends_what_it_knew(tmp_path):
    folder = tmp_path / "store"
    store = Disk(folder, key=KEY)
    store.put(a_key(), entry(store))
    delete(folder)
    other = Disk(folder, key=KEY)
    other.stamps.touch(RAISED)
    time.sleep(2 * LOOK)
    found = store.get(a_key())
    assert found is None or not store.stamps.fresh(found.cells, found.snapshot)
    change = other.stamps.open(RAISED, RAISED)
    assert not store.stamps.still(CELLS), "they do not see each other"
    change.close(RAISED)
    assert store.stamps.still(CELLS)
    snapshot = other.stamps.now()
    store.stamps.touch(RAISED)
    assert not other.stamps.fresh(CELLS, snapshot)
    for each in (store, other):
        each.close()


def test_a_result_of_a_folder_that_was_replaced_is_not_written_to_the_new_one(tmp_path):
    folder = tmp_path / "store"
    store = Disk(folder, key=KEY)
    snapshot = store.stamps.now()
    delete(folder)
    other = Disk(folder, key=KEY)
    time.sleep(2 * LOOK)
    store.put(a_key(), an_entry(snapshot=snapshot, stored_at=store.now(), ttl=None, cells=CELLS))
    store.flush()
    found = other.get(a_key())
    assert found is None or not other.stamps.fresh(found.cells, found.snapshot)
    for each in (store, other):
        each.close()


def test_a_database_that_is_replaced_by_an_older_one_gives_nothing_that_was_overwritten(tmp_path):
    """Who puts back an older copy of the database alone finds only what the stamps still allow."""
    folder = tmp_path / "store"
    stored(folder, "old")
    shutil.copy(folder / "results" / "cache.db", tmp_path / "older")
    store = Disk(folder, key=KEY)
    store.stamps.touch(RAISED)
    store.put(a_key(), entry(store, "new"))
    store.flush()
    store.close()
    shutil.copy(tmp_path / "older", folder / "results" / "cache.db")
    store = Disk(folder, key=KEY)
    found = store.get(a_key())
    assert found is None or not store.stamps.fresh(found.cells, found.snapshot)
    store.close()


def test_two_stores_of_one_process_close_without_taking_locks_from_each_other(tmp_path):
    one, other = Disk(tmp_path / "store", key=KEY), Disk(tmp_path / "store", key=KEY)
    one.put(a_key("1"), entry(one))
    one.flush()
    other.get(a_key("1"))
    one.close()
    other.put(a_key("2"), entry(other))
    other.flush()
    with sqlite3.connect(tmp_path / "store" / "results" / "cache.db") as database:
        assert database.execute("SELECT count(*) FROM Cache").fetchone() == (2,)
    database.close()
    other.close()
