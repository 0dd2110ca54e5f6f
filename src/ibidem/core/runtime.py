"""Runtimes: the only place where synchronous and asynchronous callers differ.

Each layer is written once, as `async`. Under `AsyncioRuntime` it suspends; under `BlockingRuntime` nothing it awaits
ever suspends, so that one `send(None)` runs it to its end: no second copy, no generated code, no event loop behind a
synchronous caller's back.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ibidem.core.call import Call, Outcome, within
from ibidem.core.classify import fault_of
from ibidem.core.faults import is_control_flow
from ibidem.core.later import LATER
from ibidem.core.pool import POOL, TIMED, Task

if TYPE_CHECKING:
    from ibidem.core.signals import Waitable

T = TypeVar("T")


class Runtime(Protocol):
    """How a layer reaches the world."""

    awaits: bool
    """Whether coroutine functions of the user's can be run."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        ...

    def may_wait(self) -> bool:
        """Whether this caller may wait for another one."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pass time."""

    async def wait(self, flight: Waitable, seconds: float | None = None) -> bool:
        """Wait until a flight has ended, or a signal was given, at most so many seconds; false if they were not enough."""
        ...

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function in so many seconds, whatever has become of this caller by then."""

    async def limited(self, call: Call, step: Coroutine[Any, Any, Outcome], seconds: float) -> Outcome | None:
        """Run a step of a call, but wait for it no longer than so many seconds.

        Returns:
            None if the time is over. What then goes on alone is among `call.work.strays`; if that is nothing, the step
            never began.
        """
        ...

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


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    """Give the place of this thread, if it is one of a pool's, to another while it waits."""
    with POOL.waiting(), TIMED.waiting():
        yield


class AsyncioRuntime:
    """Serves callers on an event loop."""

    awaits = True

    def now(self) -> float:
        return time.monotonic()

    def may_wait(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def wait(self, flight: Waitable, seconds: float | None = None) -> bool:
        with _waiting():
            if seconds is None:
                await flight.landed()
                return True
            # What is cut short here is our own code, which a cancellation does end: no task is needed.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds)):
                    await flight.landed()
                    return True
            return flight.ended

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        LATER(seconds, function)

    async def limited(self, call: Call, step: Coroutine[Any, Any, Outcome], seconds: float) -> Outcome | None:
        # A task of its own: `asyncio.timeout` ends nothing that swallows its cancellation. By hand, since `asyncio.wait`
        # takes twice as long, and this is on the way of every call with a timeout.
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        timer = loop.call_later(seconds, _wake, ended)

        async def telling() -> Outcome:
            try:
                return await step
            finally:
                _wake(ended)  # not by a callback of the task, which would come a turn of the loop later

        task = loop.create_task(telling())
        try:
            await ended
        except asyncio.CancelledError:
            task.cancel()
            ended = loop.create_future()  # what the tool does about it is waited for as long as there is time
            task.add_done_callback(lambda _: _wake(ended))
            late = loop.call_at(timer.when(), _wake, ended)
            try:
                await ended
            finally:
                late.cancel()
                if not task.done():
                    _leave_behind(call, task)
                elif not task.cancelled():
                    task.exception()
            raise
        except BaseException:  # the loop is torn down under us
            with contextlib.suppress(RuntimeError):
                task.cancel()
            raise
        finally:
            timer.cancel()
        if task.done():
            return task.result()
        task.cancel()
        _leave_behind(call, task)
        return None

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
        pool = POOL if call.work.deadline is None else TIMED
        task = pool.submit(lambda: context.run(call.body))

        def ended() -> None:
            try:
                loop.call_soon_threadsafe(_wake, waiter)
            except RuntimeError:  # the loop is gone, and the caller with it
                return

        task.when_done(ended)
        try:
            with _waiting():  # this loop may be that of a synchronous tool, in a thread of the pool itself
                await waiter
        except BaseException:
            flight = call.work.flight
            if (flight is None or flight.waiters == 0) and task.cancel():
                raise  # it had not begun, and nobody is left who wants it
            if flight is not None:
                flight.detached = True
            call.work.cancel = task.cancel
            call.work.leave_behind(lambda tell: task.when_done(lambda: tell(_outcome_of(task))))
            if pool is TIMED:
                pool.leave(task)
            raise
        if task.error is not None:
            error, task.error = task.error, None  # its traceback holds this frame, and this frame the task
            raise error
        return task.value


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_left_behind: set[asyncio.Future[Any]] = set()
"""Tasks that go on alone: a loop itself holds its tasks weakly."""


def _leave_behind(call: Call, task: asyncio.Future[Outcome]) -> None:
    _left_behind.add(task)

    def ended(tell: Callable[[Any], None]) -> None:
        def done(_: object) -> None:
            tell(task.result() if not task.cancelled() and task.exception() is None else None)

        task.add_done_callback(done)

    task.add_done_callback(_left_behind.discard)
    task.add_done_callback(lambda _: task.cancelled() or task.exception())  # or asyncio says that nobody looked
    call.work.leave_behind(ended)


def _outcome_of(task: Task) -> Outcome | None:
    """What a task left behind that others may be given; None where there is nothing to share."""
    if not task.finished:
        return None
    if task.error is None:
        return Outcome(task.value)
    if isinstance(task.error, Exception) and not is_control_flow(task.error):
        return Outcome(fault=fault_of(task.error))
    return None


class BlockingRuntime:
    """Serves callers in a thread; the tool runs in that thread."""

    awaits = False

    def now(self) -> float:
        return time.monotonic()

    def may_wait(self) -> bool:
        # On the thread of a running loop the leader may be a task of that very loop.
        return asyncio._get_running_loop() is None

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251

    async def wait(self, flight: Waitable, seconds: float | None = None) -> bool:
        with _waiting():
            return flight.landed_blocking(seconds)

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        LATER(seconds, function)

    async def limited(self, call: Call, step: Coroutine[Any, Any, Outcome], seconds: float) -> Outcome | None:
        if not call.tool.policies.timeout_thread:
            return await step  # it must run in this thread, and this thread cannot leave it
        context = contextvars.copy_context()
        task = TIMED.submit(lambda: context.run(run_blocking, step))
        ended = threading.Lock()
        ended.acquire()
        task.when_done(ended.release)
        over = True
        try:
            with _waiting():
                over = not ended.acquire(timeout=seconds)
        finally:
            if over:
                if task.cancel():
                    step.close()
                else:
                    TIMED.leave(task)
                    call.work.leave_behind(lambda tell: task.when_done(lambda: tell(task.value)))
        if over:
            return None
        if task.error is not None:
            error, task.error = task.error, None  # its traceback holds this frame, and this frame the task
            raise error
        value: Outcome = task.value
        return value

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
