"""Faults: what exceptions of all kinds mean, and what of them a model may read. R18, R34, R35."""

import asyncio
import concurrent.futures
import errno
import random
import socket
import string
import types
import urllib.error
from email.utils import formatdate

import pytest

from ibidem import Fault, Guard, Read, wrap
from ibidem.core.classify import fault_of, returned_fault, returns_error
from ibidem.core.faults import KINDS, CallTimeout, CircuitOpen, is_control_flow
from ibidem.core.wording import LONGEST, redact, redacted_traceback, safe_text

httpx = pytest.importorskip("httpx")
requests = pytest.importorskip("requests")
pydantic = pytest.importorskip("pydantic")


def foreign(package, *names, base=Exception):
    """Make a class as a library that is not installed has it: each name derives from the next."""
    cls = base
    for name in reversed(names):
        cls = type(name, (cls,), {"__module__": f"{package}.exceptions"})
    return cls


def caused(exc, cause):
    exc.__cause__ = cause
    return exc


def reply(status, headers=None):
    request = httpx.Request("GET", "https://api.example/orders?key=k")
    return httpx.HTTPStatusError("it failed", request=request, response=httpx.Response(status, headers=headers))


def of_requests(status, headers=None):
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers or {})
    return requests.HTTPError("it failed", response=response)


def invalid():
    class Arguments(pydantic.BaseModel):
        order_id: str
        limit: int

    try:
        Arguments(limit="secret")
    except pydantic.ValidationError as problem:
        return problem


APIConnectionError = foreign("openai", "APIConnectionError", "APIError")
ToolException = foreign("langchain_core.tools", "ToolException")

MEANINGS = {
    # what never left
    "httpx connect": (httpx.ConnectError("x"), "unreachable", False),
    "httpx connect timeout": (httpx.ConnectTimeout("x"), "unreachable", False),
    "httpx pool timeout": (httpx.PoolTimeout("x"), "timeout", False),
    "requests connect timeout": (requests.ConnectTimeout("x"), "unreachable", False),
    "aiohttp connect": (foreign("aiohttp", "ClientConnectorError", "ClientOSError")(), "unreachable", False),
    "openai connect": (caused(APIConnectionError(), httpx.ConnectError("x")), "unreachable", False),
    "refused": (ConnectionRefusedError(111, "x"), "unreachable", False),
    "no such host": (socket.gaierror(-2, "x"), "unreachable", False),
    "no route": (OSError(errno.EHOSTUNREACH, "x"), "unreachable", False),
    "urllib refused": (urllib.error.URLError(ConnectionRefusedError(111, "x")), "unreachable", False),
    # what may have arrived
    "httpx read timeout": (httpx.ReadTimeout("x"), "timeout", True),
    "httpx write timeout": (httpx.WriteTimeout("x"), "timeout", True),
    "httpx read": (httpx.ReadError("x"), "unreachable", True),
    "httpx protocol": (httpx.RemoteProtocolError("x"), "unreachable", True),
    "requests read timeout": (requests.ReadTimeout("x"), "timeout", True),
    "requests connection": (requests.ConnectionError("x"), "unreachable", True),
    "requests half a reply": (requests.exceptions.ChunkedEncodingError("x"), "unreachable", True),
    "aiohttp disconnected": (
        foreign("aiohttp", "ServerDisconnectedError", "ServerConnectionError", "ClientConnectionError")(),
        "unreachable",
        True,
    ),
    "aiohttp timeout": (foreign("aiohttp", "ServerTimeoutError")(), "timeout", True),
    "openai timeout": (foreign("openai", "APITimeoutError", "APIConnectionError")(), "timeout", True),
    "anthropic connection": (foreign("anthropic", "APIConnectionError")(), "unreachable", True),
    "redis connection": (foreign("redis", "ConnectionError")(), "unreachable", True),
    "redis timeout": (foreign("redis", "TimeoutError")(), "timeout", True),
    "reset": (ConnectionResetError(104, "x"), "unreachable", True),
    "the tool's own timeout": (TimeoutError("x"), "timeout", True),
    "asyncio timeout": (asyncio.TimeoutError(), "timeout", True),
    # replies
    "400": (reply(400), "invalid_arguments", True),
    "401": (reply(401), "unauthorized", True),
    "403": (of_requests(403), "unauthorized", True),
    "404": (reply(404), "not_found", True),
    "408": (reply(408), "timeout", True),
    "409": (reply(409), "tool_error", True),
    "422": (of_requests(422), "invalid_arguments", True),
    "429": (reply(429), "rate_limited", True),
    "500": (reply(500), "unavailable", True),
    "503": (of_requests(503), "unavailable", True),
    "aiohttp 503": (
        types.new_class("ClientResponseError", (Exception,), exec_body=lambda n: n.update(status=503))(),
        "unavailable",
        True,
    ),
    "anthropic 529": (
        types.new_class("OverloadedError", (Exception,), exec_body=lambda n: n.update(status_code=529))(),
        "unavailable",
        True,
    ),
    # others
    "redis busy": (foreign("redis", "BusyLoadingError", "ConnectionError")(), "unavailable", True),
    "redis password": (foreign("redis", "AuthenticationError", "ConnectionError")(), "unauthorized", True),
    "arguments": (invalid(), "invalid_arguments", True),
    "no file": (FileNotFoundError(2, "x", "/etc/secret"), "not_found", True),
    "no permission": (PermissionError(13, "x", "/etc/secret"), "unauthorized", True),
    "future cancelled": (concurrent.futures.CancelledError(), "cancelled", True),
    "tool exception": (ToolException("no such order"), "tool_error", True),
    "tool exception from a timeout": (caused(ToolException("x"), httpx.ReadTimeout("x")), "timeout", True),
    "anything": (RuntimeError("x"), "tool_error", True),
    "a group of one": (ExceptionGroup("x", [httpx.ReadTimeout("x")]), "timeout", True),
    "ours": (CallTimeout(3), "timeout", True),
    "open": (CircuitOpen("x"), "circuit_open", False),
}


