"""Parties: the calls that go into one batch, from the first that comes to the answer that each is given."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ibidem.core.call import Call, Key, Outcome
from ibidem.core.signals import Signal


class Party:
    """The calls of one request."""

    __slots__ = ("asked", "call", "claimed", "joined", "outcomes", "over", "snapshot", "tool")

    def __init__(self, call: Call, key: Key) -> None:
        self.call = call
        """The one that makes the request."""
        self.tool = call.tool
        self.asked: dict[Key, Mapping[str, Any]] = {key: call.arguments}
        """The arguments of each call."""
        self.claimed = {key}
        """The calls that have come themselves, rather than being asked for by a sibling."""
        self.snapshot = -1
        """The stamp from which on every change is unknown to what it answers; -1: it still takes calls."""
        self.joined = Signal()
        """Given when the next one joins."""
        self.over = Signal()
        self.outcomes: dict[Key, Outcome] = {}
        """What became of each, once it is over; a call that is not there looks again."""


class Table:
    """Where calls that may share a request meet: those of one turn."""

    __slots__ = ("_by_key", "_open", "asked", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._by_key: dict[Key, Party] = {}
        self._open: dict[str, Party] = {}
        """By tool: those that still take calls."""
        self.asked: set[int] = set()
        """The numbers of the calls of a turn that are in a party, or were: nobody looks for them once more."""

    def board(self, call: Call, key: Key, most: int) -> Party:
        """Find the party that asks for a call, or take part in one that still takes calls, or begin one.

        Returns:
            The party; `party.call is call` if it is to make the request.
        """
        with self.lock:
            if call.place is not None:
                self.asked.add(call.place.number)
            party = self._by_key.get(key)
            if party is not None:
                party.claimed.add(key)
                return party
            party = self._open.get(key.identity)
            if party is None or len(party.asked) >= most:
                party = self._open[key.identity] = self._by_key[key] = Party(call, key)
                return party
            party.asked[key] = call.arguments
            party.claimed.add(key)
            self._by_key[key] = party
            joined, party.joined = party.joined, Signal()
        joined.give()
        return party

    def add(self, party: Party, key: Key, arguments: Mapping[str, Any], number: int) -> None:
        """Ask for a sibling that has not come yet; its number is that in the turn."""
        with self.lock:
            self.asked.add(number)
            if key not in self._by_key:
                party.asked[key] = arguments
                self._by_key[key] = party

    def close(self, party: Party, snapshot: int) -> None:
        """Take no more calls in; what is asked for is now fixed."""
        with self.lock:
            party.snapshot = snapshot
            if self._open.get(party.call.key.identity) is party:  # type: ignore[union-attr]  # it has a key
                del self._open[party.call.key.identity]  # type: ignore[union-attr]

    def end(self, party: Party, outcomes: Mapping[Key, Outcome]) -> None:
        """Say what became of the calls; those that are left out look again."""
        with self.lock:
            party.outcomes = dict(outcomes)
            for key in party.asked:
                # What has yet to come finds its answer by its key; what waits already holds the party.
                if key in party.claimed or key not in outcomes:
                    self._by_key.pop(key, None)
        party.over.give()

    def take(self, party: Party, key: Key) -> Outcome | None:
        """Take the answer for a call; it is given once, since the next attempt must not be given the same failure."""
        with self.lock:
            if self._by_key.get(key) is party:
                del self._by_key[key]
            return party.outcomes.pop(key, None)
