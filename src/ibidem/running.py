"""Running calls for code that wants outcomes: one, or several at a time, each a value or a fault and never an exception."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ibidem.core.call import Call, Outcome, Tool, current
from ibidem.core.classify import fault_of
from ibidem.core.effects import UNDECLARED
from ibidem.core.faults import is_control_flow
from ibidem.core.hazards import Access
from ibidem.core.identity import is_async
from ibidem.core.pool import POOL
from ibidem.core.runtime import ASYNCIO, BLOCKING, run_blocking
from ibidem.core.turns import Asked, Place, Turn
from ibidem.report.summary import Outcomes

if TYPE_CHECKING:
    from ibidem.bound import Bound

Ask = Callable[[tuple[Any, ...], dict[str, Any], Any], Outcome | Call]


class Runner:
    """What can run calls: a guard, or one that is bound."""

    def here(self) -> Bound:
        """Give the guard and who asks."""
        raise NotImplementedError

    def run(self, tool: Any, /, *args: Any, **kwargs: Any) -> Outcome:
        """Call a tool or a function and give its outcome: a value or a fault, and never an exception.

        Args:
            tool: Wrapped or not.
            *args: Of a function; a LangChain tool takes one dict, or named ones.
            **kwargs: Its arguments.

        Raises:
            TypeError: The function is asynchronous: use `arun`.
        """
        return run(self.here(), tool, args, kwargs)

    async def arun(self, tool: Any, /, *args: Any, **kwargs: Any) -> Outcome:
        """Do the same on an event loop; a synchronous function runs in a thread."""
        return await arun(self.here(), tool, args, kwargs)

    def gather(self, calls: Iterable[Any]) -> Outcomes:
        """Run several calls at a time and give their outcomes in order: one that fails costs the others nothing.

        Args:
            calls: `(tool, {argument: value})` or `functools.partial(tool, argument=value)`.

        Raises:
            TypeError: A function is asynchronous: use `agather`. None has been called.
        """
        return gather(self.here(), calls)

    async def agather(self, calls: Iterable[Any]) -> Outcomes:
        """Do the same on an event loop."""
        return await agather(self.here(), calls)


class Wanted:
    """Where the outcome of a call is put whose framework gives only its value."""

    __slots__ = ("outcome", "parent", "tool")

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.parent = current.get()
        self.outcome: Outcome | None = None


wanted: ContextVar[Wanted | None] = ContextVar("ibidem_wanted", default=None)


def note(tool: Tool, outcome: Outcome) -> None:
    """Put an outcome where it is wanted. Called by the guard for every call."""
    holder = wanted.get()
    if holder is not None and holder.tool is tool and holder.parent is current.get():
        holder.outcome = outcome


def run(bound: Bound, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    """Call a tool or a function and give the outcome."""
    _refuse_coroutines(target)
    if bound.guard.off:
        return run_blocking(_plainly(target, "invoke", args, kwargs))
    wrapped = _wrapped(bound, target)
    ask: Ask | None = getattr(wrapped, "__ibidem_ask__", None)
    holder = None if ask is not None else Wanted(wrapped.__ibidem_binding__.tool)
    try:
        if ask is not None:
            asked = ask(args, kwargs, BLOCKING)
            return asked if isinstance(asked, Outcome) else run_blocking(bound.guard.through(asked))
        token = wanted.set(holder)
        try:
            return _given(wrapped.invoke(_input(args, kwargs)), holder)
        finally:
            wanted.reset(token)
    except Exception as problem:
        return _failed(problem, holder)


async def arun(bound: Bound, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    """Do the same on an event loop; a synchronous function runs in a thread."""
    if bound.guard.off:
        return await _plainly(target, "ainvoke", args, kwargs)
    wrapped = _wrapped(bound, target)
    ask: Ask | None = getattr(wrapped, "__ibidem_ask__", None)
    holder = None if ask is not None else Wanted(wrapped.__ibidem_binding__.tool)
    try:
        if ask is not None:
            asked = ask(args, kwargs, ASYNCIO)
            return asked if isinstance(asked, Outcome) else await bound.guard.through(asked)
        token = wanted.set(holder)
        try:
            return _given(await wrapped.ainvoke(_input(args, kwargs)), holder)
        finally:
            wanted.reset(token)
    except Exception as problem:
        return _failed(problem, holder)


def gather(bound: Bound, calls: Iterable[Any]) -> Outcomes:
    """Run several calls at a time, in threads."""
    asked = [_asked(bound, each) for each in calls]
    for target, _, _ in asked:
        _refuse_coroutines(target)
    outcomes = run_turn([Step(asked_of(*call), functools.partial(run, bound, *call)) for call in asked])
    return Outcomes([_name(target) for target, _, _ in asked], outcomes)


async def agather(bound: Bound, calls: Iterable[Any]) -> Outcomes:
    """Run several calls at a time, on an event loop."""
    asked = [_asked(bound, each) for each in calls]
    outcomes = await arun_turn([Step(asked_of(*call), functools.partial(arun, bound, *call)) for call in asked])
    return Outcomes([_name(target) for target, _, _ in asked], outcomes)


class Step(NamedTuple):
    """One call of a turn: what it will do to what, and how it is run."""

    asked: Asked
    run: Callable[[], Any]
    """Makes the call, once; for `arun_turn` it gives an awaitable. Its tool is the one that `asked` names."""


def run_turn(steps: Sequence[Step]) -> list[Any]:
    """Run the calls of one turn, in threads: in the order given where one may change what another touches, else at once.

    Args:
        steps: In the order of emission.

    Raises:
        BaseException: The first that a step raised, when all have ended; failures should be values.
    """
    left, over = [len(steps)], threading.Event()
    lock = threading.Lock()

    def ended() -> None:
        with lock:
            left[0] -= 1
            if not left[0]:
                over.set()

    tasks = [POOL.submit(functools.partial(contextvars.copy_context().run, step)) for step in _in_places(steps)]
    for task in tasks:
        task.when_done(ended)
    if tasks:
        with POOL.waiting():
            over.wait()
    for task in tasks:
        if task.error is not None:
            raise task.error  # control flow, which is nobody's failure
    return [task.value for task in tasks]


async def arun_turn(steps: Sequence[Step]) -> list[Any]:
    """Do the same on an event loop."""

    async def one(step: Step, place: Place | None) -> Any:
        if place is None:
            return await step.run()
        with place:
            return await step.run()

    turn = Turn.of([step.asked for step in steps], sure=True)
    places: Sequence[Place | None] = turn.places if turn is not None else [None] * len(steps)
    ran = map(one, steps, places)
    outcomes = await asyncio.gather(*ran, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome  # control flow, which is nobody's failure
    return outcomes


def _in_places(steps: Sequence[Step]) -> Iterator[Callable[[], Any]]:
    """Give what runs each step, in its place of the turn if there is an order to keep."""
    turn = Turn.of([step.asked for step in steps], sure=True)
    if turn is None:
        yield from (step.run for step in steps)
        return

    def one(step: Step, place: Place) -> Any:
        with place:
            return step.run()

    yield from (functools.partial(one, step, place) for step, place in zip(steps, turn.places, strict=True))


def asked_of(target: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Asked:
    """Say what a call of a wrapped tool or function will do to what, for its `Step`."""
    given = dict(kwargs or {})
    asked = getattr(target, "__ibidem_asked__", None)
    if asked is not None:
        return asked(args, given)  # type: ignore[no-any-return]
    binding = getattr(target, "__ibidem_binding__", None)
    if binding is None:  # the guard is off
        return Asked(_name(target), None, None, Access(UNDECLARED, None))
    told = _input(args, given)
    if isinstance(told, Mapping) and told.get("type") == "tool_call" and isinstance(told.get("args"), Mapping):
        told = told["args"]
    asked = binding.asked(told)
    return asked._replace(sought=functools.partial(binding.sought, told, None))  # type: ignore[no-any-return]


async def _plainly(target: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    """Make a call that passes no guard, because it is switched off."""
    try:
        value = getattr(target, method)(_input(args, kwargs)) if hasattr(target, method) else target(*args, **kwargs)
        return Outcome(await value if inspect.isawaitable(value) else value)
    except Exception as problem:
        return _failed(problem, None)


def _asked(bound: Bound, call: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Read one call of several."""
    if isinstance(call, functools.partial):
        return _wrapped(bound, call.func), call.args, dict(call.keywords)
    if isinstance(call, tuple) and len(call) == 2 and isinstance(call[1], Mapping):
        return _wrapped(bound, call[0]), (), dict(call[1])
    raise TypeError(f"a call is (tool, {{argument: value}}) or functools.partial(tool, argument=value), not {call!r}")


