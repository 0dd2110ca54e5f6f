"""Every notebook is executed by real kernels; what it says of requests is counted by the server that receives them."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra `notebook` is not installed")
nbclient = pytest.importorskip("nbclient", reason="the extra `notebook` is not installed")

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MEMO = FOLDER / "memo_across_sessions.ipynb"


class Shop(ThreadingHTTPServer):
    """Orders, and the requests that reached them."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Order)
        self.status = {"1": "packed", "2": "shipped", "3": "packed"}
        self.received = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def taken(self):
        """The requests since this was asked last."""
        taken, self.received = self.received, []
        return taken


class Order(BaseHTTPRequestHandler):
    def do_GET(self):
        number = self.path[1:]
        self.server.received.append(f"{self.command} {number}")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"id": number, "status": self.server.status[number]}).encode())

    def do_POST(self):
        self.server.status[self.path[1:]] = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.do_GET()

    def log_message(self, *args): ...


class Session:
    """A notebook in a kernel of its own."""

    def __init__(self, path, environment, folder=FOLDER):
        self.document = nbformat.read(path, as_version=4)
        resources = {"metadata": {"path": str(folder)}}
        self._client = nbclient.NotebookClient(self.document, timeout=120, resources=resources)
        self._environment = {**os.environ, **environment}

    def __enter__(self):
        self._kernel = self._client.setup_kernel(env=self._environment)
        self._kernel.__enter__()
        return self

    def __exit__(self, *problem):
        return self._kernel.__exit__(*problem)

    def run(self):
        """Run every cell, from top to bottom."""
        for number, cell in enumerate(self.document.cells):
            self._client.execute_cell(cell, number)
        return self

    def _tagged(self, tag):
        return next((n, c) for n, c in enumerate(self.document.cells) if tag in c.metadata.get("tags", ()))

    def said(self, tag):
        """What the cell of that name printed last."""
        return "".join(output.get("text", "") for output in self._tagged(tag)[1].outputs)

    def cell(self, tag):
        """Run the cell of that name again."""
        number, cell = self._tagged(tag)
        self._client.execute_cell(cell, number)
        return self.said(tag)

    def edit(self, tag, old, new):
        """Edit the cell of that name, and run it."""
        _, cell = self._tagged(tag)
        assert old in cell.source
        cell.source = cell.source.replace(old, new)
        self.cell(tag)

    def say(self, source):
        """Run a line in a cell of its own."""
        self.document.cells.append(nbformat.v4.new_code_cell(source))
        self._client.execute_cell(self.document.cells[-1], len(self.document.cells) - 1)


@pytest.fixture(scope="module")
def shop():
    shop = Shop()
    yield shop
    shop.shutdown()
    shop.server_close()


@pytest.fixture(scope="module")
def environment(shop, tmp_path_factory):
    """Where the kernels find the shop, their memo, and the key that seals it."""
    folder = tmp_path_factory.mktemp("memo")
    return {
        "IBIDEM_NOTEBOOK_SERVER": shop.address,
        "IBIDEM_NOTEBOOK_STORE": str(folder / ".ibidem"),
        "XDG_CONFIG_HOME": str(folder / "configuration"),
    }


@pytest.fixture(scope="module")
def first(shop, environment):
    """What the first kernel asked the shop; it is gone by now."""
    with Session(MEMO, environment) as session:
        session.run()
    return shop.taken()


@pytest.fixture(scope="module")
def second(first, environment):
    """The same notebook in a second kernel, which stays."""
    with Session(MEMO, environment) as session:
        yield session.run()


@pytest.mark.parametrize("notebook", [path for path in NOTEBOOKS if path != MEMO], ids=lambda path: path.name)
def test_a_notebook_runs(notebook):
    with Session(notebook, {}) as session:
        session.run()
    shown = [output for cell in session.document.cells for output in cell.get("outputs", ())]
    assert shown
    assert [output.text for output in shown if output.get("name") == "stderr"] == [], "readers take it for a mistake"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_without_outputs(notebook):
    document = nbformat.read(notebook, as_version=4)
    nbformat.validate(document)
    assert document.metadata.kernelspec.name == "python3"
    code = [cell for cell in document.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_the_first_kernel_reads_each_order_once(first):
    assert first == ["GET 1", "GET 2", "GET 3"]


def test_the_second_kernel_reaches_the_server_never(second, shop):
    assert "0 of 3 calls reached the shop" in second.said("read")
    assert shop.taken() == []


@pytest.mark.parametrize(
    ("tag", "old", "new"),
    [
        ("tool", "return ask(order_id)", 'return {**ask(order_id), "asked": True}'),
        ("helper", "json.load(answer)", "{**json.load(answer)}"),
    ],
    ids=["the tool", "its helper"],
)
def test_an_edited_cell_reaches_the_server_again_and_an_edit_undone_does_not(second, shop, tag, old, new):
    second.edit(tag, old, new)
    second.cell("read")
    assert shop.taken() == ["GET 1", "GET 2", "GET 3"]
    second.edit(tag, new, old)
    second.cell("read")
    assert shop.taken() == []


def test_an_edited_comment_reaches_the_server_never(second, shop):
    second.edit("tool", "return ask(order_id)", "return ask(order_id)  # of the shop")
    second.edit("helper", "return json.load(answer)", "# as text\n        return json.load(answer)")
    second.cell("read")
    assert shop.taken() == []


def test_a_write_in_one_kernel_is_seen_by_the_other_at_its_next_call(second, shop, environment):
    with Session(MEMO, environment) as third:
        third.run()
        assert shop.taken() == []
        third.say('set_status("2", "lost")')
        assert shop.taken() == ["POST 2"]
        assert "'2': 'lost'" in second.cell("read")
        assert shop.taken() == ["GET 2"]
        assert "'2': 'lost'" in third.cell("read")
        second.say('set_status("3", "found")')
        shop.taken()
        assert "'3': 'found'" in third.cell("read")
        assert shop.taken() == ["GET 3"]


def test_without_a_server_of_its_own_the_notebook_brings_one(environment, tmp_path):
    environment = {"XDG_CONFIG_HOME": environment["XDG_CONFIG_HOME"]}
    with Session(MEMO, environment, folder=tmp_path) as session:
        assert "3 of 3 calls reached the shop" in session.run().said("read")
    assert (tmp_path / ".ibidem").exists()