@pytest.mark.parametrize("what", MEANINGS)
def test_an_exception_means_what_its_library_means_by_it(what):
    exc, kind, may_have_run = MEANINGS[what]
    fault = fault_of(exc)
    assert (fault.kind, fault.may_have_run) == (kind, may_have_run)
    assert fault.exception is exc and fault.kind in KINDS
    passing = {"rate_limited", "timeout", "unreachable", "unavailable", "circuit_open"}
    assert fault.retryable is (kind in passing)


@pytest.mark.parametrize("package", ["aiohttp", "redis", "openai", "anthropic"])
def test_the_names_are_those_that_the_libraries_have(package):
    """Where a library is installed, each of its exceptions that this version names is found there."""
    from ibidem.core.known_errors import BY_PACKAGE, LIKE

    module = pytest.importorskip(package)
    places = [module, getattr(module, "exceptions", module)]
    missing = [n for n in BY_PACKAGE[LIKE.get(package, package)] if not any(hasattr(p, n) for p in places)]
    assert missing == []


def test_a_property_that_fails_makes_no_second_failure():
    class Strange(Exception):
        @property
        def status_code(self):
            raise ZeroDivisionError

        def __str__(self):
            raise ZeroDivisionError

    assert fault_of(Strange()).kind == "tool_error"
    assert fault_of(Strange()).message == "Strange"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": formatdate(1000, usegmt=True), "date": formatdate(970, usegmt=True)}, 30),
        ({"retry-after": formatdate(0, usegmt=True)}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_from_headers_as_seconds_or_as_a_date_r30(headers, seconds):
    assert fault_of(reply(429, headers)).retry_after == seconds
    assert fault_of(of_requests(429, headers)).retry_after == seconds


def test_mappings_of_the_user_win_and_the_nearest_class_wins_among_them():
    class Mine(Exception):
        pass

    class Nearer(Mine):
        pass

    mappings = {Mine: "not_found", Nearer: "unavailable", httpx.ConnectError: "unauthorized"}
    assert fault_of(Mine("x"), mappings).kind == "not_found"
    assert fault_of(Nearer("x"), mappings).kind == "unavailable"
    assert fault_of(Nearer("x"), mappings).retryable
    assert fault_of(httpx.ConnectError("x"), mappings).kind == "unauthorized"


@pytest.mark.parametrize(
    ("faults", "kind", "says"),
    [
        ({ValueError: "gone"}, ValueError, "it is one of invalid_arguments, not_found"),
        ({"ValueError": "not_found"}, TypeError, "keyed by exception classes"),
        ({KeyboardInterrupt: "cancelled"}, TypeError, "keyed by exception classes"),
        ([ValueError], TypeError, "dict of exception class to kind"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(faults, kind, says):
    with pytest.raises(kind, match=says):
        Guard(faults=faults)


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (types.SimpleNamespace(tool_call_id="1", status="error", content="x"), True),
        (types.SimpleNamespace(tool_call_id="1", status="success", content="x"), False),
        (types.SimpleNamespace(isError=True), True),
        ({"type": "tool_result", "is_error": True}, True),
        ({"status": "error", "job": 7}, False),
        (types.SimpleNamespace(status="error"), False),
        ({"is_error": "yes"}, False),
        ("error", False),
    ],
)
def test_a_returned_error_is_known_by_what_it_says_of_itself_alone(value, is_one):
    assert returns_error(value) is is_one


def test_a_returned_error_reaches_the_caller_as_it_is_and_counts_as_a_failure():
    guard = Guard()
    read = wrap(lambda: {"is_error": True, "content": "busy"}, guard.bind())
    assert read() == {"is_error": True, "content": "busy"}
    assert guard.stats().total.failed == 0, "nothing is known of what is not declared"
    read = wrap(Read(identity="r")(lambda: {"is_error": True}), guard)
    assert read() == read() == {"is_error": True}
    assert guard.stats().total.failed == 2 and guard.stats().total.kinds == {"tool_error": 2}


@pytest.mark.parametrize("flow", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit(), SystemExit()])
def test_what_python_tears_a_call_away_with_is_no_fault_r18(flow):
    assert is_control_flow(flow)


# -- what a model may read: R35 ------------------------------------------------------------------------------------


def test_arguments_that_do_not_fit_are_named_and_not_quoted_r35():
    message = fault_of(invalid()).message
    assert "order_id: Field required" in message and "limit: " in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("order 42 is already cancelled", "order 42 is already cancelled"),
        (
            "order 8f14e45f-ceea-467f-a8d6-91d1b1a1d3a2 is unknown",
            "order 8f14e45f-ceea-467f-a8d6-91d1b1a1d3a2 is unknown",
        ),
        ("pay 24/7 or 3 km/h, and/or both", "pay 24/7 or 3 km/h, and/or both"),
        ("author: Ann, session 4 of 5, the basic plan", "author: Ann, session 4 of 5, the basic plan"),
        ("GET https://u:p@api.example:8443/v1/x?token=abc#f failed", "GET https://api.example:8443 failed"),
        ("/v1/orders?token=abc", "[path]"),
        ("open '/home/ann smith/x.txt'", "open [path]"),
        (r"open C:\Users\ann\x.txt", "open [path]"),
        ("in src/app/keys.py", "in [path]"),
        ("Authorization: Bearer abc", "Authorization: [redacted]"),
        ("{'x-api-key': 'abc', 'a': 1}", "{'x-api-key': [redacted], 'a': 1}"),
        ("the password is hunter2", "the password is [redacted]"),
        ("API_KEY=abc&x=1", "API_KEY=[redacted]&[redacted]"),
        ("key sk-proj-abcdefgh1234", "key [redacted]"),
        ("got 9f86d081884c7d659a2feaa0c55ad015", "got [redacted]"),
        ("failed\nTraceback (most recent call last):\n  File x", "failed"),
    ],
)
def test_what_is_told_of_an_exceptions_words_r35(text, left):
    assert redact(text) == left


