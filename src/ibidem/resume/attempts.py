"""Resuming: a plan in a graph whose step asked a person is begun again when she has answered; so is a node of several calls.

LangGraph runs a task that was interrupted again from its beginning, and gives the answers of people to whoever asks first.
In a plan, steps ask in no certain order, and what has run must not run twice. So:

- Each step sees a scratchpad of its own, in which there are no answers but its own. The step whose question was shown is
  begun first, with what it waits for and nothing else, until it has its answer.
- What a finished step that may have changed something gave is kept, and not run again. Reads are asked for again: the
  memo serves them if they still hold.
- What had begun is not decided about anew: a change that was made is not reported as skipped, and a mapped step that changes
  something goes on with the elements it had, in whatever order the list comes now.
- What is kept is saved beside the question, where the graph is resumed from, in whatever process. Where it could not be, what
  may have changed something is not run: it is `maybe_executed`. Whoever was asked is asked again.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import fields
from typing import Any

from ibidem.core.asker import running_config
from ibidem.core.equality import same
from ibidem.report.events import logger
from ibidem.resume import scratchpad
from ibidem.resume.keeping import Keeping
from ibidem.resume.records import PLAIN, Form, Record, Unit
from ibidem.resume.saving import Saved, Saver, as_saved, told
from ibidem.resume.scratchpad import AnotherAsks, Own
from ibidem.resume.tasks import KEPT, key_of

submitted: ContextVar[str | None] = ContextVar("ibidem_plan_submitted", default=None)
"""The id of the tool call by which a model submitted the plan that begins here."""


class Attempt(Keeping):
    """One run of a plan in a task of a graph."""

    def __init__(self, config: Mapping[str, Any], pad: Any, shape: Any, form: Form = PLAIN) -> None:
        self._config = config
        self._pad = pad
        configurable = config["configurable"]
        self._fields = {each.name: getattr(pad, each.name) for each in fields(pad)}
        self._taken = 0
        self._next_answer = 0
        self.unsaved: tuple[Saver, Saved] | None = None
        """What is to be saved next."""
        self._resumes = False
        self._around: Own | None = pad.interrupt_counter if isinstance(pad.interrupt_counter, Own) else None
        with KEPT.lock:
            if self._around is not None:
                self._begin_inside(self._around, shape, form)
                return
            self._task = task = KEPT.task(configurable)
            if not task.is_in(pad):
                task.begin(pad, configurable)
            is_answered = self._take_given()
            asked, saved = scratchpad.asked(pad), scratchpad.asked_last(pad, configurable.get(scratchpad.TASK))
            self._record = record = self._record_of(shape, form, base=asked - task.counted)
            self._is_alone = asked == record.base + task.counted
            """Whether nobody else in the task has asked since the plan was begun first."""
            # Answers that a cancelled run had are not the task's.
            record.used = min(record.used, max(0, len(pad.resume) - asked))
            record.offset = min(record.offset, len(pad.resume))
            if (
                record.asker is not None
                and saved is not None
                and same(scratchpad.values_of(saved), record.question) is False
            ):
                record.asker = None  # its question never left: what is answered is one from before
            if self._is_alone:
                self._count(record.used)  # answers that finished steps have had are nobody's any more
        if self.is_known:
            # Each attempt writes the answers that were had, or they are gone; a new one may be refused.
            had = pad.resume[: asked + (record.used if self._is_alone else 0)]
            if had:
                configurable[scratchpad.SEND]([("__resume__", had)])
        else:
            record.found = len(pad.resume) - asked + scratchpad.is_pending(pad.get_null_resume)
            if task.is_lost or (saved is not None and not is_answered):  # what asked then was not before the plan
                record.found = max(record.found, 1)
        self._resumes = task.version > 0
        if self._resumes:
            self.note()

    def _take_given(self) -> bool:
        """Take away the answer that is there for whoever asks first, where it is none to what was asked last.

        Returns:
            Whether something is answered.
        """
        configurable, pad = self._config["configurable"], self._pad
        given = scratchpad.given(pad, configurable.get(scratchpad.TASK))
        self._given = [given.value] if given else []
        if given and given.is_old and any(same(e, given.value) is not False for e in [*pad.resume, *self._task.given]):
            pad.get_null_resume(True)  # it was had, or there for what was asked before
            return False
        return bool(given or configurable.get(scratchpad.RESUME_MAP))

    def _record_of(self, shape: Any, form: Form, **new: Any) -> Record:
        """Give what is known of the plan; where it is nothing, begin to note it."""
        task = self._task
        self._key = key_of(shape, task.begun[shape])
        task.begun[shape] += 1
        known = task.known(self._key, form)
        self.is_known = known is not None
        record = task.records[self._key] = known or Record(form, **new)
        record.is_running = True
        return record

    def _begin_inside(self, around: Own, shape: Any, form: Form) -> None:
        """Begin a plan that a call of another one runs: what it does is kept, but it has no answers; the lock is held."""
        outer, self._is_alone = around.attempt, False
        self._task = outer._task
        self._record = self._record_of((outer._key, around.unit, shape), form, found=int(outer._task.is_lost))

    @classmethod
    def here(cls, shape: Any, form: Form = PLAIN) -> Attempt | None:
        """Find the task that a plan runs in; None outside graphs.

        Args:
            shape: Tells plans of one task apart: of strings, numbers and tuples.
            form: How the outcomes that are kept are written.
        """
        config = running_config()
        pad = (config.get("configurable") or {}).get(scratchpad.PAD)
        return None if pad is None else cls(config, pad, (submitted.get(), shape), form)

    @property
    def is_lost(self) -> bool:
        """Whether it is known that something was saved of the task, and not what was done since."""
        return self._task.is_lost

    @property
    def is_current(self) -> bool:
        """Whether the task has not been begun anew since."""
        return self._task.is_in(self._pad)

    @property
    def may_ask(self) -> bool:
        """Whether answers can be told apart: not in a plan that a call of another one runs."""
        return self._around is None

    def forget(self) -> None:
        """Let nothing be known any more, because nothing of it will be resumed."""
        with KEPT.lock:
            self._task.forget(self._key)
        self.stop()

    def still_asks(self, unit: Unit, question: Any) -> bool:
        """Note what a call asks before it is made; false: an answer that is there was given to another question."""
        before = self._record.questions.pop(unit, None)
        question, is_saved = as_saved(self._config["configurable"], question)
        if is_saved:  # else nobody is shown it
            self._record.questions[unit] = question
        return unit != self._record.asker or (is_saved and same(before, question) is True)

    def discard(self) -> None:
        """Note that the asker has taken an answer that was given to another question."""
        self._record.offset += 1
        self._record.used += 1
        self._taken -= 1

    def shown(self, unit: Unit, flow: BaseException) -> None:
        """Note whose question leaves the plan, and as what."""
        asked, _ = as_saved(self._config["configurable"], told(flow.args[0] if flow.args else ()))
        self._record.question = [value for _, value in asked]
        if unit != self._record.asker:
            self._drop()
            self._record.asker, self._record.offset = unit, len(self._pad.resume)
        self._taken = 0
        self._task.asked = asked
        self._task.heard.append(asked)
        self._task.given, _ = as_saved(self._config["configurable"], self._given)
        self._record.is_running = False
        self.note()

    def stop(self) -> None:
        """Note that nothing more is done in this attempt, but for what was begun."""
        self._record.is_running = False
        if self._task.version:
            self.note()

    def note(self) -> None:
        """Let what is known be saved next."""
        saver = Saver.here(self._config["configurable"])
        if saver is not None:
            with KEPT.lock:
                self.unsaved = saver, self._task.save(saver.task)

    def save(self) -> None:
        """Save where the graph is resumed from what is known, if it is to be known there.

        It is when a question was shown, when the task is resumed, before anything is done, and when a plan of it is over.
        """
        unsaved, self.unsaved = self.unsaved, None
        if unsaved is not None:
            saver, saved = unsaved
            saver.put(saved)
            if self._resumes and not saver.is_alone(saved):
                self._give_way()
            self._resumes = False

    async def asave(self) -> None:
        """Do the same on an event loop."""
        unsaved, self.unsaved = self.unsaved, None
        if unsaved is not None:
            saver, saved = unsaved
            await saver.aput(saved)
            if self._resumes and not await saver.ais_alone(saved):
                self._give_way()
            self._resumes = False

    def _give_way(self) -> None:
        """Change nothing that another process may change, which resumes the same task at the same time."""
        logger.warning("a task is resumed twice at the same time: what it has not done yet, this run does not do")
        with KEPT.lock:
            self._task.cut()

    def _drop(self) -> None:
        """Let the answer of an asker that did not come to ask again, since something it needs failed, be nobody's."""
        if self._record.asker is None or not self._is_alone:
            return
        pad = self._pad
        if scratchpad.is_pending(pad.get_null_resume):
            pad.resume.append(pad.get_null_resume(True))
            self._config["configurable"][scratchpad.SEND]([("__resume__", list(pad.resume))])
        self._record.used += len(pad.resume) - self._record.offset
        self._record.asker = None
        with KEPT.lock:
            self._count(len(pad.resume) - scratchpad.asked(pad))

    def finish(self) -> None:
        """Let what the program asks after the plan have the answers after those of the plan."""
        self._drop()
        with KEPT.lock:
            if self._task.asks == self._key:
                self._task.asks = None
            if self._task.asks is None and self.may_ask:
                self._task.asked = None
        self.stop()

    def _claim(self) -> int:
        """Number a question that has no answer yet.

        Raises:
            AnotherAsks: Another plan of the task asks, or one around this one would have to.
        """
        if not self.may_ask:
            raise AnotherAsks(inside=True)
        with KEPT.lock:
            if self._task.asks is None:
                self._task.asks = self._key
            if self._task.asks != self._key:
                raise AnotherAsks
        return scratchpad.NEVER

    def _number(self) -> int:
        """Number a question of the asker; where somebody else in the task has asked meanwhile, it has no answer."""
        with KEPT.lock:
            if not self._is_alone or scratchpad.asked(self._pad) != self._record.base + self._task.counted:
                self._is_alone = False
                return scratchpad.NEVER
            self._count(1)
            self._taken += 1
            self._next_answer += 1
            return self._next_answer - 1

    def _count(self, questions: int) -> None:
        """Count questions where everybody in the task counts them; the lock is held."""
        self._task.counted += questions
        for _ in range(questions):
            self._pad.interrupt_counter()

    def _null(self, consume: bool = False) -> Any:  # as LangGraph calls it
        return self._pad.get_null_resume(consume) if self._is_alone else None

    @contextlib.contextmanager
    def around(self, unit: Unit, number: int, *, hidden: bool) -> Iterator[None]:
        """Let a call see no answers but its own.

        Args:
            unit: The call.
            number: One of its own, the same in every attempt.
            hidden: Whether it sees nothing of there being answers at all, so that the memo may serve it.
        """
        configurable = dict(self._config["configurable"])
        counter: Callable[[], int] = self._claim
        null: Callable[..., Any] = lambda consume=False: None  # noqa: ARG005, E731
        if unit == self._record.asker:
            self._next_answer = self._record.offset
            counter, null = self._number, self._null
        own = {**self._fields, "interrupt_counter": Own(self, unit, counter), "get_null_resume": null}
        if hidden:
            own["resume"] = []
            configurable.pop(scratchpad.RESUMING, None)
        own["subgraph_counter"] = itertools.count(number).__next__  # in a graph below, too, one is known by its number
        configurable[scratchpad.PAD] = type(self._pad)(**own)
        with scratchpad.running_with({**self._config, "configurable": configurable}):
            yield
