"""Marks: the tools that have asked a person. What they answer is hers, and is never remembered by anybody again.

One line a tool in a file of its own: it outlives the database and every restart. A mark is written before the interrupt
that it is about leaves the tool.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

from ibidem.core.identity import OBJECT
from ibidem.stores.board import MARKS
from ibidem.stores.membership import Membership
from ibidem.stores.shared import SharedStamps


class Marks:
    """The marks of one store.

    Args:
        path: Of the file.
        member: Of the store; a word of the board changes when there is something new.
        stamps: Of the store; they let the others look.
        tell: Told if a mark cannot be kept.
    """

    def __init__(self, path: Path, member: Membership, stamps: SharedStamps, tell: Callable[[str], None]) -> None:
        self._path = path
        self._member = member
        self._stamps = stamps
        self._tell = tell
        self._known: set[str] = set()
        self._words: memoryview | None = None
        self._seen = 0

    def __contains__(self, identity: str) -> bool:
        words = self._member.words
        unknown = words is None or words is not self._words or words[MARKS] != self._seen
        if unknown and not self._read():
            return True  # it is not known now: better run than replayed
        return identity in self._known

    def add(self, identity: str) -> None:
        """Mark a tool, in this process and on the disk."""
        self._read()
        if identity in self._known:
            return
        self._known.add(identity)
        if identity.startswith(OBJECT):
            return
        try:
            # In lines of its own: whoever died in the middle of one before us has spoilt none but his.
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as lines:
                lines.write(f"\n{json.dumps(identity)}\n".encode())
        except OSError as problem:
            self._tell(f"{self._path}: a tool that asked a person could not be marked for other processes ({problem})")
        self._stamps.say_marked()

    def _read(self) -> bool:
        """Learn what others have marked; False if that cannot be done now."""
        _, words = self._member.attached()
        seen = words[MARKS]
        try:
            text = _contents(self._path)
        except FileNotFoundError:
            text = b""
        except OSError as problem:
            if self._member.shared:  # otherwise it has been told what is wrong
                self._tell(f"{self._path}: cannot be read ({problem}); nothing is remembered meanwhile")
            return False
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, str):
                    self._known.add(found)
        self._words, self._seen = words, seen  # last: another thread must not look before all is known
        return True


def _contents(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError("it is no file")
        with os.fdopen(file, "rb", closefd=False) as lines:
            return lines.read()
    finally:
        os.close(file)
