"""R19, R36, R37: what was purged, marked or secret stays so, in every process and after a restart."""

import sqlite3
import threading

import pytest
from disk_kit import KEY, agents, files, run

from ibidem import Guard, Pure, Read, wrap
from ibidem.stores.disk import Disk
from ibidem.stores.keeper import Keeper
from ibidem.testing import a_key, an_entry


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def two(folder):
    stores = Disk(folder, key=KEY), Disk(folder, key=KEY)
    yield stores
    for store in stores:
        store.close()


def entry(store, **changes):
    return an_entry(**{"snapshot": store.stamps.now(), "stored_at": store.now(), "ttl": None, **changes})


def everything(*_):
    return True


# -- purges -----------------------------------------------------------------------------------------------------------


def test_a_purge_is_seen_by_another_process_at_its_next_call_r37(two):
    one, other = two
    other.put(a_key(), entry(other))
    other.flush()
    assert other.get(a_key()) is not None
    assert one.forget(everything) == 1
    assert list(other.entries()) == []
    assert other.get(a_key()) is None


@pytest.mark.parametrize(("by", "left"), [({"tool": "pay"}, {"look"}), ({"conversation": "2"}, {"pay"}), ({}, set())])
def test_a_purge_takes_what_it_names_from_memory_and_disk_r37(by, left, two):
    one, other = two
    one.put(a_key("a"), entry(one, tool="pay", conversation="1"))
    one.put(a_key("b"), entry(one, tool="look", conversation="2"))
    one.flush()
    assert len(list(other.entries())) == 2
    assert Guard(store=other).forget(**by) == 2 - len(left)
    for store in two:
        assert {found.tool for _, found in store.entries()} == left
        assert {key.arguments for key, _ in store.entries()} == {
            key for key in (b"a", b"b") if store.get(a_key(key.decode()))
        }


def test_entries_say_where_they_come_from_and_when_r37(two):
    one, other = two
    one.put(a_key(), entry(one, tool="pay", conversation="7"))
    one.flush()
    (found,) = Guard(store=other).entries()
    assert (found.tool, found.conversation) == ("pay", "7")
    assert 0 <= found.age < 60


def test_what_was_fetched_while_a_purge_ran_is_not_served_after_it_r37(two):
    """Between the number of the purge and the deletion another process reads the row into its memory."""
    one, other = two
    one.put(a_key(), entry(one))
    one.flush()
    fetched = []

    def unwanted(*_):
        fetched.append(other.get(a_key()))
        return True

    one._memory.close()
    one.forget(unwanted)
    assert fetched[-1] is not None, "nothing was fetched in between: the test shows nothing"
    assert other.get(a_key()) is None


def test_a_write_that_began_before_a_purge_does_not_outlive_it_r37(two, monkeypatch):
    one, other = two
    one.flush()
    looked, go_on = threading.Event(), threading.Event()
    write = Keeper._write

    def slow(self, database, rows, *rest):
        if self is other._keeper and rows:
            inner = database.write
            database.write = lambda allowed: inner(paused(allowed))
        return write(self, database, rows, *rest)

    def paused(allowed):
        for row in allowed:  # the number of the last purge has been looked at, and the lock is held
            looked.set()
            go_on.wait(5)
            yield row

    monkeypatch.setattr(Keeper, "_write", slow)
    other.put(a_key(), entry(other))
    assert looked.wait(5)
    threading.Timer(0.2, go_on.set).start()
    one.forget(everything)
    other.flush()
    fresh = Disk(one.path, key=KEY)
    assert fresh.get(a_key()) is None
    fresh.close()


def test_what_is_put_while_a_purge_passes_is_not_kept_r37(two):
    one, _ = two
    keep = one._memory.put

    def late(key, kept):
        one.stamps.purge()
        return keep(key, kept)

    one._memory.put = late
    assert one.put(a_key(), entry(one)) is False
    assert one.get(a_key()) is None


def test_what_was_purged_stands_in_no_file_r37(folder):
    store = Disk(folder, key=KEY)
    for n in range(50):
        store.put(a_key(f"{n}"), entry(store, value=f"a very private value {n}" * 20))
    store.flush()
    assert any(b"a very private value" in text for text in files(folder).values()), "the control: it can be found"
    store.forget(everything)
    store.close()
    assert not any(b"a very private value" in text for text in files(folder).values())


def test_what_was_set_aside_is_purged_too_r37(folder):
    store = Disk(folder, key=KEY)
    store.put(a_key(), entry(store, value="a very private value"))
    store.flush()
    store.close()
    with sqlite3.connect(folder / "results" / "cache.db") as plain:
        plain.execute("CREATE TABLE Foreigner (x)")
    plain.close()
    store = Disk(folder, key=KEY)
    store.flush()
    store.put(a_key("new"), entry(store))
    store.flush()
    assert list(folder.glob("set-aside-*"))
    store.forget(everything)
    store.close()
    assert not list(folder.glob("set-aside-*"))


def test_a_purge_that_cannot_be_carried_out_says_so_r37(folder, monkeypatch):
    monkeypatch.setattr("ibidem.stores.keeper.TRIES", 0.1)
    store = Disk(folder, key=KEY)
    (folder / "results").write_text("no folder")
    with pytest.raises(TimeoutError):
        store.forget(everything)
    store.close()


# -- secrets ----------------------------------------------------------------------------------------------------------


def kept(folder, effect):
    store = Disk(folder, key=KEY)

    def look(user, password):
        return f"hello {user}"

    wrapped = wrap(effect(look), Guard(store=store).bind(conversation="1"))
    wrapped("plain-argument", "s3cr3t-argument")
    wrapped("plain-argument", "s3cr3t-argument")
    store.flush()
    found = files(folder)  # the write-ahead log too: the store is open
    assert store.counts()["stored"] == 1
    store.close()
    return b"".join([*found.values(), *files(folder).values()])


