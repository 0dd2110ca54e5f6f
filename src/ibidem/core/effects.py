"""Effects: what a call does to the world. Every other behaviour follows from the effect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Unpack, get_args

from ibidem.core.batches import Batch
from ibidem.core.durations import TTL, reject_unknown, seconds, some_seconds
from ibidem.core.policies import FAILURES, Breaker, Failures, Retry, check_options
from ibidem.core.resources import EVERYTHING, Resource, Spec, Template, parse_answer

if TYPE_CHECKING:
    from ibidem.core.hazards import Access

T = TypeVar("T")

Scope = Literal["conversation", "user", "shared"]
"""Who may be given a remembered result: the conversation that read it, every conversation of its user, or everybody."""

READ_TTL = 300.0
"""Seconds a `Read` is remembered by default: what both caches that agents are mostly given today use."""

SETTLE = 60.0
"""Seconds that the resources of a write stay open after it ended without anybody knowing how: longer than the usual
timeouts of servers, after which they give up what they were doing."""

MARK = "__ibidem_effect__"
"""The attribute under which a decorated function or tool carries its effect."""


class Effect:
    """What a call does to the world: `Pure`, `Read`, `Live`, `Write`, `Nested` or `Undeclared`.

    An effect is a value, and a decorator: `@Read("order:{order_id}")` above a function or a tool declares it there.
    """

    remembered: ClassVar[bool] = False
    """Whether results may be kept for later calls."""
    changes: ClassVar[bool] = False
    """Whether the call may change what others read."""
    declared: ClassVar[bool] = True
    """Whether anything is known of the call at all."""
    inherits: ClassVar[bool] = True
    """Whether what the guard says about failures of all its tools holds for the call."""
    options: ClassVar[tuple[str, ...]] = ()

    resources: tuple[Template | Callable[..., Any], ...] = ()
    ttl: float | None = None
    scope: Scope = "conversation"
    scope_spelled: bool = False
    """Whether the scope was written down rather than left at its default."""
    identity: str | None = None
    merge: bool = False
    also: Callable[[Mapping[str, Any], Any], Iterable[Any]] | None = None
    timeout: float | Literal[False] | None = None
    timeout_thread: bool = True
    retry: Retry | Literal[False] | None = None
    breaker: Breaker | Literal[False] | None = None
    fallback: Any = None
    is_error: Callable[[Any], bool] | None = None
    batch: Batch | None = None
    secret: tuple[str, ...] = ()
    """The arguments that stand nowhere but in the call itself: keys have a digest in their place."""
    idempotency_key: str | None = None
    inside: Access | None = None
    """What the calls may do that this one runs in its own name: by it a turn orders a plan. None: they are not in its turn."""

    @property
    def repeatable(self) -> bool:
        """Whether running the call twice does no more than running it once."""
        return not self.changes

    def __call__(self, target: T) -> T:
        """Declare this effect on a function or tool, and return that very object."""
        if isinstance(target, type) or not (callable(target) or hasattr(target, "invoke")):
            raise TypeError(f"@{self!r} declares a function or a tool, not {target!r}")
        marked = vars(target) if hasattr(target, "invoke") else getattr(target, "__dict__", None)
        if marked is None or not isinstance(marked, dict):
            raise TypeError(
                f"{target!r} cannot carry an effect: declare it by name, Guard(effects={{{_name(target)!r}: {self!r}}})"
            )
        marked[MARK] = self
        return target

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))

    def __repr__(self) -> str:
        shown = [repr(r.text) if isinstance(r, Template) else _name(r) for r in self.resources]
        for option in self.options:
            value = getattr(self, option)
            if value != getattr(type(self), option):
                shown.append(f"{option}={_name(value) if callable(value) else value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def fields(self) -> frozenset[str]:
        """The names of the arguments that its templates need."""
        templates = [r for r in self.resources if isinstance(r, Template)]
        return frozenset().union(*(t.fields for t in templates))

    def touched(self, arguments: Mapping[str, Any]) -> tuple[Resource, ...] | None:
        """Name the resources of one call; None if a callable of the user's failed to say.

        Arguments: the validated ones, by name.
        """
        found: list[Resource] = []
        for resource in self.resources:
            if isinstance(resource, Template):
                found.extend(resource.fill(arguments))
            else:
                try:
                    found.extend(parse_answer(resource(arguments)))
                except Exception:
                    return None
        return tuple(found)

    def touched_also(self, arguments: Mapping[str, Any], result: Any) -> tuple[Resource, ...] | None:
        """Name what only the result tells; None if the user's callable failed to say."""
        if self.also is None:
            return ()
        try:
            return parse_answer(self.also(arguments, result))
        except Exception:
            return None

    def _keep(self, failures: Failures, **given: Any) -> None:
        """Set the options, leaving defaults to the class so that `repr` and equality stay short."""
        owner = type(self).__name__
        reject_unknown(owner, [name for name in failures if name not in self.options], self.options)
        for name, value in {**given, **check_options(owner, failures)}.items():
            if value != getattr(type(self), name):
                setattr(self, name, value)

    def _set_scope(self, scope: Scope | None) -> None:
        if scope is None:
            return
        if scope not in get_args(Scope):
            raise ValueError(f"scope={scope!r} is unknown: it is one of {', '.join(get_args(Scope))}")
        self.scope = scope
        self.scope_spelled = True

    def _set_secret(self, secret: Iterable[str]) -> None:
        names = (secret,) if isinstance(secret, str) else tuple(secret)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"secret= names arguments, such as secret=['password'], not {secret!r}")
        named = sorted(self.fields.intersection(names))
        if named:
            raise ValueError(f"{named[0]!r} is secret and names a resource: resources are kept, so it cannot be both")
        self._keep({}, secret=names)


