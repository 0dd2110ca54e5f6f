"""Marks: the tools that have asked a person. What they answer is hers, and is never remembered by anybody again.

One line a tool in a file of its own: it outlives the database and every restart. A mark is written before the interrupt
that it is about leaves the tool.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from ibidem.core.identity import OBJECT
from ibidem.stores.board import MARKS
from ibidem.stores.membership import Membership


class Marks:
    """The marks of one store.

    Args:
        path: Of the file.
        member: Of the store; the board tells the others that there is something new.
        tell: Told if a mark cannot be kept.
    """

    def __init__(self, path: Path, member: Membership, tell: Callable[[str], None]) -> None:
        self._path = path
        self._member = member
        self._tell = tell
        self._known: set[str] = set()
        self._words: memoryview | None = None
        self._seen = 0

    def __contains__(self, identity: str) -> bool:
        words = self._member.words
        if words is None or words is not self._words or words[MARKS] != self._seen:
            self._read()
        return identity in self._known

    def add(self, identity: str) -> None:
        """Mark a tool, in this process and on the disk."""
        if identity in self:
            return
        self._known.add(identity)
        if identity.startswith(OBJECT) or not self._member.shared:
            return
        try:
            with self._member.locked() as board:
                # In lines of its own: whoever died in the middle of one before us has spoilt none but his.
                file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                with os.fdopen(file, "wb") as lines:
                    lines.write(f"\n{json.dumps(identity)}\n".encode())
                board.words[MARKS] += 1
        except OSError as problem:
            self._tell(f"{self._path}: a tool that asked a person could not be marked for other processes ({problem})")

    def _read(self) -> None:
        _, words = self._member.attached()
        self._words, self._seen = words, words[MARKS]
        with contextlib.suppress(OSError):
            for line in self._path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    found = json.loads(line)
                    if isinstance(found, str):
                        self._known.add(found)