def hexed(text):
    return text.encode().hex().encode()


@pytest.mark.parametrize("effect", [Read, Pure])
def test_a_secret_argument_stands_in_no_file_r36(effect, folder):
    found = kept(folder, effect(secret=["password"], identity="look"))
    assert b"s3cr3t-argument" not in found and hexed("s3cr3t-argument") not in found
    assert b"plain-argument" in found, "the control: what is not secret can be found"
    assert hexed("plain-argument") in found


def test_the_check_for_secrets_can_fail_r36(folder):
    assert hexed("s3cr3t-argument") in kept(folder, Read(identity="look"))


def test_what_is_encrypted_stands_in_no_file_and_another_key_misses(folder):
    pytest.importorskip("cryptography")
    store = Disk(folder, key=KEY, encrypt="an encryption key, long enough")
    store.put(a_key("private-argument"), entry(store, value="private-value", conversation="private-conversation"))
    store.flush()
    text = b"".join(files(folder).values())
    assert b"private" not in text and hexed("private") not in text
    store.close()
    for options in ({}, {"encrypt": "another encryption key, long"}):
        other = Disk(folder, key=KEY, **options)
        assert other.get(a_key("private-argument")) is None
        assert list(other.entries()) == []
        other.close()
    again = Disk(folder, key=KEY, encrypt="an encryption key, long enough")
    assert again.get(a_key("private-argument")).value == "private-value"
    again.close()


# -- marks ------------------------------------------------------------------------------------------------------------

GRAPH = """
    import sys
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode
    from langgraph.types import Command, interrupt
    from langchain_core.messages import AIMessage
    from langchain_core.tools import tool
    import ibidem
    from ibidem import Guard, Pure
    from ibidem.stores.disk import Disk
    asks = sys.argv[2] == "asks"
    ran = []

    @tool
    def pay(amount: int) -> str:
        "Pay."
        ran.append(amount)
        if asks:
            return f"{amount}: {interrupt('sure?')}"
        return f"{amount}: done"

    store = Disk(sys.argv[1], key="a key of the tests, long enough")
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([pay]))
    builder.add_edge(START, "tools")
    guard = Guard(effects={"pay": Pure(identity="pay", scope="shared")}, store=store)
    graph = ibidem.wrap(builder.compile(checkpointer=InMemorySaver()), guard)
    answers = []
    for thread in sys.argv[3]:
        config = {"configurable": {"thread_id": thread}}
        call = {"name": "pay", "args": {"amount": 5}, "id": "A" + thread, "type": "tool_call"}
        found = graph.invoke({"messages": [AIMessage("", tool_calls=[call])]}, config)
        if asks:
            found = graph.invoke(Command(resume="YES" + thread), config)
        answers.append(found["messages"][-1].content)
    store.flush()
    print(len(ran), store.counts().get("stored", 0), "; ".join(answers))
    store.close()
"""


def test_a_tool_that_asked_is_never_remembered_after_a_restart_r19(folder):
    assert run(GRAPH, folder, "asks", "1") == "2 0 5: YES1"
    assert run(GRAPH, folder, "does not ask", "23") == "2 0 5: done; 5: done", "it is marked, whatever it does now"


def test_the_check_for_marks_can_fail_r19(folder):
    assert run(GRAPH, folder, "does not ask", "23") == "1 1 5: done; 5: done"


def test_an_answer_is_never_replayed_with_the_marks_deleted_r19(folder):
    assert run(GRAPH, folder, "asks", "1") == "2 0 5: YES1"
    (folder / "marks").unlink()
    assert run(GRAPH, folder, "asks", "23") == "4 0 5: YES2; 5: YES3"


def test_a_mark_is_seen_by_another_process_at_once_r19(two):
    one, other = two
    assert not other.marked("pay")
    one.mark("pay")
    assert other.marked("pay")
    assert not other.marked("look")


def test_a_mark_is_seen_while_the_lock_is_held_r19(two):
    one, other = two
    with one._member.locked():
        other.mark("pay")
        assert one.marked("pay")


def test_a_mark_of_a_process_that_cannot_join_is_seen_by_those_who_have_r19(folder, two):
    one, _ = two
    with one._member.locked():
        late = Disk(folder, key=KEY)
        assert not late.stamps.shared
    late.mark("pay")
    assert one.marked("pay")
    late.close()


def test_a_tool_is_taken_for_marked_while_the_marks_are_being_read_r19(folder, two, monkeypatch):
    one, _ = two
    one.mark("pay")
    late = Disk(folder, key=KEY)
    seen = []

    def slow(path):
        text = path.read_bytes()
        if not seen:
            seen.append(None)
            seen[0] = late.marked("pay")
        return text

    monkeypatch.setattr("ibidem.stores.marks._contents", slow)
    assert late.marked("pay")
    assert seen == [True]
    late.close()


def test_a_spoilt_line_spoils_no_other_mark_r19(folder, two):
    one, other = two
    one.mark("pay")
    with (folder / "marks").open("ab") as file:
        file.write(b'"half of a na')
    one.mark("look")
    late = Disk(folder, key=KEY)
    assert late.marked("pay") and late.marked("look") and not late.marked("half of a na")
    late.close()


def test_two_agents_of_one_world_see_each_other(folder):
    """What the other tests rest on."""
    with agents(folder, 2) as (world, one, other):
        one.write()
        assert one.read() == 1
        one.store.flush()
        assert other.read() == 1
        assert world.reads == 1
