"""Hazards: a call of a turn waits for the earlier ones that it must not pass, then goes on as if it were alone.

What it waits for has ended when it looks into the memo or boards a flight, so that it is never served what was read before,
and never merged across a change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from ibidem.core.call import Call, Inner, Outcome
from ibidem.core.faults import Fault, UpstreamFailed, empty_interrupt
from ibidem.core.hazards import After, access
from ibidem.core.turns import Place
from ibidem.layers.timeout import out_of_time

AfterUnknown = Literal["skip", "run"]


def _nobody(call: Call, what: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Hazards:
    """Keeps the order of a turn where it matters."""

    after_unknown: AfterUnknown = "skip"
    """What becomes of a change after another one of the same things of which nobody knows whether it was made."""
    note: Callable[[Call, After], None] = field(repr=False, default=_nobody)
    """Told of each earlier call that a call was ordered after, or should have been."""
    not_kept: Callable[[Call, str], None] = field(repr=False, default=_nobody)
    """Told why a result is not remembered."""

    def __call__(self, call: Call, inner: Inner, /) -> Awaitable[Outcome]:
        place = call.place
        return inner(call) if place is None else self._in_order(call, place, inner)

    async def _in_order(self, call: Call, place: Place, inner: Inner) -> Outcome:
        if not place.sure:
            resources = call.effect.touched(call.arguments) if call.effect.also is None else None
            place.arrive(call.tool, access(call.effect, resources))
        late: list[Place] = []
        for other in place.earlier:
            if place.needs(other) is None:
                continue
            came = await _has_ended(call, place, other)
            if came is None:
                return out_of_time(call)
            if not came:
                late.append(other)
        states = [place.ordered_after(other, "late" if other in late else None) for other in place.earlier]
        after = tuple(each for each in states if each is not None)
        for each in after:
            self.note(call, each)
        if any(each.ended == "interrupted" for each in after):
            raise empty_interrupt()
        if late and call.key is not None:
            self.not_kept(call, _too_late(late))
            call = replace(call, key=None)
        lost = next((each for each in after if _is_lost(each)), None)
        if lost is not None and self.after_unknown == "skip":
            outcome = Outcome(fault=skipped(lost))
        else:
            outcome = await inner(call)
        place.tell(outcome)
        return replace(outcome, after=after) if after else outcome


async def _has_ended(call: Call, place: Place, other: Place) -> bool | None:
    """Wait until an earlier call stands in the way no longer.

    Args:
        call: It waits.
        place: Its own.
        other: That of the earlier call.

    Returns:
        False if it did not come in time; None if the time of the call that waits is over.
    """
    while True:
        news, signs = other.news(), place.turn.signs
        need = place.needs(other)
        if need is None:
            return True
        if other.missed:
            return other.ended_before
        if not call.runtime.may_wait():
            return False
        left = call.remaining()
        patience = None if need == "end" else other.patience()
        seconds = patience if left is None else max(0.0, left if patience is None else min(patience, left))
        if await call.runtime.wait(news, seconds):
            continue
        left = call.remaining()
        if left is not None and left <= 0:
            return None
        if patience is not None and place.turn.signs == signs:
            place.turn.give_up(patience, place)
            return other.ended_before


def _is_lost(after: After) -> bool:
    return after.ended == "unknown" and after.reason == "write after write"


def skipped(after: After) -> Fault:
    """Say of a change that it was not run, for another one came before it of which nobody knows whether it was made."""
    problem = UpstreamFailed(
        f"it was not run: whether the earlier call {after.number}, {after.tool}, which changes the same, was carried out is "
        "not known. Look first, then make it again if it is still right."
    )
    return Fault(problem, "upstream_failed", str(problem), may_have_run=False)


def _too_late(late: list[Place]) -> str:
    return f"an earlier call of its turn did not come in time: {', '.join(sorted({other.name for other in late}))}"
