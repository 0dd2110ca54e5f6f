"""The benchmarks run and count right. No time is asserted here: that is what they are for, on a machine at rest."""

import importlib
import json
import subprocess
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
for name in ("aiocache", "cashews", "joblib", "purgatory", "rich"):
    pytest.importorskip(name, reason="the benchmarks compare with other libraries: pip install 'ibidem[bench]'")
sys.path.append(str(BENCHMARKS))
_measure = importlib.import_module("_measure")


def run(name, *options):
    """Run a benchmark as a user would."""
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / name), "--quick", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


MEASURED = ("seed.py", "cost.py", "disk.py", "failures.py", "turns.py", "plans.py", "anthropic_loops.py")


@pytest.fixture(scope="module")
def reports():
    """What each benchmark writes, by name."""
    found = {}
    with ThreadPoolExecutor(4) as beside:  # they wait most of the time, and no time counts here
        for name, done in zip(MEASURED, beside.map(lambda name: run(name, "--json"), MEASURED), strict=True):
            assert done.returncode == 0, done.stderr
            found[name] = json.loads(done.stdout)
    return found


def rows(report, title):
    """The rows of the table whose title contains a text."""
    return next(table["rows"] for table in report["tables"] if title in table["title"])


@pytest.mark.parametrize("name", MEASURED)
def test_every_count_that_a_benchmark_expects_is_right(reports, name):
    counts = [each for each in reports[name]["expectations"] if each["exact"]]
    assert counts
    assert [each for each in counts if not each["holds"]] == []


@pytest.mark.parametrize("name", ["seed.py", "cost.py"])
def test_every_measured_figure_is_one(reports, name):
    assert [each for each in reports[name]["expectations"] if not each["exact"] and not each["measured"] > 0] == []


def test_the_seeds_case_runs_as_often_as_each_memo_lets_it(reports):
    table = rows(reports["seed.py"], "20 calls, 4 different")
    runs = {memo: [row["runs"] for row in table if row["memo"] == memo] for memo in ("nothing", "cashews", "ibidem")}
    assert runs == {"nothing": [20] * 12, "cashews": [4] * 4, "ibidem": [4] * 12}
    assert all(4 <= row["runs"] <= 20 for row in table)
    assert all(row["runs, warm"] == (20 if row["memo"] == "nothing" else 0) for row in table)


def test_a_dictionary_does_not_merge_what_runs_at_once(reports):
    table = rows(reports["seed.py"], "20 calls, 4 different")
    grouped = [row["runs"] for row in table if row["memo"] == "dictionary" and row["calls"] == "one turn"]
    assert max(grouped) > 4


def test_every_way_through_a_node_runs_what_it_should(reports):
    table = rows(reports["cost.py"], "no-op tools through a ToolNode")
    assert len(table) == 45
    assert all(row["runs"] == (0 if row["way"].startswith("hit") else row["calls"]) for row in table)


def test_a_warm_memo_of_any_kind_runs_nothing(reports):
    assert {row["runs"] for row in rows(reports["cost.py"], "A hit of a plain function")} == {0}


def test_a_thousand_identical_calls_are_one_run(reports):
    table = rows(reports["cost.py"], "identical calls at once")
    assert {row["memo"]: row["runs"] for row in table}["ibidem"] == 1


def test_a_message_of_lookups_is_one_request_and_bare_langgraph_makes_twenty(reports):
    table = {row[""]: row["requests"] for row in rows(reports["turns.py"], "20 lookups, different")}
    assert {requests for name, requests in table.items() if name.startswith("bare")} == {20}
    assert {requests for name, requests in table.items() if name.startswith("ibidem")} == {1}


def test_failures_keep_the_results_and_pay_once(reports):
    table = {row[""]: row for row in rows(reports["failures.py"], "A turn of six calls")}
    assert {name: row["payments"] for name, row in table.items() if row["payments"] > 1} == {
        "tenacity, handle_tool_errors=True": 3,
        "ToolRetry- and ToolErrorMiddleware": 3,
    }
    assert table["bare ToolNode"]["results"] == 0
    assert [row["results"] for name, row in table.items() if name.startswith("ibidem")] == [2, 2]


def test_an_expectation_that_does_not_hold_is_said_and_fails_only_when_asked_to(capsys):
    report = _measure.Report("trial")
    report.table("a table", ["", "count"], [["one", 1], ["two", None]])
    report.at_most("a ratio", 1.2, 1.1, "1.2 (1.1 - 1.3)")
    report.exactly("a count", 4, 4)
    assert _measure.finish(report, Namespace(json=False, strict=False)) == 0
    shown = capsys.readouterr().out
    assert "NO" in shown
    assert "1 of 2 hold." in shown
    assert _measure.finish(report, Namespace(json=True, strict=True)) == 1
    assert [each["holds"] for each in json.loads(capsys.readouterr().out)["expectations"]] == [False, True]


def test_subjects_take_turns_and_ratios_are_formed_within_a_round():
    came = []

    def subject(name, seconds):
        def sample():
            came.append(name)
            return _measure.Sample(wall=seconds * len(came), cpu=seconds)

        return sample

    results = _measure.interleave({"a": subject("a", 1.0), "b": subject("b", 4.0)}, 5, warmup=2)
    assert [sorted(came[n : n + 2]) for n in range(0, 14, 2)] == [["a", "b"]] * 7
    assert len(results.samples["a"]) == 5
    assert results.ratio("a", "b", "cpu") == _measure.Spread(0.25, 0.25, 0.25)
