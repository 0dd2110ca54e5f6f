"""The keeper: the one thread that opens the database and writes to it, behind the calls.

A call hands its entry over and goes on. The keeper encodes, writes many entries in one transaction, sweeps what is old or
too much, and sets a damaged database aside. What it cannot store it counts and says: nothing is dropped in silence.

Purges and entries meet in the transaction: a purge says its number on the board before it deletes, and an entry is
written only if the number still allows it while the write lock is held. So none is written after the purge it is older
than; nor, since the stamps are asked there too, over a newer one of another process.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ibidem.core.call import Key
from ibidem.stores.codec import NotEncoded
from ibidem.stores.protocol import Entry
from ibidem.stores.records import Records
from ibidem.stores.shared import SharedStamps
from ibidem.stores.worker import Worker

if TYPE_CHECKING:
    from ibidem.stores.database import Database

T = TypeVar("T")

WAITING = 64 * 2**20
"""Bytes of entries that wait to be written; beyond, entries are refused and counted."""
BATCH = 256
"""Entries that one transaction writes at most."""
TRIES = 30.0
"""Seconds that an entry waits for a database which cannot be written."""
PAUSE = 1.0
"""Seconds that a fork waits for the database to be closed."""
SWEEP = 60.0
"""Seconds between two looks for what has outlived its time."""
_SPARE = 0.9
"""The part of `max_bytes` down to which sweeping makes room."""

_Job = tuple[Key, Entry] | Callable[["Keeper"], None]
_Written = tuple[bytes, bytes, float | None, bytes]


class Keeper:
    """Owns the database of one store.

    Args:
        folder: Of the database.
        records: Writes entries.
        stamps: Of the store.
        keep: Seconds after which a conversation that was not stored to is swept.
        max_bytes: The most bytes that records take together.
        now: The clock of the entries.
        tell: Told, once each, what does not work.
        report: Told what happened to entries: how many, and what.
    """

    def __init__(
        self,
        folder: Path,
        records: Records,
        stamps: SharedStamps,
        *,
        keep: float,
        max_bytes: int,
        now: Callable[[], float],
        tell: Callable[[str], None],
        report: Callable[[int, str], None],
    ) -> None:
        self.folder = folder
        self._records = records
        self._stamps = stamps
        self._keep = keep
        self._max_bytes = max_bytes
        self._now = now
        self._tell = tell
        self._report = report
        self.begin()

    def begin(self, *, spoilt: bool = False) -> None:
        """Start with nothing to do, as a forked child does; see `Reader.after_fork` for `spoilt`."""
        self._spoilt = spoilt
        self._resume = threading.Event()
        self._lock = threading.Lock()
        if self.__dict__.get("_database") is not None:
            _inherited.append(self._database)
        self._worker: Worker[_Job] = Worker(self._work, pause=self._sweep_if_time, leave=self._close, every=SWEEP)
        self._waiting = 0
        self._bytes = 0
        self._database: Database | None = None
        self._sweep_at = 0.0

    # -- what callers do --------------------------------------------------------------------------------------------------

    def put(self, key: Key, entry: Entry) -> None:
        """Take an entry over, to be written soon."""
        with self._lock:
            if self._waiting + entry.size > WAITING:
                self._report(1, "too many results wait for the disk")
                return
            self._waiting += entry.size
        self._worker.put((key, entry))

    def ask(self, work: Callable[[Keeper], T], timeout: float) -> T:
        """Let the thread do something, and wait for it.

        Args:
            work: Given the keeper.
            timeout: Seconds.

        Raises:
            TimeoutError: It was not done in time; it will be done later.
        """
        future: Future[T] = Future()

        def job(keeper: Keeper) -> None:
            try:
                future.set_result(work(keeper))
            except BaseException as problem:
                future.set_exception(problem)

        self._worker.hurry(job)
        return future.result(timeout)

    def stop(self, timeout: float) -> None:
        """Write what waits, and end the thread."""
        self._worker.stop(timeout)

    def pause(self) -> bool:
        """Close the database, and let the thread stand still until `go_on`; false if that takes too long."""
        self._resume = resume = threading.Event()
        if self._worker.hold():
            return True
        closed = threading.Event()

        def job(keeper: Keeper) -> None:
            keeper._close()
            closed.set()
            resume.wait()

        self._worker.hurry(job)
        return closed.wait(PAUSE)

    def go_on(self) -> None:
        """End a pause."""
        self._resume.set()
        self._worker.let_go()

    # -- what the thread does -----------------------------------------------------------------------------------------------

    def _work(self, jobs: deque[_Job]) -> None:
        batch: list[tuple[Key, Entry]] = []
        while jobs:
            job = jobs.popleft()
            if isinstance(job, tuple):
                batch.append(job)
            if batch and (not jobs or not isinstance(job, tuple) or len(batch) == BATCH):
                self._store(batch)
                batch = []
            if not isinstance(job, tuple):
                job(self)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _store(self, batch: list[tuple[Key, Entry]]) -> None:
        """Write entries, or say how many were not."""
        incarnation = self._stamps.incarnation
        reasons: Counter[str] = Counter()
        written = list(self._encoded(batch, incarnation, reasons))
        ends = time.monotonic() + TRIES
        try:
            stored = self._do(lambda database: self._write(database, written, incarnation, reasons), ends)
            reasons["stored"] += stored
        except _NotNow as problem:
            reasons[str(problem)] += len(written)
        except Exception as problem:  # nothing that is found in a database may end this thread
            reasons[f"they cannot be written: {problem!r}"] += len(written)
        with self._lock:
            self._waiting -= sum(entry.size for _, entry in batch)
        for reason, count in reasons.items():
            if count:
                self._report(count, reason)

    def _encoded(
        self, batch: list[tuple[Key, Entry]], incarnation: bytes, reasons: Counter[str]
    ) -> Iterator[tuple[Entry, _Written]]:
        """Give the rows of entries, each with its entry; the last of several entries of one key."""
        for key, entry in dict(batch).items():
            live = None if entry.ttl is None else entry.stored_at + entry.ttl - self._now()
            if (live is not None and live <= 0) or not self._stamps.fresh(entry.cells, entry.snapshot):
                reasons["outdated before it was written"] += 1
                continue
            row = self._records.row(key)
            try:
                record = self._records.write(row, key, entry, incarnation)
            except NotEncoded as problem:
                reasons[str(problem)] += 1
                continue
            except Exception as problem:  # a hostile value may raise anything while it is looked at
                reasons[f"it cannot be written: {type(problem).__name__}"] += 1
                continue
            yield entry, (row, record, live, self._records.tag(entry.conversation))
        reasons["replaced before it was written"] += len(batch) - len(dict(batch))

    def _write(
        self, database: Database, rows: list[tuple[Entry, _Written]], incarnation: bytes, reasons: Counter[str]
    ) -> int:
        needed = sum(len(row[1]) for _, row in rows)
        if self._bytes + needed > self._max_bytes:
            self._make_room(database, needed, {row[3] for _, row in rows})
        kept: list[_Written] = []
        refused: Counter[str] = Counter()

        def allowed() -> Iterator[_Written]:
            kept.clear()
            refused.clear()
            room, purged = self._max_bytes - self._bytes, self._stamps.purged_at
            same = self._stamps.incarnation == incarnation
            for entry, row in rows:
                if entry.snapshot < purged or not same:
                    refused["forgotten before it was written"] += 1
                elif not self._stamps.fresh(entry.cells, entry.snapshot):  # its row may hold a newer one by now
                    refused["outdated before it was written"] += 1
                elif len(row[1]) > room:
                    refused["the store is full: max_bytes"] += 1
                else:
                    room -= len(row[1])
                    kept.append(row)
                    self._stamps.will_hold(row[0])  # before it can be found
                    yield row

        database.write(allowed())
        self._bytes += sum(len(row[1]) for row in kept)
        reasons.update(refused)
        return len(kept)

    def _do(self, work: Callable[[Database], T], ends: float) -> T:
        """Do something with the database; open it first, or another one where it was damaged.

        Raises:
            _NotNow: It cannot be done, and it is too late to try again.
        """
        from ibidem.stores.database import Corrupt, Database, Unwritable, set_aside

        if self._spoilt:
            raise _NotNow("this process was forked in the middle of a write")
        pause = 0.01
        while True:
            try:
                if self._database is not None and self._database.moved:
                    self._close()
                if self._database is None:
                    self._database = Database(self.folder)
                    self._bytes = self._database.size()
                return work(self._database)
            except Corrupt as problem:
                replaced = self._database is not None and self._database.moved
                self._close()
                if not replaced:
                    with contextlib.suppress(OSError):
                        aside = set_aside(self.folder)
                        self._stamps.renew()
                        self._tell(f"{self.folder} was damaged ({problem}): set aside as {aside.name}, begun anew")
                reason: Exception = problem
            except Unwritable as problem:
                reason = problem
                if "locked" not in str(problem) and "lock" not in str(problem):
                    self._close()
            if time.monotonic() + pause > ends:
                self._tell(f"{self.folder} cannot be written ({reason}): results are kept in memory only")
                raise _NotNow(f"the disk: {reason}")
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    # -- sweeping -------------------------------------------------------------------------------------------------------

    def _sweep_if_time(self) -> None:
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + SWEEP
        with contextlib.suppress(Exception):  # the next one may do better
            self._do(self._sweep, time.monotonic() + 1)

    def _sweep(self, database: Database) -> None:
        """Delete what has outlived its time, and the conversations that nobody has stored to for long."""
        self._report(database.expire(), "expired")
        self._report(database.sweep(before=time.time() - self._keep), "swept: older than keep")
        self._bytes = database.size()
        database.discard(before=time.time() - self._keep)

    def _make_room(self, database: Database, needed: int, spared: set[bytes]) -> None:
        self._sweep(database)
        swept = database.make_room(int(_SPARE * self._max_bytes) - needed, spared)
        if swept:
            self._report(swept, "swept: to make room")
            self._tell(f"{self.folder} is full: results of the oldest conversations make room (max_bytes)")
            self._bytes = database.size()

    def delete(self, unwanted: Callable[[bytes, bytes], bool]) -> list[bytes]:
        """Delete the rows that are unwanted, given row and record, and say which; in the thread."""

        def work(database: Database) -> list[bytes]:
            database.discard(before=math.inf)  # what is in them cannot be told apart
            return database.delete(unwanted)

        return self._do(work, time.monotonic() + TRIES)


_inherited: list[Database | None] = []
"""Databases of the parent of a forked child: SQLite's connections must neither be used nor closed there."""


class _NotNow(TimeoutError):  # noqa: N818
    """The database cannot be used, and it is too late to try again; the message says why."""
