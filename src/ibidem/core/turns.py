"""Turns: the calls that a model made at one time, in the order of emission, and how far each has come.

A call waits for those before it that it must not pass (`hazards.py`), until each has ended: finished, been interrupted, or
been answered without its tool. What decides is what is executed; a call whose arguments may still be changed on its way, by
a person or by a wrapper, is first waited for until it arrives. Only calls of one turn wait for each other here, so no call
waits for an ancestor, and none for a later one: the earliest that has not ended can always go on.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, Self

from ibidem.core import forks
from ibidem.core.call import Outcome, Tool, current
from ibidem.core.effects import Pure
from ibidem.core.faults import is_control_flow, is_interrupt
from ibidem.core.hazards import Access, After, Kind, hazard, is_ordered
from ibidem.core.parties import Table
from ibidem.core.signals import Signal

State = Literal["expected", "entered", "done", "failed", "unknown", "interrupted"]
"""`expected`: nothing was seen of it yet, and perhaps it never comes; `entered`: it came, and will end; the others: it has."""

COMES = 1.0
"""Seconds without any news of the turn after which a call that was never seen is not waited for any longer: the siblings of a
message start within milliseconds, and one that was filtered away never does."""

WRAPPED = 10.0
"""The same for one that is still in wrappers of the user's: one of these may wait, by a lock say, for the call that waits."""

AGAIN = 0.25
"""The same for one that ended in an earlier run of the same turn: on resume it mostly does not come again."""

TURNS = 1000
"""Turns whose calls come one by one that are known at a time."""


class Asked(NamedTuple):
    """A call as its message has it."""

    name: str
    id: Any
    tool: Tool | None
    """None: no tool of that name is known."""
    access: Access
    sought: Callable[[], Any] | None = None
    """Gives what a guard looks for in its place before it comes; None: it is not sure to come as its message has it."""


class Place:
    """One call in its turn."""

    __slots__ = (
        "_hazards",
        "_inside",
        "_news",
        "_told",
        "access",
        "before",
        "behind",
        "earlier",
        "id",
        "missed",
        "name",
        "number",
        "parent",
        "sought",
        "state",
        "sure",
        "tool",
        "turn",
    )

    def __init__(self, turn: Turn, number: int, asked: Asked, *, sure: bool) -> None:
        self.turn = turn
        self.number = number
        """From 1."""
        self.name, self.id, self.tool, self.access, self.sought = asked
        self.sure = sure
        """Whether `access` is what is executed, rather than what the message says."""
        self.state: State = "entered" if sure else "expected"
        self.before: State | None = None
        """How it ended in an earlier run of the same turn."""
        self.missed = False
        """Whether it was waited for in vain, and has not come since."""
        self.behind = False
        """Whether an undeclared call comes before it, which may change anything and is not waited for."""
        self.earlier: Sequence[Place] = ()
        """The calls before it that it may have to wait for."""
        self.parent = current.get()
        """The call in whose body the turn is made."""
        self._hazards: dict[int, tuple[Access, Access, Kind | None]] = {}
        self._told: State | None = None
        self._news: Signal | None = None
        self._inside = 0

    # -- how far it has come

    @property
    def ended(self) -> bool:
        return self.state not in ("expected", "entered")

    def arrive(self, tool: Tool, access: Access) -> None:
        """Note what will be executed."""
        self.tool, self.access, self.sure = tool, access, True
        self._becomes("entered")

    def tell(self, outcome: Outcome) -> None:
        """Note how its tool ended; it may be tried again until it leaves."""
        fault = outcome.fault
        if fault is None:
            self._told = "done"
        elif self.access.effect.changes and (fault.kind == "maybe_executed" or fault.outcome_unknown):
            self._told = "unknown"
        else:
            self._told = "failed"

    def end(self, state: State) -> None:
        """Note that it has ended."""
        self._becomes(state)

    def _becomes(self, state: State) -> None:
        with self.turn.lock:
            self.state, self.missed = state, False
            self.turn.signs += 1
        self._tell()

    def miss(self) -> None:
        """Let nobody wait for it to come any longer."""
        self.missed = True
        self._tell()

    def _tell(self) -> None:
        with self.turn.lock:
            news, self._news = self._news, None
        if news is not None:
            news.give()

    def news(self) -> Signal:
        """Give what tells of the next step that it takes. Look how far it is after having asked for it."""
        with self.turn.lock:
            if self._news is None:
                self._news = Signal()
            return self._news

    def __enter__(self) -> Self:
        """Make it the place of the call that is made in this block.

        A wrapper may make a call several times, one after the other or at once: it ends when the last of them does.
        """
        _here.set((self, _here.get()))
        with self.turn.lock:
            self._inside += 1
        if self.state != "entered":
            self._told = None
            self._becomes("entered")
        return self

    def __exit__(self, kind: object, problem: BaseException | None, traceback: object) -> None:
        held = _here.get()
        _here.set(held[1] if held is not None else None)
        with self.turn.lock:
            self._inside -= 1
            if self._inside:
                return
        if problem is None:
            self.end(self._told or "done")
        elif is_interrupt(problem):
            self.end("interrupted")
        elif isinstance(problem, Exception) and not is_control_flow(problem):
            self.end(self._told or "failed")
        elif isinstance(problem, Exception):  # it goes on elsewhere in the graph: the tool itself is done
            self.end("done")
        else:  # cancelled
            self.end("unknown" if self.access.effect.changes else "failed")

    @property
    def ended_before(self) -> bool:
        """Whether it ended in an earlier run of the turn, and need not come again."""
        return self.state == "expected" and self.before is not None and self.before != "interrupted"

    # -- what it waits for

    def needs(self, other: Place) -> Literal["end", "arrival"] | None:
        """Say what an earlier call must do before this one may run; None: nothing."""
        if other.ended:
            return None
        if not other.sure:
            return "arrival"
        return "end" if self._hazard(other) is not None else None

    def _hazard(self, other: Place) -> Kind | None:
        """Say why it must not pass another one; worked out anew only if what one of them touches has changed."""
        known = self._hazards.get(other.number)
        if known is not None and known[0] is other.access and known[1] is self.access:
            return known[2]
        reason = hazard(other.access, self.access)
        self._hazards[other.number] = other.access, self.access, reason
        return reason

    @property
    def waits(self) -> bool:
        """Whether it must wait now."""
        return any(self.needs(other) is not None for other in self.earlier)

    @property
    def is_ordered(self) -> bool:
        """Whether it comes after another one, or may: then it is not answered from memory on the short way."""
        if self.earlier and not self.sure:
            return True
        return any(not (other.ended or other.sure) or self._hazard(other) is not None for other in self.earlier)

    def patience(self) -> float:
        """Give the seconds without news after which others wait no longer for it to arrive."""
        if self.state == "entered":
            return WRAPPED
        return AGAIN if self.ended_before else COMES

    def ordered_after(self, other: Place, ended: str | None = None) -> After | None:
        """Say why it came after another; None: it did not have to."""
        reason = self._hazard(other)
        ended = ended or (other.state if other.ended else other.before) or "late"
        return None if reason is None else After(other.number, other.name, reason, ended)