def test_a_message_is_short_and_one_line():
    message = fault_of(RuntimeError("a page\n of HTML " * 1000)).message
    assert len(message) <= LONGEST + len("RuntimeError: ") and "\n" not in message


def secret(rng):
    return "S3" + "".join(rng.choices(string.ascii_letters + string.digits, k=rng.randrange(8, 30)))


def places(word):
    """Texts of the kind that exceptions carry, with a secret in each place that R35 names."""
    yield f"GET https://api.example/v1/orders?key={word} failed"
    yield f"for url: https://user:{word}@api.example/x"
    yield f"POST http://api.example/hooks/{word}"
    yield f"headers: {{'Authorization': 'Bearer {word}', 'Accept': '*/*'}}"
    yield f"X-Api-Key: {word}"
    yield f"Cookie: sid={word}; lang=en"
    yield f"cannot open /srv/{word}/config.toml"
    yield f"cannot open C:\\data\\{word}\\config.toml"
    yield f"connect(password='{word}')"
    yield f'Traceback (most recent call last):\n  File "/srv/app.py", line 3\n    login("{word}")'


def raisable(text):
    """Exceptions of twenty types, each as its library makes it, with a text in it."""
    request = httpx.Request("GET", "https://api.example/x", headers={"X-Note": "n"})
    response = httpx.Response(500, text=text, headers={"x-note": "n"})
    yield httpx.ConnectError(text, request=request)
    yield httpx.ReadTimeout(text, request=request)
    yield httpx.HTTPStatusError(text, request=request, response=response)
    yield requests.ConnectionError(text)
    yield requests.HTTPError(text)
    yield requests.exceptions.InvalidURL(text)
    yield urllib.error.URLError(text)
    yield foreign("aiohttp", "ClientConnectorError")(text)
    yield foreign("redis", "ResponseError")(text)
    yield foreign("openai", "APIError")(text)
    yield foreign("anthropic", "BadRequestError")(text)
    yield ToolException(text)
    yield RuntimeError(text)
    yield ValueError(text)
    yield KeyError(text)
    yield OSError(errno.EIO, text, text)
    yield FileNotFoundError(2, "No such file", text)
    yield TimeoutError(text)
    yield ExceptionGroup("several", [RuntimeError(text)])
    yield caused(RuntimeError("outer"), httpx.ReadError(text))


