"""Memo: an identical read runs once per conversation, and once at a time; a change forgets what it touches.

The order of steps is what makes it exact (`core/stamps.py`, `core/flights.py`):
- A read looks, boards a flight, looks again once it leads (another may have landed in between), runs, stores, and
  only then lands.
- The snapshot is taken when the flight begins. A result is stored only if, over all that it depends on, nothing is
  under way *and then* nothing has changed since: asked the other way round, a change that closes in between is missed.
- A change opens before it runs, and closes when its body has really ended, however it ended. Where its caller goes on
  before that, it raises all that it holds: what was read until then is no longer right for him.
- What another process has under way may be over, since that process may be dead: it is waited out, not passed by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ibidem.core.call import Call, Inner, Key, Outcome, current
from ibidem.core.copies import NotCopied, private, size
from ibidem.core.effects import Undeclared
from ibidem.core.faults import is_interrupt
from ibidem.core.flights import Flight, Flights
from ibidem.core.resources import EVERYTHING, Cell, read_cells, write_cells
from ibidem.layers.settle import as_told, close_when_over
from ibidem.layers.timeout import out_of_time
from ibidem.stores.protocol import Entry, Store


@dataclass(frozen=True)
class Memo:
    """Remembers, merges and forgets, as the effect of each call says."""

    store: Store
    flights: Flights
    note: Callable[[Call, str], None]
    """Told why a result was not remembered."""

    def __repr__(self) -> str:
        return f"Memo({self.store!r})"

    async def __call__(self, call: Call, inner: Inner, /) -> Outcome:
        if call.effect.changes:
            return await self._change(call, inner)
        looked = call.looked
        while call.key is not None and not self.store.marked(call.key.identity):
            if looked != self.flights.landings:
                looked = self.flights.landings  # before looking: what lands meanwhile is looked for again
                outcome = self.look(call)
                if outcome is not None:
                    return outcome
            if not self._may_share(call):
                break
            flight = self.flights.board(call, self._joinable, self.store.stamps.now)
            if flight is None:
                break
            if flight.call is call:
                return await self._lead(call, flight, inner, looked)
            try:
                in_time = await call.runtime.wait(flight, call.remaining())
            finally:
                self.flights.leave(call, flight)
            if not in_time:
                return out_of_time(call)
            outcome = self._shared(call, flight)
            if outcome is not None:
                return outcome
            if flight.unshared or not flight.ended:
                break
        return await self._alone(call, inner)

    def look(self, call: Call) -> Outcome | None:
        """Give what is remembered for a call, if it is right for who asks."""
        if call.behind or call.key is None or not call.effect.remembered:
            return None
        return self.find(call.key, call.asking)

    def find(self, key: Key, asking: tuple[Cell, ...]) -> Outcome | None:
        """Give what is remembered under a key, if it is right for who asks. What it depends on, the entry knows."""
        entry = self.known(key, asking)
        if entry is None:
            return None
        try:
            value = private(entry.value)
        except NotCopied:  # it could be copied once only
            return None
        return Outcome(value, how="memo", age=self.store.now() - entry.stored_at, elapsed=entry.elapsed)

    glance = find
    """As `find`, asked before a call is made: None sends it the long way, past the layers."""

    def known(self, key: Key, asking: tuple[Cell, ...]) -> Entry | None:
        """Give the entry that answers a key, if it is right for who asks."""
        entry = self.store.get(key)
        if entry is None or _changing(current.get(), entry.cells):
            return None
        return entry if self.holds(asking, entry.cells, entry.snapshot) else None

    def holds(self, asking: tuple[Cell, ...], cells: tuple[Cell, ...], snapshot: int) -> bool:
        """Whether what was read at a snapshot is still right for the one who asks."""
        stamps = self.store.stamps
        return stamps.still(asking) and stamps.alone(cells) and stamps.fresh((*asking, *cells), snapshot)

    def _joinable(self, call: Call, flight: Flight) -> bool:
        if call.behind or flight.snapshot < self.store.purged_at:
            return False
        return self.holds(call.asking, call.cells, flight.snapshot)

    def _may_share(self, call: Call) -> bool:
        """Whether a read may lead or join: not inside a change of what it reads, its own caller's say."""
        if not self.store.stamps.still(call.asking):
            return False
        return not _changing(call.parent, call.cells)

    async def _alone(self, call: Call, inner: Inner) -> Outcome:
        try:
            return await inner(call)
        except BaseException as flow:
            self._mark(call, flow)
            raise

    async def _lead(self, call: Call, flight: Flight, inner: Inner, looked: int) -> Outcome:
        try:
            outcome = self.look(call) if looked != self.flights.landings else None
            if outcome is not None:
                flight.land(None)  # what was found may be too old for those who wait: they look themselves
                return outcome
            outcome = await inner(call)
        except BaseException as flow:
            self._mark(call, flow)
            call.work.when_ended(lambda late: self._land(call, flight, late))
            raise
        if outcome.fault is not None and outcome.fault.of_own_deadline:
            flight.land(None)  # it is this caller's time that is over: those who wait look again, and one of them leads
            call.work.when_ended(lambda late: self._land(call, flight, late))
        else:
            self._land(call, flight, outcome)
        return outcome

    def _land(self, call: Call, flight: Flight, outcome: Outcome | None) -> None:
        """Store an outcome, then land it. Whatever goes wrong here costs the others a run, and nobody the result."""
        kept = None
        try:
            kept = self._keep(call, flight, outcome) if outcome is not None else None
        except Exception as problem:
            self.note(call, f"it could not be kept: {problem!r}")
        finally:
            flight.unshared = outcome is not None and kept is None
            flight.land(kept)

    def _keep(self, call: Call, flight: Flight, outcome: Outcome) -> Outcome | None:
        """Make a copy of an outcome that others may be given, and store it if it may be remembered.

        Returns:
            None if nobody else may be given it.
        """
        assert call.key is not None  # noqa: S101
        if outcome.fault is not None and not outcome.fault.returned:
            return outcome
        if not call.tool.shareable(outcome.value):
            self.note(call, "the result carries an id of its call")
            return None
        try:
            value = private(outcome.value)
        except NotCopied as problem:
            self.note(call, str(problem))
            return None
        outcome = outcome if value is outcome.value else replace(outcome, value=value)
        also = call.effect.touched_also(call.arguments, value)
        if also is None:
            self.note(call, "also= failed to say what the result depends on")
            return None
        flight.cells = call.cells + read_cells(also)
        if not call.effect.remembered or outcome.fault is not None:
            return outcome
        stamps = self.store.stamps
        if not (stamps.still(flight.cells) and stamps.fresh(flight.cells, flight.snapshot)):
            self.note(call, "something it depends on changed meanwhile")
            return outcome
        entry = Entry(
            value=value,
            snapshot=flight.snapshot,
            cells=flight.cells,
            stored_at=self.store.now(),
            ttl=call.effect.ttl,
            elapsed=outcome.elapsed,
            tool=call.tool.name,
            conversation=call.asker.conversation[1],
            size=size(value) + len(call.key.arguments),
        )
        if not self.store.put(call.key, entry):
            forgotten = entry.snapshot < self.store.purged_at
            self.note(call, "it was forgotten meanwhile" if forgotten else "the store is full")
        return outcome

    def _shared(self, call: Call, flight: Flight) -> Outcome | None:
        """Give what a flight landed, as a copy of this caller's own; None: look again."""
        landed = flight.outcome
        if landed is None or not self._complete(call, flight):
            return None
        if flight.lowered and not self.holds(call.asking, call.cells, flight.snapshot):
            return None
        fault = landed.fault
        if fault is not None:
            fault = fault.private()
            if fault is None:
                flight.unshared = True
                return None
        try:
            return replace(landed, value=private(landed.value), fault=fault, how="shared")
        except NotCopied:  # it could be copied once only
            flight.unshared = True
            return None

    def _complete(self, call: Call, flight: Flight) -> bool:
        """Whether what only the result told it depends on has not changed since the flight began."""
        if call.effect.also is None or flight.outcome is None or flight.outcome.fault is not None:
            return True
        return self.holds((), flight.cells, flight.snapshot)

    async def _change(self, call: Call, inner: Inner) -> Outcome:
        """Run a call that may change something: forget what it touches when it begins and when it has ended."""
        touched: tuple[Cell, ...]
        if isinstance(call.effect, Undeclared):
            askers = (call.asker, *(above.asker for above in call.ancestors))
            touched = tuple(dict.fromkeys(cell for asker in askers for cell in asker.raises()))
        else:
            resources = call.effect.touched(call.arguments)
            touched = write_cells(resources if resources is not None else (EVERYTHING,))
        held = touched if call.effect.also is None else tuple({*touched, *write_cells((EVERYTHING,))})
        opening = self.store.stamps.open(touched, held)

        def close(outcome: Outcome | None) -> None:
            """Raise what was touched; if the call failed to say, or to end, what it might have touched."""
            if call.effect.also is None:
                opening.close(touched)
                return
            answered = outcome is not None and outcome.fault is None
            also = call.effect.touched_also(call.arguments, outcome.value) if outcome and answered else None
            opening.close((*touched, *write_cells((EVERYTHING,) if also is None else also)))

        call.work.held = frozenset(held)
        try:
            outcome = await inner(call)
        except BaseException as flow:
            self._mark(call, flow)
            call.work.when_ended(close)
            self.store.stamps.touch(held)
            raise
        if outcome.fault is None and not call.work.strays:
            close(outcome)
            return outcome
        close_when_over(call, close, outcome)
        self.store.stamps.touch(held)
        return as_told(call, outcome)

    def _mark(self, call: Call, flow: BaseException) -> None:
        """Remember, before an interrupt leaves, that this tool asks people: its answers are theirs, and never replayed."""
        if is_interrupt(flow):
            self.store.mark(call.tool.identify())


def _changing(parent: Call | None, cells: tuple[Cell, ...]) -> bool:
    """Whether we are in the body of a change of what is read: it may have changed it already, and not yet said so."""
    if parent is None:
        return False
    return any(not above.work.held.isdisjoint(cells) for above in (parent, *parent.ancestors))
