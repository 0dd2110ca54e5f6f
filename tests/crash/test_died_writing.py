"""A process dies in the middle of a write: nobody is given what was read before its change, step by step."""

import asyncio

import pytest

from ibidem import Guard, Read, Write, wrap
from ibidem.stores import journals, membership
from ibidem.stores.disk import Disk
from ibidem.testing import read_cells, resources, write_cells
from processes import KEY, children

EFFECTS = {
    "named": Write("item:x"),
    "named by its result": Write("item:other", also=lambda arguments, result: [("item", "x")]),
}


def writer(pipe, folder, effect):
    """Opens a write, changes the item when it is told to, and never ends."""
    guard = Guard(store=Disk(folder / "store", key=KEY))

    def write():
        pipe.send("open")
        pipe.recv()
        (folder / "x").write_text("new")
        pipe.send("changed")
        pipe.recv()

    pipe.send(guard.store.stamps.shared)
    pipe.recv()
    wrap(EFFECTS[effect](write), guard)()


class Reader:
    """Reads the item through a store of its own; `ran` is counted, and each run waits until it is let go on."""

    def __init__(self, folder):
        (folder / "x").write_text("old")
        self.ran, self.let = 0, asyncio.Event()
        self.let.set()
        self.store = Disk(folder / "store", key=KEY)

        async def read():
            self.ran += 1
            seen = (folder / "x").read_text()
            await self.let.wait()
            return seen

        self.read = wrap(Read("item:x", ttl=None, scope="shared", identity="read")(read), Guard(store=self.store))


@pytest.mark.parametrize("effect", EFFECTS)
def test_what_was_remembered_before_is_not_served_after_a_process_died_in_the_middle_of_a_write_r1(tmp_path, effect):
    async def main():
        reader = Reader(tmp_path)
        with children(writer, (tmp_path, effect)) as (process,):
            assert process.hear() is True
            assert [await reader.read() for _ in range(2)] == ["old"] * 2 and reader.ran == 1
            assert process.ask("go on") == "open"
            assert process.ask("change") == "changed"
            process.kill()
            assert [await reader.read() for _ in range(4)] == ["new"] * 4
            assert reader.ran < 4, "it is remembered again"
        reader.store.close()

    asyncio.run(main())


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_read_under_way_is_not_joined_after_a_process_died_in_the_middle_of_a_write_r1(tmp_path, effect):
    async def main():
        reader = Reader(tmp_path)
        with children(writer, (tmp_path, effect)) as (process,):
            assert process.hear() is True
            assert process.ask("go on") == "open"
            reader.let.clear()
            first = asyncio.create_task(reader.read())
            while not reader.ran:
                await asyncio.sleep(0)
            assert process.ask("change") == "changed"
            process.kill()
            second = asyncio.create_task(reader.read())
            for _ in range(9):
                await asyncio.sleep(0)
            reader.let.set()
            assert await asyncio.gather(first, second) == ["old", "new"]
            assert await reader.read() == "new"
        reader.store.close()

    asyncio.run(main())


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_process_that_could_not_join_is_seen_to_have_died_in_the_middle_of_a_write_r1_r5(tmp_path, effect):
    async def main():
        reader = Reader(tmp_path)
        with children(writer, (tmp_path, effect)) as (process,):
            with reader.store._member.locked():
                assert process.hear() is False, "it could not wait that long, and works from memory"
            assert process.ask("go on") == "open"
            assert [await reader.read() for _ in range(2)] == ["old"] * 2 and reader.ran == 2, "it is not remembered"
            assert process.ask("change") == "changed"
            process.kill()
            assert [await reader.read() for _ in range(4)] == ["new"] * 4
            assert reader.ran < 6, "it is remembered again"
        assert len(list((tmp_path / "store" / "open").iterdir())) == 1, "the dead process has left its journal"
        reader.store.close()

    asyncio.run(main())


# -- what others have under way --------------------------------------------------------------------------------------------


def test_a_change_of_another_process_is_seen_as_another_s_until_it_closes_r1(tmp_path):
    one, other = (Disk(tmp_path / "store", key=KEY) for _ in range(2))
    raised, cells, elsewhere = write_cells(resources("a")), read_cells(resources("a")), read_cells(resources("b"))
    change = one.stamps.open(raised, raised)
    assert one.stamps.alone(cells) and not one.stamps.still(cells)
    assert not other.stamps.alone(cells) and not other.stamps.still(cells)
    assert other.stamps.alone(elsewhere) and other.stamps.still(elsewhere)
    change.close(raised)
    assert other.stamps.alone(cells) and other.stamps.still(cells)
    one.close(), other.close()


@pytest.fixture
def inside_and_outside(tmp_path):
    """Two stores of one folder, of which the second could not join since the first held the lock."""
    inside = Disk(tmp_path / "store", key=KEY)
    with inside._member.locked():
        outside = Disk(tmp_path / "store", key=KEY)
    assert not outside.stamps.shared
    yield inside, outside
    outside.close(), inside.close()


def test_what_a_process_that_could_not_join_has_under_way_is_seen_r1_r5(inside_and_outside):
    inside, outside = inside_and_outside
    raised, cells = write_cells(resources("a")), read_cells(resources("a"))
    change, during = outside.stamps.open(raised, raised), inside.stamps.now()
    assert not inside.stamps.still(cells)
    change.close(raised)
    assert inside.stamps.still(cells) and not inside.stamps.fresh(cells, during)


def test_a_process_that_could_not_join_leaves_nothing_when_it_closes(inside_and_outside, tmp_path):
    inside, outside = inside_and_outside
    assert len(list((tmp_path / "store" / "open").iterdir())) == 2
    outside.close()
    assert [path.name for path in (tmp_path / "store" / "open").iterdir()] == [inside._member._own.path.name]


def test_a_journal_that_is_made_while_another_process_joins_stays(tmp_path, monkeypatch):
    """Made without the lock, it may come at any moment of a joining: half of it may be taken away, and the whole never."""
    first = Disk(tmp_path / "store", key=KEY)
    folder, made, real = tmp_path / "store" / "open", [], membership.others

    def others(*arguments):
        found = real(*arguments)
        if not made:
            made.append(journals.Journal.make(folder))
        return found

    monkeypatch.setattr(membership, "others", others)
    second = Disk(tmp_path / "store", key=KEY)
    assert made[0].path.exists()
    made[0].remove()
    first.close(), second.close()


def test_a_journal_of_which_the_half_is_taken_away_is_made_again(tmp_path, monkeypatch):
    taken, real = [], journals.fill

    def fill(file, size):
        if len(taken) < 3:
            (half,) = tmp_path.iterdir()
            half.unlink()
            taken.append(half)
        real(file, size)

    monkeypatch.setattr(journals, "fill", fill)
    journal = journals.Journal.make(tmp_path)
    assert len(taken) == 3 and list(tmp_path.iterdir()) == [journal.path]
    journal.remove()
