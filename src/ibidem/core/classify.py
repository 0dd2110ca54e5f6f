"""Classification: from an exception, of whatever library, to a fault.

Exceptions are recognised by name and by the package that their class comes from, and replies by their status, so that
nothing is imported to find out (`known_errors.py` holds the names).

`may_have_run` is what the exception tells about the *request that failed*. A tool that makes several requests may have
changed something with an earlier one: so nothing here is a permission to run a write again (`layers/retry.py`).
"""

from __future__ import annotations

import email.utils
import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ibidem.core.faults import KINDS, PASSING, CallTimeout, CircuitOpen, Fault, Kind, ReturnedError
from ibidem.core.known_errors import (
    BROKEN_OFF,
    BY_PACKAGE,
    CLIENTS,
    LIKE,
    NO_ANSWER,
    NO_CONNECTION,
    SENTENCES,
    STATUS,
    UNREACHED,
    Sort,
)
from ibidem.core.wording import redact, safe_text


def fault_of(exc: Exception, mappings: Mapping[type[BaseException], Kind] | None = None) -> Fault:
    """Tell what an exception means.

    Args:
        exc: What a tool raised.
        mappings: What the user says about exceptions of her own; the nearest class wins.
    """
    try:
        return _fault_of(exc, mappings or {})
    except Exception:  # a `status_code` property that raises, say: classifying must not add a failure
        return Fault(exc, message=type(exc).__name__)


def returned_fault(value: Any) -> Fault:
    """Make the fault of a tool that returned its error instead of raising it."""
    words = value if isinstance(value, str) else getattr(value, "content", None)
    said = " ".join(redact(words[:2000]).split())[:500] if isinstance(words, str) else ""
    return Fault(ReturnedError(), message=said or "The tool returned an error.", deliberate=True, returned=True)


def returns_error(value: Any) -> bool:
    """Whether a value says by itself that it reports an error: a `ToolMessage`, an MCP result, a `tool_result` block.

    A dictionary with `"status": "error"` does not: a job that has failed is a fine answer to a question about it.
    """
    try:
        if isinstance(value, Mapping):
            return value.get("is_error") is True or value.get("isError") is True
        if hasattr(value, "tool_call_id"):
            return bool(value.status == "error")
        return getattr(value, "is_error", None) is True or getattr(value, "isError", None) is True
    except Exception:  # a property of the value's own that fails says nothing about its call
        return False


def check_mappings(mappings: Any) -> dict[type[BaseException], Kind]:
    """Read what a user says about exceptions of her own.

    Raises:
        TypeError: It is no dict of exception classes.
        ValueError: It names a kind that does not exist.
    """
    if not isinstance(mappings, Mapping):
        raise TypeError(f"faults= is a dict of exception class to kind, not {mappings!r}")
    for kind_of, kind in mappings.items():
        if not isinstance(kind_of, type) or not issubclass(kind_of, Exception):
            raise TypeError(f"faults= is keyed by exception classes, not by {kind_of!r}")
        if kind not in KINDS:
            raise ValueError(f"faults[{kind_of.__name__}]={kind!r} is no kind: it is one of {', '.join(KINDS)}")
    return dict(mappings)


def _fault_of(exc: Exception, mappings: Mapping[type[BaseException], Kind]) -> Fault:
    for cls in type(exc).__mro__ if mappings else ():
        if cls in mappings:
            kind = mappings[cls]
            return Fault(
                exc, kind, safe_text(exc, named=False), kind in PASSING, _retry_after(exc) if kind in PASSING else None
            )
    if isinstance(exc, CallTimeout):
        return Fault(exc, "timeout", f"There was {exc}.", retryable=True)
    if isinstance(exc, CircuitOpen):
        return Fault(exc, "circuit_open", str(exc), retryable=True, may_have_run=False)
    if isinstance(exc, ExceptionGroup):
        faults = [_fault_of(each, mappings) for each in exc.exceptions if isinstance(each, Exception)]
        first = faults[0]
        return Fault(exc, first.kind, first.message, first.retryable, first.retry_after,
                     may_have_run=any(each.may_have_run for each in faults))  # fmt: skip
    status = _status(exc)
    if status is not None:
        return _of_status(exc, status)
    sort = _sort_of(exc)
    if sort is None:
        return _quoted(exc, mappings)
    message = sort.sentence or _about_arguments(exc)
    return Fault(exc, sort.kind, message, sort.kind in PASSING, may_have_run=sort.may_have_run)


def _quoted(exc: Exception, mappings: Mapping[type[BaseException], Kind]) -> Fault:
    """Make the fault of an exception of the tool's own: its words, and what is known of its cause."""
    deliberate = _is_tool_exception(exc)
    fault = Fault(exc, message=safe_text(exc, named=not deliberate), deliberate=deliberate)
    cause = _fault_of(exc.__cause__, mappings) if isinstance(exc.__cause__, Exception) else None
    if cause is None or cause.kind == "tool_error":
        return fault
    return replace(
        fault,
        kind=cause.kind,
        retryable=cause.retryable,
        retry_after=cause.retry_after,
        may_have_run=cause.may_have_run,
    )


