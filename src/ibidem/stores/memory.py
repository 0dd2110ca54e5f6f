"""The memory store: one process, bounded, gone with it."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from ibidem.core import forks
from ibidem.core.call import Key
from ibidem.core.stamps import MemoryStamps
from ibidem.stores.protocol import Entry


class Memory:
    """Remembers in this process; least recently used entries make room, and are counted.

    Args:
        max_entries: The most entries it holds.
        max_bytes: The most bytes their values take, estimated.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        *,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} makes no sense: give a whole number from 1")
        self.stamps = MemoryStamps()
        self.now = clock
        self.pepper = secrets.token_bytes(32)
        self.purged_at = 0
        self.evicted = 0
        """Live entries that made room for others."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._bytes = 0
        self._marks: set[str] = set()
        forks.after(self)

    def _after_fork(self) -> None:
        """Start a forked child empty: another thread may have been in the middle of a change."""
        self._lock = threading.Lock()
        self._entries = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"Memory({len(self._entries)} of {self._max_entries} entries, {self._bytes} of {self._max_bytes} bytes)"

    def get(self, key: Key) -> Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if not entry.alive(self.now()):
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return entry

    def put(self, key: Key, entry: Entry) -> bool:
        if entry.size > self._max_bytes:
            return False
        with self._lock:
            if entry.snapshot < self.purged_at:
                return False
            if key in self._entries:
                self._drop(key)
            self._entries[key] = entry
            self._bytes += entry.size
            now = self.now()
            while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
                oldest = next(iter(self._entries))
                self.evicted += self._entries[oldest].alive(now)
                self._drop(oldest)
        return True

    def forget(self, unwanted: Callable[[Key, Entry], bool]) -> int:
        with self._lock:
            self.stamps.touch(())
            self.purged_at = self.stamps.now()
            gone = [key for key, entry in self._entries.items() if unwanted(key, entry)]
            for key in gone:
                self._drop(key)
        return len(gone)

    def entries(self) -> Iterator[tuple[Key, Entry]]:
        with self._lock:
            now = self.now()
            return iter([(key, entry) for key, entry in self._entries.items() if entry.alive(now)])

    def mark(self, identity: str) -> None:
        with self._lock:
            self._marks.add(identity)

    def marked(self, identity: str) -> bool:
        return identity in self._marks

    def close(self) -> None:
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _drop(self, key: Key) -> None:
        self._bytes -= self._entries.pop(key).size
