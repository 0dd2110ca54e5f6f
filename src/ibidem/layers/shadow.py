"""Shadow: a memo that serves nothing, and finds out what it would have served.

Every call runs. What a memo would have answered is looked up before the run and compared after it; what it would have
stored is stored, and forgotten by changes. An entry that would have been served stays as it is, since a memo would have
gone on serving it: stored anew after each run, it would never be older than one call. One that was found to be wrong
makes room in the store for what the run answered, since a guard in earnest may be the next to look there; it is compared
from elsewhere for as long as it would have lived.

Identical calls at the same time all run too. One that a memo would have let share another's run is compared with what
that one answered, if it has by then: waiting for it would change the timing that is being tried out.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ibidem.core import forks
from ibidem.core.asker import resumes, running_config
from ibidem.core.call import Call, Inner, Key, Outcome
from ibidem.core.copies import NotCopied, private, size
from ibidem.core.effects import Undeclared
from ibidem.core.equality import same
from ibidem.core.faults import is_interrupt
from ibidem.core.flights import Flight
from ibidem.core.keys import canonical
from ibidem.layers.comparing import Answer
from ibidem.layers.memo import Memo
from ibidem.report.events import logger
from ibidem.report.trials import Trials, Verdict
from ibidem.stores.memory import Memory
from ibidem.stores.protocol import Entry

Conversation = tuple[str, str]


class Seen(NamedTuple):
    """What is known of a call of an undeclared tool when it begins."""

    key: Key
    before: Entry | None
    """What an identical call of the same conversation answered."""
    apart: bool
    """Whether another call may have changed something since."""


class Repeats:
    """Remembers what undeclared tools answered, to see whether they answer the same again; bounded, never served."""

    def __init__(self) -> None:
        self._answers = Memory(max_entries=1000, max_bytes=8 * 2**20)
        self._numbers = itertools.count(1)
        self._last: OrderedDict[Conversation, int] = OrderedDict()
        """The number of the last change in each conversation."""
        self._lock = threading.Lock()
        forks.after(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def begin(self, call: Call) -> Seen | None:
        """Look for an earlier call that is identical; None: it cannot be told, or does not count.

        A task that runs again after a person was asked repeats its calls by itself: that says nothing of the tools.
        """
        conversation = call.asker.conversation
        try:
            if resumes(running_config().get("configurable") or {}):
                return None
            key = Key(call.tool.identify(), conversation, canonical(call.arguments))  # before the tool changes them
        except Exception:
            return None
        before = self._answers.get(key)
        return Seen(key, before, before is not None and self._last.get(conversation, 0) > before.snapshot)

    def changed(self, conversation: Conversation) -> int:
        """Number a call that may have changed something, when it has ended."""
        with self._lock:
            number = self._last[conversation] = next(self._numbers)
            self._last.move_to_end(conversation)
            if len(self._last) > 1000:
                self._last.popitem(last=False)
            return number

    def keep(self, seen: Seen, call: Call, value: Any, number: int) -> None:
        """Remember what a call answered, for the next one."""
        try:
            value = private(value)
        except NotCopied:
            return
        weight = size(value) + len(seen.key.arguments)
        entry = Entry(value, number, (), self._answers.now(), None, 0.0, call.tool.name, "", weight)
        self._answers.put(seen.key, entry)


@dataclass(frozen=True, repr=False)
class Shadow(Memo):
    """Runs every call, and compares what it answers with what a memo would have served."""

    trials: Trials
    tell: Callable[..., None]
    """Told of events."""
    repeats: Repeats = field(default_factory=Repeats)
    wrong: Memory = field(init=False)
    """Entries that were found to be wrong, and that a memo would go on serving."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "wrong", Memory(max_entries=1000, max_bytes=8 * 2**20, clock=self.store.now))

    def __repr__(self) -> str:
        return f"Shadow({self.store!r})"

    async def __call__(self, call: Call, inner: Inner, /) -> Outcome:
        self.trials.called(call.tool)
        if call.effect.changes:
            return await self._watched(call, inner)
        if call.key is None or self.store.marked(call.key.identity):
            return await self._alone(call, inner)
        entry = self._would_serve(call, call.key)
        if entry is not None:
            answer = Answer.of(self, call, entry)
            age = self.store.now() - entry.stored_at
            return await self._judged(call, inner, answer.verdict, age, entry)
        flight = None
        if self._may_share(call):
            flight = self.flights.board(call, self._joinable, self.store.stamps.now)
        if flight is None:
            return await self._alone(call, inner)
        if flight.call is call:
            return await self._lead(call, flight, inner, call.looked)
        self.flights.leave(call, flight)  # at once: it does not wait, and must not keep another's run alive
        return await self._judged(call, inner, lambda outcome: self._beside(call, flight, outcome))

    def find(self, key: Key, asking: Any) -> Outcome | None:  # noqa: ARG002
        """Serve nothing, whatever is remembered."""
        return None

    glance = find

    def _would_serve(self, call: Call, key: Key) -> Entry | None:
        """Give the entry that a memo would have served."""
        if call.behind or not call.effect.remembered:
            return None
        wrong = self.wrong.get(key)
        if wrong is None or wrong.snapshot < self.store.purged_at:
            return self.known(key, call.asking)
        return wrong if self.holds(call.asking, wrong.cells, wrong.snapshot) else self.known(key, call.asking)

    async def _judged(
        self,
        call: Call,
        inner: Inner,
        judge: Callable[[Outcome], Verdict | None],
        age: float = 0.0,
        entry: Entry | None = None,
    ) -> Outcome:
        """Run a call that a memo would have answered, and judge the answer it would have given."""
        run = Flight(self.flights, call, self.store.stamps.now())  # nobody boards it
        try:
            outcome = await self._alone(call, inner)
        except BaseException:
            self.trials.judged(call.tool, "unclear")
            raise
        verdict = judge(outcome)
        if verdict is not None:
            self.trials.judged(call.tool, verdict)
        if verdict == "differed":
            reason = "a memo would have answered otherwise"
            self.tell("mismatch", call.tool.name, call.asker.conversation[1], outcome.elapsed, age, reason)
            if entry is not None:
                self._set_aside(call, entry, run, outcome)
        return outcome

    def _set_aside(self, call: Call, entry: Entry, run: Flight, outcome: Outcome) -> None:
        """Keep an entry that is wrong where it is compared and never served, and what a run answered in its place."""
        key = call.key
        assert key is not None  # noqa: S101
        self.wrong.put(key, entry)
        try:
            self._keep(call, run, outcome)
            kept = self.store.get(key)
            if kept is not None and same(kept.value, entry.value) is not False:  # the other could not be stored
                self.store.forget(lambda other, _: other == key)
        except Exception:
            logger.exception("%s: a wrong answer could not be taken out of the store", call.tool.name)

    def _beside(self, call: Call, flight: Flight, outcome: Outcome) -> Verdict | None:
        """Judge what a flight would have brought a call that did not wait for it; None: nothing, and it would have run."""
        landed = flight.outcome
        if not flight.ended:
            return "unclear"
        if landed is None or not self._complete(call, flight):
            return None
        if landed.fault is not None:
            return "same" if outcome.fault is not None else "differed"
        return Answer(self, call, landed.value, flight.cells, flight.snapshot, self.store.purged_at).verdict(outcome)

    async def _watched(self, call: Call, inner: Inner) -> Outcome:
        """Run a call that may change something; of an undeclared tool, see whether repeats answer the same."""
        seen = self.repeats.begin(call) if isinstance(call.effect, Undeclared) else None
        try:
            outcome = await self._change(call, inner)
        except BaseException as flow:
            if is_interrupt(flow):
                self.trials.asked(call.tool)
            self.repeats.changed(call.asker.conversation)
            raise
        number = self.repeats.changed(call.asker.conversation)
        if seen is not None and outcome.fault is None and call.tool.shareable(outcome.value):
            if seen.before is not None:
                self.trials.repeated(call.tool, same(seen.before.value, outcome.value), apart=seen.apart)
            self.repeats.keep(seen, call, outcome.value, number)
        return outcome