def _name(value: Any) -> str:
    return str(getattr(value, "__name__", None) or getattr(value, "name", None) or repr(value))


def _specs(specs: tuple[Spec, ...]) -> tuple[Template | Callable[..., Any], ...]:
    return tuple(s if callable(s) else Template.parse(s) for s in specs)


class Pure(Effect):
    """The result depends on the arguments alone: remembered, merged, never forgotten by a write.

    Args:
        ttl: How long it is remembered; None, the default, for ever.
        scope: Who may be given the result.
        identity: A name for the tool that stands for its code; needed where the code cannot be named exactly.
        secret: Names of arguments, such as passwords, that are hashed wherever they would be kept.
        batch: Answers several calls of a turn at once: a function of a list of their arguments, or a `Batch`.
        **failures: What is done about failures: see `Failures`.
    """

    remembered = True
    merge = True
    options = ("ttl", "scope", "identity", "secret", "batch", *FAILURES)

    def __init__(
        self,
        *,
        ttl: TTL = None,
        scope: Scope | None = None,
        identity: str | None = None,
        secret: Iterable[str] = (),
        batch: Batch | Callable[[list[Any]], Any] | None = None,
        **failures: Unpack[Failures],
    ) -> None:
        self._keep(failures, ttl=seconds(ttl), identity=identity, batch=Batch.of(batch))
        self._set_scope(scope)
        self._set_secret(secret)


class Read(Effect):
    """The result depends on resources: remembered until a write touches one of them or the TTL ends.

    Args:
        *resources: Templates such as `"order:{order_id}"`, or callables `arguments -> resources`. None at all means
            `"*"`: any write forgets it.
        ttl: How long it is remembered; five minutes by default, None for "until a write".
        also: `(arguments, result) -> resources`: what only the result tells that it depends on.
        scope: Who may be given the result.
        identity: A name for the tool that stands for its code; needed where the code cannot be named exactly.
        secret: Names of arguments, such as passwords, that are hashed wherever they would be kept.
        batch: Answers several calls of a turn at once: a function of a list of their arguments, or a `Batch`.
        **failures: What is done about failures: see `Failures`.
    """

    remembered = True
    merge = True
    ttl = READ_TTL
    options = ("ttl", "also", "scope", "identity", "secret", "batch", *FAILURES)

    def __init__(
        self,
        *resources: Spec,
        ttl: TTL = READ_TTL,
        also: Callable[[Mapping[str, Any], Any], Iterable[Any]] | None = None,
        scope: Scope | None = None,
        identity: str | None = None,
        secret: Iterable[str] = (),
        batch: Batch | Callable[[list[Any]], Any] | None = None,
        **failures: Unpack[Failures],
    ) -> None:
        self.resources = _specs(resources)
        self._keep(failures, ttl=seconds(ttl), also=also, identity=identity, batch=Batch.of(batch))
        self._set_scope(scope)
        self._set_secret(secret)

    def touched(self, arguments: Mapping[str, Any]) -> tuple[Resource, ...] | None:
        return super().touched(arguments) if self.resources else (EVERYTHING,)