def test_no_secret_reaches_a_model_or_a_log_r35():
    """500 seeded secrets, each in the twenty types of exceptions and in a place that R35 names."""
    rng = random.Random(35)
    leaks = []
    for _ in range(500):
        word = secret(rng)
        text = rng.choice(list(places(word)))
        for exc in raisable(text):
            try:
                raise exc
            except Exception as raised:
                fault = fault_of(raised)
                log = redacted_traceback(raised)
            leaks += [(type(exc).__name__, text, said) for said in (fault.message, log) if word in said]
    assert leaks == []


def test_the_search_for_secrets_can_fail_r35():
    word = secret(random.Random(35))
    assert all(word in str(text) for text in places(word))
    assert any(word in str(exc) for exc in raisable(next(places(word))))


def test_a_log_says_where_it_was_raised_and_what_caused_it():
    def deep():
        raise OSError("inner")

    try:
        try:
            deep()
        except OSError as problem:
            raise RuntimeError("outer") from problem
    except RuntimeError as problem:
        text = redacted_traceback(problem)
    assert "RuntimeError: outer" in text and "caused by OSError: inner" in text
    assert "test_faults.py" in text and "in deep" in text


def test_a_log_says_all_of_what_was_raised_outside_every_tool():
    try:
        Guard(reads="get_*")
    except TypeError as problem:
        text = redacted_traceback(problem)
    assert "guard.py" in text and "in __init__" in text


def test_a_fault_made_by_hand_says_what_its_exception_says():
    assert Fault(RuntimeError("it broke")).message == "RuntimeError: it broke"
    assert safe_text(RuntimeError()) == "RuntimeError"
    assert returned_fault("no such order").message == "no such order"
