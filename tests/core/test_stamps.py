"""Stamps: the invariants that make a hit exact, under schedules that are made, not hoped for."""

from ibidem.core.stamps import MemoryStamps
from ibidem.testing import read_cells, resources, write_cells

A = read_cells(resources("a"))
RAISED = write_cells(resources("a"))


class Spying(dict):
    """Cells that tell of each change while it is made."""

    def __init__(self, tell):
        self.tell = tell

    def __setitem__(self, cell, number):
        super().__setitem__(cell, number)
        self.tell(cell, number)


def test_a_cell_is_raised_before_the_sequence_shows_its_number():
    """The other way round a read could begin after a change, by its number, and not see it."""
    stamps, seen = MemoryStamps(), []

    def look(cell, number):
        seen.append(cell)
        assert stamps.now() < number, "a read that begins now must not count this change as seen"

    stamps._cells = Spying(look)
    stamps.touch(RAISED)
    change = stamps.open(RAISED, RAISED)
    change.close(RAISED)
    assert len(seen) == 3 * len(RAISED)


def test_a_read_that_begins_anywhere_in_a_change_is_not_fresh_after_it():
    for moment in range(len(RAISED)):
        stamps, snapshots = MemoryStamps(), []
        stamps._cells = Spying(lambda cell, number: snapshots.append(stamps.now()))
        stamps.touch(RAISED)
        assert not stamps.fresh(A, snapshots[moment])


def test_a_change_that_closes_is_raised_before_it_is_let_go():
    """A read that finds nothing under way must find what it touched above its snapshot."""
    stamps = MemoryStamps()
    change = stamps.open(RAISED, RAISED)
    snapshot, seen = stamps.now(), []
    stamps._cells = Spying(lambda cell, number: seen.append(stamps.still(A)))
    change.close(RAISED)
    assert seen and not any(seen)
    assert stamps.still(A) and not stamps.fresh(A, snapshot)


def test_a_change_that_opens_is_held_before_it_is_raised():
    stamps, seen = MemoryStamps(), []
    stamps._cells = Spying(lambda cell, number: seen.append(stamps.still(A)))
    stamps.open(RAISED, RAISED)
    assert seen and not any(seen)


def test_folding_at_any_moment_forgets_too_much_never_too_little():
    stamps = MemoryStamps(limit=5)
    for n in range(200):
        before = stamps.now()
        stamps.touch(write_cells(resources(f"x:{n % 7}")))
        assert not stamps.fresh(read_cells(resources(f"x:{n % 7}")), before)
        assert stamps.fresh(read_cells(resources(f"x:{n % 7}")), stamps.now())
    assert len(stamps._cells) <= 5 + 4


def test_a_lookup_that_folding_interrupts_is_not_fresh():
    """It has the old cells in hand when all are folded: the floor must tell it."""
    stamps = MemoryStamps(limit=0)
    stamps.touch(write_cells(resources("b")))
    snapshot = stamps.now()
    old = stamps._cells

    class Interrupting:
        def get(self, cell, default):
            return old.get(cell, default)

    stamps._cells = Interrupting()
    get = stamps._cells.get
    stamps._cells = old
    stamps.touch(RAISED)  # folds
    assert get(("node", "a"), stamps._floor) > snapshot


def test_a_forked_child_forgets_and_lets_go():
    stamps = MemoryStamps()
    change, snapshot = stamps.open(RAISED, RAISED), stamps.now()
    stamps._after_fork()
    assert stamps.still(A) and not stamps.fresh(A, snapshot)
    again = stamps.open(RAISED, RAISED)
    change.close(RAISED)
    assert not stamps.still(A), "the parent's change must not end the child's"
    again.close(RAISED)
    assert stamps.still(A)
