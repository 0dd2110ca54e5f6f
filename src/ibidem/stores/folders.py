"""Folders: made for their owner alone, and refused where somebody else could put things into them."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def make(folder: Path) -> None:
    """Make a folder and what is missing above it, for their owner alone, whatever the umask.

    Raises:
        OSError: It cannot be made.
    """
    for part in (*reversed(folder.parents), folder):
        if not part.exists():  # `Path.mkdir(parents=True)` gives its mode to the last one only
            part.mkdir(mode=0o700, exist_ok=True)


def check(folder: Path) -> None:
    """See that nobody else can put anything into a folder.

    Raises:
        PermissionError: It is somebody else's, or others can write to it.
        OSError: It is not there.
    """
    found = folder.stat()
    if found.st_uid != os.getuid():
        raise PermissionError(f"store={str(folder)!r} belongs to another user: results would be theirs to change")
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise PermissionError(f"store={str(folder)!r} can be written by others: chmod 700 {folder}")
