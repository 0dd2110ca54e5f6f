"""Birth: when a file was made. A copy has another, even where it was given the number of the file that it was copied from.

Numbers of deleted files are given again at once, so a folder that is deleted and restored from a copy would pass for the
original by them. No one can set the time of birth. Python tells it on macOS only; on Linux the C library is asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

_EMPTY_PATH, _BIRTH_TIME = 0x1000, 0x800
"""`AT_EMPTY_PATH` and `STATX_BTIME` of `statx(2)`."""
_FOUND, _SECONDS = struct.Struct("I"), struct.Struct("qI")
"""Of `struct statx`: the mask of what was found, at 0, and the time of birth, at 80."""


def birth_of(file: int) -> int:
    """Give the time of birth of an open file in nanoseconds; 0 where it cannot be told."""
    told: float | None = getattr(os.fstat(file), "st_birthtime", None)
    if told is not None:
        return int(told * 1e9)
    buffer = ctypes.create_string_buffer(256)
    with contextlib.suppress(OSError, AttributeError):  # a C library without statx
        statx = ctypes.CDLL(None).statx
        if statx(file, b"", _EMPTY_PATH, _BIRTH_TIME, buffer) == 0 and _FOUND.unpack_from(buffer)[0] & _BIRTH_TIME:
            seconds, nanoseconds = _SECONDS.unpack_from(buffer, 80)
            return int(seconds * 10**9 + nanoseconds)
    return 0
