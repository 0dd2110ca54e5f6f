"""The reporter: counts what happens, and tells whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ibidem.core.call import Call, Outcome
from ibidem.core.hazards import After
from ibidem.report.events import Event, Kind, logger
from ibidem.report.statistics import Recorder, Stats


class Reporter:
    """What a guard says about its calls.

    Args:
        on_event: Told of everything that happens; what it raises is logged and goes no further.
    """

    def __init__(self, on_event: Callable[[Event], object] | None) -> None:
        self._on_event = on_event
        self._recorder = Recorder()

    def came(self, tool: str, conversation: str, outcome: Outcome, reason: str | None) -> None:
        """Count a call that has an outcome."""
        failed = outcome.fault is not None
        self._recorder.came(tool, outcome, reason)
        if self._on_event is not None:
            kind: Kind = "failed" if failed and outcome.how in ("ran", "batch") else outcome.how
            said = outcome.fault.kind if outcome.fault is not None else ""
            self.tell(kind, tool, conversation, outcome.elapsed, outcome.age, reason or said)

    def stopped(self, call: Call, flow: BaseException) -> None:
        """Count a call that control flow ended."""
        self._recorder.stopped(call.tool.name)
        self.tell("interrupted", call.tool.name, call.asker.conversation[1], reason=type(flow).__name__)

    def not_remembered(self, call: Call, reason: str) -> None:
        """Count a result that was not kept."""
        self._recorder.not_remembered(call.tool.name, reason)
        logger.debug("%s: a result was not remembered: %s", call.tool.name, reason)
        self.tell("not remembered", call.tool.name, call.asker.conversation[1], reason=reason)

    def retried(self, call: Call, reason: str) -> None:
        """Count a retry."""
        self._recorder.retried(call.tool.name)
        self.tell("retried", call.tool.name, call.asker.conversation[1], reason=reason)

    def ordered(self, call: Call, after: After) -> None:
        """Tell of an earlier call of its turn that a call was ordered after, or was to be."""
        late = after.ended == "late"
        if late:
            logger.warning("%s runs without waiting any longer for %s", call.tool.name, after)
        self.tell("passed" if late else "waited", call.tool.name, call.asker.conversation[1], reason=str(after))

    def switched(self, call: Call, to: Any) -> None:
        """Tell of a circuit that has opened or closed."""
        name = call.tool.policies.dependency
        logger.warning("the circuit of %s has %s", name, to)
        self.tell(to, call.tool.name, call.asker.conversation[1], reason=name)

    def snapshot(self) -> Stats:
        """Give the counts as of now."""
        return self._recorder.snapshot()

    def tell(
        self, kind: Kind, tool: str, conversation: str, elapsed: float = 0.0, age: float = 0.0, reason: str = ""
    ) -> None:
        """Tell of an event."""
        if self._on_event is None:
            return
        try:
            self._on_event(Event(kind, tool, conversation, elapsed, age, reason))
        except Exception:
            logger.exception("on_event failed; the call goes on")
