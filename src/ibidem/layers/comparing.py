"""Comparing: whether what the memo had for a call is what a run of it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ibidem.core.call import Call, Outcome
from ibidem.core.equality import same
from ibidem.core.resources import Cell
from ibidem.layers.memo import Memo
from ibidem.report.trials import Verdict
from ibidem.stores.protocol import Entry


@dataclass(frozen=True, slots=True)
class Answer:
    """What the memo had for a call, before a run of it began."""

    memo: Memo
    call: Call
    value: Any
    """Of the store, and never changed."""
    cells: tuple[Cell, ...]
    snapshot: int
    purged_at: int
    """The last purge before the run."""

    @classmethod
    def of(cls, memo: Memo, call: Call, entry: Entry) -> Answer:
        return cls(memo, call, entry.value, entry.cells, entry.snapshot, memo.store.purged_at)

    def verdict(self, outcome: Outcome) -> Verdict:
        """Compare it with what a run answered. A difference counts only if no change that was told of explains it."""
        if outcome.fault is not None:
            return "failed"
        store = self.memo.store
        # In this order, as when a result is stored: a change that closes in between is found by the second.
        still = store.stamps.still(self.cells) and self.memo.holds(self.call.asking, self.cells, self.snapshot)
        if not still or store.purged_at != self.purged_at:
            return "unclear"
        equal = same(self.value, outcome.value)
        return "unclear" if equal is None else "same" if equal else "differed"
