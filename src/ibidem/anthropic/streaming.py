"""Streaming: calls that begin while the model still writes.

`certainty.py` decides which may; here they are made. The stream itself stays the SDK's: its events pass through, and each is
looked at on its way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from ibidem.anthropic.answering import written
from ibidem.anthropic.blocks import of
from ibidem.anthropic.certainty import Certainty, Level, Written
from ibidem.anthropic.planning import Desk
from ibidem.anthropic.tools import Results, Tools, tools_for
from ibidem.anthropic.turns import LoopTurn, Planned, ThreadTurn, Turn
from ibidem.bound import Bound
from ibidem.core.effects import Live, Pure, Read
from ibidem.guard import Guard

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic
    from anthropic.resources.beta import AsyncBeta, Beta

T = TypeVar("T", bound=Turn)


@overload
def stream(client: Anthropic | Beta, guard: Guard | Bound, *, tools: Tools = (), **request: Any) -> Stream: ...
@overload
def stream(
    client: AsyncAnthropic | AsyncBeta, guard: Guard | Bound, *, tools: Tools = (), **request: Any
) -> AsyncStream: ...
def stream(client: Any, guard: Guard | Bound, *, tools: Tools = (), **request: Any) -> Stream | AsyncStream:
    """Stream a message, and begin its calls as soon as they are certain.

    Use it as `client.messages.stream(...)`, in `with` or `async with`: what it gives has the events, `text_stream`,
    `get_final_message()` and the rest of the SDK's stream, and `answer()`, the message that answers the calls.

    A read begins when its block has stopped and is a whole JSON object, or when the next block begins. What may change
    something begins when the message says that it stops for its tools: one that is cut off starts no write, and what was
    read for it is discarded. Calls that touch one another keep their order.

    Args:
        client: `Anthropic` or `AsyncAnthropic`, or the `beta` of one.
        guard: What the calls pass; `guard.bind(conversation=...)` says whose they are.
        tools: As `answer` takes them; the request gets what `tools_for` makes of them.
        **request: Of `client.messages.stream`.
    """
    described = tools_for(tools, guard)
    if described:
        request["tools"] = described
    manager = client.messages.stream(**request)
    if hasattr(manager, "__aenter__"):
        return AsyncStream(manager, Desk(tools, guard, awaits=True).reviewed())
    return Stream(manager, Desk(tools, guard, awaits=False).reviewed())


class _Early(Generic[T]):
    """The calls of one message that is still being written."""

    def __init__(self, desk: Desk, turn: T) -> None:
        self.desk = desk
        self.turn = turn
        self.certainty = Certainty()
        self._places: dict[int, int | None] = {}
        """Of each call that was planned, by its id as an object: its place in the turn; None: it is not ours."""
        self._message: str | None = None
        self.blocks: list[Any] = []
        self.calls: list[Planned] = []

    def take(self, event: Any) -> None:
        """Look at an event, and begin what it makes certain."""
        if of(event, "type") == "message_start":
            self._message = of(event.message, "id")
        for call, level in self.certainty.follow(event):
            self._certain(call, level)

    def _certain(self, call: Written, level: Level) -> None:
        if id(call) not in self._places:
            planned = self.desk.plan(call.block, call.arguments(complete=level != "parsed"), self._message)
            place = None if planned is None else self.turn.add(planned)
            self._places[id(call)] = place
            if planned is not None:
                self.blocks.append(call.block)
                self.calls.append(planned)
        place = self._places[id(call)]
        if place is not None and (level == "asked" or _is_harmless(self.calls[place])):
            self.turn.start(place)


def _is_harmless(planned: Planned) -> bool:
    """Whether a call may be made in vain."""
    return planned.refused is None and isinstance(planned.access.effect, (Pure, Read, Live))


def _hooked(stream: Any) -> Any:
    if not hasattr(stream, "_iterator"):
        raise TypeError("the stream of this version of the SDK is not known to ibidem")
    return stream._iterator


class _Shown:
    """The SDK's stream, behind what is added to it."""

    _stream: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self._stream is None:
            raise AttributeError(f"{type(self).__name__} has no {name}; the stream begins in its `with` block")
        return getattr(self._stream, name)


class Stream(_Shown):
    """A message that streams, whose calls begin while it does."""

    def __init__(self, manager: Any, desk: Desk) -> None:
        self._manager = manager
        self._early = _Early(desk, ThreadTurn(desk.bound))

    def __enter__(self) -> Self:
        self._stream = self._manager.__enter__()
        self._stream._iterator = self._watched(_hooked(self._stream))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is not None or not self._early.certainty.asked:
            self._early.turn.stop()
        self._manager.__exit__(kind, problem, at)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)

    def __next__(self) -> Any:
        return next(self._stream)

    def answer(self) -> Results | None:
        """Read the message to its end, and give the one that answers its calls.

        Returns:
            None where there is nothing to answer: no call of ours, or the message was cut off or paused.

        Raises:
            Exception: What a tool raised, under `Guard(errors="raise")`.
        """
        self._stream.until_done()
        early = self._early
        if not early.certainty.asked:
            return None
        return written(early.desk.bound, early.blocks, early.calls, early.turn.wait())

    def _watched(self, events: Iterator[Any]) -> Iterator[Any]:
        for event in events:
            self._early.take(event)
            yield event


class AsyncStream(_Shown):
    """The same on an event loop."""

    def __init__(self, manager: Any, desk: Desk) -> None:
        self._manager = manager
        self._early = _Early(desk, LoopTurn(desk.bound))

    async def __aenter__(self) -> Self:
        self._stream = await self._manager.__aenter__()
        self._stream._iterator = self._watched(_hooked(self._stream))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is not None or not self._early.certainty.asked:
            self._early.turn.stop()
        await self._manager.__aexit__(kind, problem, at)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]

    async def __anext__(self) -> Any:
        return await self._stream.__anext__()

    async def answer(self) -> Results | None:
        """Read the message to its end, and give the one that answers its calls; None where there is nothing to answer."""
        await self._stream.until_done()
        early = self._early
        if not early.certainty.asked:
            early.turn.stop()
            return None
        try:
            outcomes = await early.turn.wait()
        except BaseException:
            early.turn.stop()
            raise
        return written(early.desk.bound, early.blocks, early.calls, outcomes)

    async def _watched(self, events: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for event in events:
            self._early.take(event)
            yield event
