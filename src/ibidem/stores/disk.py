"""The disk store: what was read in one process is known in the next, and a change in one is seen by all.

Three things lie in its folder, each useless without the others: the stamps, which say what is still right (`shared.py`);
the results, in a database (`database.py`); and the marks of tools that asked a person. In front of them is the memory of
this process. Every hit is checked against the stamps, whichever of the two it comes from. Whatever happens to the
database costs hits, and never an answer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

from ibidem.core import forks
from ibidem.core.call import Key
from ibidem.core.durations import TTL, seconds
from ibidem.core.identity import OBJECT
from ibidem.report.progress import track
from ibidem.stores import folders, keyring
from ibidem.stores.keeper import Keeper
from ibidem.stores.marks import Marks
from ibidem.stores.membership import Membership
from ibidem.stores.memory import Memory
from ibidem.stores.notices import Notices
from ibidem.stores.protocol import Entry
from ibidem.stores.reader import Reader
from ibidem.stores.records import Records
from ibidem.stores.shared import SharedStamps


class Disk:
    """Remembers in a folder: across restarts, and for every process of this machine that uses it.

    Only what belongs to a named conversation, a user or everybody is kept there, and only for tools that can be named
    exactly; the rest stays in memory. Results are written behind the calls: `flush` waits until they are there.

    Args:
        path: The folder, made if need be for its owner alone.
        keep: Conversations that were not stored to for so long are swept: seconds, `"7d"`, a `timedelta`.
        max_bytes: The most bytes that results take; beyond, the oldest conversations make room.
        key: What records are authenticated with: at least 16 bytes. None: the environment variable `IBIDEM_KEY`, else a
            file in the user's configuration directory.
        encrypt: A key, likewise, to encrypt results with (extra `encrypt`); None: they lie open, for their owner alone.
        memory: What is held in this process too; None: `Memory()` with its defaults.
        clock: The time in seconds, the same in every process.

    Raises:
        PermissionError: Others than its owner can write to the folder.
        OSError: The path is no folder, or nothing can be made there because of what is named in it.
        NotImplementedError: This platform lacks what it takes (Windows).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep: TTL = "7d",
        max_bytes: int = 512 * 2**20,
        key: str | bytes | None = None,
        encrypt: str | bytes | None = None,
        memory: Memory | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        kept = seconds(keep, what="keep")
        if kept is None:
            raise ValueError("keep=None makes no sense: results are personal data; give a time, such as keep='365d'")
        if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 1:
            raise ValueError(f"max_bytes={max_bytes!r} makes no sense: give a whole number from 1")
        self.path = _folder(path)
        self.now = clock
        self._notices = Notices(self.path)
        self._keeping = threading.Lock()
        """Held while something is kept in memory after a look at the last purge: a purge is said before it is taken."""
        tell = self._notices.tell
        given = None if encrypt is None else keyring.of(encrypt, "encrypt=")
        self._records = Records(keyring.find(key, tell), given)
        self.pepper = self._records.pepper
        self._row = functools.lru_cache(4096)(functools.partial(_row, self._records))
        self._memory = memory if memory is not None else Memory(clock=clock)
        self._member = Membership(self.path, tell)
        self.stamps = SharedStamps(self._member)
        self._reader = Reader(self.path / "results")
        self._keeper = Keeper(
            self.path / "results",
            self._records,
            self.stamps,
            keep=kept,
            max_bytes=max_bytes,
            now=clock,
            tell=tell,
            report=self._notices.report,
        )
        self._marks = Marks(self.path / "marks", self._member, self.stamps, tell)
        self._purged_at = self.stamps.purged_at
        # At the end of the process too: then nobody calls `close`.
        weakref.finalize(self, _let_go, self._keeper, self._reader, self._member, 2.0)
        self._still = True
        forks.around(self)
        forks.after(self)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {what}" for what, count in sorted(self.counts().items()))
        return f"Disk({str(self.path)!r}{': ' if counts else ''}{counts})"

    @property
    def purged_at(self) -> int:
        return self.stamps.purged_at

    def counts(self) -> Mapping[str, int]:
        """Count what happened to results on their way to the disk: `stored`, and each reason why others were not."""
        return self._notices.counts()

    # -- entries ----------------------------------------------------------------------------------------------------------

    def get(self, key: Key) -> Entry | None:
        stamps = self.stamps
        purged_at = self._mind_purges()
        entry = self._memory.get(key)
        if entry is not None and stamps.fresh(entry.cells, entry.snapshot):
            return entry
        row = self._row(key)
        return self._fetch(key, row, purged_at) if row is not None and stamps.may_hold(row) else None

    def _mind_purges(self) -> int:
        """Forget what this process holds if anybody has purged since it last did so; give the number of the purge."""
        purged_at = self.stamps.purged_at
        if purged_at != self._purged_at:
            self._memory.forget(lambda *_: True)
            self._purged_at = purged_at  # last: another thread must not be given before what goes here
        return purged_at

    def _fetch(self, key: Key, row: bytes, purged_at: int) -> Entry | None:
        record = self._reader.row(row) if self.stamps.shared else None
        if record is None:
            return None
        entry = self._records.read(row, record, self.stamps.incarnation)
        if entry is None or not entry.alive(self.now()):
            return None
        with self._keeping:
            if self.stamps.purged_at != purged_at:  # it may have been deleted after we read it
                return None
            newest = self._memory.get(key)
            if newest is not None and newest.snapshot > entry.snapshot:  # put meanwhile, and not written yet
                return newest
            self._memory.put(key, entry)
        return entry

    def put(self, key: Key, entry: Entry) -> bool:
        stamps = self.stamps
        with self._keeping:
            if entry.snapshot < stamps.purged_at or not self._memory.put(key, entry):
                return False
            if entry.snapshot < stamps.purged_at:  # another process purged between the two
                self._memory.forget(lambda other, _: other == key)
                return False
        if self._row(key) is not None and stamps.shared:
            self._keeper.put(key, entry)
        return True

    def forget(self, unwanted: Callable[[Key, Entry], bool]) -> int:
        """Drop the entries for which `unwanted` answers true, everywhere, and say how many; what cannot be read goes too.

        Raises:
            TimeoutError: The database is locked by another process, or cannot be written. What this process holds in
                memory is forgotten.
        """
        gone: set[bytes] = set()

        def noted(key: Key, entry: Entry) -> bool:
            if unwanted(key, entry):
                gone.add(self._records.row(key))
                return True
            return False

        self.stamps.purge()  # first: what is read now must not bring back what goes
        with self._keeping:
            self._memory.forget(noted)
        if not self.stamps.shared:
            return len(gone)
        incarnation = self.stamps.incarnation

        def is_unwanted(row: bytes, record: bytes) -> bool:
            found = self._records.listed(row, record, incarnation)
            return found is None or unwanted(*found)

        def work(keeper: Keeper) -> None:
            gone.update(keeper.delete(is_unwanted))

        self._ask(work, 60)
        self.stamps.purge()  # again: others may have read the rows into their memory before they were deleted
        return len(gone)

    def entries(self) -> Iterator[tuple[Key, Entry]]:
        self._mind_purges()
        found = dict(self._memory.entries())
        incarnation, now = self.stamps.incarnation, self.now()
        rows = self._reader.names() if self.stamps.shared else []
        for row in track(rows, len(rows), "reading what is remembered"):
            record = self._reader.row(row)
            listed = None if record is None else self._records.listed(row, record, incarnation)
            if listed is not None and listed[1].alive(now):
                newest = found.get(listed[0])
                if newest is None or newest.stored_at < listed[1].stored_at:
                    found[listed[0]] = listed[1]
        return iter(found.items())

    def mark(self, identity: str) -> None:
        self._marks.add(identity)

    def marked(self, identity: str) -> bool:
        return identity in self._marks

    # -- coming and going -----------------------------------------------------------------------------------------------

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until everything that was put before is on the disk, or counted as not.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: It takes longer, since another process holds the lock of the database, say.
        """
        self._ask(lambda _: None, timeout)

    def _ask(self, work: Callable[[Keeper], None], timeout: float) -> None:
        try:
            self._keeper.ask(work, timeout)
        except FutureTimeout:
            raise TimeoutError(
                f"{self.path}: the database did not answer within {timeout:g} s; it is tried on"
            ) from None

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits, and let go of the files. What is asked afterwards opens them again.

        Args:
            timeout: Seconds that what waits may take.
        """
        _let_go(self._keeper, self._reader, self._member, timeout)
        self._memory.close()

    def _before_fork(self) -> None:
        """Close SQLite: a child must not inherit its locks, neither those in its memory nor what it takes for its own."""
        self._still = False  # whatever happens in the next line
        self._still = self._keeper.pause() and self._reader.pause()

    def _after_fork_in_parent(self) -> None:
        self._reader.go_on()
        self._keeper.go_on()

    def _after_fork(self) -> None:
        self._keeping = threading.Lock()
        self._keeper.begin(spoilt=not self._still)
        self._reader.after_fork(spoilt=not self._still)


