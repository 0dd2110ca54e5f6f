"""The shop: a real HTTP server on loopback, a SQLite database behind it, and a count of what reached it."""

import json
import re
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from zlib import crc32

SHORTEST, LONGEST = 0.06, 0.12
"""Latency of a request in seconds. A path always takes equally long, so that two runs can be compared."""

DATA = """
create table customers (id text primary key, name text, email text, address text);
create table products (id text primary key, name text, price real, stock integer);
create table orders (
    id text primary key, customer_id text references customers, product_id text references products,
    quantity integer, status text, placed text
);
insert into customers values
    ('C-7', 'Ann Li', 'ann@shop.example', '12 Rue des Lilas, Lyon'),
    ('C-8', 'Bo Ek', 'bo@shop.example', '3 Kaplansgatan, Lund');
insert into products values
    ('P-20', 'desk lamp, brass', 48.0, 3),
    ('P-21', 'floor lamp, oak', 129.0, 0),
    ('P-30', 'kettle, 1.2 l', 39.5, 17);
insert into orders values
    ('O-1001', 'C-7', 'P-30', 1, 'shipped', '2025-03-02'),
    ('O-1002', 'C-7', 'P-20', 1, 'processing', '2025-03-09'),
    ('O-1003', 'C-7', 'P-20', 2, 'processing', '2025-03-11'),
    ('O-1004', 'C-8', 'P-21', 1, 'processing', '2025-03-11');
"""

ONE = {
    "customers": "select * from customers where id = ?",
    "orders": "select * from orders where id = ?",
    "products": "select * from products where id = ?",
}
ORDERS = "select id, product_id, quantity, status from orders where customer_id = ? order by id"
SEARCH = "select id, name, price, stock from products where instr(name, ?) order by id"


class Shop(ThreadingHTTPServer):
    """A shop that is open inside a `with` block.

    Args:
        path: Where the database goes; the file must not exist yet.
    """

    daemon_threads = False  # closing the shop waits for the requests under way
    requests: Counter[str]
    """Requests received so far, by method and path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests = Counter()
        self._counting = threading.Lock()
        with closing(sqlite3.connect(path)) as database:
            database.executescript(DATA)
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="shop")

    def server_bind(self) -> None:
        """Bind without `HTTPServer`'s reverse look-up of the host's name, which would leave the loopback."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self) -> str:
        """The address to send requests to."""
        return f"http://127.0.0.1:{self.server_port}"

    def truth(self, order_id: str) -> str | None:
        """Look into the database itself, past HTTP and past every memo.

        Args:
            order_id: Which order.

        Returns:
            The status of the order; None if there is no such order.
        """
        row = self.rows("select status from orders where id = ?", order_id)
        return str(row[0]["status"]) if row else None

    def rows(self, query: str, *values: str) -> list[dict[str, Any]]:
        """Run one query in a connection of its own.

        Args:
            query: SQL with `?` for each value.
            *values: What the question marks stand for.

        Returns:
            The rows, by column name.
        """
        with closing(sqlite3.connect(self.path, timeout=10)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, values)]

    def cancel(self, order_id: str) -> list[dict[str, Any]]:
        """Cancel an order that has not left yet, and put its items back in stock.

        Args:
            order_id: Which order.

        Returns:
            The order as it is now; nothing if there is no such order.
        """
        with closing(sqlite3.connect(self.path, timeout=10)) as database, database:
            changed = database.execute(
                "update orders set status = 'cancelled' where id = ? and status = 'processing'", (order_id,)
            )
            if changed.rowcount:
                database.execute(
                    "update products set stock = stock + o.quantity from orders o where products.id = o.product_id and o.id = ?",
                    (order_id,),
                )
        return self.rows(ONE["orders"], order_id)

    def received(self, request: str) -> None:
        """Count a request, before anything else happens to it.

        Args:
            request: Its method and path.
        """
        with self._counting:
            self.requests[request] += 1


class _Handler(BaseHTTPRequestHandler):
    """Answers JSON: an object, a list, or 404 and an object with an `error`."""

    timeout = 10

    @property
    def shop(self) -> Shop:
        """Whose requests these are."""
        assert isinstance(self.server, Shop)
        return self.server

    def do_GET(self) -> None:
        """Answer a read."""
        self._arrived()
        url = urlsplit(self.path)
        match [unquote(part) for part in url.path.strip("/").split("/")]:
            case ["customers", customer_id, "orders"]:
                self._answer(self.shop.rows(ORDERS, customer_id))
            case ["products"]:
                self._answer(self.shop.rows(SEARCH, parse_qs(url.query).get("q", [""])[0]))
            case [kind, one] if kind in ONE:
                self._answer_one(self.shop.rows(ONE[kind], one))
            case _:
                self._answer_one([])

    def do_POST(self) -> None:
        """Answer a write."""
        self._arrived()
        cancelled = re.fullmatch(r"/orders/([^/]+)/cancel", self.path)
        self._answer_one(self.shop.cancel(unquote(cancelled[1])) if cancelled else [])

    def _arrived(self) -> None:
        self.shop.received(f"{self.command} {self.path}")
        time.sleep(SHORTEST + (LONGEST - SHORTEST) * (crc32(self.path.encode()) % 1000) / 1000)

    def _answer_one(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._answer(rows[0])
        else:
            self._answer({"error": f"nothing at {self.path}"}, HTTPStatus.NOT_FOUND)

    def _answer(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing: the demo prints its own account."""
