"""The fault server: HTTP on loopback that fails as it is told, and counts what it has done.

What a caller sees says little about what has happened: the server does its work, or not, and then answers, or not. So a
fault says both, and `executed` counts the work itself, by the `id` of each request.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self, get_args
from urllib.parse import parse_qs, urlsplit

Fault = Literal[
    "fine",
    "drop before",
    "drop after",
    "reset before",
    "reset after",
    "half a reply",
    "slow headers",
    "slow body",
    "429",
    "429 date",
    "503 before",
    "503 after",
    "500 after",
    "404",
]
"""What happens to a request; `before` and `after` the work was done. Slow answers come after it was."""

FAULTS: tuple[Fault, ...] = get_args(Fault)

UNDONE: frozenset[Fault] = frozenset({"drop before", "reset before", "429", "429 date", "503 before", "404"})
"""Faults of requests that did nothing."""

_BODY = b'{"done": true}'


class FaultServer:
    """Serves GET and POST of any path on loopback; `?id=` says which call a request is of.

    An `Idempotency-Key` header that was seen before is answered without doing the work again.

    Args:
        slow: Seconds that slow headers and slow bodies take.
        retry_after: Seconds that a 429 asks to wait.
    """

    def __init__(self, *, slow: float = 1.0, retry_after: int = 0) -> None:
        self.slow = slow
        self.retry_after = retry_after
        self.requests = 0
        """Requests that came."""
        self.executed: Counter[str] = Counter()
        """How often the work of each call was done, by its id."""
        self.seen: Counter[str] = Counter()
        """Requests of each call."""
        self._lock = threading.Lock()
        self._keys: set[str] = set()
        self._script: deque[Fault] = deque()
        self._first: tuple[random.Random, tuple[Fault, ...]] | None = None
        self._always: tuple[random.Random, tuple[Fault, ...]] | None = None
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, at: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The address of the server, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def script(self, *faults: Fault) -> None:
        """Say what happens to the next requests; those after them are fine."""
        self._check(faults)
        with self._lock:
            self._script.extend(faults)

    def fail_first(self, seed: int, faults: Iterable[Fault] = FAULTS) -> None:
        """Let the first request of every call meet a fault drawn from these, and the later ones be fine."""
        faults = tuple(faults)
        self._check(faults)
        self._first = (random.Random(seed), faults)  # noqa: S311

    def fail_always(self, seed: int, faults: Iterable[Fault] = FAULTS) -> None:
        """Let every request meet a fault drawn from these."""
        faults = tuple(faults)
        self._check(faults)
        self._always = (random.Random(seed), faults)  # noqa: S311

    def take(self, call: str) -> Fault:
        """Count a request and say what happens to it."""
        with self._lock:
            self.requests += 1
            self.seen[call] += 1
            if self._script:
                return self._script.popleft()
            drawn = self._always or (self._first if self.seen[call] == 1 else None)
            return drawn[0].choice(drawn[1]) if drawn is not None else "fine"

    def work(self, call: str, key: str | None) -> None:
        """Do the work of a call, unless it was done under this key."""
        with self._lock:
            if key is not None and key in self._keys:
                return
            if key is not None:
                self._keys.add(key)
            self.executed[call] += 1

    def pause(self) -> None:
        """Take the time that slow answers take; a server that closes waits for none."""
        self._closing.wait(self.slow)

    @staticmethod
    def _check(faults: Iterable[Any]) -> None:
        for fault in faults:
            if fault not in FAULTS:
                raise ValueError(f"{fault!r} is no fault of this server: it is one of {', '.join(FAULTS)}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    """Connections that wait to be accepted: with the usual five, a burst is dropped by the system, and not as told."""


def _handler(server: FaultServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the name that http.server calls
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = parse_qs(urlsplit(self.path).query).get("id", [""])[0]
            fault = server.take(call)
            if fault not in UNDONE:
                server.work(call, self.headers.get("Idempotency-Key"))
            getattr(self, f"_{fault.partition(' ')[0]}")(fault)

        do_POST = do_GET  # noqa: N815

        def _fine(self, _: Fault) -> None:
            self._head(200, len(_BODY))
            self.wfile.write(_BODY)

        def _drop(self, _: Fault) -> None:
            self.close_connection = True

        def _reset(self, _: Fault) -> None:
            # Closed with a linger of no time, a connection is reset instead of ended.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RD)
            self.close_connection = True

        def _half(self, _: Fault) -> None:
            self._head(200, len(_BODY))
            self.wfile.write(_BODY[: len(_BODY) // 2])
            self.close_connection = True

        def _slow(self, fault: Fault) -> None:
            if fault == "slow headers":
                server.pause()
            self._head(200, len(_BODY))
            self.wfile.write(_BODY[:1])
            self.wfile.flush()
            if fault == "slow body":
                server.pause()
            self.wfile.write(_BODY[1:])

        def _429(self, fault: Fault) -> None:
            wait = str(server.retry_after)
            self._head(429, 0, formatdate(time.time() + server.retry_after, usegmt=True) if "date" in fault else wait)

        def _503(self, _: Fault) -> None:
            self._head(503, 0)

        def _500(self, _: Fault) -> None:
            self._head(500, 0)

        def _404(self, _: Fault) -> None:
            self._head(404, 0)

        def _head(self, status: int, length: int, retry_after: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.end_headers()

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the caller has gone: that is what it is here for
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name for it
            """Say nothing: what failed was meant to."""

    return Handler
