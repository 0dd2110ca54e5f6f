"""Calls and their outcomes: what passes through the layers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar, dataclass_transform

from ibidem.core.effects import Effect, Scope
from ibidem.core.hazards import After
from ibidem.core.policies import NOTHING, Policies
from ibidem.core.resources import Cell

if TYPE_CHECKING:
    from ibidem.core.faults import Fault
    from ibidem.core.flights import Flight
    from ibidem.core.runtime import Runtime
    from ibidem.core.turns import Place

T = TypeVar("T")

How = Literal["ran", "memo", "shared", "batch", "fallback"]
"""How an outcome came: the tool ran, the memo had it, another caller's run was shared, another call's request asked for it
too, or a fallback stands for it."""


class Key(NamedTuple):
    """What a remembered result is found by, and what identical calls under way share."""

    identity: str
    """The tool, exactly."""
    partition: tuple[str, ...]
    """Who may be given the result."""
    arguments: bytes


class Asker(NamedTuple):
    """On whose behalf a call is made."""

    conversation: tuple[str, str]
    """Its kind (`thread`, `run`, `process`) and its id."""
    user: str | None = None

    def looks_at(self, scope: Scope) -> tuple[Cell, ...]:
        """The cells that a read of this scope looks at because of who asks."""
        own: Cell = ("conversation", *self.conversation)
        if scope == "conversation":
            return (own,)
        return (own, ("anyone",)) if self.user is None else (own, ("anyone",), ("user", self.user))

    def raises(self) -> tuple[Cell, ...]:
        """The cells that an undeclared call raises.

        A conversation without a thread is not found again: what changed in it is told to its user, or to everyone.
        """
        own: Cell = ("conversation", *self.conversation)
        if self.conversation[0] == "thread":
            return (own,)
        return (own, ("anyone",)) if self.user is None else (own, ("user", self.user))


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as one guard knows it."""

    name: str
    effect: Effect
    origin: str
    """Where the effect was declared."""
    identify: Callable[[], str]
    """Gives the identity as of now: a function that it names may have been redefined."""
    parameters: frozenset[str] | None
    """The names of its arguments; None if it takes any."""
    reason: str | None = None
    """Why its results are not remembered although its effect would allow it."""
    function: Any = None
    """The function behind it; where that is wrapped too, a call of the tool passes it without being seen again."""
    shareable: Callable[[Any], bool] = lambda _: True
    """Whether a result may be given to another call: not if it carries an id of this one."""
    policies: Policies = NOTHING
    """What is done about its failures."""

    def replace(self, **changes: Any) -> Tool:
        """Make a tool with some fields changed."""
        return replace(self, **changes)


Stray = Callable[[Callable[[Any], None]], None]
"""An execution that nobody waits for any more: takes a function that is given its outcome, or None if it left none."""


class Work:
    """The execution of one call, which may outlive whoever waits for it."""

    __slots__ = ("cancel", "deadline", "entered", "flight", "held", "single", "strays")

    def __init__(self) -> None:
        self.flight: Flight | None = None
        """The flight that it leads."""
        self.held: frozenset[Cell] = frozenset()
        """The cells that it holds open."""
        self.entered = False
        """Whether its body has reached the wrapped function that stands for the tool: one call passes a guard once."""
        self.strays: tuple[Stray, ...] = ()
        """The attempts that were left behind and go on alone, in a thread or a task."""
        self.cancel: Callable[[], object] | None = None
        """Where the work went on alone: keeps it from beginning, if it has not yet."""
        self.deadline: float | None = None
        """The second on the runtime's clock after which its caller waits no longer."""
        self.single = False
        """Whether its arguments cannot be had twice: they are used up, or changed, by the first attempt."""

    def leave_behind(self, stray: Stray) -> None:
        """Note an attempt that goes on alone."""
        self.strays = (*self.strays, stray)

    def when_ended(self, tell: Callable[[Outcome | None], None]) -> None:
        """Call `tell` once, when every attempt has really ended: now, unless one goes on alone.

        An attempt that ends may leave another behind (a cancelled task its thread), so each is asked in its turn.
        """
        best: list[Outcome] = []

        def ended(outcome: Outcome | None) -> None:
            if outcome is not None and (not best or best[0].fault is not None):
                best[:] = [outcome]
            if self.strays:
                stray, *rest = self.strays
                self.strays = tuple(rest)
                stray(ended)
            else:
                tell(best[0] if best else None)

        ended(None)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field,))
