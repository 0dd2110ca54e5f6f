"""Known errors: what is known of the exceptions of common clients, and of the statuses of replies.

Exceptions are named, not imported. What is said of httpx, and of everything that wraps it, was measured: `ConnectError` and
`ConnectTimeout` come before anything has left; `ReadTimeout`, `ReadError`, `WriteError` and `RemoteProtocolError` come
when the server may have acted already.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final, NamedTuple

from ibidem.core.faults import Kind


class Sort(NamedTuple):
    """What is known of a class of exceptions."""

    kind: Kind
    may_have_run: bool = True
    sentence: str = ""
    """What a model is told; empty: the exception is quoted."""


NO_CONNECTION = Sort("unreachable", may_have_run=False, sentence="The service could not be reached.")
BROKEN_OFF = Sort("unreachable", sentence="The connection to the service broke off.")
NO_ANSWER = Sort("timeout", sentence="The service did not answer in time.")
_NOT_ALLOWED = Sort("unauthorized", sentence="Access was denied.")
_NOT_THERE = Sort("not_found", sentence="What was asked for does not exist.")
_OVERLOADED = Sort("unavailable", sentence="The service is not available at the moment.")
_TOO_MANY = Sort("rate_limited", sentence="Too many requests: the service asks to wait.")
_BAD_REPLY = Sort("tool_error", sentence="The service gave an answer that could not be read.")
_NO_ADDRESS = Sort("tool_error", may_have_run=False, sentence="The tool asked for an address that makes no sense.")

BY_PACKAGE: Final[Mapping[str, Mapping[str, Sort]]] = {
    "httpx": {
        "ConnectError": NO_CONNECTION,
        "ConnectTimeout": NO_CONNECTION,
        "PoolTimeout": NO_ANSWER._replace(may_have_run=False),
        "ProxyError": NO_CONNECTION,
        "TimeoutException": NO_ANSWER,
        "NetworkError": BROKEN_OFF,
        "ProtocolError": BROKEN_OFF,
        "UnsupportedProtocol": _NO_ADDRESS,
        "InvalidURL": _NO_ADDRESS,
        "DecodingError": _BAD_REPLY,
        "TooManyRedirects": _BAD_REPLY,
        "TransportError": BROKEN_OFF,
        "StreamError": _BAD_REPLY,
    },
    "requests": {
        "ConnectTimeout": NO_CONNECTION,
        "ProxyError": BROKEN_OFF,
        "SSLError": BROKEN_OFF,
        "Timeout": NO_ANSWER,
        "ConnectionError": BROKEN_OFF,
        "ChunkedEncodingError": BROKEN_OFF,
        "ContentDecodingError": _BAD_REPLY,
        "JSONDecodeError": _BAD_REPLY,
        "TooManyRedirects": _BAD_REPLY,
        "InvalidURL": _NO_ADDRESS,
        "MissingSchema": _NO_ADDRESS,
        "InvalidSchema": _NO_ADDRESS,
    },
    "urllib3": {
        "NewConnectionError": NO_CONNECTION,
        "NameResolutionError": NO_CONNECTION,
        "ConnectTimeoutError": NO_CONNECTION,
        "TimeoutError": NO_ANSWER,
        "ProtocolError": BROKEN_OFF,
        "HTTPError": BROKEN_OFF,
    },
    "aiohttp": {
        "ClientConnectorError": NO_CONNECTION,
        "ConnectionTimeoutError": NO_CONNECTION,
        "ServerTimeoutError": NO_ANSWER,
        "ClientConnectionError": BROKEN_OFF,
        "ClientPayloadError": BROKEN_OFF,
        "InvalidURL": _NO_ADDRESS,
    },
    "openai": {"APITimeoutError": NO_ANSWER, "APIConnectionError": BROKEN_OFF},
    "redis": {
        "AuthenticationError": _NOT_ALLOWED,
        "NoPermissionError": _NOT_ALLOWED,
        "BusyLoadingError": _OVERLOADED,
        "OutOfMemoryError": _OVERLOADED,
        "ReadOnlyError": _OVERLOADED,
        "MaxConnectionsError": _OVERLOADED._replace(may_have_run=False),
        "TimeoutError": NO_ANSWER,
        "ConnectionError": BROKEN_OFF,
    },
    "http": {"RemoteDisconnected": BROKEN_OFF, "IncompleteRead": BROKEN_OFF, "HTTPException": BROKEN_OFF},
    "urllib": {"URLError": BROKEN_OFF, "ContentTooShortError": BROKEN_OFF},
    "ssl": {"SSLCertVerificationError": NO_CONNECTION, "SSLError": BROKEN_OFF},
    "socket": {"gaierror": NO_CONNECTION, "herror": NO_CONNECTION},
    "builtins": {
        "ConnectionRefusedError": NO_CONNECTION,
        "ConnectionError": BROKEN_OFF,
        "TimeoutError": NO_ANSWER,
        "FileNotFoundError": _NOT_THERE,
        "PermissionError": _NOT_ALLOWED,
    },
    "concurrent": {"CancelledError": Sort("cancelled", sentence="The call was cancelled.")},
    "pydantic": {"ValidationError": Sort("invalid_arguments")},
    "pydantic_core": {"ValidationError": Sort("invalid_arguments")},
    "langgraph": {"ToolInvocationError": Sort("invalid_arguments", may_have_run=False)},
}

LIKE: Final[Mapping[str, str]] = {
    "httpx2": "httpx",
    "httpcore": "httpx",
    "httpcore2": "httpx",
    "anthropic": "openai",
    "mistralai": "openai",
    "groq": "openai",
    "valkey": "redis",
    "_socket": "socket",
    "_ssl": "ssl",
}
"""Packages whose exceptions have the names, and the meaning, of another's."""

CLIENTS = frozenset({*BY_PACKAGE, *LIKE}) - {"builtins", "concurrent", "pydantic", "pydantic_core", "langgraph"}
"""Packages whose exceptions are never quoted: URLs, headers and replies stand in them."""

UNREACHED = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL})


STATUS: Final[Mapping[int, Kind]] = {
    400: "invalid_arguments",
    401: "unauthorized",
    403: "unauthorized",
    404: "not_found",
    407: "unauthorized",
    408: "timeout",
    410: "not_found",
    413: "invalid_arguments",
    422: "invalid_arguments",
    425: "unavailable",
    429: "rate_limited",
}

SENTENCES: Final[Mapping[Kind, str]] = {
    "invalid_arguments": "The service refused the arguments",
    "not_found": "The service does not know what was asked for",
    "unauthorized": "The service denied access",
    "rate_limited": "The service asks to wait: too many requests",
    "timeout": "The service did not answer in time",
    "unavailable": "The service is not available",
    "tool_error": "The service refused the request",
}