class Turn:
    """The calls of one message.

    Args:
        calls: In the order of emission.
        sure: Whether all will come, with the arguments that the message has.
    """

    def __init__(self, calls: Iterable[Asked], *, sure: bool) -> None:
        self.lock = threading.Lock()
        self.table = Table()
        """Where its calls meet that one request can answer."""
        self.signs = 0
        """Counts what was seen of its calls."""
        self.places = [Place(self, number, asked, sure=sure) for number, asked in enumerate(calls, 1)]
        ordered: list[Place] = []
        changing: list[Place] = []
        unknown = False
        for place in self.places:
            effect = place.access.effect
            place.behind = unknown and not isinstance(effect, Pure)
            unknown = unknown or not effect.declared
            if is_ordered(effect):
                place.earlier = tuple(ordered if effect.changes else changing)
                ordered.append(place)
                if effect.changes:
                    changing.append(place)

    @classmethod
    def of(cls, calls: Sequence[Asked], *, sure: bool) -> Turn | None:
        """Make the turn of some calls; None where nothing in it depends on there being one."""
        needed = len(calls) > 1 and any(each.access.effect.changes or each.access.effect.batch for each in calls)
        return cls(calls, sure=sure) if needed else None

    def give_up(self, seconds: float, before: Place) -> None:
        """Note that there was no news for so many seconds: who should have come before a call is not waited for."""
        for place in self.places[: before.number - 1]:  # those after it may have no thread yet
            if not (place.ended or place.sure) and place.patience() <= seconds:
                place.miss()

    def goes_on_from(self, earlier: Turn) -> None:
        """Take over how its calls ended in an earlier run of it."""
        for place, old in zip(self.places, earlier.places, strict=True):
            place.before = old.state if old.ended else old.before


class Book:
    """The turns whose calls come one by one, each a task of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: OrderedDict[Any, tuple[Any, Turn]] = OrderedDict()
        self._latest: OrderedDict[Any, Turn] = OrderedDict()
        forks.after(self)

    def _after_fork(self) -> None:
        """Start a forked child without turns: their calls are not there to end."""
        self._lock = threading.Lock()
        self._turns.clear()
        self._latest.clear()

    def turn(self, key: Any, run: Any, make: Callable[[], Turn], *, again: bool = True) -> Turn:
        """Find the turn of a call, or make it.

        Args:
            key: What the calls of the turn have in common, whichever run of the graph they are in.
            run: What they have in common in one run only; it is held, so that its id is nobody else's meanwhile.
            make: Makes the turn.
            again: Whether another run may go on with it.
        """
        with self._lock:
            found = self._turns.get((key, id(run)))
            if found is None:
                turn = make()
                if again and key in self._latest:
                    turn.goes_on_from(self._latest[key])
                found = self._turns[key, id(run)] = (run, turn)
                if again:
                    self._latest[key] = turn
                    self._latest.move_to_end(key)
                for known in (self._turns, self._latest):
                    if len(known) > TURNS:
                        known.popitem(last=False)
            return found[1]


_here: ContextVar[tuple[Place, Any] | None] = ContextVar("ibidem_place", default=None)
"""The place of the call that is being made here, and what was here before."""


def place_of(tool: Tool) -> Place | None:
    """Give the place of the call of a tool that is being made here; what its body calls has none."""
    place = here()
    return place if place is not None and place.tool is tool else None


def here() -> Place | None:
    """Give the place that the call made here takes; what its body calls has none."""
    held = _here.get()
    return held[0] if held is not None and held[0].parent is current.get() else None