def _typed_frozen(cls: type[T]) -> type[T]:
    """Make a class a dataclass that nobody changes: type checkers see to it, as they do for a frozen one.

    Python itself would take 1.5 us to see to it for the fields of a call, a fifth of what all layers take.
    """
    return dataclass(slots=True, eq=False)(cls)


@_typed_frozen
class Call:
    """One call of a tool. Nobody changes it; `dataclasses.replace` makes another."""

    tool: Tool
    arguments: Mapping[str, Any]
    """Validated, by name, without what the framework injects."""
    asker: Asker
    runtime: Runtime
    body: Callable[[], Any]
    """Runs the tool; a coroutine function if `awaits`."""
    awaits: bool
    key: Key | None = None
    """None: neither remembered nor merged."""
    reason: str | None = None
    """Why there is no key although the effect would allow one."""
    cells: tuple[Cell, ...] = ()
    """What a read looks at for its resources."""
    asking: tuple[Cell, ...] = ()
    """What a read looks at for who asks; an undeclared call of the same conversation raises it."""
    behind: bool = False
    """Whether an earlier call of its turn, not waited for, may change what it reads: it is neither served nor merged."""
    parent: Call | None = None
    """The call in whose body it was made."""
    looked: int = -1
    """How many flights had landed when the memo was last looked into for it."""
    place: Place | None = None
    """Its place in the turn that it belongs to."""
    work: Work = field(default_factory=Work)

    @property
    def effect(self) -> Effect:
        return self.tool.effect

    def remaining(self) -> float | None:
        """Give the seconds that its caller still waits; None: for ever."""
        deadline = self.work.deadline
        return None if deadline is None else deadline - self.runtime.now()

    @property
    def ancestors(self) -> Iterator[Call]:
        """The calls in whose bodies it was made, innermost first."""
        above = self.parent
        while above is not None:
            yield above
            above = above.parent


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: a value or a fault, and how it came."""

    value: Any = None
    fault: Fault | None = None
    how: How = "ran"
    age: float = 0.0
    """Seconds since the value was read."""
    elapsed: float = 0.0
    """Seconds that this call took; for a replayed one, those that the run took."""
    attempts: int = 1
    """How often the tool was tried."""
    after: tuple[After, ...] = ()
    """The earlier calls of its turn that it was ordered after, and how they ended."""

    @property
    def failed(self) -> bool:
        """Whether the call failed; with a fallback in its place it did not."""
        return self.fault is not None and self.how != "fallback"

    def unwrap(self) -> Any:
        """Give the value; where a tool returned its error, that is the value.

        Raises:
            Exception: What the tool raised.
        """
        fault = self.fault
        if fault is not None and not fault.returned and self.how != "fallback":
            raise fault.exception
        return self.value


class Inner(Protocol):
    """The rest of the chain, as a layer sees it."""

    def __call__(self, call: Call, /) -> Awaitable[Outcome]: ...


class Layer(Protocol):
    """One step between a call and its tool.

    A layer is a value, written once: it is async in form, and reaches the world only through `call.runtime`, so that
    it serves synchronous callers too. It answers with an outcome; exceptions that cross it are control flow.
    """

    def __call__(self, call: Call, inner: Inner, /) -> Awaitable[Outcome]: ...


current: ContextVar[Call | None] = ContextVar("ibidem_current_call", default=None)
"""The call in whose body we are."""


def passing(function: Any) -> bool:
    """Whether a wrapped function is reached as the very thing the current call is a call of; true once a call."""
    call = current.get()
    if call is None or call.tool.function is not function or call.work.entered:
        return False
    call.work.entered = True
    return True


class within:  # noqa: N801  # a generator takes four times as long, on every call
    """Make a call the parent of what is called in the `with` block."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._token = current.set(self._call)

    def __exit__(self, *raised: object) -> None:
        # A coroutine that is torn down with its loop is closed in another context, which keeps its own value.
        try:  # noqa: SIM105  # as above
            current.reset(self._token)
        except ValueError:
            pass
