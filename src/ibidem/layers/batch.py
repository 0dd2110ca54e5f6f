"""Batch: the calls of a turn that nothing is remembered for go out in one request, where the user has a function for that.

It sits below the memo, so that only unique misses come here, and above retries, breaker and timeout, which see a batch as the
one request that it is. A retry sends only what failed.

The first call of a turn that comes asks for its siblings too, where they are sure to come as their message has them: then it
does not matter how many threads there are. Where somebody may still refuse or change them it waits for a few milliseconds
who else comes. What a sibling asked for is read at a time when the call itself had not begun: it is given only if nothing has
changed since, and remembered as of that time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ibidem.core.batches import Batch, ItemsFailed
from ibidem.core.call import Call, Inner, Key, Outcome, Work
from ibidem.core.classify import fault_of
from ibidem.core.copies import NotCopied, private
from ibidem.core.faults import Fault, is_control_flow
from ibidem.core.flights import Flight
from ibidem.core.parties import Party, Table
from ibidem.core.turns import Place
from ibidem.layers.execute import returned_by
from ibidem.layers.memo import Memo
from ibidem.layers.timeout import out_of_time

WINDOW = 0.005
"""Seconds without a new call after which those that have come go out."""

NEAR = 0.1
"""The same while a sibling is on its last lines to here: it comes for certain, as soon as its thread gets its turn."""


@dataclass(frozen=True)
class Batches:
    """Puts calls together as the `batch=` of their effect says."""

    memo: Memo = field(repr=False)
    loose: dict[Any, Table] = field(default_factory=dict, repr=False, compare=False)
    """The tables of calls without a turn, by who makes them and where."""

    def __call__(self, call: Call, inner: Inner, /) -> Awaitable[Outcome]:
        batch = call.effect.batch
        if batch is None or call.key is None or call.work.flight is None or not batch.takes(call.arguments):
            return inner(call)  # without a flight it is not to be shared: its tool asks people, say
        if batch.awaits and not call.runtime.awaits:
            return inner(call)
        return self._together(call, call.key, batch, inner)

    async def _together(self, call: Call, key: Key, batch: Batch, inner: Inner) -> Outcome:
        while True:
            table, where = self._table(call)
            party = table.board(call, key, batch.max_size)
            if party.call is call:
                try:
                    return await self._lead(call, key, batch, party, table, inner)
                finally:
                    if where is not None and self.loose.get(where) is table:
                        del self.loose[where]
            if not call.runtime.may_wait():
                return await inner(call)
            outcome = await self._wait(call, key, party, table)
            if outcome is not None:
                return outcome
            if self.memo.store.marked(key.identity):
                return await inner(call)  # it asked a person meanwhile: an answer is the one call's that asked

    def _table(self, call: Call) -> tuple[Table, Any]:
        """Give where a call meets others, and by what that is found if it has no turn."""
        if call.place is not None:
            return call.place.turn.table, None
        loop = asyncio._get_running_loop()  # who waits for a loop that is gone waits for ever
        where = (call.asker, id(call.parent), threading.get_ident() if loop is None else loop)
        return self.loose.setdefault(where, Table()), where

    async def _wait(self, call: Call, key: Key, party: Party, table: Table) -> Outcome | None:
        """Wait for what a party brings a call; None: it brings nothing that is right for it."""
        flight = call.work.flight
        assert flight is not None  # noqa: S101
        leader = party.call.work.flight
        with self.memo.flights.depending(flight, leader):
            if not await call.runtime.wait(party.over, call.remaining()):
                return out_of_time(call)
        outcome = table.take(party, key)
        if outcome is None or flight.snapshot <= party.snapshot:
            return outcome
        if not self.memo.holds(call.asking, call.cells, party.snapshot):
            return None
        flight.snapshot, flight.lowered = party.snapshot, True
        return outcome

    async def _lead(self, call: Call, key: Key, batch: Batch, party: Party, table: Table, inner: Inner) -> Outcome:
        outcomes: dict[Key, Outcome] = {}
        try:
            await self._fill(call, batch, party, table)
            table.close(party, self.memo.store.stamps.now())
            if len(party.asked) == 1:
                return await inner(call)
            outcomes = await _request(call, batch, party, inner)
            return outcomes.pop(key)
        finally:
            if party.snapshot < 0:
                table.close(party, 0)
            table.end(party, outcomes)

    async def _fill(self, call: Call, batch: Batch, party: Party, table: Table) -> None:
        """Let the siblings in that can share the request."""
        place = call.place
        if place is None:
            if call.runtime.awaits:  # what was started at once has come by then
                await call.runtime.sleep(0)
                await call.runtime.sleep(0)
            return
        siblings = [each for each in place.turn.places if each is not place and _is_of(call, each) and not each.ended]
        near: list[tuple[Key, Flight]] = []
        for sibling in siblings:
            if len(party.asked) >= batch.max_size:
                return
            near += self._ask_for(sibling, call, batch, party, table)
        while near and len(party.asked) < batch.max_size and call.runtime.may_wait():
            joined = party.joined
            near = [(key, flight) for key, flight in near if key not in party.asked and not flight.ended]
            if near and not await call.runtime.wait(joined, NEAR):
                break
        rest = [each for each in siblings if each.sought is None]
        while rest and len(party.asked) < batch.max_size and call.runtime.may_wait():
            joined = party.joined
            rest = [each for each in rest if not each.ended and not each.waits]
            if len(party.claimed) > len(rest) or not await call.runtime.wait(joined, WINDOW):
                return

    def _ask_for(
        self, sibling: Place, call: Call, batch: Batch, party: Party, table: Table
    ) -> Iterator[tuple[Key, Flight]]:
        """Ask for a call that has not come yet, if it is sure to come, and nothing is in its way or known for it.

        Yields:
            Its key and flight, if it has one already, and so is about to come itself.
        """
        if sibling.sought is None or sibling.behind or sibling.number in table.asked or sibling.waits:
            return
        sought = sibling.sought()
        if sought is None or sought.key is None or sought.asker != call.asker or not batch.takes(sought.arguments):
            return
        key = sought.key
        flight = self.memo.flights.flying(key)
        if flight is not None:
            if flight.call.place is sibling:
                yield key, flight
        elif self.memo.known(key, call.asking) is None:
            table.add(party, key, sought.arguments, sibling.number)


async def _request(call: Call, batch: Batch, party: Party, inner: Inner) -> dict[Key, Outcome]:
    """Make one request for the calls of a party, and give what became of each."""
    request = _Request(call, batch, party)
    work = Work()
    work.deadline = call.work.deadline
    policies = replace(call.tool.policies, is_error=None, looks_at_results=False)  # that is asked of each item
    tool = call.tool.replace(policies=policies, function=None)
    whole = replace(
        call,
        tool=tool,
        body=request.abody if batch.awaits else request.body,
        awaits=batch.awaits,
        work=work,
        parent=call,
    )
    outcome = await inner(whole)
    return request.outcomes(outcome)


class _Request:
    """What is asked for, and what has been answered so far."""

    def __init__(self, call: Call, batch: Batch, party: Party) -> None:
        self._tool, self._batch = call.tool, batch
        self._own = call.key
        self._keys = list(party.asked)
        self._arguments = [party.asked[key] for key in self._keys]
        self._values: dict[int, Any] = {}
        self._faults: dict[int, Fault] = {}
        self._over = False

    def body(self) -> None:
        left = self._left()
        self._take(left, self._batch.function(self._given(left)))

    async def abody(self) -> None:
        left = self._left()
        self._take(left, await self._batch.function(self._given(left)))

    def _left(self) -> list[int]:
        """Give what has no answer yet, and may be asked for."""
        return [n for n in range(len(self._keys)) if n not in self._values and self._may_be_asked_for(n)]

    def _may_be_asked_for(self, number: int) -> bool:
        fault, retry = self._faults.get(number), self._tool.policies.retry
        return fault is None or (retry is not None and retry.wants(fault))

    def _given(self, left: list[int]) -> list[Any]:
        arguments = [self._arguments[number] for number in left]
        try:
            arguments = private(arguments)  # the function may change what it is given
        except NotCopied:
            arguments = [dict(each) for each in arguments]
        return self._batch.given(arguments)

    def _take(self, left: list[int], answer: Any) -> None:
        """Take what the function answered.

        Raises:
            ItemsFailed: A call of those that were asked for failed; with the fault that is worth another try, if there is one.
        """
        items = list(self._batch.read(answer, [self._arguments[number] for number in left]))
        if self._over:
            return
        failed = []
        for number, item in zip(left, items, strict=True):
            fault = self._fault(item)
            if fault is None:
                self._values[number] = item
                self._faults.pop(number, None)
            else:
                self._faults[number] = fault
                failed.append(number)
        if failed:
            worth = [number for number in failed if self._may_be_asked_for(number)]
            raise ItemsFailed(self._faults[(worth or failed)[0]])

    def _fault(self, item: Any) -> Fault | None:
        if isinstance(item, BaseException):
            if isinstance(item, asyncio.CancelledError):  # of a part of the request: no caller was cancelled
                item = concurrent.futures.CancelledError(*item.args)
            if is_control_flow(item):
                raise item
            return fault_of(item, self._tool.policies.faults)  # pyright: ignore[reportArgumentType]  # it is no control flow
        return returned_by(self._tool, item) if self._tool.policies.looks_at_results else None

    def outcomes(self, whole: Outcome) -> dict[Key, Outcome]:
        """Give what became of each call; one that has only this caller's own deadline against it is left out."""
        self._over = True
        found: dict[Key, Outcome] = {}
        for number, key in enumerate(self._keys):
            if number in self._values:
                found[key] = Outcome(self._values[number], elapsed=whole.elapsed, attempts=whole.attempts)
            elif number in self._faults:
                fault = replace(self._faults[number], attempts=whole.attempts)
                found[key] = Outcome(fault=fault, elapsed=whole.elapsed, attempts=whole.attempts)
            elif whole.fault is not None and (key == self._own or not whole.fault.of_own_deadline):
                fault = whole.fault if key == self._own else whole.fault.private() or whole.fault
                found[key] = replace(whole, value=None, fault=fault)
            if key in found and key != self._own:
                found[key] = replace(found[key], how="batch")
        return found


def _is_of(call: Call, place: Place) -> bool:
    """Whether a sibling is a call of the same tool; a function that is wrapped twice is two tools with one effect."""
    return place.name == call.tool.name and place.access.effect is call.effect