def _wrapped(bound: Bound, target: Any) -> Any:
    from ibidem.wrapping import adapt  # wrapping needs the guard; the guard needs it for this only

    wrapped = adapt(target, bound)
    if bound.guard.off:
        return wrapped
    if not hasattr(wrapped, "__ibidem_ask__") and not hasattr(wrapped, "__ibidem_binding__"):
        raise TypeError(f"{target!r} is no single tool: give a LangChain tool or a function")
    return wrapped


def _refuse_coroutines(target: Any) -> None:
    """Refuse a function whose call only makes a coroutine: what that does when it is awaited, no guard would see.

    Raises:
        TypeError: It is one.
    """
    if is_async(target):
        raise TypeError(f"{_name(target)!r} is asynchronous: await guard.arun(...), or guard.agather(...) for several")


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not args:
        return kwargs
    if len(args) == 1 and not kwargs:
        return args[0]
    raise TypeError("a LangChain tool takes named arguments, or one dict of them")


def _given(value: Any, holder: Wanted | None) -> Outcome:
    known = holder.outcome if holder is not None else None
    return Outcome(value) if known is None else replace(known, value=value)


def _failed(problem: Exception, holder: Wanted | None) -> Outcome:
    """Give the outcome that the guard knows, or make one of what went wrong before the tool was reached."""
    if is_control_flow(problem):
        raise problem
    known = holder.outcome if holder is not None else None
    if known is not None and known.fault is not None:
        return known
    fault = fault_of(problem)
    if isinstance(problem, TypeError):  # arguments that do not fit the function
        fault = replace(fault, kind="invalid_arguments")
    return Outcome(fault=replace(fault, may_have_run=False))


def _name(target: Any) -> str:
    return str(getattr(target, "name", None) or getattr(target, "__name__", repr(target)))
