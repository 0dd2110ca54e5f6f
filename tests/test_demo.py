"""The demo, run as anybody runs it, and the shop that counts for it."""

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

import ibidem
from ibidem.demo import acts, view
from ibidem.demo.agent import with_ibidem
from ibidem.demo.script import SCRIPT, Scripted
from ibidem.demo.server import Shop

CALLED = sum(len(calls) for turn in SCRIPT for calls in turn.calls)

# What an exact memo must run: everything once, and again what `cancel_order` touched (O-1002, the list, the lamp).
RAN = {"get_customer": 1, "list_orders": 2, "get_order": 4, "get_product": 3, "search_products": 1, "cancel_order": 1}


def demo(*arguments, before="", **environ):
    """Run the demo in a process of its own, as a module unless something has to happen *before*."""
    code = f"{before}; import runpy; runpy.run_module('ibidem.demo', run_name='__main__', alter_sys=True)"
    how = ["-c", code] if before else ["-m", "ibidem.demo"]
    ours = re.compile(r"IBIDEM|ANTHROPIC|LANGSMITH|LANGCHAIN|COLUMNS|NO_COLOR|FORCE_COLOR|PYTHON(IOENCODING|UTF8)")
    keep = {key: value for key, value in os.environ.items() if not ours.match(key)}
    return subprocess.run(
        [sys.executable, *how, *arguments],
        env=keep | {"PYTHONIOENCODING": "utf-8"} | environ,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = demo(TMPDIR=str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.iterdir()) == [], "temporary files stay behind"
    assert done.stderr == "", "the demo warns"
    return done.stdout


def row(printed, name):
    found = re.search(rf"^{name} +(\d+) +(\d+) +([\d.]+) ", printed, re.MULTILINE)
    return int(found[1]), int(found[2]), float(found[3])


def test_both_agents_ask_the_same_and_fewer_calls_reach_the_server_with_ibidem(printed):
    called, received, seconds = row(printed, "without ibidem")
    assert (called, received) == (CALLED, CALLED)
    called_too, received_less, seconds_less = row(printed, "with ibidem")
    assert called_too == CALLED
    assert received_less == sum(RAN.values())
    assert seconds_less < seconds


def test_the_picture_tells_where_every_answer_came_from(printed):
    assert {tool: int(ran) for tool, ran in re.findall(r"^(\w+) .* (\d+) ran\b", printed, re.MULTILINE)} == RAN
    ran, memo, shared = (sum(map(int, re.findall(rf"(\d+) {came}\b", printed))) for came in ("ran", "memo", "shared"))
    assert ran + memo + shared == CALLED
    assert (printed.count("■") - 1, printed.count("□") - 1, printed.count("◇") - 1) == (ran, memo, shared)


def test_the_messages_say_what_the_statistics_count():
    graphs = []

    def noting(graph):
        graphs.append(with_ibidem(graph))
        return graphs[0]

    act = acts.play("with ibidem", Scripted(), noting)
    counted = ibidem.guard_of(graphs[0]).stats()
    assert (counted.calls, counted.ran) == (CALLED, act.requests.total())
    assert Counter(call.came for call in act.calls) == {
        "ran": counted.ran,
        "memo": counted.memo,
        "shared": counted.shared,
    }
    assert not counted.uncacheable


def test_the_read_after_the_agents_own_write_is_fresh(printed):
    assert "✓ fresh after its own write: O-1002 processing → cancelled (ran)" in printed
    assert "✗" not in printed


def test_both_transcripts_are_identical(printed):
    assert re.search(rf"✓ the transcripts are identical: \d+ messages, {CALLED} answers of tools", printed)


def test_it_fits_a_terminal_of_80_columns_and_one_that_knows_ascii_only(printed):
    assert max(map(len, printed.splitlines())) <= 80
    ascii_only = demo(PYTHONIOENCODING="ascii")
    assert ascii_only.returncode == 0, ascii_only.stderr
    assert "ok fresh after its own write: O-1002 processing -> cancelled (ran)" in ascii_only.stdout


def test_a_memo_that_knows_no_effects_is_caught(capsys):
    def naively(graph):
        for tool in graph.nodes["tools"].bound.tools_by_name.values():
            tool.func = cache(tool.func)
        return graph

    bare = acts.play("without ibidem", Scripted(), lambda graph: graph)
    naive = acts.play("naive", Scripted(), naively)
    assert not view.show([bare, naive], scripted=True)
    out = capsys.readouterr().out
    assert "STALE after its own write: O-1002 processing" in out
    assert "the transcripts DIFFER" in out
    assert not [thread for thread in threading.enumerate() if thread.name == "shop"]


def test_a_missing_extra_is_one_clear_line():
    for module in ("rich", "httpx", "langgraph.checkpoint.sqlite"):
        done = demo(before=f"import sys; sys.modules[{module!r}] = None")
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(rf"ibidem.demo: no module named {module}.*pip install 'ibidem\[demo\]'\n", done.stderr)


def test_help_says_what_it_does():
    done = demo("--help")
    assert done.returncode == 0
    assert "--live" in done.stdout
    assert "ANTHROPIC_API_KEY" in done.stdout


def test_live_without_a_key_is_one_clear_line():
    done = demo("--live")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "ANTHROPIC_API_KEY" in done.stderr


class Messages(BaseHTTPRequestHandler):
    """A Messages API that follows the script, and checks what it is sent."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        roles = [message["role"] for message in asked["messages"]]
        *earlier, last = [m["content"] if isinstance(m["content"], list) else [] for m in asked["messages"]]
        wanted = {b["id"] for blocks in earlier[-1:] for b in blocks if b["type"] == "tool_use"}
        results = [b for b in last if b["type"] == "tool_result"]
        well_formed = (
            "not-a-key" in (self.headers["X-Api-Key"], (self.headers["Authorization"] or "").removeprefix("Bearer "))
            and roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
            and {b["tool_use_id"] for b in results} == wanted
            and {"name", "description", "input_schema"} <= asked["tools"][0].keys()
        )
        said = [HumanMessage("")] + [AIMessage("")] * roles.count("assistant")
        if results:
            said.append(ToolMessage(results[-1]["content"], tool_call_id=results[-1]["tool_use_id"]))
        reply = Scripted().invoke(said) if well_formed else None
        self.send_response(200 if reply else 400)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(reply and as_claude_would(reply)).encode())

    def log_message(self, *_):
        pass


def as_claude_would(reply):
    used = [{"type": "tool_use", "id": c["id"], "name": c["name"], "input": c["args"]} for c in reply.tool_calls]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": used or [{"type": "text", "text": "Done."}],
        "stop_reason": "tool_use" if used else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


@contextmanager
def messages_api():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Messages)
    server.daemon_threads = False
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_live_lets_claude_decide():
    with messages_api() as (server, url):
        done = demo("--live", "--model", "m", ANTHROPIC_API_KEY="not-a-key", ANTHROPIC_BASE_URL=url)
    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "without ibidem")[:2] == (CALLED, CALLED)
    assert row(done.stdout, "with ibidem")[:2] == (CALLED, sum(RAN.values()))
    assert "✓ fresh after its own write: O-1002 processing → cancelled (ran)" in done.stdout
    assert {asked["model"] for asked in server.asked} == {"m"}


def test_live_says_in_one_line_that_claude_cannot_be_asked_and_never_prints_the_key():
    with messages_api() as (_, url):
        done = demo("--live", ANTHROPIC_API_KEY="sk-wrong", ANTHROPIC_BASE_URL=url)
    assert done.returncode == 2
    assert re.fullmatch(r"ibidem.demo: Claude could not be asked \(\w+RequestError\)", done.stderr.splitlines()[-1])
    assert "sk-wrong" not in done.stdout + done.stderr


def test_the_shop_counts_every_request_by_path_also_those_that_find_nothing(tmp_path):
    with Shop(tmp_path / "shop.db") as shop, httpx.Client(base_url=shop.url, trust_env=False) as http:
        with ThreadPoolExecutor(8) as pool:
            assert {r.status_code for r in pool.map(http.get, ["/customers/C-7"] * 16)} == {200}
        assert http.get("/orders/nothing").status_code == 404
        assert http.post("/nothing/O-1").status_code == 404
        assert [each["id"] for each in http.get("/products", params={"q": "lamp"}).json()] == ["P-20", "P-21"]
    expected = {"GET /customers/C-7": 16, "GET /orders/nothing": 1, "POST /nothing/O-1": 1, "GET /products?q=lamp": 1}
    assert shop.requests == Counter(expected)


def test_the_shop_cancels_once_and_puts_the_items_back(tmp_path):
    with Shop(tmp_path / "shop.db") as shop, httpx.Client(base_url=shop.url, trust_env=False) as http:
        for _ in range(2):
            assert http.post("/orders/O-1003/cancel").json()["status"] == "cancelled"
            assert http.get("/products/P-20").json()["stock"] == 5
        assert http.post("/orders/O-1001/cancel").json()["status"] == "shipped"
        assert shop.truth("O-1003") == "cancelled"
        assert shop.truth("O-9999") is None


def test_a_request_takes_as_long_as_one_over_a_network(tmp_path):
    with Shop(tmp_path / "shop.db") as shop, httpx.Client(base_url=shop.url, trust_env=False) as http:
        assert 0.06 <= http.get("/orders/O-1001").elapsed.total_seconds() < 0.5
