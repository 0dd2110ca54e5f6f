"""The demo, run as anybody runs it, and the shop that counts for it."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.sqlite import SqliteSaver

import ibidem
from ibidem.demo import acts, view
from ibidem.demo.agent import with_ibidem
from ibidem.demo.script import LATER, SCRIPT, Scripted
from ibidem.demo.server import Shop
from ibidem.demo.stage import stage

CALLED = sum(len(calls) for turn in SCRIPT for calls in turn.calls)
CALLED_LATER = sum(len(calls) for turn in LATER for calls in turn.calls)

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
    temporary, home = folder / "tmp", folder / "home"
    temporary.mkdir()
    home.mkdir()
    done = demo(TMPDIR=str(temporary), HOME=str(home), XDG_CONFIG_HOME=str(home))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(temporary.iterdir()) == [], "temporary files stay behind"
    assert list(home.iterdir()) == [], "something was written to the user's home"
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
    assert ran + memo + shared == CALLED + CALLED_LATER
    legends = printed.count("■ ran")
    assert [printed.count(mark) - legends for mark in "■□◇"] == [ran, memo, shared]


def test_the_messages_say_what_the_statistics_count():
    graphs = []

    def noting(graph):
        graphs.append(with_ibidem(graph))
        return graphs[0]

    with stage() as here:
        act = acts.play("with ibidem", Scripted(), noting, here)
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
    assert "ok O-1002 still cancelled (memo)" in ascii_only.stdout


def test_a_memo_that_knows_no_effects_is_caught(capsys):
    def naively(graph):
        for tool in graph.nodes["tools"].bound.tools_by_name.values():
            tool.func = cache(tool.func)
        return graph

    with stage() as here:
        bare = acts.play("without ibidem", Scripted(), lambda graph: graph, here)
    with stage() as here:
        naive = acts.play("naive", Scripted(), naively, here)
    assert not view.show([bare, naive], scripted=True)
    out = capsys.readouterr().out
    assert "STALE after its own write: O-1002 processing" in out
    assert "the transcripts DIFFER" in out
    assert not [thread for thread in threading.enumerate() if thread.name == "shop"]


def test_a_new_process_is_given_everything_from_the_disk(printed):
    assert row(printed, "in a new process")[:2] == (CALLED_LATER, 0)
    assert f"✓ 0 of {CALLED_LATER} reads reached the shop" in printed


def test_a_new_process_sees_what_the_old_one_wrote(printed):
    assert "✓ O-1002 still cancelled (memo)" in printed


@contextmanager
def played():
    with stage() as here, closing(ibidem.Disk(here.memo, key=here.key)) as store:
        act = acts.play("with ibidem", Scripted(), lambda graph: with_ibidem(graph, store), here)
        store.flush()
        yield here, act


def test_a_new_process_goes_on_where_the_conversation_was():
    with played() as (here, act):
        later = acts.go_on(act, here)
        with SqliteSaver.from_conn_string(str(here.threads)) as saver:
            thread = saver.get_tuple({"configurable": {"thread_id": "ann"}}).checkpoint["channel_values"]["messages"]
    assert [one.id for one in thread] == [one.id for one in (*act.transcript, *later.transcript)]
    assert later.transcript[0].content == LATER[0].asks
    assert later.transcript[-1].content.endswith("O-1002 is cancelled.")


def test_a_new_process_without_the_store_asks_the_shop_and_the_verdict_says_so(monkeypatch, capsys):
    with played() as (here, act):
        monkeypatch.setenv("IBIDEM", "memory")
        later = acts.go_on(act, here)
    assert not view.show([act], later, scripted=True)
    out = capsys.readouterr().out
    assert f"✗ {CALLED_LATER} of {CALLED_LATER} reads reached the shop" in out
    assert "✓ O-1002 still cancelled (ran)" in out


def test_a_new_process_without_the_key_believes_nothing_on_the_disk():
    with played() as (here, act):
        later = acts.go_on(act, replace(here, key="another key, long enough"))
    assert [call.came for call in later.calls] == ["ran"] * CALLED_LATER


def test_a_new_process_that_is_given_something_stale_is_caught(capsys):
    with played() as (here, act):
        with closing(sqlite3.connect(here.shop.path)) as database, database:
            database.execute("update orders set status = 'processing' where id = 'O-1002'")
        later = acts.go_on(act, here)
    assert not view.show([act], later, scripted=True)
    assert "✗ STALE in the new process: O-1002 cancelled (memo)" in capsys.readouterr().out


def test_a_new_process_that_fails_is_reported_and_fails_the_demo(capfd):
    with played() as (here, act):
        later = acts.go_on(act, replace(here, threads=here.memo))
    assert not view.show([act], later, scripted=True)
    out, err = capfd.readouterr()
    reason = "it ended with 1: sqlite3.OperationalError: unable to open database file"
    assert f"✗ the new process FAILED: {reason}" in " ".join(out.split())
    assert err == ""


def test_the_switch_that_turns_ibidem_off_is_refused_in_one_clear_line():
    done = demo(IBIDEM="off")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"ibidem.demo: the environment variable IBIDEM='off' .*; unset it\n", done.stderr)


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
    assert row(done.stdout, "in a new process")[:2] == (CALLED_LATER, 0)
    assert "✓ fresh after its own write: O-1002 processing → cancelled (ran)" in done.stdout
    assert {asked["model"] for asked in server.asked} == {"m"}


def test_live_says_in_one_line_that_claude_cannot_be_asked_and_never_prints_the_key():
    with messages_api() as (_, url):
        done = demo("--live", ANTHROPIC_API_KEY="sk-wrong", ANTHROPIC_BASE_URL=url)
    assert done.returncode == 2
    assert re.fullmatch(r"ibidem.demo: Claude could not be asked \(\w+RequestError\)", done.stderr.splitlines()[-1])
    assert "sk-wrong" not in done.stdout + done.stderr


def test_a_new_process_that_cannot_ask_claude_says_so_and_never_prints_the_key(monkeypatch, capfd):
    with messages_api() as (_, url), played() as (here, act):
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-wrong")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        later = acts.go_on(act, here, "m")
    assert re.fullmatch(r"it ended with 2: Claude could not be asked \(\w+RequestError\)", later.failed)
    view.show([act], later, scripted=False)
    assert "sk-wrong" not in "".join(capfd.readouterr())


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
