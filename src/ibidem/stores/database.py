"""The database: `diskcache`, hardened, for the one thread that writes (`keeper.py`).

What `diskcache` would do and ours does not: pickle, value files, eviction, and whatever its `Settings` table says. Keys
are digests, values are records (`records.py`) that lie in their rows. A row's mode, file name and settings are never
followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import diskcache

from ibidem.stores import folders
from ibidem.stores.codec import LARGEST
from ibidem.stores.reader import FILE, MODE

BUSY = 0.5
"""Seconds that one attempt waits for the write lock of another process."""

_SETTINGS: dict[str, Any] = {
    **diskcache.DEFAULT_SETTINGS,
    "eviction_policy": "none",
    "size_limit": 2**62,
    "cull_limit": 0,
    "tag_index": 1,
    "sqlite_mmap_size": 0,  # a file that somebody truncates would end the process
    "sqlite_secure_delete": 1,  # what is forgotten is not left in free pages; SQLite does so by itself on some systems
    "sqlite_synchronous": 1,  # NORMAL: what was committed survives a killed process
}
_COUNTERS = ("count", "size", "hits", "misses")
_ASIDE = "set-aside-"
_TABLES = {("table", "Cache"), ("table", "Settings")}
_COUNTS = re.compile(
    r"CREATE TRIGGER Settings_(count|size)_\w+ AFTER (INSERT|UPDATE|DELETE) ON Cache FOR EACH ROW "
    r"BEGIN UPDATE Settings SET value = value [-+ \w.]+ WHERE key = \"(count|size)\"; END"
)
"""The triggers that `diskcache` makes: they count, and do nothing else."""

# What stands in a row decides nothing, its size not even how much memory it takes to look at it.
_OURS = (
    f"raw = 1 AND mode = {MODE} AND filename IS NULL AND typeof(value) = 'blob' AND length(value) <= {LARGEST} AND "
    "typeof(key) = 'blob' AND length(key) = 32 AND typeof(tag) = 'blob' AND length(tag) = 16 AND "
    "typeof(store_time) = 'real'"
)
_EVERY_ROW = f"SELECT rowid, iif({_OURS}, key, NULL), iif({_OURS}, value, NULL) FROM Cache ORDER BY rowid"  # noqa: S608
_CONVERSATIONS = f"SELECT tag, max(store_time), sum(length(value)) FROM Cache WHERE {_OURS} GROUP BY tag ORDER BY 2"  # noqa: S608


class Corrupt(Exception):  # noqa: N818
    """What lies there is no database of ours, or a damaged one."""


class Unwritable(Exception):  # noqa: N818
    """The database cannot be written now; the message says why."""


class _Inline(diskcache.Disk):  # type: ignore[misc]
    """Keeps bytes in their row, and knows no other way."""

    def put(self, key: bytes) -> tuple[sqlite3.Binary, bool]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return sqlite3.Binary(key), True

    def get(self, key: bytes, raw: bool) -> bytes:  # noqa: ARG002
        return bytes(key)

    def store(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        value: bytes,
        read: bool,  # noqa: ARG002
        key: Any = None,  # noqa: ARG002
    ) -> tuple[int, int, None, sqlite3.Binary]:
        return len(value), MODE, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: bytes, read: bool) -> bytes:  # noqa: ARG002
        raise KeyError("values are read by reader.py")

    def filename(self, key: Any = None, value: Any = None) -> tuple[str, str]:
        raise NotImplementedError("no value lies in a file")

    def remove(self, file_path: str) -> None:
        """Remove nothing: a name that stands in a row is never followed."""


class Database:
    """One open database.

    Args:
        folder: Where it is; made if need be, for its owner alone.

    Raises:
        Corrupt: There is something else, or a damaged database.
        Unwritable: It cannot be opened now.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with _translated():
            with contextlib.suppress(FileNotFoundError):
                folders.check(folder.parent)  # each time: something else may stand there by now
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(folder / FILE)
            self._inode = (folder / FILE).stat().st_ino
            self._clean_settings()
            self._cache = diskcache.Cache.__new__(
                diskcache.Cache
            )  # in hand, so that what it opens is closed if it fails
            try:
                self._cache.__init__(str(folder), timeout=cast("int", BUSY), disk=_Inline, **_SETTINGS)
                self._cache._con.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * LARGEST)
            except BaseException as problem:
                with contextlib.suppress(Exception):
                    self._cache.close()
                if isinstance(problem, (TypeError, AttributeError)):  # what stands in the table was no setting at all
                    raise Corrupt(str(problem)) from problem
                raise

    def _clean_settings(self) -> None:
        """Leave no setting but ours: `diskcache` does what the table says before it does what it is told.

        Raises:
            Corrupt: It holds what `diskcache` has not made. Half of what it makes is no damage: another process may be
                making it now.
        """
        with self._plain(isolation_level=None) as plain:
            plain.execute("PRAGMA trusted_schema = OFF")
            found = plain.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master").fetchall()
            for kind, name, text in found:
                ours = (kind, name) in _TABLES or kind == "index" or name.startswith("sqlite_")
                if not ours and not _COUNTS.fullmatch(text):
                    raise Corrupt(f"it holds a {kind} named {name}")
            if not any(name == "Settings" for _, name, _ in found):
                return
            rows = plain.execute("SELECT key, value FROM Settings").fetchall()
            settings = dict(rows)
            if len(settings) != len(rows) or any(not isinstance(settings.get(name, 0), int) for name in _COUNTERS):
                raise Corrupt("its settings are none")
            if {name: value for name, value in rows if name not in _COUNTERS} != _SETTINGS:
                plain.execute("BEGIN IMMEDIATE")
                marks = ",".join("?" * len(_COUNTERS))
                plain.execute(f"DELETE FROM Settings WHERE key NOT IN ({marks})", _COUNTERS)  # noqa: S608
                plain.executemany("INSERT INTO Settings VALUES (?, ?)", _SETTINGS.items())
                plain.execute("COMMIT")

    @property
    def moved(self) -> bool:
        """Whether it was deleted or replaced under us."""
        try:
            return (self.folder / FILE).stat().st_ino != self._inode
        except OSError:
            return True

    def write(self, rows: Iterable[tuple[bytes, bytes, float | None, bytes]]) -> None:
        """Write rows, all or none: `(row, record, seconds to live, tag)`. The iterable is read inside the transaction.

        Raises:
            Corrupt: The database is damaged.
            Unwritable: Another process holds its lock, the disk is full, and the like.
        """
        with _translated(), self._cache.transact():
            for row, record, live, tag in rows:
                self._cache.set(row, record, expire=live, tag=tag)

    def delete(self, unwanted: Callable[[bytes, bytes], bool]) -> list[bytes]:
        """Delete the rows that are unwanted, given row and record, and all that are not ours; say which of ours.

        Every write that began before the call is seen: it has ended when we get the lock.
        """
        gone: list[bytes] = []
        rowids: list[tuple[int]] = []
        with _translated(), self._plain() as plain:
            plain.execute("BEGIN IMMEDIATE")
            plain.commit()
            for rowid, row, record in plain.execute(_EVERY_ROW):
                if row is None or unwanted(row, record):
                    rowids.append((rowid,))
                    gone.extend(() if row is None else (row,))
            plain.executemany("DELETE FROM Cache WHERE rowid = ?", rowids)
            plain.commit()
        return gone

    def expire(self) -> int:
        """Delete what has outlived its time, and say how much that was; what is not ours goes too."""
        with _translated():
            with self._plain() as plain:
                plain.execute(f"DELETE FROM Cache WHERE NOT ({_OURS})")  # noqa: S608
                plain.commit()
            return int(self._cache.expire())

    def size(self) -> int:
        """Add up what the records take."""
        return sum(size for _, _, size in self._conversations())

    def sweep(self, before: float) -> int:
        """Delete the conversations that were last stored to before some time, and say how many entries that was.

        Args:
            before: Seconds since the epoch.
        """
        old = [tag for tag, stored_at, _ in self._conversations() if stored_at < before]
        return sum(self._evict(tag) for tag in old)

    def make_room(self, most: int, spared: Collection[bytes]) -> int:
        """Delete whole conversations, oldest first, and say how many entries that was.

        Args:
            most: The bytes down to which to delete.
            spared: The tags of conversations that stay.
        """
        found = self._conversations()
        left, swept = sum(size for _, _, size in found), 0
        for tag, _, size in found:
            if left <= most:
                break
            if tag not in spared:
                swept += self._evict(tag)
                left -= size
        return swept

    def _evict(self, tag: bytes) -> int:
        with _translated():
            return int(self._cache.evict(tag))

    def _conversations(self) -> list[tuple[bytes, float, int]]:
        """Give the tag of each conversation, when it was last stored to, and its bytes; oldest first."""
        with _translated(), self._plain() as plain:
            return plain.execute(_CONVERSATIONS).fetchall()

    def discard(self, before: float) -> None:
        """Delete the databases that were set aside before some time: what is in them is personal data too.

        Args:
            before: Seconds since the epoch.
        """
        for aside in self.folder.parent.glob(f"{_ASIDE}*"):
            with contextlib.suppress(ValueError, OSError):
                if int(aside.name.removeprefix(_ASIDE)) < before * 1e9:
                    shutil.rmtree(aside)

    @contextlib.contextmanager
    def _plain(self, **options: Any) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.folder / FILE, timeout=BUSY, **options)) as plain:
            plain.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * LARGEST)  # however large it says that a value is
            yield plain

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._cache.close()


def _make(file: Path) -> None:
    """Make the file before SQLite does, which would let others read it; its side files take after it.

    One that is there is not opened: to close any descriptor of a database gives back every lock that SQLite holds on it in
    this process, those of `reader.py` too. Another process that closes its own then takes itself for the last one and
    deletes the log that we go on writing to.
    """
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if file.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file)) from None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Tell damage from what passes."""
    try:
        yield
    except diskcache.Timeout:
        raise Unwritable("another process holds its lock") from None
    except sqlite3.OperationalError as problem:
        if str(problem).startswith(("no such", "Could not decode")):
            raise Corrupt(str(problem)) from problem
        raise Unwritable(str(problem)) from problem
    except (sqlite3.Error, UnicodeDecodeError) as problem:
        raise Corrupt(str(problem)) from problem
    except OSError as problem:
        raise Unwritable(str(problem)) from problem


def set_aside(folder: Path) -> Path:
    """Move a damaged database out of the way, and say where to."""
    aside = folder.with_name(f"{_ASIDE}{time.time_ns()}")
    folder.rename(aside)
    return aside
