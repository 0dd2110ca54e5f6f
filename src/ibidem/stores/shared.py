"""Shared stamps: the stamps of a `Disk`, the same for every process that uses it.

What stands where: `board.py` has the numbers, `journals.py` what each process has under way, `membership.py` which of both
are used now. Here they become what `core/stamps.py` describes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from hashlib import blake2b

from ibidem.core import forks
from ibidem.core.resources import Cell
from ibidem.stores.board import (
    FIRST,
    HEALED,
    HINTS,
    LOOK,
    MARKS,
    PROCESSES,
    PURGED,
    SEQUENCE,
    SLOTS,
    VOIDED,
    Gone,
    new_number,
)
from ibidem.stores.journals import SUM
from ibidem.stores.membership import Membership


class _Slots(dict[Cell, int]):
    """The word of each cell; found once, and kept for cells that come again."""

    _LIMIT = 1 << 16

    def __init__(self) -> None:
        super().__init__()
        self._own = secrets.token_hex(8)

    def __missing__(self, cell: Cell) -> int:
        # A run and a process are numbered in each process: theirs are not ours.
        name = (*cell, self._own) if cell[0] == "conversation" and cell[1] != "thread" else cell
        text = "\0".join(name).encode("utf-8", "surrogatepass")
        slot = FIRST + int.from_bytes(blake2b(text, digest_size=8).digest(), "little") % SLOTS
        if len(self) >= self._LIMIT:
            self.clear()
        self[cell] = slot
        return slot


class SharedStamps:
    """Stamps of all processes that use one folder.

    Args:
        member: This process's part in it.
    """

    def __init__(self, member: Membership) -> None:
        self._member = member
        self._slots = _Slots()
        self._look_at = 0.0
        forks.after(self)

    def _after_fork(self) -> None:
        """Tell the runs of this process from those of its parent."""
        self._slots = _Slots()

    # -- what stamps are asked ------------------------------------------------------------------------------------------

    def now(self) -> int:
        return (self._member.words or self._member.attach().words)[SEQUENCE]

    def fresh(self, cells: Iterable[Cell], snapshot: int) -> bool:
        words = self._member.words
        if words is None or time.monotonic() > self._look_at:
            words = self._look()
        if words[VOIDED] != words[HEALED]:
            return not cells or (self._heal() and self.fresh(cells, snapshot))
        if snapshot == words[SEQUENCE]:
            return True
        slots = self._slots
        for cell in cells:  # noqa: SIM110  # three times as fast as all() with a generator, and on every hit
            if words[slots[cell]] > snapshot:
                return False
        return True

    def still(self, cells: Iterable[Cell]) -> bool:
        counts, slots = self._member.counts, self._slots
        if counts[SUM] and any(counts[slots[cell]] for cell in cells):
            return False
        return self.alone(cells)

    def alone(self, cells: Iterable[Cell]) -> bool:
        member, slots = self._member, self._slots
        words = member.words or member.attach().words
        if words[PROCESSES] != member.processes and not member.look_around():
            return False
        for other in member.others:
            if other.counts[SUM] and any(other.counts[slots[cell]] for cell in cells) and not member.bury(other):
                return False
        return True

    def touch(self, cells: Iterable[Cell]) -> None:
        slots = self._slots
        self._raise([slots[cell] for cell in cells])

    def open(self, raised: Iterable[Cell], held: Iterable[Cell]) -> SharedOpening:
        slots = self._slots
        change = SharedOpening(self, [slots[cell] for cell in held])
        self._member.count(change._held, 1)
        self._raise([slots[cell] for cell in raised])
        return change

    def _close(self, held: list[int], life: object, raised: Iterable[Cell]) -> None:
        # Raise before letting go: a read that finds the cells still must also find them above its snapshot.
        self.touch(raised)
        if life is self._member.life:  # a fork inside a change has let go of it already
            self._member.count(held, -1)

    def _raise(self, slots: Iterable[int]) -> None:
        """Raise some words for everybody, or see to it that nothing is fresh for anybody."""
        member = self._member
        board, words = member.attached()
        for _ in range(3):
            try:
                board.acquire(0 if words[VOIDED] != words[HEALED] else None)
            except TimeoutError:
                break
            except Gone:
                member.attach_anew(board)
                board, words = member.attached()
                continue
            try:
                if board.path is not None or words[VOIDED] == words[HEALED]:
                    board.raise_(slots)
            finally:
                board.release()
            member.tell_others(VOIDED)
            return
        board.void()
        member.tell(f"{member.folder}: another process holds its lock; nothing is served until it lets go")

    # -- when something is wrong ------------------------------------------------------------------------------------------

    def _look(self) -> memoryview:
        """See whether the folder is still the one that we use."""
        self._look_at = time.monotonic() + LOOK
        board, words = self._member.attached()
        self._member.mind_others(board)
        if not board.moved:
            return words
        self._member.attach_anew(board)
        return self._member.attached()[1]

    def _heal(self) -> bool:
        """Raise everything, if nobody holds the lock, since somebody could not record a change."""
        board, _ = self._member.attached()
        if board.path is None:
            return False
        try:
            with board.locked(0):
                board.raise_(())
        except TimeoutError:
            return False
        except Gone:
            self._member.attach_anew(board)
        return True

    # -- what else the board tells ----------------------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether other processes see these stamps, and we theirs."""
        return self._member.shared

    @property
    def incarnation(self) -> bytes:
        """The name of this life of the store: no entry of another is believed."""
        return self._member.attached()[0].incarnation

    @property
    def purged_at(self) -> int:
        """The number of the last purge: what was read before it is not kept."""
        return (self._member.words or self._member.attach().words)[PURGED]

    def may_hold(self, row: bytes) -> bool:
        """Whether the database may hold a row. Never wrong with a no, but for rows written at this very moment."""
        return (self._member.board or self._member.attach()).hints[hint_of(row)] != 0

    def will_hold(self, row: bytes) -> None:
        """Say that a row is about to be written."""
        self._member.attached()[0].hints[hint_of(row)] = 1

    def say_marked(self) -> None:
        """Let the others look for a new mark. It takes no lock: a mark must not be lost to a process that holds it."""
        self._look()[MARKS] = new_number()
        self._member.tell_others(MARKS)

    def purge(self) -> None:
        """Let no process keep what it has read so far, and has not stored yet.

        Raises:
            TimeoutError: Another process holds the lock.
        """
        with self._member.locked() as board:
            board.words[PURGED] = board.raise_(())

    def renew(self) -> None:
        """Begin a new life of the store: the database was lost, and what is found of it is not believed.

        Raises:
            TimeoutError: Another process holds the lock.
        """
        with self._member.locked() as board:
            board.renew()


def hint_of(row: bytes) -> int:
    """Give the place of a row among the hints."""
    return (row[0] << 16 | row[1] << 8 | row[2]) % HINTS


class SharedOpening:
    """A change under way, in this process, that all see."""

    __slots__ = ("_held", "_life", "_stamps")

    def __init__(self, stamps: SharedStamps, held: list[int]) -> None:
        self._stamps: SharedStamps | None = stamps
        self._held = held
        self._life = stamps._member.life

    def close(self, cells: Iterable[Cell]) -> None:
        stamps, self._stamps = self._stamps, None
        if stamps is not None:
            stamps._close(self._held, self._life, cells)