def _let_go(keeper: Keeper, reader: Reader, member: Membership, timeout: float) -> None:
    keeper.stop(timeout)
    reader.close()
    member.detach()


class _Stores:
    """The stores of this process, by folder and key, for as long as somebody uses them."""

    def __init__(self) -> None:
        self._found: weakref.WeakValueDictionary[tuple[str, str | bytes | None], Disk] = weakref.WeakValueDictionary()
        self._after_fork()
        forks.after(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def at(self, path: str | os.PathLike[str], key: str | bytes | None) -> Disk:
        name = os.path.realpath(Path(path).expanduser()), key
        with self._lock:
            found = self._found.get(name)
            if found is None:
                found = self._found[name] = Disk(path, key=key)
            return found


_stores = _Stores()


def at(path: str | os.PathLike[str], key: str | bytes | None = None) -> Disk:
    """Give the store of a folder: the same one for all of this process that name it so."""
    return _stores.at(path, key)


def _row(records: Records, key: Key) -> bytes | None:
    """Give the row of a key; None if it means nothing in another process."""
    lasts = key.partition[0] in ("thread", "user", "shared") and not key.identity.startswith(OBJECT)
    return records.row(key) if lasts else None


def _folder(path: str | os.PathLike[str]) -> Path:
    """Give the folder, made if that can be done.

    Raises:
        OSError: It is no folder.
        PermissionError: It is somebody else's, or others can write to it.
        ValueError: diskcache would take its name for another.
    """
    folder = Path(os.path.realpath(Path(path).expanduser()))
    if "$" in str(folder):
        raise ValueError(f"store={str(folder)!r}: '$' in the path of a store is not supported")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"store={str(folder)!r} is a file: give the name of a folder")
    with contextlib.suppress(OSError):  # read-only, full: the stamps say so, and memory serves
        folders.make(folder)
    with contextlib.suppress(FileNotFoundError):
        folders.check(folder)
    return folder
