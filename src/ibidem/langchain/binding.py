"""Bindings: what ties one LangChain tool to one guard, and takes its calls through."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.tools.base import _format_output
from pydantic import ValidationError

from ibidem.bound import Bound
from ibidem.core import telling
from ibidem.core.asker import running_config
from ibidem.core.call import Call, Outcome, Tool, current
from ibidem.core.copies import NotCopied, are_atoms, private
from ibidem.core.declarations import check_filled, decorated_effect
from ibidem.core.effects import UNDECLARED, Effect, Read, Undeclared
from ibidem.core.hazards import access
from ibidem.core.idempotency import idempotency_key
from ibidem.core.resources import Resource
from ibidem.core.runtime import ASYNCIO, BLOCKING, Runtime, run_blocking
from ibidem.core.sought import Sought
from ibidem.core.turns import Asked, place_of
from ibidem.langchain.failures import note_fault, note_misuse
from ibidem.langchain.shape import Shape, listens

_left: ContextVar[Call | None] = ContextVar("ibidem_left", default=None)
"""The call in whose body its own tool is called again: what runs now is another call."""

_NOTHING: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


@contextlib.contextmanager
def _anew(call: Call) -> Iterator[None]:
    token = _left.set(call)
    try:
        yield
    finally:
        _left.reset(token)


class Note:
    """Carries an outcome from where a tool runs to where its message is made."""

    __slots__ = ("outcome", "tool")

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.outcome: Outcome | None = None


note: ContextVar[Note | None] = ContextVar("ibidem_note", default=None)
"""Where the outcome of the tool call under way is to be put."""


_ADVICE = (
    "{!r} has only an asynchronous function: `await tool.ainvoke(...)`, or `await graph.ainvoke(...)` for the graph that "
    "it is in. The cells of a notebook can await; elsewhere, asyncio.run(...) can."
)


class Binding:
    """What a twin knows: its tool, its guard, and how to name the arguments of a call."""

    def __init__(self, plain: BaseTool, bound: Bound, effect: Effect | None = None) -> None:
        self.plain = plain
        self.bound = bound
        self.guard = bound.guard
        self.effect = effect
        """The effect that it was wrapped with, if it was not the guard that knew it."""
        self.shape = Shape(plain)
        function = self.shape.function
        self.tool = self.guard.toolbox.declare(
            Tool(
                name=plain.name,
                effect=UNDECLARED,
                origin="",
                identify=self.shape.identity(),
                parameters=self.shape.parameters,
                reason=self.shape.reason,
                function=function,
                shareable=self.shape.shareable,
            ),
            decorated=effect if effect is not None else decorated_effect(plain, function),
            hinted=Read() if self.shape.hinted_read_only else None,
        )
        names = self.shape.parameters
        check_filled(self.tool, None if names is None else names | self.shape.injected)
        self.offloads = not self.shape.awaits and (
            self.tool.effect.merge or (self.tool.policies.timeout is not None and self.tool.policies.timeout_thread)
        )
        """Whether its body is taken to a thread by the guard, which can share it there, or leave it behind."""

    def hit(
        self, twin: BaseTool, call: Any, config: Mapping[str, Any] | None, *, quiet: bool = False, number: int = 0
    ) -> ToolMessage | None:
        """Answer a tool call from the memo without running LangChain's machinery, where nobody would see it run.

        Args:
            twin: The tool.
            call: Its `args` and `id`.
            config: LangChain's.
            quiet: Whether the caller knows already that nobody listens to this configuration.
            number: Its place in its turn, where it is answered before it takes that.
        """
        if not self.tool.effect.remembered or self.shape.quick is None:
            return None
        if twin.callbacks or twin.verbose or (not quiet and listens(config)):
            return None
        if config is None or "configurable" not in config:
            config = {**running_config(), **(config or {})}
        try:
            arguments = self.shape.quick(call["args"])
        except (ValidationError, TypeError):
            return None  # the long way says what is wrong
        sought = self.guard.seek(self.tool, arguments, given=self.bound.given, config=config)
        outcome = self.guard.hit(sought, number=number)
        if outcome is None:
            return None
        content, artifact = outcome.value if self.shape.has_artifact else (outcome.value, None)
        message = _format_output(content, artifact, call["id"], twin.name, "success")
        return annotated(message, outcome)  # type: ignore[no-any-return]

    @property
    def waits_on_loop(self) -> bool:
        """Whether an asynchronous call takes a thread only to run: it may have to wait, and threads have a bound."""
        if self.offloads or self.shape.awaits:
            return self.offloads
        place = place_of(self.tool)
        return place is not None and place.is_ordered

    @property
    def speaks(self) -> bool:
        """Whether a model is told of a failure."""
        return telling.speaks(self.guard.errors, self.tool.effect)

    def filled(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, ...]:
        """Fill in the idempotency key of a call, where its tool takes one; `args` and `options` are those of `run`."""
        name = self.tool.effect.idempotency_key
        if name is None or not args or not isinstance(args[0], dict):
            return args
        config = options.get("config") or {}
        if "configurable" not in config:
            config = {**running_config(), **config}
        given = {key: value for key, value in args[0].items() if key != name and key not in self.shape.injected}
        key = idempotency_key(self.plain.name, given, options.get("tool_call_id"), self.bound.given, config)
        return ({**args[0], name: key}, *args[1:])

    def asked(self, args: Any, id: Any = None) -> Asked:  # noqa: A002
        """Say what a call with these raw arguments would do to what, before it is made."""
        return Asked(self.tool.name, id, self.tool, access(self.tool.effect, self.touched(args)))

    def sought(self, args: Any, config: Mapping[str, Any] | None) -> Sought | None:
        """Look for a call before it is made; None: its arguments take the tool itself to be read."""
        if self.shape.quick is None:
            return None
        try:
            return self.guard.seek(self.tool, self.shape.quick(args), given=self.bound.given, config=config)
        except (ValidationError, TypeError):
            return None

    def touched(self, args: Any) -> tuple[Resource, ...] | None:
        """Name what a call with these raw arguments reads or changes; None: that cannot be told beforehand."""
        effect = self.tool.effect
        if isinstance(effect, Undeclared) or effect.also is not None or self.shape.quick is None:
            return None
        try:
            return effect.touched(self.shape.quick(args))
        except Exception:
            return None

    def run(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take a call through the guard in this thread."""
        if self._is_inside():
            return run(*args, **kwargs)
        if self.shape.only_awaits:
            return self._ended(self._refused(run, args, kwargs))
        call = self._prepared(run, args, kwargs, BLOCKING, awaits=False)
        return self._ended(run_blocking(self.guard.through(call)))

    async def arun(
        self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, awaits: bool
    ) -> Any:
        """Take a call through the guard on the running loop."""
        if self._is_inside() and awaits:
            return await run(*args, **kwargs)
        call = self._prepared(run, args, kwargs, ASYNCIO, awaits=awaits)
        return self._ended(await self.guard.through(call))

    def again(self) -> contextlib.AbstractContextManager[None]:
        """Say that the tool is called from outside, also where that happens in the body of one of its own calls."""
        call = current.get()
        return _NOTHING if call is None or call.tool is not self.tool else _anew(call)

    def _is_inside(self) -> bool:
        """Whether this is the body of a call of this very tool: an `_arun` that calls `self._run`, say."""
        call = current.get()
        return call is not None and call.tool is self.tool and call is not _left.get()

    def _prepared(
        self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], runtime: Runtime, *, awaits: bool
    ) -> Call:
        arguments = self.shape.named(args, kwargs)
        own, again = (args, kwargs), self.tool.policies.retried
        changeable = not are_atoms(args, arguments)
        anew = changeable and again

        def copied() -> tuple[tuple[Any, ...], dict[str, Any]]:
            """Copy what the model gave; what the framework adds stays what it is."""
            given, whole = own
            positional, named = private((given, {name: whole[name] for name in arguments if name in whole}))
            return positional, {**whole, **named}

        def body() -> Any:
            positional, named = copied() if anew else own  # each attempt has its own: tools change what they are given
            return run(*positional, **named)

        sought = self.guard.seek(self.tool, arguments, given=self.bound.given)
        call = self.guard.prepare(sought, body, runtime, awaits=awaits)
        if changeable and (again or call.key is not None):
            try:
                own = copied()  # now: while it waits for others, its caller may change them
            except NotCopied:
                anew, call.work.single = False, again
        return call

    def _refused(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        """Answer a synchronous call of a tool that only awaits: from the memo, or with LangChain's error and advice.

        It leads no flight: whoever joined would be given its error, and he awaits.
        """
        sought = self.guard.seek(self.tool, self.shape.named(args, kwargs), given=self.bound.given)
        known = self.guard.hit(sought, only=True)
        if known is not None:
            return known

        note_misuse(self.tool)

        def body() -> Any:
            try:
                return run(*args, **kwargs)
            except NotImplementedError as problem:
                raise NotImplementedError(f"{problem} {_ADVICE.format(self.tool.name)}") from None

        sought = replace(sought, key=None, reason=sought.reason or "it was called synchronously and only awaits")
        return run_blocking(self.guard.through(self.guard.prepare(sought, body, BLOCKING)))

    def _ended(self, outcome: Outcome) -> Any:
        note_fault(self.tool, outcome)
        if outcome.how == "fallback" and self.shape.has_artifact and not self.shape.shareable(outcome.value):
            outcome = replace(outcome, value=(outcome.value, None))
        carrier = note.get()
        if carrier is not None and carrier.tool is self.tool:
            carrier.outcome = outcome
        return outcome.unwrap()


def annotated(message: Any, outcome: Outcome | None) -> Any:
    """Say on a replayed message how it came; its content stays as it is."""
    if outcome is not None and (outcome.how != "ran" or outcome.after) and isinstance(message, ToolMessage):
        said: dict[str, Any] = {"how": outcome.how, "age_s": round(outcome.age, 3)}
        if outcome.after:
            said["after"] = [str(each) for each in outcome.after]
        if outcome.fault is not None:
            said["kind"] = outcome.fault.kind
        message.response_metadata["ibidem"] = said
    return message
