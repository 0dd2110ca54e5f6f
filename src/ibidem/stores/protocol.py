"""What a store is: entries by key, the stamps they are checked against, and the marks of tools that asked a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ibidem.core.call import Key
from ibidem.core.resources import Cell
from ibidem.core.stamps import Stamps


@dataclass(frozen=True, slots=True)
class Entry:
    """A remembered result."""

    value: Any
    """A private copy; whoever serves it copies it again."""
    snapshot: int
    """The stamp from which on every change is unknown to it."""
    cells: tuple[Cell, ...]
    """Everything it depends on; empty for what depends on its arguments alone."""
    stored_at: float
    """Seconds on the store's monotonic clock."""
    ttl: float | None
    """Seconds it lives; None: until a write."""
    elapsed: float
    """Seconds that the run took: what serving it saves."""
    tool: str
    conversation: str
    """The conversation that read it."""
    size: int
    """Bytes, estimated."""

    def alive(self, now: float) -> bool:
        """Whether its time has not run out. A clock that stands before the entry is wrong, and answers no."""
        age = now - self.stored_at
        return age >= 0 and (self.ttl is None or age < self.ttl)


class Store(Protocol):
    """Where results are remembered. Every method may be called from any thread at any time.

    `ibidem.testing.StoreSuite` is the suite that a store must pass.
    """

    @property
    def stamps(self) -> Stamps:
        """What entries are checked against."""
        ...

    @property
    def pepper(self) -> bytes:
        """What secret arguments are hashed with: nobody else's, and the same wherever an entry is to be found again."""
        ...

    @property
    def purged_at(self) -> int:
        """The number of the last `forget` in the sequence: what was read before it is neither kept nor joined."""
        ...

    def now(self) -> float:
        """Seconds on the clock of the entries."""
        ...

    def get(self, key: Key) -> Entry | None:
        """Give a live entry. Whether it is still right, the caller checks against the stamps."""
        ...

    def put(self, key: Key, entry: Entry) -> bool:
        """Keep an entry; False if there is no room for it, or if it was read before the last `forget`."""
        ...

    def forget(self, unwanted: Callable[[Key, Entry], bool]) -> int:
        """Drop the entries for which `unwanted` answers true, and say how many.

        Advance the sequence and set `purged_at` before anything is dropped: a read under way must not bring back
        what was forgotten. It is refused whatever it read, since `unwanted` is asked about entries only.
        """
        ...

    def entries(self) -> Iterator[tuple[Key, Entry]]:
        """Give the live entries, as of now."""
        ...

    def mark(self, identity: str) -> None:
        """Note that a tool has asked a person: it is never remembered again."""

    def marked(self, identity: str) -> bool:
        """Whether a tool has ever asked a person."""
        ...

    def close(self) -> None:
        """Let go of what the store holds. It can be closed twice."""
