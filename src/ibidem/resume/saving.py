"""Saving: what is known of a task that asks a person stands beside what its checkpointer keeps of the task.

LangGraph saves what a task asked with the checkpoint that the task began from, and hands all that is saved there to the tasks
of the resumed graph, in whatever process that is. What is written there for a task that does not exist is handed over with
the rest, and goes into no channel. So a resumed task finds what was known of it when it asked, and of that very attempt: where
the thread goes on from an earlier checkpoint, the task is another one.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ibidem.core.equality import same
from ibidem.report.events import logger
from ibidem.resume.scratchpad import CHECKPOINTER, TASK, asked_last, pending_writes

_CHANNEL = "__ibidem__"
_FORM = 1
_NAMESPACE = uuid.UUID("5b3c5f0e-7c1f-4bb4-9b0e-1b1d3c0a6c11")


class Saved(NamedTuple):
    """What was known of a task when it asked."""

    task: str
    version: int
    """The higher, the newer."""
    token: str
    """No other has it."""
    asked: list[Any] | None
    """What was asked last: the id and the value of each interrupt. None: whatever is asked now, no plan of it had asked that."""
    given: list[Any]
    """The answer that was there then: it is none to that question."""
    asks: str | None
    """The record that asks: of several in one task, whose answers LangGraph has in one list, no other may meanwhile."""
    records: Mapping[str, Any]

    @classmethod
    def last(cls, pad: Any, configurable: Mapping[str, Any]) -> tuple[Saved, bool] | None:
        """Find what was saved last of the task that runs here.

        Returns:
            It, and whether it tells all: unless the program has asked since, what is answered now was asked when something of
            the task was saved. (A run that is cancelled leaves what it saved behind, but not its question.)
        """
        task = configurable.get(TASK)
        found = _of(task, pending_writes(pad))
        if not found:
            return None
        last, asked = max(found, key=lambda each: each["version"]), told(asked_last(pad, task) or ())
        if last["form"] != _FORM:  # of another ibidem
            return cls(str(task), last["version"], secrets.token_hex(8), [], [], None, {}), False
        saved = cls(*(last[name] for name in cls._fields))
        return saved, saved.asked is None or any(same(each["asked"], asked) is not False for each in found)


def _of(task: Any, writes: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Give what was saved of a task."""
    return [
        value
        for _, channel, value in writes
        if channel == _CHANNEL and isinstance(value, dict) and value.get("task") == task
    ]


def told(interrupts: Any) -> list[Any]:
    """Tell interrupts apart: by their ids, where LangGraph gives each one of its own, and their values."""
    return [[getattr(each, "id", None), getattr(each, "value", each)] for each in interrupts]


def as_saved(configurable: Mapping[str, Any], value: Any) -> tuple[Any, bool]:
    """Give a value as it is when it was saved and read again, which may be another one: a list for a tuple.

    Returns:
        It, and whether it can be saved.
    """
    serde = getattr(configurable.get(CHECKPOINTER), "serde", None)
    try:
        return value if serde is None else serde.loads_typed(serde.dumps_typed(value)), True
    except Exception:  # then LangGraph cannot save it either
        return value, False


class Saver(NamedTuple):
    """Saves what is known of the task that runs here."""

    checkpointer: Any
    config: dict[str, Any]
    """Names the checkpoint that the task began from."""
    task: str

    @classmethod
    def here(cls, configurable: Mapping[str, Any]) -> Saver | None:
        """Find the checkpointer of the graph that runs here; None where nothing of it is saved."""
        checkpointer, task = configurable.get(CHECKPOINTER), configurable.get(TASK)
        namespace = str(configurable.get("checkpoint_ns") or "").rpartition("|")[0]
        checkpoint = (configurable.get("checkpoint_map") or {}).get(namespace)
        if checkpoint is None or task is None or not hasattr(checkpointer, "put_writes"):
            return None
        own = {name: value for name, value in configurable.items() if not name.startswith("__")}
        named = {**own, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}
        return cls(checkpointer, {"configurable": named}, task)

    def put(self, saved: Saved) -> None:
        """Save; a checkpointer that refuses keeps nobody from being asked.

        One that works on the loop that runs here would wait for itself.
        """
        try:
            self._may_block()
            self.checkpointer.put_writes(*self._arguments(saved))
        except Exception:
            logger.warning(_REFUSED, exc_info=True)

    async def aput(self, saved: Saved) -> None:
        """Do the same on an event loop."""
        try:
            await self.checkpointer.aput_writes(*self._arguments(saved))
        except Exception:
            logger.warning(_REFUSED, exc_info=True)

    def is_alone(self, saved: Saved) -> bool:
        """Whether nobody else has saved as much of the task meanwhile; where that cannot be told, nobody has."""
        try:
            self._may_block()
            return self._is_first(saved, self.checkpointer.get_tuple(self.config))
        except Exception:
            logger.warning(_REFUSED, exc_info=True)
            return True

    async def ais_alone(self, saved: Saved) -> bool:
        """Do the same on an event loop."""
        try:
            return self._is_first(saved, await self.checkpointer.aget_tuple(self.config))
        except Exception:
            logger.warning(_REFUSED, exc_info=True)
            return True

    def _may_block(self) -> None:
        """Raise, as if the checkpointer had refused, where it works on the very loop that would wait for it."""
        loop = asyncio._get_running_loop()
        if loop is not None and getattr(self.checkpointer, "loop", None) is loop:
            raise RuntimeError(_NOT_HERE)

    def _is_first(self, saved: Saved, found: Any) -> bool:
        rows = _of(self.task, (found and found.pending_writes) or ())
        return all(row["version"] < saved.version or row["token"] == saved.token for row in rows)

    def _arguments(self, saved: Saved) -> tuple[Any, ...]:
        row = {"form": _FORM, **saved._asdict()}
        return self.config, [(_CHANNEL, row)], str(uuid.uuid5(_NAMESPACE, saved.task + saved.token))


_NOT_HERE = "its checkpointer works on the event loop that waits for this call: await it, say with plan.arun()"

_REFUSED = (
    "what had been done when a person was asked could not be saved with the checkpoint; a resume in this process knows of it, "
    "one in another does not"
)