class Live(Effect):
    """Harmless, and different every time: never remembered.

    Args:
        merge: Whether identical calls under way at the same time may share one run.
        **failures: What is done about failures: see `Failures`.
    """

    options = ("merge", *FAILURES)

    def __init__(self, *, merge: bool = False, **failures: Unpack[Failures]) -> None:
        self._keep(failures, merge=merge)

    def touched(self, arguments: Mapping[str, Any]) -> tuple[Resource, ...]:  # noqa: ARG002
        return (EVERYTHING,)


class Write(Effect):
    """The call changes resources: never remembered or merged; what it touches is forgotten, everywhere.

    Args:
        *resources: Templates, or callables `arguments -> resources`. None at all means `"*"`.
        also: `(arguments, result) -> resources`: what only the result tells that it changed. While the call runs, and
            if it fails to answer, that is taken to be everything.
        idempotent: Whether running it twice does no more than running it once; only then is it ever retried.
        idempotency_key: The name of an argument that is filled in with a text of its own for each call, the same for
            every attempt and after a resume, by which the other side knows a call again. It makes the call idempotent.
        settle: How long after a call whose outcome is unknown its resources stay open: the other side may still act.
        **failures: What is done about failures: see `Failures`.

    Raises:
        ValueError: `retry=` for a call that is not idempotent.
    """

    changes = True
    idempotent: bool = False
    settle: float = SETTLE
    options = ("also", "idempotent", "idempotency_key", "settle", *(n for n in FAILURES if n != "fallback"))

    def __init__(
        self,
        *resources: Spec,
        also: Callable[[Mapping[str, Any], Any], Iterable[Any]] | None = None,
        idempotent: bool = False,
        idempotency_key: str | None = None,
        settle: TTL = SETTLE,
        **failures: Unpack[Failures],
    ) -> None:
        self.resources = _specs(resources)
        if idempotency_key is not None and (not isinstance(idempotency_key, str) or not idempotency_key):
            raise TypeError(f"idempotency_key={idempotency_key!r} names no argument of the tool")
        idempotent = idempotent or idempotency_key is not None
        settled = some_seconds(settle, what="settle")
        self._keep(failures, also=also, idempotent=idempotent, idempotency_key=idempotency_key, settle=settled)
        if self.retry and not idempotent and self.retry.max_retries > 0:
            raise ValueError(
                f"{self!r} would run twice what must not run twice: a write is retried only with idempotent=True "
                'or idempotency_key="argument"'
            )

    @property
    def repeatable(self) -> bool:
        return self.idempotent

    def touched(self, arguments: Mapping[str, Any]) -> tuple[Resource, ...] | None:
        return super().touched(arguments) if self.resources or self.also else (EVERYTHING,)


class Nested(Effect):
    """The call runs other calls, a sub-agent say, and changes nothing itself: its inner calls speak for themselves.

    Args:
        **failures: What is done about failures: see `Failures`. It is never retried, since its inner calls are.
    """

    inherits = False
    options = ("timeout", "timeout_thread", "breaker", "is_error")

    def __init__(self, **failures: Unpack[Failures]) -> None:
        self._keep(failures)

    @property
    def repeatable(self) -> bool:
        return False


class Undeclared(Effect):
    """Nothing is known: it runs as without ibidem and, as it may change anything, forgets its conversation's reads."""

    changes = True
    declared = False


UNDECLARED = Undeclared()
