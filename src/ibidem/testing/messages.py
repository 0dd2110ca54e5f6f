"""The fake Messages API: an HTTP server on loopback that plays a script, streams as the real one does, and checks requests.

What it checks is what the real API refuses: each `tool_use` is answered exactly once, in the next message, results first.
A request that breaks a rule is answered with 400, and the rule is in `violations`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from ibidem.testing.replies import USAGE, Block, Reply

Turn = Reply | Sequence[Block] | Callable[[Mapping[str, Any]], "Reply | Sequence[Block]"]
"""What a request is answered with: a reply, its blocks, or a function of the request that gives either."""

_ERRORS = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}


class MessagesServer:
    """Serves `POST /v1/messages` on loopback: the nth request gets the nth turn, and those after the last get that one.

    Args:
        *turns: The script. Blocks are made by `text`, `use` and `server_use`.
        wire: Bytes that are written at a time; None: an event at a time. The network breaks a stream anywhere.
    """

    def __init__(self, *turns: Turn, wire: int | None = None) -> None:
        self.requests: list[Mapping[str, Any]] = []
        """The bodies of the requests, in the order in which they came."""
        self.violations: list[str] = []
        """What was wrong with them."""
        self.wire = wire
        self._turns = turns
        self._held: dict[str, list[Mapping[str, Any]]] = {}
        self._lock = threading.Lock()
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
        for connection in list(self._server.connections):  # a client that stays would keep its thread here
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    @property
    def url(self) -> str:
        """The `base_url` of a client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def results(self) -> list[Block]:
        """The `tool_result` blocks of the last request's last message."""
        content = self.requests[-1]["messages"][-1]["content"] if self.requests else ()
        return [block for block in content if isinstance(block, dict) and block.get("type") == "tool_result"]

    def pause(self, seconds: float) -> None:
        """Pass time; a server that closes waits for nothing."""
        if seconds > 0:
            self._closing.wait(seconds)

    def answer(self, body: Mapping[str, Any]) -> tuple[str, Reply | str]:
        """Take a request.

        Returns:
            The id of the message, and the message, or what is wrong with the request.
        """
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
            thread = body.get("thread") or {}
            before = self._held.get(str(thread.get("previous_message_id")), [])
            history = [*before, *body.get("messages", ())]
            wrong = [*_missing(body), *broken_rules(history)]
            if wrong:
                self.violations.extend(f"request {number}: {each}" for each in wrong)
                return "", wrong[0]
            turn = self._turns[min(number, len(self._turns)) - 1]
            given = turn(body) if callable(turn) else turn
            reply = (given if isinstance(given, Reply) else Reply(given)).named(number)
            name = f"msg_{number:03}"
            self._held[name] = [*history, {"role": "assistant", "content": reply.content()}]
            return name, reply


def broken_rules(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which rules of the API a conversation breaks."""
    wrong: list[str] = []
    open_calls: list[str] = []
    for place, message in enumerate(messages):
        content = message.get("content") or []
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        results = [block for block in blocks if block.get("type") == "tool_result"]
        answered = [str(block.get("tool_use_id")) for block in results]
        where = f"messages.{place}"
        wrong += [f"{where}: tool_use {call} has no tool_result" for call in open_calls if call not in answered]
        wrong += [f"{where}: tool_result {call} answers no tool_use" for call in answered if call not in open_calls]
        wrong += [
            f"{where}: {call} is answered twice" for call in sorted({c for c in answered if answered.count(c) > 1})
        ]
        if results and message.get("role") != "user":
            wrong.append(f"{where}: a tool_result stands in a message of role {message.get('role')}")
        if results and any(block.get("type") == "tool_result" for block in blocks[len(results) :]):
            wrong.append(f"{where}: its tool_result blocks do not come first")
        wrong += [f"{where}: {each}" for block in results for each in _wrong_result(block)]
        open_calls = [str(block["id"]) for block in blocks if block.get("type") == "tool_use"]
        if open_calls and message.get("role") != "assistant":
            wrong.append(f"{where}: a tool_use stands in a message of role {message.get('role')}")
    wrong += [f"messages: tool_use {call} has no tool_result" for call in open_calls]
    return wrong


def _wrong_result(block: Mapping[str, Any]) -> list[str]:
    content = block.get("content")
    if content is None or isinstance(content, str):
        return ["a result that is an error is empty"] if block.get("is_error") and not content else []
    if not isinstance(content, list) or not all(isinstance(part, dict) and "type" in part for part in content):
        return ["the content of a tool_result is neither text nor a list of blocks"]
    if block.get("is_error") and (not content or any(part["type"] != "text" for part in content)):
        return ["a result that is an error may hold text only"]
    return []


def _missing(body: Mapping[str, Any]) -> list[str]:
    wanted = ["model", "max_tokens", "messages"]
    missing = [f"{name}: field required" for name in wanted if name not in body]
    names = [tool.get("name") for tool in body.get("tools") or () if tool.get("name")]
    return [*missing, *(f"tools: {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1}))]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)


def _handler(server: MessagesServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # the name that http.server calls
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            name, reply = server.answer(body)
            if isinstance(reply, str):
                self._json(400, _error(400, reply))
            elif reply.status != 200:
                self._json(reply.status, _error(reply.status, "as the script says"))
            elif body.get("stream"):
                self._stream(name, reply, str(body["model"]))
            elif reply.breaks:
                self.close_connection = True
            else:
                self._json(200, _message(name, str(body["model"]), reply.content(), reply.ends_with))

        def _json(self, status: int, answer: Mapping[str, Any]) -> None:
            written = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        def _stream(self, name: str, reply: Reply, model: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._event("message_start", {"message": _message(name, model, [], None)})
            self._event("ping", {})
            for wait, event, data in reply.events():
                server.pause(wait)
                self._event(event, data)
            if reply.breaks and reply.end == "error":
                self._event("error", {"error": {"type": "overloaded_error", "message": "Overloaded"}})
            if reply.breaks and reply.end == "drop":
                self.close_connection = True  # without the chunk that ends a reply
            else:
                self.wfile.write(b"0\r\n\r\n")

        def _event(self, name: str, data: Mapping[str, Any]) -> None:
            said = json.dumps({"type": name, **data}, ensure_ascii=False)
            written = f"event: {name}\ndata: {said}\n\n".encode()
            step = server.wire or len(written)
            for start in range(0, len(written), step):
                piece = written[start : start + step]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the caller has gone
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name for it
            """Say nothing."""

    return Handler


def _message(name: str, model: str, content: Sequence[Block], stop_reason: str | None) -> dict[str, Any]:
    return {
        "id": name,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": list(content),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": USAGE,
    }


def _error(status: int, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": _ERRORS.get(status, "api_error"), "message": message}}
