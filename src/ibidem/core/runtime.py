"""Runtimes: the only place where synchronous and asynchronous callers differ.

Each layer is written once, as `async`. Under `AsyncioRuntime` it suspends; under `BlockingRuntime` nothing it awaits
ever suspends, so that one `send(None)` runs it to its end: no second copy, no generated code, no event loop behind a
synchronous caller's back.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ibidem.core.call import Call, Outcome, within
from ibidem.core.faults import Fault, is_control_flow
from ibidem.core.pool import POOL, Task

if TYPE_CHECKING:
    from ibidem.core.flights import Flight

T = TypeVar("T")


class Runtime(Protocol):
    """How a layer reaches the world."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        ...

    def may_wait(self) -> bool:
        """Whether this caller may wait for another one."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pass time."""

    async def wait(self, flight: Flight) -> None:
        """Wait until a flight has ended."""

    async def invoke(self, call: Call) -> Any:
        """Run the tool itself, in the body of the call."""
        ...

    def beside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], bool]:
        """Run something that the caller does not wait for, in a copy of its context.

        Args:
            work: It raises nothing but cancellation, and reaches the world through a runtime of this kind.

        Returns:
            A function that tells whether it still goes on.
        """
        ...


_beside: set[asyncio.Task[None]] = set()
"""What runs beside its caller: a loop refers to its tasks weakly, and one could be gone before it has ended."""


class AsyncioRuntime:
    """Serves callers on an event loop."""

    def now(self) -> float:
        return time.monotonic()

    def may_wait(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def wait(self, flight: Flight) -> None:
        with POOL.waiting():
            await flight.landed()

    async def invoke(self, call: Call) -> Any:
        if call.awaits:
            with within(call):
                return await call.body()
        return await self._offload(call)

    def beside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], bool]:
        async def later() -> None:
            await asyncio.sleep(0)  # an eager loop begins tasks at once, while the caller waits
            await work()

        loop = asyncio.get_running_loop()
        for task in [task for task in _beside if task.get_loop().is_closed()]:
            _beside.discard(task)  # closed without waiting for its tasks: it will not run to its end any more
        task = loop.create_task(later(), context=contextvars.copy_context())
        with contextlib.suppress(AttributeError):  # a task of another make
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio.gather does: nobody misses it
        _beside.add(task)
        task.add_done_callback(_beside.discard)
        return lambda: not (task.done() or loop.is_closed())

    async def _offload(self, call: Call) -> Any:
        """Run a synchronous tool in a thread; if the caller is cancelled, it goes on there and lands by itself."""
        with within(call):
            context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        task = POOL.submit(lambda: context.run(call.body))

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def ended() -> None:
            try:
                loop.call_soon_threadsafe(wake)
            except RuntimeError:  # the loop is gone, and the caller with it
                return

        task.when_done(ended)
        try:
            with POOL.waiting():  # this loop may be that of a synchronous tool, in a thread of the pool itself
                await waiter
        except BaseException:
            flight = call.work.flight
            if (flight is None or flight.waiters == 0) and task.cancel():
                raise  # it had not begun, and nobody is left who wants it
            if flight is not None:
                flight.detached = True
            call.work.cancel = task.cancel
            call.work.running = lambda tell: task.when_done(lambda: tell(_outcome_of(task)))
            raise
        if task.error is not None:
            error, task.error = task.error, None  # its traceback holds this frame, and this frame the task
            raise error
        return task.value


def _outcome_of(task: Task) -> Outcome | None:
    """What a task left behind that others may be given; None where there is nothing to share."""
    if not task.finished:
        return None
    if task.error is None:
        return Outcome(task.value)
    if isinstance(task.error, Exception) and not is_control_flow(task.error):
        return Outcome(fault=Fault(task.error))
    return None


class BlockingRuntime:
    """Serves callers in a thread; the tool runs in that thread."""

    def now(self) -> float:
        return time.monotonic()

    def may_wait(self) -> bool:
        # On the thread of a running loop the leader may be a task of that very loop.
        return asyncio._get_running_loop() is None

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251

    async def wait(self, flight: Flight) -> None:
        with POOL.waiting():
            flight.landed_blocking()

    async def invoke(self, call: Call) -> Any:
        with within(call):
            return call.body()

    def beside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], bool]:
        context = contextvars.copy_context()
        task = POOL.submit(lambda: context.run(run_blocking, work()))
        return lambda: not task.finished


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a chain of layers to its end in this thread.

    Raises:
        RuntimeError: A layer awaited something that is not of the runtime.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError(
        "a layer awaited something other than call.runtime while serving a synchronous caller: "
        "use `await call.runtime.sleep(...)` and the like, which serve both kinds"
    )


ASYNCIO = AsyncioRuntime()
BLOCKING = BlockingRuntime()