def _sort_of(exc: BaseException) -> Sort | None:
    """Look an exception up by the names of its classes; where it wraps another, that one knows better."""
    for cls in type(exc).__mro__:
        package = cls.__module__.partition(".")[0]
        sort = BY_PACKAGE.get(LIKE.get(package, package), {}).get(cls.__name__)
        if sort is None:
            continue
        if sort is BROKEN_OFF or sort is NO_ANSWER:
            inner = next((found for each in _wrapped(exc) if (found := _sort_of(each)) is not None), None)
            if inner is not None and inner.kind in ("unreachable", "timeout"):
                return inner
        return sort
    if isinstance(exc, OSError):
        if exc.errno in UNREACHED:
            return NO_CONNECTION
        return Sort("tool_error", sentence=_system_error(exc))
    if type(exc).__module__.partition(".")[0] in CLIENTS:
        return Sort("tool_error", sentence=f"The request failed ({type(exc).__name__}).")
    return None


def _system_error(exc: OSError) -> str:
    name = errno.errorcode.get(exc.errno or 0)
    return (
        f"The operating system refused ({name})." if name else f"The operating system refused ({type(exc).__name__})."
    )


def _wrapped(exc: BaseException) -> Iterator[BaseException]:
    """Give the exceptions that one was made of: its cause, and what `requests` and `urllib` keep in it."""
    if exc.__cause__ is not None:
        yield exc.__cause__
    for held in (*exc.args[:1], getattr(exc, "reason", None)):
        if isinstance(held, BaseException):
            yield from _wrapped(held)
            yield held


def _status(exc: BaseException) -> int | None:
    """Find the status of a reply in an exception: `status_code` of its own or its response's, `status`, `code`."""
    response = getattr(exc, "response", None)
    candidates = (
        getattr(exc, "status_code", None),
        getattr(response, "status_code", None),
        getattr(response, "status", None),
        getattr(exc, "status", None),
        getattr(exc, "code", None),
        getattr(getattr(exc, "error", None), "code", None),  # MCP: a timeout of the session has 408
    )
    for found in candidates:
        if isinstance(found, int) and not isinstance(found, bool) and 400 <= found <= 599:
            return int(found)
    if getattr(getattr(exc, "error", None), "code", None) == -32602:  # JSON-RPC: invalid params
        return 422
    return None


def _of_status(exc: Exception, status: int) -> Fault:
    kind = STATUS.get(status) or ("unavailable" if status >= 500 else "tool_error")
    message = f"{SENTENCES[kind]} (HTTP {status})."
    retryable = kind in PASSING and status not in (501, 505)
    return Fault(exc, kind, message, retryable, _retry_after(exc), deliberate=kind == "tool_error")


def _retry_after(exc: BaseException) -> float | None:
    """Find how many seconds the other side asked to wait, in a header or in the exception itself."""
    headers = getattr(getattr(exc, "response", None), "headers", None) or getattr(exc, "headers", None)
    found = _header(headers, "retry-after-ms")
    if found is not None and (milliseconds := _number(found)) is not None:
        return milliseconds / 1000
    found = _header(headers, "retry-after")
    if found is None:
        return _number(getattr(exc, "retry_after", None))
    if (seconds := _number(found)) is not None:
        return seconds
    try:
        until = email.utils.parsedate_to_datetime(found).timestamp()
        sent = _header(headers, "date")
        # The server's own clock, where it tells it: ours may be minutes off, and with it the wait.
        now = email.utils.parsedate_to_datetime(sent).timestamp() if sent else time.time()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, until - now)


def _header(headers: Any, name: str) -> str | None:
    for spelled in (name, name.title()):
        try:
            found = headers.get(spelled)
        except Exception:
            return None
        if found is not None:
            return found.decode("latin-1") if isinstance(found, bytes) else str(found)
    return None


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < 1e9 else None


def _is_tool_exception(exc: Exception) -> bool:
    return any(c.__name__ in ("ToolException", "ToolError") for c in type(exc).__mro__)


def _about_arguments(exc: Exception) -> str:
    """Say which arguments are wrong, and how; what was given for them stays out."""
    problems: Callable[..., Iterable[Any]] | None = getattr(exc, "errors", None)
    found = getattr(exc, "filtered_errors", None) or (problems() if callable(problems) else ())
    said = [
        f"{'.'.join(map(str, each.get('loc', ()))) or 'arguments'}: {redact(str(each.get('msg', '')))}"
        for each in found
    ]
    return "; ".join(said)[:500] or "The arguments are not valid."
