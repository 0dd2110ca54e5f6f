"""Tasks: what is known of those tasks of graphs in which plans, or nodes of several calls, were begun."""

from __future__ import annotations

import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from ibidem.core import forks
from ibidem.core.equality import same
from ibidem.report.events import logger
from ibidem.resume.records import Form, Record
from ibidem.resume.saving import Saved, told
from ibidem.resume.scratchpad import PAD, TASK, asked_last

TASKS = 256
"""Tasks that are kept in this process when nothing runs in them."""

SAVED = 1_000_000
"""More than an attempt saves."""


@dataclass(slots=True)
class Task:
    """What is known of a task."""

    attempt: ReferenceType[Any] | None = None
    """Tells which attempt is under way, as long as it is."""
    begun: Counter[Any] = field(default_factory=Counter)
    """How many plans of each kind the attempt has begun."""
    records: dict[str, Record] = field(default_factory=dict)
    counted: int = 0
    """The questions of plans that the attempt has counted."""
    asks: str | None = None
    """The plan that asks: of several in one task, whose answers LangGraph has in one list, no other may meanwhile."""
    asked: list[Any] | None = field(default_factory=list)
    """What it asked last, as it is saved."""
    heard: list[Any] = field(default_factory=list)
    """All that it has asked, as far as that is known here."""
    given: list[Any] = field(default_factory=list)
    """The answer that was there when it asked last, whoever had it: it is none to that question."""
    saved: dict[str, Any] = field(default_factory=dict)
    """Records as they were saved, until their plans are begun."""
    version: int = 0
    """How often it was saved; what an attempt saves is newer than whatever an earlier one, that was left behind, saves late."""
    tokens: set[str] = field(default_factory=set)
    """Of what was saved of it here, or had from there: what is known here is not older."""
    is_lost: bool = False
    """Whether nothing is known of it but that there is something to know."""
    is_cut: bool = False
    """Whether somebody else runs it too."""

    def begin(self, pad: Any, configurable: Mapping[str, Any]) -> None:
        """Begin an attempt, with what was saved if it is news."""
        self.attempt, self.begun, self.counted = ref(_sign(pad)), Counter(), 0
        saved, is_whole = Saved.last(pad, configurable) or (None, False)
        self.version = -(-max(self.version, saved.version if saved else 0) // SAVED) * SAVED
        if saved is None or saved.token in self.tokens:
            self._look_again(pad, configurable)
            return
        self.records, self.saved, self.asks, self.is_lost = {}, {}, None, not is_whole
        self.asked, self.given = saved.asked, saved.given
        self.tokens.add(saved.token)
        self.heard = [] if saved.asked is None else [saved.asked]
        if is_whole:
            self.saved, self.asks = dict(saved.records), saved.asks

    def _look_again(self, pad: Any, configurable: Mapping[str, Any]) -> None:
        """Look whether what is known here is all: another process may have gone on, and could not save how far."""
        if not self.heard or self.asked is None:
            return
        asked = told(asked_last(pad, configurable.get(TASK)) or ())
        if asked and all(same(each, asked) is False for each in self.heard):
            self.is_lost = True
            self.cut()

    def is_in(self, pad: Any) -> bool:
        """Whether the attempt that has a scratchpad is the one under way."""
        return self.attempt is not None and self.attempt() is _sign(pad)

    def known(self, key: str, form: Form) -> Record | None:
        """Give the record of a plan; None: it has not been begun."""
        if key in self.saved and key not in self.records:
            try:
                self.records[key] = record = Record.read(self.saved[key], form)
                record.is_cut |= self.is_cut
            except Exception:  # whatever it is, it was not written here
                logger.warning("what was saved of a plan when it asked a person cannot be read", exc_info=True)
                self.is_lost = True
        return self.records.get(key)

    def forget(self, key: str) -> None:
        """Let nothing be known of a plan."""
        self.records.pop(key, None)
        self.saved.pop(key, None)

    def cut(self) -> None:
        """Note that somebody else runs it too: what is not known to have ended, another one may do."""
        self.is_cut = True
        for record in self.records.values():
            record.is_cut = True

    def save(self, task: str) -> Saved:
        """Give what is to be saved of it."""
        self.version += 1
        records = {**self.saved, **{key: record.write() for key, record in self.records.items()}}
        saved = Saved(task, self.version, secrets.token_hex(8), self.asked, self.given, self.asks, records)
        self.tokens.add(saved.token)
        return saved


class Kept:
    """The last tasks of which something is known here, and all that are under way."""

    def __init__(self) -> None:
        self.tasks: OrderedDict[Any, Task] = OrderedDict()
        self.under_way: WeakKeyDictionary[Any, Task] = WeakKeyDictionary()
        self._after_fork()
        forks.after(self)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()

    def task(self, configurable: Mapping[str, Any]) -> Task:
        """Give the task that runs here; the lock is held."""
        key, sign = (configurable.get("thread_id"), configurable.get("checkpoint_ns")), _sign(configurable[PAD])
        task = self.under_way[sign] = self.tasks[key] = self.under_way.get(sign) or self.tasks.get(key) or Task()
        self.tasks.move_to_end(key)
        while len(self.tasks) > TASKS:
            self.tasks.popitem(last=False)
        return task


def _sign(pad: Any) -> Any:
    """Give what lives as long as a scratchpad, to which nothing can refer weakly."""
    return pad.get_null_resume


KEPT = Kept()


def key_of(shape: Any, number: int) -> str:
    """Name a plan among those of its task.

    Args:
        shape: What tells it from others: strings, numbers and tuples of them.
        number: How many of that shape came before it.
    """
    return blake2b(repr((shape, number)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
