"""Membership: taking part in a store's folder, and knowing who else does.

A member has the board mapped and a journal of its own (`board.py`, `journals.py`). Attaching is one step that can be taken
again at any time: after a fork, after `detach`, and when the folder was deleted under us. Where it fails, the board is this
process's own, `shared` says so, and the store works from memory; where others may have a board, of whose changes this
process does not learn, nothing that can change is remembered even there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ibidem.core import forks
from ibidem.stores import folders
from ibidem.stores.board import (
    PATIENCE,
    PROCESSES,
    SEQUENCE,
    VOIDED,
    Board,
    Gone,
    Unavailable,
    renumber,
)
from ibidem.stores.journals import SIZE as JOURNAL_SIZE
from ibidem.stores.journals import SUM, Journal, others


class Membership:
    """This process's part in one folder.

    Args:
        folder: Where the files are.
        tell: Told, once each, what does not work and what follows from it.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.tell = tell
        self._last = (b"", 0)
        self._start()
        forks.after(self)
        self.attach()

    def _start(self) -> None:
        self._lock = threading.RLock()
        self.life = object()
        """Another one after a fork."""
        self.counts = memoryview(bytearray(JOURNAL_SIZE)).cast("I")
        """What this process has under way, by slot."""
        self.words: memoryview | None = None
        """Of the board; None while detached."""
        self.board: Board | None = None
        """What is mapped; None while detached."""
        self._own: Journal | None = None
        self._left: Journal | None = None
        """A journal of ours without our taking part: of before we let go, while changes were under way, or because we could
        not join. It speaks for them until there is another."""
        self.others: list[Journal] = []
        self.processes = -1
        """The number at which the others were last looked for."""

    def _after_fork(self) -> None:
        """Begin anew with files of our own: an inherited descriptor shares the lock of the parent's."""
        self._remember()
        for held in (self.board, self._own, self._left, *self.others):
            if held is not None:
                held.let_go()
        self._start()

    def _remember(self) -> None:
        if self.board is not None:
            self._last = self.board.incarnation, self.board.words[SEQUENCE]

    # -- coming and going -----------------------------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether other processes see what this one does, and it what they do."""
        self.attached()
        return self._own is not None

    def attached(self) -> tuple[Board, memoryview]:
        """Give the board and its words; attach if need be."""
        board = self.board
        if board is None or self.words is None:
            board = self.attach()
        return board, board.words

    def attach(self) -> Board:
        """Use the files of the folder; make what is not there."""
        with self._lock:
            if self.board is not None and self.words is not None:
                return self.board
            board: Board | None = None
            try:
                folders.make(self.folder)
                folders.check(self.folder)  # again: it may have been deleted, and made by somebody else
                board = Board(self.folder / "stamps", self._last)
                with board.locked(PATIENCE):
                    self._own = self._join(board)
            except (Unavailable, Gone, OSError, ValueError) as problem:
                if board is not None:
                    board.let_go()
                board = Board(None, self._last)
                self.mind_others(board)
                self._speak()
                self.tell(f"{self.folder}: cannot be shared with other processes ({problem}); working from memory")
            self.processes = -1
            self.board = board
            self.words = board.words
            return board

    def _join(self, board: Board) -> Journal:
        """Take part: end what dead processes left open, and make a journal of our own. The lock is held."""
        folder = self.folder / "open"
        folder.mkdir(mode=0o700, exist_ok=True)
        listed = set(folder.iterdir())
        known = others(folder, (), None)
        try:
            dead = [journal for journal in known if journal.abandoned()]
            board.begin(_boot(), alone=len(dead) == len(known))
            for journal in dead:
                board.raise_(journal.open_slots)
                journal.remove()
        finally:
            for journal in known:
                journal.let_go()
        for path in listed - {journal.path for journal in known}:
            path.unlink(missing_ok=True)  # what could not be read is of one who died while making it
        own = Journal.make(folder)
        own.counts[:] = self.counts
        self.counts = own.counts
        if self._left is not None:
            self._left.remove()
            self._left = None
        board.words[PROCESSES] += 1
        return own

    def _speak(self) -> None:
        """Let the others see what we have under way, though we cannot take part: we may die in the middle of it."""
        stamps, folder = self.folder / "stamps", self.folder / "open"
        if not os.path.lexists(stamps):
            return
        with contextlib.suppress(OSError):
            folders.check(self.folder)
            if self._left is None or not self._left.path.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
                self._left = Journal.make(folder)
            self._left.counts[:] = self.counts
            self.counts = self._left.counts
            renumber(stamps, PROCESSES)

    def detach(self) -> None:
        """Let go of the files; what is asked afterwards attaches anew."""
        with self._lock:
            self._remember()
            board, own, self._own = self.board, self._own, None
            counts = memoryview(bytearray(JOURNAL_SIZE)).cast("I")
            counts[:] = self.counts
            self.counts = counts
            if own is not None and counts[SUM]:
                self._left, own = own, None
            elif self._left is not None and not counts[SUM]:
                self._left.remove()
                self._left = None
            if board is not None and own is not None:
                with contextlib.suppress(Gone, OSError), board.locked(PATIENCE):
                    self._leave(board, own)
            for held in (board, own, *self.others):
                if held is not None:
                    held.let_go()
            self.words = self.board = None
            self.others = []

    def _leave(self, board: Board, own: Journal) -> None:
        """Take no part any more. The lock is held."""
        rest = others(self.folder / "open", (), own)
        own.remove()
        board.words[PROCESSES] += 1
        if all(journal.abandoned() and not journal.counts[SUM] for journal in rest):
            board.end()
        for journal in rest:
            journal.let_go()

    def attach_anew(self, old: Board) -> None:
        """The folder was deleted or replaced: use what is there now."""
        with self._lock:
            if self.board is old:
                old.void()  # for those who still look there
                self.detach()
            self.attach()

    def mind_others(self, board: Board) -> None:
        """See whether others may share the folder without us; then nothing is fresh here, as long as we cannot join."""
        if board.path is None and os.path.lexists(self.folder / "stamps"):  # whatever stands there
            board.void()

    def tell_others(self, word: int) -> None:
        """Write a new number into a word of the board, for those who share the folder where we could not join them."""
        if self._own is None:
            try:
                renumber(self.folder / "stamps", word)
            except OSError as problem:
                if problem.errno in (errno.EMFILE, errno.ENFILE) and word == VOIDED:
                    with contextlib.suppress(OSError):  # this takes no descriptor; they notice, and begin anew
                        (self.folder / "stamps").unlink()

    def count(self, slots: Iterable[int], by: int) -> None:
        """Count changes of some slots as begun, or with -1 as ended."""
        with self._lock:
            self.attached()
            counts = self.counts
            for slot in slots:
                # The sum first when it grows and last when it falls: who finds none may skip the rest.
                if by > 0:
                    counts[SUM] += 1
                    counts[slot] += 1
                else:
                    counts[slot] -= 1
                    counts[SUM] -= 1

    def look_around(self) -> bool:
        """Find the journals of the others; False if that cannot be done now."""
        with self._lock:
            board, words = self.attached()
            processes = words[PROCESSES]
            if self._own is not None:
                try:
                    self._own.path.stat()  # deleted, it speaks to nobody who comes later
                    self.others = others(self.folder / "open", self.others, self._own)
                except FileNotFoundError:
                    self.attach_anew(board)
                    return False
                except OSError:
                    return False
            self.processes = processes
            return True

    def bury(self, journal: Journal) -> bool:
        """End what a process left open when it died; False if it lives."""
        board, words = self.attached()
        with contextlib.suppress(Gone, OSError), board.locked(0):
            if not journal.abandoned():
                return False
            board.raise_(journal.open_slots)
            journal.remove()
            words[PROCESSES] += 1
            return True
        return False

    @contextlib.contextmanager
    def locked(self, patience: float = 4 * PATIENCE) -> Iterator[Board]:
        """Hold the lock of the board for a block.

        Args:
            patience: Seconds to wait for it.

        Raises:
            TimeoutError: Another process holds it.
        """
        board = self._acquired(patience)
        try:
            yield board
        finally:
            board.release()

    def _acquired(self, patience: float) -> Board:
        for _ in range(3):
            board, _ = self.attached()
            try:
                board.acquire(patience)
            except Gone:
                self.attach_anew(board)
            else:
                return board
        raise TimeoutError(f"{self.folder} is replaced again and again")


def _boot() -> bytes | None:
    """Name the time since this machine started; None where that cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()[:64].ljust(64, b"\0")
    except OSError:
        return None
